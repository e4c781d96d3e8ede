/* Following a log that another node writes: memtables of what it holds behind the newest version.
 *
 *     probe the next object ─► there: append its rows ─► probe the next ...
 *            │ absent
 *            ▼
 *     newer version? ─► no: this is the newest state
 *            │ yes
 *            ▼
 *     publish it with the rows that it does not cover, go on behind it
 *
 * A reader's memtables end where the writer's do not, so a version may cover a part of one: then
 * the rest is copied into a fresh one, and the swap is one step for readers. Where the memtables
 * are no mirror of the log (the first time, or after another node took over from this one) they are
 * made anew from the log. */
#include <stdio.h>

#include "table/table_internal.h"

enum { COPY_PART = 1024, STEP_OBJECTS = 64, STEP_SIZE = 32 << 20 };

/* ---- Groups -----------------------------------------------------------------------------------
 */

/* The rows of a group behind `covered`, as blocks that were copied from its records. */
typedef struct group_blocks {
    vexi_row_block **blocks;
    size_t count;
    uint64_t row_count;
    uint64_t last_sequence;
} group_blocks;

static void blocks_destroy(const vexi_env *env, group_blocks *group) {
    for (size_t i = 0; i < group->count; i++) {
        vexi_row_block_destroy(env, group->blocks[i]);
    }
    group->count = 0;
}

static vex_status block_add(vexi_table *table, group_blocks *group, const vexi_row *rows,
                            const vex_string *ids, size_t count, vex_error *err) {
    VEX_TRY(vexi_row_block_create(table->core->env, &table->schema->schema, rows, ids, count,
                                  &group->blocks[group->count], err));
    group->count++;
    group->row_count += count;
    return VEX_OK;
}

/* A schema never changes within a metaData.id, so a difference is damage. */
static vex_status check_record(vexi_table *table, const vexi_wal_record *record, vex_error *err) {
    const vexi_schema *schema = &table->schema->schema;
    bool same = strcmp(record->collection, table->uuid) == 0 &&
                (record->cell_count == 0 || record->cell_count == schema->column_count) &&
                (record->kind != VEXI_WAL_PUT || record->dimension == schema->dimension);
    for (uint32_t c = 0; same && c < record->cell_count; c++) {
        same = record->columns[c].type == schema->columns[c].type &&
               vexi_string_equal(record->columns[c].name, schema->columns[c].name);
    }
    return same ? VEX_OK
                : vexi_fail(err, VEX_CORRUPT, "record %llu does not fit the collection",
                            (unsigned long long)record->sequence);
}

/* Consecutive puts, and consecutive deletes, become one block each. */
static vex_status group_decode(vexi_table *table, vexi_span file, const vexi_log_object *object,
                               uint64_t covered, vexi_arena *arena, group_blocks *out,
                               vex_error *err) {
    uint32_t count = object->record_count;
    vexi_row *rows = vexi_arena_array(arena, count, sizeof *rows);
    vex_string *ids = vexi_arena_array(arena, count, sizeof *ids);
    out->blocks = vexi_arena_array(arena, count, sizeof(vexi_row_block *));
    if (rows == NULL || ids == NULL || out->blocks == NULL) {
        return vexi_no_memory(err, count * (sizeof *rows + sizeof *ids));
    }
    size_t offset = VEXI_LOG_OBJECT_HEADER_SIZE;
    size_t run = 0;
    bool puts = false;
    uint64_t sequence = vexi_log_first_sequence(object->number, count);
    for (uint32_t i = 0; i < count; i++, sequence++) {
        vexi_wal_record record;
        vexi_wal_read result;
        bool later;
        VEX_TRY(vexi_wal_record_read(file, &offset, arena, &record, &result, &later, err));
        if (result != VEXI_WAL_RECORD || record.sequence != sequence) {
            return vexi_fail(err, VEX_CORRUPT, "record %u of %u is damaged", i, count);
        }
        VEX_TRY(check_record(table, &record, err));
        if (sequence <= covered) {
            continue;
        }
        bool put = record.kind == VEXI_WAL_PUT;
        if (run > 0 && put != puts) {
            VEX_TRY(block_add(table, out, puts ? rows : NULL, puts ? NULL : ids, run, err));
            run = 0;
        }
        puts = put;
        rows[run] = record.row;
        if (record.cell_count == 0) {
            rows[run].cells = NULL;
        }
        ids[run++] = record.row.id;
    }
    if (offset != file.size) {
        return vexi_fail(err, VEX_CORRUPT, "bytes follow its last record");
    }
    out->last_sequence = sequence - 1;
    return run == 0 ? VEX_OK
                    : block_add(table, out, puts ? rows : NULL, puts ? NULL : ids, run, err);
}

/* Append a decoded group to a memtable that nobody sees yet. */
static vex_status group_add(group_blocks *group, vexi_memtable *target, uint64_t *end_row,
                            vex_error *err) {
    VEX_TRY(vexi_memtable_reserve(target, vexi_memtable_count(target) + group->row_count, err));
    uint64_t sequence = group->last_sequence + 1 - group->row_count;
    for (size_t i = 0; i < group->count; i++) {
        uint64_t count = group->blocks[i]->count;
        vexi_memtable_append(target, group->blocks[i], sequence);
        sequence += count;
    }
    group->count = 0;
    vexi_memtable_encode(target);
    *end_row = vexi_memtable_count(target);
    return VEX_OK;
}

/* Append a decoded group to the active memtable. Leads. */
static vex_status group_append(vexi_table *table, group_blocks *group, uint64_t *end_row,
                               vex_error *err) {
    vexi_memtable *filled = NULL;
    pthread_mutex_lock(&table->state_lock);
    vex_status status = table_reserve(table, group->row_count, err);
    if (status == VEX_OK) {
        uint64_t sequence = group->last_sequence + 1 - group->row_count;
        for (size_t i = 0; i < group->count; i++) {
            uint64_t count = group->blocks[i]->count;
            table_append(table, group->blocks[i], sequence);
            sequence += count;
        }
        group->count = 0;
        filled = table->active.memtable;
        vexi_memtable_retain(filled);
        *end_row = vexi_memtable_count(filled);
    }
    pthread_mutex_unlock(&table->state_lock);
    if (filled != NULL) {
        vexi_memtable_encode(filled);
        vexi_memtable_release(filled);
    }
    return status;
}

/* target: a memtable that nobody sees yet, or NULL: the active one. Leads. */
static vex_status apply_to(vexi_table *table, vexi_span file, vexi_memtable *target,
                           vex_error *err) {
    lake_log *log = table->log;
    const vexi_env *env = table->core->env;
    uint64_t number = log->applied + 1;
    vexi_log_object object;
    VEX_TRY(vexi_log_object_read(file, &object, err));
    if (object.number != number || strcmp(object.collection, table->uuid) != 0) {
        return vexi_fail(err, VEX_CORRUPT, "it is another log's object %llu",
                         (unsigned long long)object.number);
    }
    VEX_TRY(lake_log_marks_reserve(env, log, 1, err));
    uint64_t end_row = log->mark_count > 0 ? log->marks[log->mark_count - 1].end_row : 0;
    vex_status status = VEX_OK;
    if (object.kind == VEXI_LOG_GROUP) {
        vexi_arena arena;
        group_blocks group = {.count = 0};
        vexi_arena_init(&arena, env);
        /* What is shown counts, not what a version that could not be shown covers. */
        uint64_t covered = target != NULL ? table_log_covered(table) : log->covered;
        status = group_decode(table, file, &object, covered, &arena, &group, err);
        if (status == VEX_OK && group.row_count > 0) {
            status = target != NULL ? group_add(&group, target, &end_row, err)
                                    : group_append(table, &group, &end_row, err);
        }
        blocks_destroy(env, &group);
        vexi_arena_deinit(&arena);
    }
    if (status == VEX_OK) {
        lake_log_mark_add(log, number, object.kind == VEXI_LOG_GROUP ? file.size : 0, end_row);
        __atomic_store_n(&log->applied, number, __ATOMIC_RELEASE);
    }
    return status;
}

vex_status table_apply_group(vexi_table *table, vexi_span file, vex_error *err) {
    return apply_to(table, file, NULL, err);
}

/* Apply one object that was read, or say which it is. */
static vex_status object_apply(vexi_table *table, const char *name, vexi_span file,
                               vexi_memtable *target, vex_error *err) {
    vex_status status = apply_to(table, file, target, err);
    return status == VEX_OK ? VEX_OK : vexi_prefix(err, status, "%s", name);
}

/* Read and apply the next object. VEX_NOT_FOUND if it is absent. */
static vex_status next_apply(vexi_table *table, vexi_memtable *target, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, table->core->env);
    vexi_span file;
    char *name = vexi_log_object_name(&arena, table->folder, table->uuid, table->log->applied + 1);
    vex_status status = name == NULL
                            ? vexi_no_memory(err, VEXI_STORE_NAME_SIZE_MAX)
                            : vexi_store_get_all(table->core->store, name, VEXI_LOG_OBJECT_SIZE_MAX,
                                                 &arena, &file, err);
    if (status == VEX_OK) {
        status = object_apply(table, name, file, target, err);
    }
    vexi_arena_deinit(&arena);
    return status;
}

/* Read and apply the objects listed from *at on, as many as one step should hold, in which they are
 * in flight together. *at moves behind them; what does not follow on `applied` ends the list. */
static vex_status listed_apply(vexi_table *table, const vexi_listing *listing, size_t prefix_size,
                               uint64_t end, vexi_memtable *target, size_t *at, vex_error *err) {
    vexi_store_read reads[STEP_OBJECTS];
    vexi_range ranges[STEP_OBJECTS];
    size_t count = 0;
    uint64_t size = 0;
    vexi_arena arena;
    vexi_arena_init(&arena, table->core->env);
    vex_status status = VEX_OK;
    uint64_t number = table->log->applied + 1;
    while (*at + count < listing->count && count < STEP_OBJECTS && number < end) {
        const vexi_list_entry *entry = &listing->entries[*at + count];
        if (vexi_log_object_number(entry->name, prefix_size) != number ||
            entry->size_bytes > VEXI_LOG_OBJECT_SIZE_MAX ||
            (count > 0 && size + entry->size_bytes > STEP_SIZE)) {
            break;
        }
        ranges[count] = (vexi_range){.size = (size_t)entry->size_bytes,
                                     .target = vexi_arena_alloc(&arena, (size_t)entry->size_bytes)};
        if (ranges[count].target == NULL) {
            status = vexi_no_memory(err, (size_t)entry->size_bytes);
            goto done;
        }
        reads[count] = (vexi_store_read){.name = entry->name, .ranges = &ranges[count], .count = 1};
        size += entry->size_bytes;
        count++;
        number++;
    }
    if (count == 0) {
        *at = listing->count;
        goto done;
    }
    VEX_TRY_GOTO(status, done,
                 vexi_store_get_many(table->core->store, reads, count, 0, NULL, NULL, err));
    for (size_t i = 0; i < count && status == VEX_OK; i++) {
        status = object_apply(table, reads[i].name, vexi_span_of(ranges[i].target, ranges[i].size),
                              target, err);
    }
    *at += count;
done:
    vexi_arena_deinit(&arena);
    return status;
}

/* Apply objects until one is absent, or `end` is next. One that is there has followers as a rule:
 * they are listed, and read together. */
static vex_status objects_apply(vexi_table *table, uint64_t end, vexi_memtable *target,
                                vex_error *err) {
    lake_log *log = table->log;
    vex_error problem;
    vex_status status = VEX_OK;
    while (status == VEX_OK && log->applied + 1 < end) {
        status = next_apply(table, target, &problem);
        if (status != VEX_OK || log->applied + 1 >= end) {
            break;
        }
        vexi_arena arena;
        vexi_arena_init(&arena, table->core->env);
        vexi_listing listing = {.count = 0};
        char *prefix = vexi_log_prefix(&arena, table->folder, table->uuid);
        char *after = vexi_log_object_name(&arena, table->folder, table->uuid, log->applied);
        status = prefix == NULL || after == NULL
                     ? vexi_no_memory(&problem, VEXI_STORE_NAME_SIZE_MAX)
                     : vexi_store_list(table->core->store, prefix, after, false, &arena, &listing,
                                       &problem);
        for (size_t at = 0; at < listing.count && status == VEX_OK;) {
            status = listed_apply(table, &listing, strlen(prefix), end, target, &at, &problem);
        }
        vexi_arena_deinit(&arena);
    }
    if (status == VEX_NOT_FOUND) {
        return VEX_OK; /* absent, or covered and deleted meanwhile: the newest version tells */
    }
    if (status != VEX_OK && err != NULL) {
        *err = problem;
    }
    return status;
}

/* ---- A newer version ------------------------------------------------------------------------- */

uint64_t table_log_covered(const vexi_table *table) {
    char app_id[64];
    table_log_app_id(table, app_id);
    int64_t covered = vexi_delta_state_txn(&table->delta, vexi_string_of(app_id));
    return covered > 0 ? (uint64_t)covered : 0;
}

/* Rows of the active memtable that a sequence covers. Every record is one row. */
static uint64_t covered_rows(const lake_log *log, uint64_t covered) {
    uint64_t before = 0;
    for (size_t i = 0; i < log->mark_count; i++) {
        const lake_log_mark *mark = &log->marks[i];
        uint64_t rows = mark->end_row - before;
        if (mark->size_bytes > 0 && rows > 0) {
            uint64_t first = vexi_log_first_sequence(mark->number, rows);
            if (covered < first + rows - 1) {
                return before + (covered >= first ? covered - first + 1 : 0);
            }
        }
        before = mark->end_row;
    }
    return before;
}

/* Copy rows first .. of a memtable, which end with the sequence `last`, to a fresh one. */
static vex_status rows_copy(vexi_table *table, const vexi_memtable *from, uint64_t first,
                            uint64_t last, vexi_memtable *to, vex_error *err) {
    const vexi_env *env = table->core->env;
    uint64_t count = vexi_memtable_count(from);
    vexi_row *rows = vexi_alloc_array(env, COPY_PART, sizeof *rows);
    vex_string *ids = vexi_alloc_array(env, COPY_PART, sizeof *ids);
    vex_status status =
        rows == NULL || ids == NULL ? vexi_no_memory(err, COPY_PART * sizeof *rows) : VEX_OK;
    while (first < count && status == VEX_OK) {
        bool dead = vexi_memtable_is_tombstone(from, first);
        size_t part = 0;
        while (part < COPY_PART && first + part < count &&
               vexi_memtable_is_tombstone(from, first + part) == dead) {
            rows[part] = vexi_memtable_row(from, first + part);
            ids[part] = rows[part].id;
            part++;
        }
        vexi_row_block *block;
        status = vexi_row_block_create(env, &table->schema->schema, dead ? NULL : rows,
                                       dead ? ids : NULL, part, &block, err);
        if (status == VEX_OK) {
            vexi_memtable_append(to, block, last + 1 - (count - first));
            first += part;
        }
    }
    vexi_free(env, rows);
    vexi_free(env, ids);
    return status;
}

/* A memtable of the rows that `covered` does not cover. Leads; commit lock. */
static vex_status memtable_rest(vexi_table *table, uint64_t covered, uint64_t *rows_gone,
                                vexi_memtable **out, vex_error *err) {
    lake_log *log = table->log;
    vexi_memtable *active = table->active.memtable;
    uint64_t count = active == NULL ? 0 : vexi_memtable_count(active);
    *rows_gone = covered_rows(log, covered);
    VEX_ASSERT(*rows_gone <= count);
    VEX_TRY(vexi_memtable_create(table->schema, table->center, table->center_row_length, out, err));
    vex_status status = vexi_memtable_reserve(*out, count - *rows_gone, err);
    if (status == VEX_OK && *rows_gone < count) {
        status = rows_copy(table, active, *rows_gone, vexi_memtable_sequence(active), *out, err);
    }
    if (status != VEX_OK) {
        vexi_memtable_release(*out);
        return status;
    }
    vexi_memtable_encode(*out);
    return VEX_OK;
}

static void marks_drop(lake_log *log, uint64_t position, uint64_t rows_gone) {
    pthread_mutex_lock(&log->mutex);
    size_t kept = 0;
    for (size_t i = 0; i < log->mark_count; i++) {
        lake_log_mark mark = log->marks[i];
        if (mark.number > position) {
            mark.end_row -= rows_gone < mark.end_row ? rows_gone : mark.end_row;
            log->marks[kept++] = mark;
        }
    }
    log->mark_count = kept;
    pthread_mutex_unlock(&log->mutex);
}

/* A memtable of all that the log holds behind `position`: nobody sees it before it is whole. On
 * failure the marks speak of no memtable, which `reset` tells. Leads; commit lock. */
static vex_status memtable_read(vexi_table *table, uint64_t position, uint64_t end,
                                vexi_memtable **out, vex_error *err) {
    lake_log *log = table->log;
    __atomic_store_n(&log->reset, true, __ATOMIC_RELEASE);
    marks_drop(log, UINT64_MAX, 0);
    __atomic_store_n(&log->applied, position, __ATOMIC_RELEASE);
    VEX_TRY(vexi_memtable_create(table->schema, table->center, table->center_row_length, out, err));
    vex_status status = objects_apply(table, end, *out, err);
    if (status != VEX_OK) {
        vexi_memtable_release(*out);
    }
    return status;
}

/* Publish the version that was read, with memtables that begin behind what it covers. Leads; commit
 * lock. */
static vex_status rebase(vexi_table *table, uint64_t end, vex_error *err) {
    lake_log *log = table->log;
    uint64_t covered = table_log_covered(table);
    uint64_t position = vexi_log_position(covered);
    bool anew = __atomic_load_n(&log->reset, __ATOMIC_RELAXED);
    table_segment *segments;
    size_t count;
    VEX_TRY(table_segments_open(table, &segments, &count, err));
    uint64_t rows_gone = 0;
    vex_status status = VEX_OK;
    vexi_memtable *fresh = NULL;
    if (anew) {
        status = memtable_read(table, position, end, &fresh, err);
    } else if (covered_rows(log, covered) > 0) {
        status = memtable_rest(table, covered, &rows_gone, &fresh, err);
    }
    if (status != VEX_OK) {
        table_segments_free(table->core->env, segments, count);
        return status;
    }
    /* Segments and memtables change in one step, and `applied` only with it: what is shown between
     * would lack rows, or show older ones. */
    status =
        fresh != NULL
            ? table_publish_fresh(table, segments, count, fresh, anew, table->delta.version, err)
            : table_publish(table, segments, count, 0, false, table->delta.version, err);
    if (status != VEX_OK) {
        vexi_memtable_release(fresh);
        return status;
    }
    log->covered = covered;
    marks_drop(log, position, rows_gone);
    if (log->applied < position) {
        __atomic_store_n(&log->applied, position, __ATOMIC_RELEASE);
    }
    __atomic_store_n(&log->reset, false, __ATOMIC_RELEASE);
    return VEX_OK;
}

/* ---- Following --------------------------------------------------------------------------------
 */

vex_status table_follow_to(vexi_table *table, uint64_t end, vex_error *err) {
    lake_log *log = table->log;
    uint64_t since_ns = vexi_monotonic_ns(table->core->env);
    for (bool first = true;; first = false) {
        /* What is there behind what is known, then whether a newer version came meanwhile: at the
         * moment an object was absent no version covered it, so it was never put. */
        bool known = !__atomic_load_n(&log->reset, __ATOMIC_RELAXED);
        if (known) {
            VEX_TRY(objects_apply(table, end, NULL, err));
        }
        VEX_TRY(commit_refresh(table->core, table->folder, &table->delta, err));
        if (table_is_gone(table)) {
            return table_let_go(table, err);
        }
        bool unread = false;
        for (size_t i = 0; i < table->segment_count; i++) {
            unread = unread || vexi_segment_unread(table->segments[i].segment);
        }
        bool newer = table->delta.version != table->version || (unread && first);
        if (known && !newer) {
            break;
        }
        VEX_TRY(rebase(table, end, err));
    }
    if (end != UINT64_MAX && log->applied + 1 < end) {
        return vexi_fail(err, VEX_CORRUPT, "the log of '%s' lacks object %llu of %llu", table->name,
                         (unsigned long long)log->applied + 1, (unsigned long long)end - 1);
    }
    __atomic_store_n(&log->followed_ns, since_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&log->followed, true, __ATOMIC_RELEASE);
    return VEX_OK;
}

vex_status table_follow_locked(vexi_table *table, vex_error *err) {
    lake_log_lead(table->log);
    vex_status status = table_owned(table) ? VEX_OK : table_follow_to(table, UINT64_MAX, err);
    lake_log_yield(table->log);
    return status;
}

/* A table that was asked lately is followed in the background. */
static bool in_use(const vexi_table *table, uint64_t now_ns) {
    return now_ns - __atomic_load_n(&table->log->used_ns, __ATOMIC_RELAXED) <
           LAKE_LOG_IN_USE_MS * UINT64_C(1000000);
}

bool table_is_followed(const vexi_table *table) {
    return table->log == NULL || (__atomic_load_n(&table->log->used_ns, __ATOMIC_RELAXED) != 0 &&
                                  in_use(table, vexi_monotonic_ns(table->core->env)));
}

bool vexi_table_follows(vexi_table *table, bool consistent) {
    lake_log *log = table->log;
    if (log == NULL || consistent) {
        return log != NULL;
    }
    return !table_owned(table) && (!__atomic_load_n(&log->followed, __ATOMIC_ACQUIRE) ||
                                   !in_use(table, vexi_monotonic_ns(table->core->env)));
}

vex_status vexi_table_follow(vexi_table *table, bool consistent, vex_error *err) {
    lake_log *log = table->log;
    if (log == NULL) {
        return VEX_OK;
    }
    bool wanted = vexi_table_follows(table, consistent);
    uint64_t now_ns = vexi_monotonic_ns(table->core->env);
    __atomic_store_n(&log->used_ns, now_ns, __ATOMIC_RELAXED);
    if (!wanted) {
        return VEX_OK;
    }
    vex_error error;
    if (table_owned(table)) { /* so it was; another node may have taken the table over since */
        vex_status confirmed = lake_log_confirm(table, &error);
        if (confirmed != VEX_READ_ONLY) {
            if (confirmed != VEX_OK && err != NULL) {
                *err = error;
            }
            return confirmed;
        }
    }
    vex_status status = VEX_OK;
    pthread_mutex_lock(&table->commit_lock);
    bool followed = __atomic_load_n(&log->followed, __ATOMIC_RELAXED);
    if (!followed || __atomic_load_n(&log->followed_ns, __ATOMIC_RELAXED) <= now_ns) {
        status = table_follow_locked(table, &error);
    } /* else somebody began to after this one asked */
    pthread_mutex_unlock(&table->commit_lock);
    if (status == VEX_IO && followed && !consistent) {
        /* What is known is still an answer. */
        table_note_error(table, &error);
        return VEX_OK;
    }
    if (status != VEX_OK && err != NULL) {
        *err = error;
    }
    return status;
}
