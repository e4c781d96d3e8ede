/* Segment writer: rows in, a Parquet file and the map of its pages out.
 *
 * carquet makes the bytes; this file decides where pages begin and then reads the page headers of
 * what was written to make the layout, so that the layout describes the file and not our belief
 * about it.
 *
 * How a page comes about: carquet looks whether a page is full after every write call of at most
 * 1,024 values, so with a page size of one byte each call becomes exactly one page. The vector
 * column gets one call per row group and a page size that nothing reaches: one page.
 *
 * Invariants, checked after writing (VEX_INTERNAL if they do not hold):
 * - the pages follow each other without a gap from the magic to the footer, row group by row group,
 *   column by column in schema order: id, vector, attributes, payload, typed columns;
 * - the last row_count x dimension x 4 bytes of a vector page are the vectors, uncompressed; the
 *   first and the last are compared with the rows given.
 *
 * carquet writes to a FILE, whose writes go straight into the caller's buffer (fopencookie): its
 * own buffer writer would go through a temporary file.
 *
 * No statistics: rows lie in cluster order, so the range of a column in a row group says next to
 * nothing, and carquet puts the smallest and largest string of a page whole into its header, even
 * where statistics of the column are off. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* fopencookie */
#endif
#include "format/segment_file.h"

#include <stdio.h>

#include "base/checksum.h"
#include "format/parquet_internal.h"

enum {
    LEAF_ID = 0,
    LEAF_VECTOR = 1,
    LEAF_ROW = 2, /* leaf of column c of row.h is LEAF_ROW + c */
    /* A vector page is read as a whole by other engines, so it stays well below what they hold in
     * memory without care. */
    VECTOR_PAGE_SIZE_MAX = 32 << 20
};

typedef struct segment_writer {
    const vexi_schema *schema;
    const vexi_row *const *rows;
    carquet_writer_t *writer;
    vexi_buffer *out;
    uint32_t group_rows;
    float *vectors;                /* group_rows x dimension */
    int16_t *repetitions;          /* group_rows x dimension: 0 where a row begins, else 1 */
    carquet_byte_array_t *strings; /* VEXI_PAGE_ROWS */
    int64_t *numbers;              /* VEXI_PAGE_ROWS */
    uint8_t *booleans;             /* VEXI_PAGE_ROWS */
    int16_t *levels;               /* VEXI_PAGE_ROWS */
} segment_writer;

static ssize_t write_out(void *cookie, const char *data, size_t size) {
    vexi_buffer *out = cookie;
    vexi_buffer_append(out, data, size);
    return out->failed ? 0 : (ssize_t)size;
}

static vex_status make_schema(const vexi_schema *schema, carquet_schema_t **out, vex_error *err) {
    carquet_error_t detail = CARQUET_ERROR_INIT;
    carquet_schema_t *made = carquet_schema_create(&detail);
    if (made == NULL) {
        return vexi_carquet_fail(CARQUET_ERROR_OUT_OF_MEMORY, &detail, "schema", err);
    }
    const carquet_logical_type_t text = {.id = CARQUET_LOGICAL_STRING};
    const carquet_logical_type_t time = {
        .id = CARQUET_LOGICAL_TIMESTAMP,
        .params.timestamp = {.unit = CARQUET_TIME_UNIT_MICROS, .is_adjusted_to_utc = true}};
    carquet_status_t status = carquet_schema_add_column(made, "id", CARQUET_PHYSICAL_BYTE_ARRAY,
                                                        &text, CARQUET_REPETITION_OPTIONAL, 0, 0);
    if (status == CARQUET_OK &&
        carquet_schema_add_list(made, "vector", CARQUET_PHYSICAL_FLOAT, NULL,
                                CARQUET_REPETITION_OPTIONAL, 0, 0) < 0) {
        status = CARQUET_ERROR_OUT_OF_MEMORY;
    }
    if (status == CARQUET_OK) {
        status = carquet_schema_add_column(made, "attributes", CARQUET_PHYSICAL_BYTE_ARRAY, &text,
                                           CARQUET_REPETITION_OPTIONAL, 0, 0);
    }
    if (status == CARQUET_OK) {
        status = carquet_schema_add_column(made, "payload", CARQUET_PHYSICAL_BYTE_ARRAY, NULL,
                                           CARQUET_REPETITION_OPTIONAL, 0, 0);
    }
    for (uint32_t i = 0; i < schema->column_count && status == CARQUET_OK; i++) {
        carquet_physical_type_t physical = CARQUET_PHYSICAL_INT64;
        const carquet_logical_type_t *logical = NULL;
        switch (schema->columns[i].type) {
        case VEX_TYPE_INT64:
            break;
        case VEX_TYPE_DOUBLE:
            physical = CARQUET_PHYSICAL_DOUBLE;
            break;
        case VEX_TYPE_STRING:
            physical = CARQUET_PHYSICAL_BYTE_ARRAY;
            logical = &text;
            break;
        case VEX_TYPE_BOOL:
            physical = CARQUET_PHYSICAL_BOOLEAN;
            break;
        case VEX_TYPE_TIMESTAMP:
            logical = &time;
            break;
        }
        status = carquet_schema_add_column(made, schema->columns[i].name.data, physical, logical,
                                           CARQUET_REPETITION_OPTIONAL, 0, 0);
    }
    if (status != CARQUET_OK) {
        carquet_schema_free(made);
        return vexi_carquet_fail(status, NULL, "schema", err);
    }
    *out = made;
    return VEX_OK;
}

static carquet_status_t set_columns(carquet_writer_t *writer, const vexi_schema *schema) {
    carquet_status_t status = carquet_writer_set_column_page_size(writer, LEAF_VECTOR, 1 << 30);
    int32_t leaves = LEAF_ROW + VEXI_COLUMN_TYPED + (int32_t)schema->column_count;
    for (int32_t leaf = 0; leaf < leaves && status == CARQUET_OK; leaf++) {
        bool compressed =
            leaf == LEAF_ID ||
            (leaf >= LEAF_ROW && vexi_column_is_compressed(schema, (uint32_t)(leaf - LEAF_ROW)));
        status = carquet_writer_set_column_encoding(writer, leaf, CARQUET_ENCODING_PLAIN);
        if (status == CARQUET_OK && leaf != LEAF_VECTOR) {
            status = carquet_writer_set_column_page_size(writer, leaf, 1);
        }
        if (status == CARQUET_OK) {
            status = carquet_writer_set_column_compression(
                writer, leaf,
                compressed ? CARQUET_COMPRESSION_ZSTD : CARQUET_COMPRESSION_UNCOMPRESSED,
                compressed ? 1 : 0);
        }
    }
    return status;
}

/* ---- Columns --------------------------------------------------------------------------------- */

static vex_string row_string(const segment_writer *w, const vexi_row *row, int32_t leaf) {
    switch (leaf) {
    case LEAF_ID:
        return row->id;
    case LEAF_ROW + VEXI_COLUMN_ATTRIBUTES:
        return row->attributes;
    case LEAF_ROW + VEXI_COLUMN_PAYLOAD:
        return row->payload;
    default: {
        size_t i = (size_t)leaf - LEAF_ROW - VEXI_COLUMN_TYPED;
        VEX_ASSERT(i < w->schema->column_count);
        if (row->cells == NULL || row->cells[i].is_null) {
            return (vex_string){0};
        }
        return row->cells[i].as.string;
    }
    }
}

static vex_status write_strings(segment_writer *w, int32_t leaf, size_t first, size_t end,
                                vex_error *err) {
    size_t row = first;
    while (row < end) {
        size_t count = 0, present = 0, bytes = 0;
        for (; row < end && count < VEXI_PAGE_ROWS; row++) {
            vex_string value = row_string(w, w->rows[row], leaf);
            size_t size = value.data == NULL ? 0 : value.size + 4;
            if (value.size > VEX_PAYLOAD_SIZE_MAX) {
                return vexi_fail_row(err, VEX_LIMIT, (int64_t)row, "a value of %zu bytes",
                                     value.size);
            }
            if (count > 0 && bytes + size > VEXI_PAGE_VALUE_BYTES) {
                break;
            }
            bytes += size;
            w->levels[count++] = value.data != NULL;
            if (value.data != NULL) {
                /* carquet only reads, but its struct is not const. */
                w->strings[present++] = (carquet_byte_array_t){
                    .data = (uint8_t *)(uintptr_t)value.data, .length = (int32_t)value.size};
            }
        }
        carquet_status_t status = carquet_writer_write_batch(
            w->writer, leaf, w->strings, (int64_t)count, present == count ? NULL : w->levels, NULL);
        if (status != CARQUET_OK) {
            return vexi_carquet_fail(status, NULL, "writing strings", err);
        }
    }
    return VEX_OK;
}

static vex_status write_fixed(segment_writer *w, uint32_t typed, size_t first, size_t end,
                              vex_error *err) {
    bool is_bool = w->schema->columns[typed].type == VEX_TYPE_BOOL;
    bool is_double = w->schema->columns[typed].type == VEX_TYPE_DOUBLE;
    for (size_t row = first; row < end;) {
        size_t count = 0, present = 0;
        for (; row < end && count < VEXI_PAGE_ROWS; row++) {
            const vexi_cell *cell =
                w->rows[row]->cells == NULL ? NULL : &w->rows[row]->cells[typed];
            bool is_null = cell == NULL || cell->is_null;
            w->levels[count++] = !is_null;
            if (is_null) {
                continue;
            }
            if (is_bool) {
                w->booleans[present++] = cell->as.boolean;
            } else if (is_double) {
                memcpy(&w->numbers[present++], &cell->as.float64, sizeof cell->as.float64);
            } else {
                w->numbers[present++] = cell->as.int64;
            }
        }
        const void *values = is_bool ? (const void *)w->booleans : (const void *)w->numbers;
        carquet_status_t status = carquet_writer_write_batch(
            w->writer, (int32_t)(LEAF_ROW + VEXI_COLUMN_TYPED + typed), values, (int64_t)count,
            present == count ? NULL : w->levels, NULL);
        if (status != CARQUET_OK) {
            return vexi_carquet_fail(status, NULL, w->schema->columns[typed].name.data, err);
        }
    }
    return VEX_OK;
}

static vex_status write_vectors(segment_writer *w, size_t first, size_t end, vex_error *err) {
    size_t dimension = w->schema->dimension;
    for (size_t row = first; row < end; row++) {
        memcpy(w->vectors + (row - first) * dimension, w->rows[row]->vector,
               dimension * sizeof(float));
    }
    carquet_status_t status =
        carquet_writer_write_batch(w->writer, LEAF_VECTOR, w->vectors,
                                   (int64_t)((end - first) * dimension), NULL, w->repetitions);
    return status == CARQUET_OK ? VEX_OK : vexi_carquet_fail(status, NULL, "writing vectors", err);
}

static vex_status write_group(segment_writer *w, size_t first, size_t end, vex_error *err) {
    VEX_TRY(write_strings(w, LEAF_ID, first, end, err));
    VEX_TRY(write_vectors(w, first, end, err));
    for (uint32_t c = 0; c < VEXI_COLUMN_TYPED + w->schema->column_count; c++) {
        if (vexi_column_is_bytes(w->schema, c)) {
            VEX_TRY(write_strings(w, (int32_t)(LEAF_ROW + c), first, end, err));
        } else {
            VEX_TRY(write_fixed(w, c - VEXI_COLUMN_TYPED, first, end, err));
        }
    }
    carquet_status_t status = carquet_writer_new_row_group(w->writer);
    return status == CARQUET_OK ? VEX_OK : vexi_carquet_fail(status, NULL, "row group", err);
}

/* ---- Layout ---------------------------------------------------------------------------------- */

/* The pages of the written file, in the order in which they stand. */
typedef struct page_walk {
    const vexi_buffer *file;
    uint64_t offset;
    uint64_t end; /* of the pages */
} page_walk;

static vex_status walk_page(page_walk *walk, vexi_page_header *header, vex_error *err) {
    vexi_span rest = {walk->file->data + walk->offset, (size_t)(walk->end - walk->offset)};
    vex_status status = vexi_page_header_read(rest, header, err);
    if (status != VEX_OK || header->kind != VEXI_PAGE_DATA || header->value_count == 0) {
        return vexi_fail(err, VEX_INTERNAL, "the written segment has no page at offset %llu",
                         (unsigned long long)walk->offset);
    }
    walk->offset += (uint64_t)header->size_bytes + header->compressed_size;
    return VEX_OK;
}

/* Walk the pages of one leaf of one row group; pages may be NULL to count. */
static vex_status walk_leaf(page_walk *walk, uint32_t first_row, uint32_t row_count,
                            vexi_page *pages, uint32_t *page_count, vex_error *err) {
    uint32_t rows = 0;
    while (rows < row_count) {
        uint64_t offset = walk->offset;
        vexi_page_header header;
        VEX_TRY(walk_page(walk, &header, err));
        if (header.value_count > row_count - rows) {
            return vexi_fail(err, VEX_INTERNAL, "a written page crosses its row group");
        }
        if (pages != NULL) {
            pages[*page_count] = (vexi_page){.offset = offset,
                                             .size_bytes = (uint32_t)(walk->offset - offset),
                                             .first_row = first_row + rows,
                                             .row_count = header.value_count};
        }
        (*page_count)++;
        rows += header.value_count;
    }
    return VEX_OK;
}

/* The vector page: everything in one page, and the vectors where the arithmetic says. */
static vex_status walk_vectors(const segment_writer *w, page_walk *walk, vexi_row_group *group,
                               vex_error *err) {
    size_t stride = (size_t)w->schema->dimension * sizeof(float);
    vexi_page_header header;
    VEX_TRY(walk_page(walk, &header, err));
    uint64_t size = (uint64_t)group->row_count * stride;
    if (header.value_count != (uint64_t)group->row_count * w->schema->dimension ||
        header.compressed_size != header.uncompressed_size || header.compressed_size < size) {
        return vexi_fail(err, VEX_INTERNAL, "a written vector page has an unexpected shape");
    }
    group->vector_offset = walk->offset - size;
    const uint8_t *vectors = walk->file->data + group->vector_offset;
    const vexi_row *first = w->rows[group->first_row];
    const vexi_row *last = w->rows[group->first_row + group->row_count - 1];
    if (memcmp(vectors, first->vector, stride) != 0 ||
        memcmp(vectors + size - stride, last->vector, stride) != 0) {
        return vexi_fail(err, VEX_INTERNAL, "the vectors of row group at row %u are not at %llu",
                         group->first_row, (unsigned long long)group->vector_offset);
    }
    return VEX_OK;
}

/* One pass over all pages; fills row groups, and pages where they are not NULL. The pages of a
 * column stand together in the layout but not in the file, so `next` counts per column and group.
 */
static vex_status walk_file(const segment_writer *w, const vexi_segment_layout *layout,
                            vexi_row_group *groups, uint32_t *page_counts, vexi_page *pages,
                            const uint32_t *page_first, vex_error *err) {
    page_walk walk = {.file = w->out, .offset = 4, .end = layout->footer_offset};
    for (uint32_t g = 0; g < layout->row_group_count; g++) {
        uint32_t ignored = 0;
        VEX_TRY(walk_leaf(&walk, groups[g].first_row, groups[g].row_count, NULL, &ignored, err));
        VEX_TRY(walk_vectors(w, &walk, &groups[g], err));
        for (uint32_t c = 0; c < layout->column_count; c++) {
            size_t slot = (size_t)c * layout->row_group_count + g;
            uint32_t count = 0;
            VEX_TRY(walk_leaf(&walk, groups[g].first_row, groups[g].row_count,
                              pages == NULL ? NULL : pages + page_first[slot], &count, err));
            if (page_counts != NULL) {
                page_counts[slot] = count;
            }
        }
    }
    if (walk.offset != walk.end) {
        return vexi_fail(err, VEX_INTERNAL, "bytes between the written pages and the footer");
    }
    return VEX_OK;
}

static vex_status make_layout(const segment_writer *w, size_t row_count, vexi_arena *arena,
                              vexi_segment_layout *out, vex_error *err) {
    const vexi_buffer *file = w->out;
    if (file->size < 12 || memcmp(file->data + file->size - 4, "PAR1", 4) != 0) {
        return vexi_fail(err, VEX_INTERNAL, "the written segment has no footer");
    }
    uint32_t footer = vexi_get_u32(file->data + file->size - 8);
    if (footer > file->size - 12) {
        return vexi_fail(err, VEX_INTERNAL, "the written segment has no footer");
    }
    vexi_segment_layout layout = {.file_size = file->size,
                                  .footer_offset = file->size - 8 - footer,
                                  .row_count = (uint32_t)row_count,
                                  .row_group_count =
                                      (uint32_t)((row_count + w->group_rows - 1) / w->group_rows),
                                  .column_count = VEXI_COLUMN_TYPED + w->schema->column_count};
    layout.footer_crc = vexi_crc32c(0, file->data + layout.footer_offset,
                                    file->size - (size_t)layout.footer_offset);
    size_t slots = (size_t)layout.column_count * layout.row_group_count;
    vexi_row_group *groups = vexi_arena_calloc(arena, layout.row_group_count + 1u, sizeof *groups);
    uint32_t *first = vexi_arena_calloc(arena, slots + 1, sizeof *first);
    if (groups == NULL || first == NULL) {
        return vexi_no_memory(err, slots * sizeof *first);
    }
    for (uint32_t g = 0; g < layout.row_group_count; g++) {
        groups[g].first_row = g * w->group_rows;
        uint32_t left = layout.row_count - groups[g].first_row;
        groups[g].row_count = left < w->group_rows ? left : w->group_rows;
    }
    VEX_TRY(walk_file(w, &layout, groups, first, NULL, NULL, err));
    uint32_t total = 0;
    for (size_t i = 0; i <= slots; i++) { /* counts become starts */
        uint32_t count = first[i];
        first[i] = total;
        if (__builtin_add_overflow(total, count, &total)) {
            return vexi_fail(err, VEX_LIMIT, "too many pages in a segment");
        }
    }
    vexi_page *pages = vexi_arena_calloc(arena, total + 1u, sizeof *pages);
    if (pages == NULL) {
        return vexi_no_memory(err, total * sizeof *pages);
    }
    VEX_TRY(walk_file(w, &layout, groups, NULL, pages, first, err));
    layout.row_groups = groups;
    layout.page_first = first;
    layout.pages = pages;
    *out = layout;
    return VEX_OK;
}

/* ---- The whole ------------------------------------------------------------------------------- */

static vex_status allocate_scratch(segment_writer *w, size_t row_count, vexi_arena *arena,
                                   vex_error *err) {
    size_t dimension = w->schema->dimension;
    size_t limit = VECTOR_PAGE_SIZE_MAX / (dimension * sizeof(float));
    w->group_rows = limit < VEXI_ROW_GROUP_ROWS ? (uint32_t)limit : VEXI_ROW_GROUP_ROWS;
    size_t rows = row_count < w->group_rows ? row_count + 1 : w->group_rows;
    w->vectors = vexi_arena_array(arena, rows * dimension, sizeof *w->vectors);
    w->repetitions = vexi_arena_array(arena, rows * dimension, sizeof *w->repetitions);
    w->strings = vexi_arena_array(arena, VEXI_PAGE_ROWS, sizeof *w->strings);
    w->numbers = vexi_arena_array(arena, VEXI_PAGE_ROWS, sizeof *w->numbers);
    w->booleans = vexi_arena_array(arena, VEXI_PAGE_ROWS, sizeof *w->booleans);
    w->levels = vexi_arena_array(arena, VEXI_PAGE_ROWS, sizeof *w->levels);
    if (w->vectors == NULL || w->repetitions == NULL || w->strings == NULL || w->numbers == NULL ||
        w->booleans == NULL || w->levels == NULL) {
        return vexi_no_memory(err, rows * dimension * sizeof *w->vectors);
    }
    for (size_t i = 0; i < rows * dimension; i++) {
        w->repetitions[i] = i % dimension != 0;
    }
    return VEX_OK;
}

/* Room for the file in one allocation, as far as that can be told. */
static void reserve_out(const segment_writer *w, size_t row_count) {
    uint64_t size = (uint64_t)row_count * (w->schema->dimension * sizeof(float) + 48u) + 65536;
    for (size_t i = 0; i < row_count; i++) {
        size += w->rows[i]->payload.size + w->rows[i]->attributes.size / 2;
    }
    if (size < w->out->limit_size) {
        (void)vexi_buffer_reserve(w->out, (size_t)size);
    }
}

vex_status vexi_segment_write(const vexi_env *env, const vexi_schema *schema,
                              const vexi_row *const *rows, size_t row_count, vexi_buffer *out,
                              vexi_arena *arena, vexi_segment_layout *layout, vex_error *err) {
    *layout = (vexi_segment_layout){0};
    VEX_ASSERT(out->size == 0 && schema->dimension >= 1 && schema->dimension <= VEX_DIMENSION_MAX &&
               schema->column_count <= VEX_COLUMNS_MAX);
    if (row_count > UINT32_MAX / 2) {
        return vexi_fail(err, VEX_LIMIT, "%zu rows in a segment", row_count);
    }
    segment_writer w = {.schema = schema, .rows = rows, .out = out};
    carquet_schema_t *made = NULL;
    carquet_error_t detail = CARQUET_ERROR_INIT;
    carquet_status_t written;
    FILE *file = NULL;
    vexi_arena scratch;
    vexi_arena_init(&scratch, env);
    vex_status status;
    VEX_TRY_GOTO(status, done, allocate_scratch(&w, row_count, &scratch, err));
    VEX_TRY_GOTO(status, done, make_schema(schema, &made, err));
    reserve_out(&w, row_count);
    file = fopencookie(out, "w", (cookie_io_functions_t){.write = write_out});
    if (file == NULL) {
        status = vexi_no_memory(err, sizeof *file);
        goto done;
    }
    (void)setvbuf(file, NULL, _IONBF, 0);

    carquet_writer_options_t options;
    carquet_writer_options_init(&options);
    options.row_group_size = INT64_MAX; /* we end row groups ourselves */
    options.write_crc = true;
    options.write_statistics = false;
    options.async_io = false;
    options.data_page_version = 1;
    options.created_by = "vexlake version 0.1.0";
    w.writer = carquet_writer_create_file(file, made, &options, &detail);
    if (w.writer == NULL) {
        status = vexi_carquet_fail(detail.code, &detail, "segment", err);
        goto done;
    }
    written = set_columns(w.writer, schema);
    if (written != CARQUET_OK) {
        status = vexi_carquet_fail(written, NULL, "segment", err);
        goto done;
    }
    for (size_t row = 0; row < row_count; row += w.group_rows) {
        size_t end = row_count - row < w.group_rows ? row_count : row + w.group_rows;
        VEX_TRY_GOTO(status, done, write_group(&w, row, end, err));
    }
    written = carquet_writer_close(w.writer);
    w.writer = NULL;
    if (written != CARQUET_OK) {
        status = vexi_carquet_fail(written, NULL, "segment", err);
        goto done;
    }
    VEX_TRY_GOTO(status, done, vexi_buffer_check(out, err));
    status = make_layout(&w, row_count, arena, layout, err);
done:
    carquet_writer_abort(w.writer);
    if (file != NULL) {
        (void)fclose(file);
    }
    carquet_schema_free(made);
    vexi_arena_deinit(&scratch);
    /* A full buffer makes carquet fail first; the buffer knows better why. */
    if (status != VEX_OK && out->failed) {
        status = vexi_buffer_check(out, err);
    }
    if (status != VEX_OK) {
        vexi_buffer_clear(out);
    }
    return status;
}
