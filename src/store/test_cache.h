/* For the tests of the cache: objects whose bytes follow from a seed, and an inner store that
 * outlives the caches over it, counts what it is asked, and can keep its answers back. */
#ifndef VEXI_STORE_TEST_CACHE_H
#define VEXI_STORE_TEST_CACHE_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "check.h"
#include "store/store.h"

/* Bytes `offset` to `offset` + 7 of the object of a seed, `offset` a multiple of 8. */
static inline uint64_t vex_test_word(uint64_t seed, uint64_t offset) {
    return vexi_random_mix(seed * 1000003 + offset / 8);
}

static inline void vex_test_fill(uint8_t *bytes, uint64_t seed, uint64_t offset, size_t size) {
    uint64_t word = vex_test_word(seed, offset);
    for (size_t i = 0; i < size; i++) {
        uint64_t at = offset + i;
        word = at % 8 == 0 ? vex_test_word(seed, at) : word;
        bytes[i] = (uint8_t)(word >> (at % 8 * 8));
    }
}

static inline void vex_test_check_bytes(const uint8_t *bytes, uint64_t seed, uint64_t offset,
                                        size_t size) {
    uint64_t word = vex_test_word(seed, offset);
    for (size_t i = 0; i < size; i++) {
        uint64_t at = offset + i;
        word = at % 8 == 0 ? vex_test_word(seed, at) : word;
        if (bytes[i] != (uint8_t)(word >> (at % 8 * 8))) {
            fprintf(stderr, "seed %llu: byte %llu (%zu of %zu) is wrong\n",
                    (unsigned long long)seed, (unsigned long long)at, i, size);
            exit(1);
        }
    }
}

static inline void vex_test_put(vexi_store *store, const char *name, uint64_t seed, size_t size) {
    uint8_t *bytes = malloc(size + 1);
    CHECK(bytes != NULL);
    vex_test_fill(bytes, seed, 0, size);
    vexi_span part = {.data = bytes, .size = size};
    CHECK_OK(vexi_store_put(store, name, &part, 1, &err));
    free(bytes);
}

static inline void vex_test_check_get(vexi_store *store, const char *name, uint64_t seed,
                                      uint64_t offset, size_t size) {
    uint8_t *bytes = malloc(size + 1);
    CHECK(bytes != NULL);
    vexi_range range = {.offset = offset, .size = size, .target = bytes};
    CHECK_OK(vexi_store_get(store, name, &range, 1, &err));
    vex_test_check_bytes(bytes, seed, offset, size);
    free(bytes);
}

/* A store in memory (or another one), and a gate that its gets pass after they have read. */
typedef struct vex_test_inner {
    vexi_store *store;
    atomic_uint gets;
    atomic_uint sizes;
    pthread_mutex_t mutex; /* guards all below */
    pthread_cond_t changed;
    bool is_closed;
    unsigned waiting;
    vex_status answer; /* of those who waited */
} vex_test_inner;

/* What a cache takes and destroys. */
typedef struct vex_test_borrowed {
    vexi_store base;
    vex_test_inner *inner;
} vex_test_borrowed;

static inline vex_test_inner *vex_test_inner_of(vexi_store *base) {
    return ((vex_test_borrowed *)base)->inner;
}

static inline vex_status vex_test_inner_get(vexi_store *base, const char *name,
                                            const vexi_range *ranges, size_t count,
                                            vex_error *err) {
    vex_test_inner *inner = vex_test_inner_of(base);
    atomic_fetch_add(&inner->gets, 1);
    vex_status status = vexi_store_get(inner->store, name, ranges, count, err);
    pthread_mutex_lock(&inner->mutex);
    if (inner->is_closed) {
        inner->waiting++;
        pthread_cond_broadcast(&inner->changed);
        while (inner->is_closed) {
            pthread_cond_wait(&inner->changed, &inner->mutex);
        }
        inner->waiting--;
        if (inner->answer != VEX_OK) {
            status = vexi_fail(err, inner->answer, "the gate says no");
        }
    }
    pthread_mutex_unlock(&inner->mutex);
    return status;
}

static inline vex_status vex_test_inner_put(vexi_store *base, const char *name,
                                            const vexi_span *parts, size_t count, vex_error *err) {
    return vexi_store_put(vex_test_inner_of(base)->store, name, parts, count, err);
}

static inline vex_status vex_test_inner_put_if_absent(vexi_store *base, const char *name,
                                                      const vexi_span *parts, size_t count,
                                                      vex_error *err) {
    return vexi_store_put_if_absent(vex_test_inner_of(base)->store, name, parts, count, err);
}

static inline vex_status vex_test_inner_list(vexi_store *base, const char *prefix,
                                             const char *after, bool by_folder, vexi_arena *arena,
                                             vexi_listing *out, vex_error *err) {
    return vexi_store_list(vex_test_inner_of(base)->store, prefix, after, by_folder, arena, out,
                           err);
}

static inline vex_status vex_test_inner_remove(vexi_store *base, const char *name, vex_error *err) {
    return vexi_store_remove(vex_test_inner_of(base)->store, name, err);
}

static inline vex_status vex_test_inner_size(vexi_store *base, const char *name, uint64_t *out,
                                             vex_error *err) {
    vex_test_inner *inner = vex_test_inner_of(base);
    atomic_fetch_add(&inner->sizes, 1);
    return vexi_store_size(inner->store, name, out, err);
}

static inline void vex_test_inner_destroy(vexi_store *base) {
    free(base);
}

static const vexi_store_ops vex_test_inner_ops = {
    .get = vex_test_inner_get,
    .put = vex_test_inner_put,
    .put_if_absent = vex_test_inner_put_if_absent,
    .list = vex_test_inner_list,
    .remove = vex_test_inner_remove,
    .size = vex_test_inner_size,
    .destroy = vex_test_inner_destroy,
};

static inline vex_test_inner vex_test_inner_make(void) {
    vex_test_inner inner = {0};
    CHECK_OK(vexi_store_mem_create(vex_test_env(), &inner.store, &err));
    pthread_mutex_init(&inner.mutex, NULL);
    pthread_cond_init(&inner.changed, NULL);
    return inner;
}

static inline void vex_test_inner_free(vex_test_inner *inner) {
    vexi_store_destroy(inner->store);
    pthread_cond_destroy(&inner->changed);
    pthread_mutex_destroy(&inner->mutex);
}

static inline vexi_store *vex_test_inner_borrow(vex_test_inner *inner) {
    vex_test_borrowed *borrowed = calloc(1, sizeof *borrowed);
    CHECK(borrowed != NULL);
    borrowed->base = (vexi_store){.ops = &vex_test_inner_ops, .env = vex_test_env()};
    borrowed->inner = inner;
    return &borrowed->base;
}

/* From now on gets read and then wait; `answer` replaces their status when they go on. */
static inline void vex_test_inner_close(vex_test_inner *inner, vex_status answer) {
    pthread_mutex_lock(&inner->mutex);
    inner->is_closed = true;
    inner->answer = answer;
    pthread_mutex_unlock(&inner->mutex);
}

static inline void vex_test_inner_open(vex_test_inner *inner) {
    pthread_mutex_lock(&inner->mutex);
    inner->is_closed = false;
    pthread_cond_broadcast(&inner->changed);
    pthread_mutex_unlock(&inner->mutex);
}

/* Until some get waits. */
static inline void vex_test_inner_await(vex_test_inner *inner) {
    pthread_mutex_lock(&inner->mutex);
    while (inner->waiting == 0) {
        pthread_cond_wait(&inner->changed, &inner->mutex);
    }
    pthread_mutex_unlock(&inner->mutex);
}

#endif
