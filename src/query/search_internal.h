/* The three steps of a search: scan sources in float32 (scan.c), refine candidates in double
 * (refine.c), and the plan that splits both over threads (search.c). */
#ifndef VEXI_QUERY_SEARCH_INTERNAL_H
#define VEXI_QUERY_SEARCH_INTERNAL_H

#include "index/ivf.h"
#include "query/query.h"

/* ---- Scan ------------------------------------------------------------------------------------ */

/* Some queries against a share of the view: slice `slice` of `slice_count` equal ones. */
typedef struct vexi_scan {
    const vexi_env *env;
    const vexi_view *view;
    const vexi_query *queries; /* query_count */
    vexi_topk *topks;          /* query_count; receive the candidates */
    uint32_t query_count;
    uint32_t k; /* a source with an index yields at least min(k, its live rows) candidates */
    uint32_t nprobe;
    bool exact;
    uint32_t slice;
    uint32_t slice_count;
    vex_search_stats stats; /* list_count and row_count are added to */
} vexi_scan;

vex_status vexi_scan_source(vexi_scan *scan, uint32_t source, vex_error *err);

/* Rows that a query compares in this source, about. */
uint64_t vexi_scan_estimate(const vexi_source *source, uint32_t k, uint32_t nprobe, bool exact);

/* ---- Refine ---------------------------------------------------------------------------------- */

/* Turn the candidates of one query into its k rows: ordered by distance in double, then by id.
 * There are at least k live rows in the sources that `skip` (by source, may be NULL) leaves.
 * places, distances, ids: k; the ids' bytes are in the arena. */
vex_status vexi_refine(const vexi_env *env, const vexi_view *view, const bool *skip,
                       const float *query, const vexi_topk *topk, uint32_t k, vexi_arena *arena,
                       vexi_place *places, double *distances, vex_string *ids,
                       uint32_t *failed_source, vex_error *err);

#endif
