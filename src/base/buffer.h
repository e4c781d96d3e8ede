/* Bounded growable byte buffer.
 *
 * The limit is fixed at creation. Appending past the limit or out of memory sets `failed`, after
 * which appends do nothing: write a whole message, then ask once (vexi_buffer_check). */
#ifndef VEXI_BASE_BUFFER_H
#define VEXI_BASE_BUFFER_H

#include "base/env.h"

typedef struct vexi_buffer {
    const vexi_env *env; /* borrowed for the buffer's life */
    uint8_t *data;       /* aligned to 64 */
    size_t size;
    size_t capacity;
    size_t limit_size;
    bool failed;
    bool over_limit; /* failed for that, not for memory */
} vexi_buffer;

void vexi_buffer_init(vexi_buffer *buffer, const vexi_env *env, size_t limit_size);
void vexi_buffer_deinit(vexi_buffer *buffer);
/* Forget the content and the failure, keep the memory. */
void vexi_buffer_clear(vexi_buffer *buffer);
/* Make room for `size` more bytes and return where they go (size stays), or NULL when failed. */
uint8_t *vexi_buffer_reserve(vexi_buffer *buffer, size_t size);
void vexi_buffer_append(vexi_buffer *buffer, const void *data, size_t size);
void vexi_buffer_text(vexi_buffer *buffer, const char *text);
void vexi_buffer_format(vexi_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void vexi_buffer_u8(vexi_buffer *buffer, uint8_t value);
void vexi_buffer_u16(vexi_buffer *buffer, uint16_t value);
void vexi_buffer_u32(vexi_buffer *buffer, uint32_t value);
void vexi_buffer_u64(vexi_buffer *buffer, uint64_t value);
/* VEX_OK, or VEX_MEMORY / VEX_LIMIT if an append failed. */
vex_status vexi_buffer_check(const vexi_buffer *buffer, vex_error *err);

#endif
