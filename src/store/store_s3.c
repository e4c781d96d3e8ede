/* Objects in an S3 bucket: the operations of store.h out of requests.
 *
 * get            one request per span that s3_plan.c makes, all in flight together. The answers'
 *                ETag and size must agree: else the object was replaced between two of them, and
 *                the get runs once more, then fails with VEX_CONFLICT.
 * get_many       the same for several objects, the requests of all of them in flight together. Gaps
 *                are closed, the smallest first, until the requests are as few as was asked for.
 * get_all        one request for the first part_size bytes, which is all of most objects that are
 *                read whole; its answer tells the size, and the rest is a get.
 * put            one request with a CRC-32C that the server checks, or an upload in parts.
 * put_if_absent  one request with If-None-Match: *, never in parts (s3_multipart.c says why).
 * list           pages of ListObjectsV2, sorted here: not every server sorts.
 * remove_many    DeleteObjects, 1,000 names each.
 *
 * A put_if_absent whose answer was lost. The client repeats the same bytes under the same name,
 * and "412" then also means "your first attempt arrived". So each call stamps its object with an
 * id as metadata and, where there is doubt, asks the object that is there: ours is VEX_OK, another
 * one VEX_EXISTS. A server that drops metadata has its object compared byte by byte, and then
 * equal bytes count as ours only if one of our attempts may have arrived: callers make the bytes of
 * every attempt unique. Where nothing can be read, or nothing is there although an attempt may
 * still be on its way, the outcome is unknown. */
#include <stdio.h>
#include <stdlib.h>

#include "store/s3_internal.h"

enum {
    HIDDEN_ROUNDS = 9,
    HIDDEN_PAUSE_MS = 5, /* then twice as long each time: 1.3 s in all */
    DELETE_COUNT_MAX = 1000,
    DELETE_SIZE_MAX = 4 << 20,
    KEY_SIZE_MAX = 1024 /* S3's limit, of prefix and name together */
};

static vexi_s3_store *self_of(vexi_store *base) {
    return (vexi_s3_store *)base;
}

static const vexi_s3_settings *settings_of(const vexi_s3_store *store) {
    return vexi_s3_client_settings(store->client);
}

/* ---- Requests -------------------------------------------------------------------------------- */

void vexi_s3_object_path(const vexi_s3_client *client, const char *name, vexi_buffer *out) {
    const vexi_s3_settings *settings = vexi_s3_client_settings(client);
    vexi_buffer_text(out, vexi_s3_client_address(client)->bucket_path);
    vexi_buffer_text(out, name != NULL || out->size == 0 ? "/" : "");
    if (name != NULL) {
        if (settings->prefix[0] != '\0') {
            vexi_s3_encode(out, settings->prefix, true);
            vexi_buffer_text(out, "/");
        }
        vexi_s3_encode(out, name, true);
    }
    vexi_buffer_u8(out, 0);
}

/* A key's path, checked against S3's limit. The buffer is initialised in any case. */
static vex_status path_of(const vexi_s3_store *store, const char *name, vexi_buffer *out,
                          vex_error *err) {
    vexi_buffer_init(out, store->base.env, VEXI_S3_PATH_SIZE_MAX);
    const char *prefix = settings_of(store)->prefix;
    size_t size = strlen(prefix) + (prefix[0] == '\0' ? 0 : 1) + strlen(name);
    if (size > KEY_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "%s: key and prefix have %zu bytes, S3 allows %d", name,
                         size, KEY_SIZE_MAX);
    }
    vexi_s3_object_path(store->client, name, out);
    return vexi_buffer_check(out, err);
}

/* The frame of an operation on one name: vexi_s3_client_enter and its path. Ended by `leave`, also
 * where this failed. */
static vex_status enter(vexi_s3_store *store, const char *name, vexi_buffer *path, vex_error *err) {
    vexi_s3_client_enter(store->client);
    return path_of(store, name, path, err);
}

static void leave(vexi_s3_store *store, vexi_buffer *path) {
    vexi_buffer_deinit(path);
    vexi_s3_client_leave(store->client);
}

static vexi_s3_call call_of(vexi_s3_kind kind, const char *method, const char *name,
                            const vexi_buffer *path) {
    return (vexi_s3_call){.kind = kind,
                          .what = name,
                          .method = method,
                          .path = (const char *)path->data,
                          .query = "",
                          .body_limit = VEXI_S3_ERROR_BODY_SIZE_MAX};
}

static vex_status parts_size(const vexi_span *parts, size_t count, const char *name, uint64_t *out,
                             vex_error *err) {
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(size, parts[i].size, &size)) {
            return vexi_fail(err, VEX_LIMIT, "%s is too large for an object", name);
        }
    }
    *out = size;
    return VEX_OK;
}

/* ---- Size ------------------------------------------------------------------------------------ */

/* What the head of an object's answer tells. Asked by a GET of the first byte: the answer to a HEAD
 * request has no body, so that its 404 cannot be told from that of a bucket or a key that was taken
 * away. An object without bytes has no first one (416), and is then certainly there. */
static vex_status head(vexi_s3_store *store, const char *name, const vexi_buffer *path,
                       vexi_s3_answer *answer, vex_error *err) {
    vexi_s3_call call = call_of(VEXI_S3_HEAD, "GET", name, path);
    call.is_ranged = true;
    call.end = 1;
    vex_status status = vexi_s3_run(store->client, &call, 1, err);
    if (status != VEX_OK && call.answer.http_status == 416) {
        vexi_s3_call_deinit(store->client, &call);
        call = call_of(VEXI_S3_HEAD, "HEAD", name, path);
        status = vexi_s3_run(store->client, &call, 1, err);
    }
    if (status == VEX_OK && call.answer.total_size == UINT64_MAX) {
        status = vexi_fail(err, VEX_IO, "%s: the server does not tell its size", name);
    }
    *answer = call.answer;
    answer->body = NULL;
    vexi_s3_call_deinit(store->client, &call);
    return status;
}

static vex_status s3_size(vexi_store *base, const char *name, uint64_t *out, vex_error *err) {
    vexi_s3_store *store = self_of(base);
    vexi_buffer path;
    vexi_s3_answer answer;
    vex_status status = enter(store, name, &path, err);
    if (status == VEX_OK) {
        status = head(store, name, &path, &answer, err);
    }
    if (status == VEX_OK) {
        *out = answer.total_size;
    }
    leave(store, &path);
    return status;
}

/* ---- Get ------------------------------------------------------------------------------------- */

static vex_status outside(const char *name, const vexi_range *range, uint64_t size,
                          vex_error *err) {
    return vexi_fail(err, VEX_CORRUPT, "%s: %zu bytes at %llu lie outside its %llu", name,
                     range->size, (unsigned long long)range->offset, (unsigned long long)size);
}

/* No range that asks for a byte: only whether the object is there and they lie in it. */
static vex_status get_nothing(vexi_s3_store *store, const char *name, const vexi_buffer *path,
                              const vexi_range *ranges, size_t count, vex_error *err) {
    vexi_s3_answer answer;
    VEX_TRY(head(store, name, path, &answer, err));
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].offset > answer.total_size) {
            return outside(name, &ranges[i], answer.total_size, err);
        }
    }
    return VEX_OK;
}

/* Whether all answers are of one object; *size is its, UINT64_MAX if no server told. */
static bool answers_agree(const vexi_s3_call *calls, size_t count, uint64_t *size) {
    *size = calls[0].answer.total_size;
    for (size_t i = 1; i < count; i++) {
        if (strcmp(calls[i].answer.etag, calls[0].answer.etag) != 0 ||
            calls[i].answer.total_size != *size) {
            return false;
        }
    }
    return true;
}

/* One object of a get. */
typedef struct reading {
    const vexi_store_read *get;
    vexi_buffer path;
    vexi_range *sorted; /* those of the get that ask for a byte, by offset */
    size_t sorted_count;
    vexi_s3_span *spans;
    size_t span_count;
    vexi_s3_call *calls; /* span_count; part of an array of all readings */
    uint64_t size;
    bool agrees;
} reading;

static vex_status reading_init(vexi_s3_store *store, const vexi_store_read *get, reading *r,
                               vex_error *err) {
    *r = (reading){.get = get};
    VEX_TRY(path_of(store, get->name, &r->path, err));
    for (size_t i = 0; i < get->count; i++) {
        const vexi_range *range = &get->ranges[i];
        if (range->size > UINT64_MAX - range->offset) {
            return vexi_fail(err, VEX_CORRUPT, "%s: a range of %zu bytes at %llu is not possible",
                             get->name, range->size, (unsigned long long)range->offset);
        }
        r->sorted_count += range->size > 0 ? 1 : 0;
    }
    if (r->sorted_count == 0) {
        return VEX_OK;
    }
    r->sorted = vexi_alloc_array(store->base.env, r->sorted_count, sizeof *r->sorted);
    if (r->sorted == NULL) {
        return vexi_no_memory(err, r->sorted_count * sizeof *r->sorted);
    }
    size_t next = 0;
    for (size_t i = 0; i < get->count; i++) {
        if (get->ranges[i].size > 0) {
            r->sorted[next++] = get->ranges[i];
        }
    }
    vexi_s3_sort_ranges(r->sorted, r->sorted_count);
    return VEX_OK;
}

static void reading_deinit(vexi_s3_store *store, reading *r) {
    vexi_free(store->base.env, r->spans);
    vexi_free(store->base.env, r->sorted);
    vexi_buffer_deinit(&r->path);
}

static int compare_gaps(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* The gap below which ranges are joined so that `request_max` requests do: the store's own, or
 * more. Each object takes one request at least. */
static vex_status gap_of(const vexi_s3_store *store, const reading *readings, size_t count,
                         size_t request_max, size_t *out, vex_error *err) {
    size_t gap_size = settings_of(store)->gap_size_max;
    size_t most = 0, objects = 0;
    *out = gap_size;
    for (size_t i = 0; i < count; i++) {
        most += readings[i].sorted_count;
        objects += readings[i].sorted_count > 0 ? 1 : 0;
    }
    if (request_max == 0 || most <= request_max) {
        return VEX_OK;
    }
    uint64_t *gaps = vexi_alloc_array(store->base.env, most, sizeof *gaps);
    if (gaps == NULL) {
        return vexi_no_memory(err, most * sizeof *gaps);
    }
    size_t gap_count = 0; /* between spans, were none of them joined beyond the store's own gap */
    for (size_t i = 0; i < count; i++) {
        const vexi_range *sorted = readings[i].sorted;
        uint64_t end = 0;
        for (size_t r = 0; r < readings[i].sorted_count; r++) {
            if (r > 0 && sorted[r].offset > end && sorted[r].offset - end >= gap_size) {
                gaps[gap_count++] = sorted[r].offset - end;
            }
            uint64_t other = sorted[r].offset + sorted[r].size;
            end = other > end ? other : end;
        }
    }
    size_t kept = request_max > objects ? request_max - objects : 0;
    if (gap_count > kept) {
        qsort(gaps, gap_count, sizeof *gaps, compare_gaps);
        *out = (size_t)gaps[gap_count - kept - 1] + 1;
    }
    vexi_free(store->base.env, gaps);
    return VEX_OK;
}

/* Run the requests of all readings that have none that agree yet. */
static vex_status readings_run(vexi_s3_store *store, reading *readings, size_t count,
                               vexi_s3_call *calls, vexi_read_cost *cost, size_t *failed,
                               vex_error *err) {
    size_t call_count = 0;
    for (size_t i = 0; i < count; i++) {
        reading *r = &readings[i];
        r->calls = calls + call_count;
        for (size_t s = 0; s < r->span_count && !r->agrees; s++) {
            const vexi_s3_span *span = &r->spans[s];
            vexi_s3_call *call = &calls[call_count++];
            *call = call_of(VEXI_S3_GET, "GET", r->get->name, &r->path);
            call->sink = VEXI_S3_SINK_RANGES;
            call->is_ranged = true;
            call->start = span->start;
            call->end = span->end;
            call->ranges = r->sorted + span->first;
            call->range_count = span->count;
            cost->bytes += span->end - span->start;
        }
    }
    cost->requests += call_count;
    cost->steps++;
    vex_status status = vexi_s3_run(store->client, calls, call_count, err);
    for (size_t i = 0; i < count; i++) {
        reading *r = &readings[i];
        if (r->agrees || r->span_count == 0) {
            continue;
        }
        r->agrees = answers_agree(r->calls, r->span_count, &r->size);
        for (size_t s = 0; s < r->span_count; s++) {
            if (r->calls[s].status == status && status != VEX_OK && *failed == SIZE_MAX) {
                *failed = i;
            }
            vexi_s3_call_deinit(store->client, &r->calls[s]);
        }
    }
    return status;
}

/* Twice where an object was replaced between two of its requests. */
static vex_status readings_fetch(vexi_s3_store *store, reading *readings, size_t count,
                                 size_t span_count, vexi_read_cost *cost, size_t *failed,
                                 vex_error *err) {
    vexi_s3_call *calls = vexi_alloc_array(store->base.env, span_count, sizeof *calls);
    if (calls == NULL) {
        return vexi_no_memory(err, span_count * sizeof *calls);
    }
    vex_status status = VEX_OK;
    bool again = true;
    for (int round = 0; round < 2 && status == VEX_OK && again; round++) {
        status = readings_run(store, readings, count, calls, cost, failed, err);
        again = false;
        for (size_t i = 0; i < count && status == VEX_OK; i++) {
            again = again || (readings[i].span_count > 0 && !readings[i].agrees);
        }
    }
    for (size_t i = 0; i < count && status == VEX_OK && again; i++) {
        if (readings[i].span_count > 0 && !readings[i].agrees) {
            *failed = i;
            status = vexi_fail(err, VEX_CONFLICT, "%s was replaced while it was read",
                               readings[i].get->name);
        }
    }
    vexi_free(store->base.env, calls);
    return status;
}

/* What the answers told of the sizes holds for ranges of no bytes too. */
static vex_status reading_finish(vexi_s3_store *store, const reading *r, vexi_read_cost *cost,
                                 vex_error *err) {
    const vexi_store_read *get = r->get;
    if (r->span_count == 0) {
        cost->steps++;
        cost->requests++;
        return get_nothing(store, get->name, &r->path, get->ranges, get->count, err);
    }
    for (size_t i = 0; i < get->count; i++) {
        if (get->ranges[i].offset > r->size) {
            return outside(get->name, &get->ranges[i], r->size, err);
        }
    }
    return VEX_OK;
}

static vex_status get_many(vexi_s3_store *store, const vexi_store_read *gets, size_t count,
                           size_t request_max, vexi_read_cost *cost, size_t *failed,
                           vex_error *err) {
    const vexi_env *env = store->base.env;
    const vexi_s3_settings *settings = settings_of(store);
    size_t at = SIZE_MAX, begun = 0, span_count = 0, gap_size;
    vex_status status = VEX_OK;
    reading *readings = vexi_alloc_array(env, count, sizeof *readings);
    if (readings == NULL) {
        return vexi_no_memory(err, count * sizeof *readings);
    }
    for (; begun < count && status == VEX_OK; begun++) {
        at = begun;
        status = reading_init(store, &gets[begun], &readings[begun], err);
    }
    VEX_TRY_GOTO(status, done, status);
    VEX_TRY_GOTO(status, done, gap_of(store, readings, count, request_max, &gap_size, err));
    for (size_t i = 0; i < count; i++) {
        reading *r = &readings[i];
        if (r->sorted_count > 0) {
            VEX_TRY_GOTO(status, done,
                         vexi_s3_plan(env, r->sorted, r->sorted_count, gap_size,
                                      settings->part_size, &r->spans, &r->span_count, err));
            span_count += r->span_count;
        }
    }
    at = SIZE_MAX;
    if (span_count > 0) {
        VEX_TRY_GOTO(status, done,
                     readings_fetch(store, readings, count, span_count, cost, &at, err));
    }
    for (size_t i = 0; i < count; i++) {
        at = i;
        VEX_TRY_GOTO(status, done, reading_finish(store, &readings[i], cost, err));
    }
done:
    *failed = at == SIZE_MAX ? 0 : at;
    for (size_t i = 0; i < begun; i++) {
        reading_deinit(store, &readings[i]);
    }
    vexi_free(env, readings);
    return status;
}

static vex_status get(vexi_s3_store *store, const char *name, const vexi_range *ranges,
                      size_t count, vex_error *err) {
    vexi_store_read one = {.name = name, .ranges = ranges, .count = count};
    vexi_read_cost cost = {0};
    size_t failed;
    return get_many(store, &one, 1, 0, &cost, &failed, err);
}

static vex_status s3_get(vexi_store *base, const char *name, const vexi_range *ranges, size_t count,
                         vex_error *err) {
    vexi_s3_store *store = self_of(base);
    vexi_s3_client_enter(store->client);
    vex_status status = get(store, name, ranges, count, err);
    vexi_s3_client_leave(store->client);
    return status;
}

static vex_status s3_get_many(vexi_store *base, const vexi_store_read *gets, size_t count,
                              size_t request_max, vexi_read_cost *cost, size_t *failed,
                              vex_error *err) {
    vexi_s3_store *store = self_of(base);
    vexi_s3_client_enter(store->client);
    vex_status status = get_many(store, gets, count, request_max, cost, failed, err);
    vexi_s3_client_leave(store->client);
    return status;
}

/* What the first request of get_all brought becomes the caller's bytes; the rest is read. */
static vex_status finish_all(vexi_s3_store *store, const char *name, const vexi_buffer *path,
                             size_t size_max, const vexi_s3_answer *answer, vexi_arena *arena,
                             vexi_span *out, vex_error *err) {
    uint64_t size = answer->total_size;
    if (size == UINT64_MAX) {
        size = answer->body_size; /* neither length nor range: the answer ended as it should */
    }
    if (size > size_max || size >= SIZE_MAX) {
        return vexi_fail(err, VEX_LIMIT, "%s has %llu bytes, more than the %zu allowed", name,
                         (unsigned long long)size, size_max);
    }
    size_t have = answer->body_size < size ? answer->body_size : (size_t)size;
    uint8_t *data = vexi_arena_alloc(arena, (size_t)size + 1);
    if (data == NULL) {
        return vexi_no_memory(err, (size_t)size + 1);
    }
    if (have > 0) {
        memcpy(data, answer->body, have);
    }
    if (have < size) {
        vexi_range rest = {.offset = have, .size = (size_t)size - have, .target = data + have};
        VEX_TRY(get(store, name, &rest, 1, err));
        vexi_s3_answer now;
        VEX_TRY(head(store, name, path, &now, err));
        if (now.total_size != size || strcmp(now.etag, answer->etag) != 0) {
            return vexi_fail(err, VEX_CONFLICT, "%s was replaced while it was read", name);
        }
    }
    data[size] = 0;
    *out = vexi_span_of(data, (size_t)size);
    return VEX_OK;
}

static vex_status get_all(vexi_s3_store *store, const char *name, const vexi_buffer *path,
                          size_t size_max, vexi_arena *arena, vexi_span *out, vex_error *err) {
    size_t part_size = settings_of(store)->part_size;
    vexi_s3_call call = call_of(VEXI_S3_GET, "GET", name, path);
    call.is_ranged = true;
    call.end = part_size;
    call.body_limit =
        part_size > VEXI_S3_ERROR_BODY_SIZE_MAX ? part_size : VEXI_S3_ERROR_BODY_SIZE_MAX;
    vex_status status = vexi_s3_run(store->client, &call, 1, err);
    if (status == VEX_OK) {
        status = finish_all(store, name, path, size_max, &call.answer, arena, out, err);
    } else if (call.answer.http_status == 416) {
        /* An object without bytes has no first byte. */
        vexi_s3_answer answer;
        status = head(store, name, path, &answer, err);
        answer.body_size = 0;
        if (status == VEX_OK) {
            status = finish_all(store, name, path, size_max, &answer, arena, out, err);
        }
    }
    vexi_s3_call_deinit(store->client, &call);
    return status;
}

static vex_status s3_get_all(vexi_store *base, const char *name, size_t size_max, vexi_arena *arena,
                             vexi_span *out, vex_error *err) {
    vexi_s3_store *store = self_of(base);
    vexi_buffer path;
    vex_status status = enter(store, name, &path, err);
    if (status == VEX_OK) {
        status = get_all(store, name, &path, size_max, arena, out, err);
    }
    leave(store, &path);
    return status;
}

/* ---- Put ------------------------------------------------------------------------------------- */

static vexi_s3_call put_call(const char *name, const vexi_buffer *path, const vexi_span *parts,
                             size_t count, uint64_t size, char crc[VEXI_S3_CRC_SIZE]) {
    vexi_s3_call call = call_of(VEXI_S3_PUT, "PUT", name, path);
    call.has_body = true;
    call.parts = parts;
    call.part_count = count;
    call.body_size = size;
    vexi_s3_crc_text(parts, count, crc);
    vexi_s3_call_header(&call, "x-amz-checksum-crc32c", crc);
    return call;
}

static vex_status s3_put(vexi_store *base, const char *name, const vexi_span *parts, size_t count,
                         vex_error *err) {
    vexi_s3_store *store = self_of(base);
    uint64_t size = 0;
    VEX_TRY(parts_size(parts, count, name, &size, err));
    vexi_buffer path;
    vex_status status = enter(store, name, &path, err);
    if (status == VEX_OK && size >= settings_of(store)->multipart_size_min) {
        status = vexi_s3_multipart_put(store->client, name, (const char *)path.data, parts, count,
                                       size, base->env, err);
    } else if (status == VEX_OK) {
        char crc[VEXI_S3_CRC_SIZE];
        vexi_s3_call call = put_call(name, &path, parts, count, size, crc);
        status = vexi_s3_run(store->client, &call, 1, err);
        vexi_s3_call_deinit(store->client, &call);
    }
    leave(store, &path);
    return status;
}

typedef enum presence { PRESENCE_UNKNOWN, PRESENCE_NONE, PRESENCE_OURS, PRESENCE_OTHER } presence;

/* Whether the object's bytes are `parts`. */
static presence compare_bytes(vexi_s3_store *store, const char *name, const vexi_span *parts,
                              size_t count, uint64_t size) {
    if (size == 0) {
        return PRESENCE_OURS;
    }
    uint8_t *data = vexi_alloc(store->base.env, (size_t)size);
    if (data == NULL) {
        return PRESENCE_UNKNOWN;
    }
    vexi_range range = {.size = (size_t)size, .target = data};
    presence found = PRESENCE_UNKNOWN;
    if (get(store, name, &range, 1, NULL) == VEX_OK) {
        found = PRESENCE_OURS;
        size_t offset = 0;
        for (size_t i = 0; i < count; offset += parts[i].size, i++) {
            if (parts[i].size > 0 && memcmp(data + offset, parts[i].data, parts[i].size) != 0) {
                found = PRESENCE_OTHER;
            }
        }
    }
    vexi_free(store->base.env, data);
    return found;
}

/* What stands under the name after a put_if_absent that was not simply accepted. */
static presence look(vexi_s3_store *store, const char *name, const vexi_buffer *path,
                     const vexi_span *parts, size_t count, uint64_t size, const char *put_id,
                     bool is_doubtful) {
    vexi_s3_answer answer;
    vex_status status = head(store, name, path, &answer, NULL);
    if (status != VEX_OK) {
        return status == VEX_NOT_FOUND ? PRESENCE_NONE : PRESENCE_UNKNOWN;
    }
    if (answer.put_id[0] != '\0') {
        return strcmp(answer.put_id, put_id) == 0 ? PRESENCE_OURS : PRESENCE_OTHER;
    }
    if (answer.total_size != size || !is_doubtful) {
        return PRESENCE_OTHER;
    }
    return compare_bytes(store, name, parts, count, size);
}

/* One request. *hidden: it was refused for an object that the server does not show, and ours is
 * not there: to be asked again. */
static vex_status put_if_absent_once(vexi_s3_store *store, const char *name,
                                     const vexi_buffer *path, const vexi_span *parts, size_t count,
                                     uint64_t size, uint32_t delay_ms, bool *hidden,
                                     vex_error *err) {
    char crc[VEXI_S3_CRC_SIZE], put_id[VEXI_S3_PUT_ID_SIZE + 1];
    *hidden = false;
    vexi_random_uuid(store->base.env, put_id);
    vexi_s3_call call = put_call(name, path, parts, count, size, crc);
    call.delay_ms = delay_ms;
    vexi_s3_call_header(&call, "if-none-match", "*");
    vexi_s3_call_header(&call, "x-amz-meta-vexlake-put", put_id);
    vex_error problem = {0};
    vex_status status = vexi_s3_run(store->client, &call, 1, &problem);
    bool is_cut = status == VEX_CANCELLED && call.attempt_count > 0;
    bool is_doubtful = call.is_doubtful || is_cut;
    vexi_s3_call_deinit(store->client, &call);
    if (status == VEX_OK || (status != VEX_EXISTS && !is_doubtful)) {
        if (status != VEX_OK && err != NULL) {
            *err = problem;
        }
        return status;
    }
    presence found = look(store, name, path, parts, count, size, put_id, is_doubtful);
    if (found == PRESENCE_OURS) {
        return VEX_OK;
    }
    if (found == PRESENCE_OTHER) {
        return vexi_fail_code(err, VEX_EXISTS, problem.code, "%s exists already", name);
    }
    if (status == VEX_EXISTS && !is_doubtful) { /* ours did not arrive: nothing is unknown */
        *hidden = found == PRESENCE_NONE;
        return vexi_fail_code(err, VEX_IO, problem.code,
                              "%s: the server says that it exists, but %s", name,
                              *hidden ? "shows no such object" : "it cannot be read");
    }
    return vexi_fail_code(err, VEX_UNKNOWN_OUTCOME, problem.code,
                          "it is not known whether %s was put: %.300s", name, problem.message);
}

/* A server may refuse for an object that another call is still making, before it can be read
 * (versitygw 1.8 with metadata in a sidecar). VEX_EXISTS promises that it is there, and the other
 * call may yet fail: so it is asked again until one of the two is seen. */
static vex_status put_if_absent(vexi_s3_store *store, const char *name, const vexi_buffer *path,
                                const vexi_span *parts, size_t count, uint64_t size,
                                vex_error *err) {
    bool hidden = true;
    uint32_t delay_ms = 0;
    vex_status status = VEX_OK;
    for (uint32_t round = 0; round < HIDDEN_ROUNDS && hidden; round++) {
        status = put_if_absent_once(store, name, path, parts, count, size, delay_ms, &hidden, err);
        delay_ms = delay_ms == 0 ? HIDDEN_PAUSE_MS : 2 * delay_ms;
    }
    return status;
}

static vex_status s3_put_if_absent(vexi_store *base, const char *name, const vexi_span *parts,
                                   size_t count, vex_error *err) {
    vexi_s3_store *store = self_of(base);
    uint64_t size = 0;
    VEX_TRY(parts_size(parts, count, name, &size, err));
    vexi_buffer path;
    vex_status status = enter(store, name, &path, err);
    if (status == VEX_OK) {
        status = put_if_absent(store, name, &path, parts, count, size, err);
    }
    leave(store, &path);
    return status;
}

/* ---- Remove ---------------------------------------------------------------------------------- */

static vex_status s3_remove(vexi_store *base, const char *name, vex_error *err) {
    vexi_s3_store *store = self_of(base);
    vexi_buffer path;
    vex_status status = enter(store, name, &path, err);
    if (status == VEX_OK) {
        vexi_s3_call call = call_of(VEXI_S3_DELETE, "DELETE", name, &path);
        vex_error problem = {0};
        status = vexi_s3_run(store->client, &call, 1, &problem);
        status = status == VEX_NOT_FOUND ? VEX_OK : status;
        if (status != VEX_OK && err != NULL) {
            *err = problem;
        }
        vexi_s3_call_deinit(store->client, &call);
    }
    leave(store, &path);
    return status;
}

/* One DeleteObjects request. */
static vex_status remove_batch(vexi_s3_store *store, const char *const *names, size_t count,
                               vex_error *err) {
    const char *prefix = settings_of(store)->prefix;
    vexi_buffer path, body;
    vexi_buffer_init(&path, store->base.env, VEXI_S3_PATH_SIZE_MAX);
    vexi_buffer_init(&body, store->base.env, DELETE_SIZE_MAX);
    vexi_s3_object_path(store->client, NULL, &path);
    vexi_buffer_text(&body, "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (size_t i = 0; i < count; i++) {
        vexi_buffer_text(&body, "<Object><Key>");
        vexi_s3_xml_escape(&body, prefix);
        vexi_buffer_text(&body, prefix[0] == '\0' ? "" : "/");
        vexi_s3_xml_escape(&body, names[i]);
        vexi_buffer_text(&body, "</Key></Object>");
    }
    vexi_buffer_text(&body, "<Quiet>true</Quiet></Delete>");
    vex_status status = vexi_buffer_check(&path, err);
    if (status == VEX_OK) {
        status = vexi_buffer_check(&body, err);
    }
    if (status == VEX_OK) {
        vexi_span part = vexi_span_of(body.data, body.size);
        char crc[VEXI_S3_CRC_SIZE], md5[VEXI_S3_MD5_SIZE];
        vexi_s3_call call = call_of(VEXI_S3_DELETE, "POST", names[0], &path);
        call.query = "delete=";
        call.has_body = true;
        call.parts = &part;
        call.part_count = 1;
        call.body_size = body.size;
        call.body_limit = VEXI_S3_BODY_SIZE_MAX;
        vexi_s3_crc_text(&part, 1, crc);
        vexi_s3_call_header(&call, "x-amz-checksum-crc32c", crc);
        if (vexi_s3_md5_text(part, md5)) { /* what older servers ask for */
            vexi_s3_call_header(&call, "content-md5", md5);
        }
        status = vexi_s3_run(store->client, &call, 1, err);
        if (status == VEX_OK) {
            bool failed = false;
            vexi_s3_answer_error error;
            char key[VEXI_STORE_NAME_SIZE_MAX + 1];
            status = vexi_s3_parse_delete(vexi_span_of(call.answer.body, call.answer.body_size),
                                          &failed, &error, key, err);
            if (status == VEX_OK && failed && strcmp(error.code, "NoSuchKey") != 0) {
                status = vexi_fail(err, VEX_IO, "%.200s was not deleted: %s %s", key, error.code,
                                   error.message);
            }
        }
        vexi_s3_call_deinit(store->client, &call);
    }
    vexi_buffer_deinit(&path);
    vexi_buffer_deinit(&body);
    return status;
}

static vex_status s3_remove_many(vexi_store *base, const char *const *names, size_t count,
                                 vex_error *err) {
    vexi_s3_store *store = self_of(base);
    vex_status status = VEX_OK;
    vexi_s3_client_enter(store->client);
    for (size_t i = 0; status == VEX_OK && i < count; i += DELETE_COUNT_MAX) {
        size_t left = count - i;
        status =
            remove_batch(store, names + i, left < DELETE_COUNT_MAX ? left : DELETE_COUNT_MAX, err);
    }
    vexi_s3_client_leave(store->client);
    return status;
}

/* ---- List ------------------------------------------------------------------------------------ */

static int compare_entries(const void *a, const void *b) {
    const vexi_list_entry *left = a, *right = b;
    return strcmp(left->name, right->name);
}

/* One page; *page says whether there is another. */
static vex_status list_page(vexi_s3_store *store, const char *full_prefix, const char *start_after,
                            bool by_folder, const char *strip, vexi_arena *arena,
                            vexi_s3_entries *entries, vexi_s3_page *page, vex_error *err) {
    const vexi_env *env = store->base.env;
    vexi_buffer path, query;
    vexi_buffer_init(&path, env, VEXI_S3_PATH_SIZE_MAX);
    vexi_buffer_init(&query, env, VEXI_S3_QUERY_SIZE_MAX * 2);
    vexi_s3_object_path(store->client, NULL, &path);
    if (page->token[0] != '\0') {
        vexi_s3_query_add(&query, "continuation-token", page->token);
    }
    if (by_folder) {
        vexi_s3_query_add(&query, "delimiter", "/");
    }
    vexi_s3_query_add(&query, "encoding-type", "url");
    vexi_s3_query_add(&query, "list-type", "2");
    vexi_s3_query_add(&query, "prefix", full_prefix);
    if (start_after[0] != '\0') {
        vexi_s3_query_add(&query, "start-after", start_after);
    }
    vexi_buffer_u8(&query, 0);
    vex_status status = vexi_buffer_check(&path, err);
    if (status == VEX_OK) {
        status = vexi_buffer_check(&query, err);
    }
    if (status == VEX_OK) {
        vexi_s3_call call = call_of(VEXI_S3_LIST, "GET", full_prefix, &path);
        call.query = (const char *)query.data;
        call.body_limit = VEXI_S3_BODY_SIZE_MAX;
        status = vexi_s3_run(store->client, &call, 1, err);
        if (status == VEX_NOT_FOUND) { /* some servers say so of a folder that is not there */
            *page = (vexi_s3_page){0};
            status = VEX_OK;
        } else if (status == VEX_OK) {
            status = vexi_s3_parse_list(env, vexi_span_of(call.answer.body, call.answer.body_size),
                                        strip, arena, entries, page, err);
        }
        vexi_s3_call_deinit(store->client, &call);
    }
    vexi_buffer_deinit(&path);
    vexi_buffer_deinit(&query);
    return status;
}

/* Sort, drop what is not behind `after`, drop names that came twice. */
static vex_status finish_list(vexi_s3_entries *entries, const char *after, vexi_arena *arena,
                              vexi_listing *out, vex_error *err) {
    if (entries->count == 0) {
        return VEX_OK;
    }
    qsort(entries->entries, entries->count, sizeof *entries->entries, compare_entries);
    vexi_list_entry *kept = vexi_arena_array(arena, entries->count, sizeof *kept);
    if (kept == NULL) {
        return vexi_no_memory(err, entries->count * sizeof *kept);
    }
    size_t count = 0;
    for (size_t i = 0; i < entries->count; i++) {
        const vexi_list_entry *entry = &entries->entries[i];
        bool is_new = count == 0 || strcmp(kept[count - 1].name, entry->name) != 0;
        if (is_new && (after == NULL || strcmp(entry->name, after) > 0)) {
            kept[count++] = *entry;
        }
    }
    *out = (vexi_listing){.entries = kept, .count = count};
    return VEX_OK;
}

static vex_status list(vexi_s3_store *store, const char *prefix, const char *after, bool by_folder,
                       vexi_arena *arena, vexi_listing *out, vex_error *err) {
    const char *store_prefix = settings_of(store)->prefix;
    const char *slash = store_prefix[0] == '\0' ? "" : "/";
    enum { FULL_SIZE = sizeof settings_of(store)->prefix + VEXI_STORE_NAME_SIZE_MAX + 2 };
    char strip[FULL_SIZE], full_prefix[FULL_SIZE], full_after[FULL_SIZE], start_after[FULL_SIZE];
    snprintf(strip, sizeof strip, "%s%s", store_prefix, slash);
    snprintf(full_prefix, sizeof full_prefix, "%s%s", strip, prefix);
    start_after[0] = '\0';
    if (after != NULL) {
        if (strncmp(after, prefix, strlen(prefix)) > 0) {
            return VEX_OK; /* behind all names with this prefix */
        }
        int size = snprintf(full_after, sizeof full_after, "%s%s", strip, after);
        if (size > 0 && (size_t)size < sizeof full_after) {
            vexi_s3_start_after(full_prefix, full_after, start_after, sizeof start_after);
        }
    }
    vexi_s3_entries entries = {0};
    vexi_s3_page page = {0};
    vex_status status = VEX_OK;
    do {
        char token[sizeof page.token];
        memcpy(token, page.token, sizeof token);
        status = list_page(store, full_prefix, start_after, by_folder, strip, arena, &entries,
                           &page, err);
        if (status == VEX_OK && page.is_truncated && strcmp(token, page.token) == 0) {
            status = vexi_fail(err, VEX_CORRUPT, "the listing of '%s' does not go on", prefix);
        }
    } while (status == VEX_OK && page.is_truncated);
    if (status == VEX_OK) {
        status = finish_list(&entries, after, arena, out, err);
    }
    vexi_free(store->base.env, entries.entries);
    return status;
}

static vex_status s3_list(vexi_store *base, const char *prefix, const char *after, bool by_folder,
                          vexi_arena *arena, vexi_listing *out, vex_error *err) {
    vexi_s3_store *store = self_of(base);
    vexi_s3_client_enter(store->client);
    vex_status status = list(store, prefix, after, by_folder, arena, out, err);
    vexi_s3_client_leave(store->client);
    return status;
}

/* ---- The store ------------------------------------------------------------------------------- */

static void s3_destroy(vexi_store *base) {
    vexi_s3_store *store = self_of(base);
    vexi_s3_client_destroy(store->client);
    vexi_free(base->env, store);
}

static const vexi_store_ops s3_ops = {.flags = 0,
                                      .get = s3_get,
                                      .get_many = s3_get_many,
                                      .put = s3_put,
                                      .put_if_absent = s3_put_if_absent,
                                      .list = s3_list,
                                      .remove = s3_remove,
                                      .remove_many = s3_remove_many,
                                      .get_all = s3_get_all,
                                      .size = s3_size,
                                      .destroy = s3_destroy};

vex_status vexi_store_s3_create(const vexi_env *env, const vexi_s3_settings *settings,
                                vexi_store **out, vex_error *err) {
    *out = NULL;
    vexi_s3_store *store = vexi_calloc(env, 1, sizeof *store);
    if (store == NULL) {
        return vexi_no_memory(err, sizeof *store);
    }
    store->base = (vexi_store){.ops = &s3_ops, .env = env};
    vex_status status = vexi_s3_client_create(env, settings, &store->client, err);
    if (status != VEX_OK) {
        vexi_free(env, store);
        return status;
    }
    *out = &store->base;
    return VEX_OK;
}

void vexi_store_s3_counters(vexi_store *store, vexi_s3_counters out[VEXI_S3_KIND_COUNT]) {
    vexi_s3_client_counters(vexi_s3_store_of(store)->client, out);
}

vexi_s3_health vexi_store_s3_health(vexi_store *store) {
    return vexi_s3_client_health(vexi_s3_store_of(store)->client);
}

vexi_s3_store *vexi_s3_store_of(vexi_store *store) {
    VEX_ASSERT(store->ops == &s3_ops);
    return self_of(store);
}

const char *vexi_s3_kind_name(vexi_s3_kind kind) {
    static const char *const names[VEXI_S3_KIND_COUNT] = {"get",  "head",   "put",
                                                          "list", "delete", "multipart"};
    return names[kind];
}
