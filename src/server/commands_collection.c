/* Commands about whole collections, on workers. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/type.h"
#include "server/arguments.h"
#include "server/commands.h"
#include "server/rows.h"

static void reply_status(vexi_call *call, vex_status status, const vex_error *err) {
    if (status == VEX_OK) {
        vexi_resp_simple(call->reply, "OK");
    } else {
        vexi_reply_error(call->reply, err);
    }
}

void vexi_command_vcreate(vexi_call *call) {
    vexi_create_arguments arguments;
    vex_error err;
    vex_status status =
        vexi_parse_create(call->arguments + 1, call->argument_count - 1, &arguments, &err);
    if (status == VEX_OK) {
        status =
            vex_collection_create(call->server->lake, arguments.name, &arguments.options, &err);
    }
    reply_status(call, status, &err);
}

void vexi_command_vdrop(vexi_call *call) {
    vex_error err;
    vex_status status = vex_collection_drop(call->server->lake, call->arguments[1], &err);
    reply_status(call, status, &err);
}

void vexi_command_vlist(vexi_call *call) {
    struct ArrowSchema schema;
    struct ArrowArray batch;
    vex_error err;
    if (vex_collection_list(call->server->lake, &schema, &batch, &err) != VEX_OK) {
        vexi_reply_error(call->reply, &err);
        return;
    }
    vexi_rows rows = {.schema = &schema, .batch = &batch};
    vexi_resp_array(call->reply, (size_t)vexi_rows_count(&rows));
    for (int64_t i = 0; i < vexi_rows_count(&rows); i++) {
        vex_string name = vexi_rows_string(&rows, 0, i);
        vexi_resp_bulk(call->reply, name.data, name.size);
    }
    schema.release(&schema);
    batch.release(&batch);
}

void vexi_command_vflush(vexi_call *call) {
    vex_string name = {0};
    if (call->argument_count > 2) {
        vexi_resp_error(call->reply, "ERR wrong number of arguments for 'vflush' command");
        return;
    }
    if (call->argument_count == 2) {
        name = call->arguments[1];
    }
    vex_error err;
    reply_status(call, vex_flush(call->server->lake, name, &err), &err);
}

static void field_text(vexi_buffer *out, const char *name, const char *value) {
    vexi_resp_bulk_text(out, name);
    vexi_resp_bulk_text(out, value);
}

static void field_number(vexi_buffer *out, const char *name, uint64_t value) {
    vexi_resp_bulk_text(out, name);
    vexi_resp_integer(out, value > INT64_MAX ? INT64_MAX : (int64_t)value);
}

void vexi_command_vinfo(vexi_call *call) {
    if (call->argument_count > 2) {
        vexi_resp_error(call->reply, "ERR wrong number of arguments for 'vinfo' command");
        return;
    }
    static const char *const metrics[] = {"l2", "cosine", "ip"};
    static const char *const indexes[] = {"auto", "flat", "ivf", "hnsw"};
    vex_string name = call->argument_count == 2 ? call->arguments[1] : vexi_string_of("default");
    vex_collection_info info;
    vex_error err;
    vex_status status = vex_collection_refresh(call->server->lake, name, &err);
    if (status == VEX_OK || status == VEX_IO) { /* else what is known */
        status = vex_collection_describe(call->server->lake, name, &info, &err);
    }
    if (status == VEX_NOT_FOUND) {
        vexi_resp_null(call->reply, call->protocol);
        return;
    }
    if (status != VEX_OK) {
        vexi_reply_error(call->reply, &err);
        return;
    }
    vexi_buffer *out = call->reply;
    /* Redis' names first, where they mean something here; then ours. */
    vexi_resp_map(out, call->protocol, 27);
    field_text(out, "quant-type", "f32");
    field_number(out, "vector-dim", info.dimension);
    field_number(out, "size", info.row_count);
    field_number(out, "projection-input-dim", 0);
    field_text(out, "vset-uid", info.uuid);
    field_text(out, "metric", info.metric <= VEX_METRIC_IP ? metrics[info.metric] : "unknown");
    field_text(out, "index", info.index <= VEX_INDEX_HNSW ? indexes[info.index] : "unknown");
    vexi_resp_bulk_text(out, "recall");
    vexi_resp_double(out, call->protocol, round((double)info.recall * 1e6) / 1e6);
    field_number(out, "bits", info.bits);
    vexi_resp_bulk_text(out, "columns");
    vexi_resp_map(out, call->protocol, info.column_count);
    for (uint32_t i = 0; i < info.column_count; i++) {
        field_text(out, info.columns[i].name, vexi_type_name(info.columns[i].type));
    }
    field_number(out, "memtable-rows", info.memtable_row_count);
    field_number(out, "memtable-bytes", info.memtable_size_bytes);
    field_number(out, "segments", info.segment_count);
    field_number(out, "segment-rows", info.segment_row_count);
    field_number(out, "segment-rows-deleted", info.segment_deleted_count);
    field_number(out, "parquet-bytes", info.segment_size_bytes);
    field_number(out, "index-bytes", info.index_size_bytes);
    field_number(out, "segments-damaged", info.damaged_segment_count);
    field_number(out, "segments-unindexed", info.unindexed_segment_count);
    field_number(out, "graphs", info.graph_count);
    field_number(out, "graph-bytes", info.graph_size_bytes);
    field_number(out, "graphs-missing", info.graph_missing_count);
    vexi_resp_bulk_text(out, "version");
    vexi_resp_integer(out, info.version);
    field_number(out, "flushes", info.flush_count);
    field_number(out, "written-here", info.is_written_here ? 1 : 0);
    field_number(out, "behind-ms", info.follow_age_ns / 1000000u);
    field_text(out, "last-error", info.last_error);
}

void vexi_command_vwarm(vexi_call *call) {
    vex_warm_options options = {.size = sizeof options};
    vex_warm_stats stats;
    vex_error err;
    if (call->argument_count > 3 ||
        (call->argument_count == 3 && !vexi_word_is(call->arguments[2], "VECTORS"))) {
        vexi_resp_error(call->reply, "ERR syntax error: VWARM collection [VECTORS]");
        return;
    }
    options.vectors = call->argument_count == 3;
    if (vex_collection_warm(call->server->lake, call->arguments[1], &options, &stats, &err) !=
        VEX_OK) {
        vexi_reply_error(call->reply, &err);
        return;
    }
    vexi_resp_map(call->reply, call->protocol, 6);
    field_number(call->reply, "segments", stats.segment_count);
    field_number(call->reply, "index-bytes", stats.index_bytes);
    field_number(call->reply, "data-bytes", stats.data_bytes);
    field_number(call->reply, "graphs", stats.graph_count);
    field_number(call->reply, "graphs-missing", stats.graph_missing_count);
    field_number(call->reply, "left-out-bytes", stats.left_out_bytes);
}

/* Whether `path` is `folder` or lies below it. Both are real paths. */
static bool is_below(const char *path, const char *folder) {
    size_t size = strlen(folder);
    while (size > 1 && folder[size - 1] == '/') {
        size--;
    }
    return strncmp(path, folder, size) == 0 &&
           (path[size] == '/' || path[size] == '\0' || size == 1);
}

vex_status vexi_import_path(const vexi_settings *settings, vex_string uri, char *out, size_t size,
                            vex_error *err) {
    out[0] = '\0';
    if (settings->import_dir_count == 0) {
        return vexi_fail(err, VEX_INVALID,
                         "VIMPORT is off: start the server with --import-dir FOLDER");
    }
    char path[PATH_MAX];
    if (uri.size > 7 && memcmp(uri.data, "file://", 7) == 0) {
        uri.data += 7;
        uri.size -= 7;
    }
    if (uri.size == 0 || uri.size >= sizeof path || memchr(uri.data, '\0', uri.size) != NULL) {
        return vexi_fail(err, VEX_INVALID, "the file's name is empty, too long or not a path");
    }
    memcpy(path, uri.data, uri.size);
    path[uri.size] = '\0';
    char real[PATH_MAX];
    bool found = realpath(path, real) != NULL;
    for (uint64_t i = 0; found && i < settings->import_dir_count; i++) {
        char folder[PATH_MAX];
        if (realpath(settings->import_dirs[i], folder) != NULL && is_below(real, folder) &&
            strlen(real) < size) {
            memcpy(out, real, strlen(real) + 1);
            return VEX_OK;
        }
    }
    return vexi_fail(err, VEX_INVALID,
                     "no such file below the folders that --import-dir names: '%.200s'", path);
}

void vexi_command_vimport(vexi_call *call) {
    vex_string collection = vexi_string_of("default");
    const vex_string *arguments = call->arguments;
    if (call->argument_count == 4 && vexi_word_is(arguments[2], "INTO")) {
        collection = arguments[3];
    } else if (call->argument_count != 2) {
        vexi_resp_error(call->reply, "ERR syntax error: VIMPORT uri [INTO collection]");
        return;
    }
    char path[PATH_MAX];
    vex_error err;
    uint64_t row_count = 0;
    vex_status status =
        vexi_import_path(&call->server->settings, arguments[1], path, sizeof path, &err);
    if (status == VEX_OK) {
        const char *paths[1] = {path};
        vex_import_options options = {.size = sizeof options};
        status = vex_import(call->server->lake, collection, paths, 1, &options, &row_count, &err);
    }
    if (status != VEX_OK) {
        vexi_reply_error(call->reply, &err);
        return;
    }
    vexi_metric_add_shared(&call->server->metrics.rows_written, row_count);
    vexi_resp_integer(call->reply, (int64_t)row_count);
}
