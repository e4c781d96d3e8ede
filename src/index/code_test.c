#include "index/code.h"

#include <math.h>

#include "base/bitmap.h"
#include "check.h"

static const vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_IP};
static const uint32_t bit_counts[] = {1, 4, 8};

/* One list: rows, their codes, a query, and the exact distances in the terms of the scan. */
typedef struct list_case {
    uint32_t count;
    vexi_code_layout layout;
    vexi_rotation rotation;
    float *values;
    const float **rows;
    float *center, *origin, *origin_rotated, *query_values;
    uint8_t *codes;
    float error, record_error, center_square;
    vexi_arena arena;
    vexi_code_query query;
    double *exact;
} list_case;

static float *floats(size_t count) {
    return aligned_alloc(64, (count * sizeof(float) / 64 + 1) * 64);
}

/* Fills rows and query; 0 normal around a far point, 1 clustered, 2 constant, 3 duplicates. */
static void fill_case(list_case *c, int kind, uint64_t *random) {
    uint32_t dimension = c->layout.dimension;
    for (uint32_t i = 0; i < c->count; i++) {
        for (uint32_t j = 0; j < dimension; j++) {
            float *value = &c->values[(size_t)i * dimension + j];
            if (kind == 0) {
                *value = 2 + vex_test_normal(random);
            } else if (kind == 1) {
                uint64_t cluster = 77 + i % 5 + 1000 * (uint64_t)j;
                *value = vex_test_normal(&cluster) + 0.1f * vex_test_normal(random);
            } else if (kind == 2) {
                *value = 1.5f;
            } else {
                uint64_t same = i % 3 + 1000 * (uint64_t)j;
                *value = vex_test_normal(&same);
            }
        }
    }
    uint32_t near = (uint32_t)vex_test_below(random, c->count);
    for (uint32_t j = 0; j < dimension; j++) {
        c->query_values[j] =
            c->values[(size_t)near * dimension + j] + 0.3f * vex_test_normal(random);
    }
}

static double square(const float *values, uint32_t dimension) {
    double sum = 0;
    for (uint32_t j = 0; j < dimension; j++) {
        sum += (double)values[j] * (double)values[j];
    }
    return sum;
}

static list_case *make_case(vex_metric metric, uint32_t dimension, uint32_t bits, uint32_t count,
                            int kind, uint64_t *random) {
    list_case *c = calloc(1, sizeof *c);
    c->count = count;
    c->layout = vexi_code_layout_of(metric, dimension, bits);
    uint32_t padded = c->layout.padded;
    vexi_rotation_init(&c->rotation, dimension, vex_test_random(random));
    c->values = floats((size_t)count * dimension);
    c->rows = malloc(count * sizeof *c->rows);
    c->center = calloc(dimension, sizeof(float));
    c->origin = calloc(dimension, sizeof(float));
    c->origin_rotated = floats(padded);
    c->query_values = floats(dimension);
    c->exact = malloc(count * sizeof *c->exact);
    fill_case(c, kind, random);
    double length = 0;
    for (uint32_t i = 0; i < count; i++) {
        c->rows[i] = c->values + (size_t)i * dimension;
        double row_square = square(c->rows[i], dimension);
        double unit = metric == VEX_METRIC_COSINE && row_square > 0 ? 1 / sqrt(row_square) : 1;
        length += row_square;
        for (uint32_t j = 0; j < dimension; j++) {
            c->center[j] += (float)(unit * (double)c->rows[i][j] / count);
        }
    }
    for (uint32_t j = 0; j < dimension; j++) {
        c->origin[j] = c->center[j] + 0.2f * vex_test_normal(random);
    }
    size_t size = (size_t)vexi_code_list_size(&c->layout, count);
    CHECK(size % 64 == 0);
    c->codes = aligned_alloc(64, size + 64);
    memset(c->codes, 0xa5, size + 64);
    float *scratch = floats(VEXI_CODE_SCRATCH(padded));
    vexi_code_encode(&c->layout, &c->rotation, c->rows, count, c->center, c->origin, c->codes,
                     &c->error, &c->record_error, scratch);
    for (size_t i = size; i < size + 64; i++) {
        CHECK_EQ(c->codes[i], 0xa5);
    }
    free(scratch);
    vexi_rotate(&c->rotation, c->origin, c->origin_rotated);
    vexi_arena_init(&c->arena, vex_test_env());
    float row_length = metric == VEX_METRIC_COSINE ? 1.0f : (float)sqrt(length / count);
    CHECK_OK(vexi_code_query_init(&c->query, &c->layout, &c->rotation, c->query_values,
                                  c->origin_rotated, row_length, &c->arena, &err));
    double center_square = 0;
    for (uint32_t j = 0; j < dimension; j++) {
        double difference = (double)c->query.values[j] - (double)c->center[j];
        center_square += difference * difference;
    }
    c->center_square = (float)center_square;
    for (uint32_t i = 0; i < count; i++) {
        c->exact[i] =
            (double)c->query.to_scan *
            vexi_distance(metric, c->query_values, (const uint8_t *)c->rows[i], dimension);
    }
    return c;
}

static void free_case(list_case *c) {
    vexi_arena_deinit(&c->arena);
    free(c->values);
    free(c->rows);
    free(c->center);
    free(c->origin);
    free(c->origin_rotated);
    free(c->query_values);
    free(c->codes);
    free(c->exact);
    free(c);
}

static vexi_code_list list_of(const list_case *c) {
    size_t block_count = (c->count + 31) / 32;
    return (vexi_code_list){
        .blocks = c->codes,
        .records = c->layout.bits == 1 ? NULL : c->codes + block_count * c->layout.block_size,
        .row_count = c->count,
        .error = c->error,
        .record_error = c->record_error};
}

static vexi_code_pool scan(list_case *c, uint32_t k, float limit, const uint64_t *hidden) {
    vexi_code_pool pool;
    vexi_code_list list = list_of(c);
    CHECK_OK(vexi_code_pool_init(&pool, k, limit, &c->arena, &err));
    CHECK_OK(vexi_code_pool_reserve(&pool, c->count, &c->arena, &err));
    vexi_code_scan(&c->query, &list, c->center_square, hidden, &pool);
    CHECK_EQ(pool.row_count, c->count);
    return pool;
}

/* Sums over the rows of many cases. */
typedef struct tally {
    size_t rows, outside;
    double bias, size; /* of the errors */
} tally;

static void tally_case(list_case *c, tally *out) {
    c->query.epsilon = 3;
    vexi_code_pool pool = scan(c, c->count, INFINITY, NULL);
    CHECK_EQ(pool.count, c->count); /* the best of all rows cannot drop one */
    double scale = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        scale = fmax(scale, fabs(c->exact[i]));
    }
    scale = fmax(scale, (double)c->center_square);
    if (c->layout.metric != VEX_METRIC_L2) {
        scale = fmax(scale, (double)c->query.square);
    }
    for (uint32_t i = 0; i < pool.count; i++) {
        const vexi_code_candidate *item = &pool.items[i];
        double exact = c->exact[item->row];
        CHECK(isfinite(item->bound) && item->bound <= item->estimate);
        out->rows++;
        out->outside += (double)item->bound > exact + 1e-6 * scale;
        out->bias += (double)item->estimate - exact;
        out->size += fabs((double)item->estimate - exact);
    }
}

TEST(bounds_hold_and_estimates_are_unbiased) {
    uint64_t random = vex_test_seed(3);
    static const uint32_t dimensions[] = {1, 3, 64, 100, 128, 321, 960};
    for (size_t m = 0; m < 3; m++) {
        for (size_t b = 0; b < 3; b++) {
            tally sums = {0};
            for (size_t d = 0; d < sizeof dimensions / sizeof *dimensions; d++) {
                for (int kind = 0; kind < 4; kind++) {
                    tally some = {0};
                    for (int trial = 0; trial < 6; trial++) {
                        uint32_t count = 1 + (uint32_t)vex_test_below(&random, 200);
                        list_case *c = make_case(metrics[m], dimensions[d], bit_counts[b], count,
                                                 kind, &random);
                        tally_case(c, &some);
                        free_case(c);
                    }
                    sums.rows += some.rows;
                    sums.outside += some.outside;
                    if (bit_counts[b] > 1 && kind < 2 && dimensions[d] >= 64) {
                        CHECK(fabs(some.bias) < 0.5 * some.size);
                    }
                }
            }
            /* Three deviations of one side: 0.13 %, but duplicates err together. */
            printf("    metric %d, %u bits: %zu of %zu rows below their bound\n", (int)metrics[m],
                   bit_counts[b], sums.outside, sums.rows);
            CHECK(sums.outside * 200 <= sums.rows);
        }
    }
}

TEST_MAIN(RUN(bounds_hold_and_estimates_are_unbiased))
