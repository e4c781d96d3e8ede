/* The one thread that asks the lake on behalf of the HTTP port.
 *
 * Describing collections takes locks of the engine, and a probe waits for storage: on a network
 * mount that is gone, for ever. So neither is done by whoever answers a request: they ask the
 * monitor, wait for a limited time, and tell what is known. */
#ifndef VEXI_SERVER_MONITOR_H
#define VEXI_SERVER_MONITOR_H

#include "server/metrics.h"

typedef struct vexi_monitor vexi_monitor;
struct vexi_server;

/* Starts the thread. `server` is borrowed until vexi_monitor_stop, its lake from when its phase is
 * SERVING. */
vex_status vexi_monitor_start(struct vexi_server *server, vexi_monitor **out, vex_error *err);
/* Ends the thread, which finishes what it is at. Before the lake is closed. NULL is fine. */
void vexi_monitor_stop(vexi_monitor *monitor);

/* Whether the event loop turns: false once it has not for VEXI_STUCK_SECONDS. `why` receives a
 * line. Asks nobody and never waits. */
#define VEXI_STUCK_SECONDS 10u
bool vexi_monitor_alive(const vexi_metrics *metrics, uint64_t now_ns, char *why, size_t size);

/* Whether clients can be served: the lake is open, nobody drains, and its storage answers a probe
 * within two seconds. `why` receives a line. */
bool vexi_monitor_ready(vexi_monitor *monitor, char *why, size_t size);

/* The newest sample, one taken now if it can be had within two seconds. False: there is none. */
bool vexi_monitor_sample(vexi_monitor *monitor, vexi_lake_sample *out);

#endif
