/* Rows that indexes do not expect: one vector many times, all rows one vector, fewer distinct rows
 * than lists, one-row segments, vectors with hardly any length or very much. Every search returns
 * exactly min(k, live rows) rows, each once, and the nearest distance. */
#include "recall.h"

enum { DIMENSION = 40, QUERIES = 60 };

static void check(vex_lake *lake, const set *s, const float *queries) {
    static const uint32_t ks[] = {1, 10, 100};
    for (int i = 0; i < 3; i++) {
        for (int effort = 0; effort < 3; effort++) {
            vex_search_options options = {
                .k = ks[i], .nprobe = effort == 1 ? 1 : 0, .recall = effort == 2 ? 0.8f : 0};
            vex_search_stats stats;
            double recall = set_recall(lake, s, queries, QUERIES, &options, &stats);
            /* The aim, 0.95, is an average: of 60 answers that would be right with that chance,
               fewer than 0.8 are so once in a hundred thousand. */
            CHECK(recall >= (effort != 0 ? 0.1 : ks[i] == 1 ? 0.8 : 0.9));
        }
    }
}

typedef enum shape { CONSTANT, FEW_DISTINCT, MIXED, TINY, HUGE_LENGTHS } shape;

static void run(shape shape, vex_index_kind index, vex_metric metric, bool flushed) {
    enum { ROWS = 1200 };
    set *s = set_create(DIMENSION, ROWS, 20, 0.5f,
                        100 + 10 * shape + (uint64_t)metric + (uint64_t)index * 100);
    float *queries = set_queries(s, QUERIES);
    for (int i = 0; i < ROWS; i++) {
        float *row = s->vectors + i * DIMENSION;
        int from = shape == CONSTANT              ? 0
                   : shape == FEW_DISTINCT        ? i % 5
                   : shape == MIXED && i % 3 == 0 ? 1
                                                  : i;
        memmove(row, s->vectors + from * DIMENSION, DIMENSION * sizeof *row);
        for (int j = 0; j < DIMENSION; j++) {
            row[j] *= shape == TINY ? 1e-16f : shape == HUGE_LENGTHS ? 1e16f : 1.0f;
        }
    }
    /* One of the queries is a row. */
    memcpy(queries, s->vectors + DIMENSION, DIMENSION * sizeof *queries);
    vex_lake *lake;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    create(lake, "c", DIMENSION, metric, index);
    set_put(lake, s, 0, ROWS);
    if (flushed) {
        CHECK_OK(vex_flush(lake, str("c"), &err));
    }
    check(lake, s, queries);
    set_delete(lake, s, 80);
    check(lake, s, queries);
    CHECK_OK(vex_lake_close(lake, &err));
    free(queries);
    set_destroy(s);
}

TEST(repeated_rows) {
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        run(CONSTANT, VEX_INDEX_IVF, (vex_metric)metric, true);
        run(FEW_DISTINCT, VEX_INDEX_IVF, (vex_metric)metric, true);
        run(MIXED, VEX_INDEX_IVF, (vex_metric)metric, true);
        run(MIXED, VEX_INDEX_IVF, (vex_metric)metric, false);
        run(CONSTANT, VEX_INDEX_IVF, (vex_metric)metric, false);
    }
}

TEST(lengths_out_of_the_ordinary) {
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        run(TINY, VEX_INDEX_IVF, (vex_metric)metric, true);
        run(HUGE_LENGTHS, VEX_INDEX_IVF, (vex_metric)metric, true);
        run(HUGE_LENGTHS, VEX_INDEX_IVF, (vex_metric)metric, false);
    }
}

/* Under cosine the distances of near duplicates are what rounding leaves of 1 - c in float32. */
TEST(near_duplicates) {
    enum { ROWS = 3000, FLUSHED = 2000, ASKED = 50 };
    for (int way = 0; way < 3; way++) {
        set *s = set_create(DIMENSION, ROWS, 1, 1e-4f, 50);
        float *queries = set_queries(s, ASKED);
        vex_lake *lake;
        CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
        create(lake, "c", DIMENSION, VEX_METRIC_COSINE, VEX_INDEX_IVF);
        set_put(lake, s, 0, FLUSHED);
        if (way > 0) {
            CHECK_OK(vex_flush(lake, str("c"), &err));
        }
        set_put(lake, s, FLUSHED, ROWS - FLUSHED);
        if (way > 1) {
            CHECK_OK(vex_flush(lake, str("c"), &err));
        }
        vex_search_options options = {.k = 10};
        vex_search_stats stats;
        CHECK(set_recall(lake, s, queries, ASKED, &options, &stats) >= 0.93);
        CHECK(stats.code_count > 0);
        CHECK_OK(vex_lake_close(lake, &err));
        free(queries);
        set_destroy(s);
    }
}

TEST(one_row_segments) {
    enum { ROWS = 12 };
    set *s = set_create(DIMENSION, ROWS, 3, 0.5f, 9);
    float *queries = set_queries(s, QUERIES);
    vex_lake *lake;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    create(lake, "c", DIMENSION, VEX_METRIC_L2, VEX_INDEX_IVF);
    for (int i = 0; i < ROWS; i++) {
        set_put(lake, s, i, 1);
        CHECK_OK(vex_flush(lake, str("c"), &err));
    }
    for (uint32_t k = 1; k <= ROWS + 1; k += 4) {
        vex_search_options options = {.k = k};
        vex_search_stats stats;
        CHECK(set_recall(lake, s, queries, QUERIES, &options, &stats) == 1);
        CHECK_EQ(stats.segment_count, ROWS);
    }
    CHECK_OK(vex_lake_close(lake, &err));
    free(queries);
    set_destroy(s);
}

TEST_MAIN(RUN(repeated_rows); RUN(lengths_out_of_the_ordinary); RUN(near_duplicates);
          RUN(one_row_segments))
