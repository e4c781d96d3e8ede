/* Table: the LSM behind a collection: log, memtables, segments, commits, snapshots, recovery.
 *
 * A lake (vexi_lake) holds one write-ahead log and many tables (vexi_table, one per collection). A
 * write goes to the log, then into the active memtable, and is then acknowledged. Full memtables
 * are sealed and flushed, oldest first, each to one segment (Parquet file + index file), committed
 * as one Delta version. Reading works on a view: an immutable, reference-counted list of sources,
 * older before newer, each with the rows that are hidden in it. See ARCHITECTURE.md for the
 * invariants.
 *
 * Everything here is thread-safe unless it says otherwise, and blocks on storage. */
#ifndef VEXI_TABLE_TABLE_H
#define VEXI_TABLE_TABLE_H

#include "base/arena.h"
#include "format/delta.h"
#include "format/graph_file.h"
#include "format/index_file.h"
#include "format/row.h"
#include "index/code.h"
#include "index/flat.h"
#include "store/store.h"

typedef struct vexi_lake vexi_lake;
typedef struct vexi_table vexi_table;
typedef struct vexi_segment vexi_segment;
typedef struct vexi_memtable vexi_memtable;

/* ---- Lakes ----------------------------------------------------------------------------------- */

typedef struct vexi_lake_config {
    bool read_only;
    bool must_exist;
    vex_durability durability;
    uint32_t sync_interval_ms;
    uint32_t flush_interval_ms;
    uint32_t refresh_interval_ms; /* how often foreign commits are looked for; 0: only on flush */
    uint64_t flush_size_bytes;
    uint64_t memory_limit_bytes;
    uint64_t segment_size_bytes; /* vectors of one import segment, unless the import says */
    uint64_t graph_memory_bytes; /* of all graphs together that searches use here */
    uint64_t log_size_bytes; /* at which a new log file is begun                               */
    /* Of a store that several nodes may use at once (lake_log.h). */
    bool shared;
    bool takeover;                  /* claim collections whatever their holders do, once */
    uint32_t claim_timeout_ms;      /* silence after which a holder counts as dead */
    uint32_t heartbeat_interval_ms; /* well below that */
    uint32_t group_delay_ms;        /* for which a write waits for others */
    uint64_t group_size_bytes;      /* unless so much waits */
    /* Of a store with a cache, 0 elsewhere: what warming may fill. */
    uint64_t cache_memory_bytes;
    uint64_t cache_disk_bytes;
    bool prefetch;       /* codes of lists, in the background of opening */
    char node_name[128]; /* of this process, for people; printable ASCII without '"' */
} vexi_lake_config;

/* Open over a store (taken, also on failure) and an environment (borrowed; outlives the lake and
 * every view). All config fields are set. */
vex_status vexi_lake_open(const vexi_env *env, vexi_store *store, const vexi_lake_config *config,
                          vexi_lake **out, vex_error *err);
/* Ends background work, syncs and closes the log. Views keep the lake's memory alive until they
 * are released; the store's lock goes when this returns. */
vex_status vexi_lake_close(vexi_lake *lake, vex_error *err);

/* All of vex_lake_stats but the store's counters. */
void vexi_lake_describe(vexi_lake *lake, vex_lake_stats *out);
/* Whether the store answers: asks for the size of the lake's format file. */
vex_status vexi_lake_probe(vexi_lake *lake, vex_error *err);

vex_status vexi_lake_create_table(vexi_lake *lake, vex_string name, const vexi_schema *schema,
                                  vex_error *err);
vex_status vexi_lake_drop_table(vexi_lake *lake, vex_string name, vex_error *err);
/* Names, sorted by bytes, in the arena. */
vex_status vexi_lake_list_tables(vexi_lake *lake, vexi_arena *arena, vex_string **names,
                                 size_t *count, vex_error *err);
/* A reference to a table: release it. VEX_NOT_FOUND names the collection. */
vex_status vexi_lake_table(vexi_lake *lake, vex_string name, vexi_table **out, vex_error *err);
/* Whether that would be answered without asking the store. */
bool vexi_lake_knows(vexi_lake *lake, vex_string name);
void vexi_table_release(vexi_table *table);

/* The schema, immutable for the table's life. */
const vexi_schema *vexi_table_schema(const vexi_table *table);
vex_status vexi_table_describe(vexi_table *table, vex_collection_info *out, vex_error *err);

/* ---- Writing --------------------------------------------------------------------------------- */

/* Checked rows (table/row_check.h) to be stored, in schema order of cells. Blocks until durable and
 * visible. */
vex_status vexi_table_put(vexi_table *table, const vexi_row *rows, size_t count, vex_error *err);
/* existed: count bytes, may be NULL. */
vex_status vexi_table_delete(vexi_table *table, const vex_string *ids, size_t count,
                             uint8_t *existed, vex_error *err);
/* Refresh and flush one table; all tables of the lake. */
vex_status vexi_table_flush(vexi_table *table, vex_error *err);
vex_status vexi_lake_flush(vexi_lake *lake, vex_error *err);

/* Import: see vex_import. The table is created if it is missing. */
vex_status vexi_lake_import(vexi_lake *lake, vex_string name, const char *const *paths,
                            size_t path_count, const vex_import_options *options,
                            uint64_t *row_count, vex_error *err);

/* ---- Reading --------------------------------------------------------------------------------- */

/* Make the rows of a table that another node writes those of this moment (consistent), or of a few
 * seconds ago. Call it before taking a view of a shared lake's table; elsewhere it does nothing.
 * Without the store's answer the rows that are known stay, unless there are none or `consistent`.
 * vexi_table_follows: whether it would have to ask the store. */
vex_status vexi_table_follow(vexi_table *table, bool consistent, vex_error *err);
bool vexi_table_follows(vexi_table *table, bool consistent);

/* One place where rows are. Exactly one of segment and memtable is set. */
typedef struct vexi_source {
    vexi_segment *segment;
    vexi_memtable *memtable;
    uint64_t row_count; /* rows (positions 0 .. row_count - 1)                                 */
    const uint64_t *hidden; /* bit set: deleted, overwritten or a tombstone; NULL: none */
    uint64_t hidden_count;
} vexi_source;

/* An immutable state of a table. Sources are ordered from old to new; an id is live in at most one.
 * schema stays valid as long as the view. */
typedef struct vexi_view {
    const vexi_schema *schema;
    const vexi_source *sources;
    size_t source_count;
    uint64_t live_count;
    int64_t version; /* Delta version */
} vexi_view;

/* The newest state: everything that was acknowledged before the call. Release it, from any thread,
 * also after the lake was closed. */
vex_status vexi_table_view(vexi_table *table, vexi_view **out, vex_error *err);
void vexi_view_retain(vexi_view *view);
void vexi_view_release(vexi_view *view); /* NULL is fine */

/* Find the live row of an id. VEX_CORRUPT, VEX_IO if a segment that might hold it is damaged:
 * *source is that one then. */
vex_status vexi_view_find(const vexi_view *view, vex_string id, bool *found, uint32_t *source,
                          uint64_t *row, vex_error *err);

/* Look an id up in memtables alone, without a view. *known is false if only storage could tell.
 * When *known and *found, *memtable (a reference: vexi_memtable_release) and *row say where. */
typedef struct vexi_memory_view {
    vexi_memtable *memtables[8]; /* newest first; references */
    uint64_t row_counts[8];
    size_t count;
    bool complete; /* there is no segment: what is not here is nowhere */
    const vexi_schema *schema;
} vexi_memory_view;
void vexi_table_memory_view(vexi_table *table, vexi_memory_view *out);
void vexi_memory_view_release(vexi_memory_view *view);
/* known: the answer is certain. found: there is a live row: memtable (borrowed from the view), row.
 */
void vexi_memory_view_find(const vexi_memory_view *view, vex_string id, bool *known, bool *found,
                           vexi_memtable **memtable, uint64_t *row);

/* A row of a memtable. Pointers are valid while the memtable is referenced. */
vexi_row vexi_memtable_row(const vexi_memtable *memtable, uint64_t row);
void vexi_memtable_retain(vexi_memtable *memtable);
void vexi_memtable_release(vexi_memtable *memtable);

/* Id of a row; valid as long as the view. */
vex_status vexi_source_id(const vexi_source *source, uint64_t row, vex_string *out, vex_error *err);

/* Whether reading the source means requests to a store, so that few large steps count. */
bool vexi_source_is_remote(const vexi_source *source);
/* Fetch what vexi_source_id reads of these rows, in few steps. Optional. */
vex_status vexi_source_ids_need(const vexi_source *source, const uint64_t *rows, size_t count,
                                vexi_read_cost *cost, vex_error *err);

/* Runs of vectors that cover rows first_row .. first_row + count - 1, in the arena, checked against
 * their checksums (once per mapping). Vectors are valid as long as the view or the arena.
 * Several ranges of rows are fetched together. `cost`, here and below: what the store was asked for
 * is added; may be NULL. */
typedef struct vexi_row_range {
    uint64_t first_row;
    uint64_t count;
} vexi_row_range;
vex_status vexi_source_runs(const vexi_source *source, const vexi_row_range *ranges,
                            size_t range_count, vexi_arena *arena, vexi_run **runs,
                            size_t *run_count, vexi_read_cost *cost, vex_error *err);

/* Values of `columns` (numbers of row.h, without the vector) for ascending `rows`:
 * out[c * row_count + r]. Strings are valid as long as the view or the arena. */
vex_status vexi_source_cells(const vexi_source *source, const vexi_schema *schema,
                             const uint32_t *columns, size_t column_count, const uint64_t *rows,
                             size_t row_count, vexi_arena *arena, vexi_cell *out,
                             vex_search_stats *stats, vexi_read_cost *cost, vex_error *err);

/* The segment's graph, or NULL where there is none, it is not checked yet or has no room in memory
 * here. Valid as long as the view. */
const vexi_graph_file *vexi_source_graph(const vexi_source *source);

/* The collection's rotation; immutable, shared by the views of the table. */
const vexi_rotation *vexi_view_rotation(const vexi_view *view);

/* Codes of a memtable's rows: full blocks of 32 around one centre, which is the origin too. */
typedef struct vexi_memtable_codes {
    const float *center; /* padded to 16 values, 64-byte aligned; NULL: no row is coded yet */
    const float *origin; /* the same, rotated: padded values */
    float row_length;
    uint64_t
        row_count; /* rows 0 .. row_count - 1 are coded (a multiple of 32); those behind are not */
    uint32_t bits; /* as vexi_code_layout; records exist if > 1 */
    vexi_code_list lists[32]; /* they cover rows 0 .. row_count - 1 in order */
    uint32_t list_count;
} vexi_memtable_codes;
/* row_count: at most so many rows (the view's). Valid as long as the view. */
void vexi_source_codes(const vexi_source *source, uint64_t row_count, vexi_memtable_codes *out);

/* Bytes of a list's codes, checked against their checksums (once per mapping); `arena` holds them
 * where a store cannot map. Lists ascend. */
vex_status vexi_source_lists(const vexi_source *source, const uint32_t *lists, size_t list_count,
                             vexi_arena *arena, const uint8_t **out, vexi_read_cost *cost,
                             vex_error *err);

/* Tell what a search met in a source: VEX_CORRUPT, where its index or graph file may have proved
 * damaged, or VEX_IO, where one may have been cut while it was mapped. If so, the segment is
 * searched exactly from now on (it is opened anew from its Parquet file) and re-indexed in the
 * background. VEX_OK: take a new view and search again. Else the damage itself. */
vex_status vexi_view_index_damaged(vexi_table *table, const vexi_view *view, uint32_t source,
                                   vex_status met, vex_error *err);

/* For a caller that cannot name the source: do so to all segments of the view whose index files
 * proved damaged since it was made; and where what is read passes through a cache, have it read
 * anew. True: take a new view and ask again; false also for a status that is another's. */
bool vexi_view_mend(vexi_table *table, const vexi_view *view, vex_status met);

/* No vector of the source is longer than this; negative: nobody looked. Under inner product, by
 * which float32 is off by a share of the lengths (index/flat.h). A memtable knows by itself; a
 * segment remembers what it was told, once somebody looked at all its rows. */
float vexi_source_length_max(const vexi_source *source);
void vexi_source_length_told(const vexi_source *source, float length);

/* The segment's IVF head, or NULL for memtables and flat segments. */
const vexi_index_file *vexi_source_ivf(const vexi_source *source);
/* VEX_OK, or the damage that searching this source would meet; names the object. */
vex_status vexi_source_check(const vexi_source *source, vex_error *err);
/* Object name, for messages; "memtable" for memtables. */
const char *vexi_source_name(const vexi_source *source);

/* ---- Checking -------------------------------------------------------------------------------- */

/* What is brought in beside the heads of index files (warm.c). */
typedef struct vexi_warm_request {
    bool codes_only;        /* of the index files, the codes of their lists */
    bool vectors;           /* the data files too */
    vex_progress *progress; /* may be NULL */
    const bool *closing;    /* atomic: ends it; may be NULL */
} vexi_warm_request;

/* Fetch what searches of the table need, within the budgets of the lake's cache; nothing where the
 * store maps. stats is added to. VEX_CANCELLED, or what the store says: what was fetched stays. */
vex_status vexi_table_warm(vexi_table *table, const vexi_warm_request *request,
                           vex_warm_stats *stats, vex_error *err);

/* A finding of vexi_table_verify, in the arena. */
typedef struct vexi_finding {
    vex_string object;
    vex_string problem;
} vexi_finding;

/* Check every object that the newest version names. Appends to *findings (an array in the arena).
 */
vex_status vexi_table_verify(vexi_table *table, vexi_arena *arena, vexi_finding **findings,
                             size_t *finding_count, uint64_t *object_count, vex_error *err);

#endif
