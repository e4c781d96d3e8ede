#include "index/graph.h"

#include <math.h>

#include "base/bitmap.h"
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

/* Rows around random centres; the same centres for every call. Lengths differ by the scale. */
static data make_clustered(uint32_t count, uint32_t dimension, uint32_t centre_count,
                           uint64_t *random) {
    data d = make_rows(count, dimension);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t centre = 7 + 1000 * vex_test_below(random, centre_count);
        float scale = 1.0f + 0.2f * vex_test_normal(random);
        for (uint32_t j = 0; j < dimension; j++) {
            d.values[(size_t)i * dimension + j] =
                scale * (vex_test_normal(&centre) + 0.6f * vex_test_normal(random));
        }
    }
    return d;
}

static void free_rows(data *d) {
    free(d->values);
    free(d->rows);
}

typedef struct built {
    vexi_rotation rotation;
    vexi_graph graph;
    vexi_graph_scratch *scratch;
} built;

static built build_with(vexi_env *env, const data *d, vex_metric metric, uint32_t degree) {
    built b;
    vexi_rotation_init(&b.rotation, d->dimension, 42);
    vexi_graph_options options = {.degree = degree, .seed = 1};
    CHECK_OK(vexi_graph_build(env, &b.rotation, d->rows, d->count, d->dimension, metric, &options,
                              &b.graph, &err));
    CHECK_OK(vexi_graph_scratch_create(env, &b.scratch, &err));
    return b;
}

static built build(const data *d, vex_metric metric) {
    return build_with(vex_test_env(), d, metric, 0);
}

static void free_built(built *b) {
    vexi_graph_scratch_destroy(b->scratch);
    vexi_graph_deinit(vex_test_env(), &b->graph);
}

/* Search and sort; the rows go to out (k entries, UINT64_MAX where there is none), checked to be
 * distinct, allowed, and as far as they say. */
static vexi_graph_result search(built *b, const data *d, const float *query, uint32_t k,
                                uint32_t ef, const uint64_t *hidden, uint64_t *out) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_code_query made;
    vexi_topk topk;
    vexi_graph_result result;
    CHECK_OK(vexi_graph_query_init(&made, &b->graph, &b->rotation, query, &arena, &err));
    CHECK_OK(vexi_topk_init(&topk, k, &arena, &err));
    CHECK_OK(vexi_graph_scratch_reserve(b->scratch, b->graph.row_count, b->graph.layout.degree, ef,
                                        &err));
    vexi_graph_search(&b->graph, &made, ef, hidden, 5, b->scratch, &topk, &result);
    vexi_topk_sort(&topk);
    CHECK(topk.count == (result.found < k ? result.found : k));
    float *copy = calloc(d->dimension, sizeof *copy);
    memcpy(copy, query, d->dimension * sizeof *copy);
    for (uint32_t i = 0; i < k; i++) {
        out[i] = UINT64_MAX;
        if (i >= topk.count) {
            continue;
        }
        uint64_t row = topk.items[i].row;
        CHECK(row < d->count && topk.items[i].source == 5);
        CHECK(hidden == NULL || !vexi_bitmap_get(hidden, row));
        double exact = vexi_distance(b->graph.layout.metric, copy, (const uint8_t *)d->rows[row],
                                     d->dimension);
        double said = (double)topk.items[i].distance;
        CHECK(fabs(said - exact) <= 1e-4 * (1 + fabs(exact)));
        for (uint32_t j = 0; j < i; j++) {
            CHECK(out[j] != row);
        }
        out[i] = row;
    }
    free(copy);
    vexi_arena_deinit(&arena);
    return result;
}

/* The share of the k nearest allowed rows (or ones equally near) that a search finds. */
static double recall(built *b, const data *d, const data *queries, uint32_t k, uint32_t ef,
                     const uint64_t *hidden) {
    uint64_t found[100];
    double *distances = calloc(d->count, sizeof *distances);
    size_t hits = 0;
    CHECK(k <= 100);
    for (uint32_t q = 0; q < queries->count; q++) {
        search(b, d, queries->rows[q], k, ef, hidden, found);
        for (uint32_t i = 0; i < d->count; i++) {
            distances[i] = hidden != NULL && vexi_bitmap_get(hidden, i)
                               ? INFINITY
                               : vexi_distance(b->graph.layout.metric, queries->rows[q],
                                               (const uint8_t *)d->rows[i], d->dimension);
        }
        for (uint32_t n = 0; n < k && found[n] != UINT64_MAX; n++) {
            uint32_t nearer = 0;
            for (uint32_t i = 0; i < d->count; i++) {
                nearer += distances[i] < distances[found[n]] - 1e-9;
            }
            hits += nearer < k;
        }
    }
    free(distances);
    return (double)hits / (double)(k * queries->count);
}

static uint32_t count_reachable(const vexi_graph *g) {
    uint8_t *reached = calloc(g->row_count, 1);
    uint32_t *queue = calloc(g->row_count, sizeof *queue);
    uint32_t end = 0;
    for (uint32_t i = 0; i < g->entry_count; i++) {
        CHECK(g->entries[i] < g->row_count);
        if (!reached[g->entries[i]]) {
            reached[g->entries[i]] = 1;
            queue[end++] = g->entries[i];
        }
    }
    for (uint32_t i = 0; i < end; i++) {
        const uint8_t *node = g->nodes + queue[i] * g->layout.node_size;
        for (uint32_t j = 0; j < g->layout.degree; j++) {
            uint32_t to;
            memcpy(&to, node + g->layout.neighbours_offset + j * sizeof to, sizeof to);
            CHECK(to < g->row_count);
            if (!reached[to]) {
                reached[to] = 1;
                queue[end++] = to;
            }
        }
    }
    free(reached);
    free(queue);
    return end;
}

TEST(layout) {
    vexi_graph_layout l = vexi_graph_layout_of(VEX_METRIC_L2, 128, 32);
    CHECK_EQ(l.blocks_offset, 512);
    CHECK_EQ(l.neighbours_offset, 512 + 768);
    CHECK_EQ(l.node_size, 1408);
    l = vexi_graph_layout_of(VEX_METRIC_IP, 5, 64);
    CHECK_EQ(l.blocks_offset, 64);
    CHECK_EQ(l.neighbours_offset, 64 + 2 * 512);
    CHECK_EQ(l.node_size, 64 + 2 * 512 + 256);
}

TEST(recall_of_metrics_and_dimensions) {
    uint64_t random = vex_test_seed(1);
    static const struct {
        uint32_t count, dimension;
        double floor;
    } shapes[] = {{2000, 2, 0.95}, {2500, 24, 0.97}, {1500, 100, 0.97}, {600, 320, 0.97}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        data d = make_clustered(shapes[s].count, shapes[s].dimension, 20, &random);
        data queries = make_clustered(20, shapes[s].dimension, 20, &random);
        for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
            built b = build(&d, (vex_metric)metric);
            CHECK_EQ(count_reachable(&b.graph), d.count);
            double found = recall(&b, &d, &queries, 10, 120, NULL);
            printf("    %u x %u metric %d: %.3f\n", d.count, d.dimension, metric, found);
            CHECK(found >= shapes[s].floor);
            CHECK(recall(&b, &d, &queries, 10, 20, NULL) <= found + 0.02);
            free_built(&b);
        }
        free_rows(&d);
        free_rows(&queries);
    }
}

TEST(degree_64) {
    uint64_t random = vex_test_seed(2);
    data d = make_clustered(1500, 40, 10, &random);
    data queries = make_clustered(20, 40, 10, &random);
    built b = build_with(vex_test_env(), &d, VEX_METRIC_L2, 64);
    CHECK_EQ(b.graph.layout.degree, 64);
    CHECK_EQ(count_reachable(&b.graph), d.count);
    CHECK(recall(&b, &d, &queries, 10, 100, NULL) >= 0.98);
    free_built(&b);
    CHECK_FAILS(VEX_INVALID,
                vexi_graph_build(vex_test_env(), &b.rotation, d.rows, d.count, 40, VEX_METRIC_L2,
                                 &(vexi_graph_options){.degree = 48}, &b.graph, &err));
    free_rows(&d);
    free_rows(&queries);
}

/* Fewer rows than slots, and no rows at all: a wide walk finds every row. */
TEST(few_rows) {
    uint64_t random = vex_test_seed(3);
    static const uint32_t counts[] = {0, 1, 2, 3, 31, 32, 33, 34, 100};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        data d = make_clustered(counts[c], 7, 3, &random);
        data queries = make_clustered(1, 7, 3, &random);
        for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
            built b = build(&d, (vex_metric)metric);
            CHECK_EQ(b.graph.row_count, counts[c]);
            uint64_t found[128];
            if (counts[c] > 0) {
                CHECK_EQ(count_reachable(&b.graph), counts[c]);
                CHECK_EQ(search(&b, &d, queries.rows[0], 128, 200, NULL, found).found, counts[c]);
            } else {
                vexi_graph_result result = {.found = 9};
                vexi_topk topk = {0};
                vexi_code_query query = {0};
                vexi_graph_search(&b.graph, &query, 10, NULL, 0, b.scratch, &topk, &result);
                CHECK_EQ(result.found, 0);
            }
            free_built(&b);
        }
        free_rows(&d);
        free_rows(&queries);
    }
}

TEST(extreme_dimensions) {
    uint64_t random = vex_test_seed(4);
    static const uint32_t dimensions[] = {1, 3, 63, 65, 4095, 4096};
    for (size_t i = 0; i < sizeof dimensions / sizeof *dimensions; i++) {
        data d = make_clustered(150, dimensions[i], 5, &random);
        data queries = make_clustered(5, dimensions[i], 5, &random);
        for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
            built b = build(&d, (vex_metric)metric);
            CHECK_EQ(count_reachable(&b.graph), d.count);
            CHECK(recall(&b, &d, &queries, 5, 150, NULL) >= 0.9);
            free_built(&b);
        }
        free_rows(&d);
        free_rows(&queries);
    }
}

/* Equal rows are all reachable, and a search for k of them gets k. */
TEST(duplicates) {
    uint64_t random = vex_test_seed(5);
    uint64_t found[100];
    for (int kind = 0; kind < 3; kind++) {
        data d = make_rows(3000, 16);
        for (uint32_t i = 0; i < d.count; i++) {
            /* All the same; all the same but a few; five kinds. */
            uint64_t state = kind == 0 ? 1 : kind == 1 ? (i % 500 == 7 ? i : 1) : i % 5;
            for (uint32_t j = 0; j < d.dimension; j++) {
                d.values[(size_t)i * d.dimension + j] = vex_test_normal(&state);
            }
        }
        data queries = make_clustered(3, 16, 3, &random);
        for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
            built b = build(&d, (vex_metric)metric);
            CHECK_EQ(count_reachable(&b.graph), d.count);
            CHECK(search(&b, &d, queries.rows[0], 100, 200, NULL, found).found >= 100);
            /* The few odd ones among equals, to which equals lead no nearer, may be missed. */
            if (metric == VEX_METRIC_L2 && kind != 1) {
                CHECK(recall(&b, &d, &queries, 10, 100, NULL) >= 0.9);
            }
            free_built(&b);
        }
        free_rows(&d);
        free_rows(&queries);
    }
}

/* Values whose squares leave float32: nothing crashes, every row stays reachable. */
TEST(extreme_values) {
    uint64_t random = vex_test_seed(6);
    static const float scales[] = {0, 1e-30f, 1e-19f, 1e18f, 1e30f};
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        data d = make_clustered(400, 20, 5, &random);
        for (uint32_t i = 0; i < d.count * d.dimension; i++) {
            d.values[i] *= scales[s];
        }
        for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
            built b = build(&d, (vex_metric)metric);
            CHECK_EQ(count_reachable(&b.graph), d.count);
            vexi_arena arena;
            vexi_arena_init(&arena, vex_test_env());
            vexi_code_query query;
            vexi_topk topk;
            vexi_graph_result result;
            CHECK_OK(vexi_graph_query_init(&query, &b.graph, &b.rotation, d.rows[3], &arena, &err));
            CHECK_OK(vexi_topk_init(&topk, 10, &arena, &err));
            CHECK_OK(vexi_graph_scratch_reserve(b.scratch, d.count, 32, 50, &err));
            vexi_graph_search(&b.graph, &query, 50, NULL, 0, b.scratch, &topk, &result);
            CHECK(result.found <= d.count && topk.count <= 10);
            vexi_arena_deinit(&arena);
            free_built(&b);
        }
        free_rows(&d);
    }
}

TEST(filtered) {
    uint64_t random = vex_test_seed(7);
    data d = make_clustered(2000, 32, 10, &random);
    data queries = make_clustered(20, 32, 10, &random);
    static const uint32_t shares[] = {1, 30, 60, 90, 99, 100}; /* per cent hidden */
    uint64_t found[100];
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        built b = build(&d, (vex_metric)metric);
        for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
            uint64_t *hidden = calloc(vexi_bitmap_words(d.count), sizeof *hidden);
            uint32_t allowed = 0;
            for (uint32_t i = 0; i < d.count; i++) {
                if (vex_test_below(&random, 100) < shares[s]) {
                    vexi_bitmap_set(hidden, i);
                } else {
                    allowed++;
                }
            }
            if (shares[s] <= 60) {
                double share = recall(&b, &d, &queries, 10, 120, hidden);
                printf("    metric %d, %u%% hidden: %.3f\n", metric, shares[s], share);
                CHECK(share >= 0.95);
            }
            /* As wide as the graph, all allowed rows are found. */
            CHECK_EQ(search(&b, &d, queries.rows[0], 100, d.count, hidden, found).found, allowed);
            free(hidden);
        }
        free_built(&b);
    }
    free_rows(&d);
    free_rows(&queries);
}

/* Any bytes as nodes, entries and codes: nothing outside them is read (the sanitizer says), no row
 * is returned that is none. */
TEST(hostile_bytes) {
    uint64_t random = vex_test_seed(8);
    uint64_t rounds = vex_test_effort(60);
    for (uint64_t round = 0; round < rounds; round++) {
        data d = make_clustered(64, 20, 5, &random);
        built b = build(&d, (vex_metric)(round % 3));
        size_t nodes_size = b.graph.layout.node_size * d.count;
        size_t codes_size = vexi_code_block_size(b.graph.layout.padded) * 2;
        uint8_t *nodes = aligned_alloc(64, nodes_size);
        uint8_t *codes = aligned_alloc(64, codes_size);
        uint32_t *entries = malloc(64 * sizeof *entries);
        memcpy(nodes, b.graph.nodes, nodes_size);
        memcpy(codes, b.graph.entry_codes, codes_size);
        memcpy(entries, b.graph.entries, 64 * sizeof *entries);
        uint64_t damage = round % 4 == 0 ? nodes_size * 4 : 1 + vex_test_below(&random, 400);
        for (uint64_t i = 0; i < damage; i++) {
            uint8_t byte = (uint8_t)vex_test_random(&random);
            nodes[vex_test_below(&random, nodes_size)] = byte;
            if (i < 300) {
                codes[vex_test_below(&random, codes_size)] = byte;
                ((uint8_t *)entries)[vex_test_below(&random, 256)] = byte;
            }
        }
        vexi_graph damaged = b.graph;
        damaged.nodes = nodes;
        damaged.entries = entries;
        damaged.entry_codes = round % 5 == 4 ? NULL : codes;
        uint64_t hidden[1] = {vex_test_random(&random)};
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_code_query query;
        CHECK_OK(vexi_graph_query_init(&query, &damaged, &b.rotation, d.rows[1], &arena, &err));
        CHECK_OK(vexi_graph_scratch_reserve(b.scratch, d.count, 32, 30, &err));
        for (int filtered = 0; filtered < 2; filtered++) {
            vexi_topk topk;
            vexi_graph_result result;
            CHECK_OK(vexi_topk_init(&topk, 20, &arena, &err));
            vexi_graph_search(&damaged, &query, 30, filtered ? hidden : NULL, 0, b.scratch, &topk,
                              &result);
            CHECK(result.found <= d.count && result.hop_count <= d.count);
            for (uint32_t i = 0; i < topk.count; i++) {
                CHECK(topk.items[i].row < d.count);
                CHECK(!filtered || !vexi_bitmap_get(hidden, topk.items[i].row));
            }
        }
        vexi_arena_deinit(&arena);
        free(nodes);
        free(codes);
        free(entries);
        free_built(&b);
        free_rows(&d);
    }
}

/* One thread or several, the graph is the same. */
TEST(deterministic) {
    uint64_t random = vex_test_seed(9);
    data d = make_clustered(1500, 20, 10, &random);
    built a = build(&d, VEX_METRIC_IP);
    vexi_env *env;
    CHECK_OK(vexi_env_system_create(4, NULL, NULL, &env, &err));
    built b = build_with(env, &d, VEX_METRIC_IP, 0);
    CHECK(memcmp(a.graph.nodes, b.graph.nodes, a.graph.layout.node_size * d.count) == 0);
    vexi_graph_scratch_destroy(b.scratch);
    vexi_graph_deinit(env, &b.graph);
    vexi_env_system_destroy(env);
    free_built(&a);
    free_rows(&d);
}

/* A search that ended in a fault leaves its scratch memory dirty; the next one is right anyhow. */
TEST(scratch_is_reused) {
    uint64_t random = vex_test_seed(10);
    data d = make_clustered(1000, 16, 10, &random);
    data queries = make_clustered(10, 16, 10, &random);
    built b = build(&d, VEX_METRIC_L2);
    uint64_t first[10], again[10];
    search(&b, &d, queries.rows[0], 10, 40, NULL, first);
    search(&b, &d, queries.rows[1], 10, 1000, NULL, again);
    search(&b, &d, queries.rows[0], 10, 40, NULL, again);
    CHECK(memcmp(first, again, sizeof first) == 0);
    free_built(&b);
    free_rows(&d);
    free_rows(&queries);
}

TEST(cancelled) {
    uint64_t random = vex_test_seed(11);
    data d = make_clustered(3000, 16, 10, &random);
    int cancel = 1;
    uint64_t rows_done = 77;
    vexi_rotation rotation;
    vexi_rotation_init(&rotation, 16, 42);
    vexi_graph graph;
    vexi_graph_options options = {.cancel = &cancel, .rows_done = &rows_done};
    CHECK_FAILS(VEX_CANCELLED, vexi_graph_build(vex_test_env(), &rotation, d.rows, d.count, 16,
                                                VEX_METRIC_L2, &options, &graph, &err));
    CHECK(graph.nodes == NULL);
    cancel = 0;
    CHECK_OK(vexi_graph_build(vex_test_env(), &rotation, d.rows, d.count, 16, VEX_METRIC_L2,
                              &options, &graph, &err));
    CHECK_EQ(rows_done, d.count);
    vexi_graph_deinit(vex_test_env(), &graph);
    free_rows(&d);
}

/* ---- Memory that runs out -------------------------------------------------------------------- */

static int64_t allocations_left;

static void *failing_allocate(void *context, size_t alignment, size_t size) {
    if (__atomic_fetch_sub(&allocations_left, 1, __ATOMIC_RELAXED) <= 0) {
        return NULL;
    }
    return vex_test_env()->allocate(context, alignment, size);
}

TEST(memory_runs_out) {
    uint64_t random = vex_test_seed(12);
    data d = make_clustered(700, 12, 10, &random);
    vexi_env env = *vex_test_env();
    env.allocate = failing_allocate;
    vexi_rotation rotation;
    vexi_rotation_init(&rotation, 12, 42);
    uint32_t failures = 0;
    vex_status status = VEX_MEMORY;
    for (int64_t n = 0; status != VEX_OK; n += n / 8 + 1) {
        allocations_left = n;
        vexi_graph graph;
        vex_error err;
        status = vexi_graph_build(&env, &rotation, d.rows, d.count, 12, VEX_METRIC_IP, NULL, &graph,
                                  &err);
        if (status != VEX_OK) {
            CHECK_EQ(status, VEX_MEMORY);
            CHECK(graph.nodes == NULL && graph.entries == NULL && graph.origin == NULL);
            failures++;
        } else {
            CHECK_EQ(count_reachable(&graph), d.count);
            vexi_graph_deinit(&env, &graph);
        }
    }
    CHECK(failures > 20);
    free_rows(&d);
}

/* ---- Calibration ----------------------------------------------------------------------------- */

TEST(calibration_keeps_its_promise) {
    uint64_t random = vex_test_seed(13);
    data d = make_clustered(3000, 24, 30, &random);
    data queries = make_clustered(60, 24, 30, &random);
    for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
        built b = build(&d, (vex_metric)metric);
        vexi_calibration_sample sample;
        vexi_calibration table;
        CHECK_OK(vexi_calibration_sample_init(vex_test_env(), d.rows, d.count, d.dimension,
                                              (vex_metric)metric, 3, NULL, &sample, &err));
        CHECK_OK(vexi_graph_calibrate(vex_test_env(), &b.rotation, &b.graph, &sample, NULL, &table,
                                      &err));
        int cancel = 1;
        vexi_calibration none;
        CHECK_FAILS(VEX_CANCELLED, vexi_graph_calibrate(vex_test_env(), &b.rotation, &b.graph,
                                                        &sample, &cancel, &none, &err));
        for (uint32_t k = 0; k < VEXI_CALIBRATION_KS; k++) {
            for (uint32_t r = 0; r < VEXI_CALIBRATION_RECALLS; r++) {
                uint32_t effort = table.effort[k][r];
                CHECK(effort <= d.count);
                CHECK(r == 0 || effort == 0 || effort >= table.effort[k][r - 1]);
            }
        }
        uint32_t ef = table.effort[1][2]; /* 10 rows at 0.95 */
        double found = recall(&b, &d, &queries, 10, ef, NULL);
        printf("    metric %d: ef %u for 0.95, found %.3f; 0.99: ef %u\n", metric, ef, found,
               table.effort[1][5]);
        CHECK(ef > 0 && ef < 200);
        CHECK(found >= 0.9);
        CHECK(table.effort[1][5] > ef);
        vexi_calibration_sample_deinit(vex_test_env(), &sample);
        free_built(&b);
    }
    free_rows(&d);
    free_rows(&queries);
}

TEST(size_is_told) {
    CHECK(vexi_graph_build_size(1000000, 128, 32) > (uint64_t)1408 * 1000000);
    CHECK(vexi_graph_build_size(1000000, 128, 32) < (uint64_t)4000 * 1000000);
    CHECK(vexi_graph_build_size(1, 128, 0) > 0);
}

TEST_MAIN(RUN(layout); RUN(recall_of_metrics_and_dimensions); RUN(degree_64); RUN(few_rows);
          RUN(extreme_dimensions); RUN(duplicates); RUN(extreme_values); RUN(filtered);
          RUN(hostile_bytes); RUN(deterministic); RUN(scratch_is_reused); RUN(cancelled);
          RUN(memory_runs_out); RUN(calibration_keeps_its_promise); RUN(size_is_told))
