#include "sim/sim_cluster.h"

#include "format/lake_log.h"
#include "table/table_internal.h"

/* ---- What the bucket shows ------------------------------------------------------------------- */

static void fail(const sim_cluster *cluster, const sim_node *node, const char *what,
                 const char *name) {
    fprintf(stderr, "%s: node %d %s: %s\n", cluster->when, node->number, what, name);
    exit(1);
}

/* Where the text is in the bytes, or NULL. */
static const char *find(vexi_span bytes, const char *text) {
    size_t size = strlen(text);
    for (size_t i = 0; i + size <= bytes.size; i++) {
        if (memcmp(bytes.data + i, text, size) == 0) {
            return (const char *)bytes.data + i;
        }
    }
    return NULL;
}

/* "c/log/<uuid>/" of an object's name. */
static void log_of(const char *name, char out[64]) {
    const char *slash = strrchr(name, '/');
    size_t size = (size_t)(slash - name) + 1;
    CHECK(size < 64);
    memcpy(out, name, size);
    out[size] = '\0';
}

static uint64_t covered_number(const sim_cluster *cluster, const char *name) {
    return strncmp(name, cluster->covered_log, strlen(cluster->covered_log)) == 0
               ? vexi_log_position(cluster->covered)
               : 0;
}

/* A commit is there. */
static void commit_done(sim_node *node, const char *name, vexi_span bytes) {
    sim_cluster *cluster = node->cluster;
    cluster->commits++;
    if (find(bytes, "\"CREATE TABLE\"") != NULL) {
        cluster->holder = -1;
        cluster->covered = 0;
        cluster->covered_log[0] = '\0';
        return;
    }
    if (find(bytes, "vexlake-epoch-") != NULL) {
        cluster->takeovers += cluster->holder >= 0 && cluster->holder != node->number ? 1 : 0;
        cluster->holder = node->number;
    }
    if (cluster->holder != node->number) {
        fail(cluster, node, "was taken over and commits", name);
    }
    if (find(bytes, "\"DROP TABLE\"") != NULL) {
        cluster->covered_log[0] = '\0'; /* nothing of its log matters now */
    }
    static const char app[] = "\"appId\":\"vexlake-log-";
    const char *at = find(bytes, app);
    if (at != NULL) { /* ..."appId":"vexlake-log-<uuid>","version":5,... in one line */
        char text[128] = "";
        size_t left = (size_t)((const char *)bytes.data + bytes.size - at);
        memcpy(text, at + sizeof app - 1,
               left - sizeof app + 1 < 100 ? left - sizeof app + 1 : 100);
        snprintf(cluster->covered_log, sizeof cluster->covered_log, "c/log/%.36s/", text);
        const char *version = strstr(text, "\"version\":");
        CHECK(version != NULL);
        uint64_t covered = strtoull(version + 10, NULL, 10);
        CHECK(covered >= cluster->covered);
        cluster->covered = covered;
    }
}

static void log_done(sim_node *node, const char *name, vexi_span bytes) {
    sim_cluster *cluster = node->cluster;
    vexi_log_object object;
    CHECK_OK(vexi_log_object_read(bytes, &object, &err));
    char log[64];
    log_of(name, log);
    for (size_t i = 0; i < cluster->claim_count; i++) {
        const sim_claim *claim = &cluster->claims[i];
        if (strcmp(claim->log, log) == 0 && object.number > claim->number &&
            object.epoch < claim->epoch) {
            fail(cluster, node, "was taken over and logs", name);
        }
    }
    /* One that stands where the writer had passed does not count. */
    if (object.kind == VEXI_LOG_CLAIM && object.number > covered_number(cluster, name)) {
        CHECK(cluster->claim_count < SIM_CLAIMS_MAX);
        sim_claim *claim = &cluster->claims[cluster->claim_count++];
        *claim = (sim_claim){.number = object.number, .epoch = object.epoch};
        memcpy(claim->log, log, sizeof log);
    }
}

static void watch(void *context, vex_bucket_call call, const char *name, vexi_span bytes) {
    sim_node *node = context;
    sim_cluster *cluster = node->cluster;
    if (call == VEX_BUCKET_PUT && strstr(name, "/_delta_log/") != NULL) {
        commit_done(node, name, bytes);
    } else if (call == VEX_BUCKET_PUT && strncmp(name, "c/log/", 6) == 0) {
        log_done(node, name, bytes);
    } else if (call == VEX_BUCKET_REMOVE && strncmp(name, "c/log/", 6) == 0) {
        char log[64];
        log_of(name, log);
        uint64_t number = vexi_log_object_number(name, strlen(log));
        cluster->deletions++;
        if (number > covered_number(cluster, name) && strcmp(log, cluster->covered_log) == 0) {
            fail(cluster, node, "deletes what no commit covers", name);
        }
        for (size_t i = 0; i < cluster->claim_count; i++) {
            if (strcmp(cluster->claims[i].log, log) == 0 && cluster->claims[i].number == number) {
                fail(cluster, node, "deletes a claim", name);
            }
        }
    }
}

void sim_cluster_land(sim_cluster *cluster, size_t i, bool land) {
    vex_test_late late = cluster->late[i];
    vexi_span bytes = vex_test_bucket_join(&(vexi_span){late.bytes, late.size}, 1);
    char name[256];
    snprintf(name, sizeof name, "%s", late.name);
    if (vex_test_late_end(cluster->shared, cluster->late, &cluster->late_count, i, land)) {
        cluster->landed++;
        watch(late.context, VEX_BUCKET_PUT, name, bytes);
    }
    free((void *)(uintptr_t)bytes.data);
}

/* ---- Nodes ----------------------------------------------------------------------------------- */

vexi_lake_config sim_cluster_config(int number) {
    vexi_lake_config config = {
        .durability = VEX_DURABILITY_LAKE,
        .sync_interval_ms = 10,
        .flush_interval_ms = 20000,
        .refresh_interval_ms = 1000,
        .flush_size_bytes = 1 << 20,
        .memory_limit_bytes = 64 << 20,
        .segment_size_bytes = 1 << 20,
        .log_size_bytes = 1 << 20,
        .shared = true,
        .claim_timeout_ms = 30000,
        .heartbeat_interval_ms = 5000,
        .group_size_bytes = 1 << 20,
    };
    snprintf(config.node_name, sizeof config.node_name, "node-%d", number);
    return config;
}

void sim_cluster_init(sim_cluster *cluster, uint64_t seed, uint32_t dimension) {
    memset(cluster, 0, sizeof *cluster);
    cluster->sim = sim_env_create(seed);
    cluster->schema = sim_schema(dimension, VEX_METRIC_L2, VEX_INDEX_IVF);
    cluster->steps = calloc(SIM_HISTORY_MAX, sizeof *cluster->steps);
    cluster->epochs = calloc(SIM_HISTORY_MAX, sizeof *cluster->epochs);
    CHECK(cluster->steps != NULL && cluster->epochs != NULL);
    cluster->next_version = 1;
    cluster->holder = -1;
    cluster->when = "start";
    CHECK_OK(vexi_store_mem_create(vex_test_env(), &cluster->shared, &err));
    for (int i = 0; i < SIM_NODES_MAX; i++) {
        cluster->nodes[i] =
            (sim_node){.cluster = cluster, .number = i, .config = sim_cluster_config(i)};
    }
}

void sim_cluster_deinit(sim_cluster *cluster) {
    for (int i = 0; i < SIM_NODES_MAX; i++) {
        if (cluster->nodes[i].lake != NULL) {
            sim_node_close(&cluster->nodes[i]);
        }
    }
    while (cluster->late_count > 0) {
        sim_cluster_land(cluster, 0, false);
    }
    CHECK_EQ(sim_env_queued(cluster->sim), 0);
    vexi_store_destroy(cluster->shared);
    sim_env_destroy(cluster->sim);
    free(cluster->steps);
    free(cluster->epochs);
}

vex_status sim_node_open(sim_node *node, vex_error *err) {
    sim_cluster *cluster = node->cluster;
    CHECK(node->lake == NULL);
    node->bucket = vex_test_bucket_create(sim_env_of(cluster->sim), cluster->shared);
    node->bucket->context = node;
    node->bucket->done = watch;
    node->bucket->late = cluster->late;
    node->bucket->late_count = &cluster->late_count;
    node->bucket->decide = node->decide;
    node->floor = 0;
    node->own = 0;
    node->shown = cluster->base;
    vex_status status = vexi_lake_open(sim_env_of(cluster->sim), &node->bucket->base, &node->config,
                                       &node->lake, err);
    if (status != VEX_OK) {
        node->bucket = NULL;
    }
    return status;
}

void sim_node_close(sim_node *node) {
    CHECK_OK(vexi_lake_close(node->lake, &err));
    node->lake = NULL;
    node->bucket = NULL;
}

void sim_node_kill(sim_node *node) {
    node->bucket->unreachable = 1;
    sim_node_close(node);
}

/* ---- History --------------------------------------------------------------------------------- */

static bool state_equal(const sim_state *a, const sim_state *b) {
    return a->exists == b->exists && memcmp(a->version, b->version, sizeof a->version) == 0;
}

/* Do the steps from `at` on lead from `state` to `seen`? With `all`, all of them; else at least the
 * first `own`. *end: behind how many; unknown ones at the end that did not happen may still, and so
 * are not among these. */
static bool leads(const sim_cluster *cluster, size_t at, const sim_state *state,
                  const sim_state *seen, size_t own, bool all, size_t behind, size_t *end) {
    bool last = at == cluster->step_count;
    if ((last || (!all && at >= own)) && state_equal(state, seen)) {
        *end = behind;
        return true;
    }
    if (last) {
        return false;
    }
    const sim_step *step = &cluster->steps[at];
    sim_state next = *state;
    if (step->unknown && leads(cluster, at + 1, state, seen, own, all, behind, end)) {
        return true;
    }
    return sim_step_apply(&next, step) &&
           leads(cluster, at + 1, &next, seen, own, all, at + 1, end);
}

static void state_print(const char *name, const sim_state *state) {
    fprintf(stderr, "  %-12s%s", name, state->exists ? "" : "absent");
    for (uint32_t i = 0; i < SIM_IDS; i++) {
        if (state->version[i] != 0) {
            fprintf(stderr, " k%03u:%u", i, state->version[i]);
        }
    }
    fprintf(stderr, "\n");
}

static void history_print(const sim_cluster *cluster, const sim_node *node) {
    static const char *const kinds[] = {"rows", "create", "drop"};
    state_print("it showed", &node->shown);
    fprintf(stderr, "  behind %zu steps; own %zu; of %zu:\n", node->floor, node->own,
            cluster->step_count);
    for (size_t i = 0; i < cluster->step_count; i++) {
        const sim_step *step = &cluster->steps[i];
        fprintf(stderr, "  %zu %s%s, epoch %llu", i, kinds[step->kind],
                step->unknown ? " (unknown)" : "", (unsigned long long)cluster->epochs[i]);
        for (size_t c = 0; c < step->count; c++) {
            fprintf(stderr, " k%03u:%u", step->changes[c].id, step->changes[c].version);
        }
        fprintf(stderr, "\n");
    }
}

/* Note that a call begins. */
static size_t step_begin(sim_cluster *cluster, const sim_step *step) {
    CHECK(cluster->step_count < SIM_HISTORY_MAX);
    size_t at = cluster->step_count++;
    cluster->steps[at] = *step;
    cluster->steps[at].unknown = true;
    cluster->epochs[at] = 0;
    cluster->unknown_count++;
    return at;
}

/* Take step `at` out; *gone receives it. */
static sim_step step_take(sim_cluster *cluster, size_t at) {
    sim_step step = cluster->steps[at];
    size_t behind = cluster->step_count - at - 1;
    memmove(cluster->steps + at, cluster->steps + at + 1, behind * sizeof *cluster->steps);
    memmove(cluster->epochs + at, cluster->epochs + at + 1, behind * sizeof *cluster->epochs);
    cluster->step_count--;
    for (int i = 0; i < SIM_NODES_MAX; i++) {
        cluster->nodes[i].floor -= cluster->nodes[i].floor > at ? 1 : 0;
        cluster->nodes[i].own -= cluster->nodes[i].own > at ? 1 : 0;
    }
    return step;
}

static vex_status step_end(sim_node *node, size_t at, uint64_t epoch, vex_status status) {
    sim_cluster *cluster = node->cluster;
    bool unknown = status == VEX_UNKNOWN_OUTCOME;
    cluster->acknowledged += status == VEX_OK ? 1 : 0;
    cluster->refused += status != VEX_OK && !unknown ? 1 : 0;
    cluster->unknown += unknown ? 1 : 0;
    cluster->unknown_count -= unknown ? 0 : 1;
    if (status != VEX_OK && !unknown) {
        (void)step_take(cluster, at);
        return status;
    }
    cluster->steps[at].unknown = unknown;
    cluster->epochs[at] = epoch;
    /* Others' calls were answered while this one was under way: epochs tell who was first. */
    size_t to = at;
    while (to + 1 < cluster->step_count && cluster->epochs[to + 1] != 0 &&
           cluster->epochs[to + 1] < epoch) {
        to++;
    }
    if (to != at) {
        sim_step step = step_take(cluster, at);
        size_t behind = cluster->step_count - to;
        memmove(cluster->steps + to + 1, cluster->steps + to, behind * sizeof *cluster->steps);
        memmove(cluster->epochs + to + 1, cluster->epochs + to, behind * sizeof *cluster->epochs);
        cluster->steps[to] = step;
        cluster->epochs[to] = epoch;
        cluster->step_count++;
    }
    /* Nobody acknowledges under an epoch after a higher one did, but what began before. */
    for (size_t i = 0; i < at && status == VEX_OK && epoch != 0; i++) {
        if (!cluster->steps[i].unknown && cluster->epochs[i] > epoch) {
            fprintf(stderr, "%s: node %d acknowledges under epoch %llu after one under %llu\n",
                    cluster->when, node->number, (unsigned long long)epoch,
                    (unsigned long long)cluster->epochs[i]);
            exit(1);
        }
    }
    if (status == VEX_OK && node->own < to + 1) {
        node->own = to + 1;
    }
    return status;
}

/* ---- Calls ----------------------------------------------------------------------------------- */

/* An answer other than OK or "it is so already" leaves open what happened. */
static vex_status open_outcome(vex_status status) {
    return status == VEX_OK || status == VEX_EXISTS || status == VEX_NOT_FOUND ||
                   status == VEX_READ_ONLY
               ? status
               : VEX_UNKNOWN_OUTCOME;
}

static uint64_t epoch_of(const vexi_table *table) {
    return table == NULL ? 0 : table->log->epoch;
}

static const char collection[] = "c";

static void epochs_forget(sim_cluster *cluster) {
    for (size_t i = 0; i < cluster->step_count; i++) {
        cluster->epochs[i] = 0;
    }
}

vex_status sim_node_create(sim_node *node, vex_error *err) {
    sim_cluster *cluster = node->cluster;
    sim_step step = {.kind = SIM_CREATE};
    size_t at = step_begin(cluster, &step);
    vex_status status =
        vexi_lake_create_table(node->lake, vexi_string_of(collection), &cluster->schema, err);
    (void)step_end(node, at, 0, open_outcome(status));
    epochs_forget(cluster); /* a new log begins at epoch 1 */
    return status;
}

vex_status sim_node_drop(sim_node *node, vex_error *err) {
    sim_cluster *cluster = node->cluster;
    sim_step step = {.kind = SIM_DROP};
    size_t at = step_begin(cluster, &step);
    vex_status status = vexi_lake_drop_table(node->lake, vexi_string_of(collection), err);
    (void)step_end(node, at, 0, open_outcome(status));
    epochs_forget(cluster);
    return status;
}

vex_status sim_node_put(sim_node *node, const uint32_t *ids, size_t count, vex_error *err) {
    sim_cluster *cluster = node->cluster;
    sim_step step = {.kind = SIM_ROWS, .count = count};
    sim_row made[SIM_CHANGES_MAX];
    vexi_row rows[SIM_CHANGES_MAX];
    CHECK(count <= SIM_CHANGES_MAX);
    for (size_t i = 0; i < count; i++) {
        step.changes[i] = (sim_change){.id = ids[i], .version = cluster->next_version++};
        sim_row_init(&made[i], cluster->schema.dimension, ids[i], step.changes[i].version);
        rows[i] = made[i].row;
    }
    size_t at = step_begin(cluster, &step);
    vexi_table *table;
    vex_status status = vexi_lake_table(node->lake, vexi_string_of(collection), &table, err);
    if (status == VEX_OK) {
        status = vexi_table_put(table, rows, count, err);
    }
    (void)step_end(node, at, epoch_of(table), status);
    vexi_table_release(table);
    for (size_t i = 0; i < count; i++) {
        sim_row_deinit(&made[i]);
    }
    return status;
}

vex_status sim_node_delete(sim_node *node, const uint32_t *ids, size_t count, vex_error *err) {
    sim_cluster *cluster = node->cluster;
    sim_step step = {.kind = SIM_ROWS, .count = count};
    char texts[SIM_CHANGES_MAX][24];
    vex_string names[SIM_CHANGES_MAX];
    uint8_t existed[SIM_CHANGES_MAX] = {0};
    CHECK(count <= SIM_CHANGES_MAX);
    for (size_t i = 0; i < count; i++) {
        step.changes[i] = (sim_change){.id = ids[i]};
        names[i] = sim_id(ids[i], texts[i]);
    }
    size_t at = step_begin(cluster, &step);
    vexi_table *table;
    vex_status status = vexi_lake_table(node->lake, vexi_string_of(collection), &table, err);
    if (status == VEX_OK) {
        status = vexi_table_delete(table, names, count, existed, err);
    }
    cluster->steps[at].absent_too = memchr(existed, 1, count) == NULL;
    (void)step_end(node, at, epoch_of(table), status);
    vexi_table_release(table);
    return status;
}

vex_status sim_node_flush(sim_node *node, vex_error *err) {
    vexi_table *table;
    vex_status status = vexi_lake_table(node->lake, vexi_string_of(collection), &table, err);
    if (status == VEX_OK) {
        status = vexi_table_flush(table, err);
    }
    vexi_table_release(table);
    return status;
}

vex_status sim_node_import(sim_node *node, const char *path, const uint32_t *ids, size_t count,
                           vex_error *err) {
    sim_cluster *cluster = node->cluster;
    sim_step step = {.kind = SIM_ROWS, .count = count};
    for (size_t i = 0; i < count; i++) {
        step.changes[i] = (sim_change){.id = ids[i], .version = cluster->next_version++};
    }
    sim_write_import(path, &cluster->schema, step.changes, count);
    vex_import_options options = {
        .size = sizeof options, .metric = cluster->schema.metric, .index = cluster->schema.index};
    uint64_t row_count;
    vexi_table *table;
    vex_status status = vexi_lake_table(node->lake, vexi_string_of(collection), &table, err);
    if (status != VEX_OK) {
        return status; /* this one does not make collections by importing */
    }
    size_t at = step_begin(cluster, &step);
    status = vexi_lake_import(node->lake, vexi_string_of(collection), &path, 1, &options,
                              &row_count, err);
    CHECK(status != VEX_OK || row_count == count);
    (void)step_end(node, at, epoch_of(table), status);
    vexi_table_release(table);
    return status;
}

bool sim_cluster_exists(const sim_cluster *cluster) {
    sim_state state = cluster->base;
    for (size_t i = 0; i < cluster->step_count; i++) {
        if (!cluster->steps[i].unknown || cluster->steps[i].kind == SIM_CREATE) {
            (void)sim_step_apply(&state, &cluster->steps[i]);
        }
    }
    return state.exists;
}

/* ---- Looking --------------------------------------------------------------------------------- */

static vex_status look(sim_node *node, bool consistent, sim_state *out, vex_error *err) {
    *out = (sim_state){.exists = false};
    vexi_table *table = NULL;
    vexi_view *view = NULL;
    vex_status status = VEX_NOT_FOUND;
    /* One that proves to be dropped may have been made again. */
    for (int i = 0; i < 4 && status == VEX_NOT_FOUND; i++) {
        vexi_table_release(table);
        table = NULL;
        status = vexi_lake_table(node->lake, vexi_string_of(collection), &table, err);
        if (status == VEX_NOT_FOUND && consistent && i < 3) {
            /* A name that was not there is not looked for again at once. */
            sim_env_advance(node->cluster->sim, node->config.refresh_interval_ms + 1);
            continue;
        }
        VEX_TRY(status);
        status = vexi_table_follow(table, consistent, err);
        if (status == VEX_OK) {
            status = vexi_table_view(table, &view, err);
        }
    }
    if (status == VEX_OK) {
        status = sim_observe_view(view, out, err);
    }
    vexi_view_release(view);
    vexi_table_release(table);
    return status;
}

vex_status sim_node_poll(sim_node *node, bool consistent, vex_error *err) {
    sim_cluster *cluster = node->cluster;
    sim_state seen;
    size_t own = node->own;
    size_t count = cluster->step_count;
    vex_status status = look(node, consistent, &seen, err);
    if (status != VEX_OK && status != VEX_NOT_FOUND) {
        return status;
    }
    cluster->polls++;
    /* What others wrote while it looked may be there. */
    bool all = consistent && count == cluster->step_count;
    own = consistent ? count : own;
    size_t end;
    if (!leads(cluster, node->floor, &node->shown, &seen, own, all, node->floor, &end)) {
        fprintf(stderr, "%s: node %d%s shows what no prefix of the history has\n", cluster->when,
                node->number, consistent ? ", asked to be consistent," : "");
        state_print("seen", &seen);
        history_print(cluster, node);
        exit(1);
    }
    node->floor = end;
    node->shown = seen;
    return VEX_OK;
}

void sim_cluster_check(sim_cluster *cluster) {
    sim_node fresh = {.cluster = cluster, .number = 99, .config = sim_cluster_config(99)};
    fresh.config.read_only = true;
    CHECK_OK(sim_node_open(&fresh, &err));
    CHECK_OK(sim_node_poll(&fresh, true, &err));
    sim_node_close(&fresh);
}

void sim_cluster_settle(sim_cluster *cluster) {
    CHECK_EQ(cluster->late_count, 0);
    sim_node fresh = {.cluster = cluster, .number = 99, .config = sim_cluster_config(99)};
    fresh.config.read_only = true;
    CHECK_OK(sim_node_open(&fresh, &err));
    CHECK_OK(sim_node_poll(&fresh, true, &err));
    for (int i = 0; i < SIM_NODES_MAX; i++) {
        if (cluster->nodes[i].lake != NULL) {
            CHECK_OK(sim_node_poll(&cluster->nodes[i], true, &err));
            CHECK(state_equal(&cluster->nodes[i].shown, &fresh.shown));
        }
    }
    cluster->base = fresh.shown;
    cluster->step_count = 0;
    cluster->unknown_count = 0;
    for (int i = 0; i < SIM_NODES_MAX; i++) {
        cluster->nodes[i].floor = 0;
        cluster->nodes[i].own = 0;
        cluster->nodes[i].shown = cluster->base;
    }
    sim_node_close(&fresh);
}
