/* Batches and runs: the order of a client's commands.
 *
 * Invariants
 *  1. Replies leave in the order of the requests: a request is answered on the loop only while no
 *     run of its client is under way, and finished runs append their replies in the order in which
 *     they were started.
 *  2. Runs of one client are under way side by side only if all of them are reads. So a client sees
 *     its own writes, and its writes happen in its order.
 *  3. While a run is under way, the batch and the input that its arguments point into stay put. */
#include <string.h>

#include "server/arguments.h"
#include "server/server_internal.h"

/* What one client may have under way side by side: a run weighs 1, a search more if its reply is
 * large, so that its replies do not pile up. */
#define RUN_WEIGHT_MAX         16u
#define SEARCHES_MERGED_MAX    VEXI_SEARCHES_MERGED_MAX
#define ROWS_MERGED_MAX        VEXI_ROWS_MERGED_MAX
#define FULL_ROWS_MERGED_MAX   1000u /* the same with columns */
#define WRITES_MERGED_MAX      1024u
#define WRITE_BYTES_MERGED_MAX (16u << 20)
#define SPARE_RUNS_MAX         1024u
#define SPARE_REPLY_SIZE_MAX   (64u << 10)

/* ---- Batches --------------------------------------------------------------------------------- */

vexi_batch *vexi_batch_take(vexi_server *server) {
    vexi_batch *batch = server->spare_batches;
    if (batch != NULL) {
        server->spare_batches = batch->next;
        return batch;
    }
    return vexi_calloc(server->env, 1, sizeof *batch);
}

void vexi_batch_give(vexi_server *server, vexi_batch *batch) {
    batch->request_count = 0;
    batch->argument_count = 0;
    batch->position = 0;
    batch->next = server->spare_batches;
    server->spare_batches = batch;
}

vex_status vexi_batch_add(vexi_server *server, vexi_batch *batch, const vexi_resp_parser *parser,
                          const uint8_t *data, vex_error *err) {
    size_t wanted = (size_t)batch->argument_count + parser->count;
    if (wanted > batch->argument_capacity) {
        VEX_TRY(vexi_grow(server->env, (void **)&batch->arguments, &batch->argument_capacity,
                          batch->argument_count, wanted, sizeof *batch->arguments, err));
    }
    if (batch->request_count == batch->request_capacity) {
        VEX_TRY(vexi_grow(server->env, (void **)&batch->requests, &batch->request_capacity,
                          batch->request_count, (size_t)batch->request_count + 1,
                          sizeof *batch->requests, err));
    }
    vex_string *arguments = batch->arguments + batch->argument_count;
    for (uint32_t i = 0; i < parser->count; i++) {
        arguments[i] = (vex_string){.data = (const char *)data + parser->slices[i].offset,
                                    .size = parser->slices[i].size};
    }
    batch->requests[batch->request_count++] =
        (vexi_request){.command = vexi_command_find(&server->commands, arguments[0]),
                       .first = batch->argument_count,
                       .count = parser->count};
    batch->argument_count += parser->count;
    return VEX_OK;
}

/* ---- Runs ------------------------------------------------------------------------------------ */

static vexi_run *take_run(vexi_client *client) {
    vexi_server *server = client->server;
    vexi_run *run = server->spare_runs;
    if (run != NULL) {
        server->spare_runs = run->next;
        server->spare_run_count--;
    } else {
        run = vexi_calloc(server->env, 1, sizeof *run);
        if (run == NULL) {
            return NULL;
        }
        vexi_buffer_init(&run->reply, server->env, (size_t)server->settings.output_buffer_limit);
    }
    const vexi_batch *batch = client->batch;
    run->next = NULL;
    run->queue_next = NULL;
    run->server = server;
    run->client = client;
    run->batch = batch;
    run->first = batch->position;
    run->count = 1;
    run->command = batch->requests[batch->position].command;
    run->size_bytes = 0;
    run->weight = 1;
    run->row_cost = 0;
    run->protocol = client->protocol;
    run->done = false;
    run->error_count = 0;
    run->collection = (vex_string){0};
    run->schema.release = NULL;
    run->rows.release = NULL;
    return run;
}

static void give_run(vexi_server *server, vexi_run *run) {
    if (run->schema.release != NULL) {
        run->schema.release(&run->schema);
    }
    if (run->rows.release != NULL) {
        run->rows.release(&run->rows);
    }
    if (run->reply.capacity > SPARE_REPLY_SIZE_MAX) {
        vexi_buffer_deinit(&run->reply);
    }
    vexi_buffer_clear(&run->reply);
    if (server->spare_run_count == SPARE_RUNS_MAX) {
        vexi_buffer_deinit(&run->reply);
        vexi_free(server->env, run);
        return;
    }
    run->next = server->spare_runs;
    server->spare_runs = run;
    server->spare_run_count++;
}

void vexi_runs_free(vexi_server *server) {
    while (server->spare_runs != NULL) {
        vexi_run *run = server->spare_runs;
        server->spare_runs = run->next;
        vexi_buffer_deinit(&run->reply);
        vexi_free(server->env, run);
    }
    server->spare_run_count = 0;
}

void vexi_run_error(vexi_run *run, const vex_error *err) {
    run->error_count++;
    vexi_reply_error(&run->reply, err);
}

/* Count commands that were answered. */
static void note(vexi_server *server, const vexi_command *command, uint64_t ns, uint64_t count,
                 uint64_t errors) {
    vexi_metrics_command(&server->metrics, (size_t)(command - server->command_table), ns, count,
                         errors);
}

/* Whether what was appended to a reply behind `size` is an error. */
static bool is_error(const vexi_buffer *reply, size_t size) {
    return reply->failed || (reply->size > size && reply->data[size] == '-');
}

void vexi_reply_error(vexi_buffer *reply, const vex_error *err) {
    vexi_resp_errorf(reply, "ERR %s",
                     err->message[0] != '\0' ? err->message : vex_status_text(err->status));
}

/* Append a reply to the client's output; too much of it ends the connection with a message. */
static void append_reply(vexi_client *client, vexi_buffer *reply) {
    vexi_buffer *output = &client->output;
    if (!reply->failed && output->size == 0 && output->capacity < reply->capacity) {
        vexi_buffer swap = *output;
        *output = *reply;
        *reply = swap;
    } else if (!reply->failed) {
        vexi_buffer_append(output, reply->data, reply->size);
    }
    if (reply->failed) {
        output->failed = true;
    }
}

/* Take finished runs from the head of the client's list. */
static void collect_runs(vexi_client *client) {
    while (client->runs != NULL && client->runs->done) {
        vexi_run *run = client->runs;
        client->runs = run->next;
        if (client->runs == NULL) {
            client->runs_last = NULL;
        }
        client->run_weight -= run->weight;
        client->row_cost = run->row_cost != 0 ? run->row_cost : client->row_cost;
        append_reply(client, &run->reply);
        give_run(client->server, run);
    }
}

void vexi_run_finish(vexi_run *run) {
    uint64_t now_ns = vexi_monotonic_ns(run->server->env);
    note(run->server, run->command, now_ns - run->begin_ns, run->count, run->error_count);
    run->done = true;
    vexi_client *client = run->client;
    if (client->runs == run) {
        collect_runs(client);
        vexi_client_process(client);
    }
}

static void on_run_done(vexi_job *job) {
    vexi_run_finish((vexi_run *)job);
}

static void on_change_done(vexi_job *job) {
    vexi_run *run = (vexi_run *)job;
    vexi_search_changed(run->server, (vex_string){0});
    vexi_run_finish(run);
}

static void handle_job(vexi_job *job) {
    vexi_run *run = (vexi_run *)job;
    const vexi_request *request = &run->batch->requests[run->first];
    vexi_call call = {.server = run->server,
                      .arguments = run->batch->arguments + request->first,
                      .argument_count = request->count,
                      .protocol = run->protocol,
                      .reply = &run->reply};
    run->command->handle(&call);
    run->error_count = is_error(&run->reply, 0) ? 1 : 0;
}

/* ---- Execution ------------------------------------------------------------------------------- */

static bool arity_fits(const vexi_command *command, uint32_t count) {
    return command->arity >= 0 ? count == (uint32_t)command->arity
                               : count >= (uint32_t)-command->arity;
}

/* Whether the request can be handed to its kind's code: known, complete, allowed. */
static bool is_executable(const vexi_client *client, const vexi_request *request) {
    return request->command != NULL && arity_fits(request->command, request->count) &&
           (client->authenticated || request->command->before_auth);
}

static void refuse(vexi_client *client, const vexi_request *request) {
    const vex_string *arguments = client->batch->arguments + request->first;
    vexi_buffer *out = &client->output;
    if (request->command == NULL &&
        (vexi_word_is(arguments[0], "POST") || vexi_word_is(arguments[0], "HOST:"))) {
        /* A web page that makes a browser talk to this port: its body must not be executed. */
        vexi_log_line(&client->server->log, VEXI_LOG_WARNING, "server",
                      "client closed: it speaks HTTP client=%s", client->address);
        client->close_after = true;
    } else if (request->command == NULL) {
        /* As Redis: the name and the beginnings of the arguments. */
        char shown[256];
        size_t used = 0;
        for (uint32_t i = 1; i < request->count && used + 70 < sizeof shown; i++) {
            size_t size = arguments[i].size < 64 ? arguments[i].size : 64;
            shown[used++] = '\'';
            for (size_t c = 0; c < size; c++) {
                char byte = arguments[i].data[c];
                shown[used++] = byte >= 0x20 && byte < 0x7f ? byte : '?';
            }
            shown[used++] = '\'';
            shown[used++] = ' ';
        }
        char name[129];
        size_t name_size = arguments[0].size < 128 ? arguments[0].size : 128;
        for (size_t c = 0; c < name_size; c++) {
            char byte = arguments[0].data[c];
            name[c] = byte >= 0x20 && byte < 0x7f ? byte : '?';
        }
        vexi_resp_errorf(out, "ERR unknown command '%.*s', with args beginning with: %.*s",
                         (int)name_size, name, (int)used, shown);
    } else if (!arity_fits(request->command, request->count)) {
        vexi_resp_errorf(out, "ERR wrong number of arguments for '%s' command",
                         request->command->name);
    } else {
        vexi_resp_error(out, "NOAUTH Authentication required.");
    }
}

/* Put a run behind the client's others; its requests leave the batch. */
static void start_run(vexi_client *client, vexi_run *run) {
    client->batch->position = run->first + run->count;
    client->last_command = run->command;
    if (client->runs_last == NULL) {
        client->runs = run;
    } else {
        client->runs_last->next = run;
    }
    client->runs_last = run;
    client->run_weight += run->weight;
    run->begin_ns = vexi_monotonic_ns(run->server->env);
    run->job.done = on_run_done;
}

/* A run of writes: the requests behind it of the same command on the same collection. */
static void start_write(vexi_client *client, vexi_run *run) {
    vexi_server *server = client->server;
    const vexi_batch *batch = client->batch;
    vex_string collection;
    vex_error err;
    uint32_t count;
    const vex_string *arguments = vexi_run_arguments(run, 0, &count);
    if (vexi_collection_of(arguments, count, &collection, &err) != VEX_OK) {
        vexi_reply_error(&client->output, &err);
        note(server, run->command, 0, 1, 1);
        client->batch->position++;
        give_run(server, run);
        return;
    }
    size_t size = 0;
    uint32_t i = run->first;
    for (; i < batch->request_count && i - run->first < WRITES_MERGED_MAX &&
           size < WRITE_BYTES_MERGED_MAX;
         i++) {
        const vexi_request *request = &batch->requests[i];
        if (i > run->first) {
            vex_string other;
            if (request->command != run->command || !is_executable(client, request) ||
                vexi_collection_of(batch->arguments + request->first + 1, request->count - 1,
                                   &other, &err) != VEX_OK ||
                !vexi_string_equal(other, collection)) {
                break;
            }
        }
        for (uint32_t a = 0; a < request->count; a++) {
            size += batch->arguments[request->first + a].size;
        }
    }
    run->count = i - run->first;
    run->size_bytes = size;
    start_run(client, run);
    vexi_write_enqueue(server, collection, run);
}

/* False if it has to wait until less is under way. */
static bool start_search(vexi_client *client, vexi_run *run) {
    const vexi_batch *batch = client->batch;
    vexi_search_arguments first;
    vex_error err;
    uint32_t count;
    const vex_string *arguments = vexi_run_arguments(run, 0, &count);
    if (vexi_parse_search(arguments, count, &first, &err) == VEX_OK) {
        bool full = first.column_count > 0 || first.with_vectors;
        uint32_t merged_max = (full ? FULL_ROWS_MERGED_MAX : ROWS_MERGED_MAX) / first.k;
        merged_max = merged_max < SEARCHES_MERGED_MAX ? merged_max : SEARCHES_MERGED_MAX;
        run->weight += full ? first.k / FULL_ROWS_MERGED_MAX : 0;
        if (client->runs != NULL && client->run_weight + run->weight > RUN_WEIGHT_MAX) {
            give_run(client->server, run);
            return false;
        }
        while (run->first + run->count < batch->request_count && run->count < merged_max) {
            const vexi_request *request = &batch->requests[run->first + run->count];
            vexi_search_arguments other;
            if (request->command != run->command || !is_executable(client, request) ||
                vexi_parse_search(batch->arguments + request->first + 1, request->count - 1, &other,
                                  &err) != VEX_OK ||
                !vexi_search_same(&first, &other)) {
                break;
            }
            run->count++;
        }
    }
    start_run(client, run);
    vexi_metric_add(&client->server->metrics.searches, run->count);
    vexi_search_enqueue(client->server, run);
    return true;
}

/* A get: from memory on the loop if nothing is under way, else by a worker. */
static void start_get(vexi_client *client, vexi_run *run) {
    vexi_server *server = client->server;
    bool try_now = client->runs == NULL && client->row_cost < VEXI_LOOP_ROW_COST_MAX;
    uint64_t begin_ns = vexi_monotonic_ns(server->env);
    size_t size = client->output.size;
    bool answered = vexi_get_fast(run, &client->output, try_now);
    vexi_metric_add(&server->metrics.gets, run->count);
    if (answered) {
        vexi_metric_add(&server->metrics.gets_on_loop, run->count);
        /* Gets that fail are answered one by one, so an error is the reply of all. */
        note(server, run->command, vexi_monotonic_ns(server->env) - begin_ns, run->count,
             is_error(&client->output, size) ? run->count : 0);
        client->batch->position = run->first + run->count;
        client->last_command = run->command;
        client->row_cost = run->row_cost != 0 ? run->row_cost : client->row_cost;
        give_run(server, run);
        return;
    }
    start_run(client, run);
    run->begin_ns = begin_ns;
    run->job.run = vexi_get_job;
    vexi_pool_submit(server->pool, VEXI_LANE_READ, &run->job);
}

static bool is_read(vexi_command_kind kind) {
    return kind == VEXI_KIND_READ || kind == VEXI_KIND_GET || kind == VEXI_KIND_SEARCH;
}

bool vexi_execute(vexi_client *client) {
    vexi_server *server = client->server;
    vexi_batch *batch = client->batch;
    uint32_t start = batch->position;
    while (batch->position < batch->request_count && !client->close_after &&
           !client->output.failed && !server->draining &&
           client->output.size <= VEXI_OUTPUT_PAUSE_SIZE) {
        const vexi_request *request = &batch->requests[batch->position];
        const vexi_command *command = request->command;
        if (!is_executable(client, request)) {
            if (client->runs != NULL) {
                break;
            }
            refuse(client, request);
            vexi_metric_add(&server->metrics.commands_refused, 1);
            batch->position++;
            continue;
        }
        if (command->kind == VEXI_KIND_INLINE) {
            if (client->runs != NULL) {
                break;
            }
            vexi_call call = {.server = server,
                              .client = client,
                              .arguments = batch->arguments + request->first,
                              .argument_count = request->count,
                              .protocol = client->protocol,
                              .reply = &client->output};
            client->last_command = command;
            batch->position++;
            size_t size = client->output.size;
            uint64_t begin_ns = vexi_monotonic_ns(server->env);
            command->handle(&call);
            note(server, command, vexi_monotonic_ns(server->env) - begin_ns, 1,
                 is_error(&client->output, size) ? 1 : 0);
            continue;
        }
        if (client->runs != NULL &&
            (!is_read(command->kind) || !is_read(client->runs->command->kind) ||
             client->run_weight >= RUN_WEIGHT_MAX)) {
            break;
        }
        vexi_run *run = take_run(client);
        if (run == NULL) {
            if (client->runs != NULL) {
                break;
            }
            vexi_resp_error(&client->output, "ERR out of memory");
            batch->position++;
            continue;
        }
        bool waits = false;
        switch (command->kind) {
        case VEXI_KIND_PUT:
        case VEXI_KIND_DELETE:
            start_write(client, run);
            break;
        case VEXI_KIND_SEARCH:
            waits = !start_search(client, run);
            break;
        case VEXI_KIND_GET:
            start_get(client, run);
            break;
        case VEXI_KIND_READ:
        case VEXI_KIND_WRITE:
        case VEXI_KIND_LONG:
        case VEXI_KIND_INLINE:
            start_run(client, run);
            run->job.run = handle_job;
            if (command->kind != VEXI_KIND_READ) {
                vexi_search_changed(server, (vex_string){0});
                run->job.done = on_change_done;
            }
            vexi_pool_submit(server->pool,
                             command->kind == VEXI_KIND_READ    ? VEXI_LANE_READ
                             : command->kind == VEXI_KIND_WRITE ? VEXI_LANE_WRITE
                                                                : VEXI_LANE_LONG,
                             &run->job);
            break;
        }
        if (waits) {
            break;
        }
    }
    uint64_t done = batch->position - start;
    client->command_count += done;
    vexi_metric_add(&server->metrics.commands, done);
    if (client->runs != NULL) {
        return false;
    }
    return batch->position == batch->request_count || client->close_after ||
           client->output.failed || server->draining;
}
