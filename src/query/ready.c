/* Rows at hand: what a search fetched for one of its steps and needs again in another. */
#include "query/search_internal.h"

static const uint8_t *in_runs(const vexi_ready *ready, uint64_t row) {
    size_t low = 0, high = ready->run_count;
    while (low < high) { /* the last run that begins at or before the row */
        size_t middle = low + (high - low) / 2;
        if (ready->runs[middle].first_row <= row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == 0 || row - ready->runs[low - 1].first_row >= ready->runs[low - 1].count) {
        return NULL;
    }
    const vexi_run *run = &ready->runs[low - 1];
    return run->vectors + (row - run->first_row) * run->stride;
}

const uint8_t *vexi_ready_vector(const vexi_ready *ready, uint64_t row) {
    if (ready->runs != NULL) {
        return in_runs(ready, row);
    }
    size_t low = 0, high = ready->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ready->rows[middle] < row) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < ready->count && ready->rows[low] == row ? ready->vectors[low] : NULL;
}

vex_status vexi_ready_vectors(const vexi_ready *ready, const vexi_source *source,
                              const uint64_t *rows, size_t count, vexi_arena *arena,
                              const uint8_t **out, vexi_read_cost *cost, vex_error *err) {
    if (ready == NULL || (ready->count == 0 && ready->run_count == 0)) {
        return vexi_source_vectors(source, rows, count, arena, out, cost, err);
    }
    size_t missing = 0;
    for (size_t i = 0; i < count; i++) {
        out[i] = vexi_ready_vector(ready, rows[i]);
        missing += out[i] == NULL ? 1 : 0;
    }
    if (missing == 0) {
        return VEX_OK;
    }
    uint64_t *others = vexi_arena_array(arena, missing, sizeof *others);
    const uint8_t **vectors = vexi_arena_array(arena, missing, sizeof *vectors);
    if (others == NULL || vectors == NULL) {
        return vexi_no_memory(err, missing * sizeof *others);
    }
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (out[i] == NULL) {
            others[n++] = rows[i];
        }
    }
    VEX_TRY(vexi_source_vectors(source, others, n, arena, vectors, cost, err));
    n = 0;
    for (size_t i = 0; i < count; i++) {
        if (out[i] == NULL) {
            out[i] = vectors[n++];
        }
    }
    return VEX_OK;
}
