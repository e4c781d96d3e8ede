/* Row source: rows out of a foreign file, batch by batch: Parquet by any writer, .fvecs, .bvecs,
 * .npy, JSON lines. Used by import and for data files that another engine added to a collection.
 *
 * Works over the whole file in memory (usually a mapping); memory beyond it is bounded by one
 * batch, or one row group of a Parquet file. */
#ifndef VEXI_FORMAT_ROW_SOURCE_H
#define VEXI_FORMAT_ROW_SOURCE_H

#include "format/row.h"

typedef struct vexi_row_source vexi_row_source;

typedef struct vexi_row_source_options {
    vex_string id_column; /* null: `id` if there is one, else the row number                   */
    vex_string vector_column; /* null: `vector`, else the only column that holds vectors */
    vexi_span ids;         /* text, an id per line, for formats without ids; data NULL: none    */
    uint64_t first_number; /* row number of the first row where ids are row numbers             */
} vexi_row_source_options;

/* What the file holds. Typed columns: every other column of a type that maps to int64 (all integer
 * types that fit), double (float too), string, bool, timestamp (any unit, to microseconds);
 * columns `attributes` (string) and `payload` (binary) become the row's own. Other types are left
 * out and named in `skipped` (comma-separated text, may be empty). An integer id column appears
 * as a typed column too, as `id_number` if its name is `id`, which no typed column can have. */
typedef struct vexi_row_source_info {
    uint32_t dimension;
    uint64_t row_count; /* 0 while unknown (JSON lines) */
    uint32_t column_count;
    const vexi_schema_column *columns;
    const char *skipped;
} vexi_row_source_info;

/* name: the file's, decides the format together with the first bytes; for messages too. The file
 * and options stay borrowed until close. VEX_INVALID: no vector column, ragged vectors (err->row),
 * unknown format; VEX_CORRUPT: damaged; VEX_UNSUPPORTED. The dimension is that of the first row, 0
 * where a Parquet file has none. */
vex_status vexi_row_source_open(const vexi_env *env, const char *name, vexi_span file,
                                const vexi_row_source_options *options, vexi_row_source **out,
                                vexi_row_source_info *info, vex_error *err);

/* The next up to row_max rows, in file order, memory in the arena (which the caller clears between
 * batches); fewer at the end of a row group, or where their vectors would pass 64 MiB; *row_count 0
 * at the end. After a failure the source can only be closed. cells are in the order of
 * info->columns. Checks: dimension of every vector, finite values, no null vector or id,
 * id 1..VEX_ID_SIZE_MAX bytes of UTF-8, attributes a JSON object; err->row is the row's number in
 * the file, from 0. */
vex_status vexi_row_source_next(vexi_row_source *source, size_t row_max, vexi_arena *arena,
                                vexi_row **rows, size_t *row_count, vex_error *err);

void vexi_row_source_close(vexi_row_source *source); /* NULL is fine */

#endif
