/* The Delta log of a table on storage: reading what is new, putting the next version.
 *
 * While an outcome is unknown only identical bytes are put again under that version.
 *
 * A table that is opened over a network is read in two steps: a listing tells the versions and
 * their sizes, and all of them come together. Later versions are asked for one by one, since most
 * of the time there is one or none. */
#include <stdio.h>

#include "table/table_internal.h"

enum {
    LOAD_COUNT = 1000,    /* versions that are fetched together */
    LOAD_SIZE = 64 << 20, /* and their bytes, but for one version alone */
};

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

static vex_status commit_apply(vexi_delta_state *state, vexi_span bytes, const char *name,
                               vexi_arena *arena, vex_error *err) {
    vexi_delta_commit commit;
    vex_status status = vexi_delta_parse(bytes, arena, &commit, err);
    if (status == VEX_OK) {
        status = vexi_delta_state_apply(state, &commit, err);
    }
    return status == VEX_OK ? status : vexi_prefix(err, status, "%s", name);
}

/* Read and apply one version. VEX_NOT_FOUND if it is not there. */
static vex_status refresh_one(vexi_core *core, const char *folder, vexi_delta_state *state,
                              vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, core->env);
    char *name = NULL;
    vexi_span bytes;
    vex_status status = log_object_name(folder, state->version + 1, &arena, &name, err);
    if (status == VEX_OK) {
        status =
            vexi_store_get_all(core->store, name, VEXI_DELTA_COMMIT_SIZE_MAX, &arena, &bytes, err);
    }
    if (status == VEX_OK) {
        status = commit_apply(state, bytes, name, &arena, err);
    }
    vexi_arena_deinit(&arena);
    return status;
}

/* The next versions of the state, whose sizes are told by the listing: some of entries[0 .. count),
 * *used of them. */
static vex_status load_some(vexi_core *core, const vexi_list_entry *const *entries, size_t count,
                            vexi_delta_state *state, size_t *used, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, core->env);
    size_t n = 0, size = 0, failed = 0;
    vex_status status = VEX_OK;
    for (; n < count && n < LOAD_COUNT && (n == 0 || size + entries[n]->size_bytes <= LOAD_SIZE);
         n++) {
        if (entries[n]->size_bytes > VEXI_DELTA_COMMIT_SIZE_MAX) {
            status = vexi_fail(err, VEX_LIMIT, "%s has %llu bytes, more than the %d allowed",
                               entries[n]->name, (unsigned long long)entries[n]->size_bytes,
                               VEXI_DELTA_COMMIT_SIZE_MAX);
            goto done;
        }
        size += (size_t)entries[n]->size_bytes;
    }
    vexi_range *ranges = vexi_arena_array(&arena, n, sizeof *ranges);
    vexi_store_read *reads = vexi_arena_array(&arena, n, sizeof *reads);
    uint8_t *bytes = vexi_arena_calloc(&arena, size + n, 1); /* a NUL behind each */
    if (ranges == NULL || reads == NULL || bytes == NULL) {
        status = vexi_no_memory(err, size);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        ranges[i] = (vexi_range){.size = (size_t)entries[i]->size_bytes, .target = bytes};
        reads[i] = (vexi_store_read){.name = entries[i]->name, .ranges = &ranges[i], .count = 1};
        bytes += ranges[i].size + 1;
    }
    VEX_TRY_GOTO(status, done, vexi_store_get_many(core->store, reads, n, 0, NULL, &failed, err));
    for (size_t i = 0; i < n; i++) {
        vexi_span span = vexi_span_of(ranges[i].target, ranges[i].size);
        VEX_TRY_GOTO(status, done, commit_apply(state, span, entries[i]->name, &arena, err));
    }
    *used = n;
done:
    vexi_arena_deinit(&arena);
    return status;
}

vex_status commit_load(vexi_core *core, const char *folder, vexi_delta_state *state,
                       vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, core->env);
    vex_status status = VEX_OK;
    size_t size = strlen(folder) + 64, count = 0;
    vexi_listing listing = {0};
    const vexi_list_entry **entries = NULL;
    char *prefix = vexi_arena_alloc(&arena, size);
    if (prefix == NULL) {
        status = vexi_no_memory(err, size);
        goto done;
    }
    snprintf(prefix, size, "%s/data/_delta_log/", folder);
    VEX_TRY_GOTO(status, done,
                 vexi_store_list(core->store, prefix, NULL, false, &arena, &listing, err));
    entries = vexi_arena_array(&arena, listing.count, sizeof *entries);
    if (entries == NULL) {
        status = vexi_no_memory(err, listing.count * sizeof *entries);
        goto done;
    }
    for (size_t i = 0; i < listing.count; i++) { /* in the order of their names: by version */
        char name[26];
        vexi_delta_commit_name(state->version + 1 + (int64_t)count, name);
        if (strcmp(listing.entries[i].name + strlen(prefix), name) == 0) {
            entries[count++] = &listing.entries[i];
        }
    }
    if (count == 0 && state->version < 0) {
        status = vexi_fail(err, VEX_NOT_FOUND, "%s/data/_delta_log: version 0 is missing", folder);
        goto done;
    }
    for (size_t at = 0, used; at < count; at += used) {
        VEX_TRY_GOTO(status, done, load_some(core, entries + at, count - at, state, &used, err));
    }
done:
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
        status = table_put_once(core, name, vexi_span_of(bytes.data, bytes.size), err);
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
