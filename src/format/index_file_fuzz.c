/* An index file. The first byte says whether checksums are mended (bit 0), so that both what they
 * keep out and what lies behind them is reached. */
#include <stdlib.h>

#include "format/index_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static vexi_env *env;

/* Make sizes and checksums right for whatever the head says. */
static void mend(uint8_t *file, size_t size) {
    if (size < VEXI_HEAD_DIRECTORY) {
        return;
    }
    memcpy(file, vexi_index_magic, sizeof vexi_index_magic);
    uint32_t head_size = vexi_get_u32(file + VEXI_HEAD_SIZE) & ~63u;
    if (head_size < VEXI_HEAD_DIRECTORY || head_size > size) {
        head_size = (uint32_t)size & ~63u;
    }
    vexi_put_u32(file + VEXI_HEAD_SIZE, head_size);
    vexi_put_u64(file + VEXI_HEAD_FILE_SIZE, size);
    uint32_t block_count =
        (uint32_t)((size - head_size + VEXI_INDEX_BLOCK_SIZE - 1) / VEXI_INDEX_BLOCK_SIZE);
    vexi_put_u32(file + VEXI_HEAD_BLOCK_SIZE, VEXI_INDEX_BLOCK_SIZE);
    vexi_put_u32(file + VEXI_HEAD_BLOCK_COUNT, block_count);
    uint32_t count = vexi_get_u32(file + VEXI_HEAD_SECTION_COUNT);
    for (uint32_t i = 0; i < count && i < VEXI_SECTION_COUNT_MAX; i++) {
        size_t at = VEXI_HEAD_DIRECTORY + i * (size_t)VEXI_SECTION_ENTRY_SIZE;
        if (at + VEXI_SECTION_ENTRY_SIZE > head_size) {
            break;
        }
        uint64_t offset = vexi_get_u64(file + at + 8);
        if ((vexi_get_u32(file + at) & ~VEXI_SECTION_MUST) != VEXI_SECTION_BLOCK_CRCS ||
            offset > head_size || head_size - offset < block_count * 4ull) {
            continue;
        }
        for (uint32_t b = 0; b < block_count; b++) {
            size_t first = head_size + (size_t)b * VEXI_INDEX_BLOCK_SIZE;
            size_t rest = size - first;
            rest = rest < VEXI_INDEX_BLOCK_SIZE ? rest : VEXI_INDEX_BLOCK_SIZE;
            vexi_put_u32(file + offset + b * 4ull, vexi_crc32c(0, file + first, rest));
        }
    }
    vexi_put_u32(file + VEXI_HEAD_CRC, vexi_index_head_crc(file, head_size));
}

static uint64_t use_layout(const vexi_index_file *file) {
    const vexi_segment_layout *layout = &file->layout;
    uint64_t sum = 0;
    for (uint32_t c = 0; c < layout->column_count; c++) {
        for (uint32_t g = 0; g < layout->row_group_count; g++) {
            size_t chunk = (size_t)c * layout->row_group_count + g;
            for (uint32_t p = layout->page_first[chunk]; p < layout->page_first[chunk + 1]; p++) {
                VEX_ASSERT(layout->pages[p].offset + layout->pages[p].size_bytes <=
                           layout->footer_offset);
                sum += layout->pages[p].row_count;
            }
        }
    }
    for (uint32_t i = 0; i < file->list_count; i++) {
        VEX_ASSERT(file->list_first[i] <= file->list_first[i + 1]);
        sum += file->centroids[(size_t)i * file->dimension] > file->radii[i];
    }
    return sum;
}

/* Codes as a search reads them: the head's, then each list's bytes where their checksums match. */
static uint64_t use_codes(vexi_index_file *file) {
    uint64_t sum = 0;
    if (file->code_bits == 0) {
        return sum;
    }
    sum += file->origin[file->code_padded - 1] > 0;
    uint64_t size = vexi_index_list_size(file->code_padded, 1, file->list_count);
    for (uint64_t at = 0; at < size; at++) {
        sum += file->center_codes[at];
    }
    for (uint32_t i = 0; i < file->list_count; i++) {
        sum += file->code_errors[2 * (size_t)i] > file->code_errors[2 * (size_t)i + 1];
        uint64_t offset = file->codes_offset + file->code_offsets[i];
        size = file->code_offsets[i + 1] - file->code_offsets[i];
        if (vexi_index_check(file, offset, size, NULL) == VEX_OK) {
            VEX_ASSERT(vexi_index_checked(file, offset, size));
            for (uint64_t at = 0; at < size; at++) {
                sum += file->bytes.data[offset + at];
            }
        }
    }
    return sum;
}

static void use(vexi_index_file *file) {
    vex_error err;
    uint64_t sum = use_layout(file) + use_codes(file);
    (void)vexi_index_check_all(file, &err);
    for (uint64_t row = 0; row < (uint64_t)file->row_count + 1 && row < 100; row++) {
        vex_string id;
        if (vexi_index_id(file, row, &id, &err) != VEX_OK) {
            continue;
        }
        bool found;
        uint64_t where;
        uint64_t hash = vexi_hash64(id.data, id.size);
        if (vexi_index_find(file, id, hash, &found, &where, &err) == VEX_OK && found) {
            VEX_ASSERT(where < file->row_count);
        }
        sum += hash;
    }
    bool found;
    uint64_t row;
    (void)vexi_index_find(file, vexi_string_of("missing"), 7, &found, &row, &err);
    const uint8_t *crcs;
    if (vexi_index_vector_crcs(file, 0, file->row_count, &crcs, &err) == VEX_OK) {
        for (uint32_t i = 0; i < file->row_count; i++) {
            sum += crcs[i * 4ull];
        }
    }
    if (file->inverse_norms != NULL &&
        vexi_index_check(file, file->norms_offset, file->row_count * 4ull, &err) == VEX_OK) {
        for (uint32_t i = 0; i < file->row_count; i++) {
            sum += file->inverse_norms[i * 4ull];
        }
    }
    volatile uint64_t sink = sum;
    (void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (env == NULL && vexi_env_system_create(1, NULL, NULL, &env, NULL) != VEX_OK) {
        abort();
    }
    if (size < 1 + VEXI_HEAD_DIRECTORY) {
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
    const uint8_t *head = memory;
    vexi_index_file file;
    vex_error err;
    if (vexi_index_open(env, vexi_span_of(memory, size - 1), vexi_get_u32(head + VEXI_HEAD_SIZE),
                        vexi_get_u32(head + VEXI_HEAD_CRC), &file, &err) == VEX_OK) {
        use(&file);
    }
    vexi_index_close(&file);
    free(memory);
    return 0;
}
