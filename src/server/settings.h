/* Settings of the server. One table (settings.c) makes the flags, the keys of the configuration
 * file, CONFIG GET, --help and their page in docs/commands.md. */
#ifndef VEXI_SERVER_SETTINGS_H
#define VEXI_SERVER_SETTINGS_H

#include "base/buffer.h"

#define VEXI_TEXT_SETTING_SIZE 1024u
#define VEXI_IMPORT_DIRS_MAX   16u
#define VEXI_PORT_OFF          UINT64_MAX

typedef struct vexi_settings {
    char lake[VEXI_TEXT_SETTING_SIZE];
    char bind[VEXI_TEXT_SETTING_SIZE];
    char requirepass[VEXI_TEXT_SETTING_SIZE];
    char config[VEXI_TEXT_SETTING_SIZE];
    char s3_endpoint[VEXI_TEXT_SETTING_SIZE];
    char s3_region[VEXI_TEXT_SETTING_SIZE];
    char s3_profile[VEXI_TEXT_SETTING_SIZE];
    char s3_ca_file[VEXI_TEXT_SETTING_SIZE];
    uint64_t s3_insecure;
    uint64_t s3_virtual_host;
    char import_dirs[VEXI_IMPORT_DIRS_MAX][VEXI_TEXT_SETTING_SIZE];
    uint64_t import_dir_count;
    uint64_t port;
    char http_bind[VEXI_TEXT_SETTING_SIZE];
    uint64_t http_port;  /* VEXI_PORT_OFF: none */
    uint64_t durability; /* a vex_durability */
    uint64_t sync_interval_ms;
    uint64_t role; /* 0: writer, 1: reader */
    uint64_t takeover;
    uint64_t group_delay_ms;
    uint64_t group_size_bytes;
    uint64_t poll_interval_ms;
    uint64_t flush_size_bytes;
    uint64_t flush_interval_s;
    uint64_t memory_bytes;
    uint64_t memtable_memory_bytes;
    uint64_t cache_memory_bytes;
    char cache_dir[VEXI_TEXT_SETTING_SIZE];
    uint64_t cache_size_bytes;
    uint64_t prefetch;
    uint64_t graph_memory_bytes;
    uint64_t thread_count; /* 0: one per core */
    uint64_t search_thread_count;
    uint64_t client_max;
    uint64_t query_buffer_limit;
    uint64_t output_buffer_limit;
    uint64_t read_only;
    uint64_t log_level;
} vexi_settings;

/* What else a command line can ask for. */
typedef struct vexi_settings_request {
    bool help;     /* --help */
    bool markdown; /* --print-docs: docs/commands.md on stdout (tools/gen-docs) */
} vexi_settings_request;

void vexi_settings_defaults(vexi_settings *settings);

/* Read flags argv[1..argc): `--name value` or `--name=value`. The file that --config names is read
 * first, so flags win; --import-dir adds to the file's.
 *
 * VEX_INVALID  an unknown flag or key, or a value that does not fit; the message names it, and for
 *              a file its line.
 * VEX_IO       the file cannot be read. */
vex_status vexi_settings_parse(vexi_settings *settings, int argc, char **argv,
                               vexi_settings_request *request, vex_error *err);

/* Read the text of a configuration file: `key value` a line, # comments. `path` is for messages. */
vex_status vexi_settings_parse_text(vexi_settings *settings, const char *text, size_t size,
                                    const char *path, vex_error *err);

/* Append a line per flag, for --help, or a table row per setting in Markdown. */
void vexi_settings_help(vexi_buffer *out);
void vexi_settings_markdown(vexi_buffer *out);

/* Walk the settings: name and value as text (a password never shows) of the i-th; false behind the
 * last. `value` has room for size bytes. */
bool vexi_settings_at(const vexi_settings *settings, size_t i, const char **name, char *value,
                      size_t size);

#endif
