#include "check.h"

#include <jansson.h>

#include "format/delta_internal.h"

static vexi_arena arena_make(void) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    return arena;
}

static vexi_span text_span(const char *text) {
    return vexi_span_of(text, strlen(text));
}

static vex_status parse_text(const char *text, vexi_arena *arena, vexi_delta_commit *out,
                             vex_error *err) {
    return vexi_delta_parse(text_span(text), arena, out, err);
}

static const vexi_schema_column typed[] = {{{"count", 5}, VEX_TYPE_INT64},
                                           {{"price", 5}, VEX_TYPE_DOUBLE},
                                           {{"sec\"t\xc3\xa9", 7}, VEX_TYPE_STRING},
                                           {{"good", 4}, VEX_TYPE_BOOL},
                                           {{"at", 2}, VEX_TYPE_TIMESTAMP}};
static const vexi_schema our_schema = {.dimension = 384,
                                       .metric = VEX_METRIC_COSINE,
                                       .index = VEX_INDEX_HNSW,
                                       .recall = 0.97f,
                                       .bits = 8,
                                       .rotation_seed = UINT64_MAX,
                                       .column_count = 5,
                                       .columns = typed};

#define S(text) \
    { text, sizeof(text) - 1 }

/* ---- Names ----------------------------------------------------------------------------------- */

TEST(commit_names) {
    char name[26];
    static const int64_t versions[] = {0, 7, 1234567890123456789, INT64_MAX};
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
        vexi_delta_commit_name(versions[i], name);
        CHECK_EQ(strlen(name), 25);
        CHECK_EQ(vexi_delta_commit_version(name), versions[i]);
    }
    vexi_delta_commit_name(7, name);
    CHECK(strcmp(name, "00000000000000000007.json") == 0);
    static const char *const bad[] = {"",
                                      "7.json",
                                      "00000000000000000007.jsoN",
                                      "00000000000000000007.json.tmp",
                                      "0000000000000000000a.json",
                                      "-0000000000000000007.json",
                                      "99999999999999999999.json",
                                      "00000000000000000010.checkpoint.parquet",
                                      "_last_checkpoint"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_EQ(vexi_delta_commit_version(bad[i]), -1);
    }
}

TEST(folder_names) {
    vexi_arena arena = arena_make();
    static const struct {
        const char *name;
        const char *folder;
    } cases[] = {{"default", "default"}, {"a_b-9", "a_b-9"}, {"Default", "~44efault"},
                 {"..", "~2e~2e"},       {"a/b", "a~2fb"},   {"~", "~7e"},
                 {"\xc3\xa9", "~c3~a9"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *folder;
        CHECK_OK(vexi_folder_name(vexi_string_of(cases[i].name), &arena, &folder, &err));
        CHECK(strcmp(folder, cases[i].folder) == 0);
        vex_string name;
        CHECK_OK(vexi_folder_parse(folder, &arena, &name, &err));
        CHECK(vexi_string_is(name, cases[i].name));
    }
    static const char *const bad[] = {"",    ".vexlake", "A",   "a~",     "a~2", "~2E",
                                      "~61", "~00",      "~ff", "~c2~85", "a/b", "~7f"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vex_string name;
        CHECK_FAILS(VEX_INVALID, vexi_folder_parse(bad[i], &arena, &name, &err));
    }
    char longest[VEX_NAME_SIZE_MAX + 2];
    memset(longest, '/', sizeof longest);
    const char *folder;
    CHECK_OK(vexi_folder_name((vex_string){longest, VEX_NAME_SIZE_MAX}, &arena, &folder, &err));
    /* Too long for a file's name as ~hh: the long form, and back. */
    CHECK_EQ(strlen(folder), 2 + (VEX_NAME_SIZE_MAX * 8 + 4) / 5);
    CHECK(strncmp(folder, "~~", 2) == 0);
    vex_string back;
    CHECK_OK(vexi_folder_parse(folder, &arena, &back, &err));
    CHECK(vexi_string_equal(back, (vex_string){longest, VEX_NAME_SIZE_MAX}));
    CHECK_FAILS(VEX_INVALID, vexi_folder_parse("~~ge", &arena, &back, &err)); /* fits plainly */
    CHECK_FAILS(VEX_INVALID, vexi_folder_parse("~~1", &arena, &back, &err));
    CHECK_FAILS(VEX_INVALID, vexi_folder_name((vex_string){longest, VEX_NAME_SIZE_MAX + 1}, &arena,
                                              &folder, &err));
    CHECK_FAILS(VEX_INVALID, vexi_name_check((vex_string){NULL, 0}, &err));
    CHECK_FAILS(VEX_INVALID, vexi_name_check(vexi_string_of("a\nb"), &err));
    CHECK_FAILS(VEX_INVALID, vexi_name_check(vexi_string_of("\xc2\x80"), &err));
    CHECK_OK(vexi_name_check(vexi_string_of("\xc2\xa0"), &err));
    vexi_arena_deinit(&arena);
}

TEST(paths) {
    vexi_arena arena = arena_make();
    static const struct {
        const char *raw;
        const char *path;
        vex_status status;
    } cases[] = {{"a.parquet", "a.parquet", VEX_OK},
                 {"a%20b/%C3%A9.parquet", "a b/\xc3\xa9.parquet", VEX_OK},
                 {"a+b=c.parquet", "a+b=c.parquet", VEX_OK},
                 {"x%3Ay", "x:y", VEX_OK},
                 {"..a/b..", "..a/b..", VEX_OK},
                 {"/etc/passwd", NULL, VEX_UNSUPPORTED},
                 {"s3://bucket/key", NULL, VEX_UNSUPPORTED},
                 {"file:/a", NULL, VEX_UNSUPPORTED},
                 {"../a", NULL, VEX_CORRUPT},
                 {"a/../../b", NULL, VEX_CORRUPT},
                 {"a/%2e%2E/b", NULL, VEX_CORRUPT},
                 {"%2Fetc", NULL, VEX_CORRUPT},
                 {"a//b", NULL, VEX_CORRUPT},
                 {"./a", NULL, VEX_CORRUPT},
                 {"a/", NULL, VEX_CORRUPT},
                 {"", NULL, VEX_CORRUPT},
                 {"a%2", NULL, VEX_CORRUPT},
                 {"a%zz", NULL, VEX_CORRUPT},
                 {"a%00b", NULL, VEX_CORRUPT},
                 {"a%0ab", NULL, VEX_CORRUPT},
                 {"a%5Cb", NULL, VEX_CORRUPT},
                 {"%ff", NULL, VEX_CORRUPT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vex_string path;
        vex_error error;
        vex_status status = vexi_path_decode(vexi_string_of(cases[i].raw), &arena, &path, &error);
        CHECK_EQ(status, cases[i].status);
        if (status == VEX_OK) {
            CHECK(vexi_string_is(path, cases[i].path));
            vexi_buffer encoded;
            vexi_buffer_init(&encoded, vex_test_env(), 1000);
            vexi_path_encode(path, &encoded);
            vex_string again;
            vex_string text = {(const char *)encoded.data, encoded.size};
            CHECK(vexi_path_decode(text, &arena, &again, NULL) == VEX_OK);
            CHECK(vexi_string_equal(path, again));
            vexi_buffer_deinit(&encoded);
        }
    }
    vexi_arena_deinit(&arena);
}

/* ---- Writing and reading --------------------------------------------------------------------- */

static vexi_delta_commit full_commit(vexi_arena *arena) {
    static vexi_delta_add adds[2];
    static vexi_delta_remove removes[1];
    static vexi_delta_txn txns[1];
    adds[0] = (vexi_delta_add){
        .path = S("seg one.parquet"),
        .size_bytes = 12345,
        .modification_time_ms = 1700000000001,
        .row_count = 1000,
        .data_change = true,
        .dv = {'i', S("wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"), 0, 40, 6},
        .index = {S("index/x.ivf.bin"), 777, 640, 0x00c0ffee}};
    adds[1] = (vexi_delta_add){
        .path = S("b.parquet"), .raw_path = S("%62.parquet"), .size_bytes = 1, .row_count = -1};
    removes[0] = (vexi_delta_remove){.path = S("old.parquet"),
                                     .deletion_timestamp_ms = 1700000000002,
                                     .data_change = true,
                                     .size_bytes = 99,
                                     .dv = {'u', S("ab^-aqEH.-t@S}K{vb[*k^"), 1, 40, 6}};
    txns[0] = (vexi_delta_txn){S("log-uuid"), 42};
    vexi_delta_commit commit = {.adds = adds,
                                .add_count = 2,
                                .removes = removes,
                                .remove_count = 1,
                                .txns = txns,
                                .txn_count = 1,
                                .operation = S("WRITE"),
                                .attempt_id = S("attempt-1"),
                                .timestamp_ms = 1700000000003};
    commit.protocol =
        (vexi_delta_protocol){.reader_version = 3, .writer_version = 7, .deletion_vectors = true};
    commit.metadata = (vexi_delta_metadata){.id = S("11111111-2222-4333-8444-555555555555"),
                                            .name = S("na\"m\\e\n"),
                                            .created_time_ms = 1690000000000,
                                            .schema = our_schema};
    CHECK_OK(vexi_delta_configure(&our_schema, true, false, arena, &commit.metadata.configuration,
                                  &commit.metadata.configuration_count, &err));
    return commit;
}

static void check_dv(const vexi_delta_dv *a, const vexi_delta_dv *b) {
    CHECK(vexi_dv_equal(a, b));
    CHECK(a->size_bytes == b->size_bytes && a->cardinality == b->cardinality);
}

static void check_schema(const vexi_schema *a, const vexi_schema *b) {
    CHECK_EQ(a->dimension, b->dimension);
    CHECK(a->metric == b->metric && a->index == b->index);
    CHECK(a->recall == b->recall && a->bits == b->bits && a->rotation_seed == b->rotation_seed);
    CHECK_EQ(a->column_count, b->column_count);
    for (uint32_t i = 0; i < a->column_count; i++) {
        CHECK(vexi_string_equal(a->columns[i].name, b->columns[i].name));
        CHECK(a->columns[i].type == b->columns[i].type);
    }
}

static void check_commit(const vexi_delta_commit *a, const vexi_delta_commit *b) {
    CHECK(vexi_string_equal(a->operation, b->operation));
    CHECK(vexi_string_equal(a->attempt_id, b->attempt_id));
    CHECK_EQ(a->timestamp_ms, b->timestamp_ms);
    CHECK_EQ(a->protocol.reader_version, b->protocol.reader_version);
    CHECK_EQ(a->protocol.writer_version, b->protocol.writer_version);
    CHECK(a->protocol.deletion_vectors == b->protocol.deletion_vectors);
    CHECK(vexi_string_equal(a->metadata.id, b->metadata.id));
    CHECK(vexi_string_equal(a->metadata.name, b->metadata.name));
    CHECK_EQ(a->metadata.created_time_ms, b->metadata.created_time_ms);
    check_schema(&a->metadata.schema, &b->metadata.schema);
    CHECK_EQ(a->metadata.configuration_count, b->metadata.configuration_count);
    for (size_t i = 0; i < a->metadata.configuration_count; i++) {
        const vexi_delta_pair *pair = &a->metadata.configuration[i];
        CHECK(vexi_string_equal(vexi_delta_configured(&b->metadata, pair->key.data), pair->value));
    }
    CHECK_EQ(a->txn_count, b->txn_count);
    for (size_t i = 0; i < a->txn_count; i++) {
        CHECK(vexi_string_equal(a->txns[i].app_id, b->txns[i].app_id));
        CHECK_EQ(a->txns[i].version, b->txns[i].version);
    }
    CHECK_EQ(a->remove_count, b->remove_count);
    for (size_t i = 0; i < a->remove_count; i++) {
        CHECK(vexi_string_equal(a->removes[i].path, b->removes[i].path));
        CHECK_EQ(a->removes[i].deletion_timestamp_ms, b->removes[i].deletion_timestamp_ms);
        CHECK(a->removes[i].data_change == b->removes[i].data_change);
        CHECK_EQ(a->removes[i].size_bytes, b->removes[i].size_bytes);
        check_dv(&a->removes[i].dv, &b->removes[i].dv);
    }
    CHECK_EQ(a->add_count, b->add_count);
    for (size_t i = 0; i < a->add_count; i++) {
        const vexi_delta_add *x = &a->adds[i];
        const vexi_delta_add *y = &b->adds[i];
        CHECK(vexi_string_equal(x->path, y->path));
        CHECK(vexi_string_equal(x->raw_path, y->raw_path));
        CHECK_EQ(x->size_bytes, y->size_bytes);
        CHECK_EQ(x->modification_time_ms, y->modification_time_ms);
        CHECK_EQ(x->row_count, y->row_count);
        CHECK(x->data_change == y->data_change);
        check_dv(&x->dv, &y->dv);
        CHECK(vexi_string_equal(x->index.path, y->index.path));
        CHECK_EQ(x->index.size_bytes, y->index.size_bytes);
        CHECK_EQ(x->index.head_size, y->index.head_size);
        CHECK_EQ(x->index.head_crc, y->index.head_crc);
    }
}

TEST(round_trip) {
    vexi_arena arena = arena_make();
    vexi_delta_commit commit = full_commit(&arena);
    vexi_buffer out, again;
    vexi_buffer_init(&out, vex_test_env(), 1 << 20);
    vexi_buffer_init(&again, vex_test_env(), 1 << 20);
    CHECK_OK(vexi_delta_write(&commit, &out, &err));
    vexi_delta_commit parsed;
    CHECK_OK(vexi_delta_parse(vexi_span_of(out.data, out.size), &arena, &parsed, &err));
    check_commit(&commit, &parsed);
    /* What was read, written again, says the same; the schema text comes back as it was. */
    CHECK_OK(vexi_delta_write(&parsed, &again, &err));
    vexi_delta_commit twice;
    CHECK_OK(vexi_delta_parse(vexi_span_of(again.data, again.size), &arena, &twice, &err));
    check_commit(&commit, &twice);
    CHECK(vexi_string_equal(parsed.metadata.schema_string, twice.metadata.schema_string));
    vexi_buffer_deinit(&out);
    vexi_buffer_deinit(&again);
    vexi_arena_deinit(&arena);
}

/* What other engines look for, read with a parser that is not ours. */
TEST(written_json) {
    vexi_arena arena = arena_make();
    vexi_delta_commit commit = full_commit(&arena);
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1 << 20);
    CHECK_OK(vexi_delta_write(&commit, &out, &err));
    static const char *const order[] = {"commitInfo", "protocol", "metaData", "txn",
                                        "remove",     "add",      "add"};
    json_t *lines[7];
    const char *line = (const char *)out.data;
    for (size_t i = 0; i < 7; i++) {
        const char *end = memchr(line, '\n', out.size - (size_t)(line - (const char *)out.data));
        CHECK(end != NULL);
        json_t *object = json_loadb(line, (size_t)(end - line), JSON_REJECT_DUPLICATES, NULL);
        CHECK(object != NULL && json_object_size(object) == 1);
        lines[i] = json_incref(json_object_get(object, order[i]));
        CHECK(lines[i] != NULL);
        json_decref(object);
        line = end + 1;
    }
    CHECK(line == (const char *)out.data + out.size);
    const json_t *metadata = lines[2];
    CHECK(json_is_object(json_object_get(json_object_get(metadata, "format"), "options")));
    CHECK_EQ(json_array_size(json_object_get(metadata, "partitionColumns")), 0);
    const json_t *configuration = json_object_get(metadata, "configuration");
    CHECK(strcmp(json_string_value(json_object_get(configuration, "delta.enableDeletionVectors")),
                 "true") == 0);
    CHECK(strcmp(json_string_value(json_object_get(configuration, "vexlake.rotationSeed")),
                 "18446744073709551615") == 0);
    CHECK(strcmp(json_string_value(json_object_get(configuration, "vexlake.recall")), "0.97") == 0);
    CHECK(strcmp(json_string_value(json_object_get(configuration, "vexlake.bits")), "8") == 0);
    CHECK(strcmp(json_string_value(json_object_get(configuration, "vexlake.index")), "hnsw") == 0);
    json_t *schema =
        json_loads(json_string_value(json_object_get(metadata, "schemaString")), 0, NULL);
    const json_t *fields = json_object_get(schema, "fields");
    CHECK_EQ(json_array_size(fields), 9);
    for (size_t i = 0; i < 9; i++) {
        const json_t *field = json_array_get(fields, i);
        CHECK(json_is_object(json_object_get(field, "metadata")));
        CHECK(json_is_true(json_object_get(field, "nullable")));
    }
    json_decref(schema);
    CHECK_EQ(json_array_size(json_object_get(lines[1], "readerFeatures")), 1);
    CHECK_EQ(json_array_size(json_object_get(lines[1], "writerFeatures")), 1);
    CHECK(json_is_integer(json_object_get(lines[4], "deletionTimestamp")));
    CHECK_EQ(
        json_integer_value(json_object_get(json_object_get(lines[4], "deletionVector"), "offset")),
        1);
    CHECK(strcmp(json_string_value(json_object_get(lines[5], "path")), "seg%20one.parquet") == 0);
    CHECK(strcmp(json_string_value(json_object_get(lines[5], "stats")),
                 "{\"numRecords\":1000,\"tightBounds\":false}") == 0);
    CHECK(json_is_object(json_object_get(lines[5], "partitionValues")));
    CHECK(json_object_get(json_object_get(lines[5], "deletionVector"), "offset") == NULL);
    CHECK(strcmp(json_string_value(json_object_get(lines[6], "path")), "%62.parquet") == 0);
    CHECK(json_object_get(lines[6], "stats") == NULL);
    for (size_t i = 0; i < 7; i++) {
        json_decref(lines[i]);
    }
    /* Without vectors there are no feature lists. */
    vexi_buffer_clear(&out);
    commit.protocol = (vexi_delta_protocol){.reader_version = 1, .writer_version = 2};
    CHECK_OK(vexi_delta_write(&commit, &out, &err));
    vexi_buffer_u8(&out, 0);
    CHECK(strstr((const char *)out.data, "{\"protocol\":{\"minReaderVersion\":1,"
                                         "\"minWriterVersion\":2}}") != NULL);
    /* Bytes that are no text are refused. */
    vexi_buffer_clear(&out);
    commit.metadata.name = (vex_string){"\xff", 1};
    CHECK_FAILS(VEX_INVALID, vexi_delta_write(&commit, &out, &err));
    vexi_buffer_deinit(&out);
    vexi_arena_deinit(&arena);
}

#define PROTOCOL "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":2}}\n"
#define METADATA(fields, configuration)                                                 \
    "{\"metaData\":{\"id\":\"m\",\"format\":{\"provider\":\"parquet\",\"options\":{}}," \
    "\"schemaString\":\"{\\\"type\\\":\\\"struct\\\",\\\"fields\\\":[" fields "]}\","   \
    "\"partitionColumns\":[],\"configuration\":{" configuration "},\"createdTime\":1}}\n"
#define FIELD(name, type)                               \
    "{\\\"name\\\":\\\"" name "\\\",\\\"type\\\":" type \
    ",\\\"nullable\\\":true,\\\"metadata\\\":{}}"
#define TYPE(text) "\\\"" text "\\\""
#define ARRAY(element)                                                                          \
    "{\\\"type\\\":\\\"array\\\",\\\"elementType\\\":\\\"" element "\\\",\\\"containsNull\\\":" \
    "true}"
#define FIXED                                                                              \
    FIELD("id", TYPE("string"))                                                            \
    "," FIELD("vector", ARRAY("float")) "," FIELD("attributes", TYPE("string")) "," FIELD( \
        "payload", TYPE("binary"))
#define DIMENSION "\"vexlake.dimension\":\"3\""

TEST(foreign_commits) {
    vexi_arena arena = arena_make();
    vexi_delta_commit commit;
    /* Unknown fields and actions are ignored; stats may hold anything. */
    CHECK_OK(parse_text(
        "{\"commitInfo\":{\"timestamp\":\"late\",\"operation\":5,\"x\":[{}]}}\r\n"
        "\n"
        "{\"cdc\":{\"path\":\"/abs\"}}\n"
        "{\"domainMetadata\":{\"domain\":\"d\",\"configuration\":\"\",\"removed\":false}}\n"
        "{\"add\":{\"path\":\"p%20q.parquet\",\"partitionValues\":{\"a\":null},\"size\":10,"
        "\"modificationTime\":5,\"dataChange\":false,\"stats\":\"{\\\"numRecords\\\":3,"
        "\\\"maxValues\\\":{\\\"x\\\":99999999999999999999}}\",\"baseRowId\":7,"
        "\"tags\":null,\"deletionVector\":null}}\n"
        "{\"add\":{\"path\":\"q.parquet\",\"size\":1,\"stats\":\"{broken\",\"tags\":{"
        "\"vexlake.index.path\":\"../x\",\"vexlake.index.size\":\"1\"}}}\n"
        "{\"remove\":{\"path\":\"r.parquet\",\"dataChange\":true,\"deletionVector\":{"
        "\"storageType\":\"u\",\"pathOrInlineDv\":\"x\",\"sizeInBytes\":1,"
        "\"cardinality\":1}}}",
        &arena, &commit, &err));
    CHECK_EQ(commit.add_count, 2);
    CHECK(vexi_string_is(commit.adds[0].path, "p q.parquet"));
    CHECK(commit.adds[0].raw_path.data == NULL && !commit.adds[0].data_change);
    CHECK_EQ(commit.adds[0].row_count, 3);
    CHECK_EQ(commit.adds[1].row_count, -1);
    CHECK(commit.adds[1].index.path.data == NULL);
    CHECK_EQ(commit.remove_count, 1);
    CHECK_EQ(commit.removes[0].dv.offset, 1);
    CHECK(commit.operation.data == NULL && commit.attempt_id.data == NULL);

    /* A table that is not ours. */
    CHECK_OK(parse_text(METADATA(FIELD("id", TYPE("long")) "," FIELD("x", TYPE("integer")), ""),
                        &arena, &commit, &err));
    CHECK_EQ(commit.metadata.schema.dimension, 0);
    /* Ours, with columns added by another engine: those of our types count. */
    CHECK_OK(parse_text(
        METADATA(FIXED "," FIELD("a", TYPE("long")) "," FIELD("b", TYPE("date")) "," FIELD(
                     "c", ARRAY("long")) "," FIELD("d", TYPE("boolean")),
                 DIMENSION),
        &arena, &commit, &err));
    CHECK_EQ(commit.metadata.schema.dimension, 3);
    CHECK_EQ(commit.metadata.schema.column_count, 2);
    CHECK(vexi_string_is(commit.metadata.schema.columns[1].name, "d"));
    CHECK(commit.metadata.schema.metric == VEX_METRIC_L2);
    /* Features that ask nothing of us. */
    CHECK_OK(parse_text("{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7,"
                        "\"readerFeatures\":[\"timestampNtz\",\"v2Checkpoint\",\"columnMapping\"],"
                        "\"writerFeatures\":[\"rowTracking\"]}}",
                        &arena, &commit, &err));
    CHECK(!commit.protocol.deletion_vectors && commit.protocol.writer_feature_count == 1);
    vexi_arena_deinit(&arena);
}

TEST(refused_commits) {
    static const struct {
        const char *text;
        vex_status status;
    } cases[] = {
        {"", VEX_CORRUPT},
        {"\n\n", VEX_CORRUPT},
        {"{\"add\":{\"path\":\"a\",\"size\":1}", VEX_CORRUPT},
        {"[]", VEX_CORRUPT},
        {"{\"add\":[]}", VEX_CORRUPT},
        {"{\"add\":{\"size\":1}}", VEX_CORRUPT},
        {"{\"add\":{\"path\":7,\"size\":1}}", VEX_CORRUPT},
        {"{\"add\":{\"path\":\"a\"}}", VEX_CORRUPT},
        {"{\"add\":{\"path\":\"a\",\"size\":-1}}", VEX_CORRUPT},
        {"{\"add\":{\"path\":\"a\",\"size\":1.5}}", VEX_CORRUPT},
        {"{\"add\":{\"path\":\"a\",\"size\":99999999999999999999}}", VEX_CORRUPT},
        {"{\"add\":{\"path\":\"a\",\"size\":1,\"dataChange\":1}}", VEX_CORRUPT},
        {"{\"add\":{\"path\":\"../a\",\"size\":1}}", VEX_CORRUPT},
        {"{\"add\":{\"path\":\"s3://b/a\",\"size\":1}}", VEX_UNSUPPORTED},
        {"{\"remove\":{\"path\":\"/a\"}}", VEX_UNSUPPORTED},
        {"{\"add\":{\"path\":\"a\",\"size\":1,\"deletionVector\":{\"storageType\":\"q\","
         "\"pathOrInlineDv\":\"x\",\"sizeInBytes\":1,\"cardinality\":1}}}",
         VEX_UNSUPPORTED},
        {"{\"add\":{\"path\":\"a\",\"size\":1,\"deletionVector\":{\"storageType\":\"u\","
         "\"pathOrInlineDv\":\"x\",\"sizeInBytes\":-1,\"cardinality\":1}}}",
         VEX_CORRUPT},
        {"{\"add\":{\"path\":\"a\",\"size\":1,\"deletionVector\":{}}}", VEX_CORRUPT},
        {"{\"txn\":{\"appId\":\"a\"}}", VEX_CORRUPT},
        {"{\"protocol\":{\"minReaderVersion\":4,\"minWriterVersion\":7}}", VEX_UNSUPPORTED},
        {"{\"protocol\":{\"minReaderVersion\":0,\"minWriterVersion\":7}}", VEX_CORRUPT},
        {"{\"protocol\":{\"minReaderVersion\":3,\"minWriterVersion\":7,\"readerFeatures\":"
         "[\"typeWidening\"]}}",
         VEX_UNSUPPORTED},
        {METADATA(FIXED, DIMENSION ",\"delta.columnMapping.mode\":\"name\""), VEX_UNSUPPORTED},
        {METADATA(FIXED, DIMENSION ",\"vexlake.formatVersion\":\"2\""), VEX_UNSUPPORTED},
        {METADATA(FIXED, DIMENSION ",\"vexlake.formatVersion\":\"0\""), VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.metric\":\"hamming\""), VEX_UNSUPPORTED},
        {METADATA(FIXED, DIMENSION ",\"vexlake.index\":\"x\""), VEX_UNSUPPORTED},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"0\""), VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"0.000\""), VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"1.01\""), VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"-0.9\""), VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"0,9\""), VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"0.9.5\""), VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"0.9999999999\""), VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"\""), VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.bits\":\"2\""), VEX_UNSUPPORTED},
        {METADATA(FIXED, DIMENSION ",\"vexlake.bits\":\"0\""), VEX_UNSUPPORTED},
        {METADATA(FIXED, DIMENSION ",\"vexlake.bits\":\"x\""), VEX_UNSUPPORTED},
        {METADATA(FIXED, DIMENSION ",\"vexlake.rotationSeed\":\"18446744073709551616\""),
         VEX_CORRUPT},
        {METADATA(FIXED, DIMENSION ",\"vexlake.rotationSeed\":\"-1\""), VEX_CORRUPT},
        {METADATA(FIXED, "\"vexlake.dimension\":\"4097\""), VEX_CORRUPT},
        {METADATA(FIXED, "\"vexlake.dimension\":\"0\""), VEX_CORRUPT},
        {METADATA(FIXED, "\"vexlake.dimension\":\"-3\""), VEX_CORRUPT},
        {METADATA(FIXED "," FIELD("a", TYPE("long")) "," FIELD("a", TYPE("long")), DIMENSION),
         VEX_CORRUPT},
        {METADATA(FIELD("id", TYPE("long")), DIMENSION), VEX_UNSUPPORTED},
        {METADATA(FIELD("id", TYPE("string")), DIMENSION), VEX_UNSUPPORTED},
        {METADATA(FIELD("id", TYPE("string")) "," FIELD("vector", ARRAY("double")), DIMENSION),
         VEX_UNSUPPORTED},
        {METADATA("", "") METADATA("", ""), VEX_CORRUPT},
        {PROTOCOL PROTOCOL, VEX_CORRUPT},
        {"{\"metaData\":{\"id\":\"m\",\"schemaString\":\"[]\"}}", VEX_CORRUPT},
        {"{\"metaData\":{\"id\":\"m\",\"schemaString\":\"{\\\"fields\\\":[]}\","
         "\"partitionColumns\":[\"d\"]}}",
         VEX_UNSUPPORTED},
        {"{\"metaData\":{\"id\":\"m\",\"schemaString\":\"{\\\"fields\\\":[]}\","
         "\"format\":{\"provider\":\"orc\"}}}",
         VEX_UNSUPPORTED},
    };
    vexi_arena arena = arena_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vexi_delta_commit commit;
        vex_error error;
        vex_status status = parse_text(cases[i].text, &arena, &commit, &error);
        if (status != cases[i].status) {
            fprintf(stderr, "case %zu: %s: %s\n", i, cases[i].text, vex_status_text(status));
        }
        CHECK(status == cases[i].status);
        CHECK(commit.add_count == 0 && commit.metadata.id.data == NULL);
    }
    vexi_arena_deinit(&arena);
}

/* Settings of codes: absent ones have their defaults, others come through as text and back. */
TEST(code_settings) {
    static const struct {
        const char *text;
        float recall;
        uint32_t bits;
        uint64_t seed;
    } cases[] = {
        {METADATA(FIXED, DIMENSION), VEX_RECALL_DEFAULT, VEXI_SCHEMA_BITS_DEFAULT, 0},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"1\",\"vexlake.bits\":\"1\""), 1, 1, 0},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"1.000\",\"vexlake.bits\":\"4\""), 1, 4,
         0},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"0.999999999\",\"vexlake.rotationSeed\":"
                                   "\"18446744073709551615\""),
         0.999999999f, VEXI_SCHEMA_BITS_DEFAULT, UINT64_MAX},
        {METADATA(FIXED, DIMENSION ",\"vexlake.recall\":\"0.5\",\"vexlake.rotationSeed\":\"7\""),
         0.5f, VEXI_SCHEMA_BITS_DEFAULT, 7},
    };
    vexi_arena arena = arena_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vexi_delta_commit commit;
        CHECK_OK(parse_text(cases[i].text, &arena, &commit, &err));
        const vexi_schema *schema = &commit.metadata.schema;
        CHECK(schema->recall == cases[i].recall && schema->bits == cases[i].bits &&
              schema->rotation_seed == cases[i].seed);
    }
    static const struct {
        float recall;
        const char *text;
    } recalls[] = {{1, "1.0"}, {0.95f, "0.95"}, {0.999f, "0.999"}, {1e-9f, "0.000001"}, {0, NULL}};
    for (size_t i = 0; i < sizeof recalls / sizeof *recalls; i++) {
        vexi_schema schema = our_schema;
        schema.recall = recalls[i].recall;
        schema.bits = 0;
        vexi_delta_metadata metadata = {.schema = schema};
        CHECK_OK(vexi_delta_configure(&schema, false, false, &arena, &metadata.configuration,
                                      &metadata.configuration_count, &err));
        vex_string value = vexi_delta_configured(&metadata, "vexlake.recall");
        CHECK(recalls[i].text == NULL ? value.data == NULL
                                      : vexi_string_is(value, recalls[i].text));
        CHECK(vexi_delta_configured(&metadata, "vexlake.bits").data == NULL);
    }
    vexi_arena_deinit(&arena);
}

TEST(too_deep_or_too_many) {
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE + 1);
    CHECK(text != NULL);
    vexi_arena arena = arena_make();
    vexi_delta_commit commit;
    memset(text, '[', SIZE);
    text[SIZE] = '\0';
    CHECK_FAILS(VEX_CORRUPT, parse_text(text, &arena, &commit, &err));
    memset(text, ',', SIZE);
    memcpy(text, "[1", 2);
    CHECK_FAILS(VEX_CORRUPT, parse_text(text, &arena, &commit, &err));
    /* Brackets inside strings do not count. */
    memset(text, '[', SIZE);
    memcpy(text, "{\"x\":\"", 6);
    memcpy(text + SIZE - 2, "\"}", 2);
    CHECK_OK(parse_text(text, &arena, &commit, &err));
    free(text);
    vexi_arena_deinit(&arena);
}

/* ---- State ----------------------------------------------------------------------------------- */

static void apply_text(vexi_delta_state *state, const char *text) {
    vexi_arena arena = arena_make();
    vexi_delta_commit commit;
    CHECK_OK(parse_text(text, &arena, &commit, &err));
    CHECK_OK(vexi_delta_state_apply(state, &commit, &err));
    vexi_arena_deinit(&arena); /* the state keeps copies */
}

static void apply_fails(vexi_delta_state *state, const char *text, vex_status expected) {
    vexi_arena arena = arena_make();
    vexi_delta_commit commit;
    int64_t version = state->version;
    size_t file_count = state->file_count;
    CHECK_OK(parse_text(text, &arena, &commit, &err));
    CHECK_FAILS(expected, vexi_delta_state_apply(state, &commit, &err));
    CHECK(state->version == version && state->file_count == file_count);
    vexi_arena_deinit(&arena);
}

#define ADD(path) "{\"add\":{\"path\":\"" path "\",\"size\":1}}\n"
#define DV(data)                                                                  \
    ",\"deletionVector\":{\"storageType\":\"i\",\"pathOrInlineDv\":\"" data "\"," \
    "\"sizeInBytes\":4,\"cardinality\":1}"
#define ADD_DV(path, data)    "{\"add\":{\"path\":\"" path "\",\"size\":1" DV(data) "}}\n"
#define REMOVE(path)          "{\"remove\":{\"path\":\"" path "\"}}\n"
#define REMOVE_DV(path, data) "{\"remove\":{\"path\":\"" path "\"" DV(data) "}}\n"

TEST(state_of_files) {
    vexi_delta_state state;
    vexi_delta_state_init(&state, vex_test_env());
    apply_fails(&state, ADD("a"), VEX_CORRUPT); /* no metaData */
    apply_text(&state, PROTOCOL METADATA(FIXED, DIMENSION));
    CHECK(state.version == 0 && state.metadata.schema.dimension == 3);
    apply_text(&state, ADD("a") ADD("b") ADD("c"));
    apply_text(&state, ADD("d"));
    CHECK_EQ(state.file_count, 4);
    /* A new vector keeps place and age. */
    apply_text(&state, ADD_DV("b", "v1") REMOVE("b"));
    CHECK_EQ(state.file_count, 4);
    CHECK(vexi_string_is(state.files[1].add.path, "b"));
    CHECK(vexi_string_is(state.files[1].add.dv.encoded, "v1"));
    CHECK_EQ(state.files[1].added_version, 1);
    /* A remove with another vector means another file, that is not there. */
    apply_text(&state, REMOVE("b"));
    apply_text(&state, REMOVE_DV("b", "v0") REMOVE("zzz"));
    CHECK_EQ(state.file_count, 4);
    apply_text(&state, REMOVE_DV("b", "v1") ADD_DV("b", "v2"));
    CHECK(vexi_string_is(state.files[1].add.dv.encoded, "v2"));
    apply_text(&state, REMOVE_DV("b", "v2") REMOVE("a"));
    CHECK_EQ(state.file_count, 2);
    CHECK(vexi_string_is(state.files[0].add.path, "c"));
    /* Removed and added again: a new file. */
    apply_text(&state, ADD("a"));
    CHECK(vexi_string_is(state.files[2].add.path, "a"));
    CHECK_EQ(state.files[2].added_version, state.version);
    /* The same key again replaces it. */
    apply_text(&state, "{\"add\":{\"path\":\"c\",\"size\":77}}");
    CHECK_EQ(state.files[0].add.size_bytes, 77);
    CHECK_EQ(state.files[0].added_version, 1);
    CHECK_EQ(state.file_count, 3);
    apply_fails(&state, ADD("e") ADD("e"), VEX_CORRUPT);
    apply_fails(&state, ADD("e") ADD_DV("c", "v9"), VEX_CORRUPT);
    vexi_delta_state_deinit(&state);
}

TEST(state_of_transactions_and_drops) {
    vexi_delta_state state;
    vexi_delta_state_init(&state, vex_test_env());
    apply_text(&state,
               PROTOCOL METADATA(FIXED, DIMENSION) "{\"txn\":{\"appId\":\"x\",\"version\":5}}\n"
                                                   "{\"txn\":{\"appId\":\"y\",\"version\":1}}\n");
    CHECK_EQ(vexi_delta_state_txn(&state, vexi_string_of("x")), 5);
    CHECK_EQ(vexi_delta_state_txn(&state, vexi_string_of("z")), -1);
    apply_text(&state, "{\"txn\":{\"appId\":\"x\",\"version\":9}}");
    CHECK_EQ(vexi_delta_state_txn(&state, vexi_string_of("x")), 9);
    CHECK_EQ(state.txn_count, 2);
    apply_text(&state, METADATA(FIXED, DIMENSION ",\"vexlake.dropped\":\"true\""));
    CHECK(state.dropped);
    CHECK_EQ(state.txn_count, 2); /* the same table still */
    /* VCREATE: another id, nothing of the old one is left. */
    apply_text(&state, "{\"metaData\":{\"id\":\"n\",\"schemaString\":\"{\\\"fields\\\":[]}\"}}\n"
                       "{\"txn\":{\"appId\":\"w\",\"version\":3}}\n");
    CHECK(!state.dropped);
    CHECK_EQ(state.txn_count, 1);
    CHECK_EQ(vexi_delta_state_txn(&state, vexi_string_of("x")), -1);
    CHECK_EQ(vexi_delta_state_txn(&state, vexi_string_of("w")), 3);
    vexi_delta_state_deinit(&state);
}

TEST(state_writable) {
    static const struct {
        const char *text;
        vex_status status;
    } cases[] = {
        {PROTOCOL METADATA(FIXED, DIMENSION), VEX_OK},
        {PROTOCOL METADATA(FIXED, DIMENSION ",\"delta.appendOnly\":\"true\""), VEX_UNSUPPORTED},
        {PROTOCOL METADATA(FIXED, DIMENSION ",\"delta.appendOnly\":\"false\""), VEX_OK},
        {PROTOCOL METADATA(FIXED, DIMENSION ",\"delta.enableChangeDataFeed\":\"true\""),
         VEX_UNSUPPORTED},
        {PROTOCOL METADATA(FIXED, DIMENSION ",\"delta.constraints.a\":\"x > 1\""), VEX_UNSUPPORTED},
        {"{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":7,\"writerFeatures\":"
         "[\"appendOnly\",\"invariants\"]}}\n" METADATA(FIXED, DIMENSION),
         VEX_OK},
        {"{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":7,\"writerFeatures\":"
         "[\"rowTracking\"]}}\n" METADATA(FIXED, DIMENSION),
         VEX_UNSUPPORTED},
        {"{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":8}}\n" METADATA(FIXED,
                                                                                     DIMENSION),
         VEX_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vexi_delta_state state;
        vexi_delta_state_init(&state, vex_test_env());
        apply_text(&state, cases[i].text);
        vex_error error;
        CHECK_EQ(vexi_delta_state_writable(&state, &error), cases[i].status);
        vexi_delta_state_deinit(&state);
    }
}

/* An environment whose n-th allocation from now on fails. */
static vexi_env failing;
static int64_t allocations_left;

static void *failing_allocate(void *context, size_t alignment, size_t size) {
    (void)context;
    if (allocations_left-- <= 0) {
        return NULL;
    }
    return vex_test_env()->allocate(vex_test_env()->context, alignment, size);
}

static void failing_release(void *context, void *pointer) {
    (void)context;
    vex_test_env()->release(vex_test_env()->context, pointer);
}

/* Whichever allocation fails, the state is as it was, and the same commit applies afterwards. */
TEST(state_without_memory) {
    failing = *vex_test_env();
    failing.allocate = failing_allocate;
    failing.release = failing_release;
    static const char next[] =
        METADATA(FIXED, DIMENSION ",\"vexlake.dropped\":\"true\"") ADD_DV("a", "v1") REMOVE("a")
            REMOVE("b") ADD("c") "{\"txn\":{\"appId\":\"x\",\"version\":9}}\n";
    vexi_arena arena = arena_make();
    vexi_delta_commit commit;
    CHECK_OK(parse_text(next, &arena, &commit, &err));
    size_t failure_count = 0;
    for (int64_t n = 0;; n++) {
        vexi_delta_state state;
        vexi_delta_state_init(&state, &failing);
        allocations_left = INT64_MAX;
        apply_text(&state, PROTOCOL METADATA(FIXED, DIMENSION) ADD("a") ADD("b"));
        /* Leave no room in the arena, so that copies need memory. */
        CHECK(vexi_arena_alloc(&state.arena, state.arena.left_size - 64) != NULL);
        allocations_left = n;
        vex_error error;
        vex_status status = vexi_delta_state_apply(&state, &commit, &error);
        allocations_left = INT64_MAX;
        if (status != VEX_OK) {
            CHECK(status == VEX_MEMORY);
            CHECK(state.version == 0 && state.file_count == 2 && state.txn_count == 0);
            CHECK(!state.dropped && state.files[0].add.dv.storage == 0);
            CHECK_OK(vexi_delta_state_apply(&state, &commit, &err));
            failure_count++;
        }
        CHECK(state.version == 1 && state.file_count == 2 && state.dropped);
        CHECK(vexi_string_is(state.files[1].add.path, "c"));
        vexi_delta_state_deinit(&state);
        if (status == VEX_OK) {
            break;
        }
    }
    CHECK(failure_count >= 5);
    vexi_arena_deinit(&arena);
}

/* Random commits against a model that is a plain list. */
TEST(state_against_a_model) {
    enum { PATHS = 40 };
    uint64_t seed = vex_test_seed(11);
    for (uint64_t round = 0; round < vex_test_effort(20); round++) {
        vexi_delta_state state;
        vexi_delta_state_init(&state, vex_test_env());
        apply_text(&state, PROTOCOL METADATA(FIXED, DIMENSION));
        int64_t added[PATHS];
        uint64_t vector[PATHS] = {0};
        for (size_t p = 0; p < PATHS; p++) {
            added[p] = -1;
        }
        for (int64_t version = 1; version < 60; version++) {
            vexi_delta_add adds[PATHS];
            vexi_delta_remove removes[PATHS];
            char names[PATHS][16], vectors[PATHS][2][24];
            vexi_delta_commit commit = {.adds = adds, .removes = removes};
            for (size_t p = 0; p < PATHS; p++) {
                snprintf(names[p], sizeof names[p], "f%zu", p);
                uint64_t what = vex_test_below(&seed, 8);
                if (what > 2 || (what == 0 && added[p] < 0)) {
                    continue;
                }
                vexi_delta_dv dv[2] = {{0}, {0}};
                snprintf(vectors[p][0], sizeof vectors[p][0], "v%d", (int)(vector[p] % 1000000));
                if (vector[p] != 0) {
                    dv[0] =
                        (vexi_delta_dv){.storage = 'u', .encoded = vexi_string_of(vectors[p][0])};
                }
                if (added[p] >= 0) {
                    removes[commit.remove_count++] =
                        (vexi_delta_remove){.path = vexi_string_of(names[p]), .dv = dv[0]};
                }
                if (what == 0) {
                    added[p] = -1;
                    vector[p] = 0;
                    continue;
                }
                vector[p] = vex_test_below(&seed, 3) == 0 ? 0 : (uint64_t)version;
                snprintf(vectors[p][1], sizeof vectors[p][1], "v%d", (int)(vector[p] % 1000000));
                if (vector[p] != 0) {
                    dv[1] =
                        (vexi_delta_dv){.storage = 'u', .encoded = vexi_string_of(vectors[p][1])};
                }
                adds[commit.add_count++] =
                    (vexi_delta_add){.path = vexi_string_of(names[p]), .dv = dv[1]};
                added[p] = added[p] < 0 ? version : added[p];
            }
            CHECK_OK(vexi_delta_state_apply(&state, &commit, &err));
            size_t live = 0;
            for (size_t p = 0; p < PATHS; p++) {
                live += added[p] >= 0;
            }
            CHECK_EQ(state.file_count, live);
            for (size_t i = 0; i < state.file_count; i++) {
                size_t p = (size_t)strtoul(state.files[i].add.path.data + 1, NULL, 10);
                CHECK_EQ(state.files[i].added_version, added[p]);
                CHECK((state.files[i].add.dv.storage != 0) == (vector[p] != 0));
                CHECK(i == 0 || state.files[i - 1].added_version <= state.files[i].added_version);
            }
        }
        vexi_delta_state_deinit(&state);
    }
}

TEST_MAIN(RUN(commit_names); RUN(folder_names); RUN(paths); RUN(round_trip); RUN(written_json);
          RUN(foreign_commits); RUN(refused_commits); RUN(code_settings); RUN(too_deep_or_too_many);
          RUN(state_of_files); RUN(state_of_transactions_and_drops); RUN(state_writable);
          RUN(state_without_memory); RUN(state_against_a_model))
