/* Segments: opening, ours by their index file and foreign ones by decoding them, and their end. */
#include <float.h>
#include <math.h>
#include <stdio.h>

#include "base/bitmap.h"
#include "base/checksum.h"
#include "base/guard.h"
#include "format/row_source.h"
#include "table/segment_internal.h"

static const uint64_t distrust_interval_ns = 1000000000;

enum { DAMAGE_NONE = 0, DAMAGE_WRITING = 1, DAMAGE_KNOWN = 2 };

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

vex_status vexi_segment_object_bytes(vexi_object *object, vexi_arena *arena, vexi_span *out,
                                     vex_error *err) {
    if (object->mapping.data != NULL || object->size_bytes == 0) {
        *out = vexi_span_of(object->mapping.data, object->mapping.size);
        return VEX_OK;
    }
    vexi_piece piece = {.offset = 0, .size = (size_t)object->size_bytes};
    VEX_TRY(vexi_object_fetch(object, &piece, 1, arena, NULL, err));
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

/* Whether this is a word about the index file, not about reading it or about memory. */
static bool is_damage(vex_status status) {
    return status == VEX_CORRUPT || status == VEX_UNSUPPORTED || status == VEX_NOT_FOUND;
}

/* Codes serve queries rotated as the rows were. Another seed in the table's configuration (another
 * engine rewrote it) leaves the lists, which are then compared exactly. */
static void codes_check(vexi_segment *segment, const vexi_schema *schema) {
    vexi_index_file *index = &segment->index;
    if (index->code_bits != 0 && index->rotation_seed != schema->rotation_seed) {
        vexi_log(segment->core->env, 2,
                 "%s: codes of another rotation than the collection's are left aside",
                 segment->index_object.name);
        index->code_bits = 0;
    }
}

static vex_status index_fetch(void *context, vexi_piece *pieces, size_t count, vexi_arena *arena,
                              void *cost, vex_error *err) {
    return vexi_object_fetch(context, pieces, count, arena, cost, err);
}

static void index_distrust(void *context) {
    const vexi_object *object = context;
    vexi_store_distrust(object->store, object->name);
}

size_t vexi_segment_head_size(const vexi_delta_add *add) {
    enum { HEAD_LEAST = 4096 }; /* whatever the log says, the fixed header is there */
    if (add->index.path.data == NULL) {
        return 0;
    }
    uint64_t size = add->index.head_size < HEAD_LEAST ? HEAD_LEAST : add->index.head_size;
    return (size_t)(size < add->index.size_bytes ? size : add->index.size_bytes);
}

/* Bytes of the index file: the mapping, or memory of its size with the head in it. */
static vex_status index_bytes(vexi_segment *segment, const vexi_delta_add *add,
                              const vexi_span *head, vexi_span *out, vex_error *err) {
    vexi_object *object = &segment->index_object;
    if (object->mapping.data != NULL || object->size_bytes == 0) {
        *out = vexi_span_of(object->mapping.data, object->mapping.size);
        return VEX_OK;
    }
    const vexi_env *env = segment->core->env;
    size_t size = (size_t)object->size_bytes;
    /* Not touched before a block is there, so it takes no more memory than what was fetched. */
    segment->index_bytes = vexi_alloc_aligned(env, size);
    if (segment->index_bytes == NULL) {
        return vexi_no_memory(err, size);
    }
    vexi_piece piece = {.offset = 0, .size = vexi_segment_head_size(add)};
    *out = vexi_span_of(segment->index_bytes, size);
    if (head != NULL && head->size == piece.size) {
        memcpy(segment->index_bytes, head->data, head->size);
        return VEX_OK;
    }
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vex_status status = vexi_object_fetch(object, &piece, 1, &arena, NULL, err);
    if (status == VEX_OK) {
        memcpy(segment->index_bytes, piece.data, piece.size);
    }
    vexi_arena_deinit(&arena);
    return status;
}

static vex_status open_indexed(vexi_segment *segment, const vexi_schema *schema, const char *folder,
                               const vexi_delta_add *add, const vexi_span *head, vex_error *err) {
    const vexi_env *env = segment->core->env;
    char *index_name = join(env, folder, "/", add->index.path);
    if (index_name == NULL) {
        return vexi_no_memory(err, add->index.path.size);
    }
    vex_status status = vexi_object_open(segment->core->store, index_name, add->index.size_bytes,
                                         &segment->index_object, err);
    open_job job = {.segment = segment, .add = add};
    if (status == VEX_OK) {
        status = index_bytes(segment, add, head, &job.bytes, err);
    }
    if (status == VEX_OK) {
        /* Opening allocates before it reads far; a fault in between is a leak of one small block in
         * exchange for a living process. */
        status = vexi_guard_run(open_index_guarded, &job, index_name, err);
        if (status != VEX_OK) {
            (void)vexi_prefix(err, status, "%s", index_name);
        } else {
            segment->indexed = true;
            if (segment->index_bytes != NULL) {
                segment->index.fetch = index_fetch;
                segment->index.fetch_context = &segment->index_object;
                segment->index.distrust = index_distrust;
            }
        }
    }
    vexi_free(env, index_name);
    if (is_damage(status)) {
        segment->index_damaged = 1;
    }
    VEX_TRY(status);
    const vexi_index_file *index = &segment->index;
    if (index->dimension != segment->dimension || index->metric != segment->metric ||
        index->layout.file_size != add->size_bytes || index->row_count == 0 ||
        (add->row_count >= 0 && (uint64_t)add->row_count != index->row_count)) {
        segment->index_damaged = 1;
        return vexi_fail(err, VEX_CORRUPT, "%s: the index file belongs to another data file",
                         segment->object_name);
    }
    codes_check(segment, schema);
    segment->row_count = index->row_count;
    segment->index_head_crc = add->index.head_crc;
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

static vex_status open_foreign(vexi_segment *segment, const vexi_schema *schema,
                               const vexi_delta_add *add, vex_error *err) {
    segment->foreign = true;
    vexi_span bytes;
    VEX_TRY(vexi_segment_object_bytes(&segment->data, &segment->arena, &bytes, err));
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
    if (status == VEX_OK && add->index.path.data != NULL && add->row_count >= 0 &&
        segment->row_count != (uint64_t)add->row_count) {
        /* Ours, opened plain: its deletion vector counts these rows. */
        status = vexi_fail(err, VEX_CORRUPT, "%llu rows, the log tells of %lld",
                           (unsigned long long)segment->row_count, (long long)add->row_count);
    }
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

static vex_status open_any(vexi_core *core, vexi_schema_box *schema, const char *folder,
                           const vexi_delta_add *add, const vexi_span *head, bool plain,
                           vexi_segment **out, vex_error *err) {
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
        status = add->index.path.data != NULL && !plain
                     ? open_indexed(segment, &schema->schema, folder, add, head, &damage)
                     : open_foreign(segment, &schema->schema, add, &damage);
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

vex_status vexi_segment_open(vexi_core *core, vexi_schema_box *schema, const char *folder,
                             const vexi_delta_add *add, const vexi_span *head, vexi_segment **out,
                             vex_error *err) {
    VEX_TRY(open_any(core, schema, folder, add, head, false, out, err));
    /* What was read may have been spoiled on its way: once more, of what the store has now. */
    bool spoiled = vexi_segment_check(*out, NULL) == VEX_CORRUPT;
    bool given = head != NULL && head->size > 0;
    if (spoiled && (vexi_segment_distrust(*out) || given)) {
        vexi_segment_release(*out);
        return open_any(core, schema, folder, add, NULL, false, out, err);
    }
    return VEX_OK;
}

bool vexi_segment_distrust(vexi_segment *segment) {
    const vexi_core *core = segment->core;
    uint64_t now_ns = vexi_monotonic_ns(core->env);
    uint64_t last_ns = __atomic_load_n(&segment->distrusted_ns, __ATOMIC_RELAXED);
    if (core->store->ops->distrust == NULL ||
        (last_ns != 0 && now_ns - last_ns < distrust_interval_ns)) {
        return false;
    }
    __atomic_store_n(&segment->distrusted_ns, now_ns, __ATOMIC_RELAXED);
    vexi_store_distrust(core->store, segment->object_name);
    if (segment->index_object.name != NULL) {
        vexi_store_distrust(core->store, segment->index_object.name);
    }
    return true;
}

vex_status vexi_segment_open_plain(vexi_core *core, vexi_schema_box *schema, const char *folder,
                                   const vexi_delta_add *add, vexi_segment **out, vex_error *err) {
    return open_any(core, schema, folder, add, NULL, true, out, err);
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
    vexi_segment_graph_free(segment);
    if (segment->indexed) {
        vexi_index_close(&segment->index);
    }
    vexi_object_close(&segment->index_object);
    vexi_object_close(&segment->data);
    vexi_arena_deinit(&segment->arena);
    vexi_free(env, segment->index_bytes);
    vexi_free(env, segment->checked);
    vexi_free(env, segment->path);
    vexi_free(env, segment->object_name);
    vexi_core *core = segment->core;
    vexi_free(env, segment);
    vexi_core_release(core);
}

bool vexi_segment_is_remote(const vexi_segment *segment) {
    return segment->index.fetch != NULL;
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

vex_index_kind vexi_segment_index_kind(const vexi_segment *segment) {
    if (!segment->indexed) {
        return VEX_INDEX_AUTO;
    }
    return segment->index.list_count > 0 ? VEX_INDEX_IVF : VEX_INDEX_FLAT;
}

bool vexi_segment_mendable(const vexi_segment *segment) {
    return !segment->foreign && __atomic_load_n(&segment->plain_failed, __ATOMIC_RELAXED) == 0;
}

bool vexi_segment_is_plain(const vexi_segment *segment) {
    return segment->index_problem.status != VEX_OK;
}

void vexi_segment_set_plain(vexi_segment *segment, const vex_error *index_problem) {
    VEX_ASSERT(segment->foreign && index_problem->status != VEX_OK);
    segment->index_problem = *index_problem;
    vexi_log(segment->core->env, 2, "searched exactly until it is indexed anew: %s",
             index_problem->message);
}

bool vexi_segment_index_damaged(const vexi_segment *segment) {
    return __atomic_load_n(&segment->index_damaged, __ATOMIC_RELAXED) != 0;
}

const vexi_index_file *vexi_segment_index(const vexi_segment *segment) {
    return segment->indexed ? &segment->index : NULL;
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

float vexi_segment_length_max(const vexi_segment *segment) {
    float length;
    __atomic_load(&segment->length_max, &length, __ATOMIC_RELAXED);
    return length == 0 ? -1 : length;
}

void vexi_segment_length_told(vexi_segment *segment, float length) {
    length = length > 0 ? length : FLT_MIN;
    __atomic_store(&segment->length_max, &length, __ATOMIC_RELAXED);
}

uint64_t vexi_segment_deleted_told(const vexi_segment *segment) {
    return __atomic_load_n(&segment->deleted_told, __ATOMIC_RELAXED);
}

void vexi_segment_set_deleted_told(vexi_segment *segment, uint64_t count) {
    __atomic_store_n(&segment->deleted_told, count, __ATOMIC_RELAXED);
}
