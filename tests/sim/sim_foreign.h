/* Another engine: commits to a collection's Delta log without the lake knowing.
 *
 * It writes plain Parquet files without index, tags or transactions, as Spark would, straight to a
 * store. Each call makes one commit; if a version is taken it reads on and tries the next. */
#ifndef VEX_TESTS_SIM_FOREIGN_H
#define VEX_TESTS_SIM_FOREIGN_H

#include "sim/sim_model.h"

typedef struct sim_foreign {
    const vexi_env *env;
    vexi_store *store; /* borrowed */
    const char *folder;
} sim_foreign;

/* Append a file with these rows (versions above 0, an id may be there twice). path, 64 bytes or
 * NULL, receives its name. */
vex_status sim_foreign_append(const sim_foreign *foreign, const vexi_schema *schema,
                              const sim_change *rows, size_t count, char *path, vex_error *err);
/* Remove a data file by its name. */
vex_status sim_foreign_remove(const sim_foreign *foreign, const char *path, vex_error *err);
/* Replace the deletion vector of a data file of row_count rows: hide `row` too, or with `only`
 * nothing but it. */
vex_status sim_foreign_delete(const sim_foreign *foreign, const char *path, uint64_t row_count,
                              uint64_t row, bool only, vex_error *err);
/* A commit that says nothing about files. */
vex_status sim_foreign_touch(const sim_foreign *foreign, vex_error *err);

#endif
