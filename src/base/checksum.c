#include "base/checksum.h"

#include <string.h>
#include <zlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif

/* Reflected polynomial 0x82f63b78, four bits at a time. The sixteen-entry table is made on each
 * call: cheap beside the bytes, and nothing needs initialising. */
static uint32_t crc32c_nibble(uint32_t n) {
    for (int i = 0; i < 4; i++) {
        n = (n & 1u) != 0 ? (n >> 1) ^ 0x82f63b78u : n >> 1;
    }
    return n;
}

uint32_t vexi_crc32c_portable(uint32_t crc, const void *data, size_t size) {
    uint32_t table[16];
    for (uint32_t i = 0; i < 16; i++) {
        table[i] = crc32c_nibble(i);
    }
    const uint8_t *p = data;
    crc = ~crc;
    for (size_t i = 0; i < size; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_hardware(uint32_t crc, const uint8_t *p,
                                                                  size_t size) {
    uint64_t c = ~crc;
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        c = _mm_crc32_u64(c, word);
    }
    for (; size > 0; size--, p++) {
        c = _mm_crc32_u8((uint32_t)c, *p);
    }
    return ~(uint32_t)c;
}

uint32_t vexi_crc32c(uint32_t crc, const void *data, size_t size) {
    return __builtin_cpu_supports("sse4.2") ? crc32c_hardware(crc, data, size)
                                            : vexi_crc32c_portable(crc, data, size);
}
#elif defined(__aarch64__)
__attribute__((target("+crc"))) static uint32_t crc32c_hardware(uint32_t crc, const uint8_t *p,
                                                                size_t size) {
    crc = ~crc;
    for (; size >= 8; size -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        crc = __crc32cd(crc, word);
    }
    for (; size > 0; size--, p++) {
        crc = __crc32cb(crc, *p);
    }
    return ~crc;
}

uint32_t vexi_crc32c(uint32_t crc, const void *data, size_t size) {
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0 ? crc32c_hardware(crc, data, size)
                                                    : vexi_crc32c_portable(crc, data, size);
}
#else
uint32_t vexi_crc32c(uint32_t crc, const void *data, size_t size) {
    return vexi_crc32c_portable(crc, data, size);
}
#endif

uint32_t vexi_crc32(uint32_t crc, const void *data, size_t size) {
    return (uint32_t)crc32_z(crc, data, size);
}

uint64_t vexi_hash64(const void *data, size_t size) {
    return XXH64(data, size, 0);
}
