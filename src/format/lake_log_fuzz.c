/* An object of a log in the lake, and its records. The first byte says whether checksums are
 * mended, so that both what they keep out and what lies behind them is reached. */
#include <stdlib.h>

#include "base/checksum.h"
#include "format/lake_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static vexi_env *env;

/* A header's checksum and sizes that fit, and the same of records behind it. */
static void mend(uint8_t *file, size_t size) {
    enum { CRC_AT = 124, BODY_SIZE_AT = 40 };
    for (size_t at = VEXI_LOG_OBJECT_HEADER_SIZE; size - at >= 80;) {
        uint8_t *p = file + at;
        size_t rest = (size - at) & ~(size_t)7;
        size_t record_size = vexi_get_u32(p + 4) & ~(size_t)7;
        record_size = record_size < 80 || record_size > rest ? rest : record_size;
        memcpy(p, "VXR1", 4);
        vexi_put_u32(p + 4, (uint32_t)record_size);
        if (vexi_get_u32(p + 68) >> 8 < record_size / 8) {
            vexi_put_u32(p + 68, (uint32_t)(record_size / 8) << 8 | p[68]);
        }
        vexi_put_u32(p + 72, vexi_crc32c(0, p + 80, record_size - 80));
        vexi_put_u32(p + 76, vexi_crc32c(0, p, 76));
        at += record_size;
    }
    vexi_put_u64(file + BODY_SIZE_AT, size - VEXI_LOG_OBJECT_HEADER_SIZE);
    uint32_t crc = vexi_crc32c(0, file, CRC_AT);
    crc = vexi_crc32c(crc, file + VEXI_LOG_OBJECT_HEADER_SIZE, size - VEXI_LOG_OBJECT_HEADER_SIZE);
    vexi_put_u32(file + CRC_AT, crc);
}

/* As a follower reads it. */
static void read_records(vexi_span file, const vexi_log_object *object) {
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    size_t offset = VEXI_LOG_OBJECT_HEADER_SIZE;
    vexi_wal_read result = VEXI_WAL_RECORD;
    for (uint32_t i = 0; i < object->record_count && result == VEXI_WAL_RECORD; i++) {
        vexi_wal_record record;
        bool later;
        size_t before = offset;
        vex_error err;
        if (vexi_wal_record_read(file, &offset, &arena, &record, &result, &later, &err) != VEX_OK) {
            break;
        }
        VEX_ASSERT(result == VEXI_WAL_RECORD ? offset > before && offset <= file.size
                                             : offset == before);
    }
    vexi_arena_deinit(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (env == NULL && vexi_env_system_create(1, NULL, NULL, &env, NULL) != VEX_OK) {
        abort();
    }
    if (size < 1) {
        return 0;
    }
    size_t file_size = size - 1;
    uint8_t *file = malloc(file_size + 1); /* exactly so much may be read, but never NULL */
    if (file == NULL) {
        abort();
    }
    memcpy(file, data + 1, file_size);
    file[file_size] = '\0';
    if ((data[0] & 1) != 0 && file_size >= VEXI_LOG_OBJECT_HEADER_SIZE) {
        mend(file, file_size);
    }
    vexi_span span = vexi_span_of(file, file_size);
    vexi_log_object object;
    vex_error err;
    if (vexi_log_object_read(span, &object, &err) == VEX_OK) {
        VEX_ASSERT(object.number > 0 && object.number < VEXI_LOG_NUMBER_MAX);
        VEX_ASSERT(strlen(object.collection) == 36 && strlen(object.node) == 36);
        VEX_ASSERT(object.body.size == file_size - VEXI_LOG_OBJECT_HEADER_SIZE);
        /* What was read is written again and reads the same. */
        vexi_log_object again;
        uint8_t header[VEXI_LOG_OBJECT_HEADER_SIZE];
        vexi_log_object_write(&object, &object.body, 1, header);
        memcpy(file, header, sizeof header);
        vex_status status = vexi_log_object_read(span, &again, &err);
        VEX_ASSERT(status == VEX_OK && again.number == object.number);
        VEX_ASSERT(again.epoch == object.epoch && again.claim_number == object.claim_number);
        VEX_ASSERT(again.kind == object.kind && again.record_count == object.record_count);
        if (object.kind == VEXI_LOG_GROUP) {
            read_records(span, &object);
        }
    }
    /* As a listed name. */
    (void)vexi_log_object_number((const char *)file, 0);
    free(file);
    return 0;
}
