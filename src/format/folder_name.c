/* Folders of collections: the name with every byte outside [a-z0-9_-] as ~hh; where that passes the
 * 255 bytes of a file's name, "~~" and the name in base32.
 *
 * Reversible, the same on stores that fold case, and never a name that stores treat specially
 * (".", "..", a leading dot, a slash). Only the one encoding of a name is taken back, so two
 * folders never mean one collection. */
#include "base/utf8.h"
#include "format/delta.h"

static bool is_plain(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

vex_status vexi_name_check(vex_string name, vex_error *err) {
    if (name.data == NULL || name.size == 0 || name.size > VEX_NAME_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "a name of %zu bytes; 1 to %u are allowed", name.size,
                         VEX_NAME_SIZE_MAX);
    }
    if (!vexi_utf8_valid(name.data, name.size)) {
        return vexi_fail(err, VEX_INVALID, "the name is not UTF-8");
    }
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = (uint8_t)name.data[i];
        /* C0, DEL, and the C1 controls U+0080 to U+009F. */
        bool c1 = c == 0xc2 && (uint8_t)name.data[i + 1] < 0xa0;
        if (c < 0x20 || c == 0x7f || c1) {
            return vexi_fail(err, VEX_INVALID, "the name has a control character at byte %zu", i);
        }
    }
    return VEX_OK;
}

/* A folder is one name on a file system, which holds 255 bytes at most. */
enum { FOLDER_SIZE_MAX = 255 };

static const char base32_digits[] = "abcdefghijklmnopqrstuvwxyz234567";

/* "~~" and base32 (RFC 4648, lower case, no padding). Returns the size; 128 bytes give 207. */
static size_t encode_long(vex_string name, char *folder) {
    size_t size = 0;
    uint32_t bits = 0;
    uint32_t bit_count = 0;
    folder[size++] = '~';
    folder[size++] = '~';
    for (size_t i = 0; i < name.size; i++) {
        bits = bits << 8 | (uint8_t)name.data[i];
        bit_count += 8;
        while (bit_count >= 5) {
            bit_count -= 5;
            folder[size++] = base32_digits[bits >> bit_count & 31];
        }
    }
    if (bit_count > 0) {
        folder[size++] = base32_digits[bits << (5 - bit_count) & 31];
    }
    return size;
}

static bool decode_long(const char *text, char *name, size_t *name_size) {
    uint32_t bits = 0;
    uint32_t bit_count = 0;
    *name_size = 0;
    for (const char *p = text; *p != '\0'; p++) {
        const char *digit = strchr(base32_digits, *p);
        if (digit == NULL || *name_size == VEX_NAME_SIZE_MAX) {
            return false;
        }
        bits = bits << 5 | (uint32_t)(digit - base32_digits);
        bit_count += 5;
        if (bit_count >= 8) {
            bit_count -= 8;
            name[(*name_size)++] = (char)(bits >> bit_count & 255);
        }
    }
    return true;
}

vex_status vexi_folder_name(vex_string name, vexi_arena *arena, const char **out, vex_error *err) {
    static const char digits[] = "0123456789abcdef";
    *out = NULL;
    VEX_TRY(vexi_name_check(name, err));
    char *folder = vexi_arena_alloc(arena, name.size * 3 + 3);
    if (folder == NULL) {
        return vexi_no_memory(err, name.size * 3 + 3);
    }
    size_t size = 0;
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = (uint8_t)name.data[i];
        if (is_plain(c)) {
            folder[size++] = (char)c;
        } else {
            folder[size++] = '~';
            folder[size++] = digits[c >> 4];
            folder[size++] = digits[c & 15];
        }
    }
    if (size > FOLDER_SIZE_MAX) {
        size = encode_long(name, folder);
    }
    folder[size] = '\0';
    *out = folder;
    return VEX_OK;
}

vex_status vexi_folder_parse(const char *folder, vexi_arena *arena, vex_string *out,
                             vex_error *err) {
    *out = (vex_string){NULL, 0};
    size_t folder_size = strlen(folder);
    if (folder_size > FOLDER_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "a folder's name of %zu bytes is no collection's",
                         folder_size);
    }
    char *name = vexi_arena_alloc(arena, folder_size + VEX_NAME_SIZE_MAX + 1);
    if (name == NULL) {
        return vexi_no_memory(err, folder_size + VEX_NAME_SIZE_MAX + 1);
    }
    size_t size = 0;
    bool is_long = folder[0] == '~' && folder[1] == '~';
    if (is_long && !decode_long(folder + 2, name, &size)) {
        return vexi_fail(err, VEX_INVALID, "no collection has the folder '%s'", folder);
    }
    for (size_t i = is_long ? folder_size : 0; i < folder_size;) {
        if (is_plain((uint8_t)folder[i])) {
            name[size++] = folder[i++];
            continue;
        }
        int high = folder[i] == '~' ? vexi_hex_digit_lower(folder[i + 1]) : -1;
        int low = high < 0 ? -1 : vexi_hex_digit_lower(folder[i + 2]);
        if (low < 0 || is_plain((uint8_t)(high * 16 + low))) {
            return vexi_fail(err, VEX_INVALID, "no collection has the folder '%s'", folder);
        }
        name[size++] = (char)(high * 16 + low);
        i += 3;
    }
    name[size] = '\0';
    vex_string result = {name, size};
    vex_status status = vexi_name_check(result, err);
    if (status != VEX_OK) {
        return vexi_prefix(err, status, "no collection has the folder '%s'", folder);
    }
    if (is_long) {
        /* One name has one folder: the long form only where the plain one does not fit. */
        const char *again;
        VEX_TRY(vexi_folder_name(result, arena, &again, err));
        if (strcmp(again, folder) != 0) {
            return vexi_fail(err, VEX_INVALID, "no collection has the folder '%s'", folder);
        }
    }
    *out = result;
    return VEX_OK;
}
