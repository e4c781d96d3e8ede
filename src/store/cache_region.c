/* The bytes of a region, one file of level 2.
 *
 * Record, one behind the other from byte 0, integers little-endian:
 *
 *      0  u32  "VXCB"                     32  u64  size of the object
 *      4  u16  size of the name           40  u64  number of the block
 *      6  u16  0                          48  u32  block size
 *      8  u64  number of the region       52  u32  size of the payload
 *     16  u64  nonce of the region        56  u32  CRC-32C of the payload
 *     24  u64  offset of this record      60  u32  CRC-32C of bytes 0 to 59 and the name
 *     64       name, then the payload
 *
 * A region that was closed in order ends with a footer, the heads and names of all its records once
 * more, and a trailer of 40 bytes, so that a start reads some 200 bytes for each block instead of
 * seeking through the files:
 *
 *      0  u32  "VXCF"                     24  u64  nonce of the region
 *      4  u32  count of records           32  u32  CRC-32C of the footer
 *      8  u64  size of the footer         36  u32  CRC-32C of bytes 0 to 35
 *     16  u64  number of the region
 *
 * Without a whole footer the records are walked one by one, up to the first whose head is not
 * whole. Nothing is synced, so any part of the file may be missing, zero or old: the nonce, drawn
 * for each region and part of its name, keeps bytes of other files out, the offset keeps the
 * footer's heads from passing for records, and the payload's checksum is compared whenever it is
 * read. */
#include "store/cache_internal.h"

#include "base/checksum.h"

static const uint32_t record_magic = 0x42435856u;  /* "VXCB" */
static const uint32_t trailer_magic = 0x46435856u; /* "VXCF" */

enum { FOOTER_SIZE_MAX = 1 << 28 };

size_t vexi_cache_head_write(const vexi_cache_head *head, uint8_t *out) {
    VEX_ASSERT(head->name_size <= VEXI_STORE_NAME_SIZE_MAX);
    vexi_put_u32(out, record_magic);
    vexi_put_u16(out + 4, (uint16_t)head->name_size);
    vexi_put_u16(out + 6, 0);
    vexi_put_u64(out + 8, head->region_number);
    vexi_put_u64(out + 16, head->region_nonce);
    vexi_put_u64(out + 24, head->offset);
    vexi_put_u64(out + 32, head->object_size);
    vexi_put_u64(out + 40, head->block_number);
    vexi_put_u32(out + 48, head->block_size);
    vexi_put_u32(out + 52, head->payload_size);
    vexi_put_u32(out + 56, head->payload_checksum);
    memcpy(out + VEXI_CACHE_RECORD_SIZE, head->name, head->name_size);
    uint32_t checksum = vexi_crc32c(0, out, 60);
    vexi_put_u32(out + 60, vexi_crc32c(checksum, head->name, head->name_size));
    return VEXI_CACHE_RECORD_SIZE + head->name_size;
}

void vexi_cache_trailer_write(uint64_t number, uint64_t nonce, const uint8_t *footer,
                              size_t footer_size, uint32_t count,
                              uint8_t out[VEXI_CACHE_TRAILER_SIZE]) {
    vexi_put_u32(out, trailer_magic);
    vexi_put_u32(out + 4, count);
    vexi_put_u64(out + 8, footer_size);
    vexi_put_u64(out + 16, number);
    vexi_put_u64(out + 24, nonce);
    vexi_put_u32(out + 32, vexi_crc32c(0, footer, footer_size));
    vexi_put_u32(out + 36, vexi_crc32c(0, out, 36));
}

/* Which region is read, and what its records must say. */
typedef struct expected {
    uint64_t number;
    uint64_t nonce;
    uint32_t block_size;
} expected;

/* The head at the start of `bytes`, if it is whole and can be right at `offset` of a file whose
 * records end by `end`. `name` receives the NUL-terminated name. */
static bool parse_head(vexi_span bytes, const expected *e, uint64_t offset, uint64_t end,
                       char name[VEXI_STORE_NAME_SIZE_MAX + 1], vexi_cache_head *out) {
    if (bytes.size < VEXI_CACHE_RECORD_SIZE || vexi_get_u32(bytes.data) != record_magic) {
        return false;
    }
    const uint8_t *p = bytes.data;
    vexi_cache_head head = {.name = name,
                            .name_size = vexi_get_u16(p + 4),
                            .region_number = vexi_get_u64(p + 8),
                            .region_nonce = vexi_get_u64(p + 16),
                            .offset = vexi_get_u64(p + 24),
                            .object_size = vexi_get_u64(p + 32),
                            .block_number = vexi_get_u64(p + 40),
                            .block_size = vexi_get_u32(p + 48),
                            .payload_size = vexi_get_u32(p + 52),
                            .payload_checksum = vexi_get_u32(p + 56)};
    if (head.name_size > VEXI_STORE_NAME_SIZE_MAX ||
        head.name_size > bytes.size - VEXI_CACHE_RECORD_SIZE) {
        return false;
    }
    const uint8_t *text = p + VEXI_CACHE_RECORD_SIZE;
    if (vexi_crc32c(vexi_crc32c(0, p, 60), text, head.name_size) != vexi_get_u32(p + 60)) {
        return false;
    }
    memcpy(name, text, head.name_size);
    name[head.name_size] = '\0';
    size_t head_size = VEXI_CACHE_RECORD_SIZE + head.name_size;
    if (!vexi_store_name_valid(name) || strlen(name) != head.name_size || head.offset != offset ||
        head.region_number != e->number || head.region_nonce != e->nonce ||
        head.block_size != e->block_size || head_size + head.payload_size > end - offset) {
        return false;
    }
    uint64_t start = 0;
    if (__builtin_mul_overflow(head.block_number, (uint64_t)head.block_size, &start) ||
        start >= head.object_size) {
        return false;
    }
    uint64_t left = head.object_size - start;
    if (head.payload_size != (left < head.block_size ? left : head.block_size)) {
        return false;
    }
    *out = head;
    return true;
}

typedef vex_status visit_function(void *argument, const vexi_cache_head *head, uint64_t offset,
                                  vex_error *err);

/* Walk the heads of a footer; with visit NULL only look whether they make sense. */
static vex_status walk_footer(vexi_span footer, const expected *e, uint64_t end, uint32_t count,
                              visit_function *visit, void *argument, bool *whole, vex_error *err) {
    char name[VEXI_STORE_NAME_SIZE_MAX + 1];
    uint64_t offset = 0;
    *whole = false;
    for (uint32_t i = 0; i < count; i++) {
        vexi_cache_head head;
        if (!parse_head(footer, e, offset, end, name, &head)) {
            return VEX_OK;
        }
        size_t head_size = VEXI_CACHE_RECORD_SIZE + head.name_size;
        if (visit != NULL) {
            VEX_TRY(visit(argument, &head, offset + head_size, err));
        }
        offset += head_size + head.payload_size;
        footer = vexi_span_of(footer.data + head_size, footer.size - head_size);
    }
    *whole = offset == end && footer.size == 0;
    return VEX_OK;
}

/* By the footer; *done stays false if there is none that is whole. */
static vex_status walk_by_footer(const vexi_env *env, vexi_disk_file *file, uint64_t file_size,
                                 const expected *e, visit_function *visit, void *argument,
                                 bool *done, vex_error *err) {
    *done = false;
    uint8_t trailer[VEXI_CACHE_TRAILER_SIZE];
    if (file_size < sizeof trailer) {
        return VEX_OK;
    }
    const vexi_disk_ops *ops = file->disk->ops;
    VEX_TRY(ops->read_at(file, file_size - sizeof trailer, trailer, sizeof trailer, err));
    uint64_t footer_size = vexi_get_u64(trailer + 8);
    if (vexi_get_u32(trailer) != trailer_magic ||
        vexi_get_u32(trailer + 36) != vexi_crc32c(0, trailer, 36) ||
        vexi_get_u64(trailer + 16) != e->number || vexi_get_u64(trailer + 24) != e->nonce ||
        footer_size > FOOTER_SIZE_MAX || footer_size > file_size - sizeof trailer) {
        return VEX_OK;
    }
    uint64_t end = file_size - sizeof trailer - footer_size;
    uint8_t *bytes = vexi_alloc(env, (size_t)footer_size + 1);
    if (bytes == NULL) {
        return vexi_no_memory(err, (size_t)footer_size + 1);
    }
    vexi_span footer = vexi_span_of(bytes, (size_t)footer_size);
    uint32_t count = vexi_get_u32(trailer + 4);
    bool whole = false;
    vex_status status = ops->read_at(file, end, bytes, footer.size, err);
    if (status == VEX_OK && vexi_crc32c(0, bytes, footer.size) == vexi_get_u32(trailer + 32)) {
        status = walk_footer(footer, e, end, count, NULL, NULL, &whole, err);
        if (status == VEX_OK && whole) {
            *done = true;
            status = walk_footer(footer, e, end, count, visit, argument, &whole, err);
        }
    }
    vexi_free(env, bytes);
    return status;
}

vex_status vexi_cache_region_walk(const vexi_env *env, vexi_disk_file *file, uint64_t file_size,
                                  uint64_t number, uint64_t nonce, uint32_t block_size,
                                  visit_function *visit, void *argument, vex_error *err) {
    const expected e = {.number = number, .nonce = nonce, .block_size = block_size};
    bool done = false;
    VEX_TRY(walk_by_footer(env, file, file_size, &e, visit, argument, &done, err));
    uint8_t bytes[VEXI_CACHE_HEAD_SIZE_MAX];
    char name[VEXI_STORE_NAME_SIZE_MAX + 1];
    for (uint64_t offset = 0; !done && offset < file_size;) {
        uint64_t left = file_size - offset;
        size_t size = left < sizeof bytes ? (size_t)left : sizeof bytes;
        VEX_TRY(file->disk->ops->read_at(file, offset, bytes, size, err));
        vexi_cache_head head;
        if (!parse_head(vexi_span_of(bytes, size), &e, offset, file_size, name, &head)) {
            break;
        }
        size_t head_size = VEXI_CACHE_RECORD_SIZE + head.name_size;
        VEX_TRY(visit(argument, &head, offset + head_size, err));
        offset += head_size + head.payload_size;
    }
    return VEX_OK;
}
