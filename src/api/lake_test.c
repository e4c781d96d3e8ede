/* Lakes and collections through the public header: opening, options of any age, life cycles. */
#include <unistd.h>

#include "api_test.h"

TEST(uris) {
    static const char *const invalid[] = {"", "file://", "mem://x", "http://a/b", "S4://b"};
    vex_lake *lake = (vex_lake *)(void *)&lake;
    for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++) {
        CHECK_FAILS(VEX_INVALID, vex_lake_open(invalid[i], NULL, &lake, &err));
        CHECK(lake == NULL);
    }
    CHECK_FAILS(VEX_INVALID, vex_lake_open(NULL, NULL, &lake, &err));
    CHECK_FAILS(VEX_INVALID, vex_lake_open("mem://", NULL, NULL, &err));
    vex_lake_options s3 = {.size = sizeof s3,
                           .read_only = true,
                           .s3_access_key = "key",
                           .s3_secret_key = "secret",
                           .s3_endpoint = "nonsense"};
    CHECK_FAILS(VEX_INVALID, vex_lake_open("s3://bucket/lake", &s3, &lake, &err));
    CHECK_FAILS(VEX_INVALID, vex_lake_open("s3://", &s3, &lake, &err));
    CHECK(lake == NULL);

    char *path = folder_create();
    char uri[100];
    snprintf(uri, sizeof uri, "FILE://%s", path);
    CHECK_OK(vex_lake_open(uri, NULL, &lake, &err));
    CHECK_OK(vex_lake_close(lake, &err));
    CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
    CHECK_OK(vex_lake_close(lake, &err));
    CHECK(chdir("/tmp") == 0);
    snprintf(uri, sizeof uri, "file://%s", path + 5);
    CHECK_OK(vex_lake_open(
        uri, &(vex_lake_options){.size = sizeof(vex_lake_options), .must_exist = true}, &lake,
        &err));
    CHECK_OK(vex_lake_close(lake, &err));
    folder_remove(path);
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    CHECK_OK(vex_lake_close(lake, &err));
    CHECK_OK(vex_lake_close(NULL, &err));
}

TEST(must_exist_and_busy) {
    vex_lake *lake, *second;
    vex_lake_options options = {.size = sizeof options, .must_exist = true};
    char *path = folder_create();
    CHECK_FAILS(VEX_NOT_FOUND, vex_lake_open(path, &options, &lake, &err));
    CHECK_FAILS(VEX_NOT_FOUND, vex_lake_open("mem://", &options, &lake, &err));
    options.must_exist = false;
    options.read_only = true;
    CHECK_FAILS(VEX_NOT_FOUND, vex_lake_open(path, &options, &lake, &err));
    CHECK(access(path, F_OK) != 0); /* nothing was made */

    CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
    CHECK_FAILS(VEX_BUSY, vex_lake_open(path, NULL, &second, &err));
    create(lake, "c", 2, VEX_METRIC_L2, VEX_INDEX_AUTO);
    float v[2] = {1, 2};
    CHECK_OK(put_one(lake, "c", "a", v, 2, &err));
    CHECK_OK(vex_flush(lake, str("c"), &err));
    CHECK_OK(put_one(lake, "c", "b", v, 2, &err));

    /* A reader beside the writer sees what is committed or logged, and may not write. */
    CHECK_OK(vex_lake_open(path, &options, &second, &err));
    result r;
    CHECK_OK(search_k(second, "c", v, 2, 5, false, &r, &err));
    CHECK_EQ(r.batch.length, 2);
    result_release(&r);
    CHECK_FAILS(VEX_READ_ONLY, put_one(second, "c", "x", v, 2, &err));
    vex_string id = str("a");
    CHECK_FAILS(VEX_READ_ONLY, vex_delete(second, str("c"), &id, 1, NULL, &err));
    CHECK_FAILS(VEX_READ_ONLY, vex_collection_drop(second, str("c"), &err));
    CHECK_OK(vex_lake_close(second, &err));
    CHECK_OK(vex_lake_close(lake, &err));
    CHECK_OK(vex_lake_open(path, NULL, &lake, &err)); /* the lock went with the handle */
    CHECK_OK(vex_lake_close(lake, &err));
    folder_remove(path);
}

TEST(options_of_any_age) {
    vex_lake *lake;
    union {
        vex_lake_options options;
        uint8_t bytes[sizeof(vex_lake_options) + 32];
    } u;
    memset(&u, 0, sizeof u);
    CHECK_FAILS(VEX_INVALID, vex_lake_open("mem://", &u.options, &lake, &err)); /* size 0 */
    u.options.size = 3;
    CHECK_FAILS(VEX_INVALID, vex_lake_open("mem://", &u.options, &lake, &err));
    /* An older caller's struct ends before must_exist: what lies behind it is not ours to read. */
    u.options.size = offsetof(vex_lake_options, must_exist);
    u.options.must_exist = true;
    CHECK_OK(vex_lake_open("mem://", &u.options, &lake, &err));
    CHECK_OK(vex_lake_close(lake, &err));
    u.options.must_exist = false;
    /* A newer caller's is longer: fine until it asks for something. */
    u.options.size = sizeof u;
    CHECK_OK(vex_lake_open("mem://", &u.options, &lake, &err));
    CHECK_OK(vex_lake_close(lake, &err));
    u.bytes[sizeof u - 1] = 1;
    CHECK_FAILS(VEX_UNSUPPORTED, vex_lake_open("mem://", &u.options, &lake, &err));
    memset(&u, 0, sizeof u);
    u.options.size = sizeof u.options;
    u.options.durability = (vex_durability)7;
    CHECK_FAILS(VEX_INVALID, vex_lake_open("mem://", &u.options, &lake, &err));

    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    create(lake, "c", 1, VEX_METRIC_L2, VEX_INDEX_AUTO);
    vex_get_options get = {0};
    vex_search_options search = {.k = 1};
    vex_import_options import = {0};
    struct ArrowArray batch;
    const char *path = "/nowhere";
    float v = 1;
    CHECK_FAILS(VEX_INVALID, vex_get(lake, str("c"), NULL, 0, &get, NULL, &batch, &err));
    CHECK_FAILS(VEX_INVALID, vex_search(lake, str("c"), &v, 1, 1, &search, NULL, &batch, &err));
    CHECK_FAILS(VEX_INVALID, vex_search(lake, str("c"), &v, 1, 1, NULL, NULL, &batch, &err));
    CHECK_FAILS(VEX_INVALID, vex_import(lake, str("c"), &path, 1, &import, NULL, &err));
    CHECK_OK(vex_lake_close(lake, &err));
}

static void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

TEST(a_failed_import_leaves_no_collection) {
    vex_lake *lake;
    vex_collection_info *info = malloc(sizeof *info);
    char folder[] = "/tmp/vexlake-import-XXXXXX";
    char path[64];
    CHECK(info != NULL && mkdtemp(folder) != NULL);
    snprintf(path, sizeof path, "%s/rows.jsonl", folder);
    const char *paths = path;
    vex_import_options import = {.size = sizeof import};
    uint64_t rows = 7;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    write_text(path, "{\"id\":\"a\",\"vector\":[1,2]}\n{\"id\":\"b\",\"vector\":[1]}\n");
    CHECK_FAILS(VEX_INVALID, vex_import(lake, str("x"), &paths, 1, &import, &rows, &err));
    CHECK_EQ(rows, 0);
    CHECK_FAILS(VEX_NOT_FOUND, vex_collection_describe(lake, str("x"), info, &err));
    write_text(path, "{\"id\":\"a\",\"vector\":[1,2]}\n{\"id\":\"a\",\"vector\":[3,4]}\n");
    CHECK_OK(vex_import(lake, str("x"), &paths, 1, &import, &rows, &err));
    CHECK_EQ(rows, 2);
    CHECK_OK(vex_collection_describe(lake, str("x"), info, &err));
    CHECK_EQ(info->row_count, 1); /* of two rows with one id the later counts */
    /* Into one that is there: it stays as it is. */
    write_text(path, "{\"id\":\"b\",\"vector\":[1,2]}\n{\"id\":\"c\",\"vector\":[1]}\n");
    CHECK_FAILS(VEX_INVALID, vex_import(lake, str("x"), &paths, 1, &import, &rows, &err));
    CHECK_OK(vex_collection_describe(lake, str("x"), info, &err));
    CHECK_EQ(info->row_count, 1);
    CHECK_OK(vex_lake_close(lake, &err));
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
    free(info);
}

TEST(collections) {
    vex_lake *lake;
    vex_collection_info *info = malloc(sizeof *info);
    result r = {0};
    CHECK(info != NULL);
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    CHECK_OK(vex_collection_list(lake, &r.schema, &r.batch, &err));
    CHECK_EQ(r.batch.length, 0);
    result_release(&r);

    vex_column columns[5] = {{str("n"), VEX_TYPE_INT64},
                             {str("Name mit Leerzeichen \xc3\xa4"), VEX_TYPE_STRING},
                             {str("d"), VEX_TYPE_DOUBLE},
                             {str("b"), VEX_TYPE_BOOL},
                             {str("t"), VEX_TYPE_TIMESTAMP}};
    vex_collection_options options = {.size = sizeof options,
                                      .dimension = 7,
                                      .metric = VEX_METRIC_COSINE,
                                      .index = VEX_INDEX_FLAT,
                                      .column_count = 5,
                                      .columns = columns};
    CHECK_OK(vex_collection_create(lake, str("b/\xc3\xa9"), &options, &err));
    CHECK_FAILS(VEX_EXISTS, vex_collection_create(lake, str("b/\xc3\xa9"), &options, &err));
    create(lake, "Z", 1, VEX_METRIC_L2, VEX_INDEX_AUTO);
    create(lake, "a", VEX_DIMENSION_MAX, VEX_METRIC_IP, VEX_INDEX_IVF);
    CHECK_OK(vex_collection_list(lake, &r.schema, &r.batch, &err));
    CHECK_EQ(r.batch.length, 3);
    CHECK(string_is(result_string(&r, "name", "u", 0), "Z"));
    CHECK(string_is(result_string(&r, "name", "u", 1), "a"));
    CHECK(string_is(result_string(&r, "name", "u", 2), "b/\xc3\xa9"));
    result_release(&r);

    CHECK_OK(vex_collection_describe(lake, str("b/\xc3\xa9"), info, &err));
    CHECK_EQ(info->dimension, 7);
    CHECK(info->metric == VEX_METRIC_COSINE && info->index == VEX_INDEX_FLAT);
    CHECK_EQ(info->column_count, 5);
    for (int i = 0; i < 5; i++) {
        CHECK(string_is(columns[i].name, info->columns[i].name));
        CHECK(info->columns[i].type == columns[i].type);
    }
    CHECK_EQ(info->row_count, 0);
    CHECK_EQ(strlen(info->uuid), 36);
    char uuid[40];
    memcpy(uuid, info->uuid, sizeof uuid);

    CHECK_OK(vex_collection_drop(lake, str("b/\xc3\xa9"), &err));
    CHECK_FAILS(VEX_NOT_FOUND, vex_collection_drop(lake, str("b/\xc3\xa9"), &err));
    CHECK_FAILS(VEX_NOT_FOUND, vex_collection_describe(lake, str("b/\xc3\xa9"), info, &err));
    create(lake, "b/\xc3\xa9", 3, VEX_METRIC_L2, VEX_INDEX_AUTO);
    CHECK_OK(vex_collection_describe(lake, str("b/\xc3\xa9"), info, &err));
    CHECK_EQ(info->dimension, 3);
    CHECK(strcmp(uuid, info->uuid) != 0);
    CHECK_OK(vex_lake_close(lake, &err));
    free(info);
}

TEST(bad_collections) {
    vex_lake *lake;
    char name[VEX_NAME_SIZE_MAX + 1];
    vex_column column = {str("x"), VEX_TYPE_INT64};
    vex_collection_options options = {.size = sizeof options, .dimension = 2};
    memset(name, 'n', sizeof name);
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    CHECK_OK(vex_collection_create(lake, (vex_string){name, VEX_NAME_SIZE_MAX}, &options, &err));
    CHECK_FAILS(VEX_INVALID,
                vex_collection_create(lake, (vex_string){name, sizeof name}, &options, &err));
    static const char *const names[] = {"", "a\nb", "\x7f", "\xff", "tab\t"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str(names[i]), &options, &err));
    }
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, (vex_string){NULL, 0}, &options, &err));
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), NULL, &err));
    CHECK_FAILS(VEX_INVALID, vex_collection_create(NULL, str("c"), &options, &err));
    options.dimension = 0;
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    options.dimension = VEX_DIMENSION_MAX + 1;
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    options.dimension = 2;
    options.metric = (vex_metric)9;
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    options.metric = VEX_METRIC_L2;
    options.index = (vex_index_kind)9;
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    options.index = VEX_INDEX_AUTO;
    options.column_count = 1;
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    options.columns = &column;
    static const char *const reserved[] = {"id", "vector", "attributes", "payload", ""};
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        column.name = str(reserved[i]);
        CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    }
    column = (vex_column){str("x"), (vex_type)0};
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    vex_column twice[2] = {{str("x"), VEX_TYPE_INT64}, {str("x"), VEX_TYPE_BOOL}};
    options.columns = twice;
    options.column_count = 2;
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    options.column_count = VEX_COLUMNS_MAX + 1;
    CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    CHECK_OK(vex_lake_close(lake, &err));
}

/* Results stay whole after the lake is closed, with children moved out and released one by one, on
 * any thread; sanitizers watch. */
TEST(results_outlive_the_lake) {
    for (int flushed = 0; flushed < 2; flushed++) {
        vex_lake *lake;
        char *path = folder_create();
        CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
        create(lake, "c", 3, VEX_METRIC_L2, VEX_INDEX_AUTO);
        static char payload[100000];
        memset(payload, 'p', sizeof payload);
        float v[3] = {1, 2, 3};
        vex_row row = {.id = str("a"),
                       .vector = v,
                       .dimension = 3,
                       .attributes = str("{\"x\":1}"),
                       .payload = {payload, sizeof payload}};
        CHECK_OK(vex_put_rows(lake, str("c"), &row, 1, &err));
        CHECK_OK(put_one(lake, "c", "b", (float[3]){4, 5, 6}, 3, &err));
        if (flushed) {
            CHECK_OK(vex_flush(lake, str("c"), &err));
        }
        result one, moved, searched;
        vex_string columns[2] = {str("payload"), str("vector")};
        vex_search_options options = {
            .size = sizeof options, .k = 10, .column_count = 2, .columns = columns};
        CHECK_OK(get_columns(lake, "c", "a", &one, &err));
        CHECK_OK(get_columns(lake, "c", "a", &moved, &err));
        CHECK_OK(
            vex_search(lake, str("c"), v, 1, 3, &options, &searched.schema, &searched.batch, &err));
        struct ArrowArray vectors, payloads;
        int64_t at = result_column(&moved, "vector", "+w:3");
        vectors = *moved.batch.children[at];
        moved.batch.children[at]->release = NULL;
        at = result_column(&moved, "payload", "z");
        payloads = *moved.batch.children[at];
        moved.batch.children[at]->release = NULL;
        struct ArrowSchema field = *moved.schema.children[at];
        moved.schema.children[at]->release = NULL;

        CHECK_OK(vex_lake_close(lake, &err));
        folder_remove(path);

        const float *got = result_vector(&one, 3, 0);
        CHECK(got[0] == 1 && got[1] == 2 && got[2] == 3);
        CHECK_EQ(result_string(&one, "payload", "z", 0).size, sizeof payload);
        CHECK(string_is(result_string(&one, "attributes", "u", 0), "{\"x\":1}"));
        result_release(&one);
        result_release(&moved);
        got = vectors.children[0]->buffers[1];
        CHECK(got[0] == 1 && got[1] == 2 && got[2] == 3);
        vectors.release(&vectors);
        CHECK(vectors.release == NULL);
        CHECK(memcmp(array_string(&payloads, 0).data, payload, sizeof payload) == 0);
        CHECK(strcmp(field.name, "payload") == 0 && strcmp(field.format, "z") == 0);
        payloads.release(&payloads);
        field.release(&field);

        CHECK_EQ(searched.batch.length, 2);
        CHECK(string_is(result_id(&searched, 0), "a") && string_is(result_id(&searched, 1), "b"));
        CHECK(result_distance(&searched, 0) == 0 && result_distance(&searched, 1) == 27);
        CHECK(result_vector(&searched, 3, 1)[2] == 6);
        CHECK(result_string(&searched, "payload", "z", 1).data == NULL);
        result_release(&searched);
    }
}

typedef struct log_count {
    int lines; /* atomic */
    bool closed;
} log_count;

static void count_line(void *context, int level, const char *message) {
    log_count *count = context;
    CHECK(!count->closed && level >= 0 && level <= 3 && message != NULL);
    __atomic_add_fetch(&count->lines, 1, __ATOMIC_RELAXED);
}

/* Nothing is logged once the lake is closed: the context may be gone. */
TEST(log_is_silent_after_close) {
    log_count count = {0};
    vex_lake *lake;
    vex_lake_options options = {
        .size = sizeof options, .log = count_line, .log_context = &count, .thread_count = 3};
    CHECK_OK(vex_lake_open("mem://", &options, &lake, &err));
    create(lake, "c", 1, VEX_METRIC_L2, VEX_INDEX_AUTO);
    CHECK_OK(put_one(lake, "c", "a", (float[1]){1}, 1, &err));
    result r;
    CHECK_OK(get_columns(lake, "c", "a", &r, &err));
    CHECK_OK(vex_flush(lake, (vex_string){NULL, 0}, &err));
    CHECK_OK(vex_lake_close(lake, &err));
    count.closed = true;
    result_release(&r);
}

/* Rows survive a restart, flushed or not; deleted ones stay away. */
TEST(reopen) {
    char *path = folder_create();
    vex_lake *lake;
    for (int round = 0; round < 4; round++) {
        CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
        if (round == 0) {
            create(lake, "c", 2, VEX_METRIC_IP, VEX_INDEX_AUTO);
        }
        result r;
        CHECK_OK(search_k(lake, "c", (float[2]){1, 0}, 2, 100, false, &r, &err));
        CHECK_EQ(r.batch.length, round);
        for (int64_t i = 0; i < r.batch.length; i++) {
            char id[8];
            snprintf(id, sizeof id, "k%d", round - 1 - (int)i);
            CHECK(string_is(result_id(&r, i), id)); /* larger products first */
            CHECK(result_distance(&r, i) == -(double)(round - 1 - (int)i) - 1.5);
        }
        result_release(&r);
        char id[8];
        snprintf(id, sizeof id, "k%d", round);
        CHECK_OK(put_one(lake, "c", id, (float[2]){(float)round + 1.5f, 7}, 2, &err));
        CHECK_OK(put_one(lake, "c", "gone", (float[2]){9, 9}, 2, &err));
        if (round % 2 == 0) {
            CHECK_OK(vex_flush(lake, str("c"), &err));
        }
        vex_string ids[3] = {str("gone"), str("never"), str("gone")};
        uint8_t existed[3] = {9, 9, 9};
        CHECK_OK(vex_delete(lake, str("c"), ids, 3, existed, &err));
        CHECK(existed[0] == 1 && existed[1] == 0 && existed[2] == 0);
        CHECK_OK(vex_lake_close(lake, &err));
    }
    folder_remove(path);
}

TEST(verify_finds_nothing) {
    vex_lake *lake;
    result r;
    uint64_t objects = 0;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    create(lake, "c", 2, VEX_METRIC_COSINE, VEX_INDEX_AUTO);
    CHECK_OK(put_one(lake, "c", "a", (float[2]){1, 2}, 2, &err));
    CHECK_OK(vex_flush(lake, str("c"), &err));
    CHECK_OK(vex_verify(lake, (vex_string){NULL, 0}, &r.schema, &r.batch, &objects, &err));
    CHECK_EQ(r.batch.length, 0);
    CHECK(objects >= 2);
    (void)result_column(&r, "object", "u");
    (void)result_column(&r, "problem", "u");
    result_release(&r);
    CHECK_FAILS(VEX_NOT_FOUND, vex_verify(lake, str("x"), NULL, &r.batch, &objects, &err));
    CHECK_OK(vex_lake_close(lake, &err));
}

static uint64_t operations(const vex_lake_stats *stats, vex_store_operation kind) {
    uint64_t count = 0;
    for (uint32_t b = 0; b < VEX_LATENCY_BUCKETS; b++) {
        count += stats->store[kind].latency_buckets[b];
    }
    return count;
}

TEST(watching) {
    char *path = folder_create();
    vex_lake *lake;
    vex_lake_options options = {.size = sizeof options, .memory_limit_bytes = 64u << 20};
    CHECK_OK(vex_lake_open(path, &options, &lake, &err));
    create(lake, "c", 2, VEX_METRIC_L2, VEX_INDEX_AUTO);
    vex_lake_stats before = {.size = sizeof before};
    CHECK_OK(vex_lake_describe(lake, &before, &err));
    CHECK_EQ(before.memtable_size_bytes, 0);
    CHECK_EQ(before.memtable_limit_bytes, 64u << 20);
    CHECK_EQ(before.log_file_count, 1);
    CHECK(!before.log_failed);
    vex_collection_info info;
    CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
    CHECK_EQ(info.memtable_age_ns, 0);

    float v[2] = {1, 2};
    CHECK_OK(put_one(lake, "c", "a", v, 2, &err));
    CHECK_OK(put_one(lake, "c", "b", v, 2, &err));
    vex_lake_stats after = {.size = sizeof after};
    CHECK_OK(vex_lake_describe(lake, &after, &err));
    CHECK_EQ(operations(&after, VEX_STORE_LOG_APPEND) - operations(&before, VEX_STORE_LOG_APPEND),
             2);
    CHECK_EQ(operations(&after, VEX_STORE_LOG_SYNC) - operations(&before, VEX_STORE_LOG_SYNC), 2);
    CHECK_EQ(after.log_size_bytes - before.log_size_bytes,
             after.store[VEX_STORE_LOG_APPEND].byte_count -
                 before.store[VEX_STORE_LOG_APPEND].byte_count);
    CHECK(after.store[VEX_STORE_LOG_SYNC].latency_ns > before.store[VEX_STORE_LOG_SYNC].latency_ns);
    CHECK(after.memtable_size_bytes > 0 && after.log_unsynced_bytes == 0);
    CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
    uint64_t age_ns = info.memtable_age_ns;
    CHECK(age_ns > 0);
    CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
    CHECK(info.memtable_age_ns > age_ns);
    CHECK_OK(vex_flush(lake, str("c"), &err));
    CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
    CHECK_EQ(info.memtable_age_ns, 0);
    CHECK_OK(vex_lake_describe(lake, &after, &err));
    CHECK(operations(&after, VEX_STORE_PUT) > operations(&before, VEX_STORE_PUT));
    CHECK_EQ(after.memtable_size_bytes, 0);

    /* An older header's struct: nothing behind its size is touched. */
    vex_lake_stats small = {.size = sizeof(size_t) + sizeof(vex_store_stats), .log_file_count = 77};
    CHECK_OK(vex_lake_describe(lake, &small, &err));
    CHECK_EQ(small.log_file_count, 77);
    small.size = 0;
    CHECK_FAILS(VEX_INVALID, vex_lake_describe(lake, &small, &err));
    CHECK_FAILS(VEX_INVALID, vex_lake_describe(NULL, &after, &err));
    CHECK_FAILS(VEX_INVALID, vex_lake_describe(lake, NULL, &err));

    CHECK_OK(vex_lake_probe(lake, &err));
    CHECK_FAILS(VEX_INVALID, vex_lake_probe(NULL, &err));
    char format[128], away[128];
    snprintf(format, sizeof format, "%s/.vexlake/format", path);
    snprintf(away, sizeof away, "%s/.vexlake/away", path);
    CHECK_EQ(rename(format, away), 0);
    CHECK_FAILS(VEX_NOT_FOUND, vex_lake_probe(lake, &err));
    CHECK_EQ(rename(away, format), 0);
    CHECK_OK(vex_lake_probe(lake, &err));
    CHECK_OK(vex_lake_close(lake, &err));

    /* What is replayed has an age too, and the old log file its size. */
    CHECK_OK(vex_lake_open(path, &options, &lake, &err));
    CHECK_OK(put_one(lake, "c", "c", v, 2, &err));
    CHECK_OK(vex_lake_close(lake, &err));
    CHECK_OK(vex_lake_open(path, &options, &lake, &err));
    CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
    CHECK_EQ(info.memtable_row_count, 1);
    CHECK(info.memtable_age_ns > 0);
    CHECK_OK(vex_lake_describe(lake, &after, &err));
    CHECK(after.log_file_count >= 2 && after.log_size_bytes > before.log_size_bytes);
    CHECK_OK(vex_lake_close(lake, &err));
    folder_remove(path);

    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    CHECK_OK(vex_lake_probe(lake, &err));
    CHECK_OK(vex_lake_close(lake, &err));
    CHECK_EQ(strcmp(vex_store_operation_text(VEX_STORE_PUT_IF_ABSENT), "put_if_absent"), 0);
    CHECK_EQ(strcmp(vex_store_operation_text(VEX_STORE_OPERATION_COUNT), "unknown"), 0);
}

TEST(version) {
    CHECK(strcmp(vex_version(), "0.1.0") == 0);
    CHECK(strcmp(vex_status_text(VEX_BUSY), "held by another process") == 0);
    CHECK(vex_status_text((vex_status)999) != NULL);
}

TEST_MAIN(RUN(version); RUN(uris); RUN(must_exist_and_busy); RUN(options_of_any_age);
          RUN(a_failed_import_leaves_no_collection); RUN(collections); RUN(bad_collections);
          RUN(results_outlive_the_lake); RUN(log_is_silent_after_close); RUN(reopen);
          RUN(verify_finds_nothing); RUN(watching))
