#include "sim/sim_foreign.h"

#include "base/bitmap.h"
#include "check.h"
#include "format/deletion_vector.h"
#include "format/segment_file.h"
#include "table/table_internal.h"

/* What a commit is to say, given the newest state. */
typedef vex_status (*fill_function)(void *argument, const vexi_delta_state *state,
                                    vexi_arena *arena, vexi_delta_commit *commit, vex_error *err);

static vex_status put_commit(const sim_foreign *foreign, int64_t version,
                             const vexi_delta_commit *commit, vex_error *err) {
    vexi_buffer bytes;
    vexi_buffer_init(&bytes, foreign->env, 1 << 20);
    char name[256];
    char file[26];
    vexi_delta_commit_name(version, file);
    snprintf(name, sizeof name, "%s/data/_delta_log/%s", foreign->folder, file);
    vex_status status = vexi_delta_write(commit, &bytes, err);
    if (status == VEX_OK) {
        vexi_span part = vexi_span_of(bytes.data, bytes.size);
        status = vexi_store_put_if_absent(foreign->store, name, &part, 1, err);
    }
    vexi_buffer_deinit(&bytes);
    return status;
}

static vex_status commit_loop(const sim_foreign *foreign, fill_function fill, void *argument,
                              vex_error *err) {
    vexi_core core = {.references = 1, .env = foreign->env, .store = foreign->store};
    vexi_delta_state state;
    vexi_delta_state_init(&state, foreign->env);
    vex_status status = VEX_EXISTS;
    while (status == VEX_EXISTS) {
        vexi_arena arena;
        vexi_arena_init(&arena, foreign->env);
        vexi_delta_commit commit = {.operation = vexi_string_of("WRITE"),
                                    .timestamp_ms = 1600000000000};
        status = commit_refresh(&core, foreign->folder, &state, err);
        if (status == VEX_OK) {
            status = fill(argument, &state, &arena, &commit, err);
        }
        if (status == VEX_OK) {
            status = put_commit(foreign, state.version + 1, &commit, err);
        }
        vexi_arena_deinit(&arena);
    }
    vexi_delta_state_deinit(&state);
    return status;
}

static vex_status fill_add(void *argument, const vexi_delta_state *state, vexi_arena *arena,
                           vexi_delta_commit *commit, vex_error *err) {
    (void)state;
    (void)arena;
    (void)err;
    commit->adds = argument;
    commit->add_count = 1;
    return VEX_OK;
}

vex_status sim_foreign_append(const sim_foreign *foreign, const vexi_schema *schema,
                              const sim_change *rows, size_t count, char *path, vex_error *err) {
    CHECK(count <= SIM_CHANGES_MAX);
    sim_row made[SIM_CHANGES_MAX];
    const vexi_row *pointers[SIM_CHANGES_MAX];
    for (size_t i = 0; i < count; i++) {
        sim_row_init(&made[i], schema->dimension, rows[i].id, rows[i].version);
        pointers[i] = &made[i].row;
    }
    vexi_arena arena;
    vexi_arena_init(&arena, foreign->env);
    vexi_buffer bytes;
    vexi_buffer_init(&bytes, foreign->env, 64 << 20);
    vexi_segment_layout layout;
    vex_status status =
        vexi_segment_write(foreign->env, schema, pointers, count, &bytes, &arena, &layout, err);
    char uuid[37];
    char file[64];
    char object[256];
    vexi_random_uuid(foreign->env, uuid);
    snprintf(file, sizeof file, "part-%s.parquet", uuid);
    snprintf(object, sizeof object, "%s/data/%s", foreign->folder, file);
    if (status == VEX_OK) {
        vexi_span part = vexi_span_of(bytes.data, bytes.size);
        status = vexi_store_put(foreign->store, object, &part, 1, err);
    }
    if (status == VEX_OK) {
        vexi_delta_add add = {.path = vexi_string_of(file),
                              .size_bytes = bytes.size,
                              .modification_time_ms = 1600000000000,
                              .row_count = (int64_t)count,
                              .data_change = true};
        status = commit_loop(foreign, fill_add, &add, err);
    }
    if (path != NULL) {
        memcpy(path, file, sizeof file);
    }
    vexi_buffer_deinit(&bytes);
    vexi_arena_deinit(&arena);
    for (size_t i = 0; i < count; i++) {
        sim_row_deinit(&made[i]);
    }
    return status;
}

static const vexi_delta_add *find_file(const vexi_delta_state *state, const char *path) {
    for (size_t i = 0; i < state->file_count; i++) {
        if (vexi_string_is(state->files[i].add.path, path)) {
            return &state->files[i].add;
        }
    }
    return NULL;
}

static vex_status remove_of(const vexi_delta_add *add, vexi_arena *arena, vexi_delta_commit *commit,
                            vex_error *err) {
    vexi_delta_remove *remove = vexi_arena_calloc(arena, 1, sizeof *remove);
    if (remove == NULL) {
        return vexi_no_memory(err, sizeof *remove);
    }
    *remove = (vexi_delta_remove){.path = add->path,
                                  .deletion_timestamp_ms = 1600000000000,
                                  .data_change = true,
                                  .size_bytes = add->size_bytes,
                                  .dv = add->dv};
    commit->removes = remove;
    commit->remove_count = 1;
    return VEX_OK;
}

static vex_status fill_remove(void *argument, const vexi_delta_state *state, vexi_arena *arena,
                              vexi_delta_commit *commit, vex_error *err) {
    const vexi_delta_add *add = find_file(state, argument);
    CHECK(add != NULL);
    return remove_of(add, arena, commit, err);
}

vex_status sim_foreign_remove(const sim_foreign *foreign, const char *path, vex_error *err) {
    char copy[64];
    snprintf(copy, sizeof copy, "%s", path);
    return commit_loop(foreign, fill_remove, copy, err);
}

static vex_status fill_nothing(void *argument, const vexi_delta_state *state, vexi_arena *arena,
                               vexi_delta_commit *commit, vex_error *err) {
    (void)argument;
    (void)state;
    (void)arena;
    (void)err;
    commit->operation = vexi_string_of("OPTIMIZE");
    return VEX_OK;
}

vex_status sim_foreign_touch(const sim_foreign *foreign, vex_error *err) {
    return commit_loop(foreign, fill_nothing, NULL, err);
}

typedef struct delete_job {
    const sim_foreign *foreign;
    const char *path;
    uint64_t row_count;
    uint64_t row;
    bool only;
} delete_job;

/* The rows that the present deletion vector hides. */
static vex_status dv_bits(const delete_job *job, const vexi_delta_dv *dv, vexi_arena *arena,
                          uint64_t *bits, vex_error *err) {
    if (dv->storage == 0) {
        return VEX_OK;
    }
    vexi_span data;
    if (dv->storage == 'i') {
        VEX_TRY(vexi_dv_inline_data(dv, arena, &data, err));
    } else {
        const char *relative;
        vexi_span file;
        char object[256];
        VEX_TRY(vexi_dv_object_name(dv, arena, &relative, err));
        snprintf(object, sizeof object, "%s/data/%s", job->foreign->folder, relative);
        VEX_TRY(vexi_store_get_all(job->foreign->store, object, 1 << 20, arena, &file, err));
        VEX_TRY(vexi_dv_file_find(file, dv, &data, err));
    }
    return vexi_dv_decode(data, job->row_count, dv->cardinality, bits, err);
}

static vex_status fill_delete(void *argument, const vexi_delta_state *state, vexi_arena *arena,
                              vexi_delta_commit *commit, vex_error *err) {
    const delete_job *job = argument;
    const vexi_delta_add *old = find_file(state, job->path);
    CHECK(old != NULL);
    size_t words = vexi_bitmap_words(job->row_count);
    uint64_t *bits = vexi_arena_calloc(arena, words, sizeof *bits);
    vexi_delta_add *add = vexi_arena_calloc(arena, 1, sizeof *add);
    CHECK(bits != NULL && add != NULL);
    if (!job->only) {
        VEX_TRY(dv_bits(job, &old->dv, arena, bits, err));
    }
    vexi_bitmap_set(bits, job->row);
    vexi_buffer data;
    vexi_buffer_init(&data, job->foreign->env, 1 << 20);
    VEX_TRY(remove_of(old, arena, commit, err));
    *add = *old;
    add->row_count = (int64_t)job->row_count;
    vex_status status = vexi_dv_encode(bits, job->row_count, &data, err);
    if (status == VEX_OK) {
        status = vexi_dv_inline(vexi_span_of(data.data, data.size),
                                vexi_bitmap_count(bits, job->row_count), arena, &add->dv, err);
    }
    vexi_buffer_deinit(&data);
    commit->adds = add;
    commit->add_count = 1;
    if (!state->protocol.deletion_vectors) {
        commit->protocol = (vexi_delta_protocol){
            .reader_version = 3, .writer_version = 7, .deletion_vectors = true};
    }
    return status;
}

vex_status sim_foreign_delete(const sim_foreign *foreign, const char *path, uint64_t row_count,
                              uint64_t row, bool only, vex_error *err) {
    delete_job job = {
        .foreign = foreign, .path = path, .row_count = row_count, .row = row, .only = only};
    return commit_loop(foreign, fill_delete, &job, err);
}
