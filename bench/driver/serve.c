/* serve LAKE COLLECTION QUERIES DIM THREADS
 *     opens the lake and obeys lines on stdin, so that its runs alternate with those of others:
 *     search FIRST COUNT K NPROBE EXACT IDS COLUMNS EF RECALL BATCH
 *                                 queries through vex_search, BATCH in a call, one call after the
 *                                 other; COLUMNS is a list split by commas, or -; 0 means unset
 *     get FIRST COUNT COLUMNS     rows by id, one a call; ids are the numbers FIRST ..
 *     make METRIC INDEX BITS RECALL   the collection
 *     put PATH FIRST COUNT        rows of a file of float32 by vex_put_rows, 1,000 a call
 *     wait                        until all segments have their indexes and graphs
 *     info                        what vex_collection_describe tells
 *     load PATH SIZE              take SIZE bytes of a file: mapped, and copied to memory
 *     sum mapped|memory WIDTH     read them once, WIDTH 64-byte lines of as many streams at once
 * QUERIES is a file of float32, row-major. A lake on s3:// is opened for reading, with the level 2
 * of its cache in the folder $VEXLAKE_BENCH_CACHE, if any, and $VEXLAKE_BENCH_CACHE_MEMORY bytes of
 * level 1. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver.h"

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

/* Ids of a batch as JSON lists, one a query; ids of the benchmark need no escapes. Of a batch of
 * several queries, `query` tells whose a row is. */
static void print_ids(const struct ArrowArray *batch, size_t query_count) {
    const uint32_t *query = batch->children[0]->buffers[1];
    const struct ArrowArray *id = batch->children[1];
    const int32_t *offsets = id->buffers[1];
    const char *bytes = id->buffers[2];
    int64_t row = 0;
    for (size_t q = 0; q < query_count; q++) {
        printf(q == 0 ? "[" : ", [");
        for (bool first = true; row < batch->length && query[batch->children[0]->offset + row] == q;
             row++, first = false) {
            const int32_t *at = offsets + id->offset + row;
            printf("%s\"%.*s\"", first ? "" : ", ", at[1] - at[0], bytes + at[0]);
        }
        printf("]");
    }
}

static void run_search(const bench *b, char **words) {
    size_t first = number(words[0]), count = number(words[1]), group = number(words[9]);
    bool want_ids = number(words[5]) != 0;
    vex_string columns[COLUMNS_MAX];
    vex_search_stats stats, total = {0};
    vex_search_options options = {
        .size = sizeof options,
        .k = (uint32_t)number(words[2]),
        .nprobe = (uint32_t)number(words[3]),
        .exact = number(words[4]) != 0,
        .ef = (uint32_t)number(words[7]),
        .recall = fraction(words[8]),
        .columns = columns,
        .column_count = split_columns(words[6], columns),
        .stats = &stats,
    };
    if (group == 0 || count % group != 0 || (first % b->query_count) + group > b->query_count) {
        fail("search", "COUNT is no multiple of BATCH, or BATCH is 0");
    }
    size_t calls = count / group;
    uint64_t *times = take((calls + 1) * sizeof *times);
    struct ArrowArray *batches = take((calls + 1) * sizeof *batches);
    uint64_t cpu = cpu_ns();
    for (size_t i = 0; i < calls; i++) {
        const float *query = b->queries + (first + i * group) % b->query_count * b->dimension;
        vex_error err;
        uint64_t start = wall_ns();
        if (vex_search(b->lake, b->collection, query, (uint32_t)group, b->dimension, &options, NULL,
                       &batches[i], &err) != VEX_OK) {
            fail("search", err.message);
        }
        if (!want_ids) {
            batches[i].release(&batches[i]);
        }
        times[i] = wall_ns() - start;
        total.segment_count += stats.segment_count;
        total.segment_ivf_count += stats.segment_ivf_count;
        total.segment_graph_count += stats.segment_graph_count;
        total.list_count += stats.list_count;
        total.hop_count += stats.hop_count;
        total.code_count += stats.code_count;
        total.row_count += stats.row_count;
        total.page_count += stats.page_count;
        total.read_bytes += stats.read_bytes;
    }
    print_times(times, calls, cpu_ns() - cpu);
    printf(
        ", \"segments\": %" PRIu64 ", \"ivf_segments\": %" PRIu64 ", \"graph_segments\": %" PRIu64
        ", \"lists\": %" PRIu64 ", \"hops\": %" PRIu64 ", \"codes\": %" PRIu64
        ", \"rows\": %" PRIu64 ", \"pages\": %" PRIu64 ", \"read_bytes\": %" PRIu64,
        total.segment_count, total.segment_ivf_count, total.segment_graph_count, total.list_count,
        total.hop_count, total.code_count, total.row_count, total.page_count, total.read_bytes);
    if (want_ids) {
        printf(", \"ids\": [");
        for (size_t i = 0; i < calls; i++) {
            printf(i == 0 ? "" : ", ");
            print_ids(&batches[i], group);
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

static void run_make(const bench *b, char **words) {
    vex_collection_options options = {
        .size = sizeof options,
        .dimension = b->dimension,
        .metric = metric_named(words[0]),
        .index = index_named(words[1]),
        .bits = (uint32_t)number(words[2]),
        .recall = fraction(words[3]),
    };
    vex_error err;
    if (vex_collection_create(b->lake, b->collection, &options, &err) != VEX_OK) {
        fail("make", err.message);
    }
    printf("{}\n");
}

enum { PUT_ROWS = 1000 };

static void run_put(const bench *b, char **words) {
    size_t size, first = number(words[1]), count = number(words[2]);
    const float *rows = (const float *)(const void *)map_file(words[0], &size);
    size_t there = size / sizeof(float) / b->dimension;
    if (first > there || count > there - first) {
        fail(words[0], "too short");
    }
    static char ids[PUT_ROWS][32];
    static vex_row batch[PUT_ROWS];
    uint64_t cpu = cpu_ns(), start = wall_ns();
    for (size_t at = 0; at < count; at += PUT_ROWS) {
        size_t part = count - at < PUT_ROWS ? count - at : PUT_ROWS;
        for (size_t i = 0; i < part; i++) {
            (void)snprintf(ids[i], sizeof ids[i], "%zu", first + at + i);
            batch[i] = (vex_row){
                .id = string_of(ids[i]),
                .vector = rows + (first + at + i) * b->dimension,
                .dimension = b->dimension,
            };
        }
        vex_error err;
        if (vex_put_rows(b->lake, b->collection, batch, part, &err) != VEX_OK) {
            fail("put", err.message);
        }
    }
    uint64_t time = wall_ns() - start;
    print_times(&time, 1, cpu_ns() - cpu);
    printf("}\n");
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

int serve(char **words) {
    bench b = {.collection = string_of(words[1]), .dimension = (uint32_t)number(words[3])};
    vex_lake_options options = {
        .size = sizeof options,
        .thread_count = (uint32_t)number(words[4]),
        .read_only = strncmp(words[0], "s3://", 5) == 0,
        .cache_folder = getenv("VEXLAKE_BENCH_CACHE"),
    };
    const char *cache_memory = getenv("VEXLAKE_BENCH_CACHE_MEMORY");
    options.cache_memory_bytes = cache_memory == NULL ? 0 : number(cache_memory);
    vex_error err;
    size_t size;
    b.queries = (const float *)(const void *)map_file(words[2], &size);
    b.query_count = size / sizeof(float) / b.dimension;
    uint64_t start = wall_ns();
    if (vex_lake_open(words[0], &options, &b.lake, &err) != VEX_OK) {
        fail(words[0], err.message);
    }
    printf("{\"queries\": %zu, \"open_ns\": %" PRIu64 "}\n", b.query_count, wall_ns() - start);
    fflush(stdout);
    char line[LINE_SIZE];
    while (fgets(line, sizeof line, stdin) != NULL) {
        char *parts[12] = {0};
        size_t count = 0;
        char *rest = NULL;
        for (char *word = strtok_r(line, " \n", &rest); word != NULL && count < 12;
             word = strtok_r(NULL, " \n", &rest)) {
            parts[count++] = word;
        }
        if (count == 11 && strcmp(parts[0], "search") == 0) {
            run_search(&b, parts + 1);
        } else if (count == 4 && strcmp(parts[0], "get") == 0) {
            run_get(&b, parts + 1);
        } else if (count == 5 && strcmp(parts[0], "make") == 0) {
            run_make(&b, parts + 1);
        } else if (count == 4 && strcmp(parts[0], "put") == 0) {
            run_put(&b, parts + 1);
        } else if (count == 1 && strcmp(parts[0], "wait") == 0) {
            wait_for_index(b.lake, b.collection);
            printf("{}\n");
        } else if (count == 1 && strcmp(parts[0], "info") == 0) {
            printf("{\"pid\": %ld", (long)getpid());
            print_info(b.lake, b.collection);
            printf("}\n");
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
