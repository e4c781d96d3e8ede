/* AVX-512 for machines without it: SIMDe, and what Debian 12's version (0.7.4) of it lacks.
 *
 * Included by kernel_avx512.c in place of <immintrin.h> when VEX_SIMDE is defined. Masked loads and
 * stores here touch the masked-in lanes only, as the instructions do, so that the address sanitizer
 * sees a wrong mask. */
#ifndef VEX_TESTS_KERNEL_SIMDE_H
#define VEX_TESTS_KERNEL_SIMDE_H

#include <string.h>

#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

#define __mmask16 simde__mmask16

static inline simde__m512 gap_maskz_loadu_ps(simde__mmask16 mask, const void *from) {
    float values[16] = {0};
    for (int i = 0; i < 16; i++) {
        if (mask >> i & 1) {
            memcpy(&values[i], (const char *)from + i * 4, 4);
        }
    }
    return simde_mm512_loadu_ps(values);
}

static inline void gap_mask_storeu_ps(void *to, simde__mmask16 mask, simde__m512 from) {
    float values[16];
    simde_mm512_storeu_ps(values, from);
    for (int i = 0; i < 16; i++) {
        if (mask >> i & 1) {
            memcpy((char *)to + i * 4, &values[i], 4);
        }
    }
}

static inline simde__m256 gap_extractf32x8_ps(simde__m512 from, int half) {
    float values[16];
    simde_mm512_storeu_ps(values, from);
    return simde_mm256_loadu_ps(values + 8 * half);
}

static inline simde__m512i gap_cvtepu16_epi32(simde__m256i from) {
    uint16_t words[16];
    uint32_t values[16];
    memcpy(words, &from, sizeof words);
    for (int i = 0; i < 16; i++) {
        values[i] = words[i];
    }
    return simde_mm512_loadu_si512(values);
}

static inline simde__m512i gap_cvtepu8_epi16(simde__m256i from) {
    uint8_t bytes[32];
    uint16_t values[32];
    memcpy(bytes, &from, sizeof bytes);
    for (int i = 0; i < 32; i++) {
        values[i] = bytes[i];
    }
    return simde_mm512_loadu_si512(values);
}

static inline simde__m512 gap_cvtepi32_ps(simde__m512i from) {
    int32_t integers[16];
    float values[16];
    memcpy(integers, &from, sizeof integers);
    for (int i = 0; i < 16; i++) {
        values[i] = (float)integers[i];
    }
    return simde_mm512_loadu_ps(values);
}

#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm512_extractf32x8_ps
#undef _mm512_mask_cmp_ps_mask
#undef _mm512_madd_epi16
#undef _mm512_shuffle_f32x4
#undef _mm512_cvtepu16_epi32
#undef _mm512_cvtepu8_epi16
#undef _mm512_cvtepi32_ps
#define _mm512_shuffle_f32x4(a, b, how) simde_mm512_shuffle_f32x4(a, b, how)
#define _mm512_madd_epi16(a, b)         simde_mm512_madd_epi16(a, b) /* its alias is of another arity */
#define _mm512_cvtepu16_epi32           gap_cvtepu16_epi32
#define _mm512_cvtepu8_epi16            gap_cvtepu8_epi16
#define _mm512_cvtepi32_ps              gap_cvtepi32_ps
#define _mm512_maskz_loadu_ps           gap_maskz_loadu_ps
#define _mm512_mask_storeu_ps           gap_mask_storeu_ps
#define _mm512_extractf32x8_ps          gap_extractf32x8_ps
#define _mm512_mask_cmp_ps_mask(mask, a, b, how) \
    ((simde__mmask16)((mask)&simde_mm512_cmp_ps_mask(a, b, how)))

#endif
