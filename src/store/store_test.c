/* One body of tests over every store: in memory, files on the real disk, files on the simulated
 * one, a bucket of an S3 server where there is one, behind a fault store without faults, and behind
 * a cache over memory (of both levels) and over files; then what is common to them (names, objects)
 * and put_if_absent under racing threads. */
#include "store/store.h"

#include <pthread.h>

#include "check.h"
#include "store/cache.h"
#include "store/disk.h"
#include "store/test_folder.h"
#include "store/test_s3_server.h"

static vex_test_s3 s3_server; /* for the whole program */

/* A store under test and what it stands on. */
typedef struct fixture {
    vexi_store *store;
    vexi_disk *disk;
    bool has_folder;
    vex_test_folder folder;
} fixture;

typedef enum backing {
    BACKING_MEM,
    BACKING_POSIX,
    BACKING_SIM,
    BACKING_FAULT,
    BACKING_CACHE_MEM,
    BACKING_CACHE_FILE,
    BACKING_S3,
    BACKING_COUNT
} backing;

static const char *const backing_names[BACKING_COUNT] = {
    "mem", "posix", "sim", "fault", "cache, mem", "cache, file", "s3"};

static vexi_store *cache_over(const vexi_env *env, vexi_store *inner,
                              const vexi_cache_config *config, vexi_disk *disk) {
    vexi_cache_config whole = *config;
    whole.disk = disk;
    vexi_store *store = NULL;
    CHECK_OK(vexi_store_cache_create(env, inner, &whole, &store, &err));
    return store;
}

static fixture fixture_open(backing kind) {
    fixture f = {0};
    vexi_env *env = vex_test_env();
    switch (kind) {
    case BACKING_MEM:
        CHECK_OK(vexi_store_mem_create(env, &f.store, &err));
        break;
    case BACKING_SIM:
        CHECK_OK(vexi_disk_sim_create(env, 1, &f.disk, &err));
        CHECK_OK(vexi_store_file_create(env, f.disk, "some/root", true, &f.store, &err));
        break;
    case BACKING_CACHE_MEM: {
        const vexi_cache_config config = {.memory_bytes = 1 << 16,
                                          .block_size = 1 << 12,
                                          .folder = "cache",
                                          .disk_bytes = 1 << 20};
        CHECK_OK(vexi_disk_sim_create(env, 1, &f.disk, &err));
        CHECK_OK(vexi_store_mem_create(env, &f.store, &err));
        f.store = cache_over(env, f.store, &config, f.disk);
        break;
    }
    case BACKING_S3:
        f.store = vex_test_s3_store(&s3_server, "store");
        break;
    default: {
        f.folder = vex_test_folder_make();
        f.has_folder = true;
        char root[96];
        snprintf(root, sizeof root, "%s/deep/root/", f.folder.path);
        CHECK_OK(vexi_disk_posix_create(env, &f.disk, &err));
        CHECK_FAILS(VEX_NOT_FOUND,
                    vexi_store_file_create(env, f.disk, root, false, &f.store, &err));
        CHECK_OK(vexi_store_file_create(env, f.disk, root, true, &f.store, &err));
        if (kind == BACKING_FAULT) {
            vexi_fault_plan plan = {.seed = 7};
            CHECK_OK(vexi_store_fault_create(env, f.store, &plan, &f.store, &err));
        }
        if (kind == BACKING_CACHE_FILE) {
            const vexi_cache_config config = {.memory_bytes = 1 << 20};
            f.store = cache_over(env, f.store, &config, NULL);
        }
        break;
    }
    }
    return f;
}

static void fixture_close(fixture *f) {
    vexi_store_destroy(f->store);
    vexi_disk_destroy(f->disk);
    if (f->has_folder) {
        vex_test_folder_remove(&f->folder);
    }
}

static vexi_span text_span(const char *text) {
    return vexi_span_of(text, strlen(text));
}

static void put_text(vexi_store *store, const char *name, const char *text) {
    vexi_span part = text_span(text);
    CHECK_OK(vexi_store_put(store, name, &part, 1, &err));
}

static bool holds_text(vexi_store *store, const char *name, const char *text) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_span all;
    vex_error err;
    bool same = vexi_store_get_all(store, name, 1 << 20, &arena, &all, &err) == VEX_OK &&
                all.size == strlen(text) && memcmp(all.data, text, all.size) == 0 &&
                all.data[all.size] == 0;
    vexi_arena_deinit(&arena);
    return same;
}

/* Listing as one line, names separated by spaces. */
static void check_list(vexi_store *store, const char *prefix, const char *after, bool by_folder,
                       const char *expected) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_OK(vexi_store_list(store, prefix, after, by_folder, &arena, &listing, &err));
    char text[1024] = "";
    size_t size = 0;
    for (size_t i = 0; i < listing.count; i++) {
        const char *name = listing.entries[i].name;
        CHECK_EQ(listing.entries[i].is_folder, name[strlen(name) - 1] == '/');
        size += (size_t)snprintf(text + size, sizeof text - size, "%s%s", i == 0 ? "" : " ", name);
        CHECK(size < sizeof text);
    }
    if (strcmp(text, expected) != 0) {
        fprintf(stderr, "list '%s' after '%s': '%s' instead of '%s'\n", prefix,
                after == NULL ? "" : after, text, expected);
        exit(1);
    }
    vexi_arena_deinit(&arena);
}

/* ---- The body -------------------------------------------------------------------------------- */

static void body_put_get(vexi_store *store) {
    uint64_t size = 1;
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_size(store, "a/b", &size, &err));
    CHECK_EQ(size, 0);
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_get(store, "a/b", NULL, 0, &err));

    /* More parts than one writev takes, empty ones among them. */
    enum { PART_COUNT = 300 };
    uint8_t bytes[PART_COUNT * 7];
    vexi_span parts[PART_COUNT];
    size_t total = 0;
    for (size_t i = 0; i < PART_COUNT; i++) {
        parts[i] = vexi_span_of(bytes + total, i % 7);
        for (size_t j = 0; j < i % 7; j++) {
            bytes[total++] = (uint8_t)(i + j * 31);
        }
    }
    CHECK_OK(vexi_store_put(store, "a/b", parts, PART_COUNT, &err));
    CHECK_OK(vexi_store_size(store, "a/b", &size, &err));
    CHECK_EQ(size, total);

    uint8_t first[10], middle[100], last[1];
    vexi_range ranges[] = {{.offset = 0, .size = 10, .target = first},
                           {.offset = total - 1, .size = 1, .target = last},
                           {.offset = 333, .size = 100, .target = middle},
                           {.offset = total, .size = 0, .target = first}};
    CHECK_OK(vexi_store_get(store, "a/b", ranges, 4, &err));
    CHECK(memcmp(first, bytes, 10) == 0);
    CHECK(memcmp(middle, bytes + 333, 100) == 0);
    CHECK(last[0] == bytes[total - 1]);
    vexi_range beyond = {.offset = total - 5, .size = 10, .target = first};
    CHECK_FAILS(VEX_CORRUPT, vexi_store_get(store, "a/b", &beyond, 1, &err));
    beyond.offset = UINT64_MAX - 3;
    CHECK_FAILS(VEX_CORRUPT, vexi_store_get(store, "a/b", &beyond, 1, &err));

    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_span all;
    CHECK_OK(vexi_store_get_all(store, "a/b", total, &arena, &all, &err));
    CHECK_EQ(all.size, total);
    CHECK(memcmp(all.data, bytes, total) == 0);
    CHECK_FAILS(VEX_LIMIT, vexi_store_get_all(store, "a/b", total - 1, &arena, &all, &err));
    CHECK(all.data == NULL);
    vexi_arena_deinit(&arena);

    put_text(store, "a/b", "new");
    CHECK(holds_text(store, "a/b", "new"));
    CHECK_OK(vexi_store_put(store, "empty", NULL, 0, &err));
    CHECK(holds_text(store, "empty", ""));
    CHECK_OK(vexi_store_remove(store, "a/b", &err));
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_size(store, "a/b", &size, &err));
    CHECK_OK(vexi_store_remove(store, "a/b", &err));
    CHECK_OK(vexi_store_remove(store, "never/was", &err));
    put_text(store, "a/b", "again");
    CHECK(holds_text(store, "a/b", "again"));
}

static void body_if_absent(vexi_store *store) {
    vexi_span one = text_span("one"), two = text_span("two");
    CHECK_OK(vexi_store_put_if_absent(store, "log/0007.json", &one, 1, &err));
    CHECK_FAILS(VEX_EXISTS, vexi_store_put_if_absent(store, "log/0007.json", &two, 1, &err));
    CHECK(holds_text(store, "log/0007.json", "one"));
    CHECK_OK(vexi_store_remove(store, "log/0007.json", &err));
    CHECK_OK(vexi_store_put_if_absent(store, "log/0007.json", &two, 1, &err));
    CHECK(holds_text(store, "log/0007.json", "two"));
    put_text(store, "log/0007.json", "three");
    CHECK_FAILS(VEX_EXISTS, vexi_store_put_if_absent(store, "log/0007.json", &one, 1, &err));
    CHECK(holds_text(store, "log/0007.json", "three"));
}

static void body_object_or_folder(vexi_store *store) {
    put_text(store, "x/y", "object");
    vexi_span part = text_span("no");
    CHECK_FAILS(VEX_INVALID, vexi_store_put(store, "x/y/z", &part, 1, &err));
    CHECK_FAILS(VEX_INVALID, vexi_store_put(store, "x/y/z/w", &part, 1, &err));
    CHECK_FAILS(VEX_INVALID, vexi_store_put(store, "x", &part, 1, &err));
    CHECK_FAILS(VEX_INVALID, vexi_store_put_if_absent(store, "x", &part, 1, &err));
    CHECK_FAILS(VEX_INVALID, vexi_store_put_if_absent(store, "x/y/z", &part, 1, &err));
    uint64_t size;
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_size(store, "x", &size, &err));
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_size(store, "x/y/z", &size, &err));
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_get(store, "x", NULL, 0, &err));
    vexi_mapping mapping;
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_map(store, "x", &mapping, &err));
    CHECK_OK(vexi_store_remove(store, "x", &err));
    CHECK(holds_text(store, "x/y", "object"));
    check_list(store, "", NULL, false, "x/y");
}

static void body_list(vexi_store *store) {
    check_list(store, "", NULL, false, "");
    check_list(store, "", NULL, true, "");
    check_list(store, "no/such/folder/", NULL, false, "");
    /* '-' and '.' sort before '/', '0' and letters behind it: folders interleave with objects. */
    static const char *const names[] = {"b/x",
                                        "a/1",
                                        "a-b",
                                        "a/10",
                                        "a/2/q/z",
                                        "a/2/p",
                                        "a0/x",
                                        "b.parquet",
                                        "Z",
                                        "gone/x",
                                        "a/_log/00000000000000000010.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        put_text(store, names[i], names[i]);
    }
    CHECK_OK(vexi_store_remove(store, "gone/x", &err));
    const char *log = "a/_log/00000000000000000010.json";
    char all[256];
    snprintf(all, sizeof all, "Z a-b a/1 a/10 a/2/p a/2/q/z %s a0/x b.parquet b/x", log);
    check_list(store, "", NULL, false, all);
    check_list(store, "", NULL, true, "Z a-b a/ a0/ b.parquet b/");
    check_list(store, "a", NULL, true, "a-b a/ a0/");
    check_list(store, "a/", NULL, true, "a/1 a/10 a/2/ a/_log/");
    check_list(store, "a/1", NULL, false, "a/1 a/10");
    check_list(store, "a/2", NULL, true, "a/2/");
    check_list(store, "a/2/q/z", NULL, false, "a/2/q/z");
    check_list(store, "a/2/", NULL, false, "a/2/p a/2/q/z");
    check_list(store, "a/2/q/z/", NULL, false, "");
    check_list(store, "gone", NULL, true, "");
    check_list(store, "", "a/2/p", false,
               "a/2/q/z a/_log/00000000000000000010.json a0/x b.parquet b/x");
    check_list(store, "", "b.parquet", false, "b/x");
    check_list(store, "a/", "a/10", false, "a/2/p a/2/q/z a/_log/00000000000000000010.json");
    check_list(store, "a/_log/", "a/_log/00000000000000000009.json", false, log);
    check_list(store, "a/_log/", log, false, "");
    check_list(store, "", "a/", true, "a0/ b.parquet b/");
    check_list(store, "", "zzz", false, "");
    check_list(store, ".", NULL, false, "");

    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_OK(vexi_store_list(store, "a/2/", NULL, true, &arena, &listing, &err));
    CHECK_EQ(listing.count, 2);
    CHECK_EQ(listing.entries[0].size_bytes, 5);
    int64_t now = vexi_wall_us(vex_test_env());
    CHECK(listing.entries[0].modified_us <= now + 1000000);
    CHECK(listing.entries[0].modified_us > now - 3600 * INT64_C(1000000));
    CHECK_EQ(listing.entries[1].modified_us, 0);
    vexi_arena_deinit(&arena);
}

static void body_remove_many(vexi_store *store) {
    const char *names[5];
    char texts[5][16];
    for (size_t i = 0; i < 5; i++) {
        snprintf(texts[i], sizeof texts[i], "many/%zu", i);
        names[i] = texts[i];
        if (i != 3) { /* one that is not there */
            put_text(store, names[i], "x");
        }
    }
    put_text(store, "many/kept", "x");
    CHECK_OK(vexi_store_remove_many(store, names, 0, &err));
    CHECK_OK(vexi_store_remove_many(store, names, 5, &err));
    check_list(store, "", NULL, false, "many/kept");
    CHECK_OK(vexi_store_remove_many(store, names, 5, &err));
}

static void body_map(vexi_store *store) {
    CHECK((vexi_store_flags(store) & VEXI_STORE_CAN_MAP) != 0);
    vexi_mapping mapping;
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_map(store, "m", &mapping, &err));
    CHECK(mapping.data == NULL);
    vexi_store_unmap(store, &mapping);
    put_text(store, "m", "mapped bytes");
    put_text(store, "nothing", "");
    CHECK_OK(vexi_store_map(store, "m", &mapping, &err));
    CHECK_EQ(mapping.size, 12);
    /* Neither a new object under that name nor a removal touches what is mapped. */
    put_text(store, "m", "other bytes, and more of them");
    CHECK(memcmp(mapping.data, "mapped bytes", 12) == 0);
    CHECK_OK(vexi_store_remove(store, "m", &err));
    CHECK(memcmp(mapping.data, "mapped bytes", 12) == 0);
    vexi_store_unmap(store, &mapping);
    CHECK(mapping.data == NULL && mapping.size == 0);
    CHECK_OK(vexi_store_map(store, "nothing", &mapping, &err));
    CHECK_EQ(mapping.size, 0);
    CHECK(mapping.data == NULL);
    vexi_store_unmap(store, &mapping);
}

static void body_object(vexi_store *store) {
    put_text(store, "o/1", "0123456789");
    put_text(store, "o/0", "");
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_object object;
    CHECK_FAILS(VEX_NOT_FOUND, vexi_object_open(store, "o/2", UINT64_MAX, &object, &err));
    vexi_object_close(&object);
    if ((vexi_store_flags(store) & VEXI_STORE_CAN_MAP) != 0) {
        CHECK_FAILS(VEX_NOT_FOUND, vexi_object_open(store, "o/2", 10, &object, &err));
        vexi_object_close(&object);
        CHECK_FAILS(VEX_CORRUPT, vexi_object_open(store, "o/1", 11, &object, &err));
        CHECK_FAILS(VEX_CORRUPT, vexi_object_open(store, "o/1", 9, &object, &err));
    } else { /* nothing is asked before the first read */
        vexi_piece first = {.offset = 0, .size = 3}, last = {.offset = 10, .size = 1};
        CHECK_OK(vexi_object_open(store, "o/2", 10, &object, &err));
        CHECK_FAILS(VEX_NOT_FOUND, vexi_object_fetch(&object, &first, 1, &arena, NULL, &err));
        vexi_object_close(&object);
        CHECK_OK(vexi_object_open(store, "o/1", 11, &object, &err));
        CHECK_FAILS(VEX_CORRUPT, vexi_object_fetch(&object, &last, 1, &arena, NULL, &err));
        vexi_object_close(&object);
        CHECK_OK(vexi_object_open(store, "o/1", 10, &object, &err));
        vexi_object_close(&object);
    }
    CHECK_OK(vexi_object_open(store, "o/1", UINT64_MAX, &object, &err));
    CHECK_EQ(object.size_bytes, 10);
    vexi_object_close(&object);
    CHECK_OK(vexi_object_open(store, "o/1", 10, &object, &err));
    CHECK(strcmp(object.name, "o/1") == 0);
    vexi_piece pieces[] = {{.offset = 8, .size = 2}, {.offset = 10}, {.offset = 0, .size = 3}};
    CHECK_OK(vexi_object_fetch(&object, pieces, 3, &arena, NULL, &err));
    CHECK(memcmp(pieces[0].data, "89", 2) == 0);
    CHECK(pieces[1].data != NULL);
    CHECK(memcmp(pieces[2].data, "012", 3) == 0);
    CHECK_OK(vexi_object_fetch(&object, pieces, 0, &arena, NULL, &err));
    pieces[2] = (vexi_piece){.offset = 9, .size = 2};
    CHECK_FAILS(VEX_CORRUPT, vexi_object_fetch(&object, pieces, 3, &arena, NULL, &err));
    pieces[2] = (vexi_piece){.offset = UINT64_MAX, .size = 2};
    CHECK_FAILS(VEX_CORRUPT, vexi_object_fetch(&object, pieces, 3, &arena, NULL, &err));
    pieces[2] = (vexi_piece){.offset = 5, .size = SIZE_MAX};
    CHECK_FAILS(VEX_CORRUPT, vexi_object_fetch(&object, pieces, 3, &arena, NULL, &err));
    vexi_object_close(&object);
    vexi_object_close(&object);
    CHECK_OK(vexi_object_open(store, "o/0", 0, &object, &err));
    CHECK_OK(vexi_object_fetch(&object, &(vexi_piece){0}, 1, &arena, NULL, &err));
    vexi_object_close(&object);
    vexi_arena_deinit(&arena);
}

/* Ranges of several objects in one step. */
static void body_get_many(vexi_store *store) {
    enum { OBJECTS = 5, SIZE = 5000, RANGES = 40 };
    static char text[OBJECTS][SIZE + 1], got[OBJECTS][RANGES][64];
    static vexi_range ranges[OBJECTS][RANGES];
    vexi_store_read gets[OBJECTS];
    char names[OBJECTS][16];
    uint64_t random = vex_test_seed(5);
    for (size_t i = 0; i < OBJECTS; i++) {
        for (size_t at = 0; at < SIZE; at++) {
            text[i][at] = (char)('a' + vexi_random_next(&random) % 26);
        }
        (void)snprintf(names[i], sizeof names[i], "m/%zu", i);
        put_text(store, names[i], text[i]);
        for (size_t r = 0; r < RANGES; r++) {
            size_t size = vexi_random_next(&random) % 64;
            ranges[i][r] = (vexi_range){.offset = vexi_random_next(&random) % (SIZE - size),
                                        .size = size,
                                        .target = (uint8_t *)got[i][r]};
        }
        gets[i] = (vexi_store_read){.name = names[i], .ranges = ranges[i], .count = RANGES};
    }
    for (size_t request_max = 0; request_max < 3 * OBJECTS; request_max += OBJECTS) {
        vexi_read_cost cost = {0};
        size_t failed = 77;
        memset(got, 0, sizeof got);
        CHECK_OK(vexi_store_get_many(store, gets, OBJECTS, request_max, &cost, &failed, &err));
        for (size_t i = 0; i < OBJECTS; i++) {
            for (size_t r = 0; r < RANGES; r++) {
                CHECK(memcmp(got[i][r], text[i] + ranges[i][r].offset, ranges[i][r].size) == 0);
            }
        }
        if (cost.hits == 0) { /* a cache has them from the second round on */
            CHECK_EQ(cost.steps, 1);
            CHECK(cost.requests >= 1 && cost.bytes > 0);
        }
        CHECK(cost.steps <= 1);
        CHECK(request_max == 0 || cost.requests <= request_max);
    }
    CHECK_OK(vexi_store_get_many(store, gets, 0, 0, NULL, NULL, &err));
    CHECK_OK(vexi_store_get_many(store, gets, 1, 0, NULL, NULL, &err));
    size_t failed = 0;
    gets[3].name = "m/absent";
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_get_many(store, gets, OBJECTS, 0, NULL, &failed, &err));
    CHECK_EQ(failed, 3);
    gets[3].name = "../m";
    CHECK_FAILS(VEX_INVALID, vexi_store_get_many(store, gets, OBJECTS, 0, NULL, &failed, &err));
    CHECK_EQ(failed, 3);
    gets[3].name = names[3];
    ranges[1][7] = (vexi_range){.offset = SIZE - 3, .size = 4, .target = (uint8_t *)got[1][7]};
    CHECK_FAILS(VEX_CORRUPT, vexi_store_get_many(store, gets, OBJECTS, 0, NULL, &failed, &err));
    CHECK_EQ(failed, 1);
}

static void body_log(vexi_store *store) {
    CHECK((vexi_store_flags(store) & VEXI_STORE_CAN_LOG) != 0);
    vexi_log_file *log = NULL;
    CHECK_OK(vexi_store_log_create(store, ".vexlake/wal/0001.wal", &log, &err));
    vexi_log_file *second = log;
    CHECK_FAILS(VEX_EXISTS, vexi_store_log_create(store, ".vexlake/wal/0001.wal", &second, &err));
    CHECK(second == NULL);
    CHECK(holds_text(store, ".vexlake/wal/0001.wal", ""));
    vexi_span parts[] = {text_span("ab"), text_span(""), text_span("c")};
    CHECK_OK(vexi_store_log_append(log, parts, 3, &err));
    CHECK(holds_text(store, ".vexlake/wal/0001.wal", "abc"));
    CHECK_OK(vexi_store_log_sync(log, &err));
    CHECK_OK(vexi_store_log_append(log, parts, 1, &err));
    vexi_mapping mapping = {0};
    bool maps = (vexi_store_flags(store) & VEXI_STORE_CAN_MAP) != 0;
    if (maps) {
        CHECK_OK(vexi_store_map(store, ".vexlake/wal/0001.wal", &mapping, &err));
    }
    CHECK_OK(vexi_store_log_append(log, parts, 0, &err));
    CHECK_OK(vexi_store_log_append(log, parts, 3, &err));
    CHECK_OK(vexi_store_log_sync(log, &err));
    if (maps) {
        CHECK_EQ(mapping.size, 5);
        CHECK(memcmp(mapping.data, "abcab", 5) == 0);
        vexi_store_unmap(store, &mapping);
    }
    vexi_store_log_close(log);
    vexi_store_log_close(NULL);
    CHECK(holds_text(store, ".vexlake/wal/0001.wal", "abcababc"));
    check_list(store, ".vexlake/", NULL, false, ".vexlake/wal/0001.wal");
    CHECK_OK(vexi_store_remove(store, ".vexlake/wal/0001.wal", &err));
    CHECK_OK(vexi_store_log_create(store, ".vexlake/wal/0001.wal", &log, &err));
    CHECK_OK(vexi_store_remove(store, ".vexlake/wal/0001.wal", &err)); /* while it is open */
    CHECK_OK(vexi_store_log_append(log, parts, 3, &err));
    vexi_store_log_close(log);
    check_list(store, "", NULL, false, "");
}

static void body_lock(vexi_store *store) {
    CHECK((vexi_store_flags(store) & VEXI_STORE_CAN_LOCK) != 0);
    CHECK_OK(vexi_store_lock(store, ".vexlake/lock", &err));
    CHECK_FAILS(VEX_BUSY, vexi_store_lock(store, ".vexlake/lock", &err));
    put_text(store, "x", "written under the lock");
    CHECK(holds_text(store, "x", "written under the lock"));
}

static void body_hostile_names(vexi_store *store) {
    char segment[258], name[1100];
    memset(segment, 's', 256);
    segment[256] = '\0';
    memset(name, 'n', sizeof name);
    for (size_t i = 100; i < sizeof name; i += 100) {
        name[i] = '/';
    }
    name[1025] = '\0';
    const char *const names[] = {
        "",           "/",    "/etc/passwd", "a/",    "a//b",     "..",  "../x",
        "a/../b",     "a/..", ".",           "./a",   "a/./b",    "a b", "a\\b",
        "a\nb",       "a%2e", "\xc3\xa4",    "a:b",   ".tmp-put", "a*",  ".tmp-",
        "x/.tmp-1/y", "a/b/", "a\x7f",       segment, name};
    vexi_span part = text_span("x");
    vexi_log_file *log = NULL;
    vexi_mapping mapping;
    uint64_t size;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        CHECK(!vexi_store_name_valid(names[i]));
        CHECK_FAILS(VEX_INVALID, vexi_store_put(store, names[i], &part, 1, &err));
        CHECK_FAILS(VEX_INVALID, vexi_store_put_if_absent(store, names[i], &part, 1, &err));
        CHECK_FAILS(VEX_INVALID, vexi_store_get(store, names[i], NULL, 0, &err));
        CHECK_FAILS(VEX_INVALID, vexi_store_remove(store, names[i], &err));
        CHECK_FAILS(VEX_INVALID, vexi_store_size(store, names[i], &size, &err));
        const char *const one = names[i];
        CHECK_FAILS(VEX_INVALID, vexi_store_remove_many(store, &one, 1, &err));
        if ((vexi_store_flags(store) & VEXI_STORE_CAN_MAP) != 0) {
            CHECK_FAILS(VEX_INVALID, vexi_store_map(store, names[i], &mapping, &err));
            CHECK_FAILS(VEX_INVALID, vexi_store_log_create(store, names[i], &log, &err));
            CHECK_FAILS(VEX_INVALID, vexi_store_lock(store, names[i], &err));
        }
    }
    const char *const prefixes[] = {"/", "//", "../", "a/../", "a//", "./", ".tmp-put/", "a b"};
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        CHECK_FAILS(VEX_INVALID,
                    vexi_store_list(store, prefixes[i], NULL, false, &arena, &listing, &err));
    }
    vexi_arena_deinit(&arena);
    check_list(store, "", NULL, false, "");
    check_list(store, "..", NULL, false, "");

    /* The longest that is allowed, and odd names that are fine. In a bucket the key has 1,024
     * bytes, of which our prefix takes some. */
    size_t longest = (vexi_store_flags(store) & VEXI_STORE_CAN_MAP) != 0 ? 1024 : 950;
    segment[255] = '\0';
    name[longest] = '\0';
    if (name[longest - 1] == '/') {
        name[longest - 1] = 'n';
    }
    const char *const fine[] = {segment, name, "...", "..a", ".tmp", "~70=x", "-"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        put_text(store, fine[i], "fine");
        CHECK(holds_text(store, fine[i], "fine"));
        CHECK_OK(vexi_store_list(store, fine[i], NULL, false, &arena, &listing, &err));
        CHECK(listing.count >= 1);
        vexi_arena_deinit(&arena);
        vexi_arena_init(&arena, vex_test_env());
    }
    vexi_arena_deinit(&arena);
}

/* ---- Races ----------------------------------------------------------------------------------- */

enum { RACE_THREADS = 4, RACE_ROUNDS = 40 };

typedef struct racer {
    vexi_store *store;
    pthread_barrier_t *barrier;
    uint32_t number;
    uint32_t wins[RACE_ROUNDS];
} racer;

static void *race(void *argument) {
    racer *self = argument;
    for (uint32_t round = 0; round < RACE_ROUNDS; round++) {
        char name[32];
        uint8_t bytes[4096];
        memset(bytes, (int)self->number, sizeof bytes);
        vexi_span part = vexi_span_of(bytes, sizeof bytes);
        snprintf(name, sizeof name, "race/%u/%04u", round % 3, round);
        pthread_barrier_wait(self->barrier);
        vex_status status = vexi_store_put_if_absent(self->store, name, &part, 1, NULL);
        CHECK(status == VEX_OK || status == VEX_EXISTS);
        self->wins[round] = status == VEX_OK;
        /* Whoever won, its bytes are there and whole once anybody has an answer. */
        uint8_t found[4096];
        vexi_range range = {.size = sizeof found, .target = found};
        CHECK_OK(vexi_store_get(self->store, name, &range, 1, &err));
        for (size_t i = 1; i < sizeof found; i++) {
            CHECK(found[i] == found[0]);
        }
        CHECK((status == VEX_OK) == (found[0] == self->number));
        /* Other calls among them, for the thread sanitizer. */
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_listing listing;
        CHECK_OK(
            vexi_store_list(self->store, "race/", NULL, round % 2 == 0, &arena, &listing, &err));
        vexi_arena_deinit(&arena);
        vexi_mapping mapping = {0};
        if ((vexi_store_flags(self->store) & VEXI_STORE_CAN_MAP) != 0) {
            CHECK_OK(vexi_store_map(self->store, name, &mapping, &err));
        }
        snprintf(name, sizeof name, "own/%u", self->number);
        CHECK_OK(vexi_store_put(self->store, name, &part, 1, &err));
        CHECK_OK(vexi_store_remove(self->store, "own/0", &err));
        vexi_store_unmap(self->store, &mapping);
    }
    return NULL;
}

static void body_race(vexi_store *store) {
    pthread_barrier_t barrier;
    CHECK_EQ(pthread_barrier_init(&barrier, NULL, RACE_THREADS), 0);
    pthread_t threads[RACE_THREADS];
    static racer racers[RACE_THREADS];
    for (uint32_t i = 0; i < RACE_THREADS; i++) {
        racers[i] = (racer){.store = store, .barrier = &barrier, .number = i};
        CHECK_EQ(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (uint32_t i = 0; i < RACE_THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    pthread_barrier_destroy(&barrier);
    for (uint32_t round = 0; round < RACE_ROUNDS; round++) {
        uint32_t wins = 0;
        for (uint32_t i = 0; i < RACE_THREADS; i++) {
            wins += racers[i].wins[round];
        }
        CHECK_EQ(wins, 1);
    }
}

/* Appends of several threads to one log: each stands whole, beside appenders who sync. */
typedef struct appender {
    vexi_store *store;
    vexi_log_file *log;
    uint8_t number;
} appender;

static void *append_lines(void *argument) {
    appender *self = argument;
    for (int i = 0; i < 50; i++) {
        uint8_t bytes[64];
        memset(bytes, self->number, sizeof bytes);
        vexi_span parts[] = {vexi_span_of(bytes, 30), vexi_span_of(bytes + 30, 34)};
        CHECK_OK(vexi_store_log_append(self->log, parts, 2, &err));
        if (i % 8 == 0) {
            CHECK_OK(vexi_store_log_sync(self->log, &err));
            uint64_t size = 0;
            CHECK_OK(vexi_store_size(self->store, "threads.wal", &size, &err));
            CHECK(size >= 64);
        }
    }
    return NULL;
}

static void body_log_threads(vexi_store *store) {
    vexi_log_file *log = NULL;
    CHECK_OK(vexi_store_log_create(store, "threads.wal", &log, &err));
    pthread_t threads[RACE_THREADS];
    appender appenders[RACE_THREADS];
    for (size_t i = 0; i < RACE_THREADS; i++) {
        appenders[i] = (appender){.store = store, .log = log, .number = (uint8_t)(i + 1)};
        CHECK_EQ(pthread_create(&threads[i], NULL, append_lines, &appenders[i]), 0);
    }
    for (size_t i = 0; i < RACE_THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    }
    vexi_store_log_close(log);
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_span all;
    CHECK_OK(vexi_store_get_all(store, "threads.wal", 1 << 20, &arena, &all, &err));
    CHECK_EQ(all.size, RACE_THREADS * 50 * 64);
    for (size_t i = 0; i < all.size; i++) {
        CHECK(all.data[i] == all.data[i / 64 * 64]);
    }
    vexi_arena_deinit(&arena);
}

/* ---- Without mapping ------------------------------------------------------------------------- */

/* What a network store will be to its callers: only whole objects and ranges. */
TEST(without_mapping) {
    fixture f = fixture_open(BACKING_MEM);
    vexi_store_ops ops = *f.store->ops;
    const vexi_store_ops *full = f.store->ops;
    ops.flags = 0;
    f.store->ops = &ops;
    body_object(f.store);
    vexi_mapping mapping;
    vexi_log_file *log = NULL;
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_store_map(f.store, "o/1", &mapping, &err));
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_store_log_create(f.store, "log", &log, &err));
    CHECK_FAILS(VEX_UNSUPPORTED, vexi_store_lock(f.store, "lock", &err));
    f.store->ops = full;
    fixture_close(&f);
}

/* ---- Without memory -------------------------------------------------------------------------- */

typedef struct failing_env {
    vexi_env env;
    uint64_t calls;
    uint64_t fail_at;
} failing_env;

static void *failing_allocate(void *context, size_t alignment, size_t size) {
    failing_env *self = context;
    const vexi_env *system = vex_test_env();
    self->calls++;
    return self->calls == self->fail_at ? NULL : system->allocate(system->context, alignment, size);
}

static void failing_release(void *context, void *pointer) {
    (void)context;
    vex_test_env()->release(vex_test_env()->context, pointer);
}

static void one_by_one(void *context, size_t count, void (*function)(void *argument, size_t i),
                       void *argument) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        function(argument, i);
    }
}

static int64_t fixed_wall_us(void *context) {
    (void)context;
    return 1;
}

static void fixed_random(void *context, void *out, size_t size) {
    (void)context;
    memset(out, 7, size);
}

/* A call that may lack memory and otherwise succeeds. */
static bool worked(vex_status status) {
    CHECK(status == VEX_OK || status == VEX_MEMORY);
    return status == VEX_OK;
}

static void use_store(vexi_store *store, const vexi_env *env) {
    vexi_span part = text_span("some bytes");
    (void)worked(vexi_store_lock(store, ".vexlake/lock", NULL));
    bool put = worked(vexi_store_put(store, "a/b/c", &part, 1, NULL));
    bool absent = worked(vexi_store_put_if_absent(store, "a/d", &part, 1, NULL));
    vexi_log_file *log = NULL;
    if (worked(vexi_store_log_create(store, "wal/1", &log, NULL))) {
        (void)(worked(vexi_store_log_append(log, &part, 1, NULL)) &&
               worked(vexi_store_log_sync(log, NULL)));
        vexi_store_log_close(log);
    }
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_listing listing;
    if (worked(vexi_store_list(store, "a", NULL, false, &arena, &listing, NULL))) {
        CHECK_EQ(listing.count, (put ? 1 : 0) + (absent ? 1 : 0));
    }
    (void)worked(vexi_store_list(store, "", NULL, true, &arena, &listing, NULL));
    vexi_object object;
    if (put && worked(vexi_object_open(store, "a/b/c", 10, &object, NULL))) {
        vexi_piece piece = {.offset = 5, .size = 5};
        if (worked(vexi_object_fetch(&object, &piece, 1, &arena, NULL, NULL))) {
            CHECK(memcmp(piece.data, "bytes", 5) == 0);
        }
        vexi_object_close(&object);
    }
    if (put && absent) {
        uint8_t bytes[2][4];
        vexi_range ranges[2] = {{.offset = 1, .size = 4, .target = bytes[0]},
                                {.offset = 6, .size = 4, .target = bytes[1]}};
        vexi_store_read reads[2] = {{"a/b/c", &ranges[0], 1}, {"a/d", &ranges[1], 1}};
        if (worked(vexi_store_get_many(store, reads, 2, 1, NULL, NULL, NULL))) {
            CHECK(memcmp(bytes, "ome ytes", 8) == 0);
        }
    }
    vexi_span all;
    if (absent && worked(vexi_store_get_all(store, "a/d", 100, &arena, &all, NULL))) {
        CHECK_EQ(all.size, 10);
    }
    vexi_arena_deinit(&arena);
    (void)worked(vexi_store_remove(store, "a/b/c", NULL));
}

/* Every allocation fails once, over each store: a status, nothing leaked, no half of an object. */
TEST(allocations_fail) {
    for (int kind = 0; kind < 4; kind++) {
        bool failed = true;
        uint64_t n = 1;
        for (; failed; n++) {
            failing_env self = {.env = *vex_test_env(), .fail_at = n};
            self.env.context = &self;
            self.env.allocate = failing_allocate;
            self.env.release = failing_release;
            self.env.parallel = one_by_one;
            self.env.wall_us = fixed_wall_us;
            self.env.random_fill = fixed_random;
            vexi_disk *disk = NULL;
            vexi_store *store = NULL;
            bool made = kind == 0 || worked(vexi_disk_sim_create(&self.env, 1, &disk, NULL));
            made = made && worked(kind == 0 ? vexi_store_mem_create(&self.env, &store, NULL)
                                            : vexi_store_file_create(&self.env, disk, "x/y", true,
                                                                     &store, NULL));
            if (made && kind == 2) {
                vexi_fault_plan plan = {.sync_error_ppm = 1};
                made = worked(vexi_store_fault_create(&self.env, store, &plan, &store, NULL));
            }
            if (made && kind == 3) {
                const vexi_cache_config config = {
                    .memory_bytes = 1 << 20, .folder = "c", .disk_bytes = 8 << 20, .disk = disk};
                made = worked(vexi_store_cache_create(&self.env, store, &config, &store, NULL));
            }
            if (made) {
                use_store(store, &self.env);
            }
            vexi_store_destroy(store);
            vexi_disk_destroy(disk);
            failed = self.calls >= n;
        }
        printf("    %llu allocations\n", (unsigned long long)n - 2);
        CHECK(n > 10);
    }
}

typedef void body_function(vexi_store *store);

/* Stores that `needed` (flags) fits. */
static void run_body(const char *name, body_function *body, uint32_t needed) {
    for (backing kind = BACKING_MEM; kind < BACKING_COUNT; kind++) {
        if (kind == BACKING_S3 && !s3_server.is_there) {
            continue;
        }
        fixture f = fixture_open(kind);
        if ((vexi_store_flags(f.store) & needed) == needed) {
            printf("    %s over %s\n", name, backing_names[kind]);
            fflush(stdout);
            body(f.store);
        }
        fixture_close(&f);
    }
}

TEST(bodies) {
    vex_test_s3_open(&s3_server);
    run_body("put_get", body_put_get, 0);
    run_body("if_absent", body_if_absent, 0);
    /* Not of buckets: there a name may be both, and only some servers refuse it. */
    run_body("object_or_folder", body_object_or_folder, VEXI_STORE_CAN_MAP);
    run_body("list", body_list, 0);
    run_body("remove_many", body_remove_many, 0);
    run_body("map", body_map, VEXI_STORE_CAN_MAP);
    run_body("object", body_object, 0);
    run_body("get_many", body_get_many, 0);
    run_body("log", body_log, VEXI_STORE_CAN_LOG);
    run_body("lock", body_lock, VEXI_STORE_CAN_LOCK);
    run_body("hostile_names", body_hostile_names, 0);
    run_body("race", body_race, 0);
    run_body("log_threads", body_log_threads, VEXI_STORE_CAN_LOG);
    vex_test_s3_close(&s3_server);
}

/* ---- Counting -------------------------------------------------------------------------------- */

static uint64_t counted(const vexi_store_counters *counters, vex_store_operation kind) {
    uint64_t count = 0;
    for (uint32_t b = 0; b < VEXI_HISTOGRAM_BUCKETS; b++) {
        count += counters->kinds[kind].latency.buckets[b];
    }
    return count;
}

/* Faults, so that failures are counted too. */
TEST(counting) {
    vexi_env *env = vex_test_env();
    vexi_store *store;
    CHECK_OK(vexi_store_mem_create(env, &store, &err));
    vexi_fault_plan plan = {.seed = 1};
    CHECK_OK(vexi_store_fault_create(env, store, &plan, &store, &err));
    static vexi_store_counters c;
    vexi_store_count(store, &c);
    uint8_t bytes[100] = {0};
    vexi_span parts[2] = {vexi_span_of(bytes, 100), vexi_span_of(bytes, 11)};
    CHECK_OK(vexi_store_put(store, "a", parts, 2, &err));
    CHECK_OK(vexi_store_put_if_absent(store, "b", parts, 1, &err));
    CHECK_FAILS(VEX_EXISTS, vexi_store_put_if_absent(store, "b", parts, 1, &err));
    vexi_range ranges[2] = {{.offset = 0, .size = 10, .target = bytes},
                            {.offset = 50, .size = 20, .target = bytes + 10}};
    CHECK_OK(vexi_store_get(store, "a", ranges, 2, &err));
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_get(store, "absent", ranges, 2, &err));
    CHECK_FAILS(VEX_INVALID, vexi_store_get(store, "..", ranges, 2, &err)); /* reaches no store */
    vexi_log_file *log;
    CHECK_OK(vexi_store_log_create(store, "log", &log, &err));
    CHECK_OK(vexi_store_log_append(log, parts, 2, &err));
    CHECK_OK(vexi_store_log_sync(log, &err));
    vexi_store_log_close(log);
    vexi_mapping mapping;
    CHECK_OK(vexi_store_map(store, "a", &mapping, &err));
    vexi_store_unmap(store, &mapping);
    CHECK_EQ(c.kinds[VEX_STORE_MAP].bytes, 111);
    plan.fail_at = 1;
    vexi_store_fault_set(store, &plan);
    CHECK_FAILS(VEX_IO, vexi_store_put(store, "a", parts, 1, &err));
    static const char *const names[] = {"a", "b", "log"};
    CHECK_OK(vexi_store_remove_many(store, names, 3, &err));
    CHECK_EQ(counted(&c, VEX_STORE_PUT), 2);
    CHECK_EQ(c.kinds[VEX_STORE_PUT].bytes, 111);
    CHECK_EQ(c.kinds[VEX_STORE_PUT].errors, 1);
    CHECK_EQ(counted(&c, VEX_STORE_PUT_IF_ABSENT), 2);
    CHECK_EQ(c.kinds[VEX_STORE_PUT_IF_ABSENT].bytes, 100);
    CHECK_EQ(c.kinds[VEX_STORE_PUT_IF_ABSENT].errors, 0);
    CHECK_EQ(counted(&c, VEX_STORE_GET), 2);
    CHECK_EQ(c.kinds[VEX_STORE_GET].bytes, 30);
    CHECK_EQ(c.kinds[VEX_STORE_GET].errors, 0);
    CHECK_EQ(counted(&c, VEX_STORE_LOG_CREATE), 1);
    CHECK_EQ(counted(&c, VEX_STORE_LOG_APPEND), 1);
    CHECK_EQ(c.kinds[VEX_STORE_LOG_APPEND].bytes, 111);
    CHECK_EQ(counted(&c, VEX_STORE_LOG_SYNC), 1);
    CHECK_EQ(counted(&c, VEX_STORE_REMOVE), store->ops->remove_many != NULL ? 1 : 3);
    vexi_store_destroy(store);
}

TEST_MAIN(RUN(counting); RUN(bodies); RUN(without_mapping); RUN(allocations_fail))
