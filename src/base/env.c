#include "base/env.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void *vexi_alloc(const vexi_env *env, size_t size) {
    return env->allocate(env->context, 16, size == 0 ? 1 : size);
}

void *vexi_alloc_array(const vexi_env *env, size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        return NULL;
    }
    return vexi_alloc(env, total);
}

void *vexi_calloc(const vexi_env *env, size_t count, size_t size) {
    void *pointer = vexi_alloc_array(env, count, size);
    if (pointer != NULL) {
        memset(pointer, 0, count * size);
    }
    return pointer;
}

void *vexi_alloc_aligned(const vexi_env *env, size_t size) {
    return env->allocate(env->context, 64, size == 0 ? 1 : size);
}

void vexi_free(const vexi_env *env, void *pointer) {
    if (pointer != NULL) {
        env->release(env->context, pointer);
    }
}

vex_status vexi_no_memory(vex_error *err, size_t size) {
    return vexi_fail(err, VEX_MEMORY, "out of memory (%zu bytes)", size);
}

vex_status vexi_grow(const vexi_env *env, void **pointer, size_t *capacity, size_t count,
                     size_t wanted, size_t size, vex_error *err) {
    if (wanted <= *capacity) {
        return VEX_OK;
    }
    size_t larger = *capacity < 8 ? 8 : *capacity + *capacity / 2;
    if (larger < wanted) {
        larger = wanted;
    }
    void *fresh = vexi_alloc_array(env, larger, size);
    if (fresh == NULL) {
        return vexi_no_memory(err, larger * size);
    }
    if (count > 0) {
        memcpy(fresh, *pointer, count * size);
    }
    vexi_free(env, *pointer);
    *pointer = fresh;
    *capacity = larger;
    return VEX_OK;
}

uint64_t vexi_monotonic_ns(const vexi_env *env) {
    return env->monotonic_ns(env->context);
}

int64_t vexi_wall_us(const vexi_env *env) {
    return env->wall_us(env->context);
}

uint64_t vexi_random_u64(const vexi_env *env) {
    uint64_t value;
    env->random_fill(env->context, &value, sizeof value);
    return value;
}

void vexi_random_uuid(const vexi_env *env, char out[37]) {
    uint8_t b[16];
    env->random_fill(env->context, b, sizeof b);
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    snprintf(out, 37, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
             b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

void vexi_submit(const vexi_env *env, vexi_task *task, uint32_t delay_ms) {
    env->submit(env->context, task, delay_ms);
}

void vexi_cancel(const vexi_env *env, vexi_task *task) {
    env->cancel(env->context, task);
}

void vexi_parallel(const vexi_env *env, size_t count, void (*function)(void *argument, size_t i),
                   void *argument) {
    if (count == 1) {
        function(argument, 0);
    } else if (count > 1) {
        env->parallel(env->context, count, function, argument);
    }
}

void vexi_log(const vexi_env *env, int level, const char *format, ...) {
    if (env->log == NULL) {
        return;
    }
    char line[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    env->log(env->log_context, level, line);
}
