/* Flush: a sealed memtable becomes one segment.
 *
 *     sealed ──build──► files put ──commit──► published ──► log files may go
 *
 * Oldest first, one at a time per table (commit lock). Nothing is forgotten before the commit is
 * published; a failure at any step leaves the memtable where it is, and the next flush starts over
 * with new files. Those of the failed attempt are removed, unless the outcome of its commit is
 * unknown: then they stay, perhaps as garbage that no version names. */
#include "table/table_internal.h"

enum { RETRY_SHIFT_MAX = 6 }; /* a failing flush is tried again after 1 s, 2 s, ... 64 s */

/* Ids of a memtable: each id once, its newest row. */
typedef struct memtable_ids {
    const vexi_memtable *memtable;
    uint64_t count;
    uint64_t next;
} memtable_ids;

static void ids_restart(void *context) {
    ((memtable_ids *)context)->next = 0;
}

static vex_status ids_next(void *context, bool *more, vex_string *id, uint64_t *hash,
                           vex_error *err) {
    (void)err;
    memtable_ids *ids = context;
    while (ids->next < ids->count) {
        uint64_t row = ids->next++;
        if (vexi_memtable_previous(ids->memtable, row) == VEXI_NO_ROW) {
            *id = vexi_memtable_row(ids->memtable, row).id;
            *hash = vexi_memtable_hash(ids->memtable, row);
            *more = true;
            return VEX_OK;
        }
    }
    *more = false;
    return VEX_OK;
}

/* Flush the oldest sealed memtable. Commit lock. */
static vex_status flush_oldest(vexi_table *table, vex_error *err) {
    const vexi_env *env = table->core->env;
    /* What a damaged segment hides cannot be told, so nothing can be committed: say so before hours
     * of retries build files for nothing. Segments change under the commit lock alone. */
    VEX_TRY(commit_check_writable(table->folder, &table->delta, err));
    VEX_TRY(table_mend_all(table, err));
    for (size_t i = 0; i < table->segment_count; i++) {
        if (!vexi_segment_unread(table->segments[i].segment)) { /* the commit opens it anew */
            VEX_TRY(vexi_segment_check(table->segments[i].segment, err));
        }
    }
    /* Entries leave `sealed` under the commit lock alone. */
    vexi_memtable *memtable = table->sealed[0].memtable;
    uint64_t count = vexi_memtable_count(memtable);
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_row *rows = vexi_alloc_array(env, count, sizeof *rows);
    const vexi_row **live = vexi_alloc_array(env, count, sizeof *live);
    commit_segment segment = {.segment = NULL};
    vex_status status = VEX_OK;
    if (rows == NULL || live == NULL) {
        status = vexi_no_memory(err, count * sizeof *rows);
        goto done;
    }
    size_t live_count = 0;
    for (uint64_t row = 0; row < count; row++) {
        if (!vexi_memtable_superseded(memtable, row, count) &&
            !vexi_memtable_is_tombstone(memtable, row)) {
            rows[live_count] = vexi_memtable_row(memtable, row);
            live[live_count] = &rows[live_count];
            live_count++;
        }
    }
    if (live_count > 0) {
        VEX_TRY_GOTO(status, done, segment_build(table, live, live_count, &segment, &arena, err));
    }
    memtable_ids ids = {.memtable = memtable, .count = count};
    commit_request request = {
        .operation = "WRITE",
        .segments = &segment,
        .segment_count = live_count > 0 ? 1 : 0,
        .ids = {.restart = ids_restart, .next = ids_next, .context = &ids},
        .sequence = vexi_memtable_sequence(memtable),
        .flushed_count = 1,
    };
    uint64_t sequence = request.sequence;
    status = table_commit(table, &request, err);
    if (live_count > 0 && request.unnamed) {
        segment_discard(table, &segment);
    }
    if (status != VEX_OK) {
        goto done;
    }
    pthread_mutex_lock(&table->state_lock);
    table->flush_count++;
    table->last_error[0] = '\0';
    pthread_cond_broadcast(&table->flushed);
    pthread_mutex_unlock(&table->state_lock);
    table_log_committed(table, sequence);
done:
    vexi_segment_release(segment.segment);
    vexi_free(env, rows);
    vexi_free(env, live);
    vexi_arena_deinit(&arena);
    return status;
}

/* Take the commit lock to flush. Writers that need room wait for each memtable of a flusher
 * (table_flush_sealed), not for the lock, which is held until all are flushed. */
static void flusher_begin(vexi_table *table) {
    pthread_mutex_lock(&table->state_lock);
    table->flusher_count++;
    pthread_mutex_unlock(&table->state_lock);
    pthread_mutex_lock(&table->commit_lock);
}

static void flusher_end(vexi_table *table) {
    pthread_mutex_unlock(&table->commit_lock);
    pthread_mutex_lock(&table->state_lock);
    table->flusher_count--;
    pthread_cond_broadcast(&table->flushed);
    pthread_mutex_unlock(&table->state_lock);
}

/* Flush what is sealed, and with `all` the active memtable too. Commit lock. */
static vex_status flush_locked(vexi_table *table, bool all, vex_error *err) {
    for (;;) {
        pthread_mutex_lock(&table->state_lock);
        vex_status status = VEX_OK;
        if (all && table->sealed_count < TABLE_SEALED_MAX) {
            status = table_seal(table, err);
            all = false;
        }
        size_t sealed_count = table->sealed_count;
        bool dropped = table->dropped;
        pthread_mutex_unlock(&table->state_lock);
        VEX_TRY(status);
        if (dropped || sealed_count == 0) {
            return VEX_OK;
        }
        VEX_TRY(flush_oldest(table, err));
    }
}

/* Rows that another node wrote and did not flush are flushed by who may write: this node, if that
 * one is gone. Commit lock. */
static vex_status flush_claim(vexi_table *table, vex_error *err) {
    if (table_owned(table)) {
        return VEX_OK;
    }
    VEX_TRY(table_follow_locked(table, err));
    pthread_mutex_lock(&table->state_lock);
    bool rows = table->active.memtable != NULL && vexi_memtable_count(table->active.memtable) > 0;
    pthread_mutex_unlock(&table->state_lock);
    return rows ? table_claim_locked(table, err) : VEX_OK;
}

vex_status vexi_table_flush(vexi_table *table, vex_error *err) {
    if (table->lake->config.read_only) {
        return vexi_fail(err, VEX_READ_ONLY, "the lake is opened read-only");
    }
    flusher_begin(table);
    vex_status status = table->log == NULL ? VEX_OK : flush_claim(table, err);
    if (status == VEX_OK && table_owned(table)) {
        status = flush_locked(table, true, err);
    }
    if (status == VEX_OK) {
        status = table_refresh(table, err);
    }
    flusher_end(table);
    return status;
}

/* State lock. */
static bool lags(const vexi_table *table) {
    return !table->dropped && table->sealed_count > TABLE_SEALED_WAIT;
}

vex_status table_flush_sealed(vexi_table *table, vex_error *err) {
    vex_status status = VEX_OK;
    pthread_mutex_lock(&table->state_lock);
    while (lags(table) && table->flusher_count > 0) {
        pthread_cond_wait(&table->flushed, &table->state_lock);
    }
    bool wanted = lags(table);
    table->flusher_count += wanted; /* here, so that one writer of those that wait begins */
    pthread_mutex_unlock(&table->state_lock);
    if (!wanted) {
        return VEX_OK;
    }
    pthread_mutex_lock(&table->commit_lock);
    while (status == VEX_OK) {
        pthread_mutex_lock(&table->state_lock);
        wanted = lags(table);
        pthread_mutex_unlock(&table->state_lock);
        if (!wanted) {
            break;
        }
        status = flush_oldest(table, err);
    }
    flusher_end(table);
    return status;
}

/* The background task: what is full, and what is old. */
void flush_run(void *argument) {
    vexi_table *table = argument;
    const vexi_env *env = table->core->env;
    uint64_t interval_ns = (uint64_t)table->lake->config.flush_interval_ms * 1000000u;
    pthread_mutex_lock(&table->state_lock);
    bool any = table->active.memtable != NULL && vexi_memtable_count(table->active.memtable) > 0;
    bool old =
        any && (table->flush_now || vexi_monotonic_ns(env) - table->active_since_ns >= interval_ns);
    table->flush_now = false;
    pthread_mutex_unlock(&table->state_lock);
    vex_error error;
    if (!table_owned(table)) {
        return; /* whoever took it over flushes */
    }
    flusher_begin(table);
    vex_status status = flush_locked(table, old, &error);
    flusher_end(table);
    if (__atomic_load_n(&table->lake->closing, __ATOMIC_RELAXED)) {
        return;
    }
    if (status != VEX_OK && !table_owned(table)) {
        return;
    }
    if (status != VEX_OK) {
        table_note_error(table, &error);
        /* What failed may be mended: a full disk. */
        vexi_submit(env, &table->flush_task, 1000u << table->flush_failures);
        table->flush_failures += table->flush_failures < RETRY_SHIFT_MAX ? 1 : 0;
        return;
    }
    table->flush_failures = 0;
    pthread_mutex_lock(&table->state_lock);
    any = !table->dropped && table->active.memtable != NULL &&
          vexi_memtable_count(table->active.memtable) > 0;
    uint64_t age_ns = any ? vexi_monotonic_ns(env) - table->active_since_ns : 0;
    pthread_mutex_unlock(&table->state_lock);
    if (any) {
        uint64_t left_ns = age_ns < interval_ns ? interval_ns - age_ns : 0;
        vexi_submit(env, &table->flush_task, (uint32_t)(left_ns / 1000000u) + 1);
    }
}
