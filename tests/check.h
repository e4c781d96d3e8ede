/* The test harness: checks that print what failed and where, and a runner.
 *
 *     TEST(name) { CHECK(1 + 1 == 2); }
 *     TEST_MAIN(RUN(name))
 *
 * A failed check ends the program with status 1. Random tests take their seed from vex_test_seed,
 * which prints it; SEED=n in the environment repeats a run. EFFORT=n multiplies trial counts. */
#ifndef VEX_TESTS_CHECK_H
#define VEX_TESTS_CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/random.h"

#define CHECK(expression)                                                                  \
    do {                                                                                   \
        if (!(expression)) {                                                               \
            fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #expression); \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)

/* expression takes `&err`; the message is printed when it is not VEX_OK. */
#define CHECK_OK(expression)                                                        \
    do {                                                                            \
        vex_error err = {0};                                                        \
        vex_status check_status = (expression);                                     \
        if (check_status != VEX_OK) {                                               \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #expression, \
                    vex_status_text(check_status), err.message);                    \
            exit(1);                                                                \
        }                                                                           \
    } while (0)

/* expression takes `&err`, fails with `expected`, and says something. */
#define CHECK_FAILS(expected, expression)                                                     \
    do {                                                                                      \
        vex_error err = {0};                                                                  \
        vex_status check_status = (expression);                                               \
        if (check_status != (expected) || err.message[0] == '\0') {                           \
            fprintf(stderr, "%s:%d: %s: %s, not %s: '%s'\n", __FILE__, __LINE__, #expression, \
                    vex_status_text(check_status), vex_status_text(expected), err.message);   \
            exit(1);                                                                          \
        }                                                                                     \
    } while (0)

#define CHECK_EQ(a, b)                                                                          \
    do {                                                                                        \
        long long check_a = (long long)(a), check_b = (long long)(b);                           \
        if (check_a != check_b) {                                                               \
            fprintf(stderr, "%s:%d: %s is %lld, %s is %lld\n", __FILE__, __LINE__, #a, check_a, \
                    #b, check_b);                                                               \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

#define TEST(name) static void test_##name(void)
#define RUN(name)                \
    do {                         \
        printf("  %s\n", #name); \
        fflush(stdout);          \
        test_##name();           \
    } while (0)
#define TEST_MAIN(...) \
    int main(void) {   \
        __VA_ARGS__;   \
        return 0;      \
    }

/* splitmix64: a small generator with a seed, for tests only. */
static inline uint64_t vex_test_random(uint64_t *state) {
    return vexi_random_next(state);
}

static inline uint64_t vex_test_below(uint64_t *state, uint64_t bound) {
    return vex_test_random(state) % bound;
}

/* Roughly normal, mean 0, deviation 1. */
static inline float vex_test_normal(uint64_t *state) {
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        sum += (double)(vex_test_random(state) >> 11) / 9007199254740992.0;
    }
    return (float)(sum - 6.0);
}

static inline uint64_t vex_test_seed(uint64_t fallback) {
    const char *text = getenv("SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : fallback;
    printf("    seed %" PRIu64 "\n", seed);
    return seed;
}

static inline uint64_t vex_test_effort(uint64_t count) {
    const char *text = getenv("EFFORT");
    double effort = text != NULL ? strtod(text, NULL) : 1.0;
    double scaled = (double)count * effort;
    return scaled < 1.0 ? 1 : (uint64_t)scaled;
}

/* One system environment for the whole test program; never destroyed. */
static inline vexi_env *vex_test_env(void) {
    static vexi_env *env;
    if (env == NULL) {
        vex_error err;
        if (vexi_env_system_create(2, NULL, NULL, &env, &err) != VEX_OK) {
            fprintf(stderr, "%s\n", err.message);
            exit(1);
        }
    }
    return env;
}

#endif
