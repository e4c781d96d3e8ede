/* Find: ids in remote segments, in three steps for all of them together.
 *
 * An id is looked for in one segment after the other, newest first, and in each the table of its
 * ids, the place of an id and the id itself are read one after the other. Where each of these is a
 * request, they are fetched beforehand: the slots of all ids in all segments, then the places, then
 * the ids of the rows that the slots name. What fails here is met again, and told, by the search.
 */
#include "base/checksum.h"
#include "query/search_internal.h"

enum {
    FIND_ROWS_MAX = 4,  /* of an id in a segment: tags have 32 bits, so more is hardly ever met */
    FIND_REQUESTS = 16, /* for one segment */
    FIND_MORE = 2       /* for each further one */
};

typedef struct finding {
    const vexi_view *view;
    const vex_string *ids;
    size_t count;
    vexi_arena *arena;
    vexi_step step;
} finding;

/* Note what one segment needs: its slots, or what the slots' rows lead to. */
static vex_status source_note(finding *f, uint32_t source, bool slots, vex_error *err) {
    vexi_segment *segment = f->view->sources[source].segment;
    const vexi_index_file *index = vexi_segment_index(segment);
    size_t most = f->count * (slots ? 2 : 2 * FIND_ROWS_MAX), used = 0;
    vexi_piece *ranges = vexi_arena_array(f->arena, most, sizeof *ranges);
    if (ranges == NULL) {
        return vexi_no_memory(err, most * sizeof *ranges);
    }
    for (size_t i = 0; i < f->count; i++) {
        uint64_t rows[FIND_ROWS_MAX];
        uint64_t hash = vexi_hash64(f->ids[i].data, f->ids[i].size);
        if (slots) {
            used += vexi_index_slot_ranges(index, hash, ranges + used);
        } else {
            size_t n = vexi_index_slot_rows(index, hash, rows, FIND_ROWS_MAX);
            used += vexi_index_row_ranges(index, rows, n, true, ranges + used);
        }
    }
    return vexi_step_index(&f->step, source, segment, ranges, used, err);
}

vex_status vexi_find_ahead(const vexi_view *view, const vex_string *ids, size_t count,
                           const vexi_env *env, vexi_read_cost *cost, vex_error *err) {
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    finding f = {.view = view, .ids = ids, .count = count, .arena = &arena};
    vex_status status = VEX_OK;
    vexi_step_init(&f.step, &arena);
    for (int round = 0; round < 3 && status == VEX_OK; round++) { /* slots, places, ids */
        size_t segments = 0;
        for (uint32_t i = 0; i < view->source_count && status == VEX_OK; i++) {
            const vexi_source *source = &view->sources[i];
            if (vexi_source_is_remote(source) && vexi_source_check(source, NULL) == VEX_OK) {
                status = source_note(&f, i, round == 0, err);
                segments++;
            }
        }
        uint32_t failed;
        if (segments == 0) {
            break;
        }
        if (status == VEX_OK) {
            status = vexi_step_run(&f.step, FIND_REQUESTS + FIND_MORE * (segments - 1), cost,
                                   &failed, err);
        }
    }
    vexi_step_deinit(&f.step);
    vexi_arena_deinit(&arena);
    return status == VEX_MEMORY ? status : VEX_OK;
}
