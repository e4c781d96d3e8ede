/* Dense bitmap over row positions: 64-bit words, bit i of word i/64. */
#ifndef VEXI_BASE_BITMAP_H
#define VEXI_BASE_BITMAP_H

#include "base/status.h"

/* Words that hold `bits` bits. */
static inline size_t vexi_bitmap_words(size_t bits) {
    return (bits + 63) / 64;
}

static inline bool vexi_bitmap_get(const uint64_t *words, size_t bit) {
    return (words[bit / 64] >> (bit % 64) & 1u) != 0;
}

static inline void vexi_bitmap_set(uint64_t *words, size_t bit) {
    words[bit / 64] |= (uint64_t)1 << (bit % 64);
}

static inline size_t vexi_bitmap_count(const uint64_t *words, size_t bits) {
    size_t count = 0;
    for (size_t i = 0; i < vexi_bitmap_words(bits); i++) {
        count += (size_t)__builtin_popcountll(words[i]);
    }
    return count;
}

#endif
