/* What the Parquet files of this folder share: carquet's errors as statuses, and pages.
 *
 * carquet writes our files and reads foreign ones. Our own pages are decoded here instead: a point
 * read then needs neither the footer (which grows with rows x columns) nor the headers of earlier
 * pages, only the pages that hold the asked rows, found through the layout in the index head.
 *
 * The pages that segment_write.c makes, and parquet_page.c reads, are data pages v1, PLAIN, with
 * definition levels of one bit (every column is nullable), CRC on, one page per carquet write:
 * - attributes and string columns: zstd, at most VEXI_PAGE_VALUE_BYTES of values or one row;
 * - payload: the same, uncompressed, so that a value is a slice of the file;
 * - fixed-width columns: uncompressed, at most VEXI_PAGE_ROWS rows. */
#ifndef VEXI_FORMAT_PARQUET_INTERNAL_H
#define VEXI_FORMAT_PARQUET_INTERNAL_H

#include <carquet/carquet.h>

#include "base/buffer.h"
#include "format/row.h"
#include "format/segment_file.h"

enum {
    /* Asked columns are to cost under 16 KiB a row whatever the data: values, levels and header of
     * a page stay below it, compressible or not. */
    VEXI_PAGE_VALUE_BYTES = 15 * 1024,
    VEXI_PAGE_ROWS = 1000,
    /* A page is never larger than one payload and its length, levels and header. */
    VEXI_PAGE_SIZE_MAX = (64 << 20) + (1 << 16),
    VEXI_PAGE_HEADER_SIZE_MAX = 1 << 16
};

/* The status of a carquet failure: what names the object, e.g. the column. */
vex_status vexi_carquet_fail(carquet_status_t status, const carquet_error_t *detail,
                             const char *what, vex_error *err);

typedef enum vexi_page_kind {
    VEXI_PAGE_DATA = 0,
    VEXI_PAGE_INDEX = 1,
    VEXI_PAGE_DICTIONARY = 2,
    VEXI_PAGE_DATA_V2 = 3
} vexi_page_kind;

typedef struct vexi_page_header {
    int32_t kind;
    uint32_t size_bytes; /* of the header itself */
    uint32_t compressed_size;
    uint32_t uncompressed_size;
    uint32_t value_count;
    int32_t encoding;
    int32_t definition_encoding;
    int32_t repetition_encoding;
    bool has_crc;
    uint32_t crc;
} vexi_page_header;

/* Parse the page header at the start of bytes. VEX_CORRUPT: no header, or sizes beyond bytes. */
vex_status vexi_page_header_read(vexi_span bytes, vexi_page_header *out, vex_error *err);

/* Types of compact Thrift (https://github.com/apache/thrift, doc/specs:
 * thrift-compact-protocol.md).
 */
enum {
    VEXI_THRIFT_STOP = 0,
    VEXI_THRIFT_TRUE = 1,
    VEXI_THRIFT_FALSE = 2,
    VEXI_THRIFT_BYTE = 3,
    VEXI_THRIFT_I16 = 4,
    VEXI_THRIFT_I32 = 5,
    VEXI_THRIFT_I64 = 6,
    VEXI_THRIFT_DOUBLE = 7,
    VEXI_THRIFT_BINARY = 8,
    VEXI_THRIFT_LIST = 9,
    VEXI_THRIFT_SET = 10,
    VEXI_THRIFT_MAP = 11,
    VEXI_THRIFT_STRUCT = 12
};

/* Compact Thrift over a reader, as far as headers and footers need it: a bounded skip of one value
 * of a type. false: malformed, or nested deeper than `depth`. */
bool vexi_thrift_skip(vexi_reader *reader, uint8_t type, int depth);
/* The next field of a struct: false at its end or on malformed bytes (reader->failed). *field is
 * the field before, 0 at first. */
bool vexi_thrift_field(vexi_reader *reader, int64_t *field, uint8_t *type);
/* The head of a list. Every element takes at least a byte, so a count beyond what is left fails. */
bool vexi_thrift_list(vexi_reader *reader, uint8_t *element, uint64_t *count);
uint64_t vexi_thrift_varint(vexi_reader *reader);
static inline int64_t vexi_thrift_zigzag(uint64_t value) {
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

/* ---- Foreign files (parquet_check.c) --------------------------------------------------------- */

enum {
    VEXI_PARQUET_FOOTER_SIZE_MAX = 256 << 20,
    VEXI_PARQUET_DEPTH_MAX = 8,      /* of the schema, below its root */
    VEXI_PARQUET_COLUMNS_MAX = 1000, /* leaves */
    VEXI_PARQUET_ROW_GROUPS_MAX = 1 << 20,
    VEXI_PARQUET_PAGE_UNPACKED_MAX = 1 << 30,
    VEXI_PARQUET_PAGE_VALUES_MAX = 1 << 26
};

/* Check the magic, the footer's size and shape before carquet sees the file: well-formed Thrift,
 * schema within the limits above, a column chunk per leaf in every row group, row counts that are
 * not negative and add up. VEX_INVALID: no Parquet file. VEX_CORRUPT, VEX_UNSUPPORTED. */
vex_status vexi_parquet_check_footer(vexi_span file, vex_error *err);

/* Check the page headers of one column chunk: inside of the file, sizes and counts within the
 * limits, value counts that add up to the chunk's and to at most value_max. column names
 * it in messages. */
vex_status vexi_parquet_check_chunk(const carquet_reader_t *reader, vexi_span file, int32_t group,
                                    int32_t leaf, const char *column, int64_t value_max,
                                    vex_error *err);

/* ---- Our own pages --------------------------------------------------------------------------- */

/* A page of ours, checked and unpacked. */
typedef struct vexi_page_values {
    uint32_t row_count;
    uint32_t present_count;
    const uint8_t *present; /* row_count bytes of 0 or 1; NULL: no row is null */
    vexi_span values;       /* PLAIN */
} vexi_page_values;

/* How column c (numbered as in row.h) of a schema lies in our files. */
bool vexi_column_is_bytes(const vexi_schema *schema, uint32_t column);
bool vexi_column_is_compressed(const vexi_schema *schema, uint32_t column);
const char *vexi_column_name(const vexi_schema *schema, uint32_t column);

/* Check and unpack the page of `column` that the layout describes as `where` and that lies in
 * `bytes` (where->size_bytes of them). What is unpacked is in the arena, else in bytes. */
vex_status vexi_page_open(const vexi_schema *schema, uint32_t column, const vexi_page *where,
                          vexi_span bytes, vexi_arena *arena, vexi_page_values *out,
                          vex_error *err);

#endif
