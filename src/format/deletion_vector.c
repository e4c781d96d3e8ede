/* Deletion vectors: which rows of a data file are gone, in the form that Delta fixes.
 *
 * The data is a 64-bit Roaring array in the portable form
 * (https://github.com/RoaringBitmap/RoaringFormatSpec): u32 magic, u64 number of bitmaps, then for
 * each the high 32 bits of its rows and a 32-bit bitmap: a cookie, a header of (key, cardinality
 * - 1) per container of 65,536 rows, offsets, and containers of sorted values, bits or runs.
 *
 * Both directions are our own. The library at hand (CRoaring 0.2) trusts what it reads in several
 * places, and its bitmap would be a copy on the way to the dense bits that searches test anyway;
 * the tests compare both directions with it.
 *
 * Decoding goes over the bytes twice: first every count, order and bound is checked, bit containers
 * are counted again, and the sum is compared with the descriptor's; only then bits are set. So a
 * failure changes nothing. */
#include "format/deletion_vector.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/bitmap.h"
#include "base/checksum.h"
#include "format/z85.h"

enum {
    MAGIC = 1681511377,
    MAGIC_NATIVE = 1681511376, /* an older form, in the protocol's examples only */
    COOKIE = 12346,
    COOKIE_RUNS = 12347,
    NO_OFFSETS_BELOW = 4, /* containers; with runs only */
    ARRAY_MAX = 4096,     /* values of an array container; above, bits are smaller */
    CONTAINER_ROWS = 65536,
    BITS_SIZE = CONTAINER_ROWS / 8
};

/* ---- Encoding -------------------------------------------------------------------------------- */

typedef struct container {
    uint32_t first_row; /* within the bitmap */
    uint32_t cardinality;
    uint32_t run_count;
} container;

static uint64_t word_at(const uint64_t *hidden, uint64_t row_count, uint64_t row) {
    uint64_t word = hidden[row / 64];
    uint64_t rest = row_count - row; /* rows from here on */
    return rest >= 64 ? word : word & (((uint64_t)1 << rest) - 1);
}

/* Count values and runs of the container that begins at `row` (a multiple of CONTAINER_ROWS). */
static container measure(const uint64_t *hidden, uint64_t row_count, uint64_t row) {
    container c = {.first_row = (uint32_t)row};
    uint64_t end = row_count - row < CONTAINER_ROWS ? row_count : row + CONTAINER_ROWS;
    uint64_t before = 0; /* the bit before the word */
    for (; row < end; row += 64) {
        uint64_t word = word_at(hidden, row_count, row);
        c.cardinality += (uint32_t)__builtin_popcountll(word);
        c.run_count += (uint32_t)__builtin_popcountll(word & ~(word << 1 | before));
        before = word >> 63;
    }
    return c;
}

static size_t plain_size(const container *c) {
    return c->cardinality <= ARRAY_MAX ? (size_t)c->cardinality * 2 : BITS_SIZE;
}

static bool as_runs(const container *c) {
    return 2 + (size_t)c->run_count * 4 < plain_size(c);
}

static void put_array(const uint64_t *hidden, uint64_t row_count, const container *c, uint64_t base,
                      vexi_buffer *out) {
    uint64_t row = base + c->first_row;
    uint64_t end = row_count - row < CONTAINER_ROWS ? row_count : row + CONTAINER_ROWS;
    for (; row < end; row += 64) {
        for (uint64_t word = word_at(hidden, row_count, row); word != 0; word &= word - 1) {
            vexi_buffer_u16(out, (uint16_t)(row + (uint64_t)__builtin_ctzll(word)));
        }
    }
}

static void put_bits(const uint64_t *hidden, uint64_t row_count, const container *c, uint64_t base,
                     vexi_buffer *out) {
    uint64_t row = base + c->first_row;
    for (uint64_t end = row + CONTAINER_ROWS; row < end; row += 64) {
        vexi_buffer_u64(out, row < row_count ? word_at(hidden, row_count, row) : 0);
    }
}

static void put_runs(const uint64_t *hidden, uint64_t row_count, const container *c, uint64_t base,
                     vexi_buffer *out) {
    uint64_t row = base + c->first_row;
    uint64_t end = row_count - row < CONTAINER_ROWS ? row_count : row + CONTAINER_ROWS;
    vexi_buffer_u16(out, (uint16_t)c->run_count);
    while (row < end) {
        if (!vexi_bitmap_get(hidden, row)) {
            row++;
            continue;
        }
        uint64_t first = row;
        while (row < end && vexi_bitmap_get(hidden, row)) {
            row++;
        }
        vexi_buffer_u16(out, (uint16_t)first);
        vexi_buffer_u16(out, (uint16_t)(row - first - 1));
    }
}

/* The 32-bit bitmap of the rows base .. base + 2^32. containers: count of them, none empty. */
static void put_bitmap(const uint64_t *hidden, uint64_t row_count, const container *containers,
                       uint32_t count, uint64_t base, vexi_buffer *out) {
    bool runs = false;
    for (uint32_t i = 0; i < count; i++) {
        runs = runs || as_runs(&containers[i]);
    }
    size_t start = out->size;
    if (runs) {
        vexi_buffer_u32(out, COOKIE_RUNS | (count - 1) << 16);
        for (uint32_t i = 0; i < count; i += 8) {
            uint8_t flags = 0;
            for (uint32_t k = i; k < count && k < i + 8; k++) {
                flags = (uint8_t)(flags | (as_runs(&containers[k]) ? 1u << (k - i) : 0u));
            }
            vexi_buffer_u8(out, flags);
        }
    } else {
        vexi_buffer_u32(out, COOKIE);
        vexi_buffer_u32(out, count);
    }
    for (uint32_t i = 0; i < count; i++) {
        vexi_buffer_u16(out, (uint16_t)(containers[i].first_row >> 16));
        vexi_buffer_u16(out, (uint16_t)(containers[i].cardinality - 1));
    }
    if (!runs || count >= NO_OFFSETS_BELOW) {
        size_t offset = out->size - start + (size_t)count * 4;
        for (uint32_t i = 0; i < count; i++) {
            vexi_buffer_u32(out, (uint32_t)offset);
            offset += as_runs(&containers[i]) ? 2 + (size_t)containers[i].run_count * 4
                                              : plain_size(&containers[i]);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        const container *c = &containers[i];
        if (as_runs(c)) {
            put_runs(hidden, row_count, c, base, out);
        } else if (c->cardinality <= ARRAY_MAX) {
            put_array(hidden, row_count, c, base, out);
        } else {
            put_bits(hidden, row_count, c, base, out);
        }
    }
}

vex_status vexi_dv_encode(const uint64_t *hidden, uint64_t row_count, vexi_buffer *out,
                          vex_error *err) {
    /* A segment has fewer than 2^32 rows (row positions are uint32_t), so one bitmap holds all. */
    if (row_count > (uint64_t)UINT32_MAX + 1) {
        return vexi_fail(err, VEX_LIMIT, "a deletion vector over %" PRIu64 " rows", row_count);
    }
    size_t container_max = (size_t)((row_count + CONTAINER_ROWS - 1) / CONTAINER_ROWS);
    container *containers = vexi_alloc_array(out->env, container_max + 1, sizeof *containers);
    if (containers == NULL) {
        return vexi_no_memory(err, container_max * sizeof *containers);
    }
    uint32_t count = 0;
    for (uint64_t row = 0; row < row_count; row += CONTAINER_ROWS) {
        containers[count] = measure(hidden, row_count, row);
        count += containers[count].cardinality > 0;
    }
    vexi_buffer_u32(out, MAGIC);
    vexi_buffer_u64(out, count > 0 ? 1 : 0);
    if (count > 0) {
        vexi_buffer_u32(out, 0); /* high bits of its rows */
        put_bitmap(hidden, row_count, containers, count, 0, out);
    }
    vexi_free(out->env, containers);
    return vexi_buffer_check(out, err);
}

/* ---- Decoding -------------------------------------------------------------------------------- */

static vex_status corrupt(vex_error *err, const char *what) {
    return vexi_fail(err, VEX_CORRUPT, "deletion vector: %s", what);
}

/* Where the rows of a container go. hidden is NULL on the pass that checks. */
typedef struct target {
    uint64_t *hidden;
    uint64_t row_count;
    uint64_t base; /* of the container */
    vex_error *err;
} target;

static vex_status set_rows(const target *t, uint32_t first, uint32_t last) {
    if (t->base + last >= t->row_count) {
        return vexi_fail(t->err, VEX_CORRUPT,
                         "deletion vector: row %" PRIu64 " of a file with %" PRIu64, t->base + last,
                         t->row_count);
    }
    for (uint64_t row = t->base + first; t->hidden != NULL && row <= t->base + last; row++) {
        vexi_bitmap_set(t->hidden, row);
    }
    return VEX_OK;
}

static vex_status read_array(vexi_reader *r, uint32_t cardinality, const target *t) {
    const uint8_t *p = vexi_read_bytes(r, (size_t)cardinality * 2);
    if (p == NULL) {
        return corrupt(t->err, "cut off inside an array");
    }
    for (uint32_t i = 0; i < cardinality; i++) {
        uint32_t value = vexi_get_u16(p + i * 2);
        if (i > 0 && value <= vexi_get_u16(p + i * 2 - 2)) {
            return corrupt(t->err, "an array is not in order");
        }
        VEX_TRY(set_rows(t, value, value));
    }
    return VEX_OK;
}

static vex_status read_bits(vexi_reader *r, uint32_t cardinality, const target *t) {
    const uint8_t *p = vexi_read_bytes(r, BITS_SIZE);
    if (p == NULL) {
        return corrupt(t->err, "cut off inside bits");
    }
    uint32_t count = 0;
    for (uint32_t row = 0; row < CONTAINER_ROWS; row += 64) {
        for (uint64_t word = vexi_get_u64(p + row / 8); word != 0; word &= word - 1) {
            uint32_t value = row + (uint32_t)__builtin_ctzll(word);
            VEX_TRY(set_rows(t, value, value));
            count++;
        }
    }
    return count == cardinality ? VEX_OK : corrupt(t->err, "bits and their count differ");
}

static vex_status read_runs(vexi_reader *r, uint32_t cardinality, const target *t) {
    uint32_t run_count = vexi_read_u16(r);
    const uint8_t *p = vexi_read_bytes(r, (size_t)run_count * 4);
    if (p == NULL) {
        return corrupt(t->err, "cut off inside runs");
    }
    uint64_t next = 0; /* first value that the next run may begin at */
    uint32_t count = 0;
    for (uint32_t i = 0; i < run_count; i++, p += 4) {
        uint32_t first = vexi_get_u16(p);
        uint32_t last = first + vexi_get_u16(p + 2);
        if (first < next || last >= CONTAINER_ROWS) {
            return corrupt(t->err, "runs are not in order");
        }
        VEX_TRY(set_rows(t, first, last));
        count += last - first + 1;
        next = (uint64_t)last + 1;
    }
    return count == cardinality ? VEX_OK : corrupt(t->err, "runs and their count differ");
}

/* One 32-bit bitmap; *cardinality grows by its rows. */
static vex_status read_bitmap(vexi_reader *r, target *t, uint64_t base, uint64_t *cardinality) {
    size_t start = r->offset;
    uint32_t cookie = vexi_read_u32(r);
    bool has_runs = (cookie & 0xffff) == COOKIE_RUNS;
    uint32_t count;
    const uint8_t *flags = NULL;
    if (has_runs) {
        count = (cookie >> 16) + 1;
        flags = vexi_read_bytes(r, (count + 7) / 8);
    } else if (cookie == COOKIE) {
        count = vexi_read_u32(r);
    } else {
        return corrupt(t->err, "unknown cookie");
    }
    if (r->failed || count > CONTAINER_ROWS) {
        return corrupt(t->err, "damaged header");
    }
    const uint8_t *header = vexi_read_bytes(r, (size_t)count * 4);
    bool has_offsets = !has_runs || count >= NO_OFFSETS_BELOW;
    const uint8_t *offsets = has_offsets ? vexi_read_bytes(r, (size_t)count * 4) : NULL;
    if (r->failed) {
        return corrupt(t->err, "cut off inside the header");
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = vexi_get_u16(header + (size_t)i * 4);
        uint32_t values = (uint32_t)vexi_get_u16(header + (size_t)i * 4 + 2) + 1;
        if (i > 0 && key <= vexi_get_u16(header + (size_t)i * 4 - 4)) {
            return corrupt(t->err, "containers are not in order");
        }
        if (offsets != NULL && vexi_get_u32(offsets + (size_t)i * 4) != r->offset - start) {
            return corrupt(t->err, "a container is not where its offset tells");
        }
        t->base = base + (uint64_t)key * CONTAINER_ROWS;
        if (flags != NULL && (flags[i / 8] >> i % 8 & 1) != 0) {
            VEX_TRY(read_runs(r, values, t));
        } else if (values <= ARRAY_MAX) {
            VEX_TRY(read_array(r, values, t));
        } else {
            VEX_TRY(read_bits(r, values, t));
        }
        *cardinality += values;
    }
    return VEX_OK;
}

static vex_status read_all(vexi_span data, target *t, uint64_t *cardinality) {
    vexi_reader r = vexi_reader_of(data);
    *cardinality = 0;
    uint32_t magic = vexi_read_u32(&r);
    uint64_t count = vexi_read_u64(&r);
    if (magic == MAGIC_NATIVE || magic == __builtin_bswap32(MAGIC_NATIVE)) {
        return vexi_fail(t->err, VEX_UNSUPPORTED, "deletion vector in the native form of Delta");
    }
    if (r.failed || magic != MAGIC) {
        return corrupt(t->err, "unknown magic number");
    }
    uint64_t next_key = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t key = vexi_read_u32(&r);
        if (r.failed || key < next_key) {
            return corrupt(t->err, "bitmaps are cut off or not in order");
        }
        next_key = key + 1;
        VEX_TRY(read_bitmap(&r, t, key << 32, cardinality));
    }
    return r.offset == data.size ? VEX_OK : corrupt(t->err, "bytes behind its end");
}

vex_status vexi_dv_decode(vexi_span data, uint64_t row_count, uint64_t cardinality,
                          uint64_t *hidden, vex_error *err) {
    target t = {.row_count = row_count, .err = err};
    uint64_t count;
    VEX_TRY(read_all(data, &t, &count));
    if (count != cardinality) {
        return vexi_fail(err, VEX_CORRUPT,
                         "deletion vector: %" PRIu64 " rows where the log tells %" PRIu64, count,
                         cardinality);
    }
    t.hidden = hidden;
    return read_all(data, &t, &count);
}

/* ---- Files ----------------------------------------------------------------------------------- */

static void put_big_u32(vexi_buffer *out, uint32_t value) {
    uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                        (uint8_t)value};
    vexi_buffer_append(out, bytes, sizeof bytes);
}

static uint32_t get_big_u32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

vex_status vexi_dv_file_write(vexi_span data, vexi_buffer *out, vex_error *err) {
    /* Other engines hold these sizes in a signed 32-bit integer. */
    if (data.size > INT32_MAX) {
        return vexi_fail(err, VEX_LIMIT, "a deletion vector of %zu bytes", data.size);
    }
    vexi_buffer_u8(out, 1);
    put_big_u32(out, (uint32_t)data.size);
    vexi_buffer_append(out, data.data, data.size);
    put_big_u32(out, vexi_crc32(0, data.data, data.size));
    return vexi_buffer_check(out, err);
}

vex_status vexi_dv_file_find(vexi_span file, const vexi_delta_dv *dv, vexi_span *out,
                             vex_error *err) {
    *out = (vexi_span){NULL, 0};
    if (file.size < 1 || file.data[0] != 1) {
        return vexi_fail(err, VEX_CORRUPT, "deletion-vector file of an unknown version");
    }
    if (dv->offset < 1 || dv->offset > file.size || file.size - dv->offset < 8 ||
        file.size - dv->offset - 8 < dv->size_bytes) {
        return vexi_fail(err, VEX_CORRUPT,
                         "deletion-vector file of %zu bytes has none of %u bytes at %u", file.size,
                         dv->size_bytes, dv->offset);
    }
    const uint8_t *p = file.data + dv->offset;
    if (get_big_u32(p) != dv->size_bytes) {
        return vexi_fail(err, VEX_CORRUPT, "deletion-vector file tells another size than the log");
    }
    if (get_big_u32(p + 4 + dv->size_bytes) != vexi_crc32(0, p + 4, dv->size_bytes)) {
        return vexi_fail(err, VEX_CORRUPT, "deletion vector does not match its checksum");
    }
    *out = vexi_span_of(p + 4, dv->size_bytes);
    return VEX_OK;
}

/* ---- Descriptors ----------------------------------------------------------------------------- */

enum { UUID_TEXT_SIZE = 36, UUID_Z85_SIZE = 20 };

vex_status vexi_dv_inline(vexi_span data, uint64_t cardinality, vexi_arena *arena,
                          vexi_delta_dv *out, vex_error *err) {
    *out = (vexi_delta_dv){.storage = 0};
    VEX_ASSERT(data.size <= VEXI_DV_INLINE_SIZE_MAX);
    size_t size = vexi_z85_text_size(data.size);
    char *text = vexi_arena_alloc(arena, size + 1);
    if (text == NULL) {
        return vexi_no_memory(err, size + 1);
    }
    vexi_z85_encode(data, text);
    text[size] = '\0';
    *out = (vexi_delta_dv){.storage = 'i',
                           .encoded = {text, size},
                           .size_bytes = (uint32_t)data.size,
                           .cardinality = cardinality};
    return VEX_OK;
}

vex_status vexi_dv_by_uuid(const char *uuid, size_t data_size, uint64_t cardinality,
                           vexi_arena *arena, vexi_delta_dv *out, vex_error *err) {
    *out = (vexi_delta_dv){.storage = 0};
    uint8_t bytes[16];
    size_t digits = 0;
    for (size_t i = 0; i < UUID_TEXT_SIZE && uuid[i] != '\0'; i++) {
        int digit = vexi_hex_digit(uuid[i]);
        if (digit >= 0 && digits < 32) {
            uint8_t *byte = &bytes[digits / 2];
            *byte = (uint8_t)(digits % 2 == 0 ? digit << 4 : *byte | digit);
            digits++;
        }
    }
    if (digits != 32 || strlen(uuid) != UUID_TEXT_SIZE || data_size > INT32_MAX) {
        return vexi_fail(err, VEX_INVALID, "no UUID for a deletion vector");
    }
    char *text = vexi_arena_alloc(arena, UUID_Z85_SIZE + 1);
    if (text == NULL) {
        return vexi_no_memory(err, UUID_Z85_SIZE + 1);
    }
    vexi_z85_encode(vexi_span_of(bytes, sizeof bytes), text);
    text[UUID_Z85_SIZE] = '\0';
    *out = (vexi_delta_dv){.storage = 'u',
                           .encoded = {text, UUID_Z85_SIZE},
                           .offset = 1,
                           .size_bytes = (uint32_t)data_size,
                           .cardinality = cardinality};
    return VEX_OK;
}

vex_status vexi_dv_inline_data(const vexi_delta_dv *dv, vexi_arena *arena, vexi_span *out,
                               vex_error *err) {
    *out = (vexi_span){NULL, 0};
    if (dv->storage != 'i') {
        return vexi_fail(err, VEX_INVALID, "the deletion vector is not inline");
    }
    if (dv->encoded.size % 5 != 0 || dv->size_bytes > dv->encoded.size / 5 * 4) {
        return vexi_fail(err, VEX_CORRUPT, "inline deletion vector of %zu characters for %u bytes",
                         dv->encoded.size, dv->size_bytes);
    }
    uint8_t *data = vexi_arena_alloc(arena, dv->encoded.size / 5 * 4);
    if (data == NULL) {
        return vexi_no_memory(err, dv->encoded.size);
    }
    VEX_TRY(vexi_z85_decode(dv->encoded, data, err));
    *out = vexi_span_of(data, dv->size_bytes);
    return VEX_OK;
}

vex_status vexi_dv_object_name(const vexi_delta_dv *dv, vexi_arena *arena, const char **out,
                               vex_error *err) {
    *out = NULL;
    if (dv->storage != 'u') {
        return vexi_fail(err, VEX_UNSUPPORTED, "deletion vector at the absolute path '%.*s'",
                         (int)(dv->encoded.size > 200 ? 200 : dv->encoded.size), dv->encoded.data);
    }
    if (dv->encoded.size < UUID_Z85_SIZE || dv->encoded.size > 512) {
        return vexi_fail(err, VEX_CORRUPT, "deletion vector of a file without a UUID");
    }
    size_t prefix_size = dv->encoded.size - UUID_Z85_SIZE;
    /* One folder: characters that are the same in a path and in an URI. */
    for (size_t i = 0; i < prefix_size; i++) {
        char c = dv->encoded.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '_' || c == '-')) {
            return vexi_fail(err, VEX_CORRUPT, "deletion vector in a folder with a strange name");
        }
    }
    uint8_t b[16];
    vex_string uuid = {dv->encoded.data + prefix_size, UUID_Z85_SIZE};
    VEX_TRY(vexi_z85_decode(uuid, b, err));
    size_t size = prefix_size + 80;
    char *name = vexi_arena_alloc(arena, size);
    if (name == NULL) {
        return vexi_no_memory(err, size);
    }
    snprintf(name, size,
             "%.*s%sdeletion_vector_%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
             "%02x%02x%02x%02x%02x%02x.bin",
             (int)prefix_size, dv->encoded.data, prefix_size > 0 ? "/" : "", b[0], b[1], b[2], b[3],
             b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
    *out = name;
    return VEX_OK;
}
