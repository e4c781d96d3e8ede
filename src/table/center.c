/* Where the codes of new rows are centred: at the mean of the newest segment that has codes.
 *
 * New rows are mostly like the newest ones. The mean of the segment's centroids, weighted by their
 * lists, is the mean of its rows (of unit vectors under cosine, then scaled to unit length), and
 * costs a pass over the head of the index file instead of one over the rows. */
#include "table/table_internal.h"

#include <math.h>

#include "base/guard.h"

typedef struct center_job {
    const vexi_index_file *index;
    double *sums; /* dimension */
} center_job;

static vex_status mean_guarded(void *argument, vex_error *err) {
    (void)err;
    center_job *job = argument;
    const vexi_index_file *index = job->index;
    for (uint32_t list = 0; list < index->list_count; list++) {
        double weight = (double)(index->list_first[list + 1] - index->list_first[list]) /
                        (double)index->row_count;
        const float *centroid = index->centroids + (size_t)list * index->dimension;
        for (uint32_t i = 0; i < index->dimension; i++) {
            job->sums[i] += weight * (double)centroid[i];
        }
    }
    return VEX_OK;
}

/* NULL where it cannot be told. */
static float *center_of(const vexi_env *env, const vexi_segment *segment) {
    const vexi_index_file *index = vexi_segment_ivf(segment);
    center_job job = {.index = index, .sums = vexi_calloc(env, index->dimension, sizeof(double))};
    float *center = vexi_alloc_array(env, index->dimension, sizeof *center);
    vex_status status = job.sums == NULL || center == NULL
                            ? VEX_MEMORY
                            : vexi_guard_run(mean_guarded, &job, "index", NULL);
    double square = 0;
    for (uint32_t i = 0; i < index->dimension && status == VEX_OK; i++) {
        square += job.sums[i] * job.sums[i];
    }
    double scale = index->metric != VEX_METRIC_COSINE ? 1 : square > 1e-12 ? 1 / sqrt(square) : 0;
    for (uint32_t i = 0; i < index->dimension && status == VEX_OK; i++) {
        center[i] = (float)(job.sums[i] * scale);
        status = isfinite(center[i]) ? VEX_OK : VEX_CORRUPT;
    }
    vexi_free(env, job.sums);
    if (status != VEX_OK) {
        vexi_free(env, center);
        return NULL;
    }
    return center;
}

void table_center_update(vexi_table *table) {
    const vexi_env *env = table->core->env;
    const vexi_segment *newest = NULL;
    for (size_t i = table->segment_count; i-- > 0 && newest == NULL;) {
        const vexi_index_file *index = vexi_segment_ivf(table->segments[i].segment);
        bool coded = index != NULL && index->code_bits != 0 && index->row_count > 0;
        newest = coded ? table->segments[i].segment : NULL;
    }
    if (newest == NULL || newest == table->center_segment) {
        return; /* one that is gone is as good a place as any */
    }
    float *center = center_of(env, newest);
    if (center == NULL) {
        return;
    }
    table->center_segment = newest;
    pthread_mutex_lock(&table->state_lock);
    float *old = table->center;
    table->center = center;
    table->center_row_length = vexi_segment_ivf(newest)->row_length;
    pthread_mutex_unlock(&table->state_lock);
    vexi_free(env, old);
}
