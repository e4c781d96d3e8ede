/* The server's own types, shared by its files.
 *
 * Threads. One loop thread owns every client, batch and run; a run that is handed to a worker is
 * that worker's until its `done`. Fields say so where it is not plain.
 *
 * Life of a command. The loop reads bytes into a client's input, parses every complete command into
 * a batch (arguments point into the input, which does not move while runs are under way), and
 * executes the batch in order. Commands that cannot block are answered at once. Others become runs:
 * one or several commands of the same kind that one call of the engine answers. Runs of reads may
 * be under way side by side, a write runs alone within its client, and replies are appended in the
 * order of the commands. */
#ifndef VEXI_SERVER_INTERNAL_H
#define VEXI_SERVER_INTERNAL_H

#include <stdatomic.h>
#include <uv.h>

#include "base/arena.h"
#include "base/buffer.h"
#include "base/bytes.h"
#include "resp/resp.h"
#include "server/http.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/pool.h"
#include "server/settings.h"

typedef struct vexi_server vexi_server;
typedef struct vexi_client vexi_client;
typedef struct vexi_run vexi_run;

/* ---- Commands -------------------------------------------------------------------------------- */

/* How a command is executed. */
typedef enum vexi_command_kind {
    VEXI_KIND_INLINE, /* on the loop; `handle` may use call->client                            */
    VEXI_KIND_READ,   /* on a worker, beside other reads of the client                         */
    VEXI_KIND_WRITE,  /* on a worker, alone                                                    */
    VEXI_KIND_LONG,   /* the same on the lane of long jobs                                     */
    VEXI_KIND_GET,    /* VGET: merged, first tried on the loop                                 */
    VEXI_KIND_SEARCH, /* VSEARCH: merged                                                       */
    VEXI_KIND_PUT,    /* VSET: merged, also with other clients'                                */
    VEXI_KIND_DELETE  /* VDEL: the same                                                        */
} vexi_command_kind;

/* What a handler sees. */
typedef struct vexi_call {
    vexi_server *server;
    vexi_client *client;         /* NULL on a worker */
    const vex_string *arguments; /* arguments[0] is the command's name */
    uint32_t argument_count;
    vexi_resp_protocol protocol;
    vexi_buffer *reply;
} vexi_call;

typedef void (*vexi_handler)(vexi_call *call);

typedef struct vexi_command {
    const char *name; /* lower case */
    int arity;        /* with the name; negative: at least */
    vexi_command_kind kind;
    vexi_handler handle; /* NULL for kinds that are merged */
    bool before_auth;    /* allowed to a client that has not authenticated */
    const char *group;   /* vector, collection or connection */
    const char *syntax;  /* behind the name */
    const char *summary;
    const char *reply; /* what comes back */
    const char *notes; /* more for docs/commands.md, or NULL */
} vexi_command;

/* The table, in the order of the documentation. */
const vexi_command *vexi_commands(size_t *count);

#define VEXI_COMMAND_SLOTS 128u

/* Lookup by name without regard to case. Immutable once made. */
typedef struct vexi_command_map {
    const vexi_command *slots[VEXI_COMMAND_SLOTS];
} vexi_command_map;

void vexi_command_map_init(vexi_command_map *map);
const vexi_command *vexi_command_find(const vexi_command_map *map, vex_string name);

/* ---- Batches and runs ------------------------------------------------------------------------ */

typedef struct vexi_request {
    const vexi_command *command; /* NULL: unknown */
    uint32_t first;              /* in the batch's arguments */
    uint32_t count;
} vexi_request;

#define VEXI_SEARCHES_MERGED_MAX 64u
#define VEXI_ROWS_MERGED_MAX     100000u /* rows of merged searches */
#define VEXI_BATCH_REQUESTS_MAX  1024u
#define VEXI_BATCH_ARGUMENTS_MAX 65536u

/* The commands that one pass over a client's input found. The loop's; constant while runs are under
 * way. */
typedef struct vexi_batch {
    struct vexi_batch *next; /* in the server's list of spare ones */
    vexi_request *requests;
    vex_string *arguments;
    size_t request_capacity;
    size_t argument_capacity;
    uint32_t request_count;
    uint32_t argument_count;
    uint32_t position; /* first request that is not yet in a run nor answered */
} vexi_batch;

/* Commands first..first+count-1 of a batch, executed as one job. */
struct vexi_run {
    vexi_job job;
    vexi_run *next;       /* the client's next run; in a write job, the next run of it */
    vexi_run *queue_next; /* in a queue of writes, or of the searches that one job answers */
    vexi_server *server;
    vexi_client *client; /* the loop's: not for workers */
    const vexi_batch *batch;
    const vexi_command *command; /* of all its requests */
    uint32_t first;
    uint32_t count;
    size_t size_bytes; /* of a write: bytes of its arguments */
    vexi_resp_protocol protocol;
    bool done;            /* the loop's */
    uint64_t begin_ns;    /* the loop's: when it was started */
    uint32_t error_count; /* of its commands, answered by an error */
    vexi_buffer reply;
    /* A get that the loop has begun: rows that only wait to be written. */
    struct ArrowSchema schema;
    struct ArrowArray rows;
    uint64_t row_cost; /* of a get that is done: bytes of a reply for an id, roughly; 0: unknown */
    uint32_t weight;   /* of a read: its share of what one client may have under way */
    /* Of a search job's first run. */
    uint64_t busy_ns;      /* what all of the job took */
    uint64_t expected_ns;  /* the loop's: what it was expected to take */
    bool damage;           /* a search failed because of what is stored */
    vex_string collection; /* the loop's: that is searched; in the client's input; size 0: it cannot
                              be read */
    uint64_t changes;      /* the loop's: vexi_search_changes when it began */
    uint64_t search_key;   /* the loop's: of vexi_search_cost; 0: the arguments cannot be read */
};

/* ---- Clients --------------------------------------------------------------------------------- */

struct vexi_client {
    uv_tcp_t tcp;
    vexi_server *server;
    vexi_client *previous;
    vexi_client *next;
    uint64_t id;
    uint64_t connected_ns;
    uint64_t active_ns;
    uint64_t command_count;
    const vexi_command *last_command;
    char address[64];
    char name[64];
    char library_name[64];
    char library_version[32];

    uint8_t *input; /* NULL while there is nothing to keep */
    size_t input_capacity;
    size_t input_size;  /* bytes received */
    size_t input_start; /* bytes of commands that are parsed */
    vexi_resp_parser parser;
    vexi_batch *batch; /* commands under way, or NULL */
    vexi_run *runs;    /* under way, in order */
    vexi_run *runs_last;
    uint32_t run_weight; /* of them all */
    uint64_t row_cost;   /* of its last gets: bytes of a reply for an id; 0: unknown */

    vexi_buffer output; /* replies that are not yet given to the socket */
    uv_write_t write;
    uv_shutdown_t shutdown;
    uint64_t linger_until_ns; /* not 0: the connection is ended, and waits for the peer */
    uint8_t *writing;         /* memory of the write under way, or NULL */
    size_t writing_size;      /* its bytes */

    vexi_resp_protocol protocol;
    bool authenticated;
    bool reading;     /* uv_read_start is on */
    bool ended;       /* the peer has closed its side */
    bool broken;      /* protocol error: `broken_message` goes out behind the batch, then close */
    bool close_after; /* close once all replies are sent */
    bool closing;     /* uv_close was called */
    char broken_message[160];
};

/* ---- Writes of several clients ----------------------------------------------------------------
 */

/* Runs of writes on one collection that wait for each other, so that those of all clients go to the
 * engine together. The loop's. */
typedef struct vexi_write_queue {
    struct vexi_write_queue *next;
    vexi_run *first;
    vexi_run *last;
    uint32_t active_count; /* jobs under way */
    uint32_t name_size;
    char name[VEX_NAME_SIZE_MAX];
} vexi_write_queue;

/* Add a run (VSET or VDEL) to the queue of its collection; the loop's turn end sends it off. */
void vexi_write_enqueue(vexi_server *server, vex_string collection, vexi_run *run);
/* At the end of a loop turn: send off what waits. */
void vexi_write_dispatch(vexi_server *server);

/* ---- What searches cost ---------------------------------------------------------------------- */

#define VEXI_SEARCH_COSTS 64u

/* About what searches with one set of options on one collection take. The loop's. */
typedef struct vexi_search_cost {
    uint64_t key;     /* hash of collection and options; 0: empty */
    uint64_t ns;      /* a search */
    uint64_t changes; /* as they stood when the last one began that is done */
} vexi_search_cost;

/* ---- Server ---------------------------------------------------------------------------------- */

struct vexi_server {
    vexi_env *env;
    vexi_settings settings; /* immutable once serving; CONFIG GET and handlers read it */
    vexi_log_sink log;      /* immutable */
    vex_lake *lake;         /* thread-safe handle */
    vexi_command_map commands;
    char run_id[41]; /* immutable */
    uint64_t start_ns;
    int64_t start_wall_us;             /* immutable */
    const vexi_command *command_table; /* immutable: numbers of commands count from here */
    vexi_metrics metrics;

    /* The loop's from here on. */
    uv_loop_t loop;
    uv_tcp_t listener;
    uv_signal_t signals[2];
    uv_check_t turn_end;
    uv_timer_t drain_timer;
    uv_timer_t linger_timer;
    uv_timer_t beat_timer; /* turns the loop for metrics.beat_ns, with an HTTP port */
    vexi_http *http;       /* NULL: none */
    size_t linger_count;
    vexi_pool *pool;
    uint32_t port;
    uint64_t next_client_id;
    vexi_client *clients;
    vexi_batch *spare_batches;
    vexi_run *spare_runs;
    uint32_t spare_run_count;
    uint8_t *spare_inputs; /* chained through their first bytes */
    uint32_t spare_input_count;
    vexi_write_queue *write_queues;
    vexi_run *searches; /* begun in this turn, in order, by queue_next */
    vexi_run *searches_last;
    bool lake_is_remote;   /* searches wait for a network: never on the loop */
    uint64_t searching_ns; /* expected of the search jobs that workers have */
    vexi_search_cost search_costs[VEXI_SEARCH_COSTS];
    uint64_t collection_changes[VEXI_SEARCH_COSTS]; /* by hash of the name */
    uint64_t lake_changes;
    /* Scratch of gets that are tried on the loop. */
    vex_string *get_ids;
    size_t get_id_capacity;
    bool draining;
    bool drained;
    bool skip_flush; /* a second signal came */
};

/* client.c: sockets, input and output. */
void vexi_client_accept(vexi_server *server);
/* Parse and execute what the input holds, write the replies. */
void vexi_client_process(vexi_client *client);
/* Close as soon as possible; replies that are not sent are lost. */
void vexi_client_close(vexi_client *client);
/* Answer what is under way, then close. */
void vexi_client_drain(vexi_client *client);

/* execute.c: batches and runs. */
vexi_batch *vexi_batch_take(vexi_server *server);
void vexi_batch_give(vexi_server *server, vexi_batch *batch);
vex_status vexi_batch_add(vexi_server *server, vexi_batch *batch, const vexi_resp_parser *parser,
                          const uint8_t *data, vex_error *err);
/* Execute the client's batch until it is finished, has to wait for runs, or has made so much output
 * that it is to be written first; true when it is finished and no run is under way. */
bool vexi_execute(vexi_client *client);
/* Output from which on it is written before more is made; also what memory a client keeps for it.
 */
#define VEXI_OUTPUT_PAUSE_SIZE (256u << 10)
/* A run's job is done (on the loop). */
void vexi_run_finish(vexi_run *run);
/* Answer request i of a run with an error, and count it. By whoever has the run. */
void vexi_run_error(vexi_run *run, const vex_error *err);
void vexi_runs_free(vexi_server *server);

static inline const vex_string *vexi_run_arguments(const vexi_run *run, uint32_t i,
                                                   uint32_t *count) {
    const vexi_request *request = &run->batch->requests[run->first + i];
    *count = request->count - 1;
    return run->batch->arguments + request->first + 1;
}

/* "-ERR message" of an error of the engine. */
void vexi_reply_error(vexi_buffer *reply, const vex_error *err);

/* get.c, search.c, write.c: the merged commands, on a worker (or, vexi_get_fast, on the loop). */
/* Take the gets from run->first on that one call can answer, and answer them from memory where
 * `try_now` allows and they are there and small; sets run->count. False when a worker has to go on
 * (then run may hold their rows already). Appends to `reply`. */
bool vexi_get_fast(vexi_run *run, vexi_buffer *reply, bool try_now);
/* Bytes of a row's reply from which on a get is not tried on the loop. */
#define VEXI_LOOP_ROW_COST_MAX (128u << 10)
void vexi_get_job(vexi_job *job);
/* Add a run of searches to those of this turn; the turn's end answers them or makes jobs of them.
 */
void vexi_search_enqueue(vexi_server *server, vexi_run *run);
void vexi_search_dispatch(vexi_server *server);
/* A job that may change a collection (all of them without a name) begins or is done: the next
 * search there may have to take up what changed, and is made by a worker. */
void vexi_search_changed(vexi_server *server, vex_string collection);
/* Tell in an error that a vector which begins like text was read as a blob. */
void vexi_explain_blob(vex_error *err);

/* serve.c */
/* Read an address to listen on; `flag` names it in messages. *loopback: no other machine sees it.
 */
vex_status vexi_parse_address(const char *flag, const char *text, uint64_t port,
                              struct sockaddr_storage *out, bool *loopback, vex_error *err);
void vexi_server_drain(vexi_server *server, const char *why);
/* While draining: end the loop if nothing is left to wait for. */
void vexi_server_drain_step(vexi_server *server);

#endif
