/* Disallowed rows: with 1 %, 50 % and 99 % of the rows deleted, and for k from 1 to 10,000, a
 * search gives exactly min(k, live rows) rows, and among few of them still the nearest. */
#include "recall.h"

enum { ROWS = 4400, QUERIES = 16, DIMENSION = 40 };

static void check(vex_lake *lake, const set *s, const float *queries, int live, bool used,
                  uint64_t (*used_count)(const vex_search_stats *stats)) {
    static const uint32_t ks[] = {1, 100, 10000};
    for (int i = 0; i < 3; i++) {
        int query_count = ks[i] > 1000 ? 2 : QUERIES;
        vex_search_options options = {.k = ks[i]};
        vex_search_stats stats;
        double recall = set_recall(lake, s, queries, query_count, &options, &stats);
        printf("      %d of %d rows, k %u: recall %.3f, %.0f codes and %.0f vectors a query\n",
               live, ROWS, ks[i], recall, (double)stats.code_count / query_count,
               (double)stats.row_count / query_count);
        CHECK(recall >= (ks[i] == 1 ? 0.75 : ks[i] > 1000 ? 1 : 0.88));
        if (used && ks[i] <= 100) {
            CHECK(used_count(&stats) > 0);
            CHECK(stats.row_count < (uint64_t)query_count * (uint64_t)live / 2);
        }
        /* One list, a beam of one: as many rows. */
        options.nprobe = 1;
        (void)set_recall(lake, s, queries, query_count, &options, &stats);
        options.nprobe = 0;
        options.ef = 1;
        (void)set_recall(lake, s, queries, query_count, &options, &stats);
    }
}

static uint64_t used_flat(const vex_search_stats *stats) {
    return stats->row_count;
}

static uint64_t used_ivf(const vex_search_stats *stats) {
    return stats->segment_ivf_count;
}

static uint64_t used_graph(const vex_search_stats *stats) {
    /* Where the beam would be as long as the segment, lists are better. */
    return stats->segment_graph_count + stats->segment_ivf_count;
}

static uint64_t used_codes(const vex_search_stats *stats) {
    return stats->code_count;
}

static void run(vex_index_kind index, uint32_t bits, vex_metric metric, bool memtable) {
    set *s = set_create(DIMENSION, ROWS, 50, 0.5f, 50 + metric * 10 + index * 3 + bits);
    float *queries = set_queries(s, QUERIES);
    vex_lake *lake;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    vex_collection_options options = {.size = sizeof options,
                                      .dimension = DIMENSION,
                                      .metric = metric,
                                      .index = index,
                                      .bits = bits};
    CHECK_OK(vex_collection_create(lake, str("c"), &options, &err));
    set_put(lake, s, 0, ROWS);
    if (!memtable) {
        CHECK_OK(vex_flush(lake, str("c"), &err));
        graphs_wait(lake);
    }
    uint64_t (*used_count)(const vex_search_stats *stats) = memtable                  ? used_codes
                                                            : index == VEX_INDEX_HNSW ? used_graph
                                                            : index == VEX_INDEX_IVF  ? used_ivf
                                                                                      : used_flat;
    bool used = index != VEX_INDEX_FLAT;
    set_delete(lake, s, ROWS - ROWS / 100);
    check(lake, s, queries, ROWS - ROWS / 100, used, used_count);
    set_delete(lake, s, ROWS / 2);
    check(lake, s, queries, ROWS / 2, used, used_count);
    set_delete(lake, s, ROWS / 100);
    check(lake, s, queries, ROWS / 100, false, used_count);
    if (!memtable) { /* deletes are in the memtable so far: now in the segments' own bits */
        CHECK_OK(vex_flush(lake, str("c"), &err));
        check(lake, s, queries, ROWS / 100, false, used_count);
    }
    set_delete(lake, s, 0);
    check(lake, s, queries, 0, false, used_count);
    CHECK_OK(vex_lake_close(lake, &err));
    free(queries);
    set_destroy(s);
}

TEST(flat) {
    run(VEX_INDEX_FLAT, 0, VEX_METRIC_L2, false);
}

TEST(ivf) {
    run(VEX_INDEX_IVF, 4, VEX_METRIC_L2, false);
    run(VEX_INDEX_IVF, 1, VEX_METRIC_COSINE, false);
}

TEST(graph) {
    run(VEX_INDEX_HNSW, 4, VEX_METRIC_L2, false);
}

TEST(memtable) {
    run(VEX_INDEX_IVF, 4, VEX_METRIC_L2, true);
    run(VEX_INDEX_IVF, 4, VEX_METRIC_IP, true);
}

TEST_MAIN(RUN(flat); RUN(ivf); RUN(graph); RUN(memtable))
