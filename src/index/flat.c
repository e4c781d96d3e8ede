/* Exact scan: distances of a block of rows into a stack buffer, then the candidates that may enter.
 *
 * Blocks are at most BLOCK rows, so that the distances stay in the level-1 cache, and skip whole
 * 64-row words of the hidden map in which no row is left. A result does not depend on how rows are
 * cut into runs and blocks (see kernel_internal.h).
 *
 * float32 can fail where the true distance is representable: products of large values overflow to
 * infinities of both signs, those of tiny ones vanish. Such rows are compared again in double and
 * clamped: any row whose float32 result is not finite; under cosine, where only directions count,
 * also every row whose norm, and every query whose norm, is outside SCALE_MIN .. SCALE_MAX. Squared
 * L2 below 1e-38 and dot products there stay what float32 makes of them, and ties go by row. */
#include "index/flat.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/bytes.h"

#define BLOCK     256u
#define SCALE_MIN 1e-12f
#define SCALE_MAX 1e12f

vex_status vexi_query_init(vexi_query *query, vex_metric metric, const float *values,
                           uint32_t dimension, vexi_arena *arena, vex_error *err) {
    *query = (vexi_query){.dimension = dimension, .metric = metric};
    size_t padded = ((size_t)dimension + 15) / 16 * 16;
    float *copy = vexi_arena_alloc_aligned(arena, 64, padded * sizeof *copy);
    if (copy == NULL) {
        return vexi_no_memory(err, padded * sizeof *copy);
    }
    memset(copy, 0, padded * sizeof *copy);
    memcpy(copy, values, dimension * sizeof *copy);
    double square = 0;
    for (size_t j = 0; j < dimension; j++) {
        square += (double)copy[j] * copy[j];
    }
    if (square > 0) {
        double inverse = 1.0 / sqrt(square);
        query->inverse_norm = inverse > FLT_MAX ? FLT_MAX : (float)inverse;
    }
    query->values = copy;
    return VEX_OK;
}

static bool scale_is_safe(float inverse_norm) {
    return inverse_norm > SCALE_MIN && inverse_norm < SCALE_MAX;
}

static float exact_distance(const vexi_query *query, const uint8_t *row) {
    double distance = vexi_distance(query->metric, query->values, row, query->dimension);
    return distance > FLT_MAX ? FLT_MAX : distance < -FLT_MAX ? -FLT_MAX : (float)distance;
}

/* Distances of rows first .. first + count - 1 of the run, finite. */
static void block_distances(const vexi_kernels *kernels, const vexi_query *query,
                            const vexi_run *run, size_t first, size_t count, float *out) {
    const uint8_t *rows = run->vectors + first * run->stride;
    bool cosine = query->metric == VEX_METRIC_COSINE;
    if (cosine && !scale_is_safe(query->inverse_norm)) {
        for (size_t i = 0; i < count; i++) {
            out[i] = exact_distance(query, rows + i * run->stride);
        }
        return;
    }
    if (query->metric == VEX_METRIC_L2) {
        kernels->l2(query->values, rows, run->stride, count, query->dimension, out);
    } else {
        kernels->dot(query->values, rows, run->stride, count, query->dimension, out);
    }
    if (cosine) {
        for (size_t i = 0; i < count; i++) {
            uint32_t bits = vexi_get_u32(run->inverse_norms + (first + i) * sizeof bits);
            float inverse_norm;
            memcpy(&inverse_norm, &bits, sizeof inverse_norm);
            out[i] = scale_is_safe(inverse_norm)
                         ? 1.0f - out[i] * query->inverse_norm * inverse_norm
                         : NAN; /* compared again below */
        }
    } else if (query->metric == VEX_METRIC_IP) {
        for (size_t i = 0; i < count; i++) {
            out[i] = 0.0f - out[i];
        }
    }
    uint32_t suspect = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &out[i], sizeof bits);
        suspect |= (uint32_t)((bits & 0x7f800000u) == 0x7f800000u);
    }
    for (size_t i = 0; suspect != 0 && i < count; i++) {
        if (!isfinite(out[i])) {
            out[i] = exact_distance(query, rows + i * run->stride);
        }
    }
}

/* Bits of the word that holds row position `row` that are candidates and lie in first .. end - 1.
 */
static uint64_t allowed_word(const uint64_t *hidden, uint64_t row, uint64_t first, uint64_t end) {
    uint64_t base = row / 64 * 64;
    uint64_t word = ~hidden[row / 64];
    if (first > base) {
        word &= ~(uint64_t)0 << (first - base);
    }
    if (end - base < 64) {
        word &= ((uint64_t)1 << (end - base)) - 1;
    }
    return word;
}

size_t vexi_flat_scan(const vexi_query *query, const vexi_run *run, uint32_t source,
                      const uint64_t *hidden, vexi_topk *topk) {
    const vexi_kernels *kernels = vexi_kernels_get();
    float distances[BLOCK];
    if (hidden == NULL) {
        for (size_t i = 0; i < run->count; i += BLOCK) {
            size_t count = run->count - i < BLOCK ? run->count - i : BLOCK;
            block_distances(kernels, query, run, i, count, distances);
            vexi_topk_push_rows(topk, distances, count, source, run->first_row + i, NULL);
        }
        return run->count;
    }
    uint64_t allowed[BLOCK / 64];
    size_t compared = 0;
    uint64_t first = run->first_row, end = run->first_row + run->count;
    for (uint64_t row = first; row < end;) {
        /* A block is a run of words with candidates, cut to its first and last candidate. */
        uint64_t block = row / 64 * 64;
        size_t words = 0;
        for (; words < BLOCK / 64 && row < end; words++) {
            allowed[words] = allowed_word(hidden, row, first, end);
            row = row / 64 * 64 + 64;
            if (allowed[words] == 0) {
                break;
            }
            compared += (size_t)__builtin_popcountll(allowed[words]);
        }
        if (words == 0) {
            continue;
        }
        uint64_t low = block + (uint64_t)__builtin_ctzll(allowed[0]);
        uint64_t high = block + 64 * words - (uint64_t)__builtin_clzll(allowed[words - 1]);
        block_distances(kernels, query, run, (size_t)(low - first), (size_t)(high - low),
                        distances);
        for (uint64_t at = low; at < high; at++) {
            float distance = distances[at - low];
            if (distance <= topk->threshold && vexi_bitmap_get(allowed, (size_t)(at - block))) {
                vexi_topk_push(topk, distance, source, at);
            }
        }
    }
    return compared;
}
