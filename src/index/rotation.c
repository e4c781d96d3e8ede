/* Random orthogonal map by sign flips and Hadamard transforms, the same bits on every machine.
 *
 * Let D be the dimension padded to a multiple of 64, p the largest power of two that is at most D,
 * and s the float32 nearest to 1 / sqrt(p): with p = 2^m that is 2^(-m/2) for even m and
 * 0x1.6a09e6p-1 x 2^(-(m-1)/2) for odd m.
 *
 * Flips. A splitmix64 generator (Steele, Lea & Flood 2014) whose state begins as the seed gives,
 * round after round, D / 64 words; bit j of a round's word w belongs to coordinate 64 w + j.
 *
 * Rotating. The vector becomes D float32 values, zeros behind its own. Each of the four rounds
 * 1. changes the sign of every coordinate whose bit is set in the round's words,
 * 2. transforms p coordinates in place, the first ones in rounds 0 and 2, the last ones in rounds 1
 *    and 3: for h = 1, 2, 4 ... p / 2 and for all pairs (i, i + h) where bit h of i is clear,
 *    (a, b) becomes (a + b, a - b),
 * 3. multiplies these p coordinates by s.
 * Every operation is one float32 operation, rounded to nearest, so there is nothing to choose. */
#include "index/rotation.h"

#include <string.h>

#include "base/random.h"

void vexi_rotation_init(vexi_rotation *rotation, uint32_t dimension, uint64_t seed) {
    VEX_ASSERT(dimension >= 1 && dimension <= VEX_DIMENSION_MAX);
    *rotation = (vexi_rotation){
        .dimension = dimension, .padded = vexi_code_padded(dimension), .seed = seed};
    uint64_t state = seed;
    for (uint32_t round = 0; round < VEXI_ROTATION_ROUNDS; round++) {
        for (uint32_t w = 0; w < rotation->padded / 64; w++) {
            rotation->flips[round][w] = vexi_random_next(&state);
        }
    }
}

/* Sign bits of four neighbours, by the four bits that ask for them: a load and an exclusive or per
 * four values where a shift per value would be as much work as the transform. */
#define S 0x80000000u
static const uint32_t signs_of[16][4] = {
    {0, 0, 0, 0}, {S, 0, 0, 0}, {0, S, 0, 0}, {S, S, 0, 0}, {0, 0, S, 0}, {S, 0, S, 0},
    {0, S, S, 0}, {S, S, S, 0}, {0, 0, 0, S}, {S, 0, 0, S}, {0, S, 0, S}, {S, S, 0, S},
    {0, 0, S, S}, {S, 0, S, S}, {0, S, S, S}, {S, S, S, S},
};
#undef S

static void flip(float *values, const uint64_t *flips, uint32_t padded) {
    for (uint32_t i = 0; i < padded; i += 4) {
        const uint32_t *signs = signs_of[flips[i / 64] >> (i % 64) & 15];
        uint32_t bits[4];
        memcpy(bits, values + i, sizeof bits);
        for (uint32_t j = 0; j < 4; j++) {
            bits[j] ^= signs[j];
        }
        memcpy(values + i, bits, sizeof bits);
    }
}

void vexi_rotate(const vexi_rotation *rotation, const float *in, float *out) {
    const vexi_kernels *kernels = vexi_kernels_get();
    uint32_t padded = rotation->padded, power = 64;
    float even = 0x1p-3f; /* power^-1/2 without the factor sqrt(1/2) of the odd powers */
    while (power <= padded / 2) {
        power *= 2;
        even *= (__builtin_ctz(power) & 1) != 0 ? 1.0f : 0.5f;
    }
    float scale = (__builtin_ctz(power) & 1) != 0 ? even * 0x1.6a09e6p-1f : even;
    memcpy(out, in, rotation->dimension * sizeof *out);
    memset(out + rotation->dimension, 0, (padded - rotation->dimension) * sizeof *out);
    for (uint32_t round = 0; round < VEXI_ROTATION_ROUNDS; round++) {
        flip(out, rotation->flips[round], padded);
        float *part = round % 2 == 0 ? out : out + (padded - power);
        kernels->hadamard(part, power);
        for (uint32_t i = 0; i < power; i++) {
            part[i] *= scale;
        }
    }
}
