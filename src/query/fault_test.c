/* Searching and getting with the n-th allocation failing, for every n: the answer is VEX_MEMORY or
 * right, nothing leaks (the sanitizer watches), and the next call works. */
#include "query/query.h"

#include "check.h"

typedef struct failing_env {
    vexi_env env; /* first */
    const vexi_env *inner;
    uint64_t left;   /* atomic; allocations until one fails, UINT64_MAX: never */
    uint64_t failed; /* atomic */
} failing_env;

static void *failing_allocate(void *context, size_t alignment, size_t size) {
    failing_env *self = context;
    uint64_t left = __atomic_load_n(&self->left, __ATOMIC_RELAXED);
    if (left != UINT64_MAX && __atomic_fetch_sub(&self->left, 1, __ATOMIC_RELAXED) == 0) {
        __atomic_store_n(&self->left, UINT64_MAX, __ATOMIC_RELAXED);
        __atomic_add_fetch(&self->failed, 1, __ATOMIC_RELAXED);
        return NULL;
    }
    return self->inner->allocate(self->inner->context, alignment, size);
}

static void failing_release(void *context, void *pointer) {
    failing_env *self = context;
    self->inner->release(self->inner->context, pointer);
}

static uint64_t failing_monotonic_ns(void *context) {
    return vexi_monotonic_ns(((failing_env *)context)->inner);
}

static int64_t failing_wall_us(void *context) {
    return vexi_wall_us(((failing_env *)context)->inner);
}

static void failing_random_fill(void *context, void *out, size_t size) {
    const vexi_env *inner = ((failing_env *)context)->inner;
    inner->random_fill(inner->context, out, size);
}

static void failing_submit(void *context, vexi_task *task, uint32_t delay_ms) {
    vexi_submit(((failing_env *)context)->inner, task, delay_ms);
}

static void failing_cancel(void *context, vexi_task *task) {
    vexi_cancel(((failing_env *)context)->inner, task);
}

/* One after the other, so that the n-th allocation is always the same one. */
static void failing_parallel(void *context, size_t count,
                             void (*function)(void *argument, size_t i), void *argument) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        function(argument, i);
    }
}

enum { ROWS = 90, DIMENSION = 5, K = 20, QUERIES = 3 };

typedef struct fixture {
    failing_env env;
    vexi_keeper keeper;
    vexi_lake *lake;
    vexi_table *table;
} fixture;

static void no_destroy(vexi_keeper *keeper) {
    (void)keeper;
}

static const vexi_schema_column columns[2] = {{{"n", 1}, VEX_TYPE_INT64},
                                              {{"s", 1}, VEX_TYPE_STRING}};
static const vexi_schema schema = {.dimension = DIMENSION,
                                   .metric = VEX_METRIC_L2,
                                   .index = VEX_INDEX_IVF,
                                   .column_count = 2,
                                   .columns = columns};

/* Two segments and a memtable. */
static void fixture_init(fixture *f) {
    f->env = (failing_env){
        .env = {.context = &f->env,
                .allocate = failing_allocate,
                .release = failing_release,
                .monotonic_ns = failing_monotonic_ns,
                .wall_us = failing_wall_us,
                .random_fill = failing_random_fill,
                .submit = failing_submit,
                .cancel = failing_cancel,
                .parallel = failing_parallel,
                .thread_count = 4},
        .inner = vex_test_env(),
        .left = UINT64_MAX,
    };
    f->keeper = (vexi_keeper){.env = &f->env.env, .destroy = no_destroy};
    atomic_init(&f->keeper.references, 1);
    vexi_lake_config config = {
        .durability = VEX_DURABILITY_ALWAYS,
        .sync_interval_ms = 100,
        .flush_interval_ms = 3600000,
        .flush_size_bytes = 1 << 30,
        .memory_limit_bytes = 1 << 30,
        .segment_size_bytes = 1 << 26,
        .log_size_bytes = 1 << 26,
    };
    vexi_store *store;
    vex_string name = {"c", 1};
    CHECK_OK(vexi_store_mem_create(&f->env.env, &store, &err));
    CHECK_OK(vexi_lake_open(&f->env.env, store, &config, &f->lake, &err));
    CHECK_OK(vexi_lake_create_table(f->lake, name, &schema, &err));
    CHECK_OK(vexi_lake_table(f->lake, name, &f->table, &err));
    for (int i = 0; i < ROWS; i++) {
        char id[16];
        float vector[DIMENSION] = {(float)i, 1};
        vexi_cell cells[2] = {{.as.int64 = i}, {.as.string = {id, 3}}};
        snprintf(id, sizeof id, "r%02d", i);
        vexi_row row = {.id = {id, 3}, .vector = vector, .cells = cells};
        CHECK_OK(vexi_table_put(f->table, &row, 1, &err));
        if (i % 35 == 34) {
            CHECK_OK(vexi_table_flush(f->table, &err));
        }
    }
}

static void fixture_deinit(fixture *f) {
    vexi_table_release(f->table);
    CHECK_OK(vexi_lake_close(f->lake, &err));
    CHECK_EQ(atomic_load(&f->keeper.references), 1);
    vexi_keeper_release(&f->keeper);
}

static const vex_string names[4] = {{"vector", 6}, {"s", 1}, {"payload", 7}, {"n", 1}};

static vex_status search(fixture *f, struct ArrowSchema *out, struct ArrowArray *batch,
                         vex_error *err) {
    vexi_view *view;
    float queries[QUERIES][DIMENSION] = {{0, 1}, {50, 1}, {89, 1}};
    vexi_search_request request = {
        .queries = queries[0], .query_count = QUERIES, .k = K, .nprobe = 2};
    VEX_TRY(vexi_asked_resolve(&schema, names, 4, false, &request.asked, err));
    VEX_TRY(vexi_table_view(f->table, &view, err));
    vex_status status = vexi_search(&f->keeper, view, &request, out, batch, NULL, err);
    vexi_view_release(view);
    return status;
}

static vex_status get(fixture *f, struct ArrowSchema *out, struct ArrowArray *batch,
                      vex_error *err) {
    vexi_view *view;
    vexi_asked asked;
    vex_string ids[4] = {{"r00", 3}, {"r40", 3}, {"r89", 3}, {"none", 4}};
    VEX_TRY(vexi_asked_resolve(&schema, NULL, 0, true, &asked, err));
    VEX_TRY(vexi_table_view(f->table, &view, err));
    vex_status status = vexi_get(&f->keeper, view, ids, 4, &asked, out, batch, err);
    vexi_view_release(view);
    return status;
}

static vex_status get_from_memory(fixture *f, struct ArrowSchema *out, struct ArrowArray *batch,
                                  vex_error *err) {
    vexi_memory_view view;
    vexi_asked asked;
    vex_string ids[40];
    bool known;
    for (int i = 0; i < 40; i++) {
        ids[i] = (vex_string){i % 2 == 0 ? "r89" : "r75", 3};
    }
    VEX_TRY(vexi_asked_resolve(&schema, NULL, 0, true, &asked, err));
    vexi_table_memory_view(f->table, &view);
    vex_status status =
        vexi_get_from_memory(&f->keeper, &view, ids, 40, &asked, out, batch, &known, err);
    vexi_memory_view_release(&view);
    return status;
}

static void every_allocation_fails_once(vex_status (*call)(fixture *, struct ArrowSchema *,
                                                           struct ArrowArray *, vex_error *),
                                        int64_t length) {
    fixture f;
    fixture_init(&f);
    uint64_t allocation = 0;
    for (bool done = false; !done; allocation++) {
        struct ArrowSchema out = {0};
        struct ArrowArray batch = {0};
        vex_error err = {0};
        uint64_t failed = f.env.failed;
        __atomic_store_n(&f.env.left, allocation, __ATOMIC_RELAXED);
        vex_status status = call(&f, &out, &batch, &err);
        __atomic_store_n(&f.env.left, UINT64_MAX, __ATOMIC_RELAXED);
        done = f.env.failed == failed;
        if (status == VEX_OK) {
            CHECK_EQ(batch.length, length);
            out.release(&out);
            batch.release(&batch);
        } else {
            CHECK(!done && status == VEX_MEMORY && err.message[0] != '\0');
            CHECK(out.release == NULL && batch.release == NULL);
        }
        CHECK(allocation < 10000);
    }
    printf("    %" PRIu64 " allocations\n", allocation - 1);
    CHECK(allocation > 2);
    fixture_deinit(&f);
}

TEST(searching) {
    every_allocation_fails_once(search, QUERIES * K);
}

TEST(getting) {
    every_allocation_fails_once(get, 4);
}

TEST(getting_from_memory) {
    every_allocation_fails_once(get_from_memory, 40);
}

TEST_MAIN(RUN(searching); RUN(getting); RUN(getting_from_memory))
