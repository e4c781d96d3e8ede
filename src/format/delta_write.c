/* Writing Delta commits: JSON lines, and the configuration of a collection's table.
 *
 * What other engines need stands here although the protocol calls some of it optional: `size` on
 * every add (without it Spark counts no rows), `deletionTimestamp` on every remove (without it a
 * VACUUM deletes at once), a `metadata` object on every field of the schema, `format.options`, and
 * stats with the physical row count. Strings that are not UTF-8 make the whole commit fail: the
 * bytes would be no JSON. */
#include <inttypes.h>
#include <stdio.h>

#include "base/utf8.h"
#include "format/delta_internal.h"

const char *const vexi_delta_metric_names[3] = {"l2", "cosine", "ip"};
const char *const vexi_delta_index_names[4] = {"auto", "flat", "ivf", "hnsw"};

const char *vexi_delta_type_name(vex_type type) {
    switch (type) {
    case VEX_TYPE_INT64:
        return "long";
    case VEX_TYPE_DOUBLE:
        return "double";
    case VEX_TYPE_STRING:
        return "string";
    case VEX_TYPE_BOOL:
        return "boolean";
    case VEX_TYPE_TIMESTAMP:
        return "timestamp";
    }
    return NULL;
}

void vexi_delta_commit_name(int64_t version, char out[26]) {
    VEX_ASSERT(version >= 0);
    for (size_t i = 20; i-- > 0; version /= 10) {
        out[i] = (char)('0' + version % 10);
    }
    memcpy(out + 20, ".json", 6);
}

int64_t vexi_delta_commit_version(const char *name) {
    if (strlen(name) != 25 || strcmp(name + 20, ".json") != 0) {
        return -1;
    }
    int64_t version = 0;
    for (size_t i = 0; i < 20; i++) {
        if (name[i] < '0' || name[i] > '9' || __builtin_mul_overflow(version, 10, &version) ||
            __builtin_add_overflow(version, name[i] - '0', &version)) {
            return -1;
        }
    }
    return version;
}

/* The text inside the quotes of a JSON string. */
static void put_escaped(vexi_buffer *out, vex_string text, bool *valid) {
    if (text.size > 0 && !vexi_utf8_valid(text.data, text.size)) {
        *valid = false;
        return;
    }
    size_t start = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = (uint8_t)text.data[i];
        if (c >= 0x20 && c != '"' && c != '\\') {
            continue;
        }
        vexi_buffer_append(out, text.data + start, i - start);
        if (c < 0x20) {
            vexi_buffer_format(out, "\\u%04x", c);
        } else {
            char pair[2] = {'\\', (char)c};
            vexi_buffer_append(out, pair, sizeof pair);
        }
        start = i + 1;
    }
    vexi_buffer_append(out, text.data + start, text.size - start);
}

static void put_string(vexi_buffer *out, vex_string text, bool *valid) {
    vexi_buffer_u8(out, '"');
    put_escaped(out, text, valid);
    vexi_buffer_u8(out, '"');
}

static void put_key(vexi_buffer *out, const char *key) {
    vexi_buffer_u8(out, '"');
    vexi_buffer_text(out, key);
    vexi_buffer_text(out, "\":");
}

/* The path inside quotes: as another engine wrote it, or encoded, which leaves plain ASCII. */
static void put_path(vexi_buffer *out, vex_string path, vex_string raw, bool *valid) {
    put_key(out, "path");
    if (raw.data != NULL) {
        put_string(out, raw, valid);
        return;
    }
    *valid = *valid && vexi_path_safe(path);
    vexi_buffer_u8(out, '"');
    vexi_path_encode(path, out);
    vexi_buffer_u8(out, '"');
}

static void put_dv(vexi_buffer *out, const vexi_delta_dv *dv, bool *valid) {
    if (dv->storage == 0) {
        return;
    }
    char storage[2] = {dv->storage, '\0'};
    vexi_buffer_text(out, ",\"deletionVector\":{\"storageType\":");
    put_string(out, vexi_string_of(storage), valid);
    vexi_buffer_text(out, ",\"pathOrInlineDv\":");
    put_string(out, dv->encoded, valid);
    if (dv->storage != 'i') {
        vexi_buffer_format(out, ",\"offset\":%" PRIu32, dv->offset);
    }
    vexi_buffer_format(out, ",\"sizeInBytes\":%" PRIu32 ",\"cardinality\":%" PRIu64 "}",
                       dv->size_bytes, dv->cardinality);
}

static void put_field(vexi_buffer *out, vex_string name, const char *type, bool *valid) {
    vexi_buffer_text(out, "{\"name\":");
    put_string(out, name, valid);
    vexi_buffer_text(out, ",\"type\":");
    vexi_buffer_text(out, type);
    vexi_buffer_text(out, ",\"nullable\":true,\"metadata\":{}}");
}

/* The schema as JSON of its own. Every column is nullable: one that is not would need the
 * `invariants` writer feature. */
static void put_schema(vexi_buffer *out, const vexi_schema *schema, bool *valid) {
    vexi_buffer_text(out, "{\"type\":\"struct\",\"fields\":[");
    put_field(out, vexi_string_of("id"), "\"string\"", valid);
    vexi_buffer_u8(out, ',');
    put_field(out, vexi_string_of("vector"),
              "{\"type\":\"array\",\"elementType\":\"float\",\"containsNull\":true}", valid);
    vexi_buffer_u8(out, ',');
    put_field(out, vexi_string_of("attributes"), "\"string\"", valid);
    vexi_buffer_u8(out, ',');
    put_field(out, vexi_string_of("payload"), "\"binary\"", valid);
    for (uint32_t i = 0; i < schema->column_count; i++) {
        const char *type = vexi_delta_type_name(schema->columns[i].type);
        char quoted[16] = "";
        if (type == NULL) {
            *valid = false;
            return;
        }
        size_t size = strlen(type);
        quoted[0] = '"';
        memcpy(quoted + 1, type, size);
        quoted[size + 1] = '"';
        vexi_buffer_u8(out, ',');
        put_field(out, schema->columns[i].name, quoted, valid);
    }
    vexi_buffer_text(out, "]}");
}

static vex_status put_schema_string(vexi_buffer *out, const vexi_delta_metadata *metadata,
                                    bool *valid, vex_error *err) {
    if (metadata->schema_string.data != NULL) {
        put_string(out, metadata->schema_string, valid);
        return VEX_OK;
    }
    vexi_buffer text;
    vexi_buffer_init(&text, out->env, out->limit_size);
    put_schema(&text, &metadata->schema, valid);
    vex_status status = vexi_buffer_check(&text, err);
    if (status == VEX_OK) {
        put_string(out, (vex_string){(const char *)text.data, text.size}, valid);
    }
    vexi_buffer_deinit(&text);
    return status;
}

static void put_commit_info(vexi_buffer *out, const vexi_delta_commit *commit, bool *valid) {
    char version[48];
    snprintf(version, sizeof version, "%d.%d.%d", VEX_VERSION_MAJOR, VEX_VERSION_MINOR,
             VEX_VERSION_PATCH);
    vexi_buffer_format(
        out, "{\"commitInfo\":{\"timestamp\":%" PRId64 ",\"operation\":", commit->timestamp_ms);
    put_string(out, commit->operation.data != NULL ? commit->operation : vexi_string_of("WRITE"),
               valid);
    vexi_buffer_text(out, ",\"operationParameters\":{},\"engineInfo\":\"vexlake/");
    vexi_buffer_text(out, version);
    vexi_buffer_u8(out, '"');
    if (commit->attempt_id.data != NULL) {
        vexi_buffer_text(out, ",\"vexlakeAttempt\":");
        put_string(out, commit->attempt_id, valid);
    }
    vexi_buffer_text(out, "}}\n");
}

static void put_features(vexi_buffer *out, const char *key, const vex_string *features,
                         size_t count, bool deletion_vectors, bool *valid) {
    static const char dv[] = "deletionVectors";
    vexi_buffer_u8(out, ',');
    put_key(out, key);
    vexi_buffer_u8(out, '[');
    bool listed = !deletion_vectors;
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            vexi_buffer_u8(out, ',');
        }
        put_string(out, features[i], valid);
        listed = listed || vexi_string_is(features[i], dv);
    }
    if (!listed) {
        if (count > 0) {
            vexi_buffer_u8(out, ',');
        }
        put_string(out, vexi_string_of(dv), valid);
    }
    vexi_buffer_u8(out, ']');
}

static void put_protocol(vexi_buffer *out, const vexi_delta_protocol *protocol, bool *valid) {
    vexi_buffer_format(
        out, "{\"protocol\":{\"minReaderVersion\":%" PRId32 ",\"minWriterVersion\":%" PRId32,
        protocol->reader_version, protocol->writer_version);
    /* Feature lists exist exactly from these versions on; a vector needs both. */
    VEX_ASSERT(!protocol->deletion_vectors ||
               (protocol->reader_version >= 3 && protocol->writer_version >= 7));
    if (protocol->reader_version >= 3) {
        put_features(out, "readerFeatures", protocol->reader_features,
                     protocol->reader_feature_count, protocol->deletion_vectors, valid);
    }
    if (protocol->writer_version >= 7) {
        put_features(out, "writerFeatures", protocol->writer_features,
                     protocol->writer_feature_count, protocol->deletion_vectors, valid);
    }
    vexi_buffer_text(out, "}}\n");
}

static vex_status put_metadata(vexi_buffer *out, const vexi_delta_metadata *metadata, bool *valid,
                               vex_error *err) {
    vexi_buffer_text(out, "{\"metaData\":{\"id\":");
    put_string(out, metadata->id, valid);
    if (metadata->name.data != NULL) {
        vexi_buffer_text(out, ",\"name\":");
        put_string(out, metadata->name, valid);
    }
    vexi_buffer_text(out,
                     ",\"format\":{\"provider\":\"parquet\",\"options\":{}},\"schemaString\":");
    VEX_TRY(put_schema_string(out, metadata, valid, err));
    vexi_buffer_text(out, ",\"partitionColumns\":[],\"configuration\":{");
    for (size_t i = 0; i < metadata->configuration_count; i++) {
        if (i > 0) {
            vexi_buffer_u8(out, ',');
        }
        put_string(out, metadata->configuration[i].key, valid);
        vexi_buffer_u8(out, ':');
        put_string(out, metadata->configuration[i].value, valid);
    }
    vexi_buffer_format(out, "},\"createdTime\":%" PRId64 "}}\n", metadata->created_time_ms);
    return VEX_OK;
}

static void put_remove(vexi_buffer *out, const vexi_delta_remove *file, bool *valid) {
    vexi_buffer_text(out, "{\"remove\":{");
    put_path(out, file->path, file->raw_path, valid);
    vexi_buffer_format(out,
                       ",\"deletionTimestamp\":%" PRId64
                       ",\"dataChange\":%s,\"extendedFileMetadata\":true,\"partitionValues\":{}"
                       ",\"size\":%" PRIu64,
                       file->deletion_timestamp_ms, file->data_change ? "true" : "false",
                       file->size_bytes);
    put_dv(out, &file->dv, valid);
    vexi_buffer_text(out, "}}\n");
}

static void put_add(vexi_buffer *out, const vexi_delta_add *file, bool *valid) {
    vexi_buffer_text(out, "{\"add\":{");
    put_path(out, file->path, file->raw_path, valid);
    vexi_buffer_format(out,
                       ",\"partitionValues\":{},\"size\":%" PRIu64 ",\"modificationTime\":%" PRId64
                       ",\"dataChange\":%s",
                       file->size_bytes, file->modification_time_ms,
                       file->data_change ? "true" : "false");
    if (file->row_count >= 0) {
        vexi_buffer_format(out, ",\"stats\":\"{\\\"numRecords\\\":%" PRId64 "%s}\"",
                           file->row_count,
                           file->dv.storage != 0 ? ",\\\"tightBounds\\\":false" : "");
    }
    put_dv(out, &file->dv, valid);
    if (file->index.path.data != NULL) {
        vexi_buffer_text(out, ",\"tags\":{\"" VEXI_TAG_INDEX_PATH "\":");
        put_string(out, file->index.path, valid);
        vexi_buffer_format(out,
                           ",\"" VEXI_TAG_INDEX_SIZE "\":\"%" PRIu64 "\",\"" VEXI_TAG_HEAD_SIZE
                           "\":\"%" PRIu32 "\",\"" VEXI_TAG_HEAD_CRC "\":\"%08" PRIx32 "\"}",
                           file->index.size_bytes, file->index.head_size, file->index.head_crc);
    }
    vexi_buffer_text(out, "}}\n");
}

vex_status vexi_delta_write(const vexi_delta_commit *commit, vexi_buffer *out, vex_error *err) {
    bool valid = true;
    put_commit_info(out, commit, &valid);
    if (commit->protocol.reader_version > 0) {
        put_protocol(out, &commit->protocol, &valid);
    }
    if (commit->metadata.id.data != NULL) {
        VEX_TRY(put_metadata(out, &commit->metadata, &valid, err));
    }
    for (size_t i = 0; i < commit->txn_count; i++) {
        vexi_buffer_text(out, "{\"txn\":{\"appId\":");
        put_string(out, commit->txns[i].app_id, &valid);
        vexi_buffer_format(out, ",\"version\":%" PRId64 ",\"lastUpdated\":%" PRId64 "}}\n",
                           commit->txns[i].version, commit->timestamp_ms);
    }
    for (size_t i = 0; i < commit->remove_count; i++) {
        put_remove(out, &commit->removes[i], &valid);
    }
    for (size_t i = 0; i < commit->add_count; i++) {
        put_add(out, &commit->adds[i], &valid);
    }
    if (!valid) {
        return vexi_fail(err, VEX_INVALID,
                         "a name or path of the commit is not valid UTF-8, or is "
                         "no path inside the table");
    }
    VEX_TRY(vexi_buffer_check(out, err));
    if (out->size > VEXI_DELTA_COMMIT_SIZE_MAX) {
        return vexi_fail(err, VEX_LIMIT, "a commit of %zu bytes", out->size);
    }
    return VEX_OK;
}

/* ---- Configuration --------------------------------------------------------------------------- */

static bool set_pair(vexi_arena *arena, vexi_delta_pair *pairs, size_t *count, const char *key,
                     const char *value) {
    size_t size = strlen(value);
    char *copy = vexi_arena_copy(arena, value, size);
    pairs[*count].key = vexi_string_of(key);
    pairs[*count].value = (vex_string){copy, size};
    *count += 1;
    return copy != NULL;
}

/* A recall in millionths, so that no locale puts its comma into it. */
static void format_recall(float recall, char out[16]) {
    double units = (double)recall * VEXI_RECALL_UNITS + 0.5;
    unsigned value = units < 1                    ? 1
                     : units >= VEXI_RECALL_UNITS ? VEXI_RECALL_UNITS
                                                  : (unsigned)units;
    int size = snprintf(out, 16, "%u.%06u", value / VEXI_RECALL_UNITS, value % VEXI_RECALL_UNITS);
    while (out[size - 1] == '0' && out[size - 2] != '.') {
        size--;
    }
    out[size] = '\0';
}

vex_status vexi_delta_configure(const vexi_schema *schema, bool dv, bool dropped, vexi_arena *arena,
                                const vexi_delta_pair **out, size_t *out_count, vex_error *err) {
    *out = NULL;
    *out_count = 0;
    enum { PAIR_COUNT_MAX = 9 };
    vexi_delta_pair *pairs = vexi_arena_calloc(arena, PAIR_COUNT_MAX, sizeof *pairs);
    if (pairs == NULL) {
        return vexi_no_memory(err, PAIR_COUNT_MAX * sizeof *pairs);
    }
    VEX_ASSERT((unsigned)schema->metric < 3 && (unsigned)schema->index < 4);
    VEX_ASSERT(schema->bits == 0 || vexi_schema_bits_valid(schema->bits));
    char version[32], dimension[32], seed[32], bits[32], recall[16];
    snprintf(version, sizeof version, "%d", VEXI_DELTA_FORMAT_VERSION);
    snprintf(dimension, sizeof dimension, "%" PRIu32, schema->dimension);
    snprintf(seed, sizeof seed, "%" PRIu64, schema->rotation_seed);
    snprintf(bits, sizeof bits, "%" PRIu32, schema->bits);
    format_recall(schema->recall, recall);
    size_t count = 0;
    bool ok = set_pair(arena, pairs, &count, VEXI_KEY_FORMAT_VERSION, version);
    ok = ok && set_pair(arena, pairs, &count, VEXI_KEY_DIMENSION, dimension);
    ok = ok &&
         set_pair(arena, pairs, &count, VEXI_KEY_METRIC, vexi_delta_metric_names[schema->metric]);
    ok =
        ok && set_pair(arena, pairs, &count, VEXI_KEY_INDEX, vexi_delta_index_names[schema->index]);
    ok = ok && set_pair(arena, pairs, &count, VEXI_KEY_ROTATION_SEED, seed);
    if (schema->recall > 0) {
        ok = ok && set_pair(arena, pairs, &count, VEXI_KEY_RECALL, recall);
    }
    if (schema->bits != 0) {
        ok = ok && set_pair(arena, pairs, &count, VEXI_KEY_BITS, bits);
    }
    if (dv) {
        ok = ok && set_pair(arena, pairs, &count, VEXI_KEY_ENABLE_DV, "true");
    }
    if (dropped) {
        ok = ok && set_pair(arena, pairs, &count, VEXI_KEY_DROPPED, "true");
    }
    if (!ok) {
        return vexi_no_memory(err, PAIR_COUNT_MAX * sizeof *pairs);
    }
    *out = pairs;
    *out_count = count;
    return VEX_OK;
}

vex_string vexi_delta_configured(const vexi_delta_metadata *metadata, const char *key) {
    for (size_t i = 0; i < metadata->configuration_count; i++) {
        if (vexi_string_is(metadata->configuration[i].key, key)) {
            return metadata->configuration[i].value;
        }
    }
    return (vex_string){NULL, 0};
}
