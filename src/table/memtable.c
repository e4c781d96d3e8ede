#include "table/memtable.h"

#include <math.h>
#include <pthread.h>

#include "base/checksum.h"

#include "table/memtable_codes.h"

enum {
    CHUNK_BASE = MEMTABLE_CHUNK_BASE,
    CHUNK_COUNT = MEMTABLE_CHUNK_COUNT,
    SLOT_COUNT_MIN = 32,
    CENTER_ROWS = 256 /* that make the centre of the codes where no segment has one */
};

typedef struct mem_row {
    vexi_row row; /* vector points into the vector chunk, NULL for a tombstone */
    uint64_t hash;
    uint32_t previous;
    uint32_t next; /* atomic: the row that supersedes this one, or VEXI_NO_ROW */
} mem_row;

struct vexi_memtable {
    int references; /* atomic */
    const vexi_env *env;
    vexi_schema_box *schema;
    uint32_t stride;        /* floats from one vector to the next */
    uint64_t count;         /* atomic; release-stored after the rows are complete */
    uint64_t capacity;      /* rows that the chunks hold; the appender's */
    uint64_t sequence;      /* the appender's; atomic for describe */
    size_t size_bytes;      /* atomic */
    vexi_row_block *blocks; /* the appender's */
    mem_row *rows[CHUNK_COUNT];
    float *vectors[CHUNK_COUNT];
    float *inverse_norms[CHUNK_COUNT]; /* cosine only */
    float length_max;                  /* inner product only; atomic, of all rows below count */
    memtable_codes codes;
    uint64_t center_row; /* the first row that has a vector is not before it; the encoder's */

    pthread_rwlock_t lock; /* guards the id table */
    uint32_t *slots;       /* row + 1, 0 empty; open addressing, linear probing */
    uint64_t slot_count;   /* power of two */
    uint64_t slot_used;
};

vex_status vexi_schema_box_create(const vexi_env *env, const vexi_schema *schema,
                                  vexi_schema_box **out, vex_error *err) {
    *out = NULL;
    size_t names = 0;
    for (uint32_t i = 0; i < schema->column_count; i++) {
        names += schema->columns[i].name.size + 1;
    }
    size_t size =
        sizeof(vexi_schema_box) + schema->column_count * sizeof(vexi_schema_column) + names;
    vexi_schema_box *box = vexi_alloc(env, size);
    if (box == NULL) {
        return vexi_no_memory(err, size);
    }
    box->references = 1;
    box->env = env;
    box->schema = *schema;
    vexi_rotation_init(&box->rotation, schema->dimension, schema->rotation_seed);
    vexi_schema_column *columns = (vexi_schema_column *)(box + 1);
    char *text = (char *)(columns + schema->column_count);
    for (uint32_t i = 0; i < schema->column_count; i++) {
        vex_string name = schema->columns[i].name;
        memcpy(text, name.data, name.size);
        text[name.size] = '\0';
        columns[i] = (vexi_schema_column){.name = {.data = text, .size = name.size},
                                          .type = schema->columns[i].type};
        text += name.size + 1;
    }
    box->schema.columns = columns;
    *out = box;
    return VEX_OK;
}

vexi_schema_box *vexi_schema_box_retain(vexi_schema_box *box) {
    __atomic_add_fetch(&box->references, 1, __ATOMIC_RELAXED);
    return box;
}

void vexi_schema_box_release(vexi_schema_box *box) {
    if (box != NULL && __atomic_sub_fetch(&box->references, 1, __ATOMIC_ACQ_REL) == 0) {
        vexi_free(box->env, box);
    }
}

/* ---- Row blocks -------------------------------------------------------------------------------
 */

static size_t cell_string_size(const vexi_schema *schema, const vexi_row *row) {
    size_t size = 0;
    for (uint32_t c = 0; row->cells != NULL && c < schema->column_count; c++) {
        if (schema->columns[c].type == VEX_TYPE_STRING && !row->cells[c].is_null) {
            size += row->cells[c].as.string.size;
        }
    }
    return size;
}

/* Copy bytes to *cursor and advance. A null string stays null; an empty one is not null. */
static vex_string block_string(char **cursor, vex_string value) {
    if (value.data == NULL) {
        return value;
    }
    vex_string copy = {.data = *cursor, .size = value.size};
    if (value.size > 0) {
        memcpy(*cursor, value.data, value.size);
    }
    *cursor += value.size;
    return copy;
}

vex_status vexi_row_block_create(const vexi_env *env, const vexi_schema *schema,
                                 const vexi_row *rows, const vex_string *ids, size_t count,
                                 vexi_row_block **out, vex_error *err) {
    *out = NULL;
    size_t vector_size = (size_t)schema->dimension * sizeof(float);
    size_t text_size = 0;
    size_t cell_rows = 0;
    for (size_t i = 0; i < count; i++) {
        if (rows == NULL) {
            text_size += ids[i].size;
            continue;
        }
        text_size += rows[i].id.size + rows[i].attributes.size + rows[i].payload.size +
                     cell_string_size(schema, &rows[i]);
        cell_rows += rows[i].cells != NULL ? 1 : 0;
    }
    size_t cells_size = cell_rows * schema->column_count * sizeof(vexi_cell);
    /* One byte more, so that empty strings have an address inside. */
    size_t size = sizeof(vexi_row_block) + count * sizeof(vexi_row) + cells_size + text_size + 1;
    vexi_row_block *block = vexi_alloc(env, size);
    if (block == NULL) {
        return vexi_no_memory(err, size);
    }
    float *vectors = NULL;
    if (rows != NULL) {
        vectors = vexi_alloc_array(env, count, vector_size);
        if (vectors == NULL) {
            vexi_free(env, block);
            return vexi_no_memory(err, count * vector_size);
        }
    }
    block->next = NULL;
    block->vectors = vectors;
    block->size_bytes = size;
    block->count = count;
    block->rows = (vexi_row *)(block + 1);
    vexi_cell *cells = (vexi_cell *)(block->rows + count);
    char *text = (char *)(cells + cell_rows * schema->column_count);
    for (size_t i = 0; i < count; i++) {
        if (rows == NULL) {
            block->rows[i] = (vexi_row){.id = block_string(&text, ids[i])};
            continue;
        }
        vexi_row *row = &block->rows[i];
        *row = (vexi_row){.id = block_string(&text, rows[i].id),
                          .vector = vectors,
                          .attributes = block_string(&text, rows[i].attributes),
                          .payload = block_string(&text, rows[i].payload)};
        memcpy(vectors, rows[i].vector, vector_size);
        vectors += schema->dimension;
        if (rows[i].cells != NULL) {
            row->cells = cells;
            for (uint32_t c = 0; c < schema->column_count; c++, cells++) {
                *cells = rows[i].cells[c];
                if (schema->columns[c].type == VEX_TYPE_STRING && !cells->is_null) {
                    cells->as.string = block_string(&text, cells->as.string);
                }
            }
        }
    }
    *out = block;
    return VEX_OK;
}

void vexi_row_block_destroy(const vexi_env *env, vexi_row_block *block) {
    if (block != NULL) {
        vexi_free(env, block->vectors);
        vexi_free(env, block);
    }
}

/* ---- Memtables --------------------------------------------------------------------------------
 */

static mem_row *row_at(const vexi_memtable *memtable, uint64_t row) {
    uint64_t offset;
    uint32_t chunk = memtable_chunk_of(row, &offset);
    return &memtable->rows[chunk][offset];
}

vex_status vexi_memtable_create(vexi_schema_box *schema, const float *center, float row_length,
                                vexi_memtable **out, vex_error *err) {
    *out = NULL;
    vexi_memtable *memtable = vexi_calloc(schema->env, 1, sizeof *memtable);
    if (memtable == NULL) {
        return vexi_no_memory(err, sizeof *memtable);
    }
    const vexi_schema *columns = &schema->schema;
    if (memtable_codes_pay(columns->index, columns->dimension)) {
        vex_status status = memtable_codes_init(&memtable->codes, schema->env, &schema->rotation,
                                                columns->metric, center, row_length, err);
        if (status != VEX_OK) {
            vexi_free(schema->env, memtable);
            return status;
        }
    }
    memtable->references = 1;
    memtable->env = schema->env;
    memtable->schema = vexi_schema_box_retain(schema);
    memtable->stride = schema->schema.dimension;
    pthread_rwlock_init(&memtable->lock, NULL);
    *out = memtable;
    return VEX_OK;
}

void vexi_memtable_retain(vexi_memtable *memtable) {
    __atomic_add_fetch(&memtable->references, 1, __ATOMIC_RELAXED);
}

void vexi_memtable_release(vexi_memtable *memtable) {
    if (memtable == NULL || __atomic_sub_fetch(&memtable->references, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    const vexi_env *env = memtable->env;
    for (int c = 0; c < CHUNK_COUNT; c++) {
        vexi_free(env, memtable->rows[c]);
        vexi_free(env, memtable->vectors[c]);
        vexi_free(env, memtable->inverse_norms[c]);
    }
    while (memtable->blocks != NULL) {
        vexi_row_block *next = memtable->blocks->next;
        vexi_free(env, memtable->blocks);
        memtable->blocks = next;
    }
    vexi_free(env, memtable->slots);
    memtable_codes_deinit(&memtable->codes);
    vexi_schema_box_release(memtable->schema);
    pthread_rwlock_destroy(&memtable->lock);
    vexi_free(env, memtable);
}

static void slot_insert(uint32_t *slots, uint64_t slot_count, uint64_t hash, uint32_t row) {
    uint64_t slot = hash & (slot_count - 1);
    while (slots[slot] != 0) {
        slot = (slot + 1) & (slot_count - 1);
    }
    slots[slot] = row + 1;
}

/* Grow the id table to at most half full with `row_count` rows. */
static vex_status slots_reserve(vexi_memtable *memtable, uint64_t row_count, vex_error *err) {
    uint64_t wanted = SLOT_COUNT_MIN;
    while (wanted < row_count * 2) {
        wanted *= 2;
    }
    if (wanted <= memtable->slot_count) {
        return VEX_OK;
    }
    uint32_t *slots = vexi_calloc(memtable->env, wanted, sizeof *slots);
    if (slots == NULL) {
        return vexi_no_memory(err, wanted * sizeof *slots);
    }
    for (uint64_t i = 0; i < memtable->slot_count; i++) {
        if (memtable->slots[i] != 0) {
            uint32_t row = memtable->slots[i] - 1;
            slot_insert(slots, wanted, row_at(memtable, row)->hash, row);
        }
    }
    pthread_rwlock_wrlock(&memtable->lock);
    uint32_t *old = memtable->slots;
    memtable->slots = slots;
    memtable->slot_count = wanted;
    pthread_rwlock_unlock(&memtable->lock);
    vexi_free(memtable->env, old);
    return VEX_OK;
}

vex_status vexi_memtable_reserve(vexi_memtable *memtable, uint64_t row_count, vex_error *err) {
    if (row_count > VEXI_MEMTABLE_ROW_MAX) {
        return vexi_fail(err, VEX_LIMIT, "more than %d rows between two flushes",
                         VEXI_MEMTABLE_ROW_MAX);
    }
    const vexi_env *env = memtable->env;
    bool cosine = memtable->schema->schema.metric == VEX_METRIC_COSINE;
    while (memtable->capacity < row_count) {
        uint64_t offset;
        uint32_t chunk = memtable_chunk_of(memtable->capacity, &offset);
        size_t rows = (size_t)CHUNK_BASE << chunk;
        size_t vector_size = (size_t)memtable->stride * sizeof(float);
        if (memtable->rows[chunk] == NULL) {
            memtable->rows[chunk] = vexi_alloc_array(env, rows, sizeof(mem_row));
        }
        if (memtable->vectors[chunk] == NULL) {
            memtable->vectors[chunk] = vexi_alloc_aligned(env, rows * vector_size);
        }
        if (cosine && memtable->inverse_norms[chunk] == NULL) {
            memtable->inverse_norms[chunk] = vexi_alloc_array(env, rows, sizeof(float));
        }
        if (memtable->rows[chunk] == NULL || memtable->vectors[chunk] == NULL ||
            (cosine && memtable->inverse_norms[chunk] == NULL)) {
            return vexi_no_memory(err, rows * vector_size);
        }
        VEX_TRY(memtable_codes_reserve(&memtable->codes, chunk, err));
        memtable->capacity += rows;
    }
    return slots_reserve(memtable, row_count, err);
}

/* Find the slot of an id. The lock is held, or the caller is the appender. */
static uint64_t slot_find(const vexi_memtable *memtable, vex_string id, uint64_t hash) {
    if (memtable->slot_count == 0) {
        return UINT64_MAX;
    }
    uint64_t mask = memtable->slot_count - 1;
    for (uint64_t slot = hash & mask; memtable->slots[slot] != 0; slot = (slot + 1) & mask) {
        const mem_row *candidate = row_at(memtable, memtable->slots[slot] - 1);
        if (candidate->hash == hash && vexi_string_equal(candidate->row.id, id)) {
            return slot;
        }
    }
    return UINT64_MAX;
}

static double square_of(const float *vector, uint32_t dimension) {
    double sum = 0;
    for (uint32_t i = 0; i < dimension; i++) {
        sum += (double)vector[i] * (double)vector[i];
    }
    return sum;
}

static float inverse_norm(const float *vector, uint32_t dimension) {
    double square = square_of(vector, dimension);
    return square > 0 ? (float)(1.0 / sqrt(square)) : 0.0f;
}

void vexi_memtable_append(vexi_memtable *memtable, vexi_row_block *block, uint64_t first_sequence) {
    const vexi_schema *schema = &memtable->schema->schema;
    uint64_t count = memtable->count;
    VEX_ASSERT(count + block->count <= memtable->capacity);
    float length_max = memtable->length_max;
    for (size_t i = 0; i < block->count; i++) {
        uint64_t offset;
        uint32_t chunk = memtable_chunk_of(count + i, &offset);
        mem_row *target = &memtable->rows[chunk][offset];
        float *vector = memtable->vectors[chunk] + offset * memtable->stride;
        *target = (mem_row){.row = block->rows[i],
                            .hash = vexi_hash64(block->rows[i].id.data, block->rows[i].id.size),
                            .previous = VEXI_NO_ROW,
                            .next = VEXI_NO_ROW};
        if (block->rows[i].vector == NULL) {
            memset(vector, 0, memtable->stride * sizeof(float));
        } else {
            memcpy(vector, block->rows[i].vector, memtable->stride * sizeof(float));
            target->row.vector = vector;
        }
        if (schema->metric == VEX_METRIC_COSINE) {
            memtable->inverse_norms[chunk][offset] = inverse_norm(vector, schema->dimension);
        } else if (schema->metric == VEX_METRIC_IP) {
            float length = 1.001f * (float)sqrt(square_of(vector, schema->dimension));
            length_max = length > length_max ? length : length_max;
        }
    }
    pthread_rwlock_wrlock(&memtable->lock);
    for (size_t i = 0; i < block->count; i++) {
        uint32_t row = (uint32_t)(count + i);
        mem_row *target = row_at(memtable, row);
        uint64_t slot = slot_find(memtable, target->row.id, target->hash);
        if (slot == UINT64_MAX) {
            slot_insert(memtable->slots, memtable->slot_count, target->hash, row);
        } else {
            uint32_t previous = memtable->slots[slot] - 1;
            target->previous = previous;
            __atomic_store_n(&row_at(memtable, previous)->next, row, __ATOMIC_RELEASE);
            memtable->slots[slot] = row + 1;
        }
    }
    pthread_rwlock_unlock(&memtable->lock);
    size_t row_size = sizeof(mem_row) + (size_t)memtable->stride * sizeof(float) + 16 +
                      memtable->codes.layout.block_size / VEXI_CODE_BLOCK_ROWS;
    __atomic_add_fetch(&memtable->size_bytes, block->size_bytes + block->count * row_size,
                       __ATOMIC_RELAXED);
    __atomic_store_n(&memtable->sequence, first_sequence + block->count - 1, __ATOMIC_RELAXED);
    vexi_free(memtable->env, block->vectors);
    block->vectors = NULL;
    block->next = memtable->blocks;
    memtable->blocks = block;
    __atomic_store(&memtable->length_max, &length_max, __ATOMIC_RELAXED);
    __atomic_store_n(&memtable->count, count + block->count, __ATOMIC_RELEASE);
}

/* Mean of the first rows that are there. False: there are too few yet. */
static bool center_fix(vexi_memtable *memtable, uint64_t count) {
    const float *rows[CENTER_ROWS];
    while (memtable->center_row < count &&
           row_at(memtable, memtable->center_row)->row.vector == NULL) {
        memtable->center_row++;
    }
    if (count - memtable->center_row < CENTER_ROWS) {
        return false;
    }
    uint32_t used = 0;
    for (uint64_t i = 0; i < CENTER_ROWS; i++) {
        rows[used] = row_at(memtable, memtable->center_row + i)->row.vector;
        used += rows[used] != NULL ? 1 : 0;
    }
    memtable_codes_center(&memtable->codes, rows, used);
    return true;
}

void vexi_memtable_encode(vexi_memtable *memtable) {
    memtable_codes *codes = &memtable->codes;
    uint64_t count = vexi_memtable_count(memtable);
    if (codes->rotation == NULL || (!codes->has_center && !center_fix(memtable, count))) {
        return;
    }
    while (count - codes->row_count >= VEXI_CODE_BLOCK_ROWS) {
        const float *rows[VEXI_CODE_BLOCK_ROWS];
        uint64_t offset; /* a block lies within a chunk */
        uint32_t chunk = memtable_chunk_of(codes->row_count, &offset);
        for (uint32_t i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
            rows[i] = memtable->rows[chunk][offset + i].row.vector;
        }
        memtable_codes_encode(codes, rows);
    }
}

void vexi_memtable_codes_of(const vexi_memtable *memtable, uint64_t row_count,
                            vexi_memtable_codes *out) {
    const memtable_codes *codes = &memtable->codes;
    *out = (vexi_memtable_codes){.center = NULL};
    uint64_t coded = __atomic_load_n(&codes->row_count, __ATOMIC_ACQUIRE);
    uint64_t most = row_count - row_count % VEXI_CODE_BLOCK_ROWS;
    coded = coded < most ? coded : most;
    if (coded == 0) {
        return;
    }
    out->center = codes->center;
    out->origin = codes->origin;
    out->row_length = codes->row_length;
    out->row_count = coded;
    out->bits = codes->layout.bits;
    for (uint64_t row = 0; row < coded;) {
        uint64_t offset;
        uint32_t chunk = memtable_chunk_of(row, &offset);
        uint64_t in_chunk = (uint64_t)CHUNK_BASE << chunk;
        uint64_t rows = in_chunk < coded - row ? in_chunk : coded - row;
        out->lists[out->list_count++] = (vexi_code_list){
            .blocks = codes->blocks[chunk],
            .row_count = (uint32_t)rows,
            .first_row = (uint32_t)row,
            .error = memtable_codes_error(codes, chunk),
        };
        row += rows;
    }
}

uint64_t vexi_memtable_count(const vexi_memtable *memtable) {
    return __atomic_load_n(&memtable->count, __ATOMIC_ACQUIRE);
}

size_t vexi_memtable_size_bytes(const vexi_memtable *memtable) {
    return __atomic_load_n(&memtable->size_bytes, __ATOMIC_RELAXED);
}

uint64_t vexi_memtable_sequence(const vexi_memtable *memtable) {
    return __atomic_load_n(&memtable->sequence, __ATOMIC_RELAXED);
}

bool vexi_memtable_find(vexi_memtable *memtable, vex_string id, uint64_t hash, uint64_t count,
                        uint64_t *row) {
    pthread_rwlock_rdlock(&memtable->lock);
    uint64_t slot = slot_find(memtable, id, hash);
    uint32_t newest = slot == UINT64_MAX ? VEXI_NO_ROW : memtable->slots[slot] - 1;
    pthread_rwlock_unlock(&memtable->lock);
    while (newest != VEXI_NO_ROW && newest >= count) {
        newest = row_at(memtable, newest)->previous;
    }
    *row = newest;
    return newest != VEXI_NO_ROW;
}

bool vexi_memtable_is_tombstone(const vexi_memtable *memtable, uint64_t row) {
    return row_at(memtable, row)->row.vector == NULL;
}

uint64_t vexi_memtable_hash(const vexi_memtable *memtable, uint64_t row) {
    return row_at(memtable, row)->hash;
}

uint32_t vexi_memtable_previous(const vexi_memtable *memtable, uint64_t row) {
    return row_at(memtable, row)->previous;
}

bool vexi_memtable_superseded(const vexi_memtable *memtable, uint64_t row, uint64_t count) {
    /* NO_ROW is larger than any count. */
    return __atomic_load_n(&row_at(memtable, row)->next, __ATOMIC_ACQUIRE) < count;
}

vexi_row vexi_memtable_row(const vexi_memtable *memtable, uint64_t row) {
    return row_at(memtable, row)->row;
}

size_t vexi_memtable_runs(const vexi_memtable *memtable, uint64_t first, uint64_t count,
                          vexi_run runs[32]) {
    size_t run_count = 0;
    while (count > 0) {
        uint64_t offset;
        uint32_t chunk = memtable_chunk_of(first, &offset);
        uint64_t in_chunk = ((uint64_t)CHUNK_BASE << chunk) - offset;
        uint64_t rows = in_chunk < count ? in_chunk : count;
        const float *norms = memtable->inverse_norms[chunk];
        runs[run_count++] = (vexi_run){
            .vectors = (const uint8_t *)(memtable->vectors[chunk] + offset * memtable->stride),
            .stride = (size_t)memtable->stride * sizeof(float),
            .count = rows,
            .first_row = first,
            .inverse_norms = norms == NULL ? NULL : (const uint8_t *)(norms + offset),
        };
        first += rows;
        count -= rows;
    }
    return run_count;
}

float vexi_memtable_length_max(const vexi_memtable *memtable) {
    float length;
    __atomic_load(&memtable->length_max, &length, __ATOMIC_RELAXED);
    return memtable->schema->schema.metric == VEX_METRIC_IP ? length : -1;
}
