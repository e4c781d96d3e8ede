/* A store that fails on purpose, by a seed.
 *
 * Wraps another store and numbers its calls. What befalls a call is a function of the plan's seed
 * and the call's number alone, so a run on one thread repeats exactly; with several threads the
 * faults repeat and only who meets them differs.
 *
 * Lost bytes of a log. When the plan has sync errors, appends to a log that was created under it
 * are held back here and reach the inner store at log_sync; a failing sync passes on a part of them
 * and drops the rest. So what was not synced is not yet seen by get, size and map, which is no
 * less than a crash would show. A log that failed takes no more, as its contract says. At log_close
 * unsynced bytes are passed on whole, as by a process that ends without a power failure, but in
 * part after a failure or when the plan says that all calls fail.
 *
 * unmap, log_close and destroy cannot fail and are not counted. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/random.h"
#include "store/store.h"

typedef struct fault_store {
    vexi_store base;
    vexi_store *inner;
    vexi_fault_plan plan; /* changes only while no call is under way */
    atomic_uint_fast64_t calls;
} fault_store;

typedef struct fault_log {
    vexi_log_file base;
    vexi_log_file *inner;
    bool holds_back;       /* immutable */
    pthread_mutex_t mutex; /* guards all below */
    uint8_t *pending;
    size_t pending_size;
    size_t pending_capacity;
    bool failed;
} fault_log;

typedef enum fault_kind { FAULT_PLAIN, FAULT_PUT, FAULT_APPEND, FAULT_SYNC } fault_kind;

typedef enum fault_fate {
    FATE_DONE,
    FATE_ERROR,      /* VEX_IO, nothing done */
    FATE_LOST,       /* done, answered VEX_UNKNOWN_OUTCOME */
    FATE_FULL,       /* VEX_FULL; an append is done in part */
    FATE_SYNC_FAILED /* VEX_IO, unsynced bytes are lost in part */
} fault_fate;

/* What was decided of one call. */
typedef struct fault_call {
    uint64_t number;
    uint64_t random; /* for what else the fault needs */
    fault_fate fate;
} fault_call;

/* A number of the seed, the call and a stream, so that one rate's faults do not move with
 * another's. */
static uint64_t draw(const fault_store *store, uint64_t number, uint64_t stream) {
    return vexi_random_mix(store->plan.seed + number * VEXI_RANDOM_STEP +
                           stream * 0xd1b54a32d192ed03u);
}

static bool chance(const fault_store *store, uint64_t number, uint64_t stream, uint32_t ppm) {
    return draw(store, number, stream) % 1000000 < ppm;
}

static bool is_down(const fault_store *store, uint64_t number) {
    const vexi_fault_plan *plan = &store->plan;
    return plan->fail_at != 0 &&
           (number == plan->fail_at || (plan->fail_after && number > plan->fail_at));
}

static fault_call begin(vexi_store *base, fault_kind kind) {
    fault_store *store = (fault_store *)base;
    const vexi_fault_plan *plan = &store->plan;
    uint64_t number = atomic_fetch_add(&store->calls, 1) + 1;
    fault_call call = {.number = number, .random = draw(store, number, 5)};
    if (is_down(store, number) || chance(store, number, 1, plan->error_ppm)) {
        call.fate = FATE_ERROR;
    } else if ((kind == FAULT_PUT || kind == FAULT_APPEND) &&
               chance(store, number, 2, plan->full_ppm)) {
        call.fate = FATE_FULL;
    } else if (kind == FAULT_PUT && chance(store, number, 3, plan->lost_answer_ppm)) {
        call.fate = FATE_LOST;
    } else if (kind == FAULT_SYNC && chance(store, number, 4, plan->sync_error_ppm)) {
        call.fate = FATE_SYNC_FAILED;
    }
    return call;
}

static vex_status refuse(const fault_call *call, const char *what, const char *name,
                         vex_error *err) {
    vex_status status = VEX_IO;
    if (call->fate == FATE_FULL) {
        status = VEX_FULL;
    } else if (call->fate == FATE_LOST) {
        status = VEX_UNKNOWN_OUTCOME;
    }
    return vexi_fail(err, status, "%s %s: injected fault, call %llu", what, name,
                     (unsigned long long)call->number);
}

static vexi_store *inner_of(vexi_store *base) {
    return ((fault_store *)base)->inner;
}

/* ---- Objects --------------------------------------------------------------------------------- */

static vex_status fault_get(vexi_store *base, const char *name, const vexi_range *ranges,
                            size_t count, vex_error *err) {
    fault_call call = begin(base, FAULT_PLAIN);
    if (call.fate != FATE_DONE) {
        return refuse(&call, "get", name, err);
    }
    return vexi_store_get(inner_of(base), name, ranges, count, err);
}

static vex_status put(vexi_store *base, const char *name, const vexi_span *parts, size_t count,
                      bool if_absent, vex_error *err) {
    fault_call call = begin(base, FAULT_PUT);
    if (call.fate != FATE_DONE && call.fate != FATE_LOST) {
        return refuse(&call, "put", name, err);
    }
    vex_status status = if_absent
                            ? vexi_store_put_if_absent(inner_of(base), name, parts, count, err)
                            : vexi_store_put(inner_of(base), name, parts, count, err);
    /* Whatever the answer was, "exists" too, it does not arrive. */
    return call.fate == FATE_LOST ? refuse(&call, "put", name, err) : status;
}

static vex_status fault_put(vexi_store *base, const char *name, const vexi_span *parts,
                            size_t count, vex_error *err) {
    return put(base, name, parts, count, false, err);
}

static vex_status fault_put_if_absent(vexi_store *base, const char *name, const vexi_span *parts,
                                      size_t count, vex_error *err) {
    return put(base, name, parts, count, true, err);
}

static vex_status fault_list(vexi_store *base, const char *prefix, const char *after,
                             bool by_folder, vexi_arena *arena, vexi_listing *out, vex_error *err) {
    fault_call call = begin(base, FAULT_PLAIN);
    if (call.fate != FATE_DONE) {
        return refuse(&call, "list", prefix, err);
    }
    return vexi_store_list(inner_of(base), prefix, after, by_folder, arena, out, err);
}

static vex_status fault_remove(vexi_store *base, const char *name, vex_error *err) {
    fault_call call = begin(base, FAULT_PLAIN);
    if (call.fate != FATE_DONE) {
        return refuse(&call, "delete", name, err);
    }
    return vexi_store_remove(inner_of(base), name, err);
}

static vex_status fault_size(vexi_store *base, const char *name, uint64_t *out, vex_error *err) {
    fault_call call = begin(base, FAULT_PLAIN);
    if (call.fate != FATE_DONE) {
        return refuse(&call, "ask the size of", name, err);
    }
    return vexi_store_size(inner_of(base), name, out, err);
}

static vex_status fault_map(vexi_store *base, const char *name, vexi_mapping *out, vex_error *err) {
    fault_call call = begin(base, FAULT_PLAIN);
    if (call.fate != FATE_DONE) {
        return refuse(&call, "map", name, err);
    }
    return vexi_store_map(inner_of(base), name, out, err);
}

static void fault_unmap(vexi_store *base, vexi_mapping *mapping) {
    vexi_store_unmap(inner_of(base), mapping);
}

/* ---- Logs ------------------------------------------------------------------------------------ */

static vex_status fault_log_create(vexi_store *base, const char *name, vexi_log_file **out,
                                   vex_error *err) {
    fault_store *store = (fault_store *)base;
    fault_call call = begin(base, FAULT_PLAIN);
    if (call.fate != FATE_DONE) {
        return refuse(&call, "create log", name, err);
    }
    fault_log *log = vexi_calloc(base->env, 1, sizeof *log);
    if (log == NULL) {
        return vexi_no_memory(err, sizeof *log);
    }
    vex_status status = vexi_store_log_create(store->inner, name, &log->inner, err);
    if (status != VEX_OK) {
        vexi_free(base->env, log);
        return status;
    }
    log->base.store = base;
    log->holds_back = store->plan.sync_error_ppm > 0;
    pthread_mutex_init(&log->mutex, NULL);
    *out = &log->base;
    return VEX_OK;
}

static vex_status check_log(const fault_log *log, vex_error *err) {
    return log->failed ? vexi_fail(err, VEX_IO, "a log that failed takes no more") : VEX_OK;
}

/* Pass the first `size` of the parts' bytes on, or hold them back. Call with the mutex held. */
static vex_status append_prefix(fault_log *log, const vexi_span *parts, size_t count, size_t size,
                                vex_error *err) {
    for (size_t i = 0; i < count && size > 0; i++) {
        vexi_span part = parts[i];
        part.size = part.size < size ? part.size : size;
        size -= part.size;
        if (part.size == 0) {
            continue;
        }
        if (!log->holds_back) {
            VEX_TRY(vexi_store_log_append(log->inner, &part, 1, err));
            continue;
        }
        VEX_TRY(vexi_grow(log->base.store->env, (void **)&log->pending, &log->pending_capacity,
                          log->pending_size, log->pending_size + part.size, 1, err));
        memcpy(log->pending + log->pending_size, part.data, part.size);
        log->pending_size += part.size;
    }
    return VEX_OK;
}

static vex_status append_locked(fault_log *log, const vexi_span *parts, size_t count,
                                vex_error *err) {
    VEX_TRY(check_log(log, err));
    fault_call call = begin(log->base.store, FAULT_APPEND);
    if (call.fate == FATE_ERROR) {
        log->failed = true;
        return refuse(&call, "append to", "a log", err);
    }
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(size, parts[i].size, &size)) {
            return vexi_fail(err, VEX_LIMIT, "an append is too large");
        }
    }
    if (call.fate == FATE_FULL) {
        log->failed = true;
        size = size == 0 ? 0 : (size_t)(call.random % size);
        (void)append_prefix(log, parts, count, size, NULL);
        return refuse(&call, "append to", "a log", err);
    }
    if (!log->holds_back) {
        return vexi_store_log_append(log->inner, parts, count, err);
    }
    return append_prefix(log, parts, count, size, err);
}

static vex_status fault_log_append(vexi_log_file *base, const vexi_span *parts, size_t count,
                                   vex_error *err) {
    fault_log *log = (fault_log *)base;
    pthread_mutex_lock(&log->mutex);
    vex_status status = append_locked(log, parts, count, err);
    pthread_mutex_unlock(&log->mutex);
    return status;
}

/* Pass on the first `size` held-back bytes and drop the rest. */
static vex_status release_pending(fault_log *log, size_t size, vex_error *err) {
    vexi_span part = {.data = log->pending, .size = size};
    log->pending_size = 0;
    return size == 0 ? VEX_OK : vexi_store_log_append(log->inner, &part, 1, err);
}

static vex_status sync_locked(fault_log *log, vex_error *err) {
    VEX_TRY(check_log(log, err));
    fault_call call = begin(log->base.store, FAULT_SYNC);
    if (call.fate != FATE_DONE) {
        log->failed = true;
        if (call.fate == FATE_SYNC_FAILED && log->pending_size > 0) {
            (void)release_pending(log, (size_t)(call.random % log->pending_size), NULL);
        }
        return refuse(&call, "sync", "a log", err);
    }
    vex_status status = release_pending(log, log->pending_size, err);
    if (status == VEX_OK) {
        status = vexi_store_log_sync(log->inner, err);
    }
    log->failed = status != VEX_OK;
    return status;
}

static vex_status fault_log_sync(vexi_log_file *base, vex_error *err) {
    fault_log *log = (fault_log *)base;
    pthread_mutex_lock(&log->mutex);
    vex_status status = sync_locked(log, err);
    pthread_mutex_unlock(&log->mutex);
    return status;
}

static void fault_log_close(vexi_log_file *base) {
    fault_log *log = (fault_log *)base;
    const fault_store *store = (const fault_store *)base->store;
    if (log->pending_size > 0) {
        uint64_t number = atomic_load(&store->calls) + 1;
        size_t size = log->pending_size;
        if (log->failed || is_down(store, number)) {
            size = (size_t)(draw(store, number, 6) % (size + 1));
        }
        (void)release_pending(log, size, NULL);
    }
    vexi_store_log_close(log->inner);
    pthread_mutex_destroy(&log->mutex);
    vexi_free(base->store->env, log->pending);
    vexi_free(base->store->env, log);
}

/* ---- Lock, life ------------------------------------------------------------------------------ */

static vex_status fault_lock(vexi_store *base, const char *name, vex_error *err) {
    fault_call call = begin(base, FAULT_PLAIN);
    if (call.fate != FATE_DONE) {
        return refuse(&call, "lock", name, err);
    }
    return vexi_store_lock(inner_of(base), name, err);
}

static void fault_unlock(vexi_store *base) {
    vexi_store_unlock(inner_of(base));
}

static void fault_destroy(vexi_store *base) {
    fault_store *store = (fault_store *)base;
    vexi_store_destroy(store->inner);
    vexi_free(base->env, (void *)(uintptr_t)base->ops);
    vexi_free(base->env, store);
}

vex_status vexi_store_fault_create(const vexi_env *env, vexi_store *inner,
                                   const vexi_fault_plan *plan, vexi_store **out, vex_error *err) {
    *out = NULL;
    fault_store *store = vexi_calloc(env, 1, sizeof *store);
    vexi_store_ops *ops = vexi_alloc(env, sizeof *ops);
    if (store == NULL || ops == NULL) {
        vexi_free(env, store);
        vexi_free(env, ops);
        vexi_store_destroy(inner);
        return vexi_no_memory(err, sizeof *store);
    }
    /* A table of its own, because it can do what the inner one can. */
    *ops = (vexi_store_ops){
        .flags = vexi_store_flags(inner),
        .get = fault_get,
        .put = fault_put,
        .put_if_absent = fault_put_if_absent,
        .list = fault_list,
        .remove = fault_remove,
        .size = fault_size,
        .map = fault_map,
        .unmap = fault_unmap,
        .log_create = fault_log_create,
        .log_append = fault_log_append,
        .log_sync = fault_log_sync,
        .log_close = fault_log_close,
        .lock = fault_lock,
        .unlock = fault_unlock,
        .destroy = fault_destroy,
    };
    store->base = (vexi_store){.ops = ops, .env = env};
    store->inner = inner;
    store->plan = *plan;
    atomic_init(&store->calls, 0);
    *out = &store->base;
    return VEX_OK;
}

uint64_t vexi_store_fault_calls(const vexi_store *base) {
    return atomic_load(&((const fault_store *)base)->calls);
}

void vexi_store_fault_set(vexi_store *base, const vexi_fault_plan *plan) {
    fault_store *store = (fault_store *)base;
    store->plan = *plan;
    atomic_store(&store->calls, 0);
}
