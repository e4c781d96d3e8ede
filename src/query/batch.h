/* Batch: one Arrow struct array (a record batch) from columns in engine form.
 *
 * Everything of a batch lies in one reference-counted block: its arrays, buffers and the reference
 * to the engine's memory that it shares. The struct and each child hold one reference, so that a
 * consumer may move any child out and release the rest, as the Arrow C Data interface allows.
 *
 * Shared, not copied: a vector column whose rows lie one behind the other in memory (a single row
 * does), and a string or binary column whose only value is large. Everything else is gathered. */
#ifndef VEXI_QUERY_BATCH_H
#define VEXI_QUERY_BATCH_H

#include "query/keeper.h"
#include "table/table.h"

enum { VEXI_BATCH_COLUMNS_MAX = VEX_COLUMNS_MAX + 8 };

/* What `data` of a column points at: an item per row. */
typedef enum vexi_batch_kind {
    VEXI_BATCH_UINT32,    /* uint32_t: uint32 */
    VEXI_BATCH_FLOAT64,   /* double: float64 */
    VEXI_BATCH_STRING,    /* vex_string: utf8; null where data is NULL */
    VEXI_BATCH_VECTOR,    /* const uint8_t *: fixed_size_list<float>; null where NULL */
    VEXI_BATCH_CELL_UTF8, /* vexi_cell, from here on */
    VEXI_BATCH_CELL_BINARY,
    VEXI_BATCH_CELL_INT64,
    VEXI_BATCH_CELL_FLOAT64,
    VEXI_BATCH_CELL_BOOL,
    VEXI_BATCH_CELL_TIMESTAMP
} vexi_batch_kind;

typedef struct vexi_batch_column {
    vex_string name;
    vexi_batch_kind kind;
    bool nullable;
    uint32_t dimension; /* VEXI_BATCH_VECTOR */
    const void *data;   /* row_count items; borrowed for the call */
} vexi_batch_column;

/* Where the columns' bytes lie. If the batch shares some, it retains view and memtable (either may
 * be NULL) and takes the arenas (an array of env's, moved: then set to NULL). Otherwise all stay
 * as they are. Without a view or memtable nothing is shared. */
typedef struct vexi_batch_owner {
    vexi_view *view;
    vexi_memtable *memtable;
    vexi_arena *arenas;
    size_t arena_count;
    size_t failed_row; /* on VEX_IO: the row whose bytes, in a mapped file, could not be read */
} vexi_batch_owner;

/* owner may be NULL. VEX_LIMIT when a string or binary column holds more than 2 GiB: offsets are
 * 32-bit whatever the size, so that a column's type never depends on its rows. */
vex_status vexi_batch_build(vexi_keeper *keeper, const vexi_batch_column *columns,
                            size_t column_count, size_t row_count, vexi_batch_owner *owner,
                            struct ArrowArray *out, vex_error *err);

/* The schema of such a batch; data is not looked at. */
vex_status vexi_batch_schema(vexi_keeper *keeper, const vexi_batch_column *columns,
                             size_t column_count, struct ArrowSchema *out, vex_error *err);

#endif
