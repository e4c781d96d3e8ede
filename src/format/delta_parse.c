/* Reading Delta commits: one JSON object a line.
 *
 * The bytes come from a store that others write to. Each line is measured before it is parsed
 * (size, depth, number of values), because jansson takes memory for every value and recurses for
 * every level; the tree lives for one line, what we keep is copied into the caller's arena. Fields
 * that we do not know are ignored, as the protocol asks. Our tags and the stats are hints: where
 * they make no sense they are as good as absent. */
#include <inttypes.h>
#include <jansson.h>

#include "base/utf8.h"
#include "format/delta_internal.h"

enum { LINE_SIZE_MAX = 32 << 20, LINE_VALUE_COUNT_MAX = 1 << 17, LINE_DEPTH_MAX = 48 };
enum { STATS_SIZE_MAX = 1 << 20 };

/* ---- JSON ------------------------------------------------------------------------------------ */

/* Whether the text is within the limits; its brackets need not match. */
static bool json_measure(const char *text, size_t size, size_t value_count_max) {
    size_t depth = 0;
    size_t value_count = 1;
    bool in_string = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
            continue;
        }
        switch (c) {
        case '"':
            in_string = true;
            break;
        case '[':
        case '{':
            if (++depth > LINE_DEPTH_MAX) {
                return false;
            }
            value_count++;
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case ',':
            value_count++;
            break;
        default:
            break;
        }
    }
    return value_count <= value_count_max;
}

static vex_status json_parse(const char *text, size_t size, const char *what, json_t **out,
                             vex_error *err) {
    *out = NULL;
    if (size > LINE_SIZE_MAX || !json_measure(text, size, LINE_VALUE_COUNT_MAX)) {
        return vexi_fail(err, VEX_CORRUPT, "%s is too large or too deep", what);
    }
    json_error_t error;
    *out = json_loadb(text, size, 0, &error);
    if (*out == NULL) {
        return vexi_fail(
            err, json_error_code(&error) == json_error_out_of_memory ? VEX_MEMORY : VEX_CORRUPT,
            "%s is no JSON: %s", what, error.text);
    }
    return VEX_OK;
}

/* What one line is parsed with. */
typedef struct line_context {
    vexi_arena *arena;
    vexi_delta_commit *commit;
    size_t add_capacity;
    size_t remove_capacity;
    size_t txn_capacity;
    vex_error *err;
} line_context;

static vex_status copy_string(line_context *c, const json_t *value, vex_string *out) {
    size_t size = json_string_length(value);
    char *copy = vexi_arena_copy(c->arena, json_string_value(value), size);
    if (copy == NULL) {
        return vexi_no_memory(c->err, size);
    }
    *out = (vex_string){copy, size};
    return VEX_OK;
}

/* Fields. A null counts as absent. `required` ones must be there; one of another type is an
 * error. Absent ones leave *out as it is. */
static vex_status get_string(line_context *c, const json_t *object, const char *key, bool required,
                             vex_string *out) {
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) {
        return required ? vexi_fail(c->err, VEX_CORRUPT, "%s is missing", key) : VEX_OK;
    }
    if (!json_is_string(value)) {
        return vexi_fail(c->err, VEX_CORRUPT, "%s is no string", key);
    }
    return copy_string(c, value, out);
}

static vex_status get_integer(line_context *c, const json_t *object, const char *key, bool required,
                              int64_t minimum, int64_t maximum, int64_t *out) {
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) {
        return required ? vexi_fail(c->err, VEX_CORRUPT, "%s is missing", key) : VEX_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < minimum ||
        json_integer_value(value) > maximum) {
        return vexi_fail(c->err, VEX_CORRUPT, "%s is no integer from %" PRId64 " to %" PRId64, key,
                         minimum, maximum);
    }
    *out = json_integer_value(value);
    return VEX_OK;
}

static vex_status get_boolean(line_context *c, const json_t *object, const char *key, bool *out) {
    const json_t *value = json_object_get(object, key);
    if (value == NULL || json_is_null(value)) {
        return VEX_OK;
    }
    if (!json_is_boolean(value)) {
        return vexi_fail(c->err, VEX_CORRUPT, "%s is no boolean", key);
    }
    *out = json_is_true(value);
    return VEX_OK;
}

/* Room for one more item of an array in the arena. */
static vex_status grow(line_context *c, void **items, size_t *capacity, size_t count,
                       size_t item_size) {
    if (count < *capacity) {
        return VEX_OK;
    }
    size_t wanted = *capacity == 0 ? 8 : *capacity * 2;
    void *grown = vexi_arena_calloc(c->arena, wanted, item_size);
    if (grown == NULL) {
        return vexi_no_memory(c->err, wanted * item_size);
    }
    if (count > 0) {
        memcpy(grown, *items, count * item_size);
    }
    *items = grown;
    *capacity = wanted;
    return VEX_OK;
}

/* ---- add and remove -------------------------------------------------------------------------- */

static vex_status parse_dv(line_context *c, const json_t *file, vexi_delta_dv *out) {
    const json_t *dv = json_object_get(file, "deletionVector");
    if (dv == NULL || json_is_null(dv)) {
        return VEX_OK;
    }
    vex_string storage = {NULL, 0};
    int64_t offset = 1, size = 0, cardinality = 0; /* without an offset: the file's first vector */
    VEX_TRY(get_string(c, dv, "storageType", true, &storage));
    VEX_TRY(get_string(c, dv, "pathOrInlineDv", true, &out->encoded));
    VEX_TRY(get_integer(c, dv, "offset", false, 0, UINT32_MAX, &offset));
    VEX_TRY(get_integer(c, dv, "sizeInBytes", true, 0, UINT32_MAX, &size));
    VEX_TRY(get_integer(c, dv, "cardinality", true, 0, INT64_MAX, &cardinality));
    if (storage.size != 1 || strchr("uip", storage.data[0]) == NULL) {
        return vexi_fail(c->err, VEX_UNSUPPORTED, "deletion vector of storage type '%s'",
                         storage.data);
    }
    out->storage = storage.data[0];
    out->offset = out->storage == 'i' ? 0 : (uint32_t)offset; /* none beside inline data */
    out->size_bytes = (uint32_t)size;
    out->cardinality = (uint64_t)cardinality;
    return VEX_OK;
}

static vex_status parse_path(line_context *c, const json_t *file, vex_string *path,
                             vex_string *raw_path) {
    vex_string raw = {NULL, 0};
    VEX_TRY(get_string(c, file, "path", true, &raw));
    VEX_TRY(vexi_path_decode(raw, c->arena, path, c->err));
    vexi_buffer encoded;
    vexi_buffer_init(&encoded, c->arena->env, SIZE_MAX);
    vexi_path_encode(*path, &encoded);
    vex_status status = vexi_buffer_check(&encoded, c->err);
    if (status == VEX_OK &&
        !vexi_string_equal((vex_string){(const char *)encoded.data, encoded.size}, raw)) {
        *raw_path = raw;
    }
    vexi_buffer_deinit(&encoded);
    return status;
}

/* stats.numRecords, -1 where it is not to be had. */
static int64_t parse_row_count(const json_t *add) {
    const json_t *stats = json_object_get(add, "stats");
    const char *text = json_string_value(stats);
    size_t size = json_string_length(stats);
    if (text == NULL || size > STATS_SIZE_MAX || !json_measure(text, size, LINE_VALUE_COUNT_MAX)) {
        return -1;
    }
    json_t *object = json_loadb(text, size, 0, NULL);
    if (object == NULL) { /* an extreme value past 64 bits, say */
        object = json_loadb(text, size, JSON_DECODE_INT_AS_REAL, NULL);
    }
    const json_t *value = json_object_get(object, "numRecords");
    int64_t result = -1;
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        result = json_integer_value(value);
    } else if (json_is_real(value) && json_real_value(value) >= 0 &&
               json_real_value(value) < 9e15) {
        result = (int64_t)json_real_value(value);
    }
    json_decref(object);
    return result;
}

/* A tag with an unsigned number in `base`. */
static bool tag_number(const json_t *tags, const char *key, int base, uint64_t maximum,
                       uint64_t *out) {
    const char *text = json_string_value(json_object_get(tags, key));
    *out = 0;
    if (text == NULL || *text == '\0' || strlen(text) > 20) {
        return false;
    }
    for (; *text != '\0'; text++) {
        char c = *text;
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : base;
        if (digit >= base || __builtin_mul_overflow(*out, (uint64_t)base, out) ||
            __builtin_add_overflow(*out, (uint64_t)digit, out)) {
            return false;
        }
    }
    return *out <= maximum;
}

static vex_status parse_tags(line_context *c, const json_t *add, vexi_delta_index *out) {
    const json_t *tags = json_object_get(add, "tags");
    const json_t *path = json_object_get(tags, VEXI_TAG_INDEX_PATH);
    vex_string text = {json_string_value(path), json_string_length(path)};
    uint64_t size, head_size, head_crc;
    if (text.data == NULL || !vexi_path_safe(text) ||
        !tag_number(tags, VEXI_TAG_INDEX_SIZE, 10, INT64_MAX, &size) ||
        !tag_number(tags, VEXI_TAG_HEAD_SIZE, 10, UINT32_MAX, &head_size) ||
        !tag_number(tags, VEXI_TAG_HEAD_CRC, 16, UINT32_MAX, &head_crc) || head_size > size) {
        return VEX_OK;
    }
    VEX_TRY(copy_string(c, path, &out->path));
    out->size_bytes = size;
    out->head_size = (uint32_t)head_size;
    out->head_crc = (uint32_t)head_crc;
    return VEX_OK;
}

static vex_status parse_add(line_context *c, const json_t *object) {
    void *items = c->commit->adds;
    VEX_TRY(grow(c, &items, &c->add_capacity, c->commit->add_count, sizeof *c->commit->adds));
    c->commit->adds = items;
    vexi_delta_add *add = &c->commit->adds[c->commit->add_count];
    int64_t size = 0;
    add->data_change = true;
    VEX_TRY(parse_path(c, object, &add->path, &add->raw_path));
    VEX_TRY(get_integer(c, object, "size", true, 0, INT64_MAX, &size));
    VEX_TRY(get_integer(c, object, "modificationTime", false, INT64_MIN, INT64_MAX,
                        &add->modification_time_ms));
    VEX_TRY(get_boolean(c, object, "dataChange", &add->data_change));
    VEX_TRY(parse_dv(c, object, &add->dv));
    VEX_TRY(parse_tags(c, object, &add->index));
    add->size_bytes = (uint64_t)size;
    add->row_count = parse_row_count(object);
    c->commit->add_count++;
    return VEX_OK;
}

static vex_status parse_remove(line_context *c, const json_t *object) {
    void *items = c->commit->removes;
    VEX_TRY(
        grow(c, &items, &c->remove_capacity, c->commit->remove_count, sizeof *c->commit->removes));
    c->commit->removes = items;
    vexi_delta_remove *file = &c->commit->removes[c->commit->remove_count];
    int64_t size = 0;
    file->data_change = true;
    VEX_TRY(parse_path(c, object, &file->path, &file->raw_path));
    VEX_TRY(get_integer(c, object, "deletionTimestamp", false, INT64_MIN, INT64_MAX,
                        &file->deletion_timestamp_ms));
    VEX_TRY(get_boolean(c, object, "dataChange", &file->data_change));
    VEX_TRY(get_integer(c, object, "size", false, 0, INT64_MAX, &size));
    VEX_TRY(parse_dv(c, object, &file->dv));
    file->size_bytes = (uint64_t)size;
    c->commit->remove_count++;
    return VEX_OK;
}

static vex_status parse_txn(line_context *c, const json_t *object) {
    void *items = c->commit->txns;
    VEX_TRY(grow(c, &items, &c->txn_capacity, c->commit->txn_count, sizeof *c->commit->txns));
    c->commit->txns = items;
    vexi_delta_txn *txn = &c->commit->txns[c->commit->txn_count];
    VEX_TRY(get_string(c, object, "appId", true, &txn->app_id));
    VEX_TRY(get_integer(c, object, "version", true, INT64_MIN, INT64_MAX, &txn->version));
    c->commit->txn_count++;
    return VEX_OK;
}

/* ---- protocol -------------------------------------------------------------------------------- */

/* Features that say nothing a reader of JSON commits and Parquet files must do. Column mapping is
 * looked at where its mode stands, in the configuration; a column of a type that we do not know is
 * left out of the schema. */
static const char *const reader_features[] = {"deletionVectors", "columnMapping", "timestampNtz",
                                              "v2Checkpoint", "vacuumProtocolCheck"};

static vex_status parse_features(line_context *c, const json_t *object, const char *key,
                                 const vex_string **out, size_t *out_count) {
    const json_t *list = json_object_get(object, key);
    size_t count = json_array_size(list);
    if (count == 0) {
        return VEX_OK;
    }
    vex_string *features = vexi_arena_calloc(c->arena, count, sizeof *features);
    if (features == NULL) {
        return vexi_no_memory(c->err, count * sizeof *features);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *feature = json_array_get(list, i);
        if (!json_is_string(feature)) {
            return vexi_fail(c->err, VEX_CORRUPT, "%s holds what is no string", key);
        }
        VEX_TRY(copy_string(c, feature, &features[i]));
    }
    *out = features;
    *out_count = count;
    return VEX_OK;
}

static vex_status parse_protocol(line_context *c, const json_t *object) {
    vexi_delta_protocol *protocol = &c->commit->protocol;
    int64_t reader = 0, writer = 0;
    if (protocol->reader_version > 0) {
        return vexi_fail(c->err, VEX_CORRUPT, "two protocol actions in one commit");
    }
    VEX_TRY(get_integer(c, object, "minReaderVersion", true, 1, INT32_MAX, &reader));
    VEX_TRY(get_integer(c, object, "minWriterVersion", true, 1, INT32_MAX, &writer));
    if (reader > 3) {
        return vexi_fail(c->err, VEX_UNSUPPORTED, "the table asks for reader version %" PRId64,
                         reader);
    }
    protocol->reader_version = (int32_t)reader;
    protocol->writer_version = (int32_t)writer;
    /* The lists exist from these versions on. */
    if (reader >= 3) {
        VEX_TRY(parse_features(c, object, "readerFeatures", &protocol->reader_features,
                               &protocol->reader_feature_count));
    }
    if (writer >= 7) {
        VEX_TRY(parse_features(c, object, "writerFeatures", &protocol->writer_features,
                               &protocol->writer_feature_count));
    }
    for (size_t i = 0; i < protocol->reader_feature_count; i++) {
        bool known = false;
        for (size_t k = 0; k < sizeof reader_features / sizeof *reader_features; k++) {
            known = known || vexi_string_is(protocol->reader_features[i], reader_features[k]);
        }
        if (!known) {
            return vexi_fail(c->err, VEX_UNSUPPORTED, "the table asks for the reader feature '%s'",
                             protocol->reader_features[i].data);
        }
        protocol->deletion_vectors |=
            writer >= 7 && vexi_string_is(protocol->reader_features[i], "deletionVectors");
    }
    return VEX_OK;
}

/* ---- metaData -------------------------------------------------------------------------------- */

static vex_status parse_configuration(line_context *c, const json_t *object) {
    vexi_delta_metadata *metadata = &c->commit->metadata;
    json_t *map = json_object_get(object, "configuration");
    size_t count = json_object_size(map);
    if (count == 0) {
        return VEX_OK;
    }
    vexi_delta_pair *pairs = vexi_arena_calloc(c->arena, count, sizeof *pairs);
    if (pairs == NULL) {
        return vexi_no_memory(c->err, count * sizeof *pairs);
    }
    size_t i = 0;
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value) {
        size_t size = strlen(key);
        char *copy = vexi_arena_copy(c->arena, key, size);
        if (copy == NULL) {
            return vexi_no_memory(c->err, size);
        }
        if (!json_is_string(value)) {
            return vexi_fail(c->err, VEX_CORRUPT, "the setting %s is no string", copy);
        }
        pairs[i].key = (vex_string){copy, size};
        VEX_TRY(copy_string(c, value, &pairs[i].value));
        i++;
    }
    metadata->configuration = pairs;
    metadata->configuration_count = count;
    return VEX_OK;
}

static bool find_name(const char *const *names, unsigned count, vex_string name, unsigned *out) {
    for (unsigned i = 0; i < count; i++) {
        if (vexi_string_is(name, names[i])) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool parse_u64(vex_string text, uint64_t *out) {
    uint64_t value = 0;
    if (text.size == 0 || text.size > 20) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' ||
            __builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text.data[i] - '0'), &value)) {
            return false;
        }
    }
    *out = value;
    return true;
}

static bool parse_unsigned(vex_string text, uint32_t maximum, uint32_t *out) {
    uint64_t value;
    if (!parse_u64(text, &value) || value > maximum) {
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

/* Above 0 to 1, as digits with at most nine behind a point: not by strtod, which reads a comma in
 * some locales. */
static bool parse_recall(vex_string text, float *out) {
    uint64_t value = 0;
    uint64_t scale = 0;
    if (text.size == 0 || text.size > 11 || text.data[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        char c = text.data[i];
        if (c == '.' && scale == 0) {
            scale = 1;
        } else if (c >= '0' && c <= '9') {
            value = value * 10 + (uint64_t)(c - '0');
            scale *= 10;
        } else {
            return false;
        }
    }
    scale = scale == 0 ? 1 : scale;
    *out = (float)((double)value / (double)scale);
    return value > 0 && value <= scale;
}

/* Settings of searches and codes; what is not there has its default. */
static vex_status parse_code_settings(line_context *c) {
    vexi_delta_metadata *metadata = &c->commit->metadata;
    vexi_schema *schema = &metadata->schema;
    vex_string recall = vexi_delta_configured(metadata, VEXI_KEY_RECALL);
    vex_string bits = vexi_delta_configured(metadata, VEXI_KEY_BITS);
    vex_string seed = vexi_delta_configured(metadata, VEXI_KEY_ROTATION_SEED);
    schema->recall = VEX_RECALL_DEFAULT;
    schema->bits = VEXI_SCHEMA_BITS_DEFAULT;
    schema->rotation_seed = 0;
    if (recall.data != NULL && !parse_recall(recall, &schema->recall)) {
        return vexi_fail(c->err, VEX_CORRUPT, "%s is '%s'", VEXI_KEY_RECALL, recall.data);
    }
    if (bits.data != NULL && (!parse_unsigned(bits, UINT32_MAX, &schema->bits) ||
                              !vexi_schema_bits_valid(schema->bits))) {
        return vexi_fail(c->err, VEX_UNSUPPORTED, "%s is '%s'", VEXI_KEY_BITS, bits.data);
    }
    if (seed.data != NULL && !parse_u64(seed, &schema->rotation_seed)) {
        return vexi_fail(c->err, VEX_CORRUPT, "%s is '%s'", VEXI_KEY_ROTATION_SEED, seed.data);
    }
    return VEX_OK;
}

/* Our settings; a table without vexlake.dimension is not ours and keeps dimension 0. */
static vex_status parse_settings(line_context *c) {
    vexi_delta_metadata *metadata = &c->commit->metadata;
    vex_string mapping = vexi_delta_configured(metadata, "delta.columnMapping.mode");
    if (mapping.data != NULL && !vexi_string_is(mapping, "none")) {
        return vexi_fail(c->err, VEX_UNSUPPORTED, "the table uses column mapping");
    }
    vex_string version = vexi_delta_configured(metadata, VEXI_KEY_FORMAT_VERSION);
    vex_string dimension = vexi_delta_configured(metadata, VEXI_KEY_DIMENSION);
    vex_string metric = vexi_delta_configured(metadata, VEXI_KEY_METRIC);
    vex_string index = vexi_delta_configured(metadata, VEXI_KEY_INDEX);
    if (dimension.data == NULL) {
        return VEX_OK;
    }
    uint32_t number = 0;
    if (version.data != NULL) {
        if (!parse_unsigned(version, UINT32_MAX, &number) || number == 0) {
            return vexi_fail(c->err, VEX_CORRUPT, "%s is '%s'", VEXI_KEY_FORMAT_VERSION,
                             version.data);
        }
        if (number > VEXI_DELTA_FORMAT_VERSION) {
            return vexi_fail(c->err, VEX_UNSUPPORTED,
                             "collection of format version %u; this program knows %d", number,
                             VEXI_DELTA_FORMAT_VERSION);
        }
    }
    if (!parse_unsigned(dimension, VEX_DIMENSION_MAX, &number) || number == 0) {
        return vexi_fail(c->err, VEX_CORRUPT, "%s is '%s'", VEXI_KEY_DIMENSION, dimension.data);
    }
    metadata->schema.dimension = number;
    unsigned which = 0;
    if (metric.data != NULL && !find_name(vexi_delta_metric_names, 3, metric, &which)) {
        return vexi_fail(c->err, VEX_UNSUPPORTED, "%s is '%s'", VEXI_KEY_METRIC, metric.data);
    }
    metadata->schema.metric = (vex_metric)which;
    which = 0;
    if (index.data != NULL && !find_name(vexi_delta_index_names, 4, index, &which)) {
        return vexi_fail(c->err, VEX_UNSUPPORTED, "%s is '%s'", VEXI_KEY_INDEX, index.data);
    }
    metadata->schema.index = (vex_index_kind)which;
    return parse_code_settings(c);
}

/* Whether `type` is what a column that every collection has must be; `name` may be any column. */
static bool fixed_column_fits(const char *name, const json_t *type, bool *is_fixed) {
    const char *text = json_string_value(type);
    *is_fixed = true;
    if (strcmp(name, "id") == 0 || strcmp(name, "attributes") == 0) {
        return text != NULL && strcmp(text, "string") == 0;
    }
    if (strcmp(name, "payload") == 0) {
        return text != NULL && strcmp(text, "binary") == 0;
    }
    if (strcmp(name, "vector") == 0) {
        const char *outer = json_string_value(json_object_get(type, "type"));
        const char *inner = json_string_value(json_object_get(type, "elementType"));
        return outer != NULL && strcmp(outer, "array") == 0 && inner != NULL &&
               strcmp(inner, "float") == 0;
    }
    *is_fixed = false;
    return true;
}

static bool find_type(const char *text, vex_type *out) {
    for (vex_type type = VEX_TYPE_INT64; type <= VEX_TYPE_TIMESTAMP; type++) {
        if (text != NULL && strcmp(text, vexi_delta_type_name(type)) == 0) {
            *out = type;
            return true;
        }
    }
    return false;
}

static vex_status parse_fields(line_context *c, const json_t *fields) {
    vexi_schema *schema = &c->commit->metadata.schema;
    vexi_schema_column *columns = vexi_arena_calloc(c->arena, VEX_COLUMNS_MAX, sizeof *columns);
    if (columns == NULL) {
        return vexi_no_memory(c->err, VEX_COLUMNS_MAX * sizeof *columns);
    }
    schema->columns = columns;
    unsigned fixed_count = 0;
    for (size_t i = 0; i < json_array_size(fields); i++) {
        const json_t *field = json_array_get(fields, i);
        const json_t *name = json_object_get(field, "name");
        const json_t *type = json_object_get(field, "type");
        if (!json_is_string(name) || type == NULL) {
            return vexi_fail(c->err, VEX_CORRUPT, "the schema has a field without name or type");
        }
        bool is_fixed;
        if (!fixed_column_fits(json_string_value(name), type, &is_fixed) &&
            schema->dimension != 0) {
            return vexi_fail(c->err, VEX_UNSUPPORTED, "the column %s has another type",
                             json_string_value(name));
        }
        fixed_count += is_fixed;
        vex_type known;
        size_t size = json_string_length(name);
        if (is_fixed || size == 0 || size > VEX_NAME_SIZE_MAX ||
            !find_type(json_string_value(type), &known)) {
            continue;
        }
        if (schema->column_count == VEX_COLUMNS_MAX) {
            if (schema->dimension == 0) {
                continue;
            }
            return vexi_fail(c->err, VEX_UNSUPPORTED, "the table has more than %u typed columns",
                             VEX_COLUMNS_MAX);
        }
        for (uint32_t k = 0; k < schema->column_count; k++) {
            if (vexi_string_is(columns[k].name, json_string_value(name))) {
                return vexi_fail(c->err, VEX_CORRUPT, "the column %s stands twice in the schema",
                                 columns[k].name.data);
            }
        }
        vexi_schema_column *column = &columns[schema->column_count++];
        column->type = known;
        VEX_TRY(copy_string(c, name, &column->name));
    }
    if (schema->dimension != 0 && fixed_count != 4) {
        return vexi_fail(c->err, VEX_UNSUPPORTED,
                         "the table lacks one of the columns id, vector, attributes, payload");
    }
    return VEX_OK;
}

static vex_status parse_schema(line_context *c) {
    vex_string text = c->commit->metadata.schema_string;
    json_t *schema;
    VEX_TRY(json_parse(text.data, text.size, "schemaString", &schema, c->err));
    const json_t *fields = json_object_get(schema, "fields");
    vex_status status = json_is_array(fields)
                            ? parse_fields(c, fields)
                            : vexi_fail(c->err, VEX_CORRUPT, "schemaString is no struct");
    json_decref(schema);
    return status;
}

static vex_status parse_metadata(line_context *c, const json_t *object) {
    vexi_delta_metadata *metadata = &c->commit->metadata;
    if (metadata->id.data != NULL) {
        return vexi_fail(c->err, VEX_CORRUPT, "two metaData actions in one commit");
    }
    VEX_TRY(get_string(c, object, "name", false, &metadata->name));
    VEX_TRY(get_integer(c, object, "createdTime", false, INT64_MIN, INT64_MAX,
                        &metadata->created_time_ms));
    VEX_TRY(get_string(c, object, "schemaString", true, &metadata->schema_string));
    VEX_TRY(parse_configuration(c, object));
    metadata->partition_column_count = json_array_size(json_object_get(object, "partitionColumns"));
    if (metadata->partition_column_count > 0) {
        return vexi_fail(c->err, VEX_UNSUPPORTED, "the table is partitioned");
    }
    const char *provider =
        json_string_value(json_object_get(json_object_get(object, "format"), "provider"));
    if (provider != NULL && strcmp(provider, "parquet") != 0) {
        return vexi_fail(c->err, VEX_UNSUPPORTED, "the table's files are of the format '%.40s'",
                         provider);
    }
    VEX_TRY(parse_settings(c));
    VEX_TRY(parse_schema(c));
    return get_string(c, object, "id", true, &metadata->id);
}

static vex_status parse_commit_info(line_context *c, const json_t *object) {
    /* Free-form by the protocol: what has another type is not there. */
    const json_t *operation = json_object_get(object, "operation");
    const json_t *attempt = json_object_get(object, "vexlakeAttempt");
    const json_t *timestamp = json_object_get(object, "timestamp");
    if (json_is_string(operation)) {
        VEX_TRY(copy_string(c, operation, &c->commit->operation));
    }
    if (json_is_string(attempt)) {
        VEX_TRY(copy_string(c, attempt, &c->commit->attempt_id));
    }
    if (json_is_integer(timestamp)) {
        c->commit->timestamp_ms = json_integer_value(timestamp);
    }
    return VEX_OK;
}

/* ---- Lines ----------------------------------------------------------------------------------- */

static const struct {
    const char *key;
    vex_status (*parse)(line_context *c, const json_t *object);
} actions[] = {{"add", parse_add},           {"remove", parse_remove},
               {"txn", parse_txn},           {"protocol", parse_protocol},
               {"metaData", parse_metadata}, {"commitInfo", parse_commit_info}};

static vex_status parse_line(line_context *c, const char *text, size_t size) {
    json_t *line;
    VEX_TRY(json_parse(text, size, "the line", &line, c->err));
    vex_status status = VEX_OK;
    if (!json_is_object(line)) {
        status = vexi_fail(c->err, VEX_CORRUPT, "no action");
    }
    for (size_t i = 0; i < sizeof actions / sizeof *actions && status == VEX_OK; i++) {
        const json_t *action = json_object_get(line, actions[i].key);
        if (action == NULL || json_is_null(action)) {
            continue;
        }
        status = json_is_object(action)
                     ? actions[i].parse(c, action)
                     : vexi_fail(c->err, VEX_CORRUPT, "%s is no object", actions[i].key);
        if (status != VEX_OK) {
            status = vexi_prefix(c->err, status, "%s", actions[i].key);
        }
    }
    json_decref(line);
    return status;
}

static bool is_blank(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r') {
            return false;
        }
    }
    return true;
}

vex_status vexi_delta_parse(vexi_span file, vexi_arena *arena, vexi_delta_commit *out,
                            vex_error *err) {
    *out = (vexi_delta_commit){.adds = NULL};
    if (file.size > VEXI_DELTA_COMMIT_SIZE_MAX) {
        return vexi_fail(err, VEX_LIMIT, "a commit of %zu bytes; at most %d are read", file.size,
                         VEXI_DELTA_COMMIT_SIZE_MAX);
    }
    line_context context = {.arena = arena, .commit = out, .err = err};
    size_t line_count = 0;
    size_t action_count = 0;
    vex_status status = VEX_OK;
    for (size_t start = 0; start < file.size && status == VEX_OK;) {
        const uint8_t *end = memchr(file.data + start, '\n', file.size - start);
        size_t size = end == NULL ? file.size - start : (size_t)(end - file.data) - start;
        const char *text = (const char *)file.data + start;
        start += size + 1;
        line_count++;
        if (is_blank(text, size)) {
            continue;
        }
        action_count++;
        status = parse_line(&context, text, size);
    }
    if (status == VEX_OK && action_count == 0) {
        status = vexi_fail(err, VEX_CORRUPT, "no action");
    }
    if (status != VEX_OK) {
        *out = (vexi_delta_commit){.adds = NULL};
        return vexi_prefix(err, status, "line %zu", line_count);
    }
    return VEX_OK;
}
