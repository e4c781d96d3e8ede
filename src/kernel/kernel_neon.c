/* NEON kernels (AArch64): 4 float32 lanes.
 *
 * Rows: four at a time share each load of the query; a row has two accumulators of 4 lanes (values
 * j mod 8 < 4 and >= 4), added at the end, then pairs by pairwise additions. The last
 * dimension mod 4 values are copied into a zeroed register first. A lone row goes through the same
 * order, so its result is the same. The longest chain of additions is dimension / 8 + 4, hence an
 * error of at most (dimension / 8 + 5) * 2^-23 times the sum of the terms' absolute values.
 *
 * Matrix: tiles of 4 x 4 rows with 16 accumulators over the dimension, 8 loads for 16 FMAs, no
 * packing; rows of b are taken 64 at a time so that they stay in the level-1 or level-2 cache. */
#include "kernel/kernel_internal.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#define LANES      4u
#define BLOCK_ROWS 64u
/* How far ahead of the reads rows are prefetched. */
#define PREFETCH_BYTES 1024u

typedef enum operation { OPERATION_L2, OPERATION_DOT, OPERATION_NORM } operation;

ALWAYS_INLINE float32x4_t step(operation op, float32x4_t sum, float32x4_t q, float32x4_t x) {
    if (op == OPERATION_L2) {
        float32x4_t difference = vsubq_f32(q, x);
        return vfmaq_f32(sum, difference, difference);
    }
    return vfmaq_f32(sum, op == OPERATION_DOT ? q : x, x);
}

/* Byte loads: rows are at any address. */
ALWAYS_INLINE float32x4_t load(const uint8_t *p) {
    return vreinterpretq_f32_u8(vld1q_u8(p));
}

/* The first count (1..3) values at p, then zeros. */
ALWAYS_INLINE float32x4_t load_tail(const uint8_t *p, size_t count) {
    float values[LANES] = {0};
    memcpy(values, p, count * sizeof(float));
    return vld1q_f32(values);
}

/* The four sums. */
ALWAYS_INLINE float32x4_t reduce(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d) {
    return vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d));
}

/* `lanes` rows (1 or 4, known at compile time). ahead: four addresses to fetch meanwhile, each as
 * long as a row, or NULL. */
ALWAYS_INLINE float32x4_t rows_sum(operation op, size_t lanes, const uint8_t *query,
                                   const uint8_t *const *row, const uint8_t *const *ahead,
                                   uint32_t dimension) {
    float32x4_t low[4], high[4];
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        low[r] = vdupq_n_f32(0);
        high[r] = vdupq_n_f32(0);
    }
    float32x4_t q0 = vdupq_n_f32(0), q1 = q0;
    size_t j = 0;
    for (; j + 2 * LANES <= dimension; j += 2 * LANES) {
        if (op != OPERATION_NORM) {
            q0 = load(query + j * sizeof(float));
            q1 = load(query + (j + LANES) * sizeof(float));
        }
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            if (ahead != NULL) {
                __builtin_prefetch(ahead[r] + j * sizeof(float));
            }
            low[r] = step(op, low[r], q0, load(row[r] + j * sizeof(float)));
            high[r] = step(op, high[r], q1, load(row[r] + (j + LANES) * sizeof(float)));
        }
    }
    if (j + LANES <= dimension) {
        if (op != OPERATION_NORM) {
            q0 = load(query + j * sizeof(float));
        }
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            low[r] = step(op, low[r], q0, load(row[r] + j * sizeof(float)));
        }
        j += LANES;
    }
    if (j < dimension) {
        if (op != OPERATION_NORM) {
            q1 = load_tail(query + j * sizeof(float), dimension - j);
        }
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            high[r] = step(op, high[r], q1, load_tail(row[r] + j * sizeof(float), dimension - j));
        }
    }
    UNROLL
    for (size_t r = 0; r < lanes; r++) {
        low[r] = vaddq_f32(low[r], high[r]);
    }
    return lanes == 1 ? reduce(low[0], low[0], low[0], low[0])
                      : reduce(low[0], low[1], low[2], low[3]);
}

ALWAYS_INLINE void scan(operation op, const float *query, const uint8_t *rows, size_t stride,
                        size_t count, uint32_t dimension, float *out) {
    const uint8_t *q = (const uint8_t *)query;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const uint8_t *row[4], *ahead[4];
        UNROLL
        for (size_t r = 0; r < 4; r++) {
            row[r] = rows + (i + r) * stride;
            /* Beyond the rows' end in the last runs: an address to fetch, never to read. */
            ahead[r] = (const uint8_t *)((uintptr_t)row[r] + PREFETCH_BYTES);
        }
        vst1q_f32(out + i, rows_sum(op, 4, q, row, ahead, dimension));
    }
    for (; i < count; i++) {
        const uint8_t *row = rows + i * stride;
        float32x4_t sum = rows_sum(op, 1, q, &row, NULL, dimension);
        out[i] = vgetq_lane_f32(sum, 0);
    }
}

/* Rows anywhere: the next four are fetched with the same steps that read these four. */
ALWAYS_INLINE void gather(operation op, const float *query, const uint8_t *const *rows,
                          size_t count, uint32_t dimension, float *out) {
    const uint8_t *q = (const uint8_t *)query;
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const uint8_t *ahead[4];
        UNROLL
        for (size_t r = 0; r < 4; r++) {
            ahead[r] = rows[i + 4 + r < count ? i + 4 + r : count - 1];
        }
        vst1q_f32(out + i, rows_sum(op, 4, q, rows + i, ahead, dimension));
    }
    for (; i < count; i++) {
        float32x4_t sum = rows_sum(op, 1, q, rows + i, NULL, dimension);
        out[i] = vgetq_lane_f32(sum, 0);
    }
}

static void neon_l2(const float *query, const uint8_t *rows, size_t stride, size_t count,
                    uint32_t dimension, float *out) {
    scan(OPERATION_L2, query, rows, stride, count, dimension, out);
}

static void neon_dot(const float *query, const uint8_t *rows, size_t stride, size_t count,
                     uint32_t dimension, float *out) {
    scan(OPERATION_DOT, query, rows, stride, count, dimension, out);
}

static void neon_l2_rows(const float *query, const uint8_t *const *rows, size_t count,
                         uint32_t dimension, float *out) {
    gather(OPERATION_L2, query, rows, count, dimension, out);
}

static void neon_dot_rows(const float *query, const uint8_t *const *rows, size_t count,
                          uint32_t dimension, float *out) {
    gather(OPERATION_DOT, query, rows, count, dimension, out);
}

static void neon_norm(const uint8_t *rows, size_t stride, size_t count, uint32_t dimension,
                      float *out) {
    scan(OPERATION_NORM, NULL, rows, stride, count, dimension, out);
}

/* out[r * out_stride + c] = a_r . b_c for 4 x 4 rows. */
static void tile_4x4(const float *a, const float *b, size_t dimension, float *out,
                     size_t out_stride) {
    float32x4_t sum[4][4];
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        UNROLL
        for (size_t c = 0; c < 4; c++) {
            sum[r][c] = vdupq_n_f32(0);
        }
    }
    size_t j = 0;
    for (; j + LANES <= dimension; j += LANES) {
        float32x4_t y[4];
        UNROLL
        for (size_t c = 0; c < 4; c++) {
            y[c] = vld1q_f32(b + c * dimension + j);
        }
        UNROLL
        for (size_t r = 0; r < 4; r++) {
            float32x4_t x = vld1q_f32(a + r * dimension + j);
            UNROLL
            for (size_t c = 0; c < 4; c++) {
                sum[r][c] = vfmaq_f32(sum[r][c], x, y[c]);
            }
        }
    }
    if (j < dimension) {
        UNROLL
        for (size_t r = 0; r < 4; r++) {
            float32x4_t x = load_tail((const uint8_t *)(a + r * dimension + j), dimension - j);
            UNROLL
            for (size_t c = 0; c < 4; c++) {
                const uint8_t *y = (const uint8_t *)(b + c * dimension + j);
                sum[r][c] = vfmaq_f32(sum[r][c], x, load_tail(y, dimension - j));
            }
        }
    }
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        vst1q_f32(out + r * out_stride, reduce(sum[r][0], sum[r][1], sum[r][2], sum[r][3]));
    }
}

static void neon_dot_matrix(const float *a, size_t a_count, const float *b, size_t b_count,
                            uint32_t dimension, float *out, size_t out_stride) {
    for (size_t first = 0; first < b_count; first += BLOCK_ROWS) {
        size_t columns = b_count - first < BLOCK_ROWS ? b_count - first : BLOCK_ROWS;
        const float *block = b + first * dimension;
        size_t whole = columns - columns % 4, i = 0;
        for (; i + 4 <= a_count; i += 4) {
            for (size_t c = 0; c < whole; c += 4) {
                tile_4x4(a + i * dimension, block + c * dimension, dimension,
                         out + i * out_stride + first + c, out_stride);
            }
        }
        size_t tiled = i;
        for (i = 0; i < a_count; i++) {
            size_t c = i < tiled ? whole : 0;
            neon_dot(a + i * dimension, (const uint8_t *)(block + c * dimension),
                     dimension * sizeof(float), columns - c, dimension,
                     out + i * out_stride + first + c);
        }
    }
}

static void neon_least(const float *bias, const float *products, size_t count, float *best,
                       uint32_t *index) {
    static const uint32_t numbers[LANES] = {0, 1, 2, 3};
    float32x4_t least = vdupq_n_f32(*best);
    uint32x4_t at = vdupq_n_u32(0), here = vld1q_u32(numbers);
    size_t j = 0;
    for (; j + LANES <= count; j += LANES) {
        float32x4_t score = vsubq_f32(vld1q_f32(bias + j), vld1q_f32(products + j));
        uint32x4_t less = vcltq_f32(score, least);
        least = vbslq_f32(less, score, least);
        at = vbslq_u32(less, here, at);
        here = vaddq_u32(here, vdupq_n_u32(LANES));
    }
    float scores[LANES];
    uint32_t indexes[LANES];
    vst1q_f32(scores, least);
    vst1q_u32(indexes, at);
    for (size_t l = 0; j + l < count; l++) {
        float score = bias[j + l] - products[j + l];
        if (score < scores[l]) {
            scores[l] = score;
            indexes[l] = (uint32_t)(j + l);
        }
    }
    vexi_least_of_lanes(scores, indexes, LANES, best, index);
}

static size_t neon_up_to(const float *values, size_t count, float most, uint64_t *bits) {
    static const uint32_t places[LANES] = {1, 2, 4, 8};
    float32x4_t limit = vdupq_n_f32(most);
    uint32x4_t place = vld1q_u32(places);
    size_t found = 0;
    for (size_t first = 0; first < count; first += 64) {
        uint64_t word = 0;
        size_t end = count - first < 64 ? count - first : 64, i = 0;
        for (; i + LANES <= end; i += LANES) {
            uint32x4_t near = vcleq_f32(vld1q_f32(values + first + i), limit);
            word |= (uint64_t)vaddvq_u32(vandq_u32(near, place)) << i;
        }
        for (; i < end; i++) {
            word |= (uint64_t)(values[first + i] <= most) << i;
        }
        found += (size_t)__builtin_popcountll(word);
        if (bits != NULL) {
            bits[first / 64] = word;
        }
    }
    return found;
}

const vexi_kernels vexi_kernels_neon = {
    .name = "neon",
    .sum_count = 8,
    .l2 = neon_l2,
    .dot = neon_dot,
    .norm = neon_norm,
    .l2_rows = neon_l2_rows,
    .dot_rows = neon_dot_rows,
    .dot_matrix = neon_dot_matrix,
    .least = neon_least,
    .up_to = neon_up_to,
    .hadamard = vexi_neon_hadamard,
    .scan_codes = vexi_neon_scan_codes,
    .estimate_codes = vexi_neon_estimate_codes,
    .refine_codes = vexi_neon_refine_codes,
};

#endif
