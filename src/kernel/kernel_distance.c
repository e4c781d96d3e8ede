/* Per-pair functions that must give the same answer on every machine. */
#include <math.h>
#include <string.h>

#include "kernel/kernel.h"

static double load(const uint8_t *row, size_t j) {
    float value;
    memcpy(&value, row + j * sizeof value, sizeof value);
    return value;
}

double vexi_distance(vex_metric metric, const float *query, const uint8_t *row,
                     uint32_t dimension) {
    double sum = 0;
    if (metric == VEX_METRIC_L2) {
        for (size_t j = 0; j < dimension; j++) {
            double difference = (double)query[j] - load(row, j);
            sum += difference * difference;
        }
        return sum;
    }
    if (metric == VEX_METRIC_IP) {
        for (size_t j = 0; j < dimension; j++) {
            sum += (double)query[j] * load(row, j);
        }
        return 0.0 - sum; /* never -0 */
    }
    double query_square = 0, row_square = 0;
    for (size_t j = 0; j < dimension; j++) {
        double q = query[j], x = load(row, j);
        sum += q * x;
        query_square += q * q;
        row_square += x * x;
    }
    /* Neither product leaves the range of a double: squares of float32 lie in 1e-90 .. 1e77, times
     * the dimension. The root of a square is exact, so a row's distance to itself is exactly 0. */
    double product = query_square * row_square;
    if (product == 0) {
        return 1.0;
    }
    double distance = 1.0 - sum / sqrt(product);
    return distance < 0 ? 0.0 : distance > 2 ? 2.0 : distance;
}

bool vexi_vector_finite(const uint8_t *row, uint32_t dimension) {
    uint32_t found = 0;
    for (size_t j = 0; j < dimension; j++) {
        uint32_t bits;
        memcpy(&bits, row + j * sizeof bits, sizeof bits);
        found |= (uint32_t)((bits & 0x7f800000u) == 0x7f800000u);
    }
    return found == 0;
}
