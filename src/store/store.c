/* Store: what is common to all implementations.
 *
 * Every call passes here before it reaches an implementation, so names are checked once, before
 * any path or URL is built from them: a name that gets through cannot climb out of the store's
 * root ("..", "//", a leading '/'), cannot be too long for a file system, and cannot meet the
 * temporary files that a file store keeps (segments that begin with ".tmp-").
 *
 * vexi_object is the reader that upper layers use: it hides whether bytes come from a mapping
 * (local disk, memory) or from range requests (network), so that a search is written once. */
#include "store/store.h"

static const char temporary_prefix[] = ".tmp-";

/* The characters that every store can hold unescaped. */
static bool is_name_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '~' || c == '=' || c == '-';
}

/* What is wrong with a segment, or NULL. */
static const char *segment_problem(const char *segment, size_t size) {
    if (size == 0) {
        return "has an empty segment";
    }
    if (size > VEXI_STORE_SEGMENT_SIZE_MAX) {
        return "has a segment of more than 255 bytes";
    }
    if ((size == 1 && segment[0] == '.') || (size == 2 && segment[0] == '.' && segment[1] == '.')) {
        return "has a segment '.' or '..'";
    }
    size_t temporary_size = sizeof temporary_prefix - 1;
    if (size >= temporary_size && memcmp(segment, temporary_prefix, temporary_size) == 0) {
        return "has a segment that begins with '.tmp-'";
    }
    for (size_t i = 0; i < size; i++) {
        if (!is_name_character(segment[i])) {
            return "has a character outside [A-Za-z0-9._~=-]";
        }
    }
    return NULL;
}

/* What is wrong with a name, or NULL. The last segment of a prefix is not a whole segment, so only
 * its characters count there. */
static const char *name_problem(const char *name, bool is_prefix) {
    size_t size = strlen(name);
    if (size > VEXI_STORE_NAME_SIZE_MAX) {
        return "is longer than 1024 bytes";
    }
    if (size == 0) {
        return is_prefix ? NULL : "is empty";
    }
    size_t start = 0;
    for (size_t i = 0; i <= size; i++) {
        if (i < size && name[i] != '/') {
            continue;
        }
        if (i == size && is_prefix) {
            for (size_t j = start; j < size; j++) {
                if (!is_name_character(name[j])) {
                    return "has a character outside [A-Za-z0-9._~=-]";
                }
            }
            return NULL;
        }
        const char *problem = segment_problem(name + start, i - start);
        if (problem != NULL) {
            return problem;
        }
        start = i + 1;
    }
    return NULL;
}

bool vexi_store_name_valid(const char *name) {
    return name_problem(name, false) == NULL;
}

/* A hostile name is shown with its odd bytes replaced and cut: it goes into logs and replies. */
static vex_status refuse_name(const char *name, const char *problem, vex_error *err) {
    char shown[81];
    size_t size = 0;
    for (; size + 1 < sizeof shown && name[size] != '\0'; size++) {
        shown[size] = name[size] >= 0x20 && name[size] < 0x7f ? name[size] : '?';
    }
    shown[size] = '\0';
    return vexi_fail(err, VEX_INVALID, "object name '%s' %s", shown, problem);
}

static vex_status check_name(const char *name, vex_error *err) {
    const char *problem = name_problem(name, false);
    return problem == NULL ? VEX_OK : refuse_name(name, problem, err);
}

static vex_status check_flag(const vexi_store *store, uint32_t flag, const char *what,
                             vex_error *err) {
    if ((store->ops->flags & flag) == 0) {
        return vexi_fail(err, VEX_UNSUPPORTED, "this store cannot %s", what);
    }
    return VEX_OK;
}

/* ---- Counting --------------------------------------------------------------------------------
 *
 * Here rather than in a store that wraps another: all calls pass here, so nothing is dispatched
 * twice, logs and mappings need no handle of their own, and a store without counters pays for one
 * comparison. */

void vexi_store_count(vexi_store *store, vexi_store_counters *counters) {
    store->counters = counters;
}

/* A call under way. What it needs at its end is here: a store may be destroyed, which makes its
 * calls return, while they are on their way out. */
typedef struct counted_call {
    vexi_store_counters *counters;
    const vexi_env *env;
    uint64_t start_ns;
} counted_call;

static counted_call count_begin(const vexi_store *store) {
    counted_call call = {.counters = store->counters, .env = store->env};
    call.start_ns = call.counters != NULL ? vexi_monotonic_ns(call.env) : 0;
    return call;
}

/* Passes the status on. */
static vex_status count_end(const counted_call *call, vex_store_operation kind, uint64_t size,
                            vex_status status) {
    if (call->counters == NULL) {
        return status;
    }
    vexi_store_counter *counter = &call->counters->kinds[kind];
    vexi_histogram_add(&counter->latency, vexi_monotonic_ns(call->env) - call->start_ns, 1);
    if (status == VEX_OK) {
        atomic_fetch_add_explicit(&counter->bytes, size, memory_order_relaxed);
    } else if (status != VEX_NOT_FOUND && status != VEX_EXISTS) {
        atomic_fetch_add_explicit(&counter->errors, 1, memory_order_relaxed);
    }
    return status;
}

static uint64_t parts_size(const vexi_span *parts, size_t count) {
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += parts[i].size;
    }
    return size;
}

static vex_status remove_one(vexi_store *store, const char *name, vex_error *err) {
    counted_call call = count_begin(store);
    vex_status status = store->ops->remove(store, name, err);
    return count_end(&call, VEX_STORE_REMOVE, 0, status);
}

/* ---- Operations ------------------------------------------------------------------------------ */

vex_status vexi_store_get(vexi_store *store, const char *name, const vexi_range *ranges,
                          size_t count, vex_error *err) {
    VEX_TRY(check_name(name, err));
    uint64_t size = 0;
    for (size_t i = 0; i < count && store->counters != NULL; i++) {
        size += ranges[i].size;
    }
    counted_call call = count_begin(store);
    vex_status status = store->ops->get(store, name, ranges, count, err);
    return count_end(&call, VEX_STORE_GET, size, status);
}

static uint64_t ranges_size(const vexi_store_read *gets, size_t count) {
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++) {
        for (size_t r = 0; r < gets[i].count; r++) {
            size += gets[i].ranges[r].size;
        }
    }
    return size;
}

/* Where a store has no get_many: its gets side by side. */
typedef struct gets_job {
    vexi_store *store;
    const vexi_store_read *gets;
    struct get_result {
        vex_status status;
        vex_error err;
    } * results;
} gets_job;

static void gets_run(void *argument, size_t i) {
    const gets_job *job = argument;
    const vexi_store_read *get = &job->gets[i];
    job->results[i].status =
        job->store->ops->get(job->store, get->name, get->ranges, get->count, &job->results[i].err);
}

static vex_status get_each(vexi_store *store, const vexi_store_read *gets, size_t count,
                           vexi_read_cost *cost, size_t *failed, vex_error *err) {
    vex_status status = VEX_OK;
    if (count == 1) {
        status = store->ops->get(store, gets->name, gets->ranges, gets->count, err);
    } else {
        gets_job job = {.store = store, .gets = gets};
        job.results = vexi_alloc_array(store->env, count, sizeof *job.results);
        if (job.results == NULL) {
            return vexi_no_memory(err, count * sizeof *job.results);
        }
        vexi_parallel(store->env, count, gets_run, &job);
        for (size_t i = 0; i < count && status == VEX_OK; i++) {
            status = job.results[i].status;
            if (status != VEX_OK) {
                *failed = i;
                if (err != NULL) {
                    *err = job.results[i].err;
                }
            }
        }
        vexi_free(store->env, job.results);
    }
    if (status == VEX_OK) {
        cost->steps++;
        cost->requests += count;
        cost->bytes += ranges_size(gets, count);
    }
    return status;
}

vex_status vexi_store_get_many(vexi_store *store, const vexi_store_read *gets, size_t count,
                               size_t request_max, vexi_read_cost *cost, size_t *failed,
                               vex_error *err) {
    vexi_read_cost own_cost = {0};
    size_t own_failed = 0;
    cost = cost == NULL ? &own_cost : cost;
    failed = failed == NULL ? &own_failed : failed;
    *failed = 0;
    if (count == 0) {
        return VEX_OK;
    }
    for (size_t i = 0; i < count; i++) {
        *failed = i;
        VEX_TRY(check_name(gets[i].name, err));
    }
    *failed = 0;
    uint64_t size = store->counters == NULL ? 0 : ranges_size(gets, count);
    counted_call call = count_begin(store);
    uint64_t start_ns = vexi_monotonic_ns(store->env), before_ns = cost->ns;
    vex_status status =
        store->ops->get_many != NULL
            ? store->ops->get_many(store, gets, count, request_max, cost, failed, err)
            : get_each(store, gets, count, cost, failed, err);
    /* A store inside this one has added its own time, which is part of it. */
    cost->ns = before_ns + (vexi_monotonic_ns(store->env) - start_ns);
    return count_end(&call, VEX_STORE_GET, size, status);
}

vex_status vexi_store_get_all(vexi_store *store, const char *name, size_t size_max,
                              vexi_arena *arena, vexi_span *out, vex_error *err) {
    *out = (vexi_span){0};
    if (store->ops->get_all != NULL) {
        VEX_TRY(check_name(name, err));
        counted_call call = count_begin(store);
        vex_status status = store->ops->get_all(store, name, size_max, arena, out, err);
        return count_end(&call, VEX_STORE_GET, out->size, status);
    }
    uint64_t size = 0;
    VEX_TRY(vexi_store_size(store, name, &size, err));
    if (size > size_max || size >= SIZE_MAX) {
        return vexi_fail(err, VEX_LIMIT, "%s has %llu bytes, more than the %zu allowed", name,
                         (unsigned long long)size, size_max);
    }
    uint8_t *data = vexi_arena_alloc(arena, (size_t)size + 1);
    if (data == NULL) {
        return vexi_no_memory(err, (size_t)size + 1);
    }
    if (size > 0) {
        vexi_range range = {.offset = 0, .size = (size_t)size, .target = data};
        VEX_TRY(vexi_store_get(store, name, &range, 1, err));
    }
    data[size] = 0;
    *out = vexi_span_of(data, (size_t)size);
    return VEX_OK;
}

vex_status vexi_store_put(vexi_store *store, const char *name, const vexi_span *parts, size_t count,
                          vex_error *err) {
    VEX_TRY(check_name(name, err));
    counted_call call = count_begin(store);
    vex_status status = store->ops->put(store, name, parts, count, err);
    return count_end(&call, VEX_STORE_PUT, parts_size(parts, count), status);
}

vex_status vexi_store_put_if_absent(vexi_store *store, const char *name, const vexi_span *parts,
                                    size_t count, vex_error *err) {
    VEX_TRY(check_name(name, err));
    counted_call call = count_begin(store);
    vex_status status = store->ops->put_if_absent(store, name, parts, count, err);
    return count_end(&call, VEX_STORE_PUT_IF_ABSENT, parts_size(parts, count), status);
}

vex_status vexi_store_list(vexi_store *store, const char *prefix, const char *after, bool by_folder,
                           vexi_arena *arena, vexi_listing *out, vex_error *err) {
    *out = (vexi_listing){0};
    const char *problem = name_problem(prefix, true);
    if (problem != NULL) {
        return refuse_name(prefix, problem, err);
    }
    counted_call call = count_begin(store);
    vex_status status = store->ops->list(store, prefix, after, by_folder, arena, out, err);
    return count_end(&call, VEX_STORE_LIST, 0, status);
}

vex_status vexi_store_remove(vexi_store *store, const char *name, vex_error *err) {
    VEX_TRY(check_name(name, err));
    return remove_one(store, name, err);
}

vex_status vexi_store_remove_many(vexi_store *store, const char *const *names, size_t count,
                                  vex_error *err) {
    for (size_t i = 0; i < count; i++) {
        VEX_TRY(check_name(names[i], err));
    }
    if (store->ops->remove_many != NULL) {
        counted_call call = count_begin(store);
        vex_status status = store->ops->remove_many(store, names, count, err);
        return count_end(&call, VEX_STORE_REMOVE, 0, status);
    }
    for (size_t i = 0; i < count; i++) {
        VEX_TRY(remove_one(store, names[i], err));
    }
    return VEX_OK;
}

vex_status vexi_store_size(vexi_store *store, const char *name, uint64_t *out, vex_error *err) {
    *out = 0;
    VEX_TRY(check_name(name, err));
    counted_call call = count_begin(store);
    vex_status status = store->ops->size(store, name, out, err);
    return count_end(&call, VEX_STORE_SIZE, 0, status);
}

vex_status vexi_store_warm(vexi_store *store, const char *name, const vexi_range *ranges,
                           size_t count, vex_error *err) {
    VEX_TRY(check_name(name, err));
    return store->ops->warm == NULL ? VEX_OK : store->ops->warm(store, name, ranges, count, err);
}

void vexi_store_distrust(vexi_store *store, const char *name) {
    if (store->ops->distrust != NULL && name_problem(name, false) == NULL) {
        store->ops->distrust(store, name);
    }
}

vex_status vexi_store_map(vexi_store *store, const char *name, vexi_mapping *out, vex_error *err) {
    *out = (vexi_mapping){0};
    VEX_TRY(check_flag(store, VEXI_STORE_CAN_MAP, "map objects", err));
    VEX_TRY(check_name(name, err));
    counted_call call = count_begin(store);
    vex_status status = store->ops->map(store, name, out, err);
    return count_end(&call, VEX_STORE_MAP, out->size, status);
}

void vexi_store_unmap(vexi_store *store, vexi_mapping *mapping) {
    if (mapping->data != NULL || mapping->handle != NULL) {
        store->ops->unmap(store, mapping);
    }
    *mapping = (vexi_mapping){0};
}

vex_status vexi_store_log_create(vexi_store *store, const char *name, vexi_log_file **out,
                                 vex_error *err) {
    *out = NULL;
    VEX_TRY(check_flag(store, VEXI_STORE_CAN_LOG, "keep logs", err));
    VEX_TRY(check_name(name, err));
    counted_call call = count_begin(store);
    vex_status status = store->ops->log_create(store, name, out, err);
    return count_end(&call, VEX_STORE_LOG_CREATE, 0, status);
}

vex_status vexi_store_log_append(vexi_log_file *log, const vexi_span *parts, size_t count,
                                 vex_error *err) {
    vexi_store *store = log->store;
    counted_call call = count_begin(store);
    vex_status status = store->ops->log_append(log, parts, count, err);
    return count_end(&call, VEX_STORE_LOG_APPEND, parts_size(parts, count), status);
}

vex_status vexi_store_log_sync(vexi_log_file *log, vex_error *err) {
    vexi_store *store = log->store;
    counted_call call = count_begin(store);
    vex_status status = store->ops->log_sync(log, err);
    return count_end(&call, VEX_STORE_LOG_SYNC, 0, status);
}

void vexi_store_log_close(vexi_log_file *log) {
    if (log != NULL) {
        log->store->ops->log_close(log);
    }
}

vex_status vexi_store_lock(vexi_store *store, const char *name, vex_error *err) {
    VEX_TRY(check_flag(store, VEXI_STORE_CAN_LOCK, "be locked", err));
    VEX_TRY(check_name(name, err));
    return store->ops->lock(store, name, err);
}

void vexi_store_unlock(vexi_store *store) {
    if ((store->ops->flags & VEXI_STORE_CAN_LOCK) != 0) {
        store->ops->unlock(store);
    }
}

void vexi_store_destroy(vexi_store *store) {
    if (store != NULL) {
        store->ops->destroy(store);
    }
}

/* ---- Objects --------------------------------------------------------------------------------- */

vex_status vexi_object_open(vexi_store *store, const char *name, uint64_t size_bytes,
                            vexi_object *out, vex_error *err) {
    *out = (vexi_object){0};
    vexi_object object = {.store = store};
    if ((store->ops->flags & VEXI_STORE_CAN_MAP) != 0) {
        VEX_TRY(vexi_store_map(store, name, &object.mapping, err));
        object.size_bytes = object.mapping.size;
    } else if (size_bytes == UINT64_MAX) {
        VEX_TRY(vexi_store_size(store, name, &object.size_bytes, err));
    } else {
        VEX_TRY(check_name(name, err));
        object.size_bytes = size_bytes;
        if (store->ops->tell_size != NULL) {
            store->ops->tell_size(store, name, size_bytes);
        }
    }
    vex_status status = VEX_OK;
    if (size_bytes != UINT64_MAX && size_bytes != object.size_bytes) {
        status = vexi_fail(err, VEX_CORRUPT, "%s has %llu bytes instead of %llu", name,
                           (unsigned long long)object.size_bytes, (unsigned long long)size_bytes);
    } else {
        size_t name_size = strlen(name) + 1;
        object.name = vexi_alloc(store->env, name_size);
        if (object.name == NULL) {
            status = vexi_no_memory(err, name_size);
        } else {
            memcpy(object.name, name, name_size);
        }
    }
    if (status != VEX_OK) {
        vexi_store_unmap(store, &object.mapping);
        return status;
    }
    *out = object;
    return VEX_OK;
}

void vexi_object_close(vexi_object *object) {
    if (object->store != NULL) {
        vexi_store_unmap(object->store, &object->mapping);
        vexi_free(object->store->env, object->name);
    }
    *object = (vexi_object){0};
}

/* Where the bytes of pieces of no size are. */
static const uint8_t nothing[1];

static vex_status pieces_check(const vexi_object *object, vexi_piece *pieces, size_t count,
                               vex_error *err) {
    for (size_t i = 0; i < count; i++) {
        vexi_piece *piece = &pieces[i];
        piece->data = NULL;
        if (piece->offset > object->size_bytes ||
            piece->size > object->size_bytes - piece->offset) {
            return vexi_fail(err, VEX_CORRUPT, "%s: bytes %llu to %llu are outside its %llu",
                             object->name, (unsigned long long)piece->offset,
                             (unsigned long long)piece->offset + piece->size,
                             (unsigned long long)object->size_bytes);
        }
    }
    return VEX_OK;
}

/* Point into the mapping; false where bytes must be fetched. */
static bool pieces_mapped(const vexi_object *object, vexi_piece *pieces, size_t count) {
    if (object->mapping.data == NULL && object->size_bytes != 0) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        pieces[i].data = pieces[i].size == 0 ? nothing : object->mapping.data + pieces[i].offset;
    }
    return true;
}

/* One more range for each piece that has bytes; pieces get their addresses. */
static vex_status pieces_range(vexi_piece *pieces, size_t count, vexi_arena *arena,
                               vexi_range *ranges, size_t *range_count, vex_error *err) {
    for (size_t i = 0; i < count; i++) {
        vexi_piece *piece = &pieces[i];
        if (piece->size == 0) {
            piece->data = nothing;
            continue;
        }
        /* 64: pieces hold vectors and code blocks, which kernels like aligned. */
        uint8_t *target = vexi_arena_alloc_aligned(arena, 64, piece->size);
        if (target == NULL) {
            return vexi_no_memory(err, piece->size);
        }
        piece->data = target;
        ranges[(*range_count)++] =
            (vexi_range){.offset = piece->offset, .size = piece->size, .target = target};
    }
    return VEX_OK;
}

vex_status vexi_objects_fetch(vexi_object_need *needs, size_t count, size_t request_max,
                              vexi_arena *arena, vexi_read_cost *cost, size_t *failed,
                              vex_error *err) {
    size_t own_failed, piece_count = 0;
    failed = failed == NULL ? &own_failed : failed;
    *failed = 0;
    for (size_t i = 0; i < count; i++) {
        *failed = i;
        VEX_TRY(pieces_check(needs[i].object, needs[i].pieces, needs[i].count, err));
        piece_count += needs[i].count;
    }
    *failed = 0;
    if (piece_count == 0) {
        return VEX_OK;
    }
    vexi_store_read *gets = vexi_arena_array(arena, count, sizeof *gets);
    size_t *need_of = vexi_arena_array(arena, count, sizeof *need_of); /* the first of its get */
    bool *done = vexi_arena_calloc(arena, count, sizeof *done);
    vexi_range *ranges = vexi_arena_array(arena, piece_count, sizeof *ranges);
    if (gets == NULL || need_of == NULL || done == NULL || ranges == NULL) {
        return vexi_no_memory(err, piece_count * sizeof *ranges);
    }
    size_t get_count = 0, range_count = 0;
    for (size_t i = 0; i < count; i++) {
        vexi_object *object = needs[i].object;
        size_t first = range_count;
        for (size_t j = i; j < count && !done[i]; j++) {
            if (needs[j].object == object &&
                !pieces_mapped(object, needs[j].pieces, needs[j].count)) {
                VEX_TRY(pieces_range(needs[j].pieces, needs[j].count, arena, ranges, &range_count,
                                     err));
                done[j] = j > i;
            }
        }
        if (range_count > first) {
            need_of[get_count] = i;
            gets[get_count++] = (vexi_store_read){
                .name = object->name, .ranges = ranges + first, .count = range_count - first};
        }
    }
    size_t failed_get = 0;
    vex_status status = get_count == 0
                            ? VEX_OK
                            : vexi_store_get_many(needs[need_of[0]].object->store, gets, get_count,
                                                  request_max, cost, &failed_get, err);
    if (status != VEX_OK) {
        *failed = need_of[failed_get];
    }
    return status;
}

vex_status vexi_object_fetch(vexi_object *object, vexi_piece *pieces, size_t count,
                             vexi_arena *arena, vexi_read_cost *cost, vex_error *err) {
    VEX_TRY(pieces_check(object, pieces, count, err));
    if (pieces_mapped(object, pieces, count)) { /* the common case: takes no memory */
        return VEX_OK;
    }
    vexi_object_need need = {.object = object, .pieces = pieces, .count = count};
    return vexi_objects_fetch(&need, 1, 0, arena, cost, NULL, err);
}
