/* Worker threads for whatever may block, so that the event loop never does.
 *
 * Lanes with threads of their own keep short work from waiting behind long work: searches, other
 * reads (gets that need storage, descriptions), writes (which wait for the disk), and long jobs
 * (import, flush). Threads are started when there is work for them. */
#ifndef VEXI_SERVER_POOL_H
#define VEXI_SERVER_POOL_H

#include <uv.h>

#include "base/env.h"

typedef enum vexi_lane {
    VEXI_LANE_SEARCH = 0,
    VEXI_LANE_READ = 1,
    VEXI_LANE_WRITE = 2,
    VEXI_LANE_LONG = 3,
    VEXI_LANE_COUNT = 4
} vexi_lane;

typedef struct vexi_job vexi_job;

/* Embedded in its owner, which keeps it alive until `done` was called. */
struct vexi_job {
    void (*run)(vexi_job *job);  /* on a worker thread */
    void (*done)(vexi_job *job); /* on the loop thread, afterwards */
    vexi_job *next;              /* the pool's */
};

typedef struct vexi_pool vexi_pool;

/* thread_max[lane] threads at most. `loop` is borrowed until vexi_pool_destroy. */
vex_status vexi_pool_create(const vexi_env *env, uv_loop_t *loop,
                            const uint32_t thread_max[VEXI_LANE_COUNT], vexi_pool **out,
                            vex_error *err);
/* Queue a job. From the loop thread. If no thread can be started at all the job runs here. */
void vexi_pool_submit(vexi_pool *pool, vexi_lane lane, vexi_job *job);
/* Jobs submitted whose `done` was not yet called. From the loop thread. */
size_t vexi_pool_pending(const vexi_pool *pool);
/* Stop watching for finished jobs, so that the loop may end; call when none is pending. */
void vexi_pool_close(vexi_pool *pool);
/* End the threads, which finish what they run. After vexi_pool_close and the loop's end. */
void vexi_pool_destroy(vexi_pool *pool);

#endif
