/* Import and verify. */
#include "api/api.h"
#include "query/batch.h"

vex_status vex_import(vex_lake *lake, vex_string collection, const char *const *paths,
                      size_t path_count, const vex_import_options *options, uint64_t *row_count,
                      vex_error *err) {
    vex_import_options known;
    uint64_t rows = 0;
    if (row_count != NULL) {
        *row_count = 0;
    }
    if (lake == NULL) {
        return vexi_fail(err, VEX_INVALID, "lake is NULL");
    }
    if (path_count == 0 || paths == NULL) {
        return vexi_fail(err, VEX_INVALID, "there is no file to import");
    }
    for (size_t i = 0; i < path_count; i++) {
        if (paths[i] == NULL || paths[i][0] == '\0') {
            return vexi_fail(err, VEX_INVALID, "path %zu is empty", i);
        }
    }
    VEX_TRY(vexi_options_copy(options, "vex_import_options", &known, sizeof known, err));
    VEX_TRY(vexi_name_check(collection, err));
    VEX_TRY(vexi_lake_import(lake->lake, collection, paths, path_count, &known, &rows, err));
    if (row_count != NULL) {
        *row_count = rows;
    }
    return VEX_OK;
}

/* ---- Verify ---------------------------------------------------------------------------------- */

/* Findings of one collection, or of all, in the arena. A collection that is dropped meanwhile has
 * no findings. */
static vex_status verify_run(vex_lake *lake, vex_string collection, vexi_arena *arena,
                             vexi_finding **findings, size_t *finding_count, uint64_t *object_count,
                             vex_error *err) {
    vex_string *names = &collection;
    size_t name_count = 1;
    if (collection.data == NULL) {
        VEX_TRY(vexi_lake_list_tables(lake->lake, arena, &names, &name_count, err));
    }
    for (size_t i = 0; i < name_count; i++) {
        vexi_table *table;
        vex_status status = vexi_api_table(lake, names[i], &table, err);
        if (status == VEX_NOT_FOUND && collection.data == NULL) {
            continue;
        }
        VEX_TRY(status);
        status = vexi_table_verify(table, arena, findings, finding_count, object_count, err);
        vexi_table_release(table);
        if (status != VEX_NOT_FOUND || collection.data != NULL) {
            VEX_TRY(status);
        }
    }
    return VEX_OK;
}

static vex_status findings_batch(vex_lake *lake, const vexi_finding *findings, size_t count,
                                 vexi_arena *arena, struct ArrowSchema *schema,
                                 struct ArrowArray *batch, vex_error *err) {
    vex_string *objects = vexi_arena_array(arena, count, sizeof *objects);
    vex_string *problems = vexi_arena_array(arena, count, sizeof *problems);
    if (objects == NULL || problems == NULL) {
        return vexi_no_memory(err, count * sizeof *objects);
    }
    for (size_t i = 0; i < count; i++) {
        objects[i] = findings[i].object;
        problems[i] = findings[i].problem;
    }
    vexi_batch_column columns[2] = {
        {.name = vexi_string_of("object"), .kind = VEXI_BATCH_STRING, .data = objects},
        {.name = vexi_string_of("problem"), .kind = VEXI_BATCH_STRING, .data = problems},
    };
    VEX_TRY(vexi_batch_build(lake->keeper, columns, 2, count, NULL, batch, err));
    if (schema != NULL) {
        vex_status status = vexi_batch_schema(lake->keeper, columns, 2, schema, err);
        if (status != VEX_OK) {
            batch->release(batch);
            return status;
        }
    }
    return VEX_OK;
}

vex_status vex_verify(vex_lake *lake, vex_string collection, struct ArrowSchema *schema,
                      struct ArrowArray *batch, uint64_t *object_count, vex_error *err) {
    vexi_arena arena;
    vexi_finding *findings = NULL;
    size_t finding_count = 0;
    uint64_t objects = 0;
    vex_status status = VEX_OK;
    if (schema != NULL) {
        *schema = (struct ArrowSchema){0};
    }
    if (object_count != NULL) {
        *object_count = 0;
    }
    if (lake == NULL || batch == NULL) {
        return vexi_fail(err, VEX_INVALID, "%s is NULL", lake == NULL ? "lake" : "batch");
    }
    *batch = (struct ArrowArray){0};
    vexi_arena_init(&arena, lake->keeper->env);
    VEX_TRY_GOTO(status, done,
                 verify_run(lake, collection, &arena, &findings, &finding_count, &objects, err));
    VEX_TRY_GOTO(status, done,
                 findings_batch(lake, findings, finding_count, &arena, schema, batch, err));
    if (object_count != NULL) {
        *object_count = objects;
    }
done:
    vexi_arena_deinit(&arena);
    return status;
}
