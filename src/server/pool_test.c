/* Jobs of all lanes: each runs once on a worker and is reported once on the loop. */
#include "server/pool.h"

#include <stdatomic.h>

#include "check.h"

#define JOBS 2000

typedef struct counted_job {
    vexi_job job;
    vexi_pool *pool;
    vexi_lane lane;
    int *left; /* the loop's */
    _Atomic int *ran;
    int rounds; /* the loop's */
} counted_job;

static void run(vexi_job *job) {
    counted_job *counted = (counted_job *)job;
    atomic_fetch_add(counted->ran, 1);
    if (counted->lane == VEXI_LANE_LONG) {
        uv_sleep(1);
    }
}

/* On the loop: some jobs go round again, the last one ends the loop. */
static void done(vexi_job *job) {
    counted_job *counted = (counted_job *)job;
    if (counted->rounds-- > 0) {
        vexi_pool_submit(counted->pool, counted->lane, job);
        return;
    }
    if (--*counted->left == 0) {
        CHECK_EQ(vexi_pool_pending(counted->pool), 0);
        vexi_pool_close(counted->pool);
    }
}

TEST(every_job_runs_and_is_reported) {
    uv_loop_t loop;
    CHECK(uv_loop_init(&loop) == 0);
    static const uint32_t threads[VEXI_LANE_COUNT] = {4, 4, 3, 2};
    vexi_pool *pool;
    CHECK_OK(vexi_pool_create(vex_test_env(), &loop, threads, &pool, &err));
    static counted_job jobs[JOBS];
    _Atomic int ran = 0;
    int left = JOBS;
    int expected = 0;
    for (int i = 0; i < JOBS; i++) {
        vexi_lane lane = i % 50 == 0  ? VEXI_LANE_LONG
                         : i % 3 == 0 ? VEXI_LANE_WRITE
                                      : VEXI_LANE_READ;
        jobs[i] = (counted_job){.job = {.run = run, .done = done},
                                .pool = pool,
                                .lane = lane,
                                .left = &left,
                                .ran = &ran,
                                .rounds = i % 4};
        expected += 1 + i % 4;
        vexi_pool_submit(pool, lane, &jobs[i].job);
    }
    CHECK_EQ(vexi_pool_pending(pool), JOBS);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_EQ(ran, expected);
    CHECK_EQ(left, 0);
    vexi_pool_destroy(pool);
    CHECK(uv_loop_close(&loop) == 0);
}

typedef struct gate_job {
    vexi_job job;
    uv_sem_t *gate;
    bool finished; /* the loop's */
} gate_job;

static void wait_at_gate(vexi_job *job) {
    uv_sem_wait(((gate_job *)job)->gate);
}

static void finish(vexi_job *job) {
    ((gate_job *)job)->finished = true;
}

/* A lane whose threads are all held up does not hold up another. */
TEST(lanes_do_not_wait_for_each_other) {
    uv_loop_t loop;
    CHECK(uv_loop_init(&loop) == 0);
    static const uint32_t threads[VEXI_LANE_COUNT] = {1, 1, 1, 1};
    vexi_pool *pool;
    CHECK_OK(vexi_pool_create(vex_test_env(), &loop, threads, &pool, &err));
    uv_sem_t gate;
    CHECK(uv_sem_init(&gate, 0) == 0);
    gate_job held[2];
    for (int i = 0; i < 2; i++) {
        held[i] = (gate_job){.job = {.run = wait_at_gate, .done = finish}, .gate = &gate};
        vexi_pool_submit(pool, VEXI_LANE_READ, &held[i].job);
    }
    uv_sem_t open;
    CHECK(uv_sem_init(&open, 1) == 0);
    gate_job other = {.job = {.run = wait_at_gate, .done = finish}, .gate = &open};
    vexi_pool_submit(pool, VEXI_LANE_WRITE, &other.job);
    while (!other.finished) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    CHECK(!held[0].finished && !held[1].finished);
    uv_sem_post(&gate);
    uv_sem_post(&gate);
    while (vexi_pool_pending(pool) > 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    CHECK(held[0].finished && held[1].finished);
    vexi_pool_close(pool);
    uv_run(&loop, UV_RUN_DEFAULT);
    vexi_pool_destroy(pool);
    uv_sem_destroy(&open);
    uv_sem_destroy(&gate);
    CHECK(uv_loop_close(&loop) == 0);
}

TEST_MAIN(RUN(every_job_runs_and_is_reported); RUN(lanes_do_not_wait_for_each_other))
