/* The scalar kernels over quantised codes, and the Walsh-Hadamard transform: the specification of
 * the other variants.
 *
 * Sums over codes are integers of 32 bits and exact: at most 255 x 1,024 for a code block of 4,096
 * dimensions, at most 15 x 127 x 4,096 for a record of 4 bits; with 8 bits the caller bounds its
 * levels. All fit in 24 bits but the last, so that the conversion to float32 rounds only there.
 * The float arithmetic behind the sum is one multiplication and one addition, twice: it differs
 * from exact arithmetic, and between variants (which may fuse), by at most 4 * 2^-24 times
 * |add| + |scale| * (|unit * sum| + |base|).
 *
 * hadamard rounds once per stage and value, in one order: all variants give the same bits. */
#include <string.h>

#include "kernel/kernel_internal.h"

void vexi_scalar_hadamard(float *values, uint32_t count) {
    for (uint32_t distance = 1; distance < count; distance *= 2) {
        for (uint32_t first = 0; first < count; first += 2 * distance) {
            for (uint32_t i = first; i < first + distance; i++) {
                float a = values[i], b = values[i + distance];
                values[i] = a + b;
                values[i + distance] = a - b;
            }
        }
    }
}

/* The sums of one block's rows. */
static void block_sums(const uint8_t *block, uint32_t padded, const uint8_t *table,
                       uint32_t *sums) {
    memset(sums, 0, VEXI_CODE_BLOCK_ROWS * sizeof *sums);
    for (size_t g = 0; g < padded / 4; g++) {
        for (size_t j = 0; j < 16; j++) {
            uint8_t codes = block[16 * g + j];
            sums[j] += table[16 * g + (codes & 15u)];
            sums[16 + j] += table[16 * g + (codes >> 4)];
        }
    }
}

void vexi_scalar_estimate_codes(const uint8_t *blocks, size_t block_count, uint32_t padded,
                                const uint8_t *table, float unit, float base, float *out) {
    uint32_t sums[VEXI_CODE_BLOCK_ROWS];
    float add[VEXI_CODE_BLOCK_ROWS], scale[VEXI_CODE_BLOCK_ROWS];
    for (size_t b = 0; b < block_count; b++) {
        const uint8_t *block = blocks + b * vexi_code_block_size(padded);
        block_sums(block, padded, table, sums);
        memcpy(add, block + 4 * (size_t)padded, sizeof add);
        memcpy(scale, block + 4 * (size_t)padded + sizeof add, sizeof scale);
        for (size_t i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
            out[VEXI_CODE_BLOCK_ROWS * b + i] = add[i] + scale[i] * (unit * (float)sums[i] + base);
        }
    }
}

void vexi_scalar_scan_codes(const uint8_t *blocks, size_t block_count, uint32_t padded,
                            const uint8_t *table, float unit, float base, float limit,
                            uint32_t *masks) {
    float bounds[VEXI_CODE_BLOCK_ROWS];
    for (size_t b = 0; b < block_count; b++) {
        vexi_scalar_estimate_codes(blocks + b * vexi_code_block_size(padded), 1, padded, table,
                                   unit, base, bounds);
        masks[b] = 0;
        for (size_t i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
            masks[b] |= (uint32_t)(bounds[i] < limit) << i;
        }
    }
}

static int32_t sum_4_bits(const uint8_t *codes, uint32_t padded, const int8_t *levels) {
    int32_t sum = 0;
    for (size_t c = 0; c < padded / 64; c++) {
        for (size_t j = 0; j < 32; j++) {
            uint8_t pair = codes[32 * c + j];
            sum += (pair & 15) * levels[64 * c + j] + (pair >> 4) * levels[64 * c + 32 + j];
        }
    }
    return sum;
}

static int32_t sum_8_bits(const uint8_t *codes, uint32_t padded, const int16_t *levels) {
    int32_t sum = 0;
    for (size_t j = 0; j < padded; j++) {
        sum += codes[j] * levels[j];
    }
    return sum;
}

void vexi_scalar_refine_codes(const uint8_t *records, size_t stride, const uint32_t *picks,
                              size_t count, uint32_t padded, uint32_t bits, const void *levels,
                              float unit, float base, float *out) {
    for (size_t i = 0; i < count; i++) {
        const uint8_t *record = records + picks[i] * stride;
        float add, scale;
        memcpy(&add, record, sizeof add);
        memcpy(&scale, record + sizeof add, sizeof scale);
        const uint8_t *codes = record + 2 * sizeof(float);
        int32_t sum =
            bits == 4 ? sum_4_bits(codes, padded, levels) : sum_8_bits(codes, padded, levels);
        out[i] = add + scale * (unit * (float)sum + base);
    }
}
