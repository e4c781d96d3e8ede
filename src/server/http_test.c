/* The HTTP port through the phases of a server, whose loop and lake are the test's. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "server/server_internal.h"

/* The answer to a request for `path`, whole. */
static void ask(uint32_t port, const char *path, char *answer, size_t size) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    char request[128];
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
    CHECK_EQ(write(fd, request, (size_t)length), length);
    size_t used = 0;
    for (;;) {
        ssize_t got = read(fd, answer + used, size - 1 - used);
        CHECK(got >= 0);
        if (got == 0) {
            break;
        }
        used += (size_t)got;
        CHECK(used + 1 < size);
    }
    answer[used] = '\0';
    close(fd);
}

static void check_answer(uint32_t port, const char *path, int status, const char *holds) {
    enum { SIZE = 1 << 20 };
    char *answer = malloc(SIZE);
    CHECK(answer != NULL);
    ask(port, path, answer, SIZE);
    char head[32];
    snprintf(head, sizeof head, "HTTP/1.1 %d ", status);
    if (strncmp(answer, head, strlen(head)) != 0 || strstr(answer, holds) == NULL) {
        fprintf(stderr, "%s: not %d with '%s' but %.300s\n", path, status, holds, answer);
        exit(1);
    }
    free(answer);
}

static void set_phase(vexi_server *server, vexi_phase phase) {
    atomic_store_explicit(&server->metrics.phase, (int)phase, memory_order_release);
}

static vexi_server *server_new(void) {
    vexi_server *server = vexi_calloc(vex_test_env(), 1, sizeof *server);
    CHECK(server != NULL);
    server->env = vex_test_env();
    vexi_settings_defaults(&server->settings);
    CHECK_EQ(server->settings.http_port, VEXI_PORT_OFF);
    server->settings.http_port = 0;
    size_t count;
    server->command_table = vexi_commands(&count);
    vexi_metrics_init(&server->metrics);
    return server;
}

static void server_free(vexi_server *server) {
    vexi_metrics_deinit(&server->metrics);
    vexi_free(vex_test_env(), server);
}

TEST(phases) {
    vexi_server *server = server_new();
    uint32_t port;
    CHECK_OK(vexi_http_start(server, &server->http, &port, &err));
    CHECK(port != 0);
    check_answer(port, "/health", 200, "ok");
    check_answer(port, "/ready", 503, "recovering");
    check_answer(port, "/metrics", 200, "\nvexlake_ready 0\n");
    CHECK_OK(vex_lake_open("mem://", NULL, &server->lake, &err));
    vexi_metric_set(&server->metrics.beat_ns, vexi_monotonic_ns(server->env));
    set_phase(server, VEXI_PHASE_SERVING);
    check_answer(port, "/ready", 200, "ok");
    check_answer(port, "/metrics", 200, "\nvexlake_collections 0\n");
    vex_collection_options options = {.size = sizeof options, .dimension = 3};
    CHECK_OK(vex_collection_create(server->lake, vexi_string_of("a\"b\\c"), &options, &err));
    check_answer(port, "/metrics", 200,
                 "\nvexlake_collection_rows{collection=\"a\\\"b\\\\c\"} 0\n");
    /* The loop stands still. */
    vexi_metric_set(&server->metrics.beat_ns, 1);
    check_answer(port, "/health", 503, "has not turned");
    check_answer(port, "/ready", 503, "has not turned");
    check_answer(port, "/metrics", 200, "\nvexlake_ready 0\n");
    vexi_metric_set(&server->metrics.beat_ns, vexi_monotonic_ns(server->env));
    check_answer(port, "/health", 200, "ok");
    set_phase(server, VEXI_PHASE_DRAINING);
    check_answer(port, "/ready", 503, "draining");
    check_answer(port, "/health", 200, "ok");
    vexi_http_stop(server->http);
    CHECK_OK(vex_lake_close(server->lake, &err));
    server_free(server);
}

TEST(addresses) {
    vexi_server *server = server_new();
    uint32_t port;
    snprintf(server->settings.http_bind, sizeof server->settings.http_bind, "nowhere");
    CHECK_FAILS(VEX_INVALID, vexi_http_start(server, &server->http, &port, &err));
    CHECK(server->http == NULL);
    snprintf(server->settings.http_bind, sizeof server->settings.http_bind, "localhost");
    CHECK_OK(vexi_http_start(server, &server->http, &port, &err));
    vexi_http *other;
    uint32_t other_port;
    server->settings.http_port = port;
    CHECK_FAILS(VEX_IO, vexi_http_start(server, &other, &other_port, &err));
    vexi_http_stop(server->http);
    CHECK_OK(vexi_http_start(server, &server->http, &other_port, &err)); /* at once again */
    CHECK_EQ(other_port, port);
    vexi_http_stop(server->http);
    server_free(server);
}

TEST_MAIN(RUN(phases); RUN(addresses))
