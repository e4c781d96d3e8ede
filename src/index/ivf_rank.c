/* Ranking: the lists nearest to a query, by the codes of their centroids.
 *
 * The one-bit estimates of all centroids cost an eighth of their distances. The `wanted` best
 * estimates are compared exactly; the worst of these is a distance that the answer does not exceed,
 * so of the others only centroids are compared whose estimate, less half a deviation, is below it,
 * too. On SIFT 200k, 32 and 64 of 1,024 lists, recall is 0.9602 and 0.9885 so, 0.9605 and 0.9885
 * with bounds of 1.9 deviations, for 135 and 210 centroids compared against 225 and 328. Few lists,
 * or most of them, are compared exactly at once.
 *
 * Order is that of the metric: the squared distance, or under inner product the dot product. Equal
 * keys go by number, so that the order does not depend on the path. */
#include <float.h>
#include <math.h>

#include "index/code_internal.h"
#include "index/ivf.h"

#define EXACT_LISTS 64u
#define BLOCK       VEXI_CODE_BLOCK_ROWS
#define BATCH       64u /* lists compared at a time */

enum { CHUNK_BLOCKS = 64, GROUP = 16 };

#define EPSILON 0.5f /* deviations of estimates */

vex_status vexi_ivf_ranker_init(vexi_ivf_ranker *ranker, uint32_t list_count,
                                const float *centroids, const uint8_t *center_codes,
                                float center_error, vexi_arena *arena, vex_error *err) {
    *ranker = (vexi_ivf_ranker){.list_count = list_count,
                                .centroids = centroids,
                                .center_codes = center_codes,
                                .center_error = center_error};
    VEX_TRY(vexi_code_pool_init(&ranker->pool, 0, INFINITY, arena, err));
    VEX_TRY(vexi_code_pool_reserve(&ranker->pool, list_count, arena, err));
    size_t padded = ((size_t)list_count + BLOCK) / BLOCK * BLOCK;
    ranker->estimates = vexi_arena_alloc_aligned(arena, 64, padded * sizeof(float));
    return ranker->estimates == NULL ? vexi_no_memory(err, padded * sizeof(float)) : VEX_OK;
}

/* Compare lists exactly. In the pool `estimate` is the key and `bound` the squared distance. */
static void compare(vexi_ivf_ranker *ranker, const vexi_code_query *query, const uint32_t *lists,
                    uint32_t count) {
    const vexi_kernels *kernels = vexi_kernels_get();
    uint32_t dimension = query->layout.dimension;
    vexi_code_candidate *items = ranker->pool.items + ranker->pool.count;
    ranker->pool.count += count;
    for (uint32_t first = 0; first < count; first += BATCH) {
        const uint8_t *rows[BATCH];
        float squares[BATCH], dots[BATCH];
        uint32_t batch = count - first < BATCH ? count - first : BATCH;
        for (uint32_t i = 0; i < batch; i++) {
            rows[i] = (const uint8_t *)(ranker->centroids + (size_t)lists[first + i] * dimension);
        }
        kernels->l2_rows(query->values, rows, batch, dimension, squares);
        if (query->layout.metric == VEX_METRIC_IP) {
            kernels->dot_rows(query->values, rows, batch, dimension, dots);
        }
        for (uint32_t i = 0; i < batch; i++) {
            float key = query->layout.metric == VEX_METRIC_IP ? 0.0f - dots[i] : squares[i];
            items[first + i] = (vexi_code_candidate){.bound = squares[i],
                                                     .estimate = isnan(key) ? INFINITY : key,
                                                     .row = lists[first + i]};
        }
    }
}

/* The lists whose estimate is at most `most`, which get an infinite estimate. Returns how many. */
static uint32_t pick_up_to(float *estimates, uint32_t list_count, float most, uint32_t *picks) {
    uint32_t count = 0;
    for (uint32_t first = 0; first < list_count; first += GROUP) {
        uint32_t end = list_count - first < GROUP ? list_count : first + GROUP, near = 0;
        for (uint32_t i = first; i < end; i++) {
            near += estimates[i] <= most ? 1 : 0;
        }
        for (uint32_t i = first; near > 0 && i < end; i++) {
            if (estimates[i] <= most) {
                picks[count++] = i;
                estimates[i] = INFINITY;
                near--;
            }
        }
    }
    return count;
}

/* Compare the lists whose estimate calls for it. `picks` has room for all lists. */
static void compare_coded(vexi_ivf_ranker *ranker, const vexi_code_query *query, uint32_t wanted,
                          uint32_t *picks) {
    const vexi_kernels *kernels = vexi_kernels_get();
    const vexi_code_layout *layout = &query->layout;
    vexi_code_pool *pool = &ranker->pool;
    float *estimates = ranker->estimates;
    uint32_t list_count = ranker->list_count, block_count = (list_count + BLOCK - 1) / BLOCK;
    kernels->estimate_codes(ranker->center_codes, block_count, layout->padded, query->table,
                            query->unit, query->base, estimates);
    uint32_t lost = 0;
    for (uint32_t i = 0; i < list_count; i++) {
        lost += isfinite(estimates[i]) ? 0 : 1;
    }
    if (lost > 0) { /* what the codes cannot judge comes first */
        for (uint32_t i = 0; i < list_count; i++) {
            estimates[i] = isfinite(estimates[i]) ? estimates[i] : -FLT_MAX;
        }
    }
    float most = vexi_code_most(estimates, list_count, wanted);
    compare(ranker, query, picks, pick_up_to(estimates, list_count, most, picks));
    float limit = -INFINITY;
    for (uint32_t i = 0; i < pool->count; i++) {
        limit = pool->items[i].estimate > limit ? pool->items[i].estimate : limit;
    }
    float slack = EPSILON * ranker->center_error * sqrtf(query->origin_square);
    /* The key as the codes estimate it. */
    limit = layout->metric == VEX_METRIC_COSINE ? 0.5f * limit : limit;
    limit -= vexi_code_query_offset(query, query->origin_square);
    uint32_t count = 0;
    for (uint32_t first = 0; first < block_count; first += CHUNK_BLOCKS) {
        uint32_t masks[CHUNK_BLOCKS];
        uint32_t blocks = block_count - first < CHUNK_BLOCKS ? block_count - first : CHUNK_BLOCKS;
        kernels->scan_codes(ranker->center_codes + first * layout->block_size, blocks,
                            layout->padded, query->table, query->unit, query->base + slack, limit,
                            masks);
        for (uint32_t b = 0; b < blocks; b++) {
            for (uint32_t mask = masks[b]; mask != 0; mask &= mask - 1) {
                uint32_t list = (first + b) * BLOCK + (uint32_t)__builtin_ctz(mask);
                if (list < list_count && estimates[list] < INFINITY) {
                    picks[count++] = list;
                }
            }
        }
    }
    compare(ranker, query, picks, count);
}

uint32_t vexi_ivf_rank_coded(vexi_ivf_ranker *ranker, const vexi_code_query *query, uint32_t wanted,
                             uint32_t *lists, float *squares) {
    uint32_t list_count = ranker->list_count;
    vexi_code_pool *pool = &ranker->pool;
    wanted = wanted < list_count ? wanted : list_count;
    pool->count = 0;
    if (wanted == 0) {
        return 0;
    }
    if (list_count <= EXACT_LISTS || wanted > list_count / 2 || !isfinite(query->square)) {
        for (uint32_t i = 0; i < list_count; i++) {
            lists[i] = i;
        }
        compare(ranker, query, lists, list_count);
    } else {
        compare_coded(ranker, query, wanted, lists);
    }
    vexi_code_sort(pool->items, pool->count, wanted);
    for (uint32_t i = 0; i < wanted; i++) {
        lists[i] = pool->items[i].row;
        squares[i] = pool->items[i].bound;
    }
    return wanted;
}
