/* The engine's world: memory, time, randomness and background work, behind one struct.
 *
 * No engine code asks the operating system for these directly, so that a test can run the whole
 * engine on one thread, deterministic from a seed, and can count or fail each request. A vexi_env
 * is filled once (vexi_env_system_create, or by a test) and then constant; it outlives all that
 * uses it. */
#ifndef VEXI_BASE_ENV_H
#define VEXI_BASE_ENV_H

#include "base/status.h"

typedef struct vexi_env vexi_env;
typedef struct vexi_task vexi_task;

/* A unit of background work, embedded in its owner, which keeps it alive until `run` returned.
 * A task that is queued or running is not queued a second time (vexi_env_submit says so). */
struct vexi_task {
    void (*run)(void *argument); /* set by the owner */
    void *argument;  /* set by the owner                                               */
    vexi_task *next; /* the executor's                                                 */
    uint64_t due_ns; /* the executor's                                                 */
    int state;       /* the executor's: 0 idle, 1 queued, 2 running, 3 running+queued  */
};

struct vexi_env {
    void *context; /* passed to every function below */

    /* Memory. alignment is a power of two; NULL when there is none. size > 0. */
    void *(*allocate)(void *context, size_t alignment, size_t size);
    void (*release)(void *context, void *pointer);

    /* Time. Monotonic for durations, wall for timestamps (microseconds since 1970). */
    uint64_t (*monotonic_ns)(void *context);
    int64_t (*wall_us)(void *context);

    /* Randomness for identifiers and seeds. */
    void (*random_fill)(void *context, void *out, size_t size);

    /* Background work. submit queues a task to run once, after delay_ms; it never fails and never
     * runs the task before it returns. Queueing a queued task keeps the earlier due time; queueing
     * a running one makes it run again. cancel takes a queued task out and waits for a running
     * one; it must not be called from the task itself. */
    void (*submit)(void *context, vexi_task *task, uint32_t delay_ms);
    void (*cancel)(void *context, vexi_task *task);

    /* Run function(argument, i) for i in 0..count-1, on several threads where there are some;
     * returns when all have run. The caller takes part, so it never waits for a free thread. */
    void (*parallel)(void *context, size_t count, void (*function)(void *argument, size_t i),
                     void *argument);
    uint32_t thread_count; /* threads that parallel may use, the caller included */

    /* Log line, or NULL. */
    vex_log_function log;
    void *log_context;
};

/* The real one: malloc, the system's clocks and getrandom, a thread pool. Give it back with
 * vexi_env_system_destroy, which waits for running tasks and drops queued ones. */
vex_status vexi_env_system_create(uint32_t thread_count, vex_log_function log, void *log_context,
                                  vexi_env **out, vex_error *err);
void vexi_env_system_destroy(vexi_env *env);

/* Memory by the environment. vexi_alloc returns NULL on failure, also for size overflow; memory is
 * aligned to 16 bytes (vexi_alloc_aligned: 64). Zeroed only by vexi_calloc. */
void *vexi_alloc(const vexi_env *env, size_t size);
void *vexi_alloc_array(const vexi_env *env, size_t count, size_t size);
void *vexi_calloc(const vexi_env *env, size_t count, size_t size);
void *vexi_alloc_aligned(const vexi_env *env, size_t size);
void vexi_free(const vexi_env *env, void *pointer);

/* Grow an array of `count` used items of `size` bytes to hold at least `wanted`; *pointer and
 * *capacity change only on success. */
vex_status vexi_grow(const vexi_env *env, void **pointer, size_t *capacity, size_t count,
                     size_t wanted, size_t size, vex_error *err);

vex_status vexi_no_memory(vex_error *err, size_t size);

uint64_t vexi_monotonic_ns(const vexi_env *env);
int64_t vexi_wall_us(const vexi_env *env);
uint64_t vexi_random_u64(const vexi_env *env);
/* Random version-4 UUID as 36 characters and NUL. */
void vexi_random_uuid(const vexi_env *env, char out[37]);
void vexi_submit(const vexi_env *env, vexi_task *task, uint32_t delay_ms);
void vexi_cancel(const vexi_env *env, vexi_task *task);
void vexi_parallel(const vexi_env *env, size_t count, void (*function)(void *argument, size_t i),
                   void *argument);
void vexi_log(const vexi_env *env, int level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
