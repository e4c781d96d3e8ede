/* IVF: rows in lists around k-means centroids; a search compares the rows of the nearest lists.
 *
 * Inverted file (Sivic & Zisserman 2003; Jegou et al. 2011). Pure computation over given memory:
 * building yields centroids and an order of the rows, searching names the lists to probe, and the
 * caller fetches them. Under cosine the rows are clustered as unit vectors; under inner product
 * lists are ranked by the dot product with the centroid. */
#ifndef VEXI_INDEX_IVF_H
#define VEXI_INDEX_IVF_H

#include "index/flat.h"

typedef struct vexi_ivf_options {
    uint32_t list_count; /* 0: chosen from the row count                                          */
    uint64_t seed;
    uint32_t iteration_max; /* 0: default */
} vexi_ivf_options;

typedef struct vexi_ivf {
    uint32_t list_count;
    uint32_t dimension;
    float *centroids; /* list_count x dimension, 64-byte aligned                               */
    float *radii;     /* list_count: largest distance (not squared) of a row to its centroid,
                         rounded up; infinite where a float32 cannot hold it               */
    uint32_t *list_first; /* list_count + 1: first row position of each list, in the new order */
    uint32_t *order; /* row_count: order[position] = row in the input                         */
} vexi_ivf;

/* Cluster row_count rows (row i at rows[i], each dimension float32s, aligned to 4 bytes). Lists are
 * numbered so that near centroids have near numbers (probed lists then coalesce). Deterministic
 * for a seed, whatever the number of threads. Uses env's parallel. Freed by vexi_ivf_deinit.
 * Handles duplicates, constant rows, fewer distinct rows than lists (empty lists are dropped). */
vex_status vexi_ivf_build(const vexi_env *env, const float *const *rows, uint32_t row_count,
                          uint32_t dimension, vex_metric metric, const vexi_ivf_options *options,
                          vexi_ivf *out, vex_error *err);
void vexi_ivf_deinit(const vexi_env *env, vexi_ivf *ivf);

/* Lists that vexi_ivf_build makes by default for so many rows; 0 where flat is better. */
uint32_t vexi_ivf_default_list_count(uint64_t row_count, uint32_t dimension);
/* Lists to probe by default: a fixed rule until calibration comes. */
uint32_t vexi_ivf_default_nprobe(uint32_t list_count, uint32_t k);

/* Rank the lists for a query: fills lists[0..list_count-1] nearest first. centroids: list_count x
 * dimension float32, at any 4-byte aligned address (mapped file). scratch: list_count floats. */
void vexi_ivf_rank(const vexi_query *query, const float *centroids, uint32_t list_count,
                   uint32_t *lists, float *scratch);

#endif
