/* Ranking: the lists nearest to a query, by the codes of their centroids.
 *
 * The one-bit estimates of all centroids cost an eighth of their distances. The `wanted` best
 * estimates are compared exactly; the worst of these is a distance that the answer does not exceed,
 * so of the others only centroids whose lower bound is below it are compared. Few lists, or most of
 * them, are compared exactly at once.
 *
 * Order is that of the metric: the squared distance, or under inner product the dot product. Equal
 * keys go by number, so that the order does not depend on the path. */
#include <math.h>
#include <string.h>

#include "index/code_internal.h"
#include "index/ivf.h"

#define EXACT_LISTS 64u
#define BLOCK       VEXI_CODE_BLOCK_ROWS
#define GROUP       16u /* lists whose least estimate is looked at first */
#define BATCH       64u /* lists compared at a time */

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

static float least_of(const float *values) {
    float least[4];
    for (uint32_t l = 0; l < 4; l++) {
        float a = values[l] < values[l + 4] ? values[l] : values[l + 4];
        float b = values[l + 8] < values[l + 12] ? values[l + 8] : values[l + 12];
        least[l] = a < b ? a : b;
    }
    float a = least[0] < least[1] ? least[0] : least[1];
    float b = least[2] < least[3] ? least[2] : least[3];
    return a < b ? a : b;
}

/* The wanted-th least of the estimates, padded with infinities to a multiple of GROUP. The least of
 * a group stands for it at first: at least `wanted` lists are not above the wanted-th least of
 * these, so that only the few below it need be ordered. */
static float estimate_of(vexi_ivf_ranker *ranker, uint32_t padded, uint32_t wanted) {
    vexi_code_candidate *items = ranker->pool.items;
    const float *estimates = ranker->estimates;
    uint32_t count = 0;
    float most = INFINITY;
    if (wanted <= ranker->list_count / GROUP) {
        for (uint32_t i = 0; i < ranker->list_count; i += GROUP) {
            items[count++] = (vexi_code_candidate){.estimate = least_of(estimates + i), .row = i};
        }
        vexi_code_sort(items, count, wanted);
        most = items[wanted - 1].estimate;
    }
    count = 0;
    for (uint32_t i = 0; i < padded; i += GROUP) {
        if (least_of(estimates + i) > most) {
            continue;
        }
        for (uint32_t j = i; j < i + GROUP && j < ranker->list_count; j++) {
            if (estimates[j] <= most) {
                items[count++] = (vexi_code_candidate){.estimate = estimates[j], .row = j};
            }
        }
    }
    vexi_code_sort(items, count, wanted);
    return items[wanted - 1].estimate;
}

/* Compare the lists whose estimate or bound calls for it. `picks` has room for all lists. */
static void compare_coded(vexi_ivf_ranker *ranker, const vexi_code_query *query, uint32_t wanted,
                          float slack, uint32_t *picks) {
    const vexi_code_layout *layout = &query->layout;
    vexi_code_pool *pool = &ranker->pool;
    float *estimates = ranker->estimates;
    uint32_t padded = (ranker->list_count + BLOCK - 1) / BLOCK * BLOCK, count = 0;
    vexi_kernels_get()->estimate_codes(ranker->center_codes, padded / BLOCK, layout->padded,
                                       query->table, query->unit, query->base, estimates);
    for (uint32_t i = 0; i < ranker->list_count; i++) {
        /* What the codes cannot judge comes first. */
        estimates[i] = isfinite(estimates[i]) ? estimates[i] : -INFINITY;
    }
    for (uint32_t i = ranker->list_count; i < padded; i++) {
        estimates[i] = INFINITY;
    }
    float most = estimate_of(ranker, padded, wanted);
    for (uint32_t i = 0; i < ranker->list_count; i++) {
        if (estimates[i] <= most) {
            picks[count++] = i;
            estimates[i] = INFINITY;
        }
    }
    pool->count = 0;
    compare(ranker, query, picks, count);
    float limit = -INFINITY;
    for (uint32_t i = 0; i < count; i++) {
        limit = pool->items[i].estimate > limit ? pool->items[i].estimate : limit;
    }
    /* Keys as the codes estimate them. */
    limit = layout->metric == VEX_METRIC_COSINE ? 0.5f * limit : limit;
    limit -= vexi_code_query_offset(query, query->origin_square);
    count = 0;
    for (uint32_t first = 0; first < padded; first += BLOCK) {
        const uint8_t *scales = ranker->center_codes + first / BLOCK * layout->block_size +
                                (size_t)layout->padded * 4 + BLOCK * sizeof(float);
        for (uint32_t i = 0; i < BLOCK; i++) {
            float scale;
            memcpy(&scale, scales + i * sizeof scale, sizeof scale);
            if (estimates[first + i] + scale * slack < limit) {
                picks[count++] = first + i;
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
    float slack = vexi_code_query_slack(query, ranker->center_error, query->origin_square, false);
    if (list_count <= EXACT_LISTS || wanted > list_count / 2 || !isfinite(slack)) {
        for (uint32_t i = 0; i < list_count; i++) {
            lists[i] = i;
        }
        compare(ranker, query, lists, list_count);
    } else {
        compare_coded(ranker, query, wanted, slack, lists);
    }
    vexi_code_sort(pool->items, pool->count, wanted);
    for (uint32_t i = 0; i < wanted; i++) {
        lists[i] = pool->items[i].row;
        squares[i] = pool->items[i].bound;
    }
    return wanted;
}
