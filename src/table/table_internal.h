/* What the files of table/ share: the structs of a lake and a table, their locks, and the steps of
 * a commit. docs/locking.md has the order: lake.tables -> table.commit -> table.view -> table.state
 * -> log -> memtable. */
#ifndef VEXI_TABLE_TABLE_INTERNAL_H
#define VEXI_TABLE_TABLE_INTERNAL_H

#include <pthread.h>

#include "table/lake_log.h"
#include "table/memtable.h"
#include "table/segment.h"
#include "table/wal.h"

/* A name that was looked for on storage: not again for a while. */
enum { LAKE_MISSES = 16 };
typedef struct lake_miss {
    uint64_t hash;
    uint64_t since_ns;
} lake_miss;

struct vexi_lake {
    vexi_core *core; /* env and store */
    vexi_lake_config config;
    vexi_wal *wal;   /* of a lake on disk; NULL when read-only, or where logs are objects */
    lake_node *node; /* of a shared lake that may be written; else NULL */
    char wal_uuid[37];
    uint64_t memory_bytes; /* atomic: all memtables that are not flushed */

    pthread_mutex_t create_lock; /* one collection is made at a time */
    pthread_rwlock_t tables_lock;
    vexi_table **tables; /* sorted by name; tables_lock; dropped ones stay until replaced */
    size_t table_count;
    size_t table_capacity;

    lake_miss misses[LAKE_MISSES]; /* of a shared lake; tables_lock */
    size_t miss_next;
    uint64_t discovered_ns; /* when the folders were listed last; the refresh task's */

    vexi_task refresh_task;
    vexi_task prefetch_task; /* warm.c */
    vexi_task index_task;    /* graphs, and segments without an index: index_task.c */
    uint32_t index_failures; /* in a row; the index task's */
    bool ready;              /* atomic: open, background work may begin */
    bool closing;            /* atomic */
};

/* A segment as the newest version has it. */
typedef struct table_segment {
    vexi_segment *segment;
    vexi_bits *deleted; /* its deletion vector, and rows that a newer foreign file hides; or NULL */
    vexi_bits *hidden; /* deleted, and rows that memtables hide; view lock; or NULL               */
    uint64_t dv_hash;  /* of the deletion-vector descriptor, 0: none                              */
    bool unstored;     /* `deleted` says more than the deletion vector: the next commit stores it */
} table_segment;

/* A memtable as part of the table. */
typedef struct table_memtable {
    vexi_memtable *memtable;
    vexi_bits *hidden; /* its tombstones and superseded rows; view lock; or NULL */
    uint64_t resolved; /* rows whose ids were looked up in the older sources; view lock */
    uint64_t since_ns; /* of a sealed one: when its first row came; state lock */
} table_memtable;

enum { TABLE_SEALED_MAX = 6, TABLE_SEALED_WAIT = 3 };

struct vexi_table {
    int references;  /* atomic */
    vexi_lake *lake; /* borrowed; calls end before the lake is closed */
    vexi_core *core;
    vexi_schema_box *schema;
    char *name;
    char *folder;
    char uuid[37]; /* metaData.id */

    /* commit: one committer at a time; held over slow work. */
    pthread_mutex_t commit_lock;
    vexi_delta_state delta;

    /* view: the sources and what is hidden in them. */
    pthread_mutex_t view_lock;
    vexi_view *cached; /* a reference; view lock */

    /* state: pointers that writers and readers meet at; never held over I/O but for id look-ups in
     * deletes. */
    pthread_mutex_t state_lock;
    bool dropped;
    bool doubtful; /* the outcome of a commit that readers would see is unknown (a drop, on a shared
                      store an import): the next write asks the log; state lock */
    table_segment *segments; /* changed with view and state locks, so either one suffices to read */
    size_t segment_count;
    table_memtable sealed[TABLE_SEALED_MAX]; /* oldest first; as segments */
    size_t sealed_count;
    table_memtable active;    /* as segments; .memtable may be NULL    */
    bool flush_now;           /* by the next background flush; state lock */
    uint32_t flusher_count;   /* threads that flush, or wait for the commit lock to; state lock */
    pthread_cond_t flushed;   /* a memtable was flushed, or a flusher ended; with the state lock */
    uint64_t active_since_ns; /* when its first row came; state lock */
    uint32_t flush_failures;  /* of the background flush, in a row; its own */
    uint64_t reserved_rows;   /* promised to writes that are in the log queue; state lock   */
    int64_t version;      /* of the published segments; state lock                               */
    uint64_t flush_count; /* state lock                                                          */
    char last_error[256]; /* state lock                                                          */
    uint64_t changes;     /* grows with every change of the sources; state lock     */
    uint64_t segment_lists; /* grows with every change of `segments`; state lock                  */
    float *center; /* of the codes of the next memtable: the mean of the newest coded segment; state
                      lock; NULL: there is none */
    float center_row_length;            /* state lock */
    const vexi_segment *center_segment; /* whose it is, to compare only; commit lock */

    lake_log *log; /* of a shared lake; else NULL */

    vexi_task flush_task;
    int index_cancel; /* atomic: the index task leaves this table */
};

/* ---- table.c --------------------------------------------------------------------------------- */

/* A table over a Delta state (moved from). Opens its segments. */
vex_status table_create(vexi_lake *lake, vex_string name, const char *folder,
                        vexi_delta_state *delta, vexi_table **out, vex_error *err);
void table_retain(vexi_table *table);
/* Seal the active memtable if it holds anything. State lock. VEX_OK also if there was nothing. */
vex_status table_seal(vexi_table *table, vex_error *err);
/* Append logged rows (block taken) to the active memtable; capacity was reserved. State lock. */
void table_append(vexi_table *table, vexi_row_block *block, uint64_t first_sequence);
/* Reserve room for rows. State lock. */
vex_status table_reserve(vexi_table *table, uint64_t row_count, vex_error *err);
void table_note_error(vexi_table *table, const vex_error *error);
/* The table has committed everything up to `sequence` (UINT64_MAX: it is dropped): what nothing
 * needs any more of its log is deleted. */
void table_log_committed(vexi_table *table, uint64_t sequence);
/* If the outcome of an earlier write is unknown, find it out. */
vex_status table_log_settle(vexi_table *table, vex_error *err);
/* By which commits tell how much of the log they cover. `out` holds 64 bytes. */
void table_log_app_id(const vexi_table *table, char out[64]);
/* References to the segments as they are now, with `deleted`; table_segments_free gives them back.
 * State lock. */
vex_status table_segments_share(const vexi_table *table, table_segment **out, vex_error *err);

/* ---- view.c ---------------------------------------------------------------------------------- */

/* Replace the segments (array and references taken; hidden not set) and forget the oldest
 * `flushed_count` sealed memtables, in one step. `anew`: a segment of theirs may have been
 * published before (the flush had an unknown outcome, a refresh met its commit), and what they hid
 * in it must not stay hidden. Commit lock. */
vex_status table_publish(vexi_table *table, table_segment *segments, size_t segment_count,
                         size_t flushed_count, bool anew, int64_t version, vex_error *err);
/* The same with `fresh` (taken on success) in the place of all memtables. Leads (lake_log.h). */
vex_status table_publish_fresh(vexi_table *table, table_segment *segments, size_t segment_count,
                               vexi_memtable *fresh, bool anew, int64_t version, vex_error *err);
void table_drop_views(vexi_table *table);

/* ---- center.c -------------------------------------------------------------------------------- */

/* Follow a change of the segments with `table->center`. Without memory, or where the segment cannot
 * be read, the old one stays. Commit lock. */
void table_center_update(vexi_table *table);

/* ---- put_once.c ------------------------------------------------------------------------------ */

/* Put an object if it is absent, the same bytes again while the outcome is unknown. VEX_OK: our
 * bytes are there. VEX_EXISTS: others are. VEX_UNKNOWN_OUTCOME. Else it is certainly not there. */
vex_status table_put_once(vexi_core *core, const char *name, vexi_span bytes, vex_error *err);

/* ---- delta_log.c, commit.c
 * -------------------------------------------------------------------------------- */

/* Read the commits from state->version + 1 on, one after the other. `folder` is the collection's.
 */
vex_status commit_refresh(vexi_core *core, const char *folder, vexi_delta_state *state,
                          vex_error *err);

/* The same in two steps, for opening. VEX_NOT_FOUND: the log is empty. */
vex_status commit_load(vexi_core *core, const char *folder, vexi_delta_state *state,
                       vex_error *err);

/* Make the commit of a version durable, whose writer may have been killed before it was. */
vex_status commit_settle(vexi_core *core, const char *folder, int64_t version, vex_error *err);

/* ---- refresh.c ------------------------------------------------------------------------------- */

/* Of a deletion vector's descriptor; 0 where there is none. */
uint64_t table_dv_hash(const vexi_delta_dv *dv);
/* The segments of the Delta state, reusing those that are open. Commit lock. */
vex_status table_segments_open(vexi_table *table, table_segment **out, size_t *out_count,
                               vex_error *err);
/* Make `deleted` the entry's own, before its first change. */
vex_status table_deleted_own(const vexi_env *env, table_segment *entry, vex_error *err);
/* Release the entries and the array. Entries may be empty. */
void table_segments_free(const vexi_env *env, table_segment *segments, size_t count);

/* One segment to be added by a commit. */
typedef struct commit_segment {
    vexi_delta_add add;
    vexi_segment *segment;
    vexi_bits *deleted; /* rows that later rows of the same commit replace, or NULL */
} commit_segment;

/* Ids whose older rows a commit hides. next gives them one by one, *more is false behind the last;
 * restart begins anew: each segment is asked for all of them in turn. */
typedef struct commit_ids {
    void (*restart)(void *context);
    vex_status (*next)(void *context, bool *more, vex_string *id, uint64_t *hash, vex_error *err);
    void *context;
} commit_ids;

typedef struct commit_request {
    const char *operation; /* "WRITE" */
    commit_segment *segments;
    size_t segment_count;
    commit_ids ids;                /* next may be NULL: none */
    uint64_t sequence;             /* covers the log up to here; 0: leave txn alone */
    size_t flushed_count;          /* sealed memtables that this commit makes obsolete */
    const table_segment *replaced; /* its live rows are in `segments` now: it goes; with `deleted`
                                      as it was when they were taken. NULL: none */
    bool unnamed; /* out: no version names `segments`, nor ever will: their files may go */
} commit_request;

/* Hide the row of an id in whichever of the segments has it. */
vex_status commit_hide(const vexi_env *env, commit_segment *segments, size_t count, vex_string id,
                       uint64_t hash, vex_error *err);
/* Commit and publish: reads what others committed, finds the rows to hide in the newest version,
 * puts the next version if it is absent, again until it is in. Commit lock. */
vex_status table_commit(vexi_table *table, commit_request *request, vex_error *err);
/* Put a commit that says nothing, so that none of ours that is in doubt can land any more. VEX_OK
 * also where the table proves to be gone. Commit lock. */
vex_status table_take_version(vexi_table *table, vex_error *err);
/* Take over what others committed and publish it. Commit lock. */
vex_status table_refresh(vexi_table *table, vex_error *err);
/* Publish what has been read of the log already. Commit lock. */
vex_status table_show(vexi_table *table, vex_error *err);
/* The action that takes a file of the newest version out. Borrows the add's strings. */
vexi_delta_remove commit_remove(const vexi_delta_add *file, int64_t now_ms);
/* VEX_UNSUPPORTED if another engine asked writers for what we do not do. */
vex_status commit_check_writable(const char *folder, const vexi_delta_state *state, vex_error *err);
/* Put one commit under version state->version + 1; VEX_EXISTS if that version is taken. Resolves
 * unknown outcomes by reading back. Applies it to the state on success. VEX_UNSUPPORTED as
 * commit_check_writable; VEX_UNKNOWN_OUTCOME also where it was put but the state could not take it
 * over. */
vex_status commit_put(vexi_core *core, const char *folder, vexi_delta_state *state,
                      vexi_delta_commit *commit, vex_error *err);

/* ---- flush.c --------------------------------------------------------------------------------- */

void flush_run(void *table);
/* Flush the sealed memtables until flushing no longer lags behind writing. */
vex_status table_flush_sealed(vexi_table *table, vex_error *err);
/* ---- segment_build.c ------------------------------------------------------------------------- */

/* step, which may be NULL, is called between the steps of a build with the share that is done, 0 to
 * 1: what it returns other than VEX_OK ends the build. cancel: atomic, not 0 ends a long step with
 * VEX_CANCELLED; may be NULL. */
typedef struct segment_hooks {
    vex_status (*step)(void *context, double share, vex_error *err);
    void *context;
    const int *cancel;
} segment_hooks;

/* Write rows as a segment (files are durable on return). rows are in any order; reordered here.
 * On failure nothing is left. */
vex_status segment_build(vexi_table *table, const vexi_row **rows, size_t row_count,
                         commit_segment *out, vexi_arena *arena, vex_error *err);
/* hooks may be NULL. */
vex_status segment_build_with(vexi_table *table, const vexi_row **rows, size_t row_count,
                              const segment_hooks *hooks, commit_segment *out, vexi_arena *arena,
                              vex_error *err);
/* Release a built segment and remove its files, which no version names. */
void segment_discard(vexi_table *table, commit_segment *segment);

/* ---- reindex.c ------------------------------------------------------------------------------- */

/* Open a segment of ours whose index file is of no use anew, from its Parquet file alone, in the
 * same place. Else what is wrong with it. Commit lock. */
vex_status table_entry_open_plain(vexi_table *table, table_segment *entry, const vex_error *damage,
                                  vex_error *err);
/* Do that to a published segment, whose reading failed with `damage`; VEX_OK too if it is no longer
 * published. */
vex_status table_mend(vexi_table *table, const vexi_segment *segment, const vex_error *damage,
                      vex_error *err);
/* To all published segments that are damaged, where it helps. Commit lock. */
vex_status table_mend_all(vexi_table *table, vex_error *err);
/* Write the live rows of a segment without an index as indexed ones, in its place. */
vex_status table_reindex(vexi_table *table, const table_segment *entry, vex_error *err);

/* ---- warm.c ---------------------------------------------------------------------------------- */

void prefetch_run(void *lake);

/* ---- index_task.c ---------------------------------------------------------------------------- */

void index_run(void *lake);
/* Have the index task look at all tables, unless the lake is being opened or closed. */
void lake_index_soon(vexi_lake *lake);
/* Remove the graph files of segments that are gone: no version names them. */
void table_graphs_remove(vexi_table *table, const table_segment *segments, size_t count);

/* ---- recover.c ------------------------------------------------------------------------------- */

vex_status lake_recover(vexi_lake *lake, vex_error *err);
/* Open the table in a folder and add it, if it is one of ours. *skipped is set where it is, but
 * made by something newer. Over a network: three steps, one for the names of the commits, one for
 * all of them, one for the heads of all segments. */
vex_status lake_load_table(vexi_lake *lake, const char *folder, vexi_arena *arena, bool *skipped,
                           vex_error *err);

/* ---- lake.c ---------------------------------------------------------------------------------- */

/* Add a table (reference taken on success), in place of a dropped one of its name. */
vex_status lake_add_table(vexi_lake *lake, vexi_table *table, vex_error *err);
/* Whether the Delta log says that this table is dropped, or another has its place. Commit lock. */
bool table_is_gone(const vexi_table *table);
/* Take that over: nobody finds it any more, its rows go, the log forgets it. Commit lock. */
vex_status table_let_go(vexi_table *table, vex_error *err);
/* Whether all memtables together take more than their limit; flush tables until they do not. */
bool lake_is_full(const vexi_lake *lake);
vex_status lake_make_room(vexi_lake *lake, vex_error *err);
/* Drop a table that holds nothing, and that no write is on its way to; else leave it alone. */
vex_status lake_drop_if_empty(vexi_lake *lake, vexi_table *table, vex_error *err);
/* Acknowledged rows are in memtables alone: flush all of them now. argument is the lake. */
void lake_log_lost(void *argument);

#endif
