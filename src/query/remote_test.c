/* A lake read through a store that cannot map answers what a mapped one answers, in few steps. */
#include <unistd.h>

#include "query/query.h"

#include "check.h"
#include "store/test_ranges_store.h"

enum { ROWS = 3000, ROWS_FIRST = 2000, DIMENSION = 24, K = 10, QUERIES = 20 };

static const vexi_schema_column columns[2] = {{{"n", 1}, VEX_TYPE_INT64},
                                              {{"s", 1}, VEX_TYPE_STRING}};

typedef struct shape {
    const char *name;
    vex_metric metric;
    vex_index_kind index;
    uint32_t bits;
} shape;

static const shape shapes[] = {
    {"flat", VEX_METRIC_L2, VEX_INDEX_FLAT, 4},
    {"ivf", VEX_METRIC_L2, VEX_INDEX_IVF, 4},
    {"ivf-cosine", VEX_METRIC_COSINE, VEX_INDEX_IVF, 8},
    {"ivf-ip-1", VEX_METRIC_IP, VEX_INDEX_IVF, 1},
    {"graph", VEX_METRIC_L2, VEX_INDEX_HNSW, 4},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct fixture {
    vexi_keeper keeper;
    vexi_store *store; /* the writer's, which owns it */
    vexi_lake *writer;
    vex_test_ranges *ranges; /* the reader's */
    vexi_lake *reader;
    float vectors[ROWS][DIMENSION];
} fixture;

static void no_destroy(vexi_keeper *keeper) {
    (void)keeper;
}

static const vexi_lake_config config = {
    .durability = VEX_DURABILITY_ALWAYS,
    .sync_interval_ms = 100,
    .flush_interval_ms = 3600000,
    .flush_size_bytes = 1 << 30,
    .memory_limit_bytes = 1 << 30,
    .graph_memory_bytes = 1 << 30,
    .segment_size_bytes = 1 << 26,
    .log_size_bytes = 1 << 26,
};

typedef struct stored_row {
    char id[16], text[16];
    vexi_cell cells[2];
} stored_row;

/* Rows first .. first + count - 1 under those numbers, their vectors side by side. */
static void put(vexi_table *table, int first, int count, const float *vectors) {
    stored_row *stored = calloc((size_t)count, sizeof *stored);
    vexi_row *rows = calloc((size_t)count, sizeof *rows);
    CHECK(stored != NULL && rows != NULL);
    for (int i = 0; i < count; i++) {
        stored_row *one = &stored[i];
        int row = first + i;
        size_t id_size = (size_t)snprintf(one->id, sizeof one->id, "row-%d", row);
        size_t text_size = (size_t)snprintf(one->text, sizeof one->text, "text %d", row);
        one->cells[0].as.int64 = row;
        one->cells[1] = (vexi_cell){.is_null = row % 3 == 0, .as.string = {one->text, text_size}};
        rows[i] = (vexi_row){.id = {one->id, id_size},
                             .vector = vectors + (size_t)i * DIMENSION,
                             .cells = one->cells};
    }
    CHECK_OK(vexi_table_put(table, rows, (size_t)count, &err));
    free(rows);
    free(stored);
}

static vexi_table *table_of(vexi_lake *lake, const char *name) {
    vexi_table *table;
    CHECK_OK(vexi_lake_table(lake, vexi_string_of(name), &table, &err));
    return table;
}

static void reader_open(fixture *f, uint32_t refresh_interval_ms) {
    vexi_lake_config reading = config;
    reading.read_only = true;
    reading.refresh_interval_ms = refresh_interval_ms;
    f->ranges = vex_test_ranges_create(vex_test_env(), f->store);
    CHECK_OK(vexi_lake_open(vex_test_env(), &f->ranges->base, &reading, &f->reader, &err));
}

/* Two segments, the first with deleted and overwritten rows, in each collection. */
static void writer_open(fixture *f) {
    f->keeper = (vexi_keeper){.env = vex_test_env(), .destroy = no_destroy};
    atomic_init(&f->keeper.references, 1);
    CHECK_OK(vexi_store_mem_create(vex_test_env(), &f->store, &err));
    CHECK_OK(vexi_lake_open(vex_test_env(), f->store, &config, &f->writer, &err));
    uint64_t random = vex_test_seed(71);
    for (int i = 0; i < ROWS; i++) {
        for (int d = 0; d < DIMENSION; d++) {
            f->vectors[i][d] = (float)(i % 40) * 0.05f +
                               (float)(vexi_random_next(&random) >> 40) / (float)(1 << 24) - 0.5f;
        }
    }
    for (int s = 0; s < SHAPES; s++) {
        vexi_schema schema = {.dimension = DIMENSION,
                              .metric = shapes[s].metric,
                              .index = shapes[s].index,
                              .bits = shapes[s].bits,
                              .column_count = 2,
                              .columns = columns};
        CHECK_OK(vexi_lake_create_table(f->writer, vexi_string_of(shapes[s].name), &schema, &err));
        vexi_table *table = table_of(f->writer, shapes[s].name);
        put(table, 0, ROWS_FIRST, f->vectors[0]);
        CHECK_OK(vexi_table_flush(table, &err));
        put(table, ROWS_FIRST, ROWS - ROWS_FIRST, f->vectors[ROWS_FIRST]);
        for (int i = 0; i < ROWS; i += 50) {
            char id[16];
            vex_string name = {id, (size_t)snprintf(id, sizeof id, "row-%d", i)};
            CHECK_OK(vexi_table_delete(table, &name, 1, NULL, &err));
            put(table, i + 1, 1, f->vectors[i]);
        }
        CHECK_OK(vexi_table_flush(table, &err));
        vexi_table_release(table);
    }
}

enum { STEP_ROWS = 600, STEP_SEGMENTS = 5 };

/* Collections of one segment and of several, "rows-1" and "rows-5", of which the first loses rows.
 */
static void steps_open(fixture *f) {
    for (int segments = 1; segments <= STEP_SEGMENTS; segments += STEP_SEGMENTS - 1) {
        char name[16];
        (void)snprintf(name, sizeof name, "rows-%d", segments);
        vexi_schema schema = {.dimension = DIMENSION,
                              .metric = VEX_METRIC_L2,
                              .index = VEX_INDEX_IVF,
                              .bits = 4,
                              .column_count = 2,
                              .columns = columns};
        CHECK_OK(vexi_lake_create_table(f->writer, vexi_string_of(name), &schema, &err));
        vexi_table *table = table_of(f->writer, name);
        for (int s = 0; s < segments; s++) {
            put(table, s * STEP_ROWS, STEP_ROWS, f->vectors[s * STEP_ROWS]);
            CHECK_OK(vexi_table_flush(table, &err));
        }
        vexi_table_release(table);
    }
}

static fixture shared;

/* The reader of each test is cold. */
static fixture *begin(uint32_t refresh_interval_ms) {
    if (shared.writer == NULL) {
        writer_open(&shared);
        steps_open(&shared);
    }
    reader_open(&shared, refresh_interval_ms);
    return &shared;
}

static void end(fixture *f) {
    CHECK_OK(vexi_lake_close(f->reader, &err));
    CHECK_EQ(atomic_load(&f->keeper.references), 1);
}

static void writer_close(void) {
    CHECK_OK(vexi_lake_close(shared.writer, &err));
}

typedef struct answer {
    struct ArrowSchema schema;
    struct ArrowArray batch;
    vex_search_stats stats;
} answer;

static void answer_release(answer *a) {
    a->schema.release(&a->schema);
    a->batch.release(&a->batch);
}

static vex_status search(fixture *f, vexi_lake *lake, const char *name,
                         const vexi_search_request *request, answer *out, vex_error *err) {
    vexi_table *table = table_of(lake, name);
    vexi_view *view;
    vexi_search_request full = *request;
    full.table = table;
    CHECK(vexi_table_view(table, &view, err) == VEX_OK);
    vex_status status = vexi_asked_resolve(view->schema, NULL, 0, true, &full.asked, err);
    if (status == VEX_OK) {
        status = vexi_search(&f->keeper, view, &full, &out->schema, &out->batch, &out->stats, err);
    }
    vexi_view_release(view);
    vexi_table_release(table);
    return status;
}

static vex_string string_at(const struct ArrowArray *array, int64_t row) {
    const int32_t *offsets = array->buffers[1];
    return (vex_string){(const char *)array->buffers[2] + offsets[row],
                        (size_t)(offsets[row + 1] - offsets[row])};
}

/* Bytes of all buffers of two children are the same. */
static void same_column(const struct ArrowArray *a, const struct ArrowArray *b, size_t value_size) {
    CHECK_EQ(a->length, b->length);
    CHECK_EQ(a->null_count, b->null_count);
    for (int64_t i = 0; i < a->length; i++) {
        if (a->n_buffers == 3) {
            CHECK(vexi_string_equal(string_at(a, i), string_at(b, i)));
        } else {
            const char *x = a->buffers[1], *y = b->buffers[1];
            CHECK(memcmp(x + (size_t)i * value_size, y + (size_t)i * value_size, value_size) == 0);
        }
    }
}

enum { QUERY, ID, DISTANCE, VECTOR, ATTRIBUTES, PAYLOAD, N, S, CHILDREN };

static void same_answers(const answer *a, const answer *b) {
    struct ArrowArray *const *x = a->batch.children, *const *y = b->batch.children;
    CHECK_EQ(a->batch.length, b->batch.length);
    CHECK_EQ(a->batch.n_children, CHILDREN);
    same_column(x[QUERY], y[QUERY], 4);
    same_column(x[ID], y[ID], 0);
    same_column(x[DISTANCE], y[DISTANCE], 8);
    same_column(x[VECTOR]->children[0], y[VECTOR]->children[0], 4);
    same_column(x[ATTRIBUTES], y[ATTRIBUTES], 0);
    same_column(x[N], y[N], 8);
    same_column(x[S], y[S], 0);
}

static bool id_is_among(const answer *a, uint32_t query, vex_string id) {
    for (int64_t i = 0; i < a->batch.length; i++) {
        if (((const uint32_t *)a->batch.children[QUERY]->buffers[1])[i] == query &&
            vexi_string_equal(string_at(a->batch.children[ID], i), id)) {
            return true;
        }
    }
    return false;
}

/* Rows of one answer that the other lacks; without any, all columns are the same. */
static int rows_lost(const answer *a, const answer *b) {
    int lost = 0;
    CHECK_EQ(a->batch.length, b->batch.length);
    for (int64_t i = 0; i < a->batch.length; i++) {
        uint32_t query = ((const uint32_t *)a->batch.children[QUERY]->buffers[1])[i];
        lost += id_is_among(b, query, string_at(a->batch.children[ID], i)) ? 0 : 1;
    }
    if (lost == 0) {
        same_answers(a, b);
    }
    return lost;
}

TEST(searches_are_the_same) {
    fixture *f = begin(0);
    int lost = 0;
    for (int s = 0; s < SHAPES; s++) {
        vexi_search_request requests[] = {
            {.k = K, .exact = true}, {.k = K, .nprobe = 100000}, {.k = 3, .nprobe = 2}, {.k = K}};
        for (size_t r = 0; r < sizeof requests / sizeof *requests; r++) {
            vexi_search_request *request = &requests[r];
            request->queries = f->vectors[17];
            request->query_count = QUERIES;
            bool has_graph = shapes[s].index == VEX_INDEX_HNSW && request->nprobe == 0;
            if (has_graph && !request->exact) {
                continue; /* the writer's is made, and the reader's loaded, in the background */
            }
            answer local, remote;
            CHECK_OK(search(f, f->writer, shapes[s].name, request, &local, &err));
            CHECK_OK(search(f, f->reader, shapes[s].name, request, &remote, &err));
            if (request->exact) {
                same_answers(&local, &remote);
            } else { /* the bounds of codes hold for nearly all rows */
                lost += rows_lost(&local, &remote);
            }
            CHECK_EQ(local.stats.segment_ivf_count, remote.stats.segment_ivf_count);
            answer_release(&local);
            answer_release(&remote);
        }
    }
    CHECK(lost <= 5);
    end(f);
}

TEST(rows_by_id_are_the_same) {
    fixture *f = begin(0);
    for (int s = 0; s < SHAPES; s++) {
        char text[200][16];
        vex_string ids[200];
        answer answers[2];
        for (int i = 0; i < 200; i++) {
            ids[i] =
                (vex_string){text[i], (size_t)snprintf(text[i], sizeof text[i], "row-%d", i * 31)};
        }
        for (int side = 0; side < 2; side++) {
            vexi_table *table = table_of(side == 0 ? f->writer : f->reader, shapes[s].name);
            vexi_view *view;
            vexi_asked asked;
            CHECK_OK(vexi_table_view(table, &view, &err));
            CHECK_EQ(view->live_count, ROWS - ROWS / 50);
            CHECK_OK(vexi_asked_resolve(view->schema, NULL, 0, true, &asked, &err));
            CHECK_OK(vexi_get(&f->keeper, view, ids, 200, &asked, &answers[side].schema,
                              &answers[side].batch, &err));
            vexi_view_release(view);
            vexi_table_release(table);
        }
        struct ArrowArray *const *x = answers[0].batch.children, *const *y =
                                                                     answers[1].batch.children;
        same_column(x[0], y[0], 0);
        same_column(x[1]->children[0], y[1]->children[0], 4);
        same_column(x[4], y[4], 8);
        same_column(x[5], y[5], 0);
        answer_release(&answers[0]);
        answer_release(&answers[1]);
    }
    end(f);
}

/* Without columns unless `all`. */
static vex_search_stats stats_of(fixture *f, const char *name, const vexi_search_request *request,
                                 bool all) {
    uint64_t before = __atomic_load_n(&f->ranges->trip_count, __ATOMIC_RELAXED);
    answer a = {.stats = {0}};
    if (all) {
        CHECK_OK(search(f, f->reader, name, request, &a, &err));
        answer_release(&a);
    } else {
        vexi_table *table = table_of(f->reader, name);
        vexi_view *view;
        CHECK_OK(vexi_table_view(table, &view, &err));
        CHECK_OK(vexi_search(&f->keeper, view, request, NULL, &a.batch, &a.stats, &err));
        a.batch.release(&a.batch);
        vexi_view_release(view);
        vexi_table_release(table);
    }
    /* One query waits for each trip that it makes. */
    CHECK_EQ(a.stats.step_count,
             __atomic_load_n(&f->ranges->trip_count, __ATOMIC_RELAXED) - before);
    CHECK(a.stats.request_count >= a.stats.step_count);
    CHECK((a.stats.request_bytes > 0) == (a.stats.step_count > 0));
    return a.stats;
}

/* A collection is opened in three steps: the names of its commits, the commits, the heads of its
 * segments; of these two go through get_many. */
TEST(a_collection_opens_in_three_steps) {
    fixture *f = begin(0);
    uint64_t trips = __atomic_load_n(&f->ranges->trip_count, __ATOMIC_RELAXED);
    uint64_t requests = __atomic_load_n(&f->ranges->call_count, __ATOMIC_RELAXED);
    printf("    %" PRIu64 " requests, %" PRIu64 " steps of several objects\n", requests, trips);
    CHECK(trips <= 2 * (SHAPES + 2));

    CHECK(requests <= 64); /* no sizes, and each commit and head once */
    end(f);
}

/* However many segments there are: lists, then vectors, ids and asked columns. */
TEST(a_search_takes_two_steps) {
    static const char *const names[] = {"rows-1", "rows-5", "ivf", "ivf-cosine", "flat"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        for (int all = 0; all < 2; all++) {
            fixture *f = begin(0);
            vexi_search_request request = {
                .queries = f->vectors[9], .query_count = 1, .k = K, .recall = 0.95f};
            vex_search_stats cold = stats_of(f, names[n], &request, all != 0);
            request.queries = f->vectors[ROWS - 1];
            vex_search_stats next = stats_of(f, names[n], &request, all != 0);
            printf("    %s%s: %" PRIu64 " steps, %" PRIu64 " requests, %" PRIu64
                   " bytes; then %" PRIu64 ", %" PRIu64 ", %" PRIu64 "\n",
                   names[n], all != 0 ? " with columns" : "", cold.step_count, cold.request_count,
                   cold.request_bytes, next.step_count, next.request_count, next.request_bytes);
            CHECK(cold.step_count <= 2);
            CHECK(next.step_count <= 2);
            CHECK(cold.row_count > 0 && cold.segment_count == (n == 0 ? 1 : n == 1 ? 5 : 2));
            end(f);
        }
    }
}

/* Several queries share the steps. */
TEST(queries_share_steps) {
    fixture *f = begin(0);
    vexi_search_request request = {
        .queries = f->vectors[0], .query_count = QUERIES, .k = K, .recall = 0.95f};
    vexi_table *table = table_of(f->reader, "rows-5");
    vexi_view *view;
    vex_search_stats stats;
    struct ArrowArray batch;
    CHECK_OK(vexi_table_view(table, &view, &err));
    CHECK_OK(vexi_search(&f->keeper, view, &request, NULL, &batch, &stats, &err));
    CHECK(stats.step_count <= 2);
    batch.release(&batch);
    vexi_view_release(view);
    vexi_table_release(table);
    end(f);
}

/* Codes of one bit do not say which rows are near: distances do, some at a time. */
TEST(one_bit_takes_more_steps) {
    fixture *f = begin(0);
    vexi_search_request request = {
        .queries = f->vectors[9], .query_count = 1, .k = K, .recall = 0.95f};
    vex_search_stats stats = stats_of(f, "ivf-ip-1", &request, false);
    CHECK(stats.step_count <= 5);
    end(f);
}

/* ---- What goes wrong ------------------------------------------------------------------------- */

typedef struct failing_env {
    vexi_env env;
    uint64_t count; /* atomic */
    uint64_t fail_at;
} failing_env;

static void *failing_allocate(void *context, size_t alignment, size_t size) {
    failing_env *self = context;
    if (__atomic_add_fetch(&self->count, 1, __ATOMIC_RELAXED) == self->fail_at) {
        return NULL;
    }
    return vex_test_env()->allocate(vex_test_env()->context, alignment, size);
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

/* Each allocation of a search fails once. */
TEST(searches_without_memory) {
    vex_error err;
    fixture *f = begin(0);
    bool failed = true;
    uint64_t n = 1;
    for (; failed; n++) {
        failing_env self = {.env = *vex_test_env(), .fail_at = n};
        self.env.context = &self;
        self.env.allocate = failing_allocate;
        self.env.release = failing_release;
        self.env.parallel = one_by_one;
        vexi_keeper kept = f->keeper;
        f->keeper = (vexi_keeper){.env = &self.env, .destroy = no_destroy};
        atomic_init(&f->keeper.references, 1);
        vexi_search_request request = {
            .queries = f->vectors[9], .query_count = 2, .k = K, .recall = 0.95f};
        answer a;
        vex_status status = search(f, f->reader, "rows-5", &request, &a, &err);
        failed = self.count >= n;
        CHECK(status == VEX_OK || (status == VEX_MEMORY && failed));
        if (status == VEX_OK) {
            CHECK_EQ(a.batch.length, 2 * K);
            answer_release(&a);
        }
        vexi_keeper_clear(&f->keeper);
        f->keeper = kept;
    }
    printf("    %" PRIu64 " allocations\n", n - 1);
    end(f);
}

/* One wrong bit in whatever a search fetches: it is fetched again, nothing
 * wrong is answered, and no segment counts as damaged if it was on the way. */
TEST(wrong_bits_are_noticed) {
    enum { GETS_MAX = 1000 };
    static const char *const names[] = {"rows-5", "flat"};
    int count = 0;
    for (size_t n = 0; n < 2; n++) {
        bool more = true;
        for (int get = 0; more; get++) {
            CHECK(get < GETS_MAX);
            fixture *f = begin(0);
            vexi_search_request request = {
                .queries = f->vectors[9], .query_count = 1, .k = K, .recall = 0.95f};
            answer right, a;
            CHECK_OK(search(f, f->writer, names[n], &request, &right, &err));
            __atomic_store_n(&f->ranges->damage_after, get, __ATOMIC_RELAXED);
            __atomic_store_n(&f->ranges->damages, 1, __ATOMIC_RELAXED);
            CHECK_OK(search(f, f->reader, names[n], &request, &a, &err));
            more = __atomic_load_n(&f->ranges->damages, __ATOMIC_RELAXED) == 0;
            count += more ? 1 : 0;
            CHECK(rows_lost(&right, &a) <= 1);
            CHECK(!more || a.stats.step_count > 1);
            answer_release(&right);
            answer_release(&a);
            vexi_table *table = table_of(f->reader, names[n]);
            vex_collection_info info;
            CHECK_OK(vexi_table_describe(table, &info, &err));
            CHECK_EQ(info.damaged_segment_count, 0);
            CHECK_EQ(info.unindexed_segment_count, 0);
            vexi_table_release(table);
            end(f);
        }
    }
    printf("    %d gets with a wrong bit\n", count);
    CHECK(count > 12);
}

TEST(a_store_that_is_away_damages_nothing) {
    fixture *f = begin(0);
    vexi_search_request request = {.queries = f->vectors[9], .query_count = 1, .k = K};
    answer a;
    __atomic_store_n(&f->ranges->fails, 1, __ATOMIC_RELAXED);
    for (int s = 0; s < SHAPES; s++) {
        CHECK_FAILS(VEX_IO, search(f, f->reader, shapes[s].name, &request, &a, &err));
    }
    __atomic_store_n(&f->ranges->fails, 0, __ATOMIC_RELAXED);
    for (int s = 0; s < SHAPES; s++) {
        CHECK_OK(search(f, f->reader, shapes[s].name, &request, &a, &err));
        CHECK_EQ(a.batch.length, K);
        answer_release(&a);
        vexi_table *table = table_of(f->reader, shapes[s].name);
        vex_collection_info info;
        CHECK_OK(vexi_table_describe(table, &info, &err));
        CHECK_EQ(info.damaged_segment_count, 0);
        CHECK_EQ(info.unindexed_segment_count, 0);
        vexi_table_release(table);
    }
    end(f);
}

TEST(ids_are_found_in_few_steps) {
    fixture *f = begin(0);
    vexi_table *table = table_of(f->reader, "rows-5");
    vexi_view *view;
    vexi_asked asked;
    static const vex_string ids[] = {{"row-7", 5}, {"row-650", 7}, {"row-2500", 8}, {"none", 4}};
    CHECK_OK(vexi_table_view(table, &view, &err));
    CHECK_OK(vexi_asked_resolve(view->schema, NULL, 0, true, &asked, &err));
    uint64_t before = __atomic_load_n(&f->ranges->trip_count, __ATOMIC_RELAXED);
    struct ArrowArray batch;
    CHECK_OK(vexi_get(&f->keeper, view, ids, 4, &asked, NULL, &batch, &err));
    uint64_t trips = __atomic_load_n(&f->ranges->trip_count, __ATOMIC_RELAXED) - before;
    /* Slots, places, ids; then of each of three segments, side by side, vectors and pages. */
    CHECK(trips <= 3 + 3 * 2);
    CHECK_EQ(batch.length, 4);
    CHECK_EQ(batch.children[0]->null_count, 1);
    batch.release(&batch);
    vexi_view_release(view);
    vexi_search_request request = {.query_ids = ids, .query_count = 1, .k = K, .recall = 0.95f};
    CHECK(stats_of(f, "rows-5", &request, false).step_count <= 1 + 2);
    vexi_table_release(table);
    end(f);
}

/* Each request of a search fails once: the search fails, or does without it, and the next is well.
 */
TEST(requests_fail_one_by_one) {
    static const char *const names[] = {"rows-5", "flat", "ivf-ip-1"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        bool more = true;
        int count = 0;
        for (int at = 1; more; at++) {
            fixture *f = begin(0);
            vexi_search_request request = {
                .queries = f->vectors[9], .query_count = 1, .k = K, .recall = 0.95f};
            answer a;
            vex_error problem;
            __atomic_store_n(&f->ranges->fail_at, at, __ATOMIC_RELAXED);
            vex_status status = search(f, f->reader, names[n], &request, &a, &problem);
            more = __atomic_exchange_n(&f->ranges->fail_at, 0, __ATOMIC_RELAXED) == 0;
            CHECK(status == VEX_OK || (status == VEX_IO && more));
            if (status == VEX_OK) {
                answer_release(&a);
            } else {
                CHECK(strstr(problem.message, "store unavailable") != NULL);
                CHECK_OK(search(f, f->reader, names[n], &request, &a, &err));
                answer_release(&a);
                count++;
            }
            end(f);
        }
        CHECK(count > 1);
    }
}

TEST(a_wrong_bit_on_the_way_is_read_again) {
    fixture *f = begin(0);
    vexi_search_request request = {.queries = f->vectors[9], .query_count = 1, .k = K};
    answer a;
    __atomic_store_n(&f->ranges->damages, 1, __ATOMIC_RELAXED); /* of the lists' codes */
    CHECK_OK(search(f, f->reader, "ivf", &request, &a, &err));
    CHECK_EQ(__atomic_load_n(&f->ranges->damages, __ATOMIC_RELAXED), 0);
    answer_release(&a);
    end(f);
}

TEST(checking_reads_everything) {
    fixture *f = begin(0);
    for (int s = 0; s < SHAPES; s++) {
        vexi_table *table = table_of(f->reader, shapes[s].name);
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_finding *findings = NULL;
        size_t count = 0;
        uint64_t object_count = 0;
        CHECK_OK(vexi_table_verify(table, &arena, &findings, &count, &object_count, &err));
        CHECK_EQ(count, 0);
        CHECK(object_count >= 4);
        vexi_arena_deinit(&arena);
        vexi_table_release(table);
    }
    end(f);
}

TEST(commits_are_followed) {
    fixture *f = begin(20);
    vexi_table *table = table_of(f->writer, "ivf");
    float far[DIMENSION] = {1000};
    put(table, ROWS, 1, far);
    CHECK_OK(vexi_table_flush(table, &err));
    vexi_table_release(table);
    vexi_search_request request = {.queries = far, .query_count = 1, .k = 1};
    for (int i = 0; i < 3000; i++) {
        answer a;
        CHECK_OK(search(f, f->reader, "ivf", &request, &a, &err));
        bool there = vexi_string_is(string_at(a.batch.children[ID], 0), "row-3000");
        answer_release(&a);
        if (there) {
            end(f);
            return;
        }
        (void)usleep(10000);
    }
    CHECK(false); /* never seen */
}

TEST_MAIN(RUN(searches_are_the_same); RUN(rows_by_id_are_the_same);
          RUN(a_collection_opens_in_three_steps); RUN(a_search_takes_two_steps);
          RUN(queries_share_steps); RUN(one_bit_takes_more_steps); RUN(searches_without_memory);
          RUN(wrong_bits_are_noticed); RUN(a_store_that_is_away_damages_nothing);
          RUN(ids_are_found_in_few_steps); RUN(requests_fail_one_by_one);
          RUN(a_wrong_bit_on_the_way_is_read_again); RUN(checking_reads_everything);
          RUN(commits_are_followed); writer_close())
