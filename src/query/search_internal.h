/* The steps of a search: decide how far to go in each source (effort.c), find candidates there by
 * float32 distances (scan.c and scan_*.c), refine them in double (refine.c); the plan that splits
 * the work over threads (search.c); and the order of all this where sources are fetched from a
 * server (remote.c). */
#ifndef VEXI_QUERY_SEARCH_INTERNAL_H
#define VEXI_QUERY_SEARCH_INTERNAL_H

#include "index/ivf.h"
#include "query/query.h"
#include "query/scratch.h"
#include "table/segment.h"

/* Candidates kept beyond k: where float32 and double order differently, and for ties. */
enum { VEXI_EXTRA_CANDIDATES = 16 };

/* ---- Effort ---------------------------------------------------------------------------------- */

/* How a source is searched. */
typedef enum vexi_way {
    VEXI_WAY_NONE,     /* it has no live row */
    VEXI_WAY_EXACT,    /* every row is compared */
    VEXI_WAY_FEW,      /* few rows live: those are compared */
    VEXI_WAY_LISTS,    /* an IVF index without codes: the rows of the nearest lists are compared */
    VEXI_WAY_CODES,    /* an IVF index: codes of the nearest lists, then the best rows */
    VEXI_WAY_MEMTABLE, /* codes of a memtable, then the best rows; those not coded yet exactly */
    VEXI_WAY_GRAPH
} vexi_way;

typedef struct vexi_effort {
    vexi_way way;
    uint32_t probe_count; /* lists, where no row is hidden */
    uint32_t ef;
    /* VEXI_WAY_GRAPH: the graph. Kept, because a search that meets damage takes the segment's away
     * from those that begin later. */
    const vexi_graph_file *graph;
    float recall;   /* that was asked for */
    double cost_ns; /* of a query, about */
} vexi_effort;

vexi_effort vexi_effort_of(const vexi_view *view, uint32_t source,
                           const vexi_search_request *request);
/* The same for a segment whose graph did not do. */
vexi_effort vexi_effort_without_graph(const vexi_view *view, uint32_t source,
                                      const vexi_search_request *request);

/* Whether codes can tell distances of such vectors: squares neither overflow nor vanish. */
bool vexi_scale_codable(const vexi_query *query, float row_length);

/* How many of the nearest lists to probe, the `ranked` nearest of which are given: as the effort
 * says, and more where hidden rows lie among the nearest (unless the request names a number), or
 * while they hold fewer live rows than the answer needs. More than `ranked`: rank more. */
uint32_t vexi_lists_needed(const vexi_source *source, const vexi_index_file *index,
                           const uint32_t *lists, uint32_t ranked, const vexi_effort *effort,
                           const vexi_search_request *request);

/* ---- Scan ------------------------------------------------------------------------------------ */

/* Some queries against a share of the view: slice `slice` of `slice_count` equal ones. */
typedef struct vexi_scan {
    const vexi_env *env;
    const vexi_view *view;
    const vexi_query *queries; /* query_count */
    vexi_topk *topks;          /* query_count; receive the candidates */
    uint32_t query_count;
    const vexi_search_request *request;
    uint32_t slice;
    uint32_t slice_count;
    vexi_scratch *scratch;  /* its `work` is reset for each source */
    vex_search_stats stats; /* counts are added to */
    vexi_read_cost cost;    /* the same */
} vexi_scan;

/* All slices together leave each topk with at least min(its capacity, live rows) candidates, but
 * for rows whose codes lie: search.c counts. */
vex_status vexi_scan_source(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                            vex_error *err);

/* One way each (scan_lists.c, scan_codes.c, scan_graph.c). */
vex_status vexi_scan_lists(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                           vex_error *err);
vex_status vexi_scan_codes(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                           vex_error *err);
vex_status vexi_scan_memtable(vexi_scan *scan, uint32_t source, vex_error *err);
vex_status vexi_scan_graph(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                           vex_error *err);

/* What they share: fetch rows and compare them with queries first_query .. + query_count - 1. */
vex_status vexi_scan_ranges(vexi_scan *scan, uint32_t source, const vexi_row_range *ranges,
                            size_t range_count, uint32_t first_query, uint32_t query_count,
                            vexi_arena *arena, vex_error *err);
/* The same with runs that are there. */
vex_status vexi_scan_runs(vexi_scan *scan, uint32_t source, const vexi_run *runs, size_t run_count,
                          uint32_t first_query, uint32_t query_count, vex_error *err);
/* The slice's share of `total` rows. */
void vexi_scan_share(const vexi_scan *scan, uint64_t total, uint64_t *first, uint64_t *end);
/* Every live row of a source for one query, whatever the slice: where an index cannot help. */
vex_status vexi_scan_exact(vexi_scan *scan, uint32_t source, uint32_t query, vex_error *err);
/* Compare a query with rows anywhere in a source, none hidden. In the work arena. */
vex_status vexi_scan_rows(vexi_scan *scan, uint32_t source, uint32_t query, const uint64_t *rows,
                          size_t count, vex_error *err);
/* The same with vectors that are there, none of them mapped. */
void vexi_scan_vectors(vexi_scan *scan, uint32_t source, uint32_t query, const uint64_t *rows,
                       const uint8_t *const *vectors, size_t count);
/* Compare a query with the candidates of a pool, best first, as long as their bounds say that they
 * may be among the nearest. Empties the pool. */
vex_status vexi_scan_pool(vexi_scan *scan, uint32_t source, uint32_t query, float to_scan,
                          vexi_code_pool *pool, vex_error *err);
/* What a pool's limit is by the nearest rows so far: about the k-th distance of a query. */
float vexi_scan_limit(const vexi_scan *scan, uint32_t query, float to_scan);

/* ---- Short lists ----------------------------------------------------------------------------- */

enum {
    VEXI_SHORT_ROWS_MAX = 1024,  /* whose vectors are fetched at once for a query */
    VEXI_SHORT_ROWS_FIRST = 256, /* the same while nothing limits them */
};

/* What the codes of all fetched segments left of one query: rows that may be among the nearest. */
typedef struct vexi_short_item {
    float bound;    /* lower bound of the distance, in the metric's terms */
    float estimate; /* of it */
    uint32_t source;
    uint32_t row;
} vexi_short_item;

typedef struct vexi_short {
    vexi_arena *arena;
    vexi_topk uppers; /* upper bounds of distances, the k least */
    float limit;      /* the k-th of them; INFINITY while there are fewer */
    vexi_short_item *items;
    size_t count;
    size_t capacity;
    size_t done;   /* compared */
    size_t picked; /* to be compared next: items[done .. picked) */
} vexi_short;

vex_status vexi_short_init(vexi_short *list, uint32_t k, vexi_arena *arena, vex_error *err);
/* Take over the candidates of a pool, whose bounds are distances times to_scan. */
vex_status vexi_short_take(vexi_short *list, const vexi_code_pool *pool, uint32_t source,
                           float to_scan, vex_error *err);
/* Drop what the limit (or `limit`, if that is lower) has passed; order by estimate. */
void vexi_short_sort(vexi_short *list, float limit);
/* Items from `done` on that may be among the nearest: items[done .. result), which all pass `limit`
 * once those that do not have been dropped. */
size_t vexi_short_next(vexi_short *list, float limit);

/* vexi_scan_codes in two halves (scan_codes.c): which lists are wanted, and, once the ranges of the
 * index file are there, their scan into short lists (one for each query of the scan). The first
 * half's memory is in `arena`. Slices are not known here. */
typedef struct vexi_coded_scan vexi_coded_scan;
vex_status vexi_codes_prepare(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                              vexi_arena *arena, vexi_coded_scan **out, vex_error *err);
size_t vexi_codes_range_count(const vexi_coded_scan *coded);
void vexi_codes_ranges(const vexi_coded_scan *coded, vexi_piece *out);
vex_status vexi_codes_scan(vexi_scan *scan, vexi_coded_scan *coded, vexi_short *shorts,
                           vex_error *err);

/* ---- Rows at hand ---------------------------------------------------------------------------- */

/* What a search has fetched of a source, so that nothing is fetched twice. */
struct vexi_ready {
    const uint64_t *rows; /* ascending */
    const uint8_t *const *vectors;
    size_t count;
    const vexi_run *runs; /* ascending; instead of rows, where the source is compared whole */
    size_t run_count;
    const vexi_piece *pages; /* of asked columns, by offset */
    size_t page_count;
};

/* NULL: not there. */
const uint8_t *vexi_ready_vector(const vexi_ready *ready, uint64_t row);
/* vexi_source_vectors of rows some of which may be there: only the others are fetched. ready may be
 * NULL. */
vex_status vexi_ready_vectors(const vexi_ready *ready, const vexi_source *source,
                              const uint64_t *rows, size_t count, vexi_arena *arena,
                              const uint8_t **out, vexi_read_cost *cost, vex_error *err);

/* ---- Find ------------------------------------------------------------------------------------ */

/* Fetch what vexi_view_find will read of remote segments for all these ids. VEX_MEMORY is all that
 * fails. */
vex_status vexi_find_ahead(const vexi_view *view, const vex_string *ids, size_t count,
                           const vexi_env *env, vexi_read_cost *cost, vex_error *err);

/* ---- Refine ---------------------------------------------------------------------------------- */

/* Turn the candidates of one query into its k rows: ordered by distance in double, then by id. */
typedef struct vexi_refining {
    const vexi_view *view;
    const bool *skip; /* sources (by number) that are left out; may be NULL. The others have at
                         least k live rows */
    const vexi_ready *ready; /* by source; may be NULL */
    const vexi_query *query;
    vexi_topk *topk; /* becomes sorted */
    uint32_t k;
    bool certain; /* the topk is full after every live row was compared: find out whether float32
                     decided right, and mend it */
    vexi_arena *arena;  /* the ids' bytes go there */
    vexi_arena *work;   /* reset */
    vexi_place *places; /* k, as the next */
    double *distances;
    vex_string *ids;
    uint64_t row_count;     /* compared again: added to */
    vexi_read_cost cost;    /* added to */
    uint32_t failed_source; /* on failure: whose it was, or VEXI_PLACE_NONE */
} vexi_refining;
vex_status vexi_refine(vexi_refining *refining, vex_error *err);

/* ---- Search ---------------------------------------------------------------------------------- */

/* A group of queries against a slice of every source. */
typedef struct vexi_search_unit {
    vexi_scratch *scratch; /* NULL until the unit runs */
    uint32_t first_query;
    uint32_t query_count;
    uint32_t slice;
    vexi_query *queries;
    vexi_topk *topks;
    vex_search_stats stats;
    vexi_read_cost cost;
    uint32_t failed_source;
    vex_status status;
    vex_error err;
    /* Remote sources alone. */
    vexi_coded_scan **coded; /* by source; NULL: not searched by codes */
    vexi_short *shorts;      /* by query */
    vexi_ready *ready;       /* by source; NULL: as in the search */
} vexi_search_unit;

typedef struct vexi_search_state {
    const vexi_env *env;
    vexi_keeper *keeper;
    vexi_view *view;
    const vexi_search_request *request;
    const float *queries;
    bool *skip;           /* by source: damaged, left out */
    vexi_effort *efforts; /* by source */
    uint32_t *order;      /* of sources, source_count */
    vexi_ready *ready;    /* by source; NULL where no source is remote */
    vexi_read_cost cost;  /* of steps that all units share */
    uint32_t row_count;   /* of each query's result: min(k, live rows) */
    uint32_t pool_count;
    bool certain; /* every live row is compared, and more live than candidates are kept */
    uint32_t group_count;
    uint32_t slice_count;
    vexi_search_unit *units; /* group_count x slice_count */
    /* Results: query_count x row_count. */
    vexi_place *places;
    double *distances;
    vex_string *ids;
    uint32_t *query_numbers;
} vexi_search_state;

/* What search.c and remote.c share. */
vexi_scan vexi_search_scan(const vexi_search_state *s, const vexi_search_unit *unit);
/* Queries and candidates of a unit that has its scratch. */
vex_status vexi_search_begin(const vexi_search_state *s, vexi_search_unit *unit, vex_error *err);
vex_status vexi_search_refine(const vexi_search_state *s, vexi_search_unit *unit, vex_error *err);

/* Run all units (of one slice each) where sources are fetched; each has its status. What fails of a
 * step that they share is returned. Memory that results need until they are fetched is in `arena`.
 */
vex_status vexi_remote_run(vexi_search_state *s, vexi_arena *arena, uint32_t *failed_source,
                           vex_error *err);

#endif
