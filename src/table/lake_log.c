/* The writer of a log in the lake: groups of writes, each put as one object.
 *
 * As in wal.c the first writer that finds no leader leads; but a put takes milliseconds and costs
 * money, so the leader first waits for others, until the oldest write has waited for the group
 * delay or what waits is large enough. While a put is under way the next group gathers.
 *
 * A put whose outcome is unknown blocks the log: the same bytes are put again before anything else
 * is. If they prove to be there they are applied, though their writers were told that nobody knows;
 * if another object has the number, they never will be there. */
#include "table/lake_log.h"

#include <errno.h>
#include <time.h>

#include "base/checksum.h"
#include "table/table_internal.h"

enum {
    GROUP_SIZE_MAX = 32 << 20, /* a group is cut behind the write that passes this */
    GROUP_PARTS_MAX = 4096,    /* writes of one group */
    REMOVE_BATCH = 1000
};

vex_status lake_log_create(const vexi_env *env, lake_log **out, vex_error *err) {
    *out = NULL;
    lake_log *log = vexi_calloc(env, 1, sizeof *log);
    if (log == NULL) {
        return vexi_no_memory(err, sizeof *log);
    }
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&log->mutex, NULL);
    pthread_cond_init(&log->idle, NULL);
    pthread_cond_init(&log->filled, &monotonic);
    pthread_condattr_destroy(&monotonic);
    vexi_buffer_init(&log->pending, env, VEXI_LOG_OBJECT_SIZE_MAX);
    log->reset = true; /* nothing was read yet */
    *out = log;
    return VEX_OK;
}

void lake_log_destroy(const vexi_env *env, lake_log *log) {
    if (log == NULL) {
        return;
    }
    pthread_mutex_destroy(&log->mutex);
    pthread_cond_destroy(&log->idle);
    pthread_cond_destroy(&log->filled);
    vexi_buffer_deinit(&log->pending);
    vexi_free(env, log->marks);
    vexi_free(env, log);
}

/* ---- Leading ----------------------------------------------------------------------------------
 */

void lake_log_lead(lake_log *log) {
    pthread_mutex_lock(&log->mutex);
    while (log->leading) {
        pthread_cond_wait(&log->idle, &log->mutex);
    }
    log->leading = true;
    pthread_mutex_unlock(&log->mutex);
}

/* The mutex is held. */
static void yield(lake_log *log) {
    log->leading = false;
    pthread_cond_broadcast(&log->idle);
    if (log->first != NULL) {
        pthread_cond_signal(&log->first->turn);
    }
}

void lake_log_yield(lake_log *log) {
    pthread_mutex_lock(&log->mutex);
    yield(log);
    pthread_mutex_unlock(&log->mutex);
}

vex_status lake_log_marks_reserve(const vexi_env *env, lake_log *log, size_t count,
                                  vex_error *err) {
    pthread_mutex_lock(&log->mutex);
    void *marks = log->marks;
    vex_status status = vexi_grow(env, &marks, &log->mark_capacity, log->mark_count,
                                  log->mark_count + count, sizeof *log->marks, err);
    log->marks = marks;
    pthread_mutex_unlock(&log->mutex);
    return status;
}

void lake_log_mark_add(lake_log *log, uint64_t number, uint64_t size_bytes, uint64_t end_row) {
    pthread_mutex_lock(&log->mutex);
    VEX_ASSERT(log->mark_count < log->mark_capacity);
    log->marks[log->mark_count++] =
        (lake_log_mark){.number = number, .size_bytes = size_bytes, .end_row = end_row};
    pthread_mutex_unlock(&log->mutex);
}

/* ---- Putting ----------------------------------------------------------------------------------
 */

/* Put the pending object. VEX_OK: it is in the lake, and pending still. VEX_READ_ONLY: another
 * object is there, so ours never will be. */
static vex_status pending_put(vexi_table *table, vex_error *err) {
    lake_log *log = table->log;
    vexi_arena arena;
    vexi_arena_init(&arena, table->core->env);
    char *name = vexi_log_object_name(&arena, table->folder, table->uuid, log->pending_number);
    vex_status status = VEX_OK;
    if (name == NULL) {
        status = vexi_no_memory(err, VEXI_STORE_NAME_SIZE_MAX);
    } else {
        status = table_put_once(table->core, name,
                                vexi_span_of(log->pending.data, log->pending.size), err);
    }
    vexi_arena_deinit(&arena);
    if (status == VEX_EXISTS) {
        table_fenced(table);
        status = vexi_fail(err, VEX_READ_ONLY, "another node writes '%s' now", table->name);
    }
    return status;
}

void lake_log_forget_pending(lake_log *log) {
    vexi_buffer_clear(&log->pending);
    __atomic_store_n(&log->unsettled, false, __ATOMIC_RELEASE);
}

/* Settle what an earlier put left in doubt, before anything else is put. */
static vex_status pending_settle(vexi_table *table, vex_error *err) {
    lake_log *log = table->log;
    if (log->pending.size == 0) {
        return VEX_OK;
    }
    vex_status status = pending_put(table, err);
    if (status == VEX_READ_ONLY) {
        lake_log_forget_pending(log);
        return status;
    }
    if (status == VEX_OK) {
        status = table_apply_group(table, vexi_span_of(log->pending.data, log->pending.size), err);
        if (status == VEX_OK) {
            lake_log_forget_pending(log);
            return VEX_OK;
        }
    }
    /* It may be there: nothing may be put behind it yet. */
    return vexi_prefix(err, status == VEX_UNKNOWN_OUTCOME ? VEX_IO : status,
                       "the outcome of an earlier write is not known yet");
}

/* ---- Groups -----------------------------------------------------------------------------------
 */

static void group_fail(vexi_wal_write *group, vex_status status, const vex_error *error,
                       const char *prefix) {
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        w->error = *error;
        w->status = status;
        (void)vexi_prefix(&w->error, status, "%s", prefix);
        w->error.status = status;
    }
}

/* Number, seal and gather the group's records as the pending object. */
static vex_status group_encode(vexi_table *table, vexi_wal_write *group, uint64_t number,
                               uint32_t record_count, vex_error *err) {
    lake_log *log = table->log;
    size_t size = 0;
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        size += w->records.size;
    }
    uint64_t sequence = vexi_log_first_sequence(number, record_count);
    size_t done = 0;
    vexi_buffer_clear(&log->pending);
    static const uint8_t no_header[VEXI_LOG_OBJECT_HEADER_SIZE];
    vexi_buffer_append(&log->pending, no_header, sizeof no_header);
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        for (size_t at = 0; at < w->records.size;) {
            uint8_t *record = w->records.data + at;
            size_t record_size = vexi_wal_record_size(record);
            vexi_wal_record_seal_at(record, sequence++, VEXI_LOG_OBJECT_HEADER_SIZE + done, 0,
                                    size - done);
            at += record_size;
            done += record_size;
        }
        vexi_buffer_append(&log->pending, w->records.data, w->records.size);
    }
    vex_status status = vexi_buffer_check(&log->pending, err);
    if (status != VEX_OK) {
        vexi_buffer_clear(&log->pending);
        return status;
    }
    vexi_log_object object = {.kind = VEXI_LOG_GROUP,
                              .number = number,
                              .epoch = log->epoch,
                              .claim_number = log->claim_number,
                              .record_count = record_count};
    memcpy(object.collection, table->uuid, sizeof object.collection);
    memcpy(object.node, lake_node_uuid(table->lake->node), sizeof object.node);
    vexi_span body = vexi_span_of(log->pending.data + VEXI_LOG_OBJECT_HEADER_SIZE, size);
    vexi_log_object_write(&object, &body, 1, log->pending.data);
    log->pending_number = number;
    return VEX_OK;
}

/* Put and apply one group; sets the writes' statuses. Leads, without locks. */
static void group_commit(vexi_table *table, vexi_wal_write *group, uint32_t record_count) {
    lake_log *log = table->log;
    vex_error error = {.message = ""};
    vex_status status = VEX_OK;
    if (!table_owned(table)) {
        status = vexi_fail(&error, VEX_READ_ONLY, "another node writes '%s' now", table->name);
    }
    if (status == VEX_OK) {
        status = pending_settle(table, &error);
    }
    if (status == VEX_OK) {
        status = lake_log_marks_reserve(table->core->env, log, 1, &error);
    }
    uint64_t number = log->applied + 1;
    if (status == VEX_OK && record_count > 0) {
        status = group_encode(table, group, number, record_count, &error);
    }
    if (status != VEX_OK) {
        group_fail(group, status, &error, "write refused");
        return;
    }
    if (record_count > 0) {
        status = pending_put(table, &error);
        if (status == VEX_UNKNOWN_OUTCOME) {
            __atomic_store_n(&log->unsettled, true, __ATOMIC_RELEASE);
            group_fail(group, status, &error, "outcome unknown");
            vexi_log(table->core->env, 3, "log of '%s': %s", table->name, error.message);
            return;
        }
        uint64_t size = log->pending.size;
        lake_log_forget_pending(log);
        if (status != VEX_OK) {
            group_fail(group, status, &error, "write refused");
            return;
        }
        lake_log_mark_add(log, number, size, 0);
    }
    uint64_t sequence = vexi_log_first_sequence(number, record_count);
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        w->status = VEX_OK;
        if (w->record_count > 0) {
            w->apply(w, sequence);
            sequence += w->record_count;
        }
    }
    if (record_count > 0) {
        __atomic_store_n(&log->applied, number, __ATOMIC_RELEASE);
    }
}

/* Take the first waiting writes off the queue as a group. The mutex is held. */
static vexi_wal_write *group_take(lake_log *log, uint32_t *record_count) {
    vexi_wal_write *group = log->first;
    vexi_wal_write *last = group;
    size_t size = group->records.size;
    size_t records = group->record_count;
    size_t count = 1;
    while (last->next != NULL && count < GROUP_PARTS_MAX &&
           size + last->next->records.size <= GROUP_SIZE_MAX &&
           records + last->next->record_count <= VEXI_LOG_GROUP_RECORDS_MAX) {
        last = last->next;
        size += last->records.size;
        records += last->record_count;
        count++;
    }
    log->first = last->next;
    if (log->first == NULL) {
        log->last = NULL;
    }
    last->next = NULL;
    log->waiting_bytes -= size;
    log->waiting_records -= records;
    *record_count = (uint32_t)records;
    return group;
}

/* Wait for other writes to come: for the group delay at most, since `since_ns`. The mutex is held
 * by the leader. */
static void wait_for_others(vexi_table *table, uint64_t since_ns) {
    lake_log *log = table->log;
    const vexi_lake_config *config = &table->lake->config;
    uint64_t due_ns = since_ns + (uint64_t)config->group_delay_ms * 1000000u;
    while (log->waiting_bytes < config->group_size_bytes &&
           log->waiting_records < VEXI_LOG_GROUP_RECORDS_MAX) {
        if (vexi_monotonic_ns(table->core->env) >= due_ns) {
            return;
        }
        /* The environment's clock is the condition's; a simulated one is past and does not wait. */
        struct timespec until = {.tv_sec = (time_t)(due_ns / 1000000000u),
                                 .tv_nsec = (long)(due_ns % 1000000000u)};
        if (pthread_cond_timedwait(&log->filled, &log->mutex, &until) == ETIMEDOUT) {
            return;
        }
    }
}

vex_status lake_log_commit(vexi_table *table, vexi_wal_write *write, vex_error *err) {
    lake_log *log = table->log;
    VEX_ASSERT(write->record_count <= VEXI_LOG_GROUP_RECORDS_MAX);
    write->next = NULL;
    write->done = false;
    write->status = VEX_INTERNAL;
    uint64_t since_ns = vexi_monotonic_ns(table->core->env);
    pthread_cond_init(&write->turn, NULL);
    pthread_mutex_lock(&log->mutex);
    if (log->last != NULL) {
        log->last->next = write;
    } else {
        log->first = write;
    }
    log->last = write;
    log->waiting_bytes += write->records.size;
    log->waiting_records += write->record_count;
    if (log->waiting_bytes >= table->lake->config.group_size_bytes || write->record_count == 0) {
        pthread_cond_signal(&log->filled);
    }
    /* Woken when done, or when it is at the head of the queue and nobody leads. */
    while (!write->done && (log->leading || log->first != write)) {
        pthread_cond_wait(&write->turn, &log->mutex);
    }
    if (!write->done) {
        log->leading = true;
        if (write->record_count > 0) {
            wait_for_others(table, since_ns);
        }
        uint32_t record_count;
        vexi_wal_write *group = group_take(log, &record_count);
        pthread_mutex_unlock(&log->mutex);
        group_commit(table, group, record_count);
        pthread_mutex_lock(&log->mutex);
        while (group != NULL) {
            vexi_wal_write *next = group->next; /* the write may be gone once it is done */
            group->done = true;
            pthread_cond_signal(&group->turn);
            group = next;
        }
        yield(log);
    }
    pthread_mutex_unlock(&log->mutex);
    pthread_cond_destroy(&write->turn);
    if (write->status != VEX_OK && err != NULL) {
        *err = write->error;
    }
    return write->status;
}

static void apply_nothing(vexi_wal_write *write, uint64_t first_sequence) {
    (void)write;
    (void)first_sequence;
}

vex_status lake_log_settle(vexi_table *table, vex_error *err) {
    if (!__atomic_load_n(&table->log->unsettled, __ATOMIC_ACQUIRE)) {
        return VEX_OK;
    }
    vexi_wal_write nothing = {.apply = apply_nothing};
    return lake_log_commit(table, &nothing, err);
}

/* ---- Still the writer? ------------------------------------------------------------------------
 */

/* Whether there is no object `number`. */
static vex_status object_absent(vexi_table *table, uint64_t number, bool *absent, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, table->core->env);
    char *name = vexi_log_object_name(&arena, table->folder, table->uuid, number);
    uint64_t size;
    vex_status status = name == NULL ? vexi_no_memory(err, VEXI_STORE_NAME_SIZE_MAX)
                                     : vexi_store_size(table->core->store, name, &size, err);
    *absent = status == VEX_NOT_FOUND;
    vexi_arena_deinit(&arena);
    return *absent ? VEX_OK : status;
}

/* Who takes over puts a claim where our next object would be, and it stays there. */
vex_status lake_log_confirm(vexi_table *table, vex_error *err) {
    lake_log *log = table->log;
    bool absent = false;
    uint64_t number = __atomic_load_n(&log->applied, __ATOMIC_ACQUIRE) + 1;
    if (table_owned(table) && !__atomic_load_n(&log->unsettled, __ATOMIC_ACQUIRE)) {
        VEX_TRY(object_absent(table, number, &absent, err));
        if (absent && __atomic_load_n(&log->applied, __ATOMIC_ACQUIRE) + 1 == number) {
            return VEX_OK; /* else it was ours, and may have been deleted since */
        }
    }
    lake_log_lead(log);
    vex_status status = table_owned(table) ? pending_settle(table, err) : VEX_OK;
    if (status == VEX_OK && table_owned(table)) {
        status = object_absent(table, log->applied + 1, &absent, err);
        if (status == VEX_OK && !absent) {
            table_fenced(table);
        }
    }
    if (status == VEX_OK && !table_owned(table)) {
        status = vexi_fail(err, VEX_READ_ONLY, "another node writes '%s' now", table->name);
    }
    lake_log_yield(log);
    return status;
}

/* ---- Clean-up ---------------------------------------------------------------------------------
 */

/* Take the marks at or below the position out; the names of their objects are in the arena. */
static vex_status marks_take(vexi_table *table, uint64_t position, vexi_arena *arena,
                             const char ***names, size_t *count, vex_error *err) {
    lake_log *log = table->log;
    *count = 0;
    pthread_mutex_lock(&log->mutex);
    size_t covered = 0;
    while (covered < log->mark_count && log->marks[covered].number <= position) {
        covered++;
    }
    lake_log_mark *marks = vexi_arena_array(arena, covered, sizeof *marks);
    *names = vexi_arena_array(arena, covered, sizeof **names);
    if (covered > 0 && marks != NULL && *names != NULL) {
        memcpy(marks, log->marks, covered * sizeof *marks);
    }
    pthread_mutex_unlock(&log->mutex);
    if (marks == NULL || *names == NULL) {
        return vexi_no_memory(err, covered * sizeof *marks);
    }
    for (size_t i = 0; i < covered; i++) {
        if (marks[i].size_bytes > 0) {
            char *name = vexi_log_object_name(arena, table->folder, table->uuid, marks[i].number);
            if (name == NULL) {
                return vexi_no_memory(err, VEXI_STORE_NAME_SIZE_MAX);
            }
            (*names)[(*count)++] = name;
        }
    }
    return VEX_OK;
}

void lake_log_committed(vexi_table *table, uint64_t sequence) {
    lake_log *log = table->log;
    uint64_t position = sequence == UINT64_MAX ? UINT64_MAX : vexi_log_position(sequence);
    if (!table_owned(table)) {
        return; /* whoever writes it now deletes */
    }
    vexi_arena arena;
    vexi_arena_init(&arena, table->core->env);
    const char **names;
    size_t count;
    vex_error error;
    vex_status status = marks_take(table, position, &arena, &names, &count, &error);
    for (size_t done = 0; done < count && status == VEX_OK; done += REMOVE_BATCH) {
        size_t part = count - done < REMOVE_BATCH ? count - done : REMOVE_BATCH;
        status = vexi_store_remove_many(table->core->store, names + done, part, &error);
    }
    vexi_arena_deinit(&arena);
    if (status != VEX_OK) { /* again after the next commit, or by the next writer */
        vexi_log(table->core->env, 2, "cannot delete from the log of '%s': %s", table->name,
                 error.message);
        return;
    }
    pthread_mutex_lock(&log->mutex);
    size_t kept = 0;
    for (size_t i = 0; i < log->mark_count; i++) {
        if (log->marks[i].number > position) {
            log->marks[kept++] = log->marks[i];
        }
    }
    log->mark_count = kept;
    pthread_mutex_unlock(&log->mutex);
}

void lake_log_describe(lake_log *log, vex_lake_stats *out) {
    pthread_mutex_lock(&log->mutex);
    for (size_t i = 0; i < log->mark_count; i++) {
        out->log_file_count += log->marks[i].size_bytes > 0 ? 1 : 0;
        out->log_size_bytes += log->marks[i].size_bytes;
    }
    pthread_mutex_unlock(&log->mutex);
    out->log_failed = out->log_failed || __atomic_load_n(&log->unsettled, __ATOMIC_RELAXED);
}
