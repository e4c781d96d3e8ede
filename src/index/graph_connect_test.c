/* Connecting rows that nothing orders: rows whose distances overflow have no candidates, and so
 * come to it with no edges at all. */
#include "check.h"
#include "index/graph_internal.h"

/* Far more rows between the entries than the slots of one: free slots are where one looked before.
 */
enum { DIMENSION = 1, ROWS = 120000, ENTRIES = 512 };

TEST(rows_without_candidates) {
    const vexi_env *env = vex_test_env();
    vexi_rotation rotation;
    vexi_rotation_init(&rotation, DIMENSION, 7);
    vexi_graph graph = {
        .layout = vexi_graph_layout_of(VEX_METRIC_L2, DIMENSION, VEXI_GRAPH_DEGREE),
        .row_count = ROWS,
        .entry_count = ENTRIES,
    };
    uint8_t *nodes = vexi_alloc_aligned(env, ROWS * graph.layout.node_size);
    uint32_t *entries = calloc(ENTRIES, sizeof *entries);
    float *origin = vexi_alloc_aligned(env, graph.layout.padded * sizeof *origin);
    const float **vectors = calloc(ROWS, sizeof *vectors);
    float *rotated = calloc((size_t)ROWS * graph.layout.padded, sizeof *rotated);
    vexi_graph_item *lists = calloc((size_t)ROWS * VEXI_GRAPH_LIST, sizeof *lists);
    uint8_t *counts = calloc(ROWS, 1);
    uint32_t *queue = calloc(ROWS, sizeof *queue);
    bool *reached = calloc(ROWS, sizeof *reached);
    vexi_graph_worker workers[2] = {0};
    CHECK(nodes != NULL && entries != NULL && origin != NULL && vectors != NULL &&
          rotated != NULL && lists != NULL && counts != NULL && queue != NULL && reached != NULL &&
          env->thread_count <= 2);
    memset(nodes, 0, ROWS * graph.layout.node_size);
    memset(origin, 0, graph.layout.padded * sizeof *origin);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        entries[i] = (2 * i + 1) * (ROWS / (2 * ENTRIES));
    }
    for (uint32_t row = 0; row < ROWS; row++) {
        uint8_t *node = nodes + row * graph.layout.node_size;
        uint32_t *neighbours = (uint32_t *)(void *)(node + graph.layout.neighbours_offset);
        for (uint32_t i = 0; i < graph.layout.degree; i++) {
            neighbours[i] = row;
        }
        vectors[row] = (const float *)(const void *)node;
    }
    for (size_t i = 0; i < 2; i++) {
        workers[i].values =
            vexi_alloc_aligned(env, VEXI_CODE_SCRATCH(graph.layout.padded) * sizeof(float));
        CHECK(workers[i].values != NULL);
    }
    graph.nodes = nodes;
    graph.entries = entries;
    graph.origin = origin;
    vexi_graph_options options = {0};
    vexi_graph_builder builder = {.env = env,
                                  .rotation = &rotation,
                                  .options = &options,
                                  .graph = &graph,
                                  .degree = graph.layout.degree,
                                  .row_count = ROWS,
                                  .dimension = DIMENSION,
                                  .nodes = nodes,
                                  .vectors = vectors,
                                  .origin = origin,
                                  .rotated = rotated,
                                  .lists = lists,
                                  .list_counts = counts,
                                  .workers = workers,
                                  .worker_count = 2};
    CHECK_OK(vexi_graph_connect(&builder, &err));
    uint32_t count = 0;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        reached[entries[i]] = true;
        queue[count++] = entries[i];
    }
    for (uint32_t at = 0; at < count; at++) {
        const uint32_t *neighbours = vexi_graph_neighbours(&graph, queue[at]);
        for (uint32_t i = 0; i < graph.layout.degree; i++) {
            CHECK(neighbours[i] < ROWS);
            if (!reached[neighbours[i]]) {
                reached[neighbours[i]] = true;
                queue[count++] = neighbours[i];
            }
        }
    }
    CHECK_EQ(count, ROWS);
    vexi_free(env, workers[0].values);
    vexi_free(env, workers[1].values);
    vexi_free(env, nodes);
    vexi_free(env, origin);
    free(entries);
    free(vectors);
    free(rotated);
    free(lists);
    free(counts);
    free(queue);
    free(reached);
}

TEST_MAIN(RUN(rows_without_candidates))
