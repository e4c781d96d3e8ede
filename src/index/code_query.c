/* Queries: the lookup table of one-bit scans and the levels of refinement.
 *
 * Both are the rotated query relative to the origin, w = P(q - o), in few bits. A table entry is
 * the sum of four coordinates with the signs of a nibble, less the least such sum, in units of
 * which the widest group needs 255: a group's offset goes into `base`, so that entries are unsigned
 * bytes. Rounding is off by at most half a unit, in groups independently of each other and of the
 * rows, so that a row's sum of padded / 4 entries has the deviation unit sqrt(padded / 48). The
 * levels of refinement are w in units of 1/127 of its largest coordinate (8-bit) or of what keeps
 * sums in 32 bits (16-bit); with y of root mean square at most Y (code_internal.h) a sum of
 * rounding errors has the deviation unit Y sqrt(padded / 12). table_error and level_error are three
 * of these deviations. They add to the codes' own errors as variances do. */
#include <math.h>
#include <string.h>

#include "index/code_internal.h"

/* Deviations of rounding errors that a bound covers. */
#define DEVIATIONS 3.0

/* Partial results are kept by lane: a chain of sums or maxima would wait for itself. */
enum { LANES = 8 };

/* Deviations of the codes' own errors that a bound covers. Each row that is wanted and lies near
 * the limit is lost with the probability of the normal tail, 3 % at 1.9, but hardly any lies so
 * near: recall at 10 on SIFT 200k (32 and 96 of 1,024 lists) is 0.9572 and 0.9923 for 1.2, 0.9595
 * and 0.9947 for 1.5, 0.9602 and 0.9956 for 1.9, 0.9603 and 0.9957 for 2.2; rows refined per query
 * are 110, 142, 198, 252. The value of the RaBitQ paper is where it levels off. */
#define EPSILON 1.9f

/* The query's values as lists and centres are compared with them. */
static double scaling_of(const vexi_code_layout *layout, double square, float row_length) {
    double scale = 1;
    if (layout->metric == VEX_METRIC_COSINE && square > 0) {
        scale = 1 / sqrt(square);
    } else if (layout->metric == VEX_METRIC_IP && square > 0 && row_length > 0) {
        scale = (double)row_length / sqrt(square);
    }
    return isfinite(scale) ? scale : 1;
}

static void make_table(const float *rotated, uint32_t padded, uint8_t *table, float *unit,
                       float *base) {
    float widest = 0;
    double sum = 0;
    for (uint32_t i = 0; i < padded; i += 4) {
        float spread = fabsf(rotated[i]) + fabsf(rotated[i + 1]) + fabsf(rotated[i + 2]) +
                       fabsf(rotated[i + 3]);
        widest = spread > widest ? spread : widest;
        sum += (double)spread;
    }
    *base = (float)-sum;
    *unit = widest * (2.0f / 255.0f);
    float inverse = 1.0f / *unit;
    if (!isfinite(inverse)) {
        memset(table, 0, (size_t)4 * padded); /* hardly a query at all: the error says so */
        return;
    }
    for (uint32_t i = 0; i < padded; i += 4, table += 16) {
        float low[4], high[4];
        float a = rotated[i] * inverse, b = rotated[i + 1] * inverse;
        float c = rotated[i + 2] * inverse, d = rotated[i + 3] * inverse;
        float least = fabsf(a) + fabsf(b) + fabsf(c) + fabsf(d) + 0.5f; /* 0.5: to round */
        low[0] = least - a - b, low[1] = least + a - b, low[2] = least - a + b;
        low[3] = least + a + b;
        high[0] = -c - d, high[1] = c - d, high[2] = -c + d, high[3] = c + d;
        int32_t entries[16];
        for (uint32_t h = 0; h < 4; h++) {
            for (uint32_t l = 0; l < 4; l++) {
                entries[4 * h + l] = (int32_t)(low[l] + high[h]);
            }
        }
        for (uint32_t n = 0; n < 16; n++) {
            int32_t entry = entries[n] > 0 ? entries[n] : 0;
            table[n] = (uint8_t)(entry < 255 ? entry : 255);
        }
    }
}

static float largest_of(const float *values, uint32_t padded) {
    float sizes[LANES] = {0}, largest = 0;
    for (uint32_t i = 0; i < padded; i += LANES) {
        for (uint32_t l = 0; l < LANES; l++) {
            float size = fabsf(values[i + l]);
            sizes[l] = size > sizes[l] ? size : sizes[l];
        }
    }
    for (uint32_t l = 0; l < LANES; l++) {
        largest = sizes[l] > largest ? sizes[l] : largest;
    }
    return largest;
}

/* In double, which no length overflows. count: a multiple of LANES. */
static double square_of(const float *values, uint32_t count) {
    double sums[LANES] = {0}, sum = 0;
    for (uint32_t i = 0; i < count; i += LANES) {
        for (uint32_t l = 0; l < LANES; l++) {
            sums[l] += (double)values[i + l] * (double)values[i + l];
        }
    }
    for (uint32_t l = 0; l < LANES; l++) {
        sum += sums[l];
    }
    return sum;
}

static int32_t level_of(float value, float inverse, int32_t most) {
    float scaled = value * inverse;
    int32_t level = (int32_t)(scaled + (scaled < 0 ? -0.5f : 0.5f));
    level = level > most ? most : level;
    return level < -most ? -most : level;
}

/* Levels of the largest magnitude `most`. */
static void make_levels(const float *rotated, uint32_t padded, uint32_t bits, int32_t most,
                        void *levels, float *unit, float *base) {
    *unit = largest_of(rotated, padded) / (float)most;
    float inverse = 1.0f / *unit;
    inverse = isfinite(inverse) ? inverse : 0.0f;
    int32_t sum = 0; /* at most 4,096 x 32,767 */
    if (bits == 4) {
        int8_t *out = levels;
        for (uint32_t i = 0; i < padded; i++) {
            int32_t level = level_of(rotated[i], inverse, most);
            out[i] = (int8_t)level;
            sum += level;
        }
    } else {
        int16_t *out = levels;
        for (uint32_t i = 0; i < padded; i++) {
            int32_t level = level_of(rotated[i], inverse, most);
            out[i] = (int16_t)level;
            sum += level;
        }
    }
    *base = -vexi_code_half(bits) * *unit * (float)sum;
}

vex_status vexi_code_query_init(vexi_code_query *query, const vexi_code_layout *layout,
                                const vexi_rotation *rotation, const float *values,
                                const float *origin_rotated, float row_length, vexi_arena *arena,
                                vex_error *err) {
    uint32_t dimension = layout->dimension, padded = layout->padded;
    *query = (vexi_code_query){.layout = *layout, .epsilon = EPSILON, .to_scan = 1};
    size_t level_size = layout->bits == 4 ? 1 : 2;
    float *kept = vexi_arena_alloc_aligned(arena, 64, (size_t)padded * sizeof *kept);
    float *rotated = vexi_arena_alloc_aligned(arena, 64, (size_t)padded * sizeof *rotated);
    uint8_t *table = vexi_arena_alloc_aligned(arena, 64, (size_t)padded * 4);
    void *levels = vexi_arena_alloc_aligned(arena, 64, padded * level_size);
    if (kept == NULL || rotated == NULL || table == NULL || levels == NULL) {
        return vexi_no_memory(err, (size_t)padded * (2 * sizeof *kept + 4 + level_size));
    }
    memcpy(kept, values, dimension * sizeof *kept);
    memset(kept + dimension, 0, (padded - dimension) * sizeof *kept);
    double square = square_of(kept, padded);
    double scale = scaling_of(layout, square, row_length);
    for (uint32_t i = 0; layout->metric != VEX_METRIC_L2 && i < dimension; i++) {
        kept[i] = (float)((double)kept[i] * scale);
    }
    query->values = kept;
    query->square = (float)(square * scale * scale);
    query->to_scan = layout->metric == VEX_METRIC_IP ? (float)scale : 1.0f;
    vexi_rotate(rotation, kept, rotated);
    for (uint32_t i = 0; i < padded; i++) {
        rotated[i] -= origin_rotated[i];
    }
    query->origin_square = (float)square_of(rotated, padded);
    if (!isfinite(query->square) || !isfinite(query->origin_square)) {
        /* Distances leave the range of float32. With infinite errors every row survives. */
        query->origin_square = query->square = INFINITY;
        memset(rotated, 0, padded * sizeof *rotated);
    }
    make_table(rotated, padded, table, &query->unit, &query->base);
    query->table = table;
    query->table_error = query->unit * (float)(DEVIATIONS * sqrt(padded / 48.0));
    query->table_error = isfinite(query->square) ? query->table_error : INFINITY;
    if (layout->bits > 1) {
        int64_t most = layout->bits == 4 ? 127 : INT32_MAX / (255 * (int64_t)padded);
        most = most < INT16_MAX ? most : INT16_MAX;
        make_levels(rotated, padded, layout->bits, (int32_t)most, levels, &query->level_unit,
                    &query->level_base);
        double spread = (double)(VEXI_CODE_STRETCH * vexi_code_steps(layout->bits) + 0.5f);
        query->level_error = query->level_unit * (float)(DEVIATIONS * spread * sqrt(padded / 12.0));
        query->levels = levels;
    }
    return VEX_OK;
}

float vexi_code_query_offset(const vexi_code_query *query, float center_square) {
    switch (query->layout.metric) {
    case VEX_METRIC_L2:
        return center_square;
    case VEX_METRIC_COSINE:
        return 0.5f * (center_square + (1.0f - query->square));
    case VEX_METRIC_IP:
        return 0.5f * (center_square - query->square);
    }
    return center_square;
}

float vexi_code_query_slack(const vexi_code_query *query, float error, float center_square,
                            bool records) {
    float own = query->epsilon * error;
    float rounding = records ? query->level_error : query->table_error;
    return sqrtf(own * own * center_square + rounding * rounding);
}
