/* Commits: the one way by which a table changes on storage.
 *
 * A commit is built against the newest version and put under the next number if that is absent. If
 * another engine was faster, its commit is read and the actions are built anew: the rows to hide
 * are looked up again by id, so nothing of a stale version is written back.
 *
 * Invariants
 *  1. Files are durable before the commit that names them is put.
 *  2. A commit of a flush carries txn {log UUID, sequence}; one that finds its sequence covered
 *     already is done.
 *  3. While an outcome is unknown only identical bytes are put again under that version.
 *  4. delta.version >= table.version; what lies between is durable but not yet published. */
#include "table/table_internal.h"

#include <stdio.h>

#include "base/bitmap.h"
#include "base/checksum.h"
#include "format/deletion_vector.h"

enum { COMMIT_ATTEMPT_MAX = 1000, PUT_TRY_MAX = 4 };

/* ---- Reading ----------------------------------------------------------------------------------
 */

static vex_status log_object_name(const char *folder, int64_t version, vexi_arena *arena,
                                  char **out, vex_error *err) {
    size_t size = strlen(folder) + 64;
    *out = vexi_arena_alloc(arena, size);
    if (*out == NULL) {
        return vexi_no_memory(err, size);
    }
    char name[26];
    vexi_delta_commit_name(version, name);
    snprintf(*out, size, "%s/data/_delta_log/%s", folder, name);
    return VEX_OK;
}

/* Read and apply one version. VEX_NOT_FOUND if it is not there. */
static vex_status refresh_one(vexi_core *core, const char *folder, vexi_delta_state *state,
                              vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, core->env);
    char *name = NULL;
    vexi_span bytes;
    vexi_delta_commit commit;
    vex_status status = log_object_name(folder, state->version + 1, &arena, &name, err);
    if (status == VEX_OK) {
        status =
            vexi_store_get_all(core->store, name, VEXI_DELTA_COMMIT_SIZE_MAX, &arena, &bytes, err);
    }
    if (status == VEX_OK) {
        status = vexi_delta_parse(bytes, &arena, &commit, err);
        if (status == VEX_OK) {
            status = vexi_delta_state_apply(state, &commit, err);
        }
        if (status != VEX_OK) {
            (void)vexi_prefix(err, status, "%s", name);
        }
    }
    vexi_arena_deinit(&arena);
    return status;
}

vex_status commit_refresh(vexi_core *core, const char *folder, vexi_delta_state *state,
                          vex_error *err) {
    for (;;) {
        vex_error missing;
        vex_status status = refresh_one(core, folder, state, &missing);
        if (status == VEX_NOT_FOUND) {
            break;
        }
        if (status != VEX_OK) {
            if (err != NULL) {
                *err = missing;
            }
            return status;
        }
    }
    if (state->version < 0) {
        return vexi_fail(err, VEX_CORRUPT,
                         "%s/data/_delta_log: version 0 is missing (a log whose old commits were "
                         "removed cannot be read)",
                         folder);
    }
    return VEX_OK;
}

vex_status commit_settle(vexi_core *core, const char *folder, int64_t version, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, core->env);
    char *name = NULL;
    vexi_span bytes;
    vex_status status = log_object_name(folder, version, &arena, &name, err);
    if (status == VEX_OK) {
        status =
            vexi_store_get_all(core->store, name, VEXI_DELTA_COMMIT_SIZE_MAX, &arena, &bytes, err);
    }
    if (status == VEX_OK) {
        /* "It is there" comes with the promise that it stays. */
        status = vexi_store_put_if_absent(core->store, name, &bytes, 1, err);
        status = status == VEX_EXISTS ? VEX_OK : status;
    }
    vexi_arena_deinit(&arena);
    return status;
}

/* ---- Segments of a version --------------------------------------------------------------------
 */

static uint64_t dv_hash(const vexi_delta_dv *dv) {
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
static vex_status deleted_own(const vexi_env *env, table_segment *entry, vex_error *err) {
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
                status = deleted_own(env, foreign, err);
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
                    status = deleted_own(env, &segments[i], err);
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

/* The segments of the Delta state, reusing those that are open. */
static vex_status segments_of_state(vexi_table *table, table_segment **out, size_t *out_count,
                                    vex_error *err) {
    const vexi_env *env = table->core->env;
    const vexi_delta_state *delta = &table->delta;
    *out = NULL;
    *out_count = 0;
    table_segment *segments = vexi_calloc(env, delta->file_count + 1, sizeof *segments);
    if (segments == NULL) {
        return vexi_no_memory(err, delta->file_count * sizeof *segments);
    }
    vex_status status = VEX_OK;
    size_t count = 0;
    size_t hint = 0;
    bool fresh = false;
    for (size_t i = 0; i < delta->file_count && status == VEX_OK; i++) {
        const vexi_delta_add *add = &delta->files[i].add;
        table_segment *entry = &segments[count];
        uint64_t hash = dv_hash(&add->dv);
        const table_segment *old = open_entry(table, add->path, &hint);
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
        if (old != NULL) {
            segment = vexi_segment_retain(old->segment);
        } else {
            status =
                vexi_segment_open(table->core, table->schema, table->folder, add, &segment, err);
        }
        if (status == VEX_OK && hash != 0 && vexi_segment_check(segment, NULL) == VEX_OK) {
            vex_error damage;
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
                status = vexi_segment_open(table->core, table->schema, table->folder, add, &segment,
                                           err);
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
        *entry = (table_segment){.segment = segment, .deleted = deleted, .dv_hash = hash};
        count++;
        fresh = true;
    }
    /* Entries that are reused know what foreign files hide in them; with a fresh one among them it
     * is worked out again, which finds little to change. */
    for (size_t i = 0; i < count && fresh && status == VEX_OK; i++) {
        if (vexi_segment_is_foreign(segments[i].segment)) {
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
    vex_status status = commit_refresh(table->core, table->folder, &table->delta, err);
    bool retry = false;
    for (size_t i = 0; i < table->segment_count; i++) {
        retry = retry || vexi_segment_unread(table->segments[i].segment);
    }
    if (status != VEX_OK || (table->delta.version == table->version && !retry)) {
        return status;
    }
    if (table_is_gone(table)) {
        return table_let_go(table, err); /* whoever uses it next is told so */
    }
    table_segment *segments;
    size_t count;
    size_t flushed_count = 0;
    if (table->lake->config.read_only) {
        bool covered;
        VEX_TRY(replayed_rows_covered(table, &covered, &flushed_count, err));
        if (!covered) {
            return VEX_OK;
        }
    }
    VEX_TRY(segments_of_state(table, &segments, &count, err));
    return table_publish(table, segments, count, flushed_count, table->delta.version, err);
}

/* ---- Putting ----------------------------------------------------------------------------------
 */

/* What is under the name: VEX_OK if it is exactly our bytes, VEX_EXISTS if something else,
 * VEX_NOT_FOUND if nothing. */
static vex_status read_back(vexi_core *core, const char *name, const vexi_buffer *bytes,
                            vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, core->env);
    vexi_span found;
    vex_status status =
        vexi_store_get_all(core->store, name, VEXI_DELTA_COMMIT_SIZE_MAX, &arena, &found, err);
    if (status == VEX_OK &&
        (found.size != bytes->size || memcmp(found.data, bytes->data, found.size) != 0)) {
        status = vexi_fail(err, VEX_EXISTS, "%s was committed by someone else", name);
    }
    vexi_arena_deinit(&arena);
    return status;
}

/* Put, and put the same bytes again while the outcome is unknown: VEX_EXISTS tells that what is
 * there is durable, and reading it back whose it is. */
static vex_status put_resolved(vexi_core *core, const char *name, const vexi_buffer *bytes,
                               vex_error *err) {
    vexi_span part = vexi_span_of(bytes->data, bytes->size);
    bool unknown = false;
    for (int i = 0; i < PUT_TRY_MAX; i++) {
        vex_status status = vexi_store_put_if_absent(core->store, name, &part, 1, err);
        if (status == VEX_EXISTS) {
            status = read_back(core, name, bytes, err);
            if (status == VEX_OK || status == VEX_EXISTS) {
                return status;
            }
        } else if (status == VEX_OK || (!unknown && status != VEX_UNKNOWN_OUTCOME)) {
            return status; /* done, or certainly not done */
        }
        unknown = true;
    }
    return vexi_prefix(err, VEX_UNKNOWN_OUTCOME, "commit %s", name);
}

vex_status commit_check_writable(const char *folder, const vexi_delta_state *state,
                                 vex_error *err) {
    vex_status status = state->version < 0 ? VEX_OK : vexi_delta_state_writable(state, err);
    return status == VEX_OK ? VEX_OK : vexi_prefix(err, status, "%s", folder);
}

vex_status commit_put(vexi_core *core, const char *folder, vexi_delta_state *state,
                      vexi_delta_commit *commit, vex_error *err) {
    VEX_TRY(commit_check_writable(folder, state, err));
    char attempt[37];
    vexi_random_uuid(core->env, attempt);
    commit->attempt_id = vexi_string_of(attempt);
    commit->timestamp_ms = vexi_wall_us(core->env) / 1000;
    vexi_arena arena;
    vexi_arena_init(&arena, core->env);
    vexi_buffer bytes;
    vexi_buffer_init(&bytes, core->env, VEXI_DELTA_COMMIT_SIZE_MAX);
    char *name;
    vex_status status = log_object_name(folder, state->version + 1, &arena, &name, err);
    if (status == VEX_OK) {
        status = vexi_delta_write(commit, &bytes, err);
    }
    if (status == VEX_OK) {
        status = put_resolved(core, name, &bytes, err);
    }
    if (status == VEX_OK) {
        /* Read our own bytes: what we apply is what others will read. */
        vexi_delta_commit read;
        status = vexi_delta_parse(vexi_span_of(bytes.data, bytes.size), &arena, &read, err);
        if (status == VEX_OK) {
            status = vexi_delta_state_apply(state, &read, err);
        }
        if (status != VEX_OK) { /* no refusal: the next refresh reads it */
            status =
                vexi_prefix(err, VEX_UNKNOWN_OUTCOME, "committed, but cannot be read back yet");
        }
    }
    vexi_buffer_deinit(&bytes);
    vexi_arena_deinit(&arena);
    return status;
}

/* ---- Building ---------------------------------------------------------------------------------
 */

/* Mark in `segments` the live rows of the request's ids; changed[i] tells where. */
static vex_status hide_ids(vexi_table *table, const commit_request *request,
                           table_segment *segments, size_t count, bool *changed, vex_error *err) {
    if (request->ids.next == NULL || count == 0) {
        return VEX_OK;
    }
    for (size_t i = 0; i < count; i++) {
        VEX_TRY(vexi_segment_check(segments[i].segment, err));
    }
    /* Segment by segment, so that one id table at a time is in the cache. */
    for (size_t i = 0; i < count; i++) {
        request->ids.restart(request->ids.context);
        for (;;) {
            bool more;
            vex_string id;
            uint64_t hash;
            VEX_TRY(request->ids.next(request->ids.context, &more, &id, &hash, err));
            if (!more) {
                break;
            }
            bool found;
            uint64_t row;
            VEX_TRY(vexi_segment_find(segments[i].segment, id, hash, &found, &row, err));
            if (!found || vexi_bits_get(segments[i].deleted, row)) {
                continue;
            }
            if (!changed[i]) {
                VEX_TRY(deleted_own(table->core->env, &segments[i], err));
                changed[i] = true;
            }
            vexi_bits_set(segments[i].deleted, row);
        }
    }
    return VEX_OK;
}

/* Encode bits as a deletion vector: inline, or put as a file. */
static vex_status dv_store(vexi_table *table, const vexi_bits *bits, vexi_arena *arena,
                           vexi_delta_dv *out, vex_error *err) {
    const vexi_env *env = table->core->env;
    vexi_buffer data;
    vexi_buffer file;
    vexi_buffer_init(&data, env, (size_t)1 << 30);
    vexi_buffer_init(&file, env, (size_t)1 << 30);
    vex_status status = vexi_dv_encode(bits->words, bits->bit_count, &data, err);
    if (status == VEX_OK && data.size <= VEXI_DV_INLINE_SIZE_MAX) {
        status =
            vexi_dv_inline(vexi_span_of(data.data, data.size), bits->set_count, arena, out, err);
    } else if (status == VEX_OK) {
        char uuid[37];
        vexi_random_uuid(env, uuid);
        const char *relative;
        status = vexi_dv_by_uuid(uuid, data.size, bits->set_count, arena, out, err);
        if (status == VEX_OK) {
            status = vexi_dv_file_write(vexi_span_of(data.data, data.size), &file, err);
        }
        if (status == VEX_OK) {
            status = vexi_dv_object_name(out, arena, &relative, err);
        }
        if (status == VEX_OK) {
            size_t size = strlen(table->folder) + strlen(relative) + 8;
            char *name = vexi_arena_alloc(arena, size);
            if (name == NULL) {
                status = vexi_no_memory(err, size);
            } else {
                snprintf(name, size, "%s/data/%s", table->folder, relative);
                vexi_span part = vexi_span_of(file.data, file.size);
                status = vexi_store_put(table->core->store, name, &part, 1, err);
            }
        }
    }
    vexi_buffer_deinit(&data);
    vexi_buffer_deinit(&file);
    return status;
}

/* The first deletion vector needs a newer protocol, and a configuration that says so. */
static vex_status upgrade_protocol(const vexi_delta_state *delta, vexi_delta_commit *commit,
                                   vexi_arena *arena, vex_error *err) {
    static const char key[] = "delta.enableDeletionVectors";
    commit->protocol = delta->protocol; /* features that others listed stay */
    commit->protocol.reader_version = 3;
    commit->protocol.writer_version = 7;
    commit->protocol.deletion_vectors = true;
    commit->metadata = delta->metadata;
    size_t count = delta->metadata.configuration_count;
    vexi_delta_pair *pairs = vexi_arena_array(arena, count + 1, sizeof *pairs);
    if (pairs == NULL) {
        return vexi_no_memory(err, (count + 1) * sizeof *pairs);
    }
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (!vexi_string_is(delta->metadata.configuration[i].key, key)) {
            pairs[used++] = delta->metadata.configuration[i];
        }
    }
    pairs[used++] = (vexi_delta_pair){.key = vexi_string_of(key), .value = vexi_string_of("true")};
    commit->metadata.configuration = pairs;
    commit->metadata.configuration_count = used;
    return VEX_OK;
}

static const vexi_delta_add *file_of(const vexi_delta_state *delta, const vexi_segment *segment) {
    for (size_t i = 0; i < delta->file_count; i++) {
        if (vexi_string_is(delta->files[i].add.path, vexi_segment_path(segment))) {
            return &delta->files[i].add;
        }
    }
    return NULL;
}

vexi_delta_remove commit_remove(const vexi_delta_add *file, int64_t now_ms) {
    return (vexi_delta_remove){.path = file->path,
                               .raw_path = file->raw_path,
                               .deletion_timestamp_ms = now_ms,
                               .data_change = true,
                               .size_bytes = file->size_bytes,
                               .dv = file->dv};
}

/* Actions for a segment whose deletion vector grew. */
static vex_status replace_actions(vexi_table *table, table_segment *entry, int64_t now_ms,
                                  vexi_delta_commit *commit, vexi_arena *arena, vex_error *err) {
    const vexi_delta_add *old = file_of(&table->delta, entry->segment);
    VEX_ASSERT(old != NULL);
    commit->removes[commit->remove_count++] = commit_remove(old, now_ms);
    if (entry->deleted->set_count == vexi_segment_row_count(entry->segment)) {
        return VEX_OK; /* nothing is left of it */
    }
    vexi_delta_add *add = &commit->adds[commit->add_count++];
    *add = *old;
    add->data_change = true;
    add->row_count = (int64_t)vexi_segment_row_count(entry->segment);
    add->dv = (vexi_delta_dv){.storage = 0};
    VEX_TRY(dv_store(table, entry->deleted, arena, &add->dv, err));
    entry->dv_hash = dv_hash(&add->dv);
    entry->unstored = false;
    return VEX_OK;
}

/* Build the commit's actions against the newest version; entries of `segments` are updated. */
static vex_status build_actions(vexi_table *table, const commit_request *request,
                                table_segment *segments, size_t count, const bool *changed,
                                vexi_arena *arena, vexi_delta_commit *commit, vex_error *err) {
    size_t action_max = count + request->segment_count;
    *commit = (vexi_delta_commit){.operation = vexi_string_of(request->operation)};
    commit->adds = vexi_arena_calloc(arena, action_max + 1, sizeof *commit->adds);
    commit->removes = vexi_arena_calloc(arena, count + 1, sizeof *commit->removes);
    commit->txns = vexi_arena_calloc(arena, 1, sizeof *commit->txns);
    if (commit->adds == NULL || commit->removes == NULL || commit->txns == NULL) {
        return vexi_no_memory(err, action_max * sizeof *commit->adds);
    }
    if (request->sequence > 0) {
        commit->txns[0] = (vexi_delta_txn){.app_id = vexi_string_of(table->lake->wal_uuid),
                                           .version = (int64_t)request->sequence};
        commit->txn_count = 1;
    }
    int64_t now_ms = vexi_wall_us(table->core->env) / 1000;
    for (size_t i = 0; i < count; i++) {
        if (changed[i]) {
            VEX_TRY(replace_actions(table, &segments[i], now_ms, commit, arena, err));
        }
    }
    for (size_t i = 0; i < request->segment_count; i++) {
        vexi_delta_add *add = &commit->adds[commit->add_count++];
        *add = request->segments[i].add;
        if (request->segments[i].deleted != NULL && request->segments[i].deleted->set_count > 0) {
            VEX_TRY(dv_store(table, request->segments[i].deleted, arena, &add->dv, err));
        }
    }
    bool any_dv = false;
    for (size_t i = 0; i < commit->add_count; i++) {
        any_dv = any_dv || commit->adds[i].dv.storage != 0;
    }
    if (any_dv && !table->delta.protocol.deletion_vectors) {
        VEX_TRY(upgrade_protocol(&table->delta, commit, arena, err));
    }
    return VEX_OK;
}

/* The list to publish: segments that are left, then the new ones. Moves entries out of `segments`.
 */
static vex_status published_list(vexi_table *table, const commit_request *request,
                                 const vexi_delta_commit *commit, table_segment *segments,
                                 size_t count, table_segment **out, size_t *out_count,
                                 vex_error *err) {
    table_segment *list =
        vexi_calloc(table->core->env, count + request->segment_count + 1, sizeof *list);
    if (list == NULL) {
        return vexi_no_memory(err, count * sizeof *list);
    }
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        const vexi_bits *deleted = segments[i].deleted;
        bool empty = deleted != NULL &&
                     deleted->set_count == vexi_segment_row_count(segments[i].segment) &&
                     file_of(&table->delta, segments[i].segment) == NULL;
        if (!empty) {
            list[used++] = segments[i];
            segments[i] = (table_segment){.segment = NULL};
        }
    }
    for (size_t i = 0; i < request->segment_count; i++) {
        const vexi_delta_add *add = &commit->adds[commit->add_count - request->segment_count + i];
        list[used++] = (table_segment){.segment = vexi_segment_retain(request->segments[i].segment),
                                       .deleted = vexi_bits_retain(request->segments[i].deleted),
                                       .dv_hash = dv_hash(&add->dv)};
    }
    *out = list;
    *out_count = used;
    return VEX_OK;
}

/* One attempt against the newest version. VEX_EXISTS: the log moved, try again. */
static vex_status commit_attempt(vexi_table *table, commit_request *request, vex_error *err) {
    const vexi_env *env = table->core->env;
    request->unnamed = true;
    VEX_TRY(commit_refresh(table->core, table->folder, &table->delta, err));
    if (table_is_gone(table)) {
        VEX_TRY(table_let_go(table, err));
        return vexi_fail(err, VEX_NOT_FOUND, "collection '%s' was dropped", table->name);
    }
    VEX_TRY(commit_check_writable(table->folder, &table->delta, err));
    table_segment *segments = NULL;
    size_t count = 0;
    VEX_TRY(segments_of_state(table, &segments, &count, err));
    if (request->sequence > 0 &&
        vexi_delta_state_txn(&table->delta, vexi_string_of(table->lake->wal_uuid)) >=
            (int64_t)request->sequence) {
        /* An earlier attempt whose outcome was unknown went through. Log files go on its word. */
        vex_status settled = commit_settle(table->core, table->folder, table->delta.version, err);
        if (settled != VEX_OK) {
            table_segments_free(env, segments, count);
            return settled;
        }
        return table_publish(table, segments, count, request->flushed_count, table->delta.version,
                             err);
    }
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_delta_commit commit;
    table_segment *list = NULL;
    size_t list_count = 0;
    bool *changed = vexi_arena_calloc(&arena, count + 1, sizeof *changed);
    vex_status status = changed == NULL ? vexi_no_memory(err, count)
                                        : hide_ids(table, request, segments, count, changed, err);
    for (size_t i = 0; i < count && status == VEX_OK; i++) {
        changed[i] = changed[i] || segments[i].unstored;
    }
    if (status == VEX_OK) {
        status = build_actions(table, request, segments, count, changed, &arena, &commit, err);
    }
    if (status == VEX_OK) {
        status = commit_put(table->core, table->folder, &table->delta, &commit, err);
        /* These say that our bytes are not there; after anything else they are or may be. */
        request->unnamed = status == VEX_EXISTS || status == VEX_FULL || status == VEX_IO;
    }
    if (status == VEX_OK) {
        status = published_list(table, request, &commit, segments, count, &list, &list_count, err);
        if (status == VEX_OK) {
            status = table_publish(table, list, list_count, request->flushed_count,
                                   table->delta.version, err);
        }
        if (status != VEX_OK) { /* no refusal: the next refresh shows it */
            status = vexi_prefix(err, VEX_UNKNOWN_OUTCOME, "committed, but cannot be shown yet");
        }
    }
    table_segments_free(env, segments, count);
    vexi_arena_deinit(&arena);
    return status;
}

vex_status table_commit(vexi_table *table, commit_request *request, vex_error *err) {
    vex_status status = VEX_EXISTS;
    for (int i = 0; i < COMMIT_ATTEMPT_MAX && status == VEX_EXISTS; i++) {
        status = commit_attempt(table, request, err);
    }
    if (status == VEX_EXISTS) {
        return vexi_fail(err, VEX_CONFLICT, "'%s': others committed %d times meanwhile",
                         table->name, COMMIT_ATTEMPT_MAX);
    }
    return status;
}
