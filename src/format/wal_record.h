/* Write-ahead log: file header and records. docs/format.md describes every byte.
 *
 * A log is a chain of files, numbered from 1. Each begins with a header: magic, format version, the
 * log's UUID, its number, and the `cut` of the file before it: how many of that file's bytes count.
 * What lies behind the cut was refused and never replays. Then records follow, each with a CRC-32C
 * over all of it: size, sequence number, the collection's metaData.id, kind, and tagged fields
 * (unknown tags with the "must understand" bit are VEX_UNSUPPORTED, others are skipped). */
#ifndef VEXI_FORMAT_WAL_RECORD_H
#define VEXI_FORMAT_WAL_RECORD_H

#include "base/buffer.h"
#include "format/row.h"

enum {
    VEXI_WAL_HEADER_SIZE = 64,
    VEXI_WAL_RECORD_SIZE_MAX = 80 << 20,
    VEXI_WAL_GROUP_SIZE_MAX = (1 << 27) - 8,
    /* records appended together */ VEXI_WAL_UUID_SIZE = 36
};

typedef struct vexi_wal_header {
    char uuid[37];            /* the log's */
    uint64_t number;          /* of this file */
    uint64_t first_sequence;  /* records of this file have this or larger */
    uint64_t previous_number; /* of the file that the cut speaks of; 0: there is none */
    uint64_t previous_cut;    /* bytes of that file that count; UINT64_MAX: all that are whole */
} vexi_wal_header;

void vexi_wal_header_write(const vexi_wal_header *header, uint8_t out[VEXI_WAL_HEADER_SIZE]);
/* VEX_CORRUPT, or VEX_UNSUPPORTED for a newer format version. */
vex_status vexi_wal_header_read(vexi_span file, vexi_wal_header *out, vex_error *err);

typedef enum vexi_wal_kind {
    VEXI_WAL_PUT = 1, /* `row`                                                                   */
    VEXI_WAL_DELETE = 2 /* row.id alone */
} vexi_wal_kind;

typedef struct vexi_wal_record {
    uint64_t sequence;
    char collection[37]; /* metaData.id */
    vexi_wal_kind kind;
    vexi_row row;        /* PUT: cells has cell_count entries in schema order                    */
    uint64_t group_rest; /* on reading: bytes from its start to the end of its group */
    uint32_t dimension;  /* of row.vector */
    uint32_t cell_count;
    const vexi_schema_column *columns; /* names and types of the cells: written into the record,
                                          so that a record explains itself */
} vexi_wal_record;

/* Append a record with its sequence number zero; returns where it begins through *offset. Until
 * it is sealed its header has no valid CRC.
 *
 * VEX_INVALID  collection is no UUID.
 * VEX_LIMIT    larger than VEXI_WAL_RECORD_SIZE_MAX, or than the buffer's limit. */
vex_status vexi_wal_record_write(const vexi_wal_record *record, vexi_buffer *out, size_t *offset,
                                 vex_error *err);
/* Put the sequence number into a written record (size_bytes long) and finish its CRC. Cheap: the
 * CRC of the rest is kept in the record until then. */
void vexi_wal_record_seal(uint8_t *record, uint64_t sequence);
/* The same for a writer that knows where the record will stand in its file, and how many bytes of
 * that file were synced when it was sealed. A reader then takes the record at that place alone (a
 * copy inside a payload is none), and counts it as proof of damage (`later` below) only where
 * synced bytes are damaged: records of one unsynced append may reach the disk in any order.
 * group_rest: bytes from the record's start to the end of its group (a multiple of 8, at most
 * VEXI_WAL_GROUP_SIZE_MAX): a group counts whole or not at all. */
void vexi_wal_record_seal_at(uint8_t *record, uint64_t sequence, uint64_t offset,
                             uint64_t synced_size, uint64_t group_rest);
/* Size of the record that starts here (trusted bytes). */
size_t vexi_wal_record_size(const uint8_t *record);

typedef enum vexi_wal_read {
    VEXI_WAL_RECORD, /* a record was read */
    VEXI_WAL_END, /* end of the file, exactly behind a record                                   */
    VEXI_WAL_TORN /* the rest is no whole record: an append that was never synced               */
} vexi_wal_read;

/* Read the record at *offset of the file (which is limited to the cut by the caller) and advance.
 * Strings, vector (copied, aligned) and cells are in the arena or the file; columns is what the
 * record itself says. On VEXI_WAL_TORN, *later receives whether a whole record with a valid CRC
 * follows anywhere behind that was sealed after these bytes were synced, or without telling (then
 * the damage is not a torn tail).
 *
 * VEX_CORRUPT      a record with a valid CRC makes no sense.
 * VEX_UNSUPPORTED  it holds something that this version does not know and must.
 * VEX_MEMORY */
vex_status vexi_wal_record_read(vexi_span file, size_t *offset, vexi_arena *arena,
                                vexi_wal_record *out, vexi_wal_read *result, bool *later,
                                vex_error *err);

#endif
