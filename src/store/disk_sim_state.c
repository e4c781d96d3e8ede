/* The simulated disk's files and folders, and what a crash leaves of them. */
#include "base/random.h"
#include "store/disk_sim_internal.h"

enum { SECTOR_SIZE = 512, NAME_MAX_SIZE = 255 };

/* ---- Randomness ------------------------------------------------------------------------------ */

size_t vexi_sim_random_below(vexi_sim_disk *disk, size_t bound) {
    return (size_t)(vexi_random_next(&disk->random) % bound);
}

/* ---- Bytes ----------------------------------------------------------------------------------- */

vex_status vexi_sim_extend_file(vexi_sim_disk *disk, vexi_sim_node *node, size_t size,
                                vex_error *err) {
    const vexi_env *env = disk->base.env;
    vexi_sim_bytes *seen = &node->seen;
    VEX_TRY(vexi_grow(env, (void **)&node->kept.data, &node->kept.capacity, node->kept.size, size,
                      1, err));
    VEX_TRY(vexi_grow(env, (void **)&seen->data, &seen->capacity, seen->size, size, 1, err));
    if (size > seen->size) {
        memset(seen->data + seen->size, 0, size - seen->size);
        seen->size = size;
    }
    return VEX_OK;
}

void vexi_sim_keep_bytes(vexi_sim_node *node, size_t start, size_t end) {
    if (end > node->kept.size) {
        memset(node->kept.data + node->kept.size, 0, end - node->kept.size);
        node->kept.size = end;
    }
    if (end > start) {
        memcpy(node->kept.data + start, node->seen.data + start, end - start);
    }
}

void vexi_sim_resolve_file(vexi_sim_disk *disk, vexi_sim_node *node) {
    for (size_t i = 0; i < node->extent_count; i++) {
        vexi_sim_extent extent = node->extents[i];
        size_t size = extent.end - extent.start;
        switch (vexi_sim_random_below(disk, 3)) {
        case 0: /* lost */
            break;
        case 1:
            vexi_sim_keep_bytes(node, extent.start, extent.end);
            break;
        default: { /* torn */
            size_t end = extent.start + vexi_sim_random_below(disk, size + 1);
            bool holes = vexi_sim_random_below(disk, 2) == 0;
            for (size_t at = extent.start; at < end;) {
                size_t stop = (at / SECTOR_SIZE + 1) * SECTOR_SIZE;
                stop = stop < end ? stop : end;
                if (!holes || vexi_sim_random_below(disk, 2) == 0) {
                    vexi_sim_keep_bytes(node, at, stop);
                }
                at = stop;
            }
            break;
        }
        }
    }
    node->extent_count = 0;
}

/* ---- Nodes and entries ----------------------------------------------------------------------- */

vexi_sim_node *vexi_sim_node_create(vexi_sim_disk *disk, bool is_folder) {
    vexi_sim_node *node = vexi_calloc(disk->base.env, 1, sizeof *node);
    if (node != NULL) {
        node->is_folder = is_folder;
        node->modified_us = vexi_wall_us(disk->base.env);
        node->next = disk->nodes;
        disk->nodes = node;
    }
    return node;
}

void vexi_sim_node_free(const vexi_env *env, vexi_sim_node *node) {
    for (size_t i = 0; i < node->entry_count; i++) {
        vexi_free(env, node->entries[i].name);
        vexi_free(env, node->entries[i].between);
    }
    vexi_free(env, node->entries);
    vexi_free(env, node->extents);
    vexi_free(env, node->seen.data);
    vexi_free(env, node->kept.data);
    vexi_free(env, node);
}

static vexi_sim_entry *find_entry(const vexi_sim_node *folder, const char *name, size_t size) {
    for (size_t i = 0; i < folder->entry_count; i++) {
        const char *have = folder->entries[i].name;
        if (strncmp(have, name, size) == 0 && have[size] == '\0') {
            return &folder->entries[i];
        }
    }
    return NULL;
}

vex_status vexi_sim_resolve_path(vexi_sim_disk *disk, const char *path, vexi_sim_place *out,
                                 vex_error *err) {
    vexi_sim_place place = {.node = disk->root};
    const char *at = path;
    for (;;) {
        while (*at == '/') {
            at++;
        }
        size_t size = strcspn(at, "/");
        if (size == 0) {
            break;
        }
        if (size == 1 && at[0] == '.') {
            at += size;
            continue;
        }
        if (size > NAME_MAX_SIZE) {
            return vexi_fail(err, VEX_INVALID, "%s: a segment is too long", path);
        }
        if (place.node == NULL || !place.node->is_folder) {
            return vexi_fail(err, VEX_NOT_FOUND, "%s: no such folder", path);
        }
        place.folder = place.node;
        place.name = at;
        place.name_size = size;
        const vexi_sim_entry *entry = find_entry(place.folder, at, size);
        place.node = entry == NULL ? NULL : entry->now;
        at += size;
    }
    *out = place;
    return VEX_OK;
}

vex_status vexi_sim_resolve_node(vexi_sim_disk *disk, const char *path, bool is_folder,
                                 vexi_sim_place *out, vex_error *err) {
    VEX_TRY(vexi_sim_resolve_path(disk, path, out, err));
    if (out->node == NULL || out->node->is_folder != is_folder) {
        return vexi_fail(err, VEX_NOT_FOUND, "%s: no such %s", path, is_folder ? "folder" : "file");
    }
    return VEX_OK;
}

vex_status vexi_sim_reserve_entry(vexi_sim_disk *disk, const vexi_sim_place *place,
                                  vex_error *err) {
    const vexi_env *env = disk->base.env;
    vexi_sim_node *folder = place->folder;
    vexi_sim_entry *entry = find_entry(folder, place->name, place->name_size);
    if (entry == NULL) {
        VEX_TRY(vexi_grow(env, (void **)&folder->entries, &folder->entry_capacity,
                          folder->entry_count, folder->entry_count + 1, sizeof *folder->entries,
                          err));
        char *name = vexi_alloc(env, place->name_size + 1);
        if (name == NULL) {
            return vexi_no_memory(err, place->name_size + 1);
        }
        memcpy(name, place->name, place->name_size);
        name[place->name_size] = '\0';
        entry = &folder->entries[folder->entry_count++];
        *entry = (vexi_sim_entry){.name = name};
    }
    return vexi_grow(env, (void **)&entry->between, &entry->between_capacity, entry->between_count,
                     entry->between_count + 1, sizeof *entry->between, err);
}

void vexi_sim_set_entry(const vexi_sim_place *place, vexi_sim_node *node) {
    vexi_sim_entry *entry = find_entry(place->folder, place->name, place->name_size);
    VEX_ASSERT(entry != NULL && entry->between_count < entry->between_capacity);
    entry->now = node;
    entry->between[entry->between_count++] = node;
}

/* ---- Crash and sweep ------------------------------------------------------------------------- */

static void resolve_folder(vexi_sim_disk *disk, vexi_sim_node *folder) {
    for (size_t i = 0; i < folder->entry_count; i++) {
        vexi_sim_entry *entry = &folder->entries[i];
        size_t choice = vexi_sim_random_below(disk, entry->between_count + 1);
        if (choice > 0) {
            entry->durable = entry->between[choice - 1];
        }
        entry->now = entry->durable;
        entry->between_count = 0;
    }
}

void vexi_sim_compact_folder(const vexi_env *env, vexi_sim_node *folder) {
    size_t kept = 0;
    for (size_t i = 0; i < folder->entry_count; i++) {
        vexi_sim_entry *entry = &folder->entries[i];
        if (entry->now == NULL && entry->durable == NULL && entry->between_count == 0) {
            vexi_free(env, entry->name);
            vexi_free(env, entry->between);
        } else {
            folder->entries[kept++] = *entry;
        }
    }
    folder->entry_count = kept;
}

/* Mark what is reachable from a folder. Depth is that of the paths that were made. */
static void mark(vexi_sim_node *node) {
    node->marked = true;
    for (size_t i = 0; i < node->entry_count; i++) {
        vexi_sim_node *below = node->entries[i].now;
        if (below != NULL && !below->marked) {
            mark(below);
        }
    }
}

/* Free what neither an entry nor a handle reaches. Only right after all entries were resolved. */
static void sweep(vexi_sim_disk *disk) {
    mark(disk->root);
    vexi_sim_node **link = &disk->nodes;
    while (*link != NULL) {
        vexi_sim_node *node = *link;
        if (node->marked || node->handle_count > 0) {
            node->marked = false;
            link = &node->next;
        } else {
            *link = node->next;
            vexi_sim_node_free(disk->base.env, node);
        }
    }
}

void vexi_sim_resolve_all(vexi_sim_disk *disk) {
    for (vexi_sim_node *node = disk->nodes; node != NULL; node = node->next) {
        node->locked = false;
        if (node->is_folder) {
            resolve_folder(disk, node);
            vexi_sim_compact_folder(disk->base.env, node);
        } else {
            vexi_sim_resolve_file(disk, node);
            /* kept can hold all of seen, and seen was at least as large: no memory is needed. */
            VEX_ASSERT(node->kept.size <= node->seen.size);
            if (node->kept.size > 0) {
                memcpy(node->seen.data, node->kept.data, node->kept.size);
            }
            node->seen.size = node->kept.size;
        }
    }
    sweep(disk);
}
