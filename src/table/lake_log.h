/* The log of a collection as objects in the lake, on a store that several nodes may use at once.
 *
 *   lake_claim.c   who may write: heartbeats, claims, epochs
 *   lake_log.c     the writer: groups of writes, each put as one object
 *   lake_follow.c  everybody else: memtables from what the writer put
 *
 * Objects are numbered without gaps; each is put if it is absent, one at a time. A node that wants
 * to write puts a claim under the next number, with a higher epoch. The former writer's next put
 * meets that claim, so it can acknowledge nothing any more; and since the new writer commits its
 * epoch to the Delta log before it replays, the former's next commit is refused too. What is
 * deleted from the log is covered by a commit; a claim is never deleted, for it is what stops a
 * writer that has slept.
 *
 * Invariants
 *  1. One put of a log is in flight, and nothing is put behind an object whose outcome is unknown.
 *  2. A group is applied (visible), then acknowledged, only when it is known to be in the lake.
 *  3. A claim counts only if its number is above the position in the newest version, read after
 *     its put: at or below it the writer may have passed, and deleted what would have stopped it.
 *  4. Epochs grow; whoever meets a higher one than its own writes no more (commit.c).
 *  5. Only who leads (`leading`) changes the memtables of such a table; a writer's leader, a
 *     follower and a claimer exclude each other by it.
 *  6. A follower applies objects without gaps from the position in the newest version on. An object
 *     that is absent was never put if no newer version came by the time its absence was seen:
 *     objects are deleted only behind the commit that covers them.
 *
 * Where a node logs on its own disk (durability always or interval on a shared store) its claim
 * says so, and no groups follow: then nobody takes the claim over but by force, for that disk may
 * hold acknowledged rows. */
#ifndef VEXI_TABLE_LAKE_LOG_H
#define VEXI_TABLE_LAKE_LOG_H

#include <pthread.h>

#include "format/lake_log.h"
#include "table/segment.h"
#include "table/wal.h"

/* An object of the log that is above the committed position, or not deleted yet. */
typedef struct lake_log_mark {
    uint64_t number;
    uint64_t size_bytes; /* 0: a claim, which stays */
    uint64_t end_row;    /* of a follower: rows of the active memtable up to its end */
} lake_log_mark;

typedef struct lake_log {
    /* The right to change the memtables, and the queue of the writer. */
    pthread_mutex_t mutex;
    pthread_cond_t idle;   /* nobody leads; with the mutex */
    pthread_cond_t filled; /* the leader need not wait longer for others; with the mutex */
    bool leading;          /* mutex */
    vexi_wal_write *first; /* waiting writes; mutex */
    vexi_wal_write *last;
    size_t waiting_bytes; /* mutex */
    size_t waiting_records;
    lake_log_mark *marks; /* ascending; mutex */
    size_t mark_count;
    size_t mark_capacity;

    /* The leader's. */
    vexi_buffer pending; /* the object whose outcome is unknown; size 0: there is none */
    uint64_t pending_number;
    bool unsettled;   /* atomic: pending is not empty */
    uint64_t covered; /* sequence that the published version covers; followers' */
    bool reset;       /* memtables are not what marks say: read the log from the position on */

    /* Who writes. `owned` changes with table.state_lock and by the leader; atomic to read. */
    bool owned;
    bool was_owned;        /* leader: `takeover` was used up */
    uint64_t epoch;        /* of our claim; leader */
    uint64_t claim_number; /* of our claim; leader */
    uint64_t applied; /* number up to which the memtables hold the log; leader, atomic to read */
    bool followed;    /* atomic: applied means something */
    uint64_t followed_ns; /* atomic: it held then what was the newest */
    uint64_t used_ns;     /* atomic: when somebody last asked */
} lake_log;

/* ---- lake_log.c ------------------------------------------------------------------------------ */

vex_status lake_log_create(const vexi_env *env, lake_log **out, vex_error *err);
void lake_log_destroy(const vexi_env *env, lake_log *log); /* NULL is fine */

/* Become the one who may change the memtables; wait for who is. */
void lake_log_lead(lake_log *log);
void lake_log_yield(lake_log *log);
/* Room for `count` more marks. */
vex_status lake_log_marks_reserve(const vexi_env *env, lake_log *log, size_t count, vex_error *err);
/* Room was reserved. */
void lake_log_mark_add(lake_log *log, uint64_t number, uint64_t size_bytes, uint64_t end_row);

/* The object whose outcome was unknown matters no more. Leads. */
void lake_log_forget_pending(lake_log *log);

/* As vexi_wal_commit. VEX_READ_ONLY: another node has the claim now. */
vex_status lake_log_commit(vexi_table *table, vexi_wal_write *write, vex_error *err);
/* As vexi_wal_settle. */
vex_status lake_log_settle(vexi_table *table, vex_error *err);
/* Make sure that no other node has taken the table over: one probe where the next object would be.
 * VEX_READ_ONLY: one has. No locks. */
vex_status lake_log_confirm(vexi_table *table, vex_error *err);
/* The table has committed up to `sequence`: delete what it covers. Commit lock. */
void lake_log_committed(vexi_table *table, uint64_t sequence);
/* Adds to the log fields. */
void lake_log_describe(lake_log *log, vex_lake_stats *out);

/* ---- lake_claim.c ---------------------------------------------------------------------------- */

/* This process to others. A member of the lake. */
typedef struct lake_node lake_node;
vex_status lake_node_create(vexi_lake *lake, lake_node **out, vex_error *err);
/* End the heartbeat; what it claimed is free then. NULL is fine. */
void lake_node_destroy(lake_node *node);
/* Who it is in claims; lasts as long as the node. */
const char *lake_node_uuid(const lake_node *node);

/* Make this node the table's writer unless it is. VEX_READ_ONLY names the node that is. No locks.
 */
vex_status table_claim(vexi_table *table, vex_error *err);
/* The same with the commit lock. */
vex_status table_claim_locked(vexi_table *table, vex_error *err);
/* Whether this node may write the table without asking anybody. */
bool table_owned(const vexi_table *table);
/* Somebody else has a higher epoch: write no more. By the leader, or with the commit lock. */
void table_fenced(vexi_table *table);
/* VEX_READ_ONLY if the newest version that was read says that another node took the table over.
 * Commit lock. */
vex_status table_check_epoch(vexi_table *table, vex_error *err);

/* ---- lake_follow.c --------------------------------------------------------------------------- */

/* The largest sequence that the newest version read covers. Commit lock. */
uint64_t table_log_covered(const vexi_table *table);
/* Take over the newest version, whatever others committed, and the log behind it, up to the object
 * before `end` (then all must be there) or, with UINT64_MAX, to its end. Leads; commit lock. */
vex_status table_follow_to(vexi_table *table, uint64_t end, vex_error *err);
/* The same for a table that another node writes, or nobody. Commit lock. */
vex_status table_follow_locked(vexi_table *table, vex_error *err);
/* Whether the background looks after the table's log and versions: somebody asked it lately. */
enum { LAKE_LOG_IN_USE_MS = 60000 };
bool table_is_followed(const vexi_table *table);
/* Append a group that is in the lake to the active memtable. Leads. */
vex_status table_apply_group(vexi_table *table, vexi_span file, vex_error *err);

#endif
