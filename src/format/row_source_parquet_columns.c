/* Which columns of a foreign Parquet file become what.
 *
 * A leaf is a vector candidate if it has one repetition level and holds floating-point numbers, a
 * scalar if it has none and stands at the top; all else (structs, maps, lists of lists, two columns
 * of one name) is left out and named. Roles: the vector and the id as asked or by name, attributes
 * and payload by name, and every other scalar whose type we know a typed column. */
#include "format/row_source_parquet.h"

static bool is_logical(const carquet_logical_type_t *logical, carquet_logical_type_id_t id) {
    return logical != NULL && logical->id == id;
}

static vexi_leaf_conversion integer_conversion(const carquet_logical_type_t *logical, bool wide) {
    if (logical == NULL || logical->id == CARQUET_LOGICAL_UNKNOWN) {
        return wide ? FROM_INT64 : FROM_INT32;
    }
    if (logical->id == CARQUET_LOGICAL_INTEGER) {
        bool is_signed = logical->params.integer.is_signed;
        return wide ? (is_signed ? FROM_INT64 : FROM_UINT64)
                    : (is_signed ? FROM_INT32 : FROM_UINT32);
    }
    if (wide && logical->id == CARQUET_LOGICAL_TIMESTAMP) {
        switch (logical->params.timestamp.unit) {
        case CARQUET_TIME_UNIT_MILLIS:
            return FROM_MILLIS;
        case CARQUET_TIME_UNIT_MICROS:
            return FROM_MICROS;
        case CARQUET_TIME_UNIT_NANOS:
            return FROM_NANOS;
        }
    }
    return FROM_NOTHING; /* dates, times of day, decimals */
}

/* How the values of a leaf become ours, by its physical and logical type. */
static vexi_leaf_conversion conversion_of(const carquet_schema_node_t *node) {
    const carquet_logical_type_t *logical = carquet_schema_node_logical_type(node);
    bool plain = logical == NULL || logical->id == CARQUET_LOGICAL_UNKNOWN;
    switch (carquet_schema_node_physical_type(node)) {
    case CARQUET_PHYSICAL_BOOLEAN:
        return FROM_BOOL;
    case CARQUET_PHYSICAL_INT32:
        return integer_conversion(logical, false);
    case CARQUET_PHYSICAL_INT64:
        return integer_conversion(logical, true);
    case CARQUET_PHYSICAL_INT96:
        return FROM_INT96;
    case CARQUET_PHYSICAL_FLOAT:
        return FROM_FLOAT;
    case CARQUET_PHYSICAL_DOUBLE:
        return FROM_DOUBLE;
    case CARQUET_PHYSICAL_BYTE_ARRAY:
        if (is_logical(logical, CARQUET_LOGICAL_STRING) ||
            is_logical(logical, CARQUET_LOGICAL_ENUM) ||
            is_logical(logical, CARQUET_LOGICAL_JSON)) {
            return FROM_STRING;
        }
        return plain ? FROM_BINARY : FROM_NOTHING;
    case CARQUET_PHYSICAL_FIXED_LEN_BYTE_ARRAY:
        if (is_logical(logical, CARQUET_LOGICAL_FLOAT16) &&
            carquet_schema_node_type_length(node) == 2) {
            return FROM_HALF;
        }
        return FROM_NOTHING;
    }
    return FROM_NOTHING;
}

static uint32_t conversion_size(vexi_leaf_conversion from) {
    switch (from) {
    case FROM_BOOL:
        return 1;
    case FROM_HALF:
        return 2;
    case FROM_INT32:
    case FROM_UINT32:
    case FROM_FLOAT:
        return 4;
    case FROM_INT96:
        return 12;
    case FROM_STRING:
    case FROM_BINARY:
        return sizeof(carquet_byte_array_t);
    default:
        return 8;
    }
}

static bool is_vector_value(vexi_leaf_conversion from) {
    return from == FROM_FLOAT || from == FROM_DOUBLE || from == FROM_HALF;
}

/* The type of the typed column that a leaf becomes; false: it becomes none. */
static bool typed_as(vexi_leaf_conversion from, vex_type *type) {
    switch (from) {
    case FROM_BOOL:
        *type = VEX_TYPE_BOOL;
        return true;
    case FROM_INT32:
    case FROM_UINT32:
    case FROM_INT64:
    case FROM_UINT64:
        *type = VEX_TYPE_INT64;
        return true;
    case FROM_FLOAT:
    case FROM_DOUBLE:
    case FROM_HALF:
        *type = VEX_TYPE_DOUBLE;
        return true;
    case FROM_STRING:
        *type = VEX_TYPE_STRING;
        return true;
    case FROM_MILLIS:
    case FROM_MICROS:
    case FROM_NANOS:
    case FROM_INT96:
        *type = VEX_TYPE_TIMESTAMP;
        return true;
    case FROM_BINARY:
    case FROM_NOTHING:
        return false;
    }
    return false;
}

/* Every leaf of the file with its shape; what cannot be read has from FROM_NOTHING. */
static vex_status list_leaves(const carquet_reader_t *reader, vexi_row_source *source,
                              vexi_parquet_leaf **out, size_t *out_count, vex_error *err) {
    const carquet_schema_t *schema = carquet_reader_schema(reader);
    int32_t count = carquet_schema_num_columns(schema);
    int32_t elements = carquet_schema_num_elements(schema);
    if (count < 0 || count > VEXI_PARQUET_COLUMNS_MAX) {
        return vexi_fail(err, VEX_CORRUPT, "malformed Parquet schema");
    }
    vexi_parquet_leaf *leaves =
        vexi_arena_calloc(&source->arena, (size_t)count + 1, sizeof *leaves);
    if (leaves == NULL) {
        return vexi_no_memory(err, (size_t)count * sizeof *leaves);
    }
    int32_t leaf = 0;
    for (int32_t e = 1; e < elements && leaf < count; e++) {
        const carquet_schema_node_t *node = carquet_schema_get_element(schema, e);
        if (node == NULL || !carquet_schema_node_is_leaf(node)) {
            continue;
        }
        const char *path[VEXI_PARQUET_DEPTH_MAX + 2];
        int32_t depth = carquet_schema_column_path(schema, leaf, path, VEXI_PARQUET_DEPTH_MAX + 2);
        int16_t repetition_max = carquet_schema_max_rep_level(schema, leaf);
        vexi_parquet_leaf *item = &leaves[leaf];
        if (depth < 1 || path[0] == NULL) {
            return vexi_fail(err, VEX_CORRUPT, "malformed Parquet schema");
        }
        *item = (vexi_parquet_leaf){.index = leaf,
                                    .name = path[0],
                                    .typed = -1,
                                    .is_list = repetition_max == 1 && depth <= 3,
                                    .definition_max = carquet_schema_max_def_level(schema, leaf)};
        if (item->is_list || (depth == 1 && repetition_max == 0)) {
            item->from = conversion_of(node);
            item->value_size = conversion_size(item->from);
        }
        leaf++;
    }
    if (leaf != count) {
        return vexi_fail(err, VEX_CORRUPT, "malformed Parquet schema");
    }
    /* Several leaves below one name: a struct or map, or two columns of one name. */
    for (int32_t i = 0; i < count; i++) {
        for (int32_t j = i + 1; j < count; j++) {
            if (strcmp(leaves[i].name, leaves[j].name) == 0) {
                leaves[i].from = leaves[j].from = FROM_NOTHING;
            }
        }
    }
    *out = leaves;
    *out_count = (size_t)count;
    return VEX_OK;
}

static vexi_parquet_leaf *find_leaf(vexi_parquet_leaf *leaves, size_t count, vex_string name) {
    for (size_t i = 0; i < count; i++) {
        if (vexi_string_is(name, leaves[i].name)) {
            return &leaves[i];
        }
    }
    return NULL;
}

static bool holds_vectors(const vexi_parquet_leaf *leaf) {
    return leaf->is_list && is_vector_value(leaf->from);
}

static vex_status choose_vector(const vexi_row_source *source, vexi_parquet_leaf *leaves,
                                size_t count, vex_error *err) {
    vex_string name = source->options.vector_column;
    if (name.data != NULL) {
        vexi_parquet_leaf *leaf = find_leaf(leaves, count, name);
        if (leaf == NULL) {
            return vexi_fail(err, VEX_INVALID, "there is no column %.*s", (int)name.size,
                             name.data);
        }
        if (!holds_vectors(leaf)) {
            return vexi_fail(err, VEX_INVALID, "column %.*s is no list of floating-point numbers",
                             (int)name.size, name.data);
        }
        leaf->role = ROLE_VECTOR;
        return VEX_OK;
    }
    vexi_parquet_leaf *chosen = find_leaf(leaves, count, vexi_string_of("vector"));
    if (chosen == NULL || !holds_vectors(chosen)) {
        chosen = NULL;
        for (size_t i = 0; i < count; i++) {
            if (!holds_vectors(&leaves[i])) {
                continue;
            }
            if (chosen != NULL) {
                return vexi_fail(err, VEX_INVALID,
                                 "columns %s and %s both hold vectors: one must be chosen",
                                 chosen->name, leaves[i].name);
            }
            chosen = &leaves[i];
        }
    }
    if (chosen == NULL) {
        return vexi_fail(err, VEX_INVALID,
                         "no vector column: none is a list of floating-point numbers");
    }
    chosen->role = ROLE_VECTOR;
    return VEX_OK;
}

static vex_status choose_id(const vexi_row_source *source, vexi_parquet_leaf *leaves, size_t count,
                            vex_error *err) {
    vex_string name = source->options.id_column;
    bool asked = name.data != NULL;
    if (!asked) {
        name = vexi_string_of("id");
    }
    vexi_parquet_leaf *leaf = find_leaf(leaves, count, name);
    if (leaf == NULL) {
        return asked ? vexi_fail(err, VEX_INVALID, "there is no column %.*s", (int)name.size,
                                 name.data)
                     : VEX_OK;
    }
    if (leaf->is_list || !(vexi_leaf_is_bytes(leaf) || vexi_leaf_is_integer(leaf))) {
        return vexi_fail(err, VEX_INVALID, "column %.*s holds neither strings nor integers",
                         (int)name.size, name.data);
    }
    leaf->role = ROLE_ID;
    return VEX_OK;
}

/* A role for every other leaf: attributes, payload, typed, or skipped. */
static vex_status choose_others(vexi_row_source *source, vexi_parquet_leaf *leaves, size_t count,
                                vexi_source_columns *columns, vex_error *err) {
    for (size_t i = 0; i < count; i++) {
        vexi_parquet_leaf *leaf = &leaves[i];
        vex_string name = vexi_string_of(leaf->name);
        vex_type type;
        if (leaf->role == ROLE_VECTOR || (leaf->role == ROLE_ID && vexi_leaf_is_bytes(leaf))) {
            continue;
        }
        if (leaf->role == ROLE_ID) {
            /* `id` itself is no name for a typed column. */
            vex_string typed = vexi_string_is(name, "id") ? vexi_string_of("id_number") : name;
            if (find_leaf(leaves, count, typed) == NULL || vexi_string_equal(typed, name)) {
                VEX_TRY(vexi_source_add_column(source, columns, typed, VEX_TYPE_INT64, &leaf->typed,
                                               err));
            }
        } else if (!leaf->is_list && vexi_string_is(name, "attributes") &&
                   vexi_leaf_is_bytes(leaf)) {
            leaf->role = ROLE_ATTRIBUTES;
        } else if (!leaf->is_list && vexi_string_is(name, "payload") && vexi_leaf_is_bytes(leaf)) {
            leaf->role = ROLE_PAYLOAD;
        } else if (!leaf->is_list && typed_as(leaf->from, &type)) {
            VEX_TRY(vexi_source_add_column(source, columns, name, type, &leaf->typed, err));
            leaf->role = leaf->typed >= 0 ? ROLE_TYPED : ROLE_NONE;
        } else if (i == 0 || strcmp(leaves[i - 1].name, leaf->name) != 0) {
            vexi_source_skip_column(columns, name);
        }
    }
    return VEX_OK;
}

vex_status vexi_parquet_choose_columns(vexi_row_source *source, const carquet_reader_t *reader,
                                       vexi_parquet_leaf **leaves, size_t *leaf_count,
                                       vexi_row_source_info *info, vex_error *err) {
    vexi_parquet_leaf *all;
    size_t count;
    VEX_TRY(list_leaves(reader, source, &all, &count, err));
    VEX_TRY(choose_vector(source, all, count, err));
    VEX_TRY(choose_id(source, all, count, err));
    vexi_source_columns columns;
    vexi_source_columns_init(&columns, source->env);
    vex_status status = choose_others(source, all, count, &columns, err);
    if (status == VEX_OK) {
        status = vexi_source_finish_columns(source, &columns, info, err);
    }
    vexi_source_columns_deinit(&columns);
    VEX_TRY(status);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (all[i].role != ROLE_NONE) {
            all[kept++] = all[i];
        }
    }
    *leaves = all;
    *leaf_count = kept;
    return VEX_OK;
}
