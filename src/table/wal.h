/* Write-ahead log of a local lake: one chain of files for all collections, with group commit.
 *
 * A writer hands in its encoded records and blocks. The first that finds no leader becomes one: it
 * takes all that wait as a group, numbers and appends them in one call, syncs once, applies them to
 * their memtables in order of sequence, and wakes their writers. There is no log thread, so the
 * engine runs on one thread too.
 *
 * Invariants
 *  1. Records of a file are appended in order of sequence; a number is never used twice.
 *  2. A group is applied (visible) only after it is durable; groups are applied in order.
 *  3. A group counts as a whole: replay drops one that is not whole (records tell its size).
 *  4. After a failed append or sync nothing more is appended to that file. The next file's header
 *     tells how much of it counts (the cut), and is durable before any later acknowledgement.
 *  5. A write is answered VEX_FULL or VEX_IO (refused) only when it cannot replay; else
 *     VEX_UNKNOWN_OUTCOME.
 *  6. A file is deleted only when every collection in it has committed past its records in it. */
#ifndef VEXI_TABLE_WAL_H
#define VEXI_TABLE_WAL_H

#include <pthread.h>

#include "base/buffer.h"
#include "format/wal_record.h"
#include "store/store.h"
#include "table/table.h"

typedef struct vexi_wal vexi_wal;

/* One waiting write, on its writer's stack. */
typedef struct vexi_wal_write {
    struct vexi_wal_write *next;
    vexi_buffer records; /* unsealed records, back to back */
    size_t record_count;
    char collection[37]; /* of all its records */
    /* Called once, by the leader, when the records are durable; must not fail or block on the log.
     */
    void (*apply)(struct vexi_wal_write *write, uint64_t first_sequence);
    /* set by the log */
    vex_status status;
    vex_error error;
    bool done;
    pthread_cond_t turn;
} vexi_wal_write;

typedef struct vexi_wal_config {
    vex_durability durability;
    uint32_t sync_interval_ms;
    uint64_t file_size_bytes;
    /* Interval durability: a sync failed, so what was acknowledged since the last one is in
     * memtables alone. Called by a writer or the sync task, without the log's lock. */
    void (*lost)(void *context);
    void *context;
} vexi_wal_config;

/* What recovery learned about a file that is still there. */
typedef struct vexi_wal_old_file {
    uint64_t number;
    uint64_t size_bytes;
    size_t entry_count;
    struct {
        char collection[37];
        uint64_t sequence; /* largest */
    } * entries;           /* in the arena of the recovery */
} vexi_wal_old_file;

/* Start a new file, number `number`, whose predecessor counts up to `previous_cut`. */
vex_status vexi_wal_create(const vexi_env *env, vexi_store *store, const vexi_wal_config *config,
                           const char uuid[37], uint64_t number, uint64_t next_sequence,
                           uint64_t previous_cut, const vexi_wal_old_file *old, size_t old_count,
                           vexi_wal **out, vex_error *err);
/* End background work: config.lost is not called any more. No write is under way. NULL is fine. */
void vexi_wal_stop(vexi_wal *wal);
/* Syncs what interval durability left. NULL is fine. */
vex_status vexi_wal_destroy(vexi_wal *wal, vex_error *err);

/* Log, apply, wait. Returns the write's status. */
vex_status vexi_wal_commit(vexi_wal *wal, vexi_wal_write *write, vex_error *err);

/* If the outcome of an earlier write is unknown, begin a new file, which makes it refused. Returns
 * at once where nothing is. */
vex_status vexi_wal_settle(vexi_wal *wal, vex_error *err);

/* The collection has committed everything up to `sequence` (UINT64_MAX: it is dropped): delete the
 * files that nothing needs any more. */
void vexi_wal_committed(vexi_wal *wal, const char collection[37], uint64_t sequence);

/* The log fields of vex_lake_stats, as the last group left them; waits for no leader. */
void vexi_wal_describe(vexi_wal *wal, vex_lake_stats *out);

/* ".vexlake/wal/00000000000000000001.wal"; out holds 64 bytes. */
void vexi_wal_file_name(uint64_t number, char out[64]);

#endif
