/* Distances in double: many rows at once give the bits of one at a time. */
#include "kernel/kernel.h"

#include "check.h"

TEST(many_rows_give_the_bits_of_one) {
    enum { ROWS = 11, DIMENSION_MAX = 200 };
    static const uint32_t dimensions[] = {1, 3, 64, 129, DIMENSION_MAX};
    uint64_t seed = vex_test_seed(7);
    float query[DIMENSION_MAX];
    uint8_t bytes[ROWS][DIMENSION_MAX * sizeof(float) + 1];
    const uint8_t *rows[ROWS];
    double out[ROWS];
    for (size_t d = 0; d < sizeof dimensions / sizeof *dimensions; d++) {
        for (int i = 0; i < DIMENSION_MAX; i++) {
            query[i] = vex_test_normal(&seed);
        }
        for (int r = 0; r < ROWS; r++) {
            rows[r] = bytes[r] + r % 2; /* at any address */
            for (int i = 0; i < DIMENSION_MAX; i++) {
                float value = r == 3 ? query[i] : r == 4 ? 0 : vex_test_normal(&seed) * 1e3f;
                memcpy(bytes[r] + r % 2 + i * (int)sizeof value, &value, sizeof value);
            }
        }
        for (int metric = VEX_METRIC_L2; metric <= VEX_METRIC_IP; metric++) {
            for (size_t count = 0; count <= ROWS; count++) {
                vexi_distances((vex_metric)metric, query, rows, count, dimensions[d], out);
                for (size_t r = 0; r < count; r++) {
                    CHECK(out[r] ==
                          vexi_distance((vex_metric)metric, query, rows[r], dimensions[d]));
                }
            }
        }
    }
}

TEST_MAIN(RUN(many_rows_give_the_bits_of_one))
