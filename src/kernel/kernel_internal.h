/* What the files of this module share: one table per instruction set.
 *
 * A variant keeps one promise beyond kernel.h: the result for a row depends on the query and that
 * row alone, never on its address, its neighbours or the count, so that equal rows tie whatever the
 * runs they were compared in. Every variant therefore uses one summation order for all rows. */
#ifndef VEXI_KERNEL_INTERNAL_H
#define VEXI_KERNEL_INTERNAL_H

#include "kernel/kernel.h"

/* Before a loop over registers, whose count the compiler knows: unrolled at every optimisation
 * level, else the registers would live in memory. Through SIMDe they live there anyway, and a
 * function of a thousand emulated instructions takes minutes to compile. */
#if defined(VEX_SIMDE)
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#if defined(VEX_SIMDE)
#define ALWAYS_INLINE static __attribute__((noinline, unused))
#else
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#endif

extern const vexi_kernels vexi_kernels_scalar;
#if defined(__x86_64__)
extern const vexi_kernels vexi_kernels_avx2;
extern const vexi_kernels vexi_kernels_avx512;
extern const vexi_kernels vexi_kernels_avx512vnni;
#endif
#if defined(__aarch64__)
extern const vexi_kernels vexi_kernels_neon;
#endif

/* What a variant puts into its table from its kernel_codes_*.c file; kernel.h says what they do. */
#define VEXI_DECLARE_CODE_KERNELS(variant)                                                       \
    void vexi_##variant##_hadamard(float *values, uint32_t count);                               \
    void vexi_##variant##_scan_codes(const uint8_t *blocks, size_t block_count, uint32_t padded, \
                                     const uint8_t *table, float unit, float base, float limit,  \
                                     uint32_t *masks);                                           \
    void vexi_##variant##_estimate_codes(const uint8_t *blocks, size_t block_count,              \
                                         uint32_t padded, const uint8_t *table, float unit,      \
                                         float base, float *out);                                \
    void vexi_##variant##_refine_codes(                                                          \
        const uint8_t *records, size_t stride, const uint32_t *picks, size_t count,              \
        uint32_t padded, uint32_t bits, const void *levels, float unit, float base, float *out)
VEXI_DECLARE_CODE_KERNELS(scalar);
VEXI_DECLARE_CODE_KERNELS(avx2);
VEXI_DECLARE_CODE_KERNELS(avx512);
VEXI_DECLARE_CODE_KERNELS(avx512vnni); /* but for hadamard, which is avx512's */
VEXI_DECLARE_CODE_KERNELS(neon);

/* Records lie scattered in memory larger than the caches. So many bytes of the next ones are asked
 * for while one is computed; for small ones rather a number that hides the latency. */
#define VEXI_AHEAD_BYTES 2048u

static inline size_t vexi_picks_ahead(size_t record_size) {
    size_t ahead = VEXI_AHEAD_BYTES / record_size;
    return ahead < 4 ? 4 : ahead > 16 ? 16 : ahead;
}

static inline void vexi_prefetch(const uint8_t *from, size_t size) {
    for (size_t at = 0; at < size; at += 64) {
        __builtin_prefetch(from + at);
    }
    __builtin_prefetch(from + size - 1);
}

/* The end of every variant's `least`: lanes' best scores and where each was found first, in the
 * form of kernel.h. A lane that found nothing has the score *best. */
static inline void vexi_least_of_lanes(const float *scores, const uint32_t *indexes, size_t lanes,
                                       float *best, uint32_t *index) {
    float least = *best;
    uint32_t at = 0;
    for (size_t l = 0; l < lanes; l++) {
        if (scores[l] < least || (scores[l] == least && least < *best && indexes[l] < at)) {
            least = scores[l];
            at = indexes[l];
        }
    }
    if (least < *best) {
        *best = least;
        *index = at;
    }
}

#endif
