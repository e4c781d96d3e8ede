/* Steps: what several segments need next, in one go.
 *
 * Where the store is a server, what a search waits for is not how much it reads but how often it
 * has to know one answer before it can ask the next question. So whoever knows what it will read of
 * several segments, of index and data files, notes all of it here and has it fetched together.
 *
 * Blocks of index files are checked and put in their place before anybody sees them; one that does
 * not match its checksum is fetched once more, since a network may have done it. What the bytes of
 * data files are, and so how they are checked, the caller knows. */
#include "table/segment_internal.h"

enum { FETCH_TRY_MAX = 2 };

typedef struct vexi_step_need {
    vexi_segment *segment;
    uint32_t source;
    bool is_index;
    vexi_piece *pieces;
    size_t count;
} step_need;

void vexi_step_init(vexi_step *step, vexi_arena *arena) {
    *step = (vexi_step){.arena = arena};
}

void vexi_step_deinit(vexi_step *step) {
    vexi_free(step->arena->env, step->needs);
    step->needs = NULL;
    step->count = step->capacity = 0;
}

static vex_status add(vexi_step *step, step_need need, vex_error *err) {
    if (need.count == 0) {
        return VEX_OK;
    }
    void *needs = step->needs;
    VEX_TRY(vexi_grow(step->arena->env, &needs, &step->capacity, step->count, step->count + 1,
                      sizeof need, err));
    step->needs = needs;
    step->needs[step->count++] = need;
    return VEX_OK;
}

/* What the index file says, as it is told of reading it place by place. */
static vex_status index_says(vexi_segment *segment, vex_status status, vex_error *err) {
    if (status == VEX_CORRUPT) {
        __atomic_store_n(&segment->index_damaged, 1, __ATOMIC_RELAXED);
    }
    return status == VEX_OK ? status : vexi_prefix(err, status, "%s", segment->index_object.name);
}

vex_status vexi_step_index(vexi_step *step, uint32_t source, vexi_segment *segment,
                           const vexi_piece *ranges, size_t count, vex_error *err) {
    step_need need = {.segment = segment, .source = source, .is_index = true};
    VEX_TRY(index_says(segment,
                       vexi_index_missing(&segment->index, ranges, count, step->arena, &need.pieces,
                                          &need.count, err),
                       err));
    return add(step, need, err);
}

vex_status vexi_step_data(vexi_step *step, uint32_t source, vexi_segment *segment,
                          vexi_piece *pieces, size_t count, vex_error *err) {
    return add(step,
               (step_need){.segment = segment, .source = source, .pieces = pieces, .count = count},
               err);
}

/* Fetch what is noted; index blocks that do not match stay noted, and *damage tells of the first.
 */
static vex_status run_once(vexi_step *step, size_t request_max, vexi_read_cost *cost,
                           uint32_t *failed, vex_status *damage, vex_error *err) {
    vexi_object_need *needs = vexi_arena_array(step->arena, step->count, sizeof *needs);
    if (needs == NULL) {
        return vexi_no_memory(err, step->count * sizeof *needs);
    }
    for (size_t i = 0; i < step->count; i++) {
        const step_need *need = &step->needs[i];
        needs[i] = (vexi_object_need){.object = need->is_index ? &need->segment->index_object
                                                               : &need->segment->data,
                                      .pieces = need->pieces,
                                      .count = need->count};
    }
    size_t at = 0;
    vex_status status =
        vexi_objects_fetch(needs, step->count, request_max, step->arena, cost, &at, err);
    if (status != VEX_OK) {
        *failed = step->needs[at].source;
        return status;
    }
    size_t kept = 0;
    *damage = VEX_OK;
    for (size_t i = 0; i < step->count; i++) {
        step_need *need = &step->needs[i];
        if (!need->is_index) {
            continue;
        }
        bool first = *damage == VEX_OK;
        status =
            vexi_index_place(&need->segment->index, need->pieces, need->count, first ? err : NULL);
        if (status != VEX_OK) {
            if (first) {
                *damage = status;
                *failed = need->source;
            }
            vexi_store_distrust(need->segment->core->store, need->segment->index_object.name);
            step->needs[kept++] = *need;
        }
    }
    step->count = kept;
    return VEX_OK;
}

vex_status vexi_step_run(vexi_step *step, size_t request_max, vexi_read_cost *cost,
                         uint32_t *failed, vex_error *err) {
    vex_status status = VEX_OK;
    vex_status damage = VEX_OK;
    for (int try = 0; try < FETCH_TRY_MAX && status == VEX_OK && step->count > 0; try++) {
        status = run_once(step, request_max, cost, failed, &damage, err);
    }
    if (status == VEX_OK && damage != VEX_OK) {
        status = index_says(step->needs[0].segment, damage, err);
    }
    step->count = 0;
    return status;
}
