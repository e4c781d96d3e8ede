/* The kernel variants that a test can run here.
 *
 * With VEX_TEST_SIMDE the AVX-512 code is also there a second time, compiled through SIMDe. */
#ifndef VEX_TESTS_KERNEL_VARIANTS_H
#define VEX_TESTS_KERNEL_VARIANTS_H

#include "check.h"
#include "kernel/kernel_internal.h"

#ifdef VEX_TEST_SIMDE
extern const vexi_kernels vexi_kernels_avx512_simde;
extern const vexi_kernels vexi_kernels_avx512vnni_simde;
#endif

typedef struct variant {
    const char *name;
    const vexi_kernels *kernels;
} variant;

/* The scalar one is the first. */
static inline size_t list_variants(variant out[8]) {
    static const char *const names[] = {"scalar", "avx2", "avx512", "avx512vnni", "neon"};
    size_t count = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const vexi_kernels *kernels = vexi_kernels_named(names[i]);
        if (kernels != NULL) {
            CHECK(strcmp(kernels->name, names[i]) == 0);
            out[count++] = (variant){names[i], kernels};
        }
    }
#ifdef VEX_TEST_SIMDE
    out[count++] = (variant){"avx512 through SIMDe", &vexi_kernels_avx512_simde};
    out[count++] = (variant){"avx512vnni through SIMDe", &vexi_kernels_avx512vnni_simde};
#endif
    return count;
}

#endif
