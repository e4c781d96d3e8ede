/* Fetch: asked columns of winners, wherever they are.
 *
 * Winners arrive in the order of the result. They are sorted by source and row, so that each source
 * is asked once, with ascending rows without repeats: rows of one cluster share pages, and a store
 * sees few, large requests. Sources are fetched in parallel, each into an arena of its own; cells
 * are then scattered back to the order of the result.
 *
 * What the search itself fetched of a remote source (vexi_ready) is copied to the result's arena:
 * the result outlives the search. */
#include "query/search_internal.h"

#include <stdlib.h>

typedef struct fetch_item {
    vexi_place place;
    size_t index; /* in the result */
} fetch_item;

/* One source's share: items[first .. first + count). */
typedef struct fetch_part {
    size_t first;
    size_t count;
    vex_search_stats stats;
    vexi_read_cost cost;
    vex_status status;
    vex_error err;
} fetch_part;

typedef struct fetch_job {
    const vexi_view *view;
    const vexi_asked *asked;
    const vexi_ready *ready; /* by source; may be NULL */
    const fetch_item *items;
    size_t count; /* of the result's rows */
    bool vector_asked;
    uint32_t columns[VEXI_ASKED_MAX]; /* asked ones without the vector, without repeats */
    size_t column_count;
    fetch_part *parts;
    vexi_fetched *out;
} fetch_job;

static int item_compare(const void *left, const void *right) {
    const fetch_item *a = left;
    const fetch_item *b = right;
    if (a->place.source != b->place.source) {
        return a->place.source < b->place.source ? -1 : 1;
    }
    if (a->place.row != b->place.row) {
        return a->place.row < b->place.row ? -1 : 1;
    }
    return 0;
}

vex_status vexi_source_vectors(const vexi_source *source, const uint64_t *rows, size_t count,
                               vexi_arena *arena, const uint8_t **out, vexi_read_cost *cost,
                               vex_error *err) {
    if (source->segment != NULL) {
        return vexi_segment_vectors(source->segment, rows, count, arena, out, cost, err);
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = (const uint8_t *)vexi_memtable_row(source->memtable, rows[i]).vector;
    }
    return VEX_OK;
}

static vex_status vectors_get(const vexi_ready *ready, const vexi_source *source,
                              const uint64_t *rows, size_t count, size_t stride, vexi_arena *arena,
                              const uint8_t **out, vexi_read_cost *cost, vex_error *err) {
    VEX_TRY(vexi_ready_vectors(ready, source, rows, count, arena, out, cost, err));
    if (ready == NULL || (ready->count == 0 && ready->run_count == 0)) {
        return VEX_OK;
    }
    uint8_t *copy = vexi_arena_alloc_aligned(arena, 64, count * stride);
    if (copy == NULL) {
        return vexi_no_memory(err, count * stride);
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(copy + i * stride, out[i], stride);
        out[i] = copy + i * stride;
    }
    return VEX_OK;
}

/* Copies of pieces that lie in those at hand; false: some do not. */
static vex_status pages_copy(const vexi_ready *ready, vexi_piece *pieces, size_t count,
                             vexi_arena *arena, bool *all, vex_error *err) {
    size_t at = 0;
    *all = false;
    for (size_t i = 0; i < count; i++) { /* both are in the order of their offsets */
        const vexi_piece *have = ready->pages;
        while (at < ready->page_count &&
               have[at].offset + have[at].size < pieces[i].offset + pieces[i].size) {
            at++;
        }
        if (at == ready->page_count || have[at].offset > pieces[i].offset) {
            return VEX_OK;
        }
        uint8_t *copy = vexi_arena_alloc(arena, pieces[i].size);
        if (copy == NULL) {
            return vexi_no_memory(err, pieces[i].size);
        }
        memcpy(copy, have[at].data + (pieces[i].offset - have[at].offset), pieces[i].size);
        pieces[i].data = copy;
    }
    *all = true;
    return VEX_OK;
}

static vex_status cells_get(const fetch_job *job, const vexi_ready *ready,
                            const vexi_source *source, const uint64_t *rows, size_t row_count,
                            vexi_arena *arena, vexi_cell *cells, fetch_part *part, vex_error *err) {
    const vexi_schema *schema = job->view->schema;
    if (ready != NULL && ready->page_count > 0) {
        vexi_piece *pieces;
        size_t count;
        bool all;
        VEX_TRY(vexi_segment_cells_plan(source->segment, job->columns, job->column_count, rows,
                                        row_count, arena, &pieces, &count, err));
        VEX_TRY(pages_copy(ready, pieces, count, arena, &all, err));
        vex_status status = VEX_CORRUPT;
        if (all) {
            status = vexi_segment_cells_decode(source->segment, schema, job->columns,
                                               job->column_count, rows, row_count, pieces, count,
                                               arena, cells, &part->stats, err);
        }
        if (status != VEX_CORRUPT) { /* damage may be of the way here: it is fetched once more */
            return status;
        }
    }
    return vexi_source_cells(source, schema, job->columns, job->column_count, rows, row_count,
                             arena, cells, &part->stats, &part->cost, err);
}

static vex_status fetch_source(const fetch_job *job, fetch_part *part, vexi_arena *arena,
                               vex_error *err) {
    const fetch_item *items = job->items + part->first;
    const vexi_source *source = &job->view->sources[items[0].place.source];
    const vexi_ready *ready = job->ready == NULL ? NULL : &job->ready[items[0].place.source];
    uint64_t *rows = vexi_arena_array(arena, part->count, sizeof *rows);
    if (rows == NULL) {
        return vexi_no_memory(err, part->count * sizeof *rows);
    }
    size_t row_count = 0;
    for (size_t i = 0; i < part->count; i++) {
        if (row_count == 0 || rows[row_count - 1] != items[i].place.row) {
            rows[row_count++] = items[i].place.row;
        }
    }
    const uint8_t **vectors = NULL;
    vexi_cell *cells = NULL;
    if (job->vector_asked) {
        vectors = vexi_arena_array(arena, row_count, sizeof *vectors);
        if (vectors == NULL) {
            return vexi_no_memory(err, row_count * sizeof *vectors);
        }
        VEX_TRY(vectors_get(ready, source, rows, row_count,
                            job->view->schema->dimension * sizeof(float), arena, vectors,
                            &part->cost, err));
    }
    if (job->column_count > 0) {
        cells = vexi_arena_array(arena, row_count * job->column_count, sizeof *cells);
        if (cells == NULL) {
            return vexi_no_memory(err, row_count * job->column_count * sizeof *cells);
        }
        VEX_TRY(cells_get(job, ready, source, rows, row_count, arena, cells, part, err));
    }
    size_t r = 0;
    for (size_t i = 0; i < part->count; i++) {
        r += items[i].place.row != rows[r];
        if (vectors != NULL) {
            job->out->vectors[items[i].index] = vectors[r];
        }
        for (size_t a = 0; a < job->asked->count && cells != NULL; a++) {
            for (size_t c = 0; c < job->column_count; c++) {
                if (job->columns[c] == job->asked->columns[a]) {
                    job->out->cells[a * job->count + items[i].index] = cells[c * row_count + r];
                }
            }
        }
    }
    return VEX_OK;
}

static void fetch_part_run(void *argument, size_t i) {
    const fetch_job *job = argument;
    fetch_part *part = &job->parts[i];
    part->status = fetch_source(job, part, &job->out->arenas[i + 1], &part->err);
}

/* Asked columns but the vector, each once: a source is not asked twice for one. */
static void fetch_columns(fetch_job *job) {
    for (uint32_t a = 0; a < job->asked->count; a++) {
        uint32_t column = job->asked->columns[a];
        bool seen = false;
        if (column == VEXI_COLUMN_VECTOR) {
            job->vector_asked = true;
            continue;
        }
        for (size_t c = 0; c < job->column_count; c++) {
            seen = seen || job->columns[c] == column;
        }
        if (!seen) {
            job->columns[job->column_count++] = column;
        }
    }
}

vex_status vexi_fetch(const vexi_env *env, const vexi_view *view, const vexi_place *places,
                      size_t count, const vexi_asked *asked, const vexi_ready *ready,
                      vexi_fetched *out, vex_search_stats *stats, vexi_read_cost *cost,
                      uint32_t *failed_source, vex_error *err) {
    *out = (vexi_fetched){.env = env};
    *failed_source = VEXI_PLACE_NONE;
    if (asked->count == 0 || count == 0) {
        return VEX_OK;
    }
    /* Arena 0 holds what belongs to all sources; one more for each source. */
    size_t arena_count = view->source_count + 1;
    out->arenas = vexi_alloc_array(env, arena_count, sizeof *out->arenas);
    if (out->arenas == NULL) {
        return vexi_no_memory(err, arena_count * sizeof *out->arenas);
    }
    out->arena_count = arena_count;
    for (size_t i = 0; i < arena_count; i++) {
        vexi_arena_init(&out->arenas[i], env);
    }

    vex_status status = VEX_OK;
    vexi_arena *arena = &out->arenas[0];
    fetch_job job = {.view = view, .asked = asked, .ready = ready, .count = count, .out = out};
    fetch_columns(&job);
    size_t cell_count;
    bool fits = !__builtin_mul_overflow(count, (size_t)asked->count, &cell_count);
    fetch_item *items = vexi_arena_array(arena, count, sizeof *items);
    job.parts = vexi_arena_calloc(arena, view->source_count + 1, sizeof *job.parts);
    if (job.vector_asked) {
        out->vectors = vexi_arena_calloc(arena, count, sizeof *out->vectors);
    }
    if (job.column_count > 0 && fits) {
        out->cells = vexi_arena_array(arena, cell_count, sizeof *out->cells);
    }
    if (!fits || items == NULL || job.parts == NULL || (job.vector_asked && out->vectors == NULL) ||
        (job.column_count > 0 && out->cells == NULL)) {
        status = vexi_no_memory(err, count * asked->count * sizeof *out->cells);
        goto done;
    }
    for (size_t i = 0; i < cell_count && out->cells != NULL; i++) {
        out->cells[i] = (vexi_cell){.is_null = true};
    }

    size_t item_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (places[i].source != VEXI_PLACE_NONE) {
            VEX_ASSERT(places[i].source < view->source_count);
            items[item_count++] = (fetch_item){places[i], i};
        }
    }
    if (item_count > 1) {
        qsort(items, item_count, sizeof *items, item_compare);
    }
    job.items = items;
    size_t part_count = 0;
    for (size_t i = 0; i < item_count; i++) {
        if (i == 0 || items[i].place.source != items[i - 1].place.source) {
            job.parts[part_count++].first = i;
        }
        job.parts[part_count - 1].count++;
    }
    vexi_parallel(env, part_count, fetch_part_run, &job);
    uint64_t steps = 0, ns = 0;
    for (size_t i = 0; i < part_count; i++) {
        const fetch_part *part = &job.parts[i];
        if (part->status != VEX_OK) {
            *failed_source = items[part->first].place.source;
            status = part->status;
            if (err != NULL) {
                *err = part->err;
            }
            goto done;
        }
        if (stats != NULL) {
            stats->page_count += part->stats.page_count;
            stats->read_bytes += part->stats.read_bytes;
        }
        steps = part->cost.steps > steps ? part->cost.steps : steps;
        ns = part->cost.ns > ns ? part->cost.ns : ns;
        if (cost != NULL) {
            cost->requests += part->cost.requests;
            cost->bytes += part->cost.bytes;
            cost->hits += part->cost.hits;
        }
    }
    if (cost != NULL) {
        cost->steps += steps; /* sources side by side */
        cost->ns += ns;
    }
done:
    if (status != VEX_OK) {
        vexi_fetched_deinit(out);
    }
    return status;
}

void vexi_fetched_deinit(vexi_fetched *fetched) {
    for (size_t i = 0; i < fetched->arena_count; i++) {
        vexi_arena_deinit(&fetched->arenas[i]);
    }
    vexi_free(fetched->env, fetched->arenas);
    *fetched = (vexi_fetched){.env = fetched->env};
}
