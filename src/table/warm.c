/* Warming: what searches of a lake in a bucket will need, fetched before they do.
 *
 * Of a segment there are, in the order in which a search needs them: the head of its index file,
 * fetched when the segment is opened; the codes of its lists; the rest of the index file (ids,
 * checksums); its vectors. Blocks of index files stay in memory as long as their segment; vectors
 * go into the cache of the store, whose levels decide what stays. Graphs are loaded by the index
 * task, which is only reminded here: it alone may do that (segment_graph.h).
 *
 * Large segments first: they are searched by their lists, and a step for each of them is what a
 * cold search waits for. Bytes are asked for in pieces, so that a call can be ended between them
 * and the requests of searches come in between. What a budget has no room for is left out and
 * counted.
 *
 * The prefetch at opening is the same for the codes of all collections, with a quarter of the
 * cache's memory. It is a help and nothing depends on it: where it fails it ends, since what failed
 * is the store, and searches will say so. */
#include <stdlib.h>

#include "table/table_internal.h"

#include "table/segment_graph.h"
#include "table/segment_internal.h"

static const uint64_t piece_size = 4u << 20;

/* Of one call. */
typedef struct warming {
    const vexi_warm_request *request;
    vex_warm_stats *stats;
    uint64_t index_left; /* of the budgets */
    uint64_t data_left;
} warming;

static vex_status check_ended(const warming *w, vex_error *err) {
    const vexi_warm_request *request = w->request;
    bool ended =
        (request->closing != NULL && __atomic_load_n(request->closing, __ATOMIC_RELAXED)) ||
        (request->progress != NULL &&
         __atomic_load_n(&request->progress->cancel, __ATOMIC_RELAXED) != 0);
    return ended ? vexi_fail(err, VEX_CANCELLED, "warming was ended") : VEX_OK;
}

/* Bytes [offset, end) of a file, as far as *left reaches, a piece at a time. */
static vex_status warm_range(warming *w, vexi_segment *segment, bool is_index, uint64_t offset,
                             uint64_t end, uint64_t *left, uint64_t *done, vex_error *err) {
    while (offset < end) {
        uint64_t size = end - offset < piece_size ? end - offset : piece_size;
        if (size > *left) {
            w->stats->left_out_bytes += end - offset;
            return VEX_OK;
        }
        VEX_TRY(check_ended(w, err));
        if (is_index) {
            vexi_piece piece = {.offset = offset, .size = (size_t)size};
            vex_status status = vexi_index_need(&segment->index, &piece, 1, NULL, err);
            if (status != VEX_OK) {
                return vexi_prefix(err, status, "%s", segment->index_object.name);
            }
        } else {
            vexi_range range = {.offset = offset, .size = (size_t)size};
            VEX_TRY(vexi_store_warm(segment->core->store, segment->object_name, &range, 1, err));
        }
        *left -= size;
        *done += size;
        offset += size;
    }
    return VEX_OK;
}

static vex_status warm_segment(warming *w, vexi_segment *segment, vex_error *err) {
    vexi_index_file *index = &segment->index;
    w->stats->segment_count++;
    if (!segment->indexed || index->fetch == NULL || vexi_segment_check(segment, NULL) != VEX_OK) {
        return VEX_OK; /* in memory, mapped, or of no use */
    }
    if (w->request->codes_only) {
        if (index->code_bits == 0) {
            return VEX_OK;
        }
        return warm_range(w, segment, true, index->codes_offset + index->code_offsets[0],
                          index->codes_offset + index->code_offsets[index->list_count],
                          &w->index_left, &w->stats->index_bytes, err);
    }
    VEX_TRY(warm_range(w, segment, true, index->bulk_offset, index->bytes.size, &w->index_left,
                       &w->stats->index_bytes, err));
    return w->request->vectors ? warm_range(w, segment, false, 0, segment->size_bytes,
                                            &w->data_left, &w->stats->data_bytes, err)
                               : VEX_OK;
}

static int compare_rows(const void *a, const void *b) {
    uint64_t left = vexi_segment_row_count(((const table_segment *)a)->segment);
    uint64_t right = vexi_segment_row_count(((const table_segment *)b)->segment);
    return (left < right) - (left > right);
}

static void count_graph(const vexi_table *table, vexi_segment *segment, vex_warm_stats *stats) {
    if (table->schema->schema.index == VEX_INDEX_HNSW && vexi_segment_graph_wanted(segment)) {
        bool loaded = vexi_segment_graph_state(segment) == VEXI_GRAPH_LOADED;
        stats->graph_count += loaded ? 1 : 0;
        stats->graph_missing_count += loaded ? 0 : 1;
    }
}

/* With what is left of the budgets, which is told back. */
static vex_status warm_table(warming *w, vexi_table *table, vex_error *err) {
    table_segment *segments = NULL;
    vex_progress *progress = w->request->progress;
    pthread_mutex_lock(&table->state_lock);
    size_t count = table->dropped ? 0 : table->segment_count;
    vex_status status = count == 0 ? VEX_OK : table_segments_share(table, &segments, err);
    pthread_mutex_unlock(&table->state_lock);
    if (status != VEX_OK || count == 0) {
        return status;
    }
    qsort(segments, count, sizeof *segments, compare_rows);
    for (size_t i = 0; i < count && progress != NULL; i++) {
        __atomic_fetch_add(&progress->rows_total, vexi_segment_row_count(segments[i].segment),
                           __ATOMIC_RELAXED);
    }
    for (size_t i = 0; i < count && status == VEX_OK; i++) {
        vexi_segment *segment = segments[i].segment;
        status = warm_segment(w, segment, err);
        count_graph(table, segment, w->stats);
        if (progress != NULL) {
            __atomic_fetch_add(&progress->rows_done, vexi_segment_row_count(segment),
                               __ATOMIC_RELAXED);
        }
    }
    table_segments_free(table->core->env, segments, count);
    return status;
}

vex_status vexi_table_warm(vexi_table *table, const vexi_warm_request *request,
                           vex_warm_stats *stats, vex_error *err) {
    const vexi_lake_config *config = &table->lake->config;
    warming w = {.request = request,
                 .stats = stats,
                 .index_left = config->cache_memory_bytes,
                 .data_left = config->cache_disk_bytes > config->cache_memory_bytes
                                  ? config->cache_disk_bytes
                                  : config->cache_memory_bytes};
    lake_index_soon(table->lake);
    return warm_table(&w, table, err);
}

/* ---- At opening ------------------------------------------------------------------------------ */

void prefetch_run(void *argument) {
    vexi_lake *lake = argument;
    vex_warm_stats stats = {0};
    vexi_warm_request request = {.codes_only = true, .closing = &lake->closing};
    warming w = {
        .request = &request, .stats = &stats, .index_left = lake->config.cache_memory_bytes / 4};
    vex_status status = VEX_OK;
    vex_error error;
    for (size_t i = 0; status == VEX_OK && w.index_left >= piece_size; i++) {
        pthread_rwlock_rdlock(&lake->tables_lock);
        vexi_table *table = i < lake->table_count ? lake->tables[i] : NULL;
        if (table != NULL) {
            table_retain(table);
        }
        pthread_rwlock_unlock(&lake->tables_lock);
        if (table == NULL) {
            break;
        }
        status = warm_table(&w, table, &error);
        vexi_table_release(table);
    }
    if (status != VEX_OK && status != VEX_CANCELLED) {
        vexi_log(lake->core->env, 1, "prefetch ended: %s", error.message);
    } else if (stats.index_bytes > 0) {
        vexi_log(lake->core->env, 0, "prefetched %llu bytes of %llu segments",
                 (unsigned long long)stats.index_bytes, (unsigned long long)stats.segment_count);
    }
}
