/* Scan: candidates of some queries from one source.
 *
 * Memtables and segments without an index are compared row by row, in chunks that bound memory
 * where a store cannot map, and in blocks that stay in cache while all queries of the group pass
 * over them. Segments with an IVF index are probed: lists are ranked by their centroids and taken
 * in that order until there are nprobe of them and they hold enough live rows, which is known from
 * list sizes and the hidden rows before a vector is read. Chosen lists become row ranges; adjacent
 * ones are merged, so that near lists cost one read.
 *
 * What touches mapped bytes runs inside a SIGBUS guard: ranking and comparing, which take no lock
 * and allocate nothing. */
#include "base/bitmap.h"
#include "base/guard.h"
#include "query/search_internal.h"

#include <stdlib.h>

enum {
    CHUNK_SIZE = 32 << 20, /* bytes of vectors fetched at once */
    BLOCK_SIZE = 128 << 10 /* bytes of vectors that stay in cache between queries */
};

/* ---- Comparing ------------------------------------------------------------------------------- */

typedef struct compare_job {
    const vexi_query *queries;
    vexi_topk *topks;
    uint32_t query_count;
    const vexi_run *runs;
    size_t run_count;
    uint32_t source;
    const uint64_t *hidden;
    uint64_t compared;
} compare_job;

static vex_status compare_run(void *argument, vex_error *err) {
    (void)err;
    compare_job *job = argument;
    for (size_t r = 0; r < job->run_count; r++) {
        const vexi_run *run = &job->runs[r];
        size_t step = run->count;
        if (job->query_count > 1) {
            step = BLOCK_SIZE / run->stride;
            step = step < 16 ? 16 : step;
        }
        for (size_t first = 0; first < run->count; first += step) {
            size_t count = run->count - first < step ? run->count - first : step;
            vexi_run block = {
                .vectors = run->vectors + first * run->stride,
                .stride = run->stride,
                .count = count,
                .first_row = run->first_row + first,
                .inverse_norms =
                    run->inverse_norms == NULL ? NULL : run->inverse_norms + first * sizeof(float),
            };
            for (uint32_t q = 0; q < job->query_count; q++) {
                job->compared += vexi_flat_scan(&job->queries[q], &block, job->source, job->hidden,
                                                &job->topks[q]);
            }
        }
    }
    return VEX_OK;
}

/* Fetch and compare; ranges ascend. */
static vex_status compare_ranges(vexi_scan *scan, uint32_t source, const vexi_row_range *ranges,
                                 size_t range_count, uint32_t first_query, uint32_t query_count,
                                 vexi_arena *arena, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    vexi_run *runs = NULL;
    size_t run_count = 0;
    if (range_count == 0) {
        return VEX_OK;
    }
    VEX_TRY(vexi_source_runs(from, ranges, range_count, arena, &runs, &run_count, err));
    compare_job job = {
        .queries = scan->queries + first_query,
        .topks = scan->topks + first_query,
        .query_count = query_count,
        .runs = runs,
        .run_count = run_count,
        .source = source,
        .hidden = from->hidden,
    };
    VEX_TRY(vexi_guard_run(compare_run, &job, vexi_source_name(from), err));
    scan->stats.row_count += job.compared;
    return VEX_OK;
}

/* ---- Flat ------------------------------------------------------------------------------------ */

/* The slice's share of `total` rows. */
static void slice_bounds(const vexi_scan *scan, uint64_t total, uint64_t *first, uint64_t *end) {
    *first = total / scan->slice_count * scan->slice;
    *end = scan->slice + 1 == scan->slice_count ? total
                                                : total / scan->slice_count * (scan->slice + 1);
}

static vex_status scan_flat(vexi_scan *scan, uint32_t source, vex_error *err) {
    uint64_t chunk_rows = CHUNK_SIZE / (scan->view->schema->dimension * sizeof(float));
    uint64_t first, end;
    slice_bounds(scan, scan->view->sources[source].row_count, &first, &end);
    for (; first < end; first += chunk_rows) {
        vexi_arena arena;
        vexi_arena_init(&arena, scan->env);
        vexi_row_range range = {first, end - first < chunk_rows ? end - first : chunk_rows};
        vex_status status =
            compare_ranges(scan, source, &range, 1, 0, scan->query_count, &arena, err);
        vexi_arena_deinit(&arena);
        VEX_TRY(status);
    }
    return VEX_OK;
}

/* ---- IVF ------------------------------------------------------------------------------------- */

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

static uint64_t live_rows(const uint64_t *hidden, uint64_t first, uint64_t end) {
    uint64_t live = end - first;
    if (hidden == NULL) {
        return live;
    }
    uint64_t row = first;
    for (; row < end && row % 64 != 0; row++) {
        live -= vexi_bitmap_get(hidden, row);
    }
    for (; row + 64 <= end; row += 64) {
        live -= (uint64_t)__builtin_popcountll(hidden[row / 64]);
    }
    for (; row < end; row++) {
        live -= vexi_bitmap_get(hidden, row);
    }
    return live;
}

static int list_compare(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;
    return a < b ? -1 : a > b;
}

static uint32_t probe_count(const vexi_index_file *index, uint32_t k, uint32_t nprobe) {
    uint32_t count = nprobe != 0 ? nprobe : vexi_ivf_default_nprobe(index->list_count, k);
    count = count == 0 ? 1 : count;
    return count > index->list_count ? index->list_count : count;
}

/* How many of the ranked lists to probe: nprobe of them, and more while they hold fewer live rows
 * than the answer needs. By default a list counts by the share of its rows that live (a quarter at
 * least), so that deleting a query's neighbourhood does not leave it with empty lists alone. */
static uint32_t lists_needed(const vexi_index_file *index, const uint32_t *lists,
                             const vexi_source *source, uint32_t k, uint32_t nprobe) {
    uint64_t live = source->row_count - source->hidden_count;
    uint64_t wanted = live < k ? live : k;
    uint64_t quarters_wanted = 4 * (uint64_t)probe_count(index, k, nprobe);
    uint64_t quarters = 0;
    uint64_t seen = 0;
    uint32_t count = 0;
    while (count < index->list_count && (quarters < quarters_wanted || seen < wanted)) {
        uint32_t list = lists[count++];
        uint64_t first = index->list_first[list];
        uint64_t end = index->list_first[list + 1];
        uint64_t live_in_list = live_rows(source->hidden, first, end);
        bool whole = nprobe != 0 || live_in_list == end - first;
        uint64_t share = whole ? 4 : 4 * live_in_list / (end - first);
        quarters += share == 0 ? 1 : share;
        seen += live_in_list;
    }
    return count;
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
    slice_bounds(scan, total, &share_first, &share_end);
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

static vex_status scan_ivf(vexi_scan *scan, uint32_t source, const vexi_index_file *index,
                           uint32_t query, vexi_arena *arena, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    uint32_t *lists = vexi_arena_array(arena, index->list_count, sizeof *lists);
    float *scratch = vexi_arena_array(arena, index->list_count, sizeof *scratch);
    vexi_row_range *ranges = vexi_arena_array(arena, index->list_count, sizeof *ranges);
    if (lists == NULL || scratch == NULL || ranges == NULL) {
        return vexi_no_memory(err, index->list_count * sizeof *ranges);
    }
    rank_job job = {&scan->queries[query], index, lists, scratch};
    VEX_TRY(vexi_guard_run(rank_run, &job, vexi_source_name(from), err));
    uint32_t count = lists_needed(index, lists, from, scan->k, scan->nprobe);
    if (count > 1) {
        qsort(lists, count, sizeof *lists, list_compare);
    }
    if (scan->slice == 0) {
        scan->stats.list_count += count;
    }
    size_t range_count = lists_ranges(scan, index, lists, count, ranges);
    return compare_ranges(scan, source, ranges, range_count, query, 1, arena, err);
}

vex_status vexi_scan_source(vexi_scan *scan, uint32_t source, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    if (from->row_count == from->hidden_count) {
        return VEX_OK;
    }
    const vexi_index_file *index = scan->exact ? NULL : vexi_source_ivf(from);
    if (index == NULL) {
        return scan_flat(scan, source, err);
    }
    for (uint32_t q = 0; q < scan->query_count; q++) {
        vexi_arena arena;
        vexi_arena_init(&arena, scan->env);
        vex_status status = scan_ivf(scan, source, index, q, &arena, err);
        vexi_arena_deinit(&arena);
        VEX_TRY(status);
    }
    return VEX_OK;
}

uint64_t vexi_scan_estimate(const vexi_source *source, uint32_t k, uint32_t nprobe, bool exact) {
    const vexi_index_file *index = exact ? NULL : vexi_source_ivf(source);
    if (index == NULL || index->list_count == 0) {
        return source->row_count;
    }
    return source->row_count / index->list_count * probe_count(index, k, nprobe);
}
