/* Scan by codes: posting lists of a segment, blocks of a memtable.
 *
 * A query is made ready for a source once (lookup table, offsets), its nearest lists are ranked by
 * the codes of their centroids, and the codes of those lists are scanned, nearest first: what may
 * be among the k nearest goes to a pool, whose limit falls with every better estimate. Then rows of
 * the pool are compared exactly, best estimate first, until no bound is below the k-th distance.
 * The limit starts where earlier sources left it: late sources cost little more than their scan.
 *
 * Codes of one bit have no second estimate that could make a limit, so rows are compared exactly
 * list by list (for the first lists) and whenever the pool has grown by much.
 *
 * Several queries share lists: each scans its nearest lists by itself, which makes its limit tight;
 * the others go list by list, each scanned for all its queries while its codes are in cache. A
 * slice takes every n-th list of a query's order, so that all slices have near ones.
 *
 * Of a segment that is fetched the work is done in two halves: which lists are wanted, and, once
 * they are there with those of all other segments, their scan. What passes goes to a short list of
 * all segments together, of which nothing is compared yet (query/remote.c).
 *
 * Pools grow between lists, outside the guard, by what the next lists hold: a guarded scan stops at
 * the first list that might not fit. */
#include "base/guard.h"
#include "query/search_internal.h"

enum {
    OWN_LISTS = 2,         /* scanned query by query before lists are shared */
    POOL_ROWS_MIN = 2048,  /* room to begin with */
    EAGER_LISTS = 8,       /* one bit: lists after each of which rows are compared */
    PART_ROWS_FIRST = 256, /* of a memtable; a multiple of a block's rows */
    PART_ROWS_MAX = 4096,
    NO_VISIT = (int)0x7fffffff
};

/* A query in this source. */
typedef struct coded_query {
    uint32_t query; /* of the scan's */
    vexi_code_query code;
    vexi_code_pool pool;
    struct visit *visits; /* in order of promise */
    uint32_t visit_count;
} coded_query;

/* A list to scan for a query. */
typedef struct visit {
    coded_query *owner;
    const uint8_t *codes;
    uint32_t list;
    float square;
    uint32_t next; /* in the chain of its list */
} visit;

/* ---- Guarded --------------------------------------------------------------------------------- */

typedef struct origin_job {
    float *target;
    const float *origin;
    size_t size;
} origin_job;

static vex_status origin_run(void *argument, vex_error *err) {
    (void)err;
    const origin_job *job = argument;
    memcpy(job->target, job->origin, job->size);
    return VEX_OK;
}

typedef struct rank_job {
    vexi_ivf_ranker *ranker;
    const vexi_code_query *code;
    uint32_t wanted;
    uint32_t *lists;
    float *squares;
    uint32_t ranked;
} rank_job;

static vex_status rank_run(void *argument, vex_error *err) {
    (void)err;
    rank_job *job = argument;
    job->ranked =
        vexi_ivf_rank_coded(job->ranker, job->code, job->wanted, job->lists, job->squares);
    return VEX_OK;
}

typedef struct visit_job {
    const vexi_index_file *index;
    const vexi_code_layout *layout;
    const uint64_t *hidden;
    visit *const *visits;
    size_t count;
    volatile size_t next; /* not scanned yet */
    bool one_only;
} visit_job;

static vexi_code_list list_of(const visit_job *job, const visit *v) {
    const vexi_index_file *index = job->index;
    uint32_t rows = index->list_first[v->list + 1] - index->list_first[v->list];
    size_t blocks = ((size_t)rows + VEXI_CODE_BLOCK_ROWS - 1) / VEXI_CODE_BLOCK_ROWS;
    return (vexi_code_list){
        .blocks = v->codes,
        .records =
            job->layout->record_size == 0 ? NULL : v->codes + blocks * job->layout->block_size,
        .row_count = rows,
        .first_row = index->list_first[v->list],
        .error = index->code_errors[2 * (size_t)v->list],
        .record_error = index->code_errors[2 * (size_t)v->list + 1],
    };
}

static vex_status visit_run(void *argument, vex_error *err) {
    (void)err;
    visit_job *job = argument;
    while (job->next < job->count) {
        const visit *v = job->visits[job->next];
        vexi_code_pool *pool = &v->owner->pool;
        vexi_code_list list = list_of(job, v);
        if (pool->capacity - pool->count < list.row_count) {
            break; /* the caller makes room */
        }
        if (job->next + 1 < job->count) {
            const visit *after = job->visits[job->next + 1];
            vexi_code_list ahead = list_of(job, after);
            vexi_code_prefetch(&after->owner->code, &ahead);
        }
        vexi_code_scan(&v->owner->code, &list, v->square, job->hidden, pool);
        job->next = job->next + 1;
        if (job->one_only) {
            break;
        }
    }
    return VEX_OK;
}

/* ---- Segments -------------------------------------------------------------------------------- */

struct vexi_coded_scan {
    vexi_scan *scan;
    uint32_t source;
    const vexi_source *from;
    const vexi_index_file *index;
    vexi_arena *arena;  /* as long as the struct */
    vexi_arena *work;   /* what each half needs for itself; may be the same */
    vexi_short *shorts; /* by query of the scan: receive the candidates; NULL: they are compared */
    vexi_code_layout layout;
    coded_query *queries; /* those that codes can answer */
    uint32_t query_count;
    visit **order;
    size_t visit_count;
};
typedef vexi_coded_scan coded_scan;

/* Rank lists for a query until they are enough; lists and squares have room for all. */
static vex_status rank(coded_scan *c, vexi_ivf_ranker *ranker, coded_query *q,
                       const vexi_effort *effort, uint32_t *lists, float *squares, uint32_t *count,
                       vex_error *err) {
    uint32_t most = c->index->list_count;
    uint32_t wanted = effort->probe_count;
    for (;;) {
        rank_job job = {ranker, &q->code, wanted, lists, squares, 0};
        VEX_TRY(vexi_guard_run(rank_run, &job, vexi_source_name(c->from), err));
        for (uint32_t i = 0; i < job.ranked; i++) {
            VEX_ASSERT(lists[i] < most); /* whatever the mapped bytes say */
        }
        *count = vexi_lists_needed(c->from, c->index, lists, job.ranked, effort, c->scan->request);
        if (*count <= job.ranked || wanted == most) {
            *count = *count < job.ranked ? *count : job.ranked;
            return VEX_OK;
        }
        uint32_t twice = wanted < most / 2 ? 2 * wanted : most;
        wanted = *count > twice ? *count : twice;
    }
}

/* The visits of one query: its share of the lists. */
static vex_status visits_make(coded_scan *c, coded_query *q, const uint32_t *lists,
                              const float *squares, uint32_t count, vex_error *err) {
    q->visits = vexi_arena_array(c->arena, count, sizeof *q->visits);
    if (q->visits == NULL) {
        return vexi_no_memory(err, count * sizeof *q->visits);
    }
    for (uint32_t i = c->scan->slice; i < count; i += c->scan->slice_count) {
        q->visits[q->visit_count++] = (visit){.owner = q, .list = lists[i], .square = squares[i]};
    }
    c->visit_count += q->visit_count;
    return VEX_OK;
}

/* Their codes, and a pool for what they let pass. */
static vex_status query_begin(coded_scan *c, coded_query *q, vex_error *err) {
    float limit = vexi_scan_limit(c->scan, q->query, q->code.to_scan);
    uint32_t *own = vexi_arena_array(c->work, q->visit_count, sizeof *own);
    const uint8_t **codes = vexi_arena_array(c->work, q->visit_count, sizeof *codes);
    if (own == NULL || codes == NULL) {
        return vexi_no_memory(err, q->visit_count * sizeof *codes);
    }
    if (c->shorts != NULL) {
        float other = c->shorts[q->query].limit * q->code.to_scan;
        limit = other < limit ? other : limit;
    }
    VEX_TRY(vexi_code_pool_init(&q->pool, c->scan->request->k, limit, c->work, err));
    for (uint32_t i = 0; i < q->visit_count; i++) {
        own[i] = q->visits[i].list;
    }
    VEX_TRY(vexi_source_lists(c->from, own, q->visit_count, c->work, codes, &c->scan->cost, err));
    for (uint32_t i = 0; i < q->visit_count; i++) {
        q->visits[i].codes = codes[i];
    }
    return VEX_OK;
}

static vex_status queries_prepare(coded_scan *c, const vexi_effort *effort, vex_error *err) {
    const vexi_index_file *index = c->index;
    vexi_scan *scan = c->scan;
    size_t origin_size = (size_t)c->layout.padded * sizeof(float);
    float *origin = vexi_arena_alloc_aligned(c->work, 64, origin_size);
    uint32_t *lists = vexi_arena_array(c->work, index->list_count, sizeof *lists);
    float *squares = vexi_arena_array(c->work, index->list_count, sizeof *squares);
    c->queries = vexi_arena_calloc(c->arena, scan->query_count, sizeof *c->queries);
    if (origin == NULL || lists == NULL || squares == NULL || c->queries == NULL) {
        return vexi_no_memory(err, index->list_count * sizeof *lists + origin_size);
    }
    origin_job job = {origin, index->origin, origin_size};
    VEX_TRY(vexi_guard_run(origin_run, &job, vexi_source_name(c->from), err));
    vexi_ivf_ranker ranker;
    VEX_TRY(vexi_ivf_ranker_init(&ranker, index->list_count, index->centroids, index->center_codes,
                                 index->center_error, c->work, err));
    for (uint32_t i = 0; i < scan->query_count; i++) {
        if (!vexi_scale_codable(&scan->queries[i], index->row_length)) {
            continue;
        }
        coded_query *q = &c->queries[c->query_count++];
        uint32_t count = 0;
        q->query = i;
        VEX_TRY(vexi_code_query_init(&q->code, &c->layout, vexi_view_rotation(scan->view),
                                     scan->queries[i].values, origin, index->row_length, c->arena,
                                     err));
        VEX_TRY(rank(c, &ranker, q, effort, lists, squares, &count, err));
        if (scan->slice == 0) {
            scan->stats.list_count += count;
        }
        VEX_TRY(visits_make(c, q, lists, squares, count, err));
    }
    return VEX_OK;
}

/* All visits in the order in which they are scanned. */
static vex_status visits_order(coded_scan *c, vex_error *err) {
    uint32_t list_count = c->index->list_count;
    c->order = vexi_arena_array(c->work, c->visit_count, sizeof *c->order);
    if (c->order == NULL) {
        return vexi_no_memory(err, c->visit_count * sizeof *c->order);
    }
    size_t at = 0;
    if (c->query_count == 1) {
        for (uint32_t i = 0; i < c->queries->visit_count; i++) {
            c->order[at++] = &c->queries->visits[i];
        }
        return VEX_OK;
    }
    /* Chains of visits by list, of numbers that count through the queries' visits. */
    visit **by_number = vexi_arena_array(c->work, c->visit_count, sizeof *by_number);
    uint32_t *heads = vexi_arena_array(c->work, list_count, sizeof *heads);
    if (by_number == NULL || heads == NULL) {
        return vexi_no_memory(err, c->visit_count * sizeof *by_number);
    }
    for (uint32_t i = 0; i < list_count; i++) {
        heads[i] = NO_VISIT;
    }
    uint32_t number = 0;
    for (uint32_t q = 0; q < c->query_count; q++) {
        for (uint32_t i = 0; i < c->queries[q].visit_count; i++) {
            visit *v = &c->queries[q].visits[i];
            if (i < OWN_LISTS) {
                c->order[at++] = v;
                continue;
            }
            by_number[number] = v;
            v->next = heads[v->list];
            heads[v->list] = number++;
        }
    }
    for (uint32_t i = 0; i < list_count; i++) {
        for (uint32_t n = heads[i]; n != NO_VISIT; n = by_number[n]->next) {
            c->order[at++] = by_number[n];
        }
    }
    return VEX_OK;
}

static uint32_t visit_rows(const coded_scan *c, const visit *v) {
    return c->index->list_first[v->list + 1] - c->index->list_first[v->list];
}

static vex_status visits_scan(coded_scan *c, vex_error *err) {
    visit_job job = {
        .index = c->index,
        .layout = &c->layout,
        .hidden = c->from->hidden,
        .visits = c->order,
        .count = c->visit_count,
        .one_only = c->layout.bits == 1,
    };
    while (job.next < job.count) {
        const visit *v = c->order[job.next];
        coded_query *q = v->owner;
        uint32_t room = visit_rows(c, v);
        room = room < POOL_ROWS_MIN ? POOL_ROWS_MIN : room;
        VEX_TRY(vexi_code_pool_reserve(&q->pool, room, c->work, err));
        size_t before = job.next;
        VEX_TRY(vexi_guard_run(visit_run, &job, vexi_source_name(c->from), err));
        VEX_ASSERT(job.next > before || q->pool.capacity - q->pool.count >= room);
        bool eager = v < q->visits + EAGER_LISTS || q->pool.count >= 4 * q->pool.k + POOL_ROWS_MIN;
        if (c->layout.bits == 1 && eager && c->shorts == NULL) {
            VEX_TRY(vexi_scan_pool(c->scan, c->source, q->query, q->code.to_scan, &q->pool, err));
            q->pool.limit = vexi_scan_limit(c->scan, q->query, q->code.to_scan);
        }
    }
    for (uint32_t i = 0; i < c->query_count; i++) {
        coded_query *q = &c->queries[i];
        c->scan->stats.code_count += q->pool.row_count;
        if (c->shorts != NULL) {
            VEX_TRY(
                vexi_short_take(&c->shorts[q->query], &q->pool, c->source, q->code.to_scan, err));
        } else {
            VEX_TRY(vexi_scan_pool(c->scan, c->source, q->query, q->code.to_scan, &q->pool, err));
        }
    }
    return VEX_OK;
}

static vex_status scan_uncodable(vexi_scan *scan, uint32_t source, const vexi_index_file *index,
                                 vex_error *err) {
    for (uint32_t i = 0; i < scan->query_count && scan->slice == 0; i++) {
        if (!vexi_scale_codable(&scan->queries[i], index->row_length)) {
            VEX_TRY(vexi_scan_exact(scan, source, i, err));
        }
    }
    return VEX_OK;
}

static coded_scan coded_of(vexi_scan *scan, uint32_t source, vexi_arena *arena) {
    const vexi_source *from = &scan->view->sources[source];
    const vexi_schema *schema = scan->view->schema;
    const vexi_index_file *index = vexi_source_ivf(from);
    return (coded_scan){
        .scan = scan,
        .source = source,
        .from = from,
        .index = index,
        .arena = arena,
        .work = &scan->scratch->work,
        .layout = vexi_code_layout_of(schema->metric, schema->dimension, index->code_bits),
    };
}

static vex_status coded_scan_run(coded_scan *c, vex_error *err) {
    for (uint32_t i = 0; i < c->query_count; i++) {
        VEX_TRY(query_begin(c, &c->queries[i], err));
    }
    VEX_TRY(visits_order(c, err));
    return visits_scan(c, err);
}

/* ---- In two halves --------------------------------------------------------------------------- */

vex_status vexi_codes_prepare(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                              vexi_arena *arena, vexi_coded_scan **out, vex_error *err) {
    *out = vexi_arena_alloc(arena, sizeof **out);
    if (*out == NULL) {
        return vexi_no_memory(err, sizeof **out);
    }
    vexi_arena_reset(&scan->scratch->work);
    **out = coded_of(scan, source, arena);
    return queries_prepare(*out, effort, err);
}

size_t vexi_codes_range_count(const vexi_coded_scan *coded) {
    return 2 * coded->visit_count;
}

void vexi_codes_ranges(const vexi_coded_scan *coded, vexi_piece *out) {
    const vexi_index_file *index = coded->index;
    for (uint32_t q = 0; q < coded->query_count; q++) {
        for (uint32_t i = 0; i < coded->queries[q].visit_count; i++) {
            uint32_t list = coded->queries[q].visits[i].list;
            uint64_t first = index->list_first[list], end = index->list_first[list + 1];
            *out++ = (vexi_piece){
                .offset = index->codes_offset + index->code_offsets[list],
                .size = (size_t)(index->code_offsets[list + 1] - index->code_offsets[list])};
            *out++ = (vexi_piece){.offset = index->id_offsets_offset + 4 * first,
                                  .size = 4 * (size_t)(end - first + 1)};
        }
    }
}

vex_status vexi_codes_scan(vexi_scan *scan, vexi_coded_scan *coded, vexi_short *shorts,
                           vex_error *err) {
    coded->scan = scan;
    coded->shorts = shorts;
    VEX_TRY(scan_uncodable(scan, coded->source, coded->index, err));
    vexi_arena_reset(coded->work);
    return coded_scan_run(coded, err);
}

/* ---- At once --------------------------------------------------------------------------------- */

vex_status vexi_scan_codes(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                           vex_error *err) {
    coded_scan c = coded_of(scan, source, &scan->scratch->work);
    VEX_TRY(scan_uncodable(scan, source, c.index, err));
    vexi_arena_reset(c.work);
    VEX_TRY(queries_prepare(&c, effort, err));
    return coded_scan_run(&c, err);
}

/* ---- Memtables ------------------------------------------------------------------------------- */

static vex_status scan_memtable_query(vexi_scan *scan, uint32_t source, uint32_t query,
                                      const vexi_memtable_codes *codes, vex_error *err) {
    const vexi_schema *schema = scan->view->schema;
    const uint64_t *hidden = scan->view->sources[source].hidden;
    vexi_arena *arena = &scan->scratch->work;
    vexi_code_layout layout = vexi_code_layout_of(schema->metric, schema->dimension, codes->bits);
    vexi_code_query code;
    vexi_code_pool pool;
    vexi_arena_reset(arena);
    VEX_TRY(vexi_code_query_init(&code, &layout, vexi_view_rotation(scan->view),
                                 scan->queries[query].values, codes->origin, codes->row_length,
                                 arena, err));
    VEX_TRY(vexi_code_pool_init(&pool, scan->request->k, vexi_scan_limit(scan, query, code.to_scan),
                                arena, err));
    float square;
    vexi_kernels_get()->l2(code.values, (const uint8_t *)codes->center, 0, 1, schema->dimension,
                           &square);
    /* Parts of lists, small ones first: one-bit codes get their limit from the rows compared so
     * far, and what a part lets pass goes to the pool. */
    uint32_t part_rows = PART_ROWS_FIRST;
    for (uint32_t i = 0; i < codes->list_count; i++) {
        const vexi_code_list *list = &codes->lists[i];
        for (uint32_t first = 0, count; first < list->row_count; first += count) {
            count = list->row_count - first;
            count = count < part_rows ? count : part_rows;
            part_rows = part_rows < PART_ROWS_MAX ? 2 * part_rows : PART_ROWS_MAX;
            size_t block = first / VEXI_CODE_BLOCK_ROWS;
            vexi_code_list part = {
                .blocks = list->blocks + block * layout.block_size,
                .records =
                    list->records == NULL ? NULL : list->records + first * layout.record_size,
                .row_count = count,
                .first_row = list->first_row + first,
                .error = list->error,
                .record_error = list->record_error,
            };
            VEX_TRY(vexi_code_pool_reserve(&pool, count, arena, err));
            vexi_code_scan(&code, &part, square, hidden, &pool);
            if (codes->bits == 1) {
                VEX_TRY(vexi_scan_pool(scan, source, query, code.to_scan, &pool, err));
                pool.limit = vexi_scan_limit(scan, query, code.to_scan);
            }
        }
    }
    scan->stats.code_count += pool.row_count;
    return vexi_scan_pool(scan, source, query, code.to_scan, &pool, err);
}

vex_status vexi_scan_memtable(vexi_scan *scan, uint32_t source, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    vexi_memtable_codes codes;
    vexi_source_codes(from, from->row_count, &codes);
    uint64_t coded = codes.center == NULL ? 0 : codes.row_count;
    vexi_row_range rest = {coded, from->row_count - coded};
    VEX_TRY(vexi_scan_ranges(scan, source, &rest, rest.count > 0 ? 1 : 0, 0, scan->query_count,
                             &scan->scratch->work, err));
    for (uint32_t i = 0; i < scan->query_count; i++) {
        if (!vexi_scale_codable(&scan->queries[i], codes.row_length)) {
            vexi_row_range all = {0, coded};
            VEX_TRY(vexi_scan_ranges(scan, source, &all, 1, i, 1, &scan->scratch->work, err));
        } else {
            VEX_TRY(scan_memtable_query(scan, source, i, &codes, err));
        }
    }
    return VEX_OK;
}
