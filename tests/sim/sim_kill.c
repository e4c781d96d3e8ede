#include "sim/sim_kill.h"

#include "check.h"

typedef struct kill_disk {
    vexi_disk base;
    vexi_disk *inner;
    uint64_t steps;
    uint64_t kill_step;
    uint64_t fail_first;
    uint64_t fail_end;
    bool dead;
} kill_disk;

typedef struct kill_file {
    vexi_disk_file base;
    vexi_disk_file *inner;
} kill_file;

static kill_disk *of(vexi_disk *base) {
    return (kill_disk *)base;
}

static const vexi_disk_ops *inner_ops(vexi_disk *base) {
    return of(base)->inner->ops;
}

static vex_status alive(const kill_disk *disk, vex_error *err) {
    return disk->dead ? vexi_fail(err, VEX_IO, "the process was killed") : VEX_OK;
}

static vex_status take_step(vexi_disk *base, vex_error *err) {
    kill_disk *disk = of(base);
    disk->steps++;
    disk->dead = disk->dead || disk->steps == disk->kill_step;
    if (disk->steps >= disk->fail_first && disk->steps < disk->fail_end) {
        return vexi_fail(err, VEX_IO, "failed by the test");
    }
    return alive(disk, err);
}

static vex_status wrap(vexi_disk *base, vexi_disk_file *inner, vexi_disk_file **out) {
    kill_file *file = malloc(sizeof *file);
    CHECK(file != NULL);
    *file = (kill_file){.base = {.disk = base}, .inner = inner};
    *out = &file->base;
    return VEX_OK;
}

static vex_status kill_open(vexi_disk *base, const char *path, uint32_t flags, vexi_disk_file **out,
                            vex_error *err) {
    vexi_disk_file *inner;
    VEX_TRY(alive(of(base), err));
    VEX_TRY(inner_ops(base)->open(of(base)->inner, path, flags, &inner, err));
    return wrap(base, inner, out);
}

static void kill_close(vexi_disk_file *file) {
    vexi_disk_file *inner = ((kill_file *)file)->inner;
    inner->disk->ops->close(inner);
    free(file);
}

static vex_status kill_write(vexi_disk_file *file, const vexi_span *parts, size_t count,
                             vex_error *err) {
    vexi_disk_file *inner = ((kill_file *)file)->inner;
    VEX_TRY(take_step(file->disk, err));
    return inner->disk->ops->write(inner, parts, count, err);
}

static vex_status kill_read_at(vexi_disk_file *file, uint64_t offset, uint8_t *target, size_t size,
                               vex_error *err) {
    vexi_disk_file *inner = ((kill_file *)file)->inner;
    VEX_TRY(alive(of(file->disk), err));
    return inner->disk->ops->read_at(inner, offset, target, size, err);
}

static vex_status kill_sync(vexi_disk_file *file, vex_error *err) {
    vexi_disk_file *inner = ((kill_file *)file)->inner;
    VEX_TRY(take_step(file->disk, err));
    return inner->disk->ops->sync(inner, err);
}

static vex_status kill_file_size(vexi_disk *base, const char *path, uint64_t *out,
                                 int64_t *modified_us, vex_error *err) {
    VEX_TRY(alive(of(base), err));
    return inner_ops(base)->file_size(of(base)->inner, path, out, modified_us, err);
}

static vex_status kill_rename(vexi_disk *base, const char *from, const char *to, vex_error *err) {
    VEX_TRY(take_step(base, err));
    return inner_ops(base)->rename(of(base)->inner, from, to, err);
}

static vex_status kill_link(vexi_disk *base, const char *from, const char *to, vex_error *err) {
    VEX_TRY(take_step(base, err));
    return inner_ops(base)->link(of(base)->inner, from, to, err);
}

static vex_status kill_unlink(vexi_disk *base, const char *path, vex_error *err) {
    VEX_TRY(take_step(base, err));
    return inner_ops(base)->unlink(of(base)->inner, path, err);
}

static vex_status kill_make_folder(vexi_disk *base, const char *path, bool *made, vex_error *err) {
    VEX_TRY(take_step(base, err));
    return inner_ops(base)->make_folder(of(base)->inner, path, made, err);
}

static vex_status kill_sync_folder(vexi_disk *base, const char *path, vex_error *err) {
    VEX_TRY(take_step(base, err));
    return inner_ops(base)->sync_folder(of(base)->inner, path, err);
}

static vex_status kill_list_folder(vexi_disk *base, const char *path, vexi_arena *arena,
                                   vexi_listing *out, vex_error *err) {
    VEX_TRY(alive(of(base), err));
    return inner_ops(base)->list_folder(of(base)->inner, path, arena, out, err);
}

static vex_status kill_map(vexi_disk *base, const char *path, vexi_mapping *out, vex_error *err) {
    VEX_TRY(alive(of(base), err));
    return inner_ops(base)->map(of(base)->inner, path, out, err);
}

static void kill_unmap(vexi_disk *base, vexi_mapping *mapping) {
    inner_ops(base)->unmap(of(base)->inner, mapping);
}

static vex_status kill_lock(vexi_disk *base, const char *path, vexi_disk_file **out,
                            vex_error *err) {
    vexi_disk_file *inner;
    VEX_TRY(alive(of(base), err));
    VEX_TRY(inner_ops(base)->lock(of(base)->inner, path, &inner, err));
    return wrap(base, inner, out);
}

static void kill_destroy(vexi_disk *base) {
    vexi_disk_destroy(of(base)->inner);
    free(base);
}

static const vexi_disk_ops kill_ops = {
    .open = kill_open,
    .close = kill_close,
    .write = kill_write,
    .read_at = kill_read_at,
    .sync = kill_sync,
    .file_size = kill_file_size,
    .rename = kill_rename,
    .link = kill_link,
    .unlink = kill_unlink,
    .make_folder = kill_make_folder,
    .sync_folder = kill_sync_folder,
    .list_folder = kill_list_folder,
    .map = kill_map,
    .unmap = kill_unmap,
    .lock = kill_lock,
    .destroy = kill_destroy,
};

vexi_disk *sim_kill_create(vexi_disk *inner) {
    kill_disk *disk = calloc(1, sizeof *disk);
    CHECK(disk != NULL);
    disk->base = (vexi_disk){.ops = &kill_ops, .env = inner->env};
    disk->inner = inner;
    return &disk->base;
}

void sim_kill_at(vexi_disk *base, uint64_t step) {
    kill_disk *disk = of(base);
    disk->dead = false;
    disk->kill_step = step == 0 ? 0 : disk->steps + step;
}

void sim_kill_fail(vexi_disk *base, uint64_t step, uint64_t count) {
    kill_disk *disk = of(base);
    disk->fail_first = disk->steps + step;
    disk->fail_end = disk->fail_first + count;
}

bool sim_kill_dead(const vexi_disk *disk) {
    return ((const kill_disk *)disk)->dead;
}

uint64_t sim_kill_steps(const vexi_disk *disk) {
    return ((const kill_disk *)disk)->steps;
}
