/* The Delta log of a table on storage: reading what is new, putting the next version.
 *
 * While an outcome is unknown only identical bytes are put again under that version. */
#include <stdio.h>

#include "table/table_internal.h"

enum { PUT_TRY_MAX = 4 };

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
