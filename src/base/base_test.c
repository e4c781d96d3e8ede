#include "check.h"

#include <unistd.h>

#include <sys/mman.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/bytes.h"
#include "base/checksum.h"
#include "base/guard.h"
#include "base/utf8.h"

TEST(crc32c_known_answers) {
    /* RFC 3720, B.4 */
    uint8_t zeros[32] = {0};
    CHECK(vexi_crc32c(0, zeros, 32) == 0x8a9136aau);
    CHECK(vexi_crc32c(0, "123456789", 9) == 0xe3069283u);
    CHECK(vexi_crc32(0, "123456789", 9) == 0xcbf43926u);
    CHECK(vexi_hash64("", 0) == 0xef46db3751d8e999u);
}

TEST(crc32c_variants_agree) {
    uint64_t seed = 1;
    uint8_t bytes[300];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)vex_test_random(&seed);
    }
    for (size_t offset = 0; offset < 8; offset++) {
        for (size_t size = 0; size + offset <= sizeof bytes; size++) {
            uint32_t expected = vexi_crc32c_portable(7, bytes + offset, size);
            CHECK(vexi_crc32c(7, bytes + offset, size) == expected);
        }
    }
}

/* Sizes about the ends of lanes, and any other, from any start. */
TEST(crc32c_of_long_inputs) {
    uint64_t seed = vex_test_seed(2);
    static uint8_t bytes[70000];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)vex_test_random(&seed);
    }
    for (size_t i = 0; i < 400; i++) {
        size_t offset = (size_t)vex_test_below(&seed, 64);
        size_t size = i < 100 ? 3072 * (1 + i / 20) + i % 20 - 10
                              : (size_t)vex_test_below(&seed, sizeof bytes - offset);
        uint32_t start = (uint32_t)vex_test_random(&seed);
        CHECK_EQ(vexi_crc32c(start, bytes + offset, size),
                 vexi_crc32c_portable(start, bytes + offset, size));
    }
}

TEST(utf8) {
    static const struct {
        const char *text;
        bool valid;
    } cases[] = {{"", true},
                 {"abc", true},
                 {"h\xc3\xa9", true},
                 {"\xc0\x80", false},
                 {"\xc3", false},
                 {"\xed\xa0\x80", false},
                 {"\x80", false},
                 {"\xff", false},
                 {"\xf4\x90\x80\x80", false},
                 {"\xe2\x82\xac", true},
                 {"\xf0\x9f\x98\x80", true},
                 {"\xe0\x80\xaf", false},
                 {"abcdefgh\xff", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(vexi_utf8_valid(cases[i].text, strlen(cases[i].text)) == cases[i].valid);
    }
}

TEST(buffer_keeps_its_limit) {
    vexi_buffer buffer;
    vexi_buffer_init(&buffer, vex_test_env(), 1000);
    for (int i = 0; i < 100; i++) {
        vexi_buffer_format(&buffer, "%010d", i);
    }
    CHECK_OK(vexi_buffer_check(&buffer, &err));
    CHECK_EQ(buffer.size, 1000);
    vexi_buffer_u8(&buffer, 1);
    CHECK_EQ(buffer.size, 1000);
    CHECK_FAILS(VEX_LIMIT, vexi_buffer_check(&buffer, &err));
    vexi_buffer_deinit(&buffer);
    /* Far below its limit in memory, but one append would pass it. */
    vexi_buffer_init(&buffer, vex_test_env(), 1000);
    vexi_buffer_u8(&buffer, 1);
    CHECK(vexi_buffer_reserve(&buffer, 1000) == NULL);
    CHECK_FAILS(VEX_LIMIT, vexi_buffer_check(&buffer, &err));
    vexi_buffer_deinit(&buffer);
}

TEST(reader_stops_at_the_end) {
    uint8_t bytes[10] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
    vexi_reader reader = vexi_reader_of(vexi_span_of(bytes, sizeof bytes));
    CHECK(vexi_read_u64(&reader) == 0x0807060504030201u);
    CHECK(!reader.failed);
    CHECK(vexi_read_u32(&reader) == 0);
    CHECK(reader.failed);
    CHECK(vexi_read_u8(&reader) == 0);
}

TEST(arena_alignment) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    uint64_t seed = 3;
    for (int i = 0; i < 2000; i++) {
        size_t size = vex_test_below(&seed, 5000);
        uint8_t *p = vexi_arena_alloc_aligned(&arena, 64, size);
        CHECK(p != NULL && ((uintptr_t)p & 63) == 0);
        memset(p, 1, size);
    }
    vexi_arena_deinit(&arena);
}

typedef struct sum_job {
    uint64_t values[1000];
} sum_job;

static void sum_step(void *argument, size_t i) {
    ((sum_job *)argument)->values[i] += i;
}

TEST(parallel_runs_each_once) {
    static sum_job job;
    for (int round = 0; round < 50; round++) {
        vexi_parallel(vex_test_env(), 1000, sum_step, &job);
    }
    for (size_t i = 0; i < 1000; i++) {
        CHECK_EQ(job.values[i], 50 * i);
    }
}

static void count_task(void *argument) {
    __atomic_add_fetch((int *)argument, 1, __ATOMIC_SEQ_CST);
}

TEST(tasks_run_and_cancel) {
    int count = 0;
    vexi_task task = {.run = count_task, .argument = &count};
    vexi_submit(vex_test_env(), &task, 0);
    while (__atomic_load_n(&count, __ATOMIC_SEQ_CST) == 0) {
        usleep(1000);
    }
    vexi_submit(vex_test_env(), &task, 1000000);
    vexi_cancel(vex_test_env(), &task);
    CHECK_EQ(count, 1);
}

static vex_status touch(void *argument, vex_error *err) {
    (void)err;
    return *(volatile char *)argument == 1 ? VEX_OK : VEX_OK;
}

TEST(sigbus_becomes_a_status) {
    vexi_guard_install();
    char path[] = "/tmp/vexlake-guard-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0 && unlink(path) == 0 && ftruncate(fd, 4096) == 0);
    char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    CHECK_OK(vexi_guard_run(touch, map, "x", &err));
    CHECK(ftruncate(fd, 0) == 0);
    CHECK_FAILS(VEX_IO, vexi_guard_run(touch, map, "x", &err));
    munmap(map, 4096);
    close(fd);
}

TEST(error_messages_are_one_line) {
    vex_error err;
    CHECK(vexi_fail(&err, VEX_INVALID, "a\r\nb") == VEX_INVALID);
    CHECK(strcmp(err.message, "a  b") == 0);
    CHECK(vexi_prefix(&err, VEX_INVALID, "row %d", 3) == VEX_INVALID);
    CHECK(strcmp(err.message, "row 3: a  b") == 0);
}

TEST_MAIN(RUN(crc32c_known_answers); RUN(crc32c_variants_agree); RUN(crc32c_of_long_inputs);
          RUN(utf8); RUN(buffer_keeps_its_limit); RUN(reader_stops_at_the_end);
          RUN(arena_alignment); RUN(parallel_runs_each_once); RUN(tasks_run_and_cancel);
          RUN(sigbus_becomes_a_status); RUN(error_messages_are_one_line))
