/* Recovery: from what lies in the store to a running lake.
 *
 *     lock ─► format ─► tables (Delta logs, segments) ─► replay of the log ─► a new log file
 *
 * Replay appends to the memtables what the newest commit of each table lacks: records of its
 * metaData.id with a sequence number above its txn. Damage in bytes that were acknowledged is
 * VEX_CORRUPT; a torn tail is what a crash leaves and is cut off by the header of the new file.
 *
 * The writer before may have been killed between a write and its sync. What this one finds and
 * builds on (the newest commit of each table, the newest log file) it makes durable first: else a
 * power failure could take it back, and log files deleted on its word would be missed.
 *
 * A read-only lake does the same without writing. The writer may commit and delete log files
 * meanwhile, so it looks again at the end, and starts over if anything moved. */
#include "table/table_internal.h"

#include <stdio.h>

#include "format/lake_format.h"

enum { LOG_FILE_SIZE_MAX = 2000000000, READ_ONLY_ATTEMPTS = 10 };

static const char wal_prefix[] = ".vexlake/wal/";

typedef struct log_file {
    uint64_t number;
    uint64_t size;
    const char *name;
    vexi_wal_header header;
    bool valid;     /* the header is */
    uint64_t cut;   /* bytes that count, by a later header; UINT64_MAX: not told */
    uint64_t whole; /* bytes that were replayed */
    vexi_wal_old_file old;
    size_t entry_capacity;
} log_file;

typedef struct recovery {
    vexi_lake *lake;
    vexi_arena arena;
    log_file *files;
    size_t file_count;
    uint64_t sequence_max;
    bool skipped_tables; /* some folder could not be opened as a collection */
    vexi_table *last;    /* of the last record */
} recovery;

/* ---- Tables -----------------------------------------------------------------------------------
 */

/* The commits of a table. VEX_NOT_FOUND: there are none. */
static vex_status load_commits(vexi_lake *lake, const char *folder, vexi_arena *arena,
                               vexi_delta_state *delta, vex_error *err) {
    if ((vexi_store_flags(lake->core->store) & VEXI_STORE_CAN_MAP) == 0) {
        return commit_load(lake->core, folder, delta, err);
    }
    size_t size = strlen(folder) + 64;
    char *first = vexi_arena_alloc(arena, size);
    if (first == NULL) {
        return vexi_no_memory(err, size);
    }
    char commit_name[26];
    vexi_delta_commit_name(0, commit_name);
    snprintf(first, size, "%s/data/_delta_log/%s", folder, commit_name);
    uint64_t first_size;
    VEX_TRY(vexi_store_size(lake->core->store, first, &first_size, err));
    return commit_refresh(lake->core, folder, delta, err);
}

/* The table in a folder; NULL: it is not ours, or (*skipped) made by something newer. */
static vex_status open_table(vexi_lake *lake, const char *folder, vexi_arena *arena,
                             vexi_table **out, bool *skipped, vex_error *err) {
    vex_string name;
    *out = NULL;
    vex_status named = vexi_folder_parse(folder, arena, &name, err);
    if (named != VEX_OK) {
        return named == VEX_MEMORY ? named : VEX_OK; /* not ours */
    }
    vexi_delta_state delta;
    vexi_delta_state_init(&delta, lake->core->env);
    vex_status status = load_commits(lake, folder, arena, &delta, err);
    if (status == VEX_NOT_FOUND) {
        vexi_delta_state_deinit(&delta);
        return VEX_OK;
    }
    if (status == VEX_OK && !lake->config.read_only) {
        status = commit_settle(lake->core, folder, delta.version, err);
    }
    if (status == VEX_OK) {
        status = table_create(lake, name, folder, &delta, out, err);
    }
    vexi_delta_state_deinit(&delta);
    if (status == VEX_UNSUPPORTED) {
        vexi_log(lake->core->env, 2, "folder %s is left alone: %s", folder,
                 err == NULL ? "not supported" : err->message);
        *skipped = true;
        return VEX_OK;
    }
    return status;
}

/* The table is taken. */
static vex_status add_table(vexi_lake *lake, vexi_table *table, vex_error *err) {
    vex_status status = table == NULL ? VEX_OK : lake_add_table(lake, table, err);
    if (status != VEX_OK) {
        vexi_table_release(table);
    }
    return status;
}

vex_status lake_load_table(vexi_lake *lake, const char *folder, vexi_arena *arena, bool *skipped,
                           vex_error *err) {
    vexi_table *table;
    VEX_TRY(open_table(lake, folder, arena, &table, skipped, err));
    return add_table(lake, table, err);
}

/* Tables side by side, as many as there are threads: what one waits for, the others use. */
typedef struct load_job {
    vexi_lake *lake;
    struct loaded_table {
        const char *folder;
        vexi_table *table;
        bool skipped;
        vex_status status;
        vex_error err;
    } * tables;
} load_job;

static void load_run(void *argument, size_t i) {
    load_job *job = argument;
    struct loaded_table *one = &job->tables[i];
    vexi_arena arena;
    vexi_arena_init(&arena, job->lake->core->env);
    one->status = open_table(job->lake, one->folder, &arena, &one->table, &one->skipped, &one->err);
    vexi_arena_deinit(&arena);
}

static vex_status load_tables(recovery *r, vex_error *err) {
    vexi_listing listing;
    VEX_TRY(vexi_store_list(r->lake->core->store, "", NULL, true, &r->arena, &listing, err));
    load_job job = {.lake = r->lake};
    size_t count = 0;
    vex_status status = VEX_OK;
    job.tables = vexi_arena_calloc(&r->arena, listing.count, sizeof *job.tables);
    if (job.tables == NULL) {
        return vexi_no_memory(err, listing.count * sizeof *job.tables);
    }
    for (size_t i = 0; i < listing.count; i++) {
        size_t size = strlen(listing.entries[i].name);
        if (!listing.entries[i].is_folder || listing.entries[i].name[0] == '.' || size < 2) {
            continue;
        }
        char *folder = vexi_arena_copy(&r->arena, listing.entries[i].name, size - 1);
        if (folder == NULL) {
            return vexi_no_memory(err, size);
        }
        job.tables[count++].folder = folder;
    }
    vexi_parallel(r->lake->core->env, count, load_run, &job);
    for (size_t i = 0; i < count; i++) { /* in their order, whatever fails */
        struct loaded_table *one = &job.tables[i];
        r->skipped_tables = r->skipped_tables || one->skipped;
        if (status == VEX_OK && one->status != VEX_OK) {
            status = one->status;
            if (err != NULL) {
                *err = one->err;
            }
        }
        if (status == VEX_OK) {
            status = add_table(r->lake, one->table, err);
        } else {
            vexi_table_release(one->table);
        }
    }
    return status;
}

/* ---- Log files --------------------------------------------------------------------------------
 */

static vex_status log_file_read(recovery *r, log_file *file, uint64_t limit, vexi_mapping *mapping,
                                vexi_span *out, vex_error *err) {
    vexi_store *store = r->lake->core->store;
    *mapping = (vexi_mapping){.data = NULL};
    if ((vexi_store_flags(store) & VEXI_STORE_CAN_MAP) != 0) {
        VEX_TRY(vexi_store_map(store, file->name, mapping, err));
        *out = vexi_span_of(mapping->data, mapping->size);
    } else if (limit < file->size) {
        uint8_t *bytes = vexi_arena_alloc(&r->arena, (size_t)limit);
        if (bytes == NULL) {
            return vexi_no_memory(err, (size_t)limit);
        }
        vexi_range range = {.offset = 0, .size = (size_t)limit, .target = bytes};
        VEX_TRY(vexi_store_get(store, file->name, &range, 1, err));
        *out = vexi_span_of(bytes, (size_t)limit);
    } else {
        VEX_TRY(vexi_store_get_all(store, file->name, LOG_FILE_SIZE_MAX, &r->arena, out, err));
    }
    if (out->size > limit) {
        out->size = (size_t)limit;
    }
    return VEX_OK;
}

/* List the files, read their headers, learn the cuts. */
static vex_status find_files(recovery *r, vex_error *err) {
    vexi_listing listing;
    VEX_TRY(
        vexi_store_list(r->lake->core->store, wal_prefix, NULL, false, &r->arena, &listing, err));
    r->files = vexi_arena_calloc(&r->arena, listing.count, sizeof *r->files);
    if (r->files == NULL) {
        return vexi_no_memory(err, listing.count * sizeof *r->files);
    }
    r->file_count = 0;
    for (size_t i = 0; i < listing.count; i++) {
        const vexi_list_entry *entry = &listing.entries[i];
        unsigned long long number;
        int used = 0;
        if (sscanf(entry->name + sizeof wal_prefix - 1, "%20llu.wal%n", &number, &used) != 1 ||
            entry->name[sizeof wal_prefix - 1 + (size_t)used] != '\0' || used != 24) {
            continue;
        }
        log_file *file = &r->files[r->file_count++];
        file->number = number;
        file->name = entry->name;
        file->size = entry->size_bytes;
        file->cut = UINT64_MAX;
        vexi_mapping mapping;
        vexi_span head;
        VEX_TRY(log_file_read(r, file, VEXI_WAL_HEADER_SIZE, &mapping, &head, err));
        vex_status status = vexi_wal_header_read(head, &file->header, err);
        if (status == VEX_OK && file->header.number != file->number) {
            status = vexi_fail(err, VEX_CORRUPT, "its header names file %llu",
                               (unsigned long long)file->header.number);
        }
        vexi_store_unmap(r->lake->core->store, &mapping);
        if (status == VEX_CORRUPT && file->size <= VEXI_WAL_HEADER_SIZE) {
            continue; /* a crash while it was made: nothing was ever logged in it */
        }
        if (status != VEX_OK) {
            return vexi_prefix(err, status, "%s", file->name);
        }
        file->valid = true;
    }
    /* Listed in byte order, so in order of number. */
    bool named = false;
    for (size_t i = 0; i < r->file_count; i++) {
        log_file *file = &r->files[i];
        if (!file->valid) {
            continue;
        }
        if (!named) {
            memcpy(r->lake->wal_uuid, file->header.uuid, sizeof r->lake->wal_uuid);
            named = true;
        } else if (strcmp(r->lake->wal_uuid, file->header.uuid) != 0) {
            return vexi_fail(err, VEX_CORRUPT, "%s belongs to another log", file->name);
        }
        if (file->header.first_sequence > 0 && file->header.first_sequence - 1 > r->sequence_max) {
            r->sequence_max = file->header.first_sequence - 1;
        }
        for (size_t j = 0; j < i; j++) {
            if (r->files[j].valid && r->files[j].number == file->header.previous_number) {
                r->files[j].cut = file->header.previous_cut;
            }
        }
    }
    if (!named) {
        vexi_random_uuid(r->lake->core->env, r->lake->wal_uuid);
    }
    return VEX_OK;
}

/* ---- Replay -----------------------------------------------------------------------------------
 */

static vexi_table *table_by_uuid(recovery *r, const char *uuid) {
    if (r->last != NULL && strcmp(r->last->uuid, uuid) == 0) {
        return r->last;
    }
    for (size_t i = 0; i < r->lake->table_count; i++) {
        if (strcmp(r->lake->tables[i]->uuid, uuid) == 0) {
            r->last = r->lake->tables[i];
            return r->last;
        }
    }
    return NULL;
}

static vex_status note_entry(recovery *r, log_file *file, const char *uuid, uint64_t sequence,
                             vex_error *err) {
    for (size_t i = file->old.entry_count; i-- > 0;) {
        if (memcmp(file->old.entries[i].collection, uuid, 37) == 0) {
            file->old.entries[i].sequence = sequence;
            return VEX_OK;
        }
    }
    if (file->old.entry_count == file->entry_capacity) {
        size_t capacity = file->entry_capacity * 2 + 4;
        void *entries = vexi_arena_array(&r->arena, capacity, sizeof *file->old.entries);
        if (entries == NULL) {
            return vexi_no_memory(err, capacity * sizeof *file->old.entries);
        }
        if (file->old.entry_count > 0) {
            memcpy(entries, file->old.entries, file->old.entry_count * sizeof *file->old.entries);
        }
        file->old.entries = entries;
        file->entry_capacity = capacity;
    }
    size_t last = file->old.entry_count++;
    memcpy(file->old.entries[last].collection, uuid, 37);
    file->old.entries[last].sequence = sequence;
    return VEX_OK;
}

/* The record's cells in the order of the schema. A schema never changes within a metaData.id, so a
 * difference is damage. */
static vex_status check_cells(const vexi_schema *schema, const vexi_wal_record *record,
                              vex_error *err) {
    bool same = record->cell_count == 0 || record->cell_count == schema->column_count;
    for (uint32_t c = 0; same && c < record->cell_count; c++) {
        same = record->columns[c].type == schema->columns[c].type &&
               vexi_string_equal(record->columns[c].name, schema->columns[c].name);
    }
    if (!same || (record->kind == VEXI_WAL_PUT && record->dimension != schema->dimension)) {
        return vexi_fail(err, VEX_CORRUPT, "record %llu does not fit the collection's schema",
                         (unsigned long long)record->sequence);
    }
    return VEX_OK;
}

static vex_status replay_record(recovery *r, log_file *file, const vexi_wal_record *record,
                                vex_error *err) {
    if (record->sequence > r->sequence_max) {
        r->sequence_max = record->sequence;
    }
    vexi_table *table = table_by_uuid(r, record->collection);
    if (table == NULL && r->skipped_tables) {
        return vexi_fail(err, VEX_UNSUPPORTED,
                         "the log holds rows of a collection that cannot be opened");
    }
    if (table == NULL || table->dropped) {
        return VEX_OK;
    }
    int64_t covered = vexi_delta_state_txn(&table->delta, vexi_string_of(r->lake->wal_uuid));
    if ((int64_t)record->sequence <= covered) {
        return VEX_OK;
    }
    const vexi_env *env = r->lake->core->env;
    VEX_TRY(check_cells(&table->schema->schema, record, err));
    VEX_TRY(note_entry(r, file, record->collection, record->sequence, err));
    vexi_row_block *block;
    vexi_row row = record->row;
    if (record->cell_count == 0) {
        row.cells = NULL;
    }
    bool put = record->kind == VEXI_WAL_PUT;
    VEX_TRY(vexi_row_block_create(env, &table->schema->schema, put ? &row : NULL,
                                  put ? NULL : &row.id, 1, &block, err));
    pthread_mutex_lock(&table->state_lock);
    vex_status status = table_reserve(table, 1, err);
    if (status == VEX_OK) {
        table_append(table, block, record->sequence);
        vexi_memtable_encode(table->active.memtable);
        if (vexi_memtable_size_bytes(table->active.memtable) >= r->lake->config.flush_size_bytes &&
            !r->lake->config.read_only) {
            status = table_seal(table, err);
        }
    } else {
        vexi_row_block_destroy(env, block);
    }
    bool many = table->sealed_count > TABLE_SEALED_WAIT;
    pthread_mutex_unlock(&table->state_lock);
    if (status == VEX_OK && many) {
        status = vexi_table_flush(table, err);
    }
    return status;
}

/* Read the records of one group, offset .. end; replay them if `apply`. */
static vex_status replay_group(recovery *r, log_file *file, vexi_span bytes, size_t offset,
                               size_t end, bool apply, vexi_wal_read *result, bool *later,
                               vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, r->lake->core->env);
    vex_status status = VEX_OK;
    *result = VEXI_WAL_RECORD;
    while (offset < end && status == VEX_OK && *result == VEXI_WAL_RECORD) {
        vexi_wal_record record;
        status = vexi_wal_record_read(bytes, &offset, &arena, &record, result, later, err);
        if (status == VEX_OK && *result == VEXI_WAL_RECORD && apply) {
            status = replay_record(r, file, &record, err);
        }
        if (arena.total_size > (1u << 20)) {
            vexi_arena_deinit(&arena);
        }
    }
    vexi_arena_deinit(&arena);
    return status;
}

static vex_status replay_file(recovery *r, log_file *file, vex_error *err) {
    uint64_t limit = file->cut;
    file->whole = VEXI_WAL_HEADER_SIZE;
    if (limit != UINT64_MAX && limit > file->size) {
        return vexi_fail(err, VEX_CORRUPT, "%s has %llu bytes, %llu were logged", file->name,
                         (unsigned long long)file->size, (unsigned long long)limit);
    }
    vexi_mapping mapping;
    vexi_span bytes;
    VEX_TRY(log_file_read(r, file, limit, &mapping, &bytes, err));
    vex_status status = VEX_OK;
    size_t offset = VEXI_WAL_HEADER_SIZE;
    bool later = false;
    bool torn = false;
    while (offset < bytes.size && status == VEX_OK && !torn) {
        /* First look whether the group is whole; only then replay it. */
        vexi_arena arena;
        vexi_arena_init(&arena, r->lake->core->env);
        vexi_wal_record first;
        vexi_wal_read result;
        size_t next = offset;
        status = vexi_wal_record_read(bytes, &next, &arena, &first, &result, &later, err);
        vexi_arena_deinit(&arena);
        if (status != VEX_OK) {
            break;
        }
        if (result != VEXI_WAL_RECORD || first.group_rest > bytes.size - offset) {
            torn = result != VEXI_WAL_END;
            break;
        }
        size_t end = offset + (size_t)first.group_rest;
        status = replay_group(r, file, bytes, offset, end, false, &result, &later, err);
        if (status != VEX_OK || result != VEXI_WAL_RECORD) {
            torn = status == VEX_OK;
            break;
        }
        status = replay_group(r, file, bytes, offset, end, true, &result, &later, err);
        offset = end;
        file->whole = end;
    }
    if (status == VEX_OK && torn && (limit != UINT64_MAX || later)) {
        status = vexi_fail(err, VEX_CORRUPT, "damaged at byte %llu, in acknowledged records",
                           (unsigned long long)file->whole);
    }
    vexi_store_unmap(r->lake->core->store, &mapping);
    if (status != VEX_OK) {
        return vexi_prefix(err, status, "%s", file->name);
    }
    if (torn) {
        vexi_log(r->lake->core->env, 1, "%s: %llu unacknowledged bytes at its end are cut off",
                 file->name, (unsigned long long)(file->size - file->whole));
    }
    return VEX_OK;
}

/* ---- Opening ----------------------------------------------------------------------------------
 */

static vex_status check_format(recovery *r, vex_error *err) {
    vexi_lake *lake = r->lake;
    vexi_store *store = lake->core->store;
    static const char name[] = ".vexlake/format";
    vexi_span file;
    vex_error missing;
    vex_status status = vexi_store_get_all(store, name, 1 << 16, &r->arena, &file, &missing);
    if (status == VEX_NOT_FOUND) {
        if (lake->config.read_only || lake->config.must_exist) {
            return vexi_fail(err, VEX_NOT_FOUND, "there is no lake here");
        }
        vexi_buffer buffer;
        vexi_buffer_init(&buffer, lake->core->env, 1 << 16);
        status = vexi_lake_format_write(&buffer, err);
        if (status == VEX_OK) {
            vexi_span part = vexi_span_of(buffer.data, buffer.size);
            status = vexi_store_put_if_absent(store, name, &part, 1, err);
        }
        vexi_buffer_deinit(&buffer);
        return status;
    }
    if (status != VEX_OK) {
        if (err != NULL) {
            *err = missing;
        }
        return status;
    }
    VEX_TRY(vexi_lake_format_check(file, err));
    if (lake->config.read_only) {
        return VEX_OK;
    }
    /* Whoever made it may have been killed before its name was durable: see commit_settle. */
    status = vexi_store_put_if_absent(store, name, &file, 1, err);
    return status == VEX_EXISTS ? VEX_OK : status;
}

/* The newest file may hold bytes that no sync covered: its writer was killed in between. They were
 * replayed, and the cut will say that they count, so they must be durable first. A second sync
 * would not prove it (after one that failed the system takes the bytes for clean): the file is
 * replaced by a durable copy of what counts. Older files were synced before the next one began. */
static vex_status settle_log(recovery *r, vex_error *err) {
    log_file *newest = NULL;
    for (size_t i = 0; i < r->file_count; i++) {
        newest = r->files[i].valid ? &r->files[i] : newest;
    }
    if (newest == NULL) {
        return VEX_OK;
    }
    vexi_mapping mapping;
    vexi_span bytes;
    VEX_TRY(log_file_read(r, newest, newest->whole, &mapping, &bytes, err));
    vex_status status = vexi_store_put(r->lake->core->store, newest->name, &bytes, 1, err);
    vexi_store_unmap(r->lake->core->store, &mapping);
    return status;
}

static vex_status start_log(recovery *r, vex_error *err) {
    vexi_lake *lake = r->lake;
    const vexi_env *env = lake->core->env;
    vexi_wal_old_file *old = vexi_arena_calloc(&r->arena, r->file_count, sizeof *old);
    if (old == NULL) {
        return vexi_no_memory(err, r->file_count * sizeof *old);
    }
    VEX_TRY(settle_log(r, err));
    size_t old_count = 0;
    uint64_t number = 1;
    uint64_t cut = UINT64_MAX;
    for (size_t i = 0; i < r->file_count; i++) {
        log_file *file = &r->files[i];
        number = file->number + 1;
        if (file->valid) {
            old[old_count] = file->old;
            old[old_count].size_bytes = file->size;
            old[old_count++].number = file->number;
            cut = file->cut != UINT64_MAX ? file->cut : file->whole;
        } else {
            VEX_TRY(vexi_store_remove(lake->core->store, file->name, err));
        }
    }
    for (size_t i = 0; i < lake->table_count; i++) {
        int64_t txn = vexi_delta_state_txn(&lake->tables[i]->delta, vexi_string_of(lake->wal_uuid));
        if (txn > 0 && (uint64_t)txn > r->sequence_max) {
            r->sequence_max = (uint64_t)txn;
        }
    }
    vexi_wal_config config = {.durability = lake->config.durability,
                              .sync_interval_ms = lake->config.sync_interval_ms,
                              .file_size_bytes = lake->config.log_size_bytes,
                              .lost = lake_log_lost,
                              .context = lake};
    VEX_TRY(vexi_wal_create(env, lake->core->store, &config, lake->wal_uuid, number,
                            r->sequence_max + 1, cut, old, old_count, &lake->wal, err));
    /* Files that hold nothing uncommitted go now; replay may have flushed some of theirs. */
    vexi_wal_committed(lake->wal, lake->wal_uuid, 0);
    for (size_t i = 0; i < lake->table_count; i++) {
        vexi_table *table = lake->tables[i];
        int64_t txn = vexi_delta_state_txn(&table->delta, vexi_string_of(lake->wal_uuid));
        if (txn > 0) {
            vexi_wal_committed(lake->wal, table->uuid, (uint64_t)txn);
        }
        if (table->sealed_count > 0 || table->active.memtable != NULL) {
            uint32_t delay = table->sealed_count > 0 ? 0 : lake->config.flush_interval_ms;
            vexi_submit(env, &table->flush_task, delay);
        }
    }
    return VEX_OK;
}

/* Versions that came since a table was read. */
typedef struct look_job {
    vexi_lake *lake;
    struct looked_table {
        bool same;
        vex_status status;
        vex_error err;
    } * tables;
} look_job;

static void look_run(void *argument, size_t i) {
    look_job *job = argument;
    struct looked_table *one = &job->tables[i];
    vexi_table *table = job->lake->tables[i];
    int64_t version = table->delta.version;
    one->status = commit_refresh(table->core, table->folder, &table->delta, &one->err);
    one->same = table->delta.version == version;
}

/* Whether nothing changed in the store since the tables and the log were read. */
static vex_status unchanged(recovery *r, bool *same, vex_error *err) {
    vexi_listing listing;
    VEX_TRY(
        vexi_store_list(r->lake->core->store, wal_prefix, NULL, false, &r->arena, &listing, err));
    *same = r->file_count == 0 ||
            (listing.count > 0 && strcmp(listing.entries[0].name, r->files[0].name) == 0);
    size_t count = *same ? r->lake->table_count : 0;
    look_job job = {.lake = r->lake};
    job.tables = vexi_arena_calloc(&r->arena, count, sizeof *job.tables);
    if (job.tables == NULL) {
        return vexi_no_memory(err, count * sizeof *job.tables);
    }
    vexi_parallel(r->lake->core->env, count, look_run, &job);
    for (size_t i = 0; i < count; i++) {
        if (job.tables[i].status != VEX_OK) {
            if (err != NULL) {
                *err = job.tables[i].err;
            }
            return job.tables[i].status;
        }
        *same = *same && job.tables[i].same;
    }
    return VEX_OK;
}

static vex_status read_log(recovery *r, vex_error *err) {
    VEX_TRY(find_files(r, err));
    for (size_t i = 0; i < r->file_count; i++) {
        if (r->files[i].valid) {
            VEX_TRY(replay_file(r, &r->files[i], err));
        }
    }
    return VEX_OK;
}

/* A lake that a server on a local disk writes, or that was copied from one, has that server's log:
 * in a bucket it is read as on the disk. Its rows must not be missed by a node that writes. */
static vex_status check_shared(recovery *r, vex_error *err) {
    vexi_lake *lake = r->lake;
    vexi_listing listing;
    VEX_TRY(vexi_store_list(lake->core->store, wal_prefix, NULL, false, &r->arena, &listing, err));
    bool local = false;
    for (size_t i = 0; i < listing.count; i++) {
        local = local || listing.entries[i].size_bytes > VEXI_WAL_HEADER_SIZE;
    }
    if (local && !lake->config.read_only) {
        return vexi_fail(
            err, VEX_UNSUPPORTED,
            "the lake has the log of a server on a local disk (.vexlake/wal): stop that "
            "server, which flushes, and remove .vexlake/wal; or open it read-only");
    }
    lake->config.shared = !local;
    return VEX_OK;
}

static vex_status recover_once(recovery *r, bool *again, vex_error *err) {
    bool read_only = r->lake->config.read_only;
    *again = false;
    VEX_TRY(check_format(r, err));
    if (r->lake->config.shared) {
        VEX_TRY(check_shared(r, err));
    }
    VEX_TRY(load_tables(r, err));
    if (r->lake->config.shared) {
        /* The logs of collections are read when somebody asks them (lake_follow.c). */
        return read_only ? VEX_OK : lake_node_create(r->lake, &r->lake->node, err);
    }
    vex_status status = read_log(r, err);
    if (read_only && status == VEX_NOT_FOUND) {
        *again = true; /* listed, then deleted by the writer */
        return VEX_OK;
    }
    VEX_TRY(status);
    if (!read_only) {
        return start_log(r, err);
    }
    bool same;
    VEX_TRY(unchanged(r, &same, err));
    *again = !same;
    return VEX_OK;
}

vex_status lake_recover(vexi_lake *lake, vex_error *err) {
    vexi_store *store = lake->core->store;
    bool read_only = lake->config.read_only;
    if (!read_only && (vexi_store_flags(store) & VEXI_STORE_CAN_LOCK) != 0) {
        VEX_TRY(vexi_store_lock(store, ".vexlake/lock", err));
    }
    for (int attempt = 0;; attempt++) {
        recovery r = {.lake = lake};
        vexi_arena_init(&r.arena, lake->core->env);
        bool again;
        vex_status status = recover_once(&r, &again, err);
        vexi_arena_deinit(&r.arena);
        bool moved = again || status == VEX_NOT_FOUND || status == VEX_CORRUPT ||
                     status == VEX_CONFLICT; /* an S3 object that grew while it was read */
        if (!read_only || !moved || attempt == READ_ONLY_ATTEMPTS) {
            if (status == VEX_OK && again) {
                return vexi_fail(err, VEX_CONFLICT,
                                 "the lake changes too fast to be read as a whole");
            }
            return status;
        }
        while (lake->table_count > 0) {
            vexi_table_release(lake->tables[--lake->table_count]);
        }
        lake->memory_bytes = 0;
    }
}
