/* Files of every format version under tests/golden: today's writers still make exactly these
 * files, today's readers read them, and what must be refused is refused by the right status.
 *
 * UPDATE_GOLDEN=1 writes the files anew: only for a new version, beside those of the old ones. */
#include "check.h"

#include "base/checksum.h"
#include "format/deletion_vector.h"
#include "format/delta_internal.h"
#include "format/graph_test_input.h"
#include "format/index_internal.h"
#include "format/index_test_input.h"
#include "format/lake_format.h"
#include "format/wal_record.h"

static const char log_uuid[] = "0123abcd-4567-89ab-cdef-0123456789ab";
static const char collection[] = "11111111-2222-4333-8444-555555555555";

/* tests/golden/<name>, found from where this source file is. */
static void golden_path(const char *name, char out[1024]) {
    static const char here[] = "src/format/golden_test.c";
    const char *root = getenv("VEX_SOURCE_DIR");
    if (root != NULL) {
        snprintf(out, 1024, "%s/tests/golden/%s", root, name);
        return;
    }
    const char *file = __FILE__;
    const char *end = strstr(file, here);
    CHECK(end != NULL);
    snprintf(out, 1024, "%.*stests/golden/%s", (int)(end - file), file, name);
}

static vexi_buffer buffer_make(void) {
    vexi_buffer buffer;
    vexi_buffer_init(&buffer, vex_test_env(), 1 << 24);
    return buffer;
}

static void golden_read(const char *name, vexi_buffer *out) {
    char path[1024];
    golden_path(name, path);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s is missing\n", path);
    }
    CHECK(file != NULL);
    char part[4096];
    size_t size;
    while ((size = fread(part, 1, sizeof part, file)) > 0) {
        vexi_buffer_append(out, part, size);
    }
    CHECK(ferror(file) == 0 && !out->failed);
    fclose(file);
}

/* Check that `made` is the golden file, or with UPDATE_GOLDEN make it so. */
static void golden_same(const char *name, const vexi_buffer *made) {
    CHECK(!made->failed);
    if (getenv("UPDATE_GOLDEN") != NULL) {
        char path[1024];
        golden_path(name, path);
        FILE *file = fopen(path, "wb");
        CHECK(file != NULL);
        CHECK(fwrite(made->data, 1, made->size, file) == made->size);
        CHECK(fclose(file) == 0);
    }
    vexi_buffer golden = buffer_make();
    golden_read(name, &golden);
    bool same = golden.size == made->size && memcmp(golden.data, made->data, made->size) == 0;
    if (!same) {
        fprintf(stderr, "%s: what is written today differs\n", name);
    }
    CHECK(same);
    vexi_buffer_deinit(&golden);
}

static vexi_span span_of(const vexi_buffer *buffer) {
    return vexi_span_of(buffer->data, buffer->size);
}

/* ---- .vexlake/format ------------------------------------------------------------------------- */

TEST(lake_format) {
    /* The writer's version is in it, so it is read but not compared. */
    vexi_buffer made = buffer_make();
    CHECK_OK(vexi_lake_format_write(&made, &err));
    CHECK_OK(vexi_lake_format_check(span_of(&made), &err));
    vexi_buffer_clear(&made);
    vexi_buffer_text(&made, "{\"formatVersion\":1,\"writer\":\"vexlake 0.1.0\"}\n");
    golden_same("format-v1.json", &made);
    CHECK_OK(vexi_lake_format_check(span_of(&made), &err));
    vexi_buffer_clear(&made);
    vexi_buffer_text(&made, "{\"formatVersion\":2,\"writer\":\"vexlake 9.0.0\",\"more\":[1]}\n");
    golden_same("format-v2-refused.json", &made);
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_lake_format_check(span_of(&made), &err));
    static const char *const bad[] = {"",
                                      "{}",
                                      "[]",
                                      "{\"formatVersion\":\"1\"}",
                                      "{\"formatVersion\":0}",
                                      "{\"formatVersion\":1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_FAILS(VEX_CORRUPT,
                    vexi_lake_format_check(vexi_span_of(bad[i], strlen(bad[i])), &err));
    }
    vexi_buffer_deinit(&made);
}

/* ---- Commits --------------------------------------------------------------------------------- */

/* The writer's version stands in commitInfo.engineInfo; golden files have a fixed one. */
static void fix_engine(vexi_buffer *text) {
    static const char key[] = "\"engineInfo\":\"vexlake/";
    vexi_buffer_u8(text, 0);
    char *at = strstr((char *)text->data, key);
    CHECK(at != NULL);
    at += sizeof key - 1;
    char *end = strchr(at, '"');
    CHECK(end != NULL && (size_t)(end - at) >= 5);
    size_t rest = text->size - (size_t)((uint8_t *)end - text->data);
    memcpy(at, "0.1.0", 5);
    memmove(at + 5, end, rest);
    text->size -= (size_t)(end - at) - 5 + 1;
}

TEST(commits) {
    static const vexi_schema_column columns[] = {{{"count", 5}, VEX_TYPE_INT64},
                                                 {{"price", 5}, VEX_TYPE_DOUBLE},
                                                 {{"section", 7}, VEX_TYPE_STRING},
                                                 {{"good", 4}, VEX_TYPE_BOOL},
                                                 {{"at", 2}, VEX_TYPE_TIMESTAMP}};
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_delta_commit commit = {.operation = vexi_string_of("CREATE TABLE"),
                                .attempt_id = vexi_string_of(log_uuid),
                                .timestamp_ms = 1700000000000};
    commit.protocol = (vexi_delta_protocol){.reader_version = 1, .writer_version = 2};
    commit.metadata = (vexi_delta_metadata){.id = vexi_string_of(collection),
                                            .name = vexi_string_of("packages"),
                                            .created_time_ms = 1700000000000,
                                            .schema = {.dimension = 4,
                                                       .metric = VEX_METRIC_COSINE,
                                                       .index = VEX_INDEX_AUTO,
                                                       .rotation_seed = 42,
                                                       .column_count = 5,
                                                       .columns = columns}};
    CHECK_OK(vexi_delta_configure(&commit.metadata.schema, false, false, &arena,
                                  &commit.metadata.configuration,
                                  &commit.metadata.configuration_count, &err));
    vexi_buffer made = buffer_make();
    CHECK_OK(vexi_delta_write(&commit, &made, &err));
    fix_engine(&made);
    golden_same("commit-v1-create.json", &made);
    vexi_delta_state state;
    vexi_delta_state_init(&state, vex_test_env());
    vexi_delta_commit read;
    CHECK_OK(vexi_delta_parse(span_of(&made), &arena, &read, &err));
    CHECK_OK(vexi_delta_state_apply(&state, &read, &err));
    CHECK_OK(vexi_delta_state_writable(&state, &err));
    CHECK(state.metadata.schema.dimension == 4 && state.metadata.schema.column_count == 5);

    /* A flush that also hides two rows of an older segment. */
    vexi_delta_add adds[2] = {
        {.path = vexi_string_of("old.parquet"),
         .size_bytes = 1000,
         .modification_time_ms = 1700000000001,
         .row_count = 100,
         .data_change = true},
        {.path = vexi_string_of("new segment.parquet"),
         .size_bytes = 2000,
         .modification_time_ms = 1700000000002,
         .row_count = 200,
         .data_change = true,
         .index = {vexi_string_of("index/new.vector.ivf.bin"), 4096, 1024, 0xdeadbeef}}};
    uint64_t hidden[2] = {1, 4};
    vexi_buffer data = buffer_make();
    CHECK_OK(vexi_dv_encode(hidden, 100, &data, &err));
    CHECK_OK(vexi_dv_inline(span_of(&data), 2, &arena, &adds[0].dv, &err));
    vexi_delta_remove removed = {.path = adds[0].path,
                                 .deletion_timestamp_ms = 1700000000003,
                                 .data_change = true,
                                 .size_bytes = 1000};
    vexi_delta_txn txn = {vexi_string_of(log_uuid), 77};
    vexi_delta_commit flush = {.adds = adds,
                               .add_count = 2,
                               .removes = &removed,
                               .remove_count = 1,
                               .txns = &txn,
                               .txn_count = 1,
                               .operation = vexi_string_of("WRITE"),
                               .attempt_id = vexi_string_of(log_uuid),
                               .timestamp_ms = 1700000000003};
    flush.protocol =
        (vexi_delta_protocol){.reader_version = 3, .writer_version = 7, .deletion_vectors = true};
    flush.metadata = commit.metadata;
    CHECK_OK(vexi_delta_configure(&commit.metadata.schema, true, false, &arena,
                                  &flush.metadata.configuration,
                                  &flush.metadata.configuration_count, &err));
    vexi_buffer_clear(&made);
    CHECK_OK(vexi_delta_write(&flush, &made, &err));
    fix_engine(&made);
    golden_same("commit-v1-flush.json", &made);
    CHECK_OK(vexi_delta_parse(span_of(&made), &arena, &read, &err));
    CHECK_OK(vexi_delta_state_apply(&state, &read, &err));
    CHECK_EQ(state.file_count, 2);
    CHECK(state.protocol.deletion_vectors);
    CHECK_EQ(vexi_delta_state_txn(&state, vexi_string_of(log_uuid)), 77);
    CHECK_EQ(state.files[1].add.index.head_crc, 0xdeadbeef);
    vexi_span inline_data;
    uint64_t again[2] = {0};
    CHECK_OK(vexi_dv_inline_data(&state.files[0].add.dv, &arena, &inline_data, &err));
    CHECK_OK(vexi_dv_decode(inline_data, 100, 2, again, &err));
    CHECK(again[0] == 1 && again[1] == 4);

    /* A collection of a newer format. */
    vexi_delta_pair newer = {vexi_string_of(VEXI_KEY_FORMAT_VERSION), vexi_string_of("2")};
    vexi_delta_pair dimension = {vexi_string_of(VEXI_KEY_DIMENSION), vexi_string_of("4")};
    vexi_delta_pair pairs[2] = {newer, dimension};
    commit.metadata.configuration = pairs;
    commit.metadata.configuration_count = 2;
    vexi_buffer_clear(&made);
    CHECK_OK(vexi_delta_write(&commit, &made, &err));
    fix_engine(&made);
    golden_same("commit-v2-refused.json", &made);
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_delta_parse(span_of(&made), &arena, &read, &err));
    vexi_delta_state_deinit(&state);
    vexi_buffer_deinit(&made);
    vexi_buffer_deinit(&data);
    vexi_arena_deinit(&arena);
}

TEST(deletion_vector_files) {
    uint64_t hidden[3000] = {0};
    uint64_t again[3000] = {0};
    enum { ROWS = 3000 * 64 };
    for (size_t row = 0; row < ROWS; row++) { /* an array, bits, a run */
        if (row < 65536 ? row % 700 == 0 : row < 131072 ? row % 5 == 0 : row < 140000) {
            hidden[row / 64] |= (uint64_t)1 << row % 64;
        }
    }
    uint64_t count = 0;
    for (size_t i = 0; i < 3000; i++) {
        count += (uint64_t)__builtin_popcountll(hidden[i]);
    }
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_buffer data = buffer_make(), made = buffer_make();
    CHECK_OK(vexi_dv_encode(hidden, ROWS, &data, &err));
    CHECK_OK(vexi_dv_file_write(span_of(&data), &made, &err));
    golden_same("deletion-vector-v1.bin", &made);
    vexi_delta_dv dv;
    CHECK_OK(vexi_dv_by_uuid(log_uuid, data.size, count, &arena, &dv, &err));
    vexi_span found;
    CHECK_OK(vexi_dv_file_find(span_of(&made), &dv, &found, &err));
    CHECK_OK(vexi_dv_decode(found, ROWS, count, again, &err));
    CHECK(memcmp(hidden, again, sizeof hidden) == 0);
    made.data[1000] ^= 4;
    golden_same("deletion-vector-v1-flipped-refused.bin", &made);
    CHECK_FAILS(VEX_CORRUPT, vexi_dv_file_find(span_of(&made), &dv, &found, &err));
    vexi_buffer_deinit(&data);
    vexi_buffer_deinit(&made);
    vexi_arena_deinit(&arena);
}

/* ---- Log files ------------------------------------------------------------------------------- */

static void log_make(vexi_buffer *out, size_t at[3]) {
    vexi_wal_header header = {
        .number = 9, .first_sequence = 100, .previous_number = 7, .previous_cut = 4096};
    memcpy(header.uuid, log_uuid, sizeof log_uuid);
    uint8_t bytes[VEXI_WAL_HEADER_SIZE];
    vexi_wal_header_write(&header, bytes);
    vexi_buffer_append(out, bytes, sizeof bytes);
    static const float vector[3] = {1.5f, -2.25f, 1e-20f};
    static const vexi_schema_column columns[] = {
        {{"count", 5}, VEX_TYPE_INT64},    {{"price", 5}, VEX_TYPE_DOUBLE},
        {{"section", 7}, VEX_TYPE_STRING}, {{"good", 4}, VEX_TYPE_BOOL},
        {{"at", 2}, VEX_TYPE_TIMESTAMP},   {{"none", 4}, VEX_TYPE_STRING}};
    vexi_cell cells[6] = {{.as.int64 = -7},     {.as.float64 = 0.1}, {.as.string = {"x", 1}},
                          {.as.boolean = true}, {.as.int64 = 17},    {.is_null = true}};
    vexi_wal_record record = {.kind = VEXI_WAL_PUT,
                              .row = {.id = vexi_string_of("first"),
                                      .vector = vector,
                                      .attributes = vexi_string_of("{\"a\": 1}"),
                                      .payload = {"\0\1\2", 3},
                                      .cells = cells},
                              .dimension = 3,
                              .cell_count = 6,
                              .columns = columns};
    memcpy(record.collection, collection, sizeof collection);
    CHECK_OK(vexi_wal_record_write(&record, out, &at[0], &err));
    record.row = (vexi_row){.id = vexi_string_of("second"), .vector = vector};
    record.cell_count = 0;
    CHECK_OK(vexi_wal_record_write(&record, out, &at[1], &err));
    record.kind = VEXI_WAL_DELETE;
    record.row = (vexi_row){.id = vexi_string_of("first")};
    CHECK_OK(vexi_wal_record_write(&record, out, &at[2], &err));
    /* The first two are one group. */
    vexi_wal_record_seal_at(out->data + at[0], 100, at[0], at[0], at[2] - at[0]);
    vexi_wal_record_seal_at(out->data + at[1], 101, at[1], at[0], at[2] - at[1]);
    vexi_wal_record_seal_at(out->data + at[2], 102, at[2], at[2], out->size - at[2]);
}

static vex_status log_read(const vexi_buffer *file, size_t offset, vexi_wal_record *record,
                           vexi_arena *arena, vexi_wal_read *result, bool *later) {
    vex_error err;
    return vexi_wal_record_read(span_of(file), &offset, arena, record, result, later, &err);
}

TEST(log_files) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_buffer made = buffer_make();
    size_t at[3];
    log_make(&made, at);
    golden_same("log-v1.wal", &made);
    vexi_wal_header header;
    CHECK_OK(vexi_wal_header_read(span_of(&made), &header, &err));
    CHECK(strcmp(header.uuid, log_uuid) == 0 && header.number == 9);
    CHECK(header.first_sequence == 100 && header.previous_number == 7);
    CHECK(header.previous_cut == 4096);
    vexi_wal_record record;
    vexi_wal_read result;
    bool later;
    CHECK(log_read(&made, at[0], &record, &arena, &result, &later) == VEX_OK);
    CHECK(result == VEXI_WAL_RECORD && record.sequence == 100);
    CHECK(vexi_string_is(record.row.id, "first") && record.row.vector[1] == -2.25f);
    CHECK(record.cell_count == 6 && record.row.cells[5].is_null);
    CHECK_EQ(record.group_rest, at[2] - at[0]);
    CHECK(log_read(&made, at[2], &record, &arena, &result, &later) == VEX_OK);
    CHECK(record.kind == VEXI_WAL_DELETE && record.sequence == 102);
    CHECK(log_read(&made, made.size, &record, &arena, &result, &later) == VEX_OK);
    CHECK(result == VEXI_WAL_END);

    /* Acknowledged bytes that are damaged. */
    made.data[at[0] + 100] ^= 1;
    golden_same("log-v1-flipped-refused.wal", &made);
    CHECK(log_read(&made, at[0], &record, &arena, &result, &later) == VEX_OK);
    CHECK(result == VEXI_WAL_TORN && later);
    made.data[at[0] + 100] ^= 1;

    /* Vectors of another element type (2) in a whole record. */
    uint8_t *p = made.data + at[1];
    CHECK_EQ(vexi_get_u32(p + 80 + 8 + 6 + 8), 1);
    vexi_put_u32(p + 80 + 8 + 6 + 8, 2);
    vexi_put_u32(p + 72, vexi_crc32c(0, p + 80, vexi_wal_record_size(p) - 80));
    vexi_put_u32(p + 76, vexi_crc32c(0, p, 76));
    golden_same("log-v1-element-refused.wal", &made);
    CHECK(log_read(&made, at[1], &record, &arena, &result, &later) == VEX_UNSUPPORTED);

    /* A newer version. */
    vexi_buffer_clear(&made);
    log_make(&made, at);
    vexi_put_u32(made.data + 8, 2);
    vexi_put_u32(made.data + 60, vexi_crc32c(0, made.data, 60));
    golden_same("log-v2-refused.wal", &made);
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_wal_header_read(span_of(&made), &header, &err));
    vexi_buffer_deinit(&made);
    vexi_arena_deinit(&arena);
}

/* ---- Index files ----------------------------------------------------------------------------- */

/* Numbers that come out the same everywhere. */
static void index_make(index_fixture *f, uint32_t lists, vex_metric metric) {
    fixture_init(f, 40, 4, metric, lists);
    for (size_t i = 0; i < f->input.row_count; i++) {
        float *vector = (float *)(uintptr_t)f->input.rows[i]->vector;
        for (size_t k = 0; k < 4; k++) {
            vector[k] = (float)(i * 4 + k) / 8.0f;
        }
    }
    for (size_t i = 0; i < lists * (size_t)4; i++) {
        ((float *)(uintptr_t)f->input.centroids)[i] = (float)i / 4.0f;
    }
}

static vex_status index_open(const vexi_buffer *file, vexi_index_file *out, uint8_t **memory) {
    *memory = vexi_alloc_aligned(vex_test_env(), file->size);
    CHECK(*memory != NULL);
    memcpy(*memory, file->data, file->size);
    return vexi_index_open(vex_test_env(), vexi_span_of(*memory, file->size),
                           vexi_get_u32(file->data + VEXI_HEAD_SIZE),
                           vexi_get_u32(file->data + VEXI_HEAD_CRC), out, NULL);
}

static void index_refused(const char *name, const vexi_buffer *made, vex_status expected) {
    golden_same(name, made);
    vexi_index_file file;
    uint8_t *memory;
    vex_status status = index_open(made, &file, &memory);
    if (status == VEX_OK) {
        status = vexi_index_check_all(&file, NULL);
    }
    CHECK(status == expected);
    vexi_index_close(&file);
    vexi_free(vex_test_env(), memory);
}

static void head_mend(vexi_buffer *file) {
    uint32_t size = vexi_get_u32(file->data + VEXI_HEAD_SIZE);
    vexi_put_u32(file->data + VEXI_HEAD_CRC, vexi_index_head_crc(file->data, size));
}

/* What may be wrong with codes alone. */
static void index_codes_refused(vexi_buffer *made) {
    uint32_t head_size = vexi_get_u32(made->data + VEXI_HEAD_SIZE);
    made->data[head_size + 5] ^= 2; /* the codes are the first of the bulk */
    index_refused("index-v2-codes-flipped-refused.bin", made, VEX_CORRUPT);
    made->data[head_size + 5] ^= 2;
    vexi_put_u32(made->data + VEXI_HEAD_CODE_BITS, 3);
    head_mend(made);
    index_refused("index-v2-bits-refused.bin", made, VEX_UNSUPPORTED);
    vexi_put_u32(made->data + VEXI_HEAD_CODE_BITS, 8);
    head_mend(made);
    index_refused("index-v2-bits-size-refused.bin", made, VEX_CORRUPT);
    vexi_put_u32(made->data + VEXI_HEAD_CODE_BITS, 4);
    vexi_put_u32(made->data + VEXI_HEAD_CODE_PADDED, 128);
    head_mend(made);
    index_refused("index-v2-padded-refused.bin", made, VEX_CORRUPT);
}

TEST(index_files) {
    static const struct {
        const char *name;
        uint32_t lists;
        vex_metric metric;
        uint32_t bits;
    } kinds[] = {{"index-v2-codes-1.bin", 3, VEX_METRIC_IP, 1},
                 {"index-v2-codes-8.bin", 2, VEX_METRIC_COSINE, 8},
                 {"index-v2-codes-4.bin", 3, VEX_METRIC_L2, 4},
                 {"index-v1-flat.bin", 0, VEX_METRIC_COSINE, 0},
                 {"index-v1-ivf.bin", 3, VEX_METRIC_L2, 0}};
    vexi_buffer made = buffer_make();
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        index_fixture f;
        index_make(&f, kinds[i].lists, kinds[i].metric);
        if (kinds[i].bits > 0) {
            fixture_codes(&f, kinds[i].bits);
        }
        uint32_t head_size, head_crc;
        vexi_buffer_clear(&made);
        CHECK_OK(vexi_index_write(vex_test_env(), &f.input, &made, &head_size, &head_crc, &err));
        golden_same(kinds[i].name, &made);
        vexi_index_file file;
        uint8_t *memory;
        CHECK(index_open(&made, &file, &memory) == VEX_OK);
        CHECK_OK(vexi_index_check_all(&file, &err));
        CHECK(file.metric == kinds[i].metric && file.list_count == kinds[i].lists);
        CHECK_EQ(file.row_count, 40);
        CHECK_EQ(file.code_bits, kinds[i].bits);
        CHECK(kinds[i].bits == 0 || file.calibration[31] == 31 * 31 + 1);
        bool found;
        uint64_t row;
        vex_string id = f.input.rows[33]->id;
        CHECK_OK(vexi_index_find(&file, id, vexi_hash64(id.data, id.size), &found, &row, &err));
        CHECK(found && row == 33);
        vexi_index_close(&file);
        vexi_free(vex_test_env(), memory);
        fixture_deinit(&f);
        if (kinds[i].bits == 4) {
            index_codes_refused(&made);
        }
    }
    uint32_t head_size = vexi_get_u32(made.data + VEXI_HEAD_SIZE);
    made.data[head_size + 77] ^= 32;
    index_refused("index-v1-flipped-refused.bin", &made, VEX_CORRUPT);
    made.data[head_size + 77] ^= 32;
    made.data[VEXI_HEAD_ROW_COUNT] ^= 1;
    index_refused("index-v1-head-flipped-refused.bin", &made, VEX_CORRUPT);
    made.data[VEXI_HEAD_ROW_COUNT] ^= 1;
    made.data[VEXI_HEAD_ELEMENT] = 2; /* float16, say */
    head_mend(&made);
    index_refused("index-v1-element-refused.bin", &made, VEX_UNSUPPORTED);
    made.data[VEXI_HEAD_ELEMENT] = 1;
    vexi_put_u32(made.data + VEXI_HEAD_VERSION, 3);
    head_mend(&made);
    index_refused("index-v3-refused.bin", &made, VEX_UNSUPPORTED);
    vexi_buffer_deinit(&made);
}

/* ---- Graph files ----------------------------------------------------------------------------- */

static void graph_refused(const char *name, const vexi_buffer *made, vex_status expected) {
    golden_same(name, made);
    uint8_t *memory = vexi_alloc_aligned(vex_test_env(), made->size);
    CHECK(memory != NULL);
    memcpy(memory, made->data, made->size);
    vexi_graph_file file;
    vex_status status = vexi_graph_open(vexi_span_of(memory, made->size), &file, NULL);
    if (status == VEX_OK) {
        status = vexi_graph_check(&file, 0, file.block_count, NULL);
    }
    CHECK(status == expected);
    vexi_free(vex_test_env(), memory);
}

TEST(graph_files) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_graph_file input = graph_fixture(&arena, 9, 5, VEX_METRIC_COSINE, 32, 2, true);
    vexi_buffer made = buffer_make();
    CHECK_OK(vexi_graph_write_head(vex_test_env(), &input, &made, &err));
    size_t head_size = made.size;
    vexi_buffer_append(&made, input.nodes, (size_t)(input.row_count * input.node_size));
    graph_refused("graph-v1.bin", &made, VEX_OK);
    made.data[head_size + 100] ^= 4;
    graph_refused("graph-v1-flipped-refused.bin", &made, VEX_CORRUPT);
    made.data[head_size + 100] ^= 4;
    vexi_put_u32(made.data + 80, 64); /* degree */
    graph_mend(made.data);
    graph_refused("graph-v1-degree-refused.bin", &made, VEX_CORRUPT);
    vexi_put_u32(made.data + 80, 32);
    vexi_put_u32(made.data + VEXI_HEAD_VERSION, 2);
    graph_mend(made.data);
    graph_refused("graph-v2-refused.bin", &made, VEX_UNSUPPORTED);
    vexi_buffer_deinit(&made);
    vexi_arena_deinit(&arena);
}

TEST_MAIN(RUN(lake_format); RUN(commits); RUN(deletion_vector_files); RUN(log_files);
          RUN(index_files); RUN(graph_files))
