/* Views: hidden rows are shared, copied and grown as they must be. */
#include "base/bitmap.h"
#include "check.h"
#include "sim/sim_world.h"
#include "table/table_internal.h"

static sim_world world;

static void begin(void) {
    sim_world_init(&world, 5, 4, VEX_METRIC_L2);
    world.config.flush_size_bytes = 64 << 20;
    world.config.log_size_bytes = 64 << 20;
    CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_create(&world, 0), &err));
}

static void put_each(uint32_t first, uint32_t count) {
    for (uint32_t id = first; id < first + count; id++) {
        CHECK_OK(sim_world_answer(&world, sim_world_put(&world, 0, &id, 1), &err));
    }
}

static void delete_one(uint32_t id) {
    CHECK_OK(sim_world_answer(&world, sim_world_delete(&world, 0, &id, 1), &err));
}

static void flush(void) {
    CHECK_OK(sim_world_answer(&world, sim_world_flush(&world, 0), &err));
}

static vexi_table *table_of(void) {
    vexi_table *table;
    CHECK_OK(vexi_lake_table(world.lake, sim_world_name(0), &table, &err));
    return table;
}

static vexi_view *view_of(void) {
    vexi_view *view;
    vexi_table *table = table_of();
    CHECK_OK(vexi_table_view(table, &view, &err));
    vexi_table_release(table);
    return view;
}

/* Hidden bits were made when a memtable had few rows; a later view of many rows reads as many bits.
 */
TEST(hidden_bits_cover_every_row) {
    begin();
    put_each(0, 1);
    delete_one(0);
    sim_world_check(&world, false, false, "two rows");
    put_each(1, 199);
    sim_world_check(&world, false, false, "many rows");
    vexi_view *view = view_of();
    CHECK_EQ(view->source_count, 1);
    CHECK(view->sources[0].hidden != NULL);
    CHECK_EQ(vexi_bitmap_count(view->sources[0].hidden, view->sources[0].row_count), 2);
    vexi_view_release(view);
    flush();
    sim_world_check(&world, false, false, "flushed");
    sim_world_deinit(&world);
}

/* Every older state stays as it was, in the memtable, while it is sealed, and in segments. */
TEST(held_views_do_not_change) {
    begin();
    enum { HELD = 12 };
    vexi_view *held[HELD];
    sim_state states[HELD];
    for (uint32_t i = 0; i < HELD; i++) {
        put_each(i * 5, 10);
        if (i % 3 == 1) {
            flush();
        }
        delete_one(i * 5 + 2);
        held[i] = view_of();
        states[i] = sim_model_newest(&world.models[0]);
    }
    flush();
    CHECK_OK(sim_world_answer(&world, sim_world_drop(&world, 0), &err));
    CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
    for (uint32_t i = 0; i < HELD; i++) {
        sim_state seen;
        CHECK_OK(sim_observe_view(held[i], &seen, &err));
        CHECK(memcmp(&seen, &states[i], sizeof seen) == 0);
        vexi_view_release(held[i]);
    }
    sim_world_deinit(&world);
}

/* A memtable that is sealed between two views keeps what was worked out for it. */
TEST(sealing_between_views) {
    begin();
    vexi_table *table = table_of();
    for (uint32_t round = 0; round < 4; round++) {
        put_each(round, 4);
        sim_world_check(&world, false, false, "before sealing");
        delete_one(round + 1);
        pthread_mutex_lock(&table->state_lock);
        CHECK_OK(table_seal(table, &err));
        pthread_mutex_unlock(&table->state_lock);
        sim_world_check(&world, false, false, "after sealing");
    }
    CHECK_EQ(table->sealed_count, 4);
    flush();
    sim_world_check(&world, false, false, "flushed");
    vexi_table_release(table);
    sim_world_deinit(&world);
}

TEST_MAIN(RUN(hidden_bits_cover_every_row); RUN(held_views_do_not_change);
          RUN(sealing_between_views))
