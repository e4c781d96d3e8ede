/* Codes of a memtable's rows, by which a search leaves out most of them unseen.
 *
 * One bit a dimension (index/code.h) around one centre for the whole memtable, in blocks of 32
 * rows: a block is encoded once all of its rows are there, and then counted. Rows behind the last
 * full block are compared exactly. Blocks lie in chunks that double with those of the rows, a chunk
 * is one list to the scan.
 *
 * The centre is fixed before the first block: the mean of the newest segment's rows, else of the
 * memtable's own first rows. Rows never move to another centre: a memtable lives for minutes.
 *
 * Invariants
 *  1. Blocks below `row_count` never change; a reader that acquired the count sees them whole.
 *  2. A chunk's error bound only grows and is stored before the count that it belongs to: whatever
 *     bound a reader meets, it holds for the rows that it may read.
 *
 * Measured (AVX2, SIFT, 131,072 rows, 84 MiB): 0.3 us a row to encode, as much as to append; the
 * ten nearest cost 0.16 ms for the scan and 0.36 ms for 1,400 exact distances, against 2.5 ms for
 * comparing all. Refinement records of 4 bits would save most of the 0.36 ms, but take 72 bytes a
 * row and several times the encoding, for rows that live for minutes. */
#ifndef VEXI_TABLE_MEMTABLE_CODES_H
#define VEXI_TABLE_MEMTABLE_CODES_H

#include <string.h>

#include "index/code.h"

/* Chunk c holds BASE << c rows, so row r is in chunk 63 - clz(r / BASE + 1). */
enum { MEMTABLE_CHUNK_BASE = VEXI_CODE_BLOCK_ROWS, MEMTABLE_CHUNK_COUNT = 25 };

static inline uint32_t memtable_chunk_of(uint64_t row, uint64_t *offset) {
    uint64_t scaled = row / MEMTABLE_CHUNK_BASE + 1;
    uint32_t chunk = 63u - (uint32_t)__builtin_clzll(scaled);
    *offset = row - (uint64_t)MEMTABLE_CHUNK_BASE * (((uint64_t)1 << chunk) - 1);
    return chunk;
}

typedef struct memtable_codes {
    const vexi_env *env;
    const vexi_rotation *rotation; /* borrowed; NULL: rows of this collection are not coded */
    vexi_code_layout layout;
    float *center;      /* zero-padded to 16 values, then the origin; in one allocation; zero before
                           it is fixed */
    float *origin;      /* in that allocation */
    float *scratch;     /* the encoder's, in that allocation */
    float row_length;   /* with the centre */
    bool has_center;    /* the encoder's */
    uint64_t row_count; /* atomic: rows whose codes are complete */
    uint8_t *blocks[MEMTABLE_CHUNK_COUNT];
    uint32_t errors[MEMTABLE_CHUNK_COUNT]; /* atomic: bits of a float that only grows */
} memtable_codes;

/* Whether searches of rows like these gain by codes. */
bool memtable_codes_pay(vex_index_kind index, uint32_t dimension);

/* center: dimension values, or NULL for one from the first rows. */
vex_status memtable_codes_init(memtable_codes *codes, const vexi_env *env,
                               const vexi_rotation *rotation, vex_metric metric,
                               const float *center, float row_length, vex_error *err);
void memtable_codes_deinit(memtable_codes *codes);
/* Memory for the codes of a chunk of rows. Not concurrent with itself. */
vex_status memtable_codes_reserve(memtable_codes *codes, uint32_t chunk, vex_error *err);

/* Fix the centre by some rows, at least one. The encoder's, once. */
void memtable_codes_center(memtable_codes *codes, const float *const *rows, uint32_t count);
/* Encode the next block. rows[i] may be NULL (a tombstone). The encoder's, after the centre. */
void memtable_codes_encode(memtable_codes *codes, const float *const rows[VEXI_CODE_BLOCK_ROWS]);

/* Bound of the error of a chunk's rows below an acquired row_count. */
static inline float memtable_codes_error(const memtable_codes *codes, uint32_t chunk) {
    uint32_t bits = __atomic_load_n(&codes->errors[chunk], __ATOMIC_RELAXED);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
