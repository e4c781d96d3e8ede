/* Row check: from what a caller gave (vex_row) to what is stored (vexi_row).
 *
 * Checks id, dimension, finiteness, the zero vector under cosine, attributes (a JSON object),
 * sizes, and gives each typed column its value: from `values`, else from the key of that name in
 * the attributes, else null. */
#ifndef VEXI_TABLE_ROW_CHECK_H
#define VEXI_TABLE_ROW_CHECK_H

#include "base/arena.h"
#include "format/row.h"

/* out: count rows; cells in the arena, strings borrowed from `rows` (or in the arena where JSON
 * text had to be unescaped). err->row is the index of the offending row. */
vex_status vexi_rows_check(const vexi_schema *schema, const vex_row *rows, size_t count,
                           vexi_arena *arena, vexi_row *out, vex_error *err);

/* 1..VEX_ID_SIZE_MAX bytes of UTF-8. */
vex_status vexi_id_check(vex_string id, vex_error *err);

/* Finite, of the schema's dimension (the message tells both), not zero under cosine. */
vex_status vexi_vector_check(const vexi_schema *schema, const float *vector, uint32_t dimension,
                             vex_error *err);

#endif
