/* What a collection must hold, and a look at what it does hold.
 *
 * Rows come from a small set of ids. A row's content follows from its id and a version number, so
 * reading a row back tells which version is there, and any byte that is wrong fails the test. The
 * model keeps a state and the changes since; a change whose outcome is unknown may or may not have
 * happened, but as a whole, and changes keep their order. */
#ifndef VEX_TESTS_SIM_MODEL_H
#define VEX_TESTS_SIM_MODEL_H

#include "table/table.h"

enum {
    SIM_IDS = 200,
    SIM_DIMENSION_MAX = 16,
    SIM_CHANGES_MAX = 32, /* rows of one batch */
    SIM_STEPS_MAX = 4096,
    SIM_UNKNOWN_MAX = 12
};

/* Typed columns of every collection of these tests: `number` int64, `text` string. */
vexi_schema sim_schema(uint32_t dimension, vex_metric metric, vex_index_kind index);

/* A row; `row` points into the struct, which must not move. */
typedef struct sim_row {
    char id[24];
    float vector[SIM_DIMENSION_MAX];
    char attributes[96];
    char text[48];
    char *payload; /* malloc, or NULL */
    vexi_cell cells[2];
    vexi_row row;
} sim_row;

void sim_row_init(sim_row *row, uint32_t dimension, uint32_t id, uint32_t version);
void sim_row_deinit(sim_row *row);
/* "k007"; out holds 24 bytes. */
vex_string sim_id(uint32_t id, char out[24]);

/* Versions by id; 0: there is no such row. */
typedef struct sim_state {
    bool exists; /* the collection does */
    uint32_t version[SIM_IDS];
} sim_state;

typedef enum sim_kind { SIM_ROWS, SIM_CREATE, SIM_DROP } sim_kind;

typedef struct sim_change {
    uint32_t id;
    uint32_t version; /* 0: deleted */
} sim_change;

/* One call: done wholly or not at all. */
typedef struct sim_step {
    sim_kind kind;
    bool unknown;
    bool absent_too; /* fine where there is no collection: a delete that found nothing */
    size_t count;
    sim_change changes[SIM_CHANGES_MAX];
} sim_step;

/* False where the step cannot have been acknowledged in this state. */
bool sim_step_apply(sim_state *state, const sim_step *step);

typedef struct sim_model {
    sim_state base;
    sim_step steps[SIM_STEPS_MAX];
    size_t step_count;
    size_t unknown_count;
    uint32_t next_version;
} sim_model;

void sim_model_init(sim_model *model);
/* Take over a step that was answered: VEX_OK, VEX_UNKNOWN_OUTCOME, or refused (forgotten). */
void sim_model_add(sim_model *model, const sim_step *step, vex_status status);
/* The state if no unknown step happened. */
sim_state sim_model_newest(const sim_model *model);
/* Fails the test unless `seen` is a state that the steps allow. With `settle` the unknown steps are
 * decided by it from now on. `when` is printed. */
void sim_model_check(sim_model *model, const sim_state *seen, bool settle, const char *when);

/* Read all rows through a view; checks every byte of every row, that no id is live twice, and that
 * live_count agrees. */
vex_status sim_observe_view(vexi_view *view, sim_state *out, vex_error *err);
/* The same of a lake's collection; exists is false where there is none. */
vex_status sim_observe(vexi_lake *lake, vex_string name, sim_state *out, vex_error *err);

#endif
