/* A lake in a simulated world, and calls on it that keep a model up to date.
 *
 * The world is an environment, a simulated disk that survives the lake, and the lake with two
 * collections, each with its model. A call's answer is believed: what was refused must never be
 * seen, what was acknowledged always, what is unknown may go either way. */
#ifndef VEX_TESTS_SIM_WORLD_H
#define VEX_TESTS_SIM_WORLD_H

#include "sim/sim_env.h"
#include "sim/sim_foreign.h"
#include "sim/sim_hook.h"
#include "sim/sim_kill.h"
#include "store/disk.h"

enum { SIM_COLLECTIONS = 2 };

typedef struct sim_world {
    sim_env *sim;
    vexi_disk *disk; /* the simulated one, which survives the lake */
    vexi_disk *kill; /* what the lake's store stands on: `disk`, whose user can be killed */
    vexi_lake_config config;
    vexi_lake *lake;      /* NULL while closed */
    vexi_fault_plan plan; /* of a fault store below the next lake that is opened */
    bool faults;          /* there is to be one */
    sim_hook hook;        /* what to do before a put_if_absent of the lake */
    vexi_store *store;    /* the open lake's, borrowed */
    vexi_schema schema;
    sim_model models[SIM_COLLECTIONS];
    vex_status last; /* of the last call */
    vex_error error;
} sim_world;

/* A configuration with small files, so that little work crosses every border. */
vexi_lake_config sim_config(void);

/* A world with an empty simulated disk. */
void sim_world_init(sim_world *world, uint64_t seed, uint32_t dimension, vex_metric metric);
/* Close the lake if it is open, free the world, check that no memory is left. */
void sim_world_deinit(sim_world *world);

vex_status sim_world_open(sim_world *world);
/* End the lake by a kill, and with `power` by a power failure that this seed decides. */
void sim_world_kill(sim_world *world, bool power, uint64_t seed);
/* The lake is gone whatever the answer. */
vex_status sim_world_close(sim_world *world);

/* Calls. Collection c is named "c" or "d". Each leaves its status in world->last. */
vex_string sim_world_name(uint32_t c);
vex_status sim_world_create(sim_world *world, uint32_t c);
vex_status sim_world_drop(sim_world *world, uint32_t c);
/* One batch: each id gets the next version. */
vex_status sim_world_put(sim_world *world, uint32_t c, const uint32_t *ids, size_t count);
/* Delete, and check which were there. */
vex_status sim_world_delete(sim_world *world, uint32_t c, const uint32_t *ids, size_t count);
vex_status sim_world_flush(sim_world *world, uint32_t c);
/* Import a file of these rows (see sim_write_import). */
vex_status sim_world_import(sim_world *world, uint32_t c, const char *path, const sim_change *rows,
                            size_t count);
/* Another engine appends rows, each id with the next version. It works on the same disk. */
vex_status sim_world_foreign(sim_world *world, uint32_t c, const uint32_t *ids, size_t count);

/* For CHECK_OK: hand the error of the call that gave `status` on. */
vex_status sim_world_answer(const sim_world *world, vex_status status, vex_error *err);

/* Look at every collection: it must be in a state that the answers allow. A read error is fine only
 * if `may_fail`. */
void sim_world_check(sim_world *world, bool settle, bool may_fail, const char *when);

/* A Parquet file on the real disk, for imports. */
void sim_write_import(const char *path, const vexi_schema *schema, const sim_change *rows,
                      size_t count);

#endif
