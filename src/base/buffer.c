#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

void vexi_buffer_init(vexi_buffer *buffer, const vexi_env *env, size_t limit_size) {
    *buffer = (vexi_buffer){.env = env, .limit_size = limit_size};
}

void vexi_buffer_deinit(vexi_buffer *buffer) {
    if (buffer->env != NULL) {
        vexi_free(buffer->env, buffer->data);
    }
    *buffer = (vexi_buffer){.env = buffer->env, .limit_size = buffer->limit_size};
}

void vexi_buffer_clear(vexi_buffer *buffer) {
    buffer->size = 0;
    buffer->failed = false;
    buffer->over_limit = false;
}

uint8_t *vexi_buffer_reserve(vexi_buffer *buffer, size_t size) {
    if (buffer->failed) {
        return NULL;
    }
    if (size > buffer->limit_size - buffer->size) {
        buffer->failed = true;
        buffer->over_limit = true;
        return NULL;
    }
    if (size > buffer->capacity - buffer->size) {
        size_t capacity = buffer->capacity < 128 ? 256 : buffer->capacity * 2;
        if (capacity < buffer->size + size) {
            capacity = buffer->size + size;
        }
        if (capacity > buffer->limit_size) {
            capacity = buffer->limit_size;
        }
        uint8_t *data = vexi_alloc_aligned(buffer->env, capacity);
        if (data == NULL) {
            buffer->failed = true;
            return NULL;
        }
        if (buffer->size > 0) {
            memcpy(data, buffer->data, buffer->size);
        }
        vexi_free(buffer->env, buffer->data);
        buffer->data = data;
        buffer->capacity = capacity;
    }
    return buffer->data + buffer->size;
}

void vexi_buffer_append(vexi_buffer *buffer, const void *data, size_t size) {
    if (size == 0) {
        return;
    }
    uint8_t *target = vexi_buffer_reserve(buffer, size);
    if (target != NULL) {
        memcpy(target, data, size);
        buffer->size += size;
    }
}

void vexi_buffer_text(vexi_buffer *buffer, const char *text) {
    vexi_buffer_append(buffer, text, strlen(text));
}

void vexi_buffer_format(vexi_buffer *buffer, const char *format, ...) {
    char small[256];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(small, sizeof small, format, arguments);
    va_end(arguments);
    if (size < 0) {
        buffer->failed = true;
        return;
    }
    if ((size_t)size < sizeof small) {
        vexi_buffer_append(buffer, small, (size_t)size);
        return;
    }
    uint8_t *target = vexi_buffer_reserve(buffer, (size_t)size + 1);
    if (target != NULL) {
        va_start(arguments, format);
        vsnprintf((char *)target, (size_t)size + 1, format, arguments);
        va_end(arguments);
        buffer->size += (size_t)size;
    }
}

void vexi_buffer_u8(vexi_buffer *buffer, uint8_t value) {
    vexi_buffer_append(buffer, &value, 1);
}

void vexi_buffer_u16(vexi_buffer *buffer, uint16_t value) {
    uint8_t bytes[2];
    vexi_put_u16(bytes, value);
    vexi_buffer_append(buffer, bytes, sizeof bytes);
}

void vexi_buffer_u32(vexi_buffer *buffer, uint32_t value) {
    uint8_t bytes[4];
    vexi_put_u32(bytes, value);
    vexi_buffer_append(buffer, bytes, sizeof bytes);
}

void vexi_buffer_u64(vexi_buffer *buffer, uint64_t value) {
    uint8_t bytes[8];
    vexi_put_u64(bytes, value);
    vexi_buffer_append(buffer, bytes, sizeof bytes);
}

vex_status vexi_buffer_check(const vexi_buffer *buffer, vex_error *err) {
    if (!buffer->failed) {
        return VEX_OK;
    }
    if (buffer->over_limit) {
        return vexi_fail(err, VEX_LIMIT, "more than %zu bytes", buffer->limit_size);
    }
    return vexi_no_memory(err, buffer->capacity * 2);
}
