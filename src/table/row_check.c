/* Row check: every rule about a single row, in one place.
 *
 * The usual row has an id, a vector and nothing else, and arrives a hundred thousand times a
 * second: its path is one pass over the id, one over the vector, and no allocation beyond the cells
 * of the whole batch. JSON is parsed only where attributes are given; the parser's tree dies before
 * the next row, so strings taken from it are copied into the arena.
 *
 * Attributes must be one JSON object (RFC 8259) in UTF-8 without duplicate keys, nested at most 64
 * deep, without the character U+0000 (many readers would cut the text there). An integer beyond 64
 * bits is legal JSON and is kept as text; only a declared int64 column refuses it.
 *
 * Nothing here knows tables: the functions depend on the schema alone. */
#include "table/row_check.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/type.h"
#include "base/utf8.h"
#include "kernel/kernel.h"

enum { ATTRIBUTES_DEPTH_MAX = 64 };

/* ---- Id and vector --------------------------------------------------------------------------- */

vex_status vexi_id_check(vex_string id, vex_error *err) {
    if (id.data == NULL || id.size == 0) {
        return vexi_fail(err, VEX_INVALID, "the id is empty");
    }
    if (id.size > VEX_ID_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "the id has %zu bytes, more than %u", id.size,
                         VEX_ID_SIZE_MAX);
    }
    if (!vexi_utf8_valid(id.data, id.size)) {
        return vexi_fail(err, VEX_INVALID, "the id is not valid UTF-8");
    }
    return VEX_OK;
}

static bool vector_is_zero(const float *vector, uint32_t dimension) {
    for (uint32_t i = 0; i < dimension; i++) {
        if (vector[i] != 0.0f) {
            return false;
        }
    }
    return true;
}

vex_status vexi_vector_check(const vexi_schema *schema, const float *vector, uint32_t dimension,
                             vex_error *err) {
    if (dimension != schema->dimension) {
        return vexi_fail(err, VEX_INVALID, "the vector has %u dimensions, the collection has %u",
                         dimension, schema->dimension);
    }
    if (vector == NULL) {
        return vexi_fail(err, VEX_INVALID, "there is no vector");
    }
    if (!vexi_vector_finite((const uint8_t *)vector, dimension)) {
        for (uint32_t i = 0; i < dimension; i++) {
            if (!isfinite(vector[i])) {
                return vexi_fail(err, VEX_INVALID, "value %u of the vector is %s", i,
                                 isnan(vector[i]) ? "not a number" : "infinite");
            }
        }
    }
    if (schema->metric == VEX_METRIC_COSINE && vector_is_zero(vector, dimension)) {
        return vexi_fail(err, VEX_INVALID, "the vector is zero, which has no cosine distance");
    }
    return VEX_OK;
}

/* ---- Typed columns --------------------------------------------------------------------------- */

/* printf arguments for "%.*s" of a column's name. */
#define NAME(string) (int)(string).size, (string).data

static vex_status string_check(const vexi_schema_column *column, vex_string value, vex_error *err) {
    if (value.size > VEX_STRING_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "column '%.*s': the string has %zu bytes, more than %u",
                         NAME(column->name), value.size, VEX_STRING_SIZE_MAX);
    }
    if (!vexi_utf8_valid(value.data, value.size)) {
        return vexi_fail(err, VEX_INVALID, "column '%.*s': the string is not valid UTF-8",
                         NAME(column->name));
    }
    return VEX_OK;
}

/* Exactly `count` digits as a number; false if there are others. */
static bool digits(const char **text, const char *end, int count, int64_t *out) {
    int64_t value = 0;
    if (end - *text < count) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        char c = (*text)[i];
        if (c < '0' || c > '9') {
            return false;
        }
        value = value * 10 + (c - '0');
    }
    *text += count;
    *out = value;
    return true;
}

static bool skip(const char **text, const char *end, char c) {
    if (*text < end && **text == c) {
        (*text)++;
        return true;
    }
    return false;
}

/* Days from 1970-01-01 of the proleptic Gregorian calendar. */
static int64_t days_from_date(int64_t year, int64_t month, int64_t day) {
    int64_t shifted = month <= 2 ? year - 1 : year; /* years begin in March: leap days are last */
    int64_t era = (shifted >= 0 ? shifted : shifted - 399) / 400;
    int64_t year_of_era = shifted - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static int64_t days_in_month(int64_t year, int64_t month) {
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* ISO 8601 as RFC 3339 profiles it: date, 'T', 't' or a space, time with an optional fraction
 * (digits beyond microseconds are dropped), and 'Z' or an offset (+hh, +hhmm or +hh:mm): a time
 * without one would mean another instant on each machine. Leap seconds are refused. */
static bool timestamp_parse(vex_string value, int64_t *out_us) {
    const char *p = value.data;
    const char *end = p + value.size;
    int64_t year, month, day, hour, minute, second;
    if (!digits(&p, end, 4, &year) || !skip(&p, end, '-') || !digits(&p, end, 2, &month) ||
        !skip(&p, end, '-') || !digits(&p, end, 2, &day)) {
        return false;
    }
    if (!skip(&p, end, 'T') && !skip(&p, end, 't') && !skip(&p, end, ' ')) {
        return false;
    }
    if (!digits(&p, end, 2, &hour) || !skip(&p, end, ':') || !digits(&p, end, 2, &minute) ||
        !skip(&p, end, ':') || !digits(&p, end, 2, &second)) {
        return false;
    }
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 ||
        minute > 59 || second > 59) {
        return false;
    }
    int64_t fraction_us = 0;
    if (skip(&p, end, '.')) {
        int64_t unit = 100000;
        const char *first = p;
        for (; p < end && *p >= '0' && *p <= '9'; p++) {
            fraction_us += unit * (*p - '0');
            unit /= 10;
        }
        if (p == first) {
            return false;
        }
    }
    int64_t offset_minutes = 0;
    if (!skip(&p, end, 'Z') && !skip(&p, end, 'z')) {
        bool negative = skip(&p, end, '-');
        int64_t offset_hour, offset_minute = 0;
        if (!negative && !skip(&p, end, '+')) {
            return false;
        }
        if (!digits(&p, end, 2, &offset_hour)) {
            return false;
        }
        if (p < end) {
            (void)skip(&p, end, ':');
            if (!digits(&p, end, 2, &offset_minute)) {
                return false;
            }
        }
        if (offset_hour > 23 || offset_minute > 59) {
            return false;
        }
        offset_minutes = (negative ? -1 : 1) * (offset_hour * 60 + offset_minute);
    }
    if (p != end) {
        return false;
    }
    int64_t seconds = days_from_date(year, month, day) * 86400 + hour * 3600 +
                      (minute - offset_minutes) * 60 + second;
    *out_us = seconds * 1000000 + fraction_us;
    return true;
}

/* ---- Attributes ------------------------------------------------------------------------------ */

/* The parser recurses; this keeps its stack small. Strings are skipped, nothing else is judged. */
static bool depth_within(vex_string text, unsigned limit) {
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > limit) {
                return false;
            }
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return true;
}

/* The parsed object; *reals tells that integers were read as doubles because one of them does not
 * fit 64 bits. Given: json_decref. */
static vex_status attributes_parse(vex_string text, json_t **out, bool *reals, vex_error *err) {
    *out = NULL;
    *reals = false;
    if (text.size > VEX_ATTRIBUTES_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "the attributes have %zu bytes, more than %u", text.size,
                         VEX_ATTRIBUTES_SIZE_MAX);
    }
    if (!depth_within(text, ATTRIBUTES_DEPTH_MAX)) {
        return vexi_fail(err, VEX_INVALID, "the attributes are nested deeper than %d",
                         ATTRIBUTES_DEPTH_MAX);
    }
    json_error_t problem;
    size_t flags = JSON_REJECT_DUPLICATES | JSON_DECODE_ANY;
    json_t *root = json_loadb(text.data, text.size, flags, &problem);
    if (root == NULL && json_error_code(&problem) == json_error_numeric_overflow) {
        *reals = true;
        root = json_loadb(text.data, text.size, flags | JSON_DECODE_INT_AS_REAL, &problem);
    }
    if (root == NULL) {
        if (json_error_code(&problem) == json_error_out_of_memory) {
            return vexi_no_memory(err, text.size);
        }
        return vexi_fail(err, VEX_INVALID, "the attributes are not valid JSON: %s (byte %d)",
                         problem.text, problem.position);
    }
    if (!json_is_object(root)) {
        json_decref(root);
        return vexi_fail(err, VEX_INVALID, "the attributes are JSON, but no object");
    }
    *out = root;
    return VEX_OK;
}

static const char *json_type_name(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction or beyond 64 bits";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}

/* An integer; where all numbers were read as doubles, those that a double holds exactly. */
static bool json_int64(const json_t *value, bool reals, int64_t *out) {
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    if (reals && json_is_real(value)) {
        double real = json_real_value(value);
        if (fabs(real) <= 9007199254740992.0 && floor(real) == real) {
            *out = (int64_t)real;
            return true;
        }
    }
    return false;
}

static vex_status cell_from_json(const vexi_schema_column *column, const json_t *value, bool reals,
                                 vexi_arena *arena, vexi_cell *out, vex_error *err) {
    vex_string text;
    if (json_is_null(value)) {
        return VEX_OK; /* the cell is null already */
    }
    switch (column->type) {
    case VEX_TYPE_INT64:
        if (json_int64(value, reals, &out->as.int64)) {
            out->is_null = false;
            return VEX_OK;
        }
        break;
    case VEX_TYPE_DOUBLE:
        if (json_is_number(value)) {
            out->as.float64 = json_number_value(value);
            out->is_null = false;
            return VEX_OK;
        }
        break;
    case VEX_TYPE_BOOL:
        if (json_is_boolean(value)) {
            out->as.boolean = json_is_true(value);
            out->is_null = false;
            return VEX_OK;
        }
        break;
    case VEX_TYPE_STRING:
        if (json_is_string(value)) {
            text = (vex_string){json_string_value(value), json_string_length(value)};
            VEX_TRY(string_check(column, text, err));
            char *copy = vexi_arena_copy(arena, text.data, text.size);
            if (copy == NULL) {
                return vexi_no_memory(err, text.size);
            }
            out->as.string = (vex_string){copy, text.size};
            out->is_null = false;
            return VEX_OK;
        }
        break;
    case VEX_TYPE_TIMESTAMP:
        if (json_int64(value, reals, &out->as.int64)) {
            out->is_null = false;
            return VEX_OK;
        }
        if (json_is_string(value)) {
            text = (vex_string){json_string_value(value), json_string_length(value)};
            if (timestamp_parse(text, &out->as.int64)) {
                out->is_null = false;
                return VEX_OK;
            }
            return vexi_fail(err, VEX_INVALID,
                             "column '%.*s' is timestamp, the attributes give a string that is not "
                             "of the form 2024-01-31T12:00:00Z",
                             NAME(column->name));
        }
        break;
    }
    return vexi_fail(err, VEX_INVALID, "column '%.*s' is %s, the attributes give %s",
                     NAME(column->name), vexi_type_name(column->type), json_type_name(value));
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static vex_status cell_from_value(const vexi_schema_column *column, const vex_value *value,
                                  vexi_cell *out, vex_error *err) {
    if (value->is_null) {
        return VEX_OK;
    }
    switch (column->type) {
    case VEX_TYPE_INT64:
    case VEX_TYPE_TIMESTAMP:
        out->as.int64 = value->as.int64;
        break;
    case VEX_TYPE_DOUBLE:
        out->as.float64 = value->as.float64;
        break;
    case VEX_TYPE_BOOL:
        out->as.boolean = value->as.boolean;
        break;
    case VEX_TYPE_STRING:
        if (value->as.string.data == NULL) {
            return VEX_OK;
        }
        VEX_TRY(string_check(column, value->as.string, err));
        out->as.string = value->as.string;
        break;
    }
    out->is_null = false;
    return VEX_OK;
}

/* The column of a name. `hint` is where it probably is: callers give values in schema order. */
static bool column_find(const vexi_schema *schema, vex_string name, uint32_t hint, uint32_t *out) {
    if (hint < schema->column_count && vexi_string_equal(schema->columns[hint].name, name)) {
        *out = hint;
        return true;
    }
    for (uint32_t i = 0; i < schema->column_count; i++) {
        if (vexi_string_equal(schema->columns[i].name, name)) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* Fill the cells of one row, all null on entry. */
static vex_status cells_fill(const vexi_schema *schema, const vex_row *row, vexi_arena *arena,
                             vexi_cell *cells, vex_error *err) {
    uint64_t named = 0;
    for (uint32_t i = 0; i < row->value_count; i++) {
        const vex_value *value = &row->values[i];
        uint32_t column;
        if (value->column.data == NULL || !column_find(schema, value->column, i, &column)) {
            return vexi_fail(err, VEX_NOT_FOUND, "the collection has no column '%.*s'",
                             value->column.data == NULL ? 0 : (int)value->column.size,
                             value->column.data == NULL ? "" : value->column.data);
        }
        if ((named >> column & 1) != 0) {
            return vexi_fail(err, VEX_INVALID, "column '%.*s' is given twice", NAME(value->column));
        }
        named |= (uint64_t)1 << column;
        VEX_TRY(cell_from_value(&schema->columns[column], value, &cells[column], err));
    }
    if (row->attributes.data == NULL) {
        return VEX_OK;
    }
    json_t *root;
    bool reals;
    VEX_TRY(attributes_parse(row->attributes, &root, &reals, err));
    vex_status status = VEX_OK;
    for (uint32_t i = 0; status == VEX_OK && i < schema->column_count; i++) {
        const vexi_schema_column *column = &schema->columns[i];
        if ((named >> i & 1) == 0) {
            const json_t *value = json_object_getn(root, column->name.data, column->name.size);
            if (value != NULL) {
                status = cell_from_json(column, value, reals, arena, &cells[i], err);
            }
        }
    }
    json_decref(root);
    return status;
}

static vex_status row_check(const vexi_schema *schema, const vex_row *row, vexi_arena *arena,
                            vexi_cell *cells, vexi_row *out, vex_error *err) {
    VEX_TRY(vexi_id_check(row->id, err));
    VEX_TRY(vexi_vector_check(schema, row->vector, row->dimension, err));
    if (row->payload.data != NULL && row->payload.size > VEX_PAYLOAD_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "the payload has %zu bytes, more than %u",
                         row->payload.size, VEX_PAYLOAD_SIZE_MAX);
    }
    if (row->value_count > 0 && row->values == NULL) {
        return vexi_fail(err, VEX_INVALID, "value_count is %u, but values is NULL",
                         row->value_count);
    }
    if (row->value_count > 0 || row->attributes.data != NULL) {
        VEX_TRY(cells_fill(schema, row, arena, cells, err));
    }
    *out = (vexi_row){
        .id = row->id,
        .vector = row->vector,
        .attributes = row->attributes,
        .payload = row->payload,
        .cells = schema->column_count > 0 ? cells : NULL,
    };
    return VEX_OK;
}

vex_status vexi_rows_check(const vexi_schema *schema, const vex_row *rows, size_t count,
                           vexi_arena *arena, vexi_row *out, vex_error *err) {
    VEX_ASSERT(schema->column_count <= VEX_COLUMNS_MAX);
    vexi_cell *cells = NULL;
    if (schema->column_count > 0 && count > 0) {
        size_t cell_count;
        if (__builtin_mul_overflow(count, (size_t)schema->column_count, &cell_count)) {
            return vexi_no_memory(err, SIZE_MAX);
        }
        cells = vexi_arena_array(arena, cell_count, sizeof *cells);
        if (cells == NULL) {
            return vexi_no_memory(err, cell_count * sizeof *cells);
        }
        for (size_t i = 0; i < cell_count; i++) {
            cells[i] = (vexi_cell){.is_null = true};
        }
    }
    for (size_t i = 0; i < count; i++) {
        vexi_cell *of_row = cells == NULL ? NULL : cells + i * schema->column_count;
        vex_status status = row_check(schema, &rows[i], arena, of_row, &out[i], err);
        if (status != VEX_OK) {
            if (err != NULL) {
                err->row = (int64_t)i;
            }
            if (count > 1) {
                return vexi_prefix(err, status, "row %zu", i);
            }
            return status;
        }
    }
    return VEX_OK;
}
