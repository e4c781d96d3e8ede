/* Kernels over quantised codes for AVX-512 with VBMI and VNNI (Ice Lake, Zen 4 and later).
 *
 * Code blocks: a permutation of bytes brings the bytes of four groups for one row side by side. A
 * second one looks up all 64 at once: its index has 6 bits, and the group's number above the
 * nibble chooses among the four groups' tables. Then one instruction adds each row's four entries
 * to its sum of 32 bits, so that nothing overflows, nothing is flushed, and the sums of 16 rows
 * stand in order: 8 operations for 64 bytes of codes against 11 of the byte shuffle, and no
 * untangling at the end.
 *
 * Records: the same instruction multiplies 4-bit codes with their levels and adds them in 32 bits
 * (16-bit products, exact); its sibling for words does 8 bits.
 *
 * Tests compile this file through SIMDe too (VEX_SIMDE), so that it is tested on every machine. */
#include "kernel/kernel_internal.h"

#if defined(VEX_SIMDE)
#define VEX_AVX512VNNI 1
#include "kernel_simde.h"
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__) && defined(__AVX512VBMI__) && defined(__AVX512VNNI__)
#define VEX_AVX512VNNI 1
#include <immintrin.h>
#endif

#ifdef VEX_AVX512VNNI
#define LANES 16u
/* How far ahead of the reads code blocks are fetched. */
#define PREFETCH_BYTES 2048u

/* Byte 4 j + g comes from row j of group g. */
_Alignas(64) static const uint8_t transposition[64] = {
    0,  16, 32, 48, 1,  17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51, 4,  20, 36, 52, 5,  21,
    37, 53, 6,  22, 38, 54, 7,  23, 39, 55, 8,  24, 40, 56, 9,  25, 41, 57, 10, 26, 42, 58,
    11, 27, 43, 59, 12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};

/* The sums of a block's 32 rows in order. Four steps in two chains of additions each. */
ALWAYS_INLINE void block_sums(const uint8_t *block, size_t padded, const uint8_t *table, bool fetch,
                              __m512i sums[2]) {
    const __m512i transpose = _mm512_load_si512(transposition);
    const __m512i nibble = _mm512_set1_epi8(15), ones = _mm512_set1_epi8(1);
    const __m512i group = _mm512_set1_epi32(0x30201000);
    __m512i zero = _mm512_setzero_si512();
    __m512i low[2] = {zero, zero}, high[2] = {zero, zero};
    for (size_t d = 0; d < padded; d += 64) {
        UNROLL
        for (size_t k = 0; k < 4; k++) {
            const uint8_t *codes = block + 4 * d + 64 * k;
            if (fetch) {
                _mm_prefetch((const char *)codes + PREFETCH_BYTES, _MM_HINT_T0);
            }
            __m512i entries = _mm512_load_si512(table + 4 * d + 64 * k);
            __m512i pairs = _mm512_permutexvar_epi8(transpose, _mm512_load_si512(codes));
            /* 0xea: (a and b) or c */
            __m512i a = _mm512_ternarylogic_epi32(pairs, nibble, group, 0xea);
            __m512i b = _mm512_ternarylogic_epi32(_mm512_srli_epi16(pairs, 4), nibble, group, 0xea);
            low[k % 2] = _mm512_dpbusd_epi32(low[k % 2], _mm512_permutexvar_epi8(a, entries), ones);
            high[k % 2] =
                _mm512_dpbusd_epi32(high[k % 2], _mm512_permutexvar_epi8(b, entries), ones);
        }
    }
    sums[0] = _mm512_add_epi32(low[0], low[1]);
    sums[1] = _mm512_add_epi32(high[0], high[1]);
}

/* Add the sums over `lanes` (1 or 4) records to 32-bit lanes. Low nibbles go with the first 32
 * levels of 64, high ones, which a shift by 4 brings down, with the others. */
ALWAYS_INLINE void add_4_bits(size_t lanes, const uint8_t *const *record, size_t padded,
                              const int8_t *levels, __m512i sums[4]) {
    const __m512i nibble = _mm512_set1_epi8(15);
    for (size_t d = 0; d < padded; d += 64) {
        __m512i level = _mm512_load_si512(levels + d);
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            __m256i pairs = _mm256_loadu_si256(
                (const __m256i *)(const void *)(record[r] + 2 * sizeof(float) + d / 2));
            __m512i codes =
                _mm512_inserti64x4(_mm512_castsi256_si512(pairs), _mm256_srli_epi16(pairs, 4), 1);
            sums[r] = _mm512_dpbusd_epi32(sums[r], _mm512_and_si512(codes, nibble), level);
        }
    }
}

ALWAYS_INLINE void add_8_bits(size_t lanes, const uint8_t *const *record, size_t padded,
                              const int16_t *levels, __m512i sums[4]) {
    for (size_t d = 0; d < padded; d += 32) {
        __m512i level = _mm512_load_si512(levels + d);
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            __m512i codes = _mm512_cvtepu8_epi16(_mm256_loadu_si256(
                (const __m256i *)(const void *)(record[r] + 2 * sizeof(float) + d)));
            sums[r] = _mm512_dpwssd_epi32(sums[r], codes, level);
        }
    }
}

#define SCAN_CODES     vexi_avx512vnni_scan_codes
#define ESTIMATE_CODES vexi_avx512vnni_estimate_codes
#define REFINE_CODES   vexi_avx512vnni_refine_codes
#include "kernel/kernel_codes_avx512.inc"

#endif
