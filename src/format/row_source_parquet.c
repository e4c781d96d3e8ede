/* Rows out of a Parquet file by any writer.
 *
 * carquet decodes; what it is given was checked before (parquet_check.c). Columns are read side by
 * side, a batch of rows from each, by one column reader per leaf that lives for a row group. So
 * memory is bounded by a batch, plus what carquet holds: one unpacked page of each column, and
 * all pages of a row group for strings, whose values point into them.
 *
 * A vector column is a leaf with one repetition level: three levels (list.element), two, or a bare
 * repeated field; a fixed-size list is written as one of these. All of a batch's values are read in
 * one go, rows x dimension of them: the repetition levels must then be 0 where a row begins and 1
 * elsewhere and every definition level the highest, else a row is ragged or null, and the levels
 * tell which.
 *
 * Levels: a leaf of depth 1 has definition level 0 (null) or 1, or always 0 where it is required,
 * and its values stand packed, without the nulls. */
#include <inttypes.h>

#include "format/row_source_parquet.h"

typedef struct parquet_state {
    carquet_reader_t *reader;
    vexi_parquet_leaf *leaves; /* those that are read */
    size_t leaf_count;
    uint32_t column_count; /* typed */
    int32_t group;         /* next to open                                                       */
    int32_t group_count;
    int64_t group_left; /* rows of the open group not yet read                                   */
    /* Scratch of one batch of one column. */
    uint8_t *values;
    size_t values_capacity;
    int16_t *definitions;
    size_t definitions_capacity;
    int16_t *repetitions;
    size_t repetitions_capacity;
} parquet_state;

/* ---- Row groups ---------------------------------------------------------------------------------
 */

static void close_group(parquet_state *state) {
    for (size_t i = 0; i < state->leaf_count; i++) {
        carquet_column_reader_free(state->leaves[i].reader);
        state->leaves[i].reader = NULL;
    }
}

/* Open the next row group that has rows; at the end of the file group_left stays 0. */
static vex_status open_group(parquet_state *state, const vexi_row_source *source, vex_error *err) {
    close_group(state);
    while (state->group < state->group_count) {
        int32_t group = state->group++;
        carquet_row_group_metadata_t metadata;
        carquet_status_t status =
            carquet_reader_row_group_metadata(state->reader, group, &metadata);
        if (status != CARQUET_OK) {
            return vexi_carquet_fail(status, NULL, "row group", err);
        }
        if (metadata.num_rows <= 0) {
            continue;
        }
        for (size_t i = 0; i < state->leaf_count; i++) {
            vexi_parquet_leaf *leaf = &state->leaves[i];
            int64_t value_max = metadata.num_rows;
            if (leaf->is_list &&
                __builtin_mul_overflow(value_max, (int64_t)VEX_DIMENSION_MAX, &value_max)) {
                value_max = INT64_MAX;
            }
            VEX_TRY(vexi_parquet_check_chunk(state->reader, source->file, group, leaf->index,
                                             leaf->name, value_max, err));
            carquet_error_t detail = CARQUET_ERROR_INIT;
            leaf->reader = carquet_reader_get_column(state->reader, group, leaf->index, &detail);
            if (leaf->reader == NULL) {
                return vexi_carquet_fail(detail.code, &detail, leaf->name, err);
            }
        }
        state->group_left = metadata.num_rows;
        return VEX_OK;
    }
    return VEX_OK;
}

/* Read up to `count` levels of a leaf into the scratch. */
static vex_status read_values(parquet_state *state, vexi_parquet_leaf *leaf, const vexi_env *env,
                              void *values, size_t count, size_t *read, vex_error *err) {
    VEX_TRY(vexi_grow(env, (void **)&state->definitions, &state->definitions_capacity, 0, count,
                      sizeof *state->definitions, err));
    VEX_TRY(vexi_grow(env, (void **)&state->repetitions, &state->repetitions_capacity, 0, count,
                      sizeof *state->repetitions, err));
    carquet_error_t detail = CARQUET_ERROR_INIT;
    *read = 0;
    int64_t got = carquet_column_read_batch_ex(leaf->reader, values, (int64_t)count,
                                               state->definitions, state->repetitions, &detail);
    if (got < 0 || detail.code != CARQUET_OK) {
        return vexi_carquet_fail(detail.code, &detail, leaf->name, err);
    }
    *read = (size_t)got;
    return VEX_OK;
}

static vex_status grow_values(parquet_state *state, const vexi_env *env, size_t count, size_t size,
                              vex_error *err) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        return vexi_no_memory(err, SIZE_MAX);
    }
    return vexi_grow(env, (void **)&state->values, &state->values_capacity, 0, bytes, 1, err);
}

/* ---- Vectors ------------------------------------------------------------------------------------
 */

/* Values that a row has from position `at` on, as far as `count` levels tell. */
static size_t row_values(const parquet_state *state, size_t at, size_t count) {
    size_t end = at + 1;
    while (end < count && state->repetitions[end] != 0) {
        end++;
    }
    return end - at;
}

/* Why the row at level `at` is not a vector of the dimension. */
static vex_status bad_vector(const parquet_state *state, const vexi_parquet_leaf *leaf, size_t at,
                             size_t count, uint32_t dimension, uint64_t row, vex_error *err) {
    if (at >= count) {
        return vexi_fail_row(err, VEX_CORRUPT, (int64_t)row, "column %s lacks row %" PRIu64,
                             leaf->name, row);
    }
    size_t values = row_values(state, at, count);
    for (size_t i = at; i < at + values; i++) {
        if (state->definitions[i] != leaf->definition_max) {
            return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                                 "row %" PRIu64 ": the vector in column %s is null, empty or holds "
                                 "a null",
                                 row, leaf->name);
        }
    }
    return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                         "row %" PRIu64 ": a vector of %zu values, but the first one has %u", row,
                         values, dimension);
}

static vex_status check_levels(const parquet_state *state, const vexi_parquet_leaf *leaf,
                               size_t rows, size_t count, uint32_t dimension, uint64_t first_row,
                               vex_error *err) {
    if (count > 0 && state->repetitions[0] != 0) {
        uint64_t row = first_row == 0 ? 0 : first_row - 1;
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                             "row %" PRIu64 ": a vector of more than %u values, as many as the "
                             "first one has",
                             row, dimension);
    }
    for (size_t r = 0; r < rows; r++) {
        size_t at = r * dimension;
        if (count - at < dimension) {
            return bad_vector(state, leaf, at, count, dimension, first_row + r, err);
        }
        const int16_t *repetitions = state->repetitions + at;
        const int16_t *definitions = state->definitions + at;
        int wrong = repetitions[0] != 0;
        if (leaf->definition_max > 0) {
            wrong |= definitions[0] != leaf->definition_max;
            for (uint32_t i = 1; i < dimension; i++) {
                wrong |= (repetitions[i] == 0) | (definitions[i] != leaf->definition_max);
            }
        }
        /* The next row must begin where this one ends. */
        wrong |= at + dimension < count && repetitions[dimension] != 0;
        if (wrong != 0) {
            return bad_vector(state, leaf, at, count, dimension, first_row + r, err);
        }
    }
    return VEX_OK;
}

static vex_status read_vectors(vexi_row_source *source, vexi_parquet_leaf *leaf, size_t rows,
                               vexi_arena *arena, vexi_row *out, vex_error *err) {
    parquet_state *state = source->state;
    uint32_t dimension = source->dimension;
    size_t count = rows * dimension, read;
    float *vectors = vexi_arena_alloc_aligned(arena, 64, count * sizeof *vectors);
    if (vectors == NULL) {
        return vexi_no_memory(err, count * sizeof *vectors);
    }
    void *values = vectors;
    if (leaf->from != FROM_FLOAT) {
        VEX_TRY(grow_values(state, source->env, count, leaf->value_size, err));
        values = state->values;
    }
    VEX_TRY(read_values(state, leaf, source->env, values, count, &read, err));
    VEX_TRY(check_levels(state, leaf, rows, read, dimension, source->next_row, err));
    if (state->group_left == (int64_t)rows && carquet_column_remaining(leaf->reader) > 0) {
        uint64_t row = source->next_row + rows - 1;
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                             "row %" PRIu64 ": a vector of more than %u values, as many as the "
                             "first one has",
                             row, dimension);
    }
    if (leaf->from == FROM_DOUBLE) {
        for (size_t i = 0; i < count; i++) {
            double value;
            memcpy(&value, state->values + i * sizeof value, sizeof value);
            vectors[i] = (float)value; /* beyond float's range: infinity, refused below */
        }
    } else if (leaf->from == FROM_HALF) {
        for (size_t i = 0; i < count; i++) {
            vectors[i] = vexi_half_to_float(vexi_get_u16(state->values + i * 2));
        }
    }
    for (size_t r = 0; r < rows; r++) {
        out[r].vector = vectors + r * dimension;
        VEX_TRY(vexi_source_check_vector(out[r].vector, dimension, source->next_row + r, err));
    }
    return VEX_OK;
}

/* The dimension is the first row's: the levels of the first row group's first values tell. */
static vex_status find_dimension(vexi_row_source *source, vexi_parquet_leaf *leaf, vex_error *err) {
    parquet_state *state = source->state;
    size_t count = VEX_DIMENSION_MAX + 1, read;
    VEX_TRY(grow_values(state, source->env, count, leaf->value_size, err));
    VEX_TRY(read_values(state, leaf, source->env, state->values, count, &read, err));
    if (read == 0 || state->repetitions[0] != 0) {
        return vexi_fail(err, VEX_CORRUPT, "column %s lacks row 0", leaf->name);
    }
    size_t dimension = row_values(state, 0, read);
    for (size_t i = 0; i < dimension; i++) {
        if (state->definitions[i] != leaf->definition_max) {
            return bad_vector(state, leaf, 0, read, 0, 0, err);
        }
    }
    if (dimension > VEX_DIMENSION_MAX) {
        return vexi_fail_row(err, VEX_INVALID, 0, "row 0: a vector of more than %u values",
                             VEX_DIMENSION_MAX);
    }
    source->dimension = (uint32_t)dimension;
    return VEX_OK;
}

/* ---- Flat columns -------------------------------------------------------------------------------
 */

static vex_status time_overflow(const vexi_parquet_leaf *leaf, uint64_t row, vex_error *err) {
    return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                         "row %" PRIu64 ", column %s: a time beyond 64 bits of microseconds", row,
                         leaf->name);
}

static int64_t floor_divide(int64_t value, int64_t by) {
    return value / by - (value % by < 0);
}

/* One value of a leaf as a cell; `at` is where it stands in the scratch. */
static vex_status convert(const vexi_parquet_leaf *leaf, const uint8_t *at, uint64_t row,
                          vexi_arena *arena, vexi_cell *out, vex_error *err) {
    *out = (vexi_cell){.is_null = false};
    switch (leaf->from) {
    case FROM_BOOL:
        out->as.boolean = at[0] != 0;
        return VEX_OK;
    case FROM_INT32: {
        int32_t value;
        memcpy(&value, at, sizeof value);
        out->as.int64 = value;
        return VEX_OK;
    }
    case FROM_UINT32: {
        uint32_t value;
        memcpy(&value, at, sizeof value);
        out->as.int64 = value;
        return VEX_OK;
    }
    case FROM_INT64:
    case FROM_MICROS:
        memcpy(&out->as.int64, at, sizeof out->as.int64);
        return VEX_OK;
    case FROM_UINT64: {
        uint64_t value;
        memcpy(&value, at, sizeof value);
        if (value > INT64_MAX) {
            return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                                 "row %" PRIu64 ", column %s: %" PRIu64 " is beyond int64", row,
                                 leaf->name, value);
        }
        out->as.int64 = (int64_t)value;
        return VEX_OK;
    }
    case FROM_FLOAT: {
        float value;
        memcpy(&value, at, sizeof value);
        out->as.float64 = (double)value;
        return VEX_OK;
    }
    case FROM_DOUBLE:
        memcpy(&out->as.float64, at, sizeof out->as.float64);
        return VEX_OK;
    case FROM_HALF:
        out->as.float64 = (double)vexi_half_to_float(vexi_get_u16(at));
        return VEX_OK;
    case FROM_MILLIS: {
        int64_t value;
        memcpy(&value, at, sizeof value);
        return __builtin_mul_overflow(value, (int64_t)1000, &out->as.int64)
                   ? time_overflow(leaf, row, err)
                   : VEX_OK;
    }
    case FROM_NANOS: {
        int64_t value;
        memcpy(&value, at, sizeof value);
        out->as.int64 = floor_divide(value, 1000);
        return VEX_OK;
    }
    case FROM_INT96: {
        int64_t nanos = (int64_t)vexi_get_u64(at);
        int64_t days = (int64_t)vexi_get_u32(at + 8) - 2440588; /* Julian day of 1970-01-01 */
        int64_t micros;
        return __builtin_mul_overflow(days, (int64_t)86400000000, &micros) ||
                       __builtin_add_overflow(micros, floor_divide(nanos, 1000), &out->as.int64)
                   ? time_overflow(leaf, row, err)
                   : VEX_OK;
    }
    case FROM_STRING:
    case FROM_BINARY: {
        carquet_byte_array_t value;
        memcpy(&value, at, sizeof value);
        if (value.length < 0 || (value.length > 0 && value.data == NULL)) {
            return vexi_fail_row(err, VEX_CORRUPT, (int64_t)row, "column %s: malformed string",
                                 leaf->name);
        }
        /* carquet keeps the bytes only as long as its column reader. */
        size_t size = (size_t)value.length;
        out->as.string = (vex_string){vexi_arena_copy(arena, value.data, size), size};
        return out->as.string.data == NULL ? vexi_no_memory(err, size) : VEX_OK;
    }
    case FROM_NOTHING:
        break;
    }
    return vexi_fail(err, VEX_INTERNAL, "column %s has no conversion", leaf->name);
}

/* Put a cell where its leaf's role wants it. */
static vex_status place(const vexi_parquet_leaf *leaf, const vexi_cell *cell, uint64_t row,
                        vexi_arena *arena, vexi_row *out, vexi_cell *cells, vex_error *err) {
    vex_string text =
        cell->is_null || !vexi_leaf_is_bytes(leaf) ? (vex_string){0} : cell->as.string;
    switch (leaf->role) {
    case ROLE_ID:
        if (!cell->is_null && vexi_leaf_is_integer(leaf)) {
            text = vexi_source_decimal(arena, cell->as.int64);
            if (text.data == NULL) {
                return vexi_no_memory(err, 24);
            }
        }
        out->id = text;
        if (leaf->typed >= 0) {
            cells[leaf->typed] = *cell;
        }
        return vexi_source_check_id(text, row, err);
    case ROLE_ATTRIBUTES:
        out->attributes = text;
        return vexi_source_check_attributes(text, row, err);
    case ROLE_PAYLOAD:
        if (text.size > VEX_PAYLOAD_SIZE_MAX) {
            return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                                 "row %" PRIu64 ": a payload of %zu bytes; %u are possible", row,
                                 text.size, VEX_PAYLOAD_SIZE_MAX);
        }
        out->payload = text;
        return VEX_OK;
    case ROLE_TYPED:
        cells[leaf->typed] = *cell;
        return text.data == NULL ? VEX_OK : vexi_source_check_string(text, leaf->name, row, err);
    case ROLE_VECTOR:
    case ROLE_NONE:
        break;
    }
    return vexi_fail(err, VEX_INTERNAL, "column %s has no role", leaf->name);
}

static vex_status read_flat(vexi_row_source *source, vexi_parquet_leaf *leaf, size_t rows,
                            vexi_arena *arena, vexi_row *out, vexi_cell *cells, vex_error *err) {
    parquet_state *state = source->state;
    size_t read;
    VEX_TRY(grow_values(state, source->env, rows, leaf->value_size, err));
    VEX_TRY(read_values(state, leaf, source->env, state->values, rows, &read, err));
    if (read != rows) {
        return vexi_fail(err, VEX_CORRUPT, "column %s lacks row %" PRIu64, leaf->name,
                         source->next_row + read);
    }
    const uint8_t *at = state->values;
    for (size_t r = 0; r < rows; r++) {
        uint64_t row = source->next_row + r;
        vexi_cell cell = {.is_null = true};
        if (state->definitions[r] == leaf->definition_max) {
            VEX_TRY(convert(leaf, at, row, arena, &cell, err));
            at += leaf->value_size;
        }
        VEX_TRY(place(leaf, &cell, row, arena, &out[r], cells + r * state->column_count, err));
    }
    return VEX_OK;
}

/* ---- The source ---------------------------------------------------------------------------------
 */

static vex_status parquet_next(vexi_row_source *source, size_t row_max, vexi_arena *arena,
                               vexi_row **rows, size_t *row_count, vex_error *err) {
    parquet_state *state = source->state;
    if (state->group_left == 0) {
        VEX_TRY(open_group(state, source, err));
        if (state->group_left == 0) {
            return VEX_OK;
        }
    }
    size_t count = vexi_source_batch_rows(row_max, source->dimension);
    if ((int64_t)count > state->group_left) {
        count = (size_t)state->group_left;
    }
    vexi_row *out = vexi_arena_calloc(arena, count, sizeof *out);
    vexi_cell *cells = vexi_arena_calloc(arena, count * state->column_count + 1, sizeof *cells);
    if (out == NULL || cells == NULL) {
        return vexi_no_memory(err, count * sizeof *out);
    }
    bool has_ids = false;
    for (size_t i = 0; i < state->leaf_count; i++) {
        vexi_parquet_leaf *leaf = &state->leaves[i];
        has_ids = has_ids || leaf->role == ROLE_ID;
        if (leaf->is_list) {
            VEX_TRY(read_vectors(source, leaf, count, arena, out, err));
        } else {
            VEX_TRY(read_flat(source, leaf, count, arena, out, cells, err));
        }
    }
    for (size_t r = 0; r < count; r++) {
        out[r].cells = state->column_count == 0 ? NULL : cells + r * state->column_count;
        if (!has_ids) {
            VEX_TRY(vexi_source_next_id(source, source->next_row + r, arena, &out[r].id, err));
        }
    }
    state->group_left -= (int64_t)count;
    *rows = out;
    *row_count = count;
    return VEX_OK;
}

static void parquet_deinit(parquet_state *state, const vexi_env *env) {
    close_group(state);
    carquet_reader_close(state->reader);
    vexi_free(env, state->values);
    vexi_free(env, state->definitions);
    vexi_free(env, state->repetitions);
}

static void parquet_close(vexi_row_source *source) {
    parquet_deinit(source->state, source->env);
}

static const vexi_row_source_ops PARQUET_OPS = {.next = parquet_next, .close = parquet_close};

vex_status vexi_source_open_parquet(vexi_row_source *source, vexi_row_source_info *info,
                                    vex_error *err) {
    VEX_TRY(vexi_parquet_check_footer(source->file, err));
    parquet_state *state = vexi_arena_calloc(&source->arena, 1, sizeof *state);
    if (state == NULL) {
        return vexi_no_memory(err, sizeof *state);
    }
    carquet_reader_options_t options;
    carquet_reader_options_init(&options);
    options.num_threads = 1;
    carquet_error_t detail = CARQUET_ERROR_INIT;
    state->reader =
        carquet_reader_open_buffer(source->file.data, source->file.size, &options, &detail);
    if (state->reader == NULL) {
        return vexi_carquet_fail(detail.code, &detail, "Parquet footer", err);
    }
    source->state = state;
    state->group_count = carquet_reader_num_row_groups(state->reader);
    info->row_count = (uint64_t)carquet_reader_num_rows(state->reader);
    vex_status status;
    VEX_TRY_GOTO(status, done,
                 vexi_parquet_choose_columns(source, state->reader, &state->leaves,
                                             &state->leaf_count, info, err));
    state->column_count = info->column_count;
    VEX_TRY_GOTO(status, done, open_group(state, source, err));
    if (state->group_left > 0) {
        for (size_t i = 0; i < state->leaf_count; i++) {
            if (state->leaves[i].role == ROLE_VECTOR) {
                VEX_TRY_GOTO(status, done, find_dimension(source, &state->leaves[i], err));
            }
        }
        /* Begin again: the dimension was read from the first group. */
        state->group_left = 0;
        state->group = 0;
    }
    source->ops = &PARQUET_OPS;
done:
    if (status != VEX_OK) {
        parquet_deinit(state, source->env);
    }
    return status;
}
