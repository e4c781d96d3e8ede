/* Collections: create, drop, list, describe. */
#include "api/api.h"
#include "query/batch.h"

vex_status vexi_api_table(vex_lake *lake, vex_string name, vexi_table **out, vex_error *err) {
    *out = NULL;
    if (lake == NULL) {
        return vexi_fail(err, VEX_INVALID, "lake is NULL");
    }
    VEX_TRY(vexi_name_check(name, err));
    return vexi_lake_table(lake->lake, name, out, err);
}

/* ---- Create and drop ------------------------------------------------------------------------- */

/* What must hold before the columns can be copied; the table checks the rest of the schema. */
static vex_status columns_check(const vex_collection_options *options, vex_error *err) {
    if (options->column_count > VEX_COLUMNS_MAX) {
        return vexi_fail(err, VEX_INVALID, "%u typed columns are more than %u",
                         options->column_count, VEX_COLUMNS_MAX);
    }
    if (options->column_count > 0 && options->columns == NULL) {
        return vexi_fail(err, VEX_INVALID, "column_count is %u, but columns is NULL",
                         options->column_count);
    }
    for (uint32_t i = 0; i < options->column_count; i++) {
        vex_status status = vexi_name_check(options->columns[i].name, err);
        if (status != VEX_OK) {
            return vexi_prefix(err, status, "column %u", i);
        }
    }
    return VEX_OK;
}

vex_status vex_collection_create(vex_lake *lake, vex_string name,
                                 const vex_collection_options *options, vex_error *err) {
    vex_collection_options known;
    vexi_schema_column columns[VEX_COLUMNS_MAX];
    vexi_arena arena;
    vex_status status = VEX_OK;

    if (lake == NULL || options == NULL) {
        return vexi_fail(err, VEX_INVALID, "%s is NULL", lake == NULL ? "lake" : "options");
    }
    VEX_TRY(vexi_options_copy(options, "vex_collection_options", &known, sizeof known, err));
    VEX_TRY(vexi_name_check(name, err));
    VEX_TRY(columns_check(&known, err));
    vexi_arena_init(&arena, lake->keeper->env);
    for (uint32_t i = 0; i < known.column_count; i++) {
        vex_string given = known.columns[i].name;
        char *copy = vexi_arena_copy(&arena, given.data, given.size); /* NUL-terminated */
        if (copy == NULL) {
            status = vexi_no_memory(err, given.size);
            goto done;
        }
        columns[i] = (vexi_schema_column){{copy, given.size}, known.columns[i].type};
    }
    vexi_schema schema = {
        .dimension = known.dimension,
        .metric = known.metric,
        .index = known.index,
        .recall = known.recall,
        .bits = known.bits,
        .column_count = known.column_count,
        .columns = columns,
    };
    status = vexi_lake_create_table(lake->lake, name, &schema, err);
done:
    vexi_arena_deinit(&arena);
    return status;
}

vex_status vex_collection_drop(vex_lake *lake, vex_string name, vex_error *err) {
    if (lake == NULL) {
        return vexi_fail(err, VEX_INVALID, "lake is NULL");
    }
    VEX_TRY(vexi_name_check(name, err));
    return vexi_lake_drop_table(lake->lake, name, err);
}

/* ---- List and describe ----------------------------------------------------------------------- */

vex_status vex_collection_list(vex_lake *lake, struct ArrowSchema *schema, struct ArrowArray *batch,
                               vex_error *err) {
    if (schema != NULL) {
        *schema = (struct ArrowSchema){0};
    }
    if (lake == NULL || batch == NULL) {
        return vexi_fail(err, VEX_INVALID, "%s is NULL", lake == NULL ? "lake" : "batch");
    }
    *batch = (struct ArrowArray){0};
    vexi_arena arena;
    vex_string *names = NULL;
    size_t count = 0;
    vex_status status = VEX_OK;
    vexi_arena_init(&arena, lake->keeper->env);
    VEX_TRY_GOTO(status, done, vexi_lake_list_tables(lake->lake, &arena, &names, &count, err));
    vexi_batch_column column = {
        .name = vexi_string_of("name"), .kind = VEXI_BATCH_STRING, .data = names};
    VEX_TRY_GOTO(status, done, vexi_batch_build(lake->keeper, &column, 1, count, NULL, batch, err));
    if (schema != NULL) {
        status = vexi_batch_schema(lake->keeper, &column, 1, schema, err);
        if (status != VEX_OK) {
            batch->release(batch);
        }
    }
done:
    vexi_arena_deinit(&arena);
    return status;
}

vex_status vex_collection_refresh(vex_lake *lake, vex_string name, vex_error *err) {
    vexi_table *table;
    VEX_TRY(vexi_api_table(lake, name, &table, err));
    vex_status status = vexi_table_follow(table, true, err);
    vexi_table_release(table);
    return status;
}

vex_status vex_collection_describe(vex_lake *lake, vex_string name, vex_collection_info *out,
                                   vex_error *err) {
    vexi_table *table;
    if (out == NULL) {
        return vexi_fail(err, VEX_INVALID, "out is NULL");
    }
    *out = (vex_collection_info){0};
    VEX_TRY(vexi_api_table(lake, name, &table, err));
    vex_status status = vexi_table_describe(table, out, err);
    vexi_table_release(table);
    return status;
}

vex_status vex_collection_warm(vex_lake *lake, vex_string name, const vex_warm_options *options,
                               vex_warm_stats *out, vex_error *err) {
    vex_warm_options known;
    vexi_table *table;
    if (out == NULL) {
        return vexi_fail(err, VEX_INVALID, "out is NULL");
    }
    *out = (vex_warm_stats){0};
    VEX_TRY(vexi_options_copy(options, "vex_warm_options", &known, sizeof known, err));
    VEX_TRY(vexi_api_table(lake, name, &table, err));
    vexi_warm_request request = {.vectors = known.vectors, .progress = known.progress};
    vex_status status = vexi_table_warm(table, &request, out, err);
    vexi_table_release(table);
    return status;
}
