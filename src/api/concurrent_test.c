/* Puts, deletes, searches, gets and flushes at once; meant for ThreadSanitizer.
 *
 * Each writer owns keys. A row's vector and payload tell its key and version, so a reader can see
 * whether a row is whole; what a writer has been acknowledged it must read itself, and a reader
 * never sees a key's version go back. */
#include <pthread.h>

#include "api_test.h"

enum { WRITERS = 2, READERS = 2, KEYS = 64, DIMENSION = 8 };

typedef struct shared {
    vex_lake *lake;
    int stop; /* atomic */
    uint64_t rounds;
    /* Newest acknowledged version by key, 0: deleted or never there; written by the owner. */
    uint32_t versions[WRITERS][KEYS];
} shared;

typedef struct worker {
    shared *shared;
    int number;
    uint64_t seed;
} worker;

static void key_name(int writer, int key, char out[16]) {
    snprintf(out, 16, "w%dk%d", writer, key);
}

static void key_vector(int writer, int key, uint32_t version, float out[DIMENSION]) {
    for (int i = 0; i < DIMENSION; i++) {
        out[i] = (float)((key * 7 + i * 3) % 11);
    }
    out[0] = (float)writer;
    out[1] = (float)key;
    out[2] = (float)version;
}

/* The version of a row, after checking that its columns fit together. */
static uint32_t row_version(const result *r, int64_t row, int *writer, int *key) {
    vex_string id = result_id(r, row);
    vex_string payload = result_string(r, "payload", "z", row);
    const float *vector = result_vector(r, DIMENSION, row);
    uint32_t version;
    char text[40] = {0}, name[16];
    CHECK(id.data != NULL && payload.data != NULL && vector != NULL && payload.size < sizeof text);
    memcpy(text, payload.data, payload.size);
    CHECK(sscanf(text, "%d %d %u", writer, key, &version) == 3);
    CHECK(*writer >= 0 && *writer < WRITERS && *key >= 0 && *key < KEYS);
    key_name(*writer, *key, name);
    CHECK(string_is(id, name));
    float expected[DIMENSION];
    key_vector(*writer, *key, version, expected);
    CHECK(memcmp(vector, expected, sizeof expected) == 0);
    return version;
}

static void *write_some(void *argument) {
    worker *w = argument;
    shared *s = w->shared;
    uint32_t version = 0;
    for (uint64_t round = 0; round < s->rounds; round++) {
        int first = (int)vex_test_below(&w->seed, KEYS);
        int count = 1 + (int)vex_test_below(&w->seed, 5);
        char names[5][16], payloads[5][40];
        float vectors[5][DIMENSION];
        vex_row rows[5];
        vex_string ids[5];
        bool delete = vex_test_below(&w->seed, 4) == 0;
        version++;
        for (int i = 0; i < count; i++) {
            int key = (first + i) % KEYS;
            key_name(w->number, key, names[i]);
            key_vector(w->number, key, version, vectors[i]);
            snprintf(payloads[i], sizeof payloads[i], "%d %d %u", w->number, key, version);
            ids[i] = str(names[i]);
            rows[i] = (vex_row){.id = ids[i],
                                .vector = vectors[i],
                                .dimension = DIMENSION,
                                .payload = str(payloads[i])};
        }
        if (delete) {
            uint8_t existed[5];
            CHECK_OK(vex_delete(s->lake, str("c"), ids, (size_t)count, existed, &err));
            for (int i = 0; i < count; i++) {
                uint32_t *newest = &s->versions[w->number][(first + i) % KEYS];
                CHECK_EQ(existed[i], *newest != 0);
                *newest = 0;
            }
        } else {
            CHECK_OK(vex_put_rows(s->lake, str("c"), rows, (size_t)count, &err));
            for (int i = 0; i < count; i++) {
                s->versions[w->number][(first + i) % KEYS] = version;
            }
        }
        /* What was acknowledged is visible to the writer at once. */
        int key = (first + (int)vex_test_below(&w->seed, (uint64_t)count)) % KEYS;
        char name[16];
        result r;
        key_name(w->number, key, name);
        CHECK_OK(get_columns(s->lake, "c", name, &r, &err));
        uint32_t newest = s->versions[w->number][key];
        if (newest == 0) {
            CHECK(result_id(&r, 0).data == NULL);
        } else {
            int of_writer, of_key;
            CHECK_EQ(row_version(&r, 0, &of_writer, &of_key), newest);
        }
        result_release(&r);
    }
    return NULL;
}

static void *search_some(void *argument) {
    worker *w = argument;
    shared *s = w->shared;
    uint32_t seen[WRITERS][KEYS] = {{0}};
    vex_string names[2] = {str("vector"), str("payload")};
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        float queries[2][DIMENSION];
        bool present[WRITERS][KEYS] = {{false}};
        for (int i = 0; i < DIMENSION; i++) {
            queries[0][i] = vex_test_normal(&w->seed) * 30;
            queries[1][i] = vex_test_normal(&w->seed);
        }
        vex_search_options options = {.size = sizeof options,
                                      .k = 1 + (uint32_t)vex_test_below(&w->seed, 200),
                                      .exact = vex_test_below(&w->seed, 2) == 0,
                                      .column_count = 2,
                                      .columns = names};
        result r;
        CHECK_OK(vex_search(s->lake, str("c"), queries[0], 2, DIMENSION, &options, &r.schema,
                            &r.batch, &err));
        CHECK_EQ(r.batch.length % 2, 0); /* both queries see one state */
        CHECK(r.batch.length <= 2 * WRITERS * KEYS);
        for (int64_t i = 0; i < r.batch.length; i++) {
            int writer, key;
            uint32_t version = row_version(&r, i, &writer, &key);
            if (i == r.batch.length / 2) {
                memset(present, 0, sizeof present);
            }
            CHECK_EQ(result_query(&r, i), i >= r.batch.length / 2);
            CHECK(!present[writer][key]);
            present[writer][key] = true;
            CHECK(version >= seen[writer][key]);
            seen[writer][key] = version;
            if (i > 0 && result_query(&r, i) == result_query(&r, i - 1)) {
                CHECK(result_distance(&r, i) >= result_distance(&r, i - 1));
            }
        }
        result_release(&r);
    }
    return NULL;
}

static void *get_some(void *argument) {
    worker *w = argument;
    shared *s = w->shared;
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        char names[16][16];
        vex_string ids[16];
        vex_get_options options = {
            .size = sizeof options, .all_columns = true, .no_wait = vex_test_below(&w->seed, 2)};
        for (int i = 0; i < 16; i++) {
            key_name((int)vex_test_below(&w->seed, WRITERS), (int)vex_test_below(&w->seed, KEYS),
                     names[i]);
            ids[i] = str(names[i]);
        }
        result r = {0};
        vex_error err;
        vex_status status =
            vex_get(s->lake, str("c"), ids, 16, &options, &r.schema, &r.batch, &err);
        CHECK(status == VEX_OK || (status == VEX_WOULD_BLOCK && options.no_wait));
        for (int64_t i = 0; i < r.batch.length; i++) {
            int writer, key;
            if (result_id(&r, i).data != NULL) {
                (void)row_version(&r, i, &writer, &key);
            }
        }
        result_release(&r);
    }
    return NULL;
}

static void *flush_some(void *argument) {
    worker *w = argument;
    shared *s = w->shared;
    vex_collection_info *info = malloc(sizeof *info);
    CHECK(info != NULL);
    while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
        CHECK_OK(vex_flush(s->lake, str("c"), &err));
        CHECK_OK(vex_collection_describe(s->lake, str("c"), info, &err));
        CHECK(info->row_count <= WRITERS * KEYS);
        CHECK(info->last_error[0] == '\0');
    }
    free(info);
    return NULL;
}

static void check_final(shared *s) {
    uint64_t live = 0;
    for (int writer = 0; writer < WRITERS; writer++) {
        for (int key = 0; key < KEYS; key++) {
            char name[16];
            int of_writer, of_key;
            result r;
            key_name(writer, key, name);
            CHECK_OK(get_columns(s->lake, "c", name, &r, &err));
            if (s->versions[writer][key] == 0) {
                CHECK(result_id(&r, 0).data == NULL);
            } else {
                CHECK_EQ(row_version(&r, 0, &of_writer, &of_key), s->versions[writer][key]);
                live++;
            }
            result_release(&r);
        }
    }
    result r;
    float query[DIMENSION] = {0};
    CHECK_OK(search_k(s->lake, "c", query, DIMENSION, 1000, false, &r, &err));
    CHECK_EQ(r.batch.length, live);
    result_release(&r);
}

static void run(const char *uri) {
    uint64_t seed = vex_test_seed(11);
    shared *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    s->rounds = vex_test_effort(300);
    CHECK_OK(vex_lake_open(uri, NULL, &s->lake, &err));
    create(s->lake, "c", DIMENSION, VEX_METRIC_L2, VEX_INDEX_AUTO);

    enum { THREADS = WRITERS + READERS + 2 };
    pthread_t threads[THREADS];
    worker workers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (worker){s, i, vex_test_random(&seed)};
        void *(*body)(void *) = i < WRITERS             ? write_some
                                : i < WRITERS + READERS ? search_some
                                : i == THREADS - 2      ? get_some
                                                        : flush_some;
        CHECK(pthread_create(&threads[i], NULL, body, &workers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        if (i == WRITERS) {
            __atomic_store_n(&s->stop, 1, __ATOMIC_RELAXED);
        }
        pthread_join(threads[i], NULL);
    }
    check_final(s);
    CHECK_OK(vex_lake_close(s->lake, &err));
    if (strcmp(uri, "mem://") != 0) {
        CHECK_OK(vex_lake_open(uri, NULL, &s->lake, &err));
        check_final(s);
        CHECK_OK(vex_lake_close(s->lake, &err));
    }
    free(s);
}

TEST(in_memory) {
    run("mem://");
}

TEST(on_disk) {
    char *path = folder_create();
    run(path);
    folder_remove(path);
}

TEST_MAIN(RUN(in_memory); RUN(on_disk))
