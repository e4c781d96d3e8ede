#include "index/rotation.h"

#include <math.h>

#include "check.h"

static const uint32_t dimensions[] = {1, 2, 63, 64, 65, 100, 128, 192, 384, 960, 1023, 1536, 4096};

static double dot(const float *a, const float *b, uint32_t count) {
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += (double)a[i] * (double)b[i];
    }
    return sum;
}

TEST(keeps_lengths_and_angles) {
    uint64_t random = vex_test_seed(1);
    static vexi_rotation rotation;
    static float a[VEX_DIMENSION_MAX], b[VEX_DIMENSION_MAX];
    static _Alignas(64) float ra[VEX_DIMENSION_MAX], rb[VEX_DIMENSION_MAX];
    for (size_t d = 0; d < sizeof dimensions / sizeof *dimensions; d++) {
        uint32_t dimension = dimensions[d];
        vexi_rotation_init(&rotation, dimension, vex_test_random(&random));
        CHECK_EQ(rotation.padded, (dimension + 63) / 64 * 64);
        for (uint32_t i = 0; i < dimension; i++) {
            a[i] = vex_test_normal(&random);
            b[i] = vex_test_normal(&random) + 0.5f * a[i];
        }
        vexi_rotate(&rotation, a, ra);
        vexi_rotate(&rotation, b, rb);
        double length = sqrt(dot(a, a, dimension) * dot(b, b, dimension));
        double before = dot(a, b, dimension), after = dot(ra, rb, rotation.padded);
        CHECK(fabs(before - after) < 1e-5 * length);
        CHECK(fabs(dot(ra, ra, rotation.padded) / dot(a, a, dimension) - 1) < 1e-5);
    }
}

/* What the codes live on: whatever the vector, its rotated coordinates are all of a size. */
TEST(spreads_single_coordinates) {
    uint64_t random = vex_test_seed(2);
    static vexi_rotation rotation;
    static float in[VEX_DIMENSION_MAX];
    static _Alignas(64) float out[VEX_DIMENSION_MAX];
    for (size_t d = 0; d < sizeof dimensions / sizeof *dimensions; d++) {
        uint32_t dimension = dimensions[d];
        vexi_rotation_init(&rotation, dimension, vex_test_random(&random));
        for (uint32_t trial = 0; trial < 20; trial++) {
            uint32_t at = (uint32_t)vex_test_below(&random, dimension);
            memset(in, 0, sizeof in);
            in[at] = 3;
            vexi_rotate(&rotation, in, out);
            double sum = 0, largest = 0;
            for (uint32_t i = 0; i < rotation.padded; i++) {
                sum += fabs((double)out[i]);
                largest = fmax(largest, fabs((double)out[i]));
            }
            /* A normal vector has sqrt(2 / pi) = 0.8 here. */
            double rho = sum / (3 * sqrt(rotation.padded));
            CHECK(rho > 0.7 && rho < 1.0001);
            CHECK(largest < 3 * 6.5 / sqrt(rotation.padded));
        }
    }
}

TEST(depends_on_seed_alone) {
    static vexi_rotation one, two, other;
    vexi_rotation_init(&one, 100, 7);
    vexi_rotation_init(&two, 100, 7);
    vexi_rotation_init(&other, 100, 8);
    CHECK(memcmp(&one, &two, sizeof one) == 0);
    CHECK(memcmp(one.flips, other.flips, sizeof one.flips) != 0);
}

TEST_MAIN(RUN(keeps_lengths_and_angles); RUN(spreads_single_coordinates);
          RUN(depends_on_seed_alone))
