/* Encoding: rows of a list to one-bit codes in blocks, and to refinement records.
 *
 * Both codes of a row are a vector y (of signs, or of odd halves) near the direction of its rotated
 * residual r; the estimate of <r, v> is <y, v> |r|^2 / <y, r>, which is exact for v along r. Across
 * r it adds a random part: with rho = <y, r> / (|y| |r|), y / |y| is rho r / |r| plus
 * sqrt(1 - rho^2) times a direction that the rotation makes uniform, so its deviation is
 * |r| |v| sqrt(1 / rho^2 - 1) / sqrt(D - 1). A factor of |scale| = 2 |r|^2 / <y, r> taken out
 * leaves |y| sqrt(1 - rho^2) / sqrt(D - 1), the error that a list keeps the largest of.
 *
 * The levels of a record are a uniform grid whose width is the only choice. Its best value hardly
 * depends on the row, since the rotation makes coordinates all but normal: the encoder tries a few
 * widths around it and takes the one with the largest rho. The exact search of Gao et al. 2025 over
 * all widths would gain less than a hundredth of the error at 4 bits.
 *
 * Rows whose numbers leave the range of float32 get a bound of minus infinity: they survive every
 * scan and are compared exactly. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "index/code_internal.h"

/* Partial sums are kept by lane, so that the compiler may use registers of any width up to this
 * without changing the result. */
#define LANES 16u

static const float stretches[] = {0.82f, 0.91f, 1.0f, 1.12f, VEXI_CODE_STRETCH};

vexi_code_layout vexi_code_layout_of(vex_metric metric, uint32_t dimension, uint32_t bits) {
    VEX_ASSERT(bits == 1 || bits == 4 || bits == 8);
    uint32_t padded = vexi_code_padded(dimension);
    return (vexi_code_layout){
        .metric = metric,
        .dimension = dimension,
        .padded = padded,
        .bits = bits,
        .block_size = vexi_code_block_size(padded),
        .record_size = vexi_code_record_size(padded, bits),
    };
}

uint64_t vexi_code_list_size(const vexi_code_layout *layout, uint64_t row_count) {
    uint64_t blocks = (row_count + VEXI_CODE_BLOCK_ROWS - 1) / VEXI_CODE_BLOCK_ROWS;
    uint64_t size = blocks * layout->block_size + row_count * layout->record_size;
    return (size + 63) / 64 * 64;
}

static double add_lanes(const float *lanes) {
    double sum = 0;
    for (uint32_t l = 0; l < LANES; l++) {
        sum += (double)lanes[l];
    }
    return sum;
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void put_float(uint8_t *out, float value) {
    vexi_put_u32(out, bits_of(value));
}

/* What the code y of a residual amounts to: sums over its coordinates. */
typedef struct code_sums {
    double square;   /* <y, y> */
    double residual; /* <y, r> */
    double center;   /* <y, P(c - o)> */
} code_sums;

typedef struct factors {
    float add, scale;
    float error;
} factors;

/* constant: what the metric adds to |r|^2. */
static factors factors_of(const code_sums *sums, double square, double constant, vex_metric metric,
                          uint32_t padded) {
    factors out = {0};
    double scale = 0;
    if (sums->residual > 0) {
        scale = -2 * square / sums->residual;
        double rho_square = sums->residual * sums->residual / (sums->square * square);
        if (rho_square < 1) {
            out.error = (float)sqrt(sums->square * (1 - rho_square) / (padded - 1));
        }
    }
    double share = metric == VEX_METRIC_L2 ? 1.0 : 0.5;
    out.scale = (float)(share * scale);
    out.add = (float)(share * (square + constant - scale * sums->center));
    /* A residual too small to square has no direction either; a sum that overflowed is infinite. */
    bool lost = square < (double)0x1p-100f && square > 0;
    if (lost || !isfinite(out.scale) || !isfinite(out.add) || !isfinite(out.error)) {
        out = (factors){.add = -INFINITY};
    }
    return out;
}

/* The one-bit code of a row into its block: bit set for a clear sign. */
static void encode_signs(const float *residual, const float *center, uint32_t padded, uint32_t slot,
                         uint8_t *block, code_sums *sums, double *square) {
    float squares[LANES] = {0}, absolutes[LANES] = {0}, centers[LANES] = {0};
    uint8_t *out = block + slot % 16;
    uint32_t shift = slot / 16 * 4;
    for (uint32_t i = 0; i < padded; i += LANES) {
        uint32_t signs[LANES];
        for (uint32_t l = 0; l < LANES; l++) {
            float value = residual[i + l];
            signs[l] = bits_of(value) & 0x80000000u;
            squares[l] += value * value;
            absolutes[l] += fabsf(value);
            centers[l] += float_of(bits_of(center[i + l]) ^ signs[l]);
        }
        for (uint32_t g = 0; g < LANES; g += 4, out += 16) {
            uint32_t nibble =
                (signs[g] | signs[g + 1] >> 1 | signs[g + 2] >> 2 | signs[g + 3] >> 3) >> 28;
            /* The first dimension's sign is now the highest of four bits: turn them round. */
            uint32_t turned = ~(0xf7b3d591e6a2c480u >> (nibble * 4)) & 15u;
            *out |= (uint8_t)(turned << shift);
        }
    }
    *square = add_lanes(squares);
    *sums = (code_sums){
        .square = padded, .residual = add_lanes(absolutes), .center = add_lanes(centers)};
}

/* <y, r>^2 / <y, y> of the levels at a width, and nothing else. */
static double try_levels(const float *residual, uint32_t padded, float steps, int32_t top) {
    float dots[LANES] = {0}, squares[LANES] = {0};
    for (uint32_t i = 0; i < padded; i += LANES) {
        for (uint32_t l = 0; l < LANES; l++) {
            float value = fabsf(residual[i + l]);
            int32_t step = (int32_t)(value * steps);
            float level = (float)(step < top ? step : top) + 0.5f;
            dots[l] += value * level;
            squares[l] += level * level;
        }
    }
    double dot = add_lanes(dots);
    return dot * dot / add_lanes(squares);
}

/* The record's codes, one a byte, for a residual of finite positive length. */
static void encode_levels(const float *residual, const float *center, uint32_t padded,
                          uint32_t bits, double square, uint8_t *codes, code_sums *sums) {
    int32_t top = (1 << (bits - 1)) - 1;
    float unit = (float)((double)vexi_code_steps(bits) / sqrt(square / padded));
    float steps = unit;
    double best = -1;
    for (size_t i = 0; i < sizeof stretches / sizeof *stretches; i++) {
        double found = try_levels(residual, padded, unit * stretches[i], top);
        if (found > best) {
            best = found;
            steps = unit * stretches[i];
        }
    }
    float dots[LANES] = {0}, squares[LANES] = {0}, centers[LANES] = {0};
    for (uint32_t i = 0; i < padded; i += LANES) {
        for (uint32_t l = 0; l < LANES; l++) {
            float value = residual[i + l];
            int32_t step = (int32_t)(fabsf(value) * steps);
            step = step < top ? step : top;
            /* -1 - step for a set sign: the levels below the middle, mirrored. */
            int32_t mirror = -(int32_t)(bits_of(value) >> 31);
            int32_t code = (step ^ mirror) + top + 1;
            float level = (float)(step ^ mirror) + 0.5f;
            codes[i + l] = (uint8_t)code;
            dots[l] += value * level;
            squares[l] += level * level;
            centers[l] += center[i + l] * level;
        }
    }
    *sums = (code_sums){
        .square = add_lanes(squares), .residual = add_lanes(dots), .center = add_lanes(centers)};
}

static void put_record(const factors *f, const uint8_t *codes, uint32_t padded, uint32_t bits,
                       uint8_t *out) {
    put_float(out, f->add);
    put_float(out + 4, f->scale);
    out += 8;
    if (bits == 8) {
        memcpy(out, codes, padded);
        return;
    }
    for (uint32_t i = 0; i < padded; i += 64, out += 32) {
        for (uint32_t j = 0; j < 32; j++) {
            out[j] = (uint8_t)(codes[i + j] | codes[i + 32 + j] << 4);
        }
    }
}

/* Where a list's bytes go. */
typedef struct list_writer {
    const vexi_code_layout *layout;
    const float *center; /* P(c - o) */
    uint8_t *blocks;
    uint8_t *records; /* NULL for bits 1 */
    uint8_t *codes;   /* padded bytes of scratch */
    float error, record_error;
} list_writer;

static void begin_list(list_writer *writer, const vexi_code_layout *layout, uint32_t row_count,
                       const float *center, uint8_t *out, uint8_t *codes) {
    uint32_t block_count = (row_count + VEXI_CODE_BLOCK_ROWS - 1) / VEXI_CODE_BLOCK_ROWS;
    uint8_t *records = out + block_count * layout->block_size;
    *writer = (list_writer){.layout = layout,
                            .center = center,
                            .blocks = out,
                            .records = layout->record_size > 0 ? records : NULL,
                            .codes = codes};
    memset(out, 0, (size_t)(records - out));
    size_t end = (size_t)vexi_code_list_size(layout, row_count);
    size_t used = block_count * layout->block_size + row_count * layout->record_size;
    memset(out + used, 0, end - used);
    for (uint32_t row = row_count; row < block_count * VEXI_CODE_BLOCK_ROWS; row++) {
        uint8_t *block = out + row / VEXI_CODE_BLOCK_ROWS * layout->block_size;
        size_t slot = row % VEXI_CODE_BLOCK_ROWS;
        put_float(block + (size_t)layout->padded * 4 + slot * sizeof(float), INFINITY);
    }
}

/* residual: r, padded values; row_square: |x|^2, for other metrics than L2. */
static void write_row(list_writer *writer, uint32_t row, const float *residual, double row_square) {
    const vexi_code_layout *layout = writer->layout;
    uint32_t padded = layout->padded;
    uint8_t *block = writer->blocks + row / VEXI_CODE_BLOCK_ROWS * layout->block_size;
    uint32_t slot = row % VEXI_CODE_BLOCK_ROWS;
    double constant = 0, square;
    if (layout->metric == VEX_METRIC_COSINE) {
        constant = 1 - row_square; /* 0, but 1 for a zero row, whose distance is 1 */
    } else if (layout->metric == VEX_METRIC_IP) {
        constant = -row_square;
    }
    code_sums sums;
    encode_signs(residual, writer->center, padded, slot, block, &sums, &square);
    factors f = factors_of(&sums, square, constant, layout->metric, padded);
    uint8_t *numbers = block + (size_t)padded * 4 + slot * sizeof(float);
    put_float(numbers, f.add);
    put_float(numbers + VEXI_CODE_BLOCK_ROWS * sizeof(float), f.scale);
    writer->error = f.error > writer->error ? f.error : writer->error;
    if (writer->records == NULL) {
        return;
    }
    if (f.scale != 0.0f) {
        encode_levels(residual, writer->center, padded, layout->bits, square, writer->codes, &sums);
        f = factors_of(&sums, square, constant, layout->metric, padded);
        writer->record_error = f.error > writer->record_error ? f.error : writer->record_error;
    } else {
        memset(writer->codes, 0, padded); /* no direction, or no use for one */
    }
    put_record(&f, writer->codes, padded, layout->bits,
               writer->records + row * layout->record_size);
}

void vexi_code_encode_rotated(const vexi_code_layout *layout, const float *const *rows,
                              const float *squares, uint32_t row_count, const float *center,
                              uint8_t *out, float *error, float *record_error, float *scratch) {
    uint32_t padded = layout->padded;
    list_writer writer;
    float *residual = scratch;
    begin_list(&writer, layout, row_count, center, out, (uint8_t *)(scratch + padded));
    for (uint32_t row = 0; row < row_count; row++) {
        for (uint32_t i = 0; i < padded; i++) {
            residual[i] = rows[row][i] - center[i];
        }
        write_row(&writer, row, residual,
                  layout->metric == VEX_METRIC_L2 ? 0.0 : (double)squares[row]);
    }
    *error = writer.error;
    *record_error = writer.record_error;
}

/* |x|^2; in double, which no row's length overflows. */
static double square_of(const float *row, uint32_t dimension) {
    double sum = 0;
    for (uint32_t i = 0; i < dimension; i++) {
        sum += (double)row[i] * (double)row[i];
    }
    return sum;
}

void vexi_code_encode_around(const vexi_code_layout *layout, const vexi_rotation *rotation,
                             const float *const *rows, uint32_t row_count, const float *center,
                             const float *origin_rotated, uint8_t *out, float *error,
                             float *record_error, float *scratch) {
    uint32_t padded = layout->padded, dimension = layout->dimension;
    float *moved = scratch, *residual = scratch + padded, *from = scratch + (size_t)2 * padded;
    list_writer writer;
    vexi_rotate(rotation, center, from);
    for (uint32_t i = 0; i < padded; i++) {
        from[i] -= origin_rotated[i];
    }
    begin_list(&writer, layout, row_count, from, out, (uint8_t *)(scratch + (size_t)3 * padded));
    for (uint32_t row = 0; row < row_count; row++) {
        const float *values = rows[row];
        double square = 0, unit = 1;
        if (layout->metric != VEX_METRIC_L2) {
            square = square_of(values, dimension);
        }
        if (layout->metric == VEX_METRIC_COSINE && square > 0) {
            unit = 1 / sqrt(square);
            square = 1;
            for (uint32_t i = 0; i < dimension; i++) {
                moved[i] = (float)((double)values[i] * unit) - center[i];
            }
        } else {
            for (uint32_t i = 0; i < dimension; i++) {
                moved[i] = values[i] - center[i];
            }
        }
        vexi_rotate(rotation, moved, residual);
        write_row(&writer, row, residual, square);
    }
    *error = writer.error;
    *record_error = writer.record_error;
}

void vexi_code_encode(const vexi_code_layout *layout, const vexi_rotation *rotation,
                      const float *const *rows, uint32_t row_count, const float *center,
                      const float *origin, uint8_t *out, float *error, float *record_error,
                      float *scratch) {
    float *origin_rotated = scratch + (size_t)4 * layout->padded;
    vexi_rotate(rotation, origin, origin_rotated);
    vexi_code_encode_around(layout, rotation, rows, row_count, center, origin_rotated, out, error,
                            record_error, scratch);
}
