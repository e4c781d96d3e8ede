/* The struct of a segment, for the files that open, read and check it. */
#ifndef VEXI_TABLE_SEGMENT_INTERNAL_H
#define VEXI_TABLE_SEGMENT_INTERNAL_H

#include "table/segment.h"
#include "table/segment_graph.h"

struct vexi_segment {
    int references; /* atomic */
    vexi_core *core;
    char *path;        /* relative to the table root */
    char *object_name; /* in the store */
    uint64_t size_bytes;
    uint64_t row_count;
    uint32_t dimension;
    vex_metric metric;

    vexi_object data;
    vexi_object index_object;
    vexi_index_file index; /* set unless foreign or damaged */
    uint8_t *index_bytes;  /* where the store cannot map: see vexi_index_file.fetch */
    bool indexed;
    int index_damaged; /* atomic: its bytes proved damaged after it was opened */
    uint64_t *checked; /* ours: a bit per row whose vector's checksum was compared; atomic words */

    /* Foreign: everything decoded. */
    bool foreign;
    vexi_arena arena;
    vexi_row *rows;
    float *vectors;
    float *inverse_norms;
    uint32_t *slots; /* row + 1, 0 empty */
    uint64_t slot_count;

    vex_error index_problem;   /* why it was opened plain; status VEX_OK: it was not. Immutable once
                                  published */
    uint32_t index_head_crc;   /* as the log tells, for pairing with a graph file */
    vexi_segment_graph *graph; /* atomic: in use; see segment_graph.h */
    vexi_segment_graph *graph_retired; /* atomic: a list of those that views may still walk */
    int graph_state;                   /* atomic: a vexi_graph_state */
    bool graph_told;                   /* that there is no room to build it; the index task's */
    uint32_t index_failures;           /* in a row, of work on this segment; the index task's */
    uint64_t index_retry_ns;           /* not tried again before; the index task's */
    uint64_t distrusted_ns;            /* atomic: when its files were last distrusted; 0: never */
    int plain_failed; /* atomic: its Parquet file is damaged too, nothing is left to try */

    float length_max; /* atomic: of the longest vector, or more; 0: nobody looked. See table.h */

    uint64_t deleted_told; /* atomic: see vexi_segment_deleted_told */
    vex_error damage;
    int damage_state; /* atomic: what `damage` holds */
};

/* Bytes of a whole object: the mapping, or a copy in the arena. */
vex_status vexi_segment_object_bytes(vexi_object *object, vexi_arena *arena, vexi_span *out,
                                     vex_error *err);

#endif
