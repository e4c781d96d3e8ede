/* `vexlake serve`: from flags to a clean end.
 *
 * Start: settings, address, listening socket, lake, loop; whatever fails says why in one line and
 * ends with 1. The socket is opened before the lake, so that a second server on the same port is
 * told so at once; connections wait in its queue while the log is replayed.
 *
 * End: the first SIGTERM or SIGINT drains. No connection and no command is taken any more, jobs
 * under way finish and are answered, clients are closed, all collections are flushed, the lake is
 * closed, exit 0. A second signal skips what can be skipped: the log has everything. */
#include "server/serve.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/commands.h"

#define DRAIN_MS_MAX 10000u /* then clients that do not read their replies are closed */
#define BEAT_MS      500u

static void print_help(vexi_env *env, bool markdown) {
    vexi_buffer text;
    vexi_buffer_init(&text, env, 1u << 20);
    if (markdown) {
        vexi_docs_markdown(&text);
    } else {
        vexi_buffer_text(&text, "Usage: vexlake serve [--lake URI] [--port N] [...]\n\n"
                                "Serves a lake to Redis clients. Flags, with [defaults]:\n\n");
        vexi_settings_help(&text);
        vexi_buffer_text(&text, "  --help                                 Show this.\n\n"
                                "Each flag is also a key of the file that --config names: `key "
                                "value` on a line, # begins a comment.\n"
                                "docs/commands.md describes the commands.\n");
    }
    if (!text.failed) {
        fwrite(text.data, 1, text.size, stdout);
    }
    vexi_buffer_deinit(&text);
}

/* ---- Start ----------------------------------------------------------------------------------- */

vex_status vexi_parse_address(const char *flag, const char *text, uint64_t port,
                              struct sockaddr_storage *out, bool *loopback, vex_error *err) {
    memset(out, 0, sizeof *out);
    text = strcmp(text, "localhost") == 0 ? "127.0.0.1" : text;
    struct sockaddr_in *v4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
    if (uv_ip4_addr(text, (int)port, v4) == 0) {
        *loopback = ntohl(v4->sin_addr.s_addr) >> 24 == 127;
        return VEX_OK;
    }
    if (uv_ip6_addr(text, (int)port, v6) == 0) {
        *loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) != 0;
        return VEX_OK;
    }
    return vexi_fail(err, VEX_INVALID, "%s %.100s is no IPv4 or IPv6 address", flag, text);
}

static void on_connection(uv_stream_t *listener, int status) {
    vexi_server *server = listener->data;
    if (status != 0) {
        vexi_log_line(&server->log, VEXI_LOG_WARNING, "server", "accept failed error=\"%s\"",
                      uv_strerror(status));
        return;
    }
    vexi_client_accept(server);
}

static vex_status listen_on(vexi_server *server, vex_error *err) {
    const vexi_settings *settings = &server->settings;
    struct sockaddr_storage address;
    bool loopback = false;
    VEX_TRY(vexi_parse_address("--bind", settings->bind, settings->port, &address, &loopback, err));
    if (!loopback && settings->requirepass[0] == '\0') {
        return vexi_fail(err, VEX_INVALID,
                         "--bind %s is reachable from other machines: set --requirepass too",
                         settings->bind);
    }
    int code = uv_tcp_bind(&server->listener, (struct sockaddr *)&address, 0);
    if (code == 0) {
        code = uv_listen((uv_stream_t *)&server->listener, 1024, on_connection);
    }
    if (code != 0) {
        return vexi_fail(err, VEX_IO, "cannot listen on %s:%llu: %s", settings->bind,
                         (unsigned long long)settings->port, uv_strerror(code));
    }
    int size = sizeof address;
    code = uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &size);
    server->port =
        code == 0 ? ntohs(((struct sockaddr_in *)&address)->sin_port) : (uint32_t)settings->port;
    return VEX_OK;
}

/* Let the process have as many sockets as --maxclients asks for, or lower that. */
static void fit_client_max(vexi_server *server) {
    const uint64_t own = 128; /* files of the lake, the loop, the log */
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    uint64_t wanted = server->settings.client_max + own;
    if (limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur < wanted) {
        uint64_t fits = limit.rlim_cur > own + 1 ? limit.rlim_cur - own : 1;
        vexi_log_line(&server->log, VEXI_LOG_WARNING, "server",
                      "maxclients lowered to fit the limit of open files maxclients=%llu "
                      "open_files=%llu",
                      (unsigned long long)fits, (unsigned long long)limit.rlim_cur);
        server->settings.client_max = fits;
    }
}

/* NULL for a setting that says nothing. */
static const char *given(const char *text) {
    return text[0] == '\0' ? NULL : text;
}

/* Before the lake is opened: while its log is replayed /health and /ready tell so. */
static vex_status open_http(vexi_server *server, vex_error *err) {
    if (server->settings.http_port == VEXI_PORT_OFF) {
        return VEX_OK;
    }
    uint32_t port;
    VEX_TRY(vexi_http_start(server, &server->http, &port, err));
    vexi_log_line(&server->log, VEXI_LOG_INFO, "server", "http address=%s port=%u",
                  server->settings.http_bind, port);
    return VEX_OK;
}

static void set_phase(vexi_server *server, vexi_phase phase) {
    atomic_store_explicit(&server->metrics.phase, (int)phase, memory_order_release);
}

static void on_beat(uv_timer_t *timer) {
    vexi_server *server = timer->data;
    vexi_metric_set(&server->metrics.beat_ns, vexi_monotonic_ns(server->env));
}

static vex_status open_lake(vexi_server *server, vex_error *err) {
    const vexi_settings *settings = &server->settings;
    vex_lake_options options = {.size = sizeof options,
                                .read_only = settings->read_only != 0 || settings->role != 0,
                                .durability = (vex_durability)settings->durability,
                                .sync_interval_ms = (uint32_t)settings->sync_interval_ms,
                                .flush_interval_ms = (uint32_t)settings->flush_interval_s * 1000,
                                .flush_size_bytes = settings->flush_size_bytes,
                                .memory_bytes = settings->memory_bytes,
                                .memory_limit_bytes = settings->memtable_memory_bytes,
                                .graph_memory_bytes = settings->graph_memory_bytes,
                                .thread_count = (uint32_t)settings->thread_count,
                                .log = vexi_log_engine,
                                .log_context = &server->log,
                                .s3_endpoint = given(settings->s3_endpoint),
                                .s3_region = given(settings->s3_region),
                                .s3_profile = given(settings->s3_profile),
                                .s3_ca_file = given(settings->s3_ca_file),
                                .s3_insecure = settings->s3_insecure != 0,
                                .s3_virtual_host = settings->s3_virtual_host != 0,
                                .takeover = settings->takeover != 0,
                                .group_delay_ms = (uint32_t)settings->group_delay_ms,
                                .group_size_bytes = settings->group_size_bytes,
                                .refresh_interval_ms = (uint32_t)settings->poll_interval_ms,
                                .cache_memory_bytes = settings->cache_memory_bytes,
                                .cache_folder = given(settings->cache_dir),
                                .cache_size_bytes = settings->cache_size_bytes,
                                .no_prefetch = settings->prefetch == 0};
    return vex_lake_open(settings->lake, &options, &server->lake, err);
}

/* ---- End ------------------------------------------------------------------------------------- */

static void close_handle(uv_handle_t *handle) {
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

void vexi_server_drain_step(vexi_server *server) {
    if (!server->draining || server->drained || server->clients != NULL ||
        vexi_pool_pending(server->pool) > 0) {
        return;
    }
    server->drained = true;
    vexi_pool_close(server->pool);
    close_handle((uv_handle_t *)&server->turn_end);
    close_handle((uv_handle_t *)&server->drain_timer);
    close_handle((uv_handle_t *)&server->linger_timer);
    close_handle((uv_handle_t *)&server->beat_timer);
    close_handle((uv_handle_t *)&server->signals[0]);
    close_handle((uv_handle_t *)&server->signals[1]);
}

static void on_drain_timeout(uv_timer_t *timer) {
    vexi_server *server = timer->data;
    for (vexi_client *client = server->clients; client != NULL; client = client->next) {
        if (client->runs == NULL) {
            vexi_client_close(client);
        }
    }
}

void vexi_server_drain(vexi_server *server, const char *why) {
    if (server->draining) {
        server->skip_flush = true;
        on_drain_timeout(&server->drain_timer);
        return;
    }
    vexi_log_line(&server->log, VEXI_LOG_INFO, "server", "draining reason=%s clients=%llu jobs=%zu",
                  why, (unsigned long long)vexi_metric_get(&server->metrics.clients),
                  vexi_pool_pending(server->pool));
    server->draining = true;
    set_phase(server, VEXI_PHASE_DRAINING);
    close_handle((uv_handle_t *)&server->listener);
    uv_timer_start(&server->drain_timer, on_drain_timeout, DRAIN_MS_MAX, 1000);
    for (vexi_client *client = server->clients; client != NULL; client = client->next) {
        vexi_client_drain(client);
    }
}

static void on_signal(uv_signal_t *handle, int number) {
    vexi_server_drain(handle->data, number == SIGTERM ? "SIGTERM" : "SIGINT");
}

static void on_turn_end(uv_check_t *check) {
    vexi_server *server = check->data;
    vexi_metric_set(&server->metrics.jobs, vexi_pool_pending(server->pool));
    if (server->write_queues != NULL) {
        vexi_write_dispatch(server);
    }
    if (server->searches != NULL) {
        vexi_search_dispatch(server);
        /* Clients whose searches were answered here have gone on. */
        if (server->write_queues != NULL) {
            vexi_write_dispatch(server);
        }
    }
    vexi_server_drain_step(server);
}

/* ---- The whole ------------------------------------------------------------------------------- */

static vex_status start(vexi_server *server, vex_error *err) {
    int code = uv_loop_init(&server->loop);
    if (code != 0) {
        return vexi_fail(err, VEX_IO, "cannot start an event loop: %s", uv_strerror(code));
    }
    VEX_ASSERT(uv_tcp_init(&server->loop, &server->listener) == 0);
    VEX_ASSERT(uv_check_init(&server->loop, &server->turn_end) == 0);
    VEX_ASSERT(uv_timer_init(&server->loop, &server->drain_timer) == 0);
    VEX_ASSERT(uv_timer_init(&server->loop, &server->linger_timer) == 0);
    VEX_ASSERT(uv_timer_init(&server->loop, &server->beat_timer) == 0);
    VEX_ASSERT(uv_signal_init(&server->loop, &server->signals[0]) == 0);
    VEX_ASSERT(uv_signal_init(&server->loop, &server->signals[1]) == 0);
    server->listener.data = server;
    server->turn_end.data = server;
    server->drain_timer.data = server;
    server->beat_timer.data = server;
    server->signals[0].data = server;
    server->signals[1].data = server;
    server->lake_is_remote = strncasecmp(server->settings.lake, "s3://", 5) == 0;
    uint32_t lanes[VEXI_LANE_COUNT] = {0};
    lanes[VEXI_LANE_SEARCH] = (uint32_t)server->settings.search_thread_count;
    lanes[VEXI_LANE_READ] = 8;
    lanes[VEXI_LANE_WRITE] = server->lake_is_remote ? 64 : 16; /* they wait for answers there */
    lanes[VEXI_LANE_LONG] = 4;
    VEX_TRY(vexi_pool_create(server->env, &server->loop, lanes, &server->pool, err));
    VEX_TRY(listen_on(server, err));
    fit_client_max(server);
    VEX_TRY(open_http(server, err));
    VEX_TRY(open_lake(server, err));
    if (server->http != NULL) {
        on_beat(&server->beat_timer);
        uv_timer_start(&server->beat_timer, on_beat, BEAT_MS, BEAT_MS);
    }
    set_phase(server, VEXI_PHASE_SERVING);
    uv_check_start(&server->turn_end, on_turn_end);
    uv_signal_start(&server->signals[0], on_signal, SIGTERM);
    uv_signal_start(&server->signals[1], on_signal, SIGINT);
    return VEX_OK;
}

/* Close the loop and free what the loop owns; also after a start that failed half way. */
static void stop(vexi_server *server) {
    if (server->pool != NULL) {
        vexi_pool_close(server->pool);
    }
    close_handle((uv_handle_t *)&server->listener);
    close_handle((uv_handle_t *)&server->turn_end);
    close_handle((uv_handle_t *)&server->drain_timer);
    close_handle((uv_handle_t *)&server->linger_timer);
    close_handle((uv_handle_t *)&server->beat_timer);
    close_handle((uv_handle_t *)&server->signals[0]);
    close_handle((uv_handle_t *)&server->signals[1]);
    uv_run(&server->loop, UV_RUN_DEFAULT);
    vexi_pool_destroy(server->pool);
    VEX_ASSERT(uv_loop_close(&server->loop) == 0);
    vexi_runs_free(server);
    while (server->spare_batches != NULL) {
        vexi_batch *batch = server->spare_batches;
        server->spare_batches = batch->next;
        vexi_free(server->env, batch->requests);
        vexi_free(server->env, batch->arguments);
        vexi_free(server->env, batch);
    }
    while (server->spare_inputs != NULL) {
        uint8_t *input = server->spare_inputs;
        memcpy(&server->spare_inputs, input, sizeof server->spare_inputs);
        vexi_free(server->env, input);
    }
    vexi_free(server->env, server->get_ids);
}

static int serve(vexi_server *server) {
    vex_error err;
    int result = 0;
    if (start(server, &err) != VEX_OK) {
        vexi_log_line(&server->log, VEXI_LOG_ERROR, "server", "%s", err.message);
        result = 1;
    } else {
        vexi_log_line(&server->log, VEXI_LOG_INFO, "server",
                      "ready address=%s port=%u lake=%s version=%s pid=%ld", server->settings.bind,
                      server->port, server->settings.lake, vex_version(), (long)getpid());
        uv_run(&server->loop, UV_RUN_DEFAULT);
    }
    stop(server);
    if (server->lake != NULL) {
        if (result == 0 && !server->skip_flush && server->settings.read_only == 0 &&
            server->settings.role == 0 &&
            vex_flush(server->lake, (vex_string){0}, &err) != VEX_OK) {
            vexi_log_line(&server->log, VEXI_LOG_ERROR, "server", "flush at the end failed: %s",
                          err.message);
            result = 1;
        }
        vexi_http_stop(server->http);
        server->http = NULL;
        if (vex_lake_close(server->lake, &err) != VEX_OK) {
            vexi_log_line(&server->log, VEXI_LOG_ERROR, "server", "closing the lake failed: %s",
                          err.message);
            result = 1;
        }
        vexi_log_line(&server->log, VEXI_LOG_INFO, "server", "stopped exit=%d", result);
    }
    vexi_http_stop(server->http);
    return result;
}

int vexi_serve_command(int argc, char **argv) {
    vex_error err;
    vexi_env *env;
    if (vexi_env_system_create(1, NULL, NULL, &env, &err) != VEX_OK) {
        fprintf(stderr, "vexlake serve: %s\n", err.message);
        return 1;
    }
    int result = 1;
    vexi_settings_request request;
    vexi_server *server = vexi_calloc(env, 1, sizeof *server);
    if (server == NULL) {
        fprintf(stderr, "vexlake serve: out of memory\n");
    } else if (vexi_settings_parse(&server->settings, argc, argv, &request, &err) != VEX_OK) {
        fprintf(stderr, "vexlake serve: %s\n", err.message);
        result = 2;
    } else if (request.help || request.markdown) {
        print_help(env, request.markdown);
        result = 0;
    } else {
        signal(SIGPIPE, SIG_IGN);
        server->env = env;
        server->log = (vexi_log_sink){.level = (int)server->settings.log_level, .fd = 2};
        server->start_ns = vexi_monotonic_ns(env);
        server->start_wall_us = vexi_wall_us(env);
        vexi_metrics_init(&server->metrics);
        for (int i = 0; i < 40; i++) {
            server->run_id[i] = "0123456789abcdef"[vexi_random_u64(env) % 16];
        }
        vexi_command_map_init(&server->commands);
        size_t count;
        server->command_table = vexi_commands(&count);
        VEX_ASSERT(count <= VEXI_METRIC_COMMANDS_MAX);
        result = serve(server);
        vexi_metrics_deinit(&server->metrics);
    }
    vexi_free(env, server);
    vexi_env_system_destroy(env);
    return result;
}
