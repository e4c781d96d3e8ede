/* Work is asked for by numbers: `wanted` is the number of the run that somebody waits for, `begun`
 * and `ended` are those of the newest runs. A waiter wants a run that begins after he asked, so
 * what he is told is no older than his question; all who ask while one is under way share the next.
 */
#include "server/monitor.h"

#include <stdio.h>

#include "server/rows.h"
#include "server/server_internal.h"

#define WAIT_NS UINT64_C(2000000000)

typedef struct monitor_work {
    uint64_t wanted;
    uint64_t begun;
    uint64_t ended;
} monitor_work;

struct vexi_monitor {
    vexi_server *server; /* immutable */
    uv_thread_t thread;
    uv_mutex_t mutex;
    uv_cond_t asked;          /* with the mutex */
    uv_cond_t answered;       /* with the mutex */
    bool stopping;            /* mutex */
    monitor_work probe;       /* mutex */
    monitor_work sample;      /* mutex */
    vex_status probe_status;  /* mutex */
    char probe_message[256];  /* mutex */
    vexi_lake_sample newest;  /* mutex */
    vexi_lake_sample next;    /* the thread's */
    vex_collection_info info; /* the thread's: too large for a stack */
};

/* ---- The thread ------------------------------------------------------------------------------ */

static void add_sample(vexi_collection_sample *to, const vexi_collection_sample *from) {
    to->failing = to->failing || from->failing;
    to->row_count += from->row_count;
    to->memtable_row_count += from->memtable_row_count;
    to->memtable_size_bytes += from->memtable_size_bytes;
    to->memtable_age_ns =
        from->memtable_age_ns > to->memtable_age_ns ? from->memtable_age_ns : to->memtable_age_ns;
    to->follow_age_ns =
        from->follow_age_ns > to->follow_age_ns ? from->follow_age_ns : to->follow_age_ns;
    to->segment_count += from->segment_count;
    to->segment_row_count += from->segment_row_count;
    to->segment_deleted_count += from->segment_deleted_count;
    to->segment_size_bytes += from->segment_size_bytes;
    to->index_size_bytes += from->index_size_bytes;
    to->damaged_segment_count += from->damaged_segment_count;
    to->unindexed_segment_count += from->unindexed_segment_count;
    to->graph_count += from->graph_count;
    to->graph_size_bytes += from->graph_size_bytes;
    to->graph_missing_count += from->graph_missing_count;
    to->flush_count += from->flush_count;
}

static vexi_collection_sample sample_of(vex_string name, const vex_collection_info *info) {
    vexi_collection_sample sample = {
        .name_size = (uint32_t)name.size,
        .failing = info->last_error[0] != '\0',
        .row_count = info->row_count,
        .memtable_row_count = info->memtable_row_count,
        .memtable_size_bytes = info->memtable_size_bytes,
        .memtable_age_ns = info->memtable_age_ns,
        .follow_age_ns = info->follow_age_ns,
        .segment_count = info->segment_count,
        .segment_row_count = info->segment_row_count,
        .segment_deleted_count = info->segment_deleted_count,
        .segment_size_bytes = info->segment_size_bytes,
        .index_size_bytes = info->index_size_bytes,
        .damaged_segment_count = info->damaged_segment_count,
        .unindexed_segment_count = info->unindexed_segment_count,
        .graph_count = info->graph_count,
        .graph_size_bytes = info->graph_size_bytes,
        .graph_missing_count = info->graph_missing_count,
        .flush_count = info->flush_count,
    };
    memcpy(sample.name, name.data, name.size);
    return sample;
}

static void sample_collections(vexi_monitor *monitor, vexi_lake_sample *sample) {
    vexi_server *server = monitor->server;
    struct ArrowSchema schema;
    struct ArrowArray batch;
    vex_error err;
    if (vex_collection_list(server->lake, &schema, &batch, &err) != VEX_OK) {
        return;
    }
    vexi_rows rows = {.schema = &schema, .batch = &batch};
    int64_t count = vexi_rows_count(&rows);
    vex_string *names = vexi_alloc_array(server->env, (size_t)count + 1, sizeof *names);
    for (int64_t i = 0; i < count; i++) {
        vex_string name = vexi_rows_string(&rows, 0, i);
        if (names != NULL) {
            names[i] = name;
        }
        vex_status status = vex_collection_describe(server->lake, name, &monitor->info, &err);
        if (status == VEX_NOT_FOUND) {
            continue; /* dropped meanwhile */
        }
        sample->collection_count++;
        if (status != VEX_OK || name.size > VEX_NAME_SIZE_MAX) {
            sample->failed_count++;
            continue;
        }
        vexi_collection_sample one = sample_of(name, &monitor->info);
        add_sample(&sample->total, &one);
        if (sample->listed_count < VEXI_METRIC_COLLECTIONS_MAX) {
            sample->listed[sample->listed_count++] = one;
        }
    }
    if (names != NULL) {
        vexi_metrics_keep(&server->metrics, names, (size_t)count);
    }
    vexi_free(server->env, names);
    schema.release(&schema);
    batch.release(&batch);
}

static void take_sample(vexi_monitor *monitor) {
    vexi_lake_sample *sample = &monitor->next;
    memset(sample, 0, sizeof *sample);
    sample->lake.size = sizeof sample->lake;
    vex_error err;
    sample_collections(monitor, sample);
    if (vex_lake_describe(monitor->server->lake, &sample->lake, &err) == VEX_OK) {
        sample->taken_ns = vexi_monotonic_ns(monitor->server->env);
    }
}

static void work_end(vexi_monitor *monitor, monitor_work *work, uint64_t run) {
    work->ended = run;
    uv_cond_broadcast(&monitor->answered);
}

static void monitor_main(void *argument) {
    vexi_monitor *monitor = argument;
    uv_mutex_lock(&monitor->mutex);
    while (!monitor->stopping) {
        if (monitor->probe.wanted > monitor->probe.begun) {
            uint64_t run = ++monitor->probe.begun;
            uv_mutex_unlock(&monitor->mutex);
            vex_error err = {.message = ""};
            vex_status status = vex_lake_probe(monitor->server->lake, &err);
            uv_mutex_lock(&monitor->mutex);
            monitor->probe_status = status;
            snprintf(monitor->probe_message, sizeof monitor->probe_message, "%.255s", err.message);
            work_end(monitor, &monitor->probe, run);
        } else if (monitor->sample.wanted > monitor->sample.begun) {
            uint64_t run = ++monitor->sample.begun;
            uv_mutex_unlock(&monitor->mutex);
            take_sample(monitor);
            uv_mutex_lock(&monitor->mutex);
            if (monitor->next.taken_ns != 0) {
                monitor->newest = monitor->next;
            }
            work_end(monitor, &monitor->sample, run);
        } else {
            uv_cond_wait(&monitor->asked, &monitor->mutex);
        }
    }
    uv_mutex_unlock(&monitor->mutex);
}

vex_status vexi_monitor_start(vexi_server *server, vexi_monitor **out, vex_error *err) {
    *out = NULL;
    vexi_monitor *monitor = vexi_calloc(server->env, 1, sizeof *monitor);
    if (monitor == NULL) {
        return vexi_no_memory(err, sizeof *monitor);
    }
    monitor->server = server;
    VEX_ASSERT(uv_mutex_init(&monitor->mutex) == 0);
    VEX_ASSERT(uv_cond_init(&monitor->asked) == 0);
    VEX_ASSERT(uv_cond_init(&monitor->answered) == 0);
    int code = uv_thread_create(&monitor->thread, monitor_main, monitor);
    if (code != 0) {
        uv_cond_destroy(&monitor->answered);
        uv_cond_destroy(&monitor->asked);
        uv_mutex_destroy(&monitor->mutex);
        vexi_free(server->env, monitor);
        return vexi_fail(err, VEX_IO, "cannot start a thread for the HTTP port: %s",
                         uv_strerror(code));
    }
    *out = monitor;
    return VEX_OK;
}

void vexi_monitor_stop(vexi_monitor *monitor) {
    if (monitor == NULL) {
        return;
    }
    uv_mutex_lock(&monitor->mutex);
    monitor->stopping = true;
    uv_cond_signal(&monitor->asked);
    uv_cond_broadcast(&monitor->answered);
    uv_mutex_unlock(&monitor->mutex);
    uv_thread_join(&monitor->thread);
    uv_cond_destroy(&monitor->answered);
    uv_cond_destroy(&monitor->asked);
    uv_mutex_destroy(&monitor->mutex);
    vexi_free(monitor->server->env, monitor);
}

/* ---- Asking ---------------------------------------------------------------------------------- */

/* Have the work done and wait for it. With the mutex. False: not within WAIT_NS. */
static bool ask(vexi_monitor *monitor, monitor_work *work) {
    const vexi_env *env = monitor->server->env;
    uint64_t now_ns = vexi_monotonic_ns(env);
    uint64_t run = work->begun + 1;
    work->wanted = run;
    uv_cond_signal(&monitor->asked);
    for (uint64_t end_ns = now_ns + WAIT_NS; work->ended < run && !monitor->stopping;
         now_ns = vexi_monotonic_ns(env)) {
        if (now_ns >= end_ns ||
            uv_cond_timedwait(&monitor->answered, &monitor->mutex, end_ns - now_ns) != 0) {
            break;
        }
    }
    return work->ended >= run;
}

static vexi_phase phase_of(const vexi_metrics *metrics) {
    return (vexi_phase)atomic_load_explicit(&metrics->phase, memory_order_acquire);
}

bool vexi_monitor_alive(const vexi_metrics *metrics, uint64_t now_ns, char *why, size_t size) {
    uint64_t beat_ns = vexi_metric_get(&metrics->beat_ns);
    if (phase_of(metrics) == VEXI_PHASE_SERVING && beat_ns != 0 && now_ns > beat_ns &&
        now_ns - beat_ns > VEXI_STUCK_SECONDS * UINT64_C(1000000000)) {
        snprintf(why, size, "the event loop has not turned for %llu seconds",
                 (unsigned long long)((now_ns - beat_ns) / 1000000000u));
        return false;
    }
    snprintf(why, size, "ok");
    return true;
}

bool vexi_monitor_ready(vexi_monitor *monitor, char *why, size_t size) {
    vexi_phase phase = phase_of(&monitor->server->metrics);
    if (phase != VEXI_PHASE_SERVING) {
        snprintf(why, size, "%s",
                 phase == VEXI_PHASE_OPENING ? "recovering: the lake is being opened"
                                             : "draining: the server is being stopped");
        return false;
    }
    uint64_t now_ns = vexi_monotonic_ns(monitor->server->env);
    if (!vexi_monitor_alive(&monitor->server->metrics, now_ns, why, size)) {
        return false;
    }
    uv_mutex_lock(&monitor->mutex);
    bool answered = ask(monitor, &monitor->probe);
    bool ready = answered && monitor->probe_status == VEX_OK;
    if (!answered) {
        snprintf(why, size, "storage does not answer");
    } else if (!ready) {
        snprintf(why, size, "storage fails: %s", monitor->probe_message);
    } else {
        snprintf(why, size, "ok");
    }
    uv_mutex_unlock(&monitor->mutex);
    return ready;
}

bool vexi_monitor_sample(vexi_monitor *monitor, vexi_lake_sample *out) {
    if (phase_of(&monitor->server->metrics) == VEXI_PHASE_OPENING) {
        return false;
    }
    uv_mutex_lock(&monitor->mutex);
    (void)ask(monitor, &monitor->sample);
    bool there = monitor->newest.taken_ns != 0;
    if (there) {
        *out = monitor->newest;
    }
    uv_mutex_unlock(&monitor->mutex);
    return there;
}
