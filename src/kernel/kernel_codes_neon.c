/* NEON kernels (AArch64) over quantised codes, and the Walsh-Hadamard transform.
 *
 * FastScan as in kernel_codes_avx2.c with one group to a register; looked-up bytes are added to
 * words by widening additions, eight rows to a register, and the words to sums of 32 bits every
 * 1,024 dimensions (256 groups x 255 fit). All integer sums are exact. The float arithmetic uses
 * FMA: see kernel_codes_scalar.c for the bound.
 *
 * Records of 4 bits: products of a code (0..15) and a level (-128..127) are at most 1,920; four are
 * added in 16 bits before they are added, in pairs, in 32. Of 8 bits: codes widened to 16 bits,
 * multiplied and added in 32. */
#include "kernel/kernel_internal.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#define LANES            4u
#define FLUSH_DIMENSIONS 1024u
/* How far ahead of the reads code blocks are fetched. */
#define PREFETCH_BYTES 1024u

/* Rows 4 k .. 4 k + 3 in sums[k]. */
ALWAYS_INLINE void block_sums(const uint8_t *block, size_t padded, const uint8_t *table,
                              uint32x4_t sums[8]) {
    const uint8x16_t nibble = vdupq_n_u8(15);
    UNROLL
    for (size_t k = 0; k < 8; k++) {
        sums[k] = vdupq_n_u32(0);
    }
    for (size_t first = 0; first < padded; first += FLUSH_DIMENSIONS) {
        size_t end = padded - first < FLUSH_DIMENSIONS ? padded : first + FLUSH_DIMENSIONS;
        uint16x8_t words[4]; /* rows 8 k .. 8 k + 7 */
        UNROLL
        for (size_t k = 0; k < 4; k++) {
            words[k] = vdupq_n_u16(0);
        }
        for (size_t d = first; d < end; d += 16) {
            __builtin_prefetch(block + 4 * d + PREFETCH_BYTES);
            UNROLL
            for (size_t g = 0; g < 4; g++) {
                uint8x16_t pairs = vld1q_u8(block + 4 * d + 16 * g);
                uint8x16_t entries = vld1q_u8(table + 4 * d + 16 * g);
                uint8x16_t low = vqtbl1q_u8(entries, vandq_u8(pairs, nibble));
                uint8x16_t high = vqtbl1q_u8(entries, vshrq_n_u8(pairs, 4));
                words[0] = vaddw_u8(words[0], vget_low_u8(low));
                words[1] = vaddw_high_u8(words[1], low);
                words[2] = vaddw_u8(words[2], vget_low_u8(high));
                words[3] = vaddw_high_u8(words[3], high);
            }
        }
        UNROLL
        for (size_t k = 0; k < 4; k++) {
            sums[2 * k] = vaddw_u16(sums[2 * k], vget_low_u16(words[k]));
            sums[2 * k + 1] = vaddw_high_u16(sums[2 * k + 1], words[k]);
        }
    }
}

/* add + scale x (unit x sum + base) for the k-th 4 rows of a block. */
ALWAYS_INLINE float32x4_t bounds_of(const uint8_t *block, size_t padded, size_t k, uint32x4_t sum,
                                    float32x4_t unit, float32x4_t base) {
    const float *add = (const float *)(const void *)(block + 4 * padded) + LANES * k;
    float32x4_t estimate = vfmaq_f32(base, unit, vcvtq_f32_u32(sum));
    return vfmaq_f32(vld1q_f32(add), vld1q_f32(add + VEXI_CODE_BLOCK_ROWS), estimate);
}

void vexi_neon_scan_codes(const uint8_t *blocks, size_t block_count, uint32_t padded,
                          const uint8_t *table, float unit, float base, float limit,
                          uint32_t *masks) {
    static const uint32_t bits[4] = {1, 2, 4, 8};
    const uint32x4_t bit = vld1q_u32(bits);
    for (size_t b = 0; b < block_count; b++) {
        const uint8_t *block = blocks + b * vexi_code_block_size(padded);
        uint32x4_t sums[8];
        uint32_t mask = 0;
        block_sums(block, padded, table, sums);
        UNROLL
        for (size_t k = 0; k < 8; k++) {
            float32x4_t bounds =
                bounds_of(block, padded, k, sums[k], vdupq_n_f32(unit), vdupq_n_f32(base));
            uint32x4_t below = vandq_u32(vcltq_f32(bounds, vdupq_n_f32(limit)), bit);
            mask |= vaddvq_u32(below) << (LANES * k);
        }
        masks[b] = mask;
    }
}

void vexi_neon_estimate_codes(const uint8_t *blocks, size_t block_count, uint32_t padded,
                              const uint8_t *table, float unit, float base, float *out) {
    for (size_t b = 0; b < block_count; b++) {
        const uint8_t *block = blocks + b * vexi_code_block_size(padded);
        uint32x4_t sums[8];
        block_sums(block, padded, table, sums);
        UNROLL
        for (size_t k = 0; k < 8; k++) {
            vst1q_f32(out + VEXI_CODE_BLOCK_ROWS * b + LANES * k,
                      bounds_of(block, padded, k, sums[k], vdupq_n_f32(unit), vdupq_n_f32(base)));
        }
    }
}

ALWAYS_INLINE int32_t sum_4_bits(const uint8_t *codes, size_t padded, const int8_t *levels) {
    int32x4_t sum = vdupq_n_s32(0);
    for (size_t d = 0; d < padded; d += 64) {
        UNROLL
        for (size_t half = 0; half < 2; half++) {
            uint8x16_t pairs = vld1q_u8(codes + d / 2 + 16 * half);
            int8x16_t low = vreinterpretq_s8_u8(vandq_u8(pairs, vdupq_n_u8(15)));
            int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(pairs, 4));
            int8x16_t low_levels = vld1q_s8(levels + d + 16 * half);
            int8x16_t high_levels = vld1q_s8(levels + d + 32 + 16 * half);
            int16x8_t words = vmull_s8(vget_low_s8(low), vget_low_s8(low_levels));
            words = vmlal_high_s8(words, low, low_levels);
            words = vmlal_s8(words, vget_low_s8(high), vget_low_s8(high_levels));
            words = vmlal_high_s8(words, high, high_levels);
            sum = vpadalq_s16(sum, words);
        }
    }
    return vaddvq_s32(sum);
}

ALWAYS_INLINE int32_t sum_8_bits(const uint8_t *codes, size_t padded, const int16_t *levels) {
    int32x4_t low_sum = vdupq_n_s32(0), high_sum = low_sum;
    for (size_t d = 0; d < padded; d += 16) {
        uint8x16_t bytes = vld1q_u8(codes + d);
        int16x8_t low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(bytes)));
        int16x8_t high = vreinterpretq_s16_u16(vmovl_high_u8(bytes));
        int16x8_t low_levels = vld1q_s16(levels + d), high_levels = vld1q_s16(levels + d + 8);
        low_sum = vmlal_s16(low_sum, vget_low_s16(low), vget_low_s16(low_levels));
        high_sum = vmlal_high_s16(high_sum, low, low_levels);
        low_sum = vmlal_s16(low_sum, vget_low_s16(high), vget_low_s16(high_levels));
        high_sum = vmlal_high_s16(high_sum, high, high_levels);
    }
    return vaddvq_s32(vaddq_s32(low_sum, high_sum));
}

void vexi_neon_refine_codes(const uint8_t *records, size_t stride, const uint32_t *picks,
                            size_t count, uint32_t padded, uint32_t bits, const void *levels,
                            float unit, float base, float *out) {
    size_t size = vexi_code_record_size(padded, bits);
    size_t ahead = vexi_picks_ahead(size), fetched = 0;
    for (size_t i = 0; i < count; i++) {
        for (; fetched < count && fetched <= i + ahead; fetched++) {
            vexi_prefetch(records + picks[fetched] * stride, size);
        }
        const uint8_t *record = records + picks[i] * stride;
        const float *head = (const float *)(const void *)record;
        const uint8_t *codes = record + 2 * sizeof(float);
        int32_t sum =
            bits == 4 ? sum_4_bits(codes, padded, levels) : sum_8_bits(codes, padded, levels);
        out[i] = head[0] + head[1] * (unit * (float)sum + base);
    }
}

/* Negate the lanes of x whose sign is set in signs, then add y: a + b where the sign is clear, and
 * a + (-b), which is a - b bit for bit, where it is set. */
ALWAYS_INLINE float32x4_t add_signed(float32x4_t x, uint32x4_t signs, float32x4_t y) {
    return vaddq_f32(y, vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), signs)));
}

/* The stages 1 and 2. */
ALWAYS_INLINE float32x4_t within(float32x4_t v) {
    static const uint32_t odd[4] = {0, 0x80000000u, 0, 0x80000000u};
    static const uint32_t upper[4] = {0, 0, 0x80000000u, 0x80000000u};
    v = add_signed(v, vld1q_u32(odd), vrev64q_f32(v));
    return add_signed(v, vld1q_u32(upper), vextq_f32(v, v, 2));
}

#define VECTOR       float32x4_t
#define VECTOR_LOAD  vld1q_f32
#define VECTOR_STORE vst1q_f32
#define VECTOR_ADD   vaddq_f32
#define VECTOR_SUB   vsubq_f32
#define WITHIN       within
#define HADAMARD     vexi_neon_hadamard
#include "kernel/kernel_hadamard.inc"

#endif
