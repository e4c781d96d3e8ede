/* Commits of the Delta log, separated by the byte 0x1e: parsed, applied one after another, written
 * again, and what was written parsed once more. A short input is also taken as a folder's name. */
#include <stdlib.h>

#include "format/delta_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static vexi_env *env;

static void one_commit(vexi_span text, vexi_delta_state *state) {
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_delta_commit commit;
    vex_error err;
    if (vexi_delta_parse(text, &arena, &commit, &err) == VEX_OK) {
        vexi_buffer out;
        vexi_buffer_init(&out, env, VEXI_DELTA_COMMIT_SIZE_MAX);
        vex_status status = vexi_delta_write(&commit, &out, &err);
        VEX_ASSERT(status == VEX_OK);
        vexi_delta_commit again;
        status = vexi_delta_parse(vexi_span_of(out.data, out.size), &arena, &again, &err);
        VEX_ASSERT(status == VEX_OK);
        VEX_ASSERT(again.add_count == commit.add_count);
        VEX_ASSERT(again.remove_count == commit.remove_count);
        VEX_ASSERT(again.txn_count == commit.txn_count);
        for (size_t i = 0; i < commit.add_count; i++) {
            VEX_ASSERT(vexi_string_equal(again.adds[i].path, commit.adds[i].path));
            VEX_ASSERT(vexi_path_safe(commit.adds[i].path));
            VEX_ASSERT(vexi_dv_equal(&again.adds[i].dv, &commit.adds[i].dv));
        }
        VEX_ASSERT(again.metadata.schema.column_count == commit.metadata.schema.column_count);
        VEX_ASSERT(again.metadata.schema.dimension == commit.metadata.schema.dimension);
        vexi_buffer_deinit(&out);
        if (vexi_delta_state_apply(state, &commit, &err) == VEX_OK) {
            (void)vexi_delta_state_writable(state, &err);
        }
    }
    vexi_arena_deinit(&arena);
}

static void folder_name(const uint8_t *data, size_t size) {
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    const char *folder = vexi_arena_copy(&arena, data, size);
    const char *again;
    vex_string name;
    vex_error err;
    if (folder == NULL) {
        abort();
    }
    if (vexi_folder_parse(folder, &arena, &name, &err) == VEX_OK) {
        vex_status status = vexi_folder_name(name, &arena, &again, &err);
        VEX_ASSERT(status == VEX_OK && strcmp(folder, again) == 0);
    }
    vexi_arena_deinit(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (env == NULL && vexi_env_system_create(1, NULL, NULL, &env, NULL) != VEX_OK) {
        abort();
    }
    if (size <= 300) {
        folder_name(data, size);
    }
    vexi_delta_state state;
    vexi_delta_state_init(&state, env);
    while (size > 0) {
        const uint8_t *end = memchr(data, 0x1e, size);
        size_t part = end == NULL ? size : (size_t)(end - data);
        one_commit(vexi_span_of(data, part), &state);
        size -= end == NULL ? size : part + 1;
        data += part + 1;
    }
    for (size_t i = 0; i < state.file_count; i++) {
        VEX_ASSERT(state.files[i].added_version <= state.version);
        VEX_ASSERT(i == 0 || state.files[i - 1].added_version <= state.files[i].added_version);
    }
    vexi_delta_state_deinit(&state);
    return 0;
}
