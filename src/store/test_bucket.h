/* A bucket in memory that several nodes share, each by a store of its own: it can neither map, log
 * nor lock, as S3. A node's store fails, loses answers or calls a hook in the midst of a put, as
 * the test says. */
#ifndef VEXI_STORE_TEST_BUCKET_H
#define VEXI_STORE_TEST_BUCKET_H

#include "check.h"
#include "store/store.h"

typedef struct vex_test_bucket {
    vexi_store base;
    vexi_store *inner;   /* borrowed: the bucket */
    uint64_t call_count; /* atomic */
    int unreachable;     /* atomic: calls fail with VEX_IO and do nothing */
    int lost_answers;    /* atomic: so many of the next puts happen, and nobody knows */
    int lost_puts;       /* atomic: so many of the next puts do not happen, and nobody knows */
    const char *only;    /* lost_*: only names that contain this; NULL: all */
    void (*before_put)(void *context, const char *name); /* in the caller's thread; NULL: none */
    void *context;
} vex_test_bucket;

static inline vex_status vex_test_bucket_begin(vexi_store *base, const char *name, vex_error *err) {
    vex_test_bucket *self = (vex_test_bucket *)base;
    __atomic_add_fetch(&self->call_count, 1, __ATOMIC_RELAXED);
    return __atomic_load_n(&self->unreachable, __ATOMIC_RELAXED) != 0
               ? vexi_fail(err, VEX_IO, "store unavailable: %s", name)
               : VEX_OK;
}

static inline vex_status vex_test_bucket_get(vexi_store *base, const char *name,
                                             const vexi_range *ranges, size_t count,
                                             vex_error *err) {
    VEX_TRY(vex_test_bucket_begin(base, name, err));
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

static inline vex_status vex_test_bucket_write(vexi_store *base, const char *name,
                                               const vexi_span *parts, size_t count, bool if_absent,
                                               vex_error *err) {
    vex_test_bucket *self = (vex_test_bucket *)base;
    VEX_TRY(vex_test_bucket_begin(base, name, err));
    if (self->before_put != NULL) {
        self->before_put(self->context, name);
    }
    if (vex_test_bucket_loses(self, &self->lost_puts, name)) {
        return vexi_fail(err, VEX_UNKNOWN_OUTCOME, "%s: no answer", name);
    }
    vex_status status = if_absent ? vexi_store_put_if_absent(self->inner, name, parts, count, err)
                                  : vexi_store_put(self->inner, name, parts, count, err);
    if (vex_test_bucket_loses(self, &self->lost_answers, name)) {
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
    VEX_TRY(vex_test_bucket_begin(base, prefix, err));
    return vexi_store_list(((vex_test_bucket *)base)->inner, prefix, after, by_folder, arena, out,
                           err);
}

static inline vex_status vex_test_bucket_remove(vexi_store *base, const char *name,
                                                vex_error *err) {
    VEX_TRY(vex_test_bucket_begin(base, name, err));
    return vexi_store_remove(((vex_test_bucket *)base)->inner, name, err);
}

static inline vex_status vex_test_bucket_size(vexi_store *base, const char *name, uint64_t *out,
                                              vex_error *err) {
    VEX_TRY(vex_test_bucket_begin(base, name, err));
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
