/* The HTTP port: /metrics, /health, /ready. */
#ifndef VEXI_SERVER_HTTP_H
#define VEXI_SERVER_HTTP_H

#include "vexlake.h"

typedef struct vexi_http vexi_http;
struct vexi_server;

/* Listen on settings.http_bind and http_port, in threads of its own. Before the lake is opened, so
 * that whoever waits for it can see why. `server` is borrowed until vexi_http_stop. *port receives
 * the port.
 *
 * VEX_INVALID  http_bind is no address.
 * VEX_IO       the address cannot be listened on. */
vex_status vexi_http_start(struct vexi_server *server, vexi_http **out, uint32_t *port,
                           vex_error *err);
/* Answer what is under way (a few seconds at most) and close. Before the lake is closed. NULL is
 * fine. */
void vexi_http_stop(vexi_http *http);

#endif
