/* Delta deletion vectors: a set of row positions as a 64-bit Roaring bitmap array
 * (magic 1681511377, portable format), inline (Z85) or in a file of its own. */
#ifndef VEXI_FORMAT_DELETION_VECTOR_H
#define VEXI_FORMAT_DELETION_VECTOR_H

#include "base/buffer.h"
#include "format/delta.h"

enum { VEXI_DV_INLINE_SIZE_MAX = 1024 }; /* larger ones go to a file */

/* Encode the set bits of `hidden` (row_count bits) as the Roaring data alone. */
vex_status vexi_dv_encode(const uint64_t *hidden, uint64_t row_count, vexi_buffer *out,
                          vex_error *err);

/* Set the bits of the encoded rows in `hidden` (row_count bits; bits already set stay). Structure
 * is checked before it is trusted: VEX_CORRUPT for bad bytes, a row >= row_count, or a cardinality
 * other than expected; VEX_UNSUPPORTED for Delta's older native form. Sets nothing on failure. */
vex_status vexi_dv_decode(vexi_span data, uint64_t row_count, uint64_t cardinality,
                          uint64_t *hidden, vex_error *err);

/* A deletion-vector file with one vector: 0x01, then at offset 1 big-endian size, data, big-endian
 * CRC-32. */
vex_status vexi_dv_file_write(vexi_span data, vexi_buffer *out, vex_error *err);
/* The data of the vector that a descriptor names, out of its whole file. */
vex_status vexi_dv_file_find(vexi_span file, const vexi_delta_dv *dv, vexi_span *out,
                             vex_error *err);

/* Descriptors: inline from data; file from a uuid (36 characters). */
vex_status vexi_dv_inline(vexi_span data, uint64_t cardinality, vexi_arena *arena,
                          vexi_delta_dv *out, vex_error *err);
vex_status vexi_dv_by_uuid(const char *uuid, size_t data_size, uint64_t cardinality,
                           vexi_arena *arena, vexi_delta_dv *out, vex_error *err);
/* The bytes of an inline descriptor. */
vex_status vexi_dv_inline_data(const vexi_delta_dv *dv, vexi_arena *arena, vexi_span *out,
                               vex_error *err);
/* Object name relative to the table root of a 'u' descriptor (with its random prefix folder, if
 * any): deletion_vector_<uuid>.bin. */
vex_status vexi_dv_object_name(const vexi_delta_dv *dv, vexi_arena *arena, const char **out,
                               vex_error *err);

#endif
