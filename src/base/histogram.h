/* Durations counted in buckets whose bounds double, from any number of threads.
 *
 * Bucket i counts what took at most 2^(VEXI_HISTOGRAM_SHIFT + i) nanoseconds and longer than the
 * bound before it; the last counts all that is longer. So a percentile is known to within a factor
 * of two wherever it lies, and adding costs one shift and two relaxed additions. The number of
 * durations is the sum of the buckets: there is no third counter that could disagree with them. */
#ifndef VEXI_BASE_HISTOGRAM_H
#define VEXI_BASE_HISTOGRAM_H

#include <stdatomic.h>

#include "vexlake.h"

enum {
    VEXI_HISTOGRAM_SHIFT = 13, /* the first bound is 8.192 microseconds, the last 17.2 seconds */
    VEXI_HISTOGRAM_BUCKETS = VEX_LATENCY_BUCKETS
};

/* All zero to begin with. */
typedef struct vexi_histogram {
    _Atomic uint64_t sum_ns;
    _Atomic uint64_t buckets[VEXI_HISTOGRAM_BUCKETS];
} vexi_histogram;

/* Upper bound of a bucket in nanoseconds; UINT64_MAX for the last. */
static inline uint64_t vexi_histogram_bound_ns(uint32_t bucket) {
    return bucket + 1 < VEXI_HISTOGRAM_BUCKETS ? UINT64_C(1) << (VEXI_HISTOGRAM_SHIFT + bucket)
                                               : UINT64_MAX;
}

static inline uint32_t vexi_histogram_bucket(uint64_t ns) {
    if (ns <= UINT64_C(1) << VEXI_HISTOGRAM_SHIFT) {
        return 0;
    }
    uint32_t bits = 64u - (uint32_t)__builtin_clzll(ns - 1); /* ns <= 2^bits */
    uint32_t bucket = bits - VEXI_HISTOGRAM_SHIFT;
    return bucket < VEXI_HISTOGRAM_BUCKETS ? bucket : VEXI_HISTOGRAM_BUCKETS - 1;
}

/* Count `count` durations of `ns` each. From any thread. */
static inline void vexi_histogram_add(vexi_histogram *histogram, uint64_t ns, uint64_t count) {
    atomic_fetch_add_explicit(&histogram->sum_ns, ns * count, memory_order_relaxed);
    atomic_fetch_add_explicit(&histogram->buckets[vexi_histogram_bucket(ns)], count,
                              memory_order_relaxed);
}

#endif
