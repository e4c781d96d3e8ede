/* Several nodes over one bucket against a history: one thread, from seeds.
 *
 * A fixed piece of work of one node is done once for each of its store calls and each way in which
 * that call can go wrong; and once for each call with another node taking over, writing, flushing
 * or dropping right before it. Behind that another node takes over, late puts land, the first one
 * wakes up, and all that was acknowledged must be there. Commits that land behind a write that was
 * acknowledged after them must not count. Then random work of four writers and a
 * reader over a bucket that fails, loses answers, lets puts land late and cannot be reached now and
 * then, with nodes that are killed, end and start in any order. */
#include <unistd.h>

#include "check.h"
#include "sim/sim_cluster.h"

static char import_path[] = "/tmp/vexlake-lake-model-XXXXXX";

static const char *const fault_names[VEX_BUCKET_FAULTS] = {
    "well", "failed", "answer lost", "lost", "late", "killed before", "killed behind"};

/* All runs take a minute with the sanitizers: what is not `plain` is done every fourth time, or as
 * often as EFFORT says. */
static bool chosen(uint64_t *left_out, bool plain) {
    *left_out += vex_test_effort(25);
    bool due = *left_out >= 100;
    *left_out -= due ? 100 : 0;
    return due || plain;
}

/* ---- One call goes wrong --------------------------------------------------------------------- */

typedef enum intruder_kind {
    INTRUDER_NONE,
    INTRUDER_PUT,
    INTRUDER_FLUSH,
    INTRUDER_DELETE,
    INTRUDER_DROP,
    INTRUDER_REMAKE,
    INTRUDER_LOOK,
    INTRUDERS
} intruder_kind;

static const char *const intruder_names[INTRUDERS] = {
    "nobody", "puts", "puts and flushes", "deletes", "drops", "drops and makes anew", "looks"};

/* What happens to the first node's n-th store call. */
static struct {
    uint64_t calls;
    uint64_t at; /* 0: nothing happens */
    vex_bucket_fault fault;
    intruder_kind intruder;
    bool land;  /* late puts land while the node goes on, two calls later */
    bool again; /* the same happens to the tries behind it */
    char call[128];
} victim;

static const uint32_t own_ids[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
static const uint32_t others_ids[] = {31, 32, 33, 34, 35, 36};

static bool fine(vex_status status) {
    return status == VEX_OK || status == VEX_READ_ONLY || status == VEX_IO ||
           status == VEX_UNKNOWN_OUTCOME || status == VEX_NOT_FOUND || status == VEX_EXISTS;
}

static void check_fine(const sim_cluster *cluster, const char *what, vex_status status,
                       const vex_error *error) {
    if (!fine(status)) {
        fprintf(stderr, "%s (%s): %s: %s: %s\n", cluster->when, victim.call, what,
                vex_status_text(status), error->message);
        exit(1);
    }
}

/* The second node does its work while a call of the first is under way. */
static void intrude(sim_cluster *cluster) {
    sim_node *node = &cluster->nodes[1];
    vex_error error;
    if (victim.intruder == INTRUDER_LOOK) {
        CHECK_OK(sim_node_poll(&cluster->nodes[2], true, &err));
        return;
    }
    node->config.takeover = true;
    CHECK_OK(sim_node_open(node, &err));
    vex_status status = VEX_OK;
    if (victim.intruder == INTRUDER_DROP || victim.intruder == INTRUDER_REMAKE) {
        status = sim_node_drop(node, &error);
    } else if (victim.intruder == INTRUDER_DELETE) {
        status = sim_node_delete(node, others_ids, 2, &error);
    }
    check_fine(cluster, "the intruder drops or deletes", status, &error);
    if (victim.intruder == INTRUDER_REMAKE) {
        status = sim_node_create(node, &error);
        check_fine(cluster, "the intruder creates", status, &error);
    }
    if (victim.intruder != INTRUDER_DROP) {
        status = sim_node_put(node, others_ids + 2, 3, &error);
        check_fine(cluster, "the intruder puts", status, &error);
    }
    if (victim.intruder == INTRUDER_FLUSH) {
        status = sim_node_flush(node, &error);
        check_fine(cluster, "the intruder flushes", status, &error);
    }
}

static vex_bucket_fault victim_decide(void *context, vex_bucket_call call, const char *name) {
    static const char *const calls[] = {"get", "size", "list", "put", "remove"};
    sim_node *node = context;
    sim_cluster *cluster = node->cluster;
    victim.calls++;
    if (victim.land && victim.at != 0 && victim.calls == victim.at + 2) {
        while (cluster->late_count > 0) {
            sim_cluster_land(cluster, 0, true);
        }
    }
    char what[sizeof victim.call];
    snprintf(what, sizeof what, "%s %s", calls[call], name);
    if (victim.calls != victim.at) {
        bool again = victim.again && victim.at != 0 && victim.calls > victim.at &&
                     victim.calls < victim.at + 8 && strcmp(what, victim.call) == 0;
        return again ? victim.fault : VEX_BUCKET_WELL;
    }
    memcpy(victim.call, what, sizeof what);
    if (victim.intruder != INTRUDER_NONE) {
        intrude(cluster);
    }
    return victim.fault;
}

/* Whether the node lives on. */
static bool alive(const sim_node *node) {
    return node->lake != NULL && node->bucket->unreachable == 0;
}

static void work(sim_cluster *cluster) {
    sim_node *node = &cluster->nodes[0];
    vex_error error;
    for (int step = 0; step < 14 && alive(node); step++) {
        vex_status status = VEX_OK;
        switch (step) {
        case 0:
            status = sim_node_put(node, own_ids, 4, &error);
            break;
        case 1:
            status = sim_node_put(node, own_ids + 2, 4, &error);
            break;
        case 2:
            status = sim_node_delete(node, own_ids, 2, &error);
            break;
        case 3:
            status = sim_node_flush(node, &error);
            break;
        case 4:
            status = sim_node_put(node, own_ids + 4, 3, &error);
            break;
        case 5:
            status = sim_node_delete(node, own_ids + 3, 3, &error);
            break;
        case 6:
            status = sim_node_import(node, import_path, own_ids + 6, 4, &error);
            break;
        case 7:
            status = sim_node_put(node, own_ids + 7, 2, &error);
            break;
        case 8:
            status = sim_node_flush(node, &error);
            break;
        case 9:
            status = sim_node_delete(node, own_ids + 8, 1, &error);
            break;
        case 10: /* nothing is there to delete */
            status = sim_node_delete(node, own_ids + 8, 1, &error);
            break;
        case 11:
            status = sim_node_poll(node, true, &error);
            break;
        case 12:
            status = sim_node_put(node, own_ids, 2, &error);
            break;
        default:
            sim_env_advance(cluster->sim, 6000); /* a heartbeat, a refresh */
            break;
        }
        check_fine(cluster, "the work", status, &error);
        if (victim.at == 0 && status != VEX_OK) {
            fprintf(stderr, "step %d: %s\n", step, error.message);
            exit(1);
        }
    }
}

static void begin(sim_cluster *cluster) {
    sim_cluster_init(cluster, 1, 4);
    sim_node *first = &cluster->nodes[0];
    CHECK_OK(sim_node_open(first, &err));
    CHECK_OK(sim_node_create(first, &err));
    CHECK_OK(sim_node_put(first, others_ids, 2, &err));
    CHECK_OK(sim_node_flush(first, &err));
    sim_node_close(first); /* the next process claims what this one left */
    sim_node *reader = &cluster->nodes[2];
    reader->config.read_only = true;
    CHECK_OK(sim_node_open(reader, &err));
    CHECK_OK(sim_node_poll(reader, true, &err));
    victim.calls = 0;
    victim.call[0] = '\0';
    first->decide = victim_decide;
    CHECK_OK(sim_node_open(first, &err));
}

/* `when`: of the takeover, late puts land before it, behind it, or behind its flush. */
static void finish(sim_cluster *cluster, int when, bool takeover) {
    sim_node *first = &cluster->nodes[0];
    sim_node *second = &cluster->nodes[1];
    sim_node *reader = &cluster->nodes[2];
    vex_error error;
    victim.at = 0;
    victim.intruder = INTRUDER_NONE;
    sim_cluster_check(cluster);
    CHECK_OK(sim_node_poll(reader, true, &err));
    if (!alive(first) && first->lake != NULL) {
        sim_node_kill(first);
    }
    if (first->lake == NULL) {
        takeover = true;
    }
    for (int step = 0; step < 3; step++) {
        while (step == when && cluster->late_count > 0) {
            sim_cluster_land(cluster, 0, true);
        }
        if (takeover && step == 1) {
            if (second->lake == NULL) {
                second->config.takeover = true;
                CHECK_OK(sim_node_open(second, &err));
            }
            if (!sim_cluster_exists(cluster)) {
                vex_status status = sim_node_create(second, &error);
                CHECK(status == VEX_OK || status == VEX_EXISTS);
            }
            CHECK_OK(sim_node_put(second, others_ids, 3, &err));
            CHECK_OK(sim_node_flush(second, &err));
        }
        sim_cluster_check(cluster);
        CHECK_OK(sim_node_poll(reader, true, &err));
    }
    if (takeover && first->lake != NULL) { /* it wakes up */
        vex_status put = sim_node_put(first, own_ids, 2, &error);
        CHECK(put == VEX_READ_ONLY || put == VEX_NOT_FOUND); /* the latter: what it knew is gone */
        put = sim_node_delete(first, own_ids, 2, &error);
        CHECK(put == VEX_READ_ONLY || put == VEX_NOT_FOUND);
        CHECK_OK(sim_node_poll(first, true, &err));
    } else if (!takeover) {
        CHECK_OK(sim_node_put(first, own_ids, 2, &err));
        CHECK_OK(sim_node_flush(first, &err));
    }
    sim_cluster_check(cluster);
    if (first->lake != NULL && second->lake != NULL) {
        sim_node_close(second);
        sim_env_advance(cluster->sim, 1100);
        CHECK_OK(sim_node_put(first, own_ids + 4, 2, &err));
    }
    sim_env_advance(cluster->sim, 3000);
    sim_cluster_settle(cluster);
    sim_cluster_deinit(cluster);
}

static uint64_t count_calls(void) {
    sim_cluster cluster;
    begin(&cluster);
    victim.at = 0;
    cluster.when = "counting";
    work(&cluster);
    uint64_t calls = victim.calls;
    finish(&cluster, 0, false);
    return calls;
}

TEST(every_call_goes_wrong) {
    uint64_t calls = count_calls();
    uint64_t runs = 0;
    uint64_t left_out = 0;
    for (int fault = VEX_BUCKET_FAIL; fault < VEX_BUCKET_FAULTS; fault++) {
        for (uint64_t at = 1; at <= 2 * calls; at++) {
            for (int variant = 0; variant < 6; variant++) {
                bool takeover = variant >= 2;
                bool late = fault == VEX_BUCKET_LATE;
                if (!late && variant != 0 && variant != 2) {
                    continue; /* nothing lands late */
                }
                if (fault >= VEX_BUCKET_DIE && at % 2 == 0) {
                    continue; /* there is no second try */
                }
                if (!chosen(&left_out, at % 2 == 1 && variant == 2)) {
                    continue;
                }
                sim_cluster cluster;
                char when[256];
                begin(&cluster);
                victim.at = (at + 1) / 2;
                victim.again = at % 2 == 0;
                victim.fault = (vex_bucket_fault)fault;
                victim.intruder = INTRUDER_NONE;
                victim.land = variant == 1 || variant == 5;
                cluster.when = when;
                snprintf(when, sizeof when, "call %llu%s %s, variant %d",
                         (unsigned long long)victim.at, victim.again ? " and on" : "",
                         fault_names[fault], variant);
                work(&cluster);
                snprintf(when, sizeof when, "call %llu%s (%s) %s, variant %d, behind it",
                         (unsigned long long)victim.at, victim.again ? " and on" : "", victim.call,
                         fault_names[fault], variant);
                finish(&cluster, takeover ? (variant - 2) % 3 : 0, takeover);
                runs++;
            }
        }
    }
    printf("    %llu store calls of the work, %llu runs\n", (unsigned long long)calls,
           (unsigned long long)runs);
}

TEST(taken_over_before_every_call) {
    uint64_t calls = count_calls();
    uint64_t runs = 0;
    uint64_t left_out = 0;
    for (int kind = INTRUDER_PUT; kind < INTRUDERS; kind++) {
        for (uint64_t at = 1; at <= calls; at++) {
            /* The call itself also loses its answer, or is late. */
            static const vex_bucket_fault faults[] = {VEX_BUCKET_WELL, VEX_BUCKET_LOSE_ANSWER,
                                                      VEX_BUCKET_LATE};
            for (int f = 0; f < 3; f++) {
                if (!chosen(&left_out, false)) {
                    continue;
                }
                sim_cluster cluster;
                char when[256];
                begin(&cluster);
                victim.at = at;
                victim.fault = faults[f];
                victim.intruder = (intruder_kind)kind;
                victim.land = false;
                victim.again = faults[f] == VEX_BUCKET_LATE;
                cluster.when = when;
                snprintf(when, sizeof when, "another %s before call %llu, which is %s",
                         intruder_names[kind], (unsigned long long)at, fault_names[faults[f]]);
                work(&cluster);
                snprintf(when, sizeof when, "another %s before call %llu (%s), which is %s, behind",
                         intruder_names[kind], (unsigned long long)at, victim.call,
                         fault_names[faults[f]]);
                bool looked = kind == INTRUDER_LOOK;
                finish(&cluster, f, !looked);
                runs++;
            }
        }
    }
    printf("    %llu store calls of the work, %llu runs\n", (unsigned long long)calls,
           (unsigned long long)runs);
}

/* ---- Commits that land late -------------------------------------------------------------------
 */

static bool commits_late;

static vex_bucket_fault late_decide(void *context, vex_bucket_call call, const char *name) {
    (void)context;
    bool commit = call == VEX_BUCKET_PUT && strstr(name, "/_delta_log/") != NULL;
    return commits_late && commit ? VEX_BUCKET_LATE : VEX_BUCKET_WELL;
}

/* A drop or an import of which nobody knows, and then a write that is acknowledged: the commit may
 * not land behind it any more. */
TEST(a_commit_lands_behind_a_write) {
    for (int kind = 0; kind < 5; kind++) {
        static sim_cluster cluster;
        vex_error error;
        sim_cluster_init(&cluster, 1, 4);
        cluster.when = kind == 0   ? "a late drop"
                       : kind == 1 ? "a late import"
                       : kind == 2 ? "a late flush"
                       : kind == 3 ? "a late drop, and an import"
                                   : "a late drop, and a delete of nothing";
        sim_node *node = &cluster.nodes[0];
        node->decide = late_decide;
        CHECK_OK(sim_node_open(node, &err));
        CHECK_OK(sim_node_create(node, &err));
        CHECK_OK(sim_node_put(node, own_ids, 4, &err));
        CHECK_OK(sim_node_flush(node, &err));
        CHECK_OK(sim_node_put(node, own_ids + 2, 2, &err));
        if (kind == 1) {
            CHECK_OK(sim_node_flush(node, &err));
        }
        commits_late = true;
        vex_status status = kind == 1   ? sim_node_import(node, import_path, own_ids + 3, 4, &error)
                            : kind == 2 ? sim_node_flush(node, &error)
                                        : sim_node_drop(node, &error);
        CHECK_EQ(status, VEX_UNKNOWN_OUTCOME);
        commits_late = false;
        CHECK(cluster.late_count > 0);
        if (kind == 4) {
            CHECK_OK(sim_node_delete(node, others_ids, 1, &err));
        } else if (kind == 3) {
            CHECK_OK(sim_node_import(node, import_path, own_ids + 3, 4, &err));
        } else {
            CHECK_OK(sim_node_put(node, own_ids + 4, 3, &err));
        }
        sim_cluster_check(&cluster);
        CHECK_OK(sim_node_poll(node, true, &err));
        while (cluster.late_count > 0) {
            sim_cluster_land(&cluster, 0, true);
        }
        sim_cluster_check(&cluster);
        CHECK_OK(sim_node_put(node, own_ids + 5, 3, &err));
        sim_cluster_settle(&cluster);
        sim_cluster_deinit(&cluster);
    }
}

/* ---- Random work ------------------------------------------------------------------------------
 */

enum { WRITERS = 4, READER = 4, STEPS = 300, UNKNOWN_AT = 5 };

static struct {
    uint64_t random;
    uint32_t ppm[VEX_BUCKET_FAULTS]; /* of all calls; 0 while the store is well */
    bool well;
    char again[256]; /* a put of this name goes wrong again, mostly: tries follow each other */
    vex_bucket_fault again_how;
    uint32_t ids;
    sim_cluster cluster;
} trial;

static uint32_t below(uint32_t bound) {
    return (uint32_t)vex_test_below(&trial.random, bound);
}

static vex_bucket_fault random_decide(void *context, vex_bucket_call call, const char *name) {
    (void)context;
    if (trial.well) {
        return VEX_BUCKET_WELL;
    }
    if (call == VEX_BUCKET_PUT && strcmp(name, trial.again) == 0 && below(8) != 0) {
        return trial.again_how;
    }
    trial.again[0] = '\0';
    uint32_t draw = below(1000000);
    for (int fault = VEX_BUCKET_FAIL; fault < VEX_BUCKET_FAULTS; fault++) {
        if (draw < trial.ppm[fault]) {
            if (call == VEX_BUCKET_PUT && fault < VEX_BUCKET_DIE) {
                snprintf(trial.again, sizeof trial.again, "%s", name);
                trial.again_how = (vex_bucket_fault)fault;
            }
            return (vex_bucket_fault)fault;
        }
        draw -= trial.ppm[fault];
    }
    return VEX_BUCKET_WELL;
}

static size_t pick_ids(uint32_t ids[SIM_CHANGES_MAX], uint32_t most) {
    size_t count = 1 + below(most);
    for (size_t i = 0; i < count; i++) {
        ids[i] = below(trial.ids);
        for (size_t j = 0; j < i; j++) {
            if (ids[j] == ids[i]) {
                count--;
                i--;
                break;
            }
        }
    }
    return count;
}

static void note(const char *what, vex_status status, const vex_error *error) {
    bool calm = trial.well && status == VEX_IO;
    if (!fine(status) || calm) {
        fprintf(stderr, "%s: %s: %s: %s\n", trial.cluster.when, what, vex_status_text(status),
                error->message);
        exit(1);
    }
}

static void start_node(sim_node *node, bool takeover) {
    vex_error error;
    node->config.takeover = takeover;
    node->config.read_only = node->number == READER;
    node->decide = random_decide;
    vex_status status = sim_node_open(node, &error);
    if (status != VEX_NOT_FOUND) { /* a reader, before there is a lake */
        note("open", status, &error);
    }
}

/* The store is well, and some node writes, whatever must be waited for. */
static void settle(void) {
    sim_cluster *cluster = &trial.cluster;
    vex_error error;
    trial.well = true;
    while (cluster->late_count > 0) {
        sim_cluster_land(cluster, below((uint32_t)cluster->late_count), below(2) == 0);
    }
    bool written = false;
    for (int i = 0; i < SIM_NODES_MAX; i++) {
        sim_node *node = &cluster->nodes[i];
        if (node->lake != NULL && node->bucket->unreachable != 0) {
            sim_node_kill(node); /* also those that died in the midst of a call */
        }
    }
    for (int round = 0; round < 4 && !written; round++) {
        sim_env_advance(cluster->sim, 31000);
        for (int i = 0; i < WRITERS && !written; i++) {
            sim_node *node = &cluster->nodes[i];
            uint32_t ids[SIM_CHANGES_MAX];
            if (node->lake == NULL) {
                start_node(node, false);
                CHECK(node->lake != NULL);
            }
            vex_status status = sim_node_create(node, &error);
            note("create", status, &error);
            status = sim_node_put(node, ids, pick_ids(ids, 4), &error);
            note("put", status, &error);
            written = status == VEX_OK;
        }
    }
    if (!written) {
        fprintf(stderr, "%s: nobody can write: %s\n", cluster->when, error.message);
        exit(1);
    }
    sim_env_advance(cluster->sim, 1100);
    sim_cluster_settle(cluster);
    trial.well = false;
}

static void random_step(void) {
    sim_cluster *cluster = &trial.cluster;
    sim_node *node = &cluster->nodes[below(SIM_NODES_MAX)];
    if (cluster->holder >= 0 && below(8) < 5) { /* others are mostly refused */
        node = &cluster->nodes[cluster->holder];
    }
    vex_error error;
    vex_status status = VEX_OK;
    uint32_t ids[SIM_CHANGES_MAX];
    if (cluster->unknown_count >= UNKNOWN_AT || cluster->step_count > SIM_HISTORY_MAX / 2) {
        settle();
        return;
    }
    if (node->lake == NULL) {
        start_node(node, below(2) == 0);
        return;
    }
    if (!sim_cluster_exists(cluster) && node->number != READER && below(2) == 0) {
        status = sim_node_create(node, &error);
        note("create", status, &error);
        return;
    }
    switch (below(32)) {
    case 0:
        sim_node_kill(node);
        break;
    case 1:
        if (node->bucket->unreachable != 0) {
            sim_node_kill(node);
        } else {
            sim_node_close(node);
        }
        break;
    case 2: /* for a while */
        node->bucket->unreachable = !node->bucket->unreachable;
        break;
    case 3:
    case 4:
        status = sim_node_flush(node, &error);
        break;
    case 5:
        sim_env_advance(cluster->sim, below(3000));
        break;
    case 6:
        sim_env_advance(cluster->sim, below(40000));
        break;
    case 7:
        if (below(3) == 0) {
            status = sim_node_drop(node, &error);
        }
        break;
    case 8:
        status = sim_node_import(node, import_path, ids, pick_ids(ids, 10), &error);
        break;
    case 9:
    case 10:
        if (cluster->late_count > 0) {
            sim_cluster_land(cluster, below((uint32_t)cluster->late_count), below(4) != 0);
        }
        break;
    case 11:
    case 12:
    case 13:
        status = sim_node_poll(node, true, &error);
        break;
    case 14:
    case 15:
    case 16:
    case 17:
        status = sim_node_poll(node, false, &error);
        break;
    case 18:
    case 19:
    case 20:
    case 21:
        status = sim_node_delete(node, ids, pick_ids(ids, 4), &error);
        break;
    default:
        status = sim_node_put(node, ids, pick_ids(ids, 8), &error);
        break;
    }
    if (node->lake != NULL && node->bucket->unreachable == 0) {
        note("a step", status, &error);
    }
    if (below(16) == 0) {
        sim_cluster_check(cluster);
    }
}

static void print_total(const sim_cluster *total) {
    printf(
        "    %llu calls acknowledged, %llu refused, %llu unknown; %llu looks; %llu takeovers, %llu "
        "commits, %llu deletions, %llu late puts landed\n",
        (unsigned long long)total->acknowledged, (unsigned long long)total->refused,
        (unsigned long long)total->unknown, (unsigned long long)total->polls,
        (unsigned long long)total->takeovers, (unsigned long long)total->commits,
        (unsigned long long)total->deletions, (unsigned long long)total->landed);
}

static void random_trials(uint64_t seed, uint64_t count, const uint32_t plans[][VEX_BUCKET_FAULTS],
                          size_t plan_count) {
    static sim_cluster total;
    total = (sim_cluster){.sim = NULL};
    for (uint64_t i = 0; i < count; i++) {
        char when[64];
        sim_cluster *cluster = &trial.cluster;
        snprintf(when, sizeof when, "trial of seed %llu", (unsigned long long)(seed + i));
        trial.random = seed + i;
        trial.well = true;
        trial.again[0] = '\0';
        memcpy(trial.ppm, plans[(seed + i) % plan_count], sizeof trial.ppm);
        sim_cluster_init(cluster, seed + i, 1 + below(8));
        trial.ids = below(2) == 0 ? 12 : 100;
        cluster->when = when;
        for (int n = 0; n < SIM_NODES_MAX; n++) {
            cluster->nodes[n].config.flush_size_bytes = 2000 + below(60000);
            cluster->nodes[n].config.flush_interval_ms = 1000 + below(60000);
        }
        start_node(&cluster->nodes[0], false);
        CHECK_OK(sim_node_create(&cluster->nodes[0], &err));
        trial.well = false;
        for (int step = 0; step < STEPS; step++) {
            random_step();
        }
        settle();
        trial.well = true;
        total.acknowledged += cluster->acknowledged;
        total.refused += cluster->refused;
        total.unknown += cluster->unknown;
        total.polls += cluster->polls;
        total.takeovers += cluster->takeovers;
        total.commits += cluster->commits;
        total.deletions += cluster->deletions;
        total.landed += cluster->landed;
        sim_cluster_deinit(cluster);
    }
    print_total(&total);
}

/* failed, answer lost, lost, late, killed before, killed behind */
TEST(random_work_of_several_nodes) {
    static const uint32_t plans[1][VEX_BUCKET_FAULTS] = {{0}};
    random_trials(vex_test_seed(1), vex_test_effort(60), plans, 1);
}

TEST(random_work_over_a_failing_bucket) {
    static const uint32_t plans[5][VEX_BUCKET_FAULTS] = {
        {0, 20000, 20000, 20000, 20000, 1000, 1000},
        {0, 0, 300000, 0, 0, 0, 0},
        {0, 0, 0, 100000, 200000, 0, 0},
        {0, 100000, 0, 0, 0, 0, 0},
        {0, 5000, 5000, 5000, 300000, 3000, 3000},
    };
    random_trials(vex_test_seed(1001), vex_test_effort(100), plans, 5);
}

int main(void) {
    int file = mkstemp(import_path);
    CHECK(file >= 0);
    CHECK(close(file) == 0);
    RUN(a_commit_lands_behind_a_write);
    RUN(random_work_of_several_nodes);
    RUN(random_work_over_a_failing_bucket);
    RUN(taken_over_before_every_call);
    RUN(every_call_goes_wrong);
    CHECK(unlink(import_path) == 0);
    return 0;
}
