/* Internals of the public header's implementation: the handle, and options of any age. */
#ifndef VEXI_API_API_H
#define VEXI_API_API_H

#include "query/keeper.h"
#include "store/disk.h"
#include "table/table.h"

struct vex_lake {
    vexi_keeper *keeper; /* a reference; immutable */
    vexi_lake *lake;     /* immutable */
};

/* Copy an options struct that begins with its size. Callers built against an older header give a
 * smaller one: what they lack is zero, the default. A larger one is of a newer header: fine as long
 * as what we do not know is zero, else VEX_UNSUPPORTED. options NULL: all defaults. A size of 0 is
 * VEX_INVALID, since it is a forgotten field. `type` names the struct. */
vex_status vexi_options_copy(const void *options, const char *type, void *out, size_t out_size,
                             vex_error *err);

/* What an S3 store and the cache over it tell. The limits are the caller's. */
void vexi_api_remote_stats(vexi_store *s3, vexi_store *cache, vex_lake_stats *out);

/* A table by its collection's name; release it. */
vex_status vexi_api_table(vex_lake *lake, vex_string name, vexi_table **out, vex_error *err);

#endif
