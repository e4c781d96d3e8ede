/* What the files of this module share: one table per instruction set.
 *
 * A variant keeps one promise beyond kernel.h: the result for a row depends on the query and that
 * row alone, never on its address, its neighbours or the count, so that equal rows tie whatever the
 * runs they were compared in. Every variant therefore uses one summation order for all rows. */
#ifndef VEXI_KERNEL_INTERNAL_H
#define VEXI_KERNEL_INTERNAL_H

#include "kernel/kernel.h"

extern const vexi_kernels vexi_kernels_scalar;
#if defined(__x86_64__)
extern const vexi_kernels vexi_kernels_avx2;
extern const vexi_kernels vexi_kernels_avx512;
#endif
#if defined(__aarch64__)
extern const vexi_kernels vexi_kernels_neon;
#endif

#endif
