#include "sim/sim_env.h"

#include "check.h"

struct sim_env {
    vexi_env env;
    uint64_t random; /* identifiers and seeds */
    uint64_t order;  /* of tasks */
    uint64_t now_ns;
    uint64_t in_use;
    uint64_t allocations;
    uint64_t fail_at; /* by `allocations`; 0: none */
    bool fail_later;
    vexi_task *tasks;
};

enum { TASK_IDLE = 0, TASK_QUEUED = 1, TASK_RUNNING = 2, TASK_RUNNING_QUEUED = 3 };

static void *sim_allocate(void *context, size_t alignment, size_t size) {
    sim_env *sim = context;
    sim->allocations++;
    if (sim->fail_at != 0 && (sim->allocations == sim->fail_at ||
                              (sim->fail_later && sim->allocations > sim->fail_at))) {
        return NULL;
    }
    void *pointer = NULL;
    if (alignment <= 16) {
        pointer = malloc(size);
    } else if (posix_memalign(&pointer, alignment, size) != 0) {
        pointer = NULL;
    }
    sim->in_use += pointer != NULL ? 1 : 0;
    return pointer;
}

static void sim_release(void *context, void *pointer) {
    sim_env *sim = context;
    if (pointer != NULL) {
        CHECK(sim->in_use > 0);
        sim->in_use--;
        free(pointer);
    }
}

static uint64_t sim_monotonic_ns(void *context) {
    return ((sim_env *)context)->now_ns;
}

static int64_t sim_wall_us(void *context) {
    return 1700000000000000 + (int64_t)(((sim_env *)context)->now_ns / 1000);
}

static void sim_random_fill(void *context, void *out, size_t size) {
    sim_env *sim = context;
    uint8_t *bytes = out;
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(vex_test_random(&sim->random) >> 32);
    }
}

static void task_queue(sim_env *sim, vexi_task *task) {
    task->next = sim->tasks;
    sim->tasks = task;
}

static void task_take(sim_env *sim, vexi_task *task) {
    vexi_task **link = &sim->tasks;
    while (*link != task) {
        CHECK(*link != NULL);
        link = &(*link)->next;
    }
    *link = task->next;
    task->next = NULL;
}

static void sim_submit(void *context, vexi_task *task, uint32_t delay_ms) {
    sim_env *sim = context;
    uint64_t due_ns = sim->now_ns + (uint64_t)delay_ms * 1000000u;
    if (task->state == TASK_IDLE || task->state == TASK_RUNNING) {
        task->due_ns = due_ns;
        if (task->state == TASK_IDLE) {
            task_queue(sim, task);
        }
        task->state++;
    } else if (due_ns < task->due_ns) {
        task->due_ns = due_ns;
    }
}

static void sim_cancel(void *context, vexi_task *task) {
    CHECK(task->state == TASK_IDLE || task->state == TASK_QUEUED); /* never from the task itself */
    if (task->state == TASK_QUEUED) {
        task_take(context, task);
        task->state = TASK_IDLE;
    }
}

/* The pieces in an order that the seed decides: from any of them on, forwards or backwards. */
static void sim_parallel(void *context, size_t count, void (*function)(void *argument, size_t i),
                         void *argument) {
    sim_env *sim = context;
    size_t first = count == 0 ? 0 : (size_t)vex_test_below(&sim->order, count);
    bool backwards = vex_test_below(&sim->order, 2) == 0;
    for (size_t i = 0; i < count; i++) {
        size_t step = backwards ? count - 1 - i : i;
        function(argument, (first + step) % count);
    }
}

sim_env *sim_env_create(uint64_t seed) {
    sim_env *sim = calloc(1, sizeof *sim);
    CHECK(sim != NULL);
    sim->random = seed;
    sim->order = seed ^ 0x5bf03635u;
    sim->now_ns = 1000000000;
    sim->env = (vexi_env){.context = sim,
                          .allocate = sim_allocate,
                          .release = sim_release,
                          .monotonic_ns = sim_monotonic_ns,
                          .wall_us = sim_wall_us,
                          .random_fill = sim_random_fill,
                          .submit = sim_submit,
                          .cancel = sim_cancel,
                          .parallel = sim_parallel,
                          .thread_count = 1};
    return sim;
}

void sim_env_destroy(sim_env *sim) {
    if (sim != NULL) {
        CHECK_EQ(sim->in_use, 0);
        free(sim);
    }
}

const vexi_env *sim_env_of(sim_env *sim) {
    return &sim->env;
}

uint64_t sim_env_in_use(const sim_env *sim) {
    return sim->in_use;
}

uint64_t sim_env_allocations(const sim_env *sim) {
    return sim->allocations;
}

void sim_env_fail_allocation(sim_env *sim, uint64_t n, bool and_later) {
    sim->fail_at = n == 0 ? 0 : sim->allocations + n;
    sim->fail_later = and_later;
}

uint64_t sim_env_queued(const sim_env *sim) {
    uint64_t count = 0;
    for (const vexi_task *task = sim->tasks; task != NULL; task = task->next) {
        count++;
    }
    return count;
}

bool sim_env_run_one(sim_env *sim) {
    uint64_t due = 0;
    vexi_task *chosen = NULL;
    for (vexi_task *task = sim->tasks; task != NULL; task = task->next) {
        if (task->due_ns <= sim->now_ns && vex_test_below(&sim->order, ++due) == 0) {
            chosen = task; /* each of the due tasks with the same chance */
        }
    }
    if (chosen == NULL) {
        return false;
    }
    task_take(sim, chosen);
    chosen->state = TASK_RUNNING;
    chosen->run(chosen->argument);
    if (chosen->state == TASK_RUNNING_QUEUED) {
        chosen->state = TASK_QUEUED;
        task_queue(sim, chosen);
    } else {
        chosen->state = TASK_IDLE;
    }
    return true;
}

void sim_env_advance(sim_env *sim, uint64_t milliseconds) {
    sim->now_ns += milliseconds * 1000000u;
    for (int i = 0; i < 1000 && sim_env_run_one(sim); i++) {
    }
}
