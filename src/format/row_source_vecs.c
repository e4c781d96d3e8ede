/* .fvecs and .bvecs: the classic files of nearest-neighbour benchmarks.
 *
 * Each row is a little-endian 32-bit dimension and then that many float32 (.fvecs) or bytes
 * (.bvecs). All rows have the same dimension, so the file's size tells their number. */
#include <inttypes.h>

#include "format/row_source_internal.h"

typedef struct vecs_state {
    bool bytes;
    uint64_t row_count;
    size_t stride; /* of a row in the file */
} vecs_state;

static vex_status vecs_next(vexi_row_source *source, size_t row_max, vexi_arena *arena,
                            vexi_row **rows, size_t *row_count, vex_error *err) {
    const vecs_state *state = source->state;
    uint32_t dimension = source->dimension;
    size_t count;
    vexi_row *out;
    float *vectors;
    VEX_TRY(
        vexi_source_batch(source, state->row_count, row_max, arena, &out, &vectors, &count, err));
    for (size_t r = 0; r < count; r++) {
        uint64_t row = source->next_row + r;
        const uint8_t *at = source->file.data + (size_t)row * state->stride;
        uint32_t found = vexi_get_u32(at);
        if (found != dimension) {
            return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                                 "row %" PRIu64 ": a vector of %" PRIu32
                                 " values, but the first one has %" PRIu32,
                                 row, found, dimension);
        }
        float *vector = vectors + r * dimension;
        for (uint32_t i = 0; i < dimension; i++) {
            if (state->bytes) {
                vector[i] = (float)at[4 + i];
            } else {
                uint32_t bits = vexi_get_u32(at + 4 + (size_t)i * 4);
                memcpy(&vector[i], &bits, sizeof bits);
            }
        }
        VEX_TRY(vexi_source_check_vector(vector, dimension, row, err));
        out[r].vector = vector;
        VEX_TRY(vexi_source_next_id(source, row, arena, &out[r].id, err));
    }
    *rows = out;
    *row_count = count;
    return VEX_OK;
}

static const vexi_row_source_ops VECS_OPS = {.next = vecs_next};

vex_status vexi_source_open_vecs(vexi_row_source *source, bool bytes, vexi_row_source_info *info,
                                 vex_error *err) {
    vecs_state *state = vexi_arena_calloc(&source->arena, 1, sizeof *state);
    if (state == NULL) {
        return vexi_no_memory(err, sizeof *state);
    }
    if (source->file.size < 4) {
        return vexi_fail(err, VEX_INVALID, "a file of %zu bytes holds no vector",
                         source->file.size);
    }
    uint32_t dimension = vexi_get_u32(source->file.data);
    VEX_TRY(vexi_source_check_dimension(dimension, err));
    state->bytes = bytes;
    state->stride = 4 + (size_t)dimension * (bytes ? 1 : sizeof(float));
    if (source->file.size % state->stride != 0) {
        return vexi_fail(err, VEX_INVALID,
                         "%zu bytes are not a whole number of vectors of %" PRIu32 " values",
                         source->file.size, dimension);
    }
    state->row_count = source->file.size / state->stride;
    VEX_TRY(vexi_source_check_ids(source, state->row_count, err));
    source->dimension = dimension;
    source->state = state;
    source->ops = &VECS_OPS;
    info->row_count = state->row_count;
    return VEX_OK;
}
