/* The walk: a beam ordered by estimated distances, exact distances where it steps.
 *
 * The beam is one sorted array of at most ef places. A step takes its first place that was not
 * expanded, computes that node's exact distance, which goes to the top-k, and estimates the
 * distances of all its neighbours from the codes beside it; those nearer than the beam's last place
 * enter. The walk ends when all places are expanded.
 *
 * Keys are what orders rows, without what is the same for all: |q - x|^2, of unit vectors under
 * cosine; -2 <q, x> under inner product.
 *
 * A row enters the beam as often as it is met with a good estimate and is expanded once: estimates
 * from several neighbours err independently, and the luckiest counts (as in SymphonyQG).
 *
 * Nothing here trusts the nodes' bytes: a row number is compared with row_count before it is used,
 * and keys that are not numbers enter nowhere. */
#include <math.h>
#include <string.h>

#include "base/bitmap.h"
#include "index/graph_internal.h"

#define EXPANDED ((uint32_t)1 << 31)
#define HIDDEN   ((uint32_t)1 << 30)
#define ROW      (VEXI_GRAPH_ROWS_MAX - 1)

#define CACHE_LINE   64u
#define PREFETCH_MAX 4096u
#define ENTRY_STARTS 4u
/* Places beyond ef for hidden rows that are walked through. */
#define HIDDEN_FACTOR 4u

static void prefetch(const vexi_graph *graph, uint32_t row) {
    const uint8_t *node = graph->nodes + (size_t)row * graph->layout.node_size;
    size_t size = graph->layout.node_size;
    size = size < PREFETCH_MAX ? size : PREFETCH_MAX;
    for (size_t i = 0; i < size; i += CACHE_LINE) {
        __builtin_prefetch(node + i);
    }
}

/* ---- Rows seen ------------------------------------------------------------------------------- */

/* Touched words are listed, so that clearing costs what the search did. */
typedef struct seen_rows {
    uint64_t *words;
    uint32_t *touched;
    uint32_t count;
} seen_rows;

/* True if it was there before. */
static inline bool seen_add(seen_rows *seen, uint32_t row) {
    uint64_t bit = (uint64_t)1 << (row % 64);
    uint64_t word = seen->words[row / 64];
    if ((word & bit) != 0) {
        return true;
    }
    if (word == 0) {
        if (seen->count < VEXI_GRAPH_TOUCHED_MAX) {
            seen->touched[seen->count] = row / 64;
        }
        seen->count++;
    }
    seen->words[row / 64] = word | bit;
    return false;
}

static inline bool seen_has(const seen_rows *seen, uint32_t row) {
    return (seen->words[row / 64] >> (row % 64) & 1u) != 0;
}

static void seen_clear(seen_rows *seen, uint32_t row_count) {
    if (seen->count <= VEXI_GRAPH_TOUCHED_MAX) {
        for (uint32_t i = 0; i < seen->count; i++) {
            seen->words[seen->touched[i]] = 0;
        }
    } else {
        memset(seen->words, 0, vexi_bitmap_words(row_count) * sizeof *seen->words);
    }
    seen->count = 0;
}

/* ---- Beam ------------------------------------------------------------------------------------ */

typedef struct beam {
    vexi_graph_item *items; /* ascending */
    uint32_t count;
    uint32_t capacity;
    uint32_t next;    /* the first that is not expanded, or count */
    uint32_t allowed; /* items that are not hidden */
    uint32_t ef;
    float limit; /* keys must be below */
} beam;

/* Put an item, known to be below the limit, behind those not above it. */
static inline void beam_insert(beam *b, float key, uint32_t row, bool filtered) {
    uint32_t low = 0;
    uint32_t length = b->count;
    while (length > 0) {
        uint32_t half = length / 2;
        bool right = b->items[low + half].key <= key;
        low = right ? low + half + 1 : low;
        length = right ? length - half - 1 : half;
    }
    uint32_t moved = b->count - low;
    if (b->count == b->capacity) {
        if (filtered && (b->items[b->count - 1].row & HIDDEN) == 0) {
            b->allowed--;
        }
        moved--;
        b->count--;
    }
    memmove(b->items + low + 1, b->items + low, moved * sizeof *b->items);
    b->items[low] = (vexi_graph_item){.key = key, .row = row};
    b->count++;
    b->next = low < b->next ? low : b->next;
    if (filtered) {
        b->allowed += (row & HIDDEN) == 0;
        while (b->allowed > b->ef ||
               (b->allowed == b->ef && (b->items[b->count - 1].row & HIDDEN) != 0)) {
            b->count--;
            b->allowed -= (b->items[b->count].row & HIDDEN) == 0;
        }
        b->next = b->next < b->count ? b->next : b->count;
        if (b->allowed == b->ef || b->count == b->capacity) {
            b->limit = b->items[b->count - 1].key;
        }
    } else if (b->count == b->capacity) {
        b->limit = b->items[b->count - 1].key;
    }
}

/* Take the first item that is not expanded. */
static inline uint32_t beam_take(beam *b) {
    uint32_t row = b->items[b->next].row & ROW;
    b->items[b->next].row |= EXPANDED;
    do {
        b->next++;
    } while (b->next < b->count && (b->items[b->next].row & EXPANDED) != 0);
    return row;
}

/* ---- Walking --------------------------------------------------------------------------------- */

/* The key of a node and, under inner product, of the space the build walks in. */
static inline float exact_key(const vexi_graph *graph, const vexi_kernels *kernels,
                              const vexi_code_query *query, uint32_t row) {
    float out;
    const uint8_t *node = graph->nodes + (size_t)row * graph->layout.node_size;
    if (graph->layout.metric == VEX_METRIC_IP) {
        kernels->dot(query->values, node, 0, 1, graph->layout.dimension, &out);
        return -2.0f * out;
    }
    kernels->l2(query->values, node, 0, 1, graph->layout.dimension, &out);
    return out;
}

/* The most promising entries by their codes, the nearest first; returns their number. */
static uint32_t choose_entries(const vexi_graph *graph, const vexi_kernels *kernels,
                               const vexi_code_query *query, float *estimates, uint32_t *out) {
    uint32_t count =
        graph->entry_count < VEXI_GRAPH_ENTRIES_MAX ? graph->entry_count : VEXI_GRAPH_ENTRIES_MAX;
    float best[ENTRY_STARTS];
    uint32_t found = 0;
    if (graph->entry_codes == NULL) {
        memset(estimates, 0, count * sizeof *estimates);
    } else {
        uint32_t blocks = (count + VEXI_CODE_BLOCK_ROWS - 1) / VEXI_CODE_BLOCK_ROWS;
        kernels->estimate_codes(graph->entry_codes, blocks, graph->layout.padded, query->table,
                                query->unit, query->base, estimates);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (found == ENTRY_STARTS && !(estimates[i] < best[found - 1])) {
            continue;
        }
        if (graph->entries[i] >= graph->row_count) {
            continue;
        }
        uint32_t at = found < ENTRY_STARTS ? found++ : found - 1;
        while (at > 0 && estimates[i] < best[at - 1]) {
            best[at] = best[at - 1];
            out[at] = out[at - 1];
            at--;
        }
        best[at] = estimates[i];
        out[at] = graph->entries[i];
    }
    return found;
}

typedef struct walk_input {
    const vexi_graph *graph;
    const vexi_code_query *query;
    const uint64_t *hidden;
    uint32_t ef;
    vexi_graph_scratch *scratch;
    /* A search */
    vexi_topk *topk;
    uint32_t source;
    /* A build: rows expanded go here. */
    vexi_graph_item *out;
    uint32_t out_capacity;
    const float *extras; /* inner product: see graph_build.c */
    float extra;
    uint32_t self; /* the row looked for */
} walk_input;

static inline uint32_t flags_of(const walk_input *in, uint32_t row, bool filtered) {
    return filtered && vexi_bitmap_get(in->hidden, row) ? HIDDEN : 0;
}

__attribute__((always_inline)) static inline vexi_graph_result walk(const walk_input *in,
                                                                    bool filtered, bool building) {
    const vexi_graph *graph = in->graph;
    const vexi_graph_layout *layout = &graph->layout;
    const vexi_code_query *query = in->query;
    const vexi_kernels *kernels = vexi_kernels_get();
    vexi_graph_scratch *scratch = in->scratch;
    vexi_graph_result result = {0};
    uint32_t row_count = graph->row_count;
    uint32_t ef = in->ef < row_count ? in->ef : row_count;
    ef = ef > 0 ? ef : 1;
    size_t capacity = filtered ? (size_t)ef * HIDDEN_FACTOR : ef;
    capacity = capacity < scratch->beam_capacity ? capacity : scratch->beam_capacity;
    beam b = {.items = scratch->beam,
              .capacity = (uint32_t)capacity,
              .ef = ef < (uint32_t)capacity ? ef : (uint32_t)capacity,
              .limit = INFINITY};
    seen_rows seen = {.words = scratch->seen, .touched = scratch->touched};
    if (scratch->dirty) { /* a search over a mapping ended in a fault */
        memset(scratch->seen, 0, scratch->seen_size * sizeof *scratch->seen);
    }
    scratch->dirty = true;
    uint32_t degree = layout->degree;
    float *estimates = scratch->estimates;
    float factor = 1.0f; /* from keys to distances in the metric's terms */
    if (layout->metric == VEX_METRIC_COSINE) {
        factor = 0.5f;
    } else if (layout->metric == VEX_METRIC_IP) {
        factor = query->to_scan > 0 ? 0.5f / query->to_scan : 0.0f;
    }

    uint32_t starts[ENTRY_STARTS];
    uint32_t start_count = choose_entries(graph, kernels, query, estimates, starts);
    result.row_count += graph->entry_count;
    for (uint32_t i = 0; i < start_count; i++) {
        prefetch(graph, starts[i]);
    }
    for (uint32_t i = 0; i < start_count; i++) {
        float key = exact_key(graph, kernels, query, starts[i]);
        if (building && in->extras != NULL) {
            key -= 2.0f * in->extra * in->extras[starts[i]];
        }
        if (key < b.limit) {
            beam_insert(&b, key, starts[i] | flags_of(in, starts[i], filtered), filtered);
        }
    }

    while (b.next < b.count) {
        uint32_t row = beam_take(&b);
        if (seen_add(&seen, row)) {
            continue;
        }
        if (b.next < b.count) {
            prefetch(graph, b.items[b.next].row & ROW);
        }
        const uint8_t *node = graph->nodes + (size_t)row * layout->node_size;
        float key = exact_key(graph, kernels, query, row);
        kernels->estimate_codes(node + layout->blocks_offset, degree / VEXI_CODE_BLOCK_ROWS,
                                layout->padded, query->table, query->unit, query->base, estimates);
        result.hop_count++;
        if (building) {
            if (row != in->self && result.found < in->out_capacity) {
                float full = key;
                if (in->extras != NULL) {
                    full -= 2.0f * in->extra * in->extras[row];
                }
                in->out[result.found++] = (vexi_graph_item){.key = full, .row = row};
            }
        } else if (!filtered || !vexi_bitmap_get(in->hidden, row)) {
            result.found++;
            float distance = key * factor;
            if (!(distance > in->topk->threshold)) {
                vexi_topk_push(in->topk, distance, in->source, row);
            }
        }
        const uint32_t *neighbours =
            (const uint32_t *)(const void *)(node + layout->neighbours_offset);
        for (uint32_t i = 0; i < degree; i++) {
            float estimate = estimates[i] + key;
            uint32_t neighbour = neighbours[i];
            if (building && in->extras != NULL && neighbour < row_count) {
                estimate -= 2.0f * in->extra * in->extras[neighbour];
            }
            if (!(estimate < b.limit) || neighbour >= row_count || seen_has(&seen, neighbour)) {
                continue;
            }
            beam_insert(&b, estimate, neighbour | flags_of(in, neighbour, filtered), filtered);
        }
        if (b.next < b.count) {
            prefetch(graph, b.items[b.next].row & ROW);
        }
    }
    result.row_count += result.hop_count * (degree + 1);
    seen_clear(&seen, row_count);
    scratch->dirty = false;
    return result;
}

void vexi_graph_search(const vexi_graph *graph, const vexi_code_query *query, uint32_t ef,
                       const uint64_t *hidden, uint32_t source, vexi_graph_scratch *scratch,
                       vexi_topk *topk, vexi_graph_result *result) {
    *result = (vexi_graph_result){0};
    walk_input in = {.graph = graph,
                     .query = query,
                     .hidden = hidden,
                     .ef = ef,
                     .scratch = scratch,
                     .topk = topk,
                     .source = source};
    if (graph->row_count > 0) {
        *result = hidden == NULL ? walk(&in, false, false) : walk(&in, true, false);
    }
}

uint32_t vexi_graph_find(const vexi_graph_builder *builder, const vexi_code_query *query,
                         uint32_t row, uint32_t ef, vexi_graph_scratch *scratch,
                         vexi_graph_item *out, uint32_t capacity) {
    walk_input in = {.graph = builder->graph,
                     .query = query,
                     .ef = ef,
                     .scratch = scratch,
                     .out = out,
                     .out_capacity = capacity,
                     .extras = builder->extras,
                     .extra = builder->extras == NULL ? 0 : builder->extras[row],
                     .self = row};
    return walk(&in, false, true).found;
}

/* ---- Scratch memory -------------------------------------------------------------------------- */

vex_status vexi_graph_scratch_create(const vexi_env *env, vexi_graph_scratch **out,
                                     vex_error *err) {
    *out = NULL;
    vexi_graph_scratch *scratch = vexi_calloc(env, 1, sizeof *scratch);
    if (scratch == NULL) {
        return vexi_no_memory(err, sizeof *scratch);
    }
    scratch->env = env;
    scratch->touched = vexi_alloc_array(env, VEXI_GRAPH_TOUCHED_MAX, sizeof *scratch->touched);
    if (scratch->touched == NULL) {
        vexi_graph_scratch_destroy(scratch);
        return vexi_no_memory(err, VEXI_GRAPH_TOUCHED_MAX * sizeof *scratch->touched);
    }
    *out = scratch;
    return VEX_OK;
}

void vexi_graph_scratch_destroy(vexi_graph_scratch *scratch) {
    if (scratch == NULL) {
        return;
    }
    const vexi_env *env = scratch->env;
    vexi_free(env, scratch->beam);
    vexi_free(env, scratch->seen);
    vexi_free(env, scratch->touched);
    vexi_free(env, scratch->estimates);
    vexi_free(env, scratch);
}

vex_status vexi_graph_scratch_reserve(vexi_graph_scratch *scratch, uint32_t row_count,
                                      uint32_t degree, uint32_t ef, vex_error *err) {
    const vexi_env *env = scratch->env;
    ef = ef < row_count ? ef : row_count;
    size_t places = (size_t)(ef > 0 ? ef : 1) * HIDDEN_FACTOR;
    if (places > scratch->beam_capacity) {
        vexi_graph_item *items = vexi_alloc_array(env, places + 1, sizeof *items);
        if (items == NULL) {
            return vexi_no_memory(err, (places + 1) * sizeof *items);
        }
        vexi_free(env, scratch->beam);
        scratch->beam = items;
        scratch->beam_capacity = places;
    }
    size_t words = vexi_bitmap_words(row_count);
    if (words > scratch->seen_size) {
        uint64_t *seen = vexi_calloc(env, words, sizeof *seen);
        if (seen == NULL) {
            return vexi_no_memory(err, words * sizeof *seen);
        }
        vexi_free(env, scratch->seen);
        scratch->seen = seen;
        scratch->seen_size = words;
    }
    size_t estimates = degree > VEXI_GRAPH_ENTRIES_MAX ? degree : VEXI_GRAPH_ENTRIES_MAX;
    if (estimates > scratch->estimate_count) {
        float *values = vexi_alloc_aligned(env, estimates * sizeof *values);
        if (values == NULL) {
            return vexi_no_memory(err, estimates * sizeof *values);
        }
        vexi_free(env, scratch->estimates);
        scratch->estimates = values;
        scratch->estimate_count = estimates;
    }
    return VEX_OK;
}
