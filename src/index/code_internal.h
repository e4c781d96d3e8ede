/* What encoding, queries and scans share about the levels of refinement records. */
#ifndef VEXI_INDEX_CODE_INTERNAL_H
#define VEXI_INDEX_CODE_INTERNAL_H

#include "index/code.h"

/* A code c of B bits stands for y = c - half: the odd multiples of 1/2 up to half. */
static inline float vexi_code_half(uint32_t bits) {
    return (float)((1u << bits) - 1u) * 0.5f;
}

/* Steps of the levels in a standard deviation of the coordinates where these are normal and the
 * mean square error is least (Max 1960): 1 / 0.3352 for 16 levels, 1 / 0.03 for 256. */
static inline float vexi_code_steps(uint32_t bits) {
    return bits == 4 ? 2.983f : 33.0f;
}

/* The encoder tries multiples of these steps up to this one, so that the root mean square of y is
 * at most VEXI_CODE_STRETCH x steps + 1/2. */
#define VEXI_CODE_STRETCH 1.3f

/* vexi_code_encode with the origin rotated already (padded values). */
void vexi_code_encode_around(const vexi_code_layout *layout, const vexi_rotation *rotation,
                             const float *const *rows, uint32_t row_count, const float *center,
                             const float *origin_rotated, uint8_t *out, float *error,
                             float *record_error, float *scratch);

/* What a row's |scale| is multiplied with to give the error of its estimate, for a list with this
 * `error` whose centre is at the squared distance center_square. records: of the records, else of
 * the one-bit codes. */
float vexi_code_query_slack(const vexi_code_query *query, float error, float center_square,
                            bool records);

/* Order the items by (estimate, row), as far as the first `wanted` are concerned. */
void vexi_code_sort(vexi_code_candidate *items, uint32_t count, uint32_t wanted);

/* A number that at least `wanted` of the values do not exceed, and hardly more where they differ.
 * 1 <= wanted <= count; the values are finite, else more may come. */
float vexi_code_most(const float *values, uint32_t count, uint32_t wanted);

#endif
