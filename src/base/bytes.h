/* Bytes: spans, little-endian integers, and a bounded reader for untrusted input. */
#ifndef VEXI_BASE_BYTES_H
#define VEXI_BASE_BYTES_H

#include <string.h>

#include "base/status.h"

/* Borrowed bytes. */
typedef struct vexi_span {
    const uint8_t *data;
    size_t size;
} vexi_span;

/* A wanted piece of an object; `data` receives where its bytes are: in a mapping, or in an arena.
 */
typedef struct vexi_piece {
    uint64_t offset;
    size_t size;
    const uint8_t *data;
} vexi_piece;

static inline vexi_span vexi_span_of(const void *data, size_t size) {
    return (vexi_span){.data = (const uint8_t *)data, .size = size};
}

static inline vex_string vexi_string_of(const char *text) {
    return (vex_string){.data = text, .size = strlen(text)};
}

static inline bool vexi_string_equal(vex_string a, vex_string b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool vexi_string_is(vex_string a, const char *text) {
    return vexi_string_equal(a, vexi_string_of(text));
}

static inline uint16_t vexi_get_u16(const uint8_t *p) {
    return (uint16_t)((uint32_t)p[0] | (uint32_t)p[1] << 8);
}

static inline uint32_t vexi_get_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t vexi_get_u64(const uint8_t *p) {
    return (uint64_t)vexi_get_u32(p) | (uint64_t)vexi_get_u32(p + 4) << 32;
}

static inline void vexi_put_u16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void vexi_put_u32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16);
    p[3] = (uint8_t)(v >> 24);
}

static inline void vexi_put_u64(uint8_t *p, uint64_t v) {
    vexi_put_u32(p, (uint32_t)v);
    vexi_put_u32(p + 4, (uint32_t)(v >> 32));
}

/* A reader over untrusted bytes: a read past the end sets `failed`, returns zeros, and every later
 * read does the same; check once at the end. */
typedef struct vexi_reader {
    const uint8_t *data;
    size_t size;
    size_t offset;
    bool failed;
} vexi_reader;

static inline vexi_reader vexi_reader_of(vexi_span span) {
    return (vexi_reader){.data = span.data, .size = span.size};
}

static inline const uint8_t *vexi_read_bytes(vexi_reader *r, size_t size) {
    if (r->failed || size > r->size - r->offset) {
        r->failed = true;
        return NULL;
    }
    const uint8_t *p = r->data + r->offset;
    r->offset += size;
    return p;
}

static inline uint8_t vexi_read_u8(vexi_reader *r) {
    const uint8_t *p = vexi_read_bytes(r, 1);
    return p == NULL ? 0 : *p;
}

static inline uint16_t vexi_read_u16(vexi_reader *r) {
    const uint8_t *p = vexi_read_bytes(r, 2);
    return p == NULL ? (uint16_t)0 : vexi_get_u16(p);
}

static inline uint32_t vexi_read_u32(vexi_reader *r) {
    const uint8_t *p = vexi_read_bytes(r, 4);
    return p == NULL ? 0 : vexi_get_u32(p);
}

static inline uint64_t vexi_read_u64(vexi_reader *r) {
    const uint8_t *p = vexi_read_bytes(r, 8);
    return p == NULL ? 0 : vexi_get_u64(p);
}

/* Value of a hexadecimal digit, -1 for anything else: canonical text has lower case alone. */
static inline int vexi_hex_digit_lower(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The same in either case. */
static inline int vexi_hex_digit(char c) {
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : vexi_hex_digit_lower(c);
}

#endif
