/* Flat: exact comparison of one query with runs of rows in memory. */
#ifndef VEXI_INDEX_FLAT_H
#define VEXI_INDEX_FLAT_H

#include "index/topk.h"
#include "kernel/kernel.h"

/* A query made ready once: padded copy, its norm. */
typedef struct vexi_query {
    const float *values; /* 64-byte aligned, zero-padded to a multiple of 16; in the arena */
    uint32_t dimension;
    vex_metric metric;
    float inverse_norm;  /* 1/|q|; 0 if |q| is 0 */
    bool near_in_double; /* see vexi_flat_too_near; the caller's choice, false by init */
} vexi_query;

/* Whether a float32 cosine distance is so small that it says little: 1 - c of a c near 1 is off by
 * some 1e-7. Where nobody makes certain afterwards, such rows are compared in double at once. */
static inline bool vexi_flat_too_near(const vexi_query *query, float distance) {
    return query->near_in_double && query->metric == VEX_METRIC_COSINE && distance < 1e-3f;
}

vex_status vexi_query_init(vexi_query *query, vex_metric metric, const float *values,
                           uint32_t dimension, vexi_arena *arena, vex_error *err);

/* Consecutive rows of a source at one address. */
typedef struct vexi_run {
    const uint8_t *vectors; /* any alignment; row i at vectors + i * stride                   */
    size_t stride;          /* bytes                                                          */
    size_t count;
    uint64_t first_row; /* row position of the first                                      */
    const uint8_t *inverse_norms; /* float32 1/|x| per row (0 for a zero row), little-endian, any
                                    alignment; cosine only, else NULL */
} vexi_run;

/* Compare and push. Distances: squared L2, 1 - cosine, -dot, in float32. hidden: bit set = row is
 * not a candidate, by row position; may be NULL. Returns the rows compared. */
size_t vexi_flat_scan(const vexi_query *query, const vexi_run *run, uint32_t source,
                      const uint64_t *hidden, vexi_topk *topk);

/* The greatest float32 distance, by vexi_flat_scan or over rows anywhere (query/scan.c), of a row
 * whose distance in double (vexi_distance) is at most `distance`: a row beyond is farther. INFINITY
 * where nothing can be said. row_length_max: no row is longer (inner product; INFINITY: unknown).
 */
float vexi_flat_limit(const vexi_query *query, double distance, double row_length_max);

/* The rows of the run whose float32 distances are at most `limit`, hidden ones left out: positions
 * go to `rows` (room for run->count). Returns how many. */
size_t vexi_flat_within(const vexi_query *query, const vexi_run *run, const uint64_t *hidden,
                        float limit, uint64_t *rows);

/* The greatest |x| of the run, or a little more: never less. */
float vexi_flat_length_max(const vexi_run *run, uint32_t dimension);

#endif
