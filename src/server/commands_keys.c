/* Collections as Redis keys, and INFO; on workers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/checksum.h"
#include "server/arguments.h"
#include "server/commands.h"
#include "server/rows.h"

/* The names of all collections. */
typedef struct name_list {
    struct ArrowSchema schema;
    struct ArrowArray batch;
    vexi_rows rows;
} name_list;

static bool take_names(vexi_call *call, name_list *names) {
    vex_error err;
    if (vex_collection_list(call->server->lake, &names->schema, &names->batch, &err) != VEX_OK) {
        vexi_reply_error(call->reply, &err);
        return false;
    }
    names->rows = (vexi_rows){.schema = &names->schema, .batch = &names->batch};
    return true;
}

static void give_names(name_list *names) {
    names->schema.release(&names->schema);
    names->batch.release(&names->batch);
}

void vexi_command_keys(vexi_call *call) {
    name_list names;
    if (!take_names(call, &names)) {
        return;
    }
    for (int pass = 0; pass < 2; pass++) {
        size_t found = 0;
        for (int64_t i = 0; i < vexi_rows_count(&names.rows); i++) {
            vex_string name = vexi_rows_string(&names.rows, 0, i);
            if (vexi_glob_match(call->arguments[1], name, false)) {
                found++;
                if (pass == 1) {
                    vexi_resp_bulk(call->reply, name.data, name.size);
                }
            }
        }
        if (pass == 0) {
            vexi_resp_array(call->reply, found);
        }
    }
    give_names(&names);
}

void vexi_command_dbsize(vexi_call *call) {
    name_list names;
    if (take_names(call, &names)) {
        vexi_resp_integer(call->reply, vexi_rows_count(&names.rows));
        give_names(&names);
    }
}

/* SCAN walks the names in the order of a hash of theirs; the cursor is the hash to go on with. So a
 * name that is there from the beginning to the end of a walk is returned, whatever is created or
 * dropped meanwhile. */
typedef struct scan_name {
    uint64_t hash; /* 1.. 2^48 */
    vex_string name;
} scan_name;

static int compare_scan_names(const void *a, const void *b) {
    uint64_t x = ((const scan_name *)a)->hash;
    uint64_t y = ((const scan_name *)b)->hash;
    return x < y ? -1 : x > y ? 1 : 0;
}

void vexi_command_scan(vexi_call *call) {
    const vex_string *arguments = call->arguments;
    int64_t cursor;
    int64_t count = 10;
    vex_string pattern = vexi_string_of("*");
    bool of_type = true;
    if (!vexi_parse_i64(arguments[1], &cursor) || cursor < 0) {
        vexi_resp_error(call->reply, "ERR invalid cursor");
        return;
    }
    for (uint32_t i = 2; i < call->argument_count; i += 2) {
        bool has_value = i + 1 < call->argument_count;
        if (has_value && vexi_word_is(arguments[i], "MATCH")) {
            pattern = arguments[i + 1];
        } else if (has_value && vexi_word_is(arguments[i], "COUNT")) {
            if (!vexi_parse_i64(arguments[i + 1], &count)) {
                vexi_resp_error(call->reply, "ERR value is not an integer or out of range");
                return;
            }
        } else if (has_value && vexi_word_is(arguments[i], "TYPE")) {
            of_type = vexi_word_is(arguments[i + 1], "VECTORSET");
        } else {
            count = 0;
        }
        if (count < 1) {
            vexi_resp_error(call->reply, "ERR syntax error");
            return;
        }
    }
    name_list names;
    if (!take_names(call, &names)) {
        return;
    }
    size_t total = (size_t)vexi_rows_count(&names.rows);
    scan_name *sorted = vexi_alloc_array(call->server->env, total, sizeof *sorted);
    if (sorted == NULL) {
        give_names(&names);
        vexi_resp_error(call->reply, "ERR out of memory");
        return;
    }
    for (size_t i = 0; i < total; i++) {
        vex_string name = vexi_rows_string(&names.rows, 0, (int64_t)i);
        sorted[i] =
            (scan_name){.hash = (vexi_hash64(name.data, name.size) >> 16) + 1, .name = name};
    }
    if (total > 0) {
        qsort(sorted, total, sizeof *sorted, compare_scan_names);
    }
    size_t start = 0;
    while (start < total && sorted[start].hash < (uint64_t)cursor) {
        start++;
    }
    size_t end = total - start < (uint64_t)count ? total : start + (size_t)count;
    while (end > start && end < total && sorted[end].hash == sorted[end - 1].hash) {
        end++;
    }
    size_t found = 0;
    for (size_t i = start; i < end; i++) {
        found += of_type && vexi_glob_match(pattern, sorted[i].name, false) ? 1 : 0;
    }
    char text[VEXI_NUMBER_SIZE_MAX];
    size_t size = vexi_format_i64(end < total ? (int64_t)sorted[end].hash : 0, text);
    vexi_resp_array(call->reply, 2);
    vexi_resp_bulk(call->reply, text, size);
    vexi_resp_array(call->reply, found);
    for (size_t i = start; i < end; i++) {
        if (of_type && vexi_glob_match(pattern, sorted[i].name, false)) {
            vexi_resp_bulk(call->reply, sorted[i].name.data, sorted[i].name.size);
        }
    }
    vexi_free(call->server->env, sorted);
    give_names(&names);
}

static vex_status exists(vexi_call *call, vex_string name, bool *out, vex_error *err) {
    vex_collection_info info;
    vex_status status = vex_collection_describe(call->server->lake, name, &info, err);
    *out = status == VEX_OK;
    /* What cannot be a collection's name is none. */
    return status == VEX_NOT_FOUND || status == VEX_INVALID ? VEX_OK : status;
}

void vexi_command_type(vexi_call *call) {
    bool found;
    vex_error err;
    if (exists(call, call->arguments[1], &found, &err) != VEX_OK) {
        vexi_reply_error(call->reply, &err);
    } else {
        vexi_resp_simple(call->reply, found ? "vectorset" : "none");
    }
}

void vexi_command_exists(vexi_call *call) {
    int64_t count = 0;
    for (uint32_t i = 1; i < call->argument_count; i++) {
        bool found;
        vex_error err;
        if (exists(call, call->arguments[i], &found, &err) != VEX_OK) {
            vexi_reply_error(call->reply, &err);
            return;
        }
        count += found ? 1 : 0;
    }
    vexi_resp_integer(call->reply, count);
}

void vexi_command_del(vexi_call *call) {
    int64_t count = 0;
    for (uint32_t i = 1; i < call->argument_count; i++) {
        vex_error err;
        vex_status status = vex_collection_drop(call->server->lake, call->arguments[i], &err);
        if (status == VEX_OK) {
            count++;
        } else if (status != VEX_NOT_FOUND && status != VEX_INVALID) {
            vexi_reply_error(call->reply, &err);
            return;
        }
    }
    vexi_resp_integer(call->reply, count);
}

/* ---- INFO ------------------------------------------------------------------------------------ */

static void info_server(vexi_call *call, vexi_buffer *out) {
    const vexi_server *server = call->server;
    uint64_t up = (vexi_monotonic_ns(server->env) - server->start_ns) / 1000000000u;
    struct utsname os;
    bool known = uname(&os) == 0;
    vexi_buffer_format(out,
                       "# Server\r\nvexlake_version:%s\r\nredis_mode:standalone\r\nos:%s %s %s\r\n"
                       "arch_bits:%zu\r\nprocess_id:%ld\r\nrun_id:%s\r\ntcp_port:%u\r\n"
                       "uptime_in_seconds:%llu\r\nuptime_in_days:%llu\r\n",
                       vex_version(), known ? os.sysname : "?", known ? os.release : "?",
                       known ? os.machine : "?", sizeof(void *) * 8, (long)getpid(), server->run_id,
                       server->port, (unsigned long long)up, (unsigned long long)(up / 86400));
}

static void info_clients(vexi_call *call, vexi_buffer *out) {
    vexi_buffer_format(out, "# Clients\r\nconnected_clients:%llu\r\nmaxclients:%llu\r\n",
                       (unsigned long long)vexi_metric_get(&call->server->metrics.clients),
                       (unsigned long long)call->server->settings.client_max);
}

static void info_memory(vexi_call *call, vexi_buffer *out) {
    (void)call;
    size_t resident = 0;
    uv_resident_set_memory(&resident);
    vexi_buffer_format(out, "# Memory\r\nused_memory_rss:%zu\r\n", resident);
}

static void info_stats(vexi_call *call, vexi_buffer *out) {
    const vexi_metrics *metrics = &call->server->metrics;
    vexi_buffer_format(
        out,
        "# Stats\r\ntotal_connections_received:%llu\r\ntotal_commands_processed:%llu\r\n"
        "total_net_input_bytes:%llu\r\ntotal_net_output_bytes:%llu\r\nrejected_connections:%llu\r\n"
        "protocol_errors:%llu\r\nsearches:%llu\r\nsearches_on_loop:%llu\r\nrows_written:%llu\r\n"
        "gets:%llu\r\ngets_from_memory:%llu\r\n",
        (unsigned long long)vexi_metric_get(&metrics->connections),
        (unsigned long long)vexi_metric_get(&metrics->commands),
        (unsigned long long)vexi_metric_get(&metrics->input_bytes),
        (unsigned long long)vexi_metric_get(&metrics->output_bytes),
        (unsigned long long)vexi_metric_get(&metrics->connections_rejected),
        (unsigned long long)vexi_metric_get(&metrics->errors),
        (unsigned long long)vexi_metric_get(&metrics->searches),
        (unsigned long long)vexi_metric_get(&metrics->searches_on_loop),
        (unsigned long long)vexi_metric_get(&metrics->rows_written),
        (unsigned long long)vexi_metric_get(&metrics->gets),
        (unsigned long long)vexi_metric_get(&metrics->gets_on_loop));
}

/* Sums over all collections. */
static void info_lake(vexi_call *call, vexi_buffer *out, bool keyspace_only) {
    struct ArrowSchema schema;
    struct ArrowArray batch;
    vex_error err;
    if (vex_collection_list(call->server->lake, &schema, &batch, &err) != VEX_OK) {
        return;
    }
    vexi_rows rows = {.schema = &schema, .batch = &batch};
    uint64_t collections = 0;
    uint64_t live_rows = 0;
    uint64_t memory = 0;
    uint64_t segments = 0;
    uint64_t damaged = 0;
    uint64_t bytes = 0;
    for (int64_t i = 0; i < vexi_rows_count(&rows); i++) {
        vex_collection_info info;
        if (vex_collection_describe(call->server->lake, vexi_rows_string(&rows, 0, i), &info,
                                    &err) != VEX_OK) {
            continue; /* dropped meanwhile */
        }
        collections++;
        live_rows += info.row_count;
        memory += info.memtable_size_bytes;
        segments += info.segment_count;
        damaged += info.damaged_segment_count;
        bytes += info.segment_size_bytes + info.index_size_bytes;
    }
    schema.release(&schema);
    batch.release(&batch);
    if (keyspace_only) {
        vexi_buffer_text(out, "# Keyspace\r\n");
        if (collections > 0) {
            vexi_buffer_format(out, "db0:keys=%llu,expires=0,avg_ttl=0\r\n",
                               (unsigned long long)collections);
        }
        return;
    }
    vexi_buffer_format(
        out,
        "# Lake\r\nlake:%s\r\ncollections:%llu\r\nrows:%llu\r\nmemtable_bytes:%llu\r\n"
        "segments:%llu\r\nsegments_damaged:%llu\r\nsegment_bytes:%llu\r\n",
        call->server->settings.lake, (unsigned long long)collections, (unsigned long long)live_rows,
        (unsigned long long)memory, (unsigned long long)segments, (unsigned long long)damaged,
        (unsigned long long)bytes);
}

void vexi_command_info(vexi_call *call) {
    static const char *const sections[] = {"SERVER",      "CLIENTS", "MEMORY",  "STATS",
                                           "REPLICATION", "LAKE",    "KEYSPACE"};
    vexi_buffer text;
    vexi_buffer_init(&text, call->server->env, 1u << 20);
    for (size_t s = 0; s < sizeof sections / sizeof sections[0]; s++) {
        bool wanted = call->argument_count == 1;
        for (uint32_t a = 1; a < call->argument_count; a++) {
            wanted = wanted || vexi_word_is(call->arguments[a], sections[s]) ||
                     vexi_word_is(call->arguments[a], "ALL") ||
                     vexi_word_is(call->arguments[a], "DEFAULT") ||
                     vexi_word_is(call->arguments[a], "EVERYTHING");
        }
        if (!wanted) {
            continue;
        }
        if (text.size > 0) {
            vexi_buffer_text(&text, "\r\n");
        }
        switch (s) {
        case 0:
            info_server(call, &text);
            break;
        case 1:
            info_clients(call, &text);
            break;
        case 2:
            info_memory(call, &text);
            break;
        case 3:
            info_stats(call, &text);
            break;
        case 4:
            vexi_buffer_text(&text, "# Replication\r\nrole:master\r\n");
            break;
        case 5:
            info_lake(call, &text, false);
            break;
        default:
            info_lake(call, &text, true);
            break;
        }
    }
    if (text.failed) {
        vexi_resp_error(call->reply, "ERR out of memory");
    } else {
        vexi_resp_verbatim(call->reply, call->protocol, text.data, text.size);
    }
    vexi_buffer_deinit(&text);
}
