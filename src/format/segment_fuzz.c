/* Fuzz target: pages of segments. The bytes are taken as a page header; and as the body of a page
 * that gets a header and checksum that fit, so that levels and values are reached. */
#include <stdlib.h>
#include <zstd.h>

#include "base/checksum.h"
#include "base/env.h"
#include "format/parquet_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BODY_SIZE_MAX = 1 << 16 };

static const vexi_schema_column COLUMNS[] = {
    {{"number", 6}, VEX_TYPE_INT64}, {{"flag", 4}, VEX_TYPE_BOOL}, {{"text", 4}, VEX_TYPE_STRING}};
static const vexi_schema SCHEMA = {.dimension = 1, .column_count = 3, .columns = COLUMNS};

static void put_i32(vexi_buffer *out, int field_delta, uint32_t value) {
    vexi_buffer_u8(out, (uint8_t)(field_delta << 4 | VEXI_THRIFT_I32));
    uint64_t zigzag = (uint64_t)value << 1;
    if (value > INT32_MAX) { /* a negative number, bit for bit */
        zigzag = ((uint64_t)(~value) << 1) + 1;
    }
    for (; zigzag >= 0x80; zigzag >>= 7) {
        vexi_buffer_u8(out, (uint8_t)(zigzag | 0x80));
    }
    vexi_buffer_u8(out, (uint8_t)zigzag);
}

static void put_page(vexi_buffer *out, uint32_t rows, uint32_t unpacked, vexi_span body) {
    put_i32(out, 1, VEXI_PAGE_DATA);
    put_i32(out, 1, unpacked);
    put_i32(out, 1, (uint32_t)body.size);
    put_i32(out, 1, vexi_crc32(0, body.data, body.size));
    vexi_buffer_u8(out, 1 << 4 | VEXI_THRIFT_STRUCT);
    put_i32(out, 1, rows);
    put_i32(out, 1, CARQUET_ENCODING_PLAIN);
    put_i32(out, 1, CARQUET_ENCODING_RLE);
    put_i32(out, 1, CARQUET_ENCODING_RLE);
    vexi_buffer_u8(out, VEXI_THRIFT_STOP);
    vexi_buffer_u8(out, VEXI_THRIFT_STOP);
    vexi_buffer_append(out, body.data, body.size);
}

static uint64_t decode(const vexi_env *env, uint32_t column, uint32_t rows,
                       const vexi_buffer *file) {
    vexi_row_group group = {.row_count = rows};
    vexi_page page = {.size_bytes = (uint32_t)file->size, .row_count = rows};
    uint32_t first[8] = {0};
    for (uint32_t c = column + 1; c < 8; c++) {
        first[c] = 1; /* the only page is of this column */
    }
    vexi_segment_layout layout = {.file_size = file->size,
                                  .row_count = rows,
                                  .row_group_count = 1,
                                  .column_count = VEXI_COLUMN_TYPED + SCHEMA.column_count,
                                  .row_groups = &group,
                                  .page_first = first,
                                  .pages = &page};
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    uint64_t *all = vexi_arena_array(&arena, rows, sizeof *all);
    vexi_cell *cells = vexi_arena_array(&arena, rows, sizeof *cells);
    uint64_t sum = 0, pages = 0, bytes = 0;
    for (uint32_t i = 0; i < rows; i++) {
        all[i] = i;
    }
    vex_error err;
    if (vexi_segment_decode(env, &SCHEMA, &layout, file->data, NULL, 0, &column, 1, all, rows,
                            &arena, cells, &pages, &bytes, &err) == VEX_OK) {
        for (uint32_t i = 0; i < rows; i++) {
            if (!cells[i].is_null && vexi_column_is_bytes(&SCHEMA, column)) {
                for (size_t k = 0; k < cells[i].as.string.size; k++) {
                    sum += (uint8_t)cells[i].as.string.data[k];
                }
            }
        }
    }
    vexi_arena_deinit(&arena);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static vexi_env *env; /* one for the life of the process, which libFuzzer ends */
    static uint8_t packed[BODY_SIZE_MAX * 2];
    vex_error err;
    if (env == NULL && vexi_env_system_create(1, NULL, NULL, &env, &err) != VEX_OK) {
        abort();
    }
    vexi_page_header header;
    if (vexi_page_header_read(vexi_span_of(data, size), &header, &err) == VEX_OK &&
        header.size_bytes > size) {
        abort();
    }
    if (size < 4 || size > BODY_SIZE_MAX) {
        return 0;
    }
    uint32_t column = data[0] % 5;
    bool raw = (data[0] & 0x80) != 0;
    uint32_t rows = 1u + data[1] + (data[2] & 0x0fu) * 256u;
    vexi_span body = {data + 3, size - 3};
    uint32_t unpacked = (uint32_t)body.size;
    if (vexi_column_is_compressed(&SCHEMA, column) && !raw) {
        size_t packed_size = ZSTD_compress(packed, sizeof packed, body.data, body.size, 1);
        if (ZSTD_isError(packed_size)) {
            abort();
        }
        body = vexi_span_of(packed, packed_size);
    }
    vexi_buffer file;
    vexi_buffer_init(&file, env, BODY_SIZE_MAX * 4);
    put_page(&file, rows, unpacked, body);
    uint64_t sum = decode(env, column, rows, &file);
    vexi_buffer_deinit(&file);
    return sum == UINT64_MAX ? -1 : 0;
}
