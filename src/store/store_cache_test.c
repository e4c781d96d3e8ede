/* The caching store: what it asks of the inner store, one flight per block, replacement, pins,
 * forgetting, and a model under random operations and faults. The common body of all stores runs
 * over it in store_test.c; level 2 has its own tests in cache_disk_test.c. */
#include <pthread.h>
#include <stdatomic.h>

#include "check.h"
#include "store/cache.h"
#include "store/test_cache.h"

enum { BLOCK = 4096 };

static vexi_cache_counters counters_of(vexi_store *store) {
    vexi_cache_counters c;
    vexi_store_cache_counters(store, &c);
    return c;
}

static vexi_store *cache_over(vexi_store *inner, uint64_t memory_bytes) {
    const vexi_cache_config config = {.memory_bytes = memory_bytes, .block_size = BLOCK};
    vexi_store *store = NULL;
    CHECK_OK(vexi_store_cache_create(vex_test_env(), inner, &config, &store, &err));
    return store;
}

TEST(reads) {
    vex_test_inner inner = vex_test_inner_make();
    vexi_store *store = cache_over(vex_test_inner_borrow(&inner), 1 << 20);
    vex_test_put(store, "a/x", 1, 10 * BLOCK + 100);
    /* The size is known from the put; three missing blocks of two ranges are one get. */
    vex_test_check_get(store, "a/x", 1, 10, 20);
    CHECK_EQ(atomic_load(&inner.gets), 1);
    CHECK_EQ(atomic_load(&inner.sizes), 0);
    uint8_t first[5000], second[300];
    vexi_range ranges[3] = {{.offset = BLOCK - 1000, .size = sizeof first, .target = first},
                            {.offset = 7, .size = 0, .target = NULL},
                            {.offset = 10 * BLOCK - 200, .size = sizeof second, .target = second}};
    CHECK_OK(vexi_store_get(store, "a/x", ranges, 3, &err));
    vex_test_check_bytes(first, 1, BLOCK - 1000, sizeof first);
    vex_test_check_bytes(second, 1, 10 * BLOCK - 200, sizeof second);
    CHECK_EQ(atomic_load(&inner.gets), 2);
    vexi_cache_counters c = counters_of(store);
    CHECK_EQ(c.memory_hits, 1);
    CHECK_EQ(c.memory_hit_bytes, 1000);
    CHECK_EQ(c.misses, 4);
    CHECK_EQ(c.miss_bytes, 4 * BLOCK - BLOCK + 100);
    CHECK_EQ(c.fetches, 2);
    CHECK_EQ(c.memory_blocks, 4);
    /* All of it again, from memory and from below; then from memory alone. */
    for (int i = 0; i < 2; i++) {
        vex_test_check_get(store, "a/x", 1, 0, 10 * BLOCK + 100);
        CHECK_EQ(atomic_load(&inner.gets), 3);
    }
    /* The same block by several ranges of one get is fetched once. */
    vex_test_put(store, "a/y", 2, 100);
    uint8_t bytes[40];
    vexi_range same[4];
    for (size_t i = 0; i < 4; i++) {
        same[i] = (vexi_range){.offset = i * 10, .size = 10, .target = bytes + i * 10};
    }
    CHECK_OK(vexi_store_get(store, "a/y", same, 4, &err));
    vex_test_check_bytes(bytes, 2, 0, 40);
    CHECK_EQ(counters_of(store).misses - c.misses, 7 + 1);
    /* Ends, absent objects. */
    vexi_range past = {.offset = 90, .size = 11, .target = bytes};
    CHECK_FAILS(VEX_CORRUPT, vexi_store_get(store, "a/y", &past, 1, &err));
    past = (vexi_range){.offset = UINT64_MAX - 4, .size = 11, .target = bytes};
    CHECK_FAILS(VEX_CORRUPT, vexi_store_get(store, "a/y", &past, 1, &err));
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_get(store, "a/z", same, 1, &err));
    /* What another store wrote: the size is asked once. */
    vex_test_put(inner.store, "b", 3, 100);
    uint64_t size = 0;
    unsigned sizes = atomic_load(&inner.sizes);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(vexi_store_size(store, "b", &size, &err));
        CHECK_EQ(size, 100);
        vex_test_check_get(store, "b", 3, 0, 100);
    }
    CHECK_EQ(atomic_load(&inner.sizes), sizes + 1);
    /* Or not at all, where it is told; a wrong one is no wrong bytes. */
    vex_test_put(inner.store, "c", 4, 100);
    vexi_store_cache_tell_size(store, "c", 100);
    vex_test_check_get(store, "c", 4, 0, 100);
    CHECK_EQ(atomic_load(&inner.sizes), sizes + 1);
    vexi_store_cache_tell_size(store, "c", 101);
    vexi_range all = {.offset = 0, .size = 40, .target = bytes};
    CHECK_FAILS(VEX_CORRUPT, vexi_store_get(store, "c", &all, 1, &err));
    vexi_store_cache_tell_size(store, "c", 100);
    vex_test_check_get(store, "c", 4, 0, 100);
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

static bool is_log(void *context, const char *name) {
    (void)context;
    return strncmp(name, "_log/", 5) == 0;
}

TEST(passes_by) {
    vex_test_inner inner = vex_test_inner_make();
    const vexi_cache_config config = {.memory_bytes = 1 << 20, .is_uncached = is_log};
    vexi_store *store = NULL;
    CHECK_OK(vexi_store_cache_create(vex_test_env(), vex_test_inner_borrow(&inner), &config, &store,
                                     &err));
    vex_test_put(store, "_log/1", 1, 100);
    vex_test_check_get(store, "_log/1", 1, 0, 100);
    vex_test_put(inner.store, "_log/1", 2, 90); /* behind the cache's back */
    vex_test_check_get(store, "_log/1", 2, 0, 90);
    uint64_t size = 0;
    CHECK_OK(vexi_store_size(store, "_log/1", &size, &err));
    CHECK_EQ(size, 90);
    vexi_range range = {.offset = 0, .size = 90};
    CHECK_OK(vexi_store_cache_warm(store, "_log/1", &range, 1, &err));
    vexi_cache_pin *pin = NULL;
    CHECK_FAILS(VEX_INVALID, vexi_store_cache_pin(store, "_log/1", 0, 1, &pin, &err));
    CHECK_FAILS(VEX_INVALID, vexi_store_cache_pin(store, "../x", 0, 1, &pin, &err));
    CHECK_FAILS(VEX_INVALID, vexi_store_cache_warm(store, "../x", &range, 1, &err));
    /* get_all is always fresh. */
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    for (int i = 1; i < 4; i++) {
        vex_test_put(inner.store, "hint", (uint64_t)i, 10);
        vexi_span all;
        CHECK_OK(vexi_store_get_all(store, "hint", 100, &arena, &all, &err));
        vex_test_check_bytes(all.data, (uint64_t)i, 0, 10);
    }
    vexi_arena_deinit(&arena);
    CHECK_EQ(counters_of(store).misses, 0);
    CHECK_EQ(counters_of(store).passed_by, 5);
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

/* What several objects lack is one step of the inner store; what is cached costs none. */
TEST(several_objects) {
    vex_test_inner inner = vex_test_inner_make();
    const vexi_cache_config config = {
        .memory_bytes = 1 << 20, .block_size = BLOCK, .is_uncached = is_log};
    vexi_store *store = NULL;
    CHECK_OK(vexi_store_cache_create(vex_test_env(), vex_test_inner_borrow(&inner), &config, &store,
                                     &err));
    enum { OBJECTS = 4, RANGES = 300, SIZE = 20 * BLOCK };
    static uint8_t bytes[OBJECTS][RANGES][50];
    static vexi_range ranges[OBJECTS][RANGES];
    static const char *const names[OBJECTS] = {"a", "b", "_log/c", "d"};
    vexi_store_read gets[OBJECTS];
    for (size_t i = 0; i < OBJECTS; i++) {
        vex_test_put(inner.store, names[i], i, SIZE);
        vexi_store_cache_tell_size(store, names[i], SIZE);
        for (size_t r = 0; r < RANGES; r++) {
            ranges[i][r] =
                (vexi_range){.offset = r * 270, .size = sizeof bytes[i][r], .target = bytes[i][r]};
        }
        gets[i] = (vexi_store_read){.name = names[i], .ranges = ranges[i], .count = RANGES};
    }
    vexi_read_cost cost = {0};
    size_t failed = 9;
    CHECK_OK(vexi_store_get_many(store, gets, 2, 0, &cost, &failed, &err));
    CHECK_EQ(cost.steps, 1);
    CHECK_EQ(cost.requests, 2);
    CHECK_EQ(cost.bytes, 2 * SIZE);
    CHECK_EQ(cost.hits, 0);
    cost = (vexi_read_cost){0};
    CHECK_OK(vexi_store_get_many(store, gets, 2, 0, &cost, &failed, &err));
    CHECK_EQ(cost.steps, 0);
    CHECK_EQ(cost.requests, 0);
    CHECK(cost.hits >= 2 * RANGES);
    memset(bytes, 0, sizeof bytes);
    cost = (vexi_read_cost){0};
    CHECK_OK(vexi_store_get_many(store, gets, OBJECTS, 0, &cost, &failed, &err));
    CHECK_EQ(cost.steps, 2); /* what is never cached is one of its own */
    for (size_t i = 0; i < OBJECTS; i++) {
        for (size_t r = 0; r < RANGES; r++) {
            vex_test_check_bytes(bytes[i][r], i, r * 270, sizeof bytes[i][r]);
        }
    }
    /* The number is that of the caller, on both ways. */
    for (size_t i = 0; i < OBJECTS; i++) {
        gets[i].name = i == 2 ? "_log/none" : "none";
        CHECK_FAILS(VEX_NOT_FOUND,
                    vexi_store_get_many(store, gets, OBJECTS, 0, NULL, &failed, &err));
        CHECK_EQ(failed, i);
        gets[i].name = names[i];
        vexi_range good = ranges[i][3];
        ranges[i][3].offset = SIZE - 3;
        CHECK_FAILS(VEX_CORRUPT, vexi_store_get_many(store, gets, OBJECTS, 0, NULL, &failed, &err));
        CHECK_EQ(failed, i);
        ranges[i][3] = good;
    }
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

/* With fill_on_put the writer's next read asks nothing, whatever the parts were; uncached names and
 * puts that fail leave nothing behind. */
TEST(filled_by_puts) {
    vex_test_inner inner = vex_test_inner_make();
    const vexi_cache_config config = {.memory_bytes = 64 * (BLOCK + 192),
                                      .block_size = BLOCK,
                                      .is_uncached = is_log,
                                      .fill_on_put = true};
    vexi_store *store = NULL;
    CHECK_OK(vexi_store_cache_create(vex_test_env(), vex_test_inner_borrow(&inner), &config, &store,
                                     &err));
    enum { SIZE = 20 * BLOCK + 77 };
    static uint8_t bytes[SIZE];
    uint64_t random = vex_test_seed(4);
    for (uint64_t seed = 1; seed < 20; seed++) {
        vex_test_fill(bytes, seed, 0, SIZE);
        vexi_span parts[8];
        size_t count = 0, done = 0;
        for (; count < 7; count++) {
            size_t n = (size_t)vex_test_below(&random, (SIZE - done) / 2);
            parts[count] = (vexi_span){.data = n == 0 ? NULL : bytes + done, .size = n};
            done += n;
        }
        parts[count++] = (vexi_span){.data = bytes + done, .size = SIZE - done};
        CHECK_OK(vexi_store_put(store, "x", parts, count, &err));
        vex_test_check_get(store, "x", seed, 0, SIZE);
        CHECK_EQ(atomic_load(&inner.gets), 0);
        CHECK_EQ(atomic_load(&inner.sizes), 0);
        CHECK_EQ(counters_of(store).filled, seed * 21);
        CHECK_EQ(counters_of(store).filled_bytes, seed * SIZE);
    }
    CHECK_FAILS(VEX_EXISTS, vexi_store_put_if_absent(
                                store, "x", &(vexi_span){.data = bytes, .size = SIZE}, 1, &err));
    vex_test_check_get(store, "x", 19, 0, SIZE);
    CHECK(atomic_load(&inner.gets) > 0); /* what was there is read, not what was refused */
    vex_test_put(store, "empty", 1, 0);
    vex_test_put(store, "_log/1", 1, 100);
    CHECK_EQ(counters_of(store).filled, 19 * 21);
    /* Larger than the budget: it passes through. */
    vex_test_put(store, "large", 2, 1000 * BLOCK + 3);
    CHECK(counters_of(store).memory_bytes <= 64 * (BLOCK + 192));
    vex_test_check_get(store, "large", 2, 0, 1000 * BLOCK + 3);
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

/* Bytes that were spoiled on their way are not kept once somebody says so. */
TEST(distrusted) {
    vex_test_inner inner = vex_test_inner_make();
    vexi_store *store = cache_over(vex_test_inner_borrow(&inner), 1 << 20);
    vex_test_put(inner.store, "a/x", 1, 3 * BLOCK);
    vex_test_check_get(store, "a/x", 1, 0, 3 * BLOCK);
    vex_test_put(inner.store, "a/x", 2, 3 * BLOCK); /* as if the first read had been wrong */
    vex_test_check_get(store, "a/x", 1, 0, 3 * BLOCK);
    unsigned sizes = atomic_load(&inner.sizes);
    vexi_store_distrust(store, "a/x");
    vex_test_check_get(store, "a/x", 2, 0, 3 * BLOCK);
    CHECK_EQ(atomic_load(&inner.sizes), sizes); /* of which there was no doubt */
    CHECK_EQ(counters_of(store).distrusts, 1);
    vexi_store_distrust(store, "../no name");
    vexi_store_distrust(inner.store, "a/x"); /* a store without a cache */
    CHECK_EQ(counters_of(store).distrusts, 1);
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

TEST(bad_config) {
    vex_test_inner inner = vex_test_inner_make();
    static const size_t sizes[] = {1, 2048, 5000, 4097, 1 << 21};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const vexi_cache_config config = {.block_size = sizes[i]};
        vexi_store *store = NULL;
        CHECK_FAILS(VEX_INVALID,
                    vexi_store_cache_create(vex_test_env(), vex_test_inner_borrow(&inner), &config,
                                            &store, &err));
        CHECK(store == NULL);
    }
    vex_test_inner_free(&inner);
}

/* ---- One flight ------------------------------------------------------------------------------ */

enum { FLYER_COUNT = 8 };

typedef struct flyer {
    vexi_store *store;
    vex_status status;
    vex_error error;
    uint8_t bytes[2 * BLOCK];
} flyer;

static void *fly(void *argument) {
    flyer *f = argument;
    vexi_range range = {.offset = 100, .size = sizeof f->bytes, .target = f->bytes};
    f->status = vexi_store_get(f->store, "x", &range, 1, &f->error);
    return NULL;
}

/* Readers of the same missing blocks, while the inner store answers nobody: one request. */
TEST(one_flight) {
    vex_test_inner inner = vex_test_inner_make();
    vexi_store *store = cache_over(vex_test_inner_borrow(&inner), 1 << 20);
    vex_test_put(store, "x", 1, 10 * BLOCK);
    static flyer flyers[FLYER_COUNT];
    for (int fails = 1; fails >= 0; fails--) {
        unsigned gets = atomic_load(&inner.gets);
        uint64_t shared = counters_of(store).shared;
        vex_test_inner_close(&inner, fails == 1 ? VEX_IO : VEX_OK);
        pthread_t threads[FLYER_COUNT];
        for (size_t i = 0; i < FLYER_COUNT; i++) {
            flyers[i] = (flyer){.store = store};
            CHECK_EQ(pthread_create(&threads[i], NULL, fly, &flyers[i]), 0);
        }
        while (counters_of(store).shared < shared + 3 * (FLYER_COUNT - 1)) {
            sched_yield();
        }
        vex_test_inner_open(&inner);
        for (size_t i = 0; i < FLYER_COUNT; i++) {
            CHECK_EQ(pthread_join(threads[i], NULL), 0);
            CHECK_EQ(flyers[i].status, fails == 1 ? VEX_IO : VEX_OK);
            if (fails == 1) {
                CHECK(strstr(flyers[i].error.message, "the gate") != NULL);
            } else {
                vex_test_check_bytes(flyers[i].bytes, 1, 100, sizeof flyers[i].bytes);
            }
        }
        CHECK_EQ(atomic_load(&inner.gets), gets + 1);
        CHECK_EQ(counters_of(store).failed_fetches, 1);
    }
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

/* A put while a fetch is under way: who reads afterwards gets the new bytes, though the old ones
 * arrive last. */
TEST(put_during_flight) {
    vex_test_inner inner = vex_test_inner_make();
    vexi_store *store = cache_over(vex_test_inner_borrow(&inner), 1 << 20);
    vex_test_put(store, "x", 1, 3 * BLOCK);
    vex_test_inner_close(&inner, VEX_OK); /* has the old bytes in hand when it stops */
    flyer f = {.store = store};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, fly, &f), 0);
    vex_test_inner_await(&inner);
    vex_test_put(store, "x", 2, 3 * BLOCK);
    vex_test_inner_open(&inner);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(f.status, VEX_OK);
    vex_test_check_bytes(f.bytes, 1, 100, sizeof f.bytes);
    vex_test_check_get(store, "x", 2, 0, 3 * BLOCK);
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

/* ---- Replacement ----------------------------------------------------------------------------- */

static void touch(vexi_store *store, const char *name, uint64_t block) {
    uint8_t byte;
    vexi_range range = {.offset = block * BLOCK, .size = 1, .target = &byte};
    CHECK_OK(vexi_store_get(store, name, &range, 1, &err));
}

/* A hot set that fills two thirds of the budget outlives a scan of a hundred budgets. */
TEST(scan) {
    enum { BUDGET = 64, HOT = 40, SCAN = 6400 };
    vex_test_inner inner = vex_test_inner_make();
    vexi_store *store = cache_over(vex_test_inner_borrow(&inner), BUDGET * (BLOCK + 192));
    vex_test_put(store, "hot", 1, HOT * BLOCK);
    vex_test_put(store, "scan", 2, (size_t)SCAN * BLOCK);
    for (int round = 0; round < 6; round++) {
        for (uint64_t i = 0; i < HOT; i++) {
            touch(store, "hot", i);
        }
    }
    for (uint64_t i = 0; i < SCAN; i++) {
        touch(store, "scan", i);
    }
    uint64_t before = counters_of(store).memory_hits;
    for (uint64_t i = 0; i < HOT; i++) {
        touch(store, "hot", i);
    }
    vexi_cache_counters c = counters_of(store);
    printf("    %llu of %d hot blocks are there after a scan of %d (an LRU list keeps none)\n",
           (unsigned long long)(c.memory_hits - before), HOT, SCAN);
    CHECK(c.memory_hits - before >= HOT - 2);
    CHECK(c.memory_bytes <= BUDGET * (BLOCK + 192));
    CHECK(c.memory_evictions > SCAN - BUDGET);
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

/* Hits of an LRU list over the same trace, as the measure. */
typedef struct lru {
    uint64_t blocks[128]; /* newest first */
    size_t count;
    size_t capacity;
    uint64_t hits;
} lru;

static void lru_touch(lru *list, uint64_t block) {
    size_t i = 0;
    while (i < list->count && list->blocks[i] != block) {
        i++;
    }
    if (i < list->count) {
        list->hits++;
    } else if (list->count < list->capacity) {
        list->count++;
    } else {
        i--;
    }
    memmove(list->blocks + 1, list->blocks, i * sizeof *list->blocks);
    list->blocks[0] = block;
}

/* Skewed reads with scans in between: more hits than LRU. */
TEST(skewed) {
    enum { BUDGET = 128, BLOCKS = 2048, READS = 40000 };
    vex_test_inner inner = vex_test_inner_make();
    vexi_store *store = cache_over(vex_test_inner_borrow(&inner), BUDGET * (BLOCK + 192));
    vex_test_put(store, "x", 1, (size_t)BLOCKS * BLOCK);
    uint64_t random = vex_test_seed(11);
    static lru list = {.capacity = BUDGET};
    for (uint64_t i = 0; i < READS; i++) {
        double u = (double)(vex_test_random(&random) >> 11) / 9007199254740992.0;
        uint64_t block = (uint64_t)((double)BLOCKS * u * u * u * u);
        if (i % 4000 >= 3500) {
            block = i % BLOCKS; /* a scan of 500 */
        }
        touch(store, "x", block);
        lru_touch(&list, block);
    }
    uint64_t hits = counters_of(store).memory_hits;
    printf("    hits %.1f %%, LRU %.1f %%\n", 100.0 * (double)hits / READS,
           100.0 * (double)list.hits / READS);
    CHECK(hits > list.hits);
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

TEST(pins) {
    enum { BUDGET = 64 };
    vex_test_inner inner = vex_test_inner_make();
    vexi_store *store = cache_over(vex_test_inner_borrow(&inner), BUDGET * (BLOCK + 192));
    vex_test_put(store, "x", 1, 1000 * BLOCK + 1);
    vexi_cache_pin *pin = NULL, *second = NULL, *nothing = NULL;
    CHECK_OK(vexi_store_cache_pin(store, "x", 5 * BLOCK + 7, 4 * BLOCK, &pin, &err));
    CHECK_OK(vexi_store_cache_pin(store, "x", 9 * BLOCK, 2 * BLOCK, &second, &err));
    CHECK_OK(vexi_store_cache_pin(store, "x", 1000 * BLOCK + 1, 0, &nothing, &err));
    vexi_store_cache_unpin(nothing);
    CHECK_FAILS(VEX_LIMIT, vexi_store_cache_pin(store, "x", 100, 40 * BLOCK, &nothing, &err));
    CHECK_FAILS(VEX_CORRUPT, vexi_store_cache_pin(store, "x", 1000 * BLOCK, 2, &nothing, &err));
    CHECK(nothing == NULL);
    vexi_cache_counters c = counters_of(store);
    CHECK(c.pinned_bytes >= 6 * BLOCK && c.pinned_bytes < 7 * BLOCK);
    for (uint64_t i = 20; i < 1000; i++) {
        touch(store, "x", i);
    }
    CHECK(counters_of(store).memory_bytes <= BUDGET * (BLOCK + 192));
    unsigned gets = atomic_load(&inner.gets);
    vex_test_check_get(store, "x", 1, 5 * BLOCK, 6 * BLOCK);
    CHECK_EQ(atomic_load(&inner.gets), gets);
    /* One block is in both pins and stays with the second. */
    vexi_store_cache_unpin(pin);
    c = counters_of(store);
    CHECK(c.pinned_bytes >= 2 * BLOCK && c.pinned_bytes < 3 * BLOCK);
    /* A forgotten name's pins hold memory, and nobody reads them. */
    vex_test_put(store, "x", 2, 20 * BLOCK);
    vex_test_check_get(store, "x", 2, 0, 20 * BLOCK);
    vexi_store_cache_unpin(second);
    vexi_store_cache_unpin(NULL);
    CHECK_EQ(counters_of(store).pinned_bytes, 0);
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

/* Without a budget, and with gets that are larger than it. */
TEST(small_budgets) {
    static const uint64_t budgets[] = {0, 1, BLOCK, 10 * BLOCK, 100 * BLOCK};
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
        vex_test_inner inner = vex_test_inner_make();
        vexi_store *store = cache_over(vex_test_inner_borrow(&inner), budgets[i]);
        vex_test_put(store, "x", 1, 1000 * BLOCK + 5);
        for (int round = 0; round < 2; round++) {
            vex_test_check_get(store, "x", 1, 3, 1000 * BLOCK);
            vex_test_check_get(store, "x", 1, 900 * BLOCK, 1000);
        }
        vexi_range range = {.offset = 0, .size = 50 * BLOCK};
        CHECK_OK(vexi_store_cache_warm(store, "x", &range, 1, &err));
        CHECK(counters_of(store).memory_bytes <= budgets[i]);
        vexi_store_destroy(store);
        vex_test_inner_free(&inner);
    }
}

TEST(warm) {
    vex_test_inner inner = vex_test_inner_make();
    vexi_store *store = cache_over(vex_test_inner_borrow(&inner), 100 * (BLOCK + 192));
    vex_test_put(store, "x", 1, 40 * BLOCK);
    vexi_range ranges[2] = {{.offset = 10, .size = 3 * BLOCK}, {.offset = 30 * BLOCK, .size = 1}};
    CHECK_OK(vexi_store_cache_warm(store, "x", ranges, 2, &err));
    CHECK_EQ(atomic_load(&inner.gets), 1);
    vex_test_check_get(store, "x", 1, 10, 3 * BLOCK);
    vex_test_check_get(store, "x", 1, 30 * BLOCK + 5, 50);
    CHECK_EQ(atomic_load(&inner.gets), 1);
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_cache_warm(store, "y", ranges, 2, &err));
    vexi_store_destroy(store);
    vex_test_inner_free(&inner);
}

TEST_MAIN(RUN(reads); RUN(passes_by); RUN(several_objects); RUN(filled_by_puts); RUN(distrusted);
          RUN(bad_config); RUN(one_flight); RUN(put_during_flight); RUN(scan); RUN(skewed);
          RUN(pins); RUN(small_budgets); RUN(warm))
