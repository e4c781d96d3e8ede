#include "check.h"

#include "base/checksum.h"
#include "format/wal_record.h"

static const char log_uuid[] = "0123abcd-4567-89ab-cdef-0123456789ab";
static const char collection[] = "11111111-2222-4333-8444-555555555555";

static const vexi_schema_column columns[] = {{{"count", 5}, VEX_TYPE_INT64},
                                             {{"price", 5}, VEX_TYPE_DOUBLE},
                                             {{"section", 7}, VEX_TYPE_STRING},
                                             {{"good", 4}, VEX_TYPE_BOOL},
                                             {{"at", 2}, VEX_TYPE_TIMESTAMP}};

static vexi_cell full_cells[5] = {{.as.int64 = -7},
                                  {.as.float64 = 0.1},
                                  {.as.string = {"net", 3}},
                                  {.as.boolean = true},
                                  {.as.int64 = 1700000000000000}};

static vexi_wal_record put_record(const char *id, const float *vector, uint32_t dimension) {
    vexi_wal_record record = {.kind = VEXI_WAL_PUT,
                              .row = {.id = vexi_string_of(id), .vector = vector},
                              .dimension = dimension};
    memcpy(record.collection, collection, sizeof collection);
    return record;
}

static void start(vexi_buffer *file) {
    vexi_buffer_init(file, vex_test_env(), 1 << 28);
    vexi_wal_header header = {.number = 3, .first_sequence = 100, .previous_cut = UINT64_MAX};
    memcpy(header.uuid, log_uuid, sizeof log_uuid);
    uint8_t bytes[VEXI_WAL_HEADER_SIZE];
    vexi_wal_header_write(&header, bytes);
    vexi_buffer_append(file, bytes, sizeof bytes);
}

/* Append and seal; returns where the record begins. */
static size_t append(vexi_buffer *file, const vexi_wal_record *record, uint64_t sequence) {
    size_t offset;
    CHECK_OK(vexi_wal_record_write(record, file, &offset, &err));
    CHECK(offset % 8 == 0);
    CHECK_EQ(vexi_wal_record_size(file->data + offset), file->size - offset);
    vexi_wal_record_seal(file->data + offset, sequence);
    return offset;
}

static vexi_wal_read read_at(vexi_span file, size_t *offset, vexi_arena *arena,
                             vexi_wal_record *record, bool *later) {
    vexi_wal_read result = VEXI_WAL_END;
    CHECK_OK(vexi_wal_record_read(file, offset, arena, record, &result, later, &err));
    return result;
}

static vexi_span span_of(const vexi_buffer *file) {
    return vexi_span_of(file->data, file->size);
}

TEST(header_round_trip) {
    vexi_buffer file;
    start(&file);
    vexi_wal_header header;
    CHECK_OK(vexi_wal_header_read(span_of(&file), &header, &err));
    CHECK(strcmp(header.uuid, log_uuid) == 0);
    CHECK_EQ(header.number, 3);
    CHECK_EQ(header.first_sequence, 100);
    CHECK(header.previous_cut == UINT64_MAX);
    for (size_t bit = 0; bit < VEXI_WAL_HEADER_SIZE * 8; bit++) {
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_FAILS(VEX_CORRUPT, vexi_wal_header_read(span_of(&file), &header, &err));
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK_FAILS(VEX_CORRUPT, vexi_wal_header_read(vexi_span_of(file.data, 63), &header, &err));
    vexi_put_u32(file.data + 8, 2);
    vexi_put_u32(file.data + 60, vexi_crc32c(0, file.data, 60));
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_wal_header_read(span_of(&file), &header, &err));
    vexi_buffer_deinit(&file);
}

TEST(records_round_trip) {
    vexi_buffer file;
    start(&file);
    float vector[5] = {1, -2.5f, 3e38f, 0, -0.0f};
    vexi_wal_record full = put_record("a", vector, 5);
    full.row.attributes = vexi_string_of("{\"a\":1}");
    full.row.payload = (vex_string){"\0\xff", 2};
    full.row.cells = full_cells;
    full.columns = columns;
    full.cell_count = 5;
    append(&file, &full, 100);
    vexi_wal_record plain = put_record("b", vector, 1);
    plain.row.payload = (vex_string){"", 0};
    vexi_cell nulls[5] = {{.is_null = true},
                          {.is_null = true},
                          {.is_null = false},
                          {.is_null = true},
                          {.is_null = true}};
    plain.row.cells = nulls; /* the string cell is null by its pointer */
    plain.columns = columns;
    plain.cell_count = 5;
    append(&file, &plain, 101);
    vexi_wal_record gone = put_record("a", NULL, 0);
    gone.kind = VEXI_WAL_DELETE;
    append(&file, &gone, 102);

    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_wal_record record;
    bool later;
    size_t offset = VEXI_WAL_HEADER_SIZE;
    CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_RECORD);
    CHECK_EQ(record.sequence, 100);
    CHECK(record.kind == VEXI_WAL_PUT && strcmp(record.collection, collection) == 0);
    CHECK(vexi_string_is(record.row.id, "a") && record.dimension == 5);
    CHECK(memcmp(record.row.vector, vector, sizeof vector) == 0);
    CHECK((uintptr_t)record.row.vector % 64 == 0);
    CHECK(vexi_string_is(record.row.attributes, "{\"a\":1}"));
    CHECK(vexi_string_equal(record.row.payload, full.row.payload));
    CHECK_EQ(record.cell_count, 5);
    for (size_t i = 0; i < 5; i++) {
        CHECK(record.columns[i].type == columns[i].type && !record.row.cells[i].is_null);
        CHECK(vexi_string_equal(record.columns[i].name, columns[i].name));
    }
    CHECK_EQ(record.row.cells[0].as.int64, -7);
    CHECK(record.row.cells[1].as.float64 == 0.1);
    CHECK(vexi_string_is(record.row.cells[2].as.string, "net"));
    CHECK(record.row.cells[3].as.boolean);
    CHECK_EQ(record.row.cells[4].as.int64, 1700000000000000);

    CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_RECORD);
    CHECK(record.row.attributes.data == NULL);
    CHECK(record.row.payload.data != NULL && record.row.payload.size == 0);
    for (size_t i = 0; i < 5; i++) {
        CHECK(record.row.cells[i].is_null);
    }
    CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_RECORD);
    CHECK(record.kind == VEXI_WAL_DELETE && record.row.vector == NULL);
    CHECK_EQ(record.sequence, 102);
    CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_END);
    CHECK_EQ(offset, file.size);
    vexi_arena_deinit(&arena);
    vexi_buffer_deinit(&file);
}

TEST(every_cut_is_torn_or_an_end) {
    vexi_buffer file;
    start(&file);
    float vector[3] = {1, 2, 3};
    vexi_wal_record record = put_record("some id", vector, 3);
    size_t second = (append(&file, &record, 1), append(&file, &record, 2));
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    for (size_t size = VEXI_WAL_HEADER_SIZE; size < file.size; size++) {
        vexi_span cut = vexi_span_of(file.data, size);
        size_t offset = VEXI_WAL_HEADER_SIZE;
        bool later;
        vexi_wal_read result = read_at(cut, &offset, &arena, &record, &later);
        CHECK((result == VEXI_WAL_RECORD) == (size >= second));
        if (result == VEXI_WAL_RECORD) {
            result = read_at(cut, &offset, &arena, &record, &later);
        }
        bool boundary = size == VEXI_WAL_HEADER_SIZE || size == second;
        CHECK(result == (boundary ? VEXI_WAL_END : VEXI_WAL_TORN));
        CHECK(!later);
    }
    vexi_arena_deinit(&arena);
    vexi_buffer_deinit(&file);
}

TEST(every_flipped_bit_is_found_and_later_records_seen) {
    vexi_buffer file;
    start(&file);
    float vector[3] = {1, 2, 3};
    vexi_wal_record record = put_record("some id", vector, 3);
    size_t first = append(&file, &record, 1);
    size_t second = append(&file, &record, 2);
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    for (size_t bit = first * 8; bit < file.size * 8; bit++) {
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        size_t offset = bit / 8 < second ? first : second;
        bool later;
        CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_TORN);
        CHECK(later == (bit / 8 < second));
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    vexi_arena_deinit(&arena);
    vexi_buffer_deinit(&file);
}

/* A writer that tells places and synced sizes: only proof of synced damage counts as later. */
TEST(sealed_at_a_place) {
    vexi_buffer file;
    start(&file);
    float vector[3] = {1, 2, 3};
    vexi_wal_record record = put_record("id", vector, 3);
    size_t at[4];
    for (size_t i = 0; i < 4; i++) {
        CHECK_OK(vexi_wal_record_write(&record, &file, &at[i], &err));
        /* 0 and 1 in one append, then 2 and 3 in another. */
        vexi_wal_record_seal_at(file.data + at[i], i, at[i], i < 2 ? at[0] : at[2],
                                vexi_wal_record_size(file.data + at[i]));
    }
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    bool later;
    size_t offset = at[2];
    file.data[at[2] + 90] ^= 1; /* unsynced when 3 was sealed: a torn append */
    CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_TORN);
    CHECK(!later);
    file.data[at[2] + 90] ^= 1;
    offset = at[0];
    file.data[at[0] + 3] ^= 1; /* synced when 2 was sealed */
    CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_TORN);
    CHECK(later);
    file.data[at[0] + 3] ^= 1;
    /* A record at another place than its own is none. */
    memmove(file.data + at[0], file.data + at[1], at[2] - at[1]);
    offset = at[0];
    CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_TORN);
    vexi_arena_deinit(&arena);
    vexi_buffer_deinit(&file);
}

TEST(a_record_inside_a_payload_is_none) {
    vexi_buffer inner, file;
    start(&inner);
    float vector[1] = {1};
    vexi_wal_record record = put_record("id", vector, 1);
    append(&inner, &record, 5);
    start(&file);
    record.row.payload = (vex_string){(const char *)inner.data, inner.size};
    size_t offset;
    CHECK_OK(vexi_wal_record_write(&record, &file, &offset, &err));
    vexi_wal_record_seal_at(file.data + offset, 6, offset, offset,
                            vexi_wal_record_size(file.data + offset));
    file.data[file.size - 1] ^= 1; /* the header stands, so its body is not searched */
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    bool later;
    CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_TORN);
    CHECK(!later);
    vexi_arena_deinit(&arena);
    vexi_buffer_deinit(&inner);
    vexi_buffer_deinit(&file);
}

/* A file made to be slow: headers with valid CRCs everywhere, each claiming all that follows. */
TEST(the_search_behind_damage_is_linear) {
    vexi_buffer file;
    start(&file);
    float vector[1] = {1};
    vexi_wal_record record = put_record("id", vector, 1);
    size_t offset;
    CHECK_OK(vexi_wal_record_write(&record, &file, &offset, &err));
    uint8_t header[80];
    memcpy(header, file.data + offset, sizeof header);
    file.size = offset;
    size_t total = 32 << 20;
    vexi_buffer_u64(&file, 0); /* the damage */
    while (file.size < total) {
        vexi_put_u32(header + 4, (uint32_t)(total - file.size + 64) & ~7u);
        vexi_wal_record_seal(header, 1);
        vexi_buffer_append(&file, header, sizeof header);
    }
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    bool later;
    uint64_t begin = vexi_monotonic_ns(vex_test_env());
    CHECK(read_at(span_of(&file), &offset, &arena, &record, &later) == VEXI_WAL_TORN);
    CHECK(vexi_monotonic_ns(vex_test_env()) - begin < 20u * 1000000000u);
    CHECK(!later);
    vexi_arena_deinit(&arena);
    vexi_buffer_deinit(&file);
}

/* Change fields of a sealed record, mend the CRCs, and read it. */
static vex_status read_mended(vexi_buffer *file, size_t at, vexi_arena *arena) {
    uint8_t *p = file->data + at;
    vexi_put_u32(p + 72, vexi_crc32c(0, p + 80, vexi_wal_record_size(p) - 80));
    vexi_wal_record_seal(p, 9);
    vexi_wal_record record;
    vexi_wal_read result;
    bool later;
    vex_error err;
    size_t offset = at;
    return vexi_wal_record_read(span_of(file), &offset, arena, &record, &result, &later, &err);
}

TEST(what_makes_no_sense_is_refused) {
    vexi_buffer file;
    float vector[1] = {1};
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    static const struct {
        size_t at;
        uint8_t value;
        vex_status expected;
    } cases[] = {
        {68, 9, VEX_UNSUPPORTED},  /* kind */
        {32, 0, VEX_CORRUPT},      /* collection */
        {80, 77, VEX_UNSUPPORTED}, /* field 77, must understand */
        {84, 200, VEX_CORRUPT},    /* field size */
        {84, 0, VEX_CORRUPT},      /* no id */
        {88, 0xff, VEX_CORRUPT},   /* id is no UTF-8 */
        {82, 1, VEX_CORRUPT},      /* reserved */
        {98, 2, VEX_UNSUPPORTED},  /* element type */
        {102, 2, VEX_CORRUPT},     /* dimension */
        {90, 1, VEX_UNSUPPORTED},  /* vector's tag: id twice, see below */
        {110, 1, VEX_CORRUPT},     /* padding */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start(&file);
        vexi_wal_record record = put_record("ab", vector, 1);
        size_t at = append(&file, &record, 1);
        file.data[at + cases[i].at] = cases[i].value;
        if (cases[i].at == 90) {
            file.data[at + 91] = 0x80;
            CHECK_EQ(read_mended(&file, at, &arena), VEX_CORRUPT);
        } else {
            CHECK_EQ(read_mended(&file, at, &arena), cases[i].expected);
        }
        vexi_buffer_deinit(&file);
    }
    /* A delete is an id alone. */
    start(&file);
    vexi_wal_record whole = put_record("ab", vector, 1);
    size_t whole_at = append(&file, &whole, 1);
    file.data[whole_at + 68] = VEXI_WAL_DELETE;
    CHECK_EQ(read_mended(&file, whole_at, &arena), VEX_CORRUPT);
    vexi_buffer_deinit(&file);
    /* A field that may be skipped is. */
    start(&file);
    vexi_wal_record record = put_record("ab", vector, 1);
    record.row.attributes = vexi_string_of("{}");
    size_t at = append(&file, &record, 1);
    vexi_put_u16(file.data + at + 110, 77);
    CHECK_EQ(read_mended(&file, at, &arena), VEX_OK);
    vexi_buffer_deinit(&file);
    vexi_arena_deinit(&arena);
}

TEST(limits) {
    vexi_buffer file;
    start(&file);
    float vector[1] = {1};
    vexi_wal_record record = put_record("a", vector, 1);
    size_t huge = (size_t)VEXI_WAL_RECORD_SIZE_MAX;
    char *payload = calloc(1, huge);
    CHECK(payload != NULL);
    record.row.payload = (vex_string){payload, huge};
    size_t offset;
    CHECK_FAILS(VEX_LIMIT, vexi_wal_record_write(&record, &file, &offset, &err));
    CHECK_EQ(file.size, VEXI_WAL_HEADER_SIZE);
    free(payload);
    record = put_record("a", vector, 1);
    record.collection[30] = '\0';
    CHECK_FAILS(VEX_INVALID, vexi_wal_record_write(&record, &file, &offset, &err));
    vexi_buffer_deinit(&file);
}

TEST_MAIN(RUN(header_round_trip); RUN(records_round_trip); RUN(every_cut_is_torn_or_an_end);
          RUN(every_flipped_bit_is_found_and_later_records_seen); RUN(sealed_at_a_place);
          RUN(a_record_inside_a_payload_is_none); RUN(the_search_behind_damage_is_linear);
          RUN(what_makes_no_sense_is_refused); RUN(limits))
