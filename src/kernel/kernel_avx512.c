/* AVX-512 kernels: 16 float32 lanes.
 *
 * Rows: four at a time share each load of the query; a row has two accumulators of 16 lanes (values
 * j mod 32 < 16 and >= 16), added at the end, then the halves of 256 bits, then as in the AVX2
 * variant. A lone row goes through the same order, so its result is the same. The longest chain of
 * additions is dimension / 32 + 5, hence an error of at most (dimension / 32 + 6) * 2^-23 times the
 * sum of the terms' absolute values. Tails are masked loads, which do not touch masked bytes.
 *
 * Matrix: see kernel_block.inc. Tile of 12 rows of a by 32 of b: 24 accumulators, 2 registers of b,
 * 1 broadcast of a.
 *
 * Tests compile this file through SIMDe too (VEX_SIMDE), so that it is tested on every machine. */
#include "kernel/kernel_internal.h"

#if defined(VEX_SIMDE)
#define VEX_AVX512 1
#include "kernel_simde.h"
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define VEX_AVX512 1
#include <immintrin.h>
#endif

#ifdef VEX_AVX512
#define LANES        16u
#define TILE_ROWS    12u
#define TILE_COLUMNS 32u
/* How far ahead of the reads rows are prefetched. 1, 2, 4 and 8 KiB measured alike. */
#define PREFETCH_BYTES 4096u

typedef enum operation { OPERATION_L2, OPERATION_DOT, OPERATION_NORM } operation;

ALWAYS_INLINE __m512 step(operation op, __m512 sum, __m512 q, __m512 x) {
    if (op == OPERATION_L2) {
        __m512 difference = _mm512_sub_ps(q, x);
        return _mm512_fmadd_ps(difference, difference, sum);
    }
    return _mm512_fmadd_ps(op == OPERATION_DOT ? q : x, x, sum);
}

/* Ones for the lanes below count (0..16). */
ALWAYS_INLINE __mmask16 tail_mask(size_t count) {
    return (__mmask16)((1u << count) - 1u);
}

/* Eight lanes from sixteen. */
ALWAYS_INLINE __m256 fold(__m512 sum) {
    return _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
}

/* The four sums. */
ALWAYS_INLINE __m128 reduce(__m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

/* `lanes` rows (1 or 4, known at compile time). ahead: four addresses to fetch meanwhile, each as
 * long as a row, or NULL. */
ALWAYS_INLINE __m128 rows_sum(operation op, size_t lanes, const float *query,
                              const uint8_t *const *row, const uint8_t *const *ahead,
                              uint32_t dimension) {
    __m512 low[4], high[4];
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        low[r] = _mm512_setzero_ps();
        high[r] = _mm512_setzero_ps();
    }
    __m512 q0 = _mm512_setzero_ps(), q1 = q0;
    size_t j = 0;
    for (; j + 2 * LANES <= dimension; j += 2 * LANES) {
        if (op != OPERATION_NORM) {
            q0 = _mm512_loadu_ps(query + j);
            q1 = _mm512_loadu_ps(query + j + LANES);
        }
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            const uint8_t *at = row[r] + j * sizeof(float);
            if (ahead != NULL) {
                const char *next = (const char *)ahead[r] + j * sizeof(float);
                _mm_prefetch(next, _MM_HINT_T0);
                _mm_prefetch(next + 64, _MM_HINT_T0);
            }
            low[r] = step(op, low[r], q0, _mm512_loadu_ps(at));
            high[r] = step(op, high[r], q1, _mm512_loadu_ps(at + LANES * sizeof(float)));
        }
    }
    if (j + LANES <= dimension) {
        if (op != OPERATION_NORM) {
            q0 = _mm512_loadu_ps(query + j);
        }
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            low[r] = step(op, low[r], q0, _mm512_loadu_ps(row[r] + j * sizeof(float)));
        }
        j += LANES;
    }
    if (j < dimension) {
        __mmask16 mask = tail_mask(dimension - j);
        if (op != OPERATION_NORM) {
            q1 = _mm512_maskz_loadu_ps(mask, query + j);
        }
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            __m512 x = _mm512_maskz_loadu_ps(mask, row[r] + j * sizeof(float));
            high[r] = step(op, high[r], q1, x);
        }
    }
    __m256 sum[4];
    UNROLL
    for (size_t r = 0; r < lanes; r++) {
        sum[r] = fold(_mm512_add_ps(low[r], high[r]));
    }
    return lanes == 1 ? reduce(sum[0], sum[0], sum[0], sum[0])
                      : reduce(sum[0], sum[1], sum[2], sum[3]);
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

static void avx512_l2(const float *query, const uint8_t *rows, size_t stride, size_t count,
                      uint32_t dimension, float *out) {
    scan(OPERATION_L2, query, rows, stride, count, dimension, out);
}

static void avx512_dot(const float *query, const uint8_t *rows, size_t stride, size_t count,
                       uint32_t dimension, float *out) {
    scan(OPERATION_DOT, query, rows, stride, count, dimension, out);
}

static void avx512_l2_rows(const float *query, const uint8_t *const *rows, size_t count,
                           uint32_t dimension, float *out) {
    gather(OPERATION_L2, query, rows, count, dimension, out);
}

static void avx512_dot_rows(const float *query, const uint8_t *const *rows, size_t count,
                            uint32_t dimension, float *out) {
    gather(OPERATION_DOT, query, rows, count, dimension, out);
}

static void avx512_norm(const uint8_t *rows, size_t stride, size_t count, uint32_t dimension,
                        float *out) {
    scan(OPERATION_NORM, NULL, rows, stride, count, dimension, out);
}

/* out (rows x columns) = or += the product of `rows` rows of a and a packed panel. */
ALWAYS_INLINE void tile(size_t rows, const float *a, size_t a_stride, const float *panel,
                        size_t depth, float *out, size_t out_stride, size_t columns, bool add) {
    __m512 sum[TILE_ROWS][2];
    UNROLL
    for (size_t r = 0; r < rows; r++) {
        sum[r][0] = _mm512_setzero_ps();
        sum[r][1] = _mm512_setzero_ps();
    }
    for (size_t k = 0; k < depth; k++) {
        __m512 b0 = _mm512_load_ps(panel + k * TILE_COLUMNS);
        __m512 b1 = _mm512_load_ps(panel + k * TILE_COLUMNS + LANES);
        UNROLL
        for (size_t r = 0; r < rows; r++) {
            __m512 value = _mm512_set1_ps(a[r * a_stride + k]);
            sum[r][0] = _mm512_fmadd_ps(value, b0, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(value, b1, sum[r][1]);
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
            size_t left = columns - half * LANES;
            __mmask16 mask = tail_mask(left < LANES ? left : LANES);
            __m512 value = sum[r][half];
            if (add) {
                value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, target + half * LANES));
            }
            _mm512_mask_storeu_ps(target + half * LANES, mask, value);
        }
    }
}

static void tile_12(const float *a, size_t a_stride, const float *panel, size_t depth, float *out,
                    size_t out_stride, size_t columns, bool add) {
    tile(12, a, a_stride, panel, depth, out, out_stride, columns, add);
}

static void tile_1(const float *a, size_t a_stride, const float *panel, size_t depth, float *out,
                   size_t out_stride, size_t columns, bool add) {
    tile(1, a, a_stride, panel, depth, out, out_stride, columns, add);
}

#define LARGE_TILE tile_12
#define SMALL_TILE tile_1
#include "kernel/kernel_block.inc"

static void avx512_dot_matrix(const float *a, size_t a_count, const float *b, size_t b_count,
                              uint32_t dimension, float *out, size_t out_stride) {
    if (a_count < 4) {
        for (size_t i = 0; i < a_count; i++) {
            avx512_dot(a + i * dimension, (const uint8_t *)b, dimension * sizeof(float), b_count,
                       dimension, out + i * out_stride);
        }
        return;
    }
    block_matrix(a, a_count, b, b_count, dimension, out, out_stride);
}

static void avx512_least(const float *bias, const float *products, size_t count, float *best,
                         uint32_t *index) {
    __m512 least = _mm512_set1_ps(*best);
    __m512i at = _mm512_setzero_si512();
    __m512i here = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (size_t j = 0; j < count; j += LANES) {
        __mmask16 mask = tail_mask(count - j < LANES ? count - j : LANES);
        __m512 score = _mm512_sub_ps(_mm512_maskz_loadu_ps(mask, bias + j),
                                     _mm512_maskz_loadu_ps(mask, products + j));
        __mmask16 less = _mm512_mask_cmp_ps_mask(mask, score, least, _CMP_LT_OQ);
        least = _mm512_mask_mov_ps(least, less, score);
        at = _mm512_mask_mov_epi32(at, less, here);
        here = _mm512_add_epi32(here, _mm512_set1_epi32((int)LANES));
    }
    float scores[LANES];
    uint32_t indexes[LANES];
    _mm512_storeu_ps(scores, least);
    _mm512_storeu_si512(indexes, at);
    vexi_least_of_lanes(scores, indexes, LANES, best, index);
}

static size_t avx512_up_to(const float *values, size_t count, float most, uint64_t *bits) {
    __m512 limit = _mm512_set1_ps(most);
    size_t found = 0;
    for (size_t first = 0; first < count; first += 64) {
        uint64_t word = 0;
        for (size_t i = 0; i < 64 && first + i < count; i += LANES) {
            size_t left = count - first - i;
            __mmask16 mask = tail_mask(left < LANES ? left : LANES);
            __m512 value = _mm512_maskz_loadu_ps(mask, values + first + i);
            word |= (uint64_t)_mm512_mask_cmp_ps_mask(mask, value, limit, _CMP_LE_OQ) << i;
        }
        found += (size_t)__builtin_popcountll(word);
        if (bits != NULL) {
            bits[first / 64] = word;
        }
    }
    return found;
}

const vexi_kernels vexi_kernels_avx512 = {
    .name = "avx512",
    .sum_count = 32,
    .l2 = avx512_l2,
    .dot = avx512_dot,
    .norm = avx512_norm,
    .l2_rows = avx512_l2_rows,
    .dot_rows = avx512_dot_rows,
    .dot_matrix = avx512_dot_matrix,
    .least = avx512_least,
    .up_to = avx512_up_to,
    .hadamard = vexi_avx512_hadamard,
    .scan_codes = vexi_avx512_scan_codes,
    .estimate_codes = vexi_avx512_estimate_codes,
    .refine_codes = vexi_avx512_refine_codes,
};

/* The same but for the kernels over codes. */
const vexi_kernels vexi_kernels_avx512vnni = {
    .name = "avx512vnni",
    .sum_count = 32,
    .l2 = avx512_l2,
    .dot = avx512_dot,
    .norm = avx512_norm,
    .l2_rows = avx512_l2_rows,
    .dot_rows = avx512_dot_rows,
    .dot_matrix = avx512_dot_matrix,
    .least = avx512_least,
    .up_to = avx512_up_to,
    .hadamard = vexi_avx512_hadamard,
    .scan_codes = vexi_avx512vnni_scan_codes,
    .estimate_codes = vexi_avx512vnni_estimate_codes,
    .refine_codes = vexi_avx512vnni_refine_codes,
};

#endif
