#include "server/pool.h"

#include <string.h>

#define THREADS_MAX 64u

typedef struct lane_state {
    vexi_pool *pool;                  /* immutable */
    uv_cond_t wake;                   /* with pool->mutex */
    vexi_job *first;                  /* pool->mutex */
    vexi_job *last;                   /* pool->mutex */
    uint32_t queued;                  /* pool->mutex */
    uint32_t idle;                    /* threads that wait; pool->mutex */
    uint32_t thread_max;              /* immutable */
    uint32_t thread_count;            /* the loop thread's */
    uv_thread_t threads[THREADS_MAX]; /* the loop thread's */
} lane_state;

struct vexi_pool {
    const vexi_env *env; /* immutable */
    uv_mutex_t mutex;
    uv_async_t async;        /* tells the loop that `finished` has jobs */
    vexi_job *finished;      /* newest last; mutex */
    vexi_job *finished_last; /* mutex */
    bool stopping;           /* mutex */
    size_t pending;          /* the loop thread's */
    lane_state lanes[VEXI_LANE_COUNT];
};

/* With the mutex. The loop is woken by the first job that it has not yet taken. */
static void add_finished(vexi_pool *pool, vexi_job *job) {
    job->next = NULL;
    if (pool->finished == NULL) {
        pool->finished = job;
        uv_async_send(&pool->async);
    } else {
        pool->finished_last->next = job;
    }
    pool->finished_last = job;
}

static void lane_main(void *argument) {
    lane_state *lane = argument;
    vexi_pool *pool = lane->pool;
    uv_mutex_lock(&pool->mutex);
    for (;;) {
        while (lane->first == NULL && !pool->stopping) {
            lane->idle++;
            uv_cond_wait(&lane->wake, &pool->mutex);
            lane->idle--;
        }
        vexi_job *job = lane->first;
        if (job == NULL) {
            break;
        }
        lane->first = job->next;
        if (lane->first == NULL) {
            lane->last = NULL;
        }
        lane->queued--;
        uv_mutex_unlock(&pool->mutex);
        job->run(job);
        uv_mutex_lock(&pool->mutex);
        add_finished(pool, job);
    }
    uv_mutex_unlock(&pool->mutex);
}

static void on_finished(uv_async_t *async) {
    vexi_pool *pool = async->data;
    uv_mutex_lock(&pool->mutex);
    vexi_job *job = pool->finished;
    pool->finished = NULL;
    pool->finished_last = NULL;
    uv_mutex_unlock(&pool->mutex);
    while (job != NULL) {
        vexi_job *next = job->next;
        pool->pending--;
        job->done(job);
        job = next;
    }
}

vex_status vexi_pool_create(const vexi_env *env, uv_loop_t *loop,
                            const uint32_t thread_max[VEXI_LANE_COUNT], vexi_pool **out,
                            vex_error *err) {
    *out = NULL;
    vexi_pool *pool = vexi_calloc(env, 1, sizeof *pool);
    if (pool == NULL) {
        return vexi_no_memory(err, sizeof *pool);
    }
    pool->env = env;
    int code = uv_async_init(loop, &pool->async, on_finished);
    if (code != 0) {
        vexi_free(env, pool);
        return vexi_fail(err, VEX_IO, "cannot watch worker threads: %s", uv_strerror(code));
    }
    pool->async.data = pool;
    VEX_ASSERT(uv_mutex_init(&pool->mutex) == 0);
    for (int i = 0; i < VEXI_LANE_COUNT; i++) {
        lane_state *lane = &pool->lanes[i];
        lane->pool = pool;
        lane->thread_max = thread_max[i] > THREADS_MAX ? THREADS_MAX : thread_max[i];
        VEX_ASSERT(uv_cond_init(&lane->wake) == 0);
    }
    *out = pool;
    return VEX_OK;
}

void vexi_pool_submit(vexi_pool *pool, vexi_lane lane_index, vexi_job *job) {
    lane_state *lane = &pool->lanes[lane_index];
    job->next = NULL;
    pool->pending++;
    uv_mutex_lock(&pool->mutex);
    if (lane->last == NULL) {
        lane->first = job;
    } else {
        lane->last->next = job;
    }
    lane->last = job;
    lane->queued++;
    bool start = lane->queued > lane->idle && lane->thread_count < lane->thread_max;
    uv_cond_signal(&lane->wake);
    uv_mutex_unlock(&pool->mutex);
    if (start) {
        if (uv_thread_create(&lane->threads[lane->thread_count], lane_main, lane) == 0) {
            lane->thread_count++;
        } else if (lane->thread_count == 0) {
            /* No thread at all: better slow than never. Only this thread uses the lane. */
            lane->first = lane->last = NULL;
            lane->queued = 0;
            job->run(job);
            uv_mutex_lock(&pool->mutex);
            add_finished(pool, job);
            uv_mutex_unlock(&pool->mutex);
        }
    }
}

size_t vexi_pool_pending(const vexi_pool *pool) {
    return pool->pending;
}

void vexi_pool_close(vexi_pool *pool) {
    if (pool != NULL && !uv_is_closing((uv_handle_t *)&pool->async)) {
        uv_close((uv_handle_t *)&pool->async, NULL);
    }
}

void vexi_pool_destroy(vexi_pool *pool) {
    if (pool == NULL) {
        return;
    }
    uv_mutex_lock(&pool->mutex);
    pool->stopping = true;
    for (int i = 0; i < VEXI_LANE_COUNT; i++) {
        uv_cond_broadcast(&pool->lanes[i].wake);
    }
    uv_mutex_unlock(&pool->mutex);
    for (int i = 0; i < VEXI_LANE_COUNT; i++) {
        lane_state *lane = &pool->lanes[i];
        for (uint32_t t = 0; t < lane->thread_count; t++) {
            uv_thread_join(&lane->threads[t]);
        }
        uv_cond_destroy(&lane->wake);
    }
    uv_mutex_destroy(&pool->mutex);
    vexi_free(pool->env, pool);
}
