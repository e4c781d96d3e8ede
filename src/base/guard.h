/* SIGBUS as a status.
 *
 * A mapped file that shrinks or whose disk fails raises SIGBUS at the load that touches it. Code
 * that only computes over mapped memory, holds no lock and allocates nothing runs inside a guard;
 * a SIGBUS inside ends the guarded function and the guard returns VEX_IO. A SIGBUS outside any
 * guard goes to the handler that was there before ours. */
#ifndef VEXI_BASE_GUARD_H
#define VEXI_BASE_GUARD_H

#include "base/status.h"

/* Install the process-wide handler once; thread-safe; called when a lake is opened. */
void vexi_guard_install(void);

/* Run function(argument). Its local state is lost if it faults, so results go through argument.
 * `object` names what is mapped, for the message. Guards nest. */
vex_status vexi_guard_run(vex_status (*function)(void *argument, vex_error *err), void *argument,
                          const char *object, vex_error *err);

#endif
