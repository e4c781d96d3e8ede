/* Index file: what a search needs of one segment besides its vectors. docs/format.md describes
 * every byte.
 *
 * Little-endian, 64-byte aligned sections, mmap-able. The head comes first: fixed header, section
 * directory, the Parquet layout (row groups, page map), list directory, centroids; one CRC-32C over
 * all of it. Behind the head the bulk sections: ids by row position, the id hash table, CRC-32C of
 * each row's vector bytes, inverse norms (cosine); one CRC-32C per 64 KiB block of the bulk, kept
 * in the head. A head names element type, base and stride of the vectors (float32, others refused).
 */
#ifndef VEXI_FORMAT_INDEX_FILE_H
#define VEXI_FORMAT_INDEX_FILE_H

#include "base/arena.h"
#include "base/buffer.h"
#include "format/row.h"
#include "format/segment_file.h"

/* Efforts of the calibration table (index/calibration.h), by k, then by recall. */
enum { VEXI_INDEX_CALIBRATION_COUNT = 32 };

/* Codes of an IVF segment (index/code.h, index/ivf.h): what goes in. */
typedef struct vexi_index_codes {
    uint32_t bits;   /* a dimension in the refinement records: 1, 4, 8 */
    uint32_t padded; /* dimension rounded up to a multiple of 64 */
    uint64_t rotation_seed;
    float row_length;
    float center_error;
    const float *origin;         /* padded */
    const float *errors;         /* list_count x 2 */
    const uint8_t *center_codes; /* one list of list_count rows, one bit */
    uint64_t center_codes_size;
    const uint32_t *calibration; /* VEXI_INDEX_CALIBRATION_COUNT */
    uint64_t lists_size;         /* bytes of all lists' codes */
    /* Writes them to `out` (aligned to 64); may fill `errors` meanwhile. */
    vex_status (*write_lists)(void *context, uint8_t *out, vex_error *err);
    void *context;
} vexi_index_codes;

/* What goes in. Rows are in the segment's row order. */
typedef struct vexi_index_input {
    char segment[37]; /* uuid of the segment, for pairing */
    const vexi_schema *schema;
    const vexi_segment_layout *layout;
    const vexi_row *const *rows;
    size_t row_count;
    uint32_t list_count;           /* 0: flat */
    const float *centroids;        /* list_count x dimension */
    const float *radii;            /* list_count */
    const uint32_t *list_first;    /* list_count + 1 row positions */
    const vexi_index_codes *codes; /* NULL: none (then lists are compared exactly) */
} vexi_index_input;

/* Append the file to `out` (empty on entry).
 *
 * VEX_INVALID  two rows of one id.
 * VEX_LIMIT    ids of 4 GiB or more together. */
vex_status vexi_index_write(const vexi_env *env, const vexi_index_input *input, vexi_buffer *out,
                            uint32_t *head_size, uint32_t *head_crc, vex_error *err);

/* Fetches pieces of the file, all of one step together; `arena` holds their bytes. `cost` is what
 * the caller of vexi_index_need gave. */
typedef vex_status vexi_index_fetch(void *context, vexi_piece *pieces, size_t count,
                                    vexi_arena *arena, void *cost, vex_error *err);

/* An opened index file: pointers into the bytes, which outlive it. Reading is thread-safe. */
typedef struct vexi_index_file {
    const vexi_env *env;
    vexi_span bytes;
    char segment[37];
    uint32_t dimension;
    vex_metric metric;
    uint32_t row_count;
    uint32_t list_count; /* 0: flat */
    uint32_t head_size;
    vexi_segment_layout layout; /* arrays owned by `memory` */
    const float *centroids;     /* 64-byte aligned in the file, so 4-byte aligned in any mapping */
    const float *radii;
    const uint32_t *list_first;   /* owned by `memory` */
    const uint8_t *inverse_norms; /* row_count float32s, NULL unless cosine; check first */
    uint64_t norms_offset, crcs_offset, id_offsets_offset, ids_offset, ids_size, hash_offset;
    uint64_t hash_slot_count;
    /* Codes; code_bits is 0 where the file has none. Of the head, checked when it was opened. */
    uint32_t code_bits;
    uint32_t code_padded;
    uint64_t rotation_seed;
    float row_length;
    float center_error;
    const float *origin;         /* code_padded */
    const float *code_errors;    /* list_count x 2: one-bit codes, records */
    const uint8_t *center_codes; /* aligned to 64 in the file */
    uint32_t calibration[VEXI_INDEX_CALIBRATION_COUNT];
    uint64_t codes_offset;        /* of the lists' codes: vexi_index_check before use */
    const uint64_t *code_offsets; /* list_count + 1, from codes_offset on; owned by `memory` */
    uint32_t hash_probe_max;      /* slots that the longest search looks at */
    uint32_t vector_stride;       /* bytes from a vector to the next within a row group */
    uint64_t bulk_offset;         /* of the first block */
    const uint8_t *block_crcs;
    size_t block_count;
    uint8_t *block_checked; /* one byte a block, atomic: a vexi_index_block */
    /* Set behind vexi_index_open where of `bytes` (writable then) the head alone is there: blocks
     * are fetched when they are first asked for, and stay. NULL: all bytes are there. */
    vexi_index_fetch *fetch;
    void *fetch_context;
    /* What was fetched did not match its checksum: the next fetch is to read it anew. May be NULL.
     */
    void (*distrust)(void *context);
    void *memory; /* given back by deinit */
} vexi_index_file;

/* Of a block of the bulk. */
typedef enum vexi_index_block {
    VEXI_INDEX_BLOCK_UNKNOWN,
    VEXI_INDEX_BLOCK_CHECKED, /* there, and its checksum matched */
    VEXI_INDEX_BLOCK_COPYING  /* one thread puts its bytes where they belong */
} vexi_index_block;

/* Check magic, version, head CRC against the head and against `head_crc` (from the log), bounds of
 * every section against bytes.size. VEX_CORRUPT, VEX_UNSUPPORTED (newer version, element type).
 * bytes.data is aligned to 64. Everything that later calls index by is checked here or at its use:
 * no file, whatever its bytes, makes them read outside `bytes`. */
vex_status vexi_index_open(const vexi_env *env, vexi_span bytes, uint32_t head_size,
                           uint32_t head_crc, vexi_index_file *out, vex_error *err);
void vexi_index_close(vexi_index_file *file);

/* Check the blocks that cover the bytes, each once per opening. */
vex_status vexi_index_check(vexi_index_file *file, uint64_t offset, uint64_t size, vex_error *err);
/* Whether that was done: the bytes lie in the file. Reads no byte of them. */
bool vexi_index_checked(const vexi_index_file *file, uint64_t offset, uint64_t size);
/* Make the blocks that cover the ranges (offset and size count) be there, all that are missing in
 * one step, checked. For many places at once: what reads one place fetches what it needs by itself.
 * Nothing to do where all bytes are there. */
vex_status vexi_index_need(vexi_index_file *file, const vexi_piece *ranges, size_t count,
                           void *cost, vex_error *err);
/* The two halves of it, for who fetches for several files at once: the blocks that are missing,
 * those side by side as one piece (in the arena; none where all bytes are there); and to check what
 * was fetched and put it in its place. Blocks that do not match their checksums stay missing, and
 * VEX_CORRUPT tells of them. */
vex_status vexi_index_missing(const vexi_index_file *file, const vexi_piece *ranges, size_t count,
                              vexi_arena *arena, vexi_piece **pieces, size_t *piece_count,
                              vex_error *err);
vex_status vexi_index_place(vexi_index_file *file, const vexi_piece *pieces, size_t count,
                            vex_error *err);
/* What comparing rows' vectors with their checksums reads, and with `ids` their ids, or, where it
 * is not there yet, what tells the places of those. out has room for 2 x count; how many are used.
 */
size_t vexi_index_row_ranges(const vexi_index_file *file, const uint64_t *rows, size_t count,
                             bool ids, vexi_piece *out);
/* The same for the checksums of rows' vectors and the places of their ids, and with `ids`, in a
 * second step, the ids themselves. */
vex_status vexi_index_need_rows(vexi_index_file *file, const uint64_t *rows, size_t count, bool ids,
                                void *cost, vex_error *err);
/* Looking for many ids: the slots where the search for one begins (how many ranges), and once those
 * are there, rows that may have it (at most `most`), whose ids tell. */
size_t vexi_index_slot_ranges(const vexi_index_file *file, uint64_t hash, vexi_piece out[2]);
size_t vexi_index_slot_rows(const vexi_index_file *file, uint64_t hash, uint64_t *rows,
                            size_t most);
/* Check everything. Blocks that were fetched and checked before are not fetched again. */
vex_status vexi_index_check_all(vexi_index_file *file, vex_error *err);

/* Id of a row, a pointer into the bytes. */
vex_status vexi_index_id(vexi_index_file *file, uint64_t row, vex_string *out, vex_error *err);
/* Row of an id: *found tells. hash = vexi_hash64 of the id. */
vex_status vexi_index_find(vexi_index_file *file, vex_string id, uint64_t hash, bool *found,
                           uint64_t *row, vex_error *err);
/* Stored CRC-32C of a row's vector bytes. */
vex_status vexi_index_vector_crcs(vexi_index_file *file, uint64_t first_row, size_t count,
                                  const uint8_t **crcs, vex_error *err);

#endif
