/* Arrow batches as text.
 *
 * A column is read through `column`, which knows the seven layouts that the library returns and
 * nothing else. A table takes two passes over its cells, one to measure and one to print, so
 * nothing is allocated; cells of a table are cut at CELL_WIDTH_MAX characters. What comes from a
 * lake never reaches a terminal as control characters. */
#include "cli/print.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bitmap.h"
#include "resp/resp.h"

enum { CELL_WIDTH_MAX = 48, CELL_SIZE_MAX = CELL_WIDTH_MAX * 4 + 8, COLUMNS_MAX = 72 };

typedef enum column_kind {
    COLUMN_UINT32,
    COLUMN_INT64,
    COLUMN_DOUBLE,
    COLUMN_BOOL,
    COLUMN_TEXT,
    COLUMN_BINARY,
    COLUMN_TIMESTAMP,
    COLUMN_VECTOR
} column_kind;

typedef struct column {
    const char *name;
    column_kind kind;
    bool large;         /* 64-bit offsets, of text and binary                                   */
    uint32_t dimension; /* of a vector                                                          */
    const struct ArrowArray *array;
} column;

static vex_status column_open(const struct ArrowSchema *schema, const struct ArrowArray *array,
                              column *out, vex_error *err) {
    *out = (column){.name = schema->name, .array = array};
    const char *format = schema->format;
    if (strcmp(format, "I") == 0) {
        out->kind = COLUMN_UINT32;
    } else if (strcmp(format, "l") == 0) {
        out->kind = COLUMN_INT64;
    } else if (strcmp(format, "g") == 0) {
        out->kind = COLUMN_DOUBLE;
    } else if (strcmp(format, "b") == 0) {
        out->kind = COLUMN_BOOL;
    } else if (strcmp(format, "u") == 0 || strcmp(format, "U") == 0) {
        out->kind = COLUMN_TEXT;
        out->large = format[0] == 'U';
    } else if (strcmp(format, "z") == 0 || strcmp(format, "Z") == 0) {
        out->kind = COLUMN_BINARY;
        out->large = format[0] == 'Z';
    } else if (strncmp(format, "tsu:", 4) == 0) {
        out->kind = COLUMN_TIMESTAMP;
    } else if (strncmp(format, "+w:", 3) == 0 && schema->n_children == 1 &&
               strcmp(schema->children[0]->format, "f") == 0) {
        out->kind = COLUMN_VECTOR;
        out->dimension = (uint32_t)strtoul(format + 3, NULL, 10);
    } else {
        return vexi_fail(err, VEX_UNSUPPORTED, "column %s has the unexpected Arrow type %s",
                         schema->name, format);
    }
    return VEX_OK;
}

static bool is_null(const column *c, int64_t row) {
    const uint8_t *validity = c->array->buffers[0];
    int64_t bit = c->array->offset + row;
    return c->array->null_count != 0 && validity != NULL &&
           (validity[bit / 8] >> (bit % 8) & 1) == 0;
}

static int64_t get_int64(const column *c, int64_t row) {
    return ((const int64_t *)c->array->buffers[1])[c->array->offset + row];
}

static double get_double(const column *c, int64_t row) {
    return ((const double *)c->array->buffers[1])[c->array->offset + row];
}

static bool get_bool(const column *c, int64_t row) {
    int64_t bit = c->array->offset + row;
    return (((const uint8_t *)c->array->buffers[1])[bit / 8] >> (bit % 8) & 1) != 0;
}

static vex_string get_bytes(const column *c, int64_t row) {
    int64_t place = c->array->offset + row;
    int64_t begin, end;
    if (c->large) {
        const int64_t *offsets = c->array->buffers[1];
        begin = offsets[place];
        end = offsets[place + 1];
    } else {
        const int32_t *offsets = c->array->buffers[1];
        begin = offsets[place];
        end = offsets[place + 1];
    }
    const char *data = c->array->buffers[2];
    return (vex_string){.data = begin == end ? "" : data + begin, .size = (size_t)(end - begin)};
}

static const float *get_vector(const column *c, int64_t row) {
    const struct ArrowArray *child = c->array->children[0];
    int64_t first = (c->array->offset + row) * c->dimension + child->offset;
    return (const float *)child->buffers[1] + first;
}

/* ---- Values as text -------------------------------------------------------------------------- */

static void format_timestamp(int64_t us, char *out, size_t size) {
    int64_t seconds = us / 1000000;
    int64_t rest = us % 1000000;
    if (rest < 0) {
        rest += 1000000;
        seconds--;
    }
    time_t time = (time_t)seconds;
    struct tm parts;
    if (gmtime_r(&time, &parts) == NULL) {
        (void)snprintf(out, size, "%" PRId64, us);
        return;
    }
    int used = snprintf(out, size, "%04d-%02d-%02dT%02d:%02d:%02d", parts.tm_year + 1900,
                        parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
    if (rest != 0) {
        (void)snprintf(out + used, size - (size_t)used, ".%06" PRId64 "Z", rest);
    } else {
        (void)snprintf(out + used, size - (size_t)used, "Z");
    }
}

static void print_double(double value, FILE *out) {
    char text[VEXI_NUMBER_SIZE_MAX];
    fwrite(text, 1, vexi_format_double(value, text), out);
}

static void print_vector(const column *c, int64_t row, FILE *out) {
    const float *values = get_vector(c, row);
    fputc('[', out);
    for (uint32_t i = 0; i < c->dimension; i++) {
        char text[VEXI_NUMBER_SIZE_MAX];
        size_t size = vexi_format_float(values[i], text);
        if (i > 0) {
            fputc(',', out);
        }
        fwrite(text, 1, size, out);
    }
    fputc(']', out);
}

static void print_base64(vex_string bytes, FILE *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes.size; i += 3) {
        uint32_t group = 0;
        size_t count = bytes.size - i < 3 ? bytes.size - i : 3;
        for (size_t j = 0; j < 3; j++) {
            group = group << 8 | (j < count ? (uint8_t)bytes.data[i + j] : 0u);
        }
        for (size_t j = 0; j < 4; j++) {
            fputc(j <= count ? digits[group >> (18 - 6 * j) & 63] : '=', out);
        }
    }
}

static void print_json_text(vex_string text, FILE *out) {
    fputc('"', out);
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = (uint8_t)text.data[i];
        if (byte == '"' || byte == '\\') {
            fprintf(out, "\\%c", byte);
        } else if (byte == '\n') {
            fputs("\\n", out);
        } else if (byte < 0x20 || byte == 0x7f) {
            fprintf(out, "\\u%04x", byte);
        } else {
            fputc(byte, out);
        }
    }
    fputc('"', out);
}

/* A JSON object as it was given, on one line: a line end outside strings is white space, and inside
 * them JSON does not allow any. */
static void print_json_object(vex_string text, FILE *out) {
    for (size_t i = 0; i < text.size; i++) {
        char byte = text.data[i];
        fputc(byte == '\n' || byte == '\r' ? ' ' : byte, out);
    }
}

static void print_json_value(const column *c, int64_t row, FILE *out) {
    char text[48];
    if (is_null(c, row)) {
        fputs("null", out);
        return;
    }
    switch (c->kind) {
    case COLUMN_UINT32:
        fprintf(out, "%" PRIu32, ((const uint32_t *)c->array->buffers[1])[c->array->offset + row]);
        break;
    case COLUMN_INT64:
        fprintf(out, "%" PRId64, get_int64(c, row));
        break;
    case COLUMN_DOUBLE:
        if (isfinite(get_double(c, row))) {
            print_double(get_double(c, row), out);
        } else {
            fputs("null", out);
        }
        break;
    case COLUMN_BOOL:
        fputs(get_bool(c, row) ? "true" : "false", out);
        break;
    case COLUMN_TEXT:
        if (strcmp(c->name, "attributes") == 0) {
            print_json_object(get_bytes(c, row), out);
        } else {
            print_json_text(get_bytes(c, row), out);
        }
        break;
    case COLUMN_BINARY:
        fputc('"', out);
        print_base64(get_bytes(c, row), out);
        fputc('"', out);
        break;
    case COLUMN_TIMESTAMP:
        format_timestamp(get_int64(c, row), text, sizeof text);
        fprintf(out, "\"%s\"", text);
        break;
    case COLUMN_VECTOR:
        print_vector(c, row, out);
        break;
    }
}

static void print_tabs_value(const column *c, int64_t row, FILE *out) {
    if (is_null(c, row)) {
        return;
    }
    if (c->kind == COLUMN_DOUBLE) {
        print_double(get_double(c, row), out);
    } else if (c->kind == COLUMN_BINARY) {
        print_base64(get_bytes(c, row), out);
    } else if (c->kind == COLUMN_TIMESTAMP) {
        char text[48];
        format_timestamp(get_int64(c, row), text, sizeof text);
        fputs(text, out);
    } else if (c->kind == COLUMN_TEXT) {
        vex_string text = get_bytes(c, row);
        for (size_t i = 0; i < text.size; i++) {
            switch (text.data[i]) {
            case '\t':
                fputs("\\t", out);
                break;
            case '\n':
                fputs("\\n", out);
                break;
            case '\\':
                fputs("\\\\", out);
                break;
            default:
                vexi_cli_print_safe(text.data + i, 1, out);
            }
        }
    } else {
        print_json_value(c, row, out);
    }
}

void vexi_cli_print_safe(const char *text, size_t size, FILE *out) {
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)text[i];
        fputc(byte < 0x20 || byte == 0x7f ? '?' : byte, out);
    }
}

/* ---- Tables ---------------------------------------------------------------------------------- */

/* Text for a cell, cut at CELL_WIDTH_MAX characters; its width in characters. */
static uint32_t cut_text(vex_string text, char out[CELL_SIZE_MAX]) {
    uint32_t width = 0, cut_width = 0;
    size_t size = 0, cut_size = 0; /* where an ellipsis would go */
    for (size_t i = 0; i < text.size; width++) {
        if (width == CELL_WIDTH_MAX) {
            memcpy(out + cut_size, "\xe2\x80\xa6", 4);
            return cut_width + 1;
        }
        cut_width = width;
        cut_size = size;
        uint8_t byte = (uint8_t)text.data[i++];
        out[size++] = (char)(byte < 0x20 || byte == 0x7f ? '?' : byte);
        for (int more = 0; more < 3 && i < text.size && ((uint8_t)text.data[i] & 0xc0) == 0x80;
             more++) {
            out[size++] = text.data[i++];
        }
    }
    out[size] = '\0';
    return width;
}

/* The text of a cell and its width in characters. */
static uint32_t format_cell(const column *c, int64_t row, char out[CELL_SIZE_MAX]) {
    int used = 0;
    out[0] = '\0';
    if (is_null(c, row)) {
        return 0;
    }
    switch (c->kind) {
    case COLUMN_UINT32:
        used = snprintf(out, CELL_SIZE_MAX, "%" PRIu32,
                        ((const uint32_t *)c->array->buffers[1])[c->array->offset + row]);
        break;
    case COLUMN_INT64:
        used = snprintf(out, CELL_SIZE_MAX, "%" PRId64, get_int64(c, row));
        break;
    case COLUMN_DOUBLE:
        used = snprintf(out, CELL_SIZE_MAX, "%.6g", get_double(c, row));
        break;
    case COLUMN_BOOL:
        used = snprintf(out, CELL_SIZE_MAX, "%s", get_bool(c, row) ? "true" : "false");
        break;
    case COLUMN_TEXT:
        return cut_text(get_bytes(c, row), out);
    case COLUMN_BINARY:
        used = snprintf(out, CELL_SIZE_MAX, "<%zu bytes>", get_bytes(c, row).size);
        break;
    case COLUMN_TIMESTAMP:
        format_timestamp(get_int64(c, row), out, CELL_SIZE_MAX);
        return (uint32_t)strlen(out);
    case COLUMN_VECTOR: {
        const float *values = get_vector(c, row);
        used = snprintf(out, CELL_SIZE_MAX,
                        c->dimension > 2 ? "[%.4g, %.4g, ... %" PRIu32 "]" : "[%.4g, %.4g]",
                        (double)values[0], (double)values[c->dimension > 1], c->dimension);
        break;
    }
    }
    return (uint32_t)used;
}

static bool is_number(const column *c) {
    return c->kind == COLUMN_UINT32 || c->kind == COLUMN_INT64 || c->kind == COLUMN_DOUBLE;
}

static void print_padded(const char *text, uint32_t width, uint32_t wanted, bool right, bool last,
                         FILE *out) {
    int pad = (int)(wanted - width);
    if (right) {
        fprintf(out, "%*s%s", pad, "", text);
    } else {
        fprintf(out, "%s%*s", text, last ? 0 : pad, "");
    }
    fputs(last ? "\n" : "  ", out);
}

static void print_table(const column *columns, uint32_t count, int64_t rows, FILE *out) {
    uint32_t widths[COLUMNS_MAX];
    char cell[CELL_SIZE_MAX];
    for (uint32_t i = 0; i < count; i++) {
        widths[i] = cut_text((vex_string){columns[i].name, strlen(columns[i].name)}, cell);
        for (int64_t row = 0; row < rows; row++) {
            uint32_t width = format_cell(&columns[i], row, cell);
            widths[i] = width > widths[i] ? width : widths[i];
        }
    }
    for (int64_t row = -1; row < rows; row++) {
        for (uint32_t i = 0; i < count; i++) {
            const column *c = &columns[i];
            uint32_t width = row < 0 ? cut_text((vex_string){c->name, strlen(c->name)}, cell)
                                     : format_cell(c, row, cell);
            print_padded(cell, width, widths[i], is_number(c), i + 1 == count, out);
        }
    }
}

static void print_lines(const column *columns, uint32_t count, int64_t rows, vexi_cli_style style,
                        FILE *out) {
    for (uint32_t i = 0; i < count && style == VEXI_CLI_TABS; i++) {
        vexi_cli_print_safe(columns[i].name, strlen(columns[i].name), out);
        fputc(i + 1 == count ? '\n' : '\t', out);
    }
    for (int64_t row = 0; row < rows; row++) {
        for (uint32_t i = 0; i < count; i++) {
            if (style == VEXI_CLI_TABS) {
                print_tabs_value(&columns[i], row, out);
                fputc(i + 1 == count ? '\n' : '\t', out);
                continue;
            }
            fputc(i == 0 ? '{' : ',', out);
            print_json_text((vex_string){columns[i].name, strlen(columns[i].name)}, out);
            fputc(':', out);
            print_json_value(&columns[i], row, out);
        }
        if (style == VEXI_CLI_JSON) {
            fputs("}\n", out);
        }
    }
}

vex_status vexi_cli_print(const struct ArrowSchema *schema, const struct ArrowArray *batch,
                          int64_t first_column, vexi_cli_style style, FILE *out, vex_error *err) {
    column columns[COLUMNS_MAX];
    uint32_t count = 0;
    for (int64_t i = first_column; i < schema->n_children; i++) {
        if (count == COLUMNS_MAX) {
            return vexi_fail(err, VEX_LIMIT, "more than %d columns", COLUMNS_MAX);
        }
        VEX_TRY(column_open(schema->children[i], batch->children[i], &columns[count++], err));
    }
    if (style == VEXI_CLI_TABLE) {
        print_table(columns, count, batch->length, out);
    } else {
        print_lines(columns, count, batch->length, style, out);
    }
    return VEX_OK;
}
