#include "table/memtable_codes.h"

#include <math.h>

/* Below, a vector is hardly longer than its code with the two factors. */
enum { CODED_DIMENSION_MIN = 32 };

bool memtable_codes_pay(vex_index_kind index, uint32_t dimension) {
    return index != VEX_INDEX_FLAT && dimension >= CODED_DIMENSION_MIN;
}

static size_t center_padded(uint32_t dimension) {
    return (dimension + 15u) / 16u * 16u;
}

vex_status memtable_codes_init(memtable_codes *codes, const vexi_env *env,
                               const vexi_rotation *rotation, vex_metric metric,
                               const float *center, float row_length, vex_error *err) {
    *codes = (memtable_codes){.env = env};
    vexi_code_layout layout = vexi_code_layout_of(metric, rotation->dimension, 1);
    size_t padded = center_padded(layout.dimension);
    size_t count = padded + layout.padded + VEXI_CODE_SCRATCH(layout.padded);
    /* The centre may take less than a multiple of 64 bytes: 16 values are just that. */
    float *memory = vexi_alloc_aligned(env, count * sizeof *memory);
    if (memory == NULL) {
        return vexi_no_memory(err, count * sizeof *memory);
    }
    memset(memory, 0, (padded + layout.padded) * sizeof *memory);
    codes->rotation = rotation;
    codes->layout = layout;
    codes->center = memory;
    codes->origin = memory + padded;
    codes->scratch = codes->origin + layout.padded;
    if (center != NULL) {
        memcpy(codes->center, center, layout.dimension * sizeof *center);
        vexi_rotate(rotation, codes->center, codes->origin);
        codes->row_length = row_length;
        codes->has_center = true;
    }
    return VEX_OK;
}

void memtable_codes_deinit(memtable_codes *codes) {
    if (codes->rotation != NULL) {
        vexi_free(codes->env, codes->center);
        for (int c = 0; c < MEMTABLE_CHUNK_COUNT; c++) {
            vexi_free(codes->env, codes->blocks[c]);
        }
    }
}

vex_status memtable_codes_reserve(memtable_codes *codes, uint32_t chunk, vex_error *err) {
    if (codes->rotation == NULL || codes->blocks[chunk] != NULL) {
        return VEX_OK;
    }
    size_t size = ((size_t)1 << chunk) * codes->layout.block_size;
    codes->blocks[chunk] = vexi_alloc_aligned(codes->env, size);
    return codes->blocks[chunk] == NULL ? vexi_no_memory(err, size) : VEX_OK;
}

static double square_of(const float *row, uint32_t dimension) {
    double sum = 0;
    for (uint32_t i = 0; i < dimension; i++) {
        sum += (double)row[i] * (double)row[i];
    }
    return sum;
}

void memtable_codes_center(memtable_codes *codes, const float *const *rows, uint32_t count) {
    VEX_ASSERT(!codes->has_center && count > 0);
    uint32_t dimension = codes->layout.dimension;
    bool cosine = codes->layout.metric == VEX_METRIC_COSINE;
    double lengths = 0;
    double weights[256];
    VEX_ASSERT(count <= sizeof weights / sizeof *weights);
    for (uint32_t r = 0; r < count; r++) {
        double square = square_of(rows[r], dimension);
        weights[r] = !cosine ? 1.0 / count : square > 0 ? 1.0 / (sqrt(square) * count) : 0;
        lengths += square / count;
    }
    double center_square = 0;
    for (uint32_t i = 0; i < dimension; i++) {
        double sum = 0;
        for (uint32_t r = 0; r < count; r++) {
            sum += weights[r] * (double)rows[r][i];
        }
        codes->center[i] = (float)sum;
        center_square += sum * sum;
    }
    if (cosine) {
        /* A unit vector, or none where the rows point everywhere. */
        double scale = center_square > 1e-12 ? 1 / sqrt(center_square) : 0;
        for (uint32_t i = 0; i < dimension; i++) {
            codes->center[i] = (float)(codes->center[i] * scale);
        }
    }
    codes->row_length = cosine ? 1.0f : (float)sqrt(lengths);
    vexi_rotate(codes->rotation, codes->center, codes->origin);
    codes->has_center = true;
}

void memtable_codes_encode(memtable_codes *codes, const float *const rows[VEXI_CODE_BLOCK_ROWS]) {
    VEX_ASSERT(codes->has_center);
    const float *filled[VEXI_CODE_BLOCK_ROWS];
    /* A tombstone, always hidden, takes the code of a neighbour, so as not to widen the bounds. */
    const float *filler = NULL;
    for (int i = 0; i < VEXI_CODE_BLOCK_ROWS && filler == NULL; i++) {
        filler = rows[i];
    }
    uint64_t offset;
    uint32_t chunk = memtable_chunk_of(codes->row_count, &offset);
    uint8_t *out = codes->blocks[chunk] + offset / VEXI_CODE_BLOCK_ROWS * codes->layout.block_size;
    for (int i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
        filled[i] = rows[i] != NULL ? rows[i] : filler;
    }
    if (filler == NULL) {
        /* No row survives a scan of zeros, or all do: they are hidden. */
        memset(out, 0, codes->layout.block_size);
    } else {
        float error = 0;
        float record_error = 0;
        vexi_code_encode(&codes->layout, codes->rotation, filled, VEXI_CODE_BLOCK_ROWS,
                         codes->center, codes->center, out, &error, &record_error, codes->scratch);
        uint32_t bits;
        memcpy(&bits, &error, sizeof bits);
        if (!(error <= memtable_codes_error(codes, chunk))) {
            __atomic_store_n(&codes->errors[chunk], bits, __ATOMIC_RELAXED);
        }
    }
    __atomic_store_n(&codes->row_count, codes->row_count + VEXI_CODE_BLOCK_ROWS, __ATOMIC_RELEASE);
}
