/* vexlake info, verify, create, drop, flush: looking after collections. */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "cli/commands.h"

static void release(struct ArrowSchema *schema, struct ArrowArray *batch) {
    if (schema->release != NULL) {
        schema->release(schema);
    }
    if (batch->release != NULL) {
        batch->release(batch);
    }
}

/* ---- info ------------------------------------------------------------------------------------ */

/* The facts of a collection as name and text, in the order of printing; numbers are bare in JSON.
 */
typedef struct fact {
    const char *name;
    char text[64];
    bool number;
} fact;

enum { FACT_COUNT = 21 };

static void set_number(fact *f, const char *name, uint64_t number) {
    f->name = name;
    f->number = true;
    (void)snprintf(f->text, sizeof f->text, "%" PRIu64, number);
}

static void set_text(fact *f, const char *name, const char *text) {
    f->name = name;
    f->number = false;
    (void)snprintf(f->text, sizeof f->text, "%s", text);
}

static void collect_facts(const vex_collection_info *info, fact facts[FACT_COUNT]) {
    char text[32];
    set_number(&facts[0], "rows", info->row_count);
    set_number(&facts[1], "dimension", info->dimension);
    set_text(&facts[2], "metric", vexi_cli_nth(VEXI_CLI_METRICS, (uint32_t)info->metric, text));
    set_text(&facts[3], "index", vexi_cli_nth(VEXI_CLI_INDEXES, (uint32_t)info->index, text));
    set_number(&facts[4], "segments", info->segment_count);
    set_number(&facts[5], "segment_rows", info->segment_row_count);
    set_number(&facts[6], "segment_deleted", info->segment_deleted_count);
    set_number(&facts[7], "segment_bytes", info->segment_size_bytes);
    set_number(&facts[8], "index_bytes", info->index_size_bytes);
    set_number(&facts[9], "memtable_rows", info->memtable_row_count);
    set_number(&facts[10], "memtable_bytes", info->memtable_size_bytes);
    set_number(&facts[11], "damaged_segments", info->damaged_segment_count);
    set_number(&facts[12], "unindexed_segments", info->unindexed_segment_count);
    set_number(&facts[13], "graphs", info->graph_count);
    set_number(&facts[14], "graph_bytes", info->graph_size_bytes);
    set_number(&facts[15], "missing_graphs", info->graph_missing_count);
    facts[16].name = "recall";
    facts[16].number = true;
    (void)snprintf(facts[16].text, sizeof facts[16].text, "%.6g", (double)info->recall);
    set_number(&facts[17], "bits", info->bits);
    facts[18].name = "version";
    facts[18].number = true;
    (void)snprintf(facts[18].text, sizeof facts[18].text, "%" PRId64, info->version);
    set_text(&facts[19], "uuid", info->uuid);
    set_number(&facts[20], "columns", info->column_count);
}

static void print_json_name(vex_string name) {
    putchar('"');
    for (size_t i = 0; i < name.size; i++) {
        if (name.data[i] == '"' || name.data[i] == '\\') {
            putchar('\\');
        }
        putchar(name.data[i]); /* names hold no control characters */
    }
    putchar('"');
}

static void print_json(vex_string name, const vex_collection_info *info,
                       const fact facts[FACT_COUNT]) {
    printf("{\"name\":");
    print_json_name(name);
    for (int i = 0; i < FACT_COUNT - 1; i++) {
        printf(facts[i].number ? ",\"%s\":%s" : ",\"%s\":\"%s\"", facts[i].name, facts[i].text);
    }
    printf(",\"columns\":{");
    for (uint32_t i = 0; i < info->column_count; i++) {
        char type[32];
        printf(i > 0 ? "," : "");
        print_json_name(vexi_string_of(info->columns[i].name));
        printf(":\"%s\"", vexi_cli_nth(VEXI_CLI_TYPES, (uint32_t)info->columns[i].type - 1, type));
    }
    printf("}}\n");
}

static void print_text(vex_string name, const vex_collection_info *info,
                       const fact facts[FACT_COUNT]) {
    printf("%-20s", "name");
    vexi_cli_print_safe(name.data, name.size, stdout);
    putchar('\n');
    for (int i = 0; i < FACT_COUNT; i++) {
        printf("%-20s%s\n", facts[i].name, facts[i].text);
    }
    for (uint32_t i = 0; i < info->column_count; i++) {
        char type[32];
        printf("  %-18s", vexi_cli_nth(VEXI_CLI_TYPES, (uint32_t)info->columns[i].type - 1, type));
        vexi_cli_print_safe(info->columns[i].name, strlen(info->columns[i].name), stdout);
        putchar('\n');
    }
    if (info->last_error[0] != '\0') {
        printf("%-20s", "last_error");
        vexi_cli_print_safe(info->last_error, strlen(info->last_error), stdout);
        putchar('\n');
    }
}

static vex_status print_collection(vex_lake *lake, vex_string name, bool json, vex_error *err) {
    vex_collection_info info;
    fact facts[FACT_COUNT];
    VEX_TRY(vex_collection_describe(lake, name, &info, err));
    collect_facts(&info, facts);
    if (json) {
        print_json(name, &info, facts);
    } else {
        print_text(name, &info, facts);
    }
    return VEX_OK;
}

static vex_status print_collections(vex_lake *lake, bool json, vex_error *err) {
    struct ArrowSchema schema = {0};
    struct ArrowArray batch = {0};
    VEX_TRY(vex_collection_list(lake, &schema, &batch, err));
    vex_status status = VEX_OK;
    const struct ArrowArray *names = batch.children[0];
    const int32_t *offsets = names->buffers[1];
    const char *data = names->buffers[2];
    for (int64_t i = 0; i < batch.length && status == VEX_OK; i++) {
        int32_t begin = offsets[names->offset + i];
        vex_string name = {.data = data + begin,
                           .size = (size_t)(offsets[names->offset + i + 1] - begin)};
        if (i > 0 && !json) {
            putchar('\n');
        }
        status = print_collection(lake, name, json, err);
    }
    release(&schema, &batch);
    return status;
}

static int run_info(const vexi_cli_command *command, int argc, char **argv) {
    vexi_cli_arguments arguments;
    int exit_status;
    if (!vexi_cli_begin(command, argc, argv, &arguments, &exit_status)) {
        return exit_status;
    }
    vex_lake *lake = NULL;
    vex_error err;
    bool json = vexi_cli_flag(&arguments, "json");
    vex_string name = vexi_cli_collection(&arguments, NULL);
    vex_status status = vexi_cli_open(&arguments, VEXI_CLI_READ, &lake, &err);
    if (status == VEX_OK) {
        status = name.data != NULL ? print_collection(lake, name, json, &err)
                                   : print_collections(lake, json, &err);
    }
    return vexi_cli_end(command, lake, status, &err);
}

static const vexi_cli_option info_options[] = {
    {"lake", 0, true, "URI", "the lake: a folder, file://... or s3://bucket/prefix"},
    {"in", 0, false, "NAME", "only this collection"},
    {"json", 0, false, NULL, "print a JSON object per collection"},
    VEXI_CLI_S3_OPTIONS,
    {0},
};

const vexi_cli_command vexi_cli_info = {
    .name = "info",
    .summary = "Describe the collections of a lake.",
    .details = "The lake is opened for reading only, so a server may have it open.",
    .options = info_options,
    .run = run_info,
};

/* ---- verify ---------------------------------------------------------------------------------- */

static int run_verify(const vexi_cli_command *command, int argc, char **argv) {
    vexi_cli_arguments arguments;
    int exit_status;
    if (!vexi_cli_begin(command, argc, argv, &arguments, &exit_status)) {
        return exit_status;
    }
    vex_lake *lake = NULL;
    vex_error err;
    struct ArrowSchema schema = {0};
    struct ArrowArray batch = {0};
    uint64_t object_count = 0;
    int64_t finding_count = 0;
    vexi_cli_style style = vexi_cli_style_of(&arguments);
    vex_status status = vexi_cli_open(&arguments, VEXI_CLI_READ, &lake, &err);
    if (status == VEX_OK) {
        status = vex_verify(lake, vexi_cli_collection(&arguments, NULL), &schema, &batch,
                            &object_count, &err);
    }
    if (status == VEX_OK) {
        finding_count = batch.length;
        if (finding_count > 0) {
            status = vexi_cli_print(&schema, &batch, 0, style, stdout, &err);
        }
        fprintf(stderr, "checked %" PRIu64 " objects, found %" PRId64 " problem%s\n", object_count,
                finding_count, finding_count == 1 ? "" : "s");
    }
    release(&schema, &batch);
    exit_status = vexi_cli_end(command, lake, status, &err);
    return exit_status == VEXI_CLI_OK && finding_count > 0 ? VEXI_CLI_FAILED : exit_status;
}

const vexi_cli_command vexi_cli_verify = {
    .name = "verify",
    .summary = "Check every checksum, and that log, Parquet files and indexes agree.",
    .details = "Each problem is a row with the object and what is wrong with it; the exit status\n"
               "is then 1. The lake is opened for reading only, and --cache-dir is not looked at.",
    .options = info_options,
    .run = run_verify,
};

/* ---- warm ------------------------------------------------------------------------------------ */

static int run_warm(const vexi_cli_command *command, int argc, char **argv) {
    vexi_cli_arguments arguments;
    int exit_status;
    if (!vexi_cli_begin(command, argc, argv, &arguments, &exit_status)) {
        return exit_status;
    }
    vex_lake *lake = NULL;
    vex_error err;
    vex_warm_options options = {.size = sizeof options,
                                .vectors = !vexi_cli_flag(&arguments, "index-only")};
    vex_warm_stats stats = {0};
    vex_status status = vexi_cli_open(&arguments, VEXI_CLI_READ, &lake, &err);
    if (status == VEX_OK) {
        status = vex_collection_warm(lake, vexi_cli_collection(&arguments, "default"), &options,
                                     &stats, &err);
    }
    if (status == VEX_OK) {
        printf("segments %" PRIu64 "\nindex_bytes %" PRIu64 "\ndata_bytes %" PRIu64
               "\nleft_out_bytes %" PRIu64 "\n",
               stats.segment_count, stats.index_bytes, stats.data_bytes, stats.left_out_bytes);
    }
    return vexi_cli_end(command, lake, status, &err);
}

static const vexi_cli_option warm_options[] = {
    {"lake", 0, true, "URI", "the lake: s3://bucket/prefix"},
    {"in", 0, false, "NAME", "the collection; default: default"},
    {"index-only", 0, false, NULL, "index files alone, not the vectors and columns"},
    VEXI_CLI_S3_OPTIONS,
    {0},
};

const vexi_cli_command vexi_cli_warm = {
    .name = "warm",
    .summary = "Fill a server's cache folder before it is started.",
    .details =
        "What searches of a collection on s3:// need is fetched into the folder that\n"
        "--cache-dir names, as far as --cache-size reaches. A server that runs is warmed by\n"
        "its command VWARM: it has its folder for itself.",
    .options = warm_options,
    .run = run_warm,
};

/* ---- create, drop, flush --------------------------------------------------------------------- */

/* "name:type,name:type" */
static vex_status read_columns(const char *text, vex_column columns[VEX_COLUMNS_MAX],
                               uint32_t *count, vex_error *err) {
    *count = 0;
    while (text != NULL) {
        size_t size = strcspn(text, ",");
        const char *colon = memchr(text, ':', size);
        if (colon == NULL || colon == text) {
            return vexi_fail(err, VEX_INVALID, "--columns is NAME:TYPE,..., not '%.100s'", text);
        }
        if (*count == VEX_COLUMNS_MAX) {
            return vexi_fail(err, VEX_INVALID, "--columns names more than %u columns",
                             VEX_COLUMNS_MAX);
        }
        size_t type_size = size - (size_t)(colon + 1 - text);
        uint32_t place = 0;
        for (const char *type = VEXI_CLI_TYPES;; place++) {
            size_t length = strcspn(type, "|");
            if (length == type_size && strncmp(type, colon + 1, length) == 0) {
                break;
            }
            if (type[length] == '\0') {
                return vexi_fail(err, VEX_INVALID, "a column's type is one of %s, not '%.*s'",
                                 VEXI_CLI_TYPES, (int)(type_size > 100 ? 100 : type_size),
                                 colon + 1);
            }
            type += length + 1;
        }
        columns[(*count)++] = (vex_column){.name = {.data = text, .size = (size_t)(colon - text)},
                                           .type = (vex_type)(place + VEX_TYPE_INT64)};
        text = text[size] == ',' ? text + size + 1 : NULL;
    }
    return VEX_OK;
}

static int run_create(const vexi_cli_command *command, int argc, char **argv) {
    vexi_cli_arguments arguments;
    int exit_status;
    if (!vexi_cli_begin(command, argc, argv, &arguments, &exit_status)) {
        return exit_status;
    }
    vex_column columns[VEX_COLUMNS_MAX];
    vex_collection_options options = {.size = sizeof options, .columns = columns};
    uint32_t metric, index;
    vex_lake *lake = NULL;
    vex_error err;
    vex_status status;
    VEX_TRY_GOTO(
        status, done,
        vexi_cli_number(&arguments, "dim", 1, VEX_DIMENSION_MAX, 0, &options.dimension, &err));
    VEX_TRY_GOTO(
        status, done,
        vexi_cli_choice(&arguments, "metric", VEXI_CLI_METRICS, VEX_METRIC_L2, &metric, &err));
    VEX_TRY_GOTO(
        status, done,
        vexi_cli_choice(&arguments, "index", VEXI_CLI_INDEXES, VEX_INDEX_AUTO, &index, &err));
    VEX_TRY_GOTO(status, done, vexi_cli_recall(&arguments, &options.recall, &err));
    VEX_TRY_GOTO(status, done, vexi_cli_bits(&arguments, &options.bits, &err));
    VEX_TRY_GOTO(
        status, done,
        read_columns(vexi_cli_value(&arguments, "columns"), columns, &options.column_count, &err));
    options.metric = (vex_metric)metric;
    options.index = (vex_index_kind)index;
    VEX_TRY_GOTO(status, done, vexi_cli_open(&arguments, VEXI_CLI_MAKE, &lake, &err));
    status = vex_collection_create(lake, vexi_string_of(arguments.operands[0]), &options, &err);
done:
    return vexi_cli_end(command, lake, status, &err);
}

static const vexi_cli_option create_options[] = {
    {"lake", 0, true, "URI", "the lake: a folder or file://...; made if it is missing"},
    {"dim", 0, true, "N", "values per vector"},
    {"metric", 0, false, VEXI_CLI_METRICS, "how distance is measured; default: l2"},
    {"index", 0, false, VEXI_CLI_INDEXES, "how segments are searched; default: auto"},
    {"recall", 0, false, "R", "share of the true neighbours that searches aim at; default: 0.95"},
    {"bits", 0, false, "1|4|8", "bits a dimension of the codes that choose candidates; default: 4"},
    {"columns", 0, false, "NAME:TYPE,...",
     "typed columns; a type is one of int64, double, string, bool, timestamp"},
    {0},
};

const vexi_cli_command vexi_cli_create = {
    .name = "create",
    .operands = "NAME",
    .summary = "Create a collection.",
    .operand_min = 1,
    .operand_max = 1,
    .options = create_options,
    .run = run_create,
};

static int run_drop(const vexi_cli_command *command, int argc, char **argv) {
    vexi_cli_arguments arguments;
    int exit_status;
    if (!vexi_cli_begin(command, argc, argv, &arguments, &exit_status)) {
        return exit_status;
    }
    vex_lake *lake = NULL;
    vex_error err;
    vex_status status = vexi_cli_open(&arguments, VEXI_CLI_WRITE, &lake, &err);
    if (status == VEX_OK) {
        status = vex_collection_drop(lake, vexi_string_of(arguments.operands[0]), &err);
    }
    return vexi_cli_end(command, lake, status, &err);
}

static const vexi_cli_option lake_options[] = {
    {"lake", 0, true, "URI", "the lake: a folder or file://..."},
    {0},
};

const vexi_cli_command vexi_cli_drop = {
    .name = "drop",
    .operands = "NAME",
    .summary = "Drop a collection and all its rows.",
    .operand_min = 1,
    .operand_max = 1,
    .options = lake_options,
    .run = run_drop,
};

static int run_flush(const vexi_cli_command *command, int argc, char **argv) {
    vexi_cli_arguments arguments;
    int exit_status;
    if (!vexi_cli_begin(command, argc, argv, &arguments, &exit_status)) {
        return exit_status;
    }
    vex_lake *lake = NULL;
    vex_error err;
    vex_string name =
        arguments.operand_count > 0 ? vexi_string_of(arguments.operands[0]) : (vex_string){0};
    vex_status status = vexi_cli_open(&arguments, VEXI_CLI_WRITE, &lake, &err);
    if (status == VEX_OK) {
        status = vex_flush(lake, name, &err);
    }
    return vexi_cli_end(command, lake, status, &err);
}

const vexi_cli_command vexi_cli_flush = {
    .name = "flush",
    .operands = "[NAME]",
    .summary = "Write what is still only in the log as Parquet, of one collection or of all.",
    .operand_max = 1,
    .options = lake_options,
    .run = run_flush,
};
