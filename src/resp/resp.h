/* RESP: the Redis protocol, requests in and replies out.
 *
 * Pure functions over bytes: no sockets, no threads. A request is an array of bulk strings or an
 * inline line of text; the parser is incremental and bounded, and names each argument by its place
 * in the caller's buffer instead of copying it. Replies are appended to a vexi_buffer; each
 * function that differs between RESP2 and RESP3 takes the protocol. */
#ifndef VEXI_RESP_RESP_H
#define VEXI_RESP_RESP_H

#include "base/buffer.h"
#include "base/env.h"

#define VEXI_RESP_ARGUMENTS_MAX   (1024u * 1024u)
#define VEXI_RESP_INLINE_SIZE_MAX (64u * 1024u)

/* ---- Requests -------------------------------------------------------------------------------- */

/* An argument: bytes from `offset`, counted from the first byte of its command. */
typedef struct vexi_resp_slice {
    size_t offset;
    size_t size;
} vexi_resp_slice;

/* Limits may be changed between commands, e.g. when a client authenticates. */
typedef struct vexi_resp_parser {
    const vexi_env *env;     /* borrowed for the parser's life */
    uint32_t argument_max;   /* arguments of a command */
    size_t bulk_size_max;    /* bytes of an argument */
    bool strict;             /* limits are those of a client that has not authenticated: only the
                                message of a violation differs */
    uint32_t count;          /* arguments read so far */
    size_t offset;           /* bytes read so far; the command's size once it is complete */
    vexi_resp_slice *slices; /* `count` of them */
    size_t capacity;         /* of slices */
    size_t scanned_size;     /* bytes of an inline command known to hold no line end */
    size_t bulk_size;        /* of the argument whose header is read, while has_bulk */
    uint32_t wanted_count;   /* arguments announced, while has_array */
    bool has_array;
    bool has_bulk;
} vexi_resp_parser;

void vexi_resp_parser_init(vexi_resp_parser *parser, const vexi_env *env, uint32_t argument_max,
                           size_t bulk_size_max);
void vexi_resp_parser_deinit(vexi_resp_parser *parser);

/* Read one command from data[0..size). Begins where the last command ended (vexi_resp_parser_next),
 * or continues: the same bytes, perhaps elsewhere in memory, and more behind them.
 *
 * *complete tells whether a whole command is there: parser->count arguments (0 for an empty line,
 * to be skipped), parser->offset its size. An inline command is unquoted in place.
 *
 * VEX_INVALID  the bytes are no RESP, or exceed a limit; the message is Redis' ("Protocol error:
 *              ..."). The stream cannot be continued.
 * VEX_MEMORY */
vex_status vexi_resp_parse(vexi_resp_parser *parser, uint8_t *data, size_t size, bool *complete,
                           vex_error *err);

/* Forget the command that was read. */
void vexi_resp_parser_next(vexi_resp_parser *parser);

/* ---- Replies --------------------------------------------------------------------------------- */

typedef enum vexi_resp_protocol { VEXI_RESP2 = 2, VEXI_RESP3 = 3 } vexi_resp_protocol;

/* "+text"; `text` holds no line end. */
void vexi_resp_simple(vexi_buffer *out, const char *text);
/* "-text": line ends and other control characters of `text` become spaces. */
void vexi_resp_error(vexi_buffer *out, const char *text);
void vexi_resp_errorf(vexi_buffer *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void vexi_resp_integer(vexi_buffer *out, int64_t value);
void vexi_resp_bulk(vexi_buffer *out, const void *data, size_t size);
void vexi_resp_bulk_text(vexi_buffer *out, const char *text);
/* A text meant for people: RESP3 verbatim string, RESP2 bulk string. */
void vexi_resp_verbatim(vexi_buffer *out, vexi_resp_protocol protocol, const void *data,
                        size_t size);
void vexi_resp_null(vexi_buffer *out, vexi_resp_protocol protocol);
/* RESP2: 1 or 0. */
void vexi_resp_boolean(vexi_buffer *out, vexi_resp_protocol protocol, bool value);
/* Shortest text that reads back to the same double (or float); RESP2: a bulk string. */
void vexi_resp_double(vexi_buffer *out, vexi_resp_protocol protocol, double value);
void vexi_resp_float(vexi_buffer *out, vexi_resp_protocol protocol, float value);
/* An array of `count` floats. */
void vexi_resp_floats(vexi_buffer *out, vexi_resp_protocol protocol, const float *values,
                      size_t count);
/* Headers: `count` values follow, for a map `count` pairs (RESP2: an array of 2 x count). */
void vexi_resp_array(vexi_buffer *out, size_t count);
void vexi_resp_map(vexi_buffer *out, vexi_resp_protocol protocol, size_t count);

/* ---- Numbers as text ------------------------------------------------------------------------- */

#define VEXI_NUMBER_SIZE_MAX 32

/* Write the shortest decimal that reads back to `value` ("nan", "inf", "-inf" otherwise); returns
 * its size, below VEXI_NUMBER_SIZE_MAX; no NUL behind it. Plain digits from 1e-5 up to 1e17, else
 * with an exponent. */
size_t vexi_format_float(float value, char out[VEXI_NUMBER_SIZE_MAX]);
size_t vexi_format_double(double value, char out[VEXI_NUMBER_SIZE_MAX]);
size_t vexi_format_i64(int64_t value, char out[VEXI_NUMBER_SIZE_MAX]);

/* Read a decimal number (sign, digits, point, exponent) that begins at text[0], rounded correctly
 * to float. Returns the bytes it takes; 0 if there is no number, or no byte behind it that ends it
 * (in a vector's text there is always a comma, space or bracket). Too large becomes infinity. */
size_t vexi_parse_float(const char *text, size_t size, float *out);

/* Read the whole of `text` as a decimal integer without surrounding space or leading plus. */
bool vexi_parse_i64(vex_string text, int64_t *out);

#endif
