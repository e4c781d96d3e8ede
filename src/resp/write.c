/* The reply writer. Headers are formatted by hand into room reserved once: a reply costs one
 * bounds check and no printf. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "resp/resp.h"

/* "<type><value>\r\n" */
static void write_header(vexi_buffer *out, char type, int64_t value) {
    uint8_t *room = vexi_buffer_reserve(out, VEXI_NUMBER_SIZE_MAX + 3);
    if (room == NULL) {
        return;
    }
    char *text = (char *)room;
    text[0] = type;
    size_t size;
    if (value >= 0 && value < 10) {
        text[1] = (char)('0' + value);
        size = 2;
    } else {
        size = 1 + vexi_format_i64(value, text + 1);
    }
    text[size] = '\r';
    text[size + 1] = '\n';
    out->size += size + 2;
}

void vexi_resp_simple(vexi_buffer *out, const char *text) {
    size_t size = strlen(text);
    uint8_t *room = vexi_buffer_reserve(out, size + 3);
    if (room == NULL) {
        return;
    }
    room[0] = '+';
    memcpy(room + 1, text, size);
    room[size + 1] = '\r';
    room[size + 2] = '\n';
    out->size += size + 3;
}

void vexi_resp_error(vexi_buffer *out, const char *text) {
    size_t size = strlen(text);
    uint8_t *room = vexi_buffer_reserve(out, size + 3);
    if (room == NULL) {
        return;
    }
    room[0] = '-';
    for (size_t i = 0; i < size; i++) {
        uint8_t c = (uint8_t)text[i];
        room[1 + i] = c < 0x20 || c == 0x7f ? (uint8_t)' ' : c;
    }
    room[size + 1] = '\r';
    room[size + 2] = '\n';
    out->size += size + 3;
}

void vexi_resp_errorf(vexi_buffer *out, const char *format, ...) {
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    vexi_resp_error(out, text);
}

void vexi_resp_integer(vexi_buffer *out, int64_t value) {
    write_header(out, ':', value);
}

static void write_bytes(vexi_buffer *out, char type, const void *data, size_t size) {
    uint8_t *room = vexi_buffer_reserve(out, size + VEXI_NUMBER_SIZE_MAX + 5);
    if (room == NULL) {
        return;
    }
    char *text = (char *)room;
    text[0] = type;
    size_t used = 1 + vexi_format_i64((int64_t)size, text + 1);
    text[used++] = '\r';
    text[used++] = '\n';
    if (size > 0) {
        memcpy(text + used, data, size);
        used += size;
    }
    text[used++] = '\r';
    text[used++] = '\n';
    out->size += used;
}

void vexi_resp_bulk(vexi_buffer *out, const void *data, size_t size) {
    write_bytes(out, '$', data, size);
}

void vexi_resp_bulk_text(vexi_buffer *out, const char *text) {
    write_bytes(out, '$', text, strlen(text));
}

void vexi_resp_verbatim(vexi_buffer *out, vexi_resp_protocol protocol, const void *data,
                        size_t size) {
    if (protocol == VEXI_RESP2) {
        write_bytes(out, '$', data, size);
        return;
    }
    write_header(out, '=', (int64_t)size + 4);
    vexi_buffer_append(out, "txt:", 4);
    vexi_buffer_append(out, data, size);
    vexi_buffer_append(out, "\r\n", 2);
}

void vexi_resp_null(vexi_buffer *out, vexi_resp_protocol protocol) {
    if (protocol == VEXI_RESP2) {
        vexi_buffer_append(out, "$-1\r\n", 5);
    } else {
        vexi_buffer_append(out, "_\r\n", 3);
    }
}

void vexi_resp_boolean(vexi_buffer *out, vexi_resp_protocol protocol, bool value) {
    if (protocol == VEXI_RESP2) {
        vexi_buffer_append(out, value ? ":1\r\n" : ":0\r\n", 4);
    } else {
        vexi_buffer_append(out, value ? "#t\r\n" : "#f\r\n", 4);
    }
}

/* A number that was formatted already. */
static void write_number(vexi_buffer *out, vexi_resp_protocol protocol, const char *text,
                         size_t size) {
    if (protocol == VEXI_RESP2) {
        write_bytes(out, '$', text, size);
        return;
    }
    uint8_t *room = vexi_buffer_reserve(out, size + 3);
    if (room == NULL) {
        return;
    }
    room[0] = ',';
    memcpy(room + 1, text, size);
    room[size + 1] = '\r';
    room[size + 2] = '\n';
    out->size += size + 3;
}

void vexi_resp_double(vexi_buffer *out, vexi_resp_protocol protocol, double value) {
    char text[VEXI_NUMBER_SIZE_MAX];
    write_number(out, protocol, text, vexi_format_double(value, text));
}

void vexi_resp_float(vexi_buffer *out, vexi_resp_protocol protocol, float value) {
    char text[VEXI_NUMBER_SIZE_MAX];
    write_number(out, protocol, text, vexi_format_float(value, text));
}

void vexi_resp_floats(vexi_buffer *out, vexi_resp_protocol protocol, const float *values,
                      size_t count) {
    vexi_resp_array(out, count);
    for (size_t i = 0; i < count; i++) {
        vexi_resp_float(out, protocol, values[i]);
    }
}

void vexi_resp_array(vexi_buffer *out, size_t count) {
    write_header(out, '*', (int64_t)count);
}

void vexi_resp_map(vexi_buffer *out, vexi_resp_protocol protocol, size_t count) {
    if (protocol == VEXI_RESP2) {
        write_header(out, '*', (int64_t)count * 2);
    } else {
        write_header(out, '%', (int64_t)count);
    }
}
