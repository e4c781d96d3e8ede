/* The choice of a variant: once, at the first call, then constant.
 *
 * __builtin_cpu_supports asks CPUID and, by XGETBV, whether the operating system saves the wide
 * registers; both must hold. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/kernel_internal.h"

static pthread_once_t chosen_once = PTHREAD_ONCE_INIT;
static const vexi_kernels *chosen; /* written under chosen_once, then constant */

#if defined(__x86_64__)
static bool has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512vnni(void) {
    return has_avx512() && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

const vexi_kernels *vexi_kernels_named(const char *name) {
    if (strcmp(name, "scalar") == 0) {
        return &vexi_kernels_scalar;
    }
#if defined(__x86_64__)
    if (strcmp(name, "avx2") == 0 && has_avx2()) {
        return &vexi_kernels_avx2;
    }
    if (strcmp(name, "avx512") == 0 && has_avx512()) {
        return &vexi_kernels_avx512;
    }
    if (strcmp(name, "avx512vnni") == 0 && has_avx512vnni()) {
        return &vexi_kernels_avx512vnni;
    }
#endif
#if defined(__aarch64__)
    if (strcmp(name, "neon") == 0) {
        return &vexi_kernels_neon;
    }
#endif
    return NULL;
}

static void choose(void) {
    static const char *const best_first[] = {"avx512vnni", "avx512", "avx2", "neon", "scalar"};
    const char *forced = getenv("VEXLAKE_KERNEL");
    if (forced != NULL && forced[0] != '\0') {
        chosen = vexi_kernels_named(forced);
        if (chosen != NULL) {
            return;
        }
    }
    for (size_t i = 0; chosen == NULL; i++) {
        chosen = vexi_kernels_named(best_first[i]);
    }
    if (forced != NULL && forced[0] != '\0') {
        fprintf(stderr, "VEXLAKE_KERNEL=%.32s is not available on this machine; using %s\n", forced,
                chosen->name);
    }
}

const vexi_kernels *vexi_kernels_get(void) {
    pthread_once(&chosen_once, choose);
    return chosen;
}
