/* The program `vexlake`: one word chooses the command, the rest is the command's. */
#include <string.h>
#ifdef __GLIBC__ /* string.h told */
#include <malloc.h>
#endif

#include "cli/commands.h"
#include "server/serve.h"

static const vexi_cli_command *const commands[] = {
    &vexi_cli_import, &vexi_cli_search, &vexi_cli_info,  &vexi_cli_verify, &vexi_cli_warm,
    &vexi_cli_create, &vexi_cli_drop,   &vexi_cli_flush, &vexi_cli_bench,
};
enum { COMMAND_COUNT = sizeof commands / sizeof commands[0] };

static const char exit_text[] =
    "Exit status: 0 if all went well, 1 if the command failed, was interrupted or found\n"
    "problems, 2 if its arguments make no sense. Messages go to stderr, results to stdout.\n";

static const vexi_cli_command *find_command(const char *name) {
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i]->name, name) == 0) {
            return commands[i];
        }
    }
    return NULL;
}

static void print_overview(FILE *out) {
    fprintf(out, "Usage: vexlake COMMAND [OPTION...]\n\nA vector lake: nearest neighbours over"
                 " Parquet files, spoken to as a Redis server.\n\nCommands:\n");
    fprintf(out, "  %-9s%s\n", "serve", "Serve a lake to Redis clients.");
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        fprintf(out, "  %-9s%s\n", commands[i]->name, commands[i]->summary);
    }
    fprintf(out, "  %-9s%s\n", "version", "Print the version.");
    fprintf(out, "  %-9s%s\n", "help", "Print this, or the help of a command.");
    fprintf(out, "\n%s", exit_text);
}

static void print_markdown(void) {
    printf(
        "# The command line\n\n<!-- Generated: vexlake help --markdown >docs/cli.md -->\n\n"
        "One program, `vexlake`, with these commands. `vexlake COMMAND --help` prints the same.\n\n"
        "%s\n## vexlake serve\n\n    vexlake serve --lake URI [OPTION...]\n\nServe a lake to"
        " Redis clients. [commands.md](commands.md) lists its commands and settings.\n",
        exit_text);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        vexi_cli_help_markdown(commands[i], stdout);
    }
    printf("\n## vexlake version\n\nPrint the version.\n");
}

static int run_help(int argc, char **argv) {
    if (argc < 2) {
        print_overview(stdout);
        return VEXI_CLI_OK;
    }
    if (strcmp(argv[1], "--markdown") == 0) {
        print_markdown();
        return VEXI_CLI_OK;
    }
    if (strcmp(argv[1], "serve") == 0) {
        char *arguments[] = {argv[1], (char[]){"--help"}, NULL};
        return vexi_serve_command(2, arguments);
    }
    const vexi_cli_command *command = find_command(argv[1]);
    if (command == NULL) {
        fprintf(stderr, "vexlake help: there is no command '%.100s'\n", argv[1]);
        return VEXI_CLI_USAGE;
    }
    vexi_cli_help(command, stdout);
    return VEXI_CLI_OK;
}

/* Give memory back when a memtable or a segment's buffers are done with. glibc raises its threshold
 * for mapping blocks to the largest block ever freed, up to 32 MiB; then what a flush frees stays
 * in fragmented heaps: a server that flushed 600,000 rows of 128 values in pieces of 8 MiB kept 64
 * MiB without need. A fixed threshold costs nothing measurable (docs/performance.md, vset). */
static void limit_retention(void) {
#ifdef M_MMAP_THRESHOLD
    (void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, 16 << 20);
#endif
}

int main(int argc, char **argv) {
    limit_retention();
    if (argc < 2) {
        print_overview(stderr);
        return VEXI_CLI_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "serve") == 0) {
        return vexi_serve_command(argc - 1, argv + 1);
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        return run_help(argc - 1, argv + 1);
    }
    if (strcmp(name, "version") == 0 || strcmp(name, "--version") == 0) {
        printf("vexlake %s\n", vex_version());
        return VEXI_CLI_OK;
    }
    const vexi_cli_command *command = find_command(name);
    if (command == NULL) {
        fprintf(stderr, "vexlake: there is no command '%.100s' (vexlake help lists them)\n", name);
        return VEXI_CLI_USAGE;
    }
    return command->run(command, argc - 1, argv + 1);
}
