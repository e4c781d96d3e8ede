/* The HTTP port, by libmicrohttpd.
 *
 * Threads. One thread listens and each connection has its own, so a request that waits for a sample
 * of a slow lake delays nobody; all of them together are CONNECTIONS_MAX. None is the event loop's,
 * which knows of HTTP nothing but the counters that it keeps.
 *
 * Strangers. A connection carries one request and ends; its head has room for HEAD_SIZE bytes;
 * bodies are not read; it is closed after IDLE_SECONDS without a byte, and after LIFE_SECONDS
 * whatever it does. libmicrohttpd knows the first of these times only, and a peer that sends a byte
 * every few seconds would keep its place for long: so a thread of ours looks at all connections
 * every second and shuts down those whose time is over. Their sockets are closed by libmicrohttpd,
 * behind the call that takes them off our list. Connections beyond the limit are closed at once.
 */
#include "server/http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "server/expose.h"
#include "server/monitor.h"
#include "server/server_internal.h"

#define CONNECTIONS_MAX 32u
#define HEAD_SIZE       16384u
#define IDLE_SECONDS    5u
#define LIFE_SECONDS    15u
#define PAGE_SIZE_MAX   (64u << 20)

/* A connection; its address is libmicrohttpd's socket context. */
typedef struct http_peer {
    int fd; /* -1: the place is free; mutex */
    uint64_t end_ns;
} http_peer;

struct vexi_http {
    vexi_server *server; /* immutable */
    vexi_monitor *monitor;
    struct MHD_Daemon *daemon;
    uv_thread_t watcher;
    bool watching; /* the watcher was started */
    uv_mutex_t mutex;
    uv_cond_t stop;                   /* with the mutex */
    bool stopping;                    /* mutex */
    http_peer peers[CONNECTIONS_MAX]; /* mutex */
};

/* ---- Connections ----------------------------------------------------------------------------- */

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code) {
    vexi_http *http = context;
    uv_mutex_lock(&http->mutex);
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        *socket_context = NULL;
        for (size_t i = 0; i < CONNECTIONS_MAX && info != NULL; i++) {
            if (http->peers[i].fd < 0) {
                http->peers[i].fd = info->connect_fd;
                http->peers[i].end_ns =
                    vexi_monotonic_ns(http->server->env) + LIFE_SECONDS * UINT64_C(1000000000);
                *socket_context = &http->peers[i];
                break;
            }
        }
    } else if (*socket_context != NULL) {
        ((http_peer *)*socket_context)->fd = -1;
    }
    uv_mutex_unlock(&http->mutex);
}

static void watch(void *argument) {
    vexi_http *http = argument;
    uv_mutex_lock(&http->mutex);
    while (!http->stopping) {
        (void)uv_cond_timedwait(&http->stop, &http->mutex, UINT64_C(1000000000));
        uint64_t now_ns = vexi_monotonic_ns(http->server->env);
        for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
            if (http->peers[i].fd >= 0 && now_ns >= http->peers[i].end_ns) {
                (void)shutdown(http->peers[i].fd, SHUT_RDWR);
            }
        }
    }
    uv_mutex_unlock(&http->mutex);
}

/* ---- Answers --------------------------------------------------------------------------------- */

static enum MHD_Result answer(struct MHD_Connection *connection, unsigned status, const char *type,
                              const void *body, size_t size) {
    /* The copy is libmicrohttpd's to free. */
    struct MHD_Response *response =
        MHD_create_response_from_buffer(size, (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
    if (response == NULL) {
        return MHD_NO;
    }
    bool complete =
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type) == MHD_YES &&
        MHD_add_response_header(response, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store") == MHD_YES &&
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close") == MHD_YES &&
        (status != MHD_HTTP_METHOD_NOT_ALLOWED ||
         MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD") == MHD_YES);
    enum MHD_Result result = complete ? MHD_queue_response(connection, status, response) : MHD_NO;
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result answer_line(struct MHD_Connection *connection, unsigned status,
                                   const char *line) {
    char text[512];
    int size = snprintf(text, sizeof text, "%.500s\n", line);
    return answer(connection, status, "text/plain; charset=utf-8", text, (size_t)size);
}

static enum MHD_Result answer_metrics(vexi_http *http, struct MHD_Connection *connection) {
    vexi_server *server = http->server;
    bool open_metrics = vexi_expose_wants_open_metrics(
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_ACCEPT));
    vexi_lake_sample *sample = vexi_calloc(server->env, 1, sizeof *sample);
    if (sample == NULL) {
        return answer_line(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
    }
    char why[512];
    bool ready = vexi_monitor_ready(http->monitor, why, sizeof why);
    bool there = vexi_monitor_sample(http->monitor, sample);
    vexi_buffer page;
    vexi_buffer_init(&page, server->env, PAGE_SIZE_MAX);
    vexi_metrics_page(server, there ? sample : NULL, ready, open_metrics, &page);
    vexi_free(server->env, sample);
    enum MHD_Result result =
        page.failed
            ? answer_line(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory")
            : answer(connection, MHD_HTTP_OK,
                     open_metrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                  : "text/plain; version=0.0.4; charset=utf-8",
                     page.data, page.size);
    vexi_buffer_deinit(&page);
    return result;
}

static vexi_http_path path_of(const char *url) {
    static const char *const paths[] = {"/metrics", "/health", "/ready"};
    for (int i = 0; i < VEXI_HTTP_OTHER; i++) {
        if (strcmp(url, paths[i]) == 0) {
            return (vexi_http_path)i;
        }
    }
    return VEXI_HTTP_OTHER;
}

/* Answers as soon as the head is there: a body is not waited for. */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **request_context) {
    (void)version;
    (void)upload;
    (void)request_context;
    vexi_http *http = context;
    vexi_server *server = http->server;
    *upload_size = 0;
    vexi_http_path path = path_of(url);
    vexi_metric_add_shared(&server->metrics.http[path], 1);
    if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        return answer_line(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD");
    }
    char why[512];
    bool good;
    switch (path) {
    case VEXI_HTTP_METRICS:
        return answer_metrics(http, connection);
    case VEXI_HTTP_HEALTH:
        good =
            vexi_monitor_alive(&server->metrics, vexi_monotonic_ns(server->env), why, sizeof why);
        return answer_line(connection, good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, why);
    case VEXI_HTTP_READY:
        good = vexi_monitor_ready(http->monitor, why, sizeof why);
        return answer_line(connection, good ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, why);
    case VEXI_HTTP_OTHER:
    case VEXI_HTTP_PATH_COUNT:
        break;
    }
    return answer_line(connection, MHD_HTTP_NOT_FOUND,
                       "there are /metrics, /health and /ready here");
}

/* ---- Start and stop -------------------------------------------------------------------------- */

static vex_status listen_on(vexi_http *http, vex_error *err) {
    const vexi_settings *settings = &http->server->settings;
    struct sockaddr_storage address;
    bool loopback;
    VEX_TRY(vexi_parse_address("--http-bind", settings->http_bind, settings->http_port, &address,
                               &loopback, err));
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION | MHD_USE_ITC |
                     MHD_USE_POLL;
    if (address.ss_family == AF_INET6) {
        flags |= MHD_USE_IPv6;
    }
    errno = 0;
    http->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, http, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)&address,
        MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEAD_SIZE, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, http, MHD_OPTION_END);
    if (http->daemon == NULL) {
        return vexi_fail(err, VEX_IO, "cannot listen for HTTP on %s:%llu: %s", settings->http_bind,
                         (unsigned long long)settings->http_port,
                         errno != 0 ? strerror(errno) : "libmicrohttpd failed");
    }
    return VEX_OK;
}

vex_status vexi_http_start(vexi_server *server, vexi_http **out, uint32_t *port, vex_error *err) {
    *out = NULL;
    *port = 0;
    vexi_http *http = vexi_calloc(server->env, 1, sizeof *http);
    if (http == NULL) {
        return vexi_no_memory(err, sizeof *http);
    }
    http->server = server;
    for (size_t i = 0; i < CONNECTIONS_MAX; i++) {
        http->peers[i].fd = -1;
    }
    VEX_ASSERT(uv_mutex_init(&http->mutex) == 0);
    VEX_ASSERT(uv_cond_init(&http->stop) == 0);
    vex_status status = vexi_monitor_start(server, &http->monitor, err);
    if (status == VEX_OK) {
        int code = uv_thread_create(&http->watcher, watch, http);
        http->watching = code == 0;
        if (code != 0) {
            status = vexi_fail(err, VEX_IO, "cannot start a thread for the HTTP port: %s",
                               uv_strerror(code));
        }
    }
    if (status == VEX_OK) {
        status = listen_on(http, err);
    }
    if (status != VEX_OK) {
        vexi_http_stop(http);
        return status;
    }
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_BIND_PORT);
    *port = info != NULL ? info->port : (uint32_t)server->settings.http_port;
    *out = http;
    return VEX_OK;
}

void vexi_http_stop(vexi_http *http) {
    if (http == NULL) {
        return;
    }
    if (http->daemon != NULL) {
        MHD_stop_daemon(http->daemon);
    }
    if (http->watching) {
        uv_mutex_lock(&http->mutex);
        http->stopping = true;
        uv_cond_signal(&http->stop);
        uv_mutex_unlock(&http->mutex);
        uv_thread_join(&http->watcher);
    }
    vexi_monitor_stop(http->monitor);
    uv_cond_destroy(&http->stop);
    uv_mutex_destroy(&http->mutex);
    vexi_free(http->server->env, http);
}
