/* Lloyd's algorithm (Lloyd 1957, 1982) with a blocked matrix product for the assignment.
 *
 * nearest = argmin |c|^2 / 2 - x . c: one product of a chunk of rows with all centroids, a block of
 * centroids at a time so that the products stay in the level-2 cache. Means are sums in double over
 * the members in row order.
 *
 * The same on any number of threads: assignment is per row and means are per cluster, and work is
 * cut the same way always; threads take pieces from a counter, each with scratch memory of its own.
 *
 * Start: distinct rows drawn at random. A cluster that lost all its rows, or has very few while
 * another has very many, restarts at a random member of the largest. The early iterations, which
 * move the centroids far, take a quarter of the rows: on 131,072 x 128 that saves a third of the
 * time at the same recall. Tried without gain in recall: more than 10 iterations. */
#include "index/kmeans.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/random.h"
#include "kernel/kernel.h"

#define BLOCK_CENTROIDS 256u
#define CHUNK_ROWS_MAX  504u /* a multiple of the matrix kernels' 6 and 12 rows */
#define CHUNK_VALUES    65536u
/* The first half of the iterations takes every PART_STEP-th row, if that leaves PART_MIN per
 * cluster. */
#define PART_STEP 4u
#define PART_MIN  12u
/* A cluster of less than 1 / TINY of the mean size moves into one of more than LARGE times the
 * mean, one of less than 1 / SMALL into one of more than GIANT times, until SPLIT_END iterations
 * before the last. */
#define TINY      8u
#define LARGE     2u
#define SMALL     2u
#define GIANT     3u
#define SPLIT_END 3u

void vexi_kmeans_row(const vexi_kmeans_rows *rows, uint32_t i, float *out) {
    uint32_t number = rows->picks == NULL ? i : rows->picks[i];
    const float *row = rows->rows[number];
    if (rows->scales == NULL) {
        memcpy(out, row, rows->dimension * sizeof *out);
        return;
    }
    double scale = rows->scales[number];
    for (size_t j = 0; j < rows->dimension; j++) {
        out[j] = (float)(row[j] * scale);
    }
}

/* Assignment */

typedef struct assignment {
    const vexi_kmeans_rows *rows;
    const float *centroids;
    const float *half_squares; /* |c|^2 / 2 per centroid */
    uint32_t cluster_count;
    uint32_t chunk_rows;
    uint32_t chunk_count;
    uint32_t *nearest;
    float *scratch; /* scratch_size values per thread: a chunk's rows, then its products */
    size_t scratch_size;
    atomic_uint_fast32_t next_chunk;
    atomic_uint_fast32_t changed;
} assignment;

static void assign_chunk(assignment *job, uint32_t chunk, float *scratch) {
    const vexi_kernels *kernels = vexi_kernels_get();
    uint32_t dimension = job->rows->dimension;
    uint32_t first = chunk * job->chunk_rows;
    uint32_t count = job->rows->count - first;
    count = count < job->chunk_rows ? count : job->chunk_rows;
    float *products = scratch + (size_t)job->chunk_rows * dimension;
    float best[CHUNK_ROWS_MAX];
    uint32_t nearest[CHUNK_ROWS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        vexi_kmeans_row(job->rows, first + i, scratch + (size_t)i * dimension);
        best[i] = INFINITY;
        nearest[i] = 0; /* where products overflow, any cluster is as good */
    }
    for (uint32_t c = 0; c < job->cluster_count; c += BLOCK_CENTROIDS) {
        uint32_t block = job->cluster_count - c;
        block = block < BLOCK_CENTROIDS ? block : BLOCK_CENTROIDS;
        kernels->dot_matrix(scratch, count, job->centroids + (size_t)c * dimension, block,
                            dimension, products, block);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t index = 0;
            float before = best[i];
            kernels->least(job->half_squares + c, products + (size_t)i * block, block, &best[i],
                           &index);
            nearest[i] = best[i] < before ? c + index : nearest[i];
        }
    }
    uint32_t changed = 0;
    for (uint32_t i = 0; i < count; i++) {
        changed += job->nearest[first + i] != nearest[i];
        job->nearest[first + i] = nearest[i];
    }
    atomic_fetch_add_explicit(&job->changed, changed, memory_order_relaxed);
}

static void assign_chunks(void *argument, size_t worker) {
    assignment *job = argument;
    for (;;) {
        uint32_t chunk =
            (uint32_t)atomic_fetch_add_explicit(&job->next_chunk, 1, memory_order_relaxed);
        if (chunk >= job->chunk_count || vexi_is_cancelled(job->rows->cancel)) {
            return;
        }
        assign_chunk(job, chunk, job->scratch + worker * job->scratch_size);
    }
}

static uint32_t worker_count(const vexi_env *env, uint32_t pieces) {
    uint32_t threads = env->thread_count == 0 ? 1 : env->thread_count;
    return threads < pieces ? threads : pieces;
}

vex_status vexi_kmeans_assign(const vexi_env *env, const vexi_kmeans_rows *rows,
                              const float *centroids, uint32_t cluster_count, uint32_t *nearest,
                              uint32_t *changed, vex_error *err) {
    assignment job = {
        .rows = rows, .centroids = centroids, .cluster_count = cluster_count, .nearest = nearest};
    job.chunk_rows = CHUNK_VALUES / rows->dimension / 12 * 12;
    job.chunk_rows = job.chunk_rows < 24               ? 24
                     : job.chunk_rows > CHUNK_ROWS_MAX ? CHUNK_ROWS_MAX
                                                       : job.chunk_rows;
    job.chunk_count = rows->count / job.chunk_rows + (rows->count % job.chunk_rows != 0);
    job.scratch_size = (size_t)job.chunk_rows * (rows->dimension + BLOCK_CENTROIDS);
    uint32_t workers = worker_count(env, job.chunk_count);
    vex_status status = VEX_OK;
    size_t scratch_total = job.scratch_size * workers;
    job.scratch = vexi_alloc_array(env, scratch_total, sizeof *job.scratch);
    float *half_squares = vexi_alloc_array(env, cluster_count, sizeof *half_squares);
    if (job.scratch == NULL || half_squares == NULL) {
        status = vexi_no_memory(err, (scratch_total + cluster_count) * sizeof *job.scratch);
        goto done;
    }
    vexi_kernels_get()->norm((const uint8_t *)centroids, rows->dimension * sizeof *centroids,
                             cluster_count, rows->dimension, half_squares);
    for (uint32_t c = 0; c < cluster_count; c++) {
        half_squares[c] *= 0.5f;
    }
    job.half_squares = half_squares;
    vexi_parallel(env, workers, assign_chunks, &job);
    VEX_TRY_GOTO(status, done, vexi_cancel_check(rows->cancel, err));
    if (changed != NULL) {
        *changed = (uint32_t)job.changed;
    }
done:
    vexi_free(env, job.scratch);
    vexi_free(env, half_squares);
    return status;
}

/* Means */

void vexi_kmeans_group(const uint32_t *nearest, uint32_t count, uint32_t cluster_count,
                       uint32_t *first, uint32_t *members) {
    memset(first, 0, ((size_t)cluster_count + 1) * sizeof *first);
    for (uint32_t i = 0; i < count; i++) {
        first[nearest[i] + 1]++;
    }
    for (uint32_t c = 0; c < cluster_count; c++) {
        first[c + 1] += first[c];
    }
    for (uint32_t i = 0; i < count; i++) {
        members[first[nearest[i]]++] = i;
    }
    /* Each offset now is its cluster's end; move them back by one. */
    memmove(first + 1, first, cluster_count * sizeof *first);
    first[0] = 0;
}

typedef struct means {
    const vexi_kmeans_rows *rows;
    const uint32_t *first;
    const uint32_t *members;
    uint32_t cluster_count;
    float *centroids;
    double *sums; /* a row of doubles and a row of floats per thread, of sum_size doubles */
    size_t sum_size;
    atomic_uint_fast32_t next_cluster;
} means;

static void mean_of_cluster(means *job, uint32_t cluster, double *sum) {
    uint32_t dimension = job->rows->dimension;
    uint32_t begin = job->first[cluster], end = job->first[cluster + 1];
    if (begin == end) {
        return;
    }
    float *row = (float *)(sum + dimension);
    memset(sum, 0, dimension * sizeof *sum);
    for (uint32_t m = begin; m < end; m++) {
        vexi_kmeans_row(job->rows, job->members[m], row);
        for (size_t j = 0; j < dimension; j++) {
            sum[j] += row[j];
        }
    }
    float *centroid = job->centroids + (size_t)cluster * dimension;
    bool unit = job->rows->scales != NULL;
    double inverse = 1.0 / (end - begin);
    double square = 0;
    for (size_t j = 0; j < dimension; j++) {
        sum[j] *= inverse;
        square += sum[j] * sum[j];
    }
    /* Opposite unit vectors cancel; then the first member stands for its cluster. */
    if (unit && square < 1e-12) {
        vexi_kmeans_row(job->rows, job->members[begin], centroid);
        return;
    }
    inverse = unit ? 1.0 / sqrt(square) : 1.0;
    for (size_t j = 0; j < dimension; j++) {
        centroid[j] = (float)(sum[j] * inverse);
    }
}

static void mean_of_clusters(void *argument, size_t worker) {
    means *job = argument;
    for (;;) {
        uint32_t cluster =
            (uint32_t)atomic_fetch_add_explicit(&job->next_cluster, 1, memory_order_relaxed);
        if (cluster >= job->cluster_count) {
            return;
        }
        mean_of_cluster(job, cluster, job->sums + worker * job->sum_size);
    }
}

vex_status vexi_kmeans_means(const vexi_env *env, const vexi_kmeans_rows *rows,
                             const uint32_t *first, const uint32_t *members, uint32_t cluster_count,
                             float *centroids, vex_error *err) {
    means job = {.rows = rows,
                 .first = first,
                 .members = members,
                 .cluster_count = cluster_count,
                 .centroids = centroids};
    uint32_t workers = worker_count(env, cluster_count);
    job.sum_size = (size_t)rows->dimension * 2 + 16;
    job.sums = vexi_alloc_array(env, job.sum_size * workers, sizeof *job.sums);
    if (job.sums == NULL) {
        return vexi_no_memory(err, job.sum_size * workers * sizeof *job.sums);
    }
    vexi_parallel(env, workers, mean_of_clusters, &job);
    vexi_free(env, job.sums);
    return VEX_OK;
}

/* Training */

/* Start at distinct rows: the head of a random permutation. `numbers` is scratch for rows->count.
 */
static void start_centroids(const vexi_kmeans_rows *rows, uint32_t cluster_count, uint64_t *random,
                            uint32_t *numbers, float *centroids) {
    for (uint32_t i = 0; i < rows->count; i++) {
        numbers[i] = i;
    }
    for (uint32_t c = 0; c < cluster_count; c++) {
        uint32_t other = c + (uint32_t)(vexi_random_next(random) % (rows->count - c));
        uint32_t swap = numbers[c];
        numbers[c] = numbers[other];
        numbers[other] = swap;
        vexi_kmeans_row(rows, numbers[c], centroids + (size_t)c * rows->dimension);
    }
}

/* The largest then counts as halved. */
void vexi_kmeans_split_largest(const vexi_kmeans_rows *rows, const uint32_t *first,
                               const uint32_t *members, uint32_t cluster_count, uint64_t *random,
                               uint32_t *sizes, float *centroids) {
    uint32_t mean = rows->count / cluster_count;
    for (uint32_t c = 0; c < cluster_count; c++) {
        sizes[c] = first[c + 1] - first[c];
    }
    for (uint32_t c = 0; c < cluster_count; c++) {
        if (sizes[c] > mean / SMALL) {
            continue;
        }
        uint32_t largest = 0;
        for (uint32_t i = 1; i < cluster_count; i++) {
            largest = sizes[i] > sizes[largest] ? i : largest;
        }
        uint32_t times = sizes[c] <= mean / TINY ? LARGE : GIANT;
        if (sizes[c] > 0 && sizes[largest] / times <= mean) {
            continue;
        }
        uint32_t size = first[largest + 1] - first[largest];
        uint32_t member = members[first[largest] + vexi_random_next(random) % size];
        vexi_kmeans_row(rows, member, centroids + (size_t)c * rows->dimension);
        sizes[largest] = (sizes[largest] + 1) / 2;
    }
}

vex_status vexi_kmeans_train(const vexi_env *env, const vexi_kmeans_rows *rows,
                             uint32_t cluster_count, uint32_t iteration_max, uint64_t seed,
                             float *centroids, vex_error *err) {
    VEX_ASSERT(cluster_count >= 1 && cluster_count <= rows->count);
    uint64_t random = seed;
    vex_status status = VEX_OK;
    vexi_kmeans_rows part = *rows;
    uint32_t *picks = vexi_alloc_array(env, rows->count / PART_STEP + 1, sizeof *picks);
    uint32_t *nearest = vexi_calloc(env, rows->count, sizeof *nearest);
    uint32_t *members = vexi_alloc_array(env, rows->count, sizeof *members);
    uint32_t *first = vexi_alloc_array(env, (size_t)cluster_count + 1, sizeof *first);
    uint32_t *sizes = vexi_alloc_array(env, cluster_count, sizeof *sizes);
    if (picks == NULL || nearest == NULL || members == NULL || first == NULL || sizes == NULL) {
        status = vexi_no_memory(err, ((size_t)rows->count + cluster_count) * 2 * sizeof *nearest);
        goto done;
    }
    start_centroids(rows, cluster_count, &random, members, centroids);
    part.count = (rows->count - 1) / PART_STEP + 1;
    part.picks = picks;
    for (uint32_t i = 0; i < part.count; i++) {
        picks[i] = rows->picks == NULL ? i * PART_STEP : rows->picks[i * PART_STEP];
    }
    const vexi_kmeans_rows *now = part.count / PART_MIN >= cluster_count ? &part : rows;
    bool settled = false; /* no row of `now` changed its cluster */
    for (uint32_t iteration = 0; iteration < iteration_max; iteration++) {
        bool first_of_all = now == &part && (settled || iteration >= iteration_max / 2);
        now = first_of_all ? rows : now;
        uint32_t changed;
        VEX_TRY_GOTO(
            status, done,
            vexi_kmeans_assign(env, now, centroids, cluster_count, nearest, &changed, err));
        /* The first time `changed` compares with numbers of other rows. */
        settled = changed == 0 && iteration > 0 && !first_of_all;
        if (settled && now == rows) {
            break;
        }
        vexi_kmeans_group(nearest, now->count, cluster_count, first, members);
        VEX_TRY_GOTO(status, done,
                     vexi_kmeans_means(env, now, first, members, cluster_count, centroids, err));
        if (iteration + SPLIT_END < iteration_max) {
            vexi_kmeans_split_largest(now, first, members, cluster_count, &random, sizes,
                                      centroids);
        }
    }
done:
    vexi_free(env, picks);
    vexi_free(env, nearest);
    vexi_free(env, members);
    vexi_free(env, first);
    vexi_free(env, sizes);
    return status;
}
