#include "table/segment.h"

#include <math.h>
#include <stdio.h>

#include "base/bitmap.h"
#include "base/checksum.h"
#include "base/guard.h"
#include "format/row_source.h"

struct vexi_segment {
    int references; /* atomic */
    vexi_core *core;
    char *path;        /* relative to the table root */
    char *object_name; /* in the store */
    uint64_t size_bytes;
    uint64_t row_count;
    uint32_t dimension;
    vex_metric metric;

    vexi_object data;
    vexi_object index_object;
    vexi_index_file index; /* set unless foreign or damaged */
    bool indexed;
    uint64_t *checked; /* ours: a bit per row whose vector's checksum was compared; atomic words */

    /* Foreign: everything decoded. */
    bool foreign;
    vexi_arena arena;
    vexi_row *rows;
    float *vectors;
    float *inverse_norms;
    uint32_t *slots; /* row + 1, 0 empty */
    uint64_t slot_count;

    vex_error damage;
    int damage_state; /* atomic: what `damage` holds */
};

enum { DAMAGE_NONE = 0, DAMAGE_WRITING = 1, DAMAGE_KNOWN = 2 };

/* ---- Core and bits ----------------------------------------------------------------------------
 */

vexi_core *vexi_core_retain(vexi_core *core) {
    __atomic_add_fetch(&core->references, 1, __ATOMIC_RELAXED);
    return core;
}

void vexi_core_release(vexi_core *core) {
    if (core != NULL && __atomic_sub_fetch(&core->references, 1, __ATOMIC_ACQ_REL) == 0) {
        const vexi_env *env = core->env;
        vexi_store_destroy(core->store);
        vexi_free(env, core);
    }
}

vexi_bits *vexi_bits_create(const vexi_env *env, uint64_t bit_count, const vexi_bits *from) {
    size_t words = vexi_bitmap_words(bit_count);
    vexi_bits *bits = vexi_calloc(env, 1, sizeof *bits + words * sizeof(uint64_t));
    if (bits == NULL) {
        return NULL;
    }
    bits->references = 1;
    bits->env = env;
    bits->bit_count = bit_count;
    if (from != NULL) {
        VEX_ASSERT(from->bit_count <= bit_count);
        memcpy(bits->words, from->words, vexi_bitmap_words(from->bit_count) * sizeof(uint64_t));
        bits->set_count = from->set_count;
    }
    return bits;
}

vexi_bits *vexi_bits_retain(vexi_bits *bits) {
    if (bits != NULL) {
        __atomic_add_fetch(&bits->references, 1, __ATOMIC_RELAXED);
    }
    return bits;
}

void vexi_bits_release(vexi_bits *bits) {
    if (bits != NULL && __atomic_sub_fetch(&bits->references, 1, __ATOMIC_ACQ_REL) == 0) {
        vexi_free(bits->env, bits);
    }
}

bool vexi_bits_contain(const vexi_bits *a, const vexi_bits *b) {
    if (a == b || b == NULL) {
        return true;
    }
    size_t a_words = a == NULL ? 0 : vexi_bitmap_words(a->bit_count);
    for (size_t i = 0; i < vexi_bitmap_words(b->bit_count); i++) {
        if ((b->words[i] & ~(i < a_words ? a->words[i] : 0)) != 0) {
            return false;
        }
    }
    return true;
}

void vexi_bits_add(vexi_bits *bits, const vexi_bits *from) {
    VEX_ASSERT(from->bit_count <= bits->bit_count);
    for (size_t i = 0; i < vexi_bitmap_words(from->bit_count); i++) {
        uint64_t fresh = from->words[i] & ~bits->words[i];
        bits->words[i] |= fresh;
        bits->set_count += (uint64_t)__builtin_popcountll(fresh);
    }
}

/* ---- Opening ----------------------------------------------------------------------------------
 */

static char *join(const vexi_env *env, const char *folder, const char *middle, vex_string name) {
    size_t folder_size = strlen(folder);
    size_t middle_size = strlen(middle);
    char *text = vexi_alloc(env, folder_size + middle_size + name.size + 1);
    if (text != NULL) {
        memcpy(text, folder, folder_size);
        memcpy(text + folder_size, middle, middle_size);
        memcpy(text + folder_size + middle_size, name.data, name.size);
        text[folder_size + middle_size + name.size] = '\0';
    }
    return text;
}

/* Bytes of a whole object: the mapping, or a copy in the arena. */
static vex_status object_bytes(vexi_object *object, vexi_arena *arena, vexi_span *out,
                               vex_error *err) {
    if (object->mapping.data != NULL || object->size_bytes == 0) {
        *out = vexi_span_of(object->mapping.data, object->mapping.size);
        return VEX_OK;
    }
    vexi_piece piece = {.offset = 0, .size = (size_t)object->size_bytes};
    VEX_TRY(vexi_object_fetch(object, &piece, 1, arena, err));
    *out = vexi_span_of(piece.data, piece.size);
    return VEX_OK;
}

typedef struct open_job {
    vexi_segment *segment;
    const vexi_delta_add *add;
    vexi_span bytes;
} open_job;

static vex_status open_index_guarded(void *argument, vex_error *err) {
    open_job *job = argument;
    return vexi_index_open(job->segment->core->env, job->bytes, job->add->index.head_size,
                           job->add->index.head_crc, &job->segment->index, err);
}

static vex_status open_indexed(vexi_segment *segment, const char *folder, const vexi_delta_add *add,
                               vex_error *err) {
    const vexi_env *env = segment->core->env;
    char *index_name = join(env, folder, "/", add->index.path);
    if (index_name == NULL) {
        return vexi_no_memory(err, add->index.path.size);
    }
    vex_status status = vexi_object_open(segment->core->store, index_name, add->index.size_bytes,
                                         &segment->index_object, err);
    open_job job = {.segment = segment, .add = add};
    if (status == VEX_OK) {
        status = object_bytes(&segment->index_object, &segment->arena, &job.bytes, err);
    }
    if (status == VEX_OK) {
        /* Opening allocates before it reads far; a fault in between is a leak of one small block in
         * exchange for a living process. */
        status = vexi_guard_run(open_index_guarded, &job, index_name, err);
        if (status != VEX_OK) {
            (void)vexi_prefix(err, status, "%s", index_name);
        } else {
            segment->indexed = true;
        }
    }
    vexi_free(env, index_name);
    VEX_TRY(status);
    const vexi_index_file *index = &segment->index;
    if (index->dimension != segment->dimension || index->metric != segment->metric ||
        index->layout.file_size != add->size_bytes || index->row_count == 0 ||
        (add->row_count >= 0 && (uint64_t)add->row_count != index->row_count)) {
        return vexi_fail(err, VEX_CORRUPT, "%s: the index file belongs to another data file",
                         segment->object_name);
    }
    segment->row_count = index->row_count;
    segment->checked = vexi_calloc(env, vexi_bitmap_words(segment->row_count), sizeof(uint64_t));
    if (segment->checked == NULL) {
        return vexi_no_memory(err, segment->row_count / 8);
    }
    return VEX_OK;
}

/* Value of schema column c in a decoded row, whose cells are in the order of the file. */
static void cells_rearrange(const vexi_schema *schema, const vexi_row_source_info *info,
                            const vexi_cell *from, vexi_cell *to) {
    for (uint32_t c = 0; c < schema->column_count; c++) {
        to[c] = (vexi_cell){.is_null = true};
        for (uint32_t f = 0; f < info->column_count; f++) {
            if (from != NULL && vexi_string_equal(info->columns[f].name, schema->columns[c].name) &&
                info->columns[f].type == schema->columns[c].type) {
                to[c] = from[f];
            }
        }
    }
}

static vex_status foreign_read(vexi_segment *segment, const vexi_schema *schema,
                               vexi_row_source *source, const vexi_row_source_info *info,
                               vex_error *err) {
    vexi_arena *arena = &segment->arena;
    if (info->dimension != schema->dimension && info->row_count > 0) {
        return vexi_fail(err, VEX_INVALID, "vectors of dimension %u in a collection of %u",
                         info->dimension, schema->dimension);
    }
    if (info->row_count > VEXI_MEMTABLE_ROW_MAX) {
        return vexi_fail(err, VEX_LIMIT, "more than %d rows in a file without an index",
                         VEXI_MEMTABLE_ROW_MAX);
    }
    size_t capacity = (size_t)info->row_count;
    segment->rows = vexi_arena_array(arena, capacity, sizeof *segment->rows);
    segment->vectors =
        vexi_arena_alloc_aligned(arena, 64, capacity * schema->dimension * sizeof(float) + 1);
    segment->inverse_norms = vexi_arena_array(arena, capacity, sizeof(float));
    if (segment->rows == NULL || segment->vectors == NULL || segment->inverse_norms == NULL) {
        return vexi_no_memory(err, capacity * schema->dimension * sizeof(float));
    }
    size_t done = 0;
    for (;;) {
        vexi_row *rows;
        size_t count;
        VEX_TRY(vexi_row_source_next(source, 4096, arena, &rows, &count, err));
        if (count == 0) {
            break;
        }
        if (count > capacity - done) {
            return vexi_fail(err, VEX_CORRUPT, "more rows than its footer says");
        }
        for (size_t i = 0; i < count; i++, done++) {
            float *vector = segment->vectors + done * schema->dimension;
            memcpy(vector, rows[i].vector, schema->dimension * sizeof(float));
            double norm =
                vexi_distance(VEX_METRIC_IP, vector, (const uint8_t *)vector, schema->dimension);
            if (norm == 0 && schema->metric == VEX_METRIC_COSINE) {
                return vexi_fail_row(err, VEX_INVALID, (int64_t)done,
                                     "row %zu: a zero vector has no cosine distance", done);
            }
            segment->inverse_norms[done] = norm < 0 ? (float)(1.0 / sqrt(-norm)) : 0.0f;
            vexi_cell *cells = vexi_arena_array(arena, schema->column_count, sizeof *cells);
            if (cells == NULL) {
                return vexi_no_memory(err, schema->column_count * sizeof *cells);
            }
            cells_rearrange(schema, info, rows[i].cells, cells);
            segment->rows[done] = rows[i];
            segment->rows[done].vector = vector;
            segment->rows[done].cells = cells;
        }
    }
    segment->row_count = done;
    return VEX_OK;
}

static vex_status open_foreign(vexi_segment *segment, const vexi_schema *schema, vex_error *err) {
    segment->foreign = true;
    vexi_span bytes;
    VEX_TRY(object_bytes(&segment->data, &segment->arena, &bytes, err));
    vexi_row_source_options options = {.id_column = vexi_string_of("id"),
                                       .vector_column = vexi_string_of("vector")};
    vexi_row_source *source = NULL;
    vexi_row_source_info info;
    vex_status status = vexi_row_source_open(segment->core->env, segment->object_name, bytes,
                                             &options, &source, &info, err);
    if (status == VEX_OK) {
        status = foreign_read(segment, schema, source, &info, err);
    }
    vexi_row_source_close(source);
    if (status != VEX_OK) {
        return vexi_prefix(err, status, "%s", segment->object_name);
    }
    segment->slot_count = 16;
    while (segment->slot_count < segment->row_count * 2) {
        segment->slot_count *= 2;
    }
    segment->slots = vexi_arena_calloc(&segment->arena, segment->slot_count, sizeof(uint32_t));
    if (segment->slots == NULL) {
        return vexi_no_memory(err, segment->slot_count * sizeof(uint32_t));
    }
    /* Of two rows with one id the later is found; the caller hides the earlier. */
    for (uint64_t row = 0; row < segment->row_count; row++) {
        vex_string id = segment->rows[row].id;
        uint64_t slot = vexi_hash64(id.data, id.size) & (segment->slot_count - 1);
        while (segment->slots[slot] != 0 &&
               !vexi_string_equal(segment->rows[segment->slots[slot] - 1].id, id)) {
            slot = (slot + 1) & (segment->slot_count - 1);
        }
        segment->slots[slot] = (uint32_t)row + 1;
    }
    return VEX_OK;
}

vex_status vexi_segment_open(vexi_core *core, vexi_schema_box *schema, const char *folder,
                             const vexi_delta_add *add, vexi_segment **out, vex_error *err) {
    *out = NULL;
    const vexi_env *env = core->env;
    vexi_segment *segment = vexi_calloc(env, 1, sizeof *segment);
    if (segment == NULL) {
        return vexi_no_memory(err, sizeof *segment);
    }
    segment->references = 1;
    segment->core = vexi_core_retain(core);
    segment->size_bytes = add->size_bytes;
    segment->row_count = add->row_count > 0 ? (uint64_t)add->row_count : 0;
    segment->dimension = schema->schema.dimension;
    segment->metric = schema->schema.metric;
    vexi_arena_init(&segment->arena, env);
    segment->path = join(env, "", "", add->path);
    segment->object_name = join(env, folder, "/data/", add->path);
    if (segment->path == NULL || segment->object_name == NULL) {
        vexi_segment_release(segment);
        return vexi_no_memory(err, add->path.size);
    }
    vex_error damage = {.status = VEX_OK};
    vex_status status = vexi_object_open(core->store, segment->object_name, add->size_bytes,
                                         &segment->data, &damage);
    if (status == VEX_OK) {
        status = add->index.path.data != NULL ? open_indexed(segment, folder, add, &damage)
                                              : open_foreign(segment, &schema->schema, &damage);
    }
    if (status == VEX_INVALID || status == VEX_UNSUPPORTED || status == VEX_LIMIT) {
        status = VEX_CORRUPT; /* a foreign file that breaks the collection's rules: no caller did */
    }
    if (status == VEX_MEMORY) {
        vexi_segment_release(segment);
        if (err != NULL) {
            *err = damage;
        }
        return status;
    }
    if (status != VEX_OK) {
        vexi_segment_set_damage(segment, status, &damage);
    }
    *out = segment;
    return VEX_OK;
}

void vexi_segment_set_damage(vexi_segment *segment, vex_status status, const vex_error *damage) {
    VEX_ASSERT(status != VEX_OK);
    int none = DAMAGE_NONE;
    if (__atomic_compare_exchange_n(&segment->damage_state, &none, DAMAGE_WRITING, false,
                                    __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
        segment->damage = *damage;
        segment->damage.status = status;
        __atomic_store_n(&segment->damage_state, DAMAGE_KNOWN, __ATOMIC_RELEASE);
        vexi_log(segment->core->env, 3, "damaged segment: %s", damage->message);
    }
}

vexi_segment *vexi_segment_retain(vexi_segment *segment) {
    __atomic_add_fetch(&segment->references, 1, __ATOMIC_RELAXED);
    return segment;
}

void vexi_segment_release(vexi_segment *segment) {
    if (segment == NULL || __atomic_sub_fetch(&segment->references, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    const vexi_env *env = segment->core->env;
    if (segment->indexed) {
        vexi_index_close(&segment->index);
    }
    vexi_object_close(&segment->index_object);
    vexi_object_close(&segment->data);
    vexi_arena_deinit(&segment->arena);
    vexi_free(env, segment->checked);
    vexi_free(env, segment->path);
    vexi_free(env, segment->object_name);
    vexi_core *core = segment->core;
    vexi_free(env, segment);
    vexi_core_release(core);
}

const char *vexi_segment_path(const vexi_segment *segment) {
    return segment->path;
}

const char *vexi_segment_object_name(const vexi_segment *segment) {
    return segment->object_name;
}

uint64_t vexi_segment_row_count(const vexi_segment *segment) {
    return segment->row_count;
}

uint64_t vexi_segment_size_bytes(const vexi_segment *segment) {
    return segment->size_bytes;
}

uint64_t vexi_segment_index_size_bytes(const vexi_segment *segment) {
    return segment->index_object.size_bytes;
}

bool vexi_segment_is_foreign(const vexi_segment *segment) {
    return segment->foreign;
}

const vexi_index_file *vexi_segment_ivf(const vexi_segment *segment) {
    return segment->indexed && segment->index.list_count > 0 ? &segment->index : NULL;
}

vex_status vexi_segment_check(const vexi_segment *segment, vex_error *err) {
    if (__atomic_load_n(&segment->damage_state, __ATOMIC_ACQUIRE) != DAMAGE_KNOWN) {
        return VEX_OK;
    }
    if (err != NULL) {
        *err = segment->damage;
    }
    return segment->damage.status;
}

/* ---- Reading ----------------------------------------------------------------------------------
 */

typedef struct find_job {
    vexi_segment *segment;
    vex_string id;
    uint64_t hash;
    bool found;
    uint64_t row;
} find_job;

static vex_status find_guarded(void *argument, vex_error *err) {
    find_job *job = argument;
    return vexi_index_find(&job->segment->index, job->id, job->hash, &job->found, &job->row, err);
}

vex_status vexi_segment_find(vexi_segment *segment, vex_string id, uint64_t hash, bool *found,
                             uint64_t *row, vex_error *err) {
    *found = false;
    VEX_TRY(vexi_segment_check(segment, err));
    if (segment->foreign) {
        uint64_t mask = segment->slot_count - 1;
        for (uint64_t slot = hash & mask; segment->slots[slot] != 0; slot = (slot + 1) & mask) {
            uint64_t candidate = segment->slots[slot] - 1;
            if (vexi_string_equal(segment->rows[candidate].id, id)) {
                *found = true;
                *row = candidate;
                return VEX_OK;
            }
        }
        return VEX_OK;
    }
    find_job job = {.segment = segment, .id = id, .hash = hash};
    vex_status status = vexi_guard_run(find_guarded, &job, segment->index_object.name, err);
    if (status == VEX_CORRUPT) {
        return vexi_prefix(err, status, "%s", segment->index_object.name);
    }
    *found = job.found;
    *row = job.row;
    return status;
}

vex_status vexi_segment_id(vexi_segment *segment, uint64_t row, vex_string *out, vex_error *err) {
    VEX_TRY(vexi_segment_check(segment, err));
    VEX_ASSERT(row < segment->row_count);
    if (segment->foreign) {
        *out = segment->rows[row].id;
        return VEX_OK;
    }
    vex_status status = vexi_index_id(&segment->index, row, out, err);
    return status == VEX_OK ? status : vexi_prefix(err, status, "%s", segment->index_object.name);
}

typedef struct check_job {
    vexi_segment *segment;
    const vexi_run *runs;
    size_t run_count;
} check_job;

/* Compare the checksums of rows that were not compared yet. */
static vex_status check_guarded(void *argument, vex_error *err) {
    check_job *job = argument;
    vexi_segment *segment = job->segment;
    for (size_t r = 0; r < job->run_count; r++) {
        const vexi_run *run = &job->runs[r];
        const uint8_t *crcs = NULL;
        for (size_t i = 0; i < run->count; i++) {
            uint64_t row = run->first_row + i;
            uint64_t word = __atomic_load_n(&segment->checked[row / 64], __ATOMIC_RELAXED);
            if (row % 64 == 0 && i + 64 <= run->count && word == UINT64_MAX) {
                i += 63;
                continue;
            }
            if ((word >> (row % 64) & 1u) != 0) {
                continue;
            }
            if (crcs == NULL) {
                VEX_TRY(vexi_index_vector_crcs(&segment->index, run->first_row, run->count, &crcs,
                                               err));
            }
            if (vexi_crc32c(0, run->vectors + i * run->stride, run->stride) !=
                vexi_get_u32(crcs + 4 * i)) {
                return vexi_fail(err, VEX_CORRUPT,
                                 "%s: the vector of row %llu does not match its checksum",
                                 segment->object_name, (unsigned long long)row);
            }
            __atomic_fetch_or(&segment->checked[row / 64], (uint64_t)1 << (row % 64),
                              __ATOMIC_RELAXED);
        }
        if (segment->metric == VEX_METRIC_COSINE) {
            VEX_TRY(vexi_index_check(&segment->index,
                                     segment->index.norms_offset + 4 * run->first_row,
                                     4 * (uint64_t)run->count, err));
        }
    }
    return VEX_OK;
}

static vex_status foreign_runs(vexi_segment *segment, const vexi_row_range *ranges,
                               size_t range_count, vexi_arena *arena, vexi_run **runs,
                               size_t *run_count, vex_error *err) {
    *runs = vexi_arena_array(arena, range_count, sizeof **runs);
    if (*runs == NULL) {
        return vexi_no_memory(err, range_count * sizeof **runs);
    }
    size_t stride = (size_t)segment->dimension * sizeof(float);
    for (size_t i = 0; i < range_count; i++) {
        VEX_ASSERT(ranges[i].first_row + ranges[i].count <= segment->row_count);
        (*runs)[i] = (vexi_run){
            .vectors = (const uint8_t *)segment->vectors + ranges[i].first_row * stride,
            .stride = stride,
            .count = ranges[i].count,
            .first_row = ranges[i].first_row,
            .inverse_norms = segment->metric == VEX_METRIC_COSINE
                                 ? (const uint8_t *)(segment->inverse_norms + ranges[i].first_row)
                                 : NULL,
        };
    }
    *run_count = range_count;
    return VEX_OK;
}

/* Row group that holds a row: the first guess is right where all groups but the last are equal. */
static uint32_t group_of(const vexi_segment_layout *layout, uint64_t row) {
    uint32_t low = 0;
    uint32_t high = layout->row_group_count - 1;
    while (low < high) {
        uint32_t middle = (low + high + 1) / 2;
        if (layout->row_groups[middle].first_row <= row) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

vex_status vexi_segment_runs(vexi_segment *segment, const vexi_row_range *ranges,
                             size_t range_count, vexi_arena *arena, vexi_run **runs,
                             size_t *run_count, vex_error *err) {
    *runs = NULL;
    *run_count = 0;
    VEX_TRY(vexi_segment_check(segment, err));
    if (segment->foreign) {
        return foreign_runs(segment, ranges, range_count, arena, runs, run_count, err);
    }
    const vexi_segment_layout *layout = &segment->index.layout;
    size_t stride = (size_t)segment->dimension * sizeof(float);
    size_t count = 0;
    for (size_t i = 0; i < range_count; i++) {
        VEX_ASSERT(ranges[i].first_row + ranges[i].count <= segment->row_count);
        if (ranges[i].count > 0) {
            count += group_of(layout, ranges[i].first_row + ranges[i].count - 1) -
                     group_of(layout, ranges[i].first_row) + 1;
        }
    }
    vexi_run *out = vexi_arena_array(arena, count, sizeof *out);
    vexi_piece *pieces = vexi_arena_array(arena, count, sizeof *pieces);
    if (out == NULL || pieces == NULL) {
        return vexi_no_memory(err, count * (sizeof *out + sizeof *pieces));
    }
    size_t n = 0;
    for (size_t i = 0; i < range_count; i++) {
        uint64_t row = ranges[i].first_row;
        uint64_t left = ranges[i].count;
        for (uint32_t g = left > 0 ? group_of(layout, row) : 0; left > 0; g++) {
            const vexi_row_group *group = &layout->row_groups[g];
            uint64_t in_group = group->first_row + group->row_count - row;
            uint64_t rows = in_group < left ? in_group : left;
            out[n] = (vexi_run){.stride = stride, .count = rows, .first_row = row};
            pieces[n] =
                (vexi_piece){.offset = group->vector_offset + (row - group->first_row) * stride,
                             .size = rows * stride};
            if (segment->metric == VEX_METRIC_COSINE) {
                out[n].inverse_norms = segment->index.inverse_norms + 4 * row;
            }
            n++;
            row += rows;
            left -= rows;
        }
    }
    VEX_TRY(vexi_object_fetch(&segment->data, pieces, n, arena, err));
    for (size_t i = 0; i < n; i++) {
        out[i].vectors = pieces[i].data;
    }
    check_job job = {.segment = segment, .runs = out, .run_count = n};
    VEX_TRY(vexi_guard_run(check_guarded, &job, segment->object_name, err));
    *runs = out;
    *run_count = n;
    return VEX_OK;
}

typedef struct touch_job {
    const vexi_piece *pieces;
    size_t piece_count;
    uint8_t sum; /* so that the loads stay */
} touch_job;

static vex_status touch_guarded(void *argument, vex_error *err) {
    (void)err;
    enum { PAGE = 4096 };
    touch_job *job = argument;
    for (size_t i = 0; i < job->piece_count; i++) {
        const volatile uint8_t *data = job->pieces[i].data;
        for (size_t at = 0; at < job->pieces[i].size; at += PAGE) {
            job->sum ^= data[at];
        }
        if (job->pieces[i].size > 0) {
            job->sum ^= data[job->pieces[i].size - 1];
        }
    }
    return VEX_OK;
}

vex_status vexi_segment_cells(vexi_segment *segment, const vexi_schema *schema,
                              const uint32_t *columns, size_t column_count, const uint64_t *rows,
                              size_t row_count, vexi_arena *arena, vexi_cell *out,
                              vex_search_stats *stats, vex_error *err) {
    VEX_TRY(vexi_segment_check(segment, err));
    if (row_count == 0 || column_count == 0) {
        return VEX_OK;
    }
    if (segment->foreign) {
        for (size_t c = 0; c < column_count; c++) {
            for (size_t r = 0; r < row_count; r++) {
                vexi_row_cell(&segment->rows[rows[r]], columns[c], &out[c * row_count + r]);
            }
        }
        return VEX_OK;
    }
    const vexi_segment_layout *layout = &segment->index.layout;
    vexi_piece *pieces = NULL;
    size_t piece_count = 0;
    VEX_TRY(vexi_segment_plan(layout, columns, column_count, rows, row_count, arena, &pieces,
                              &piece_count, err));
    VEX_TRY(vexi_object_fetch(&segment->data, pieces, piece_count, arena, err));
    /* Decoding allocates, so it cannot run inside a guard: a file that was cut is met here. */
    touch_job touch = {.pieces = pieces, .piece_count = piece_count};
    VEX_TRY(vexi_guard_run(touch_guarded, &touch, segment->object_name, err));
    uint64_t page_count = 0;
    uint64_t read_bytes = 0;
    vex_status status = vexi_segment_decode(
        segment->core->env, schema, layout, segment->data.mapping.data, pieces, piece_count,
        columns, column_count, rows, row_count, arena, out, &page_count, &read_bytes, err);
    if (stats != NULL) {
        __atomic_add_fetch(&stats->page_count, page_count, __ATOMIC_RELAXED);
        __atomic_add_fetch(&stats->read_bytes, read_bytes, __ATOMIC_RELAXED);
    }
    return status == VEX_OK ? status : vexi_prefix(err, status, "%s", segment->object_name);
}

/* ---- Checking ---------------------------------------------------------------------------------
 */

static vex_status finding_add(vexi_arena *arena, vexi_finding **findings, size_t *count,
                              const char *object, const vex_error *problem, vex_error *err) {
    /* Findings are few; the array doubles in the arena. */
    if ((*count & (*count - 1)) == 0) {
        vexi_finding *larger =
            vexi_arena_array(arena, *count == 0 ? 1 : *count * 2, sizeof **findings);
        if (larger == NULL) {
            return vexi_no_memory(err, *count * sizeof **findings);
        }
        if (*count > 0) {
            memcpy(larger, *findings, *count * sizeof **findings);
        }
        *findings = larger;
    }
    size_t message_size = strlen(problem->message);
    vexi_finding *finding = &(*findings)[*count];
    finding->object = (vex_string){vexi_arena_copy(arena, object, strlen(object)), strlen(object)};
    finding->problem =
        (vex_string){vexi_arena_copy(arena, problem->message, message_size), message_size};
    if (finding->object.data == NULL || finding->problem.data == NULL) {
        return vexi_no_memory(err, message_size);
    }
    *count += 1;
    return VEX_OK;
}

typedef struct verify_job {
    vexi_segment *segment;
    const vexi_schema *schema;
    vexi_span bytes;
    uint64_t rows_seen;
} verify_job;

static vex_status verify_index_guarded(void *argument, vex_error *err) {
    verify_job *job = argument;
    return vexi_index_check_all(&job->segment->index, err);
}

static vex_status verify_data_guarded(void *argument, vex_error *err) {
    verify_job *job = argument;
    return vexi_segment_verify(job->segment->core->env, job->schema, &job->segment->index.layout,
                               job->bytes, &job->rows_seen, err);
}

/* The vectors against their checksums, then the Parquet file as another engine reads it. */
static vex_status verify_data(verify_job *job, vex_error *err) {
    vexi_segment *segment = job->segment;
    vexi_arena arena;
    vexi_arena_init(&arena, segment->core->env);
    /* Read the vectors again, whatever was checked before. */
    for (size_t i = 0; i < vexi_bitmap_words(segment->row_count); i++) {
        __atomic_store_n(&segment->checked[i], 0, __ATOMIC_RELAXED);
    }
    vexi_row_range all = {.first_row = 0, .count = segment->row_count};
    vexi_run *runs;
    size_t run_count;
    vex_status status = vexi_segment_runs(segment, &all, 1, &arena, &runs, &run_count, err);
    if (status == VEX_OK) {
        status = object_bytes(&segment->data, &arena, &job->bytes, err);
    }
    if (status == VEX_OK) {
        /* Decoding allocates: a fault leaks a little, in exchange for a living process. */
        status = vexi_guard_run(verify_data_guarded, job, segment->object_name, err);
    }
    if (status == VEX_OK && job->rows_seen != segment->row_count) {
        status =
            vexi_fail(err, VEX_CORRUPT, "%llu rows, the index file has %llu",
                      (unsigned long long)job->rows_seen, (unsigned long long)segment->row_count);
    }
    vexi_arena_deinit(&arena);
    return status;
}

vex_status vexi_segment_verify_all(vexi_segment *segment, const vexi_schema *schema,
                                   vexi_arena *arena, vexi_finding **findings,
                                   size_t *finding_count, uint64_t *object_count, vex_error *err) {
    *object_count += 1;
    vex_error problem;
    if (vexi_segment_check(segment, &problem) != VEX_OK) {
        return finding_add(arena, findings, finding_count, segment->object_name, &problem, err);
    }
    if (segment->foreign) {
        return VEX_OK; /* decoded whole, with its page checksums, when it was opened */
    }
    *object_count += 1;
    verify_job job = {.segment = segment, .schema = schema};
    if (vexi_guard_run(verify_index_guarded, &job, segment->index_object.name, &problem) !=
        VEX_OK) {
        VEX_TRY(
            finding_add(arena, findings, finding_count, segment->index_object.name, &problem, err));
    }
    if (verify_data(&job, &problem) != VEX_OK) {
        VEX_TRY(finding_add(arena, findings, finding_count, segment->object_name, &problem, err));
    }
    return VEX_OK;
}
