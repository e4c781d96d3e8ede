#include "base/utf8.h"

#include <string.h>

bool vexi_utf8_valid(const void *data, size_t size) {
    const uint8_t *p = data;
    size_t i = 0;
    while (i < size) {
        if (i + 8 <= size) {
            uint64_t word;
            memcpy(&word, p + i, 8);
            if ((word & 0x8080808080808080u) == 0) {
                i += 8;
                continue;
            }
        }
        uint8_t lead = p[i];
        if (lead < 0x80) {
            i++;
            continue;
        }
        size_t extra;
        uint32_t code;
        uint32_t least;
        if (lead >= 0xc2 && lead <= 0xdf) {
            extra = 1, code = lead & 0x1fu, least = 0x80;
        } else if (lead >= 0xe0 && lead <= 0xef) {
            extra = 2, code = lead & 0x0fu, least = 0x800;
        } else if (lead >= 0xf0 && lead <= 0xf4) {
            extra = 3, code = lead & 0x07u, least = 0x10000;
        } else {
            return false;
        }
        if (extra >= size - i) {
            return false;
        }
        for (size_t j = 1; j <= extra; j++) {
            if ((p[i + j] & 0xc0) != 0x80) {
                return false;
            }
            code = code << 6 | (p[i + j] & 0x3fu);
        }
        if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
            return false;
        }
        i += extra + 1;
    }
    return true;
}
