/* What the parts of the cache share.
 *
 * Order of locks: the disk's writer mutex, the disk's index mutex, then a shard's mutex of the
 * names or of the memory; no two shards at once. None is held during a request to the inner store,
 * and the writer mutex alone during a call of the disk. */
#ifndef VEXI_STORE_CACHE_INTERNAL_H
#define VEXI_STORE_CACHE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buffer.h"
#include "base/random.h"
#include "store/cache.h"

/* ---- Names (cache_names.c) ------------------------------------------------------------------- */

enum { VEXI_CACHE_SHARD_COUNT_MAX = 16 };

/* Of a name, for good: what is cached of it goes by `id`, and to forget a name is to give it a new
 * id. The disk's records hold on to the name, so that a put finds out that there are some. */
typedef struct vexi_cache_name {
    struct vexi_cache_name *next;  /* in its bucket */
    struct vexi_cache_name *newer; /* in the shard's ring */
    struct vexi_cache_name *older;
    uint64_t hash; /* immutable, as is the text */
    uint64_t id;   /* shard's mutex, as all below */
    uint64_t size_bytes;
    uint64_t holds;   /* records on disk */
    uint32_t writers; /* puts and removes under way, and logs: not cached while there are some */
    bool size_known;
    bool used; /* since the hand passed */
    char text[];
} vexi_cache_name;

typedef struct vexi_cache_names_shard {
    pthread_mutex_t mutex;
    vexi_cache_name **buckets;
    size_t bucket_count; /* a power of two */
    size_t count;
    vexi_cache_name *newest; /* ring in order of arrival */
} vexi_cache_names_shard;

typedef struct vexi_cache_names {
    const vexi_env *env;
    atomic_uint_fast64_t next_id;
    vexi_cache_names_shard shards[VEXI_CACHE_SHARD_COUNT_MAX];
} vexi_cache_names;

/* What a reader knows of a name. */
typedef struct vexi_cache_ident {
    uint64_t id;
    uint64_t size_bytes;
    bool size_known;
    bool is_cached; /* false while it is being written */
} vexi_cache_ident;

vex_status vexi_cache_names_init(vexi_cache_names *names, const vexi_env *env, vex_error *err);
void vexi_cache_names_deinit(vexi_cache_names *names);
/* Not cached when there is no memory for the name. */
vexi_cache_ident vexi_cache_names_find(vexi_cache_names *names, const char *name);
/* The size that somebody learned who knew the name as `id`; no effect if it is another by now. */
void vexi_cache_names_learn(vexi_cache_names *names, const char *name, uint64_t id,
                            uint64_t size_bytes);
/* The size that a caller tells: another one than was known makes the name a new object. */
void vexi_cache_names_tell(vexi_cache_names *names, const char *name, uint64_t size_bytes);
/* From here to the end of the write nothing of the name is cached, and what was is forgotten.
 * *holds tells of records on disk. */
vex_status vexi_cache_names_begin_write(vexi_cache_names *names, const char *name, bool *holds,
                                        vex_error *err);
/* size_bytes is UINT64_MAX where it is not known. */
void vexi_cache_names_end_write(vexi_cache_names *names, const char *name, uint64_t size_bytes);
/* For a record on disk of the object that was known as `id`: NULL if it is not current any more. */
vexi_cache_name *vexi_cache_names_hold(vexi_cache_names *names, const char *name, uint64_t id,
                                       uint64_t *size_bytes);
/* For a record that was found on disk, oldest first; *id is what it goes by. NULL without memory.
 */
vexi_cache_name *vexi_cache_names_recover(vexi_cache_names *names, const char *name,
                                          uint64_t size_bytes, uint64_t *id);
void vexi_cache_names_release(vexi_cache_names *names, vexi_cache_name *name);

/* ---- Memory (cache_memory.c) ----------------------------------------------------------------- */

typedef enum vexi_cache_state {
    VEXI_CACHE_LOADING,
    VEXI_CACHE_READY,
    VEXI_CACHE_FAILED
} vexi_cache_state;

/* Why a fetch failed, for all who waited. */
typedef struct vexi_cache_failure {
    atomic_uint_fast32_t holders;
    vex_status status;
    vex_error error;
} vexi_cache_failure;

typedef struct vexi_cache_block {
    struct vexi_cache_block *next;  /* in its bucket */
    struct vexi_cache_block *newer; /* in its queue */
    struct vexi_cache_block *older;
    uint64_t id;     /* immutable, as number, data and size */
    uint64_t number; /* offset in the object over the block size */
    uint8_t *data;
    size_t size;
    const void *owner;            /* who loads it; shard's mutex, as all below */
    vexi_cache_failure *failure;  /* of FAILED */
    atomic_uint_fast32_t holders; /* the table, readers, pins; the last one frees */
    uint32_t pins;
    vexi_cache_state state;
    uint8_t queue;
    uint8_t frequency;
    bool in_table;
} vexi_cache_block;

typedef struct vexi_cache_queue {
    vexi_cache_block *newest;
    vexi_cache_block *oldest;
    uint64_t bytes;
} vexi_cache_queue;

/* A block that left lately: its fingerprint and when it left. */
typedef struct vexi_cache_ghost {
    uint32_t fingerprint;
    uint32_t time;
} vexi_cache_ghost;

typedef struct vexi_cache_memory_shard {
    pthread_mutex_t mutex;
    pthread_cond_t loaded; /* some block ceased to be LOADING */
    vexi_cache_block **buckets;
    size_t bucket_count;
    size_t count; /* of blocks in the table, LOADING ones too */
    uint64_t budget;
    vexi_cache_queue queues[3];
    vexi_cache_ghost *ghosts;
    size_t ghost_count; /* a power of two */
    uint32_t ghost_time;
    uint32_t ghost_age_max;
    uint64_t hits;
    uint64_t hit_bytes;
    uint64_t shared;
    uint64_t evictions;
    uint64_t blocks;
} vexi_cache_memory_shard;

typedef struct vexi_cache_memory {
    const vexi_env *env;
    size_t shard_count; /* a power of two */
    vexi_cache_memory_shard shards[VEXI_CACHE_SHARD_COUNT_MAX];
} vexi_cache_memory;

typedef enum vexi_cache_found {
    VEXI_CACHE_HIT,     /* the block is READY */
    VEXI_CACHE_WAIT,    /* somebody else loads it */
    VEXI_CACHE_MINE,    /* the same owner loads it already */
    VEXI_CACHE_TO_LOAD, /* it is new: the caller fills data and ends the load */
    VEXI_CACHE_NO_MEMORY
} vexi_cache_found;

vex_status vexi_cache_memory_init(vexi_cache_memory *memory, const vexi_env *env, uint64_t budget,
                                  size_t block_size, vex_error *err);
void vexi_cache_memory_deinit(vexi_cache_memory *memory);
/* Where a block is found or begun; the caller holds it until vexi_cache_memory_drop. `wanted` are
 * the bytes that the caller wants of it, for the counters. */
vexi_cache_found vexi_cache_memory_find(vexi_cache_memory *memory, uint64_t id, uint64_t number,
                                        size_t size, size_t wanted, const void *owner,
                                        vexi_cache_block **out);
/* End a load of one's own: READY when failure is NULL. Wakes those who wait. */
void vexi_cache_memory_finish(vexi_cache_memory *memory, vexi_cache_block *block,
                              vexi_cache_failure *failure);
/* Wait for somebody else's load; its failure is the caller's. */
vex_status vexi_cache_memory_wait(vexi_cache_memory *memory, vexi_cache_block *block,
                                  vex_error *err);
void vexi_cache_memory_drop(vexi_cache_memory *memory, vexi_cache_block *block);
/* Make a READY block stay; the caller's hold becomes the pin's, on *block, which may be another
 * one with the same bytes by then. */
void vexi_cache_memory_pin(vexi_cache_memory *memory, vexi_cache_block **block);
void vexi_cache_memory_unpin(vexi_cache_memory *memory, vexi_cache_block *block);
/* Whether a READY block is there that was read since it came; held by the caller if so. Not a hit.
 */
bool vexi_cache_memory_peek(vexi_cache_memory *memory, uint64_t id, uint64_t number,
                            vexi_cache_block **out);
void vexi_cache_memory_count(vexi_cache_memory *memory, vexi_cache_counters *out);

vexi_cache_failure *vexi_cache_failure_create(const vexi_env *env);
void vexi_cache_failure_release(const vexi_env *env, vexi_cache_failure *failure);

/* One hash for the shards and tables of blocks. */
static inline uint64_t vexi_cache_block_hash(uint64_t id, uint64_t number) {
    return vexi_random_mix(id * VEXI_RANDOM_STEP ^ vexi_random_mix(number));
}

/* ---- Disk (cache_disk.c, cache_region.c) ----------------------------------------------------- */

typedef struct vexi_cache_region vexi_cache_region;

/* A block in a region. */
typedef struct vexi_cache_record {
    struct vexi_cache_record *next;           /* in its bucket */
    struct vexi_cache_record *next_of_region; /* the one written after it */
    vexi_cache_region *region;
    vexi_cache_name *name;
    uint64_t id; /* of the name when it was written */
    uint64_t number;
    uint64_t offset; /* of the payload */
    uint32_t size;
    uint32_t checksum;
    bool hit; /* since it was written */
    bool in_table;
} vexi_cache_record;

/* One file of records. Regions are written one after the other and leave oldest first. */
struct vexi_cache_region {
    vexi_cache_region *newer;
    uint64_t number; /* immutable, as nonce and reader */
    uint64_t nonce;
    vexi_disk_file *reader;
    uint64_t size;            /* writer mutex */
    vexi_cache_record *first; /* index mutex, as last and holders */
    vexi_cache_record *last;
    uint64_t holders; /* the list and readers */
};

typedef struct vexi_cache_disk {
    const vexi_env *env;
    vexi_disk *disk;
    vexi_cache_names *names;
    vexi_cache_memory *memory; /* asked which blocks are in use */
    char *folder;
    size_t block_size;
    uint64_t budget;
    uint64_t region_size;
    uint64_t retry_ns;
    vexi_disk_file *lock;

    pthread_mutex_t writer; /* guards files and all up to index */
    vexi_disk_file *out;    /* of the newest region; NULL: none is open */
    vexi_buffer footer;
    uint32_t footer_count;
    uint64_t next_number;
    uint64_t total_size;
    uint64_t off_until_ns;
    bool must_shrink; /* the disk was full */

    pthread_mutex_t index; /* guards all below; the list of regions changes with both held */
    vexi_cache_region *oldest;
    vexi_cache_region *newest;
    vexi_cache_record **buckets;
    size_t bucket_count;
    size_t count; /* of records in the table */

    atomic_bool unlinks_unsynced; /* an unlinked region may come back after a power failure */
    atomic_uint_fast64_t reads_off_until_ns;
    atomic_uint_fast64_t hits;
    atomic_uint_fast64_t hit_bytes;
    atomic_uint_fast64_t writes;
    atomic_uint_fast64_t write_bytes;
    atomic_uint_fast64_t evictions;
    atomic_uint_fast64_t corrupt;
    atomic_uint_fast64_t errors;
} vexi_cache_disk;

/* Open the folder, lock it, and find what is there. */
vex_status vexi_cache_disk_create(const vexi_env *env, const vexi_cache_config *config,
                                  size_t block_size, vexi_cache_names *names,
                                  vexi_cache_memory *memory, vexi_cache_disk **out, vex_error *err);
void vexi_cache_disk_destroy(vexi_cache_disk *disk); /* NULL is fine */
/* Whether the block is there and whole: its bytes are in `target` then. */
bool vexi_cache_disk_read(vexi_cache_disk *disk, uint64_t id, uint64_t number, uint8_t *target,
                          size_t size);
/* Write blocks that the inner store gave; failures are the disk's own affair. */
void vexi_cache_disk_write(vexi_cache_disk *disk, const char *name, uint64_t id,
                           vexi_cache_block *const *blocks, size_t count);
/* Make sure that no later run finds bytes of this name, which is being written. `holds` is what
 * vexi_cache_names_begin_write said. */
vex_status vexi_cache_disk_forget(vexi_cache_disk *disk, const char *name, bool holds,
                                  vex_error *err);
void vexi_cache_disk_count(vexi_cache_disk *disk, vexi_cache_counters *out);

/* A record as it lies in a region (layout in cache_region.c). */
enum {
    VEXI_CACHE_RECORD_SIZE = 64,
    VEXI_CACHE_TRAILER_SIZE = 40,
    VEXI_CACHE_HEAD_SIZE_MAX = VEXI_CACHE_RECORD_SIZE + VEXI_STORE_NAME_SIZE_MAX
};

typedef struct vexi_cache_head {
    const char *name; /* NUL-terminated where it was read */
    size_t name_size;
    uint64_t region_number;
    uint64_t region_nonce;
    uint64_t offset; /* of the record in its region */
    uint64_t object_size;
    uint64_t block_number;
    uint32_t block_size;
    uint32_t payload_size;
    uint32_t payload_checksum;
} vexi_cache_head;

/* Bytes written to `out`, which has room for VEXI_CACHE_HEAD_SIZE_MAX. */
size_t vexi_cache_head_write(const vexi_cache_head *head, uint8_t *out);
/* Trailer behind the footer's heads. */
void vexi_cache_trailer_write(uint64_t number, uint64_t nonce, const uint8_t *footer,
                              size_t footer_size, uint32_t count,
                              uint8_t out[VEXI_CACHE_TRAILER_SIZE]);
/* Visit the records of a region: by its footer if that is whole, else record by record until one
 * is not. `visit` gets the payload's offset. Failures are of the disk or of visit; bytes that make
 * no sense end the walk. */
vex_status vexi_cache_region_walk(const vexi_env *env, vexi_disk_file *file, uint64_t file_size,
                                  uint64_t number, uint64_t nonce, uint32_t block_size,
                                  vex_status (*visit)(void *argument, const vexi_cache_head *head,
                                                      uint64_t offset, vex_error *err),
                                  void *argument, vex_error *err);

#endif
