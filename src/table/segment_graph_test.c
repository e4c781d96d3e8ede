/* Graphs beside segments: built in the background, found again, refused when they are damaged or
 * another segment's, within their memory, gone with the collection. */
#include "check.h"
#include "sim/sim_env.h"
#include "store/disk.h"
#include "table/segment_graph.h"
#include "table/table_internal.h"

enum { ROWS = 700, DIMENSION = 24 };

static sim_env *sim;
static vexi_disk *disk;
static vexi_lake *lake;
static vexi_lake_config config;
static float fill_scale = 1; /* of the rows' values; 0: all rows are one */

static void lake_open(void) {
    vexi_store *store;
    CHECK_OK(vexi_store_file_create(sim_env_of(sim), disk, "/lake", true, &store, &err));
    CHECK_OK(vexi_lake_open(sim_env_of(sim), store, &config, &lake, &err));
}

static void lake_close(void) {
    CHECK_OK(vexi_lake_close(lake, &err));
    lake = NULL;
}

static void reopen(void) {
    lake_close();
    lake_open();
}

static void begin(vex_metric metric) {
    sim = sim_env_create(7);
    CHECK_OK(vexi_disk_sim_create(sim_env_of(sim), 1, &disk, &err));
    config = (vexi_lake_config){
        .durability = VEX_DURABILITY_ALWAYS,
        .sync_interval_ms = 10,
        .flush_interval_ms = 300000,
        .refresh_interval_ms = 1000,
        .flush_size_bytes = 64 << 20,
        .memory_limit_bytes = 1 << 30,
        .segment_size_bytes = 64 << 20,
        .graph_memory_bytes = 1 << 30,
        .log_size_bytes = 64 << 20,
    };
    lake_open();
    vexi_schema schema = {.dimension = DIMENSION, .metric = metric, .index = VEX_INDEX_IVF};
    CHECK_OK(vexi_lake_create_table(lake, vexi_string_of("c"), &schema, &err));
}

static void end(void) {
    lake_close();
    vexi_disk_destroy(disk);
    sim_env_destroy(sim);
}

/* A collection with graphs, whatever it was made as: small segments are flat there, and would be
 * left alone; calibrating large ones takes long. */
static vexi_table *table_of(void) {
    vexi_table *table;
    CHECK_OK(vexi_lake_table(lake, vexi_string_of("c"), &table, &err));
    table->schema->schema.index = VEX_INDEX_HNSW;
    return table;
}

/* Rows first .. first + ROWS - 1 as one segment. */
static void fill_ivf(vexi_table *table, int first) {
    static vexi_row rows[ROWS];
    static char names[ROWS][12];
    static float vectors[ROWS][DIMENSION];
    uint64_t seed = (uint64_t)first + 1;
    for (int i = 0; i < ROWS; i++) {
        snprintf(names[i], sizeof names[i], "%d", first + i);
        for (int d = 0; d < DIMENSION; d++) {
            /* Near a plane, where graphs are easily calibrated. */
            vectors[i][d] = vex_test_normal(&seed) * (d < 2 ? 1.0f : 0.01f) * fill_scale;
            vectors[i][d] = fill_scale == 0 ? 1.0f : vectors[i][d];
        }
        rows[i] = (vexi_row){.id = vexi_string_of(names[i]), .vector = vectors[i]};
    }
    CHECK_OK(vexi_table_put(table, rows, ROWS, &err));
    CHECK_OK(vexi_table_flush(table, &err));
}

static void fill(vexi_table *table, int first) {
    table->schema->schema.index = VEX_INDEX_IVF;
    fill_ivf(table, first);
    table->schema->schema.index = VEX_INDEX_HNSW;
}

static void filled(vex_metric metric) {
    begin(metric);
    vexi_table *table = table_of();
    fill(table, 0);
    vexi_table_release(table);
}

static void settle(void) {
    vexi_table_release(table_of());
    sim_env_advance(sim, 2000);
    sim_env_advance(sim, 20000);
}

static vex_collection_info describe(void) {
    vexi_table *table = table_of();
    vex_collection_info info;
    CHECK_OK(vexi_table_describe(table, &info, &err));
    vexi_table_release(table);
    return info;
}

static size_t finding_count(void) {
    vexi_table *table = table_of();
    vexi_arena arena;
    vexi_arena_init(&arena, sim_env_of(sim));
    vexi_finding *findings = NULL;
    size_t count = 0;
    uint64_t objects = 0;
    CHECK_OK(vexi_table_verify(table, &arena, &findings, &count, &objects, &err));
    vexi_arena_deinit(&arena);
    vexi_table_release(table);
    return count;
}

/* Graph files in the store, in byte order; the first ones' names. */
static size_t graph_files(char names[2][256]) {
    vexi_arena arena;
    vexi_listing listing;
    size_t count = 0;
    vexi_arena_init(&arena, sim_env_of(sim));
    CHECK_OK(vexi_store_list(lake->core->store, "c/index/", NULL, false, &arena, &listing, &err));
    for (size_t i = 0; i < listing.count; i++) {
        if (strstr(listing.entries[i].name, ".vector.hnsw.bin") != NULL) {
            if (count < 2) {
                snprintf(names[count], sizeof names[count], "%s", listing.entries[i].name);
            }
            count++;
        }
    }
    vexi_arena_deinit(&arena);
    return count;
}

/* Put the bytes of one object under another name; flip: a byte of them, SIZE_MAX none. */
static void copy(const char *from, const char *to, size_t flip) {
    vexi_arena arena;
    vexi_span bytes;
    vexi_arena_init(&arena, sim_env_of(sim));
    CHECK_OK(vexi_store_get_all(lake->core->store, from, (size_t)1 << 30, &arena, &bytes, &err));
    uint8_t *data = vexi_arena_alloc(&arena, bytes.size);
    CHECK(data != NULL);
    memcpy(data, bytes.data, bytes.size);
    if (flip != SIZE_MAX) {
        data[flip % bytes.size] ^= 4;
    }
    vexi_span part = vexi_span_of(data, bytes.size);
    CHECK_OK(vexi_store_put(lake->core->store, to, &part, 1, &err));
    vexi_arena_deinit(&arena);
}

TEST(built_and_found_again) {
    static const vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_IP};
    for (size_t m = 0; m < 2; m++) {
        char names[2][256];
        filled(metrics[m]);
        vexi_table *table = table_of();
        vexi_view *view;
        CHECK_OK(vexi_table_view(table, &view, &err));
        CHECK_EQ(view->source_count, 1);
        CHECK(vexi_source_graph(&view->sources[0]) == NULL);
        vex_collection_info info = describe();
        CHECK(info.graph_count == 0 && info.graph_missing_count == 1 && info.graph_size_bytes == 0);
        settle();
        /* The view that is held sees it too. */
        const vexi_graph_file *graph = vexi_source_graph(&view->sources[0]);
        CHECK(graph != NULL && graph->row_count == ROWS && graph->metric == metrics[m]);
        info = describe();
        CHECK(info.graph_count == 1 && info.graph_missing_count == 0);
        CHECK(info.graph_size_bytes > (uint64_t)ROWS * DIMENSION * 4);
        CHECK(info.version == view->version && info.last_error[0] == '\0');
        CHECK_EQ(finding_count(), 0);
        CHECK_EQ(graph_files(names), 1);
        vexi_view_release(view);
        vexi_table_release(table);
        reopen();
        CHECK_EQ(describe().graph_count, 0); /* checked in the background first */
        uint64_t steps = vexi_disk_sim_steps(disk);
        settle();
        CHECK_EQ(describe().graph_count, 1);
        CHECK_EQ(vexi_disk_sim_steps(disk), steps); /* nothing was written */
        CHECK_OK(vexi_lake_drop_table(lake, vexi_string_of("c"), &err));
        CHECK_EQ(graph_files(names), 0);
        end();
    }
}

TEST(damaged_files_are_built_anew) {
    uint64_t seed = vex_test_seed(5);
    char names[2][256];
    filled(VEX_METRIC_COSINE);
    settle();
    for (uint64_t trial = 0; trial < vex_test_effort(2); trial++) {
        CHECK_EQ(graph_files(names), 1);
        copy(names[0], names[0], trial == 0 ? 9 : (size_t)vex_test_random(&seed));
        size_t found = finding_count();
        CHECK(found <= 1); /* bytes between the sections mean nothing */
        reopen();
        settle();
        vex_collection_info info = describe();
        CHECK(info.graph_count == 1 && info.graph_missing_count == 0);
        CHECK_EQ(finding_count(), 0);
        CHECK(trial > 0 || found == 1);
    }
    end();
}

TEST(a_graph_of_another_segment_is_refused) {
    char names[2][256];
    filled(VEX_METRIC_L2);
    vexi_table *table = table_of();
    fill(table, ROWS);
    vexi_table_release(table);
    settle();
    CHECK_EQ(graph_files(names), 2);
    copy(names[0], names[1], SIZE_MAX);
    CHECK_EQ(finding_count(), 1);
    reopen();
    settle();
    vex_collection_info info = describe();
    CHECK(info.graph_count == 2 && info.graph_missing_count == 0);
    CHECK_EQ(finding_count(), 0);
    end();
}

/* As large graphs are: walked in a copy, whose mapping is gone; all else as ever. */
TEST(a_copied_graph) {
    char names[2][256];
    filled(VEX_METRIC_L2);
    settle();
    CHECK_EQ(graph_files(names), 1);
    uint64_t size = describe().graph_size_bytes;
    for (int copied = 1; copied >= 0; copied--) {
        reopen();
        lake->core->graph_copy_bytes = copied ? size : size + 1;
        settle();
        CHECK_EQ(describe().graph_count, 1);
        CHECK_EQ(describe().graph_size_bytes, size);
        CHECK_EQ(lake->core->graph_bytes, size);
        CHECK_EQ(finding_count(), 0);
        vexi_table *table = table_of();
        vexi_view *view;
        CHECK_OK(vexi_table_view(table, &view, &err));
        const vexi_segment *segment = view->sources[0].segment;
        CHECK_EQ(vexi_segment_graph_copied(segment), copied == 1);
        CHECK_OK(vexi_segment_graph_check(segment, &err));
        const vexi_graph_file *graph = vexi_source_graph(&view->sources[0]);
        CHECK(graph != NULL && graph->row_count == ROWS);
        vexi_view_release(view);
        vexi_table_release(table);
    }
    /* Damage is found in the copy, and the file built anew. */
    copy(names[0], names[0], size - 5000);
    reopen();
    lake->core->graph_copy_bytes = size;
    settle();
    CHECK_EQ(describe().graph_count, 1);
    CHECK_EQ(finding_count(), 0);
    end();
}

/* No graph is made, nor missed, of rows that codes cannot judge. */
TEST(rows_that_no_search_would_walk) {
    static const float scales[] = {0, 1e-20f, 1e20f};
    char names[2][256];
    for (int i = 0; i < 3; i++) {
        fill_scale = scales[i];
        filled(i == 1 ? VEX_METRIC_IP : VEX_METRIC_L2);
        CHECK_EQ(describe().graph_missing_count, 0);
        settle();
        vex_collection_info info = describe();
        CHECK(info.graph_count == 0 && info.graph_missing_count == 0);
        CHECK(info.segment_count == 1 && info.last_error[0] == '\0');
        CHECK_EQ(graph_files(names), 0);
        end();
    }
    fill_scale = 1;
}

/* A graph that a search found damaged is taken away and built anew; views that walk it go on. */
TEST(a_retired_graph) {
    filled(VEX_METRIC_L2);
    settle();
    vexi_table *table = table_of();
    vexi_view *view;
    CHECK_OK(vexi_table_view(table, &view, &err));
    const vexi_graph_file *graph = vexi_source_graph(&view->sources[0]);
    CHECK(graph != NULL);
    vexi_segment_graph_retire(view->sources[0].segment);
    CHECK(vexi_source_graph(&view->sources[0]) == NULL);
    CHECK_EQ(lake->core->graph_bytes, 0);
    CHECK_EQ(graph->row_count, ROWS);
    CHECK_OK(vexi_graph_check(graph, 0, graph->block_count, &err));
    lake_index_soon(lake);
    settle();
    CHECK(vexi_source_graph(&view->sources[0]) != NULL);
    vexi_view_release(view);
    vexi_table_release(table);
    end();
}

TEST(memory_for_graphs) {
    char names[2][256];
    filled(VEX_METRIC_L2);
    settle();
    uint64_t size = describe().graph_size_bytes;
    lake_close();
    config.graph_memory_bytes = size - 1; /* not enough for the file that is there */
    lake_open();
    settle();
    vex_collection_info info = describe();
    CHECK(info.graph_count == 0 && info.graph_missing_count == 1);
    CHECK_EQ(graph_files(names), 1);
    lake_close();
    config.graph_memory_bytes = size; /* nor, with this one, for building another */
    lake_open();
    settle();
    CHECK_EQ(describe().graph_count, 1);
    vexi_table *table = table_of();
    fill(table, ROWS);
    vexi_table_release(table);
    settle();
    info = describe();
    CHECK(info.graph_count == 1 && info.graph_missing_count == 1);
    CHECK_EQ(graph_files(names), 1);
    CHECK_EQ(lake->core->graph_bytes, size);
    end();
}

/* The work on one of two segments fails, at any allocation: the other's goes on at once, and the
 * failed one follows. */
TEST(one_that_fails_does_not_keep_others_waiting) {
    int others = 0;
    for (uint64_t n = 1; n <= 5; n++) {
        filled(VEX_METRIC_L2);
        vexi_table *table = table_of();
        fill(table, ROWS);
        vexi_table_release(table);
        settle(); /* made and found: loading is what fails */
        reopen();
        vexi_table_release(table_of());
        CHECK_EQ(describe().graph_missing_count, 2);
        sim_env_fail_allocation(sim, n, false);
        lake_index_soon(lake);
        sim_env_advance(sim, 700);
        sim_env_fail_allocation(sim, 0, false);
        vex_collection_info info = describe();
        others += info.graph_missing_count == 1 && info.last_error[0] != '\0';
        settle();
        CHECK_EQ(describe().graph_count, 2);
        end();
    }
    CHECK(others >= 2);
}

TEST(a_reader_only_loads) {
    char names[2][256];
    filled(VEX_METRIC_L2);
    lake_close();
    config.read_only = true;
    lake_open();
    settle();
    CHECK_EQ(describe().graph_count, 0);
    CHECK_EQ(graph_files(names), 0);
    lake_close();
    config.read_only = false;
    lake_open();
    settle();
    CHECK_EQ(describe().graph_count, 1);
    CHECK_EQ(graph_files(names), 1);
    copy(names[0], names[0], 9);
    lake_close();
    config.read_only = true;
    lake_open();
    settle();
    CHECK_EQ(describe().graph_count, 0);
    CHECK_EQ(graph_files(names), 1); /* and leaves what is damaged where it is */
    /* The writer's new one is found by and by. */
    vexi_lake *reader = lake;
    config.read_only = false;
    lake_open();
    settle();
    lake_close();
    lake = reader;
    settle();
    CHECK_EQ(describe().graph_count, 1);
    end();
}

/* On threads: a lake is closed, a collection dropped, at any moment of a build. The index task is
 * not yet queued where the kind of index is changed under it. */
TEST(stopped_while_it_is_built) {
    config.read_only = false;
    for (int round = 0; round < 4; round++) {
        vexi_store *store;
        CHECK_OK(vexi_store_mem_create(vex_test_env(), &store, &err));
        CHECK_OK(vexi_lake_open(vex_test_env(), store, &config, &lake, &err));
        vexi_schema schema = {
            .dimension = DIMENSION, .metric = VEX_METRIC_L2, .index = VEX_INDEX_IVF};
        CHECK_OK(vexi_lake_create_table(lake, vexi_string_of("c"), &schema, &err));
        __atomic_store_n(&lake->ready, false, __ATOMIC_RELEASE);
        vexi_cancel(vex_test_env(), &lake->index_task);
        vexi_table *table = table_of();
        fill(table, 0);
        vexi_submit(vex_test_env(), &lake->index_task, 0);
        if (round >= 2) {
            CHECK_OK(vexi_lake_drop_table(lake, vexi_string_of("c"), &err));
        }
        vexi_table_release(table);
        lake_close();
    }
}

TEST_MAIN(RUN(built_and_found_again); RUN(damaged_files_are_built_anew);
          RUN(a_graph_of_another_segment_is_refused); RUN(rows_that_no_search_would_walk);
          RUN(a_copied_graph); RUN(a_retired_graph); RUN(memory_for_graphs);
          RUN(one_that_fails_does_not_keep_others_waiting); RUN(a_reader_only_loads);
          RUN(stopped_while_it_is_built))
