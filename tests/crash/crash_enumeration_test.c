/* A fixed workload, and the power fails at every step of it.
 *
 * The workload crosses every path of writing: batches, overwrites, deletes, flushes, two
 * collections in one log, log files that fill up after a few records, dropping and creating anew,
 * an import, another engine's commits in between, closing and opening. It runs on one thread over
 * the simulated disk, so a step (write, sync, rename, link, unlink, making a folder) means the same
 * in every run, up to the one where the disk stops. Then power comes back, with what was not synced
 * lost, kept or torn by a seed, and the lake is opened again: every acknowledged write is there
 * byte for byte, every other one wholly or not at all, refused ones never, deleted rows stay away.
 * The lake is then written to, flushed, closed and opened once more.
 *
 * The same with one step that fails (input/output error, full disk) while the engine goes on: its
 * answers must be true, and once the fault is gone it works. */
#include <unistd.h>

#include "check.h"
#include "sim/sim_world.h"

static const uint32_t ids[24] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23};

static char import_path[] = "/tmp/vexlake-crash-XXXXXX";
static const sim_change import_rows[4] = {{10, 9000}, {3, 9001}, {11, 9002}, {2, 9003}};

static bool crashed(const sim_world *world) {
    return vexi_disk_sim_crashed(world->disk) || sim_kill_dead(world->kill);
}

/* The workload, step by step; false at the end. Calls may fail: the models know. */
static bool workload_step(sim_world *world, int step) {
    switch (step) {
    case 0:
        return (void)sim_world_create(world, 0), true;
    case 1:
        return (void)sim_world_put(world, 0, ids, 6), true;
    case 2:
        return (void)sim_world_put(world, 0, ids, 2), true;
    case 3:
        return (void)sim_world_flush(world, 0), true;
    case 4:
        return (void)sim_world_delete(world, 0, ids + 1, 2), true;
    case 5:
        return (void)sim_world_put(world, 0, ids + 6, 1), true;
    case 6:
        return (void)sim_world_create(world, 1), true;
    case 7:
        return (void)sim_world_put(world, 1, ids, 3), true;
    case 8:
        return (void)sim_world_flush(world, 0), true;
    case 9:
        return (void)sim_world_put(world, 0, ids + 3, 6), true;
    case 10: /* the age of its rows makes the flush */
        sim_env_advance(world->sim, 1500);
        return true;
    case 11:
        return (void)sim_world_flush(world, 0), true;
    case 12:
        if (world->last == VEX_OK) { /* else a row of the memtable would rightly win */
            (void)sim_world_foreign(world, 0, ids + 1, 3);
        }
        return true;
    case 13:
        return (void)sim_world_put(world, 0, ids + 8, 2), true;
    case 14: /* until the other engine's rows are seen */
        while (sim_world_flush(world, 0) != VEX_OK && !crashed(world) &&
               world->last != VEX_NOT_FOUND) {
        }
        return true;
    case 15:
        return (void)sim_world_import(world, 0, import_path, import_rows, 4), true;
    case 16:
        return (void)sim_world_delete(world, 0, ids + 2, 2), true;
    case 17: /* closed in order, with rows in the log */
        (void)sim_world_close(world);
        return true;
    case 18:
        return (void)sim_world_open(world), true;
    case 19:
        return (void)sim_world_put(world, 1, ids + 2, 4), true;
    case 20:
        return (void)sim_world_drop(world, 0), true;
    case 21:
        return (void)sim_world_put(world, 1, ids + 10, 1), true;
    case 22:
        return (void)sim_world_create(world, 0), true;
    case 23:
        return (void)sim_world_put(world, 0, ids + 4, 3), true;
    case 24:
        return (void)sim_world_flush(world, 1), true;
    case 25:
        return (void)sim_world_delete(world, 1, ids, 12), true;
    case 26:
        return (void)sim_world_put(world, 0, ids + 5, 1), true;
    case 27:
        return (void)sim_world_flush(world, 0), true;
    default:
        return false;
    }
}

/* Run it until the disk stops or the end. */
static void workload(sim_world *world) {
    for (int step = 0; !crashed(world); step++) {
        if (world->lake == NULL && step != 18) {
            (void)sim_world_open(world); /* failed before: a fault passes */
            if (world->lake == NULL) {
                step--;
                continue;
            }
        }
        if (!workload_step(world, step)) {
            break;
        }
    }
}

/* The lake is open: what it holds is right, and stays right while it works. */
static void go_on(sim_world *world, const char *when) {
    sim_world_check(world, true, false, when);
    for (uint32_t c = 0; c < SIM_COLLECTIONS; c++) {
        if (!sim_model_newest(&world->models[c]).exists) {
            CHECK_OK(sim_world_answer(world, sim_world_create(world, c), &err));
        }
        CHECK_OK(sim_world_answer(world, sim_world_put(world, c, ids + 7, 3), &err));
        CHECK_OK(sim_world_answer(world, sim_world_delete(world, c, ids + 4, 4), &err));
    }
    CHECK_OK(sim_world_answer(world, sim_world_flush(world, 0), &err));
    CHECK_OK(sim_world_answer(world, sim_world_put(world, 0, ids + 1, 1), &err));
    sim_world_check(world, false, false, when);
    CHECK_OK(sim_world_answer(world, sim_world_close(world), &err));
    CHECK_OK(sim_world_answer(world, sim_world_open(world), &err));
    sim_world_check(world, true, false, when);
}

static uint64_t world_begin(sim_world *world, uint64_t crash_step) {
    sim_world_init(world, 77, 4, VEX_METRIC_L2);
    vexi_disk_sim_crash_at(world->disk, crash_step);
    if (sim_world_open(world) != VEX_OK) {
        CHECK(crashed(world));
    }
    return crash_step;
}

/* Power comes back, by this seed. */
static void power(sim_world *world, uint64_t seed) {
    if (world->lake != NULL) {
        (void)sim_world_close(world);
    }
    vexi_disk_sim_restart(world->disk, seed);
}

static uint64_t count_steps(void) {
    sim_world world;
    world_begin(&world, 0);
    workload(&world);
    CHECK(!crashed(&world));
    uint64_t steps = vexi_disk_sim_steps(world.disk);
    go_on(&world, "no crash");
    sim_world_deinit(&world);
    return steps;
}

TEST(crash_at_every_step) {
    uint64_t seed = vex_test_seed(20260728);
    uint64_t steps = count_steps();
    uint64_t seeds = vex_test_effort(3);
    uint64_t points = 0;
    for (uint64_t step = 1; step <= steps; step++) {
        for (uint64_t s = 0; s < seeds; s++) {
            sim_world world;
            char when[96];
            snprintf(when, sizeof when, "crash at step %llu, seed %llu", (unsigned long long)step,
                     (unsigned long long)(seed + s));
            world_begin(&world, step);
            workload(&world);
            CHECK(crashed(&world));
            power(&world, seed + s);
            CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
            go_on(&world, when);
            sim_world_deinit(&world);
            points++;
        }
    }
    printf("    %llu steps, %llu crashes\n", (unsigned long long)steps, (unsigned long long)points);
}

/* A crash in the recovery from a crash, at a random step of it or of the work after it. */
TEST(crash_again_while_recovering) {
    uint64_t seed = vex_test_seed(99);
    uint64_t steps = count_steps();
    uint64_t trials = vex_test_effort(150);
    for (uint64_t t = 0; t < trials; t++) {
        sim_world world;
        uint64_t state = seed + t;
        char when[96];
        snprintf(when, sizeof when, "second crash, trial %llu of seed %llu", (unsigned long long)t,
                 (unsigned long long)seed);
        world_begin(&world, 1 + vex_test_below(&state, steps));
        workload(&world);
        for (int again = 0; again < 3; again++) {
            power(&world, vex_test_random(&state));
            vexi_disk_sim_crash_at(world.disk, 1 + vex_test_below(&state, 24));
            if (sim_world_open(&world) == VEX_OK) {
                sim_world_check(&world, !crashed(&world), crashed(&world), when);
                for (uint32_t c = 0; c < SIM_COLLECTIONS; c++) {
                    (void)sim_world_put(&world, c, ids + again, 2);
                    (void)sim_world_flush(&world, c);
                }
            } else {
                CHECK(crashed(&world));
            }
        }
        power(&world, vex_test_random(&state));
        CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
        go_on(&world, when);
        sim_world_deinit(&world);
    }
}

/* The process is killed at a step, and another one opens the lake. What that one shows, rows of
 * unfinished writes included, it may not lose when the power fails next. */
TEST(kill_at_every_step_then_power_failure) {
    uint64_t seed = vex_test_seed(4711);
    uint64_t steps = count_steps();
    for (uint64_t step = 1; step <= steps; step++) {
        sim_world world;
        char when[96];
        snprintf(when, sizeof when, "kill at step %llu", (unsigned long long)step);
        sim_world_init(&world, 77, 4, VEX_METRIC_L2);
        sim_kill_at(world.kill, step);
        (void)sim_world_open(&world);
        workload(&world);
        CHECK(sim_kill_dead(world.kill));
        if (world.lake != NULL) {
            (void)sim_world_close(&world);
        }
        sim_kill_at(world.kill, 0);
        CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
        sim_world_check(&world, true, false, when);
        snprintf(when, sizeof when, "kill at step %llu, then a power failure",
                 (unsigned long long)step);
        power(&world, seed + step);
        CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
        go_on(&world, when);
        sim_world_deinit(&world);
    }
    printf("    %llu kills\n", (unsigned long long)steps);
}

static uint64_t fail_every_step(vex_status status) {
    uint64_t steps = count_steps();
    for (uint64_t step = 1; step <= steps; step++) {
        sim_world world;
        char when[96];
        snprintf(when, sizeof when, "%s at step %llu", vex_status_text(status),
                 (unsigned long long)step);
        sim_world_init(&world, 77, 4, VEX_METRIC_L2);
        vexi_disk_sim_fail_at(world.disk, step, status);
        (void)sim_world_open(&world); /* workload() tries again */
        workload(&world);
        if (world.lake == NULL) {
            CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
        }
        sim_world_check(&world, false, false, when);
        /* Whatever is unknown is settled by a restart, half of them with a power failure. */
        if (step % 2 == 0) {
            power(&world, step);
        } else {
            CHECK_OK(sim_world_answer(&world, sim_world_close(&world), &err));
        }
        CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
        go_on(&world, when);
        sim_world_deinit(&world);
    }
    return steps;
}

TEST(io_error_at_every_step) {
    printf("    %llu faults\n", (unsigned long long)fail_every_step(VEX_IO));
}

TEST(full_disk_at_every_step) {
    printf("    %llu faults\n", (unsigned long long)fail_every_step(VEX_FULL));
}

/* A disk that fails for a while: several steps in a row do not happen, then all is well again, and
 * at the end the power fails. */
TEST(errors_in_a_row_at_every_step_then_power_failure) {
    uint64_t seed = vex_test_seed(31);
    uint64_t steps = count_steps();
    uint64_t faults = 0;
    for (uint64_t step = 1; step <= steps; step++) {
        for (uint64_t count = 2; count <= 5; count += 1 + (step + count) % 3) {
            sim_world world;
            char when[96];
            snprintf(when, sizeof when, "%llu errors at step %llu", (unsigned long long)count,
                     (unsigned long long)step);
            sim_world_init(&world, 77, 4, VEX_METRIC_L2);
            sim_kill_fail(world.kill, step, count);
            while (world.lake == NULL) {
                (void)sim_world_open(&world);
            }
            workload(&world);
            sim_world_check(&world, false, false, when);
            sim_kill_fail(world.kill, 1, 0);
            power(&world, seed + step);
            CHECK_OK(sim_world_answer(&world, sim_world_open(&world), &err));
            go_on(&world, when);
            sim_world_deinit(&world);
            faults++;
        }
    }
    printf("    %llu faults\n", (unsigned long long)faults);
}

int main(void) {
    int file = mkstemp(import_path);
    CHECK(file >= 0);
    CHECK(close(file) == 0);
    vexi_schema schema = sim_schema(4, VEX_METRIC_L2, VEX_INDEX_IVF);
    sim_write_import(import_path, &schema, import_rows, 4);
    RUN(crash_at_every_step);
    RUN(crash_again_while_recovering);
    RUN(kill_at_every_step_then_power_failure);
    RUN(io_error_at_every_step);
    RUN(full_disk_at_every_step);
    RUN(errors_in_a_row_at_every_step_then_power_failure);
    CHECK(unlink(import_path) == 0);
    return 0;
}
