/* Training many centroids in two levels.
 *
 * Lloyd's algorithm costs rows x centroids; with as many rows as a centroid needs that grows by the
 * square of the centroids. So coarse clusters are trained on a part of the rows, each gets a share
 * of the centroids in proportion to its rows (so lists are balanced from the start), these are
 * trained on the coarse cluster's rows alone, and a few rounds of Lloyd's algorithm over all rows
 * and all centroids, assigned by way of groups (kmeans_near.h), mend the seams.
 *
 * Deterministic: a coarse cluster is trained by one thread, from a seed of its own. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/random.h"
#include "index/kmeans_near.h"

#define COARSE_ROWS 256u /* rows per coarse cluster in its training */

typedef struct coarse {
    const vexi_kmeans_rows *rows;
    const uint32_t *first;   /* rows of each coarse cluster: offsets into picks */
    const uint32_t *picks;   /* numbers as in rows->rows, by coarse cluster     */
    const uint32_t *targets; /* centroids of each: offsets, count + 1           */
    uint32_t iteration_max;
    uint64_t seed;
    float *centroids;
    vexi_env serial;
    atomic_int status;
} coarse;

static void run_serially(void *context, size_t count, void (*function)(void *, size_t),
                         void *argument) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        function(argument, i);
    }
}

static void train_coarse(void *argument, size_t c) {
    coarse *job = argument;
    uint32_t wanted = job->targets[c + 1] - job->targets[c];
    if (wanted == 0) {
        return;
    }
    vexi_kmeans_rows rows = *job->rows;
    rows.picks = job->picks + job->first[c];
    rows.count = job->first[c + 1] - job->first[c];
    vex_error err;
    vex_status status = vexi_kmeans_train(
        &job->serial, &rows, wanted, job->iteration_max, job->seed + 0x9e3779b97f4a7c15u * c,
        job->centroids + (size_t)job->targets[c] * rows.dimension, &err);
    if (status != VEX_OK) {
        atomic_store(&job->status, (int)status);
    }
}

/* Give each coarse cluster its share of cluster_count, by its rows and never more than these:
 * boundaries of the running sum of rows, rounded. */
static void share_out(const uint32_t *first, uint32_t coarse_count, uint32_t cluster_count,
                      uint32_t *targets) {
    uint64_t row_count = first[coarse_count];
    for (uint32_t c = 0; c <= coarse_count; c++) {
        targets[c] = (uint32_t)(((uint64_t)first[c] * cluster_count + row_count / 2) / row_count);
    }
}

vex_status vexi_kmeans_train_tree(const vexi_env *env, const vexi_kmeans_rows *rows,
                                  uint32_t cluster_count, uint32_t iteration_max, uint32_t rounds,
                                  uint64_t seed, float *centroids, vex_error *err) {
    VEX_ASSERT(cluster_count >= 1 && cluster_count <= rows->count);
    uint64_t random = seed;
    vex_status status = VEX_OK;
    uint32_t dimension = rows->dimension;
    uint32_t coarse_count = (uint32_t)sqrt((double)cluster_count);
    vexi_kmeans_groups groups = {0};
    float *middles = vexi_alloc_aligned(env, (size_t)coarse_count * dimension * sizeof *middles);
    uint32_t *nearest = vexi_calloc(env, rows->count, sizeof *nearest);
    uint32_t *members = vexi_alloc_array(env, rows->count, sizeof *members);
    uint32_t *picks = vexi_alloc_array(env, rows->count, sizeof *picks);
    uint32_t *first = vexi_alloc_array(env, (size_t)cluster_count + 1, sizeof *first);
    uint32_t *sizes = vexi_alloc_array(env, (size_t)cluster_count + 1, sizeof *sizes);
    if (middles == NULL || nearest == NULL || members == NULL || picks == NULL || first == NULL ||
        sizes == NULL) {
        status = vexi_no_memory(err, ((size_t)rows->count * 3 + cluster_count) * sizeof *nearest);
        goto done;
    }
    /* Coarse clusters, from evenly spaced rows. */
    vexi_kmeans_rows part = *rows;
    part.count =
        coarse_count * COARSE_ROWS < rows->count ? coarse_count * COARSE_ROWS : rows->count;
    part.picks = picks;
    for (uint64_t i = 0; i < part.count; i++) {
        uint32_t at = (uint32_t)(i * rows->count / part.count);
        picks[i] = rows->picks == NULL ? at : rows->picks[at];
    }
    VEX_TRY_GOTO(status, done,
                 vexi_kmeans_train(env, &part, coarse_count, iteration_max,
                                   vexi_random_next(&random), middles, err));
    VEX_TRY_GOTO(status, done,
                 vexi_kmeans_assign(env, rows, middles, coarse_count, nearest, NULL, err));
    vexi_kmeans_group(nearest, rows->count, coarse_count, first, members);
    for (uint32_t i = 0; i < rows->count; i++) {
        picks[i] = rows->picks == NULL ? members[i] : rows->picks[members[i]];
    }
    share_out(first, coarse_count, cluster_count, sizes);
    coarse job = {.rows = rows,
                  .first = first,
                  .picks = picks,
                  .targets = sizes,
                  .iteration_max = iteration_max,
                  .seed = vexi_random_next(&random),
                  .centroids = centroids,
                  .serial = *env};
    job.serial.parallel = run_serially;
    job.serial.thread_count = 1;
    vexi_parallel(env, coarse_count, train_coarse, &job);
    VEX_TRY_GOTO(status, done, vexi_cancel_check(rows->cancel, err));
    if (atomic_load(&job.status) != VEX_OK) {
        status = vexi_no_memory(err, (size_t)rows->count * sizeof *nearest);
        goto done;
    }
    for (uint32_t round = 0; round < rounds; round++) {
        VEX_TRY_GOTO(status, done,
                     vexi_kmeans_groups_init(env, centroids, cluster_count, dimension, 0,
                                             vexi_random_next(&random), &groups, err));
        VEX_TRY_GOTO(status, done, vexi_kmeans_assign_near(env, rows, &groups, nearest, NULL, err));
        vexi_kmeans_groups_deinit(env, &groups);
        vexi_kmeans_group(nearest, rows->count, cluster_count, first, members);
        VEX_TRY_GOTO(status, done,
                     vexi_kmeans_means(env, rows, first, members, cluster_count, centroids, err));
        if (round + 1 < rounds) {
            vexi_kmeans_split_largest(rows, first, members, cluster_count, &random, sizes,
                                      centroids);
        }
    }
done:
    vexi_kmeans_groups_deinit(env, &groups);
    vexi_free(env, middles);
    vexi_free(env, nearest);
    vexi_free(env, members);
    vexi_free(env, picks);
    vexi_free(env, first);
    vexi_free(env, sizes);
    return status;
}
