#include "index/flat.h"

#include <float.h>
#include <math.h>

#include "base/bitmap.h"
#include "check.h"

static float inverse_norm(const float *row, uint32_t dimension) {
    double square = 0;
    for (size_t j = 0; j < dimension; j++) {
        square += (double)row[j] * row[j];
    }
    double inverse = square > 0 ? 1 / sqrt(square) : 0;
    return inverse > FLT_MAX ? FLT_MAX : (float)inverse;
}

typedef struct data {
    vexi_arena arena;
    uint32_t dimension;
    size_t count;
    float *values;
    uint8_t *rows; /* the same at an odd address, with a gap after each row */
    size_t stride;
    uint8_t *inverse_norms; /* at an odd address */
} data;

static void make_data(data *d, uint32_t dimension, size_t count, uint64_t *random) {
    vexi_arena_init(&d->arena, vex_test_env());
    d->dimension = dimension;
    d->count = count;
    d->stride = dimension * sizeof(float) + 3;
    d->values = vexi_arena_array(&d->arena, count * dimension + 1, sizeof(float));
    d->rows = vexi_arena_array(&d->arena, count + 1, d->stride);
    d->inverse_norms = vexi_arena_array(&d->arena, count + 1, sizeof(float));
    CHECK(d->values != NULL && d->rows != NULL && d->inverse_norms != NULL);
    d->rows += 1;
    d->inverse_norms += 1;
    for (size_t i = 0; i < count; i++) {
        float *row = d->values + i * dimension;
        for (size_t j = 0; j < dimension; j++) {
            row[j] = vex_test_normal(random);
        }
        memcpy(d->rows + i * d->stride, row, dimension * sizeof *row);
        float inverse = inverse_norm(row, dimension);
        memcpy(d->inverse_norms + i * sizeof inverse, &inverse, sizeof inverse);
    }
}

/* The distances that topk holds are the exact ones, none that should be there is missing, and
 * hidden rows are not there. */
static void check_result(const data *d, const vexi_query *query, uint64_t first_row,
                         const uint64_t *hidden, size_t compared, vexi_topk *topk) {
    size_t allowed = 0;
    vexi_topk_sort(topk);
    double worst = topk->count == 0 ? -INFINITY : (double)topk->items[topk->count - 1].distance;
    size_t better = 0;
    for (size_t i = 0; i < d->count; i++) {
        if (hidden != NULL && vexi_bitmap_get(hidden, (size_t)(first_row + i))) {
            continue;
        }
        allowed++;
        double exact =
            vexi_distance(query->metric, query->values, d->rows + i * d->stride, d->dimension);
        better += exact < worst - 1e-4;
    }
    CHECK_EQ(compared, allowed);
    CHECK_EQ(topk->count, allowed < topk->capacity ? allowed : topk->capacity);
    size_t held_better = 0;
    for (uint32_t c = 0; c < topk->count; c++) {
        uint64_t row = topk->items[c].row;
        CHECK(row >= first_row && row < first_row + d->count);
        CHECK(hidden == NULL || !vexi_bitmap_get(hidden, (size_t)row));
        CHECK(c == 0 || row != topk->items[c - 1].row);
        CHECK_EQ(topk->items[c].source, 9);
        double exact = vexi_distance(query->metric, query->values,
                                     d->rows + (row - first_row) * d->stride, d->dimension);
        CHECK(fabs(exact - (double)topk->items[c].distance) < 1e-4);
        held_better += exact < worst - 1e-4;
    }
    CHECK_EQ(held_better, better);
}

TEST(matches_exact_distances) {
    uint64_t random = vex_test_seed(21);
    static const size_t counts[] = {0, 1, 63, 64, 65, 255, 256, 257, 700, 1100};
    for (size_t trial = 0; trial < 240; trial++) {
        data d;
        uint32_t dimension = 1 + (uint32_t)vex_test_below(&random, 40);
        make_data(&d, dimension, counts[trial % 10], &random);
        vex_metric metric = (vex_metric)(trial % 3);
        uint64_t first_row = trial % 2 == 0 ? 0 : vex_test_below(&random, 300);
        size_t words = vexi_bitmap_words((size_t)first_row + d.count);
        uint64_t *hidden = malloc((words + 1) * sizeof *hidden);
        uint64_t mode = vex_test_below(&random, 5);
        for (size_t w = 0; w < words; w++) {
            uint64_t bits = vex_test_random(&random);
            hidden[w] = mode == 0   ? bits
                        : mode == 1 ? ~(bits & vex_test_random(&random) & vex_test_random(&random) &
                                        vex_test_random(&random) & vex_test_random(&random))
                        : mode == 2 ? (bits % 3 == 0 ? ~(uint64_t)0 : bits)
                        : mode == 3 ? ~(uint64_t)0
                                    : 0;
        }
        float values[40];
        for (size_t j = 0; j < dimension; j++) {
            values[j] = vex_test_normal(&random);
        }
        vexi_query query;
        CHECK_OK(vexi_query_init(&query, metric, values, dimension, &d.arena, &err));
        CHECK((uintptr_t)query.values % 64 == 0);
        CHECK(query.inverse_norm == inverse_norm(values, dimension));
        vexi_run run = {.vectors = d.rows,
                        .stride = d.stride,
                        .count = d.count,
                        .first_row = first_row,
                        .inverse_norms = metric == VEX_METRIC_COSINE ? d.inverse_norms : NULL};
        for (int masked = 0; masked < 2; masked++) {
            const uint64_t *map = masked ? hidden : NULL;
            vexi_topk topk;
            uint32_t k = 1 + (uint32_t)vex_test_below(&random, 20);
            CHECK_OK(vexi_topk_init(&topk, k, &d.arena, &err));
            size_t compared = vexi_flat_scan(&query, &run, 9, map, &topk);
            check_result(&d, &query, first_row, map, compared, &topk);

            /* Cut into runs anywhere, the result is the same to the bit. */
            vexi_topk cut;
            CHECK_OK(vexi_topk_init(&cut, k, &d.arena, &err));
            for (size_t i = 0; i < d.count;) {
                size_t count = 1 + vex_test_below(&random, 100);
                count = count < d.count - i ? count : d.count - i;
                vexi_run piece = run;
                piece.vectors = d.rows + i * d.stride;
                piece.count = count;
                piece.first_row = first_row + i;
                piece.inverse_norms = run.inverse_norms == NULL ? NULL : run.inverse_norms + 4 * i;
                vexi_flat_scan(&query, &piece, 9, map, &cut);
                i += count;
            }
            vexi_topk_sort(&cut);
            CHECK_EQ(cut.count, topk.count);
            for (uint32_t c = 0; c < cut.count; c++) {
                CHECK_EQ(cut.items[c].row, topk.items[c].row);
                CHECK(cut.items[c].distance == topk.items[c].distance);
            }
        }
        free(hidden);
        vexi_arena_deinit(&d.arena);
    }
}

/* Equal rows tie, and the smaller row position wins, wherever they lie. */
TEST(duplicates_go_by_row) {
    uint64_t random = vex_test_seed(22);
    for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        data d;
        make_data(&d, 37, 500, &random);
        for (size_t i = 0; i < d.count; i++) {
            memcpy(d.rows + i * d.stride, d.values, 37 * sizeof(float));
            memcpy(d.inverse_norms + 4 * i, d.inverse_norms, 4);
        }
        vexi_query query;
        CHECK_OK(vexi_query_init(&query, metric, d.values + 37, 37, &d.arena, &err));
        vexi_run run = {d.rows, d.stride, d.count, 0, d.inverse_norms};
        vexi_topk topk;
        CHECK_OK(vexi_topk_init(&topk, 7, &d.arena, &err));
        vexi_flat_scan(&query, &run, 0, NULL, &topk);
        vexi_topk_sort(&topk);
        for (uint32_t c = 0; c < 7; c++) {
            CHECK_EQ(topk.items[c].row, c);
        }
        vexi_arena_deinit(&d.arena);
    }
}

/* Where float32 products overflow or vanish, the order is still that of the exact distances. */
TEST(extreme_values) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_query query;
    vexi_topk topk;

    /* Inner product: partial sums overflow to both infinities, the true values are 4, 0 and 2. */
    static const float wave[3] = {1e30f, 1e30f, 1};
    static const float rows[3][3] = {{1e30f, -1e30f, 4}, {-1e30f, 1e30f, 0}, {0, 0, 2}};
    vexi_run run = {(const uint8_t *)rows, sizeof rows[0], 3, 0, NULL};
    CHECK_OK(vexi_query_init(&query, VEX_METRIC_IP, wave, 3, &arena, &err));
    CHECK_OK(vexi_topk_init(&topk, 3, &arena, &err));
    CHECK_EQ(vexi_flat_scan(&query, &run, 0, NULL, &topk), 3);
    CHECK_EQ(topk.count, 3);
    for (uint32_t c = 0; c < 3; c++) {
        CHECK(isfinite(topk.items[c].distance));
    }

    /* Cosine at every scale, queries too; a zero row is at distance 1. */
    static const float scales[] = {1e-42f, 1e-30f, 1e-18f, 1, 1e18f, 1e30f, 3e38f};
    float fans[7][2], inverse[8], zero[2] = {0, 0};
    for (size_t i = 0; i < 7; i++) {
        double angle = 0.2 + 0.2 * (double)i;
        fans[i][0] = (float)(cos(angle) * (double)scales[(i * 3) % 7]);
        fans[i][1] = (float)(sin(angle) * (double)scales[(i * 3) % 7]);
        inverse[i] = inverse_norm(fans[i], 2);
    }
    inverse[7] = 0;
    for (size_t s = 0; s < 7; s++) {
        float axis[2] = {scales[s], 0};
        CHECK_OK(vexi_query_init(&query, VEX_METRIC_COSINE, axis, 2, &arena, &err));
        CHECK_OK(vexi_topk_init(&topk, 8, &arena, &err));
        run = (vexi_run){(const uint8_t *)fans, sizeof fans[0], 7, 0, (const uint8_t *)inverse};
        vexi_flat_scan(&query, &run, 0, NULL, &topk);
        run = (vexi_run){(const uint8_t *)zero, sizeof zero, 1, 7, (const uint8_t *)(inverse + 7)};
        vexi_flat_scan(&query, &run, 0, NULL, &topk);
        vexi_topk_sort(&topk);
        CHECK_EQ(topk.count, 8);
        for (uint32_t c = 0; c < 8; c++) {
            CHECK_EQ(topk.items[c].row, c);
            double exact = c == 7 ? 1 : 1 - cos(0.2 + 0.2 * c);
            /* 1e-42 has three digits only. */
            CHECK(fabs(exact - (double)topk.items[c].distance) < 2e-3);
        }
    }

    /* A zero query under cosine: everything is at distance 1. */
    CHECK_OK(vexi_query_init(&query, VEX_METRIC_COSINE, zero, 2, &arena, &err));
    CHECK(query.inverse_norm == 0);
    CHECK_OK(vexi_topk_init(&topk, 1, &arena, &err));
    run = (vexi_run){(const uint8_t *)fans, sizeof fans[0], 7, 0, (const uint8_t *)inverse};
    vexi_flat_scan(&query, &run, 0, NULL, &topk);
    CHECK(topk.items[0].distance == 1 && topk.items[0].row == 0);
    vexi_arena_deinit(&arena);
}

TEST_MAIN(RUN(matches_exact_distances); RUN(duplicates_go_by_row); RUN(extreme_values))
