#include "index/ivf.h"

#include <math.h>

#include "check.h"

typedef struct data {
    uint32_t dimension, count;
    float *values;
    const float **rows;
} data;

static data make_rows(uint32_t count, uint32_t dimension) {
    data d = {.dimension = dimension, .count = count};
    d.values = calloc((size_t)count * dimension + 1, sizeof *d.values);
    d.rows = calloc((size_t)count + 1, sizeof *d.rows);
    for (uint32_t i = 0; i < count; i++) {
        d.rows[i] = d.values + (size_t)i * dimension;
    }
    return d;
}

/* Rows around random centres; the same centres for every call with the same seed of centres. */
static data make_clustered(uint32_t count, uint32_t dimension, uint32_t centre_count,
                           uint64_t centre_seed, uint64_t *random) {
    data d = make_rows(count, dimension);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t centre = centre_seed + 1000 * vex_test_below(random, centre_count);
        for (uint32_t j = 0; j < dimension; j++) {
            d.values[(size_t)i * dimension + j] =
                vex_test_normal(&centre) + 0.6f * vex_test_normal(random);
        }
    }
    return d;
}

static void free_rows(data *d) {
    free(d->values);
    free(d->rows);
}

/* What vexi_ivf_build promises, checked without its help. */
static void check_structure(const vexi_ivf *ivf, const data *d, vex_metric metric) {
    CHECK(ivf->list_count >= 1 && ivf->list_count <= d->count);
    CHECK_EQ(ivf->dimension, d->dimension);
    CHECK((uintptr_t)ivf->centroids % 64 == 0);
    CHECK_EQ(ivf->list_first[0], 0);
    CHECK_EQ(ivf->list_first[ivf->list_count], d->count);
    uint8_t *seen = calloc(d->count, 1);
    for (uint32_t l = 0; l < ivf->list_count; l++) {
        CHECK(ivf->list_first[l] < ivf->list_first[l + 1]); /* none is empty */
        double largest = 0;
        for (uint32_t i = ivf->list_first[l]; i < ivf->list_first[l + 1]; i++) {
            uint32_t row = ivf->order[i];
            CHECK(row < d->count && !seen[row]);
            CHECK(i == ivf->list_first[l] || ivf->order[i - 1] < row);
            seen[row] = 1;
            double norm = 0, square = 0;
            for (uint32_t j = 0; j < d->dimension; j++) {
                norm += (double)d->rows[row][j] * d->rows[row][j];
            }
            double scale = metric == VEX_METRIC_COSINE && norm > 0 ? 1 / sqrt(norm) : 1;
            for (uint32_t j = 0; j < d->dimension; j++) {
                double centroid = ivf->centroids[(size_t)l * d->dimension + j];
                CHECK(isfinite(centroid));
                square += pow(d->rows[row][j] * scale - centroid, 2);
            }
            largest = square > largest ? square : largest;
        }
        CHECK((double)ivf->radii[l] >= sqrt(largest) * (1 - 1e-12));
        CHECK(largest > 1e76 || (double)ivf->radii[l] <= sqrt(largest) * (1 + 1e-6) + 1e-44);
    }
    free(seen);
}

static vexi_ivf build(const data *d, vex_metric metric, uint32_t list_count, uint64_t seed) {
    vexi_ivf ivf;
    vexi_ivf_options options = {.list_count = list_count, .seed = seed};
    CHECK_OK(vexi_ivf_build(vex_test_env(), d->rows, d->count, d->dimension, metric, &options, &ivf,
                            &err));
    check_structure(&ivf, d, metric);
    return ivf;
}

/* Share of the true k nearest that nprobe lists hold, over the queries. */
static double recall(const vexi_ivf *ivf, const data *d, vex_metric metric, const data *queries,
                     uint32_t k, uint32_t nprobe) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    uint32_t *lists = malloc(ivf->list_count * sizeof *lists);
    uint32_t *list_of = malloc(d->count * sizeof *list_of);
    float *scratch = malloc(ivf->list_count * sizeof *scratch);
    float *inverse = malloc(d->count * sizeof *inverse);
    for (uint32_t l = 0; l < ivf->list_count; l++) {
        for (uint32_t i = ivf->list_first[l]; i < ivf->list_first[l + 1]; i++) {
            list_of[ivf->order[i]] = l;
        }
    }
    for (uint32_t i = 0; i < d->count; i++) {
        double norm = 0;
        for (uint32_t j = 0; j < d->dimension; j++) {
            norm += (double)d->rows[i][j] * d->rows[i][j];
        }
        inverse[i] = (float)(1 / sqrt(norm));
    }
    size_t hits = 0;
    for (uint32_t q = 0; q < queries->count; q++) {
        vexi_query query;
        vexi_topk topk;
        CHECK_OK(vexi_query_init(&query, metric, queries->rows[q], d->dimension, &arena, &err));
        CHECK_OK(vexi_topk_init(&topk, k, &arena, &err));
        vexi_run run = {.vectors = (const uint8_t *)d->values,
                        .stride = d->dimension * sizeof(float),
                        .count = d->count,
                        .inverse_norms = (const uint8_t *)inverse};
        vexi_flat_scan(&query, &run, 0, NULL, &topk);
        vexi_ivf_rank(&query, ivf->centroids, ivf->list_count, lists, scratch);
        for (uint32_t c = 0; c < topk.count; c++) {
            for (uint32_t p = 0; p < nprobe; p++) {
                hits += lists[p] == list_of[topk.items[c].row];
            }
        }
    }
    free(lists);
    free(list_of);
    free(scratch);
    free(inverse);
    vexi_arena_deinit(&arena);
    return (double)hits / ((double)queries->count * k);
}

TEST(recall_floors) {
    uint64_t random = vex_test_seed(31);
    for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        data d = make_clustered(6000, 24, 400, 77, &random);
        data queries = make_clustered(100, 24, 400, 77, &random);
        vexi_ivf ivf = build(&d, metric, 0, 5);
        CHECK_EQ(ivf.list_count, vexi_ivf_default_list_count(6000, 24));
        for (uint32_t k = 10; k <= 100; k *= 10) {
            uint32_t nprobe = vexi_ivf_default_nprobe(ivf.list_count, k);
            CHECK(nprobe < ivf.list_count); /* else the floor would say nothing */
            double share = recall(&ivf, &d, metric, &queries, k, nprobe);
            double eighth = recall(&ivf, &d, metric, &queries, k, ivf.list_count / 8);
            printf("    metric %d, k %u: %.4f at %u of %u lists, %.4f at an eighth\n", (int)metric,
                   k, share, nprobe, ivf.list_count, eighth);
            CHECK(share >= 0.97);
            CHECK(eighth >= (k == 10 ? 0.70 : 0.45));
        }
        CHECK(recall(&ivf, &d, metric, &queries, 10, ivf.list_count) == 1.0);
        vexi_ivf_deinit(vex_test_env(), &ivf);
        free_rows(&d);
        free_rows(&queries);
    }
}

static void check_equal(const vexi_ivf *a, const vexi_ivf *b, uint32_t row_count) {
    CHECK_EQ(a->list_count, b->list_count);
    size_t values = (size_t)a->list_count * a->dimension;
    CHECK(memcmp(a->centroids, b->centroids, values * sizeof(float)) == 0);
    CHECK(memcmp(a->radii, b->radii, a->list_count * sizeof(float)) == 0);
    CHECK(memcmp(a->list_first, b->list_first, (a->list_count + 1) * sizeof(uint32_t)) == 0);
    CHECK(memcmp(a->order, b->order, row_count * sizeof(uint32_t)) == 0);
}

TEST(same_on_any_number_of_threads) {
    uint64_t random = vex_test_seed(32);
    for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        data d = make_clustered(5000, 33, 50, 3, &random);
        /* Metric 0 has so many lists that they are trained and ordered in groups. */
        uint32_t lists = metric == VEX_METRIC_L2 ? 1100 : metric == VEX_METRIC_COSINE ? 600 : 70;
        vexi_ivf first = build(&d, metric, lists, 9);
        for (uint32_t threads = 1; threads <= 5; threads += 2) {
            vexi_env *env;
            vexi_ivf again;
            vexi_ivf_options options = {.list_count = lists, .seed = 9};
            CHECK_OK(vexi_env_system_create(threads, NULL, NULL, &env, &err));
            CHECK_OK(vexi_ivf_build(env, d.rows, d.count, 33, metric, &options, &again, &err));
            check_equal(&first, &again, d.count);
            vexi_ivf_deinit(env, &again);
            vexi_env_system_destroy(env);
        }
        vexi_ivf other = build(&d, metric, lists, 10);
        CHECK(memcmp(other.order, first.order, d.count * sizeof(uint32_t)) != 0);
        vexi_ivf_deinit(vex_test_env(), &other);
        vexi_ivf_deinit(vex_test_env(), &first);
        free_rows(&d);
    }
}

/* One row, constant rows, zero rows, few distinct rows, fewer rows than lists, dimension 1, values
 * that overflow float32 products. */
TEST(degenerate_rows) {
    uint64_t random = vex_test_seed(33);
    for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        for (uint32_t count = 1; count <= 3000; count = count * 3 + 1) {
            for (int kind = 0; kind < 7; kind++) {
                uint32_t dimension = kind == 5 ? 1 : 1 + (uint32_t)vex_test_below(&random, 20);
                data d = make_rows(count, dimension);
                for (uint32_t i = 0; i < count; i++) {
                    for (uint32_t j = 0; j < dimension; j++) {
                        float *value = &d.values[(size_t)i * dimension + j];
                        *value = kind == 0   ? 0.0f
                                 : kind == 1 ? -2.5f
                                 : kind == 2 ? (float)(i % 5 + j)
                                 : kind == 3 ? vex_test_normal(&random)
                                 : kind == 4 ? (i % 2 == 0 ? 3e38f : -3e38f)
                                 : kind == 5 ? (float)i
                                             : vex_test_normal(&random) * 1e-40f;
                    }
                }
                uint32_t lists = 1 + (uint32_t)vex_test_below(&random, count < 900 ? 64 : 1200);
                vexi_ivf ivf = build(&d, metric, lists, random);
                CHECK(ivf.list_count <= lists);
                if (kind <= 1) {
                    CHECK_EQ(ivf.list_count, 1);
                } else if (kind == 2 && lists >= 5 && metric != VEX_METRIC_COSINE) {
                    CHECK(ivf.list_count <= 5);
                }
                vexi_ivf_deinit(vex_test_env(), &ivf);
                free_rows(&d);
            }
        }
    }
    data none = make_rows(0, 4);
    vexi_ivf ivf;
    vexi_ivf_options options = {.list_count = 3};
    CHECK_OK(vexi_ivf_build(vex_test_env(), none.rows, 0, 4, VEX_METRIC_L2, &options, &ivf, &err));
    CHECK_EQ(ivf.list_count, 0);
    CHECK_EQ(ivf.list_first[0], 0);
    vexi_ivf_deinit(vex_test_env(), &ivf);
    free_rows(&none);
}

/* Neighbours in number are near in space: nearer than numbers given at random. */
static void check_near_numbers(uint32_t list_count, uint64_t *random) {
    data d = make_clustered(4000, 3, 4000, 5, random);
    vexi_ivf ivf = build(&d, VEX_METRIC_L2, list_count, 1);
    double steps = 0, pairs = 0;
    uint32_t pair_count = 0;
    for (uint32_t a = 0; a < ivf.list_count; a++) {
        for (uint32_t b = a + 1; b < ivf.list_count; b++) {
            double distance = vexi_distance(VEX_METRIC_L2, ivf.centroids + a * 3,
                                            (const uint8_t *)(ivf.centroids + b * 3), 3);
            steps += b == a + 1 ? sqrt(distance) : 0;
            pairs += sqrt(distance);
            pair_count++;
        }
    }
    steps /= ivf.list_count - 1;
    pairs /= pair_count;
    printf("    %u lists: mean step %.3f, mean distance %.3f\n", ivf.list_count, steps, pairs);
    CHECK(steps < pairs / 2);
    vexi_ivf_deinit(vex_test_env(), &ivf);
    free_rows(&d);
}

TEST(near_lists_have_near_numbers) {
    uint64_t random = vex_test_seed(34);
    check_near_numbers(120, &random);
    check_near_numbers(1300, &random); /* so many are chained in groups */
}

/* Also for more lists than the radix sort's stack holds, and at an address aligned to 4 only. */
TEST(rank_is_sorted) {
    uint64_t random = vex_test_seed(35);
    static const uint32_t counts[] = {1, 2, 3, 100, 4095, 4096, 4097, 6000};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        uint32_t count = counts[c];
        for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
            float *memory = malloc((count * 5 + 1) * sizeof *memory), *centroids = memory + 1;
            uint32_t *lists = malloc(count * sizeof *lists);
            float *scratch = malloc(count * sizeof *scratch);
            uint8_t *seen = calloc(count, 1);
            for (size_t i = 0; i < (size_t)count * 5; i++) {
                /* Small whole numbers: exact in float32, with ties. */
                centroids[i] = (float)vex_test_below(&random, 9) - 4;
            }
            float values[5] = {1, -2, 3, 0, -1};
            vexi_arena arena;
            vexi_arena_init(&arena, vex_test_env());
            vexi_query query;
            CHECK_OK(vexi_query_init(&query, metric, values, 5, &arena, &err));
            vexi_ivf_rank(&query, centroids, count, lists, scratch);
            double last = -INFINITY;
            vex_metric by = metric == VEX_METRIC_L2 ? VEX_METRIC_L2 : VEX_METRIC_IP;
            for (uint32_t i = 0; i < count; i++) {
                CHECK(lists[i] < count && !seen[lists[i]]);
                seen[lists[i]] = 1;
                double score =
                    vexi_distance(by, values, (const uint8_t *)(centroids + lists[i] * 5), 5);
                CHECK(score > last || (score == last && lists[i] > lists[i - 1]));
                last = score;
            }
            vexi_arena_deinit(&arena);
            free(memory);
            free(lists);
            free(scratch);
            free(seen);
        }
    }
}

TEST(defaults) {
    CHECK_EQ(vexi_ivf_default_list_count(0, 8), 0);
    CHECK_EQ(vexi_ivf_default_list_count(999, 4096), 0);
    CHECK(vexi_ivf_default_list_count(1000, 4096) > 0);
    CHECK_EQ(vexi_ivf_default_list_count(3999, 384), 0); /* below 6 MiB */
    CHECK(vexi_ivf_default_list_count(3999, 512) > 0);
    uint32_t last = 0;
    for (uint64_t rows = 4000; rows < (uint64_t)1 << 40; rows *= 2) {
        uint32_t lists = vexi_ivf_default_list_count(rows, 128);
        CHECK(lists >= last && lists >= 44 && lists <= 65536);
        last = lists;
        uint32_t last_probes = 0;
        for (uint32_t k = 1; k <= 10000; k *= 10) {
            uint32_t probes = vexi_ivf_default_nprobe(lists, k);
            CHECK(probes >= 1 && probes <= lists && probes >= last_probes);
            last_probes = probes;
        }
    }
    CHECK_EQ(vexi_ivf_default_list_count(100000, 128), 447);
    CHECK_EQ(vexi_ivf_default_list_count(10000000, 128), 39062);
    CHECK_EQ(vexi_ivf_default_nprobe(1, 1), 1);
    CHECK_EQ(vexi_ivf_default_nprobe(0, 10), 0);
}

/* Every allocation of a build fails once: a status, and nothing leaks (the address sanitizer). */
typedef struct failing {
    const vexi_env *real;
    size_t left;
} failing;

static void *failing_allocate(void *context, size_t alignment, size_t size) {
    failing *state = context;
    return state->left-- == 0 ? NULL : state->real->allocate(state->real->context, alignment, size);
}

static void failing_release(void *context, void *pointer) {
    failing *state = context;
    state->real->release(state->real->context, pointer);
}

static void failing_parallel(void *context, size_t count, void (*function)(void *, size_t),
                             void *argument) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        function(argument, i);
    }
}

static void check_out_of_memory(uint32_t row_count, uint32_t list_count, uint64_t *random) {
    data d = make_clustered(row_count, 5, 20, 5, random);
    bool built = false;
    for (size_t n = 0; !built; n++) {
        failing state = {.real = vex_test_env(), .left = n};
        vexi_env env = *vex_test_env();
        env.context = &state;
        env.allocate = failing_allocate;
        env.release = failing_release;
        env.parallel = failing_parallel;
        vexi_ivf ivf;
        vex_error err;
        vexi_ivf_options options = {.list_count = list_count, .seed = 1, .iteration_max = 2};
        vex_status status = vexi_ivf_build(&env, d.rows, d.count, d.dimension, VEX_METRIC_COSINE,
                                           &options, &ivf, &err);
        built = status == VEX_OK;
        CHECK(built || status == VEX_MEMORY);
        CHECK(built || ivf.centroids == NULL);
        CHECK(!built || n > 10);
        vexi_ivf_deinit(&env, &ivf);
    }
    free_rows(&d);
}

TEST(out_of_memory) {
    uint64_t random = vex_test_seed(36);
    check_out_of_memory(300, 10, &random);
    check_out_of_memory(1500, 1030, &random);
}

TEST_MAIN(RUN(recall_floors); RUN(same_on_any_number_of_threads); RUN(degenerate_rows);
          RUN(near_lists_have_near_numbers); RUN(rank_is_sorted); RUN(defaults); RUN(out_of_memory))
