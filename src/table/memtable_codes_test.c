/* Codes of memtables: what they cover, that bounds hold, and reading while rows are appended. */
#include "check.h"

#include <math.h>
#include <pthread.h>

#include "table/memtable.h"

static vexi_schema_box *box_of(uint32_t dimension, vex_metric metric, vex_index_kind index) {
    vexi_schema schema = {
        .dimension = dimension, .metric = metric, .index = index, .rotation_seed = 11};
    vexi_schema_box *box;
    CHECK_OK(vexi_schema_box_create(vex_test_env(), &schema, &box, &err));
    return box;
}

/* Value i of the vector of row n: clusters away from zero. */
static float value_of(uint64_t n, uint32_t i) {
    uint64_t seed = n * 4099 + i + 1;
    return vex_test_normal(&seed) + 3.0f * (float)((n * 7 + i) % 3);
}

static void vector_of(uint64_t n, uint32_t dimension, float *out) {
    for (uint32_t i = 0; i < dimension; i++) {
        out[i] = value_of(n, i);
    }
}

/* Append rows first .. first + count - 1, or tombstones of them. */
static void append(vexi_memtable *memtable, const vexi_schema *schema, uint64_t first, size_t count,
                   bool tombstones) {
    enum { MOST = 400, WIDEST = 128 };
    static vexi_row rows[MOST];
    static vex_string ids[MOST];
    static char names[MOST][16];
    static float vectors[MOST][WIDEST];
    CHECK(count <= MOST && schema->dimension <= WIDEST);
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "%llu", (unsigned long long)(first + i));
        ids[i] = vexi_string_of(names[i]);
        vector_of(first + i, schema->dimension, vectors[i]);
        rows[i] = (vexi_row){.id = ids[i], .vector = vectors[i]};
    }
    vexi_row_block *block;
    CHECK_OK(vexi_row_block_create(vex_test_env(), schema, tombstones ? NULL : rows, ids, count,
                                   &block, &err));
    CHECK_OK(vexi_memtable_reserve(memtable, vexi_memtable_count(memtable) + count, &err));
    vexi_memtable_append(memtable, block, first + 1);
    vexi_memtable_encode(memtable);
}

static double exact(const vexi_memtable *memtable, const vexi_schema *schema, const float *query,
                    uint64_t row) {
    return vexi_distance(schema->metric, query,
                         (const uint8_t *)vexi_memtable_row(memtable, row).vector,
                         schema->dimension);
}

/* Rows of the memtable that a scan with this limit leaves, by their bounds; checks the bounds. */
static uint32_t scan(const vexi_memtable *memtable, const vexi_schema_box *box, uint64_t row_count,
                     const float *values, float limit, uint32_t *wrong) {
    const vexi_schema *schema = &box->schema;
    vexi_source source = {.memtable = (vexi_memtable *)memtable, .row_count = row_count};
    vexi_memtable_codes codes;
    vexi_source_codes(&source, row_count, &codes);
    if (codes.row_count == 0) {
        CHECK(codes.center == NULL);
        return 0;
    }
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_code_layout layout = vexi_code_layout_of(schema->metric, schema->dimension, codes.bits);
    vexi_code_query query;
    CHECK_OK(vexi_code_query_init(&query, &layout, &box->rotation, values, codes.origin,
                                  codes.row_length, &arena, &err));
    double center_square = 0;
    for (uint32_t i = 0; i < schema->dimension; i++) {
        double d = (double)query.values[i] - (double)codes.center[i];
        center_square += d * d;
    }
    CHECK(((uintptr_t)codes.center & 63) == 0);
    vexi_code_pool pool;
    CHECK_OK(vexi_code_pool_init(&pool, 10, limit * query.to_scan, &arena, &err));
    uint64_t covered = 0;
    for (uint32_t l = 0; l < codes.list_count; l++) {
        CHECK_EQ(codes.lists[l].first_row, covered);
        CHECK(((uintptr_t)codes.lists[l].blocks & 63) == 0 && codes.lists[l].row_count % 32 == 0);
        covered += codes.lists[l].row_count;
        CHECK_OK(vexi_code_pool_reserve(&pool, codes.lists[l].row_count, &arena, &err));
        vexi_code_scan(&query, &codes.lists[l], (float)center_square, NULL, &pool);
    }
    CHECK_EQ(covered, codes.row_count);
    CHECK(codes.row_count <= row_count);
    for (uint32_t i = 0; i < pool.count; i++) {
        uint64_t row = pool.items[i].row;
        CHECK(row < codes.row_count);
        if (vexi_memtable_row(memtable, row).vector != NULL) {
            double distance = exact(memtable, schema, values, row) * (double)query.to_scan;
            *wrong += (double)pool.items[i].bound > distance + 1e-3 * fabs(distance) + 1e-3 ? 1 : 0;
        }
    }
    vexi_arena_deinit(&arena);
    return pool.count;
}

/* Bounds are below the distances, whatever the metric, with tombstones in between. */
TEST(bounds_hold) {
    static const vex_metric metrics[] = {VEX_METRIC_L2, VEX_METRIC_COSINE, VEX_METRIC_IP};
    uint64_t seed = vex_test_seed(3);
    for (size_t m = 0; m < 3; m++) {
        for (int centered = 0; centered < 2; centered++) {
            vexi_schema_box *box = box_of(96, metrics[m], VEX_INDEX_AUTO);
            vexi_memtable *memtable;
            float center[96];
            vector_of(1u << 20, 96, center);
            double square = 0;
            for (int i = 0; i < 96; i++) {
                square += (double)center[i] * (double)center[i];
            }
            for (int i = 0; i < 96 && metrics[m] == VEX_METRIC_COSINE; i++) {
                center[i] = (float)(center[i] / sqrt(square));
            }
            CHECK_OK(vexi_memtable_create(box, centered ? center : NULL, (float)sqrt(square),
                                          &memtable, &err));
            uint64_t n = 0;
            size_t before = vexi_memtable_size_bytes(memtable);
            while (n < 3000) {
                size_t count = 1 + (size_t)vex_test_below(&seed, 300);
                append(memtable, &box->schema, n, count, vex_test_below(&seed, 5) == 0);
                n += count;
                vexi_memtable_codes codes;
                vexi_memtable_codes_of(memtable, n, &codes);
                /* Without a centre from elsewhere the first rows make one. */
                CHECK(codes.row_count == n / 32 * 32 || (!centered && n < 1000));
                vexi_memtable_codes_of(memtable, 31, &codes);
                CHECK_EQ(codes.row_count, 0);
            }
            CHECK(vexi_memtable_size_bytes(memtable) - before > n * (96 * 4 + 96 / 8));
            uint32_t wrong = 0;
            uint32_t found = 0;
            for (uint64_t q = 0; q < 20; q++) {
                float query[96];
                vector_of(5000000 + q, 96, query);
                found += scan(memtable, box, n - q, query, INFINITY, &wrong);
            }
            CHECK(found > 20 * 2500);
            if (wrong * 50 > found) {
                fprintf(stderr, "%u of %u bounds are above the distance\n", wrong, found);
                exit(1);
            }
            vexi_memtable_release(memtable);
            vexi_schema_box_release(box);
        }
    }
}

/* A limit leaves the near rows and few others. */
TEST(limits_leave_few) {
    vexi_schema_box *box = box_of(128, VEX_METRIC_L2, VEX_INDEX_HNSW);
    vexi_memtable *memtable;
    CHECK_OK(vexi_memtable_create(box, NULL, 0, &memtable, &err));
    for (uint64_t n = 0; n < 8000; n += 400) {
        append(memtable, &box->schema, n, 400, false);
    }
    uint32_t wrong = 0;
    uint32_t left = 0;
    uint32_t near = 0;
    for (uint64_t q = 0; q < 10; q++) {
        float query[128];
        vector_of(q * 700, 128, query); /* a row, changed a little */
        query[q] += 0.5f;
        uint32_t count = scan(memtable, box, 8000, query, 1.0f, &wrong);
        near += count > 0 ? 1 : 0;
        left += count;
    }
    CHECK_EQ(near, 10);
    CHECK(left < 10 * 3000);
    CHECK(wrong * 50 <= left);
    vexi_memtable_release(memtable);
    vexi_schema_box_release(box);
}

/* Where they do not pay there are none. */
TEST(no_codes) {
    static const struct {
        uint32_t dimension;
        vex_index_kind index;
    } cases[] = {{4, VEX_INDEX_AUTO}, {128, VEX_INDEX_FLAT}};
    for (size_t c = 0; c < 2; c++) {
        vexi_schema_box *box = box_of(cases[c].dimension, VEX_METRIC_L2, cases[c].index);
        vexi_memtable *memtable;
        CHECK_OK(vexi_memtable_create(box, NULL, 0, &memtable, &err));
        append(memtable, &box->schema, 0, 400, false);
        vexi_memtable_codes codes;
        vexi_memtable_codes_of(memtable, 400, &codes);
        CHECK(codes.row_count == 0 && codes.center == NULL);
        vexi_memtable_release(memtable);
        vexi_schema_box_release(box);
    }
}

/* ---- Reading while rows are appended ----------------------------------------------------------
 */

enum { READERS = 3, LAST = 6000 };

typedef struct shared {
    vexi_memtable *memtable;
    vexi_schema_box *box;
    int done; /* atomic */
} shared;

static void *read_on(void *argument) {
    shared *s = argument;
    uint32_t wrong = 0;
    uint32_t found = 0;
    uint64_t rounds = 0;
    bool last = false;
    while (!last) {
        last = __atomic_load_n(&s->done, __ATOMIC_ACQUIRE) != 0;
        float query[64];
        vector_of(7000000 + rounds, 64, query);
        found += scan(s->memtable, s->box, vexi_memtable_count(s->memtable), query,
                      rounds % 2 == 0 ? INFINITY : 40.0f, &wrong);
        rounds++;
    }
    CHECK(found > 0 && wrong * 50 <= found);
    return NULL;
}

TEST(search_while_appending) {
    shared s = {.box = box_of(64, VEX_METRIC_L2, VEX_INDEX_AUTO)};
    CHECK_OK(vexi_memtable_create(s.box, NULL, 0, &s.memtable, &err));
    pthread_t threads[READERS];
    for (int i = 0; i < READERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, read_on, &s) == 0);
    }
    for (uint64_t n = 0; n < LAST;) {
        size_t count = 1 + (size_t)(n * 31 % 77);
        append(s.memtable, &s.box->schema, n, count, n % 11 == 0);
        n += count;
    }
    __atomic_store_n(&s.done, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < READERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    vexi_memtable_release(s.memtable);
    vexi_schema_box_release(s.box);
}

TEST_MAIN(RUN(bounds_hold); RUN(limits_leave_few); RUN(no_codes); RUN(search_while_appending))
