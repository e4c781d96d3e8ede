/* What the files of the IVF share. */
#ifndef VEXI_INDEX_IVF_INTERNAL_H
#define VEXI_INDEX_IVF_INTERNAL_H

#include "index/ivf.h"

/* Fill order[0 .. count - 1] with a permutation of the centroids in which near ones are close. */
vex_status vexi_ivf_order_lists(const vexi_env *env, const float *centroids, uint32_t count,
                                uint32_t dimension, uint32_t *order, vex_error *err);

/* The two halves of vexi_ivf_rank: what lists are ranked by (less comes first), and the order,
 * which replaces the scores by its scratch. */
void vexi_ivf_score(const vexi_query *query, const float *centroids, uint32_t list_count,
                    float *scores);
void vexi_ivf_sort_lists(float *scores, uint32_t list_count, uint32_t *lists);

#endif
