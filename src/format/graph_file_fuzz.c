/* A graph file. The first byte says whether sizes and checksums are mended (bit 0). */
#include <stdlib.h>

#include "format/graph_file.h"
#include "format/index_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEADER_SIZE = 192, HEAD_STEP = 4096 };

static void mend(uint8_t *file, size_t size) {
    memcpy(file, "VEXGRAPH", 8);
    uint32_t head_size = vexi_get_u32(file + VEXI_HEAD_SIZE);
    if (head_size < HEADER_SIZE || head_size > size) {
        head_size = (uint32_t)(size / HEAD_STEP * HEAD_STEP);
        head_size = head_size < HEADER_SIZE ? (uint32_t)size : head_size;
    }
    vexi_put_u32(file + VEXI_HEAD_SIZE, head_size);
    vexi_put_u64(file + VEXI_HEAD_FILE_SIZE, size);
    vexi_put_u32(file + VEXI_HEAD_CRC, vexi_index_head_crc(file, head_size));
}

static void use(const vexi_graph_file *file, size_t size) {
    uint64_t sum = 0;
    VEX_ASSERT(file->row_count * file->node_size <= size);
    for (uint32_t i = 0; i < file->padded; i++) {
        sum += file->origin[i] > file->row_length;
    }
    for (uint32_t i = 0; i < file->entry_count; i++) {
        VEX_ASSERT(file->entries[i] < file->row_count);
    }
    for (uint64_t i = 0; i < file->entry_codes_size; i++) {
        sum += file->entry_codes[i];
    }
    for (uint64_t block = 0; block <= file->block_count; block++) {
        sum += vexi_graph_check(file, block, 1, NULL) == VEX_OK;
    }
    for (uint32_t i = 0; i < file->row_count; i++) {
        sum += file->nodes[(i + 1) * file->node_size - 1];
    }
    volatile uint64_t sink = sum;
    (void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 + HEADER_SIZE) {
        return 0;
    }
    /* Exactly as long as the file, so that a read behind it is seen. */
    void *memory = NULL;
    if (posix_memalign(&memory, VEXI_INDEX_ALIGNMENT, size - 1) != 0) {
        abort();
    }
    memcpy(memory, data + 1, size - 1);
    if ((data[0] & 1) != 0) {
        mend(memory, size - 1);
    }
    vexi_graph_file file;
    vex_error err;
    if (vexi_graph_open(vexi_span_of(memory, size - 1), &file, &err) == VEX_OK) {
        use(&file, size - 1);
    }
    free(memory);
    return 0;
}
