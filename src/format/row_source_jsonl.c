/* JSON lines: one object per line, with `vector` (numbers) and optionally `id` (string or integer),
 * `attributes` (an object, kept as it stands) and other keys, which become typed columns.
 *
 * The types come from the first 1,000 lines: integers, numbers (integers and reals mixed), strings,
 * booleans. A key with values of other or of several kinds becomes no column and is named among
 * those left out; so does `payload`, for which JSON has no form. A later line whose value does not
 * fit the column is an error that names the line; a key that appears only later is not read.
 *
 * Numbers are jansson's: an integer beyond 64 bits is an error of its parser. `attributes` is kept
 * byte for byte: jansson forgets how a value was written, so its text is found by a small scanner
 * over the line, which jansson has already found to be well-formed. */
#include <inttypes.h>
#include <jansson.h>

#include "format/row_source_internal.h"

enum { INFER_LINES = 1000, LINE_SIZE_MAX = 64 << 20 };

typedef struct jsonl_state {
    size_t offset; /* of the next line */
    uint64_t line; /* its number, from 0 */
    vex_string id_key;
    vex_string vector_key;
    uint32_t column_count;
    const vexi_schema_column *columns;
    int32_t id_column; /* typed column that repeats integer ids, -1: there is none */
} jsonl_state;

/* The next line that is not blank. *end: there is none. */
static vex_status next_line(const vexi_row_source *source, size_t *offset, uint64_t *line,
                            vexi_span *out, bool *end, vex_error *err) {
    vexi_span file = source->file;
    *end = false;
    while (*offset < file.size) {
        const uint8_t *start = file.data + *offset;
        size_t left = file.size - *offset;
        const uint8_t *newline = memchr(start, '\n', left);
        size_t size = newline == NULL ? left : (size_t)(newline - start);
        *offset += newline == NULL ? size : size + 1;
        (*line)++;
        if (size > LINE_SIZE_MAX) {
            return vexi_fail_row(err, VEX_LIMIT, (int64_t)(*line - 1),
                                 "line %" PRIu64 ": longer than 64 MiB", *line);
        }
        for (size_t i = 0; i < size; i++) {
            if (start[i] != ' ' && start[i] != '\t' && start[i] != '\r') {
                *out = vexi_span_of(start, size);
                return VEX_OK;
            }
        }
    }
    *end = true;
    return VEX_OK;
}

static vex_status parse_line(vexi_span text, uint64_t line, json_t **out, vex_error *err) {
    json_error_t why;
    *out = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &why);
    if (*out == NULL) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)line - 1, "line %" PRIu64 ": %s", line,
                             why.text);
    }
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return vexi_fail_row(err, VEX_INVALID, (int64_t)line - 1,
                             "line %" PRIu64 ": not a JSON object", line);
    }
    return VEX_OK;
}

static json_t *get(const json_t *object, vex_string key) {
    return json_object_getn(object, key.data, key.size);
}

/* ---- Columns ------------------------------------------------------------------------------------
 */

/* The kinds of values that a key had, as bits. */
enum { SEEN_INT = 1, SEEN_REAL = 2, SEEN_STRING = 4, SEEN_BOOL = 8, SEEN_OTHER = 16 };

static json_int_t kind_of(const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_INTEGER:
        return SEEN_INT;
    case JSON_REAL:
        return SEEN_REAL;
    case JSON_STRING:
        return SEEN_STRING;
    case JSON_TRUE:
    case JSON_FALSE:
        return SEEN_BOOL;
    case JSON_NULL:
        return 0;
    default:
        return SEEN_OTHER;
    }
}

/* Add the kinds of a line's values to `seen`, an object of integers in order of appearance. */
static vex_status note_kinds(const jsonl_state *state, json_t *object, json_t *seen,
                             vex_error *err) {
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        vex_string name = vexi_string_of(key);
        if (vexi_string_equal(name, state->id_key) || vexi_string_equal(name, state->vector_key) ||
            vexi_string_is(name, "attributes")) {
            continue;
        }
        json_int_t kinds = kind_of(value);
        json_t *known = json_object_get(seen, key);
        if (known != NULL) {
            json_integer_set(known, json_integer_value(known) | kinds);
        } else if (json_object_set_new(seen, key, json_integer(kinds)) != 0) {
            return vexi_no_memory(err, 64);
        }
    }
    return VEX_OK;
}

static vex_status make_columns(vexi_row_source *source, json_t *seen, bool integer_id,
                               vexi_row_source_info *info, vex_error *err) {
    jsonl_state *state = source->state;
    vexi_source_columns columns;
    vexi_source_columns_init(&columns, source->env);
    vex_status status = VEX_OK;
    int32_t index;
    const char *key;
    json_t *kinds;
    if (integer_id) {
        vex_string name =
            vexi_string_is(state->id_key, "id") ? vexi_string_of("id_number") : state->id_key;
        if (json_object_getn(seen, name.data, name.size) == NULL) {
            VEX_TRY_GOTO(status, done,
                         vexi_source_add_column(source, &columns, name, VEX_TYPE_INT64,
                                                &state->id_column, err));
        }
    }
    json_object_foreach(seen, key, kinds) {
        vex_string name = vexi_string_of(key);
        vex_type type;
        switch (json_integer_value(kinds)) {
        case SEEN_INT:
            type = VEX_TYPE_INT64;
            break;
        case SEEN_REAL:
        case SEEN_INT | SEEN_REAL:
            type = VEX_TYPE_DOUBLE;
            break;
        case SEEN_STRING:
            type = VEX_TYPE_STRING;
            break;
        case SEEN_BOOL:
            type = VEX_TYPE_BOOL;
            break;
        default:
            vexi_source_skip_column(&columns, name);
            continue;
        }
        VEX_TRY_GOTO(status, done,
                     vexi_source_add_column(source, &columns, name, type, &index, err));
    }
    status = vexi_source_finish_columns(source, &columns, info, err);
done:
    vexi_source_columns_deinit(&columns);
    return status;
}

/* ---- Rows --------------------------------------------------------------------------------------
 */

static vex_status bad_line(uint64_t line, const char *what, vex_error *err) {
    return vexi_fail_row(err, VEX_INVALID, (int64_t)line - 1, "line %" PRIu64 ": %s", line, what);
}

static vex_status read_vector(const json_t *value, uint32_t dimension, uint64_t line,
                              vexi_arena *arena, const float **out, vex_error *err) {
    if (!json_is_array(value)) {
        return bad_line(line, "there is no array of numbers as the vector", err);
    }
    size_t count = json_array_size(value);
    if (count != dimension) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)line - 1,
                             "line %" PRIu64 ": a vector of %zu values, but the first one has %u",
                             line, count, dimension);
    }
    float *vector = vexi_arena_alloc(arena, count * sizeof *vector);
    if (vector == NULL) {
        return vexi_no_memory(err, count * sizeof *vector);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *number = json_array_get(value, i);
        if (!json_is_number(number)) {
            return bad_line(line, "the vector holds something that is no number", err);
        }
        vector[i] = (float)json_number_value(number);
    }
    *out = vector;
    return vexi_source_check_vector(vector, dimension, line - 1, err);
}

static vex_status copy_string(const json_t *value, vexi_arena *arena, vex_string *out,
                              vex_error *err) {
    size_t size = json_string_length(value);
    *out = (vex_string){vexi_arena_copy(arena, json_string_value(value), size), size};
    return out->data == NULL ? vexi_no_memory(err, size) : VEX_OK;
}

static vex_status read_cell(const json_t *value, const vexi_schema_column *column, uint64_t line,
                            vexi_arena *arena, vexi_cell *out, vex_error *err) {
    *out = (vexi_cell){.is_null = value == NULL || json_is_null(value)};
    if (out->is_null) {
        return VEX_OK;
    }
    if (column->type == VEX_TYPE_INT64 && json_is_integer(value)) {
        out->as.int64 = json_integer_value(value);
    } else if (column->type == VEX_TYPE_DOUBLE && json_is_number(value)) {
        out->as.float64 = json_number_value(value);
    } else if (column->type == VEX_TYPE_BOOL && json_is_boolean(value)) {
        out->as.boolean = json_is_true(value);
    } else if (column->type == VEX_TYPE_STRING && json_is_string(value)) {
        VEX_TRY(copy_string(value, arena, &out->as.string, err));
        return vexi_source_check_string(out->as.string, column->name.data, line - 1, err);
    } else {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)line - 1,
                             "line %" PRIu64 ": the value of %s has another type than before", line,
                             column->name.data);
    }
    return VEX_OK;
}

/* ---- The text of attributes
 * ----------------------------------------------------------------------- */

/* Where the string that begins at `at` (a quote) ends: behind its closing quote. */
static size_t string_end(vexi_span text, size_t at) {
    for (at++; at < text.size && text.data[at] != '"'; at++) {
        at += text.data[at] == '\\';
    }
    return at < text.size ? at + 1 : text.size;
}

/* The value of the `attributes` key of the line's object. The line is well-formed, has the key once
 * and the value is an object. Null where the key is spelled with escapes. */
static vex_string attributes_text(vexi_span text) {
    static const char KEY[] = "\"attributes\"";
    size_t depth = 0;
    for (size_t at = 0; at < text.size;) {
        uint8_t c = text.data[at];
        if (c == '{' || c == '[') {
            depth++;
            at++;
        } else if (c == '}' || c == ']') {
            depth--;
            at++;
        } else if (c == '"') {
            size_t end = string_end(text, at);
            bool is_key = depth == 1 && end - at == sizeof KEY - 1 &&
                          memcmp(text.data + at, KEY, sizeof KEY - 1) == 0;
            at = end;
            while (is_key && at < text.size && text.data[at] != '{' && text.data[at] != '"' &&
                   text.data[at] != ',' && text.data[at] != '}') {
                at++;
            }
            if (!is_key || at >= text.size || text.data[at] != '{') {
                continue; /* another string, or a string value that looks like the key */
            }
            size_t start = at, inner = 0;
            do {
                if (text.data[at] == '"') {
                    at = string_end(text, at);
                    continue;
                }
                inner += text.data[at] == '{';
                inner -= text.data[at] == '}';
                at++;
            } while (at < text.size && inner > 0);
            return (vex_string){(const char *)text.data + start, at - start};
        } else {
            at++;
        }
    }
    return (vex_string){0};
}

static vex_status read_attributes(const json_t *object, vexi_span text, uint64_t line,
                                  vexi_row *out, vex_error *err) {
    const json_t *value = json_object_get(object, "attributes");
    if (value == NULL || json_is_null(value)) {
        return VEX_OK;
    }
    if (!json_is_object(value)) {
        return bad_line(line, "the attributes are no JSON object", err);
    }
    out->attributes = attributes_text(text);
    if (out->attributes.data == NULL) {
        return bad_line(line, "the key attributes is spelled with escapes", err);
    }
    return vexi_source_check_attributes(out->attributes, line - 1, err);
}

/* number is the row's among the rows; blank lines count as lines only. */
static vex_status read_row(vexi_row_source *source, vexi_span text, uint64_t line, uint64_t number,
                           const json_t *object, vexi_arena *arena, vexi_row *out, vex_error *err) {
    const jsonl_state *state = source->state;
    const json_t *id = get(object, state->id_key);
    if (json_is_string(id)) {
        VEX_TRY(copy_string(id, arena, &out->id, err));
        VEX_TRY(vexi_source_check_id(out->id, line - 1, err));
    } else if (json_is_integer(id)) {
        out->id = vexi_source_decimal(arena, json_integer_value(id));
        if (out->id.data == NULL) {
            return vexi_no_memory(err, 24);
        }
    } else if (id != NULL || source->options.id_column.data != NULL) {
        return bad_line(line, "the id is neither a string nor an integer", err);
    } else {
        VEX_TRY(vexi_source_next_id(source, number, arena, &out->id, err));
    }
    VEX_TRY(read_vector(get(object, state->vector_key), source->dimension, line, arena,
                        &out->vector, err));
    VEX_TRY(read_attributes(object, text, line, out, err));
    vexi_cell *cells = vexi_arena_calloc(arena, state->column_count + 1u, sizeof *cells);
    if (cells == NULL) {
        return vexi_no_memory(err, state->column_count * sizeof *cells);
    }
    for (uint32_t c = 0; c < state->column_count; c++) {
        const vexi_schema_column *column = &state->columns[c];
        const json_t *value = get(object, column->name);
        if ((int32_t)c == state->id_column) {
            value = json_is_integer(id) ? id : NULL;
        }
        VEX_TRY(read_cell(value, column, line, arena, &cells[c], err));
    }
    out->cells = state->column_count == 0 ? NULL : cells;
    return VEX_OK;
}

static vex_status jsonl_next(vexi_row_source *source, size_t row_max, vexi_arena *arena,
                             vexi_row **rows, size_t *row_count, vex_error *err) {
    jsonl_state *state = source->state;
    size_t limit = vexi_source_batch_rows(row_max, source->dimension);
    limit = limit < 8192 ? limit : 8192;
    vexi_row *out = vexi_arena_calloc(arena, limit, sizeof *out);
    if (out == NULL) {
        return vexi_no_memory(err, limit * sizeof *out);
    }
    size_t count = 0;
    while (count < limit) {
        vexi_span text;
        bool end;
        VEX_TRY(next_line(source, &state->offset, &state->line, &text, &end, err));
        if (end) {
            break;
        }
        json_t *object;
        VEX_TRY(parse_line(text, state->line, &object, err));
        vex_status status = read_row(source, text, state->line, source->next_row + count, object,
                                     arena, &out[count], err);
        json_decref(object);
        VEX_TRY(status);
        count++;
    }
    *rows = out;
    *row_count = count;
    return VEX_OK;
}

static const vexi_row_source_ops JSONL_OPS = {.next = jsonl_next};

/* Read the first lines for dimension and columns. */
static vex_status infer(vexi_row_source *source, json_t *seen, bool *integer_id, vex_error *err) {
    jsonl_state *state = source->state;
    size_t offset = 0;
    uint64_t line = 0;
    for (int i = 0; i < INFER_LINES; i++) {
        vexi_span text;
        bool end;
        VEX_TRY(next_line(source, &offset, &line, &text, &end, err));
        if (end) {
            break;
        }
        json_t *object;
        VEX_TRY(parse_line(text, line, &object, err));
        if (source->dimension == 0) {
            const json_t *vector = get(object, state->vector_key);
            size_t dimension = json_is_array(vector) ? json_array_size(vector) : 0;
            vex_status status =
                json_is_array(vector)
                    ? vexi_source_check_dimension(dimension, err)
                    : bad_line(line, "there is no array of numbers as the vector", err);
            if (status != VEX_OK) {
                json_decref(object);
                return status;
            }
            source->dimension = (uint32_t)dimension;
        }
        const json_t *id = get(object, state->id_key);
        *integer_id = (i == 0 || *integer_id) && json_is_integer(id);
        vex_status status = note_kinds(state, object, seen, err);
        json_decref(object);
        VEX_TRY(status);
    }
    return source->dimension > 0 ? VEX_OK : vexi_fail(err, VEX_INVALID, "the file holds no row");
}

vex_status vexi_source_open_jsonl(vexi_row_source *source, vexi_row_source_info *info,
                                  vex_error *err) {
    jsonl_state *state = vexi_arena_calloc(&source->arena, 1, sizeof *state);
    if (state == NULL) {
        return vexi_no_memory(err, sizeof *state);
    }
    source->state = state;
    state->id_column = -1;
    state->id_key =
        source->options.id_column.data != NULL ? source->options.id_column : vexi_string_of("id");
    state->vector_key = source->options.vector_column.data != NULL ? source->options.vector_column
                                                                   : vexi_string_of("vector");
    json_t *seen = json_object();
    if (seen == NULL) {
        return vexi_no_memory(err, 64);
    }
    bool integer_id = false;
    vex_status status = infer(source, seen, &integer_id, err);
    if (status == VEX_OK) {
        status = make_columns(source, seen, integer_id, info, err);
    }
    json_decref(seen);
    VEX_TRY(status);
    state->column_count = info->column_count;
    state->columns = info->columns;
    source->ops = &JSONL_OPS;
    return VEX_OK;
}
