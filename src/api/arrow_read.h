/* Arrow in: record batches of a caller's stream as rows.
 *
 * The memory is in our process and its addresses must be trusted, but nothing else is: types,
 * counts, offsets and nulls are checked, and what is wrong is named by its column. */
#ifndef VEXI_API_ARROW_READ_H
#define VEXI_API_ARROW_READ_H

#include "base/arena.h"
#include "format/row.h"

/* Where the columns of a stream are. */
typedef struct vexi_arrow_layout {
    int64_t child_count;
    int64_t id, vector, attributes, payload; /* number of the child, -1: there is none */
    int64_t typed[VEX_COLUMNS_MAX];          /* by column of the collection */
    bool large_id, large_attributes, large_payload;
    bool large_typed[VEX_COLUMNS_MAX];
    char vector_kind;     /* 'l' list, 'L' large_list, 'w' fixed_size_list */
    uint32_t vector_size; /* of a fixed_size_list */
} vexi_arrow_layout;

/* VEX_INVALID: a type that does not fit, a missing id or vector. VEX_NOT_FOUND: a column that the
 * collection does not have. */
vex_status vexi_arrow_layout_read(const struct ArrowSchema *schema, const vexi_schema *collection,
                                  vexi_arrow_layout *out, vex_error *err);

/* Rows of a batch; they borrow its memory, and the arena's. Rows are not yet checked
 * (table/row_check.h). err->row is the row of a null id or vector. */
vex_status vexi_arrow_rows_read(const vexi_arrow_layout *layout, const vexi_schema *collection,
                                const struct ArrowArray *batch, vexi_arena *arena, vex_row **out,
                                size_t *count, vex_error *err);

#endif
