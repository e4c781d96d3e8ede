/* The caching store: what one get does, and which calls pass by.
 *
 * A get is cut into blocks. Blocks in memory are copied at once. Of the others it owns those that
 * nobody else is fetching: first level 2 is asked for them, then the inner store, in one get for
 * all that are still missing, so that a store with many requests in flight has them in flight
 * together and joins neighbours to one request. When its own loads have ended it waits for those of
 * others. In this order nobody ever waits while others wait for him, so two readers that miss each
 * other's blocks cannot lock up.
 *
 * get_many does the same for several objects: what is missing of all of them is one get_many of the
 * inner store, one step.
 *
 * A get larger than the window is done in several rounds: blocks being loaded come on top of the
 * memory budget, and a reader of a whole object must not bring all of it into memory at once.
 *
 * What was fetched is written to level 2 by the reader that fetched it, after those who wait were
 * woken: 64 KiB cost it some 30 us, next to the milliseconds of the request. A queue with a thread
 * of its own would hide that and would have to decide what to drop when it is full. */
#include "store/cache_internal.h"

enum { WINDOW_COUNT_MIN = 128, WINDOW_COUNT_MAX = 1024, DISK_PARALLEL_MIN = 4, LEARN_TRIES = 3 };

typedef struct cache_store {
    vexi_store base;
    vexi_store *inner;
    vexi_cache_config config; /* the folder's path is not kept */
    size_t block_size;
    size_t window_count; /* blocks that one round of a get loads at most */
    vexi_cache_names names;
    vexi_cache_memory memory;
    vexi_cache_disk *disk;          /* NULL: no level 2 */
    vexi_cache_failure *no_memory;  /* there when nothing else is */
    atomic_uint_fast64_t pin_bytes; /* of all pins, the same block counted for each */
    atomic_uint_fast64_t misses;
    atomic_uint_fast64_t miss_bytes;
    atomic_uint_fast64_t fetches;
    atomic_uint_fast64_t failed_fetches;
    atomic_uint_fast64_t passed_by;
    atomic_uint_fast64_t distrusts;
    atomic_uint_fast64_t filled;
    atomic_uint_fast64_t filled_bytes;
} cache_store;

struct vexi_cache_pin {
    cache_store *store;
    uint64_t bytes;
    size_t count; /* of blocks that are pinned */
    vexi_cache_block *blocks[];
};

static cache_store *store_of(vexi_store *base) {
    return (cache_store *)base;
}

/* A block that was not READY, and what is wanted of it. */
typedef struct missing {
    vexi_cache_block *block; /* held */
    size_t source;           /* whose it is */
    uint8_t *target;         /* NULL: nothing */
    size_t offset;
    size_t size;
    bool is_mine;
} missing;

/* An object that is read. */
typedef struct source {
    const char *name;
    vexi_cache_ident ident;
} source;

/* One get, get_many, warm or pin. Its address is the owner of its loads. */
typedef struct reading {
    cache_store *store;
    const source *sources;
    size_t source; /* that blocks are being found of */
    size_t request_max;
    vexi_read_cost *cost;
    size_t failed; /* the source that a failure is about */
    bool has_targets;
    vexi_cache_pin *pin; /* NULL: nothing is pinned */
    void *missing;       /* of struct missing, in order of their sources */
    size_t missing_count;
    size_t missing_capacity;
    size_t load_count; /* of them, those to be loaded here */
} reading;

static missing *missing_of(const reading *r) {
    return r->missing;
}

/* Done with a READY block: the hold becomes the pin's, or ends. */
static void let_go(reading *r, vexi_cache_block *block) {
    if (r->pin != NULL) {
        vexi_cache_memory_pin(&r->store->memory, &block);
        r->pin->blocks[r->pin->count++] = block;
    } else {
        vexi_cache_memory_drop(&r->store->memory, block);
    }
}

/* ---- Loading --------------------------------------------------------------------------------- */

/* The blocks that this reading loads. */
typedef struct loading {
    reading *r;
    vexi_cache_block **blocks;
    size_t *sources; /* of the blocks, ascending */
    bool *found;     /* on disk */
    vexi_range *ranges;
    vexi_store_read *reads;
    size_t count;
} loading;

static void read_from_disk(void *argument, size_t i) {
    loading *l = argument;
    vexi_cache_block *block = l->blocks[i];
    l->found[i] =
        vexi_cache_disk_read(l->r->store->disk, block->id, block->number, block->data, block->size);
    if (l->found[i]) {
        vexi_cache_memory_finish(&l->r->store->memory, block, NULL);
    }
}

/* Take from the disk what it has; the rest moves to the front. */
static void load_from_disk(loading *l) {
    if (l->count >= DISK_PARALLEL_MIN) {
        vexi_parallel(l->r->store->base.env, l->count, read_from_disk, l);
    } else {
        for (size_t i = 0; i < l->count; i++) {
            read_from_disk(l, i);
        }
    }
    size_t left = 0;
    for (size_t i = 0; i < l->count; i++) {
        if (!l->found[i]) {
            l->sources[left] = l->sources[i];
            l->blocks[left++] = l->blocks[i];
        }
    }
    l->r->cost->hits += l->count - left;
    l->count = left;
}

/* The end of the blocks of the same source as that of block `first`. */
static size_t end_of_source(const loading *l, size_t first) {
    size_t end = first + 1;
    while (end < l->count && l->sources[end] == l->sources[first]) {
        end++;
    }
    return end;
}

static void load_from_inner(loading *l, vexi_cache_failure *failure) {
    reading *r = l->r;
    cache_store *store = r->store;
    uint64_t bytes = 0;
    size_t read_count = 0;
    for (size_t first = 0, end; first < l->count; first = end) {
        end = end_of_source(l, first);
        for (size_t i = first; i < end; i++) {
            const vexi_cache_block *block = l->blocks[i];
            l->ranges[i] = (vexi_range){.offset = block->number * store->block_size,
                                        .size = block->size,
                                        .target = block->data};
            bytes += block->size;
        }
        l->reads[read_count++] = (vexi_store_read){.name = r->sources[l->sources[first]].name,
                                                   .ranges = l->ranges + first,
                                                   .count = end - first};
    }
    atomic_fetch_add(&store->fetches, 1);
    atomic_fetch_add(&store->misses, l->count);
    atomic_fetch_add(&store->miss_bytes, bytes);
    failure->status = vexi_store_get_many(store->inner, l->reads, read_count, r->request_max,
                                          r->cost, NULL, &failure->error);
    bool failed = failure->status != VEX_OK;
    if (failed) {
        atomic_fetch_add(&store->failed_fetches, 1);
    }
    for (size_t i = 0; i < l->count; i++) {
        vexi_cache_memory_finish(&store->memory, l->blocks[i], failed ? failure : NULL);
    }
    if (failed || store->disk == NULL) {
        return;
    }
    for (size_t first = 0, end; first < l->count; first = end) {
        end = end_of_source(l, first);
        const source *of = &r->sources[l->sources[first]];
        vexi_cache_disk_write(store->disk, of->name, of->ident.id, l->blocks + first, end - first);
    }
}

/* End all loads of this reading's own. Their statuses are on the blocks. */
static void load(reading *r) {
    const vexi_env *env = r->store->base.env;
    missing *list = missing_of(r);
    size_t count = 0;
    for (size_t i = 0; i < r->missing_count; i++) {
        count += list[i].is_mine ? 1 : 0;
    }
    if (count == 0) {
        return;
    }
    loading l = {.r = r,
                 .blocks = vexi_alloc_array(env, count, sizeof *l.blocks),
                 .sources = vexi_alloc_array(env, count, sizeof *l.sources),
                 .found = vexi_calloc(env, count, sizeof *l.found),
                 .ranges = vexi_alloc_array(env, count, sizeof *l.ranges),
                 .reads = vexi_alloc_array(env, count, sizeof *l.reads)};
    vexi_cache_failure *failure = vexi_cache_failure_create(env);
    if (l.blocks == NULL || l.sources == NULL || l.found == NULL || l.ranges == NULL ||
        l.reads == NULL || failure == NULL) {
        for (size_t i = 0; i < r->missing_count; i++) {
            if (list[i].is_mine) {
                vexi_cache_memory_finish(&r->store->memory, list[i].block, r->store->no_memory);
            }
        }
    } else {
        for (size_t i = 0; i < r->missing_count; i++) {
            if (list[i].is_mine) {
                l.sources[l.count] = list[i].source;
                l.blocks[l.count++] = list[i].block;
            }
        }
        if (r->store->disk != NULL) {
            load_from_disk(&l);
        }
        if (l.count > 0) {
            load_from_inner(&l, failure);
        }
    }
    vexi_cache_failure_release(env, failure);
    vexi_free(env, l.reads);
    vexi_free(env, l.ranges);
    vexi_free(env, l.found);
    vexi_free(env, l.sources);
    vexi_free(env, l.blocks);
}

/* Load what is missing, wait for what others load, and give the bytes out. */
static vex_status settle(reading *r, vex_error *err) {
    load(r);
    vex_status status = VEX_OK;
    missing *list = missing_of(r);
    for (size_t i = 0; i < r->missing_count; i++) {
        vexi_cache_block *block = list[i].block;
        vex_status one =
            vexi_cache_memory_wait(&r->store->memory, block, status == VEX_OK ? err : NULL);
        if (one != VEX_OK) {
            r->failed = status == VEX_OK ? list[i].source : r->failed;
            status = status == VEX_OK ? one : status;
            vexi_cache_memory_drop(&r->store->memory, block);
            continue;
        }
        if (list[i].target != NULL) {
            memcpy(list[i].target, block->data + list[i].offset, list[i].size);
        }
        let_go(r, block);
    }
    r->missing_count = 0;
    r->load_count = 0;
    return status;
}

/* ---- One get --------------------------------------------------------------------------------- */

/* `size` bytes from `offset` of block `number`. */
static vex_status read_block(reading *r, uint64_t number, size_t offset, size_t size,
                             uint8_t *target, vex_error *err) {
    cache_store *store = r->store;
    const vexi_cache_ident *ident = &r->sources[r->source].ident;
    if (r->load_count == store->window_count) {
        VEX_TRY(settle(r, err));
    }
    uint64_t left = ident->size_bytes - number * store->block_size;
    size_t block_size = left < store->block_size ? (size_t)left : store->block_size;
    VEX_TRY(vexi_grow(store->base.env, &r->missing, &r->missing_capacity, r->missing_count,
                      r->missing_count + 1, sizeof(missing), err));
    vexi_cache_block *block = NULL;
    vexi_cache_found found =
        vexi_cache_memory_find(&store->memory, ident->id, number, block_size, size, r, &block);
    if (found == VEXI_CACHE_NO_MEMORY) {
        return vexi_no_memory(err, block_size);
    }
    if (found == VEXI_CACHE_HIT) {
        if (target != NULL) {
            memcpy(target, block->data + offset, size);
        }
        let_go(r, block);
        r->cost->hits++;
        return VEX_OK;
    }
    r->load_count += found == VEXI_CACHE_TO_LOAD ? 1 : 0;
    missing_of(r)[r->missing_count++] = (missing){.block = block,
                                                  .source = r->source,
                                                  .target = target,
                                                  .offset = offset,
                                                  .size = size,
                                                  .is_mine = found == VEXI_CACHE_TO_LOAD};
    return VEX_OK;
}

static vex_status read_range(reading *r, const vexi_range *range, vex_error *err) {
    size_t block_size = r->store->block_size;
    for (size_t done = 0; done < range->size;) {
        uint64_t offset = range->offset + done;
        size_t within = (size_t)(offset % block_size);
        size_t size = block_size - within;
        size = size < range->size - done ? size : range->size - done;
        VEX_TRY(read_block(r, offset / block_size, within, size,
                           r->has_targets ? range->target + done : NULL, err));
        done += size;
    }
    return VEX_OK;
}

static vex_status check_ranges(const char *name, uint64_t size_bytes, const vexi_range *ranges,
                               size_t count, vex_error *err) {
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].offset > size_bytes || ranges[i].size > size_bytes - ranges[i].offset) {
            return vexi_fail(err, VEX_CORRUPT, "%s ends at byte %llu, before byte %llu", name,
                             (unsigned long long)size_bytes,
                             (unsigned long long)ranges[i].offset + ranges[i].size);
        }
    }
    return VEX_OK;
}

/* The ranges of all sources, in as few steps as the window allows. */
static vex_status read_all(reading *r, const vexi_store_read *gets, size_t count, vex_error *err) {
    vexi_read_cost cost = {0};
    r->cost = r->cost == NULL ? &cost : r->cost;
    vex_status status = VEX_OK;
    for (size_t g = 0; status == VEX_OK && g < count; g++) {
        r->source = g;
        r->failed = g;
        status = check_ranges(gets[g].name, r->sources[g].ident.size_bytes, gets[g].ranges,
                              gets[g].count, err);
        for (size_t i = 0; status == VEX_OK && i < gets[g].count; i++) {
            status = read_range(r, &gets[g].ranges[i], err);
        }
    }
    /* Loads that were begun are ended, whatever happened: others may wait for them. */
    size_t failed = r->failed;
    vex_status settled = settle(r, status == VEX_OK ? err : NULL);
    if (status != VEX_OK) {
        r->failed = failed;
    }
    vexi_free(r->store->base.env, r->missing);
    return status == VEX_OK ? settled : status;
}

static bool passes_by(const cache_store *store, const char *name) {
    const vexi_cache_config *config = &store->config;
    return config->is_uncached != NULL && config->is_uncached(config->context, name);
}

/* What a name stands for, its size too. is_cached is false for what passes by. */
static vex_status identify(cache_store *store, const char *name, vexi_cache_ident *out,
                           vex_error *err) {
    *out = (vexi_cache_ident){0};
    if (passes_by(store, name)) {
        return VEX_OK;
    }
    /* Learning may give the name another id; more than a second round means that it changes under
     * our hands. */
    for (int i = 0; i < LEARN_TRIES; i++) {
        vexi_cache_ident ident = vexi_cache_names_find(&store->names, name);
        if (!ident.is_cached) {
            return VEX_OK;
        }
        if (ident.size_known) {
            *out = ident;
            return VEX_OK;
        }
        uint64_t size = 0;
        VEX_TRY(vexi_store_size(store->inner, name, &size, err));
        vexi_cache_names_learn(&store->names, name, ident.id, size);
    }
    return VEX_OK;
}

/* ---- Operations ------------------------------------------------------------------------------ */

static vex_status cache_get(vexi_store *base, const char *name, const vexi_range *ranges,
                            size_t count, vex_error *err) {
    cache_store *store = store_of(base);
    source of = {.name = name};
    VEX_TRY(identify(store, name, &of.ident, err));
    if (!of.ident.is_cached || count == 0) {
        atomic_fetch_add(&store->passed_by, 1);
        return vexi_store_get(store->inner, name, ranges, count, err);
    }
    reading r = {.store = store, .sources = &of, .has_targets = true};
    vexi_store_read one = {.name = name, .ranges = ranges, .count = count};
    return read_all(&r, &one, 1, err);
}

/* Those that are not cached are a step of their own: an object that is being written, or a log. */
static vex_status cache_get_many(vexi_store *base, const vexi_store_read *gets, size_t count,
                                 size_t request_max, vexi_read_cost *cost, size_t *failed,
                                 vex_error *err) {
    cache_store *store = store_of(base);
    const vexi_env *env = base->env;
    vex_status status = VEX_OK;
    source *sources = vexi_alloc_array(env, count, sizeof *sources);
    vexi_store_read *cached = vexi_alloc_array(env, count, sizeof *cached);
    vexi_store_read *passed = vexi_alloc_array(env, count, sizeof *passed);
    size_t *numbers = vexi_alloc_array(env, 2 * count, sizeof *numbers); /* of both in `gets` */
    size_t cached_count = 0, passed_count = 0;
    if (sources == NULL || cached == NULL || passed == NULL || numbers == NULL) {
        status = vexi_no_memory(err, count * sizeof *sources);
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        source of = {.name = gets[i].name};
        *failed = i;
        VEX_TRY_GOTO(status, done, identify(store, of.name, &of.ident, err));
        if (of.ident.is_cached && gets[i].count > 0) {
            numbers[cached_count] = i;
            sources[cached_count] = of;
            cached[cached_count++] = gets[i];
        } else {
            numbers[count + passed_count] = i;
            passed[passed_count++] = gets[i];
        }
    }
    if (passed_count > 0) {
        atomic_fetch_add(&store->passed_by, passed_count);
        size_t at = 0;
        status =
            vexi_store_get_many(store->inner, passed, passed_count, request_max, cost, &at, err);
        *failed = numbers[count + at];
    }
    if (status == VEX_OK && cached_count > 0) {
        reading r = {.store = store,
                     .sources = sources,
                     .request_max = request_max,
                     .cost = cost,
                     .has_targets = true};
        status = read_all(&r, cached, cached_count, err);
        *failed = numbers[r.failed];
    }
done:
    vexi_free(env, numbers);
    vexi_free(env, passed);
    vexi_free(env, cached);
    vexi_free(env, sources);
    return status;
}

static vex_status cache_size(vexi_store *base, const char *name, uint64_t *out, vex_error *err) {
    cache_store *store = store_of(base);
    vexi_cache_ident ident = {0};
    VEX_TRY(identify(store, name, &ident, err));
    if (ident.is_cached) {
        *out = ident.size_bytes;
        return VEX_OK;
    }
    return vexi_store_size(store->inner, name, out, err);
}

static vex_status cache_get_all(vexi_store *base, const char *name, size_t size_max,
                                vexi_arena *arena, vexi_span *out, vex_error *err) {
    cache_store *store = store_of(base);
    atomic_fetch_add(&store->passed_by, 1);
    return vexi_store_get_all(store->inner, name, size_max, arena, out, err);
}

/* Before an object is written under this name. */
static vex_status begin_put(cache_store *store, const char *name, vex_error *err) {
    bool holds = false;
    VEX_TRY(vexi_cache_names_begin_write(&store->names, name, &holds, err));
    if (store->disk == NULL) {
        return VEX_OK;
    }
    vex_status status = vexi_cache_disk_forget(store->disk, name, holds, err);
    if (status != VEX_OK) {
        vexi_cache_names_end_write(&store->names, name, UINT64_MAX);
    }
    return status;
}

/* The bytes of an object in order, out of the parts of its put. */
typedef struct part_reader {
    const vexi_span *parts;
    size_t index;
    size_t offset;
} part_reader;

/* The next `size` bytes; target NULL leaves them out. */
static void read_parts(part_reader *reader, uint8_t *target, size_t size) {
    while (size > 0) {
        const vexi_span *part = &reader->parts[reader->index];
        size_t n = part->size - reader->offset < size ? part->size - reader->offset : size;
        if (target != NULL && n > 0) {
            memcpy(target, part->data + reader->offset, n);
            target += n;
        }
        size -= n;
        reader->offset += n;
        if (reader->offset == part->size) {
            reader->index++;
            reader->offset = 0;
        }
    }
}

/* Hand the blocks to level 2 and let them go. */
static void fill_end(cache_store *store, const char *name, uint64_t id, vexi_cache_block **blocks,
                     size_t count) {
    if (store->disk != NULL && count > 0) {
        vexi_cache_disk_write(store->disk, name, id, blocks, count);
    }
    for (size_t i = 0; i < count; i++) {
        vexi_cache_memory_drop(&store->memory, blocks[i]);
    }
}

/* After a put: what was written is what the next search reads, and level 1 takes it in as it takes
 * in what was read once. Without memory it does not. Readers may be fetching the same blocks
 * already; those are left to them. */
static void fill(cache_store *store, const char *name, const vexi_span *parts, uint64_t size) {
    vexi_cache_ident ident = vexi_cache_names_find(&store->names, name);
    if (!ident.is_cached || !ident.size_known || ident.size_bytes != size) {
        return; /* it is being written again */
    }
    vexi_cache_block **blocks =
        vexi_alloc_array(store->base.env, store->window_count, sizeof *blocks);
    size_t count = 0;
    part_reader reader = {.parts = parts};
    for (uint64_t done = 0; blocks != NULL && done < size;) {
        size_t n = size - done < store->block_size ? (size_t)(size - done) : store->block_size;
        vexi_cache_block *block = NULL;
        vexi_cache_found found = vexi_cache_memory_find(
            &store->memory, ident.id, done / store->block_size, n, 0, blocks, &block);
        if (found == VEXI_CACHE_NO_MEMORY) {
            break;
        }
        if (found == VEXI_CACHE_TO_LOAD) {
            read_parts(&reader, block->data, n);
            vexi_cache_memory_finish(&store->memory, block, NULL);
            atomic_fetch_add(&store->filled, 1);
            atomic_fetch_add(&store->filled_bytes, n);
            blocks[count++] = block;
        } else {
            vexi_cache_memory_drop(&store->memory, block);
            read_parts(&reader, NULL, n);
        }
        done += n;
        if (count == store->window_count) {
            fill_end(store, name, ident.id, blocks, count);
            count = 0;
        }
    }
    if (blocks != NULL) {
        fill_end(store, name, ident.id, blocks, count);
    }
    vexi_free(store->base.env, blocks);
}

static vex_status put(cache_store *store, const char *name, const vexi_span *parts, size_t count,
                      bool if_absent, vex_error *err) {
    if (passes_by(store, name)) {
        return if_absent ? vexi_store_put_if_absent(store->inner, name, parts, count, err)
                         : vexi_store_put(store->inner, name, parts, count, err);
    }
    VEX_TRY(begin_put(store, name, err));
    vex_status status = if_absent ? vexi_store_put_if_absent(store->inner, name, parts, count, err)
                                  : vexi_store_put(store->inner, name, parts, count, err);
    uint64_t size = UINT64_MAX;
    if (status == VEX_OK) {
        size = 0;
        for (size_t i = 0; i < count; i++) {
            size += parts[i].size;
        }
    }
    vexi_cache_names_end_write(&store->names, name, size);
    if (status == VEX_OK && store->config.fill_on_put && size > 0) {
        fill(store, name, parts, size);
    }
    return status;
}

static vex_status cache_put(vexi_store *base, const char *name, const vexi_span *parts,
                            size_t count, vex_error *err) {
    return put(store_of(base), name, parts, count, false, err);
}

static vex_status cache_put_if_absent(vexi_store *base, const char *name, const vexi_span *parts,
                                      size_t count, vex_error *err) {
    return put(store_of(base), name, parts, count, true, err);
}

static vex_status cache_list(vexi_store *base, const char *prefix, const char *after,
                             bool by_folder, vexi_arena *arena, vexi_listing *out, vex_error *err) {
    return vexi_store_list(store_of(base)->inner, prefix, after, by_folder, arena, out, err);
}

static vex_status cache_remove_many(vexi_store *base, const char *const *names, size_t count,
                                    vex_error *err) {
    cache_store *store = store_of(base);
    vex_status status = VEX_OK;
    size_t begun = 0;
    while (status == VEX_OK && begun < count) {
        bool holds = false;
        status = passes_by(store, names[begun])
                     ? VEX_OK
                     : vexi_cache_names_begin_write(&store->names, names[begun], &holds, err);
        begun += status == VEX_OK ? 1 : 0;
    }
    if (status == VEX_OK) {
        status = vexi_store_remove_many(store->inner, names, count, err);
    }
    for (size_t i = 0; i < begun; i++) {
        if (!passes_by(store, names[i])) {
            vexi_cache_names_end_write(&store->names, names[i], UINT64_MAX);
        }
    }
    return status;
}

static vex_status cache_remove(vexi_store *base, const char *name, vex_error *err) {
    cache_store *store = store_of(base);
    if (passes_by(store, name)) {
        return vexi_store_remove(store->inner, name, err);
    }
    bool holds = false;
    VEX_TRY(vexi_cache_names_begin_write(&store->names, name, &holds, err));
    vex_status status = vexi_store_remove(store->inner, name, err);
    vexi_cache_names_end_write(&store->names, name, UINT64_MAX);
    return status;
}

/* What is cached of it is forgotten, as if it had been put again. The bytes may have been spoiled
 * on their way here, before they got the checksums of level 2. */
static void cache_distrust(vexi_store *base, const char *name) {
    cache_store *store = store_of(base);
    vex_error err;
    bool holds = false;
    if (passes_by(store, name)) {
        return;
    }
    vexi_cache_ident ident = vexi_cache_names_find(&store->names, name);
    vex_status status = vexi_cache_names_begin_write(&store->names, name, &holds, &err);
    if (status != VEX_OK) {
        return; /* no memory */
    }
    if (store->disk != NULL) {
        status = vexi_cache_disk_forget(store->disk, name, holds, &err);
    }
    vexi_cache_names_end_write(&store->names, name,
                               ident.size_known ? ident.size_bytes : UINT64_MAX);
    atomic_fetch_add(&store->distrusts, 1);
    vexi_log(base->env, 2, "%s did not match its checksums and is read anew%s%s", name,
             status == VEX_OK ? "" : ": ", status == VEX_OK ? "" : err.message);
}

/* A log grows, so its name is never cached while this store lives: the write does not end. The log
 * is the inner store's and needs nothing of this one. */
static vex_status cache_log_create(vexi_store *base, const char *name, vexi_log_file **out,
                                   vex_error *err) {
    cache_store *store = store_of(base);
    VEX_TRY(begin_put(store, name, err));
    vex_status status = vexi_store_log_create(store->inner, name, out, err);
    if (status != VEX_OK) {
        vexi_cache_names_end_write(&store->names, name, UINT64_MAX);
    }
    return status;
}

static vex_status cache_lock(vexi_store *base, const char *name, vex_error *err) {
    return vexi_store_lock(store_of(base)->inner, name, err);
}

static void cache_unlock(vexi_store *base) {
    vexi_store_unlock(store_of(base)->inner);
}

/* ---- Warming and pinning --------------------------------------------------------------------- */

vex_status vexi_store_cache_warm(vexi_store *base, const char *name, const vexi_range *ranges,
                                 size_t count, vex_error *err) {
    cache_store *store = store_of(base);
    if (!vexi_store_name_valid(name)) {
        return vexi_fail(err, VEX_INVALID, "not the name of an object");
    }
    source of = {.name = name};
    VEX_TRY(identify(store, name, &of.ident, err));
    if (!of.ident.is_cached) {
        return VEX_OK;
    }
    reading r = {.store = store, .sources = &of};
    vexi_store_read one = {.name = name, .ranges = ranges, .count = count};
    return read_all(&r, &one, 1, err);
}

void vexi_store_cache_unpin(vexi_cache_pin *pin) {
    if (pin == NULL) {
        return;
    }
    for (size_t i = 0; i < pin->count; i++) {
        vexi_cache_memory_unpin(&pin->store->memory, pin->blocks[i]);
    }
    atomic_fetch_sub(&pin->store->pin_bytes, pin->bytes);
    vexi_free(pin->store->base.env, pin);
}

vex_status vexi_store_cache_pin(vexi_store *base, const char *name, uint64_t offset, size_t size,
                                vexi_cache_pin **out, vex_error *err) {
    *out = NULL;
    cache_store *store = store_of(base);
    if (!vexi_store_name_valid(name)) {
        return vexi_fail(err, VEX_INVALID, "not the name of an object");
    }
    source of = {.name = name};
    VEX_TRY(identify(store, name, &of.ident, err));
    if (!of.ident.is_cached) {
        return vexi_fail(err, VEX_INVALID, "%s is not cached", name);
    }
    const vexi_range range = {.offset = offset, .size = size};
    VEX_TRY(check_ranges(name, of.ident.size_bytes, &range, 1, err));
    uint64_t first = offset / store->block_size;
    uint64_t end = size == 0 ? first : (offset + size - 1) / store->block_size + 1;
    size_t count = (size_t)(end - first);
    uint64_t bytes = (uint64_t)count * store->block_size;
    uint64_t limit = store->config.memory_bytes / 2;
    if (atomic_fetch_add(&store->pin_bytes, bytes) + bytes > limit) {
        atomic_fetch_sub(&store->pin_bytes, bytes);
        return vexi_fail(err, VEX_LIMIT, "%s: pins would take more than %llu bytes", name,
                         (unsigned long long)limit);
    }
    vexi_cache_pin *pin = vexi_alloc(base->env, sizeof *pin + count * sizeof(vexi_cache_block *));
    if (pin == NULL) {
        atomic_fetch_sub(&store->pin_bytes, bytes);
        return vexi_no_memory(err, sizeof *pin + count * sizeof(vexi_cache_block *));
    }
    *pin = (vexi_cache_pin){.store = store, .bytes = bytes};
    reading r = {.store = store, .sources = &of, .pin = pin};
    vexi_store_read one = {.name = name, .ranges = &range, .count = 1};
    vex_status status = read_all(&r, &one, 1, err);
    if (status != VEX_OK) {
        vexi_store_cache_unpin(pin);
        return status;
    }
    *out = pin;
    return VEX_OK;
}

void vexi_store_cache_tell_size(vexi_store *base, const char *name, uint64_t size_bytes) {
    cache_store *store = store_of(base);
    if (!passes_by(store, name)) {
        vexi_cache_names_tell(&store->names, name, size_bytes);
    }
}

void vexi_store_cache_counters(vexi_store *base, vexi_cache_counters *out) {
    cache_store *store = store_of(base);
    *out = (vexi_cache_counters){0};
    vexi_cache_memory_count(&store->memory, out);
    if (store->disk != NULL) {
        vexi_cache_disk_count(store->disk, out);
    }
    out->misses = atomic_load(&store->misses);
    out->miss_bytes = atomic_load(&store->miss_bytes);
    out->fetches = atomic_load(&store->fetches);
    out->failed_fetches = atomic_load(&store->failed_fetches);
    out->passed_by = atomic_load(&store->passed_by);
    out->distrusts = atomic_load(&store->distrusts);
    out->filled = atomic_load(&store->filled);
    out->filled_bytes = atomic_load(&store->filled_bytes);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void cache_destroy(vexi_store *base) {
    cache_store *store = store_of(base);
    VEX_ASSERT(atomic_load(&store->pin_bytes) == 0);
    vexi_cache_disk_destroy(store->disk);
    vexi_cache_memory_deinit(&store->memory);
    vexi_cache_names_deinit(&store->names);
    vexi_cache_failure_release(base->env, store->no_memory);
    vexi_store_destroy(store->inner);
    vexi_free(base->env, (void *)(uintptr_t)base->ops);
    vexi_free(base->env, store);
}

static vex_status check_config(const vexi_cache_config *config, size_t block_size, vex_error *err) {
    if (block_size < VEXI_CACHE_BLOCK_SIZE_MIN || block_size > VEXI_CACHE_BLOCK_SIZE_MAX ||
        (block_size & (block_size - 1)) != 0) {
        return vexi_fail(err, VEX_INVALID, "a cache block of %zu bytes", block_size);
    }
    VEX_ASSERT(config->folder == NULL || config->disk != NULL);
    return VEX_OK;
}

vex_status vexi_store_cache_create(const vexi_env *env, vexi_store *inner,
                                   const vexi_cache_config *config, vexi_store **out,
                                   vex_error *err) {
    *out = NULL;
    size_t block_size = config->block_size == 0 ? VEXI_CACHE_BLOCK_SIZE : config->block_size;
    vex_status status = check_config(config, block_size, err);
    cache_store *store = NULL;
    vexi_store_ops *ops = NULL;
    if (status == VEX_OK) {
        store = vexi_calloc(env, 1, sizeof *store);
        ops = vexi_alloc(env, sizeof *ops);
        status = store != NULL && ops != NULL ? VEX_OK : vexi_no_memory(err, sizeof *store);
    }
    if (status != VEX_OK) {
        vexi_free(env, store);
        vexi_free(env, ops);
        vexi_store_destroy(inner);
        return status;
    }
    /* A table of its own, because it can log and lock where the inner one can. It never maps: what
     * can be mapped needs no cache. */
    *ops = (vexi_store_ops){
        .flags = vexi_store_flags(inner) & (VEXI_STORE_CAN_LOG | VEXI_STORE_CAN_LOCK),
        .get = cache_get,
        .get_many = cache_get_many,
        .put = cache_put,
        .put_if_absent = cache_put_if_absent,
        .list = cache_list,
        .remove = cache_remove,
        .remove_many = cache_remove_many,
        .get_all = cache_get_all,
        .size = cache_size,
        .tell_size = vexi_store_cache_tell_size,
        .warm = vexi_store_cache_warm,
        .distrust = cache_distrust,
        .log_create = cache_log_create,
        .lock = cache_lock,
        .unlock = cache_unlock,
        .destroy = cache_destroy,
    };
    store->base = (vexi_store){.ops = ops, .env = env};
    store->inner = inner;
    store->config = *config;
    store->config.folder = NULL;
    store->block_size = block_size;
    uint64_t window = config->memory_bytes / 4 / block_size;
    store->window_count = window > WINDOW_COUNT_MAX   ? WINDOW_COUNT_MAX
                          : window < WINDOW_COUNT_MIN ? WINDOW_COUNT_MIN
                                                      : (size_t)window;
    vex_status names_status = vexi_cache_names_init(&store->names, env, err);
    vex_status memory_status =
        vexi_cache_memory_init(&store->memory, env, config->memory_bytes, block_size, err);
    status = names_status != VEX_OK ? names_status : memory_status;
    store->no_memory = vexi_cache_failure_create(env);
    if (status == VEX_OK && store->no_memory == NULL) {
        status = vexi_no_memory(err, sizeof *store->no_memory);
    }
    if (status == VEX_OK) {
        store->no_memory->status = vexi_no_memory(&store->no_memory->error, block_size);
        if (config->folder != NULL) {
            status = vexi_cache_disk_create(env, config, block_size, &store->names, &store->memory,
                                            &store->disk, err);
        }
    }
    if (status != VEX_OK) {
        cache_destroy(&store->base);
        return status;
    }
    *out = &store->base;
    return VEX_OK;
}
