#include "base/arena.h"

#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define ARENA_RED_ZONE       16u
#define ARENA_POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define ARENA_UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define ARENA_RED_ZONE       0u
#define ARENA_POISON(p, n)   ((void)(p), (void)(n))
#define ARENA_UNPOISON(p, n) ((void)(p), (void)(n))
#endif

enum { ARENA_BLOCK_SIZE = 16 * 1024, ARENA_BLOCK_SIZE_MAX = 1024 * 1024 };

struct vexi_arena_block {
    vexi_arena_block *next;
    size_t size; /* of the whole allocation */
};

void vexi_arena_init(vexi_arena *arena, const vexi_env *env) {
    *arena = (vexi_arena){.env = env};
}

void vexi_arena_deinit(vexi_arena *arena) {
    vexi_arena_block *block = arena->blocks;
    while (block != NULL) {
        vexi_arena_block *next = block->next;
        ARENA_UNPOISON(block, block->size);
        vexi_free(arena->env, block);
        block = next;
    }
    *arena = (vexi_arena){.env = arena->env};
}

void vexi_arena_reset(vexi_arena *arena) {
    vexi_arena_block *kept = NULL;
    for (vexi_arena_block *block = arena->blocks, *next; block != NULL; block = next) {
        next = block->next;
        ARENA_UNPOISON(block, block->size);
        bool fits = block->size <= ARENA_BLOCK_SIZE_MAX + sizeof *block + 64;
        if (!fits || (kept != NULL && kept->size >= block->size)) {
            vexi_free(arena->env, block);
            continue;
        }
        vexi_free(arena->env, kept);
        kept = block;
    }
    *arena = (vexi_arena){.env = arena->env, .blocks = kept};
    if (kept != NULL) {
        kept->next = NULL;
        arena->next = (uint8_t *)(kept + 1);
        arena->left_size = kept->size - sizeof *kept;
        arena->total_size = kept->size;
        ARENA_POISON(arena->next, arena->left_size);
    }
}

static bool arena_add_block(vexi_arena *arena, size_t need) {
    size_t size = arena->total_size < ARENA_BLOCK_SIZE ? ARENA_BLOCK_SIZE : arena->total_size;
    if (size > ARENA_BLOCK_SIZE_MAX) {
        size = ARENA_BLOCK_SIZE_MAX;
    }
    if (size < need) {
        size = need;
    }
    size_t total;
    if (__builtin_add_overflow(size, sizeof(vexi_arena_block) + 64, &total)) {
        return false;
    }
    vexi_arena_block *block = vexi_alloc(arena->env, total);
    if (block == NULL) {
        return false;
    }
    block->next = arena->blocks;
    block->size = total;
    arena->blocks = block;
    arena->next = (uint8_t *)(block + 1);
    arena->left_size = total - sizeof *block;
    arena->total_size += total;
    ARENA_POISON(arena->next, arena->left_size);
    return true;
}

void *vexi_arena_alloc_aligned(vexi_arena *arena, size_t alignment, size_t size) {
    size_t padded;
    if (__builtin_add_overflow(size, ARENA_RED_ZONE + alignment, &padded)) {
        return NULL;
    }
    if (padded > arena->left_size && !arena_add_block(arena, padded)) {
        return NULL;
    }
    size_t skip = (size_t)(-(uintptr_t)arena->next) & (alignment - 1);
    uint8_t *result = arena->next + skip;
    arena->next = result + size + ARENA_RED_ZONE;
    arena->left_size -= skip + size + ARENA_RED_ZONE;
    ARENA_UNPOISON(result, size);
    return result;
}

void *vexi_arena_alloc(vexi_arena *arena, size_t size) {
    return vexi_arena_alloc_aligned(arena, 16, size);
}

void *vexi_arena_array(vexi_arena *arena, size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        return NULL;
    }
    return vexi_arena_alloc(arena, total);
}

void *vexi_arena_calloc(vexi_arena *arena, size_t count, size_t size) {
    void *pointer = vexi_arena_array(arena, count, size);
    if (pointer != NULL) {
        memset(pointer, 0, count * size);
    }
    return pointer;
}

char *vexi_arena_copy(vexi_arena *arena, const void *data, size_t size) {
    size_t total;
    if (__builtin_add_overflow(size, (size_t)1, &total)) {
        return NULL;
    }
    char *copy = vexi_arena_alloc(arena, total);
    if (copy != NULL) {
        if (size > 0) {
            memcpy(copy, data, size);
        }
        copy[size] = '\0';
    }
    return copy;
}
