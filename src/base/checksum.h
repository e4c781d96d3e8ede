/* CRC-32C (Castagnoli) for our own files, CRC-32 (IEEE, zlib's) for Delta deletion vectors, and
 * XXH64 for hash tables on disk (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md).
 */
#ifndef VEXI_BASE_CHECKSUM_H
#define VEXI_BASE_CHECKSUM_H

#include "base/status.h"

/* CRC-32C of size bytes, continuing from `crc` (0 to begin). Hardware instructions where the CPU
 * has them. */
uint32_t vexi_crc32c(uint32_t crc, const void *data, size_t size);
/* The table version: the specification, for tests. */
uint32_t vexi_crc32c_portable(uint32_t crc, const void *data, size_t size);
uint32_t vexi_crc32(uint32_t crc, const void *data, size_t size);
uint64_t vexi_hash64(const void *data, size_t size);

#endif
