/* Objects as files below a folder, durable and whole whatever moment the power fails.
 *
 * A put writes a temporary file in <root>/.tmp-put, syncs it, renames it to its place (or links
 * it, which fails if something is there: that is put-if-absent) and syncs the folder that the name
 * lies in. So:
 *   1. A name never shows a part of an object: its bytes are durable before the name is.
 *   2. When a call returns VEX_OK the name is durable, and so is every folder above it.
 *   3. Of racing put_if_absent calls, of any processes, link lets one win.
 *   4. What a crash leaves behind lies in .tmp-put alone. It is emptied when the lock is taken,
 *      for only then is it sure that nobody is writing there.
 *
 * One temporary folder, rather than temporary files beside their targets: other engines that list a
 * table never see them, and cleaning up is one listing instead of a walk through the whole lake.
 * The price is that a folder below the root cannot lie on another file system. Listings do not
 * follow links to folders, which may lead in circles.
 *
 * Failures. A put whose rename failed has changed nothing. A put whose folder sync failed reports
 * VEX_IO and may be there or not after a crash, as its contract says. A put_if_absent in that
 * state is VEX_UNKNOWN_OUTCOME, since its caller must not try other bytes under that name; and a
 * put_if_absent that meets an object syncs the folder before it says VEX_EXISTS, so that what the
 * caller then reads cannot vanish in a crash.
 *
 * Ranges of a get are read one after another: local readers map, and where they do not the page
 * cache's read-ahead serves neighbouring ranges. */
#include <stdio.h>

#include "store/store_file_internal.h"

enum { TEMPORARY_TRIES_MAX = 100 };

static const char temporary_folder[] = ".tmp-put";

typedef struct file_log {
    vexi_log_file base;
    vexi_disk_file *file;
    pthread_mutex_t mutex; /* one append at a time */
    atomic_bool failed;
    char name[]; /* for messages */
} file_log;

/* ---- Reading --------------------------------------------------------------------------------- */

static vex_status file_get(vexi_store *base, const char *name, const vexi_range *ranges,
                           size_t count, vex_error *err) {
    vexi_file_store *store = (vexi_file_store *)base;
    vexi_file_path path;
    vexi_disk_file *file = NULL;
    vex_status status = store->disk->ops->open(store->disk, vexi_file_name_path(store, name, &path),
                                               VEXI_DISK_READ, &file, err);
    for (size_t i = 0; status == VEX_OK && i < count; i++) {
        status = store->disk->ops->read_at(file, ranges[i].offset, ranges[i].target, ranges[i].size,
                                           err);
        if (status != VEX_OK) {
            status = vexi_prefix(err, status, "%s", path.text);
        }
    }
    if (file != NULL) {
        store->disk->ops->close(file);
    }
    return status;
}

static vex_status file_size_of(vexi_store *base, const char *name, uint64_t *out, vex_error *err) {
    vexi_file_store *store = (vexi_file_store *)base;
    vexi_file_path path;
    int64_t modified_us = 0;
    return store->disk->ops->file_size(store->disk, vexi_file_name_path(store, name, &path), out,
                                       &modified_us, err);
}

static vex_status file_map(vexi_store *base, const char *name, vexi_mapping *out, vex_error *err) {
    vexi_file_store *store = (vexi_file_store *)base;
    vexi_file_path path;
    return store->disk->ops->map(store->disk, vexi_file_name_path(store, name, &path), out, err);
}

static void file_unmap(vexi_store *base, vexi_mapping *mapping) {
    vexi_file_store *store = (vexi_file_store *)base;
    store->disk->ops->unmap(store->disk, mapping);
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Write `parts` into a new temporary file and sync it; `temporary` receives its path. */
static vex_status write_temporary(vexi_file_store *store, const vexi_span *parts, size_t count,
                                  vexi_file_path *temporary, vex_error *err) {
    const vexi_disk_ops *disk = store->disk->ops;
    vexi_disk_file *file = NULL;
    bool made = false;
    vex_status status = VEX_EXISTS;
    /* A name may be taken by another handle, or left over from a process that died. */
    for (int i = 0; i < TEMPORARY_TRIES_MAX && status == VEX_EXISTS; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/%016llx", temporary_folder,
                 (unsigned long long)atomic_fetch_add(&store->temporary_next, 1));
        vexi_file_name_path(store, name, temporary);
        status = disk->open(store->disk, temporary->text, VEXI_DISK_CREATE_NEW, &file, err);
        if (status == VEX_NOT_FOUND && !made) {
            /* Not synced: nothing that must last lies in it. */
            vexi_file_path folder;
            VEX_TRY(disk->make_folder(
                store->disk, vexi_file_name_path(store, temporary_folder, &folder), &made, err));
            made = true;
            status = VEX_EXISTS;
        }
    }
    if (status == VEX_EXISTS) {
        return vexi_fail(err, VEX_IO, "no free name for a temporary file in %s", temporary_folder);
    }
    VEX_TRY(status);
    status = disk->write(file, parts, count, err);
    if (status == VEX_OK) {
        status = disk->sync(file, err);
    }
    disk->close(file);
    if (status != VEX_OK) {
        (void)disk->unlink(store->disk, temporary->text, NULL);
    }
    return status;
}

static vex_status put_once(vexi_file_store *store, const char *name, const vexi_span *parts,
                           size_t count, vex_error *err) {
    const vexi_disk_ops *disk = store->disk->ops;
    VEX_TRY(vexi_file_ensure_folders(store, name, err));
    vexi_file_path temporary;
    vexi_file_path path;
    VEX_TRY(write_temporary(store, parts, count, &temporary, err));
    vex_status status =
        disk->rename(store->disk, temporary.text, vexi_file_name_path(store, name, &path), err);
    if (status != VEX_OK) {
        (void)disk->unlink(store->disk, temporary.text, NULL);
        return status;
    }
    return vexi_file_sync_folder(store, name, err);
}

/* Say so with the object's name, whichever call of the disk failed. */
static vex_status put_failed(const char *name, vex_status status, vex_error *err) {
    if (status == VEX_NOT_FOUND) {
        /* A folder went away again and again; to the caller of a put that is no "not found". */
        status = VEX_IO;
    }
    return vexi_prefix(err, status, "put %s", name);
}

static vex_status file_put(vexi_store *base, const char *name, const vexi_span *parts, size_t count,
                           vex_error *err) {
    vexi_file_store *store = (vexi_file_store *)base;
    vex_status status = put_once(store, name, parts, count, err);
    if (status == VEX_NOT_FOUND) {
        vexi_file_forget_folders(store);
        status = put_once(store, name, parts, count, err);
    }
    return status == VEX_OK ? VEX_OK : put_failed(name, status, err);
}

/* The answer to a put_if_absent that met something under its name. */
static vex_status report_existing(vexi_file_store *store, const char *name, vex_error *err) {
    vex_status status = vexi_file_sync_folder(store, name, err);
    if (status != VEX_OK) {
        return vexi_fail(err, VEX_UNKNOWN_OUTCOME, "%s is there but its folder could not be synced",
                         name);
    }
    return vexi_fail(err, VEX_EXISTS, "%s already exists", name);
}

static vex_status put_if_absent_once(vexi_file_store *store, const char *name,
                                     const vexi_span *parts, size_t count, vex_error *err) {
    const vexi_disk_ops *disk = store->disk->ops;
    vexi_file_path temporary;
    vexi_file_path path;
    vexi_file_name_path(store, name, &path);
    /* Spare the writing where the answer is clear already; link decides all the same. */
    uint64_t size = 0;
    int64_t modified_us = 0;
    if (disk->file_size(store->disk, path.text, &size, &modified_us, NULL) == VEX_OK) {
        return report_existing(store, name, err);
    }
    VEX_TRY(vexi_file_ensure_folders(store, name, err));
    VEX_TRY(write_temporary(store, parts, count, &temporary, err));
    vex_status status = disk->link(store->disk, temporary.text, path.text, err);
    vex_status look = VEX_OK;
    if (status != VEX_OK) {
        look = disk->file_size(store->disk, path.text, &size, &modified_us, NULL);
    }
    if (status == VEX_EXISTS) {
        status = look == VEX_OK ? report_existing(store, name, err)
                                : vexi_fail(err, VEX_INVALID, "%s is a folder of objects", name);
    } else if (status == VEX_IO && look != VEX_NOT_FOUND) {
        status = vexi_prefix(err, VEX_UNKNOWN_OUTCOME, "it is unknown whether %s was put", name);
    } else if (status == VEX_OK && vexi_file_sync_folder(store, name, err) != VEX_OK) {
        status =
            vexi_prefix(err, VEX_UNKNOWN_OUTCOME, "%s was put but may not survive a crash", name);
    }
    /* The second name of the object, or a loser's bytes; a leftover is harmless. */
    (void)disk->unlink(store->disk, temporary.text, NULL);
    return status;
}

static vex_status file_put_if_absent(vexi_store *base, const char *name, const vexi_span *parts,
                                     size_t count, vex_error *err) {
    vexi_file_store *store = (vexi_file_store *)base;
    vex_status status = put_if_absent_once(store, name, parts, count, err);
    if (status == VEX_NOT_FOUND) {
        vexi_file_forget_folders(store);
        status = put_if_absent_once(store, name, parts, count, err);
    }
    if (status == VEX_OK || status == VEX_EXISTS || status == VEX_UNKNOWN_OUTCOME) {
        return status;
    }
    return put_failed(name, status, err);
}

static vex_status file_remove(vexi_store *base, const char *name, vex_error *err) {
    vexi_file_store *store = (vexi_file_store *)base;
    vexi_file_path path;
    uint64_t size = 0;
    int64_t modified_us = 0;
    vex_status status = store->disk->ops->file_size(
        store->disk, vexi_file_name_path(store, name, &path), &size, &modified_us, err);
    if (status == VEX_OK) {
        status = store->disk->ops->unlink(store->disk, path.text, err);
    }
    if (status == VEX_NOT_FOUND) {
        return VEX_OK; /* also where a folder has that name: it is no object */
    }
    VEX_TRY(status);
    return vexi_file_sync_folder(store, name, err);
}

/* ---- Logs ------------------------------------------------------------------------------------ */

static vex_status open_log(vexi_file_store *store, const char *name, vexi_disk_file **file,
                           vex_error *err) {
    vexi_file_path path;
    VEX_TRY(vexi_file_ensure_folders(store, name, err));
    return store->disk->ops->open(store->disk, vexi_file_name_path(store, name, &path),
                                  VEXI_DISK_CREATE_NEW | VEXI_DISK_APPEND, file, err);
}

static vex_status file_log_create(vexi_store *base, const char *name, vexi_log_file **out,
                                  vex_error *err) {
    vexi_file_store *store = (vexi_file_store *)base;
    size_t name_size = strlen(name) + 1;
    file_log *log = vexi_alloc(base->env, sizeof *log + name_size);
    if (log == NULL) {
        return vexi_no_memory(err, sizeof *log + name_size);
    }
    log->base.store = base;
    log->file = NULL;
    atomic_init(&log->failed, false);
    memcpy(log->name, name, name_size);
    vex_status status = open_log(store, name, &log->file, err);
    if (status == VEX_NOT_FOUND) {
        vexi_file_forget_folders(store);
        status = open_log(store, name, &log->file, err);
    }
    if (status == VEX_OK) {
        status = store->disk->ops->sync(log->file, err);
        if (status == VEX_OK) {
            status = vexi_file_sync_folder(store, name, err);
        }
        if (status != VEX_OK) {
            vexi_file_path path;
            store->disk->ops->close(log->file);
            (void)store->disk->ops->unlink(store->disk, vexi_file_name_path(store, name, &path),
                                           NULL);
        }
    }
    if (status != VEX_OK) {
        vexi_free(base->env, log);
        return vexi_prefix(err, status, "create log %s", name);
    }
    pthread_mutex_init(&log->mutex, NULL);
    *out = &log->base;
    return VEX_OK;
}

/* After a failure the end of the file is unknown: more bytes behind it could never be read. */
static vex_status check_log(file_log *log, vex_error *err) {
    if (atomic_load(&log->failed)) {
        return vexi_fail(err, VEX_IO, "log %s failed before and takes no more", log->name);
    }
    return VEX_OK;
}

static vex_status fail_log(file_log *log, vex_status status, vex_error *err) {
    atomic_store(&log->failed, true);
    return vexi_prefix(err, status, "log %s", log->name);
}

static vex_status file_log_append(vexi_log_file *base, const vexi_span *parts, size_t count,
                                  vex_error *err) {
    file_log *log = (file_log *)base;
    vexi_file_store *store = (vexi_file_store *)base->store;
    pthread_mutex_lock(&log->mutex);
    vex_status status = check_log(log, err);
    if (status == VEX_OK) {
        status = store->disk->ops->write(log->file, parts, count, err);
        if (status != VEX_OK) {
            status = fail_log(log, status, err);
        }
    }
    pthread_mutex_unlock(&log->mutex);
    return status;
}

static vex_status file_log_sync(vexi_log_file *base, vex_error *err) {
    file_log *log = (file_log *)base;
    vexi_file_store *store = (vexi_file_store *)base->store;
    VEX_TRY(check_log(log, err));
    vex_status status = store->disk->ops->sync(log->file, err);
    return status == VEX_OK ? VEX_OK : fail_log(log, status, err);
}

static void file_log_close(vexi_log_file *base) {
    file_log *log = (file_log *)base;
    vexi_file_store *store = (vexi_file_store *)base->store;
    store->disk->ops->close(log->file);
    pthread_mutex_destroy(&log->mutex);
    vexi_free(base->store->env, log);
}

/* ---- Lock, life ------------------------------------------------------------------------------ */

/* Delete what writers before us left in the temporary folder. */
static vex_status remove_leftovers(vexi_file_store *store, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, store->base.env);
    vexi_listing listing = {0};
    vexi_file_path path;
    vex_status status = store->disk->ops->list_folder(
        store->disk, vexi_file_name_path(store, temporary_folder, &path), &arena, &listing, err);
    if (status == VEX_NOT_FOUND) {
        status = VEX_OK;
    }
    for (size_t i = 0; i < listing.count && status == VEX_OK; i++) {
        char name[VEXI_STORE_SEGMENT_SIZE_MAX + sizeof temporary_folder + 1];
        int size = snprintf(name, sizeof name, "%s/%s", temporary_folder, listing.entries[i].name);
        if (listing.entries[i].is_folder || size < 0 || (size_t)size >= sizeof name) {
            continue; /* not ours */
        }
        status =
            store->disk->ops->unlink(store->disk, vexi_file_name_path(store, name, &path), err);
        if (status == VEX_NOT_FOUND) {
            status = VEX_OK;
        }
    }
    vexi_arena_deinit(&arena);
    return status;
}

static vex_status file_lock(vexi_store *base, const char *name, vex_error *err) {
    vexi_file_store *store = (vexi_file_store *)base;
    VEX_TRY(vexi_file_ensure_folders(store, name, err));
    vexi_file_path path;
    vexi_disk_file *lock = NULL;
    VEX_TRY(
        store->disk->ops->lock(store->disk, vexi_file_name_path(store, name, &path), &lock, err));
    pthread_mutex_lock(&store->mutex);
    bool held = store->lock != NULL;
    if (!held) {
        store->lock = lock;
    }
    pthread_mutex_unlock(&store->mutex);
    if (held) {
        store->disk->ops->close(lock);
        return vexi_fail(err, VEX_INVALID, "%s: this handle holds another lock", name);
    }
    return remove_leftovers(store, err);
}

static void file_unlock(vexi_store *base) {
    vexi_file_store *store = (vexi_file_store *)base;
    pthread_mutex_lock(&store->mutex);
    vexi_disk_file *lock = store->lock;
    store->lock = NULL;
    pthread_mutex_unlock(&store->mutex);
    if (lock != NULL) {
        store->disk->ops->close(lock);
    }
}

static void file_destroy(vexi_store *base) {
    vexi_file_store *store = (vexi_file_store *)base;
    vexi_file_forget_folders(store);
    vexi_free(base->env, store->known);
    file_unlock(base);
    pthread_mutex_destroy(&store->mutex);
    vexi_free(base->env, store->root);
    vexi_free(base->env, store);
}

static const vexi_store_ops file_ops = {
    .flags = VEXI_STORE_CAN_MAP | VEXI_STORE_CAN_LOG | VEXI_STORE_CAN_LOCK,
    .get = file_get,
    .put = file_put,
    .put_if_absent = file_put_if_absent,
    .list = vexi_file_list,
    .remove = file_remove,
    .size = file_size_of,
    .map = file_map,
    .unmap = file_unmap,
    .log_create = file_log_create,
    .log_append = file_log_append,
    .log_sync = file_log_sync,
    .log_close = file_log_close,
    .lock = file_lock,
    .unlock = file_unlock,
    .destroy = file_destroy,
};

static vex_status check_root(const vexi_env *env, vexi_disk *disk, const char *root,
                             vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_listing listing;
    vex_status status = disk->ops->list_folder(disk, root, &arena, &listing, err);
    vexi_arena_deinit(&arena);
    return status;
}

vex_status vexi_store_file_create(const vexi_env *env, vexi_disk *disk, const char *root,
                                  bool create, vexi_store **out, vex_error *err) {
    *out = NULL;
    size_t size = strlen(root);
    while (size > 1 && root[size - 1] == '/') {
        size--;
    }
    if (size == 0 || size > VEXI_FILE_ROOT_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "the path of a store has 1 to %d bytes",
                         VEXI_FILE_ROOT_SIZE_MAX);
    }
    vexi_file_store *store = vexi_calloc(env, 1, sizeof *store);
    char *copy = vexi_alloc(env, size + 1);
    if (store == NULL || copy == NULL) {
        vexi_free(env, store);
        vexi_free(env, copy);
        return vexi_no_memory(err, size + 1);
    }
    memcpy(copy, root, size);
    copy[size] = '\0';
    vex_status status =
        create ? vexi_file_make_root(disk, copy, err) : check_root(env, disk, copy, err);
    if (status != VEX_OK) {
        vexi_free(env, store);
        vexi_free(env, copy);
        return status;
    }
    store->base = (vexi_store){.ops = &file_ops, .env = env};
    store->disk = disk;
    store->root = copy;
    atomic_init(&store->temporary_next, vexi_random_u64(env));
    pthread_mutex_init(&store->mutex, NULL);
    *out = &store->base;
    return VEX_OK;
}
