/* Verify: every object that the newest version names, byte by byte. */
#include "table/table_internal.h"

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
    }
    /* The Delta log was read whole when the table was opened, and each commit since; its files have
     * no checksum of their own beyond being JSON that adds up. */
    *object_count += (uint64_t)view->version + 1;
    vexi_view_release(view);
    return status;
}
