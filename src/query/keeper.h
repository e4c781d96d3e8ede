/* Keeper: what Arrow results keep alive besides their snapshot.
 *
 * Results may outlive the lake's handle, and their memory comes from its environment. The handle
 * and every result hold a reference to the keeper; the last one destroys the environment.
 *
 * It also keeps what searches need besides results (query/scratch.h) from one to the next, so that
 * a search of some tens of microseconds asks for hardly any memory. */
#ifndef VEXI_QUERY_KEEPER_H
#define VEXI_QUERY_KEEPER_H

#include <stdatomic.h>

#include "base/env.h"

enum { VEXI_KEEPER_SCRATCH_MAX = 16 }; /* threads that may find one ready */

typedef struct vexi_scratch vexi_scratch;

/* A fresh one is zero but for the first three fields. */
typedef struct vexi_keeper vexi_keeper;
struct vexi_keeper {
    const vexi_env *env;                                        /* immutable */
    atomic_size_t references;                                   /* atomic */
    void (*destroy)(vexi_keeper *keeper);                       /* immutable; called by the last
                                                                   release */
    _Atomic(vexi_scratch *) scratches[VEXI_KEEPER_SCRATCH_MAX]; /* atomic; NULL: none here */
};

/* Give back the memory that is kept for later searches. Called by the last release. */
void vexi_keeper_clear(vexi_keeper *keeper);

static inline void vexi_keeper_retain(vexi_keeper *keeper) {
    atomic_fetch_add_explicit(&keeper->references, 1, memory_order_relaxed);
}

static inline void vexi_keeper_release(vexi_keeper *keeper) {
    if (atomic_fetch_sub_explicit(&keeper->references, 1, memory_order_acq_rel) == 1) {
        vexi_keeper_clear(keeper);
        keeper->destroy(keeper);
    }
}

#endif
