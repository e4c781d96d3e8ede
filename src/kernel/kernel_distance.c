/* Per-pair functions that must give the same answer on every machine. */
#include <math.h>
#include <string.h>

#include "kernel/kernel.h"

static double load(const uint8_t *row, size_t j) {
    float value;
    memcpy(&value, row + j * sizeof value, sizeof value);
    return value;
}

/* Neither product leaves the range of a double: squares of float32 lie in 1e-90 .. 1e77, times the
 * dimension. The root of a square is exact, so a row's distance to itself is exactly 0. */
static double cosine_of(double sum, double query_square, double row_square) {
    double product = query_square * row_square;
    if (product == 0) {
        return 1.0;
    }
    double distance = 1.0 - sum / sqrt(product);
    return distance < 0 ? 0.0 : distance > 2 ? 2.0 : distance;
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
    return cosine_of(sum, query_square, row_square);
}

/* Sums in index order are chains of additions, each of which waits for the one before: four rows at
 * once take the time of one. */
static void four_distances(vex_metric metric, const float *query, const uint8_t *const rows[4],
                           uint32_t dimension, double out[4]) {
    double a = 0, b = 0, c = 0, d = 0;
    if (metric == VEX_METRIC_L2) {
        for (size_t j = 0; j < dimension; j++) {
            double q = query[j];
            double e = q - load(rows[0], j), f = q - load(rows[1], j);
            double g = q - load(rows[2], j), h = q - load(rows[3], j);
            a += e * e;
            b += f * f;
            c += g * g;
            d += h * h;
        }
    } else if (metric == VEX_METRIC_IP) {
        for (size_t j = 0; j < dimension; j++) {
            double q = query[j];
            a += q * load(rows[0], j);
            b += q * load(rows[1], j);
            c += q * load(rows[2], j);
            d += q * load(rows[3], j);
        }
        a = 0.0 - a;
        b = 0.0 - b;
        c = 0.0 - c;
        d = 0.0 - d;
    } else {
        double query_square = 0, e = 0, f = 0, g = 0, h = 0;
        for (size_t j = 0; j < dimension; j++) {
            double q = query[j];
            double v = load(rows[0], j), w = load(rows[1], j);
            double x = load(rows[2], j), y = load(rows[3], j);
            query_square += q * q;
            a += q * v;
            b += q * w;
            c += q * x;
            d += q * y;
            e += v * v;
            f += w * w;
            g += x * x;
            h += y * y;
        }
        a = cosine_of(a, query_square, e);
        b = cosine_of(b, query_square, f);
        c = cosine_of(c, query_square, g);
        d = cosine_of(d, query_square, h);
    }
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
}

void vexi_distances(vex_metric metric, const float *query, const uint8_t *const *rows, size_t count,
                    uint32_t dimension, double *out) {
    enum { AHEAD = 8, LINE = 64, LINES_SIZE = 1024 };
    size_t size = dimension * sizeof(float);
    size = size < LINES_SIZE ? size : LINES_SIZE; /* what lies behind follows by itself */
    size_t fetched = 0;
    for (size_t i = 0; i < count; i += 4) {
        for (; fetched < count && fetched < i + AHEAD; fetched++) {
            for (size_t at = 0; at < size; at += LINE) {
                __builtin_prefetch(rows[fetched] + at);
            }
        }
        size_t last = count - 1;
        const uint8_t *four[4] = {rows[i], rows[i + 1 < last ? i + 1 : last],
                                  rows[i + 2 < last ? i + 2 : last],
                                  rows[i + 3 < last ? i + 3 : last]};
        double distances[4];
        four_distances(metric, query, four, dimension, distances);
        memcpy(out + i, distances, (count - i < 4 ? count - i : 4) * sizeof *out);
    }
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
