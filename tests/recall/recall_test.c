/* Recall floors: every metric and index kind, after build, after inserts and overwrites, after
 * deletes, for dimensions below, beside and above the width of vector registers.
 *
 * EXACT must equal a brute-force search in double, row for row. On clustered data the default
 * search, and one with few probes, must find at least the floor's share of its rows, and statistics
 * must show that it was the IVF index that found them, by comparing fewer rows. However few lists
 * are probed, and whatever is deleted, a search returns exactly min(k, live rows). */
#include "../../src/api/api_test.h"

enum { ROWS = 5000, MORE = 1000, K = 10, QUERIES = 40, CLUSTERS = 60, NAME_SIZE = 16 };

/* Recall at K. The index's seed is random. The default aims at 0.95 on average over queries like
 * the rows; of the 40 queries here five lost their whole neighbourhood to deletes, and where
 * clusters lie far apart they find half of the next one: seen over ten runs 0.90 to 1.00 in all.
 * With FEW of the lists 1.00 after build and inserts, 0.97 to 1.00 after deletes around the
 * queries. With all lists only what the codes' bounds miss is missing: none of 400 rows, seldom
 * one. */
#define DEFAULT_FLOOR 0.85
#define FEW_FLOOR     0.90
#define ALL_FLOOR     0.99
enum { FEW = 20 };

typedef struct model {
    uint32_t dimension;
    vex_metric metric;
    uint64_t seed;
    float *centers; /* CLUSTERS x dimension */
    float *vectors; /* (ROWS + MORE) x dimension */
    bool live[ROWS + MORE];
    float *queries; /* QUERIES x dimension */
} model;

typedef struct found {
    double distance;
    int row;
} found;

static void row_name(int row, char out[NAME_SIZE]) {
    snprintf(out, NAME_SIZE, "r%06d", row); /* order of ids is order of rows */
}

static void draw(model *m, float *out) {
    const float *center = m->centers + vex_test_below(&m->seed, CLUSTERS) * m->dimension;
    for (uint32_t i = 0; i < m->dimension; i++) {
        out[i] = center[i] + 0.5f * vex_test_normal(&m->seed);
    }
}

static model *model_create(uint32_t dimension, vex_metric metric, uint64_t seed) {
    model *m = calloc(1, sizeof *m);
    CHECK(m != NULL);
    *m = (model){.dimension = dimension, .metric = metric, .seed = seed};
    m->centers = malloc(CLUSTERS * dimension * sizeof(float));
    m->vectors = malloc((ROWS + MORE) * dimension * sizeof(float));
    m->queries = malloc(QUERIES * dimension * sizeof(float));
    CHECK(m->centers != NULL && m->vectors != NULL && m->queries != NULL);
    for (uint32_t i = 0; i < CLUSTERS * dimension; i++) {
        m->centers[i] = vex_test_normal(&m->seed);
    }
    for (int q = 0; q < QUERIES; q++) {
        draw(m, m->queries + q * (int)dimension);
    }
    return m;
}

static void model_destroy(model *m) {
    free(m->centers);
    free(m->vectors);
    free(m->queries);
    free(m);
}

static void put(vex_lake *lake, model *m, int first, int count) {
    enum { BATCH = 500 };
    static char names[BATCH][NAME_SIZE];
    static vex_row rows[BATCH];
    while (count > 0) {
        int part = count < BATCH ? count : BATCH;
        for (int i = 0; i < part; i++) {
            float *vector = m->vectors + (first + i) * (int)m->dimension;
            draw(m, vector);
            m->live[first + i] = true;
            row_name(first + i, names[i]);
            rows[i] = (vex_row){.id = str(names[i]), .vector = vector, .dimension = m->dimension};
        }
        CHECK_OK(vex_put_rows(lake, str("c"), rows, (size_t)part, &err));
        first += part;
        count -= part;
    }
}

static void delete (vex_lake *lake, model *m, int row) {
    char name[NAME_SIZE];
    row_name(row, name);
    vex_string id = str(name);
    uint8_t existed;
    CHECK_OK(vex_delete(lake, str("c"), &id, 1, &existed, &err));
    CHECK_EQ(existed, m->live[row]);
    m->live[row] = false;
}

/* The definition, in double. */
static double distance(const model *m, const float *a, const float *b) {
    double dot = 0, square = 0, aa = 0, bb = 0;
    for (uint32_t i = 0; i < m->dimension; i++) {
        double x = a[i], y = b[i];
        dot += x * y;
        square += (x - y) * (x - y);
        aa += x * x;
        bb += y * y;
    }
    return m->metric == VEX_METRIC_L2   ? square
           : m->metric == VEX_METRIC_IP ? -dot
                                        : 1 - dot / (sqrt(aa) * sqrt(bb));
}

static int found_compare(const void *left, const void *right) {
    const found *a = left, *b = right;
    return a->distance != b->distance ? (a->distance < b->distance ? -1 : 1) : a->row - b->row;
}

/* All live rows by distance; returns how many. */
static int brute_force(const model *m, const float *query, found *out) {
    int count = 0;
    for (int row = 0; row < ROWS + MORE; row++) {
        if (m->live[row]) {
            out[count].row = row;
            out[count++].distance = distance(m, query, m->vectors + row * (int)m->dimension);
        }
    }
    qsort(out, (size_t)count, sizeof *out, found_compare);
    return count;
}

static result search(vex_lake *lake, const model *m, uint32_t k, uint32_t nprobe, bool exact,
                     vex_search_stats *stats) {
    vex_search_options options = {
        .size = sizeof options, .k = k, .nprobe = nprobe, .exact = exact, .stats = stats};
    result r;
    CHECK_OK(vex_search(lake, str("c"), m->queries, QUERIES, m->dimension, &options, &r.schema,
                        &r.batch, &err));
    return r;
}

static int result_row(const result *r, int64_t at) {
    int row = -1;
    vex_string id = result_id(r, at);
    char text[NAME_SIZE] = {0};
    CHECK(id.size < NAME_SIZE);
    memcpy(text, id.data, id.size);
    CHECK(sscanf(text, "r%d", &row) == 1);
    return row;
}

/* ivf_segments: how many segments must have been searched through an index. */
static void check_stage(vex_lake *lake, model *m, const char *stage, uint64_t ivf_segments) {
    found *expected[QUERIES];
    int live = 0;
    for (int q = 0; q < QUERIES; q++) {
        expected[q] = malloc((ROWS + MORE) * sizeof *expected[q]);
        CHECK(expected[q] != NULL);
        live = brute_force(m, m->queries + q * (int)m->dimension, expected[q]);
    }
    /* Exact: equal to the definition. */
    vex_search_stats exact_stats, stats;
    result r = search(lake, m, K, 0, true, &exact_stats);
    CHECK_EQ(r.batch.length, QUERIES * K);
    CHECK_EQ(exact_stats.segment_ivf_count, 0);
    CHECK(exact_stats.row_count >= (uint64_t)live * QUERIES);
    for (int i = 0; i < QUERIES * K; i++) {
        const found *f = &expected[i / K][i % K];
        CHECK_EQ(result_row(&r, i), f->row);
        CHECK(fabs(result_distance(&r, i) - f->distance) <= 1e-12 * (1 + fabs(f->distance)));
    }
    result_release(&r);

    /* Default and few probes: the floors, by the index where there is one. */
    for (int few = 0; few < 2; few++) {
        r = search(lake, m, K, few ? FEW : 0, false, &stats);
        CHECK_EQ(r.batch.length, QUERIES * K);
        CHECK_EQ(stats.segment_ivf_count, ivf_segments);
        int hits = 0;
        for (int i = 0; i < QUERIES * K; i++) {
            int row = result_row(&r, i);
            CHECK(m->live[row]);
            double last = expected[i / K][K - 1].distance;
            double here = distance(m, m->queries + i / K * (int)m->dimension,
                                   m->vectors + row * (int)m->dimension);
            CHECK(fabs(result_distance(&r, i) - here) <= 1e-12 * (1 + fabs(here)));
            hits += here <= last;
        }
        result_release(&r);
        double recall = (double)hits / (QUERIES * K);
        printf("    %s, %s: recall %.3f, %" PRIu64 " of %" PRIu64 " rows compared\n", stage,
               few ? "few probes" : "default", recall, stats.row_count, exact_stats.row_count);
        if (ivf_segments > 0) {
            CHECK(recall >= (few ? FEW_FLOOR : DEFAULT_FLOOR));
            CHECK(stats.list_count > 0);
            CHECK(stats.row_count < exact_stats.row_count * (few ? 4 : 9) / 10);
        } else {
            CHECK(hits == QUERIES * K);
            CHECK_EQ(stats.list_count, 0);
        }
    }

    /* One list, all lists, and more rows than one list has. */
    r = search(lake, m, K, 1, false, &stats);
    CHECK_EQ(r.batch.length, QUERIES * K);
    CHECK(ivf_segments == 0 || stats.list_count < QUERIES * 8 * ivf_segments);
    result_release(&r);
    r = search(lake, m, K, 1u << 20, false, &stats);
    int same = 0;
    for (int q = 0; q < QUERIES; q++) {
        for (int i = 0; i < K * K; i++) {
            same += result_row(&r, q * K + i / K) == expected[q][i % K].row;
        }
    }
    CHECK(same >= ALL_FLOOR * QUERIES * K);
    result_release(&r);
    r = search(lake, m, 700, 1, false, &stats);
    CHECK_EQ(r.batch.length, QUERIES * (live < 700 ? live : 700));
    result_release(&r);
    for (int q = 0; q < QUERIES; q++) {
        free(expected[q]);
    }
}

static void run(uint32_t dimension, vex_metric metric, vex_index_kind index) {
    static const char *const metrics[] = {"l2", "cosine", "ip"};
    static const char *const kinds[] = {"auto", "flat", "ivf"};
    printf("   %s, %s, dimension %u\n", metrics[metric], kinds[index], dimension);
    uint64_t seed = vex_test_seed(dimension * 10 + (uint64_t)metric * 3 + (uint64_t)index);
    model *m = model_create(dimension, metric, seed);
    uint64_t ivf = index == VEX_INDEX_FLAT ? 0 : 1;
    vex_lake *lake;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    create(lake, "c", dimension, metric, index);
    put(lake, m, 0, ROWS);
    CHECK_OK(vex_flush(lake, str("c"), &err));
    check_stage(lake, m, "built", ivf);

    put(lake, m, ROWS, MORE);
    for (int i = 0; i < 30; i++) { /* overwrites move rows elsewhere */
        put(lake, m, (int)vex_test_below(&m->seed, ROWS), 1);
    }
    check_stage(lake, m, "inserted", ivf);
    CHECK_OK(vex_flush(lake, str("c"), &err));
    /* The second segment is too small for an index unless one is demanded. */
    check_stage(lake, m, "flushed", index == VEX_INDEX_IVF ? 2 : ivf);

    /* Whole neighbourhoods of queries go, so that nearest lists run empty; and rows anywhere. */
    found *near = malloc((ROWS + MORE) * sizeof *near);
    CHECK(near != NULL);
    for (int q = 0; q < 5; q++) {
        int live = brute_force(m, m->queries + q * (int)m->dimension, near);
        for (int i = 0; i < live && i < 150; i++) {
            delete (lake, m, near[i].row);
        }
    }
    for (int i = 0; i < 500; i++) {
        delete (lake, m, (int)vex_test_below(&m->seed, ROWS + MORE));
    }
    check_stage(lake, m, "deleted", index == VEX_INDEX_IVF ? 2 : ivf);
    CHECK_OK(vex_flush(lake, str("c"), &err));
    check_stage(lake, m, "deletes flushed", index == VEX_INDEX_IVF ? 2 : ivf);

    /* Down to fewer rows than k. */
    for (int row = 0; row < ROWS + MORE; row++) {
        if (row % 800 != 0 && m->live[row]) {
            delete (lake, m, row);
        }
    }
    for (int exact = 0; exact < 2; exact++) {
        int live = brute_force(m, m->queries, near);
        vex_search_stats stats;
        result r = search(lake, m, K, 1, exact, &stats);
        CHECK(live < K);
        CHECK_EQ(r.batch.length, live * QUERIES);
        for (int i = 0; i < live; i++) {
            CHECK_EQ(result_row(&r, i), near[i].row);
        }
        result_release(&r);
    }
    free(near);
    CHECK_OK(vex_lake_close(lake, &err));
    model_destroy(m);
}

static void run_metric(vex_metric metric) {
    static const uint32_t dimensions[] = {3, 33, 128};
    for (size_t i = 0; i < 3; i++) {
        run(dimensions[i], metric, VEX_INDEX_AUTO);
    }
    run(17, metric, VEX_INDEX_FLAT);
    run(100, metric, VEX_INDEX_IVF);
}

TEST(l2) {
    run_metric(VEX_METRIC_L2);
}

TEST(cosine) {
    run_metric(VEX_METRIC_COSINE);
}

TEST(ip) {
    run_metric(VEX_METRIC_IP);
}

TEST_MAIN(RUN(l2); RUN(cosine); RUN(ip))
