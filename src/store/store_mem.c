/* Objects in memory: for mem:// lakes, which end with their process, and for tests.
 *
 * A sorted array of names, each with a reference-counted blob. An object's blob never changes, so a
 * mapping is a reference to it and outlives a remove or an overwriting put, as a mapped file does.
 * A log's blob grows; to map a log copies it.
 *
 * One mutex guards the array and the logs. Bytes of objects are copied in and out without it: in
 * before the blob is published, out while a reference is held. */
#include <pthread.h>
#include <stdatomic.h>

#include "store/store.h"

typedef struct mem_blob {
    atomic_size_t references;
    size_t size;
    size_t capacity;
    uint8_t *data; /* NULL when capacity is 0 */
    bool is_log;   /* then data and size change under the store's mutex */
} mem_blob;

typedef struct mem_entry {
    char *name;
    mem_blob *blob;
    int64_t modified_us;
} mem_entry;

typedef struct mem_store {
    vexi_store base;
    pthread_mutex_t mutex;
    mem_entry *entries; /* under mutex, sorted by name */
    size_t count;
    size_t capacity;
    bool locked; /* under mutex */
} mem_store;

typedef struct mem_log {
    vexi_log_file base;
    mem_blob *blob; /* a reference */
} mem_log;

/* ---- Blobs ----------------------------------------------------------------------------------- */

static void blob_release(const vexi_env *env, mem_blob *blob) {
    if (blob != NULL && atomic_fetch_sub(&blob->references, 1) == 1) {
        vexi_free(env, blob->data);
        vexi_free(env, blob);
    }
}

static vex_status parts_size(const vexi_span *parts, size_t count, size_t *out, vex_error *err) {
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(size, parts[i].size, &size)) {
            return vexi_fail(err, VEX_LIMIT, "an object in memory is too large");
        }
    }
    *out = size;
    return VEX_OK;
}

static void copy_parts(uint8_t *target, const vexi_span *parts, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (parts[i].size > 0) {
            memcpy(target, parts[i].data, parts[i].size);
            target += parts[i].size;
        }
    }
}

static vex_status blob_create(const vexi_env *env, const vexi_span *parts, size_t count,
                              mem_blob **out, vex_error *err) {
    size_t size = 0;
    VEX_TRY(parts_size(parts, count, &size, err));
    mem_blob *blob = vexi_calloc(env, 1, sizeof *blob);
    if (blob == NULL) {
        return vexi_no_memory(err, sizeof *blob);
    }
    atomic_init(&blob->references, 1);
    if (size > 0) {
        /* Aligned as a mapped file's first byte, as far as kernels care. */
        blob->data = vexi_alloc_aligned(env, size);
        if (blob->data == NULL) {
            vexi_free(env, blob);
            return vexi_no_memory(err, size);
        }
        copy_parts(blob->data, parts, count);
    }
    blob->size = size;
    blob->capacity = size;
    *out = blob;
    return VEX_OK;
}

/* ---- The sorted array ------------------------------------------------------------------------ */

/* Index of the first entry whose name is not below `name`. Call with the mutex held. */
static size_t lower_bound(const mem_store *store, const char *name) {
    size_t low = 0;
    size_t high = store->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(store->entries[middle].name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static mem_entry *find(const mem_store *store, const char *name) {
    size_t i = lower_bound(store, name);
    return i < store->count && strcmp(store->entries[i].name, name) == 0 ? &store->entries[i]
                                                                         : NULL;
}

/* No name may be both an object and a folder of others, as on a disk. */
static vex_status check_conflict(const mem_store *store, const char *name, vex_error *err) {
    char text[VEXI_STORE_NAME_SIZE_MAX + 2];
    size_t size = strlen(name);
    memcpy(text, name, size + 1);
    for (size_t i = size; i-- > 0;) {
        if (text[i] == '/') {
            text[i] = '\0';
            if (find(store, text) != NULL) {
                return vexi_fail(err, VEX_INVALID, "put %s: %s is an object, not a folder", name,
                                 text);
            }
        }
    }
    memcpy(text, name, size);
    text[size] = '/';
    text[size + 1] = '\0';
    size_t below = lower_bound(store, text);
    if (below < store->count && strncmp(store->entries[below].name, text, size + 1) == 0) {
        return vexi_fail(err, VEX_INVALID, "%s is a folder of objects", name);
    }
    return VEX_OK;
}

/* Publish a blob (taken in any case) under a name. */
static vex_status insert(mem_store *store, const char *name, mem_blob *blob, bool if_absent,
                         vex_error *err) {
    const vexi_env *env = store->base.env;
    size_t name_size = strlen(name) + 1;
    mem_blob *old = blob;
    char *copy = NULL;
    pthread_mutex_lock(&store->mutex);
    mem_entry *entry = find(store, name);
    vex_status status = VEX_OK;
    if (entry != NULL && if_absent) {
        status = vexi_fail(err, VEX_EXISTS, "%s already exists", name);
        goto done;
    }
    if (entry != NULL) {
        old = entry->blob;
        entry->blob = blob;
        entry->modified_us = vexi_wall_us(env);
        goto done;
    }
    VEX_TRY_GOTO(status, done, check_conflict(store, name, err));
    VEX_TRY_GOTO(status, done,
                 vexi_grow(env, (void **)&store->entries, &store->capacity, store->count,
                           store->count + 1, sizeof *store->entries, err));
    copy = vexi_alloc(env, name_size);
    if (copy == NULL) {
        status = vexi_no_memory(err, name_size);
        goto done;
    }
    memcpy(copy, name, name_size);
    size_t position = lower_bound(store, name);
    memmove(store->entries + position + 1, store->entries + position,
            (store->count - position) * sizeof *store->entries);
    store->entries[position] =
        (mem_entry){.name = copy, .blob = blob, .modified_us = vexi_wall_us(env)};
    store->count++;
    old = NULL;
done:
    pthread_mutex_unlock(&store->mutex);
    blob_release(env, old);
    return status;
}

/* A reference to the blob of a name. */
static vex_status reference(mem_store *store, const char *name, mem_blob **out, vex_error *err) {
    pthread_mutex_lock(&store->mutex);
    mem_entry *entry = find(store, name);
    if (entry != NULL) {
        atomic_fetch_add(&entry->blob->references, 1);
        *out = entry->blob;
    }
    pthread_mutex_unlock(&store->mutex);
    return entry == NULL ? vexi_fail(err, VEX_NOT_FOUND, "%s does not exist", name) : VEX_OK;
}

/* A log grows under the mutex; an object's blob needs no lock. */
static void blob_enter(mem_store *store, const mem_blob *blob) {
    if (blob->is_log) {
        pthread_mutex_lock(&store->mutex);
    }
}

static void blob_leave(mem_store *store, const mem_blob *blob) {
    if (blob->is_log) {
        pthread_mutex_unlock(&store->mutex);
    }
}

/* ---- Objects --------------------------------------------------------------------------------- */

static vex_status mem_get(vexi_store *base, const char *name, const vexi_range *ranges,
                          size_t count, vex_error *err) {
    mem_store *store = (mem_store *)base;
    mem_blob *blob = NULL;
    VEX_TRY(reference(store, name, &blob, err));
    vex_status status = VEX_OK;
    blob_enter(store, blob);
    for (size_t i = 0; i < count && status == VEX_OK; i++) {
        const vexi_range *range = &ranges[i];
        if (range->size == 0) {
            continue;
        }
        if (range->offset > blob->size || range->size > blob->size - range->offset) {
            status = vexi_fail(err, VEX_CORRUPT, "%s ends at byte %zu, before byte %llu", name,
                               blob->size, (unsigned long long)(range->offset + range->size));
        } else {
            memcpy(range->target, blob->data + range->offset, range->size);
        }
    }
    blob_leave(store, blob);
    blob_release(base->env, blob);
    return status;
}

static vex_status put(vexi_store *base, const char *name, const vexi_span *parts, size_t count,
                      bool if_absent, vex_error *err) {
    mem_blob *blob = NULL;
    VEX_TRY(blob_create(base->env, parts, count, &blob, err));
    return insert((mem_store *)base, name, blob, if_absent, err);
}

static vex_status mem_put(vexi_store *base, const char *name, const vexi_span *parts, size_t count,
                          vex_error *err) {
    return put(base, name, parts, count, false, err);
}

static vex_status mem_put_if_absent(vexi_store *base, const char *name, const vexi_span *parts,
                                    size_t count, vex_error *err) {
    return put(base, name, parts, count, true, err);
}

static vex_status mem_list(vexi_store *base, const char *prefix, const char *after, bool by_folder,
                           vexi_arena *arena, vexi_listing *out, vex_error *err) {
    mem_store *store = (mem_store *)base;
    size_t prefix_size = strlen(prefix);
    vexi_list_entry *entries = NULL;
    size_t capacity = 0;
    size_t count = 0;
    vex_status status = VEX_OK;
    pthread_mutex_lock(&store->mutex);
    for (size_t i = lower_bound(store, prefix); i < store->count; i++) {
        const mem_entry *entry = &store->entries[i];
        if (strncmp(entry->name, prefix, prefix_size) != 0) {
            break;
        }
        const char *slash = by_folder ? strchr(entry->name + prefix_size, '/') : NULL;
        size_t size = slash != NULL ? (size_t)(slash - entry->name) + 1 : strlen(entry->name);
        if (count > 0 && slash != NULL && entries[count - 1].is_folder &&
            strncmp(entries[count - 1].name, entry->name, size) == 0) {
            continue; /* one more object of the folder listed last */
        }
        char *name = vexi_arena_copy(arena, entry->name, size);
        if (name == NULL) {
            status = vexi_no_memory(err, size);
            break;
        }
        if (after != NULL && strcmp(name, after) <= 0) {
            continue;
        }
        status = vexi_grow(base->env, (void **)&entries, &capacity, count, count + 1,
                           sizeof *entries, err);
        if (status != VEX_OK) {
            break;
        }
        entries[count++] = (vexi_list_entry){.name = name,
                                             .size_bytes = slash != NULL ? 0 : entry->blob->size,
                                             .modified_us = slash != NULL ? 0 : entry->modified_us,
                                             .is_folder = slash != NULL};
    }
    pthread_mutex_unlock(&store->mutex);
    if (status == VEX_OK && count > 0) {
        out->entries = vexi_arena_array(arena, count, sizeof *entries);
        if (out->entries == NULL) {
            status = vexi_no_memory(err, count * sizeof *entries);
        } else {
            memcpy(out->entries, entries, count * sizeof *entries);
            out->count = count;
        }
    }
    vexi_free(base->env, entries);
    return status;
}

static vex_status mem_remove(vexi_store *base, const char *name, vex_error *err) {
    (void)err;
    mem_store *store = (mem_store *)base;
    pthread_mutex_lock(&store->mutex);
    mem_entry *entry = find(store, name);
    mem_entry removed = {0};
    if (entry != NULL) {
        removed = *entry;
        size_t position = (size_t)(entry - store->entries);
        memmove(entry, entry + 1, (store->count - position - 1) * sizeof *entry);
        store->count--;
    }
    pthread_mutex_unlock(&store->mutex);
    vexi_free(base->env, removed.name);
    blob_release(base->env, removed.blob);
    return VEX_OK;
}

static vex_status mem_size(vexi_store *base, const char *name, uint64_t *out, vex_error *err) {
    mem_store *store = (mem_store *)base;
    mem_blob *blob = NULL;
    VEX_TRY(reference(store, name, &blob, err));
    blob_enter(store, blob);
    *out = blob->size;
    blob_leave(store, blob);
    blob_release(base->env, blob);
    return VEX_OK;
}

static vex_status mem_map(vexi_store *base, const char *name, vexi_mapping *out, vex_error *err) {
    mem_store *store = (mem_store *)base;
    mem_blob *blob = NULL;
    VEX_TRY(reference(store, name, &blob, err));
    if (blob->is_log) {
        mem_blob *copy = NULL;
        blob_enter(store, blob);
        vexi_span all = {.data = blob->data, .size = blob->size};
        vex_status status = blob_create(base->env, &all, 1, &copy, err);
        blob_leave(store, blob);
        blob_release(base->env, blob);
        VEX_TRY(status);
        blob = copy;
    }
    *out = (vexi_mapping){.data = blob->data, .size = blob->size, .handle = blob};
    return VEX_OK;
}

static void mem_unmap(vexi_store *base, vexi_mapping *mapping) {
    blob_release(base->env, mapping->handle);
    *mapping = (vexi_mapping){0};
}

/* ---- Logs ------------------------------------------------------------------------------------ */

static vex_status mem_log_create(vexi_store *base, const char *name, vexi_log_file **out,
                                 vex_error *err) {
    mem_log *log = vexi_alloc(base->env, sizeof *log);
    if (log == NULL) {
        return vexi_no_memory(err, sizeof *log);
    }
    mem_blob *blob = NULL;
    vex_status status = blob_create(base->env, NULL, 0, &blob, err);
    if (status == VEX_OK) {
        blob->is_log = true;
        atomic_fetch_add(&blob->references, 1); /* the log's own */
        status = insert((mem_store *)base, name, blob, true, err);
        if (status != VEX_OK) {
            blob_release(base->env, blob);
        }
    }
    if (status != VEX_OK) {
        vexi_free(base->env, log);
        return status;
    }
    *log = (mem_log){.base = {.store = base}, .blob = blob};
    *out = &log->base;
    return VEX_OK;
}

static vex_status mem_log_append(vexi_log_file *base, const vexi_span *parts, size_t count,
                                 vex_error *err) {
    mem_log *log = (mem_log *)base;
    mem_store *store = (mem_store *)base->store;
    mem_blob *blob = log->blob;
    size_t size = 0;
    VEX_TRY(parts_size(parts, count, &size, err));
    pthread_mutex_lock(&store->mutex);
    size_t wanted;
    vex_status status = VEX_OK;
    if (__builtin_add_overflow(blob->size, size, &wanted)) {
        status = vexi_fail(err, VEX_LIMIT, "a log in memory is too large");
    } else {
        status = vexi_grow(store->base.env, (void **)&blob->data, &blob->capacity, blob->size,
                           wanted, 1, err);
    }
    if (status == VEX_OK && size > 0) {
        copy_parts(blob->data + blob->size, parts, count);
        blob->size = wanted;
    }
    pthread_mutex_unlock(&store->mutex);
    return status;
}

static vex_status mem_log_sync(vexi_log_file *base, vex_error *err) {
    (void)base;
    (void)err;
    return VEX_OK;
}

static void mem_log_close(vexi_log_file *base) {
    const vexi_env *env = base->store->env;
    blob_release(env, ((mem_log *)base)->blob);
    vexi_free(env, base);
}

/* ---- Lock, life ------------------------------------------------------------------------------ */

static vex_status mem_lock(vexi_store *base, const char *name, vex_error *err) {
    mem_store *store = (mem_store *)base;
    pthread_mutex_lock(&store->mutex);
    bool was_locked = store->locked;
    store->locked = true;
    pthread_mutex_unlock(&store->mutex);
    return was_locked ? vexi_fail(err, VEX_BUSY, "%s is held by this process", name) : VEX_OK;
}

static void mem_unlock(vexi_store *base) {
    mem_store *store = (mem_store *)base;
    pthread_mutex_lock(&store->mutex);
    store->locked = false;
    pthread_mutex_unlock(&store->mutex);
}

static void mem_destroy(vexi_store *base) {
    mem_store *store = (mem_store *)base;
    for (size_t i = 0; i < store->count; i++) {
        vexi_free(base->env, store->entries[i].name);
        blob_release(base->env, store->entries[i].blob);
    }
    vexi_free(base->env, store->entries);
    pthread_mutex_destroy(&store->mutex);
    vexi_free(base->env, store);
}

static const vexi_store_ops mem_ops = {
    .flags = VEXI_STORE_CAN_MAP | VEXI_STORE_CAN_LOG | VEXI_STORE_CAN_LOCK,
    .get = mem_get,
    .put = mem_put,
    .put_if_absent = mem_put_if_absent,
    .list = mem_list,
    .remove = mem_remove,
    .size = mem_size,
    .map = mem_map,
    .unmap = mem_unmap,
    .log_create = mem_log_create,
    .log_append = mem_log_append,
    .log_sync = mem_log_sync,
    .log_close = mem_log_close,
    .lock = mem_lock,
    .unlock = mem_unlock,
    .destroy = mem_destroy,
};

vex_status vexi_store_mem_create(const vexi_env *env, vexi_store **out, vex_error *err) {
    *out = NULL;
    mem_store *store = vexi_calloc(env, 1, sizeof *store);
    if (store == NULL) {
        return vexi_no_memory(err, sizeof *store);
    }
    store->base = (vexi_store){.ops = &mem_ops, .env = env};
    pthread_mutex_init(&store->mutex, NULL);
    *out = &store->base;
    return VEX_OK;
}
