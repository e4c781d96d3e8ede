/* A simulated disk that forgets what was not synced, as adversarially as a real one may.
 *
 * Files. Each keeps two byte arrays: `seen`, what readers get, and `kept`, what the platters hold;
 * and the extents written since the last sync. A sync copies them over. A crash, or a failed sync,
 * decides each extent by the seed: kept, lost (zeros if something behind it is kept), or torn (of
 * its 512-byte sectors some kept, some zeros, and cut at any byte). After a failed sync the extents
 * count as clean, so a second sync does not bring them back, as on Linux.
 *
 * Folders. Each entry keeps the file it names now, the one it names durably, and every one in
 * between since the last sync_folder. A crash picks any of them, for each entry by itself: the two
 * entries of a rename may both survive or both vanish. A folder whose own entry is lost takes all
 * below it along, synced or not. That is weaker than journalling file systems promise; what holds
 * here holds on them.
 *
 * Steps. Each write, sync, rename, link, unlink, make_folder and sync_folder is one, counted also
 * when it fails by itself. At a crash step a write is done in part and anything else is done or not
 * by the seed; but its caller, and all after it, see VEX_IO until restart.
 *
 * One mutex guards all; nothing here is fast. Nodes that no entry and no handle reach any more are
 * swept at restart and at the end. */
#include "store/disk_sim_internal.h"

typedef struct sim_file {
    vexi_disk_file base;
    vexi_sim_node *node; /* counted in handle_count */
    uint64_t epoch;
    bool is_lock;
} sim_file;

/* What becomes of a step. */
typedef enum sim_fate { FATE_DONE, FATE_FAILED, FATE_CRASHED } sim_fate;

/* ---- Steps --------------------------------------------------------------------------------- */

static vex_status check_power(const vexi_sim_disk *disk, vex_error *err) {
    return disk->crashed ? vexi_fail(err, VEX_IO, "the simulated disk has crashed") : VEX_OK;
}

/* Count a step that is about to happen and tell its fate. With FATE_CRASHED the caller still does
 * it if the seed says so; unless FATE_DONE it returns `refuse`. */
static sim_fate take_step(vexi_sim_disk *disk) {
    disk->steps++;
    if (disk->steps == disk->crash_step) {
        disk->crashed = true;
        return FATE_CRASHED;
    }
    return disk->steps == disk->fail_step ? FATE_FAILED : FATE_DONE;
}

static vex_status refuse(const vexi_sim_disk *disk, sim_fate fate, const char *what,
                         vex_error *err) {
    if (fate == FATE_CRASHED) {
        return check_power(disk, err);
    }
    return vexi_fail(err, disk->fail_status, "cannot %s: failed by the simulation", what);
}

static vexi_sim_disk *disk_of(vexi_disk *base) {
    return (vexi_sim_disk *)base;
}

void vexi_disk_sim_restart(vexi_disk *base, uint64_t seed) {
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    disk->random = seed;
    vexi_sim_resolve_all(disk);
    disk->epoch++;
    disk->steps = 0;
    disk->crash_step = 0;
    disk->fail_step = 0;
    disk->crashed = false;
    pthread_mutex_unlock(&disk->mutex);
}

/* ---- Files ----------------------------------------------------------------------------------- */

static vex_status make_handle(vexi_sim_disk *disk, vexi_sim_node *node, bool is_lock,
                              vexi_disk_file **out, vex_error *err) {
    sim_file *file = vexi_alloc(disk->base.env, sizeof *file);
    if (file == NULL) {
        return vexi_no_memory(err, sizeof *file);
    }
    *file = (sim_file){
        .base = {.disk = &disk->base}, .node = node, .epoch = disk->epoch, .is_lock = is_lock};
    node->handle_count++;
    *out = &file->base;
    return VEX_OK;
}

/* Create a file at a place; its name is not durable. */
static vex_status create_file(vexi_sim_disk *disk, const vexi_sim_place *place, const char *path,
                              vexi_sim_node **out, vex_error *err) {
    if (place->folder == NULL || place->name == NULL) {
        return vexi_fail(err, VEX_INVALID, "%s is the root", path);
    }
    VEX_TRY(vexi_sim_reserve_entry(disk, place, err));
    vexi_sim_node *node = vexi_sim_node_create(disk, false);
    if (node == NULL) {
        return vexi_no_memory(err, sizeof *node);
    }
    vexi_sim_set_entry(place, node);
    *out = node;
    return VEX_OK;
}

static vex_status open_locked(vexi_sim_disk *disk, const char *path, uint32_t flags,
                              vexi_disk_file **out, vex_error *err) {
    VEX_TRY(check_power(disk, err));
    vexi_sim_place place;
    if ((flags & VEXI_DISK_CREATE_NEW) == 0) {
        VEX_TRY(vexi_sim_resolve_node(disk, path, false, &place, err));
        return make_handle(disk, place.node, false, out, err);
    }
    VEX_TRY(vexi_sim_resolve_path(disk, path, &place, err));
    if (place.node != NULL) {
        return vexi_fail(err, VEX_EXISTS, "%s exists", path);
    }
    vexi_sim_node *node = NULL;
    VEX_TRY(create_file(disk, &place, path, &node, err));
    return make_handle(disk, node, false, out, err);
}

static vex_status sim_open(vexi_disk *base, const char *path, uint32_t flags, vexi_disk_file **out,
                           vex_error *err) {
    *out = NULL;
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = open_locked(disk, path, flags, out, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static void sim_close(vexi_disk_file *base) {
    sim_file *file = (sim_file *)base;
    vexi_sim_disk *disk = disk_of(base->disk);
    pthread_mutex_lock(&disk->mutex);
    file->node->handle_count--;
    if (file->is_lock && file->epoch == disk->epoch) {
        file->node->locked = false;
    }
    pthread_mutex_unlock(&disk->mutex);
    vexi_free(disk->base.env, file);
}

static vex_status check_handle(const vexi_sim_disk *disk, const sim_file *file, vex_error *err) {
    VEX_TRY(check_power(disk, err));
    if (file->epoch != disk->epoch) {
        return vexi_fail(err, VEX_IO, "a file handle from before the crash");
    }
    return VEX_OK;
}

static vex_status write_locked(vexi_sim_disk *disk, sim_file *file, const vexi_span *parts,
                               size_t count, vex_error *err) {
    VEX_TRY(check_handle(disk, file, err));
    vexi_sim_node *node = file->node;
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(size, parts[i].size, &size)) {
            return vexi_fail(err, VEX_LIMIT, "a write to the simulated disk is too large");
        }
    }
    size_t start = node->seen.size;
    if (size > SIZE_MAX / 2 - start) {
        return vexi_fail(err, VEX_LIMIT, "a file on the simulated disk is too large");
    }
    VEX_TRY(vexi_grow(disk->base.env, (void **)&node->extents, &node->extent_capacity,
                      node->extent_count, node->extent_count + 1, sizeof *node->extents, err));
    sim_fate fate = take_step(disk);
    size_t done = fate == FATE_DONE ? size : vexi_sim_random_below(disk, size + 1);
    VEX_TRY(vexi_sim_extend_file(disk, node, start + done, err));
    size_t at = 0;
    for (size_t i = 0; i < count && at < done; i++) {
        size_t piece = parts[i].size < done - at ? parts[i].size : done - at;
        if (piece > 0) {
            memcpy(node->seen.data + start + at, parts[i].data, piece);
            at += piece;
        }
    }
    if (done > 0) {
        node->extents[node->extent_count++] =
            (vexi_sim_extent){.start = start, .end = start + done};
        node->modified_us = vexi_wall_us(disk->base.env);
    }
    return fate == FATE_DONE ? VEX_OK : refuse(disk, fate, "write", err);
}

static vex_status sim_write(vexi_disk_file *base, const vexi_span *parts, size_t count,
                            vex_error *err) {
    vexi_sim_disk *disk = disk_of(base->disk);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = write_locked(disk, (sim_file *)base, parts, count, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static vex_status sim_read_at(vexi_disk_file *base, uint64_t offset, uint8_t *target, size_t size,
                              vex_error *err) {
    vexi_sim_disk *disk = disk_of(base->disk);
    sim_file *file = (sim_file *)base;
    pthread_mutex_lock(&disk->mutex);
    vex_status status = check_handle(disk, file, err);
    const vexi_sim_bytes *bytes = &file->node->seen;
    if (status == VEX_OK && size > 0) {
        if (offset > bytes->size || size > bytes->size - offset) {
            status = vexi_fail(err, VEX_CORRUPT, "the file ends at byte %zu, before byte %llu",
                               bytes->size, (unsigned long long)(offset + size));
        } else {
            memcpy(target, bytes->data + offset, size);
        }
    }
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static vex_status sync_locked(vexi_sim_disk *disk, sim_file *file, vex_error *err) {
    VEX_TRY(check_handle(disk, file, err));
    vexi_sim_node *node = file->node;
    sim_fate fate = take_step(disk);
    if (fate == FATE_FAILED) {
        vexi_sim_resolve_file(disk, node);
        return refuse(disk, fate, "sync a file", err);
    }
    if (fate == FATE_DONE || vexi_sim_random_below(disk, 2) == 0) {
        for (size_t i = 0; i < node->extent_count; i++) {
            vexi_sim_keep_bytes(node, node->extents[i].start, node->extents[i].end);
        }
        node->extent_count = 0;
    }
    return fate == FATE_DONE ? VEX_OK : refuse(disk, fate, "sync a file", err);
}

static vex_status sim_sync(vexi_disk_file *base, vex_error *err) {
    vexi_sim_disk *disk = disk_of(base->disk);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = sync_locked(disk, (sim_file *)base, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static vex_status sim_file_size(vexi_disk *base, const char *path, uint64_t *out,
                                int64_t *modified_us, vex_error *err) {
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = check_power(disk, err);
    vexi_sim_place place;
    if (status == VEX_OK) {
        status = vexi_sim_resolve_node(disk, path, false, &place, err);
    }
    if (status == VEX_OK) {
        *out = place.node->seen.size;
        *modified_us = place.node->modified_us;
    }
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

/* ---- Names ----------------------------------------------------------------------------------- */

/* What a change of names does; NULL where there is nothing to do. */
typedef struct sim_change {
    const char *what;
    vexi_sim_place *source; /* loses its entry */
    vexi_sim_place *target; /* receives node */
    vexi_sim_node *node;
} sim_change;

static vex_status apply_change(vexi_sim_disk *disk, const sim_change *change, vex_error *err) {
    if (change->target != NULL) {
        VEX_TRY(vexi_sim_reserve_entry(disk, change->target, err));
    }
    if (change->source != NULL) {
        VEX_TRY(vexi_sim_reserve_entry(disk, change->source, err));
    }
    sim_fate fate = take_step(disk);
    if (fate == FATE_DONE || (fate == FATE_CRASHED && vexi_sim_random_below(disk, 2) == 0)) {
        if (change->target != NULL) {
            vexi_sim_set_entry(change->target, change->node);
        }
        if (change->source != NULL) {
            vexi_sim_set_entry(change->source, NULL);
        }
    }
    return fate == FATE_DONE ? VEX_OK : refuse(disk, fate, change->what, err);
}

static vex_status rename_locked(vexi_sim_disk *disk, const char *from, const char *to, bool keep,
                                vex_error *err) {
    VEX_TRY(check_power(disk, err));
    vexi_sim_place source;
    vexi_sim_place target;
    VEX_TRY(vexi_sim_resolve_node(disk, from, false, &source, err));
    VEX_TRY(vexi_sim_resolve_path(disk, to, &target, err));
    if (target.folder == NULL || (target.node != NULL && target.node->is_folder && !keep)) {
        return vexi_fail(err, VEX_INVALID, "%s is a folder", to);
    }
    if (keep && target.node != NULL) {
        return vexi_fail(err, VEX_EXISTS, "%s exists", to);
    }
    sim_change change = {.what = keep ? "link a file" : "rename a file",
                         .source = keep || source.node == target.node ? NULL : &source,
                         .target = &target,
                         .node = source.node};
    return apply_change(disk, &change, err);
}

static vex_status sim_rename(vexi_disk *base, const char *from, const char *to, vex_error *err) {
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = rename_locked(disk, from, to, false, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static vex_status sim_link(vexi_disk *base, const char *from, const char *to, vex_error *err) {
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = rename_locked(disk, from, to, true, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static vex_status unlink_locked(vexi_sim_disk *disk, const char *path, vex_error *err) {
    VEX_TRY(check_power(disk, err));
    vexi_sim_place place;
    VEX_TRY(vexi_sim_resolve_node(disk, path, false, &place, err));
    sim_change change = {.what = "delete a file", .source = &place};
    return apply_change(disk, &change, err);
}

static vex_status sim_unlink(vexi_disk *base, const char *path, vex_error *err) {
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = unlink_locked(disk, path, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static vex_status make_folder_locked(vexi_sim_disk *disk, const char *path, bool *made,
                                     vex_error *err) {
    VEX_TRY(check_power(disk, err));
    vexi_sim_place place;
    VEX_TRY(vexi_sim_resolve_path(disk, path, &place, err));
    if (place.node != NULL) {
        return place.node->is_folder
                   ? VEX_OK
                   : vexi_fail(err, VEX_INVALID, "%s: a file stands in its place", path);
    }
    vexi_sim_node *node = vexi_sim_node_create(disk, true);
    if (node == NULL) {
        return vexi_no_memory(err, sizeof *node);
    }
    sim_change change = {.what = "make a folder", .target = &place, .node = node};
    VEX_TRY(apply_change(disk, &change, err));
    *made = true;
    return VEX_OK;
}

static vex_status sim_make_folder(vexi_disk *base, const char *path, bool *made, vex_error *err) {
    *made = false;
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = make_folder_locked(disk, path, made, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static vex_status sync_folder_locked(vexi_sim_disk *disk, const char *path, vex_error *err) {
    VEX_TRY(check_power(disk, err));
    vexi_sim_place place;
    VEX_TRY(vexi_sim_resolve_node(disk, path, true, &place, err));
    vexi_sim_node *folder = place.node;
    sim_fate fate = take_step(disk);
    if (fate == FATE_DONE || (fate == FATE_CRASHED && vexi_sim_random_below(disk, 2) == 0)) {
        for (size_t i = 0; i < folder->entry_count; i++) {
            folder->entries[i].durable = folder->entries[i].now;
            folder->entries[i].between_count = 0;
        }
        vexi_sim_compact_folder(disk->base.env, folder);
    }
    return fate == FATE_DONE ? VEX_OK : refuse(disk, fate, "sync a folder", err);
}

static vex_status sim_sync_folder(vexi_disk *base, const char *path, vex_error *err) {
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = sync_folder_locked(disk, path, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static vex_status list_locked(vexi_sim_disk *disk, const char *path, vexi_arena *arena,
                              vexi_listing *out, vex_error *err) {
    VEX_TRY(check_power(disk, err));
    vexi_sim_place place;
    VEX_TRY(vexi_sim_resolve_node(disk, path, true, &place, err));
    const vexi_sim_node *folder = place.node;
    if (folder->entry_count == 0) {
        return VEX_OK;
    }
    vexi_list_entry *entries = vexi_arena_array(arena, folder->entry_count, sizeof *entries);
    if (entries == NULL) {
        return vexi_no_memory(err, folder->entry_count * sizeof *entries);
    }
    size_t count = 0;
    for (size_t i = 0; i < folder->entry_count; i++) {
        const vexi_sim_entry *entry = &folder->entries[i];
        if (entry->now == NULL) {
            continue;
        }
        char *name = vexi_arena_copy(arena, entry->name, strlen(entry->name));
        if (name == NULL) {
            return vexi_no_memory(err, strlen(entry->name) + 1);
        }
        entries[count++] = (vexi_list_entry){.name = name, .is_folder = entry->now->is_folder};
    }
    *out = (vexi_listing){.entries = entries, .count = count};
    return VEX_OK;
}

static vex_status sim_list_folder(vexi_disk *base, const char *path, vexi_arena *arena,
                                  vexi_listing *out, vex_error *err) {
    *out = (vexi_listing){0};
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = list_locked(disk, path, arena, out, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

/* ---- Mapping, lock, life --------------------------------------------------------------------- */

/* A copy: what was mapped before a crash or an unlink stays readable, as the contract asks. */
static vex_status sim_map(vexi_disk *base, const char *path, vexi_mapping *out, vex_error *err) {
    *out = (vexi_mapping){0};
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = check_power(disk, err);
    vexi_sim_place place;
    if (status == VEX_OK) {
        status = vexi_sim_resolve_node(disk, path, false, &place, err);
    }
    if (status == VEX_OK && place.node->seen.size > 0) {
        size_t size = place.node->seen.size;
        uint8_t *copy = vexi_alloc_aligned(base->env, size);
        if (copy == NULL) {
            status = vexi_no_memory(err, size);
        } else {
            memcpy(copy, place.node->seen.data, size);
            *out = (vexi_mapping){.data = copy, .size = size, .handle = copy};
        }
    }
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static void sim_unmap(vexi_disk *base, vexi_mapping *mapping) {
    vexi_free(base->env, mapping->handle);
    *mapping = (vexi_mapping){0};
}

static vex_status lock_locked(vexi_sim_disk *disk, const char *path, vexi_disk_file **out,
                              vex_error *err) {
    VEX_TRY(check_power(disk, err));
    vexi_sim_place place;
    VEX_TRY(vexi_sim_resolve_path(disk, path, &place, err));
    vexi_sim_node *node = place.node;
    if (node == NULL) {
        VEX_TRY(create_file(disk, &place, path, &node, err));
    }
    if (node->is_folder) {
        return vexi_fail(err, VEX_INVALID, "%s is a folder", path);
    }
    if (node->locked) {
        return vexi_fail(err, VEX_BUSY, "%s is held by another handle", path);
    }
    VEX_TRY(make_handle(disk, node, true, out, err));
    node->locked = true;
    return VEX_OK;
}

static vex_status sim_lock(vexi_disk *base, const char *path, vexi_disk_file **out,
                           vex_error *err) {
    *out = NULL;
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    vex_status status = lock_locked(disk, path, out, err);
    pthread_mutex_unlock(&disk->mutex);
    return status;
}

static void sim_destroy(vexi_disk *base) {
    vexi_sim_disk *disk = disk_of(base);
    while (disk->nodes != NULL) {
        vexi_sim_node *next = disk->nodes->next;
        vexi_sim_node_free(base->env, disk->nodes);
        disk->nodes = next;
    }
    pthread_mutex_destroy(&disk->mutex);
    vexi_free(base->env, disk);
}

static const vexi_disk_ops sim_ops = {
    .open = sim_open,
    .close = sim_close,
    .write = sim_write,
    .read_at = sim_read_at,
    .sync = sim_sync,
    .file_size = sim_file_size,
    .rename = sim_rename,
    .link = sim_link,
    .unlink = sim_unlink,
    .make_folder = sim_make_folder,
    .sync_folder = sim_sync_folder,
    .list_folder = sim_list_folder,
    .map = sim_map,
    .unmap = sim_unmap,
    .lock = sim_lock,
    .destroy = sim_destroy,
};

vex_status vexi_disk_sim_create(const vexi_env *env, uint64_t seed, vexi_disk **out,
                                vex_error *err) {
    *out = NULL;
    vexi_sim_disk *disk = vexi_calloc(env, 1, sizeof *disk);
    if (disk == NULL) {
        return vexi_no_memory(err, sizeof *disk);
    }
    disk->base = (vexi_disk){.ops = &sim_ops, .env = env};
    disk->random = seed;
    disk->root = vexi_sim_node_create(disk, true);
    if (disk->root == NULL) {
        vexi_free(env, disk);
        return vexi_no_memory(err, sizeof *disk->root);
    }
    pthread_mutex_init(&disk->mutex, NULL);
    *out = &disk->base;
    return VEX_OK;
}

uint64_t vexi_disk_sim_steps(const vexi_disk *base) {
    vexi_sim_disk *disk = (vexi_sim_disk *)(uintptr_t)base; /* only its mutex changes */
    pthread_mutex_lock(&disk->mutex);
    uint64_t steps = disk->steps;
    pthread_mutex_unlock(&disk->mutex);
    return steps;
}

bool vexi_disk_sim_crashed(const vexi_disk *base) {
    vexi_sim_disk *disk = (vexi_sim_disk *)(uintptr_t)base;
    pthread_mutex_lock(&disk->mutex);
    bool crashed = disk->crashed;
    pthread_mutex_unlock(&disk->mutex);
    return crashed;
}

void vexi_disk_sim_crash_at(vexi_disk *base, uint64_t step) {
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    disk->crash_step = step;
    pthread_mutex_unlock(&disk->mutex);
}

void vexi_disk_sim_fail_at(vexi_disk *base, uint64_t step, vex_status status) {
    vexi_sim_disk *disk = disk_of(base);
    pthread_mutex_lock(&disk->mutex);
    disk->fail_step = step;
    disk->fail_status = status;
    pthread_mutex_unlock(&disk->mutex);
}
