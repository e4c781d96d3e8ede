/* AVX-512 (BW) kernels over quantised codes, and the Walsh-Hadamard transform.
 *
 * As in kernel_codes_avx2.c, with four groups to a register; the widths of the sums and their
 * bounds are the same. kernel_codes_avx512vnni.c does better where the CPU has VBMI and VNNI.
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
#define LANES            16u
#define FLUSH_DIMENSIONS 1024u
/* How far ahead of the reads code blocks are fetched. */
#define PREFETCH_BYTES 2048u

/* 16-bit sums of a part of a block: rows 0..15 (low nibbles) and 16..31 (high ones). */
typedef struct word_sums {
    __m512i whole[2], odd[2];
} word_sums;

/* 64 dimensions: 256 bytes of codes and of the table. */
ALWAYS_INLINE void add_64_dimensions(word_sums *sums, const uint8_t *codes, const uint8_t *table,
                                     bool fetch) {
    const __m512i nibble = _mm512_set1_epi8(15);
    UNROLL
    for (size_t k = 0; k < 4; k++) {
        if (fetch) {
            _mm_prefetch((const char *)codes + 64 * k + PREFETCH_BYTES, _MM_HINT_T0);
        }
        __m512i pairs = _mm512_load_si512(codes + 64 * k);
        __m512i entries = _mm512_load_si512(table + 64 * k);
        __m512i low = _mm512_shuffle_epi8(entries, _mm512_and_si512(pairs, nibble));
        __m512i high =
            _mm512_shuffle_epi8(entries, _mm512_and_si512(_mm512_srli_epi16(pairs, 4), nibble));
        sums->whole[0] = _mm512_add_epi16(sums->whole[0], low);
        sums->whole[1] = _mm512_add_epi16(sums->whole[1], high);
        sums->odd[0] = _mm512_add_epi16(sums->odd[0], _mm512_srli_epi16(low, 8));
        sums->odd[1] = _mm512_add_epi16(sums->odd[1], _mm512_srli_epi16(high, 8));
    }
}

/* Lanes of 128 bits: a0 + a2, a1 + a3, b0 + b2, b1 + b3. */
ALWAYS_INLINE __m512i add_halves(__m512i a, __m512i b) {
    return _mm512_add_epi16(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
}

/* The sums of a block's 32 rows in order. */
ALWAYS_INLINE void block_sums(const uint8_t *block, size_t padded, const uint8_t *table, bool fetch,
                              __m512i sums[2]) {
    for (size_t first = 0; first < padded; first += FLUSH_DIMENSIONS) {
        size_t end = padded - first < FLUSH_DIMENSIONS ? padded : first + FLUSH_DIMENSIONS;
        __m512i zero = _mm512_setzero_si512();
        word_sums words = {{zero, zero}, {zero, zero}};
        for (size_t d = first; d < end; d += 64) {
            add_64_dimensions(&words, block + 4 * d, table + 4 * d, fetch);
        }
        __m512i odd = add_halves(words.odd[0], words.odd[1]);
        __m512i even =
            _mm512_sub_epi16(add_halves(words.whole[0], words.whole[1]), _mm512_slli_epi16(odd, 8));
        /* Even rows 0..14, even rows 16..30, odd rows 1..15, odd rows 17..31. */
        __m512i apart = _mm512_add_epi16(_mm512_shuffle_i32x4(even, odd, 0x88),
                                         _mm512_shuffle_i32x4(even, odd, 0xdd));
        __m256i evens = _mm512_castsi512_si256(apart);
        __m256i odds = _mm512_extracti64x4_epi64(apart, 1);
        /* Rows 0..7 and 16..23, rows 8..15 and 24..31. */
        __m256i a = _mm256_unpacklo_epi16(evens, odds), b = _mm256_unpackhi_epi16(evens, odds);
        __m512i part[2] = {_mm512_cvtepu16_epi32(_mm256_permute2x128_si256(a, b, 0x20)),
                           _mm512_cvtepu16_epi32(_mm256_permute2x128_si256(a, b, 0x31))};
        UNROLL
        for (size_t half = 0; half < 2; half++) {
            sums[half] = first == 0 ? part[half] : _mm512_add_epi32(sums[half], part[half]);
        }
    }
}

/* Add the sums over `lanes` (1 or 4) records to 32-bit lanes. Low nibbles go with the first 32
 * levels of 64, high ones, which a shift by 4 brings down, with the others. */
ALWAYS_INLINE void add_4_bits(size_t lanes, const uint8_t *const *record, size_t padded,
                              const int8_t *levels, __m512i sums[4]) {
    const __m512i nibble = _mm512_set1_epi8(15), ones = _mm512_set1_epi16(1);
    for (size_t d = 0; d < padded; d += 64) {
        __m512i level = _mm512_load_si512(levels + d);
        UNROLL
        for (size_t r = 0; r < lanes; r++) {
            __m256i pairs = _mm256_loadu_si256(
                (const __m256i *)(const void *)(record[r] + 2 * sizeof(float) + d / 2));
            __m512i codes =
                _mm512_inserti64x4(_mm512_castsi256_si512(pairs), _mm256_srli_epi16(pairs, 4), 1);
            __m512i words = _mm512_maddubs_epi16(_mm512_and_si512(codes, nibble), level);
            sums[r] = _mm512_add_epi32(sums[r], _mm512_madd_epi16(words, ones));
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
            sums[r] = _mm512_add_epi32(sums[r], _mm512_madd_epi16(codes, level));
        }
    }
}

#define SCAN_CODES     vexi_avx512_scan_codes
#define ESTIMATE_CODES vexi_avx512_estimate_codes
#define REFINE_CODES   vexi_avx512_refine_codes
#include "kernel/kernel_codes_avx512.inc"

/* Negate the lanes of x whose sign is set in signs, then add y: a + b where the sign is clear, and
 * a + (-b), which is a - b bit for bit, where it is set. */
ALWAYS_INLINE __m512 add_signed(__m512 x, __m512 signs, __m512 y) {
    return _mm512_add_ps(y, _mm512_xor_ps(x, signs));
}

/* The stages 1, 2, 4 and 8. */
ALWAYS_INLINE __m512 within(__m512 v) {
    const float n = -0.0f;
    v = add_signed(v, _mm512_setr_ps(0, n, 0, n, 0, n, 0, n, 0, n, 0, n, 0, n, 0, n),
                   _mm512_shuffle_ps(v, v, 0xb1));
    v = add_signed(v, _mm512_setr_ps(0, 0, n, n, 0, 0, n, n, 0, 0, n, n, 0, 0, n, n),
                   _mm512_shuffle_ps(v, v, 0x4e));
    v = add_signed(v, _mm512_setr_ps(0, 0, 0, 0, n, n, n, n, 0, 0, 0, 0, n, n, n, n),
                   _mm512_shuffle_f32x4(v, v, 0xb1));
    return add_signed(v, _mm512_setr_ps(0, 0, 0, 0, 0, 0, 0, 0, n, n, n, n, n, n, n, n),
                      _mm512_shuffle_f32x4(v, v, 0x4e));
}

#define VECTOR       __m512
#define VECTOR_LOAD  _mm512_loadu_ps
#define VECTOR_STORE _mm512_storeu_ps
#define VECTOR_ADD   _mm512_add_ps
#define VECTOR_SUB   _mm512_sub_ps
#define WITHIN       within
#define HADAMARD     vexi_avx512_hadamard
#include "kernel/kernel_hadamard.inc"

#endif
