/* Keeper: what Arrow results keep alive besides their snapshot.
 *
 * Results may outlive the lake's handle, and their memory comes from its environment. The handle
 * and every result hold a reference to the keeper; the last one destroys the environment. */
#ifndef VEXI_QUERY_KEEPER_H
#define VEXI_QUERY_KEEPER_H

#include <stdatomic.h>

#include "base/env.h"

typedef struct vexi_keeper vexi_keeper;
struct vexi_keeper {
    const vexi_env *env;                  /* immutable */
    atomic_size_t references;             /* atomic */
    void (*destroy)(vexi_keeper *keeper); /* immutable; called by the last release */
};

static inline void vexi_keeper_retain(vexi_keeper *keeper) {
    atomic_fetch_add_explicit(&keeper->references, 1, memory_order_relaxed);
}

static inline void vexi_keeper_release(vexi_keeper *keeper) {
    if (atomic_fetch_sub_explicit(&keeper->references, 1, memory_order_acq_rel) == 1) {
        keeper->destroy(keeper);
    }
}

#endif
