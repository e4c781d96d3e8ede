/* A few slots, each empty or with one scratch, taken and filled by single atomic operations: there
 * is no list, so nothing can be linked to what another thread frees. Threads beyond the slots make
 * their own scratch and free it again. */
#include "query/scratch.h"

static void scratch_destroy(const vexi_env *env, vexi_scratch *scratch) {
    vexi_arena_deinit(&scratch->whole);
    vexi_arena_deinit(&scratch->work);
    vexi_graph_scratch_destroy(scratch->graph);
    vexi_free(env, scratch);
}

vex_status vexi_scratch_take(vexi_keeper *keeper, vexi_scratch **out, vex_error *err) {
    for (size_t i = 0; i < VEXI_KEEPER_SCRATCH_MAX; i++) {
        if (atomic_load_explicit(&keeper->scratches[i], memory_order_relaxed) == NULL) {
            continue;
        }
        vexi_scratch *scratch =
            atomic_exchange_explicit(&keeper->scratches[i], NULL, memory_order_acquire);
        if (scratch != NULL) {
            *out = scratch;
            return VEX_OK;
        }
    }
    vexi_scratch *scratch = vexi_calloc(keeper->env, 1, sizeof *scratch);
    *out = scratch;
    if (scratch == NULL) {
        return vexi_no_memory(err, sizeof *scratch);
    }
    vexi_arena_init(&scratch->whole, keeper->env);
    vexi_arena_init(&scratch->work, keeper->env);
    return VEX_OK;
}

void vexi_scratch_give(vexi_keeper *keeper, vexi_scratch *scratch) {
    if (scratch == NULL) {
        return;
    }
    vexi_arena_reset(&scratch->whole);
    vexi_arena_reset(&scratch->work);
    for (size_t i = 0; i < VEXI_KEEPER_SCRATCH_MAX; i++) {
        vexi_scratch *expected = NULL;
        if (atomic_load_explicit(&keeper->scratches[i], memory_order_relaxed) == NULL &&
            atomic_compare_exchange_strong_explicit(&keeper->scratches[i], &expected, scratch,
                                                    memory_order_release, memory_order_relaxed)) {
            return;
        }
    }
    scratch_destroy(keeper->env, scratch);
}

void vexi_keeper_clear(vexi_keeper *keeper) {
    for (size_t i = 0; i < VEXI_KEEPER_SCRATCH_MAX; i++) {
        vexi_scratch *scratch =
            atomic_exchange_explicit(&keeper->scratches[i], NULL, memory_order_acquire);
        if (scratch != NULL) {
            scratch_destroy(keeper->env, scratch);
        }
    }
}
