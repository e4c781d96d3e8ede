/* What the commands share: beginning, opening, ending, and reading a vector. */
#include "cli/commands.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "resp/resp.h"

bool vexi_cli_begin(const vexi_cli_command *command, int argc, char **argv,
                    vexi_cli_arguments *arguments, int *status) {
    vex_error err;
    if (vexi_cli_read(command, argc, argv, arguments, &err) != VEX_OK) {
        fprintf(stderr, "vexlake %s: %s (vexlake %s --help tells more)\n", command->name,
                err.message, command->name);
        *status = VEXI_CLI_USAGE;
        return false;
    }
    if (arguments->help) {
        vexi_cli_help(command, stdout);
        *status = VEXI_CLI_OK;
        return false;
    }
    return true;
}

static void log_to_stderr(void *context, int level, const char *message) {
    const vexi_cli_command *command = context;
    if (level >= 2) {
        fprintf(stderr, "vexlake %s: %s: %s\n", command->name, level == 2 ? "warning" : "error",
                message);
    }
}

vex_status vexi_cli_open(const vexi_cli_arguments *arguments, vexi_cli_access access,
                         vex_lake **lake, vex_error *err) {
    vex_lake_options options = {
        .size = sizeof options,
        .read_only = access == VEXI_CLI_READ,
        .must_exist = access != VEXI_CLI_MAKE,
        .log = log_to_stderr,
        .log_context = (void *)(uintptr_t)arguments->command,
    };
    if (access == VEXI_CLI_READ) {
        options.s3_endpoint = vexi_cli_value(arguments, "endpoint");
        options.s3_region = vexi_cli_value(arguments, "region");
        options.s3_profile = vexi_cli_value(arguments, "profile");
        options.s3_ca_file = vexi_cli_value(arguments, "ca-file");
        options.s3_insecure = vexi_cli_flag(arguments, "insecure");
        options.s3_virtual_host = vexi_cli_flag(arguments, "virtual-host");
        if (arguments->command != &vexi_cli_verify) { /* which is about the bucket's own bytes */
            options.cache_folder = vexi_cli_value(arguments, "cache-dir");
        }
        options.no_prefetch = true; /* a command knows what it needs */
        uint32_t mebibytes;
        VEX_TRY(vexi_cli_number(arguments, "cache-size", 4, 1u << 30, 10240, &mebibytes, err));
        options.cache_size_bytes = (uint64_t)mebibytes << 20;
    }
    return vex_lake_open(vexi_cli_value(arguments, "lake"), &options, lake, err);
}

vex_status vexi_cli_recall(const vexi_cli_arguments *arguments, float *out, vex_error *err) {
    *out = 0;
    const char *text = vexi_cli_value(arguments, "recall");
    if (text == NULL) {
        return VEX_OK;
    }
    size_t size = strlen(text); /* the NUL behind it ends the number */
    if (size == 0 || vexi_parse_float(text, size + 1, out) != size || !(*out > 0 && *out <= 1)) {
        return vexi_fail(err, VEX_INVALID,
                         "--recall is a number above 0 and at most 1, not '%.100s'", text);
    }
    return VEX_OK;
}

vex_status vexi_cli_bits(const vexi_cli_arguments *arguments, uint32_t *out, vex_error *err) {
    VEX_TRY(vexi_cli_number(arguments, "bits", 1, 8, 0, out, err));
    if (*out != 0 && *out != 1 && *out != 4 && *out != 8) {
        return vexi_fail(err, VEX_INVALID, "--bits is 1, 4 or 8, not %u", *out);
    }
    return VEX_OK;
}

int vexi_cli_end(const vexi_cli_command *command, vex_lake *lake, vex_status status,
                 vex_error *err) {
    bool opened = lake != NULL;
    vex_error close_err;
    vex_status close_status = vex_lake_close(lake, &close_err);
    if (status == VEX_OK && close_status != VEX_OK) {
        status = close_status;
        *err = close_err;
    }
    if (status == VEX_OK && fflush(stdout) != 0) {
        status = vexi_fail(err, VEX_IO, "writing to the standard output failed");
    }
    if (status == VEX_OK) {
        return VEXI_CLI_OK;
    }
    fprintf(stderr, "vexlake %s: ", command->name);
    vexi_cli_print_safe(err->message, strlen(err->message), stderr);
    fputc('\n', stderr);
    return status == VEX_INVALID && !opened ? VEXI_CLI_USAGE : VEXI_CLI_FAILED;
}

vexi_cli_style vexi_cli_style_of(const vexi_cli_arguments *arguments) {
    if (vexi_cli_flag(arguments, "json")) {
        return VEXI_CLI_JSON;
    }
    return isatty(STDOUT_FILENO) ? VEXI_CLI_TABLE : VEXI_CLI_TABS;
}

vex_string vexi_cli_collection(const vexi_cli_arguments *arguments, const char *fallback) {
    const char *name = vexi_cli_value(arguments, "in");
    name = name != NULL ? name : fallback;
    return name != NULL ? vexi_string_of(name) : (vex_string){0};
}

const char *vexi_cli_nth(const char *choices, uint32_t place, char out[32]) {
    for (; place > 0; place--) {
        size_t size = strcspn(choices, "|");
        VEX_ASSERT(choices[size] == '|');
        choices += size + 1;
    }
    (void)snprintf(out, 32, "%.*s", (int)strcspn(choices, "|"), choices);
    return out;
}

vex_status vexi_cli_read_vector(const char *text, uint32_t max, float *values, uint32_t *dimension,
                                vex_error *err) {
    *dimension = 0;
    size_t end = strlen(text);
    if (end < 2 || text[0] != '[' || text[end - 1] != ']') {
        return vexi_fail(err, VEX_INVALID, "a vector is written [0.1, 0.2, ...]");
    }
    bool comma = false; /* one stands behind the last value */
    for (size_t i = 1; i < end - 1;) {
        char c = text[i];
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
            i++;
        } else if (c == ',' && *dimension > 0 && !comma) {
            comma = true;
            i++;
        } else {
            float value;
            size_t size = vexi_parse_float(text + i, end - i, &value);
            if (size == 0 || strchr(" \t\n\r,]", text[i + size]) == NULL) {
                return vexi_fail(err, VEX_INVALID, "the vector has no number at character %zu",
                                 i + 1);
            }
            if (!isfinite(value)) {
                return vexi_fail(err, VEX_INVALID, "value %" PRIu32 " of the vector is too large",
                                 *dimension + 1);
            }
            if (*dimension == max) {
                return vexi_fail(err, VEX_INVALID, "the vector has more than %" PRIu32 " values",
                                 max);
            }
            values[(*dimension)++] = value;
            comma = false;
            i += size;
        }
    }
    if (*dimension == 0 || comma) {
        return vexi_fail(err, VEX_INVALID,
                         *dimension == 0 ? "the vector is empty" : "the vector ends with a comma");
    }
    return VEX_OK;
}
