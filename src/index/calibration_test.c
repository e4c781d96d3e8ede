#include "index/calibration.h"

#include <math.h>

#include "check.h"
#include "index/ivf.h"
#include "kernel/kernel.h"

typedef struct data {
    uint32_t count, dimension;
    float *values;
    const float **rows;
} data;

static data make_rows(uint32_t count, uint32_t dimension) {
    data d = {.count = count, .dimension = dimension};
    d.values = calloc((size_t)count * dimension + 1, sizeof *d.values);
    d.rows = calloc((size_t)count + 1, sizeof *d.rows);
    for (uint32_t i = 0; i < count; i++) {
        d.rows[i] = d.values + (size_t)i * dimension;
    }
    return d;
}

/* centre_count clusters that lie far apart; 0: one cloud. */
static data make_clustered(uint32_t count, uint32_t dimension, uint32_t centre_count,
                           uint64_t *random) {
    data d = make_rows(count, dimension);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t centre = 77 + 1000 * (centre_count == 0 ? 0 : i % centre_count);
        for (uint32_t j = 0; j < dimension; j++) {
            float middle = centre_count == 0 ? 0 : 20 * vex_test_normal(&centre);
            d.values[(size_t)i * dimension + j] = middle + vex_test_normal(random);
        }
    }
    return d;
}

static void free_rows(data *d) {
    free(d->values);
    free(d->rows);
}

static vexi_calibration_sample make_sample(const data *d, vex_metric metric) {
    vexi_calibration_sample sample;
    CHECK_OK(vexi_calibration_sample_init(vex_test_env(), d->rows, d->count, d->dimension, metric,
                                          9, NULL, &sample, &err));
    return sample;
}

/* ---- The table ------------------------------------------------------------------------------- */

static vexi_calibration make_table(void) {
    vexi_calibration table;
    for (uint32_t k = 0; k < VEXI_CALIBRATION_KS; k++) {
        for (uint32_t r = 0; r < VEXI_CALIBRATION_RECALLS; r++) {
            table.effort[k][r] = (k + 1) * (10 + r * r);
        }
    }
    return table;
}

TEST(find) {
    vexi_calibration table = make_table();
    for (uint32_t k = 0; k < VEXI_CALIBRATION_KS; k++) {
        for (uint32_t r = 0; r < VEXI_CALIBRATION_RECALLS; r++) {
            float recall = vexi_calibration_recalls[r];
            CHECK_EQ(vexi_calibration_find(&table, recall, vexi_calibration_ks[k], 100000),
                     table.effort[k][r]);
        }
    }
    /* Between, below and beyond. */
    CHECK_EQ(vexi_calibration_find(&table, 0.1f, 1, 1000), 10);
    CHECK_EQ(vexi_calibration_find(&table, 0.8f, 0, 1000), 10);
    uint32_t between = vexi_calibration_find(&table, 0.93f, 30, 1000);
    CHECK(between > table.effort[1][1] && between < table.effort[2][2]);
    CHECK_EQ(vexi_calibration_find(&table, 0.8f, 2000, 1000), 80);
    CHECK_EQ(vexi_calibration_find(&table, 0.8f, UINT32_MAX, 1000), 1000);
    CHECK(vexi_calibration_find(&table, 0.9999f, 1, 1000) > table.effort[0][7]);
    CHECK_EQ(vexi_calibration_find(&table, 1.0f, 1, 1000), 1000);
    CHECK_EQ(vexi_calibration_find(&table, NAN, 1, 1000), 1000);
    CHECK_EQ(vexi_calibration_find(&table, -INFINITY, 1, 1000), 10);
    CHECK_EQ(vexi_calibration_find(&table, 0.99f, 10, 7), 7);
    /* What the table cannot tell. */
    table.effort[1][2] = 0;
    CHECK_EQ(vexi_calibration_find(&table, 0.95f, 10, 1000), 1000);
    CHECK_EQ(vexi_calibration_find(&table, 0.95f, 5, 1000), 1000);
    CHECK_EQ(vexi_calibration_find(&table, 0.93f, 10, 1000), 1000);
    CHECK_EQ(vexi_calibration_find(&table, 0.95f, 1, 1000), table.effort[0][2]);
    CHECK_EQ(vexi_calibration_find(&table, 0.97f, 10, 1000), table.effort[1][3]);
    vexi_calibration none = {0};
    CHECK_EQ(vexi_calibration_find(&none, 0.8f, 1, 55), 55);
}

/* Any table: within bounds, and never less for more. */
TEST(find_in_hostile_tables) {
    uint64_t random = vex_test_seed(41);
    for (int trial = 0; trial < 300; trial++) {
        vexi_calibration table;
        bool zeros = trial % 2 == 0;
        for (uint32_t k = 0; k < VEXI_CALIBRATION_KS; k++) {
            for (uint32_t r = 0; r < VEXI_CALIBRATION_RECALLS; r++) {
                uint64_t shift = vex_test_below(&random, 33);
                table.effort[k][r] = (uint32_t)(vex_test_random(&random) >> 32 >> shift);
                table.effort[k][r] |= zeros ? 0 : 1;
            }
        }
        uint32_t most = 1 + (uint32_t)vex_test_below(&random, 1u << 20);
        for (uint32_t k = 1; k < 100000; k = k * 3 + 1) {
            uint32_t last = 0;
            for (int step = 0; step <= 100; step++) {
                float recall = (float)step / 100;
                uint32_t effort = vexi_calibration_find(&table, recall, k, most);
                CHECK(effort >= 1 && effort <= most);
                CHECK(zeros || effort >= last);
                CHECK(zeros || vexi_calibration_find(&table, recall, k + k / 2, most) >= effort);
                last = effort;
            }
            CHECK_EQ(last, most);
        }
    }
}

/* ---- The sample ------------------------------------------------------------------------------ */

/* Against a plain comparison with every row. */
static void check_answers(const data *d, vex_metric metric, const vexi_calibration_sample *sample) {
    CHECK_EQ(sample->k, d->count - 1 < 1000 ? d->count - 1 : 1000);
    CHECK(sample->query_count > 0 && sample->query_count % 2 == 0);
    uint8_t *answered = malloc(d->count);
    for (uint32_t q = 0; q < sample->query_count; q += 1 + sample->query_count / 20) {
        const float *query = sample->queries + (size_t)q * d->dimension;
        const uint32_t *answers = sample->answers + (size_t)q * sample->k;
        const float *distances = sample->distances + (size_t)q * sample->k;
        memset(answered, 0, d->count);
        CHECK(sample->excluded[q] < d->count);
        answered[sample->excluded[q]] = 1;
        for (uint32_t i = 0; i < sample->k; i++) {
            CHECK(answers[i] < d->count && !answered[answers[i]]);
            answered[answers[i]] = 1;
            double exact =
                vexi_distance(metric, query, (const uint8_t *)d->rows[answers[i]], d->dimension);
            CHECK(fabs(exact - (double)distances[i]) <= 1e-3 * (1 + fabs(exact)));
            CHECK(i == 0 || distances[i] >= distances[i - 1]);
        }
        for (uint32_t row = 0; row < d->count; row++) {
            double exact =
                vexi_distance(metric, query, (const uint8_t *)d->rows[row], d->dimension);
            bool same = memcmp(d->rows[row], d->rows[sample->excluded[q]],
                               d->dimension * sizeof(float)) == 0;
            CHECK(answered[row] || (same && q < sample->query_count / 2) ||
                  exact >= (double)distances[sample->k - 1] - 1e-3 * (1 + fabs(exact)));
        }
    }
    free(answered);
}

TEST(sample_answers_exactly) {
    uint64_t random = vex_test_seed(42);
    static const uint32_t counts[] = {2, 3, 40, 700, 3001};
    for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            data d = make_clustered(counts[c], 17, 5, &random);
            vexi_calibration_sample sample = make_sample(&d, metric);
            check_answers(&d, metric, &sample);
            /* Rows come first, and as they are; the others are moved, but not far. */
            for (uint32_t q = 0; q < sample.query_count / 2; q++) {
                const float *row = d.rows[sample.excluded[q]];
                const float *query = sample.queries + (size_t)q * 17;
                const float *moved = query + (size_t)(sample.query_count / 2) * 17;
                const float *origin = d.rows[sample.excluded[q + sample.query_count / 2]];
                const uint8_t *bytes = (const uint8_t *)row;
                vex_metric by = metric == VEX_METRIC_COSINE ? VEX_METRIC_COSINE : VEX_METRIC_L2;
                double far = vexi_distance(by, query, bytes, 17);
                CHECK(far < 1e-5);
                far = vexi_distance(by, moved, (const uint8_t *)origin, 17);
                double nearest = (double)sample.distances[(size_t)q * sample.k + sample.k - 1];
                CHECK(metric == VEX_METRIC_IP || far < nearest + 1e-5);
                CHECK(counts[c] < 700 || metric == VEX_METRIC_IP || far > 0);
            }
            vexi_calibration_sample_deinit(vex_test_env(), &sample);
            free_rows(&d);
        }
    }
}

/* Rows equal to the query's are no answers while there are others; all equal rows still answer. */
TEST(sample_of_duplicates) {
    uint64_t random = vex_test_seed(43);
    for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        data d = make_clustered(2400, 6, 0, &random);
        for (uint32_t i = 0; i < d.count; i++) {
            d.rows[i] = d.values + (size_t)(i % 1200) * 6;
        }
        vexi_calibration_sample sample = make_sample(&d, metric);
        for (uint32_t q = 0; q < sample.query_count / 2; q++) {
            for (uint32_t i = 0; i < sample.k; i++) {
                uint32_t answer = sample.answers[(size_t)q * sample.k + i];
                CHECK(answer % 1200 != sample.excluded[q] % 1200);
            }
        }
        vexi_calibration_sample_deinit(vex_test_env(), &sample);
        for (uint32_t i = 0; i < d.count; i++) {
            d.rows[i] = d.values;
        }
        sample = make_sample(&d, metric);
        CHECK_EQ(sample.k, 1000);
        for (size_t i = 0; i < (size_t)sample.query_count * sample.k; i++) {
            CHECK(sample.answers[i] < d.count);
            CHECK(sample.answers[i] != sample.excluded[i / sample.k]);
        }
        vexi_calibration_sample_deinit(vex_test_env(), &sample);
        free_rows(&d);
    }
}

TEST(sample_is_the_same_on_any_number_of_threads) {
    uint64_t random = vex_test_seed(44);
    data d = make_clustered(2000, 10, 30, &random);
    vexi_calibration_sample first = make_sample(&d, VEX_METRIC_L2);
    vexi_env *env;
    CHECK_OK(vexi_env_system_create(3, NULL, NULL, &env, &err));
    vexi_calibration_sample again;
    CHECK_OK(vexi_calibration_sample_init(env, d.rows, d.count, 10, VEX_METRIC_L2, 9, NULL, &again,
                                          &err));
    size_t answers = (size_t)first.query_count * first.k;
    CHECK_EQ(first.query_count, again.query_count);
    CHECK(memcmp(first.answers, again.answers, answers * sizeof *first.answers) == 0);
    CHECK(memcmp(first.distances, again.distances, answers * sizeof *first.distances) == 0);
    CHECK(memcmp(first.queries, again.queries,
                 (size_t)first.query_count * 10 * sizeof *first.queries) == 0);
    vexi_calibration_sample_deinit(env, &again);
    vexi_env_system_destroy(env);
    vexi_calibration_sample_deinit(vex_test_env(), &first);
    free_rows(&d);
}

/* ---- The IVF --------------------------------------------------------------------------------- */

static vexi_calibration calibrate(const data *d, vex_metric metric, uint32_t list_count,
                                  uint32_t *lists) {
    vexi_ivf ivf;
    vexi_ivf_options options = {.list_count = list_count, .seed = 4};
    CHECK_OK(vexi_ivf_build(vex_test_env(), d->rows, d->count, d->dimension, metric, &options, &ivf,
                            &err));
    vexi_calibration_sample sample = make_sample(d, metric);
    vexi_calibration table;
    CHECK_OK(vexi_ivf_calibrate(vex_test_env(), &ivf, metric, &sample, &table, &err));
    *lists = ivf.list_count;
    vexi_calibration_sample_deinit(vex_test_env(), &sample);
    vexi_ivf_deinit(vex_test_env(), &ivf);
    return table;
}

/* Clusters far apart need few lists, one cloud in many dimensions most of them. */
TEST(efforts_follow_the_data) {
    uint64_t random = vex_test_seed(45);
    for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_COSINE; metric++) {
        uint32_t lists;
        data d = make_clustered(4000, 40, 20, &random); /* 200 rows each */
        vexi_calibration table = calibrate(&d, metric, 20, &lists);
        uint32_t easy = vexi_calibration_find(&table, 0.99f, 10, lists);
        printf("    metric %d: %u of %u lists for clusters", (int)metric, easy, lists);
        CHECK(easy <= 3);
        /* A thousand neighbours fill five clusters. */
        CHECK(vexi_calibration_find(&table, 0.99f, 1000, lists) >= 5);
        free_rows(&d);
        d = make_clustered(4000, 40, 0, &random);
        table = calibrate(&d, metric, 60, &lists);
        uint32_t hard = vexi_calibration_find(&table, 0.99f, 10, lists);
        printf(", %u of %u for a cloud\n", hard, lists);
        CHECK(hard > lists / 2);
        free_rows(&d);
    }
}

/* Queries from outside reach the recall that was asked for. */
TEST(recall_of_other_queries) {
    uint64_t random = vex_test_seed(46);
    for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        data d = make_clustered(8300, 12, 0, &random);
        data rows = d;
        rows.count = 8000; /* the last 300 are the queries */
        vexi_ivf ivf;
        vexi_ivf_options options = {.list_count = 120, .seed = 6};
        CHECK_OK(vexi_ivf_build(vex_test_env(), rows.rows, rows.count, 12, metric, &options, &ivf,
                                &err));
        vexi_calibration_sample sample = make_sample(&rows, metric);
        vexi_calibration table;
        CHECK_OK(vexi_ivf_calibrate(vex_test_env(), &ivf, metric, &sample, &table, &err));
        for (uint32_t k = 1; k <= 100; k *= 10) {
            uint32_t nprobe = vexi_calibration_find(&table, 0.95f, k, ivf.list_count);
            uint64_t hits = 0;
            vexi_arena arena;
            vexi_arena_init(&arena, vex_test_env());
            for (uint32_t q = rows.count; q < d.count; q++) {
                vexi_query query;
                CHECK_OK(vexi_query_init(&query, metric, d.rows[q], 12, &arena, &err));
                vexi_topk topk;
                CHECK_OK(vexi_topk_init(&topk, k, &arena, &err));
                for (uint32_t i = 0; i < rows.count; i++) {
                    double distance =
                        vexi_distance(metric, d.rows[q], (const uint8_t *)d.rows[i], 12);
                    vexi_topk_push(&topk, (float)distance, 0, i);
                }
                uint32_t lists[120];
                float scratch[120];
                vexi_ivf_rank(&query, ivf.centroids, ivf.list_count, lists, scratch);
                for (uint32_t p = 0; p < nprobe; p++) {
                    for (uint32_t i = ivf.list_first[lists[p]]; i < ivf.list_first[lists[p] + 1];
                         i++) {
                        for (uint32_t a = 0; a < topk.count; a++) {
                            hits += topk.items[a].row == ivf.order[i];
                        }
                    }
                }
            }
            vexi_arena_deinit(&arena);
            double recall = (double)hits / (300.0 * k);
            printf("    metric %d, k %u: %.4f at %u of %u lists\n", (int)metric, k, recall, nprobe,
                   ivf.list_count);
            CHECK(recall >= (k == 1 ? 0.93 : 0.95));
            CHECK(nprobe < ivf.list_count * 2 / 3);
        }
        vexi_calibration_sample_deinit(vex_test_env(), &sample);
        vexi_ivf_deinit(vex_test_env(), &ivf);
        free_rows(&d);
    }
}

/* One row, two, equal rows, fewer rows than any k, values that overflow products. */
TEST(edges) {
    uint64_t random = vex_test_seed(47);
    for (vex_metric metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        for (int kind = 0; kind < 4; kind++) {
            for (uint32_t count = 1; count <= 1500; count = count * 4 + 1) {
                uint32_t lists;
                data d = make_clustered(count, 5, 3, &random);
                for (size_t i = 0; kind > 0 && i < (size_t)count * 5; i++) {
                    d.values[i] = kind == 1   ? 0
                                  : kind == 2 ? 4.5f
                                              : (vex_test_below(&random, 2) == 0 ? 3e38f : -3e38f);
                }
                vexi_calibration table = calibrate(&d, metric, 7, &lists);
                for (uint32_t k = 0; k < VEXI_CALIBRATION_KS; k++) {
                    for (uint32_t r = 0; r < VEXI_CALIBRATION_RECALLS; r++) {
                        uint32_t effort = table.effort[k][r];
                        CHECK(count == 1 ? effort == 0 : effort >= 1 && effort <= lists);
                    }
                }
                free_rows(&d);
            }
        }
    }
}

/* Every allocation fails once. */
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

TEST(out_of_memory) {
    uint64_t random = vex_test_seed(48);
    data d = make_clustered(30, 5, 3, &random);
    vexi_ivf ivf;
    vexi_ivf_options options = {.list_count = 4, .seed = 4};
    CHECK_OK(vexi_ivf_build(vex_test_env(), d.rows, d.count, 5, VEX_METRIC_COSINE, &options, &ivf,
                            &err));
    bool done = false;
    for (size_t n = 0; !done; n++) {
        failing state = {.real = vex_test_env(), .left = n};
        vexi_env env = *vex_test_env();
        env.context = &state;
        env.allocate = failing_allocate;
        env.release = failing_release;
        env.parallel = failing_parallel;
        vexi_calibration_sample sample;
        vexi_calibration table;
        vex_error err;
        vex_status status = vexi_calibration_sample_init(&env, d.rows, d.count, 5,
                                                         VEX_METRIC_COSINE, 1, NULL, &sample, &err);
        if (status == VEX_OK) {
            status = vexi_ivf_calibrate(&env, &ivf, VEX_METRIC_COSINE, &sample, &table, &err);
        }
        done = status == VEX_OK;
        CHECK(done || status == VEX_MEMORY);
        CHECK(!done || n > 10);
        vexi_calibration_sample_deinit(&env, &sample);
    }
    vexi_ivf_deinit(vex_test_env(), &ivf);
    free_rows(&d);
}

/* ---- Cancelling ------------------------------------------------------------------------------ */

/* Sets a flag when the n-th parallel work begins. */
typedef struct canceller {
    const vexi_env *inner;
    int calls_left;
    int flag;
} canceller;

static void *canceller_allocate(void *context, size_t alignment, size_t size) {
    const vexi_env *inner = ((canceller *)context)->inner;
    return inner->allocate(inner->context, alignment, size);
}

static void canceller_release(void *context, void *pointer) {
    const vexi_env *inner = ((canceller *)context)->inner;
    inner->release(inner->context, pointer);
}

static void cancelling_parallel(void *context, size_t count, void (*function)(void *, size_t),
                                void *argument) {
    canceller *c = context;
    if (--c->calls_left == 0) {
        __atomic_store_n(&c->flag, 1, __ATOMIC_RELAXED);
    }
    vexi_parallel(c->inner, count, function, argument);
}

/* With the flag set at the n-th parallel work from now, 0: already. */
static vexi_env canceller_env(canceller *c, int n) {
    *c = (canceller){.inner = vex_test_env(), .calls_left = n, .flag = n == 0};
    vexi_env env = *c->inner;
    env.context = c;
    env.allocate = canceller_allocate;
    env.release = canceller_release;
    env.parallel = cancelling_parallel;
    return env;
}

/* Building lists and making a sample end at whatever work the flag is met; nothing is left. */
TEST(work_is_cancelled_wherever_it_is) {
    uint64_t random = vex_test_seed(7);
    data d = make_clustered(9000, 8, 20, &random);
    uint64_t cancelled = 0;
    for (int lists = 16; lists <= 600; lists += 584) {
        for (int n = 0; n < 40; n++) {
            canceller c;
            vexi_env env = canceller_env(&c, n);
            vexi_ivf_options options = {
                .list_count = (uint32_t)lists, .seed = 3, .iteration_max = 2, .cancel = &c.flag};
            vexi_ivf ivf;
            vex_error err = {0};
            vex_status status = vexi_ivf_build(&env, d.rows, d.count, d.dimension, VEX_METRIC_L2,
                                               &options, &ivf, &err);
            CHECK(status == VEX_OK || (status == VEX_CANCELLED && c.flag == 1));
            CHECK(n > 1 || status == VEX_CANCELLED);
            CHECK(status == VEX_OK || ivf.centroids == NULL);
            cancelled += status == VEX_CANCELLED;
            vexi_ivf_deinit(&env, &ivf);
        }
    }
    CHECK(cancelled >= 8);
    for (int n = 0; n < 4; n++) {
        canceller c;
        vexi_env env = canceller_env(&c, n);
        vexi_calibration_sample sample;
        vex_error err = {0};
        vex_status status = vexi_calibration_sample_init(&env, d.rows, d.count, d.dimension,
                                                         VEX_METRIC_L2, 3, &c.flag, &sample, &err);
        CHECK_EQ(status, n <= 2 ? VEX_CANCELLED : VEX_OK); /* rows, then moved ones */
        CHECK((sample.queries == NULL) == (status != VEX_OK));
        vexi_calibration_sample_deinit(&env, &sample);
    }
    free_rows(&d);
}

TEST_MAIN(RUN(find); RUN(find_in_hostile_tables); RUN(sample_answers_exactly);
          RUN(sample_of_duplicates); RUN(sample_is_the_same_on_any_number_of_threads);
          RUN(efforts_follow_the_data); RUN(recall_of_other_queries); RUN(edges);
          RUN(out_of_memory); RUN(work_is_cancelled_wherever_it_is))
