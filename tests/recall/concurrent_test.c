/* Searches by codes, lists and graphs while rows are inserted, overwritten and deleted, memtables
 * are flushed and graphs built; meant for ThreadSanitizer. Rows of a fixed part never change: a
 * search by one of them must find it first. */
#include <pthread.h>

#include "recall.h"

enum { FIXED = 4200, CHANGING = 1500, DIMENSION = 40, SEARCHERS = 2, SEARCHES = 60, K = 10 };

typedef struct shared {
    vex_lake *lake;
    set *rows;
    int searching; /* atomic: searchers that are not done */
} shared;

static void *search_some(void *argument) {
    shared *s = argument;
    uint64_t seed = 77;
    for (int i = 0; i < SEARCHES; i++) {
        int row = (int)vex_test_below(&seed, FIXED);
        uint32_t count = i % 10 == 0 ? 5 : 1; /* several queries now and then: rows in a row */
        row = row < FIXED - 5 ? row : FIXED - 5;
        vex_search_options options = {.size = sizeof options, .k = K, .recall = 0.99f};
        result r;
        vex_error error;
        CHECK_OK(vex_search(s->lake, str("c"), s->rows->vectors + row * DIMENSION, count, DIMENSION,
                            &options, &r.schema, &r.batch, &error));
        CHECK_EQ(r.batch.length, count * K);
        int found = 0;
        for (uint32_t q = 0; q < count; q++) {
            found += result_distance(&r, q * K) == 0;
        }
        CHECK(found + 1 >= (int)count); /* codes may lie, hardly ever */
        result_release(&r);
    }
    __atomic_sub_fetch(&s->searching, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void run(vex_index_kind index) {
    shared s = {.rows = set_create(DIMENSION, FIXED + CHANGING, 60, 1.0f, index),
                .searching = SEARCHERS};
    vex_lake_options options = {.size = sizeof options, .thread_count = 3};
    CHECK_OK(vex_lake_open("mem://", &options, &s.lake, &err));
    create(s.lake, "c", DIMENSION, VEX_METRIC_L2, index);
    set_put(s.lake, s.rows, 0, FIXED);
    CHECK_OK(vex_flush(s.lake, str("c"), &err)); /* its graph is built meanwhile */
    pthread_t searchers[SEARCHERS];
    for (int i = 0; i < SEARCHERS; i++) {
        CHECK(pthread_create(&searchers[i], NULL, search_some, &s) == 0);
    }
    for (int round = 0; __atomic_load_n(&s.searching, __ATOMIC_ACQUIRE) > 0; round++) {
        char name[SET_ID_SIZE];
        int first = round * 50 % CHANGING;
        set_put(s.lake, s.rows, FIXED + first, 50);
        snprintf(name, sizeof name, "r%06d", FIXED + first);
        vex_string id = str(name);
        CHECK_OK(vex_delete(s.lake, str("c"), &id, 1, NULL, &err));
        if (round % 20 == 19) {
            CHECK_OK(vex_flush(s.lake, str("c"), &err));
        }
    }
    for (int i = 0; i < SEARCHERS; i++) {
        CHECK(pthread_join(searchers[i], NULL) == 0);
    }
    CHECK_OK(vex_lake_close(s.lake, &err));
    set_destroy(s.rows);
}

TEST(lists) {
    run(VEX_INDEX_IVF);
}

TEST(graphs) {
    run(VEX_INDEX_HNSW);
}

TEST_MAIN(RUN(lists); RUN(graphs))
