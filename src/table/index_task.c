/* The index task: one for a lake, so that one graph at a time is built.
 *
 * It goes over the tables; in each it does one piece of work and moves on, until none is left:
 * a segment without an index is indexed (reindex.c), a graph file is loaded, a missing graph is
 * built, the largest segment's first. Segments stay searchable as they are meanwhile. It holds
 * references to the segments, no lock, and is told to leave a table by `index_cancel`: when the
 * lake is closed or the table dropped.
 *
 * What fails for one segment is noted, and the others go on; that one is left alone for a while,
 * which doubles with each failure. */
#include "table/segment_internal.h"
#include "table/table_internal.h"

enum {
    INDEX_DELAY_MS = 500,  /* after a change: several come together */
    INDEX_LOOK_MS = 10000, /* a reader looks for graphs that the writer made since */
    INDEX_RETRY_MS = 1000, /* what failed is tried again after 1 s, 2 s, ... 64 s */
    INDEX_RETRY_SHIFT_MAX = 6
};

/* What a look at a table found. */
typedef enum index_step {
    INDEX_NOTHING,
    INDEX_LOOK,   /* nothing to do here, but a writer may */
    INDEX_MORE,   /* something was done; look again */
    INDEX_FAILED, /* try again later */
} index_step;

void lake_index_soon(vexi_lake *lake) {
    if (__atomic_load_n(&lake->ready, __ATOMIC_ACQUIRE) &&
        !__atomic_load_n(&lake->closing, __ATOMIC_RELAXED)) {
        vexi_submit(lake->core->env, &lake->index_task, INDEX_DELAY_MS);
    }
}

void table_graphs_remove(vexi_table *table, const table_segment *segments, size_t count) {
    if (!table_owned(table) || table->schema->schema.index != VEX_INDEX_HNSW) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (vexi_segment_ivf(segments[i].segment) != NULL) {
            vexi_segment_graph_remove(segments[i].segment);
        }
    }
}

static bool leaving(const vexi_table *table) {
    return __atomic_load_n(&table->index_cancel, __ATOMIC_RELAXED) != 0;
}

static index_step step_failed(vexi_table *table, vex_status status, const vex_error *error) {
    if (status == VEX_CANCELLED || leaving(table)) {
        return INDEX_NOTHING;
    }
    table_note_error(table, error);
    return INDEX_FAILED;
}

static uint32_t retry_ms(uint32_t failures) {
    return (uint32_t)INDEX_RETRY_MS
           << (failures < INDEX_RETRY_SHIFT_MAX ? failures : INDEX_RETRY_SHIFT_MAX);
}

/* Whether work on the segment failed a while ago only. */
static bool waits(const vexi_segment *segment) {
    return segment->index_failures > 0 &&
           vexi_monotonic_ns(segment->core->env) < segment->index_retry_ns;
}

/* The same of work on one segment: the others need not wait for it. */
static index_step segment_failed(vexi_table *table, vexi_segment *segment, vex_status status,
                                 const vex_error *error) {
    index_step step = step_failed(table, status, error);
    if (step == INDEX_FAILED) {
        segment->index_retry_ns = vexi_monotonic_ns(segment->core->env) +
                                  retry_ms(segment->index_failures) * (uint64_t)1000000;
        segment->index_failures++;
    }
    return step;
}

/* Index a segment that has none. */
static index_step step_reindex(vexi_table *table, const table_segment *segments, size_t count) {
    index_step step = INDEX_NOTHING;
    if (!table_owned(table)) {
        return INDEX_NOTHING;
    }
    for (size_t i = 0; i < count && !leaving(table); i++) {
        const table_segment *entry = &segments[i];
        if (!vexi_segment_is_foreign(entry->segment) ||
            vexi_segment_check(entry->segment, NULL) != VEX_OK) {
            continue;
        }
        if (waits(entry->segment)) {
            step = INDEX_FAILED;
            continue;
        }
        vex_error error;
        pthread_mutex_lock(&table->commit_lock);
        vex_status status = commit_check_writable(table->folder, &table->delta, &error);
        pthread_mutex_unlock(&table->commit_lock);
        if (status != VEX_OK) {
            return step; /* another engine asks for more than we do: it stays exact */
        }
        status = table_reindex(table, entry, &error);
        if (status == VEX_CONFLICT || status == VEX_NOT_FOUND) {
            /* The file is gone, or the table: without a look at what is there now the same would be
             * tried again. */
            pthread_mutex_lock(&table->commit_lock);
            status = leaving(table) ? VEX_OK : table_refresh(table, &error);
            pthread_mutex_unlock(&table->commit_lock);
        }
        if (status == VEX_OK) {
            return INDEX_MORE;
        }
        step = segment_failed(table, entry->segment, status, &error);
    }
    return step;
}

/* The segment with the most rows among those whose graphs are missing; NULL: none. */
static vexi_segment *largest_missing(const table_segment *segments, size_t count) {
    vexi_segment *largest = NULL;
    for (size_t i = 0; i < count; i++) {
        vexi_segment *segment = segments[i].segment;
        if (vexi_segment_graph_wanted(segment) && !waits(segment) &&
            vexi_segment_graph_state(segment) == VEXI_GRAPH_MISSING &&
            (largest == NULL ||
             vexi_segment_row_count(segment) > vexi_segment_row_count(largest))) {
            largest = segment;
        }
    }
    return largest;
}

/* Load what is there; of what is missing build the largest. */
static index_step step_graphs(vexi_table *table, const table_segment *segments, size_t count) {
    const vexi_lake_config *config = &table->lake->config;
    bool read_only = !table_owned(table);
    if (table->schema->schema.index != VEX_INDEX_HNSW || config->graph_memory_bytes == 0) {
        return INDEX_NOTHING;
    }
    const vexi_rotation *rotation = &table->schema->rotation;
    index_step step = INDEX_NOTHING;
    bool wanting = false;
    vex_error error;
    for (size_t i = 0; i < count && !leaving(table); i++) {
        vexi_segment *segment = segments[i].segment;
        vexi_graph_state state = vexi_segment_graph_state(segment);
        if (state == VEXI_GRAPH_LOADED || !vexi_segment_graph_wanted(segment)) {
            continue;
        }
        if (waits(segment)) {
            step = INDEX_FAILED;
            continue;
        }
        if (state != VEXI_GRAPH_MISSING || read_only) {
            vex_status status =
                vexi_segment_graph_load(segment, rotation->seed, config->graph_memory_bytes,
                                        read_only, &table->index_cancel, &error);
            if (status != VEX_OK) {
                step = segment_failed(table, segment, status, &error);
                continue;
            }
        }
        wanting = wanting || vexi_segment_graph_state(segment) == VEXI_GRAPH_MISSING;
    }
    if (read_only) {
        return step == INDEX_NOTHING && wanting ? INDEX_LOOK : step;
    }
    for (vexi_segment *largest; (largest = largest_missing(segments, count)) != NULL;) {
        if (leaving(table)) {
            break;
        }
        vex_status status = vexi_segment_graph_build(largest, rotation, config->graph_memory_bytes,
                                                     &table->index_cancel, &error);
        pthread_mutex_lock(&table->state_lock);
        bool dropped = table->dropped;
        pthread_mutex_unlock(&table->state_lock);
        if (dropped) {
            /* While it was built: whoever dropped it may have looked before the put. Where the lake
             * is closing, a file that was put stays for the next opening. */
            vexi_segment_graph_remove(largest);
        }
        if (status == VEX_OK) {
            largest->index_failures = 0;
            return INDEX_MORE;
        }
        step = segment_failed(table, largest, status, &error);
        if (step != INDEX_FAILED) {
            break; /* leaving */
        }
    }
    return step;
}

static index_step table_step(vexi_table *table) {
    table_segment *segments = NULL;
    vex_error error;
    pthread_mutex_lock(&table->state_lock);
    size_t count = table->dropped ? 0 : table->segment_count;
    vex_status status = count == 0 ? VEX_OK : table_segments_share(table, &segments, &error);
    pthread_mutex_unlock(&table->state_lock);
    if (status != VEX_OK) {
        return step_failed(table, status, &error);
    }
    if (segments == NULL || leaving(table)) {
        table_segments_free(table->core->env, segments, count);
        return INDEX_NOTHING;
    }
    index_step step = step_reindex(table, segments, count);
    if (step != INDEX_MORE) {
        index_step graphs = step_graphs(table, segments, count);
        step = graphs == INDEX_MORE || step == INDEX_NOTHING ? graphs : step;
    }
    table_segments_free(table->core->env, segments, count);
    return step;
}

void index_run(void *argument) {
    vexi_lake *lake = argument;
    index_step most = INDEX_NOTHING;
    bool failed = false;
    for (size_t i = 0; !__atomic_load_n(&lake->closing, __ATOMIC_RELAXED); i++) {
        pthread_rwlock_rdlock(&lake->tables_lock);
        vexi_table *table = i < lake->table_count ? lake->tables[i] : NULL;
        if (table != NULL) {
            table_retain(table);
        }
        pthread_rwlock_unlock(&lake->tables_lock);
        if (table == NULL) {
            break;
        }
        index_step step = table_step(table);
        failed = failed || step == INDEX_FAILED;
        most = step == INDEX_MORE || (step == INDEX_LOOK && most == INDEX_NOTHING) ? step : most;
        vexi_table_release(table);
    }
    if (__atomic_load_n(&lake->closing, __ATOMIC_RELAXED)) {
        return;
    }
    if (most == INDEX_MORE) { /* whatever failed beside it */
        vexi_submit(lake->core->env, &lake->index_task, 0);
        return;
    }
    if (failed) {
        vexi_submit(lake->core->env, &lake->index_task, retry_ms(lake->index_failures));
        lake->index_failures += lake->index_failures < INDEX_RETRY_SHIFT_MAX ? 1 : 0;
        return;
    }
    lake->index_failures = 0;
    if (most == INDEX_LOOK && lake->config.refresh_interval_ms > 0) {
        vexi_submit(lake->core->env, &lake->index_task, INDEX_LOOK_MS);
    }
}
