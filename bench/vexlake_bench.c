/* The benchmark's C half: what has to run in one process beside the library, or faster than a
 * Python client can. bench/run drives it and does the arithmetic; it prints a JSON object a line.
 *
 *     vexlake_bench serve LAKE COLLECTION QUERIES DIM THREADS
 *         opens the lake and obeys lines on stdin, so that its runs alternate with those of others:
 *         search FIRST COUNT K NPROBE EXACT IDS COLUMNS   single queries through vex_search, one
 *                                     after the other; COLUMNS is a list split by commas, or -
 *         get FIRST COUNT COLUMNS     rows by id, one a call; ids are the numbers FIRST ..
 *         load PATH SIZE              take SIZE bytes of a file: mapped, and copied to memory
 *         sum mapped|memory WIDTH     read them once, WIDTH 64-byte lines of as many streams at
 * once vexlake_bench vset HOST PORT COLLECTION DIM COUNT CONNECTIONS DEPTH VSET over several
 * connections of one thread, DEPTH commands in flight on each vexlake_bench fsync PATH SIZE COUNT
 *         append SIZE bytes and fdatasync, COUNT times
 *
 * QUERIES is a file of float32, row-major. Wall time is CLOCK_MONOTONIC; CPU time is the whole
 * process', kernel included. This file uses vexlake.h alone, like any embedder. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vexlake.h"

enum { COLUMNS_MAX = 16, CONNECTIONS_MAX = 64, LINE_SIZE = 4096 };

static uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t wall_ns(void) {
    return clock_ns(CLOCK_MONOTONIC);
}

static uint64_t cpu_ns(void) {
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

_Noreturn static void fail(const char *what, const char *why) {
    fprintf(stderr, "vexlake_bench: %s: %s\n", what, why);
    exit(1);
}

static size_t number(const char *text) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        fail("not a number", text);
    }
    return (size_t)value;
}

static void *take(size_t size) {
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    if (memory == NULL) {
        fail("memory", "none left");
    }
    return memory;
}

static vex_string string_of(const char *text) {
    return (vex_string){text, strlen(text)};
}

/* ---- Files ------------------------------------------------------------------------------------
 */

/* A file mapped whole; *size receives its size. */
static const uint8_t *map_file(const char *path, size_t *size) {
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

/* Read `size` bytes (a multiple of 64 x width) once, in `width` streams side by side, as fast as a
 * loop can that does nothing with them. */
#define SUM_BODY                                          \
    uint64_t sums[8] = {0};                               \
    size_t stream = size / width / 64 * 64;               \
    for (size_t at = 0; at < stream; at += 64) {          \
        for (size_t s = 0; s < width; s++) {              \
            const uint8_t *line = data + s * stream + at; \
            __builtin_prefetch(line + 4096);              \
            uint64_t words[8];                            \
            memcpy(words, line, sizeof words);            \
            for (size_t i = 0; i < 8; i++) {              \
                sums[i] += words[i];                      \
            }                                             \
        }                                                 \
    }                                                     \
    return sums[0] + sums[1] + sums[2] + sums[3] + sums[4] + sums[5] + sums[6] + sums[7];

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("default", "avx2", "avx512f"))) static uint64_t sum_bytes(
    const uint8_t *data, size_t size, size_t width) {
    SUM_BODY
}
#else
static uint64_t sum_bytes(const uint8_t *data, size_t size, size_t width) {
    SUM_BODY
}
#endif

/* ---- serve ------------------------------------------------------------------------------------
 */

typedef struct bench {
    vex_lake *lake;
    vex_string collection;
    const float *queries;
    size_t query_count;
    uint32_t dimension;
    const uint8_t *mapped;
    uint8_t *memory;
    size_t size;
} bench;

/* "a,b" split in place; "-" is none. */
static uint32_t split_columns(char *text, vex_string *columns) {
    uint32_t count = 0;
    if (strcmp(text, "-") == 0) {
        return 0;
    }
    char *rest = NULL;
    for (char *word = strtok_r(text, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
        if (count == COLUMNS_MAX) {
            fail("columns", "too many");
        }
        columns[count++] = string_of(word);
    }
    return count;
}

static void print_times(const uint64_t *times, size_t count, uint64_t cpu) {
    printf("{\"cpu_ns\": %" PRIu64 ", \"wall_ns\": [", cpu);
    for (size_t i = 0; i < count; i++) {
        printf(i == 0 ? "%" PRIu64 : ", %" PRIu64, times[i]);
    }
    printf("]");
}

/* Ids of a batch as a JSON list; ids of the benchmark need no escapes. */
static void print_ids(const struct ArrowArray *batch) {
    const struct ArrowArray *id = batch->children[1];
    const int32_t *offsets = id->buffers[1];
    const char *bytes = id->buffers[2];
    printf("[");
    for (int64_t i = 0; i < batch->length; i++) {
        const int32_t *at = offsets + id->offset + i;
        printf("%s\"%.*s\"", i == 0 ? "" : ", ", at[1] - at[0], bytes + at[0]);
    }
    printf("]");
}

static void run_search(const bench *b, char **words) {
    size_t first = number(words[0]), count = number(words[1]);
    bool want_ids = number(words[5]) != 0;
    vex_string columns[COLUMNS_MAX];
    vex_search_stats stats, total = {0};
    vex_search_options options = {
        .size = sizeof options,
        .k = (uint32_t)number(words[2]),
        .nprobe = (uint32_t)number(words[3]),
        .exact = number(words[4]) != 0,
        .columns = columns,
        .column_count = split_columns(words[6], columns),
        .stats = &stats,
    };
    uint64_t *times = take((count + 1) * sizeof *times);
    struct ArrowArray *batches = take((count + 1) * sizeof *batches);
    uint64_t cpu = cpu_ns();
    for (size_t i = 0; i < count; i++) {
        const float *query = b->queries + (first + i) % b->query_count * b->dimension;
        vex_error err;
        uint64_t start = wall_ns();
        if (vex_search(b->lake, b->collection, query, 1, b->dimension, &options, NULL, &batches[i],
                       &err) != VEX_OK) {
            fail("search", err.message);
        }
        if (!want_ids) {
            batches[i].release(&batches[i]);
        }
        times[i] = wall_ns() - start;
        total.segment_count += stats.segment_count;
        total.segment_ivf_count += stats.segment_ivf_count;
        total.list_count += stats.list_count;
        total.row_count += stats.row_count;
        total.page_count += stats.page_count;
        total.read_bytes += stats.read_bytes;
    }
    print_times(times, count, cpu_ns() - cpu);
    printf(", \"segments\": %" PRIu64 ", \"ivf_segments\": %" PRIu64 ", \"lists\": %" PRIu64
           ", \"rows\": %" PRIu64 ", \"pages\": %" PRIu64 ", \"read_bytes\": %" PRIu64,
           total.segment_count, total.segment_ivf_count, total.list_count, total.row_count,
           total.page_count, total.read_bytes);
    if (want_ids) {
        printf(", \"ids\": [");
        for (size_t i = 0; i < count; i++) {
            printf(i == 0 ? "" : ", ");
            print_ids(&batches[i]);
            batches[i].release(&batches[i]);
        }
        printf("]");
    }
    printf("}\n");
    free(batches);
    free(times);
}

static void run_get(const bench *b, char **words) {
    size_t first = number(words[0]), count = number(words[1]);
    vex_string columns[COLUMNS_MAX];
    vex_get_options options = {
        .size = sizeof options,
        .columns = columns,
        .column_count = split_columns(words[2], columns),
    };
    uint64_t *times = take((count + 1) * sizeof *times);
    uint64_t cpu = cpu_ns();
    for (size_t i = 0; i < count; i++) {
        char id[32];
        vex_error err;
        struct ArrowArray batch;
        (void)snprintf(id, sizeof id, "%zu", first + i);
        vex_string name = string_of(id);
        uint64_t start = wall_ns();
        if (vex_get(b->lake, b->collection, &name, 1, &options, NULL, &batch, &err) != VEX_OK) {
            fail("get", err.message);
        }
        batch.release(&batch);
        times[i] = wall_ns() - start;
    }
    print_times(times, count, cpu_ns() - cpu);
    printf("}\n");
    free(times);
}

static void run_load(bench *b, char **words) {
    size_t size;
    const uint8_t *mapped = map_file(words[0], &size);
    b->size = number(words[1]) / 4096 * 4096;
    if (b->size > size) {
        fail(words[0], "too short");
    }
    b->mapped = mapped;
    b->memory = take(b->size);
    memcpy(b->memory, mapped, b->size);
    printf("{\"size\": %zu}\n", b->size);
}

static void run_sum(const bench *b, char **words) {
    size_t width = number(words[1]);
    if (b->memory == NULL || width == 0) {
        fail("sum", "nothing loaded");
    }
    const uint8_t *data = strcmp(words[0], "mapped") == 0 ? b->mapped : b->memory;
    uint64_t cpu = cpu_ns(), start = wall_ns();
    uint64_t sum = sum_bytes(data, b->size, width);
    uint64_t time = wall_ns() - start;
    print_times(&time, 1, cpu_ns() - cpu);
    printf(", \"sum\": %" PRIu64 "}\n", sum);
}

static int serve(char **words) {
    bench b = {.collection = string_of(words[1]), .dimension = (uint32_t)number(words[3])};
    vex_lake_options options = {
        .size = sizeof options,
        .must_exist = true,
        .thread_count = (uint32_t)number(words[4]),
    };
    vex_error err;
    size_t size;
    b.queries = (const float *)(const void *)map_file(words[2], &size);
    b.query_count = size / sizeof(float) / b.dimension;
    if (vex_lake_open(words[0], &options, &b.lake, &err) != VEX_OK) {
        fail(words[0], err.message);
    }
    printf("{\"queries\": %zu}\n", b.query_count);
    fflush(stdout);
    char line[LINE_SIZE];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *parts[10] = {0};
        size_t count = 0;
        char *rest = NULL;
        for (char *word = strtok_r(line, " \n", &rest); word != NULL && count < 10;
             word = strtok_r(NULL, " \n", &rest)) {
            parts[count++] = word;
        }
        if (count == 8 && strcmp(parts[0], "search") == 0) {
            run_search(&b, parts + 1);
        } else if (count == 4 && strcmp(parts[0], "get") == 0) {
            run_get(&b, parts + 1);
        } else if (count == 3 && strcmp(parts[0], "load") == 0) {
            run_load(&b, parts + 1);
        } else if (count == 3 && strcmp(parts[0], "sum") == 0) {
            run_sum(&b, parts + 1);
        } else {
            fail("unknown line", count > 0 ? parts[0] : "(empty)");
        }
        fflush(stdout);
    }
    if (vex_lake_close(b.lake, &err) != VEX_OK) {
        fail("close", err.message);
    }
    return 0;
}

/* ---- vset -------------------------------------------------------------------------------------
 */

/* A connection keeps DEPTH commands in flight: it sends a buffer of them, waits for as many +OK,
 * and sends the buffer again with the next ids. Ids are ten digits, patched in place. */
typedef struct connection {
    int fd;
    char *buffer;
    size_t size;   /* of the commands in the buffer */
    size_t sent;   /* of it */
    size_t waited; /* bytes of replies still to come */
} connection;

static const char ok_reply[] = "+OK\r\n";

static int dial(const char *host, const char *port) {
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

/* One command with the vector of this slot; returns its size, *id_at receives where the id is. */
static size_t build_command(char *at, size_t room, const char *collection, uint32_t dimension,
                            size_t seed, size_t *id_at) {
    size_t blob_size = dimension * sizeof(float);
    *id_at = (size_t)snprintf(at, room, "*5\r\n$4\r\nVSET\r\n$10\r\n");
    size_t used = *id_at + 10;
    used += (size_t)snprintf(at + used, room - used, "\r\n$%zu\r\n", blob_size);
    uint64_t state = seed * 2654435761u + 1;
    for (uint32_t i = 0; i < dimension; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        float value = (float)(int32_t)(state >> 40) / 16777216.0f - 0.5f;
        memcpy(at + used, &value, sizeof value);
        used += sizeof value;
    }
    used += (size_t)snprintf(at + used, room - used, "\r\n$2\r\nIN\r\n$%zu\r\n%s\r\n",
                             strlen(collection), collection);
    return used;
}

static void patch_id(char *at, size_t id) {
    for (int i = 9; i >= 0; i--) {
        at[i] = (char)('0' + id % 10);
        id /= 10;
    }
}

/* Replies that came: they must all be +OK. */
static void read_replies(connection *c) {
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
            size_t at =
                (sizeof ok_reply - 1 - c->waited % (sizeof ok_reply - 1)) % (sizeof ok_reply - 1);
            if (bytes[i] != ok_reply[at]) {
                fail("server said", bytes);
            }
            c->waited--;
        }
        if ((size_t)got < sizeof bytes) {
            return;
        }
    }
}

static int vset(char **words) {
    const char *collection = words[2];
    uint32_t dimension = (uint32_t)number(words[3]);
    size_t total = number(words[4]), connection_count = number(words[5]), depth = number(words[6]);
    if (connection_count == 0 || connection_count > CONNECTIONS_MAX || depth == 0) {
        fail("vset", "1..64 connections, a depth of 1 or more");
    }
    connection connections[CONNECTIONS_MAX];
    struct pollfd polls[CONNECTIONS_MAX];
    size_t stride = dimension * sizeof(float) + strlen(collection) + 128;
    size_t command_size = 0, id_at = 0;
    for (size_t c = 0; c < connection_count; c++) {
        connections[c] =
            (connection){.fd = dial(words[0], words[1]), .buffer = take(depth * stride)};
        for (size_t i = 0; i < depth; i++) {
            command_size = build_command(connections[c].buffer + i * command_size, stride,
                                         collection, dimension, c * depth + i, &id_at);
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
                    patch_id(at->buffer + i * command_size + id_at, started++);
                }
                at->size = count * command_size;
                at->sent = 0;
                at->waited = count * (sizeof ok_reply - 1);
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
        if (poll(polls, connection_count, 10000) <= 0) {
            fail("server", "no reply in 10 s");
        }
        for (size_t c = 0; c < connection_count; c++) {
            if ((polls[c].revents & (POLLIN | POLLHUP | POLLERR)) != 0) {
                size_t before = connections[c].waited;
                read_replies(&connections[c]);
                size_t reply = sizeof ok_reply - 1;
                done += (before + reply - 1) / reply - (connections[c].waited + reply - 1) / reply;
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

/* ---- import and flush --------------------------------------------------------------------------
 */

/* A thread that looks every millisecond at the import's phase and at how much memory is ours. The
 * mapped input is the page cache's: VmHWM counts it, so anonymous memory is what we sample. */
typedef struct watch {
    vex_progress progress;
    pthread_t thread;
    uint32_t ended;         /* atomic */
    uint64_t phase_ns[3];   /* the thread's until it ends, like the rest */
    uint64_t anonymous_max; /* bytes */
} watch;

static uint64_t anonymous_bytes(void) {
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

static void *watch_run(void *argument) {
    watch *w = argument;
    uint64_t last = wall_ns();
    while (__atomic_load_n(&w->ended, __ATOMIC_ACQUIRE) == 0) {
        uint32_t phase = __atomic_load_n(&w->progress.phase, __ATOMIC_RELAXED);
        uint64_t bytes = anonymous_bytes();
        w->anonymous_max = bytes > w->anonymous_max ? bytes : w->anonymous_max;
        struct timespec pause = {.tv_nsec = 1000000};
        nanosleep(&pause, NULL);
        uint64_t now = wall_ns();
        w->phase_ns[phase < 3 ? phase : 2] += now - last;
        last = now;
    }
    return NULL;
}

static void watch_begin(watch *w) {
    *w = (watch){.ended = 0};
    if (pthread_create(&w->thread, NULL, watch_run, w) != 0) {
        fail("watch", "no thread");
    }
}

static void watch_end(watch *w) {
    __atomic_store_n(&w->ended, 1, __ATOMIC_RELEASE);
    (void)pthread_join(w->thread, NULL);
}

static vex_index_kind index_named(const char *name) {
    return strcmp(name, "flat") == 0  ? VEX_INDEX_FLAT
           : strcmp(name, "ivf") == 0 ? VEX_INDEX_IVF
                                      : VEX_INDEX_AUTO;
}

/* `path` NULL: flush. */
static int bulk(const char *uri, const char *collection, const char *index, const char *path) {
    vex_lake *lake;
    vex_error err;
    uint64_t rows = 0;
    vex_lake_options options = {.size = sizeof options, .must_exist = path == NULL};
    if (vex_lake_open(uri, &options, &lake, &err) != VEX_OK) {
        fail(uri, err.message);
    }
    watch w;
    uint64_t before = anonymous_bytes();
    watch_begin(&w);
    vex_import_options import = {
        .size = sizeof import,
        .index = index_named(index),
        .progress = &w.progress,
    };
    uint64_t cpu = cpu_ns(), start = wall_ns();
    vex_status status =
        path == NULL ? vex_flush(lake, string_of(collection), &err)
                     : vex_import(lake, string_of(collection), &path, 1, &import, &rows, &err);
    uint64_t time = wall_ns() - start;
    cpu = cpu_ns() - cpu;
    watch_end(&w);
    if (status != VEX_OK) {
        fail(collection, err.message);
    }
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    print_times(&time, 1, cpu);
    printf(", \"rows\": %" PRIu64 ", \"reading_ns\": %" PRIu64 ", \"building_ns\": %" PRIu64
           ", \"committing_ns\": %" PRIu64 ", \"anonymous_before\": %" PRIu64
           ", \"anonymous_max\": %" PRIu64 ", \"resident_max\": %ld}\n",
           rows, w.phase_ns[0], w.phase_ns[1], w.phase_ns[2], before, w.anonymous_max,
           usage.ru_maxrss * 1024);
    if (vex_lake_close(lake, &err) != VEX_OK) {
        fail("close", err.message);
    }
    return 0;
}

/* ---- fsync ------------------------------------------------------------------------------------
 */

static int sync_cost(char **words) {
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

int main(int argc, char **argv) {
    if (argc == 7 && strcmp(argv[1], "serve") == 0) {
        return serve(argv + 2);
    }
    if (argc == 9 && strcmp(argv[1], "vset") == 0) {
        return vset(argv + 2);
    }
    if (argc == 6 && strcmp(argv[1], "import") == 0) {
        return bulk(argv[2], argv[3], argv[4], argv[5]);
    }
    if (argc == 4 && strcmp(argv[1], "flush") == 0) {
        return bulk(argv[2], argv[3], "auto", NULL);
    }
    if (argc == 5 && strcmp(argv[1], "fsync") == 0) {
        return sync_cost(argv + 2);
    }
    fprintf(stderr, "usage: see the head of bench/vexlake_bench.c\n");
    return 2;
}
