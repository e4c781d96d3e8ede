#include "sim/sim_hook.h"

#include "check.h"

typedef struct hook_store {
    vexi_store base;
    vexi_store *inner;
    const sim_hook *hook;
} hook_store;

typedef struct hook_log {
    vexi_log_file base;
    vexi_log_file *inner;
} hook_log;

static vexi_store *inner_of(vexi_store *base) {
    return ((hook_store *)base)->inner;
}

static vex_status hook_get(vexi_store *base, const char *name, const vexi_range *ranges,
                           size_t count, vex_error *err) {
    return vexi_store_get(inner_of(base), name, ranges, count, err);
}

static vex_status hook_put(vexi_store *base, const char *name, const vexi_span *parts, size_t count,
                           vex_error *err) {
    return vexi_store_put(inner_of(base), name, parts, count, err);
}

static vex_status hook_put_if_absent(vexi_store *base, const char *name, const vexi_span *parts,
                                     size_t count, vex_error *err) {
    const sim_hook *hook = ((hook_store *)base)->hook;
    if (hook->before_put != NULL) {
        hook->before_put(hook->context, name);
    }
    return vexi_store_put_if_absent(inner_of(base), name, parts, count, err);
}

static vex_status hook_list(vexi_store *base, const char *prefix, const char *after, bool by_folder,
                            vexi_arena *arena, vexi_listing *out, vex_error *err) {
    return vexi_store_list(inner_of(base), prefix, after, by_folder, arena, out, err);
}

static vex_status hook_remove(vexi_store *base, const char *name, vex_error *err) {
    return vexi_store_remove(inner_of(base), name, err);
}

static vex_status hook_size(vexi_store *base, const char *name, uint64_t *out, vex_error *err) {
    return vexi_store_size(inner_of(base), name, out, err);
}

static vex_status hook_map(vexi_store *base, const char *name, vexi_mapping *out, vex_error *err) {
    return vexi_store_map(inner_of(base), name, out, err);
}

static void hook_unmap(vexi_store *base, vexi_mapping *mapping) {
    vexi_store_unmap(inner_of(base), mapping);
}

static vex_status hook_log_create(vexi_store *base, const char *name, vexi_log_file **out,
                                  vex_error *err) {
    vexi_log_file *inner;
    VEX_TRY(vexi_store_log_create(inner_of(base), name, &inner, err));
    hook_log *log = malloc(sizeof *log);
    CHECK(log != NULL);
    *log = (hook_log){.base = {.store = base}, .inner = inner};
    *out = &log->base;
    return VEX_OK;
}

static vex_status hook_log_append(vexi_log_file *log, const vexi_span *parts, size_t count,
                                  vex_error *err) {
    return vexi_store_log_append(((hook_log *)log)->inner, parts, count, err);
}

static vex_status hook_log_sync(vexi_log_file *log, vex_error *err) {
    return vexi_store_log_sync(((hook_log *)log)->inner, err);
}

static void hook_log_close(vexi_log_file *log) {
    vexi_store_log_close(((hook_log *)log)->inner);
    free(log);
}

static vex_status hook_lock(vexi_store *base, const char *name, vex_error *err) {
    return vexi_store_lock(inner_of(base), name, err);
}

static void hook_unlock(vexi_store *base) {
    vexi_store_unlock(inner_of(base));
}

static void hook_destroy(vexi_store *base) {
    vexi_store_destroy(inner_of(base));
    free(base);
}

static const vexi_store_ops hook_ops = {
    .flags = VEXI_STORE_CAN_MAP | VEXI_STORE_CAN_LOG | VEXI_STORE_CAN_LOCK,
    .get = hook_get,
    .put = hook_put,
    .put_if_absent = hook_put_if_absent,
    .list = hook_list,
    .remove = hook_remove,
    .size = hook_size,
    .map = hook_map,
    .unmap = hook_unmap,
    .log_create = hook_log_create,
    .log_append = hook_log_append,
    .log_sync = hook_log_sync,
    .log_close = hook_log_close,
    .lock = hook_lock,
    .unlock = hook_unlock,
    .destroy = hook_destroy,
};

vexi_store *sim_hook_create(vexi_store *inner, const sim_hook *hook) {
    hook_store *store = calloc(1, sizeof *store);
    CHECK(store != NULL && (vexi_store_flags(inner) & hook_ops.flags) == hook_ops.flags);
    store->base = (vexi_store){.ops = &hook_ops, .env = inner->env};
    store->inner = inner;
    store->hook = hook;
    return &store->base;
}
