/* Refresh: from the newest version of the Delta log to the segments that readers see. */
#include <stdio.h>

#include "base/bitmap.h"
#include "base/checksum.h"
#include "format/deletion_vector.h"
#include "table/table_internal.h"

uint64_t table_dv_hash(const vexi_delta_dv *dv) {
    if (dv->storage == 0) {
        return 0;
    }
    uint64_t hash = vexi_hash64(dv->encoded.data, dv->encoded.size);
    hash ^= (uint64_t)(unsigned char)dv->storage << 56 ^ dv->offset;
    return hash == 0 ? 1 : hash;
}

static vex_status dv_load(vexi_core *core, const char *folder, const vexi_delta_dv *dv,
                          uint64_t row_count, vexi_bits **out, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, core->env);
    vexi_bits *bits = vexi_bits_create(core->env, row_count, NULL);
    vexi_span data = {.data = NULL};
    vex_status status = bits == NULL ? vexi_no_memory(err, row_count / 8) : VEX_OK;
    if (status == VEX_OK && dv->storage == 'i') {
        status = vexi_dv_inline_data(dv, &arena, &data, err);
    } else if (status == VEX_OK && dv->storage == 'u') {
        const char *relative;
        vexi_span file;
        status = vexi_dv_object_name(dv, &arena, &relative, err);
        if (status == VEX_OK) {
            size_t size = strlen(folder) + strlen(relative) + 8;
            char *name = vexi_arena_alloc(&arena, size);
            if (name == NULL) {
                status = vexi_no_memory(err, size);
            } else {
                snprintf(name, size, "%s/data/%s", folder, relative);
                status = vexi_store_get_all(core->store, name, (size_t)1 << 30, &arena, &file, err);
                if (status == VEX_OK) {
                    status = vexi_dv_file_find(file, dv, &data, err);
                }
                if (status == VEX_NOT_FOUND) {
                    status = vexi_fail(err, VEX_CORRUPT, "%s is missing", name);
                }
            }
        }
    } else if (status == VEX_OK) {
        status =
            vexi_fail(err, VEX_UNSUPPORTED, "deletion vector of storage type '%c'", dv->storage);
    }
    if (status == VEX_OK) {
        status = vexi_dv_decode(data, row_count, dv->cardinality, bits->words, err);
    }
    vexi_arena_deinit(&arena);
    if (status != VEX_OK) {
        vexi_bits_release(bits);
        return status;
    }
    bits->set_count = vexi_bitmap_count(bits->words, row_count);
    *out = bits;
    return VEX_OK;
}

void table_segments_free(const vexi_env *env, table_segment *segments, size_t count) {
    for (size_t i = 0; i < count; i++) {
        vexi_bits_release(segments[i].deleted);
        vexi_bits_release(segments[i].hidden);
        vexi_segment_release(segments[i].segment);
    }
    vexi_free(env, segments);
}

/* Copy before the first change. */
vex_status table_deleted_own(const vexi_env *env, table_segment *entry, vex_error *err) {
    vexi_bits *fresh =
        vexi_bits_create(env, vexi_segment_row_count(entry->segment), entry->deleted);
    if (fresh == NULL) {
        return vexi_no_memory(err, vexi_segment_row_count(entry->segment) / 8);
    }
    vexi_bits_release(entry->deleted);
    entry->deleted = fresh;
    return VEX_OK;
}

/* A file that another engine added: its rows hide older rows of their ids, and of two rows with one
 * id in it the later counts. The log does not say so until our next commit does: a row must not
 * come back when the one that hid it is deleted in its turn. */
static vex_status foreign_hide(vexi_table *table, table_segment *segments, size_t position,
                               vex_error *err) {
    const vexi_env *env = table->core->env;
    table_segment *foreign = &segments[position];
    if (vexi_segment_check(foreign->segment, NULL) != VEX_OK) {
        return VEX_OK;
    }
    bool owned = false;
    bool *older_owned = vexi_calloc(env, position + 1, sizeof *older_owned);
    if (older_owned == NULL) {
        return vexi_no_memory(err, position + 1);
    }
    vex_status status = VEX_OK;
    uint64_t row_count = vexi_segment_row_count(foreign->segment);
    for (uint64_t row = 0; row < row_count && status == VEX_OK; row++) {
        vex_string id;
        bool found;
        uint64_t at;
        if (vexi_bits_get(foreign->deleted, row)) {
            continue;
        }
        status = vexi_segment_id(foreign->segment, row, &id, err);
        uint64_t hash = vexi_hash64(id.data, id.size);
        if (status == VEX_OK) {
            status = vexi_segment_find(foreign->segment, id, hash, &found, &at, err);
        }
        if (status == VEX_OK && at != row && !vexi_bits_get(foreign->deleted, at)) {
            if (!owned) {
                status = table_deleted_own(env, foreign, err);
                owned = true;
                foreign->unstored = true;
            }
            if (status == VEX_OK) {
                vexi_bits_set(foreign->deleted, row);
            }
            continue;
        }
        for (size_t i = 0; i < position && status == VEX_OK; i++) {
            if (vexi_segment_check(segments[i].segment, NULL) != VEX_OK) {
                continue;
            }
            status = vexi_segment_find(segments[i].segment, id, hash, &found, &at, err);
            if (status == VEX_OK && found && !vexi_bits_get(segments[i].deleted, at)) {
                if (!older_owned[i]) {
                    status = table_deleted_own(env, &segments[i], err);
                    older_owned[i] = true;
                    segments[i].unstored = true;
                }
                if (status == VEX_OK) {
                    vexi_bits_set(segments[i].deleted, at);
                }
            }
        }
    }
    vexi_free(env, older_owned);
    return status;
}

/* The published entry of a path. Published segments change under the commit lock alone, which is
 * held. Both lists have the same order, so the search goes on behind the last hit (*hint). */
static const table_segment *open_entry(const vexi_table *table, vex_string path, size_t *hint) {
    for (size_t step = 0; step < table->segment_count; step++) {
        size_t at = (*hint + step) % table->segment_count;
        if (vexi_string_is(path, vexi_segment_path(table->segments[at].segment))) {
            *hint = at + 1;
            return &table->segments[at];
        }
    }
    return NULL;
}

/* Where the store is a server: the heads of the index files that are to be opened, in one step. By
 * file of the Delta state; empty where none came. A failure says nothing yet: the segment that
 * cannot be opened will tell. */
static vex_status heads_fetch(vexi_table *table, vexi_arena *arena, vexi_span **out,
                              vex_error *err) {
    enum { SIZE_MAX_TOGETHER = 64 << 20 };
    const vexi_delta_state *delta = &table->delta;
    size_t hint = 0, count = 0, room = SIZE_MAX_TOGETHER;
    *out = NULL;
    if ((vexi_store_flags(table->core->store) & VEXI_STORE_CAN_MAP) != 0 || delta->file_count < 2) {
        return VEX_OK;
    }
    vexi_span *heads = vexi_arena_calloc(arena, delta->file_count, sizeof *heads);
    vexi_range *ranges = vexi_arena_array(arena, delta->file_count, sizeof *ranges);
    vexi_store_read *reads = vexi_arena_array(arena, delta->file_count, sizeof *reads);
    size_t *numbers = vexi_arena_array(arena, delta->file_count, sizeof *numbers);
    if (heads == NULL || ranges == NULL || reads == NULL || numbers == NULL) {
        return vexi_no_memory(err, delta->file_count * sizeof *reads);
    }
    for (size_t i = 0; i < delta->file_count; i++) {
        const vexi_delta_add *add = &delta->files[i].add;
        size_t size = vexi_segment_head_size(add);
        const table_segment *old = open_entry(table, add->path, &hint);
        if (size == 0 || size > room || (old != NULL && !vexi_segment_unread(old->segment))) {
            continue;
        }
        size_t name_size = strlen(table->folder) + add->index.path.size + 2;
        char *name = vexi_arena_alloc(arena, name_size);
        uint8_t *bytes = vexi_arena_alloc(arena, size);
        if (name == NULL || bytes == NULL) {
            return vexi_no_memory(err, size);
        }
        snprintf(name, name_size, "%s/%.*s", table->folder, (int)add->index.path.size,
                 add->index.path.data);
        if (table->core->store->ops->tell_size != NULL) {
            table->core->store->ops->tell_size(table->core->store, name, add->index.size_bytes);
        }
        numbers[count] = i;
        ranges[count] = (vexi_range){.size = size, .target = bytes};
        reads[count] = (vexi_store_read){.name = name, .ranges = &ranges[count], .count = 1};
        room -= size;
        count++;
    }
    if (vexi_store_get_many(table->core->store, reads, count, 0, NULL, NULL, NULL) == VEX_OK) {
        for (size_t i = 0; i < count; i++) {
            heads[numbers[i]] = vexi_span_of(ranges[i].target, ranges[i].size);
        }
    }
    *out = heads;
    return VEX_OK;
}

/* The segments of the Delta state, reusing those that are open. */
vex_status table_segments_open(vexi_table *table, table_segment **out, size_t *out_count,
                               vex_error *err) {
    const vexi_env *env = table->core->env;
    const vexi_delta_state *delta = &table->delta;
    *out = NULL;
    *out_count = 0;
    table_segment *segments = vexi_calloc(env, delta->file_count + 1, sizeof *segments);
    if (segments == NULL) {
        return vexi_no_memory(err, delta->file_count * sizeof *segments);
    }
    size_t count = 0;
    size_t hint = 0;
    bool fresh = false;
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_span *heads = NULL;
    vex_status status = heads_fetch(table, &arena, &heads, err);
    for (size_t i = 0; i < delta->file_count && status == VEX_OK; i++) {
        const vexi_delta_add *add = &delta->files[i].add;
        table_segment *entry = &segments[count];
        uint64_t hash = table_dv_hash(&add->dv);
        const table_segment *old = open_entry(table, add->path, &hint);
        vex_error damage;
        if (old != NULL && vexi_segment_unread(old->segment)) {
            old = NULL;
        }
        if (old != NULL && old->dv_hash == hash) {
            *entry = (table_segment){.segment = vexi_segment_retain(old->segment),
                                     .deleted = vexi_bits_retain(old->deleted),
                                     .dv_hash = hash,
                                     .unstored = old->unstored};
            count++;
            continue;
        }
        vexi_bits *deleted = NULL;
        vexi_segment *segment = NULL;
        *entry = (table_segment){.segment = NULL};
        if (old != NULL) {
            segment = vexi_segment_retain(old->segment);
        } else {
            status = vexi_segment_open(table->core, table->schema, table->folder, add,
                                       heads == NULL ? NULL : &heads[i], &segment, err);
        }
        if (status == VEX_OK && vexi_segment_check(segment, &damage) != VEX_OK) {
            /* Its rows may be well. If not, it keeps its place and says why. */
            entry->segment = segment;
            (void)table_entry_open_plain(table, entry, &damage, NULL);
            segment = entry->segment;
        }
        if (status == VEX_OK && hash != 0 && vexi_segment_check(segment, NULL) == VEX_OK) {
            vex_status loaded = dv_load(table->core, table->folder, &add->dv,
                                        vexi_segment_row_count(segment), &deleted, &damage);
            if (loaded == VEX_MEMORY) {
                status = loaded;
                if (err != NULL) {
                    *err = damage;
                }
            } else if (loaded != VEX_OK) {
                /* Without its deletion vector a segment would show deleted rows. */
                vexi_segment_release(segment);
                segment = NULL;
                status = vexi_segment_open(table->core, table->schema, table->folder, add, NULL,
                                           &segment, err);
                if (status == VEX_OK && vexi_segment_check(segment, NULL) == VEX_OK) {
                    (void)vexi_prefix(&damage, loaded, "deletion vector of %s",
                                      vexi_segment_object_name(segment));
                    vexi_segment_set_damage(segment, loaded, &damage);
                }
            }
        }
        if (status != VEX_OK) {
            vexi_segment_release(segment);
            break;
        }
        if (hash != 0 && deleted == NULL) {
            vexi_segment_set_deleted_told(segment, add->dv.cardinality);
        }
        *entry = (table_segment){.segment = segment, .deleted = deleted, .dv_hash = hash};
        count++;
        fresh = true;
    }
    vexi_arena_deinit(&arena);
    /* Entries that are reused know what foreign files hide in them; with a fresh one among them it
     * is worked out again, which finds little to change. */
    for (size_t i = 0; i < count && fresh && status == VEX_OK; i++) {
        /* What a file of ours hides, its commit said. */
        if (vexi_segment_is_foreign(segments[i].segment) &&
            !vexi_segment_is_plain(segments[i].segment)) {
            status = foreign_hide(table, segments, i, err);
        }
    }
    if (status != VEX_OK) {
        table_segments_free(env, segments, count);
        return status;
    }
    *out = segments;
    *out_count = count;
    return VEX_OK;
}

/* A read-only lake holds in its memtables what the log held when it was opened. They would hide
 * newer rows of a newer version, so the table stays as it was until a version covers all of them:
 * then they go in the step that publishes it. */
static vex_status replayed_rows_covered(vexi_table *table, bool *covered, size_t *flushed_count,
                                        vex_error *err) {
    pthread_mutex_lock(&table->state_lock);
    vex_status status = table_seal(table, err);
    size_t count = table->sealed_count;
    uint64_t sequence = 0;
    if (count > 0) {
        sequence = vexi_memtable_sequence(table->sealed[count - 1].memtable);
    }
    pthread_mutex_unlock(&table->state_lock);
    int64_t committed = vexi_delta_state_txn(&table->delta, vexi_string_of(table->lake->wal_uuid));
    *covered = count == 0 || committed >= (int64_t)sequence;
    *flushed_count = count;
    return status;
}

vex_status table_refresh(vexi_table *table, vex_error *err) {
    bool follows = table->log != NULL && !table_owned(table);
    if (follows && (__atomic_load_n(&table->log->followed, __ATOMIC_ACQUIRE) ||
                    !__atomic_load_n(&table->log->reset, __ATOMIC_ACQUIRE))) {
        return table_follow_locked(table, err); /* its memtables are what the log held */
    }
    VEX_TRY(commit_refresh(table->core, table->folder, &table->delta, err));
    return table_show(table, err);
}

vex_status table_show(vexi_table *table, vex_error *err) {
    bool follows = table->log != NULL && !table_owned(table);
    bool retry = false;
    for (size_t i = 0; i < table->segment_count; i++) {
        retry = retry || vexi_segment_unread(table->segments[i].segment);
    }
    if (table->delta.version == table->version && !retry) {
        return VEX_OK;
    }
    if (table_is_gone(table)) {
        return table_let_go(table, err); /* whoever uses it next is told so */
    }
    if (table->log != NULL && !follows && table_check_epoch(table, NULL) != VEX_OK) {
        return table_follow_locked(table, err); /* taken over */
    }
    table_segment *segments;
    size_t count;
    size_t flushed_count = 0;
    if (table->lake->config.read_only && table->log == NULL) {
        bool covered;
        VEX_TRY(replayed_rows_covered(table, &covered, &flushed_count, err));
        if (!covered) {
            return VEX_OK;
        }
    }
    VEX_TRY(table_segments_open(table, &segments, &count, err));
    return table_publish(table, segments, count, flushed_count, false, table->delta.version, err);
}
