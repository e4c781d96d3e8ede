/* Rows of Arrow batches as RESP values. */
#ifndef VEXI_SERVER_ROWS_H
#define VEXI_SERVER_ROWS_H

#include "resp/resp.h"
#include "vexlake.h"

/* A batch (a struct array) and its schema; both borrowed. */
typedef struct vexi_rows {
    const struct ArrowSchema *schema;
    const struct ArrowArray *batch;
} vexi_rows;

int64_t vexi_rows_count(const vexi_rows *rows);
bool vexi_rows_is_null(const vexi_rows *rows, int64_t column, int64_t row);
/* A utf8 or binary value (short or large offsets); data is NULL where null. */
vex_string vexi_rows_string(const vexi_rows *rows, int64_t column, int64_t row);
double vexi_rows_double(const vexi_rows *rows, int64_t column, int64_t row);
uint32_t vexi_rows_u32(const vexi_rows *rows, int64_t column, int64_t row);

/* Write the columns from `first_column` on as a map of name and value; raw: vectors as blobs. */
void vexi_rows_write_map(const vexi_rows *rows, int64_t first_column, int64_t row, bool raw,
                         vexi_resp_protocol protocol, vexi_buffer *out);

/* Rough size of the columns from `first_column` on of all rows as text: what writing costs. */
uint64_t vexi_rows_cost(const vexi_rows *rows, int64_t first_column, bool raw);

/* Microseconds since 1970 as 2026-01-31T12:00:00.123456Z (no fraction where it is 0); years outside
 * 0..9999 as the number itself. Returns the size, below 40. */
size_t vexi_format_timestamp(int64_t us, char out[40]);

#endif
