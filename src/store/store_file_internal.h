/* What the parts of the file store share: its struct, paths, durable folders. store_file.c tells
 * the idea. */
#ifndef VEXI_STORE_STORE_FILE_INTERNAL_H
#define VEXI_STORE_STORE_FILE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "store/disk.h"

enum {
    VEXI_FILE_PATH_SIZE_MAX = 4096,
    VEXI_FILE_ROOT_SIZE_MAX = VEXI_FILE_PATH_SIZE_MAX - VEXI_STORE_NAME_SIZE_MAX - 64
};

typedef struct vexi_file_store {
    vexi_store base;
    vexi_disk *disk; /* borrowed */
    char *root;      /* immutable, without trailing '/' unless it is "/" */
    atomic_uint_fast64_t temporary_next;
    pthread_mutex_t mutex;
    char **known; /* under mutex: folders known to be durable, below root, sorted */
    size_t known_count;
    size_t known_capacity;
    vexi_disk_file *lock; /* under mutex */
} vexi_file_store;

typedef struct vexi_file_path {
    char text[VEXI_FILE_PATH_SIZE_MAX];
} vexi_file_path;

/* The path of the first name_size bytes of a name, in *path; the root's for 0. Names were checked
 * by the wrappers, so it fits and stays below the root. */
const char *vexi_file_path_of(const vexi_file_store *store, const char *name, size_t name_size,
                              vexi_file_path *path);
const char *vexi_file_name_path(const vexi_file_store *store, const char *name,
                                vexi_file_path *path);
/* Size of the part of a name before its last '/', 0 if there is none. */
size_t vexi_file_folder_size(const char *name);

/* Make every folder on the way to `name`, durably. */
vex_status vexi_file_ensure_folders(vexi_file_store *store, const char *name, vex_error *err);
/* Sync the folder that `name` lies in. */
vex_status vexi_file_sync_folder(vexi_file_store *store, const char *name, vex_error *err);
/* Forget which folders are durable: one was deleted by others, or the store ends. */
void vexi_file_forget_folders(vexi_file_store *store);
/* Make the store's root and what is missing above it, durably. */
vex_status vexi_file_make_root(vexi_disk *disk, const char *path, vex_error *err);

/* vexi_store_ops.list. */
vex_status vexi_file_list(vexi_store *store, const char *prefix, const char *after, bool by_folder,
                          vexi_arena *arena, vexi_listing *out, vex_error *err);

#endif
