/* Write-ahead log files: a header of 64 bytes, then records.
 *
 * A record is a header of 80 bytes and a body of tagged fields, zero-padded to a multiple of eight,
 * so that every record begins at a multiple of eight:
 *
 *     0  u32  "VXR1"                         32  36 bytes  collection (metaData.id, text)
 *     4  u32  size of the whole record       68  u8   kind, u24 rest of its group / 8
 *     8  u64  sequence                       72  u32  CRC-32C of the body
 *    16  u64  its offset in the file         76  u32  CRC-32C of bytes 0 to 75
 *    24  u64  synced bytes when sealed       80  fields: u16 tag, u16 zero, u32 size, bytes
 *
 * The two CRCs together cover the record. The body's is made when the record is written, on the
 * thread of the client; sealing, which is under the log's lock, touches the header alone.
 *
 * Invariants:
 *  - A record is accepted only where header, body and, if told, its own offset match.
 *  - Looking for later records behind damage is linear: a header that is valid is believed about
 *    its size, whether or not its body is, and the search goes on behind it.
 *  - A tag with its highest bit set must be understood; all tags of this version have it, because
 *    a reader that skipped one would lose data. */
#include "format/wal_record.h"

#include "base/checksum.h"
#include "base/utf8.h"

enum { RECORD_HEADER_SIZE = 80, FIELD_HEADER_SIZE = 8, FORMAT_VERSION = 1 };
enum { ELEMENT_FLOAT32 = 1 };
enum { CELL_NULL = 1 };

#define RECORD_MAGIC 0x31525856u /* "VXR1" */
#define ANYWHERE     UINT64_MAX  /* offset and synced size of a record whose writer did not tell */

enum {
    TAG_MUST = 0x8000,
    TAG_ID = TAG_MUST | 1,
    TAG_VECTOR = TAG_MUST | 2,
    TAG_ATTRIBUTES = TAG_MUST | 3,
    TAG_PAYLOAD = TAG_MUST | 4,
    TAG_CELLS = TAG_MUST | 5
};

/* ---- File header ----------------------------------------------------------------------------- */

static const char wal_magic[8] = {'V', 'E', 'X', 'L', 'W', 'A', 'L', '\n'};

/* Canonical lower-case text of a UUID to its 16 bytes. */
static bool uuid_pack(const char text[37], uint8_t out[16]) {
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        if (at == 8 || at == 13 || at == 18 || at == 23) {
            if (text[at++] != '-') {
                return false;
            }
        }
        int high = vexi_hex_digit_lower(text[at]);
        int low = high < 0 ? -1 : vexi_hex_digit_lower(text[at + 1]);
        if (low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high * 16 + low);
        at += 2;
    }
    return text[at] == '\0';
}

static void uuid_unpack(const uint8_t bytes[16], char out[37]) {
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;
    for (size_t i = 0; i < 16; i++) {
        if (at == 8 || at == 13 || at == 18 || at == 23) {
            out[at++] = '-';
        }
        out[at++] = digits[bytes[i] >> 4];
        out[at++] = digits[bytes[i] & 15];
    }
    out[at] = '\0';
}

void vexi_wal_header_write(const vexi_wal_header *header, uint8_t out[VEXI_WAL_HEADER_SIZE]) {
    memset(out, 0, VEXI_WAL_HEADER_SIZE);
    memcpy(out, wal_magic, sizeof wal_magic);
    vexi_put_u32(out + 8, FORMAT_VERSION);
    bool packed = uuid_pack(header->uuid, out + 16);
    VEX_ASSERT(packed);
    vexi_put_u64(out + 32, header->number);
    vexi_put_u64(out + 40, header->first_sequence);
    vexi_put_u64(out + 48, header->previous_cut);
    VEX_ASSERT(header->previous_number < header->number &&
               header->number - header->previous_number <= UINT32_MAX);
    vexi_put_u32(out + 56, header->previous_number == 0
                               ? 0
                               : (uint32_t)(header->number - header->previous_number));
    vexi_put_u32(out + 60, vexi_crc32c(0, out, 60));
}

vex_status vexi_wal_header_read(vexi_span file, vexi_wal_header *out, vex_error *err) {
    *out = (vexi_wal_header){.number = 0};
    if (file.size < VEXI_WAL_HEADER_SIZE) {
        return vexi_fail(err, VEX_CORRUPT, "log file of %zu bytes has no whole header", file.size);
    }
    const uint8_t *p = file.data;
    if (memcmp(p, wal_magic, sizeof wal_magic) != 0) {
        return vexi_fail(err, VEX_CORRUPT, "not a log file");
    }
    if (vexi_get_u32(p + 60) != vexi_crc32c(0, p, 60)) {
        return vexi_fail(err, VEX_CORRUPT, "log file header does not match its checksum");
    }
    uint32_t version = vexi_get_u32(p + 8);
    if (version > FORMAT_VERSION) {
        return vexi_fail(err, VEX_UNSUPPORTED,
                         "log file of format version %u; this program knows %d", version,
                         FORMAT_VERSION);
    }
    if (version == 0) {
        return vexi_fail(err, VEX_CORRUPT, "log file of format version 0");
    }
    uuid_unpack(p + 16, out->uuid);
    out->number = vexi_get_u64(p + 32);
    out->first_sequence = vexi_get_u64(p + 40);
    out->previous_cut = vexi_get_u64(p + 48);
    uint32_t back = vexi_get_u32(p + 56);
    if (back >= out->number && back != 0) {
        return vexi_fail(err, VEX_CORRUPT, "log file %llu names a file before the first",
                         (unsigned long long)out->number);
    }
    out->previous_number = back == 0 ? 0 : out->number - back;
    return VEX_OK;
}

/* ---- Writing --------------------------------------------------------------------------------- */

static size_t cell_size(const vexi_schema_column *column, const vexi_cell *cell) {
    size_t size = 4 + column->name.size;
    if (cell->is_null) {
        return size;
    }
    switch (column->type) {
    case VEX_TYPE_STRING:
        return size + 4 + cell->as.string.size;
    case VEX_TYPE_BOOL:
        return size + 1;
    case VEX_TYPE_INT64:
    case VEX_TYPE_DOUBLE:
    case VEX_TYPE_TIMESTAMP:
        break;
    }
    return size + 8;
}

/* A string cell is null too when it has no bytes to point at (row.h). */
static bool cell_is_null(const vexi_schema_column *column, const vexi_cell *cell) {
    return cell->is_null || (column->type == VEX_TYPE_STRING && cell->as.string.data == NULL);
}

static uint8_t *put_bytes(uint8_t *p, const void *data, size_t size) {
    if (size > 0) {
        memcpy(p, data, size);
    }
    return p + size;
}

static uint8_t *put_field(uint8_t *p, uint16_t tag, size_t size) {
    vexi_put_u16(p, tag);
    vexi_put_u16(p + 2, 0);
    vexi_put_u32(p + 4, (uint32_t)size);
    return p + FIELD_HEADER_SIZE;
}

static uint8_t *put_cell(uint8_t *p, const vexi_schema_column *column, const vexi_cell *cell) {
    bool is_null = cell_is_null(column, cell);
    p[0] = (uint8_t)column->type;
    p[1] = is_null ? CELL_NULL : 0;
    vexi_put_u16(p + 2, (uint16_t)column->name.size);
    p = put_bytes(p + 4, column->name.data, column->name.size);
    if (is_null) {
        return p;
    }
    switch (column->type) {
    case VEX_TYPE_STRING:
        vexi_put_u32(p, (uint32_t)cell->as.string.size);
        return put_bytes(p + 4, cell->as.string.data, cell->as.string.size);
    case VEX_TYPE_BOOL:
        *p = cell->as.boolean ? 1 : 0;
        return p + 1;
    case VEX_TYPE_DOUBLE: {
        uint64_t bits;
        memcpy(&bits, &cell->as.float64, sizeof bits);
        vexi_put_u64(p, bits);
        return p + 8;
    }
    case VEX_TYPE_INT64:
    case VEX_TYPE_TIMESTAMP:
        vexi_put_u64(p, (uint64_t)cell->as.int64);
        return p + 8;
    }
    return p;
}

vex_status vexi_wal_record_write(const vexi_wal_record *record, vexi_buffer *out, size_t *offset,
                                 vex_error *err) {
    const vexi_row *row = &record->row;
    bool put = record->kind == VEXI_WAL_PUT;
    uint32_t cell_count = put && row->cells != NULL ? record->cell_count : 0;
    size_t vector_size = (size_t)record->dimension * 4;
    *offset = 0;
    if (memchr(record->collection, '\0', sizeof record->collection) !=
        record->collection + VEXI_WAL_UUID_SIZE) {
        return vexi_fail(err, VEX_INVALID, "a log record's collection is no UUID");
    }
    VEX_ASSERT(row->id.size <= VEX_ID_SIZE_MAX && record->dimension <= VEX_DIMENSION_MAX);
    VEX_ASSERT(cell_count <= VEX_COLUMNS_MAX);

    /* Each part is far below SIZE_MAX / 128 (a string lies in memory), and so is their sum. */
    size_t cells_size = 4;
    for (uint32_t i = 0; i < cell_count; i++) {
        VEX_ASSERT(record->columns[i].name.size <= VEX_NAME_SIZE_MAX);
        vexi_cell cell = row->cells[i];
        cell.is_null = cell_is_null(&record->columns[i], &cell);
        cells_size += cell_size(&record->columns[i], &cell);
    }
    size_t size = RECORD_HEADER_SIZE + FIELD_HEADER_SIZE + row->id.size;
    if (put) {
        size += FIELD_HEADER_SIZE + 8 + vector_size;
        size += row->attributes.data != NULL ? FIELD_HEADER_SIZE + row->attributes.size : 0;
        size += row->payload.data != NULL ? FIELD_HEADER_SIZE + row->payload.size : 0;
        size += cell_count > 0 ? FIELD_HEADER_SIZE + cells_size : 0;
    }
    size_t padded = (size + 7) & ~(size_t)7;
    if (padded > VEXI_WAL_RECORD_SIZE_MAX) {
        return vexi_fail(err, VEX_LIMIT, "a row of %zu bytes; at most %d fit in the log", padded,
                         VEXI_WAL_RECORD_SIZE_MAX);
    }
    uint8_t *record_start = vexi_buffer_reserve(out, padded);
    if (record_start == NULL) {
        return vexi_buffer_check(out, err);
    }

    uint8_t *p = record_start;
    vexi_put_u32(p, RECORD_MAGIC);
    vexi_put_u32(p + 4, (uint32_t)padded);
    memset(p + 8, 0, 24);
    memcpy(p + 32, record->collection, VEXI_WAL_UUID_SIZE);
    vexi_put_u32(p + 68, (uint32_t)record->kind);
    p += RECORD_HEADER_SIZE;
    p = put_bytes(put_field(p, TAG_ID, row->id.size), row->id.data, row->id.size);
    if (put) {
        p = put_field(p, TAG_VECTOR, 8 + vector_size);
        vexi_put_u32(p, ELEMENT_FLOAT32);
        vexi_put_u32(p + 4, record->dimension);
        p = put_bytes(p + 8, row->vector, vector_size);
        if (row->attributes.data != NULL) {
            p = put_bytes(put_field(p, TAG_ATTRIBUTES, row->attributes.size), row->attributes.data,
                          row->attributes.size);
        }
        if (row->payload.data != NULL) {
            p = put_bytes(put_field(p, TAG_PAYLOAD, row->payload.size), row->payload.data,
                          row->payload.size);
        }
        if (cell_count > 0) {
            p = put_field(p, TAG_CELLS, cells_size);
            vexi_put_u32(p, cell_count);
            p += 4;
            for (uint32_t i = 0; i < cell_count; i++) {
                p = put_cell(p, &record->columns[i], &row->cells[i]);
            }
        }
    }
    VEX_ASSERT(p == record_start + size);
    memset(p, 0, padded - size);
    vexi_put_u32(record_start + 72,
                 vexi_crc32c(0, record_start + RECORD_HEADER_SIZE, padded - RECORD_HEADER_SIZE));
    vexi_put_u32(record_start + 76, 0);
    *offset = out->size;
    out->size += padded;
    return VEX_OK;
}

void vexi_wal_record_seal_at(uint8_t *record, uint64_t sequence, uint64_t offset,
                             uint64_t synced_size, uint64_t group_rest) {
    VEX_ASSERT(group_rest % 8 == 0 && group_rest <= VEXI_WAL_GROUP_SIZE_MAX);
    uint32_t units = (uint32_t)(group_rest / 8);
    record[69] = (uint8_t)units;
    record[70] = (uint8_t)(units >> 8);
    record[71] = (uint8_t)(units >> 16);
    vexi_put_u64(record + 8, sequence);
    vexi_put_u64(record + 16, offset);
    vexi_put_u64(record + 24, synced_size);
    vexi_put_u32(record + 76, vexi_crc32c(0, record, 76));
}

void vexi_wal_record_seal(uint8_t *record, uint64_t sequence) {
    vexi_wal_record_seal_at(record, sequence, ANYWHERE, ANYWHERE, vexi_wal_record_size(record));
}

size_t vexi_wal_record_size(const uint8_t *record) {
    return vexi_get_u32(record + 4);
}

/* ---- Reading --------------------------------------------------------------------------------- */

/* Whether a valid record header stands at `offset`; *size is then the record's, which may reach
 * past the end of the file. */
static bool header_valid(vexi_span file, size_t offset, size_t *size) {
    if (file.size - offset < RECORD_HEADER_SIZE) {
        return false;
    }
    const uint8_t *p = file.data + offset;
    *size = vexi_get_u32(p + 4);
    uint64_t place = vexi_get_u64(p + 16);
    return vexi_get_u32(p) == RECORD_MAGIC && *size >= RECORD_HEADER_SIZE &&
           *size <= VEXI_WAL_RECORD_SIZE_MAX && *size % 8 == 0 &&
           (place == ANYWHERE || place == offset) && vexi_get_u32(p + 76) == vexi_crc32c(0, p, 76);
}

static bool body_valid(vexi_span file, size_t offset, size_t size) {
    return size <= file.size - offset &&
           vexi_get_u32(file.data + offset + 72) ==
               vexi_crc32c(0, file.data + offset + RECORD_HEADER_SIZE, size - RECORD_HEADER_SIZE);
}

/* Whether behind the damage at `damage` a whole record proves that those bytes were synced. */
static bool record_follows(vexi_span file, size_t damage) {
    size_t size;
    size_t at = damage;
    at += header_valid(file, at, &size) ? size : 8 - at % 8;
    while (at < file.size && file.size - at >= RECORD_HEADER_SIZE) {
        if (!header_valid(file, at, &size)) {
            at += 8;
            continue;
        }
        if (vexi_get_u64(file.data + at + 24) > damage && body_valid(file, at, size)) {
            return true;
        }
        at += size;
    }
    return false;
}

static vex_status read_cells(vexi_reader *r, vexi_arena *arena, vexi_wal_record *out,
                             vex_error *err) {
    uint32_t count = vexi_read_u32(r);
    if (count > VEX_COLUMNS_MAX) {
        return vexi_fail(err, VEX_CORRUPT, "log record with %u typed columns", count);
    }
    vexi_schema_column *columns = vexi_arena_calloc(arena, count, sizeof *columns);
    vexi_cell *cells = vexi_arena_calloc(arena, count, sizeof *cells);
    if (columns == NULL || cells == NULL) {
        return vexi_no_memory(err, count * (sizeof *columns + sizeof *cells));
    }
    for (uint32_t i = 0; i < count; i++) {
        uint8_t type = vexi_read_u8(r);
        uint8_t flags = vexi_read_u8(r);
        uint16_t name_size = vexi_read_u16(r);
        const uint8_t *name = vexi_read_bytes(r, name_size);
        if (r->failed || flags > CELL_NULL || name_size == 0 || name_size > VEX_NAME_SIZE_MAX ||
            !vexi_utf8_valid(name, name_size)) {
            return vexi_fail(err, VEX_CORRUPT, "log record with a damaged column");
        }
        char *copy = vexi_arena_copy(arena, name, name_size);
        if (copy == NULL) {
            return vexi_no_memory(err, name_size);
        }
        columns[i].name = (vex_string){copy, name_size};
        columns[i].type = (vex_type)type;
        cells[i].is_null = flags == CELL_NULL;
        switch (type) {
        case VEX_TYPE_INT64:
        case VEX_TYPE_TIMESTAMP:
            cells[i].as.int64 = cells[i].is_null ? 0 : (int64_t)vexi_read_u64(r);
            break;
        case VEX_TYPE_DOUBLE: {
            uint64_t bits = cells[i].is_null ? 0 : vexi_read_u64(r);
            memcpy(&cells[i].as.float64, &bits, sizeof bits);
            break;
        }
        case VEX_TYPE_BOOL: {
            uint8_t value = cells[i].is_null ? 0 : vexi_read_u8(r);
            r->failed = r->failed || value > 1;
            cells[i].as.boolean = value == 1;
            break;
        }
        case VEX_TYPE_STRING:
            if (!cells[i].is_null) {
                uint32_t size = vexi_read_u32(r);
                const uint8_t *data = vexi_read_bytes(r, size);
                cells[i].as.string = (vex_string){(const char *)data, data == NULL ? 0 : size};
            }
            break;
        default:
            return vexi_fail(err, VEX_UNSUPPORTED, "log record with a column of unknown type %u",
                             type);
        }
    }
    if (r->failed || r->offset != r->size) {
        return vexi_fail(err, VEX_CORRUPT, "log record whose columns do not fill their field");
    }
    out->columns = columns;
    out->row.cells = cells;
    out->cell_count = count;
    return VEX_OK;
}

static vex_status read_vector(vexi_span field, vexi_arena *arena, vexi_wal_record *out,
                              vex_error *err) {
    vexi_reader r = vexi_reader_of(field);
    uint32_t element = vexi_read_u32(&r);
    uint32_t dimension = vexi_read_u32(&r);
    if (!r.failed && element != ELEMENT_FLOAT32) {
        return vexi_fail(err, VEX_UNSUPPORTED, "log record with vectors of element type %u",
                         element);
    }
    if (r.failed || dimension == 0 || dimension > VEX_DIMENSION_MAX ||
        field.size - 8 != (size_t)dimension * 4) {
        return vexi_fail(err, VEX_CORRUPT, "log record whose vector does not fill its field");
    }
    float *vector = vexi_arena_alloc_aligned(arena, 64, (size_t)dimension * 4);
    if (vector == NULL) {
        return vexi_no_memory(err, (size_t)dimension * 4);
    }
    memcpy(vector, field.data + 8, (size_t)dimension * 4);
    out->row.vector = vector;
    out->dimension = dimension;
    return VEX_OK;
}

static vex_status read_body(vexi_span body, vexi_arena *arena, vexi_wal_record *out,
                            vex_error *err) {
    vexi_reader r = vexi_reader_of(body);
    uint32_t seen = 0;
    while (body.size - r.offset >= FIELD_HEADER_SIZE) {
        uint16_t tag = vexi_read_u16(&r);
        uint16_t zero = vexi_read_u16(&r);
        uint32_t size = vexi_read_u32(&r);
        const uint8_t *data = vexi_read_bytes(&r, size);
        if (r.failed || zero != 0) {
            return vexi_fail(err, VEX_CORRUPT, "log record with a damaged field");
        }
        vex_string text = {(const char *)data, size};
        switch (tag) {
        case TAG_ID:
            out->row.id = text;
            break;
        case TAG_VECTOR:
            VEX_TRY(read_vector(vexi_span_of(data, size), arena, out, err));
            break;
        case TAG_ATTRIBUTES:
            out->row.attributes = text;
            break;
        case TAG_PAYLOAD:
            out->row.payload = text;
            break;
        case TAG_CELLS: {
            vexi_reader cells = vexi_reader_of(vexi_span_of(data, size));
            VEX_TRY(read_cells(&cells, arena, out, err));
            break;
        }
        default:
            if ((tag & TAG_MUST) != 0) {
                return vexi_fail(err, VEX_UNSUPPORTED, "log record with an unknown field %u",
                                 tag & ~(unsigned)TAG_MUST);
            }
            continue;
        }
        uint32_t bit = 1u << (tag & ~(unsigned)TAG_MUST);
        if ((seen & bit) != 0) {
            return vexi_fail(err, VEX_CORRUPT, "log record with a field that stands twice");
        }
        seen |= bit;
    }
    for (size_t i = r.offset; i < body.size; i++) {
        if (body.data[i] != 0) {
            return vexi_fail(err, VEX_CORRUPT, "log record whose padding is not zero");
        }
    }
    if (out->row.id.size == 0 || out->row.id.size > VEX_ID_SIZE_MAX ||
        !vexi_utf8_valid(out->row.id.data, out->row.id.size)) {
        return vexi_fail(err, VEX_CORRUPT, "log record without a valid id");
    }
    if (out->kind == VEXI_WAL_PUT && out->row.vector == NULL) {
        return vexi_fail(err, VEX_CORRUPT, "log record without a vector");
    }
    if (out->kind == VEXI_WAL_DELETE && seen != 1u << (TAG_ID & ~(unsigned)TAG_MUST)) {
        return vexi_fail(err, VEX_CORRUPT, "log record of a delete with more than an id");
    }
    return VEX_OK;
}

vex_status vexi_wal_record_read(vexi_span file, size_t *offset, vexi_arena *arena,
                                vexi_wal_record *out, vexi_wal_read *result, bool *later,
                                vex_error *err) {
    *out = (vexi_wal_record){.sequence = 0};
    *result = VEXI_WAL_END;
    *later = false;
    size_t at = *offset;
    VEX_ASSERT(at <= file.size && at % 8 == 0);
    if (at == file.size) {
        return VEX_OK;
    }
    size_t size;
    if (!header_valid(file, at, &size) || !body_valid(file, at, size)) {
        *result = VEXI_WAL_TORN;
        *later = record_follows(file, at);
        return VEX_OK;
    }
    const uint8_t *p = file.data + at;
    out->sequence = vexi_get_u64(p + 8);
    memcpy(out->collection, p + 32, VEXI_WAL_UUID_SIZE);
    if (memchr(out->collection, '\0', VEXI_WAL_UUID_SIZE) != NULL) {
        return vexi_fail(err, VEX_CORRUPT, "log record %llu of no collection",
                         (unsigned long long)out->sequence);
    }
    uint32_t kind = p[68];
    out->group_rest = (uint64_t)(vexi_get_u32(p + 68) >> 8) * 8;
    if (out->group_rest < size) {
        return vexi_fail(err, VEX_CORRUPT, "log record %llu is larger than its group",
                         (unsigned long long)out->sequence);
    }
    if (kind != VEXI_WAL_PUT && kind != VEXI_WAL_DELETE) {
        return vexi_fail(err, VEX_UNSUPPORTED, "log record %llu is of the unknown kind %u",
                         (unsigned long long)out->sequence, kind);
    }
    out->kind = (vexi_wal_kind)kind;
    vex_status status =
        read_body(vexi_span_of(p + RECORD_HEADER_SIZE, size - RECORD_HEADER_SIZE), arena, out, err);
    if (status != VEX_OK) {
        return vexi_prefix(err, status, "log record %llu at byte %zu",
                           (unsigned long long)out->sequence, at);
    }
    *result = VEXI_WAL_RECORD;
    *offset = at + size;
    return VEX_OK;
}
