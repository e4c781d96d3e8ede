/* Imports: segments of the size that was asked for, of rows with one id the later, and an end when
 * it is asked for, also while a segment is indexed. */
#include "check.h"

#include <unistd.h>

#include "table/table_internal.h"

enum { ROWS = 9000, DIMENSION = 12 };

/* The test's environment: the real one, but each parallel step is seen. */
static vexi_env env;
static vex_progress progress;
static uint64_t steps;       /* parallel steps so far */
static uint64_t cancel_step; /* the step at which `cancel` is set; 0: none */
static uint64_t seen_rows[3];

static void watch_parallel(void *context, size_t count, void (*function)(void *, size_t),
                           void *argument) {
    uint32_t phase = __atomic_load_n(&progress.phase, __ATOMIC_RELAXED);
    uint64_t rows = __atomic_load_n(&progress.rows_done, __ATOMIC_RELAXED);
    CHECK(phase < 3);
    CHECK(rows >= seen_rows[phase]); /* a phase never goes back */
    seen_rows[phase] = rows;
    if (++steps == cancel_step) {
        __atomic_store_n(&progress.cancel, 1, __ATOMIC_RELAXED);
    }
    vex_test_env()->parallel(context, count, function, argument);
}

typedef struct fixture {
    vexi_lake *lake;
    vexi_store *store; /* the lake's */
    char folder[32];
    char path[64];
    float (*vectors)[DIMENSION]; /* what the file holds */
    vex_import_options options;
} fixture;

static void fixture_init(fixture *f) {
    vexi_lake_config config = {
        .durability = VEX_DURABILITY_ALWAYS,
        .sync_interval_ms = 10,
        .flush_interval_ms = 300000,
        .flush_size_bytes = 64 << 20,
        .memory_limit_bytes = 1 << 30,
        .segment_size_bytes = 64 << 20,
        .log_size_bytes = 64 << 20,
    };
    *f = (fixture){.folder = "/tmp/vexlake-import-XXXXXX"};
    env = *vex_test_env();
    env.parallel = watch_parallel;
    progress = (vex_progress){0};
    steps = cancel_step = 0;
    memset(seen_rows, 0, sizeof seen_rows);
    CHECK_OK(vexi_store_mem_create(&env, &f->store, &err));
    CHECK_OK(vexi_lake_open(&env, f->store, &config, &f->lake, &err));
    CHECK(mkdtemp(f->folder) != NULL);
    snprintf(f->path, sizeof f->path, "%s/rows.fvecs", f->folder);
    f->vectors = malloc(sizeof(float[ROWS][DIMENSION]));
    FILE *file = fopen(f->path, "wb");
    CHECK(f->vectors != NULL && file != NULL);
    uint64_t seed = 3;
    for (size_t i = 0; i < ROWS; i++) {
        uint32_t dimension = DIMENSION;
        for (size_t j = 0; j < DIMENSION; j++) {
            f->vectors[i][j] = vex_test_normal(&seed);
        }
        CHECK(fwrite(&dimension, sizeof dimension, 1, file) == 1);
        CHECK(fwrite(f->vectors[i], sizeof f->vectors[i], 1, file) == 1);
    }
    CHECK(fclose(file) == 0);
    f->options = (vex_import_options){
        .size = sizeof f->options, .index = VEX_INDEX_IVF, .progress = &progress};
}

static void fixture_deinit(fixture *f) {
    CHECK(unlink(f->path) == 0 && rmdir(f->folder) == 0);
    free(f->vectors);
    CHECK_OK(vexi_lake_close(f->lake, &err));
}

static vex_status import(fixture *f, uint64_t *rows, vex_error *error) {
    const char *path = f->path;
    return vexi_lake_import(f->lake, vexi_string_of("c"), &path, 1, &f->options, rows, error);
}

/* Every row once, with its vector. */
static void check_rows(fixture *f, size_t segments) {
    vexi_table *table;
    vexi_view *view;
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(vexi_lake_table(f->lake, vexi_string_of("c"), &table, &err));
    CHECK_OK(vexi_table_view(table, &view, &err));
    CHECK_EQ(view->live_count, ROWS);
    CHECK_EQ(view->source_count, segments);
    for (size_t i = 0; i < ROWS; i += 7) {
        char id[16];
        bool found;
        uint32_t source;
        uint64_t row;
        const uint8_t *vector;
        snprintf(id, sizeof id, "%zu", i);
        CHECK_OK(vexi_view_find(view, vexi_string_of(id), &found, &source, &row, &err));
        CHECK(found);
        CHECK_OK(vexi_segment_vectors(view->sources[source].segment, &row, 1, &arena, &vector, NULL,
                                      &err));
        CHECK(memcmp(vector, f->vectors[i], sizeof f->vectors[i]) == 0);
    }
    vexi_view_release(view);
    vexi_table_release(table);
    vexi_arena_deinit(&arena);
}

TEST(segments_of_a_size) {
    /* A row takes its vector, its struct and its id. */
    static const struct {
        uint64_t size;
        size_t least, most;
    } cases[] = {{0, 1, 1}, {UINT64_C(16) << 30, 1, 1}, {400000, 2, 5}, {100000, 8, 20}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        fixture_init(&f);
        f.options.segment_size_bytes = cases[i].size;
        uint64_t rows;
        CHECK_OK(import(&f, &rows, &err));
        CHECK_EQ(rows, ROWS);
        CHECK_EQ(progress.phase, 2);
        CHECK_EQ(progress.rows_done, ROWS);
        CHECK_EQ(progress.rows_total, ROWS);
        CHECK(seen_rows[1] > 0); /* indexing told of its rows before it was done */
        vexi_table *table;
        vex_collection_info *info = malloc(sizeof *info);
        CHECK(info != NULL);
        CHECK_OK(vexi_lake_table(f.lake, vexi_string_of("c"), &table, &err));
        CHECK_OK(vexi_table_describe(table, info, &err));
        CHECK(info->segment_count >= cases[i].least && info->segment_count <= cases[i].most);
        check_rows(&f, (size_t)info->segment_count);
        /* Again: each row replaces itself. */
        memset(seen_rows, 0, sizeof seen_rows);
        CHECK_OK(import(&f, &rows, &err));
        CHECK_OK(vexi_table_describe(table, info, &err));
        CHECK_EQ(info->row_count, ROWS);
        vexi_table_release(table);
        free(info);
        fixture_deinit(&f);
    }
}

TEST(settings_of_a_collection_that_is_made) {
    fixture f;
    fixture_init(&f);
    f.options.recall = 0.875f;
    f.options.bits = 8;
    f.options.metric = VEX_METRIC_COSINE;
    uint64_t rows;
    CHECK_OK(import(&f, &rows, &err));
    vexi_table *table;
    vexi_view *view;
    CHECK_OK(vexi_lake_table(f.lake, vexi_string_of("c"), &table, &err));
    const vexi_schema *schema = vexi_table_schema(table);
    CHECK(schema->recall == 0.875f && schema->bits == 8 && schema->rotation_seed != 0);
    CHECK(schema->metric == VEX_METRIC_COSINE && schema->index == VEX_INDEX_IVF);
    CHECK_OK(vexi_table_view(table, &view, &err));
    const vexi_index_file *index = vexi_source_ivf(&view->sources[0]);
    CHECK(index != NULL && index->code_bits == 8);
    CHECK(index->rotation_seed == schema->rotation_seed && index->row_length == 1.0f);
    vexi_view_release(view);
    vexi_table_release(table);
    fixture_deinit(&f);
}

TEST(too_large_a_segment) {
    fixture f;
    fixture_init(&f);
    f.options.segment_size_bytes = (UINT64_C(16) << 30) + 1;
    uint64_t rows = 5;
    CHECK_FAILS(VEX_INVALID, import(&f, &rows, &err));
    CHECK_EQ(rows, 0);
    f.options.segment_size_bytes = 0;
    f.options.bits = 2;
    CHECK_FAILS(VEX_INVALID, import(&f, &rows, &err));
    f.options.bits = 0;
    f.options.recall = 1.5f;
    CHECK_FAILS(VEX_INVALID, import(&f, &rows, &err));
    fixture_deinit(&f);
}

/* Segments' objects that lie in the lake. */
static size_t file_count(fixture *f) {
    vexi_arena arena;
    vexi_listing listing;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(vexi_store_list(f->store, "c/", NULL, false, &arena, &listing, &err));
    size_t count = 0;
    for (size_t i = 0; i < listing.count; i++) {
        const char *name = listing.entries[i].name;
        size_t size = strlen(name);
        count +=
            size > 4 && (strcmp(name + size - 4, ".bin") == 0 || strstr(name, ".parquet") != NULL);
    }
    vexi_arena_deinit(&arena);
    return count;
}

/* Whenever it is cancelled, nothing is there afterwards and the same import works. */
TEST(cancelled_at_any_step) {
    uint64_t count = 0;
    uint64_t cancelled_indexing = 0;
    for (uint64_t step = 1;; step += 1 + step / 4) {
        fixture f;
        fixture_init(&f);
        f.options.segment_size_bytes = 400000;
        cancel_step = step;
        uint64_t rows;
        vex_error error;
        vex_status status = import(&f, &rows, &error);
        if (status == VEX_OK) { /* it was behind the last question */
            CHECK_EQ(rows, ROWS);
            fixture_deinit(&f);
            break;
        }
        CHECK(status == VEX_CANCELLED);
        CHECK_EQ(rows, 0);
        cancelled_indexing += progress.phase == 1;
        CHECK_EQ(file_count(&f), 0);
        vexi_table *table;
        CHECK_FAILS(VEX_NOT_FOUND, vexi_lake_table(f.lake, vexi_string_of("c"), &table, &err));
        progress.cancel = 0;
        cancel_step = 0;
        memset(seen_rows, 0, sizeof seen_rows);
        if (step % 3 == 1) {
            CHECK_OK(import(&f, &rows, &err));
            CHECK_EQ(rows, ROWS);
        }
        fixture_deinit(&f);
        count++;
    }
    CHECK(count >= 5 && cancelled_indexing >= 3);
}

TEST_MAIN(RUN(segments_of_a_size); RUN(settings_of_a_collection_that_is_made);
          RUN(too_large_a_segment); RUN(cancelled_at_any_step))
