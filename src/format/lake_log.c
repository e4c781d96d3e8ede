#include "format/lake_log.h"

#include <stdio.h>

#include "base/bytes.h"
#include "base/checksum.h"

/* Offsets of the header's fields. */
enum {
    AT_VERSION = 8,
    AT_KIND = 12,
    AT_NUMBER = 16,
    AT_EPOCH = 24,
    AT_CLAIM = 32,
    AT_BODY_SIZE = 40,
    AT_RECORDS = 48,
    AT_FLAGS = 52,
    AT_COLLECTION = 56,
    AT_NODE = 88, /* 32 hexadecimal digits each */
    AT_RESERVED = 120,
    AT_CRC = 124,
    FORMAT_VERSION = 1,
    FLAG_LOCAL = 1,
    NUMBER_DIGITS = 20
};

static const char magic[8] = {'V', 'E', 'X', 'L', 'L', 'O', 'G', '\n'};
static const char suffix[] = ".log";

char *vexi_log_prefix(vexi_arena *arena, const char *folder, const char collection[37]) {
    size_t size = strlen(folder) + 64;
    char *out = vexi_arena_alloc(arena, size);
    if (out != NULL) {
        snprintf(out, size, "%s/log/%s/", folder, collection);
    }
    return out;
}

char *vexi_log_object_name(vexi_arena *arena, const char *folder, const char collection[37],
                           uint64_t number) {
    size_t size = strlen(folder) + 96;
    char *out = vexi_arena_alloc(arena, size);
    if (out != NULL) {
        snprintf(out, size, "%s/log/%s/%0*llu%s", folder, collection, NUMBER_DIGITS,
                 (unsigned long long)number, suffix);
    }
    return out;
}

uint64_t vexi_log_object_number(const char *name, size_t prefix_size) {
    const char *digits = name + prefix_size;
    uint64_t number = 0;
    if (strlen(name) != prefix_size + NUMBER_DIGITS + sizeof suffix - 1 ||
        strcmp(digits + NUMBER_DIGITS, suffix) != 0) {
        return 0;
    }
    for (int i = 0; i < NUMBER_DIGITS; i++) {
        if (digits[i] < '0' || digits[i] > '9' || number >= VEXI_LOG_NUMBER_MAX) {
            return 0;
        }
        number = number * 10 + (uint64_t)(digits[i] - '0');
    }
    return number < VEXI_LOG_NUMBER_MAX ? number : 0;
}

/* A UUID without its dashes. */
static void uuid_write(const char uuid[37], uint8_t out[32]) {
    for (int i = 0, at = 0; i < 36 && at < 32; i++) {
        if (uuid[i] != '-') {
            out[at++] = (uint8_t)uuid[i];
        }
    }
}

static bool uuid_read(const uint8_t in[32], char out[37]) {
    int at = 0;
    for (int i = 0; i < 32; i++) {
        char c = (char)in[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) {
            return false;
        }
        if (i == 8 || i == 12 || i == 16 || i == 20) {
            out[at++] = '-';
        }
        out[at++] = c;
    }
    out[at] = '\0';
    return true;
}

void vexi_log_object_write(const vexi_log_object *object, const vexi_span *parts, size_t count,
                           uint8_t out[VEXI_LOG_OBJECT_HEADER_SIZE]) {
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += parts[i].size;
    }
    memset(out, 0, VEXI_LOG_OBJECT_HEADER_SIZE);
    memcpy(out, magic, sizeof magic);
    vexi_put_u32(out + AT_VERSION, FORMAT_VERSION);
    vexi_put_u32(out + AT_KIND, (uint32_t)object->kind);
    vexi_put_u64(out + AT_NUMBER, object->number);
    vexi_put_u64(out + AT_EPOCH, object->epoch);
    vexi_put_u64(out + AT_CLAIM, object->claim_number);
    vexi_put_u64(out + AT_BODY_SIZE, size);
    vexi_put_u32(out + AT_RECORDS, object->record_count);
    vexi_put_u32(out + AT_FLAGS, object->local ? FLAG_LOCAL : 0);
    uuid_write(object->collection, out + AT_COLLECTION);
    uuid_write(object->node, out + AT_NODE);
    uint32_t crc = vexi_crc32c(0, out, AT_CRC);
    for (size_t i = 0; i < count; i++) {
        crc = vexi_crc32c(crc, parts[i].data, parts[i].size);
    }
    vexi_put_u32(out + AT_CRC, crc);
}

vex_status vexi_log_object_read(vexi_span file, vexi_log_object *out, vex_error *err) {
    memset(out, 0, sizeof *out);
    if (file.size < VEXI_LOG_OBJECT_HEADER_SIZE || memcmp(file.data, magic, sizeof magic) != 0) {
        return vexi_fail(err, VEX_CORRUPT, "this is no object of a log");
    }
    const uint8_t *header = file.data;
    vexi_span body =
        vexi_span_of(header + VEXI_LOG_OBJECT_HEADER_SIZE, file.size - VEXI_LOG_OBJECT_HEADER_SIZE);
    uint32_t crc = vexi_crc32c(vexi_crc32c(0, header, AT_CRC), body.data, body.size);
    uint32_t version = vexi_get_u32(header + AT_VERSION);
    if (version > FORMAT_VERSION) { /* where its CRC is, that version knows */
        return vexi_fail(err, VEX_UNSUPPORTED,
                         "a log object of format version %u, this program knows up to %d: use a "
                         "newer one",
                         version, FORMAT_VERSION);
    }
    if (crc != vexi_get_u32(header + AT_CRC)) {
        return vexi_fail(err, VEX_CORRUPT, "the log object does not match its checksum");
    }
    uint32_t kind = vexi_get_u32(header + AT_KIND);
    out->number = vexi_get_u64(header + AT_NUMBER);
    out->epoch = vexi_get_u64(header + AT_EPOCH);
    out->claim_number = vexi_get_u64(header + AT_CLAIM);
    out->record_count = vexi_get_u32(header + AT_RECORDS);
    out->local = (vexi_get_u32(header + AT_FLAGS) & FLAG_LOCAL) != 0;
    out->body = body;
    if ((kind != VEXI_LOG_GROUP && kind != VEXI_LOG_CLAIM) || out->number == 0 ||
        out->number >= VEXI_LOG_NUMBER_MAX || out->epoch == 0 || out->epoch > INT64_MAX ||
        out->claim_number == 0 || out->claim_number > out->number ||
        (out->claim_number == out->number) != (kind == VEXI_LOG_CLAIM) ||
        vexi_get_u64(header + AT_BODY_SIZE) != body.size ||
        (kind == VEXI_LOG_GROUP &&
         (out->record_count == 0 || out->record_count > VEXI_LOG_GROUP_RECORDS_MAX)) ||
        (kind == VEXI_LOG_CLAIM && body.size > VEXI_LOG_HOLDER_SIZE_MAX) ||
        !uuid_read(header + AT_COLLECTION, out->collection) ||
        !uuid_read(header + AT_NODE, out->node)) {
        return vexi_fail(err, VEX_CORRUPT, "the log object's header makes no sense");
    }
    out->kind = (vexi_log_kind)kind;
    return VEX_OK;
}
