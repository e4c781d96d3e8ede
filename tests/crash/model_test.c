/* Random work on a lake against a model in memory.
 *
 * Each trial is a world of its own, from a seed: puts, deletes, gets, searches, flushes, imports,
 * another engine's appends, collections dropped and made anew, and the lake closed, killed or
 * struck by a power failure and opened again. Views are held across all of it and must keep showing
 * their own state. Exact searches are compared with brute force. The same over a store whose calls
 * fail, whose answers get lost and whose disk is full now and then. */
#include <math.h>
#include <unistd.h>

#include "check.h"
#include "query/query.h"
#include "sim/sim_world.h"

enum { HELD_MAX = 4, SETTLE_AT = 6 };

typedef struct held_view {
    vexi_view *view;
    sim_state state;
} held_view;

typedef struct trial {
    sim_world world;
    uint64_t random;
    uint32_t ids; /* that are used: few make many overwrites */
    bool faults;
    held_view held[HELD_MAX];
    size_t held_count;
    char when[96];
    uint64_t calls;
    uint64_t refused;
    uint64_t unknown;
    uint64_t searches;
    uint64_t restarts;
} trial;

static char import_path[] = "/tmp/vexlake-model-XXXXXX";

static uint32_t below(trial *t, uint32_t bound) {
    return (uint32_t)vex_test_below(&t->random, bound);
}

/* Different ids, for one call. */
static size_t pick_ids(trial *t, uint32_t ids[SIM_CHANGES_MAX], uint32_t most) {
    size_t count = 1 + below(t, most);
    for (size_t i = 0; i < count; i++) {
        ids[i] = below(t, t->ids);
        for (size_t j = 0; j < i; j++) {
            if (ids[j] == ids[i]) {
                count--;
                i--;
                break;
            }
        }
    }
    return count;
}

static void note(trial *t) {
    vex_status status = t->world.last;
    t->calls++;
    t->unknown += status == VEX_UNKNOWN_OUTCOME ? 1 : 0;
    t->refused += status != VEX_OK && status != VEX_UNKNOWN_OUTCOME ? 1 : 0;
    if (!t->faults && status != VEX_OK && status != VEX_NOT_FOUND && status != VEX_EXISTS) {
        fprintf(stderr, "%s: %s: %s\n", t->when, vex_status_text(status), t->world.error.message);
        exit(1);
    }
}

/* ---- Views ----------------------------------------------------------------------------------- */

static void held_check(trial *t, size_t i) {
    sim_state seen;
    vex_error error;
    vex_status status = sim_observe_view(t->held[i].view, &seen, &error);
    CHECK(status == VEX_OK || t->faults);
    CHECK(status != VEX_OK || memcmp(&seen, &t->held[i].state, sizeof seen) == 0);
}

static void held_release(trial *t, size_t i) {
    held_check(t, i);
    vexi_view_release(t->held[i].view);
    t->held[i] = t->held[--t->held_count];
}

static void held_add(trial *t, uint32_t c) {
    vexi_table *table;
    vex_error error;
    if (t->held_count == HELD_MAX ||
        vexi_lake_table(t->world.lake, sim_world_name(c), &table, &error) != VEX_OK) {
        return;
    }
    held_view *held = &t->held[t->held_count];
    vex_status status = vexi_table_view(table, &held->view, &error);
    vexi_table_release(table);
    CHECK(status == VEX_OK || t->faults);
    if (status == VEX_OK) {
        if (sim_observe_view(held->view, &held->state, &error) == VEX_OK) {
            sim_model_check(&t->world.models[c], &held->state, false, t->when);
            t->held_count++;
        } else {
            CHECK(t->faults);
            vexi_view_release(held->view);
        }
    }
}

/* ---- Searching ------------------------------------------------------------------------------- */

static double distance_of(vex_metric metric, const float *a, const float *b, uint32_t dimension) {
    double dot = 0, square = 0, norm_a = 0, norm_b = 0;
    for (uint32_t i = 0; i < dimension; i++) {
        dot += (double)a[i] * (double)b[i];
        square += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm_a += (double)a[i] * (double)a[i];
        norm_b += (double)b[i] * (double)b[i];
    }
    if (metric == VEX_METRIC_L2) {
        return square;
    }
    return metric == VEX_METRIC_IP ? -dot : 1 - dot / sqrt(norm_a * norm_b);
}

static void nobody(vexi_keeper *keeper) {
    (void)keeper;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Distances of all rows of a state, ascending. */
static size_t brute_force(const trial *t, const sim_state *state, const float *query,
                          double out[SIM_IDS]) {
    size_t count = 0;
    for (uint32_t id = 0; id < SIM_IDS; id++) {
        if (state->version[id] != 0) {
            sim_row row;
            sim_row_init(&row, t->world.schema.dimension, id, state->version[id]);
            out[count++] =
                distance_of(t->world.schema.metric, query, row.vector, t->world.schema.dimension);
            sim_row_deinit(&row);
        }
    }
    qsort(out, count, sizeof *out, by_value);
    return count;
}

static void check_result(const trial *t, const struct ArrowArray *batch, const sim_state *state,
                         const float *query, uint32_t k) {
    double expected[SIM_IDS];
    size_t count = brute_force(t, state, query, expected);
    count = count < k ? count : k;
    CHECK_EQ(batch->length, count);
    const int32_t *offsets = batch->children[1]->buffers[1];
    const char *text = batch->children[1]->buffers[2];
    const double *distances = batch->children[2]->buffers[1];
    bool seen[SIM_IDS] = {false};
    for (size_t i = 0; i < count; i++) {
        CHECK(offsets[i + 1] - offsets[i] == 4 && text[offsets[i]] == 'k');
        uint32_t id = (uint32_t)strtoul(
            (char[4]){text[offsets[i] + 1], text[offsets[i] + 2], text[offsets[i] + 3], '\0'}, NULL,
            10);
        CHECK(id < SIM_IDS && state->version[id] != 0 && !seen[id]);
        seen[id] = true;
        sim_row row;
        sim_row_init(&row, t->world.schema.dimension, id, state->version[id]);
        double own =
            distance_of(t->world.schema.metric, query, row.vector, t->world.schema.dimension);
        sim_row_deinit(&row);
        CHECK(fabs(distances[i] - own) <= 1e-4 * (1 + fabs(own)));
        CHECK(fabs(distances[i] - expected[i]) <= 1e-4 * (1 + fabs(expected[i])));
    }
}

static void search(trial *t, uint32_t c) {
    sim_model *model = &t->world.models[c];
    if (model->unknown_count > 0 || !sim_model_newest(model).exists) {
        return;
    }
    sim_state state = sim_model_newest(model);
    float query[SIM_DIMENSION_MAX];
    for (uint32_t i = 0; i < t->world.schema.dimension; i++) {
        query[i] = vex_test_normal(&t->random);
    }
    vexi_search_request request = {
        .queries = query, .query_count = 1, .k = 1 + below(t, 20), .exact = true};
    vexi_keeper keeper = {.env = sim_env_of(t->world.sim), .references = 1, .destroy = nobody};
    vexi_table *table;
    vexi_view *view = NULL;
    vex_error error;
    CHECK_OK(vexi_lake_table(t->world.lake, sim_world_name(c), &table, &err));
    vex_status status = vexi_table_view(table, &view, &error);
    if (status == VEX_OK) {
        struct ArrowArray batch;
        status = vexi_search(&keeper, view, &request, NULL, &batch, NULL, &error);
        if (status == VEX_OK) {
            check_result(t, &batch, &state, query, request.k);
            batch.release(&batch);
            t->searches++;
        }
    }
    CHECK(status == VEX_OK || t->faults);
    vexi_view_release(view);
    vexi_table_release(table);
    vexi_keeper_release(&keeper);
}

/* ---- Trials ---------------------------------------------------------------------------------- */

static void open_again(trial *t) {
    sim_world *world = &t->world;
    t->restarts++;
    /* With faults the first tries may fail, and must leave nothing wrong behind. */
    for (int i = 0; t->faults && i < 3 && world->lake == NULL; i++) {
        world->faults = true;
        (void)sim_world_open(world);
    }
    if (world->lake == NULL) {
        vexi_fault_plan plan = world->plan;
        world->plan = (vexi_fault_plan){.seed = plan.seed};
        CHECK_OK(sim_world_answer(world, sim_world_open(world), &err));
        world->plan = plan;
    }
    if (t->faults) { /* look with an honest store */
        vexi_fault_plan none = {.seed = 1};
        vexi_store_fault_set(world->store, &none);
        for (uint32_t c = 0; c < SIM_COLLECTIONS; c++) {
            (void)sim_world_flush(world, c); /* segments that could not be read are tried again */
            if (world->last != VEX_NOT_FOUND) {
                CHECK_OK(sim_world_answer(world, world->last, &err));
            }
        }
    }
    sim_world_check(world, true, false, t->when);
    if (t->faults) {
        world->plan.seed++;
        vexi_store_fault_set(world->store, &world->plan);
    }
}

static void restart(trial *t) {
    /* With interval durability a power failure may take acknowledged writes, a kill may not. */
    bool interval = t->world.config.durability == VEX_DURABILITY_INTERVAL;
    uint32_t how = below(t, interval ? 2 : 3);
    if (how == 0) {
        (void)sim_world_close(&t->world);
    } else {
        /* A power failure takes the mappings of views along in this simulation. */
        while (how == 2 && t->held_count > 0) {
            held_release(t, 0);
        }
        sim_world_kill(&t->world, how == 2, vex_test_random(&t->random));
    }
    open_again(t);
}

static void import(trial *t, uint32_t c) {
    uint32_t ids[SIM_CHANGES_MAX];
    sim_change rows[SIM_CHANGES_MAX];
    size_t count = pick_ids(t, ids, 20);
    for (size_t i = 0; i < count; i++) {
        rows[i] = (sim_change){.id = ids[i], .version = t->world.models[c].next_version++};
    }
    sim_write_import(import_path, &t->world.schema, rows, count);
    (void)sim_world_import(&t->world, c, import_path, rows, count);
    note(t);
}

static void call(trial *t) {
    sim_world *world = &t->world;
    uint32_t c = below(t, 8) == 0 ? 1 : 0;
    uint32_t ids[SIM_CHANGES_MAX];
    if (world->models[c].unknown_count >= SETTLE_AT) {
        restart(t);
        return;
    }
    if (!sim_model_newest(&world->models[c]).exists && world->models[c].unknown_count == 0) {
        (void)sim_world_create(world, c);
        note(t);
        return;
    }
    switch (below(t, 32)) {
    case 0:
    case 1:
    case 2:
        (void)sim_world_flush(world, c);
        note(t);
        break;
    case 3:
        sim_env_advance(world->sim, below(t, 700));
        break;
    case 4:
    case 5:
        held_add(t, c);
        break;
    case 6:
        if (t->held_count > 0) {
            held_release(t, below(t, (uint32_t)t->held_count));
        }
        break;
    case 7:
        restart(t);
        break;
    case 8:
    case 9:
    case 10:
        search(t, c);
        break;
    case 11:
        if (below(t, 4) == 0) {
            (void)sim_world_drop(world, c);
            note(t);
        }
        break;
    case 12:
        import(t, c);
        break;
    case 13:
        /* Rows of the memtable would win over the foreign ones: flush before. */
        if (world->models[c].unknown_count == 0 && sim_world_flush(world, c) == VEX_OK) {
            CHECK_OK(sim_world_answer(world, sim_world_foreign(world, c, ids, pick_ids(t, ids, 6)),
                                      &err));
            while (sim_world_flush(world, c) != VEX_OK) {
                note(t); /* seen after the next refresh that works */
            }
        }
        break;
    case 14:
        sim_world_check(world, false, t->faults, t->when);
        break;
    case 15:
    case 16:
    case 17:
    case 18:
    case 19: {
        size_t count = pick_ids(t, ids, 4);
        (void)sim_world_delete(world, c, ids, count);
        note(t);
        break;
    }
    default: {
        size_t count = pick_ids(t, ids, 8);
        (void)sim_world_put(world, c, ids, count);
        note(t);
        break;
    }
    }
}

static void run(uint64_t seed, uint32_t calls, const vexi_fault_plan *plan, trial *total) {
    trial t = {.random = seed, .faults = plan != NULL};
    snprintf(t.when, sizeof t.when, "trial of seed %llu", (unsigned long long)seed);
    t.ids = below(&t, 2) == 0 ? 12 : SIM_IDS;
    sim_world_init(&t.world, seed, 1 + below(&t, SIM_DIMENSION_MAX), (vex_metric)below(&t, 3));
    t.world.config.flush_size_bytes = 2000 + below(&t, 60000);
    t.world.config.log_size_bytes = 500 + below(&t, 20000);
    t.world.config.segment_size_bytes = 200 + below(&t, 2000);
    bool interval = plan == NULL && below(&t, 4) == 0;
    t.world.config.durability = interval ? VEX_DURABILITY_INTERVAL : VEX_DURABILITY_ALWAYS;
    if (plan != NULL) {
        t.world.plan = *plan;
        t.world.plan.seed = seed;
        t.world.faults = true;
    }
    open_again(&t);
    for (uint32_t i = 0; i < calls; i++) {
        call(&t);
    }
    while (t.held_count > 0) {
        held_release(&t, 0);
    }
    sim_world_kill(&t.world, !interval, seed);
    t.world.faults = false;
    CHECK_OK(sim_world_answer(&t.world, sim_world_open(&t.world), &err));
    sim_world_check(&t.world, true, false, t.when);
    sim_world_deinit(&t.world);
    total->calls += t.calls;
    total->refused += t.refused;
    total->unknown += t.unknown;
    total->searches += t.searches;
    total->restarts += t.restarts;
}

static void print_total(const trial *total) {
    printf(
        "    %llu writes (%llu refused, %llu of unknown outcome), %llu searches, %llu restarts\n",
        (unsigned long long)total->calls, (unsigned long long)total->refused,
        (unsigned long long)total->unknown, (unsigned long long)total->searches,
        (unsigned long long)total->restarts);
}

TEST(random_work_equals_the_model) {
    uint64_t seed = vex_test_seed(1);
    trial total = {.random = 0};
    for (uint64_t i = 0; i < vex_test_effort(50); i++) {
        run(seed + i, 200, NULL, &total);
    }
    CHECK_EQ(total.unknown, 0);
    print_total(&total);
}

TEST(random_work_over_a_failing_store) {
    uint64_t seed = vex_test_seed(1001);
    static const vexi_fault_plan plans[4] = {
        {.error_ppm = 20000, .lost_answer_ppm = 20000, .full_ppm = 10000, .sync_error_ppm = 20000},
        {.lost_answer_ppm = 300000},
        {.sync_error_ppm = 200000, .full_ppm = 20000},
        {.error_ppm = 100000},
    };
    trial total = {.random = 0};
    for (uint64_t i = 0; i < vex_test_effort(50); i++) {
        run(seed + i, 200, &plans[(seed + i) % 4], &total);
    }
    print_total(&total);
}

int main(void) {
    int file = mkstemp(import_path);
    CHECK(file >= 0);
    CHECK(close(file) == 0);
    RUN(random_work_equals_the_model);
    RUN(random_work_over_a_failing_store);
    CHECK(unlink(import_path) == 0);
    return 0;
}
