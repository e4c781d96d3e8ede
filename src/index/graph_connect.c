/* Connecting: every row is reachable from the entries.
 *
 * A breadth-first walk from the entries marks, for each row that it reaches, the slot that led
 * there first; these slots are a tree. A row that was not reached gets an edge from a reached one
 * near it, in the slot of the farthest neighbour among those that are no part of the tree, so that
 * nothing that was reachable is lost; then the walk goes on from there. There are always such
 * slots: a tree of n rows takes n - 1 of degree * n. */
#include <string.h>

#include "base/bitmap.h"
#include "index/graph_internal.h"

typedef struct connection {
    vexi_graph_builder *builder;
    uint64_t *reached; /* bitmap of rows */
    uint64_t *dirty;   /* bitmap of rows whose codes are to be written again */
    uint64_t *tree;    /* per row: slots that are part of the tree */
    uint32_t *queue;
    uint32_t queue_first;
    uint32_t queue_end;
    uint32_t next_free; /* where the search for a free slot goes on, around all rows */
} connection;

static uint32_t *neighbours_of(const connection *c, uint32_t row) {
    const vexi_graph_layout *layout = &c->builder->graph->layout;
    return (uint32_t *)(void *)(c->builder->nodes + (size_t)row * layout->node_size +
                                layout->neighbours_offset);
}

static void reach(connection *c, uint32_t row) {
    vexi_bitmap_set(c->reached, row);
    c->queue[c->queue_end++] = row;
}

static void spread(connection *c) {
    while (c->queue_first < c->queue_end) {
        if (c->queue_first + 8 < c->queue_end) {
            __builtin_prefetch(neighbours_of(c, c->queue[c->queue_first + 8]));
        }
        uint32_t row = c->queue[c->queue_first++];
        const uint32_t *neighbours = neighbours_of(c, row);
        for (uint32_t i = 0; i < c->builder->degree; i++) {
            if (!vexi_bitmap_get(c->reached, neighbours[i])) {
                c->tree[row] |= (uint64_t)1 << i;
                reach(c, neighbours[i]);
            }
        }
    }
}

static bool has_free_slot(const connection *c, uint32_t row) {
    return (uint32_t)__builtin_popcountll(c->tree[row]) < c->builder->degree;
}

/* Put an edge from a reached row with a free slot to `row`. Slots are in the order of usefulness:
 * the last free one goes. */
static void connect(connection *c, uint32_t from, uint32_t row) {
    uint32_t slot = c->builder->degree - 1;
    while ((c->tree[from] >> slot & 1u) != 0) {
        slot--;
    }
    neighbours_of(c, from)[slot] = row;
    c->tree[from] |= (uint64_t)1 << slot;
    vexi_bitmap_set(c->dirty, from);
    reach(c, row);
}

/* The nearest reached row with a free slot among the candidates of `row`, else any. */
static uint32_t find_source(connection *c, uint32_t row) {
    const vexi_graph_builder *builder = c->builder;
    const vexi_graph_item *list = builder->lists + (size_t)row * VEXI_GRAPH_LIST;
    const vexi_graph_item *best = NULL;
    for (uint32_t i = 0; i < builder->list_counts[row]; i++) {
        if (vexi_bitmap_get(c->reached, list[i].row) && has_free_slot(c, list[i].row) &&
            (best == NULL || list[i].key < best->key)) {
            best = &list[i];
        }
    }
    if (best != NULL) {
        return best->row;
    }
    while (!vexi_bitmap_get(c->reached, c->next_free) || !has_free_slot(c, c->next_free)) {
        /* Rows passed before they were reached have free slots now: round again. */
        c->next_free = c->next_free + 1 < builder->row_count ? c->next_free + 1 : 0;
    }
    return c->next_free;
}

static vex_status encode_step(vexi_graph_builder *builder, vexi_graph_worker *worker,
                              uint32_t first, uint32_t count, void *argument) {
    const connection *c = argument;
    for (uint32_t row = first; row < first + count; row++) {
        if (vexi_bitmap_get(c->dirty, row)) {
            vexi_graph_encode(builder, row, worker->values);
        }
    }
    return VEX_OK;
}

vex_status vexi_graph_connect(vexi_graph_builder *builder, vex_error *err) {
    const vexi_env *env = builder->env;
    uint32_t row_count = builder->row_count;
    connection c = {.builder = builder};
    vex_status status = VEX_OK;
    c.reached = vexi_calloc(env, vexi_bitmap_words(row_count), sizeof *c.reached);
    c.dirty = vexi_calloc(env, vexi_bitmap_words(row_count), sizeof *c.dirty);
    c.tree = vexi_calloc(env, row_count, sizeof *c.tree);
    c.queue = vexi_alloc_array(env, row_count, sizeof *c.queue);
    if (c.reached == NULL || c.dirty == NULL || c.tree == NULL || c.queue == NULL) {
        status = vexi_no_memory(err, row_count * sizeof *c.tree);
        goto done;
    }
    for (uint32_t i = 0; i < builder->graph->entry_count; i++) {
        if (!vexi_bitmap_get(c.reached, builder->graph->entries[i])) {
            reach(&c, builder->graph->entries[i]);
        }
    }
    spread(&c);
    /* A row that nothing leads to, but that leads on, reaches others by itself. */
    uint32_t unreached = row_count - c.queue_end;
    for (uint32_t row = 0; row < row_count && c.queue_end < row_count; row++) {
        if (!vexi_bitmap_get(c.reached, row)) {
            connect(&c, find_source(&c, row), row);
            spread(&c);
        }
    }
    if (unreached > 0) {
        status = vexi_graph_run(builder, row_count, 1024, encode_step, &c, 0, err);
    }
done:
    vexi_free(env, c.reached);
    vexi_free(env, c.dirty);
    vexi_free(env, c.tree);
    vexi_free(env, c.queue);
    return status;
}
