/* VSEARCH.
 *
 * Neighbouring searches of a pipeline are one run, and runs of several clients that begin in the
 * same turn of the loop are one job, if all have the same options: one call of the engine answers
 * them together. If the call fails each search is made alone, so that each gets its own answer.
 *
 * Where. A search by codes or graph takes tens of microseconds, and handing it to a worker and its
 * answer back costs as much again: two threads to wake, two switches, and caches that hold nothing.
 * So the loop makes the searches of a turn itself if all that is asked, of it and of workers, is
 * expected to take less than LOOP_NS_MAX; that is how long other clients may have to wait for them.
 * What is expected is what searches with the same options on the same collection took until now,
 * and workers make:
 *  1. what has not been asked before, for nothing is known of it;
 *  2. what follows a write, an import or a flush, for it may have to take up the rows that are new;
 *  3. what returns columns, for those are read from storage;
 *  4. what follows a search that met damage, for the engine may be mending;
 *  5. what a client asks right behind searches that the loop has just made for it, so that nobody
 *     keeps the loop;
 *  6. all of a lake on S3, whose server may not answer.
 * When searches become longer, say because their pages have left the memory, a few of them, or one
 * of several milliseconds, delay other clients before the average tells; from then on workers make
 * them. Wall time is what counts here, as it is what others wait for; so on a machine that is busy
 * with other work fewer searches are made here.
 *
 * A worker's job is kept so short that nobody waits long for his neighbours and other threads get
 * their share. */
#include <string.h>

#include "base/checksum.h"
#include "base/random.h"
#include "server/arguments.h"
#include "server/rows.h"
#include "server/server_internal.h"

/* What a worker's job of several runs may take, about. */
#define JOB_NS_MAX 250000u
/* What the loop does itself: what the engine does not split over threads either (query/search.c).
 */
#define LOOP_NS_MAX 500000u

/* ---- What searches cost ---------------------------------------------------------------------- */

static uint64_t mix(uint64_t hash, uint64_t value) {
    return vexi_random_mix(hash ^ value);
}

static uint64_t key_of(const vexi_search_arguments *arguments) {
    uint32_t recall;
    memcpy(&recall, &arguments->recall, sizeof recall);
    uint64_t key = vexi_hash64(arguments->collection.data, arguments->collection.size);
    key = mix(key, (uint64_t)arguments->k << 32 | arguments->nprobe);
    key = mix(key, (uint64_t)arguments->ef << 32 | recall);
    key = mix(key, (arguments->by_id ? 1u : 0u) | (arguments->exact ? 2u : 0u) |
                       (arguments->partial ? 4u : 0u) | (arguments->with_vectors ? 8u : 0u) |
                       (arguments->consistent ? 16u : 0u) | (uint64_t)arguments->column_count << 5);
    return key != 0 ? key : 1;
}

/* The entry of a key: its own, or that of another which it may replace. */
static vexi_search_cost *cost_slot(vexi_server *server, uint64_t key) {
    return &server->search_costs[key % VEXI_SEARCH_COSTS];
}

/* NULL: nothing is known. */
static const vexi_search_cost *cost_find(vexi_server *server, uint64_t key) {
    const vexi_search_cost *cost = cost_slot(server, key);
    return key != 0 && cost->key == key ? cost : NULL;
}

/* A moving average. It falls faster than it rises: what disturbs a search makes it longer. */
static void cost_note(vexi_server *server, const vexi_run *run, uint64_t count) {
    if (run->search_key == 0) {
        return;
    }
    vexi_search_cost *cost = cost_slot(server, run->search_key);
    if (run->damage) {
        *cost = (vexi_search_cost){0};
        return;
    }
    uint64_t each_ns = run->busy_ns / count;
    if (cost->key != run->search_key) {
        *cost = (vexi_search_cost){.key = run->search_key, .ns = each_ns};
    } else if (each_ns < cost->ns) {
        cost->ns = (3 * cost->ns + each_ns) / 4;
    } else {
        cost->ns = (7 * cost->ns + each_ns) / 8;
    }
    cost->changes = run->changes;
}

static uint64_t *collection_changes(vexi_server *server, vex_string collection) {
    uint64_t hash = vexi_hash64(collection.data, collection.size);
    return &server->collection_changes[hash % VEXI_SEARCH_COSTS];
}

void vexi_search_changed(vexi_server *server, vex_string collection) {
    if (collection.data != NULL) {
        (*collection_changes(server, collection))++;
    } else {
        server->lake_changes++;
    }
}

/* Counts up with every change of the collection. */
static uint64_t changes_of(vexi_server *server, vex_string collection) {
    return server->lake_changes + *collection_changes(server, collection);
}

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

static uint64_t searches_of(const vexi_run *run) {
    uint64_t count = 0;
    for (; run != NULL; run = run->queue_next) {
        count += run->count;
    }
    return count;
}

/* Count the job's searches under its collection. */
static void count_runs(const vexi_run *first) {
    uint64_t now_ns = vexi_monotonic_ns(first->server->env);
    for (const vexi_run *run = first; run != NULL; run = run->queue_next) {
        if (first->collection.size > 0) {
            vexi_metrics_search(&run->server->metrics, first->collection, now_ns - run->begin_ns,
                                run->count, run->error_count);
        } else {
            vexi_metric_add(&run->server->metrics.searches_unlisted, run->count);
        }
    }
}

static void finish_runs(vexi_run *run) {
    cost_note(run->server, run, searches_of(run));
    count_runs(run);
    while (run != NULL) {
        vexi_run *next = run->queue_next;
        vexi_run_finish(run);
        run = next;
    }
}

static void on_search_done(vexi_job *job) {
    vexi_run *run = (vexi_run *)job;
    run->server->searching_ns -= run->expected_ns;
    finish_runs(run);
}

static void search_job_run(vexi_job *job);

/* False: an error, which whoever makes the search will tell. */
static bool read_options(const vexi_run *run, vexi_search_arguments *out) {
    uint32_t count;
    vex_error err;
    const vex_string *arguments = vexi_run_arguments(run, 0, &count);
    return vexi_parse_search(arguments, count, out, &err) == VEX_OK;
}

/* Take the runs off *queue that one job can answer; the first stands for it. */
static vexi_run *next_job(vexi_server *server, vexi_run **queue) {
    vexi_run *first = *queue;
    vexi_run *last = first;
    uint64_t count = first->count;
    uint64_t count_max = VEXI_SEARCHES_MERGED_MAX;
    vexi_search_arguments options, others;
    bool readable = read_options(first, &options);
    first->search_key = readable ? key_of(&options) : 0;
    first->collection = readable ? options.collection : (vex_string){0};
    first->changes = readable ? changes_of(server, options.collection) : 0;
    const vexi_search_cost *cost = cost_find(server, first->search_key);
    if (cost != NULL && cost->ns > 0 && JOB_NS_MAX / cost->ns < count_max) {
        count_max = JOB_NS_MAX / cost->ns;
    }
    for (vexi_run *next = last->queue_next; readable && next != NULL; next = last->queue_next) {
        count += next->count;
        if (count > count_max || count * options.k > VEXI_ROWS_MERGED_MAX ||
            next->protocol != first->protocol || !read_options(next, &others) ||
            !vexi_search_same(&options, &others)) {
            break;
        }
        last = next;
    }
    *queue = last->queue_next;
    last->queue_next = NULL;
    bool short_known = cost != NULL && cost->changes == first->changes &&
                       options.column_count == 0 && !options.with_vectors;
    first->expected_ns = short_known ? searches_of(first) * cost->ns : LOOP_NS_MAX + 1;
    return first;
}

void vexi_search_dispatch(vexi_server *server) {
    bool on_loop = !server->lake_is_remote;
    while (server->searches != NULL) {
        vexi_run *queue = server->searches;
        server->searches = server->searches_last = NULL;
        vexi_job *jobs = NULL;
        vexi_job **end = &jobs;
        uint64_t expected_ns = server->searching_ns;
        while (queue != NULL) {
            vexi_run *first = next_job(server, &queue);
            expected_ns += first->expected_ns;
            first->job.next = NULL;
            *end = &first->job;
            end = &first->job.next;
        }
        on_loop = on_loop && expected_ns <= LOOP_NS_MAX;
        while (jobs != NULL) {
            vexi_run *first = (vexi_run *)jobs;
            jobs = jobs->next;
            if (on_loop) {
                vexi_metric_add(&server->metrics.searches_on_loop, searches_of(first));
                search_job_run(&first->job);
                finish_runs(first);
            } else {
                server->searching_ns += first->expected_ns;
                first->job.run = search_job_run;
                first->job.done = on_search_done;
                vexi_pool_submit(server->pool, VEXI_LANE_SEARCH, &first->job);
            }
        }
        /* Answers may have brought on more searches: workers make those. */
        on_loop = false;
    }
}

/* ---- On a worker, or the loop ---------------------------------------------------------------- */

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

/* What a search did, in all `total_ns`. */
static void write_profile(const vex_search_stats *stats, uint64_t total_ns,
                          vexi_resp_protocol protocol, vexi_buffer *out) {
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"segments", stats->segment_count},
        {"segments-by-lists", stats->segment_ivf_count},
        {"segments-by-graph", stats->segment_graph_count},
        {"segments-left-out", stats->segment_skip_count},
        {"lists", stats->list_count},
        {"hops", stats->hop_count},
        {"codes", stats->code_count},
        {"rows", stats->row_count},
        {"pages", stats->page_count},
        {"page-bytes", stats->read_bytes},
        {"steps", stats->step_count},
        {"requests", stats->request_count},
        {"request-bytes", stats->request_bytes},
        {"cache-hits", stats->hit_count},
        {"read-us", stats->read_ns / 1000},
        {"scan-us", stats->scan_ns / 1000},
        {"columns-us", stats->column_ns / 1000},
        {"total-us", total_ns / 1000},
    };
    size_t count = sizeof fields / sizeof *fields;
    vexi_resp_map(out, protocol, count);
    for (size_t i = 0; i < count; i++) {
        vexi_resp_bulk(out, fields[i].name, strlen(fields[i].name));
        vexi_resp_integer(out, (int64_t)fields[i].value);
    }
}

static void count_stats(vexi_metrics *metrics, const vex_search_stats *stats) {
    if (stats->step_count > 0 || stats->hit_count > 0) {
        vexi_metric_add(&metrics->search_steps, stats->step_count);
        vexi_metric_add(&metrics->search_requests, stats->request_count);
        vexi_metric_add(&metrics->search_request_bytes, stats->request_bytes);
        vexi_metric_add(&metrics->search_cache_hits, stats->hit_count);
    }
}

/* Search for queries[0..count), which have the same options and dimension, and write a reply for
 * each. Nothing is written on failure. */
static vex_status search(const search_query *queries, uint32_t count, vexi_arena *arena,
                         vex_error *err) {
    const vexi_search_arguments *first = &queries[0].arguments;
    vexi_server *server = queries[0].run->server;
    vex_search_stats stats = {0};
    vex_search_options options = {.size = sizeof options,
                                  .k = first->k,
                                  .nprobe = first->nprobe,
                                  .ef = first->ef,
                                  .recall = first->recall,
                                  .exact = first->exact,
                                  .partial = first->partial,
                                  .consistent = first->consistent,
                                  .stats = &stats};
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
    uint64_t start_ns = vexi_monotonic_ns(server->env);
    VEX_TRY(vex_search(server->lake, first->collection, vectors, count, dimension, &options,
                       &schema, &batch, err));
    uint64_t total_ns = vexi_monotonic_ns(server->env) - start_ns;
    count_stats(&server->metrics, &stats);
    vexi_rows rows = {.schema = &schema, .batch = &batch};
    int64_t row_count = vexi_rows_count(&rows);
    int64_t row = 0;
    for (uint32_t i = 0; i < count; i++) {
        vexi_run *run = queries[i].run;
        int64_t end = row;
        while (end < row_count && vexi_rows_u32(&rows, 0, end) == i) {
            end++;
        }
        if (first->profile) {
            vexi_resp_array(&run->reply, 2);
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
        if (first->profile) { /* made alone: vexi_search_same */
            write_profile(&stats, total_ns, run->protocol, &run->reply);
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
        vexi_run_error(query->run, &query->error);
    }
}

static bool is_damage(vex_status status) {
    return status == VEX_CORRUPT || status == VEX_IO;
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
                run->error_count++;
                continue;
            }
            read_query(run, i, &arena, &queries[n]);
            together = together && queries[n].status == VEX_OK &&
                       queries[n].dimension == queries[0].dimension;
            n++;
        }
    }
    vex_error err;
    first->damage = false;
    if (!together || search(queries, count, &arena, &err) != VEX_OK) {
        for (uint32_t i = 0; i < n; i++) {
            search_alone(&queries[i], &arena);
            first->damage = first->damage || is_damage(queries[i].status);
        }
    }
    vexi_arena_deinit(&arena);
    first->busy_ns = vexi_monotonic_ns(env) - start_ns;
}
