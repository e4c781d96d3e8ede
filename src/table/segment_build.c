/* Building a segment: rows become a Parquet file and an index file.
 *
 *     rows ──cluster──► order ──► Parquet file put ──► codes ──► index file put ──► opened again
 *
 * The Parquet file goes first and its bytes are given back before codes are made, so that of the
 * three large things (rows, Parquet, index) there are never more than two in memory. Codes are made
 * straight into the bytes of the index file. A segment large enough for lists gets codes and a
 * calibration of its own: how many lists a search must look at for a recall is measured on its own
 * rows. A small one is flat and is compared exactly.
 *
 * Whatever fails, nothing stays that a log could name: both files are removed. */
#include "table/table_internal.h"

#include <stdio.h>

#include "index/ivf.h"

enum {
    FILE_SIZE_MAX_GIB = 64,  /* of vectors there are at most 16; payloads come on top */
    OBJECT_NAME_SIZE = 1024, /* a folder has 3 x VEX_NAME_SIZE_MAX bytes at most */
    ROW_COUNT_MAX = 1 << 30  /* positions and their sums stay below 2^31 */
};

_Static_assert((int)VEXI_INDEX_CALIBRATION_COUNT ==
                   (int)VEXI_CALIBRATION_KS * (int)VEXI_CALIBRATION_RECALLS,
               "the file's calibration is the index's");

/* Lists for a segment: the collection's setting, and for `auto` what pays. */
static uint32_t list_count_for(const vexi_schema *schema, size_t row_count) {
    if (schema->index == VEX_INDEX_FLAT) {
        return 0;
    }
    uint32_t count = vexi_ivf_default_list_count(row_count, schema->dimension);
    if (count == 0 && schema->index == VEX_INDEX_IVF) {
        /* Asked for on a small segment: about sqrt(n) lists. */
        for (count = 1; (size_t)count * count < row_count; count++) {
        }
    }
    return count;
}

/* ---- Objects --------------------------------------------------------------------------------- */

/* Name in the store of an object of the table; out holds OBJECT_NAME_SIZE bytes. */
static void object_path(const vexi_table *table, const char *middle, vex_string name, char *out) {
    int size = snprintf(out, OBJECT_NAME_SIZE, "%s%s%.*s", table->folder, middle, (int)name.size,
                        name.data);
    VEX_ASSERT(size < OBJECT_NAME_SIZE);
}

static vex_status put_buffer(vexi_table *table, const char *middle, vex_string name,
                             const vexi_buffer *bytes, vex_error *err) {
    char object[OBJECT_NAME_SIZE];
    object_path(table, middle, name, object);
    vexi_span part = vexi_span_of(bytes->data, bytes->size);
    return vexi_store_put(table->core->store, object, &part, 1, err);
}

static void remove_object(vexi_table *table, const char *middle, vex_string name) {
    char object[OBJECT_NAME_SIZE];
    vex_error error;
    if (name.data == NULL) {
        return;
    }
    object_path(table, middle, name, object);
    vex_status status = vexi_store_remove(table->core->store, object, &error);
    if (status != VEX_OK && status != VEX_NOT_FOUND) {
        vexi_log(table->core->env, 2, "%s is left behind: %s", object, error.message);
    }
}

void segment_discard(vexi_table *table, commit_segment *segment) {
    vexi_segment_release(segment->segment);
    segment->segment = NULL;
    remove_object(table, "/data/", segment->add.path);
    remove_object(table, "/", segment->add.index.path);
}

/* prefix + uuid + suffix; data NULL without memory. */
static vex_string object_name(vexi_arena *arena, const char *prefix, const char *uuid,
                              const char *suffix) {
    char name[128];
    int size = snprintf(name, sizeof name, "%s%s%s", prefix, uuid, suffix);
    char *copy = vexi_arena_copy(arena, name, (size_t)size);
    return (vex_string){.data = copy, .size = copy == NULL ? 0 : (size_t)size};
}

/* ---- The steps ------------------------------------------------------------------------------- */

typedef struct segment_builder {
    vexi_table *table;
    const vexi_env *env;
    const vexi_schema *schema;
    const segment_hooks *hooks; /* may be NULL */
    const vexi_row **rows;      /* in the order of the lists after `cluster` */
    size_t row_count;
    char uuid[37];
    const float **vectors; /* as the rows were given; NULL where there are no lists */
    vexi_ivf ivf;          /* list_count 0: flat */
    vexi_calibration calibration;
    vexi_ivf_codes codes;
    vexi_segment_layout layout;
    vexi_arena scratch;
} segment_builder;

/* Between steps: how far it is, and whether it goes on. */
static vex_status step(const segment_builder *b, double share, vex_error *err) {
    return b->hooks == NULL || b->hooks->step == NULL
               ? VEX_OK
               : b->hooks->step(b->hooks->context, share, err);
}

static const int *cancel_of(const segment_builder *b) {
    return b->hooks == NULL ? NULL : b->hooks->cancel;
}

/* Bring the rows into lists; their order becomes that of the lists. */
static vex_status cluster(segment_builder *b, vex_error *err) {
    uint32_t list_count = list_count_for(b->schema, b->row_count);
    if (list_count == 0) {
        return VEX_OK;
    }
    b->vectors = vexi_alloc_array(b->env, b->row_count, sizeof *b->vectors);
    if (b->vectors == NULL) {
        return vexi_no_memory(err, b->row_count * sizeof *b->vectors);
    }
    for (size_t i = 0; i < b->row_count; i++) {
        b->vectors[i] = b->rows[i]->vector;
    }
    vexi_ivf_options options = {
        .list_count = list_count, .seed = vexi_random_u64(b->env), .cancel = cancel_of(b)};
    VEX_TRY(vexi_ivf_build(b->env, b->vectors, (uint32_t)b->row_count, b->schema->dimension,
                           b->schema->metric, &options, &b->ivf, err));
    const vexi_row **ordered = vexi_alloc_array(b->env, b->row_count, sizeof *ordered);
    if (ordered == NULL) {
        return vexi_no_memory(err, b->row_count * sizeof *ordered);
    }
    for (size_t i = 0; i < b->row_count; i++) {
        ordered[i] = b->rows[b->ivf.order[i]];
    }
    memcpy(b->rows, ordered, b->row_count * sizeof *b->rows);
    vexi_free(b->env, ordered);
    return VEX_OK;
}

/* Write and put the Parquet file; only its layout stays. */
static vex_status write_data(segment_builder *b, commit_segment *out, vexi_arena *arena,
                             vex_error *err) {
    vexi_delta_add *add = &out->add;
    vexi_buffer parquet;
    vexi_buffer_init(&parquet, b->env, (size_t)FILE_SIZE_MAX_GIB << 30);
    vex_status status = vexi_segment_write(b->env, b->schema, b->rows, b->row_count, &parquet,
                                           &b->scratch, &b->layout, err);
    if (status == VEX_OK) {
        add->path = object_name(arena, "", b->uuid, ".parquet");
        add->size_bytes = parquet.size;
        status = add->path.data == NULL ? vexi_no_memory(err, sizeof b->uuid)
                                        : put_buffer(b->table, "/data/", add->path, &parquet, err);
    }
    vexi_buffer_deinit(&parquet);
    return status;
}

/* How far searches must go, measured on queries like these rows. */
static vex_status calibrate(segment_builder *b, vex_error *err) {
    vexi_calibration_sample sample;
    VEX_TRY(vexi_calibration_sample_init(b->env, b->vectors, (uint32_t)b->row_count,
                                         b->schema->dimension, b->schema->metric,
                                         vexi_random_u64(b->env), cancel_of(b), &sample, err));
    vex_status status =
        vexi_ivf_calibrate(b->env, &b->ivf, b->schema->metric, &sample, &b->calibration, err);
    vexi_calibration_sample_deinit(b->env, &sample);
    return status;
}

static vex_status write_lists(void *context, uint8_t *out, vex_error *err) {
    segment_builder *b = context;
    return vexi_ivf_codes_write(b->env, &b->ivf, &b->table->schema->rotation, b->vectors, &b->codes,
                                out, err);
}

/* Write and put the index file; with lists, the codes are made on the way. */
static vex_status write_index(segment_builder *b, commit_segment *out, vexi_arena *arena,
                              vex_error *err) {
    vexi_delta_add *add = &out->add;
    const vexi_rotation *rotation = &b->table->schema->rotation;
    vexi_index_input input = {
        .schema = b->schema,
        .layout = &b->layout,
        .rows = b->rows,
        .row_count = b->row_count,
        .list_count = b->ivf.list_count,
        .centroids = b->ivf.centroids,
        .radii = b->ivf.radii,
        .list_first = b->ivf.list_first,
    };
    memcpy(input.segment, b->uuid, sizeof input.segment);
    vexi_index_codes codes;
    if (b->ivf.list_count > 0) {
        uint32_t bits = vexi_schema_bits(b->schema);
        VEX_TRY(vexi_ivf_codes_init(b->env, &b->ivf, b->schema->metric, bits, rotation, b->vectors,
                                    &b->codes, err));
        vexi_code_layout centers = vexi_code_layout_of(b->schema->metric, b->schema->dimension, 1);
        codes = (vexi_index_codes){
            .bits = bits,
            .padded = b->codes.layout.padded,
            .rotation_seed = rotation->seed,
            .row_length = b->codes.row_length,
            .center_error = b->codes.center_error,
            .origin = b->codes.origin,
            .errors = b->codes.errors,
            .center_codes = b->codes.center_codes,
            .center_codes_size = vexi_code_list_size(&centers, b->ivf.list_count),
            .calibration = &b->calibration.effort[0][0],
            .lists_size = b->codes.list_offset[b->ivf.list_count],
            .write_lists = write_lists,
            .context = b,
        };
        input.codes = &codes;
    }
    vexi_buffer index;
    vexi_buffer_init(&index, b->env, (size_t)FILE_SIZE_MAX_GIB << 30);
    vex_status status =
        vexi_index_write(b->env, &input, &index, &add->index.head_size, &add->index.head_crc, err);
    if (status == VEX_OK) {
        add->index.path =
            object_name(arena, "index/", b->uuid,
                        b->ivf.list_count > 0 ? ".vector.ivf.bin" : ".vector.flat.bin");
        add->index.size_bytes = index.size;
        status = add->index.path.data == NULL
                     ? vexi_no_memory(err, sizeof b->uuid)
                     : put_buffer(b->table, "/", add->index.path, &index, err);
    }
    vexi_buffer_deinit(&index);
    return status;
}

/* ---- The whole ------------------------------------------------------------------------------- */

static vex_status build(segment_builder *b, commit_segment *out, vexi_arena *arena,
                        vex_error *err) {
    VEX_TRY(step(b, 0.0, err));
    VEX_TRY(cluster(b, err));
    VEX_TRY(step(b, 0.4, err));
    VEX_TRY(write_data(b, out, arena, err));
    VEX_TRY(step(b, 0.5, err));
    if (b->ivf.list_count > 0) {
        VEX_TRY(calibrate(b, err));
        VEX_TRY(step(b, 0.7, err));
    }
    VEX_TRY(write_index(b, out, arena, err));
    vexi_delta_add *add = &out->add;
    add->modification_time_ms = vexi_wall_us(b->env) / 1000;
    add->row_count = (int64_t)b->row_count;
    add->data_change = true;
    /* Read back what was put, before the log is told: a segment that does not open never commits.
     */
    VEX_TRY(vexi_segment_open(b->table->core, b->table->schema, b->table->folder, add, NULL,
                              &out->segment, err));
    VEX_TRY(vexi_segment_check(out->segment, err));
    return step(b, 1.0, err);
}

vex_status segment_build_with(vexi_table *table, const vexi_row **rows, size_t row_count,
                              const segment_hooks *hooks, commit_segment *out, vexi_arena *arena,
                              vex_error *err) {
    *out = (commit_segment){.segment = NULL};
    if (row_count > ROW_COUNT_MAX) {
        return vexi_fail(err, VEX_LIMIT, "%zu rows in a segment", row_count);
    }
    segment_builder b = {.table = table,
                         .env = table->core->env,
                         .schema = &table->schema->schema,
                         .hooks = hooks,
                         .rows = rows,
                         .row_count = row_count};
    vexi_arena_init(&b.scratch, b.env);
    vexi_random_uuid(b.env, b.uuid);
    vex_status status = build(&b, out, arena, err);
    if (status != VEX_OK) {
        segment_discard(table, out);
    }
    vexi_ivf_codes_deinit(b.env, &b.codes);
    vexi_ivf_deinit(b.env, &b.ivf);
    vexi_free(b.env, b.vectors);
    vexi_arena_deinit(&b.scratch);
    return status;
}

vex_status segment_build(vexi_table *table, const vexi_row **rows, size_t row_count,
                         commit_segment *out, vexi_arena *arena, vex_error *err) {
    return segment_build_with(table, rows, row_count, NULL, out, arena, err);
}
