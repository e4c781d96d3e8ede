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

TEST_MAIN(RUN(round_trips))
