/* Calibration: how far a search must go in one segment for a recall.
 *
 * After a build, queries like those that will come (sampled rows, each excluded from its own
 * answer, and perturbed ones) are answered exactly and through the index; the table says for each
 * recall and k the least nprobe (IVF) or ef (graph) that reaches it. */
#ifndef VEXI_INDEX_CALIBRATION_H
#define VEXI_INDEX_CALIBRATION_H

#include "base/env.h"
#include "index/cancel.h"

enum { VEXI_CALIBRATION_RECALLS = 8, VEXI_CALIBRATION_KS = 4 };
/* 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999 */
extern const float vexi_calibration_recalls[VEXI_CALIBRATION_RECALLS];
/* 1, 10, 100, 1000 */
extern const uint32_t vexi_calibration_ks[VEXI_CALIBRATION_KS];

typedef struct vexi_calibration {
    /* 0: the sample could not tell (fewer rows than k, or not reached). */
    uint32_t effort[VEXI_CALIBRATION_KS][VEXI_CALIBRATION_RECALLS];
} vexi_calibration;

/* The effort for a recall in (0, 1) and k >= 1: between the table's k the larger one's or the
 * interpolation in log k; beyond its recalls and ks it extrapolates on the safe side. At least 1,
 * at most `most` (all lists, all rows); `most` where the table cannot tell. Any content of the
 * table is answered within these bounds. */
uint32_t vexi_calibration_find(const vexi_calibration *table, float recall, uint32_t k,
                               uint32_t most);

/* Queries and their exact answers from the rows of a segment. */
typedef struct vexi_calibration_sample {
    uint32_t query_count; /* even: rows, then as many others that were moved a little           */
    uint32_t k;           /* answers per query: min(1000, rows - 1) */
    float *queries;       /* query_count x dimension, 64-byte aligned; unit length under cosine */
    uint32_t *excluded;   /* query_count: the row that it was made from, which is no answer */
    uint32_t *answers;    /* query_count x k row numbers (of `rows`), nearest first */
    float *distances;     /* query_count x k, the metric's */
} vexi_calibration_sample;

/* rows[i]: row i, aligned to 4. cancel: atomic, not 0 ends with VEX_CANCELLED; may be NULL. Uses
 * env's parallel. Deterministic for a seed. Freed by deinit. */
vex_status vexi_calibration_sample_init(const vexi_env *env, const float *const *rows,
                                        uint32_t row_count, uint32_t dimension, vex_metric metric,
                                        uint64_t seed, const int *cancel,
                                        vexi_calibration_sample *out, vex_error *err);
void vexi_calibration_sample_deinit(const vexi_env *env, vexi_calibration_sample *sample);

#endif
