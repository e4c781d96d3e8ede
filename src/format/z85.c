/* Z85: see z85.h. The decoder's table is a search string turned around by hand, so that it is
 * constant data; 255 marks what is outside the alphabet. */
#include "format/z85.h"

static const char alphabet[86] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 ".-:+=^!/*?&<>()[]{}@%$#";

#define NO 255
/* By character from 0x20 to 0x7f. */
static const uint8_t values[96] = {
    NO, 68, NO, 84, 83, 82, 72, NO,
    75, 76, 70, 65, NO, 63, 62, 69, /*   ! " # $ % & ' ( ) * + , - . / */
    0,  1,  2,  3,  4,  5,  6,  7,
    8,  9,  64, NO, 73, 66, 74, 71, /* 0-9 : ; < = > ? */
    81, 36, 37, 38, 39, 40, 41, 42,
    43, 44, 45, 46, 47, 48, 49, 50, /* @ A-O */
    51, 52, 53, 54, 55, 56, 57, 58,
    59, 60, 61, 77, NO, 78, 67, NO, /* P-Z [ \ ] ^ _ */
    NO, 10, 11, 12, 13, 14, 15, 16,
    17, 18, 19, 20, 21, 22, 23, 24, /* ` a-o */
    25, 26, 27, 28, 29, 30, 31, 32,
    33, 34, 35, 79, NO, 80, NO, NO, /* p-z { | } ~ DEL */
};

void vexi_z85_encode(vexi_span data, char *out) {
    for (size_t i = 0; i < data.size; i += 4) {
        uint32_t group = 0;
        for (size_t k = 0; k < 4; k++) {
            group = group << 8 | (i + k < data.size ? data.data[i + k] : 0u);
        }
        for (size_t k = 5; k-- > 0; group /= 85) {
            out[k] = alphabet[group % 85];
        }
        out += 5;
    }
}

vex_status vexi_z85_decode(vex_string text, uint8_t *out, vex_error *err) {
    if (text.size % 5 != 0) {
        return vexi_fail(err, VEX_CORRUPT, "Z85 text of %zu characters", text.size);
    }
    for (size_t i = 0; i < text.size; i += 5) {
        uint64_t group = 0;
        for (size_t k = 0; k < 5; k++) {
            uint8_t c = (uint8_t)text.data[i + k];
            uint8_t value = c < 0x20 || c >= 0x80 ? NO : values[c - 0x20];
            if (value == NO) {
                return vexi_fail(err, VEX_CORRUPT, "Z85 text with the byte 0x%02x", c);
            }
            group = group * 85 + value;
        }
        if (group > UINT32_MAX) {
            return vexi_fail(err, VEX_CORRUPT, "Z85 text with a group that is too large");
        }
        out[0] = (uint8_t)(group >> 24);
        out[1] = (uint8_t)(group >> 16);
        out[2] = (uint8_t)(group >> 8);
        out[3] = (uint8_t)group;
        out += 4;
    }
    return VEX_OK;
}
