/* Building the graph of a segment: vectors -> graph -> calibration -> file.
 *
 * The rows are copied first, inside a SIGBUS guard and compared with their checksums: builders run
 * on several threads and take memory, which a guard cannot hold, and vectors in a Parquet page are
 * not aligned. The copy lives as long as the build and counts for its memory. */
#include "base/guard.h"
#include "index/calibration.h"
#include "index/graph.h"
#include "table/segment_internal.h"

enum { HEAD_SIZE_MAX = 1 << 30 };

typedef struct copy_job {
    const vexi_run *runs;
    size_t run_count;
    uint8_t *out;
} copy_job;

static vex_status copy_guarded(void *argument, vex_error *err) {
    (void)err;
    const copy_job *job = argument;
    uint8_t *out = job->out;
    for (size_t r = 0; r < job->run_count; r++) {
        memcpy(out, job->runs[r].vectors, job->runs[r].count * job->runs[r].stride);
        out += job->runs[r].count * job->runs[r].stride;
    }
    return VEX_OK;
}

/* All vectors in row order. */
static vex_status vectors_copy(vexi_segment *segment, float **out, vex_error *err) {
    const vexi_env *env = segment->core->env;
    size_t size = (size_t)segment->row_count * segment->dimension * sizeof(float);
    float *vectors = vexi_alloc_aligned(env, size);
    if (vectors == NULL) {
        return vexi_no_memory(err, size);
    }
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_row_range all = {.first_row = 0, .count = segment->row_count};
    copy_job job = {.out = (uint8_t *)vectors};
    vexi_run *runs;
    vex_status status =
        vexi_segment_runs(segment, &all, 1, &arena, &runs, &job.run_count, NULL, err);
    if (status == VEX_OK) {
        job.runs = runs;
        status = vexi_guard_run(copy_guarded, &job, segment->object_name, err);
    }
    vexi_arena_deinit(&arena);
    if (status != VEX_OK) {
        vexi_free(env, vectors);
        return status;
    }
    *out = vectors;
    return VEX_OK;
}

static vex_status file_put(vexi_segment *segment, const vexi_rotation *rotation,
                           const vexi_graph *graph, const vexi_calibration *calibration,
                           const char *name, vex_error *err) {
    const vexi_env *env = segment->core->env;
    vexi_code_layout one_bit = vexi_code_layout_of(segment->metric, segment->dimension, 1);
    vexi_graph_file file = {
        .index_head_crc = segment->index_head_crc,
        .metric = segment->metric,
        .dimension = segment->dimension,
        .padded = graph->layout.padded,
        .degree = graph->layout.degree,
        .row_count = graph->row_count,
        .node_size = graph->layout.node_size,
        .rotation_seed = rotation->seed,
        .row_length = graph->row_length,
        .entry_error = graph->entry_error,
        .origin = graph->origin,
        .entries = graph->entries,
        .entry_count = graph->entry_count,
        .entry_codes = graph->entry_codes,
        .entry_codes_size =
            graph->entry_codes == NULL ? 0 : vexi_code_list_size(&one_bit, graph->entry_count),
        .nodes = graph->nodes,
    };
    memcpy(file.segment, segment->index.segment, sizeof file.segment);
    memcpy(file.parameters, graph->parameters, sizeof file.parameters);
    _Static_assert(sizeof file.calibration == sizeof calibration->effort, "one table");
    memcpy(file.calibration, calibration->effort, sizeof file.calibration);
    vexi_buffer head;
    vexi_buffer_init(&head, env, HEAD_SIZE_MAX);
    vex_status status = vexi_graph_write_head(env, &file, &head, err);
    if (status == VEX_OK) {
        vexi_span parts[2] = {
            vexi_span_of(head.data, head.size),
            vexi_span_of(graph->nodes, (size_t)graph->row_count * graph->layout.node_size)};
        status = vexi_store_put(segment->core->store, name, parts, 2, err);
    }
    vexi_buffer_deinit(&head);
    return status;
}

/* Build and put; the file's bytes are durable on return. */
static vex_status build(vexi_segment *segment, const vexi_rotation *rotation, const int *cancel,
                        const char *name, vex_error *err) {
    const vexi_env *env = segment->core->env;
    uint32_t count = (uint32_t)segment->row_count;
    float *vectors = NULL;
    vexi_graph graph = {.nodes = NULL};
    vexi_calibration_sample sample = {.query_count = 0};
    vexi_calibration calibration;
    bool sampled = false;
    bool built = false;
    const float **rows = vexi_alloc_array(env, count, sizeof *rows);
    if (rows == NULL) {
        return vexi_no_memory(err, (size_t)count * sizeof *rows);
    }
    vex_status status = VEX_OK;
    VEX_TRY_GOTO(status, done, vectors_copy(segment, &vectors, err));
    for (uint32_t i = 0; i < count; i++) {
        rows[i] = vectors + (size_t)i * segment->dimension;
    }
    vexi_graph_options options = {.seed = vexi_random_u64(env), .cancel = cancel};
    VEX_TRY_GOTO(status, done,
                 vexi_graph_build(env, rotation, rows, count, segment->dimension, segment->metric,
                                  &options, &graph, err));
    built = true;
    VEX_TRY_GOTO(status, done,
                 vexi_calibration_sample_init(env, rows, count, segment->dimension, segment->metric,
                                              options.seed, cancel, &sample, err));
    sampled = true;
    VEX_TRY_GOTO(status, done,
                 vexi_graph_calibrate(env, rotation, &graph, &sample, cancel, &calibration, err));
    if (__atomic_load_n(cancel, __ATOMIC_RELAXED) != 0) {
        status = vexi_fail(err, VEX_CANCELLED, "closing");
        goto done;
    }
    status = file_put(segment, rotation, &graph, &calibration, name, err);
done:
    if (sampled) {
        vexi_calibration_sample_deinit(env, &sample);
    }
    if (built) {
        vexi_graph_deinit(env, &graph);
    }
    vexi_free(env, vectors);
    vexi_free(env, rows);
    return status;
}

vex_status vexi_segment_graph_build(vexi_segment *segment, const vexi_rotation *rotation,
                                    uint64_t limit_bytes, const int *cancel, vex_error *err) {
    vexi_core *core = segment->core;
    uint64_t size = vexi_graph_build_size(segment->row_count, segment->dimension, 0) +
                    segment->row_count * (segment->dimension * sizeof(float) + sizeof(float *));
    uint64_t loaded = __atomic_load_n(&core->graph_bytes, __ATOMIC_RELAXED);
    if (loaded > limit_bytes || size > limit_bytes - loaded) {
        __atomic_store_n(&segment->graph_state, (int)VEXI_GRAPH_NO_ROOM, __ATOMIC_RELEASE);
        if (!segment->graph_told) { /* it is asked for again with every change */
            vexi_log(core->env, 2, "%s: no graph, %llu MiB of memory are not to be had",
                     segment->object_name, (unsigned long long)(size >> 20));
        }
        segment->graph_told = true;
        return VEX_OK;
    }
    char *name = vexi_segment_graph_name(segment);
    if (name == NULL) {
        return vexi_no_memory(err, 0);
    }
    vex_status status = build(segment, rotation, cancel, name, err);
    vexi_free(core->env, name);
    VEX_TRY(status);
    return vexi_segment_graph_load(segment, rotation->seed, limit_bytes, false, cancel, err);
}
