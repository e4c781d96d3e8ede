/* Codes of a whole segment: what its lists share, and the lists' bytes.
 *
 * The origin is the mean of the centroids: it makes w = P(q - o), and with it the rounding errors
 * of a query's lookup table, about as short as any one vector can. The centroids themselves are one
 * more list, around the origin. Lists are encoded in parallel, each by itself, so the bytes do not
 * depend on the number of threads. */
#include <math.h>
#include <string.h>

#include "index/code_internal.h"
#include "index/ivf.h"

#define CHUNK_ROWS  4096u
#define CHUNK_LISTS 16u

void vexi_ivf_code_offsets(const vexi_code_layout *layout, const uint32_t *list_first,
                           uint32_t list_count, uint64_t *out) {
    uint64_t offset = 0;
    for (uint32_t list = 0; list < list_count; list++) {
        out[list] = offset;
        offset += vexi_code_list_size(layout, list_first[list + 1] - list_first[list]);
    }
    out[list_count] = offset;
}

/* Sums of squares of a chunk of rows. */
typedef struct measuring {
    const float *const *rows;
    uint32_t row_count, dimension;
    double *sums;
} measuring;

static void measure_chunk(void *argument, size_t chunk) {
    const measuring *job = argument;
    size_t first = chunk * CHUNK_ROWS, end = job->row_count;
    end = end - first < CHUNK_ROWS ? end : first + CHUNK_ROWS;
    double sum = 0;
    for (size_t i = first; i < end; i++) {
        const float *row = job->rows[i];
        for (uint32_t j = 0; j < job->dimension; j++) {
            sum += (double)row[j] * (double)row[j];
        }
    }
    job->sums[chunk] = sum;
}

static vex_status measure_rows(const vexi_env *env, const float *const *rows, uint32_t row_count,
                               uint32_t dimension, float *length, vex_error *err) {
    size_t chunk_count = ((size_t)row_count + CHUNK_ROWS - 1) / CHUNK_ROWS;
    *length = 0;
    if (row_count == 0) {
        return VEX_OK;
    }
    double *sums = vexi_alloc_array(env, chunk_count, sizeof *sums);
    if (sums == NULL) {
        return vexi_no_memory(err, chunk_count * sizeof *sums);
    }
    measuring job = {.rows = rows, .row_count = row_count, .dimension = dimension, .sums = sums};
    vexi_parallel(env, chunk_count, measure_chunk, &job);
    double sum = 0;
    for (size_t i = 0; i < chunk_count; i++) {
        sum += sums[i];
    }
    vexi_free(env, sums);
    *length = (float)sqrt(sum / row_count); /* a double's range holds every square of a float */
    return VEX_OK;
}

vex_status vexi_ivf_codes_init(const vexi_env *env, const vexi_ivf *ivf, vex_metric metric,
                               uint32_t bits, const vexi_rotation *rotation,
                               const float *const *rows, vexi_ivf_codes *out, vex_error *err) {
    *out = (vexi_ivf_codes){0};
    vex_status status = VEX_OK;
    uint32_t dimension = ivf->dimension, list_count = ivf->list_count;
    vexi_ivf_codes codes = {.layout = vexi_code_layout_of(metric, dimension, bits)};
    vexi_code_layout one_bit = vexi_code_layout_of(metric, dimension, 1);
    uint32_t padded = codes.layout.padded;
    size_t center_size = (size_t)vexi_code_list_size(&one_bit, list_count);
    const float **centers = NULL;
    double *sums = NULL;
    float *scratch = NULL, unused;

    codes.origin = vexi_alloc_aligned(env, padded * sizeof *codes.origin);
    codes.errors = vexi_calloc(env, (size_t)list_count + 1, 2 * sizeof *codes.errors);
    codes.center_codes = vexi_alloc_aligned(env, center_size + 64);
    codes.list_offset = vexi_alloc_array(env, (size_t)list_count + 1, sizeof *codes.list_offset);
    centers = vexi_alloc_array(env, (size_t)list_count + 1, sizeof *centers);
    sums = vexi_calloc(env, dimension, sizeof *sums);
    scratch = vexi_alloc_aligned(env, (VEXI_CODE_SCRATCH(padded) + dimension) * sizeof *scratch);
    if (codes.origin == NULL || codes.errors == NULL || codes.center_codes == NULL ||
        codes.list_offset == NULL || centers == NULL || sums == NULL || scratch == NULL) {
        status = vexi_no_memory(err, center_size + list_count * sizeof *centers);
        goto done;
    }
    for (uint32_t list = 0; list < list_count; list++) {
        centers[list] = ivf->centroids + (size_t)list * dimension;
        for (uint32_t i = 0; i < dimension; i++) {
            sums[i] += (double)centers[list][i];
        }
    }
    float *mean = scratch + VEXI_CODE_SCRATCH(padded);
    for (uint32_t i = 0; i < dimension; i++) {
        mean[i] = list_count > 0 ? (float)(sums[i] / list_count) : 0.0f;
    }
    vexi_rotate(rotation, mean, codes.origin);
    vexi_code_encode_around(&one_bit, rotation, centers, list_count, mean, codes.origin,
                            codes.center_codes, &codes.center_error, &unused, scratch);
    codes.row_length = 1;
    if (metric != VEX_METRIC_COSINE) {
        VEX_TRY_GOTO(status, done,
                     measure_rows(env, rows, ivf->list_first[list_count], dimension,
                                  &codes.row_length, err));
    }
    vexi_ivf_code_offsets(&codes.layout, ivf->list_first, list_count, codes.list_offset);
    *out = codes;
    codes = (vexi_ivf_codes){0};
done:
    vexi_ivf_codes_deinit(env, &codes);
    vexi_free(env, centers);
    vexi_free(env, sums);
    vexi_free(env, scratch);
    return status;
}

/* Encoding a chunk of lists. */
typedef struct encoding {
    const vexi_env *env;
    const vexi_ivf *ivf;
    const vexi_rotation *rotation;
    const float *const *rows;
    vexi_ivf_codes *codes;
    uint8_t *out;
    uint32_t list_size_max;
    bool failed; /* atomic: no memory for a chunk */
} encoding;

static void encode_chunk(void *argument, size_t chunk) {
    encoding *job = argument;
    const vexi_ivf *ivf = job->ivf;
    vexi_ivf_codes *codes = job->codes;
    size_t first = chunk * CHUNK_LISTS, end = ivf->list_count;
    end = end - first < CHUNK_LISTS ? end : first + CHUNK_LISTS;
    float *scratch = vexi_alloc_aligned(job->env, VEXI_CODE_SCRATCH((size_t)codes->layout.padded) *
                                                      sizeof *scratch);
    const float **rows = vexi_alloc_array(job->env, job->list_size_max, sizeof *rows);
    if (scratch == NULL || rows == NULL) {
        __atomic_store_n(&job->failed, true, __ATOMIC_RELAXED);
        end = first;
    }
    for (size_t list = first; list < end; list++) {
        uint32_t begin = ivf->list_first[list], count = ivf->list_first[list + 1] - begin;
        for (uint32_t i = 0; i < count; i++) {
            rows[i] = job->rows[ivf->order[begin + i]];
        }
        vexi_code_encode_around(&codes->layout, job->rotation, rows, count,
                                ivf->centroids + list * ivf->dimension, codes->origin,
                                job->out + codes->list_offset[list], &codes->errors[2 * list],
                                &codes->errors[2 * list + 1], scratch);
    }
    vexi_free(job->env, scratch);
    vexi_free(job->env, rows);
}

vex_status vexi_ivf_codes_write(const vexi_env *env, const vexi_ivf *ivf,
                                const vexi_rotation *rotation, const float *const *rows,
                                vexi_ivf_codes *codes, uint8_t *out, vex_error *err) {
    encoding job = {.env = env,
                    .ivf = ivf,
                    .rotation = rotation,
                    .rows = rows,
                    .codes = codes,
                    .out = out,
                    .list_size_max = 1};
    for (uint32_t list = 0; list < ivf->list_count; list++) {
        uint32_t size = ivf->list_first[list + 1] - ivf->list_first[list];
        job.list_size_max = size > job.list_size_max ? size : job.list_size_max;
    }
    vexi_parallel(env, ((size_t)ivf->list_count + CHUNK_LISTS - 1) / CHUNK_LISTS, encode_chunk,
                  &job);
    return job.failed ? vexi_no_memory(err, job.list_size_max * sizeof(float *)) : VEX_OK;
}

void vexi_ivf_codes_deinit(const vexi_env *env, vexi_ivf_codes *codes) {
    vexi_free(env, codes->origin);
    vexi_free(env, codes->errors);
    vexi_free(env, codes->center_codes);
    vexi_free(env, codes->list_offset);
    *codes = (vexi_ivf_codes){0};
}
