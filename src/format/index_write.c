/* Writing index files.
 *
 * Sections are planned first (kind, size), which fixes every offset and the size of the file; then
 * each is written in place and the checksums are made: blocks of the bulk into their section of
 * the head, the head's own last.
 *
 * The id table has open addressing with linear probing at a load of 0.6. The top 32 bits of the
 * hash choose the slot and the low 32 are the tag, so a search compares ids about once in four
 * billion misses; the file names the longest probe, so that a miss ends there even in a hostile
 * file. */
#include <math.h>

#include "format/index_internal.h"

enum { HEAD_ROUND_MIN = 4 * VEXI_INDEX_BLOCK_SIZE };

typedef struct section {
    uint32_t kind;
    uint64_t offset;
    uint64_t size;
} section;

typedef struct file_plan {
    section sections[VEXI_SECTION_COUNT_MAX];
    uint32_t count;
    uint64_t head_size;
    uint64_t file_size;
    uint64_t ids_size;
    uint64_t slot_count;
    uint32_t page_count;
    uint32_t block_count;
} file_plan;

static void plan_add(file_plan *plan, uint32_t kind, uint64_t size) {
    if (size > 0) {
        VEX_ASSERT(plan->count < VEXI_SECTION_COUNT_MAX);
        plan->sections[plan->count++] = (section){.kind = kind | VEXI_SECTION_MUST, .size = size};
    }
}

static uint64_t align_up(uint64_t size) {
    return (size + VEXI_INDEX_ALIGNMENT - 1) & ~(uint64_t)(VEXI_INDEX_ALIGNMENT - 1);
}

/* Place the sections from `first` on behind `offset`; returns the aligned end. */
static uint64_t plan_place(file_plan *plan, uint32_t first, uint64_t offset) {
    for (uint32_t i = first; i < plan->count; i++) {
        offset = align_up(offset);
        plan->sections[i].offset = offset;
        offset += plan->sections[i].size;
    }
    return align_up(offset);
}

/* Bytes of all lists' codes. */
static uint64_t codes_size(const vexi_index_input *input) {
    uint64_t size = 0;
    for (uint32_t i = 0; i < input->list_count; i++) {
        size += vexi_index_list_size(input->codes->padded, input->codes->bits,
                                     input->list_first[i + 1] - input->list_first[i]);
    }
    return size;
}

static void plan_codes_head(file_plan *plan, const vexi_index_input *input) {
    const vexi_index_codes *codes = input->codes;
    if (codes == NULL) {
        return;
    }
    uint64_t centers_size = vexi_index_list_size(codes->padded, 1, input->list_count);
    VEX_ASSERT(input->list_count > 0 && vexi_schema_bits_valid(codes->bits));
    VEX_ASSERT(codes->padded == vexi_index_padded(input->schema->dimension));
    VEX_ASSERT(codes->center_codes_size == centers_size);
    VEX_ASSERT(codes->lists_size == codes_size(input));
    plan_add(plan, VEXI_SECTION_ORIGIN, codes->padded * (uint64_t)4);
    plan_add(plan, VEXI_SECTION_CODE_ERRORS, input->list_count * (uint64_t)8);
    plan_add(plan, VEXI_SECTION_CENTER_CODES, centers_size);
    plan_add(plan, VEXI_SECTION_CALIBRATION, VEXI_INDEX_CALIBRATION_COUNT * (uint64_t)4);
}

static vex_status plan_file(file_plan *plan, const vexi_index_input *input, vex_error *err) {
    const vexi_segment_layout *layout = input->layout;
    uint64_t rows = input->row_count;
    uint64_t dimension = input->schema->dimension;
    uint64_t chunk_count = (uint64_t)layout->column_count * layout->row_group_count;
    VEX_ASSERT(rows <= UINT32_MAX - 1 && layout->row_count == rows);
    VEX_ASSERT(dimension >= 1 && dimension <= VEX_DIMENSION_MAX);
    VEX_ASSERT(input->list_count <= rows);
    plan->page_count = layout->page_first[chunk_count];
    for (size_t i = 0; i < input->row_count; i++) {
        plan->ids_size += input->rows[i]->id.size;
    }
    if (plan->ids_size > UINT32_MAX) {
        return vexi_fail(err, VEX_LIMIT, "ids of %llu bytes in one segment",
                         (unsigned long long)plan->ids_size);
    }
    plan->slot_count = align_up(rows * 5 / 3 + 1);

    plan_add(plan, VEXI_SECTION_ROW_GROUPS,
             layout->row_group_count * (uint64_t)VEXI_ROW_GROUP_SIZE);
    plan_add(plan, VEXI_SECTION_PAGE_FIRST, (chunk_count + 1) * 4);
    plan_add(plan, VEXI_SECTION_PAGES, plan->page_count * (uint64_t)VEXI_PAGE_SIZE);
    if (input->list_count > 0) {
        plan_add(plan, VEXI_SECTION_LIST_FIRST, ((uint64_t)input->list_count + 1) * 4);
        plan_add(plan, VEXI_SECTION_CENTROIDS, input->list_count * dimension * 4);
        plan_add(plan, VEXI_SECTION_RADII, (uint64_t)input->list_count * 4);
    }
    plan_codes_head(plan, input);
    uint32_t bulk_first = plan->count;
    /* Codes come first: what a search reads stands together. */
    plan_add(plan, VEXI_SECTION_LIST_CODES, input->codes == NULL ? 0 : input->codes->lists_size);
    if (input->schema->metric == VEX_METRIC_COSINE) {
        plan_add(plan, VEXI_SECTION_NORMS, rows * 4);
    }
    plan_add(plan, VEXI_SECTION_VECTOR_CRCS, rows * 4);
    plan_add(plan, VEXI_SECTION_ID_OFFSETS, (rows + 1) * 4);
    plan_add(plan, VEXI_SECTION_IDS, plan->ids_size);
    plan_add(plan, VEXI_SECTION_ID_HASH, plan->slot_count * VEXI_HASH_SLOT_SIZE);

    /* The bulk's size gives the number of blocks, whose section ends the head. */
    uint64_t bulk_size = plan_place(plan, bulk_first, 0);
    if (bulk_size / VEXI_INDEX_BLOCK_SIZE >= VEXI_INDEX_HEAD_SIZE_MAX / 4) {
        return vexi_fail(err, VEX_LIMIT, "an index of %llu bytes", (unsigned long long)bulk_size);
    }
    plan->block_count = (uint32_t)((bulk_size + VEXI_INDEX_BLOCK_SIZE - 1) / VEXI_INDEX_BLOCK_SIZE);
    section bulk[VEXI_SECTION_COUNT_MAX];
    uint32_t bulk_count = plan->count - bulk_first;
    memcpy(bulk, plan->sections + bulk_first, bulk_count * sizeof *bulk);
    plan->count = bulk_first;
    plan_add(plan, VEXI_SECTION_BLOCK_CRCS, (uint64_t)plan->block_count * 4);
    uint64_t directory_size = ((uint64_t)plan->count + bulk_count) * VEXI_SECTION_ENTRY_SIZE;
    plan->head_size = plan_place(plan, 0, VEXI_HEAD_DIRECTORY + directory_size);
    /* Caches keep blocks of the same size, of the file: where it costs little, those of the bulk
     * lie as they do, so that one of these is not two of theirs. */
    if (plan->head_size >= HEAD_ROUND_MIN) {
        plan->head_size = (plan->head_size + VEXI_INDEX_BLOCK_SIZE - 1) / VEXI_INDEX_BLOCK_SIZE *
                          VEXI_INDEX_BLOCK_SIZE;
    }
    if (plan->head_size > VEXI_INDEX_HEAD_SIZE_MAX) {
        return vexi_fail(err, VEX_LIMIT, "an index head of %llu bytes",
                         (unsigned long long)plan->head_size);
    }
    for (uint32_t i = 0; i < bulk_count; i++) {
        bulk[i].offset += plan->head_size;
        plan->sections[plan->count++] = bulk[i];
    }
    plan->file_size = plan->head_size + bulk_size;
    return VEX_OK;
}

/* Where a section's bytes go; NULL if the plan has none of that kind. */
static uint8_t *place(const file_plan *plan, uint8_t *file, uint32_t kind) {
    for (uint32_t i = 0; i < plan->count; i++) {
        if (plan->sections[i].kind == (kind | VEXI_SECTION_MUST)) {
            return file + plan->sections[i].offset;
        }
    }
    return NULL;
}

static void write_header(const file_plan *plan, const vexi_index_input *input, uint8_t *file) {
    const vexi_segment_layout *layout = input->layout;
    memcpy(file + VEXI_HEAD_MAGIC, vexi_index_magic, sizeof vexi_index_magic);
    vexi_put_u32(file + VEXI_HEAD_VERSION,
                 input->codes != NULL ? VEXI_INDEX_VERSION : VEXI_INDEX_VERSION_PLAIN);
    vexi_put_u32(file + VEXI_HEAD_SIZE, (uint32_t)plan->head_size);
    vexi_put_u64(file + VEXI_HEAD_FILE_SIZE, plan->file_size);
    memcpy(file + VEXI_HEAD_SEGMENT, input->segment, 36);
    file[VEXI_HEAD_ELEMENT] = VEXI_INDEX_ELEMENT_FLOAT32;
    file[VEXI_HEAD_METRIC] = (uint8_t)input->schema->metric;
    file[VEXI_HEAD_KIND] = input->list_count > 0 ? VEX_INDEX_IVF : VEX_INDEX_FLAT;
    vexi_put_u32(file + VEXI_HEAD_DIMENSION, input->schema->dimension);
    vexi_put_u32(file + VEXI_HEAD_STRIDE, input->schema->dimension * 4);
    vexi_put_u32(file + VEXI_HEAD_ROW_COUNT, (uint32_t)input->row_count);
    vexi_put_u32(file + VEXI_HEAD_LIST_COUNT, input->list_count);
    vexi_put_u32(file + VEXI_HEAD_SECTION_COUNT, plan->count);
    vexi_put_u64(file + VEXI_HEAD_VECTOR_BASE,
                 layout->row_group_count > 0 ? layout->row_groups[0].vector_offset : 0);
    vexi_put_u32(file + VEXI_HEAD_BLOCK_SIZE, VEXI_INDEX_BLOCK_SIZE);
    vexi_put_u32(file + VEXI_HEAD_BLOCK_COUNT, plan->block_count);
    vexi_put_u64(file + VEXI_HEAD_SEGMENT_SIZE, layout->file_size);
    vexi_put_u64(file + VEXI_HEAD_FOOTER_OFFSET, layout->footer_offset);
    vexi_put_u32(file + VEXI_HEAD_FOOTER_CRC, layout->footer_crc);
    vexi_put_u32(file + VEXI_HEAD_ROW_GROUP_COUNT, layout->row_group_count);
    vexi_put_u32(file + VEXI_HEAD_COLUMN_COUNT, layout->column_count);
    vexi_put_u32(file + VEXI_HEAD_PAGE_COUNT, plan->page_count);
    if (input->codes != NULL) {
        vexi_put_u32(file + VEXI_HEAD_CODE_BITS, input->codes->bits);
        vexi_put_u32(file + VEXI_HEAD_CODE_PADDED, input->codes->padded);
        vexi_put_f32(file + VEXI_HEAD_ROW_LENGTH, input->codes->row_length);
        vexi_put_u64(file + VEXI_HEAD_ROTATION_SEED, input->codes->rotation_seed);
        vexi_put_f32(file + VEXI_HEAD_CENTER_ERROR, input->codes->center_error);
    }
    for (uint32_t i = 0; i < plan->count; i++) {
        uint8_t *entry = file + VEXI_HEAD_DIRECTORY + i * (size_t)VEXI_SECTION_ENTRY_SIZE;
        vexi_put_u32(entry, plan->sections[i].kind);
        vexi_put_u64(entry + 8, plan->sections[i].offset);
        vexi_put_u64(entry + 16, plan->sections[i].size);
    }
}

static void write_layout(const file_plan *plan, const vexi_segment_layout *layout, uint8_t *file) {
    uint8_t *p = place(plan, file, VEXI_SECTION_ROW_GROUPS);
    for (uint32_t i = 0; i < layout->row_group_count; i++, p += VEXI_ROW_GROUP_SIZE) {
        vexi_put_u64(p, layout->row_groups[i].vector_offset);
        vexi_put_u32(p + 8, layout->row_groups[i].first_row);
        vexi_put_u32(p + 12, layout->row_groups[i].row_count);
    }
    p = place(plan, file, VEXI_SECTION_PAGE_FIRST);
    uint64_t chunk_count = (uint64_t)layout->column_count * layout->row_group_count;
    for (uint64_t i = 0; i <= chunk_count; i++, p += 4) {
        vexi_put_u32(p, layout->page_first[i]);
    }
    p = place(plan, file, VEXI_SECTION_PAGES);
    for (uint32_t i = 0; i < plan->page_count; i++, p += VEXI_PAGE_SIZE) {
        vexi_put_u64(p, layout->pages[i].offset);
        vexi_put_u32(p + 8, layout->pages[i].size_bytes);
        vexi_put_u32(p + 12, layout->pages[i].first_row);
        vexi_put_u32(p + 16, layout->pages[i].row_count);
    }
}

/* Float32s go out as they lie in memory: the format is little-endian, and so is every machine that
 * this builds for. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "vectors are written as in memory");

static void write_lists(const file_plan *plan, const vexi_index_input *input, uint8_t *file) {
    if (input->list_count == 0) {
        return;
    }
    uint8_t *p = place(plan, file, VEXI_SECTION_LIST_FIRST);
    for (uint32_t i = 0; i <= input->list_count; i++, p += 4) {
        vexi_put_u32(p, input->list_first[i]);
    }
    VEX_ASSERT(input->list_first[0] == 0 &&
               input->list_first[input->list_count] == input->row_count);
    memcpy(place(plan, file, VEXI_SECTION_CENTROIDS), input->centroids,
           (size_t)input->list_count * input->schema->dimension * 4);
    memcpy(place(plan, file, VEXI_SECTION_RADII), input->radii, (size_t)input->list_count * 4);
}

/* The lists' bytes go straight to their place, aligned as sections and buffers are. The errors are
 * known when they are written. */
static vex_status write_codes(const file_plan *plan, const vexi_index_input *input, uint8_t *file,
                              vex_error *err) {
    const vexi_index_codes *codes = input->codes;
    if (codes == NULL) {
        return VEX_OK;
    }
    VEX_TRY(codes->write_lists(codes->context, place(plan, file, VEXI_SECTION_LIST_CODES), err));
    memcpy(place(plan, file, VEXI_SECTION_ORIGIN), codes->origin, codes->padded * (size_t)4);
    memcpy(place(plan, file, VEXI_SECTION_CODE_ERRORS), codes->errors,
           input->list_count * (size_t)8);
    memcpy(place(plan, file, VEXI_SECTION_CENTER_CODES), codes->center_codes,
           (size_t)codes->center_codes_size);
    uint8_t *p = place(plan, file, VEXI_SECTION_CALIBRATION);
    for (uint32_t i = 0; i < VEXI_INDEX_CALIBRATION_COUNT; i++) {
        vexi_put_u32(p + i * (size_t)4, codes->calibration[i]);
    }
    return VEX_OK;
}

static void write_rows(const file_plan *plan, const vexi_index_input *input, uint8_t *file) {
    uint32_t dimension = input->schema->dimension;
    uint8_t *norms = place(plan, file, VEXI_SECTION_NORMS);
    uint8_t *crcs = place(plan, file, VEXI_SECTION_VECTOR_CRCS);
    uint8_t *offsets = place(plan, file, VEXI_SECTION_ID_OFFSETS);
    uint8_t *ids = place(plan, file, VEXI_SECTION_IDS);
    uint32_t id_offset = 0;
    for (size_t i = 0; i < input->row_count; i++) {
        const vexi_row *row = input->rows[i];
        vexi_put_u32(crcs + i * 4, vexi_crc32c(0, row->vector, (size_t)dimension * 4));
        vexi_put_u32(offsets + i * 4, id_offset);
        memcpy(ids + id_offset, row->id.data, row->id.size);
        id_offset += (uint32_t)row->id.size;
        if (norms != NULL) {
            double sum = 0;
            for (uint32_t k = 0; k < dimension; k++) {
                sum += (double)row->vector[k] * (double)row->vector[k];
            }
            float inverse = sum > 0 ? (float)(1.0 / sqrt(sum)) : 0.0f;
            memcpy(norms + i * 4, &inverse, sizeof inverse);
        }
    }
    vexi_put_u32(offsets + input->row_count * 4, id_offset);
}

static vex_status write_hash(const file_plan *plan, const vexi_index_input *input, uint8_t *file,
                             vex_error *err) {
    uint8_t *slots = place(plan, file, VEXI_SECTION_ID_HASH);
    uint32_t probe_max = 0;
    for (size_t i = 0; i < input->row_count; i++) {
        vex_string id = input->rows[i]->id;
        uint64_t hash = vexi_hash64(id.data, id.size);
        uint64_t slot = vexi_index_slot(hash, plan->slot_count);
        uint32_t probe = 1;
        for (;; probe++) {
            uint8_t *p = slots + slot * VEXI_HASH_SLOT_SIZE;
            uint32_t other = vexi_get_u32(p + 4);
            if (other == 0) {
                vexi_put_u32(p, vexi_index_tag(hash));
                vexi_put_u32(p + 4, (uint32_t)i + 1);
                break;
            }
            if (vexi_get_u32(p) == vexi_index_tag(hash) &&
                vexi_string_equal(input->rows[other - 1]->id, id)) {
                return vexi_fail_row(err, VEX_INVALID, (int64_t)i,
                                     "two rows of a segment have the "
                                     "id '%.*s'",
                                     (int)id.size, id.data);
            }
            slot = slot + 1 == plan->slot_count ? 0 : slot + 1;
        }
        probe_max = probe > probe_max ? probe : probe_max;
    }
    vexi_put_u32(file + VEXI_HEAD_PROBE_MAX, probe_max);
    return VEX_OK;
}

vex_status vexi_index_write(const vexi_env *env, const vexi_index_input *input, vexi_buffer *out,
                            uint32_t *head_size, uint32_t *head_crc, vex_error *err) {
    (void)env; /* everything is written in place */
    *head_size = 0;
    *head_crc = 0;
    VEX_ASSERT(out->size == 0);
    file_plan plan = {.count = 0};
    VEX_TRY(plan_file(&plan, input, err));
    uint8_t *file = vexi_buffer_reserve(out, plan.file_size);
    if (file == NULL) {
        return vexi_buffer_check(out, err);
    }
    VEX_ASSERT((uintptr_t)file % VEXI_INDEX_ALIGNMENT == 0);
    memset(file, 0, plan.file_size);
    write_header(&plan, input, file);
    write_layout(&plan, input->layout, file);
    write_lists(&plan, input, file);
    VEX_TRY(write_codes(&plan, input, file, err));
    write_rows(&plan, input, file);
    VEX_TRY(write_hash(&plan, input, file, err));

    uint8_t *crcs = place(&plan, file, VEXI_SECTION_BLOCK_CRCS);
    for (uint32_t b = 0; b < plan.block_count; b++) {
        uint64_t offset = plan.head_size + (uint64_t)b * VEXI_INDEX_BLOCK_SIZE;
        uint64_t rest = plan.file_size - offset;
        size_t size = rest < VEXI_INDEX_BLOCK_SIZE ? (size_t)rest : VEXI_INDEX_BLOCK_SIZE;
        vexi_put_u32(crcs + (size_t)b * 4, vexi_crc32c(0, file + offset, size));
    }
    *head_size = (uint32_t)plan.head_size;
    *head_crc = vexi_index_head_crc(file, plan.head_size);
    vexi_put_u32(file + VEXI_HEAD_CRC, *head_crc);
    out->size = plan.file_size;
    return VEX_OK;
}
