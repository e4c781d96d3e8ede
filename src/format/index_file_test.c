#include "check.h"

#include <math.h>

#include "format/index_internal.h"
#include "format/index_test_input.h"

static void check_layout(const vexi_segment_layout *a, const vexi_segment_layout *b) {
    CHECK_EQ(a->file_size, b->file_size);
    CHECK_EQ(a->footer_offset, b->footer_offset);
    CHECK_EQ(a->footer_crc, b->footer_crc);
    CHECK_EQ(a->row_count, b->row_count);
    CHECK_EQ(a->row_group_count, b->row_group_count);
    CHECK_EQ(a->column_count, b->column_count);
    uint32_t chunks = a->row_group_count * a->column_count;
    for (uint32_t i = 0; i < a->row_group_count; i++) {
        CHECK_EQ(a->row_groups[i].vector_offset, b->row_groups[i].vector_offset);
        CHECK_EQ(a->row_groups[i].first_row, b->row_groups[i].first_row);
        CHECK_EQ(a->row_groups[i].row_count, b->row_groups[i].row_count);
    }
    for (uint32_t i = 0; i <= chunks; i++) {
        CHECK_EQ(a->page_first[i], b->page_first[i]);
    }
    for (uint32_t i = 0; i < a->page_first[chunks]; i++) {
        CHECK_EQ(a->pages[i].offset, b->pages[i].offset);
        CHECK_EQ(a->pages[i].size_bytes, b->pages[i].size_bytes);
        CHECK_EQ(a->pages[i].first_row, b->pages[i].first_row);
        CHECK_EQ(a->pages[i].row_count, b->pages[i].row_count);
    }
}

/* The codes as they were given, at the places that the sizes say. */
static void check_codes(vexi_index_file *file, const index_fixture *f) {
    const vexi_index_codes *codes = f->input.codes;
    if (codes == NULL) {
        CHECK_EQ(file->code_bits, 0);
        return;
    }
    uint32_t lists = f->input.list_count;
    CHECK_EQ(file->code_bits, codes->bits);
    CHECK_EQ(file->code_padded, codes->padded);
    CHECK(file->rotation_seed == codes->rotation_seed);
    CHECK(file->row_length == codes->row_length && file->center_error == codes->center_error);
    CHECK(memcmp(file->origin, codes->origin, codes->padded * sizeof(float)) == 0);
    CHECK(memcmp(file->code_errors, codes->errors, lists * 2 * sizeof(float)) == 0);
    CHECK(lists < 2 || file->code_errors[1] == 1.0f / 16); /* written with the lists */
    CHECK((uintptr_t)file->center_codes % 64 == 0);
    CHECK(memcmp(file->center_codes, codes->center_codes, (size_t)codes->center_codes_size) == 0);
    CHECK(memcmp(file->calibration, codes->calibration, sizeof file->calibration) == 0);
    CHECK_EQ(file->code_offsets[0], 0);
    CHECK_EQ(file->code_offsets[lists], codes->lists_size);
    for (uint32_t i = 0; i < lists; i++) {
        uint64_t rows = file->list_first[i + 1] - file->list_first[i];
        uint64_t record = codes->bits == 1 ? 0 : 8 + codes->padded * codes->bits / 8;
        uint64_t size = (rows + 31) / 32 * (codes->padded * 4 + 256) + rows * record;
        CHECK_EQ(file->code_offsets[i + 1] - file->code_offsets[i], (size + 63) / 64 * 64);
        uint64_t offset = file->codes_offset + file->code_offsets[i];
        CHECK((uintptr_t)(file->bytes.data + offset) % 64 == 0);
        CHECK_OK(vexi_index_check(file, offset, file->code_offsets[i + 1] - file->code_offsets[i],
                                  &err));
        CHECK(vexi_index_checked(file, offset, file->code_offsets[i + 1] - file->code_offsets[i]));
        for (uint64_t at = file->code_offsets[i]; at < file->code_offsets[i + 1]; at++) {
            CHECK(file->bytes.data[file->codes_offset + at] == fixture_code_byte(at));
        }
    }
}

static void round_trip(uint32_t rows, uint32_t dimension, vex_metric metric, uint32_t lists,
                       uint32_t bits) {
    index_fixture f;
    fixture_init(&f, rows, dimension, metric, lists);
    if (bits > 0) {
        fixture_codes(&f, bits);
    }
    vexi_span bytes;
    uint8_t *memory;
    uint32_t head_size, head_crc;
    fixture_write(&f, &bytes, &memory, &head_size, &head_crc);
    CHECK(head_size % 64 == 0);
    vexi_index_file file;
    CHECK_OK(vexi_index_open(vex_test_env(), bytes, head_size, head_crc, &file, &err));
    CHECK(strcmp(file.segment, f.input.segment) == 0);
    CHECK_EQ(file.dimension, dimension);
    CHECK(file.metric == metric);
    CHECK_EQ(file.row_count, rows);
    CHECK_EQ(file.list_count, lists);
    check_layout(&file.layout, &f.layout);
    check_codes(&file, &f);
    if (lists > 0) {
        size_t size = (size_t)lists * dimension * 4;
        CHECK(memcmp(file.centroids, f.input.centroids, size) == 0);
        CHECK(memcmp(file.radii, f.input.radii, (size_t)lists * 4) == 0);
        CHECK(memcmp(file.list_first, f.input.list_first, (lists + 1) * sizeof(uint32_t)) == 0);
        CHECK((uintptr_t)file.centroids % 64 == 0);
    }
    CHECK((file.inverse_norms != NULL) == (metric == VEX_METRIC_COSINE && rows > 0));
    for (uint32_t i = 0; i < rows; i++) {
        const vexi_row *row = f.input.rows[i];
        vex_string id;
        CHECK_OK(vexi_index_id(&file, i, &id, &err));
        CHECK(vexi_string_equal(id, row->id));
        bool found;
        uint64_t where;
        uint64_t hash = vexi_hash64(id.data, id.size);
        CHECK_OK(vexi_index_find(&file, id, hash, &found, &where, &err));
        CHECK(found && where == i);
        if (file.inverse_norms != NULL) {
            CHECK_OK(vexi_index_check(&file, file.norms_offset + i * 4ull, 4, &err));
            double sum = 0;
            for (uint32_t k = 0; k < dimension; k++) {
                sum += (double)row->vector[k] * (double)row->vector[k];
            }
            float stored;
            memcpy(&stored, file.inverse_norms + i * 4ull, 4);
            CHECK(i == 0 ? stored == 0.0f : fabs(stored * sqrt(sum) - 1) < 1e-6);
        }
    }
    for (uint32_t i = 0; i < 1000; i++) {
        char id[32];
        snprintf(id, sizeof id, "missing-%u", i);
        bool found;
        uint64_t where;
        CHECK_OK(vexi_index_find(&file, vexi_string_of(id), vexi_hash64(id, strlen(id)), &found,
                                 &where, &err));
        CHECK(!found);
    }
    if (rows > 0) {
        const uint8_t *crcs;
        CHECK_OK(vexi_index_vector_crcs(&file, 0, rows, &crcs, &err));
        for (uint32_t i = 0; i < rows; i++) {
            CHECK_EQ(vexi_get_u32(crcs + i * 4ull),
                     vexi_crc32c(0, f.input.rows[i]->vector, dimension * 4ull));
        }
        CHECK_FAILS(VEX_CORRUPT, vexi_index_vector_crcs(&file, 1, rows, &crcs, &err));
    }
    vex_string id;
    CHECK_FAILS(VEX_CORRUPT, vexi_index_id(&file, rows, &id, &err));
    CHECK_FAILS(VEX_CORRUPT, vexi_index_check(&file, bytes.size, 1, &err));
    CHECK_OK(vexi_index_check_all(&file, &err));
    vexi_index_close(&file);
    vexi_free(vex_test_env(), memory);
    fixture_deinit(&f);
}

TEST(round_trips) {
    round_trip(0, 8, VEX_METRIC_L2, 0, 0);
    round_trip(0, 8, VEX_METRIC_COSINE, 0, 0);
    round_trip(1, 1, VEX_METRIC_L2, 0, 0);
    round_trip(1, 3, VEX_METRIC_COSINE, 1, 0);
    round_trip(1000, 5, VEX_METRIC_IP, 0, 0);
    round_trip(1001, 16, VEX_METRIC_L2, 30, 0);
    round_trip(20000, 4, VEX_METRIC_COSINE, 141, 0);
    round_trip(1, 3, VEX_METRIC_COSINE, 1, 4);
    round_trip(33, 64, VEX_METRIC_L2, 1, 1);
    round_trip(1001, 65, VEX_METRIC_IP, 30, 8);
    round_trip(5000, 4, VEX_METRIC_COSINE, 71, 4);
}

/* Each flipped bit is found: in the head when it is opened, in the bulk when everything is checked;
 * and an untouched block serves although another is damaged. */
TEST(flipped_bits) {
    index_fixture f;
    fixture_init(&f, 3000, 2, VEX_METRIC_COSINE, 4);
    fixture_codes(&f, 4);
    vexi_span bytes;
    uint8_t *memory;
    uint32_t head_size, head_crc;
    fixture_write(&f, &bytes, &memory, &head_size, &head_crc);
    uint64_t seed = vex_test_seed(5);
    for (uint64_t trial = 0; trial < vex_test_effort(3000); trial++) {
        uint64_t bit = vex_test_below(&seed, trial % 2 == 0 ? head_size * 8 : bytes.size * 8);
        memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
        vexi_index_file file;
        vex_status status =
            vexi_index_open(vex_test_env(), bytes, head_size, head_crc, &file, NULL);
        CHECK((status != VEX_OK) == (bit / 8 < head_size));
        if (status == VEX_OK) {
            CHECK_FAILS(VEX_CORRUPT, vexi_index_check_all(&file, &err));
            size_t damaged = (bit / 8 - head_size) / VEXI_INDEX_BLOCK_SIZE;
            for (size_t block = 0; block < file.block_count; block++) {
                status =
                    vexi_index_check(&file, head_size + block * VEXI_INDEX_BLOCK_SIZE, 1, NULL);
                CHECK((status == VEX_CORRUPT) == (block == damaged));
            }
        }
        vexi_index_close(&file);
        memory[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    vexi_free(vex_test_env(), memory);
    fixture_deinit(&f);
}

TEST(every_cut_is_refused) {
    index_fixture f;
    fixture_init(&f, 20, 2, VEX_METRIC_L2, 2);
    fixture_codes(&f, 8);
    vexi_span bytes;
    uint8_t *memory;
    uint32_t head_size, head_crc;
    fixture_write(&f, &bytes, &memory, &head_size, &head_crc);
    vexi_index_file file;
    for (size_t size = 0; size < bytes.size; size++) {
        CHECK_FAILS(VEX_CORRUPT, vexi_index_open(vex_test_env(), vexi_span_of(memory, size),
                                                 head_size, head_crc, &file, &err));
    }
    CHECK_FAILS(VEX_CORRUPT,
                vexi_index_open(vex_test_env(), bytes, head_size, head_crc + 1, &file, &err));
    CHECK_FAILS(VEX_CORRUPT,
                vexi_index_open(vex_test_env(), bytes, head_size + 64, head_crc, &file, &err));
    vexi_free(vex_test_env(), memory);
    fixture_deinit(&f);
}

/* Touch every byte of the codes that a search might. */
static uint64_t touch_codes(vexi_index_file *file) {
    uint64_t sum = 0;
    if (file->code_bits == 0) {
        return sum;
    }
    for (uint32_t i = 0; i < file->code_padded; i++) {
        sum += file->origin[i] > 0;
    }
    for (uint32_t i = 0; i < file->list_count; i++) {
        sum += file->code_errors[2 * (size_t)i] > file->code_errors[2 * (size_t)i + 1];
        uint64_t offset = file->codes_offset + file->code_offsets[i];
        uint64_t size = file->code_offsets[i + 1] - file->code_offsets[i];
        if (vexi_index_check(file, offset, size, NULL) == VEX_OK) {
            for (uint64_t at = 0; at < size; at++) {
                sum += file->bytes.data[offset + at];
            }
        }
    }
    uint64_t size = vexi_index_list_size(file->code_padded, 1, file->list_count);
    for (uint64_t at = 0; at < size; at++) {
        sum += file->center_codes[at];
    }
    return sum;
}

/* A head with a valid CRC may still be wrong: any changed number is refused, or at worst harmless;
 * ASan watches what the checks let through. */
static void change_heads(uint32_t bits) {
    index_fixture f;
    fixture_init(&f, 50, 3, VEX_METRIC_COSINE, 3);
    if (bits > 0) {
        fixture_codes(&f, bits);
    }
    vexi_span bytes;
    uint8_t *memory;
    uint32_t head_size, head_crc;
    fixture_write(&f, &bytes, &memory, &head_size, &head_crc);
    uint8_t *changed = vexi_alloc_aligned(vex_test_env(), bytes.size);
    CHECK(changed != NULL);
    static const uint32_t values[] = {0,   1,   2,          4,          8,           63,         64,
                                      128, 255, 0x7f800000, 0x7fffffff, 0x80000000u, 0xffffffffu};
    size_t refused = 0, tried = 0;
    uint64_t sum = 0;
    for (size_t at = 0; at + 4 <= head_size; at += at < VEXI_HEAD_DIRECTORY ? 1 : 4) {
        for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
            memcpy(changed, memory, bytes.size);
            vexi_put_u32(changed + at, values[v]);
            if (vexi_get_u32(changed + VEXI_HEAD_SIZE) != head_size) {
                continue; /* nothing to make a CRC over */
            }
            uint32_t crc = vexi_index_head_crc(changed, head_size);
            vexi_put_u32(changed + VEXI_HEAD_CRC, crc);
            vexi_index_file file;
            vex_status status = vexi_index_open(vex_test_env(), vexi_span_of(changed, bytes.size),
                                                head_size, crc, &file, NULL);
            tried++;
            refused += status != VEX_OK;
            if (status == VEX_OK) {
                sum += touch_codes(&file);
                status = vexi_index_check_all(&file, NULL);
                CHECK(status == VEX_OK || status == VEX_CORRUPT);
            }
            vexi_index_close(&file);
        }
    }
    CHECK(refused > 0 && refused < tried);
    CHECK((sum > 0) == (bits > 0));
    vexi_free(vex_test_env(), changed);
    vexi_free(vex_test_env(), memory);
    fixture_deinit(&f);
}

TEST(changed_heads_with_valid_checksums) {
    change_heads(0);
    change_heads(1);
    change_heads(4);
}

/* Numbers of codes that contradict the rest, each refused by itself. */
TEST(codes_that_contradict) {
    index_fixture f;
    fixture_init(&f, 100, 70, VEX_METRIC_L2, 5);
    fixture_codes(&f, 4);
    vexi_span bytes;
    uint8_t *memory;
    uint32_t head_size, head_crc;
    fixture_write(&f, &bytes, &memory, &head_size, &head_crc);
    static const struct {
        size_t at;
        uint32_t value;
        vex_status status;
    } cases[] = {{VEXI_HEAD_CODE_BITS, 8, VEX_CORRUPT}, /* the codes would be longer */
                 {VEXI_HEAD_CODE_BITS, 1, VEX_CORRUPT},
                 {VEXI_HEAD_CODE_BITS, 0, VEX_CORRUPT},
                 {VEXI_HEAD_CODE_BITS, 2, VEX_UNSUPPORTED},
                 {VEXI_HEAD_CODE_PADDED, 64, VEX_CORRUPT},
                 {VEXI_HEAD_CODE_PADDED, 192, VEX_CORRUPT},
                 {VEXI_HEAD_CODE_PADDED, 0xffffffc0u, VEX_CORRUPT},
                 {VEXI_HEAD_VERSION, 1, VEX_CORRUPT},
                 {VEXI_HEAD_VERSION, 3, VEX_UNSUPPORTED}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t old = vexi_get_u32(memory + cases[i].at);
        vexi_put_u32(memory + cases[i].at, cases[i].value);
        uint32_t crc = vexi_index_head_crc(memory, head_size);
        vexi_put_u32(memory + VEXI_HEAD_CRC, crc);
        vexi_index_file file;
        CHECK_FAILS(cases[i].status,
                    vexi_index_open(vex_test_env(), bytes, head_size, crc, &file, &err));
        vexi_put_u32(memory + cases[i].at, old);
    }
    /* Floats may be anything: they are handed on as they are. */
    vexi_put_u32(memory + VEXI_HEAD_ROW_LENGTH, 0x7fc00000u);
    vexi_put_u32(memory + VEXI_HEAD_CENTER_ERROR, 0xff800000u);
    uint32_t crc = vexi_index_head_crc(memory, head_size);
    vexi_put_u32(memory + VEXI_HEAD_CRC, crc);
    vexi_index_file file;
    CHECK_OK(vexi_index_open(vex_test_env(), bytes, head_size, crc, &file, &err));
    CHECK(isnan(file.row_length) && isinf(file.center_error));
    vexi_index_close(&file);
    vexi_free(vex_test_env(), memory);
    fixture_deinit(&f);
}

static vex_status refuse_lists(void *context, uint8_t *out, vex_error *err) {
    (void)context;
    (void)out;
    return vexi_fail(err, VEX_CANCELLED, "enough");
}

TEST(codes_that_fail) {
    index_fixture f;
    fixture_init(&f, 100, 70, VEX_METRIC_L2, 5);
    fixture_codes(&f, 4);
    f.codes.write_lists = refuse_lists;
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1 << 20);
    uint32_t head_size, head_crc;
    CHECK_FAILS(VEX_CANCELLED,
                vexi_index_write(vex_test_env(), &f.input, &out, &head_size, &head_crc, &err));
    CHECK_EQ(out.size, 0);
    vexi_buffer_deinit(&out);
    fixture_deinit(&f);
}

TEST(versions_types_and_sections) {
    index_fixture f;
    fixture_init(&f, 5, 3, VEX_METRIC_L2, 0);
    vexi_span bytes;
    uint8_t *memory;
    uint32_t head_size, head_crc;
    fixture_write(&f, &bytes, &memory, &head_size, &head_crc);
    static const struct {
        size_t at;
        uint8_t value;
    } cases[] = {{VEXI_HEAD_VERSION, 3},
                 {VEXI_HEAD_ELEMENT, 2},
                 {VEXI_HEAD_METRIC, 3},
                 {VEXI_HEAD_KIND, 3},
                 {VEXI_HEAD_DIRECTORY, 40}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t old = memory[cases[i].at];
        memory[cases[i].at] = cases[i].value;
        uint32_t crc = vexi_index_head_crc(memory, head_size);
        vexi_put_u32(memory + VEXI_HEAD_CRC, crc);
        vexi_index_file file;
        CHECK_FAILS(VEX_UNSUPPORTED,
                    vexi_index_open(vex_test_env(), bytes, head_size, crc, &file, &err));
        memory[cases[i].at] = old;
    }
    vexi_free(vex_test_env(), memory);
    fixture_deinit(&f);
}

typedef struct finder {
    vexi_index_file *file;
    const index_fixture *fixture;
    size_t found_count; /* atomic */
} finder;

static void find_some(void *argument, size_t part) {
    finder *f = argument;
    for (size_t i = part; i < f->fixture->input.row_count; i += 8) {
        vex_string id = f->fixture->input.rows[i]->id;
        bool found;
        uint64_t row;
        CHECK_OK(vexi_index_find(f->file, id, vexi_hash64(id.data, id.size), &found, &row, &err));
        CHECK(found && row == i);
        __atomic_fetch_add(&f->found_count, 1, __ATOMIC_RELAXED);
    }
}

/* Several threads touch the same blocks for the first time. */
TEST(threads_read_one_file) {
    index_fixture f;
    fixture_init(&f, 30000, 2, VEX_METRIC_L2, 0);
    vexi_span bytes;
    uint8_t *memory;
    uint32_t head_size, head_crc;
    fixture_write(&f, &bytes, &memory, &head_size, &head_crc);
    vexi_index_file file;
    CHECK_OK(vexi_index_open(vex_test_env(), bytes, head_size, head_crc, &file, &err));
    finder work = {.file = &file, .fixture = &f};
    vexi_parallel(vex_test_env(), 8, find_some, &work);
    CHECK_EQ(work.found_count, 30000);
    vexi_index_close(&file);
    vexi_free(vex_test_env(), memory);
    fixture_deinit(&f);
}

TEST(two_rows_of_one_id_are_refused) {
    index_fixture f;
    fixture_init(&f, 5, 3, VEX_METRIC_L2, 0);
    vexi_row copy = *f.input.rows[4];
    copy.id = f.input.rows[1]->id;
    const vexi_row *rows[5];
    memcpy(rows, f.input.rows, sizeof rows);
    rows[4] = &copy;
    f.input.rows = rows;
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1 << 20);
    uint32_t head_size, head_crc;
    CHECK_FAILS(VEX_INVALID,
                vexi_index_write(vex_test_env(), &f.input, &out, &head_size, &head_crc, &err));
    vexi_buffer_deinit(&out);
    fixture_deinit(&f);
}

TEST_MAIN(RUN(round_trips); RUN(flipped_bits); RUN(every_cut_is_refused);
          RUN(changed_heads_with_valid_checksums); RUN(codes_that_contradict); RUN(codes_that_fail);
          RUN(versions_types_and_sections); RUN(threads_read_one_file);
          RUN(two_rows_of_one_id_are_refused))
