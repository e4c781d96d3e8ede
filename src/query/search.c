/* Search: the plan.
 *
 * A search is split into units of work that run in parallel: a unit is a group of queries against a
 * slice of every source. Many queries make many groups of one slice each; a single query over a
 * large collection makes one group of several slices, whose candidates are merged. Then each
 * query's candidates are refined to its rows, asked columns are fetched for all rows together, and
 * one batch is built.
 *
 * Invariants:
 * 1. A query has exactly min(k, live rows) rows: sources yield at least min(k, their live rows)
 *    candidates, and float32 never decides alone (query/refine.c).
 * 2. Damage is an error that names the object. With `partial`, the damaged segment is left out and
 *    the whole search runs again, so that no row of it remains among the results; that happens at
 *    most once for each segment. */
#include "base/guard.h"
#include "query/search_internal.h"
#include "table/row_check.h"

enum {
    EXTRA_CANDIDATES = 16,      /* beyond k: where float32 and double order differently */
    GROUP_QUERIES_MAX = 16,     /* that share blocks of rows in cache */
    SLICE_SIZE_MIN = 2 << 20,   /* bytes of vectors that are worth a thread */
    RESULT_ROWS_MAX = 16 << 20, /* queries x k; see vex_search */
};

typedef struct search_unit {
    vexi_arena arena;
    uint32_t first_query;
    uint32_t query_count;
    uint32_t slice;
    vexi_topk *topks;
    vex_search_stats stats;
    uint32_t failed_source;
    vex_status status;
    vex_error err;
} search_unit;

typedef struct search {
    const vexi_env *env;
    const vexi_view *view;
    const vexi_search_request *request;
    const float *queries;
    bool *skip;         /* by source: damaged, left out */
    uint32_t row_count; /* of each query's result: min(k, live rows) */
    uint32_t pool_count;
    uint32_t group_count;
    uint32_t slice_count;
    search_unit *units; /* group_count x slice_count */
    /* Results: query_count x row_count. */
    vexi_place *places;
    double *distances;
    vex_string *ids;
    uint32_t *query_numbers;
} search;

/* ---- Queries --------------------------------------------------------------------------------- */

typedef struct copy_job {
    float *target;
    const uint8_t *vector;
    size_t size;
} copy_job;

static vex_status copy_run(void *argument, vex_error *err) {
    (void)err;
    const copy_job *job = argument;
    memcpy(job->target, job->vector, job->size);
    return VEX_OK;
}

/* Vectors of stored rows, in the arena. */
static vex_status queries_by_id(const vexi_view *view, const vex_string *ids, uint32_t count,
                                vexi_arena *arena, const float **out, vex_error *err) {
    uint32_t dimension = view->schema->dimension;
    float *queries = vexi_arena_array(arena, (size_t)count * dimension, sizeof *queries);
    if (queries == NULL) {
        return vexi_no_memory(err, (size_t)count * dimension * sizeof *queries);
    }
    for (uint32_t i = 0; i < count; i++) {
        bool found = false;
        uint32_t source = 0;
        uint64_t row = 0;
        VEX_TRY(vexi_id_check(ids[i], err));
        VEX_TRY(vexi_view_find(view, ids[i], &found, &source, &row, err));
        if (!found) {
            return vexi_fail(err, VEX_NOT_FOUND, "the collection has no row '%.*s'",
                             (int)ids[i].size, ids[i].data);
        }
        const uint8_t *vector = NULL;
        const vexi_source *from = &view->sources[source];
        VEX_TRY(vexi_source_vectors(from, dimension, &row, 1, arena, &vector, err));
        copy_job job = {queries + (size_t)i * dimension, vector, dimension * sizeof *queries};
        VEX_TRY(vexi_guard_run(copy_run, &job, vexi_source_name(from), err));
    }
    *out = queries;
    return VEX_OK;
}

static vex_status queries_check(const vexi_schema *schema, const float *queries, uint32_t count,
                                vex_error *err) {
    for (uint32_t i = 0; i < count; i++) {
        vex_status status = vexi_vector_check(schema, queries + (size_t)i * schema->dimension,
                                              schema->dimension, err);
        if (status != VEX_OK) {
            return count == 1 ? status : vexi_prefix(err, status, "query %u", i);
        }
    }
    return VEX_OK;
}

/* ---- Units ----------------------------------------------------------------------------------- */

static vex_status unit_scan(const search *s, search_unit *unit, vex_error *err) {
    uint32_t dimension = s->view->schema->dimension;
    vexi_query *queries = vexi_arena_array(&unit->arena, unit->query_count, sizeof *queries);
    unit->topks = vexi_arena_array(&unit->arena, unit->query_count, sizeof *unit->topks);
    if (queries == NULL || unit->topks == NULL) {
        return vexi_no_memory(err, unit->query_count * sizeof *queries);
    }
    for (uint32_t q = 0; q < unit->query_count; q++) {
        const float *values = s->queries + (size_t)(unit->first_query + q) * dimension;
        VEX_TRY(vexi_query_init(&queries[q], s->view->schema->metric, values, dimension,
                                &unit->arena, err));
        VEX_TRY(vexi_topk_init(&unit->topks[q], s->pool_count, &unit->arena, err));
    }
    vexi_scan scan = {
        .env = s->env,
        .view = s->view,
        .queries = queries,
        .topks = unit->topks,
        .query_count = unit->query_count,
        .k = s->request->k,
        .nprobe = s->request->nprobe,
        .exact = s->request->exact,
        .slice = unit->slice,
        .slice_count = s->slice_count,
    };
    /* Newest first: memtables are warm, and a good threshold early saves pushes later. */
    for (size_t i = s->view->source_count; i-- > 0;) {
        if (!s->skip[i]) {
            unit->failed_source = (uint32_t)i;
            VEX_TRY(vexi_scan_source(&scan, (uint32_t)i, err));
        }
    }
    unit->failed_source = VEXI_PLACE_NONE;
    unit->stats = scan.stats;
    return VEX_OK;
}

static vex_status unit_refine(const search *s, search_unit *unit, vex_error *err) {
    for (uint32_t q = 0; q < unit->query_count; q++) {
        size_t query = unit->first_query + q;
        size_t first = query * s->row_count;
        VEX_TRY(vexi_refine(s->env, s->view, s->skip,
                            s->queries + query * s->view->schema->dimension, &unit->topks[q],
                            s->row_count, &unit->arena, s->places + first, s->distances + first,
                            s->ids + first, &unit->failed_source, err));
    }
    return VEX_OK;
}

static void unit_run(void *argument, size_t i) {
    const search *s = argument;
    search_unit *unit = &s->units[i];
    unit->status = unit_scan(s, unit, &unit->err);
    if (unit->status == VEX_OK && s->slice_count == 1) {
        unit->status = unit_refine(s, unit, &unit->err);
    }
}

/* Merge the slices of a group into its first unit, then refine. */
static void group_run(void *argument, size_t group) {
    const search *s = argument;
    search_unit *units = s->units + group * s->slice_count;
    for (uint32_t slice = 1; slice < s->slice_count; slice++) {
        for (uint32_t q = 0; q < units->query_count; q++) {
            const vexi_topk *from = &units[slice].topks[q];
            for (uint32_t i = 0; i < from->count; i++) {
                vexi_topk_push(&units->topks[q], from->items[i].distance, from->items[i].source,
                               from->items[i].row);
            }
        }
    }
    units->status = unit_refine(s, units, &units->err);
}

/* How many groups and slices: groups first, slices where threads would be idle. */
static void plan(search *s) {
    uint32_t threads = s->env->thread_count == 0 ? 1 : s->env->thread_count;
    uint32_t queries = s->request->query_count;
    uint64_t rows = 0;
    for (size_t i = 0; i < s->view->source_count; i++) {
        if (!s->skip[i]) {
            rows += vexi_scan_estimate(&s->view->sources[i], s->request->k, s->request->nprobe,
                                       s->request->exact);
        }
    }
    uint64_t row_size = s->view->schema->dimension * sizeof(float);
    uint64_t size = rows > UINT64_MAX / row_size ? UINT64_MAX : rows * row_size;
    uint64_t slices_worth = size / SLICE_SIZE_MIN;

    uint32_t group_size = (queries + threads - 1) / threads;
    if (group_size > GROUP_QUERIES_MAX) {
        group_size = GROUP_QUERIES_MAX;
    }
    if (slices_worth == 0) {
        group_size = queries < GROUP_QUERIES_MAX ? queries : GROUP_QUERIES_MAX;
    }
    s->group_count = (queries + group_size - 1) / group_size;
    s->slice_count = 1;
    if (s->group_count < threads && slices_worth > 1) {
        uint64_t slices = threads / s->group_count;
        s->slice_count = (uint32_t)(slices < slices_worth ? slices : slices_worth);
    }
}

static void units_free(search *s) {
    for (size_t i = 0; s->units != NULL && i < (size_t)s->group_count * s->slice_count; i++) {
        vexi_arena_deinit(&s->units[i].arena);
    }
    vexi_free(s->env, s->units);
    s->units = NULL;
}

static vex_status units_create(search *s, vex_error *err) {
    size_t count = (size_t)s->group_count * s->slice_count;
    uint32_t queries = s->request->query_count;
    s->units = vexi_calloc(s->env, count, sizeof *s->units);
    if (s->units == NULL) {
        return vexi_no_memory(err, count * sizeof *s->units);
    }
    for (size_t i = 0; i < count; i++) {
        search_unit *unit = &s->units[i];
        uint64_t group = i / s->slice_count;
        vexi_arena_init(&unit->arena, s->env);
        unit->slice = (uint32_t)(i % s->slice_count);
        unit->first_query = (uint32_t)(group * queries / s->group_count);
        unit->query_count = (uint32_t)((group + 1) * queries / s->group_count) - unit->first_query;
        unit->failed_source = VEXI_PLACE_NONE;
    }
    return VEX_OK;
}

static vex_status units_result(const search *s, uint32_t *failed_source, vex_error *err) {
    for (size_t i = 0; i < (size_t)s->group_count * s->slice_count; i++) {
        if (s->units[i].status != VEX_OK) {
            *failed_source = s->units[i].failed_source;
            if (err != NULL) {
                *err = s->units[i].err;
            }
            return s->units[i].status;
        }
    }
    return VEX_OK;
}

/* ---- One attempt ----------------------------------------------------------------------------- */

/* Leave out what is known to be damaged, or fail; count live rows. */
static vex_status sources_check(search *s, uint64_t *live_count, uint32_t *failed_source,
                                vex_error *err) {
    *live_count = 0;
    for (size_t i = 0; i < s->view->source_count; i++) {
        const vexi_source *source = &s->view->sources[i];
        if (s->skip[i]) {
            continue;
        }
        vex_status status = vexi_source_check(source, err);
        if (status != VEX_OK) {
            *failed_source = (uint32_t)i;
            return status;
        }
        *live_count += source->row_count - source->hidden_count;
    }
    return VEX_OK;
}

static vex_status results_create(search *s, vexi_arena *arena, vex_error *err) {
    size_t count = (size_t)s->request->query_count * s->row_count;
    if (count > RESULT_ROWS_MAX) {
        return vexi_fail(err, VEX_LIMIT, "%u queries of %u rows are more than %d rows together",
                         s->request->query_count, s->row_count, RESULT_ROWS_MAX);
    }
    s->places = vexi_arena_array(arena, count, sizeof *s->places);
    s->distances = vexi_arena_array(arena, count, sizeof *s->distances);
    s->ids = vexi_arena_array(arena, count, sizeof *s->ids);
    s->query_numbers = vexi_arena_array(arena, count, sizeof *s->query_numbers);
    if (s->places == NULL || s->distances == NULL || s->ids == NULL || s->query_numbers == NULL) {
        return vexi_no_memory(err, count * sizeof *s->places);
    }
    for (size_t i = 0; i < count; i++) {
        s->query_numbers[i] = (uint32_t)(i / s->row_count);
    }
    return VEX_OK;
}

static vex_status search_batch(const search *s, vexi_keeper *keeper, vexi_view *view,
                               vexi_fetched *fetched, struct ArrowSchema *schema,
                               struct ArrowArray *batch, uint32_t *failed_source, vex_error *err) {
    size_t count = (size_t)s->request->query_count * s->row_count;
    vexi_batch_column columns[VEXI_ASKED_MAX + 3] = {
        {.name = vexi_string_of("query"), .kind = VEXI_BATCH_UINT32, .data = s->query_numbers},
        {.name = vexi_string_of("id"), .kind = VEXI_BATCH_STRING, .data = s->ids},
        {.name = vexi_string_of("distance"), .kind = VEXI_BATCH_FLOAT64, .data = s->distances},
    };
    size_t column_count = 3u + s->request->asked.count;
    vexi_asked_describe(view->schema, &s->request->asked, fetched->vectors, fetched->cells, count,
                        columns + 3);
    vexi_batch_owner owner = {
        .view = view,
        .arenas = fetched->arenas,
        .arena_count = fetched->arena_count,
    };
    vex_status status = vexi_batch_build(keeper, columns, column_count, count, &owner, batch, err);
    fetched->arenas = owner.arenas; /* NULL if the batch took them */
    fetched->arena_count = owner.arena_count;
    if (status == VEX_IO) {
        *failed_source = s->places[owner.failed_row].source;
        return vexi_prefix(err, status, "%s", vexi_source_name(&view->sources[*failed_source]));
    }
    if (status == VEX_OK && schema != NULL) {
        status = vexi_batch_schema(keeper, columns, column_count, schema, err);
        if (status != VEX_OK) {
            batch->release(batch);
        }
    }
    return status;
}

static void stats_fill(const search *s, vex_search_stats *stats) {
    for (size_t i = 0; i < s->view->source_count; i++) {
        const vexi_source *source = &s->view->sources[i];
        if (source->segment == NULL) {
            continue;
        }
        stats->segment_count++;
        stats->segment_skip_count += s->skip[i];
        stats->segment_ivf_count +=
            !s->skip[i] && !s->request->exact && vexi_source_ivf(source) != NULL;
    }
    for (size_t i = 0; s->units != NULL && i < (size_t)s->group_count * s->slice_count; i++) {
        stats->list_count += s->units[i].stats.list_count;
        stats->row_count += s->units[i].stats.row_count;
    }
}

/* One run over the sources that are not left out. */
static vex_status attempt(search *s, vexi_keeper *keeper, vexi_view *view,
                          struct ArrowSchema *schema, struct ArrowArray *batch,
                          vex_search_stats *stats, uint32_t *failed_source, vex_error *err) {
    vexi_arena arena;
    vexi_fetched fetched = {.env = s->env};
    uint64_t live_count = 0;
    vex_status status = VEX_OK;

    *failed_source = VEXI_PLACE_NONE;
    *stats = (vex_search_stats){0};
    vexi_arena_init(&arena, s->env);
    VEX_TRY_GOTO(status, done, sources_check(s, &live_count, failed_source, err));
    s->row_count = live_count < s->request->k ? (uint32_t)live_count : s->request->k;
    uint64_t pool = (uint64_t)s->request->k + EXTRA_CANDIDATES;
    s->pool_count = (uint32_t)(live_count < pool ? live_count : pool);
    VEX_TRY_GOTO(status, done, results_create(s, &arena, err));
    if (s->row_count > 0 && s->request->query_count > 0) {
        plan(s);
        VEX_TRY_GOTO(status, done, units_create(s, err));
        vexi_parallel(s->env, (size_t)s->group_count * s->slice_count, unit_run, s);
        VEX_TRY_GOTO(status, done, units_result(s, failed_source, err));
        if (s->slice_count > 1) {
            vexi_parallel(s->env, s->group_count, group_run, s);
            VEX_TRY_GOTO(status, done, units_result(s, failed_source, err));
        }
        VEX_TRY_GOTO(status, done,
                     vexi_fetch(s->env, view, s->places,
                                (size_t)s->request->query_count * s->row_count, &s->request->asked,
                                &fetched, stats, failed_source, err));
    }
    VEX_TRY_GOTO(status, done,
                 search_batch(s, keeper, view, &fetched, schema, batch, failed_source, err));
    stats_fill(s, stats);
done:
    vexi_fetched_deinit(&fetched);
    units_free(s);
    vexi_arena_deinit(&arena);
    return status;
}

static bool is_damage(vex_status status) {
    return status == VEX_CORRUPT || status == VEX_IO || status == VEX_NOT_FOUND;
}

vex_status vexi_search(vexi_keeper *keeper, vexi_view *view, const vexi_search_request *request,
                       struct ArrowSchema *schema, struct ArrowArray *batch,
                       vex_search_stats *stats, vex_error *err) {
    *batch = (struct ArrowArray){0};
    if (schema != NULL) {
        *schema = (struct ArrowSchema){0};
    }
    search s = {.env = keeper->env, .view = view, .request = request, .queries = request->queries};
    vex_search_stats own_stats = {0};
    vex_error problem = {.row = -1}; /* kept: a later attempt may succeed */
    uint32_t failed_source = VEXI_PLACE_NONE;
    vexi_arena arena;
    vex_status status = VEX_OK;

    vexi_arena_init(&arena, keeper->env);
    s.skip = vexi_arena_calloc(&arena, view->source_count + 1, sizeof *s.skip);
    if (s.skip == NULL) {
        status = vexi_no_memory(&problem, view->source_count);
        goto done;
    }
    if (request->query_ids != NULL) {
        VEX_TRY_GOTO(status, done,
                     queries_by_id(view, request->query_ids, request->query_count, &arena,
                                   &s.queries, &problem));
    }
    VEX_TRY_GOTO(status, done,
                 queries_check(view->schema, s.queries, request->query_count, &problem));
    for (;;) {
        status = attempt(&s, keeper, view, schema, batch, &own_stats, &failed_source, &problem);
        if (status == VEX_OK || !request->partial || !is_damage(status) ||
            failed_source == VEXI_PLACE_NONE || view->sources[failed_source].segment == NULL) {
            break;
        }
        VEX_ASSERT(!s.skip[failed_source]);
        s.skip[failed_source] = true;
    }
    if (status == VEX_OK && stats != NULL) {
        *stats = own_stats;
    }
done:
    vexi_arena_deinit(&arena);
    if (status != VEX_OK && err != NULL) {
        *err = problem;
    }
    return status;
}
