/* The request parser.
 *
 * A command is `*<count>\r\n` and count times `$<size>\r\n<bytes>\r\n`, or a line of words. All
 * progress is kept as offsets from the command's first byte, so the caller may move its buffer
 * while a command is incomplete, and bytes that were seen are not looked at again: a command that
 * arrives byte by byte costs the same as one that arrives whole. A header line is at most 32 bytes
 * and is read again from its start when it arrives in parts.
 *
 * Messages are those of Redis, which clients know. */
#include <string.h>

#include "base/bytes.h"
#include "resp/resp.h"

#define HEADER_SIZE_MAX 32u

void vexi_resp_parser_init(vexi_resp_parser *parser, const vexi_env *env, uint32_t argument_max,
                           size_t bulk_size_max) {
    *parser = (vexi_resp_parser){
        .env = env, .argument_max = argument_max, .bulk_size_max = bulk_size_max};
}

void vexi_resp_parser_deinit(vexi_resp_parser *parser) {
    if (parser->env != NULL) {
        vexi_free(parser->env, parser->slices);
    }
    parser->slices = NULL;
    parser->capacity = 0;
    vexi_resp_parser_next(parser);
}

void vexi_resp_parser_next(vexi_resp_parser *parser) {
    parser->count = 0;
    parser->offset = 0;
    parser->scanned_size = 0;
    parser->bulk_size = 0;
    parser->wanted_count = 0;
    parser->has_array = false;
    parser->has_bulk = false;
}

static vex_status add_slice(vexi_resp_parser *parser, size_t offset, size_t size, vex_error *err) {
    if (parser->count == parser->capacity) {
        VEX_TRY(vexi_grow(parser->env, (void **)&parser->slices, &parser->capacity, parser->count,
                          (size_t)parser->count + 1, sizeof *parser->slices, err));
    }
    parser->slices[parser->count++] = (vexi_resp_slice){.offset = offset, .size = size};
    return VEX_OK;
}

/* What a header line "<type><integer>\r\n" is. */
typedef enum header_state { HEADER_MORE, HEADER_OK, HEADER_BAD, HEADER_LONG } header_state;

/* Read the integer behind the type byte at text[0]; *taken_size receives the size of the line. */
static header_state read_header(const uint8_t *text, size_t size, int64_t *value,
                                size_t *taken_size) {
    size_t i = 1;
    bool negative = i < size && text[i] == '-';
    i += negative ? 1 : 0;
    size_t digits_start = i;
    uint64_t number = 0;
    while (i < size && text[i] >= '0' && text[i] <= '9') {
        if (i - digits_start >= 18) {
            return HEADER_LONG;
        }
        number = number * 10 + (uint64_t)(text[i] - '0');
        i++;
    }
    if (i == size) {
        return size >= HEADER_SIZE_MAX ? HEADER_LONG : HEADER_MORE;
    }
    if (text[i] != '\r' || i == digits_start) {
        return HEADER_BAD;
    }
    if (i + 1 == size) {
        return HEADER_MORE;
    }
    if (text[i + 1] != '\n') {
        return HEADER_BAD;
    }
    *value = negative ? -(int64_t)number : (int64_t)number;
    *taken_size = i + 2;
    return HEADER_OK;
}

static vex_status parse_array(vexi_resp_parser *parser, const uint8_t *data, size_t size,
                              bool *complete, vex_error *err) {
    int64_t value = 0;
    size_t taken_size = 0;
    if (!parser->has_array) {
        switch (read_header(data, size, &value, &taken_size)) {
        case HEADER_MORE:
            return VEX_OK;
        case HEADER_LONG:
            return vexi_fail(err, VEX_INVALID, "Protocol error: too big mbulk count string");
        case HEADER_BAD:
            return vexi_fail(err, VEX_INVALID, "Protocol error: invalid multibulk length");
        case HEADER_OK:
            break;
        }
        if (value > (int64_t)parser->argument_max) {
            return vexi_fail(err, VEX_INVALID, "Protocol error: %s multibulk length",
                             parser->strict ? "unauthenticated" : "invalid");
        }
        parser->offset = taken_size;
        parser->wanted_count = value > 0 ? (uint32_t)value : 0;
        parser->has_array = true;
    }
    while (parser->count < parser->wanted_count) {
        if (!parser->has_bulk) {
            if (parser->offset == size) {
                return VEX_OK;
            }
            uint8_t type = data[parser->offset];
            if (type != '$') {
                if (type >= 0x20 && type < 0x7f) {
                    return vexi_fail(err, VEX_INVALID, "Protocol error: expected '$', got '%c'",
                                     type);
                }
                return vexi_fail(err, VEX_INVALID, "Protocol error: expected '$', got byte 0x%02x",
                                 type);
            }
            switch (
                read_header(data + parser->offset, size - parser->offset, &value, &taken_size)) {
            case HEADER_MORE:
                return VEX_OK;
            case HEADER_LONG:
                return vexi_fail(err, VEX_INVALID, "Protocol error: too big bulk count string");
            case HEADER_BAD:
                return vexi_fail(err, VEX_INVALID, "Protocol error: invalid bulk length");
            case HEADER_OK:
                break;
            }
            if (value < 0 || (uint64_t)value > parser->bulk_size_max) {
                return vexi_fail(err, VEX_INVALID, "Protocol error: %s bulk length",
                                 parser->strict && value > 0 ? "unauthenticated" : "invalid");
            }
            parser->offset += taken_size;
            parser->bulk_size = (size_t)value;
            parser->has_bulk = true;
        }
        size_t left = size - parser->offset;
        if (left < 2 || left - 2 < parser->bulk_size) {
            return VEX_OK;
        }
        const uint8_t *end = data + parser->offset + parser->bulk_size;
        if (end[0] != '\r' || end[1] != '\n') {
            return vexi_fail(err, VEX_INVALID,
                             "Protocol error: bulk string of %zu bytes does not end in CR LF",
                             parser->bulk_size);
        }
        VEX_TRY(add_slice(parser, parser->offset, parser->bulk_size, err));
        parser->offset += parser->bulk_size + 2;
        parser->has_bulk = false;
    }
    *complete = true;
    return VEX_OK;
}

static bool is_space(uint8_t c) {
    return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r' || c == '\0';
}

static int hex_digit(uint8_t c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (uint8_t)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Unquote the word that begins with a quote at line[*position], in place; true if it is well
 * formed: closed, and followed by space or the line's end. */
static bool unquote(uint8_t *line, size_t size, size_t *position, size_t *word_size) {
    uint8_t quote = line[*position];
    size_t start = *position;
    size_t in = start + 1;
    size_t out = start;
    while (in < size && line[in] != quote) {
        uint8_t c = line[in++];
        if (c == '\\' && in < size && quote == '"') {
            int high = line[in] == 'x' && in + 2 < size ? hex_digit(line[in + 1]) : -1;
            int low = high >= 0 ? hex_digit(line[in + 2]) : -1;
            if (low >= 0) {
                c = (uint8_t)(high * 16 + low);
                in += 3;
            } else {
                c = line[in++];
                c = c == 'n'   ? (uint8_t)'\n'
                    : c == 'r' ? (uint8_t)'\r'
                    : c == 't' ? (uint8_t)'\t'
                    : c == 'b' ? (uint8_t)'\b'
                    : c == 'a' ? (uint8_t)'\a'
                               : c;
            }
        } else if (c == '\\' && in < size && line[in] == quote) {
            c = line[in++];
        }
        line[out++] = c;
    }
    if (in >= size) {
        return false;
    }
    in++;
    if (in < size && !is_space(line[in])) {
        return false;
    }
    *word_size = out - start;
    *position = in;
    return true;
}

static vex_status parse_inline(vexi_resp_parser *parser, uint8_t *data, size_t size, bool *complete,
                               vex_error *err) {
    uint8_t *end = memchr(data + parser->scanned_size, '\n', size - parser->scanned_size);
    if (end == NULL ? size > VEXI_RESP_INLINE_SIZE_MAX
                    : (size_t)(end - data) > VEXI_RESP_INLINE_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "Protocol error: too big inline request");
    }
    if (end == NULL) {
        parser->scanned_size = size;
        return VEX_OK;
    }
    size_t line_size = (size_t)(end - data);
    size_t i = 0;
    for (;;) {
        while (i < line_size && is_space(data[i])) {
            i++;
        }
        if (i == line_size) {
            break;
        }
        if (parser->count == parser->argument_max) {
            return vexi_fail(err, VEX_INVALID, "Protocol error: too many words in inline request");
        }
        size_t start = i;
        size_t word_size = 0;
        if (data[i] == '"' || data[i] == '\'') {
            if (!unquote(data, line_size, &i, &word_size)) {
                return vexi_fail(err, VEX_INVALID, "Protocol error: unbalanced quotes in request");
            }
        } else {
            while (i < line_size && !is_space(data[i])) {
                i++;
            }
            word_size = i - start;
        }
        VEX_TRY(add_slice(parser, start, word_size, err));
    }
    parser->offset = line_size + 1;
    *complete = true;
    return VEX_OK;
}

vex_status vexi_resp_parse(vexi_resp_parser *parser, uint8_t *data, size_t size, bool *complete,
                           vex_error *err) {
    *complete = false;
    if (size == 0) {
        return VEX_OK;
    }
    if (data[0] == '*') {
        return parse_array(parser, data, size, complete, err);
    }
    return parse_inline(parser, data, size, complete, err);
}
