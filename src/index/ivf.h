/* IVF: rows in lists around k-means centroids; a search compares the rows of the nearest lists.
 *
 * Inverted file (Sivic & Zisserman 2003; Jegou et al. 2011). Pure computation over given memory:
 * building yields centroids and an order of the rows, searching names the lists to probe, and the
 * caller fetches them. Under cosine the rows are clustered as unit vectors; under inner product
 * lists are ranked by the dot product with the centroid. */
#ifndef VEXI_INDEX_IVF_H
#define VEXI_INDEX_IVF_H

#include "index/calibration.h"
#include "index/code.h"
#include "index/flat.h"

typedef struct vexi_ivf_options {
    uint32_t list_count; /* 0: chosen from the row count                                          */
    uint64_t seed;
    uint32_t iteration_max; /* 0: default */
    const int *cancel;      /* atomic; not 0 ends the build with VEX_CANCELLED; may be NULL */
} vexi_ivf_options;

typedef struct vexi_ivf {
    uint32_t list_count;
    uint32_t dimension;
    float *centroids; /* list_count x dimension, 64-byte aligned                               */
    float *radii;     /* list_count: largest distance (not squared) of a row to its centroid,
                         rounded up; infinite where a float32 cannot hold it               */
    uint32_t *list_first; /* list_count + 1: first row position of each list, in the new order */
    uint32_t *order; /* row_count: order[position] = row in the input                         */
} vexi_ivf;

/* Cluster row_count rows (row i at rows[i], each dimension float32s, aligned to 4 bytes). Lists are
 * numbered so that near centroids have near numbers (probed lists then coalesce). Deterministic
 * for a seed, whatever the number of threads. Uses env's parallel. Freed by vexi_ivf_deinit.
 * Handles duplicates, constant rows, fewer distinct rows than lists (empty lists are dropped). */
vex_status vexi_ivf_build(const vexi_env *env, const float *const *rows, uint32_t row_count,
                          uint32_t dimension, vex_metric metric, const vexi_ivf_options *options,
                          vexi_ivf *out, vex_error *err);
void vexi_ivf_deinit(const vexi_env *env, vexi_ivf *ivf);

/* Fill the table for lists made by vexi_ivf_build from the same rows: for each true neighbour of
 * the sample, how many lists come before its own in the order of vexi_ivf_rank. */
vex_status vexi_ivf_calibrate(const vexi_env *env, const vexi_ivf *ivf, vex_metric metric,
                              const vexi_calibration_sample *sample, vexi_calibration *out,
                              vex_error *err);

/* ---- Codes of a whole segment ---------------------------------------------------------------- */

/* What a segment's codes need beside the lists' bytes. */
typedef struct vexi_ivf_codes {
    vexi_code_layout layout;
    float *origin;         /* padded values, rotated: the mean of the centroids */
    float *errors;         /* list_count x 2: error, record_error */
    uint8_t *center_codes; /* the centroids as one list of one-bit codes around the origin, whose
                              error is center_error; vexi_code_list_size bytes, 64-byte aligned */
    float center_error;
    float row_length;      /* root mean square |x| (1 under cosine) */
    uint64_t *list_offset; /* list_count + 1: where a list's bytes begin */
} vexi_ivf_codes;

/* Offsets of the lists' bytes, for readers of a file too: out has list_count + 1 entries. */
void vexi_ivf_code_offsets(const vexi_code_layout *layout, const uint32_t *list_first,
                           uint32_t list_count, uint64_t *out);

/* All but the lists' bytes, errors included (zero so far). Freed by deinit. */
vex_status vexi_ivf_codes_init(const vexi_env *env, const vexi_ivf *ivf, vex_metric metric,
                               uint32_t bits, const vexi_rotation *rotation,
                               const float *const *rows, vexi_ivf_codes *out, vex_error *err);
/* Encode all lists into `out` (list_offset[list_count] bytes, aligned to 64) and fill errors. rows
 * in the order given to vexi_ivf_build. Uses env's parallel. */
vex_status vexi_ivf_codes_write(const vexi_env *env, const vexi_ivf *ivf,
                                const vexi_rotation *rotation, const float *const *rows,
                                vexi_ivf_codes *codes, uint8_t *out, vex_error *err);
void vexi_ivf_codes_deinit(const vexi_env *env, vexi_ivf_codes *codes);

/* ---- Ranking --------------------------------------------------------------------------------- */

/* The `wanted` (at most list_count) most promising lists of a query, in order, and the squared
 * distance of query->values to their centroids. Reads the centroids' codes first and exact
 * centroids for those that may be among the wanted. center_codes, centroids: any alignment of 64
 * and 4 (mapped file). lists, squares: list_count entries each; scratch: about 20 bytes a list
 * from the arena. Allocates nothing besides: scratch is made by
 * vexi_ivf_ranker_init. */
typedef struct vexi_ivf_ranker {
    uint32_t list_count;
    const float *centroids;
    const uint8_t *center_codes;
    float center_error;
    vexi_code_pool pool; /* room for list_count candidates */
    float *estimates;    /* list_count, rounded up to whole blocks; aligned to 64 */
    float *keys;         /* as many */
} vexi_ivf_ranker;
vex_status vexi_ivf_ranker_init(vexi_ivf_ranker *ranker, uint32_t list_count,
                                const float *centroids, const uint8_t *center_codes,
                                float center_error, vexi_arena *arena, vex_error *err);
/* query is made ready with the segment's layout and origin. Guard-safe. Returns how many lists were
 * ranked: `wanted`. */
uint32_t vexi_ivf_rank_coded(vexi_ivf_ranker *ranker, const vexi_code_query *query, uint32_t wanted,
                             uint32_t *lists, float *squares);

/* Lists that vexi_ivf_build makes by default for so many rows; 0 where flat is better. */
uint32_t vexi_ivf_default_list_count(uint64_t row_count, uint32_t dimension);
/* Lists to probe by default: a fixed rule until calibration comes. */
uint32_t vexi_ivf_default_nprobe(uint32_t list_count, uint32_t k);

/* Rank the lists for a query: fills lists[0..list_count-1] nearest first. centroids: list_count x
 * dimension float32, at any 4-byte aligned address (mapped file). scratch: list_count floats. */
void vexi_ivf_rank(const vexi_query *query, const float *centroids, uint32_t list_count,
                   uint32_t *lists, float *scratch);

#endif
