/* Short lists: what codes leave of one query, from all fetched segments together.
 *
 * Candidates of several segments are put side by side before a vector of any of them is fetched:
 * the k least upper bounds of all segments make one limit, which is lower than that of each, and
 * what it lets pass is fetched in one step. Codes of one bit tell no upper bounds; then the best
 * rows are fetched first, and their distances make the limit for the rest.
 *
 * The order is that of the estimates, so that a cut list holds the likeliest rows. */
#include "query/search_internal.h"

#include <math.h>
#include <stdlib.h>

vex_status vexi_short_init(vexi_short *list, uint32_t k, vexi_arena *arena, vex_error *err) {
    *list = (vexi_short){.arena = arena, .limit = INFINITY};
    return vexi_topk_init(&list->uppers, k, arena, err);
}

vex_status vexi_short_take(vexi_short *list, const vexi_code_pool *pool, uint32_t source,
                           float to_scan, vex_error *err) {
    size_t wanted = list->count + pool->count;
    if (wanted > list->capacity) {
        size_t capacity = wanted + wanted / 2 + 64;
        vexi_short_item *items = vexi_arena_array(list->arena, capacity, sizeof *items);
        if (items == NULL) {
            return vexi_no_memory(err, capacity * sizeof *items);
        }
        if (list->count > 0) {
            memcpy(items, list->items, list->count * sizeof *items);
        }
        list->items = items;
        list->capacity = capacity;
    }
    float scale = 1.0f / to_scan;
    for (uint32_t i = 0; i < pool->count; i++) {
        const vexi_code_candidate *from = &pool->items[i];
        if (!(from->bound > pool->limit)) {
            list->items[list->count++] = (vexi_short_item){.bound = from->bound * scale,
                                                           .estimate = from->estimate * scale,
                                                           .source = source,
                                                           .row = from->row};
        }
    }
    for (uint32_t i = 0; i < pool->best_count; i++) {
        vexi_topk_push(&list->uppers, pool->best[i] * scale, source, i);
    }
    if (list->uppers.count == list->uppers.capacity && list->uppers.count > 0) {
        list->limit = list->uppers.threshold;
    }
    return VEX_OK;
}

static int by_estimate(const void *left, const void *right) {
    const vexi_short_item *a = left, *b = right;
    if (a->estimate != b->estimate) {
        return a->estimate < b->estimate ? -1 : 1;
    }
    if (a->source != b->source) {
        return a->source < b->source ? -1 : 1;
    }
    return a->row < b->row ? -1 : a->row > b->row;
}

/* Keep of those that are not compared yet what may be as near as `limit`. */
static void drop_passed(vexi_short *list, float limit) {
    size_t kept = list->done;
    for (size_t i = list->done; i < list->count; i++) {
        list->items[kept] = list->items[i];
        kept += list->items[i].bound > limit ? 0 : 1;
    }
    list->count = kept;
}

void vexi_short_sort(vexi_short *list, float limit) {
    drop_passed(list, list->limit < limit ? list->limit : limit);
    if (list->count > 1) {
        qsort(list->items, list->count, sizeof *list->items, by_estimate);
    }
}

size_t vexi_short_next(vexi_short *list, float limit) {
    limit = list->limit < limit ? list->limit : limit;
    drop_passed(list, limit);
    size_t most = isinf(limit) ? VEXI_SHORT_ROWS_FIRST : VEXI_SHORT_ROWS_MAX;
    size_t left = list->count - list->done;
    return list->done + (left < most ? left : most);
}
