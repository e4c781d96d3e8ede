/* Graph file: the packed proximity graph of one segment (index/graph.h), a second, optional file
 * beside its index file. docs/format.md describes every byte.
 *
 * The head (fixed header, entries, their codes, calibration, CRC-32C of each 64 KiB block of nodes)
 * comes first with its own CRC-32C, then the nodes, aligned to 4,096. The file names the segment by
 * its uuid and by the checksum of the index file's head, so that it never serves other rows. */
#ifndef VEXI_FORMAT_GRAPH_FILE_H
#define VEXI_FORMAT_GRAPH_FILE_H

#include "base/buffer.h"
#include "format/index_file.h"

/* What goes in and what comes out: pointers into the bytes when reading. */
typedef struct vexi_graph_file {
    char segment[37];
    uint32_t index_head_crc; /* of the index file that it belongs to */
    vex_metric metric;
    uint32_t dimension;
    uint32_t padded;
    uint32_t degree;
    uint32_t row_count;
    uint64_t node_size;
    uint64_t rotation_seed;
    float row_length;
    float entry_error;
    float parameters[4];
    const float *origin;     /* padded */
    const uint32_t *entries; /* entry_count row numbers */
    uint32_t entry_count;
    const uint8_t *entry_codes;
    uint64_t entry_codes_size;
    uint32_t calibration[VEXI_INDEX_CALIBRATION_COUNT];
    const uint8_t *nodes; /* row_count x node_size, aligned to 64 */
    /* reading only */
    const uint8_t *block_crcs;
    uint64_t block_count;
} vexi_graph_file;

/* Pieces of a file for vexi_store_put without a copy of the nodes: the head (in `head`, empty on
 * entry), then input->nodes, its row_count x node_size bytes. Uses env's parallel. VEX_LIMIT. */
vex_status vexi_graph_write_head(const vexi_env *env, const vexi_graph_file *input,
                                 vexi_buffer *head, vex_error *err);

/* Open: checks the head (magic, version, CRC, every size and offset against bytes.size), not yet
 * the nodes. bytes.data is aligned to 64. No allocation, no lock (guard). VEX_CORRUPT,
 * VEX_UNSUPPORTED.
 *
 * The caller compares segment and index_head_crc with the index file's, and padded and node_size
 * with its own layout of a node. Entries are below row_count; neighbours in nodes may be anything.
 */
vex_status vexi_graph_open(vexi_span bytes, vexi_graph_file *out, vex_error *err);
/* Compare the checksums of blocks first .. first + count - 1 of the nodes. */
vex_status vexi_graph_check(const vexi_graph_file *file, uint64_t first, uint64_t count,
                            vex_error *err);

#endif
