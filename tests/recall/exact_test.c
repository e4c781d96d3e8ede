/* EXACT is exact: the rows, their distances and their order are those of a model that compares all
 * rows in double and sorts by (distance, id). On data that float32 cannot tell apart: near
 * duplicates, rows that tie in hundreds, values whose products vanish or whose squares overflow.
 * Rows lie in several segments and the memtable, some are deleted, and the order of ids is not that
 * of rows. On ordinary data certainty costs nothing: rows are compared once. */
#include "../../src/api/api_test.h"
#include "kernel/kernel.h"

enum { ROWS = 3000, DIMENSION_MAX = 768, QUERIES = 8, NAME_SIZE = 16 };

typedef enum kind {
    PLAIN,
    NEAR,       /* one vector, and noise of 1e-4 of its values */
    NEARER,     /* noise of about the last bit */
    FAR,        /* as NEAR, and queries in other directions */
    BITS,       /* values of 0 and 1 */
    SAME,       /* three vectors */
    TINY,       /* products are about 1e-42 */
    TINY_ROWS,  /* products are about 1e-21 */
    HUGE_ROWS,  /* squares overflow */
    ORTHOGONAL, /* inner products with the queries cancel */
    KINDS
} kind;

typedef struct row {
    double distance;
    uint32_t number;
} row;

static float vectors[ROWS][DIMENSION_MAX];
static float queries[QUERIES][DIMENSION_MAX];
static char names[ROWS][NAME_SIZE];
static bool live[ROWS];
static row expected[QUERIES][ROWS]; /* by (distance, id): the live rows first */

static void fill(float *out, uint32_t dimension, kind kind, const float *base, uint64_t *seed) {
    for (uint32_t j = 0; j < dimension; j++) {
        float noise = vex_test_normal(seed);
        switch (kind) {
        case PLAIN:
        case KINDS:
            out[j] = noise;
            break;
        case NEAR:
        case FAR:
            out[j] = base[j] + 1e-4f * noise;
            break;
        case NEARER:
            out[j] = base[j] * (1 + 6e-8f * (float)vex_test_below(seed, 3));
            break;
        case BITS:
            out[j] = j == 0 ? 1 : (float)vex_test_below(seed, 2);
            break;
        case SAME:
            out[j] = base[j];
            break;
        case TINY:
            out[j] = 1e-21f * noise;
            break;
        case TINY_ROWS:
            out[j] = 1e-21f * noise;
            break;
        case HUGE_ROWS:
            out[j] = 1e19f * noise;
            break;
        case ORTHOGONAL: /* + a, - a: against a query of equal values they cancel, but for little */
            out[j] = j % 2 == 0 ? 1000 * noise : -out[j - 1] + 1e-5f * noise;
            break;
        }
    }
}

static void data_make(kind kind, uint32_t dimension, uint64_t *seed) {
    static float base[3][DIMENSION_MAX];
    for (uint32_t j = 0; j < 3 * DIMENSION_MAX; j++) {
        base[j / DIMENSION_MAX][j % DIMENSION_MAX] = vex_test_normal(seed);
    }
    for (uint32_t i = 0; i < ROWS; i++) {
        uint32_t from = kind == SAME ? (uint32_t)vex_test_below(seed, 3) : 0;
        fill(vectors[i], dimension, kind, base[from], seed);
        /* Multiplying by an odd number permutes what is below 4096. */
        snprintf(names[i], sizeof names[i], "%u", 1000 + (i * 2731u) % 4096u);
        live[i] = true;
    }
    for (uint32_t q = 0; q < QUERIES; q++) {
        fill(queries[q], dimension,
             kind == FAR || kind == ORTHOGONAL ? PLAIN
             : kind == TINY_ROWS               ? PLAIN
                                               : kind,
             base[q % 3], seed);
        if (kind == ORTHOGONAL) {
            for (uint32_t j = 0; j < dimension; j++) {
                queries[q][j] = 1 + (float)q;
            }
        } else if (q % 4 == 1) {
            memcpy(queries[q], vectors[vex_test_below(seed, ROWS)], dimension * sizeof(float));
        }
    }
}

static void put(vex_lake *lake, uint32_t dimension, uint32_t first, uint32_t end) {
    static vex_row rows[ROWS];
    for (uint32_t i = first; i < end; i++) {
        rows[i] = (vex_row){.id = str(names[i]), .vector = vectors[i], .dimension = dimension};
    }
    CHECK_OK(vex_put_rows(lake, str("c"), rows + first, end - first, &err));
}

static int row_compare(const void *left, const void *right) {
    const row *a = left, *b = right;
    return a->distance != b->distance ? (a->distance < b->distance ? -1 : 1)
                                      : strcmp(names[a->number], names[b->number]);
}

static void expect(vex_metric metric, uint32_t dimension, uint32_t q) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        if (live[i]) {
            double distance =
                vexi_distance(metric, queries[q], (const uint8_t *)vectors[i], dimension);
            expected[q][count++] = (row){distance + 0.0, i};
        }
    }
    qsort(expected[q], count, sizeof **expected, row_compare);
}

static void check_query(vex_metric metric, uint32_t q, uint32_t k, const result *r, int64_t first) {
    for (uint32_t i = 0; i < k; i++) {
        double distance = result_distance(r, first + i);
        vex_string id = result_id(r, first + i);
        const char *wanted = names[expected[q][i].number];
        if (distance != expected[q][i].distance || !string_is(id, wanted)) {
            fprintf(stderr, "metric %d, query %u, place %u of %u: %.*s at %.17g, not %s at %.17g\n",
                    metric, q, i, k, (int)id.size, id.data, distance, wanted,
                    expected[q][i].distance);
            exit(1);
        }
    }
}

static void check(vex_lake *lake, kind kind, vex_metric metric, uint32_t dimension) {
    static const uint32_t ks[] = {1, 10, 100, 1000};
    static float packed[QUERIES * DIMENSION_MAX];
    uint64_t live_count = 0;
    for (uint32_t i = 0; i < ROWS; i++) {
        live_count += live[i];
    }
    for (uint32_t q = 0; q < QUERIES; q++) {
        memcpy(packed + q * dimension, queries[q], dimension * sizeof(float));
        expect(metric, dimension, q);
    }
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        vex_search_stats stats;
        vex_search_options options = {
            .size = sizeof options, .k = ks[i], .exact = true, .stats = &stats};
        result r = {0};
        CHECK_OK(vex_search(lake, str("c"), packed, QUERIES, dimension, &options, &r.schema,
                            &r.batch, &err));
        CHECK_EQ(r.batch.length, QUERIES * ks[i]);
        for (uint32_t q = 0; q < QUERIES; q++) {
            check_query(metric, q, ks[i], &r, (int64_t)q * ks[i]);
        }
        result_release(&r);
        if (kind == PLAIN) {
            CHECK_EQ(stats.row_count, live_count * QUERIES);
        } else if (kind == SAME && ks[i] <= 100) {
            CHECK_EQ(stats.row_count, 2 * live_count * QUERIES);
        }
    }
}

static void run(kind kind, vex_metric metric, vex_index_kind index, uint32_t dimension) {
    uint64_t seed = 1 + (uint64_t)kind * 100 + (uint64_t)metric * 10 + dimension;
    vex_lake *lake;
    data_make(kind, dimension, &seed);
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    create(lake, "c", dimension, metric, index);
    put(lake, dimension, 0, 1500);
    CHECK_OK(vex_flush(lake, str("c"), &err));
    put(lake, dimension, 1500, 2200);
    CHECK_OK(vex_flush(lake, str("c"), &err));
    put(lake, dimension, 2200, ROWS);
    check(lake, kind, metric, dimension);
    for (uint32_t i = 0; i < ROWS; i++) {
        vex_string id = str(names[i]);
        if (vex_test_below(&seed, 10) < (i < 1500 ? 2 : 1)) {
            CHECK_OK(vex_delete(lake, str("c"), &id, 1, NULL, &err));
            live[i] = false;
        }
    }
    check(lake, kind, metric, dimension);
    CHECK_OK(vex_lake_close(lake, &err));
}

static void run_metric(vex_metric metric) {
    static const uint32_t dimensions[] = {3, 40, DIMENSION_MAX};
    for (int kind = 0; kind < KINDS; kind++) {
        for (int i = 0; i < 3; i++) {
            run((enum kind)kind, metric, i == 1 ? VEX_INDEX_IVF : VEX_INDEX_FLAT, dimensions[i]);
        }
    }
}

TEST(squared_l2) {
    run_metric(VEX_METRIC_L2);
}

TEST(cosine) {
    run_metric(VEX_METRIC_COSINE);
}

TEST(inner_product) {
    run_metric(VEX_METRIC_IP);
}

TEST_MAIN(RUN(squared_l2); RUN(cosine); RUN(inner_product))
