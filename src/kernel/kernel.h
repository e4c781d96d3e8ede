/* Kernels: distances over many vectors, one file per instruction set behind one table.
 *
 * The scalar version is the specification. The best variant that the CPU and the operating system
 * support is chosen once, at the first call; VEXLAKE_KERNEL=scalar|avx2|avx512|neon in the
 * environment forces one (an unsupported name falls back to the best, with a line on stderr).
 *
 * Rows may be at any address (vectors inside a Parquet page are not aligned). Queries are aligned
 * to 64 bytes and padded with zeros to a multiple of 16 values. Kernels never allocate. */
#ifndef VEXI_KERNEL_KERNEL_H
#define VEXI_KERNEL_KERNEL_H

#include "base/status.h"

typedef struct vexi_kernels {
    const char *name;

    /* out[i] = sum_j (query[j] - row_i[j])^2, float32 accumulators. Row i is at rows + i * stride
     * (bytes). count may be 0. */
    void (*l2)(const float *query, const uint8_t *rows, size_t stride, size_t count,
               uint32_t dimension, float *out);

    /* out[i] = sum_j query[j] * row_i[j] */
    void (*dot)(const float *query, const uint8_t *rows, size_t stride, size_t count,
                uint32_t dimension, float *out);

    /* out[i] = sum_j row_i[j]^2 */
    void (*norm)(const uint8_t *rows, size_t stride, size_t count, uint32_t dimension, float *out);

    /* Matrix product for k-means and batched queries: out[i * out_stride + j] = a_i . b_j, a is
     * a_count x dimension and b is b_count x dimension, both row-major, dense, aligned to 4 bytes.
     */
    void (*dot_matrix)(const float *a, size_t a_count, const float *b, size_t b_count,
                       uint32_t dimension, float *out, size_t out_stride);

    /* The least of bias[j] - products[j] over j in 0 .. count - 1, at the lowest j of equals: if it
     * is below *best, it becomes *best and j becomes *index; else both stay. What is not a number
     * is not below anything. Follows dot_matrix in the assignment of k-means. */
    void (*least)(const float *bias, const float *products, size_t count, float *best,
                  uint32_t *index);
} vexi_kernels;

/* The chosen variant. */
const vexi_kernels *vexi_kernels_get(void);
/* A variant by name, NULL if this machine cannot run it. For tests. */
const vexi_kernels *vexi_kernels_named(const char *name);

/* The reported distance: double accumulators in index order on every machine, so that one pair of
 * vectors has one distance whatever the path. Metric as in vexlake.h. row at any address. */
double vexi_distance(vex_metric metric, const float *query, const uint8_t *row, uint32_t dimension);

/* True if all values are finite. */
bool vexi_vector_finite(const uint8_t *row, uint32_t dimension);

#endif
