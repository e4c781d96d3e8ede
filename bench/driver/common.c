/* Clocks, memory, sockets and output that the commands share. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "driver.h"

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t wall_ns(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

uint64_t cpu_ns(void) {
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

_Noreturn void fail(const char *what, const char *why) {
    fprintf(stderr, "vexlake_bench: %s: %s\n", what, why);
    exit(1);
}

size_t number(const char *text) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        fail("not a number", text);
    }
    return (size_t)value;
}

float fraction(const char *text) {
    char *end;
    errno = 0;
    float value = strtof(text, &end);
    if (errno != 0 || end == text || *end != '\0') {
        fail("not a number", text);
    }
    return value;
}

void *take(size_t size) {
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    if (memory == NULL) {
        fail("memory", "none left");
    }
    return memory;
}

vex_string string_of(const char *text) {
    return (vex_string){text, strlen(text)};
}

const uint8_t *map_file(const char *path, size_t *size) {
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) {
        fail(path, strerror(errno));
    }
    void *mapped = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (mapped == MAP_FAILED) {
        fail(path, strerror(errno));
    }
    (void)close(fd);
    *size = (size_t)info.st_size;
    return mapped;
}

uint64_t anonymous_bytes(void) {
    char text[4096];
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (got <= 0) {
        return 0;
    }
    text[got] = '\0';
    const char *at = strstr(text, "RssAnon:");
    return at == NULL ? 0 : strtoull(at + 8, NULL, 10) * 1024;
}

void print_times(const uint64_t *times, size_t count, uint64_t cpu) {
    printf("{\"cpu_ns\": %" PRIu64 ", \"wall_ns\": [", cpu);
    for (size_t i = 0; i < count; i++) {
        printf(i == 0 ? "%" PRIu64 : ", %" PRIu64, times[i]);
    }
    printf("]");
}

vex_index_kind index_named(const char *name) {
    return strcmp(name, "flat") == 0   ? VEX_INDEX_FLAT
           : strcmp(name, "ivf") == 0  ? VEX_INDEX_IVF
           : strcmp(name, "hnsw") == 0 ? VEX_INDEX_HNSW
                                       : VEX_INDEX_AUTO;
}

vex_metric metric_named(const char *name) {
    return strcmp(name, "cosine") == 0 ? VEX_METRIC_COSINE
           : strcmp(name, "ip") == 0   ? VEX_METRIC_IP
                                       : VEX_METRIC_L2;
}

static void describe(vex_lake *lake, vex_string collection, vex_collection_info *info) {
    vex_error err;
    if (vex_collection_describe(lake, collection, info, &err) != VEX_OK) {
        fail("describe", err.message);
    }
}

void print_info(vex_lake *lake, vex_string collection) {
    static vex_collection_info info;
    describe(lake, collection, &info);
    printf(", \"rows\": %" PRIu64 ", \"memtable_rows\": %" PRIu64
           ", \"memtable_size_bytes\": %" PRIu64 ", \"segments\": %" PRIu64
           ", \"segment_size_bytes\": %" PRIu64 ", \"index_size_bytes\": %" PRIu64
           ", \"graphs\": %" PRIu64 ", \"graph_size_bytes\": %" PRIu64
           ", \"graphs_missing\": %" PRIu64 ", \"unindexed\": %" PRIu64 ", \"flushes\": %" PRIu64,
           info.row_count, info.memtable_row_count, info.memtable_size_bytes, info.segment_count,
           info.segment_size_bytes, info.index_size_bytes, info.graph_count, info.graph_size_bytes,
           info.graph_missing_count, info.unindexed_segment_count, info.flush_count);
}

void wait_for_index(vex_lake *lake, vex_string collection) {
    static vex_collection_info info;
    for (;;) {
        describe(lake, collection, &info);
        if (info.graph_missing_count == 0 && info.unindexed_segment_count == 0) {
            return;
        }
        if (info.last_error[0] != '\0') {
            fail("index", info.last_error);
        }
        struct timespec pause = {.tv_nsec = 5000000};
        nanosleep(&pause, NULL);
    }
}

int dial(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    if (getaddrinfo(host, port, &hints, &found) != 0) {
        fail(host, "no such address");
    }
    int fd = socket(found->ai_family, found->ai_socktype, found->ai_protocol);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        fail(host, strerror(errno));
    }
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    freeaddrinfo(found);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        fail(host, strerror(errno));
    }
    return fd;
}
