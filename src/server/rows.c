#include "server/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

int64_t vexi_rows_count(const vexi_rows *rows) {
    return rows->batch->length;
}

static bool bit(const void *bits, int64_t i) {
    return (((const uint8_t *)bits)[i / 8] >> (i % 8) & 1) != 0;
}

bool vexi_rows_is_null(const vexi_rows *rows, int64_t column, int64_t row) {
    const struct ArrowArray *array = rows->batch->children[column];
    return array->buffers[0] != NULL && array->null_count != 0 &&
           !bit(array->buffers[0], rows->batch->offset + array->offset + row);
}

vex_string vexi_rows_string(const vexi_rows *rows, int64_t column, int64_t row) {
    if (vexi_rows_is_null(rows, column, row)) {
        return (vex_string){0};
    }
    const struct ArrowArray *array = rows->batch->children[column];
    const char *format = rows->schema->children[column]->format;
    int64_t i = rows->batch->offset + array->offset + row;
    int64_t start;
    int64_t end;
    if (format[0] == 'U' || format[0] == 'Z') {
        const int64_t *offsets = array->buffers[1];
        start = offsets[i];
        end = offsets[i + 1];
    } else {
        const int32_t *offsets = array->buffers[1];
        start = offsets[i];
        end = offsets[i + 1];
    }
    const char *data = array->buffers[2];
    return (vex_string){.data = data != NULL ? data + start : "", .size = (size_t)(end - start)};
}

double vexi_rows_double(const vexi_rows *rows, int64_t column, int64_t row) {
    const struct ArrowArray *array = rows->batch->children[column];
    return ((const double *)array->buffers[1])[rows->batch->offset + array->offset + row];
}

uint32_t vexi_rows_u32(const vexi_rows *rows, int64_t column, int64_t row) {
    const struct ArrowArray *array = rows->batch->children[column];
    return ((const uint32_t *)array->buffers[1])[rows->batch->offset + array->offset + row];
}

size_t vexi_format_timestamp(int64_t us, char out[40]) {
    int64_t seconds = us / 1000000;
    int64_t fraction = us % 1000000;
    if (fraction < 0) {
        fraction += 1000000;
        seconds--;
    }
    int64_t days = seconds / 86400;
    int64_t rest = seconds % 86400;
    if (rest < 0) {
        rest += 86400;
        days--;
    }
    /* Days since 0000-03-01 of the proleptic Gregorian calendar: years begin in March, so the leap
     * day is a year's last. */
    int64_t day = days + 719468;
    int64_t era = (day >= 0 ? day : day - 146096) / 146097;
    int64_t day_of_era = day - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_from_march = (5 * day_of_year + 2) / 153;
    int64_t day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    int64_t month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;
    int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
    if (year < 0 || year > 9999) {
        return vexi_format_i64(us, out);
    }
    int size =
        snprintf(out, 40, "%04d-%02d-%02dT%02d:%02d:%02d", (int)year, (int)month, (int)day_of_month,
                 (int)(rest / 3600), (int)(rest / 60 % 60), (int)(rest % 60));
    if (fraction != 0) {
        size += snprintf(out + size, 40 - (size_t)size, ".%06d", (int)fraction);
    }
    out[size] = 'Z';
    return (size_t)size + 1;
}

/* Dimension of a fixed-size list's format "+w:n"; 0 if it is none. */
static int64_t list_size(const char *format) {
    return strncmp(format, "+w:", 3) == 0 ? strtoll(format + 3, NULL, 10) : 0;
}

static void write_value(const vexi_rows *rows, int64_t column, int64_t row, bool raw,
                        vexi_resp_protocol protocol, vexi_buffer *out) {
    if (vexi_rows_is_null(rows, column, row)) {
        vexi_resp_null(out, protocol);
        return;
    }
    const struct ArrowArray *array = rows->batch->children[column];
    const char *format = rows->schema->children[column]->format;
    int64_t i = rows->batch->offset + array->offset + row;
    switch (format[0]) {
    case 'u':
    case 'U':
    case 'z':
    case 'Z': {
        vex_string value = vexi_rows_string(rows, column, row);
        vexi_resp_bulk(out, value.data, value.size);
        return;
    }
    case 'l':
        vexi_resp_integer(out, ((const int64_t *)array->buffers[1])[i]);
        return;
    case 'i':
        vexi_resp_integer(out, ((const int32_t *)array->buffers[1])[i]);
        return;
    case 'g':
        vexi_resp_double(out, protocol, ((const double *)array->buffers[1])[i]);
        return;
    case 'b':
        vexi_resp_boolean(out, protocol, bit(array->buffers[1], i));
        return;
    case 't': {
        char text[40];
        size_t size = vexi_format_timestamp(((const int64_t *)array->buffers[1])[i], text);
        vexi_resp_bulk(out, text, size);
        return;
    }
    case '+': {
        int64_t count = list_size(format);
        const struct ArrowArray *values = array->children[0];
        const float *floats = (const float *)values->buffers[1] + values->offset + i * count;
        if (!raw) {
            vexi_resp_floats(out, protocol, floats, (size_t)count);
            return;
        }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        vexi_resp_bulk(out, floats, (size_t)count * sizeof *floats);
#else
#error "vectors as blobs are little-endian: swap them here"
#endif
        return;
    }
    default:
        vexi_resp_null(out, protocol);
        return;
    }
}

void vexi_rows_write_map(const vexi_rows *rows, int64_t first_column, int64_t row, bool raw,
                         vexi_resp_protocol protocol, vexi_buffer *out) {
    int64_t count = rows->schema->n_children;
    vexi_resp_map(out, protocol, (size_t)(count - first_column));
    for (int64_t i = first_column; i < count; i++) {
        vexi_resp_bulk_text(out, rows->schema->children[i]->name);
        write_value(rows, i, row, raw, protocol, out);
    }
}

uint64_t vexi_rows_cost(const vexi_rows *rows, int64_t first_column, bool raw) {
    uint64_t cost = 0;
    int64_t count = rows->batch->length;
    for (int64_t i = first_column; i < rows->schema->n_children; i++) {
        const struct ArrowArray *array = rows->batch->children[i];
        const char *format = rows->schema->children[i]->format;
        int64_t start = rows->batch->offset + array->offset;
        if (format[0] == '+') {
            /* Text costs about ten times the copying of a blob. */
            cost += (uint64_t)(count * list_size(format)) * (raw ? 4 : 64);
        } else if (format[0] == 'u' || format[0] == 'z') {
            const int32_t *offsets = array->buffers[1];
            cost += count > 0 ? (uint64_t)(offsets[start + count] - offsets[start]) : 0;
        } else if (format[0] == 'U' || format[0] == 'Z') {
            const int64_t *offsets = array->buffers[1];
            cost += count > 0 ? (uint64_t)(offsets[start + count] - offsets[start]) : 0;
        } else {
            cost += (uint64_t)count * 16;
        }
    }
    return cost;
}
