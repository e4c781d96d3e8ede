/* Import: foreign files become segments, in one commit.
 *
 * Rows bypass the log: they are read in batches, gathered up to a segment's size, clustered,
 * written as segments, and one Delta version names them all. So an import is whole or nothing, and
 * what it needs in memory is one segment's rows and the larger of its two files, whatever the size
 * of the input, plus about two bytes a row for the filter below.
 *
 * Rows replace older ones of their id: those that are in memtables when the import commits are
 * flushed first; rows written meanwhile are newer than the import. Of two rows with one id in the
 * files the later counts: ids pass a Bloom filter (Bloom 1970), and only those that it has seen are
 * looked up in the segments written so far. */
#include "table/table_internal.h"

#include <stdio.h>

#include "base/bitmap.h"
#include "base/checksum.h"
#include "base/random.h"
#include "format/row_source.h"
#include "store/disk.h"

enum { BATCH_ROWS = 4096, FILTER_PROBES = 4, FILTER_BITS_PER_ROW = 12 };
#define SEGMENT_SIZE_MAX (UINT64_C(16) << 30)

typedef struct import_run {
    vexi_lake *lake;
    vexi_table *table;
    const vex_import_options *options;
    uint64_t segment_size_bytes;
    uint64_t rows_done;  /* in finished segments */
    uint64_t rows_total; /* of the file being read; 0: not known */

    /* The segment being gathered: its rows, and copies of what they point at in `arena`. */
    vexi_arena arena;
    vexi_row *rows;
    size_t row_count;
    size_t row_capacity;
    size_t gathered_bytes;

    vexi_arena adds; /* strings of the finished segments */
    commit_segment *segments;
    size_t segment_count;
    size_t segment_capacity;

    uint64_t *filter;
    uint64_t filter_bits; /* a multiple of 64 */
    uint64_t filter_rows; /* that it was made for */

    bool named; /* a version names the segments, or may */

    /* where commit_ids stands */
    size_t ids_segment;
    uint64_t ids_row;
} import_run;

/* rows: how many of the gathered ones have passed this phase. */
static void progress(const import_run *run, uint32_t phase, uint64_t rows) {
    vex_progress *p = run->options->progress;
    if (p != NULL) {
        __atomic_store_n(&p->rows_done, run->rows_done + rows, __ATOMIC_RELAXED);
        __atomic_store_n(&p->rows_total, run->rows_total, __ATOMIC_RELAXED);
        __atomic_store_n(&p->phase, phase, __ATOMIC_RELAXED);
    }
}

static vex_status check_cancel(const import_run *run, vex_error *err) {
    vex_progress *p = run->options->progress;
    return p != NULL && __atomic_load_n(&p->cancel, __ATOMIC_RELAXED) != 0
               ? vexi_fail(err, VEX_CANCELLED, "import cancelled, nothing was imported")
               : VEX_OK;
}

/* ---- Duplicates within the import -------------------------------------------------------------
 */

/* Set the id's bits; true if all were set before. */
static bool filter_test_and_set(import_run *run, uint64_t hash) {
    bool seen = true;
    uint64_t step = (hash >> 32) | 1;
    for (int i = 0; i < FILTER_PROBES; i++, hash += step * VEXI_RANDOM_STEP) {
        uint64_t bit = hash % run->filter_bits;
        seen = seen && vexi_bitmap_get(run->filter, bit);
        vexi_bitmap_set(run->filter, bit);
    }
    return seen;
}

/* Room for `rows` ids. A filter that has grown too small is made anew from the segments' ids. */
static vex_status filter_reserve(import_run *run, uint64_t rows, vex_error *err) {
    if (rows <= run->filter_rows) {
        return VEX_OK;
    }
    const vexi_env *env = run->lake->core->env;
    uint64_t wanted = rows < run->filter_rows * 2 ? run->filter_rows * 2 : rows;
    uint64_t words = wanted * FILTER_BITS_PER_ROW / 64 + 1;
    uint64_t *filter = vexi_calloc(env, words, sizeof *filter);
    if (filter == NULL) {
        return vexi_no_memory(err, words * sizeof *filter);
    }
    vexi_free(env, run->filter);
    run->filter = filter;
    run->filter_bits = words * 64;
    run->filter_rows = wanted;
    for (size_t i = 0; i < run->segment_count; i++) {
        uint64_t count = vexi_segment_row_count(run->segments[i].segment);
        for (uint64_t row = 0; row < count; row++) {
            vex_string id;
            VEX_TRY(vexi_segment_id(run->segments[i].segment, row, &id, err));
            (void)filter_test_and_set(run, vexi_hash64(id.data, id.size));
        }
    }
    return VEX_OK;
}

/* Drop all but the last row of each id among the gathered ones, and hide older ones. Returns the
 * rows that stay, in file order. */
static vex_status resolve_duplicates(import_run *run, const vexi_row **live, size_t *live_count,
                                     vex_error *err) {
    const vexi_env *env = run->lake->core->env;
    VEX_TRY(filter_reserve(run, run->rows_done + run->row_count, err));
    size_t slot_count = 16;
    while (slot_count < run->row_count * 2) {
        slot_count *= 2;
    }
    uint32_t *slots = vexi_calloc(env, slot_count, sizeof *slots);
    if (slots == NULL) {
        return vexi_no_memory(err, slot_count * sizeof *slots);
    }
    vex_status status = VEX_OK;
    *live_count = 0;
    /* Backwards: the first met is the one that counts. */
    for (size_t i = run->row_count; i-- > 0 && status == VEX_OK;) {
        vex_string id = run->rows[i].id;
        uint64_t hash = vexi_hash64(id.data, id.size);
        size_t slot = hash & (slot_count - 1);
        while (slots[slot] != 0 && !vexi_string_equal(run->rows[slots[slot] - 1].id, id)) {
            slot = (slot + 1) & (slot_count - 1);
        }
        if (slots[slot] != 0) {
            continue;
        }
        slots[slot] = (uint32_t)i + 1;
        live[(*live_count)++] = &run->rows[i];
        if (filter_test_and_set(run, hash)) {
            status = commit_hide(env, run->segments, run->segment_count, id, hash, err);
        }
    }
    vexi_free(env, slots);
    for (size_t i = 0; i < *live_count / 2; i++) {
        const vexi_row *other = live[i];
        live[i] = live[*live_count - 1 - i];
        live[*live_count - 1 - i] = other;
    }
    return status;
}

/* ---- Gathering --------------------------------------------------------------------------------
 */

static vex_status build_step(void *context, double share, vex_error *err) {
    const import_run *run = context;
    progress(run, 1, (uint64_t)(share * (double)run->row_count));
    return check_cancel(run, err);
}

static vex_status segment_finish(import_run *run, vex_error *err) {
    if (run->row_count == 0) {
        return VEX_OK;
    }
    const vexi_env *env = run->lake->core->env;
    progress(run, 1, 0);
    void *segments = run->segments;
    VEX_TRY(vexi_grow(env, &segments, &run->segment_capacity, run->segment_count,
                      run->segment_count + 1, sizeof *run->segments, err));
    run->segments = segments;
    const vexi_row **live = vexi_alloc_array(env, run->row_count, sizeof *live);
    if (live == NULL) {
        return vexi_no_memory(err, run->row_count * sizeof *live);
    }
    size_t live_count;
    vex_status status = resolve_duplicates(run, live, &live_count, err);
    if (status == VEX_OK) {
        vex_progress *p = run->options->progress;
        segment_hooks hooks = {.step = build_step,
                               .context = run,
                               .cancel = p == NULL ? NULL : (const int *)&p->cancel};
        status = segment_build_with(run->table, live, live_count, &hooks,
                                    &run->segments[run->segment_count], &run->adds, err);
        status = status == VEX_CANCELLED ? check_cancel(run, err) : status;
    }
    if (status == VEX_OK) {
        run->segment_count++;
        run->rows_done += run->row_count;
    }
    vexi_free(env, live);
    run->row_count = 0;
    run->gathered_bytes = 0;
    vexi_arena_deinit(&run->arena);
    return status;
}

/* Room for one more row: at first for as many as the file still has and the segment will take, so
 * that a large segment's rows are not moved about. */
static vex_status rows_reserve(import_run *run, uint64_t rows_left, vex_error *err) {
    if (run->row_count < run->row_capacity) {
        return VEX_OK;
    }
    size_t wanted = run->row_count + 1;
    if (run->row_capacity == 0) {
        uint64_t row_size =
            sizeof *run->rows + run->table->schema->schema.dimension * sizeof(float);
        uint64_t fits = run->segment_size_bytes / row_size + 1;
        uint64_t rows = rows_left < fits ? rows_left : fits;
        wanted = rows > BATCH_ROWS ? (size_t)rows : BATCH_ROWS;
    }
    void *rows = run->rows;
    VEX_TRY(vexi_grow(run->lake->core->env, &rows, &run->row_capacity, run->row_count, wanted,
                      sizeof *run->rows, err));
    run->rows = rows;
    return VEX_OK;
}

static bool copy_string(vexi_arena *arena, vex_string *value) {
    if (value->data != NULL) {
        value->data = vexi_arena_copy(arena, value->data, value->size);
        return value->data != NULL;
    }
    return true;
}

/* Copy one row of the source into the gathered segment. map[c]: the file's column for schema column
 * c, or UINT32_MAX. */
static vex_status gather_row(import_run *run, const vexi_row *row, const uint32_t *map,
                             uint64_t rows_left, vex_error *err) {
    const vexi_schema *schema = &run->table->schema->schema;
    vexi_arena *arena = &run->arena;
    VEX_TRY(rows_reserve(run, rows_left, err));
    size_t vector_size = schema->dimension * sizeof(float);
    vexi_row *copy = &run->rows[run->row_count];
    *copy = *row;
    float *vector = vexi_arena_alloc(arena, vector_size);
    vexi_cell *cells = vexi_arena_array(arena, schema->column_count, sizeof *cells);
    if (vector == NULL || cells == NULL || !copy_string(arena, &copy->id) ||
        !copy_string(arena, &copy->attributes) || !copy_string(arena, &copy->payload)) {
        return vexi_no_memory(err, vector_size);
    }
    memcpy(vector, row->vector, vector_size);
    copy->vector = vector;
    copy->cells = cells;
    /* What the row takes here, so that many rows of few dimensions do not pass the bound. */
    size_t bytes = sizeof *copy + schema->column_count * sizeof *cells + vector_size +
                   copy->id.size + copy->attributes.size + copy->payload.size;
    for (uint32_t c = 0; c < schema->column_count; c++) {
        cells[c] = map[c] == UINT32_MAX || row->cells == NULL ? (vexi_cell){.is_null = true}
                                                              : row->cells[map[c]];
        if (schema->columns[c].type == VEX_TYPE_STRING && !cells[c].is_null) {
            if (!copy_string(arena, &cells[c].as.string)) {
                return vexi_no_memory(err, cells[c].as.string.size);
            }
            bytes += cells[c].as.string.size;
        }
    }
    run->row_count++;
    run->gathered_bytes += bytes;
    return VEX_OK;
}

/* ---- Files ------------------------------------------------------------------------------------
 */

/* The collection that the first file implies, if there is none yet. */
static vex_status table_for(import_run *run, vex_string name, const vexi_row_source_info *info,
                            vex_error *err) {
    vex_status status = vexi_lake_table(run->lake, name, &run->table, NULL);
    if (status == VEX_OK) {
        return VEX_OK;
    }
    if (info->dimension == 0) {
        return vexi_fail(err, VEX_INVALID, "the file is empty: no dimension to make a collection");
    }
    vexi_schema schema = {.dimension = info->dimension,
                          .metric = run->options->metric,
                          .index = run->options->index,
                          .recall = run->options->recall,
                          .bits = run->options->bits,
                          .column_count = info->column_count,
                          .columns = info->columns};
    status = vexi_lake_create_table(run->lake, name, &schema, err);
    if (status != VEX_OK && status != VEX_EXISTS) {
        return status;
    }
    return vexi_lake_table(run->lake, name, &run->table, err);
}

static vex_status map_columns(const vexi_schema *schema, const vexi_row_source_info *info,
                              uint32_t *map, vex_error *err) {
    if (info->dimension != 0 && info->dimension != schema->dimension) {
        return vexi_fail(err, VEX_INVALID, "vectors of dimension %u, the collection has %u",
                         info->dimension, schema->dimension);
    }
    for (uint32_t c = 0; c < schema->column_count; c++) {
        map[c] = UINT32_MAX;
    }
    for (uint32_t f = 0; f < info->column_count; f++) {
        bool known = false;
        for (uint32_t c = 0; c < schema->column_count; c++) {
            if (!vexi_string_equal(info->columns[f].name, schema->columns[c].name)) {
                continue;
            }
            if (info->columns[f].type != schema->columns[c].type) {
                return vexi_fail(err, VEX_INVALID,
                                 "column '%s' has another type than in the collection",
                                 info->columns[f].name.data);
            }
            map[c] = f;
            known = true;
        }
        if (!known) {
            return vexi_fail(err, VEX_INVALID, "the collection has no column '%s'",
                             info->columns[f].name.data);
        }
    }
    return VEX_OK;
}

static vex_status import_rows(import_run *run, vexi_row_source *source, const uint32_t *map,
                              vex_error *err) {
    const vexi_schema *schema = &run->table->schema->schema;
    vexi_arena arena;
    vexi_arena_init(&arena, run->lake->core->env);
    vex_status status = VEX_OK;
    size_t count = 1;
    uint64_t file_row = 0;
    while (count > 0 && status == VEX_OK) {
        vexi_row *rows;
        status = check_cancel(run, err);
        if (status == VEX_OK) {
            status = vexi_row_source_next(source, BATCH_ROWS, &arena, &rows, &count, err);
        }
        for (size_t i = 0; status == VEX_OK && i < count; i++, file_row++) {
            if (schema->metric == VEX_METRIC_COSINE &&
                vexi_distance(VEX_METRIC_IP, rows[i].vector, (const uint8_t *)rows[i].vector,
                              schema->dimension) == 0) {
                status = vexi_fail_row(err, VEX_INVALID, (int64_t)file_row,
                                       "row %llu: a zero vector has no cosine distance",
                                       (unsigned long long)file_row);
                break;
            }
            uint64_t left = run->rows_total > file_row ? run->rows_total - file_row : 0;
            status = gather_row(run, &rows[i], map, left, err);
            if (status == VEX_OK && run->gathered_bytes >= run->segment_size_bytes) {
                status = segment_finish(run, err);
            }
        }
        if (status == VEX_OK) {
            progress(run, 0, run->row_count);
        }
        vexi_arena_deinit(&arena);
    }
    vexi_arena_deinit(&arena);
    return status;
}

static vex_status import_file(import_run *run, vexi_disk *disk, vex_string name, const char *path,
                              uint64_t first_number, vex_error *err) {
    vexi_mapping mapping = {.data = NULL};
    vexi_mapping ids = {.data = NULL};
    vexi_row_source *source = NULL;
    vexi_row_source_info info;
    vex_status status = disk->ops->map(disk, path, &mapping, err);
    if (status == VEX_OK && run->options->ids_path.data != NULL) {
        char ids_path[4096];
        int size = snprintf(ids_path, sizeof ids_path, "%.*s", (int)run->options->ids_path.size,
                            run->options->ids_path.data);
        status = size >= (int)sizeof ids_path
                     ? vexi_fail(err, VEX_INVALID, "the path of the ids is too long")
                     : disk->ops->map(disk, ids_path, &ids, err);
    }
    if (status == VEX_OK) {
        vexi_row_source_options options = {.id_column = run->options->id_column,
                                           .vector_column = run->options->vector_column,
                                           .ids = vexi_span_of(ids.data, ids.size),
                                           .first_number = first_number};
        status = vexi_row_source_open(run->lake->core->env, path,
                                      vexi_span_of(mapping.data, mapping.size), &options, &source,
                                      &info, err);
    }
    uint32_t map[VEX_COLUMNS_MAX];
    if (status == VEX_OK && info.skipped[0] != '\0') {
        vexi_log(run->lake->core->env, 2, "%s: columns of other types are left out: %s", path,
                 info.skipped);
    }
    if (status == VEX_OK && run->table == NULL) {
        status = table_for(run, name, &info, err);
    }
    if (status == VEX_OK) {
        status = map_columns(&run->table->schema->schema, &info, map, err);
    }
    if (status == VEX_OK) {
        run->rows_total = info.row_count;
        status = import_rows(run, source, map, err);
    }
    vexi_row_source_close(source);
    disk->ops->unmap(disk, &ids);
    disk->ops->unmap(disk, &mapping);
    return status == VEX_OK ? status : vexi_prefix(err, status, "%s", path);
}

/* ---- Committing -------------------------------------------------------------------------------
 */

static void import_ids_restart(void *context) {
    import_run *run = context;
    run->ids_segment = 0;
    run->ids_row = 0;
}

static vex_status import_ids_next(void *context, bool *more, vex_string *id, uint64_t *hash,
                                  vex_error *err) {
    import_run *run = context;
    while (run->ids_segment < run->segment_count) {
        vexi_segment *segment = run->segments[run->ids_segment].segment;
        if (run->ids_row < vexi_segment_row_count(segment)) {
            VEX_TRY(vexi_segment_id(segment, run->ids_row++, id, err));
            *hash = vexi_hash64(id->data, id->size);
            *more = true;
            return VEX_OK;
        }
        run->ids_segment++;
        run->ids_row = 0;
    }
    *more = false;
    return VEX_OK;
}

static vex_status import_commit(import_run *run, vex_error *err) {
    run->rows_total = run->rows_done;
    progress(run, 2, 0);
    VEX_TRY(check_cancel(run, err));
    vexi_table *table = run->table;
    /* Rows acknowledged so far are older than the import. So are those whose outcome is unknown: a
     * replay must not bring them back over it. */
    if (table->log != NULL) {
        VEX_TRY(table_claim(table, err));
    }
    VEX_TRY(table_log_settle(table, err));
    VEX_TRY(vexi_table_flush(table, err));
    commit_request request = {
        .operation = "WRITE",
        .segments = run->segments,
        .segment_count = run->segment_count,
        .ids = {.restart = import_ids_restart, .next = import_ids_next, .context = run},
    };
    pthread_mutex_lock(&table->commit_lock);
    vex_status status = table_commit(table, &request, err);
    if (status == VEX_UNKNOWN_OUTCOME && table->log != NULL) {
        pthread_mutex_lock(&table->state_lock);
        table->doubtful = true;
        pthread_mutex_unlock(&table->state_lock);
    }
    pthread_mutex_unlock(&table->commit_lock);
    run->named = !request.unnamed;
    return status;
}

vex_status vexi_lake_import(vexi_lake *lake, vex_string name, const char *const *paths,
                            size_t path_count, const vex_import_options *options,
                            uint64_t *row_count, vex_error *err) {
    *row_count = 0;
    if (lake->config.read_only) {
        return vexi_fail(err, VEX_READ_ONLY, "the lake is opened read-only");
    }
    if (path_count == 0) {
        return vexi_fail(err, VEX_INVALID, "no file to import");
    }
    VEX_TRY(vexi_name_check(name, err));
    const vexi_env *env = lake->core->env;
    import_run run = {.lake = lake,
                      .options = options,
                      .segment_size_bytes = options->segment_size_bytes != 0
                                                ? options->segment_size_bytes
                                                : lake->config.segment_size_bytes};
    if (run.segment_size_bytes > SEGMENT_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "segments of %llu bytes; at most %llu are possible",
                         (unsigned long long)run.segment_size_bytes,
                         (unsigned long long)SEGMENT_SIZE_MAX);
    }
    vexi_arena_init(&run.arena, env);
    vexi_arena_init(&run.adds, env);
    bool existed = vexi_lake_table(lake, name, &run.table, NULL) == VEX_OK;
    vexi_disk *disk = NULL;
    vex_status status = vexi_disk_posix_create(env, &disk, err);
    if (status == VEX_OK && existed && run.table->log != NULL) {
        status = table_claim(run.table, err); /* rather than find out when all is built */
    }
    for (size_t i = 0; i < path_count && status == VEX_OK; i++) {
        status = import_file(&run, disk, name, paths[i], run.rows_done + run.row_count, err);
    }
    if (status == VEX_OK) {
        status = segment_finish(&run, err);
    }
    if (status == VEX_OK && run.segment_count > 0) {
        status = import_commit(&run, err);
    }
    if (status == VEX_OK) {
        *row_count = run.rows_done;
    } else if (!existed && run.table != NULL) {
        /* The collection was made for this import alone. */
        vex_error ignored;
        if (lake_drop_if_empty(lake, run.table, &ignored) != VEX_OK) {
            vexi_log(env, 2, "cannot drop the empty collection of a failed import: %s",
                     ignored.message);
        }
    }
    for (size_t i = 0; i < run.segment_count; i++) {
        vexi_bits_release(run.segments[i].deleted);
        if (run.named) {
            vexi_segment_release(run.segments[i].segment);
        } else {
            segment_discard(run.table, &run.segments[i]);
        }
    }
    vexi_free(env, run.segments);
    vexi_free(env, run.rows);
    vexi_free(env, run.filter);
    vexi_arena_deinit(&run.arena);
    vexi_arena_deinit(&run.adds);
    vexi_table_release(run.table);
    vexi_disk_destroy(disk);
    return status;
}
