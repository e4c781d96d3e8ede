/* A deterministic environment: the whole engine on one thread, repeatable from a seed.
 *
 * Time stands still until the test moves it. Identifiers and the engine's own seeds come from a
 * generator. Background tasks lie in a queue until the test runs them, in an order that the seed
 * decides; `parallel` runs its pieces one after another, in seeded order too. Memory is counted,
 * and the n-th allocation can be made to fail. Nothing here locks: one thread only. */
#ifndef VEX_TESTS_SIM_ENV_H
#define VEX_TESTS_SIM_ENV_H

#include "base/env.h"

typedef struct sim_env sim_env;

/* Ends the program where there is no memory. */
sim_env *sim_env_create(uint64_t seed);
/* Fails the test if any memory is still in use. Queued tasks are dropped. NULL is fine. */
void sim_env_destroy(sim_env *sim);
/* For the engine; lives as long as sim. */
const vexi_env *sim_env_of(sim_env *sim);

/* Blocks in use now, and allocations asked for since the creation. */
uint64_t sim_env_in_use(const sim_env *sim);
uint64_t sim_env_allocations(const sim_env *sim);
/* The n-th allocation from now (from 1) fails, with `and_later` all behind it too; 0: none. */
void sim_env_fail_allocation(sim_env *sim, uint64_t n, bool and_later);

/* Tasks that are queued, due or not. */
uint64_t sim_env_queued(const sim_env *sim);
/* Run one of the due tasks; false if none is due. */
bool sim_env_run_one(sim_env *sim);
/* Move the clocks, then run what is due, and what that makes due, but at most 1,000 tasks. */
void sim_env_advance(sim_env *sim, uint64_t milliseconds);

#endif
