#include "table/row_check.h"

#include <float.h>
#include <math.h>
#include <time.h>

#include "check.h"

static const vexi_schema_column test_columns[] = {
    {{"count", 5}, VEX_TYPE_INT64},  {{"score", 5}, VEX_TYPE_DOUBLE},
    {{"title", 5}, VEX_TYPE_STRING}, {{"open", 4}, VEX_TYPE_BOOL},
    {{"at", 2}, VEX_TYPE_TIMESTAMP},
};
enum { COUNT, SCORE, TITLE, OPEN, AT, COLUMN_COUNT };

static const vexi_schema test_schema = {
    .dimension = 3, .column_count = COLUMN_COUNT, .columns = test_columns};
static const float test_vector[3] = {1, 2, 3};

static vex_string text(const char *s) {
    return (vex_string){s, strlen(s)};
}

static vex_row row_of(const char *attributes) {
    return (vex_row){.id = {"a", 1},
                     .vector = test_vector,
                     .dimension = 3,
                     .attributes = attributes == NULL ? (vex_string){NULL, 0} : text(attributes)};
}

/* Check one row of the test schema; the cells stay in the arena. */
static vex_status check_row(const vex_row *row, vexi_arena *arena, vexi_row *out, vex_error *err) {
    return vexi_rows_check(&test_schema, row, 1, arena, out, err);
}

static vex_status check_json(const char *json, vexi_arena *arena, vexi_row *out, vex_error *err) {
    vex_row row = row_of(json);
    return check_row(&row, arena, out, err);
}

/* The message of a failure that must be VEX_INVALID. */
static const char *json_problem(const char *json) {
    static vex_error err;
    vexi_arena arena;
    vexi_row out;
    err = (vex_error){0};
    vexi_arena_init(&arena, vex_test_env());
    vex_status status = check_json(json, &arena, &out, &err);
    if (status != VEX_INVALID) {
        fprintf(stderr, "%s: %s\n", json, vex_status_text(status));
        exit(1);
    }
    CHECK_EQ(err.row, 0);
    vexi_arena_deinit(&arena);
    return err.message;
}

static bool says(const char *message, const char *part) {
    if (strstr(message, part) == NULL) {
        fprintf(stderr, "'%s' lacks '%s'\n", message, part);
        return false;
    }
    return true;
}

TEST(ids) {
    char long_id[VEX_ID_SIZE_MAX + 1];
    memset(long_id, 'x', sizeof long_id);
    CHECK_OK(vexi_id_check((vex_string){long_id, VEX_ID_SIZE_MAX}, &err));
    CHECK_FAILS(VEX_INVALID, vexi_id_check((vex_string){long_id, VEX_ID_SIZE_MAX + 1}, &err));
    CHECK_FAILS(VEX_INVALID, vexi_id_check((vex_string){"", 0}, &err));
    CHECK_FAILS(VEX_INVALID, vexi_id_check((vex_string){NULL, 0}, &err));
    CHECK_FAILS(VEX_INVALID, vexi_id_check((vex_string){NULL, 4}, &err));
    CHECK_FAILS(VEX_INVALID, vexi_id_check(text("\xc3\x28"), &err));
    CHECK_FAILS(VEX_INVALID, vexi_id_check(text("\xed\xa0\x80"), &err)); /* a surrogate */
    CHECK_OK(vexi_id_check(text("K\xc3\xb6ln \xf0\x9f\x9a\x80"), &err));
}

TEST(vectors) {
    vexi_schema schema = {.dimension = 4};
    float v[4] = {0, -0.0f, FLT_MAX, -FLT_MIN};
    vex_error err;
    CHECK_OK(vexi_vector_check(&schema, v, 4, &err));
    CHECK(vexi_vector_check(&schema, v, 3, &err) == VEX_INVALID);
    CHECK(says(err.message, "3") && says(err.message, "4"));
    CHECK_FAILS(VEX_INVALID, vexi_vector_check(&schema, v, 0, &err));
    CHECK_FAILS(VEX_INVALID, vexi_vector_check(&schema, NULL, 4, &err));
    for (int i = 0; i < 4; i++) {
        float bad[3] = {NAN, INFINITY, -INFINITY};
        for (int b = 0; b < 3; b++) {
            float w[4] = {1, 1, 1, 1};
            char place[32];
            w[i] = bad[b];
            CHECK(vexi_vector_check(&schema, w, 4, &err) == VEX_INVALID);
            snprintf(place, sizeof place, "value %d", i);
            CHECK(says(err.message, place));
        }
    }
    float zero[4] = {0, -0.0f, 0, 0};
    CHECK_OK(vexi_vector_check(&schema, zero, 4, &err));
    schema.metric = VEX_METRIC_IP;
    CHECK_OK(vexi_vector_check(&schema, zero, 4, &err));
    schema.metric = VEX_METRIC_COSINE;
    CHECK_FAILS(VEX_INVALID, vexi_vector_check(&schema, zero, 4, &err));
    zero[3] = FLT_TRUE_MIN;
    CHECK_OK(vexi_vector_check(&schema, zero, 4, &err));
}

TEST(values) {
    vexi_arena arena;
    vexi_row out;
    vexi_arena_init(&arena, vex_test_env());
    vex_value values[COLUMN_COUNT] = {
        {.column = text("at"), .as.int64 = -5},           {.column = text("count"), .as.int64 = 7},
        {.column = text("title"), .as.string = {"t", 1}}, {.column = text("open"), .is_null = true},
        {.column = text("score"), .as.float64 = 0.5},
    };
    vex_row row = row_of("{\"open\": true, \"count\": \"not looked at\", \"other\": [1]}");
    row.values = values;
    row.value_count = COLUMN_COUNT;
    CHECK_OK(check_row(&row, &arena, &out, &err));
    CHECK_EQ(out.cells[COUNT].as.int64, 7);
    CHECK_EQ(out.cells[AT].as.int64, -5);
    CHECK(out.cells[SCORE].as.float64 == 0.5);
    CHECK(vexi_string_is(out.cells[TITLE].as.string, "t"));
    CHECK(out.cells[OPEN].is_null); /* given as null: the attributes do not count */
    CHECK(!out.cells[COUNT].is_null && !out.cells[AT].is_null);
    CHECK(out.attributes.data == row.attributes.data); /* byte for byte, not a copy */

    vex_error err;
    values[1].column = text("countess");
    CHECK(check_row(&row, &arena, &out, &err) == VEX_NOT_FOUND);
    CHECK(says(err.message, "countess"));
    values[1].column = text("at");
    CHECK(check_row(&row, &arena, &out, &err) == VEX_INVALID);
    CHECK(says(err.message, "twice"));
    values[1].column = text("count");
    values[2].as.string = text("\xff");
    CHECK(check_row(&row, &arena, &out, &err) == VEX_INVALID);
    CHECK(says(err.message, "title"));
    values[2].as.string = (vex_string){"", VEX_STRING_SIZE_MAX + 1u};
    CHECK(check_row(&row, &arena, &out, &err) == VEX_INVALID);
    row.values = NULL;
    CHECK(check_row(&row, &arena, &out, &err) == VEX_INVALID);
    vexi_arena_deinit(&arena);
}

TEST(typed_from_attributes) {
    vexi_arena arena;
    vexi_row out;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(check_json("{\"count\": -9223372036854775808, \"score\": 3, \"title\": "
                        "\"a\\u00e9\\\"b\", \"open\": false, \"at\": 12}",
                        &arena, &out, &err));
    CHECK(out.cells[COUNT].as.int64 == INT64_MIN);
    CHECK(out.cells[SCORE].as.float64 == 3.0);
    CHECK(vexi_string_is(out.cells[TITLE].as.string, "a\xc3\xa9\"b"));
    CHECK(!out.cells[OPEN].is_null && !out.cells[OPEN].as.boolean);
    CHECK_EQ(out.cells[AT].as.int64, 12);

    CHECK_OK(check_json("{\"count\": null, \"title\": \"\"}", &arena, &out, &err));
    CHECK(out.cells[COUNT].is_null && out.cells[SCORE].is_null && out.cells[OPEN].is_null);
    CHECK(!out.cells[TITLE].is_null && out.cells[TITLE].as.string.size == 0 &&
          out.cells[TITLE].as.string.data != NULL);

    /* A number beyond 64 bits somewhere else does not hurt; in an int64 column it does. */
    CHECK_OK(check_json("{\"count\": 5, \"hash\": 18446744073709551615}", &arena, &out, &err));
    CHECK_EQ(out.cells[COUNT].as.int64, 5);
    CHECK(says(json_problem("{\"count\": 18446744073709551615}"), "count"));

    static const char *const wrong[][2] = {
        {"{\"count\": 1.5}", "'count' is int64"},
        {"{\"count\": \"1\"}", "a string"},
        {"{\"count\": 1.0}", "'count' is int64"},
        {"{\"count\": true}", "a boolean"},
        {"{\"score\": \"1\"}", "'score' is double"},
        {"{\"score\": false}", "'score' is double"},
        {"{\"title\": 1}", "'title' is string"},
        {"{\"title\": {}}", "an object"},
        {"{\"open\": 1}", "'open' is bool"},
        {"{\"open\": \"true\"}", "'open' is bool"},
        {"{\"at\": 1.5}", "'at' is timestamp"},
        {"{\"at\": []}", "an array"},
        {"{\"at\": \"yesterday\"}", "2024-01-31T12:00:00Z"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(says(json_problem(wrong[i][0]), wrong[i][1]));
    }
    vexi_arena_deinit(&arena);
}

TEST(timestamps) {
    static const struct {
        const char *text;
        int64_t us;
    } good[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01 00:00:01z", 1000000},
        {"1969-12-31T23:59:59.999999Z", -1},
        {"2024-02-29T12:34:56.7Z", 1709210096700000},
        {"2024-02-29T12:34:56.123456789Z", 1709210096123456},
        {"2024-02-29T14:34:56+02:00", 1709210096000000},
        {"2024-02-29T14:04:56+0130", 1709210096000000},
        {"2024-02-29T11:34:56-01", 1709210096000000},
        {"0001-01-01T00:00:00Z", -62135596800000000},
        {"9999-12-31T23:59:59Z", 253402300799000000},
        {"2000-03-01T00:00:00Z", 951868800000000},
        {"1900-03-01T00:00:00Z", -2203891200000000},
    };
    vexi_arena arena;
    vexi_row out;
    vexi_arena_init(&arena, vex_test_env());
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char json[100];
        snprintf(json, sizeof json, "{\"at\": \"%s\"}", good[i].text);
        CHECK_OK(check_json(json, &arena, &out, &err));
        CHECK_EQ(out.cells[AT].as.int64, good[i].us);
    }
    static const char *const bad[] = {
        "",
        "2024-02-29",
        "2024-02-29T12:34:56",
        "2023-02-29T12:34:56Z",
        "1900-02-29T12:34:56Z",
        "2024-13-01T00:00:00Z",
        "2024-00-01T00:00:00Z",
        "2024-01-00T00:00:00Z",
        "2024-04-31T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:60:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00Zx",
        "2024-01-01T00:00:00+1",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00+01:60",
        "2024-01-01T00:00:00+01:",
        "24-01-01T00:00:00Z",
        " 2024-01-01T00:00:00Z",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char json[100];
        snprintf(json, sizeof json, "{\"at\": \"%s\"}", bad[i]);
        (void)json_problem(json);
    }
    vexi_arena_deinit(&arena);
}

TEST(malformed_attributes) {
    static const char *const bad[] = {
        "",
        " ",
        "[]",
        "1",
        "\"x\"",
        "null",
        "{",
        "{}}",
        "{\"a\":}",
        "{'a': 1}",
        "{\"a\": 1,}",
        "{\"a\": 1, \"a\": 2}",
        "{\"b\": {\"a\": 1, \"a\": 2}}",
        "{\"a\": \"\\u0000\"}",
        "{\"a\\u0000b\": 1}",
        "{\"a\": \"\xff\"}",
        "{\"a\": \"\n\"}",
        "{\"a\": NaN}",
        "{\"a\": \"\\ud800\"}",
        "\xef\xbb\xbf{}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        (void)json_problem(bad[i]);
    }
    CHECK(says(json_problem("[1, 2]"), "no object"));
    vexi_arena arena;
    vexi_row out;
    vexi_arena_init(&arena, vex_test_env());
    /* A NUL byte within the text, not only its escape. */
    vex_row row = row_of(NULL);
    row.attributes = (vex_string){"{\"a\": 1}\0", 9};
    CHECK_FAILS(VEX_INVALID, check_row(&row, &arena, &out, &err));
    row.attributes = (vex_string){"{\"a\": \"\0\"}", 9};
    CHECK_FAILS(VEX_INVALID, check_row(&row, &arena, &out, &err));

    for (int depth = 63; depth <= 66; depth++) {
        char json[400];
        int n = snprintf(json, sizeof json, "{\"a]}\\\"\": ");
        for (int i = 1; i < depth; i++) {
            json[n++] = '[';
        }
        for (int i = 1; i < depth; i++) {
            json[n++] = ']';
        }
        json[n++] = '}';
        json[n] = '\0';
        if (depth <= 64) {
            CHECK_OK(check_json(json, &arena, &out, &err));
        } else {
            CHECK(says(json_problem(json), "64"));
        }
    }
    char *large = malloc(VEX_ATTRIBUTES_SIZE_MAX + 2u);
    CHECK(large != NULL);
    memset(large, ' ', VEX_ATTRIBUTES_SIZE_MAX + 1u);
    large[0] = '{';
    large[VEX_ATTRIBUTES_SIZE_MAX - 1] = '}';
    row.attributes = (vex_string){large, VEX_ATTRIBUTES_SIZE_MAX};
    CHECK_OK(check_row(&row, &arena, &out, &err));
    row.attributes.size++;
    CHECK_FAILS(VEX_INVALID, check_row(&row, &arena, &out, &err));
    row.attributes.size--;
    memset(large, '[', VEX_ATTRIBUTES_SIZE_MAX); /* deep enough to end a recursive parser */
    CHECK_FAILS(VEX_INVALID, check_row(&row, &arena, &out, &err));
    free(large);
    vexi_arena_deinit(&arena);
}

TEST(offending_row_is_named) {
    vexi_arena arena;
    vexi_row out[3];
    vex_error err = {0};
    vexi_arena_init(&arena, vex_test_env());
    vex_row rows[3] = {row_of(NULL), row_of("{}"), row_of(NULL)};
    CHECK_OK(vexi_rows_check(&test_schema, rows, 3, &arena, out, &err));
    for (int i = 0; i < COLUMN_COUNT; i++) {
        CHECK(out[0].cells[i].is_null && out[2].cells[i].is_null);
    }
    rows[2].dimension = 2;
    CHECK(vexi_rows_check(&test_schema, rows, 3, &arena, out, &err) == VEX_INVALID);
    CHECK_EQ(err.row, 2);
    CHECK(says(err.message, "row 2") && says(err.message, "2 dimensions"));
    rows[2] = row_of(NULL);
    rows[2].payload = (vex_string){"", VEX_PAYLOAD_SIZE_MAX + 1u};
    CHECK(vexi_rows_check(&test_schema, rows, 3, &arena, out, &err) == VEX_INVALID);
    CHECK(says(err.message, "payload"));
    CHECK(vexi_rows_check(&test_schema, NULL, 0, &arena, out, NULL) == VEX_OK);
    vexi_arena_deinit(&arena);
}

/* Random text must be answered, never crash, and never change an accepted row. */
TEST(random_attributes) {
    uint64_t seed = vex_test_seed(1);
    static const char *const pieces[] = {
        "{",    "}",         "[",      "]",         ":",        ",",    "\"",
        "\\",   "\"count\"", "\"at\"", "\"title\"", "1",        "-0",   "1e9",
        "true", "null",      " ",      "\\u0041",   "\xc3\xa9", "\xff", "\"2024-02-29T12:34:56Z\"",
    };
    uint64_t accepted = 0;
    for (uint64_t trial = 0; trial < vex_test_effort(20000); trial++) {
        char json[200] = "{";
        size_t size = 1;
        uint64_t count = vex_test_below(&seed, 12);
        for (uint64_t i = 0; i < count; i++) {
            const char *piece = pieces[vex_test_below(&seed, sizeof pieces / sizeof *pieces)];
            memcpy(json + size, piece, strlen(piece));
            size += strlen(piece);
        }
        json[size++] = '}';
        vexi_arena arena;
        vexi_row out;
        vexi_arena_init(&arena, vex_test_env());
        vex_row row = row_of(NULL);
        row.attributes = (vex_string){json, size};
        vex_status status = check_row(&row, &arena, &out, NULL);
        CHECK(status == VEX_OK || status == VEX_INVALID);
        accepted += status == VEX_OK;
        vexi_arena_deinit(&arena);
    }
    CHECK(accepted > 0);
}

TEST_MAIN(RUN(ids); RUN(vectors); RUN(values); RUN(typed_from_attributes); RUN(timestamps);
          RUN(malformed_attributes); RUN(offending_row_is_named); RUN(random_attributes))
