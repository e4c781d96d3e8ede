/* Level 2: blocks on a local SSD.
 *
 * A log of regions, as in CacheLib's large-object engine (Berg and others, OSDI 2020) and RIPQ
 * (Tang and others, FAST 2015): blocks are appended to the newest file, and when the budget is
 * reached the oldest file is unlinked whole. An SSD sees nothing but long sequential writes and
 * large discards, and a start after a crash has only the ends of files to doubt. Blocks of the
 * leaving file that were read since they were written, here or in memory, are written again into
 * the new one, up to half of it (second chance), so that a scan does not sweep out what is in use.
 *
 * The index in memory costs some 100 bytes for each block and is rebuilt at start (cache_region.c).
 *
 * Never wrong bytes.
 *  - A block counts only if its checksum is right when it is read; else it is dropped.
 *  - A name that is put again must not meet its old blocks, not in this run (its id is new,
 *    cache_names.c) and not in a later one. So before a put the regions with records of that name
 *    are unlinked and the folder is synced; a put that cannot have this fails. Engines that never
 *    reuse a name never pay for it. A remove needs nothing: the records stay known by their name.
 *  - Evicted regions are gone from the folder durably before their names are let go; where that
 * sync failed, every put syncs first.
 *
 * Everything else may fail and costs hits only: after a failure the folder rests for a while, with
 * one warning. A full disk stops writes and not reads, and the first write after the rest gives up
 * the oldest region. */
#include "store/cache_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/checksum.h"

enum {
    REGION_COUNT = 64, /* that the budget is cut into */
    REGION_COUNT_MIN = 4,
    BUCKET_COUNT_MIN = 256,
    FOOTER_SIZE_MAX = 1 << 26,
    PATH_SIZE_MAX = 4096
};

static const uint64_t region_size_min = (uint64_t)4 << 20;
static const uint64_t region_size_max = (uint64_t)1 << 30;
static const char region_prefix[] = "region-"; /* then 16 digits, '-', 16 digits */

/* ---- Paths ----------------------------------------------------------------------------------- */

typedef struct region_path {
    char text[PATH_SIZE_MAX];
} region_path;

static region_path path_of(const vexi_cache_disk *disk, uint64_t number, uint64_t nonce) {
    region_path path;
    int size = snprintf(path.text, sizeof path.text, "%s/%s%016llx-%016llx", disk->folder,
                        region_prefix, (unsigned long long)number, (unsigned long long)nonce);
    VEX_ASSERT(size > 0 && (size_t)size < sizeof path.text); /* the folder's length was checked */
    return path;
}

static bool parse_hex(const char *text, uint64_t *out) {
    *out = 0;
    for (int i = 0; i < 16; i++) {
        int digit = vexi_hex_digit_lower(text[i]);
        if (digit < 0) {
            return false;
        }
        *out = *out << 4 | (uint64_t)digit;
    }
    return true;
}

static bool parse_region_name(const char *name, uint64_t *number, uint64_t *nonce) {
    size_t prefix_size = sizeof region_prefix - 1;
    return strlen(name) == prefix_size + 33 && memcmp(name, region_prefix, prefix_size) == 0 &&
           parse_hex(name + prefix_size, number) && name[prefix_size + 16] == '-' &&
           parse_hex(name + prefix_size + 17, nonce) && *number > 0 && *number < UINT64_MAX / 2;
}

/* ---- The index, with its mutex held ---------------------------------------------------------- */

static vexi_cache_record **bucket_of(const vexi_cache_disk *disk, uint64_t id, uint64_t number) {
    return &disk->buckets[vexi_cache_block_hash(id, number) & (disk->bucket_count - 1)];
}

static vexi_cache_record *lookup(const vexi_cache_disk *disk, uint64_t id, uint64_t number) {
    vexi_cache_record *record = *bucket_of(disk, id, number);
    while (record != NULL && (record->id != id || record->number != number)) {
        record = record->next;
    }
    return record;
}

static void leave_table(vexi_cache_disk *disk, vexi_cache_record *record) {
    if (!record->in_table) {
        return;
    }
    vexi_cache_record **link = bucket_of(disk, record->id, record->number);
    while (*link != record) {
        link = &(*link)->next;
    }
    *link = record->next;
    record->in_table = false;
    disk->count--;
}

/* Without memory the chains get longer, no more. */
static void grow_buckets(vexi_cache_disk *disk) {
    size_t wanted = disk->bucket_count * 2;
    vexi_cache_record **buckets = vexi_calloc(disk->env, wanted, sizeof *buckets);
    if (buckets == NULL) {
        return;
    }
    vexi_cache_record **old = disk->buckets;
    size_t old_count = disk->bucket_count;
    disk->buckets = buckets;
    disk->bucket_count = wanted;
    for (size_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            vexi_cache_record *record = old[i];
            old[i] = record->next;
            vexi_cache_record **bucket = bucket_of(disk, record->id, record->number);
            record->next = *bucket;
            *bucket = record;
        }
    }
    vexi_free(disk->env, old);
}

/* A record that was written or found enters its region and the table, where it replaces an older
 * one of the same block. */
static void enter(vexi_cache_disk *disk, vexi_cache_region *region, vexi_cache_record *record) {
    vexi_cache_record *other = lookup(disk, record->id, record->number);
    if (other != NULL) {
        leave_table(disk, other);
    }
    if (disk->count >= disk->bucket_count) {
        grow_buckets(disk);
    }
    vexi_cache_record **bucket = bucket_of(disk, record->id, record->number);
    record->next = *bucket;
    *bucket = record;
    record->in_table = true;
    disk->count++;
    record->region = region;
    *(region->last != NULL ? &region->last->next_of_region : &region->first) = record;
    region->last = record;
}

/* ---- Regions --------------------------------------------------------------------------------- */

static void drop_region(vexi_cache_disk *disk, vexi_cache_region *region) {
    pthread_mutex_lock(&disk->index);
    bool last = --region->holders == 0;
    pthread_mutex_unlock(&disk->index);
    if (last) {
        if (region->reader != NULL) {
            disk->disk->ops->close(region->reader);
        }
        vexi_free(disk->env, region);
    }
}

static void append_region(vexi_cache_disk *disk, vexi_cache_region *region) {
    pthread_mutex_lock(&disk->index);
    region->holders = 1;
    *(disk->newest != NULL ? &disk->newest->newer : &disk->oldest) = region;
    disk->newest = region;
    pthread_mutex_unlock(&disk->index);
    disk->total_size += region->size;
}

static void free_records(vexi_cache_disk *disk, vexi_cache_record *record) {
    while (record != NULL) {
        vexi_cache_record *next = record->next_of_region;
        vexi_cache_names_release(disk->names, record->name);
        vexi_free(disk->env, record);
        record = next;
    }
}

static vex_status sync_folder(vexi_cache_disk *disk, vex_error *err) {
    VEX_TRY(disk->disk->ops->sync_folder(disk->disk, disk->folder, err));
    atomic_store(&disk->unlinks_unsynced, false);
    return VEX_OK;
}

/* Take a region out of the list, its records out of the table. Both mutexes are held. */
static vexi_cache_record *take_records(vexi_cache_disk *disk, vexi_cache_region *region) {
    vexi_cache_region **link = &disk->oldest;
    vexi_cache_region *before = NULL;
    while (*link != region) {
        before = *link;
        link = &before->newer;
    }
    *link = region->newer;
    disk->newest = disk->newest == region ? before : disk->newest;
    vexi_cache_record *records = region->first;
    region->first = NULL;
    region->last = NULL;
    return records;
}

/* Whether a record is worth writing again. */
static bool is_in_use(vexi_cache_disk *disk, const vexi_cache_record *record) {
    vexi_cache_block *block = NULL;
    if (record->hit) {
        return true;
    }
    if (!vexi_cache_memory_peek(disk->memory, record->id, record->number, &block)) {
        return false;
    }
    vexi_cache_memory_drop(disk->memory, block);
    return true;
}

/* Unlink a region. Records in use go to *survivors, where that is wanted, with a hold on the region
 * each. Writer mutex held. */
static vex_status evict_region(vexi_cache_disk *disk, vexi_cache_region *region,
                               vexi_cache_record **survivors, vex_error *err) {
    if (region == disk->newest && disk->out != NULL) {
        disk->disk->ops->close(disk->out);
        disk->out = NULL;
    }
    region_path path = path_of(disk, region->number, region->nonce);
    atomic_store(&disk->unlinks_unsynced, true);
    vex_status status = disk->disk->ops->unlink(disk->disk, path.text, err);
    if (status != VEX_OK && status != VEX_NOT_FOUND) {
        return status;
    }
    status = sync_folder(disk, err);
    pthread_mutex_lock(&disk->index);
    vexi_cache_record *records = take_records(disk, region);
    vexi_cache_record *gone = NULL;
    uint64_t kept = 0;
    while (records != NULL) {
        vexi_cache_record *record = records;
        records = record->next_of_region;
        bool was_there = record->in_table;
        leave_table(disk, record);
        vexi_cache_record **list = &gone;
        if (survivors != NULL && was_there && kept + record->size <= disk->region_size / 2 &&
            is_in_use(disk, record)) {
            kept += record->size;
            region->holders++;
            list = survivors;
        } else if (was_there) {
            atomic_fetch_add(&disk->evictions, 1);
        }
        record->next_of_region = *list;
        *list = record;
    }
    pthread_mutex_unlock(&disk->index);
    disk->total_size -= region->size;
    free_records(disk, gone);
    drop_region(disk, region);
    return status;
}

/* ---- Writing, with the writer mutex held ----------------------------------------------------- */

static vex_status append(vexi_cache_disk *disk, const vexi_span *parts, size_t count,
                         vex_error *err) {
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += parts[i].size;
    }
    /* Counted also if it fails in part: the file may have grown so far. */
    disk->newest->size += size;
    disk->total_size += size;
    return disk->disk->ops->write(disk->out, parts, count, err);
}

static void close_out(vexi_cache_disk *disk) {
    if (disk->out != NULL) {
        disk->disk->ops->close(disk->out);
        disk->out = NULL;
    }
}

/* End the newest region with its footer. */
static vex_status seal(vexi_cache_disk *disk, vex_error *err) {
    vex_status status = VEX_OK;
    if (disk->out != NULL && vexi_buffer_check(&disk->footer, NULL) == VEX_OK) {
        uint8_t trailer[VEXI_CACHE_TRAILER_SIZE];
        vexi_cache_trailer_write(disk->newest->number, disk->newest->nonce, disk->footer.data,
                                 disk->footer.size, disk->footer_count, trailer);
        const vexi_span parts[2] = {vexi_span_of(disk->footer.data, disk->footer.size),
                                    vexi_span_of(trailer, sizeof trailer)};
        status = append(disk, parts, 2, err);
    }
    close_out(disk);
    return status;
}

static vex_status open_region(vexi_cache_disk *disk, vex_error *err) {
    const vexi_disk_ops *ops = disk->disk->ops;
    vexi_cache_region *region = vexi_calloc(disk->env, 1, sizeof *region);
    if (region == NULL) {
        return vexi_no_memory(err, sizeof *region);
    }
    region->number = disk->next_number++;
    region->nonce = vexi_random_u64(disk->env);
    region_path path = path_of(disk, region->number, region->nonce);
    vex_status status = ops->open(disk->disk, path.text, VEXI_DISK_CREATE_NEW, &disk->out, err);
    if (status == VEX_OK) {
        status = ops->open(disk->disk, path.text, VEXI_DISK_READ, &region->reader, err);
        if (status != VEX_OK) {
            close_out(disk);
            (void)ops->unlink(disk->disk, path.text, NULL); /* it is empty if it stays */
        }
    }
    if (status != VEX_OK) {
        disk->out = NULL;
        vexi_free(disk->env, region);
        return status;
    }
    vexi_buffer_clear(&disk->footer);
    disk->footer_count = 0;
    append_region(disk, region);
    return VEX_OK;
}

/* Append a block to the newest region, which has room. `name` is held for the record: by it when
 * that is written, released on failure. */
static vex_status append_block(vexi_cache_disk *disk, vexi_cache_name *name, uint64_t id,
                               uint64_t object_size, uint64_t number, vexi_span payload,
                               vex_error *err) {
    vexi_cache_record *record = vexi_calloc(disk->env, 1, sizeof *record);
    if (record == NULL) {
        vexi_cache_names_release(disk->names, name);
        return vexi_no_memory(err, sizeof *record);
    }
    vexi_cache_region *region = disk->newest;
    vexi_cache_head head = {.name = name->text,
                            .name_size = strlen(name->text),
                            .region_number = region->number,
                            .region_nonce = region->nonce,
                            .offset = region->size,
                            .object_size = object_size,
                            .block_number = number,
                            .block_size = (uint32_t)disk->block_size,
                            .payload_size = (uint32_t)payload.size,
                            .payload_checksum = vexi_crc32c(0, payload.data, payload.size)};
    uint8_t bytes[VEXI_CACHE_HEAD_SIZE_MAX];
    size_t head_size = vexi_cache_head_write(&head, bytes);
    const vexi_span parts[2] = {vexi_span_of(bytes, head_size), payload};
    vex_status status = append(disk, parts, 2, err);
    if (status != VEX_OK) {
        vexi_cache_names_release(disk->names, name);
        vexi_free(disk->env, record);
        return status;
    }
    vexi_buffer_append(&disk->footer, bytes, head_size);
    disk->footer_count++;
    atomic_fetch_add(&disk->writes, 1);
    atomic_fetch_add(&disk->write_bytes, payload.size);
    *record = (vexi_cache_record){.name = name,
                                  .id = id,
                                  .number = number,
                                  .offset = head.offset + head_size,
                                  .size = head.payload_size,
                                  .checksum = head.payload_checksum};
    pthread_mutex_lock(&disk->index);
    enter(disk, region, record);
    pthread_mutex_unlock(&disk->index);
    return VEX_OK;
}

/* Write a block that leaves with its region once more. */
static vex_status write_again(vexi_cache_disk *disk, const vexi_cache_record *record,
                              uint8_t *scratch, vex_error *err) {
    vexi_cache_block *block = NULL;
    const uint8_t *data = scratch;
    if (vexi_cache_memory_peek(disk->memory, record->id, record->number, &block)) {
        data = block->data;
    } else if (disk->disk->ops->read_at(record->region->reader, record->offset, scratch,
                                        record->size, err) != VEX_OK) {
        return VEX_OK; /* then not */
    }
    vex_status status = VEX_OK;
    uint64_t object_size = 0;
    vexi_cache_name *name = NULL;
    if (vexi_crc32c(0, data, record->size) == record->checksum) {
        name = vexi_cache_names_hold(disk->names, record->name->text, record->id, &object_size);
    }
    if (name != NULL) {
        status = append_block(disk, name, record->id, object_size, record->number,
                              vexi_span_of(data, record->size), err);
    }
    if (block != NULL) {
        vexi_cache_memory_drop(disk->memory, block);
    }
    return status;
}

/* Begin a new region, with room for it within the budget. */
static vex_status roll(vexi_cache_disk *disk, vex_error *err) {
    vexi_cache_record *survivors = NULL;
    vex_status status = seal(disk, err);
    while (status == VEX_OK && disk->oldest != NULL &&
           (disk->must_shrink || disk->total_size > disk->budget - disk->region_size)) {
        disk->must_shrink = false;
        status = evict_region(disk, disk->oldest, &survivors, err);
    }
    if (status == VEX_OK) {
        status = open_region(disk, err);
    }
    uint8_t *scratch = survivors == NULL ? NULL : vexi_alloc(disk->env, disk->block_size);
    uint64_t room = disk->region_size / 2;
    while (survivors != NULL) {
        vexi_cache_record *record = survivors;
        survivors = record->next_of_region;
        if (status == VEX_OK && scratch != NULL && record->size <= room) {
            room -= record->size;
            status = write_again(disk, record, scratch, err);
        }
        drop_region(disk, record->region);
        record->next_of_region = NULL;
        free_records(disk, record);
    }
    vexi_free(disk->env, scratch);
    return status;
}

static vex_status write_block(vexi_cache_disk *disk, const char *text, uint64_t id,
                              const vexi_cache_block *block, vex_error *err) {
    /* Twice in the file (head and footer) and the trailer. */
    uint64_t need = block->size + 2 * (VEXI_CACHE_RECORD_SIZE + strlen(text));
    if (disk->out == NULL ||
        disk->newest->size + disk->footer.size + VEXI_CACHE_TRAILER_SIZE + need >
            disk->region_size) {
        VEX_TRY(roll(disk, err));
    }
    pthread_mutex_lock(&disk->index);
    bool is_there = lookup(disk, id, block->number) != NULL;
    pthread_mutex_unlock(&disk->index);
    if (is_there) {
        return VEX_OK;
    }
    uint64_t object_size = 0;
    vexi_cache_name *name = vexi_cache_names_hold(disk->names, text, id, &object_size);
    if (name == NULL) {
        return VEX_OK; /* it was forgotten meanwhile */
    }
    return append_block(disk, name, id, object_size, block->number,
                        vexi_span_of(block->data, block->size), err);
}

/* ---- Failures -------------------------------------------------------------------------------- */

static void warn(const vexi_cache_disk *disk, const char *what, const vex_error *err) {
    vexi_log(disk->env, 2, "cache folder %s: %s: %s; it rests for %llu ms", disk->folder, what,
             err->message, (unsigned long long)(disk->retry_ns / 1000000));
}

void vexi_cache_disk_write(vexi_cache_disk *disk, const char *name, uint64_t id,
                           vexi_cache_block *const *blocks, size_t count) {
    pthread_mutex_lock(&disk->writer);
    vex_error err = {0};
    vex_status status = VEX_OK;
    bool rests = vexi_monotonic_ns(disk->env) < disk->off_until_ns;
    for (size_t i = 0; !rests && status == VEX_OK && i < count; i++) {
        status = write_block(disk, name, id, blocks[i], &err);
    }
    if (status != VEX_OK) {
        close_out(disk);
        if (status != VEX_MEMORY) {
            atomic_fetch_add(&disk->errors, 1);
            disk->must_shrink = status == VEX_FULL;
            disk->off_until_ns = vexi_monotonic_ns(disk->env) + disk->retry_ns;
            warn(disk, "a write failed", &err);
        }
    }
    pthread_mutex_unlock(&disk->writer);
}

/* One of the threads that fail at the same time warns. */
static void rest_from_reading(vexi_cache_disk *disk, const vex_error *err) {
    atomic_fetch_add(&disk->errors, 1);
    uint64_t now = vexi_monotonic_ns(disk->env);
    uint_fast64_t until = atomic_load(&disk->reads_off_until_ns);
    if (until <= now &&
        atomic_compare_exchange_strong(&disk->reads_off_until_ns, &until, now + disk->retry_ns)) {
        warn(disk, "a read failed", err);
    }
}

/* ---- Reading --------------------------------------------------------------------------------- */

bool vexi_cache_disk_read(vexi_cache_disk *disk, uint64_t id, uint64_t number, uint8_t *target,
                          size_t size) {
    uint_fast64_t off_until = atomic_load(&disk->reads_off_until_ns);
    if (off_until != 0 && vexi_monotonic_ns(disk->env) < off_until) {
        return false;
    }
    vexi_cache_record found = {0};
    pthread_mutex_lock(&disk->index);
    vexi_cache_record *record = lookup(disk, id, number);
    if (record != NULL && record->size == size) {
        record->hit = true;
        record->region->holders++;
        found = *record;
    }
    pthread_mutex_unlock(&disk->index);
    if (found.region == NULL) {
        return false;
    }
    vex_error err = {0};
    vex_status status =
        disk->disk->ops->read_at(found.region->reader, found.offset, target, size, &err);
    bool whole = status == VEX_OK && vexi_crc32c(0, target, size) == found.checksum;
    if (whole) {
        atomic_fetch_add(&disk->hits, 1);
        atomic_fetch_add(&disk->hit_bytes, size);
    } else if (status == VEX_OK || status == VEX_CORRUPT) {
        pthread_mutex_lock(&disk->index);
        record = lookup(disk, id, number);
        if (record != NULL && record->region == found.region && record->offset == found.offset) {
            leave_table(disk, record);
            atomic_fetch_add(&disk->corrupt, 1);
        }
        pthread_mutex_unlock(&disk->index);
    } else {
        rest_from_reading(disk, &err);
    }
    drop_region(disk, found.region);
    return whole;
}

/* ---- Forgetting ------------------------------------------------------------------------------ */

/* The oldest region with a record of this name, or NULL. */
static vexi_cache_region *find_region(vexi_cache_disk *disk, const char *name) {
    pthread_mutex_lock(&disk->index);
    vexi_cache_region *region = disk->oldest;
    for (; region != NULL; region = region->newer) {
        const vexi_cache_record *record = region->first;
        while (record != NULL && strcmp(record->name->text, name) != 0) {
            record = record->next_of_region;
        }
        if (record != NULL) {
            break;
        }
    }
    pthread_mutex_unlock(&disk->index);
    return region;
}

vex_status vexi_cache_disk_forget(vexi_cache_disk *disk, const char *name, bool holds,
                                  vex_error *err) {
    if (!holds && !atomic_load(&disk->unlinks_unsynced)) {
        return VEX_OK;
    }
    vex_status status = VEX_OK;
    pthread_mutex_lock(&disk->writer);
    for (;;) {
        vexi_cache_region *region = find_region(disk, name);
        if (region == NULL || status != VEX_OK) {
            break;
        }
        status = evict_region(disk, region, NULL, err);
    }
    if (status == VEX_OK && atomic_load(&disk->unlinks_unsynced)) {
        status = sync_folder(disk, err);
    }
    pthread_mutex_unlock(&disk->writer);
    return status == VEX_OK
               ? VEX_OK
               : vexi_prefix(err, status, "%s: the cache folder cannot forget it", name);
}

/* ---- Life ------------------------------------------------------------------------------------ */

/* A region that is being read at start. */
typedef struct recovery {
    vexi_cache_disk *disk;
    vexi_cache_region *region;
} recovery;

static vex_status recover_record(void *argument, const vexi_cache_head *head, uint64_t offset,
                                 vex_error *err) {
    recovery *r = argument;
    vexi_cache_disk *disk = r->disk;
    vexi_cache_record *record = vexi_calloc(disk->env, 1, sizeof *record);
    if (record == NULL) {
        return vexi_no_memory(err, sizeof *record);
    }
    record->name =
        vexi_cache_names_recover(disk->names, head->name, head->object_size, &record->id);
    if (record->name == NULL) {
        vexi_free(disk->env, record);
        return vexi_no_memory(err, sizeof *record);
    }
    record->number = head->block_number;
    record->offset = offset;
    record->size = head->payload_size;
    record->checksum = head->payload_checksum;
    pthread_mutex_lock(&disk->index);
    enter(disk, r->region, record);
    pthread_mutex_unlock(&disk->index);
    return VEX_OK;
}

static vex_status recover_region(vexi_cache_disk *disk, uint64_t number, uint64_t nonce,
                                 vex_error *err) {
    const vexi_disk_ops *ops = disk->disk->ops;
    vexi_cache_region *region = vexi_calloc(disk->env, 1, sizeof *region);
    if (region == NULL) {
        return vexi_no_memory(err, sizeof *region);
    }
    region->number = number;
    region->nonce = nonce;
    region_path path = path_of(disk, number, nonce);
    int64_t modified_us = 0;
    vex_status status = ops->file_size(disk->disk, path.text, &region->size, &modified_us, err);
    if (status == VEX_OK) {
        status = ops->open(disk->disk, path.text, VEXI_DISK_READ, &region->reader, err);
    }
    append_region(disk, region); /* from here the disk frees it */
    if (status == VEX_OK) {
        recovery r = {.disk = disk, .region = region};
        status = vexi_cache_region_walk(disk->env, region->reader, region->size, number, nonce,
                                        (uint32_t)disk->block_size, recover_record, &r, err);
    }
    if (status == VEX_MEMORY) {
        return status;
    }
    /* What cannot be read, or holds nothing, goes: it could come to be readable later. */
    if (status != VEX_OK || region->first == NULL) {
        return evict_region(disk, region, NULL, err);
    }
    return VEX_OK;
}

static int compare_entries(const void *a, const void *b) {
    const vexi_list_entry *left = a, *right = b;
    return strcmp(left->name, right->name);
}

/* Find the regions of an earlier run, oldest first: their names sort so. */
static vex_status recover(vexi_cache_disk *disk, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, disk->env);
    vexi_listing listing = {0};
    vex_status status =
        disk->disk->ops->list_folder(disk->disk, disk->folder, &arena, &listing, err);
    if (status == VEX_OK && listing.count > 1) {
        qsort(listing.entries, listing.count, sizeof *listing.entries, compare_entries);
    }
    for (size_t i = 0; status == VEX_OK && i < listing.count; i++) {
        uint64_t number = 0, nonce = 0;
        if (parse_region_name(listing.entries[i].name, &number, &nonce)) {
            disk->next_number = number + 1;
            status = recover_region(disk, number, nonce, err);
        }
    }
    while (status == VEX_OK && disk->oldest != NULL && disk->total_size > disk->budget) {
        status = evict_region(disk, disk->oldest, NULL, err);
    }
    vexi_arena_deinit(&arena);
    return status;
}

/* Make the folder and those above it, and lock it. */
static vex_status open_folder(vexi_cache_disk *disk, vex_error *err) {
    const vexi_disk_ops *ops = disk->disk->ops;
    char *path = disk->folder;
    for (size_t i = 1;; i++) {
        char c = path[i];
        if ((c == '/' || c == '\0') && path[i - 1] != '/') {
            bool made = false;
            path[i] = '\0';
            vex_status status = ops->make_folder(disk->disk, path, &made, err);
            path[i] = c;
            VEX_TRY(status);
        }
        if (c == '\0') {
            break;
        }
    }
    char lock[PATH_SIZE_MAX];
    snprintf(lock, sizeof lock, "%s/lock", path);
    return ops->lock(disk->disk, lock, &disk->lock, err);
}

vex_status vexi_cache_disk_create(const vexi_env *env, const vexi_cache_config *config,
                                  size_t block_size, vexi_cache_names *names,
                                  vexi_cache_memory *memory, vexi_cache_disk **out,
                                  vex_error *err) {
    *out = NULL;
    size_t folder_size = strlen(config->folder);
    while (folder_size > 1 && config->folder[folder_size - 1] == '/') {
        folder_size--;
    }
    if (folder_size == 0 || folder_size > PATH_SIZE_MAX - 64) {
        return vexi_fail(err, VEX_INVALID, "the cache folder's path has %zu bytes", folder_size);
    }
    if (config->disk_bytes / REGION_COUNT < block_size) {
        return vexi_fail(err, VEX_INVALID,
                         "a cache folder of %llu bytes is too small: at least %zu are needed",
                         (unsigned long long)config->disk_bytes, REGION_COUNT * block_size);
    }
    vexi_cache_disk *disk = vexi_calloc(env, 1, sizeof *disk);
    if (disk == NULL) {
        return vexi_no_memory(err, sizeof *disk);
    }
    disk->env = env;
    disk->disk = config->disk;
    disk->names = names;
    disk->memory = memory;
    disk->block_size = block_size;
    disk->budget = config->disk_bytes;
    uint64_t size = disk->budget / REGION_COUNT;
    size = size < region_size_min ? region_size_min : size;
    size = size > region_size_max ? region_size_max : size;
    disk->region_size =
        size > disk->budget / REGION_COUNT_MIN ? disk->budget / REGION_COUNT_MIN : size;
    disk->retry_ns = (uint64_t)(config->retry_ms == 0 ? 30000 : config->retry_ms) * 1000000;
    disk->next_number = 1;
    disk->bucket_count = BUCKET_COUNT_MIN;
    pthread_mutex_init(&disk->writer, NULL);
    pthread_mutex_init(&disk->index, NULL);
    vexi_buffer_init(&disk->footer, env, FOOTER_SIZE_MAX);
    disk->folder = vexi_alloc(env, folder_size + 1);
    disk->buckets = vexi_calloc(env, disk->bucket_count, sizeof *disk->buckets);
    vex_status status = VEX_OK;
    if (disk->folder == NULL || disk->buckets == NULL) {
        status = vexi_no_memory(err, folder_size + 1);
    } else {
        memcpy(disk->folder, config->folder, folder_size);
        disk->folder[folder_size] = '\0';
        status = open_folder(disk, err);
    }
    if (status == VEX_OK) {
        status = recover(disk, err);
    }
    if (status != VEX_OK) {
        vexi_cache_disk_destroy(disk);
        return status;
    }
    *out = disk;
    return VEX_OK;
}

void vexi_cache_disk_destroy(vexi_cache_disk *disk) {
    if (disk == NULL) {
        return;
    }
    (void)seal(disk, NULL); /* without a footer the next start reads the records */
    while (disk->oldest != NULL) {
        vexi_cache_region *region = disk->oldest;
        pthread_mutex_lock(&disk->index);
        vexi_cache_record *records = take_records(disk, region);
        pthread_mutex_unlock(&disk->index);
        free_records(disk, records);
        drop_region(disk, region);
    }
    if (disk->lock != NULL) {
        disk->disk->ops->close(disk->lock);
    }
    vexi_buffer_deinit(&disk->footer);
    vexi_free(disk->env, disk->buckets);
    vexi_free(disk->env, disk->folder);
    pthread_mutex_destroy(&disk->index);
    pthread_mutex_destroy(&disk->writer);
    vexi_free(disk->env, disk);
}

void vexi_cache_disk_count(vexi_cache_disk *disk, vexi_cache_counters *out) {
    out->disk_hits = atomic_load(&disk->hits);
    out->disk_hit_bytes = atomic_load(&disk->hit_bytes);
    out->disk_writes = atomic_load(&disk->writes);
    out->disk_write_bytes = atomic_load(&disk->write_bytes);
    out->disk_evictions = atomic_load(&disk->evictions);
    out->disk_corrupt = atomic_load(&disk->corrupt);
    out->disk_errors = atomic_load(&disk->errors);
    pthread_mutex_lock(&disk->index);
    out->disk_blocks = disk->count;
    pthread_mutex_unlock(&disk->index);
    pthread_mutex_lock(&disk->writer);
    out->disk_bytes = disk->total_size;
    pthread_mutex_unlock(&disk->writer);
}
