/* Arena: memory that lives until the query or batch it serves ends, freed in one go.
 *
 * Not thread-safe. Under AddressSanitizer every allocation is followed by a poisoned red zone. */
#ifndef VEXI_BASE_ARENA_H
#define VEXI_BASE_ARENA_H

#include "base/env.h"

typedef struct vexi_arena_block vexi_arena_block;

typedef struct vexi_arena {
    const vexi_env *env; /* borrowed for the arena's life */
    vexi_arena_block *blocks;
    uint8_t *next;
    size_t left_size;
    size_t total_size; /* bytes taken from env */
} vexi_arena;

void vexi_arena_init(vexi_arena *arena, const vexi_env *env);
void vexi_arena_deinit(vexi_arena *arena);
/* Free everything that was taken from the arena, and keep one block (of 1 MiB at most) for what
 * comes next: an arena that serves one query after the other then asks env for nothing. */
void vexi_arena_reset(vexi_arena *arena);

/* size bytes aligned to 16 (or `alignment`, a power of two up to 64), not zeroed; NULL on failure.
 */
void *vexi_arena_alloc(vexi_arena *arena, size_t size);
void *vexi_arena_alloc_aligned(vexi_arena *arena, size_t alignment, size_t size);
void *vexi_arena_array(vexi_arena *arena, size_t count, size_t size);
void *vexi_arena_calloc(vexi_arena *arena, size_t count, size_t size);
/* Copy of size bytes with a NUL behind them; NULL on failure. */
char *vexi_arena_copy(vexi_arena *arena, const void *data, size_t size);

#endif
