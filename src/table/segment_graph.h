/* A segment's graph: a second file beside its index file, optional, found by its name.
 *
 *     unknown ──► missing ──build──► (file is there) ──map, check──► loaded
 *        │           ▲                                │           │
 *        │           └──── damaged: file removed ◄────┘           │
 *        ├──► no room: memory for graphs is taken                 │
 *        └◄───────────── a search met damage ─────────────────────┘
 *
 * Only the lake's index task (index_task.c) moves a segment along; a search that meets damage takes
 * the graph away. A graph is published by one pointer: views that run see it at their next segment.
 * Every byte of a file was compared with its checksum before that. */
#ifndef VEXI_TABLE_SEGMENT_GRAPH_H
#define VEXI_TABLE_SEGMENT_GRAPH_H

#include "table/segment.h"

typedef struct vexi_segment_graph vexi_segment_graph;

typedef enum vexi_graph_state {
    VEXI_GRAPH_UNKNOWN = 0,
    VEXI_GRAPH_MISSING = 1,
    VEXI_GRAPH_NO_ROOM = 2,
    VEXI_GRAPH_LOADED = 3
} vexi_graph_state;

vexi_graph_state vexi_segment_graph_state(const vexi_segment *segment);
/* Whether a graph pays: IVF segments only, the others are compared faster than walked; but not
 * where all rows are one (a single list), nor where they are so long or so short that codes cannot
 * judge them, which no search would walk. */
bool vexi_segment_graph_wanted(const vexi_segment *segment);
/* NULL: none is in use. Valid as long as the segment. */
const vexi_graph_file *vexi_segment_graph_file(const vexi_segment *segment);
/* Of the graph in use, 0: none. */
uint64_t vexi_segment_graph_size_bytes(const vexi_segment *segment);

/* Look for the graph file; map (or copy, where it is large: huge pages), check and publish it if it
 * fits: all graphs together take at most limit_bytes. Moves the state; VEX_OK also where there is
 * none or no room. A damaged or foreign file is removed unless read_only.
 *
 * cancel         atomic, not 0 ends with VEX_CANCELLED.
 * rotation_seed  of the collection. */
vex_status vexi_segment_graph_load(vexi_segment *segment, uint64_t rotation_seed,
                                   uint64_t limit_bytes, bool read_only, const int *cancel,
                                   vex_error *err);

/* Build the graph of a segment where it is missing, and put its file; then load it. The build and
 * what is loaded take at most limit_bytes together, else VEXI_GRAPH_NO_ROOM. VEX_CANCELLED. */
vex_status vexi_segment_graph_build(vexi_segment *segment, const vexi_rotation *rotation,
                                    uint64_t limit_bytes, const int *cancel, vex_error *err);

/* Whether the loaded graph still matches its checksums. No graph is fine. */
vex_status vexi_segment_graph_check(const vexi_segment *segment, vex_error *err);
/* The same for the file as it lies in the store, in use or not. *found: there is one. */
vex_status vexi_segment_graph_verify(const vexi_segment *segment, uint64_t rotation_seed,
                                     bool *found, vex_error *err);
/* Whether the graph in use lies in memory of its own and not in a mapping. */
bool vexi_segment_graph_copied(const vexi_segment *segment);
/* Object name in the store; the caller frees it. NULL without memory. */
char *vexi_segment_graph_name(const vexi_segment *segment);
/* No search begins to use it any more. */
void vexi_segment_graph_retire(vexi_segment *segment);
/* Delete the file, where there may be one; failing is logged. */
void vexi_segment_graph_remove(const vexi_segment *segment);
/* At the end of the segment. */
void vexi_segment_graph_free(vexi_segment *segment);

#endif
