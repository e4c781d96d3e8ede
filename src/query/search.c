/* Search: the plan.
 *
 * A search is split into units of work that run in parallel: a unit is a group of queries against a
 * slice of every source. Many queries make groups of one slice each; a single query that has to
 * look at much makes one group of several slices, whose candidates are merged. Then each query's
 * candidates are refined to its rows, asked columns are fetched for all rows together, and one
 * batch is built. Waking a thread costs as much as a whole search by codes, so work is split only
 * where its estimated cost is well above that.
 *
 * Large sources come first: the nearest rows of one lower the limit that rows of the next must
 * pass.
 *
 * Invariants:
 * 1. A query has exactly min(k, live rows) rows: sources yield at least min(k, their live rows)
 *    candidates, and float32 never decides alone. Where every row is compared, because the request
 *    wants so or no index would help, they are the nearest for certain (query/refine.c). Bounds of
 *    codes hold for nearly all rows, not for all, and not for rows whose squares overflow: should
 *    candidates be missing, every row is compared.
 * 2. Damage is an error that names the object. With `partial`, the damaged segment is left out and
 *    the whole search runs again, so that no row of it remains among the results; that happens at
 *    most once for each segment. Damage of an index file alone, or one that was cut while it was
 *    mapped, is told to the table, which opens the segment without it; the search runs again on a
 *    view of that. */
#include "base/guard.h"
#include "query/search_internal.h"

#include <math.h>

#include "table/row_check.h"

enum {
    GROUP_QUERIES_MAX = 64,     /* that share blocks of rows or lists in cache */
    SPLIT_COST_NS = 500000,     /* of work that is worth a thread */
    RESULT_ROWS_MAX = 16 << 20, /* queries x k; see vex_search */
    INDEX_DAMAGE_MAX = 64,      /* damaged index files that one search gets over */
};

typedef vexi_search_unit search_unit;
typedef vexi_search_state search;

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
                                vexi_arena *arena, const float **out, vexi_read_cost *cost,
                                vex_error *err) {
    uint32_t dimension = view->schema->dimension;
    float *queries = vexi_arena_array(arena, (size_t)count * dimension, sizeof *queries);
    if (queries == NULL) {
        return vexi_no_memory(err, (size_t)count * dimension * sizeof *queries);
    }
    VEX_TRY(vexi_find_ahead(view, ids, count, arena->env, cost, err));
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
        VEX_TRY(vexi_source_vectors(from, &row, 1, arena, &vector, cost, err));
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

/* ---- Sources --------------------------------------------------------------------------------- */

/* Leave out what is known to be damaged, or fail; count live rows; decide how each source is
 * searched, and in which order. */
static vex_status sources_plan(search *s, uint64_t *live_count, uint32_t *failed_source,
                               vex_error *err) {
    *live_count = 0;
    for (uint32_t i = 0; i < s->view->source_count; i++) {
        const vexi_source *source = &s->view->sources[i];
        if (s->skip[i]) {
            s->efforts[i] = (vexi_effort){.way = VEXI_WAY_NONE};
        } else {
            vex_status status = vexi_source_check(source, err);
            if (status != VEX_OK) {
                *failed_source = i;
                return status;
            }
            *live_count += source->row_count - source->hidden_count;
            s->efforts[i] = vexi_effort_of(s->view, i, s->request);
        }
        /* Insertion by size: sources are few, and mostly in order already. */
        uint32_t at = i;
        for (; at > 0 && s->view->sources[s->order[at - 1]].row_count < source->row_count; at--) {
            s->order[at] = s->order[at - 1];
        }
        s->order[at] = i;
    }
    return VEX_OK;
}

/* ---- Units ----------------------------------------------------------------------------------- */

vexi_scan vexi_search_scan(const search *s, const search_unit *unit) {
    return (vexi_scan){
        .env = s->env,
        .view = s->view,
        .queries = unit->queries,
        .topks = unit->topks,
        .query_count = unit->query_count,
        .request = s->request,
        .slice = unit->slice,
        .slice_count = s->slice_count,
        .scratch = unit->scratch,
        .stats = unit->stats,
        .cost = unit->cost,
    };
}

vex_status vexi_search_begin(const search *s, search_unit *unit, vex_error *err) {
    uint32_t dimension = s->view->schema->dimension;
    vexi_arena *arena = &unit->scratch->whole;
    unit->queries = vexi_arena_array(arena, unit->query_count, sizeof *unit->queries);
    unit->topks = vexi_arena_array(arena, unit->query_count, sizeof *unit->topks);
    if (unit->queries == NULL || unit->topks == NULL) {
        return vexi_no_memory(err, unit->query_count * sizeof *unit->queries);
    }
    for (uint32_t q = 0; q < unit->query_count; q++) {
        const float *values = s->queries + (size_t)(unit->first_query + q) * dimension;
        VEX_TRY(vexi_query_init(&unit->queries[q], s->view->schema->metric, values, dimension,
                                arena, err));
        VEX_TRY(vexi_topk_init(&unit->topks[q], s->pool_count, arena, err));
        unit->queries[q].near_in_double = !s->certain;
    }
    return VEX_OK;
}

static vex_status unit_scan(const search *s, search_unit *unit, vex_error *err) {
    VEX_TRY(vexi_search_begin(s, unit, err));
    vexi_scan scan = vexi_search_scan(s, unit);
    for (size_t i = 0; i < s->view->source_count; i++) {
        unit->failed_source = s->order[i];
        VEX_TRY(vexi_scan_source(&scan, s->order[i], &s->efforts[s->order[i]], err));
    }
    unit->failed_source = VEXI_PLACE_NONE;
    unit->stats = scan.stats;
    unit->cost = scan.cost;
    return VEX_OK;
}

/* Compare a query of the unit with every row. */
static vex_status unit_complete(const search *s, search_unit *unit, uint32_t q, vex_error *err) {
    vexi_scan scan = vexi_search_scan(s, unit);
    unit->topks[q].count = 0;
    unit->topks[q].threshold = INFINITY;
    for (uint32_t i = 0; i < s->view->source_count; i++) {
        if (s->efforts[i].way != VEXI_WAY_NONE) {
            unit->failed_source = i;
            VEX_TRY(vexi_scan_exact(&scan, i, q, err));
        }
    }
    unit->failed_source = VEXI_PLACE_NONE;
    unit->stats = scan.stats;
    unit->cost = scan.cost;
    return VEX_OK;
}

vex_status vexi_search_refine(const search *s, search_unit *unit, vex_error *err) {
    for (uint32_t q = 0; q < unit->query_count; q++) {
        size_t query = unit->first_query + q;
        size_t first = query * s->row_count;
        if (unit->topks[q].count < s->row_count) {
            VEX_TRY(unit_complete(s, unit, q, err));
        }
        vexi_refining refining = {
            .view = s->view,
            .skip = s->skip,
            .ready = unit->ready != NULL ? unit->ready : s->ready,
            .query = &unit->queries[q],
            .topk = &unit->topks[q],
            .k = s->row_count,
            .certain = s->certain,
            .arena = &unit->scratch->whole,
            .work = &unit->scratch->work,
            .places = s->places + first,
            .distances = s->distances + first,
            .ids = s->ids + first,
            .cost = unit->cost,
        };
        vex_status status = vexi_refine(&refining, err);
        unit->stats.row_count += refining.row_count;
        unit->cost = refining.cost;
        unit->failed_source = refining.failed_source;
        VEX_TRY(status);
    }
    return VEX_OK;
}

static void unit_run(void *argument, size_t i) {
    const search *s = argument;
    search_unit *unit = &s->units[i];
    unit->status = vexi_scratch_take(s->keeper, &unit->scratch, &unit->err);
    if (unit->status == VEX_OK) {
        unit->status = unit_scan(s, unit, &unit->err);
    }
    if (unit->status == VEX_OK && s->slice_count == 1) {
        unit->status = vexi_search_refine(s, unit, &unit->err);
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
    units->status = vexi_search_refine(s, units, &units->err);
}

/* How many groups and slices: groups first, slices where threads would be idle. */
static void plan(search *s, bool may_slice) {
    uint32_t threads = s->env->thread_count == 0 ? 1 : s->env->thread_count;
    uint32_t queries = s->request->query_count;
    double cost = 0; /* of a query */
    for (size_t i = 0; i < s->view->source_count; i++) {
        cost += s->efforts[i].cost_ns;
    }
    double parts = cost * queries / SPLIT_COST_NS; /* that are worth a thread */
    uint32_t groups = parts >= threads ? threads : parts < 1 ? 1 : (uint32_t)parts;
    uint32_t group_size = (queries + groups - 1) / groups;
    if (group_size > GROUP_QUERIES_MAX) {
        group_size = GROUP_QUERIES_MAX;
    }
    s->group_count = (queries + group_size - 1) / group_size;
    s->slice_count = 1;
    double slices = cost / SPLIT_COST_NS;
    if (may_slice && s->group_count < threads && slices >= 2) {
        uint32_t most = threads / s->group_count;
        s->slice_count = slices < most ? (uint32_t)slices : most;
    }
}

static bool is_remote(const search *s) {
    for (uint32_t i = 0; i < s->view->source_count; i++) {
        if (s->efforts[i].way != VEXI_WAY_NONE && vexi_source_is_remote(&s->view->sources[i])) {
            return true;
        }
    }
    return false;
}

static void units_free(search *s) {
    for (size_t i = 0; s->units != NULL && i < (size_t)s->group_count * s->slice_count; i++) {
        vexi_scratch_give(s->keeper, s->units[i].scratch);
    }
    s->units = NULL;
}

static vex_status units_create(search *s, vexi_arena *arena, vex_error *err) {
    size_t count = (size_t)s->group_count * s->slice_count;
    uint32_t queries = s->request->query_count;
    s->units = vexi_arena_array(arena, count, sizeof *s->units);
    if (s->units == NULL) {
        return vexi_no_memory(err, count * sizeof *s->units);
    }
    for (size_t i = 0; i < count; i++) {
        search_unit *unit = &s->units[i];
        uint64_t group = i / s->slice_count;
        unit->scratch = NULL;
        unit->slice = (uint32_t)(i % s->slice_count);
        unit->first_query = (uint32_t)(group * queries / s->group_count);
        unit->query_count = (uint32_t)((group + 1) * queries / s->group_count) - unit->first_query;
        unit->topks = NULL;
        unit->stats = (vex_search_stats){0};
        unit->cost = (vexi_read_cost){0};
        unit->coded = NULL;
        unit->shorts = NULL;
        unit->ready = NULL;
        unit->failed_source = VEXI_PLACE_NONE;
        unit->status = VEX_OK;
        unit->err = (vex_error){.row = -1};
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

static vex_status search_batch(const search *s, vexi_fetched *fetched, struct ArrowSchema *schema,
                               struct ArrowArray *batch, uint32_t *failed_source, vex_error *err) {
    vexi_view *view = s->view;
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
    vex_status status =
        vexi_batch_build(s->keeper, columns, column_count, count, &owner, batch, err);
    fetched->arenas = owner.arenas; /* NULL if the batch took them */
    fetched->arena_count = owner.arena_count;
    if (status == VEX_IO) {
        *failed_source = s->places[owner.failed_row].source;
        return vexi_prefix(err, status, "%s", vexi_source_name(&view->sources[*failed_source]));
    }
    if (status == VEX_OK && schema != NULL) {
        status = vexi_batch_schema(s->keeper, columns, column_count, schema, err);
        if (status != VEX_OK) {
            batch->release(batch);
        }
    }
    return status;
}

static void cost_fill(const vexi_read_cost *cost, vex_search_stats *stats) {
    stats->request_count += cost->requests;
    stats->request_bytes += cost->bytes;
    stats->hit_count += cost->hits;
}

/* Steps of units are taken side by side; those of the search and of the columns one after another.
 */
static void stats_fill(const search *s, const vexi_read_cost *fetch_cost, vex_search_stats *stats) {
    uint64_t unit_steps = 0, unit_ns = 0;
    cost_fill(&s->cost, stats);
    cost_fill(fetch_cost, stats);
    for (size_t i = 0; i < s->view->source_count; i++) {
        const vexi_source *source = &s->view->sources[i];
        vexi_way way = s->efforts[i].way;
        if (source->segment == NULL) {
            continue;
        }
        stats->segment_count++;
        stats->segment_skip_count += s->skip[i];
        stats->segment_ivf_count += way == VEXI_WAY_LISTS || way == VEXI_WAY_CODES;
        stats->segment_graph_count += way == VEXI_WAY_GRAPH;
    }
    for (size_t i = 0; s->units != NULL && i < (size_t)s->group_count * s->slice_count; i++) {
        stats->list_count += s->units[i].stats.list_count;
        stats->hop_count += s->units[i].stats.hop_count;
        stats->code_count += s->units[i].stats.code_count;
        stats->row_count += s->units[i].stats.row_count;
        uint64_t steps = s->units[i].cost.steps;
        uint64_t ns = s->units[i].cost.ns;
        unit_steps = steps > unit_steps ? steps : unit_steps;
        unit_ns = ns > unit_ns ? ns : unit_ns;
        cost_fill(&s->units[i].cost, stats);
    }
    stats->step_count = s->cost.steps + unit_steps + fetch_cost->steps;
    stats->read_ns = s->cost.ns + unit_ns + fetch_cost->ns;
}

/* One run over the sources that are not left out. */
static vex_status attempt(search *s, vexi_arena *arena, struct ArrowSchema *schema,
                          struct ArrowArray *batch, vex_search_stats *stats,
                          uint32_t *failed_source, vex_error *err) {
    vexi_fetched fetched = {.env = s->env};
    vexi_read_cost fetch_cost = {0};
    uint64_t live_count = 0;
    vex_status status = VEX_OK;

    *failed_source = VEXI_PLACE_NONE;
    *stats = (vex_search_stats){0};
    s->ready = NULL;
    s->cost = (vexi_read_cost){0};
    VEX_TRY_GOTO(status, done, sources_plan(s, &live_count, failed_source, err));
    s->row_count = live_count < s->request->k ? (uint32_t)live_count : s->request->k;
    uint64_t pool = (uint64_t)s->request->k + VEXI_EXTRA_CANDIDATES;
    s->pool_count = (uint32_t)(live_count < pool ? live_count : pool);
    s->certain = live_count > pool;
    for (uint32_t i = 0; i < s->view->source_count; i++) {
        vexi_way way = s->efforts[i].way;
        s->certain =
            s->certain && (way == VEXI_WAY_NONE || way == VEXI_WAY_EXACT || way == VEXI_WAY_FEW);
    }
    VEX_TRY_GOTO(status, done, results_create(s, arena, err));
    uint64_t begin_ns = vexi_monotonic_ns(s->env), scanned_ns = begin_ns;
    if (s->row_count > 0 && s->request->query_count > 0) {
        bool remote = is_remote(s);
        plan(s, !remote);
        VEX_TRY_GOTO(status, done, units_create(s, arena, err));
        if (remote) {
            VEX_TRY_GOTO(status, done, vexi_remote_run(s, arena, failed_source, err));
        } else {
            vexi_parallel(s->env, (size_t)s->group_count * s->slice_count, unit_run, s);
        }
        VEX_TRY_GOTO(status, done, units_result(s, failed_source, err));
        if (s->slice_count > 1) {
            vexi_parallel(s->env, s->group_count, group_run, s);
            VEX_TRY_GOTO(status, done, units_result(s, failed_source, err));
        }
        scanned_ns = vexi_monotonic_ns(s->env);
        VEX_TRY_GOTO(status, done,
                     vexi_fetch(s->env, s->view, s->places,
                                (size_t)s->request->query_count * s->row_count, &s->request->asked,
                                s->ready, &fetched, stats, &fetch_cost, failed_source, err));
    }
    VEX_TRY_GOTO(status, done, search_batch(s, &fetched, schema, batch, failed_source, err));
    stats_fill(s, &fetch_cost, stats);
    stats->scan_ns = scanned_ns - begin_ns;
    stats->column_ns = vexi_monotonic_ns(s->env) - scanned_ns;
done:
    vexi_fetched_deinit(&fetched);
    units_free(s);
    return status;
}

static bool is_damage(vex_status status) {
    return status == VEX_CORRUPT || status == VEX_IO || status == VEX_NOT_FOUND;
}

/* Begin with a view: nothing is left out of it. */
static vex_status view_begin(search *s, vexi_view *view, vexi_arena *arena, vex_error *err) {
    size_t count = view->source_count + 1; /* + 1: never zero */
    s->view = view;
    s->skip = vexi_arena_calloc(arena, count, sizeof *s->skip);
    s->efforts = vexi_arena_array(arena, count, sizeof *s->efforts);
    s->order = vexi_arena_array(arena, count, sizeof *s->order);
    if (s->skip == NULL || s->efforts == NULL || s->order == NULL) {
        return vexi_no_memory(err, count * sizeof *s->efforts);
    }
    return VEX_OK;
}

vex_status vexi_search(vexi_keeper *keeper, vexi_view *view, const vexi_search_request *request,
                       struct ArrowSchema *schema, struct ArrowArray *batch,
                       vex_search_stats *stats, vex_error *err) {
    *batch = (struct ArrowArray){0};
    if (schema != NULL) {
        *schema = (struct ArrowSchema){0};
    }
    search s = {
        .env = keeper->env, .keeper = keeper, .request = request, .queries = request->queries};
    vex_search_stats own_stats = {0};
    vexi_read_cost id_cost = {0};    /* of the queries' own rows */
    vex_error problem = {.row = -1}; /* kept: a later attempt may succeed */
    uint32_t failed_source = VEXI_PLACE_NONE;
    vexi_scratch *scratch = NULL;
    vexi_view *newer = NULL; /* ours */
    vex_status status = VEX_OK;

    VEX_TRY_GOTO(status, done, vexi_scratch_take(keeper, &scratch, &problem));
    vexi_arena *arena = &scratch->whole;
    VEX_TRY_GOTO(status, done, view_begin(&s, view, arena, &problem));
    if (request->query_ids != NULL) {
        VEX_TRY_GOTO(status, done,
                     queries_by_id(view, request->query_ids, request->query_count, arena,
                                   &s.queries, &id_cost, &problem));
    }
    VEX_TRY_GOTO(status, done,
                 queries_check(view->schema, s.queries, request->query_count, &problem));
    for (int newer_count = 0;;) {
        status = attempt(&s, arena, schema, batch, &own_stats, &failed_source, &problem);
        if (status == VEX_OK || !is_damage(status) || failed_source == VEXI_PLACE_NONE ||
            s.view->sources[failed_source].segment == NULL) {
            break;
        }
        VEX_ASSERT(!s.skip[failed_source]);
        if (status != VEX_NOT_FOUND && request->table != NULL && newer_count < INDEX_DAMAGE_MAX &&
            vexi_view_index_damaged(request->table, s.view, failed_source, status, NULL) ==
                VEX_OK) {
            newer_count++;
            vexi_view_release(newer);
            newer = NULL;
            VEX_TRY_GOTO(status, done, vexi_table_view(request->table, &newer, &problem));
            VEX_TRY_GOTO(status, done, view_begin(&s, newer, arena, &problem));
        } else if (request->partial) {
            s.skip[failed_source] = true;
        } else {
            break;
        }
    }
    if (status == VEX_OK && stats != NULL) {
        cost_fill(&id_cost, &own_stats);
        own_stats.step_count += id_cost.steps;
        own_stats.read_ns += id_cost.ns;
        *stats = own_stats;
    }
done:
    vexi_view_release(newer);
    vexi_scratch_give(keeper, scratch);
    if (status != VEX_OK && err != NULL) {
        *err = problem;
    }
    return status;
}
