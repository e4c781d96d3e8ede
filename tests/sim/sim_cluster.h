/* Several nodes over one bucket, on one thread, and a history of what they answered.
 *
 * Every node is a lake over a store of its own (store/test_bucket.h) in one simulated environment.
 * The history is the list of calls that were acknowledged or whose outcome is unknown, in the order
 * in which they count; what was refused is not in it. Any state that a node shows must be that of a
 * prefix of the history, in which of the unknown calls each is there as a whole or not at all; and
 * a node never goes back. A call may be under way while another node makes one (in `decide`): then
 * the epochs under which they were acknowledged say which of the two came first.
 *
 * Below the nodes the bucket is watched: who was taken over puts no commit, what is deleted from a
 * log is a group that a commit covers, and no group lands behind a claim of a higher epoch. */
#ifndef VEX_TESTS_SIM_CLUSTER_H
#define VEX_TESTS_SIM_CLUSTER_H

#include "sim/sim_env.h"
#include "sim/sim_world.h"
#include "store/test_bucket.h"

enum { SIM_NODES_MAX = 5, SIM_HISTORY_MAX = 4096, SIM_CLAIMS_MAX = 1024 };

typedef struct sim_cluster sim_cluster;

typedef struct sim_node {
    sim_cluster *cluster;
    int number;
    vexi_lake_config config;
    vexi_lake *lake; /* NULL: it is down */
    vex_test_bucket *bucket;
    vex_bucket_fault (*decide)(void *node, vex_bucket_call call, const char *name); /* or NULL */
    /* What it showed last: the state behind the first `floor` steps. */
    size_t floor;
    sim_state shown;
    size_t own; /* it must show at least the first `own` steps: its own are among them */
} sim_node;

typedef struct sim_claim {
    char log[64]; /* "c/log/<uuid>/" */
    uint64_t number;
    uint64_t epoch;
} sim_claim;

struct sim_cluster {
    sim_env *sim;
    vexi_store *shared;
    vex_test_late late[VEX_BUCKET_LATE_MAX];
    size_t late_count;
    sim_node nodes[SIM_NODES_MAX];
    vexi_schema schema;
    const char *when; /* printed with failures */

    sim_state base; /* before the history */
    sim_step *steps;
    uint64_t *epochs; /* under which they were acknowledged; 0: without a claim */
    size_t step_count;
    size_t unknown_count;
    uint32_t next_version;

    /* What the bucket showed. */
    int holder; /* whose epoch was committed last; -1: nobody's since the collection was made */
    char covered_log[64];
    uint64_t covered; /* by the newest commit that says so */
    sim_claim claims[SIM_CLAIMS_MAX];
    size_t claim_count;

    uint64_t acknowledged, refused, unknown, polls, takeovers, landed, commits, deletions;
};

/* steps and epochs are allocated; all else is empty. */
void sim_cluster_init(sim_cluster *cluster, uint64_t seed, uint32_t dimension);
/* Closes all nodes. */
void sim_cluster_deinit(sim_cluster *cluster);
vexi_lake_config sim_cluster_config(int node);

/* A new process: it has shown nothing yet. */
vex_status sim_node_open(sim_node *node, vex_error *err);
/* End well, or as by kill -9. */
void sim_node_close(sim_node *node);
void sim_node_kill(sim_node *node);

/* Calls on the collection "c", noted in the history. */
vex_status sim_node_create(sim_node *node, vex_error *err);
vex_status sim_node_drop(sim_node *node, vex_error *err);
vex_status sim_node_put(sim_node *node, const uint32_t *ids, size_t count, vex_error *err);
vex_status sim_node_delete(sim_node *node, const uint32_t *ids, size_t count, vex_error *err);
vex_status sim_node_flush(sim_node *node, vex_error *err);
vex_status sim_node_import(sim_node *node, const char *path, const uint32_t *ids, size_t count,
                           vex_error *err);
/* Whether the history ends with a collection that is there. */
bool sim_cluster_exists(const sim_cluster *cluster);

/* Look at the collection, with `consistent` as of now, and compare with the history. Not VEX_OK: it
 * could not be read. */
vex_status sim_node_poll(sim_node *node, bool consistent, vex_error *err);
/* The same by a node that starts now. The store must be well. */
void sim_cluster_check(sim_cluster *cluster);
/* Late put i happens, or never will. */
void sim_cluster_land(sim_cluster *cluster, size_t i, bool land);
/* Nothing is unknown any more: all nodes look, and the history begins anew. A write must have been
 * acknowledged since the last unknown one, no put may be on its way, and the store be well. */
void sim_cluster_settle(sim_cluster *cluster);

#endif
