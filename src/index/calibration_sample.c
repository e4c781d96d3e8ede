/* The sample of a calibration: queries made from a segment's own rows, and their exact answers.
 *
 * Half of the queries are rows, each excluded from its own answer together with all rows equal to
 * it (an equal row would be found at once and say nothing about queries that are not in the
 * segment; only where there are not enough others do equal rows count). The other half are
 * other rows, moved a little in a random direction, and excluded too.
 *
 * Answers come from blocked matrix products: a block of queries against a chunk of rows that is
 * gathered, scaled (cosine) or moved by the rows' mean (squared distances: large common offsets
 * would drown |x|^2 - 2 q.x) at a time. What passes a query's threshold is kept until there are 2
 * k, of which the k least stay and make the next threshold (a heap took most of the time); in the
 * end they are compared anew, exactly. The number of queries follows from the cost of a query: rows
 * x dimension.
 *
 * Deterministic for a seed: each block of queries sees all rows in order, whoever does it. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/random.h"
#include "index/calibration.h"
#include "index/code_internal.h"
#include "kernel/kernel.h"

#define ANSWERS_MAX   1000u
#define BLOCK_QUERIES 96u
#define CHUNK_VALUES  65536u
#define CHUNK_ROWS    512u
#define FILTER_ROWS   32u
#define MEAN_ROWS     1024u
/* Queries in all, but fewer (in steps) where they would take more multiplications, of which a core
 * does some 20 to 40 a nanosecond: small segments are built often, large ones take long anyway. */
#define QUERIES_MOST  768u
#define LARGE_ROWS    (1u << 19)
#define QUERIES_SMALL 384u
#define COST_SMALL    6.5e9
#define QUERIES_LARGE 192u
#define COST_LARGE    5e11
#define NEIGHBOUR     10u
#define MOVE          0.25f

typedef struct source {
    const float *const *rows;
    uint32_t row_count;
    uint32_t dimension;
    vex_metric metric;
    const float *middle; /* taken off rows and queries; NULL: none */
    const int *cancel;
} source;

/* Row i as it is compared. */
static void take_row(const source *from, const float *row, float *out) {
    uint32_t dimension = from->dimension;
    if (from->middle != NULL) {
        for (size_t j = 0; j < dimension; j++) {
            out[j] = row[j] - from->middle[j];
        }
    } else if (from->metric == VEX_METRIC_COSINE) {
        float square;
        vexi_kernels_get()->norm((const uint8_t *)row, 0, 1, dimension, &square);
        float scale = square > 0 ? 1.0f / sqrtf(square) : 0.0f;
        for (size_t j = 0; j < dimension; j++) {
            out[j] = row[j] * scale;
        }
    } else {
        memcpy(out, row, dimension * sizeof *out);
    }
}

/* ---- Exact answers --------------------------------------------------------------------------- */

typedef struct answering {
    const vexi_env *env;
    const source *from;
    const float *queries; /* query_count x dimension, as compared */
    uint32_t query_count;
    const uint32_t *excluded;
    uint32_t k;
    uint32_t *answers;
    float *distances;
    atomic_bool failed;
} answering;

/* The nearest of a query so far: (key, row) as numbers whose order is theirs. */
typedef struct nearest {
    uint64_t *items; /* room for 2 k */
    uint32_t count;
    float threshold; /* the k-th key at the last selection */
} nearest;

typedef struct block_scratch {
    float *rows;     /* CHUNK_ROWS x dimension at most */
    float *products; /* BLOCK_QUERIES x chunk */
    float *bias;
    float *query;               /* one, padded */
    vexi_code_candidate *found; /* k */
    nearest nearest[BLOCK_QUERIES];
} block_scratch;

/* A number whose order is that of the floats; what is not a number counts as infinite. */
static uint64_t item_of(float key, uint32_t row) {
    uint32_t bits;
    key = isnan(key) ? INFINITY : key;
    memcpy(&bits, &key, sizeof bits);
    bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | row;
}

static float key_of(uint64_t item) {
    uint32_t bits = (uint32_t)(item >> 32);
    bits = (bits & 0x80000000u) != 0 ? bits & 0x7fffffffu : ~bits;
    float key;
    memcpy(&key, &bits, sizeof key);
    return key;
}

/* Bring the k least to the front (Hoare 1961). Items are distinct. */
static void select_least(uint64_t *items, uint32_t count, uint32_t k) {
    uint32_t first = 0, last = count - 1;
    while (first < last) {
        uint64_t a = items[first], b = items[first + (last - first) / 2], c = items[last];
        uint64_t low = a < b ? a : b, high = a < b ? b : a;
        uint64_t pivot = c < low ? low : c > high ? high : c;
        uint32_t i = first, j = last;
        while (i <= j) {
            while (items[i] < pivot) {
                i++;
            }
            while (items[j] > pivot) {
                j--;
            }
            if (i <= j) {
                uint64_t swap = items[i];
                items[i++] = items[j];
                items[j] = swap;
                if (j-- == 0) {
                    break;
                }
            }
        }
        if (k <= i && (j == UINT32_MAX || k > j + 1)) {
            return;
        }
        if (j != UINT32_MAX && k <= j + 1) {
            last = j;
        } else {
            first = i;
        }
    }
}

static void keep_least(nearest *of, uint32_t k) {
    select_least(of->items, of->count, k);
    of->count = k;
    uint64_t worst = 0;
    for (uint32_t i = 0; i < k; i++) {
        worst = of->items[i] > worst ? of->items[i] : worst;
    }
    of->threshold = key_of(worst);
}

static uint32_t chunk_rows_for(uint32_t dimension) {
    uint32_t rows = CHUNK_VALUES / dimension;
    return rows < FILTER_ROWS ? FILTER_ROWS : rows > CHUNK_ROWS ? CHUNK_ROWS : rows;
}

/* Offer the rows `first` .. + count of a chunk to one query. */
static void offer(const answering *job, uint32_t number, nearest *of, const block_scratch *scratch,
                  const float *products, uint32_t count, uint32_t first) {
    const vexi_kernels *kernels = vexi_kernels_get();
    uint32_t dimension = job->from->dimension;
    const float *query = job->queries + (size_t)number * dimension;
    for (uint32_t i = 0; i < count; i += FILTER_ROWS) {
        uint32_t part = count - i < FILTER_ROWS ? count - i : FILTER_ROWS;
        float best = of->threshold;
        uint32_t index = 0;
        if (of->threshold < INFINITY) {
            kernels->least(scratch->bias + i, products + i, part, &best, &index);
            if (best == of->threshold) {
                continue;
            }
        }
        for (uint32_t j = i; j < i + part; j++) {
            float key = scratch->bias[j] - products[j];
            if ((key >= of->threshold && of->threshold < INFINITY) ||
                first + j == job->excluded[number]) {
                continue;
            }
            const float *row = scratch->rows + (size_t)j * dimension;
            bool same = memcmp(query, row, dimension * sizeof *row) == 0;
            of->items[of->count++] = item_of(same ? INFINITY : key, first + j);
            if (of->count == 2 * job->k) {
                keep_least(of, job->k);
            }
        }
    }
}

/* The metric's distance from products alone would carry their rounding: compare anew. */
static void finish(const answering *job, uint32_t number, nearest *of,
                   const block_scratch *scratch) {
    const vexi_kernels *kernels = vexi_kernels_get();
    uint32_t dimension = job->from->dimension;
    vex_metric metric = job->from->metric;
    keep_least(of, job->k);
    memcpy(scratch->query, job->queries + (size_t)number * dimension,
           dimension * sizeof *scratch->query);
    for (uint32_t i = 0; i < job->k; i++) {
        vexi_code_candidate *item = &scratch->found[i];
        const uint8_t *row = (const uint8_t *)scratch->rows;
        item->row = (uint32_t)of->items[i];
        take_row(job->from, job->from->rows[item->row], scratch->rows);
        if (metric == VEX_METRIC_L2) {
            kernels->l2(scratch->query, row, 0, 1, dimension, &item->estimate);
        } else {
            kernels->dot(scratch->query, row, 0, 1, dimension, &item->estimate);
            item->estimate = (metric == VEX_METRIC_COSINE ? 1.0f : 0.0f) - item->estimate;
        }
        item->estimate = isnan(item->estimate) ? INFINITY : item->estimate;
    }
    vexi_code_sort(scratch->found, job->k, job->k);
    for (uint32_t i = 0; i < job->k; i++) {
        job->answers[(size_t)number * job->k + i] = scratch->found[i].row;
        job->distances[(size_t)number * job->k + i] = scratch->found[i].estimate;
    }
}

static bool block_init(block_scratch *scratch, const answering *job, vexi_arena *arena) {
    uint32_t dimension = job->from->dimension, chunk = chunk_rows_for(dimension);
    size_t padded = ((size_t)dimension + 15) / 16 * 16;
    scratch->rows = vexi_arena_array(arena, (size_t)chunk * dimension, sizeof *scratch->rows);
    scratch->products = vexi_arena_array(arena, BLOCK_QUERIES * chunk, sizeof *scratch->products);
    scratch->bias = vexi_arena_array(arena, chunk, sizeof *scratch->bias);
    scratch->query = vexi_arena_alloc_aligned(arena, 64, padded * sizeof *scratch->query);
    scratch->found = vexi_arena_array(arena, job->k, sizeof *scratch->found);
    bool ready = scratch->rows != NULL && scratch->products != NULL && scratch->bias != NULL &&
                 scratch->query != NULL && scratch->found != NULL;
    if (ready) {
        memset(scratch->query, 0, padded * sizeof *scratch->query);
    }
    for (uint32_t i = 0; ready && i < BLOCK_QUERIES; i++) {
        nearest *of = &scratch->nearest[i];
        *of = (nearest){.threshold = INFINITY};
        of->items = vexi_arena_array(arena, 2 * (size_t)job->k, sizeof *of->items);
        ready = of->items != NULL;
    }
    return ready;
}

static void answer_block(void *argument, size_t block) {
    answering *job = argument;
    const vexi_kernels *kernels = vexi_kernels_get();
    const source *from = job->from;
    uint32_t dimension = from->dimension, chunk = chunk_rows_for(dimension);
    uint32_t begin = (uint32_t)block * BLOCK_QUERIES;
    uint32_t count = job->query_count - begin;
    count = count < BLOCK_QUERIES ? count : BLOCK_QUERIES;
    const float *queries = job->queries + (size_t)begin * dimension;
    vexi_arena arena;
    vexi_arena_init(&arena, job->env);
    block_scratch scratch;
    if (!block_init(&scratch, job, &arena)) {
        atomic_store(&job->failed, true);
        vexi_arena_deinit(&arena);
        return;
    }
    for (uint32_t first = 0; first < from->row_count && !vexi_is_cancelled(from->cancel);
         first += chunk) {
        uint32_t rows = from->row_count - first;
        rows = rows < chunk ? rows : chunk;
        for (uint32_t i = 0; i < rows; i++) {
            take_row(from, from->rows[first + i], scratch.rows + (size_t)i * dimension);
        }
        memset(scratch.bias, 0, rows * sizeof *scratch.bias);
        if (from->metric == VEX_METRIC_L2) {
            kernels->norm((const uint8_t *)scratch.rows, dimension * sizeof(float), rows, dimension,
                          scratch.bias);
            for (uint32_t i = 0; i < rows; i++) {
                scratch.bias[i] *= 0.5f;
            }
        }
        kernels->dot_matrix(queries, count, scratch.rows, rows, dimension, scratch.products, rows);
        for (uint32_t q = 0; q < count; q++) {
            offer(job, begin + q, &scratch.nearest[q], &scratch,
                  scratch.products + (size_t)q * rows, rows, first);
        }
    }
    for (uint32_t q = 0; q < count && !vexi_is_cancelled(from->cancel); q++) {
        finish(job, begin + q, &scratch.nearest[q], &scratch);
    }
    vexi_arena_deinit(&arena);
}

/* ---- Queries --------------------------------------------------------------------------------- */

/* Two numbers of the standard normal distribution (Box & Muller 1958). */
static void normal_pair(uint64_t *random, float out[2]) {
    double u = ((double)(vexi_random_next(random) >> 11) + 0.5) * 0x1p-53;
    double v = (double)(vexi_random_next(random) >> 11) * 0x1p-53;
    double length = sqrt(-2.0 * log(u)), angle = 6.283185307179586 * v;
    out[0] = (float)(length * cos(angle));
    out[1] = (float)(length * sin(angle));
}

/* Move a query in a random direction by MOVE times a distance. */
static void perturb(const source *from, float distance, uint64_t *random, float *query) {
    uint32_t dimension = from->dimension;
    float scale = MOVE * distance / sqrtf((float)dimension);
    float pair[2] = {0, 0};
    for (uint32_t j = 0; j < dimension; j++) {
        if (j % 2 == 0) {
            normal_pair(random, pair);
        }
        query[j] += scale * pair[j % 2];
    }
    if (from->metric == VEX_METRIC_COSINE) {
        float square;
        vexi_kernels_get()->norm((const uint8_t *)query, 0, 1, dimension, &square);
        float inverse = square > 0 ? 1.0f / sqrtf(square) : 0.0f;
        for (size_t j = 0; j < dimension; j++) {
            query[j] *= inverse;
        }
    }
}

/* How far the tenth nearest is from rows in a rather dense place (the lower quartile), in the space
 * that rows are moved in. The first `count` queries are answered; their items are scratch here. */
static float typical_distance(const vexi_calibration_sample *sample, uint32_t count,
                              vex_metric metric) {
    uint64_t items[QUERIES_MOST];
    size_t near = sample->k < NEIGHBOUR ? sample->k - 1 : NEIGHBOUR - 1;
    for (uint32_t i = 0; i < count; i++) {
        items[i] = item_of(sample->distances[i * sample->k + near], i);
    }
    uint32_t quarter = count / 4 + 1;
    select_least(items, count, quarter);
    uint64_t most = 0;
    for (uint32_t i = 0; i < quarter && i < count; i++) {
        most = items[i] > most ? items[i] : most;
    }
    float distance = key_of(most);
    if (!(distance > 0) || isinf(distance) || metric == VEX_METRIC_IP) {
        return 0; /* inner products have no scale */
    }
    return metric == VEX_METRIC_L2 ? sqrtf(distance) : sqrtf(2 * distance);
}

/* Queries first .. + count: a row at random from each of as many equal stretches. */
static void pick_rows(const source *from, uint32_t first, uint32_t count, uint64_t *random,
                      vexi_calibration_sample *sample) {
    for (uint64_t i = 0; i < count; i++) {
        uint64_t begin = i * from->row_count / count, end = (i + 1) * from->row_count / count;
        uint32_t row = (uint32_t)(begin + vexi_random_next(random) % (end - begin));
        sample->excluded[first + i] = row;
        take_row(from, from->rows[row], sample->queries + (first + i) * from->dimension);
    }
}

static uint32_t query_count_for(uint32_t row_count, uint32_t dimension) {
    uint32_t count = QUERIES_MOST, least = row_count < LARGE_ROWS ? QUERIES_SMALL : QUERIES_LARGE;
    double cost = row_count < LARGE_ROWS ? COST_SMALL : COST_LARGE;
    while (count > least && (double)count * row_count * dimension > cost) {
        count -= 2 * BLOCK_QUERIES;
    }
    return count < 2 * (uint64_t)row_count ? count : 2 * row_count;
}

static vex_status answer(const vexi_env *env, const source *from, uint32_t first, uint32_t count,
                         vexi_calibration_sample *sample, vex_error *err) {
    answering job = {.env = env,
                     .from = from,
                     .queries = sample->queries + (size_t)first * from->dimension,
                     .query_count = count,
                     .excluded = sample->excluded + first,
                     .k = sample->k,
                     .answers = sample->answers + (size_t)first * sample->k,
                     .distances = sample->distances + (size_t)first * sample->k};
    vexi_parallel(env, (count + BLOCK_QUERIES - 1) / BLOCK_QUERIES, answer_block, &job);
    VEX_TRY(vexi_cancel_check(from->cancel, err));
    if (atomic_load(&job.failed)) {
        return vexi_no_memory(err, BLOCK_QUERIES * 2 * sizeof(uint64_t) * (size_t)sample->k);
    }
    return VEX_OK;
}

vex_status vexi_calibration_sample_init(const vexi_env *env, const float *const *rows,
                                        uint32_t row_count, uint32_t dimension, vex_metric metric,
                                        uint64_t seed, const int *cancel,
                                        vexi_calibration_sample *out, vex_error *err) {
    vexi_calibration_sample sample = {0};
    source from = {.rows = rows,
                   .row_count = row_count,
                   .dimension = dimension,
                   .metric = metric,
                   .cancel = cancel};
    float *middle = NULL;
    vex_status status = VEX_OK;
    *out = (vexi_calibration_sample){0};
    if (row_count < 2) {
        return VEX_OK; /* nothing to find */
    }
    uint64_t random = seed;
    sample.query_count = query_count_for(row_count, dimension);
    sample.k = row_count - 1 < ANSWERS_MAX ? row_count - 1 : ANSWERS_MAX;
    size_t value_count, answer_count = (size_t)sample.query_count * sample.k;
    if (__builtin_mul_overflow((size_t)sample.query_count * sizeof(float), dimension,
                               &value_count)) {
        return vexi_no_memory(err, SIZE_MAX);
    }
    sample.queries = vexi_alloc_aligned(env, value_count);
    sample.excluded = vexi_alloc_array(env, sample.query_count, sizeof *sample.excluded);
    sample.answers = vexi_alloc_array(env, answer_count, sizeof *sample.answers);
    sample.distances = vexi_alloc_array(env, answer_count, sizeof *sample.distances);
    middle = vexi_calloc(env, dimension, sizeof *middle);
    if (sample.queries == NULL || sample.excluded == NULL || sample.answers == NULL ||
        sample.distances == NULL || middle == NULL) {
        status = vexi_no_memory(err, value_count + answer_count * 2 * sizeof *sample.answers);
        goto done;
    }
    if (metric == VEX_METRIC_L2) {
        uint32_t count = row_count < MEAN_ROWS ? row_count : MEAN_ROWS;
        for (uint64_t i = 0; i < count; i++) {
            const float *row = rows[i * row_count / count];
            for (size_t j = 0; j < dimension; j++) {
                middle[j] += row[j] / (float)count;
            }
        }
        from.middle = middle;
    }
    uint32_t half = sample.query_count / 2;
    pick_rows(&from, 0, half, &random, &sample);
    VEX_TRY_GOTO(status, done, answer(env, &from, 0, half, &sample, err));
    float distance = typical_distance(&sample, half, metric);
    pick_rows(&from, half, half, &random, &sample);
    for (size_t i = half; i < sample.query_count; i++) {
        perturb(&from, distance, &random, sample.queries + i * dimension);
    }
    VEX_TRY_GOTO(status, done, answer(env, &from, half, half, &sample, err));
    if (from.middle != NULL) {
        for (size_t i = 0; i < sample.query_count; i++) {
            for (size_t j = 0; j < dimension; j++) {
                sample.queries[i * dimension + j] += middle[j];
            }
        }
    }
    *out = sample;
    sample = (vexi_calibration_sample){0};
done:
    vexi_calibration_sample_deinit(env, &sample);
    vexi_free(env, middle);
    return status;
}

void vexi_calibration_sample_deinit(const vexi_env *env, vexi_calibration_sample *sample) {
    vexi_free(env, sample->queries);
    vexi_free(env, sample->excluded);
    vexi_free(env, sample->answers);
    vexi_free(env, sample->distances);
    *sample = (vexi_calibration_sample){0};
}
