/* query HOST PORT COLLECTION DIM QUERIES COUNT K CONNECTIONS DEPTH [vexlake|redis WORD...]
 *     asks COUNT queries, those of the file QUERIES (float32, row-major) in turn, over several
 *     connections of one thread: VSEARCH of VexLake, or VSIM of Redis; the words are appended as
 *     they are (RECALL 0.95, EF 100). Each connection sends DEPTH commands, waits for all of their
 *     replies, and sends the next. The time of a query is from the sending of its DEPTH to the end
 *     of its own reply. Prints the ids that the first answer of each query has. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "driver.h"

enum { DEPTH_MAX = 256, INPUT_SIZE = 1 << 20, NESTING_MAX = 4, ID_SIZE = 24, K_MAX = 1000 };

/* A connection with up to DEPTH_MAX queries in flight, answered in order. */
typedef struct asking {
    int fd;
    char *out;
    size_t out_size, out_sent;
    char *in;
    size_t in_size;
    size_t first;  /* number of its first query in flight */
    size_t wanted; /* replies still to come */
    size_t got;    /* replies of this round */
    uint64_t sent_ns;
} asking;

typedef struct answers {
    size_t k;
    size_t query_count;
    char (*ids)[ID_SIZE]; /* query_count x k; empty where there was no answer */
} answers;

/* A reply being read; `ids` receives up to k ids, or is NULL. */
typedef struct reply {
    const char *at, *end;
    char (*ids)[ID_SIZE];
    size_t k, found;
} reply;

/* One line's number after its type; false if the line is not whole. */
static bool read_line(reply *r, long *value) {
    const char *stop = memchr(r->at, '\n', (size_t)(r->end - r->at));
    if (stop == NULL) {
        return false;
    }
    *value = strtol(r->at + 1, NULL, 10);
    r->at = stop + 1;
    return true;
}

/* One value of RESP2. Ids are the strings of the outer array (Redis), or the first string of each
 * inner one (VexLake). False if it is not all there yet. */
static bool read_value(reply *r, unsigned level, size_t index) {
    if (r->at == r->end) {
        return false;
    }
    char type = *r->at;
    const char *line = r->at;
    long value;
    if (!read_line(r, &value)) {
        return false;
    }
    if (type == '-') {
        fprintf(stderr, "%.*s", (int)(r->at - line), line);
        fail("query", "the server refused it");
    }
    if (type == '$' && value >= 0) {
        if (r->end - r->at < value + 2) {
            return false;
        }
        if ((level == 1 || (level == 2 && index == 0)) && r->ids != NULL && r->found < r->k &&
            value < ID_SIZE) {
            memcpy(r->ids[r->found], r->at, (size_t)value);
            r->ids[r->found++][value] = '\0';
        }
        r->at += value + 2;
    } else if (type == '*') {
        if (level == NESTING_MAX) {
            fail("query", "a reply nested too deep");
        }
        for (long i = 0; i < value; i++) {
            if (!read_value(r, level + 1, (size_t)i)) {
                return false;
            }
        }
    }
    return true;
}

/* The commands of one query after another into the buffer. */
static size_t write_command(char *at, size_t room, bool redis, const char *collection, size_t k,
                            const float *query, uint32_t dimension, size_t extra, char **words) {
    size_t blob_size = dimension * sizeof(float), used;
    char count[24];
    int digits = snprintf(count, sizeof count, "%zu", k);
    if (redis) {
        used =
            (size_t)snprintf(at, room, "*%zu\r\n$4\r\nVSIM\r\n$%zu\r\n%s\r\n$4\r\nFP32\r\n$%zu\r\n",
                             6 + extra, strlen(collection), collection, blob_size);
    } else {
        used =
            (size_t)snprintf(at, room, "*%zu\r\n$7\r\nVSEARCH\r\n$%zu\r\n", 5 + extra, blob_size);
    }
    memcpy(at + used, query, blob_size);
    used += blob_size;
    used += (size_t)snprintf(at + used, room - used,
                             redis ? "\r\n$5\r\nCOUNT\r\n$%d\r\n%s\r\n" : "\r\n$%d\r\n%s\r\n",
                             digits, count);
    for (size_t i = 0; i < extra; i++) {
        used +=
            (size_t)snprintf(at + used, room - used, "$%zu\r\n%s\r\n", strlen(words[i]), words[i]);
    }
    if (!redis) {
        used += (size_t)snprintf(at + used, room - used, "$2\r\nIN\r\n$%zu\r\n%s\r\n",
                                 strlen(collection), collection);
    }
    return used;
}

/* Take what the socket has; whole replies are read and their times noted. */
static void read_answers(asking *a, answers *all, uint64_t *times) {
    ssize_t got = read(a->fd, a->in + a->in_size, INPUT_SIZE - a->in_size);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return;
    }
    if (got <= 0) {
        fail("server", got < 0 ? strerror(errno) : "it closed the connection");
    }
    a->in_size += (size_t)got;
    reply r = {.at = a->in, .end = a->in + a->in_size, .k = all->k};
    while (a->wanted > 0) {
        size_t number_of = a->first + a->got;
        const char *begin = r.at;
        r.ids = number_of < all->query_count ? all->ids + number_of * all->k : NULL;
        r.found = 0;
        if (!read_value(&r, 0, 0)) {
            r.at = begin;
            break;
        }
        times[number_of] = wall_ns() - a->sent_ns;
        a->got++;
        a->wanted--;
    }
    a->in_size = (size_t)(r.end - r.at);
    memmove(a->in, r.at, a->in_size);
    if (a->in_size == INPUT_SIZE || (a->wanted == 0 && a->in_size > 0)) {
        fail("query", "a reply too large, or one too many");
    }
}

static void send_out(asking *a) {
    while (a->out_sent < a->out_size) {
        ssize_t wrote = write(a->fd, a->out + a->out_sent, a->out_size - a->out_sent);
        if (wrote < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (wrote < 0) {
            fail("write", strerror(errno));
        }
        a->out_sent += (size_t)wrote;
    }
}

int query(size_t word_count, char **words) {
    uint32_t dimension = (uint32_t)number(words[3]);
    size_t size, total = number(words[5]), k = number(words[6]);
    size_t connection_count = number(words[7]), depth = number(words[8]);
    const float *queries = (const float *)(const void *)map_file(words[4], &size);
    size_t query_count = dimension == 0 ? 0 : size / sizeof(float) / dimension;
    bool redis = word_count > 9 && strcmp(words[9], "redis") == 0;
    size_t extra = word_count > 10 ? word_count - 10 : 0;
    if (query_count == 0 || connection_count == 0 || connection_count > CONNECTIONS_MAX ||
        depth == 0 || depth > DEPTH_MAX || k == 0 || k > K_MAX) {
        fail("query", "no queries, or too many connections, too deep, or k too large");
    }
    answers all = {.k = k, .query_count = query_count, .ids = take(query_count * k * ID_SIZE)};
    memset(all.ids, 0, query_count * k * ID_SIZE);
    uint64_t *times = take((total + 1) * sizeof *times);
    size_t stride = dimension * sizeof(float) + strlen(words[2]) + 256 + extra * 64;
    asking connections[CONNECTIONS_MAX];
    struct pollfd polls[CONNECTIONS_MAX];
    for (size_t c = 0; c < connection_count; c++) {
        connections[c] = (asking){
            .fd = dial(words[0], words[1]), .out = take(depth * stride), .in = take(INPUT_SIZE)};
    }
    size_t started = 0;
    uint64_t cpu = cpu_ns(), start = wall_ns();
    for (;;) {
        bool busy = false;
        for (size_t c = 0; c < connection_count; c++) {
            asking *a = &connections[c];
            if (a->wanted == 0 && started < total) {
                size_t part = total - started < depth ? total - started : depth;
                a->first = started;
                a->got = 0;
                a->wanted = part;
                a->out_size = a->out_sent = 0;
                for (size_t i = 0; i < part; i++, started++) {
                    a->out_size += write_command(a->out + a->out_size, stride, redis, words[2], k,
                                                 queries + started % query_count * dimension,
                                                 dimension, extra, words + 10);
                }
                a->sent_ns = wall_ns();
                send_out(a);
            }
            busy = busy || a->wanted > 0;
            short wanted = (short)(a->wanted > 0 ? POLLIN : 0);
            polls[c] = (struct pollfd){
                .fd = a->fd,
                .events = (short)(a->out_sent < a->out_size ? wanted | POLLOUT : wanted)};
        }
        if (!busy) {
            break;
        }
        if (poll(polls, connection_count, 300000) <= 0) {
            fail("server", "no reply in five minutes");
        }
        for (size_t c = 0; c < connection_count; c++) {
            if ((polls[c].revents & POLLOUT) != 0) {
                send_out(&connections[c]);
            }
            if ((polls[c].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
                read_answers(&connections[c], &all, times);
            }
        }
    }
    uint64_t took = wall_ns() - start;
    cpu = cpu_ns() - cpu;
    print_times(times, total, cpu);
    printf(", \"took_ns\": %" PRIu64 ", \"ids\": [", took);
    for (size_t q = 0; q < query_count && q < total; q++) {
        printf(q == 0 ? "[" : ", [");
        for (size_t i = 0; i < k && all.ids[q * k + i][0] != '\0'; i++) {
            printf("%s\"%s\"", i == 0 ? "" : ", ", all.ids[q * k + i]);
        }
        printf("]");
    }
    printf("]}\n");
    for (size_t c = 0; c < connection_count; c++) {
        (void)close(connections[c].fd);
        free(connections[c].out);
        free(connections[c].in);
    }
    free(times);
    free(all.ids);
    return 0;
}
