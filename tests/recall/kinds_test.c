/* Recall by the kind of index: flat, IVF with codes of 1, 4 and 8 bits, graphs, memtables; for each
 * metric and for dimensions of every class (one value, below and between vector registers, usual
 * ones, the largest); after the build, inserts and deletes. Statistics must show that it was that
 * index which answered, by hardly comparing vectors. */
#include "recall.h"

enum { QUERIES = 30, K = 10 };

typedef enum kind { FLAT, IVF_1, IVF_4, IVF_8, GRAPH, MEMTABLE } kind;

static const char *const kind_names[] = {"flat",       "ivf 1 bit", "ivf 4 bits",
                                         "ivf 8 bits", "graph",     "memtable"};
static const char *const metric_names[] = {"l2", "cosine", "ip"};

/* The default recall is 0.95. A tenth of 300 answers is ten standard deviations off. */
#define FLOOR 0.85

static void check(vex_lake *lake, const set *s, const float *queries, kind k, const char *stage) {
    vex_search_options options = {.k = K};
    vex_search_stats stats;
    double recall = set_recall(lake, s, queries, QUERIES, &options, &stats);
    uint64_t live = 0;
    for (int i = 0; i < s->count; i++) {
        live += s->live[i];
    }
    printf("      %s: recall %.3f, %.0f codes and %.0f vectors of %d rows a query\n", stage, recall,
           (double)stats.code_count / QUERIES, (double)stats.row_count / QUERIES, (int)live);
    CHECK(recall >= (k == FLAT ? 1 : FLOOR));
    /* Graphs of a few dimensions may ask for beams that lists beat. */
    bool walked = stats.segment_graph_count > 0;
    CHECK(walked == (k == GRAPH) || (k == GRAPH && s->dimension < 17));
    CHECK_EQ(stats.segment_ivf_count, k == FLAT || k == MEMTABLE || walked ? 0 : 1);
    switch (k) {
    case FLAT:
        CHECK(stats.row_count >= live * QUERIES);
        CHECK_EQ(stats.code_count, 0);
        break;
    case IVF_1:
    case IVF_4:
    case IVF_8:
        CHECK(stats.list_count > 0 && stats.code_count > 0);
        break;
    case GRAPH:
        CHECK((stats.hop_count > 0) == walked);
        break;
    case MEMTABLE:
        CHECK_EQ(stats.segment_count, 0);
        CHECK((stats.code_count > 0) == (s->dimension >= 32)); /* else codes do not pay */
        break;
    }
    /* Of the rows that are in a segment, few are compared; a quarter more is in the memtable. One
     * bit says nothing of a single dimension. */
    if (k != FLAT && s->dimension >= 17 && stats.code_count > 0) {
        uint64_t most = k == MEMTABLE ? live / 3 : live / 4 + live / 3;
        CHECK(stats.row_count < most * QUERIES);
    }
}

static void run(kind k, uint32_t dimension, vex_metric metric) {
    static const uint32_t bits[] = {0, 1, 4, 8, 0, 0};
    int count = dimension <= 128 ? 1500 : dimension <= 768 ? 800 : 640;
    count = k == GRAPH ? 4100 : count; /* smaller segments have none */
    int later = count / 5;
    printf("   %s, %s, dimension %u\n", kind_names[k], metric_names[metric], dimension);
    set *s = set_create(dimension, count + later, 40, 0.9f, dimension * 100 + metric * 10 + k);
    float *queries = set_queries(s, QUERIES);
    vex_lake *lake;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    vex_collection_options options = {
        .size = sizeof options,
        .dimension = dimension,
        .metric = metric,
        .bits = bits[k],
        .index = k == FLAT    ? VEX_INDEX_FLAT
                 : k == GRAPH ? VEX_INDEX_HNSW
                              : VEX_INDEX_IVF,
    };
    CHECK_OK(vex_collection_create(lake, str("c"), &options, &err));
    set_put(lake, s, 0, count);
    if (k != MEMTABLE) {
        CHECK_OK(vex_flush(lake, str("c"), &err));
        graphs_wait(lake);
    }
    check(lake, s, queries, k, "built");
    set_put(lake, s, count, later);
    check(lake, s, queries, k, "inserted");
    set_delete(lake, s, count + later - count / 5);
    check(lake, s, queries, k, "deleted");
    CHECK_OK(vex_lake_close(lake, &err));
    free(queries);
    set_destroy(s);
}

/* Every dimension meets every kind, and every kind every metric. */
static void run_dimension(uint32_t dimension, int number) {
    static const kind pairs[3][2] = {{IVF_4, MEMTABLE}, {GRAPH, IVF_1}, {FLAT, IVF_8}};
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        const kind *pair = pairs[(number + metric) % 3];
        if (pair[0] != GRAPH || dimension == 17 || dimension == 96) { /* building takes time */
            run(pair[0], dimension, (vex_metric)metric);
        }
        run(pair[1], dimension, (vex_metric)metric);
    }
}

TEST(narrow) {
    run_dimension(1, 0);
    run_dimension(3, 1);
    run_dimension(17, 2);
}

TEST(usual) {
    run_dimension(96, 0);
    run_dimension(128, 1);
    run_dimension(384, 2);
}

TEST(wide) {
    run_dimension(768, 0);
    run_dimension(4096, 1);
}

TEST_MAIN(RUN(narrow); RUN(usual); RUN(wide))
