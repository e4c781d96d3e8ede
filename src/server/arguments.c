#include "server/arguments.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "resp/resp.h"

bool vexi_word_is(vex_string text, const char *word) {
    size_t i = 0;
    for (; i < text.size; i++) {
        char c = text.data[i];
        if (c >= 'a' && c <= 'z') {
            c = (char)(c - 'a' + 'A');
        }
        if (c != word[i] || c == '\0') {
            return false;
        }
    }
    return word[i] == '\0';
}

static vex_status check_collection(vex_string name, vex_string *collection, vex_error *err) {
    if (name.size == 0 || name.size > VEX_NAME_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "a collection's name is 1 to %u bytes, not %zu",
                         VEX_NAME_SIZE_MAX, name.size);
    }
    *collection = name;
    return VEX_OK;
}

vex_status vexi_take_collection(const vex_string *arguments, uint32_t *count,
                                vex_string *collection, vex_error *err) {
    *collection = (vex_string){.data = "default", .size = 7};
    if (*count < 2 || !vexi_word_is(arguments[*count - 2], "IN")) {
        return VEX_OK;
    }
    *count -= 2;
    return check_collection(arguments[*count + 1], collection, err);
}

vex_status vexi_collection_of(const vex_string *arguments, uint32_t count, vex_string *collection,
                              vex_error *err) {
    return vexi_take_collection(arguments, &count, collection, err);
}

/* Read a whole number within least..most. */
static vex_status parse_count(vex_string text, const char *name, int64_t least, int64_t most,
                              uint32_t *out, vex_error *err) {
    int64_t value;
    if (!vexi_parse_i64(text, &value)) {
        return vexi_fail(err, VEX_INVALID, "%s is not a whole number", name);
    }
    if (value < least || value > most) {
        return vexi_fail(err, VEX_INVALID, "%s must be from %lld to %lld, not %lld", name,
                         (long long)least, (long long)most, (long long)value);
    }
    *out = (uint32_t)value;
    return VEX_OK;
}

/* Read a recall: above 0, at most 1. */
static vex_status parse_recall(const vex_string *arguments, uint32_t count, uint32_t *i, float *out,
                               vex_error *err) {
    if (*i + 1 == count) {
        return vexi_fail(err, VEX_INVALID, "RECALL needs a value");
    }
    vex_string text = arguments[++*i];
    char copy[VEXI_NUMBER_SIZE_MAX + 1]; /* a number ends at the byte behind it */
    float value = 0;
    bool fits = text.size > 0 && text.size < sizeof copy;
    if (fits) {
        memcpy(copy, text.data, text.size);
        copy[text.size] = ' ';
    }
    if (!fits || vexi_parse_float(copy, text.size + 1, &value) != text.size ||
        !(value > 0 && value <= 1)) {
        return vexi_fail(err, VEX_INVALID,
                         "RECALL must be a number above 0 and at most 1, such as 0.95");
    }
    *out = value;
    return VEX_OK;
}

static vex_status unknown_option(const char *command, vex_string option, vex_error *err) {
    char shown[65];
    size_t size = option.size < sizeof shown - 1 ? option.size : sizeof shown - 1;
    for (size_t i = 0; i < size; i++) {
        char c = option.data[i];
        shown[i] = c >= 0x20 && c < 0x7f && c != '\'' ? c : '?';
    }
    shown[size] = '\0';
    return vexi_fail(err, VEX_INVALID, "%s does not know the option '%s'", command, shown);
}

static vex_status too_few(const char *command, vex_error *err) {
    return vexi_fail(err, VEX_INVALID, "wrong number of arguments for '%s' command", command);
}

/* Names of RETURN: no name twice. */
static vex_status check_columns(const vex_string *columns, uint32_t count, vex_error *err) {
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (vexi_string_equal(columns[i], columns[j])) {
                return vexi_fail(err, VEX_INVALID, "RETURN names a column twice");
            }
        }
    }
    return VEX_OK;
}

#define RETURN_MAX (VEX_COLUMNS_MAX + 3)

vex_status vexi_parse_get(const vex_string *arguments, uint32_t count, vexi_get_arguments *out,
                          vex_error *err) {
    *out = (vexi_get_arguments){0};
    VEX_TRY(vexi_take_collection(arguments, &count, &out->collection, err));
    if (count == 0) {
        return too_few("vget", err);
    }
    for (bool found = true; found && count > 1;) {
        found = false;
        /* RETURN n and n columns that end the list, which goes before RAW: a column may be called
         * so. */
        for (uint32_t n = 1; out->columns == NULL && n <= RETURN_MAX && n + 3 <= count; n++) {
            int64_t value;
            const vex_string *word = &arguments[count - n - 2];
            if (word->size == 6 && vexi_word_is(*word, "RETURN") &&
                vexi_parse_i64(arguments[count - n - 1], &value) && value == (int64_t)n) {
                out->columns = &arguments[count - n];
                out->column_count = n;
                count -= n + 2;
                found = true;
                break;
            }
        }
        if (!found && !out->raw && vexi_word_is(arguments[count - 1], "RAW")) {
            out->raw = true;
            count--;
            found = true;
        }
    }
    out->ids = arguments;
    out->id_count = count;
    return check_columns(out->columns, out->column_count, err);
}

vex_status vexi_parse_set(const vex_string *arguments, uint32_t count, vexi_set_arguments *out,
                          vex_error *err) {
    *out = (vexi_set_arguments){0};
    VEX_TRY(vexi_take_collection(arguments, &count, &out->collection, err));
    if (count < 2) {
        return too_few("vset", err);
    }
    out->id = arguments[0];
    out->vector = arguments[1];
    for (uint32_t i = 2; i < count; i += 2) {
        vex_string *value;
        if (vexi_word_is(arguments[i], "ATTRIBUTES")) {
            value = &out->attributes;
        } else if (vexi_word_is(arguments[i], "PAYLOAD")) {
            value = &out->payload;
        } else {
            return unknown_option("VSET", arguments[i], err);
        }
        const char *name = value == &out->payload ? "PAYLOAD" : "ATTRIBUTES";
        if (i + 1 == count) {
            return vexi_fail(err, VEX_INVALID, "%s needs a value", name);
        }
        if (value->data != NULL) {
            return vexi_fail(err, VEX_INVALID, "%s is given twice", name);
        }
        *value = arguments[i + 1];
    }
    return VEX_OK;
}

vex_status vexi_parse_search(const vex_string *arguments, uint32_t count,
                             vexi_search_arguments *out, vex_error *err) {
    *out = (vexi_search_arguments){0};
    uint32_t given = count;
    VEX_TRY(vexi_take_collection(arguments, &count, &out->collection, err));
    bool has_collection = count != given;
    uint32_t i = 0;
    if (count > 0 && vexi_word_is(arguments[0], "ID")) {
        out->by_id = true;
        i = 1;
    }
    if (count < i + 2) {
        return too_few("vsearch", err);
    }
    out->query = arguments[i];
    VEX_TRY(parse_count(arguments[i + 1], "k", 1, VEX_K_MAX, &out->k, err));
    for (i += 2; i < count; i++) {
        if (vexi_word_is(arguments[i], "NPROBE")) {
            if (i + 1 == count) {
                return vexi_fail(err, VEX_INVALID, "NPROBE needs a value");
            }
            VEX_TRY(parse_count(arguments[++i], "NPROBE", 1, 1000000, &out->nprobe, err));
        } else if (vexi_word_is(arguments[i], "EF")) {
            if (i + 1 == count) {
                return vexi_fail(err, VEX_INVALID, "EF needs a value");
            }
            VEX_TRY(parse_count(arguments[++i], "EF", 1, 1000000, &out->ef, err));
        } else if (vexi_word_is(arguments[i], "RECALL")) {
            VEX_TRY(parse_recall(arguments, count, &i, &out->recall, err));
        } else if (vexi_word_is(arguments[i], "EXACT")) {
            out->exact = true;
        } else if (vexi_word_is(arguments[i], "PARTIAL")) {
            out->partial = true;
        } else if (vexi_word_is(arguments[i], "CONSISTENT")) {
            out->consistent = true;
        } else if (vexi_word_is(arguments[i], "WITHVECTORS")) {
            out->with_vectors = true;
        } else if (vexi_word_is(arguments[i], "RAW")) {
            out->raw = true;
        } else if (vexi_word_is(arguments[i], "PROFILE")) {
            out->profile = true;
        } else if (vexi_word_is(arguments[i], "RETURN")) {
            if (i + 1 == count) {
                return vexi_fail(err, VEX_INVALID, "RETURN needs a count and that many columns");
            }
            uint32_t n = 0;
            VEX_TRY(parse_count(arguments[i + 1], "the count of RETURN", 1, RETURN_MAX, &n, err));
            if (n > count - i - 2) {
                return vexi_fail(err, VEX_INVALID, "RETURN %u is followed by %u columns", n,
                                 count - i - 2);
            }
            if (out->columns != NULL) {
                return vexi_fail(err, VEX_INVALID, "RETURN is given twice");
            }
            out->columns = &arguments[i + 2];
            out->column_count = n;
            i += n + 1;
        } else if (vexi_word_is(arguments[i], "IN") && i + 1 < count && !has_collection) {
            has_collection = true;
            VEX_TRY(check_collection(arguments[++i], &out->collection, err));
        } else {
            return unknown_option("VSEARCH", arguments[i], err);
        }
    }
    return check_columns(out->columns, out->column_count, err);
}

static bool same_columns(const vex_string *a, uint32_t a_count, const vex_string *b,
                         uint32_t b_count) {
    if (a_count != b_count) {
        return false;
    }
    for (uint32_t i = 0; i < a_count; i++) {
        if (!vexi_string_equal(a[i], b[i])) {
            return false;
        }
    }
    return true;
}

bool vexi_get_same(const vexi_get_arguments *a, const vexi_get_arguments *b) {
    return a->raw == b->raw && vexi_string_equal(a->collection, b->collection) &&
           same_columns(a->columns, a->column_count, b->columns, b->column_count);
}

bool vexi_search_same(const vexi_search_arguments *a, const vexi_search_arguments *b) {
    return !a->profile && !b->profile && a->by_id == b->by_id && a->k == b->k &&
           a->nprobe == b->nprobe && a->ef == b->ef &&
           !(a->recall < b->recall || a->recall > b->recall) && a->exact == b->exact &&
           a->partial == b->partial && a->consistent == b->consistent &&
           a->with_vectors == b->with_vectors && a->raw == b->raw &&
           vexi_string_equal(a->collection, b->collection) &&
           same_columns(a->columns, a->column_count, b->columns, b->column_count);
}

static bool parse_type(vex_string text, vex_type *out) {
    static const struct {
        const char *name;
        vex_type type;
    } types[] = {{"INT64", VEX_TYPE_INT64},
                 {"DOUBLE", VEX_TYPE_DOUBLE},
                 {"STRING", VEX_TYPE_STRING},
                 {"BOOL", VEX_TYPE_BOOL},
                 {"TIMESTAMP", VEX_TYPE_TIMESTAMP}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (vexi_word_is(text, types[i].name)) {
            *out = types[i].type;
            return true;
        }
    }
    return false;
}

vex_status vexi_parse_create(const vex_string *arguments, uint32_t count,
                             vexi_create_arguments *out, vex_error *err) {
    memset(out, 0, sizeof *out);
    out->options.size = sizeof out->options;
    if (count < 3) {
        return too_few("vcreate", err);
    }
    out->name = arguments[0];
    if (!vexi_word_is(arguments[1], "DIM")) {
        return vexi_fail(err, VEX_INVALID, "VCREATE name DIM d: DIM is missing");
    }
    VEX_TRY(parse_count(arguments[2], "DIM", 1, VEX_DIMENSION_MAX, &out->options.dimension, err));
    for (uint32_t i = 3; i < count; i++) {
        bool last = i + 1 == count;
        if (vexi_word_is(arguments[i], "METRIC")) {
            if (!last && vexi_word_is(arguments[i + 1], "L2")) {
                out->options.metric = VEX_METRIC_L2;
            } else if (!last && vexi_word_is(arguments[i + 1], "COSINE")) {
                out->options.metric = VEX_METRIC_COSINE;
            } else if (!last && vexi_word_is(arguments[i + 1], "IP")) {
                out->options.metric = VEX_METRIC_IP;
            } else {
                return vexi_fail(err, VEX_INVALID, "METRIC is one of l2, cosine, ip");
            }
            i++;
        } else if (vexi_word_is(arguments[i], "INDEX")) {
            if (!last && vexi_word_is(arguments[i + 1], "AUTO")) {
                out->options.index = VEX_INDEX_AUTO;
            } else if (!last && vexi_word_is(arguments[i + 1], "IVF")) {
                out->options.index = VEX_INDEX_IVF;
            } else if (!last && vexi_word_is(arguments[i + 1], "HNSW")) {
                out->options.index = VEX_INDEX_HNSW;
            } else if (!last && vexi_word_is(arguments[i + 1], "FLAT")) {
                out->options.index = VEX_INDEX_FLAT;
            } else {
                return vexi_fail(err, VEX_INVALID, "INDEX is one of auto, ivf, hnsw, flat");
            }
            i++;
        } else if (vexi_word_is(arguments[i], "RECALL")) {
            VEX_TRY(parse_recall(arguments, count, &i, &out->options.recall, err));
        } else if (vexi_word_is(arguments[i], "BITS")) {
            uint32_t bits = 0;
            if (last || parse_count(arguments[i + 1], "BITS", 1, 8, &bits, NULL) != VEX_OK ||
                (bits != 1 && bits != 4 && bits != 8)) {
                return vexi_fail(err, VEX_INVALID, "BITS is one of 1, 4, 8");
            }
            out->options.bits = bits;
            i++;
        } else if (vexi_word_is(arguments[i], "COLUMNS")) {
            uint32_t left = count - i - 1;
            if (left == 0 || left % 2 != 0 || left / 2 > VEX_COLUMNS_MAX) {
                return vexi_fail(err, VEX_INVALID,
                                 "COLUMNS needs 1 to %u pairs of a name and a type",
                                 VEX_COLUMNS_MAX);
            }
            for (uint32_t c = 0; c < left / 2; c++) {
                out->columns[c].name = arguments[i + 1 + 2 * c];
                if (!parse_type(arguments[i + 2 + 2 * c], &out->columns[c].type)) {
                    return vexi_fail(
                        err, VEX_INVALID,
                        "a column's type is one of int64, double, string, bool, timestamp");
                }
            }
            out->options.columns = out->columns;
            out->options.column_count = left / 2;
            return VEX_OK;
        } else {
            return unknown_option("VCREATE", arguments[i], err);
        }
    }
    return VEX_OK;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

bool vexi_vector_is_text(vex_string text) {
    if (text.size < 2 || text.data[0] != '[' || text.data[text.size - 1] != ']') {
        return false;
    }
    for (size_t i = 1; i < text.size - 1; i++) {
        char c = text.data[i];
        bool number = (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.' || c == 'e' ||
                      c == 'E' || c == ',';
        if (!number && !is_space(c)) {
            return false;
        }
    }
    return true;
}

/* "[1, 2.5]": numbers, one comma between two of them. */
static vex_status parse_text(vex_string text, vexi_arena *arena, const float **values,
                             uint32_t *dimension, vex_error *err) {
    size_t count = 1;
    for (size_t i = 1; i < text.size - 1; i++) {
        count += text.data[i] == ',' ? 1 : 0;
    }
    if (count > VEX_DIMENSION_MAX) {
        return vexi_fail(err, VEX_INVALID, "the vector has %zu values, more than %u", count,
                         VEX_DIMENSION_MAX);
    }
    float *out = vexi_arena_array(arena, count, sizeof *out);
    if (out == NULL) {
        return vexi_no_memory(err, count * sizeof *out);
    }
    size_t end = text.size - 1;
    size_t i = 1;
    for (size_t n = 0; n < count; n++) {
        while (i < end && is_space(text.data[i])) {
            i++;
        }
        if (count == 1 && i == end) {
            return vexi_fail(err, VEX_INVALID, "the vector is empty");
        }
        size_t size = vexi_parse_float(text.data + i, text.size - i, &out[n]);
        if (size == 0) {
            return vexi_fail(err, VEX_INVALID, "the vector's text has no number at byte %zu", i);
        }
        if (isinf(out[n])) {
            return vexi_fail(err, VEX_INVALID, "value %zu of the vector is beyond float32's range",
                             n);
        }
        i += size;
        while (i < end && is_space(text.data[i])) {
            i++;
        }
        char expected = n + 1 == count ? ']' : ',';
        if (text.data[i] != expected) {
            return vexi_fail(err, VEX_INVALID, "the vector's text has '%c' at byte %zu, not '%c'",
                             text.data[i], i, expected);
        }
        i++;
    }
    *values = out;
    *dimension = (uint32_t)count;
    return VEX_OK;
}

vex_status vexi_parse_vector(vex_string text, vexi_arena *arena, const float **values,
                             uint32_t *dimension, vex_error *err) {
    *values = NULL;
    *dimension = 0;
    if (vexi_vector_is_text(text)) {
        return parse_text(text, arena, values, dimension, err);
    }
    if (text.size == 0) {
        return vexi_fail(err, VEX_INVALID, "the vector is empty");
    }
    if (text.size % 4 != 0) {
        if (text.data[0] == '[') {
            return vexi_fail(err, VEX_INVALID,
                             "the vector's text must end with ] and hold nothing but numbers, "
                             "commas and white space; as a blob its %zu bytes are no multiple of 4",
                             text.size);
        }
        return vexi_fail(err, VEX_INVALID,
                         "the vector is neither text like [0.1, 0.2] nor a blob of float32: %zu "
                         "bytes are no multiple of 4",
                         text.size);
    }
    size_t count = text.size / 4;
    if (count > VEX_DIMENSION_MAX) {
        return vexi_fail(err, VEX_INVALID, "the vector has %zu values, more than %u", count,
                         VEX_DIMENSION_MAX);
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if ((uintptr_t)text.data % _Alignof(float) == 0) {
        *values = (const float *)(const void *)text.data;
        *dimension = (uint32_t)count;
        return VEX_OK;
    }
#endif
    float *out = vexi_arena_array(arena, count, sizeof *out);
    if (out == NULL) {
        return vexi_no_memory(err, text.size);
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(out, text.data, text.size);
#else
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = vexi_get_u32((const uint8_t *)text.data + 4 * i);
        memcpy(&out[i], &bits, sizeof bits);
    }
#endif
    *values = out;
    *dimension = (uint32_t)count;
    return VEX_OK;
}
