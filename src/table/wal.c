#include "table/wal.h"

#include <stdio.h>

enum {
    GROUP_SIZE_MAX = 32 << 20, /* a group is cut behind the write that passes this */
    GROUP_PARTS_MAX = 1024     /* writes of one group */
};

typedef struct file_entry {
    char collection[37];
    uint64_t sequence;
} file_entry;

typedef struct wal_file {
    struct wal_file *next; /* younger */
    uint64_t number;
    uint64_t size_bytes; /* mutex; of the current file, as the last leader left it */
    file_entry *entries;
    size_t entry_count;
    size_t entry_capacity;
} wal_file;

struct vexi_wal {
    const vexi_env *env;    /* immutable */
    vexi_store *store;      /* immutable */
    vexi_wal_config config; /* immutable */
    char uuid[37];          /* immutable */

    pthread_mutex_t mutex;
    vexi_wal_write *first; /* waiting writes; mutex */
    vexi_wal_write *last;  /* mutex */
    bool leading;          /* a leader is at work; mutex */

    wal_file *oldest;  /* mutex */
    wal_file *current; /* mutex for its entries; the leader for the pointer */

    /* The leader's alone, or under the mutex while nobody leads. */
    vexi_log_file *log;   /* NULL while broken */
    uint64_t size;        /* bytes appended to the current file */
    uint64_t synced_size; /* of those, durable */
    uint64_t next_sequence;
    uint64_t next_number; /* of the next file; spent even if making it fails */
    bool unsettled;       /* atomic: a write of the current file has an unknown outcome */
    bool broken;          /* an append or sync failed: begin a new file first */
    bool sync_failed;     /* of the current file: a second sync would prove nothing */
    uint64_t sync_due_ns; /* interval durability: when what is not synced must be */
    bool sync_queued;     /* interval durability; mutex */
    vexi_task sync_task;

    /* For vexi_wal_describe, as the last leader left them; mutex. */
    uint64_t told_unsynced;
    bool told_broken;
};

/* Note what the leader left. The mutex is held and nobody leads. */
static void tell(vexi_wal *wal) {
    wal->current->size_bytes = wal->size;
    wal->told_unsynced = wal->size - wal->synced_size;
    wal->told_broken = wal->broken;
}

void vexi_wal_file_name(uint64_t number, char out[64]) {
    snprintf(out, 64, ".vexlake/wal/%020llu.wal", (unsigned long long)number);
}

static void file_destroy(const vexi_env *env, wal_file *file) {
    vexi_free(env, file->entries);
    vexi_free(env, file);
}

/* Begin the next file, with the cut of the current one; its header is durable on return. On failure
 * the old state stays. */
static vex_status file_begin(vexi_wal *wal, uint64_t previous_cut, vex_error *err) {
    char name[64];
    uint64_t number = wal->next_number++;
    vexi_wal_file_name(number, name);
    vexi_wal_header header = {.number = number,
                              .first_sequence = wal->next_sequence,
                              .previous_number = wal->current == NULL ? 0 : wal->current->number,
                              .previous_cut = previous_cut};
    memcpy(header.uuid, wal->uuid, sizeof header.uuid);
    uint8_t bytes[VEXI_WAL_HEADER_SIZE];
    vexi_wal_header_write(&header, bytes);
    wal_file *file = vexi_calloc(wal->env, 1, sizeof *file);
    if (file == NULL) {
        return vexi_no_memory(err, sizeof *file);
    }
    file->number = number;
    vexi_log_file *log = NULL;
    vexi_span part = vexi_span_of(bytes, sizeof bytes);
    vex_status status = vexi_store_log_create(wal->store, name, &log, err);
    if (status == VEX_OK) {
        status = vexi_store_log_append(log, &part, 1, err);
    }
    if (status == VEX_OK) {
        status = vexi_store_log_sync(log, err);
    }
    if (status != VEX_OK) {
        vexi_store_log_close(log);
        if (log != NULL && vexi_store_remove(wal->store, name, NULL) != VEX_OK) {
            /* Recovery may find this file, without records, and believe its cut. So nothing more
             * may be appended behind the cut. */
            wal->broken = true;
        }
        vexi_free(wal->env, file);
        return status;
    }
    vexi_store_log_close(wal->log);
    uint64_t previous_size = wal->size; /* 0: the first of this process */
    wal->log = log;
    wal->size = sizeof bytes;
    wal->synced_size = sizeof bytes;
    wal->broken = false;
    wal->sync_failed = false;
    __atomic_store_n(&wal->unsettled, false, __ATOMIC_RELEASE);
    pthread_mutex_lock(&wal->mutex);
    if (wal->current != NULL) {
        wal->current->next = file;
        wal->current->size_bytes = previous_size != 0 ? previous_size : wal->current->size_bytes;
    } else {
        wal->oldest = file;
    }
    wal->current = file;
    file->size_bytes = sizeof bytes;
    pthread_mutex_unlock(&wal->mutex);
    return VEX_OK;
}

static void sync_run(void *argument);

vex_status vexi_wal_create(const vexi_env *env, vexi_store *store, const vexi_wal_config *config,
                           const char uuid[37], uint64_t number, uint64_t next_sequence,
                           uint64_t previous_cut, const vexi_wal_old_file *old, size_t old_count,
                           vexi_wal **out, vex_error *err) {
    *out = NULL;
    vexi_wal *wal = vexi_calloc(env, 1, sizeof *wal);
    if (wal == NULL) {
        return vexi_no_memory(err, sizeof *wal);
    }
    wal->env = env;
    wal->store = store;
    wal->config = *config;
    wal->next_sequence = next_sequence;
    wal->next_number = number;
    wal->sync_task = (vexi_task){.run = sync_run, .argument = wal};
    memcpy(wal->uuid, uuid, sizeof wal->uuid);
    pthread_mutex_init(&wal->mutex, NULL);
    vex_status status = VEX_OK;
    for (size_t i = 0; i < old_count && status == VEX_OK; i++) {
        wal_file *file = vexi_calloc(env, 1, sizeof *file);
        if (file == NULL) {
            status = vexi_no_memory(err, sizeof *file);
            break;
        }
        file->number = old[i].number;
        file->size_bytes = old[i].size_bytes;
        if (wal->current != NULL) {
            wal->current->next = file;
        } else {
            wal->oldest = file;
        }
        wal->current = file;
        if (old[i].entry_count > 0) {
            file->entries = vexi_alloc_array(env, old[i].entry_count, sizeof *file->entries);
            if (file->entries == NULL) {
                status = vexi_no_memory(err, old[i].entry_count * sizeof *file->entries);
                break;
            }
            file->entry_count = file->entry_capacity = old[i].entry_count;
            for (size_t j = 0; j < old[i].entry_count; j++) {
                memcpy(file->entries[j].collection, old[i].entries[j].collection, 37);
                file->entries[j].sequence = old[i].entries[j].sequence;
            }
        }
    }
    if (status == VEX_OK) {
        status = file_begin(wal, previous_cut, err);
    }
    if (status != VEX_OK) {
        (void)vexi_wal_destroy(wal, NULL);
        return status;
    }
    *out = wal;
    return VEX_OK;
}

void vexi_wal_stop(vexi_wal *wal) {
    if (wal != NULL) {
        vexi_cancel(wal->env, &wal->sync_task);
    }
}

vex_status vexi_wal_destroy(vexi_wal *wal, vex_error *err) {
    if (wal == NULL) {
        return VEX_OK;
    }
    vexi_wal_stop(wal);
    vex_status status = VEX_OK;
    if (wal->log != NULL && !wal->broken && wal->synced_size < wal->size) {
        status = vexi_store_log_sync(wal->log, err);
    }
    vexi_store_log_close(wal->log);
    while (wal->oldest != NULL) {
        wal_file *next = wal->oldest->next;
        file_destroy(wal->env, wal->oldest);
        wal->oldest = next;
    }
    pthread_mutex_destroy(&wal->mutex);
    vexi_free(wal->env, wal);
    return status;
}

/* ---- Groups -----------------------------------------------------------------------------------
 */

/* Note in the current file that it holds the collection up to `sequence`. Memory for one more entry
 * was reserved by group_reserve. */
static void file_note(wal_file *file, const char collection[37], uint64_t sequence) {
    /* The newest entry is the likeliest: a busy collection writes many groups in a row. */
    for (size_t i = file->entry_count; i-- > 0;) {
        if (memcmp(file->entries[i].collection, collection, 37) == 0) {
            file->entries[i].sequence = sequence;
            return;
        }
    }
    VEX_ASSERT(file->entry_count < file->entry_capacity);
    memcpy(file->entries[file->entry_count].collection, collection, 37);
    file->entries[file->entry_count].sequence = sequence;
    file->entry_count++;
}

/* Number and seal the group's records; fill parts. Returns the group's size. */
static size_t group_seal(vexi_wal *wal, vexi_wal_write *group, vexi_span *parts) {
    size_t size = 0;
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        size += w->records.size;
    }
    uint64_t sequence = wal->next_sequence;
    size_t done = 0;
    size_t part = 0;
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        for (size_t at = 0; at < w->records.size;) {
            uint8_t *record = w->records.data + at;
            size_t record_size = vexi_wal_record_size(record);
            vexi_wal_record_seal_at(record, sequence++, wal->size + done, wal->synced_size,
                                    size - done);
            at += record_size;
            done += record_size;
        }
        parts[part++] = vexi_span_of(w->records.data, w->records.size);
    }
    return size;
}

static void group_fail(vexi_wal_write *group, vex_status status, const vex_error *error,
                       const char *prefix) {
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        w->error = *error;
        w->status = status;
        (void)vexi_prefix(&w->error, status, "%s", prefix);
        w->error.status = status;
    }
}

/* Make what was acknowledged in the current file durable, before a new file says that it counts.
 * What cannot be synced does not count any more; with interval durability it was acknowledged. */
static void current_settle(vexi_wal *wal) {
    if (wal->synced_size == wal->size) {
        return;
    }
    vex_error error = {.message = "an earlier sync failed"};
    if (!wal->sync_failed && vexi_store_log_sync(wal->log, &error) == VEX_OK) {
        wal->synced_size = wal->size;
        return;
    }
    vexi_log(wal->env, 3, "log: %llu acknowledged bytes are not on disk: %s",
             (unsigned long long)(wal->size - wal->synced_size), error.message);
    wal->size = wal->synced_size;
    wal->broken = true;
    wal->sync_failed = true;
    wal->config.lost(wal->config.context);
}

/* Append, sync and apply one group; sets the writes' statuses. Runs without the mutex, as leader.
 */
static void group_commit(vexi_wal *wal, vexi_wal_write *group) {
    vex_error error = {.message = ""};
    vex_status status = VEX_OK;
    if (wal->broken || wal->size >= wal->config.file_size_bytes) {
        current_settle(wal);
        status = file_begin(wal, wal->synced_size, &error);
        if (status != VEX_OK && wal->broken) {
            group_fail(group, status, &error, "write refused, no new log file");
            return;
        }
        /* A full file that cannot be followed yet goes on growing. */
    }
    size_t write_count = 0;
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        write_count++;
    }
    vexi_span parts[GROUP_PARTS_MAX];
    pthread_mutex_lock(&wal->mutex);
    wal_file *file = wal->current;
    void *entries = file->entries;
    status = vexi_grow(wal->env, &entries, &file->entry_capacity, file->entry_count,
                       file->entry_count + write_count, sizeof *file->entries, &error);
    file->entries = entries;
    pthread_mutex_unlock(&wal->mutex);
    if (status != VEX_OK) {
        group_fail(group, status, &error, "write refused");
        return;
    }

    size_t size = group_seal(wal, group, parts);
    uint64_t first_sequence = wal->next_sequence;
    status = vexi_store_log_append(wal->log, parts, write_count, &error);
    bool appended = status == VEX_OK;
    if (appended && wal->config.durability == VEX_DURABILITY_ALWAYS) {
        status = vexi_store_log_sync(wal->log, &error);
    }
    if (status != VEX_OK) {
        /* The numbers are spent: they may stand in the abandoned part of the file. */
        for (vexi_wal_write *w = group; w != NULL; w = w->next) {
            wal->next_sequence += w->record_count;
        }
        wal->broken = true;
        wal->sync_failed = wal->sync_failed || appended;
        current_settle(wal);
        vex_error begin_error;
        vex_status begin = file_begin(wal, wal->synced_size, &begin_error);
        if (begin == VEX_OK || (!appended && status == VEX_FULL)) {
            /* Either the cut is durable, or the disk took only a part: a part of a group never
             * replays, and nothing more is appended to this file. */
            group_fail(group, status, &error, "write refused");
        } else {
            __atomic_store_n(&wal->unsettled, true, __ATOMIC_RELEASE);
            group_fail(group, VEX_UNKNOWN_OUTCOME, &error, "outcome unknown");
        }
        vexi_log(wal->env, 3, "log: %s", error.message);
        return;
    }
    if (wal->config.durability == VEX_DURABILITY_ALWAYS) {
        wal->synced_size = wal->size + size;
    } else if (wal->synced_size == wal->size) {
        wal->sync_due_ns =
            vexi_monotonic_ns(wal->env) + (uint64_t)wal->config.sync_interval_ms * 1000000u;
    }
    wal->size += size;
    pthread_mutex_lock(&wal->mutex);
    uint64_t sequence = first_sequence;
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        sequence += w->record_count;
        if (w->record_count > 0) {
            file_note(file, w->collection, sequence - 1);
        }
    }
    pthread_mutex_unlock(&wal->mutex);
    for (vexi_wal_write *w = group; w != NULL; w = w->next) {
        w->status = VEX_OK;
        w->apply(w, wal->next_sequence);
        wal->next_sequence += w->record_count;
    }
}

/* Take the first waiting writes off the queue as a group. The mutex is held. */
static vexi_wal_write *group_take(vexi_wal *wal) {
    vexi_wal_write *group = wal->first;
    vexi_wal_write *last = group;
    size_t size = group->records.size;
    size_t count = 1;
    while (last->next != NULL && count < GROUP_PARTS_MAX &&
           size + last->next->records.size <= GROUP_SIZE_MAX) {
        last = last->next;
        size += last->records.size;
        count++;
    }
    wal->first = last->next;
    if (wal->first == NULL) {
        wal->last = NULL;
    }
    last->next = NULL;
    return group;
}

vex_status vexi_wal_commit(vexi_wal *wal, vexi_wal_write *write, vex_error *err) {
    write->next = NULL;
    write->done = false;
    write->status = VEX_INTERNAL;
    pthread_cond_init(&write->turn, NULL);
    pthread_mutex_lock(&wal->mutex);
    if (wal->last != NULL) {
        wal->last->next = write;
    } else {
        wal->first = write;
    }
    wal->last = write;
    /* Woken when done, or when it is at the head of the queue and nobody leads. */
    while (!write->done && (wal->leading || wal->first != write)) {
        pthread_cond_wait(&write->turn, &wal->mutex);
    }
    if (!write->done) {
        wal->leading = true;
        vexi_wal_write *group = group_take(wal);
        pthread_mutex_unlock(&wal->mutex);
        group_commit(wal, group);
        pthread_mutex_lock(&wal->mutex);
        while (group != NULL) {
            vexi_wal_write *next = group->next; /* the write may be gone once it is done */
            group->done = true;
            pthread_cond_signal(&group->turn);
            group = next;
        }
        if (wal->config.durability == VEX_DURABILITY_INTERVAL && wal->log != NULL &&
            wal->synced_size < wal->size && vexi_monotonic_ns(wal->env) >= wal->sync_due_ns) {
            /* Busy writers lead one after another and the sync task finds no gap, or no thread: who
             * leads when the time is up syncs. */
            pthread_mutex_unlock(&wal->mutex);
            current_settle(wal);
            pthread_mutex_lock(&wal->mutex);
        }
        wal->leading = false;
        tell(wal);
        if (wal->first != NULL) {
            pthread_cond_signal(&wal->first->turn);
        }
        if (wal->config.durability == VEX_DURABILITY_INTERVAL && !wal->sync_queued) {
            wal->sync_queued = true;
            vexi_submit(wal->env, &wal->sync_task, wal->config.sync_interval_ms);
        }
    }
    pthread_mutex_unlock(&wal->mutex);
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

vex_status vexi_wal_settle(vexi_wal *wal, vex_error *err) {
    if (!__atomic_load_n(&wal->unsettled, __ATOMIC_ACQUIRE)) {
        return VEX_OK;
    }
    vexi_wal_write nothing = {.apply = apply_nothing};
    return vexi_wal_commit(wal, &nothing, err);
}

/* Interval durability: sync what was acknowledged. */
static void sync_run(void *argument) {
    vexi_wal *wal = argument;
    pthread_mutex_lock(&wal->mutex);
    wal->sync_queued = false;
    if (wal->leading) {
        /* The leader syncs if the time is up; if it is not quite, or it looked a moment ago, this
         * task does: try again soon rather than hold it up. */
        wal->sync_queued = true;
        vexi_submit(wal->env, &wal->sync_task, 1);
        pthread_mutex_unlock(&wal->mutex);
        return;
    }
    wal->leading = true;
    pthread_mutex_unlock(&wal->mutex);
    if (wal->log != NULL) {
        current_settle(wal);
    }
    pthread_mutex_lock(&wal->mutex);
    wal->leading = false;
    tell(wal);
    if (wal->first != NULL) {
        pthread_cond_signal(&wal->first->turn);
    }
    pthread_mutex_unlock(&wal->mutex);
}

void vexi_wal_describe(vexi_wal *wal, vex_lake_stats *out) {
    pthread_mutex_lock(&wal->mutex);
    for (const wal_file *file = wal->oldest; file != NULL; file = file->next) {
        out->log_file_count++;
        out->log_size_bytes += file->size_bytes;
    }
    out->log_unsynced_bytes = wal->told_unsynced;
    out->log_failed = wal->told_broken;
    pthread_mutex_unlock(&wal->mutex);
}

/* ---- Clean-up ---------------------------------------------------------------------------------
 */

void vexi_wal_committed(vexi_wal *wal, const char collection[37], uint64_t sequence) {
    pthread_mutex_lock(&wal->mutex);
    for (wal_file *file = wal->oldest; file != NULL; file = file->next) {
        for (size_t i = 0; i < file->entry_count; i++) {
            if (memcmp(file->entries[i].collection, collection, 37) == 0 &&
                file->entries[i].sequence <= sequence) {
                file->entries[i] = file->entries[--file->entry_count];
                break;
            }
        }
    }
    /* Oldest first, so that what is left is a chain without gaps. */
    while (wal->oldest != wal->current && wal->oldest->entry_count == 0) {
        wal_file *file = wal->oldest;
        char name[64];
        vexi_wal_file_name(file->number, name);
        vex_error error;
        if (vexi_store_remove(wal->store, name, &error) != VEX_OK) {
            vexi_log(wal->env, 2, "cannot delete a log file: %s", error.message);
            break; /* again after the next commit */
        }
        wal->oldest = file->next;
        file_destroy(wal->env, file);
    }
    pthread_mutex_unlock(&wal->mutex);
}
