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

#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm512_extractf32x8_ps
#undef _mm512_mask_cmp_ps_mask
#define _mm512_maskz_loadu_ps  gap_maskz_loadu_ps
#define _mm512_mask_storeu_ps  gap_mask_storeu_ps
#define _mm512_extractf32x8_ps gap_extractf32x8_ps
#define _mm512_mask_cmp_ps_mask(mask, a, b, how) \
    ((simde__mmask16)((mask)&simde_mm512_cmp_ps_mask(a, b, how)))

#endif
