/* Calibrating a graph: the least ef of a ladder that finds enough of the sample's answers.
 *
 * One walk answers for every k, since ef alone decides where it goes. A sampled row has its own
 * neighbours beside its node, which no query has: its walks go around it. An answer counts as found
 * if the k-th row found is as near as the k-th answer, so that of equal rows any will do.
 *
 * The table asks for three fifths of the misses that a target allows, and for a standard error
 * more, nearly as that of the lists does and for the same reason (ivf_calibrate.c): the queries
 * that people ask are harder than rows are. On 20,000 sentence embeddings real queries found 0.906
 * where the sample, taken at its word, had promised 0.95. Where ef is large fewer queries are
 * asked: a step of the ladder costs at most HOPS. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "index/graph_internal.h"

#define STANDARD_ERRORS 1.0
#define MISSES          0.6
#define EF_LEAST        6u
#define EF_MOST         16384u
#define HOPS            100000u
#define QUERIES_LEAST   40u
#define TOLERANCE       1e-5f

typedef struct ladder {
    const vexi_env *env;
    const vexi_rotation *rotation;
    const vexi_graph *graph;
    const vexi_calibration_sample *sample;
    const int *cancel;
    uint32_t ef;
    uint32_t query_count; /* asked at this step */
    uint32_t chunk_count;
    vexi_graph_scratch **scratches; /* by chunk */
    uint32_t *hits;                 /* query_count x VEXI_CALIBRATION_KS */
    atomic_int failed;              /* a vex_status */
} ladder;

/* Of the k nearest, those as near as the k-th answer. */
static uint32_t count_hits(const vexi_topk *topk, uint32_t excluded, const float *answers,
                           uint32_t k) {
    float limit = answers[k - 1] + TOLERANCE * fabsf(answers[k - 1]) + 1e-30f;
    uint32_t hits = 0;
    for (uint32_t i = 0; i < topk->count && hits < k; i++) {
        hits += topk->items[i].row != excluded && topk->items[i].distance <= limit;
    }
    return hits;
}

static vex_status ask(const ladder *job, uint32_t number, vexi_graph_scratch *scratch,
                      vexi_arena *arena) {
    const vexi_calibration_sample *sample = job->sample;
    /* Those asked are spread over the sample. */
    size_t at = (size_t)number * sample->query_count / job->query_count;
    vexi_code_query query;
    vexi_topk topk;
    vexi_graph_result result;
    VEX_TRY(vexi_graph_query_init(&query, job->graph, job->rotation,
                                  sample->queries + at * job->graph->layout.dimension, arena,
                                  NULL));
    VEX_TRY(vexi_topk_init(&topk, sample->k, arena, NULL));
    vexi_graph_search_around(job->graph, &query, job->ef, sample->excluded[at], scratch, &topk,
                             &result);
    vexi_topk_sort(&topk);
    for (uint32_t c = 0; c < VEXI_CALIBRATION_KS; c++) {
        uint32_t k = vexi_calibration_ks[c];
        job->hits[(size_t)number * VEXI_CALIBRATION_KS + c] =
            k > sample->k
                ? 0
                : count_hits(&topk, sample->excluded[at], sample->distances + at * sample->k, k);
    }
    return VEX_OK;
}

static void ask_chunk(void *argument, size_t chunk) {
    ladder *job = argument;
    uint32_t end = (uint32_t)((chunk + 1) * job->query_count / job->chunk_count);
    uint32_t begin = (uint32_t)(chunk * job->query_count / job->chunk_count);
    for (uint32_t i = begin; i < end && !vexi_is_cancelled(job->cancel); i++) {
        vexi_arena arena;
        vexi_arena_init(&arena, job->env);
        vex_status status = ask(job, i, job->scratches[chunk], &arena);
        vexi_arena_deinit(&arena);
        if (status != VEX_OK) {
            atomic_store(&job->failed, (int)status);
            return;
        }
    }
}

/* Recall at k of the step, less the standard errors of its mean. */
static double recall_of(const ladder *job, uint32_t column) {
    double sum = 0, squares = 0, count = job->query_count;
    for (size_t q = 0; q < job->query_count; q++) {
        double share =
            (double)job->hits[q * VEXI_CALIBRATION_KS + column] / vexi_calibration_ks[column];
        sum += share;
        squares += share * share;
    }
    double mean = sum / count, variance = squares / count - mean * mean;
    return mean - STANDARD_ERRORS * sqrt((variance > 0 ? variance : 0) / count);
}

static vex_status climb(ladder *job, vexi_calibration *out, vex_error *err) {
    uint32_t most = job->graph->row_count < EF_MOST ? job->graph->row_count : EF_MOST;
    bool open = true;
    for (uint32_t ef = EF_LEAST; open; ef += ef / 6 + 1) {
        ef = ef < most ? ef : most;
        uint32_t count = HOPS / ef;
        count = count > QUERIES_LEAST ? count : QUERIES_LEAST;
        job->query_count = count < job->sample->query_count ? count : job->sample->query_count;
        job->ef = ef;
        for (uint32_t i = 0; i < job->chunk_count; i++) {
            VEX_TRY(vexi_graph_scratch_reserve(job->scratches[i], job->graph->row_count,
                                               job->graph->layout.degree, ef, err));
        }
        vexi_parallel(job->env, job->chunk_count, ask_chunk, job);
        VEX_TRY(vexi_cancel_check(job->cancel, err));
        if (atomic_load(&job->failed) != VEX_OK) {
            return vexi_no_memory(err, job->sample->k * sizeof(vexi_candidate));
        }
        open = false;
        for (uint32_t c = 0; c < VEXI_CALIBRATION_KS; c++) {
            if (vexi_calibration_ks[c] > job->sample->k) {
                continue;
            }
            double recall = recall_of(job, c);
            for (uint32_t r = 0; r < VEXI_CALIBRATION_RECALLS; r++) {
                double wanted = 1 - MISSES * (1 - (double)vexi_calibration_recalls[r]);
                if (out->effort[c][r] == 0 && recall >= wanted) {
                    out->effort[c][r] = ef;
                }
                open |= out->effort[c][r] == 0;
            }
        }
        open &= ef < most;
    }
    return VEX_OK;
}

vex_status vexi_graph_calibrate(const vexi_env *env, const vexi_rotation *rotation,
                                const vexi_graph *graph, const vexi_calibration_sample *sample,
                                const int *cancel, vexi_calibration *out, vex_error *err) {
    *out = (vexi_calibration){0};
    if (sample->query_count == 0 || sample->k == 0 || graph->row_count == 0) {
        return VEX_OK; /* nothing can be told */
    }
    vex_status status = VEX_OK;
    ladder job = {
        .env = env, .rotation = rotation, .graph = graph, .sample = sample, .cancel = cancel};
    job.chunk_count = env->thread_count > 0 ? env->thread_count : 1;
    job.scratches = vexi_calloc(env, job.chunk_count, sizeof(vexi_graph_scratch *));
    job.hits =
        vexi_alloc_array(env, (size_t)sample->query_count * VEXI_CALIBRATION_KS, sizeof *job.hits);
    if (job.scratches == NULL || job.hits == NULL) {
        status = vexi_no_memory(err, sample->query_count * sizeof *job.hits);
        goto done;
    }
    for (uint32_t i = 0; i < job.chunk_count && status == VEX_OK; i++) {
        status = vexi_graph_scratch_create(env, &job.scratches[i], err);
    }
    if (status == VEX_OK) {
        status = climb(&job, out, err);
    }
done:
    for (uint32_t i = 0; job.scratches != NULL && i < job.chunk_count; i++) {
        vexi_graph_scratch_destroy(job.scratches[i]);
    }
    vexi_free(env, job.scratches);
    vexi_free(env, job.hits);
    if (status != VEX_OK) {
        *out = (vexi_calibration){0};
    }
    return status;
}
