/* The scalar kernels: the specification of the others, and what runs where nothing else does.
 *
 * One float32 accumulator per row, summed in index order; every operation rounds (the build forbids
 * contraction to FMA). The error against exact arithmetic is at most dimension * 2^-23 times the
 * sum of the terms' absolute values. The build keeps the compiler from vectorising this file, so
 * that a test of "scalar" tests these loops. */
#include <string.h>

#include "kernel/kernel_internal.h"

static float load(const uint8_t *p) {
    float value;
    memcpy(&value, p, sizeof value);
    return value;
}

static void scalar_l2(const float *query, const uint8_t *rows, size_t stride, size_t count,
                      uint32_t dimension, float *out) {
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = rows + i * stride;
        float sum = 0;
        for (size_t j = 0; j < dimension; j++) {
            float difference = query[j] - load(row + j * sizeof(float));
            sum += difference * difference;
        }
        out[i] = sum;
    }
}

static void scalar_dot(const float *query, const uint8_t *rows, size_t stride, size_t count,
                       uint32_t dimension, float *out) {
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = rows + i * stride;
        float sum = 0;
        for (size_t j = 0; j < dimension; j++) {
            sum += query[j] * load(row + j * sizeof(float));
        }
        out[i] = sum;
    }
}

static void scalar_norm(const uint8_t *rows, size_t stride, size_t count, uint32_t dimension,
                        float *out) {
    for (size_t i = 0; i < count; i++) {
        const uint8_t *row = rows + i * stride;
        float sum = 0;
        for (size_t j = 0; j < dimension; j++) {
            float value = load(row + j * sizeof(float));
            sum += value * value;
        }
        out[i] = sum;
    }
}

static void scalar_l2_rows(const float *query, const uint8_t *const *rows, size_t count,
                           uint32_t dimension, float *out) {
    for (size_t i = 0; i < count; i++) {
        scalar_l2(query, rows[i], 0, 1, dimension, out + i);
    }
}

static void scalar_dot_rows(const float *query, const uint8_t *const *rows, size_t count,
                            uint32_t dimension, float *out) {
    for (size_t i = 0; i < count; i++) {
        scalar_dot(query, rows[i], 0, 1, dimension, out + i);
    }
}

static void scalar_dot_matrix(const float *a, size_t a_count, const float *b, size_t b_count,
                              uint32_t dimension, float *out, size_t out_stride) {
    for (size_t i = 0; i < a_count; i++) {
        scalar_dot(a + i * dimension, (const uint8_t *)b, dimension * sizeof(float), b_count,
                   dimension, out + i * out_stride);
    }
}

static void scalar_least(const float *bias, const float *products, size_t count, float *best,
                         uint32_t *index) {
    for (size_t j = 0; j < count; j++) {
        float score = bias[j] - products[j];
        if (score < *best) {
            *best = score;
            *index = (uint32_t)j;
        }
    }
}

static size_t scalar_up_to(const float *values, size_t count, float most, uint64_t *bits) {
    size_t found = 0;
    for (size_t first = 0; first < count; first += 64) {
        uint64_t word = 0;
        for (size_t i = 0; i < 64 && first + i < count; i++) {
            word |= (uint64_t)(values[first + i] <= most) << i;
        }
        found += (size_t)__builtin_popcountll(word);
        if (bits != NULL) {
            bits[first / 64] = word;
        }
    }
    return found;
}

const vexi_kernels vexi_kernels_scalar = {
    .name = "scalar",
    .sum_count = 1,
    .l2 = scalar_l2,
    .dot = scalar_dot,
    .norm = scalar_norm,
    .l2_rows = scalar_l2_rows,
    .dot_rows = scalar_dot_rows,
    .dot_matrix = scalar_dot_matrix,
    .least = scalar_least,
    .up_to = scalar_up_to,
    .hadamard = vexi_scalar_hadamard,
    .scan_codes = vexi_scalar_scan_codes,
    .estimate_codes = vexi_scalar_estimate_codes,
    .refine_codes = vexi_scalar_refine_codes,
};
