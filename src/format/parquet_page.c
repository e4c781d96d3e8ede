/* Pages: headers in compact Thrift, and the decoding of our own pages.
 *
 * Follows the Parquet format (https://parquet.apache.org/docs/file-format/data-pages/) for what
 * segment_write.c produces and nothing more: data pages v1, PLAIN, RLE definition levels of one
 * bit. Whatever else stands in a page of ours is damage. Every size is checked against the page
 * before it is used; a checksum that matches is not trusted to make sizes true.
 *
 * Dropped: reading our pages through carquet. It needs the footer and the headers of all earlier
 * pages of a column chunk for every point read, which costs more bytes than the rows. */
#include "format/parquet_internal.h"

#include <zstd.h>

#include "base/checksum.h"

enum { HEADER_DEPTH_MAX = 8 };

vex_status vexi_carquet_fail(carquet_status_t status, const carquet_error_t *detail,
                             const char *what, vex_error *err) {
    const char *text = detail != NULL && detail->message[0] != '\0' ? detail->message
                                                                    : carquet_status_string(status);
    vex_status mapped;
    switch (status) {
    case CARQUET_ERROR_OUT_OF_MEMORY:
        mapped = VEX_MEMORY;
        break;
    case CARQUET_ERROR_NOT_IMPLEMENTED:
    case CARQUET_ERROR_UNSUPPORTED_CODEC:
    case CARQUET_ERROR_VERSION_NOT_SUPPORTED:
        mapped = VEX_UNSUPPORTED;
        break;
    case CARQUET_ERROR_INVALID_ARGUMENT:
    case CARQUET_ERROR_INTERNAL:
    case CARQUET_ERROR_INVALID_STATE:
        mapped = VEX_INTERNAL;
        break;
    default:
        mapped = VEX_CORRUPT;
        break;
    }
    return vexi_fail(err, mapped, "%s: %s", what, text);
}

/* ---- Compact Thrift -------------------------------------------------------------------------- */

uint64_t vexi_thrift_varint(vexi_reader *reader) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = vexi_read_u8(reader);
        value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) {
            return value;
        }
    }
    reader->failed = true;
    return 0;
}

/* One value inside a list or map, where booleans take a byte. */
static bool skip_element(vexi_reader *reader, uint8_t type, int depth) {
    if (type == VEXI_THRIFT_TRUE || type == VEXI_THRIFT_FALSE) {
        (void)vexi_read_u8(reader);
        return !reader->failed;
    }
    return vexi_thrift_skip(reader, type, depth);
}

bool vexi_thrift_list(vexi_reader *reader, uint8_t *element, uint64_t *count) {
    uint8_t head = vexi_read_u8(reader);
    *element = head & 0x0f;
    *count = head >> 4;
    if (*count == 15) {
        *count = vexi_thrift_varint(reader);
    }
    if (reader->failed || *count > reader->size - reader->offset) {
        reader->failed = true;
        return false;
    }
    return true;
}

static bool skip_list(vexi_reader *reader, int depth) {
    uint8_t element;
    uint64_t count;
    if (!vexi_thrift_list(reader, &element, &count)) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (!skip_element(reader, element, depth - 1)) {
            return false;
        }
    }
    return true;
}

static bool skip_map(vexi_reader *reader, int depth) {
    uint64_t count = vexi_thrift_varint(reader);
    if (reader->failed || count > reader->size - reader->offset) {
        return false;
    }
    if (count == 0) {
        return true;
    }
    uint8_t types = vexi_read_u8(reader);
    for (uint64_t i = 0; i < count; i++) {
        if (!skip_element(reader, types >> 4, depth - 1) ||
            !skip_element(reader, types & 0x0f, depth - 1)) {
            return false;
        }
    }
    return true;
}

bool vexi_thrift_skip(vexi_reader *reader, uint8_t type, int depth) {
    if (depth <= 0) {
        return false;
    }
    switch (type) {
    case VEXI_THRIFT_TRUE:
    case VEXI_THRIFT_FALSE:
        return !reader->failed;
    case VEXI_THRIFT_BYTE:
        (void)vexi_read_u8(reader);
        return !reader->failed;
    case VEXI_THRIFT_I16:
    case VEXI_THRIFT_I32:
    case VEXI_THRIFT_I64:
        (void)vexi_thrift_varint(reader);
        return !reader->failed;
    case VEXI_THRIFT_DOUBLE:
        (void)vexi_read_bytes(reader, 8);
        return !reader->failed;
    case VEXI_THRIFT_BINARY: {
        uint64_t size = vexi_thrift_varint(reader);
        if (size > reader->size) {
            return false;
        }
        (void)vexi_read_bytes(reader, (size_t)size);
        return !reader->failed;
    }
    case VEXI_THRIFT_LIST:
    case VEXI_THRIFT_SET:
        return skip_list(reader, depth);
    case VEXI_THRIFT_MAP:
        return skip_map(reader, depth);
    case VEXI_THRIFT_STRUCT:
        for (;;) {
            uint8_t head = vexi_read_u8(reader);
            if (reader->failed) {
                return false;
            }
            if (head == VEXI_THRIFT_STOP) {
                return true;
            }
            if (head >> 4 == 0) {
                (void)vexi_thrift_varint(reader);
            }
            if (!vexi_thrift_skip(reader, head & 0x0f, depth - 1)) {
                return false;
            }
        }
    default:
        return false;
    }
}

bool vexi_thrift_field(vexi_reader *reader, int64_t *field, uint8_t *type) {
    uint8_t head = vexi_read_u8(reader);
    if (reader->failed || head == VEXI_THRIFT_STOP) {
        return false;
    }
    *type = head & 0x0f;
    if (head >> 4 != 0) {
        *field += head >> 4;
    } else {
        *field = vexi_thrift_zigzag(vexi_thrift_varint(reader));
    }
    return !reader->failed;
}

/* A number that must fit 0..INT32_MAX (or any 32 bits where `any`). */
static uint32_t read_i32(vexi_reader *reader, uint8_t type, bool any) {
    if (type != VEXI_THRIFT_I32) {
        reader->failed = true;
        return 0;
    }
    int64_t value = vexi_thrift_zigzag(vexi_thrift_varint(reader));
    if (value > INT32_MAX || value < (any ? INT32_MIN : 0)) {
        reader->failed = true;
        return 0;
    }
    return (uint32_t)value;
}

/* The struct of a data page (v1), or of a dictionary page, whose first two fields agree. */
static void read_data_page(vexi_reader *reader, vexi_page_header *out) {
    int64_t field = 0;
    uint8_t type = 0;
    while (vexi_thrift_field(reader, &field, &type)) {
        bool data = out->kind == VEXI_PAGE_DATA;
        if (field == 1) {
            out->value_count = read_i32(reader, type, false);
        } else if (field == 2) {
            out->encoding = (int32_t)read_i32(reader, type, false);
        } else if (field == 3 && data) {
            out->definition_encoding = (int32_t)read_i32(reader, type, false);
        } else if (field == 4 && data) {
            out->repetition_encoding = (int32_t)read_i32(reader, type, false);
        } else if (!vexi_thrift_skip(reader, type, HEADER_DEPTH_MAX)) {
            reader->failed = true;
        }
    }
}

static void read_data_page_v2(vexi_reader *reader, vexi_page_header *out) {
    int64_t field = 0;
    uint8_t type = 0;
    while (vexi_thrift_field(reader, &field, &type)) {
        if (field == 1) {
            out->value_count = read_i32(reader, type, false);
        } else if (field == 4) {
            out->encoding = (int32_t)read_i32(reader, type, false);
        } else if (!vexi_thrift_skip(reader, type, HEADER_DEPTH_MAX)) {
            reader->failed = true;
        }
    }
}

vex_status vexi_page_header_read(vexi_span bytes, vexi_page_header *out, vex_error *err) {
    *out = (vexi_page_header){.kind = -1, .encoding = -1};
    size_t limit = bytes.size < VEXI_PAGE_HEADER_SIZE_MAX ? bytes.size : VEXI_PAGE_HEADER_SIZE_MAX;
    vexi_reader reader = vexi_reader_of(vexi_span_of(bytes.data, limit));
    int64_t field = 0;
    uint8_t type = 0;
    bool counted = false;
    while (vexi_thrift_field(&reader, &field, &type)) {
        if (field == 1) {
            out->kind = (int32_t)read_i32(&reader, type, false);
        } else if (field == 2) {
            out->uncompressed_size = read_i32(&reader, type, false);
        } else if (field == 3) {
            out->compressed_size = read_i32(&reader, type, false);
        } else if (field == 4) {
            out->crc = read_i32(&reader, type, true);
            out->has_crc = true;
        } else if (type == VEXI_THRIFT_STRUCT && (field == 5 || field == 7)) {
            read_data_page(&reader, out);
            counted = true;
        } else if (type == VEXI_THRIFT_STRUCT && field == 8) {
            read_data_page_v2(&reader, out);
            counted = true;
        } else if (!vexi_thrift_skip(&reader, type, HEADER_DEPTH_MAX)) {
            reader.failed = true;
        }
    }
    out->size_bytes = (uint32_t)reader.offset;
    if (reader.failed || out->kind < 0 || (!counted && out->kind != VEXI_PAGE_INDEX)) {
        return vexi_fail(err, VEX_CORRUPT, "malformed page header");
    }
    if (out->compressed_size > bytes.size - reader.offset) {
        return vexi_fail(err, VEX_CORRUPT, "a page of %u bytes reaches past its end",
                         out->compressed_size);
    }
    return VEX_OK;
}

/* ---- Our own pages --------------------------------------------------------------------------- */

bool vexi_column_is_bytes(const vexi_schema *schema, uint32_t column) {
    return column < VEXI_COLUMN_TYPED ||
           schema->columns[column - VEXI_COLUMN_TYPED].type == VEX_TYPE_STRING;
}

bool vexi_column_is_compressed(const vexi_schema *schema, uint32_t column) {
    return column != VEXI_COLUMN_PAYLOAD && vexi_column_is_bytes(schema, column);
}

const char *vexi_column_name(const vexi_schema *schema, uint32_t column) {
    switch (column) {
    case VEXI_COLUMN_ATTRIBUTES:
        return "attributes";
    case VEXI_COLUMN_PAYLOAD:
        return "payload";
    default:
        return schema->columns[column - VEXI_COLUMN_TYPED].name.data;
    }
}

/* Definition levels of one bit: runs and bit-packed groups. present is NULL while no row is null.
 */
static bool read_levels(vexi_span levels, uint32_t row_count, vexi_arena *arena,
                        vexi_page_values *out, bool *no_memory) {
    vexi_reader reader = vexi_reader_of(levels);
    uint8_t *present = NULL;
    uint32_t row = 0;
    *no_memory = false;
    while (row < row_count) {
        uint64_t head = vexi_thrift_varint(&reader);
        uint64_t count = head >> 1;
        bool packed = (head & 1) != 0;
        /* A packed run counts groups of eight; the last group may be padded. */
        if (reader.failed || count == 0 || count > (1u << 28)) {
            return false;
        }
        uint32_t left = row_count - row;
        uint32_t rows = packed ? (uint32_t)count * 8u : (uint32_t)count;
        rows = rows < left ? rows : left;
        const uint8_t *bytes = vexi_read_bytes(&reader, packed ? (size_t)count : 1);
        if (bytes == NULL || (!packed && bytes[0] > 1)) {
            return false;
        }
        if (present == NULL && !packed && bytes[0] == 1) {
            row += rows;
            out->present_count += rows;
            continue;
        }
        if (present == NULL) {
            present = vexi_arena_alloc(arena, row_count);
            if (present == NULL) {
                *no_memory = true;
                return false;
            }
            memset(present, 1, row_count);
        }
        for (uint32_t i = 0; i < rows; i++) {
            uint8_t bit = (uint8_t)(packed ? bytes[i / 8] >> (i % 8) & 1 : bytes[0]);
            present[row + i] = bit;
            out->present_count += bit;
        }
        row += rows;
    }
    out->present = present;
    return true;
}

static vex_status page_damaged(const vexi_schema *schema, uint32_t column, const vexi_page *where,
                               const char *how, vex_error *err) {
    return vexi_fail(err, VEX_CORRUPT, "page of column %s at offset %llu: %s",
                     vexi_column_name(schema, column), (unsigned long long)where->offset, how);
}

vex_status vexi_page_open(const vexi_schema *schema, uint32_t column, const vexi_page *where,
                          vexi_span bytes, vexi_arena *arena, vexi_page_values *out,
                          vex_error *err) {
    *out = (vexi_page_values){.row_count = where->row_count};
    vexi_page_header header;
    if (vexi_page_header_read(bytes, &header, NULL) != VEX_OK) {
        return page_damaged(schema, column, where, "malformed header", err);
    }
    if ((uint64_t)header.size_bytes + header.compressed_size != bytes.size ||
        header.kind != VEXI_PAGE_DATA || header.encoding != CARQUET_ENCODING_PLAIN ||
        header.definition_encoding != CARQUET_ENCODING_RLE ||
        header.value_count != where->row_count || header.uncompressed_size > VEXI_PAGE_SIZE_MAX) {
        return page_damaged(schema, column, where, "the header does not fit the layout", err);
    }
    vexi_span data = vexi_span_of(bytes.data + header.size_bytes, header.compressed_size);
    if (!header.has_crc || vexi_crc32(0, data.data, data.size) != header.crc) {
        return page_damaged(schema, column, where, "checksum mismatch", err);
    }
    if (vexi_column_is_compressed(schema, column)) {
        uint8_t *plain = vexi_arena_alloc(arena, header.uncompressed_size + 1u);
        if (plain == NULL) {
            return vexi_no_memory(err, header.uncompressed_size);
        }
        size_t size = ZSTD_decompress(plain, header.uncompressed_size, data.data, data.size);
        if (ZSTD_isError(size) || size != header.uncompressed_size) {
            return page_damaged(schema, column, where, "decompression failed", err);
        }
        data = vexi_span_of(plain, size);
    } else if (header.uncompressed_size != header.compressed_size) {
        return page_damaged(schema, column, where, "sizes differ", err);
    }
    vexi_reader reader = vexi_reader_of(data);
    uint32_t levels_size = vexi_read_u32(&reader);
    const uint8_t *levels = vexi_read_bytes(&reader, levels_size);
    bool no_memory = false;
    if (levels == NULL ||
        !read_levels(vexi_span_of(levels, levels_size), where->row_count, arena, out, &no_memory)) {
        return no_memory ? vexi_no_memory(err, where->row_count)
                         : page_damaged(schema, column, where, "malformed levels", err);
    }
    out->values = vexi_span_of(data.data + reader.offset, data.size - reader.offset);
    if (vexi_column_is_bytes(schema, column)) {
        return VEX_OK; /* lengths are checked as they are walked */
    }
    bool is_bool = schema->columns[column - VEXI_COLUMN_TYPED].type == VEX_TYPE_BOOL;
    size_t wanted = is_bool ? (out->present_count + 7u) / 8u : (size_t)out->present_count * 8u;
    if (out->values.size != wanted) {
        return page_damaged(schema, column, where, "wrong size of values", err);
    }
    return VEX_OK;
}
