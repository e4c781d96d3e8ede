/* Segment verifier: a whole file against its layout, twice over.
 *
 * First by the layout: footer checksum, then every page it names opened and walked to its last
 * value, the rows of each column adding up. Then as a foreign engine would: carquet opens the file
 * by its footer and decodes every value of every column, ids and vectors included, whose pages the
 * layout does not list; it checks the page checksums as it goes. Page headers are under no
 * checksum, so what carquet is given passes the checks for foreign files first. */
#include "base/checksum.h"
#include "format/parquet_internal.h"

enum { READ_VALUES = 4096 };

/* Every value of an open page stands where its length says, and nothing is left over. */
static bool values_whole(const vexi_page_values *page, bool is_bytes) {
    if (!is_bytes) {
        return true; /* their size was checked by vexi_page_open */
    }
    vexi_reader reader = vexi_reader_of(page->values);
    for (uint32_t i = 0; i < page->present_count; i++) {
        uint32_t size = vexi_read_u32(&reader);
        (void)vexi_read_bytes(&reader, size);
    }
    return !reader.failed && reader.offset == reader.size;
}

static vex_status verify_pages(const vexi_env *env, const vexi_schema *schema,
                               const vexi_segment_layout *layout, vexi_span file, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vex_status status = VEX_OK;
    for (uint32_t c = 0; c < layout->column_count; c++) {
        for (uint32_t g = 0; g < layout->row_group_count; g++) {
            size_t slot = (size_t)c * layout->row_group_count + g;
            uint64_t row = layout->row_groups[g].first_row;
            uint64_t end = row + layout->row_groups[g].row_count;
            for (uint32_t p = layout->page_first[slot]; p < layout->page_first[slot + 1]; p++) {
                const vexi_page *page = &layout->pages[p];
                if (page->first_row != row || page->row_count > end - row ||
                    page->offset > file.size || page->size_bytes > file.size - page->offset) {
                    status = vexi_fail(err, VEX_CORRUPT, "column %s: page %u is out of place",
                                       vexi_column_name(schema, c), p);
                    goto done;
                }
                row += page->row_count;
                vexi_page_values open;
                vexi_span bytes = vexi_span_of(file.data + page->offset, page->size_bytes);
                VEX_TRY_GOTO(status, done,
                             vexi_page_open(schema, c, page, bytes, &arena, &open, err));
                if (!values_whole(&open, vexi_column_is_bytes(schema, c))) {
                    status = vexi_fail(
                        err, VEX_CORRUPT, "page of column %s at offset %llu: malformed values",
                        vexi_column_name(schema, c), (unsigned long long)page->offset);
                    goto done;
                }
                vexi_arena_deinit(&arena);
                vexi_arena_init(&arena, env);
            }
            if (row != end) {
                status = vexi_fail(err, VEX_CORRUPT, "column %s: row group %u lacks rows",
                                   vexi_column_name(schema, c), g);
                goto done;
            }
        }
    }
done:
    vexi_arena_deinit(&arena);
    return status;
}

/* Decode all values of one column chunk; counts rows (repetition level 0). */
static vex_status read_chunk(carquet_reader_t *reader, int32_t group, int32_t leaf, void *values,
                             int16_t *definitions, int16_t *repetitions, uint64_t *rows,
                             vex_error *err) {
    carquet_error_t detail = CARQUET_ERROR_INIT;
    carquet_column_reader_t *column = carquet_reader_get_column(reader, group, leaf, &detail);
    if (column == NULL) {
        return vexi_carquet_fail(detail.code, &detail, "column", err);
    }
    vex_status status = VEX_OK;
    *rows = 0;
    for (;;) {
        int64_t count = carquet_column_read_batch_ex(column, values, READ_VALUES, definitions,
                                                     repetitions, &detail);
        if (count < 0) {
            status = vexi_carquet_fail(detail.code, &detail, "column", err);
            break;
        }
        if (count == 0) {
            break;
        }
        for (int64_t i = 0; i < count; i++) {
            *rows += repetitions[i] == 0;
        }
    }
    carquet_column_reader_free(column);
    return status;
}

static vex_status verify_foreign(const vexi_env *env, const vexi_schema *schema,
                                 const vexi_segment_layout *layout, vexi_span file,
                                 vex_error *err) {
    carquet_error_t detail = CARQUET_ERROR_INIT;
    carquet_reader_options_t options;
    carquet_reader_options_init(&options);
    options.verify_checksums = true;
    vex_status status = VEX_OK;
    void *values = vexi_calloc(env, READ_VALUES, sizeof(carquet_byte_array_t));
    int16_t *definitions = vexi_calloc(env, READ_VALUES, sizeof *definitions);
    int16_t *repetitions = vexi_calloc(env, READ_VALUES, sizeof *repetitions);
    carquet_reader_t *reader = NULL;
    if (values == NULL || definitions == NULL || repetitions == NULL) {
        status = vexi_no_memory(err, READ_VALUES * sizeof(carquet_byte_array_t));
        goto done;
    }
    VEX_TRY_GOTO(status, done, vexi_parquet_check_footer(file, err));
    reader = carquet_reader_open_buffer(file.data, file.size, &options, &detail);
    if (reader == NULL) {
        status = vexi_carquet_fail(detail.code, &detail, "footer", err);
        goto done;
    }
    int32_t leaves = 2 + VEXI_COLUMN_TYPED + (int32_t)schema->column_count;
    if (carquet_reader_num_rows(reader) != layout->row_count ||
        carquet_reader_num_row_groups(reader) != (int32_t)layout->row_group_count ||
        carquet_reader_num_columns(reader) != leaves) {
        status = vexi_fail(err, VEX_CORRUPT, "the footer does not fit the layout");
        goto done;
    }
    for (int32_t g = 0; g < (int32_t)layout->row_group_count; g++) {
        for (int32_t leaf = 0; leaf < leaves; leaf++) {
            uint64_t rows = 0;
            int64_t value_max = (int64_t)layout->row_groups[g].row_count * schema->dimension;
            VEX_TRY_GOTO(status, done,
                         vexi_parquet_check_chunk(
                             reader, file, g, leaf,
                             carquet_schema_column_name(carquet_reader_schema(reader), leaf),
                             value_max, err));
            memset(repetitions, 0, READ_VALUES * sizeof *repetitions);
            VEX_TRY_GOTO(status, done,
                         read_chunk(reader, g, leaf, values, definitions, repetitions, &rows, err));
            if (rows != layout->row_groups[g].row_count) {
                status = vexi_fail(err, VEX_CORRUPT, "row group %d has %llu rows in leaf %d", g,
                                   (unsigned long long)rows, leaf);
                goto done;
            }
        }
    }
done:
    carquet_reader_close(reader);
    vexi_free(env, values);
    vexi_free(env, definitions);
    vexi_free(env, repetitions);
    return status;
}

vex_status vexi_segment_verify(const vexi_env *env, const vexi_schema *schema,
                               const vexi_segment_layout *layout, vexi_span file,
                               uint64_t *rows_seen, vex_error *err) {
    *rows_seen = 0;
    if (file.size != layout->file_size || layout->footer_offset > file.size ||
        layout->column_count > VEXI_COLUMN_TYPED + schema->column_count) {
        return vexi_fail(err, VEX_CORRUPT, "the file has %zu bytes, the layout %llu", file.size,
                         (unsigned long long)layout->file_size);
    }
    size_t footer = (size_t)layout->footer_offset;
    if (vexi_crc32c(0, file.data + footer, file.size - footer) != layout->footer_crc) {
        return vexi_fail(err, VEX_CORRUPT, "the footer does not match its checksum");
    }
    VEX_TRY(verify_pages(env, schema, layout, file, err));
    VEX_TRY(verify_foreign(env, schema, layout, file, err));
    *rows_seen = layout->row_count;
    return VEX_OK;
}
