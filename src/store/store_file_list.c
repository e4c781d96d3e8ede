/* Listing of a file store: a walk through the folders that can hold names with the prefix.
 *
 * Entries are gathered in any order and sorted at the end, since a folder's names do not sort where
 * the folder does ("a-b" < "a/x" < "a0"). Only names that the store would take are listed, so that
 * temporary files and what other programs leave stay out. Sizes are asked only of what is listed.
 */
#include <stdlib.h>

#include "store/store_file_internal.h"

typedef struct file_walk {
    vexi_file_store *store;
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
    vexi_file_path path;
    size_t folder = size == 0 ? 0 : size - 1; /* without its '/' */
    vex_status status = walk->store->disk->ops->list_folder(
        walk->store->disk, vexi_file_path_of(walk->store, walk->name, folder, &path), scratch, out,
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
    vexi_file_path path;
    uint64_t size_bytes = 0;
    int64_t modified_us = 0;
    vex_status status = walk->store->disk->ops->file_size(
        walk->store->disk, vexi_file_name_path(walk->store, walk->name, &path), &size_bytes,
        &modified_us, walk->err);
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

vex_status vexi_file_list(vexi_store *base, const char *prefix, const char *after, bool by_folder,
                          vexi_arena *arena, vexi_listing *out, vex_error *err) {
    vexi_file_store *store = (vexi_file_store *)base;
    file_walk walk = {.store = store,
                      .arena = arena,
                      .prefix = prefix,
                      .prefix_size = strlen(prefix),
                      .after = after,
                      .by_folder = by_folder,
                      .err = err};
    /* Begin at the folder that the prefix lies in; the rest of the prefix filters its entries. */
    size_t start = vexi_file_folder_size(prefix);
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
