/* Sample: random live rows of a view, without repetition.
 *
 * Positions are drawn over all sources by row count; hidden rows and repeated ones are drawn again.
 * Where live rows are so few that drawing would go on for long, all of them are listed and a random
 * part is taken (Fisher & Yates). Each live row is equally likely in both. */
#include "base/bitmap.h"
#include "base/guard.h"
#include "base/random.h"
#include "query/query.h"

/* Draws for a wanted row before listing is cheaper. */
enum { DRAWS_PER_ROW = 16 };

typedef struct sample {
    const vexi_view *view;
    uint64_t state; /* of the generator */
    uint64_t row_count;
    vexi_place *places;
    size_t count;
} sample;

static uint64_t draw(sample *s, uint64_t limit) {
    return vexi_random_next(&s->state) % limit; /* limit is far below 2^64: the bias is, too */
}

static bool is_live(const vexi_source *source, uint64_t row) {
    return source->hidden == NULL || !vexi_bitmap_get(source->hidden, row);
}

/* The place of a position counted over all sources. */
static vexi_place place_of(const vexi_view *view, uint64_t position) {
    uint32_t i = 0;
    while (position >= view->sources[i].row_count) {
        position -= view->sources[i++].row_count;
    }
    return (vexi_place){.source = i, .row = position};
}

/* Draw into an open-addressing set of positions, so that none comes twice. False: gave up. */
static bool draw_places(sample *s, size_t wanted, uint64_t *slots, size_t slot_count) {
    for (size_t draws = 0; s->count < wanted && draws < wanted * DRAWS_PER_ROW; draws++) {
        uint64_t position = draw(s, s->row_count);
        size_t slot = (size_t)((position * VEXI_RANDOM_STEP) >> 32) & (slot_count - 1);
        while (slots[slot] != 0 && slots[slot] != position + 1) {
            slot = (slot + 1) & (slot_count - 1);
        }
        vexi_place place = place_of(s->view, position);
        if (slots[slot] == 0 && is_live(&s->view->sources[place.source], place.row)) {
            slots[slot] = position + 1;
            s->places[s->count++] = place;
        }
    }
    return s->count == wanted;
}

/* All live rows, of which a random `wanted` come first. places: live_count. */
static void list_places(sample *s, size_t wanted) {
    s->count = 0;
    for (uint32_t i = 0; i < s->view->source_count; i++) {
        for (uint64_t row = 0; row < s->view->sources[i].row_count; row++) {
            if (is_live(&s->view->sources[i], row) && s->count < s->view->live_count) {
                s->places[s->count++] = (vexi_place){.source = i, .row = row};
            }
        }
    }
    wanted = wanted < s->count ? wanted : s->count;
    for (size_t i = 0; i < wanted; i++) {
        size_t other = i + (size_t)draw(s, s->count - i);
        vexi_place place = s->places[i];
        s->places[i] = s->places[other];
        s->places[other] = place;
    }
    s->count = wanted;
}

typedef struct id_job {
    const vexi_view *view;
    vexi_place place;
    char bytes[VEX_ID_SIZE_MAX];
    size_t size;
} id_job;

static vex_status id_run(void *argument, vex_error *err) {
    id_job *job = argument;
    vex_string id;
    VEX_TRY(vexi_source_id(&job->view->sources[job->place.source], job->place.row, &id, err));
    memcpy(job->bytes, id.data, id.size);
    job->size = id.size;
    return VEX_OK;
}

static vex_status ids_of(const sample *s, vexi_arena *arena, vex_string *ids, vex_error *err) {
    for (size_t i = 0; i < s->count; i++) {
        id_job job = {.view = s->view, .place = s->places[i]};
        const char *name = vexi_source_name(&s->view->sources[job.place.source]);
        VEX_TRY(vexi_guard_run(id_run, &job, name, err));
        ids[i] =
            (vex_string){.data = vexi_arena_copy(arena, job.bytes, job.size), .size = job.size};
        if (ids[i].data == NULL) {
            return vexi_no_memory(err, job.size);
        }
    }
    return VEX_OK;
}

vex_status vexi_sample(vexi_keeper *keeper, vexi_view *view, size_t count, uint64_t seed,
                       const vexi_asked *asked, struct ArrowSchema *schema,
                       struct ArrowArray *batch, vex_error *err) {
    *batch = (struct ArrowArray){0};
    vexi_arena arena;
    vex_status status = VEX_OK;
    sample s = {.view = view, .state = seed};
    for (size_t i = 0; i < view->source_count; i++) {
        s.row_count += view->sources[i].row_count;
    }
    size_t wanted = count < view->live_count ? count : (size_t)view->live_count;
    size_t slot_count = 16;
    while (slot_count < 2 * wanted) {
        slot_count *= 2;
    }
    vexi_arena_init(&arena, keeper->env);
    uint64_t *slots = vexi_arena_calloc(&arena, slot_count, sizeof *slots);
    vex_string *ids = vexi_arena_array(&arena, wanted + 1, sizeof *ids);
    s.places = vexi_arena_array(&arena, wanted + 1, sizeof *s.places);
    if (slots == NULL || ids == NULL || s.places == NULL) {
        status = vexi_no_memory(err, slot_count * sizeof *slots);
        goto done;
    }
    if (wanted > 0 &&
        (wanted > view->live_count / 2 || !draw_places(&s, wanted, slots, slot_count))) {
        s.places = vexi_arena_array(&arena, (size_t)view->live_count, sizeof *s.places);
        if (s.places == NULL) {
            status = vexi_no_memory(err, (size_t)view->live_count * sizeof *s.places);
            goto done;
        }
        list_places(&s, wanted);
    }
    VEX_TRY_GOTO(status, done, ids_of(&s, &arena, ids, err));
    status = vexi_get(keeper, view, ids, s.count, asked, schema, batch, err);
done:
    vexi_arena_deinit(&arena);
    return status;
}
