/* Checks of foreign Parquet files before carquet reads them.
 *
 * carquet is a whole reader for well-formed files; what it is told by a hostile one it believes
 * further than we like. What is fenced here:
 * - it allocates by the counts of the footer (schema elements, row groups, columns) and by the
 *   value counts and unpacked sizes of page headers before it looks at the data: all of them are
 *   bounded, and made to add up, first;
 * - it recurses and keeps paths by the depth of the schema, at most 64: eight here;
 * - it takes a column chunk by position in its row group: each row group has a chunk per leaf;
 * - it believes row counts of row groups, which size our batches;
 * - it calls a page of no values damage; they are rare but legal, so they are refused by name.
 * Encryption is refused by name. Everything here only reads headers: no data is unpacked.
 *
 * The walk over the footer follows parquet.thrift
 * (https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift). */
#include "format/parquet_internal.h"

enum { FOOTER_DEPTH_MAX = 24 };

typedef struct footer_shape {
    int64_t rows;
    int64_t group_rows; /* added up */
    uint64_t leaves;
    uint64_t groups;
    bool has_schema;
} footer_shape;

static int64_t read_int(vexi_reader *reader, uint8_t type) {
    if (type != VEXI_THRIFT_I32 && type != VEXI_THRIFT_I64 && type != VEXI_THRIFT_I16) {
        reader->failed = true;
        return 0;
    }
    return vexi_thrift_zigzag(vexi_thrift_varint(reader));
}

static void skip_field(vexi_reader *reader, uint8_t type) {
    if (!vexi_thrift_skip(reader, type, FOOTER_DEPTH_MAX)) {
        reader->failed = true;
    }
}

/* A list of structs begins here. */
static bool struct_list(vexi_reader *reader, uint8_t type, uint64_t *count) {
    uint8_t element = 0;
    if (type != VEXI_THRIFT_LIST || !vexi_thrift_list(reader, &element, count) ||
        (*count > 0 && element != VEXI_THRIFT_STRUCT)) {
        reader->failed = true;
        return false;
    }
    return true;
}

/* Number of children of one SchemaElement, 0 for a leaf, -1 if it has no name. */
static int64_t schema_element(vexi_reader *reader) {
    int64_t field = 0, children = 0;
    uint8_t type = 0;
    bool named = false;
    while (vexi_thrift_field(reader, &field, &type)) {
        if (field == 5) {
            children = read_int(reader, type);
        } else {
            named = named || (field == 4 && type == VEXI_THRIFT_BINARY);
            skip_field(reader, type);
        }
    }
    return named && children >= 0 ? children : -1;
}

/* The schema is a tree in depth-first order; left[d] elements are still to come at depth d. */
static vex_status check_schema(vexi_reader *reader, uint8_t type, footer_shape *shape,
                               vex_error *err) {
    uint64_t count = 0;
    int64_t left[VEXI_PARQUET_DEPTH_MAX + 2];
    int depth = 0;
    left[0] = 1; /* the root */
    if (!struct_list(reader, type, &count)) {
        return vexi_fail(err, VEX_CORRUPT, "malformed Parquet schema");
    }
    for (uint64_t i = 0; i < count; i++) {
        while (depth >= 0 && left[depth] == 0) {
            depth--;
        }
        int64_t children = schema_element(reader);
        if (reader->failed || depth < 0 || children < 0 || (uint64_t)children > count) {
            return vexi_fail(err, VEX_CORRUPT, "malformed Parquet schema");
        }
        left[depth]--;
        if (children == 0) {
            shape->leaves += i > 0;
        } else if (depth > VEXI_PARQUET_DEPTH_MAX) {
            return vexi_fail(err, VEX_UNSUPPORTED, "a Parquet schema deeper than %d",
                             VEXI_PARQUET_DEPTH_MAX);
        } else {
            left[++depth] = children;
        }
        if (shape->leaves > VEXI_PARQUET_COLUMNS_MAX) {
            return vexi_fail(err, VEX_UNSUPPORTED, "a Parquet file of more than %d columns",
                             VEXI_PARQUET_COLUMNS_MAX);
        }
    }
    for (; depth >= 0; depth--) {
        if (left[depth] != 0) {
            return vexi_fail(err, VEX_CORRUPT, "malformed Parquet schema");
        }
    }
    shape->has_schema = true;
    return VEX_OK;
}

static vex_status check_row_group(vexi_reader *reader, footer_shape *shape, vex_error *err) {
    int64_t field = 0, rows = -1;
    uint64_t columns = 0;
    uint8_t type = 0;
    while (vexi_thrift_field(reader, &field, &type)) {
        if (field == 1) {
            if (struct_list(reader, type, &columns)) {
                for (uint64_t i = 0; i < columns && !reader->failed; i++) {
                    skip_field(reader, VEXI_THRIFT_STRUCT);
                }
            }
        } else if (field == 3) {
            rows = read_int(reader, type);
        } else {
            skip_field(reader, type);
        }
    }
    if (reader->failed || rows < 0 || columns != shape->leaves ||
        __builtin_add_overflow(shape->group_rows, rows, &shape->group_rows)) {
        return vexi_fail(err, VEX_CORRUPT, "malformed Parquet row group %llu",
                         (unsigned long long)shape->groups);
    }
    shape->groups++;
    return VEX_OK;
}

static vex_status check_metadata(vexi_span footer, vex_error *err) {
    vexi_reader reader = vexi_reader_of(footer);
    footer_shape shape = {.rows = -1};
    int64_t field = 0;
    uint8_t type = 0;
    while (vexi_thrift_field(&reader, &field, &type)) {
        if (field == 2 && !shape.has_schema) {
            VEX_TRY(check_schema(&reader, type, &shape, err));
        } else if (field == 3) {
            shape.rows = read_int(&reader, type);
        } else if (field == 4 && shape.has_schema && shape.groups == 0) {
            uint64_t count = 0;
            if (!struct_list(&reader, type, &count) || count > VEXI_PARQUET_ROW_GROUPS_MAX) {
                return vexi_fail(err, VEX_CORRUPT, "malformed list of Parquet row groups");
            }
            for (uint64_t i = 0; i < count; i++) {
                VEX_TRY(check_row_group(&reader, &shape, err));
            }
        } else if (field == 2 || field == 4) {
            return vexi_fail(err, VEX_CORRUPT, "malformed Parquet footer");
        } else if (field == 8) {
            return vexi_fail(err, VEX_UNSUPPORTED, "an encrypted Parquet file");
        } else {
            skip_field(&reader, type);
        }
    }
    if (reader.failed || !shape.has_schema || shape.rows < 0 || shape.rows != shape.group_rows) {
        return vexi_fail(err, VEX_CORRUPT, "malformed Parquet footer");
    }
    return VEX_OK;
}

vex_status vexi_parquet_check_footer(vexi_span file, vex_error *err) {
    if (file.size < 12 || memcmp(file.data, "PAR1", 4) != 0) {
        if (file.size >= 4 && memcmp(file.data, "PARE", 4) == 0) {
            return vexi_fail(err, VEX_UNSUPPORTED, "an encrypted Parquet file");
        }
        return vexi_fail(err, VEX_INVALID, "not a Parquet file");
    }
    const uint8_t *end = file.data + file.size;
    if (memcmp(end - 4, "PAR1", 4) != 0) {
        return vexi_fail(err, VEX_CORRUPT, "the Parquet file is cut off: no footer");
    }
    uint32_t size = vexi_get_u32(end - 8);
    if (size > file.size - 12 || size > VEXI_PARQUET_FOOTER_SIZE_MAX) {
        return vexi_fail(err, VEX_CORRUPT, "a Parquet footer of %u bytes in a file of %zu", size,
                         file.size);
    }
    return check_metadata(vexi_span_of(end - 8 - size, size), err);
}

static vex_status chunk_damaged(const char *column, int32_t group, const char *how,
                                vex_error *err) {
    return vexi_fail(err, VEX_CORRUPT, "column %s, row group %d: %s", column, group, how);
}

vex_status vexi_parquet_check_chunk(const carquet_reader_t *reader, vexi_span file, int32_t group,
                                    int32_t leaf, const char *column, int64_t value_max,
                                    vex_error *err) {
    carquet_column_chunk_metadata_t chunk;
    carquet_status_t status = carquet_reader_column_chunk_metadata(reader, group, leaf, &chunk);
    if (status != CARQUET_OK) {
        return vexi_carquet_fail(status, NULL, column, err);
    }
    int64_t start = chunk.data_page_offset;
    if (chunk.has_dictionary_page && chunk.dictionary_page_offset > 0 &&
        chunk.dictionary_page_offset < start) {
        start = chunk.dictionary_page_offset;
    }
    if (start < 4 || chunk.total_compressed_size < 0 || (uint64_t)start > file.size ||
        (uint64_t)chunk.total_compressed_size > file.size - (uint64_t)start) {
        return chunk_damaged(column, group, "it lies outside of the file", err);
    }
    if (chunk.num_values < 0 || chunk.num_values > value_max) {
        return chunk_damaged(column, group, "it has too many values", err);
    }
    uint64_t offset = (uint64_t)start, end = offset + (uint64_t)chunk.total_compressed_size;
    int64_t values = 0;
    while (offset < end) {
        vexi_page_header header;
        vexi_span rest = {file.data + offset, (size_t)(end - offset)};
        vex_status parsed = vexi_page_header_read(rest, &header, err);
        if (parsed != VEX_OK) {
            return chunk_damaged(column, group, "malformed page header", err);
        }
        bool data = header.kind == VEXI_PAGE_DATA || header.kind == VEXI_PAGE_DATA_V2;
        if (header.uncompressed_size > VEXI_PARQUET_PAGE_UNPACKED_MAX ||
            header.value_count > VEXI_PARQUET_PAGE_VALUES_MAX) {
            return chunk_damaged(column, group, "a page is larger than 1 GiB", err);
        }
        if (data && header.value_count == 0) {
            return vexi_fail(err, VEX_UNSUPPORTED,
                             "column %s, row group %d has a page of no values", column, group);
        }
        values += data ? header.value_count : 0;
        if (values > chunk.num_values) {
            return chunk_damaged(column, group, "its pages hold too many values", err);
        }
        offset += (uint64_t)header.size_bytes + header.compressed_size;
    }
    if (values != chunk.num_values) {
        return chunk_damaged(column, group, "its pages lack values", err);
    }
    return VEX_OK;
}
