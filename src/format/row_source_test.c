/* Row sources of simple formats, made here byte by byte: fvecs, bvecs, npy, JSON lines; what is
 * refused, and what the message names. Parquet has a test of its own. */
#include "check.h"

#include "format/row_source.h"

/* A file under construction. */
typedef struct bytes {
    uint8_t data[4096];
    size_t size;
} bytes;

static void put(bytes *b, const void *data, size_t size) {
    CHECK(b->size + size <= sizeof b->data);
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void put_u32(bytes *b, uint32_t value) {
    uint8_t data[4];
    vexi_put_u32(data, value);
    put(b, data, sizeof data);
}

/* A source over an allocation of the file's exact size, so that reads past it are found. */
typedef struct opened {
    uint8_t *copy;
    vexi_row_source *source;
    vexi_row_source_info info;
    vexi_arena arena;
} opened;

static vex_status open_bytes(opened *o, const char *name, const void *data, size_t size,
                             const vexi_row_source_options *options, vex_error *err) {
    *o = (opened){.copy = malloc(size + 1)};
    CHECK(o->copy != NULL);
    uint8_t *start = o->copy + 1; /* never aligned */
    memcpy(start, data, size);
    vexi_arena_init(&o->arena, vex_test_env());
    return vexi_row_source_open(vex_test_env(), name, vexi_span_of(start, size), options,
                                &o->source, &o->info, err);
}

static void close_bytes(opened *o) {
    vexi_row_source_close(o->source);
    vexi_arena_deinit(&o->arena);
    free(o->copy);
}

static void check_text(const char *text, vex_string found) {
    if (!vexi_string_is(found, text)) {
        fprintf(stderr, "'%.*s', not '%s'\n", (int)found.size, found.data, text);
        exit(1);
    }
}

/* Open and read everything; it must fail with the status, the row and a message with the words. */
static void check_fails(const char *name, const void *data, size_t size,
                        const vexi_row_source_options *options, vex_status want, int64_t row,
                        const char *words) {
    opened o;
    vex_error err = {0};
    vex_status status = open_bytes(&o, name, data, size, options, &err);
    for (size_t count = 1; status == VEX_OK && count > 0;) {
        vexi_row *rows;
        status = vexi_row_source_next(o.source, 3, &o.arena, &rows, &count, &err);
    }
    if (status != want || err.row != row || strstr(err.message, words) == NULL) {
        fprintf(stderr, "%s: %s, row %lld: '%s'; not %s, row %lld, '%s'\n", name,
                vex_status_text(status), (long long)err.row, err.message, vex_status_text(want),
                (long long)row, words);
        exit(1);
    }
    close_bytes(&o);
}

static void check_text_fails(const char *text, vex_status want, int64_t row, const char *words) {
    check_fails("a.jsonl", text, strlen(text), NULL, want, row, words);
}

/* ---- fvecs, bvecs
 * -------------------------------------------------------------------------------- */

static bytes make_vecs(bool as_bytes, uint32_t rows, uint32_t dimension) {
    bytes b = {0};
    for (uint32_t i = 0; i < rows; i++) {
        put_u32(&b, dimension);
        for (uint32_t d = 0; d < dimension; d++) {
            float value = (float)(i * 10 + d);
            uint8_t byte = (uint8_t)(i * 10 + d);
            put(&b, as_bytes ? (void *)&byte : (void *)&value, as_bytes ? 1 : 4);
        }
    }
    return b;
}

TEST(vecs) {
    for (int as_bytes = 0; as_bytes < 2; as_bytes++) {
        bytes b = make_vecs(as_bytes == 1, 20, 3);
        const char *name = as_bytes == 1 ? "a.BVECS" : "a.fvecs";
        opened o;
        vexi_row_source_options options = {.first_number = 1000};
        CHECK_OK(open_bytes(&o, name, b.data, b.size, &options, &err));
        CHECK_EQ(o.info.dimension, 3);
        CHECK_EQ(o.info.row_count, 20);
        CHECK_EQ(o.info.column_count, 0);
        uint32_t row = 0;
        for (size_t count = 1; count > 0;) {
            vexi_row *rows;
            CHECK_OK(vexi_row_source_next(o.source, 7, &o.arena, &rows, &count, &err));
            for (size_t i = 0; i < count; i++, row++) {
                char id[16];
                snprintf(id, sizeof id, "%u", row + 1000);
                check_text(id, rows[i].id);
                for (uint32_t d = 0; d < 3; d++) {
                    CHECK(rows[i].vector[d] == (float)(row * 10 + d));
                }
                CHECK(rows[i].cells == NULL && rows[i].attributes.data == NULL);
            }
        }
        CHECK_EQ(row, 20);
        close_bytes(&o);
        check_fails(name, b.data, b.size - 1, NULL, VEX_INVALID, -1, "whole number");
        check_fails(name, b.data, 3, NULL, VEX_INVALID, -1, "no vector");
        vexi_put_u32(b.data + 7 * (4 + 3 * (as_bytes == 1 ? 1u : 4u)), 2);
        check_fails(name, b.data, b.size, NULL, VEX_INVALID, 7, "2 values");
        vexi_put_u32(b.data, 0);
        check_fails(name, b.data, b.size, NULL, VEX_INVALID, 0, "0 values");
        vexi_put_u32(b.data, 5000);
        check_fails(name, b.data, b.size, NULL, VEX_INVALID, 0, "5000 values");
    }
    bytes b = make_vecs(false, 5, 2);
    vexi_put_u32(b.data + 3 * 12 + 4, 0x7fc00000);
    check_fails("a.fvecs", b.data, b.size, NULL, VEX_INVALID, 3, "NaN");
}

/* Ids from a text file: one per line, with or without the last newline, CR LF too. */
TEST(ids_from_text) {
    bytes b = make_vecs(false, 3, 2);
    static const char *const texts[] = {"a\nbb\nc c\n", "a\r\nbb\r\nc c", "a\nbb\nc c"};
    for (size_t t = 0; t < 3; t++) {
        vexi_row_source_options options = {.ids = vexi_span_of(texts[t], strlen(texts[t]))};
        opened o;
        CHECK_OK(open_bytes(&o, "a.fvecs", b.data, b.size, &options, &err));
        vexi_row *rows;
        size_t count;
        CHECK_OK(vexi_row_source_next(o.source, 2, &o.arena, &rows, &count, &err));
        check_text("a", rows[0].id);
        check_text("bb", rows[1].id);
        CHECK_OK(vexi_row_source_next(o.source, 2, &o.arena, &rows, &count, &err));
        CHECK_EQ(count, 1);
        check_text("c c", rows[0].id);
        close_bytes(&o);
    }
    vexi_row_source_options options = {.ids = vexi_span_of("a\nb\n", 4)};
    check_fails("a.fvecs", b.data, b.size, &options, VEX_INVALID, -1, "2 ids for 3 rows");
    options.ids = vexi_span_of("a\n\nb\n", 5);
    check_fails("a.fvecs", b.data, b.size, &options, VEX_INVALID, 1, "id of 0 bytes");
    options.ids = vexi_span_of("a\n\xff\nb\n", 6);
    check_fails("a.fvecs", b.data, b.size, &options, VEX_INVALID, 1, "UTF-8");
}

/* ---- npy
 * ----------------------------------------------------------------------------------------- */

static bytes make_npy(uint8_t version, const char *header) {
    bytes b = {0};
    put(&b, "\x93NUMPY", 6);
    uint8_t head[6] = {version, 0};
    vexi_put_u32(head + 2, (uint32_t)strlen(header));
    put(&b, head, version == 1 ? 4 : 6);
    put(&b, header, strlen(header));
    return b;
}

TEST(npy) {
    static const char *const types[] = {"<f4", "<f8", "<f2"};
    for (uint8_t version = 1; version <= 3; version++) {
        for (size_t t = 0; t < 3; t++) {
            char header[128];
            snprintf(header, sizeof header,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (5, 3), }  \n", types[t]);
            bytes b = make_npy(version, header);
            for (int i = 0; i < 15; i++) {
                float f4 = (float)i;
                double f8 = i;
                /* Half precision of 0..14: exponent and mantissa of a small integer. */
                static const uint16_t halves[] = {0,      0x3c00, 0x4000, 0x4200, 0x4400,
                                                  0x4500, 0x4600, 0x4700, 0x4800, 0x4880,
                                                  0x4900, 0x4980, 0x4a00, 0x4a80, 0x4b00};
                const void *values[] = {&f4, &f8, &halves[i]};
                put(&b, values[t], t == 0 ? 4 : t == 1 ? 8 : 2);
            }
            opened o;
            CHECK_OK(open_bytes(&o, "whatever", b.data, b.size, NULL, &err));
            CHECK_EQ(o.info.row_count, 5);
            CHECK_EQ(o.info.dimension, 3);
            vexi_row *rows;
            size_t count, row = 0;
            do {
                CHECK_OK(vexi_row_source_next(o.source, 2, &o.arena, &rows, &count, &err));
                for (size_t i = 0; i < count; i++, row++) {
                    for (size_t d = 0; d < 3; d++) {
                        CHECK(rows[i].vector[d] == (float)(row * 3 + d));
                    }
                }
            } while (count > 0);
            CHECK_EQ(row, 5);
            close_bytes(&o);
            check_fails("a.npy", b.data, b.size - 1, NULL, VEX_CORRUPT, -1, "cut off");
            check_fails("a.npy", b.data, 9, NULL, VEX_CORRUPT, -1, "cut off");
        }
    }
}

TEST(npy_refused) {
    static const struct {
        const char *header;
        vex_status status;
        const char *words;
    } cases[] = {
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (1, 1), }", VEX_UNSUPPORTED, ">f4"},
        {"{'descr': '<i4', 'fortran_order': False, 'shape': (1, 1), }", VEX_UNSUPPORTED, "<i4"},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1), }", VEX_UNSUPPORTED, "Fortran"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", VEX_UNSUPPORTED, "two"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1), }", VEX_UNSUPPORTED, "two"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", VEX_UNSUPPORTED, "two"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 5000), }", VEX_INVALID, "5000"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 4), }",
         VEX_UNSUPPORTED, "two"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999999999, 4), }",
         VEX_CORRUPT, "cut off"},
        {"{'descr': '<f4', 'shape': (1, 1), }", VEX_CORRUPT, "header"},
        {"", VEX_CORRUPT, "header"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b = make_npy(1, cases[i].header);
        put_u32(&b, 0);
        int64_t row = cases[i].status == VEX_INVALID ? 0 : -1;
        check_fails("a.npy", b.data, b.size, NULL, cases[i].status, row, cases[i].words);
    }
    bytes b = make_npy(4, "");
    check_fails("a.npy", b.data, b.size, NULL, VEX_UNSUPPORTED, -1, "version 4");
}

/* Half precision: every class of numbers, against their definition. */
TEST(npy_half) {
    static const struct {
        uint16_t bits;
        float value;
    } cases[] = {{0x0001, 0x1p-24f}, {0x03ff, 0x1.ff8p-15f}, {0x0400, 0x1p-14f},   {0x7bff, 65504},
                 {0xfbff, -65504},   {0x8001, -0x1p-24f},    {0x3555, 0x1.554p-2f}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b = make_npy(1, "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1), }");
        uint8_t half[2];
        vexi_put_u16(half, cases[i].bits);
        put(&b, half, 2);
        opened o;
        CHECK_OK(open_bytes(&o, "a.npy", b.data, b.size, NULL, &err));
        vexi_row *rows;
        size_t count;
        CHECK_OK(vexi_row_source_next(o.source, 2, &o.arena, &rows, &count, &err));
        CHECK(rows[0].vector[0] == cases[i].value);
        close_bytes(&o);
    }
    bytes b = make_npy(1, "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 1), }");
    put(&b, "\x00\x7c", 2);
    check_fails("a.npy", b.data, b.size, NULL, VEX_INVALID, 0, "infinity");
}

/* ---- JSON lines ---------------------------------------------------------------------------------
 */

TEST(jsonl) {
    static const char text[] =
        "{\"id\": \"a\", \"vector\": [1, 2.5], \"n\": 1, \"r\": 1, \"s\": \"x\\u00e4\", \"b\": "
        "true,"
        " \"attributes\": { \"z\" : [1, \"}\\\"\"], \"y\":{}}, \"payload\": \"no\", \"m\": 1}\n"
        "\n  \t\r\n"
        "{\"vector\": [3e0, -4], \"id\": 7, \"r\": 0.5, \"deep\": {\"q\": 1}, \"m\": \"two\","
        " \"t\": \"attributes\", \"attributes\": null, \"id2\": null}\r\n"
        "{\"id\": \"c\", \"vector\": [0, 0], \"n\": -9223372036854775808, \"b\": null}";
    opened o;
    CHECK_OK(open_bytes(&o, "x.NDJSON", text, strlen(text), NULL, &err));
    CHECK_EQ(o.info.dimension, 2);
    CHECK_EQ(o.info.row_count, 0);
    CHECK_EQ(o.info.column_count, 5);
    static const char *const names[] = {"n", "r", "s", "b", "t"};
    static const vex_type types[] = {VEX_TYPE_INT64, VEX_TYPE_DOUBLE, VEX_TYPE_STRING,
                                     VEX_TYPE_BOOL, VEX_TYPE_STRING};
    for (size_t c = 0; c < 5; c++) {
        check_text(names[c], o.info.columns[c].name);
        CHECK_EQ(o.info.columns[c].type, types[c]);
    }
    check_text("payload, m, deep, id2", vexi_string_of(o.info.skipped));
    vexi_row *rows;
    size_t count;
    CHECK_OK(vexi_row_source_next(o.source, 10, &o.arena, &rows, &count, &err));
    CHECK_EQ(count, 3);
    check_text("a", rows[0].id);
    check_text("7", rows[1].id);
    CHECK(rows[0].vector[1] == 2.5f && rows[1].vector[0] == 3 && rows[1].vector[1] == -4);
    check_text("{ \"z\" : [1, \"}\\\"\"], \"y\":{}}", rows[0].attributes);
    CHECK(rows[1].attributes.data == NULL && rows[2].attributes.data == NULL);
    CHECK(rows[0].cells[0].as.int64 == 1 && rows[0].cells[1].as.float64 == 1.0);
    check_text("x\xc3\xa4", rows[0].cells[2].as.string);
    CHECK(rows[0].cells[3].as.boolean && rows[0].cells[4].is_null);
    CHECK(rows[1].cells[0].is_null && rows[1].cells[1].as.float64 == 0.5);
    check_text("attributes", rows[1].cells[4].as.string);
    CHECK(rows[2].cells[0].as.int64 == INT64_MIN && rows[2].cells[3].is_null);
    CHECK_OK(vexi_row_source_next(o.source, 10, &o.arena, &rows, &count, &err));
    CHECK_EQ(count, 0);
    close_bytes(&o);
}

TEST(jsonl_ids) {
    static const char numbered[] = "{\"vector\":[1]}\n\n{\"vector\":[2]}\n";
    vexi_row_source_options options = {.first_number = 5};
    opened o;
    vexi_row *rows;
    size_t count;
    CHECK_OK(open_bytes(&o, "x.jsonl", numbered, strlen(numbered), &options, &err));
    CHECK_OK(vexi_row_source_next(o.source, 1, &o.arena, &rows, &count, &err));
    check_text("5", rows[0].id);
    CHECK_OK(vexi_row_source_next(o.source, 1, &o.arena, &rows, &count, &err));
    check_text("6", rows[0].id);
    close_bytes(&o);

    static const char integers[] = "{\"id\":3,\"vector\":[1]}\n{\"id\":-4,\"vector\":[2]}\n";
    CHECK_OK(open_bytes(&o, "x.jsonl", integers, strlen(integers), NULL, &err));
    CHECK_EQ(o.info.column_count, 1);
    check_text("id_number", o.info.columns[0].name);
    CHECK_OK(vexi_row_source_next(o.source, 9, &o.arena, &rows, &count, &err));
    check_text("-4", rows[1].id);
    CHECK_EQ(rows[1].cells[0].as.int64, -4);
    close_bytes(&o);

    static const char other[] = "{\"key\":\"k\",\"v\":[1],\"vector\":2}\n";
    options = (vexi_row_source_options){.id_column = vexi_string_of("key"),
                                        .vector_column = vexi_string_of("v")};
    CHECK_OK(open_bytes(&o, "x.jsonl", other, strlen(other), &options, &err));
    check_text("vector", vexi_string_of(o.info.skipped));
    CHECK_OK(vexi_row_source_next(o.source, 9, &o.arena, &rows, &count, &err));
    check_text("k", rows[0].id);
    close_bytes(&o);
}

TEST(jsonl_refused) {
    check_text_fails("", VEX_INVALID, -1, "no row");
    check_text_fails("\n \n", VEX_INVALID, -1, "no row");
    check_text_fails("[1]\n", VEX_INVALID, 0, "line 1: not a JSON object");
    check_text_fails("{\"vector\":[1]}\n{\"vector\":[1}\n", VEX_INVALID, 1, "line 2");
    check_text_fails("{\"vector\":[1]}\n\n{\"vector\":[1,2]}\n", VEX_INVALID, 2, "2 values");
    check_text_fails("{\"vector\":[]}\n", VEX_INVALID, 0, "0 values");
    check_text_fails("{\"vector\":\"1\"}\n", VEX_INVALID, 0, "vector");
    check_text_fails("{\"a\":1}\n", VEX_INVALID, 0, "vector");
    check_text_fails("{\"vector\":[null]}\n", VEX_INVALID, 0, "no number");
    check_text_fails("{\"vector\":[1e39]}\n", VEX_INVALID, 0, "infinity");
    check_text_fails("{\"vector\":[NaN]}\n", VEX_INVALID, 0, "line 1");
    check_text_fails("{\"id\":null,\"vector\":[1]}\n", VEX_INVALID, 0, "id");
    check_text_fails("{\"id\":1.5,\"vector\":[1]}\n", VEX_INVALID, 0, "id");
    check_text_fails("{\"id\":\"\",\"vector\":[1]}\n", VEX_INVALID, 0, "id of 0 bytes");
    check_text_fails("{\"id\":99999999999999999999,\"vector\":[1]}\n", VEX_INVALID, 0, "line 1");
    check_text_fails("{\"attributes\":1,\"vector\":[1]}\n", VEX_INVALID, 0, "attributes");
    check_text_fails("{\"\\u0061ttributes\":{},\"vector\":[1]}\n", VEX_INVALID, 0, "escapes");
    check_text_fails("{\"id\":\"a\",\"id\":\"b\",\"vector\":[1]}\n", VEX_INVALID, 0, "duplicate");
    /* A type that changes after the lines that decided. */
    char *text = malloc(1001 * 24 + 64);
    CHECK(text != NULL);
    size_t size = 0;
    for (int i = 0; i < 1000; i++) {
        size += (size_t)snprintf(text + size, 64, "{\"vector\":[1],\"n\":%d}\n", i % 10);
    }
    size += (size_t)snprintf(text + size, 64, "{\"vector\":[1],\"n\":\"x\"}\n");
    check_fails("a.jsonl", text, size, NULL, VEX_INVALID, 1000, "line 1001: the value of n");
    free(text);
}

TEST(formats) {
    check_fails("a.csv", "a,b\n", 4, NULL, VEX_INVALID, -1, "unknown format");
    check_fails("a.parquet", "PAR0", 4, NULL, VEX_INVALID, -1, "does not match");
    check_fails("a.npy", "", 0, NULL, VEX_INVALID, -1, "does not match");
    check_fails("a", "PARE0000PARE", 12, NULL, VEX_UNSUPPORTED, -1, "encrypted");
    check_fails("a", "PAR1", 4, NULL, VEX_INVALID, -1, "not a Parquet file");
    check_fails("a", "PAR1xxxxxxxxxxxx", 16, NULL, VEX_CORRUPT, -1, "cut off");
    check_fails("a", "PAR1xxxx\xff\xff\xff\xffPAR1", 16, NULL, VEX_CORRUPT, -1, "footer");
    vexi_row_source_close(NULL);
}

TEST_MAIN(RUN(vecs); RUN(ids_from_text); RUN(npy); RUN(npy_refused); RUN(npy_half); RUN(jsonl);
          RUN(jsonl_ids); RUN(jsonl_refused); RUN(formats))
