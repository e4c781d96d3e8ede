/* Writing: rows are checked as a whole, then stored; nothing of a bad batch reaches the log. */
#include <string.h>

#include "api/api.h"
#include "api/arrow_read.h"
#include "table/row_check.h"

/* Small batches are checked without an allocation of their own. */
enum { PUT_STACK_ROWS = 16 };

static vex_status rows_put(vexi_table *table, const vex_row *rows, size_t count, vexi_arena *arena,
                           vex_error *err) {
    vexi_row small[PUT_STACK_ROWS];
    vexi_row *checked = small;
    if (count > PUT_STACK_ROWS) {
        checked = vexi_arena_array(arena, count, sizeof *checked);
        if (checked == NULL) {
            return vexi_no_memory(err, count * sizeof *checked);
        }
    }
    VEX_TRY(vexi_rows_check(vexi_table_schema(table), rows, count, arena, checked, err));
    return vexi_table_put(table, checked, count, err);
}

vex_status vex_put_rows(vex_lake *lake, vex_string collection, const vex_row *rows,
                        size_t row_count, vex_error *err) {
    vexi_table *table;
    vexi_arena arena;
    if (row_count > 0 && rows == NULL) {
        return vexi_fail(err, VEX_INVALID, "rows is NULL");
    }
    VEX_TRY(vexi_api_table(lake, collection, &table, err));
    vexi_arena_init(&arena, lake->keeper->env);
    vex_status status = row_count == 0 ? VEX_OK : rows_put(table, rows, row_count, &arena, err);
    vexi_arena_deinit(&arena);
    vexi_table_release(table);
    return status;
}

/* ---- From Arrow ------------------------------------------------------------------------------ */

static vex_status stream_failed(struct ArrowArrayStream *stream, int code, vex_error *err) {
    const char *text = stream->get_last_error == NULL ? NULL : stream->get_last_error(stream);
    return vexi_fail_code(err, VEX_INVALID, code, "the stream of rows failed: %s",
                          text != NULL ? text : strerror(code));
}

/* Put one batch; it is released by the caller. */
static vex_status batch_put(vexi_table *table, const vexi_env *env, const vexi_arrow_layout *layout,
                            const struct ArrowArray *batch, uint64_t *row_count, vex_error *err) {
    vexi_arena arena;
    vex_row *rows;
    size_t count;
    vexi_arena_init(&arena, env);
    vex_status status =
        vexi_arrow_rows_read(layout, vexi_table_schema(table), batch, &arena, &rows, &count, err);
    if (status == VEX_OK && count > 0) {
        status = rows_put(table, rows, count, &arena, err);
    }
    if (status == VEX_OK) {
        *row_count += count;
    }
    vexi_arena_deinit(&arena);
    return status;
}

static vex_status stream_put(vexi_table *table, const vexi_env *env,
                             struct ArrowArrayStream *stream, uint64_t *row_count, vex_error *err) {
    struct ArrowSchema schema = {0};
    vexi_arrow_layout layout;
    int code = stream->get_schema(stream, &schema);
    if (code != 0) {
        return stream_failed(stream, code, err);
    }
    vex_status status = vexi_arrow_layout_read(&schema, vexi_table_schema(table), &layout, err);
    if (schema.release != NULL) {
        schema.release(&schema);
    }
    while (status == VEX_OK) {
        struct ArrowArray batch = {0};
        code = stream->get_next(stream, &batch);
        if (code != 0) {
            return stream_failed(stream, code, err);
        }
        if (batch.release == NULL) {
            break;
        }
        status = batch_put(table, env, &layout, &batch, row_count, err);
        batch.release(&batch);
    }
    return status;
}

vex_status vex_put(vex_lake *lake, vex_string collection, struct ArrowArrayStream *rows,
                   uint64_t *row_count, vex_error *err) {
    uint64_t stored = 0;
    vexi_table *table = NULL;
    vex_status status;
    if (row_count != NULL) {
        *row_count = 0;
    }
    if (rows == NULL || rows->release == NULL) {
        return vexi_fail(err, VEX_INVALID, "rows is %s", rows == NULL ? "NULL" : "released");
    }
    status = vexi_api_table(lake, collection, &table, err);
    if (status == VEX_OK) {
        status = stream_put(table, lake->keeper->env, rows, &stored, err);
        vexi_table_release(table);
    }
    if (rows->release != NULL) {
        rows->release(rows);
    }
    if (row_count != NULL) {
        *row_count = stored;
    }
    return status;
}

/* ---- Delete and flush ------------------------------------------------------------------------ */

vex_status vex_delete(vex_lake *lake, vex_string collection, const vex_string *ids, size_t id_count,
                      uint8_t *existed, vex_error *err) {
    vexi_table *table;
    if (existed != NULL && id_count > 0) {
        memset(existed, 0, id_count);
    }
    if (id_count > 0 && ids == NULL) {
        return vexi_fail(err, VEX_INVALID, "ids is NULL");
    }
    VEX_TRY(vexi_api_table(lake, collection, &table, err));
    vex_status status = VEX_OK;
    for (size_t i = 0; i < id_count && status == VEX_OK; i++) {
        status = vexi_id_check(ids[i], err);
        if (status != VEX_OK && err != NULL) {
            err->row = (int64_t)i;
        }
    }
    if (status == VEX_OK && id_count > 0) {
        status = vexi_table_delete(table, ids, id_count, existed, err);
    }
    vexi_table_release(table);
    return status;
}

vex_status vex_flush(vex_lake *lake, vex_string collection, vex_error *err) {
    vexi_table *table;
    if (lake == NULL) {
        return vexi_fail(err, VEX_INVALID, "lake is NULL");
    }
    if (collection.data == NULL) {
        return vexi_lake_flush(lake->lake, err);
    }
    VEX_TRY(vexi_api_table(lake, collection, &table, err));
    vex_status status = vexi_table_flush(table, err);
    vexi_table_release(table);
    return status;
}
