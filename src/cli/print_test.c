#include "cli/print.h"

#include "check.h"

/* A batch of one row group by hand: name (utf8), size (int64), at (timestamp), score (double),
 * ok (bool), blob (binary), attributes (utf8), vector (fixed list of 3 floats), two rows; the
 * second has nulls. Columns begin one element in, as a slice would. */
enum { COLUMNS = 8 };

static const int32_t name_offsets[] = {0, 4, 12, 13};
static const uint8_t second_null[] = {0x03};
static const int64_t sizes[] = {-1, 42, 0};
static const int64_t times[] = {0, 1700000000123456, -1000000};
static const double scores[] = {9, 0.1, 1.0 / 0.0};
static const uint8_t oks[] = {0x02};
static const int32_t blob_offsets[] = {0, 0, 4, 4};
static const int32_t attribute_offsets[] = {0, 0, 11, 11};
static const float vectors[] = {9, 9, 9, 9, 0.5f, -1, 2, 0.1f, 0.2f, 0.3f};

static struct ArrowArray vector_child = {
    .length = 9, .offset = 1, .n_buffers = 2, .buffers = (const void *[]){NULL, vectors}};
static struct ArrowArray *vector_children[] = {&vector_child};
static struct ArrowSchema float_schema = {.format = "f", .name = "item"};
static struct ArrowSchema *float_schemas[] = {&float_schema};

#define COLUMN(nulls, ...)                                                             \
    {                                                                                  \
        .length = 2, .offset = 1, .null_count = (nulls), .buffers = (const void *[]) { \
            __VA_ARGS__                                                                \
        }                                                                              \
    }

static struct ArrowArray arrays[COLUMNS] = {
    COLUMN(0, NULL, name_offsets,
           "zeroa\t\x1b\"\\\n\xc3\xa4"
           "bc"),
    COLUMN(1, second_null, sizes),
    COLUMN(0, NULL, times),
    COLUMN(0, NULL, scores),
    COLUMN(0, NULL, oks),
    COLUMN(1, second_null, blob_offsets, "\xff\x00\x01\x02"),
    COLUMN(1, second_null, attribute_offsets, "{\"a\":\n [1]}"),
    {.length = 2,
     .offset = 1,
     .n_children = 1,
     .children = vector_children,
     .buffers = (const void *[]){NULL}},
};

static struct ArrowSchema schemas[COLUMNS] = {
    {.format = "u", .name = "name"},
    {.format = "l", .name = "size"},
    {.format = "tsu:UTC", .name = "at"},
    {.format = "g", .name = "score"},
    {.format = "b", .name = "ok"},
    {.format = "z", .name = "blob"},
    {.format = "u", .name = "attributes"},
    {.format = "+w:3", .name = "vector", .n_children = 1, .children = float_schemas},
};

static void check_prints(int64_t first, vexi_cli_style style, const char *wanted) {
    struct ArrowSchema *schema_children[COLUMNS];
    struct ArrowArray *array_children[COLUMNS];
    for (int i = 0; i < COLUMNS; i++) {
        schema_children[i] = &schemas[i];
        array_children[i] = &arrays[i];
    }
    struct ArrowSchema schema = {
        .format = "+s", .n_children = COLUMNS, .children = schema_children};
    struct ArrowArray batch = {.length = 2, .n_children = COLUMNS, .children = array_children};
    char text[2048] = "";
    FILE *out = fmemopen(text, sizeof text, "w");
    CHECK(out != NULL);
    CHECK_OK(vexi_cli_print(&schema, &batch, first, style, out, &err));
    fclose(out);
    if (strcmp(text, wanted) != 0) {
        fprintf(stderr, "--- printed\n%s--- wanted\n%s", text, wanted);
    }
    CHECK(strcmp(text, wanted) == 0);
}

TEST(json) {
    check_prints(0, VEXI_CLI_JSON,
                 "{\"name\":\"a\\u0009\\u001b\\\"\\\\\\n\xc3\xa4\",\"size\":42,"
                 "\"at\":\"2023-11-14T22:13:20.123456Z\",\"score\":0.1,\"ok\":true,"
                 "\"blob\":\"/wABAg==\",\"attributes\":{\"a\":  [1]},\"vector\":[0.5,-1,2]}\n"
                 "{\"name\":\"b\",\"size\":null,\"at\":\"1969-12-31T23:59:59Z\",\"score\":null,"
                 "\"ok\":false,\"blob\":null,\"attributes\":null,\"vector\":[0.1,0.2,0.3]}\n");
}

TEST(tabs) {
    check_prints(
        1, VEXI_CLI_TABS,
        "size\tat\tscore\tok\tblob\tattributes\tvector\n"
        "42\t2023-11-14T22:13:20.123456Z\t0.1\ttrue\t/wABAg==\t{\"a\":\\n [1]}\t[0.5,-1,2]\n"
        "\t1969-12-31T23:59:59Z\tinf\tfalse\t\t\t[0.1,0.2,0.3]\n");
    check_prints(7, VEXI_CLI_TABS, "vector\n[0.5,-1,2]\n[0.1,0.2,0.3]\n");
}

TEST(table) {
    check_prints(0, VEXI_CLI_TABLE,
                 "name     size  at                           score  ok     blob       attributes"
                 "   vector\n"
                 "a??\"\\?\xc3\xa4    42  2023-11-14T22:13:20.123456Z    0.1  true   <4 bytes>  "
                 "{\"a\":? [1]}  [0.5, -1, ... 3]\n"
                 "b              1969-12-31T23:59:59Z           inf  false             "
                 "             [0.1, 0.2, ... 3]\n");
}

/* Base64 of every length of the last group; long cells are cut at whole characters. */
TEST(edges) {
    static const int32_t offsets[] = {0, 1, 3, 6, 6};
    struct ArrowArray blobs = {.length = 4,
                               .n_buffers = 3,
                               .buffers = (const void *[]){NULL, offsets,
                                                           "\xff\xfe\xfd"
                                                           "abc"}};
    static const int32_t text_offsets[] = {0, 96, 192, 194, 194};
    char texts[195];
    for (int i = 0; i < 97; i++) {
        memcpy(texts + 2 * i, "\xc3\xa4", 3);
    }
    struct ArrowArray names = {
        .length = 4, .n_buffers = 3, .buffers = (const void *[]){NULL, text_offsets, texts}};
    struct ArrowSchema blob = {.format = "z", .name = "b"}, text = {.format = "u", .name = "t"};
    struct ArrowSchema *types[] = {&blob, &text};
    struct ArrowArray *columns[] = {&blobs, &names};
    struct ArrowSchema schema = {.format = "+s", .n_children = 1, .children = types};
    struct ArrowArray batch = {.length = 4, .n_children = 1, .children = columns};
    char out[1024] = "";
    FILE *file = fmemopen(out, sizeof out, "w");
    CHECK_OK(vexi_cli_print(&schema, &batch, 0, VEXI_CLI_TABS, file, &err));
    fclose(file);
    CHECK(strcmp(out, "b\n/w==\n/v0=\nYWJj\n\n") == 0);

    static const int32_t cut_offsets[] = {0, 98, 194, 194, 194}; /* 49 and 48 characters */
    names.buffers = (const void *[]){NULL, cut_offsets, texts};
    schema.children = types + 1;
    batch.children = columns + 1;
    file = fmemopen(out, sizeof out, "w");
    CHECK_OK(vexi_cli_print(&schema, &batch, 0, VEXI_CLI_TABLE, file, &err));
    fclose(file);
    char wanted[256] = "t\n";
    for (int i = 0; i < 47; i++) {
        strncat(wanted, "\xc3\xa4", 3);
    }
    strncat(wanted, "\xe2\x80\xa6\n", 5);
    for (int i = 0; i < 48; i++) {
        strncat(wanted, "\xc3\xa4", 3);
    }
    strncat(wanted, "\n\n\n", 4);
    CHECK(strcmp(out, wanted) == 0);
}

TEST(foreign_type) {
    struct ArrowSchema odd = {.format = "+l", .name = "x"}, *children[] = {&odd};
    struct ArrowArray column = {0}, *columns[] = {&column};
    struct ArrowSchema schema = {.format = "+s", .n_children = 1, .children = children};
    struct ArrowArray batch = {.n_children = 1, .children = columns};
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_cli_print(&schema, &batch, 0, VEXI_CLI_JSON, stdout, &err));
}

TEST_MAIN(RUN(json); RUN(tabs); RUN(table); RUN(edges); RUN(foreign_type))
