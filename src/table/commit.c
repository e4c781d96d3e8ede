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
 *     On a shared store the txn's application is the collection's log, and a commit is built only
 *     while the newest version has no higher epoch than ours (lake_log.h).
 *  3. While an outcome is unknown only identical bytes are put again under that version
 *     (delta_log.c, put_once.c).
 *  4. delta.version >= table.version; what lies between is durable but not yet published. */
#include "table/table_internal.h"

#include <stdio.h>

#include "base/bitmap.h"
#include "base/checksum.h"
#include "format/deletion_vector.h"

enum { COMMIT_ATTEMPT_MAX = 1000 };

/* Mark in one segment the live rows of the request's ids. *damaged: the segment could not tell. */
static vex_status hide_ids_in(vexi_table *table, const commit_request *request,
                              table_segment *segment, bool *changed, bool *damaged,
                              vex_error *err) {
    request->ids.restart(request->ids.context);
    for (;;) {
        bool more;
        vex_string id;
        uint64_t hash;
        *damaged = false;
        VEX_TRY(request->ids.next(request->ids.context, &more, &id, &hash, err));
        if (!more) {
            return VEX_OK;
        }
        bool found;
        uint64_t row;
        *damaged = true;
        VEX_TRY(vexi_segment_find(segment->segment, id, hash, &found, &row, err));
        *damaged = false;
        if (!found || vexi_bits_get(segment->deleted, row)) {
            continue;
        }
        if (!*changed) {
            VEX_TRY(table_deleted_own(table->core->env, segment, err));
            *changed = true;
        }
        vexi_bits_set(segment->deleted, row);
    }
}

/* The same in all of them; changed[i] tells where there were any. A segment whose index file proves
 * damaged is opened without it. */
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
        bool damaged;
        vex_error damage;
        vex_status status =
            hide_ids_in(table, request, &segments[i], &changed[i], &damaged, &damage);
        if (status != VEX_OK && damaged) {
            VEX_TRY(table_entry_open_plain(table, &segments[i], &damage, err));
            status = hide_ids_in(table, request, &segments[i], &changed[i], &damaged, &damage);
        }
        if (status != VEX_OK) {
            if (err != NULL) {
                *err = damage;
            }
            return status;
        }
    }
    return VEX_OK;
}

/* Where the replaced segment is in the newest version; count if it is not there any more. */
static size_t replaced_at(const commit_request *request, const table_segment *segments,
                          size_t count) {
    size_t at = 0;
    while (at < count && (request->replaced == NULL ||
                          strcmp(vexi_segment_path(segments[at].segment),
                                 vexi_segment_path(request->replaced->segment)) != 0)) {
        at++;
    }
    return at;
}

vex_status commit_hide(const vexi_env *env, commit_segment *segments, size_t count, vex_string id,
                       uint64_t hash, vex_error *err) {
    for (size_t i = 0; i < count; i++) {
        commit_segment *segment = &segments[i];
        bool found;
        uint64_t row;
        VEX_TRY(vexi_segment_find(segment->segment, id, hash, &found, &row, err));
        if (!found) {
            continue;
        }
        uint64_t row_count = vexi_segment_row_count(segment->segment);
        if (segment->deleted == NULL) {
            segment->deleted = vexi_bits_create(env, row_count, NULL);
            if (segment->deleted == NULL) {
                return vexi_no_memory(err, row_count / 8);
            }
        }
        vexi_bits_set(segment->deleted, row);
    }
    return VEX_OK;
}

/* Rows of the replaced segment that were deleted since its live ones were taken are deleted in the
 * segments that take its place. Worked out anew in each attempt: another engine may also bring
 * rows back, which the new segments lack; then they are of no use. */
static vex_status carry_deletions(vexi_table *table, commit_request *request,
                                  const table_segment *now, vex_error *err) {
    const vexi_env *env = table->core->env;
    const vexi_bits *taken = request->replaced->deleted;
    for (size_t i = 0; i < request->segment_count; i++) {
        vexi_bits_release(request->segments[i].deleted);
        request->segments[i].deleted = NULL;
    }
    if (!vexi_bits_contain(now->deleted, taken)) {
        return vexi_fail(err, VEX_CONFLICT, "rows of %s came back meanwhile",
                         vexi_segment_object_name(now->segment));
    }
    uint64_t row_count = vexi_segment_row_count(now->segment);
    for (uint64_t row = 0; now->deleted != NULL && row < row_count; row++) {
        if (!vexi_bits_get(now->deleted, row) || vexi_bits_get(taken, row)) {
            continue;
        }
        vex_string id;
        VEX_TRY(vexi_segment_id(now->segment, row, &id, err));
        VEX_TRY(commit_hide(env, request->segments, request->segment_count, id,
                            vexi_hash64(id.data, id.size), err));
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
    entry->dv_hash = table_dv_hash(&add->dv);
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
        char *app_id = vexi_arena_alloc(arena, 64);
        if (app_id == NULL) {
            return vexi_no_memory(err, 64);
        }
        table_log_app_id(table, app_id);
        commit->txns[0] = (vexi_delta_txn){.app_id = vexi_string_of(app_id),
                                           .version = (int64_t)request->sequence};
        commit->txn_count = 1;
    }
    int64_t now_ms = vexi_wall_us(table->core->env) / 1000;
    size_t replaced = replaced_at(request, segments, count);
    if (replaced < count) {
        const vexi_delta_add *old = file_of(&table->delta, segments[replaced].segment);
        VEX_ASSERT(old != NULL);
        vexi_delta_remove *remove = &commit->removes[commit->remove_count++];
        *remove = commit_remove(old, now_ms);
        remove->data_change = false;
    }
    for (size_t i = 0; i < count; i++) {
        if (changed[i] && i != replaced) {
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
    size_t replaced = replaced_at(request, segments, count);
    for (size_t i = 0; i < count; i++) {
        const vexi_bits *deleted = segments[i].deleted;
        bool empty = deleted != NULL &&
                     deleted->set_count == vexi_segment_row_count(segments[i].segment) &&
                     file_of(&table->delta, segments[i].segment) == NULL;
        if (!empty && i != replaced) {
            list[used++] = segments[i];
            segments[i] = (table_segment){.segment = NULL};
        }
    }
    for (size_t i = 0; i < request->segment_count; i++) {
        const vexi_delta_add *add = &commit->adds[commit->add_count - request->segment_count + i];
        list[used++] = (table_segment){.segment = vexi_segment_retain(request->segments[i].segment),
                                       .deleted = vexi_bits_retain(request->segments[i].deleted),
                                       .dv_hash = table_dv_hash(&add->dv)};
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
    VEX_TRY(table_check_epoch(table, err));
    table_segment *segments = NULL;
    size_t count = 0;
    VEX_TRY(table_segments_open(table, &segments, &count, err));
    char app_id[64];
    table_log_app_id(table, app_id);
    if (request->sequence > 0 &&
        vexi_delta_state_txn(&table->delta, vexi_string_of(app_id)) >= (int64_t)request->sequence) {
        /* An earlier attempt whose outcome was unknown went through. Log files go on its word. */
        vex_status settled = commit_settle(table->core, table->folder, table->delta.version, err);
        if (settled != VEX_OK) {
            table_segments_free(env, segments, count);
            return settled;
        }
        return table_publish(table, segments, count, request->flushed_count, true,
                             table->delta.version, err);
    }
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_delta_commit commit;
    table_segment *list = NULL;
    size_t list_count = 0;
    bool *changed = vexi_arena_calloc(&arena, count + 1, sizeof *changed);
    vex_status status = changed == NULL ? vexi_no_memory(err, count)
                                        : hide_ids(table, request, segments, count, changed, err);
    if (status == VEX_OK && request->replaced != NULL) {
        size_t at = replaced_at(request, segments, count);
        status = at == count ? vexi_fail(err, VEX_CONFLICT, "%s was removed meanwhile",
                                         vexi_segment_object_name(request->replaced->segment))
                             : carry_deletions(table, request, &segments[at], err);
    }
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
            status = table_publish(table, list, list_count, request->flushed_count, false,
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

vex_status table_take_version(vexi_table *table, vex_error *err) {
    vex_status status = VEX_EXISTS;
    while (status == VEX_EXISTS) {
        VEX_TRY(commit_refresh(table->core, table->folder, &table->delta, err));
        if (table_is_gone(table)) {
            return VEX_OK;
        }
        VEX_TRY(table_check_epoch(table, err));
        vexi_delta_commit commit = {.operation = vexi_string_of("SETTLE")};
        status = commit_put(table->core, table->folder, &table->delta, &commit, err);
    }
    return status;
}
