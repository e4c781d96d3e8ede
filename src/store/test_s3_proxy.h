/* An HTTP proxy that stands before an S3 server and misbehaves by a seed.
 *
 * One request per connection: it is read whole, perhaps given to the server, and its answer perhaps
 * given back. What befalls a request is drawn from the seed and the request's number. Faults that
 * are counted down (`lose_next`, ...) come before those by rate. */
#ifndef VEXI_STORE_TEST_S3_PROXY_H
#define VEXI_STORE_TEST_S3_PROXY_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <strings.h>

#include "store/test_s3_server.h"

enum { VEX_TEST_PROXY_CONNECTIONS = 512, VEX_TEST_PROXY_SIZE_MAX = 32 << 20 };

typedef struct vex_test_proxy {
    uint16_t port;
    uint16_t server_port;
    int listener;
    pthread_t thread;
    uint64_t seed;
    atomic_uint_fast64_t number; /* of the next request */
    atomic_bool stop;
    atomic_int open_count;
    /* Rates in percent, of all requests. */
    atomic_int error_percent; /* 500, not given to the server */
    atomic_int slow_percent;  /* 503 SlowDown, not given to the server */
    atomic_int cut_percent;   /* the answer breaks off in its middle */
    atomic_int lose_percent;  /* the server acts, the answer is lost */
    atomic_int delay_percent; /* the answer comes 300 ms late */
    /* Of the next n requests. */
    atomic_int lose_next;
    atomic_int hang_next; /* not given to the server, no answer until the client leaves */
    atomic_int error_next;
    /* Of the next n conditional puts. */
    atomic_int refuse_next; /* 412, as if it existed; not given to the server */
    /* Of all requests while set. */
    atomic_bool drops_range; /* the server sees no Range */
    atomic_bool breaks_etag; /* every answer has another ETag */
    atomic_bool hangs;
    atomic_bool loses;
} vex_test_proxy;

typedef struct vex_test_proxy_connection {
    vex_test_proxy *proxy;
    int fd;
} vex_test_proxy_connection;

static inline bool vex_test_send_all(int fd, const char *data, size_t size) {
    while (size > 0) {
        ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            return false;
        }
        data += sent;
        size -= (size_t)sent;
    }
    return true;
}

static inline bool vex_test_take_one(atomic_int *count) {
    int left = atomic_load(count);
    while (left > 0) {
        if (atomic_compare_exchange_weak(count, &left, left - 1)) {
            return true;
        }
    }
    return false;
}

/* The value of a header in a head that ends with a NUL, or NULL. */
static inline char *vex_test_find_header(char *head, const char *name) {
    size_t size = strlen(name);
    for (char *line = strstr(head, "\r\n"); line != NULL && line[2] != '\r';
         line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, size) == 0 && line[2 + size] == ':') {
            return line + 2;
        }
    }
    return NULL;
}

/* Read a request with its body; its size, or 0. */
static inline size_t vex_test_read_request(int fd, char *data, size_t *head_size) {
    size_t size = 0, wanted = SIZE_MAX;
    *head_size = 0;
    while (size < wanted && size < VEX_TEST_PROXY_SIZE_MAX) {
        ssize_t got = recv(fd, data + size, VEX_TEST_PROXY_SIZE_MAX - size, 0);
        if (got <= 0) {
            return 0;
        }
        size += (size_t)got;
        data[size] = '\0';
        char *end = *head_size == 0 ? strstr(data, "\r\n\r\n") : NULL;
        if (end != NULL) {
            *head_size = (size_t)(end - data) + 4;
            end[2] = '\0';
            char *length = vex_test_find_header(data, "content-length");
            wanted = *head_size + (length == NULL ? 0 : strtoull(length + 15, NULL, 10));
            end[2] = '\r';
        }
    }
    return size;
}

static inline bool vex_test_draw(uint64_t *random, atomic_int *percent) {
    return (int)vex_test_below(random, 100) < atomic_load(percent);
}

/* Give the request to the server and read the whole answer; its size, 0 on failure. */
static inline size_t vex_test_ask_server(vex_test_proxy *proxy, char *data, size_t size,
                                         size_t head_size, char *answer) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(proxy->server_port),
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    size_t got_size = 0;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
        static const char close_header[] = "Connection: close\r\n";
        char *range = NULL;
        data[head_size - 2] = '\0';
        if (atomic_load(&proxy->drops_range)) {
            range = vex_test_find_header(data, "range");
        }
        data[head_size - 2] = '\r';
        if (range != NULL) {
            range[0] = 'X'; /* "Xange" means nothing */
        }
        bool sent = vex_test_send_all(fd, data, head_size - 2) &&
                    vex_test_send_all(fd, close_header, sizeof close_header - 1) &&
                    vex_test_send_all(fd, data + head_size - 2, size - head_size + 2);
        ssize_t got = 1;
        while (sent && got > 0 && got_size < VEX_TEST_PROXY_SIZE_MAX) {
            got = recv(fd, answer + got_size, VEX_TEST_PROXY_SIZE_MAX - got_size, 0);
            got_size += got > 0 ? (size_t)got : 0;
        }
        answer[got_size] = '\0';
    }
    close(fd);
    return got_size;
}

static inline void vex_test_proxy_serve(vex_test_proxy *proxy, int fd, char *data, char *answer) {
    size_t head_size = 0;
    size_t size = vex_test_read_request(fd, data, &head_size);
    if (size == 0) {
        return;
    }
    uint64_t number = atomic_fetch_add(&proxy->number, 1);
    uint64_t random = vexi_random_mix(proxy->seed + number * VEXI_RANDOM_STEP);
    bool is_error = vex_test_draw(&random, &proxy->error_percent);
    is_error = vex_test_take_one(&proxy->error_next) || is_error;
    bool is_slow = vex_test_draw(&random, &proxy->slow_percent);
    bool is_cut = vex_test_draw(&random, &proxy->cut_percent);
    bool is_lost = vex_test_draw(&random, &proxy->lose_percent);
    is_lost = vex_test_take_one(&proxy->lose_next) || atomic_load(&proxy->loses) || is_lost;
    bool is_late = vex_test_draw(&random, &proxy->delay_percent);
    data[head_size - 2] = '\0';
    bool is_conditional = vex_test_find_header(data, "if-none-match") != NULL;
    data[head_size - 2] = '\r';
    if (is_conditional && vex_test_take_one(&proxy->refuse_next)) {
        static const char refused[] =
            "HTTP/1.1 412 Precondition Failed\r\nContent-Length: 46\r\nConnection: close\r\n\r\n"
            "<Error><Code>PreconditionFailed</Code></Error>";
        (void)vex_test_send_all(fd, refused, sizeof refused - 1);
        return;
    }
    if (atomic_load(&proxy->hangs) || vex_test_take_one(&proxy->hang_next)) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        while (!atomic_load(&proxy->stop) && poll(&wait, 1, 50) == 0) {
        }
        return;
    }
    if (is_error || is_slow) {
        static const char error[] =
            "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 42\r\nConnection: close\r\n\r\n"
            "<Error><Code>InternalError</Code>  </Error>";
        static const char slow[] =
            "HTTP/1.1 503 Slow Down\r\nContent-Length: 35\r\nConnection: close\r\n\r\n"
            "<Error><Code>SlowDown</Code></Error>";
        (void)vex_test_send_all(fd, is_error ? error : slow,
                                (is_error ? sizeof error : sizeof slow) - 1);
        return;
    }
    size_t answer_size = vex_test_ask_server(proxy, data, size, head_size, answer);
    if (is_lost) {
        return;
    }
    if (is_late) {
        (void)usleep(300000);
    }
    char *end = strstr(answer, "\r\n\r\n");
    if (atomic_load(&proxy->breaks_etag) && end != NULL) {
        end[2] = '\0';
        char *etag = vex_test_find_header(answer, "etag");
        end[2] = '\r';
        if (etag != NULL) {
            etag[8] = (char)('a' + number % 26);
        }
    }
    (void)vex_test_send_all(fd, answer, is_cut ? answer_size * 2 / 3 : answer_size);
}

static inline void *vex_test_proxy_connection_main(void *argument) {
    vex_test_proxy_connection *connection = argument;
    vex_test_proxy *proxy = connection->proxy;
    char *data = malloc(VEX_TEST_PROXY_SIZE_MAX + 1);
    char *answer = malloc(VEX_TEST_PROXY_SIZE_MAX + 1);
    vex_test_proxy_serve(proxy, connection->fd, data, answer);
    free(data);
    free(answer);
    (void)shutdown(connection->fd, SHUT_RDWR);
    close(connection->fd);
    free(connection);
    atomic_fetch_sub(&proxy->open_count, 1);
    return NULL;
}

static inline void *vex_test_proxy_main(void *argument) {
    vex_test_proxy *proxy = argument;
    while (!atomic_load(&proxy->stop)) {
        struct pollfd wait = {.fd = proxy->listener, .events = POLLIN};
        if (poll(&wait, 1, 50) <= 0) {
            continue;
        }
        int fd = accept(proxy->listener, NULL, NULL);
        if (fd < 0) {
            continue;
        }
        vex_test_proxy_connection *connection = malloc(sizeof *connection);
        *connection = (vex_test_proxy_connection){.proxy = proxy, .fd = fd};
        atomic_fetch_add(&proxy->open_count, 1);
        pthread_t thread;
        CHECK_EQ(pthread_create(&thread, NULL, vex_test_proxy_connection_main, connection), 0);
        CHECK_EQ(pthread_detach(thread), 0);
    }
    return NULL;
}

/* Stand before the server at server_port; at a port of its own unless `port` is given. */
static inline void vex_test_proxy_open(vex_test_proxy *proxy, uint16_t server_port, uint16_t port,
                                       uint64_t seed) {
    memset(proxy, 0, sizeof *proxy);
    proxy->server_port = server_port;
    proxy->port = port != 0 ? port : vex_test_free_port();
    proxy->seed = seed;
    proxy->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(proxy->listener >= 0);
    int yes = 1;
    CHECK(setsockopt(proxy->listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(proxy->port),
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    CHECK(bind(proxy->listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(proxy->listener, 128) == 0);
    CHECK_EQ(pthread_create(&proxy->thread, NULL, vex_test_proxy_main, proxy), 0);
}

static inline void vex_test_proxy_close(vex_test_proxy *proxy) {
    atomic_store(&proxy->stop, true);
    CHECK_EQ(pthread_join(proxy->thread, NULL), 0);
    close(proxy->listener);
    while (atomic_load(&proxy->open_count) > 0) {
        (void)usleep(1000);
    }
}

#endif
