/* Flush: a sealed memtable becomes one segment.
 *
 *     sealed ──build──► files put ──commit──► published ──► log files may go
 *
 * Oldest first, one at a time per table (commit lock). Nothing is forgotten before the commit is
 * published; a failure at any step leaves the memtable where it is, and the next flush starts over
 * with new files. Those of the failed attempt are removed, unless the outcome of its commit is
 * unknown: then they stay, perhaps as garbage that no version names. */
#include "table/table_internal.h"

#include <stdio.h>

#include "base/checksum.h"
#include "index/ivf.h"

enum {
    FILE_SIZE_MAX_GIB = 4,
    OBJECT_NAME_SIZE = 1024, /* a folder has 3 x VEX_NAME_SIZE_MAX bytes at most */
    RETRY_SHIFT_MAX = 6      /* a failing flush is tried again after 1 s, 2 s, ... 64 s */
};

/* Lists for a segment: the collection's setting, and for `auto` what pays. */
static uint32_t list_count_for(const vexi_schema *schema, size_t row_count) {
    if (schema->index == VEX_INDEX_FLAT) {
        return 0;
    }
    uint32_t count = vexi_ivf_default_list_count(row_count, schema->dimension);
    if (count == 0 && schema->index == VEX_INDEX_IVF) {
        /* Asked for on a small segment: about sqrt(n) lists. */
        for (count = 1; (size_t)count * count < row_count; count++) {
        }
    }
    return count;
}

/* Name in the store of an object of the table; out holds OBJECT_NAME_SIZE bytes. */
static void object_path(const vexi_table *table, const char *middle, vex_string name, char *out) {
    int size = snprintf(out, OBJECT_NAME_SIZE, "%s%s%.*s", table->folder, middle, (int)name.size,
                        name.data);
    VEX_ASSERT(size < OBJECT_NAME_SIZE);
}

static vex_status put_buffer(vexi_table *table, const char *middle, vex_string name,
                             const vexi_buffer *bytes, vex_error *err) {
    char object[OBJECT_NAME_SIZE];
    object_path(table, middle, name, object);
    vexi_span part = vexi_span_of(bytes->data, bytes->size);
    return vexi_store_put(table->core->store, object, &part, 1, err);
}

static void remove_object(vexi_table *table, const char *middle, vex_string name) {
    char object[OBJECT_NAME_SIZE];
    vex_error error;
    if (name.data == NULL) {
        return;
    }
    object_path(table, middle, name, object);
    vex_status status = vexi_store_remove(table->core->store, object, &error);
    if (status != VEX_OK && status != VEX_NOT_FOUND) {
        vexi_log(table->core->env, 2, "%s is left behind: %s", object, error.message);
    }
}

void segment_discard(vexi_table *table, commit_segment *segment) {
    vexi_segment_release(segment->segment);
    segment->segment = NULL;
    remove_object(table, "/data/", segment->add.path);
    remove_object(table, "/", segment->add.index.path);
}

/* prefix + uuid + suffix; data NULL without memory. */
static vex_string object_name(vexi_arena *arena, const char *prefix, const char *uuid,
                              const char *suffix) {
    char name[128];
    int size = snprintf(name, sizeof name, "%s%s%s", prefix, uuid, suffix);
    char *copy = vexi_arena_copy(arena, name, (size_t)size);
    return (vex_string){.data = copy, .size = copy == NULL ? 0 : (size_t)size};
}

vex_status segment_build(vexi_table *table, const vexi_row **rows, size_t row_count,
                         commit_segment *out, vexi_arena *arena, vex_error *err) {
    const vexi_env *env = table->core->env;
    const vexi_schema *schema = &table->schema->schema;
    *out = (commit_segment){.segment = NULL};
    vexi_ivf ivf = {.list_count = 0};
    vexi_buffer parquet;
    vexi_buffer index;
    vexi_buffer_init(&parquet, env, (size_t)FILE_SIZE_MAX_GIB << 30);
    vexi_buffer_init(&index, env, (size_t)FILE_SIZE_MAX_GIB << 30);
    vexi_arena scratch;
    vexi_arena_init(&scratch, env);
    vex_status status = VEX_OK;

    uint32_t list_count = list_count_for(schema, row_count);
    if (list_count > 0) {
        const float **vectors = vexi_arena_array(&scratch, row_count, sizeof *vectors);
        const vexi_row **ordered = vexi_arena_array(&scratch, row_count, sizeof *ordered);
        if (vectors == NULL || ordered == NULL) {
            status = vexi_no_memory(err, row_count * sizeof *vectors);
            goto done;
        }
        for (size_t i = 0; i < row_count; i++) {
            vectors[i] = rows[i]->vector;
        }
        vexi_ivf_options options = {.list_count = list_count, .seed = vexi_random_u64(env)};
        VEX_TRY_GOTO(status, done,
                     vexi_ivf_build(env, vectors, (uint32_t)row_count, schema->dimension,
                                    schema->metric, &options, &ivf, err));
        for (size_t i = 0; i < row_count; i++) {
            ordered[i] = rows[ivf.order[i]];
        }
        memcpy(rows, ordered, row_count * sizeof *rows);
    }

    char uuid[37];
    vexi_random_uuid(env, uuid);
    vexi_segment_layout layout;
    VEX_TRY_GOTO(
        status, done,
        vexi_segment_write(env, schema, rows, row_count, &parquet, &scratch, &layout, err));
    vexi_index_input input = {
        .schema = schema,
        .layout = &layout,
        .rows = rows,
        .row_count = row_count,
        .list_count = ivf.list_count,
        .centroids = ivf.centroids,
        .radii = ivf.radii,
        .list_first = ivf.list_first,
    };
    memcpy(input.segment, uuid, sizeof input.segment);
    vexi_delta_add *add = &out->add;
    VEX_TRY_GOTO(
        status, done,
        vexi_index_write(env, &input, &index, &add->index.head_size, &add->index.head_crc, err));
    add->path = object_name(arena, "", uuid, ".parquet");
    add->index.path =
        object_name(arena, "index/", uuid, list_count > 0 ? ".vector.ivf.bin" : ".vector.flat.bin");
    if (add->path.data == NULL || add->index.path.data == NULL) {
        status = vexi_no_memory(err, sizeof uuid);
        goto done;
    }
    add->size_bytes = parquet.size;
    add->index.size_bytes = index.size;
    add->modification_time_ms = vexi_wall_us(env) / 1000;
    add->row_count = (int64_t)row_count;
    add->data_change = true;
    VEX_TRY_GOTO(status, done, put_buffer(table, "/data/", add->path, &parquet, err));
    VEX_TRY_GOTO(status, done, put_buffer(table, "/", add->index.path, &index, err));
    /* Read back what was put, before the log is told: a segment that does not open never commits.
     */
    VEX_TRY_GOTO(
        status, done,
        vexi_segment_open(table->core, table->schema, table->folder, add, &out->segment, err));
    status = vexi_segment_check(out->segment, err);
done:
    if (status != VEX_OK) {
        segment_discard(table, out);
    }
    vexi_ivf_deinit(env, &ivf);
    vexi_buffer_deinit(&parquet);
    vexi_buffer_deinit(&index);
    vexi_arena_deinit(&scratch);
    return status;
}

/* Ids of a memtable: each id once, its newest row. */
typedef struct memtable_ids {
    const vexi_memtable *memtable;
    uint64_t count;
    uint64_t next;
} memtable_ids;

static void ids_restart(void *context) {
    ((memtable_ids *)context)->next = 0;
}

static vex_status ids_next(void *context, bool *more, vex_string *id, uint64_t *hash,
                           vex_error *err) {
    (void)err;
    memtable_ids *ids = context;
    while (ids->next < ids->count) {
        uint64_t row = ids->next++;
        if (vexi_memtable_previous(ids->memtable, row) == VEXI_NO_ROW) {
            *id = vexi_memtable_row(ids->memtable, row).id;
            *hash = vexi_memtable_hash(ids->memtable, row);
            *more = true;
            return VEX_OK;
        }
    }
    *more = false;
    return VEX_OK;
}

/* Flush the oldest sealed memtable. Commit lock. */
static vex_status flush_oldest(vexi_table *table, vex_error *err) {
    const vexi_env *env = table->core->env;
    /* What a damaged segment hides cannot be told, so nothing can be committed: say so before hours
     * of retries build files for nothing. Segments change under the commit lock alone. */
    VEX_TRY(commit_check_writable(table->folder, &table->delta, err));
    VEX_TRY(table_mend_all(table, err));
    for (size_t i = 0; i < table->segment_count; i++) {
        if (!vexi_segment_unread(table->segments[i].segment)) { /* the commit opens it anew */
            VEX_TRY(vexi_segment_check(table->segments[i].segment, err));
        }
    }
    /* Entries leave `sealed` under the commit lock alone. */
    vexi_memtable *memtable = table->sealed[0].memtable;
    uint64_t count = vexi_memtable_count(memtable);
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_row *rows = vexi_alloc_array(env, count, sizeof *rows);
    const vexi_row **live = vexi_alloc_array(env, count, sizeof *live);
    commit_segment segment = {.segment = NULL};
    vex_status status = VEX_OK;
    if (rows == NULL || live == NULL) {
        status = vexi_no_memory(err, count * sizeof *rows);
        goto done;
    }
    size_t live_count = 0;
    for (uint64_t row = 0; row < count; row++) {
        if (!vexi_memtable_superseded(memtable, row, count) &&
            !vexi_memtable_is_tombstone(memtable, row)) {
            rows[live_count] = vexi_memtable_row(memtable, row);
            live[live_count] = &rows[live_count];
            live_count++;
        }
    }
    if (live_count > 0) {
        VEX_TRY_GOTO(status, done, segment_build(table, live, live_count, &segment, &arena, err));
    }
    memtable_ids ids = {.memtable = memtable, .count = count};
    commit_request request = {
        .operation = "WRITE",
        .segments = &segment,
        .segment_count = live_count > 0 ? 1 : 0,
        .ids = {.restart = ids_restart, .next = ids_next, .context = &ids},
        .sequence = vexi_memtable_sequence(memtable),
        .flushed_count = 1,
    };
    uint64_t sequence = request.sequence;
    status = table_commit(table, &request, err);
    if (live_count > 0 && request.unnamed) {
        segment_discard(table, &segment);
    }
    if (status != VEX_OK) {
        goto done;
    }
    pthread_mutex_lock(&table->state_lock);
    table->flush_count++;
    table->last_error[0] = '\0';
    pthread_mutex_unlock(&table->state_lock);
    if (table->lake->wal != NULL) {
        vexi_wal_committed(table->lake->wal, table->uuid, sequence);
    }
done:
    vexi_segment_release(segment.segment);
    vexi_free(env, rows);
    vexi_free(env, live);
    vexi_arena_deinit(&arena);
    return status;
}

/* Flush what is sealed, and with `all` the active memtable too. Commit lock. */
static vex_status flush_locked(vexi_table *table, bool all, vex_error *err) {
    for (;;) {
        pthread_mutex_lock(&table->state_lock);
        vex_status status = VEX_OK;
        if (all && table->sealed_count < TABLE_SEALED_MAX) {
            status = table_seal(table, err);
            all = false;
        }
        size_t sealed_count = table->sealed_count;
        bool dropped = table->dropped;
        pthread_mutex_unlock(&table->state_lock);
        VEX_TRY(status);
        if (dropped || sealed_count == 0) {
            return VEX_OK;
        }
        VEX_TRY(flush_oldest(table, err));
    }
}

vex_status vexi_table_flush(vexi_table *table, vex_error *err) {
    if (table->lake->config.read_only) {
        return vexi_fail(err, VEX_READ_ONLY, "the lake is opened read-only");
    }
    pthread_mutex_lock(&table->commit_lock);
    vex_status status = flush_locked(table, true, err);
    if (status == VEX_OK) {
        status = table_refresh(table, err);
    }
    pthread_mutex_unlock(&table->commit_lock);
    return status;
}

vex_status table_flush_sealed(vexi_table *table, vex_error *err) {
    vex_status status = VEX_OK;
    pthread_mutex_lock(&table->commit_lock);
    for (;;) {
        pthread_mutex_lock(&table->state_lock);
        bool lags = !table->dropped && table->sealed_count > TABLE_SEALED_WAIT;
        pthread_mutex_unlock(&table->state_lock);
        if (!lags || status != VEX_OK) {
            break;
        }
        status = flush_oldest(table, err);
    }
    pthread_mutex_unlock(&table->commit_lock);
    return status;
}

/* The background task: what is full, and what is old. */
void flush_run(void *argument) {
    vexi_table *table = argument;
    const vexi_env *env = table->core->env;
    uint64_t interval_ns = (uint64_t)table->lake->config.flush_interval_ms * 1000000u;
    pthread_mutex_lock(&table->state_lock);
    bool any = table->active.memtable != NULL && vexi_memtable_count(table->active.memtable) > 0;
    bool old =
        any && (table->flush_now || vexi_monotonic_ns(env) - table->active_since_ns >= interval_ns);
    table->flush_now = false;
    pthread_mutex_unlock(&table->state_lock);
    vex_error error;
    pthread_mutex_lock(&table->commit_lock);
    vex_status status = flush_locked(table, old, &error);
    pthread_mutex_unlock(&table->commit_lock);
    if (__atomic_load_n(&table->lake->closing, __ATOMIC_RELAXED)) {
        return;
    }
    if (status != VEX_OK) {
        table_note_error(table, &error);
        /* What failed may be mended: a full disk. */
        vexi_submit(env, &table->flush_task, 1000u << table->flush_failures);
        table->flush_failures += table->flush_failures < RETRY_SHIFT_MAX ? 1 : 0;
        return;
    }
    table->flush_failures = 0;
    pthread_mutex_lock(&table->state_lock);
    any = !table->dropped && table->active.memtable != NULL &&
          vexi_memtable_count(table->active.memtable) > 0;
    uint64_t age_ns = any ? vexi_monotonic_ns(env) - table->active_since_ns : 0;
    pthread_mutex_unlock(&table->state_lock);
    if (any) {
        uint64_t left_ns = age_ns < interval_ns ? interval_ns - age_ns : 0;
        vexi_submit(env, &table->flush_task, (uint32_t)(left_ns / 1000000u) + 1);
    }
}
