/* A store that reads through another one by ranges alone: it cannot map, as a store over a network,
 * and counts its calls, each of which would be a trip there and back. Puts nothing. */
#ifndef VEXI_STORE_TEST_RANGES_STORE_H
#define VEXI_STORE_TEST_RANGES_STORE_H

#include "check.h"
#include "store/store.h"

typedef struct vex_test_ranges {
    vexi_store base;
    vexi_store *inner;   /* borrowed */
    uint64_t call_count; /* atomic: requests */
    uint64_t trip_count; /* atomic: get_many calls, of which each is one step */
    uint64_t range_count;
    uint64_t byte_count;
    int fails;        /* atomic: calls fail with VEX_IO */
    int fail_at;      /* atomic: the n-th call from now on does, n > 0 */
    int damages;      /* atomic: so many of the next gets bring a wrong bit */
    int damage_after; /* atomic: but for so many first ones */
} vex_test_ranges;

static inline vex_status vex_test_ranges_begin(vexi_store *base, const char *name, vex_error *err) {
    vex_test_ranges *self = (vex_test_ranges *)base;
    __atomic_add_fetch(&self->call_count, 1, __ATOMIC_RELAXED);
    bool now = __atomic_load_n(&self->fail_at, __ATOMIC_RELAXED) > 0 &&
               __atomic_sub_fetch(&self->fail_at, 1, __ATOMIC_RELAXED) == 0;
    return now || __atomic_load_n(&self->fails, __ATOMIC_RELAXED) != 0
               ? vexi_fail(err, VEX_IO, "store unavailable: %s", name)
               : VEX_OK;
}

static inline vex_status vex_test_ranges_get(vexi_store *base, const char *name,
                                             const vexi_range *ranges, size_t count,
                                             vex_error *err) {
    vex_test_ranges *self = (vex_test_ranges *)base;
    VEX_TRY(vex_test_ranges_begin(base, name, err));
    __atomic_add_fetch(&self->range_count, count, __ATOMIC_RELAXED);
    for (size_t i = 0; i < count; i++) {
        __atomic_add_fetch(&self->byte_count, ranges[i].size, __ATOMIC_RELAXED);
    }
    VEX_TRY(vexi_store_get(self->inner, name, ranges, count, err));
    int left = __atomic_load_n(&self->damages, __ATOMIC_RELAXED);
    int after = left > 0 ? __atomic_fetch_sub(&self->damage_after, 1, __ATOMIC_RELAXED) : 0;
    if (left > 0 && after <= 0 && count > 0 && ranges[0].size > 0) {
        __atomic_store_n(&self->damages, left - 1, __ATOMIC_RELAXED);
        ranges[0].target[ranges[0].size / 2] ^= 4;
    }
    return VEX_OK;
}

/* One trip for all. */
static inline vex_status vex_test_ranges_get_many(vexi_store *base, const vexi_store_read *gets,
                                                  size_t count, size_t request_max,
                                                  vexi_read_cost *cost, size_t *failed,
                                                  vex_error *err) {
    vex_test_ranges *self = (vex_test_ranges *)base;
    (void)request_max;
    VEX_TRY(vex_test_ranges_begin(base, gets[0].name, err));
    __atomic_add_fetch(&self->call_count, (uint64_t)-1, __ATOMIC_RELAXED); /* each get counts one */
    __atomic_add_fetch(&self->trip_count, 1, __ATOMIC_RELAXED);
    cost->steps++;
    for (size_t i = 0; i < count; i++) {
        *failed = i;
        VEX_TRY(vex_test_ranges_get(base, gets[i].name, gets[i].ranges, gets[i].count, err));
        cost->requests++;
        for (size_t r = 0; r < gets[i].count; r++) {
            cost->bytes += gets[i].ranges[r].size;
        }
    }
    return VEX_OK;
}

static inline vex_status vex_test_ranges_list(vexi_store *base, const char *prefix,
                                              const char *after, bool by_folder, vexi_arena *arena,
                                              vexi_listing *out, vex_error *err) {
    VEX_TRY(vex_test_ranges_begin(base, prefix, err));
    return vexi_store_list(((vex_test_ranges *)base)->inner, prefix, after, by_folder, arena, out,
                           err);
}

static inline vex_status vex_test_ranges_size(vexi_store *base, const char *name, uint64_t *out,
                                              vex_error *err) {
    VEX_TRY(vex_test_ranges_begin(base, name, err));
    return vexi_store_size(((vex_test_ranges *)base)->inner, name, out, err);
}

static inline vex_status vex_test_ranges_get_all(vexi_store *base, const char *name,
                                                 size_t size_max, vexi_arena *arena, vexi_span *out,
                                                 vex_error *err) {
    VEX_TRY(vex_test_ranges_begin(base, name, err));
    return vexi_store_get_all(((vex_test_ranges *)base)->inner, name, size_max, arena, out, err);
}

static inline void vex_test_ranges_destroy(vexi_store *base) {
    free(base);
}

/* The engine destroys it, and not `inner`. */
static inline vex_test_ranges *vex_test_ranges_create(const vexi_env *env, vexi_store *inner) {
    static const vexi_store_ops ops = {
        .get = vex_test_ranges_get,
        .get_many = vex_test_ranges_get_many,
        .list = vex_test_ranges_list,
        .get_all = vex_test_ranges_get_all,
        .size = vex_test_ranges_size,
        .destroy = vex_test_ranges_destroy,
    };
    vex_test_ranges *self = calloc(1, sizeof *self);
    CHECK(self != NULL);
    self->base = (vexi_store){.ops = &ops, .env = env};
    self->inner = inner;
    return self;
}

#endif
