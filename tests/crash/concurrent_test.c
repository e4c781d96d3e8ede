/* Many threads put, delete, flush, look and drop at the same time.
 *
 * Each id has one writer, which gives it ascending versions; every fifth is a delete. Readers take
 * a view and must find nothing older than what was acknowledged before, nothing that was not begun,
 * each id live once, and the view's own count. After the end, and after the lake was opened anew,
 * each id has its last acknowledged version. The same with a log whose syncs fail now and then:
 * what was refused is never there. Made for ThreadSanitizer as well. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/bitmap.h"
#include "check.h"
#include "store/disk.h"
#include "table/table.h"

enum {
    WRITERS = 4,
    READERS = 2,
    IDS_EACH = 60,
    IDS = WRITERS * IDS_EACH,
    BATCH_MAX = 8,
    DIMENSION = 4,
    DELETE_EVERY = 5,
    UNKNOWN_MAX = 64
};

typedef struct id_state {
    atomic_uint begun; /* newest version that a call was made with */
    atomic_uint acked; /* newest that was answered VEX_OK */
    /* the writer's: */
    uint32_t unknown[UNKNOWN_MAX]; /* answered VEX_UNKNOWN_OUTCOME */
    uint32_t unknown_count;
} id_state;

typedef struct world {
    vexi_disk *disk;
    vexi_lake *lake;
    id_state ids[IDS];
    atomic_bool stop;
    atomic_ullong writes, failures, looks, flushes, drops, opens;
    bool faults;
    uint64_t seed;
} world;

typedef struct worker {
    world *world;
    uint32_t number;
    pthread_t thread;
} worker;

static vex_string id_text(uint32_t id, char out[24]) {
    int size = snprintf(out, 24, "id-%u", id);
    return (vex_string){.data = out, .size = (size_t)size};
}

static vexi_table *table_of(world *w, const char *name) {
    vexi_table *table;
    CHECK_OK(vexi_lake_table(w->lake, vexi_string_of(name), &table, &err));
    return table;
}

/* ---- Writers --------------------------------------------------------------------------------- */

static bool is_delete(uint32_t version) {
    return version % DELETE_EVERY == 0;
}

/* Give a batch of own ids their next versions: those that become deletes go by one call, the others
 * by another. */
static void write_batch(world *w, vexi_table *table, const uint32_t *ids, size_t count,
                        bool deletes) {
    char texts[BATCH_MAX][24];
    vex_string names[BATCH_MAX];
    float vectors[BATCH_MAX][DIMENSION];
    vexi_row rows[BATCH_MAX];
    uint32_t versions[BATCH_MAX];
    uint32_t used[BATCH_MAX];
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        id_state *state = &w->ids[ids[i]];
        uint32_t version = atomic_load(&state->begun) + 1;
        if (is_delete(version) != deletes) {
            continue;
        }
        atomic_store(&state->begun, version);
        versions[n] = version;
        used[n] = ids[i];
        names[n] = id_text(ids[i], texts[n]);
        for (uint32_t d = 0; d < DIMENSION; d++) {
            vectors[n][d] = d == 0 ? (float)version : (float)ids[i];
        }
        rows[n] = (vexi_row){.id = names[n], .vector = vectors[n]};
        n++;
    }
    if (n == 0) {
        return;
    }
    vex_error error;
    vex_status status = deletes ? vexi_table_delete(table, names, n, NULL, &error)
                                : vexi_table_put(table, rows, n, &error);
    CHECK(status == VEX_OK || w->faults);
    atomic_fetch_add(&w->writes, 1);
    atomic_fetch_add(&w->failures, status == VEX_OK ? 0 : 1);
    for (size_t i = 0; i < n; i++) {
        id_state *state = &w->ids[used[i]];
        if (status == VEX_OK) {
            atomic_store(&state->acked, versions[i]);
        } else if (status == VEX_UNKNOWN_OUTCOME) {
            CHECK(state->unknown_count < UNKNOWN_MAX);
            state->unknown[state->unknown_count++] = versions[i];
        }
    }
}

static void *writer(void *argument) {
    worker *self = argument;
    world *w = self->world;
    uint64_t random = w->seed * 31 + self->number;
    vexi_table *table = table_of(w, "c");
    while (!atomic_load(&w->stop)) {
        uint32_t ids[BATCH_MAX];
        uint32_t first = (uint32_t)vex_test_below(&random, IDS_EACH);
        size_t count = 1 + vex_test_below(&random, BATCH_MAX);
        for (size_t i = 0; i < count; i++) {
            ids[i] = self->number * IDS_EACH + (first + (uint32_t)i) % IDS_EACH;
        }
        write_batch(w, table, ids, count, false);
        write_batch(w, table, ids, count, true);
    }
    vexi_table_release(table);
    return NULL;
}

/* ---- Readers --------------------------------------------------------------------------------- */

/* Version of the row at a place. */
static uint32_t version_at(const vexi_view *view, uint32_t source, uint64_t row, uint32_t id) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_run *runs;
    size_t run_count;
    float vector[DIMENSION];
    vexi_row_range range = {.first_row = row, .count = 1};
    CHECK_OK(
        vexi_source_runs(&view->sources[source], &range, 1, &arena, &runs, &run_count, NULL, &err));
    CHECK_EQ(run_count, 1);
    memcpy(vector, runs[0].vectors, sizeof vector);
    vexi_arena_deinit(&arena);
    CHECK(vector[1] == (float)id);
    return (uint32_t)vector[0];
}

/* 0: not there. */
static uint32_t version_of(const vexi_view *view, uint32_t id) {
    char text[24];
    bool found;
    uint32_t source;
    uint64_t row;
    CHECK_OK(vexi_view_find(view, id_text(id, text), &found, &source, &row, &err));
    return found ? version_at(view, source, row, id) : 0;
}

static void check_counts(const vexi_view *view) {
    uint64_t live = 0;
    for (size_t s = 0; s < view->source_count; s++) {
        const vexi_source *source = &view->sources[s];
        live += source->row_count;
        for (uint64_t row = 0; source->hidden != NULL && row < source->row_count; row++) {
            live -= vexi_bitmap_get(source->hidden, row) ? 1 : 0;
        }
    }
    CHECK_EQ(live, view->live_count);
    uint64_t found_count = 0;
    for (uint32_t id = 0; id < IDS; id++) {
        found_count += version_of(view, id) != 0 ? 1 : 0;
    }
    CHECK_EQ(found_count, view->live_count);
}

/* Whether a look at an id that began when `oldest` was acknowledged may see this. */
static bool may_see(uint32_t seen, uint32_t oldest, uint32_t newest) {
    if (seen != 0) {
        return seen >= oldest && seen <= newest && !is_delete(seen);
    }
    return oldest == 0 || newest / DELETE_EVERY * DELETE_EVERY >= oldest;
}

static void note_acked(world *w, uint32_t oldest[IDS]) {
    for (uint32_t id = 0; id < IDS; id++) {
        oldest[id] = atomic_load(&w->ids[id].acked);
    }
}

static void check_view(world *w, const vexi_view *view, const uint32_t oldest[IDS],
                       uint32_t seen[IDS]) {
    for (uint32_t id = 0; id < IDS; id++) {
        seen[id] = version_of(view, id);
    }
    for (uint32_t id = 0; id < IDS; id++) {
        CHECK(may_see(seen[id], oldest[id], atomic_load(&w->ids[id].begun)));
    }
}

static void *reader(void *argument) {
    worker *self = argument;
    world *w = self->world;
    uint64_t random = w->seed * 77 + self->number;
    vexi_table *table = table_of(w, "c");
    while (!atomic_load(&w->stop)) {
        uint32_t oldest[IDS];
        uint32_t seen[IDS];
        vexi_view *view;
        note_acked(w, oldest);
        CHECK_OK(vexi_table_view(table, &view, &err));
        check_view(w, view, oldest, seen);
        if (vex_test_below(&random, 8) == 0) {
            check_counts(view);
        }
        for (uint32_t id = 0; id < IDS; id++) { /* it has not changed under us */
            CHECK_EQ(version_of(view, id), seen[id]);
        }
        vexi_view_release(view);
        vexi_memory_view memory;
        vexi_table_memory_view(table, &memory);
        vexi_memory_view_release(&memory);
        atomic_fetch_add(&w->looks, 1);
    }
    vexi_table_release(table);
    return NULL;
}

/* Open the lake for reading alone, as another process does, again and again. */
static void *opener(void *argument) {
    worker *self = argument;
    world *w = self->world;
    while (!atomic_load(&w->stop)) {
        uint32_t oldest[IDS];
        uint32_t seen[IDS];
        vexi_lake_config config = {.read_only = true,
                                   .flush_size_bytes = 1 << 20,
                                   .memory_limit_bytes = 1 << 30,
                                   .segment_size_bytes = 1 << 20,
                                   .log_size_bytes = 1 << 20};
        vexi_store *store;
        vexi_lake *lake;
        vexi_table *table;
        vexi_view *view;
        vex_error error;
        note_acked(w, oldest);
        CHECK_OK(vexi_store_file_create(vex_test_env(), w->disk, "/lake", false, &store, &err));
        vex_status status = vexi_lake_open(vex_test_env(), store, &config, &lake, &error);
        if (status == VEX_CONFLICT) { /* the writer was too fast, ten times */
            continue;
        }
        if (status != VEX_OK) {
            fprintf(stderr, "reading alone: %s: %s\n", vex_status_text(status), error.message);
            exit(1);
        }
        CHECK_OK(vexi_lake_table(lake, vexi_string_of("c"), &table, &err));
        CHECK_OK(vexi_table_view(table, &view, &err));
        check_view(w, view, oldest, seen);
        check_counts(view);
        vexi_table_release(table);
        CHECK_OK(vexi_lake_close(lake, &err));
        check_counts(view);
        vexi_view_release(view);
        atomic_fetch_add(&w->opens, 1);
    }
    return NULL;
}

/* ---- Flushing and dropping ------------------------------------------------------------------- */

static void *flusher(void *argument) {
    worker *self = argument;
    world *w = self->world;
    uint64_t random = w->seed * 13;
    while (!atomic_load(&w->stop)) {
        vexi_table *table = table_of(w, "c");
        vex_collection_info info;
        vex_error error;
        CHECK(vexi_table_flush(table, &error) == VEX_OK || w->faults);
        CHECK_OK(vexi_table_describe(table, &info, &err));
        vexi_table_release(table);
        atomic_fetch_add(&w->flushes, 1);
        struct timespec pause = {.tv_nsec = (long)vex_test_below(&random, 20000000)};
        nanosleep(&pause, NULL);
    }
    return NULL;
}

/* A second collection comes and goes while others write to it. */
static void *dropper(void *argument) {
    worker *self = argument;
    world *w = self->world;
    vexi_schema schema = {.dimension = DIMENSION, .metric = VEX_METRIC_L2};
    vex_error error;
    while (!atomic_load(&w->stop)) {
        vex_status status = vexi_lake_create_table(w->lake, vexi_string_of("d"), &schema, &error);
        CHECK(status == VEX_OK || status == VEX_EXISTS || w->faults);
        struct timespec pause = {.tv_nsec = 3000000};
        nanosleep(&pause, NULL);
        status = vexi_lake_drop_table(w->lake, vexi_string_of("d"), &error);
        CHECK(status == VEX_OK || w->faults);
        atomic_fetch_add(&w->drops, 1);
    }
    return NULL;
}

static void *writer_of_dropped(void *argument) {
    worker *self = argument;
    world *w = self->world;
    vex_error error;
    uint32_t n = 0;
    while (!atomic_load(&w->stop)) {
        vexi_table *table;
        if (vexi_lake_table(w->lake, vexi_string_of("d"), &table, &error) != VEX_OK) {
            continue;
        }
        for (int i = 0; i < 20; i++) {
            char text[24];
            float vector[DIMENSION] = {1, 2, 3, (float)n};
            vexi_row row = {.id = id_text(n++ % 50, text), .vector = vector};
            vex_status status = vexi_table_put(table, &row, 1, &error);
            CHECK(status == VEX_OK || status == VEX_NOT_FOUND || w->faults);
            vexi_view *view;
            if (vexi_table_view(table, &view, &error) == VEX_OK) {
                vexi_view_release(view);
            }
        }
        vexi_table_release(table);
    }
    return NULL;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static void open_lake(world *w, const vexi_fault_plan *plan) {
    vexi_lake_config config = {.durability = VEX_DURABILITY_ALWAYS,
                               .sync_interval_ms = 10,
                               .flush_interval_ms = 50,
                               .refresh_interval_ms = 20,
                               .flush_size_bytes = 60000,
                               .memory_limit_bytes = 4 << 20,
                               .segment_size_bytes = 1 << 20,
                               .log_size_bytes = 40000};
    vexi_store *store;
    CHECK_OK(vexi_store_file_create(vex_test_env(), w->disk, "/lake", true, &store, &err));
    if (plan != NULL) {
        vexi_fault_plan none = {.seed = 1, .sync_error_ppm = 1};
        CHECK_OK(vexi_store_fault_create(vex_test_env(), store, &none, &store, &err));
    }
    CHECK_OK(vexi_lake_open(vex_test_env(), store, &config, &w->lake, &err));
    if (plan != NULL) {
        vexi_store_fault_set(store, plan);
    }
}

/* Each id has its last acknowledged version, or after a restart one that was unknown. */
static void check_end(world *w, bool restarted) {
    vexi_table *table = table_of(w, "c");
    vexi_view *view;
    CHECK_OK(vexi_table_view(table, &view, &err));
    for (uint32_t id = 0; id < IDS; id++) {
        const id_state *state = &w->ids[id];
        uint32_t acked = atomic_load(&state->acked);
        uint32_t seen = version_of(view, id);
        bool right = seen == (is_delete(acked) ? 0 : acked);
        for (uint32_t i = 0; i < state->unknown_count && restarted && !right; i++) {
            uint32_t unknown = state->unknown[i];
            right = unknown > acked && seen == (is_delete(unknown) ? 0 : unknown);
        }
        if (!right) {
            fprintf(stderr, "id %u: version %u was acknowledged, %u is there\n", id, acked, seen);
            exit(1);
        }
    }
    check_counts(view);
    vexi_view_release(view);
    vexi_table_release(table);
}

static void run(const vexi_fault_plan *plan, double seconds) {
    static world w; /* too large for a stack */
    memset(&w, 0, sizeof w);
    w.seed = vex_test_seed(5);
    w.faults = plan != NULL;
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), w.seed, &w.disk, &err));
    open_lake(&w, NULL);
    vexi_schema schema = {.dimension = DIMENSION, .metric = VEX_METRIC_L2};
    CHECK_OK(vexi_lake_create_table(w.lake, vexi_string_of("c"), &schema, &err));
    CHECK_OK(vexi_lake_close(w.lake, &err));
    open_lake(&w, plan);

    void *(*const roles[])(void *) = {
        writer, writer, writer, writer, reader, reader, flusher, dropper, writer_of_dropped,
        opener};
    enum { COUNT = sizeof roles / sizeof *roles };
    worker workers[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        workers[i] = (worker){.world = &w, .number = i};
        CHECK(pthread_create(&workers[i].thread, NULL, roles[i], &workers[i]) == 0);
    }
    struct timespec time = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
    atomic_store(&w.stop, true);
    for (uint32_t i = 0; i < COUNT; i++) {
        CHECK(pthread_join(workers[i].thread, NULL) == 0);
    }
    check_end(&w, false);
    vex_error error;
    CHECK(vexi_lake_close(w.lake, &error) == VEX_OK || w.faults);
    vexi_disk_sim_restart(w.disk, w.seed); /* the power fails, too */
    open_lake(&w, NULL);
    check_end(&w, true);
    CHECK_OK(vexi_lake_close(w.lake, &err));
    vexi_disk_destroy(w.disk);
    printf("    %llu writes (%llu failed), %llu views, %llu flushes, %llu drops, %llu opened to "
           "read\n",
           (unsigned long long)w.writes, (unsigned long long)w.failures,
           (unsigned long long)w.looks, (unsigned long long)w.flushes, (unsigned long long)w.drops,
           (unsigned long long)w.opens);
    CHECK(w.writes > 0 && w.looks > 0 && w.flushes > 0 && w.drops > 0);
}

TEST(everything_at_once) {
    run(NULL, 2.5 * (double)vex_test_effort(1));
}

TEST(everything_at_once_over_failing_syncs) {
    vexi_fault_plan plan = {.seed = 9, .sync_error_ppm = 50000};
    run(&plan, 2.5 * (double)vex_test_effort(1));
}

TEST_MAIN(RUN(everything_at_once); RUN(everything_at_once_over_failing_syncs))
