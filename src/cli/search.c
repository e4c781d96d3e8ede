/* vexlake search: the nearest rows of a vector or of a stored row. */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "cli/commands.h"

enum { ASKED_MAX = VEX_COLUMNS_MAX + 3 };

/* Split "a,b,c". */
static vex_status read_columns(const char *text, vex_string columns[ASKED_MAX], uint32_t *count,
                               vex_error *err) {
    *count = 0;
    while (text != NULL) {
        size_t size = strcspn(text, ",");
        if (size == 0) {
            return vexi_fail(err, VEX_INVALID, "--columns has an empty name");
        }
        if (*count == ASKED_MAX) {
            return vexi_fail(err, VEX_INVALID, "--columns names more than %d columns", ASKED_MAX);
        }
        columns[(*count)++] = (vex_string){.data = text, .size = size};
        text = text[size] == ',' ? text + size + 1 : NULL;
    }
    return VEX_OK;
}

static void print_stats(const vex_search_stats *stats) {
    fprintf(stderr,
            "segments %" PRIu64 " (%" PRIu64 " by lists, %" PRIu64 " by graph, %" PRIu64
            " left out), lists %" PRIu64 ", hops %" PRIu64 ", codes %" PRIu64 ", vectors %" PRIu64
            ", pages %" PRIu64 " (%" PRIu64 " bytes)\n",
            stats->segment_count, stats->segment_ivf_count, stats->segment_graph_count,
            stats->segment_skip_count, stats->list_count, stats->hop_count, stats->code_count,
            stats->row_count, stats->page_count, stats->read_bytes);
    if (stats->step_count > 0) {
        fprintf(stderr,
                "steps %" PRIu64 ", requests %" PRIu64 " (%" PRIu64 " bytes), cache hits %" PRIu64
                "\n",
                stats->step_count, stats->request_count, stats->request_bytes, stats->hit_count);
    }
}

/* Fill `options` and the query from the arguments. */
static vex_status read_query(const vexi_cli_arguments *arguments, vex_search_options *options,
                             vex_string *columns, vex_string *id, float *vector,
                             uint32_t *dimension, vex_error *err) {
    const char *text = vexi_cli_value(arguments, "vector");
    const char *row = vexi_cli_value(arguments, "id");
    if ((text == NULL) == (row == NULL)) {
        return vexi_fail(err, VEX_INVALID, "give either --vector or --id");
    }
    if (row != NULL) {
        *id = vexi_string_of(row);
        options->query_ids = id;
    } else {
        VEX_TRY(vexi_cli_read_vector(text, VEX_DIMENSION_MAX, vector, dimension, err));
    }
    VEX_TRY(vexi_cli_number(arguments, "count", 1, VEX_K_MAX, 10, &options->k, err));
    VEX_TRY(vexi_cli_recall(arguments, &options->recall, err));
    VEX_TRY(vexi_cli_number(arguments, "nprobe", 1, UINT32_MAX, 0, &options->nprobe, err));
    VEX_TRY(vexi_cli_number(arguments, "ef", 1, UINT32_MAX, 0, &options->ef, err));
    VEX_TRY(
        read_columns(vexi_cli_value(arguments, "columns"), columns, &options->column_count, err));
    options->columns = columns;
    options->exact = vexi_cli_flag(arguments, "exact");
    options->partial = vexi_cli_flag(arguments, "partial");
    options->consistent = vexi_cli_flag(arguments, "consistent");
    return VEX_OK;
}

static int run_search(const vexi_cli_command *command, int argc, char **argv) {
    vexi_cli_arguments arguments;
    int exit_status;
    if (!vexi_cli_begin(command, argc, argv, &arguments, &exit_status)) {
        return exit_status;
    }
    vex_search_stats stats = {0};
    vex_search_options options = {.size = sizeof options, .stats = &stats};
    vex_string columns[ASKED_MAX], id;
    float vector[VEX_DIMENSION_MAX];
    uint32_t dimension = 0;
    vex_lake *lake = NULL;
    vex_error err;
    struct ArrowSchema schema = {0};
    struct ArrowArray batch = {0};
    vex_status status;
    VEX_TRY_GOTO(status, done,
                 read_query(&arguments, &options, columns, &id, vector, &dimension, &err));
    VEX_TRY_GOTO(status, done, vexi_cli_open(&arguments, VEXI_CLI_READ, &lake, &err));
    VEX_TRY_GOTO(status, done,
                 vex_search(lake, vexi_cli_collection(&arguments, "default"),
                            options.query_ids == NULL ? vector : NULL, 1, dimension, &options,
                            &schema, &batch, &err));
    status = vexi_cli_print(&schema, &batch, 1, vexi_cli_style_of(&arguments), stdout, &err);
    if (status == VEX_OK && vexi_cli_flag(&arguments, "stats")) {
        print_stats(&stats);
    }
done:
    if (schema.release != NULL) {
        schema.release(&schema);
    }
    if (batch.release != NULL) {
        batch.release(&batch);
    }
    return vexi_cli_end(command, lake, status, &err);
}

static const vexi_cli_option options[] = {
    {"lake", 0, true, "URI", "the lake: a folder, file://... or s3://bucket/prefix"},
    {"in", 0, false, "NAME", "the collection; default: default"},
    {"vector", 0, false, "'[...]'", "the query: numbers split by commas"},
    {"id", 0, false, "ID", "instead: the vector of this row"},
    {"count", 'k', false, "N", "how many rows; default 10"},
    {"columns", 0, false, "A,B", "columns to print behind id and distance"},
    {"recall", 0, false, "R", "share of the true neighbours to aim at; default: the collection's"},
    {"nprobe", 0, false, "N", "posting lists to look at in each segment, instead of --recall"},
    {"ef", 0, false, "N", "beam in segments with a graph, instead of --recall"},
    {"exact", 0, false, NULL, "compare every row"},
    {"partial", 0, false, NULL, "leave out damaged segments instead of failing"},
    {"consistent", 0, false, NULL, "see what other nodes wrote up to now"},
    {"json", 0, false, NULL, "print a JSON object per row"},
    {"stats", 0, false, NULL, "tell on stderr what the search did"},
    VEXI_CLI_S3_OPTIONS,
    {0},
};

const vexi_cli_command vexi_cli_search = {
    .name = "search",
    .summary = "Print the rows nearest to a vector, or to a stored row, nearest first.",
    .details = "The lake is opened for reading only, so a server may have it open. Rows that the\n"
               "server has not flushed yet are found too. Columns are vector, attributes, payload\n"
               "and the collection's own. On a terminal the rows are an aligned table with long\n"
               "values cut; elsewhere they are lines split by tabs, the first with the names.",
    .options = options,
    .run = run_search,
};
