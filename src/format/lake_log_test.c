#include "format/lake_log.h"

#include "check.h"

static const char collection[37] = "01234567-89ab-cdef-0123-456789abcdef";
static const char writer[37] = "fedcba98-7654-3210-fedc-ba9876543210";

static vexi_log_object group_of(uint64_t number, uint32_t records) {
    vexi_log_object object = {.kind = VEXI_LOG_GROUP,
                              .number = number,
                              .epoch = 3,
                              .claim_number = number - 1,
                              .record_count = records};
    memcpy(object.collection, collection, sizeof collection);
    memcpy(object.node, writer, sizeof writer);
    return object;
}

/* Header and body in one buffer. */
static size_t write_file(const vexi_log_object *object, const char *body, uint8_t *out) {
    size_t size = strlen(body);
    vexi_span parts[2] = {vexi_span_of(body, size / 2),
                          vexi_span_of(body + size / 2, size - size / 2)};
    vexi_log_object_write(object, parts, 2, out);
    memcpy(out + VEXI_LOG_OBJECT_HEADER_SIZE, body, size);
    return VEXI_LOG_OBJECT_HEADER_SIZE + size;
}

TEST(round_trip) {
    uint8_t file[512];
    vexi_log_object object = group_of(77, 5);
    size_t size = write_file(&object, "five records, as it were", file);
    vexi_log_object read;
    CHECK_OK(vexi_log_object_read(vexi_span_of(file, size), &read, &err));
    CHECK(read.kind == VEXI_LOG_GROUP && read.number == 77 && read.epoch == 3);
    CHECK(read.claim_number == 76 && read.record_count == 5 && !read.local);
    CHECK(strcmp(read.collection, collection) == 0 && strcmp(read.node, writer) == 0);
    CHECK(read.body.size == 24 && memcmp(read.body.data, "five", 4) == 0);
    object.kind = VEXI_LOG_CLAIM;
    object.claim_number = 77;
    object.record_count = 0;
    object.local = true;
    size = write_file(&object, "host:12", file);
    CHECK_OK(vexi_log_object_read(vexi_span_of(file, size), &read, &err));
    CHECK(read.kind == VEXI_LOG_CLAIM && read.claim_number == 77 && read.local);
    CHECK(read.body.size == 7 && memcmp(read.body.data, "host:12", 7) == 0);
    size = write_file(&object, "", file);
    CHECK_OK(vexi_log_object_read(vexi_span_of(file, size), &read, &err));
    CHECK_EQ(read.body.size, 0);
}

TEST(every_shorter_or_longer_file_is_noticed) {
    uint8_t file[512] = {0};
    vexi_log_object object = group_of(9, 1);
    size_t size = write_file(&object, "the only record", file);
    vexi_log_object read;
    for (size_t cut = 0; cut < size; cut++) {
        CHECK_FAILS(VEX_CORRUPT, vexi_log_object_read(vexi_span_of(file, cut), &read, &err));
    }
    CHECK_FAILS(VEX_CORRUPT, vexi_log_object_read(vexi_span_of(file, size + 1), &read, &err));
}

TEST(every_flipped_bit_is_noticed) {
    uint8_t file[512];
    vexi_log_object object = group_of(9, 1);
    size_t size = write_file(&object, "the only record", file);
    for (size_t at = 0; at < size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            vexi_log_object read;
            vex_error error;
            file[at] ^= (uint8_t)(1 << bit);
            vex_status status = vexi_log_object_read(vexi_span_of(file, size), &read, &error);
            /* In the version it may look like a newer one's. */
            CHECK(status == VEX_CORRUPT || (status == VEX_UNSUPPORTED && at >= 8 && at < 12));
            file[at] ^= (uint8_t)(1 << bit);
        }
    }
}

/* Headers with a checksum that is right and fields that are not. */
TEST(what_makes_no_sense_is_refused) {
    uint8_t file[512];
    vexi_log_object read;
    for (int way = 0; way < 10; way++) {
        vexi_log_object object = group_of(9, 1);
        const char *body = "x";
        char long_body[VEXI_LOG_HOLDER_SIZE_MAX + 2];
        switch (way) {
        case 0:
            object.number = 0;
            break;
        case 1:
            object.number = VEXI_LOG_NUMBER_MAX;
            break;
        case 2:
            object.epoch = 0;
            break;
        case 3:
            object.epoch = UINT64_MAX;
            break;
        case 4:
            object.claim_number = 0;
            break;
        case 5: /* a group does not come before its claim */
            object.claim_number = 10;
            break;
        case 6: /* nor is it the claim */
            object.claim_number = 9;
            break;
        case 7:
            object.record_count = 0;
            break;
        case 8:
            object.record_count = VEXI_LOG_GROUP_RECORDS_MAX + 1;
            break;
        default: /* a holder's name is short */
            object.kind = VEXI_LOG_CLAIM;
            object.claim_number = 9;
            memset(long_body, 'x', sizeof long_body - 1);
            long_body[sizeof long_body - 1] = '\0';
            body = long_body;
            break;
        }
        size_t size = write_file(&object, body, file);
        CHECK_FAILS(VEX_CORRUPT, vexi_log_object_read(vexi_span_of(file, size), &read, &err));
    }
    vexi_log_object object = group_of(9, 1);
    object.collection[5] = 'G';
    size_t size = write_file(&object, "x", file);
    CHECK_FAILS(VEX_CORRUPT, vexi_log_object_read(vexi_span_of(file, size), &read, &err));
    object = group_of(9, 1);
    object.kind = 7;
    size = write_file(&object, "x", file);
    CHECK_FAILS(VEX_CORRUPT, vexi_log_object_read(vexi_span_of(file, size), &read, &err));
}

TEST(names) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    char *prefix = vexi_log_prefix(&arena, "c", collection);
    size_t prefix_size = strlen(prefix);
    static const uint64_t numbers[] = {1, 9, 10, 4096, VEXI_LOG_NUMBER_MAX - 1};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char *name = vexi_log_object_name(&arena, "c", collection, numbers[i]);
        CHECK(strncmp(name, prefix, prefix_size) == 0);
        CHECK_EQ(vexi_log_object_number(name, prefix_size), numbers[i]);
    }
    static const char *const others[] = {
        "",
        "x",
        "00000000000000000001",
        "00000000000000000001.txt",
        "0000000000000000001.log",
        "000000000000000000001.log",
        "0000000000000000000x.log",
        "00000000000000000000.log",
        "99999999999999999999.log",
        "00000004398046511104.log", /* 1 << 42 */
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", prefix, others[i]);
        CHECK_EQ(vexi_log_object_number(name, prefix_size), 0);
    }
    vexi_arena_deinit(&arena);
}

TEST(sequences_and_positions) {
    CHECK_EQ(vexi_log_position(0), 0);
    CHECK_EQ(vexi_log_position(5), 0);
    static const uint64_t numbers[] = {1, 2, 1000, VEXI_LOG_NUMBER_MAX - 1};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint64_t first = vexi_log_first_sequence(numbers[i], 7);
        CHECK(first > vexi_log_first_sequence(numbers[i] - 1, 1));
        CHECK_EQ(vexi_log_position(first + 6), numbers[i]); /* its last record */
        CHECK_EQ(vexi_log_position(first + 5), numbers[i] - 1);
        CHECK_EQ(vexi_log_position(first - 1), numbers[i] - 1);
        CHECK(first + 6 <= INT64_MAX); /* what a txn holds */
        /* A whole group of the largest size begins right behind the one before. */
        CHECK_EQ(vexi_log_first_sequence(numbers[i], VEXI_LOG_GROUP_RECORDS_MAX),
                 vexi_log_first_sequence(numbers[i] - 1, 1) + 1);
    }
}

TEST_MAIN(RUN(round_trip); RUN(every_shorter_or_longer_file_is_noticed);
          RUN(every_flipped_bit_is_noticed); RUN(what_makes_no_sense_is_refused); RUN(names);
          RUN(sequences_and_positions))
