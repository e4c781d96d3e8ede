/* Pseudo-random numbers from a seed: splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
 * Number Generators, OOPSLA 2014). For sampling, rotations and simulated faults; never for secrets.
 * The numbers are part of the file format: a rotation is stored as its seed (docs/format.md). */
#ifndef VEXI_BASE_RANDOM_H
#define VEXI_BASE_RANDOM_H

#include <stdint.h>

/* The odd integer nearest to 2^64 over the golden ratio. */
#define VEXI_RANDOM_STEP 0x9e3779b97f4a7c15u

/* A bijection of 64-bit words that scatters neighbouring ones. */
static inline uint64_t vexi_random_mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* The next number of the sequence that began with `*state` = seed. */
static inline uint64_t vexi_random_next(uint64_t *state) {
    *state += VEXI_RANDOM_STEP;
    return vexi_random_mix(*state);
}

#endif
