#include "table/segment_graph.h"

#include "base/guard.h"
#include "index/code.h"
#include "index/graph.h"
#include "table/segment_internal.h"

/* Checksums are compared in steps of so many blocks (64 KiB each), so that a close waits for one.
 */
enum { CHECK_BLOCKS = 256, COPY_BYTES = 16 << 20 };

struct vexi_segment_graph {
    vexi_object object;
    vexi_arena arena; /* the bytes, where the store cannot map */
    uint8_t *copy;    /* the bytes on huge pages; NULL: none */
    vexi_span bytes;
    vexi_graph_file file;
    vexi_segment_graph *next; /* among the retired ones */
};

vexi_graph_state vexi_segment_graph_state(const vexi_segment *segment) {
    return (vexi_graph_state)__atomic_load_n(&segment->graph_state, __ATOMIC_ACQUIRE);
}

static void state_set(vexi_segment *segment, vexi_graph_state state) {
    __atomic_store_n(&segment->graph_state, (int)state, __ATOMIC_RELEASE);
}

bool vexi_segment_graph_wanted(const vexi_segment *segment) {
    const vexi_index_file *index = vexi_segment_ivf(segment);
    return index != NULL && index->list_count > 1 &&
           (index->code_bits == 0 || vexi_code_scale_judged(index->row_length)) &&
           vexi_segment_check(segment, NULL) == VEX_OK;
}

static const vexi_segment_graph *in_use(const vexi_segment *segment) {
    return __atomic_load_n(&segment->graph, __ATOMIC_ACQUIRE);
}

const vexi_graph_file *vexi_segment_graph_file(const vexi_segment *segment) {
    const vexi_segment_graph *graph = in_use(segment);
    return graph == NULL ? NULL : &graph->file;
}

uint64_t vexi_segment_graph_size_bytes(const vexi_segment *segment) {
    const vexi_segment_graph *graph = in_use(segment);
    return graph == NULL ? 0 : graph->object.size_bytes;
}

bool vexi_segment_graph_copied(const vexi_segment *segment) {
    const vexi_segment_graph *graph = in_use(segment);
    return graph != NULL && graph->copy != NULL && graph->object.mapping.data == NULL;
}

char *vexi_segment_graph_name(const vexi_segment *segment) {
    static const char suffix[] = ".hnsw.bin";
    const char *index = segment->index_object.name;
    size_t size = strlen(index);
    /* <uuid>.<column>.<kind>.bin: another kind. */
    for (int dots = 0; size > 0 && dots < 2; size--) {
        dots += index[size - 1] == '.' ? 1 : 0;
    }
    char *name = vexi_alloc(segment->core->env, size + sizeof suffix);
    if (name != NULL) {
        memcpy(name, index, size);
        memcpy(name + size, suffix, sizeof suffix);
    }
    return name;
}

static void graph_destroy(const vexi_env *env, vexi_segment_graph *graph) {
    if (graph != NULL) {
        vexi_object_close(&graph->object);
        vexi_free(env, graph->copy);
        vexi_arena_deinit(&graph->arena);
        vexi_free(env, graph);
    }
}

typedef struct graph_job {
    vexi_segment_graph *graph;
    uint64_t first;
    uint64_t count;
} graph_job;

static vex_status open_guarded(void *argument, vex_error *err) {
    graph_job *job = argument;
    return vexi_graph_open(job->graph->bytes, &job->graph->file, err);
}

static vex_status check_guarded(void *argument, vex_error *err) {
    graph_job *job = argument;
    return vexi_graph_check(&job->graph->file, job->first, job->count, err);
}

static vex_status copy_guarded(void *argument, vex_error *err) {
    (void)err;
    graph_job *job = argument;
    memcpy(job->graph->copy + job->first, job->graph->bytes.data + job->first, job->count);
    return VEX_OK;
}

static bool cancelled(const int *cancel) {
    return cancel != NULL && __atomic_load_n(cancel, __ATOMIC_RELAXED) != 0;
}

static vex_status check_blocks(const vexi_segment_graph *graph, const int *cancel, vex_error *err) {
    /* The guarded function takes one pointer; it changes nothing. */
    graph_job job = {.graph = (vexi_segment_graph *)graph};
    for (uint64_t left = graph->file.block_count; left > 0; left -= job.count) {
        if (cancelled(cancel)) {
            return vexi_fail(err, VEX_CANCELLED, "closing");
        }
        job.first = graph->file.block_count - left;
        job.count = left < CHECK_BLOCKS ? left : CHECK_BLOCKS;
        vex_status status = vexi_guard_run(check_guarded, &job, graph->object.name, err);
        if (status != VEX_OK) {
            return vexi_prefix(err, status, "%s", graph->object.name);
        }
    }
    return VEX_OK;
}

/* Take a large mapped graph into memory of its own, on huge pages. A walk reads a node here and a
 * node there: with the page cache's small pages it also reads page tables for each, which costs a
 * seventh of its time. What a graph may take was asked for before (room_take); the mapping, whose
 * pages were counted until now, is given back. Where there is no memory, the mapping stays. */
static vex_status graph_copy(const vexi_core *core, vexi_segment_graph *graph, const int *cancel,
                             vex_error *err) {
    const vexi_env *env = core->env;
    uint64_t least = core->graph_copy_bytes != 0 ? core->graph_copy_bytes : VEXI_GRAPH_HUGE;
    if (graph->bytes.size < least || graph->object.mapping.data == NULL) {
        return VEX_OK;
    }
    graph->copy = vexi_graph_nodes_alloc(env, graph->bytes.size);
    if (graph->copy == NULL) {
        return VEX_OK;
    }
    graph_job job = {.graph = graph};
    for (; job.first < graph->bytes.size; job.first += job.count) {
        if (cancelled(cancel)) {
            return vexi_fail(err, VEX_CANCELLED, "closing");
        }
        uint64_t left = graph->bytes.size - job.first;
        job.count = left < COPY_BYTES ? left : COPY_BYTES;
        VEX_TRY(vexi_guard_run(copy_guarded, &job, graph->object.name, err));
    }
    graph->bytes = vexi_span_of(graph->copy, graph->bytes.size);
    vexi_store_unmap(graph->object.store, &graph->object.mapping);
    return VEX_OK;
}

/* Open the file, check that it belongs to the segment, and every byte of it. copied: it is to be
 * walked in (graph_copy). VEX_CORRUPT, VEX_UNSUPPORTED: it is of no use. */
static vex_status graph_open(const vexi_segment *segment, const char *name, uint64_t rotation_seed,
                             bool copied, const int *cancel, vexi_segment_graph **out,
                             vex_error *err) {
    const vexi_env *env = segment->core->env;
    *out = NULL;
    vexi_segment_graph *graph = vexi_calloc(env, 1, sizeof *graph);
    if (graph == NULL) {
        return vexi_no_memory(err, sizeof *graph);
    }
    vexi_arena_init(&graph->arena, env);
    graph_job job = {.graph = graph};
    vex_status status =
        vexi_object_open(segment->core->store, name, UINT64_MAX, &graph->object, err);
    if (status == VEX_OK) {
        status = vexi_segment_object_bytes(&graph->object, &graph->arena, &graph->bytes, err);
    }
    if (status == VEX_OK && copied) {
        status = graph_copy(segment->core, graph, cancel, err);
    }
    if (status == VEX_OK) {
        status = vexi_guard_run(open_guarded, &job, name, err);
        status = status == VEX_OK ? status : vexi_prefix(err, status, "%s", name);
    }
    const vexi_graph_file *file = &graph->file;
    vexi_graph_layout layout =
        vexi_graph_layout_of(segment->metric, segment->dimension, file->degree);
    if (status == VEX_OK &&
        (file->padded != layout.padded || file->node_size != layout.node_size)) {
        status = vexi_fail(err, VEX_UNSUPPORTED, "%s: nodes of another layout", name);
    }
    if (status == VEX_OK &&
        (strcmp(file->segment, segment->index.segment) != 0 ||
         file->index_head_crc != segment->index_head_crc || file->metric != segment->metric ||
         file->dimension != segment->dimension || file->row_count != segment->row_count ||
         file->rotation_seed != rotation_seed)) {
        status = vexi_fail(err, VEX_CORRUPT, "%s: the graph belongs to another segment", name);
    }
    if (status == VEX_OK) {
        status = check_blocks(graph, cancel, err);
    }
    if (status != VEX_OK) {
        graph_destroy(env, graph);
        return status;
    }
    *out = graph;
    return VEX_OK;
}

/* Take room for a graph of so many bytes; give it back by a subtraction. */
static bool room_take(vexi_core *core, uint64_t size, uint64_t limit) {
    if (__atomic_add_fetch(&core->graph_bytes, size, __ATOMIC_RELAXED) <= limit && size <= limit) {
        return true;
    }
    __atomic_sub_fetch(&core->graph_bytes, size, __ATOMIC_RELAXED);
    return false;
}

vex_status vexi_segment_graph_load(vexi_segment *segment, uint64_t rotation_seed,
                                   uint64_t limit_bytes, bool read_only, const int *cancel,
                                   vex_error *err) {
    vexi_core *core = segment->core;
    char *name = vexi_segment_graph_name(segment);
    if (name == NULL) {
        return vexi_no_memory(err, 0);
    }
    uint64_t size;
    vexi_segment_graph *graph = NULL;
    vex_status status = vexi_store_size(core->store, name, &size, err);
    if (status == VEX_OK && !room_take(core, size, limit_bytes)) {
        state_set(segment, VEXI_GRAPH_NO_ROOM);
        vexi_free(core->env, name);
        return VEX_OK;
    }
    if (status == VEX_OK) {
        status = graph_open(segment, name, rotation_seed, true, cancel, &graph, err);
        if (status == VEX_CORRUPT && core->store->ops->distrust != NULL) {
            vexi_store_distrust(core->store, name); /* it may have been spoiled on its way */
            status = graph_open(segment, name, rotation_seed, true, cancel, &graph, err);
        }
        if (status == VEX_OK && graph->object.size_bytes != size) {
            status = vexi_fail(err, VEX_IO, "%s changed while it was opened", name);
            graph_destroy(core->env, graph);
        }
        if (status != VEX_OK) {
            __atomic_sub_fetch(&core->graph_bytes, size, __ATOMIC_RELAXED);
        }
    }
    if (status == VEX_OK) {
        __atomic_store_n(&segment->graph, graph, __ATOMIC_RELEASE);
        state_set(segment, VEXI_GRAPH_LOADED);
    } else if (status == VEX_NOT_FOUND) {
        state_set(segment, VEXI_GRAPH_MISSING);
        status = VEX_OK;
    } else if (status == VEX_CORRUPT || status == VEX_UNSUPPORTED) {
        vexi_log(core->env, 2, "graph left out: %s", err == NULL ? name : err->message);
        if (!read_only) {
            vexi_segment_graph_remove(segment);
        }
        state_set(segment, VEXI_GRAPH_MISSING);
        status = VEX_OK;
    }
    vexi_free(core->env, name);
    return status;
}

vex_status vexi_segment_graph_check(const vexi_segment *segment, vex_error *err) {
    const vexi_segment_graph *graph = in_use(segment);
    return graph == NULL ? VEX_OK : check_blocks(graph, NULL, err);
}

vex_status vexi_segment_graph_verify(const vexi_segment *segment, uint64_t rotation_seed,
                                     bool *found, vex_error *err) {
    const vexi_env *env = segment->core->env;
    *found = false;
    if (!segment->indexed) {
        return VEX_OK;
    }
    char *name = vexi_segment_graph_name(segment);
    if (name == NULL) {
        return vexi_no_memory(err, 0);
    }
    vexi_segment_graph *graph = NULL;
    vex_status status = graph_open(segment, name, rotation_seed, false, NULL, &graph, err);
    graph_destroy(env, graph);
    vexi_free(env, name);
    *found = status != VEX_NOT_FOUND;
    return status == VEX_NOT_FOUND ? VEX_OK : status;
}

void vexi_segment_graph_retire(vexi_segment *segment) {
    vexi_segment_graph *graph = __atomic_exchange_n(&segment->graph, NULL, __ATOMIC_ACQ_REL);
    if (graph == NULL) {
        return;
    }
    __atomic_sub_fetch(&segment->core->graph_bytes, graph->object.size_bytes, __ATOMIC_RELAXED);
    state_set(segment, VEXI_GRAPH_UNKNOWN);
    /* Views may be walking it. */
    graph->next = __atomic_load_n(&segment->graph_retired, __ATOMIC_ACQUIRE);
    while (!__atomic_compare_exchange_n(&segment->graph_retired, &graph->next, graph, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    }
}

void vexi_segment_graph_remove(const vexi_segment *segment) {
    const vexi_core *core = segment->core;
    vex_error error;
    char *name = segment->indexed ? vexi_segment_graph_name(segment) : NULL;
    if (name == NULL) {
        return;
    }
    vex_status status = vexi_store_remove(core->store, name, &error);
    if (status != VEX_OK && status != VEX_NOT_FOUND) {
        vexi_log(core->env, 2, "%s is left behind: %s", name, error.message);
    }
    vexi_free(core->env, name);
}

void vexi_segment_graph_free(vexi_segment *segment) {
    vexi_segment_graph_retire(segment);
    while (segment->graph_retired != NULL) {
        vexi_segment_graph *next = segment->graph_retired->next;
        graph_destroy(segment->core->env, segment->graph_retired);
        segment->graph_retired = next;
    }
}
