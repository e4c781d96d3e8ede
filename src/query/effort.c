/* Effort: how far a search goes in one source.
 *
 * A request names lists to probe (nprobe), a beam for graphs (ef), or the recall that it wants; by
 * default the collection's. Recall becomes lists or a beam by the table that was measured when the
 * segment was indexed (index/calibration.h). A graph goes before lists unless nprobe is given.
 *
 * An index is left aside where it cannot help: where most rows are asked for, where few rows live,
 * where the memtable is smaller than a query's preparation is worth. Files from before there were
 * codes have lists without a table: the fixed rule of index/ivf.h applies.
 *
 * Costs are in nanoseconds of one core and rough (AVX2 at 3 GHz): they decide how work is split
 * over threads, not what is found. */
#include "query/search_internal.h"

#include "base/bitmap.h"

enum {
    MEMTABLE_ROWS_MIN = 512, /* coded rows below which comparing all is as fast */
    FEW_SHARE = 100,         /* a segment with 1/100 of its rows alive has few */
    FEW_SHARE_MIN = 8,       /* one with 1/8 may, if comparing them costs less than the index */
};

static uint64_t live_rows(const uint64_t *hidden, uint64_t first, uint64_t end) {
    uint64_t live = end - first;
    if (hidden == NULL) {
        return live;
    }
    uint64_t row = first;
    for (; row < end && row % 64 != 0; row++) {
        live -= vexi_bitmap_get(hidden, row);
    }
    for (; row + 64 <= end; row += 64) {
        live -= (uint64_t)__builtin_popcountll(hidden[row / 64]);
    }
    for (; row < end; row++) {
        live -= vexi_bitmap_get(hidden, row);
    }
    return live;
}

bool vexi_scale_codable(const vexi_query *query, float row_length) {
    if (!vexi_code_scale_judged(row_length)) {
        return false;
    }
    if (query->inverse_norm == 0) { /* the zero vector: a place like others under L2 alone */
        return query->metric == VEX_METRIC_L2;
    }
    return vexi_code_scale_judged(query->inverse_norm);
}

static uint64_t clamp(uint64_t value, uint64_t least, uint64_t most) {
    return value < least ? least : value > most ? most : value;
}

/* ---- Costs ----------------------------------------------------------------------------------- */

static double row_cost(uint32_t dimension) {
    return 4.0 + 0.2 * dimension;
}

static double code_cost(uint32_t padded) {
    return 0.5 + 0.015 * padded;
}

static double lists_cost(const vexi_view *view, const vexi_source *source,
                         const vexi_index_file *index, const vexi_effort *effort) {
    double rows = (double)source->row_count * effort->probe_count / index->list_count;
    if (effort->way == VEXI_WAY_LISTS) {
        return (rows + index->list_count) * row_cost(view->schema->dimension);
    }
    return (rows + index->list_count) * code_cost(index->code_padded) +
           5000.0 * (1.0 + view->schema->dimension / 512.0);
}

/* ---- Indexes --------------------------------------------------------------------------------- */

static uint32_t table_find(const uint32_t *stored, float recall, uint32_t k, uint32_t most) {
    vexi_calibration table;
    _Static_assert(sizeof table == VEXI_INDEX_CALIBRATION_COUNT * sizeof *stored, "one layout");
    memcpy(&table, stored, sizeof table);
    return vexi_calibration_find(&table, recall, k, most);
}

/* Lists where nobody measured. */
static uint32_t probes_by_rule(uint32_t list_count, uint32_t k, float recall) {
    double count = vexi_ivf_default_nprobe(list_count, k);
    if (recall > 0.98f) {
        count *= recall > 0.995f ? 4 : 2;
    }
    return count > list_count ? list_count : (uint32_t)count;
}

/* Whether the codes are of this view's rotation. */
static bool index_coded(const vexi_view *view, const vexi_index_file *index) {
    const vexi_rotation *rotation = vexi_view_rotation(view);
    return index->code_bits != 0 && rotation != NULL && rotation->seed == index->rotation_seed &&
           rotation->padded == index->code_padded;
}

/* ---- Lists where rows are hidden ------------------------------------------------------------- */

/* By the rule for unmeasured lists, a list counts by the share of its rows that live (a quarter at
 * least), so that deleting a query's neighbourhood does not leave it with empty lists alone. */
static uint32_t needed_by_rule(const vexi_source *source, const vexi_index_file *index,
                               const uint32_t *lists, uint32_t ranked, uint32_t probe_count) {
    uint64_t quarters_wanted = 4 * (uint64_t)probe_count;
    uint64_t quarters = 0;
    uint32_t count = 0;
    while (quarters < quarters_wanted && count < ranked) {
        uint32_t list = lists[count++];
        uint64_t first = index->list_first[list];
        uint64_t end = index->list_first[list + 1];
        uint64_t live = live_rows(source->hidden, first, end);
        uint64_t share = live == end - first ? 4 : 4 * live / (end - first);
        quarters += share == 0 ? 1 : share;
    }
    return quarters < quarters_wanted && ranked < index->list_count ? ranked + 1 : count;
}

/* The k nearest live rows are the k + h nearest rows where h hidden ones lie between them. The
 * nearest lists, up to those that hold 2 k live rows, tell their share; the table then answers for
 * so many more. */
static uint32_t needed_by_table(const vexi_source *source, const vexi_index_file *index,
                                const uint32_t *lists, uint32_t ranked, const vexi_effort *effort,
                                uint32_t k) {
    uint64_t live = 0, all = 0;
    uint32_t count = 0;
    for (; live < 2 * (uint64_t)k && count < ranked; count++) {
        uint64_t first = index->list_first[lists[count]];
        uint64_t end = index->list_first[lists[count] + 1];
        live += live_rows(source->hidden, first, end);
        all += end - first;
    }
    if (live < 2 * (uint64_t)k && ranked < index->list_count) {
        return ranked + 1;
    }
    uint64_t nearest = live == 0 ? all : (k * all + live - 1) / live;
    if (nearest == k) {
        return effort->probe_count;
    }
    nearest += nearest / 4; /* the last ones of so many are missed more often than the first */
    return table_find(index->calibration, effort->recall, (uint32_t)clamp(nearest, k, UINT32_MAX),
                      index->list_count);
}

uint32_t vexi_lists_needed(const vexi_source *source, const vexi_index_file *index,
                           const uint32_t *lists, uint32_t ranked, const vexi_effort *effort,
                           const vexi_search_request *request) {
    uint64_t live = source->row_count - source->hidden_count;
    uint64_t wanted = live < request->k ? live : request->k;
    bool given = request->nprobe != 0;
    uint32_t count = effort->probe_count;
    if (source->hidden != NULL && !given) {
        count = effort->way == VEXI_WAY_CODES
                    ? needed_by_table(source, index, lists, ranked, effort, request->k)
                    : needed_by_rule(source, index, lists, ranked, effort->probe_count);
        count = count > effort->probe_count ? count : effort->probe_count;
    }
    uint64_t seen = 0;
    for (uint32_t i = 0; i < ranked && (i < count || seen < wanted); i++) {
        seen +=
            live_rows(source->hidden, index->list_first[lists[i]], index->list_first[lists[i] + 1]);
        count = i < count ? count : i + 1;
    }
    if (count > ranked || seen < wanted) {
        return ranked < index->list_count ? ranked + 1 : ranked;
    }
    return count;
}

static vexi_effort segment_effort(const vexi_view *view, const vexi_source *source,
                                  const vexi_search_request *request, float recall,
                                  bool with_graph) {
    vexi_effort effort = {.way = VEXI_WAY_EXACT, .recall = recall};
    uint64_t live = source->row_count - source->hidden_count;
    const vexi_graph_file *graph =
        with_graph && request->nprobe == 0 ? vexi_source_graph(source) : NULL;
    const vexi_index_file *index = vexi_source_ivf(source);
    if (graph != NULL && graph->rotation_seed != vexi_view_rotation(view)->seed) {
        graph = NULL;
    }
    if (graph != NULL) {
        uint32_t rows = (uint32_t)clamp(source->row_count, 1, UINT32_MAX);
        uint32_t ef = request->ef != 0 ? request->ef
                                       : table_find(graph->calibration, recall, request->k, rows);
        effort.ef = (uint32_t)clamp(ef, request->k < live ? request->k : live, rows);
        /* A beam of most rows is slower than comparing them: the table could not tell. */
        if (effort.ef <= live / 4) {
            effort.way = VEXI_WAY_GRAPH;
            effort.graph = graph;
            effort.cost_ns =
                1.3 * effort.ef *
                (100.0 + 32.0 * code_cost(graph->padded) + row_cost(view->schema->dimension));
            return effort;
        }
    }
    if (request->nprobe == 0 && recall >= 1) {
        return effort; /* ef was given for the sake of other segments */
    }
    if (index != NULL && index->list_count > 0) {
        bool coded = index_coded(view, index);
        uint32_t count = request->nprobe;
        if (count == 0) {
            count = coded ? table_find(index->calibration, recall, request->k, index->list_count)
                          : probes_by_rule(index->list_count, request->k, recall);
        }
        effort.probe_count = (uint32_t)clamp(count, 1, index->list_count);
        effort.way = coded ? VEXI_WAY_CODES : VEXI_WAY_LISTS;
        effort.cost_ns = lists_cost(view, source, index, &effort);
    }
    return effort;
}

static vexi_effort effort_of(const vexi_view *view, uint32_t at, const vexi_search_request *request,
                             bool with_graph) {
    const vexi_source *source = &view->sources[at];
    const vexi_schema *schema = view->schema;
    uint64_t live = source->row_count - source->hidden_count;
    vexi_effort effort = {.way = VEXI_WAY_EXACT};
    effort.cost_ns = (double)source->row_count * row_cost(schema->dimension);
    if (live == 0) {
        return (vexi_effort){.way = VEXI_WAY_NONE};
    }
    float recall = request->recall > 0 ? request->recall : vexi_schema_recall(schema);
    bool effort_given = request->nprobe != 0 || request->ef != 0;
    if (request->exact || (recall >= 1 && !effort_given) || request->k >= live / 2 + 1) {
        return effort;
    }
    if (source->memtable != NULL) {
        vexi_memtable_codes codes;
        vexi_source_codes(source, source->row_count, &codes);
        if (codes.center != NULL && codes.row_count >= MEMTABLE_ROWS_MIN) {
            effort.way = VEXI_WAY_MEMTABLE;
            effort.cost_ns =
                (double)codes.row_count * code_cost(vexi_code_padded(schema->dimension)) +
                (double)(source->row_count - codes.row_count) * row_cost(schema->dimension);
        }
        return effort;
    }
    vexi_effort indexed = segment_effort(view, source, request, recall, with_graph);
    if (source->hidden != NULL && live <= source->row_count / FEW_SHARE_MIN) {
        vexi_effort few = {.way = VEXI_WAY_FEW,
                           .cost_ns = (double)live * row_cost(schema->dimension)};
        if (live <= source->row_count / FEW_SHARE || indexed.way == VEXI_WAY_EXACT ||
            few.cost_ns <= indexed.cost_ns) {
            return few;
        }
    }
    return indexed.way == VEXI_WAY_EXACT ? effort : indexed;
}

vexi_effort vexi_effort_of(const vexi_view *view, uint32_t source,
                           const vexi_search_request *request) {
    return effort_of(view, source, request, true);
}

vexi_effort vexi_effort_without_graph(const vexi_view *view, uint32_t source,
                                      const vexi_search_request *request) {
    return effort_of(view, source, request, false);
}
