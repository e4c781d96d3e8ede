/* Reading a command line by a table.
 *
 * getopt_long is not used: it reorders argv by its own rules, keeps its state in globals, and
 * prints messages that do not name the command. What is read here is small and strict: an option is
 * given once, a value is never optional, abbreviations are not accepted (they break when an option
 * is added). */
#include "cli/options.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* The place of the option that `text` (with its dashes) names, or -1. *value_in_text receives what
 * stands behind `=` or behind a letter, NULL if nothing does. */
static int find_option(const vexi_cli_command *command, const char *text,
                       const char **value_in_text) {
    *value_in_text = NULL;
    if (text[1] != '-') {
        for (int i = 0; command->options[i].name != NULL; i++) {
            if (command->options[i].letter == text[1]) {
                *value_in_text = text[2] != '\0' ? text + 2 : NULL;
                return i;
            }
        }
        return -1;
    }
    const char *name = text + 2;
    size_t size = strcspn(name, "=");
    for (int i = 0; command->options[i].name != NULL; i++) {
        if (strlen(command->options[i].name) == size &&
            strncmp(command->options[i].name, name, size) == 0) {
            *value_in_text = name[size] == '=' ? name + size + 1 : NULL;
            return i;
        }
    }
    return -1;
}

static bool is_help(const char *text) {
    return strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0;
}

static vex_status check_complete(const vexi_cli_arguments *arguments, vex_error *err) {
    const vexi_cli_command *command = arguments->command;
    for (uint32_t i = 0; command->options[i].name != NULL; i++) {
        if (command->options[i].required && arguments->values[i] == NULL) {
            return vexi_fail(err, VEX_INVALID, "--%s %s is missing", command->options[i].name,
                             command->options[i].value);
        }
    }
    if (arguments->operand_count < command->operand_min) {
        return vexi_fail(err, VEX_INVALID, "%s is missing", command->operands);
    }
    if (arguments->operand_count > command->operand_max) {
        return vexi_fail(err, VEX_INVALID, "unexpected argument '%.100s'",
                         arguments->operands[command->operand_max]);
    }
    return VEX_OK;
}

vex_status vexi_cli_read(const vexi_cli_command *command, int argc, char **argv,
                         vexi_cli_arguments *out, vex_error *err) {
    *out = (vexi_cli_arguments){.command = command, .operands = argv + 1};
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (is_help(argv[i])) {
            out->help = true;
            return VEX_OK;
        }
    }
    bool options_ended = false;
    for (int i = 1; i < argc; i++) {
        char *text = argv[i];
        if (options_ended || text[0] != '-' || text[1] == '\0') {
            out->operands[out->operand_count++] = text; /* never ahead of i */
            continue;
        }
        if (strcmp(text, "--") == 0) {
            options_ended = true;
            continue;
        }
        const char *value;
        int place = find_option(command, text, &value);
        if (place < 0) {
            return vexi_fail(err, VEX_INVALID, "unknown option '%.100s'", text);
        }
        const vexi_cli_option *option = &command->options[place];
        if (out->values[place] != NULL) {
            return vexi_fail(err, VEX_INVALID, "--%s is given twice", option->name);
        }
        if (option->value == NULL) {
            if (value != NULL) {
                return vexi_fail(err, VEX_INVALID, "--%s takes no value", option->name);
            }
            value = "";
        } else if (value == NULL) {
            if (i + 1 >= argc) {
                return vexi_fail(err, VEX_INVALID, "--%s needs a value: %s", option->name,
                                 option->value);
            }
            value = argv[++i];
        }
        out->values[place] = value;
    }
    return check_complete(out, err);
}

const char *vexi_cli_value(const vexi_cli_arguments *arguments, const char *name) {
    for (uint32_t i = 0; arguments->command->options[i].name != NULL; i++) {
        if (strcmp(arguments->command->options[i].name, name) == 0) {
            return arguments->values[i];
        }
    }
    bool known_option = false;
    VEX_ASSERT(known_option);
    return NULL;
}

bool vexi_cli_flag(const vexi_cli_arguments *arguments, const char *name) {
    return vexi_cli_value(arguments, name) != NULL;
}

vex_status vexi_cli_number(const vexi_cli_arguments *arguments, const char *name, uint32_t min,
                           uint32_t max, uint32_t fallback, uint32_t *out, vex_error *err) {
    *out = fallback;
    const char *text = vexi_cli_value(arguments, name);
    if (text == NULL) {
        return VEX_OK;
    }
    errno = 0;
    char *end = NULL;
    unsigned long long number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || number < min ||
        number > max) {
        return vexi_fail(err, VEX_INVALID,
                         "--%s is a whole number from %" PRIu32 " to %" PRIu32 ", not '%.100s'",
                         name, min, max, text);
    }
    *out = (uint32_t)number;
    return VEX_OK;
}

vex_status vexi_cli_choice(const vexi_cli_arguments *arguments, const char *name,
                           const char *choices, uint32_t fallback, uint32_t *out, vex_error *err) {
    *out = fallback;
    const char *text = vexi_cli_value(arguments, name);
    if (text == NULL) {
        return VEX_OK;
    }
    uint32_t place = 0;
    for (const char *choice = choices;; place++) {
        size_t size = strcspn(choice, "|");
        if (strlen(text) == size && strncmp(choice, text, size) == 0) {
            *out = place;
            return VEX_OK;
        }
        if (choice[size] == '\0') {
            return vexi_fail(err, VEX_INVALID, "--%s is one of %s, not '%.100s'", name, choices,
                             text);
        }
        choice += size + 1;
    }
}

/* "--lake URI", "-k, --count N". */
static void format_option(const vexi_cli_option *option, char *out, size_t size) {
    char letter[5] = "";
    if (option->letter != 0) {
        (void)snprintf(letter, sizeof letter, "-%c, ", option->letter);
    }
    (void)snprintf(out, size, "%s--%s%s%s", letter, option->name, option->value != NULL ? " " : "",
                   option->value != NULL ? option->value : "");
}

static void print_usage(const vexi_cli_command *command, FILE *out) {
    fprintf(out, "vexlake %s", command->name);
    bool optional = false;
    for (const vexi_cli_option *option = command->options; option->name != NULL; option++) {
        if (option->required) {
            fprintf(out, " --%s %s", option->name, option->value);
        } else {
            optional = true;
        }
    }
    fprintf(out, "%s%s%s\n", optional ? " [OPTION...]" : "", command->operands != NULL ? " " : "",
            command->operands != NULL ? command->operands : "");
}

void vexi_cli_help(const vexi_cli_command *command, FILE *out) {
    fprintf(out, "Usage: ");
    print_usage(command, out);
    fprintf(out, "\n%s\n", command->summary);
    if (command->details != NULL) {
        fprintf(out, "\n%s\n", command->details);
    }
    if (command->options[0].name != NULL) {
        fprintf(out, "\nOptions:\n");
    }
    for (const vexi_cli_option *option = command->options; option->name != NULL; option++) {
        char text[64];
        format_option(option, text, sizeof text);
        fprintf(out, "  %-22s %s%s\n", text, option->help, option->required ? " (required)" : "");
    }
}

void vexi_cli_help_markdown(const vexi_cli_command *command, FILE *out) {
    fprintf(out, "\n## vexlake %s\n\n    ", command->name);
    print_usage(command, out);
    fprintf(out, "\n%s\n", command->summary);
    if (command->details != NULL) {
        fprintf(out, "\n%s\n", command->details);
    }
    if (command->options[0].name != NULL) {
        fprintf(out, "\n| option | meaning |\n| --- | --- |\n");
    }
    for (const vexi_cli_option *option = command->options; option->name != NULL; option++) {
        char text[64];
        format_option(option, text, sizeof text);
        fprintf(out, "| `");
        for (const char *c = text; *c != '\0'; c++) {
            fprintf(out, *c == '|' ? "\\%c" : "%c", *c);
        }
        fprintf(out, "` | %s%s |\n", option->help, option->required ? " (required)" : "");
    }
}
