/* /metrics: which metrics there are, in the order in which they are told.
 *
 * docs/operations.md explains each of them, and a test holds the two and the dashboard together. A
 * metric is added here, by one entry of a table where it is one number. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/expose.h"
#include "server/monitor.h"
#include "server/server_internal.h"

static const vexi_label no_label = {.key = NULL};

static vexi_label label_text(const char *key, const char *value) {
    return (vexi_label){.key = key, .value = vexi_string_of(value)};
}

static void one_number(vexi_exposition *e, const char *name, vexi_expose_type type,
                       const char *unit, const char *help, uint64_t value) {
    vexi_expose_family(e, name, type, unit, help);
    vexi_expose_number(e, no_label, value);
}

static void one_duration(vexi_exposition *e, const char *name, vexi_expose_type type,
                         const char *help, uint64_t ns) {
    vexi_expose_family(e, name, type, "seconds", help);
    vexi_expose_seconds(e, no_label, ns);
}

static void read_buckets(const vexi_histogram *histogram,
                         uint64_t buckets[VEXI_HISTOGRAM_BUCKETS]) {
    for (uint32_t b = 0; b < VEXI_HISTOGRAM_BUCKETS; b++) {
        buckets[b] = vexi_metric_get(&histogram->buckets[b]);
    }
}

static void one_histogram(vexi_exposition *e, vexi_label label, const vexi_histogram *histogram) {
    uint64_t buckets[VEXI_HISTOGRAM_BUCKETS];
    read_buckets(histogram, buckets);
    vexi_expose_histogram(e, label, buckets, vexi_metric_get(&histogram->sum_ns));
}

/* ---- The process ----------------------------------------------------------------------------- */

static uint64_t open_file_count(void) {
    DIR *folder = opendir("/proc/self/fd");
    uint64_t count = 0;
    if (folder != NULL) {
        while (readdir(folder) != NULL) {
            count++;
        }
        closedir(folder);
    }
    return count > 3 ? count - 3 : 0; /* ".", ".." and the folder itself */
}

static uint64_t time_ns(struct timeval time) {
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_usec * 1000u;
}

static void page_process(const vexi_server *server, vexi_exposition *e) {
    vexi_expose_family(e, "vexlake_build", VEXI_EXPOSE_INFO, "", "The version that runs.");
    vexi_expose_number(e, label_text("version", vex_version()), 1);

    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        one_duration(e, "process_cpu_seconds", VEXI_EXPOSE_COUNTER,
                     "Processor time of the process, user and system.",
                     time_ns(usage.ru_utime) + time_ns(usage.ru_stime));
    }
    size_t resident = 0;
    if (uv_resident_set_memory(&resident) == 0) {
        one_number(e, "process_resident_memory_bytes", VEXI_EXPOSE_GAUGE, "bytes",
                   "Memory that is resident, pages of mapped segments among it.", resident);
    }
    one_number(e, "process_open_fds", VEXI_EXPOSE_GAUGE, "", "Open files and sockets.",
               open_file_count());
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        one_number(e, "process_max_fds", VEXI_EXPOSE_GAUGE, "", "Files that may be open at once.",
                   limit.rlim_cur);
    }
    one_duration(e, "process_start_time_seconds", VEXI_EXPOSE_GAUGE,
                 "When the process was started, since 1970.",
                 (uint64_t)server->start_wall_us * 1000u);
}

/* ---- The server ------------------------------------------------------------------------------ */

typedef struct server_metric {
    const char *name;
    vexi_expose_type type;
    const char *unit;
    size_t offset; /* in vexi_metrics */
    const char *help;
} server_metric;

#define METRIC(field) offsetof(vexi_metrics, field)

static const server_metric server_metrics[] = {
    {"vexlake_connections", VEXI_EXPOSE_GAUGE, "", METRIC(clients), "Connections of clients."},
    {"vexlake_connections_accepted", VEXI_EXPOSE_COUNTER, "", METRIC(connections),
     "Connections of clients that were made, the refused ones too."},
    {"vexlake_connections_rejected", VEXI_EXPOSE_COUNTER, "", METRIC(connections_rejected),
     "Connections refused because there were maxclients."},
    {"vexlake_received_bytes", VEXI_EXPOSE_COUNTER, "bytes", METRIC(input_bytes),
     "Received from clients."},
    {"vexlake_sent_bytes", VEXI_EXPOSE_COUNTER, "bytes", METRIC(output_bytes), "Sent to clients."},
    {"vexlake_commands", VEXI_EXPOSE_COUNTER, "", METRIC(commands),
     "Commands that were taken, the refused ones too."},
    {"vexlake_commands_refused", VEXI_EXPOSE_COUNTER, "", METRIC(commands_refused),
     "Commands that were unknown, had a wrong number of arguments or came before AUTH."},
    {"vexlake_protocol_errors", VEXI_EXPOSE_COUNTER, "", METRIC(errors),
     "Connections ended for what they sent or for replies beyond their limit."},
    {"vexlake_searches", VEXI_EXPOSE_COUNTER, "", METRIC(searches), "Searches."},
    {"vexlake_searches_on_loop", VEXI_EXPOSE_COUNTER, "", METRIC(searches_on_loop),
     "Searches that were short enough to be made on the event loop."},
    {"vexlake_searches_unlisted", VEXI_EXPOSE_COUNTER, "", METRIC(searches_unlisted),
     "Searches of collections that found no place among those told apart, or that do not exist."},
    {"vexlake_search_steps", VEXI_EXPOSE_COUNTER, "", METRIC(search_steps),
     "Requests of searches that had to wait for one another; those sent together are one."},
    {"vexlake_search_store_requests", VEXI_EXPOSE_COUNTER, "", METRIC(search_requests),
     "Requests of searches to the lake's store."},
    {"vexlake_search_store_bytes", VEXI_EXPOSE_COUNTER, "bytes", METRIC(search_request_bytes),
     "Bytes that searches asked the lake's store for."},
    {"vexlake_search_cache_hits", VEXI_EXPOSE_COUNTER, "", METRIC(search_cache_hits),
     "Reads of searches that a cache answered instead of the lake's store."},
    {"vexlake_rows_written", VEXI_EXPOSE_COUNTER, "", METRIC(rows_written),
     "Rows that were stored, by VSET or VIMPORT."},
    {"vexlake_gets", VEXI_EXPOSE_COUNTER, "", METRIC(gets), "VGET commands."},
    {"vexlake_gets_from_memory", VEXI_EXPOSE_COUNTER, "", METRIC(gets_on_loop),
     "VGET commands that the event loop answered from memory."},
    {"vexlake_jobs", VEXI_EXPOSE_GAUGE, "", METRIC(jobs),
     "Jobs that worker threads have or that wait for one."},
};

static void page_server(const vexi_server *server, vexi_exposition *e) {
    const vexi_metrics *metrics = &server->metrics;
    for (size_t i = 0; i < sizeof server_metrics / sizeof server_metrics[0]; i++) {
        const server_metric *m = &server_metrics[i];
        const _Atomic uint64_t *value =
            (const _Atomic uint64_t *)(const void *)((const char *)metrics + m->offset);
        one_number(e, m->name, m->type, m->unit, m->help, vexi_metric_get(value));
    }
    one_number(e, "vexlake_connections_limit", VEXI_EXPOSE_GAUGE, "", "maxclients, as it holds.",
               server->settings.client_max);
    uint64_t beat_ns = vexi_metric_get(&metrics->beat_ns);
    uint64_t now_ns = vexi_monotonic_ns(server->env);
    one_duration(e, "vexlake_loop_age_seconds", VEXI_EXPOSE_GAUGE,
                 "Since the event loop last turned by its timer of half a second.",
                 beat_ns != 0 && now_ns > beat_ns ? now_ns - beat_ns : 0);

    size_t count;
    const vexi_command *commands = vexi_commands(&count);
    vexi_expose_family(e, "vexlake_command_duration_seconds", VEXI_EXPOSE_HISTOGRAM, "seconds",
                       "From when a command was begun to when its reply was there.");
    for (size_t i = 0; i < count; i++) {
        one_histogram(e, label_text("command", commands[i].name), &metrics->by_command[i].latency);
    }
    vexi_expose_family(e, "vexlake_command_errors", VEXI_EXPOSE_COUNTER, "",
                       "Commands that were answered by an error.");
    for (size_t i = 0; i < count; i++) {
        vexi_expose_number(e, label_text("command", commands[i].name),
                           vexi_metric_get(&metrics->by_command[i].errors));
    }

    static const char *const paths[VEXI_HTTP_PATH_COUNT] = {"/metrics", "/health", "/ready",
                                                            "other"};
    vexi_expose_family(e, "vexlake_http_requests", VEXI_EXPOSE_COUNTER, "",
                       "Requests to the HTTP port.");
    for (int i = 0; i < VEXI_HTTP_PATH_COUNT; i++) {
        vexi_expose_number(e, label_text("path", paths[i]), vexi_metric_get(&metrics->http[i]));
    }
}

/* ---- Searches by collection ------------------------------------------------------------------ */

/* With collections_lock. */
static vexi_label entry_label(const vexi_collection_metrics *entry) {
    return (vexi_label){.key = "collection",
                        .value = {.data = entry->name, .size = entry->name_size}};
}

static void page_searches(vexi_server *server, vexi_exposition *e) {
    vexi_metrics *metrics = &server->metrics;
    vexi_expose_family(e, "vexlake_search_duration_seconds", VEXI_EXPOSE_HISTOGRAM, "seconds",
                       "From when a search was begun to when its answer was there.");
    pthread_mutex_lock(&metrics->collections_lock);
    for (uint32_t i = 0; i < metrics->collection_count; i++) {
        const vexi_collection_metrics *entry = &metrics->collections[i];
        if (!atomic_load_explicit(&entry->gone, memory_order_relaxed)) {
            one_histogram(e, entry_label(entry), &entry->latency);
        }
    }
    vexi_expose_family(e, "vexlake_search_errors", VEXI_EXPOSE_COUNTER, "",
                       "Searches that were answered by an error.");
    for (uint32_t i = 0; i < metrics->collection_count; i++) {
        const vexi_collection_metrics *entry = &metrics->collections[i];
        if (!atomic_load_explicit(&entry->gone, memory_order_relaxed)) {
            vexi_expose_number(e, entry_label(entry), vexi_metric_get(&entry->errors));
        }
    }
    pthread_mutex_unlock(&metrics->collections_lock);
}

/* ---- The lake -------------------------------------------------------------------------------- */

typedef struct collection_metric {
    const char *name;  /* with a label for each collection */
    const char *total; /* of all collections; NULL: told by another metric */
    vexi_expose_type type;
    const char *unit;
    size_t offset; /* of a uint64_t in vexi_collection_sample */
    const char *help;
} collection_metric;

#define SAMPLE(field) offsetof(vexi_collection_sample, field)

static const collection_metric collection_metrics[] = {
    {"vexlake_collection_rows", "vexlake_rows", VEXI_EXPOSE_GAUGE, "", SAMPLE(row_count),
     "Live rows."},
    {"vexlake_collection_memtable_rows", "vexlake_memtable_rows", VEXI_EXPOSE_GAUGE, "",
     SAMPLE(memtable_row_count), "Rows and tombstones that are not yet in a segment."},
    {"vexlake_collection_memtable_bytes", "vexlake_memtable_bytes", VEXI_EXPOSE_GAUGE, "bytes",
     SAMPLE(memtable_size_bytes), "Memory that they take."},
    {"vexlake_collection_log_delay_seconds", "vexlake_log_delay_seconds", VEXI_EXPOSE_GAUGE,
     "seconds", SAMPLE(memtable_age_ns),
     "Age of the oldest row that is in the log and not yet in a segment; 0 where there is none."},
    {"vexlake_collection_follow_delay_seconds", "vexlake_follow_delay_seconds", VEXI_EXPOSE_GAUGE,
     "seconds", SAMPLE(follow_age_ns),
     "Since the newest rows of another node were known here; 0 where this node writes."},
    {"vexlake_collection_segments", "vexlake_segments", VEXI_EXPOSE_GAUGE, "",
     SAMPLE(segment_count), "Segments."},
    {"vexlake_collection_segments_damaged", "vexlake_segments_damaged", VEXI_EXPOSE_GAUGE, "",
     SAMPLE(damaged_segment_count), "Segments that searches refuse because they are damaged."},
    {"vexlake_collection_segments_unindexed", "vexlake_segments_unindexed", VEXI_EXPOSE_GAUGE, "",
     SAMPLE(unindexed_segment_count), "Segments that wait for an index and are searched exactly."},
    {"vexlake_collection_segment_rows", "vexlake_segment_rows", VEXI_EXPOSE_GAUGE, "",
     SAMPLE(segment_row_count), "Rows in segments, the deleted ones too."},
    {"vexlake_collection_segment_rows_deleted", "vexlake_segment_rows_deleted", VEXI_EXPOSE_GAUGE,
     "", SAMPLE(segment_deleted_count), "Of those, deleted or replaced."},
    {"vexlake_collection_parquet_bytes", "vexlake_parquet_bytes", VEXI_EXPOSE_GAUGE, "bytes",
     SAMPLE(segment_size_bytes), "Parquet files."},
    {"vexlake_collection_index_bytes", "vexlake_index_bytes", VEXI_EXPOSE_GAUGE, "bytes",
     SAMPLE(index_size_bytes), "Index files."},
    {"vexlake_collection_graphs", "vexlake_graphs", VEXI_EXPOSE_GAUGE, "", SAMPLE(graph_count),
     "Segments that are searched by a graph."},
    {"vexlake_collection_graphs_missing", "vexlake_graphs_missing", VEXI_EXPOSE_GAUGE, "",
     SAMPLE(graph_missing_count), "Segments whose graph is not built yet."},
    {"vexlake_collection_graph_bytes", "vexlake_graph_bytes", VEXI_EXPOSE_GAUGE, "bytes",
     SAMPLE(graph_size_bytes), "Graph files in use."},
    {"vexlake_collection_flushes", NULL, VEXI_EXPOSE_COUNTER, "", SAMPLE(flush_count),
     "Memtables that became segments since the lake was opened."},
};

static void collection_value(vexi_exposition *e, const collection_metric *m, vexi_label label,
                             const vexi_collection_sample *sample) {
    uint64_t value;
    memcpy(&value, (const char *)sample + m->offset, sizeof value);
    if (strcmp(m->unit, "seconds") == 0) {
        vexi_expose_seconds(e, label, value);
    } else {
        vexi_expose_number(e, label, value);
    }
}

static vexi_label sample_label(const vexi_collection_sample *sample) {
    return (vexi_label){.key = "collection",
                        .value = {.data = sample->name, .size = sample->name_size}};
}

static void page_collections(const vexi_lake_sample *sample, vexi_exposition *e) {
    for (size_t i = 0; i < sizeof collection_metrics / sizeof collection_metrics[0]; i++) {
        const collection_metric *m = &collection_metrics[i];
        if (m->total != NULL) {
            char help[160];
            snprintf(help, sizeof help, "All collections. %s", m->help);
            vexi_expose_family(e, m->total, m->type, m->unit, help);
            collection_value(e, m, no_label, &sample->total);
        }
        vexi_expose_family(e, m->name, m->type, m->unit, m->help);
        for (uint32_t c = 0; c < sample->listed_count; c++) {
            collection_value(e, m, sample_label(&sample->listed[c]), &sample->listed[c]);
        }
    }
    vexi_expose_family(e, "vexlake_collection_failing", VEXI_EXPOSE_GAUGE, "",
                       "1: background work ended with an error; VINFO tells which.");
    for (uint32_t c = 0; c < sample->listed_count; c++) {
        vexi_expose_number(e, sample_label(&sample->listed[c]), sample->listed[c].failing ? 1 : 0);
    }
    one_number(e, "vexlake_collections", VEXI_EXPOSE_GAUGE, "", "Collections.",
               sample->collection_count);
    one_number(e, "vexlake_collections_unlisted", VEXI_EXPOSE_GAUGE, "",
               "Collections that are in the totals alone: beyond the first 256 by name.",
               sample->collection_count - sample->failed_count - sample->listed_count);
    one_number(e, "vexlake_collections_unreadable", VEXI_EXPOSE_GAUGE, "",
               "Collections that could not be described, and are in no total.",
               sample->failed_count);
}

static void page_store(const vex_lake_stats *stats, vexi_exposition *e) {
    vexi_expose_family(e, "vexlake_store_operation_duration_seconds", VEXI_EXPOSE_HISTOGRAM,
                       "seconds", "Operations on the lake's storage.");
    for (int k = 0; k < VEX_STORE_OPERATION_COUNT; k++) {
        vexi_expose_histogram(
            e, label_text("operation", vex_store_operation_text((vex_store_operation)k)),
            stats->store[k].latency_buckets, stats->store[k].latency_ns);
    }
    vexi_expose_family(e, "vexlake_store_operation_errors", VEXI_EXPOSE_COUNTER, "",
                       "Operations on storage that failed; objects that are not there, or there "
                       "already, are no failures.");
    for (int k = 0; k < VEX_STORE_OPERATION_COUNT; k++) {
        vexi_expose_number(
            e, label_text("operation", vex_store_operation_text((vex_store_operation)k)),
            stats->store[k].error_count);
    }
    vexi_expose_family(e, "vexlake_store_bytes", VEXI_EXPOSE_COUNTER, "bytes",
                       "Read, mapped or written by operations on storage.");
    for (int k = 0; k < VEX_STORE_OPERATION_COUNT; k++) {
        vexi_expose_number(
            e, label_text("operation", vex_store_operation_text((vex_store_operation)k)),
            stats->store[k].byte_count);
    }
}

/* ---- The cache and the S3 server --------------------------------------------------------------
 */

typedef struct remote_metric {
    const char *name;
    const char *label; /* NULL: a family of its own; else another value of the family before */
    vexi_expose_type type;
    const char *unit;
    size_t offset; /* of a uint64_t: in vex_cache_stats, or in vex_request_stats */
    const char *help;
} remote_metric;

#define CACHE(field)   offsetof(vex_cache_stats, field)
#define REQUEST(field) offsetof(vex_request_stats, field)

static const remote_metric cache_metrics[] = {
    {"vexlake_cache_reads", "l1", VEXI_EXPOSE_COUNTER, "", CACHE(memory_read_count),
     "Blocks that were read, by who had them: l1 is memory, l2 the folder, store the bucket."},
    {NULL, "l2", VEXI_EXPOSE_COUNTER, "", CACHE(disk_read_count), NULL},
    {NULL, "store", VEXI_EXPOSE_COUNTER, "", CACHE(store_read_count), NULL},
    {"vexlake_cache_read_bytes", "l1", VEXI_EXPOSE_COUNTER, "bytes", CACHE(memory_read_bytes),
     "Their bytes: of l1 those that were asked for, else of whole blocks."},
    {NULL, "l2", VEXI_EXPOSE_COUNTER, "bytes", CACHE(disk_read_bytes), NULL},
    {NULL, "store", VEXI_EXPOSE_COUNTER, "bytes", CACHE(store_read_bytes), NULL},
    {"vexlake_cache_evictions", "l1", VEXI_EXPOSE_COUNTER, "", CACHE(memory_eviction_count),
     "Blocks that left for want of room."},
    {NULL, "l2", VEXI_EXPOSE_COUNTER, "", CACHE(disk_eviction_count), NULL},
    {"vexlake_cache_used_bytes", "l1", VEXI_EXPOSE_GAUGE, "bytes", CACHE(memory_size_bytes),
     "What is there."},
    {NULL, "l2", VEXI_EXPOSE_GAUGE, "bytes", CACHE(disk_size_bytes), NULL},
    {"vexlake_cache_limit_bytes", "l1", VEXI_EXPOSE_GAUGE, "bytes", CACHE(memory_limit_bytes),
     "What there may be."},
    {NULL, "l2", VEXI_EXPOSE_GAUGE, "bytes", CACHE(disk_limit_bytes), NULL},
    {"vexlake_cache_shared_reads", NULL, VEXI_EXPOSE_COUNTER, "", CACHE(shared_count),
     "Reads that waited for a block which another one was fetching."},
    {"vexlake_cache_passed_reads", NULL, VEXI_EXPOSE_COUNTER, "", CACHE(passed_count),
     "Reads of what is never cached: logs and claims."},
    {"vexlake_cache_filled_bytes", NULL, VEXI_EXPOSE_COUNTER, "bytes", CACHE(filled_bytes),
     "Cached because they were written here."},
    {"vexlake_cache_written_bytes", NULL, VEXI_EXPOSE_COUNTER, "bytes", CACHE(disk_written_bytes),
     "Written to the folder."},
    {"vexlake_cache_disk_errors", NULL, VEXI_EXPOSE_COUNTER, "", CACHE(disk_error_count),
     "Failures of the folder's disk; it rests for half a minute after one."},
    {"vexlake_cache_disk_corrupt", NULL, VEXI_EXPOSE_COUNTER, "", CACHE(disk_corrupt_count),
     "Blocks of the folder that did not match their checksum and were fetched anew."},
    {"vexlake_cache_distrusted", NULL, VEXI_EXPOSE_COUNTER, "", CACHE(distrusted_count),
     "Objects that were forgotten and read anew because they did not match their own checksums."},
};

static const remote_metric request_metrics[] = {
    {"vexlake_s3_requests", NULL, VEXI_EXPOSE_COUNTER, "", REQUEST(request_count),
     "HTTP requests that were sent, each attempt for itself."},
    {"vexlake_s3_retries", NULL, VEXI_EXPOSE_COUNTER, "", REQUEST(retry_count),
     "Of them, those that repeat one that failed."},
    {"vexlake_s3_hedges", NULL, VEXI_EXPOSE_COUNTER, "", REQUEST(hedge_count),
     "Of them, second ones beside a slow first."},
    {"vexlake_s3_errors", NULL, VEXI_EXPOSE_COUNTER, "", REQUEST(error_count),
     "Of them, those that failed; 404 and 412 are answers."},
    {"vexlake_s3_throttled", NULL, VEXI_EXPOSE_COUNTER, "", REQUEST(throttle_count),
     "Of those, answered slow down."},
    {"vexlake_s3_sent_bytes", NULL, VEXI_EXPOSE_COUNTER, "bytes", REQUEST(sent_bytes),
     "Sent in bodies."},
    {"vexlake_s3_received_bytes", NULL, VEXI_EXPOSE_COUNTER, "bytes", REQUEST(received_bytes),
     "Received in bodies."},
};

static uint64_t number_at(const void *stats, size_t offset) {
    uint64_t value;
    memcpy(&value, (const char *)stats + offset, sizeof value);
    return value;
}

static void page_remote(const vex_lake_stats *stats, vexi_exposition *e) {
    for (size_t i = 0; i < sizeof cache_metrics / sizeof cache_metrics[0]; i++) {
        const remote_metric *m = &cache_metrics[i];
        if (m->name != NULL) {
            vexi_expose_family(e, m->name, m->type, m->unit, m->help);
        }
        vexi_expose_number(e, m->label != NULL ? label_text("level", m->label) : no_label,
                           number_at(&stats->cache, m->offset));
    }
    for (size_t i = 0; i < sizeof request_metrics / sizeof request_metrics[0]; i++) {
        const remote_metric *m = &request_metrics[i];
        vexi_expose_family(e, m->name, m->type, m->unit, m->help);
        for (int k = 0; k < VEX_REQUEST_COUNT; k++) {
            vexi_expose_number(e, label_text("kind", vex_request_text((vex_request)k)),
                               number_at(&stats->requests[k], m->offset));
        }
    }
    vexi_expose_family(e, "vexlake_s3_request_duration_seconds", VEXI_EXPOSE_HISTOGRAM, "seconds",
                       "Requests that were answered, from their start to the end of the answer.");
    for (int k = 0; k < VEX_REQUEST_COUNT; k++) {
        vexi_expose_histogram(e, label_text("kind", vex_request_text((vex_request)k)),
                              stats->requests[k].latency_buckets, stats->requests[k].latency_ns);
    }
    one_number(e, "vexlake_s3_away", VEXI_EXPOSE_GAUGE, "",
               "1: the server does not answer, and what needs it fails at once.",
               stats->store_away ? 1 : 0);
    one_number(e, "vexlake_s3_outages", VEXI_EXPOSE_COUNTER, "", "How often it went.",
               stats->store_away_count);
}

static void page_lake(const vexi_server *server, const vexi_lake_sample *sample,
                      vexi_exposition *e) {
    const vex_lake_stats *stats = &sample->lake;
    page_collections(sample, e);
    one_number(e, "vexlake_memtable_used_bytes", VEXI_EXPOSE_GAUGE, "bytes",
               "Memory of all memtables, as its limit counts it.", stats->memtable_size_bytes);
    one_number(e, "vexlake_memtable_limit_bytes", VEXI_EXPOSE_GAUGE, "bytes",
               "That limit: writes wait, then fail, above it.", stats->memtable_limit_bytes);
    one_number(e, "vexlake_graph_used_bytes", VEXI_EXPOSE_GAUGE, "bytes",
               "Memory of graphs, as its limit counts it.", stats->graph_size_bytes);
    one_number(e, "vexlake_graph_limit_bytes", VEXI_EXPOSE_GAUGE, "bytes",
               "That limit: segments beyond it are searched by their lists.",
               stats->graph_limit_bytes);
    one_number(e, "vexlake_log_files", VEXI_EXPOSE_GAUGE, "",
               "Files of the write-ahead log that are still needed.", stats->log_file_count);
    one_number(e, "vexlake_log_bytes", VEXI_EXPOSE_GAUGE, "bytes", "Their size.",
               stats->log_size_bytes);
    one_number(e, "vexlake_log_unsynced_bytes", VEXI_EXPOSE_GAUGE, "bytes",
               "Acknowledged and not yet synced, with durability interval.",
               stats->log_unsynced_bytes);
    one_number(e, "vexlake_log_failed", VEXI_EXPOSE_GAUGE, "",
               "1: the last append to the log or sync of it failed.", stats->log_failed ? 1 : 0);
    page_store(stats, e);
    page_remote(stats, e);
    uint64_t now_ns = vexi_monotonic_ns(server->env);
    one_duration(e, "vexlake_sample_age_seconds", VEXI_EXPOSE_GAUGE,
                 "Age of what is told of the lake; it grows while the lake does not answer.",
                 now_ns > sample->taken_ns ? now_ns - sample->taken_ns : 0);
}

void vexi_metrics_page(vexi_server *server, const vexi_lake_sample *sample, bool ready,
                       bool open_metrics, vexi_buffer *out) {
    vexi_exposition e = {.out = out, .open_metrics = open_metrics};
    one_number(&e, "vexlake_ready", VEXI_EXPOSE_GAUGE, "", "1: /ready answers 200.", ready ? 1 : 0);
    page_process(server, &e);
    page_server(server, &e);
    page_searches(server, &e);
    if (sample != NULL) {
        page_lake(server, sample, &e);
    }
    vexi_expose_end(&e);
}
