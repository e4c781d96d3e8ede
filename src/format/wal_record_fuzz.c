/* A log file. The first byte says whether checksums are mended, so that both what they keep out and
 * what lies behind them is reached. */
#include <stdlib.h>

#include "base/checksum.h"
#include "format/wal_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static vexi_env *env;

/* Make the chain of records whole: sizes that fit, checksums that match. */
static void mend(uint8_t *file, size_t size) {
    vexi_put_u32(file + 60, vexi_crc32c(0, file, 60));
    for (size_t at = VEXI_WAL_HEADER_SIZE; size - at >= 80;) {
        uint8_t *p = file + at;
        size_t rest = (size - at) & ~(size_t)7;
        size_t record_size = vexi_get_u32(p + 4) & ~(size_t)7;
        record_size = record_size < 80 || record_size > rest ? rest : record_size;
        memcpy(p, "VXR1", 4);
        vexi_put_u32(p + 4, (uint32_t)record_size);
        if (vexi_get_u64(p + 16) != UINT64_MAX) {
            vexi_put_u64(p + 16, at);
        }
        if (vexi_get_u32(p + 68) >> 8 < record_size / 8) {
            vexi_put_u32(p + 68, (uint32_t)(record_size / 8) << 8 | p[68]);
        }
        vexi_put_u32(p + 72, vexi_crc32c(0, p + 80, record_size - 80));
        vexi_put_u32(p + 76, vexi_crc32c(0, p, 76));
        at += record_size;
    }
}

static void use(const vexi_wal_record *record) {
    VEX_ASSERT(record->row.id.size > 0 && record->row.id.size <= VEX_ID_SIZE_MAX);
    uint64_t sum = record->row.payload.size > 0 ? (uint64_t)record->row.payload.data[0] : 0;
    for (uint32_t i = 0; i < record->dimension; i++) {
        sum += record->row.vector[i] > 0;
    }
    for (uint32_t i = 0; i < record->cell_count; i++) {
        const vexi_cell *cell = &record->row.cells[i];
        if (record->columns[i].type == VEX_TYPE_STRING && cell->as.string.data != NULL) {
            sum += vexi_hash64(cell->as.string.data, cell->as.string.size);
        }
        sum += strlen(record->columns[i].name.data);
    }
    volatile uint64_t sink = sum;
    (void)sink;
}

/* What was read is written again and read back. */
static void again(const vexi_wal_record *record) {
    vexi_buffer out;
    vexi_buffer_init(&out, env, VEXI_WAL_RECORD_SIZE_MAX * 2u);
    vexi_buffer_u64(&out, 0);
    size_t offset;
    vex_error err;
    vex_status status = vexi_wal_record_write(record, &out, &offset, &err);
    VEX_ASSERT(status == VEX_OK);
    vexi_wal_record_seal(out.data + offset, record->sequence);
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_wal_record read;
    vexi_wal_read result;
    bool later;
    status = vexi_wal_record_read(vexi_span_of(out.data, out.size), &offset, &arena, &read, &result,
                                  &later, &err);
    VEX_ASSERT(status == VEX_OK && result == VEXI_WAL_RECORD);
    VEX_ASSERT(vexi_string_equal(read.row.id, record->row.id));
    VEX_ASSERT(vexi_string_equal(read.row.payload, record->row.payload));
    VEX_ASSERT(read.sequence == record->sequence && offset == out.size);
    vexi_arena_deinit(&arena);
    vexi_buffer_deinit(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (env == NULL && vexi_env_system_create(1, NULL, NULL, &env, NULL) != VEX_OK) {
        abort();
    }
    if (size < 1 + VEXI_WAL_HEADER_SIZE) {
        return 0;
    }
    size_t file_size = size - 1;
    uint8_t *file = malloc(file_size);
    if (file == NULL) {
        abort();
    }
    memcpy(file, data + 1, file_size);
    if ((data[0] & 1) != 0) {
        mend(file, file_size);
    }
    vexi_span span = vexi_span_of(file, file_size);
    vexi_wal_header header;
    vex_error err;
    if (vexi_wal_header_read(span, &header, &err) == VEX_OK) {
        VEX_ASSERT(strlen(header.uuid) == 36);
    }
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    size_t offset = VEXI_WAL_HEADER_SIZE;
    vexi_wal_read result = VEXI_WAL_RECORD;
    while (result == VEXI_WAL_RECORD) {
        vexi_wal_record record;
        bool later;
        size_t before = offset;
        if (vexi_wal_record_read(span, &offset, &arena, &record, &result, &later, &err) != VEX_OK) {
            break;
        }
        VEX_ASSERT(result == VEXI_WAL_RECORD ? offset > before : offset == before);
        if (result == VEXI_WAL_RECORD) {
            use(&record);
            again(&record);
        }
    }
    vexi_arena_deinit(&arena);
    free(file);
    return 0;
}
