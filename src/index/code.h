/* Codes: vectors as one bit a dimension and as refinement records, with error bounds.
 *
 * RaBitQ (Gao & Long, SIGMOD 2024) and its extension to more bits (Gao et al., SIGMOD 2025). A row
 * x near a centre c has the rotated residual r = P(x - c). Its one-bit code is b = sign(r); with
 * v = P(q - c) for a query q, <r, v> is estimated by <b, v> |r|^2 / |r|_1, whose error is below
 * epsilon |r| |v| sqrt(1 / rho^2 - 1) / sqrt(D - 1) but for a small share of rows, where
 * rho = |r|_1 / (sqrt(D) |r|). So
 *
 *     |x - q|^2 ~ add + scale <b, P(q - o)> + |q - c|^2
 *     scale = -2 |r|^2 / |r|_1,  add = |r|^2 - scale <b, P(c - o)>
 *
 * where o, the origin, is one vector for all lists of a segment: a query needs one lookup table for
 * a segment and one number, |q - c|^2, for a list. The bound of the error is scale times a number
 * that hardly depends on the row, of which a list keeps the largest (`error`): the lower bound of
 * a distance costs no more than the estimate. Records (4 or 8 bits a dimension) work alike with
 * codes y in place of b.
 *
 * All three metrics are this one: cosine quantises unit vectors and halves (1 - cos = |x - q|^2 /
 * 2), inner product uses -<q, x> = (|x - q|^2 - |x|^2 - |q|^2) / 2, with the query scaled to the
 * rows' length, which changes no order and makes |q - c| small. `add` and `scale` hold the factors,
 * so that scanning knows nothing of the metric. Distances here are in the metric's terms (see
 * vexlake.h), of the scaled query under inner product.
 *
 * Layouts of blocks and records: kernel/kernel.h. */
#ifndef VEXI_INDEX_CODE_H
#define VEXI_INDEX_CODE_H

#include "base/arena.h"
#include "index/rotation.h"
#include "index/topk.h"

typedef struct vexi_code_layout {
    vex_metric metric;
    uint32_t dimension;
    uint32_t padded;
    uint32_t bits;      /* a dimension in records: 4, 8; 1: no records */
    size_t block_size;  /* bytes of 32 rows' one-bit codes */
    size_t record_size; /* bytes of a row's record; 0: none */
} vexi_code_layout;

/* bits: 1, 4 or 8. */
vexi_code_layout vexi_code_layout_of(vex_metric metric, uint32_t dimension, uint32_t bits);

/* Bytes of a list of rows: its blocks, then its records, padded to a multiple of 64. */
uint64_t vexi_code_list_size(const vexi_code_layout *layout, uint64_t row_count);

/* ---- Encoding -------------------------------------------------------------------------------- */

/* Encode the rows of one list at `out` (vexi_code_list_size bytes, aligned to 64, any content).
 * rows[i]: as given (cosine scales to unit length by itself), aligned to 4. center: the list's
 * centroid (a unit vector, or the zero vector, under cosine), dimension values. origin: dimension
 * values. *error and *record_error receive the list's bounds. Slots past the last row never survive
 * a scan. scratch: VEXI_CODE_SCRATCH(padded) floats, aligned to 64. Thread-safe. */
#define VEXI_CODE_SCRATCH(padded) ((size_t)8 * (padded))
void vexi_code_encode(const vexi_code_layout *layout, const vexi_rotation *rotation,
                      const float *const *rows, uint32_t row_count, const float *center,
                      const float *origin, uint8_t *out, float *error, float *record_error,
                      float *scratch);

/* The same for who codes rows around many centres: rows[i] is P(x_i - o) and center P(c - o),
 * padded values each; squares[i] is |x_i|^2 (1 or 0 under cosine; L2 reads none). */
void vexi_code_encode_rotated(const vexi_code_layout *layout, const float *const *rows,
                              const float *squares, uint32_t row_count, const float *center,
                              uint8_t *out, float *error, float *record_error, float *scratch);

/* Whether codes can tell rows of such a typical length apart: the squares of their values neither
 * overflow nor vanish. The same holds of a query's length (or its inverse). */
static inline bool vexi_code_scale_judged(float length) {
    return length > 1e-12f && length < 1e12f;
}

/* ---- Queries --------------------------------------------------------------------------------- */

/* A query, made ready for the lists that share an origin. */
typedef struct vexi_code_query {
    vexi_code_layout layout;
    const float *values; /* the query as distances to centres want it: unit length under cosine,
                            scaled under inner product; 64-byte aligned, zero-padded to a multiple
                            of 16 */
    float square;        /* |values|^2 */
    float origin_square; /* |P(q - o)|^2 */
    float to_scan; /* multiplies a distance of the metric to compare with bounds here: 1, but under
                      inner product the factor of the scaling */
    const uint8_t *table; /* 4 x padded bytes */
    float unit, base;     /* <b, P(q - o)> ~ unit * sum + base */
    float table_error;    /* at most off by this, nearly always */
    const void *levels;   /* of the records; NULL for bits 1 */
    float level_unit, level_base, level_error;
    float epsilon; /* multiplies error bounds */
} vexi_code_query;

/* rotated: P(values - ...) is made here; origin_rotated: P(origin), padded values, any alignment of
 * 4 (mapped file). row_length: typical |x| of the rows, for inner product. Memory from the arena.
 */
vex_status vexi_code_query_init(vexi_code_query *query, const vexi_code_layout *layout,
                                const vexi_rotation *rotation, const float *values,
                                const float *origin_rotated, float row_length, vexi_arena *arena,
                                vex_error *err);

/* What is added for a list whose centre is at the squared distance `center_square` from
 * query->values. */
float vexi_code_query_offset(const vexi_code_query *query, float center_square);

/* ---- Scanning -------------------------------------------------------------------------------- */

typedef struct vexi_code_candidate {
    float bound;    /* lower bound of the distance */
    float estimate; /* bits 1: the lower bound again */
    uint32_t row;   /* position in the source */
} vexi_code_candidate;

/* Candidates of one query from one source. */
typedef struct vexi_code_pool {
    float limit; /* rows whose lower bound is not below are dropped. Set by the caller at first;
                    with records it follows the k-th best estimate (and its error) downwards;
                    without, the caller lowers it as exact distances come in. */
    uint32_t k;  /* estimates that make the limit */
    float *best; /* max-heap of at most k */
    uint32_t best_count;
    vexi_code_candidate *items;
    uint32_t count;
    uint32_t capacity;
    uint64_t row_count; /* rows scanned */
} vexi_code_pool;

/* Memory from the arena. */
vex_status vexi_code_pool_init(vexi_code_pool *pool, uint32_t k, float limit, vexi_arena *arena,
                               vex_error *err);
/* Make room for `count` more candidates; first drops those that the limit has passed. */
vex_status vexi_code_pool_reserve(vexi_code_pool *pool, uint32_t count, vexi_arena *arena,
                                  vex_error *err);

/* One list, or part of one that begins at a block. */
typedef struct vexi_code_list {
    const uint8_t *blocks;  /* aligned to 64 */
    const uint8_t *records; /* of the same rows; NULL for bits 1 */
    uint32_t row_count;
    uint32_t first_row; /* row position of the first */
    float error;
    float record_error;
} vexi_code_list;

/* Scan a list: its surviving rows, without hidden ones (bit set by row position; may be NULL), go
 * to the pool, which has room for row_count more. Allocates nothing, takes no lock (guard). */
void vexi_code_scan(const vexi_code_query *query, const vexi_code_list *list, float center_square,
                    const uint64_t *hidden, vexi_code_pool *pool);

/* Ask for the beginning of the list that comes after the one about to be scanned. Where the codes
 * do not lie in the near caches, this takes a tenth off a search. May be given what is not mapped.
 */
void vexi_code_prefetch(const vexi_code_query *query, const vexi_code_list *list);

/* Drop the candidates that the limit has passed and order the others by estimate. */
void vexi_code_pool_sort(vexi_code_pool *pool);

#endif
