/* Putting an object that must be there once, whatever becomes of answers. */
#include "table/table_internal.h"

enum { PUT_TRY_MAX = 4 };

/* VEX_OK if exactly these bytes are under the name, VEX_EXISTS if others are, VEX_NOT_FOUND if
 * nothing is. */
static vex_status read_back(vexi_core *core, const char *name, vexi_span bytes, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, core->env);
    vexi_span found;
    vex_status status = vexi_store_get_all(core->store, name, bytes.size, &arena, &found, err);
    if (status == VEX_LIMIT || /* it is larger */
        (status == VEX_OK &&
         (found.size != bytes.size || memcmp(found.data, bytes.data, found.size) != 0))) {
        status = vexi_fail(err, VEX_EXISTS, "%s was put by someone else", name);
    }
    vexi_arena_deinit(&arena);
    return status;
}

vex_status table_put_once(vexi_core *core, const char *name, vexi_span bytes, vex_error *err) {
    bool unknown = false;
    for (int i = 0; i < PUT_TRY_MAX; i++) {
        vex_status status = vexi_store_put_if_absent(core->store, name, &bytes, 1, err);
        if (status == VEX_EXISTS) {
            /* What is there is durable; ours only if an earlier try went through. */
            status = read_back(core, name, bytes, err);
            if (status == VEX_OK || status == VEX_EXISTS) {
                return status;
            }
        } else if (status == VEX_OK || (!unknown && status != VEX_UNKNOWN_OUTCOME)) {
            return status; /* done, or certainly not done */
        }
        unknown = true;
    }
    return vexi_prefix(err, VEX_UNKNOWN_OUTCOME, "%s", name);
}
