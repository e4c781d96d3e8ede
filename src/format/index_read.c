/* Reading index files.
 *
 * Opening checks the head once (its CRC, then every count, offset and order in it), copies the
 * Parquet layout and the list directory out of it, and remembers where the bulk sections are. The
 * bulk is checked block by block, when a block is first touched: `block_checked` has a byte a
 * block, set after the CRC matched. Two threads may check one block at the same time; both find the
 * same.
 *
 * Where a store cannot map, `bytes` is memory of the file's size of which the head was filled;
 * blocks are fetched when they are first needed (index_need.c) and stay, so a segment in use holds
 * what searches needed of it and no page more.
 *
 * The CRCs show damage, not intent: a file may be made with any content and valid CRCs. So what
 * the bulk holds (row numbers, id offsets) is compared with its bounds at each use. */
#include "format/index_internal.h"

enum { CHECK_BLOCKS = 128 }; /* fetched at once when all are checked */

typedef struct head_sections {
    vexi_span known[VEXI_SECTION_KNOWN]; /* by kind; data NULL: not there */
} head_sections;

static vex_status corrupt(vex_error *err, const char *what) {
    return vexi_fail(err, VEX_CORRUPT, "index file: %s", what);
}

/* ---- Head ------------------------------------------------------------------------------------ */

static vex_status read_header(vexi_span bytes, uint32_t head_size, uint32_t head_crc,
                              vex_error *err) {
    const uint8_t *p = bytes.data;
    if (bytes.size < VEXI_HEAD_DIRECTORY) {
        return corrupt(err, "too short for a head");
    }
    if (memcmp(p + VEXI_HEAD_MAGIC, vexi_index_magic, sizeof vexi_index_magic) != 0) {
        return corrupt(err, "not an index file");
    }
    uint32_t size = vexi_get_u32(p + VEXI_HEAD_SIZE);
    if (size != head_size || size > bytes.size || size < VEXI_HEAD_DIRECTORY ||
        size > VEXI_INDEX_HEAD_SIZE_MAX || size % VEXI_INDEX_ALIGNMENT != 0) {
        return corrupt(err, "the head has another size than the log tells");
    }
    uint32_t crc = vexi_get_u32(p + VEXI_HEAD_CRC);
    if (crc != head_crc || crc != vexi_index_head_crc(p, size)) {
        return corrupt(err, "the head does not match its checksum");
    }
    uint32_t version = vexi_get_u32(p + VEXI_HEAD_VERSION);
    if (version > VEXI_INDEX_VERSION) {
        return vexi_fail(err, VEX_UNSUPPORTED,
                         "index file of format version %u; this program knows %d", version,
                         VEXI_INDEX_VERSION);
    }
    if (version == 0 || vexi_get_u64(p + VEXI_HEAD_FILE_SIZE) != bytes.size) {
        return corrupt(err, "the file has another size than its head tells");
    }
    if (p[VEXI_HEAD_ELEMENT] != VEXI_INDEX_ELEMENT_FLOAT32) {
        return vexi_fail(err, VEX_UNSUPPORTED, "index file over vectors of element type %u",
                         p[VEXI_HEAD_ELEMENT]);
    }
    return VEX_OK;
}

/* Known sections by kind; each inside the file, aligned, in the head or behind it as it must. */
static vex_status read_directory(vexi_span bytes, uint32_t head_size, head_sections *out,
                                 vex_error *err) {
    uint32_t count = vexi_get_u32(bytes.data + VEXI_HEAD_SECTION_COUNT);
    if (count > VEXI_SECTION_COUNT_MAX ||
        VEXI_HEAD_DIRECTORY + count * (uint64_t)VEXI_SECTION_ENTRY_SIZE > head_size) {
        return corrupt(err, "the section directory is too long");
    }
    *out = (head_sections){.known = {{NULL, 0}}};
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry =
            bytes.data + VEXI_HEAD_DIRECTORY + i * (size_t)VEXI_SECTION_ENTRY_SIZE;
        uint32_t kind = vexi_get_u32(entry) & ~VEXI_SECTION_MUST;
        uint64_t offset = vexi_get_u64(entry + 8);
        uint64_t size = vexi_get_u64(entry + 16);
        if (offset > bytes.size || size > bytes.size - offset ||
            offset % VEXI_INDEX_ALIGNMENT != 0) {
            return corrupt(err, "a section reaches out of the file");
        }
        bool is_head = kind >= VEXI_SECTION_ROW_GROUPS && kind <= VEXI_SECTION_HEAD_LAST;
        bool is_bulk = kind >= VEXI_SECTION_NORMS && kind <= VEXI_SECTION_BULK_LAST;
        if (!is_head && !is_bulk) {
            if ((vexi_get_u32(entry) & VEXI_SECTION_MUST) != 0) {
                return vexi_fail(err, VEX_UNSUPPORTED, "index file with an unknown section %u",
                                 kind);
            }
            continue;
        }
        if (is_head ? offset + size > head_size : offset < head_size) {
            return corrupt(err, "a section is not where it belongs");
        }
        if (out->known[kind].data != NULL) {
            return corrupt(err, "a section stands twice");
        }
        out->known[kind] = vexi_span_of(bytes.data + offset, (size_t)size);
    }
    return VEX_OK;
}

static bool section_is(const head_sections *sections, uint32_t kind, uint64_t size) {
    return sections->known[kind].size == size;
}

static uint64_t offset_of(const vexi_index_file *file, const head_sections *s, uint32_t kind) {
    return s->known[kind].data == NULL ? 0 : (uint64_t)(s->known[kind].data - file->bytes.data);
}

/* Everything in one allocation behind `memory`. */
typedef struct index_memory {
    vexi_row_group *row_groups;
    uint32_t *page_first;
    vexi_page *pages;
    uint32_t *list_first;
    uint64_t *code_offsets;
    uint8_t *block_checked;
} index_memory;

static void *carve(uint8_t **next, size_t size) {
    void *result = *next;
    *next += (size + 15) & ~(size_t)15;
    return result;
}

static vex_status read_allocate(const vexi_env *env, vexi_index_file *out, size_t chunk_count,
                                uint32_t page_count, index_memory *memory, vex_error *err) {
    /* All counts are backed by bytes of the file, which fit in memory. */
    size_t groups_size = out->layout.row_group_count * sizeof(vexi_row_group);
    size_t first_size = (chunk_count + 1) * sizeof(uint32_t);
    size_t pages_size = page_count * sizeof(vexi_page);
    size_t lists_size = ((size_t)out->list_count + 1) * sizeof(uint32_t);
    size_t offsets_size =
        out->code_bits == 0 ? 0 : ((size_t)out->list_count + 1) * sizeof(uint64_t);
    size_t total = groups_size + first_size + pages_size + lists_size + offsets_size +
                   out->block_count + 6 * 16;
    out->memory = vexi_calloc(env, 1, total);
    if (out->memory == NULL) {
        return vexi_no_memory(err, total);
    }
    uint8_t *next = out->memory;
    memory->row_groups = carve(&next, groups_size);
    memory->page_first = carve(&next, first_size);
    memory->pages = carve(&next, pages_size);
    memory->list_first = carve(&next, lists_size);
    memory->code_offsets = carve(&next, offsets_size);
    memory->block_checked = carve(&next, out->block_count);
    return VEX_OK;
}

static vex_status read_row_groups(const vexi_index_file *file, const uint8_t *p,
                                  vexi_row_group *out, vex_error *err) {
    uint64_t next_row = 0;
    for (uint32_t i = 0; i < file->layout.row_group_count; i++, p += VEXI_ROW_GROUP_SIZE) {
        out[i].vector_offset = vexi_get_u64(p);
        out[i].first_row = vexi_get_u32(p + 8);
        out[i].row_count = vexi_get_u32(p + 12);
        uint64_t size = (uint64_t)out[i].row_count * file->vector_stride;
        if (out[i].row_count == 0 || out[i].first_row != next_row ||
            out[i].vector_offset > file->layout.footer_offset ||
            size > file->layout.footer_offset - out[i].vector_offset) {
            return corrupt(err, "a row group is out of place");
        }
        next_row += out[i].row_count;
    }
    return next_row == file->row_count ? VEX_OK : corrupt(err, "rows and row groups differ");
}

/* Pages of one column in one row group: behind each other, covering its rows; the first may be a
 * dictionary, with none. A column that the file lacks has no page. */
static vex_status check_chunk(const vexi_index_file *file, const vexi_row_group *group,
                              const vexi_page *pages, uint32_t first, uint32_t end,
                              vex_error *err) {
    uint64_t next_row = group->first_row;
    for (uint32_t i = first; i < end; i++) {
        const vexi_page *page = &pages[i];
        if (page->offset > file->layout.footer_offset ||
            page->size_bytes > file->layout.footer_offset - page->offset) {
            return corrupt(err, "a page reaches out of the Parquet file");
        }
        if (page->first_row != next_row || (page->row_count == 0 && i > first)) {
            return corrupt(err, "a page is out of place");
        }
        next_row += page->row_count;
    }
    if (end > first && next_row != (uint64_t)group->first_row + group->row_count) {
        return corrupt(err, "the pages of a column do not cover its rows");
    }
    return VEX_OK;
}

static vex_status read_pages(const vexi_index_file *file, const head_sections *sections,
                             size_t chunk_count, uint32_t page_count, index_memory *memory,
                             vex_error *err) {
    const uint8_t *p = sections->known[VEXI_SECTION_PAGES].data;
    for (uint32_t i = 0; i < page_count; i++, p += VEXI_PAGE_SIZE) {
        memory->pages[i] = (vexi_page){.offset = vexi_get_u64(p),
                                       .size_bytes = vexi_get_u32(p + 8),
                                       .first_row = vexi_get_u32(p + 12),
                                       .row_count = vexi_get_u32(p + 16)};
    }
    p = sections->known[VEXI_SECTION_PAGE_FIRST].data;
    for (size_t i = 0; i <= chunk_count; i++) {
        memory->page_first[i] = vexi_get_u32(p + i * 4);
        uint32_t least = i == 0 ? 0 : memory->page_first[i - 1];
        if (memory->page_first[i] < least || memory->page_first[i] > page_count) {
            return corrupt(err, "the page map is out of order");
        }
    }
    if (memory->page_first[0] != 0 || memory->page_first[chunk_count] != page_count) {
        return corrupt(err, "the page map has another length than the head tells");
    }
    for (size_t i = 0; i < chunk_count; i++) {
        VEX_TRY(check_chunk(file, &memory->row_groups[i % file->layout.row_group_count],
                            memory->pages, memory->page_first[i], memory->page_first[i + 1], err));
    }
    return VEX_OK;
}

static vex_status read_lists(vexi_index_file *file, const head_sections *sections,
                             index_memory *memory, vex_error *err) {
    if (file->list_count == 0) {
        return VEX_OK;
    }
    const uint8_t *p = sections->known[VEXI_SECTION_LIST_FIRST].data;
    for (uint32_t i = 0; i <= file->list_count; i++) {
        memory->list_first[i] = vexi_get_u32(p + (size_t)i * 4);
        if (memory->list_first[i] > file->row_count ||
            (i > 0 && memory->list_first[i] < memory->list_first[i - 1])) {
            return corrupt(err, "the list directory is out of order");
        }
    }
    if (memory->list_first[0] != 0 || memory->list_first[file->list_count] != file->row_count) {
        return corrupt(err, "the lists do not cover the rows");
    }
    /* Sections are 64-byte aligned in the file, and so is the file. */
    file->centroids = (const float *)(const void *)sections->known[VEXI_SECTION_CENTROIDS].data;
    file->radii = (const float *)(const void *)sections->known[VEXI_SECTION_RADII].data;
    file->list_first = memory->list_first;
    return VEX_OK;
}

/* Where each list's codes begin, by the counts alone; the section must be as long as that. */
static vex_status read_codes(vexi_index_file *file, const head_sections *sections,
                             index_memory *memory, vex_error *err) {
    if (file->code_bits == 0) {
        return VEX_OK;
    }
    uint64_t offset = 0;
    for (uint32_t i = 0; i < file->list_count; i++) {
        memory->code_offsets[i] = offset;
        offset += vexi_index_list_size(file->code_padded, file->code_bits,
                                       memory->list_first[i + 1] - memory->list_first[i]);
    }
    memory->code_offsets[file->list_count] = offset;
    if (!section_is(sections, VEXI_SECTION_LIST_CODES, offset)) {
        return corrupt(err, "the codes have another size than the lists tell");
    }
    file->origin = (const float *)(const void *)sections->known[VEXI_SECTION_ORIGIN].data;
    file->code_errors = (const float *)(const void *)sections->known[VEXI_SECTION_CODE_ERRORS].data;
    file->center_codes = sections->known[VEXI_SECTION_CENTER_CODES].data;
    const uint8_t *p = sections->known[VEXI_SECTION_CALIBRATION].data;
    for (uint32_t i = 0; i < VEXI_INDEX_CALIBRATION_COUNT; i++) {
        file->calibration[i] = vexi_get_u32(p + i * (size_t)4);
    }
    file->codes_offset = offset_of(file, sections, VEXI_SECTION_LIST_CODES);
    file->code_offsets = memory->code_offsets;
    return VEX_OK;
}

/* Counts of the header against the sizes of the sections that they stand for. */
static vex_status check_sizes(const vexi_index_file *file, const head_sections *s,
                              size_t chunk_count, uint32_t page_count, vex_error *err) {
    uint64_t rows = file->row_count;
    uint64_t lists = file->list_count;
    bool coded = file->code_bits != 0;
    bool cosine = file->metric == VEX_METRIC_COSINE;
    bool fit =
        section_is(s, VEXI_SECTION_ROW_GROUPS,
                   file->layout.row_group_count * (uint64_t)VEXI_ROW_GROUP_SIZE) &&
        section_is(s, VEXI_SECTION_PAGE_FIRST, ((uint64_t)chunk_count + 1) * 4) &&
        section_is(s, VEXI_SECTION_PAGES, page_count * (uint64_t)VEXI_PAGE_SIZE) &&
        section_is(s, VEXI_SECTION_LIST_FIRST, lists == 0 ? 0 : (lists + 1) * 4) &&
        section_is(s, VEXI_SECTION_CENTROIDS, lists * file->dimension * 4) &&
        section_is(s, VEXI_SECTION_RADII, lists * 4) &&
        section_is(s, VEXI_SECTION_ORIGIN, file->code_padded * (uint64_t)4) &&
        section_is(s, VEXI_SECTION_CODE_ERRORS, coded ? lists * 8 : 0) &&
        section_is(s, VEXI_SECTION_CENTER_CODES,
                   coded ? vexi_index_list_size(file->code_padded, 1, file->list_count) : 0) &&
        section_is(s, VEXI_SECTION_CALIBRATION,
                   coded ? VEXI_INDEX_CALIBRATION_COUNT * (uint64_t)4 : 0) &&
        (coded || section_is(s, VEXI_SECTION_LIST_CODES, 0)) &&
        section_is(s, VEXI_SECTION_BLOCK_CRCS, (uint64_t)file->block_count * 4) &&
        section_is(s, VEXI_SECTION_NORMS, cosine ? rows * 4 : 0) &&
        section_is(s, VEXI_SECTION_VECTOR_CRCS, rows * 4) &&
        section_is(s, VEXI_SECTION_ID_OFFSETS, (rows + 1) * 4) &&
        s->known[VEXI_SECTION_ID_HASH].size % VEXI_HASH_SLOT_SIZE == 0 &&
        s->known[VEXI_SECTION_ID_HASH].size / VEXI_HASH_SLOT_SIZE > rows &&
        s->known[VEXI_SECTION_ID_HASH].size / VEXI_HASH_SLOT_SIZE <= UINT32_MAX &&
        s->known[VEXI_SECTION_IDS].size <= UINT32_MAX;
    return fit ? VEX_OK : corrupt(err, "a section has another size than the head tells");
}

/* What version 2 added to the header. */
static vex_status read_code_header(vexi_index_file *out, vex_error *err) {
    const uint8_t *p = out->bytes.data;
    if (vexi_get_u32(p + VEXI_HEAD_VERSION) < 2) {
        return VEX_OK;
    }
    out->code_bits = vexi_get_u32(p + VEXI_HEAD_CODE_BITS);
    if (out->code_bits == 0) {
        return VEX_OK;
    }
    if (!vexi_schema_bits_valid(out->code_bits)) {
        return vexi_fail(err, VEX_UNSUPPORTED, "index file with codes of %u bits", out->code_bits);
    }
    out->code_padded = vexi_get_u32(p + VEXI_HEAD_CODE_PADDED);
    if (out->list_count == 0 || out->code_padded != vexi_index_padded(out->dimension)) {
        return corrupt(err, "the codes contradict the vectors");
    }
    out->row_length = vexi_get_f32(p + VEXI_HEAD_ROW_LENGTH);
    out->rotation_seed = vexi_get_u64(p + VEXI_HEAD_ROTATION_SEED);
    out->center_error = vexi_get_f32(p + VEXI_HEAD_CENTER_ERROR);
    return VEX_OK;
}

static vex_status read_head(vexi_index_file *out, vex_error *err) {
    const uint8_t *p = out->bytes.data;
    head_sections sections;
    VEX_TRY(read_directory(out->bytes, out->head_size, &sections, err));
    memcpy(out->segment, p + VEXI_HEAD_SEGMENT, 36);
    out->dimension = vexi_get_u32(p + VEXI_HEAD_DIMENSION);
    out->vector_stride = vexi_get_u32(p + VEXI_HEAD_STRIDE);
    out->row_count = vexi_get_u32(p + VEXI_HEAD_ROW_COUNT);
    out->list_count = vexi_get_u32(p + VEXI_HEAD_LIST_COUNT);
    out->bulk_offset = out->head_size;
    out->hash_probe_max = vexi_get_u32(p + VEXI_HEAD_PROBE_MAX);
    if (p[VEXI_HEAD_METRIC] > VEX_METRIC_IP) {
        return vexi_fail(err, VEX_UNSUPPORTED, "index file with the unknown metric %u",
                         p[VEXI_HEAD_METRIC]);
    }
    out->metric = (vex_metric)p[VEXI_HEAD_METRIC];
    uint8_t kind = p[VEXI_HEAD_KIND];
    if (kind != VEX_INDEX_FLAT && kind != VEX_INDEX_IVF) {
        return vexi_fail(err, VEX_UNSUPPORTED, "index file of the unknown kind %u", kind);
    }
    if ((kind == VEX_INDEX_IVF) != (out->list_count > 0) || out->list_count > out->row_count ||
        out->dimension == 0 || out->dimension > VEX_DIMENSION_MAX ||
        out->vector_stride != out->dimension * 4) {
        return corrupt(err, "the head contradicts itself");
    }
    VEX_TRY(read_code_header(out, err));
    uint32_t page_count = vexi_get_u32(p + VEXI_HEAD_PAGE_COUNT);
    vexi_segment_layout *layout = &out->layout;
    layout->file_size = vexi_get_u64(p + VEXI_HEAD_SEGMENT_SIZE);
    layout->footer_offset = vexi_get_u64(p + VEXI_HEAD_FOOTER_OFFSET);
    layout->footer_crc = vexi_get_u32(p + VEXI_HEAD_FOOTER_CRC);
    layout->row_count = out->row_count;
    layout->row_group_count = vexi_get_u32(p + VEXI_HEAD_ROW_GROUP_COUNT);
    layout->column_count = vexi_get_u32(p + VEXI_HEAD_COLUMN_COUNT);
    if (layout->footer_offset > layout->file_size || layout->row_group_count > out->row_count ||
        layout->column_count < 2 || layout->column_count > 2 + VEX_COLUMNS_MAX) {
        return corrupt(err, "the Parquet layout contradicts itself");
    }
    uint64_t bulk_size = out->bytes.size - out->bulk_offset;
    uint64_t block_count = (bulk_size + VEXI_INDEX_BLOCK_SIZE - 1) / VEXI_INDEX_BLOCK_SIZE;
    if (vexi_get_u32(p + VEXI_HEAD_BLOCK_SIZE) != VEXI_INDEX_BLOCK_SIZE ||
        vexi_get_u32(p + VEXI_HEAD_BLOCK_COUNT) != block_count) {
        return corrupt(err, "the blocks do not cover the file");
    }
    out->block_count = (size_t)block_count;
    size_t chunk_count = (size_t)layout->column_count * layout->row_group_count;
    VEX_TRY(check_sizes(out, &sections, chunk_count, page_count, err));

    index_memory memory = {.row_groups = NULL};
    VEX_TRY(read_allocate(out->env, out, chunk_count, page_count, &memory, err));
    VEX_TRY(
        read_row_groups(out, sections.known[VEXI_SECTION_ROW_GROUPS].data, memory.row_groups, err));
    VEX_TRY(read_pages(out, &sections, chunk_count, page_count, &memory, err));
    VEX_TRY(read_lists(out, &sections, &memory, err));
    VEX_TRY(read_codes(out, &sections, &memory, err));
    layout->row_groups = memory.row_groups;
    layout->page_first = memory.page_first;
    layout->pages = memory.pages;
    out->block_checked = memory.block_checked;
    out->block_crcs = sections.known[VEXI_SECTION_BLOCK_CRCS].data;
    out->inverse_norms = sections.known[VEXI_SECTION_NORMS].data;
    out->norms_offset = offset_of(out, &sections, VEXI_SECTION_NORMS);
    out->crcs_offset = offset_of(out, &sections, VEXI_SECTION_VECTOR_CRCS);
    out->id_offsets_offset = offset_of(out, &sections, VEXI_SECTION_ID_OFFSETS);
    out->ids_offset = offset_of(out, &sections, VEXI_SECTION_IDS);
    out->ids_size = sections.known[VEXI_SECTION_IDS].size;
    out->hash_offset = offset_of(out, &sections, VEXI_SECTION_ID_HASH);
    out->hash_slot_count = sections.known[VEXI_SECTION_ID_HASH].size / VEXI_HASH_SLOT_SIZE;
    if (out->hash_probe_max > out->hash_slot_count) {
        return corrupt(err, "the id table contradicts itself");
    }
    return VEX_OK;
}

vex_status vexi_index_open(const vexi_env *env, vexi_span bytes, uint32_t head_size,
                           uint32_t head_crc, vexi_index_file *out, vex_error *err) {
    *out = (vexi_index_file){.env = env};
    VEX_ASSERT((uintptr_t)bytes.data % VEXI_INDEX_ALIGNMENT == 0);
    VEX_TRY(read_header(bytes, head_size, head_crc, err));
    vexi_index_file file = {.env = env, .bytes = bytes, .head_size = head_size};
    vex_status status = read_head(&file, err);
    if (status != VEX_OK) {
        vexi_free(env, file.memory);
        return status;
    }
    *out = file;
    return VEX_OK;
}

void vexi_index_close(vexi_index_file *file) {
    vexi_free(file->env, file->memory);
    *file = (vexi_index_file){.env = file->env};
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

static vex_status check_block(vexi_index_file *file, size_t block, vex_error *err) {
    uint64_t offset = file->bulk_offset + (uint64_t)block * VEXI_INDEX_BLOCK_SIZE;
    uint64_t rest = file->bytes.size - offset;
    size_t size = rest < VEXI_INDEX_BLOCK_SIZE ? (size_t)rest : VEXI_INDEX_BLOCK_SIZE;
    if (vexi_crc32c(0, file->bytes.data + offset, size) !=
        vexi_get_u32(file->block_crcs + block * 4)) {
        return vexi_fail(err, VEX_CORRUPT,
                         "index file: bytes %llu to %llu do not match their checksum",
                         (unsigned long long)offset, (unsigned long long)(offset + size - 1));
    }
    __atomic_store_n(&file->block_checked[block], VEXI_INDEX_BLOCK_CHECKED, __ATOMIC_RELEASE);
    return VEX_OK;
}

static inline bool block_is_checked(const vexi_index_file *file, uint64_t block) {
    return __builtin_expect(__atomic_load_n(&file->block_checked[block], __ATOMIC_ACQUIRE) ==
                                VEXI_INDEX_BLOCK_CHECKED,
                            1);
}

/* Bytes of the bulk, size > 0, inside the file. */
static inline vex_status check_bulk(vexi_index_file *file, uint64_t offset, uint64_t size,
                                    vex_error *err) {
    size_t block = (size_t)((offset - file->bulk_offset) / VEXI_INDEX_BLOCK_SIZE);
    size_t last = (size_t)((offset + size - 1 - file->bulk_offset) / VEXI_INDEX_BLOCK_SIZE);
    for (; block <= last; block++) {
        if (!block_is_checked(file, block)) {
            if (file->fetch != NULL) {
                vexi_piece range = {.offset = offset, .size = (size_t)size};
                return vexi_index_need(file, &range, 1, NULL, err);
            }
            VEX_TRY(check_block(file, block, err));
        }
    }
    return VEX_OK;
}

vex_status vexi_index_check(vexi_index_file *file, uint64_t offset, uint64_t size, vex_error *err) {
    if (offset > file->bytes.size || size > file->bytes.size - offset) {
        return corrupt(err, "bytes behind the end of the file");
    }
    uint64_t end = offset + size;
    if (offset < file->bulk_offset) { /* the head was checked when it was opened */
        offset = file->bulk_offset;
    }
    return offset < end ? check_bulk(file, offset, end - offset, err) : VEX_OK;
}

bool vexi_index_checked(const vexi_index_file *file, uint64_t offset, uint64_t size) {
    VEX_ASSERT(offset >= file->bulk_offset && offset <= file->bytes.size &&
               size <= file->bytes.size - offset);
    if (size == 0) {
        return true;
    }
    uint64_t block = (offset - file->bulk_offset) / VEXI_INDEX_BLOCK_SIZE;
    uint64_t last = (offset + size - 1 - file->bulk_offset) / VEXI_INDEX_BLOCK_SIZE;
    for (; block <= last; block++) {
        if (!block_is_checked(file, block)) {
            return false;
        }
    }
    return true;
}

vex_status vexi_index_check_all(vexi_index_file *file, vex_error *err) {
    if (vexi_index_head_crc(file->bytes.data, file->head_size) !=
        vexi_get_u32(file->bytes.data + VEXI_HEAD_CRC)) {
        return corrupt(err, "the head does not match its checksum");
    }
    for (size_t block = 0; block < file->block_count; block += CHECK_BLOCKS) {
        uint64_t offset = file->bulk_offset + (uint64_t)block * VEXI_INDEX_BLOCK_SIZE;
        uint64_t rest = file->bytes.size - offset;
        uint64_t most = (uint64_t)CHECK_BLOCKS * VEXI_INDEX_BLOCK_SIZE;
        vexi_piece range = {.offset = offset, .size = (size_t)(rest < most ? rest : most)};
        VEX_TRY(vexi_index_need(file, &range, 1, NULL, err));
    }
    for (size_t block = 0; block < file->block_count; block++) {
        VEX_TRY(check_block(file, block, err));
    }
    /* Beyond checksums: every id is in its place and found again. */
    for (uint64_t row = 0; row < file->row_count; row++) {
        vex_string id;
        VEX_TRY(vexi_index_id(file, row, &id, err));
        bool found;
        uint64_t found_row;
        VEX_TRY(vexi_index_find(file, id, vexi_hash64(id.data, id.size), &found, &found_row, err));
        if (!found || found_row != row) {
            return vexi_fail(err, VEX_CORRUPT, "index file: the id of row %llu is not found again",
                             (unsigned long long)row);
        }
    }
    return VEX_OK;
}

/* ---- Ids ------------------------------------------------------------------------------------- */

vex_status vexi_index_id(vexi_index_file *file, uint64_t row, vex_string *out, vex_error *err) {
    *out = (vex_string){NULL, 0};
    if (row >= file->row_count) {
        return corrupt(err, "a row behind the last");
    }
    uint64_t at = file->id_offsets_offset + row * 4;
    VEX_TRY(check_bulk(file, at, 8, err));
    uint32_t first = vexi_get_u32(file->bytes.data + at);
    uint32_t end = vexi_get_u32(file->bytes.data + at + 4);
    if (first >= end || end > file->ids_size) {
        return corrupt(err, "an id is out of place");
    }
    VEX_TRY(check_bulk(file, file->ids_offset + first, end - first, err));
    *out = (vex_string){(const char *)file->bytes.data + file->ids_offset + first, end - first};
    return VEX_OK;
}

vex_status vexi_index_find(vexi_index_file *file, vex_string id, uint64_t hash, bool *found,
                           uint64_t *row, vex_error *err) {
    *found = false;
    *row = 0;
    uint32_t tag = vexi_index_tag(hash);
    uint64_t slot = vexi_index_slot(hash, file->hash_slot_count);
    for (uint32_t probe = 0; probe < file->hash_probe_max; probe++) {
        uint64_t at = file->hash_offset + slot * VEXI_HASH_SLOT_SIZE;
        VEX_TRY(check_bulk(file, at, VEXI_HASH_SLOT_SIZE, err));
        const uint8_t *p = file->bytes.data + at;
        uint32_t number = vexi_get_u32(p + 4);
        if (number == 0) {
            return VEX_OK;
        }
        if (vexi_get_u32(p) == tag) {
            vex_string other;
            VEX_TRY(vexi_index_id(file, number - 1, &other, err));
            if (vexi_string_equal(other, id)) {
                *found = true;
                *row = number - 1;
                return VEX_OK;
            }
        }
        slot = slot + 1 == file->hash_slot_count ? 0 : slot + 1;
    }
    return VEX_OK;
}

vex_status vexi_index_vector_crcs(vexi_index_file *file, uint64_t first_row, size_t count,
                                  const uint8_t **crcs, vex_error *err) {
    *crcs = NULL;
    if (first_row > file->row_count || count > file->row_count - first_row) {
        return corrupt(err, "rows behind the last");
    }
    uint64_t at = file->crcs_offset + first_row * 4;
    if (count > 0) {
        VEX_TRY(check_bulk(file, at, (uint64_t)count * 4, err));
    }
    *crcs = file->bytes.data + at;
    return VEX_OK;
}
