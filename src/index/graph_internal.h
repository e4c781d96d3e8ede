/* What the graph's files share: nodes' parts, the walk's scratch memory, the steps of a build. */
#ifndef VEXI_INDEX_GRAPH_INTERNAL_H
#define VEXI_INDEX_GRAPH_INTERNAL_H

#include <stdatomic.h>

#include "index/graph.h"

/* Row numbers carry flags in their upper bits while they stand in a beam. */
#define VEXI_GRAPH_ROWS_MAX ((uint32_t)1 << 29)

/* A place in a beam, or a candidate neighbour. */
typedef struct vexi_graph_item {
    float key;
    uint32_t row;
} vexi_graph_item;

struct vexi_graph_scratch {
    const vexi_env *env;
    float *beam_keys;
    uint32_t *beam_rows;
    size_t beam_capacity;
    uint64_t *seen;    /* by row; all zero between searches, unless dirty */
    size_t seen_size;  /* words */
    bool dirty;        /* a search began and has not ended */
    uint32_t *touched; /* words of `seen` that are not zero, while they fit */
    float *estimates;
    size_t estimate_count;
};

enum { VEXI_GRAPH_TOUCHED_MAX = 4096 };

static inline const uint32_t *vexi_graph_neighbours(const vexi_graph *graph, uint32_t row) {
    return (const uint32_t *)(const void *)(graph->nodes + (size_t)row * graph->layout.node_size +
                                            graph->layout.neighbours_offset);
}

/* A search that does not expand one row: as if it were not in the graph. */
void vexi_graph_search_around(const vexi_graph *graph, const vexi_code_query *query, uint32_t ef,
                              uint32_t around, vexi_graph_scratch *scratch, vexi_topk *topk,
                              vexi_graph_result *result);

/* ---- Building -------------------------------------------------------------------------------- */

/* Candidates kept per row between the steps of a round: the selected ones, then the best of the
 * others. */
enum {
    VEXI_GRAPH_LIST = 64,
    VEXI_GRAPH_CANDIDATES_MAX = 512,
    VEXI_GRAPH_FAR_ENTRIES = 32, /* the first entries, spread over all rows */
    VEXI_GRAPH_DEGREE = 32,
    VEXI_GRAPH_DEGREE_MAX = 64
};

typedef struct vexi_graph_worker {
    atomic_flag busy;

    vexi_graph_scratch *scratch;
    float *values; /* what a step needs, aligned to 64 */
    vexi_graph_item *items;
    vexi_graph_item *left;
} vexi_graph_worker;

typedef struct vexi_graph_builder {
    const vexi_env *env;
    const vexi_rotation *rotation;
    const vexi_graph_options *options;
    vexi_graph *graph;
    uint8_t *nodes; /* of graph, writable */
    uint32_t degree;
    uint32_t row_count;
    uint32_t dimension;
    uint64_t seed;
    const float **vectors;    /* row -> its vector in its node */
    float *origin;            /* dimension values, not rotated, padded as a query */
    float *rotated;           /* row_count x padded: P(x - origin), for codes */
    float *extras;            /* inner product: the added coordinate of each row; NULL otherwise */
    float *squares;           /* inner product: |x|^2 of each row; NULL otherwise */
    vexi_graph_item *lists;   /* row_count x VEXI_GRAPH_LIST */
    uint8_t *list_counts;     /* used entries */
    uint8_t *selected_counts; /* of those, selected as edges */
    vexi_graph_worker *workers;
    uint32_t worker_count;
    atomic_int failed; /* a vex_status */
    double part_done;  /* progress of the steps before, 0 .. 1 */
} vexi_graph_builder;

/* A worker's memory for one slice; there is one for every thread. */
vexi_graph_worker *vexi_graph_worker_take(vexi_graph_builder *builder);
void vexi_graph_worker_give(vexi_graph_worker *worker);
/* Run step(builder, worker, first, count) over all rows in slices. VEX_CANCELLED, VEX_MEMORY. */
typedef vex_status (*vexi_graph_step)(vexi_graph_builder *builder, vexi_graph_worker *worker,
                                      uint32_t first, uint32_t count, void *argument);
vex_status vexi_graph_run(vexi_graph_builder *builder, uint32_t item_count, uint32_t slice,
                          vexi_graph_step step, void *argument, double part, vex_error *err);

/* Squared distance of two rows in the space that the graph is built in. */
float vexi_graph_between(const vexi_graph_builder *builder, uint32_t a, uint32_t b);

/* graph_seed.c: fill the lists with near rows found by clustering. */
vex_status vexi_graph_seed(vexi_graph_builder *builder, vex_error *err);

/* graph_prune.c: order the candidates by distance (ties at random) without `row` and repetitions,
 * and put those to the front that the neighbourhood rule selects (at most degree), in order, then
 * the others, the nearest first. Returns how many were selected; *count: how many there are. left:
 * room for as many items. */
uint32_t vexi_graph_prune(const vexi_graph_builder *builder, uint32_t row, vexi_graph_item *items,
                          uint32_t *count, vexi_graph_item *left);

/* Choose a row's neighbours for all slots: the first `edges` of the items are edges selected from
 * either end, which go before the others. Puts the chosen to the front and then those left. Returns
 * how many distinct items there are. */
uint32_t vexi_graph_fill(const vexi_graph_builder *builder, uint32_t row, vexi_graph_item *items,
                         uint32_t edges, uint32_t count, vexi_graph_item *left);

/* graph_connect.c: make every row reachable from the entries. */
vex_status vexi_graph_connect(vexi_graph_builder *builder, vex_error *err);
/* Write a row's codes from its neighbours. values: worker's. */
void vexi_graph_encode(const vexi_graph_builder *builder, uint32_t row, float *scratch);

/* graph_search.c: expanded rows and their distances while walking towards a row of the graph under
 * construction. Returns their number, at most `capacity`. */
uint32_t vexi_graph_find(const vexi_graph_builder *builder, const vexi_code_query *query,
                         uint32_t row, uint32_t ef, vexi_graph_scratch *scratch,
                         vexi_graph_item *out, uint32_t capacity);

#endif
