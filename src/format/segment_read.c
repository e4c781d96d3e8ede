/* Segment reader: from asked rows to page ranges, and from pages to cells.
 *
 * Both work from the layout alone, never from the footer: a point read touches the pages that hold
 * the rows and nothing else. Pages of a column stand in `pages` in row order across row groups, so
 * finding a row's page is one binary search. Pages that follow each other in the file without a
 * gap become one piece.
 *
 * A page is opened once per call whatever the number of its rows asked; rows ascend, so values are
 * walked once, forwards. */
#include "format/segment_file.h"

#include <stdlib.h>

#include "format/parquet_internal.h"

uint64_t vexi_segment_vector_offset(const vexi_segment_layout *layout, uint32_t dimension,
                                    uint64_t row) {
    VEX_ASSERT(row < layout->row_count);
    /* Groups are equally large but for the last, so the first guess is right for our files. */
    uint64_t g = row / layout->row_groups[0].row_count;
    if (g >= layout->row_group_count) {
        g = layout->row_group_count - 1;
    }
    while (layout->row_groups[g].first_row > row) {
        g--;
    }
    while (row - layout->row_groups[g].first_row >= layout->row_groups[g].row_count) {
        g++;
    }
    const vexi_row_group *group = &layout->row_groups[g];
    return group->vector_offset + (row - group->first_row) * dimension * sizeof(float);
}

/* The pages of a column, all row groups. */
static void column_pages(const vexi_segment_layout *layout, uint32_t column,
                         const vexi_page **first, size_t *count) {
    size_t groups = layout->row_group_count;
    uint32_t begin = layout->page_first[column * groups];
    *first = layout->pages + begin;
    *count = layout->page_first[(column + 1) * groups] - begin;
}

/* The page that holds a row: the last one that begins at or before it. Pages without rows
 * (dictionaries) begin where the next one does and are passed over. NULL: no such page. */
static const vexi_page *find_page(const vexi_page *pages, size_t count, uint64_t row) {
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pages[middle].first_row <= row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0 || row - pages[low - 1].first_row >= pages[low - 1].row_count) {
        return NULL;
    }
    return &pages[low - 1];
}

static vex_status no_page(const vexi_segment_layout *layout, uint64_t row, vex_error *err) {
    if (row >= layout->row_count) {
        return vexi_fail_row(err, VEX_INVALID, (int64_t)row, "row %llu of a segment of %u rows",
                             (unsigned long long)row, layout->row_count);
    }
    return vexi_fail_row(err, VEX_CORRUPT, (int64_t)row, "the page map lacks row %llu",
                         (unsigned long long)row);
}

/* ---- Plan ------------------------------------------------------------------------------------ */

static int piece_order(const void *a, const void *b) {
    uint64_t x = ((const vexi_piece *)a)->offset, y = ((const vexi_piece *)b)->offset;
    return (x > y) - (x < y);
}

vex_status vexi_segment_plan(const vexi_segment_layout *layout, const uint32_t *columns,
                             size_t column_count, const uint64_t *rows, size_t row_count,
                             vexi_arena *arena, vexi_piece **pieces, size_t *piece_count,
                             vex_error *err) {
    *pieces = NULL;
    *piece_count = 0;
    size_t limit;
    if (__builtin_mul_overflow(column_count, row_count, &limit)) {
        return vexi_no_memory(err, SIZE_MAX);
    }
    vexi_piece *found = vexi_arena_array(arena, limit + 1, sizeof *found);
    if (found == NULL) {
        return vexi_no_memory(err, limit * sizeof *found);
    }
    size_t count = 0;
    for (size_t c = 0; c < column_count; c++) {
        if (columns[c] >= layout->column_count) {
            continue; /* the file lacks the column: nulls */
        }
        const vexi_page *pages, *page = NULL;
        size_t pages_count;
        column_pages(layout, columns[c], &pages, &pages_count);
        for (size_t r = 0; r < row_count; r++) {
            if (page != NULL && rows[r] - page->first_row < page->row_count) {
                continue;
            }
            page = find_page(pages, pages_count, rows[r]);
            if (page == NULL) {
                return no_page(layout, rows[r], err);
            }
            if (page->offset > layout->file_size ||
                page->size_bytes > layout->file_size - page->offset) {
                return vexi_fail(err, VEX_CORRUPT, "a page at %llu is outside of the file",
                                 (unsigned long long)page->offset);
            }
            found[count++] = (vexi_piece){.offset = page->offset, .size = page->size_bytes};
        }
    }
    if (count > 0) {
        qsort(found, count, sizeof *found, piece_order);
        size_t last = 0;
        for (size_t i = 1; i < count; i++) {
            uint64_t end = found[last].offset + found[last].size;
            uint64_t this_end = found[i].offset + found[i].size;
            if (found[i].offset > end) {
                found[++last] = found[i];
            } else if (this_end > end) {
                found[last].size = (size_t)(this_end - found[last].offset);
            }
        }
        count = last + 1;
    }
    *pieces = found;
    *piece_count = count;
    return VEX_OK;
}

/* ---- Decode ---------------------------------------------------------------------------------- */

/* The bytes of a page in the image or in the piece that holds it. */
static vex_status page_bytes(const vexi_segment_layout *layout, const uint8_t *image,
                             const vexi_piece *pieces, size_t piece_count, const vexi_page *page,
                             vexi_span *out, vex_error *err) {
    if (page->offset > layout->file_size || page->size_bytes > layout->file_size - page->offset) {
        return vexi_fail(err, VEX_CORRUPT, "a page at %llu is outside of the file",
                         (unsigned long long)page->offset);
    }
    if (image != NULL) {
        *out = vexi_span_of(image + page->offset, page->size_bytes);
        return VEX_OK;
    }
    size_t low = 0, high = piece_count;
    while (low < high) { /* the last piece that begins at or before the page */
        size_t middle = low + (high - low) / 2;
        if (pieces[middle].offset <= page->offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low > 0) {
        const vexi_piece *piece = &pieces[low - 1];
        uint64_t skip = page->offset - piece->offset;
        if (skip <= piece->size && page->size_bytes <= piece->size - skip) {
            *out = vexi_span_of(piece->data + skip, page->size_bytes);
            return VEX_OK;
        }
    }
    return vexi_fail(err, VEX_INTERNAL, "a page was not fetched");
}

/* A forward walk over the values of an open page. */
typedef struct page_cursor {
    const vexi_page *page;
    vexi_page_values open;
    uint32_t row;   /* next row of the page                                                      */
    uint32_t value; /* present values before it                                                  */
    size_t offset;  /* of that value, where values are byte strings                              */
} page_cursor;

static bool cursor_present(const page_cursor *cursor) {
    return cursor->open.present == NULL || cursor->open.present[cursor->row] != 0;
}

/* The byte string at the cursor. */
static bool cursor_string(const page_cursor *cursor, vex_string *out) {
    vexi_span values = cursor->open.values;
    if (values.size - cursor->offset < 4) {
        return false;
    }
    uint32_t size = vexi_get_u32(values.data + cursor->offset);
    if (size > values.size - cursor->offset - 4) {
        return false;
    }
    *out = (vex_string){(const char *)values.data + cursor->offset + 4, size};
    return true;
}

/* Move to a row of the page; false on damage. */
static bool cursor_seek(page_cursor *cursor, uint32_t row, bool is_bytes) {
    if (!is_bytes && cursor->open.present == NULL) {
        cursor->row = cursor->value = row;
        return true;
    }
    for (; cursor->row < row; cursor->row++) {
        if (!cursor_present(cursor)) {
            continue;
        }
        if (is_bytes) {
            vex_string skipped;
            if (!cursor_string(cursor, &skipped)) {
                return false;
            }
            cursor->offset += skipped.size + 4;
        }
        cursor->value++;
    }
    return true;
}

static bool cursor_cell(const page_cursor *cursor, bool is_bytes, vex_type type, vexi_cell *out) {
    *out = (vexi_cell){.is_null = !cursor_present(cursor)};
    if (out->is_null) {
        return true;
    }
    if (is_bytes) {
        return cursor_string(cursor, &out->as.string);
    }
    const uint8_t *values = cursor->open.values.data;
    if (type == VEX_TYPE_BOOL) {
        out->as.boolean = (values[cursor->value / 8] >> (cursor->value % 8) & 1) != 0;
        return true;
    }
    uint64_t bits = vexi_get_u64(values + (size_t)cursor->value * 8);
    if (type == VEX_TYPE_DOUBLE) {
        memcpy(&out->as.float64, &bits, sizeof bits);
    } else {
        out->as.int64 = (int64_t)bits;
    }
    return true;
}

vex_status vexi_segment_decode(const vexi_env *env, const vexi_schema *schema,
                               const vexi_segment_layout *layout, const uint8_t *image,
                               const vexi_piece *pieces, size_t piece_count,
                               const uint32_t *columns, size_t column_count, const uint64_t *rows,
                               size_t row_count, vexi_arena *arena, vexi_cell *out,
                               uint64_t *pages_decoded, uint64_t *bytes, vex_error *err) {
    (void)env;
    for (size_t c = 0; c < column_count; c++) {
        uint32_t column = columns[c];
        vexi_cell *cells = out + c * row_count;
        VEX_ASSERT(column < VEXI_COLUMN_TYPED + schema->column_count);
        if (column >= layout->column_count) {
            for (size_t r = 0; r < row_count; r++) {
                cells[r] = (vexi_cell){.is_null = true};
            }
            continue;
        }
        bool is_bytes = vexi_column_is_bytes(schema, column);
        vex_type type = column < VEXI_COLUMN_TYPED
                            ? VEX_TYPE_STRING
                            : schema->columns[column - VEXI_COLUMN_TYPED].type;
        const vexi_page *pages;
        size_t pages_count;
        column_pages(layout, column, &pages, &pages_count);
        page_cursor cursor = {0};
        for (size_t r = 0; r < row_count; r++) {
            VEX_ASSERT(r == 0 || rows[r - 1] <= rows[r]);
            if (cursor.page == NULL || rows[r] - cursor.page->first_row >= cursor.page->row_count) {
                const vexi_page *page = find_page(pages, pages_count, rows[r]);
                if (page == NULL) {
                    return no_page(layout, rows[r], err);
                }
                vexi_span span;
                VEX_TRY(page_bytes(layout, image, pieces, piece_count, page, &span, err));
                cursor = (page_cursor){.page = page};
                VEX_TRY(vexi_page_open(schema, column, page, span, arena, &cursor.open, err));
                *pages_decoded += 1;
                *bytes += page->size_bytes;
            }
            if (!cursor_seek(&cursor, (uint32_t)(rows[r] - cursor.page->first_row), is_bytes) ||
                !cursor_cell(&cursor, is_bytes, type, &cells[r])) {
                return vexi_fail_row(err, VEX_CORRUPT, (int64_t)rows[r],
                                     "page of column %s at offset %llu: a value reaches past its "
                                     "end",
                                     vexi_column_name(schema, column),
                                     (unsigned long long)cursor.page->offset);
            }
        }
    }
    return VEX_OK;
}
