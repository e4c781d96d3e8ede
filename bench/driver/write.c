/* vset HOST PORT COLLECTION DIM COUNT CONNECTIONS DEPTH [vset|vadd ROWS]
 *     stores rows over several connections of one thread, DEPTH commands in flight on each: by
 * VSET, or by VADD as Redis has it. Vectors are those of the file ROWS (float32, row-major), in
 * turn; without it a random one for each of a connection's places in flight. fsync PATH SIZE COUNT
 *     appends SIZE bytes and fdatasync, COUNT times. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

/* A connection keeps DEPTH commands in flight: it sends a buffer of them, waits for as many +OK,
 * and sends the buffer again with the next ids. Ids are ten digits, patched in place. */
typedef struct connection {
    int fd;
    char *buffer;
    size_t size;   /* of the commands in the buffer */
    size_t sent;   /* of it */
    size_t waited; /* bytes of replies still to come */
} connection;

/* What is stored how. */
typedef struct writing {
    const char *collection;
    uint32_t dimension;
    bool redis;
    const char *reply; /* to each command */
    size_t reply_size;
    const float *rows; /* or NULL */
    size_t row_count;
    size_t command_size, id_at, blob_at; /* of every command */
} writing;

/* One command with a random vector; fills in where its parts are. */
static void build_command(writing *w, char *at, size_t room, size_t seed) {
    size_t blob_size = w->dimension * sizeof(float), used;
    if (w->redis) {
        used =
            (size_t)snprintf(at, room, "*5\r\n$4\r\nVADD\r\n$%zu\r\n%s\r\n$4\r\nFP32\r\n$%zu\r\n",
                             strlen(w->collection), w->collection, blob_size);
        w->blob_at = used;
        used += blob_size;
        used += (size_t)snprintf(at + used, room - used, "\r\n$10\r\n");
        w->id_at = used;
        used += 10;
        used += (size_t)snprintf(at + used, room - used, "\r\n");
    } else {
        w->id_at = (size_t)snprintf(at, room, "*5\r\n$4\r\nVSET\r\n$10\r\n");
        used = w->id_at + 10;
        used += (size_t)snprintf(at + used, room - used, "\r\n$%zu\r\n", blob_size);
        w->blob_at = used;
        used += blob_size;
        used += (size_t)snprintf(at + used, room - used, "\r\n$2\r\nIN\r\n$%zu\r\n%s\r\n",
                                 strlen(w->collection), w->collection);
    }
    w->command_size = used;
    uint64_t state = seed * 2654435761u + 1;
    for (uint32_t i = 0; i < w->dimension; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float value = (float)(int32_t)(state >> 40) / 16777216.0f - 0.5f;
        memcpy(at + w->blob_at + i * sizeof value, &value, sizeof value);
    }
}

static void patch_id(char *at, size_t id) {
    for (int i = 9; i >= 0; i--) {
        at[i] = (char)('0' + id % 10);
        id /= 10;
    }
}

/* Replies that came: they must all be as expected. */
static void read_replies(const writing *w, connection *c) {
    char bytes[65536];
    for (;;) {
        ssize_t got = read(c->fd, bytes, sizeof bytes);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (got <= 0 || (size_t)got > c->waited) {
            fail("server", got < 0 ? strerror(errno) : "unexpected end or reply");
        }
        for (ssize_t i = 0; i < got; i++) {
            size_t at = (w->reply_size - c->waited % w->reply_size) % w->reply_size;
            if (bytes[i] != w->reply[at]) {
                bytes[got < (ssize_t)sizeof bytes ? got : (ssize_t)sizeof bytes - 1] = '\0';
                fail("server said", bytes);
            }
            c->waited--;
        }
        if ((size_t)got < sizeof bytes) {
            return;
        }
    }
}

int vset(size_t word_count, char **words) {
    bool redis = word_count > 7 && strcmp(words[7], "vadd") == 0;
    writing w = {
        .collection = words[2],
        .dimension = (uint32_t)number(words[3]),
        .redis = redis,
        .reply = redis ? ":1\r\n" : "+OK\r\n",
    };
    w.reply_size = strlen(w.reply);
    if (word_count > 8) {
        size_t size;
        w.rows = (const float *)(const void *)map_file(words[8], &size);
        w.row_count = size / sizeof(float) / w.dimension;
        if (w.row_count == 0) {
            fail(words[8], "no rows");
        }
    }
    size_t total = number(words[4]), connection_count = number(words[5]), depth = number(words[6]);
    if (connection_count == 0 || connection_count > CONNECTIONS_MAX || depth == 0) {
        fail("vset", "1..64 connections, a depth of 1 or more");
    }
    connection connections[CONNECTIONS_MAX];
    struct pollfd polls[CONNECTIONS_MAX];
    size_t stride = w.dimension * sizeof(float) + strlen(w.collection) + 128;
    for (size_t c = 0; c < connection_count; c++) {
        connections[c] =
            (connection){.fd = dial(words[0], words[1]), .buffer = take(depth * stride)};
        for (size_t i = 0; i < depth; i++) {
            build_command(&w, connections[c].buffer + i * w.command_size, stride, c * depth + i);
        }
    }
    size_t started = 0, done = 0;
    uint64_t cpu = cpu_ns(), start = wall_ns();
    while (done < total) {
        for (size_t c = 0; c < connection_count; c++) {
            connection *at = &connections[c];
            if (at->sent == at->size && at->waited == 0) {
                size_t count = total - started < depth ? total - started : depth;
                for (size_t i = 0; i < count; i++) {
                    char *command = at->buffer + i * w.command_size;
                    if (w.rows != NULL) {
                        memcpy(command + w.blob_at, w.rows + started % w.row_count * w.dimension,
                               w.dimension * sizeof(float));
                    }
                    patch_id(command + w.id_at, started++);
                }
                at->size = count * w.command_size;
                at->sent = 0;
                at->waited = count * w.reply_size;
            }
            while (at->sent < at->size) {
                ssize_t wrote = write(at->fd, at->buffer + at->sent, at->size - at->sent);
                if (wrote < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
                    break;
                }
                if (wrote < 0) {
                    fail("write", strerror(errno));
                }
                at->sent += (size_t)wrote;
            }
            short wanted = (short)(at->waited > 0 ? POLLIN : 0);
            polls[c] = (struct pollfd){
                .fd = at->fd, .events = (short)(at->sent < at->size ? wanted | POLLOUT : wanted)};
        }
        if (poll(polls, connection_count, 300000) <= 0) {
            fail("server", "no reply in five minutes");
        }
        for (size_t c = 0; c < connection_count; c++) {
            if ((polls[c].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
                size_t before = connections[c].waited;
                read_replies(&w, &connections[c]);
                done += (before + w.reply_size - 1) / w.reply_size -
                        (connections[c].waited + w.reply_size - 1) / w.reply_size;
            }
        }
    }
    uint64_t time = wall_ns() - start;
    print_times(&time, 1, cpu_ns() - cpu);
    printf(", \"count\": %zu}\n", total);
    for (size_t c = 0; c < connection_count; c++) {
        (void)close(connections[c].fd);
        free(connections[c].buffer);
    }
    return 0;
}

int sync_cost(char **words) {
    size_t size = number(words[1]), count = number(words[2]);
    int fd = open(words[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char *bytes = take(size);
    uint64_t *times = take(count * sizeof *times);
    if (fd < 0) {
        fail(words[0], strerror(errno));
    }
    memset(bytes, 0x5b, size);
    uint64_t cpu = cpu_ns();
    for (size_t i = 0; i < count; i++) {
        uint64_t start = wall_ns();
        if (write(fd, bytes, size) != (ssize_t)size || fdatasync(fd) != 0) {
            fail(words[0], strerror(errno));
        }
        times[i] = wall_ns() - start;
    }
    print_times(times, count, cpu_ns() - cpu);
    printf("}\n");
    (void)close(fd);
    (void)unlink(words[0]);
    free(times);
    free(bytes);
    return 0;
}
