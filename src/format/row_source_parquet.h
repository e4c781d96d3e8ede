/* The columns of a foreign Parquet file: what each leaf holds and what becomes of it. */
#ifndef VEXI_FORMAT_ROW_SOURCE_PARQUET_H
#define VEXI_FORMAT_ROW_SOURCE_PARQUET_H

#include "format/parquet_internal.h"
#include "format/row_source_internal.h"

typedef enum vexi_leaf_conversion {
    FROM_NOTHING,
    FROM_BOOL,
    FROM_INT32,
    FROM_UINT32,
    FROM_INT64,
    FROM_UINT64,
    FROM_FLOAT,
    FROM_DOUBLE,
    FROM_HALF,
    FROM_STRING,
    FROM_BINARY, /* no logical type: payload, or what a writer did not mark as text */
    FROM_MILLIS,
    FROM_MICROS,
    FROM_NANOS,
    FROM_INT96 /* nanoseconds of a Julian day: Impala, old Spark */
} vexi_leaf_conversion;

typedef enum vexi_leaf_role {
    ROLE_NONE,
    ROLE_ID,
    ROLE_VECTOR,
    ROLE_ATTRIBUTES,
    ROLE_PAYLOAD,
    ROLE_TYPED
} vexi_leaf_role;

typedef struct vexi_parquet_leaf {
    int32_t index; /* carquet's */
    vexi_leaf_role role;
    vexi_leaf_conversion from;
    bool is_list;
    int16_t definition_max;
    uint32_t value_size; /* bytes of a value as carquet gives it */
    int32_t typed;       /* its number among the typed columns, -1: it is none */
    const char *name;    /* of the column; carquet's, until the reader is closed */
    carquet_column_reader_t *reader;
} vexi_parquet_leaf;

static inline bool vexi_leaf_is_bytes(const vexi_parquet_leaf *leaf) {
    return leaf->from == FROM_STRING || leaf->from == FROM_BINARY;
}

static inline bool vexi_leaf_is_integer(const vexi_parquet_leaf *leaf) {
    return leaf->from == FROM_INT32 || leaf->from == FROM_UINT32 || leaf->from == FROM_INT64 ||
           leaf->from == FROM_UINT64;
}

/* Find the leaves of an opened file and choose their roles by the source's options; *leaves, in the
 * source's arena, receives those that are to be read. Fills the columns of info. VEX_INVALID: no
 * vector column or several, an unsuitable or missing id column. */
vex_status vexi_parquet_choose_columns(vexi_row_source *source, const carquet_reader_t *reader,
                                       vexi_parquet_leaf **leaves, size_t *leaf_count,
                                       vexi_row_source_info *info, vex_error *err);

#endif
