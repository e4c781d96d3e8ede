/* VGET: first from memory on the loop, else on a worker.
 *
 * Neighbouring VGETs of a pipeline that differ only in their ids are answered by one vex_get. If
 * that fails each is asked for alone, so that each gets its own answer. How many are merged depends
 * on how large the client's last rows were: replies of large payloads must not pile up. */
#include <string.h>

#include "server/arguments.h"
#include "server/rows.h"
#include "server/server_internal.h"

#define LOOP_IDS_MAX  256u         /* ids that one try on the loop asks for */
#define LOOP_COST_MAX (256u << 10) /* bytes that the loop writes at once */
#define JOB_IDS_MAX   4096u        /* ids of commands that a worker merges */
#define JOB_COST_MAX  (1u << 20)   /* bytes of their replies */
#define FIRST_COST    (256u << 10) /* of a row while the client has not asked for any: alone */

static vex_get_options get_options(const vexi_get_arguments *arguments, bool no_wait) {
    return (vex_get_options){.size = sizeof(vex_get_options),
                             .columns = arguments->columns,
                             .column_count = arguments->column_count,
                             .all_columns = arguments->columns == NULL,
                             .no_wait = no_wait};
}

/* Write the reply of one request whose rows begin at `row`. */
static void write_reply(const vexi_rows *rows, int64_t row, const vexi_get_arguments *arguments,
                        vexi_resp_protocol protocol, vexi_buffer *reply) {
    if (arguments->id_count > 1) {
        vexi_resp_array(reply, arguments->id_count);
    }
    for (uint32_t i = 0; i < arguments->id_count; i++) {
        if (vexi_rows_is_null(rows, 0, row + i)) {
            vexi_resp_null(reply, protocol);
        } else {
            vexi_rows_write_map(rows, 1, row + i, arguments->raw, protocol, reply);
        }
    }
}

/* Remember what a row costs; the cost of all. */
static uint64_t note_cost(vexi_run *run, const vexi_rows *rows, bool raw) {
    uint64_t cost = vexi_rows_cost(rows, 1, raw);
    int64_t count = vexi_rows_count(rows);
    run->row_cost = count > 0 ? 1 + cost / (uint64_t)count : 0;
    return cost;
}

/* The run's rows are there: write all its replies. */
static void write_replies(vexi_run *run, vexi_buffer *reply) {
    vexi_rows rows = {.schema = &run->schema, .batch = &run->rows};
    int64_t row = 0;
    for (uint32_t i = 0; i < run->count; i++) {
        uint32_t count;
        const vex_string *arguments = vexi_run_arguments(run, i, &count);
        vexi_get_arguments parsed;
        vex_error err;
        vex_status status = vexi_parse_get(arguments, count, &parsed, &err);
        VEX_ASSERT(status == VEX_OK && row + parsed.id_count <= vexi_rows_count(&rows));
        write_reply(&rows, row, &parsed, run->protocol, reply);
        row += parsed.id_count;
    }
}

static void release(vexi_run *run) {
    if (run->schema.release != NULL) {
        run->schema.release(&run->schema);
    }
    if (run->rows.release != NULL) {
        run->rows.release(&run->rows);
    }
}

/* Append the ids of request i to the server's scratch. */
static bool add_ids(vexi_server *server, size_t used, const vexi_get_arguments *arguments) {
    size_t wanted = used + arguments->id_count;
    if (wanted > server->get_id_capacity) {
        vex_error err;
        if (vexi_grow(server->env, (void **)&server->get_ids, &server->get_id_capacity, used,
                      wanted, sizeof *server->get_ids, &err) != VEX_OK) {
            return false;
        }
    }
    memcpy(server->get_ids + used, arguments->ids, arguments->id_count * sizeof *arguments->ids);
    return true;
}

bool vexi_get_fast(vexi_run *run, vexi_buffer *reply, bool try_now) {
    vexi_server *server = run->server;
    const vexi_batch *batch = run->batch;
    vexi_get_arguments first;
    vex_error err;
    uint32_t count;
    const vex_string *arguments = vexi_run_arguments(run, 0, &count);
    if (vexi_parse_get(arguments, count, &first, &err) != VEX_OK) {
        if (try_now) {
            vexi_reply_error(reply, &err);
        }
        return try_now;
    }
    uint64_t row_cost = run->client->row_cost != 0 ? run->client->row_cost : FIRST_COST;
    uint64_t fit = (try_now ? LOOP_COST_MAX : JOB_COST_MAX) / row_cost;
    uint32_t ids_max = try_now ? LOOP_IDS_MAX : JOB_IDS_MAX;
    ids_max = fit < ids_max ? (uint32_t)fit : ids_max;
    uint32_t id_count = first.id_count;
    if (try_now && (id_count > LOOP_IDS_MAX || !add_ids(server, 0, &first))) {
        return false;
    }
    while (run->first + run->count < batch->request_count) {
        const vexi_request *request = &batch->requests[run->first + run->count];
        vexi_get_arguments other;
        if (request->command != run->command || request->count < 2 ||
            vexi_parse_get(batch->arguments + request->first + 1, request->count - 1, &other,
                           &err) != VEX_OK ||
            !vexi_get_same(&first, &other) || id_count + other.id_count > ids_max ||
            (try_now && !add_ids(server, id_count, &other))) {
            break;
        }
        id_count += other.id_count;
        run->count++;
    }
    if (!try_now) {
        uint64_t weight = id_count * row_cost / JOB_COST_MAX;
        run->weight += weight < 16 ? (uint32_t)weight : 16;
        return false;
    }
    vex_get_options options = get_options(&first, true);
    vex_status status = vex_get(server->lake, first.collection, server->get_ids, id_count, &options,
                                &run->schema, &run->rows, &err);
    if (status == VEX_WOULD_BLOCK) {
        return false;
    }
    if (status != VEX_OK && run->count > 1) {
        run->count = 1;
        status = vex_get(server->lake, first.collection, server->get_ids, first.id_count, &options,
                         &run->schema, &run->rows, &err);
        if (status == VEX_WOULD_BLOCK) {
            return false;
        }
    }
    if (status != VEX_OK) {
        vexi_reply_error(reply, &err);
        return true;
    }
    vexi_rows rows = {.schema = &run->schema, .batch = &run->rows};
    if (note_cost(run, &rows, first.raw) > LOOP_COST_MAX) {
        return false;
    }
    write_replies(run, reply);
    release(run);
    return true;
}

/* One request alone. */
static void get_one(vexi_run *run, uint32_t i) {
    vexi_get_arguments parsed;
    vex_error err;
    uint32_t count;
    const vex_string *arguments = vexi_run_arguments(run, i, &count);
    vex_status status = vexi_parse_get(arguments, count, &parsed, &err);
    if (status == VEX_OK) {
        vex_get_options options = get_options(&parsed, false);
        status = vex_get(run->server->lake, parsed.collection, parsed.ids, parsed.id_count,
                         &options, &run->schema, &run->rows, &err);
    }
    if (status != VEX_OK) {
        vexi_run_error(run, &err);
        return;
    }
    vexi_rows rows = {.schema = &run->schema, .batch = &run->rows};
    (void)note_cost(run, &rows, parsed.raw);
    write_reply(&rows, 0, &parsed, run->protocol, &run->reply);
    release(run);
}

void vexi_get_job(vexi_job *job) {
    vexi_run *run = (vexi_run *)job;
    if (run->rows.release != NULL) {
        write_replies(run, &run->reply);
        release(run);
        return;
    }
    if (run->count > 1) {
        vexi_arena arena;
        vexi_arena_init(&arena, run->server->env);
        vex_string *ids = NULL;
        size_t id_count = 0;
        vexi_get_arguments parsed;
        vex_error err;
        vex_status status = VEX_OK;
        for (int pass = 0; pass < 2 && status == VEX_OK; pass++) {
            id_count = 0;
            for (uint32_t i = 0; i < run->count && status == VEX_OK; i++) {
                uint32_t count;
                const vex_string *arguments = vexi_run_arguments(run, i, &count);
                status = vexi_parse_get(arguments, count, &parsed, &err);
                if (pass == 1 && status == VEX_OK) {
                    memcpy(ids + id_count, parsed.ids, parsed.id_count * sizeof *ids);
                }
                id_count += parsed.id_count;
            }
            if (pass == 0) {
                ids = vexi_arena_array(&arena, id_count, sizeof *ids);
                status = ids == NULL ? VEX_MEMORY : status;
            }
        }
        if (status == VEX_OK) {
            vex_get_options options = get_options(&parsed, false);
            status = vex_get(run->server->lake, parsed.collection, ids, id_count, &options,
                             &run->schema, &run->rows, &err);
        }
        if (status == VEX_OK) {
            vexi_rows rows = {.schema = &run->schema, .batch = &run->rows};
            (void)note_cost(run, &rows, parsed.raw);
            write_replies(run, &run->reply);
            release(run);
        }
        vexi_arena_deinit(&arena);
        if (status == VEX_OK) {
            return;
        }
    }
    for (uint32_t i = 0; i < run->count; i++) {
        get_one(run, i);
    }
}
