/* Calibrating an IVF: how many lists hold the true neighbours.
 *
 * For each true neighbour of each query of the sample: the rank of its list in the order of
 * vexi_ivf_rank. The recall of nprobe lists at k is then the share of neighbours of smaller rank.
 *
 * A row of the segment has drawn the centroid of its own list towards itself, by 1 / size of the
 * list: in small lists its neighbours there would seem easier to find than those of a query that is
 * not in the segment. So its own list is ranked by the centre of the other members.
 *
 * Queries from outside are harder than rows, which have relatives in the segment: on 20,000
 * sentence embeddings with 500 real queries, rows miss half as much. So the table asks for 0.38 of
 * the misses, and for a standard error more, so that the chance of the draw rarely leaves a search
 * below its target. There, over five seeds each, what searches for 0.95 and 0.99 found:
 *
 *                       0.45 of the misses             0.38
 *       384 queries     0.952-0.969   0.990-0.996      0.964-0.973   0.990-0.995
 *     1,152 queries     0.954-0.967   0.990-0.994      0.963-0.972   0.992-0.996
 *
 * (and 0.988 in a sixth run with 384 and 0.45). On SIFT, whose queries are like its rows, rows
 * alone would foretell the probes within 6 %; this takes up to twice as many and gives 0.98 and
 * 0.997.
 *
 * Tried without gain: noise of up to half of the tenth neighbour's distance (hardly moves text),
 * midpoints of rows (easier than rows), weights by the neighbours' distance and the half of the
 * rows whose neighbours are farthest (text at k = 100 still below its target, the same excess
 * for SIFT), leaving out rows with near duplicates. Tried and dropped: stopping a query at the list
 * with |q - c|^2 > |q - c_9|^2 + t d_k (d_k: the k-th distance so far). It saves 20 to 35 % of the
 * lists on SIFT and 4 % on text, but ranking the lists that hard queries want costs as much.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "index/ivf_internal.h"

#define STANDARD_ERRORS 1.0
#define MISSES          0.38

typedef struct ranking {
    const vexi_env *env;
    const vexi_ivf *ivf;
    vex_metric metric;
    const vexi_calibration_sample *sample;
    const uint32_t *list_of; /* per row */
    uint32_t *ranks;         /* query_count x k: lists before the answer's */
    double length;           /* cosine: typical length of the mean of a list's unit vectors */
    atomic_bool failed;
} ranking;

/* The score of the list of a query's own row, which is at `row` or near it, without that row: the
 * centre of all n members is c, that of the others (n c - row) / (n - 1). other: a padded vector of
 * scratch. */
static float score_without(const ranking *job, const vexi_query *query, uint32_t list,
                           const float *row, float *other) {
    const vexi_ivf *ivf = job->ivf;
    const float *centroid = ivf->centroids + (size_t)list * ivf->dimension;
    double size = ivf->list_first[list + 1] - ivf->list_first[list], square = 0;
    bool unit = job->metric == VEX_METRIC_COSINE;
    /* Cosine's centroids were scaled to length 1. */
    double weight = unit ? size * job->length : size;
    for (size_t j = 0; j < ivf->dimension; j++) {
        double value = (weight * centroid[j] - row[j]) / (size - 1);
        other[j] = (float)value;
        square += value * value;
    }
    for (size_t j = 0; unit && square > 0 && j < ivf->dimension; j++) {
        other[j] = (float)(other[j] / sqrt(square));
    }
    float score;
    vexi_ivf_score(query, other, 1, &score);
    return score;
}

static uint32_t list_size(const vexi_ivf *ivf, uint32_t list) {
    return ivf->list_first[list + 1] - ivf->list_first[list];
}

static void rank_query(void *argument, size_t number) {
    ranking *job = argument;
    const vexi_ivf *ivf = job->ivf;
    const vexi_calibration_sample *sample = job->sample;
    vexi_arena arena;
    vexi_arena_init(&arena, job->env);
    vexi_query query;
    vex_error err;
    float *scores = vexi_arena_array(&arena, ivf->list_count, sizeof *scores);
    uint32_t *lists = vexi_arena_array(&arena, ivf->list_count, sizeof *lists);
    uint32_t *ranks = vexi_arena_array(&arena, ivf->list_count, sizeof *ranks);
    float *other = vexi_arena_array(&arena, ivf->dimension, sizeof *other);
    if (scores == NULL || lists == NULL || ranks == NULL || other == NULL ||
        vexi_query_init(&query, job->metric, sample->queries + number * ivf->dimension,
                        ivf->dimension, &arena, &err) != VEX_OK) {
        atomic_store(&job->failed, true);
        vexi_arena_deinit(&arena);
        return;
    }
    vexi_ivf_score(&query, ivf->centroids, ivf->list_count, scores);
    uint32_t list = job->list_of[sample->excluded[number]];
    if (list_size(ivf, list) > 1) {
        scores[list] =
            score_without(job, &query, list, sample->queries + number * ivf->dimension, other);
    }
    vexi_ivf_sort_lists(scores, ivf->list_count, lists);
    for (uint32_t i = 0; i < ivf->list_count; i++) {
        ranks[lists[i]] = i;
    }
    for (size_t i = 0; i < sample->k; i++) {
        size_t at = number * sample->k + i;
        job->ranks[at] = ranks[job->list_of[sample->answers[at]]];
    }
    vexi_arena_deinit(&arena);
}

/* Recall of nprobe lists at k, less the standard errors of its mean over the queries. */
static double recall_of(const ranking *job, uint32_t nprobe, uint32_t k) {
    double sum = 0, squares = 0, count = job->sample->query_count;
    for (size_t q = 0; q < job->sample->query_count; q++) {
        const uint32_t *ranks = job->ranks + q * job->sample->k;
        uint32_t hits = 0;
        for (uint32_t i = 0; i < k; i++) {
            hits += ranks[i] < nprobe;
        }
        double share = (double)hits / k;
        sum += share;
        squares += share * share;
    }
    double mean = sum / count, variance = squares / count - mean * mean;
    return mean - STANDARD_ERRORS * sqrt((variance > 0 ? variance : 0) / count);
}

static void fill(const ranking *job, vexi_calibration *out) {
    for (uint32_t c = 0; c < VEXI_CALIBRATION_KS; c++) {
        /* Who asks for more rows than there are gets them all. */
        uint32_t k = vexi_calibration_ks[c];
        k = k < job->sample->k ? k : job->sample->k;
        uint32_t low = 0; /* too few */
        for (uint32_t r = 0; r < VEXI_CALIBRATION_RECALLS; r++) {
            double wanted = 1 - MISSES * (1 - (double)vexi_calibration_recalls[r]);
            uint32_t high = job->ivf->list_count;
            while (high - low > 1) {
                uint32_t middle = low + (high - low) / 2;
                if (recall_of(job, middle, k) >= wanted) {
                    high = middle;
                } else {
                    low = middle;
                }
            }
            out->effort[c][r] = high;
            low = high - 1;
        }
    }
}

vex_status vexi_ivf_calibrate(const vexi_env *env, const vexi_ivf *ivf, vex_metric metric,
                              const vexi_calibration_sample *sample, vexi_calibration *out,
                              vex_error *err) {
    *out = (vexi_calibration){0};
    if (sample->query_count == 0 || sample->k == 0 || ivf->list_count == 0) {
        return VEX_OK; /* nothing can be told */
    }
    vex_status status = VEX_OK;
    uint32_t row_count = ivf->list_first[ivf->list_count];
    size_t rank_count = (size_t)sample->query_count * sample->k;
    uint32_t *list_of = vexi_alloc_array(env, row_count, sizeof *list_of);
    uint32_t *ranks = vexi_alloc_array(env, rank_count, sizeof *ranks);
    if (list_of == NULL || ranks == NULL) {
        status = vexi_no_memory(err, (row_count + rank_count) * sizeof *ranks);
        goto done;
    }
    for (uint32_t list = 0; list < ivf->list_count; list++) {
        for (uint32_t i = ivf->list_first[list]; i < ivf->list_first[list + 1]; i++) {
            list_of[ivf->order[i]] = list;
        }
    }
    ranking job = {.env = env,
                   .ivf = ivf,
                   .metric = metric,
                   .sample = sample,
                   .list_of = list_of,
                   .ranks = ranks};
    if (metric == VEX_METRIC_COSINE) {
        /* <x, c> is the length of the mean, on average over the members x. */
        double sum = 0;
        uint32_t count = sample->query_count / 2;
        for (size_t q = 0; q < count; q++) {
            const float *values = sample->queries + q * ivf->dimension;
            const float *centroid =
                ivf->centroids + (size_t)list_of[sample->excluded[q]] * ivf->dimension;
            for (size_t j = 0; j < ivf->dimension; j++) {
                sum += (double)values[j] * centroid[j];
            }
        }
        job.length = fmin(fmax(sum / count, 0), 1);
    }
    vexi_parallel(env, sample->query_count, rank_query, &job);
    if (atomic_load(&job.failed)) {
        status = vexi_no_memory(err, (size_t)ivf->list_count * 3 * sizeof *ranks);
        goto done;
    }
    fill(&job, out);
done:
    vexi_free(env, list_of);
    vexi_free(env, ranks);
    return status;
}
