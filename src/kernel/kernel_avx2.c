/* AVX2 + FMA kernels: 8 float32 lanes.
 *
 * Rows: four at a time share each load of the query; a row has two accumulators of 8 lanes (values
 * j mod 16 < 8 and >= 8), added at the end, then neighbours within 128 bits by two horizontal adds,
 * then the halves. A lone row goes through the same order, so its result is the same. The longest
 * chain of additions is dimension / 16 + 4, hence an error of at most
 * (dimension / 16 + 5) * 2^-23 times the sum of the terms' absolute values.
 *
 * Matrix: see kernel_block.inc. Tile of 6 rows of a by 16 of b: 12 accumulators, 2 registers of b,
 * 1 broadcast of a. */
#include "kernel/kernel_internal.h"

#if defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#define LANES        8u
#define TILE_ROWS    6u
#define TILE_COLUMNS 16u
/* How far ahead of the reads rows are prefetched. 1, 2, 4 and 8 KiB measured alike. */
#define PREFETCH_BYTES 4096u

typedef enum operation { OPERATION_L2, OPERATION_DOT, OPERATION_NORM } operation;

ALWAYS_INLINE __m256 step(operation op, __m256 sum, __m256 q, __m256 x) {
    if (op == OPERATION_L2) {
        __m256 difference = _mm256_sub_ps(q, x);
        return _mm256_fmadd_ps(difference, difference, sum);
    }
    return _mm256_fmadd_ps(op == OPERATION_DOT ? q : x, x, sum);
}

/* All ones in the lanes below count (0..8). */
ALWAYS_INLINE __m256i tail_mask(uint32_t count) {
    __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), lane);
}

/* The four sums. */
ALWAYS_INLINE __m128 reduce(__m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

ALWAYS_INLINE const float *value_at(const uint8_t *row, size_t j) {
    return (const float *)(const void *)(row + j * sizeof(float)); /* for unaligned loads only */
}

/* `lanes` rows (1 or 4, known at compile time). ahead: four addresses to fetch meanwhile, each as
 * long as a row, or NULL. */
ALWAYS_INLINE __m128 rows_sum(operation op, size_t lanes, const float *query,
                              const uint8_t *const *row, const uint8_t *const *ahead,
                              uint32_t dimension) {
    __m256 low[4], high[4];
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        low[r] = _mm256_setzero_ps();
        high[r] = _mm256_setzero_ps();
    }
    __m256 q0 = _mm256_setzero_ps(), q1 = q0;
    size_t j = 0;
    for (; j + 2 * LANES <= dimension; j += 2 * LANES) {
        if (op != OPERATION_NORM) {
            q0 = _mm256_loadu_ps(query + j);
            q1 = _mm256_loadu_ps(query + j + LANES);
        }
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            if (ahead != NULL) {
                _mm_prefetch((const char *)ahead[r] + j * sizeof(float), _MM_HINT_T0);
            }
            low[r] = step(op, low[r], q0, _mm256_loadu_ps(value_at(row[r], j)));
            high[r] = step(op, high[r], q1, _mm256_loadu_ps(value_at(row[r], j + LANES)));
        }
    }
    if (j + LANES <= dimension) {
        if (op != OPERATION_NORM) {
            q0 = _mm256_loadu_ps(query + j);
        }
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            low[r] = step(op, low[r], q0, _mm256_loadu_ps(value_at(row[r], j)));
        }
        j += LANES;
    }
    if (j < dimension) {
        __m256i mask = tail_mask((uint32_t)(dimension - j));
        if (op != OPERATION_NORM) {
            q1 = _mm256_maskload_ps(query + j, mask);
        }
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            high[r] = step(op, high[r], q1, _mm256_maskload_ps(value_at(row[r], j), mask));
        }
    }
    UNROLL
    for (size_t r = 0; r < lanes; r++) {
        low[r] = _mm256_add_ps(low[r], high[r]);
    }
    return lanes == 1 ? reduce(low[0], low[0], low[0], low[0])
                      : reduce(low[0], low[1], low[2], low[3]);
}

ALWAYS_INLINE void scan(operation op, const float *query, const uint8_t *rows, size_t stride,
                        size_t count, uint32_t dimension, float *out) {
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const uint8_t *row[4], *ahead[4];
        UNROLL
        for (size_t r = 0; r < 4; r++) {
            row[r] = rows + (i + r) * stride;
            /* Beyond the rows' end in the last runs: an address to fetch, never to read. */
            ahead[r] = (const uint8_t *)((uintptr_t)row[r] + PREFETCH_BYTES);
        }
        _mm_storeu_ps(out + i, rows_sum(op, 4, query, row, ahead, dimension));
    }
    for (; i < count; i++) {
        const uint8_t *row = rows + i * stride;
        __m128 sum = rows_sum(op, 1, query, &row, NULL, dimension);
        out[i] = _mm_cvtss_f32(sum);
    }
}

/* Rows anywhere: the next four are fetched with the same steps that read these four. */
ALWAYS_INLINE void gather(operation op, const float *query, const uint8_t *const *rows,
                          size_t count, uint32_t dimension, float *out) {
    size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        const uint8_t *ahead[4];
        UNROLL
        for (size_t r = 0; r < 4; r++) {
            ahead[r] = rows[i + 4 + r < count ? i + 4 + r : count - 1];
        }
        _mm_storeu_ps(out + i, rows_sum(op, 4, query, rows + i, ahead, dimension));
    }
    for (; i < count; i++) {
        __m128 sum = rows_sum(op, 1, query, rows + i, NULL, dimension);
        out[i] = _mm_cvtss_f32(sum);
    }
}

static void avx2_l2(const float *query, const uint8_t *rows, size_t stride, size_t count,
                    uint32_t dimension, float *out) {
    scan(OPERATION_L2, query, rows, stride, count, dimension, out);
}

static void avx2_dot(const float *query, const uint8_t *rows, size_t stride, size_t count,
                     uint32_t dimension, float *out) {
    scan(OPERATION_DOT, query, rows, stride, count, dimension, out);
}

static void avx2_l2_rows(const float *query, const uint8_t *const *rows, size_t count,
                         uint32_t dimension, float *out) {
    gather(OPERATION_L2, query, rows, count, dimension, out);
}

static void avx2_dot_rows(const float *query, const uint8_t *const *rows, size_t count,
                          uint32_t dimension, float *out) {
    gather(OPERATION_DOT, query, rows, count, dimension, out);
}

static void avx2_norm(const uint8_t *rows, size_t stride, size_t count, uint32_t dimension,
                      float *out) {
    scan(OPERATION_NORM, NULL, rows, stride, count, dimension, out);
}

/* out (rows x columns) = or += the product of `rows` rows of a and a packed panel. */
ALWAYS_INLINE void tile(size_t rows, const float *a, size_t a_stride, const float *panel,
                        size_t depth, float *out, size_t out_stride, size_t columns, bool add) {
    __m256 sum[TILE_ROWS][2];
    UNROLL
    for (size_t r = 0; r < rows; r++) {
        sum[r][0] = _mm256_setzero_ps();
        sum[r][1] = _mm256_setzero_ps();
    }
    for (size_t k = 0; k < depth; k++) {
        __m256 b0 = _mm256_load_ps(panel + k * TILE_COLUMNS);
        __m256 b1 = _mm256_load_ps(panel + k * TILE_COLUMNS + LANES);
        UNROLL
        for (size_t r = 0; r < rows; r++) {
            __m256 value = _mm256_broadcast_ss(a + r * a_stride + k);
            sum[r][0] = _mm256_fmadd_ps(value, b0, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(value, b1, sum[r][1]);
        }
    }
    UNROLL
    for (size_t r = 0; r < rows; r++) {
        float *target = out + r * out_stride;
        UNROLL
        for (size_t half = 0; half < 2; half++) {
            if (half * LANES >= columns) {
                break;
            }
            uint32_t left = (uint32_t)(columns - half * LANES);
            __m256i mask = tail_mask(left < LANES ? left : LANES);
            __m256 value = sum[r][half];
            if (add) {
                value = _mm256_add_ps(value, _mm256_maskload_ps(target + half * LANES, mask));
            }
            _mm256_maskstore_ps(target + half * LANES, mask, value);
        }
    }
}

static void tile_6(const float *a, size_t a_stride, const float *panel, size_t depth, float *out,
                   size_t out_stride, size_t columns, bool add) {
    tile(6, a, a_stride, panel, depth, out, out_stride, columns, add);
}

static void tile_1(const float *a, size_t a_stride, const float *panel, size_t depth, float *out,
                   size_t out_stride, size_t columns, bool add) {
    tile(1, a, a_stride, panel, depth, out, out_stride, columns, add);
}

#define LARGE_TILE tile_6
#define SMALL_TILE tile_1
#include "kernel/kernel_block.inc"

static void avx2_dot_matrix(const float *a, size_t a_count, const float *b, size_t b_count,
                            uint32_t dimension, float *out, size_t out_stride) {
    if (a_count < 4) {
        for (size_t i = 0; i < a_count; i++) {
            avx2_dot(a + i * dimension, (const uint8_t *)b, dimension * sizeof(float), b_count,
                     dimension, out + i * out_stride);
        }
        return;
    }
    block_matrix(a, a_count, b, b_count, dimension, out, out_stride);
}

static void avx2_least(const float *bias, const float *products, size_t count, float *best,
                       uint32_t *index) {
    __m256 least = _mm256_set1_ps(*best);
    __m256i at = _mm256_setzero_si256();
    __m256i here = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    size_t j = 0;
    for (; j + LANES <= count; j += LANES) {
        __m256 score = _mm256_sub_ps(_mm256_loadu_ps(bias + j), _mm256_loadu_ps(products + j));
        __m256 less = _mm256_cmp_ps(score, least, _CMP_LT_OQ);
        least = _mm256_blendv_ps(least, score, less);
        at = _mm256_blendv_epi8(at, here, _mm256_castps_si256(less));
        here = _mm256_add_epi32(here, _mm256_set1_epi32((int)LANES));
    }
    if (j < count) {
        __m256i mask = tail_mask((uint32_t)(count - j));
        __m256 score = _mm256_sub_ps(_mm256_maskload_ps(bias + j, mask),
                                     _mm256_maskload_ps(products + j, mask));
        __m256 less =
            _mm256_and_ps(_mm256_cmp_ps(score, least, _CMP_LT_OQ), _mm256_castsi256_ps(mask));
        least = _mm256_blendv_ps(least, score, less);
        at = _mm256_blendv_epi8(at, here, _mm256_castps_si256(less));
    }
    float scores[LANES];
    uint32_t indexes[LANES];
    _mm256_storeu_ps(scores, least);
    _mm256_storeu_si256((__m256i *)(void *)indexes, at);
    vexi_least_of_lanes(scores, indexes, LANES, best, index);
}

static size_t avx2_up_to(const float *values, size_t count, float most, uint64_t *bits) {
    __m256 limit = _mm256_set1_ps(most);
    size_t found = 0;
    for (size_t first = 0; first < count; first += 64) {
        uint64_t word = 0;
        size_t end = count - first < 64 ? count - first : 64, i = 0;
        for (; i + LANES <= end; i += LANES) {
            __m256 near = _mm256_cmp_ps(_mm256_loadu_ps(values + first + i), limit, _CMP_LE_OQ);
            word |= (uint64_t)(uint32_t)_mm256_movemask_ps(near) << i;
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

const vexi_kernels vexi_kernels_avx2 = {
    .name = "avx2",
    .sum_count = 16,
    .l2 = avx2_l2,
    .dot = avx2_dot,
    .norm = avx2_norm,
    .l2_rows = avx2_l2_rows,
    .dot_rows = avx2_dot_rows,
    .dot_matrix = avx2_dot_matrix,
    .least = avx2_least,
    .up_to = avx2_up_to,
    .hadamard = vexi_avx2_hadamard,
    .scan_codes = vexi_avx2_scan_codes,
    .estimate_codes = vexi_avx2_estimate_codes,
    .refine_codes = vexi_avx2_refine_codes,
};

#endif
