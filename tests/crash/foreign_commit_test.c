/* Another engine commits to our collection: between our commits, and in the midst of them.
 *
 * Its appends carry no index, its ids overwrite ours and each other's, it removes files and
 * replaces deletion vectors. The newest commit of an id wins; rows of a memtable are newer than all
 * commits. The same must hold after a restart, when all is read anew. */
#include <unistd.h>

#include "check.h"
#include "sim/sim_world.h"
#include "table/table_internal.h"

static sim_world world;
static sim_foreign foreign;
static vexi_store *foreign_store;

static void begin(vex_metric metric) {
    sim_world_init(&world, 11, 4, metric);
    world.config.log_size_bytes = 1 << 20;
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_create(&world, 0), &err));
    CHECK_OK(vexi_store_file_create(sim_env_of(world.sim), world.disk, "/lake", false,
                                    &foreign_store, &err));
    foreign = (sim_foreign){.env = sim_env_of(world.sim), .store = foreign_store, .folder = "c"};
}

static void flush(void) {
    CHECK_OK(sim_world_answer(&world, sim_world_flush(&world, 0), &err));
}

static void check(const char *when) {
    sim_world_check(&world, false, false, when);
}

static void end(void) {
    check("at the end");
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    check("after a restart");
    flush();
    check("after a restart and a flush");
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    check("after a second restart");
    vexi_store_destroy(foreign_store);
    sim_world_deinit(&world);
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

/* The model learns what a commit of others did, beside what the engine's answers tell. */
static void expect(uint32_t id, uint32_t version) {
    sim_step step = {.kind = SIM_ROWS, .count = 1, .changes = {{id, version}}};
    sim_model_add(&world.models[0], &step, VEX_OK);
}

static uint32_t next_version(void) {
    return world.models[0].next_version++;
}

/* Append one row and expect it. */
static void append(uint32_t id, char *path) {
    sim_change row = {.id = id, .version = next_version()};
    CHECK_OK(sim_foreign_append(&foreign, &world.schema, &row, 1, path, &err));
    expect(id, row.version);
}

/* Where the live row of an id is. */
static void place_of(uint32_t id, char path[64], uint64_t *row, uint64_t *row_count) {
    char text[24];
    vexi_table *table;
    vexi_view *view;
    bool found;
    uint32_t source;
    CHECK_OK(vexi_lake_table(world.lake, sim_world_name(0), &table, &err));
    CHECK_OK(vexi_table_view(table, &view, &err));
    CHECK_OK(vexi_view_find(view, sim_id(id, text), &found, &source, row, &err));
    CHECK(found && view->sources[source].segment != NULL);
    snprintf(path, 64, "%s", vexi_segment_path(view->sources[source].segment));
    *row_count = view->sources[source].row_count;
    vexi_view_release(view);
    vexi_table_release(table);
}

static void foreign_delete(uint32_t id) {
    char path[64];
    uint64_t row, row_count;
    place_of(id, path, &row, &row_count);
    CHECK_OK(sim_foreign_delete(&foreign, path, row_count, row, false, &err));
    expect(id, 0);
}

static uint64_t segment_count(void) {
    vexi_table *table;
    vex_collection_info info;
    CHECK_OK(vexi_lake_table(world.lake, sim_world_name(0), &table, &err));
    CHECK_OK(vexi_table_describe(table, &info, &err));
    vexi_table_release(table);
    return info.segment_count;
}

/* ---- Between our commits --------------------------------------------------------------------- */

TEST(appended_rows_are_found_and_win) {
    begin(VEX_METRIC_COSINE);
    put(0, 6);
    flush();
    append(2, NULL);
    append(7, NULL);
    flush();
    check("refreshed");
    append(2, NULL); /* over its own */
    flush();
    check("refreshed again");
    put(2, 1);
    check("ours again");
    flush();
    delete_one(7);
    check("its row deleted");
    flush();
    append(7, NULL);
    flush();
    end();
}

TEST(rows_of_a_memtable_are_newer) {
    begin(VEX_METRIC_L2);
    put(0, 4);
    flush();
    put(1, 1);
    delete_one(2);
    sim_change rows[3] = {{1, next_version()}, {2, next_version()}, {9, next_version()}};
    CHECK_OK(sim_foreign_append(&foreign, &world.schema, rows, 3, NULL, &err));
    expect(9, rows[2].version);
    vexi_table *table;
    CHECK_OK(vexi_lake_table(world.lake, sim_world_name(0), &table, &err));
    pthread_mutex_lock(&table->commit_lock);
    CHECK_OK(table_refresh(table, &err));
    pthread_mutex_unlock(&table->commit_lock);
    vexi_table_release(table);
    check("refreshed, not flushed");
    flush();
    end();
}

TEST(of_two_rows_in_one_file_the_later_wins) {
    begin(VEX_METRIC_L2);
    put(0, 2);
    flush();
    sim_change rows[5] = {{0, next_version()},
                          {5, next_version()},
                          {0, next_version()},
                          {5, next_version()},
                          {5, next_version()}};
    CHECK_OK(sim_foreign_append(&foreign, &world.schema, rows, 5, NULL, &err));
    expect(0, rows[2].version);
    expect(5, rows[4].version);
    flush();
    check("refreshed");
    delete_one(5);
    flush();
    check("deleted");
    end();
}

TEST(removed_files_and_deletion_vectors) {
    begin(VEX_METRIC_IP);
    put(0, 5);
    flush();
    put(5, 5);
    flush();
    foreign_delete(1);
    flush();
    check("a row deleted by the other engine");
    foreign_delete(3);
    flush();
    check("another one");
    delete_one(4);
    put(1, 1);
    flush();
    check("one deleted and one put back by us");
    char path[64];
    uint64_t row, row_count;
    place_of(6, path, &row, &row_count);
    CHECK_OK(sim_foreign_remove(&foreign, path, &err));
    for (uint32_t id = 5; id < 10; id++) {
        expect(id, 0);
    }
    flush();
    check("a file removed");
    end();
}

/* RESTORE and the like: a row that was deleted is there again. */
TEST(a_smaller_deletion_vector_brings_rows_back) {
    begin(VEX_METRIC_L2);
    put(0, 4);
    uint32_t versions[4];
    for (uint32_t id = 0; id < 4; id++) {
        versions[id] = sim_model_newest(&world.models[0]).version[id];
    }
    flush();
    char path[64];
    uint64_t row, row_count;
    place_of(3, path, &row, &row_count);
    delete_one(0);
    delete_one(1);
    flush();
    put(2, 1);
    CHECK_OK(sim_foreign_delete(&foreign, path, row_count, row, true, &err));
    expect(0, versions[0]);
    expect(1, versions[1]);
    expect(3, 0);
    flush();
    check("restored");
    end();
}

/* The other engine's file hides a row of ours in memory alone until our next commit says so; its
 * own row may then go before that. */
TEST(a_row_hidden_by_a_foreign_one_stays_hidden) {
    begin(VEX_METRIC_L2);
    put(0, 4);
    flush();
    append(1, NULL);
    flush();
    put(20, 1); /* our commit stores what is hidden */
    flush();
    foreign_delete(1);
    flush();
    check("the foreign row is gone, the older one stays away");
    end();
}

/* ---- In the midst of our commits ------------------------------------------------------------- */

/* What to do before our put of a commit. */
typedef struct race {
    void (*act)(struct race *race);
    uint32_t times; /* still to come */
    uint32_t done;
    uint32_t id;
    char path[64];
    uint64_t row;
    uint64_t row_count;
} race;

static void race_hook(void *context, const char *name) {
    race *r = context;
    if (r->times > 0 && strstr(name, "/_delta_log/") != NULL) {
        r->times--;
        r->done++;
        r->act(r);
    }
}

static void race_start(race *r) {
    world.hook = (sim_hook){.before_put = race_hook, .context = r};
}

static void race_end(const race *r) {
    world.hook.before_put = NULL;
    CHECK(r->times == 0 && r->done > 0);
}

/* Its row of r->id loses against ours, which is committed later; the next id is its own. */
static void act_append(race *r) {
    sim_change rows[2] = {{r->id, next_version()}, {r->id + 1, next_version()}};
    CHECK_OK(sim_foreign_append(&foreign, &world.schema, rows, 2, NULL, &err));
    expect(r->id + 1, rows[1].version);
}

TEST(an_append_races_with_a_flush) {
    for (uint32_t times = 1; times <= 5; times++) {
        begin(VEX_METRIC_L2);
        put(0, 8);
        flush();
        put(2, 1);
        delete_one(5);
        race r = {.act = act_append, .times = times, .id = 2};
        race_start(&r);
        flush();
        race_end(&r);
        check("after the race");
        CHECK_EQ(r.done, times);
        end();
    }
}

static void act_append_deleted(race *r) {
    sim_change row = {r->id, next_version()};
    CHECK_OK(sim_foreign_append(&foreign, &world.schema, &row, 1, NULL, &err));
}

TEST(an_append_races_with_the_flush_of_a_delete) {
    begin(VEX_METRIC_L2);
    put(0, 8);
    flush();
    delete_one(5);
    race r = {.act = act_append_deleted, .times = 2, .id = 5};
    race_start(&r);
    flush(); /* the tombstone is committed later, so it wins */
    race_end(&r);
    check("after the race");
    end();
}

static void act_remove(race *r) {
    CHECK_OK(sim_foreign_remove(&foreign, r->path, &err));
}

/* Our flush hides a row in a file that is removed meanwhile: it must not add the file again. */
TEST(a_removal_races_with_a_flush) {
    begin(VEX_METRIC_L2);
    put(0, 6);
    flush();
    put(10, 2);
    flush();
    race r = {.act = act_remove, .times = 1};
    place_of(3, r.path, &r.row, &r.row_count);
    put(3, 1);
    for (uint32_t id = 0; id < 6; id++) {
        if (id != 3) {
            expect(id, 0);
        }
    }
    race_start(&r);
    flush();
    race_end(&r);
    check("after the race");
    CHECK_EQ(segment_count(), 2);
    end();
}

static void act_delete(race *r) {
    CHECK_OK(sim_foreign_delete(&foreign, r->path, r->row_count, r->row, false, &err));
    expect(r->id, 0);
}

/* Both change the deletion vector of one file: both rows go. */
TEST(a_deletion_races_with_a_flush) {
    begin(VEX_METRIC_L2);
    put(0, 6);
    flush();
    race r = {.act = act_delete, .times = 1, .id = 4};
    place_of(4, r.path, &r.row, &r.row_count);
    delete_one(1);
    put(2, 1);
    race_start(&r);
    flush();
    race_end(&r);
    check("after the race");
    end();
}

static void act_append_any(race *r) {
    sim_change row = {r->id, next_version()};
    CHECK_OK(sim_foreign_append(&foreign, &world.schema, &row, 1, NULL, &err));
}

/* A file that comes in the last moment is dropped too. */
TEST(an_append_races_with_a_drop) {
    begin(VEX_METRIC_L2);
    put(0, 3);
    flush();
    race r = {.act = act_append_any, .times = 3, .id = 1};
    race_start(&r);
    CHECK_OK(sim_world_answer(&world, sim_world_drop(&world, 0), &err));
    race_end(&r);
    check("dropped");
    CHECK_OK(sim_world_answer(&world, sim_world_create(&world, 0), &err));
    check("made anew");
    put(7, 2);
    end();
}

TEST(an_append_races_with_an_import) {
    static const sim_change rows[3] = {{1, 9000}, {2, 9001}, {12, 9002}};
    char path[] = "/tmp/vexlake-foreign-XXXXXX";
    int file = mkstemp(path);
    CHECK(file >= 0 && close(file) == 0);
    begin(VEX_METRIC_L2);
    sim_write_import(path, &world.schema, rows, 3);
    put(0, 4);
    flush();
    race r = {.act = act_append, .times = 2, .id = 12};
    race_start(&r);
    CHECK_OK(sim_world_answer(&world, sim_world_import(&world, 0, path, rows, 3), &err));
    race_end(&r);
    CHECK_EQ(remove(path), 0);
    check("after the race");
    end();
}

static void act_touch(race *r) {
    (void)r;
    CHECK_OK(sim_foreign_touch(&foreign, &err));
}

/* Commits that say nothing of files only move the version on. */
TEST(many_commits_race_with_a_flush) {
    begin(VEX_METRIC_L2);
    put(0, 3);
    race r = {.act = act_touch, .times = 50};
    race_start(&r);
    flush();
    race_end(&r);
    check("after the race");
    end();
}

TEST_MAIN(RUN(appended_rows_are_found_and_win); RUN(rows_of_a_memtable_are_newer);
          RUN(of_two_rows_in_one_file_the_later_wins); RUN(removed_files_and_deletion_vectors);
          RUN(a_smaller_deletion_vector_brings_rows_back);
          RUN(a_row_hidden_by_a_foreign_one_stays_hidden); RUN(an_append_races_with_a_flush);
          RUN(an_append_races_with_the_flush_of_a_delete); RUN(a_removal_races_with_a_flush);
          RUN(a_deletion_races_with_a_flush); RUN(an_append_races_with_a_drop);
          RUN(an_append_races_with_an_import); RUN(many_commits_race_with_a_flush))
