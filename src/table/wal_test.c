/* The log when it fails: what is refused, what is unknown, and what comes after. */
#include "check.h"
#include "sim/sim_world.h"
#include "table/table_internal.h"

static sim_world world;

static const uint32_t ids[8] = {0, 1, 2, 3, 4, 5, 6, 7};

static void begin(vex_durability durability) {
    sim_world_init(&world, 21, 4, VEX_METRIC_L2);
    world.config.durability = durability;
    world.config.log_size_bytes = 1 << 20;
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_create(&world, 0), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 0, ids, 2), &err));
}

static void kill_and_open(bool power) {
    sim_world_kill(&world, power, 5);
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
}

static void end(bool power) {
    sim_world_check(&world, false, false, "before the kill");
    kill_and_open(power);
    sim_world_check(&world, true, false, "after the kill");
    sim_world_deinit(&world);
}

static size_t log_files(void) {
    vexi_arena arena;
    vexi_listing listing;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(vexi_store_list(world.store, ".vexlake/wal/", NULL, false, &arena, &listing, &err));
    size_t count = listing.count;
    vexi_arena_deinit(&arena);
    return count;
}

/* A put is a write (1) and a sync (2) of the log, and only a new file can settle a failure. */
TEST(a_failed_sync_refuses) {
    for (uint64_t step = 1; step <= 2; step++) {
        begin(VEX_DURABILITY_ALWAYS);
        sim_kill_fail(world.kill, step, 1);
        CHECK_EQ(sim_world_put(&world, 0, ids, 4), VEX_IO);
        CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 0, ids + 6, 1), &err));
        end(true);
    }
}

TEST(without_a_new_file_the_outcome_is_unknown) {
    for (int power = 0; power < 2; power++) {
        begin(VEX_DURABILITY_ALWAYS);
        sim_kill_fail(world.kill, 2, 2);
        CHECK_EQ(sim_world_put(&world, 0, ids, 4), VEX_UNKNOWN_OUTCOME);
        end(power != 0); /* wholly there, or not at all */
    }
}

/* What is acknowledged after an unknown outcome is never undone by it. */
TEST(an_unknown_outcome_is_settled_by_the_next_write) {
    begin(VEX_DURABILITY_ALWAYS);
    sim_kill_fail(world.kill, 2, 2);
    CHECK_EQ(sim_world_put(&world, 0, ids + 4, 2), VEX_UNKNOWN_OUTCOME);
    /* Not there, so there is nothing to delete: but the answer must hold. */
    CHECK_OK(sim_world_answer(&world, sim_world_delete(&world, 0, ids + 4, 1), &err));
    kill_and_open(false);
    sim_state seen;
    CHECK_OK(sim_observe(world.lake, sim_world_name(0), &seen, &err));
    CHECK_EQ(seen.version[4], 0);
    CHECK_EQ(seen.version[5], 0); /* one batch, one fate */
    sim_world_check(&world, true, false, "after the kill");
    sim_world_deinit(&world);
}

TEST(a_delete_waits_until_the_log_is_settled) {
    begin(VEX_DURABILITY_ALWAYS);
    sim_kill_fail(world.kill, 2, 4);
    CHECK_EQ(sim_world_put(&world, 0, ids + 4, 2), VEX_UNKNOWN_OUTCOME);
    CHECK_EQ(sim_world_delete(&world, 0, ids + 4, 1), VEX_IO);
    end(false);
}

/* While the disk takes nothing more, reads go on and nothing that was refused appears. */
TEST(a_disk_that_stays_broken) {
    begin(VEX_DURABILITY_ALWAYS);
    sim_kill_fail(world.kill, 1, 1000);
    for (uint32_t i = 0; i < 5; i++) {
        vex_status status = sim_world_put(&world, 0, ids + i, 2);
        CHECK(status == VEX_IO || status == VEX_UNKNOWN_OUTCOME);
        sim_world_check(&world, false, false, "while it is broken");
    }
    sim_kill_fail(world.kill, 1, 0);
    CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 0, ids + 2, 2), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_flush(&world, 0), &err));
    end(true);
}

TEST(files_go_when_nothing_needs_them) {
    begin(VEX_DURABILITY_ALWAYS);
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    world.config.log_size_bytes = 1000;
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_create(&world, 1), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 1, ids, 1), &err));
    for (int i = 0; i < 10; i++) {
        CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 0, ids, 4), &err));
    }
    CHECK(log_files() > 8);
    CHECK_OK(sim_world_answer(&world, sim_world_flush(&world, 0), &err));
    CHECK(log_files() > 8); /* the first holds a row of the other collection */
    CHECK_OK(sim_world_answer(&world, sim_world_drop(&world, 1), &err));
    CHECK_EQ(log_files(), 1);
    for (int i = 0; i < 4; i++) { /* opening again and again leaves no pile */
        CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
        CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
        CHECK_EQ(log_files(), 1);
    }
    end(true);
}

/* Interval durability: a kill takes nothing; a power failure what the last sync lacks; and where a
 * sync fails, the rows go into segments. */
TEST(interval_durability) {
    begin(VEX_DURABILITY_INTERVAL);
    CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 0, ids, 4), &err));
    end(false);

    begin(VEX_DURABILITY_INTERVAL);
    CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 0, ids, 4), &err));
    sim_env_advance(world.sim, 50);
    end(true);

    begin(VEX_DURABILITY_INTERVAL);
    sim_kill_fail(world.kill, 2, 1);
    CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 0, ids, 4), &err));
    sim_env_advance(world.sim, 50);
    end(true);
}

TEST_MAIN(RUN(a_failed_sync_refuses); RUN(without_a_new_file_the_outcome_is_unknown);
          RUN(an_unknown_outcome_is_settled_by_the_next_write);
          RUN(a_delete_waits_until_the_log_is_settled); RUN(a_disk_that_stays_broken);
          RUN(files_go_when_nothing_needs_them); RUN(interval_durability))
