/* A store that tells the test what is about to happen.
 *
 * Forwards every call to another store. Before each put_if_absent it calls a function, which may
 * use other stores over the same disk: so another engine's commit falls exactly between the moment
 * when ours was built and the moment when it is put. */
#ifndef VEX_TESTS_SIM_HOOK_H
#define VEX_TESTS_SIM_HOOK_H

#include "store/store.h"

typedef struct sim_hook {
    void (*before_put)(void *context, const char *name); /* NULL: nothing */
    void *context;
} sim_hook;

/* inner is taken; hook is borrowed and may change. */
vexi_store *sim_hook_create(vexi_store *inner, const sim_hook *hook);

#endif
