/* Who may write a collection on a store that several nodes share.
 *
 *   list ─► who holds it? ─► alive ──────────────────────────────► refused, naming the holder
 *                │ nobody, ourselves, or dead (or takeover)
 *                ▼
 *   claim n+1 ─► taken ───────────────────────────────────────────► look again
 *                │
 *                ▼
 *   newest version: position >= n+1 ──────────────────────────────► the claim does not count
 *                │
 *                ▼
 *   commit the epoch ─► a higher one is there ────────────────────► refused
 *                │
 *                ▼
 *   read the log up to n ─► writer
 *
 * A holder is alive while its heartbeat object changes; one that has not changed for a while, by
 * the clock of who looks, or is gone (a node that ends removes it) is dead. That only decides who
 * may try: two writers at once are kept apart by the claim in the log and the epoch in the Delta
 * log, whatever clocks say (SlateDB's manifest and its log fencing have the same two steps). */
#include <stdio.h>

#include "base/checksum.h"
#include "table/table_internal.h"

enum { ATTEMPT_MAX = 16, HEARTBEAT_SIZE_MAX = 4096, NODES_SEEN_MAX = 64, NAME_SIZE = 64 };

/* What was seen of another node's heartbeat. */
typedef struct node_seen {
    char uuid[37];
    uint32_t hash_low; /* of its bytes */
    uint32_t hash_high;
    uint64_t since_ns; /* when these bytes were first seen */
} node_seen;

struct lake_node {
    vexi_lake *lake;
    char uuid[37]; /* immutable */
    vexi_task beat_task;
    pthread_mutex_t mutex; /* all below; held over a beat */
    bool started;
    uint64_t beats;
    node_seen seen[NODES_SEEN_MAX];
    size_t seen_count;
};

static void heartbeat_name(const char *uuid, char out[NAME_SIZE]) {
    snprintf(out, NAME_SIZE, ".vexlake/nodes/%s", uuid);
}

/* The mutex is held. */
static vex_status beat(lake_node *node, vex_error *err) {
    char name[NAME_SIZE];
    char text[256];
    heartbeat_name(node->uuid, name);
    int size = snprintf(text, sizeof text, "{\"node\":\"%s\",\"beat\":%llu,\"time\":%lld}\n",
                        node->lake->config.node_name, (unsigned long long)++node->beats,
                        (long long)(vexi_wall_us(node->lake->core->env) / 1000));
    vexi_span part = vexi_span_of(text, (size_t)size);
    return vexi_store_put(node->lake->core->store, name, &part, 1, err);
}

static void beat_run(void *argument) {
    lake_node *node = argument;
    vex_error error;
    pthread_mutex_lock(&node->mutex);
    if (beat(node, &error) != VEX_OK) {
        vexi_log(node->lake->core->env, 2,
                 "heartbeat failed, another node may take over what this one writes: %s",
                 error.message);
    }
    pthread_mutex_unlock(&node->mutex);
    if (!__atomic_load_n(&node->lake->closing, __ATOMIC_RELAXED)) {
        vexi_submit(node->lake->core->env, &node->beat_task,
                    node->lake->config.heartbeat_interval_ms);
    }
}

vex_status lake_node_create(vexi_lake *lake, lake_node **out, vex_error *err) {
    *out = NULL;
    lake_node *node = vexi_calloc(lake->core->env, 1, sizeof *node);
    if (node == NULL) {
        return vexi_no_memory(err, sizeof *node);
    }
    node->lake = lake;
    node->beat_task = (vexi_task){.run = beat_run, .argument = node};
    pthread_mutex_init(&node->mutex, NULL);
    if (lake->wal_uuid[0] != '\0') { /* a log on its own disk: the same node after a restart */
        memcpy(node->uuid, lake->wal_uuid, sizeof node->uuid);
    } else {
        vexi_random_uuid(lake->core->env, node->uuid);
    }
    *out = node;
    return VEX_OK;
}

void lake_node_destroy(lake_node *node) {
    if (node == NULL) {
        return;
    }
    const vexi_env *env = node->lake->core->env;
    vexi_cancel(env, &node->beat_task);
    if (node->started) {
        char name[NAME_SIZE];
        vex_error error;
        heartbeat_name(node->uuid, name);
        if (vexi_store_remove(node->lake->core->store, name, &error) != VEX_OK) {
            vexi_log(env, 1, "cannot remove the heartbeat: %s", error.message);
        }
    }
    pthread_mutex_destroy(&node->mutex);
    vexi_free(env, node);
}

const char *lake_node_uuid(const lake_node *node) {
    return node->uuid;
}

/* A heartbeat is there before the first claim, so that one without is known to have ended. */
static vex_status node_start(lake_node *node, vex_error *err) {
    pthread_mutex_lock(&node->mutex);
    vex_status status = node->started ? VEX_OK : beat(node, err);
    bool first = status == VEX_OK && !node->started;
    node->started = node->started || status == VEX_OK;
    pthread_mutex_unlock(&node->mutex);
    if (first) {
        vexi_submit(node->lake->core->env, &node->beat_task,
                    node->lake->config.heartbeat_interval_ms);
    }
    return status;
}

/* ---- Is the holder alive? --------------------------------------------------------------------
 */

/* For how long these bytes of the node's heartbeat have been seen. */
static uint64_t seen_for_ns(lake_node *node, const char *uuid, uint64_t hash) {
    uint64_t now_ns = vexi_monotonic_ns(node->lake->core->env);
    node_seen *seen = NULL;
    pthread_mutex_lock(&node->mutex);
    for (size_t i = 0; i < node->seen_count && seen == NULL; i++) {
        seen = strcmp(node->seen[i].uuid, uuid) == 0 ? &node->seen[i] : NULL;
    }
    if (seen == NULL) {
        if (node->seen_count == NODES_SEEN_MAX) { /* the one seen first waits anew */
            memmove(node->seen, node->seen + 1, (NODES_SEEN_MAX - 1) * sizeof *node->seen);
            node->seen_count--;
        }
        seen = &node->seen[node->seen_count++];
        *seen = (node_seen){.since_ns = now_ns, .hash_low = (uint32_t)~hash};
        memcpy(seen->uuid, uuid, sizeof seen->uuid);
    }
    if (seen->hash_low != (uint32_t)hash || seen->hash_high != (uint32_t)(hash >> 32)) {
        seen->hash_low = (uint32_t)hash;
        seen->hash_high = (uint32_t)(hash >> 32);
        seen->since_ns = now_ns;
    }
    uint64_t for_ns = now_ns - seen->since_ns;
    pthread_mutex_unlock(&node->mutex);
    return for_ns;
}

/* VEX_OK if the claim may be succeeded, VEX_READ_ONLY if its holder lives. */
static vex_status holder_check(vexi_table *table, const vexi_log_object *claim, vex_error *err) {
    vexi_lake *lake = table->lake;
    if (strcmp(claim->node, lake->node->uuid) == 0) {
        return VEX_OK;
    }
    if (lake->config.takeover && !table->log->was_owned) {
        vexi_log(lake->core->env, 2, "'%s' is taken over from %.*s (%s)", table->name,
                 (int)claim->body.size, (const char *)claim->body.data, claim->node);
        return VEX_OK;
    }
    if (claim->local) {
        return vexi_fail(
            err, VEX_READ_ONLY,
            "'%s' is written by %.*s (%s), whose log is on its own disk and may hold "
            "writes that are nowhere else: start that node, or --takeover without them",
            table->name, (int)claim->body.size, (const char *)claim->body.data, claim->node);
    }
    vexi_arena arena;
    vexi_arena_init(&arena, lake->core->env);
    char name[NAME_SIZE];
    heartbeat_name(claim->node, name);
    vexi_span bytes;
    vex_status status =
        vexi_store_get_all(lake->core->store, name, HEARTBEAT_SIZE_MAX, &arena, &bytes, err);
    uint64_t hash = status == VEX_OK ? vexi_hash64(bytes.data, bytes.size) : 0;
    vexi_arena_deinit(&arena);
    if (status == VEX_NOT_FOUND) {
        return VEX_OK;
    }
    VEX_TRY(status);
    uint64_t for_ms = seen_for_ns(lake->node, claim->node, hash) / 1000000u;
    if (for_ms >= lake->config.claim_timeout_ms) {
        vexi_log(lake->core->env, 2, "'%s': %.*s (%s) has been silent for %llu s: taken over",
                 table->name, (int)claim->body.size, (const char *)claim->body.data, claim->node,
                 (unsigned long long)for_ms / 1000);
        return VEX_OK;
    }
    return vexi_fail(err, VEX_READ_ONLY,
                     "'%s' is written by %.*s (%s); write there, or here once it has been silent "
                     "for %u s, or start with --takeover",
                     table->name, (int)claim->body.size, (const char *)claim->body.data,
                     claim->node, lake->config.claim_timeout_ms / 1000);
}

/* ---- What the log says ----------------------------------------------------------------------- */

static void epoch_app_id(const vexi_table *table, char out[64]) {
    snprintf(out, 64, "vexlake-epoch-%s", table->uuid);
}

static uint64_t committed_epoch(const vexi_table *table) {
    char app_id[64];
    epoch_app_id(table, app_id);
    int64_t epoch = vexi_delta_state_txn(&table->delta, vexi_string_of(app_id));
    return epoch > 0 ? (uint64_t)epoch : 0;
}

typedef struct log_state {
    uint64_t newest;        /* number; 0: the log is empty */
    uint64_t epoch_max;     /* seen anywhere */
    bool held;              /* `claim` is set */
    vexi_log_object claim;  /* the one that counts; its body lasts as long as the arena */
    const uint64_t *listed; /* ascending */
    size_t listed_count;
} log_state;

static vex_status object_read(vexi_table *table, uint64_t number, vexi_arena *arena,
                              vexi_log_object *out, vex_error *err) {
    char *name = vexi_log_object_name(arena, table->folder, table->uuid, number);
    if (name == NULL) {
        return vexi_no_memory(err, VEXI_STORE_NAME_SIZE_MAX);
    }
    vexi_span bytes;
    VEX_TRY(
        vexi_store_get_all(table->core->store, name, VEXI_LOG_OBJECT_SIZE_MAX, arena, &bytes, err));
    vex_status status = vexi_log_object_read(bytes, out, err);
    if (status == VEX_OK && (out->number != number || strcmp(out->collection, table->uuid) != 0)) {
        status = vexi_fail(err, VEX_CORRUPT, "it is another log's object %llu",
                           (unsigned long long)out->number);
    }
    return status == VEX_OK ? status : vexi_prefix(err, status, "%s", name);
}

/* List the log and find the claim that counts: the newest object is a group, which names it, or a
 * claim; a claim at or below the committed position counts only if its epoch was committed. */
static vex_status log_look(vexi_table *table, vexi_arena *arena, log_state *out, vex_error *err) {
    *out = (log_state){.epoch_max = committed_epoch(table)};
    uint64_t position = vexi_log_position(table_log_covered(table));
    char *prefix = vexi_log_prefix(arena, table->folder, table->uuid);
    if (prefix == NULL) {
        return vexi_no_memory(err, VEXI_STORE_NAME_SIZE_MAX);
    }
    vexi_listing listing;
    VEX_TRY(vexi_store_list(table->core->store, prefix, NULL, false, arena, &listing, err));
    uint64_t *listed = vexi_arena_array(arena, listing.count, sizeof *listed);
    if (listed == NULL) {
        return vexi_no_memory(err, listing.count * sizeof *listed);
    }
    size_t count = 0;
    for (size_t i = 0; i < listing.count; i++) {
        listed[count] = vexi_log_object_number(listing.entries[i].name, strlen(prefix));
        count += listed[count] != 0;
    }
    out->listed = listed;
    out->listed_count = count;
    out->newest = count == 0 ? 0 : listed[count - 1];
    uint64_t wanted = out->newest;
    for (size_t i = count; i-- > 0 && !out->held;) {
        if (listed[i] > wanted) {
            continue;
        }
        vexi_log_object object;
        VEX_TRY(object_read(table, listed[i], arena, &object, err));
        out->epoch_max = object.epoch > out->epoch_max ? object.epoch : out->epoch_max;
        if (object.kind == VEXI_LOG_GROUP) {
            wanted = object.claim_number;
        } else if (object.number > position || object.epoch == committed_epoch(table) ||
                   wanted != out->newest) {
            out->held = true;
            out->claim = object;
        }
    }
    return VEX_OK;
}

/* ---- Claiming -------------------------------------------------------------------------------- */

/* Put a claim. *number: it stands there; 0: another object does, look again. */
static vex_status claim_put(vexi_table *table, uint64_t at, uint64_t epoch, vexi_arena *arena,
                            uint64_t *number, vex_error *err) {
    vexi_lake *lake = table->lake;
    *number = 0;
    size_t name_size = strlen(lake->config.node_name);
    vexi_log_object claim = {.kind = VEXI_LOG_CLAIM,
                             .number = at,
                             .epoch = epoch,
                             .claim_number = at,
                             .local = lake->wal != NULL};
    memcpy(claim.collection, table->uuid, sizeof claim.collection);
    memcpy(claim.node, lake->node->uuid, sizeof claim.node);
    uint8_t *bytes = vexi_arena_alloc(arena, VEXI_LOG_OBJECT_HEADER_SIZE + name_size);
    char *name = vexi_log_object_name(arena, table->folder, table->uuid, at);
    if (bytes == NULL || name == NULL) {
        return vexi_no_memory(err, VEXI_LOG_OBJECT_HEADER_SIZE + name_size);
    }
    vexi_span body = vexi_span_of(lake->config.node_name, name_size);
    vexi_log_object_write(&claim, &body, 1, bytes);
    memcpy(bytes + VEXI_LOG_OBJECT_HEADER_SIZE, lake->config.node_name, name_size);
    vex_status status = table_put_once(
        table->core, name, vexi_span_of(bytes, VEXI_LOG_OBJECT_HEADER_SIZE + name_size), err);
    if (status == VEX_OK) {
        *number = at;
    }
    return status == VEX_EXISTS ? VEX_OK : status;
}

/* Commit our epoch, so that the writer before can commit nothing more. */
static vex_status epoch_commit(vexi_table *table, uint64_t epoch, vex_error *err) {
    char app_id[64];
    epoch_app_id(table, app_id);
    vex_status status = VEX_EXISTS;
    while (status == VEX_EXISTS) {
        VEX_TRY(commit_refresh(table->core, table->folder, &table->delta, err));
        if (table_is_gone(table)) {
            return vexi_fail(err, VEX_NOT_FOUND, "no collection '%s'", table->name);
        }
        if (committed_epoch(table) >= epoch) {
            return vexi_fail(err, VEX_READ_ONLY, "another node writes '%s' now", table->name);
        }
        vexi_delta_txn txn = {.app_id = vexi_string_of(app_id), .version = (int64_t)epoch};
        vexi_delta_commit commit = {
            .operation = vexi_string_of("CLAIM"), .txns = &txn, .txn_count = 1};
        status = commit_put(table->core, table->folder, &table->delta, &commit, err);
    }
    return status;
}

/* Delete groups that the writers before covered by their commits, but did not delete. Below the
 * last claim that counted its holder did the same. */
static void clean_up(vexi_table *table, const log_state *state, uint64_t position) {
    uint64_t from = state->held ? state->claim.number : 0;
    vexi_arena arena;
    vexi_arena_init(&arena, table->core->env);
    for (size_t i = 0; i < state->listed_count; i++) {
        vexi_log_object object;
        vex_error error;
        uint64_t number = state->listed[i];
        if (number <= from || number > position ||
            object_read(table, number, &arena, &object, &error) != VEX_OK ||
            object.kind != VEXI_LOG_GROUP) {
            continue;
        }
        char *name = vexi_log_object_name(&arena, table->folder, table->uuid, number);
        if (name != NULL && vexi_store_remove(table->core->store, name, &error) != VEX_OK) {
            vexi_log(table->core->env, 2, "cannot delete from the log of '%s': %s", table->name,
                     error.message);
        }
        vexi_arena_deinit(&arena);
    }
    vexi_arena_deinit(&arena);
}

/* One attempt. *done is false where the log moved meanwhile. Commit lock; leads. */
static vex_status claim_attempt(vexi_table *table, vexi_arena *arena, bool *done, vex_error *err) {
    lake_log *log = table->log;
    *done = false;
    VEX_TRY(commit_refresh(table->core, table->folder, &table->delta, err));
    if (table_is_gone(table)) {
        VEX_TRY(table_let_go(table, err));
        return vexi_fail(err, VEX_NOT_FOUND, "no collection '%s'", table->name);
    }
    VEX_TRY(commit_check_writable(table->folder, &table->delta, err));
    log_state state;
    vex_error error;
    vex_status looked = log_look(table, arena, &state, &error);
    if (looked == VEX_NOT_FOUND) {
        return VEX_OK; /* listed, then deleted by its writer: it is covered now */
    }
    if (looked != VEX_OK) {
        if (err != NULL) {
            *err = error;
        }
        return looked;
    }
    if (state.held) {
        VEX_TRY(holder_check(table, &state.claim, err));
    }
    uint64_t position = vexi_log_position(table_log_covered(table));
    uint64_t epoch = state.epoch_max + 1;
    uint64_t number = 0;
    if (state.held && strcmp(state.claim.node, table->lake->node->uuid) == 0 &&
        state.claim.number == state.newest && state.claim.epoch >= committed_epoch(table)) {
        /* An earlier attempt of this process that failed behind its claim. */
        number = state.newest;
        epoch = state.claim.epoch;
    } else {
        uint64_t at = (state.newest > position ? state.newest : position) + 1;
        VEX_TRY(claim_put(table, at, epoch, arena, &number, err));
        if (number == 0) {
            return VEX_OK;
        }
    }
    VEX_TRY(commit_refresh(table->core, table->folder, &table->delta, err));
    if (vexi_log_position(table_log_covered(table)) >= number) {
        return VEX_OK; /* it does not count: invariant 3 */
    }
    if (committed_epoch(table) != epoch) {
        VEX_TRY(epoch_commit(table, epoch, err));
    }
    VEX_TRY(table_follow_to(table, number, err));
    if (log->applied < number) { /* else it was followed since an earlier attempt put it */
        VEX_TRY(lake_log_marks_reserve(table->core->env, log, 1, err));
        lake_log_mark_add(log, number, 0, 0);
    }
    clean_up(table, &state, vexi_log_position(table_log_covered(table)));
    pthread_mutex_lock(&table->state_lock);
    lake_log_forget_pending(log); /* it is below our claim and was read, or never will be there */
    log->epoch = epoch;
    log->claim_number = number;
    log->was_owned = true;
    __atomic_store_n(&log->applied, number, __ATOMIC_RELEASE);
    __atomic_store_n(&log->owned, true, __ATOMIC_RELEASE);
    bool rows = table->sealed_count > 0 ||
                (table->active.memtable != NULL && vexi_memtable_count(table->active.memtable) > 0);
    bool full =
        rows && (table->sealed_count > 0 || vexi_memtable_size_bytes(table->active.memtable) >=
                                                table->lake->config.flush_size_bytes);
    table->flush_now = table->flush_now || full;
    pthread_mutex_unlock(&table->state_lock);
    if (rows) {
        vexi_submit(table->core->env, &table->flush_task,
                    full ? 0 : table->lake->config.flush_interval_ms);
    }
    vexi_log(table->core->env, 1, "'%s' is written by this node now, epoch %llu", table->name,
             (unsigned long long)epoch);
    *done = true;
    return VEX_OK;
}

vex_status table_claim_locked(vexi_table *table, vex_error *err) {
    if (table_owned(table)) {
        return VEX_OK;
    }
    if (table->lake->config.read_only) {
        return vexi_fail(err, VEX_READ_ONLY, "the lake is opened read-only");
    }
    VEX_TRY(node_start(table->lake->node, err));
    vex_status status = VEX_OK;
    bool done = false;
    lake_log_lead(table->log);
    for (int i = 0; i < ATTEMPT_MAX && status == VEX_OK && !done; i++) {
        vexi_arena arena;
        vexi_arena_init(&arena, table->core->env);
        status = claim_attempt(table, &arena, &done, err);
        vexi_arena_deinit(&arena);
    }
    lake_log_yield(table->log);
    if (status == VEX_OK && !done) {
        status = vexi_fail(err, VEX_READ_ONLY, "others write '%s' at the same time", table->name);
    }
    if (status == VEX_OK) {
        lake_index_soon(table->lake);
    }
    return status;
}

vex_status table_claim(vexi_table *table, vex_error *err) {
    if (table_owned(table)) {
        return VEX_OK;
    }
    pthread_mutex_lock(&table->commit_lock);
    vex_status status = table_claim_locked(table, err);
    pthread_mutex_unlock(&table->commit_lock);
    return status;
}

bool table_owned(const vexi_table *table) {
    return table->log == NULL ? !table->lake->config.read_only
                              : __atomic_load_n(&table->log->owned, __ATOMIC_ACQUIRE);
}

void table_fenced(vexi_table *table) {
    pthread_mutex_lock(&table->state_lock);
    bool owned = table->log->owned;
    __atomic_store_n(&table->log->owned, false, __ATOMIC_RELEASE);
    __atomic_store_n(&table->log->reset, true, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&table->state_lock);
    if (owned) {
        vexi_log(table->core->env, 2, "'%s' was taken over by another node: read-only here",
                 table->name);
    }
}

vex_status table_check_epoch(vexi_table *table, vex_error *err) {
    if (table->log == NULL) {
        return VEX_OK;
    }
    if (table_owned(table) && committed_epoch(table) > table->log->epoch) {
        table_fenced(table);
    }
    return table_owned(table)
               ? VEX_OK
               : vexi_fail(err, VEX_READ_ONLY, "another node writes '%s' now", table->name);
}
