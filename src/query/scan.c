/* Scan: candidates of some queries from one source.
 *
 * Here is what compares vectors: all rows of a source, in chunks that bound memory where a store
 * cannot map, and in blocks that stay in cache while all queries of the group pass over them; rows
 * anywhere, for sources with few live rows and for candidates that codes or bounds leave. What
 * finds such candidates by an index is in scan_lists.c, scan_codes.c and scan_graph.c.
 *
 * Candidates by codes are compared best first, in batches: the distances of a batch lower the limit
 * that the bounds of the next must pass.
 *
 * What touches mapped bytes runs inside a SIGBUS guard, takes no lock and allocates nothing. */
#include "base/bitmap.h"
#include "base/guard.h"
#include "query/search_internal.h"

#include <float.h>
#include <math.h>

enum {
    CHUNK_SIZE = 32 << 20,  /* bytes of vectors fetched at once */
    BLOCK_SIZE = 128 << 10, /* bytes of vectors that stay in cache between queries */
    BATCH_ROWS = 64,        /* rows anywhere, compared at once at most */
    BATCH_ROWS_LATER = 16,  /* once there are enough candidates to have a limit */
    LIMIT_K_MAX = 64,       /* up to here the limit is the k-th distance itself */
    REMOTE_ROWS = VEXI_SHORT_ROWS_MAX,
    REMOTE_ROWS_FIRST = VEXI_SHORT_ROWS_FIRST,
    ROWS_CHUNK = 8192 /* rows gathered at once where few live */
};

/* ---- Ranges ---------------------------------------------------------------------------------- */

typedef struct compare_job {
    const vexi_query *queries;
    vexi_topk *topks;
    uint32_t query_count;
    const vexi_run *runs;
    size_t run_count;
    uint32_t source;
    const uint64_t *hidden;
    uint64_t compared;
} compare_job;

static vex_status compare_run(void *argument, vex_error *err) {
    (void)err;
    compare_job *job = argument;
    for (size_t r = 0; r < job->run_count; r++) {
        const vexi_run *run = &job->runs[r];
        size_t step = run->count;
        if (job->query_count > 1) {
            step = BLOCK_SIZE / run->stride;
            step = step < 16 ? 16 : step;
        }
        for (size_t first = 0; first < run->count; first += step) {
            size_t count = run->count - first < step ? run->count - first : step;
            vexi_run block = {
                .vectors = run->vectors + first * run->stride,
                .stride = run->stride,
                .count = count,
                .first_row = run->first_row + first,
                .inverse_norms =
                    run->inverse_norms == NULL ? NULL : run->inverse_norms + first * sizeof(float),
            };
            for (uint32_t q = 0; q < job->query_count; q++) {
                job->compared += vexi_flat_scan(&job->queries[q], &block, job->source, job->hidden,
                                                &job->topks[q]);
            }
        }
    }
    return VEX_OK;
}

vex_status vexi_scan_ranges(vexi_scan *scan, uint32_t source, const vexi_row_range *ranges,
                            size_t range_count, uint32_t first_query, uint32_t query_count,
                            vexi_arena *arena, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    vexi_run *runs = NULL;
    size_t run_count = 0;
    if (range_count == 0) {
        return VEX_OK;
    }
    VEX_TRY(
        vexi_source_runs(from, ranges, range_count, arena, &runs, &run_count, &scan->cost, err));
    return vexi_scan_runs(scan, source, runs, run_count, first_query, query_count, err);
}

vex_status vexi_scan_runs(vexi_scan *scan, uint32_t source, const vexi_run *runs, size_t run_count,
                          uint32_t first_query, uint32_t query_count, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    compare_job job = {
        .queries = scan->queries + first_query,
        .topks = scan->topks + first_query,
        .query_count = query_count,
        .runs = runs,
        .run_count = run_count,
        .source = source,
        .hidden = from->hidden,
    };
    VEX_TRY(vexi_guard_run(compare_run, &job, vexi_source_name(from), err));
    scan->stats.row_count += job.compared;
    return VEX_OK;
}

/* ---- Rows anywhere --------------------------------------------------------------------------- */

typedef struct rows_job {
    const vexi_query *query;
    vexi_topk *topk;
    uint32_t source;
    const uint64_t *rows;
    const uint8_t *const *vectors;
    size_t count;
} rows_job;

static bool scale_is_safe(float inverse_norm) {
    return inverse_norm > 1e-12f && inverse_norm < 1e12f;
}

/* Distances as index/flat.c computes them, but for the norms under cosine, which are computed while
 * the vectors are in cache: stored ones lie elsewhere. */
static vex_status rows_run(void *argument, vex_error *err) {
    (void)err;
    rows_job *job = argument;
    const vexi_kernels *kernels = vexi_kernels_get();
    const vexi_query *query = job->query;
    size_t stride = query->dimension * sizeof(float);
    bool cosine = query->metric == VEX_METRIC_COSINE;
    float distances[BATCH_ROWS];
    if (query->metric == VEX_METRIC_L2) {
        kernels->l2_rows(query->values, job->vectors, job->count, query->dimension, distances);
    } else {
        kernels->dot_rows(query->values, job->vectors, job->count, query->dimension, distances);
    }
    for (size_t i = 0; i < job->count; i++) {
        float distance = distances[i];
        if (cosine) {
            float square;
            kernels->norm(job->vectors[i], stride, 1, query->dimension, &square);
            float inverse_norm = 1.0f / sqrtf(square);
            bool safe = scale_is_safe(query->inverse_norm) && scale_is_safe(inverse_norm);
            distance = safe ? 1.0f - distance * query->inverse_norm * inverse_norm : NAN;
            distance = vexi_flat_too_near(query, distance) ? NAN : distance;
        } else if (query->metric == VEX_METRIC_IP) {
            distance = 0.0f - distance;
        }
        if (!isfinite(distance)) {
            double wide =
                vexi_distance(query->metric, query->values, job->vectors[i], query->dimension);
            distance = wide > FLT_MAX ? FLT_MAX : wide < -FLT_MAX ? -FLT_MAX : (float)wide;
        }
        if (distance <= job->topk->threshold) {
            vexi_topk_push(job->topk, distance, job->source, job->rows[i]);
        }
    }
    return VEX_OK;
}

vex_status vexi_scan_rows(vexi_scan *scan, uint32_t source, uint32_t query, const uint64_t *rows,
                          size_t count, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    const uint8_t *vectors[BATCH_ROWS];
    for (size_t first = 0; first < count; first += BATCH_ROWS) {
        size_t part = count - first < BATCH_ROWS ? count - first : BATCH_ROWS;
        VEX_TRY(vexi_source_vectors(from, rows + first, part, &scan->scratch->work, vectors,
                                    &scan->cost, err));
        rows_job job = {
            &scan->queries[query], &scan->topks[query], source, rows + first, vectors, part};
        VEX_TRY(vexi_guard_run(rows_run, &job, vexi_source_name(from), err));
    }
    scan->stats.row_count += count;
    return VEX_OK;
}

void vexi_scan_vectors(vexi_scan *scan, uint32_t source, uint32_t query, const uint64_t *rows,
                       const uint8_t *const *vectors, size_t count) {
    for (size_t first = 0; first < count; first += BATCH_ROWS) {
        size_t part = count - first < BATCH_ROWS ? count - first : BATCH_ROWS;
        rows_job job = {&scan->queries[query], &scan->topks[query], source,
                        rows + first,          vectors + first,     part};
        (void)rows_run(&job, NULL);
    }
    scan->stats.row_count += count;
}

/* The k-th distance, of which the heap holds a few more: the (count - k + 1)-th from the top. */
static float kth_distance(const vexi_topk *topk, uint32_t k) {
    float tops[VEXI_EXTRA_CANDIDATES + 1]; /* descending */
    uint32_t count = 0, wanted = topk->count - k + 1;
    for (uint32_t i = 0; i < topk->count; i++) {
        float distance = topk->items[i].distance;
        if (count == wanted && !(distance > tops[count - 1])) {
            continue;
        }
        uint32_t at = count < wanted ? count++ : count - 1;
        for (; at > 0 && tops[at - 1] < distance; at--) {
            tops[at] = tops[at - 1];
        }
        tops[at] = distance;
    }
    return tops[wanted - 1];
}

float vexi_scan_limit(const vexi_scan *scan, uint32_t query, float to_scan) {
    const vexi_topk *topk = &scan->topks[query];
    uint32_t k = scan->request->k;
    if (topk->count < k) {
        return INFINITY;
    }
    /* Among many a few more make no difference. */
    float distance = k > LIMIT_K_MAX ? topk->items[0].distance : kth_distance(topk, k);
    float limit = distance * to_scan;
    return isnan(limit) ? INFINITY : limit;
}

/* The pool where a step to the store costs more than a vector: what passes the limit is fetched
 * together, at most REMOTE_ROWS; fewer, the best, while there is no limit. */
static vex_status scan_pool_remote(vexi_scan *scan, uint32_t source, uint32_t query, float to_scan,
                                   const vexi_code_pool *pool, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    vexi_arena *arena = &scan->scratch->work;
    uint64_t *rows = vexi_arena_array(arena, REMOTE_ROWS, sizeof *rows);
    const uint8_t **vectors = vexi_arena_array(arena, REMOTE_ROWS, sizeof *vectors);
    if (rows == NULL || vectors == NULL) {
        return vexi_no_memory(err, REMOTE_ROWS * sizeof *rows);
    }
    for (uint32_t i = 0; i < pool->count;) {
        size_t count = 0;
        float limit = vexi_scan_limit(scan, query, to_scan);
        size_t most = isinf(limit) ? REMOTE_ROWS_FIRST : REMOTE_ROWS;
        for (; i < pool->count && count < most; i++) {
            if (!(pool->items[i].bound > limit)) {
                rows[count++] = pool->items[i].row;
            }
        }
        VEX_TRY(vexi_source_vectors(from, rows, count, arena, vectors, &scan->cost, err));
        for (size_t first = 0; first < count; first += BATCH_ROWS) {
            size_t part = count - first < BATCH_ROWS ? count - first : BATCH_ROWS;
            rows_job job = {&scan->queries[query], &scan->topks[query], source,
                            rows + first,          vectors + first,     part};
            VEX_TRY(vexi_guard_run(rows_run, &job, vexi_source_name(from), err));
        }
        scan->stats.row_count += count;
    }
    return VEX_OK;
}

vex_status vexi_scan_pool(vexi_scan *scan, uint32_t source, uint32_t query, float to_scan,
                          vexi_code_pool *pool, vex_error *err) {
    const vexi_topk *topk = &scan->topks[query];
    uint64_t rows[BATCH_ROWS];
    vexi_code_pool_sort(pool);
    if (vexi_source_is_remote(&scan->view->sources[source])) { /* where a graph did not do */
        VEX_TRY(scan_pool_remote(scan, source, query, to_scan, pool, err));
        pool->count = 0;
        return VEX_OK;
    }
    for (uint32_t i = 0; i < pool->count;) {
        uint32_t wanted = topk->count < scan->request->k ? scan->request->k - topk->count : 0;
        wanted = wanted < BATCH_ROWS_LATER ? BATCH_ROWS_LATER
                 : wanted > BATCH_ROWS     ? BATCH_ROWS
                                           : wanted;
        float limit = vexi_scan_limit(scan, query, to_scan);
        size_t count = 0;
        for (; i < pool->count && count < wanted; i++) {
            if (!(pool->items[i].bound > limit)) {
                rows[count++] = pool->items[i].row;
            }
        }
        VEX_TRY(vexi_scan_rows(scan, source, query, rows, count, err));
    }
    pool->count = 0;
    return VEX_OK;
}

/* ---- Whole sources --------------------------------------------------------------------------- */

void vexi_scan_share(const vexi_scan *scan, uint64_t total, uint64_t *first, uint64_t *end) {
    *first = total / scan->slice_count * scan->slice;
    *end = scan->slice + 1 == scan->slice_count ? total
                                                : total / scan->slice_count * (scan->slice + 1);
}

static vex_status scan_flat(vexi_scan *scan, uint32_t source, uint64_t first, uint64_t end,
                            uint32_t first_query, uint32_t query_count, vex_error *err) {
    uint64_t chunk_rows = CHUNK_SIZE / (scan->view->schema->dimension * sizeof(float));
    for (; first < end; first += chunk_rows) {
        vexi_arena_reset(&scan->scratch->work);
        vexi_row_range range = {first, end - first < chunk_rows ? end - first : chunk_rows};
        VEX_TRY(vexi_scan_ranges(scan, source, &range, 1, first_query, query_count,
                                 &scan->scratch->work, err));
    }
    return VEX_OK;
}

/* The live rows alone, by their numbers. */
static vex_status scan_few(vexi_scan *scan, uint32_t source, uint64_t first, uint64_t end,
                           uint32_t first_query, uint32_t query_count, vex_error *err) {
    const uint64_t *hidden = scan->view->sources[source].hidden;
    uint64_t row = first;
    while (row < end) {
        vexi_arena_reset(&scan->scratch->work);
        uint64_t *rows = vexi_arena_array(&scan->scratch->work, ROWS_CHUNK, sizeof *rows);
        if (rows == NULL) {
            return vexi_no_memory(err, ROWS_CHUNK * sizeof *rows);
        }
        size_t count = 0;
        while (row < end && count < ROWS_CHUNK) {
            uint64_t word = ~hidden[row / 64] >> (row % 64);
            if (word == 0) {
                row = row / 64 * 64 + 64;
                continue;
            }
            row += (uint64_t)__builtin_ctzll(word);
            if (row < end) {
                rows[count++] = row++;
            }
        }
        for (uint32_t q = 0; q < query_count; q++) {
            VEX_TRY(vexi_scan_rows(scan, source, first_query + q, rows, count, err));
        }
    }
    return VEX_OK;
}

vex_status vexi_scan_exact(vexi_scan *scan, uint32_t source, uint32_t query, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    bool few = from->hidden != NULL && from->row_count - from->hidden_count < from->row_count / 16;
    return few ? scan_few(scan, source, 0, from->row_count, query, 1, err)
               : scan_flat(scan, source, 0, from->row_count, query, 1, err);
}

vex_status vexi_scan_source(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                            vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    uint64_t first, end;
    vexi_scan_share(scan, from->row_count, &first, &end);
    vexi_arena_reset(&scan->scratch->work);
    switch (effort->way) {
    case VEXI_WAY_NONE:
        return VEX_OK;
    case VEXI_WAY_EXACT:
        return scan_flat(scan, source, first, end, 0, scan->query_count, err);
    case VEXI_WAY_FEW:
        return scan_few(scan, source, first, end, 0, scan->query_count, err);
    case VEXI_WAY_LISTS:
        return vexi_scan_lists(scan, source, effort, err);
    case VEXI_WAY_CODES:
        return vexi_scan_codes(scan, source, effort, err);
    case VEXI_WAY_MEMTABLE:
        return scan->slice == 0 ? vexi_scan_memtable(scan, source, err) : VEX_OK;
    case VEXI_WAY_GRAPH:
        return scan->slice == 0 ? vexi_scan_graph(scan, source, effort, err) : VEX_OK;
    }
    return VEX_OK;
}
