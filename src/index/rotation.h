/* Rotation: a random orthogonal map, the same for all vectors of a collection.
 *
 * Quantising to signs is unbiased and its error bounded only after a random rotation (Gao & Long,
 * SIGMOD 2024). A dense one costs dimension^2; four rounds of random sign flips and a Hadamard
 * transform cost dimension x log2(dimension) and serve as well (Ailon & Chazelle 2009; Andoni et
 * al. 2015). The vector is padded with zeros to a multiple of 64. Where that is no power of two the
 * rounds transform in turn the first and the last power of two of its coordinates.
 *
 * Bit-exact on every machine: docs/format.md has the algorithm. */
#ifndef VEXI_INDEX_ROTATION_H
#define VEXI_INDEX_ROTATION_H

#include "kernel/kernel.h"

enum { VEXI_ROTATION_ROUNDS = 4 };

typedef struct vexi_rotation {
    uint32_t dimension;
    uint32_t padded;
    uint64_t seed;
    /* By round and coordinate: bit set = flip the sign. */
    uint64_t flips[VEXI_ROTATION_ROUNDS][VEX_DIMENSION_MAX / 64];
} vexi_rotation;

void vexi_rotation_init(vexi_rotation *rotation, uint32_t dimension, uint64_t seed);

/* out (padded values, aligned to 64) = the rotation of in (dimension values, any alignment of 4).
 * Keeps lengths and distances but for rounding. */
void vexi_rotate(const vexi_rotation *rotation, const float *in, float *out);

#endif
