/* Refine: from float32 candidates to the rows of the answer.
 *
 * Scans compare in float32 and keep a few candidates more than asked for; here each candidate's
 * distance is computed again in double, in index order, so that a pair of vectors has one distance
 * whatever the path that found it, and the order of the answer is (distance, id bytes).
 *
 * Float32 distances of finite vectors may overflow; scans then clamp them to FLT_MAX
 * (index/flat.c). Among clamped candidates the order says nothing, and the query is compared again
 * with every row in double: slow, and right.
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
static vex_status distances_compute(const vexi_view *view, const float *query, candidate *items,
                                    size_t count, vexi_arena *arena, uint32_t *failed_source,
                                    vex_error *err) {
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
        *failed_source = number;
        VEX_TRY(vexi_source_vectors(source, rows, part, arena, vectors, err));
        distance_job job = {
            view->schema->metric, view->schema->dimension, query, vectors, part, distances};
        VEX_TRY(vexi_guard_run(distance_run, &job, vexi_source_name(source), err));
        for (size_t i = 0; i < part; i++) {
            /* + 0.0 makes -0.0, which prints oddly, an ordinary zero. */
            items[at[i]].distance = distances[i] + 0.0;
            items[at[i]].done = true;
        }
        done += part;
    }
    *failed_source = VEXI_PLACE_NONE;
    return VEX_OK;
}

/* ---- When float32 is not enough -------------------------------------------------------------- */

enum { EXACT_CHUNK_ROWS = 4096 };

/* Every live row of the sources, in double: items receives at least the k nearest, *count of them.
 * items has room for k + EXACT_CHUNK_ROWS. */
static vex_status exact_scan(const vexi_env *env, const vexi_view *view, const bool *skip,
                             const float *query, uint32_t k, candidate *items, size_t *count,
                             uint32_t *failed_source, vex_error *err) {
    *count = 0;
    for (uint32_t s = 0; s < view->source_count; s++) {
        const vexi_source *source = &view->sources[s];
        if (skip != NULL && skip[s]) {
            continue;
        }
        for (uint64_t first = 0; first < source->row_count; first += EXACT_CHUNK_ROWS) {
            uint64_t end = first + EXACT_CHUNK_ROWS;
            end = end < source->row_count ? end : source->row_count;
            size_t added = 0;
            for (uint64_t row = first; row < end; row++) {
                if (source->hidden == NULL || !vexi_bitmap_get(source->hidden, row)) {
                    items[*count + added++] = (candidate){.place = {s, row}};
                }
            }
            if (added == 0) {
                continue;
            }
            vexi_arena arena;
            vexi_arena_init(&arena, env);
            vex_status status =
                distances_compute(view, query, items + *count, added, &arena, failed_source, err);
            vexi_arena_deinit(&arena);
            VEX_TRY(status);
            *count += added;
            if (*count > k) {
                qsort(items, *count, sizeof *items, by_distance);
                *count = k;
            }
        }
    }
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

/* Ids of the candidates, copied to the arena. */
static vex_status ids_copy(const vexi_view *view, candidate *items, size_t count, vexi_arena *arena,
                           uint32_t *failed_source, vex_error *err) {
    id_job job = {.view = view, .items = items, .count = count};
    size_t total = 0;
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
        *failed_source = items[job.at].place.source;
        if (status == VEX_IO) {
            return vexi_prefix(err, status, "%s", vexi_source_name(&view->sources[*failed_source]));
        }
    }
    return status;
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

/* Beyond the k-th nearest by float32, those that double may order before it: sums of `dimension`
 * rounded terms are off by less than this. Inner products are off by a share of the vectors'
 * lengths, which nobody knows here: all are kept. */
static float kept_limit(const vexi_schema *schema, float distance) {
    float slack = 2.5e-7f * ((float)schema->dimension + 8);
    return schema->metric == VEX_METRIC_L2       ? distance * (1 + slack)
           : schema->metric == VEX_METRIC_COSINE ? distance + slack
                                                 : FLT_MAX;
}

/* Candidates with their distances; in the arena. */
static vex_status candidates_take(const vexi_view *view, const float *query, vexi_topk *topk,
                                  uint32_t k, vexi_arena *arena, candidate **out, size_t *count,
                                  uint32_t *failed_source, vex_error *err) {
    candidate *items = vexi_arena_array(arena, topk->count, sizeof *items);
    if (items == NULL) {
        return vexi_no_memory(err, topk->count * sizeof *items);
    }
    vexi_topk_sort(topk);
    float limit = topk->count < k ? FLT_MAX : kept_limit(view->schema, topk->items[k - 1].distance);
    for (uint32_t i = 0; i < topk->count && (i < k || topk->items[i].distance <= limit); i++) {
        items[i] = (candidate){.place = {topk->items[i].source, topk->items[i].row}};
        *count = i + 1;
    }
    *out = items;
    return distances_compute(view, query, items, *count, arena, failed_source, err);
}

vex_status vexi_refine(const vexi_view *view, const bool *skip, const float *query, vexi_topk *topk,
                       uint32_t k, vexi_arena *arena, vexi_arena *work, vexi_place *places,
                       double *distances, vex_string *ids, uint32_t *failed_source,
                       vex_error *err) {
    candidate *items = NULL;
    size_t count = 0;

    *failed_source = VEXI_PLACE_NONE;
    vexi_arena_reset(work);
    if (candidates_ordered(topk)) {
        VEX_TRY(candidates_take(view, query, topk, k, work, &items, &count, failed_source, err));
    } else {
        items = vexi_arena_array(work, (size_t)k + EXACT_CHUNK_ROWS, sizeof *items);
        if (items == NULL) {
            return vexi_no_memory(err, ((size_t)k + EXACT_CHUNK_ROWS) * sizeof *items);
        }
        VEX_TRY(exact_scan(work->env, view, skip, query, k, items, &count, failed_source, err));
    }
    if (count < k) {
        return vexi_fail(err, VEX_INTERNAL, "a search found %zu rows of %u", count, k);
    }
    items_sort(items, count, by_distance);
    size_t kept = k; /* and those that tie with the last: their ids decide */
    while (kept < count && items[kept].distance == items[k - 1].distance) {
        kept++;
    }
    VEX_TRY(ids_copy(view, items, kept, arena, failed_source, err));
    items_sort(items, kept, by_distance_and_id);
    for (uint32_t i = 0; i < k; i++) {
        places[i] = items[i].place;
        distances[i] = items[i].distance;
        ids[i] = items[i].id;
    }
    return VEX_OK;
}
