/* Remote: a search of segments that are fetched from a server.
 *
 * What counts there is how many requests have to wait for the answers of others. However many
 * segments and queries there are, a search has two steps once the heads of the index files are in
 * memory:
 *
 *     rank lists of all ─► lists of all segments ─► scan codes of all ─► vectors, checksums, ids
 * and segments             (and small segments       into one short        asked columns of the
 *                           whole)                    list a query          short list ─► compare
 *
 * Codes with more than one bit leave a few times k rows, so their vectors come at once, and with
 * them what the answer may need of the likeliest of them: ids, and the pages of asked columns. Rows
 * of a list lie side by side, and so do lists of one neighbourhood, so the store can join most of
 * it to a few requests. Where lists go, the places of their rows' ids go with them: without these a
 * third step would have to find the ids.
 *
 * More steps are taken where a short list is longer than VEXI_SHORT_ROWS_MAX, where codes of one
 * bit tell no limit until distances do, where an answer is among rows that seemed unlikely, and
 * where a large segment is compared whole; each of them is one step for all queries of a unit.
 *
 * Blocks of index files stay in memory (format/index_need.c). Vectors and pages live as long as the
 * search; what keeps them is a cache below the store. */
#include "query/search_internal.h"

#include <math.h>
#include <stdlib.h>

enum {
    /* Requests of a search of one segment, with one for the head 30. Fewer cost bytes between what
     * is wanted (of a million rows, 128 dimensions: 1.7 % of the segment at 29, 2.4 % at 21), more
     * are paid for one by one. Lists lie farther apart than the few rows that they leave. */
    ALL_REQUESTS = 29,
    LISTS_REQUESTS = 16,
    MORE_REQUESTS = 4,     /* for each further segment */
    WHOLE_SIZE = 32 << 20, /* vectors of small segments that are fetched with the lists of others */
    PAGES_SIZE = 4 << 20,  /* of asked columns that are fetched before it is known for whom */
    CLOSE_FACTOR = 2,      /* likely rows: so many times k */
    CLOSE_MORE = 32        /* and so many */
};

static size_t requests_of(size_t for_one, size_t segment_count) {
    return for_one + MORE_REQUESTS * (segment_count > 1 ? segment_count - 1 : 0);
}

/* What is left for the rows when `used` were sent for the lists. */
static size_t rows_requests(uint64_t used, size_t segment_count) {
    size_t all = requests_of(ALL_REQUESTS, segment_count);
    size_t least = requests_of(ALL_REQUESTS - LISTS_REQUESTS, segment_count);
    return used < all - least ? all - (size_t)used : least;
}

static bool is_searched(const vexi_search_state *s, uint32_t source) {
    return s->efforts[source].way != VEXI_WAY_NONE &&
           vexi_source_is_remote(&s->view->sources[source]);
}

/* ---- Lists ----------------------------------------------------------------------------------- */

static vex_status unit_prepare(const vexi_search_state *s, vexi_search_unit *unit, vex_error *err) {
    size_t source_count = s->view->source_count;
    vexi_arena *arena = &unit->scratch->whole;
    VEX_TRY(vexi_search_begin(s, unit, err));
    unit->coded = vexi_arena_calloc(arena, source_count, sizeof *unit->coded);
    unit->shorts = vexi_arena_array(arena, unit->query_count, sizeof *unit->shorts);
    if (unit->coded == NULL || unit->shorts == NULL) {
        return vexi_no_memory(err, source_count * sizeof *unit->coded);
    }
    for (uint32_t q = 0; q < unit->query_count; q++) {
        VEX_TRY(vexi_short_init(&unit->shorts[q], s->request->k, arena, err));
    }
    vexi_scan scan = vexi_search_scan(s, unit);
    for (uint32_t i = 0; i < source_count; i++) {
        if (is_searched(s, i) && s->efforts[i].way == VEXI_WAY_CODES) {
            unit->failed_source = i;
            VEX_TRY(vexi_codes_prepare(&scan, i, &s->efforts[i], arena, &unit->coded[i], err));
        }
    }
    unit->failed_source = VEXI_PLACE_NONE;
    unit->stats = scan.stats;
    return VEX_OK;
}

static void prepare_run(void *argument, size_t i) {
    const vexi_search_state *s = argument;
    vexi_search_unit *unit = &s->units[i];
    unit->status = vexi_scratch_take(s->keeper, &unit->scratch, &unit->err);
    if (unit->status == VEX_OK) {
        unit->status = unit_prepare(s, unit, &unit->err);
    }
}

static bool all_well(const vexi_search_state *s) {
    for (size_t i = 0; i < s->group_count; i++) {
        if (s->units[i].status != VEX_OK) {
            return false;
        }
    }
    return true;
}

/* The lists of one segment that any unit wants. */
static vex_status lists_note(const vexi_search_state *s, uint32_t source, vexi_step *step,
                             vexi_arena *arena, vex_error *err) {
    size_t count = 0, used = 0;
    for (size_t u = 0; u < s->group_count; u++) {
        count += vexi_codes_range_count(s->units[u].coded[source]);
    }
    vexi_piece *ranges = vexi_arena_array(arena, count, sizeof *ranges);
    if (ranges == NULL) {
        return vexi_no_memory(err, count * sizeof *ranges);
    }
    for (size_t u = 0; u < s->group_count; u++) {
        vexi_codes_ranges(s->units[u].coded[source], ranges + used);
        used += vexi_codes_range_count(s->units[u].coded[source]);
    }
    return vexi_step_index(step, source, s->view->sources[source].segment, ranges, count, err);
}

/* All rows of a segment, and the places of their ids. */
static vex_status whole_note(const vexi_search_state *s, uint32_t source, vexi_runs_plan *plan,
                             vexi_step *step, vexi_arena *arena, vex_error *err) {
    vexi_segment *segment = s->view->sources[source].segment;
    const vexi_index_file *index = vexi_segment_index(segment);
    vexi_row_range all = {0, vexi_segment_row_count(segment)};
    VEX_TRY(vexi_segment_runs_plan(segment, &all, 1, arena, plan, err));
    VEX_TRY(vexi_step_data(step, source, segment, plan->pieces, plan->run_count, err));
    VEX_TRY(
        vexi_step_index(step, source, segment, plan->index_ranges, plan->index_range_count, err));
    vexi_piece ids = {.offset = index->id_offsets_offset, .size = 4 * (size_t)(all.count + 1)};
    return vexi_step_index(step, source, segment, &ids, 1, err);
}

/* What came of it; asked for once more where it does not match its checksums. */
static vex_status whole_take(vexi_search_state *s, uint32_t source, const vexi_runs_plan *plan,
                             vexi_arena *arena, vex_error *err) {
    vexi_ready *ready = &s->ready[source];
    vex_status status = vexi_segment_runs_finish(plan, err);
    ready->runs = plan->runs;
    ready->run_count = plan->run_count;
    if (status == VEX_CORRUPT) {
        vexi_row_range all = {0, vexi_segment_row_count(plan->segment)};
        vexi_run *runs = NULL;
        status = vexi_segment_runs(plan->segment, &all, 1, arena, &runs, &ready->run_count,
                                   &s->cost, err);
        ready->runs = runs;
    }
    return status;
}

/* The lists of all segments, and the rows of those that are small and compared whole. */
static vex_status lists_step(vexi_search_state *s, vexi_arena *arena, uint32_t *failed_source,
                             vex_error *err) {
    size_t source_count = s->view->source_count;
    size_t stride = s->view->schema->dimension * sizeof(float);
    uint64_t room = WHOLE_SIZE;
    size_t segment_count = 0;
    vex_status status = VEX_OK;
    vexi_step step;
    vexi_step_init(&step, arena);
    vexi_runs_plan *plans = vexi_arena_calloc(arena, source_count, sizeof *plans);
    if (plans == NULL) {
        return vexi_no_memory(err, source_count * sizeof *plans);
    }
    for (uint32_t i = 0; i < source_count; i++) {
        uint64_t size = s->view->sources[i].row_count * stride;
        if (!is_searched(s, i)) {
            continue;
        }
        *failed_source = i;
        if (s->efforts[i].way == VEXI_WAY_CODES) {
            VEX_TRY_GOTO(status, done, lists_note(s, i, &step, arena, err));
        } else if (s->efforts[i].way == VEXI_WAY_EXACT && size <= room) {
            room -= size;
            VEX_TRY_GOTO(status, done, whole_note(s, i, &plans[i], &step, arena, err));
        }
        segment_count++;
    }
    VEX_TRY_GOTO(status, done,
                 vexi_step_run(&step, requests_of(LISTS_REQUESTS, segment_count), &s->cost,
                               failed_source, err));
    for (uint32_t i = 0; i < source_count; i++) {
        if (plans[i].run_count > 0) {
            *failed_source = i;
            VEX_TRY_GOTO(status, done, whole_take(s, i, &plans[i], arena, err));
        }
    }
    *failed_source = VEXI_PLACE_NONE;
done:
    vexi_step_deinit(&step);
    return status;
}

/* ---- Scan ------------------------------------------------------------------------------------ */

static vex_status unit_scan(const vexi_search_state *s, vexi_search_unit *unit, vex_error *err) {
    vexi_scan scan = vexi_search_scan(s, unit);
    for (uint32_t i = 0; i < s->view->source_count; i++) {
        uint32_t source = s->order[i];
        const vexi_ready *ready = &s->ready[source];
        unit->failed_source = source;
        if (unit->coded[source] != NULL) {
            VEX_TRY(vexi_codes_scan(&scan, unit->coded[source], unit->shorts, err));
        } else if (ready->run_count > 0) {
            VEX_TRY(vexi_scan_runs(&scan, source, ready->runs, ready->run_count, 0,
                                   unit->query_count, err));
        } else {
            VEX_TRY(vexi_scan_source(&scan, source, &s->efforts[source], err));
        }
    }
    for (uint32_t q = 0; q < unit->query_count; q++) {
        vexi_short_sort(&unit->shorts[q], vexi_scan_limit(&scan, q, 1.0f));
    }
    unit->failed_source = VEXI_PLACE_NONE;
    unit->stats = scan.stats;
    unit->cost = scan.cost;
    return VEX_OK;
}

static void scan_run(void *argument, size_t i) {
    const vexi_search_state *s = argument;
    vexi_search_unit *unit = &s->units[i];
    unit->status = unit_scan(s, unit, &unit->err);
}

/* ---- Rows ------------------------------------------------------------------------------------ */

/* A row to fetch. */
typedef struct pick {
    uint32_t source;
    uint32_t row;
    bool is_close; /* likely to be in an answer */
} pick;

static int pick_compare(const void *left, const void *right) {
    const pick *a = left, *b = right;
    if (a->source != b->source) {
        return a->source < b->source ? -1 : 1;
    }
    return a->row < b->row ? -1 : a->row > b->row;
}

/* What the units' queries want next: by source and row, each once. The short lists remember how far
 * that went. */
static vex_status picks_collect(const vexi_search_state *s, vexi_search_unit *units,
                                size_t unit_count, const vexi_ready *ready, vexi_arena *arena,
                                pick **out, size_t *out_count, vex_error *err) {
    size_t most = 0, count = 0;
    for (size_t u = 0; u < unit_count; u++) {
        for (uint32_t q = 0; q < units[u].query_count; q++) {
            vexi_short *list = &units[u].shorts[q];
            vexi_scan scan = vexi_search_scan(s, &units[u]);
            list->picked = vexi_short_next(list, vexi_scan_limit(&scan, q, 1.0f));
            most += list->picked - list->done + units[u].topks[q].count;
        }
    }
    pick *picks = vexi_arena_array(arena, most, sizeof *picks);
    if (picks == NULL) {
        return vexi_no_memory(err, most * sizeof *picks);
    }
    size_t close_count = (size_t)s->request->k * CLOSE_FACTOR + CLOSE_MORE;
    for (size_t u = 0; u < unit_count; u++) {
        for (uint32_t q = 0; q < units[u].query_count; q++) {
            const vexi_short *list = &units[u].shorts[q];
            const vexi_topk *topk = &units[u].topks[q];
            for (size_t i = list->done; i < list->picked; i++) {
                picks[count++] = (pick){list->items[i].source, list->items[i].row, i < close_count};
            }
            for (uint32_t i = 0; i < topk->count; i++) {
                if (vexi_source_is_remote(&s->view->sources[topk->items[i].source])) {
                    picks[count++] =
                        (pick){topk->items[i].source, (uint32_t)topk->items[i].row, true};
                }
            }
        }
    }
    if (count > 1) {
        qsort(picks, count, sizeof *picks, pick_compare);
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept > 0 && pick_compare(&picks[kept - 1], &picks[i]) == 0) {
            picks[kept - 1].is_close = picks[kept - 1].is_close || picks[i].is_close;
        } else if (ready[picks[i].source].run_count > 0 ||
                   vexi_ready_vector(&ready[picks[i].source], picks[i].row) == NULL) {
            picks[kept++] = picks[i];
        }
    }
    *out = picks;
    *out_count = kept;
    return VEX_OK;
}

/* The rows of one source that a step fetches. */
typedef struct source_rows {
    uint32_t source;
    uint64_t *rows;
    size_t count;
    uint64_t *close;
    size_t close_count;
    vexi_piece *pieces; /* one for each row; NULL where the vectors are there */
    const uint8_t **vectors;
    vexi_piece *pages;
    size_t page_count;
} source_rows;

static vex_status rows_note(const vexi_search_state *s, const pick *picks, size_t count,
                            const vexi_ready *ready, vexi_step *step, source_rows *out,
                            vex_error *err) {
    vexi_arena *arena = step->arena;
    uint32_t source = picks->source;
    vexi_segment *segment = s->view->sources[source].segment;
    const vexi_index_file *index = vexi_segment_index(segment);
    *out = (source_rows){.source = source};
    out->rows = vexi_arena_array(arena, count, sizeof *out->rows);
    out->close = vexi_arena_array(arena, count, sizeof *out->close);
    out->vectors = vexi_arena_array(arena, count, sizeof *out->vectors);
    vexi_piece *ranges = vexi_arena_array(arena, 3 * count, sizeof *ranges);
    if (out->rows == NULL || out->close == NULL || out->vectors == NULL || ranges == NULL) {
        return vexi_no_memory(err, 3 * count * sizeof *ranges);
    }
    for (size_t i = 0; i < count; i++) {
        out->rows[out->count++] = picks[i].row;
        if (picks[i].is_close) {
            out->close[out->close_count++] = picks[i].row;
        }
    }
    size_t used = 0;
    if (ready[source].run_count == 0) {
        out->pieces = vexi_arena_array(arena, count, sizeof *out->pieces);
        if (out->pieces == NULL) {
            return vexi_no_memory(err, count * sizeof *out->pieces);
        }
        vexi_segment_vector_pieces(segment, out->rows, count, out->pieces);
        VEX_TRY(vexi_step_data(step, source, segment, out->pieces, count, err));
        used = vexi_index_row_ranges(index, out->rows, count, false, ranges);
    }
    used += vexi_index_row_ranges(index, out->close, out->close_count, true, ranges + used);
    return vexi_step_index(step, source, segment, ranges, used, err);
}

/* Pages of asked columns for the likely rows, if they are not too much. */
static vex_status pages_note(const vexi_search_state *s, vexi_step *step, source_rows *parts,
                             size_t part_count, vex_error *err) {
    uint32_t columns[VEXI_ASKED_MAX];
    size_t column_count = 0, size = 0;
    for (uint32_t i = 0; i < s->request->asked.count; i++) {
        if (s->request->asked.columns[i] != VEXI_COLUMN_VECTOR) {
            columns[column_count++] = s->request->asked.columns[i];
        }
    }
    if (column_count == 0) {
        return VEX_OK;
    }
    for (size_t i = 0; i < part_count; i++) {
        source_rows *part = &parts[i];
        VEX_TRY(vexi_segment_cells_plan(s->view->sources[part->source].segment, columns,
                                        column_count, part->close, part->close_count, step->arena,
                                        &part->pages, &part->page_count, err));
        for (size_t p = 0; p < part->page_count; p++) {
            size += part->pages[p].size;
        }
    }
    for (size_t i = 0; i < part_count; i++) {
        source_rows *part = &parts[i];
        if (size > PAGES_SIZE) {
            part->page_count = 0;
        } else {
            VEX_TRY(vexi_step_data(step, part->source, s->view->sources[part->source].segment,
                                   part->pages, part->page_count, err));
        }
    }
    return VEX_OK;
}

/* The vectors that came join those that were there. Where one does not match its checksum they are
 * asked for once more, since a network may have done it. */
static vex_status ready_add(const vexi_search_state *s, const source_rows *part, vexi_ready *ready,
                            vexi_arena *arena, vexi_read_cost *cost, vex_error *err) {
    if (part->page_count > 0) {
        ready->pages = part->pages;
        ready->page_count = part->page_count;
    }
    if (part->pieces == NULL) {
        return VEX_OK;
    }
    for (size_t i = 0; i < part->count; i++) {
        part->vectors[i] = part->pieces[i].data;
    }
    vexi_segment *segment = s->view->sources[part->source].segment;
    vex_status status =
        vexi_segment_vectors_check(segment, part->rows, part->count, part->vectors, err);
    if (status == VEX_CORRUPT) {
        status =
            vexi_segment_vectors(segment, part->rows, part->count, arena, part->vectors, cost, err);
    }
    VEX_TRY(status);
    if (ready->count == 0) {
        ready->rows = part->rows;
        ready->vectors = part->vectors;
        ready->count = part->count;
        return VEX_OK;
    }
    size_t total = ready->count + part->count;
    uint64_t *rows = vexi_arena_array(arena, total, sizeof *rows);
    const uint8_t **vectors = vexi_arena_array(arena, total, sizeof *vectors);
    if (rows == NULL || vectors == NULL) {
        return vexi_no_memory(err, total * sizeof *rows);
    }
    size_t a = 0, b = 0;
    for (size_t i = 0; i < total; i++) {
        bool old = b == part->count || (a < ready->count && ready->rows[a] < part->rows[b]);
        rows[i] = old ? ready->rows[a] : part->rows[b];
        vectors[i] = old ? ready->vectors[a] : part->vectors[b];
        a += old ? 1 : 0;
        b += old ? 0 : 1;
    }
    ready->rows = rows;
    ready->vectors = vectors;
    ready->count = total;
    return VEX_OK;
}

/* Fetch what the units' queries want next: vectors of their short lists with their checksums, and
 * in the first step the ids, and pages, of likely rows. */
static vex_status rows_step(const vexi_search_state *s, vexi_search_unit *units, size_t unit_count,
                            bool is_first, vexi_ready *ready, vexi_arena *arena,
                            vexi_read_cost *cost, uint32_t *failed_source, vex_error *err) {
    pick *picks = NULL;
    size_t pick_count = 0, part_count = 0;
    vex_status status = VEX_OK;
    vexi_step step;
    vexi_step_init(&step, arena);
    *failed_source = VEXI_PLACE_NONE;
    source_rows *parts = vexi_arena_array(arena, s->view->source_count, sizeof *parts);
    if (parts == NULL) {
        return vexi_no_memory(err, s->view->source_count * sizeof *parts);
    }
    VEX_TRY(picks_collect(s, units, unit_count, ready, arena, &picks, &pick_count, err));
    for (size_t first = 0, end; first < pick_count; first = end) {
        for (end = first + 1; end < pick_count && picks[end].source == picks[first].source;) {
            end++;
        }
        *failed_source = picks[first].source;
        VEX_TRY_GOTO(
            status, done,
            rows_note(s, picks + first, end - first, ready, &step, &parts[part_count++], err));
    }
    if (is_first) {
        *failed_source = part_count > 0 ? parts[0].source : VEXI_PLACE_NONE;
        VEX_TRY_GOTO(status, done, pages_note(s, &step, parts, part_count, err));
    }
    VEX_TRY_GOTO(
        status, done,
        vexi_step_run(&step, rows_requests(cost->requests, part_count), cost, failed_source, err));
    for (size_t i = 0; i < part_count; i++) {
        *failed_source = parts[i].source;
        VEX_TRY_GOTO(status, done,
                     ready_add(s, &parts[i], &ready[parts[i].source], arena, cost, err));
    }
    *failed_source = VEXI_PLACE_NONE;
done:
    vexi_step_deinit(&step);
    return status;
}

/* Compare what was picked of a query's short list. */
static void short_compare(vexi_scan *scan, uint32_t query, vexi_short *list,
                          const vexi_ready *ready) {
    enum { ROWS = 64 };
    uint64_t rows[ROWS];
    const uint8_t *vectors[ROWS];
    while (list->done < list->picked) {
        uint32_t source = list->items[list->done].source;
        size_t count = 0;
        for (; list->done < list->picked && count < ROWS; count++, list->done++) {
            const vexi_short_item *item = &list->items[list->done];
            if (item->source != source) {
                break;
            }
            rows[count] = item->row;
            vectors[count] = vexi_ready_vector(&ready[source], item->row);
            VEX_ASSERT(vectors[count] != NULL);
        }
        vexi_scan_vectors(scan, source, query, rows, vectors, count);
    }
}

static vex_status unit_finish(const vexi_search_state *s, vexi_search_unit *unit, vex_error *err) {
    size_t source_count = s->view->source_count;
    vexi_arena *arena = &unit->scratch->whole;
    vexi_scan scan = vexi_search_scan(s, unit);
    unit->ready = vexi_arena_array(arena, source_count, sizeof *unit->ready);
    if (unit->ready == NULL) {
        return vexi_no_memory(err, source_count * sizeof *unit->ready);
    }
    memcpy(unit->ready, s->ready, source_count * sizeof *unit->ready);
    for (bool more = true; more;) {
        more = false;
        for (uint32_t q = 0; q < unit->query_count; q++) {
            vexi_short *list = &unit->shorts[q];
            short_compare(&scan, q, list, unit->ready);
            more = more || vexi_short_next(list, vexi_scan_limit(&scan, q, 1.0f)) > list->done;
        }
        if (more) {
            VEX_TRY(rows_step(s, unit, 1, false, unit->ready, arena, &unit->cost,
                              &unit->failed_source, err));
        }
    }
    unit->stats = scan.stats;
    return vexi_search_refine(s, unit, err);
}

static void finish_run(void *argument, size_t i) {
    const vexi_search_state *s = argument;
    vexi_search_unit *unit = &s->units[i];
    unit->status = unit_finish(s, unit, &unit->err);
}

/* ---- All ------------------------------------------------------------------------------------- */

vex_status vexi_remote_run(vexi_search_state *s, vexi_arena *arena, uint32_t *failed_source,
                           vex_error *err) {
    VEX_ASSERT(s->slice_count == 1);
    s->ready = vexi_arena_calloc(arena, s->view->source_count, sizeof *s->ready);
    if (s->ready == NULL) {
        return vexi_no_memory(err, s->view->source_count * sizeof *s->ready);
    }
    vexi_parallel(s->env, s->group_count, prepare_run, s);
    if (!all_well(s)) {
        return VEX_OK;
    }
    VEX_TRY(lists_step(s, arena, failed_source, err));
    vexi_parallel(s->env, s->group_count, scan_run, s);
    if (!all_well(s)) {
        return VEX_OK;
    }
    VEX_TRY(rows_step(s, s->units, s->group_count, true, s->ready, arena, &s->cost, failed_source,
                      err));
    vexi_parallel(s->env, s->group_count, finish_run, s);
    return VEX_OK;
}
