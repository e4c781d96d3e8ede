/* The real environment: malloc, the system's clocks and randomness, and a small thread pool.
 *
 * The pool keeps one list of queued tasks ordered by due time; workers take the first that is due.
 * Parallel loops are jobs on the caller's stack: idle workers help with them, the caller takes part
 * and so never depends on a free worker. */
#include "base/env.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

typedef struct parallel_job {
    struct parallel_job *next;
    void (*function)(void *argument, size_t i);
    void *argument;
    size_t count;
    size_t next_index; /* guarded by mutex */
    size_t done_count; /* guarded by mutex */
} parallel_job;

typedef struct env_system {
    vexi_env env; /* immutable after creation */
    pthread_mutex_t mutex;
    pthread_cond_t work; /* a task or a job was added, or stop */
    pthread_cond_t idle; /* a task ended or a job was finished */
    vexi_task *tasks;    /* by due_ns; guarded by mutex */
    parallel_job *jobs;  /* with indexes left; guarded by mutex */
    bool stop;           /* guarded by mutex */
    uint32_t worker_count;
    pthread_t workers[64];
} env_system;

/* Who asks for the alignment of a huge page (2 MiB on the machines that have vectors' worth of
 * memory) reads it all over: with small pages each row of a large graph costs a walk through page
 * tables. The system may refuse; then the pages are small. */
#define HUGE_PAGE ((size_t)2 << 20)

static void *system_allocate(void *context, size_t alignment, size_t size) {
    (void)context;
    if (alignment <= 16) {
        return malloc(size);
    }
    void *pointer = NULL;
    if (posix_memalign(&pointer, alignment, size) != 0) {
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    if (alignment >= HUGE_PAGE) {
        (void)madvise(pointer, size, MADV_HUGEPAGE);
    }
#endif
    return pointer;
}

static void system_release(void *context, void *pointer) {
    (void)context;
    free(pointer);
}

static uint64_t system_monotonic_ns(void *context) {
    (void)context;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int64_t system_wall_us(void *context) {
    (void)context;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void system_random_fill(void *context, void *out, size_t size) {
    (void)context;
    uint8_t *bytes = out;
    while (size > 0) {
        ssize_t got = getrandom(bytes, size, 0);
        if (got < 0) {
            VEX_ASSERT(errno == EINTR);
            continue;
        }
        bytes += got;
        size -= (size_t)got;
    }
}

static void task_insert(env_system *system, vexi_task *task) {
    vexi_task **link = &system->tasks;
    while (*link != NULL && (*link)->due_ns <= task->due_ns) {
        link = &(*link)->next;
    }
    task->next = *link;
    *link = task;
}

static void task_remove(env_system *system, vexi_task *task) {
    vexi_task **link = &system->tasks;
    while (*link != task) {
        VEX_ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = task->next;
    task->next = NULL;
}

enum { TASK_IDLE = 0, TASK_QUEUED = 1, TASK_RUNNING = 2, TASK_RUNNING_QUEUED = 3 };

static void system_submit(void *context, vexi_task *task, uint32_t delay_ms) {
    env_system *system = context;
    uint64_t due_ns = system_monotonic_ns(NULL) + (uint64_t)delay_ms * 1000000u;
    pthread_mutex_lock(&system->mutex);
    switch (task->state) {
    case TASK_IDLE:
        task->state = TASK_QUEUED;
        task->due_ns = due_ns;
        task_insert(system, task);
        break;
    case TASK_QUEUED:
        if (due_ns < task->due_ns) {
            task_remove(system, task);
            task->due_ns = due_ns;
            task_insert(system, task);
        }
        break;
    case TASK_RUNNING:
        task->state = TASK_RUNNING_QUEUED;
        task->due_ns = due_ns;
        break;
    default:
        if (due_ns < task->due_ns) {
            task->due_ns = due_ns;
        }
        break;
    }
    pthread_cond_signal(&system->work);
    pthread_mutex_unlock(&system->mutex);
}

static void system_cancel(void *context, vexi_task *task) {
    env_system *system = context;
    pthread_mutex_lock(&system->mutex);
    for (;;) {
        if (task->state == TASK_QUEUED) {
            task_remove(system, task);
            task->state = TASK_IDLE;
        } else if (task->state == TASK_RUNNING_QUEUED) {
            task->state = TASK_RUNNING;
        }
        if (task->state == TASK_IDLE) {
            break;
        }
        pthread_cond_wait(&system->idle, &system->mutex);
    }
    pthread_mutex_unlock(&system->mutex);
}

/* Run one index of the job; the mutex is held on entry and on return. */
static void job_step(env_system *system, parallel_job *job) {
    size_t index = job->next_index++;
    if (job->next_index == job->count) {
        parallel_job **link = &system->jobs;
        while (*link != job) {
            link = &(*link)->next;
        }
        *link = job->next;
    }
    pthread_mutex_unlock(&system->mutex);
    job->function(job->argument, index);
    pthread_mutex_lock(&system->mutex);
    job->done_count++;
    if (job->done_count == job->count) {
        pthread_cond_broadcast(&system->idle);
    }
}

static void system_parallel(void *context, size_t count, void (*function)(void *argument, size_t i),
                            void *argument) {
    env_system *system = context;
    parallel_job job = {.function = function, .argument = argument, .count = count};
    pthread_mutex_lock(&system->mutex);
    job.next = system->jobs;
    system->jobs = &job;
    pthread_cond_broadcast(&system->work);
    while (job.next_index < job.count) {
        job_step(system, &job);
    }
    while (job.done_count < job.count) {
        pthread_cond_wait(&system->idle, &system->mutex);
    }
    pthread_mutex_unlock(&system->mutex);
}

static void task_run(env_system *system, vexi_task *task) {
    task_remove(system, task);
    task->state = TASK_RUNNING;
    pthread_mutex_unlock(&system->mutex);
    task->run(task->argument);
    pthread_mutex_lock(&system->mutex);
    if (task->state == TASK_RUNNING_QUEUED) {
        task->state = TASK_QUEUED;
        task_insert(system, task);
        pthread_cond_signal(&system->work);
    } else {
        task->state = TASK_IDLE;
    }
    pthread_cond_broadcast(&system->idle);
}

static void *worker_main(void *argument) {
    env_system *system = argument;
    pthread_mutex_lock(&system->mutex);
    while (!system->stop) {
        if (system->jobs != NULL) {
            job_step(system, system->jobs);
            continue;
        }
        if (system->tasks == NULL) {
            pthread_cond_wait(&system->work, &system->mutex);
            continue;
        }
        uint64_t due_ns = system->tasks->due_ns;
        if (due_ns <= system_monotonic_ns(NULL)) {
            task_run(system, system->tasks);
            continue;
        }
        struct timespec until = {.tv_sec = (time_t)(due_ns / 1000000000u),
                                 .tv_nsec = (long)(due_ns % 1000000000u)};
        pthread_cond_timedwait(&system->work, &system->mutex, &until);
    }
    pthread_mutex_unlock(&system->mutex);
    return NULL;
}

vex_status vexi_env_system_create(uint32_t thread_count, vex_log_function log, void *log_context,
                                  vexi_env **out, vex_error *err) {
    *out = NULL;
    env_system *system = calloc(1, sizeof *system);
    if (system == NULL) {
        return vexi_no_memory(err, sizeof *system);
    }
    if (thread_count < 1) {
        thread_count = 1;
    }
    if (thread_count > 64) {
        thread_count = 64;
    }
    system->env = (vexi_env){
        .context = system,
        .allocate = system_allocate,
        .release = system_release,
        .monotonic_ns = system_monotonic_ns,
        .wall_us = system_wall_us,
        .random_fill = system_random_fill,
        .submit = system_submit,
        .cancel = system_cancel,
        .parallel = system_parallel,
        .thread_count = thread_count,
        .log = log,
        .log_context = log_context,
    };
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&system->mutex, NULL);
    pthread_cond_init(&system->work, &monotonic);
    pthread_cond_init(&system->idle, NULL);
    pthread_condattr_destroy(&monotonic);
    for (uint32_t i = 0; i < thread_count; i++) {
        int code = pthread_create(&system->workers[i], NULL, worker_main, system);
        if (code != 0) {
            vexi_env_system_destroy(&system->env);
            return vexi_fail_code(err, VEX_MEMORY, code, "cannot start a background thread: %s",
                                  strerror(code));
        }
        system->worker_count++;
    }
    *out = &system->env;
    return VEX_OK;
}

void vexi_env_system_destroy(vexi_env *env) {
    if (env == NULL) {
        return;
    }
    env_system *system = env->context;
    pthread_mutex_lock(&system->mutex);
    system->stop = true;
    pthread_cond_broadcast(&system->work);
    pthread_mutex_unlock(&system->mutex);
    for (uint32_t i = 0; i < system->worker_count; i++) {
        pthread_join(system->workers[i], NULL);
    }
    pthread_cond_destroy(&system->work);
    pthread_cond_destroy(&system->idle);
    pthread_mutex_destroy(&system->mutex);
    free(system);
}
