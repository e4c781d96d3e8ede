/* AVX2 + FMA kernels over quantised codes, and the Walsh-Hadamard transform.
 *
 * Code blocks are scanned as in FastScan (André, Kermarrec, Le Scouarnec: Quicker ADC, TPAMI 2021):
 * the 16 table entries of a group lie in one 128-bit lane, and one byte shuffle looks up 16 rows. A
 * register takes two groups. The looked-up bytes are added up in 16 bits without unpacking: `whole`
 * adds the registers as they are, as words of an even row plus 256 times an odd one, `odd` adds
 * them shifted right by 8; in the end even = whole - 256 x odd modulo 2^16. Words do not overflow
 * within 1,024 dimensions (256 groups x 255, both lanes together), after which they are added to
 * sums of 32 bits. All integer sums are exact. The float arithmetic uses FMA: see
 * kernel_codes_scalar.c for the bound.
 *
 * Records of 4 bits: nibbles (0..15) times levels of 8 bits (-128..127), neighbours added to 16
 * bits, at most 3,840 in magnitude; both nibbles of two runs are at most 15,360 and are added in 16
 * bits before they are widened to 32. Of 8 bits: codes widened to 16 bits, multiplied and
 * neighbours added in 32. Four records share the loads of levels and the additions across lanes. */
#include <string.h>

#include "kernel/kernel_internal.h"

#if defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#define FLUSH_DIMENSIONS 1024u
/* How far ahead of the reads code blocks are fetched. */
#define PREFETCH_BYTES 2048u

ALWAYS_INLINE __m256i load_bytes(const void *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}

/* 16-bit sums of a part of a block: rows 0..15 (low nibbles) and 16..31 (high ones). */
typedef struct word_sums {
    __m256i whole[2], odd[2];
} word_sums;

/* Add up here: gcc regroups sums into trees, whose many terms it then spills to the stack. */
#define KEEP(sum) __asm__("" : "+x"(sum))

/* 64 dimensions: 256 bytes of codes and of the table. */
ALWAYS_INLINE void add_64_dimensions(word_sums *sums, const uint8_t *codes, const uint8_t *table) {
    const __m256i nibble = _mm256_set1_epi8(15);
    UNROLL
    for (size_t k = 0; k < 8; k++) {
        __m256i pairs = load_bytes(codes + 32 * k);
        __m256i entries = load_bytes(table + 32 * k);
        __m256i low = _mm256_shuffle_epi8(entries, _mm256_and_si256(pairs, nibble));
        __m256i high =
            _mm256_shuffle_epi8(entries, _mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibble));
        sums->whole[0] = _mm256_add_epi16(sums->whole[0], low);
        sums->whole[1] = _mm256_add_epi16(sums->whole[1], high);
        sums->odd[0] = _mm256_add_epi16(sums->odd[0], _mm256_srli_epi16(low, 8));
        sums->odd[1] = _mm256_add_epi16(sums->odd[1], _mm256_srli_epi16(high, 8));
        KEEP(sums->whole[0]);
        KEEP(sums->whole[1]);
        KEEP(sums->odd[0]);
        KEEP(sums->odd[1]);
    }
}

/* The lanes of a added up below those of b. */
ALWAYS_INLINE __m256i add_lanes(__m256i a, __m256i b) {
    return _mm256_add_epi16(_mm256_permute2x128_si256(a, b, 0x21), _mm256_blend_epi32(a, b, 0xf0));
}

/* The sums of a block's 32 rows in order. */
ALWAYS_INLINE void block_sums(const uint8_t *block, size_t padded, const uint8_t *table, bool fetch,
                              __m256i sums[4]) {
    for (size_t first = 0; first < padded; first += FLUSH_DIMENSIONS) {
        size_t end = padded - first < FLUSH_DIMENSIONS ? padded : first + FLUSH_DIMENSIONS;
        __m256i zero = _mm256_setzero_si256();
        word_sums words = {{zero, zero}, {zero, zero}};
        for (size_t d = first; d < end; d += 64) {
            UNROLL
            for (size_t line = 0; line < 4 && fetch; line++) {
                _mm_prefetch((const char *)block + 4 * d + 64 * line + PREFETCH_BYTES, _MM_HINT_T0);
            }
            add_64_dimensions(&words, block + 4 * d, table + 4 * d);
        }
        __m256i odd = add_lanes(words.odd[0], words.odd[1]);
        __m256i even =
            _mm256_sub_epi16(add_lanes(words.whole[0], words.whole[1]), _mm256_slli_epi16(odd, 8));
        /* Rows 0..7 and 16..23, rows 8..15 and 24..31. */
        __m256i a = _mm256_unpacklo_epi16(even, odd), b = _mm256_unpackhi_epi16(even, odd);
        __m256i part[4] = {_mm256_cvtepu16_epi32(_mm256_castsi256_si128(a)),
                           _mm256_cvtepu16_epi32(_mm256_castsi256_si128(b)),
                           _mm256_cvtepu16_epi32(_mm256_extracti128_si256(a, 1)),
                           _mm256_cvtepu16_epi32(_mm256_extracti128_si256(b, 1))};
        UNROLL
        for (size_t k = 0; k < 4; k++) {
            sums[k] = first == 0 ? part[k] : _mm256_add_epi32(sums[k], part[k]);
        }
    }
}

/* add + scale x (unit x sum + base) for the k-th 8 rows of a block. */
ALWAYS_INLINE __m256 bounds_of(const uint8_t *block, size_t padded, size_t k, __m256i sum,
                               __m256 unit, __m256 base) {
    const float *add = (const float *)(const void *)(block + 4 * padded) + 8 * k;
    __m256 estimate = _mm256_fmadd_ps(unit, _mm256_cvtepi32_ps(sum), base);
    return _mm256_fmadd_ps(_mm256_load_ps(add + VEXI_CODE_BLOCK_ROWS), estimate,
                           _mm256_load_ps(add));
}

ALWAYS_INLINE void scan(const uint8_t *blocks, size_t block_count, size_t padded,
                        const uint8_t *table, float unit, float base, float limit,
                        uint32_t *masks) {
    __m256 units = _mm256_set1_ps(unit), bases = _mm256_set1_ps(base);
    __m256 limits = _mm256_set1_ps(limit);
    for (size_t b = 0; b < block_count; b++) {
        const uint8_t *block = blocks + b * vexi_code_block_size((uint32_t)padded);
        __m256i sums[4];
        uint32_t mask = 0;
        block_sums(block, padded, table, true, sums);
        UNROLL
        for (size_t k = 0; k < 4; k++) {
            __m256 bounds = bounds_of(block, padded, k, sums[k], units, bases);
            mask |= (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(bounds, limits, _CMP_LT_OQ))
                    << (8 * k);
        }
        masks[b] = mask;
    }
}

/* A loop of its own for common dimensions, whose counts the compiler then knows. */
void vexi_avx2_scan_codes(const uint8_t *blocks, size_t block_count, uint32_t padded,
                          const uint8_t *table, float unit, float base, float limit,
                          uint32_t *masks) {
    switch (padded) {
    case 64:
        scan(blocks, block_count, 64, table, unit, base, limit, masks);
        break;
    case 128:
        scan(blocks, block_count, 128, table, unit, base, limit, masks);
        break;
    case 256:
        scan(blocks, block_count, 256, table, unit, base, limit, masks);
        break;
    case 384:
        scan(blocks, block_count, 384, table, unit, base, limit, masks);
        break;
    default:
        scan(blocks, block_count, padded, table, unit, base, limit, masks);
    }
}

ALWAYS_INLINE void estimate(const uint8_t *blocks, size_t block_count, size_t padded,
                            const uint8_t *table, float unit, float base, bool fetch, float *out) {
    __m256 units = _mm256_set1_ps(unit), bases = _mm256_set1_ps(base);
    for (size_t b = 0; b < block_count; b++) {
        const uint8_t *block = blocks + b * vexi_code_block_size((uint32_t)padded);
        __m256i sums[4];
        block_sums(block, padded, table, fetch, sums);
        UNROLL
        for (size_t k = 0; k < 4; k++) {
            _mm256_storeu_ps(out + VEXI_CODE_BLOCK_ROWS * b + 8 * k,
                             bounds_of(block, padded, k, sums[k], units, bases));
        }
    }
}

/* A node of a graph has a block or two, and what lies behind is of no use. */
void vexi_avx2_estimate_codes(const uint8_t *blocks, size_t block_count, uint32_t padded,
                              const uint8_t *table, float unit, float base, float *out) {
    if (block_count > 2) {
        estimate(blocks, block_count, padded, table, unit, base, true, out);
    } else {
        estimate(blocks, block_count, padded, table, unit, base, false, out);
    }
}

/* The sum over `lanes` (1 or 4) records in 32-bit lanes. */
ALWAYS_INLINE void add_4_bits(size_t lanes, const uint8_t *const *record, size_t padded,
                              const int8_t *levels, __m256i sums[4]) {
    const __m256i nibble = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
    for (size_t d = 0; d < padded; d += 64) {
        __m256i low_levels = load_bytes(levels + d), high_levels = load_bytes(levels + d + 32);
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            __m256i pairs = load_bytes(record[r] + 2 * sizeof(float) + d / 2);
            __m256i low = _mm256_and_si256(pairs, nibble);
            __m256i high = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), nibble);
            __m256i words = _mm256_add_epi16(_mm256_maddubs_epi16(low, low_levels),
                                             _mm256_maddubs_epi16(high, high_levels));
            sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(words, ones));
        }
    }
}

ALWAYS_INLINE void add_8_bits(size_t lanes, const uint8_t *const *record, size_t padded,
                              const int16_t *levels, __m256i sums[4]) {
    for (size_t d = 0; d < padded; d += 32) {
        UNROLL
        for (size_t half = 0; half < 2; half++) {
            __m256i level = load_bytes(levels + d + 16 * half);
            UNROLL
            for (size_t r = 0; r < lanes; r++) {
                const uint8_t *codes = record[r] + 2 * sizeof(float) + d + 16 * half;
                __m256i words =
                    _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)codes));
                sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(words, level));
            }
        }
    }
}

/* `lanes` (1 or 4) results. */
ALWAYS_INLINE __m128 refine(size_t lanes, const uint8_t *const *record, size_t padded,
                            uint32_t bits, const void *levels, float unit, float base) {
    __m256i zero = _mm256_setzero_si256();
    __m256i sums[4] = {zero, zero, zero, zero};
    if (bits == 4) {
        add_4_bits(lanes, record, padded, levels, sums);
    } else {
        add_8_bits(lanes, record, padded, levels, sums);
    }
    __m256i pairs =
        _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    __m128 head[4]; /* add, scale, 0, 0 */
    UNROLL
    for (size_t r = 0; r < 4; r++) {
        head[r] = _mm_castsi128_ps(
            _mm_loadl_epi64((const __m128i *)(const void *)record[r < lanes ? r : 0]));
    }
    __m128 first = _mm_unpacklo_ps(head[0], head[1]), second = _mm_unpacklo_ps(head[2], head[3]);
    __m128 add = _mm_movelh_ps(first, second), scale = _mm_movehl_ps(second, first);
    __m128 estimate = _mm_fmadd_ps(_mm_set1_ps(unit), _mm_cvtepi32_ps(sum), _mm_set1_ps(base));
    return _mm_fmadd_ps(scale, estimate, add);
}

ALWAYS_INLINE void refine_all(const uint8_t *records, size_t stride, const uint32_t *picks,
                              size_t count, size_t padded, uint32_t bits, const void *levels,
                              float unit, float base, float *out) {
    size_t size = vexi_code_record_size((uint32_t)padded, bits);
    size_t ahead = vexi_picks_ahead(size);
    size_t fetched = 0, i = 0;
    for (; i < count; i += 4) {
        for (; fetched < count && fetched < i + 4 + ahead; fetched++) {
            vexi_prefetch(records + picks[fetched] * stride, size);
        }
        const uint8_t *record[4];
        size_t left = count - i;
        if (left >= 4) {
            UNROLL
            for (size_t r = 0; r < 4; r++) {
                record[r] = records + picks[i + r] * stride;
            }
            _mm_storeu_ps(out + i, refine(4, record, padded, bits, levels, unit, base));
            continue;
        }
        for (size_t r = 0; r < left; r++) {
            record[0] = records + picks[i + r] * stride;
            out[i + r] = _mm_cvtss_f32(refine(1, record, padded, bits, levels, unit, base));
        }
    }
}

void vexi_avx2_refine_codes(const uint8_t *records, size_t stride, const uint32_t *picks,
                            size_t count, uint32_t padded, uint32_t bits, const void *levels,
                            float unit, float base, float *out) {
    if (bits == 4) {
        refine_all(records, stride, picks, count, padded, 4, levels, unit, base, out);
    } else {
        refine_all(records, stride, picks, count, padded, 8, levels, unit, base, out);
    }
}

/* Negate the lanes of x whose sign is set in signs, then add y: a + b where the sign is clear, and
 * a + (-b), which is a - b bit for bit, where it is set. */
ALWAYS_INLINE __m256 add_signed(__m256 x, __m256 signs, __m256 y) {
    return _mm256_add_ps(y, _mm256_xor_ps(x, signs));
}

/* The stages 1, 2 and 4. */
ALWAYS_INLINE __m256 within(__m256 v) {
    const float n = -0.0f;
    v = add_signed(v, _mm256_setr_ps(0, n, 0, n, 0, n, 0, n), _mm256_permute_ps(v, 0xb1));
    v = add_signed(v, _mm256_setr_ps(0, 0, n, n, 0, 0, n, n), _mm256_permute_ps(v, 0x4e));
    return add_signed(v, _mm256_setr_ps(0, 0, 0, 0, n, n, n, n), _mm256_permute2f128_ps(v, v, 1));
}

#define LANES        8u
#define VECTOR       __m256
#define VECTOR_LOAD  _mm256_loadu_ps
#define VECTOR_STORE _mm256_storeu_ps
#define VECTOR_ADD   _mm256_add_ps
#define VECTOR_SUB   _mm256_sub_ps
#define WITHIN       within
#define HADAMARD     vexi_avx2_hadamard
#include "kernel/kernel_hadamard.inc"

#endif
