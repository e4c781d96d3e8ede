/* What the parts of the simulated disk share: its files and folders, what of them is durable, and
 * what a crash leaves. disk_sim.c tells the idea. All of it under the disk's mutex. */
#ifndef VEXI_STORE_DISK_SIM_INTERNAL_H
#define VEXI_STORE_DISK_SIM_INTERNAL_H

#include <pthread.h>

#include "store/disk.h"

typedef struct vexi_sim_node vexi_sim_node;

typedef struct vexi_sim_extent {
    size_t start;
    size_t end;
} vexi_sim_extent;

/* One name in a folder; a NULL node means that the name is not there. */
typedef struct vexi_sim_entry {
    char *name;
    vexi_sim_node *now;
    vexi_sim_node *durable;
    vexi_sim_node **between; /* states since the last sync, the present one included */
    size_t between_count;
    size_t between_capacity;
} vexi_sim_entry;

typedef struct vexi_sim_bytes {
    uint8_t *data;
    size_t size;
    size_t capacity;
} vexi_sim_bytes;

struct vexi_sim_node {
    vexi_sim_node *next; /* of all nodes */
    bool is_folder;
    bool marked; /* by the sweep */
    bool locked;
    uint64_t handle_count;
    int64_t modified_us;
    vexi_sim_bytes seen;
    vexi_sim_bytes kept;
    vexi_sim_extent *extents;
    size_t extent_count;
    size_t extent_capacity;
    vexi_sim_entry *entries;
    size_t entry_count;
    size_t entry_capacity;
};

typedef struct vexi_sim_disk {
    vexi_disk base;
    pthread_mutex_t mutex; /* guards all below */
    uint64_t random;
    uint64_t epoch; /* counts restarts: handles of an older one are stale */
    uint64_t steps;
    uint64_t crash_step;
    uint64_t fail_step;
    vex_status fail_status;
    bool crashed;
    vexi_sim_node *nodes;
    vexi_sim_node *root;
} vexi_sim_disk;

/* Where a path leads: the folder of its last segment, and the node there, NULL if there is none.
 * The root itself has no folder. */
typedef struct vexi_sim_place {
    vexi_sim_node *folder;
    const char *name;
    size_t name_size;
    vexi_sim_node *node;
} vexi_sim_place;

/* A number below `bound` (not 0), by the seed. */
size_t vexi_sim_random_below(vexi_sim_disk *disk, size_t bound);

/* Grow the seen bytes to `size`, new ones zero, and reserve the kept ones, so that no later step of
 * this file needs memory. */
vex_status vexi_sim_extend_file(vexi_sim_disk *disk, vexi_sim_node *node, size_t size,
                                vex_error *err);
/* Seen bytes from start to end reach the platters. */
void vexi_sim_keep_bytes(vexi_sim_node *node, size_t start, size_t end);
/* Decide what the platters hold of the unsynced extents, which then count as clean. */
void vexi_sim_resolve_file(vexi_sim_disk *disk, vexi_sim_node *node);

/* A file or folder without a name; NULL without memory. The disk owns it. */
vexi_sim_node *vexi_sim_node_create(vexi_sim_disk *disk, bool is_folder);
void vexi_sim_node_free(const vexi_env *env, vexi_sim_node *node);

vex_status vexi_sim_resolve_path(vexi_sim_disk *disk, const char *path, vexi_sim_place *out,
                                 vex_error *err);
/* The same, for something that must be there. */
vex_status vexi_sim_resolve_node(vexi_sim_disk *disk, const char *path, bool is_folder,
                                 vexi_sim_place *out, vex_error *err);
/* Make sure that set_entry can change this place without memory. */
vex_status vexi_sim_reserve_entry(vexi_sim_disk *disk, const vexi_sim_place *place, vex_error *err);
void vexi_sim_set_entry(const vexi_sim_place *place, vexi_sim_node *node);
/* Drop names that mean nothing any more. */
void vexi_sim_compact_folder(const vexi_env *env, vexi_sim_node *folder);
/* Resolve every file and folder as after a crash, and free what nothing reaches. */
void vexi_sim_resolve_all(vexi_sim_disk *disk);

#endif
