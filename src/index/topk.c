/* A bounded max-heap: items[0] is the worst of the best so far.
 *
 * Candidates are ordered by (distance, row, source), which is total, so the k kept are the same
 * whatever the order of arrival. A distance that is not a number counts as infinite: every row can
 * be returned when fewer than k are better. */
#include "index/topk.h"

#include <math.h>

#include "base/bitmap.h"

/* True if a comes before b. */
static inline bool before(const vexi_candidate *a, const vexi_candidate *b) {
    if (a->distance != b->distance) {
        return a->distance < b->distance;
    }
    return a->row != b->row ? a->row < b->row : a->source < b->source;
}

vex_status vexi_topk_init(vexi_topk *topk, uint32_t k, vexi_arena *arena, vex_error *err) {
    *topk = (vexi_topk){.threshold = k == 0 ? -INFINITY : INFINITY};
    topk->items = vexi_arena_array(arena, k, sizeof *topk->items);
    if (topk->items == NULL) {
        return vexi_no_memory(err, (size_t)k * sizeof *topk->items);
    }
    topk->capacity = k;
    return VEX_OK;
}

/* Put `item` where the hole at `at` is, moving it towards the root. */
static void sift_up(vexi_candidate *items, uint32_t at, vexi_candidate item) {
    while (at > 0) {
        uint32_t parent = (at - 1) / 2;
        if (!before(&items[parent], &item)) {
            break;
        }
        items[at] = items[parent];
        at = parent;
    }
    items[at] = item;
}

/* The same towards the leaves. */
static void sift_down(vexi_candidate *items, uint32_t count, uint32_t at, vexi_candidate item) {
    for (;;) {
        size_t child = 2 * (size_t)at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && before(&items[child], &items[child + 1])) {
            child++;
        }
        if (!before(&item, &items[child])) {
            break;
        }
        items[at] = items[child];
        at = (uint32_t)child;
    }
    items[at] = item;
}

void vexi_topk_push(vexi_topk *topk, float distance, uint32_t source, uint64_t row) {
    if (isnan(distance)) {
        distance = INFINITY;
    }
    vexi_candidate item = {.distance = distance, .source = source, .row = row};
    if (topk->count < topk->capacity) {
        sift_up(topk->items, topk->count++, item);
        if (topk->count == topk->capacity) {
            topk->threshold = topk->items[0].distance;
        }
    } else if (topk->capacity > 0 && before(&item, &topk->items[0])) {
        sift_down(topk->items, topk->count, 0, item);
        topk->threshold = topk->items[0].distance;
    }
}

void vexi_topk_push_rows(vexi_topk *topk, const float *distances, size_t count, uint32_t source,
                         uint64_t first_row, const uint64_t *allowed) {
    for (size_t i = 0; i < count; i++) {
        /* Negated so that NaN goes on to push. */
        if (!(distances[i] > topk->threshold) &&
            (allowed == NULL || vexi_bitmap_get(allowed, (size_t)(first_row + i)))) {
            vexi_topk_push(topk, distances[i], source, first_row + i);
        }
    }
}

void vexi_topk_sort(vexi_topk *topk) {
    for (uint32_t left = topk->count; left > 1; left--) {
        vexi_candidate last = topk->items[left - 1];
        topk->items[left - 1] = topk->items[0];
        sift_down(topk->items, left - 1, 0, last);
    }
}
