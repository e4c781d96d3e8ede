/* The kernels over codes and the Walsh-Hadamard transform, every variant by name, against a
 * reference of exact sums in double precision. */
#include <float.h>
#include <math.h>

#include "kernel_variants.h"

static const uint32_t dimensions[] = {1,    63,   64,   65,   127,  128,  129,  200,  256,
                                      300,  384,  511,  700,  768,  960,  1023, 1024, 1025,
                                      1087, 1100, 1536, 2047, 2048, 2049, 3072, 4001, 4096};
enum { DIMENSIONS = sizeof dimensions / sizeof dimensions[0] };

static float read_float(const uint8_t *p) {
    float value;
    memcpy(&value, p, sizeof value);
    return value;
}

/* The result from an exact sum, and in *error how far a float32 may be from it. */
static double reference(double add, double scale, double unit, double base, double sum,
                        double *error) {
    double size = fabs(add) + fabs(scale) * (fabs(unit * sum) + fabs(base));
    *error = isfinite(size) ? 4 * ldexp(size, -24) + 4 * (double)FLT_TRUE_MIN : 0;
    return add + scale * (unit * sum + base);
}

static void check_near(const char *name, const char *what, uint32_t padded, size_t at, float got,
                       double wanted, double error) {
    bool same = isinf(wanted) ? (double)got == wanted : fabs((double)got - wanted) <= error;
    if (!same) {
        fprintf(stderr, "%s, %s, %u dimensions, at %zu: %.9g, not %.9g (bound %g)\n", name, what,
                padded, at, (double)got, wanted, error);
        exit(1);
    }
}

typedef enum filling { RANDOM, GREATEST, LEAST, INFINITE, FILLINGS } filling;

/* Random codes, or all bits set, or clear; random tables, or all 255. Some slots of INFINITE have
 * an infinite `add`, as slots without a row have. */
static uint8_t *make_blocks(uint32_t padded, size_t block_count, filling how, uint64_t *random) {
    size_t size = vexi_code_block_size(padded);
    /* Exactly as long as the blocks, so that the address sanitizer sees a read past the last. */
    uint8_t *blocks = aligned_alloc(64, block_count * size + (block_count == 0 ? 64 : 0));
    for (size_t b = 0; b < block_count; b++) {
        uint8_t *block = blocks + b * size;
        for (size_t i = 0; i < 4 * (size_t)padded; i++) {
            block[i] = how == GREATEST ? 255 : how == LEAST ? 0 : (uint8_t)vex_test_random(random);
        }
        for (size_t i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
            float add = vex_test_normal(random) * 10, scale = vex_test_normal(random);
            if (how == INFINITE && vex_test_below(random, 3) == 0) {
                add = INFINITY;
            }
            memcpy(block + 4 * padded + 4 * i, &add, 4);
            memcpy(block + 4 * padded + 128 + 4 * i, &scale, 4);
        }
    }
    return blocks;
}

/* The sum for row `row`, from the layout in kernel.h. */
static uint32_t block_sum(const uint8_t *block, uint32_t padded, const uint8_t *table, size_t row) {
    uint32_t sum = 0;
    for (size_t g = 0; g < padded / 4; g++) {
        unsigned pair = block[16 * g + row % 16];
        sum += table[16 * g + (row < 16 ? pair % 16 : pair / 16)];
    }
    return sum;
}

static void check_blocks(const variant *v, const uint8_t *blocks, size_t block_count,
                         uint32_t padded, const uint8_t *table, float unit, float base,
                         float limit) {
    enum { MOST = 9 };
    float out[(MOST + 1) * VEXI_CODE_BLOCK_ROWS];
    uint32_t masks[MOST + 1];
    for (size_t i = 0; i < sizeof out / sizeof out[0]; i++) {
        out[i] = 12345;
    }
    masks[block_count] = 12345;
    v->kernels->estimate_codes(blocks, block_count, padded, table, unit, base, out);
    v->kernels->scan_codes(blocks, block_count, padded, table, unit, base, limit, masks);
    CHECK_EQ(masks[block_count], 12345);
    CHECK(out[block_count * VEXI_CODE_BLOCK_ROWS] == 12345);
    for (size_t b = 0; b < block_count; b++) {
        const uint8_t *block = blocks + b * vexi_code_block_size(padded);
        for (size_t i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
            float add = read_float(block + 4 * padded + 4 * i);
            float scale = read_float(block + 4 * padded + 128 + 4 * i), got = out[32 * b + i];
            double error, wanted = reference(add, scale, unit, base,
                                             block_sum(block, padded, table, i), &error);
            check_near(v->name, "estimate", padded, 32 * b + i, got, wanted, error);
            bool survives = masks[b] >> i & 1;
            CHECK(!survives || wanted - error < limit);
            CHECK(survives || wanted + error >= limit);
            CHECK(!(survives && isinf(add)));
            CHECK(survives == (got < limit)); /* one variant is of one mind */
        }
    }
}

TEST(blocks_match_reference) {
    uint64_t random = vex_test_seed(1);
    variant variants[8];
    size_t variant_count = list_variants(variants);
    for (size_t v = 0; v < variant_count; v++) {
        printf("    %s\n", variants[v].name);
        for (size_t d = 0; d < DIMENSIONS; d++) {
            uint32_t padded = vexi_code_padded(dimensions[d]);
            uint8_t *table = aligned_alloc(64, 4 * (size_t)padded);
            for (filling how = RANDOM; how < FILLINGS; how++) {
                size_t block_count = (d + how) % 8;
                uint8_t *blocks = make_blocks(padded, block_count, how, &random);
                for (size_t i = 0; i < 4 * (size_t)padded; i++) {
                    table[i] = how == GREATEST ? 255 : (uint8_t)vex_test_random(&random);
                }
                float unit = vex_test_normal(&random) / 100, base = vex_test_normal(&random);
                float limits[] = {vex_test_normal(&random) * 10, INFINITY, -INFINITY, 0};
                for (size_t l = 0; l < 4; l++) {
                    check_blocks(&variants[v], blocks, block_count, padded, table, unit, base,
                                 limits[l]);
                }
                free(blocks);
            }
            free(table);
        }
    }
}

/* A unit and scale of one: the sums themselves, exact in float32. Every value of every byte at
 * every place counts once. */
TEST(block_sums_are_exact) {
    uint64_t random = vex_test_seed(2);
    variant variants[8];
    size_t variant_count = list_variants(variants);
    for (uint32_t padded = 64; padded <= 4096; padded += padded < 2112 ? 64 : 992 / 64 * 64) {
        uint8_t *blocks = make_blocks(padded, 2, RANDOM, &random);
        uint8_t *table = aligned_alloc(64, 4 * (size_t)padded);
        for (size_t i = 0; i < 4 * (size_t)padded; i++) {
            table[i] = vex_test_below(&random, 2) == 0 ? 255 : (uint8_t)vex_test_random(&random);
        }
        for (size_t b = 0; b < 2; b++) {
            for (size_t i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
                uint8_t *block = blocks + b * vexi_code_block_size(padded);
                float zero = 0, one = 1;
                memcpy(block + 4 * padded + 4 * i, &zero, 4);
                memcpy(block + 4 * padded + 128 + 4 * i, &one, 4);
            }
        }
        for (size_t v = 0; v < variant_count; v++) {
            float out[2 * VEXI_CODE_BLOCK_ROWS];
            uint32_t masks[2];
            variants[v].kernels->estimate_codes(blocks, 2, padded, table, 1, 0, out);
            for (size_t i = 0; i < 2 * VEXI_CODE_BLOCK_ROWS; i++) {
                size_t b = i / VEXI_CODE_BLOCK_ROWS;
                const uint8_t *block = blocks + b * vexi_code_block_size(padded);
                CHECK(out[i] == (float)block_sum(block, padded, table, i % VEXI_CODE_BLOCK_ROWS));
            }
            /* The limit itself is not below it. */
            variants[v].kernels->scan_codes(blocks, 2, padded, table, 1, 0, out[37], masks);
            CHECK((masks[1] >> 5 & 1) == 0);
            variants[v].kernels->scan_codes(blocks, 2, padded, table, 1, 0, out[37] + 1, masks);
            CHECK((masks[1] >> 5 & 1) == 1);
        }
        free(blocks);
        free(table);
    }
}

static double record_sum(const uint8_t *codes, uint32_t padded, uint32_t bits, const void *levels) {
    int64_t sum = 0;
    for (size_t d = 0; d < padded; d++) {
        if (bits == 4) {
            unsigned pair = codes[d / 64 * 32 + d % 32];
            sum += (int64_t)(d % 64 < 32 ? pair % 16 : pair / 16) * ((const int8_t *)levels)[d];
        } else {
            sum += (int64_t)codes[d] * ((const int16_t *)levels)[d];
        }
    }
    return (double)sum;
}

static void check_records(const variant *v, uint32_t padded, uint32_t bits, size_t count,
                          filling how, uint64_t *random) {
    enum { RECORDS = 23, MOST = 40 };
    size_t size = vexi_code_record_size(padded, bits);
    size_t stride = (size + 7) / 8 * 8 + 8 * vex_test_below(random, 3);
    uint8_t *records = malloc((RECORDS - 1) * stride + size);
    memset(records, 0xff, (RECORDS - 1) * stride + size);
    for (size_t r = 0; r < RECORDS; r++) {
        uint8_t *record = records + r * stride;
        float add = vex_test_normal(random), scale = vex_test_normal(random);
        memcpy(record, &add, 4);
        memcpy(record + 4, &scale, 4);
        for (size_t i = 8; i < size; i++) {
            record[i] = how == GREATEST || how == LEAST ? 255 : (uint8_t)vex_test_random(random);
        }
    }
    void *levels = aligned_alloc(64, (size_t)padded * 2);
    int most = (int)(INT32_MAX / (255 * (int64_t)padded));
    most = most > INT16_MAX ? INT16_MAX : most;
    for (size_t d = 0; d < padded; d++) {
        int small = how == GREATEST ? 127 : how == LEAST ? -128 : (int)vex_test_below(random, 256);
        int large = how == GREATEST ? most
                    : how == LEAST  ? -most
                                    : (int)vex_test_below(random, 2u * (uint64_t)most + 1) - most;
        if (bits == 4) {
            ((int8_t *)levels)[d] = (int8_t)(small > 127 ? small - 256 : small);
        } else {
            ((int16_t *)levels)[d] = (int16_t)large;
        }
    }
    uint32_t picks[MOST];
    float out[MOST + 1], unit = vex_test_normal(random) / 1000, base = vex_test_normal(random);
    for (size_t i = 0; i < count; i++) {
        picks[i] = (uint32_t)vex_test_below(random, RECORDS);
    }
    out[count] = 12345;
    v->kernels->refine_codes(records, stride, picks, count, padded, bits, levels, unit, base, out);
    CHECK(out[count] == 12345);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *record = records + picks[i] * stride;
        double error, wanted = reference(read_float(record), read_float(record + 4), unit, base,
                                         record_sum(record + 8, padded, bits, levels), &error);
        check_near(v->name, bits == 4 ? "4 bits" : "8 bits", padded, i, out[i], wanted, error);
        /* The same bits whatever the neighbours. */
        float alone;
        v->kernels->refine_codes(records, stride, picks + i, 1, padded, bits, levels, unit, base,
                                 &alone);
        CHECK(memcmp(&alone, &out[i], sizeof alone) == 0);
    }
    free(levels);
    free(records);
}

TEST(records_match_reference) {
    uint64_t random = vex_test_seed(3);
    variant variants[8];
    size_t variant_count = list_variants(variants);
    for (size_t v = 0; v < variant_count; v++) {
        for (size_t d = 0; d < DIMENSIONS; d++) {
            for (uint32_t bits = 4; bits <= 8; bits += 4) {
                for (filling how = RANDOM; how < FILLINGS; how++) {
                    check_records(&variants[v], vexi_code_padded(dimensions[d]), bits,
                                  (d * 5 + how * 3) % 38, how, &random);
                }
            }
        }
        for (size_t count = 0; count <= 40; count++) {
            check_records(&variants[v], 64, count % 2 == 0 ? 4 : 8, count, RANDOM, &random);
        }
    }
}

/* All variants give the bits of the scalar loop, whatever the magnitudes; the scalar loop gives the
 * transform. */
TEST(hadamard_has_one_answer) {
    uint64_t random = vex_test_seed(4);
    variant variants[8];
    size_t variant_count = list_variants(variants);
    for (uint32_t count = 1; count <= 4096; count *= 2) {
        for (size_t trial = 0; trial < 20; trial++) {
            /* Exactly as long as the values and aligned to 4 bytes only. */
            size_t shift = 4 * vex_test_below(&random, 16), size = count * sizeof(float);
            uint8_t *memory[2] = {malloc(shift + size), malloc(shift + size)};
            float *wanted = (float *)(void *)(memory[0] + shift);
            float *values = (float *)(void *)(memory[1] + shift);
            float *start = malloc(size);
            for (size_t i = 0; i < count; i++) {
                start[i] = vex_test_normal(&random);
                if (trial % 4 == 1) {
                    start[i] *= powf(10, (float)vex_test_below(&random, 61) - 30);
                } else if (trial % 4 == 2) {
                    start[i] = vex_test_below(&random, 2) == 0 ? 0.0f : -0.0f;
                } else if (trial % 4 == 3) {
                    start[i] *= FLT_MIN;
                }
            }
            memcpy(wanted, start, size);
            vexi_kernels_named("scalar")->hadamard(wanted, count);
            for (size_t v = 0; v < variant_count; v++) {
                memcpy(values, start, size);
                variants[v].kernels->hadamard(values, count);
                CHECK(memcmp(values, wanted, size) == 0);
            }
            for (size_t i = 0; i < count; i += 1 + count / 32) {
                double sum = 0, scale = 0;
                for (size_t j = 0; j < count; j++) {
                    sum += __builtin_parityll(i & j) ? -(double)start[j] : (double)start[j];
                    scale += fabs((double)start[j]);
                }
                CHECK(fabs((double)wanted[i] - sum) <= 13 * ldexp(scale, -24));
            }
            free(memory[0]);
            free(memory[1]);
            free(start);
        }
    }
}

TEST_MAIN(RUN(blocks_match_reference); RUN(block_sums_are_exact); RUN(records_match_reference);
          RUN(hadamard_has_one_answer))
