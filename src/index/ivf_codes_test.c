#include <math.h>

#include "check.h"
#include "index/ivf.h"

static const vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_IP};

/* Rows around random centres, in lists, coded; a query a case. */
typedef struct segment {
    vex_metric metric;
    uint32_t count, dimension;
    float *values;
    const float **rows;
    vexi_rotation rotation;
    vexi_ivf ivf;
    vexi_ivf_codes codes;
    uint8_t *lists;
    vexi_arena arena;
    vexi_ivf_ranker ranker;
} segment;

static void make_values(float *out, uint32_t count, uint32_t dimension, uint64_t *random) {
    for (uint32_t i = 0; i < count; i++) {
        uint64_t centre = 5 + 1000 * vex_test_below(random, 60);
        for (uint32_t j = 0; j < dimension; j++) {
            out[(size_t)i * dimension + j] =
                0.5f + vex_test_normal(&centre) + 0.7f * vex_test_normal(random);
        }
    }
}

static segment *make_segment(vex_metric metric, uint32_t count, uint32_t dimension, uint32_t bits,
                             uint32_t list_count, uint64_t *random) {
    segment *s = calloc(1, sizeof *s);
    s->metric = metric, s->count = count, s->dimension = dimension;
    s->values = malloc((size_t)count * dimension * sizeof *s->values);
    s->rows = malloc(count * sizeof *s->rows);
    make_values(s->values, count, dimension, random);
    for (uint32_t i = 0; i < count; i++) {
        s->rows[i] = s->values + (size_t)i * dimension;
    }
    vexi_ivf_options options = {.list_count = list_count, .seed = 3};
    CHECK_OK(
        vexi_ivf_build(vex_test_env(), s->rows, count, dimension, metric, &options, &s->ivf, &err));
    vexi_rotation_init(&s->rotation, dimension, vex_test_random(random));
    CHECK_OK(vexi_ivf_codes_init(vex_test_env(), &s->ivf, metric, bits, &s->rotation, s->rows,
                                 &s->codes, &err));
    s->lists = aligned_alloc(64, s->codes.list_offset[s->ivf.list_count] + 64);
    CHECK_OK(vexi_ivf_codes_write(vex_test_env(), &s->ivf, &s->rotation, s->rows, &s->codes,
                                  s->lists, &err));
    vexi_arena_init(&s->arena, vex_test_env());
    CHECK_OK(vexi_ivf_ranker_init(&s->ranker, s->ivf.list_count, s->ivf.centroids,
                                  s->codes.center_codes, s->codes.center_error, &s->arena, &err));
    return s;
}

static void free_segment(segment *s) {
    vexi_arena_deinit(&s->arena);
    vexi_ivf_codes_deinit(vex_test_env(), &s->codes);
    vexi_ivf_deinit(vex_test_env(), &s->ivf);
    free(s->values);
    free(s->rows);
    free(s->lists);
    free(s);
}

static vexi_code_query make_query(segment *s, const float *values) {
    vexi_code_query query;
    CHECK_OK(vexi_code_query_init(&query, &s->codes.layout, &s->rotation, values, s->codes.origin,
                                  s->codes.row_length, &s->arena, &err));
    return query;
}

static vexi_code_list list_of(const segment *s, uint32_t list) {
    uint32_t first = s->ivf.list_first[list], count = s->ivf.list_first[list + 1] - first;
    const uint8_t *blocks = s->lists + s->codes.list_offset[list];
    return (vexi_code_list){.blocks = blocks,
                            .records =
                                blocks + (size_t)(count + 31) / 32 * s->codes.layout.block_size,
                            .row_count = count,
                            .first_row = first,
                            .error = s->codes.errors[2 * list],
                            .record_error = s->codes.errors[2 * list + 1]};
}

/* Nearest k of the segment by the reported distance, as a threshold. */
static double threshold(const segment *s, const float *query, uint32_t k) {
    vexi_arena arena;
    vexi_topk topk;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(vexi_topk_init(&topk, k, &arena, &err));
    for (uint32_t i = 0; i < s->count; i++) {
        double distance =
            vexi_distance(s->metric, query, (const uint8_t *)s->rows[i], s->dimension);
        vexi_topk_push(&topk, (float)distance, 0, i);
    }
    double worst = (double)topk.threshold;
    vexi_arena_deinit(&arena);
    return worst;
}

/* Scanning all lists and comparing the pool exactly is exact search. */
TEST(all_lists_give_the_nearest) {
    uint64_t random = vex_test_seed(1);
    for (uint32_t trial = 0; trial < 12; trial++) {
        static const uint32_t ks[] = {1, 10, 100};
        uint32_t dimension = trial % 2 == 0 ? 48 : 131;
        segment *s = make_segment(metrics[trial % 3], 4000, dimension, trial < 6 ? 4 : 8,
                                  trial % 4 == 0 ? 40 : 150, &random);
        size_t found = 0, wanted = 0, pooled = 0;
        float *values = malloc(20 * dimension * sizeof *values);
        make_values(values, 20, dimension, &random);
        uint32_t *lists = malloc(s->ivf.list_count * sizeof *lists);
        float *squares = malloc(s->ivf.list_count * sizeof *squares);
        for (uint32_t q = 0; q < 20; q++) {
            const float *at = values + (size_t)q * dimension;
            uint32_t k = ks[q % 3];
            vexi_code_query query = make_query(s, at);
            vexi_code_pool pool;
            CHECK_OK(vexi_code_pool_init(&pool, k, INFINITY, &s->arena, &err));
            CHECK_EQ(vexi_ivf_rank_coded(&s->ranker, &query, UINT32_MAX, lists, squares),
                     s->ivf.list_count);
            for (uint32_t i = 0; i < s->ivf.list_count; i++) {
                vexi_code_list list = list_of(s, lists[i]);
                CHECK_OK(vexi_code_pool_reserve(&pool, list.row_count, &s->arena, &err));
                vexi_code_scan(&query, &list, squares[i], NULL, &pool);
            }
            CHECK_EQ(pool.row_count, s->count);
            vexi_code_pool_sort(&pool);
            double worst = threshold(s, at, k);
            for (uint32_t i = 0; i < pool.count; i++) {
                const float *row = s->rows[s->ivf.order[pool.items[i].row]];
                double distance = vexi_distance(s->metric, at, (const uint8_t *)row, dimension);
                found += (float)distance <= (float)worst ? 1 : 0;
            }
            wanted += k;
            pooled += k < 100 ? pool.count : 0;
        }
        CHECK(found >= wanted - wanted / 200); /* epsilon's share */
        CHECK(pooled < 14 * 400);              /* of 14 queries x 4,000 rows */
        free(values);
        free(lists);
        free(squares);
        free_segment(s);
    }
}

/* Ranked lists are in order, their squares exact, and those of a full comparison but for a few. */
TEST(ranking_finds_the_nearest_lists) {
    uint64_t random = vex_test_seed(2);
    static const uint32_t list_counts[] = {1, 40, 100, 600};
    for (uint32_t trial = 0; trial < 12; trial++) {
        segment *s = make_segment(metrics[trial % 3], 3000, 64, 4, list_counts[trial / 3], &random);
        uint32_t list_count = s->ivf.list_count;
        uint32_t *lists = malloc(list_count * sizeof *lists);
        uint32_t *all = malloc(list_count * sizeof *all);
        float *squares = malloc(list_count * sizeof *squares);
        size_t found = 0, wanted = 0;
        for (uint32_t q = 0; q < 20; q++) {
            float values[64];
            make_values(values, 1, 64, &random);
            vexi_code_query query = make_query(s, values);
            uint32_t count = 1 + (uint32_t)vex_test_below(&random, list_count);
            count = count > list_count / 8 && q % 4 != 0 ? list_count / 8 + 1 : count;
            CHECK_EQ(vexi_ivf_rank_coded(&s->ranker, &query, list_count, all, squares), list_count);
            CHECK_EQ(vexi_ivf_rank_coded(&s->ranker, &query, count, lists, squares), count);
            double before = -INFINITY;
            for (uint32_t i = 0; i < count; i++) {
                const float *center = s->ivf.centroids + (size_t)lists[i] * 64;
                double exact =
                    vexi_distance(VEX_METRIC_L2, query.values, (const uint8_t *)center, 64);
                double key = s->metric == VEX_METRIC_IP ? vexi_distance(VEX_METRIC_IP, query.values,
                                                                        (const uint8_t *)center, 64)
                                                        : exact;
                CHECK(fabs((double)squares[i] - exact) <= 1e-5 * exact + 1e-6);
                CHECK(key >= before - 1e-5 * fabs(before) - 1e-6);
                before = key;
                for (uint32_t j = 0; j < i; j++) {
                    CHECK(lists[j] != lists[i]);
                }
                for (uint32_t j = 0; j < count; j++) {
                    found += all[j] == lists[i] ? 1 : 0;
                }
            }
            wanted += count;
        }
        printf("    %u lists: %zu of %zu\n", list_count, found, wanted);
        CHECK(found * 100 >= wanted * 97);
        CHECK(list_count > 64 || found == wanted);
        free(lists);
        free(all);
        free(squares);
        free_segment(s);
    }
}

TEST(codes_do_not_depend_on_threads) {
    uint64_t random = vex_test_seed(3);
    segment *s = make_segment(VEX_METRIC_COSINE, 2000, 70, 4, 90, &random);
    vexi_env *env;
    vex_error err;
    CHECK(vexi_env_system_create(1, NULL, NULL, &env, &err) == VEX_OK);
    vexi_ivf_codes codes;
    size_t size = (size_t)s->codes.list_offset[s->ivf.list_count];
    uint8_t *lists = aligned_alloc(64, size);
    CHECK_OK(vexi_ivf_codes_init(env, &s->ivf, s->metric, 4, &s->rotation, s->rows, &codes, &err));
    CHECK_OK(vexi_ivf_codes_write(env, &s->ivf, &s->rotation, s->rows, &codes, lists, &err));
    CHECK(memcmp(lists, s->lists, size) == 0);
    CHECK(memcmp(codes.errors, s->codes.errors, s->ivf.list_count * 2 * sizeof(float)) == 0);
    CHECK(codes.row_length == 1);
    for (uint32_t list = 0; list <= s->ivf.list_count; list++) {
        CHECK_EQ(codes.list_offset[list] % 64, 0);
    }
    free(lists);
    vexi_ivf_codes_deinit(env, &codes);
    vexi_env_system_destroy(env);
    free_segment(s);
}

TEST_MAIN(RUN(all_lists_give_the_nearest); RUN(ranking_finds_the_nearest_lists);
          RUN(codes_do_not_depend_on_threads))
