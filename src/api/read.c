/* Reading: get and search. Arguments are checked here; query/ does the work on one view. */
#include "api/api.h"
#include "query/query.h"

/* ---- Get ------------------------------------------------------------------------------------- */

/* From memtables alone if they know every id, else from a view unless no_wait. */
static vex_status get_run(vex_lake *lake, vexi_table *table, const vex_string *ids, size_t id_count,
                          const vex_get_options *options, struct ArrowSchema *schema,
                          struct ArrowArray *batch, vex_error *err) {
    vexi_asked asked;
    vexi_memory_view memory;
    bool known = false;
    VEX_TRY(vexi_asked_resolve(vexi_table_schema(table), options->columns, options->column_count,
                               options->all_columns, &asked, err));
    if (options->no_wait && vexi_table_follows(table, false)) {
        return vexi_fail(err, VEX_WOULD_BLOCK, "the newest rows are not in memory");
    }
    VEX_TRY(vexi_table_follow(table, false, err));
    vexi_table_memory_view(table, &memory);
    vex_status status = vexi_get_from_memory(lake->keeper, &memory, ids, id_count, &asked, schema,
                                             batch, &known, err);
    vexi_memory_view_release(&memory);
    if (status != VEX_OK || known) {
        return status;
    }
    if (options->no_wait) {
        return vexi_fail(err, VEX_WOULD_BLOCK, "the rows are not in memory");
    }
    for (bool again = true; again;) {
        vexi_view *view;
        VEX_TRY(vexi_table_view(table, &view, err));
        status = vexi_get(lake->keeper, view, ids, id_count, &asked, schema, batch, err);
        /* Each round mends a segment that only lacks its index, or ends. */
        again = vexi_view_mend(table, view, status);
        vexi_view_release(view);
    }
    return status;
}

vex_status vex_get(vex_lake *lake, vex_string collection, const vex_string *ids, size_t id_count,
                   const vex_get_options *options, struct ArrowSchema *schema,
                   struct ArrowArray *batch, vex_error *err) {
    vex_get_options known;
    vexi_table *table;
    if (schema != NULL) {
        *schema = (struct ArrowSchema){0};
    }
    if (batch == NULL || (id_count > 0 && ids == NULL)) {
        return vexi_fail(err, VEX_INVALID, "%s is NULL", batch == NULL ? "batch" : "ids");
    }
    *batch = (struct ArrowArray){0};
    VEX_TRY(vexi_options_copy(options, "vex_get_options", &known, sizeof known, err));
    if (known.no_wait && lake != NULL && !vexi_lake_knows(lake->lake, collection)) {
        return vexi_fail(err, VEX_WOULD_BLOCK, "another node may have made the collection");
    }
    VEX_TRY(vexi_api_table(lake, collection, &table, err));
    vex_status status = get_run(lake, table, ids, id_count, &known, schema, batch, err);
    vexi_table_release(table);
    return status;
}

/* ---- Sample ---------------------------------------------------------------------------------- */

enum { SAMPLE_MAX = 1000000 };

static vex_status sample_run(vex_lake *lake, vexi_table *table, uint32_t count, uint64_t seed,
                             const vex_get_options *options, struct ArrowSchema *schema,
                             struct ArrowArray *batch, vex_error *err) {
    vexi_asked asked;
    vexi_view *view;
    VEX_TRY(vexi_asked_resolve(vexi_table_schema(table), options->columns, options->column_count,
                               options->all_columns, &asked, err));
    VEX_TRY(vexi_table_follow(table, false, err));
    vex_status status = VEX_OK;
    for (bool again = true; again;) {
        VEX_TRY(vexi_table_view(table, &view, err));
        status = vexi_sample(lake->keeper, view, count, seed, &asked, schema, batch, err);
        again = vexi_view_mend(table, view, status);
        vexi_view_release(view);
    }
    return status;
}

vex_status vex_sample(vex_lake *lake, vex_string collection, uint32_t count, uint64_t seed,
                      const vex_get_options *options, struct ArrowSchema *schema,
                      struct ArrowArray *batch, vex_error *err) {
    vex_get_options known;
    vexi_table *table;
    if (schema != NULL) {
        *schema = (struct ArrowSchema){0};
    }
    if (batch == NULL) {
        return vexi_fail(err, VEX_INVALID, "batch is NULL");
    }
    *batch = (struct ArrowArray){0};
    if (count > SAMPLE_MAX) {
        return vexi_fail(err, VEX_INVALID, "a sample of %u rows is more than %d", count,
                         SAMPLE_MAX);
    }
    VEX_TRY(vexi_options_copy(options, "vex_get_options", &known, sizeof known, err));
    VEX_TRY(vexi_api_table(lake, collection, &table, err));
    vex_status status = sample_run(lake, table, count, seed, &known, schema, batch, err);
    vexi_table_release(table);
    return status;
}

/* ---- Search ---------------------------------------------------------------------------------- */

static vex_status search_check(const vexi_schema *schema, const float *queries,
                               uint32_t query_count, uint32_t dimension,
                               const vex_search_options *options, vex_error *err) {
    if (options->k < 1 || options->k > VEX_K_MAX) {
        return vexi_fail(err, VEX_INVALID, "k is %u, not in 1..%u", options->k, VEX_K_MAX);
    }
    if (options->recall != 0 && !(options->recall > 0 && options->recall <= 1)) {
        return vexi_fail(err, VEX_INVALID, "recall is %g, not above 0 and at most 1",
                         (double)options->recall);
    }
    if (query_count > VEX_QUERIES_MAX) {
        return vexi_fail(err, VEX_INVALID, "%u queries are more than %u", query_count,
                         VEX_QUERIES_MAX);
    }
    if (queries != NULL && options->query_ids != NULL) {
        return vexi_fail(err, VEX_INVALID, "both queries and query_ids are given");
    }
    if (queries == NULL && options->query_ids == NULL && query_count > 0) {
        return vexi_fail(err, VEX_INVALID, "neither queries nor query_ids are given");
    }
    if (queries != NULL && dimension != schema->dimension) {
        return vexi_fail(err, VEX_INVALID, "the query has %u dimensions, the collection has %u",
                         dimension, schema->dimension);
    }
    return VEX_OK;
}

static vex_status search_run(vex_lake *lake, vexi_table *table, const float *queries,
                             uint32_t query_count, uint32_t dimension,
                             const vex_search_options *options, struct ArrowSchema *schema,
                             struct ArrowArray *batch, vex_error *err) {
    const vexi_schema *table_schema = vexi_table_schema(table);
    VEX_TRY(search_check(table_schema, queries, query_count, dimension, options, err));
    vexi_search_request request = {
        .queries = queries,
        .query_ids = options->query_ids,
        .query_count = query_count,
        .k = options->k,
        .nprobe = options->nprobe,
        .ef = options->ef,
        .recall = options->recall,
        .exact = options->exact,
        .partial = options->partial,
        .table = table,
    };
    VEX_TRY(vexi_asked_resolve(table_schema, options->columns, options->column_count, false,
                               &request.asked, err));
    VEX_TRY(vexi_table_follow(table, options->consistent, err));
    vex_status status = VEX_OK;
    for (bool again = true; again;) {
        vexi_view *view;
        VEX_TRY(vexi_table_view(table, &view, err));
        status = vexi_search(lake->keeper, view, &request, schema, batch, options->stats, err);
        again = vexi_view_mend(table, view, status);
        vexi_view_release(view);
    }
    return status;
}

vex_status vex_search(vex_lake *lake, vex_string collection, const float *queries,
                      uint32_t query_count, uint32_t dimension, const vex_search_options *options,
                      struct ArrowSchema *schema, struct ArrowArray *batch, vex_error *err) {
    vex_search_options known;
    vexi_table *table;
    if (schema != NULL) {
        *schema = (struct ArrowSchema){0};
    }
    if (batch == NULL || options == NULL) {
        return vexi_fail(err, VEX_INVALID, "%s is NULL", batch == NULL ? "batch" : "options");
    }
    *batch = (struct ArrowArray){0};
    VEX_TRY(vexi_options_copy(options, "vex_search_options", &known, sizeof known, err));
    if (known.stats != NULL) {
        *known.stats = (vex_search_stats){0};
    }
    VEX_TRY(vexi_api_table(lake, collection, &table, err));
    vex_status status =
        search_run(lake, table, queries, query_count, dimension, &known, schema, batch, err);
    vexi_table_release(table);
    return status;
}
