/* Get: rows by id.
 *
 * Two paths. vexi_get_from_memory looks at memtables alone and never waits: a server calls it from
 * its event loop, so it allocates once, for the result. vexi_get resolves ids on a view and fetches
 * through query/fetch.c. A consistent answer matters more than a fast one: if one id of a call
 * needs storage, all of them are answered from one view. */
#include "query/search_internal.h"

/* Small requests keep their working set on the stack. */
enum { GET_STACK_ROWS = 32, GET_STACK_CELLS = 128 };

static vexi_batch_column id_column(const vex_string *ids) {
    return (vexi_batch_column){
        .name = vexi_string_of("id"), .kind = VEXI_BATCH_STRING, .nullable = true, .data = ids};
}

static vex_status get_batch(vexi_keeper *keeper, const vexi_schema *schema, const vex_string *ids,
                            size_t count, const vexi_asked *asked, const uint8_t *const *vectors,
                            const vexi_cell *cells, vexi_batch_owner *owner,
                            struct ArrowSchema *schema_out, struct ArrowArray *batch,
                            vex_error *err) {
    vexi_batch_column columns[VEXI_ASKED_MAX + 1];
    columns[0] = id_column(ids);
    vexi_asked_describe(schema, asked, vectors, cells, count, columns + 1);
    VEX_TRY(vexi_batch_build(keeper, columns, asked->count + 1u, count, owner, batch, err));
    if (schema_out != NULL) {
        vex_status status = vexi_batch_schema(keeper, columns, asked->count + 1u, schema_out, err);
        if (status != VEX_OK) {
            batch->release(batch);
            return status;
        }
    }
    return VEX_OK;
}

/* ---- From memory ----------------------------------------------------------------------------- */

/* Working set of a call: found ids, vectors, and cells where columns beside the vector are asked.
 */
typedef struct memory_rows {
    vex_string *ids;
    const uint8_t **vectors;
    vexi_cell *cells;
    vexi_memtable *memtable; /* of all rows, NULL if they are of several */
} memory_rows;

static void memory_collect(const vexi_memory_view *view, const vex_string *ids, size_t count,
                           const vexi_asked *asked, memory_rows *rows, bool *known) {
    bool several = false;
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        vexi_memtable *memtable = NULL;
        uint64_t position = 0;
        vexi_memory_view_find(view, ids[i], known, &found, &memtable, &position);
        if (!*known) {
            return;
        }
        vexi_row row = {0};
        if (found) {
            row = vexi_memtable_row(memtable, position);
            several = several || (rows->memtable != NULL && rows->memtable != memtable);
            rows->memtable = memtable;
        }
        rows->ids[i] = found ? ids[i] : (vex_string){NULL, 0};
        rows->vectors[i] = (const uint8_t *)row.vector;
        for (uint32_t a = 0; a < asked->count && rows->cells != NULL; a++) {
            if (asked->columns[a] != VEXI_COLUMN_VECTOR) {
                vexi_row_cell(&row, asked->columns[a], &rows->cells[a * count + i]);
            }
        }
    }
    if (several) {
        rows->memtable = NULL;
    }
}

static bool asked_has_cells(const vexi_asked *asked) {
    for (uint32_t a = 0; a < asked->count; a++) {
        if (asked->columns[a] != VEXI_COLUMN_VECTOR) {
            return true;
        }
    }
    return false;
}

vex_status vexi_get_from_memory(vexi_keeper *keeper, const vexi_memory_view *view,
                                const vex_string *ids, size_t id_count, const vexi_asked *asked,
                                struct ArrowSchema *schema, struct ArrowArray *batch, bool *known,
                                vex_error *err) {
    vex_string ids_small[GET_STACK_ROWS];
    const uint8_t *vectors_small[GET_STACK_ROWS];
    vexi_cell cells_small[GET_STACK_CELLS];
    memory_rows rows = {.ids = ids_small, .vectors = vectors_small};
    vexi_arena arena;
    vex_status status = VEX_OK;
    size_t cell_count = 0;

    *batch = (struct ArrowArray){0};
    *known = true;
    vexi_arena_init(&arena, keeper->env);
    if (asked_has_cells(asked) &&
        __builtin_mul_overflow(id_count, (size_t)asked->count, &cell_count)) {
        return vexi_no_memory(err, SIZE_MAX);
    }
    if (id_count > GET_STACK_ROWS) {
        rows.ids = vexi_arena_array(&arena, id_count, sizeof *rows.ids);
        rows.vectors = vexi_arena_array(&arena, id_count, sizeof *rows.vectors);
    }
    if (cell_count > 0) {
        rows.cells = cell_count <= GET_STACK_CELLS
                         ? cells_small
                         : vexi_arena_array(&arena, cell_count, sizeof *rows.cells);
    }
    if (rows.ids == NULL || rows.vectors == NULL || (cell_count > 0 && rows.cells == NULL)) {
        status = vexi_no_memory(err, id_count * sizeof *rows.ids + cell_count * sizeof *rows.cells);
        goto done;
    }
    memory_collect(view, ids, id_count, asked, &rows, known);
    if (*known) {
        vexi_batch_owner owner = {.memtable = rows.memtable};
        status = get_batch(keeper, view->schema, rows.ids, id_count, asked, rows.vectors,
                           rows.cells, &owner, schema, batch, err);
    }
done:
    vexi_arena_deinit(&arena);
    return status;
}

/* ---- From a view ----------------------------------------------------------------------------- */

vex_status vexi_get(vexi_keeper *keeper, vexi_view *view, const vex_string *ids, size_t id_count,
                    const vexi_asked *asked, struct ArrowSchema *schema, struct ArrowArray *batch,
                    vex_error *err) {
    *batch = (struct ArrowArray){0};
    vexi_arena arena;
    vexi_fetched fetched = {.env = keeper->env};
    vex_status status = VEX_OK;
    uint32_t failed_source;

    vexi_arena_init(&arena, keeper->env);
    vexi_place *places = vexi_arena_array(&arena, id_count, sizeof *places);
    vex_string *found_ids = vexi_arena_array(&arena, id_count, sizeof *found_ids);
    if (places == NULL || found_ids == NULL) {
        status = vexi_no_memory(err, id_count * sizeof *places);
        goto done;
    }
    VEX_TRY_GOTO(status, done, vexi_find_ahead(view, ids, id_count, keeper->env, NULL, err));
    for (size_t i = 0; i < id_count; i++) {
        bool found = false;
        places[i] = (vexi_place){VEXI_PLACE_NONE, 0};
        VEX_TRY_GOTO(status, done,
                     vexi_view_find(view, ids[i], &found, &places[i].source, &places[i].row, err));
        if (!found) {
            places[i].source = VEXI_PLACE_NONE;
        }
        found_ids[i] = found ? ids[i] : (vex_string){NULL, 0};
    }
    VEX_TRY_GOTO(status, done,
                 vexi_fetch(keeper->env, view, places, id_count, asked, NULL, &fetched, NULL, NULL,
                            &failed_source, err));
    vexi_batch_owner owner = {
        .view = view, .arenas = fetched.arenas, .arena_count = fetched.arena_count};
    status = get_batch(keeper, view->schema, found_ids, id_count, asked, fetched.vectors,
                       fetched.cells, &owner, schema, batch, err);
    fetched.arenas = owner.arenas; /* NULL if the batch took them */
    fetched.arena_count = owner.arena_count;
    if (status == VEX_IO) {
        const vexi_source *source = &view->sources[places[owner.failed_row].source];
        status = vexi_prefix(err, status, "%s", vexi_source_name(source));
    }
done:
    vexi_fetched_deinit(&fetched);
    vexi_arena_deinit(&arena);
    return status;
}
