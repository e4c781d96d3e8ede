/* Z85 (ZeroMQ RFC 32): four bytes as five characters, big-endian; what Delta writes inline deletion
 * vectors and the uuids of deletion-vector files in. */
#ifndef VEXI_FORMAT_Z85_H
#define VEXI_FORMAT_Z85_H

#include "base/bytes.h"

/* Characters for size bytes; the last group is filled up with zero bytes. */
static inline size_t vexi_z85_text_size(size_t size) {
    return (size + 3) / 4 * 5;
}

/* Encode into vexi_z85_text_size(data.size) characters, without a NUL. */
void vexi_z85_encode(vexi_span data, char *out);

/* Decode text.size / 5 * 4 bytes. VEX_CORRUPT for a length that is no multiple of five, a character
 * outside the alphabet, or a group above 2^32 - 1. */
vex_status vexi_z85_decode(vex_string text, uint8_t *out, vex_error *err);

#endif
