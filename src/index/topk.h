/* Top-k: the k candidates of smallest distance seen so far.
 *
 * Ties are broken by the smaller row, so that the result does not depend on the order of
 * insertion. */
#ifndef VEXI_INDEX_TOPK_H
#define VEXI_INDEX_TOPK_H

#include "base/arena.h"

typedef struct vexi_candidate {
    float distance;
    uint32_t source; /* which memtable or segment, the caller's numbering */
    uint64_t row; /* position in it                                                             */
} vexi_candidate;

typedef struct vexi_topk {
    vexi_candidate *items; /* max-heap of `count` */
    uint32_t count;
    uint32_t capacity; /* k */
    float threshold;   /* what a candidate must beat or tie; INFINITY until full */
} vexi_topk;

/* Memory from the arena. */
vex_status vexi_topk_init(vexi_topk *topk, uint32_t k, vexi_arena *arena, vex_error *err);
void vexi_topk_push(vexi_topk *topk, float distance, uint32_t source, uint64_t row);
/* Push `count` consecutive rows; allowed (by row position) may be NULL. Skips what cannot enter. */
void vexi_topk_push_rows(vexi_topk *topk, const float *distances, size_t count, uint32_t source,
                         uint64_t first_row, const uint64_t *allowed);
/* Order items ascending; the heap is then no longer a heap. */
void vexi_topk_sort(vexi_topk *topk);

#endif
