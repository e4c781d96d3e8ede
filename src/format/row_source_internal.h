/* What the readers behind vexi_row_source share: one table of functions per format, and the checks
 * that every row passes whatever its format. */
#ifndef VEXI_FORMAT_ROW_SOURCE_INTERNAL_H
#define VEXI_FORMAT_ROW_SOURCE_INTERNAL_H

#include "base/buffer.h"
#include "format/row_source.h"

/* The functions of one format; `state` is what its open function left in the source. */
typedef struct vexi_row_source_ops {
    vex_status (*next)(vexi_row_source *source, size_t row_max, vexi_arena *arena, vexi_row **rows,
                       size_t *row_count, vex_error *err);
    void (*close)(vexi_row_source *source); /* NULL: nothing but the source's arena to give back */
} vexi_row_source_ops;

struct vexi_row_source {
    const vexi_env *env;
    const vexi_row_source_ops *ops;
    void *state;
    const char *name; /* for messages */
    vexi_span file;
    vexi_row_source_options options;
    vexi_arena arena;   /* lives as long as the source: info, state */
    uint32_t dimension; /* of every vector */
    uint64_t next_row;  /* number in the file of the next row */
    size_t ids_offset;  /* where the next id stands in options.ids */
};

/* Each fills info, sets ops, state and dimension. On failure close is not called. */
vex_status vexi_source_open_parquet(vexi_row_source *source, vexi_row_source_info *info,
                                    vex_error *err);
vex_status vexi_source_open_vecs(vexi_row_source *source, bool bytes, vexi_row_source_info *info,
                                 vex_error *err);
vex_status vexi_source_open_npy(vexi_row_source *source, vexi_row_source_info *info,
                                vex_error *err);
vex_status vexi_source_open_jsonl(vexi_row_source *source, vexi_row_source_info *info,
                                  vex_error *err);

/* ---- Typed columns ----------------------------------------------------------------------------
 */

/* Typed columns as they are found, and the names of what is left out. */
typedef struct vexi_source_columns {
    vexi_schema_column items[VEX_COLUMNS_MAX];
    uint32_t count;
    vexi_buffer skipped;
} vexi_source_columns;

void vexi_source_columns_init(vexi_source_columns *columns, const vexi_env *env);
void vexi_source_columns_deinit(vexi_source_columns *columns);
/* Add a column; *index receives its number. A name that a collection cannot have (reserved, taken,
 * too long, not UTF-8, with control characters), or one too many, is skipped: *index is -1. */
vex_status vexi_source_add_column(vexi_row_source *source, vexi_source_columns *columns,
                                  vex_string name, vex_type type, int32_t *index, vex_error *err);
void vexi_source_skip_column(vexi_source_columns *columns, vex_string name);
/* Put columns and skipped into info, in the source's arena. */
vex_status vexi_source_finish_columns(vexi_row_source *source, vexi_source_columns *columns,
                                      vexi_row_source_info *info, vex_error *err);

/* ---- Rows --------------------------------------------------------------------------------------
 */

/* How many rows of a batch keep its vectors within bounded memory. At least 1. */
size_t vexi_source_batch_rows(size_t row_max, uint32_t dimension);
/* Room for the next batch of a format whose rows are counted: zeroed rows and the memory of their
 * vectors. *count is 0 behind the last row. */
vex_status vexi_source_batch(const vexi_row_source *source, uint64_t row_count, size_t row_max,
                             vexi_arena *arena, vexi_row **rows, float **vectors, size_t *count,
                             vex_error *err);
vex_status vexi_source_check_dimension(uint64_t dimension, vex_error *err);
/* Finite values. row is the row's number in the file; likewise below. */
vex_status vexi_source_check_vector(const float *vector, uint32_t dimension, uint64_t row,
                                    vex_error *err);
vex_status vexi_source_check_id(vex_string id, uint64_t row, vex_error *err);
vex_status vexi_source_check_attributes(vex_string text, uint64_t row, vex_error *err);
vex_status vexi_source_check_string(vex_string text, const char *column, uint64_t row,
                                    vex_error *err);
/* The id of a row in a format without ids: the next line of options.ids, else its number. */
vex_status vexi_source_next_id(vexi_row_source *source, uint64_t row, vexi_arena *arena,
                               vex_string *out, vex_error *err);
/* options.ids has exactly row_count lines, where there are any. */
vex_status vexi_source_check_ids(const vexi_row_source *source, uint64_t row_count, vex_error *err);
/* Decimal text in the arena; data is NULL when out of memory. */
vex_string vexi_source_decimal(vexi_arena *arena, int64_t value);
/* IEEE half precision, little-endian. */
float vexi_half_to_float(uint16_t half);

#endif
