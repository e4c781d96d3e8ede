/* Sockets: bytes in, bytes out.
 *
 * Input. A read goes to the client's own buffer if it has one, else to a spare one, which goes back
 * when all of it is executed: an idle client holds no buffer. The buffer does not move while runs
 * are under way (their arguments point into it); reading goes on into its free end and pauses when
 * that is full, so a client that sends faster than it is served is slowed down by TCP. A command
 * that does not fit makes it grow by doubling, up to query-buffer-limit.
 *
 * Output. Replies gather in `output`; after each pass over the input they are written at once
 * (uv_try_write), and what the socket does not take is handed to uv_write. A client that does not
 * read its replies is not read from either, so at most one pass' replies pile up; a single pass
 * beyond output-buffer-limit ends the connection.
 *
 * End. A socket that is closed while the peer still sends is reset, and the last reply may be lost
 * on the way. So a connection that the server ends lingers: our side is shut down, what still comes
 * is thrown away, until the peer closes too or two seconds have gone. */
#include <stdio.h>
#include <string.h>

#include "server/server_internal.h"

#define INPUT_SIZE       (256u << 10)
#define SPARE_INPUTS_MAX 32u
#define STRICT_ARGUMENTS 10u /* limits before authentication, as Redis */
#define STRICT_BULK_SIZE 16384u

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out);
static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf);
static void flush_output(vexi_client *client);

#define LINGER_NS UINT64_C(2000000000)

/* ---- Input memory ---------------------------------------------------------------------------- */

static uint8_t *take_input(vexi_server *server) {
    uint8_t *input = server->spare_inputs;
    if (input != NULL) {
        memcpy(&server->spare_inputs, input, sizeof server->spare_inputs);
        server->spare_input_count--;
        return input;
    }
    return vexi_alloc(server->env, INPUT_SIZE);
}

static void give_input(vexi_client *client) {
    vexi_server *server = client->server;
    uint8_t *input = client->input;
    if (input != NULL && client->input_capacity == INPUT_SIZE &&
        server->spare_input_count < SPARE_INPUTS_MAX) {
        memcpy(input, &server->spare_inputs, sizeof server->spare_inputs);
        server->spare_inputs = input;
        server->spare_input_count++;
    } else {
        vexi_free(server->env, input);
    }
    client->input = NULL;
    client->input_capacity = 0;
    client->input_size = 0;
    client->input_start = 0;
}

/* No run is under way and every complete command is executed: make room for the rest. */
static void compact_input(vexi_client *client) {
    size_t rest = client->input_size - client->input_start;
    if (rest == 0) {
        give_input(client);
        return;
    }
    if (client->input_start > 0 && client->input_capacity - client->input_size < INPUT_SIZE / 4) {
        memmove(client->input, client->input + client->input_start, rest);
        client->input_start = 0;
        client->input_size = rest;
    }
    if (client->input_size < client->input_capacity) {
        return;
    }
    size_t limit = (size_t)client->server->settings.query_buffer_limit;
    size_t capacity = client->input_capacity * 2 < limit ? client->input_capacity * 2 : limit;
    uint8_t *larger =
        capacity > client->input_capacity ? vexi_alloc(client->server->env, capacity) : NULL;
    if (larger == NULL) {
        client->broken = true;
        snprintf(client->broken_message, sizeof client->broken_message,
                 capacity > client->input_capacity
                     ? "ERR out of memory for a command of more than %zu bytes"
                     : "ERR a command of more than %zu bytes exceeds query-buffer-limit",
                 client->input_capacity);
        return;
    }
    memcpy(larger, client->input, rest);
    give_input(client);
    client->input = larger;
    client->input_capacity = capacity;
    client->input_size = rest;
}

/* ---- Life of a client ------------------------------------------------------------------------ */

static void free_client(vexi_client *client) {
    vexi_server *server = client->server;
    if (client->batch != NULL) {
        vexi_batch_give(server, client->batch);
    }
    give_input(client);
    vexi_resp_parser_deinit(&client->parser);
    vexi_buffer_deinit(&client->output);
    vexi_free(server->env, client->writing);
    if (client->previous != NULL) {
        client->previous->next = client->next;
    } else {
        server->clients = client->next;
    }
    if (client->next != NULL) {
        client->next->previous = client->previous;
    }
    vexi_free(server->env, client);
    vexi_metric_add(&server->metrics.clients, UINT64_MAX);
    vexi_server_drain_step(server);
}

/* The socket is closed. Runs that are under way still use the client: the last one frees it (see
 * vexi_client_process). */
static void on_closed(uv_handle_t *handle) {
    vexi_client *client = handle->data;
    client->tcp.data = NULL;
    if (client->runs == NULL) {
        free_client(client);
    }
}

void vexi_client_close(vexi_client *client) {
    if (!client->closing) {
        client->closing = true;
        if (client->linger_until_ns != 0 && --client->server->linger_count == 0) {
            uv_timer_stop(&client->server->linger_timer);
        }
        client->reading = false;
        uv_close((uv_handle_t *)&client->tcp, on_closed);
    }
}

static void set_reading(vexi_client *client, bool wanted) {
    if (wanted == client->reading || client->closing) {
        return;
    }
    client->reading = wanted;
    if (wanted) {
        if (uv_read_start((uv_stream_t *)&client->tcp, on_alloc, on_read) != 0) {
            client->reading = false;
            vexi_client_close(client);
        }
    } else {
        uv_read_stop((uv_stream_t *)&client->tcp);
    }
}

static void on_shut_down(uv_shutdown_t *request, int status) {
    if (status != 0 && status != UV_ECANCELED) {
        vexi_client_close(request->data);
    }
}

static void on_linger_timer(uv_timer_t *timer) {
    vexi_server *server = timer->data;
    uint64_t now = vexi_monotonic_ns(server->env);
    for (vexi_client *client = server->clients; client != NULL; client = client->next) {
        if (client->linger_until_ns != 0 && client->linger_until_ns <= now) {
            vexi_client_close(client);
        }
    }
}

/* All replies are sent: end the connection. */
static void end_client(vexi_client *client) {
    vexi_server *server = client->server;
    if (client->ended || server->draining) {
        vexi_client_close(client);
        return;
    }
    if (client->linger_until_ns != 0) {
        return;
    }
    client->linger_until_ns = vexi_monotonic_ns(server->env) + LINGER_NS;
    if (server->linger_count++ == 0) {
        server->linger_timer.data = server;
        uv_timer_start(&server->linger_timer, on_linger_timer, 250, 250);
    }
    client->shutdown.data = client;
    if (uv_shutdown(&client->shutdown, (uv_stream_t *)&client->tcp, on_shut_down) != 0) {
        vexi_client_close(client);
        return;
    }
    give_input(client);
    set_reading(client, true);
}

static void name_address(vexi_client *client) {
    struct sockaddr_storage address;
    int size = sizeof address;
    char host[48] = "?";
    unsigned port = 0;
    if (uv_tcp_getpeername(&client->tcp, (struct sockaddr *)&address, &size) == 0) {
        if (address.ss_family == AF_INET6) {
            const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;
            uv_ip6_name(v6, host, sizeof host);
            port = ntohs(v6->sin6_port);
            snprintf(client->address, sizeof client->address, "[%s]:%u", host, port);
            return;
        }
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;
        uv_ip4_name(v4, host, sizeof host);
        port = ntohs(v4->sin_port);
    }
    snprintf(client->address, sizeof client->address, "%s:%u", host, port);
}

void vexi_client_accept(vexi_server *server) {
    vexi_client *client = vexi_calloc(server->env, 1, sizeof *client);
    if (client == NULL) {
        vexi_log_line(&server->log, VEXI_LOG_ERROR, "server", "no memory for a connection");
        return;
    }
    client->server = server;
    client->id = ++server->next_client_id;
    client->protocol = VEXI_RESP2;
    client->authenticated = server->settings.requirepass[0] == '\0';
    client->connected_ns = client->active_ns = vexi_monotonic_ns(server->env);
    vexi_resp_parser_init(&client->parser, server->env, VEXI_RESP_ARGUMENTS_MAX,
                          (size_t)server->settings.query_buffer_limit);
    vexi_buffer_init(&client->output, server->env, (size_t)server->settings.output_buffer_limit);
    client->next = server->clients;
    if (server->clients != NULL) {
        server->clients->previous = client;
    }
    server->clients = client;
    vexi_metric_add(&server->metrics.clients, 1);
    vexi_metric_add(&server->metrics.connections, 1);
    VEX_ASSERT(uv_tcp_init(&server->loop, &client->tcp) == 0);
    client->tcp.data = client;
    if (uv_accept((uv_stream_t *)&server->listener, (uv_stream_t *)&client->tcp) != 0) {
        vexi_client_close(client);
        return;
    }
    uv_tcp_nodelay(&client->tcp, 1);
    uv_tcp_keepalive(&client->tcp, 1, 300);
    name_address(client);
    if (vexi_metric_get(&server->metrics.clients) > server->settings.client_max) {
        vexi_metric_add(&server->metrics.connections_rejected, 1);
        vexi_log_line(&server->log, VEXI_LOG_WARNING, "server",
                      "connection refused: maxclients reached client=%s maxclients=%llu",
                      client->address, (unsigned long long)server->settings.client_max);
        vexi_resp_error(&client->output, "ERR max number of clients reached");
        client->close_after = true;
        flush_output(client);
        return;
    }
    set_reading(client, true);
}

/* ---- Output ---------------------------------------------------------------------------------- */

static void on_written(uv_write_t *write, int status) {
    vexi_client *client = write->data;
    vexi_free(client->server->env, client->writing);
    client->writing = NULL;
    client->writing_size = 0;
    if (status != 0) {
        vexi_client_close(client);
        return;
    }
    vexi_client_process(client);
}

/* Give what is gathered to the socket; closes the client if that was its last. */
static void flush_output(vexi_client *client) {
    vexi_buffer *output = &client->output;
    if (client->closing || client->writing != NULL) {
        return;
    }
    if (output->failed) {
        vexi_log_line(&client->server->log, VEXI_LOG_WARNING, "server",
                      "client closed: its replies exceed output-buffer-limit client=%s limit=%zu",
                      client->address, output->limit_size);
        vexi_metric_add(&client->server->metrics.errors, 1);
        vexi_buffer_clear(output);
        vexi_resp_errorf(output, "ERR replies of more than %zu bytes exceed output-buffer-limit",
                         output->limit_size);
        client->close_after = true;
    }
    if (output->size > 0) {
        uv_buf_t buf = uv_buf_init((char *)output->data, (unsigned)output->size);
        int wrote =
            output->size > UINT32_MAX ? 0 : uv_try_write((uv_stream_t *)&client->tcp, &buf, 1);
        if (wrote < 0 && wrote != UV_EAGAIN) {
            vexi_client_close(client);
            return;
        }
        size_t done = wrote > 0 ? (size_t)wrote : 0;
        vexi_metric_add(&client->server->metrics.output_bytes, output->size);
        if (done < output->size) {
            client->writing = output->data;
            client->writing_size = output->size - done;
            client->write.data = client;
            /* libuv takes 32-bit lengths: give it pieces of 1 GiB. */
            uv_buf_t pieces[16];
            unsigned count = 0;
            for (size_t at = done; at < output->size && count < 16; count++) {
                size_t piece = output->size - at < (1u << 30) ? output->size - at : (1u << 30);
                pieces[count] = uv_buf_init((char *)output->data + at, (unsigned)piece);
                at += piece;
            }
            vexi_buffer_init(output, output->env, output->limit_size);
            if (uv_write(&client->write, (uv_stream_t *)&client->tcp, pieces, count, on_written) !=
                0) {
                vexi_client_close(client);
            }
            return;
        }
        if (output->capacity > VEXI_OUTPUT_PAUSE_SIZE) {
            vexi_buffer_deinit(output);
        } else {
            vexi_buffer_clear(output);
        }
    }
    if (client->close_after && client->runs == NULL) {
        end_client(client);
    }
}

/* ---- Input ----------------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *out) {
    (void)suggested;
    vexi_client *client = handle->data;
    if (client->input == NULL) {
        client->input = take_input(client->server);
        client->input_capacity = client->input != NULL ? INPUT_SIZE : 0;
        client->input_size = 0;
        client->input_start = 0;
    }
    size_t room = client->input_capacity - client->input_size;
    *out = uv_buf_init(client->input != NULL ? (char *)client->input + client->input_size : NULL,
                       (unsigned)(room < (1u << 30) ? room : (1u << 30)));
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf) {
    (void)buf;
    vexi_client *client = stream->data;
    if (client == NULL || client->closing) {
        return;
    }
    if (client->linger_until_ns != 0) {
        client->input_size = 0;
        if (size < 0) {
            vexi_client_close(client);
        }
        return;
    }
    if (size < 0) {
        /* The peer is gone, or has sent all: answer what is under way if it may still read. */
        client->ended = true;
        set_reading(client, false);
        if (size != UV_EOF) {
            vexi_client_close(client);
            return;
        }
        vexi_client_process(client);
        return;
    }
    if (size == 0) {
        if (client->input_size == 0 && client->runs == NULL) {
            give_input(client);
        }
        return;
    }
    client->input_size += (size_t)size;
    client->active_ns = uv_now(&client->server->loop) * UINT64_C(1000000);
    vexi_metric_add(&client->server->metrics.input_bytes, (uint64_t)size);
    if (client->runs != NULL) {
        if (client->input_size == client->input_capacity) {
            set_reading(client, false);
        }
        return;
    }
    vexi_client_process(client);
}

/* Parse complete commands into a batch; false if there is none. */
static bool parse_batch(vexi_client *client) {
    vexi_server *server = client->server;
    vexi_resp_parser *parser = &client->parser;
    if (client->input_start == client->input_size || client->broken) {
        return false;
    }
    vexi_batch *batch = vexi_batch_take(server);
    vex_error err;
    vex_status status = VEX_OK;
    if (batch == NULL) {
        status = vexi_no_memory(&err, sizeof *batch);
    }
    /* One command at a time until the client has authenticated: limits depend on it. */
    uint32_t request_max = client->authenticated ? VEXI_BATCH_REQUESTS_MAX : 1;
    parser->strict = !client->authenticated;
    parser->argument_max = client->authenticated ? VEXI_RESP_ARGUMENTS_MAX : STRICT_ARGUMENTS;
    parser->bulk_size_max =
        client->authenticated ? (size_t)server->settings.query_buffer_limit : STRICT_BULK_SIZE;
    while (status == VEX_OK && batch->request_count < request_max &&
           batch->argument_count < VEXI_BATCH_ARGUMENTS_MAX) {
        uint8_t *data = client->input + client->input_start;
        bool complete;
        status = vexi_resp_parse(parser, data, client->input_size - client->input_start, &complete,
                                 &err);
        if (status != VEX_OK || !complete) {
            break;
        }
        if (parser->count > 0) {
            status = vexi_batch_add(server, batch, parser, data, &err);
        }
        client->input_start += parser->offset;
        vexi_resp_parser_next(parser);
    }
    if (status != VEX_OK) {
        client->broken = true;
        snprintf(client->broken_message, sizeof client->broken_message, "ERR %.150s", err.message);
    }
    if (batch != NULL && batch->request_count == 0) {
        vexi_batch_give(server, batch);
        batch = NULL;
    }
    client->batch = batch;
    return batch != NULL;
}

void vexi_client_process(vexi_client *client) {
    if (client->closing) {
        if (client->runs == NULL && client->tcp.data == NULL) {
            free_client(client);
        }
        return;
    }
    if (client->linger_until_ns != 0) {
        if (client->server->draining) {
            vexi_client_close(client);
        }
        return;
    }
    /* A client that does not read its replies gets no further. */
    while (client->writing == NULL && !client->close_after && !client->output.failed) {
        if (client->output.size > VEXI_OUTPUT_PAUSE_SIZE) {
            flush_output(client);
            if (client->closing) {
                return;
            }
            continue;
        }
        if (client->batch == NULL && (client->server->draining || !parse_batch(client))) {
            break;
        }
        if (vexi_execute(client)) {
            vexi_batch_give(client->server, client->batch);
            client->batch = NULL;
        } else if (client->output.size <= VEXI_OUTPUT_PAUSE_SIZE) {
            break; /* runs are under way */
        }
    }
    bool idle = client->batch == NULL && client->runs == NULL;
    if (idle && !client->broken && !client->close_after && client->input != NULL) {
        compact_input(client);
    }
    if (idle && client->broken && !client->close_after && client->writing == NULL) {
        vexi_log_line(&client->server->log, VEXI_LOG_INFO, "server",
                      "client closed: bad input client=%s message=\"%s\"", client->address,
                      client->broken_message);
        vexi_metric_add(&client->server->metrics.errors, 1);
        vexi_resp_error(&client->output, client->broken_message);
        client->close_after = true;
    }
    if (idle && (client->ended || client->server->draining)) {
        client->close_after = true;
    }
    flush_output(client);
    if (!client->closing && client->linger_until_ns == 0) {
        set_reading(client,
                    !client->ended && !client->close_after && !client->broken &&
                        client->writing == NULL && !client->server->draining &&
                        (client->input == NULL || client->input_size < client->input_capacity));
    }
}

void vexi_client_drain(vexi_client *client) {
    set_reading(client, false);
    vexi_client_process(client);
}
