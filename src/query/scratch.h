/* Scratch: memory of one thread for one search, kept by the keeper for the next. */
#ifndef VEXI_QUERY_SCRATCH_H
#define VEXI_QUERY_SCRATCH_H

#include "base/arena.h"
#include "index/graph.h"
#include "query/keeper.h"

struct vexi_scratch {
    vexi_arena whole;          /* for the search as a whole */
    vexi_arena work;           /* for one source: reset before the next */
    vexi_graph_scratch *graph; /* NULL until a graph is walked */
};

/* One for the caller alone; given back by vexi_scratch_give (NULL is fine). */
vex_status vexi_scratch_take(vexi_keeper *keeper, vexi_scratch **out, vex_error *err);
void vexi_scratch_give(vexi_keeper *keeper, vexi_scratch *scratch);

#endif
