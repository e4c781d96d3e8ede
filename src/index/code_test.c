#include "index/code_internal.h"

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

/* Fills rows and query; 0 normal around a far point, 1 clustered, 2 constant, 3 duplicates, 4 with
 * nearly all that differs in the first coordinates, which the rotation must spread. */
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
            } else if (kind == 4) {
                *value = vex_test_normal(random) * expf(-8.0f * (float)j / (float)dimension);
            } else {
                uint64_t same = i % 3 + 1000 * (uint64_t)j;
                *value = vex_test_normal(&same);
            }
        }
    }
    uint32_t near = (uint32_t)vex_test_below(random, c->count);
    for (uint32_t j = 0; j < dimension; j++) {
        float size = kind == 4 ? expf(-8.0f * (float)j / (float)dimension) : 1.0f;
        c->query_values[j] =
            c->values[(size_t)near * dimension + j] + 0.3f * size * vex_test_normal(random);
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
    static const uint32_t dimensions[] = {1, 3, 64, 100, 128, 321, 960, 1984, 4096};
    for (size_t m = 0; m < 3; m++) {
        for (size_t b = 0; b < 3; b++) {
            tally sums = {0};
            for (size_t d = 0; d < sizeof dimensions / sizeof *dimensions; d++) {
                for (int kind = 0; kind < 5; kind++) {
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

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Of the k nearest rows that are not hidden, those that the pool holds. Candidates are not hidden
 * and no row comes twice. */
static size_t found_rows(const list_case *c, vexi_code_pool *pool, uint32_t first_row,
                         const uint64_t *hidden, uint32_t k, size_t *wanted) {
    double *sorted = malloc((c->count + 1) * sizeof *sorted);
    bool *pooled = calloc(c->count, sizeof *pooled);
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->count; i++) {
        if (hidden == NULL || !vexi_bitmap_get(hidden, first_row + i)) {
            sorted[count++] = c->exact[i];
        }
    }
    qsort(sorted, count, sizeof *sorted, by_value);
    vexi_code_pool_sort(pool);
    for (uint32_t i = 0; i < pool->count; i++) {
        uint32_t row = pool->items[i].row - first_row;
        CHECK(row < c->count && !pooled[row]);
        CHECK(hidden == NULL || !vexi_bitmap_get(hidden, first_row + row));
        CHECK(i == 0 || pool->items[i - 1].estimate <= pool->items[i].estimate);
        pooled[row] = true;
    }
    size_t found = 0;
    k = k < count ? k : count;
    *wanted += k;
    double worst = k > 0 ? sorted[k - 1] : 0;
    for (uint32_t i = 0; i < c->count; i++) {
        found += pooled[i] && c->exact[i] <= worst && found < k ? 1 : 0;
    }
    free(sorted);
    free(pooled);
    return found;
}

TEST(the_nearest_rows_survive) {
    uint64_t random = vex_test_seed(4);
    static const uint32_t dimensions[] = {2, 65, 128};
    static const uint32_t ks[] = {1, 10, 100, 10000};
    size_t found = 0, wanted = 0, pooled = 0, scanned = 0;
    for (uint32_t trial = 0; trial < 108; trial++) {
        uint32_t bits = trial % 2 == 0 ? 4 : 8, k = ks[trial / 27 % 4];
        uint32_t count = trial % 9 == 0 ? 1 : 1 + (uint32_t)vex_test_below(&random, 1500);
        list_case *c = make_case(metrics[trial % 3], dimensions[trial / 3 % 3], bits, count,
                                 (int)(trial % 4), &random);
        /* Exactly the words that hold the rows, so that reading another is an error. */
        uint32_t first_row = (uint32_t)vex_test_below(&random, 200);
        uint64_t *hidden = calloc(vexi_bitmap_words(first_row + count), sizeof *hidden);
        uint32_t share = (uint32_t)vex_test_below(&random, 3) * 49 + 1; /* 1, 50, 99 % */
        for (uint32_t i = 0; i < first_row + count; i++) {
            if (vex_test_below(&random, 100) < share) {
                vexi_bitmap_set(hidden, i);
            }
        }
        c->query.epsilon = 3;
        vexi_code_pool pool;
        vexi_code_list list = list_of(c);
        list.first_row = first_row;
        CHECK_OK(vexi_code_pool_init(&pool, k, INFINITY, &c->arena, &err));
        CHECK_OK(vexi_code_pool_reserve(&pool, count, &c->arena, &err));
        vexi_code_prefetch(&c->query, &list);
        vexi_code_scan(&c->query, &list, c->center_square, hidden, &pool);
        found += found_rows(c, &pool, first_row, hidden, k, &wanted);
        if (k == 1) {
            pooled += pool.count;
            scanned += count;
        }
        free(hidden);
        free_case(c);
    }
    printf("    %zu of %zu found\n", found, wanted);
    CHECK(found >= wanted - wanted / 1000);
    CHECK(pooled < scanned / 2); /* duplicates all survive */
}

TEST(parts_of_a_list_make_the_whole) {
    uint64_t random = vex_test_seed(5);
    list_case *c = make_case(VEX_METRIC_L2, 100, 4, 500, 0, &random);
    vexi_code_pool whole = scan(c, 500, INFINITY, NULL), parts;
    CHECK_OK(vexi_code_pool_init(&parts, 500, INFINITY, &c->arena, &err));
    for (uint32_t first = 0; first < 500; first += 96) {
        vexi_code_list list = list_of(c);
        list.blocks += first / 32 * c->layout.block_size;
        list.records += first * c->layout.record_size;
        list.first_row = first;
        list.row_count = 500 - first < 96 ? 500 - first : 96;
        CHECK_OK(vexi_code_pool_reserve(&parts, list.row_count, &c->arena, &err));
        vexi_code_scan(&c->query, &list, c->center_square, NULL, &parts);
    }
    vexi_code_pool_sort(&whole);
    vexi_code_pool_sort(&parts);
    CHECK_EQ(whole.count, 500);
    CHECK_EQ(parts.count, 500);
    CHECK(memcmp(whole.items, parts.items, 500 * sizeof *whole.items) == 0);
    free_case(c);
}

/* Without records the caller's limit decides. */
TEST(one_bit_scans_respect_a_limit) {
    uint64_t random = vex_test_seed(6);
    for (uint32_t trial = 0; trial < 12; trial++) {
        list_case *c = make_case(metrics[trial % 3], 96, 1, 1000, 0, &random);
        double *sorted = malloc(1000 * sizeof *sorted);
        memcpy(sorted, c->exact, 1000 * sizeof *sorted);
        qsort(sorted, 1000, sizeof *sorted, by_value);
        c->query.epsilon = 3;
        vexi_code_pool pool = scan(c, 0, (float)sorted[20], NULL);
        CHECK(pool.count < 900);
        size_t wanted = 0, found = found_rows(c, &pool, 0, NULL, 20, &wanted);
        CHECK(found >= wanted - 1);
        for (uint32_t i = 0; i < pool.count; i++) {
            CHECK(pool.items[i].bound == pool.items[i].estimate);
        }
        free(sorted);
        free_case(c);
    }
}

/* Whatever the numbers are, rows are found or survive, and nothing is not a number. */
TEST(extreme_values_survive) {
    static const float sizes[] = {0.0f, 1e-30f, 1e-18f, 1e18f, 1e30f, 3e38f};
    uint64_t random = vex_test_seed(7);
    for (size_t m = 0; m < 3; m++) {
        for (size_t b = 0; b < 3; b++) {
            for (size_t s = 0; s < 36; s++) {
                float row_size = sizes[s / 6], query_size = sizes[s % 6];
                vexi_code_layout layout = vexi_code_layout_of(metrics[m], 70, bit_counts[b]);
                static vexi_rotation rotation;
                static float values[40][70], query_values[70], center[70], rotated[128];
                static _Alignas(64) float scratch[VEXI_CODE_SCRATCH(128)];
                const float *rows[40];
                vexi_rotation_init(&rotation, 70, 9);
                for (uint32_t i = 0; i < 40; i++) {
                    for (uint32_t j = 0; j < 70; j++) {
                        values[i][j] = row_size * (0.001f * (float)vex_test_below(&random, 1000));
                        query_values[j] = query_size * (j % 2 == 0 ? 1.0f : -0.7f);
                    }
                    rows[i] = values[i];
                }
                vexi_arena arena;
                vexi_arena_init(&arena, vex_test_env());
                size_t size = (size_t)vexi_code_list_size(&layout, 40);
                uint8_t *codes = aligned_alloc(64, size);
                float error, record_error;
                vexi_code_encode(&layout, &rotation, rows, 40, center, center, codes, &error,
                                 &record_error, scratch);
                vexi_rotate(&rotation, center, rotated);
                vexi_code_query query;
                CHECK_OK(vexi_code_query_init(&query, &layout, &rotation, query_values, rotated,
                                              row_size, &arena, &err));
                vexi_code_pool pool;
                CHECK_OK(vexi_code_pool_init(&pool, 40, INFINITY, &arena, &err));
                CHECK_OK(vexi_code_pool_reserve(&pool, 40, &arena, &err));
                vexi_code_list list = {.blocks = codes,
                                       .records =
                                           layout.bits == 1 ? NULL : codes + 2 * layout.block_size,
                                       .row_count = 40,
                                       .error = error,
                                       .record_error = record_error};
                vexi_code_scan(&query, &list, query.square, NULL, &pool);
                vexi_code_pool_sort(&pool);
                CHECK_EQ(pool.count, 40);
                for (uint32_t i = 0; i < 40; i++) {
                    CHECK(!isnan(pool.items[i].bound) && !isnan(pool.items[i].estimate));
                }
                free(codes);
                vexi_arena_deinit(&arena);
            }
        }
    }
}

TEST(sorting_orders_the_wanted) {
    uint64_t random = vex_test_seed(8);
    static vexi_code_candidate items[3000], sorted[3000];
    for (uint32_t trial = 0; trial < 300; trial++) {
        uint32_t count = (uint32_t)vex_test_below(&random, trial % 2 == 0 ? 200 : 3000);
        uint32_t wanted = (uint32_t)vex_test_below(&random, count + 1);
        uint32_t kinds = 1 + (uint32_t)vex_test_below(&random, trial % 3 == 0 ? 5 : 1000000);
        for (uint32_t i = 0; i < count; i++) {
            items[i].row = (i * 7919) % 3001;
            items[i].estimate = (float)vex_test_below(&random, kinds) - 100;
            items[i].bound = (float)items[i].row;
            if (trial % 7 == 4 && i % 5 == 0) {
                const float odd[4] = {INFINITY, -INFINITY, 0.0f, -0.0f};
                items[i].estimate = odd[vex_test_below(&random, 4)];
            }
        }
        for (uint32_t i = 0; i < count; i++) { /* insertion sort */
            uint32_t at = i;
            for (; at > 0 && (sorted[at - 1].estimate > items[i].estimate ||
                              (sorted[at - 1].estimate == items[i].estimate &&
                               sorted[at - 1].row > items[i].row));
                 at--) {
                sorted[at] = sorted[at - 1];
            }
            sorted[at] = items[i];
        }
        vexi_code_sort(items, count, wanted);
        CHECK(wanted == 0 || memcmp(items, sorted, wanted * sizeof *items) == 0);
        vexi_code_sort(items, count, count);
        CHECK(count == 0 || memcmp(items, sorted, count * sizeof *items) == 0);
    }
}

/* Codes of rotated rows are those of the rows. */
TEST(rotated_rows_have_the_same_codes) {
    uint64_t random = vex_test_seed(10);
    for (size_t m = 0; m < 3; m++) {
        list_case *c = make_case(metrics[m], 128, 1, 64, 0, &random);
        float *rotated = floats(64 * 128), *center = floats(128), *unit = floats(128);
        float *scratch = floats(VEXI_CODE_SCRATCH(128));
        const float *rows[64];
        float squares[64], error, record_error;
        vexi_rotate(&c->rotation, c->center, center);
        for (uint32_t j = 0; j < 128; j++) {
            center[j] -= c->origin_rotated[j];
        }
        for (uint32_t i = 0; i < 64; i++) {
            double row_square = square(c->rows[i], 128);
            bool scaled = metrics[m] == VEX_METRIC_COSINE;
            for (uint32_t j = 0; j < 128; j++) {
                unit[j] = (float)((double)c->rows[i][j] / (scaled ? sqrt(row_square) : 1));
            }
            squares[i] = scaled ? 1.0f : (float)row_square;
            vexi_rotate(&c->rotation, unit, rotated + (size_t)128 * i);
            for (uint32_t j = 0; j < 128; j++) {
                rotated[128 * i + j] -= c->origin_rotated[j];
            }
            rows[i] = rotated + (size_t)128 * i;
        }
        uint8_t *codes = aligned_alloc(64, (size_t)vexi_code_list_size(&c->layout, 64));
        vexi_code_encode_rotated(&c->layout, rows, squares, 64, center, codes, &error,
                                 &record_error, scratch);
        size_t differing = 0;
        for (size_t i = 0; i < 512; i++) {
            differing += (size_t)__builtin_popcount(codes[i] ^ c->codes[i]);
        }
        CHECK(differing <= 8); /* of 4,096: signs of what all but vanishes */
        CHECK(fabsf(error - c->error) < 1e-3f);
        for (size_t i = 512; i < 512 + 256; i += 4) {
            float a, b;
            memcpy(&a, codes + i, sizeof a);
            memcpy(&b, c->codes + i, sizeof b);
            CHECK(fabsf(a - b) <= 1e-2f * fabsf(b) + 1e-3f * c->query.square);
        }
        free(rotated);
        free(center);
        free(unit);
        free(scratch);
        free(codes);
        free_case(c);
    }
}

TEST_MAIN(RUN(bounds_hold_and_estimates_are_unbiased); RUN(the_nearest_rows_survive);
          RUN(parts_of_a_list_make_the_whole); RUN(one_bit_scans_respect_a_limit);
          RUN(extreme_values_survive); RUN(sorting_orders_the_wanted);
          RUN(rotated_rows_have_the_same_codes))
