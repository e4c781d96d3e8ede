/* Rows and schemas: what a segment, a log record and an import have in common. */
#ifndef VEXI_FORMAT_ROW_H
#define VEXI_FORMAT_ROW_H

#include "base/arena.h"
#include "base/bytes.h"

/* Bits of a dimension in refinement codes where a collection does not say. */
enum { VEXI_SCHEMA_BITS_DEFAULT = 4 };

/* One typed column. */
typedef struct vexi_schema_column {
    vex_string name; /* NUL-terminated too */
    vex_type type;
} vexi_schema_column;

/* A collection's schema. Row columns are numbered: 0 attributes, 1 payload, 2 + i typed column i.
 */
typedef struct vexi_schema {
    uint32_t dimension;
    vex_metric metric;
    vex_index_kind index;
    float recall;           /* of searches that name no effort; 0: VEX_RECALL_DEFAULT */
    uint32_t bits;          /* a dimension in refinement codes: 1, 4, 8; 0: the default */
    uint64_t rotation_seed; /* of the quantiser */
    uint32_t column_count;  /* typed columns */
    const vexi_schema_column *columns;
} vexi_schema;

/* The settings with their defaults filled in. */
static inline uint32_t vexi_schema_bits(const vexi_schema *schema) {
    return schema->bits == 0 ? VEXI_SCHEMA_BITS_DEFAULT : schema->bits;
}
static inline float vexi_schema_recall(const vexi_schema *schema) {
    return schema->recall > 0 ? schema->recall : VEX_RECALL_DEFAULT;
}
static inline bool vexi_schema_bits_valid(uint32_t bits) {
    return bits == 1 || bits == 4 || bits == 8;
}

enum {
    VEXI_COLUMN_ATTRIBUTES = 0,
    VEXI_COLUMN_PAYLOAD = 1,
    VEXI_COLUMN_TYPED = 2,
    VEXI_COLUMN_VECTOR = 0x7fffffff /* where a list of columns may name the vector too */
};

/* A value of one column. Strings (string, attributes, payload) are null when data is NULL. */
typedef struct vexi_cell {
    bool is_null;
    union {
        int64_t int64; /* timestamp too, microseconds */
        double float64;
        bool boolean;
        vex_string string;
    } as;
} vexi_cell;

/* A row in memory, borrowed pieces. */
typedef struct vexi_row {
    vex_string id;
    const float *vector; /* dimension values; aligned to 4 bytes */
    vex_string attributes;
    vex_string payload;
    const vexi_cell *cells; /* column_count, in schema order; NULL means all null */
} vexi_row;

/* Value of a column (numbers as above, without the vector) of a row. */
static inline void vexi_row_cell(const vexi_row *row, uint32_t column, vexi_cell *out) {
    if (column >= VEXI_COLUMN_TYPED) {
        *out = row->cells == NULL ? (vexi_cell){.is_null = true}
                                  : row->cells[column - VEXI_COLUMN_TYPED];
        return;
    }
    vex_string text = column == VEXI_COLUMN_ATTRIBUTES ? row->attributes : row->payload;
    *out = (vexi_cell){.is_null = text.data == NULL, .as.string = text};
}

#endif
