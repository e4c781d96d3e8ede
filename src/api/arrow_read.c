/* Arrow in: schema first, then each batch.
 *
 * An array's row i is at position offset + i of its buffers; a struct's own offset adds to that of
 * its children. Lengths are checked against each other before anything is read: a child must reach
 * as far as its parent, offsets must ascend and stay inside the list's child. A buffer's real size
 * is not told by the C Data interface, so that much is trusted. Buffers may lie at any address;
 * vectors that are not aligned for floats are copied. */
#include "api/arrow_read.h"

#include <stdio.h>
#include <string.h>

/* ---- Schema ---------------------------------------------------------------------------------- */

static const char *column_type_names(vex_type type) {
    switch (type) {
    case VEX_TYPE_INT64:
        return "int64";
    case VEX_TYPE_DOUBLE:
        return "double";
    case VEX_TYPE_STRING:
        return "utf8 or large_utf8";
    case VEX_TYPE_BOOL:
        return "bool";
    case VEX_TYPE_TIMESTAMP:
        return "timestamp[us]";
    }
    return "of a known type";
}

static vex_status type_wrong(const struct ArrowSchema *field, const char *wanted, vex_error *err) {
    return vexi_fail(err, VEX_INVALID,
                     "column '%.128s' must be %s, but has the Arrow format '%.32s'", field->name,
                     wanted, field->format);
}

static bool format_is(const struct ArrowSchema *field, const char *format) {
    return strcmp(field->format, format) == 0;
}

/* One of two formats: the plain or the large form. */
static bool format_read(const struct ArrowSchema *field, const char *plain, const char *large,
                        bool *is_large) {
    *is_large = format_is(field, large);
    return *is_large || format_is(field, plain);
}

static bool typed_format_read(const struct ArrowSchema *field, vex_type type, bool *is_large) {
    *is_large = false;
    switch (type) {
    case VEX_TYPE_INT64:
        return format_is(field, "l");
    case VEX_TYPE_DOUBLE:
        return format_is(field, "g");
    case VEX_TYPE_STRING:
        return format_read(field, "u", "U", is_large);
    case VEX_TYPE_BOOL:
        return format_is(field, "b");
    case VEX_TYPE_TIMESTAMP:
        return strncmp(field->format, "tsu:", 4) == 0; /* values are UTC whatever the zone */
    }
    return false;
}

static vex_status vector_format_read(const struct ArrowSchema *field, vexi_arrow_layout *out,
                                     vex_error *err) {
    static const char wanted[] = "a list, large_list or fixed_size_list of float";
    if (format_is(field, "+l")) {
        out->vector_kind = 'l';
    } else if (format_is(field, "+L")) {
        out->vector_kind = 'L';
    } else if (strncmp(field->format, "+w:", 3) == 0) {
        out->vector_kind = 'w';
        out->vector_size = 0;
        const char *digit = field->format + 3;
        for (; *digit >= '0' && *digit <= '9' && out->vector_size <= VEX_DIMENSION_MAX; digit++) {
            out->vector_size = out->vector_size * 10 + (uint32_t)(*digit - '0');
        }
        if (*digit >= '0' && *digit <= '9') {
            return vexi_fail(err, VEX_INVALID, "column 'vector': lists of %.16s values",
                             field->format + 3);
        }
        if (*digit != '\0' || digit == field->format + 3) {
            return type_wrong(field, wanted, err);
        }
    } else {
        return type_wrong(field, wanted, err);
    }
    if (field->n_children != 1 || field->children == NULL || field->children[0] == NULL ||
        field->children[0]->format == NULL || !format_is(field->children[0], "f") ||
        field->children[0]->dictionary != NULL) {
        return vexi_fail(err, VEX_INVALID, "column 'vector' must be %s, but holds '%.32s'", wanted,
                         field->n_children == 1 && field->children != NULL &&
                                 field->children[0] != NULL && field->children[0]->format != NULL
                             ? field->children[0]->format
                             : "nothing");
    }
    return VEX_OK;
}

static vex_status field_read(const struct ArrowSchema *field, int64_t number,
                             const vexi_schema *collection, vexi_arrow_layout *out,
                             vex_error *err) {
    vex_string name = vexi_string_of(field->name);
    int64_t *slot = NULL;
    if (field->dictionary != NULL) {
        return type_wrong(field, "without a dictionary", err);
    }
    if (vexi_string_is(name, "id")) {
        slot = &out->id;
        if (!format_read(field, "u", "U", &out->large_id)) {
            return type_wrong(field, "utf8 or large_utf8", err);
        }
    } else if (vexi_string_is(name, "vector")) {
        slot = &out->vector;
        VEX_TRY(vector_format_read(field, out, err));
    } else if (vexi_string_is(name, "attributes")) {
        slot = &out->attributes;
        if (!format_read(field, "u", "U", &out->large_attributes)) {
            return type_wrong(field, "utf8 or large_utf8", err);
        }
    } else if (vexi_string_is(name, "payload")) {
        slot = &out->payload;
        if (!format_read(field, "z", "Z", &out->large_payload)) {
            return type_wrong(field, "binary or large_binary", err);
        }
    } else {
        for (uint32_t i = 0; i < collection->column_count; i++) {
            if (vexi_string_equal(collection->columns[i].name, name)) {
                slot = &out->typed[i];
                if (!typed_format_read(field, collection->columns[i].type, &out->large_typed[i])) {
                    return type_wrong(field, column_type_names(collection->columns[i].type), err);
                }
            }
        }
    }
    if (slot == NULL) {
        return vexi_fail(err, VEX_NOT_FOUND, "the collection has no column '%.128s'", field->name);
    }
    if (*slot >= 0) {
        return vexi_fail(err, VEX_INVALID, "column '%.128s' is there twice", field->name);
    }
    *slot = number;
    return VEX_OK;
}

vex_status vexi_arrow_layout_read(const struct ArrowSchema *schema, const vexi_schema *collection,
                                  vexi_arrow_layout *out, vex_error *err) {
    *out = (vexi_arrow_layout){.id = -1, .vector = -1, .attributes = -1, .payload = -1};
    for (uint32_t i = 0; i < VEX_COLUMNS_MAX; i++) {
        out->typed[i] = -1;
    }
    if (schema->release == NULL || schema->format == NULL || !format_is(schema, "+s")) {
        return vexi_fail(err, VEX_INVALID, "the stream's batches are no structs");
    }
    if (schema->n_children < 0 || schema->n_children > VEX_COLUMNS_MAX + 4 ||
        (schema->n_children > 0 && schema->children == NULL)) {
        return vexi_fail(err, VEX_INVALID, "the stream's batches have %lld columns",
                         (long long)schema->n_children);
    }
    out->child_count = schema->n_children;
    for (int64_t i = 0; i < schema->n_children; i++) {
        const struct ArrowSchema *field = schema->children[i];
        if (field == NULL || field->format == NULL || field->name == NULL) {
            return vexi_fail(err, VEX_INVALID, "column %lld of the stream has no name or format",
                             (long long)i);
        }
        VEX_TRY(field_read(field, i, collection, out, err));
    }
    if (out->id < 0 || out->vector < 0) {
        return vexi_fail(err, VEX_INVALID, "the stream has no column '%s'",
                         out->id < 0 ? "id" : "vector");
    }
    return VEX_OK;
}

/* ---- Arrays ---------------------------------------------------------------------------------- */

/* A child of the batch, checked: row i of the batch is position first + i of its buffers. */
typedef struct array_view {
    const char *name;
    const struct ArrowArray *array;
    size_t first;
    size_t count;
    const uint8_t *validity; /* NULL: nothing is null */
} array_view;

static bool bit_get(const uint8_t *bits, size_t i) {
    return (bits[i / 8] >> (i % 8) & 1) != 0;
}

static bool view_is_null(const array_view *view, size_t row) {
    return view->validity != NULL && !bit_get(view->validity, view->first + row);
}

/* Shape of one array: lengths that add up without overflow, the buffers its type has. */
static vex_status array_check(const struct ArrowArray *array, const char *name,
                              int64_t buffer_count, int64_t child_count, vex_error *err) {
    int64_t end;
    if (array == NULL || array->release == NULL) {
        return vexi_fail(err, VEX_INVALID, "column '%s': the array is missing or released", name);
    }
    if (array->length < 0 || array->offset < 0 ||
        __builtin_add_overflow(array->length, array->offset, &end) || end > INT64_MAX / 64) {
        return vexi_fail(err, VEX_INVALID, "column '%s': length %lld, offset %lld", name,
                         (long long)array->length, (long long)array->offset);
    }
    if (array->n_buffers != buffer_count || array->buffers == NULL ||
        array->n_children != child_count || (child_count > 0 && array->children == NULL)) {
        return vexi_fail(err, VEX_INVALID,
                         "column '%s': %lld buffers and %lld children do not fit its type", name,
                         (long long)array->n_buffers, (long long)array->n_children);
    }
    if (array->dictionary != NULL) {
        return vexi_fail(err, VEX_INVALID, "column '%s' has a dictionary", name);
    }
    if (array->null_count > 0 && array->buffers[0] == NULL) {
        return vexi_fail(err, VEX_INVALID, "column '%s' has nulls, but no validity bitmap", name);
    }
    for (int64_t i = 1; i < buffer_count; i++) {
        /* The bytes of strings may be NULL where all are empty; offsets are checked later. */
        if (array->buffers[i] == NULL && array->length > 0 && i != 2) {
            return vexi_fail(err, VEX_INVALID, "column '%s': buffer %lld is NULL", name,
                             (long long)i);
        }
    }
    return VEX_OK;
}

static vex_status view_init(const struct ArrowArray *batch, int64_t child, const char *name,
                            int64_t buffer_count, int64_t child_count, array_view *out,
                            vex_error *err) {
    const struct ArrowArray *array = batch->children[child];
    VEX_TRY(array_check(array, name, buffer_count, child_count, err));
    if (array->length < batch->length + batch->offset) {
        return vexi_fail(err, VEX_INVALID, "column '%s' has %lld rows, the batch has %lld", name,
                         (long long)array->length, (long long)(batch->length + batch->offset));
    }
    *out = (array_view){
        .name = name,
        .array = array,
        .first = (size_t)(array->offset + batch->offset),
        .count = (size_t)batch->length,
        .validity = array->null_count == 0 ? NULL : array->buffers[0],
    };
    return VEX_OK;
}

/* Offset i of a list or string array: 32 bits or 64. */
static int64_t offset_get(const array_view *view, bool large, size_t i) {
    const uint8_t *offsets = view->array->buffers[1];
    if (large) {
        int64_t value;
        memcpy(&value, offsets + i * sizeof value, sizeof value);
        return value;
    }
    int32_t value;
    memcpy(&value, offsets + i * sizeof value, sizeof value);
    return value;
}

static vex_status offsets_check(const array_view *view, bool large, vex_error *err) {
    if (view->count == 0) {
        return VEX_OK;
    }
    int64_t previous = offset_get(view, large, view->first);
    for (size_t i = 0; i < view->count && previous >= 0; i++) {
        int64_t next = offset_get(view, large, view->first + i + 1);
        if (next < previous) {
            return vexi_fail_row(err, VEX_INVALID, (int64_t)i,
                                 "column '%s': the offsets of row %zu descend", view->name, i);
        }
        previous = next;
    }
    return previous < 0 ? vexi_fail(err, VEX_INVALID, "column '%s': negative offset", view->name)
                        : VEX_OK;
}

static vex_status string_view_init(const struct ArrowArray *batch, int64_t child, const char *name,
                                   bool large, array_view *out, vex_error *err) {
    VEX_TRY(view_init(batch, child, name, 3, 0, out, err));
    VEX_TRY(offsets_check(out, large, err));
    if (out->count > 0 && out->array->buffers[2] == NULL &&
        offset_get(out, large, out->first) != offset_get(out, large, out->first + out->count)) {
        return vexi_fail(err, VEX_INVALID, "column '%s': buffer 2 is NULL", name);
    }
    return VEX_OK;
}

static vex_string string_get(const array_view *view, bool large, size_t row) {
    if (view_is_null(view, row)) {
        return (vex_string){NULL, 0};
    }
    int64_t first = offset_get(view, large, view->first + row);
    int64_t end = offset_get(view, large, view->first + row + 1);
    const char *bytes = view->array->buffers[2];
    return (vex_string){bytes == NULL ? "" : bytes + first, (size_t)(end - first)};
}

/* ---- Vectors --------------------------------------------------------------------------------- */

typedef struct vector_view {
    array_view lists;
    const struct ArrowArray *values;
    const uint8_t *value_validity;
    bool fixed;
    bool large;
    uint32_t size; /* fixed */
} vector_view;

static vex_status vector_view_init(const vexi_arrow_layout *layout, const struct ArrowArray *batch,
                                   vector_view *out, vex_error *err) {
    out->fixed = layout->vector_kind == 'w';
    out->large = layout->vector_kind == 'L';
    out->size = layout->vector_size;
    VEX_TRY(view_init(batch, layout->vector, "vector", out->fixed ? 1 : 2, 1, &out->lists, err));
    out->values = out->lists.array->children[0];
    VEX_TRY(array_check(out->values, "vector", 2, 0, err));
    out->value_validity = out->values->null_count == 0 ? NULL : out->values->buffers[0];
    size_t wanted = 0;
    if (out->fixed) {
        if (__builtin_mul_overflow(out->lists.first + out->lists.count, (size_t)out->size,
                                   &wanted)) {
            return vexi_fail(err, VEX_INVALID, "column 'vector' is too long");
        }
    } else {
        VEX_TRY(offsets_check(&out->lists, out->large, err));
        if (out->lists.count > 0) {
            wanted =
                (size_t)offset_get(&out->lists, out->large, out->lists.first + out->lists.count);
        }
    }
    if (wanted > (size_t)out->values->length) {
        return vexi_fail(err, VEX_INVALID, "column 'vector' needs %zu values, its list has %lld",
                         wanted, (long long)out->values->length);
    }
    return VEX_OK;
}

static vex_status vector_get(const vector_view *view, size_t row, vexi_arena *arena,
                             const float **vector, uint32_t *dimension, vex_error *err) {
    const array_view *lists = &view->lists;
    if (view_is_null(lists, row)) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row, "row %zu: the vector is null", row);
    }
    size_t first, size;
    if (view->fixed) {
        first = (lists->first + row) * view->size;
        size = view->size;
    } else {
        first = (size_t)offset_get(lists, view->large, lists->first + row);
        size = (size_t)offset_get(lists, view->large, lists->first + row + 1) - first;
    }
    first += (size_t)view->values->offset;
    /* A wrong length is the row check's to name; it reads no value then. */
    *dimension = size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
    for (size_t i = 0; view->value_validity != NULL && i < size; i++) {
        if (!bit_get(view->value_validity, first + i)) {
            return vexi_fail_row(err, VEX_INVALID, (int64_t)row,
                                 "row %zu: value %zu of the vector is null", row, i);
        }
    }
    const uint8_t *bytes = (const uint8_t *)view->values->buffers[1] + first * sizeof(float);
    if ((uintptr_t)bytes % sizeof(float) == 0) {
        *vector = (const float *)(const void *)bytes;
        return VEX_OK;
    }
    float *copy = vexi_arena_array(arena, size, sizeof *copy);
    if (copy == NULL) {
        return vexi_no_memory(err, size * sizeof *copy);
    }
    memcpy(copy, bytes, size * sizeof *copy);
    *vector = copy;
    return VEX_OK;
}

/* ---- Typed columns --------------------------------------------------------------------------- */

static void value_get(const array_view *view, vex_type type, bool large, size_t row,
                      vex_value *out) {
    size_t position = view->first + row;
    const uint8_t *bytes = view->array->buffers[1];
    out->is_null = view_is_null(view, row);
    if (out->is_null) {
        return;
    }
    switch (type) {
    case VEX_TYPE_INT64:
    case VEX_TYPE_TIMESTAMP:
        memcpy(&out->as.int64, bytes + position * sizeof(int64_t), sizeof(int64_t));
        break;
    case VEX_TYPE_DOUBLE:
        memcpy(&out->as.float64, bytes + position * sizeof(double), sizeof(double));
        break;
    case VEX_TYPE_BOOL:
        out->as.boolean = bit_get(bytes, position);
        break;
    case VEX_TYPE_STRING:
        out->as.string = string_get(view, large, row);
        break;
    }
}

/* values: row-major, value_count per row. */
static vex_status values_read(const vexi_arrow_layout *layout, const vexi_schema *collection,
                              const struct ArrowArray *batch, uint32_t value_count,
                              vex_value *values, vex_error *err) {
    uint32_t number = 0;
    for (uint32_t c = 0; c < collection->column_count; c++) {
        const vexi_schema_column *column = &collection->columns[c];
        array_view view;
        if (layout->typed[c] < 0) {
            continue;
        }
        if (column->type == VEX_TYPE_STRING) {
            VEX_TRY(string_view_init(batch, layout->typed[c], column->name.data,
                                     layout->large_typed[c], &view, err));
        } else {
            VEX_TRY(view_init(batch, layout->typed[c], column->name.data, 2, 0, &view, err));
        }
        for (size_t row = 0; row < view.count; row++) {
            vex_value *value = &values[row * value_count + number];
            value->column = column->name;
            value_get(&view, column->type, layout->large_typed[c], row, value);
        }
        number++;
    }
    return VEX_OK;
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static vex_status batch_check(const vexi_arrow_layout *layout, const struct ArrowArray *batch,
                              vex_error *err) {
    int64_t end;
    if (batch->length < 0 || batch->offset < 0 ||
        __builtin_add_overflow(batch->length, batch->offset, &end) || end > INT64_MAX / 64 ||
        batch->n_children != layout->child_count || batch->children == NULL) {
        return vexi_fail(err, VEX_INVALID, "a batch's shape does not fit the stream's schema");
    }
    const uint8_t *validity =
        batch->n_buffers == 1 && batch->buffers != NULL && batch->null_count != 0
            ? batch->buffers[0]
            : NULL;
    for (int64_t i = 0; validity != NULL && i < batch->length; i++) {
        if (!bit_get(validity, (size_t)(batch->offset + i))) {
            return vexi_fail_row(err, VEX_INVALID, i, "row %lld is null", (long long)i);
        }
    }
    return VEX_OK;
}

vex_status vexi_arrow_rows_read(const vexi_arrow_layout *layout, const vexi_schema *collection,
                                const struct ArrowArray *batch, vexi_arena *arena, vex_row **out,
                                size_t *count, vex_error *err) {
    array_view ids, attributes = {0}, payloads = {0};
    vector_view vectors = {0};
    *out = NULL;
    *count = 0;
    VEX_TRY(batch_check(layout, batch, err));
    size_t row_count = (size_t)batch->length;
    VEX_TRY(string_view_init(batch, layout->id, "id", layout->large_id, &ids, err));
    VEX_TRY(vector_view_init(layout, batch, &vectors, err));
    if (layout->attributes >= 0) {
        VEX_TRY(string_view_init(batch, layout->attributes, "attributes", layout->large_attributes,
                                 &attributes, err));
    }
    if (layout->payload >= 0) {
        VEX_TRY(string_view_init(batch, layout->payload, "payload", layout->large_payload,
                                 &payloads, err));
    }
    uint32_t value_count = 0;
    for (uint32_t c = 0; c < collection->column_count; c++) {
        value_count += layout->typed[c] >= 0;
    }
    size_t total;
    if (__builtin_mul_overflow(row_count, (size_t)value_count, &total)) {
        return vexi_no_memory(err, SIZE_MAX);
    }
    vex_row *rows = vexi_arena_array(arena, row_count, sizeof *rows);
    vex_value *values = vexi_arena_calloc(arena, total, sizeof *values);
    if (rows == NULL || values == NULL) {
        return vexi_no_memory(err, row_count * sizeof *rows);
    }
    VEX_TRY(values_read(layout, collection, batch, value_count, values, err));
    for (size_t i = 0; i < row_count; i++) {
        rows[i] = (vex_row){.id = string_get(&ids, layout->large_id, i)};
        if (rows[i].id.data == NULL) {
            return vexi_fail_row(err, VEX_INVALID, (int64_t)i, "row %zu: the id is null", i);
        }
        VEX_TRY(vector_get(&vectors, i, arena, &rows[i].vector, &rows[i].dimension, err));
        if (layout->attributes >= 0) {
            rows[i].attributes = string_get(&attributes, layout->large_attributes, i);
        }
        if (layout->payload >= 0) {
            rows[i].payload = string_get(&payloads, layout->large_payload, i);
        }
        rows[i].value_count = value_count;
        rows[i].values = value_count == 0 ? NULL : values + i * value_count;
    }
    *out = rows;
    *count = row_count;
    return VEX_OK;
}
