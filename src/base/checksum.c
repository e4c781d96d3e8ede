#include "base/checksum.h"

#include <string.h>
#include <zlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>
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
/* The instruction takes a word per cycle and has its result after three, so one chain of them runs
 * at a third of its speed. Long inputs are cut into three lanes with a chain each; the sums of the
 * first two are carried over the bytes behind them by a carry-less product with x^(8n - 33) modulo
 * the polynomial, n being those bytes (Gopal, Ozturk, Guilford et al., "Fast CRC computation for
 * iSCSI polynomial using CRC32 instruction", Intel, 2011). */
enum { LANE_SIZE = 1024, LANE_SHIFT = 0x170076fa, TWO_LANES_SHIFT = (int)0xa51b6135u };

__attribute__((target("sse4.2,pclmul"))) static uint64_t crc32c_carry(uint64_t crc, int shift) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)(uint32_t)crc),
                                           _mm_cvtsi64_si128((long long)(uint32_t)shift), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

static uint64_t word_at(const uint8_t *p) {
    uint64_t word;
    memcpy(&word, p, 8);
    return word;
}

__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_hardware(uint32_t crc,
                                                                         const uint8_t *p,
                                                                         size_t size) {
    uint64_t c = ~crc;
    for (; size >= 3 * (size_t)LANE_SIZE; size -= 3 * (size_t)LANE_SIZE, p += 3 * LANE_SIZE) {
        uint64_t second = 0, third = 0;
        for (size_t i = 0; i < LANE_SIZE; i += 8) {
            c = _mm_crc32_u64(c, word_at(p + i));
            second = _mm_crc32_u64(second, word_at(p + LANE_SIZE + i));
            third = _mm_crc32_u64(third, word_at(p + 2 * LANE_SIZE + i));
        }
        c = crc32c_carry(c, TWO_LANES_SHIFT) ^ crc32c_carry(second, LANE_SHIFT) ^ third;
    }
    for (; size >= 8; size -= 8, p += 8) {
        c = _mm_crc32_u64(c, word_at(p));
    }
    for (; size > 0; size--, p++) {
        c = _mm_crc32_u8((uint32_t)c, *p);
    }
    return ~(uint32_t)c;
}

uint32_t vexi_crc32c(uint32_t crc, const void *data, size_t size) {
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")
               ? crc32c_hardware(crc, data, size)
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
