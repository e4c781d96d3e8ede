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
 * On 200,000 x 128 (SIFT), tried and dropped: one place a row (recall 0.928 at 65 steps where it is
 * 0.954 at 61); the exact distance in place of the estimate once it is known (0.977 at 112 steps
 * where it is 0.982 at 116); stopping by the distance to the k-th row found (a few per cent fewer
 * at best, with a far larger beam); more than two starts (no gain in recall); a binary search in
 * the beam (a sixth more time).
 *
 * Nothing here trusts the nodes' bytes: a row number is compared with row_count before it is used,
 * and keys that are not numbers enter nowhere. */
#include <math.h>
#include <string.h>

#include "base/bitmap.h"
#include "index/graph_internal.h"

#define EXPANDED ((uint32_t)1 << 31)
#define HIDDEN   ((uint32_t)1 << 30)
#define FETCHED  ((uint32_t)1 << 29)
#define ROW      (VEXI_GRAPH_ROWS_MAX - 1)
#define WINDOW   32u

#define CACHE_LINE   64u
#define PREFETCH_MAX 4096u
#define ENTRY_STARTS 2u
#define AHEAD        6u /* nodes fetched before they are expanded */
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

/* Keys and rows lie in arrays of their own, so that the place of a key is found by comparing whole
 * registers: a binary search costs a mispredicted branch, or a load's latency, a step. */
typedef struct beam {
    float *keys;    /* ascending; WINDOW more beyond `count` are infinite */
    uint32_t *rows; /* with flags */
    uint32_t count;
    uint32_t capacity;
    uint32_t next;    /* the first that is not expanded, or count */
    uint32_t allowed; /* items that are not hidden */
    uint32_t ef;
    float limit; /* keys must be below */
} beam;

static inline void beam_drop(beam *b) {
    b->count--;
    b->keys[b->count] = INFINITY;
    b->allowed -= (b->rows[b->count] & HIDDEN) == 0;
}

/* Put an item, known to be below the limit, behind those not above it. */
static inline void beam_insert(beam *b, float key, uint32_t row, bool filtered) {
    uint32_t at = 0;
    while (at + WINDOW <= b->count && b->keys[at + WINDOW - 1] <= key) {
        at += WINDOW;
    }
    uint32_t lower = 0;
    for (uint32_t i = 0; i < WINDOW; i++) {
        lower += b->keys[at + i] <= key;
    }
    at += lower;
    if (b->count == b->capacity) {
        if (filtered) {
            b->allowed -= (b->rows[b->count - 1] & HIDDEN) == 0;
        }
        b->count--;
    }
    size_t moved = b->count - at;
    memmove(b->keys + at + 1, b->keys + at, moved * sizeof *b->keys);
    memmove(b->rows + at + 1, b->rows + at, moved * sizeof *b->rows);
    b->keys[at] = key;
    b->rows[at] = row;
    b->count++;
    b->next = at < b->next ? at : b->next;
    if (filtered) {
        b->allowed += (row & HIDDEN) == 0;
        while (b->allowed > b->ef ||
               (b->allowed == b->ef && (b->rows[b->count - 1] & HIDDEN) != 0)) {
            beam_drop(b);
        }
        b->next = b->next < b->count ? b->next : b->count;
        if (b->allowed == b->ef || b->count == b->capacity) {
            b->limit = b->keys[b->count - 1];
        }
    } else if (b->count == b->capacity) {
        b->limit = b->keys[b->count - 1];
    }
}

/* Take the first item that is not expanded. */
static inline uint32_t beam_take(beam *b) {
    uint32_t row = b->rows[b->next] & ROW;
    b->rows[b->next] |= EXPANDED;
    do {
        b->next++;
    } while (b->next < b->count && (b->rows[b->next] & EXPANDED) != 0);
    return row;
}

/* Fetch the nodes that will be expanded next, as far as they are known. */
static inline void prefetch_next(const vexi_graph *graph, beam *b, const seen_rows *seen) {
    uint32_t ahead = 0;
    for (uint32_t i = b->next; i < b->count && ahead < AHEAD; i++) {
        uint32_t row = b->rows[i];
        if ((row & EXPANDED) != 0) {
            continue;
        }
        ahead++;
        if ((row & FETCHED) == 0) {
            b->rows[i] |= FETCHED;
            if (!seen_has(seen, row & ROW)) {
                prefetch(graph, row & ROW);
            }
        }
    }
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

/* The most promising of the first `most` entries by their codes, the nearest first; returns how
 * many were chosen. */
static uint32_t choose_entries(const vexi_graph *graph, const vexi_kernels *kernels,
                               const vexi_code_query *query, uint32_t most, float *estimates,
                               uint32_t *out) {
    uint32_t count = graph->entry_count < most ? graph->entry_count : most;
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
    uint32_t around; /* a row that is not expanded; UINT32_MAX: none */
} walk_input;

/* Bit i: value i of a block is below the limit. */
static inline uint32_t below(const float *block, float limit) {
    uint32_t mask = 0;
    for (uint32_t i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
        mask |= (uint32_t)(block[i] < limit) << i;
    }
    return mask;
}

/* What inner product has besides -2 <q, x> in the space that the graph is built in. */
static void add_extras(const walk_input *in, const uint32_t *numbers, float *block) {
    for (uint32_t i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
        block[i] -= 2.0f * in->extra * in->extras[numbers[i]];
    }
}

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
    /* Where there is a place for every row, each takes one at most, so that none is left out. */
    bool once = ef == row_count;
    size_t capacity = filtered ? (size_t)ef * HIDDEN_FACTOR : ef;
    capacity = capacity < scratch->beam_capacity ? capacity : scratch->beam_capacity;
    beam b = {.keys = scratch->beam_keys,
              .rows = scratch->beam_rows,
              .capacity = (uint32_t)capacity,
              .ef = ef < (uint32_t)capacity ? ef : (uint32_t)capacity,
              .limit = INFINITY};
    for (uint32_t i = 0; i < b.capacity + WINDOW; i++) {
        b.keys[i] = INFINITY;
    }
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

    if (in->around < row_count) {
        seen_add(&seen, in->around);
    }
    uint32_t starts[ENTRY_STARTS];
    /* A build comes from afar, so that it meets rows for the longer edges. */
    uint32_t most = building ? VEXI_GRAPH_FAR_ENTRIES : VEXI_GRAPH_ENTRIES_MAX;
    uint32_t start_count = choose_entries(graph, kernels, query, most, estimates, starts);
    result.row_count += graph->entry_count < most ? graph->entry_count : most;
    for (uint32_t i = 0; i < start_count; i++) {
        prefetch(graph, starts[i]);
    }
    for (uint32_t i = 0; i < start_count; i++) {
        float key = exact_key(graph, kernels, query, starts[i]);
        if (building && in->extras != NULL) {
            key -= 2.0f * in->extra * in->extras[starts[i]];
        }
        if (key < b.limit && !(once && seen_add(&seen, starts[i]))) {
            beam_insert(&b, key, starts[i] | flags_of(in, starts[i], filtered), filtered);
        }
    }

    bool entered = false; /* by all entries */
    for (;;) {
        if (b.next == b.count) {
            if (b.limit < INFINITY || entered) {
                break;
            }
            /* All that can be reached from the starts, and places left: go on from the others. */
            entered = true;
            for (uint32_t i = 0; i < graph->entry_count; i++) {
                uint32_t row = graph->entries[i];
                if (row >= row_count || (once ? seen_add(&seen, row) : seen_has(&seen, row))) {
                    continue;
                }
                float key = exact_key(graph, kernels, query, row);
                if (building && in->extras != NULL) {
                    key -= 2.0f * in->extra * in->extras[row];
                }
                if (key < b.limit) {
                    beam_insert(&b, key, row | flags_of(in, row, filtered), filtered);
                }
            }
            continue;
        }
        uint32_t row = beam_take(&b);
        if (!once && seen_add(&seen, row)) {
            continue;
        }
        const uint8_t *node = graph->nodes + (size_t)row * layout->node_size;
        float key = exact_key(graph, kernels, query, row);
        kernels->estimate_codes(node + layout->blocks_offset, degree / VEXI_CODE_BLOCK_ROWS,
                                layout->padded, query->table, query->unit, query->base, estimates);
        result.hop_count++;
        if (building) {
            if (result.found < in->out_capacity) {
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
        for (uint32_t first = 0; first < degree; first += VEXI_CODE_BLOCK_ROWS) {
            float *block = estimates + first;
            const uint32_t *numbers = neighbours + first;
            for (uint32_t i = 0; i < VEXI_CODE_BLOCK_ROWS; i++) {
                block[i] += key;
            }
            if (building && in->extras != NULL) {
                add_extras(in, numbers, block);
            }
            uint32_t mask = below(block, b.limit);
            for (; mask != 0; mask &= mask - 1) {
                uint32_t i = (uint32_t)__builtin_ctz(mask);
                uint32_t neighbour = numbers[i];
                if (block[i] < b.limit && neighbour < row_count &&
                    !(once ? seen_add(&seen, neighbour) : seen_has(&seen, neighbour))) {
                    beam_insert(&b, block[i], neighbour | flags_of(in, neighbour, filtered),
                                filtered);
                }
            }
        }
        prefetch_next(graph, &b, &seen);
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
                     .source = source,
                     .around = UINT32_MAX};
    if (graph->row_count > 0) {
        *result = hidden == NULL ? walk(&in, false, false) : walk(&in, true, false);
    }
}

void vexi_graph_search_around(const vexi_graph *graph, const vexi_code_query *query, uint32_t ef,
                              uint32_t around, vexi_graph_scratch *scratch, vexi_topk *topk,
                              vexi_graph_result *result) {
    walk_input in = {.graph = graph,
                     .query = query,
                     .ef = ef,
                     .scratch = scratch,
                     .topk = topk,
                     .around = around};
    *result = walk(&in, false, false);
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
                     .around = row};
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
    vexi_free(env, scratch->beam_keys);
    vexi_free(env, scratch->beam_rows);
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
        float *keys = vexi_alloc_array(env, places + WINDOW, sizeof *keys);
        uint32_t *rows = vexi_alloc_array(env, places, sizeof *rows);
        if (keys == NULL || rows == NULL) {
            vexi_free(env, keys);
            vexi_free(env, rows);
            return vexi_no_memory(err, places * (sizeof *keys + sizeof *rows));
        }
        vexi_free(env, scratch->beam_keys);
        vexi_free(env, scratch->beam_rows);
        scratch->beam_keys = keys;
        scratch->beam_rows = rows;
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
