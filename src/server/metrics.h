/* What the server counts, and how it is told.
 *
 * Counting is the loop's and the workers' (metrics.c): relaxed atomics, a few tens of nanoseconds
 * for a command. Telling is the HTTP port's (metrics_page.c, by way of expose.c): it reads the
 * atomics as they are and a sample of the lake that the monitor's own thread took (monitor.c), so
 * that neither a scrape nor storage that hangs ever holds up a client. */
#ifndef VEXI_SERVER_METRICS_H
#define VEXI_SERVER_METRICS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/histogram.h"

/* Commands of the table that can be counted apart; the command map has as many slots. */
#define VEXI_METRIC_COMMANDS_MAX 128u
/* Collections that are told apart, by searches and in a sample each. */
#define VEXI_METRIC_COLLECTIONS_MAX 256u
#define VEXI_METRIC_SLOTS           1024u

typedef enum vexi_phase {
    VEXI_PHASE_OPENING = 0, /* the lake is being opened: the log is replayed */
    VEXI_PHASE_SERVING = 1,
    VEXI_PHASE_DRAINING = 2
} vexi_phase;

typedef enum vexi_http_path {
    VEXI_HTTP_METRICS,
    VEXI_HTTP_HEALTH,
    VEXI_HTTP_READY,
    VEXI_HTTP_OTHER,
    VEXI_HTTP_PATH_COUNT
} vexi_http_path;

typedef struct vexi_command_metrics {
    vexi_histogram latency; /* from when it was begun to when its reply was there */
    _Atomic uint64_t errors;
} vexi_command_metrics;

/* Searches of a collection. */
typedef struct vexi_collection_metrics {
    vexi_histogram latency;
    _Atomic uint64_t errors;
    _Atomic bool gone; /* the collection was not there when the last sample was taken */
    uint64_t hash;     /* the loop's */
    uint32_t name_size;
    char name[VEX_NAME_SIZE_MAX];
} vexi_collection_metrics;

/* Atomics are written by the loop and workers, read by any thread. */
typedef struct vexi_metrics {
    _Atomic uint64_t commands;
    _Atomic uint64_t connections;
    _Atomic uint64_t connections_rejected;
    _Atomic uint64_t clients;
    _Atomic uint64_t input_bytes;
    _Atomic uint64_t output_bytes;
    _Atomic uint64_t errors; /* replies of protocol and limit errors */
    _Atomic uint64_t searches;
    _Atomic uint64_t searches_on_loop;
    _Atomic uint64_t search_steps; /* of remote lakes, as the next three */
    _Atomic uint64_t search_requests;
    _Atomic uint64_t search_request_bytes;
    _Atomic uint64_t search_cache_hits;
    _Atomic uint64_t rows_written;
    _Atomic uint64_t gets;
    _Atomic uint64_t gets_on_loop;     /* commands, as gets */
    _Atomic uint64_t commands_refused; /* unknown, incomplete, or before AUTH */
    _Atomic uint64_t jobs;             /* that workers have or that wait for one */
    _Atomic uint64_t searches_unlisted;
    _Atomic uint64_t http[VEXI_HTTP_PATH_COUNT];
    _Atomic uint64_t beat_ns; /* when the loop last turned by its own timer; 0: it never did */
    _Atomic int phase;        /* a vexi_phase; SERVING is stored behind the lake's handle */
    vexi_command_metrics by_command[VEXI_METRIC_COMMANDS_MAX];

    /* Names are the loop's to write, with the lock; others read them with it. */
    pthread_mutex_t collections_lock;
    uint32_t collection_count;
    vexi_collection_metrics collections[VEXI_METRIC_COLLECTIONS_MAX];
    uint16_t slots[VEXI_METRIC_SLOTS]; /* by hash: 1 + an index; 0: empty. The loop's */
} vexi_metrics;

/* `metrics` is all zero. */
void vexi_metrics_init(vexi_metrics *metrics);
void vexi_metrics_deinit(vexi_metrics *metrics);

/* Count on the loop thread: a plain add, readable from others. */
static inline void vexi_metric_add(_Atomic uint64_t *metric, uint64_t value) {
    atomic_store_explicit(metric, atomic_load_explicit(metric, memory_order_relaxed) + value,
                          memory_order_relaxed);
}
/* The same from any thread. */
static inline void vexi_metric_add_shared(_Atomic uint64_t *metric, uint64_t value) {
    atomic_fetch_add_explicit(metric, value, memory_order_relaxed);
}
static inline void vexi_metric_set(_Atomic uint64_t *metric, uint64_t value) {
    atomic_store_explicit(metric, value, memory_order_relaxed);
}
static inline uint64_t vexi_metric_get(const _Atomic uint64_t *metric) {
    return atomic_load_explicit(metric, memory_order_relaxed);
}

/* `count` commands, number `command` of the table, were answered, `errors` of them by an error. The
 * loop's. */
void vexi_metrics_command(vexi_metrics *metrics, size_t command, uint64_t ns, uint64_t count,
                          uint64_t errors);
/* Searches of a collection that is there. One that has no entry gets one while there is room, or
 * the entry of a collection that is gone; else the searches are counted as unlisted. The loop's. */
void vexi_metrics_search(vexi_metrics *metrics, vex_string collection, uint64_t ns, uint64_t count,
                         uint64_t errors);
/* Tell which collections there are, sorted by bytes: entries of others may be used anew. */
void vexi_metrics_keep(vexi_metrics *metrics, const vex_string *names, size_t count);

/* ---- The lake, sampled ----------------------------------------------------------------------- */

/* What is told of a collection. */
typedef struct vexi_collection_sample {
    char name[VEX_NAME_SIZE_MAX];
    uint32_t name_size;
    bool failing; /* background work ended with an error that still stands */
    uint64_t row_count;
    uint64_t memtable_row_count;
    uint64_t memtable_size_bytes;
    uint64_t memtable_age_ns;
    uint64_t follow_age_ns;
    uint64_t segment_count;
    uint64_t segment_row_count;
    uint64_t segment_deleted_count;
    uint64_t segment_size_bytes;
    uint64_t index_size_bytes;
    uint64_t damaged_segment_count;
    uint64_t unindexed_segment_count;
    uint64_t graph_count;
    uint64_t graph_size_bytes;
    uint64_t graph_missing_count;
    uint64_t flush_count;
} vexi_collection_sample;

typedef struct vexi_lake_sample {
    uint64_t taken_ns; /* 0: there is none yet */
    vex_lake_stats lake;
    vexi_collection_sample total; /* of all collections; ages: the largest */
    uint64_t collection_count;
    uint64_t failed_count; /* of those, that could not be described */
    uint32_t listed_count; /* in `listed`: the first by name */
    vexi_collection_sample listed[VEXI_METRIC_COLLECTIONS_MAX];
} vexi_lake_sample;

/* ---- The page -------------------------------------------------------------------------------- */

struct vexi_server;

/* Append /metrics. sample NULL: the lake is not open yet, its metrics are left out. ready: what
 * /ready would answer. */
void vexi_metrics_page(struct vexi_server *server, const vexi_lake_sample *sample, bool ready,
                       bool open_metrics, vexi_buffer *out);

#endif
