/* A segment made by hand for the tests of the index file: ids, vectors, lists, and a layout with
 * several row groups and pages that no Parquet file stands behind. Tests only. */
#ifndef VEXI_FORMAT_INDEX_TEST_INPUT_H
#define VEXI_FORMAT_INDEX_TEST_INPUT_H

#include "check.h"
#include "format/index_internal.h"

typedef struct index_fixture {
    vexi_arena arena;
    vexi_schema schema;
    vexi_segment_layout layout;
    vexi_index_input input;
    vexi_index_codes codes; /* of input, after fixture_codes */
} index_fixture;

static inline void *fixture_array(index_fixture *f, size_t count, size_t size) {
    void *result = vexi_arena_calloc(&f->arena, count, size);
    CHECK(result != NULL);
    return result;
}

static inline void fixture_layout(index_fixture *f, uint32_t row_count, uint32_t group_rows) {
    vexi_segment_layout *layout = &f->layout;
    uint32_t groups = (row_count + group_rows - 1) / group_rows;
    layout->row_count = row_count;
    layout->row_group_count = groups;
    layout->column_count = 2 + f->schema.column_count;
    vexi_row_group *row_groups = fixture_array(f, groups, sizeof *row_groups);
    uint64_t offset = 4;
    for (uint32_t g = 0; g < groups; g++) {
        uint32_t first = g * group_rows;
        uint32_t count = row_count - first < group_rows ? row_count - first : group_rows;
        row_groups[g] = (vexi_row_group){offset + 31, first, count};
        offset += 31 + (uint64_t)count * f->schema.dimension * 4;
    }
    uint32_t chunks = layout->column_count * groups;
    uint32_t *page_first = fixture_array(f, chunks + 1, sizeof *page_first);
    vexi_page *pages = fixture_array(f, (size_t)chunks * 3, sizeof *pages);
    uint32_t count = 0;
    for (uint32_t i = 0; i < chunks; i++) {
        const vexi_row_group *group = &row_groups[i % groups];
        page_first[i] = count;
        if (i / groups == 1) { /* column 1: a dictionary page first */
            pages[count++] = (vexi_page){offset, 40, group->first_row, 0};
            offset += 40;
        }
        uint32_t half = group->row_count / 2;
        if (half > 0) {
            pages[count++] = (vexi_page){offset, 100, group->first_row, half};
            offset += 100;
        }
        pages[count++] = (vexi_page){offset, 70, group->first_row + half, group->row_count - half};
        offset += 70;
    }
    page_first[chunks] = count;
    layout->row_groups = row_groups;
    layout->page_first = page_first;
    layout->pages = pages;
    layout->footer_offset = offset;
    layout->footer_crc = 0x12345678;
    layout->file_size = offset + 500;
}

/* list_count 0 makes it flat. */
static inline void fixture_init(index_fixture *f, uint32_t row_count, uint32_t dimension,
                                vex_metric metric, uint32_t list_count) {
    static const vexi_schema_column columns[] = {{{"n", 1}, VEX_TYPE_INT64},
                                                 {{"s", 1}, VEX_TYPE_STRING}};
    memset(f, 0, sizeof *f);
    vexi_arena_init(&f->arena, vex_test_env());
    f->schema = (vexi_schema){.dimension = dimension,
                              .metric = metric,
                              .index = VEX_INDEX_AUTO,
                              .column_count = 2,
                              .columns = columns};
    fixture_layout(f, row_count, 1000);
    uint64_t seed = row_count * 31 + dimension;
    vexi_row *rows = fixture_array(f, row_count, sizeof *rows);
    const vexi_row **pointers = fixture_array(f, row_count, sizeof *pointers);
    for (uint32_t i = 0; i < row_count; i++) {
        float *vector = fixture_array(f, dimension, sizeof *vector);
        for (uint32_t k = 0; k < dimension; k++) {
            vector[k] = i == 0 ? 0.0f : vex_test_normal(&seed);
        }
        char id[32];
        snprintf(id, sizeof id, "row-%u", i * 7919u);
        rows[i].id = (vex_string){vexi_arena_copy(&f->arena, id, strlen(id)), strlen(id)};
        rows[i].vector = vector;
        pointers[i] = &rows[i];
    }
    f->input = (vexi_index_input){.segment = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee",
                                  .schema = &f->schema,
                                  .layout = &f->layout,
                                  .rows = pointers,
                                  .row_count = row_count,
                                  .list_count = list_count};
    if (list_count > 0) {
        float *centroids = fixture_array(f, (size_t)list_count * dimension, sizeof *centroids);
        float *radii = fixture_array(f, list_count, sizeof *radii);
        uint32_t *first = fixture_array(f, list_count + 1, sizeof *first);
        for (uint32_t i = 0; i < list_count; i++) {
            radii[i] = (float)i + 0.5f;
            first[i] = (uint32_t)((uint64_t)row_count * i / list_count);
            for (uint32_t k = 0; k < dimension; k++) {
                centroids[(size_t)i * dimension + k] = vex_test_normal(&seed);
            }
        }
        first[list_count] = row_count;
        f->input.centroids = centroids;
        f->input.radii = radii;
        f->input.list_first = first;
    }
}

/* Bytes of a list's codes; the errors come with them, as they do where codes are made. */
static inline uint8_t fixture_code_byte(uint64_t at) {
    return (uint8_t)(at * 31 + at / 251);
}

static inline vex_status fixture_write_lists(void *context, uint8_t *out, vex_error *err) {
    (void)err;
    index_fixture *f = context;
    CHECK((uintptr_t)out % 64 == 0);
    for (uint64_t i = 0; i < f->codes.lists_size; i++) {
        out[i] = fixture_code_byte(i);
    }
    float *errors = (float *)(uintptr_t)f->codes.errors;
    for (uint32_t i = 0; i < f->input.list_count * 2; i++) {
        errors[i] = (float)i / 16;
    }
    return VEX_OK;
}

/* Give it codes of so many bits. */
static inline void fixture_codes(index_fixture *f, uint32_t bits) {
    uint32_t lists = f->input.list_count;
    uint32_t padded = (f->schema.dimension + 63) / 64 * 64;
    float *origin = fixture_array(f, padded, sizeof *origin);
    uint64_t centers_size = vexi_index_list_size(padded, 1, lists);
    uint8_t *centers = fixture_array(f, centers_size, 1);
    uint32_t *calibration = fixture_array(f, VEXI_INDEX_CALIBRATION_COUNT, sizeof *calibration);
    for (uint32_t i = 0; i < padded; i++) {
        origin[i] = (float)i - 2.5f;
    }
    for (uint64_t i = 0; i < centers_size; i++) {
        centers[i] = (uint8_t)(i * 7);
    }
    for (uint32_t i = 0; i < VEXI_INDEX_CALIBRATION_COUNT; i++) {
        calibration[i] = i * i + 1;
    }
    f->codes = (vexi_index_codes){
        .bits = bits,
        .padded = padded,
        .rotation_seed = UINT64_C(0x123456789abcdef),
        .row_length = 1.5f,
        .center_error = 0.25f,
        .origin = origin,
        .errors = fixture_array(f, lists * (size_t)2, sizeof(float)),
        .center_codes = centers,
        .center_codes_size = centers_size,
        .calibration = calibration,
        .write_lists = fixture_write_lists,
        .context = f,
    };
    for (uint32_t i = 0; i < lists; i++) {
        f->codes.lists_size +=
            vexi_index_list_size(padded, bits, f->input.list_first[i + 1] - f->input.list_first[i]);
    }
    f->input.codes = &f->codes;
}

static inline void fixture_deinit(index_fixture *f) {
    vexi_arena_deinit(&f->arena);
}

/* Write it, and copy it to memory aligned as a mapping is; *bytes are freed with vexi_free. */
static inline void fixture_write(const index_fixture *f, vexi_span *bytes, uint8_t **memory,
                                 uint32_t *head_size, uint32_t *head_crc) {
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1 << 30);
    CHECK_OK(vexi_index_write(vex_test_env(), &f->input, &out, head_size, head_crc, &err));
    *memory = vexi_alloc_aligned(vex_test_env(), out.size);
    CHECK(*memory != NULL);
    memcpy(*memory, out.data, out.size);
    *bytes = vexi_span_of(*memory, out.size);
    vexi_buffer_deinit(&out);
}

#endif
