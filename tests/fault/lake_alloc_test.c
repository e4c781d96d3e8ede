/* Every allocation fails once, in every call of a node over a bucket: to claim, to write, to flush,
 * to follow, to be taken over, to drop.
 *
 * Each call is made with its first allocation failing, then the second, and so on until it gets by
 * without the failure; the same with all behind the n-th failing too. It must answer VEX_MEMORY (or
 * that the outcome is unknown, or success where it can do without), leak nothing, and leave nodes
 * that work: all of them are compared with the history afterwards. */
#include "check.h"
#include "sim/sim_cluster.h"

static sim_cluster cluster;
static const uint32_t ids[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

static bool fine(vex_status status) {
    return status == VEX_OK || status == VEX_MEMORY || status == VEX_UNKNOWN_OUTCOME;
}

static sim_node *writer(void) {
    return &cluster.nodes[0];
}

static sim_node *second(void) {
    return &cluster.nodes[1];
}

static sim_node *reader(void) {
    return &cluster.nodes[2];
}

/* ---- Calls, and what comes before them ------------------------------------------------------- */

static void prepare_nothing(void) {}

static vex_status call_put(vex_error *err) {
    return sim_node_put(writer(), ids, 6, err);
}

static vex_status call_delete(vex_error *err) {
    return sim_node_delete(writer(), ids + 2, 3, err);
}

static vex_status call_delete_nothing(vex_error *err) {
    static const uint32_t absent[1] = {77};
    return sim_node_delete(writer(), absent, 1, err);
}

static void prepare_flush(void) {
    CHECK_OK(sim_node_put(writer(), ids + 1, 4, &err));
}

static vex_status call_flush(vex_error *err) {
    return sim_node_flush(writer(), err);
}

/* The second node claims what the first, which ended, left in the log. */
static void prepare_claim(void) {
    CHECK_OK(sim_node_put(writer(), ids + 3, 4, &err));
    CHECK_OK(sim_node_delete(writer(), ids + 4, 1, &err));
    sim_node_close(writer());
}

static vex_status call_claim(vex_error *err) {
    return sim_node_put(second(), ids + 5, 2, err);
}

/* It takes over from one that lives, which had a memtable. */
static void prepare_takeover(void) {
    CHECK_OK(sim_node_put(writer(), ids + 3, 4, &err));
}

static vex_status call_takeover(vex_error *err) {
    return sim_node_put(second(), ids + 6, 3, err);
}

/* The first learns of it. */
static void prepare_fenced(void) {
    CHECK_OK(sim_node_put(writer(), ids + 3, 4, &err));
    CHECK_OK(sim_node_put(second(), ids + 6, 3, &err));
}

static vex_status call_fenced_put(vex_error *err) {
    vex_status status = sim_node_put(writer(), ids, 2, err);
    return status == VEX_READ_ONLY ? VEX_OK : status;
}

static vex_status call_fenced_poll(vex_error *err) {
    return sim_node_poll(writer(), true, err);
}

/* The reader has rows; then a version covers some of them, and more came behind it. */
static void prepare_follow(void) {
    CHECK_OK(sim_node_put(writer(), ids, 4, &err));
    CHECK_OK(sim_node_poll(reader(), true, &err));
    CHECK_OK(sim_node_put(writer(), ids + 2, 4, &err));
    CHECK_OK(sim_node_flush(writer(), &err));
    CHECK_OK(sim_node_put(writer(), ids + 4, 3, &err));
    CHECK_OK(sim_node_delete(writer(), ids + 5, 1, &err));
}

static vex_status call_follow(vex_error *err) {
    return sim_node_poll(reader(), true, err);
}

static vex_status call_open(vex_error *err) {
    sim_node *late = &cluster.nodes[3];
    vex_status status = late->lake != NULL ? VEX_OK : sim_node_open(late, err);
    return status == VEX_OK ? sim_node_poll(late, true, err) : status;
}

static vex_status call_drop(vex_error *err) {
    vex_status status = sim_node_drop(writer(), err);
    return status == VEX_NOT_FOUND ? VEX_OK : status; /* an earlier try did it */
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void begin(void) {
    sim_cluster_init(&cluster, 5, 4);
    CHECK_OK(sim_node_open(writer(), &err));
    CHECK_OK(sim_node_create(writer(), &err));
    CHECK_OK(sim_node_put(writer(), ids, 8, &err));
    CHECK_OK(sim_node_flush(writer(), &err));
    CHECK_OK(sim_node_put(writer(), ids + 3, 2, &err));
    second()->config.takeover = true;
    CHECK_OK(sim_node_open(second(), &err));
    CHECK_OK(sim_node_poll(second(), true, &err));
    reader()->config.read_only = true;
    CHECK_OK(sim_node_open(reader(), &err));
    CHECK_OK(sim_node_poll(reader(), true, &err));
}

/* The call works now; a node writes, whoever it is, and all show the same. */
static void finish(const char *what, vex_status (*call)(vex_error *err)) {
    cluster.when = what;
    CHECK_OK(call(&err));
    for (int i = 0; i < 3; i++) {
        if (cluster.nodes[i].lake != NULL) {
            CHECK_OK(sim_node_poll(&cluster.nodes[i], true, &err));
        }
    }
    vex_error error;
    sim_node *node = writer()->lake != NULL ? writer() : second();
    vex_status made = sim_node_create(node, &error); /* it may be dropped */
    CHECK(made == VEX_OK || made == VEX_EXISTS);
    vex_status status = sim_node_put(node, ids, 2, &error);
    if (status == VEX_READ_ONLY) {
        CHECK_OK(sim_node_put(second(), ids, 2, &err));
    } else {
        CHECK_EQ(status, VEX_OK);
    }
    sim_env_advance(cluster.sim, 1100);
    sim_cluster_settle(&cluster);
    sim_cluster_deinit(&cluster); /* checks that no memory is in use */
}

static void every(const char *what, vex_status (*call)(vex_error *err), void (*prepare)(void)) {
    for (int later = 0; later < 2; later++) {
        uint64_t failures = 0;
        bool more = true;
        for (uint64_t n = 1; more; n++) {
            char when[96];
            snprintf(when, sizeof when, "%s, allocation %llu%s", what, (unsigned long long)n,
                     later != 0 ? " and on" : "");
            begin();
            cluster.when = when;
            prepare();
            uint64_t before = sim_env_allocations(cluster.sim);
            vex_error error = {.message = ""};
            sim_env_fail_allocation(cluster.sim, n, later != 0);
            vex_status status = call(&error);
            more = sim_env_allocations(cluster.sim) - before >= n;
            sim_env_fail_allocation(cluster.sim, 0, false);
            if (!fine(status) || (status != VEX_OK && (!more || error.message[0] == '\0'))) {
                fprintf(stderr, "%s: %s: %s\n", when, vex_status_text(status), error.message);
                exit(1);
            }
            failures += status == VEX_OK ? 0 : 1;
            finish(when, call);
        }
        CHECK(failures > 0);
        printf("    %s: %llu failures%s\n", what, (unsigned long long)failures,
               later != 0 ? ", for good" : "");
    }
}

TEST(put) {
    every("put", call_put, prepare_nothing);
}
TEST(delete_rows) {
    every("delete", call_delete, prepare_nothing);
}
TEST(delete_nothing) {
    every("delete of nothing", call_delete_nothing, prepare_nothing);
}
TEST(flush) {
    every("flush", call_flush, prepare_flush);
}
TEST(claim) {
    every("claim", call_claim, prepare_claim);
}
TEST(takeover) {
    every("takeover", call_takeover, prepare_takeover);
}
TEST(fenced) {
    every("put of one that was taken over", call_fenced_put, prepare_fenced);
    every("look of one that was taken over", call_fenced_poll, prepare_fenced);
}
TEST(follow) {
    every("follow", call_follow, prepare_follow);
}
TEST(open) {
    every("open and follow", call_open, prepare_follow);
}
TEST(drop) {
    every("drop", call_drop, prepare_nothing);
}

TEST_MAIN(RUN(put); RUN(delete_rows); RUN(delete_nothing); RUN(flush); RUN(claim); RUN(takeover);
          RUN(fenced); RUN(follow); RUN(open); RUN(drop))
