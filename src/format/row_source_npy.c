/* .npy: one two-dimensional array of floating-point numbers
 * (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).
 *
 * Versions 1 to 3; '<f4', '<f8', '<f2' in C order. The header is a Python dictionary literal;
 * numpy writes it in one of few shapes, so its three entries are looked for by name rather than
 * parsed as Python, and anything else that stands there is refused. */
#include <inttypes.h>

#include "format/row_source_internal.h"

typedef struct npy_state {
    const uint8_t *values;
    uint64_t row_count;
    size_t item_size; /* 2, 4 or 8 */
} npy_state;

static vex_status npy_next(vexi_row_source *source, size_t row_max, vexi_arena *arena,
                           vexi_row **rows, size_t *row_count, vex_error *err) {
    const npy_state *state = source->state;
    uint32_t dimension = source->dimension;
    size_t count;
    vexi_row *out;
    float *vectors;
    VEX_TRY(
        vexi_source_batch(source, state->row_count, row_max, arena, &out, &vectors, &count, err));
    const uint8_t *at = state->values + (size_t)source->next_row * dimension * state->item_size;
    for (size_t i = 0; i < count * dimension; i++, at += state->item_size) {
        if (state->item_size == 4) {
            uint32_t bits = vexi_get_u32(at);
            memcpy(&vectors[i], &bits, sizeof bits);
        } else if (state->item_size == 8) {
            uint64_t bits = vexi_get_u64(at);
            double value;
            memcpy(&value, &bits, sizeof bits);
            vectors[i] = (float)value; /* beyond float's range: infinity, refused below */
        } else {
            vectors[i] = vexi_half_to_float(vexi_get_u16(at));
        }
    }
    for (size_t r = 0; r < count; r++) {
        uint64_t row = source->next_row + r;
        out[r].vector = vectors + r * dimension;
        VEX_TRY(vexi_source_check_vector(out[r].vector, dimension, row, err));
        VEX_TRY(vexi_source_next_id(source, row, arena, &out[r].id, err));
    }
    *rows = out;
    *row_count = count;
    return VEX_OK;
}

static const vexi_row_source_ops NPY_OPS = {.next = npy_next};

/* What follows 'key': in the header, NULL if it is not there. The header is NUL-terminated. */
static const char *find_entry(const char *header, const char *key) {
    const char *at = strstr(header, key);
    if (at == NULL) {
        return NULL;
    }
    at += strlen(key);
    while (*at == ' ') {
        at++;
    }
    if (*at != ':') {
        return NULL;
    }
    at++;
    while (*at == ' ') {
        at++;
    }
    return at;
}

static bool read_number(const char **at, uint64_t *out) {
    const char *p = *at;
    *out = 0;
    while (*p == ' ') {
        p++;
    }
    if (*p < '0' || *p > '9') {
        return false;
    }
    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(*out, (uint64_t)10, out) ||
            __builtin_add_overflow(*out, (uint64_t)(*p - '0'), out)) {
            return false;
        }
    }
    while (*p == ' ') {
        p++;
    }
    *at = p;
    return true;
}

/* "(rows, columns)" */
static bool read_shape(const char *at, uint64_t *rows, uint64_t *columns) {
    if (*at++ != '(' || !read_number(&at, rows) || *at++ != ',' || !read_number(&at, columns)) {
        return false;
    }
    if (*at == ',') {
        at++;
    }
    return *at == ')';
}

/* The header's text and where the data begins. */
static vex_status find_header(const vexi_row_source *source, vexi_span *header, size_t *data,
                              vex_error *err) {
    vexi_reader reader = vexi_reader_of(source->file);
    (void)vexi_read_bytes(&reader, 6);
    uint8_t major = vexi_read_u8(&reader);
    (void)vexi_read_u8(&reader);
    if (!reader.failed && (major < 1 || major > 3)) {
        return vexi_fail(err, VEX_UNSUPPORTED, "npy version %u", major);
    }
    uint32_t size = major == 1 ? vexi_read_u16(&reader) : vexi_read_u32(&reader);
    if (size > (1u << 20)) {
        return vexi_fail(err, VEX_CORRUPT, "an npy header of %" PRIu32 " bytes", size);
    }
    *header = vexi_span_of(vexi_read_bytes(&reader, size), size);
    *data = reader.offset;
    return reader.failed ? vexi_fail(err, VEX_CORRUPT, "the npy header is cut off") : VEX_OK;
}

vex_status vexi_source_open_npy(vexi_row_source *source, vexi_row_source_info *info,
                                vex_error *err) {
    vexi_span header;
    size_t data;
    VEX_TRY(find_header(source, &header, &data, err));
    npy_state *state = vexi_arena_calloc(&source->arena, 1, sizeof *state);
    char *text = vexi_arena_copy(&source->arena, header.data, header.size);
    if (state == NULL || text == NULL) {
        return vexi_no_memory(err, header.size);
    }
    const char *type = find_entry(text, "'descr'");
    const char *order = find_entry(text, "'fortran_order'");
    const char *shape = find_entry(text, "'shape'");
    if (type == NULL || order == NULL || shape == NULL) {
        return vexi_fail(err, VEX_CORRUPT, "malformed npy header");
    }
    if (strncmp(type, "'<f4'", 5) == 0) {
        state->item_size = 4;
    } else if (strncmp(type, "'<f8'", 5) == 0) {
        state->item_size = 8;
    } else if (strncmp(type, "'<f2'", 5) == 0) {
        state->item_size = 2;
    } else {
        return vexi_fail(err, VEX_UNSUPPORTED, "npy element type %.12s; <f2, <f4, <f8 can be read",
                         type);
    }
    if (strncmp(order, "False", 5) != 0) {
        return vexi_fail(err, VEX_UNSUPPORTED, "an npy array in Fortran order");
    }
    uint64_t dimension, size;
    if (!read_shape(shape, &state->row_count, &dimension)) {
        return vexi_fail(err, VEX_UNSUPPORTED, "an npy array that has not two dimensions");
    }
    VEX_TRY(vexi_source_check_dimension(dimension, err));
    if (__builtin_mul_overflow(state->row_count, dimension * state->item_size, &size) ||
        size > source->file.size - data) {
        return vexi_fail(err, VEX_CORRUPT,
                         "the npy file is cut off: %zu bytes for %" PRIu64 " vectors of %" PRIu64
                         " values",
                         source->file.size - data, state->row_count, dimension);
    }
    VEX_TRY(vexi_source_check_ids(source, state->row_count, err));
    state->values = source->file.data + data;
    source->dimension = (uint32_t)dimension;
    source->state = state;
    source->ops = &NPY_OPS;
    info->row_count = state->row_count;
    return VEX_OK;
}
