/* Scan by lists without codes: index files written before there were any.
 *
 * Lists are ranked by their centroids and taken in that order until there are enough of them and
 * they hold enough live rows, which is known from list sizes and the hidden rows before a vector is
 * read. Chosen lists become row ranges; adjacent ones are merged, so that near lists cost one read.
 */
#include "base/guard.h"
#include "query/search_internal.h"

#include <stdlib.h>

typedef struct rank_job {
    const vexi_query *query;
    const vexi_index_file *index;
    uint32_t *lists;
    float *scratch;
} rank_job;

static vex_status rank_run(void *argument, vex_error *err) {
    (void)err;
    rank_job *job = argument;
    vexi_ivf_rank(job->query, job->index->centroids, job->index->list_count, job->lists,
                  job->scratch);
    return VEX_OK;
}

static int list_compare(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

/* Row ranges of the lists (sorted), adjacent ones merged, cut down to the slice's share. */
static size_t lists_ranges(const vexi_scan *scan, const vexi_index_file *index,
                           const uint32_t *lists, uint32_t count, vexi_row_range *ranges) {
    size_t range_count = 0;
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t first = index->list_first[lists[i]];
        uint64_t rows = index->list_first[lists[i] + 1] - first;
        vexi_row_range *last = range_count == 0 ? NULL : &ranges[range_count - 1];
        total += rows;
        if (last != NULL && last->first_row + last->count == first) {
            last->count += rows;
        } else if (rows > 0) {
            ranges[range_count++] = (vexi_row_range){first, rows};
        }
    }
    if (scan->slice_count == 1) {
        return range_count;
    }
    uint64_t share_first, share_end;
    vexi_scan_share(scan, total, &share_first, &share_end);
    uint64_t position = 0; /* of the range's first row among all probed rows */
    size_t kept = 0;
    for (size_t i = 0; i < range_count; i++) {
        uint64_t first = position > share_first ? position : share_first;
        uint64_t end = position + ranges[i].count;
        uint64_t until = end < share_end ? end : share_end;
        if (first < until) {
            ranges[kept++] =
                (vexi_row_range){ranges[i].first_row + (first - position), until - first};
        }
        position = end;
    }
    return kept;
}

static vex_status scan_query(vexi_scan *scan, uint32_t source, const vexi_index_file *index,
                             const vexi_effort *effort, uint32_t query, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    vexi_arena *arena = &scan->scratch->work;
    vexi_arena_reset(arena);
    uint32_t *lists = vexi_arena_array(arena, index->list_count, sizeof *lists);
    float *scratch = vexi_arena_array(arena, index->list_count, sizeof *scratch);
    vexi_row_range *ranges = vexi_arena_array(arena, index->list_count, sizeof *ranges);
    if (lists == NULL || scratch == NULL || ranges == NULL) {
        return vexi_no_memory(err, index->list_count * sizeof *ranges);
    }
    rank_job job = {&scan->queries[query], index, lists, scratch};
    VEX_TRY(vexi_guard_run(rank_run, &job, vexi_source_name(from), err));
    uint32_t count =
        vexi_lists_needed(from, index, lists, index->list_count, effort, scan->request);
    if (count > 1) {
        qsort(lists, count, sizeof *lists, list_compare);
    }
    if (scan->slice == 0) {
        scan->stats.list_count += count;
    }
    size_t range_count = lists_ranges(scan, index, lists, count, ranges);
    return vexi_scan_ranges(scan, source, ranges, range_count, query, 1, arena, err);
}

vex_status vexi_scan_lists(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                           vex_error *err) {
    const vexi_index_file *index = vexi_source_ivf(&scan->view->sources[source]);
    for (uint32_t q = 0; q < scan->query_count; q++) {
        VEX_TRY(scan_query(scan, source, index, effort, q, err));
    }
    return VEX_OK;
}
