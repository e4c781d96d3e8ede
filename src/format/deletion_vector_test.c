#include "check.h"

#include <roaring/roaring.h>

#include "base/bitmap.h"
#include "base/bytes.h"
#include "format/deletion_vector.h"
#include "format/z85.h"

static vexi_arena arena_make(void) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    return arena;
}

TEST(z85_known_answers) {
    static const uint8_t hello[8] = {0x86, 0x4f, 0xd2, 0x6f, 0xb5, 0x59, 0xf7, 0x5b};
    char text[10];
    vexi_z85_encode(vexi_span_of(hello, 8), text);
    CHECK(memcmp(text, "HelloWorld", 10) == 0);
    uint8_t bytes[8];
    CHECK_OK(vexi_z85_decode((vex_string){text, 10}, bytes, &err));
    CHECK(memcmp(bytes, hello, 8) == 0);
    CHECK_FAILS(VEX_CORRUPT, vexi_z85_decode(vexi_string_of("Hell"), bytes, &err));
    CHECK_FAILS(VEX_CORRUPT, vexi_z85_decode(vexi_string_of("Hell\""), bytes, &err));
    CHECK_FAILS(VEX_CORRUPT, vexi_z85_decode(vexi_string_of("Hell\xff"), bytes, &err));
    CHECK_FAILS(VEX_CORRUPT, vexi_z85_decode(vexi_string_of("#####"), bytes, &err));
    CHECK_OK(vexi_z85_decode(vexi_string_of("%nSc0"), bytes, &err)); /* 2^32 - 1 */
    CHECK(vexi_get_u32(bytes) == UINT32_MAX);
    CHECK_FAILS(VEX_CORRUPT, vexi_z85_decode(vexi_string_of("%nSc1"), bytes, &err));
}

TEST(z85_round_trip) {
    uint64_t seed = vex_test_seed(3);
    for (size_t size = 0; size < 70; size++) {
        uint8_t data[72] = {0}, again[72];
        char text[90];
        for (size_t i = 0; i < size; i++) {
            data[i] = (uint8_t)vex_test_random(&seed);
        }
        vexi_z85_encode(vexi_span_of(data, size), text);
        vex_string encoded = {text, vexi_z85_text_size(size)};
        CHECK_OK(vexi_z85_decode(encoded, again, &err));
        CHECK(memcmp(data, again, size) == 0);
    }
    /* Each of the 256 characters: in the alphabet, once, or refused. */
    size_t valid = 0;
    for (int c = 0; c < 256; c++) {
        char text[5] = {'0', '0', '0', '0', (char)c};
        uint8_t data[4];
        char back[5];
        if (vexi_z85_decode((vex_string){text, 5}, data, NULL) == VEX_OK) {
            vexi_z85_encode(vexi_span_of(data, 4), back);
            CHECK(memcmp(text, back, 5) == 0);
            valid++;
        }
    }
    CHECK_EQ(valid, 85);
}

/* The examples of the protocol's text. */
TEST(protocol_examples) {
    vexi_arena arena = arena_make();
    vexi_delta_dv dv = {.storage = 'i',
                        .encoded =
                            vexi_string_of("wi5b=000010000siXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L"),
                        .size_bytes = 40,
                        .cardinality = 6};
    vexi_span data;
    CHECK_OK(vexi_dv_inline_data(&dv, &arena, &data, &err));
    CHECK_EQ(data.size, 40);
    /* It is in the native form, of which we take the 32-bit bitmap alone: behind magic, number of
     * bitmaps and size. */
    uint64_t hidden[1] = {0};
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_dv_decode(data, 30, 6, hidden, &err));
    uint8_t portable[16 + 28] = {0xd1, 0xd3, 0x39, 0x64, 1};
    memcpy(portable + 16, data.data + 12, 28);
    data = vexi_span_of(portable, sizeof portable);
    CHECK_OK(vexi_dv_decode(data, 30, 6, hidden, &err));
    uint64_t expected = 1u << 3 | 1u << 4 | 1u << 7 | 1u << 11 | 1u << 18 | 1u << 29;
    CHECK(hidden[0] == expected);
    hidden[0] = 0;
    CHECK_FAILS(VEX_CORRUPT, vexi_dv_decode(data, 29, 6, hidden, &err)); /* row 29 of 29 */
    CHECK_FAILS(VEX_CORRUPT, vexi_dv_decode(data, 30, 5, hidden, &err));
    CHECK(hidden[0] == 0);

    vexi_delta_dv file = {.storage = 'u', .encoded = vexi_string_of("ab^-aqEH.-t@S}K{vb[*k^")};
    const char *name;
    CHECK_OK(vexi_dv_object_name(&file, &arena, &name, &err));
    CHECK(strcmp(name, "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin") == 0);
    vexi_delta_dv made;
    CHECK_OK(vexi_dv_by_uuid("d2c639aa-8816-431a-aaf6-d3fe2512ff61", 40, 6, &arena, &made, &err));
    CHECK(vexi_string_is(made.encoded, "^-aqEH.-t@S}K{vb[*k^"));
    CHECK(made.storage == 'u' && made.offset == 1 && made.size_bytes == 40);
    CHECK_OK(vexi_dv_object_name(&made, &arena, &name, &err));
    CHECK(strcmp(name, "deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin") == 0);
    vexi_arena_deinit(&arena);
}

/* The same set through CRoaring, in the 64-bit portable form. */
static void reference_encode(const uint64_t *hidden, uint64_t rows, bool runs, vexi_buffer *out) {
    roaring_bitmap_t *bitmap = roaring_bitmap_create();
    for (uint64_t row = 0; row < rows; row++) {
        if (vexi_bitmap_get(hidden, row)) {
            roaring_bitmap_add(bitmap, (uint32_t)row);
        }
    }
    if (runs) {
        roaring_bitmap_run_optimize(bitmap);
    }
    bool empty = roaring_bitmap_is_empty(bitmap);
    vexi_buffer_u32(out, 1681511377);
    vexi_buffer_u64(out, empty ? 0 : 1);
    if (!empty) {
        vexi_buffer_u32(out, 0);
        size_t size = roaring_bitmap_portable_size_in_bytes(bitmap);
        uint8_t *target = vexi_buffer_reserve(out, size);
        CHECK(target != NULL);
        CHECK_EQ(roaring_bitmap_portable_serialize(bitmap, (char *)target), size);
        out->size += size;
    }
    roaring_bitmap_free(bitmap);
}

static void check_set(const uint64_t *hidden, uint64_t rows) {
    size_t words = vexi_bitmap_words(rows);
    uint64_t cardinality = vexi_bitmap_count(hidden, rows);
    vexi_buffer ours, theirs;
    vexi_buffer_init(&ours, vex_test_env(), 1 << 28);
    vexi_buffer_init(&theirs, vex_test_env(), 1 << 28);
    uint64_t *again = calloc(words + 1, sizeof *again);
    CHECK(again != NULL);
    CHECK_OK(vexi_dv_encode(hidden, rows, &ours, &err));
    CHECK_OK(vexi_dv_decode(vexi_span_of(ours.data, ours.size), rows, cardinality, again, &err));
    CHECK(memcmp(hidden, again, words * 8) == 0);
    for (int runs = 0; runs < 2; runs++) {
        vexi_buffer_clear(&theirs);
        reference_encode(hidden, rows, runs != 0, &theirs);
        memset(again, 0, words * 8);
        CHECK_OK(
            vexi_dv_decode(vexi_span_of(theirs.data, theirs.size), rows, cardinality, again, &err));
        CHECK(memcmp(hidden, again, words * 8) == 0);
    }
    CHECK(ours.size <= theirs.size); /* runs where they are smaller */
    if (cardinality > 0) {
        roaring_bitmap_t *bitmap =
            roaring_bitmap_portable_deserialize_safe((const char *)ours.data + 16, ours.size - 16);
        CHECK(bitmap != NULL);
        CHECK_EQ(roaring_bitmap_portable_size_in_bytes(bitmap), ours.size - 16);
        CHECK_EQ(roaring_bitmap_get_cardinality(bitmap), cardinality);
        for (uint64_t row = 0; row < rows; row++) {
            CHECK(roaring_bitmap_contains(bitmap, (uint32_t)row) == vexi_bitmap_get(hidden, row));
        }
        roaring_bitmap_free(bitmap);
    }
    free(again);
    vexi_buffer_deinit(&ours);
    vexi_buffer_deinit(&theirs);
}

TEST(sets_agree_with_croaring) {
    enum { ROWS = 400000 };
    uint64_t seed = vex_test_seed(17);
    uint64_t *hidden = calloc(vexi_bitmap_words(ROWS), 8);
    CHECK(hidden != NULL);
    static const uint64_t row_counts[] = {0, 1, 63, 64, 65, 65535, 65536, 65537, 200001, ROWS};
    for (size_t n = 0; n < sizeof row_counts / sizeof *row_counts; n++) {
        uint64_t rows = row_counts[n];
        for (int kind = 0; kind < 6; kind++) {
            memset(hidden, 0, vexi_bitmap_words(ROWS) * 8);
            for (uint64_t row = 0; row < rows; row++) {
                bool set = false;
                switch (kind) {
                case 0: /* none */
                    break;
                case 1: /* all: one run a container */
                    set = true;
                    break;
                case 2: /* few */
                    set = vex_test_below(&seed, 1000) == 0;
                    break;
                case 3: /* half: bits */
                    set = vex_test_below(&seed, 2) == 0;
                    break;
                case 4: /* long runs */
                    set = row / 5000 % 2 == 1;
                    break;
                default: /* each container another form, some empty */
                    set = row / 65536 % 4 == 0   ? row % 97 == 0
                          : row / 65536 % 4 == 1 ? false
                          : row / 65536 % 4 == 2 ? row % 3 == 0
                                                 : row % 65536 > 60000;
                    break;
                }
                if (set) {
                    vexi_bitmap_set(hidden, row);
                }
            }
            check_set(hidden, rows);
        }
    }
    free(hidden);
}

/* Stray bits behind the last row are not rows. */
TEST(bits_behind_the_last_row) {
    uint64_t hidden[1] = {UINT64_MAX}, again[1] = {0};
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1000);
    CHECK_OK(vexi_dv_encode(hidden, 3, &out, &err));
    CHECK_OK(vexi_dv_decode(vexi_span_of(out.data, out.size), 3, 3, again, &err));
    CHECK(again[0] == 7);
    vexi_buffer_deinit(&out);
}

/* A failure changes nothing, wherever the damage is. */
TEST(damaged_bytes) {
    enum { ROWS = 150000 };
    uint64_t seed = vex_test_seed(23);
    size_t words = vexi_bitmap_words(ROWS);
    uint64_t *hidden = calloc(words, 8), *again = calloc(words, 8);
    CHECK(hidden != NULL && again != NULL);
    for (uint64_t row = 0; row < ROWS; row++) {
        if (row < 65536 ? row % 1000 == 0 : row < 131072 ? row % 3 == 0 : row > 140000) {
            vexi_bitmap_set(hidden, row);
        }
    }
    uint64_t cardinality = vexi_bitmap_count(hidden, ROWS);
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1 << 20);
    CHECK_OK(vexi_dv_encode(hidden, ROWS, &out, &err));
    for (size_t size = 0; size < out.size; size++) {
        CHECK_FAILS(VEX_CORRUPT,
                    vexi_dv_decode(vexi_span_of(out.data, size), ROWS, cardinality, again, &err));
    }
    uint64_t refused = 0;
    for (uint64_t trial = 0; trial < vex_test_effort(3000); trial++) {
        size_t at = (size_t)vex_test_below(&seed, trial % 2 == 0 ? 60 : out.size);
        uint8_t old = out.data[at];
        out.data[at] = (uint8_t)vex_test_random(&seed);
        vex_status status =
            vexi_dv_decode(vexi_span_of(out.data, out.size), ROWS, cardinality, again, NULL);
        CHECK(status == VEX_OK || status == VEX_CORRUPT || status == VEX_UNSUPPORTED);
        size_t set = vexi_bitmap_count(again, ROWS);
        CHECK_EQ(set, status == VEX_OK ? cardinality : 0);
        memset(again, 0, words * 8);
        refused += status != VEX_OK;
        out.data[at] = old;
    }
    CHECK(refused > 0);
    free(hidden);
    free(again);
    vexi_buffer_deinit(&out);
}

TEST(files) {
    vexi_arena arena = arena_make();
    uint64_t hidden[2] = {5, 1}, again[2] = {0};
    vexi_buffer data, file;
    vexi_buffer_init(&data, vex_test_env(), 1 << 20);
    vexi_buffer_init(&file, vex_test_env(), 1 << 20);
    CHECK_OK(vexi_dv_encode(hidden, 100, &data, &err));
    CHECK_OK(vexi_dv_file_write(vexi_span_of(data.data, data.size), &file, &err));
    CHECK_EQ(file.size, data.size + 9);
    CHECK(file.data[0] == 1 && file.data[1] == 0 && file.data[4] == data.size); /* big-endian */
    vexi_delta_dv dv;
    CHECK_OK(
        vexi_dv_by_uuid("d2c639aa-8816-431a-aaf6-d3fe2512ff61", data.size, 3, &arena, &dv, &err));
    vexi_span found;
    CHECK_OK(vexi_dv_file_find(vexi_span_of(file.data, file.size), &dv, &found, &err));
    CHECK_OK(vexi_dv_decode(found, 100, dv.cardinality, again, &err));
    CHECK(again[0] == 5 && again[1] == 1);
    for (size_t bit = 0; bit < file.size * 8; bit++) {
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_FAILS(VEX_CORRUPT,
                    vexi_dv_file_find(vexi_span_of(file.data, file.size), &dv, &found, &err));
        file.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t size = 0; size < file.size; size++) {
        CHECK_FAILS(VEX_CORRUPT,
                    vexi_dv_file_find(vexi_span_of(file.data, size), &dv, &found, &err));
    }
    dv.offset = 0;
    CHECK_FAILS(VEX_CORRUPT,
                vexi_dv_file_find(vexi_span_of(file.data, file.size), &dv, &found, &err));
    dv.offset = UINT32_MAX;
    CHECK_FAILS(VEX_CORRUPT,
                vexi_dv_file_find(vexi_span_of(file.data, file.size), &dv, &found, &err));
    vexi_buffer_deinit(&data);
    vexi_buffer_deinit(&file);
    vexi_arena_deinit(&arena);
}

TEST(descriptors) {
    vexi_arena arena = arena_make();
    for (size_t size = 0; size <= 13; size++) {
        vexi_delta_dv dv;
        vexi_span data;
        CHECK_OK(vexi_dv_inline(vexi_span_of("0123456789abc", size), 2, &arena, &dv, &err));
        CHECK_OK(vexi_dv_inline_data(&dv, &arena, &data, &err));
        CHECK(data.size == size && memcmp(data.data, "0123456789abc", size) == 0);
        dv.size_bytes += 4;
        CHECK_FAILS(VEX_CORRUPT, vexi_dv_inline_data(&dv, &arena, &data, &err));
    }
    const char *name;
    vexi_delta_dv dv = {.storage = 'p', .encoded = vexi_string_of("s3://b/x.bin")};
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_dv_object_name(&dv, &arena, &name, &err));
    static const char *const bad[] = {"short", "../^-aqEH.-t@S}K{vb[*k^", "a/b^-aqEH.-t@S}K{vb[*k^",
                                      "ab^-aqEH.-t@S}K{vb[*k\""};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        dv = (vexi_delta_dv){.storage = 'u', .encoded = vexi_string_of(bad[i])};
        CHECK_FAILS(VEX_CORRUPT, vexi_dv_object_name(&dv, &arena, &name, &err));
    }
    CHECK_FAILS(VEX_INVALID, vexi_dv_by_uuid("d2c639aa", 1, 1, &arena, &dv, &err));
    vexi_arena_deinit(&arena);
}

TEST_MAIN(RUN(z85_known_answers); RUN(z85_round_trip); RUN(protocol_examples);
          RUN(sets_agree_with_croaring); RUN(bits_behind_the_last_row); RUN(damaged_bytes);
          RUN(files); RUN(descriptors))
