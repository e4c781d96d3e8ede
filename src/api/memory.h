/* How the memory that a process may use is shared between what asks for it. */
#ifndef VEXI_API_MEMORY_H
#define VEXI_API_MEMORY_H

#include "vexlake.h"

typedef struct vexi_memory_plan {
    uint64_t memtable_bytes; /* new rows of all collections */
    uint64_t graph_bytes;
    uint64_t cache_bytes; /* level 1 of the cache; 0 for a lake that has none */
} vexi_memory_plan;

/* Share options->memory_bytes; `machine_bytes` is asked where that is 0. is_remote: the lake has a
 * cache. Parts that the options tell are taken as they are. */
vexi_memory_plan vexi_memory_share(const vex_lake_options *options, uint64_t machine_bytes,
                                   bool is_remote);

#endif
