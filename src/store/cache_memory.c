/* Level 1: blocks in memory, replaced by S3-FIFO.
 *
 * Yang, Zhang, Qiu, Yue, Rashmi: FIFO queues are all you need for cache eviction, SOSP 2023. New
 * blocks enter a small queue (a tenth of the budget); those read again there go on to the main
 * queue, the others leave, and a ghost remembers that they were here. A block whose ghost is still
 * known enters the main queue at once. The main queue gives a block another round for each read (up
 * to three are counted). So a scan passes through the small queue and leaves the rest alone, and a
 * hit changes one counter: no list is touched, unlike with LRU, ARC or 2Q's main list.
 *
 * We differ in this: the queues are bounded by bytes (the last block of an object is short); pinned
 * blocks wait in a third queue that nobody evicts from; ghosts live in a table of fingerprints,
 * each with the time it left, so that a lookup is one probe and nothing is ever taken out (the
 * paper's section 4.2 has the same trick). A block that overwrites another's ghost makes that one
 * forgotten early, which costs a miss.
 *
 * One flight per block. A reader that finds no block puts one into the table that is LOADING and is
 * its owner; those who come later hold it and wait for the shard's condition. A failed block leaves
 * the table at once, with the failure on it for those who hold it.
 *
 * Who holds a block keeps its memory, in the table or not: a reader copies without a lock. The
 * budget counts the blocks in the table that are READY; what is being loaded comes on top, and is
 * bounded by the window of each get (store_cache.c). */
#include "store/cache_internal.h"

enum { QUEUE_SMALL, QUEUE_MAIN, QUEUE_PINNED, QUEUE_NONE };

enum {
    FREQUENCY_MAX = 3,
    SHARD_BLOCK_COUNT_MIN = 64, /* fewer than so many blocks in a shard make its queues too short */
    GHOST_COUNT_MIN = 64,
    GHOST_COUNT_MAX = 1 << 20,
    BUCKET_COUNT_MIN = 64,
    DATA_ALIGNMENT = 64
};

static size_t header_size(void) {
    return (sizeof(vexi_cache_block) + DATA_ALIGNMENT - 1) / DATA_ALIGNMENT * DATA_ALIGNMENT;
}

/* What a block costs the budget. */
static uint64_t cost_of(const vexi_cache_block *block) {
    return block->size + header_size();
}

static vexi_cache_memory_shard *shard_of(vexi_cache_memory *memory, uint64_t id, uint64_t number) {
    return &memory->shards[(vexi_cache_block_hash(id, number) >> 56) & (memory->shard_count - 1)];
}

vex_status vexi_cache_memory_init(vexi_cache_memory *memory, const vexi_env *env, uint64_t budget,
                                  size_t block_size, vex_error *err) {
    memory->env = env;
    memory->shard_count = 1;
    uint64_t blocks = budget / block_size;
    while (memory->shard_count < VEXI_CACHE_SHARD_COUNT_MAX &&
           blocks / (memory->shard_count * 2) >= SHARD_BLOCK_COUNT_MIN) {
        memory->shard_count *= 2;
    }
    size_t ghosts = GHOST_COUNT_MIN;
    while (ghosts < GHOST_COUNT_MAX && ghosts < blocks / memory->shard_count * 2) {
        ghosts *= 2;
    }
    vex_status status = VEX_OK;
    for (size_t i = 0; i < memory->shard_count; i++) {
        vexi_cache_memory_shard *shard = &memory->shards[i];
        *shard = (vexi_cache_memory_shard){.bucket_count = BUCKET_COUNT_MIN,
                                           .budget = budget / memory->shard_count,
                                           .ghost_count = ghosts,
                                           .ghost_age_max = (uint32_t)(ghosts / 2)};
        pthread_mutex_init(&shard->mutex, NULL);
        pthread_cond_init(&shard->loaded, NULL);
        shard->buckets = vexi_calloc(env, BUCKET_COUNT_MIN, sizeof *shard->buckets);
        shard->ghosts = vexi_calloc(env, ghosts, sizeof *shard->ghosts);
        if (shard->buckets == NULL || shard->ghosts == NULL) {
            status = vexi_no_memory(err, ghosts * sizeof *shard->ghosts);
        }
    }
    return status;
}

vexi_cache_failure *vexi_cache_failure_create(const vexi_env *env) {
    vexi_cache_failure *failure = vexi_calloc(env, 1, sizeof *failure);
    if (failure != NULL) {
        atomic_init(&failure->holders, 1);
    }
    return failure;
}

void vexi_cache_failure_release(const vexi_env *env, vexi_cache_failure *failure) {
    if (failure != NULL && atomic_fetch_sub(&failure->holders, 1) == 1) {
        vexi_free(env, failure);
    }
}

void vexi_cache_memory_drop(vexi_cache_memory *memory, vexi_cache_block *block) {
    if (atomic_fetch_sub_explicit(&block->holders, 1, memory_order_acq_rel) == 1) {
        vexi_cache_failure_release(memory->env, block->failure);
        vexi_free(memory->env, block);
    }
}

void vexi_cache_memory_deinit(vexi_cache_memory *memory) {
    for (size_t i = 0; i < memory->shard_count; i++) {
        vexi_cache_memory_shard *shard = &memory->shards[i];
        for (size_t b = 0; shard->buckets != NULL && b < shard->bucket_count; b++) {
            while (shard->buckets[b] != NULL) {
                vexi_cache_block *block = shard->buckets[b];
                shard->buckets[b] = block->next;
                vexi_cache_memory_drop(memory, block);
            }
        }
        vexi_free(memory->env, shard->buckets);
        vexi_free(memory->env, shard->ghosts);
        pthread_cond_destroy(&shard->loaded);
        pthread_mutex_destroy(&shard->mutex);
    }
}

/* ---- With the shard's mutex held: the table -------------------------------------------------- */

static vexi_cache_block **bucket_of(vexi_cache_memory_shard *shard, uint64_t id, uint64_t number) {
    return &shard->buckets[vexi_cache_block_hash(id, number) & (shard->bucket_count - 1)];
}

static vexi_cache_block *lookup(vexi_cache_memory_shard *shard, uint64_t id, uint64_t number) {
    vexi_cache_block *block = *bucket_of(shard, id, number);
    while (block != NULL && (block->id != id || block->number != number)) {
        block = block->next;
    }
    return block;
}

/* Without memory the chains get longer, no more. */
static void grow_buckets(vexi_cache_memory *memory, vexi_cache_memory_shard *shard) {
    size_t wanted = shard->bucket_count * 2;
    vexi_cache_block **buckets = vexi_calloc(memory->env, wanted, sizeof *buckets);
    if (buckets == NULL) {
        return;
    }
    vexi_cache_block **old = shard->buckets;
    size_t old_count = shard->bucket_count;
    shard->buckets = buckets;
    shard->bucket_count = wanted;
    for (size_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            vexi_cache_block *block = old[i];
            old[i] = block->next;
            vexi_cache_block **bucket = bucket_of(shard, block->id, block->number);
            block->next = *bucket;
            *bucket = block;
        }
    }
    vexi_free(memory->env, old);
}

/* The table's hold comes on top of the caller's. */
static void enter_table(vexi_cache_memory *memory, vexi_cache_memory_shard *shard,
                        vexi_cache_block *block) {
    if (shard->count >= shard->bucket_count) {
        grow_buckets(memory, shard);
    }
    vexi_cache_block **bucket = bucket_of(shard, block->id, block->number);
    block->next = *bucket;
    *bucket = block;
    block->in_table = true;
    atomic_fetch_add(&block->holders, 1);
    shard->count++;
}

static void leave_table(vexi_cache_memory *memory, vexi_cache_memory_shard *shard,
                        vexi_cache_block *block) {
    vexi_cache_block **link = bucket_of(shard, block->id, block->number);
    while (*link != block) {
        link = &(*link)->next;
    }
    *link = block->next;
    block->in_table = false;
    shard->count--;
    vexi_cache_memory_drop(memory, block);
}

/* ---- With the shard's mutex held: queues and ghosts ------------------------------------------ */

static void push(vexi_cache_memory_shard *shard, int which, vexi_cache_block *block) {
    vexi_cache_queue *queue = &shard->queues[which];
    block->queue = (uint8_t)which;
    block->newer = NULL;
    block->older = queue->newest;
    if (queue->newest != NULL) {
        queue->newest->newer = block;
    } else {
        queue->oldest = block;
    }
    queue->newest = block;
    queue->bytes += cost_of(block);
    shard->blocks++;
}

static void pull(vexi_cache_memory_shard *shard, vexi_cache_block *block) {
    vexi_cache_queue *queue = &shard->queues[block->queue];
    *(block->newer != NULL ? &block->newer->older : &queue->newest) = block->older;
    *(block->older != NULL ? &block->older->newer : &queue->oldest) = block->newer;
    queue->bytes -= cost_of(block);
    block->queue = QUEUE_NONE;
    shard->blocks--;
}

static vexi_cache_ghost *ghost_of(vexi_cache_memory_shard *shard, const vexi_cache_block *block,
                                  uint32_t *fingerprint) {
    uint64_t hash = vexi_random_mix(vexi_cache_block_hash(block->id, block->number));
    *fingerprint = (uint32_t)(hash >> 32) | 1u; /* 0 is an empty place */
    return &shard->ghosts[hash & (shard->ghost_count - 1)];
}

static void remember(vexi_cache_memory_shard *shard, const vexi_cache_block *block) {
    uint32_t fingerprint;
    vexi_cache_ghost *ghost = ghost_of(shard, block, &fingerprint);
    *ghost = (vexi_cache_ghost){.fingerprint = fingerprint, .time = shard->ghost_time++};
}

static bool is_remembered(vexi_cache_memory_shard *shard, const vexi_cache_block *block) {
    uint32_t fingerprint;
    const vexi_cache_ghost *ghost = ghost_of(shard, block, &fingerprint);
    return ghost->fingerprint == fingerprint &&
           shard->ghost_time - ghost->time <= shard->ghost_age_max;
}

static void evict_block(vexi_cache_memory *memory, vexi_cache_memory_shard *shard,
                        vexi_cache_block *block) {
    pull(shard, block);
    shard->evictions++;
    leave_table(memory, shard, block);
}

/* Every turn either frees a block, or takes one from the small queue, or lowers a frequency. */
static void evict(vexi_cache_memory *memory, vexi_cache_memory_shard *shard) {
    vexi_cache_queue *small = &shard->queues[QUEUE_SMALL];
    vexi_cache_queue *main = &shard->queues[QUEUE_MAIN];
    uint64_t pinned = shard->queues[QUEUE_PINNED].bytes;
    uint64_t budget = shard->budget > pinned ? shard->budget - pinned : 0;
    while (small->bytes + main->bytes > budget) {
        vexi_cache_block *block;
        if (small->oldest != NULL && (small->bytes > budget / 10 || main->oldest == NULL)) {
            block = small->oldest;
            if (block->frequency > 1) {
                pull(shard, block);
                block->frequency = 0;
                push(shard, QUEUE_MAIN, block);
            } else {
                remember(shard, block);
                evict_block(memory, shard, block);
            }
            continue;
        }
        block = main->oldest;
        if (block->frequency > 0) {
            block->frequency--;
            pull(shard, block);
            push(shard, QUEUE_MAIN, block);
        } else {
            evict_block(memory, shard, block);
        }
    }
}

/* ---- The door -------------------------------------------------------------------------------- */

static vexi_cache_block *begin_load(vexi_cache_memory *memory, vexi_cache_memory_shard *shard,
                                    uint64_t id, uint64_t number, size_t size, const void *owner) {
    vexi_cache_block *block = vexi_alloc_aligned(memory->env, header_size() + size);
    if (block == NULL) {
        return NULL;
    }
    *block = (vexi_cache_block){.id = id,
                                .number = number,
                                .data = (uint8_t *)block + header_size(),
                                .size = size,
                                .owner = owner,
                                .state = VEXI_CACHE_LOADING,
                                .queue = QUEUE_NONE};
    atomic_init(&block->holders, 1);
    enter_table(memory, shard, block);
    return block;
}

vexi_cache_found vexi_cache_memory_find(vexi_cache_memory *memory, uint64_t id, uint64_t number,
                                        size_t size, size_t wanted, const void *owner,
                                        vexi_cache_block **out) {
    vexi_cache_found found;
    vexi_cache_memory_shard *shard = shard_of(memory, id, number);
    pthread_mutex_lock(&shard->mutex);
    vexi_cache_block *block = lookup(shard, id, number);
    if (block == NULL) {
        block = begin_load(memory, shard, id, number, size, owner);
        found = block == NULL ? VEXI_CACHE_NO_MEMORY : VEXI_CACHE_TO_LOAD;
    } else {
        VEX_ASSERT(block->size == size); /* an id has one size */
        atomic_fetch_add_explicit(&block->holders, 1, memory_order_relaxed);
        if (block->state == VEXI_CACHE_READY) {
            found = VEXI_CACHE_HIT;
            shard->hits++;
            shard->hit_bytes += wanted;
            if (block->frequency < FREQUENCY_MAX) {
                block->frequency++;
            }
        } else if (block->owner == owner) {
            found = VEXI_CACHE_MINE;
        } else {
            found = VEXI_CACHE_WAIT;
            shard->shared++;
        }
    }
    pthread_mutex_unlock(&shard->mutex);
    *out = block;
    return found;
}

void vexi_cache_memory_finish(vexi_cache_memory *memory, vexi_cache_block *block,
                              vexi_cache_failure *failure) {
    vexi_cache_memory_shard *shard = shard_of(memory, block->id, block->number);
    pthread_mutex_lock(&shard->mutex);
    VEX_ASSERT(block->state == VEXI_CACHE_LOADING && block->in_table);
    block->owner = NULL;
    if (failure == NULL) {
        block->state = VEXI_CACHE_READY;
        push(shard, is_remembered(shard, block) ? QUEUE_MAIN : QUEUE_SMALL, block);
        evict(memory, shard);
    } else {
        block->state = VEXI_CACHE_FAILED;
        atomic_fetch_add(&failure->holders, 1);
        block->failure = failure;
        leave_table(memory, shard, block);
    }
    pthread_cond_broadcast(&shard->loaded);
    pthread_mutex_unlock(&shard->mutex);
}

vex_status vexi_cache_memory_wait(vexi_cache_memory *memory, vexi_cache_block *block,
                                  vex_error *err) {
    vexi_cache_memory_shard *shard = shard_of(memory, block->id, block->number);
    pthread_mutex_lock(&shard->mutex);
    while (block->state == VEXI_CACHE_LOADING) {
        pthread_cond_wait(&shard->loaded, &shard->mutex);
    }
    vexi_cache_state state = block->state;
    pthread_mutex_unlock(&shard->mutex);
    if (state == VEXI_CACHE_READY) {
        return VEX_OK;
    }
    if (err != NULL) {
        *err = block->failure->error;
    }
    return block->failure->status;
}

void vexi_cache_memory_pin(vexi_cache_memory *memory, vexi_cache_block **held) {
    vexi_cache_block *block = *held;
    vexi_cache_memory_shard *shard = shard_of(memory, block->id, block->number);
    pthread_mutex_lock(&shard->mutex);
    /* If it was evicted since, another reader may have loaded it again, or be about to. */
    while (!block->in_table) {
        vexi_cache_block *other = lookup(shard, block->id, block->number);
        if (other == NULL) {
            enter_table(memory, shard, block);
        } else if (other->state == VEXI_CACHE_READY) {
            atomic_fetch_add(&other->holders, 1);
            vexi_cache_memory_drop(memory, block);
            block = other;
        } else {
            pthread_cond_wait(&shard->loaded, &shard->mutex);
        }
    }
    block->pins++;
    if (block->queue != QUEUE_PINNED) {
        if (block->queue != QUEUE_NONE) {
            pull(shard, block);
        }
        push(shard, QUEUE_PINNED, block);
        evict(memory, shard);
    }
    pthread_mutex_unlock(&shard->mutex);
    *held = block;
}

void vexi_cache_memory_unpin(vexi_cache_memory *memory, vexi_cache_block *block) {
    vexi_cache_memory_shard *shard = shard_of(memory, block->id, block->number);
    pthread_mutex_lock(&shard->mutex);
    VEX_ASSERT(block->pins > 0);
    block->pins--;
    if (block->pins == 0 && block->queue == QUEUE_PINNED) {
        pull(shard, block);
        push(shard, QUEUE_MAIN, block);
        evict(memory, shard);
    }
    pthread_mutex_unlock(&shard->mutex);
    vexi_cache_memory_drop(memory, block);
}

bool vexi_cache_memory_peek(vexi_cache_memory *memory, uint64_t id, uint64_t number,
                            vexi_cache_block **out) {
    *out = NULL;
    vexi_cache_memory_shard *shard = shard_of(memory, id, number);
    pthread_mutex_lock(&shard->mutex);
    vexi_cache_block *block = lookup(shard, id, number);
    if (block != NULL && block->state == VEXI_CACHE_READY &&
        (block->frequency > 0 || block->queue != QUEUE_SMALL)) {
        atomic_fetch_add(&block->holders, 1);
        *out = block;
    }
    pthread_mutex_unlock(&shard->mutex);
    return *out != NULL;
}

void vexi_cache_memory_count(vexi_cache_memory *memory, vexi_cache_counters *out) {
    for (size_t i = 0; i < memory->shard_count; i++) {
        vexi_cache_memory_shard *shard = &memory->shards[i];
        pthread_mutex_lock(&shard->mutex);
        out->memory_hits += shard->hits;
        out->memory_hit_bytes += shard->hit_bytes;
        out->shared += shard->shared;
        out->memory_evictions += shard->evictions;
        out->memory_blocks += shard->blocks;
        out->pinned_bytes += shard->queues[QUEUE_PINNED].bytes;
        for (int q = 0; q < QUEUE_NONE; q++) {
            out->memory_bytes += shard->queues[q].bytes;
        }
        pthread_mutex_unlock(&shard->mutex);
    }
}
