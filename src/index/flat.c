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
 * L2 below 1e-38 and dot products there stay what float32 makes of them, and ties go by row.
 *
 * How far a float32 distance may be from the distance in double is bounded as in Higham, Accuracy
 * and Stability of Numerical Algorithms (2nd ed., 2002), chapters 3 and 4. With the unit roundoff
 * u = 2^-24, a term that goes through m roundings keeps a factor of 1 + t with |t| <= gamma_m =
 * m u / (1 - m u). A kernel keeps several sums for a row, so m is not the dimension but its share
 * of one of them, ROUNDINGS more (vexi_kernels.sum_count). Of the three metrics squared L2 has
 * terms of one sign: its error is relative, gamma_m of the distance; inner product    is off by
 * gamma_m times the sum of |q_j x_j| <= |q| |x|; cosine           divides that by |q| |x|; the norm
 * of a row may itself be a float32 sum, the root of which halves its error: 1.5 gamma_m in all. To
 * each come what underflows, less than 2^-126 a term even where subnormals are flushed to zero; the
 * few roundings at the end, which ROUNDINGS covers; and the error of the double, 2^-53 times the
 * dimension, which is below the hundredth that all bounds are widened by. */
#include "index/flat.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/bytes.h"

#define BLOCK     256u
#define SCALE_MIN 1e-12f
#define SCALE_MAX 1e12f

/* Beside the additions of one of a kernel's sums: 8 that join sums (kernel.h), the difference
 * twice, the product, norms, the last subtraction. */
enum { ROUNDINGS = 20 };

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
            out[i] = vexi_flat_too_near(query, out[i]) ? NAN : out[i];
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

/* ---- Certainty ------------------------------------------------------------------------------- */

/* The least float that is not below. */
static float float_above(double value) {
    if (!(value <= FLT_MAX)) {
        return INFINITY; /* not a number either */
    }
    float rounded = value < -FLT_MAX ? -FLT_MAX : (float)value;
    return rounded < value ? nextafterf(rounded, INFINITY) : rounded;
}

float vexi_flat_limit(const vexi_query *query, double distance, double row_length_max) {
    const double widen = 1.01, unit = 0x1p-24;
    double roundings = ROUNDINGS + (double)query->dimension / vexi_kernels_get()->sum_count;
    double gamma = widen * roundings * unit / (1 - roundings * unit);
    double vanished = query->dimension * 0x1p-126;
    if (query->metric == VEX_METRIC_L2) {
        return float_above((distance + vanished) * (1 + gamma));
    }
    if (query->metric == VEX_METRIC_COSINE) {
        return float_above(distance + 1.5 * gamma); /* vectors of safe scale: little vanishes */
    }
    double square = 0;
    for (size_t j = 0; j < query->dimension; j++) {
        square += (double)query->values[j] * query->values[j];
    }
    return float_above(distance + gamma * sqrt(square) * row_length_max + vanished);
}

size_t vexi_flat_within(const vexi_query *query, const vexi_run *run, const uint64_t *hidden,
                        float limit, uint64_t *rows) {
    const vexi_kernels *kernels = vexi_kernels_get();
    float distances[BLOCK];
    size_t found = 0;
    for (size_t i = 0; i < run->count; i += BLOCK) {
        size_t count = run->count - i < BLOCK ? run->count - i : BLOCK;
        block_distances(kernels, query, run, i, count, distances);
        for (size_t j = 0; j < count; j++) {
            uint64_t row = run->first_row + i + j;
            if (!(distances[j] > limit) && (hidden == NULL || !vexi_bitmap_get(hidden, row))) {
                rows[found++] = row;
            }
        }
    }
    return found;
}

float vexi_flat_length_max(const vexi_run *run, uint32_t dimension) {
    const vexi_kernels *kernels = vexi_kernels_get();
    float squares[BLOCK], most = 0;
    for (size_t i = 0; i < run->count; i += BLOCK) {
        size_t count = run->count - i < BLOCK ? run->count - i : BLOCK;
        kernels->norm(run->vectors + i * run->stride, run->stride, count, dimension, squares);
        for (size_t j = 0; j < count; j++) {
            most = squares[j] > most ? squares[j] : most; /* infinite where a square overflows */
        }
    }
    /* gamma_m is far below a hundredth: m < 5,000. */
    return float_above(1.01 * sqrt((double)most + dimension * 0x1p-126));
}
