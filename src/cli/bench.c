/* vexlake bench recall: how well, and how fast, a live collection is searched.
 *
 * Queries are made from the collection itself: random stored rows, each left out of its own answer,
 * and points half-way between a stored row and one of its neighbours, which are no rows. Every
 * query is answered exactly first; then each setting is measured by the share of the exact answer
 * that it finds (a row as near as the k-th counts) and by the time of each search, one at a time.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/arena.h"
#include "base/bytes.h"
#include "cli/commands.h"

enum { SETTING_MAX = 8, NEIGHBOUR = 10, GRAPH_WAIT_MS = 10000, GRAPH_LOOK_MS = 50 };

/* What one row of the table measures. */
typedef struct setting {
    char name[32];
    float recall;
    uint32_t nprobe;
    uint32_t ef;
    bool exact;
} setting;

typedef struct bench {
    vex_lake *lake;
    vex_string collection;
    uint32_t dimension;
    uint32_t k;
    uint32_t query_count;
    float *queries;               /* query_count x dimension */
    char (*own)[VEX_ID_SIZE_MAX]; /* id of the row that the query is; NULL: it is none */
    size_t *own_size;
    double *limits;  /* distance of the k-th true neighbour */
    double *seconds; /* of each search of a setting */
} bench;

/* What a setting came to. */
typedef struct outcome {
    double recall;
    double median_ms, p90_ms, p99_ms, mean_ms;
    vex_search_stats stats; /* of all searches together */
} outcome;

static double now_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int compare_doubles(const void *left, const void *right) {
    double a = *(const double *)left;
    double b = *(const double *)right;
    return a < b ? -1 : a > b;
}

static void release(struct ArrowSchema *schema, struct ArrowArray *batch) {
    if (schema->release != NULL) {
        schema->release(schema);
    }
    if (batch->release != NULL) {
        batch->release(batch);
    }
}

/* The id in a row of a result whose column `column` is utf8. */
static vex_string id_at(const struct ArrowArray *batch, int column, int64_t row) {
    const struct ArrowArray *ids = batch->children[column];
    const int32_t *offsets = ids->buffers[1];
    int32_t begin = offsets[ids->offset + row];
    return (vex_string){.data = (const char *)ids->buffers[2] + begin,
                        .size = (size_t)(offsets[ids->offset + row + 1] - begin)};
}

static double distance_at(const struct ArrowArray *batch, int64_t row) {
    const struct ArrowArray *distances = batch->children[2];
    return ((const double *)distances->buffers[1])[distances->offset + row];
}

static bool is_own(const bench *b, uint32_t query, vex_string id) {
    return b->own_size[query] == id.size && id.size > 0 &&
           memcmp(b->own[query], id.data, id.size) == 0;
}

/* One search; k + 1 rows, because the query's own row is left out of the answer. */
static vex_status search_one(const bench *b, uint32_t query, const setting *s, uint32_t k,
                             vex_search_stats *stats, struct ArrowSchema *schema,
                             struct ArrowArray *batch, vex_error *err) {
    vex_search_options options = {.size = sizeof options,
                                  .k = k,
                                  .nprobe = s->nprobe,
                                  .ef = s->ef,
                                  .recall = s->recall,
                                  .exact = s->exact,
                                  .stats = stats};
    return vex_search(b->lake, b->collection, b->queries + (size_t)query * b->dimension, 1,
                      b->dimension, &options, schema, batch, err);
}

/* ---- Queries --------------------------------------------------------------------------------- */

/* The queries: stored rows at even places, and points beside them at odd ones. */
static vex_status make_queries(bench *b, uint64_t seed, vex_error *err) {
    struct ArrowSchema schema = {0};
    struct ArrowArray batch = {0};
    vex_string vector = vexi_string_of("vector");
    vex_get_options options = {.size = sizeof options, .columns = &vector, .column_count = 1};
    VEX_TRY(vex_sample(b->lake, b->collection, (b->query_count + 1) / 2, seed, &options, &schema,
                       &batch, err));
    if (batch.length == 0) {
        release(&schema, &batch);
        return vexi_fail(err, VEX_INVALID, "the collection has no rows");
    }
    if (2 * (uint64_t)batch.length < b->query_count) {
        b->query_count = 2 * (uint32_t)batch.length;
    }
    const struct ArrowArray *vectors = batch.children[1];
    const float *values = vectors->children[0]->buffers[1];
    values += (size_t)(vectors->children[0]->offset + vectors->offset * (int64_t)b->dimension);
    for (uint32_t q = 0; q < b->query_count; q++) {
        vex_string id = id_at(&batch, 0, q / 2);
        memcpy(b->queries + (size_t)q * b->dimension, values + (size_t)(q / 2) * b->dimension,
               b->dimension * sizeof *b->queries);
        b->own_size[q] = q % 2 == 0 ? id.size : 0;
        memcpy(b->own[q], id.data, id.size);
    }
    release(&schema, &batch);
    return VEX_OK;
}

/* Move an odd query half-way to the vector of its tenth neighbour. */
static vex_status move_query(bench *b, uint32_t query, vex_error *err) {
    struct ArrowSchema schema = {0};
    struct ArrowArray batch = {0};
    vex_string vector = vexi_string_of("vector");
    vex_search_options options = {.size = sizeof options,
                                  .k = NEIGHBOUR + 1,
                                  .exact = true,
                                  .columns = &vector,
                                  .column_count = 1};
    float *values = b->queries + (size_t)query * b->dimension;
    VEX_TRY(vex_search(b->lake, b->collection, values, 1, b->dimension, &options, &schema, &batch,
                       err));
    const struct ArrowArray *vectors = batch.children[3];
    const float *last = vectors->children[0]->buffers[1];
    last +=
        vectors->children[0]->offset + (vectors->offset + batch.length - 1) * (int64_t)b->dimension;
    bool opposite = true; /* then the middle is the zero vector, which has no direction */
    for (uint32_t i = 0; i < b->dimension; i++) {
        opposite = opposite && values[i] / 2 + last[i] / 2 == 0.0f;
    }
    for (uint32_t i = 0; i < b->dimension && !opposite; i++) {
        values[i] = values[i] / 2 + last[i] / 2;
    }
    release(&schema, &batch);
    return VEX_OK;
}

/* The distance that a true neighbour does not exceed. */
static vex_status find_truth(bench *b, vex_error *err) {
    static const setting exact = {.exact = true};
    for (uint32_t q = 0; q < b->query_count; q++) {
        struct ArrowSchema schema = {0};
        struct ArrowArray batch = {0};
        if (q % 2 == 1) {
            VEX_TRY(move_query(b, q, err));
        }
        VEX_TRY(search_one(b, q, &exact, b->k + 1, NULL, &schema, &batch, err));
        uint32_t seen = 0;
        b->limits[q] = -INFINITY;
        for (int64_t row = 0; row < batch.length && seen < b->k; row++) {
            if (!is_own(b, q, id_at(&batch, 1, row))) {
                b->limits[q] = distance_at(&batch, row);
                seen++;
            }
        }
        release(&schema, &batch);
    }
    return VEX_OK;
}

/* ---- Measuring ------------------------------------------------------------------------------- */

/* Share of the k true neighbours among the rows of an answer. */
static double recall_of(const bench *b, uint32_t query, const struct ArrowArray *batch) {
    uint32_t rows = 0;
    uint32_t hits = 0;
    for (int64_t row = 0; row < batch->length && rows < b->k; row++) {
        if (!is_own(b, query, id_at(batch, 1, row))) {
            rows++;
            hits += distance_at(batch, row) <= b->limits[query];
        }
    }
    return rows == 0 ? 1 : (double)hits / rows;
}

static vex_status measure(bench *b, const setting *s, outcome *out, vex_error *err) {
    *out = (outcome){0};
    for (uint32_t q = 0; q < b->query_count; q++) {
        struct ArrowSchema schema = {0};
        struct ArrowArray batch = {0};
        vex_search_stats stats = {0};
        double start = now_seconds();
        VEX_TRY(search_one(b, q, s, b->own_size[q] > 0 ? b->k + 1 : b->k, &stats, &schema, &batch,
                           err));
        b->seconds[q] = now_seconds() - start;
        out->mean_ms += b->seconds[q] * 1e3 / b->query_count;
        out->recall += recall_of(b, q, &batch) / b->query_count;
        out->stats.segment_ivf_count += stats.segment_ivf_count;
        out->stats.segment_graph_count += stats.segment_graph_count;
        out->stats.list_count += stats.list_count;
        out->stats.hop_count += stats.hop_count;
        out->stats.code_count += stats.code_count;
        out->stats.row_count += stats.row_count;
        release(&schema, &batch);
    }
    qsort(b->seconds, b->query_count, sizeof *b->seconds, compare_doubles);
    out->median_ms = b->seconds[b->query_count / 2] * 1e3;
    out->p90_ms = b->seconds[(size_t)b->query_count * 9 / 10] * 1e3;
    out->p99_ms = b->seconds[(size_t)b->query_count * 99 / 100] * 1e3;
    return VEX_OK;
}

/* ---- Output ---------------------------------------------------------------------------------- */

static void print_row(const bench *b, const setting *s, const outcome *o, bool json) {
    double n = b->query_count;
    if (json) {
        printf("{\"setting\":\"%s\",\"k\":%" PRIu32 ",\"queries\":%" PRIu32
               ",\"recall\":%.5f,\"p50_ms\":%.4f,\"p90_ms\":%.4f,\"p99_ms\":%.4f,\"mean_ms\":%.4f,"
               "\"lists\":%.1f,\"hops\":%.1f,\"codes\":%.1f,\"vectors\":%.1f}\n",
               s->name, b->k, b->query_count, o->recall, o->median_ms, o->p90_ms, o->p99_ms,
               o->mean_ms, (double)o->stats.list_count / n, (double)o->stats.hop_count / n,
               (double)o->stats.code_count / n, (double)o->stats.row_count / n);
    } else {
        printf("%-16s %8.4f %9.3f %9.3f %9.3f %8.0f %8.0f %10.0f %10.0f\n", s->name, o->recall,
               o->median_ms, o->p90_ms, o->p99_ms, (double)o->stats.list_count / n,
               (double)o->stats.hop_count / n, (double)o->stats.code_count / n,
               (double)o->stats.row_count / n);
    }
    (void)fflush(stdout);
}

static vex_status run_settings(bench *b, const setting *settings, size_t count, bool json,
                               vex_error *err) {
    if (!json) {
        printf("%-16s %8s %9s %9s %9s %8s %8s %10s %10s\n", "setting", "recall", "p50 ms", "p90 ms",
               "p99 ms", "lists", "hops", "codes", "vectors");
    }
    for (size_t i = 0; i < count; i++) {
        outcome result;
        VEX_TRY(measure(b, &settings[i], &result, err));
        print_row(b, &settings[i], &result, json);
    }
    return VEX_OK;
}

/* ---- The command ----------------------------------------------------------------------------- */

/* What was asked for, or a range of recalls. Exact comes last. */
static vex_status read_settings(const vexi_cli_arguments *arguments, setting *settings,
                                size_t *count, vex_error *err) {
    setting asked = {0};
    size_t n = 0;
    VEX_TRY(vexi_cli_recall(arguments, &asked.recall, err));
    VEX_TRY(vexi_cli_number(arguments, "nprobe", 1, UINT32_MAX, 0, &asked.nprobe, err));
    VEX_TRY(vexi_cli_number(arguments, "ef", 1, UINT32_MAX, 0, &asked.ef, err));
    if (asked.nprobe != 0) {
        (void)snprintf(asked.name, sizeof asked.name, "nprobe %" PRIu32, asked.nprobe);
    } else if (asked.ef != 0) {
        (void)snprintf(asked.name, sizeof asked.name, "ef %" PRIu32, asked.ef);
    } else if (asked.recall > 0) {
        (void)snprintf(asked.name, sizeof asked.name, "recall %.4g", (double)asked.recall);
    }
    if (asked.name[0] != '\0') {
        settings[n++] = asked;
    } else {
        static const float recalls[] = {0.8f, 0.9f, 0.95f, 0.99f, 0.999f};
        settings[n++] = (setting){.name = "default"};
        for (size_t i = 0; i < sizeof recalls / sizeof *recalls; i++) {
            settings[n].recall = recalls[i];
            (void)snprintf(settings[n].name, sizeof settings[n].name, "recall %.4g",
                           (double)recalls[i]);
            n++;
        }
    }
    settings[n++] = (setting){.name = "exact", .exact = true};
    *count = n;
    return VEX_OK;
}

/* Describe the collection once its graphs are in use: opening a lake begins to load them. Those
 * that are not built yet do not come, so the wait ends when nothing moves. */
static vex_status describe(const bench *b, vex_collection_info *info, vex_error *err) {
    const struct timespec look = {.tv_nsec = GRAPH_LOOK_MS * 1000000L};
    VEX_TRY(vex_collection_describe(b->lake, b->collection, info, err));
    uint64_t missing = info->graph_missing_count;
    for (int waited = 0; info->graph_missing_count > 0 && waited < GRAPH_WAIT_MS;
         waited = info->graph_missing_count < missing ? 0 : waited + GRAPH_LOOK_MS) {
        missing = info->graph_missing_count;
        (void)nanosleep(&look, NULL);
        VEX_TRY(vex_collection_describe(b->lake, b->collection, info, err));
    }
    return VEX_OK;
}

static vex_status run_recall(const vexi_cli_arguments *arguments, bench *b, vexi_arena *arena,
                             vex_error *err) {
    setting settings[SETTING_MAX] = {{.name = ""}};
    size_t count = 0;
    uint32_t seed;
    vex_collection_info info;
    VEX_TRY(read_settings(arguments, settings, &count, err));
    VEX_TRY(vexi_cli_number(arguments, "count", 1, VEX_K_MAX - 1, 10, &b->k, err));
    VEX_TRY(vexi_cli_number(arguments, "queries", 2, 100000, 500, &b->query_count, err));
    VEX_TRY(vexi_cli_number(arguments, "seed", 0, UINT32_MAX, 1, &seed, err));
    VEX_TRY(vexi_cli_open(arguments, VEXI_CLI_READ, &b->lake, err));
    b->collection = vexi_cli_collection(arguments, "default");
    VEX_TRY(describe(b, &info, err));
    b->dimension = info.dimension;
    size_t n = (size_t)b->query_count + 1;
    b->queries = vexi_arena_calloc(arena, n * b->dimension, sizeof *b->queries);
    b->own = vexi_arena_calloc(arena, n, sizeof *b->own);
    b->own_size = vexi_arena_calloc(arena, n, sizeof *b->own_size);
    b->limits = vexi_arena_calloc(arena, n, sizeof *b->limits);
    b->seconds = vexi_arena_calloc(arena, n, sizeof *b->seconds);
    if (b->queries == NULL || b->own == NULL || b->own_size == NULL || b->limits == NULL ||
        b->seconds == NULL) {
        return vexi_no_memory(err, n * b->dimension * sizeof *b->queries);
    }
    VEX_TRY(make_queries(b, seed, err));
    VEX_TRY(find_truth(b, err));
    bool json = vexi_cli_flag(arguments, "json");
    if (!json) {
        printf("%" PRIu64 " rows of dimension %" PRIu32 " in %" PRIu64 " segments (%" PRIu64
               " with a graph) and %" PRIu64 " new ones; %" PRIu32 " queries, k %" PRIu32 "\n",
               info.row_count, info.dimension, info.segment_count, info.graph_count,
               info.memtable_row_count, b->query_count, b->k);
    }
    return run_settings(b, settings, count, json, err);
}

static int run_bench(const vexi_cli_command *command, int argc, char **argv) {
    vexi_cli_arguments arguments;
    int exit_status;
    if (!vexi_cli_begin(command, argc, argv, &arguments, &exit_status)) {
        return exit_status;
    }
    bench b = {.lake = NULL};
    vex_error err;
    vexi_env *env = NULL;
    vex_status status = VEX_OK;
    if (strcmp(arguments.operands[0], "recall") != 0) {
        status = vexi_fail(&err, VEX_INVALID, "there is no benchmark '%.100s', only recall",
                           arguments.operands[0]);
    } else {
        status = vexi_env_system_create(1, NULL, NULL, &env, &err);
    }
    if (status == VEX_OK) {
        vexi_arena arena;
        vexi_arena_init(&arena, env);
        status = run_recall(&arguments, &b, &arena, &err);
        vexi_arena_deinit(&arena);
        vexi_env_system_destroy(env);
    }
    return vexi_cli_end(command, b.lake, status, &err);
}

static const vexi_cli_option options[] = {
    {"lake", 0, true, "URI", "the lake: a folder, file://... or s3://bucket/prefix"},
    {"in", 0, false, "NAME", "the collection; default: default"},
    {"count", 'k', false, "N", "neighbours of each query; default 10"},
    {"queries", 0, false, "N", "queries to make; default 500"},
    {"recall", 0, false, "R", "measure only this target; default: a range of them"},
    {"nprobe", 0, false, "N", "measure only this many lists"},
    {"ef", 0, false, "N", "measure only this beam"},
    {"seed", 0, false, "N", "which rows are drawn; default 1"},
    {"json", 0, false, NULL, "print a JSON object per setting"},
    VEXI_CLI_S3_OPTIONS,
    {0},
};

const vexi_cli_command vexi_cli_bench = {
    .name = "bench",
    .operands = "recall",
    .summary = "Measure recall and latency of a collection against exact search.",
    .details =
        "Half of the queries are stored rows, each left out of its own answer, the others lie\n"
        "half-way between a stored row and its tenth neighbour. Each setting is a row: the share "
        "of\n"
        "the true neighbours found (recall@k), the latency of single searches in percentiles, and\n"
        "per query the posting lists and graph nodes visited, the rows compared by their codes "
        "and\n"
        "those compared exactly. The lake is opened for reading only, so a server may have it\n"
        "open; the first search of a file that is not in memory reads it.",
    .operand_min = 1,
    .operand_max = 1,
    .options = options,
    .run = run_bench,
};
