/* Row source: which format a file has, and what holds for rows of every format.
 *
 * The first bytes decide where a format has a magic (Parquet, npy); the name decides otherwise. A
 * failure names the file, and the row where there is one; after it the source can only be closed.
 */
#include "format/row_source.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

#include "base/utf8.h"
#include "format/row_source_internal.h"

enum {
    BATCH_VECTORS_SIZE_MAX = 64 << 20, /* bytes of vectors that one batch holds at most */
    SKIPPED_SIZE_MAX = 1 << 20
};

/* ---- Typed columns ----------------------------------------------------------------------------
 */

void vexi_source_columns_init(vexi_source_columns *columns, const vexi_env *env) {
    *columns = (vexi_source_columns){.count = 0};
    vexi_buffer_init(&columns->skipped, env, SKIPPED_SIZE_MAX);
}

void vexi_source_columns_deinit(vexi_source_columns *columns) {
    vexi_buffer_deinit(&columns->skipped);
}

void vexi_source_skip_column(vexi_source_columns *columns, vex_string name) {
    if (columns->skipped.size > 0) {
        vexi_buffer_text(&columns->skipped, ", ");
    }
    vexi_buffer_append(&columns->skipped, name.data, name.size);
}

static bool name_allowed(const vexi_source_columns *columns, vex_string name) {
    if (name.size == 0 || name.size > VEX_NAME_SIZE_MAX || columns->count == VEX_COLUMNS_MAX ||
        !vexi_utf8_valid(name.data, name.size) || vexi_string_is(name, "id") ||
        vexi_string_is(name, "vector") || vexi_string_is(name, "attributes") ||
        vexi_string_is(name, "payload")) {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        if ((unsigned char)name.data[i] < 0x20 || name.data[i] == 0x7f) {
            return false;
        }
    }
    for (uint32_t i = 0; i < columns->count; i++) {
        if (vexi_string_equal(columns->items[i].name, name)) {
            return false;
        }
    }
    return true;
}

vex_status vexi_source_add_column(vexi_row_source *source, vexi_source_columns *columns,
                                  vex_string name, vex_type type, int32_t *index, vex_error *err) {
    *index = -1;
    if (!name_allowed(columns, name)) {
        vexi_source_skip_column(columns, name);
        return VEX_OK;
    }
    char *copy = vexi_arena_copy(&source->arena, name.data, name.size);
    if (copy == NULL) {
        return vexi_no_memory(err, name.size);
    }
    *index = (int32_t)columns->count;
    columns->items[columns->count++] =
        (vexi_schema_column){.name = {copy, name.size}, .type = type};
    return VEX_OK;
}

vex_status vexi_source_finish_columns(vexi_row_source *source, vexi_source_columns *columns,
                                      vexi_row_source_info *info, vex_error *err) {
    VEX_TRY(vexi_buffer_check(&columns->skipped, err));
    vexi_schema_column *items =
        vexi_arena_array(&source->arena, columns->count + 1u, sizeof *items);
    char *skipped = vexi_arena_copy(&source->arena, columns->skipped.data, columns->skipped.size);
    if (items == NULL || skipped == NULL) {
        return vexi_no_memory(err, columns->skipped.size);
    }
    for (uint32_t i = 0; i < columns->count; i++) {
        items[i] = columns->items[i];
    }
    info->column_count = columns->count;
    info->columns = items;
    info->skipped = skipped;
    return VEX_OK;
}

/* ---- Rows --------------------------------------------------------------------------------------
 */

size_t vexi_source_batch_rows(size_t row_max, uint32_t dimension) {
    size_t limit = BATCH_VECTORS_SIZE_MAX / (sizeof(float) * dimension);
    return row_max < limit ? row_max : limit;
}

vex_status vexi_source_batch(const vexi_row_source *source, uint64_t row_count, size_t row_max,
                             vexi_arena *arena, vexi_row **rows, float **vectors, size_t *count,
                             vex_error *err) {
    uint64_t left = row_count - source->next_row;
    size_t most = vexi_source_batch_rows(row_max, source->dimension);
    *count = most < left ? most : (size_t)left;
    size_t size = *count * source->dimension * sizeof **vectors;
    *rows = vexi_arena_calloc(arena, *count, sizeof **rows);
    *vectors = vexi_arena_alloc_aligned(arena, 64, size);
    return *rows == NULL || *vectors == NULL ? vexi_no_memory(err, size) : VEX_OK;
}

vex_status vexi_source_check_dimension(uint64_t dimension, vex_error *err) {
    if (dimension < 1 || dimension > VEX_DIMENSION_MAX) {
        return vexi_fail_row(err, VEX_INVALID, 0,
                             "vectors of %" PRIu64 " values; 1 to %u are possible", dimension,
                             VEX_DIMENSION_MAX);
    }
    return VEX_OK;
}

vex_status vexi_source_check_vector(const float *vector, uint32_t dimension, uint64_t row,
                                    vex_error *err) {
    uint32_t bad = 0;
    for (uint32_t i = 0; i < dimension; i++) {
        uint32_t bits;
        memcpy(&bits, &vector[i], sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    if (bad != 0) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                             "row %" PRIu64 ": the vector holds NaN or infinity", row);
    }
    return VEX_OK;
}

vex_status vexi_source_check_id(vex_string id, uint64_t row, vex_error *err) {
    if (id.data == NULL) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row, "row %" PRIu64 ": the id is null",
                             row);
    }
    if (id.size < 1 || id.size > VEX_ID_SIZE_MAX) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                             "row %" PRIu64 ": an id of %zu bytes; 1 to %u are possible", row,
                             id.size, VEX_ID_SIZE_MAX);
    }
    if (!vexi_utf8_valid(id.data, id.size)) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row, "row %" PRIu64 ": the id is not UTF-8",
                             row);
    }
    return VEX_OK;
}

vex_status vexi_source_check_attributes(vex_string text, uint64_t row, vex_error *err) {
    if (text.data == NULL) {
        return VEX_OK;
    }
    if (text.size > VEX_ATTRIBUTES_SIZE_MAX) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                             "row %" PRIu64 ": attributes of %zu bytes; %u are possible", row,
                             text.size, VEX_ATTRIBUTES_SIZE_MAX);
    }
    json_error_t why;
    json_t *value = json_loadb(text.data, text.size, 0, &why);
    if (value == NULL || !json_is_object(value)) {
        json_decref(value);
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                             "row %" PRIu64 ": the attributes are no JSON object", row);
    }
    json_decref(value);
    return VEX_OK;
}

vex_status vexi_source_check_string(vex_string text, const char *column, uint64_t row,
                                    vex_error *err) {
    if (text.size > VEX_STRING_SIZE_MAX) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                             "row %" PRIu64 ", column %s: a string of %zu bytes; %u are possible",
                             row, column, text.size, VEX_STRING_SIZE_MAX);
    }
    if (!vexi_utf8_valid(text.data, text.size)) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                             "row %" PRIu64 ", column %s: the string is not UTF-8", row, column);
    }
    return VEX_OK;
}

vex_string vexi_source_decimal(vexi_arena *arena, int64_t value) {
    char text[24];
    int size = snprintf(text, sizeof text, "%" PRId64, value);
    VEX_ASSERT(size > 0 && (size_t)size < sizeof text);
    return (vex_string){vexi_arena_copy(arena, text, (size_t)size), (size_t)size};
}

/* The line of ids at *offset, without its end; the last one may lack it. */
static bool next_line(vexi_span ids, size_t *offset, vex_string *out) {
    if (*offset >= ids.size) {
        return false;
    }
    const uint8_t *start = ids.data + *offset;
    size_t left = ids.size - *offset;
    const uint8_t *end = memchr(start, '\n', left);
    size_t size = end == NULL ? left : (size_t)(end - start);
    *offset += end == NULL ? size : size + 1;
    if (size > 0 && start[size - 1] == '\r') {
        size--;
    }
    *out = (vex_string){(const char *)start, size};
    return true;
}

vex_status vexi_source_next_id(vexi_row_source *source, uint64_t row, vexi_arena *arena,
                               vex_string *out, vex_error *err) {
    if (source->options.ids.data != NULL) {
        if (!next_line(source->options.ids, &source->ids_offset, out)) {
            return vexi_fail_row(err, VEX_INVALID, (int64_t)row, "there is no id for row %" PRIu64,
                                 row);
        }
        return vexi_source_check_id(*out, row, err);
    }
    uint64_t number;
    if (__builtin_add_overflow(source->options.first_number, row, &number) || number > INT64_MAX) {
        return vexi_fail(err, VEX_LIMIT, "row numbers beyond 63 bits");
    }
    *out = vexi_source_decimal(arena, (int64_t)number);
    return out->data == NULL ? vexi_no_memory(err, out->size) : VEX_OK;
}

vex_status vexi_source_check_ids(const vexi_row_source *source, uint64_t row_count,
                                 vex_error *err) {
    if (source->options.ids.data == NULL) {
        return VEX_OK;
    }
    size_t offset = 0;
    uint64_t count = 0;
    vex_string line;
    while (next_line(source->options.ids, &offset, &line)) {
        count++;
    }
    if (count != row_count) {
        return vexi_fail(err, VEX_INVALID, "%" PRIu64 " ids for %" PRIu64 " rows", count,
                         row_count);
    }
    return VEX_OK;
}

float vexi_half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = half >> 10 & 0x1fu;
    uint32_t mantissa = half & 0x3ffu;
    uint32_t bits;
    if (exponent == 0x1f) {
        bits = sign | 0x7f800000u | mantissa << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    } else {
        /* Zero and subnormals: mantissa x 2^-24, exact in float. */
        float value = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    }
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* ---- The source ---------------------------------------------------------------------------------
 */

static bool ends_with(const char *name, const char *ending) {
    size_t size = strlen(name), part = strlen(ending);
    if (size < part) {
        return false;
    }
    for (size_t i = 0; i < part; i++) {
        char c = name[size - part + i];
        if ((c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c) != ending[i]) {
            return false;
        }
    }
    return true;
}

static bool begins_with(vexi_span file, const char *magic, size_t size) {
    return file.size >= size && memcmp(file.data, magic, size) == 0;
}

static vex_status open_format(vexi_row_source *source, vexi_row_source_info *info, vex_error *err) {
    if (begins_with(source->file, "PAR1", 4) || begins_with(source->file, "PARE", 4)) {
        return vexi_source_open_parquet(source, info, err);
    }
    if (begins_with(source->file, "\x93NUMPY", 6)) {
        return vexi_source_open_npy(source, info, err);
    }
    if (ends_with(source->name, ".fvecs")) {
        return vexi_source_open_vecs(source, false, info, err);
    }
    if (ends_with(source->name, ".bvecs")) {
        return vexi_source_open_vecs(source, true, info, err);
    }
    if (ends_with(source->name, ".jsonl") || ends_with(source->name, ".ndjson") ||
        ends_with(source->name, ".json")) {
        return vexi_source_open_jsonl(source, info, err);
    }
    if (ends_with(source->name, ".parquet") || ends_with(source->name, ".npy")) {
        return vexi_fail(err, VEX_INVALID, "the content does not match the name's ending");
    }
    return vexi_fail(err, VEX_INVALID,
                     "unknown format; Parquet, .npy, .fvecs, .bvecs and .jsonl can be read");
}

vex_status vexi_row_source_open(const vexi_env *env, const char *name, vexi_span file,
                                const vexi_row_source_options *options, vexi_row_source **out,
                                vexi_row_source_info *info, vex_error *err) {
    *out = NULL;
    *info = (vexi_row_source_info){.skipped = ""};
    vexi_row_source *source = vexi_calloc(env, 1, sizeof *source);
    if (source == NULL) {
        return vexi_no_memory(err, sizeof *source);
    }
    source->env = env;
    source->file = file;
    source->options = options == NULL ? (vexi_row_source_options){0} : *options;
    vexi_arena_init(&source->arena, env);
    vex_status status;
    source->name = vexi_arena_copy(&source->arena, name, strlen(name));
    if (source->name == NULL) {
        status = vexi_no_memory(err, strlen(name));
        goto done;
    }
    status = open_format(source, info, err);
    if (status != VEX_OK) {
        status = vexi_prefix(err, status, "%s", name);
        goto done;
    }
    info->dimension = source->dimension;
    *out = source;
    source = NULL;
done:
    if (source != NULL) {
        vexi_arena_deinit(&source->arena);
        vexi_free(env, source);
        *info = (vexi_row_source_info){.skipped = ""};
    }
    return status;
}

vex_status vexi_row_source_next(vexi_row_source *source, size_t row_max, vexi_arena *arena,
                                vexi_row **rows, size_t *row_count, vex_error *err) {
    *rows = NULL;
    *row_count = 0;
    vex_status status = source->ops->next(source, row_max, arena, rows, row_count, err);
    if (status != VEX_OK) {
        *rows = NULL;
        *row_count = 0;
        return vexi_prefix(err, status, "%s", source->name);
    }
    source->next_row += *row_count;
    return VEX_OK;
}

void vexi_row_source_close(vexi_row_source *source) {
    if (source == NULL) {
        return;
    }
    const vexi_env *env = source->env;
    if (source->ops->close != NULL) {
        source->ops->close(source);
    }
    vexi_arena_deinit(&source->arena);
    vexi_free(env, source);
}
