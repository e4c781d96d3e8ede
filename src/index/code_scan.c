/* Scans: one-bit bounds over blocks, records for what survives, and the pool of candidates.
 *
 * A list is scanned in chunks. The kernel compares the bounds of a chunk with the limit and answers
 * a bit per row; the rows left are refined at once, while their block's neighbours are still in the
 * caches, and the limit falls with the k-th least upper bound before the next chunk. A search
 * begins without a limit: the best one-bit estimates of its first list are refined before the list
 * is scanned, which saves a third of all refinements.
 *
 * Bounds are the estimates less scale x sqrt((epsilon error |v|)^2 + table_error^2), one number for
 * a list but for the row's own scale, so that the kernel adds it in `base`. Rounding of float32 in
 * sums of large numbers that nearly cancel is covered by a millionth of these numbers.
 *
 * Nothing here allocates; a chunk's picks are on the stack. */
#include <math.h>
#include <string.h>

#include "index/code_internal.h"

enum { CHUNK_BLOCKS = 8, CHUNK_ROWS = CHUNK_BLOCKS * VEXI_CODE_BLOCK_ROWS };
/* Of a search's first list these blocks are estimated to begin with. */
enum { SEED_BLOCKS = 16, SEED_ROWS = SEED_BLOCKS * VEXI_CODE_BLOCK_ROWS };

#define ROUNDING       1e-6f
#define PREFETCH_BYTES ((size_t)128 * 64)

vex_status vexi_code_pool_init(vexi_code_pool *pool, uint32_t k, float limit, vexi_arena *arena,
                               vex_error *err) {
    *pool = (vexi_code_pool){.limit = limit, .k = k};
    pool->best = vexi_arena_array(arena, k, sizeof *pool->best);
    return pool->best == NULL ? vexi_no_memory(err, k * sizeof *pool->best) : VEX_OK;
}

/* Drop the candidates that the limit has passed. Those at the limit may be what made it. */
static void drop_passed(vexi_code_pool *pool) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < pool->count; i++) {
        pool->items[kept] = pool->items[i];
        kept += pool->items[i].bound > pool->limit ? 0 : 1;
    }
    pool->count = kept;
}

vex_status vexi_code_pool_reserve(vexi_code_pool *pool, uint32_t count, vexi_arena *arena,
                                  vex_error *err) {
    if (count <= pool->capacity - pool->count) {
        return VEX_OK;
    }
    drop_passed(pool);
    uint32_t kept = pool->count;
    if (count <= pool->capacity - kept) {
        return VEX_OK;
    }
    uint64_t capacity = (uint64_t)pool->capacity * 2;
    capacity = capacity < (uint64_t)kept + count ? (uint64_t)kept + count : capacity;
    if (capacity > UINT32_MAX) {
        return vexi_no_memory(err, SIZE_MAX);
    }
    vexi_code_candidate *items = vexi_arena_array(arena, (size_t)capacity, sizeof *items);
    if (items == NULL) {
        return vexi_no_memory(err, (size_t)capacity * sizeof *items);
    }
    if (kept > 0) {
        memcpy(items, pool->items, kept * sizeof *items);
    }
    pool->items = items;
    pool->capacity = (uint32_t)capacity;
    return VEX_OK;
}

/* Keep `upper` if it is among the k least. */
static void push_best(vexi_code_pool *pool, float upper) {
    float *best = pool->best;
    if (pool->best_count < pool->k) {
        uint32_t at = pool->best_count++;
        while (at > 0 && best[(at - 1) / 2] < upper) {
            best[at] = best[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        best[at] = upper;
    } else if (pool->k > 0 && upper < best[0]) {
        uint32_t at = 0, count = pool->best_count;
        for (;;) {
            size_t child = 2 * (size_t)at + 1;
            if (child >= count) {
                break;
            }
            child += child + 1 < count && best[child + 1] > best[child] ? 1 : 0;
            if (!(best[child] > upper)) {
                break;
            }
            best[at] = best[child];
            at = (uint32_t)child;
        }
        best[at] = upper;
    } else {
        return;
    }
    if (pool->best_count == pool->k && best[0] < pool->limit) {
        pool->limit = best[0];
    }
}

/* The bits of rows that are there and not hidden. */
static uint32_t visible(const uint64_t *hidden, uint32_t first_row, uint32_t row_count) {
    uint32_t mask = row_count < VEXI_CODE_BLOCK_ROWS ? ((uint32_t)1 << row_count) - 1 : UINT32_MAX;
    if (hidden == NULL) {
        return mask;
    }
    uint32_t shift = first_row % 64;
    uint64_t bits = hidden[first_row / 64] >> shift;
    /* The next word only where it has rows of this block: it may not exist. */
    if (shift > 64 - VEXI_CODE_BLOCK_ROWS && row_count > 64 - shift) {
        bits |= hidden[first_row / 64 + 1] << (64 - shift);
    }
    return mask & ~(uint32_t)bits;
}

/* A scan of one list. */
typedef struct list_scan {
    const vexi_kernels *kernels;
    const vexi_code_query *query;
    const vexi_code_list *list;
    vexi_code_pool *pool;
    float offset;
    float rounding; /* of sums, in distances */
    float base;     /* of one-bit bounds */
    float slack;    /* times a record's |scale|: the error of its estimate */
    bool lost;      /* numbers out of range: every row survives */
} list_scan;

static void push(vexi_code_pool *pool, float bound, float estimate, uint32_t row) {
    VEX_ASSERT(pool->count < pool->capacity);
    pool->items[pool->count++] =
        (vexi_code_candidate){.bound = bound, .estimate = estimate, .row = row};
}

/* What the kernel compares bounds without the offset with. */
static float kernel_limit(const list_scan *scan) {
    float limit = scan->pool->limit;
    if (limit == INFINITY) {
        return INFINITY;
    }
    return limit - scan->offset + scan->rounding;
}

/* Without records: the bounds once more, as numbers. */
static void take_bounds(const list_scan *scan, const uint8_t *block, uint32_t mask,
                        uint32_t first) {
    const vexi_code_query *query = scan->query;
    float bounds[VEXI_CODE_BLOCK_ROWS];
    scan->kernels->estimate_codes(block, 1, query->layout.padded, query->table, query->unit,
                                  scan->base, bounds);
    for (; mask != 0; mask &= mask - 1) {
        uint32_t slot = (uint32_t)__builtin_ctz(mask);
        float bound = bounds[slot] + scan->offset - scan->rounding;
        bound = isfinite(bound) ? bound : -INFINITY;
        push(scan->pool, bound, bound, scan->list->first_row + first + slot);
    }
}

static void take_records(const list_scan *scan, const uint32_t *picks, uint32_t count) {
    const vexi_code_query *query = scan->query;
    vexi_code_pool *pool = scan->pool;
    float estimates[CHUNK_ROWS];
    size_t stride = query->layout.record_size;
    scan->kernels->refine_codes(scan->list->records, stride, picks, count, query->layout.padded,
                                query->layout.bits, query->levels, query->level_unit,
                                query->level_base, estimates);
    for (uint32_t i = 0; i < count; i++) {
        float scale;
        memcpy(&scale, scan->list->records + picks[i] * stride + sizeof scale, sizeof scale);
        float estimate = estimates[i] + scan->offset;
        float error = fabsf(scale) * scan->slack;
        float bound = estimate - error - scan->rounding;
        if (!isfinite(bound)) { /* not to be judged by codes */
            push(pool, -INFINITY, -INFINITY, scan->list->first_row + picks[i]);
        } else if (bound < pool->limit) {
            push(pool, bound, estimate, scan->list->first_row + picks[i]);
            push_best(pool, estimate + error);
        }
    }
}

/* Refine the rows with the best one-bit estimates, so that there is a limit to scan with. taken
 * receives their bits, by block. Does nothing where these are a large part of the rows. */
static void take_seeds(const list_scan *scan, const uint64_t *hidden, uint32_t *taken) {
    const vexi_code_query *query = scan->query;
    const vexi_code_list *list = scan->list;
    uint32_t block_count = (list->row_count - 1) / VEXI_CODE_BLOCK_ROWS + 1, count = 0;
    block_count = block_count < SEED_BLOCKS ? block_count : SEED_BLOCKS;
    uint64_t wanted = (uint64_t)scan->pool->k + scan->pool->k / 2 + 4;
    if (wanted * 3 > (uint64_t)block_count * VEXI_CODE_BLOCK_ROWS) {
        return;
    }
    float estimates[SEED_ROWS];
    uint32_t rows[SEED_ROWS];
    scan->kernels->estimate_codes(list->blocks, block_count, query->layout.padded, query->table,
                                  query->unit, query->base, estimates);
    for (uint32_t b = 0; b < block_count; b++) {
        uint32_t first = b * VEXI_CODE_BLOCK_ROWS;
        uint32_t mask = visible(hidden, list->first_row + first, list->row_count - first);
        for (uint32_t slot = 0; slot < VEXI_CODE_BLOCK_ROWS; slot++) {
            estimates[count] = estimates[first + slot]; /* count <= first + slot */
            rows[count] = first + slot;
            count += mask >> slot & 1;
        }
    }
    if (wanted * 2 > count) {
        return;
    }
    float most = vexi_code_most(estimates, count, (uint32_t)wanted);
    uint32_t picks[SEED_ROWS], pick_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        picks[pick_count] = rows[i]; /* pick_count <= i */
        pick_count += estimates[i] <= most ? 1 : 0;
    }
    for (uint32_t i = 0; i < pick_count; i++) {
        taken[picks[i] / VEXI_CODE_BLOCK_ROWS] |= (uint32_t)1 << picks[i] % VEXI_CODE_BLOCK_ROWS;
    }
    for (uint32_t i = 0; i < pick_count; i += CHUNK_ROWS) {
        uint32_t left = pick_count - i;
        take_records(scan, picks + i, left < CHUNK_ROWS ? left : CHUNK_ROWS);
    }
}

/* taken: bits of rows to leave out, by block of the list; or NULL. */
static void scan_chunk(const list_scan *scan, uint32_t first_block, uint32_t block_count,
                       const uint64_t *hidden, const uint32_t *taken) {
    const vexi_code_query *query = scan->query;
    const vexi_code_list *list = scan->list;
    size_t block_size = query->layout.block_size;
    const uint8_t *blocks = list->blocks + first_block * block_size;
    uint32_t masks[CHUNK_BLOCKS], picks[CHUNK_ROWS], pick_count = 0;
    if (!scan->lost) {
        scan->kernels->scan_codes(blocks, block_count, query->layout.padded, query->table,
                                  query->unit, scan->base, kernel_limit(scan), masks);
    }
    for (uint32_t b = 0; b < block_count; b++) {
        uint32_t mask = scan->lost ? UINT32_MAX : masks[b];
        if (mask == 0) {
            continue;
        }
        uint32_t first = (first_block + b) * VEXI_CODE_BLOCK_ROWS;
        mask &= visible(hidden, list->first_row + first, list->row_count - first);
        mask &= taken != NULL && first_block + b < SEED_BLOCKS ? ~taken[first_block + b] : mask;
        if (scan->lost) {
            for (; mask != 0; mask &= mask - 1) {
                push(scan->pool, -INFINITY, -INFINITY,
                     list->first_row + first + (uint32_t)__builtin_ctz(mask));
            }
        } else if (list->records == NULL) {
            if (mask != 0) {
                take_bounds(scan, blocks + b * block_size, mask, first);
            }
        } else {
            for (; mask != 0; mask &= mask - 1) {
                picks[pick_count++] = first + (uint32_t)__builtin_ctz(mask);
            }
        }
    }
    if (pick_count > 0) {
        take_records(scan, picks, pick_count);
    }
}

void vexi_code_scan(const vexi_code_query *query, const vexi_code_list *list, float center_square,
                    const uint64_t *hidden, vexi_code_pool *pool) {
    list_scan scan = {
        .kernels = vexi_kernels_get(),
        .query = query,
        .list = list,
        .pool = pool,
        .offset = vexi_code_query_offset(query, center_square),
        .base = query->base + vexi_code_query_slack(query, list->error, center_square, false),
        .slack = vexi_code_query_slack(query, list->record_error, center_square, true),
    };
    scan.rounding =
        fabsf(scan.offset) + (query->layout.metric == VEX_METRIC_L2 ? 0 : query->square);
    scan.rounding *= ROUNDING;
    scan.lost = !isfinite(scan.offset) || !isfinite(scan.base) || !isfinite(scan.slack);
    uint32_t block_count =
        list->row_count / VEXI_CODE_BLOCK_ROWS + (list->row_count % VEXI_CODE_BLOCK_ROWS != 0);
    uint32_t taken[SEED_BLOCKS] = {0};
    bool seeds = pool->limit == INFINITY && list->records != NULL && !scan.lost;
    if (seeds && list->row_count > 0) {
        take_seeds(&scan, hidden, taken);
    }
    for (uint32_t block = 0, count; block < block_count; block += count) {
        count = block_count - block < CHUNK_BLOCKS ? block_count - block : CHUNK_BLOCKS;
        scan_chunk(&scan, block, count, hidden, seeds ? taken : NULL);
    }
    pool->row_count += list->row_count;
}

void vexi_code_prefetch(const vexi_code_query *query, const vexi_code_list *list) {
    size_t size = (list->row_count + VEXI_CODE_BLOCK_ROWS - 1) / VEXI_CODE_BLOCK_ROWS *
                  query->layout.block_size;
    size = size < PREFETCH_BYTES ? size : PREFETCH_BYTES;
    for (size_t offset = 0; offset < size; offset += 64) {
        __builtin_prefetch(list->blocks + offset);
    }
}

void vexi_code_pool_sort(vexi_code_pool *pool) {
    drop_passed(pool);
    vexi_code_sort(pool->items, pool->count, pool->count);
}
