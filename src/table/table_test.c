/* The engine below the public header: write, flush, reopen, foreign commits, drop. */
#include "check.h"

#include "base/bitmap.h"
#include "store/disk.h"
#include "table/table_internal.h"

static vexi_lake_config test_config(void) {
    return (vexi_lake_config){
        .durability = VEX_DURABILITY_ALWAYS,
        .sync_interval_ms = 10,
        .flush_interval_ms = 300000,
        .flush_size_bytes = 64 << 20,
        .memory_limit_bytes = 1 << 30,
        .segment_size_bytes = 64 << 20,
        .log_size_bytes = 64 << 20,
    };
}

/* A disk that survives the lakes opened over it. */
static vexi_disk *disk;

static vexi_lake *open_lake(void) {
    vexi_lake_config config = test_config();
    vexi_store *store;
    vexi_lake *lake = NULL;
    CHECK_OK(vexi_store_file_create(vex_test_env(), disk, "/lake", true, &store, &err));
    CHECK_OK(vexi_lake_open(vex_test_env(), store, &config, &lake, &err));
    return lake;
}

static void begin(void) {
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
}

static void end(void) {
    vexi_disk_destroy(disk);
    disk = NULL;
}

static vex_string name_c(void) {
    return vexi_string_of("c");
}

static void create(vexi_lake *lake, uint32_t dimension) {
    vexi_schema schema = {.dimension = dimension, .metric = VEX_METRIC_L2};
    CHECK_OK(vexi_lake_create_table(lake, name_c(), &schema, &err));
}

static vexi_table *table_of(vexi_lake *lake) {
    vexi_table *table;
    CHECK_OK(vexi_lake_table(lake, name_c(), &table, &err));
    return table;
}

static void put(vexi_table *table, const char *id, float value) {
    float vector[4] = {value, 1, 2, 3};
    vexi_row row = {.id = vexi_string_of(id), .vector = vector};
    CHECK_OK(vexi_table_put(table, &row, 1, &err));
}

/* First value of the vector of an id, or -1 if it is not there. */
static float value_of(vexi_table *table, const char *id) {
    vexi_view *view;
    bool found;
    uint32_t source;
    uint64_t row;
    CHECK_OK(vexi_table_view(table, &view, &err));
    CHECK_OK(vexi_view_find(view, vexi_string_of(id), &found, &source, &row, &err));
    float value = -1;
    if (found) {
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_run *runs;
        size_t run_count;
        vexi_row_range range = {.first_row = row, .count = 1};
        CHECK_OK(vexi_source_runs(&view->sources[source], &range, 1, &arena, &runs, &run_count,
                                  NULL, &err));
        CHECK_EQ(run_count, 1);
        memcpy(&value, runs[0].vectors, sizeof value);
        vexi_arena_deinit(&arena);
    }
    vexi_view_release(view);
    return value;
}

static uint64_t live_count(vexi_table *table) {
    vexi_view *view;
    CHECK_OK(vexi_table_view(table, &view, &err));
    uint64_t count = view->live_count;
    uint64_t counted = 0;
    for (size_t i = 0; i < view->source_count; i++) {
        const vexi_source *source = &view->sources[i];
        for (uint64_t row = 0; row < source->row_count; row++) {
            counted += source->hidden == NULL || !vexi_bitmap_get(source->hidden, row) ? 1 : 0;
        }
    }
    CHECK_EQ(count, counted);
    vexi_view_release(view);
    return count;
}

TEST(newest_wins_across_flushes) {
    begin();
    vexi_lake *lake = open_lake();
    create(lake, 4);
    vexi_table *table = table_of(lake);
    put(table, "a", 1);
    put(table, "b", 2);
    put(table, "a", 3);
    CHECK(value_of(table, "a") == 3 && value_of(table, "b") == 2 && value_of(table, "c") == -1);
    CHECK_EQ(live_count(table), 2);
    CHECK_OK(vexi_table_flush(table, &err));
    CHECK(value_of(table, "a") == 3 && value_of(table, "b") == 2);
    CHECK_EQ(live_count(table), 2);
    put(table, "a", 4);
    CHECK(value_of(table, "a") == 4);
    CHECK_EQ(live_count(table), 2);
    CHECK_OK(vexi_table_flush(table, &err));
    CHECK(value_of(table, "a") == 4);
    CHECK_EQ(live_count(table), 2);
    vex_string ids[3] = {vexi_string_of("b"), vexi_string_of("x"), vexi_string_of("b")};
    uint8_t existed[3];
    CHECK_OK(vexi_table_delete(table, ids, 3, existed, &err));
    CHECK(existed[0] == 1 && existed[1] == 0 && existed[2] == 0);
    CHECK(value_of(table, "b") == -1);
    CHECK_EQ(live_count(table), 1);
    CHECK_OK(vexi_table_flush(table, &err));
    CHECK(value_of(table, "b") == -1);
    CHECK_EQ(live_count(table), 1);
    vexi_table_release(table);
    CHECK_OK(vexi_lake_close(lake, &err));
    end();
}

TEST(reopen_replays_what_the_last_commit_lacks) {
    begin();
    vexi_lake *lake = open_lake();
    create(lake, 4);
    vexi_table *table = table_of(lake);
    put(table, "a", 1);
    CHECK_OK(vexi_table_flush(table, &err));
    put(table, "b", 2);
    put(table, "a", 5);
    vexi_table_release(table);
    CHECK_OK(vexi_lake_close(lake, &err));
    for (int i = 0; i < 3; i++) {
        lake = open_lake();
        table = table_of(lake);
        CHECK(value_of(table, "a") == 5 && value_of(table, "b") == 2);
        CHECK_EQ(live_count(table), 2);
        vex_collection_info info;
        CHECK_OK(vexi_table_describe(table, &info, &err));
        CHECK_EQ(info.memtable_row_count, 2);
        CHECK_EQ(info.segment_count, 1);
        vexi_table_release(table);
        CHECK_OK(vexi_lake_close(lake, &err));
    }
    end();
}

TEST(drop_and_create_again) {
    begin();
    vexi_lake *lake = open_lake();
    create(lake, 4);
    vexi_table *table = table_of(lake);
    put(table, "a", 1);
    CHECK_OK(vexi_table_flush(table, &err));
    put(table, "b", 1);
    CHECK_OK(vexi_lake_drop_table(lake, name_c(), &err));
    float vector[4] = {0};
    vexi_row row = {.id = vexi_string_of("z"), .vector = vector};
    CHECK_FAILS(VEX_NOT_FOUND, vexi_table_put(table, &row, 1, &err));
    vexi_table_release(table);
    CHECK_FAILS(VEX_NOT_FOUND, vexi_lake_table(lake, name_c(), &table, &err));
    create(lake, 4);
    table = table_of(lake);
    CHECK_EQ(live_count(table), 0);
    put(table, "c", 7);
    vexi_table_release(table);
    CHECK_OK(vexi_lake_close(lake, &err));
    lake = open_lake();
    table = table_of(lake);
    CHECK(value_of(table, "c") == 7 && value_of(table, "b") == -1 && value_of(table, "a") == -1);
    CHECK_EQ(live_count(table), 1);
    vexi_table_release(table);
    CHECK_OK(vexi_lake_close(lake, &err));
    end();
}

TEST_MAIN(RUN(newest_wins_across_flushes); RUN(reopen_replays_what_the_last_commit_lacks);
          RUN(drop_and_create_again))
