/* Foreign Parquet files: those under tests/golden/parquet, made by tools/make_golden_parquet.py,
 * against values known by formula; shapes of lists that no current writer makes, made here; damage.
 */
#include "check.h"

#include <carquet/carquet.h>
#include <dirent.h>

#include "format/row_source.h"

enum { ROWS = 60, DIMENSION = 4, PATH_SIZE = 1024 };

static void golden_path(char out[PATH_SIZE], const char *name) {
    const char *here = strstr(__FILE__, "src/format/");
    CHECK(here != NULL);
    int size = snprintf(out, PATH_SIZE, "%.*stests/golden/parquet/%s", (int)(here - __FILE__),
                        __FILE__, name);
    CHECK(size > 0 && size < PATH_SIZE);
}

/* The whole file in an allocation of its exact size. */
static vexi_span load(const char *name) {
    char path[PATH_SIZE];
    golden_path(path, name);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    CHECK(fseek(file, 0, SEEK_END) == 0);
    long size = ftell(file);
    CHECK(size > 0 && fseek(file, 0, SEEK_SET) == 0);
    uint8_t *data = malloc((size_t)size);
    CHECK(data != NULL && fread(data, 1, (size_t)size, file) == (size_t)size);
    CHECK(fclose(file) == 0);
    return vexi_span_of(data, (size_t)size);
}

static void drop(vexi_span file) {
    free((void *)(uintptr_t)file.data);
}

static void check_text(const char *text, vex_string found) {
    if (!vexi_string_is(found, text)) {
        fprintf(stderr, "'%.*s', not '%s'\n", (int)found.size, found.data, text);
        exit(1);
    }
}

/* A typed column against its formula in tools/make_golden_parquet.py. */
static void check_cell(const vexi_schema_column *column, uint64_t row, const vexi_cell *cell) {
    static const struct {
        const char *name;
        uint64_t null_every;
        vex_type type;
    } columns[] = {
        {"number", 5, VEX_TYPE_INT64},       {"text", 4, VEX_TYPE_STRING},
        {"flag", 6, VEX_TYPE_BOOL},          {"real", 7, VEX_TYPE_DOUBLE},
        {"i8", 5, VEX_TYPE_INT64},           {"i16", 5, VEX_TYPE_INT64},
        {"i32", 5, VEX_TYPE_INT64},          {"u8", 5, VEX_TYPE_INT64},
        {"u16", 5, VEX_TYPE_INT64},          {"u64", 5, VEX_TYPE_INT64},
        {"u32", 5, VEX_TYPE_INT64},          {"f32", 7, VEX_TYPE_DOUBLE},
        {"f16", 7, VEX_TYPE_DOUBLE},         {"large", 4, VEX_TYPE_STRING},
        {"words", 4, VEX_TYPE_STRING},       {"time_us", 8, VEX_TYPE_TIMESTAMP},
        {"time_ms", 8, VEX_TYPE_TIMESTAMP},  {"time_ns", 8, VEX_TYPE_TIMESTAMP},
        {"id_number", 1000, VEX_TYPE_INT64},
    };
    size_t i = 0;
    while (i < sizeof columns / sizeof *columns && !vexi_string_is(column->name, columns[i].name)) {
        i++;
    }
    CHECK(i < sizeof columns / sizeof *columns);
    CHECK_EQ(column->type, columns[i].type);
    bool is_null = row % columns[i].null_every == 0 && columns[i].null_every < 1000;
    CHECK(cell->is_null == is_null);
    if (is_null) {
        return;
    }
    const char *name = columns[i].name;
    int64_t n = (int64_t)row;
    char text[32];
    switch (column->type) {
    case VEX_TYPE_STRING:
        snprintf(text, sizeof text, "text %d", (int)(row % 7));
        check_text(text, cell->as.string);
        break;
    case VEX_TYPE_BOOL:
        CHECK(cell->as.boolean == (row % 3 == 0));
        break;
    case VEX_TYPE_DOUBLE:
        CHECK(cell->as.float64 == (double)row * 0.5);
        break;
    case VEX_TYPE_TIMESTAMP:
        CHECK_EQ(cell->as.int64, 1700000000000000 + n * 1000000);
        break;
    case VEX_TYPE_INT64:
        CHECK_EQ(cell->as.int64, strcmp(name, "number") == 0      ? n * 1000003 - 7
                                 : strcmp(name, "id_number") == 0 ? n
                                 : strcmp(name, "u32") == 0       ? 4294967295 - n
                                 : name[0] == 'i'                 ? n - 30
                                                                  : n * 3);
        break;
    }
}

static void check_row(const vexi_row_source_info *info, bool integer_id, bool numbered,
                      uint64_t row, const vexi_row *found) {
    char text[32];
    snprintf(text, sizeof text, integer_id || numbered ? "%d" : "row-%d",
             (int)row + (numbered ? 100 : 0));
    check_text(text, found->id);
    for (uint32_t d = 0; d < DIMENSION; d++) {
        CHECK(found->vector[d] == (float)row + 0.25f * (float)d);
    }
    for (uint32_t c = 0; c < info->column_count; c++) {
        check_cell(&info->columns[c], row, &found->cells[c]);
    }
    if (strstr(info->skipped, "skip_date") == NULL) { /* few columns */
        CHECK(found->attributes.data == NULL && found->payload.data == NULL);
        return;
    }
    CHECK((found->attributes.data == NULL) == (row % 3 == 0));
    if (found->attributes.data != NULL) {
        snprintf(text, sizeof text, "{\"i\": %d}", (int)row);
        check_text(text, found->attributes);
    }
    CHECK((found->payload.data == NULL) == (row % 9 == 0));
    if (found->payload.data != NULL) {
        CHECK_EQ(found->payload.size, 3 * (row % 5));
        for (size_t i = 0; i < found->payload.size; i++) {
            uint8_t want = i % 3 == 0 ? (uint8_t)row : i % 3 == 1 ? 0 : 255;
            CHECK((uint8_t)found->payload.data[i] == want);
        }
    }
}

/* Read a whole source; check each row. */
static void check_source(const char *name, vexi_span file, const vexi_row_source_options *options,
                         uint64_t rows, size_t row_max) {
    vexi_row_source *source;
    vexi_row_source_info info;
    CHECK_OK(vexi_row_source_open(vex_test_env(), name, file, options, &source, &info, &err));
    CHECK_EQ(info.row_count, rows);
    CHECK_EQ(info.dimension, rows == 0 ? 0 : DIMENSION);
    uint64_t row = 0;
    for (;;) {
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_row *found;
        size_t count;
        CHECK_OK(vexi_row_source_next(source, row_max, &arena, &found, &count, &err));
        CHECK(count <= row_max);
        for (size_t i = 0; i < count; i++) {
            check_row(&info, strstr(name, "integer-id") != NULL,
                      options != NULL && options->first_number != 0, row + i, &found[i]);
        }
        vexi_arena_deinit(&arena);
        row += count;
        if (count == 0) {
            break;
        }
    }
    CHECK_EQ(row, rows);
    vexi_row_source_close(source);
}

/* Every golden file that is no bad one. */
TEST(golden_files) {
    char path[PATH_SIZE];
    golden_path(path, "");
    DIR *folder = opendir(path);
    CHECK(folder != NULL);
    int files = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        const char *name = entry->d_name;
        if (strstr(name, ".parquet") == NULL || strncmp(name, "bad-", 4) == 0) {
            continue;
        }
        printf("    %s\n", name);
        fflush(stdout);
        vexi_span file = load(name);
        vexi_row_source_options options = {0};
        if (strncmp(name, "other-names", 11) == 0) {
            options.id_column = vexi_string_of("name");
        }
        uint64_t rows = strncmp(name, "no-rows", 7) == 0 ? 0 : ROWS;
        check_source(name, file, &options, rows, 1000);
        check_source(name, file, &options, rows, 1);
        check_source(name, file, &options, rows, 13);
        drop(file);
        files++;
    }
    CHECK(closedir(folder) == 0);
    CHECK(files >= 30);
}

TEST(skipped_and_typed_columns) {
    vexi_span file = load("all-types.parquet");
    vexi_row_source *source;
    vexi_row_source_info info;
    CHECK_OK(vexi_row_source_open(vex_test_env(), "a.parquet", file, NULL, &source, &info, &err));
    check_text("skip_date, skip_time, skip_decimal, skip_blob, skip_struct, skip_map, skip_lists, "
               "skip_ints",
               vexi_string_of(info.skipped));
    CHECK_EQ(info.column_count, 18);
    vexi_row_source_close(source);
    drop(file);
    file = load("integer-id.parquet");
    CHECK_OK(vexi_row_source_open(vex_test_env(), "a.parquet", file, NULL, &source, &info, &err));
    check_text("id_number", info.columns[0].name);
    vexi_row_source_close(source);
    drop(file);
}

/* Without an id column rows are numbered, or take their ids from a text. */
TEST(row_numbers) {
    vexi_span file = load("other-names.parquet");
    vexi_row_source_options options = {.first_number = 100};
    vexi_row_source *source;
    vexi_row_source_info info;
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_row *rows;
    size_t count;
    CHECK_OK(
        vexi_row_source_open(vex_test_env(), "a.parquet", file, &options, &source, &info, &err));
    CHECK_OK(vexi_row_source_next(source, 5, &arena, &rows, &count, &err));
    CHECK_EQ(count, 5);
    check_text("104", rows[4].id);
    CHECK_OK(vexi_row_source_next(source, 5, &arena, &rows, &count, &err));
    check_text("105", rows[0].id);
    vexi_row_source_close(source);
    vexi_arena_deinit(&arena);
    drop(file);
}

/* Open and read to the end or to the first failure. */
static vex_status read_all(vexi_span file, const vexi_row_source_options *options, vex_error *err) {
    vexi_row_source *source;
    vexi_row_source_info info;
    VEX_TRY(vexi_row_source_open(vex_test_env(), "a.parquet", file, options, &source, &info, err));
    vex_status status = VEX_OK;
    for (size_t count = 1; count > 0 && status == VEX_OK;) {
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_row *rows;
        status = vexi_row_source_next(source, 7, &arena, &rows, &count, err);
        vexi_arena_deinit(&arena);
    }
    vexi_row_source_close(source);
    return status;
}

TEST(bad_rows_are_named) {
    static const struct {
        const char *name;
        int64_t row;
        const char *words;
    } cases[] = {
        {"bad-short", 41, "vector of 3 values"},
        {"bad-long", 41, "vector of"},
        {"bad-long-last", 59, "vector of"},
        {"bad-short-groups", 41, "vector of 1 values"},
        {"bad-null-vector", 41, "null"},
        {"bad-empty-vector", 41, "empty"},
        {"bad-null-value", 41, "null"},
        {"bad-nan", 41, "NaN"},
        {"bad-double", 41, "infinity"},
        {"bad-null-id", 41, "id is null"},
        {"bad-empty-id", 41, "id of 0 bytes"},
        {"bad-long-id", 41, "id of 513 bytes"},
        {"bad-uint64", 41, "9223372036854775808"},
        {"bad-time", 41, "number"},
        {"bad-attributes", 41, "JSON"},
        {"bad-empty-page", -1, "vector"},
        {"bad-no-vector", -1, "no vector column"},
        {"bad-two-vectors", -1, "a and b"},
        {"bad-id-type", -1, "id"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.parquet", cases[i].name);
        vexi_span file = load(name);
        vex_error err = {0};
        vex_status status = read_all(file, NULL, &err);
        printf("    %s\n", err.message);
        bool unsupported = strcmp(cases[i].name, "bad-empty-page") == 0;
        CHECK_EQ(status, unsupported ? VEX_UNSUPPORTED : VEX_INVALID);
        CHECK_EQ(err.row, cases[i].row);
        CHECK(strstr(err.message, cases[i].words) != NULL);
        drop(file);
    }
}

TEST(bad_options) {
    vexi_span file = load("plain.parquet");
    vexi_row_source_options options = {.vector_column = vexi_string_of("nothing")};
    CHECK_FAILS(VEX_INVALID, read_all(file, &options, &err));
    options.vector_column = vexi_string_of("number");
    CHECK_FAILS(VEX_INVALID, read_all(file, &options, &err));
    options = (vexi_row_source_options){.id_column = vexi_string_of("nothing")};
    CHECK_FAILS(VEX_INVALID, read_all(file, &options, &err));
    options.id_column = vexi_string_of("flag");
    CHECK_FAILS(VEX_INVALID, read_all(file, &options, &err));
    options.id_column = vexi_string_of("number"); /* has nulls */
    CHECK_FAILS(VEX_INVALID, read_all(file, &options, &err));
    drop(file);
}

/* ---- Lists of one and two levels ------------------------------------------------------------- */

/* A file with `id` (integer) and a repeated float: bare (levels 1) or within a group (levels 2). */
static vexi_span write_levels(int levels) {
    carquet_error_t detail = CARQUET_ERROR_INIT;
    carquet_schema_t *schema = carquet_schema_create(&detail);
    CHECK(schema != NULL);
    int32_t parent = 0;
    CHECK(carquet_schema_add_column(schema, "id", CARQUET_PHYSICAL_INT64, NULL,
                                    CARQUET_REPETITION_REQUIRED, 0, 0) == CARQUET_OK);
    if (levels == 2) {
        parent = carquet_schema_add_group(schema, "vector", CARQUET_REPETITION_OPTIONAL, 0);
        CHECK(parent > 0);
    }
    CHECK(carquet_schema_add_column(schema, levels == 2 ? "array" : "vector",
                                    CARQUET_PHYSICAL_FLOAT, NULL, CARQUET_REPETITION_REPEATED, 0,
                                    parent) == CARQUET_OK);
    carquet_writer_t *writer = carquet_writer_create_buffer(schema, NULL, &detail);
    CHECK(writer != NULL);
    int64_t ids[ROWS];
    float values[ROWS * DIMENSION];
    int16_t definitions[ROWS * DIMENSION], repetitions[ROWS * DIMENSION];
    for (int i = 0; i < ROWS; i++) {
        ids[i] = i;
        for (int d = 0; d < DIMENSION; d++) {
            values[i * DIMENSION + d] = (float)i + 0.25f * (float)d;
            definitions[i * DIMENSION + d] = (int16_t)levels;
            repetitions[i * DIMENSION + d] = d != 0;
        }
    }
    CHECK(carquet_writer_write_batch(writer, 0, ids, ROWS, NULL, NULL) == CARQUET_OK);
    CHECK(carquet_writer_write_batch(writer, 1, values, ROWS * DIMENSION, definitions,
                                     repetitions) == CARQUET_OK);
    CHECK(carquet_writer_close(writer) == CARQUET_OK);
    void *data;
    size_t size;
    CHECK(carquet_writer_get_buffer(writer, &data, &size) == CARQUET_OK);
    carquet_schema_free(schema);
    return vexi_span_of(data, size);
}

TEST(lists_of_other_levels) {
    for (int levels = 1; levels <= 2; levels++) {
        vexi_span file = write_levels(levels);
        check_source("integer-id.parquet", file, NULL, ROWS, 7);
        drop(file);
    }
}

/* ---- Damage
 * -------------------------------------------------------------------------------------- */

/* Files cut off or with changed bytes: any status, but never a crash and never other rows than
 * values that pass the checks. */
TEST(damaged_files) {
    uint64_t seed = vex_test_seed(11);
    static const char *const names[] = {"all-types.parquet",       "all-types-v2-zstd.parquet",
                                        "codec-snappy.parquet",    "delta.parquet",
                                        "small-pages.parquet",     "half-fixed.parquet",
                                        "codec-gzip-v2.parquet",   "codec-lz4.parquet",
                                        "codec-brotli-v2.parquet", "int96.parquet"};
    uint64_t trials = vex_test_effort(150), failed = 0;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        vexi_span file = load(names[n]);
        for (size_t cut = 0; cut < 40; cut++) {
            size_t size = vex_test_below(&seed, file.size);
            uint8_t *copy = malloc(size + 1);
            CHECK(copy != NULL);
            memcpy(copy, file.data, size);
            CHECK(read_all(vexi_span_of(copy, size), NULL, NULL) != VEX_OK);
            free(copy);
        }
        for (uint64_t i = 0; i < trials; i++) {
            uint8_t *copy = malloc(file.size);
            CHECK(copy != NULL);
            memcpy(copy, file.data, file.size);
            uint64_t changes = 1 + vex_test_below(&seed, 4);
            for (uint64_t c = 0; c < changes; c++) {
                /* Half of the changes in the footer. */
                size_t at = vex_test_below(&seed, file.size);
                if (vex_test_below(&seed, 2) == 0) {
                    at = file.size - 1 - vex_test_below(&seed, file.size / 3);
                }
                copy[at] = (uint8_t)vex_test_random(&seed);
            }
            failed += read_all(vexi_span_of(copy, file.size), NULL, NULL) != VEX_OK;
            free(copy);
        }
        drop(file);
    }
    CHECK(failed > 0);
}

TEST_MAIN(RUN(golden_files); RUN(skipped_and_typed_columns); RUN(row_numbers);
          RUN(bad_rows_are_named); RUN(bad_options); RUN(lists_of_other_levels); RUN(damaged_files))
