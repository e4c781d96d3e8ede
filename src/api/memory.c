/* One budget, three users.
 *
 * A process is given so much memory (memory_bytes; three quarters of the machine's where nobody
 * says). Of it
 *
 *     new rows (memtables)   a quarter, at most 1 GiB: more would only make a restart longer
 *     graphs                 a half, or three quarters where there is no cache
 *     cache, level 1         a quarter, for lakes on s3:// alone
 *
 * and each part can be told by itself. The shares are fixed: memory that moves between users needs
 * each of them to give some back on demand, and neither rows that are not yet in a segment nor a
 * graph that searches walk can do that at once. What remains of the machine is for the blocks that
 * searches fetch, for results, and for the page cache, which is what makes a local lake fast. */
#include "api/memory.h"

static const uint64_t memtable_bytes_max = UINT64_C(1) << 30;

vexi_memory_plan vexi_memory_share(const vex_lake_options *options, uint64_t machine_bytes,
                                   bool is_remote) {
    uint64_t all = options->memory_bytes != 0 ? options->memory_bytes : machine_bytes / 4 * 3;
    uint64_t quarter = all / 4 > 0 ? all / 4 : 1;
    uint64_t rows = quarter < memtable_bytes_max ? quarter : memtable_bytes_max;
    vexi_memory_plan plan = {
        .memtable_bytes = options->memory_limit_bytes != 0 ? options->memory_limit_bytes : rows,
        .graph_bytes = options->graph_memory_bytes != 0 ? options->graph_memory_bytes
                                                        : quarter * (is_remote ? 2 : 3),
    };
    if (is_remote) {
        plan.cache_bytes = options->cache_memory_bytes != 0 ? options->cache_memory_bytes : quarter;
    }
    return plan;
}
