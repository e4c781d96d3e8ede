/* The state of a Delta table: what its commits add up to.
 *
 * Invariants:
 *  - `files` holds each path once, in order of added_version, then of appearance. A file whose
 *    deletion vector is replaced keeps its place and its added_version.
 *  - A commit applies as a whole or not at all: everything that can fail (copies, room, the check
 *    that the actions fit) comes before the first change.
 *
 * Applying costs one pass over the files, each looked up in a hash table of the commit's paths, so
 * a long log of small commits costs files x commits look-ups of a few nanoseconds. Commits without
 * adds and removes skip it. A hash table over the files themselves was left out: it would be
 * rebuilt at every removal, because the order of the files counts. */
#include "base/checksum.h"
#include "format/delta_internal.h"

enum { TXN_COUNT_MAX = 1 << 16 };

#define NONE UINT32_MAX

bool vexi_dv_equal(const vexi_delta_dv *a, const vexi_delta_dv *b) {
    return a->storage == b->storage &&
           (a->storage == 0 ||
            (a->offset == b->offset && vexi_string_equal(a->encoded, b->encoded)));
}

void vexi_delta_state_init(vexi_delta_state *state, const vexi_env *env) {
    *state = (vexi_delta_state){.env = env, .version = -1};
    vexi_arena_init(&state->arena, env);
}

void vexi_delta_state_deinit(vexi_delta_state *state) {
    vexi_free(state->env, state->files);
    vexi_free(state->env, state->txns);
    vexi_arena_deinit(&state->arena);
    vexi_delta_state_init(state, state->env);
}

/* ---- Copies ---------------------------------------------------------------------------------- */

static vex_status copy_string(vexi_arena *arena, vex_string *text, vex_error *err) {
    if (text->data != NULL) {
        text->data = vexi_arena_copy(arena, text->data, text->size);
        if (text->data == NULL) {
            return vexi_no_memory(err, text->size);
        }
    }
    return VEX_OK;
}

static vex_status copy_add(vexi_arena *arena, vexi_delta_add *add, vex_error *err) {
    VEX_TRY(copy_string(arena, &add->path, err));
    VEX_TRY(copy_string(arena, &add->raw_path, err));
    VEX_TRY(copy_string(arena, &add->dv.encoded, err));
    return copy_string(arena, &add->index.path, err);
}

static vex_status copy_strings(vexi_arena *arena, const vex_string **strings, size_t count,
                               vex_error *err) {
    vex_string *copy = vexi_arena_calloc(arena, count, sizeof *copy);
    if (copy == NULL) {
        return vexi_no_memory(err, count * sizeof *copy);
    }
    for (size_t i = 0; i < count; i++) {
        copy[i] = (*strings)[i];
        VEX_TRY(copy_string(arena, &copy[i], err));
    }
    *strings = copy;
    return VEX_OK;
}

static vex_status copy_protocol(vexi_arena *arena, vexi_delta_protocol *protocol, vex_error *err) {
    VEX_TRY(copy_strings(arena, &protocol->reader_features, protocol->reader_feature_count, err));
    return copy_strings(arena, &protocol->writer_features, protocol->writer_feature_count, err);
}

static vex_status copy_metadata(vexi_arena *arena, vexi_delta_metadata *metadata, vex_error *err) {
    VEX_TRY(copy_string(arena, &metadata->id, err));
    VEX_TRY(copy_string(arena, &metadata->name, err));
    VEX_TRY(copy_string(arena, &metadata->schema_string, err));
    uint32_t column_count = metadata->schema.column_count;
    vexi_schema_column *columns = vexi_arena_calloc(arena, column_count, sizeof *columns);
    size_t pair_count = metadata->configuration_count;
    vexi_delta_pair *pairs = vexi_arena_calloc(arena, pair_count, sizeof *pairs);
    if (columns == NULL || pairs == NULL) {
        return vexi_no_memory(err, pair_count * sizeof *pairs + column_count * sizeof *columns);
    }
    for (uint32_t i = 0; i < column_count; i++) {
        columns[i] = metadata->schema.columns[i];
        VEX_TRY(copy_string(arena, &columns[i].name, err));
    }
    for (size_t i = 0; i < pair_count; i++) {
        pairs[i] = metadata->configuration[i];
        VEX_TRY(copy_string(arena, &pairs[i].key, err));
        VEX_TRY(copy_string(arena, &pairs[i].value, err));
    }
    metadata->schema.columns = columns;
    metadata->configuration = pairs;
    return VEX_OK;
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* What a commit does with one path. */
typedef struct path_actions {
    vex_string path;
    uint64_t hash;
    uint32_t add;    /* index in the commit, or NONE */
    uint32_t remove; /* first of the commit's removes; the next in `next_remove` */
    bool add_placed; /* the add took the place of a file */
} path_actions;

typedef struct file_plan {
    const vexi_delta_commit *commit;
    path_actions *paths;
    size_t path_count;
    uint32_t *slots; /* index into paths + 1, 0 empty; a power of two of them */
    size_t slot_count;
    uint32_t *next_remove;  /* for each remove the next of its path */
    uint32_t *replacements; /* for each file of the state: NONE keep, KEEP_NOT drop, else the add */
} file_plan;

#define DROP (UINT32_MAX - 1)

static path_actions *plan_find(file_plan *plan, vex_string path, uint64_t hash, bool insert) {
    size_t mask = plan->slot_count - 1;
    for (size_t slot = (size_t)hash & mask;; slot = (slot + 1) & mask) {
        uint32_t index = plan->slots[slot];
        if (index == 0) {
            if (!insert) {
                return NULL;
            }
            plan->slots[slot] = (uint32_t)++plan->path_count;
            path_actions *entry = &plan->paths[plan->path_count - 1];
            *entry = (path_actions){.path = path, .hash = hash, .add = NONE, .remove = NONE};
            return entry;
        }
        path_actions *entry = &plan->paths[index - 1];
        if (entry->hash == hash && vexi_string_equal(entry->path, path)) {
            return entry;
        }
    }
}

static bool plan_removes(const file_plan *plan, const path_actions *actions,
                         const vexi_delta_dv *dv) {
    for (uint32_t r = actions->remove; r != NONE; r = plan->next_remove[r]) {
        if (vexi_dv_equal(&plan->commit->removes[r].dv, dv)) {
            return true;
        }
    }
    return false;
}

/* Decide for each file of the state. Changes nothing but the plan. */
static vex_status plan_files(file_plan *plan, const vexi_delta_state *state, vex_error *err) {
    const vexi_delta_commit *commit = plan->commit;
    for (size_t i = 0; i < commit->add_count; i++) {
        vex_string path = commit->adds[i].path;
        path_actions *actions = plan_find(plan, path, vexi_hash64(path.data, path.size), true);
        if (actions->add != NONE) {
            return vexi_fail(err, VEX_CORRUPT, "the commit adds '%.200s' twice", path.data);
        }
        actions->add = (uint32_t)i;
    }
    for (size_t i = 0; i < commit->remove_count; i++) {
        vex_string path = commit->removes[i].path;
        path_actions *actions = plan_find(plan, path, vexi_hash64(path.data, path.size), true);
        plan->next_remove[i] = actions->remove;
        actions->remove = (uint32_t)i;
    }
    for (size_t i = 0; i < state->file_count; i++) {
        const vexi_delta_file *file = &state->files[i];
        path_actions *actions = plan_find(plan, file->add.path, file->path_hash, false);
        plan->replacements[i] = NONE;
        if (actions == NULL) {
            continue;
        }
        bool removed = plan_removes(plan, actions, &file->add.dv);
        if (actions->add != NONE) {
            if (!removed && !vexi_dv_equal(&commit->adds[actions->add].dv, &file->add.dv)) {
                return vexi_fail(err, VEX_CORRUPT,
                                 "the commit adds '%.200s' with another deletion vector but does "
                                 "not remove the file as it was",
                                 file->add.path.data);
            }
            plan->replacements[i] = actions->add;
            actions->add_placed = true;
        } else if (removed) {
            plan->replacements[i] = DROP;
        }
    }
    return VEX_OK;
}

static void plan_deinit(file_plan *plan, const vexi_env *env) {
    vexi_free(env, plan->paths);
    vexi_free(env, plan->slots);
    vexi_free(env, plan->next_remove);
    vexi_free(env, plan->replacements);
}

static vex_status plan_init(file_plan *plan, const vexi_delta_state *state,
                            const vexi_delta_commit *commit, vex_error *err) {
    *plan = (file_plan){.commit = commit, .slot_count = 16};
    size_t count = commit->add_count + commit->remove_count;
    if (count == 0) {
        return VEX_OK;
    }
    if (count > UINT32_MAX / 4) {
        return vexi_fail(err, VEX_LIMIT, "a commit of %zu files", count);
    }
    while (plan->slot_count < count * 2) {
        plan->slot_count *= 2;
    }
    plan->paths = vexi_calloc(state->env, count, sizeof *plan->paths);
    plan->slots = vexi_calloc(state->env, plan->slot_count, sizeof *plan->slots);
    plan->next_remove =
        vexi_calloc(state->env, commit->remove_count + 1, sizeof *plan->next_remove);
    plan->replacements = vexi_calloc(state->env, state->file_count + 1, sizeof *plan->replacements);
    if (plan->paths == NULL || plan->slots == NULL || plan->next_remove == NULL ||
        plan->replacements == NULL) {
        return vexi_no_memory(err, count * sizeof *plan->paths);
    }
    return plan_files(plan, state, err);
}

/* Carry the plan out; the state has room. adds: the commit's, with strings of the state. */
static void plan_apply(const file_plan *plan, vexi_delta_state *state, const vexi_delta_add *adds,
                       int64_t version) {
    size_t kept = 0;
    for (size_t i = 0; i < state->file_count; i++) {
        uint32_t replacement = plan->replacements[i];
        if (replacement == DROP) {
            continue;
        }
        vexi_delta_file file = state->files[i];
        if (replacement != NONE) {
            file.add = adds[replacement];
        }
        state->files[kept++] = file;
    }
    /* Paths were entered in the order of the adds. */
    for (size_t i = 0; i < plan->path_count; i++) {
        const path_actions *actions = &plan->paths[i];
        if (actions->add != NONE && !actions->add_placed) {
            state->files[kept++] = (vexi_delta_file){
                .add = adds[actions->add], .added_version = version, .path_hash = actions->hash};
        }
    }
    state->file_count = kept;
}

/* ---- Transactions ---------------------------------------------------------------------------- */

static size_t txn_find(const vexi_delta_txn *txns, size_t count, vex_string app_id) {
    for (size_t i = 0; i < count; i++) {
        if (vexi_string_equal(txns[i].app_id, app_id)) {
            return i;
        }
    }
    return count;
}

int64_t vexi_delta_state_txn(const vexi_delta_state *state, vex_string app_id) {
    size_t i = txn_find(state->txns, state->txn_count, app_id);
    return i < state->txn_count ? state->txns[i].version : -1;
}

/* ---- Applying -------------------------------------------------------------------------------- */

static vex_status apply_check(const vexi_delta_state *state, const vexi_delta_commit *commit,
                              vex_error *err) {
    if (state->version < 0 &&
        (commit->metadata.id.data == NULL || commit->protocol.reader_version == 0)) {
        return vexi_fail(err, VEX_CORRUPT, "the table's first commit has no metaData or protocol");
    }
    if (commit->txn_count > TXN_COUNT_MAX || state->txn_count > TXN_COUNT_MAX - commit->txn_count) {
        return vexi_fail(err, VEX_LIMIT, "the table has transactions of more than %d applications",
                         TXN_COUNT_MAX);
    }
    return VEX_OK;
}

static vex_status apply(vexi_delta_state *state, const vexi_delta_commit *commit, file_plan *plan,
                        vex_error *err) {
    /* Prepare: copies and room. What is left in the arena after a failure is garbage, no more. */
    vexi_arena *arena = &state->arena;
    vexi_delta_add *adds = vexi_arena_calloc(arena, commit->add_count, sizeof *adds);
    vexi_delta_txn *txns = vexi_arena_calloc(arena, commit->txn_count, sizeof *txns);
    if (adds == NULL || txns == NULL) {
        return vexi_no_memory(err, commit->add_count * sizeof *adds);
    }
    for (size_t i = 0; i < commit->add_count; i++) {
        adds[i] = commit->adds[i];
        VEX_TRY(copy_add(arena, &adds[i], err));
    }
    for (size_t i = 0; i < commit->txn_count; i++) {
        txns[i] = commit->txns[i];
        VEX_TRY(copy_string(arena, &txns[i].app_id, err));
    }
    vexi_delta_protocol protocol = commit->protocol;
    VEX_TRY(copy_protocol(arena, &protocol, err));
    vexi_delta_metadata metadata = commit->metadata;
    VEX_TRY(copy_metadata(arena, &metadata, err));
    void *files = state->files;
    VEX_TRY(vexi_grow(state->env, &files, &state->file_capacity, state->file_count,
                      state->file_count + commit->add_count, sizeof *state->files, err));
    state->files = files;
    void *state_txns = state->txns;
    VEX_TRY(vexi_grow(state->env, &state_txns, &state->txn_capacity, state->txn_count,
                      state->txn_count + commit->txn_count, sizeof *state->txns, err));
    state->txns = state_txns;

    /* Commit: nothing below fails. */
    state->version++;
    if (protocol.reader_version > 0) {
        state->protocol = protocol;
    }
    if (metadata.id.data != NULL) {
        if (!vexi_string_equal(metadata.id, state->metadata.id)) {
            state->txn_count = 0;
        }
        state->metadata = metadata;
        vex_string dropped = vexi_delta_configured(&metadata, VEXI_KEY_DROPPED);
        state->dropped = dropped.data != NULL && vexi_string_is(dropped, "true");
    }
    for (size_t i = 0; i < commit->txn_count; i++) {
        size_t at = txn_find(state->txns, state->txn_count, txns[i].app_id);
        state->txns[at] = txns[i];
        state->txn_count += at == state->txn_count;
    }
    if (plan->path_count > 0) {
        plan_apply(plan, state, adds, state->version);
    }
    return VEX_OK;
}

vex_status vexi_delta_state_apply(vexi_delta_state *state, const vexi_delta_commit *commit,
                                  vex_error *err) {
    file_plan plan;
    VEX_TRY(apply_check(state, commit, err));
    vex_status status = plan_init(&plan, state, commit, err);
    if (status == VEX_OK) {
        status = apply(state, commit, &plan, err);
    }
    plan_deinit(&plan, state->env);
    return status;
}

/* ---- What writers must do -------------------------------------------------------------------- */

static bool configured_true(const vexi_delta_metadata *metadata, const char *key) {
    vex_string value = vexi_delta_configured(metadata, key);
    return value.data != NULL && vexi_string_is(value, "true");
}

vex_status vexi_delta_state_writable(const vexi_delta_state *state, vex_error *err) {
    /* These ask nothing by themselves of a writer that adds and removes whole files; what a setting
     * makes them ask is looked at below. */
    static const char *const known[] = {
        "deletionVectors",  "appendOnly",    "invariants",     "columnMapping",
        "timestampNtz",     "v2Checkpoint",  "domainMetadata", "vacuumProtocolCheck",
        "checkConstraints", "changeDataFeed"};
    const vexi_delta_protocol *protocol = &state->protocol;
    if (protocol->writer_version > 7) {
        return vexi_fail(err, VEX_UNSUPPORTED, "the table asks for writer version %d",
                         (int)protocol->writer_version);
    }
    for (size_t i = 0; i < protocol->writer_feature_count; i++) {
        bool found = false;
        for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
            found = found || vexi_string_is(protocol->writer_features[i], known[k]);
        }
        if (!found) {
            return vexi_fail(err, VEX_UNSUPPORTED, "the table asks for the writer feature '%s'",
                             protocol->writer_features[i].data);
        }
    }
    static const char *const settings[] = {"delta.appendOnly", "delta.enableChangeDataFeed"};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        if (configured_true(&state->metadata, settings[i])) {
            return vexi_fail(err, VEX_UNSUPPORTED, "the table has %s set", settings[i]);
        }
    }
    for (size_t i = 0; i < state->metadata.configuration_count; i++) {
        vex_string key = state->metadata.configuration[i].key;
        static const char prefix[] = "delta.constraints.";
        if (key.size >= sizeof prefix - 1 && memcmp(key.data, prefix, sizeof prefix - 1) == 0) {
            return vexi_fail(err, VEX_UNSUPPORTED, "the table has the constraint '%s'", key.data);
        }
    }
    /* Per-column rules stand in the metadata of the schema's fields. */
    static const char *const rules[] = {"delta.invariants", "delta.generationExpression",
                                        "delta.identity."};
    vex_string schema = state->metadata.schema_string;
    for (size_t i = 0; i < sizeof rules / sizeof *rules && schema.data != NULL; i++) {
        if (strstr(schema.data, rules[i]) != NULL) {
            return vexi_fail(err, VEX_UNSUPPORTED, "a column of the table has %s", rules[i]);
        }
    }
    return VEX_OK;
}
