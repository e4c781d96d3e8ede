/* Memtable: rows that are in the log but not yet in a segment.
 *
 * An append-only sequence of rows and tombstones. A row is never changed: an overwrite appends a
 * row that names the one it supersedes (`previous`), so a reader that fixed its row count keeps
 * seeing exactly the rows below it. Rows and vectors sit in chunks that double in size and never
 * move, so readers follow plain pointers; only the id table is guarded by a lock.
 *
 * Invariants
 *  1. Row i is complete before `count` passes i; readers use rows below a count that they read.
 *  2. The id table names the newest row of each id; older ones follow by `previous`, descending.
 *  3. After reserve(n), appending up to n rows in all cannot fail. */
#ifndef VEXI_TABLE_MEMTABLE_H
#define VEXI_TABLE_MEMTABLE_H

#include "index/rotation.h"
#include "table/table.h"

/* A schema shared by a table, its memtables and views. */
typedef struct vexi_schema_box {
    int references; /* atomic */
    const vexi_env *env;
    vexi_schema schema;     /* immutable; columns live in this allocation */
    vexi_rotation rotation; /* of all codes of the collection; immutable */
} vexi_schema_box;

vex_status vexi_schema_box_create(const vexi_env *env, const vexi_schema *schema,
                                  vexi_schema_box **out, vex_error *err);
vexi_schema_box *vexi_schema_box_retain(vexi_schema_box *box);
void vexi_schema_box_release(vexi_schema_box *box);

/* Rows to append: deep copies, made before the log is written. */
typedef struct vexi_row_block {
    struct vexi_row_block *next;
    size_t size_bytes; /* of this allocation */
    size_t count;
    vexi_row *rows; /* vector NULL: a tombstone */
    float *vectors; /* an allocation of its own: append copies it into the chunks and frees it */
} vexi_row_block;

/* Copy rows (with their vectors) or, with rows == NULL, tombstones of ids. */
vex_status vexi_row_block_create(const vexi_env *env, const vexi_schema *schema,
                                 const vexi_row *rows, const vex_string *ids, size_t count,
                                 vexi_row_block **out, vex_error *err);
/* For a block that was not appended. NULL is fine. */
void vexi_row_block_destroy(const vexi_env *env, vexi_row_block *block);

/* center, row_length: of its codes (dimension values, copied), or NULL: the mean of its first rows.
 */
vex_status vexi_memtable_create(vexi_schema_box *schema, const float *center, float row_length,
                                vexi_memtable **out, vex_error *err);

/* Make room for `row_count` rows in all. Not concurrent with append. */
vex_status vexi_memtable_reserve(vexi_memtable *memtable, uint64_t row_count, vex_error *err);

/* Append the block's rows (taken) with the sequence numbers first_sequence, + 1, ... One thread at
 * a time. Visible to readers when it returns. */
void vexi_memtable_append(vexi_memtable *memtable, vexi_row_block *block, uint64_t first_sequence);

/* Encode the full blocks of rows that were appended since; about a microsecond a row, so no lock
 * should be held. One thread at a time; reserve and reading may go on meanwhile. */
void vexi_memtable_encode(vexi_memtable *memtable);
/* See vexi_source_codes. */
void vexi_memtable_codes_of(const vexi_memtable *memtable, uint64_t row_count,
                            vexi_memtable_codes *out);

uint64_t vexi_memtable_count(const vexi_memtable *memtable);
size_t vexi_memtable_size_bytes(const vexi_memtable *memtable);
/* Largest sequence number appended, 0 if none. */
uint64_t vexi_memtable_sequence(const vexi_memtable *memtable);

/* Newest row of an id among the first `count` rows; hash is vexi_hash64 of the id. */
bool vexi_memtable_find(vexi_memtable *memtable, vex_string id, uint64_t hash, uint64_t count,
                        uint64_t *row);
bool vexi_memtable_is_tombstone(const vexi_memtable *memtable, uint64_t row);
uint64_t vexi_memtable_hash(const vexi_memtable *memtable, uint64_t row);

#define VEXI_NO_ROW UINT32_MAX
enum { VEXI_MEMTABLE_ROW_MAX = 1 << 28 };
/* The row of the same id that this row supersedes, or VEXI_NO_ROW. */
uint32_t vexi_memtable_previous(const vexi_memtable *memtable, uint64_t row);
/* True if a later row (below count) has the same id. */
bool vexi_memtable_superseded(const vexi_memtable *memtable, uint64_t row, uint64_t count);

/* See vexi_source_length_max. */
float vexi_memtable_length_max(const vexi_memtable *memtable);

/* Runs of vectors for rows first .. first + count - 1: at most 32. Returns how many. */
size_t vexi_memtable_runs(const vexi_memtable *memtable, uint64_t first, uint64_t count,
                          vexi_run runs[32]);

#endif
