/* import LAKE COLLECTION INDEX FILE [METRIC BITS RECALL SEGMENT_BYTES]
 * flush LAKE COLLECTION
 *     with what the call cost and how much memory it took. With INDEX hnsw an import ends when the
 *     graphs are built. */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "driver.h"

/* A thread that looks every millisecond at the import's phase and at how much memory is ours. The
 * mapped input is the page cache's: VmHWM counts it, so anonymous memory is what we sample. */
typedef struct watch {
    vex_progress progress;
    pthread_t thread;
    uint32_t ended;         /* atomic */
    uint64_t phase_ns[3];   /* the thread's until it ends, like the rest */
    uint64_t anonymous_max; /* bytes */
} watch;

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

/* The import's options, or NULL to flush. */
static int bulk(const char *uri, const char *collection, const char *path,
                vex_import_options *import) {
    vex_lake *lake;
    vex_error err;
    uint64_t rows = 0;
    vex_lake_options options = {.size = sizeof options, .must_exist = import == NULL};
    if (vex_lake_open(uri, &options, &lake, &err) != VEX_OK) {
        fail(uri, err.message);
    }
    vex_string name = string_of(collection);
    watch w;
    uint64_t before = anonymous_bytes();
    watch_begin(&w);
    uint64_t cpu = cpu_ns(), start = wall_ns();
    vex_status status;
    if (import == NULL) {
        status = vex_flush(lake, name, &err);
    } else {
        import->progress = &w.progress;
        status = vex_import(lake, name, &path, 1, import, &rows, &err);
    }
    if (status != VEX_OK) {
        fail(collection, err.message);
    }
    uint64_t commit_cpu = cpu_ns() - cpu, committed = wall_ns() - start;
    if (import != NULL && import->index == VEX_INDEX_HNSW) {
        wait_for_index(lake, name);
    }
    uint64_t time = wall_ns() - start;
    cpu = cpu_ns() - cpu;
    watch_end(&w);
    struct rusage usage;
    (void)getrusage(RUSAGE_SELF, &usage);
    print_times(&time, 1, cpu);
    printf(", \"imported\": %" PRIu64 ", \"reading_ns\": %" PRIu64 ", \"building_ns\": %" PRIu64
           ", \"committing_ns\": %" PRIu64 ", \"committed_ns\": %" PRIu64
           ", \"committed_cpu_ns\": %" PRIu64 ", \"anonymous_before\": %" PRIu64
           ", \"anonymous_max\": %" PRIu64 ", \"resident_max\": %ld",
           rows, w.phase_ns[0], w.phase_ns[1], w.phase_ns[2], committed, commit_cpu, before,
           w.anonymous_max, usage.ru_maxrss * 1024);
    print_info(lake, name);
    printf("}\n");
    if (vex_lake_close(lake, &err) != VEX_OK) {
        fail("close", err.message);
    }
    return 0;
}

int import_file(size_t count, char **words) {
    vex_import_options options = {.size = sizeof options, .index = index_named(words[2])};
    if (count == 8) {
        options.metric = metric_named(words[4]);
        options.bits = (uint32_t)number(words[5]);
        options.recall = fraction(words[6]);
        options.segment_size_bytes = number(words[7]);
    } else if (count != 4) {
        fail("import", "LAKE COLLECTION INDEX FILE [METRIC BITS RECALL SEGMENT_BYTES]");
    }
    return bulk(words[0], words[1], words[3], &options);
}

int flush_rows(char **words) {
    return bulk(words[0], words[1], NULL, NULL);
}
