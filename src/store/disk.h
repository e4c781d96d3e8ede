/* Disk: the system calls of a file store whose order and durability matter.
 *
 * The real one (disk_posix.c) calls the operating system. The simulated one (disk_sim.c) keeps
 * files in memory with what is durable beside what is merely written, can stop the world at any
 * write, sync, rename, link or unlink, and after the stop shows what a real disk might: each
 * unsynced write lost, kept or torn, each unsynced directory entry lost or kept, decided by a seed.
 */
#ifndef VEXI_STORE_DISK_H
#define VEXI_STORE_DISK_H

#include "store/store.h"

typedef struct vexi_disk_file vexi_disk_file;

enum { VEXI_DISK_CREATE_NEW = 1, VEXI_DISK_APPEND = 2, VEXI_DISK_READ = 4 };

/* Paths are relative to the working folder or absolute, segments separated by one '/'. Every
 * function but close, write and sync of one same file is safe from many threads (read_at of a file
 * opened to read: also of one same file); messages name the path. Files are written at their end
 * only. Statuses: VEX_NOT_FOUND (also for a folder where a file is wanted), VEX_EXISTS, VEX_FULL,
 * VEX_INVALID (a segment too long, a file where a folder is wanted), VEX_MEMORY, VEX_IO for the
 * rest. */
typedef struct vexi_disk_ops {
    /* A file to write needs CREATE_NEW or APPEND: VEX_EXISTS with CREATE_NEW when it is there. */
    vex_status (*open)(vexi_disk *disk, const char *path, uint32_t flags, vexi_disk_file **out,
                       vex_error *err);
    void (*close)(vexi_disk_file *file);
    /* Write all parts behind what is there; on failure any part may have been written. */
    vex_status (*write)(vexi_disk_file *file, const vexi_span *parts, size_t count, vex_error *err);
    /* VEX_CORRUPT when the file ends before. */
    vex_status (*read_at)(vexi_disk_file *file, uint64_t offset, uint8_t *target, size_t size,
                          vex_error *err);
    /* Content and size of the file become durable, its name does not. */
    vex_status (*sync)(vexi_disk_file *file, vex_error *err);
    vex_status (*file_size)(vexi_disk *disk, const char *path, uint64_t *out, int64_t *modified_us,
                            vex_error *err);
    /* rename replaces `to`; link gives VEX_EXISTS when there is one. None is durable before
     * sync_folder of the folder whose entry changed. */
    vex_status (*rename)(vexi_disk *disk, const char *from, const char *to, vex_error *err);
    vex_status (*link)(vexi_disk *disk, const char *from, const char *to, vex_error *err);
    vex_status (*unlink)(vexi_disk *disk, const char *path, vex_error *err);
    /* *made tells whether it was missing. VEX_NOT_FOUND without its parent. */
    vex_status (*make_folder)(vexi_disk *disk, const char *path, bool *made, vex_error *err);
    vex_status (*sync_folder)(vexi_disk *disk, const char *path, vex_error *err);
    /* Entries of one folder, names without the path, unordered, without sizes and times (which
     * would cost a call each); VEX_NOT_FOUND. */
    vex_status (*list_folder)(vexi_disk *disk, const char *path, vexi_arena *arena,
                              vexi_listing *out, vex_error *err);
    vex_status (*map)(vexi_disk *disk, const char *path, vexi_mapping *out, vex_error *err);
    void (*unmap)(vexi_disk *disk, vexi_mapping *mapping);
    /* Lock a file (made if missing, kept afterwards) until it is closed or the process ends;
     * VEX_BUSY tells the holder's process id. */
    vex_status (*lock)(vexi_disk *disk, const char *path, vexi_disk_file **out, vex_error *err);
    void (*destroy)(vexi_disk *disk);
} vexi_disk_ops;

struct vexi_disk {
    const vexi_disk_ops *ops;
    const vexi_env *env;
};

struct vexi_disk_file {
    vexi_disk *disk;
};

vex_status vexi_disk_posix_create(const vexi_env *env, vexi_disk **out, vex_error *err);
void vexi_disk_destroy(vexi_disk *disk); /* NULL is fine */

/* ---- The simulated disk ---------------------------------------------------------------------- */

vex_status vexi_disk_sim_create(const vexi_env *env, uint64_t seed, vexi_disk **out,
                                vex_error *err);
/* Steps (write, sync, rename, link, unlink, make_folder, sync_folder) so far. */
uint64_t vexi_disk_sim_steps(const vexi_disk *disk);
/* Stop at step n (from 1; 0 never): that step happens in part or not at all, and it and every
 * later call fail with VEX_IO until vexi_disk_sim_restart. */
void vexi_disk_sim_crash_at(vexi_disk *disk, uint64_t step);
bool vexi_disk_sim_crashed(const vexi_disk *disk);
/* Fail step n alone with VEX_IO (a failed sync loses a part of the unsynced bytes), or VEX_FULL. */
void vexi_disk_sim_fail_at(vexi_disk *disk, uint64_t step, vex_status status);
/* Power comes back: unsynced state is resolved by the seed; every open file handle, mapping and
 * lock is gone (closing them is still required and safe). Counting starts at 0 again. */
void vexi_disk_sim_restart(vexi_disk *disk, uint64_t seed);

#endif
