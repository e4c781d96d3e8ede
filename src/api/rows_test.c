/* Rows through the public header: put, get, delete, search, on memtables and segments alike. */
#include <float.h>

#include "api_test.h"

enum { TYPED = 5 };
static const vex_column typed_columns[TYPED] = {
    {{"n", 1}, VEX_TYPE_INT64}, {{"x", 1}, VEX_TYPE_DOUBLE},    {{"s", 1}, VEX_TYPE_STRING},
    {{"b", 1}, VEX_TYPE_BOOL},  {{"t", 1}, VEX_TYPE_TIMESTAMP},
};

static vex_lake *lake_with_columns(void) {
    vex_lake *lake;
    vex_collection_options options = {
        .size = sizeof options, .dimension = 2, .column_count = TYPED, .columns = typed_columns};
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    CHECK_OK(vex_collection_create(lake, str("c"), &options, &err));
    return lake;
}

static const struct ArrowArray *column(const result *r, const char *name, const char *format) {
    return r->batch.children[result_column(r, name, format)];
}

static bool bool_at(const struct ArrowArray *array, int64_t row) {
    return (((const uint8_t *)array->buffers[1])[row / 8] >> (row % 8) & 1) != 0;
}

/* Every column, null and not, from the memtable, from a segment, and from both at once. */
TEST(get_all_columns) {
    vex_lake *lake = lake_with_columns();
    vex_value values[TYPED] = {
        {.column = str("n"), .as.int64 = INT64_MIN}, {.column = str("x"), .as.float64 = -0.5},
        {.column = str("s"), .as.string = str("")},  {.column = str("b"), .as.boolean = true},
        {.column = str("t"), .as.int64 = -1},
    };
    float v[2] = {1, 2}, w[2] = {3, 4}, u[2] = {5, 6};
    vex_row rows[3] = {
        {.id = str("full"),
         .vector = v,
         .dimension = 2,
         .attributes = str("{ \"b\":  1 }"),
         .payload = {"\0\xff", 2},
         .value_count = TYPED,
         .values = values},
        {.id = str("bare"), .vector = w, .dimension = 2},
        {.id = str("json"),
         .vector = u,
         .dimension = 2,
         .attributes = str("{\"n\": 7, \"s\": \"\\u00fc\", \"b\": false, \"t\": "
                           "\"1970-01-01T00:00:01Z\", \"x\": 2, \"other\": null}"),
         .payload = {"", 0}},
    };
    vex_string ids[6] = {str("json"), str("nobody"), str("full"),
                         str("bare"), str("json"),   str("")};
    vex_get_options options = {.size = sizeof options, .all_columns = true};
    for (int round = 0; round < 3; round++) {
        if (round == 0) {
            CHECK_OK(vex_put_rows(lake, str("c"), rows, 3, &err));
        } else if (round == 1) {
            CHECK_OK(vex_flush(lake, str("c"), &err));
        } else {
            CHECK_OK(vex_put_rows(lake, str("c"), rows, 1, &err));
        }
        result r;
        CHECK_OK(vex_get(lake, str("c"), ids, 6, &options, &r.schema, &r.batch, &err));
        CHECK_EQ(r.batch.length, 6);
        CHECK_EQ(r.batch.n_children, 4 + TYPED);
        CHECK(string_is(result_id(&r, 0), "json") && result_id(&r, 1).data == NULL);
        CHECK(string_is(result_id(&r, 2), "full") && string_is(result_id(&r, 3), "bare"));
        CHECK(string_is(result_id(&r, 4), "json") && result_id(&r, 5).data == NULL);
        CHECK(memcmp(result_vector(&r, 2, 0), u, sizeof u) == 0);
        CHECK(result_vector(&r, 2, 1) == NULL && result_vector(&r, 2, 5) == NULL);
        CHECK(memcmp(result_vector(&r, 2, 2), v, sizeof v) == 0);
        CHECK(memcmp(result_vector(&r, 2, 3), w, sizeof w) == 0);
        CHECK(string_is(result_string(&r, "attributes", "u", 2), "{ \"b\":  1 }"));
        CHECK(result_string(&r, "attributes", "u", 3).data == NULL);
        vex_string payload = result_string(&r, "payload", "z", 2);
        CHECK(payload.size == 2 && memcmp(payload.data, "\0\xff", 2) == 0);
        payload = result_string(&r, "payload", "z", 0);
        CHECK(payload.data != NULL && payload.size == 0); /* empty is not null */
        CHECK(result_string(&r, "payload", "z", 3).data == NULL);

        const struct ArrowArray *n = column(&r, "n", "l"), *x = column(&r, "x", "g");
        const struct ArrowArray *b = column(&r, "b", "b"), *t = column(&r, "t", "tsu:UTC");
        CHECK(((const int64_t *)n->buffers[1])[2] == INT64_MIN);
        CHECK_EQ(((const int64_t *)n->buffers[1])[0], 7);
        CHECK(((const double *)x->buffers[1])[2] == -0.5 &&
              ((const double *)x->buffers[1])[4] == 2.0);
        CHECK(string_is(result_string(&r, "s", "u", 2), ""));
        CHECK(string_is(result_string(&r, "s", "u", 0), "\xc3\xbc"));
        CHECK(bool_at(b, 2) && !bool_at(b, 0) && !array_is_null(b, 0));
        CHECK_EQ(((const int64_t *)t->buffers[1])[2], -1);
        CHECK_EQ(((const int64_t *)t->buffers[1])[4], 1000000);
        const struct ArrowArray *nullable[] = {n, x, b, t};
        for (size_t i = 0; i < 4; i++) {
            CHECK_EQ(nullable[i]->null_count, 3);
            CHECK(array_is_null(nullable[i], 1) && array_is_null(nullable[i], 3) &&
                  array_is_null(nullable[i], 5));
        }
        CHECK(result_string(&r, "s", "u", 3).data == NULL);
        result_release(&r);
    }
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST(get_some_columns) {
    vex_lake *lake = lake_with_columns();
    CHECK_OK(put_one(lake, "c", "a", (float[2]){1, 2}, 2, &err));
    vex_string id = str("a");
    vex_string names[3] = {str("s"), str("vector"), str("s")};
    vex_get_options options = {.size = sizeof options, .columns = names, .column_count = 3};
    result r;
    CHECK_OK(vex_get(lake, str("c"), &id, 1, &options, &r.schema, &r.batch, &err));
    CHECK_EQ(r.batch.n_children, 4);
    CHECK(strcmp(r.schema.children[1]->name, "s") == 0);
    CHECK(strcmp(r.schema.children[2]->name, "vector") == 0);
    CHECK(strcmp(r.schema.children[3]->name, "s") == 0);
    CHECK((r.schema.children[0]->flags & ARROW_FLAG_NULLABLE) != 0);
    result_release(&r);
    CHECK_OK(vex_get(lake, str("c"), &id, 1, NULL, &r.schema, &r.batch, &err));
    CHECK_EQ(r.batch.n_children, 1);
    result_release(&r);
    struct ArrowArray batch;
    CHECK_OK(vex_get(lake, str("c"), NULL, 0, NULL, NULL, &batch, &err));
    CHECK_EQ(batch.length, 0);
    batch.release(&batch);

    vex_error err;
    names[2] = str("nope");
    CHECK(vex_get(lake, str("c"), &id, 1, &options, NULL, &batch, &err) == VEX_NOT_FOUND);
    CHECK(strstr(err.message, "nope") != NULL && batch.release == NULL);
    names[2] = str("id");
    CHECK(vex_get(lake, str("c"), &id, 1, &options, NULL, &batch, &err) == VEX_INVALID);
    options.column_count = 1000;
    CHECK(vex_get(lake, str("c"), &id, 1, &options, NULL, &batch, &err) == VEX_LIMIT);
    options.columns = NULL;
    options.column_count = 1;
    CHECK(vex_get(lake, str("c"), &id, 1, &options, NULL, &batch, &err) == VEX_INVALID);
    CHECK(vex_get(lake, str("x"), &id, 1, NULL, NULL, &batch, &err) == VEX_NOT_FOUND);
    CHECK(vex_get(lake, str("c"), NULL, 1, NULL, NULL, &batch, &err) == VEX_INVALID);
    CHECK(vex_get(lake, str("c"), &id, 1, NULL, NULL, NULL, &err) == VEX_INVALID);
    CHECK(vex_get(NULL, str("c"), &id, 1, NULL, NULL, &batch, &err) == VEX_INVALID);
    CHECK_OK(vex_lake_close(lake, &err));
}

/* Without waiting: memtables answer, for rows and tombstones; a segment would block. */
TEST(get_without_waiting) {
    vex_lake *lake = lake_with_columns();
    vex_get_options options = {.size = sizeof options, .all_columns = true, .no_wait = true};
    vex_string ids[40];
    char text[40][8];
    struct ArrowArray batch;
    for (int i = 0; i < 40; i++) {
        snprintf(text[i], sizeof text[i], "k%d", i);
        ids[i] = str(text[i]);
        CHECK_OK(put_one(lake, "c", text[i], (float[2]){(float)i, 0}, 2, &err));
    }
    for (size_t count = 1; count <= 40; count++) { /* across the limits of the fast path */
        CHECK_OK(vex_get(lake, str("c"), ids, count, &options, NULL, &batch, &err));
        CHECK_EQ(batch.length, count);
        const float *vectors = batch.children[1]->children[0]->buffers[1];
        for (size_t i = 0; i < count; i++) {
            CHECK(vectors[2 * i] == (float)i);
        }
        batch.release(&batch);
    }
    vex_string nobody = str("nobody");
    CHECK_OK(vex_get(lake, str("c"), &nobody, 1, &options, NULL, &batch, &err));
    CHECK(array_is_null(batch.children[0], 0));
    batch.release(&batch);

    CHECK_OK(vex_flush(lake, str("c"), &err));
    CHECK_FAILS(VEX_WOULD_BLOCK, vex_get(lake, str("c"), ids, 1, &options, NULL, &batch, &err));
    CHECK(batch.release == NULL);
    CHECK_FAILS(VEX_WOULD_BLOCK, vex_get(lake, str("c"), &nobody, 1, &options, NULL, &batch, &err));
    CHECK_OK(put_one(lake, "c", "k1", (float[2]){-1, 0}, 2, &err));
    CHECK_OK(vex_delete(lake, str("c"), &ids[2], 1, NULL, &err));
    CHECK_OK(vex_get(lake, str("c"), ids + 1, 2, &options, NULL, &batch, &err));
    CHECK(!array_is_null(batch.children[0], 0) && array_is_null(batch.children[0], 1));
    batch.release(&batch);
    CHECK_FAILS(VEX_WOULD_BLOCK, vex_get(lake, str("c"), ids, 3, &options, NULL, &batch, &err));
    CHECK_OK(vex_lake_close(lake, &err));
}

/* Nothing of a batch with a bad row is stored. */
TEST(bad_rows_change_nothing) {
    vex_lake *lake = lake_with_columns();
    float good[2] = {1, 2}, bad[2] = {1, NAN};
    vex_row rows[3] = {{.id = str("a"), .vector = good, .dimension = 2},
                       {.id = str("b"), .vector = good, .dimension = 2},
                       {.id = str("c"), .vector = bad, .dimension = 2}};
    vex_error err;
    CHECK(vex_put_rows(lake, str("c"), rows, 3, &err) == VEX_INVALID);
    CHECK_EQ(err.row, 2);
    rows[2].vector = good;
    rows[2].dimension = 3;
    CHECK(vex_put_rows(lake, str("c"), rows, 3, &err) == VEX_INVALID);
    CHECK(strstr(err.message, "3") != NULL && strstr(err.message, "2") != NULL);
    rows[2].dimension = 2;
    rows[1].attributes = str("{\"n\": \"text\"}");
    CHECK(vex_put_rows(lake, str("c"), rows, 3, &err) == VEX_INVALID);
    CHECK_EQ(err.row, 1);
    CHECK(vex_put_rows(lake, str("x"), rows, 1, &err) == VEX_NOT_FOUND);
    CHECK(vex_put_rows(lake, str("c"), NULL, 1, &err) == VEX_INVALID);
    CHECK(vex_put_rows(NULL, str("c"), rows, 1, &err) == VEX_INVALID);
    CHECK(vex_put_rows(lake, str("c"), NULL, 0, &err) == VEX_OK);
    vex_string ids[2] = {str("a"), str("")};
    uint8_t existed[2] = {5, 5};
    CHECK(vex_delete(lake, str("c"), ids, 2, existed, &err) == VEX_INVALID);
    CHECK_EQ(err.row, 1);
    CHECK(existed[0] == 0 && existed[1] == 0);
    result r;
    CHECK_OK(search_k(lake, "c", good, 2, 10, true, &r, &err));
    CHECK_EQ(r.batch.length, 0);
    CHECK_EQ(r.batch.n_children, 3);
    result_release(&r);
    CHECK_OK(vex_lake_close(lake, &err));
}

/* Of two rows with one id the later wins: in a batch, across batches, across a flush. */
TEST(newest_wins) {
    vex_lake *lake = lake_with_columns();
    float one[2] = {1, 1}, two[2] = {2, 2}, three[2] = {3, 3};
    vex_row rows[2] = {
        {.id = str("a"), .vector = one, .dimension = 2, .attributes = str("{\"n\": 1}")},
        {.id = str("a"), .vector = two, .dimension = 2}};
    CHECK_OK(vex_put_rows(lake, str("c"), rows, 2, &err));
    result r;
    for (int flushed = 0; flushed < 2; flushed++) {
        CHECK_OK(get_columns(lake, "c", "a", &r, &err));
        CHECK(result_vector(&r, 2, 0)[0] == 2);
        CHECK(result_string(&r, "attributes", "u", 0).data == NULL); /* replaced as a whole */
        CHECK(array_is_null(column(&r, "n", "l"), 0));
        result_release(&r);
        CHECK_OK(search_k(lake, "c", one, 2, 10, false, &r, &err));
        CHECK_EQ(r.batch.length, 1);
        CHECK(result_distance(&r, 0) == 2);
        result_release(&r);
        CHECK_OK(vex_flush(lake, str("c"), &err));
    }
    CHECK_OK(put_one(lake, "c", "a", three, 2, &err));
    CHECK_OK(search_k(lake, "c", one, 2, 10, true, &r, &err));
    CHECK_EQ(r.batch.length, 1);
    CHECK(result_distance(&r, 0) == 8);
    result_release(&r);
    vex_string id = str("a");
    uint8_t existed;
    CHECK_OK(vex_delete(lake, str("c"), &id, 1, &existed, &err));
    CHECK_EQ(existed, 1);
    CHECK_OK(vex_flush(lake, str("c"), &err));
    CHECK_OK(search_k(lake, "c", one, 2, 10, true, &r, &err));
    CHECK_EQ(r.batch.length, 0);
    result_release(&r);
    CHECK_OK(get_columns(lake, "c", "a", &r, &err));
    CHECK(result_id(&r, 0).data == NULL);
    result_release(&r);
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST(search_several_queries) {
    vex_lake *lake = lake_with_columns();
    char text[100][8];
    for (int i = 0; i < 100; i++) {
        snprintf(text[i], sizeof text[i], "k%02d", i);
        CHECK_OK(put_one(lake, "c", text[i], (float[2]){(float)i, 0}, 2, &err));
        if (i == 49) {
            CHECK_OK(vex_flush(lake, str("c"), &err));
        }
    }
    enum { QUERIES = 97, K = 3 };
    float queries[QUERIES][2];
    for (int q = 0; q < QUERIES; q++) {
        queries[q][0] = (float)(q + 1) + 0.25f;
        queries[q][1] = 2;
    }
    vex_search_stats stats;
    vex_string names[1] = {str("vector")};
    vex_search_options options = {
        .size = sizeof options, .k = K, .column_count = 1, .columns = names, .stats = &stats};
    result r;
    CHECK_OK(
        vex_search(lake, str("c"), queries[0], QUERIES, 2, &options, &r.schema, &r.batch, &err));
    CHECK_EQ(r.batch.length, QUERIES * K);
    static const double distances[K] = {4.0625, 4.5625, 5.5625};
    static const int offsets[K] = {0, 1, -1};
    for (int i = 0; i < QUERIES * K; i++) {
        int row = i / K + 1 + offsets[i % K];
        CHECK_EQ(result_query(&r, i), i / K);
        CHECK(string_is(result_id(&r, i), text[row]));
        CHECK(result_distance(&r, i) == distances[i % K]);
        CHECK(result_vector(&r, 2, i)[0] == (float)row);
    }
    CHECK_EQ(stats.segment_count, 1);
    CHECK_EQ(stats.row_count, QUERIES * 100);
    CHECK_EQ(stats.page_count, 0); /* vectors need no page */
    result_release(&r);

    CHECK_OK(vex_search(lake, str("c"), queries[0], 0, 2, &options, &r.schema, &r.batch, &err));
    CHECK_EQ(r.batch.length, 0);
    result_release(&r);

    vex_string ids[2] = {str("k10"), str("k90")};
    options.query_ids = ids;
    options.k = 1;
    CHECK_OK(vex_search(lake, str("c"), NULL, 2, 0, &options, &r.schema, &r.batch, &err));
    CHECK_EQ(r.batch.length, 2);
    CHECK(string_is(result_id(&r, 0), "k10") && string_is(result_id(&r, 1), "k90"));
    CHECK(result_distance(&r, 0) == 0 && result_distance(&r, 1) == 0);
    result_release(&r);

    vex_error err;
    ids[1] = str("k100");
    CHECK(vex_search(lake, str("c"), NULL, 2, 0, &options, NULL, &r.batch, &err) == VEX_NOT_FOUND);
    CHECK(strstr(err.message, "k100") != NULL && r.batch.release == NULL);
    CHECK_FAILS(VEX_INVALID,
                vex_search(lake, str("c"), queries[0], 2, 2, &options, NULL, &r.batch, &err));
    CHECK_OK(vex_lake_close(lake, &err));
}

/* k above the number of rows, ties by id, and rows that are not there any more. */
TEST(search_ties_and_limits) {
    vex_lake *lake = lake_with_columns();
    static const char *const ids[] = {"b", "a", "ab", "c", "\xc3\xa4", "B"};
    static const char *const sorted[] = {"B", "a", "ab", "b", "c", "\xc3\xa4"};
    float v[2] = {1, 1};
    for (size_t i = 0; i < 6; i++) {
        CHECK_OK(put_one(lake, "c", ids[i], v, 2, &err));
        if (i % 2 == 1) {
            CHECK_OK(vex_flush(lake, str("c"), &err));
        }
    }
    result r;
    for (uint32_t k = 1; k <= 7; k++) {
        for (int exact = 0; exact < 2; exact++) {
            CHECK_OK(search_k(lake, "c", (float[2]){2, 3}, 2, k, exact, &r, &err));
            CHECK_EQ(r.batch.length, k < 6 ? k : 6);
            for (int64_t i = 0; i < r.batch.length; i++) {
                CHECK(string_is(result_id(&r, i), sorted[i]));
                CHECK(result_distance(&r, i) == 5);
            }
            result_release(&r);
        }
    }
    CHECK_OK(search_k(lake, "c", v, 2, VEX_K_MAX, false, &r, &err));
    CHECK_EQ(r.batch.length, 6);
    result_release(&r);

    vex_error err;
    struct ArrowArray batch;
    vex_search_options options = {.size = sizeof options, .k = 0};
    CHECK(vex_search(lake, str("c"), v, 1, 2, &options, NULL, &batch, &err) == VEX_INVALID);
    options.k = VEX_K_MAX + 1;
    CHECK(vex_search(lake, str("c"), v, 1, 2, &options, NULL, &batch, &err) == VEX_INVALID);
    CHECK(strstr(err.message, "10000") != NULL);
    options.k = 1;
    CHECK(vex_search(lake, str("c"), v, 1, 3, &options, NULL, &batch, &err) == VEX_INVALID);
    CHECK(strstr(err.message, "3") != NULL && strstr(err.message, "2") != NULL);
    CHECK(vex_search(lake, str("c"), NULL, 1, 2, &options, NULL, &batch, &err) == VEX_INVALID);
    CHECK(vex_search(lake, str("c"), v, VEX_QUERIES_MAX + 1, 2, &options, NULL, &batch, &err) ==
          VEX_INVALID);
    CHECK(vex_search(lake, str("x"), v, 1, 2, &options, NULL, &batch, &err) == VEX_NOT_FOUND);
    CHECK(vex_search(lake, str("c"), v, 1, 2, &options, NULL, NULL, &err) == VEX_INVALID);
    float infinite[4] = {1, 1, 1, -INFINITY};
    CHECK(vex_search(lake, str("c"), infinite, 2, 2, &options, NULL, &batch, &err) == VEX_INVALID);
    CHECK(strstr(err.message, "query 1") != NULL);
    vex_string name = str("nope");
    options.columns = &name;
    options.column_count = 1;
    CHECK(vex_search(lake, str("c"), v, 1, 2, &options, NULL, &batch, &err) == VEX_NOT_FOUND);
    CHECK(strstr(err.message, "nope") != NULL);
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST(zero_vector_under_cosine) {
    vex_lake *lake;
    float zero[2] = {0, -0.0f};
    struct ArrowArray batch;
    vex_search_options options = {.size = sizeof options, .k = 1};
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    create(lake, "cos", 2, VEX_METRIC_COSINE, VEX_INDEX_AUTO);
    create(lake, "ip", 2, VEX_METRIC_IP, VEX_INDEX_AUTO);
    CHECK_FAILS(VEX_INVALID, put_one(lake, "cos", "a", zero, 2, &err));
    CHECK_FAILS(VEX_INVALID,
                vex_search(lake, str("cos"), zero, 1, 2, &options, NULL, &batch, &err));
    CHECK_OK(put_one(lake, "ip", "a", zero, 2, &err));
    result r;
    CHECK_OK(search_k(lake, "ip", zero, 2, 1, false, &r, &err));
    CHECK(result_distance(&r, 0) == 0 && !signbit(result_distance(&r, 0)));
    result_release(&r);
    CHECK_OK(vex_lake_close(lake, &err));
}

/* Finite vectors whose float32 distances overflow are still ordered by their true distance. */
TEST(search_beyond_float32) {
    for (int metric = 0; metric < 3; metric++) {
        vex_lake *lake;
        CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
        create(lake, "c", 2, (vex_metric)metric, VEX_INDEX_AUTO);
        enum { COUNT = 60 };
        char text[COUNT][8];
        for (int i = 0; i < COUNT; i++) {
            snprintf(text[i], sizeof text[i], "k%02d", i);
            float x = FLT_MAX / 2 * (1.0f - (float)i / 100);
            float v[2] = {x, metric == VEX_METRIC_COSINE ? FLT_MAX / 200 * (float)i : x};
            CHECK_OK(put_one(lake, "c", text[i], v, 2, &err));
            if (i == COUNT / 2) {
                CHECK_OK(vex_flush(lake, str("c"), &err));
            }
        }
        float query[2] = {FLT_MAX, metric == VEX_METRIC_COSINE ? 0 : FLT_MAX};
        result r;
        CHECK_OK(search_k(lake, "c", query, 2, 30, false, &r, &err));
        CHECK_EQ(r.batch.length, 30);
        for (int i = 0; i < 30; i++) {
            CHECK(string_is(result_id(&r, i), text[i]));
            CHECK(isfinite(result_distance(&r, i)));
        }
        result_release(&r);
        CHECK_OK(vex_lake_close(lake, &err));
    }
}

/* Winners from several segments and the memtable: each row's columns are its own. */
TEST(search_columns_from_everywhere) {
    vex_lake *lake = lake_with_columns();
    uint64_t seed = vex_test_seed(3);
    enum { COUNT = 600 };
    static char text[COUNT][8];
    static char json[COUNT][40];
    for (int i = 0; i < COUNT; i++) {
        snprintf(text[i], sizeof text[i], "k%03d", i);
        snprintf(json[i], sizeof json[i], "{\"n\": %d, \"s\": \"s%d\"}", i, i * 3);
        float v[2] = {vex_test_normal(&seed), vex_test_normal(&seed)};
        vex_row row = {.id = str(text[i]),
                       .vector = v,
                       .dimension = 2,
                       .attributes = i % 7 == 0 ? (vex_string){NULL, 0} : str(json[i]),
                       .payload = {text[i], (size_t)(i % 4)}};
        CHECK_OK(vex_put_rows(lake, str("c"), &row, 1, &err));
        if (i % 200 == 150) {
            CHECK_OK(vex_flush(lake, str("c"), &err));
        }
    }
    vex_string names[4] = {str("n"), str("payload"), str("attributes"), str("s")};
    vex_search_stats stats;
    vex_search_options options = {
        .size = sizeof options, .k = 50, .column_count = 4, .columns = names, .stats = &stats};
    float queries[10];
    for (int i = 0; i < 10; i++) {
        queries[i] = vex_test_normal(&seed);
    }
    result r;
    CHECK_OK(vex_search(lake, str("c"), queries, 5, 2, &options, &r.schema, &r.batch, &err));
    CHECK_EQ(r.batch.length, 250);
    const struct ArrowArray *n = column(&r, "n", "l");
    for (int64_t i = 0; i < r.batch.length; i++) {
        vex_string id = result_id(&r, i);
        int number = 0;
        CHECK(sscanf(id.data, "k%3d", &number) == 1);
        CHECK_EQ(result_string(&r, "payload", "z", i).size, number % 4);
        CHECK(array_is_null(n, i) == (number % 7 == 0));
        if (number % 7 != 0) {
            char s[16];
            snprintf(s, sizeof s, "s%d", number * 3);
            CHECK_EQ(((const int64_t *)n->buffers[1])[i], number);
            CHECK(string_is(result_string(&r, "attributes", "u", i), json[number]));
            CHECK(string_is(result_string(&r, "s", "u", i), s));
        }
    }
    CHECK(stats.page_count > 0 && stats.read_bytes > 0);
    CHECK_EQ(stats.segment_count, 3);
    result_release(&r);
    CHECK_OK(vex_lake_close(lake, &err));
}

/* One query is cut over threads, many are spread over them: the answer is that of one thread. */
TEST(threads_do_not_change_answers) {
    enum { COUNT = 6000, DIMENSION = 256, QUERIES = 37, K = 50 };
    uint64_t seed = vex_test_seed(5);
    float *vectors = malloc(sizeof(float) * COUNT * DIMENSION);
    vex_row *rows = calloc(COUNT, sizeof *rows);
    char(*text)[8] = malloc(COUNT * sizeof *text);
    CHECK(vectors != NULL && rows != NULL && text != NULL);
    for (int i = 0; i < COUNT; i++) {
        /* Few distinct vectors, so that ties cross the borders of slices. */
        for (int j = 0; j < DIMENSION; j++) {
            vectors[i * DIMENSION + j] = (float)vex_test_below(&seed, j < 4 ? 6 : 1);
        }
        snprintf(text[i], sizeof text[i], "%d", i);
        rows[i] = (vex_row){
            .id = str(text[i]), .vector = vectors + i * DIMENSION, .dimension = DIMENSION};
    }
    result results[2][2][2];
    vex_search_stats stats[2][2][2];
    static const uint32_t threads[2] = {1, 5};
    for (int t = 0; t < 2; t++) {
        vex_lake *lake;
        vex_lake_options options = {.size = sizeof options, .thread_count = threads[t]};
        CHECK_OK(vex_lake_open("mem://", &options, &lake, &err));
        create(lake, "c", DIMENSION, VEX_METRIC_L2, VEX_INDEX_IVF);
        CHECK_OK(vex_put_rows(lake, str("c"), rows, COUNT - 700, &err));
        CHECK_OK(vex_flush(lake, str("c"), &err));
        CHECK_OK(vex_put_rows(lake, str("c"), rows + COUNT - 700, 700, &err));
        for (int many = 0; many < 2; many++) {
            for (int exact = 0; exact < 2; exact++) {
                vex_search_options search = {.size = sizeof search,
                                             .k = K,
                                             .nprobe = 1u << 20,
                                             .exact = exact,
                                             .stats = &stats[t][many][exact]};
                result *r = &results[t][many][exact];
                CHECK_OK(vex_search(lake, str("c"), vectors, many ? QUERIES : 1, DIMENSION, &search,
                                    &r->schema, &r->batch, &err));
                /* All lists: every row is compared, by its codes at least. */
                const vex_search_stats *did = &stats[t][many][exact];
                uint64_t compared = exact ? did->row_count : did->row_count + did->code_count;
                CHECK(compared >= (many ? QUERIES : 1) * COUNT);
                CHECK(exact || did->row_count < (many ? QUERIES : 1) * COUNT / 4);
            }
        }
        CHECK_OK(vex_lake_close(lake, &err));
    }
    for (int many = 0; many < 2; many++) {
        for (int i = 0; i < (many ? QUERIES : 1) * K; i++) {
            for (int other = 0; other < 4; other++) {
                const result *r = &results[other / 2][many][other % 2];
                CHECK(result_distance(r, i) == result_distance(&results[0][many][1], i));
            }
            /* Of rows that tie with the last one, more than there is room for, ids are chosen by
             * where rows lie, which differs from lake to lake. */
        }
        CHECK_EQ(stats[1][many][0].list_count, stats[1][0][0].list_count * (many ? QUERIES : 1));
    }
    for (int i = 0; i < 8; i++) {
        result_release(&results[i / 4][i / 2 % 2][i % 2]);
    }
    free(vectors);
    free(rows);
    free(text);
}

TEST_MAIN(RUN(threads_do_not_change_answers); RUN(get_all_columns); RUN(get_some_columns);
          RUN(get_without_waiting); RUN(bad_rows_change_nothing); RUN(newest_wins);
          RUN(search_several_queries); RUN(search_ties_and_limits); RUN(zero_vector_under_cosine);
          RUN(search_beyond_float32); RUN(search_columns_from_everywhere))
