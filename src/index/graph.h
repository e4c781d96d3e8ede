/* Graph: approximate nearest neighbours by walking from row to row, codes packed beside each node.
 *
 * Bounded-degree proximity graph in the family of HNSW (Malkov & Yashunin 2018), with the packed
 * layout of SymphonyQG (Gou et al., SIGMOD 2025): a node holds its own vector, the one-bit codes of
 * its neighbours around that vector in blocks of 32, and their row numbers; a hop costs one exact
 * distance and one code scan over consecutive bytes. Pure computation over given memory.
 *
 * A node is, in this order, each part aligned to 64:
 *     vector         float32 x dimension (unit length under cosine; as given otherwise)
 *     blocks         degree / 32 code blocks (kernel/kernel.h) around the node's vector
 *     neighbours     u32 x degree row numbers; unused slots hold the node itself
 * The graph walks in the space described in graph.c for inner product. */
#ifndef VEXI_INDEX_GRAPH_H
#define VEXI_INDEX_GRAPH_H

#include "index/calibration.h"
#include "index/code.h"

typedef struct vexi_graph_layout {
    vex_metric metric;
    uint32_t dimension;
    uint32_t padded; /* of the codes */
    uint32_t degree; /* a multiple of 32 */
    size_t blocks_offset;
    size_t neighbours_offset;
    size_t node_size;
} vexi_graph_layout;

vexi_graph_layout vexi_graph_layout_of(vex_metric metric, uint32_t dimension, uint32_t degree);

enum { VEXI_GRAPH_ENTRIES_MAX = 1024 };

/* A graph in memory or in a mapped file. Whatever the bytes of nodes and entries, searching reads
 * nothing outside them: row numbers are compared with row_count at each use. */
typedef struct vexi_graph {
    vexi_graph_layout layout;
    uint32_t row_count;
    const uint8_t *nodes;    /* row_count x node_size, aligned to 64 */
    const uint32_t *entries; /* row numbers where walks may start */
    uint32_t entry_count;
    const uint8_t
        *entry_codes; /* the entries as one list of one-bit codes around the origin; or NULL */
    float entry_error;
    const float *origin; /* padded values, rotated */
    float row_length;    /* root mean square |x| (1 under cosine) */
    float parameters[4]; /* graph.c's own (under inner product: M^2), kept in the file */
} vexi_graph;

typedef struct vexi_graph_options {
    uint32_t degree; /* 0: default */
    uint64_t seed;
    const int *cancel;   /* atomic; not 0 ends the build with VEX_CANCELLED; may be NULL */
    uint64_t *rows_done; /* atomic progress, 0 .. row_count; may be NULL */
} vexi_graph_options;

/* Build over the rows of a segment in its row order (row i at rows[i], aligned to 4). Node numbers
 * are row positions. Memory is taken from env; freed by vexi_graph_deinit. Uses env's parallel, in
 * slices short enough that others get their turn. Deterministic for a seed on one thread.
 * VEX_CANCELLED. */
vex_status vexi_graph_build(const vexi_env *env, const vexi_rotation *rotation,
                            const float *const *rows, uint32_t row_count, uint32_t dimension,
                            vex_metric metric, const vexi_graph_options *options, vexi_graph *out,
                            vex_error *err);
void vexi_graph_deinit(const vexi_env *env, vexi_graph *graph);

/* Memory for nodes: where there are many, aligned so that the system backs it by huge pages. NULL
 * without memory; vexi_free. */
void *vexi_graph_nodes_alloc(const vexi_env *env, size_t size);
/* From so many bytes on vexi_graph_nodes_alloc asks for huge pages. */
enum { VEXI_GRAPH_HUGE = 32 << 20 };

/* Bytes of memory that building takes at most, the result included. */
uint64_t vexi_graph_build_size(uint64_t row_count, uint32_t dimension, uint32_t degree);

/* Least ef per recall and k over the sample. cancel: as for the build. */
vex_status vexi_graph_calibrate(const vexi_env *env, const vexi_rotation *rotation,
                                const vexi_graph *graph, const vexi_calibration_sample *sample,
                                const int *cancel, vexi_calibration *out, vex_error *err);

/* Make a query ready for a graph. rotation is the collection's; values as the client gave them. */
vex_status vexi_graph_query_init(vexi_code_query *query, const vexi_graph *graph,
                                 const vexi_rotation *rotation, const float *values,
                                 vexi_arena *arena, vex_error *err);

/* Scratch memory of searches, reused from one to the next: one per thread at a time. */
typedef struct vexi_graph_scratch vexi_graph_scratch;
vex_status vexi_graph_scratch_create(const vexi_env *env, vexi_graph_scratch **out, vex_error *err);
void vexi_graph_scratch_destroy(vexi_graph_scratch *scratch); /* NULL is fine */
/* Make room for a search of a graph of row_count rows with this ef. */
vex_status vexi_graph_scratch_reserve(vexi_graph_scratch *scratch, uint32_t row_count,
                                      uint32_t degree, uint32_t ef, vex_error *err);

typedef struct vexi_graph_result {
    uint32_t hop_count; /* nodes expanded */
    uint32_t row_count; /* distances estimated or computed */
    uint32_t found;     /* rows pushed: allowed ones that were reached */
} vexi_graph_result;

/* Walk with a beam of ef and push what was reached and is not hidden (bit set by row position; may
 * be NULL) with its float32 distance in the metric's terms. query: from
 * vexi_graph_query_init. Disallowed rows are walked through, never pushed, and take no place among
 * the ef best. Allocates nothing, takes no lock (guard). */
void vexi_graph_search(const vexi_graph *graph, const vexi_code_query *query, uint32_t ef,
                       const uint64_t *hidden, uint32_t source, vexi_graph_scratch *scratch,
                       vexi_topk *topk, vexi_graph_result *result);

#endif
