#include "index/topk.h"

#include <math.h>

#include "base/bitmap.h"
#include "check.h"

static int compare(const void *left, const void *right) {
    const vexi_candidate *a = left, *b = right;
    if (a->distance != b->distance) {
        return a->distance < b->distance ? -1 : 1;
    }
    if (a->row != b->row) {
        return a->row < b->row ? -1 : 1;
    }
    return a->source < b->source ? -1 : a->source > b->source;
}

static void check_same(const vexi_topk *topk, const vexi_candidate *wanted, uint32_t count) {
    CHECK_EQ(topk->count, count);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(topk->items[i].distance == wanted[i].distance);
        CHECK_EQ(topk->items[i].row, wanted[i].row);
        CHECK_EQ(topk->items[i].source, wanted[i].source);
    }
}

/* Any order of arrival gives the head of the sorted list; few distinct values, so many ties. */
TEST(equals_sorting) {
    uint64_t random = vex_test_seed(11);
    for (uint64_t trial = 0; trial < vex_test_effort(300); trial++) {
        size_t count = vex_test_below(&random, 300);
        uint32_t k = 1 + (uint32_t)vex_test_below(&random, trial % 7 == 0 ? 400 : 20);
        uint64_t values = 1 + vex_test_below(&random, 40);
        vexi_candidate *all = malloc((count + 1) * sizeof *all);
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_topk topk;
        CHECK_OK(vexi_topk_init(&topk, k, &arena, &err));
        CHECK(topk.threshold == INFINITY);
        for (size_t i = 0; i < count; i++) {
            all[i] = (vexi_candidate){.distance = (float)vex_test_below(&random, values) - 3,
                                      .source = (uint32_t)vex_test_below(&random, 3),
                                      .row = i};
        }
        for (size_t i = count; i > 1; i--) {
            size_t j = vex_test_below(&random, i);
            vexi_candidate swap = all[i - 1];
            all[i - 1] = all[j];
            all[j] = swap;
        }
        for (size_t i = 0; i < count; i++) {
            vexi_topk_push(&topk, all[i].distance, all[i].source, all[i].row);
            float worst = -INFINITY;
            for (uint32_t c = 0; c < topk.count; c++) {
                worst = topk.items[c].distance > worst ? topk.items[c].distance : worst;
            }
            CHECK(topk.threshold == (topk.count < k ? INFINITY : worst));
        }
        qsort(all, count, sizeof *all, compare);
        vexi_topk_sort(&topk);
        check_same(&topk, all, count < k ? (uint32_t)count : k);
        vexi_arena_deinit(&arena);
        free(all);
    }
}

TEST(push_rows_equals_push) {
    uint64_t random = vex_test_seed(12);
    for (uint64_t trial = 0; trial < vex_test_effort(200); trial++) {
        size_t count = vex_test_below(&random, 500);
        uint64_t first_row = vex_test_below(&random, 1000);
        uint32_t k = 1 + (uint32_t)vex_test_below(&random, 30);
        float distances[500];
        uint64_t allowed[24];
        for (size_t i = 0; i < 24; i++) {
            allowed[i] = vex_test_random(&random);
        }
        bool masked = trial % 2 == 0;
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_topk one, rows;
        CHECK_OK(vexi_topk_init(&one, k, &arena, &err));
        CHECK_OK(vexi_topk_init(&rows, k, &arena, &err));
        for (size_t i = 0; i < count; i++) {
            distances[i] = i % 50 == 7 ? NAN : (float)vex_test_below(&random, 60);
            if (!masked || vexi_bitmap_get(allowed, first_row + i)) {
                vexi_topk_push(&one, distances[i], 5, first_row + i);
            }
        }
        vexi_topk_push_rows(&rows, distances, count, 5, first_row, masked ? allowed : NULL);
        vexi_topk_sort(&one);
        vexi_topk_sort(&rows);
        check_same(&rows, one.items, one.count);
        vexi_arena_deinit(&arena);
    }
}

TEST(not_a_number_comes_last) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_topk topk;
    CHECK_OK(vexi_topk_init(&topk, 3, &arena, &err));
    vexi_topk_push(&topk, NAN, 0, 0);
    vexi_topk_push(&topk, INFINITY, 0, 1);
    vexi_topk_push(&topk, -INFINITY, 0, 2);
    CHECK(topk.threshold == INFINITY);
    vexi_topk_push(&topk, NAN, 0, 3);
    vexi_topk_push(&topk, 1, 0, 4);
    vexi_topk_sort(&topk);
    CHECK_EQ(topk.items[0].row, 2);
    CHECK_EQ(topk.items[1].row, 4);
    CHECK_EQ(topk.items[2].row, 0);
    vexi_arena_deinit(&arena);
}

TEST(zero_k_keeps_nothing) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_topk topk;
    CHECK_OK(vexi_topk_init(&topk, 0, &arena, &err));
    float distance = -1;
    vexi_topk_push(&topk, distance, 0, 0);
    vexi_topk_push_rows(&topk, &distance, 1, 0, 0, NULL);
    vexi_topk_sort(&topk);
    CHECK_EQ(topk.count, 0);
    vexi_arena_deinit(&arena);
}

TEST_MAIN(RUN(equals_sorting); RUN(push_rows_equals_push); RUN(not_a_number_comes_last);
          RUN(zero_k_keeps_nothing))
