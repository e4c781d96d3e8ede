/* A bucket in memory that several nodes share, each by a store of its own: it can neither map, log
 * nor lock, as S3. A node's store fails, loses answers or calls a hook in the midst of a put, as
 * the test says; `decide` says it for each call by itself, and may let other nodes work before it
 * happens. A put that is late is answered by nobody knows and happens when the test says so, or
 * never: as a request that hangs in the network and outlives the node that sent it. */
#ifndef VEXI_STORE_TEST_BUCKET_H
#define VEXI_STORE_TEST_BUCKET_H

#include "check.h"
#include "store/store.h"

typedef enum vex_bucket_call {
    VEX_BUCKET_GET,
    VEX_BUCKET_SIZE,
    VEX_BUCKET_LIST,
    VEX_BUCKET_PUT,
    VEX_BUCKET_REMOVE
} vex_bucket_call;

typedef enum vex_bucket_fault {
    VEX_BUCKET_WELL,
    VEX_BUCKET_FAIL,        /* VEX_IO, undone */
    VEX_BUCKET_LOSE_ANSWER, /* done, and nobody knows */
    VEX_BUCKET_LOSE,        /* of a put: undone, and nobody knows; else as FAIL */
    VEX_BUCKET_LATE,        /* of a put: the same, but it may still land; else as FAIL */
    VEX_BUCKET_DIE,         /* the node is gone before the call */
    VEX_BUCKET_DIE_BEHIND,  /* or behind it */
    VEX_BUCKET_FAULTS
} vex_bucket_fault;

/* A put on its way. */
typedef struct vex_test_late {
    char *name;
    uint8_t *bytes;
    size_t size;
    bool if_absent;
    void *context; /* of the store that sent it */
} vex_test_late;

enum { VEX_BUCKET_LATE_MAX = 256 };

typedef struct vex_test_bucket {
    vexi_store base;
    vexi_store *inner; /* borrowed: the bucket */
    /* In the caller's thread, before each call of a node that is reachable; NULL: none. */
    vex_bucket_fault (*decide)(void *context, vex_bucket_call call, const char *name);
    /* Behind a put that happened, or a removal; NULL: none. */
    void (*done)(void *context, vex_bucket_call call, const char *name, vexi_span bytes);
    vex_test_late *late; /* borrowed, VEX_BUCKET_LATE_MAX: where late puts are */
    size_t *late_count;  /* borrowed */
    uint64_t call_count; /* atomic */
    int unreachable;     /* atomic: calls fail with VEX_IO and do nothing */
    int lost_answers;    /* atomic: so many of the next puts happen, and nobody knows */
    int lost_puts;       /* atomic: so many of the next puts do not happen, and nobody knows */
    const char *only;    /* lost_*: only names that contain this; NULL: all */
    void (*before_put)(void *context, const char *name); /* in the caller's thread; NULL: none */
    void *context;
} vex_test_bucket;

/* *fault: what is to happen to this call, of those that let it begin. */
static inline vex_status vex_test_bucket_begin(vexi_store *base, vex_bucket_call call,
                                               const char *name, vex_bucket_fault *fault,
                                               vex_error *err) {
    vex_test_bucket *self = (vex_test_bucket *)base;
    __atomic_add_fetch(&self->call_count, 1, __ATOMIC_RELAXED);
    *fault = VEX_BUCKET_WELL;
    bool gone = __atomic_load_n(&self->unreachable, __ATOMIC_RELAXED) != 0;
    if (!gone && self->decide != NULL) {
        *fault = self->decide(self->context, call, name);
        gone = __atomic_load_n(&self->unreachable, __ATOMIC_RELAXED) != 0;
    }
    if (*fault == VEX_BUCKET_DIE || *fault == VEX_BUCKET_DIE_BEHIND) {
        __atomic_store_n(&self->unreachable, 1, __ATOMIC_RELAXED);
    }
    bool undone = *fault == VEX_BUCKET_FAIL || *fault == VEX_BUCKET_DIE ||
                  (call != VEX_BUCKET_PUT && *fault != VEX_BUCKET_WELL &&
                   !(call == VEX_BUCKET_REMOVE &&
                     (*fault == VEX_BUCKET_LOSE_ANSWER || *fault == VEX_BUCKET_DIE_BEHIND)));
    return gone || undone ? vexi_fail(err, VEX_IO, "store unavailable: %s", name) : VEX_OK;
}

static inline vex_status vex_test_bucket_get(vexi_store *base, const char *name,
                                             const vexi_range *ranges, size_t count,
                                             vex_error *err) {
    vex_bucket_fault fault;
    VEX_TRY(vex_test_bucket_begin(base, VEX_BUCKET_GET, name, &fault, err));
    return vexi_store_get(((vex_test_bucket *)base)->inner, name, ranges, count, err);
}

/* Counts down where the name is meant. */
static inline bool vex_test_bucket_loses(const vex_test_bucket *self, int *left, const char *name) {
    if (self->only != NULL && strstr(name, self->only) == NULL) {
        return false;
    }
    int before = __atomic_load_n(left, __ATOMIC_RELAXED);
    if (before > 0) {
        __atomic_store_n(left, before - 1, __ATOMIC_RELAXED);
    }
    return before > 0;
}

static inline vexi_span vex_test_bucket_join(const vexi_span *parts, size_t count) {
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += parts[i].size;
    }
    uint8_t *bytes = malloc(size + 1);
    CHECK(bytes != NULL);
    size = 0;
    for (size_t i = 0; i < count; i++) {
        if (parts[i].size > 0) {
            memcpy(bytes + size, parts[i].data, parts[i].size);
        }
        size += parts[i].size;
    }
    return vexi_span_of(bytes, size);
}

/* Keep a put for later; one that finds no room is lost. */
static inline void vex_test_bucket_delay(vex_test_bucket *self, const char *name,
                                         const vexi_span *parts, size_t count, bool if_absent) {
    if (self->late == NULL || *self->late_count == VEX_BUCKET_LATE_MAX) {
        return;
    }
    vexi_span bytes = vex_test_bucket_join(parts, count);
    size_t name_size = strlen(name) + 1;
    vex_test_late *late = &self->late[(*self->late_count)++];
    *late = (vex_test_late){.name = malloc(name_size),
                            .bytes = (uint8_t *)(uintptr_t)bytes.data,
                            .size = bytes.size,
                            .if_absent = if_absent,
                            .context = self->context};
    CHECK(late->name != NULL);
    memcpy(late->name, name, name_size);
}

/* Late put i of the list is gone, having happened first if `land`. Returns whether it did. */
static inline bool vex_test_late_end(vexi_store *inner, vex_test_late *late, size_t *count,
                                     size_t i, bool land) {
    vexi_span bytes = vexi_span_of(late[i].bytes, late[i].size);
    bool landed = land && (late[i].if_absent
                               ? vexi_store_put_if_absent(inner, late[i].name, &bytes, 1, NULL)
                               : vexi_store_put(inner, late[i].name, &bytes, 1, NULL)) == VEX_OK;
    free(late[i].name);
    free(late[i].bytes);
    memmove(late + i, late + i + 1, (*count - i - 1) * sizeof *late);
    *count -= 1;
    return landed;
}

static inline vex_status vex_test_bucket_write(vexi_store *base, const char *name,
                                               const vexi_span *parts, size_t count, bool if_absent,
                                               vex_error *err) {
    vex_test_bucket *self = (vex_test_bucket *)base;
    vex_bucket_fault fault;
    VEX_TRY(vex_test_bucket_begin(base, VEX_BUCKET_PUT, name, &fault, err));
    if (self->before_put != NULL) {
        self->before_put(self->context, name);
    }
    if (fault == VEX_BUCKET_LATE) {
        vex_test_bucket_delay(self, name, parts, count, if_absent);
    }
    if (fault == VEX_BUCKET_LATE || fault == VEX_BUCKET_LOSE ||
        vex_test_bucket_loses(self, &self->lost_puts, name)) {
        return vexi_fail(err, VEX_UNKNOWN_OUTCOME, "%s: no answer", name);
    }
    vex_status status = if_absent ? vexi_store_put_if_absent(self->inner, name, parts, count, err)
                                  : vexi_store_put(self->inner, name, parts, count, err);
    if (status == VEX_OK && self->done != NULL) {
        vexi_span bytes = vex_test_bucket_join(parts, count);
        self->done(self->context, VEX_BUCKET_PUT, name, bytes);
        free((void *)(uintptr_t)bytes.data);
    }
    if (fault == VEX_BUCKET_LOSE_ANSWER || fault == VEX_BUCKET_DIE_BEHIND ||
        vex_test_bucket_loses(self, &self->lost_answers, name)) {
        return vexi_fail(err, VEX_UNKNOWN_OUTCOME, "%s: no answer", name);
    }
    return status;
}

static inline vex_status vex_test_bucket_put(vexi_store *base, const char *name,
                                             const vexi_span *parts, size_t count, vex_error *err) {
    return vex_test_bucket_write(base, name, parts, count, false, err);
}

static inline vex_status vex_test_bucket_put_if_absent(vexi_store *base, const char *name,
                                                       const vexi_span *parts, size_t count,
                                                       vex_error *err) {
    return vex_test_bucket_write(base, name, parts, count, true, err);
}

static inline vex_status vex_test_bucket_list(vexi_store *base, const char *prefix,
                                              const char *after, bool by_folder, vexi_arena *arena,
                                              vexi_listing *out, vex_error *err) {
    vex_bucket_fault fault;
    VEX_TRY(vex_test_bucket_begin(base, VEX_BUCKET_LIST, prefix, &fault, err));
    return vexi_store_list(((vex_test_bucket *)base)->inner, prefix, after, by_folder, arena, out,
                           err);
}

static inline vex_status vex_test_bucket_remove(vexi_store *base, const char *name,
                                                vex_error *err) {
    vex_test_bucket *self = (vex_test_bucket *)base;
    vex_bucket_fault fault;
    VEX_TRY(vex_test_bucket_begin(base, VEX_BUCKET_REMOVE, name, &fault, err));
    vex_status status = vexi_store_remove(self->inner, name, err);
    if (status == VEX_OK && self->done != NULL) {
        self->done(self->context, VEX_BUCKET_REMOVE, name, (vexi_span){.data = NULL});
    }
    return fault == VEX_BUCKET_WELL ? status : vexi_fail(err, VEX_IO, "%s: no answer", name);
}

static inline vex_status vex_test_bucket_size(vexi_store *base, const char *name, uint64_t *out,
                                              vex_error *err) {
    vex_bucket_fault fault;
    VEX_TRY(vex_test_bucket_begin(base, VEX_BUCKET_SIZE, name, &fault, err));
    return vexi_store_size(((vex_test_bucket *)base)->inner, name, out, err);
}

static inline void vex_test_bucket_destroy(vexi_store *base) {
    free(base);
}

/* A node's store over the bucket `inner`, which outlives it. */
static inline vex_test_bucket *vex_test_bucket_create(const vexi_env *env, vexi_store *inner) {
    static const vexi_store_ops ops = {
        .get = vex_test_bucket_get,
        .put = vex_test_bucket_put,
        .put_if_absent = vex_test_bucket_put_if_absent,
        .list = vex_test_bucket_list,
        .remove = vex_test_bucket_remove,
        .size = vex_test_bucket_size,
        .destroy = vex_test_bucket_destroy,
    };
    vex_test_bucket *self = calloc(1, sizeof *self);
    CHECK(self != NULL);
    self->base = (vexi_store){.ops = &ops, .env = env};
    self->inner = inner;
    return self;
}

#endif
