/* Verify: every object that the newest version names, byte by byte. */
#include "table/segment_graph.h"
#include "table/table_internal.h"

/* The graph file of a segment, whether it is in use here or not. */
static vex_status verify_graph(vexi_segment *segment, uint64_t rotation_seed, vexi_arena *arena,
                               vexi_finding **findings, size_t *finding_count,
                               uint64_t *object_count, vex_error *err) {
    if (!vexi_segment_graph_wanted(segment)) {
        return VEX_OK;
    }
    vex_error problem;
    bool found;
    vex_status status = vexi_segment_graph_verify(segment, rotation_seed, &found, &problem);
    *object_count += found ? 1 : 0;
    if (status == VEX_OK) {
        return VEX_OK;
    }
    char *name = vexi_segment_graph_name(segment);
    vex_status added = name == NULL ? vexi_no_memory(err, 0)
                                    : vexi_finding_add(arena, findings, finding_count, name, status,
                                                       &problem, err);
    vexi_free(arena->env, name);
    return added;
}

vex_status vexi_table_verify(vexi_table *table, vexi_arena *arena, vexi_finding **findings,
                             size_t *finding_count, uint64_t *object_count, vex_error *err) {
    vexi_view *view;
    VEX_TRY(vexi_table_view(table, &view, err));
    vex_status status = VEX_OK;
    for (size_t i = 0; i < view->source_count && status == VEX_OK; i++) {
        if (view->sources[i].segment != NULL) {
            status = vexi_segment_verify_all(view->sources[i].segment, view->schema, arena,
                                             findings, finding_count, object_count, err);
        }
        if (view->sources[i].segment != NULL && status == VEX_OK) {
            status = verify_graph(view->sources[i].segment, view->schema->rotation_seed, arena,
                                  findings, finding_count, object_count, err);
        }
    }
    /* The Delta log was read whole when the table was opened, and each commit since; its files have
     * no checksum of their own beyond being JSON that adds up. */
    *object_count += (uint64_t)view->version + 1;
    vexi_view_release(view);
    return status;
}
