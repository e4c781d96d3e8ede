/* The folders of a file store: making them durably, once per handle.
 *
 * Folders are made at need, each with its parent synced, and remembered per handle as durable: that
 * a folder is there does not prove that it will be after a crash, as its maker may have been killed
 * between mkdir and the parent's sync. The first put of a handle into a folder thus costs a few
 * syncs more. A folder that somebody deletes meanwhile is made again. */
#include "store/store_file_internal.h"

enum { KNOWN_FOLDERS_MAX = 4096 }; /* beyond it they are forgotten and synced anew */

const char *vexi_file_path_of(const vexi_file_store *store, const char *name, size_t name_size,
                              vexi_file_path *path) {
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

const char *vexi_file_name_path(const vexi_file_store *store, const char *name,
                                vexi_file_path *path) {
    return vexi_file_path_of(store, name, strlen(name), path);
}

size_t vexi_file_folder_size(const char *name) {
    const char *slash = strrchr(name, '/');
    return slash == NULL ? 0 : (size_t)(slash - name);
}

/* Where `folder` stands in the sorted list, or would. Call with the mutex held. */
static size_t known_position(const vexi_file_store *store, const char *folder, size_t size,
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

static bool is_known(vexi_file_store *store, const char *folder, size_t size) {
    bool found = false;
    pthread_mutex_lock(&store->mutex);
    (void)known_position(store, folder, size, &found);
    pthread_mutex_unlock(&store->mutex);
    return found;
}

static void forget_folders_locked(vexi_file_store *store) {
    for (size_t i = 0; i < store->known_count; i++) {
        vexi_free(store->base.env, store->known[i]);
    }
    store->known_count = 0;
}

void vexi_file_forget_folders(vexi_file_store *store) {
    pthread_mutex_lock(&store->mutex);
    forget_folders_locked(store);
    pthread_mutex_unlock(&store->mutex);
}

/* Remember a folder as durable. Without memory it is not remembered, which costs syncs alone. */
static void remember_folder(vexi_file_store *store, const char *folder, size_t size) {
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

vex_status vexi_file_ensure_folders(vexi_file_store *store, const char *name, vex_error *err) {
    size_t size = vexi_file_folder_size(name);
    if (size == 0 || is_known(store, name, size)) {
        return VEX_OK;
    }
    vexi_file_path path;
    size_t parent = 0;
    for (size_t i = 1; i <= size; i++) {
        if (i < size && name[i] != '/') {
            continue;
        }
        if (!is_known(store, name, i)) {
            bool made = false;
            VEX_TRY(store->disk->ops->make_folder(
                store->disk, vexi_file_path_of(store, name, i, &path), &made, err));
            VEX_TRY(store->disk->ops->sync_folder(
                store->disk, vexi_file_path_of(store, name, parent, &path), err));
            remember_folder(store, name, i);
        }
        parent = i;
    }
    return VEX_OK;
}

vex_status vexi_file_sync_folder(vexi_file_store *store, const char *name, vex_error *err) {
    vexi_file_path path;
    return store->disk->ops->sync_folder(
        store->disk, vexi_file_path_of(store, name, vexi_file_folder_size(name), &path), err);
}

/* The folder that a path lies in: "" is the working folder. */
static void parent_path(const char *path, vexi_file_path *out) {
    size_t size = vexi_file_folder_size(path);
    if (size == 0 && path[0] == '/') {
        size = 1;
    }
    memcpy(out->text, path, size);
    out->text[size] = '\0';
}

/* Make the root and what is missing above it, each durable before the next. Folders that were there
 * are synced too, for one who made them may have died before its sync; but they may belong to
 * others and not even be readable, so that sync may fail. */
vex_status vexi_file_make_root(vexi_disk *disk, const char *path, vex_error *err) {
    vexi_file_path parent;
    parent_path(path, &parent);
    bool has_parent = parent.text[0] != '\0' && strlen(parent.text) < strlen(path);
    bool made = false;
    vex_status status = disk->ops->make_folder(disk, path, &made, err);
    if (has_parent && status == VEX_NOT_FOUND) {
        VEX_TRY(vexi_file_make_root(disk, parent.text, err));
        status = disk->ops->make_folder(disk, path, &made, err);
    } else if (has_parent && status == VEX_OK) {
        (void)vexi_file_make_root(disk, parent.text, NULL);
    }
    VEX_TRY(status);
    status = disk->ops->sync_folder(disk, parent.text, err);
    return made ? status : VEX_OK;
}
