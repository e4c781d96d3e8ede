/* Cancelling long work: a flag that whoever waits for it sets from another thread. */
#ifndef VEXI_INDEX_CANCEL_H
#define VEXI_INDEX_CANCEL_H

#include "base/status.h"

/* cancel: atomic, not 0 ends the work; may be NULL. */
static inline bool vexi_is_cancelled(const int *cancel) {
    return cancel != NULL && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0;
}

/* VEX_CANCELLED where the flag is set. */
static inline vex_status vexi_cancel_check(const int *cancel, vex_error *err) {
    return vexi_is_cancelled(cancel) ? vexi_fail(err, VEX_CANCELLED, "cancelled") : VEX_OK;
}

#endif
