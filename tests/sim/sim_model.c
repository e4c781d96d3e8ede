#include "sim/sim_model.h"

#include "base/bitmap.h"
#include "check.h"

static const vexi_schema_column sim_columns[2] = {
    {.name = {.data = "number", .size = 6}, .type = VEX_TYPE_INT64},
    {.name = {.data = "text", .size = 4}, .type = VEX_TYPE_STRING}};

vexi_schema sim_schema(uint32_t dimension, vex_metric metric, vex_index_kind index) {
    CHECK(dimension <= SIM_DIMENSION_MAX);
    return (vexi_schema){.dimension = dimension,
                         .metric = metric,
                         .index = index,
                         .column_count = 2,
                         .columns = sim_columns};
}

/* ---- Rows ------------------------------------------------------------------------------------ */

vex_string sim_id(uint32_t id, char out[24]) {
    int size = snprintf(out, 24, "k%03u", id);
    return (vex_string){.data = out, .size = (size_t)size};
}

static size_t payload_size(uint32_t version) {
    return version % 29 == 0 ? 20000 : version * 37u % 300u;
}

void sim_row_init(sim_row *row, uint32_t dimension, uint32_t id, uint32_t version) {
    memset(row, 0, sizeof *row);
    uint64_t state = (uint64_t)id << 32 | version;
    for (uint32_t i = 0; i < dimension; i++) {
        row->vector[i] = vex_test_normal(&state);
    }
    int attributes_size = snprintf(row->attributes, sizeof row->attributes,
                                   "{ \"v\":%u,\"id\" : \"k%03u\"}", version, id);
    int text_size = snprintf(row->text, sizeof row->text, "text of %u", version);
    row->row = (vexi_row){.id = sim_id(id, row->id), .vector = row->vector, .cells = row->cells};
    row->row.attributes = (vex_string){row->attributes, (size_t)attributes_size};
    if (version % 4 != 0) {
        size_t size = payload_size(version);
        row->payload = malloc(size + 1);
        CHECK(row->payload != NULL);
        for (size_t i = 0; i < size; i++) {
            row->payload[i] = (char)(vex_test_random(&state) >> 40);
        }
        row->row.payload = (vex_string){row->payload, size};
    }
    row->cells[0] = (vexi_cell){.as.int64 = (int64_t)version * 1000 + id};
    row->cells[1] = (vexi_cell){.is_null = version % 3 == 0};
    if (version % 3 != 0) {
        row->cells[1].as.string = (vex_string){row->text, (size_t)text_size};
    }
}

void sim_row_deinit(sim_row *row) {
    free(row->payload);
    row->payload = NULL;
}

static bool string_cell_equal(const vexi_cell *cell, vex_string expected) {
    return cell->is_null ? expected.data == NULL
                         : expected.data != NULL && vexi_string_equal(cell->as.string, expected);
}

/* Compare a row that was read with what its id and version stand for; any wrong byte ends the test.
 * cells: attributes, payload, number, text, `stride` apart. */
static uint32_t check_row(const vexi_schema *schema, uint32_t id, const uint8_t *vector,
                          const vexi_cell *cells, size_t stride) {
    const vexi_cell *number = &cells[2 * stride];
    CHECK(!number->is_null);
    uint32_t version = (uint32_t)(number->as.int64 / 1000);
    CHECK(version != 0);
    sim_row expected;
    sim_row_init(&expected, schema->dimension, id, version);
    CHECK_EQ(number->as.int64, expected.cells[0].as.int64);
    CHECK(memcmp(vector, expected.vector, schema->dimension * sizeof(float)) == 0);
    CHECK(string_cell_equal(&cells[0], expected.row.attributes));
    CHECK(string_cell_equal(&cells[stride], expected.row.payload));
    CHECK(string_cell_equal(&cells[3 * stride], expected.cells[1].is_null
                                                    ? (vex_string){.data = NULL}
                                                    : expected.cells[1].as.string));
    sim_row_deinit(&expected);
    return version;
}

static uint32_t id_number(vex_string id) {
    uint32_t number = 0;
    CHECK(id.size == 4 && id.data[0] == 'k');
    for (size_t i = 1; i < id.size; i++) {
        number = number * 10 + (uint32_t)(id.data[i] - '0');
    }
    CHECK(number < SIM_IDS);
    return number;
}

/* Read the live rows of one source: a row that is live is the one that its id finds. */
static vex_status observe_source(const vexi_view *view, uint32_t source, const uint32_t *sources,
                                 const uint64_t *positions, vexi_arena *arena, sim_state *out,
                                 uint64_t *live_count, vex_error *err) {
    const vexi_source *from = &view->sources[source];
    uint64_t rows[SIM_IDS];
    uint32_t numbers[SIM_IDS];
    vexi_row_range ranges[SIM_IDS];
    size_t count = 0;
    uint64_t hidden_count = 0;
    for (uint64_t row = 0; row < from->row_count; row++) {
        if (from->hidden != NULL && vexi_bitmap_get(from->hidden, row)) {
            hidden_count++;
            continue;
        }
        vex_string id;
        VEX_TRY(vexi_source_id(from, row, &id, err));
        CHECK(count < SIM_IDS);
        numbers[count] = id_number(id);
        CHECK_EQ(sources[numbers[count]], source);
        CHECK_EQ(positions[numbers[count]], row);
        ranges[count] = (vexi_row_range){.first_row = row, .count = 1};
        rows[count++] = row;
    }
    CHECK_EQ(hidden_count, from->hidden_count);
    static const uint32_t columns[4] = {VEXI_COLUMN_ATTRIBUTES, VEXI_COLUMN_PAYLOAD,
                                        VEXI_COLUMN_TYPED, VEXI_COLUMN_TYPED + 1};
    vexi_cell cells[4 * SIM_IDS];
    vexi_run *runs = NULL;
    size_t run_count = 0;
    if (count > 0) {
        VEX_TRY(vexi_source_cells(from, view->schema, columns, 4, rows, count, arena, cells, NULL,
                                  NULL, err));
        VEX_TRY(vexi_source_runs(from, ranges, count, arena, &runs, &run_count, NULL, err));
    }
    CHECK_EQ(run_count, count);
    for (size_t i = 0; i < count; i++) {
        CHECK_EQ(runs[i].first_row, rows[i]);
        out->version[numbers[i]] =
            check_row(view->schema, numbers[i], runs[i].vectors, &cells[i], count);
    }
    *live_count += count;
    return VEX_OK;
}

vex_status sim_observe_view(vexi_view *view, sim_state *out, vex_error *err) {
    *out = (sim_state){.exists = true};
    uint32_t sources[SIM_IDS];
    uint64_t positions[SIM_IDS];
    uint64_t found_count = 0;
    for (uint32_t i = 0; i < SIM_IDS; i++) {
        char text[24];
        bool found;
        sources[i] = UINT32_MAX;
        VEX_TRY(vexi_view_find(view, sim_id(i, text), &found, &sources[i], &positions[i], err));
        found_count += found ? 1 : 0;
    }
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    uint64_t live_count = 0;
    vex_status status = VEX_OK;
    for (uint32_t s = 0; s < view->source_count && status == VEX_OK; s++) {
        status = observe_source(view, s, sources, positions, &arena, out, &live_count, err);
    }
    vexi_arena_deinit(&arena);
    if (status == VEX_OK) {
        CHECK_EQ(live_count, found_count);
        CHECK_EQ(live_count, view->live_count);
    }
    return status;
}

vex_status sim_observe(vexi_lake *lake, vex_string name, sim_state *out, vex_error *err) {
    *out = (sim_state){.exists = false};
    vexi_table *table;
    vexi_view *view = NULL;
    vex_status status = vexi_lake_table(lake, name, &table, err);
    if (status == VEX_NOT_FOUND) {
        return VEX_OK;
    }
    VEX_TRY(status);
    status = vexi_table_view(table, &view, err);
    if (status == VEX_OK) {
        status = sim_observe_view(view, out, err);
    }
    vexi_view_release(view);
    vexi_table_release(table);
    return status;
}

/* ---- The model ------------------------------------------------------------------------------- */

void sim_model_init(sim_model *model) {
    memset(model, 0, sizeof *model);
    model->next_version = 1;
}

bool sim_step_apply(sim_state *state, const sim_step *step) {
    switch (step->kind) {
    case SIM_CREATE:
        if (state->exists) {
            return false;
        }
        *state = (sim_state){.exists = true};
        return true;
    case SIM_DROP:
        if (!state->exists) {
            return false;
        }
        *state = (sim_state){.exists = false};
        return true;
    default:
        if (!state->exists) {
            return step->absent_too;
        }
        for (size_t i = 0; i < step->count; i++) {
            state->version[step->changes[i].id] = step->changes[i].version;
        }
        return true;
    }
}

void sim_model_add(sim_model *model, const sim_step *step, vex_status status) {
    if (status != VEX_OK && status != VEX_UNKNOWN_OUTCOME) {
        return;
    }
    bool unknown = status == VEX_UNKNOWN_OUTCOME;
    if (!unknown && model->unknown_count == 0) {
        CHECK(sim_step_apply(&model->base, step));
        return;
    }
    CHECK(model->step_count < SIM_STEPS_MAX && model->unknown_count < SIM_UNKNOWN_MAX);
    model->steps[model->step_count] = *step;
    model->steps[model->step_count++].unknown = unknown;
    model->unknown_count += unknown ? 1 : 0;
}

/* The state if of the unknown steps those in `chosen` happened, bit by bit. */
static bool state_of(const sim_model *model, uint64_t chosen, sim_state *out) {
    *out = model->base;
    for (size_t i = 0; i < model->step_count; i++) {
        const sim_step *step = &model->steps[i];
        bool skip = step->unknown && (chosen & 1u) == 0;
        chosen >>= step->unknown ? 1 : 0;
        if (!skip && !sim_step_apply(out, step) && !step->unknown) {
            return false;
        }
    }
    return true;
}

sim_state sim_model_newest(const sim_model *model) {
    sim_state state;
    for (uint64_t chosen = 0; chosen < (uint64_t)1 << model->unknown_count; chosen++) {
        if (state_of(model, chosen, &state)) {
            return state;
        }
    }
    bool answers_agree = false;
    CHECK(answers_agree);
    return state;
}

static bool state_equal(const sim_state *a, const sim_state *b) {
    return a->exists == b->exists && memcmp(a->version, b->version, sizeof a->version) == 0;
}

static void state_print(const char *name, const sim_state *state) {
    fprintf(stderr, "  %-10s%s", name, state->exists ? "" : "absent");
    for (uint32_t i = 0; i < SIM_IDS; i++) {
        if (state->version[i] != 0) {
            fprintf(stderr, " k%03u:%u", i, state->version[i]);
        }
    }
    fprintf(stderr, "\n");
}

void sim_model_check(sim_model *model, const sim_state *seen, bool settle, const char *when) {
    bool allowed = false;
    sim_state state;
    for (uint64_t chosen = 0; chosen < (uint64_t)1 << model->unknown_count && !allowed; chosen++) {
        allowed = state_of(model, chosen, &state) && state_equal(&state, seen);
    }
    if (!allowed) {
        fprintf(stderr, "%s: the collection is in no state that was acknowledged\n", when);
        state_print("seen", seen);
        int printed = 0;
        for (uint64_t chosen = 0; chosen < (uint64_t)1 << model->unknown_count; chosen++) {
            if (state_of(model, chosen, &state) && printed++ < 4) {
                state_print("allowed", &state);
            }
        }
        exit(1);
    }
    if (settle) {
        model->base = *seen;
        model->step_count = 0;
        model->unknown_count = 0;
    }
}
