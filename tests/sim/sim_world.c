#include "sim/sim_world.h"

#include "check.h"
#include "format/segment_file.h"

vexi_lake_config sim_config(void) {
    return (vexi_lake_config){.durability = VEX_DURABILITY_ALWAYS,
                              .sync_interval_ms = 10,
                              .flush_interval_ms = 1000,
                              .flush_size_bytes = 64 << 10,
                              .memory_limit_bytes = 8 << 20,
                              .segment_size_bytes = 1 << 20,
                              .log_size_bytes = 2000};
}

void sim_world_init(sim_world *world, uint64_t seed, uint32_t dimension, vex_metric metric) {
    memset(world, 0, sizeof *world);
    world->sim = sim_env_create(seed);
    world->config = sim_config();
    world->schema = sim_schema(dimension, metric, VEX_INDEX_IVF);
    for (int c = 0; c < SIM_COLLECTIONS; c++) {
        sim_model_init(&world->models[c]);
    }
    CHECK_OK(vexi_disk_sim_create(sim_env_of(world->sim), seed, &world->disk, &err));
    world->kill = sim_kill_create(world->disk);
}

void sim_world_deinit(sim_world *world) {
    if (world->lake != NULL) {
        (void)sim_world_close(world);
    }
    vexi_disk_destroy(world->kill);
    sim_env_destroy(world->sim);
}

vex_status sim_world_open(sim_world *world) {
    CHECK(world->lake == NULL);
    vexi_store *store;
    world->last = vexi_store_file_create(sim_env_of(world->sim), world->kill, "/lake", true, &store,
                                         &world->error);
    if (world->last == VEX_OK && world->faults) {
        world->last = vexi_store_fault_create(sim_env_of(world->sim), store, &world->plan, &store,
                                              &world->error);
    }
    world->store = store;
    if (world->last == VEX_OK) {
        world->last = vexi_lake_open(sim_env_of(world->sim), sim_hook_create(store, &world->hook),
                                     &world->config, &world->lake, &world->error);
    }
    return world->last;
}

vex_status sim_world_close(sim_world *world) {
    world->last = vexi_lake_close(world->lake, &world->error);
    world->lake = NULL;
    CHECK_EQ(sim_env_queued(world->sim), 0);
    return world->last;
}

void sim_world_kill(sim_world *world, bool power, uint64_t seed) {
    sim_kill_at(world->kill, 1);
    while (!sim_kill_dead(world->kill)) {
        bool made;
        (void)world->kill->ops->make_folder(world->kill, "/any", &made, NULL);
    }
    if (world->lake != NULL) {
        (void)sim_world_close(world);
    }
    sim_kill_at(world->kill, 0);
    if (power) {
        vexi_disk_sim_restart(world->disk, seed);
    }
}

vex_string sim_world_name(uint32_t c) {
    return vexi_string_of(c == 0 ? "c" : "d");
}

/* An answer other than OK or "it is so already" leaves open what happened. */
static vex_status open_outcome(vex_status status) {
    return status == VEX_OK || status == VEX_EXISTS || status == VEX_NOT_FOUND
               ? status
               : VEX_UNKNOWN_OUTCOME;
}

vex_status sim_world_create(sim_world *world, uint32_t c) {
    sim_step step = {.kind = SIM_CREATE};
    world->last =
        vexi_lake_create_table(world->lake, sim_world_name(c), &world->schema, &world->error);
    sim_model_add(&world->models[c], &step, open_outcome(world->last));
    return world->last;
}

vex_status sim_world_drop(sim_world *world, uint32_t c) {
    sim_step step = {.kind = SIM_DROP};
    world->last = vexi_lake_drop_table(world->lake, sim_world_name(c), &world->error);
    sim_model_add(&world->models[c], &step, open_outcome(world->last));
    return world->last;
}

vex_status sim_world_put(sim_world *world, uint32_t c, const uint32_t *ids, size_t count) {
    sim_model *model = &world->models[c];
    sim_step step = {.kind = SIM_ROWS, .count = count};
    sim_row made[SIM_CHANGES_MAX];
    vexi_row rows[SIM_CHANGES_MAX];
    CHECK(count <= SIM_CHANGES_MAX);
    for (size_t i = 0; i < count; i++) {
        step.changes[i] = (sim_change){.id = ids[i], .version = model->next_version++};
        sim_row_init(&made[i], world->schema.dimension, ids[i], step.changes[i].version);
        rows[i] = made[i].row;
    }
    vexi_table *table;
    world->last = vexi_lake_table(world->lake, sim_world_name(c), &table, &world->error);
    if (world->last == VEX_OK) {
        world->last = vexi_table_put(table, rows, count, &world->error);
        vexi_table_release(table);
    }
    for (size_t i = 0; i < count; i++) {
        sim_row_deinit(&made[i]);
    }
    sim_model_add(model, &step, world->last);
    return world->last;
}

vex_status sim_world_delete(sim_world *world, uint32_t c, const uint32_t *ids, size_t count) {
    sim_model *model = &world->models[c];
    sim_step step = {.kind = SIM_ROWS, .count = count};
    char texts[SIM_CHANGES_MAX][24];
    vex_string names[SIM_CHANGES_MAX];
    uint8_t existed[SIM_CHANGES_MAX];
    CHECK(count <= SIM_CHANGES_MAX);
    for (size_t i = 0; i < count; i++) {
        step.changes[i] = (sim_change){.id = ids[i]};
        names[i] = sim_id(ids[i], texts[i]);
    }
    vexi_table *table;
    world->last = vexi_lake_table(world->lake, sim_world_name(c), &table, &world->error);
    if (world->last == VEX_OK) {
        world->last = vexi_table_delete(table, names, count, existed, &world->error);
        vexi_table_release(table);
        step.absent_too = memchr(existed, 1, count) == NULL;
        sim_state state = sim_model_newest(model);
        for (size_t i = 0; i < count && world->last == VEX_OK && model->unknown_count == 0; i++) {
            CHECK_EQ(existed[i], state.version[ids[i]] != 0);
            state.version[ids[i]] = 0;
        }
    }
    sim_model_add(model, &step, world->last);
    return world->last;
}

vex_status sim_world_flush(sim_world *world, uint32_t c) {
    vexi_table *table;
    world->last = vexi_lake_table(world->lake, sim_world_name(c), &table, &world->error);
    if (world->last == VEX_OK) {
        world->last = vexi_table_flush(table, &world->error);
        vexi_table_release(table);
    }
    return world->last;
}

static sim_step step_of(const sim_change *rows, size_t count) {
    sim_step step = {.kind = SIM_ROWS, .count = count};
    CHECK(count <= SIM_CHANGES_MAX);
    memcpy(step.changes, rows, count * sizeof *rows);
    return step;
}

vex_status sim_world_import(sim_world *world, uint32_t c, const char *path, const sim_change *rows,
                            size_t count) {
    sim_step step = step_of(rows, count);
    vex_import_options options = {
        .size = sizeof options, .metric = world->schema.metric, .index = world->schema.index};
    uint64_t row_count;
    vexi_table *table = NULL;
    bool existed = vexi_lake_table(world->lake, sim_world_name(c), &table, &world->error) == VEX_OK;
    vexi_table_release(table);
    world->last = vexi_lake_import(world->lake, sim_world_name(c), &path, 1, &options, &row_count,
                                   &world->error);
    CHECK(world->last != VEX_OK || row_count == count);
    if (!existed) { /* an import makes the collection that it needs; an empty one may be left */
        sim_step create = {.kind = SIM_CREATE};
        sim_model_add(&world->models[c], &create,
                      world->last == VEX_OK ? VEX_OK : VEX_UNKNOWN_OUTCOME);
    }
    sim_model_add(&world->models[c], &step, world->last);
    return world->last;
}

vex_status sim_world_foreign(sim_world *world, uint32_t c, const uint32_t *ids, size_t count) {
    sim_model *model = &world->models[c];
    sim_change rows[SIM_CHANGES_MAX];
    for (size_t i = 0; i < count; i++) {
        rows[i] = (sim_change){.id = ids[i], .version = model->next_version++};
    }
    sim_step step = step_of(rows, count);
    vexi_store *store;
    world->last = vexi_store_file_create(sim_env_of(world->sim), world->kill, "/lake", false,
                                         &store, &world->error);
    if (world->last == VEX_OK) {
        sim_foreign foreign = {
            .env = sim_env_of(world->sim), .store = store, .folder = sim_world_name(c).data};
        world->last =
            sim_foreign_append(&foreign, &world->schema, rows, count, NULL, &world->error);
        vexi_store_destroy(store);
    }
    sim_model_add(model, &step, world->last == VEX_OK ? VEX_OK : VEX_UNKNOWN_OUTCOME);
    return world->last;
}

vex_status sim_world_answer(const sim_world *world, vex_status status, vex_error *err) {
    *err = world->error;
    return status;
}

void sim_world_check(sim_world *world, bool settle, bool may_fail, const char *when) {
    for (uint32_t c = 0; c < SIM_COLLECTIONS; c++) {
        sim_state seen;
        vex_error error;
        vex_status status = sim_observe(world->lake, sim_world_name(c), &seen, &error);
        if (status != VEX_OK && may_fail) {
            continue;
        }
        if (status != VEX_OK) {
            fprintf(stderr, "%s: cannot read: %s: %s\n", when, vex_status_text(status),
                    error.message);
            exit(1);
        }
        sim_model_check(&world->models[c], &seen, settle, when);
    }
}

void sim_write_import(const char *path, const vexi_schema *schema, const sim_change *rows,
                      size_t count) {
    sim_row made[SIM_CHANGES_MAX];
    const vexi_row *pointers[SIM_CHANGES_MAX];
    CHECK(count <= SIM_CHANGES_MAX);
    for (size_t i = 0; i < count; i++) {
        sim_row_init(&made[i], schema->dimension, rows[i].id, rows[i].version);
        pointers[i] = &made[i].row;
    }
    vexi_arena arena;
    vexi_buffer bytes;
    vexi_segment_layout layout;
    vexi_arena_init(&arena, vex_test_env());
    vexi_buffer_init(&bytes, vex_test_env(), 64 << 20);
    CHECK_OK(
        vexi_segment_write(vex_test_env(), schema, pointers, count, &bytes, &arena, &layout, &err));
    FILE *file = fopen(path, "wb");
    CHECK(file != NULL && fwrite(bytes.data, 1, bytes.size, file) == bytes.size);
    CHECK(fclose(file) == 0);
    vexi_buffer_deinit(&bytes);
    vexi_arena_deinit(&arena);
    for (size_t i = 0; i < count; i++) {
        sim_row_deinit(&made[i]);
    }
}
