/* Every variant by name against a double-precision reference. */
#include <float.h>
#include <math.h>

#include "kernel_variants.h"

static float value_at(const uint8_t *row, size_t j) {
    float value;
    memcpy(&value, row + j * sizeof value, sizeof value);
    return value;
}

typedef enum measure { L2, DOT, NORM } measure;

/* The exact value, and in *scale the sum of the terms' absolute values. */
static double reference(measure what, const float *query, const uint8_t *row, size_t dimension,
                        double *scale) {
    double sum = 0;
    *scale = 0;
    for (size_t j = 0; j < dimension; j++) {
        double x = value_at(row, j), q = what == NORM ? x : query[j];
        double term = what == L2 ? (q - x) * (q - x) : q * x;
        sum += term;
        *scale += fabs(term);
    }
    return sum;
}

static void check_close(const char *name, measure what, float got, double wanted, double scale,
                        size_t dimension) {
    double bound = (double)(dimension + 4) * FLT_EPSILON * scale +
                   (double)dimension * 2 * (double)FLT_TRUE_MIN;
    /* The difference of L2 rounds before it is squared: two roundings more per term. */
    if (scale > FLT_MAX / 4) {
        CHECK(scale < FLT_MAX || !isfinite(got) || fabs((double)got - wanted) <= bound);
        return;
    }
    if (!(fabs((double)got - wanted) <= bound)) {
        fprintf(stderr, "%s, measure %d, dimension %zu: %.9g, not %.9g (bound %g)\n", name,
                (int)what, dimension, (double)got, wanted, bound);
        exit(1);
    }
}

typedef enum filling { NORMAL, WIDE, DENORMAL, LARGE, FILLINGS } filling;

static float make_value(filling how, uint64_t *random) {
    float normal = vex_test_normal(random);
    switch (how) {
    case NORMAL:
        return normal;
    case WIDE: /* magnitudes from 1e-12 to 1e12, zeros of both signs */
        return vex_test_below(random, 8) == 0
                   ? (normal < 0 ? -0.0f : 0.0f)
                   : normal * powf(10, (float)vex_test_below(random, 25) - 12);
    case DENORMAL:
        return normal * FLT_MIN;
    default:
        return normal * 1e17f;
    }
}

/* Rows at odd addresses with a gap of canaries between them; out has a canary behind it. */
static void check_rows(const variant *v, uint32_t dimension, size_t count, size_t misalignment,
                       size_t gap, filling how, uint64_t *random) {
    size_t padded = ((size_t)dimension + 15) / 16 * 16;
    float *query = aligned_alloc(64, padded * sizeof *query + 64);
    memset(query, 0, padded * sizeof *query);
    size_t stride = dimension * sizeof(float) + gap;
    /* Exactly as long as the rows, so that the address sanitizer sees a read past the last. */
    size_t size = misalignment + (count == 0 ? 0 : (count - 1) * stride + 4 * (size_t)dimension);
    uint8_t *memory = malloc(size + (size == 0));
    memset(memory, 0xff, size); /* a NaN wherever no row is */
    uint8_t *rows = memory + misalignment;
    for (size_t j = 0; j < dimension; j++) {
        query[j] = make_value(how, random);
    }
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < dimension; j++) {
            float value = make_value(how, random);
            memcpy(rows + i * stride + j * sizeof value, &value, sizeof value);
        }
    }
    for (measure what = L2; what <= NORM; what++) {
        float out[16], alone;
        for (size_t i = 0; i < 16; i++) {
            out[i] = 12345;
        }
        if (what == L2) {
            v->kernels->l2(query, rows, stride, count, dimension, out);
        } else if (what == DOT) {
            v->kernels->dot(query, rows, stride, count, dimension, out);
        } else {
            v->kernels->norm(rows, stride, count, dimension, out);
        }
        for (size_t i = count; i < 16; i++) {
            CHECK(out[i] == 12345);
        }
        for (size_t i = 0; i < count; i++) {
            const uint8_t *row = rows + i * stride;
            double scale, wanted = reference(what, query, row, dimension, &scale);
            check_close(v->name, what, out[i], wanted, scale, dimension);
            if (what == L2) {
                v->kernels->l2(query, row, stride, 1, dimension, &alone);
            } else if (what == DOT) {
                v->kernels->dot(query, row, stride, 1, dimension, &alone);
            } else {
                v->kernels->norm(row, stride, 1, dimension, &alone);
            }
            CHECK(memcmp(&alone, &out[i], sizeof alone) == 0);
        }
    }
    free(memory);
    free(query);
}

TEST(rows_match_reference) {
    uint64_t random = vex_test_seed(1);
    variant variants[8];
    size_t variant_count = list_variants(variants);
    for (size_t v = 0; v < variant_count; v++) {
        printf("    %s\n", variants[v].name);
        for (uint32_t dimension = 1; dimension <= 70; dimension++) {
            for (size_t count = 0; count <= 9; count++) {
                size_t misalignment = vex_test_below(&random, 64);
                size_t gap = vex_test_below(&random, 2) * vex_test_below(&random, 9);
                check_rows(&variants[v], dimension, count, misalignment, gap,
                           (filling)(count % FILLINGS), &random);
            }
        }
        static const uint32_t longer[] = {96,  100, 127,  128,  129,  255, 384,
                                          511, 768, 1000, 1536, 2047, 4096};
        for (size_t d = 0; d < sizeof longer / sizeof longer[0]; d++) {
            for (filling how = NORMAL; how < FILLINGS; how++) {
                check_rows(&variants[v], longer[d], 1 + vex_test_below(&random, 9),
                           vex_test_below(&random, 64), 0, how, &random);
            }
        }
    }
}

/* Rows by pointer, in any order, at any address: the bits of the runs. */
TEST(scattered_rows_match) {
    uint64_t random = vex_test_seed(5);
    variant variants[8];
    size_t variant_count = list_variants(variants);
    enum { ROWS = 40, LONGEST = 1536 };
    uint8_t *memory[ROWS];
    float *query = aligned_alloc(64, LONGEST * sizeof *query);
    for (size_t trial = 0; trial < 300; trial++) {
        uint32_t dimension = 1 + (uint32_t)vex_test_below(&random, trial % 10 == 0 ? LONGEST : 140);
        size_t count = trial % (ROWS + 1);
        const uint8_t *rows[ROWS];
        for (size_t j = 0; j < LONGEST; j++) {
            query[j] = j < dimension ? vex_test_normal(&random) : 0;
        }
        for (size_t i = 0; i < ROWS; i++) {
            size_t misalignment = vex_test_below(&random, 64);
            memory[i] = malloc(misalignment + dimension * sizeof(float));
            for (size_t j = 0; j < dimension; j++) {
                float value = vex_test_normal(&random);
                memcpy(memory[i] + misalignment + j * sizeof value, &value, sizeof value);
            }
            rows[i] = memory[i] + misalignment;
        }
        for (size_t v = 0; v < variant_count; v++) {
            const vexi_kernels *kernels = variants[v].kernels;
            for (measure what = L2; what <= DOT; what++) {
                float out[ROWS + 1], alone;
                out[count] = 12345;
                (what == L2 ? kernels->l2_rows : kernels->dot_rows)(query, rows, count, dimension,
                                                                    out);
                CHECK(out[count] == 12345);
                for (size_t i = 0; i < count; i++) {
                    (what == L2 ? kernels->l2 : kernels->dot)(query, rows[i], 0, 1, dimension,
                                                              &alone);
                    CHECK(memcmp(&alone, &out[i], sizeof alone) == 0);
                }
            }
        }
        for (size_t i = 0; i < ROWS; i++) {
            free(memory[i]);
        }
    }
    free(query);
}

TEST(overflow_is_infinite) {
    variant variants[8];
    size_t variant_count = list_variants(variants);
    for (size_t v = 0; v < variant_count; v++) {
        for (uint32_t dimension = 1; dimension <= 40; dimension++) {
            float query[48] = {0}, row[40], out;
            for (size_t j = 0; j < dimension; j++) {
                query[j] = FLT_MAX;
                row[j] = -FLT_MAX;
            }
            const vexi_kernels *kernels = variants[v].kernels;
            kernels->l2(query, (const uint8_t *)row, sizeof row, 1, dimension, &out);
            CHECK(out == INFINITY);
            kernels->dot(query, (const uint8_t *)row, sizeof row, 1, dimension, &out);
            CHECK(out == -INFINITY);
            kernels->norm((const uint8_t *)row, sizeof row, 1, dimension, &out);
            CHECK(out == INFINITY);
        }
    }
}

static void check_matrix(const variant *v, size_t a_count, size_t b_count, uint32_t dimension,
                         size_t out_gap, uint64_t *random) {
    size_t out_stride = b_count + out_gap;
    float *a = malloc((a_count * dimension + 1) * sizeof *a);
    float *b = malloc((b_count * dimension + 1) * sizeof *b);
    float *out = malloc((a_count * out_stride + 1) * sizeof *out);
    /* Off by one float where the count is odd: aligned to 4 bytes only. */
    float *a_rows = a + a_count % 2, *b_rows = b + b_count % 2;
    for (size_t i = 0; i < a_count * dimension; i++) {
        a_rows[i] = vex_test_normal(random);
    }
    for (size_t i = 0; i < b_count * dimension; i++) {
        b_rows[i] = vex_test_normal(random);
    }
    for (size_t i = 0; i < a_count * out_stride; i++) {
        out[i] = 12345;
    }
    v->kernels->dot_matrix(a_rows, a_count, b_rows, b_count, dimension, out, out_stride);
    for (size_t i = 0; i < a_count; i++) {
        for (size_t j = 0; j < b_count; j++) {
            const uint8_t *row = (const uint8_t *)(b_rows + j * dimension);
            double scale, wanted = reference(DOT, a_rows + i * dimension, row, dimension, &scale);
            check_close(v->name, DOT, out[i * out_stride + j], wanted, scale, dimension);
        }
        for (size_t j = b_count; j < out_stride; j++) {
            CHECK(out[i * out_stride + j] == 12345);
        }
    }
    free(a);
    free(b);
    free(out);
}

TEST(matrix_matches_reference) {
    uint64_t random = vex_test_seed(2);
    variant variants[8];
    size_t variant_count = list_variants(variants);
    for (size_t v = 0; v < variant_count; v++) {
        for (size_t a_count = 0; a_count <= 27; a_count++) {
            for (size_t b_count = 0; b_count <= 35; b_count++) {
                uint32_t dimension = 1 + (uint32_t)vex_test_below(&random, 40);
                check_matrix(&variants[v], a_count, b_count, dimension, vex_test_below(&random, 3),
                             &random);
            }
        }
        static const uint32_t dimensions[] = {128, 255, 256, 257, 384, 513, 1000};
        for (size_t d = 0; d < sizeof dimensions / sizeof dimensions[0]; d++) {
            check_matrix(&variants[v], 5 + vex_test_below(&random, 30),
                         60 + vex_test_below(&random, 80), dimensions[d], 0, &random);
        }
    }
}

/* All variants give what the scalar loop gives, bit for bit; few distinct values, so many ties. */
TEST(least_matches_scalar) {
    uint64_t random = vex_test_seed(4);
    variant variants[8];
    size_t variant_count = list_variants(variants);
    for (size_t trial = 0; trial < 3000; trial++) {
        size_t count = trial % 100;
        float *bias = malloc((count + 1) * sizeof *bias);
        float *products = malloc((count + 1) * sizeof *products);
        uint64_t values = 1 + vex_test_below(&random, 200);
        for (size_t j = 0; j < count; j++) {
            bias[j] = (float)vex_test_below(&random, values);
            products[j] = trial % 9 == 5 && j % 3 == 0 ? NAN : (float)vex_test_below(&random, 5);
            if (trial % 11 == 7 && j % 5 == 2) {
                bias[j] = products[j] = INFINITY;
            }
        }
        float start = trial % 3 == 0 ? (float)vex_test_below(&random, values) : INFINITY;
        float wanted = start;
        uint32_t wanted_index = 777;
        vexi_kernels_named("scalar")->least(bias, products, count, &wanted, &wanted_index);
        CHECK(wanted_index == 777 || bias[wanted_index] - products[wanted_index] == wanted);
        for (size_t j = 0; j < count; j++) {
            CHECK(!(bias[j] - products[j] < wanted));
            CHECK(j >= wanted_index || bias[j] - products[j] != wanted || wanted_index == 777);
        }
        for (size_t v = 0; v < variant_count; v++) {
            float best = start;
            uint32_t index = 777;
            variants[v].kernels->least(bias, products, count, &best, &index);
            CHECK(best == wanted);
            CHECK_EQ(index, wanted_index);
        }
        free(bias);
        free(products);
    }
}

/* By all variants: the values at most a limit, and their bits. */
TEST(up_to_counts_and_marks) {
    uint64_t random = vex_test_seed(9);
    variant variants[8];
    size_t variant_count = list_variants(variants);
    for (size_t trial = 0; trial < 2000; trial++) {
        size_t count = trial % 333, words = (count + 63) / 64, wanted = 0;
        float *values = malloc((count + 1) * sizeof *values);
        uint64_t *bits = malloc((words + 1) * sizeof *bits);
        float most = trial % 17 == 3 ? INFINITY : (float)vex_test_below(&random, 10);
        for (size_t i = 0; i < count; i++) {
            values[i] = (float)vex_test_below(&random, 10);
            if (trial % 5 == 2 && i % 7 == 4) {
                values[i] = i % 2 == 0 ? NAN : i % 3 == 0 ? INFINITY : -INFINITY;
            }
            wanted += values[i] <= most ? 1 : 0;
        }
        for (size_t v = 0; v < variant_count; v++) {
            memset(bits, 0xa5, (words + 1) * sizeof *bits);
            CHECK_EQ(variants[v].kernels->up_to(values, count, most, NULL), wanted);
            CHECK_EQ(variants[v].kernels->up_to(values, count, most, bits), wanted);
            for (size_t i = 0; i < words * 64; i++) {
                bool marked = (bits[i / 64] >> i % 64 & 1) != 0;
                CHECK_EQ(marked, i < count && values[i] <= most);
            }
            CHECK_EQ(bits[words], UINT64_C(0xa5a5a5a5a5a5a5a5));
        }
        free(values);
        free(bits);
    }
}

TEST(distance_is_exact) {
    uint64_t random = vex_test_seed(3);
    for (uint32_t dimension = 1; dimension < 200; dimension += 7) {
        float q[200];
        uint8_t memory[801];
        uint8_t *row = memory + 1;
        double square = 0, dot = 0, qq = 0, xx = 0;
        for (size_t j = 0; j < dimension; j++) {
            q[j] = vex_test_normal(&random);
            float x = vex_test_normal(&random);
            memcpy(row + 4 * j, &x, 4);
            square += ((double)q[j] - x) * ((double)q[j] - x);
            dot += (double)q[j] * x;
            qq += (double)q[j] * q[j];
            xx += (double)x * x;
        }
        CHECK(vexi_distance(VEX_METRIC_L2, q, row, dimension) == square);
        CHECK(vexi_distance(VEX_METRIC_IP, q, row, dimension) == -dot);
        double cosine = vexi_distance(VEX_METRIC_COSINE, q, row, dimension);
        CHECK(fabs(cosine - (1 - dot / sqrt(qq) / sqrt(xx))) < 1e-14);
        CHECK(vexi_distance(VEX_METRIC_COSINE, q, (const uint8_t *)q, dimension) == 0);
        CHECK(vexi_distance(VEX_METRIC_L2, q, (const uint8_t *)q, dimension) == 0);
    }
    /* Extreme scales and the zero vector. */
    const float scales[] = {FLT_TRUE_MIN, FLT_MIN, 1e-20f, 1, 1e20f, FLT_MAX / 4};
    const float zero[2] = {0, -0.0f};
    for (size_t i = 0; i < 6; i++) {
        const float a[2] = {scales[i], 0}, b[2] = {scales[i], scales[i]};
        const uint8_t *row = (const uint8_t *)b;
        CHECK(fabs(vexi_distance(VEX_METRIC_COSINE, a, row, 2) - (1 - sqrt(0.5))) < 1e-14);
        CHECK(vexi_distance(VEX_METRIC_COSINE, a, (const uint8_t *)zero, 2) == 1);
        CHECK(!signbit(vexi_distance(VEX_METRIC_IP, a, (const uint8_t *)zero, 2)));
    }
    const float up[1] = {3}, down[1] = {-5};
    CHECK(vexi_distance(VEX_METRIC_COSINE, up, (const uint8_t *)down, 1) == 2);
}

TEST(finite) {
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    uint8_t memory[4 * 70 + 1];
    for (uint32_t dimension = 1; dimension <= 70; dimension++) {
        float value = dimension % 2 == 0 ? FLT_MAX : -FLT_TRUE_MIN;
        for (size_t j = 0; j < dimension; j++) {
            memcpy(memory + 1 + 4 * j, &value, 4);
        }
        CHECK(vexi_vector_finite(memory + 1, dimension));
        for (size_t j = 0; j < dimension; j++) {
            memcpy(memory + 1 + 4 * j, &bad[j % 4], 4);
            CHECK(!vexi_vector_finite(memory + 1, dimension));
            memcpy(memory + 1 + 4 * j, &value, 4);
        }
    }
}

TEST(chosen_variant) {
    const char *forced = getenv("VEXLAKE_KERNEL");
    const vexi_kernels *kernels = vexi_kernels_get();
    printf("    %s\n", kernels->name);
    CHECK(kernels == vexi_kernels_get());
    CHECK(kernels == vexi_kernels_named(kernels->name));
    if (forced != NULL && vexi_kernels_named(forced) != NULL) {
        CHECK(kernels == vexi_kernels_named(forced));
    }
    CHECK(vexi_kernels_named("scalar") != NULL);
    CHECK(vexi_kernels_named("sse9") == NULL);
    CHECK(vexi_kernels_named("") == NULL);
}

TEST_MAIN(RUN(rows_match_reference); RUN(scattered_rows_match); RUN(overflow_is_infinite);
          RUN(matrix_matches_reference); RUN(least_matches_scalar); RUN(up_to_counts_and_marks);
          RUN(distance_is_exact); RUN(finite); RUN(chosen_variant))
