/* Objects of a log that lies in the lake (durability `lake`). docs/format.md describes every byte.
 *
 * Each collection has a log of its own: objects numbered from 1 without gaps, each put once, if it
 * is absent. An object is either a group, the records of some writes that were acknowledged
 * together, or a claim, by which a node becomes the collection's only writer. Both have one header,
 * whose CRC-32C covers the whole object.
 *
 * Records of group n have the sequence numbers that end at ((n + 1) << 20) - 1, so that a sequence
 * tells its object, and the largest of an object that its whole is covered. */
#ifndef VEXI_FORMAT_LAKE_LOG_H
#define VEXI_FORMAT_LAKE_LOG_H

#include "base/arena.h"
#include "format/wal_record.h"

enum {
    VEXI_LOG_OBJECT_HEADER_SIZE = 128,
    VEXI_LOG_OBJECT_SIZE_MAX = 256 << 20,
    VEXI_LOG_RECORD_BITS = 20,
    VEXI_LOG_GROUP_RECORDS_MAX = 1 << VEXI_LOG_RECORD_BITS,
    VEXI_LOG_HOLDER_SIZE_MAX = 127
};
#define VEXI_LOG_NUMBER_MAX (UINT64_C(1) << 42)

typedef enum vexi_log_kind { VEXI_LOG_GROUP = 1, VEXI_LOG_CLAIM = 2 } vexi_log_kind;

typedef struct vexi_log_object {
    vexi_log_kind kind;
    uint64_t number;
    uint64_t epoch;        /* of the claim that this object is, or was written under */
    uint64_t claim_number; /* that claim's number */
    uint32_t record_count; /* of a group */
    bool local;            /* of a claim: the holder's log is on its own disk, not here */
    char collection[37];   /* metaData.id */
    char node[37];         /* who put it */
    vexi_span body; /* a group's records, back to back; a claim's holder as text for people */
} vexi_log_object;

/* "<folder>/log/<collection>/00000000000000000001.log" in the arena; NULL without memory. */
char *vexi_log_object_name(vexi_arena *arena, const char *folder, const char collection[37],
                           uint64_t number);
/* "<folder>/log/<collection>/". */
char *vexi_log_prefix(vexi_arena *arena, const char *folder, const char collection[37]);
/* The number in a listed name behind its prefix; 0 if it is no log object's. */
uint64_t vexi_log_object_number(const char *name, size_t prefix_size);

static inline uint64_t vexi_log_first_sequence(uint64_t number, uint64_t record_count) {
    return ((number + 1) << VEXI_LOG_RECORD_BITS) - record_count;
}
/* The newest object that lies wholly at or below a sequence. */
static inline uint64_t vexi_log_position(uint64_t sequence) {
    return ((sequence + 1) >> VEXI_LOG_RECORD_BITS) == 0
               ? 0
               : ((sequence + 1) >> VEXI_LOG_RECORD_BITS) - 1;
}

/* The header of an object whose body is `parts`; object->body is not looked at. */
void vexi_log_object_write(const vexi_log_object *object, const vexi_span *parts, size_t count,
                           uint8_t out[VEXI_LOG_OBJECT_HEADER_SIZE]);
/* body borrows from the file. VEX_CORRUPT, or VEX_UNSUPPORTED for a newer format version. */
vex_status vexi_log_object_read(vexi_span file, vexi_log_object *out, vex_error *err);

#endif
