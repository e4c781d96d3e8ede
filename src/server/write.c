/* VSET and VDEL: the writes of all clients, gathered.
 *
 * A write waits for a sync of the log, so what counts is how many writes share one. Runs that are
 * ready in the same turn of the loop, or that arrive while as many jobs on their collection are
 * under way as may be, become one job, hence one call of the engine. Two jobs at a time let one
 * prepare its rows while the other waits for the disk. Where the log is objects in a bucket, the
 * engine itself waits for writes to share one, for tens of milliseconds: a job that has not reached
 * it by then waits for the next, so more of them may be under way, each a thread that sleeps.
 *
 * Each command keeps its own answer: if a put fails at a row, the rows before it are put, that row
 * gets its error by a put of its own, and the rest goes on. Within a client order is kept because a
 * client has one write run under way; between clients there is none to keep. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "base/utf8.h"
#include "server/arguments.h"
#include "server/server_internal.h"

#define JOBS_MAX        2u
#define JOBS_MAX_REMOTE 16u
#define JOB_RUNS_MAX    4096u
#define JOB_SIZE_MAX    (32u << 20)

typedef struct write_job {
    vexi_job job;
    vexi_server *server;
    vexi_write_queue *queue; /* the loop's */
    vexi_run *runs;          /* by queue_next */
} write_job;

/* ---- On the loop ----------------------------------------------------------------------------- */

static void refuse_job(vexi_job *job) {
    vexi_run *run = (vexi_run *)job;
    for (uint32_t i = 0; i < run->count; i++) {
        vexi_resp_error(&run->reply, "ERR out of memory");
    }
    run->error_count = run->count;
}

void vexi_write_enqueue(vexi_server *server, vex_string collection, vexi_run *run) {
    vexi_write_queue *queue = server->write_queues;
    while (queue != NULL &&
           !vexi_string_equal((vex_string){.data = queue->name, .size = queue->name_size},
                              collection)) {
        queue = queue->next;
    }
    if (queue == NULL) {
        queue = vexi_calloc(server->env, 1, sizeof *queue);
        if (queue == NULL) {
            run->job.run = refuse_job;
            vexi_pool_submit(server->pool, VEXI_LANE_WRITE, &run->job);
            return;
        }
        queue->name_size = (uint32_t)collection.size;
        memcpy(queue->name, collection.data, collection.size);
        queue->next = server->write_queues;
        server->write_queues = queue;
    }
    if (queue->last == NULL) {
        queue->first = run;
    } else {
        queue->last->queue_next = run;
    }
    queue->last = run;
}

static vex_string queue_name(const vexi_write_queue *queue) {
    return (vex_string){.data = queue->name, .size = queue->name_size};
}

static void on_write_done(vexi_job *job) {
    write_job *done = (write_job *)job;
    vexi_server *server = done->server;
    done->queue->active_count--;
    vexi_search_changed(server, queue_name(done->queue));
    vexi_run *run = done->runs;
    vexi_free(server->env, done);
    while (run != NULL) {
        vexi_run *next = run->queue_next;
        vexi_run_finish(run);
        run = next;
    }
}

static void write_job_run(vexi_job *job);

/* Make a job of the runs at the queue's head that are of one command. */
static bool send_off(vexi_server *server, vexi_write_queue *queue) {
    write_job *job = vexi_calloc(server->env, 1, sizeof *job);
    if (job == NULL) {
        return false;
    }
    job->job.run = write_job_run;
    job->job.done = on_write_done;
    job->server = server;
    job->queue = queue;
    job->runs = queue->first;
    vexi_run *last = queue->first;
    size_t size = last->size_bytes;
    for (uint32_t count = 1; last->queue_next != NULL && count < JOB_RUNS_MAX; count++) {
        vexi_run *next = last->queue_next;
        if (next->command != last->command || size + next->size_bytes > JOB_SIZE_MAX) {
            break;
        }
        size += next->size_bytes;
        last = next;
    }
    queue->first = last->queue_next;
    last->queue_next = NULL;
    if (queue->first == NULL) {
        queue->last = NULL;
    }
    queue->active_count++;
    vexi_search_changed(server, queue_name(queue));
    vexi_pool_submit(server->pool, VEXI_LANE_WRITE, &job->job);
    return true;
}

void vexi_write_dispatch(vexi_server *server) {
    const uint32_t job_max = server->lake_is_remote ? JOBS_MAX_REMOTE : JOBS_MAX;
    vexi_write_queue **link = &server->write_queues;
    while (*link != NULL) {
        vexi_write_queue *queue = *link;
        while (queue->first != NULL && queue->active_count < job_max) {
            if (!send_off(server, queue)) {
                return; /* no memory: the next turn tries again */
            }
        }
        if (queue->first == NULL && queue->active_count == 0) {
            *link = queue->next;
            vexi_free(server->env, queue);
        } else {
            link = &queue->next;
        }
    }
}

/* ---- On a worker ----------------------------------------------------------------------------- */

/* What became of one VSET. */
typedef struct put_outcome {
    vex_status status;
    bool explain; /* a blob that begins like text */
    vex_error *error;
} put_outcome;

typedef struct put_state {
    vexi_server *server;
    vexi_arena *arena;
    vex_string collection;
    vex_row *rows;          /* those that could be read */
    put_outcome **outcomes; /* of each row */
    size_t count;
    bool create_tried;
} put_state;

void vexi_explain_blob(vex_error *err) {
    size_t used = strlen(err->message);
    static const char note[] = " (the vector begins with [ but is no text: it lacks the ] at its "
                               "end or holds other bytes, so it was read as a blob)";
    if (used + sizeof note <= sizeof err->message) {
        memcpy(err->message + used, note, sizeof note);
    }
}

static void set_outcome(put_state *state, put_outcome *outcome, vex_status status,
                        const vex_error *err) {
    outcome->status = status;
    if (status == VEX_OK) {
        return;
    }
    outcome->error = vexi_arena_alloc(state->arena, sizeof *outcome->error);
    if (outcome->error != NULL) {
        *outcome->error = *err;
        if (status == VEX_INVALID && outcome->explain) {
            vexi_explain_blob(outcome->error);
        }
    }
}

/* The checks that decide whether a row may make the collection `default`: the engine cannot be
 * asked before there is one. */
static vex_status check_first_row(const vex_row *row, vex_error *err) {
    if (row->id.size == 0 || row->id.size > VEX_ID_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "an id is 1 to %u bytes, not %zu", VEX_ID_SIZE_MAX,
                         row->id.size);
    }
    if (!vexi_utf8_valid(row->id.data, row->id.size)) {
        return vexi_fail(err, VEX_INVALID, "the id is not UTF-8");
    }
    for (uint32_t i = 0; i < row->dimension; i++) {
        if (!isfinite(row->vector[i])) {
            return vexi_fail(err, VEX_INVALID, "value %u of the vector is not finite", i);
        }
    }
    if (row->payload.size > VEX_PAYLOAD_SIZE_MAX) {
        return vexi_fail(err, VEX_INVALID, "the payload has %zu bytes, more than %u",
                         row->payload.size, VEX_PAYLOAD_SIZE_MAX);
    }
    if (row->attributes.data != NULL) {
        if (row->attributes.size > VEX_ATTRIBUTES_SIZE_MAX) {
            return vexi_fail(err, VEX_INVALID, "the attributes have %zu bytes, more than %u",
                             row->attributes.size, VEX_ATTRIBUTES_SIZE_MAX);
        }
        json_error_t json_error;
        json_t *json =
            json_loadb(row->attributes.data, row->attributes.size, JSON_ALLOW_NUL, &json_error);
        bool object = json_is_object(json);
        json_decref(json);
        if (!object) {
            return vexi_fail(err, VEX_INVALID, "the attributes are not a JSON object%s%s",
                             json == NULL ? ": " : "", json == NULL ? json_error.text : "");
        }
    }
    return VEX_OK;
}

/* Make the collection for the first good row. VEX_OK also if another was faster. */
static vex_status create_default(put_state *state, size_t start, vex_error *err) {
    for (size_t i = start; i < state->count; i++) {
        vex_status status = check_first_row(&state->rows[i], err);
        if (status != VEX_OK) {
            set_outcome(state, state->outcomes[i], status, err);
            continue;
        }
        vex_collection_options options = {.size = sizeof options,
                                          .dimension = state->rows[i].dimension,
                                          .metric = VEX_METRIC_L2,
                                          .index = VEX_INDEX_AUTO};
        status = vex_collection_create(state->server->lake, state->collection, &options, err);
        return status == VEX_EXISTS ? VEX_OK : status;
    }
    return vexi_fail(err, VEX_NOT_FOUND, "no row can make the collection");
}

static vex_status put(put_state *state, size_t start, size_t count, vex_error *err) {
    err->row = -1;
    vex_status status =
        vex_put_rows(state->server->lake, state->collection, state->rows + start, count, err);
    if (status == VEX_NOT_FOUND && !state->create_tried &&
        vexi_string_is(state->collection, "default")) {
        state->create_tried = true;
        vex_error create_error;
        vex_status created = create_default(state, start, &create_error);
        if (created == VEX_OK) {
            err->row = -1;
            status = vex_put_rows(state->server->lake, state->collection, state->rows + start,
                                  count, err);
        } else if (created != VEX_NOT_FOUND) {
            *err = create_error;
            status = created;
        } else {
            /* No row is good: each has its own error already. */
            return VEX_NOT_FOUND;
        }
    }
    return status;
}

static void put_all(put_state *state) {
    size_t start = 0;
    while (start < state->count) {
        vex_error err;
        size_t left = state->count - start;
        vex_status status = put(state, start, left, &err);
        if (status == VEX_OK) {
            return;
        }
        bool of_row = err.row >= 0 && (uint64_t)err.row < left;
        if (status == VEX_NOT_FOUND || left == 1 || (!of_row && status != VEX_INVALID)) {
            for (size_t i = start; i < state->count; i++) {
                if (state->outcomes[i]->status == VEX_OK) {
                    set_outcome(state, state->outcomes[i], status, &err);
                }
            }
            return;
        }
        size_t good = of_row ? (size_t)err.row : 0;
        if (good > 0) {
            status = put(state, start, good, &err);
            for (size_t i = start; status != VEX_OK && i < start + good; i++) {
                set_outcome(state, state->outcomes[i], status, &err);
            }
        }
        /* Alone, so that the message does not count rows of other commands. */
        status = put(state, start + good, 1, &err);
        set_outcome(state, state->outcomes[start + good], status, &err);
        start += good + 1;
    }
}

static void put_run(write_job *job) {
    vexi_server *server = job->server;
    vexi_arena arena;
    vexi_arena_init(&arena, server->env);
    size_t total = 0;
    for (vexi_run *run = job->runs; run != NULL; run = run->queue_next) {
        total += run->count;
    }
    put_state state = {.server = server, .arena = &arena};
    state.rows = vexi_arena_array(&arena, total, sizeof *state.rows);
    state.outcomes = vexi_arena_array(&arena, total, sizeof *state.outcomes);
    put_outcome *outcomes = vexi_arena_calloc(&arena, total, sizeof *outcomes);
    size_t n = 0;
    bool memory = state.rows != NULL && state.outcomes != NULL && outcomes != NULL;
    for (vexi_run *run = job->runs; memory && run != NULL; run = run->queue_next) {
        for (uint32_t i = 0; i < run->count; i++) {
            put_outcome *outcome = &outcomes[n++];
            uint32_t count;
            const vex_string *arguments = vexi_run_arguments(run, i, &count);
            vexi_set_arguments parsed;
            vex_error err;
            vex_row *row = &state.rows[state.count];
            *row = (vex_row){0};
            vex_status status = vexi_parse_set(arguments, count, &parsed, &err);
            if (status == VEX_OK) {
                status =
                    vexi_parse_vector(parsed.vector, &arena, &row->vector, &row->dimension, &err);
            }
            if (status != VEX_OK) {
                set_outcome(&state, outcome, status, &err);
                continue;
            }
            outcome->explain = parsed.vector.data[0] == '[' && !vexi_vector_is_text(parsed.vector);
            row->id = parsed.id;
            row->attributes = parsed.attributes;
            row->payload = parsed.payload;
            state.collection = parsed.collection;
            state.outcomes[state.count++] = outcome;
        }
    }
    if (memory) {
        put_all(&state);
    }
    n = 0;
    uint64_t stored = 0;
    for (vexi_run *run = job->runs; run != NULL; run = run->queue_next) {
        for (uint32_t i = 0; i < run->count; i++) {
            const put_outcome *outcome = memory ? &outcomes[n++] : NULL;
            if (outcome == NULL || (outcome->status != VEX_OK && outcome->error == NULL)) {
                vexi_resp_error(&run->reply, "ERR out of memory");
                run->error_count++;
            } else if (outcome->status == VEX_OK) {
                vexi_buffer_append(&run->reply, "+OK\r\n", 5);
                stored++;
            } else {
                vexi_run_error(run, outcome->error);
            }
        }
    }
    vexi_metric_add_shared(&server->metrics.rows_written, stored);
    vexi_arena_deinit(&arena);
}

/* One VDEL alone. */
static void delete_one(vexi_run *run, uint32_t i, vexi_arena *arena) {
    vex_string collection;
    vex_error err;
    uint32_t count;
    const vex_string *arguments = vexi_run_arguments(run, i, &count);
    vex_status status = vexi_take_collection(arguments, &count, &collection, &err);
    if (status == VEX_OK && count == 0) {
        status = vexi_fail(&err, VEX_INVALID, "wrong number of arguments for 'vdel' command");
    }
    uint8_t *existed = vexi_arena_calloc(arena, count, 1);
    if (status == VEX_OK && existed == NULL) {
        status = vexi_no_memory(&err, count);
    }
    if (status == VEX_OK) {
        status = vex_delete(run->server->lake, collection, arguments, count, existed, &err);
    }
    if (status != VEX_OK) {
        vexi_run_error(run, &err);
        return;
    }
    int64_t found = 0;
    for (uint32_t j = 0; j < count; j++) {
        found += existed[j] != 0 ? 1 : 0;
    }
    vexi_resp_integer(&run->reply, found);
}

/* All VDELs of the job by one call; false if it failed. */
static bool delete_together(write_job *job, vexi_arena *arena) {
    size_t total = 0;
    vex_string collection = {0};
    for (vexi_run *run = job->runs; run != NULL; run = run->queue_next) {
        for (uint32_t i = 0; i < run->count; i++) {
            vex_error err;
            uint32_t count;
            const vex_string *arguments = vexi_run_arguments(run, i, &count);
            if (vexi_take_collection(arguments, &count, &collection, &err) != VEX_OK ||
                count == 0) {
                return false;
            }
            total += count;
        }
    }
    vex_string *ids = vexi_arena_array(arena, total, sizeof *ids);
    uint8_t *existed = vexi_arena_calloc(arena, total, 1);
    if (ids == NULL || existed == NULL) {
        return false;
    }
    vex_error err;
    size_t n = 0;
    for (vexi_run *run = job->runs; run != NULL; run = run->queue_next) {
        for (uint32_t i = 0; i < run->count; i++) {
            uint32_t count;
            const vex_string *arguments = vexi_run_arguments(run, i, &count);
            if (vexi_take_collection(arguments, &count, &collection, &err) != VEX_OK) {
                return false;
            }
            memcpy(ids + n, arguments, count * sizeof *ids);
            n += count;
        }
    }
    if (vex_delete(job->server->lake, collection, ids, total, existed, &err) != VEX_OK) {
        return false;
    }
    n = 0;
    for (vexi_run *run = job->runs; run != NULL; run = run->queue_next) {
        for (uint32_t i = 0; i < run->count; i++) {
            uint32_t count;
            const vex_string *arguments = vexi_run_arguments(run, i, &count);
            (void)vexi_take_collection(arguments, &count, &collection, &err);
            int64_t found = 0;
            for (uint32_t j = 0; j < count; j++) {
                found += existed[n++] != 0 ? 1 : 0;
            }
            vexi_resp_integer(&run->reply, found);
        }
    }
    return true;
}

static void delete_run(write_job *job) {
    vexi_arena arena;
    vexi_arena_init(&arena, job->server->env);
    bool several = job->runs->queue_next != NULL || job->runs->count > 1;
    if (!several || !delete_together(job, &arena)) {
        for (vexi_run *run = job->runs; run != NULL; run = run->queue_next) {
            for (uint32_t i = 0; i < run->count; i++) {
                delete_one(run, i, &arena);
            }
        }
    }
    vexi_arena_deinit(&arena);
}

static void write_job_run(vexi_job *job) {
    write_job *work = (write_job *)job;
    if (work->runs->command->kind == VEXI_KIND_PUT) {
        put_run(work);
    } else {
        delete_run(work);
    }
}
