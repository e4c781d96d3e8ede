/* VSEARCH, on a worker.
 *
 * Neighbouring searches of a pipeline are one run, and runs of several clients that begin in the
 * same turn of the loop are one job, if all have the same options: one call of the engine answers
 * them together, and one wake-up of a worker and of the loop serves them all, which for searches of
 * tens of microseconds is most of the cost. A job is kept so short that nobody waits long for his
 * neighbours and other threads get their share. If the call fails each search is made alone, so
 * that each gets its own answer. */
#include <string.h>

#include "server/arguments.h"
#include "server/rows.h"
#include "server/server_internal.h"

/* What a job of several runs may take, about. */
#define JOB_NS_MAX 250000u

/* ---- On the loop ----------------------------------------------------------------------------- */

void vexi_search_enqueue(vexi_server *server, vexi_run *run) {
    run->queue_next = NULL;
    if (server->searches_last == NULL) {
        server->searches = run;
    } else {
        server->searches_last->queue_next = run;
    }
    server->searches_last = run;
}

static void on_search_done(vexi_job *job) {
    vexi_run *run = (vexi_run *)job;
    vexi_server *server = run->server;
    uint64_t count = 0;
    for (vexi_run *other = run; other != NULL; other = other->queue_next) {
        count += other->count;
    }
    /* A moving average over about eight jobs. */
    uint64_t each_ns = run->busy_ns / count;
    server->search_ns = server->search_ns == 0 ? each_ns : (7 * server->search_ns + each_ns) / 8;
    while (run != NULL) {
        vexi_run *next = run->queue_next;
        vexi_run_finish(run);
        run = next;
    }
}

static void search_job_run(vexi_job *job);

/* False: an error, which the worker will tell. */
static bool read_options(const vexi_run *run, vexi_search_arguments *out) {
    uint32_t count;
    vex_error err;
    const vex_string *arguments = vexi_run_arguments(run, 0, &count);
    return vexi_parse_search(arguments, count, out, &err) == VEX_OK;
}

void vexi_search_dispatch(vexi_server *server) {
    uint64_t count_max = VEXI_SEARCHES_MERGED_MAX;
    if (server->search_ns > 0 && JOB_NS_MAX / server->search_ns < count_max) {
        count_max = JOB_NS_MAX / server->search_ns;
    }
    while (server->searches != NULL) {
        vexi_run *first = server->searches;
        vexi_run *last = first;
        uint64_t count = first->count;
        vexi_search_arguments options, others;
        bool mergeable = read_options(first, &options);
        for (vexi_run *next = last->queue_next; mergeable && next != NULL;
             next = last->queue_next) {
            count += next->count;
            if (count > count_max || count * options.k > VEXI_ROWS_MERGED_MAX ||
                next->protocol != first->protocol || !read_options(next, &others) ||
                !vexi_search_same(&options, &others)) {
                break;
            }
            last = next;
        }
        server->searches = last->queue_next;
        last->queue_next = NULL;
        first->job.run = search_job_run;
        first->job.done = on_search_done;
        vexi_pool_submit(server->pool, VEXI_LANE_SEARCH, &first->job);
    }
    server->searches_last = NULL;
}

/* ---- On a worker ----------------------------------------------------------------------------- */

/* One request, read. */
typedef struct search_query {
    vexi_run *run;
    vexi_search_arguments arguments;
    const float *vector; /* NULL when by id */
    uint32_t dimension;
    vex_status status;
    vex_error error; /* where status is not VEX_OK */
} search_query;

static void read_query(vexi_run *run, uint32_t i, vexi_arena *arena, search_query *query) {
    uint32_t count;
    const vex_string *arguments = vexi_run_arguments(run, i, &count);
    query->run = run;
    query->vector = NULL;
    query->dimension = 0;
    query->status = vexi_parse_search(arguments, count, &query->arguments, &query->error);
    if (query->status == VEX_OK && !query->arguments.by_id) {
        query->status = vexi_parse_vector(query->arguments.query, arena, &query->vector,
                                          &query->dimension, &query->error);
    }
}

/* The asked columns: those of RETURN, then the vector for WITHVECTORS. */
static vex_status asked_columns(const vexi_search_arguments *arguments, vexi_arena *arena,
                                const vex_string **columns, uint32_t *count, vex_error *err) {
    *columns = arguments->columns;
    *count = arguments->column_count;
    if (!arguments->with_vectors) {
        return VEX_OK;
    }
    for (uint32_t i = 0; i < arguments->column_count; i++) {
        if (vexi_string_is(arguments->columns[i], "vector")) {
            return VEX_OK;
        }
    }
    vex_string *all = vexi_arena_array(arena, (size_t)arguments->column_count + 1, sizeof *all);
    if (all == NULL) {
        return vexi_no_memory(err, sizeof *all);
    }
    if (arguments->column_count > 0) {
        memcpy(all, arguments->columns, arguments->column_count * sizeof *all);
    }
    all[arguments->column_count] = vexi_string_of("vector");
    *columns = all;
    *count = arguments->column_count + 1;
    return VEX_OK;
}

/* Search for queries[0..count), which have the same options and dimension, and write a reply for
 * each. Nothing is written on failure. */
static vex_status search(const search_query *queries, uint32_t count, vexi_arena *arena,
                         vex_error *err) {
    const vexi_search_arguments *first = &queries[0].arguments;
    vex_search_options options = {.size = sizeof options,
                                  .k = first->k,
                                  .nprobe = first->nprobe,
                                  .ef = first->ef,
                                  .recall = first->recall,
                                  .exact = first->exact,
                                  .partial = first->partial};
    VEX_TRY(asked_columns(first, arena, &options.columns, &options.column_count, err));
    const float *vectors = queries[0].vector;
    uint32_t dimension = queries[0].dimension;
    if (first->by_id) {
        vex_string *ids = vexi_arena_array(arena, count, sizeof *ids);
        if (ids == NULL) {
            return vexi_no_memory(err, count * sizeof *ids);
        }
        for (uint32_t i = 0; i < count; i++) {
            ids[i] = queries[i].arguments.query;
        }
        options.query_ids = ids;
    } else if (count > 1) {
        float *all = vexi_arena_array(arena, (size_t)count * dimension, sizeof *all);
        if (all == NULL) {
            return vexi_no_memory(err, (size_t)count * dimension * sizeof *all);
        }
        for (uint32_t i = 0; i < count; i++) {
            memcpy(all + (size_t)i * dimension, queries[i].vector, dimension * sizeof *all);
        }
        vectors = all;
    }
    struct ArrowSchema schema;
    struct ArrowArray batch;
    VEX_TRY(vex_search(queries[0].run->server->lake, first->collection, vectors, count, dimension,
                       &options, &schema, &batch, err));
    vexi_rows rows = {.schema = &schema, .batch = &batch};
    int64_t row_count = vexi_rows_count(&rows);
    int64_t row = 0;
    for (uint32_t i = 0; i < count; i++) {
        vexi_run *run = queries[i].run;
        int64_t end = row;
        while (end < row_count && vexi_rows_u32(&rows, 0, end) == i) {
            end++;
        }
        vexi_resp_array(&run->reply, (size_t)(end - row));
        for (; row < end; row++) {
            vexi_resp_array(&run->reply, options.column_count > 0 ? 3 : 2);
            vex_string id = vexi_rows_string(&rows, 1, row);
            vexi_resp_bulk(&run->reply, id.data, id.size);
            vexi_resp_double(&run->reply, run->protocol, vexi_rows_double(&rows, 2, row));
            if (options.column_count > 0) {
                vexi_rows_write_map(&rows, 3, row, first->raw, run->protocol, &run->reply);
            }
        }
    }
    schema.release(&schema);
    batch.release(&batch);
    return VEX_OK;
}

/* Answer one query by a call of its own. */
static void search_alone(search_query *query, vexi_arena *arena) {
    if (query->status == VEX_OK) {
        query->status = search(query, 1, arena, &query->error);
        bool bracket = !query->arguments.by_id && query->arguments.query.data[0] == '[';
        if (query->status == VEX_INVALID && bracket &&
            !vexi_vector_is_text(query->arguments.query)) {
            vexi_explain_blob(&query->error);
        }
    }
    if (query->status != VEX_OK) {
        vexi_reply_error(&query->run->reply, &query->error);
    }
}

static void search_job_run(vexi_job *job) {
    vexi_run *first = (vexi_run *)job;
    const vexi_env *env = first->server->env;
    uint64_t start_ns = vexi_monotonic_ns(env);
    uint32_t count = 0;
    for (vexi_run *run = first; run != NULL; run = run->queue_next) {
        count += run->count;
    }
    vexi_arena arena;
    vexi_arena_init(&arena, env);
    search_query *queries = vexi_arena_array(&arena, count, sizeof *queries);
    bool together = queries != NULL && count > 1;
    uint32_t n = 0;
    for (vexi_run *run = first; run != NULL; run = run->queue_next) {
        for (uint32_t i = 0; i < run->count; i++) {
            if (queries == NULL) {
                vexi_resp_error(&run->reply, "ERR out of memory");
                continue;
            }
            read_query(run, i, &arena, &queries[n]);
            together = together && queries[n].status == VEX_OK &&
                       queries[n].dimension == queries[0].dimension;
            n++;
        }
    }
    vex_error err;
    if (!together || search(queries, count, &arena, &err) != VEX_OK) {
        for (uint32_t i = 0; i < n; i++) {
            search_alone(&queries[i], &arena);
        }
    }
    vexi_arena_deinit(&arena);
    first->busy_ns = vexi_monotonic_ns(env) - start_ns;
}
