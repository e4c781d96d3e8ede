/* Refine: from float32 candidates to the rows of the answer.
 *
 * Scans compare in float32 and keep a few candidates more than asked for; here each candidate's
 * distance is computed again in double, in index order, so that a pair of vectors has one distance
 * whatever the path that found it, and the order of the answer is (distance, id bytes).
 *
 * Where every row was compared, the answer is certain: what float32 may be off by is known
 * (index/flat.h), and so whether a row that is not among the candidates could be as near as the
 * k-th. It could where very many rows are as near as float32 can tell: near duplicates under
 * cosine, rows that tie, inner products of which little is left. Then the rows are compared once
 * more by float32 with that limit, and all that pass it in double; rows that tie for the last
 * places are told apart by their ids. Ordinary data pay a comparison for a query: 16 more
 * candidates than wanted lie farther apart than float32 is off.
 *
 * Float32 distances of finite vectors may overflow; scans then clamp them to FLT_MAX. Among clamped
 * candidates the order says nothing: all rows are compared so, whatever was asked for.
 *
 * Bytes in mapped files are touched inside a SIGBUS guard, and ids are copied out of them before
 * anything sorts (qsort may allocate, which a guarded function must not). */
#include "base/bitmap.h"
#include "base/guard.h"
#include "query/search_internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

enum { INSERT_MAX = 64 };

typedef struct candidate {
    double distance;
    vexi_place place;
    bool done; /* the distance is there */
    vex_string id;
} candidate;

static int place_compare(vexi_place a, vexi_place b) {
    if (a.source != b.source) {
        return a.source < b.source ? -1 : 1;
    }
    return a.row < b.row ? -1 : a.row > b.row;
}

static int by_distance(const void *left, const void *right) {
    const candidate *a = left;
    const candidate *b = right;
    if (a->distance != b->distance) {
        return a->distance < b->distance ? -1 : 1;
    }
    return place_compare(a->place, b->place);
}

static int by_distance_and_id(const void *left, const void *right) {
    const candidate *a = left;
    const candidate *b = right;
    if (a->distance != b->distance) {
        return a->distance < b->distance ? -1 : 1;
    }
    size_t size = a->id.size < b->id.size ? a->id.size : b->id.size;
    int order = memcmp(a->id.data, b->id.data, size);
    if (order != 0) {
        return order;
    }
    return a->id.size < b->id.size ? -1 : a->id.size > b->id.size;
}

/* Small sets, which come nearly ordered, are sorted in place: qsort asks for memory. */
static void items_sort(candidate *items, size_t count,
                       int (*compare)(const void *left, const void *right)) {
    if (count > INSERT_MAX) {
        qsort(items, count, sizeof *items, compare);
        return;
    }
    for (size_t i = 1; i < count; i++) {
        if (compare(&items[i - 1], &items[i]) <= 0) {
            continue;
        }
        candidate item = items[i];
        size_t at = i;
        for (; at > 0 && compare(&items[at - 1], &item) > 0; at--) {
            items[at] = items[at - 1];
        }
        items[at] = item;
    }
}

/* ---- Distances in double --------------------------------------------------------------------- */

typedef struct distance_job {
    vex_metric metric;
    uint32_t dimension;
    const float *query;
    const uint8_t *const *vectors;
    size_t count;
    double *distances;
} distance_job;

static vex_status distance_run(void *argument, vex_error *err) {
    (void)err;
    distance_job *job = argument;
    vexi_distances(job->metric, job->query, job->vectors, job->count, job->dimension,
                   job->distances);
    return VEX_OK;
}

/* Distances of candidates of any sources, those of one together. `done` of each is false. */
static vex_status distances_compute(vexi_refining *r, candidate *items, size_t count,
                                    vexi_arena *arena, vex_error *err) {
    const vexi_view *view = r->view;
    if (count == 0) {
        return VEX_OK;
    }
    uint64_t *rows = vexi_arena_array(arena, count, sizeof *rows);
    size_t *at = vexi_arena_array(arena, count, sizeof *at);
    const uint8_t **vectors = vexi_arena_array(arena, count, sizeof *vectors);
    double *distances = vexi_arena_array(arena, count, sizeof *distances);
    if (rows == NULL || at == NULL || vectors == NULL || distances == NULL) {
        return vexi_no_memory(err, count * sizeof *rows);
    }
    size_t first = 0; /* not done yet */
    for (size_t done = 0; done < count;) {
        while (items[first].done) {
            first++;
        }
        uint32_t number = items[first].place.source;
        const vexi_source *source = &view->sources[number];
        size_t part = 0;
        for (size_t i = first; i < count; i++) {
            if (items[i].place.source == number) {
                at[part] = i;
                rows[part++] = items[i].place.row;
            }
        }
        r->failed_source = number;
        VEX_TRY(vexi_ready_vectors(r->ready == NULL ? NULL : &r->ready[number], source, rows, part,
                                   arena, vectors, &r->cost, err));
        distance_job job = {view->schema->metric,
                            view->schema->dimension,
                            r->query->values,
                            vectors,
                            part,
                            distances};
        VEX_TRY(vexi_guard_run(distance_run, &job, vexi_source_name(source), err));
        for (size_t i = 0; i < part; i++) {
            /* + 0.0 makes -0.0, which prints oddly, an ordinary zero. */
            items[at[i]].distance = distances[i] + 0.0;
            items[at[i]].done = true;
        }
        done += part;
    }
    r->failed_source = VEXI_PLACE_NONE;
    return VEX_OK;
}

/* ---- Ids ------------------------------------------------------------------------------------- */

typedef struct id_job {
    const vexi_view *view;
    candidate *items;
    size_t count;
    volatile size_t at; /* item under way: read after a fault */
    char *target;       /* second step */
} id_job;

static vex_status id_find_run(void *argument, vex_error *err) {
    id_job *job = argument;
    for (size_t i = 0; i < job->count; i++) {
        candidate *item = &job->items[i];
        job->at = i;
        VEX_TRY(vexi_source_id(&job->view->sources[item->place.source], item->place.row, &item->id,
                               err));
    }
    return VEX_OK;
}

static vex_status id_copy_run(void *argument, vex_error *err) {
    (void)err;
    id_job *job = argument;
    char *target = job->target;
    for (size_t i = 0; i < job->count; i++) {
        vex_string *id = &job->items[i].id;
        job->at = i;
        memcpy(target, id->data, id->size);
        id->data = target;
        target += id->size;
    }
    return VEX_OK;
}

/* Where sources are remote: the ids of one together, instead of one after the other. */
static vex_status ids_need(vexi_refining *r, const candidate *items, size_t count, vex_error *err) {
    const vexi_view *view = r->view;
    uint64_t *rows = NULL;
    vex_status status = VEX_OK;
    for (uint32_t s = 0; s < view->source_count && status == VEX_OK; s++) {
        if (!vexi_source_is_remote(&view->sources[s])) {
            continue;
        }
        rows = rows != NULL ? rows : vexi_alloc_array(r->work->env, count + 1, sizeof *rows);
        if (rows == NULL) {
            return vexi_no_memory(err, count * sizeof *rows);
        }
        size_t part = 0;
        for (size_t i = 0; i < count; i++) {
            if (items[i].place.source == s) {
                rows[part++] = items[i].place.row;
            }
        }
        status = vexi_source_ids_need(&view->sources[s], rows, part, &r->cost, err);
        if (status != VEX_OK) {
            r->failed_source = s;
        }
    }
    vexi_free(r->work->env, rows);
    return status;
}

/* Ids of the candidates, copied to the arena. */
static vex_status ids_copy(vexi_refining *r, candidate *items, size_t count, vexi_arena *arena,
                           vex_error *err) {
    id_job job = {.view = r->view, .items = items, .count = count};
    size_t total = 0;
    VEX_TRY(ids_need(r, items, count, err));
    vex_status status = vexi_guard_run(id_find_run, &job, "index file", err);
    if (status == VEX_OK) {
        for (size_t i = 0; i < count; i++) {
            total += items[i].id.size; /* VEX_ID_SIZE_MAX times about VEX_K_MAX at most */
        }
        job.target = vexi_arena_alloc(arena, total);
        if (job.target == NULL) {
            return vexi_no_memory(err, total);
        }
        status = vexi_guard_run(id_copy_run, &job, "index file", err);
    }
    if (status != VEX_OK) {
        r->failed_source = items[job.at].place.source;
        if (status == VEX_IO) {
            return vexi_prefix(err, status, "%s",
                               vexi_source_name(&r->view->sources[r->failed_source]));
        }
    }
    return status;
}

/* ---- When float32 is not enough -------------------------------------------------------------- */

enum { NEAR_CHUNK_ROWS = 4096, NEAR_CHUNK_SIZE = 32 << 20 };

typedef struct within_job {
    const vexi_query *query;
    const vexi_run *runs;
    size_t run_count;
    const uint64_t *hidden;
    float limit;
    uint64_t *rows;
    size_t count;
    float length_max; /* the other step */
} within_job;

static vex_status within_run(void *argument, vex_error *err) {
    (void)err;
    within_job *job = argument;
    for (size_t r = 0; r < job->run_count; r++) {
        job->count += vexi_flat_within(job->query, &job->runs[r], job->hidden, job->limit,
                                       job->rows + job->count);
    }
    return VEX_OK;
}

static vex_status length_run(void *argument, vex_error *err) {
    (void)err;
    within_job *job = argument;
    for (size_t r = 0; r < job->run_count; r++) {
        float length = vexi_flat_length_max(&job->runs[r], job->query->dimension);
        job->length_max = length > job->length_max ? length : job->length_max;
    }
    return VEX_OK;
}

static uint64_t chunk_rows_of(const vexi_schema *schema) {
    uint64_t rows = NEAR_CHUNK_SIZE / (schema->dimension * sizeof(float));
    return rows < NEAR_CHUNK_ROWS ? rows : NEAR_CHUNK_ROWS;
}

static vex_status source_length_max(vexi_refining *r, const vexi_source *source, float *out,
                                    vex_error *err) {
    uint64_t chunk = chunk_rows_of(r->view->schema);
    within_job job = {.query = r->query};
    vexi_arena arena;
    vexi_arena_init(&arena, r->work->env);
    vex_status status = VEX_OK;
    for (uint64_t first = 0; first < source->row_count && status == VEX_OK; first += chunk) {
        uint64_t rest = source->row_count - first;
        vexi_row_range range = {first, rest < chunk ? rest : chunk};
        vexi_run *runs;
        vexi_arena_reset(&arena);
        status = vexi_source_runs(source, &range, 1, &arena, &runs, &job.run_count, &r->cost, err);
        if (status == VEX_OK) {
            job.runs = runs;
            status = vexi_guard_run(length_run, &job, vexi_source_name(source), err);
        }
    }
    vexi_arena_deinit(&arena);
    *out = job.length_max;
    return status;
}

/* The length of the longest row of all sources, or more: what float32 may be off by under inner
 * product. The first to ask looks at every row. */
static vex_status length_max_of(vexi_refining *r, double *out, vex_error *err) {
    *out = 0;
    if (r->view->schema->metric != VEX_METRIC_IP) {
        return VEX_OK;
    }
    for (uint32_t s = 0; s < r->view->source_count; s++) {
        const vexi_source *source = &r->view->sources[s];
        if (source->row_count == source->hidden_count || (r->skip != NULL && r->skip[s])) {
            continue;
        }
        float length = vexi_source_length_max(source);
        if (length < 0) {
            r->failed_source = s;
            VEX_TRY(source_length_max(r, source, &length, err));
            vexi_source_length_told(source, length);
        }
        *out = length > *out ? length : *out;
    }
    r->failed_source = VEXI_PLACE_NONE;
    return VEX_OK;
}

/* The k nearest, by id among those that tie for the last places. */
static vex_status nearest_keep(vexi_refining *r, candidate *items, size_t *count, vex_error *err) {
    if (*count <= r->k) {
        return VEX_OK;
    }
    items_sort(items, *count, by_distance);
    double last = items[r->k - 1].distance;
    size_t first = r->k - 1, end = r->k;
    while (first > 0 && items[first - 1].distance == last) {
        first--;
    }
    while (end < *count && items[end].distance == last) {
        end++;
    }
    *count = r->k;
    if (end == r->k) {
        return VEX_OK;
    }
    vexi_arena arena; /* ids are copied for the moment */
    vexi_arena_init(&arena, r->work->env);
    vex_status status = ids_copy(r, items + first, end - first, &arena, err);
    if (status == VEX_OK) {
        items_sort(items + first, end - first, by_distance_and_id);
    }
    vexi_arena_deinit(&arena);
    return status;
}

/* Append the rows of a range that are at most as far as `limit` by float32. */
static vex_status chunk_scan(vexi_refining *r, uint32_t s, vexi_row_range range, float limit,
                             vexi_arena *arena, candidate *items, size_t *count, vex_error *err) {
    const vexi_source *source = &r->view->sources[s];
    vexi_run *runs;
    within_job job = {.query = r->query, .hidden = source->hidden, .limit = limit};
    job.rows = vexi_arena_array(arena, (size_t)range.count, sizeof *job.rows);
    if (job.rows == NULL) {
        return vexi_no_memory(err, (size_t)range.count * sizeof *job.rows);
    }
    r->failed_source = s;
    VEX_TRY(vexi_source_runs(source, &range, 1, arena, &runs, &job.run_count, &r->cost, err));
    job.runs = runs;
    VEX_TRY(vexi_guard_run(within_run, &job, vexi_source_name(source), err));
    for (size_t i = 0; i < job.count; i++) {
        items[*count + i] = (candidate){.place = {s, job.rows[i]}};
    }
    VEX_TRY(distances_compute(r, items + *count, job.count, arena, err));
    *count += job.count;
    return VEX_OK;
}

/* The k nearest of all rows, for certain: by float32 those that may be at most `distance` away, of
 * which double takes the best. `distance` falls with the k-th of them. In the work arena. */
static vex_status near_scan(vexi_refining *r, double distance, candidate **out, size_t *count,
                            vex_error *err) {
    double row_length_max;
    VEX_TRY(length_max_of(r, &row_length_max, err));
    vexi_arena_reset(r->work);
    uint64_t chunk = chunk_rows_of(r->view->schema);
    candidate *items = vexi_arena_array(r->work, r->k + (size_t)chunk, sizeof *items);
    if (items == NULL) {
        return vexi_no_memory(err, (r->k + (size_t)chunk) * sizeof *items);
    }
    *count = 0;
    for (uint32_t s = 0; s < r->view->source_count; s++) {
        const vexi_source *source = &r->view->sources[s];
        if (source->row_count == source->hidden_count || (r->skip != NULL && r->skip[s])) {
            continue;
        }
        for (uint64_t first = 0; first < source->row_count; first += chunk) {
            uint64_t rest = source->row_count - first;
            vexi_row_range range = {first, rest < chunk ? rest : chunk};
            float limit = vexi_flat_limit(r->query, distance, row_length_max);
            vexi_arena arena;
            vexi_arena_init(&arena, r->work->env);
            vex_status status = chunk_scan(r, s, range, limit, &arena, items, count, err);
            vexi_arena_deinit(&arena);
            VEX_TRY(status);
            VEX_TRY(nearest_keep(r, items, count, err));
            if (*count == r->k) {
                double last = items[0].distance; /* the farthest of them: they may be in no order */
                for (size_t i = 1; i < *count; i++) {
                    last = items[i].distance > last ? items[i].distance : last;
                }
                distance = last < distance ? last : distance;
            }
        }
        r->row_count += source->row_count - source->hidden_count;
    }
    r->failed_source = VEXI_PLACE_NONE;
    *out = items;
    return VEX_OK;
}

/* ---- Refining -------------------------------------------------------------------------------- */

/* False where some distances were clamped. */
static bool candidates_ordered(const vexi_topk *topk) {
    for (uint32_t i = 0; i < topk->count; i++) {
        if (!(fabsf(topk->items[i].distance) < FLT_MAX)) {
            return false;
        }
    }
    return true;
}

/* Candidates with their distances, in the work arena: the first k, and those behind them that
 * double may order before the k-th. Inner products are off by a share of the vectors' lengths,
 * which nobody asks for here: all are kept. */
static vex_status candidates_take(vexi_refining *r, candidate **out, size_t *count,
                                  vex_error *err) {
    vexi_topk *topk = r->topk;
    uint32_t k = r->k;
    vexi_topk_sort(topk);
    if (topk->count < k) {
        return vexi_fail(err, VEX_INTERNAL, "a search found %u rows of %u", topk->count, k);
    }
    candidate *items = vexi_arena_array(r->work, topk->count, sizeof *items);
    if (items == NULL) {
        return vexi_no_memory(err, topk->count * sizeof *items);
    }
    for (uint32_t i = 0; i < topk->count; i++) {
        items[i] = (candidate){.place = {topk->items[i].source, topk->items[i].row}};
    }
    *out = items;
    *count = k;
    VEX_TRY(distances_compute(r, items, k, r->work, err));
    double farthest = items[0].distance;
    for (uint32_t i = 1; i < k; i++) {
        farthest = items[i].distance > farthest ? items[i].distance : farthest;
    }
    float limit = vexi_flat_limit(r->query, farthest, INFINITY);
    while (*count < topk->count && topk->items[*count].distance <= limit) {
        *count += 1;
    }
    VEX_TRY(distances_compute(r, items + k, *count - k, r->work, err));
    items_sort(items, *count, by_distance);
    return VEX_OK;
}

/* Whether a row that is not among the (sorted) candidates may be as near as `distance`. */
static vex_status may_miss(vexi_refining *r, double distance, bool *out, vex_error *err) {
    float worst = r->topk->items[r->topk->count - 1].distance;
    double row_length_max;
    VEX_TRY(length_max_of(r, &row_length_max, err));
    *out = worst <= vexi_flat_limit(r->query, distance, row_length_max);
    return VEX_OK;
}

vex_status vexi_refine(vexi_refining *r, vex_error *err) {
    candidate *items = NULL;
    size_t count = 0;
    bool again = true;
    double distance = INFINITY;

    r->failed_source = VEXI_PLACE_NONE;
    vexi_arena_reset(r->work);
    if (candidates_ordered(r->topk)) {
        VEX_TRY(candidates_take(r, &items, &count, err));
        distance = items[r->k - 1].distance;
        again = false;
        if (r->certain) {
            VEX_TRY(may_miss(r, distance, &again, err));
        }
    }
    if (again) {
        VEX_TRY(near_scan(r, distance, &items, &count, err));
        if (count < r->k) {
            return vexi_fail(err, VEX_INTERNAL, "a search found %zu rows of %u", count, r->k);
        }
        items_sort(items, count, by_distance);
    }
    size_t kept = r->k; /* and those that tie with the last: their ids decide */
    while (kept < count && items[kept].distance == items[r->k - 1].distance) {
        kept++;
    }
    VEX_TRY(ids_copy(r, items, kept, r->arena, err));
    items_sort(items, kept, by_distance_and_id);
    for (uint32_t i = 0; i < r->k; i++) {
        r->places[i] = items[i].place;
        r->distances[i] = items[i].distance;
        r->ids[i] = items[i].id;
    }
    return VEX_OK;
}
