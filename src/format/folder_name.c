/* Folders of collections: the name with every byte outside [a-z0-9_-] as ~hh.
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

vex_status vexi_folder_name(vex_string name, vexi_arena *arena, const char **out, vex_error *err) {
    static const char digits[] = "0123456789abcdef";
    *out = NULL;
    VEX_TRY(vexi_name_check(name, err));
    char *folder = vexi_arena_alloc(arena, name.size * 3 + 1);
    if (folder == NULL) {
        return vexi_no_memory(err, name.size * 3 + 1);
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
    folder[size] = '\0';
    *out = folder;
    return VEX_OK;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

vex_status vexi_folder_parse(const char *folder, vexi_arena *arena, vex_string *out,
                             vex_error *err) {
    *out = (vex_string){NULL, 0};
    size_t folder_size = strlen(folder);
    if (folder_size > VEX_NAME_SIZE_MAX * 3) {
        return vexi_fail(err, VEX_INVALID, "a folder's name of %zu bytes is no collection's",
                         folder_size);
    }
    char *name = vexi_arena_alloc(arena, folder_size + 1);
    if (name == NULL) {
        return vexi_no_memory(err, folder_size + 1);
    }
    size_t size = 0;
    for (size_t i = 0; i < folder_size;) {
        if (is_plain((uint8_t)folder[i])) {
            name[size++] = folder[i++];
            continue;
        }
        int high = folder[i] == '~' ? hex_digit(folder[i + 1]) : -1;
        int low = high < 0 ? -1 : hex_digit(folder[i + 2]);
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
    *out = result;
    return VEX_OK;
}
