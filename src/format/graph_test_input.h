/* A graph made by hand for the tests of graph files. Tests only. */
#ifndef VEXI_FORMAT_GRAPH_TEST_INPUT_H
#define VEXI_FORMAT_GRAPH_TEST_INPUT_H

#include "check.h"
#include "format/graph_file.h"
#include "format/index_internal.h"

static inline uint64_t graph_node_size(uint32_t dimension, uint32_t padded, uint32_t degree) {
    return (dimension * (uint64_t)4 + 63) / 64 * 64 + degree / 32 * (padded * (uint64_t)4 + 256) +
           (degree * (uint64_t)4 + 63) / 64 * 64;
}

/* Content that any machine makes alike; memory in the arena. */
static inline vexi_graph_file graph_fixture(vexi_arena *arena, uint32_t row_count,
                                            uint32_t dimension, vex_metric metric, uint32_t degree,
                                            uint32_t entry_count, bool coded) {
    vexi_graph_file file = {
        .segment = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
        .index_head_crc = 0xfeedbeef,
        .metric = metric,
        .dimension = dimension,
        .padded = vexi_index_padded(dimension),
        .degree = degree,
        .row_count = row_count,
        .rotation_seed = UINT64_C(0xfedcba9876543210),
        .row_length = 2.5f,
        .entry_error = 0.125f,
        .parameters = {1, 2, 3, -4},
        .entry_count = entry_count,
    };
    file.node_size = graph_node_size(dimension, file.padded, degree);
    float *origin = vexi_arena_array(arena, file.padded, sizeof *origin);
    uint32_t *entries = vexi_arena_array(arena, entry_count, sizeof *entries);
    uint64_t codes_size = coded ? vexi_index_list_size(file.padded, 1, entry_count) : 0;
    uint8_t *codes = vexi_arena_alloc(arena, codes_size + 1);
    size_t nodes_size = (size_t)(row_count * file.node_size);
    uint8_t *nodes = vexi_arena_alloc_aligned(arena, 64, nodes_size);
    CHECK(origin != NULL && entries != NULL && codes != NULL && nodes != NULL);
    for (uint32_t i = 0; i < file.padded; i++) {
        origin[i] = (float)i / 4;
    }
    for (uint32_t i = 0; i < entry_count; i++) {
        entries[i] = (uint32_t)((uint64_t)i * row_count / entry_count);
    }
    for (uint64_t i = 0; i < codes_size; i++) {
        codes[i] = (uint8_t)(i * 11);
    }
    for (size_t i = 0; i < nodes_size; i++) {
        nodes[i] = (uint8_t)(i * 131 + i / 1009);
    }
    for (uint32_t i = 0; i < VEXI_INDEX_CALIBRATION_COUNT; i++) {
        file.calibration[i] = i * 3;
    }
    file.origin = origin;
    file.entries = entries;
    file.entry_codes = coded ? codes : NULL;
    file.entry_codes_size = codes_size;
    file.nodes = nodes;
    return file;
}

/* Head and nodes in memory aligned as a mapping is; freed with vexi_free. */
static inline vexi_span graph_fixture_write(const vexi_graph_file *file, uint8_t **memory) {
    vexi_buffer head;
    vexi_buffer_init(&head, vex_test_env(), 1 << 30);
    CHECK_OK(vexi_graph_write_head(vex_test_env(), file, &head, &err));
    CHECK_EQ(head.size % 4096, 0);
    size_t nodes_size = (size_t)(file->row_count * file->node_size);
    *memory = vexi_alloc_aligned(vex_test_env(), head.size + nodes_size);
    CHECK(*memory != NULL);
    memcpy(*memory, head.data, head.size);
    memcpy(*memory + head.size, file->nodes, nodes_size);
    vexi_span bytes = vexi_span_of(*memory, head.size + nodes_size);
    vexi_buffer_deinit(&head);
    return bytes;
}

/* Make the head's checksum right for whatever it says. */
static inline void graph_mend(uint8_t *file) {
    vexi_put_u32(file + VEXI_HEAD_CRC,
                 vexi_index_head_crc(file, vexi_get_u32(file + VEXI_HEAD_SIZE)));
}

#endif
