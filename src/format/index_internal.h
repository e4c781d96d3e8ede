/* Layout of an index file, for its writer and its reader; docs/format.md tells the same in prose.
 */
#ifndef VEXI_FORMAT_INDEX_INTERNAL_H
#define VEXI_FORMAT_INDEX_INTERNAL_H

#include "base/checksum.h"
#include "format/index_file.h"

enum {
    VEXI_INDEX_VERSION = 2,       /* newest that is read; written where there are codes */
    VEXI_INDEX_VERSION_PLAIN = 1, /* written where there are none, so that all read it */
    VEXI_INDEX_ALIGNMENT = 64,
    VEXI_INDEX_BLOCK_SIZE = 64 * 1024,
    VEXI_INDEX_HEAD_SIZE_MAX = 1 << 30,
    VEXI_INDEX_ELEMENT_FLOAT32 = 1
};

/* Fixed header. Magic, version, head size, file size and head CRC keep their place for ever. */
enum {
    VEXI_HEAD_MAGIC = 0, /* 8 bytes */
    VEXI_HEAD_VERSION = 8,
    VEXI_HEAD_SIZE = 12,
    VEXI_HEAD_FILE_SIZE = 16, /* u64 */
    VEXI_HEAD_SEGMENT = 24,   /* 36 bytes */
    VEXI_HEAD_CRC = 60,
    VEXI_HEAD_ELEMENT = 64, /* u8 */
    VEXI_HEAD_METRIC = 65,  /* u8 */
    VEXI_HEAD_KIND = 66,    /* u8: 1 flat, 2 IVF */
    VEXI_HEAD_DIMENSION = 68,
    VEXI_HEAD_STRIDE = 72,
    VEXI_HEAD_ROW_COUNT = 76,
    VEXI_HEAD_LIST_COUNT = 80,
    VEXI_HEAD_SECTION_COUNT = 84,
    VEXI_HEAD_VECTOR_BASE = 88, /* u64 */
    VEXI_HEAD_BLOCK_SIZE = 96,
    VEXI_HEAD_BLOCK_COUNT = 100,
    VEXI_HEAD_SEGMENT_SIZE = 104,  /* u64 */
    VEXI_HEAD_FOOTER_OFFSET = 112, /* u64 */
    VEXI_HEAD_FOOTER_CRC = 120,
    VEXI_HEAD_ROW_GROUP_COUNT = 124,
    VEXI_HEAD_COLUMN_COUNT = 128,
    VEXI_HEAD_PAGE_COUNT = 132,
    VEXI_HEAD_PROBE_MAX = 136,
    VEXI_HEAD_CODE_BITS = 140, /* from here on version 2 */
    VEXI_HEAD_CODE_PADDED = 144,
    VEXI_HEAD_ROW_LENGTH = 148,    /* f32 */
    VEXI_HEAD_ROTATION_SEED = 152, /* u64 */
    VEXI_HEAD_CENTER_ERROR = 160,  /* f32 */
    VEXI_HEAD_DIRECTORY = 192
};

/* Section directory: u32 kind, u32 zero, u64 offset, u64 size. */
enum { VEXI_SECTION_ENTRY_SIZE = 24, VEXI_SECTION_COUNT_MAX = 64 };

/* Kinds. The highest bit: a reader that does not know the section must not use the file. */
#define VEXI_SECTION_MUST 0x80000000u
enum {
    VEXI_SECTION_ROW_GROUPS = 1,    /* head: u64 vector offset, u32 first row, u32 row count */
    VEXI_SECTION_PAGE_FIRST = 2,    /* head: u32 */
    VEXI_SECTION_PAGES = 3,         /* head: u64 offset, u32 size, u32 first row, u32 rows, u32 0 */
    VEXI_SECTION_LIST_FIRST = 4,    /* head: u32 */
    VEXI_SECTION_CENTROIDS = 5,     /* head: float32 */
    VEXI_SECTION_RADII = 6,         /* head: float32 */
    VEXI_SECTION_BLOCK_CRCS = 7,    /* head: u32 */
    VEXI_SECTION_ORIGIN = 8,        /* head: float32 */
    VEXI_SECTION_CODE_ERRORS = 9,   /* head: float32 one-bit, float32 records */
    VEXI_SECTION_CENTER_CODES = 10, /* head: one list of one-bit codes */
    VEXI_SECTION_CALIBRATION = 11,  /* head: u32 */
    VEXI_SECTION_HEAD_LAST = VEXI_SECTION_CALIBRATION,
    VEXI_SECTION_NORMS = 16,       /* bulk: float32 */
    VEXI_SECTION_VECTOR_CRCS = 17, /* bulk: u32 */
    VEXI_SECTION_ID_OFFSETS = 18,  /* bulk: u32 */
    VEXI_SECTION_IDS = 19,         /* bulk: bytes */
    VEXI_SECTION_ID_HASH = 20,     /* bulk: u32 tag, u32 row + 1 */
    VEXI_SECTION_LIST_CODES = 21,  /* bulk: a list behind the other */
    VEXI_SECTION_BULK_LAST = VEXI_SECTION_LIST_CODES,
    VEXI_SECTION_KNOWN = 22
};
enum { VEXI_ROW_GROUP_SIZE = 16, VEXI_PAGE_SIZE = 24, VEXI_HASH_SLOT_SIZE = 8 };

/* Sizes of codes (docs/format.md 4.4), from the counts of the head alone: no size in a file is
 * trusted. None of them passes 2^47. */
enum { VEXI_INDEX_CODE_ROWS = 32, VEXI_INDEX_CODE_FACTORS = 8 /* two f32 a row */ };

static inline uint32_t vexi_index_padded(uint32_t dimension) {
    return (dimension + 63u) / 64u * 64u;
}
/* Bytes of a list's codes: its one-bit blocks, its records, padding to a multiple of 64. */
static inline uint64_t vexi_index_list_size(uint32_t padded, uint32_t bits, uint32_t row_count) {
    uint64_t blocks = ((uint64_t)row_count + VEXI_INDEX_CODE_ROWS - 1) / VEXI_INDEX_CODE_ROWS;
    uint64_t block_size = VEXI_INDEX_CODE_ROWS * ((uint64_t)padded / 8 + VEXI_INDEX_CODE_FACTORS);
    uint64_t record_size = bits == 1 ? 0 : VEXI_INDEX_CODE_FACTORS + (uint64_t)padded * bits / 8;
    uint64_t size = blocks * block_size + row_count * record_size;
    return (size + VEXI_INDEX_ALIGNMENT - 1) & ~(uint64_t)(VEXI_INDEX_ALIGNMENT - 1);
}

static inline float vexi_get_f32(const uint8_t *p) {
    uint32_t bits = vexi_get_u32(p);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline void vexi_put_f32(uint8_t *p, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    vexi_put_u32(p, bits);
}

static const char vexi_index_magic[8] = {'V', 'E', 'X', 'I', 'N', 'D', 'E', 'X'};

/* CRC of a head: all its bytes but the four of the CRC itself. */
static inline uint32_t vexi_index_head_crc(const uint8_t *head, size_t size) {
    uint32_t crc = vexi_crc32c(0, head, VEXI_HEAD_CRC);
    return vexi_crc32c(crc, head + VEXI_HEAD_CRC + 4, size - VEXI_HEAD_CRC - 4);
}

/* The slot where the search for a hash begins: its place within all hashes, scaled to the table. */
static inline uint64_t vexi_index_slot(uint64_t hash, uint64_t slot_count) {
    return ((hash >> 32) * slot_count) >> 32;
}

static inline uint32_t vexi_index_tag(uint64_t hash) {
    return (uint32_t)hash;
}

#endif
