/* Store: whole objects and byte ranges, the only way by which the engine touches disk or network.
 *
 * A store is a flat name space of immutable objects ("packages/data/x.parquet"): put once, read by
 * ranges, listed by prefix, deleted. Names are non-empty, at most 1,024 bytes of
 * [A-Za-z0-9._~=-] and '/', without "//", a leading or trailing '/', or the segments "." and "..";
 * a segment has at most 255 bytes and does not begin with ".tmp-" (a file store's temporary files);
 * no name is both an object and a folder of others. Beside objects, a store on a local disk keeps
 * append-only logs.
 *
 * Implementations: store_file.c (over a vexi_disk), store_mem.c, store_fault.c (wraps another and
 * injects faults from a seed); store_s3.c (objects in a bucket, see s3.h); store_cache.c (wraps
 * another and keeps blocks of it, see cache.h).
 *
 * Every function is thread-safe and blocking. Stores fill err with the object's name in the
 * message. */
#ifndef VEXI_STORE_STORE_H
#define VEXI_STORE_STORE_H

#include "base/arena.h"
#include "base/bytes.h"
#include "base/histogram.h"

typedef struct vexi_store vexi_store;
typedef struct vexi_log_file vexi_log_file;

enum {
    VEXI_STORE_NAME_SIZE_MAX = 1024,
    VEXI_STORE_SEGMENT_SIZE_MAX = 255, /* what file systems allow */
    VEXI_STORE_CAN_MAP = 1,            /* map is there */
    VEXI_STORE_CAN_LOG = 2,            /* log_open is there */
    VEXI_STORE_CAN_LOCK = 4            /* lock is there */
};

/* A piece of an object, and where its bytes go (`size` bytes, caller's). */
typedef struct vexi_range {
    uint64_t offset;
    size_t size;
    uint8_t *target;
} vexi_range;

/* Ranges of one object, for a step that reads several. */
typedef struct vexi_store_read {
    const char *name;
    const vexi_range *ranges;
    size_t count;
} vexi_store_read;

/* What reading cost: added to by the calls that are given one, each by one thread at a time. */
typedef struct vexi_read_cost {
    uint64_t steps;    /* calls that had to wait for requests: each depends on the one before */
    uint64_t requests; /* that they sent; those of a step together */
    uint64_t bytes;    /* that those asked for, gaps between ranges included */
    uint64_t hits;     /* reads that a cache answered instead */
    uint64_t ns;       /* how long the calls took */
} vexi_read_cost;

typedef struct vexi_list_entry {
    const char *name; /* NUL-terminated, whole name; a folder's ends with '/' */
    uint64_t size_bytes;
    int64_t modified_us; /* wall time, 0 for folders */
    bool is_folder;
} vexi_list_entry;

typedef struct vexi_listing {
    vexi_list_entry *entries; /* in byte order of the names; in the caller's arena */
    size_t count;
} vexi_listing;

/* An object in memory, read-only. `data` stays valid until vexi_store_unmap. */
typedef struct vexi_mapping {
    const uint8_t *data; /* NULL when size is 0 */
    size_t size;
    void *handle; /* the store's */
} vexi_mapping;

typedef struct vexi_store_ops {
    uint32_t flags;

    /* Fill every range's target. All ranges of one call are in flight together. A range past the
     * end is VEX_CORRUPT (objects are immutable: whoever asks knows the size). VEX_NOT_FOUND. */
    vex_status (*get)(vexi_store *store, const char *name, const vexi_range *ranges, size_t count,
                      vex_error *err);

    /* The ranges of several objects (each name once), all in flight together, in about request_max
     * requests at most: nearer ranges of one object are joined until they fit (0: as the store
     * thinks best). On failure *failed is the number of a get that failed, and all targets are
     * undefined. NULL: they are read by `get`, side by side. */
    vex_status (*get_many)(vexi_store *store, const vexi_store_read *gets, size_t count,
                           size_t request_max, vexi_read_cost *cost, size_t *failed,
                           vex_error *err);

    /* Write the object from `parts` in order. When it returns VEX_OK the object is durable and
     * whole; on failure, or after a crash, the name holds the old object, the new one, or nothing,
     * never a part. VEX_FULL when the disk is full. */
    vex_status (*put)(vexi_store *store, const char *name, const vexi_span *parts, size_t count,
                      vex_error *err);

    /* The same, but only if there is no object of that name: VEX_EXISTS otherwise. Of racing calls
     * one wins. VEX_UNKNOWN_OUTCOME when the object may or may not be there: read it back. On
     * VEX_EXISTS the object that is there is durable, so after an unknown outcome a second try with
     * the same bytes and a comparison settle it. */
    vex_status (*put_if_absent)(vexi_store *store, const char *name, const vexi_span *parts,
                                size_t count, vex_error *err);

    /* Objects whose names begin with `prefix` (may be "") and sort after `after` (may be NULL).
     * With by_folder, names are cut behind the first '/' after the prefix and folders are listed
     * once; `after` then compares with the cut name. A folder that holds no object is not listed.
     * An absent folder is an empty listing. A lock's file may appear. */
    vex_status (*list)(vexi_store *store, const char *prefix, const char *after, bool by_folder,
                       vexi_arena *arena, vexi_listing *out, vex_error *err);

    /* Delete an object, durably; one that is not there is fine. Who mapped it keeps its bytes. */
    vex_status (*remove)(vexi_store *store, const char *name, vex_error *err);

    /* Delete `count` objects in as few requests as the store has for it. On failure any of them may
     * be gone. NULL: they are removed one by one. */
    vex_status (*remove_many)(vexi_store *store, const char *const *names, size_t count,
                              vex_error *err);

    /* vexi_store_get_all in fewer steps than size and get. NULL: by those. */
    vex_status (*get_all)(vexi_store *store, const char *name, size_t size_max, vexi_arena *arena,
                          vexi_span *out, vex_error *err);

    /* Size of an object. VEX_NOT_FOUND. */
    vex_status (*size)(vexi_store *store, const char *name, uint64_t *out, vex_error *err);

    /* What the Delta log says of the size of an object, so that nobody asks for it. NULL: the store
     * has no use for it. */
    void (*tell_size)(vexi_store *store, const char *name, uint64_t size_bytes);

    /* Bring ranges in (targets are not looked at), for later reads. NULL: it keeps nothing. */
    vex_status (*warm)(vexi_store *store, const char *name, const vexi_range *ranges, size_t count,
                       vex_error *err);

    /* Bytes of an object did not match their checksum: read them anew, where that makes a
     * difference. NULL: it does not. */
    void (*distrust)(vexi_store *store, const char *name);

    /* VEXI_STORE_CAN_MAP: map a whole object. NULL where the flag is missing. */
    vex_status (*map)(vexi_store *store, const char *name, vexi_mapping *out, vex_error *err);
    void (*unmap)(vexi_store *store, vexi_mapping *mapping);

    /* VEXI_STORE_CAN_LOG: create an append-only file that must not exist (VEX_EXISTS), durable as
     * an empty file on return. Its content is read with `get`, `size` and `map` as an object's. */
    vex_status (*log_create)(vexi_store *store, const char *name, vexi_log_file **out,
                             vex_error *err);
    /* Append: not durable before log_sync. On failure any part of `parts` may have been written. */
    vex_status (*log_append)(vexi_log_file *log, const vexi_span *parts, size_t count,
                             vex_error *err);
    /* Make all that was appended durable. After a failure nothing is known of unsynced bytes and
     * the log must be abandoned. */
    vex_status (*log_sync)(vexi_log_file *log, vex_error *err);
    void (*log_close)(vexi_log_file *log);

    /* VEXI_STORE_CAN_LOCK: hold the store for writing, by name of a lock file, until unlock
     * or the end of the store. VEX_BUSY when another process or store handle holds it; the message
     * tells who. */
    vex_status (*lock)(vexi_store *store, const char *name, vex_error *err);
    /* Give the lock back; fine without one. Reading goes on. */
    void (*unlock)(vexi_store *store);

    void (*destroy)(vexi_store *store);
} vexi_store_ops;

/* What the operations of one kind did. Any thread. */
typedef struct vexi_store_counter {
    vexi_histogram latency;
    _Atomic uint64_t errors; /* VEX_NOT_FOUND and VEX_EXISTS are none */
    _Atomic uint64_t bytes;
} vexi_store_counter;

typedef struct vexi_store_counters {
    vexi_store_counter kinds[VEX_STORE_OPERATION_COUNT];
} vexi_store_counters;

/* Begins every implementation's struct. */
struct vexi_store {
    const vexi_store_ops *ops;
    const vexi_env *env;
    vexi_store_counters *counters; /* borrowed; NULL: nothing is counted. Set before the first call
                                      by vexi_store_count */
};

/* Count all operations that go through the wrappers below. `counters` outlives the store. A store
 * that wraps another counts what it is asked for, not what it asks. */
void vexi_store_count(vexi_store *store, vexi_store_counters *counters);

/* Begins every implementation's log struct. */
struct vexi_log_file {
    vexi_store *store;
};

/* Whether the name follows the rules above. */
bool vexi_store_name_valid(const char *name);

/* Wrappers: check names (VEX_INVALID), then call the table. Prefer them to ops. */
vex_status vexi_store_get(vexi_store *store, const char *name, const vexi_range *ranges,
                          size_t count, vex_error *err);
/* All in one step. cost and failed may be NULL. */
vex_status vexi_store_get_many(vexi_store *store, const vexi_store_read *gets, size_t count,
                               size_t request_max, vexi_read_cost *cost, size_t *failed,
                               vex_error *err);
/* The whole object into the arena, with a NUL behind it; VEX_LIMIT above size_max. */
vex_status vexi_store_get_all(vexi_store *store, const char *name, size_t size_max,
                              vexi_arena *arena, vexi_span *out, vex_error *err);
vex_status vexi_store_put(vexi_store *store, const char *name, const vexi_span *parts, size_t count,
                          vex_error *err);
vex_status vexi_store_put_if_absent(vexi_store *store, const char *name, const vexi_span *parts,
                                    size_t count, vex_error *err);
vex_status vexi_store_list(vexi_store *store, const char *prefix, const char *after, bool by_folder,
                           vexi_arena *arena, vexi_listing *out, vex_error *err);
vex_status vexi_store_remove(vexi_store *store, const char *name, vex_error *err);
vex_status vexi_store_remove_many(vexi_store *store, const char *const *names, size_t count,
                                  vex_error *err);
vex_status vexi_store_size(vexi_store *store, const char *name, uint64_t *out, vex_error *err);
void vexi_store_distrust(vexi_store *store, const char *name);
vex_status vexi_store_warm(vexi_store *store, const char *name, const vexi_range *ranges,
                           size_t count, vex_error *err);
vex_status vexi_store_map(vexi_store *store, const char *name, vexi_mapping *out, vex_error *err);
void vexi_store_unmap(vexi_store *store,
                      vexi_mapping *mapping); /* clears *mapping; NULL data is fine */
vex_status vexi_store_log_create(vexi_store *store, const char *name, vexi_log_file **out,
                                 vex_error *err);
vex_status vexi_store_log_append(vexi_log_file *log, const vexi_span *parts, size_t count,
                                 vex_error *err);
vex_status vexi_store_log_sync(vexi_log_file *log, vex_error *err);
void vexi_store_log_close(vexi_log_file *log); /* NULL is fine */
vex_status vexi_store_lock(vexi_store *store, const char *name, vex_error *err);
void vexi_store_unlock(vexi_store *store);
void vexi_store_destroy(vexi_store *store); /* NULL is fine; objects stay, handles are gone */
static inline uint32_t vexi_store_flags(const vexi_store *store) {
    return store->ops->flags;
}

/* An object opened for many reads: mapped where the store can map, else by ranges. */
typedef struct vexi_object {
    vexi_store *store; /* borrowed */
    char *name;
    uint64_t size_bytes;
    vexi_mapping mapping; /* data == NULL where not mapped */
} vexi_object;

/* size_bytes is what the log says, UINT64_MAX asks the store. Where the store maps, another actual
 * size is VEX_CORRUPT and a missing object VEX_NOT_FOUND; elsewhere nothing is asked, and the first
 * read that finds it otherwise fails. */
vex_status vexi_object_open(vexi_store *store, const char *name, uint64_t size_bytes,
                            vexi_object *out, vex_error *err);
void vexi_object_close(vexi_object *object);
/* Fetch all pieces of one step together. Pieces outside the object are VEX_CORRUPT. cost may be
 * NULL. */
vex_status vexi_object_fetch(vexi_object *object, vexi_piece *pieces, size_t count,
                             vexi_arena *arena, vexi_read_cost *cost, vex_error *err);

/* Pieces of one object, for a step that reads several. */
typedef struct vexi_object_need {
    vexi_object *object;
    vexi_piece *pieces;
    size_t count;
} vexi_object_need;

/* The same for several objects of one store, all in one step; several needs may be of one object.
 * On failure *failed is the number of a need whose object could not be read. */
vex_status vexi_objects_fetch(vexi_object_need *needs, size_t count, size_t request_max,
                              vexi_arena *arena, vexi_read_cost *cost, size_t *failed,
                              vex_error *err);

/* ---- Implementations ------------------------------------------------------------------------- */

/* Objects in memory; can map, can log, can lock (within the process). For tests and mem:// lakes.
 */
vex_status vexi_store_mem_create(const vexi_env *env, vexi_store **out, vex_error *err);

/* The disk below a file store: the few system calls whose order and durability matter, so that a
 * test can crash between any two of them. See disk.h. */
typedef struct vexi_disk vexi_disk;

/* Objects as files below `root` (made if `create`, else VEX_NOT_FOUND). put writes
 * a temporary file, syncs, renames (put_if_absent: links), syncs the folder; leftovers of a crash
 * are removed on creation of the store when it takes the lock. disk is borrowed. */
vex_status vexi_store_file_create(const vexi_env *env, vexi_disk *disk, const char *root,
                                  bool create, vexi_store **out, vex_error *err);

/* Faults to inject, by a seed. Rates are in parts per million of the calls of a kind. */
typedef struct vexi_fault_plan {
    uint64_t seed;
    uint32_t error_ppm;       /* a call fails with VEX_IO and does nothing                       */
    uint32_t lost_answer_ppm; /* a put happens, the caller sees VEX_UNKNOWN_OUTCOME              */
    uint32_t full_ppm;        /* a put or append fails with VEX_FULL                             */
    uint64_t fail_at;         /* the n-th call (from 1) fails with VEX_IO; 0 never               */
    bool fail_after;          /* and so do all calls after it                                    */
    uint32_t sync_error_ppm;  /* a log_sync fails; a part of the unsynced bytes is lost          */
} vexi_fault_plan;

/* Wraps `inner` (taken, destroyed on failure too). The plan is copied. With sync errors in the plan
 * at log_create, appended bytes can be read only once they are synced. */
vex_status vexi_store_fault_create(const vexi_env *env, vexi_store *inner,
                                   const vexi_fault_plan *plan, vexi_store **out, vex_error *err);
/* Calls since the store was created or its plan was set. Set the plan while nothing is under way:
 * counting starts at 0 again, and the n-th call of fail_at with it. */
uint64_t vexi_store_fault_calls(const vexi_store *store);
void vexi_store_fault_set(vexi_store *store, const vexi_fault_plan *plan);

#endif
