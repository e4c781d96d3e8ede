/* k-means over rows given by pointers: Lloyd's algorithm with exact assignment.
 *
 * Deterministic for a seed, whatever the number of threads. Internal to the index module. */
#ifndef VEXI_INDEX_KMEANS_H
#define VEXI_INDEX_KMEANS_H

#include "base/env.h"
#include "index/cancel.h"

/* The rows to cluster. */
typedef struct vexi_kmeans_rows {
    const float *const *rows; /* aligned to 4 bytes, finite                                */
    const uint32_t *picks;    /* row i is rows[picks[i]]; NULL: row i is rows[i]           */
    uint32_t count;
    uint32_t dimension;
    const double *scales; /* NULL, or what rows[r] is multiplied by as it is read (one per entry of
                             `rows`): 1/|row|, so that rows and centroids are unit vectors       */
    const int *cancel; /* atomic; not 0 ends training and assigning with VEX_CANCELLED; or NULL */
} vexi_kmeans_rows;

/* Copy row i as it is clustered (scaled) to out. */
void vexi_kmeans_row(const vexi_kmeans_rows *rows, uint32_t i, float *out);

/* Train cluster_count (1 .. rows->count) centroids, row-major, into centroids. Some may attract no
 * row where rows are equal. */
vex_status vexi_kmeans_train(const vexi_env *env, const vexi_kmeans_rows *rows,
                             uint32_t cluster_count, uint32_t iteration_max, uint64_t seed,
                             float *centroids, vex_error *err);

/* nearest[i] = the centroid of least squared distance to row i, the lowest of equals; *changed, if
 * not NULL, receives how many entries were different before. */
vex_status vexi_kmeans_assign(const vexi_env *env, const vexi_kmeans_rows *rows,
                              const float *centroids, uint32_t cluster_count, uint32_t *nearest,
                              uint32_t *changed, vex_error *err);

/* Rows by cluster: first receives cluster_count + 1 offsets into members, members the numbers
 * 0 .. count - 1 sorted by (nearest, number). */
void vexi_kmeans_group(const uint32_t *nearest, uint32_t count, uint32_t cluster_count,
                       uint32_t *first, uint32_t *members);

/* centroids[c] = mean of the rows members[first[c] .. first[c + 1] - 1] (scaled to length 1 if
 * the rows are); a cluster without members keeps its centroid. */
vex_status vexi_kmeans_means(const vexi_env *env, const vexi_kmeans_rows *rows,
                             const uint32_t *first, const uint32_t *members, uint32_t cluster_count,
                             float *centroids, vex_error *err);

/* Move the centroids of clusters that are empty, or tiny while another is large, to random members
 * of the largest cluster of the moment. sizes: scratch, cluster_count values. */
void vexi_kmeans_split_largest(const vexi_kmeans_rows *rows, const uint32_t *first,
                               const uint32_t *members, uint32_t cluster_count, uint64_t *random,
                               uint32_t *sizes, float *centroids);

#endif
