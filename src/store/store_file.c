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
 * Folders are made at need, each with its parent synced, and remembered per handle as durable: that
 * a folder is there does not prove that it will be after a crash, as its maker may have been killed
 * between mkdir and the parent's sync. The first put of a handle into a folder thus costs a few
 * syncs more. A folder that somebody deletes meanwhile is made again.
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
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "store/disk.h"

enum {
    PATH_SIZE_MAX = 4096,
    ROOT_SIZE_MAX = PATH_SIZE_MAX - VEXI_STORE_NAME_SIZE_MAX - 64,
    KNOWN_FOLDERS_MAX = 4096, /* beyond it they are forgotten and synced anew */
    TEMPORARY_TRIES_MAX = 100
};

static const char temporary_folder[] = ".tmp-put";

typedef struct file_store {
    vexi_store base;
    vexi_disk *disk; /* borrowed */
    char *root;      /* immutable, without trailing '/' unless it is "/" */
    atomic_uint_fast64_t temporary_next;
    pthread_mutex_t mutex;
    char **known; /* under mutex: folders known to be durable, below root, sorted */
    size_t known_count;
    size_t known_capacity;
    vexi_disk_file *lock; /* under mutex */
} file_store;

typedef struct file_log {
    vexi_log_file base;
    vexi_disk_file *file;
    pthread_mutex_t mutex; /* one append at a time */
    atomic_bool failed;
    char name[]; /* for messages */
} file_log;

/* ---- Paths ----------------------------------------------------------------------------------- */

typedef struct file_path {
    char text[PATH_SIZE_MAX];
} file_path;

/* Names were checked by the wrappers, so that the path fits and stays below the root. */
static const char *path_of(const file_store *store, const char *name, size_t name_size,
                           file_path *path) {
    size_t root_size = strlen(store->root);
    VEX_ASSERT(root_size + 1 + name_size < sizeof path->text);
    memcpy(path->text, store->root, root_size);
    size_t size = root_size;
    if (name_size > 0) {
        if (size > 0 && store->root[size - 1] != '/') {
            path->text[size++] = '/';
        }
        memcpy(path->text + size, name, name_size);
        size += name_size;
    }
    path->text[size] = '\0';
    return path->text;
}

static const char *name_path(const file_store *store, const char *name, file_path *path) {
    return path_of(store, name, strlen(name), path);
}

/* Size of the part of a name before its last '/', 0 if there is none. */
static size_t folder_size(const char *name) {
    const char *slash = strrchr(name, '/');
    return slash == NULL ? 0 : (size_t)(slash - name);
}

/* The folder that a path lies in: "" is the working folder. */
static void parent_path(const char *path, file_path *out) {
    size_t size = folder_size(path);
    if (size == 0 && path[0] == '/') {
        size = 1;
    }
    memcpy(out->text, path, size);
    out->text[size] = '\0';
}

/* ---- Folders --------------------------------------------------------------------------------- */

/* Where `folder` stands in the sorted list, or would. Call with the mutex held. */
static size_t known_position(const file_store *store, const char *folder, size_t size,
                             bool *found) {
    size_t low = 0;
    size_t high = store->known_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strncmp(store->known[middle], folder, size);
        if (order == 0 && store->known[middle][size] != '\0') {
            order = 1;
        }
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    *found = false;
    return low;
}

static bool is_known(file_store *store, const char *folder, size_t size) {
    bool found = false;
    pthread_mutex_lock(&store->mutex);
    (void)known_position(store, folder, size, &found);
    pthread_mutex_unlock(&store->mutex);
    return found;
}

static void forget_folders_locked(file_store *store) {
    for (size_t i = 0; i < store->known_count; i++) {
        vexi_free(store->base.env, store->known[i]);
    }
    store->known_count = 0;
}

static void forget_folders(file_store *store) {
    pthread_mutex_lock(&store->mutex);
    forget_folders_locked(store);
    pthread_mutex_unlock(&store->mutex);
}

/* Remember a folder as durable. Without memory it is not remembered, which costs syncs alone. */
static void remember_folder(file_store *store, const char *folder, size_t size) {
    char *copy = vexi_alloc(store->base.env, size + 1);
    if (copy == NULL) {
        return;
    }
    memcpy(copy, folder, size);
    copy[size] = '\0';
    pthread_mutex_lock(&store->mutex);
    if (store->known_count >= KNOWN_FOLDERS_MAX) {
        forget_folders_locked(store);
    }
    bool found = false;
    size_t position = known_position(store, folder, size, &found);
    if (found || vexi_grow(store->base.env, (void **)&store->known, &store->known_capacity,
                           store->known_count, store->known_count + 1, sizeof *store->known,
                           NULL) != VEX_OK) {
        pthread_mutex_unlock(&store->mutex);
        vexi_free(store->base.env, copy);
        return;
    }
    memmove(store->known + position + 1, store->known + position,
            (store->known_count - position) * sizeof *store->known);
    store->known[position] = copy;
    store->known_count++;
    pthread_mutex_unlock(&store->mutex);
}

/* Make every folder on the way to `name`, durably. */
static vex_status ensure_folders(file_store *store, const char *name, vex_error *err) {
    size_t size = folder_size(name);
    if (size == 0 || is_known(store, name, size)) {
        return VEX_OK;
    }
    file_path path;
    size_t parent = 0;
    for (size_t i = 1; i <= size; i++) {
        if (i < size && name[i] != '/') {
            continue;
        }
        if (!is_known(store, name, i)) {
            bool made = false;
            VEX_TRY(store->disk->ops->make_folder(store->disk, path_of(store, name, i, &path),
                                                  &made, err));
            VEX_TRY(store->disk->ops->sync_folder(store->disk, path_of(store, name, parent, &path),
                                                  err));
            remember_folder(store, name, i);
        }
        parent = i;
    }
    return VEX_OK;
}

static vex_status sync_folder_of(file_store *store, const char *name, vex_error *err) {
    file_path path;
    return store->disk->ops->sync_folder(store->disk,
                                         path_of(store, name, folder_size(name), &path), err);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static vex_status file_get(vexi_store *base, const char *name, const vexi_range *ranges,
                           size_t count, vex_error *err) {
    file_store *store = (file_store *)base;
    file_path path;
    vexi_disk_file *file = NULL;
    vex_status status = store->disk->ops->open(store->disk, name_path(store, name, &path),
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
    file_store *store = (file_store *)base;
    file_path path;
    int64_t modified_us = 0;
    return store->disk->ops->file_size(store->disk, name_path(store, name, &path), out,
                                       &modified_us, err);
}

static vex_status file_map(vexi_store *base, const char *name, vexi_mapping *out, vex_error *err) {
    file_store *store = (file_store *)base;
    file_path path;
    return store->disk->ops->map(store->disk, name_path(store, name, &path), out, err);
}

static void file_unmap(vexi_store *base, vexi_mapping *mapping) {
    file_store *store = (file_store *)base;
    store->disk->ops->unmap(store->disk, mapping);
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Write `parts` into a new temporary file and sync it; `temporary` receives its path. */
static vex_status write_temporary(file_store *store, const vexi_span *parts, size_t count,
                                  file_path *temporary, vex_error *err) {
    const vexi_disk_ops *disk = store->disk->ops;
    vexi_disk_file *file = NULL;
    bool made = false;
    vex_status status = VEX_EXISTS;
    /* A name may be taken by another handle, or left over from a process that died. */
    for (int i = 0; i < TEMPORARY_TRIES_MAX && status == VEX_EXISTS; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/%016llx", temporary_folder,
                 (unsigned long long)atomic_fetch_add(&store->temporary_next, 1));
        name_path(store, name, temporary);
        status = disk->open(store->disk, temporary->text, VEXI_DISK_CREATE_NEW, &file, err);
        if (status == VEX_NOT_FOUND && !made) {
            /* Not synced: nothing that must last lies in it. */
            file_path folder;
            VEX_TRY(disk->make_folder(store->disk, name_path(store, temporary_folder, &folder),
                                      &made, err));
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

static vex_status put_once(file_store *store, const char *name, const vexi_span *parts,
                           size_t count, vex_error *err) {
    const vexi_disk_ops *disk = store->disk->ops;
    VEX_TRY(ensure_folders(store, name, err));
    file_path temporary;
    file_path path;
    VEX_TRY(write_temporary(store, parts, count, &temporary, err));
    vex_status status =
        disk->rename(store->disk, temporary.text, name_path(store, name, &path), err);
    if (status != VEX_OK) {
        (void)disk->unlink(store->disk, temporary.text, NULL);
        return status;
    }
    return sync_folder_of(store, name, err);
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
    file_store *store = (file_store *)base;
    vex_status status = put_once(store, name, parts, count, err);
    if (status == VEX_NOT_FOUND) {
        forget_folders(store);
        status = put_once(store, name, parts, count, err);
    }
    return status == VEX_OK ? VEX_OK : put_failed(name, status, err);
}

/* The answer to a put_if_absent that met something under its name. */
static vex_status report_existing(file_store *store, const char *name, vex_error *err) {
    vex_status status = sync_folder_of(store, name, err);
    if (status != VEX_OK) {
        return vexi_fail(err, VEX_UNKNOWN_OUTCOME, "%s is there but its folder could not be synced",
                         name);
    }
    return vexi_fail(err, VEX_EXISTS, "%s already exists", name);
}

static vex_status put_if_absent_once(file_store *store, const char *name, const vexi_span *parts,
                                     size_t count, vex_error *err) {
    const vexi_disk_ops *disk = store->disk->ops;
    file_path temporary;
    file_path path;
    name_path(store, name, &path);
    /* Spare the writing where the answer is clear already; link decides all the same. */
    uint64_t size = 0;
    int64_t modified_us = 0;
    if (disk->file_size(store->disk, path.text, &size, &modified_us, NULL) == VEX_OK) {
        return report_existing(store, name, err);
    }
    VEX_TRY(ensure_folders(store, name, err));
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
    } else if (status == VEX_OK && sync_folder_of(store, name, err) != VEX_OK) {
        status =
            vexi_prefix(err, VEX_UNKNOWN_OUTCOME, "%s was put but may not survive a crash", name);
    }
    /* The second name of the object, or a loser's bytes; a leftover is harmless. */
    (void)disk->unlink(store->disk, temporary.text, NULL);
    return status;
}

static vex_status file_put_if_absent(vexi_store *base, const char *name, const vexi_span *parts,
                                     size_t count, vex_error *err) {
    file_store *store = (file_store *)base;
    vex_status status = put_if_absent_once(store, name, parts, count, err);
    if (status == VEX_NOT_FOUND) {
        forget_folders(store);
        status = put_if_absent_once(store, name, parts, count, err);
    }
    if (status == VEX_OK || status == VEX_EXISTS || status == VEX_UNKNOWN_OUTCOME) {
        return status;
    }
    return put_failed(name, status, err);
}

static vex_status file_remove(vexi_store *base, const char *name, vex_error *err) {
    file_store *store = (file_store *)base;
    file_path path;
    uint64_t size = 0;
    int64_t modified_us = 0;
    vex_status status = store->disk->ops->file_size(store->disk, name_path(store, name, &path),
                                                    &size, &modified_us, err);
    if (status == VEX_OK) {
        status = store->disk->ops->unlink(store->disk, path.text, err);
    }
    if (status == VEX_NOT_FOUND) {
        return VEX_OK; /* also where a folder has that name: it is no object */
    }
    VEX_TRY(status);
    return sync_folder_of(store, name, err);
}

/* ---- Listing --------------------------------------------------------------------------------- */

typedef struct file_walk {
    file_store *store;
    vexi_arena *arena; /* the caller's: names that are kept */
    const char *prefix;
    size_t prefix_size;
    const char *after; /* may be NULL */
    bool by_folder;
    vexi_list_entry *entries; /* by env */
    size_t count;
    size_t capacity;
    char name[VEXI_STORE_NAME_SIZE_MAX + 2]; /* the name under way, extended by the recursion */
    vex_error *err;
} file_walk;

static vex_status walk_keep(file_walk *walk, uint64_t size_bytes, int64_t modified_us,
                            bool is_folder) {
    const vexi_env *env = walk->store->base.env;
    VEX_TRY(vexi_grow(env, (void **)&walk->entries, &walk->capacity, walk->count, walk->count + 1,
                      sizeof *walk->entries, walk->err));
    char *name = vexi_arena_copy(walk->arena, walk->name, strlen(walk->name));
    if (name == NULL) {
        return vexi_no_memory(walk->err, strlen(walk->name) + 1);
    }
    walk->entries[walk->count++] = (vexi_list_entry){
        .name = name, .size_bytes = size_bytes, .modified_us = modified_us, .is_folder = is_folder};
    return VEX_OK;
}

/* Put an entry's name behind the first `size` bytes of walk->name; false if the whole is no name
 * of an object, as a temporary file's or another engine's may be. */
static bool walk_enter(file_walk *walk, size_t size, const vexi_list_entry *entry,
                       size_t *out_size) {
    size_t entry_size = strlen(entry->name);
    if (size + entry_size > VEXI_STORE_NAME_SIZE_MAX) {
        return false;
    }
    memcpy(walk->name + size, entry->name, entry_size + 1);
    if (!vexi_store_name_valid(walk->name)) {
        return false;
    }
    size += entry_size;
    if (entry->is_folder) {
        walk->name[size++] = '/';
        walk->name[size] = '\0';
    }
    *out_size = size;
    return true;
}

static vex_status walk_list(file_walk *walk, size_t size, vexi_arena *scratch, vexi_listing *out) {
    file_path path;
    size_t folder = size == 0 ? 0 : size - 1; /* without its '/' */
    vex_status status = walk->store->disk->ops->list_folder(
        walk->store->disk, path_of(walk->store, walk->name, folder, &path), scratch, out,
        walk->err);
    /* Absent, or gone since it was listed. */
    return status == VEX_NOT_FOUND ? VEX_OK : status;
}

/* Whether any object lies below the folder that the first `size` bytes of walk->name name. */
static vex_status walk_has_object(file_walk *walk, size_t size, bool *out) {
    vexi_arena scratch;
    vexi_arena_init(&scratch, walk->store->base.env);
    vexi_listing listing = {0};
    vex_status status = walk_list(walk, size, &scratch, &listing);
    /* Files first: most folders answer without descending. */
    for (size_t pass = 0; pass < 2 && status == VEX_OK && !*out; pass++) {
        for (size_t i = 0; i < listing.count && status == VEX_OK && !*out; i++) {
            size_t below = 0;
            if (listing.entries[i].is_folder == (pass == 1) &&
                walk_enter(walk, size, &listing.entries[i], &below)) {
                if (pass == 0) {
                    *out = true;
                } else {
                    status = walk_has_object(walk, below, out);
                }
            }
        }
    }
    walk->name[size] = '\0';
    vexi_arena_deinit(&scratch);
    return status;
}

static vex_status walk_file(file_walk *walk) {
    if (walk->after != NULL && strcmp(walk->name, walk->after) <= 0) {
        return VEX_OK;
    }
    file_path path;
    uint64_t size_bytes = 0;
    int64_t modified_us = 0;
    vex_status status = walk->store->disk->ops->file_size(walk->store->disk,
                                                          name_path(walk->store, walk->name, &path),
                                                          &size_bytes, &modified_us, walk->err);
    if (status == VEX_NOT_FOUND) {
        return VEX_OK; /* deleted since it was listed, or neither file nor folder */
    }
    VEX_TRY(status);
    return walk_keep(walk, size_bytes, modified_us, false);
}

/* List the folder that the first `size` bytes of walk->name name ("" or ending with '/'), and the
 * folders below it unless by_folder. Depth is bounded by the size of a name. */
static vex_status walk_folder(file_walk *walk, size_t size) {
    vexi_arena scratch;
    vexi_arena_init(&scratch, walk->store->base.env);
    vexi_listing listing = {0};
    vex_status status = walk_list(walk, size, &scratch, &listing);
    for (size_t i = 0; i < listing.count && status == VEX_OK; i++) {
        size_t below = 0;
        if (!walk_enter(walk, size, &listing.entries[i], &below)) {
            continue;
        }
        if (strncmp(walk->name, walk->prefix, walk->prefix_size) != 0) {
            continue;
        }
        if (!listing.entries[i].is_folder) {
            status = walk_file(walk);
        } else if (walk->by_folder) {
            bool has_object = false;
            if (walk->after == NULL || strcmp(walk->name, walk->after) > 0) {
                status = walk_has_object(walk, below, &has_object);
            }
            if (status == VEX_OK && has_object) {
                status = walk_keep(walk, 0, 0, true);
            }
        } else if (walk->after == NULL || strncmp(walk->name, walk->after, below) >= 0) {
            /* Else every name below sorts before `after`. */
            status = walk_folder(walk, below);
        }
    }
    walk->name[size] = '\0';
    vexi_arena_deinit(&scratch);
    return status;
}

static int compare_entries(const void *a, const void *b) {
    return strcmp(((const vexi_list_entry *)a)->name, ((const vexi_list_entry *)b)->name);
}

static vex_status file_list(vexi_store *base, const char *prefix, const char *after, bool by_folder,
                            vexi_arena *arena, vexi_listing *out, vex_error *err) {
    file_store *store = (file_store *)base;
    file_walk walk = {.store = store,
                      .arena = arena,
                      .prefix = prefix,
                      .prefix_size = strlen(prefix),
                      .after = after,
                      .by_folder = by_folder,
                      .err = err};
    /* Begin at the folder that the prefix lies in; the rest of the prefix filters its entries. */
    size_t start = folder_size(prefix);
    start = start == 0 ? 0 : start + 1;
    memcpy(walk.name, prefix, start);
    vex_status status = walk_folder(&walk, start);
    if (status == VEX_OK && walk.count > 0) {
        qsort(walk.entries, walk.count, sizeof *walk.entries, compare_entries);
        out->entries = vexi_arena_array(arena, walk.count, sizeof *walk.entries);
        if (out->entries == NULL) {
            status = vexi_no_memory(err, walk.count * sizeof *walk.entries);
        } else {
            memcpy(out->entries, walk.entries, walk.count * sizeof *walk.entries);
            out->count = walk.count;
        }
    }
    vexi_free(base->env, walk.entries);
    return status;
}

/* ---- Logs ------------------------------------------------------------------------------------ */

static vex_status open_log(file_store *store, const char *name, vexi_disk_file **file,
                           vex_error *err) {
    file_path path;
    VEX_TRY(ensure_folders(store, name, err));
    return store->disk->ops->open(store->disk, name_path(store, name, &path),
                                  VEXI_DISK_CREATE_NEW | VEXI_DISK_APPEND, file, err);
}

static vex_status file_log_create(vexi_store *base, const char *name, vexi_log_file **out,
                                  vex_error *err) {
    file_store *store = (file_store *)base;
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
        forget_folders(store);
        status = open_log(store, name, &log->file, err);
    }
    if (status == VEX_OK) {
        status = store->disk->ops->sync(log->file, err);
        if (status == VEX_OK) {
            status = sync_folder_of(store, name, err);
        }
        if (status != VEX_OK) {
            file_path path;
            store->disk->ops->close(log->file);
            (void)store->disk->ops->unlink(store->disk, name_path(store, name, &path), NULL);
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
    file_store *store = (file_store *)base->store;
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
    file_store *store = (file_store *)base->store;
    VEX_TRY(check_log(log, err));
    vex_status status = store->disk->ops->sync(log->file, err);
    return status == VEX_OK ? VEX_OK : fail_log(log, status, err);
}

static void file_log_close(vexi_log_file *base) {
    file_log *log = (file_log *)base;
    file_store *store = (file_store *)base->store;
    store->disk->ops->close(log->file);
    pthread_mutex_destroy(&log->mutex);
    vexi_free(base->store->env, log);
}

/* ---- Lock, life ------------------------------------------------------------------------------ */

/* Delete what writers before us left in the temporary folder. */
static vex_status remove_leftovers(file_store *store, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, store->base.env);
    vexi_listing listing = {0};
    file_path path;
    vex_status status = store->disk->ops->list_folder(
        store->disk, name_path(store, temporary_folder, &path), &arena, &listing, err);
    if (status == VEX_NOT_FOUND) {
        status = VEX_OK;
    }
    for (size_t i = 0; i < listing.count && status == VEX_OK; i++) {
        char name[VEXI_STORE_SEGMENT_SIZE_MAX + sizeof temporary_folder + 1];
        int size = snprintf(name, sizeof name, "%s/%s", temporary_folder, listing.entries[i].name);
        if (listing.entries[i].is_folder || size < 0 || (size_t)size >= sizeof name) {
            continue; /* not ours */
        }
        status = store->disk->ops->unlink(store->disk, name_path(store, name, &path), err);
        if (status == VEX_NOT_FOUND) {
            status = VEX_OK;
        }
    }
    vexi_arena_deinit(&arena);
    return status;
}

static vex_status file_lock(vexi_store *base, const char *name, vex_error *err) {
    file_store *store = (file_store *)base;
    VEX_TRY(ensure_folders(store, name, err));
    file_path path;
    vexi_disk_file *lock = NULL;
    VEX_TRY(store->disk->ops->lock(store->disk, name_path(store, name, &path), &lock, err));
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
    file_store *store = (file_store *)base;
    pthread_mutex_lock(&store->mutex);
    vexi_disk_file *lock = store->lock;
    store->lock = NULL;
    pthread_mutex_unlock(&store->mutex);
    if (lock != NULL) {
        store->disk->ops->close(lock);
    }
}

static void file_destroy(vexi_store *base) {
    file_store *store = (file_store *)base;
    forget_folders(store);
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
    .list = file_list,
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

/* Make the root and what is missing above it, each durable before the next. Folders that were there
 * are synced too, for one who made them may have died before its sync; but they may belong to
 * others and not even be readable, so that sync may fail. */
static vex_status make_root(vexi_disk *disk, const char *path, vex_error *err) {
    file_path parent;
    parent_path(path, &parent);
    bool has_parent = parent.text[0] != '\0' && strlen(parent.text) < strlen(path);
    bool made = false;
    vex_status status = disk->ops->make_folder(disk, path, &made, err);
    if (has_parent && status == VEX_NOT_FOUND) {
        VEX_TRY(make_root(disk, parent.text, err));
        status = disk->ops->make_folder(disk, path, &made, err);
    } else if (has_parent && status == VEX_OK) {
        (void)make_root(disk, parent.text, NULL);
    }
    VEX_TRY(status);
    status = disk->ops->sync_folder(disk, parent.text, err);
    return made ? status : VEX_OK;
}

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
    if (size == 0 || size > ROOT_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "the path of a store has 1 to %d bytes", ROOT_SIZE_MAX);
    }
    file_store *store = vexi_calloc(env, 1, sizeof *store);
    char *copy = vexi_alloc(env, size + 1);
    if (store == NULL || copy == NULL) {
        vexi_free(env, store);
        vexi_free(env, copy);
        return vexi_no_memory(err, size + 1);
    }
    memcpy(copy, root, size);
    copy[size] = '\0';
    vex_status status = create ? make_root(disk, copy, err) : check_root(env, disk, copy, err);
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
