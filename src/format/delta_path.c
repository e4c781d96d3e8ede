/* Paths in the Delta log: URI-encoded and relative to the table's root.
 *
 * A path decides which object is read or, later, deleted, so one that leaves the root is refused
 * and not repaired. Absolute ones (shallow clones) are legal in the protocol but not served. */
#include "base/utf8.h"
#include "format/delta_internal.h"

static bool is_letter(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

/* scheme ":" of RFC 3986, or a leading slash. */
static bool is_absolute(vex_string path) {
    if (path.size > 0 && path.data[0] == '/') {
        return true;
    }
    for (size_t i = 0; i < path.size; i++) {
        uint8_t c = (uint8_t)path.data[i];
        if (c == ':') {
            return i > 0;
        }
        if (!is_letter(c) && (i == 0 || (!is_digit(c) && c != '+' && c != '-' && c != '.'))) {
            return false;
        }
    }
    return false;
}

bool vexi_path_safe(vex_string path) {
    if (path.size == 0 || !vexi_utf8_valid(path.data, path.size)) {
        return false;
    }
    size_t start = 0;
    for (size_t i = 0; i <= path.size; i++) {
        if (i < path.size && path.data[i] != '/') {
            uint8_t c = (uint8_t)path.data[i];
            if (c < 0x20 || c == 0x7f || c == '\\') {
                return false;
            }
            continue;
        }
        vex_string segment = {path.data + start, i - start};
        if (segment.size == 0 || vexi_string_is(segment, ".") || vexi_string_is(segment, "..")) {
            return false;
        }
        start = i + 1;
    }
    return true;
}

vex_status vexi_path_decode(vex_string raw, vexi_arena *arena, vex_string *out, vex_error *err) {
    *out = (vex_string){NULL, 0};
    int shown = (int)(raw.size > 200 ? 200 : raw.size);
    if (is_absolute(raw)) {
        return vexi_fail(err, VEX_UNSUPPORTED, "absolute path '%.*s' in the table's log", shown,
                         raw.data);
    }
    char *path = vexi_arena_alloc(arena, raw.size + 1);
    if (path == NULL) {
        return vexi_no_memory(err, raw.size + 1);
    }
    size_t size = 0;
    for (size_t i = 0; i < raw.size; i++) {
        if (raw.data[i] != '%') {
            path[size++] = raw.data[i];
            continue;
        }
        int high = raw.size - i > 2 ? vexi_hex_digit(raw.data[i + 1]) : -1;
        int low = high < 0 ? -1 : vexi_hex_digit(raw.data[i + 2]);
        if (low < 0) {
            return vexi_fail(err, VEX_CORRUPT, "badly encoded path '%.*s' in the table's log",
                             shown, raw.data);
        }
        path[size++] = (char)(high * 16 + low);
        i += 2;
    }
    path[size] = '\0';
    if (!vexi_path_safe((vex_string){path, size})) {
        return vexi_fail(err, VEX_CORRUPT, "path '%.*s' in the table's log leads out of the table",
                         shown, raw.data);
    }
    *out = (vex_string){path, size};
    return VEX_OK;
}

void vexi_path_encode(vex_string path, vexi_buffer *out) {
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < path.size; i++) {
        uint8_t c = (uint8_t)path.data[i];
        if (is_letter(c) || is_digit(c) || c == '-' || c == '.' || c == '_' || c == '~' ||
            c == '/') {
            vexi_buffer_u8(out, c);
        } else {
            char encoded[3] = {'%', digits[c >> 4], digits[c & 15]};
            vexi_buffer_append(out, encoded, sizeof encoded);
        }
    }
}
