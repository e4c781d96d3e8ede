/* Segments without a usable index: searched all the same, indexed in the background, whatever
 * another engine does meanwhile. */
#include "check.h"
#include "sim/sim_world.h"
#include "table/table_internal.h"

static sim_world world;
static sim_foreign foreign;
static vexi_store *foreign_store;

static void begin(uint64_t seed) {
    sim_world_init(&world, seed, 4, VEX_METRIC_L2);
    world.config.log_size_bytes = 1 << 20;
    world.config.refresh_interval_ms = 1000;
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_create(&world, 0), &err));
    CHECK_OK(vexi_store_file_create(sim_env_of(world.sim), world.disk, "/lake", false,
                                    &foreign_store, &err));
    foreign = (sim_foreign){.env = sim_env_of(world.sim), .store = foreign_store, .folder = "c"};
}

static void reopen(void) {
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
}

static void check(const char *when) {
    sim_world_check(&world, false, false, when);
}

static void end(void) {
    check("at the end");
    reopen();
    check("after a restart");
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    vexi_store_destroy(foreign_store);
    sim_world_deinit(&world);
}

static void flush(void) {
    CHECK_OK(sim_world_answer(&world, sim_world_flush(&world, 0), &err));
}

static void put(uint32_t first, size_t count) {
    uint32_t ids[SIM_CHANGES_MAX];
    for (size_t i = 0; i < count; i++) {
        ids[i] = first + (uint32_t)i;
    }
    CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 0, ids, count), &err));
}

static void delete_one(uint32_t id) {
    CHECK_OK(sim_world_answer(&world, sim_world_delete(&world, 0, &id, 1), &err));
}

/* The model learns what a commit of others did. */
static void expect(uint32_t id, uint32_t version) {
    sim_step step = {.kind = SIM_ROWS, .count = 1, .changes = {{id, version}}};
    sim_model_add(&world.models[0], &step, VEX_OK);
}

/* Another engine appends rows first .. first + count - 1. */
static void append(uint32_t first, size_t count, char *path) {
    sim_change rows[SIM_CHANGES_MAX];
    for (size_t i = 0; i < count; i++) {
        rows[i] = (sim_change){first + (uint32_t)i, world.models[0].next_version++};
    }
    CHECK_OK(sim_foreign_append(&foreign, &world.schema, rows, count, path, &err));
    for (size_t i = 0; i < count; i++) {
        expect(rows[i].id, rows[i].version);
    }
}

static vexi_table *table_of(void) {
    vexi_table *table;
    CHECK_OK(vexi_lake_table(world.lake, sim_world_name(0), &table, &err));
    return table;
}

static vex_collection_info describe(void) {
    vexi_table *table = table_of();
    vex_collection_info info;
    CHECK_OK(vexi_table_describe(table, &info, &err));
    vexi_table_release(table);
    return info;
}

/* Refresh, and let the background work as long as it likes. */
static void settle(void) {
    sim_env_advance(world.sim, 2000);
    sim_env_advance(world.sim, 2000);
}

static uint64_t finding_count(void) {
    vexi_table *table = table_of();
    vexi_arena arena;
    vexi_arena_init(&arena, sim_env_of(world.sim));
    vexi_finding *findings = NULL;
    size_t count = 0;
    uint64_t objects = 0;
    CHECK_OK(vexi_table_verify(table, &arena, &findings, &count, &objects, &err));
    vexi_arena_deinit(&arena);
    vexi_table_release(table);
    return count;
}

/* The work on one of two segments fails, at any allocation: the other's goes on at once, and the
 * failed one follows. */
TEST(one_that_fails_does_not_keep_others_waiting) {
    int others = 0;
    for (uint64_t n = 1; n <= 6; n++) {
        begin(20 + n);
        char path[64];
        put(20, 3);
        flush();
        append(0, 10, path);
        append(10, 10, path);
        put(23, 1);
        flush();
        CHECK_EQ(describe().unindexed_segment_count, 2);
        sim_env_fail_allocation(world.sim, n, false);
        lake_index_soon(world.lake);
        sim_env_advance(world.sim, 700);
        sim_env_fail_allocation(world.sim, 0, false);
        vex_collection_info info = describe();
        others += info.unindexed_segment_count == 1 && info.last_error[0] != '\0';
        sim_env_advance(world.sim, 2000);
        CHECK_EQ(describe().unindexed_segment_count, 0);
        end();
    }
    CHECK(others >= 2);
}

/* ---- Files of other engines -------------------------------------------------------------------
 */

TEST(a_foreign_file_is_indexed) {
    begin(1);
    put(0, 6);
    flush();
    char path[64];
    append(3, 10, path); /* over some of ours */
    flush();
    check("found before it is indexed");
    vex_collection_info before = describe();
    CHECK_EQ(before.unindexed_segment_count, 1);
    delete_one(11);
    settle();
    check("indexed");
    vex_collection_info after = describe();
    CHECK_EQ(after.unindexed_segment_count, 0);
    CHECK_EQ(after.damaged_segment_count, 0);
    CHECK_EQ(after.segment_count, 2);
    CHECK_EQ(after.row_count, 12);
    CHECK(after.version > before.version);
    CHECK_EQ(finding_count(), 0);
    /* The commit that removes the file says that no data changed, but for what the file hid in
     * ours.
     */
    uint32_t gone = 0;
    for (int64_t version = before.version + 1; version <= after.version; version++) {
        char name[128];
        char file[26];
        vexi_delta_commit_name(version, file);
        snprintf(name, sizeof name, "c/data/_delta_log/%s", file);
        vexi_arena arena;
        vexi_arena_init(&arena, sim_env_of(world.sim));
        vexi_span bytes;
        vexi_delta_commit commit;
        CHECK_OK(vexi_store_get_all(foreign_store, name, 1 << 20, &arena, &bytes, &err));
        CHECK_OK(vexi_delta_parse(bytes, &arena, &commit, &err));
        bool here = false;
        for (size_t i = 0; i < commit.remove_count; i++) {
            here = here ||
                   (vexi_string_is(commit.removes[i].path, path) && !commit.removes[i].data_change);
        }
        size_t unchanged = 0;
        for (size_t i = 0; i < commit.add_count; i++) {
            unchanged += commit.adds[i].data_change ? 0 : 1;
        }
        CHECK_EQ(unchanged, here ? 1 : 0);
        gone += here ? 1 : 0;
        vexi_arena_deinit(&arena);
    }
    CHECK_EQ(gone, 1);
    flush();
    check("the delete is committed on the new file");
    CHECK_EQ(describe().unindexed_segment_count, 0);
    end();
}

TEST(a_large_file_becomes_several_segments) {
    begin(2);
    world.config.segment_size_bytes = 2000;
    reopen();
    put(0, 2);
    flush();
    append(10, 30, NULL);
    flush();
    settle();
    vex_collection_info info = describe();
    CHECK_EQ(info.unindexed_segment_count, 0);
    CHECK(info.segment_count > 3);
    CHECK_EQ(info.row_count, 32);
    end();
}

TEST(a_file_of_deleted_rows_just_goes) {
    begin(3);
    put(0, 2);
    flush();
    append(10, 3, NULL);
    flush();
    for (uint32_t id = 10; id < 13; id++) {
        delete_one(id);
    }
    flush();
    settle();
    CHECK_EQ(describe().segment_count, 1);
    end();
}

/* ---- Others commit meanwhile ------------------------------------------------------------------
 */

typedef struct race {
    void (*act)(struct race *race);
    uint32_t times;
    char path[64];
    uint32_t versions[8];
} race;

static void race_hook(void *context, const char *name) {
    race *r = context;
    if (r->times > 0 && strstr(name, "/_delta_log/") != NULL) {
        r->times--;
        r->act(r);
    }
}

/* Rows 10 .. 17 in a foreign file; `act` happens just before our put of the commit that replaces
 * it. */
static void run_race(uint64_t seed, race *r) {
    begin(seed);
    put(0, 4);
    flush();
    append(10, 8, r->path);
    for (uint32_t i = 0; i < 8; i++) {
        r->versions[i] = sim_model_newest(&world.models[0]).version[10 + i];
    }
    flush();
    CHECK_EQ(describe().unindexed_segment_count, 1);
    world.hook = (sim_hook){.before_put = race_hook, .context = r};
    settle();
    world.hook.before_put = NULL;
    CHECK_EQ(r->times, 0);
    settle();
    CHECK_EQ(describe().unindexed_segment_count, 0);
    CHECK_EQ(finding_count(), 0);
    end();
}

static void act_delete(race *r) {
    CHECK_OK(sim_foreign_delete(&foreign, r->path, 8, r->times, false, &err));
    expect(10 + r->times, 0);
}

TEST(rows_deleted_meanwhile_stay_deleted) {
    for (uint32_t times = 1; times < 5; times++) {
        race r = {.act = act_delete, .times = times};
        run_race(10 + times, &r);
    }
}

static void act_remove(race *r) {
    CHECK_OK(sim_foreign_remove(&foreign, r->path, &err));
    for (uint32_t id = 10; id < 18; id++) {
        expect(id, 0);
    }
}

TEST(a_file_removed_meanwhile_stays_removed) {
    race r = {.act = act_remove, .times = 1};
    run_race(20, &r);
}

/* Nobody but the one who met it looks at the log: it must not try again with what is gone. */
TEST(a_removal_is_taken_over_by_who_meets_it) {
    race r = {.act = act_remove, .times = 1};
    begin(21);
    world.config.refresh_interval_ms = 0;
    reopen();
    put(0, 4);
    flush();
    append(10, 8, r.path);
    flush();
    CHECK_EQ(describe().unindexed_segment_count, 1);
    world.hook = (sim_hook){.before_put = race_hook, .context = &r};
    settle();
    world.hook.before_put = NULL;
    CHECK_EQ(r.times, 0);
    CHECK_EQ(describe().unindexed_segment_count, 0);
    end();
}

static void act_append(race *r) {
    (void)r;
    append(12, 3, NULL);
}

TEST(rows_overwritten_meanwhile) {
    race r = {.act = act_append, .times = 2};
    run_race(30, &r);
}

static void act_own(race *r) {
    (void)r;
    put(13, 1);
    delete_one(14);
}

TEST(rows_of_memtables_are_newer) {
    race r = {.act = act_own, .times = 1};
    run_race(40, &r);
}

/* Row 10 is deleted when the rows are taken, and there again when the commit is put. */
static void act_restore(race *r) {
    CHECK_OK(sim_foreign_delete(&foreign, r->path, 8, 7, true, &err));
    expect(10, r->versions[0]);
    expect(17, 0);
}

TEST(rows_brought_back_meanwhile) {
    begin(50);
    race r = {.act = act_restore, .times = 1};
    put(0, 4);
    flush();
    append(10, 8, r.path);
    r.versions[0] = sim_model_newest(&world.models[0]).version[10];
    flush();
    CHECK_OK(sim_foreign_delete(&foreign, r.path, 8, 0, false, &err));
    expect(10, 0);
    flush();
    check("one is deleted");
    world.hook = (sim_hook){.before_put = race_hook, .context = &r};
    settle();
    world.hook.before_put = NULL;
    CHECK_EQ(r.times, 0);
    check("it is there again");
    settle();
    CHECK_EQ(describe().unindexed_segment_count, 0);
    end();
}

/* ---- Damaged index files ----------------------------------------------------------------------
 */

/* Change a byte of the only object that begins so; at: its place in thousandths. */
static void flip(const char *prefix, uint64_t at) {
    vexi_arena arena;
    vexi_listing listing;
    vexi_span bytes;
    vexi_arena_init(&arena, sim_env_of(world.sim));
    CHECK_OK(vexi_store_list(foreign_store, prefix, NULL, true, &arena, &listing, &err));
    size_t files = 0;
    const char *name = NULL;
    for (size_t i = 0; i < listing.count; i++) {
        if (!listing.entries[i].is_folder) {
            name = listing.entries[i].name;
            files++;
        }
    }
    CHECK_EQ(files, 1);
    CHECK_OK(vexi_store_get_all(foreign_store, name, 1 << 26, &arena, &bytes, &err));
    uint8_t *copy = vexi_arena_alloc(&arena, bytes.size);
    CHECK(copy != NULL);
    memcpy(copy, bytes.data, bytes.size);
    copy[(bytes.size - 1) * at / 1000] ^= 0x10;
    vexi_span part = vexi_span_of(copy, bytes.size);
    CHECK_OK(vexi_store_put(foreign_store, name, &part, 1, &err));
    vexi_arena_deinit(&arena);
}

/* The index file is damaged anywhere: the lake opens, all rows are there, writes and flushes go on,
 * and in the background the segment is indexed anew. */
TEST(a_damaged_index_is_mended) {
    uint64_t seed = vex_test_seed(60);
    for (uint64_t trial = 0; trial < vex_test_effort(12); trial++) {
        begin(60 + trial);
        put(0, 30);
        delete_one(3);
        flush();
        delete_one(5);
        flush();
        CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
        flip("c/index/", trial == 0 ? 10 : trial == 1 ? 1000 : vex_test_below(&seed, 1001));
        CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
        put(3, 4);
        delete_one(9);
        flush();
        check("written to");
        vex_collection_info info = describe();
        CHECK_EQ(info.damaged_segment_count, 0);
        if (trial == 0) {
            CHECK_EQ(info.unindexed_segment_count, 1);
            CHECK_EQ(finding_count(), 1);
        }
        settle();
        info = describe();
        CHECK_EQ(info.damaged_segment_count, 0);
        CHECK_EQ(info.unindexed_segment_count, 0);
        check("after a while");
        if (trial == 0) {
            CHECK_EQ(finding_count(), 0);
        }
        end();
    }
}

/* Found by a search: the caller asks, takes a new view, and has all rows. */
TEST(damage_met_by_a_search) {
    begin(80);
    put(0, 30);
    flush();
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    flip("c/index/", 1000);
    world.config.refresh_interval_ms = 0;
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    vexi_table *table = table_of();
    vexi_view *view;
    CHECK_OK(vexi_table_view(table, &view, &err));
    CHECK_EQ(view->live_count, 30);
    /* Whatever the search met. */
    CHECK_OK(vexi_view_index_damaged(table, view, 0, VEX_CORRUPT, &err));
    CHECK_OK(vexi_view_index_damaged(table, view, 0, VEX_CORRUPT,
                                     &err)); /* another search of the same view */
    vexi_view *again;
    CHECK_OK(vexi_table_view(table, &again, &err));
    CHECK(again->sources[0].segment != view->sources[0].segment);
    CHECK_EQ(again->live_count, 30);
    CHECK(vexi_segment_is_foreign(again->sources[0].segment));
    CHECK_FAILS(VEX_CORRUPT,
                vexi_view_index_damaged(table, again, 0, VEX_CORRUPT, &err)); /* nothing is left */
    vexi_view_release(again);
    vexi_view_release(view);
    vexi_table_release(table);
    check("searched exactly");
    settle();
    CHECK_EQ(describe().unindexed_segment_count, 0);
    end();
}

/* Found when a view is made: ids of memtables are looked up in the index. */
TEST(damage_met_by_a_view) {
    begin(85);
    put(0, 30);
    flush();
    delete_one(5);
    put(7, 1);
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    flip("c/index/", 1000);
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    vex_collection_info info = describe();
    CHECK(info.row_count == 29 && info.damaged_segment_count == 0);
    CHECK_EQ(info.unindexed_segment_count, 1);
    check("mended");
    end();
}

/* The rows themselves are damaged: said so, and nothing is made of what is left. */
TEST(damaged_rows_stay_damaged) {
    begin(90);
    put(0, 30);
    flush();
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    flip("c/index/", 10);
    flip("c/data/", 300);
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    settle();
    vex_collection_info info = describe();
    CHECK_EQ(info.damaged_segment_count, 1);
    CHECK_EQ(info.unindexed_segment_count, 0);
    CHECK(finding_count() > 0);
    vexi_table *table = table_of();
    vexi_view *view;
    CHECK_OK(vexi_table_view(table, &view, &err));
    CHECK_FAILS(VEX_CORRUPT, vexi_view_index_damaged(table, view, 0, VEX_CORRUPT, &err));
    vexi_view_release(view);
    vexi_table_release(table);
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    vexi_store_destroy(foreign_store);
    sim_world_deinit(&world);
}

/* A reader mends what it sees, and writes nothing. */
TEST(a_read_only_lake) {
    begin(95);
    put(0, 30);
    flush();
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    flip("c/index/", 10);
    world.config.read_only = true;
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    uint64_t steps = vexi_disk_sim_steps(world.disk);
    check("read");
    settle();
    CHECK_EQ(describe().unindexed_segment_count, 1);
    CHECK_EQ(describe().damaged_segment_count, 0);
    CHECK_EQ(vexi_disk_sim_steps(world.disk), steps);
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    vexi_store_destroy(foreign_store);
    sim_world_deinit(&world);
}

TEST_MAIN(RUN(a_foreign_file_is_indexed); RUN(one_that_fails_does_not_keep_others_waiting);
          RUN(a_large_file_becomes_several_segments); RUN(a_file_of_deleted_rows_just_goes);
          RUN(rows_deleted_meanwhile_stay_deleted); RUN(a_file_removed_meanwhile_stays_removed);
          RUN(a_removal_is_taken_over_by_who_meets_it); RUN(rows_overwritten_meanwhile);
          RUN(rows_of_memtables_are_newer); RUN(rows_brought_back_meanwhile);
          RUN(a_damaged_index_is_mended); RUN(damage_met_by_a_search); RUN(damage_met_by_a_view);
          RUN(damaged_rows_stay_damaged); RUN(a_read_only_lake))
