/* Command-line options: one table per command says what there is; reading, help and docs/cli.md
 * all come from it. */
#ifndef VEXI_CLI_OPTIONS_H
#define VEXI_CLI_OPTIONS_H

#include <stdio.h>

#include "base/status.h"

#define VEXI_CLI_OPTIONS_MAX 32u

/* One option. A name is `--name`; the value may follow as the next argument or behind `=`. */
typedef struct vexi_cli_option {
    const char *name;  /* without the dashes; ends the table when NULL                          */
    char letter;       /* short form `-k`, 0 if none                                            */
    bool required;     /* the command fails without it                                          */
    const char *value; /* what the value is called in the help; NULL for a flag                 */
    const char *help;  /* a sentence without its full stop                                      */
} vexi_cli_option;

/* A command. */
typedef struct vexi_cli_command {
    const char *name;
    const char *operands; /* e.g. "FILE..."; NULL if it takes none                              */
    const char *summary;  /* a sentence                                                         */
    const char *details;  /* further paragraphs, or NULL                                        */
    uint32_t operand_min;
    uint32_t operand_max;
    const vexi_cli_option *options; /* borrowed, static                                         */
    /* Run it; argv[0] is the command's name. Returns the exit status. */
    int (*run)(const struct vexi_cli_command *command, int argc, char **argv);
} vexi_cli_command;

/* What was given. Everything is borrowed from argv. */
typedef struct vexi_cli_arguments {
    const vexi_cli_command *command;
    const char
        *values[VEXI_CLI_OPTIONS_MAX]; /* by place in the table; "" for a flag; NULL: absent */
    uint32_t operand_count;
    char **operands; /* argv, reordered so that the operands come first */
    bool help;       /* --help or -h: nothing else was checked */
} vexi_cli_arguments;

/* Read argv[1..argc) by the command's table. Options and operands may mix; `--` ends the options.
 *
 * VEX_INVALID  an unknown, repeated or missing option, a missing or unwanted value, too few or too
 *              many operands; the message says which. */
vex_status vexi_cli_read(const vexi_cli_command *command, int argc, char **argv,
                         vexi_cli_arguments *out, vex_error *err);

/* The value of an option that the table has (anything else is our mistake), or NULL. */
const char *vexi_cli_value(const vexi_cli_arguments *arguments, const char *name);
bool vexi_cli_flag(const vexi_cli_arguments *arguments, const char *name);

/* The value as a whole number in min..max; *out is `fallback` if the option is absent. */
vex_status vexi_cli_number(const vexi_cli_arguments *arguments, const char *name, uint32_t min,
                           uint32_t max, uint32_t fallback, uint32_t *out, vex_error *err);

/* The value as one of `choices` ("l2|cosine|ip"): its place among them, `fallback` if absent. */
vex_status vexi_cli_choice(const vexi_cli_arguments *arguments, const char *name,
                           const char *choices, uint32_t fallback, uint32_t *out, vex_error *err);

/* Print the command's help as text, or as a section of docs/cli.md. */
void vexi_cli_help(const vexi_cli_command *command, FILE *out);
void vexi_cli_help_markdown(const vexi_cli_command *command, FILE *out);

#endif
