/* RECALL as asked: what a search aims at is what it reaches, for queries that are no rows, over
 * several segments and after the merge of their answers; and the more is asked, the further it
 * goes. On synthetic clusters by lists and by graphs, and on sentence embeddings, whose queries
 * come from elsewhere (../shared/data, or $VEXLAKE_SHARED/data; without them that part says so). */
#include "recall.h"

static const float targets[] = {0.8f, 0.95f, 0.99f};

/* What chance may take from a target: the queries are a sample. */
#define SLACK 0.02

static void check_targets(vex_lake *lake, const set *s, const float *queries, int query_count,
                          uint64_t segments, bool graph) {
    uint64_t effort = 0;
    for (int i = 0; i < 3; i++) {
        vex_search_options options = {.k = 10, .recall = targets[i]};
        vex_search_stats stats;
        double recall = set_recall(lake, s, queries, query_count, &options, &stats);
        uint64_t gone = graph ? stats.hop_count : stats.list_count;
        printf("      recall %.2f: %.3f by %.1f %s, %.0f codes and %.0f vectors a query\n",
               (double)targets[i], recall, (double)gone / query_count, graph ? "hops" : "lists",
               (double)stats.code_count / query_count, (double)stats.row_count / query_count);
        CHECK(recall >= (double)targets[i] - SLACK);
        CHECK_EQ(graph ? stats.segment_graph_count : stats.segment_ivf_count, segments);
        CHECK(gone >= effort);
        CHECK(stats.row_count < (uint64_t)query_count * (uint64_t)s->count / 10);
        effort = gone;
    }
    vex_search_options options = {.k = 10, .recall = 1};
    vex_search_stats stats;
    CHECK(set_recall(lake, s, queries, query_count, &options, &stats) == 1);
    CHECK_EQ(stats.segment_ivf_count + stats.segment_graph_count, 0);
}

static void run(vex_index_kind index, int segments, int each, int query_count, uint64_t number) {
    enum { DIMENSION = 48 };
    set *s = set_create(DIMENSION, segments * each, 100, 1.0f, number);
    float *queries = set_queries(s, query_count);
    vex_lake *lake;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    create(lake, "c", DIMENSION, VEX_METRIC_L2, index);
    for (int i = 0; i < segments; i++) {
        set_put(lake, s, i * each, each);
        CHECK_OK(vex_flush(lake, str("c"), &err));
    }
    graphs_wait(lake);
    check_targets(lake, s, queries, query_count, (uint64_t)segments, index == VEX_INDEX_HNSW);
    CHECK_OK(vex_lake_close(lake, &err));
    free(queries);
    set_destroy(s);
}

TEST(lists) {
    run(VEX_INDEX_IVF, 3, 2500, 150, 61);
}

TEST(graphs) {
    run(VEX_INDEX_HNSW, 2, 4000, 60, 62);
}

/* ---- Real queries ---------------------------------------------------------------------------- */

enum { REAL_DIMENSION = 384, REAL_QUERIES = 500, NPY_HEAD = 128 };

static void shared_path(const char *name, char out[512]) {
    const char *shared = getenv("VEXLAKE_SHARED");
    const char *source = strrchr(__FILE__, '/');
    if (shared != NULL) {
        snprintf(out, 512, "%s/data/%s", shared, name);
    } else {
        snprintf(out, 512, "%.*s/../../../shared/data/%s", (int)(source - __FILE__), __FILE__,
                 name);
    }
}

TEST(real_queries) {
    char rows[512], queries_path[512];
    shared_path("debian-packages.parquet", rows);
    shared_path("queries-384.npy", queries_path);
    FILE *file = fopen(queries_path, "rb");
    if (file == NULL || access(rows, R_OK) != 0) {
        printf("    skipped: no %s\n", queries_path);
        if (file != NULL) {
            fclose(file);
        }
        return;
    }
    static float queries[REAL_QUERIES * REAL_DIMENSION];
    CHECK(fseek(file, NPY_HEAD, SEEK_SET) == 0);
    CHECK_EQ(fread(queries, sizeof *queries, REAL_QUERIES * REAL_DIMENSION, file),
             REAL_QUERIES * REAL_DIMENSION);
    fclose(file);

    vex_lake *lake;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    vex_import_options import = {.size = sizeof import,
                                 .metric = VEX_METRIC_COSINE,
                                 .index = VEX_INDEX_IVF,
                                 .segment_size_bytes = 8 << 20};
    const char *paths[] = {rows};
    uint64_t row_count = 0;
    CHECK_OK(vex_import(lake, str("c"), paths, 1, &import, &row_count, &err));
    CHECK_EQ(row_count, 20000);
    for (int i = 0; i < 2; i++) {
        vex_search_stats stats;
        vex_search_options options = {
            .size = sizeof options, .k = 10, .recall = i == 0 ? 0 : 0.99f, .stats = &stats};
        vex_search_options exactly = {.size = sizeof exactly, .k = 10, .exact = true};
        result found, truth;
        /* A part of the queries: exact search under the sanitizers takes its time. */
        enum { PART = 200 };
        CHECK_OK(vex_search(lake, str("c"), queries, PART, REAL_DIMENSION, &options, &found.schema,
                            &found.batch, &err));
        CHECK_OK(vex_search(lake, str("c"), queries, PART, REAL_DIMENSION, &exactly, &truth.schema,
                            &truth.batch, &err));
        CHECK_EQ(found.batch.length, truth.batch.length);
        int64_t hits = 0;
        for (int64_t at = 0; at < found.batch.length; at++) {
            hits += result_distance(&found, at) <= result_distance(&truth, at / 10 * 10 + 9);
        }
        double recall = (double)hits / (double)found.batch.length;
        printf("    %s: recall %.3f over %d segments, %.0f codes and %.0f vectors a query\n",
               i == 0 ? "default" : "0.99", recall, (int)stats.segment_count,
               (double)stats.code_count / PART, (double)stats.row_count / PART);
        CHECK(stats.segment_count > 1);
        CHECK_EQ(stats.segment_ivf_count, stats.segment_count);
        CHECK(stats.row_count < PART * row_count / 50);
        CHECK(recall >= (i == 0 ? 0.95 : 0.99));
        result_release(&found);
        result_release(&truth);
    }
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST_MAIN(RUN(real_queries); RUN(lists); RUN(graphs))
