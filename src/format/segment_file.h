/* Segment file: the Parquet file of one segment, written and read through carquet.
 *
 * Columns: id string, vector list<float32>, attributes string, payload binary, typed columns; all
 * nullable in the schema, id and vector never null in fact. The vector column is PLAIN and
 * uncompressed with one page per row group, so that a vector's bytes are at
 * row_groups[g].vector_offset + (row - first_row) * dimension * 4. The pages of all other columns
 * take less than 16 KiB, or hold one larger value. Page CRCs on.
 * Pure functions over bytes: the caller does the I/O. */
#ifndef VEXI_FORMAT_SEGMENT_FILE_H
#define VEXI_FORMAT_SEGMENT_FILE_H

#include "base/buffer.h"
#include "format/row.h"

typedef struct vexi_page {
    uint64_t offset;     /* of the page header in the file */
    uint32_t size_bytes; /* header and data */
    uint32_t first_row;  /* row position in the segment */
    uint32_t row_count;
} vexi_page;

typedef struct vexi_row_group {
    uint64_t vector_offset; /* of the first vector's first byte */
    uint32_t first_row;
    uint32_t row_count;
} vexi_row_group;

/* Where things are in a segment file; stored in the index file's head. Immutable. */
typedef struct vexi_segment_layout {
    uint64_t file_size;
    uint64_t footer_offset; /* the footer reaches to the end of the file */
    uint32_t footer_crc;    /* CRC-32C of those bytes */
    uint32_t row_count;
    uint32_t row_group_count;
    uint32_t column_count; /* 2 + typed columns: attributes, payload, typed */
    const vexi_row_group *row_groups;
    /* Pages of column c in row group g: pages[page_first[c * row_group_count + g] ..
     * page_first[c * row_group_count + g + 1]). A dictionary page, if any, counts as the first page
     * with row_count 0. */
    const uint32_t *page_first; /* column_count * row_group_count + 1 */
    const vexi_page *pages;
} vexi_segment_layout;

enum { VEXI_ROW_GROUP_ROWS = 10000 }; /* at most; docs/decisions/0002-row-groups.md */

/* Write rows (in this order) as a Parquet file appended to `out` (empty on entry). The layout's
 * arrays are in the arena. */
vex_status vexi_segment_write(const vexi_env *env, const vexi_schema *schema,
                              const vexi_row *const *rows, size_t row_count, vexi_buffer *out,
                              vexi_arena *arena, vexi_segment_layout *layout, vex_error *err);

/* Byte offset of a row's vector. */
uint64_t vexi_segment_vector_offset(const vexi_segment_layout *layout, uint32_t dimension,
                                    uint64_t row);

/* Pieces of the file that decoding `columns` (numbers as in row.h, without the vector) for `rows`
 * (ascending positions) needs: page ranges by offset, each once, neighbours joined; the footer is
 * not needed. In the arena. VEX_INVALID: a row beyond the segment. */
vex_status vexi_segment_plan(const vexi_segment_layout *layout, const uint32_t *columns,
                             size_t column_count, const uint64_t *rows, size_t row_count,
                             vexi_arena *arena, vexi_piece **pieces, size_t *piece_count,
                             vex_error *err);

/* Decode. image: the whole file where it is mapped (pieces may then be NULL), else NULL and the
 * fetched pieces. out[c * row_count + r] receives the cell of columns[c] in rows[r]; strings point
 * into the arena or the image. pages_decoded and bytes count what was touched (add to them).
 * A file that lacks a typed column (foreign) yields nulls. VEX_CORRUPT on any mismatch. */
vex_status vexi_segment_decode(const vexi_env *env, const vexi_schema *schema,
                               const vexi_segment_layout *layout, const uint8_t *image,
                               const vexi_piece *pieces, size_t piece_count,
                               const uint32_t *columns, size_t column_count, const uint64_t *rows,
                               size_t row_count, vexi_arena *arena, vexi_cell *out,
                               uint64_t *pages_decoded, uint64_t *bytes, vex_error *err);

/* Check a whole file against its layout: footer CRC, page CRCs, every value decodable, row counts.
 * rows_seen receives the rows. */
vex_status vexi_segment_verify(const vexi_env *env, const vexi_schema *schema,
                               const vexi_segment_layout *layout, vexi_span file,
                               uint64_t *rows_seen, vex_error *err);

#endif
