/* The steps of a search: decide how far to go in each source (effort.c), find candidates there by
 * float32 distances (scan.c and scan_*.c), refine them in double (refine.c); and the plan that
 * splits the work over threads (search.c). */
#ifndef VEXI_QUERY_SEARCH_INTERNAL_H
#define VEXI_QUERY_SEARCH_INTERNAL_H

#include "index/ivf.h"
#include "query/query.h"
#include "query/scratch.h"

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
/* The slice's share of `total` rows. */
void vexi_scan_share(const vexi_scan *scan, uint64_t total, uint64_t *first, uint64_t *end);
/* Every live row of a source for one query, whatever the slice: where an index cannot help. */
vex_status vexi_scan_exact(vexi_scan *scan, uint32_t source, uint32_t query, vex_error *err);
/* Compare a query with rows anywhere in a source, none hidden. In the work arena. */
vex_status vexi_scan_rows(vexi_scan *scan, uint32_t source, uint32_t query, const uint64_t *rows,
                          size_t count, vex_error *err);
/* Compare a query with the candidates of a pool, best first, as long as their bounds say that they
 * may be among the nearest. Empties the pool. */
vex_status vexi_scan_pool(vexi_scan *scan, uint32_t source, uint32_t query, float to_scan,
                          vexi_code_pool *pool, vex_error *err);
/* What a pool's limit is by the nearest rows so far: about the k-th distance of a query. */
float vexi_scan_limit(const vexi_scan *scan, uint32_t query, float to_scan);

/* ---- Refine ---------------------------------------------------------------------------------- */

/* Turn the candidates of one query into its k rows: ordered by distance in double, then by id. */
typedef struct vexi_refining {
    const vexi_view *view;
    const bool *skip; /* sources (by number) that are left out; may be NULL. The others have at
                         least k live rows */
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
    uint32_t failed_source; /* on failure: whose it was, or VEXI_PLACE_NONE */
} vexi_refining;
vex_status vexi_refine(vexi_refining *refining, vex_error *err);

#endif
