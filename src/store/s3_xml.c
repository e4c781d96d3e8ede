/* The XML answers of S3, read by expat.
 *
 * One walk serves all of them: it keeps the path of the element that is open
 * ("ListBucketResult/Contents/Key") and hands path and text over when an element ends. Everything
 * is bounded: depth, path, text (longer ones end the walk), and the body itself before it comes
 * here. A document type declaration ends the walk, so no entity is ever defined, let alone
 * expanded. Namespaces are not looked at: servers disagree about them. */
#define _GNU_SOURCE /* memmem */
#include <expat.h>
#include <string.h>

#include "store/s3_internal.h"

enum { DEPTH_MAX = 16, PATH_SIZE_MAX = 256 };

typedef struct walk {
    XML_Parser parser;
    char path[PATH_SIZE_MAX];
    size_t path_size;
    size_t depth;
    char text[VEXI_S3_XML_TEXT_SIZE_MAX];
    size_t text_size;
    const char *problem; /* what ended the walk */
    /* Called when an element ends; false ends the walk with a status of its own. */
    bool (*on_element)(void *context, const char *path, const char *text);
    void (*on_begin)(void *context, const char *path); /* or NULL */
    void *context;
    bool was_stopped;
} walk;

static void stop(walk *w, const char *problem) {
    w->problem = w->problem == NULL ? problem : w->problem;
    (void)XML_StopParser(w->parser, XML_FALSE);
}

static void XMLCALL begin_element(void *context, const XML_Char *name,
                                  const XML_Char **attributes) {
    (void)attributes;
    walk *w = context;
    size_t size = strlen(name);
    size_t slash = w->path_size > 0 ? 1 : 0;
    if (w->depth == DEPTH_MAX || size > PATH_SIZE_MAX - 2 - w->path_size) {
        stop(w, "is nested too deeply");
        return;
    }
    if (slash != 0) {
        w->path[w->path_size] = '/';
    }
    memcpy(w->path + w->path_size + slash, name, size + 1);
    w->path_size += slash + size;
    w->depth++;
    w->text_size = 0;
    if (w->on_begin != NULL) {
        w->on_begin(w->context, w->path);
    }
}

static void XMLCALL end_element(void *context, const XML_Char *name) {
    walk *w = context;
    if (w->problem != NULL || w->was_stopped) {
        return; /* expat may still end an empty element that stopped it */
    }
    w->text[w->text_size] = '\0';
    bool goes_on = w->on_element(w->context, w->path, w->text);
    size_t size = strlen(name);
    VEX_ASSERT(size <= w->path_size && w->depth > 0);
    w->path_size -= size;
    if (w->path_size > 0) {
        w->path_size--;
    }
    w->path[w->path_size] = '\0';
    w->depth--;
    w->text_size = 0;
    if (!goes_on) {
        w->was_stopped = true;
        (void)XML_StopParser(w->parser, XML_FALSE);
    }
}

static void XMLCALL add_text(void *context, const XML_Char *text, int size) {
    walk *w = context;
    if ((size_t)size >= sizeof w->text - w->text_size) {
        stop(w, "has a text that is too long");
        return;
    }
    memcpy(w->text + w->text_size, text, (size_t)size);
    w->text_size += (size_t)size;
}

static void XMLCALL refuse_type(void *context, const XML_Char *name, const XML_Char *system_id,
                                const XML_Char *public_id, int has_internal_subset) {
    (void)name;
    (void)system_id;
    (void)public_id;
    (void)has_internal_subset;
    stop(context, "declares a document type");
}

/* VEX_OK also when on_element ended the walk. */
static vex_status walk_body(walk *w, vexi_span body, vex_error *err) {
    if (body.size > VEXI_S3_BODY_SIZE_MAX) {
        return vexi_fail(err, VEX_CORRUPT, "an answer of %zu bytes of XML is too large", body.size);
    }
    w->parser = XML_ParserCreate("UTF-8");
    if (w->parser == NULL) {
        return vexi_no_memory(err, body.size);
    }
    XML_SetUserData(w->parser, w);
    XML_SetElementHandler(w->parser, begin_element, end_element);
    XML_SetCharacterDataHandler(w->parser, add_text);
    XML_SetStartDoctypeDeclHandler(w->parser, refuse_type);
    enum XML_Status parsed =
        XML_Parse(w->parser, body.size == 0 ? "" : (const char *)body.data, (int)body.size, 1);
    vex_status status = VEX_OK;
    if (parsed != XML_STATUS_OK && !w->was_stopped) {
        enum XML_Error code = XML_GetErrorCode(w->parser);
        if (w->problem != NULL) {
            status = vexi_fail(err, VEX_CORRUPT, "the server's XML %s", w->problem);
        } else if (code == XML_ERROR_NO_MEMORY) {
            status = vexi_no_memory(err, body.size);
        } else {
            status = vexi_fail(err, VEX_CORRUPT, "the server's answer is no XML: %s",
                               XML_ErrorString(code));
        }
    }
    XML_ParserFree(w->parser);
    w->parser = NULL;
    return status;
}

/* Copy what fits, without control characters: texts of a server stand in our messages. */
static void copy_text(char *out, size_t out_size, const char *text) {
    size_t size = 0;
    for (; size + 1 < out_size && text[size] != '\0'; size++) {
        out[size] = text[size] >= 0x20 && text[size] < 0x7f ? text[size] : ' ';
    }
    out[size] = '\0';
}

/* ---- Listings -------------------------------------------------------------------------------- */

typedef struct list_state {
    const vexi_env *env;
    const char *strip;
    size_t strip_size;
    vexi_arena *arena;
    vexi_s3_entries *entries;
    vexi_s3_page *page;
    vex_error *err;
    vex_status status;
    bool is_list;
    bool is_encoded;
    bool has_key;
    char key[VEXI_S3_XML_TEXT_SIZE_MAX];
    uint64_t size_bytes;
    int64_t modified_us;
} list_state;

/* Undo encoding-type=url in place; false for a broken escape or a NUL. */
static bool decode_url(char *text) {
    char *out = text;
    for (const char *in = text; *in != '\0'; in++) {
        if (*in == '%') {
            int high = vexi_hex_digit(in[1]);
            int low = high < 0 ? -1 : vexi_hex_digit(in[2]);
            if (low < 0 || high * 16 + low == 0) {
                return false;
            }
            *out++ = (char)(uint8_t)(high * 16 + low);
            in += 2;
        } else {
            *out++ = *in == '+' ? ' ' : *in;
        }
    }
    *out = '\0';
    return true;
}

/* `count` decimal digits at text, or -1. */
static int64_t digits_at(const char *text, size_t count) {
    int64_t value = 0;
    for (size_t i = 0; i < count; i++) {
        if (text[i] < '0' || text[i] > '9') {
            return -1;
        }
        value = value * 10 + (text[i] - '0');
    }
    return value;
}

/* "2026-11-22T23:43:11.000Z" in microseconds since 1970; 0 for anything else. */
static int64_t parse_time(const char *text) {
    static const char shape[] = "dddd-dd-ddTdd:dd:dd";
    size_t size = strlen(text);
    if (size < sizeof shape - 1) {
        return 0;
    }
    for (size_t i = 0; i + 1 < sizeof shape; i++) {
        bool is_digit = text[i] >= '0' && text[i] <= '9';
        if (shape[i] == 'd' ? !is_digit : text[i] != shape[i]) {
            return 0;
        }
    }
    int64_t year = digits_at(text, 4), month = digits_at(text + 5, 2), day = digits_at(text + 8, 2);
    int64_t seconds =
        digits_at(text + 11, 2) * 3600 + digits_at(text + 14, 2) * 60 + digits_at(text + 17, 2);
    if (month < 1 || month > 12 || day < 1 || day > 31) {
        return 0;
    }
    int64_t millis = size >= 23 && text[19] == '.' ? digits_at(text + 20, 3) : 0;
    /* Days since 1970-01-01, years counted from March. */
    year -= month <= 2 ? 1 : 0;
    int64_t era = year / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t days = era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
                   day_of_year - 719468;
    return (days * 86400 + seconds) * 1000000 + (millis > 0 ? millis * 1000 : 0);
}

static uint64_t parse_size(const char *text, bool *ok) {
    uint64_t value = 0;
    *ok = *text != '\0';
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9' || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value)) {
            *ok = false;
            return 0;
        }
    }
    return value;
}

static bool list_fail(list_state *s, const char *problem) {
    s->status = vexi_fail(s->err, VEX_CORRUPT, "the server's listing has %s", problem);
    return false;
}

/* Add the entry in s->key. */
static bool list_add(list_state *s, bool is_folder) {
    if (s->is_encoded && !decode_url(s->key)) {
        return list_fail(s, "a key that is wrongly encoded");
    }
    size_t size = strlen(s->key);
    if (size <= s->strip_size || memcmp(s->key, s->strip, s->strip_size) != 0) {
        return true;
    }
    char *name = s->key + s->strip_size;
    size -= s->strip_size;
    bool ends_with_slash = name[size - 1] == '/';
    if (ends_with_slash != is_folder) {
        return true; /* a folder's marker */
    }
    if (is_folder) {
        name[size - 1] = '\0';
    }
    bool is_valid = vexi_store_name_valid(name);
    if (is_folder) {
        name[size - 1] = '/';
    }
    if (!is_valid) {
        return true; /* not ours, and no operation could name it */
    }
    void *memory = s->entries->entries;
    s->status = vexi_grow(s->env, &memory, &s->entries->capacity, s->entries->count,
                          s->entries->count + 1, sizeof *s->entries->entries, s->err);
    s->entries->entries = memory;
    if (s->status != VEX_OK) {
        return false;
    }
    char *copy = vexi_arena_copy(s->arena, name, size);
    if (copy == NULL) {
        s->status = vexi_no_memory(s->err, size);
        return false;
    }
    s->entries->entries[s->entries->count++] =
        (vexi_list_entry){.name = copy,
                          .size_bytes = is_folder ? 0 : s->size_bytes,
                          .modified_us = is_folder ? 0 : s->modified_us,
                          .is_folder = is_folder};
    return true;
}

static void list_begin(void *context, const char *path) {
    list_state *s = context;
    if (strcmp(path, "ListBucketResult") == 0) {
        s->is_list = true;
    } else if (strcmp(path, "ListBucketResult/Contents") == 0 ||
               strcmp(path, "ListBucketResult/CommonPrefixes") == 0) {
        s->has_key = false;
        s->key[0] = '\0';
        s->size_bytes = 0;
        s->modified_us = 0;
    }
}

static bool list_element(void *context, const char *path, const char *text) {
    list_state *s = context;
    static const char root[] = "ListBucketResult/";
    if (strncmp(path, root, sizeof root - 1) != 0) {
        return true;
    }
    const char *name = path + sizeof root - 1;
    if (strcmp(name, "Contents/Key") == 0 || strcmp(name, "CommonPrefixes/Prefix") == 0) {
        memcpy(s->key, text, strlen(text) + 1);
        s->has_key = true;
    } else if (strcmp(name, "Contents/Size") == 0) {
        bool ok = false;
        s->size_bytes = parse_size(text, &ok);
        return ok || list_fail(s, "a size that is no number");
    } else if (strcmp(name, "Contents/LastModified") == 0) {
        s->modified_us = parse_time(text);
    } else if (strcmp(name, "Contents") == 0 || strcmp(name, "CommonPrefixes") == 0) {
        return s->has_key ? list_add(s, name[1] == 'o' && name[2] == 'm')
                          : list_fail(s, "an entry without a key");
    } else if (strcmp(name, "IsTruncated") == 0) {
        s->page->is_truncated = strcmp(text, "true") == 0;
    } else if (strcmp(name, "NextContinuationToken") == 0) {
        memcpy(s->page->token, text, strlen(text) + 1);
    }
    return true;
}

vex_status vexi_s3_parse_list(const vexi_env *env, vexi_span body, const char *strip,
                              vexi_arena *arena, vexi_s3_entries *entries, vexi_s3_page *page,
                              vex_error *err) {
    page->is_truncated = false;
    page->token[0] = '\0';
    list_state state = {.env = env,
                        .strip = strip,
                        .strip_size = strlen(strip),
                        .arena = arena,
                        .entries = entries,
                        .page = page,
                        .err = err};
    /* Looked for beforehand: servers put it before the keys or behind them. */
    static const char encoded[] = "<EncodingType>url</EncodingType>";
    state.is_encoded =
        body.size > 0 && memmem(body.data, body.size, encoded, sizeof encoded - 1) != NULL;
    walk w = {.on_element = list_element, .on_begin = list_begin, .context = &state};
    VEX_TRY(walk_body(&w, body, err));
    VEX_TRY(state.status);
    if (!state.is_list) {
        return vexi_fail(err, VEX_CORRUPT, "the server's answer is no listing");
    }
    if (page->is_truncated && page->token[0] == '\0') {
        return vexi_fail(err, VEX_CORRUPT, "the server's listing is cut without a next page");
    }
    return VEX_OK;
}

/* ---- Errors ---------------------------------------------------------------------------------- */

static void set_error_field(vexi_s3_answer_error *error, const char *name, const char *text) {
    if (strcmp(name, "Code") == 0) {
        copy_text(error->code, sizeof error->code, text);
    } else if (strcmp(name, "Message") == 0) {
        copy_text(error->message, sizeof error->message, text);
    } else if (strcmp(name, "Region") == 0) {
        copy_text(error->region, sizeof error->region, text);
    }
}

static bool error_element(void *context, const char *path, const char *text) {
    if (strncmp(path, "Error/", 6) == 0) {
        set_error_field(context, path + 6, text);
    }
    return true;
}

bool vexi_s3_parse_error(vexi_span body, vexi_s3_answer_error *out) {
    *out = (vexi_s3_answer_error){0};
    walk w = {.on_element = error_element, .context = out};
    return walk_body(&w, body, NULL) == VEX_OK && out->code[0] != '\0';
}

typedef struct delete_state {
    vexi_s3_answer_error error; /* the first */
    char *key;
    bool failed;
    bool ended; /* the first error's fields are read */
    bool is_result;
} delete_state;

static void delete_begin(void *context, const char *path) {
    delete_state *s = context;
    s->is_result = s->is_result || strcmp(path, "DeleteResult") == 0;
}

static bool delete_element(void *context, const char *path, const char *text) {
    delete_state *s = context;
    static const char root[] = "DeleteResult/Error";
    if (s->ended || strncmp(path, root, sizeof root - 1) != 0) {
        return true;
    }
    const char *name = path + sizeof root - 1;
    if (name[0] == '\0') {
        s->failed = true;
        s->ended = true;
    } else if (strcmp(name, "/Key") == 0) {
        copy_text(s->key, VEXI_STORE_NAME_SIZE_MAX + 1, text);
    } else if (name[0] == '/') {
        set_error_field(&s->error, name + 1, text);
    }
    return true;
}

vex_status vexi_s3_parse_delete(vexi_span body, bool *failed, vexi_s3_answer_error *out,
                                char key[VEXI_STORE_NAME_SIZE_MAX + 1], vex_error *err) {
    *failed = false;
    key[0] = '\0';
    delete_state state = {.key = key};
    walk w = {.on_element = delete_element, .on_begin = delete_begin, .context = &state};
    VEX_TRY(walk_body(&w, body, err));
    if (!state.is_result) {
        return vexi_fail(err, VEX_CORRUPT, "the server's answer is no result of a deletion");
    }
    *failed = state.failed;
    *out = state.error;
    return VEX_OK;
}

/* ---- Uploads --------------------------------------------------------------------------------- */

typedef struct upload_state {
    char *out;
    size_t out_size;
} upload_state;

static bool upload_element(void *context, const char *path, const char *text) {
    upload_state *s = context;
    size_t size = strlen(text);
    if (strcmp(path, "InitiateMultipartUploadResult/UploadId") == 0 && size < s->out_size) {
        memcpy(s->out, text, size + 1);
    }
    return true;
}

vex_status vexi_s3_parse_upload_id(vexi_span body, char *out, size_t out_size, vex_error *err) {
    out[0] = '\0';
    upload_state state = {.out = out, .out_size = out_size};
    walk w = {.on_element = upload_element, .context = &state};
    VEX_TRY(walk_body(&w, body, err));
    if (out[0] == '\0') {
        return vexi_fail(err, VEX_CORRUPT, "the server named no multipart upload");
    }
    return VEX_OK;
}

void vexi_s3_xml_escape(vexi_buffer *out, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&':
            vexi_buffer_text(out, "&amp;");
            break;
        case '<':
            vexi_buffer_text(out, "&lt;");
            break;
        case '>':
            vexi_buffer_text(out, "&gt;");
            break;
        case '"':
            vexi_buffer_text(out, "&quot;");
            break;
        default:
            vexi_buffer_append(out, text, 1);
        }
    }
}
