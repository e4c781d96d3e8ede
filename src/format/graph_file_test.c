#include "check.h"

#include <math.h>

#include "format/graph_test_input.h"

/* Offsets of docs/format.md. */
enum {
    AT_VERSION = 8,
    AT_HEAD_SIZE = 12,
    AT_ELEMENT = 68,
    AT_METRIC = 69,
    AT_DIMENSION = 72,
    AT_PADDED = 76,
    AT_DEGREE = 80,
    AT_ROWS = 84,
    AT_NODE_SIZE = 88,
    AT_ROW_LENGTH = 104,
    AT_ENTRY_COUNT = 128,
    AT_CODED = 132,
    AT_BLOCK = 136,
    AT_BLOCK_COUNT = 140,
    HEADER = 192
};

static void round_trip(uint32_t rows, uint32_t dimension, vex_metric metric, uint32_t degree,
                       uint32_t entries, bool coded) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_graph_file made = graph_fixture(&arena, rows, dimension, metric, degree, entries, coded);
    uint8_t *memory;
    vexi_span bytes = graph_fixture_write(&made, &memory);
    vexi_graph_file file;
    CHECK_OK(vexi_graph_open(bytes, &file, &err));
    CHECK(strcmp(file.segment, made.segment) == 0);
    CHECK_EQ(file.index_head_crc, made.index_head_crc);
    CHECK(file.metric == metric);
    CHECK_EQ(file.dimension, dimension);
    CHECK_EQ(file.padded, made.padded);
    CHECK_EQ(file.degree, degree);
    CHECK_EQ(file.row_count, rows);
    CHECK_EQ(file.node_size, made.node_size);
    CHECK(file.rotation_seed == made.rotation_seed);
    CHECK(file.row_length == made.row_length && file.entry_error == made.entry_error);
    CHECK(memcmp(file.parameters, made.parameters, sizeof file.parameters) == 0);
    CHECK(memcmp(file.calibration, made.calibration, sizeof file.calibration) == 0);
    CHECK(memcmp(file.origin, made.origin, made.padded * sizeof(float)) == 0);
    CHECK_EQ(file.entry_count, entries);
    CHECK(memcmp(file.entries, made.entries, entries * sizeof(uint32_t)) == 0);
    CHECK((file.entry_codes != NULL) == coded);
    CHECK_EQ(file.entry_codes_size, made.entry_codes_size);
    CHECK(!coded || memcmp(file.entry_codes, made.entry_codes, (size_t)made.entry_codes_size) == 0);
    size_t nodes_size = (size_t)(rows * made.node_size);
    CHECK(memcmp(file.nodes, made.nodes, nodes_size) == 0);
    CHECK((uintptr_t)file.nodes % 64 == 0 && (size_t)(file.nodes - bytes.data) % 4096 == 0);
    CHECK_EQ(file.block_count, (nodes_size + 65535) / 65536);
    CHECK_OK(vexi_graph_check(&file, 0, file.block_count, &err));
    CHECK_OK(vexi_graph_check(&file, file.block_count, 0, &err));
    CHECK_FAILS(VEX_CORRUPT, vexi_graph_check(&file, file.block_count, 1, &err));
    CHECK_FAILS(VEX_CORRUPT, vexi_graph_check(&file, 1, UINT64_MAX, &err));
    vexi_free(vex_test_env(), memory);
    vexi_arena_deinit(&arena);
}

TEST(round_trips) {
    round_trip(1, 1, VEX_METRIC_L2, 32, 1, false);
    round_trip(3, 65, VEX_METRIC_IP, 32, 2, true);
    round_trip(500, 100, VEX_METRIC_COSINE, 64, 33, true);
    round_trip(20000, 4, VEX_METRIC_L2, 32, 1000, true);
}

/* Every flipped bit is found, at the latest when its block is checked. */
TEST(flipped_bits) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_graph_file made = graph_fixture(&arena, 400, 20, VEX_METRIC_L2, 32, 7, true);
    uint8_t *memory;
    vexi_span bytes = graph_fixture_write(&made, &memory);
    uint32_t head_size = vexi_get_u32(memory + AT_HEAD_SIZE);
    uint64_t seed = vex_test_seed(9);
    for (uint64_t trial = 0; trial < vex_test_effort(2000); trial++) {
        uint64_t bit = vex_test_below(&seed, trial % 2 == 0 ? head_size * 8 : bytes.size * 8);
        memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
        vexi_graph_file file;
        vex_status status = vexi_graph_open(bytes, &file, NULL);
        CHECK((status != VEX_OK) == (bit / 8 < head_size));
        for (uint64_t block = 0; status == VEX_OK && block < file.block_count; block++) {
            bool damaged = (bit / 8 - head_size) / 65536 == block;
            CHECK((vexi_graph_check(&file, block, 1, NULL) == VEX_CORRUPT) == damaged);
        }
        memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    vexi_free(vex_test_env(), memory);
    vexi_arena_deinit(&arena);
}

TEST(every_cut_is_refused) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_graph_file made = graph_fixture(&arena, 3, 2, VEX_METRIC_L2, 32, 2, false);
    uint8_t *memory;
    vexi_span bytes = graph_fixture_write(&made, &memory);
    for (size_t size = 0; size < bytes.size; size++) {
        /* In memory of that size, so that ASan sees a read behind it. */
        uint8_t *cut = vexi_alloc_aligned(vex_test_env(), size + (size == 0));
        CHECK(cut != NULL);
        memcpy(cut, memory, size);
        vexi_graph_file file;
        CHECK_FAILS(VEX_CORRUPT, vexi_graph_open(vexi_span_of(cut, size), &file, &err));
        CHECK(file.nodes == NULL);
        vexi_free(vex_test_env(), cut);
    }
    vexi_free(vex_test_env(), memory);
    vexi_arena_deinit(&arena);
}

/* Heads with a valid checksum that lie. */
TEST(heads_that_contradict) {
    static const struct {
        size_t at;
        uint32_t value;
        vex_status status;
    } cases[] = {
        {AT_VERSION, 2, VEX_UNSUPPORTED},
        {AT_VERSION, 0, VEX_CORRUPT},
        {AT_DIMENSION, 0, VEX_CORRUPT},
        {AT_DIMENSION, 17, VEX_CORRUPT}, /* nodes would be longer */
        {AT_DIMENSION, 4097, VEX_CORRUPT},
        {AT_PADDED, 128, VEX_CORRUPT},
        {AT_PADDED, 0, VEX_CORRUPT},
        {AT_DEGREE, 0, VEX_CORRUPT},
        {AT_DEGREE, 48, VEX_CORRUPT},
        {AT_DEGREE, 64, VEX_CORRUPT},
        {AT_DEGREE, 0xffffffe0u, VEX_CORRUPT},
        {AT_ROWS, 0, VEX_CORRUPT},
        {AT_ROWS, 51, VEX_CORRUPT},
        {AT_ROWS, 49, VEX_CORRUPT},
        {AT_ROWS, 0xffffffffu, VEX_CORRUPT},
        {AT_NODE_SIZE, 64, VEX_CORRUPT},
        {AT_NODE_SIZE + 4, 0x80000000u, VEX_CORRUPT},
        {AT_ENTRY_COUNT, 0, VEX_CORRUPT},
        {AT_ENTRY_COUNT, 51, VEX_CORRUPT},
        {AT_ENTRY_COUNT, 0xffffffffu, VEX_CORRUPT},
        {AT_CODED, 2, VEX_CORRUPT},
        {AT_BLOCK, 4096, VEX_CORRUPT},
        {AT_BLOCK_COUNT, 0, VEX_CORRUPT},
        {AT_ELEMENT, 2, VEX_UNSUPPORTED},
        {AT_METRIC - 1, 0x0301, VEX_UNSUPPORTED}, /* metric 3 */
    };
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_graph_file made = graph_fixture(&arena, 50, 16, VEX_METRIC_L2, 32, 7, true);
    uint8_t *memory;
    vexi_span bytes = graph_fixture_write(&made, &memory);
    vexi_graph_file file;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t old = vexi_get_u32(memory + cases[i].at);
        vexi_put_u32(memory + cases[i].at, cases[i].value);
        graph_mend(memory);
        CHECK_FAILS(cases[i].status, vexi_graph_open(bytes, &file, &err));
        vexi_put_u32(memory + cases[i].at, old);
    }
    size_t entries = HEADER + 64 * 4;
    CHECK_EQ(vexi_get_u32(memory + entries + 4), made.entries[1]);
    vexi_put_u32(memory + entries + 4, 50);
    graph_mend(memory);
    CHECK_FAILS(VEX_CORRUPT, vexi_graph_open(bytes, &file, &err));
    vexi_put_u32(memory + entries + 4, 49);
    vexi_put_u32(memory + AT_ROW_LENGTH, 0x7fc00000u); /* floats are handed on as they are */
    graph_mend(memory);
    CHECK_OK(vexi_graph_open(bytes, &file, &err));
    CHECK(isnan(file.row_length) && file.entries[1] == 49);
    vexi_free(vex_test_env(), memory);
    vexi_arena_deinit(&arena);
}

/* Any number anywhere in the header, under a valid checksum: refused, or all that is reached lies
 * in the file, which ASan watches. */
TEST(changed_heads_with_valid_checksums) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_graph_file made = graph_fixture(&arena, 50, 16, VEX_METRIC_IP, 32, 7, true);
    uint8_t *memory;
    vexi_span bytes = graph_fixture_write(&made, &memory);
    static const uint32_t values[] = {0,   1,   2,          31,          32,         64,
                                      128, 255, 0x7fffffff, 0x80000000u, 0xffffffffu};
    size_t refused = 0, tried = 0;
    uint64_t sum = 0;
    for (size_t at = 64; at < HEADER; at++) {
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            uint32_t old = vexi_get_u32(memory + at);
            vexi_put_u32(memory + at, values[v]);
            graph_mend(memory);
            vexi_graph_file file;
            vex_status status = vexi_graph_open(bytes, &file, NULL);
            tried++;
            refused += status != VEX_OK;
            for (uint32_t i = 0; status == VEX_OK && i < file.row_count; i++) {
                sum += file.nodes[(i + 1) * file.node_size - 1];
            }
            for (uint64_t i = 0; status == VEX_OK && i < file.entry_codes_size; i++) {
                sum += file.entry_codes[i];
            }
            vexi_put_u32(memory + at, old);
        }
    }
    CHECK(refused > 0 && refused < tried && sum > 0);
    vexi_free(vex_test_env(), memory);
    vexi_arena_deinit(&arena);
}

TEST(head_without_memory_or_room) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_graph_file made = graph_fixture(&arena, 50, 16, VEX_METRIC_L2, 32, 7, true);
    vexi_buffer head;
    vexi_buffer_init(&head, vex_test_env(), 4095);
    CHECK_FAILS(VEX_LIMIT, vexi_graph_write_head(vex_test_env(), &made, &head, &err));
    CHECK_EQ(head.size, 0);
    vexi_buffer_deinit(&head);
    vexi_arena_deinit(&arena);
}

TEST_MAIN(RUN(round_trips); RUN(flipped_bits); RUN(every_cut_is_refused);
          RUN(heads_that_contradict); RUN(changed_heads_with_valid_checksums);
          RUN(head_without_memory_or_room))
