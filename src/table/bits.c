#include "base/bitmap.h"
#include "table/segment.h"

vexi_bits *vexi_bits_create(const vexi_env *env, uint64_t bit_count, const vexi_bits *from) {
    size_t words = vexi_bitmap_words(bit_count);
    vexi_bits *bits = vexi_calloc(env, 1, sizeof *bits + words * sizeof(uint64_t));
    if (bits == NULL) {
        return NULL;
    }
    bits->references = 1;
    bits->env = env;
    bits->bit_count = bit_count;
    if (from != NULL) {
        VEX_ASSERT(from->bit_count <= bit_count);
        memcpy(bits->words, from->words, vexi_bitmap_words(from->bit_count) * sizeof(uint64_t));
        bits->set_count = from->set_count;
    }
    return bits;
}

vexi_bits *vexi_bits_retain(vexi_bits *bits) {
    if (bits != NULL) {
        __atomic_add_fetch(&bits->references, 1, __ATOMIC_RELAXED);
    }
    return bits;
}

void vexi_bits_release(vexi_bits *bits) {
    if (bits != NULL && __atomic_sub_fetch(&bits->references, 1, __ATOMIC_ACQ_REL) == 0) {
        vexi_free(bits->env, bits);
    }
}

bool vexi_bits_contain(const vexi_bits *a, const vexi_bits *b) {
    if (a == b || b == NULL) {
        return true;
    }
    size_t a_words = a == NULL ? 0 : vexi_bitmap_words(a->bit_count);
    for (size_t i = 0; i < vexi_bitmap_words(b->bit_count); i++) {
        if ((b->words[i] & ~(i < a_words ? a->words[i] : 0)) != 0) {
            return false;
        }
    }
    return true;
}

void vexi_bits_add(vexi_bits *bits, const vexi_bits *from) {
    VEX_ASSERT(from->bit_count <= bits->bit_count);
    for (size_t i = 0; i < vexi_bitmap_words(from->bit_count); i++) {
        uint64_t fresh = from->words[i] & ~bits->words[i];
        bits->words[i] |= fresh;
        bits->set_count += (uint64_t)__builtin_popcountll(fresh);
    }
}
