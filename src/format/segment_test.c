/* Segments: what is written is decoded again, row by row, through the layout alone; other shapes
 * of it (pieces, foreign layouts) agree; damage is found. */
#include "check.h"

#include "base/checksum.h"
#include "format/segment_file.h"

enum { LIMIT = 256 << 20 };

/* A random table of rows in one arena. */
typedef struct table {
    vexi_schema schema;
    vexi_row *rows;
    const vexi_row **pointers;
    size_t row_count;
    vexi_arena arena;
} table;

static const vexi_schema_column ALL_COLUMNS[] = {
    {{"number", 6}, VEX_TYPE_INT64},   {{"real", 4}, VEX_TYPE_DOUBLE},
    {{"text", 4}, VEX_TYPE_STRING},    {{"flag", 4}, VEX_TYPE_BOOL},
    {{"time", 4}, VEX_TYPE_TIMESTAMP}, {{"a.b \xc3\xa4\"", 7}, VEX_TYPE_STRING},
};

static vex_string random_string(table *t, uint64_t *seed, size_t size_max) {
    size_t size = vex_test_below(seed, size_max + 1);
    char *data = vexi_arena_alloc(&t->arena, size + 1);
    CHECK(data != NULL);
    for (size_t i = 0; i < size; i++) {
        data[i] = (char)('a' + vex_test_below(seed, 26));
    }
    data[size] = '\0';
    return (vex_string){data, size};
}

/* nulls: percentage of null cells. */
static void table_make(table *t, uint64_t *seed, size_t row_count, uint32_t dimension,
                       uint32_t column_count, unsigned nulls, size_t string_max,
                       size_t payload_max) {
    *t = (table){.row_count = row_count};
    t->schema =
        (vexi_schema){.dimension = dimension, .column_count = column_count, .columns = ALL_COLUMNS};
    vexi_arena_init(&t->arena, vex_test_env());
    t->rows = vexi_arena_calloc(&t->arena, row_count + 1, sizeof *t->rows);
    t->pointers = vexi_arena_calloc(&t->arena, row_count + 1, sizeof *t->pointers);
    CHECK(t->rows != NULL && t->pointers != NULL);
    for (size_t i = 0; i < row_count; i++) {
        vexi_row *row = &t->rows[i];
        t->pointers[i] = row;
        char id[32];
        int size = snprintf(id, sizeof id, "row-%zu", i);
        row->id = (vex_string){vexi_arena_copy(&t->arena, id, (size_t)size), (size_t)size};
        float *vector = vexi_arena_array(&t->arena, dimension, sizeof *vector);
        CHECK(vector != NULL);
        for (uint32_t d = 0; d < dimension; d++) {
            vector[d] = vex_test_normal(seed);
        }
        row->vector = vector;
        if (vex_test_below(seed, 100) >= nulls) {
            row->attributes = random_string(t, seed, string_max);
        }
        if (vex_test_below(seed, 100) >= nulls) {
            row->payload = random_string(t, seed, payload_max);
        }
        if (vex_test_below(seed, 50) == 0) {
            continue; /* no cells at all */
        }
        vexi_cell *cells = vexi_arena_calloc(&t->arena, column_count + 1, sizeof *cells);
        CHECK(cells != NULL);
        for (uint32_t c = 0; c < column_count; c++) {
            cells[c].is_null = vex_test_below(seed, 100) < nulls;
            if (cells[c].is_null) {
                continue;
            }
            switch (ALL_COLUMNS[c].type) {
            case VEX_TYPE_INT64:
            case VEX_TYPE_TIMESTAMP:
                cells[c].as.int64 = (int64_t)vex_test_random(seed);
                break;
            case VEX_TYPE_DOUBLE:
                cells[c].as.float64 = (double)vex_test_normal(seed);
                break;
            case VEX_TYPE_BOOL:
                cells[c].as.boolean = vex_test_below(seed, 2) == 1;
                break;
            case VEX_TYPE_STRING:
                cells[c].as.string = random_string(t, seed, string_max);
                break;
            }
        }
        row->cells = cells;
    }
}

static void table_drop(table *t) {
    vexi_arena_deinit(&t->arena);
}

/* A written table. */
typedef struct segment {
    vexi_buffer file;
    vexi_arena arena;
    vexi_segment_layout layout;
} segment;

static void segment_make(segment *s, const table *t) {
    vexi_buffer_init(&s->file, vex_test_env(), LIMIT);
    vexi_arena_init(&s->arena, vex_test_env());
    CHECK_OK(vexi_segment_write(vex_test_env(), &t->schema, t->pointers, t->row_count, &s->file,
                                &s->arena, &s->layout, &err));
}

static void segment_drop(segment *s) {
    vexi_buffer_deinit(&s->file);
    vexi_arena_deinit(&s->arena);
}

static bool string_same(vex_string a, vex_string b) {
    return (a.data == NULL) == (b.data == NULL) && vexi_string_equal(a, b);
}

static void check_cell(const table *t, uint32_t column, uint64_t row, const vexi_cell *cell) {
    const vexi_row *want = &t->rows[row];
    if (column < VEXI_COLUMN_TYPED) {
        vex_string s = column == VEXI_COLUMN_ATTRIBUTES ? want->attributes : want->payload;
        CHECK(cell->is_null == (s.data == NULL));
        CHECK(string_same(cell->is_null ? (vex_string){0} : cell->as.string, s));
        return;
    }
    uint32_t c = column - VEXI_COLUMN_TYPED;
    if (want->cells == NULL || want->cells[c].is_null) {
        CHECK(cell->is_null);
        return;
    }
    CHECK(!cell->is_null);
    switch (t->schema.columns[c].type) {
    case VEX_TYPE_INT64:
    case VEX_TYPE_TIMESTAMP:
        CHECK(cell->as.int64 == want->cells[c].as.int64);
        break;
    case VEX_TYPE_DOUBLE:
        CHECK(memcmp(&cell->as.float64, &want->cells[c].as.float64, 8) == 0);
        break;
    case VEX_TYPE_BOOL:
        CHECK(cell->as.boolean == want->cells[c].as.boolean);
        break;
    case VEX_TYPE_STRING:
        CHECK(string_same(cell->as.string, want->cells[c].as.string));
        break;
    }
}

/* Decode `rows` of all columns from the image or, where `pieces` is set, from copies of exactly
 * the planned pieces, so that a read outside of them is a read outside of an allocation. */
static void check_decode(const table *t, const segment *s, const uint64_t *rows, size_t row_count,
                         bool by_pieces) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    uint32_t columns[VEXI_COLUMN_TYPED + VEX_COLUMNS_MAX];
    size_t column_count = VEXI_COLUMN_TYPED + t->schema.column_count;
    for (uint32_t c = 0; c < column_count; c++) {
        columns[c] = (uint32_t)column_count - 1 - c;
    }
    vexi_piece *pieces;
    size_t piece_count;
    CHECK_OK(vexi_segment_plan(&s->layout, columns, column_count, rows, row_count, &arena, &pieces,
                               &piece_count, &err));
    uint64_t planned = 0;
    for (size_t i = 0; i < piece_count; i++) {
        CHECK(pieces[i].offset + pieces[i].size <= s->file.size);
        CHECK(i == 0 || pieces[i - 1].offset + pieces[i - 1].size < pieces[i].offset);
        uint8_t *copy = malloc(pieces[i].size);
        CHECK(copy != NULL);
        memcpy(copy, s->file.data + pieces[i].offset, pieces[i].size);
        pieces[i].data = copy;
        planned += pieces[i].size;
    }
    vexi_cell *cells = vexi_arena_calloc(&arena, column_count * row_count + 1, sizeof *cells);
    uint64_t pages = 0, bytes = 0;
    CHECK_OK(vexi_segment_decode(
        vex_test_env(), &t->schema, &s->layout, by_pieces ? NULL : s->file.data, pieces,
        piece_count, columns, column_count, rows, row_count, &arena, cells, &pages, &bytes, &err));
    CHECK_EQ(bytes, planned);
    CHECK(row_count == 0 || pages >= column_count);
    for (size_t c = 0; c < column_count; c++) {
        for (size_t r = 0; r < row_count; r++) {
            check_cell(t, columns[c], rows[r], &cells[c * row_count + r]);
        }
    }
    for (size_t i = 0; i < piece_count; i++) {
        free((void *)(uintptr_t)pieces[i].data);
    }
    vexi_arena_deinit(&arena);
}

static void check_table(const table *t, uint64_t *seed) {
    segment s;
    segment_make(&s, t);
    CHECK_EQ(s.layout.row_count, t->row_count);
    CHECK_EQ(s.layout.file_size, s.file.size);
    CHECK_EQ(s.layout.column_count, VEXI_COLUMN_TYPED + t->schema.column_count);
    CHECK(s.layout.footer_crc == vexi_crc32c(0, s.file.data + s.layout.footer_offset,
                                             s.file.size - s.layout.footer_offset));
    size_t stride = t->schema.dimension * sizeof(float);
    for (size_t row = 0; row < t->row_count; row++) {
        uint64_t offset = vexi_segment_vector_offset(&s.layout, t->schema.dimension, row);
        CHECK(offset + stride <= s.file.size);
        CHECK(memcmp(s.file.data + offset, t->rows[row].vector, stride) == 0);
    }
    uint64_t *rows = malloc((t->row_count + 1) * sizeof *rows);
    CHECK(rows != NULL);
    for (int trial = 0; trial < 6; trial++) {
        size_t count = 0;
        for (size_t row = 0; row < t->row_count; row++) {
            if (trial == 0 || vex_test_below(seed, trial < 3 ? 3 : 40) == 0) {
                rows[count++] = row;
            }
        }
        check_decode(t, &s, rows, count, trial % 2 == 1);
    }
    uint64_t seen = 0;
    CHECK_OK(vexi_segment_verify(vex_test_env(), &t->schema, &s.layout,
                                 vexi_span_of(s.file.data, s.file.size), &seen, &err));
    CHECK_EQ(seen, t->row_count);
    free(rows);
    segment_drop(&s);
}

TEST(round_trips) {
    uint64_t seed = vex_test_seed(7);
    static const struct {
        size_t rows;
        uint32_t dimension, columns;
        unsigned nulls;
        size_t string_max, payload_max;
    } cases[] = {
        {1, 1, 0, 0, 10, 10},        {1, 3, 6, 100, 10, 10},   {7, 5, 6, 50, 0, 0},
        {999, 2, 6, 10, 30, 100},    {1000, 3, 6, 0, 30, 10},  {1001, 4, 6, 90, 30, 10},
        {3500, 8, 6, 20, 40, 300},   {300, 1536, 2, 5, 20, 8}, {200, 4, 6, 10, 100000, 400000},
        {10500, 2, 6, 30, 200, 100}, {25000, 1, 3, 1, 5, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        table t;
        table_make(&t, &seed, cases[i].rows, cases[i].dimension, cases[i].columns, cases[i].nulls,
                   cases[i].string_max, cases[i].payload_max);
        check_table(&t, &seed);
        table_drop(&t);
    }
}

/* What a point read may touch: under 16 KiB for each column of ordinary rows, whatever the data,
 * and one value's page where the value is larger. */
TEST(pages_are_small) {
    uint64_t seed = vex_test_seed(3);
    table t;
    table_make(&t, &seed, 12000, 4, 6, 10, 60, 200);
    segment s;
    segment_make(&s, &t);
    size_t slots = (size_t)s.layout.column_count * s.layout.row_group_count;
    CHECK(s.layout.row_group_count == 2 && s.layout.page_first[slots] > 100);
    for (uint32_t p = 0; p < s.layout.page_first[slots]; p++) {
        CHECK(s.layout.pages[p].size_bytes < 16384);
    }
    segment_drop(&s);
    table_drop(&t);

    table_make(&t, &seed, 50, 4, 0, 0, 10, 200000);
    segment_make(&s, &t);
    uint32_t first = s.layout.page_first[VEXI_COLUMN_PAYLOAD * s.layout.row_group_count];
    uint32_t end = s.layout.page_first[(VEXI_COLUMN_PAYLOAD + 1) * s.layout.row_group_count];
    CHECK(end - first >= 25);
    for (uint32_t p = first; p < end; p++) {
        const vexi_page *page = &s.layout.pages[p];
        size_t values = 0;
        for (uint32_t r = 0; r < page->row_count; r++) {
            values += t.rows[page->first_row + r].payload.size + 4;
        }
        CHECK(page->row_count == 1 || values <= 16384);
        CHECK(page->size_bytes <= values + 128);
    }
    segment_drop(&s);
    table_drop(&t);
}

TEST(no_rows) {
    uint64_t seed = 1;
    table t;
    table_make(&t, &seed, 0, 4, 6, 0, 10, 10);
    segment s;
    segment_make(&s, &t);
    CHECK_EQ(s.layout.row_count, 0);
    CHECK_EQ(s.layout.row_group_count, 0);
    uint64_t seen = 1;
    CHECK_OK(vexi_segment_verify(vex_test_env(), &t.schema, &s.layout,
                                 vexi_span_of(s.file.data, s.file.size), &seen, &err));
    CHECK_EQ(seen, 0);
    check_decode(&t, &s, NULL, 0, true);
    segment_drop(&s);
    table_drop(&t);
}

/* A schema that gained columns after the file was written: nulls. */
TEST(missing_columns_are_null) {
    uint64_t seed = vex_test_seed(5);
    table t;
    table_make(&t, &seed, 100, 2, 1, 0, 10, 10);
    segment s;
    segment_make(&s, &t);
    t.schema.column_count = 3;
    uint32_t columns[] = {VEXI_COLUMN_TYPED + 2, VEXI_COLUMN_TYPED};
    uint64_t rows[] = {0, 50, 99};
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_piece *pieces;
    size_t piece_count;
    CHECK_OK(
        vexi_segment_plan(&s.layout, columns, 2, rows, 3, &arena, &pieces, &piece_count, &err));
    CHECK_EQ(piece_count, 1);
    vexi_cell cells[6];
    uint64_t pages = 0, bytes = 0;
    CHECK_OK(vexi_segment_decode(vex_test_env(), &t.schema, &s.layout, s.file.data, NULL, 0,
                                 columns, 2, rows, 3, &arena, cells, &pages, &bytes, &err));
    CHECK_EQ(pages, 1);
    for (size_t i = 0; i < 3; i++) {
        CHECK(cells[i].is_null);
        check_cell(&t, VEXI_COLUMN_TYPED, rows[i], &cells[3 + i]);
    }
    uint64_t beyond[] = {100};
    CHECK_FAILS(VEX_INVALID, vexi_segment_plan(&s.layout, columns, 2, beyond, 1, &arena, &pieces,
                                               &piece_count, &err));
    vexi_arena_deinit(&arena);
    segment_drop(&s);
    table_drop(&t);
}

/* Every changed byte is found by the verifier: it lies in a page, in a page's header or in the
 * footer. Vectors of one flipped bit are under a page checksum too. */
TEST(verify_finds_damage) {
    uint64_t seed = vex_test_seed(9);
    table t;
    table_make(&t, &seed, 300, 4, 6, 20, 30, 60);
    segment s;
    segment_make(&s, &t);
    uint64_t seen, trials = vex_test_effort(400), unseen = 0;
    for (uint64_t i = 0; i < trials; i++) {
        size_t at = vex_test_below(&seed, s.file.size);
        uint8_t was = s.file.data[at];
        s.file.data[at] = (uint8_t)(was ^ (1u << vex_test_below(&seed, 8)));
        vex_error err = {0};
        vex_status status =
            vexi_segment_verify(vex_test_env(), &t.schema, &s.layout,
                                vexi_span_of(s.file.data, s.file.size), &seen, &err);
        s.file.data[at] = was;
        if (status == VEX_OK) {
            unseen++; /* a page header's encoding of levels, say, that nobody reads */
        } else {
            CHECK(err.message[0] != '\0' && seen == 0);
        }
    }
    printf("    %d of %d changes had no effect\n", (int)unseen, (int)trials);
    CHECK(unseen * 100 <= trials * 2);
    CHECK_FAILS(VEX_CORRUPT,
                vexi_segment_verify(vex_test_env(), &t.schema, &s.layout,
                                    vexi_span_of(s.file.data, s.file.size - 1), &seen, &err));
    segment_drop(&s);
    table_drop(&t);
}

/* Decoding damaged pages: an error or the same values, never others, never a crash. */
TEST(decode_finds_damage) {
    uint64_t seed = vex_test_seed(10);
    table t;
    table_make(&t, &seed, 200, 1, 6, 20, 30, 60);
    segment s;
    segment_make(&s, &t);
    uint64_t failed = 0, trials = vex_test_effort(400);
    for (uint64_t i = 0; i < trials; i++) {
        size_t at = vex_test_below(&seed, s.layout.footer_offset);
        uint8_t was = s.file.data[at];
        s.file.data[at] = (uint8_t)vex_test_random(&seed);
        for (uint32_t c = 0; c < s.layout.column_count; c++) {
            uint64_t rows[200], pages = 0, bytes = 0;
            vexi_cell cells[200];
            for (uint64_t r = 0; r < 200; r++) {
                rows[r] = r;
            }
            vexi_arena arena;
            vexi_arena_init(&arena, vex_test_env());
            vex_error err = {0};
            vex_status status =
                vexi_segment_decode(vex_test_env(), &t.schema, &s.layout, s.file.data, NULL, 0, &c,
                                    1, rows, 200, &arena, cells, &pages, &bytes, &err);
            if (status == VEX_OK) {
                for (uint64_t r = 0; r < 200; r++) {
                    check_cell(&t, c, r, &cells[r]);
                }
            } else {
                CHECK(status == VEX_CORRUPT);
                failed++;
            }
            vexi_arena_deinit(&arena);
        }
        s.file.data[at] = was;
    }
    CHECK(failed > trials / 4);
    segment_drop(&s);
    table_drop(&t);
}

/* A buffer too small says so, and out->size is 0 again. */
TEST(limits) {
    uint64_t seed = vex_test_seed(4);
    table t;
    table_make(&t, &seed, 100, 4, 6, 20, 30, 60);
    for (size_t limit = 0; limit < 20000; limit += 777) {
        vexi_buffer out;
        vexi_buffer_init(&out, vex_test_env(), limit);
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_segment_layout layout;
        vex_error err = {0};
        vex_status status = vexi_segment_write(vex_test_env(), &t.schema, t.pointers, t.row_count,
                                               &out, &arena, &layout, &err);
        CHECK(status == VEX_OK || status == VEX_LIMIT || status == VEX_MEMORY);
        CHECK(status == VEX_OK ? out.size == layout.file_size : out.size == 0);
        CHECK(limit != 0 || status == VEX_LIMIT);
        CHECK(limit < 19000 || status == VEX_OK);
        vexi_buffer_deinit(&out);
        vexi_arena_deinit(&arena);
    }
    table_drop(&t);
}

/* ---- Memory ---------------------------------------------------------------------------------- */

/* An environment whose n-th allocation fails. */
typedef struct failing {
    vexi_env env;
    int left;
} failing;

static void *failing_allocate(void *context, size_t alignment, size_t size) {
    failing *f = context;
    const vexi_env *system = vex_test_env();
    return f->left-- == 0 ? NULL : system->allocate(system->context, alignment, size);
}

static void failing_release(void *context, void *pointer) {
    (void)context;
    vex_test_env()->release(vex_test_env()->context, pointer);
}

TEST(memory_failures) {
    uint64_t seed = vex_test_seed(6);
    table t;
    table_make(&t, &seed, 500, 4, 6, 20, 30, 60);
    failing f = {.env = *vex_test_env()};
    f.env.context = &f;
    f.env.allocate = failing_allocate;
    f.env.release = failing_release;
    bool done = false;
    int n = 0;
    for (; !done; n++) {
        CHECK(n < 10000);
        f.left = n;
        vexi_buffer out;
        vexi_buffer_init(&out, &f.env, LIMIT);
        vexi_arena arena;
        vexi_arena_init(&arena, &f.env);
        vexi_segment_layout layout;
        uint64_t seen = 0;
        vex_status status = vexi_segment_write(&f.env, &t.schema, t.pointers, t.row_count, &out,
                                               &arena, &layout, NULL);
        if (status == VEX_OK) {
            status = vexi_segment_verify(&f.env, &t.schema, &layout,
                                         vexi_span_of(out.data, out.size), &seen, NULL);
        }
        uint64_t rows[] = {3, 400}, pages = 0, bytes = 0;
        uint32_t columns[] = {0, 1, 2, 3, 4, 5, 6, 7};
        vexi_cell cells[16];
        if (status == VEX_OK) {
            status = vexi_segment_decode(&f.env, &t.schema, &layout, out.data, NULL, 0, columns, 8,
                                         rows, 2, &arena, cells, &pages, &bytes, NULL);
        }
        CHECK(status == VEX_OK || status == VEX_MEMORY);
        done = f.left >= 0;
        CHECK(done == (status == VEX_OK) || f.left < 0);
        vexi_buffer_deinit(&out);
        vexi_arena_deinit(&arena);
    }
    CHECK(n > 5);
    table_drop(&t);
}

TEST_MAIN(RUN(round_trips); RUN(pages_are_small); RUN(no_rows); RUN(missing_columns_are_null);
          RUN(verify_finds_damage); RUN(decode_finds_damage); RUN(limits); RUN(memory_failures))
