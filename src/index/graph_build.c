/* Building: near rows by clustering, then rounds of walking, pruning, turning edges around.
 *
 *   seed     each row's near rows from the leaves of a clustering (graph_seed.c)
 *   link     per row: prune the candidates; per row again: the edges that came to it join its
 *            candidates, prune, fill every slot, encode the neighbours
 *   refine   per row: walk towards it from the entries as a query would; what was expanded joins
 *            the candidates; link
 *   connect  every row is reachable from the entries (graph_connect.c)
 *
 * A step writes only what belongs to its own row and reads only what the step before wrote: any
 * number of threads builds the same graph, without locks. Slices are a few milliseconds long, so
 * that others get the threads in between. */
#include <math.h>
#include <string.h>

#include "base/random.h"
#include "index/graph_internal.h"

#define SLICE       128u
#define ORIGIN_ROWS 65536u
/* The beam of the first round, which mends what clustering missed, and of the last, which chooses:
 * the more dimensions, the more rows compete to be neighbours. CPU seconds of a build and misses of
 * walks, single builds, beams of the rounds:
 *
 *     200,000 x 128 (SIFT), ef 90     50, 120  28.8 s  1.7 %    200 alone  27.3 s  2.0 %
 *                                    120, 120  34.8 s  1.7 %    350, 350   67 s    1.9 %
 *     20,000 x 384 (text), ef 180     50, 320   5.4 s  1.1 %    300 alone   4.3 s  1.5 %
 *                                    120, 120   5.1 s  1.4 %    320, 320    7.2 s  0.9 %
 *
 * What text lacked was edges, not better estimates: comparing exactly all that a walk had met at ef
 * 180 found a tenth of a per cent more. */
#define ROUNDS 2u
/* Of each neighbour's values, before they are coded. */
#define FETCHED_VALUES 256u
#define FIRST_EF       50u
#define LAST_EF_LEAST  120u
#define LAST_EF_MOST   320u
#define FAR_CANDIDATES 4u
#define WALK_ITEMS     384u

/* ---- Slices ---------------------------------------------------------------------------------- */

typedef struct run_job {
    vexi_graph_builder *builder;
    vexi_graph_step step;
    void *argument;
    uint32_t item_count;
    uint32_t slice;
    double part;
    atomic_uint_fast32_t done;
} run_job;

vexi_graph_worker *vexi_graph_worker_take(vexi_graph_builder *builder) {
    for (uint32_t i = 0;; i = (i + 1) % builder->worker_count) {
        if (!atomic_flag_test_and_set_explicit(&builder->workers[i].busy, memory_order_acquire)) {
            return &builder->workers[i];
        }
    }
}

void vexi_graph_worker_give(vexi_graph_worker *worker) {
    atomic_flag_clear_explicit(&worker->busy, memory_order_release);
}

static bool is_cancelled(const vexi_graph_builder *builder) {
    return builder->options->cancel != NULL &&
           __atomic_load_n(builder->options->cancel, __ATOMIC_RELAXED) != 0;
}

static void run_slice(void *argument, size_t i) {
    run_job *job = argument;
    vexi_graph_builder *builder = job->builder;
    if (is_cancelled(builder)) {
        atomic_store(&builder->failed, VEX_CANCELLED);
    }
    if (atomic_load_explicit(&builder->failed, memory_order_relaxed) != VEX_OK) {
        return;
    }
    vexi_graph_worker *worker = vexi_graph_worker_take(builder);
    uint32_t first = (uint32_t)i * job->slice;
    uint32_t count = job->item_count - first;
    count = count < job->slice ? count : job->slice;
    vex_status status = job->step(builder, worker, first, count, job->argument);
    vexi_graph_worker_give(worker);
    if (status != VEX_OK) {
        atomic_store(&builder->failed, (int)status);
    }
    if (builder->options->rows_done != NULL && job->part > 0) {
        double done = (double)(atomic_fetch_add(&job->done, count) + count) / job->item_count;
        uint64_t rows = (uint64_t)((builder->part_done + job->part * done) * builder->row_count);
        __atomic_store_n(builder->options->rows_done, rows, __ATOMIC_RELAXED);
    }
}

vex_status vexi_graph_run(vexi_graph_builder *builder, uint32_t item_count, uint32_t slice,
                          vexi_graph_step step, void *argument, double part, vex_error *err) {
    run_job job = {.builder = builder,
                   .step = step,
                   .argument = argument,
                   .item_count = item_count,
                   .slice = slice,
                   .part = part};
    vexi_parallel(builder->env, (item_count + slice - 1) / slice, run_slice, &job);
    builder->part_done += part;
    int failed = atomic_load(&builder->failed);
    if (failed == VEX_CANCELLED) {
        return vexi_fail(err, VEX_CANCELLED, "the graph's build was cancelled");
    }
    return failed == VEX_OK ? VEX_OK : vexi_no_memory(err, 0);
}

/* ---- Preparation ----------------------------------------------------------------------------- */

static vex_status copy_step(vexi_graph_builder *builder, vexi_graph_worker *worker, uint32_t first,
                            uint32_t count, void *argument) {
    (void)worker;
    const float *const *rows = argument;
    const vexi_graph_layout *layout = &builder->graph->layout;
    for (uint32_t i = first; i < first + count; i++) {
        float *out = (float *)(void *)(builder->nodes + (size_t)i * layout->node_size);
        memset(out, 0, layout->blocks_offset);
        memcpy(out, rows[i], builder->dimension * sizeof *out);
        builder->vectors[i] = out;
        double square = 0;
        for (uint32_t j = 0; j < builder->dimension; j++) {
            square += (double)out[j] * out[j];
        }
        if (layout->metric == VEX_METRIC_COSINE) {
            double scale = square > 0 ? 1.0 / sqrt(square) : 0;
            for (uint32_t j = 0; j < builder->dimension; j++) {
                out[j] = (float)(out[j] * scale);
            }
        } else if (layout->metric == VEX_METRIC_IP) {
            builder->squares[i] = (float)square;
        }
    }
    return VEX_OK;
}

/* A row is coded around each node that has it as a neighbour, in each round: turned once, not a
 * hundred times. */
static vex_status rotate_step(vexi_graph_builder *builder, vexi_graph_worker *worker,
                              uint32_t first, uint32_t count, void *argument) {
    (void)argument;
    uint32_t padded = builder->graph->layout.padded;
    for (uint32_t row = first; row < first + count; row++) {
        for (uint32_t j = 0; j < builder->dimension; j++) {
            worker->values[j] = builder->vectors[row][j] - builder->origin[j];
        }
        vexi_rotate(builder->rotation, worker->values, builder->rotated + (size_t)row * padded);
    }
    return VEX_OK;
}

/* The mean of the rows, or of a sample, and the lengths. */
static void measure(vexi_graph_builder *builder, double *sums) {
    uint32_t step = builder->row_count / ORIGIN_ROWS + 1;
    uint32_t count = 0;
    double squares = 0;
    for (uint32_t j = 0; j < builder->dimension; j++) {
        sums[j] = 0;
    }
    for (uint32_t i = 0; i < builder->row_count; i += step) {
        for (uint32_t j = 0; j < builder->dimension; j++) {
            double value = builder->vectors[i][j];
            sums[j] += value;
            squares += value * value;
        }
        count++;
    }
    for (uint32_t j = 0; j < builder->dimension; j++) {
        builder->origin[j] = (float)(sums[j] / count);
    }
    builder->graph->row_length =
        builder->graph->layout.metric == VEX_METRIC_COSINE ? 1.0f : (float)sqrt(squares / count);
    if (builder->squares != NULL) {
        float largest = 0;
        for (uint32_t i = 0; i < builder->row_count; i++) {
            largest = builder->squares[i] > largest ? builder->squares[i] : largest;
        }
        for (uint32_t i = 0; i < builder->row_count; i++) {
            float square = largest - builder->squares[i];
            builder->extras[i] = square > 0 ? sqrtf(square) : 0;
        }
        builder->graph->parameters[0] = largest;
    }
}

/* ---- Edges ----------------------------------------------------------------------------------- */

static void list_set(vexi_graph_builder *builder, uint32_t row, const vexi_graph_item *items,
                     uint32_t selected, uint32_t count) {
    count = count < VEXI_GRAPH_LIST ? count : VEXI_GRAPH_LIST;
    memcpy(builder->lists + (size_t)row * VEXI_GRAPH_LIST, items, count * sizeof *items);
    builder->list_counts[row] = (uint8_t)count;
    builder->selected_counts[row] = (uint8_t)selected;
}

static uint32_t list_get(const vexi_graph_builder *builder, uint32_t row, vexi_graph_item *out) {
    uint32_t count = builder->list_counts[row];
    memcpy(out, builder->lists + (size_t)row * VEXI_GRAPH_LIST, count * sizeof *out);
    return count;
}

/* Rows from anywhere as candidates: they are taken where all near rows lie close together, so that
 * the walk does not get lost among equal rows or in a small cluster. */
static uint32_t add_far(const vexi_graph_builder *builder, uint32_t row, vexi_graph_item *items) {
    uint64_t state = builder->seed ^ row;
    for (uint32_t i = 0; i < FAR_CANDIDATES; i++) {
        uint32_t at = (uint32_t)(vexi_random_next(&state) % builder->graph->entry_count);
        uint32_t far = builder->graph->entries[at];
        items[i] = (vexi_graph_item){vexi_graph_between(builder, row, far), far};
    }
    return FAR_CANDIDATES;
}

static vex_status prune_step(vexi_graph_builder *builder, vexi_graph_worker *worker, uint32_t first,
                             uint32_t count, void *argument) {
    (void)argument;
    for (uint32_t row = first; row < first + count; row++) {
        uint32_t items = list_get(builder, row, worker->items);
        items += add_far(builder, row, worker->items + items);
        uint32_t selected = vexi_graph_prune(builder, row, worker->items, &items, worker->left);
        list_set(builder, row, worker->items, selected, items);
    }
    return VEX_OK;
}

/* Edges by where they lead. */
typedef struct reverse {
    uint64_t *first; /* row_count + 1 */
    vexi_graph_item *items;
} reverse;

static vex_status reverse_make(vexi_graph_builder *builder, reverse *r, vex_error *err) {
    uint32_t row_count = builder->row_count;
    uint64_t total = 0;
    r->first = vexi_calloc(builder->env, (size_t)row_count + 2, sizeof *r->first);
    if (r->first == NULL) {
        return vexi_no_memory(err, row_count * sizeof *r->first);
    }
    for (uint32_t row = 0; row < row_count; row++) {
        const vexi_graph_item *list = builder->lists + (size_t)row * VEXI_GRAPH_LIST;
        for (uint32_t i = 0; i < builder->selected_counts[row]; i++) {
            r->first[list[i].row + 2]++;
        }
        total += builder->selected_counts[row];
    }
    r->items = vexi_alloc_array(builder->env, total + 1, sizeof *r->items);
    if (r->items == NULL) {
        return vexi_no_memory(err, total * sizeof *r->items);
    }
    for (uint32_t row = 0; row < row_count; row++) {
        r->first[row + 2] += r->first[row + 1];
    }
    for (uint32_t row = 0; row < row_count; row++) {
        const vexi_graph_item *list = builder->lists + (size_t)row * VEXI_GRAPH_LIST;
        for (uint32_t i = 0; i < builder->selected_counts[row]; i++) {
            r->items[r->first[list[i].row + 1]++] =
                (vexi_graph_item){.key = list[i].key, .row = row};
        }
    }
    return VEX_OK;
}

static void reverse_free(const vexi_env *env, reverse *r) {
    vexi_free(env, r->first);
    vexi_free(env, r->items);
}

static vex_status link_step(vexi_graph_builder *builder, vexi_graph_worker *worker, uint32_t first,
                            uint32_t count, void *argument) {
    const reverse *r = argument;
    const vexi_graph_layout *layout = &builder->graph->layout;
    for (uint32_t row = first; row < first + count; row++) {
        const vexi_graph_item *list = builder->lists + (size_t)row * VEXI_GRAPH_LIST;
        uint32_t edges = builder->selected_counts[row];
        uint32_t others = builder->list_counts[row] - edges;
        memcpy(worker->items, list, edges * sizeof *list);
        uint64_t from = r->first[row];
        uint64_t incoming = r->first[row + 1] - from;
        /* Of a hub's many edges a spread share. */
        uint64_t most = VEXI_GRAPH_CANDIDATES_MAX - VEXI_GRAPH_LIST;
        uint64_t step = incoming / most + 1;
        uint32_t items = edges;
        for (uint64_t i = 0; i < incoming; i += step) {
            worker->items[items++] = r->items[from + i];
        }
        edges = items;
        memcpy(worker->items + items, list + builder->selected_counts[row], others * sizeof *list);
        items = vexi_graph_fill(builder, row, worker->items, edges, items + others, worker->left);
        list_set(builder, row, worker->items, items < builder->degree ? items : builder->degree,
                 items);
        uint32_t *neighbours =
            (uint32_t *)(void *)(builder->nodes + (size_t)row * layout->node_size +
                                 layout->neighbours_offset);
        for (uint32_t i = 0; i < builder->degree; i++) {
            neighbours[i] = i < items ? worker->items[i].row : row;
        }
        vexi_graph_encode(builder, row, worker->values);
    }
    return VEX_OK;
}

static vex_status find_step(vexi_graph_builder *builder, vexi_graph_worker *worker, uint32_t first,
                            uint32_t count, void *argument) {
    const uint32_t *ef = argument;
    vexi_code_layout layout = vexi_code_layout_of(VEX_METRIC_L2, builder->dimension, 1);
    for (uint32_t row = first; row < first + count; row++) {
        vexi_code_query query;
        vexi_arena arena;
        vexi_arena_init(&arena, builder->env);
        vex_status status =
            vexi_code_query_init(&query, &layout, builder->rotation, builder->vectors[row],
                                 builder->graph->origin, 1.0f, &arena, NULL);
        uint32_t items = 0;
        if (status == VEX_OK) {
            items = vexi_graph_find(builder, &query, row, *ef, worker->scratch, worker->items,
                                    WALK_ITEMS);
        }
        vexi_arena_deinit(&arena);
        if (status != VEX_OK) {
            return status;
        }
        if (builder->extras != NULL) {
            for (uint32_t i = 0; i < items; i++) {
                worker->items[i].key = vexi_graph_between(builder, row, worker->items[i].row);
            }
        }
        items += list_get(builder, row, worker->items + items);
        items += add_far(builder, row, worker->items + items);
        uint32_t selected = vexi_graph_prune(builder, row, worker->items, &items, worker->left);
        list_set(builder, row, worker->items, selected, items);
    }
    return VEX_OK;
}

static vex_status link_rows(vexi_graph_builder *builder, double part, vex_error *err) {
    reverse r = {0};
    vex_status status = reverse_make(builder, &r, err);
    if (status == VEX_OK) {
        status = vexi_graph_run(builder, builder->row_count, SLICE, link_step, &r, part, err);
    }
    reverse_free(builder->env, &r);
    return status;
}

/* ---- Codes ----------------------------------------------------------------------------------- */

/* `add` of code i in a run of blocks. */
static float *code_add(const vexi_graph_layout *layout, uint8_t *blocks, uint32_t i) {
    uint8_t *block = blocks + i / VEXI_CODE_BLOCK_ROWS * vexi_code_block_size(layout->padded);
    return (float *)(void *)(block + (size_t)layout->padded * 4) + i % VEXI_CODE_BLOCK_ROWS;
}

void vexi_graph_encode(const vexi_graph_builder *builder, uint32_t row, float *scratch) {
    const vexi_graph_layout *layout = &builder->graph->layout;
    vexi_code_layout codes = vexi_code_layout_of(VEX_METRIC_L2, builder->dimension, 1);
    uint8_t *blocks = builder->nodes + (size_t)row * layout->node_size + layout->blocks_offset;
    const uint32_t *neighbours = vexi_graph_neighbours(builder->graph, row);
    const float *vectors[VEXI_GRAPH_DEGREE_MAX];
    for (uint32_t i = 0; i < builder->degree; i++) {
        vectors[i] = builder->rotated + (size_t)neighbours[i] * layout->padded;
        for (uint32_t j = 0; j < layout->padded && j < FETCHED_VALUES; j += 16) {
            __builtin_prefetch(vectors[i] + j);
        }
    }
    float error;
    float record_error;
    vexi_code_encode_rotated(&codes, vectors, NULL, builder->degree,
                             builder->rotated + (size_t)row * layout->padded, blocks, &error,
                             &record_error, scratch);
    if (builder->squares != NULL) {
        for (uint32_t i = 0; i < builder->degree; i++) {
            *code_add(layout, blocks, i) += builder->squares[row] - builder->squares[neighbours[i]];
        }
    }
}

/* Rows spread over the row order, which is the order of clusters in a segment. The first ones are
 * spread by themselves: builds start there. */
static vex_status make_entries(vexi_graph_builder *builder, float *scratch, vex_error *err) {
    vexi_graph *graph = builder->graph;
    const vexi_env *env = builder->env;
    uint32_t count =
        builder->row_count < VEXI_GRAPH_ENTRIES_MAX ? builder->row_count : VEXI_GRAPH_ENTRIES_MAX;
    vexi_code_layout layout = vexi_code_layout_of(VEX_METRIC_L2, builder->dimension, 1);
    uint32_t *entries = vexi_alloc_array(env, count, sizeof *entries);
    uint8_t *codes = vexi_alloc_aligned(env, vexi_code_list_size(&layout, count));
    const float **vectors = vexi_alloc_array(env, count, sizeof *vectors);
    graph->entries = entries;
    graph->entry_codes = codes;
    if (entries == NULL || codes == NULL || vectors == NULL) {
        vexi_free(env, vectors);
        return vexi_no_memory(err, count * sizeof *entries);
    }
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = count < VEXI_GRAPH_ENTRIES_MAX ? i : i % 32 * (count / 32) + i / 32;
        entries[i] = (uint32_t)((at * 2 + 1) * builder->row_count / (2 * (uint64_t)count));
        vectors[i] = builder->vectors[entries[i]];
    }
    float record_error;
    vexi_code_encode(&layout, builder->rotation, vectors, count, builder->origin, builder->origin,
                     codes, &graph->entry_error, &record_error, scratch);
    if (builder->squares != NULL) {
        for (uint32_t i = 0; i < count; i++) {
            *code_add(&graph->layout, codes, i) -= builder->squares[entries[i]];
        }
    }
    graph->entry_count = count;
    vexi_free(env, vectors);
    return VEX_OK;
}

/* ---- All of it ------------------------------------------------------------------------------- */

static vex_status workers_make(vexi_graph_builder *builder, vex_error *err) {
    const vexi_env *env = builder->env;
    /* One for every thread of the environment and for the caller, which may be none of them: then
     * nobody ever waits for one. */
    uint32_t count = env->thread_count + 1;
    builder->workers = vexi_calloc(env, count, sizeof *builder->workers);
    if (builder->workers == NULL) {
        return vexi_no_memory(err, count * sizeof *builder->workers);
    }
    builder->worker_count = count;
    size_t values = VEXI_CODE_SCRATCH((size_t)builder->graph->layout.padded);
    for (uint32_t i = 0; i < count; i++) {
        vexi_graph_worker *worker = &builder->workers[i];
        atomic_flag_clear(&worker->busy);
        worker->values = vexi_alloc_aligned(env, values * sizeof *worker->values);
        worker->items = vexi_alloc_array(env, 2 * VEXI_GRAPH_CANDIDATES_MAX, sizeof *worker->items);
        worker->left = vexi_alloc_array(env, 2 * VEXI_GRAPH_CANDIDATES_MAX, sizeof *worker->left);
        if (worker->values == NULL || worker->items == NULL || worker->left == NULL) {
            return vexi_no_memory(err, values * sizeof *worker->values);
        }
        VEX_TRY(vexi_graph_scratch_create(env, &worker->scratch, err));
        VEX_TRY(vexi_graph_scratch_reserve(worker->scratch, builder->row_count, builder->degree,
                                           LAST_EF_MOST, err));
    }
    return VEX_OK;
}

static void builder_free(vexi_graph_builder *builder) {
    const vexi_env *env = builder->env;
    for (uint32_t i = 0; i < builder->worker_count; i++) {
        vexi_free(env, builder->workers[i].values);
        vexi_free(env, builder->workers[i].items);
        vexi_free(env, builder->workers[i].left);
        vexi_graph_scratch_destroy(builder->workers[i].scratch);
    }
    vexi_free(env, builder->workers);
    vexi_free(env, builder->vectors);
    vexi_free(env, builder->origin);
    vexi_free(env, builder->rotated);
    vexi_free(env, builder->extras);
    vexi_free(env, builder->squares);
    vexi_free(env, builder->lists);
    vexi_free(env, builder->list_counts);
    vexi_free(env, builder->selected_counts);
}

static vex_status builder_make(vexi_graph_builder *builder, vex_error *err) {
    const vexi_env *env = builder->env;
    vexi_graph *graph = builder->graph;
    size_t count = builder->row_count;
    bool product = graph->layout.metric == VEX_METRIC_IP;
    graph->nodes = builder->nodes = vexi_graph_nodes_alloc(env, count * graph->layout.node_size);
    float *origin = vexi_alloc_aligned(env, graph->layout.padded * sizeof *origin);
    graph->origin = origin;
    builder->vectors = vexi_alloc_array(env, count, sizeof *builder->vectors);
    builder->origin = vexi_alloc_aligned(env, graph->layout.padded * sizeof *builder->origin);
    builder->rotated =
        vexi_graph_nodes_alloc(env, count * graph->layout.padded * sizeof *builder->rotated);
    builder->lists = vexi_alloc_array(env, count * VEXI_GRAPH_LIST, sizeof *builder->lists);
    builder->list_counts = vexi_calloc(env, count, sizeof *builder->list_counts);
    builder->selected_counts = vexi_calloc(env, count, sizeof *builder->selected_counts);
    if (product) {
        builder->extras = vexi_alloc_array(env, count, sizeof *builder->extras);
        builder->squares = vexi_alloc_array(env, count, sizeof *builder->squares);
    }
    if (builder->nodes == NULL || origin == NULL || builder->vectors == NULL ||
        builder->origin == NULL || builder->rotated == NULL || builder->lists == NULL ||
        builder->list_counts == NULL || builder->selected_counts == NULL ||
        (product && (builder->extras == NULL || builder->squares == NULL))) {
        return vexi_no_memory(err, count * graph->layout.node_size);
    }
    memset(builder->origin, 0, graph->layout.padded * sizeof *builder->origin);
    return workers_make(builder, err);
}

static vex_status build(vexi_graph_builder *builder, const float *const *rows, vex_error *err) {
    VEX_TRY(builder_make(builder, err));
    uint32_t count = builder->row_count;
    VEX_TRY(
        vexi_graph_run(builder, count, 4 * SLICE, copy_step, (void *)(uintptr_t)rows, 0.01, err));
    double *sums = vexi_alloc_array(builder->env, builder->dimension, sizeof *sums);
    if (sums == NULL) {
        return vexi_no_memory(err, builder->dimension * sizeof *sums);
    }
    measure(builder, sums);
    vexi_free(builder->env, sums);
    vexi_rotate(builder->rotation, builder->origin, (float *)(uintptr_t)builder->graph->origin);
    VEX_TRY(vexi_graph_run(builder, count, SLICE, rotate_step, NULL, 0.01, err));
    VEX_TRY(make_entries(builder, builder->workers[0].values, err));
    VEX_TRY(vexi_graph_seed(builder, err));
    VEX_TRY(vexi_graph_run(builder, count, SLICE, prune_step, NULL, 0.08, err));
    VEX_TRY(link_rows(builder, 0.15, err));
    uint32_t last_ef = builder->dimension < LAST_EF_MOST ? builder->dimension : LAST_EF_MOST;
    last_ef = last_ef > LAST_EF_LEAST ? last_ef : LAST_EF_LEAST;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t ef = round + 1 < ROUNDS ? FIRST_EF : last_ef;
        VEX_TRY(vexi_graph_run(builder, count, SLICE, find_step, &ef, 0.4 / ROUNDS, err));
        VEX_TRY(link_rows(builder, 0.2 / ROUNDS, err));
    }
    return vexi_graph_connect(builder, err);
}

vex_status vexi_graph_build(const vexi_env *env, const vexi_rotation *rotation,
                            const float *const *rows, uint32_t row_count, uint32_t dimension,
                            vex_metric metric, const vexi_graph_options *options, vexi_graph *out,
                            vex_error *err) {
    static const vexi_graph_options defaults = {0};
    *out = (vexi_graph){0};
    options = options != NULL ? options : &defaults;
    uint32_t degree = options->degree != 0 ? options->degree : VEXI_GRAPH_DEGREE;
    if (degree > VEXI_GRAPH_DEGREE_MAX || degree % VEXI_CODE_BLOCK_ROWS != 0) {
        return vexi_fail(err, VEX_INVALID, "a graph's degree is 32 or 64, not %u", degree);
    }
    if (row_count > VEXI_GRAPH_ROWS_MAX) {
        return vexi_fail(err, VEX_LIMIT, "a graph of %u rows; the limit is %u", row_count,
                         VEXI_GRAPH_ROWS_MAX);
    }
    out->layout = vexi_graph_layout_of(metric, dimension, degree);
    out->row_count = row_count;
    if (row_count == 0) {
        return VEX_OK;
    }
    vexi_graph_builder builder = {.env = env,
                                  .rotation = rotation,
                                  .options = options,
                                  .graph = out,
                                  .degree = degree,
                                  .row_count = row_count,
                                  .dimension = dimension,
                                  .seed = options->seed};
    vex_status status = build(&builder, rows, err);
    builder_free(&builder);
    if (status != VEX_OK) {
        vexi_graph_deinit(env, out);
    } else if (options->rows_done != NULL) {
        __atomic_store_n(options->rows_done, row_count, __ATOMIC_RELAXED);
    }
    return status;
}

uint64_t vexi_graph_build_size(uint64_t row_count, uint32_t dimension, uint32_t degree) {
    degree = degree != 0 ? degree : VEXI_GRAPH_DEGREE;
    vexi_graph_layout layout = vexi_graph_layout_of(VEX_METRIC_IP, dimension, degree);
    uint64_t row = layout.node_size + layout.padded * sizeof(float) +
                   VEXI_GRAPH_LIST * sizeof(vexi_graph_item) + degree * sizeof(vexi_graph_item) +
                   sizeof(uint64_t) + sizeof(float *) + 2 * sizeof(float) + 4 * sizeof(uint32_t);
    return row_count * row + ((uint64_t)64 << 20);
}
