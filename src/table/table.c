/* Tables: one collection's memtables and segments, and the path of a write through the log. */
#include "table/table_internal.h"

#include <stdio.h>

#include "base/bitmap.h"
#include "base/checksum.h"
#include "table/segment_graph.h"

/* A log record may be VEXI_WAL_RECORD_SIZE_MAX; a write is cut into parts of about this size. */
enum { WRITE_PART_ROWS = 1 << 19, WRITE_PART_SIZE = 16 << 20, WRITE_BUFFER_SIZE_MAX = 256 << 20 };

void table_retain(vexi_table *table) {
    __atomic_add_fetch(&table->references, 1, __ATOMIC_RELAXED);
}

void vexi_table_release(vexi_table *table) {
    if (table == NULL || __atomic_sub_fetch(&table->references, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    const vexi_env *env = table->core->env;
    vexi_view_release(table->cached);
    table_segments_free(env, table->segments, table->segment_count);
    for (size_t i = 0; i < table->sealed_count; i++) {
        vexi_bits_release(table->sealed[i].hidden);
        vexi_memtable_release(table->sealed[i].memtable);
    }
    vexi_bits_release(table->active.hidden);
    vexi_memtable_release(table->active.memtable);
    lake_log_destroy(env, table->log);
    vexi_delta_state_deinit(&table->delta);
    vexi_schema_box_release(table->schema);
    pthread_mutex_destroy(&table->commit_lock);
    pthread_mutex_destroy(&table->view_lock);
    pthread_mutex_destroy(&table->state_lock);
    pthread_cond_destroy(&table->flushed);
    vexi_free(env, table->center);
    vexi_free(env, table->name);
    vexi_free(env, table->folder);
    vexi_core *core = table->core;
    vexi_free(env, table);
    vexi_core_release(core);
}

static char *text_copy(const vexi_env *env, const char *data, size_t size) {
    char *copy = vexi_alloc(env, size + 1);
    if (copy != NULL) {
        memcpy(copy, data, size);
        copy[size] = '\0';
    }
    return copy;
}

vex_status table_create(vexi_lake *lake, vex_string name, const char *folder,
                        vexi_delta_state *delta, vexi_table **out, vex_error *err) {
    *out = NULL;
    const vexi_env *env = lake->core->env;
    vexi_table *table = vexi_calloc(env, 1, sizeof *table);
    if (table == NULL) {
        return vexi_no_memory(err, sizeof *table);
    }
    table->references = 1;
    table->lake = lake;
    table->core = vexi_core_retain(lake->core);
    table->version = -1;
    table->flush_task = (vexi_task){.run = flush_run, .argument = table};
    pthread_mutex_init(&table->commit_lock, NULL);
    pthread_mutex_init(&table->view_lock, NULL);
    pthread_mutex_init(&table->state_lock, NULL);
    pthread_cond_init(&table->flushed, NULL);
    vexi_delta_state_init(&table->delta, env);
    table->name = text_copy(env, name.data, name.size);
    table->folder = text_copy(env, folder, strlen(folder));
    vex_status status =
        table->name == NULL || table->folder == NULL ? vexi_no_memory(err, name.size) : VEX_OK;
    if (status == VEX_OK && lake->config.shared) {
        status = lake_log_create(env, &table->log, err);
    }
    if (status == VEX_OK &&
        (delta->metadata.id.size != VEXI_WAL_UUID_SIZE || delta->metadata.schema.dimension == 0)) {
        status = vexi_fail(err, VEX_UNSUPPORTED,
                           "'%s' is a Delta table, but not a VexLake collection", folder);
    }
    if (status == VEX_OK) {
        status = vexi_schema_box_create(env, &delta->metadata.schema, &table->schema, err);
    }
    if (status == VEX_OK) {
        memcpy(table->uuid, delta->metadata.id.data, VEXI_WAL_UUID_SIZE);
        table->dropped = delta->dropped;
        table->delta = *delta;
        vexi_delta_state_init(delta, env);
        pthread_mutex_lock(&table->commit_lock);
        bool near = (vexi_store_flags(lake->core->store) & VEXI_STORE_CAN_MAP) != 0;
        status = near ? table_refresh(table, err) : table_show(table, err);
        pthread_mutex_unlock(&table->commit_lock);
    }
    if (status != VEX_OK) {
        vexi_table_release(table);
        return status;
    }
    *out = table;
    return VEX_OK;
}

void table_log_app_id(const vexi_table *table, char out[64]) {
    if (table->log != NULL) {
        snprintf(out, 64, "vexlake-log-%s", table->uuid);
    } else {
        snprintf(out, 64, "%s", table->lake->wal_uuid);
    }
}

const vexi_schema *vexi_table_schema(const vexi_table *table) {
    return &table->schema->schema;
}

void table_note_error(vexi_table *table, const vex_error *error) {
    vexi_log(table->core->env, 3, "%s: %s", table->name, error->message);
    pthread_mutex_lock(&table->state_lock);
    snprintf(table->last_error, sizeof table->last_error, "%.255s", error->message);
    pthread_mutex_unlock(&table->state_lock);
}

vex_status vexi_table_describe(vexi_table *table, vex_collection_info *out, vex_error *err) {
    memset(out, 0, sizeof *out);
    vexi_view *view;
    VEX_TRY(vexi_table_view(table, &view, err));
    const vexi_schema *schema = view->schema;
    out->dimension = schema->dimension;
    out->metric = schema->metric;
    out->index = schema->index;
    out->column_count = schema->column_count;
    out->recall = vexi_schema_recall(schema);
    out->bits = vexi_schema_bits(schema);
    out->row_count = view->live_count;
    for (size_t i = 0; i < view->source_count; i++) {
        const vexi_source *source = &view->sources[i];
        if (source->memtable != NULL) {
            out->memtable_row_count += source->row_count;
            out->memtable_size_bytes += vexi_memtable_size_bytes(source->memtable);
            continue;
        }
        out->segment_count++;
        out->segment_row_count += source->row_count;
        /* What is hidden in a segment whose deletion vector cannot be read, nobody knows; but the
         * log tells how many rows it deletes. */
        uint64_t told = source->hidden_count == 0 ? vexi_segment_deleted_told(source->segment) : 0;
        told = told < source->row_count ? told : source->row_count;
        out->row_count -= told;
        out->segment_deleted_count += source->hidden_count + told;
        out->segment_size_bytes += vexi_segment_size_bytes(source->segment);
        out->index_size_bytes += vexi_segment_index_size_bytes(source->segment);
        bool damaged = vexi_segment_check(source->segment, NULL) != VEX_OK;
        uint64_t graph_size = vexi_segment_graph_size_bytes(source->segment);
        out->damaged_segment_count += damaged ? 1 : 0;
        out->unindexed_segment_count +=
            !damaged && vexi_segment_is_foreign(source->segment) ? 1 : 0;
        out->graph_count += graph_size > 0 ? 1 : 0;
        out->graph_size_bytes += graph_size;
        if (schema->index == VEX_INDEX_HNSW && graph_size == 0) {
            out->graph_missing_count += vexi_segment_graph_wanted(source->segment) ? 1 : 0;
        }
    }
    for (uint32_t c = 0; c < schema->column_count; c++) {
        memcpy(out->columns[c].name, schema->columns[c].name.data, schema->columns[c].name.size);
        out->columns[c].type = schema->columns[c].type;
    }
    vexi_view_release(view);
    memcpy(out->uuid, table->uuid, sizeof table->uuid);
    out->is_written_here = table_owned(table);
    if (!out->is_written_here && table->log != NULL &&
        __atomic_load_n(&table->log->followed, __ATOMIC_ACQUIRE)) {
        uint64_t now_ns = vexi_monotonic_ns(table->core->env);
        uint64_t known_ns = __atomic_load_n(&table->log->followed_ns, __ATOMIC_RELAXED);
        out->follow_age_ns = now_ns > known_ns ? now_ns - known_ns : 1;
    }
    pthread_mutex_lock(&table->state_lock);
    out->version = table->version;
    out->flush_count = table->flush_count;
    snprintf(out->last_error, sizeof out->last_error, "%s", table->last_error);
    bool waiting = table->sealed_count > 0 || (table->active.memtable != NULL &&
                                               vexi_memtable_count(table->active.memtable) > 0);
    if (waiting) {
        uint64_t now_ns = vexi_monotonic_ns(table->core->env);
        uint64_t since_ns =
            table->sealed_count > 0 ? table->sealed[0].since_ns : table->active_since_ns;
        out->memtable_age_ns = now_ns > since_ns ? now_ns - since_ns : 1;
    }
    pthread_mutex_unlock(&table->state_lock);
    return VEX_OK;
}

/* ---- Memtables --------------------------------------------------------------------------------
 */

static vex_status active_need(vexi_table *table, vex_error *err) {
    if (table->active.memtable == NULL) {
        VEX_TRY(vexi_memtable_create(table->schema, table->center, table->center_row_length,
                                     &table->active.memtable, err));
        table->active.resolved = 0;
        table->active.hidden = NULL;
    }
    return VEX_OK;
}

vex_status table_reserve(vexi_table *table, uint64_t row_count, vex_error *err) {
    VEX_TRY(active_need(table, err));
    VEX_TRY(vexi_memtable_reserve(
        table->active.memtable,
        vexi_memtable_count(table->active.memtable) + table->reserved_rows + row_count, err));
    table->reserved_rows += row_count;
    return VEX_OK;
}

vex_status table_seal(vexi_table *table, vex_error *err) {
    if (table->active.memtable == NULL || vexi_memtable_count(table->active.memtable) == 0) {
        return VEX_OK;
    }
    if (table->sealed_count == TABLE_SEALED_MAX) {
        return vexi_fail(err, VEX_MEMORY, "'%s': flushing does not keep up with writing",
                         table->name);
    }
    vexi_memtable *fresh;
    VEX_TRY(
        vexi_memtable_create(table->schema, table->center, table->center_row_length, &fresh, err));
    vex_status status = vexi_memtable_reserve(fresh, table->reserved_rows, err);
    if (status != VEX_OK) {
        vexi_memtable_release(fresh);
        return status;
    }
    table->active.since_ns = table->active_since_ns;
    table->sealed[table->sealed_count++] = table->active;
    table->active = (table_memtable){.memtable = fresh};
    table->changes++;
    return VEX_OK;
}

void table_append(vexi_table *table, vexi_row_block *block, uint64_t first_sequence) {
    vexi_memtable *active = table->active.memtable;
    bool first = vexi_memtable_count(active) == 0;
    size_t before = vexi_memtable_size_bytes(active);
    VEX_ASSERT(table->reserved_rows >= block->count);
    table->reserved_rows -= block->count;
    if (first) {
        table->active_since_ns = vexi_monotonic_ns(table->core->env);
    }
    vexi_memtable_append(active, block, first_sequence);
    size_t after = vexi_memtable_size_bytes(active);
    __atomic_add_fetch(&table->lake->memory_bytes, after - before, __ATOMIC_RELAXED);
    const vexi_lake_config *config = &table->lake->config;
    if (table->log != NULL ? !table_owned(table) : table->lake->wal == NULL) {
        return; /* replay: recovery decides itself what to flush; what others wrote they flush */
    }
    if (after >= config->flush_size_bytes) {
        /* If there is no memory for a new memtable this one goes on growing. */
        if (table_seal(table, NULL) == VEX_OK) {
            vexi_submit(table->core->env, &table->flush_task, 0);
        }
    } else if (first) {
        vexi_submit(table->core->env, &table->flush_task, config->flush_interval_ms);
    }
}

/* ---- Writing ----------------------------------------------------------------------------------
 */

/* What deletes found out before they went to the log. A delete writes no record for an id that is
 * not there, and must know at the moment it is applied which were: between the two another write
 * may come. Looking into segments is slow where there are many, so it happens once, without a lock,
 * and counts as long as the table has the same segments. */
typedef struct delete_findings {
    const bool *in_segment; /* per record: live in a segment, whatever memtables say */
    uint8_t *existed;       /* per record: set when the delete is applied */
    uint64_t segment_lists; /* of the table when in_segment was found out */
} delete_findings;

typedef struct table_write {
    vexi_wal_write write; /* first */
    vexi_table *table;
    vexi_row_block *block;
    const delete_findings *findings; /* NULL: not a delete */
    bool dropped;
} table_write;

/* The newest word of the memtables on an id: *known is false if they have none. State lock. */
static bool memtables_say(const vexi_table *table, vex_string id, uint64_t hash, bool *live) {
    uint64_t row;
    for (size_t m = table->sealed_count + 1; m-- > 0;) {
        vexi_memtable *memtable =
            m == table->sealed_count ? table->active.memtable : table->sealed[m].memtable;
        if (memtable != NULL &&
            vexi_memtable_find(memtable, id, hash, vexi_memtable_count(memtable), &row)) {
            *live = !vexi_memtable_is_tombstone(memtable, row);
            return true;
        }
    }
    return false;
}

/* On failure *failed is the segment that cannot tell. */
static vex_status segments_hold(const table_segment *segments, size_t count, vex_string id,
                                uint64_t hash, bool *live, size_t *failed, vex_error *err) {
    *live = false;
    for (size_t i = count; i-- > 0 && !*live;) {
        bool found;
        uint64_t row;
        *failed = i;
        VEX_TRY(vexi_segment_find(segments[i].segment, id, hash, &found, &row, err));
        *live = found && !vexi_bits_get(segments[i].deleted, row);
    }
    return VEX_OK;
}

/* Whether record i of a delete removes a row that is there now. State lock. */
static bool delete_hits(const vexi_table *table, const delete_findings *findings, size_t i,
                        vex_string id) {
    uint64_t hash = vexi_hash64(id.data, id.size);
    bool live;
    size_t failed;
    if (memtables_say(table, id, hash, &live)) {
        return live;
    }
    if (findings->segment_lists == table->segment_lists) {
        return findings->in_segment[i];
    }
    /* A segment that fails only now: the row was there when the delete began. */
    return segments_hold(table->segments, table->segment_count, id, hash, &live, &failed, NULL) !=
               VEX_OK ||
           live;
}

static void write_apply(vexi_wal_write *wal_write, uint64_t first_sequence) {
    table_write *write = (table_write *)wal_write;
    vexi_table *table = write->table;
    vexi_memtable *filled = NULL;
    pthread_mutex_lock(&table->state_lock);
    if (table->dropped) {
        /* Its log records name a metaData.id that no longer counts. */
        write->dropped = true;
        table->reserved_rows -= write->block->count;
    } else {
        vexi_row_block *block = write->block;
        for (size_t i = 0; write->findings != NULL && i < block->count; i++) {
            write->findings->existed[i] =
                delete_hits(table, write->findings, i, block->rows[i].id) ? 1 : 0;
        }
        filled = table->active.memtable;
        vexi_memtable_retain(filled);
        table_append(table, block, first_sequence);
        write->block = NULL;
    }
    pthread_mutex_unlock(&table->state_lock);
    if (filled != NULL) {
        /* Readers need not wait for the codes, nor other tables' lock; only this log group does. */
        vexi_memtable_encode(filled);
        vexi_memtable_release(filled);
    }
}

/* A drop was answered with a failure, or an import on a shared store: nothing is acknowledged
 * before the log has told whether it happened. On a shared store its commit may still be on its
 * way: it cannot land any more once its version is taken. */
static vex_status write_settle(vexi_table *table, vex_error *err) {
    pthread_mutex_lock(&table->commit_lock);
    vex_status status = table->log != NULL ? table_take_version(table, err) : VEX_OK;
    if (status == VEX_OK) {
        status = table_refresh(table, err);
    }
    if (status == VEX_OK) {
        pthread_mutex_lock(&table->state_lock);
        table->doubtful = false;
        pthread_mutex_unlock(&table->state_lock);
    }
    pthread_mutex_unlock(&table->commit_lock);
    return status == VEX_OK
               ? status
               : vexi_prefix(err, status, "write refused, an earlier change of '%s' is in doubt",
                             table->name);
}

/* The same where it is needed. */
static vex_status write_certain(vexi_table *table, vex_error *err) {
    pthread_mutex_lock(&table->state_lock);
    bool doubtful = table->doubtful && !table->dropped;
    pthread_mutex_unlock(&table->state_lock);
    return doubtful ? write_settle(table, err) : VEX_OK;
}

/* Make room: when memtables take more than their limit, or flushing lags, the writer flushes. Of
 * several writers that wait here the first does the work of all; where somebody flushes already,
 * none does. */
static vex_status write_admit(vexi_table *table, vex_error *err) {
    vexi_lake *lake = table->lake;
    if (lake->config.read_only) {
        return vexi_fail(err, VEX_READ_ONLY, "the lake is opened read-only");
    }
    if (table->log != NULL) {
        VEX_TRY(table_claim(table, err));
        __atomic_store_n(&table->log->used_ns, vexi_monotonic_ns(lake->core->env),
                         __ATOMIC_RELAXED);
    }
    pthread_mutex_lock(&table->state_lock);
    bool lags = table->sealed_count > TABLE_SEALED_WAIT;
    pthread_mutex_unlock(&table->state_lock);
    VEX_TRY(write_certain(table, err));
    if (!lags && !lake_is_full(lake)) {
        return VEX_OK;
    }
    vex_error cause;
    vex_status status = lags ? table_flush_sealed(table, &cause) : lake_make_room(lake, &cause);
    if (status == VEX_OK) {
        return VEX_OK;
    }
    if (!lake_is_full(lake)) {
        pthread_mutex_lock(&table->state_lock);
        lags = table->sealed_count >= TABLE_SEALED_MAX;
        pthread_mutex_unlock(&table->state_lock);
        if (!lags) {
            return VEX_OK;
        }
    }
    return vexi_fail(err, status == VEX_FULL ? VEX_FULL : VEX_MEMORY,
                     "write refused: memtables are full and cannot be flushed: %s", cause.message);
}

/* Log one part and wait. ids or rows. */
static vex_status write_part(vexi_table *table, const vexi_row *rows, const vex_string *ids,
                             size_t count, const delete_findings *findings, vex_error *err) {
    const vexi_env *env = table->core->env;
    const vexi_schema *schema = &table->schema->schema;
    table_write write = {.table = table, .findings = findings};
    VEX_TRY(vexi_row_block_create(env, schema, rows, ids, count, &write.block, err));
    vexi_buffer_init(&write.write.records, env, WRITE_BUFFER_SIZE_MAX);
    vexi_wal_record record = {
        .kind = rows != NULL ? VEXI_WAL_PUT : VEXI_WAL_DELETE,
        .dimension = rows != NULL ? schema->dimension : 0,
        .columns = schema->columns,
    };
    memcpy(record.collection, table->uuid, sizeof record.collection);
    vex_status status = VEX_OK;
    for (size_t i = 0; i < count && status == VEX_OK; i++) {
        record.row = rows != NULL ? rows[i] : (vexi_row){.id = ids[i]};
        record.cell_count = record.row.cells != NULL ? schema->column_count : 0;
        size_t offset;
        status = vexi_wal_record_write(&record, &write.write.records, &offset, err);
    }
    if (status == VEX_OK) {
        pthread_mutex_lock(&table->state_lock);
        status = table->dropped ? vexi_fail(err, VEX_NOT_FOUND, "no collection '%s'", table->name)
                                : table_reserve(table, count, err);
        pthread_mutex_unlock(&table->state_lock);
    }
    if (status == VEX_OK) {
        write.write.record_count = count;
        write.write.apply = write_apply;
        memcpy(write.write.collection, table->uuid, sizeof write.write.collection);
        status = table->log != NULL ? lake_log_commit(table, &write.write, err)
                                    : vexi_wal_commit(table->lake->wal, &write.write, err);
        if (status == VEX_OK && write.dropped) {
            /* Its records came into the log behind the drop: they keep no file. */
            table_log_committed(table, UINT64_MAX);
            status = vexi_fail(err, VEX_NOT_FOUND, "no collection '%s'", table->name);
        } else if (status != VEX_OK) {
            pthread_mutex_lock(&table->state_lock);
            table->reserved_rows -= count;
            pthread_mutex_unlock(&table->state_lock);
        }
    }
    vexi_buffer_deinit(&write.write.records);
    vexi_row_block_destroy(env, write.block);
    return status;
}

void table_log_committed(vexi_table *table, uint64_t sequence) {
    if (table->log != NULL) {
        lake_log_committed(table, sequence);
    } else if (table->lake->wal != NULL) {
        vexi_wal_committed(table->lake->wal, table->uuid, sequence);
    }
}

vex_status table_log_settle(vexi_table *table, vex_error *err) {
    return table->log != NULL ? lake_log_settle(table, err)
                              : vexi_wal_settle(table->lake->wal, err);
}

static size_t row_size(const vexi_schema *schema, const vexi_row *row) {
    size_t size = 256 + row->id.size + schema->dimension * sizeof(float) + row->attributes.size +
                  row->payload.size;
    for (uint32_t c = 0; row->cells != NULL && c < schema->column_count; c++) {
        size += 16 + schema->columns[c].name.size +
                (schema->columns[c].type == VEX_TYPE_STRING && !row->cells[c].is_null
                     ? row->cells[c].as.string.size
                     : 0);
    }
    return size;
}

vex_status vexi_table_put(vexi_table *table, const vexi_row *rows, size_t count, vex_error *err) {
    const vexi_schema *schema = &table->schema->schema;
    for (size_t i = 0; i < count; i++) {
        /* Before the first part: a batch with a row that no record can hold stores nothing. */
        size_t size = row_size(schema, &rows[i]);
        if (size > VEXI_WAL_RECORD_SIZE_MAX) {
            return vexi_fail_row(err, VEX_LIMIT, (int64_t)i,
                                 "row %zu has %zu bytes; at most %d are possible", i, size,
                                 VEXI_WAL_RECORD_SIZE_MAX);
        }
    }
    while (count > 0) {
        VEX_TRY(write_admit(table, err));
        size_t part = 0;
        size_t size = 0;
        while (part < count && size < WRITE_PART_SIZE && part < WRITE_PART_ROWS) {
            size += row_size(schema, &rows[part++]);
        }
        VEX_TRY(write_part(table, rows, NULL, part, NULL, err));
        rows += part;
        count -= part;
    }
    return VEX_OK;
}

/* ---- Deleting ---------------------------------------------------------------------------------
 */

enum { DELETE_PART = 512 };

/* Some ids of a delete: those that are there, each once. */
typedef struct delete_part {
    vex_string ids[DELETE_PART];
    uint64_t hashes[DELETE_PART];
    bool in_segment[DELETE_PART];
    uint8_t existed[DELETE_PART];
    size_t places[DELETE_PART]; /* in the caller's ids */
    size_t count;
    uint64_t segment_lists;
} delete_part;

vex_status table_segments_share(const vexi_table *table, table_segment **out, vex_error *err) {
    *out = vexi_calloc(table->core->env, table->segment_count + 1, sizeof **out);
    if (*out == NULL) {
        return vexi_no_memory(err, table->segment_count * sizeof **out);
    }
    for (size_t i = 0; i < table->segment_count; i++) {
        (*out)[i].segment = vexi_segment_retain(table->segments[i].segment);
        (*out)[i].deleted = vexi_bits_retain(table->segments[i].deleted);
    }
    return VEX_OK;
}

/* Take up to DELETE_PART of the ids without repeats; *taken receives how many were looked at. */
static void part_take(delete_part *part, const vex_string *ids, size_t count, size_t *taken) {
    part->count = 0;
    *taken = 0;
    for (; *taken < count && part->count < DELETE_PART; *taken += 1) {
        vex_string id = ids[*taken];
        uint64_t hash = vexi_hash64(id.data, id.size);
        bool again = false;
        for (size_t i = 0; i < part->count && !again; i++) {
            again = part->hashes[i] == hash && vexi_string_equal(part->ids[i], id);
        }
        if (!again) {
            part->ids[part->count] = id;
            part->hashes[part->count] = hash;
            part->places[part->count++] = *taken;
        }
    }
}

/* Keep the ids of the part that are there now, as of one moment. Segments are asked without a lock:
 * readers and other writers go on. *damaged (a reference) is the segment that could not tell. */
static vex_status part_look_up_once(vexi_table *table, delete_part *part, vexi_segment **damaged,
                                    vex_error *err) {
    *damaged = NULL;
    bool said[DELETE_PART];
    bool live[DELETE_PART];
    bool all_said = true;
    table_segment *segments = NULL;
    vex_status status = VEX_OK;
    pthread_mutex_lock(&table->state_lock);
    size_t segment_count = table->segment_count;
    part->segment_lists = table->segment_lists;
    if (table->dropped) {
        status = vexi_fail(err, VEX_NOT_FOUND, "no collection '%s'", table->name);
    }
    for (size_t i = 0; status == VEX_OK && i < part->count; i++) {
        live[i] = false;
        said[i] = memtables_say(table, part->ids[i], part->hashes[i], &live[i]);
        all_said = all_said && said[i];
    }
    if (status == VEX_OK && !all_said && segment_count > 0) {
        status = table_segments_share(table, &segments, err);
    }
    pthread_mutex_unlock(&table->state_lock);
    size_t kept = 0;
    for (size_t i = 0; status == VEX_OK && i < part->count; i++) {
        part->in_segment[i] = false;
        if (!said[i] && segments != NULL) {
            size_t failed;
            status = segments_hold(segments, segment_count, part->ids[i], part->hashes[i], &live[i],
                                   &failed, err);
            if (status != VEX_OK) {
                *damaged = vexi_segment_retain(segments[failed].segment);
                break;
            }
            part->in_segment[i] = live[i];
        }
    }
    for (size_t i = 0; status == VEX_OK && i < part->count; i++) {
        if (live[i]) {
            part->ids[kept] = part->ids[i];
            part->in_segment[kept] = part->in_segment[i];
            part->places[kept++] = part->places[i];
        }
    }
    part->count = status == VEX_OK ? kept : part->count;
    if (segments != NULL) {
        table_segments_free(table->core->env, segments, segment_count);
    }
    return status;
}

static vex_status part_look_up(vexi_table *table, delete_part *part, vex_error *err) {
    for (;;) {
        vex_error damage;
        vexi_segment *damaged;
        vex_status status = part_look_up_once(table, part, &damaged, &damage);
        if (damaged != NULL) {
            /* An index file that failed its checksum: its rows are still told by the Parquet file.
             * Each round mends one segment, or ends. */
            vex_status mended = table_mend(table, damaged, &damage, err);
            vexi_segment_release(damaged);
            if (mended == VEX_OK) {
                continue;
            }
            return mended;
        }
        if (status != VEX_OK && err != NULL) {
            *err = damage;
        }
        return status;
    }
}

vex_status vexi_table_delete(vexi_table *table, const vex_string *ids, size_t count,
                             uint8_t *existed, vex_error *err) {
    if (existed != NULL) {
        memset(existed, 0, count);
    }
    if (table->lake->config.read_only) {
        return vexi_fail(err, VEX_READ_ONLY, "the lake is opened read-only");
    }
    /* Ids that are not there need no record: that they were absent when looked up is an answer. But
     * a row whose put had an unknown outcome must not come after it, nor may another node have
     * written meanwhile, which a record's put would tell. */
    if (table->log != NULL) { /* who else may write knows what is there */
        VEX_TRY(table_claim(table, err));
    }
    VEX_TRY(write_certain(table, err));
    VEX_TRY(table_log_settle(table, err));
    size_t taken;
    bool unsure = false;
    for (size_t done = 0; done < count; done += taken) {
        delete_part part;
        part_take(&part, ids + done, count - done, &taken);
        VEX_TRY(part_look_up(table, &part, err));
        unsure = part.count == 0;
        if (unsure) {
            continue;
        }
        VEX_TRY(write_admit(table, err));
        delete_findings findings = {.in_segment = part.in_segment,
                                    .existed = part.existed,
                                    .segment_lists = part.segment_lists};
        VEX_TRY(write_part(table, NULL, part.ids, part.count, &findings, err));
        for (size_t i = 0; existed != NULL && i < part.count; i++) {
            existed[done + part.places[i]] = part.existed[i];
        }
    }
    return table->log != NULL && unsure ? lake_log_confirm(table, err) : VEX_OK;
}
