/* VSEARCH on a worker. Neighbouring searches of a pipeline with the same options are one call of
 * the engine; if it fails each is made alone, so that each gets its own answer. */
#include <string.h>

#include "server/arguments.h"
#include "server/rows.h"
#include "server/server_internal.h"

/* One request, read. */
typedef struct search_query {
    vexi_search_arguments arguments;
    const float *vector; /* NULL when by id */
    uint32_t dimension;
    vex_status status;
    vex_error error; /* where status is not VEX_OK */
} search_query;

static void read_query(vexi_run *run, uint32_t i, vexi_arena *arena, search_query *query) {
    uint32_t count;
    const vex_string *arguments = vexi_run_arguments(run, i, &count);
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
static vex_status search(vexi_run *run, const search_query *queries, uint32_t count,
                         vexi_arena *arena, vex_error *err) {
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
    VEX_TRY(vex_search(run->server->lake, first->collection, vectors, count, dimension, &options,
                       &schema, &batch, err));
    vexi_rows rows = {.schema = &schema, .batch = &batch};
    int64_t row_count = vexi_rows_count(&rows);
    int64_t row = 0;
    for (uint32_t i = 0; i < count; i++) {
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

void vexi_search_job(vexi_job *job) {
    vexi_run *run = (vexi_run *)job;
    vexi_arena arena;
    vexi_arena_init(&arena, run->server->env);
    search_query *queries = vexi_arena_array(&arena, run->count, sizeof *queries);
    bool together = queries != NULL && run->count > 1;
    for (uint32_t i = 0; queries != NULL && i < run->count; i++) {
        read_query(run, i, &arena, &queries[i]);
        together =
            together && queries[i].status == VEX_OK && queries[i].dimension == queries[0].dimension;
    }
    vex_error err;
    bool written = together && search(run, queries, run->count, &arena, &err) == VEX_OK;
    for (uint32_t i = 0; !written && i < run->count; i++) {
        if (queries == NULL) {
            vexi_resp_error(&run->reply, "ERR out of memory");
            continue;
        }
        search_query *query = &queries[i];
        if (query->status == VEX_OK) {
            query->status = search(run, query, 1, &arena, &query->error);
            bool bracket = !query->arguments.by_id && query->arguments.query.data[0] == '[';
            if (query->status == VEX_INVALID && bracket &&
                !vexi_vector_is_text(query->arguments.query)) {
                vexi_explain_blob(&query->error);
            }
        }
        if (query->status != VEX_OK) {
            vexi_reply_error(&run->reply, &query->error);
        }
    }
    vexi_arena_deinit(&arena);
}
