/* The commands of the program, and what they share. */
#ifndef VEXI_CLI_COMMANDS_H
#define VEXI_CLI_COMMANDS_H

#include "cli/options.h"
#include "cli/print.h"

/* Exit statuses; docs/cli.md tells them to users. */
enum { VEXI_CLI_OK = 0, VEXI_CLI_FAILED = 1, VEXI_CLI_USAGE = 2 };

extern const vexi_cli_command vexi_cli_import;
extern const vexi_cli_command vexi_cli_search;
extern const vexi_cli_command vexi_cli_info;
extern const vexi_cli_command vexi_cli_verify;
extern const vexi_cli_command vexi_cli_warm;
extern const vexi_cli_command vexi_cli_create;
extern const vexi_cli_command vexi_cli_drop;
extern const vexi_cli_command vexi_cli_flush;
extern const vexi_cli_command vexi_cli_bench;

/* Read the command's arguments. False: the program ends with *status, after help or a message. */
bool vexi_cli_begin(const vexi_cli_command *command, int argc, char **argv,
                    vexi_cli_arguments *arguments, int *status);

/* Open the lake that --lake names. Warnings of the library go to stderr. A lake to read is opened
 * without a lock and must exist; one to write is made only with `may_make`. */
typedef enum vexi_cli_access { VEXI_CLI_READ, VEXI_CLI_WRITE, VEXI_CLI_MAKE } vexi_cli_access;
vex_status vexi_cli_open(const vexi_cli_arguments *arguments, vexi_cli_access access,
                         vex_lake **lake, vex_error *err);

/* Options of every command that opens a lake to read; they stand last in its table. vexi_cli_open
 * reads them where `access` is VEXI_CLI_READ. */
#define VEXI_CLI_S3_OPTIONS                                                                   \
    {"endpoint", 0, false, "URL", "of s3://: the server; default: AWS_ENDPOINT_URL, AWS"},    \
        {"region", 0, false, "NAME", "of s3://: the region; default: AWS_REGION, us-east-1"}, \
        {"profile", 0, false, "NAME", "of s3://: profile of the AWS files"},                  \
        {"ca-file", 0, false, "FILE", "of s3://: certificate authorities"},                   \
        {"insecure", 0, false, NULL, "of s3://: accept any certificate"},                     \
        {"virtual-host", 0, false, NULL, "of s3://: name the bucket in the host"},            \
        {"cache-dir", 0, false, "FOLDER", "of s3://: keep what is read there, for later"}, {  \
        "cache-size", 0, false, "MIB", "of s3://: size of that folder; default: 10240"        \
    }

/* Close the lake, print the message if `status` or the closing is not VEX_OK, and turn it into an
 * exit status: VEXI_CLI_USAGE for VEX_INVALID with no lake opened, else VEXI_CLI_FAILED. */
int vexi_cli_end(const vexi_cli_command *command, vex_lake *lake, vex_status status,
                 vex_error *err);

/* How rows are printed: --json, else a table on a terminal and tabs elsewhere. */
vexi_cli_style vexi_cli_style_of(const vexi_cli_arguments *arguments);

/* The collection that --in names, or `fallback` (may be NULL: all of them). */
vex_string vexi_cli_collection(const vexi_cli_arguments *arguments, const char *fallback);

/* --recall: above 0, at most 1; 0 if it is absent. */
vex_status vexi_cli_recall(const vexi_cli_arguments *arguments, float *out, vex_error *err);
/* --bits: 1, 4 or 8; 0 if it is absent. */
vex_status vexi_cli_bits(const vexi_cli_arguments *arguments, uint32_t *out, vex_error *err);

/* Texts of the enumerations, in their order, as options take them. */
#define VEXI_CLI_METRICS "l2|cosine|ip"
#define VEXI_CLI_INDEXES "auto|flat|ivf|hnsw"
#define VEXI_CLI_TYPES   "int64|double|string|bool|timestamp"
/* The place-th of "a|b|c", copied. */
const char *vexi_cli_nth(const char *choices, uint32_t place, char out[32]);

/* Read "[0.1, 2, -3e-4]": numbers split by commas or white space.
 * VEX_INVALID  it is something else, empty, or longer than `max`; the message says where. */
vex_status vexi_cli_read_vector(const char *text, uint32_t max, float *values, uint32_t *dimension,
                                vex_error *err);

#endif
