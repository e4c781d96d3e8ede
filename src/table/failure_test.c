/* What the table does when something around it goes wrong: a flush that cannot commit leaves no
 * files, a read-only lake follows the writer, deadlines of the log hold without a background
 * thread, deletes meet many ids at once. */
#include <pthread.h>
#include <time.h>

#include "check.h"

#include "store/disk.h"
#include "table/table_internal.h"

static vexi_disk *disk; /* survives the lakes opened over it */

static vexi_lake_config test_config(void) {
    return (vexi_lake_config){
        .durability = VEX_DURABILITY_ALWAYS,
        .sync_interval_ms = 50,
        .flush_interval_ms = 300000,
        .flush_size_bytes = 64 << 20,
        .memory_limit_bytes = 1 << 30,
        .segment_size_bytes = 64 << 20,
        .log_size_bytes = 64 << 20,
    };
}

static vexi_lake *open_with(const vexi_env *env, const vexi_lake_config *config) {
    vexi_store *store;
    vexi_lake *lake = NULL;
    CHECK_OK(vexi_store_file_create(env, disk, "/lake", !config->read_only, &store, &err));
    CHECK_OK(vexi_lake_open(env, store, config, &lake, &err));
    return lake;
}

static vexi_lake *open_lake(void) {
    vexi_lake_config config = test_config();
    return open_with(vex_test_env(), &config);
}

static vexi_table *table_of(vexi_lake *lake) {
    vexi_table *table;
    CHECK_OK(vexi_lake_table(lake, vexi_string_of("c"), &table, &err));
    return table;
}

static vexi_table *begin(vexi_lake **lake) {
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
    *lake = open_lake();
    vexi_schema schema = {.dimension = 2, .metric = VEX_METRIC_L2};
    CHECK_OK(vexi_lake_create_table(*lake, vexi_string_of("c"), &schema, &err));
    return table_of(*lake);
}

static void close_lake(vexi_lake *lake, vexi_table *table) {
    vexi_table_release(table);
    CHECK_OK(vexi_lake_close(lake, &err));
}

static void end(void) {
    vexi_disk_destroy(disk);
    disk = NULL;
}

static void put(vexi_table *table, const char *id, float value) {
    float vector[2] = {value, 0};
    vexi_row row = {.id = vexi_string_of(id), .vector = vector};
    CHECK_OK(vexi_table_put(table, &row, 1, &err));
}

/* First value of the vector of an id, or -1 if it is not there. */
static float value_of(vexi_table *table, const char *id) {
    vexi_view *view;
    bool found;
    uint32_t source;
    uint64_t row;
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(vexi_table_view(table, &view, &err));
    CHECK_OK(vexi_view_find(view, vexi_string_of(id), &found, &source, &row, &err));
    float value = -1;
    if (found) {
        vexi_run *runs;
        size_t run_count;
        vexi_row_range range = {.first_row = row, .count = 1};
        CHECK_OK(vexi_source_runs(&view->sources[source], &range, 1, &arena, &runs, &run_count,
                                  NULL, &err));
        memcpy(&value, runs[0].vectors, sizeof value);
    }
    vexi_view_release(view);
    vexi_arena_deinit(&arena);
    return value;
}

static size_t object_count(vexi_lake *lake, const char *prefix) {
    vexi_arena arena;
    vexi_listing listing;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(vexi_store_list(lake->core->store, prefix, NULL, false, &arena, &listing, &err));
    size_t count = listing.count;
    vexi_arena_deinit(&arena);
    return count;
}

static void put_object(vexi_lake *lake, const char *name, const char *text) {
    vexi_span part = vexi_span_of((const uint8_t *)text, strlen(text));
    CHECK_OK(vexi_store_put(lake->core->store, name, &part, 1, &err));
}

/* ---- Flushes that fail ----------------------------------------------------------------------- */

TEST(a_refused_commit_leaves_no_files) {
    vexi_lake *lake;
    vexi_table *table = begin(&lake);
    put(table, "a", 1);
    CHECK_OK(vexi_table_flush(table, &err));
    size_t data = object_count(lake, "c/data/");
    size_t index = object_count(lake, "c/index/");
    /* Another engine asks writers for a feature that nobody here has heard of. */
    put_object(lake, "c/data/_delta_log/00000000000000000002.json",
               "{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":[],"
               "\"writerFeatures\":[\"rowsOfGold\"]}}\n");
    put(table, "a", 2);
    for (int i = 0; i < 3; i++) {
        CHECK_FAILS(VEX_UNSUPPORTED, vexi_table_flush(table, &err));
    }
    CHECK_EQ(object_count(lake, "c/data/"), data + 1);
    CHECK_EQ(object_count(lake, "c/index/"), index);
    CHECK(value_of(table, "a") == 2);
    close_lake(lake, table);
    end();
}

TEST(a_damaged_segment_stops_flushes_before_they_build) {
    vexi_lake *lake;
    vexi_table *table = begin(&lake);
    put(table, "a", 1);
    CHECK_OK(vexi_table_flush(table, &err));
    char name[256];
    snprintf(name, sizeof name, "%s", vexi_segment_object_name(table->segments[0].segment));
    close_lake(lake, table);
    lake = open_lake();
    put_object(lake, name, "short");
    CHECK_OK(vexi_lake_close(lake, &err));
    lake = open_lake();
    table = table_of(lake);
    size_t data = object_count(lake, "c/data/");
    size_t index = object_count(lake, "c/index/");
    put(table, "b", 2);
    CHECK_FAILS(VEX_CORRUPT, vexi_table_flush(table, &err));
    CHECK_EQ(object_count(lake, "c/data/"), data);
    CHECK_EQ(object_count(lake, "c/index/"), index);
    close_lake(lake, table);
    end();
}

/* ---- Foreign settings ------------------------------------------------------------------------ */

/* The first delete upgrades the protocol; features that another engine listed stay in it, and files
 * are removed under the name that it gave them. */
TEST(what_other_engines_wrote_is_written_back) {
    vexi_lake *lake;
    vexi_table *table = begin(&lake);
    put(table, "a", 1);
    CHECK_OK(vexi_table_flush(table, &err));
    put_object(lake, "c/data/_delta_log/00000000000000000002.json",
               "{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":["
               "\"timestampNtz\"],\"writerFeatures\":[\"timestampNtz\",\"appendOnly\"]}}\n");
    put(table, "b", 1);
    CHECK_OK(vexi_table_flush(table, &err));
    put(table, "c", 1);
    CHECK_OK(vexi_table_flush(table, &err));
    vex_string id = vexi_string_of("a");
    put(table, "d", 1);
    CHECK_OK(vexi_table_delete(table, &id, 1, NULL, &err));
    put(table, "e", 1);
    CHECK_OK(vexi_table_flush(table, &err));
    const vexi_delta_protocol *protocol = &table->delta.protocol;
    CHECK_EQ(protocol->writer_version, 7);
    bool listed = false;
    for (size_t i = 0; i < protocol->writer_feature_count; i++) {
        listed = listed || vexi_string_is(protocol->writer_features[i], "appendOnly");
    }
    CHECK(listed);
    vexi_delta_add add = {.path = vexi_string_of("a b.parquet"),
                          .raw_path = vexi_string_of("a%20b.parquet"),
                          .size_bytes = 7};
    vexi_delta_remove remove = commit_remove(&add, 3);
    CHECK(vexi_string_is(remove.raw_path, "a%20b.parquet") && remove.size_bytes == 7);
    close_lake(lake, table);
    end();
}

/* ---- Read-only lakes ------------------------------------------------------------------------- */

static void refresh(vexi_table *table) {
    pthread_mutex_lock(&table->commit_lock);
    CHECK_OK(table_refresh(table, &err));
    pthread_mutex_unlock(&table->commit_lock);
}

TEST(a_reader_follows_the_writer) {
    vexi_lake *lake;
    vexi_table *table = begin(&lake);
    put(table, "old", 1);
    CHECK_OK(vexi_table_flush(table, &err));
    put(table, "a", 1);
    put(table, "b", 1);
    vexi_lake_config config = test_config();
    config.read_only = true;
    vexi_lake *reader = open_with(vex_test_env(), &config);
    vexi_table *seen = table_of(reader);
    CHECK(value_of(seen, "a") == 1 && value_of(seen, "b") == 1 && value_of(seen, "old") == 1);
    refresh(seen);
    CHECK(value_of(seen, "a") == 1 && value_of(seen, "b") == 1);
    put(table, "a", 2);
    vex_string id = vexi_string_of("b");
    CHECK_OK(vexi_table_delete(table, &id, 1, NULL, &err));
    CHECK_OK(vexi_table_flush(table, &err));
    refresh(seen);
    CHECK(value_of(seen, "a") == 2 && value_of(seen, "b") == -1 && value_of(seen, "old") == 1);
    put(table, "a", 3);
    CHECK_OK(vexi_table_flush(table, &err));
    refresh(seen);
    CHECK(value_of(seen, "a") == 3);
    close_lake(reader, seen);
    close_lake(lake, table);
    end();
}

/* ---- Interval durability --------------------------------------------------------------------- */

static uint64_t fake_now_ns;

static uint64_t fake_monotonic_ns(void *context) {
    (void)context;
    return fake_now_ns;
}

static void submit_nothing(void *context, vexi_task *task, uint32_t delay_ms) {
    (void)context;
    (void)task;
    (void)delay_ms;
}

static void cancel_nothing(void *context, vexi_task *task) {
    (void)context;
    (void)task;
}

/* All background threads are busy for long: the writers keep the interval by themselves. */
TEST(writers_sync_when_the_interval_is_over) {
    vexi_lake *lake;
    vexi_table *table = begin(&lake);
    close_lake(lake, table);
    vexi_env env = *vex_test_env();
    env.monotonic_ns = fake_monotonic_ns;
    env.submit = submit_nothing;
    env.cancel = cancel_nothing;
    fake_now_ns = 1000000000u;
    vexi_lake_config config = test_config();
    config.durability = VEX_DURABILITY_INTERVAL;
    lake = open_with(&env, &config);
    table = table_of(lake);
    uint64_t before = vexi_disk_sim_steps(disk);
    put(table, "a", 1);
    put(table, "b", 2);
    CHECK_EQ(vexi_disk_sim_steps(disk), before + 2); /* two appends, no sync */
    fake_now_ns += 60000000u;
    put(table, "c", 3);
    CHECK_EQ(vexi_disk_sim_steps(disk), before + 4);
    put(table, "d", 4);
    CHECK_EQ(vexi_disk_sim_steps(disk), before + 5);
    close_lake(lake, table);
    end();
}

/* ---- Writers that wait for a flush ----------------------------------------------------------- */

/* What a store's put does while several memtables are flushed. */
typedef struct flush_watch {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    vex_status (*put)(vexi_store *store, const char *name, const vexi_span *parts, size_t count,
                      vex_error *err);
    uint32_t segments; /* whose put has begun */
    bool writing;      /* the writer is about to write */
    bool written;
    bool gave_up; /* the writer did not come */
} flush_watch;

static flush_watch *watch; /* of the hooked store */

/* Wait for *flag, but not for ever. Mutex. */
static bool watch_wait(const bool *flag) {
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 60;
    int code = 0;
    while (!*flag && code == 0) {
        code = pthread_cond_timedwait(&watch->changed, &watch->mutex, &end);
    }
    return *flag;
}

static void watch_set(bool *flag) {
    pthread_mutex_lock(&watch->mutex);
    *flag = true;
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->mutex);
}

/* The first segment waits until the writer is there, the second until it has written. */
static vex_status watched_put(vexi_store *store, const char *name, const vexi_span *parts,
                              size_t count, vex_error *error) {
    if (strstr(name, ".parquet") != NULL) {
        pthread_mutex_lock(&watch->mutex);
        watch->segments++;
        pthread_cond_broadcast(&watch->changed);
        if (watch->segments == 1) {
            watch->gave_up = !watch_wait(&watch->writing);
        } else if (!watch->gave_up) {
            watch->gave_up = !watch_wait(&watch->written);
        }
        bool first = watch->segments == 1;
        pthread_mutex_unlock(&watch->mutex);
        if (first) { /* most likely the writer waits by then; if not, nothing is tested */
            struct timespec pause = {.tv_nsec = 50000000};
            nanosleep(&pause, NULL);
        }
    }
    return watch->put(store, name, parts, count, error);
}

static void *flush_all(void *argument) {
    vex_error error;
    return vexi_table_flush(argument, &error) == VEX_OK ? argument : NULL;
}

/* A writer that needs room goes on when one memtable is flushed, not when all are. */
TEST(a_writer_waits_for_one_flush) {
    vexi_lake *lake;
    vexi_table *table = begin(&lake);
    close_lake(lake, table);
    vexi_env env = *vex_test_env();
    env.submit = submit_nothing;
    env.cancel = cancel_nothing;
    vexi_lake_config config = test_config();
    config.flush_size_bytes = 1; /* each row seals a memtable */
    lake = open_with(&env, &config);
    table = table_of(lake);
    for (int i = 0; i <= TABLE_SEALED_WAIT; i++) {
        char id[8];
        snprintf(id, sizeof id, "n%d", i);
        put(table, id, 1);
    }
    CHECK_EQ(table->sealed_count, TABLE_SEALED_WAIT + 1);
    flush_watch state = {.put = lake->core->store->ops->put};
    pthread_mutex_init(&state.mutex, NULL);
    pthread_cond_init(&state.changed, NULL);
    watch = &state;
    vexi_store *store = lake->core->store;
    const vexi_store_ops *ops = store->ops;
    vexi_store_ops hooked = *ops;
    hooked.put = watched_put;
    store->ops = &hooked;
    pthread_t flusher;
    CHECK(pthread_create(&flusher, NULL, flush_all, table) == 0);
    pthread_mutex_lock(&state.mutex);
    while (state.segments == 0) {
        pthread_cond_wait(&state.changed, &state.mutex);
    }
    pthread_mutex_unlock(&state.mutex);
    watch_set(&state.writing);
    put(table, "waiting", 2);
    watch_set(&state.written);
    void *flushed;
    CHECK(pthread_join(flusher, &flushed) == 0);
    CHECK(flushed == table);
    CHECK(!state.gave_up);
    CHECK(value_of(table, "n0") > 0 && value_of(table, "waiting") > 1);
    store->ops = ops;
    watch = NULL;
    pthread_cond_destroy(&state.changed);
    pthread_mutex_destroy(&state.mutex);
    close_lake(lake, table);
    end();
}

/* ---- Deletes --------------------------------------------------------------------------------- */

TEST(a_delete_of_many_ids) {
    enum { COUNT = 1500 };
    static char text[COUNT][8];
    static vex_string ids[COUNT + 3];
    static uint8_t existed[COUNT + 3];
    vexi_lake *lake;
    vexi_table *table = begin(&lake);
    for (int i = 0; i < COUNT; i++) {
        snprintf(text[i], sizeof text[i], "n%d", i);
        ids[i] = vexi_string_of(text[i]);
        /* Every third is in a segment, every third in the memtable over it, every third nowhere. */
        if (i % 3 == 0) {
            put(table, text[i], 1);
        }
    }
    CHECK_OK(vexi_table_flush(table, &err));
    for (int i = 1; i < COUNT; i += 3) {
        put(table, text[i], 1);
    }
    ids[COUNT] = ids[0];
    ids[COUNT + 1] = ids[COUNT - 2];
    ids[COUNT + 2] = ids[2];
    CHECK_OK(vexi_table_delete(table, ids, COUNT + 3, existed, &err));
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(existed[i], i % 3 == 2 ? 0 : 1);
    }
    CHECK(existed[COUNT] == 0 && existed[COUNT + 1] == 0 && existed[COUNT + 2] == 0);
    vexi_view *view;
    CHECK_OK(vexi_table_view(table, &view, &err));
    CHECK_EQ(view->live_count, 0);
    vexi_view_release(view);
    CHECK_OK(vexi_table_delete(table, ids, COUNT, existed, &err));
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQ(existed[i], 0);
    }
    close_lake(lake, table);
    end();
}

/* ---- Dropping -------------------------------------------------------------------------------- */

TEST(a_dropped_collection_gives_its_memory_back) {
    vexi_lake *lake;
    vexi_table *table = begin(&lake);
    put(table, "a", 1);
    CHECK(lake->memory_bytes > 0);
    CHECK_OK(vexi_lake_drop_table(lake, vexi_string_of("c"), &err));
    CHECK_EQ(lake->memory_bytes, 0);
    CHECK_EQ(vexi_memtable_count(table->active.memtable), 0);
    CHECK_EQ(table->sealed_count, 0);
    close_lake(lake, table);
    end();
}

TEST_MAIN(RUN(a_refused_commit_leaves_no_files);
          RUN(a_damaged_segment_stops_flushes_before_they_build);
          RUN(what_other_engines_wrote_is_written_back); RUN(a_reader_follows_the_writer);
          RUN(writers_sync_when_the_interval_is_over); RUN(a_writer_waits_for_one_flush);
          RUN(a_delete_of_many_ids); RUN(a_dropped_collection_gives_its_memory_back))
