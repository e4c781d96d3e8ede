/* Scan by a segment's graph: one walk for each query.
 *
 * Hidden rows are walked through and take no place in the beam, but a neighbourhood of them, or an
 * island of the graph, may keep the walk from rows that live: while it finds fewer than the answer
 * needs, the beam doubles; where that reaches no more, the segment's lists answer. A walk pushes
 * what it finds as it goes; whatever comes next starts from the candidates of before. */
#include "base/guard.h"
#include "query/search_internal.h"

enum { WALKS_MAX = 4 };

typedef struct walk_job {
    const vexi_graph *graph;
    const vexi_code_query *code;
    uint32_t ef;
    const uint64_t *hidden;
    uint32_t source;
    vexi_graph_scratch *scratch;
    vexi_topk *topk;
    vexi_graph_result result;
} walk_job;

static vex_status walk_run(void *argument, vex_error *err) {
    (void)err;
    walk_job *job = argument;
    vexi_graph_search(job->graph, job->code, job->ef, job->hidden, job->source, job->scratch,
                      job->topk, &job->result);
    return VEX_OK;
}

typedef struct origin_job {
    float *target;
    const float *origin;
    size_t size;
} origin_job;

static vex_status origin_run(void *argument, vex_error *err) {
    (void)err;
    const origin_job *job = argument;
    memcpy(job->target, job->origin, job->size);
    return VEX_OK;
}

static vex_status scan_query(vexi_scan *scan, uint32_t source, const vexi_graph *graph, uint32_t ef,
                             uint32_t query, bool *enough, vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    vexi_arena *arena = &scan->scratch->work;
    vexi_topk *topk = &scan->topks[query];
    uint64_t live = from->row_count - from->hidden_count;
    uint32_t wanted = live < scan->request->k ? (uint32_t)live : scan->request->k;
    vexi_code_query code;
    VEX_TRY(vexi_graph_query_init(&code, graph, vexi_view_rotation(scan->view),
                                  scan->queries[query].values, arena, err));
    uint32_t before_count = topk->count;
    float before_threshold = topk->threshold;
    vexi_candidate *before = vexi_arena_array(arena, before_count, sizeof *before);
    if (before == NULL) {
        return vexi_no_memory(err, before_count * sizeof *before);
    }
    memcpy(before, topk->items, before_count * sizeof *before);
    uint32_t hops = 0;
    for (int walk = 0; walk < WALKS_MAX; walk++) {
        VEX_TRY(vexi_graph_scratch_reserve(scan->scratch->graph, graph->row_count,
                                           graph->layout.degree, ef, err));
        walk_job job = {.graph = graph,
                        .code = &code,
                        .ef = ef,
                        .hidden = from->hidden,
                        .source = source,
                        .scratch = scan->scratch->graph,
                        .topk = topk};
        VEX_TRY(vexi_guard_run(walk_run, &job, vexi_source_name(from), err));
        scan->stats.hop_count += job.result.hop_count;
        scan->stats.code_count += job.result.row_count;
        if (job.result.found >= wanted) {
            *enough = true;
            return VEX_OK;
        }
        memcpy(topk->items, before, before_count * sizeof *before);
        topk->count = before_count;
        topk->threshold = before_threshold;
        if (ef > live / 4 || job.result.hop_count < hops + hops / 4) {
            break;
        }
        hops = job.result.hop_count;
        ef *= 2;
    }
    return VEX_OK;
}

/* Without the graph: one query by what else there is. */
static vex_status scan_otherwise(vexi_scan *scan, uint32_t source, uint32_t query, vex_error *err) {
    vexi_effort effort = vexi_effort_without_graph(scan->view, source, scan->request);
    vexi_scan one = *scan;
    one.queries += query;
    one.topks += query;
    one.query_count = 1;
    one.slice_count = 1; /* the only slice that walks graphs */
    vex_status status = vexi_scan_source(&one, source, &effort, err);
    scan->stats = one.stats;
    return status;
}

vex_status vexi_scan_graph(vexi_scan *scan, uint32_t source, const vexi_effort *effort,
                           vex_error *err) {
    const vexi_source *from = &scan->view->sources[source];
    const vexi_graph_file *file = effort->graph;
    const vexi_schema *schema = scan->view->schema;
    if (scan->scratch->graph == NULL) {
        VEX_TRY(vexi_graph_scratch_create(scan->env, &scan->scratch->graph, err));
    }
    for (uint32_t i = 0; i < scan->query_count; i++) {
        bool enough = false;
        vexi_arena_reset(&scan->scratch->work);
        if (vexi_scale_codable(&scan->queries[i], file->row_length)) {
            size_t size = (size_t)file->padded * sizeof(float);
            float *origin = vexi_arena_alloc_aligned(&scan->scratch->work, 64, size);
            if (origin == NULL) {
                return vexi_no_memory(err, size);
            }
            origin_job job = {origin, file->origin, size};
            VEX_TRY(vexi_guard_run(origin_run, &job, vexi_source_name(from), err));
            vexi_graph graph = {
                .layout = vexi_graph_layout_of(schema->metric, schema->dimension, file->degree),
                .row_count = file->row_count,
                .nodes = file->nodes,
                .entries = file->entries,
                .entry_count = file->entry_count,
                .entry_codes = file->entry_codes,
                .entry_error = file->entry_error,
                .origin = origin,
                .row_length = file->row_length,
            };
            memcpy(graph.parameters, file->parameters, sizeof graph.parameters);
            VEX_TRY(scan_query(scan, source, &graph, effort->ef, i, &enough, err));
        }
        if (!enough) {
            VEX_TRY(scan_otherwise(scan, source, i, err));
        }
    }
    return VEX_OK;
}
