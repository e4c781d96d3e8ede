/* A store with a cache in front of it: blocks of immutable objects in memory (level 1) and, where a
 * folder is given, on a local SSD (level 2). For stores whose requests are dear; a local lake is
 * mapped and needs none. docs/decisions/0005-caches.md says why it is built as it is.
 *
 * What is cached: the bytes that `get` reads (and so vexi_object_fetch), and sizes of objects. What
 * is not: get_all and list, which read what must be fresh (commits of the Delta log, hints,
 * write-ahead logs), names that config.is_uncached picks, and logs. That is the caller's rule: read
 * by `get` only objects that are never replaced under their name while somebody reads them.
 *
 * put, put_if_absent and remove through this store forget what is cached of the name, before a
 * process that dies in them could leave old bytes behind. A `get` that runs at the same time as a
 * put of the same name may see either object's bytes; one that begins after it sees the new ones.
 * Objects that another process removes may go on being served from here.
 *
 * A reader of a block that another thread is fetching waits for it; a failed fetch fails all who
 * wait, and the next reader tries again. Failures of level 2 never fail a read. */
#ifndef VEXI_STORE_CACHE_H
#define VEXI_STORE_CACHE_H

#include "store/disk.h"

enum {
    VEXI_CACHE_BLOCK_SIZE = 1 << 16, /* unless the caller says otherwise */
    VEXI_CACHE_BLOCK_SIZE_MIN = 1 << 12,
    VEXI_CACHE_BLOCK_SIZE_MAX = 1 << 20
};

typedef struct vexi_cache_config {
    uint64_t memory_bytes; /* budget of level 1; 0: blocks live as long as they are being read */
    size_t block_size;     /* a power of two from 4 KiB to 1 MiB; 0 is 64 KiB */
    const char *folder;    /* of level 2, made if missing, locked while open; NULL: no level 2 */
    uint64_t disk_bytes;   /* budget of level 2, at least 64 blocks */
    vexi_disk *disk;       /* borrowed; required with a folder */
    uint32_t retry_ms;     /* level 2 rests so long after a failure; 0 is 30 seconds */
    bool fill_on_put;      /* cache what a put wrote, as if it had been read */
    /* Names whose reads pass by; NULL: none. Called from any thread. */
    bool (*is_uncached)(void *context, const char *name);
    void *context;
} vexi_cache_config;

/* All since creation, but those marked "now". A hit or miss is one block of one range. */
typedef struct vexi_cache_counters {
    uint64_t memory_hits;
    uint64_t memory_hit_bytes; /* bytes given to callers */
    uint64_t disk_hits;
    uint64_t disk_hit_bytes; /* bytes of whole blocks */
    uint64_t misses;         /* blocks asked of the inner store */
    uint64_t miss_bytes;
    uint64_t distrusts; /* objects forgotten because their bytes were wrong */
    uint64_t filled;    /* blocks that came from a put */
    uint64_t filled_bytes;
    uint64_t shared;  /* reads that waited for another reader's fetch */
    uint64_t fetches; /* calls of the inner store's get */
    uint64_t failed_fetches;
    uint64_t passed_by; /* gets of what is not cached */
    uint64_t memory_evictions;
    uint64_t memory_bytes; /* now */
    uint64_t memory_blocks;
    uint64_t pinned_bytes; /* now, within memory_bytes */
    uint64_t disk_writes;  /* blocks written to level 2, those written again included */
    uint64_t disk_write_bytes;
    uint64_t disk_evictions; /* blocks that left level 2 for want of room */
    uint64_t disk_corrupt;   /* blocks of level 2 that were dropped because of their bytes */
    uint64_t disk_errors;    /* failures of the folder's disk */
    uint64_t disk_bytes;     /* now */
    uint64_t disk_blocks;
} vexi_cache_counters;

/* A range that stays in memory. */
typedef struct vexi_cache_pin vexi_cache_pin;

/* Wraps `inner` (taken, destroyed on failure too). What level 2 holds from an earlier run is found
 * again.
 *
 * VEX_INVALID  a size in the config is out of range.
 * VEX_BUSY     another process or store holds the folder.
 * else         the folder cannot be made, read or cleaned. */
vex_status vexi_store_cache_create(const vexi_env *env, vexi_store *inner,
                                   const vexi_cache_config *config, vexi_store **out,
                                   vex_error *err);

/* The functions below take a store that vexi_store_cache_create made; thread-safe. */

void vexi_store_cache_counters(vexi_store *store, vexi_cache_counters *out);

/* Tell the size of an object, as a commit of the Delta log says it: saves the request that asks
 * for it. A wrong one makes reads fail with VEX_CORRUPT or VEX_NOT_FOUND, never with wrong bytes.
 */
void vexi_store_cache_tell_size(vexi_store *store, const char *name, uint64_t size_bytes);

/* Bring the blocks of `ranges` in (their targets are not looked at). What is brought in may leave
 * as any other block. */
vex_status vexi_store_cache_warm(vexi_store *store, const char *name, const vexi_range *ranges,
                                 size_t count, vex_error *err);

/* Bring one range in and keep its blocks in memory until vexi_store_cache_unpin, which must come
 * before the store's end. VEX_LIMIT when more than half of the budget would be pinned, VEX_INVALID
 * for what is not cached; *out is NULL then. */
vex_status vexi_store_cache_pin(vexi_store *store, const char *name, uint64_t offset, size_t size,
                                vexi_cache_pin **out, vex_error *err);
void vexi_store_cache_unpin(vexi_cache_pin *pin); /* NULL is fine */

#endif
