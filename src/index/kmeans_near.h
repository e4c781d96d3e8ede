/* The nearest of many centroids by way of groups of them. Internal to the index module. */
#ifndef VEXI_INDEX_KMEANS_NEAR_H
#define VEXI_INDEX_KMEANS_NEAR_H

#include "base/arena.h"
#include "index/kmeans.h"

/* Centroids in groups of near ones. */
typedef struct vexi_kmeans_groups {
    uint32_t dimension;
    uint32_t cluster_count;
    uint32_t group_count;
    float *middles;      /* group_count x dimension: the mean of a group's centroids */
    uint32_t *first;     /* group_count + 1 offsets into members                     */
    uint32_t *members;   /* the centroids' numbers by group, ascending within        */
    float *centroids;    /* cluster_count x dimension, in the order of members       */
    float *half_squares; /* |c|^2 / 2 in that order                                  */
    uint32_t visits;     /* groups that are looked into for a row                    */
} vexi_kmeans_groups;

/* Group centroids (copied). visits 0: default. Deterministic for a seed. Freed by deinit. */
vex_status vexi_kmeans_groups_init(const vexi_env *env, const float *centroids,
                                   uint32_t cluster_count, uint32_t dimension, uint32_t visits,
                                   uint64_t seed, vexi_kmeans_groups *out, vex_error *err);
void vexi_kmeans_groups_deinit(const vexi_env *env, vexi_kmeans_groups *groups);

/* As vexi_kmeans_assign, but nearest[i] is the nearest among the centroids of the groups whose
 * middles are nearest to row i, which nearly always is the nearest of all. */
vex_status vexi_kmeans_assign_near(const vexi_env *env, const vexi_kmeans_rows *rows,
                                   const vexi_kmeans_groups *groups, uint32_t *nearest,
                                   uint32_t *changed, vex_error *err);

/* As vexi_kmeans_train for many centroids (cluster_count 1 .. rows->count): coarse clusters first,
 * in each a share of the centroids by its rows, then `rounds` of Lloyd's algorithm over all. */
vex_status vexi_kmeans_train_tree(const vexi_env *env, const vexi_kmeans_rows *rows,
                                  uint32_t cluster_count, uint32_t iteration_max, uint32_t rounds,
                                  uint64_t seed, float *centroids, vex_error *err);

#endif
