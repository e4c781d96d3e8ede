/* Level 2 of the cache: what a restart finds again, and that nothing which happens to its files
 * (crashes, a full disk, failures, any flipped byte, any cut) makes a read wrong or fail. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"
#include "store/cache.h"
#include "store/test_cache.h"
#include "store/test_folder.h"

enum { BLOCK = 4096, MEMORY = 8 * BLOCK };

/* A clock that the test turns, and warnings that it counts. */
typedef struct test_world {
    vexi_env env;
    atomic_uint_fast64_t now_ns;
    atomic_uint warnings;
    atomic_uint_fast64_t allocations;
    uint64_t fail_allocation; /* 0: none */
} test_world;

static uint64_t world_monotonic_ns(void *context) {
    test_world *world = context;
    return atomic_load(&world->now_ns);
}

static void world_log(void *context, int level, const char *message) {
    test_world *world = context;
    CHECK(strstr(message, "it rests for") != NULL);
    atomic_fetch_add(&world->warnings, level == 2 ? 1 : 0);
}

static void *world_allocate(void *context, size_t alignment, size_t size) {
    test_world *world = context;
    if (atomic_fetch_add(&world->allocations, 1) + 1 == world->fail_allocation) {
        return NULL;
    }
    return vex_test_env()->allocate(vex_test_env()->context, alignment, size);
}

static void world_release(void *context, void *pointer) {
    (void)context;
    vex_test_env()->release(vex_test_env()->context, pointer);
}

static int64_t world_wall_us(void *context) {
    (void)context;
    return 1;
}

static void world_random(void *context, void *out, size_t size) {
    (void)context;
    vex_test_env()->random_fill(vex_test_env()->context, out, size);
}

static void world_parallel(void *context, size_t count, void (*function)(void *argument, size_t i),
                           void *argument) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        function(argument, i);
    }
}

static void world_init(test_world *world) {
    *world = (test_world){.env = *vex_test_env()};
    world->env.context = world;
    world->env.allocate = world_allocate;
    world->env.release = world_release;
    world->env.monotonic_ns = world_monotonic_ns;
    world->env.wall_us = world_wall_us;
    world->env.random_fill = world_random;
    world->env.parallel = world_parallel;
    world->env.log = world_log;
    world->env.log_context = world;
    atomic_init(&world->now_ns, 1000000000);
}

static vexi_cache_counters counters_of(vexi_store *store) {
    vexi_cache_counters c;
    vexi_store_cache_counters(store, &c);
    return c;
}

static vex_status try_open(const vexi_env *env, vex_test_inner *inner, vexi_disk *disk,
                           const char *folder, uint64_t disk_bytes, vexi_store **out,
                           vex_error *err) {
    const vexi_cache_config config = {.memory_bytes = MEMORY,
                                      .block_size = BLOCK,
                                      .folder = folder,
                                      .disk_bytes = disk_bytes,
                                      .disk = disk,
                                      .retry_ms = 1000};
    return vexi_store_cache_create(env, vex_test_inner_borrow(inner), &config, out, err);
}

static vexi_store *open_cache(const vexi_env *env, vex_test_inner *inner, vexi_disk *disk,
                              const char *folder, uint64_t disk_bytes) {
    vexi_store *store = NULL;
    CHECK_OK(try_open(env, inner, disk, folder, disk_bytes, &store, &err));
    return store;
}

/* What was read once is read from the disk after a restart, with no request but for the size. */
TEST(restart) {
    vex_test_inner inner = vex_test_inner_make();
    vex_test_folder folder = vex_test_folder_make();
    char path[96];
    snprintf(path, sizeof path, "%s/some/where//", folder.path);
    vexi_disk *disk = NULL;
    CHECK_OK(vexi_disk_posix_create(vex_test_env(), &disk, &err));
    vexi_store *store = open_cache(vex_test_env(), &inner, disk, path, 8 << 20);
    vex_test_put(store, "a/x", 1, 100 * BLOCK + 1);
    vex_test_put(store, "a/y", 2, 50);
    vex_test_check_get(store, "a/x", 1, 0, 100 * BLOCK + 1);
    vex_test_check_get(store, "a/y", 2, 0, 50);
    vexi_cache_counters c = counters_of(store);
    CHECK_EQ(c.disk_writes, 102);
    CHECK_EQ(c.disk_blocks, 102);
    CHECK_EQ(c.disk_write_bytes, 100 * BLOCK + 1 + 50);
    CHECK(c.disk_bytes > c.disk_write_bytes);
    vexi_store *second = NULL;
    CHECK_FAILS(VEX_BUSY, try_open(vex_test_env(), &inner, disk, path, 8 << 20, &second, &err));
    for (int round = 0; round < 3; round++) {
        vexi_store_destroy(store);
        unsigned gets = atomic_load(&inner.gets);
        unsigned sizes = atomic_load(&inner.sizes);
        store = open_cache(vex_test_env(), &inner, disk, path, 8 << 20);
        CHECK_EQ(counters_of(store).disk_blocks, 102);
        vex_test_check_get(store, "a/x", 1, 0, 100 * BLOCK + 1);
        vex_test_check_get(store, "a/y", 2, 10, 40);
        CHECK_EQ(atomic_load(&inner.gets), gets);
        CHECK_EQ(atomic_load(&inner.sizes), sizes + 2);
        c = counters_of(store);
        CHECK_EQ(c.disk_hits, 102);
        CHECK_EQ(c.misses, 0);
        CHECK_EQ(c.disk_corrupt, 0);
    }
    /* Another block size finds nothing, and leaves nothing. */
    vexi_store_destroy(store);
    const vexi_cache_config config = {.folder = path, .disk_bytes = 8 << 20, .disk = disk};
    CHECK_OK(vexi_store_cache_create(vex_test_env(), vex_test_inner_borrow(&inner), &config, &store,
                                     &err));
    CHECK_EQ(counters_of(store).disk_bytes, 0);
    vex_test_check_get(store, "a/x", 1, 0, 100 * BLOCK + 1);
    vexi_store_destroy(store);
    vexi_disk_destroy(disk);
    vex_test_folder_remove(&folder);
    vex_test_inner_free(&inner);
}

/* Names that are put again or removed, within a run and across runs, of the same size and another.
 */
TEST(forgets) {
    vex_test_inner inner = vex_test_inner_make();
    vexi_disk *disk = NULL;
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
    vexi_store *store = NULL;
    for (int restarts = 0; restarts < 2; restarts++) {
        uint64_t seed = 10;
        for (size_t size = BLOCK; size < 20 * BLOCK; size += (seed % 2) * BLOCK, seed++) {
            if (store == NULL || restarts == 1) {
                vexi_store_destroy(store);
                store = open_cache(vex_test_env(), &inner, disk, "c", 1 << 20);
            }
            vex_test_put(store, "x", seed, size);
            vex_test_check_get(store, "x", seed, 0, size);
            vex_test_put(store, "other", 1, 5 * BLOCK);
            vex_test_check_get(store, "other", 1, 0, 5 * BLOCK);
            uint8_t byte;
            vexi_range range = {.offset = 0, .size = 1, .target = &byte};
            if (seed % 3 == 0) {
                CHECK_OK(vexi_store_remove(store, "x", &err));
                CHECK_FAILS(VEX_NOT_FOUND, vexi_store_get(store, "x", &range, 1, &err));
            } else if (seed % 3 == 1) {
                const char *names[] = {"x", "x", "none"};
                CHECK_OK(vexi_store_remove_many(store, names, 3, &err));
                uint64_t absent;
                CHECK_FAILS(VEX_NOT_FOUND, vexi_store_size(store, "x", &absent, &err));
            }
        }
    }
    vexi_store_destroy(store);
    vexi_disk_destroy(disk);
    vex_test_inner_free(&inner);
}

/* The budget holds, whatever is written, and blocks in use outlive a scan. */
TEST(budget) {
    enum { BUDGET = 1 << 20, HOT = 20, SCAN = 5000 };
    vex_test_inner inner = vex_test_inner_make();
    vexi_disk *disk = NULL;
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
    vexi_store *store = open_cache(vex_test_env(), &inner, disk, "c", BUDGET);
    vex_test_put(store, "hot", 1, HOT * BLOCK);
    vex_test_put(store, "scan", 2, SCAN * BLOCK);
    vex_test_check_get(store, "hot", 1, 0, HOT * BLOCK);
    uint64_t lost = 0;
    for (uint64_t i = 0; i < SCAN; i += 20) {
        vex_test_check_get(store, "scan", 2, i * BLOCK, 20 * BLOCK);
        uint64_t misses = counters_of(store).misses;
        vex_test_check_get(store, "hot", 1, 0, HOT * BLOCK);
        lost += counters_of(store).misses - misses;
        CHECK(counters_of(store).disk_bytes <= BUDGET);
    }
    vexi_cache_counters c = counters_of(store);
    printf("    %llu evictions, %llu writes for %d blocks, %llu of %d hot reads missed\n",
           (unsigned long long)c.disk_evictions, (unsigned long long)c.disk_writes, HOT + SCAN,
           (unsigned long long)lost, HOT * SCAN / 20);
    CHECK(c.disk_evictions > SCAN / 2);
    CHECK(lost * 100 < HOT * SCAN / 20);
    /* A smaller budget at the next start. */
    vexi_store_destroy(store);
    store = open_cache(vex_test_env(), &inner, disk, "c", BUDGET / 2);
    CHECK(counters_of(store).disk_bytes <= BUDGET / 2);
    CHECK(counters_of(store).disk_blocks > 0);
    vex_test_check_get(store, "scan", 2, 0, SCAN * BLOCK);
    CHECK(counters_of(store).disk_bytes <= BUDGET / 2);
    vexi_store_destroy(store);
    vexi_store *none = NULL;
    CHECK_FAILS(VEX_INVALID, try_open(vex_test_env(), &inner, disk, "c", 63 * BLOCK, &none, &err));
    vexi_disk_destroy(disk);
    vex_test_inner_free(&inner);
}

/* ---- Failures -------------------------------------------------------------------------------- */

/* A disk that is full, or fails: one warning, reads go on, the folder comes back after its rest. */
TEST(full_disk) {
    static const vex_status statuses[] = {VEX_FULL, VEX_IO};
    for (size_t s = 0; s < 2; s++) {
        test_world world;
        world_init(&world);
        vex_test_inner inner = vex_test_inner_make();
        vexi_disk *disk = NULL;
        CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
        vexi_store *store = open_cache(&world.env, &inner, disk, "c", 1 << 20);
        vex_test_put(store, "x", 1, 400 * BLOCK);
        vex_test_check_get(store, "x", 1, 0, 100 * BLOCK);
        CHECK_EQ(counters_of(store).disk_writes, 100);
        vexi_disk_sim_fail_at(disk, vexi_disk_sim_steps(disk) + 4, statuses[s]);
        vex_test_check_get(store, "x", 1, 100 * BLOCK, 50 * BLOCK);
        uint64_t writes = counters_of(store).disk_writes;
        CHECK(writes < 150);
        CHECK_EQ(counters_of(store).disk_errors, 1);
        vex_test_check_get(store, "x", 1, 200 * BLOCK, 50 * BLOCK);
        CHECK_EQ(counters_of(store).disk_writes, writes);
        CHECK_EQ(atomic_load(&world.warnings), 1);
        /* What is there is still read from there. */
        uint64_t hits = counters_of(store).disk_hits;
        vex_test_check_get(store, "x", 1, 0, 80 * BLOCK);
        CHECK(counters_of(store).disk_hits - hits >= 60);
        atomic_fetch_add(&world.now_ns, 1000000001);
        vex_test_check_get(store, "x", 1, 300 * BLOCK, 50 * BLOCK);
        CHECK(counters_of(store).disk_writes >= writes + 50);
        CHECK_EQ(atomic_load(&world.warnings), 1);
        vexi_store_destroy(store);
        vexi_disk_destroy(disk);
        vex_test_inner_free(&inner);
    }
}

/* A run whose disk operations fail one after the other, and whose disk then stops for good. */
static void use_cache(vexi_store *store, vex_test_inner *inner, uint64_t *seed, bool may_fail) {
    uint8_t *bytes = malloc(20 * BLOCK);
    CHECK(bytes != NULL);
    for (int round = 0; round < 3; round++) {
        uint64_t next = *seed + 1;
        vex_test_fill(bytes, next, 0, 10 * BLOCK + 7);
        const vexi_span part = {.data = bytes, .size = 10 * BLOCK + 7};
        vex_status status = vexi_store_put(store, "x", &part, 1, NULL);
        CHECK(status == VEX_OK || (may_fail && status != VEX_CORRUPT));
        if (status == VEX_OK) {
            *seed = next;
        }
        if (*seed > 0) {
            vex_test_check_get(store, "x", *seed, 0, 10 * BLOCK + 7);
            vex_test_check_get(store, "x", *seed, 3 * BLOCK, 2 * BLOCK);
        }
        vex_test_check_get(store, "big", 77, 0, 60 * BLOCK);
    }
    free(bytes);
    (void)inner;
}

/* Power fails at every step of a run in turn; the same name is put with other bytes of the same
 * size all the time. */
TEST(crashes) {
    uint64_t steps = 0;
    uint64_t found = 0, corrupt = 0;
    uint64_t first = vex_test_seed(3);
    for (uint64_t step = 0; step <= steps; step++) {
        for (uint64_t variant = 0; variant < vex_test_effort(1); variant++) {
            vex_test_inner inner = vex_test_inner_make();
            vex_test_put(inner.store, "big", 77, 60 * BLOCK);
            vexi_disk *disk = NULL;
            CHECK_OK(vexi_disk_sim_create(vex_test_env(), first + variant, &disk, &err));
            uint64_t seed = 0;
            vexi_store *store = open_cache(vex_test_env(), &inner, disk, "c", 64 * BLOCK);
            uint64_t begun = vexi_disk_sim_steps(disk);
            vexi_disk_sim_crash_at(disk, step == 0 ? 0 : begun + step);
            use_cache(store, &inner, &seed, true);
            if (step == 0) {
                steps = vexi_disk_sim_steps(disk) - begun;
            } else {
                CHECK(vexi_disk_sim_crashed(disk));
            }
            vexi_disk_sim_restart(disk, first + step * 7 + variant);
            vexi_store_destroy(store);
            for (int run = 0; run < 2; run++) {
                store = open_cache(vex_test_env(), &inner, disk, "c", 64 * BLOCK);
                found += counters_of(store).disk_blocks;
                if (seed > 0) {
                    vex_test_check_get(store, "x", seed, 0, 10 * BLOCK + 7);
                }
                vex_test_check_get(store, "big", 77, 0, 60 * BLOCK);
                corrupt += counters_of(store).disk_corrupt;
                use_cache(store, &inner, &seed, false);
                vexi_store_destroy(store);
            }
            vexi_disk_destroy(disk);
            vex_test_inner_free(&inner);
        }
    }
    printf("    %llu steps, %llu blocks found again, %llu of them torn\n",
           (unsigned long long)steps, (unsigned long long)found, (unsigned long long)corrupt);
    CHECK(steps > 30 && found > 0 && corrupt > 0);
}

/* The same with one failing step instead of a crash. */
TEST(failing_steps) {
    static const vex_status statuses[] = {VEX_FULL, VEX_IO};
    for (size_t s = 0; s < 2; s++) {
        uint64_t steps = 0;
        for (uint64_t step = 0; step <= steps; step++) {
            vex_test_inner inner = vex_test_inner_make();
            vex_test_put(inner.store, "big", 77, 60 * BLOCK);
            vexi_disk *disk = NULL;
            CHECK_OK(vexi_disk_sim_create(vex_test_env(), step, &disk, &err));
            uint64_t seed = 0;
            vexi_store *store = open_cache(vex_test_env(), &inner, disk, "c", 64 * BLOCK);
            uint64_t begun = vexi_disk_sim_steps(disk);
            vexi_disk_sim_fail_at(disk, step == 0 ? 0 : begun + step, statuses[s]);
            use_cache(store, &inner, &seed, true);
            steps = step == 0 ? vexi_disk_sim_steps(disk) - begun : steps;
            vexi_store_destroy(store);
            store = open_cache(vex_test_env(), &inner, disk, "c", 64 * BLOCK);
            if (seed > 0) {
                vex_test_check_get(store, "x", seed, 0, 10 * BLOCK + 7);
            }
            use_cache(store, &inner, &seed, false);
            vexi_store_destroy(store);
            vexi_disk_destroy(disk);
            vex_test_inner_free(&inner);
        }
    }
}

/* ---- Damage ---------------------------------------------------------------------------------- */

typedef struct file_bytes {
    char path[256];
    uint8_t data[1 << 16];
    size_t size;
} file_bytes;

/* The one region file of a folder. */
static void load_region(vexi_disk *disk, const char *folder, file_bytes *out) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_OK(disk->ops->list_folder(disk, folder, &arena, &listing, &err));
    CHECK_EQ(listing.count, 2);
    const char *name = listing.entries[strcmp(listing.entries[0].name, "lock") == 0 ? 1 : 0].name;
    snprintf(out->path, sizeof out->path, "%s/%s", folder, name);
    uint64_t size = 0;
    int64_t modified_us = 0;
    CHECK_OK(disk->ops->file_size(disk, out->path, &size, &modified_us, &err));
    CHECK(size > 0 && size < sizeof out->data);
    out->size = (size_t)size;
    vexi_disk_file *file = NULL;
    CHECK_OK(disk->ops->open(disk, out->path, VEXI_DISK_READ, &file, &err));
    CHECK_OK(disk->ops->read_at(file, 0, out->data, out->size, &err));
    disk->ops->close(file);
    vexi_arena_deinit(&arena);
}

/* A new disk with that file alone. */
static vexi_disk *store_region(const file_bytes *bytes, size_t size) {
    vexi_disk *disk = NULL;
    bool made = false;
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
    CHECK_OK(disk->ops->make_folder(disk, "c", &made, &err));
    vexi_disk_file *file = NULL;
    CHECK_OK(disk->ops->open(disk, bytes->path, VEXI_DISK_CREATE_NEW, &file, &err));
    const vexi_span part = {.data = bytes->data, .size = size};
    CHECK_OK(disk->ops->write(file, &part, 1, &err));
    disk->ops->close(file);
    return disk;
}

/* Every byte of heads, names, footer and trailer flipped, some of the payloads, and every kind of
 * cut; in a region with its footer and in one without. */
TEST(damage) {
    enum { SIZE = 2 * BLOCK + 100, RECORD = 64 + 3 };
    vex_test_inner inner = vex_test_inner_make();
    vex_test_put(inner.store, "a/x", 1, SIZE);
    vexi_disk *disk = NULL;
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
    vexi_store *store = open_cache(vex_test_env(), &inner, disk, "c", 1 << 20);
    vex_test_check_get(store, "a/x", 1, 0, SIZE);
    static file_bytes open_file, whole;
    load_region(disk, "c", &open_file);
    CHECK_EQ(open_file.size, SIZE + 3 * RECORD);
    vexi_store_destroy(store);
    load_region(disk, "c", &whole);
    CHECK_EQ(whole.size, SIZE + 6 * RECORD + 40);
    vexi_disk_destroy(disk);
    uint64_t corrupt = 0, misses = 0, trials = 0;
    for (int sealed = 0; sealed < 2; sealed++) {
        for (int cuts = 0; cuts < 2; cuts++) {
            file_bytes *bytes = sealed == 1 ? &whole : &open_file;
            for (size_t i = 0; i < bytes->size; i++) {
                size_t in_record = i % (BLOCK + RECORD);
                bool is_payload = i < SIZE + 3 * RECORD && in_record >= RECORD;
                if ((is_payload && i % 97 != 0) || (cuts == 1 && i % 13 != 0)) {
                    continue;
                }
                bytes->data[i] ^= (uint8_t)(cuts == 0 ? 1 << i % 8 : 0);
                disk = store_region(bytes, cuts == 1 ? i : bytes->size);
                bytes->data[i] ^= (uint8_t)(cuts == 0 ? 1 << i % 8 : 0);
                store = open_cache(vex_test_env(), &inner, disk, "c", 1 << 20);
                CHECK(counters_of(store).disk_blocks <= 3);
                vex_test_check_get(store, "a/x", 1, 0, SIZE);
                vexi_cache_counters c = counters_of(store);
                CHECK_EQ(c.disk_hits + c.misses, 3);
                CHECK(is_payload || cuts == 1 || c.disk_corrupt == 0);
                CHECK(!is_payload || cuts == 1 || c.disk_corrupt == 1);
                corrupt += c.disk_corrupt;
                misses += c.misses;
                trials++;
                vexi_store_destroy(store);
                /* What was fetched anew went to another file. */
                store = open_cache(vex_test_env(), &inner, disk, "c", 1 << 20);
                vex_test_check_get(store, "a/x", 1, 0, SIZE);
                vexi_store_destroy(store);
                vexi_disk_destroy(disk);
            }
        }
    }
    printf("    %llu damages: %llu blocks fetched anew, %llu by their checksum\n",
           (unsigned long long)trials, (unsigned long long)misses, (unsigned long long)corrupt);
    CHECK(trials > 700 && corrupt > 50);
    vex_test_inner_free(&inner);
}

/* A payload that goes bad while the store is open. */
TEST(bad_while_open) {
    enum { SIZE = 2 * BLOCK + 100 };
    vex_test_inner inner = vex_test_inner_make();
    vex_test_put(inner.store, "a/x", 1, SIZE);
    vex_test_folder folder = vex_test_folder_make();
    vexi_disk *disk = NULL;
    CHECK_OK(vexi_disk_posix_create(vex_test_env(), &disk, &err));
    static file_bytes region;
    vexi_store *store = open_cache(vex_test_env(), &inner, disk, folder.path, 1 << 20);
    vex_test_check_get(store, "a/x", 1, 0, SIZE);
    vex_test_put(inner.store, "scan", 2, 40 * BLOCK);
    load_region(disk, folder.path, &region);
    int fd = open(region.path, O_WRONLY);
    CHECK(fd >= 0);
    uint8_t byte = (uint8_t)(region.data[100] ^ 4);
    CHECK_EQ(pwrite(fd, &byte, 1, 100), 1);
    CHECK_EQ(close(fd), 0);
    for (int i = 0; i < 2; i++) {
        vex_test_check_get(store, "scan", 2, 0, 40 * BLOCK); /* out of memory with it */
        vex_test_check_get(store, "a/x", 1, 0, SIZE);
        CHECK_EQ(counters_of(store).disk_corrupt, 1);
    }
    vexi_store_destroy(store);
    vexi_disk_destroy(disk);
    vex_test_folder_remove(&folder);
    vex_test_inner_free(&inner);
}

/* Files with names like ours that are none. */
TEST(foreign_files) {
    vex_test_inner inner = vex_test_inner_make();
    vexi_disk *disk = NULL;
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
    bool made;
    CHECK_OK(disk->ops->make_folder(disk, "c", &made, &err));
    static const char *const names[] = {
        "c/region-0000000000000001-00000000000000ab", "c/region-0000000000000002-00000000000000ab",
        "c/region-000000000000000g-00000000000000ab", "c/region-0000000000000000-00000000000000ab",
        "c/region-ffffffffffffffff-00000000000000ab", "c/notes.txt"};
    static const uint8_t zeros[3000];
    for (size_t i = 0; i < 6; i++) {
        vexi_disk_file *file = NULL;
        CHECK_OK(disk->ops->open(disk, names[i], VEXI_DISK_CREATE_NEW, &file, &err));
        const vexi_span part = {.data = zeros, .size = i == 0 ? 0 : sizeof zeros};
        CHECK_OK(disk->ops->write(file, &part, 1, &err));
        disk->ops->close(file);
    }
    vexi_store *store = open_cache(vex_test_env(), &inner, disk, "c", 1 << 20);
    for (size_t i = 0; i < 6; i++) {
        uint64_t size;
        int64_t modified_us;
        vex_status status = disk->ops->file_size(disk, names[i], &size, &modified_us, NULL);
        CHECK_EQ(status, i < 2 ? VEX_NOT_FOUND : VEX_OK);
    }
    vex_test_put(store, "x", 1, 10 * BLOCK);
    vex_test_check_get(store, "x", 1, 0, 10 * BLOCK);
    vexi_store_destroy(store);
    vexi_disk_destroy(disk);
    vex_test_inner_free(&inner);
}

/* ---- Models ---------------------------------------------------------------------------------- */

/* Every allocation of a run fails once: no wrong bytes, nothing leaked, and the loads that others
 * could wait for are ended. */
TEST(allocations_fail) {
    uint64_t n = 1;
    for (bool failed = true; failed; n++) {
        vex_test_inner inner = vex_test_inner_make();
        vex_test_put(inner.store, "big", 7, 120 * BLOCK);
        vexi_disk *disk = NULL;
        CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
        test_world world;
        world_init(&world);
        world.fail_allocation = n;
        for (int run = 0; run < 2; run++) {
            vexi_store *store = NULL;
            vex_status status = try_open(&world.env, &inner, disk, "c", 64 * BLOCK, &store, NULL);
            CHECK(status == VEX_OK || status == VEX_MEMORY);
            uint8_t bytes[3 * BLOCK];
            for (uint64_t i = 0; store != NULL && i < 40; i++) {
                vexi_range range = {.offset = i * 3 * BLOCK, .size = sizeof bytes, .target = bytes};
                status = vexi_store_get(store, "big", &range, 1, NULL);
                CHECK(status == VEX_OK || status == VEX_MEMORY);
                if (status == VEX_OK) {
                    vex_test_check_bytes(bytes, 7, range.offset, range.size);
                }
            }
            vexi_cache_pin *pin = NULL;
            if (store != NULL) {
                status = vexi_store_cache_pin(store, "big", 10, 2 * BLOCK, &pin, NULL);
                CHECK(status == VEX_OK || status == VEX_MEMORY);
                vexi_store_cache_unpin(pin);
                if (atomic_load(&world.allocations) >= n) {
                    vex_test_check_get(store, "big", 7, 50 * BLOCK, BLOCK);
                }
            }
            vexi_store_destroy(store);
        }
        failed = atomic_load(&world.allocations) >= n;
        vexi_disk_destroy(disk);
        vex_test_inner_free(&inner);
    }
    printf("    %llu allocations\n", (unsigned long long)n - 2);
    CHECK(n > 100);
}

enum { MODEL_NAMES = 12, MODEL_SIZE_MAX = 12 * BLOCK };

typedef struct model {
    uint64_t seeds[MODEL_NAMES]; /* 0: there is none */
    size_t sizes[MODEL_NAMES];
} model;

static void model_name(char out[16], uint64_t i) {
    snprintf(out, 16, "n/%llu", (unsigned long long)i);
}

static void model_write(vexi_store *store, model *m, uint64_t i, uint64_t *random) {
    static uint8_t bytes[MODEL_SIZE_MAX];
    char name[16];
    model_name(name, i);
    if (vex_test_below(random, 4) == 0) {
        if (vexi_store_remove(store, name, NULL) == VEX_OK) {
            m->seeds[i] = 0;
        }
        return;
    }
    uint64_t seed = vex_test_random(random) | 1;
    bool same = m->seeds[i] != 0 && vex_test_below(random, 2) == 0;
    size_t size = same ? m->sizes[i] : (size_t)vex_test_below(random, MODEL_SIZE_MAX);
    vex_test_fill(bytes, seed, 0, size);
    const vexi_span part = {.data = bytes, .size = size};
    bool if_absent = vex_test_below(random, 2) == 0;
    bool was_there = m->seeds[i] != 0;
    vex_status status = if_absent ? vexi_store_put_if_absent(store, name, &part, 1, NULL)
                                  : vexi_store_put(store, name, &part, 1, NULL);
    /* The fault store does what it says is unknown. */
    if ((status == VEX_OK || status == VEX_UNKNOWN_OUTCOME) && !(if_absent && was_there)) {
        m->seeds[i] = seed;
        m->sizes[i] = size;
    }
}

static void model_read(vexi_store *store, const model *m, uint64_t i, uint64_t *random) {
    static uint8_t bytes[3 * MODEL_SIZE_MAX];
    char name[16];
    model_name(name, i);
    uint64_t size = 0;
    vex_status status = vexi_store_size(store, name, &size, NULL);
    CHECK(status == VEX_IO || status == (m->seeds[i] != 0 ? VEX_OK : VEX_NOT_FOUND));
    CHECK(status != VEX_OK || size == m->sizes[i]);
    vexi_range ranges[3];
    size_t used = 0;
    size_t limit = m->seeds[i] != 0 ? m->sizes[i] : 1;
    for (size_t r = 0; r < 3; r++) {
        uint64_t offset = vex_test_below(random, limit + 1);
        ranges[r] = (vexi_range){.offset = offset,
                                 .size = (size_t)vex_test_below(random, limit - offset + 1),
                                 .target = bytes + used};
        used += ranges[r].size;
    }
    status = vexi_store_get(store, name, ranges, 3, NULL);
    CHECK(status == VEX_IO || status == (m->seeds[i] != 0 ? VEX_OK : VEX_NOT_FOUND));
    for (size_t r = 0; status == VEX_OK && r < 3; r++) {
        vex_test_check_bytes(ranges[r].target, m->seeds[i], ranges[r].offset, ranges[r].size);
    }
}

/* Random puts, removes and reads through restarts and power failures, over an inner store that
 * fails and loses answers: what is read is what was put last. */
TEST(model) {
    uint64_t random = vex_test_seed(5);
    uint64_t hits = 0, disk_hits = 0, failures = 0;
    for (uint64_t trial = 0; trial < vex_test_effort(12); trial++) {
        vex_test_inner inner = vex_test_inner_make();
        const vexi_fault_plan plan = {.seed = trial,
                                      .error_ppm = (uint32_t)(trial % 3 * 30000),
                                      .lost_answer_ppm = (uint32_t)(trial % 2 * 100000)};
        CHECK_OK(vexi_store_fault_create(vex_test_env(), inner.store, &plan, &inner.store, &err));
        vexi_disk *disk = NULL;
        CHECK_OK(vexi_disk_sim_create(vex_test_env(), trial, &disk, &err));
        test_world world;
        world_init(&world);
        model m = {0};
        for (int run = 0; run < 6; run++) {
            vexi_store *store = open_cache(&world.env, &inner, disk, "c", 80 * BLOCK);
            if (run % 2 == 1) {
                vexi_disk_sim_crash_at(disk, vexi_disk_sim_steps(disk) + 1 +
                                                 vex_test_below(&random, 100));
            }
            for (int i = 0; i < 300; i++) {
                uint64_t name = vex_test_below(&random, MODEL_NAMES);
                if (vex_test_below(&random, 10) == 0) {
                    model_write(store, &m, name, &random);
                } else {
                    model_read(store, &m, name, &random);
                }
                atomic_fetch_add(&world.now_ns, 10000000);
            }
            vexi_cache_counters c = counters_of(store);
            hits += c.memory_hits;
            disk_hits += c.disk_hits;
            failures += c.failed_fetches;
            if (run % 2 == 1) {
                vexi_disk_sim_restart(disk, vex_test_random(&random));
            }
            vexi_store_destroy(store);
        }
        vexi_disk_destroy(disk);
        vex_test_inner_free(&inner);
    }
    printf("    %llu hits in memory, %llu on disk, %llu failed fetches\n", (unsigned long long)hits,
           (unsigned long long)disk_hits, (unsigned long long)failures);
    CHECK(hits > 0 && disk_hits > 0 && failures > 0);
}

/* ---- Threads --------------------------------------------------------------------------------- */

enum { THREAD_COUNT = 4 };

typedef struct worker {
    vexi_store *store;
    uint64_t number;
} worker;

/* Reads of what all share, and puts, reads and removes of names of its own. */
static void *work(void *argument) {
    worker *w = argument;
    uint64_t random = 100 + w->number;
    model m = {0};
    static _Thread_local uint8_t bytes[MODEL_SIZE_MAX];
    for (uint64_t i = 0; i < vex_test_effort(400); i++) {
        uint64_t offset = vex_test_below(&random, 200 * BLOCK);
        vex_test_check_get(w->store, "shared", 9, offset, (size_t)vex_test_below(&random, 9000));
        char name[32];
        uint64_t which = vex_test_below(&random, MODEL_NAMES);
        snprintf(name, sizeof name, "own/%llu/%llu", (unsigned long long)w->number,
                 (unsigned long long)which);
        if (m.seeds[which] == 0 || vex_test_below(&random, 8) == 0) {
            m.seeds[which] = vex_test_random(&random) | 1;
            m.sizes[which] = (size_t)vex_test_below(&random, MODEL_SIZE_MAX);
            vex_test_fill(bytes, m.seeds[which], 0, m.sizes[which]);
            const vexi_span part = {.data = bytes, .size = m.sizes[which]};
            CHECK_OK(vexi_store_put(w->store, name, &part, 1, &err));
        } else if (vex_test_below(&random, 16) == 0) {
            CHECK_OK(vexi_store_remove(w->store, name, &err));
            m.seeds[which] = 0;
            continue;
        }
        vex_test_check_get(w->store, name, m.seeds[which], 0, m.sizes[which]);
        vexi_cache_pin *pin = NULL;
        if (vexi_store_cache_pin(w->store, "shared", offset, 100, &pin, NULL) == VEX_OK) {
            vex_test_check_get(w->store, "shared", 9, offset, 100);
        }
        vexi_store_cache_unpin(pin);
    }
    return NULL;
}

TEST(threads) {
    vex_test_inner inner = vex_test_inner_make();
    vexi_disk *disk = NULL;
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
    vexi_store *store = open_cache(vex_test_env(), &inner, disk, "c", 100 * BLOCK);
    vex_test_put(store, "shared", 9, 203 * BLOCK);
    pthread_t threads[THREAD_COUNT];
    worker workers[THREAD_COUNT];
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        workers[i] = (worker){.store = store, .number = i};
        CHECK_EQ(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (size_t i = 0; i < THREAD_COUNT; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    vexi_cache_counters c = counters_of(store);
    CHECK(c.memory_hits > 0 && c.disk_hits > 0 && c.misses > 0 && c.disk_evictions > 0);
    CHECK_EQ(c.disk_corrupt, 0);
    CHECK_EQ(c.disk_errors, 0);
    CHECK_EQ(c.pinned_bytes, 0);
    CHECK(c.memory_bytes <= MEMORY);
    vexi_store_destroy(store);
    vexi_disk_destroy(disk);
    vex_test_inner_free(&inner);
}

TEST_MAIN(RUN(restart); RUN(forgets); RUN(budget); RUN(full_disk); RUN(crashes); RUN(failing_steps);
          RUN(damage); RUN(bad_while_open); RUN(foreign_files); RUN(allocations_fail); RUN(model);
          RUN(threads))
