/* Kernels: distances over many vectors, one file per instruction set behind one table.
 *
 * The scalar version is the specification. The best variant that the CPU and the operating system
 * support is chosen once, at the first call; VEXLAKE_KERNEL=scalar|avx2|avx512|avx512vnni|
 * neon in the environment forces one (an unsupported name falls back to the best, with a line on
 * stderr).
 *
 * Rows may be at any address (vectors inside a Parquet page are not aligned). Queries are aligned
 * to 64 bytes and padded with zeros to a multiple of 16 values. Kernels never allocate. */
#ifndef VEXI_KERNEL_KERNEL_H
#define VEXI_KERNEL_KERNEL_H

#include "base/status.h"

typedef struct vexi_kernels {
    const char *name;

    /* How many float32 sums l2, dot and norm keep for a row: none of its terms goes through more
     * than dimension / sum_count + 8 additions. What is known of their errors rests on it
     * (index/flat.h). */
    uint32_t sum_count;

    /* out[i] = sum_j (query[j] - row_i[j])^2, float32 accumulators. Row i is at rows + i * stride
     * (bytes). count may be 0. */
    void (*l2)(const float *query, const uint8_t *rows, size_t stride, size_t count,
               uint32_t dimension, float *out);

    /* out[i] = sum_j query[j] * row_i[j] */
    void (*dot)(const float *query, const uint8_t *rows, size_t stride, size_t count,
                uint32_t dimension, float *out);

    /* out[i] = sum_j row_i[j]^2 */
    void (*norm)(const uint8_t *rows, size_t stride, size_t count, uint32_t dimension, float *out);

    /* The same distances over rows anywhere: row i is at rows[i]. For re-ranking candidates and for
     * the steps of a graph walk, whose rows lie scattered in memory larger than the caches: the
     * rows that come next are fetched while the ones before them are computed. The results have
     * the bits that l2 and dot give for the same rows. */
    void (*l2_rows)(const float *query, const uint8_t *const *rows, size_t count,
                    uint32_t dimension, float *out);
    void (*dot_rows)(const float *query, const uint8_t *const *rows, size_t count,
                     uint32_t dimension, float *out);

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

    /* How many of the values are at most `most`; what is not a number is not. Where bits is not
     * NULL, bit i % 64 of bits[i / 64] says so of value i, for (count + 63) / 64 words. */
    size_t (*up_to)(const float *values, size_t count, float most, uint64_t *bits);

    /* Unnormalised Walsh-Hadamard transform in place, count a power of two from 1 to 4,096, values
     * aligned to 4 bytes. Stages of distance 1, 2, 4 ... in this order, (a, b) -> (a + b, a - b):
     * the order fixes the rounding, so that every variant gives the same bits. */
    void (*hadamard)(float *values, uint32_t count);

    /* One-bit codes, FastScan: `block_count` consecutive code blocks of 32 rows each
     * (vexi_code_block below). With sum_i = the sum over groups g of table[16 g + nibble_i(g)] and
     *     bound_i = add_i + scale_i * (unit * (float)sum_i + base)
     * bit i of masks[b] is set if bound_i < limit. table: 4 x padded bytes, aligned to 64. Blocks
     * are aligned to 64. 16-bit sums are flushed at the latest every 1,024 dimensions. The float
     * arithmetic may be fused. */
    void (*scan_codes)(const uint8_t *blocks, size_t block_count, uint32_t padded,
                       const uint8_t *table, float unit, float base, float limit, uint32_t *masks);

    /* The same sums as values: out[32 b + i] = add_i + scale_i * (unit * (float)sum_i + base). */
    void (*estimate_codes)(const uint8_t *blocks, size_t block_count, uint32_t padded,
                           const uint8_t *table, float unit, float base, float *out);

    /* Refinement records: out[i] = add + scale * (unit * (float)sum + base) with sum = the sum over
     * j of code_j * levels_j, for the record at records + picks[i] * stride (vexi_code_record
     * below). bits 4: levels is int8_t[padded]; bits 8: int16_t[padded], so small that sums fit in
     * 32 bits. levels are aligned to 64, records to 8. Prefetches ahead. */
    void (*refine_codes)(const uint8_t *records, size_t stride, const uint32_t *picks, size_t count,
                         uint32_t padded, uint32_t bits, const void *levels, float unit, float base,
                         float *out);
} vexi_kernels;

/* Layout of codes. `padded` is the dimension rounded up to a multiple of 64.
 *
 * A code block holds 32 rows: padded / 4 groups of 16 bytes, then float32 add[32], then float32
 * scale[32]. Group g covers the dimensions 4 g .. 4 g + 3; its byte j has row j in the low nibble
 * and row 16 + j in the high one; bit b of a nibble is dimension 4 g + b, set for a positive
 * coordinate.
 *
 * A code record holds one row: float32 add, float32 scale, then padded x bits / 8 bytes of unsigned
 * codes. With 8 bits a byte a dimension; with 4 bits byte j of the c-th run of 32 bytes has
 * dimension 64 c + j in the low nibble and 64 c + 32 + j in the high one. */
enum { VEXI_CODE_BLOCK_ROWS = 32 };

static inline uint32_t vexi_code_padded(uint32_t dimension) {
    return (dimension + 63u) / 64u * 64u;
}
static inline size_t vexi_code_block_size(uint32_t padded) {
    return (size_t)padded * 4u + 2u * VEXI_CODE_BLOCK_ROWS * sizeof(float);
}
/* 0 where there are no records (bits 1). */
static inline size_t vexi_code_record_size(uint32_t padded, uint32_t bits) {
    return bits == 1 ? 0 : 2 * sizeof(float) + (size_t)padded * bits / 8u;
}

/* The chosen variant. */
const vexi_kernels *vexi_kernels_get(void);
/* A variant by name, NULL if this machine cannot run it. For tests. */
const vexi_kernels *vexi_kernels_named(const char *name);

/* The reported distance: double accumulators in index order on every machine, so that one pair of
 * vectors has one distance whatever the path. Metric as in vexlake.h. row at any address. */
double vexi_distance(vex_metric metric, const float *query, const uint8_t *row, uint32_t dimension);
/* The same of many rows, to the bit, in a fraction of the time. */
void vexi_distances(vex_metric metric, const float *query, const uint8_t *const *rows, size_t count,
                    uint32_t dimension, double *out);

/* True if all values are finite. */
bool vexi_vector_finite(const uint8_t *row, uint32_t dimension);

#endif
