/* Segment: one immutable data file of a table, opened for reading.
 *
 * Ours has an index file beside it: ids, id table, vector checksums, lists are read from there, and
 * vectors by address from the Parquet file (or by ranges, where the store cannot map). A foreign
 * one (written by another engine, no index) is decoded into memory when it is opened and searched
 * exactly. One that cannot be read is `damaged`: it keeps its place, every read of it fails with
 * what is wrong, and the other segments go on. */
#ifndef VEXI_TABLE_SEGMENT_H
#define VEXI_TABLE_SEGMENT_H

#include "table/memtable.h"

/* What segments and views need after the lake handle is gone. */
typedef struct vexi_core {
    int references; /* atomic */
    const vexi_env *env;
    vexi_store *store;         /* destroyed with the core */
    uint64_t graph_bytes;      /* atomic: all graphs that are loaded */
    uint64_t graph_copy_bytes; /* graphs from this size on are copied when they are loaded; 0:
                                  VEXI_GRAPH_HUGE. Tests copy small ones. */
} vexi_core;

vexi_core *vexi_core_retain(vexi_core *core);
void vexi_core_release(vexi_core *core);

/* Bits with a count, shared by views. Immutable once shared. */
typedef struct vexi_bits {
    int references; /* atomic */
    const vexi_env *env;
    uint64_t bit_count;
    uint64_t set_count;
    uint64_t words[];
} vexi_bits;

/* Zero bits, or a copy of `from` (which may be smaller) grown to bit_count. */
vexi_bits *vexi_bits_create(const vexi_env *env, uint64_t bit_count, const vexi_bits *from);
vexi_bits *vexi_bits_retain(vexi_bits *bits); /* NULL is fine */
void vexi_bits_release(vexi_bits *bits);      /* NULL is fine */
static inline bool vexi_bits_get(const vexi_bits *bits, uint64_t bit) {
    return bits != NULL && bit < bits->bit_count && (bits->words[bit / 64] >> (bit % 64) & 1u) != 0;
}
/* Whether every bit of b is in a; either may be NULL, which is empty. */
bool vexi_bits_contain(const vexi_bits *a, const vexi_bits *b);
/* Set the bits of `from` too. `bits` is not shared and at least as long. */
void vexi_bits_add(vexi_bits *bits, const vexi_bits *from);
/* Returns true if the bit was clear. */
static inline bool vexi_bits_set(vexi_bits *bits, uint64_t bit) {
    uint64_t mask = (uint64_t)1 << (bit % 64);
    bool fresh = (bits->words[bit / 64] & mask) == 0;
    bits->words[bit / 64] |= mask;
    bits->set_count += fresh ? 1 : 0;
    return fresh;
}

/* Open the file that `add` names in the collection's folder. A damaged or foreign file still yields
 * a segment; only VEX_MEMORY fails. */
vex_status vexi_segment_open(vexi_core *core, vexi_schema_box *schema, const char *folder,
                             const vexi_delta_add *add, const vexi_span *head, vexi_segment **out,
                             vex_error *err);
/* How much of the index file opening reads where the store cannot map; 0: there is none. These
 * first bytes may be given as `head` above, which then need not be fetched; NULL or empty: they
 * are. */
size_t vexi_segment_head_size(const vexi_delta_add *add);
/* The same for a file of ours whose index file is damaged or lost: opened from the Parquet file
 * alone, as a foreign one. Its row positions are the same. */
vex_status vexi_segment_open_plain(vexi_core *core, vexi_schema_box *schema, const char *folder,
                                   const vexi_delta_add *add, vexi_segment **out, vex_error *err);
/* Declare a segment damaged: from now on every read of it fails like this. The first call counts.
 */
void vexi_segment_set_damage(vexi_segment *segment, vex_status status, const vex_error *damage);
/* Its bytes did not match a checksum: have them read anew. False where that would change nothing,
 * or was done within the last second. */
bool vexi_segment_distrust(vexi_segment *segment);
vexi_segment *vexi_segment_retain(vexi_segment *segment);
void vexi_segment_release(vexi_segment *segment);

/* Path relative to the table root, as in the log. */
const char *vexi_segment_path(const vexi_segment *segment);
const char *vexi_segment_object_name(const vexi_segment *segment);
uint64_t vexi_segment_row_count(const vexi_segment *segment);
uint64_t vexi_segment_size_bytes(const vexi_segment *segment);
uint64_t vexi_segment_index_size_bytes(const vexi_segment *segment);
/* Decoded in memory and searched exactly: another engine's, or opened plain. */
bool vexi_segment_is_foreign(const vexi_segment *segment);
/* Ours, in a store that cannot map: what is read of it is fetched. */
bool vexi_segment_is_remote(const vexi_segment *segment);
/* What its index file is: flat or IVF; auto where it has none in use. */
vex_index_kind vexi_segment_index_kind(const vexi_segment *segment);
/* Whether the index file failed a checksum, when it was opened or since: a VEX_CORRUPT of this
 * segment is then no word about its rows, which vexi_segment_open_plain still reads. */
bool vexi_segment_index_damaged(const vexi_segment *segment);
/* Read all of the index file where it is mapped: true, and it counts as damaged, if that cannot be
 * done any more. For a VEX_IO that may have been the data file's. */
bool vexi_segment_index_cut(vexi_segment *segment);
/* Whether opening it plain was not tried yet, and may help. */
bool vexi_segment_mendable(const vexi_segment *segment);
/* A file of ours that was opened plain. */
bool vexi_segment_is_plain(const vexi_segment *segment);
/* Note why (before it is shared). */
void vexi_segment_set_plain(vexi_segment *segment, const vex_error *index_problem);
/* NULL where it has none in use. */
const vexi_index_file *vexi_segment_index(const vexi_segment *segment);
/* NULL unless IVF. */
const vexi_index_file *vexi_segment_ivf(const vexi_segment *segment);
vex_status vexi_segment_check(const vexi_segment *segment, vex_error *err);
/* Of a damaged segment, which of its rows were deleted is not known: how many, as the log tells. */
uint64_t vexi_segment_deleted_told(const vexi_segment *segment);
void vexi_segment_set_deleted_told(vexi_segment *segment, uint64_t count);
/* Whether it could not be read, which says nothing of its bytes: opening it anew may do. */
static inline bool vexi_segment_unread(const vexi_segment *segment) {
    return vexi_segment_check(segment, NULL) == VEX_IO;
}

vex_status vexi_segment_find(vexi_segment *segment, vex_string id, uint64_t hash, bool *found,
                             uint64_t *row, vex_error *err);
vex_status vexi_segment_id(vexi_segment *segment, uint64_t row, vex_string *out, vex_error *err);
/* Fetch in two steps what vexi_segment_id reads of these rows; nothing to do where the file is
 * mapped. `cost`, here and below: what the store was asked for is added; may be NULL. */
vex_status vexi_segment_ids_need(vexi_segment *segment, const uint64_t *rows, size_t count,
                                 vexi_read_cost *cost, vex_error *err);
vex_status vexi_segment_runs(vexi_segment *segment, const vexi_row_range *ranges,
                             size_t range_count, vexi_arena *arena, vexi_run **runs,
                             size_t *run_count, vexi_read_cost *cost, vex_error *err);
/* The same in two halves, for who fetches for several segments at once: what is to be fetched, and,
 * once the bytes of the pieces and the index ranges are there, whether they are right. */
typedef struct vexi_runs_plan {
    vexi_segment *segment;
    vexi_run *runs; /* their vectors are set by finish */
    size_t run_count;
    vexi_piece *pieces; /* of the data file, one for each run */
    vexi_piece *index_ranges;
    size_t index_range_count;
} vexi_runs_plan;
vex_status vexi_segment_runs_plan(vexi_segment *segment, const vexi_row_range *ranges,
                                  size_t range_count, vexi_arena *arena, vexi_runs_plan *out,
                                  vex_error *err);
vex_status vexi_segment_runs_finish(const vexi_runs_plan *plan, vex_error *err);
/* out[i]: the vector of rows[i], in any order; checked once per opening. Takes no memory where the
 * file is mapped; else the arena holds them. Valid as long as the segment or the arena. */
vex_status vexi_segment_vectors(vexi_segment *segment, const uint64_t *rows, size_t count,
                                vexi_arena *arena, const uint8_t **out, vexi_read_cost *cost,
                                vex_error *err);
/* In halves: where the vectors are in the data file, and whether what came from there matches the
 * checksums (which vexi_index_row_ranges asks for). Not of foreign segments. */
void vexi_segment_vector_pieces(const vexi_segment *segment, const uint64_t *rows, size_t count,
                                vexi_piece *out);
vex_status vexi_segment_vectors_check(vexi_segment *segment, const uint64_t *rows, size_t count,
                                      const uint8_t **vectors, vex_error *err);
/* out[i]: the codes of lists[i], checked once per opening. The segment has codes
 * (vexi_segment_ivf, code_bits). Valid as long as the segment or the arena. */
vex_status vexi_segment_lists(vexi_segment *segment, const uint32_t *lists, size_t count,
                              vexi_arena *arena, const uint8_t **out, vexi_read_cost *cost,
                              vex_error *err);
vex_status vexi_segment_cells(vexi_segment *segment, const vexi_schema *schema,
                              const uint32_t *columns, size_t column_count, const uint64_t *rows,
                              size_t row_count, vexi_arena *arena, vexi_cell *out,
                              vex_search_stats *stats, vexi_read_cost *cost, vex_error *err);
/* In halves: the pages of the data file, and the cells from them. Not of foreign segments. */
vex_status vexi_segment_cells_plan(const vexi_segment *segment, const uint32_t *columns,
                                   size_t column_count, const uint64_t *rows, size_t row_count,
                                   vexi_arena *arena, vexi_piece **pieces, size_t *piece_count,
                                   vex_error *err);
vex_status vexi_segment_cells_decode(vexi_segment *segment, const vexi_schema *schema,
                                     const uint32_t *columns, size_t column_count,
                                     const uint64_t *rows, size_t row_count,
                                     const vexi_piece *pieces, size_t piece_count,
                                     vexi_arena *arena, vexi_cell *out, vex_search_stats *stats,
                                     vex_error *err);

/* ---- Steps ----------------------------------------------------------------------------------- */

/* What is needed next of several segments in a store that cannot map, fetched in one step. Needs
 * are noted one by one (one thread), then fetched together; the arena holds the bytes. */
typedef struct vexi_step {
    vexi_arena *arena;
    struct vexi_step_need *needs; /* by vexi_free */
    size_t count;
    size_t capacity;
} vexi_step;

void vexi_step_init(vexi_step *step, vexi_arena *arena);
void vexi_step_deinit(vexi_step *step);
/* Parts of the index file: those that are not in memory yet. `source` is for *failed alone. */
vex_status vexi_step_index(vexi_step *step, uint32_t source, vexi_segment *segment,
                           const vexi_piece *ranges, size_t count, vex_error *err);
/* Pieces of the data file, whose `data` vexi_step_run sets. They stay where they are until then. */
vex_status vexi_step_data(vexi_step *step, uint32_t source, vexi_segment *segment,
                          vexi_piece *pieces, size_t count, vex_error *err);
/* Fetch all of it, in about request_max requests, and forget the needs. Blocks of index files that
 * come with wrong bytes are asked for once more. On failure *failed is the source at fault. */
vex_status vexi_step_run(vexi_step *step, size_t request_max, vexi_read_cost *cost,
                         uint32_t *failed, vex_error *err);

/* See vexi_source_length_max. */
float vexi_segment_length_max(const vexi_segment *segment);
void vexi_segment_length_told(vexi_segment *segment, float length);
/* Note what `problem` (of `status`) says of an object. A lack of memory says nothing of it and is
 * returned. */
vex_status vexi_finding_add(vexi_arena *arena, vexi_finding **findings, size_t *count,
                            const char *object, vex_status status, const vex_error *problem,
                            vex_error *err);
/* Check every byte; findings go to the arena. */
vex_status vexi_segment_verify_all(vexi_segment *segment, const vexi_schema *schema,
                                   vexi_arena *arena, vexi_finding **findings,
                                   size_t *finding_count, uint64_t *object_count, vex_error *err);

#endif
