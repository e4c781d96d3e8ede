/* Columns asked for: from names to numbers, and from numbers to columns of a batch. */
#include "query/query.h"

static vex_status asked_find(const vexi_schema *schema, vex_string name, uint32_t *out,
                             vex_error *err) {
    if (name.data == NULL || name.size == 0) {
        return vexi_fail(err, VEX_INVALID, "a column's name is empty");
    }
    if (vexi_string_is(name, "vector")) {
        *out = VEXI_COLUMN_VECTOR;
        return VEX_OK;
    }
    if (vexi_string_is(name, "attributes")) {
        *out = VEXI_COLUMN_ATTRIBUTES;
        return VEX_OK;
    }
    if (vexi_string_is(name, "payload")) {
        *out = VEXI_COLUMN_PAYLOAD;
        return VEX_OK;
    }
    for (uint32_t i = 0; i < schema->column_count; i++) {
        if (vexi_string_equal(schema->columns[i].name, name)) {
            *out = VEXI_COLUMN_TYPED + i;
            return VEX_OK;
        }
    }
    if (vexi_string_is(name, "id")) {
        return vexi_fail(err, VEX_INVALID, "column 'id' is always returned, do not ask for it");
    }
    int size = name.size > VEX_NAME_SIZE_MAX ? (int)VEX_NAME_SIZE_MAX : (int)name.size;
    return vexi_fail(err, VEX_NOT_FOUND, "the collection has no column '%.*s'", size, name.data);
}

vex_status vexi_asked_resolve(const vexi_schema *schema, const vex_string *names, uint32_t count,
                              bool all, vexi_asked *out, vex_error *err) {
    out->count = 0;
    if (all) {
        out->columns[out->count++] = VEXI_COLUMN_VECTOR;
        out->columns[out->count++] = VEXI_COLUMN_ATTRIBUTES;
        out->columns[out->count++] = VEXI_COLUMN_PAYLOAD;
        for (uint32_t i = 0; i < schema->column_count; i++) {
            out->columns[out->count++] = VEXI_COLUMN_TYPED + i;
        }
        return VEX_OK;
    }
    if (count > VEXI_ASKED_MAX) {
        return vexi_fail(err, VEX_LIMIT, "%u columns are asked for, at most %d are returned", count,
                         VEXI_ASKED_MAX);
    }
    if (count > 0 && names == NULL) {
        return vexi_fail(err, VEX_INVALID, "column_count is %u, but columns is NULL", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        VEX_TRY(asked_find(schema, names[i], &out->columns[i], err));
    }
    out->count = count;
    return VEX_OK;
}

static vexi_batch_kind typed_kind(vex_type type) {
    switch (type) {
    case VEX_TYPE_INT64:
        return VEXI_BATCH_CELL_INT64;
    case VEX_TYPE_DOUBLE:
        return VEXI_BATCH_CELL_FLOAT64;
    case VEX_TYPE_STRING:
        return VEXI_BATCH_CELL_UTF8;
    case VEX_TYPE_BOOL:
        return VEXI_BATCH_CELL_BOOL;
    case VEX_TYPE_TIMESTAMP:
        return VEXI_BATCH_CELL_TIMESTAMP;
    }
    VEX_ASSERT(false);
}

void vexi_asked_describe(const vexi_schema *schema, const vexi_asked *asked,
                         const uint8_t *const *vectors, const vexi_cell *cells, size_t row_count,
                         vexi_batch_column *out) {
    for (uint32_t i = 0; i < asked->count; i++) {
        uint32_t column = asked->columns[i];
        out[i] = (vexi_batch_column){.nullable = true};
        if (column == VEXI_COLUMN_VECTOR) {
            out[i].name = vexi_string_of("vector");
            out[i].kind = VEXI_BATCH_VECTOR;
            out[i].dimension = schema->dimension;
            out[i].data = vectors;
            continue;
        }
        out[i].data = cells == NULL ? NULL : cells + i * row_count;
        if (column == VEXI_COLUMN_ATTRIBUTES) {
            out[i].name = vexi_string_of("attributes");
            out[i].kind = VEXI_BATCH_CELL_UTF8;
        } else if (column == VEXI_COLUMN_PAYLOAD) {
            out[i].name = vexi_string_of("payload");
            out[i].kind = VEXI_BATCH_CELL_BINARY;
        } else {
            const vexi_schema_column *typed = &schema->columns[column - VEXI_COLUMN_TYPED];
            out[i].name = typed->name;
            out[i].kind = typed_kind(typed->type);
        }
    }
}
