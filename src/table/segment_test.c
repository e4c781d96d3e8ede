/* Segments by themselves: built from rows, opened, read by row and by list, damaged, opened plain.
 */
#include "check.h"

#include <math.h>

#include "base/checksum.h"
#include "index/ivf.h"
#include "table/segment_internal.h"
#include "table/table_internal.h"

enum { ROWS = 1500, DIMENSION = 20 };

/* A lake in memory with one table, and rows for its segments. */
typedef struct fixture {
    vexi_lake *lake;
    vexi_table *table;
    vexi_store *store; /* the lake's */
    vexi_arena arena;
    vexi_row rows[ROWS];
    const vexi_row *pointers[ROWS];
    float vectors[ROWS][DIMENSION];
    char ids[ROWS][16];
    commit_segment built;
} fixture;

static void fixture_init(fixture *f, vex_metric metric, vex_index_kind index, uint32_t bits) {
    vexi_lake_config config = {
        .durability = VEX_DURABILITY_ALWAYS,
        .sync_interval_ms = 10,
        .flush_interval_ms = 300000,
        .flush_size_bytes = 64 << 20,
        .memory_limit_bytes = 1 << 30,
        .segment_size_bytes = 64 << 20,
        .log_size_bytes = 64 << 20,
    };
    *f = (fixture){.lake = NULL};
    CHECK_OK(vexi_store_mem_create(vex_test_env(), &f->store, &err));
    CHECK_OK(vexi_lake_open(vex_test_env(), f->store, &config, &f->lake, &err));
    vexi_schema schema = {.dimension = DIMENSION, .metric = metric, .index = index, .bits = bits};
    CHECK_OK(vexi_lake_create_table(f->lake, vexi_string_of("c"), &schema, &err));
    CHECK_OK(vexi_lake_table(f->lake, vexi_string_of("c"), &f->table, &err));
    vexi_arena_init(&f->arena, vex_test_env());
    uint64_t seed = 7 + bits;
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t j = 0; j < DIMENSION; j++) {
            /* Some forty clouds. */
            f->vectors[i][j] = vex_test_normal(&seed) * 0.3f + (float)((i * 7 + j) % 41) / 10;
        }
        snprintf(f->ids[i], sizeof f->ids[i], "row-%zu", i);
        f->rows[i] = (vexi_row){.id = vexi_string_of(f->ids[i]), .vector = f->vectors[i]};
        f->pointers[i] = &f->rows[i];
    }
}

static void fixture_build(fixture *f) {
    CHECK_OK(segment_build(f->table, f->pointers, ROWS, &f->built, &f->arena, &err));
}

static void fixture_deinit(fixture *f) {
    vexi_segment_release(f->built.segment);
    vexi_arena_deinit(&f->arena);
    vexi_table_release(f->table);
    CHECK_OK(vexi_lake_close(f->lake, &err));
}

/* Open the built segment anew. */
static vexi_segment *reopen(fixture *f, bool plain) {
    vexi_segment *segment;
    if (plain) {
        CHECK_OK(vexi_segment_open_plain(f->table->core, f->table->schema, f->table->folder,
                                         &f->built.add, &segment, &err));
    } else {
        CHECK_OK(vexi_segment_open(f->table->core, f->table->schema, f->table->folder,
                                   &f->built.add, NULL, &segment, &err));
    }
    return segment;
}

/* Change a byte of an object for as long as nobody maps it. */
static void flip(fixture *f, const char *name, uint64_t offset) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_span bytes;
    CHECK_OK(vexi_store_get_all(f->store, name, 1 << 30, &arena, &bytes, &err));
    CHECK(offset < bytes.size);
    ((uint8_t *)(uintptr_t)bytes.data)[offset] ^= 0x10;
    CHECK_OK(vexi_store_put(f->store, name, &bytes, 1, &err));
    vexi_arena_deinit(&arena);
}

/* A store that cannot map: reads go by ranges into the arena. */
static vexi_store_ops unmappable;
static void forbid_mapping(fixture *f) {
    unmappable = *f->store->ops;
    unmappable.flags &= ~(uint32_t)VEXI_STORE_CAN_MAP;
    unmappable.map = NULL;
    f->store->ops = &unmappable;
}

/* Every row is found under its id, and its vector is the given one, read alone and among others. */
static void check_rows(fixture *f, vexi_segment *segment) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(vexi_segment_check(segment, &err));
    CHECK_EQ(vexi_segment_row_count(segment), ROWS);
    uint64_t rows[ROWS];
    const uint8_t *vectors[ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        bool found;
        vex_string id = f->rows[i].id;
        CHECK_OK(
            vexi_segment_find(segment, id, vexi_hash64(id.data, id.size), &found, &rows[i], &err));
        CHECK(found);
        vex_string again;
        CHECK_OK(vexi_segment_id(segment, rows[i], &again, &err));
        CHECK(vexi_string_equal(again, id));
        if (i % 100 == 0) {
            CHECK_OK(vexi_segment_vectors(segment, &rows[i], 1, &arena, vectors, NULL, &err));
            CHECK(memcmp(vectors[0], f->vectors[i], sizeof f->vectors[i]) == 0);
        }
    }
    for (int pass = 0; pass < 2; pass++) { /* the second finds all checked */
        CHECK_OK(vexi_segment_vectors(segment, rows, ROWS, &arena, vectors, NULL, &err));
        for (size_t i = 0; i < ROWS; i++) {
            CHECK(memcmp(vectors[i], f->vectors[i], sizeof f->vectors[i]) == 0);
        }
        vexi_row_range ranges[] = {{0, 1}, {63, 2}, {100, 0}, {64, 64}, {1, ROWS - 1}};
        vexi_run *runs;
        size_t run_count;
        CHECK_OK(vexi_segment_runs(segment, ranges, 5, &arena, &runs, &run_count, NULL, &err));
        uint64_t count = 0;
        for (size_t i = 0; i < run_count; i++) {
            count += runs[i].count;
        }
        CHECK_EQ(count, 1 + 2 + 64 + ROWS - 1);
    }
    CHECK_OK(vexi_segment_vectors(segment, rows, 0, &arena, vectors, NULL, &err));
    vexi_arena_deinit(&arena);
}

TEST(vectors_by_number) {
    for (int mapped = 0; mapped < 2; mapped++) {
        for (unsigned metric = 0; metric < 3; metric++) {
            fixture f;
            fixture_init(&f, (vex_metric)metric, metric == 1 ? VEX_INDEX_FLAT : VEX_INDEX_IVF, 0);
            if (mapped == 0) {
                forbid_mapping(&f);
            }
            fixture_build(&f);
            CHECK(vexi_segment_index_kind(f.built.segment) ==
                  (metric == 1 ? VEX_INDEX_FLAT : VEX_INDEX_IVF));
            CHECK(!vexi_segment_is_foreign(f.built.segment));
            check_rows(&f, f.built.segment);
            vexi_segment *plain = reopen(&f, true);
            CHECK(vexi_segment_is_foreign(plain));
            CHECK(vexi_segment_index_kind(plain) == VEX_INDEX_AUTO);
            check_rows(&f, plain);
            /* Plain or not, a row has one number. */
            for (uint64_t row = 0; row < ROWS; row += 97) {
                vex_string a, b;
                CHECK_OK(vexi_segment_id(f.built.segment, row, &a, &err));
                CHECK_OK(vexi_segment_id(plain, row, &b, &err));
                CHECK(vexi_string_equal(a, b));
            }
            vexi_segment_release(plain);
            fixture_deinit(&f);
        }
    }
}

/* ---- Codes ----------------------------------------------------------------------------------- */

/* Scan all lists for a row of the segment: nearly every row's lower bound is one. */
static void check_bounds(fixture *f, vex_metric metric, uint32_t bits) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    const vexi_index_file *index = vexi_segment_ivf(f->built.segment);
    const float *values = f->vectors[31];
    vexi_code_layout layout = vexi_code_layout_of(metric, DIMENSION, bits);
    vexi_code_query query;
    CHECK_OK(vexi_code_query_init(&query, &layout, &f->table->schema->rotation, values,
                                  index->origin, index->row_length, &arena, &err));
    vexi_code_pool pool;
    CHECK_OK(vexi_code_pool_init(&pool, ROWS, INFINITY, &arena, &err));
    uint32_t seen = 0;
    for (uint32_t list = 0; list < index->list_count; list++) {
        const uint8_t *bytes;
        CHECK_OK(vexi_segment_lists(f->built.segment, &list, 1, &arena, &bytes, NULL, &err));
        uint32_t count = index->list_first[list + 1] - index->list_first[list];
        size_t blocks = (count + VEXI_CODE_BLOCK_ROWS - 1) / VEXI_CODE_BLOCK_ROWS;
        CHECK_EQ(index->code_offsets[list + 1] - index->code_offsets[list],
                 vexi_code_list_size(&layout, count));
        vexi_code_list codes = {.blocks = bytes,
                                .records = bits == 1 ? NULL : bytes + blocks * layout.block_size,
                                .row_count = count,
                                .first_row = index->list_first[list],
                                .error = index->code_errors[2 * list],
                                .record_error = index->code_errors[2 * list + 1]};
        /* |values - centre|^2 */
        double square = 0;
        for (size_t j = 0; j < DIMENSION; j++) {
            double difference =
                (double)query.values[j] - (double)index->centroids[list * DIMENSION + j];
            square += difference * difference;
        }
        CHECK_OK(vexi_code_pool_reserve(&pool, count, &arena, &err));
        vexi_code_scan(&query, &codes, (float)square, NULL, &pool);
        seen += count;
    }
    CHECK_EQ(seen, ROWS);
    CHECK_EQ(pool.count, ROWS);
    uint32_t above = 0;
    for (uint32_t i = 0; i < pool.count; i++) {
        uint64_t row = pool.items[i].row;
        const uint8_t *vector;
        CHECK_OK(vexi_segment_vectors(f->built.segment, &row, 1, &arena, &vector, NULL, &err));
        double distance = vexi_distance(metric, values, vector, DIMENSION) * (double)query.to_scan;
        above += (double)pool.items[i].bound > distance + 1e-3;
    }
    /* The bound holds for all but a few in a hundred, whatever the rotation. */
    CHECK(above <= ROWS / 20);
    vexi_arena_deinit(&arena);
}

TEST(codes_of_a_segment) {
    static const uint32_t bits[] = {1, 4, 8};
    for (unsigned metric = 0; metric < 3; metric++) {
        for (size_t b = 0; b < 3; b++) {
            fixture f;
            fixture_init(&f, (vex_metric)metric, VEX_INDEX_IVF, bits[b]);
            fixture_build(&f);
            const vexi_index_file *index = vexi_segment_ivf(f.built.segment);
            CHECK(index != NULL);
            CHECK_EQ(index->code_bits, bits[b]);
            CHECK_EQ(index->code_padded, 64);
            CHECK(index->rotation_seed == f.table->schema->schema.rotation_seed);
            vexi_code_layout layout = vexi_code_layout_of((vex_metric)metric, DIMENSION, bits[b]);
            uint64_t offsets[ROWS + 1];
            vexi_ivf_code_offsets(&layout, index->list_first, index->list_count, offsets);
            CHECK(memcmp(offsets, index->code_offsets,
                         (index->list_count + (size_t)1) * sizeof *offsets) == 0);
            /* Nothing lower than one list reaches a recall, and all lists reach any. */
            const uint32_t *efforts = index->calibration;
            for (size_t i = 0; i < VEXI_INDEX_CALIBRATION_COUNT; i++) {
                CHECK(efforts[i] <= index->list_count);
            }
            CHECK(efforts[0] >= 1);
            check_bounds(&f, (vex_metric)metric, bits[b]);
            fixture_deinit(&f);
        }
    }
}

TEST(lists_together_and_again) {
    fixture f;
    fixture_init(&f, VEX_METRIC_L2, VEX_INDEX_IVF, 4);
    fixture_build(&f);
    vexi_segment *segment = f.built.segment;
    const vexi_index_file *index = vexi_segment_ivf(segment);
    CHECK(index->list_count >= 3);
    uint32_t lists[] = {0, 2, index->list_count - 1};
    const uint8_t *bytes[3];
    for (int pass = 0; pass < 2; pass++) {
        CHECK_OK(vexi_segment_lists(segment, lists, 3, &f.arena, bytes, NULL, &err));
        for (size_t i = 0; i < 3; i++) {
            CHECK(bytes[i] ==
                  index->bytes.data + index->codes_offset + index->code_offsets[lists[i]]);
        }
    }
    CHECK_OK(vexi_segment_lists(segment, lists, 0, &f.arena, bytes, NULL, &err));
    fixture_deinit(&f);
}

/* A flat segment has none, and a segment whose codes are of another rotation is read without. */
TEST(segments_without_codes) {
    fixture f;
    fixture_init(&f, VEX_METRIC_L2, VEX_INDEX_FLAT, 4);
    fixture_build(&f);
    CHECK(vexi_segment_ivf(f.built.segment) == NULL);
    fixture_deinit(&f);

    fixture_init(&f, VEX_METRIC_L2, VEX_INDEX_IVF, 4);
    fixture_build(&f);
    vexi_schema other = f.table->schema->schema;
    other.rotation_seed ^= 1;
    vexi_schema_box *box;
    CHECK_OK(vexi_schema_box_create(vex_test_env(), &other, &box, &err));
    vexi_segment *segment;
    CHECK_OK(
        vexi_segment_open(f.table->core, box, f.table->folder, &f.built.add, NULL, &segment, &err));
    CHECK_EQ(vexi_segment_ivf(segment)->code_bits, 0);
    check_rows(&f, segment);
    vexi_segment_release(segment);
    vexi_schema_box_release(box);
    fixture_deinit(&f);
}

/* ---- Damage ---------------------------------------------------------------------------------- */

/* Of the vectors: no index mends that. */
TEST(a_damaged_vector) {
    fixture f;
    fixture_init(&f, VEX_METRIC_L2, VEX_INDEX_IVF, 4);
    fixture_build(&f);
    uint64_t offset = f.built.segment->index.layout.row_groups[0].vector_offset + 4 * DIMENSION + 5;
    char name[256];
    snprintf(name, sizeof name, "%s", vexi_segment_object_name(f.built.segment));
    vexi_segment_release(f.built.segment);
    flip(&f, name, offset);
    f.built.segment = reopen(&f, false);
    uint64_t rows[] = {0, 2, 1};
    const uint8_t *vectors[3];
    CHECK_OK(vexi_segment_vectors(f.built.segment, rows, 2, &f.arena, vectors, NULL, &err));
    CHECK_FAILS(VEX_CORRUPT,
                vexi_segment_vectors(f.built.segment, rows, 3, &f.arena, vectors, NULL, &err));
    CHECK(!vexi_segment_index_damaged(f.built.segment));
    vexi_row_range range = {0, 3};
    vexi_run *runs;
    size_t run_count;
    CHECK_FAILS(VEX_CORRUPT, vexi_segment_runs(f.built.segment, &range, 1, &f.arena, &runs,
                                               &run_count, NULL, &err));
    /* The page's own checksum tells it too. */
    vexi_segment *plain = reopen(&f, true);
    CHECK_FAILS(VEX_CORRUPT, vexi_segment_check(plain, &err));
    vexi_segment_release(plain);
    fixture_deinit(&f);
}

/* Of the index file, in its codes, its ids and its head: the segment says so, and its rows are all
 * there when it is opened plain. */
TEST(a_damaged_index) {
    for (int where = 0; where < 4; where++) {
        fixture f;
        fixture_init(&f, VEX_METRIC_L2, VEX_INDEX_IVF, 4);
        fixture_build(&f);
        const vexi_index_file *index = &f.built.segment->index;
        uint64_t offset = where == 0   ? index->codes_offset + 100
                          : where == 1 ? index->ids_offset + 3
                                       : 70;
        char name[256];
        snprintf(name, sizeof name, "%s", f.built.segment->index_object.name);
        vexi_segment_release(f.built.segment);
        if (where == 3) {
            CHECK_OK(vexi_store_remove(f.store, name, &err));
        } else {
            flip(&f, name, offset);
        }
        f.built.segment = reopen(&f, false);
        uint32_t list = 0;
        const uint8_t *bytes;
        vex_string id;
        CHECK(vexi_segment_index_damaged(f.built.segment) == (where >= 2));
        vex_status status =
            where == 0 ? vexi_segment_lists(f.built.segment, &list, 1, &f.arena, &bytes, NULL, NULL)
            : where == 1 ? vexi_segment_id(f.built.segment, 0, &id, NULL)
                         : vexi_segment_check(f.built.segment, NULL);
        CHECK(status == (where == 3 ? VEX_NOT_FOUND : VEX_CORRUPT));
        CHECK(vexi_segment_index_damaged(f.built.segment));
        vexi_segment *plain = reopen(&f, true);
        check_rows(&f, plain);
        CHECK(!vexi_segment_index_damaged(plain));
        vexi_segment_release(plain);
        fixture_deinit(&f);
    }
}

/* Plain, but with fewer rows than the log tells: its deletion vector would hide others. */
TEST(a_plain_segment_of_other_rows) {
    fixture f;
    fixture_init(&f, VEX_METRIC_L2, VEX_INDEX_IVF, 4);
    fixture_build(&f);
    f.built.add.row_count++;
    vexi_segment *plain = reopen(&f, true);
    CHECK_FAILS(VEX_CORRUPT, vexi_segment_check(plain, &err));
    vexi_segment_release(plain);
    f.built.add.row_count--;
    fixture_deinit(&f);
}

/* ---- Builds that end early ------------------------------------------------------------------- */

typedef struct stopper {
    int calls;
    int stop_at;
    double last;
} stopper;

static vex_status stop_step(void *context, double share, vex_error *err) {
    stopper *s = context;
    CHECK(share >= s->last && share <= 1);
    s->last = share;
    return ++s->calls == s->stop_at ? vexi_fail(err, VEX_CANCELLED, "stopped") : VEX_OK;
}

static size_t object_count(fixture *f, const char *prefix) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_OK(vexi_store_list(f->store, prefix, NULL, false, &arena, &listing, &err));
    size_t count = listing.count;
    vexi_arena_deinit(&arena);
    return count;
}

/* Wherever it is stopped, no file stays. */
TEST(a_stopped_build_leaves_nothing) {
    fixture f;
    fixture_init(&f, VEX_METRIC_L2, VEX_INDEX_IVF, 4);
    size_t before = object_count(&f, "c/");
    int steps = 0;
    for (int stop_at = 1;; stop_at++) {
        stopper s = {.stop_at = stop_at};
        segment_hooks hooks = {.step = stop_step, .context = &s};
        vex_error error;
        vex_status status =
            segment_build_with(f.table, f.pointers, ROWS, &hooks, &f.built, &f.arena, &error);
        if (status == VEX_OK) {
            CHECK(s.last == 1.0);
            steps = s.calls;
            break;
        }
        CHECK(status == VEX_CANCELLED);
        CHECK(f.built.segment == NULL);
        CHECK_EQ(object_count(&f, "c/"), before);
    }
    CHECK(steps >= 4);
    CHECK_EQ(object_count(&f, "c/"), before + 2);
    check_rows(&f, f.built.segment);
    segment_discard(f.table, &f.built);
    CHECK_EQ(object_count(&f, "c/"), before);
    fixture_deinit(&f);
}

TEST_MAIN(RUN(vectors_by_number); RUN(codes_of_a_segment); RUN(lists_together_and_again);
          RUN(segments_without_codes); RUN(a_damaged_vector); RUN(a_damaged_index);
          RUN(a_plain_segment_of_other_rows); RUN(a_stopped_build_leaves_nothing))
