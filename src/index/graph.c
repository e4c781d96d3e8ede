/* Graph: the node's layout, queries, the end of a graph's life.
 *
 * A graph walks in a space of squared distances: of the vectors, under cosine of the unit vectors,
 * and under inner product of the vectors with one coordinate more, sqrt(M^2 - |x|^2), M the largest
 * length, so that all are equally long and the nearest of a query with a zero there is the one of
 * the largest inner product (Bachrach et al., RecSys 2014). That coordinate shapes the graph and is
 * not stored: a walk needs -2 <q, x> alone, which the node's own vector gives exactly and a
 * neighbour's code around it approximately,
 *
 *     -2 <q, x> = |q - x|^2 - |q - c|^2 + |c|^2 - |x|^2 - 2 <q, c>
 *
 * with |c|^2 - |x|^2 in the code's `add`. So codes have the collection's dimension and rotation
 * whatever the metric. */
#include "index/graph.h"

#include <string.h>

#include "index/graph_internal.h"

static size_t align64(size_t size) {
    return (size + 63) / 64 * 64;
}

vexi_graph_layout vexi_graph_layout_of(vex_metric metric, uint32_t dimension, uint32_t degree) {
    vexi_graph_layout layout = {.metric = metric,
                                .dimension = dimension,
                                .padded = vexi_code_padded(dimension),
                                .degree = degree};
    layout.blocks_offset = align64((size_t)dimension * sizeof(float));
    layout.neighbours_offset = layout.blocks_offset + (size_t)(degree / VEXI_CODE_BLOCK_ROWS) *
                                                          vexi_code_block_size(layout.padded);
    layout.node_size = align64(layout.neighbours_offset + (size_t)degree * sizeof(uint32_t));
    return layout;
}

void *vexi_graph_nodes_alloc(const vexi_env *env, size_t size) {
    if (size < VEXI_GRAPH_HUGE) {
        return vexi_alloc_aligned(env, size);
    }
    return env->allocate(env->context, (size_t)2 << 20, size);
}

vex_status vexi_graph_query_init(vexi_code_query *query, const vexi_graph *graph,
                                 const vexi_rotation *rotation, const float *values,
                                 vexi_arena *arena, vex_error *err) {
    vexi_code_layout layout = vexi_code_layout_of(graph->layout.metric, graph->layout.dimension, 1);
    return vexi_code_query_init(query, &layout, rotation, values, graph->origin, graph->row_length,
                                arena, err);
}

void vexi_graph_deinit(const vexi_env *env, vexi_graph *graph) {
    /* Built graphs own what their fields point to. */
    vexi_free(env, (void *)(uintptr_t)graph->nodes);
    vexi_free(env, (void *)(uintptr_t)graph->entries);
    vexi_free(env, (void *)(uintptr_t)graph->entry_codes);
    vexi_free(env, (void *)(uintptr_t)graph->origin);
    *graph = (vexi_graph){0};
}
