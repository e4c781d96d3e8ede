/* Ranking: the lists nearest to a query, by the codes of their centroids.
 *
 * The one-bit estimates of all centroids cost an eighth of their distances. Half as many again as
 * are wanted, those with the best estimates, are compared exactly; the wanted-th of these is a
 * distance that the answer does not exceed, so of the others only centroids are compared whose
 * estimate, less a quarter of a deviation, is below it, too. Where many lists are about equally
 * far, as in a million clustered rows of low intrinsic dimension (192 of 5,656 lists), a margin of
 * 1 / 0.5 / 0.25 / 0 deviations compares 886 / 626 / 520 / 430 of them for a recall of 0.9508 /
 * 0.9483 / 0.9473 / 0.9453. (A limit by the worst of the first ones, as it was before, compared
 * 2,511 for 0.9519, and took twice the time of scanning the lists.)
 *
 * Few lists, or a large part of them, are compared exactly at once. Microseconds for the 32 and 200
 * nearest of so many lists, 128 dimensions, AVX-512, caches cold:
 *
 *     lists      1,024    4,096    16,384     65,536
 *     codes      4  10    8   16   51    64   245  290
 *
 * Beyond 16,384 lists, or four million rows, a graph over the centroids would be faster (a walk
 * costs 20 to 40). At 10 million ranking is a quarter of a search at recall 0.95. Tried without
 * gain: the least estimate of each block of 32 before the others, bounds from a sample of them.
 *
 * Order is that of the metric: the squared distance, or under inner product the dot product. Equal
 * keys go by number, so that the order does not depend on the path. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "index/code_internal.h"
#include "index/ivf.h"

#define EXACT_LISTS 512u
#define EXACT_SHARE 10u
#define BLOCK       VEXI_CODE_BLOCK_ROWS
#define FIRST_SHARE 2u /* of the wanted so many more are compared at once */
#define FIRST_EXTRA 16u
#define BATCH       64u /* lists compared at a time */

enum { GROUP = 1024 };

#define EPSILON 0.25f /* deviations of estimates */

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
    ranker->keys = vexi_arena_alloc_aligned(arena, 64, padded * sizeof(float));
    return ranker->estimates == NULL || ranker->keys == NULL
               ? vexi_no_memory(err, 2 * padded * sizeof(float))
               : VEX_OK;
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
    const vexi_kernels *kernels = vexi_kernels_get();
    uint32_t count = 0;
    for (uint32_t first = 0; first < list_count; first += GROUP) {
        uint32_t part = list_count - first < GROUP ? list_count - first : GROUP;
        uint64_t bits[GROUP / 64];
        kernels->up_to(estimates + first, part, most, bits);
        for (uint32_t word = 0; word < (part + 63) / 64; word++) {
            for (uint64_t left = bits[word]; left != 0; left &= left - 1) {
                uint32_t i = first + word * 64 + (uint32_t)__builtin_ctzll(left);
                picks[count++] = i;
                estimates[i] = INFINITY;
            }
        }
    }
    return count;
}

/* Mean |scale| of lists: what turns errors of codes into errors of keys. */
static float scale_of(const vexi_ivf_ranker *ranker, const vexi_code_layout *layout,
                      const uint32_t *lists, uint32_t count) {
    float sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        float scale;
        const uint8_t *block = ranker->center_codes + lists[i] / BLOCK * layout->block_size;
        size_t slot = BLOCK + lists[i] % BLOCK;
        memcpy(&scale, block + (size_t)layout->padded * 4 + slot * sizeof scale, sizeof scale);
        sum += fabsf(scale);
    }
    return sum / (float)count;
}

/* A key that `wanted` of the compared lists do not exceed. */
static float wanted_key(const vexi_ivf_ranker *ranker, uint32_t wanted) {
    const vexi_code_pool *pool = &ranker->pool;
    for (uint32_t i = 0; i < pool->count; i++) {
        ranker->keys[i] = pool->items[i].estimate;
    }
    return vexi_code_most(ranker->keys, pool->count, wanted);
}

/* Compare the lists whose estimate calls for it. `picks` has room for all lists. */
static void compare_coded(vexi_ivf_ranker *ranker, const vexi_code_query *query, uint32_t wanted,
                          uint32_t *picks) {
    const vexi_kernels *kernels = vexi_kernels_get();
    const vexi_code_layout *layout = &query->layout;
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
    uint32_t first = FIRST_EXTRA + wanted + wanted / FIRST_SHARE;
    float most = vexi_code_most(estimates, list_count, first < list_count ? first : list_count);
    uint32_t count = pick_up_to(estimates, list_count, most, picks);
    compare(ranker, query, picks, count);
    float limit = wanted_key(ranker, wanted);
    /* The key as the codes estimate it, and the margin. */
    limit = layout->metric == VEX_METRIC_COSINE ? 0.5f * limit : limit;
    limit -= vexi_code_query_offset(query, query->origin_square);
    limit += EPSILON * ranker->center_error * sqrtf(query->origin_square) *
             scale_of(ranker, layout, picks, count);
    limit = limit <= FLT_MAX ? limit : FLT_MAX; /* those already compared are at infinity */
    count = pick_up_to(estimates, list_count, limit, picks);
    compare(ranker, query, picks, count);
}

/* Compare all lists, and keep those that may be wanted. */
static void compare_all(vexi_ivf_ranker *ranker, const vexi_code_query *query, uint32_t wanted,
                        uint32_t *picks) {
    const vexi_kernels *kernels = vexi_kernels_get();
    uint32_t list_count = ranker->list_count, dimension = query->layout.dimension, count = 0;
    const uint8_t *rows = (const uint8_t *)ranker->centroids;
    size_t stride = dimension * sizeof(float);
    float *keys = ranker->estimates;
    bool by_dot = query->layout.metric == VEX_METRIC_IP;
    if (by_dot) {
        kernels->dot(query->values, rows, stride, list_count, dimension, keys);
    } else {
        kernels->l2(query->values, rows, stride, list_count, dimension, keys);
    }
    for (uint32_t i = 0; i < list_count; i++) {
        float key = by_dot ? 0.0f - keys[i] : keys[i];
        keys[i] = key <= FLT_MAX ? key : FLT_MAX; /* what is not a number, too */
    }
    float most = wanted < list_count ? vexi_code_most(keys, list_count, wanted) : FLT_MAX;
    if (by_dot) {
        count = pick_up_to(keys, list_count, most, picks);
        compare(ranker, query, picks, count);
        return;
    }
    for (uint32_t i = 0; i < list_count; i++) {
        float key = keys[i];
        ranker->pool.items[count] =
            (vexi_code_candidate){.bound = key, .estimate = key, .row = i}; /* count <= i */
        count += key <= most ? 1 : 0;
    }
    ranker->pool.count = count;
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
    if (list_count <= EXACT_LISTS || wanted > list_count / EXACT_SHARE ||
        !isfinite(query->square)) {
        compare_all(ranker, query, wanted, lists);
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
