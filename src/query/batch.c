/* Builder of record batches: measure, allocate once, fill.
 *
 * The first pass over the columns decides what is shared and sums sizes; it reads lengths and
 * pointers, never the bytes they point at. Then one allocation holds everything: the block's
 * header, the array structs, their pointer tables, and the buffers at multiples of 64 bytes. The
 * second pass copies, inside a SIGBUS guard because the bytes may lie in mapped files.
 *
 * Invariants:
 * 1. references == number of array structs of this block whose release is not NULL, wherever a
 *    consumer moved them. The last release frees the block and drops what it shares.
 * 2. Array structs inside the block stay addressable while any of them is alive, so a moved child
 *    may keep pointing at its own children.
 * 3. Buffers are never NULL, except a validity bitmap where nothing is null. */
#include "query/batch.h"

#include <stdio.h>

#include "base/bitmap.h"
#include "base/guard.h"

/* A single string from this size on is shared: below, a copy is cheaper than a reference. */
enum { SHARE_SIZE_MIN = 4096, BUFFER_ALIGNMENT = 64 };

typedef struct batch_block {
    atomic_size_t references;
    vexi_keeper *keeper;
    vexi_view *view;         /* NULL: not shared */
    vexi_memtable *memtable; /* NULL: not shared */
    vexi_arena *arenas;      /* NULL: not shared */
    size_t arena_count;
} batch_block;

static void arenas_free(const vexi_env *env, vexi_arena *arenas, size_t count) {
    for (size_t i = 0; i < count; i++) {
        vexi_arena_deinit(&arenas[i]);
    }
    vexi_free(env, arenas);
}

static void block_release(batch_block *block) {
    if (atomic_fetch_sub_explicit(&block->references, 1, memory_order_acq_rel) != 1) {
        return;
    }
    vexi_keeper *keeper = block->keeper;
    if (block->arenas != NULL) {
        arenas_free(keeper->env, block->arenas, block->arena_count);
    }
    if (block->memtable != NULL) {
        vexi_memtable_release(block->memtable);
    }
    if (block->view != NULL) {
        vexi_view_release(block->view);
    }
    vexi_free(keeper->env, block);
    vexi_keeper_release(keeper);
}

static void array_release(struct ArrowArray *array) {
    batch_block *block = array->private_data;
    for (int64_t i = 0; i < array->n_children; i++) {
        if (array->children[i]->release != NULL) {
            array->children[i]->release(array->children[i]);
        }
    }
    array->release = NULL;
    block_release(block);
}

/* ---- Measuring ------------------------------------------------------------------------------- */

/* Offsets of a column's buffers in the block. */
typedef struct column_plan {
    size_t null_count;
    size_t validity;    /* 0: none */
    size_t offsets;     /* strings */
    size_t values;      /* 0: shared */
    const void *shared; /* the engine's memory instead of `values` */
    size_t value_size;  /* bytes of `values` */
} column_plan;

static bool kind_is_string(vexi_batch_kind kind) {
    return kind == VEXI_BATCH_STRING || kind == VEXI_BATCH_CELL_UTF8 ||
           kind == VEXI_BATCH_CELL_BINARY;
}

/* The string of a row; data is NULL for null. */
static inline vex_string column_string(const vexi_batch_column *column, size_t row) {
    if (column->kind == VEXI_BATCH_STRING) {
        return ((const vex_string *)column->data)[row];
    }
    const vexi_cell *cell = (const vexi_cell *)column->data + row;
    return cell->is_null ? (vex_string){NULL, 0} : cell->as.string;
}

static bool column_is_null(const vexi_batch_column *column, size_t row) {
    switch (column->kind) {
    case VEXI_BATCH_UINT32:
    case VEXI_BATCH_FLOAT64:
        return false;
    case VEXI_BATCH_VECTOR:
        return ((const uint8_t *const *)column->data)[row] == NULL;
    case VEXI_BATCH_STRING:
    case VEXI_BATCH_CELL_UTF8:
    case VEXI_BATCH_CELL_BINARY:
        return column_string(column, row).data == NULL;
    case VEXI_BATCH_CELL_INT64:
    case VEXI_BATCH_CELL_FLOAT64:
    case VEXI_BATCH_CELL_BOOL:
    case VEXI_BATCH_CELL_TIMESTAMP:
        return ((const vexi_cell *)column->data)[row].is_null;
    }
    return true;
}

/* Room for `size` bytes at the next multiple of 64; *used is where the block ends so far. */
static bool reserve(size_t *used, size_t size, size_t *offset) {
    size_t aligned;
    if (__builtin_add_overflow(*used, (size_t)(BUFFER_ALIGNMENT - 1), &aligned)) {
        return false;
    }
    aligned &= ~(size_t)(BUFFER_ALIGNMENT - 1);
    *offset = aligned;
    return !__builtin_add_overflow(aligned, size, used);
}

static bool reserve_items(size_t *used, size_t count, size_t size, size_t *offset) {
    size_t total;
    return !__builtin_mul_overflow(count, size, &total) && reserve(used, total, offset);
}

/* The first vector, if the rows' vectors lie one behind the other, aligned for floats. */
static const void *vectors_contiguous(const vexi_batch_column *column, size_t row_count) {
    const uint8_t *const *vectors = column->data;
    size_t stride = (size_t)column->dimension * sizeof(float);
    if (row_count == 0 || vectors[0] == NULL || (uintptr_t)vectors[0] % sizeof(float) != 0) {
        return NULL;
    }
    uintptr_t expected = (uintptr_t)vectors[0];
    for (size_t i = 1; i < row_count; i++) {
        expected += stride;
        if ((uintptr_t)vectors[i] != expected) {
            return NULL;
        }
    }
    return vectors[0];
}

static vex_status measure_strings(const vexi_batch_column *column, size_t row_count, bool may_share,
                                  column_plan *plan, size_t *used, vex_error *err) {
    size_t total = 0;
    const char *only = NULL;
    size_t value_count = 0;
    for (size_t i = 0; i < row_count; i++) {
        vex_string value = column_string(column, i);
        if (value.data == NULL) {
            plan->null_count++;
        } else if (value.size > 0) {
            only = value.data;
            value_count++;
            if (__builtin_add_overflow(total, value.size, &total) || total > INT32_MAX) {
                return vexi_fail(err, VEX_LIMIT,
                                 "column '%.*s' of the result is over 2 GiB: ask for fewer rows",
                                 (int)column->name.size, column->name.data);
            }
        }
    }
    if (value_count == 1 && may_share && total >= SHARE_SIZE_MIN) {
        plan->shared = only;
    } else if (!reserve(used, total, &plan->values)) {
        return vexi_no_memory(err, SIZE_MAX);
    }
    plan->value_size = total;
    if (!reserve_items(used, row_count + 1, sizeof(int32_t), &plan->offsets)) {
        return vexi_no_memory(err, SIZE_MAX);
    }
    return VEX_OK;
}

static size_t kind_item_size(vexi_batch_kind kind) {
    return kind == VEXI_BATCH_UINT32 ? sizeof(uint32_t) : sizeof(int64_t);
}

static vex_status measure_column(const vexi_batch_column *column, size_t row_count, bool may_share,
                                 column_plan *plan, size_t *used, vex_error *err) {
    *plan = (column_plan){0};
    bool fits = true;
    if (kind_is_string(column->kind)) {
        VEX_TRY(measure_strings(column, row_count, may_share, plan, used, err));
    } else {
        if (column->kind != VEXI_BATCH_UINT32 && column->kind != VEXI_BATCH_FLOAT64) {
            for (size_t i = 0; i < row_count; i++) {
                plan->null_count += column_is_null(column, i);
            }
        }
        if (column->kind == VEXI_BATCH_VECTOR) {
            plan->shared = may_share ? vectors_contiguous(column, row_count) : NULL;
            if (plan->shared == NULL) {
                fits = reserve_items(used, row_count, (size_t)column->dimension * sizeof(float),
                                     &plan->values);
            }
        } else if (column->kind == VEXI_BATCH_CELL_BOOL) {
            plan->value_size = (row_count + 7) / 8;
            fits = reserve(used, plan->value_size, &plan->values);
        } else {
            fits = reserve_items(used, row_count, kind_item_size(column->kind), &plan->values);
        }
    }
    if (fits && plan->null_count > 0) {
        fits = reserve(used, (row_count + 7) / 8, &plan->validity);
    }
    return fits ? VEX_OK : vexi_no_memory(err, SIZE_MAX);
}

/* ---- Filling --------------------------------------------------------------------------------- */

static void fill_validity(const vexi_batch_column *column, size_t row_count, uint8_t *bits) {
    memset(bits, 0, (row_count + 7) / 8);
    for (size_t i = 0; i < row_count; i++) {
        if (!column_is_null(column, i)) {
            bits[i / 8] = (uint8_t)(bits[i / 8] | 1u << (i % 8));
        }
    }
}

/* Copying notes the row under way in *at, for whoever has to tell where a fault was. */
static void fill_strings(const vexi_batch_column *column, size_t row_count, int32_t *offsets,
                         uint8_t *values, volatile size_t *at) {
    size_t total = 0;
    offsets[0] = 0;
    for (size_t i = 0; i < row_count; i++) {
        vex_string value = column_string(column, i);
        if (value.data != NULL && value.size > 0) {
            if (values != NULL) {
                *at = i;
                memcpy(values + total, value.data, value.size);
            }
            total += value.size;
        }
        offsets[i + 1] = (int32_t)total; /* measure_strings kept it below 2 GiB */
    }
}

static void fill_vectors(const vexi_batch_column *column, size_t row_count, uint8_t *values,
                         volatile size_t *at) {
    const uint8_t *const *vectors = column->data;
    size_t stride = (size_t)column->dimension * sizeof(float);
    for (size_t i = 0; i < row_count; i++) {
        if (vectors[i] != NULL) {
            *at = i;
            memcpy(values + i * stride, vectors[i], stride);
        } else {
            memset(values + i * stride, 0, stride);
        }
    }
}

static void fill_column(const vexi_batch_column *column, size_t row_count, const column_plan *plan,
                        uint8_t *block, volatile size_t *at) {
    const vexi_cell *cells = column->data;
    uint8_t *values = plan->shared == NULL ? block + plan->values : NULL;
    if (plan->validity != 0) {
        fill_validity(column, row_count, block + plan->validity);
    }
    switch (column->kind) {
    case VEXI_BATCH_UINT32:
    case VEXI_BATCH_FLOAT64:
        if (row_count > 0) {
            memcpy(values, column->data, row_count * kind_item_size(column->kind));
        }
        break;
    case VEXI_BATCH_STRING:
    case VEXI_BATCH_CELL_UTF8:
    case VEXI_BATCH_CELL_BINARY:
        fill_strings(column, row_count, (int32_t *)(void *)(block + plan->offsets), values, at);
        break;
    case VEXI_BATCH_VECTOR:
        if (values != NULL) {
            fill_vectors(column, row_count, values, at);
        }
        break;
    case VEXI_BATCH_CELL_INT64:
    case VEXI_BATCH_CELL_TIMESTAMP:
        for (size_t i = 0; i < row_count; i++) {
            ((int64_t *)(void *)values)[i] = cells[i].is_null ? 0 : cells[i].as.int64;
        }
        break;
    case VEXI_BATCH_CELL_FLOAT64:
        for (size_t i = 0; i < row_count; i++) {
            ((double *)(void *)values)[i] = cells[i].is_null ? 0.0 : cells[i].as.float64;
        }
        break;
    case VEXI_BATCH_CELL_BOOL:
        memset(values, 0, (row_count + 7) / 8);
        for (size_t i = 0; i < row_count; i++) {
            if (!cells[i].is_null && cells[i].as.boolean) {
                values[i / 8] = (uint8_t)(values[i / 8] | 1u << (i % 8));
            }
        }
        break;
    }
}

typedef struct fill_job {
    const vexi_batch_column *columns;
    size_t column_count;
    size_t row_count;
    const column_plan *plans;
    uint8_t *block;
    volatile size_t at; /* row under way: read after a fault */
} fill_job;

static vex_status fill_run(void *argument, vex_error *err) {
    (void)err;
    fill_job *job = argument;
    for (size_t i = 0; i < job->column_count; i++) {
        fill_column(&job->columns[i], job->row_count, &job->plans[i], job->block, &job->at);
    }
    return VEX_OK;
}

/* ---- Building -------------------------------------------------------------------------------- */

/* The pieces of the block that hold array structs. */
typedef struct block_tables {
    size_t arrays;   /* struct ArrowArray: a node per column, then one per vector column */
    size_t children; /* struct ArrowArray *: one per node */
    size_t buffers;  /* const void *: 1 for the root, 3 for each node */
} block_tables;

static void array_init(struct ArrowArray *array, batch_block *block, size_t length,
                       size_t null_count, int64_t buffer_count, const void **buffers) {
    *array = (struct ArrowArray){
        .length = (int64_t)length,
        .null_count = (int64_t)null_count,
        .n_buffers = buffer_count,
        .buffers = buffers,
        .release = array_release,
        .private_data = block,
    };
}

/* Link the array structs in the block and hand the root out. */
static void arrays_link(uint8_t *base, const block_tables *tables, const fill_job *job,
                        struct ArrowArray *out) {
    batch_block *block = (batch_block *)(void *)base;
    struct ArrowArray *nodes = (struct ArrowArray *)(void *)(base + tables->arrays);
    struct ArrowArray **children = (struct ArrowArray **)(void *)(base + tables->children);
    const void **buffers = (const void **)(void *)(base + tables->buffers);
    size_t node_count = job->column_count;

    array_init(out, block, job->row_count, 0, 1, buffers);
    buffers[0] = NULL;
    buffers++;
    out->n_children = (int64_t)job->column_count;
    out->children = children;
    for (size_t i = 0; i < job->column_count; i++) {
        const column_plan *plan = &job->plans[i];
        const void *values = plan->shared != NULL ? plan->shared : base + plan->values;
        const void **own = buffers + 3 * i;
        own[0] = plan->validity == 0 ? NULL : base + plan->validity;
        children[i] = &nodes[i];
        array_init(&nodes[i], block, job->row_count, plan->null_count, 2, own);
        if (kind_is_string(job->columns[i].kind)) {
            nodes[i].n_buffers = 3;
            own[1] = base + plan->offsets;
            own[2] = values;
        } else if (job->columns[i].kind == VEXI_BATCH_VECTOR) {
            size_t inner = node_count++;
            const void **inner_buffers = buffers + 3 * inner;
            inner_buffers[0] = NULL;
            inner_buffers[1] = values;
            array_init(&nodes[inner], block, job->row_count * job->columns[i].dimension, 0, 2,
                       inner_buffers);
            nodes[i].n_buffers = 1;
            nodes[i].n_children = 1;
            nodes[i].children = &children[inner];
            children[inner] = &nodes[inner];
        } else {
            own[1] = values;
        }
    }
    atomic_init(&block->references, node_count + 1);
}

static void block_share(batch_block *block, vexi_batch_owner *owner) {
    if (owner->view != NULL) {
        vexi_view_retain(owner->view);
        block->view = owner->view;
    }
    if (owner->memtable != NULL) {
        vexi_memtable_retain(owner->memtable);
        block->memtable = owner->memtable;
    }
    block->arenas = owner->arenas;
    block->arena_count = owner->arena_count;
    owner->arenas = NULL;
    owner->arena_count = 0;
}

vex_status vexi_batch_build(vexi_keeper *keeper, const vexi_batch_column *columns,
                            size_t column_count, size_t row_count, vexi_batch_owner *owner,
                            struct ArrowArray *out, vex_error *err) {
    *out = (struct ArrowArray){0};
    VEX_ASSERT(column_count <= VEXI_BATCH_COLUMNS_MAX);
    column_plan plans[VEXI_BATCH_COLUMNS_MAX];
    block_tables tables;
    bool may_share = owner != NULL && (owner->view != NULL || owner->memtable != NULL);
    bool shares = false;
    size_t node_count = column_count;
    size_t used = sizeof(batch_block);

    for (size_t i = 0; i < column_count; i++) {
        node_count += columns[i].kind == VEXI_BATCH_VECTOR;
    }
    bool fits = reserve_items(&used, node_count, sizeof(struct ArrowArray), &tables.arrays) &&
                reserve_items(&used, node_count, sizeof(struct ArrowArray *), &tables.children) &&
                reserve_items(&used, 3 * node_count + 1, sizeof(void *), &tables.buffers);
    VEX_ASSERT(fits); /* all bounded by VEXI_BATCH_COLUMNS_MAX */
    for (size_t i = 0; i < column_count; i++) {
        VEX_TRY(measure_column(&columns[i], row_count, may_share, &plans[i], &used, err));
        shares = shares || plans[i].shared != NULL;
    }

    /* Room behind the last buffer: an empty one must still have an address inside the block. */
    uint8_t *base = used > SIZE_MAX - BUFFER_ALIGNMENT
                        ? NULL
                        : vexi_alloc_aligned(keeper->env, used + BUFFER_ALIGNMENT);
    if (base == NULL) {
        return vexi_no_memory(err, used);
    }
    batch_block *block = (batch_block *)(void *)base;
    *block = (batch_block){.keeper = keeper};
    fill_job job = {columns, column_count, row_count, plans, base, 0};
    vex_status status = vexi_guard_run(fill_run, &job, "result", err);
    if (status != VEX_OK) {
        if (owner != NULL) {
            owner->failed_row = job.at;
        }
        vexi_free(keeper->env, base);
        return status;
    }
    if (shares) {
        block_share(block, owner);
    }
    vexi_keeper_retain(keeper);
    arrays_link(base, &tables, &job, out);
    return VEX_OK;
}

/* ---- Schema ---------------------------------------------------------------------------------- */

typedef struct schema_block {
    atomic_size_t references;
    vexi_keeper *keeper;
} schema_block;

static void schema_release(struct ArrowSchema *schema) {
    schema_block *block = schema->private_data;
    for (int64_t i = 0; i < schema->n_children; i++) {
        if (schema->children[i]->release != NULL) {
            schema->children[i]->release(schema->children[i]);
        }
    }
    schema->release = NULL;
    if (atomic_fetch_sub_explicit(&block->references, 1, memory_order_acq_rel) == 1) {
        vexi_keeper *keeper = block->keeper;
        vexi_free(keeper->env, block);
        vexi_keeper_release(keeper);
    }
}

enum { FORMAT_SIZE = 16 };

static const char *kind_format(vexi_batch_kind kind) {
    switch (kind) {
    case VEXI_BATCH_UINT32:
        return "I";
    case VEXI_BATCH_FLOAT64:
    case VEXI_BATCH_CELL_FLOAT64:
        return "g";
    case VEXI_BATCH_STRING:
    case VEXI_BATCH_CELL_UTF8:
        return "u";
    case VEXI_BATCH_CELL_BINARY:
        return "z";
    case VEXI_BATCH_CELL_INT64:
        return "l";
    case VEXI_BATCH_CELL_BOOL:
        return "b";
    case VEXI_BATCH_CELL_TIMESTAMP:
        return "tsu:UTC";
    case VEXI_BATCH_VECTOR:
        break;
    }
    return ""; /* depends on the dimension */
}

static void schema_init(struct ArrowSchema *schema, schema_block *block, const char *format,
                        const char *name, bool nullable) {
    *schema = (struct ArrowSchema){
        .format = format,
        .name = name,
        .flags = nullable ? ARROW_FLAG_NULLABLE : 0,
        .release = schema_release,
        .private_data = block,
    };
}

vex_status vexi_batch_schema(vexi_keeper *keeper, const vexi_batch_column *columns,
                             size_t column_count, struct ArrowSchema *out, vex_error *err) {
    *out = (struct ArrowSchema){0};
    VEX_ASSERT(column_count <= VEXI_BATCH_COLUMNS_MAX);
    size_t node_count = column_count;
    size_t names_size = 0;
    for (size_t i = 0; i < column_count; i++) {
        node_count += columns[i].kind == VEXI_BATCH_VECTOR;
        names_size += columns[i].name.size + 1; /* names are at most VEX_NAME_SIZE_MAX */
    }
    size_t nodes_offset, children_offset, formats_offset, names_offset;
    size_t used = sizeof(schema_block);
    bool fits = reserve_items(&used, node_count, sizeof(struct ArrowSchema), &nodes_offset) &&
                reserve_items(&used, node_count, sizeof(struct ArrowSchema *), &children_offset) &&
                reserve_items(&used, column_count, FORMAT_SIZE, &formats_offset) &&
                reserve(&used, names_size, &names_offset);
    VEX_ASSERT(fits);
    uint8_t *base = vexi_alloc_aligned(keeper->env, used);
    if (base == NULL) {
        return vexi_no_memory(err, used);
    }
    schema_block *block = (schema_block *)(void *)base;
    struct ArrowSchema *nodes = (struct ArrowSchema *)(void *)(base + nodes_offset);
    struct ArrowSchema **children = (struct ArrowSchema **)(void *)(base + children_offset);
    char *names = (char *)(base + names_offset);
    size_t next = column_count;

    *block = (schema_block){.keeper = keeper};
    schema_init(out, block, "+s", "", false);
    out->n_children = (int64_t)column_count;
    out->children = children;
    for (size_t i = 0; i < column_count; i++) {
        const vexi_batch_column *column = &columns[i];
        const char *format = kind_format(column->kind);
        if (column->name.size > 0) {
            memcpy(names, column->name.data, column->name.size);
        }
        names[column->name.size] = '\0';
        children[i] = &nodes[i];
        if (column->kind == VEXI_BATCH_VECTOR) {
            char *text = (char *)base + formats_offset + i * FORMAT_SIZE;
            (void)snprintf(text, FORMAT_SIZE, "+w:%u", column->dimension);
            schema_init(&nodes[i], block, text, names, column->nullable);
            nodes[i].n_children = 1;
            nodes[i].children = &children[next];
            children[next] = &nodes[next];
            schema_init(&nodes[next], block, "f", "item", false);
            next++;
        } else {
            schema_init(&nodes[i], block, format, names, column->nullable);
        }
        names += column->name.size + 1;
    }
    atomic_init(&block->references, next + 1);
    vexi_keeper_retain(keeper);
    return VEX_OK;
}
