/* Counting and telling: buckets, both text formats, what a client may ask for, entries of
 * collections, and the heartbeat. */
#include <pthread.h>

#include "check.h"
#include "server/expose.h"
#include "server/monitor.h"

TEST(buckets) {
    CHECK_EQ(vexi_histogram_bucket(0), 0);
    CHECK_EQ(vexi_histogram_bucket(1), 0);
    for (uint32_t b = 0; b + 1 < VEXI_HISTOGRAM_BUCKETS; b++) {
        uint64_t bound = vexi_histogram_bound_ns(b);
        CHECK_EQ(vexi_histogram_bucket(bound), b);
        CHECK_EQ(vexi_histogram_bucket(bound + 1), b + 1);
    }
    CHECK_EQ(vexi_histogram_bucket(UINT64_MAX), VEXI_HISTOGRAM_BUCKETS - 1);
    CHECK(vexi_histogram_bound_ns(VEXI_HISTOGRAM_BUCKETS - 1) == UINT64_MAX);
    static vexi_histogram histogram;
    vexi_histogram_add(&histogram, 9000, 3);
    CHECK_EQ(histogram.buckets[1], 3);
    CHECK_EQ(histogram.sum_ns, 27000);
}

static void check_text(bool open_metrics, const char *wanted) {
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1u << 20);
    vexi_exposition e = {.out = &out, .open_metrics = open_metrics};
    vexi_label none = {.key = NULL};
    vexi_expose_family(&e, "a_bytes", VEXI_EXPOSE_COUNTER, "bytes", "Bytes.");
    vexi_expose_number(&e, none, 7);
    vexi_expose_family(&e, "b_seconds", VEXI_EXPOSE_GAUGE, "seconds", "Time.");
    vexi_label odd = {.key = "name", .value = vexi_string_of("a\\b\"c\nd")};
    vexi_expose_seconds(&e, odd, 1500000001);
    vexi_expose_family(&e, "c", VEXI_EXPOSE_INFO, "", "What.");
    vexi_expose_number(&e, odd, 1);
    vexi_expose_end(&e);
    vexi_buffer_u8(&out, 0);
    CHECK(!out.failed);
    if (strcmp((const char *)out.data, wanted) != 0) {
        fprintf(stderr, "%s\nnot\n%s\n", (const char *)out.data, wanted);
        exit(1);
    }
    vexi_buffer_deinit(&out);
}

TEST(formats) {
    check_text(true, "# TYPE a_bytes counter\n# UNIT a_bytes bytes\n# HELP a_bytes Bytes.\n"
                     "a_bytes_total 7\n"
                     "# TYPE b_seconds gauge\n# UNIT b_seconds seconds\n# HELP b_seconds Time.\n"
                     "b_seconds{name=\"a\\\\b\\\"c\\nd\"} 1.500000001\n"
                     "# TYPE c info\n# HELP c What.\nc_info{name=\"a\\\\b\\\"c\\nd\"} 1\n# EOF\n");
    check_text(false,
               "# HELP a_bytes_total Bytes.\n# TYPE a_bytes_total counter\na_bytes_total 7\n"
               "# HELP b_seconds Time.\n# TYPE b_seconds gauge\n"
               "b_seconds{name=\"a\\\\b\\\"c\\nd\"} 1.500000001\n"
               "# HELP c_info What.\n# TYPE c_info gauge\nc_info{name=\"a\\\\b\\\"c\\nd\"} 1\n");
}

TEST(histogram_text) {
    vexi_buffer out;
    vexi_buffer_init(&out, vex_test_env(), 1u << 20);
    vexi_exposition e = {.out = &out, .open_metrics = true};
    uint64_t buckets[VEXI_HISTOGRAM_BUCKETS] = {2, 0, 3};
    buckets[VEXI_HISTOGRAM_BUCKETS - 1] = 1;
    vexi_expose_family(&e, "d_seconds", VEXI_EXPOSE_HISTOGRAM, "seconds", "Time.");
    vexi_expose_histogram(&e, (vexi_label){.key = "k", .value = vexi_string_of("v")}, buckets, 5);
    vexi_buffer_u8(&out, 0);
    const char *text = (const char *)out.data;
    CHECK(strstr(text, "\nd_seconds_bucket{k=\"v\",le=\"0.000008192\"} 2\n") != NULL);
    CHECK(strstr(text, "\nd_seconds_bucket{k=\"v\",le=\"0.000016384\"} 2\n") != NULL);
    CHECK(strstr(text, "\nd_seconds_bucket{k=\"v\",le=\"17.179869184\"} 5\n") != NULL);
    CHECK(strstr(text, "\nd_seconds_bucket{k=\"v\",le=\"+Inf\"} 6\n") != NULL);
    CHECK(strstr(text, "\nd_seconds_count{k=\"v\"} 6\nd_seconds_sum{k=\"v\"} 0.000000005\n") !=
          NULL);
    vexi_buffer_deinit(&out);
}

TEST(what_is_asked_for) {
    static const char *const open[] = {
        "application/openmetrics-text",
        "application/openmetrics-text; version=1.0.0",
        "text/plain;q=0.5, application/openmetrics-text;version=1.0.0;q=0.1,*/*;q=0.1",
        "Application/OpenMetrics-Text;q=0.05",
        "application/openmetrics-text;q=1",
    };
    static const char *const plain[] = {
        "",
        "*/*",
        "text/plain",
        "application/openmetrics-textual",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text; version=1.0.0; q=0.000",
        "text/plain;x=application/openmetrics-text",
        ",,,",
        ";;;q=",
    };
    for (size_t i = 0; i < sizeof open / sizeof open[0]; i++) {
        CHECK(vexi_expose_wants_open_metrics(open[i]));
    }
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        CHECK(!vexi_expose_wants_open_metrics(plain[i]));
    }
    CHECK(!vexi_expose_wants_open_metrics(NULL));
}

/* ---- Entries of collections ------------------------------------------------------------------ */

static vexi_metrics *metrics_new(void) {
    vexi_metrics *metrics = vexi_calloc(vex_test_env(), 1, sizeof *metrics);
    CHECK(metrics != NULL);
    vexi_metrics_init(metrics);
    return metrics;
}

static void metrics_free(vexi_metrics *metrics) {
    vexi_metrics_deinit(metrics);
    vexi_free(vex_test_env(), metrics);
}

static vex_string numbered(uint32_t i, char text[16]) {
    int size = snprintf(text, 16, "c%05u", i);
    return (vex_string){.data = text, .size = (size_t)size};
}

TEST(collections_are_capped) {
    vexi_metrics *metrics = metrics_new();
    char text[16];
    enum { OVER = 10, COUNT = VEXI_METRIC_COLLECTIONS_MAX + OVER };
    vexi_metrics_search(metrics, vexi_string_of("not there"), 1, 2, 2);
    CHECK_EQ(metrics->collection_count, 0);
    CHECK_EQ(metrics->searches_unlisted, 2);
    for (uint32_t i = 0; i < COUNT; i++) {
        vexi_metrics_search(metrics, numbered(i, text), 1000, 3, 1);
    }
    CHECK_EQ(metrics->collection_count, VEXI_METRIC_COLLECTIONS_MAX);
    CHECK_EQ(metrics->searches_unlisted, 2 + 3 * OVER);
    for (uint32_t i = 0; i < VEXI_METRIC_COLLECTIONS_MAX; i++) {
        CHECK_EQ(metrics->collections[i].latency.buckets[0], 3);
        CHECK_EQ(metrics->collections[i].errors, 1);
    }
    /* Number 7 is dropped; the next collection that is searched gets its place, with nothing of
     * what was counted there. */
    static char names[COUNT][16];
    vex_string there[COUNT];
    uint32_t count = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        if (i != 7) {
            there[count] = numbered(i, names[count]);
            count++;
        }
    }
    vexi_metrics_keep(metrics, there, count);
    CHECK(metrics->collections[7].gone && !metrics->collections[8].gone);
    vexi_metrics_search(metrics, numbered(COUNT - 1, text), 20000, 1, 0);
    CHECK_EQ(metrics->searches_unlisted, 2 + 3 * OVER);
    CHECK(!metrics->collections[7].gone);
    CHECK_EQ(metrics->collections[7].errors, 0);
    CHECK_EQ(metrics->collections[7].latency.sum_ns, 20000);
    CHECK_EQ(metrics->collections[7].latency.buckets[0], 0);
    /* All others are still found under their names, the old owner of number 7 no more. */
    vexi_metrics_search(metrics, numbered(200, text), 1000, 1, 0);
    CHECK_EQ(metrics->collections[200].latency.buckets[0], 4);
    vexi_metrics_search(metrics, numbered(7, text), 1000, 1, 0);
    CHECK_EQ(metrics->searches_unlisted, 3 + 3 * OVER);
    /* A lake without any. */
    vexi_metrics_keep(metrics, NULL, 0);
    CHECK(metrics->collections[0].gone);
    /* One that was made again goes on where it was. */
    vexi_metrics_search(metrics, numbered(0, text), 1000, 1, 0);
    CHECK(!metrics->collections[0].gone);
    CHECK_EQ(metrics->collections[0].latency.buckets[0], 4);
    metrics_free(metrics);
}

typedef struct reader {
    vexi_metrics *metrics;
    _Atomic bool stop;
    uint64_t passes;
} reader;

/* What the HTTP port does beside the loop: read names and counters, and tell what is there. */
static void *read_on(void *argument) {
    reader *r = argument;
    static char names[50][16];
    vex_string there[50];
    for (uint32_t i = 0; i < 50; i++) {
        there[i] = numbered(i, names[i]);
    }
    while (!r->stop || r->passes == 0) {
        vexi_metrics_keep(r->metrics, there, 50);
        pthread_mutex_lock(&r->metrics->collections_lock);
        for (uint32_t i = 0; i < r->metrics->collection_count; i++) {
            const vexi_collection_metrics *entry = &r->metrics->collections[i];
            CHECK_EQ(entry->name_size, 6);
            CHECK_EQ(entry->name[0], 'c');
            CHECK(vexi_metric_get(&entry->latency.sum_ns) % 1000 == 0);
        }
        pthread_mutex_unlock(&r->metrics->collections_lock);
        r->passes++;
    }
    return NULL;
}

TEST(reading_beside_counting) {
    reader r = {.metrics = metrics_new()};
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, read_on, &r), 0);
    char text[16];
    for (uint32_t i = 0; i < 100000; i++) {
        vexi_metrics_search(r.metrics, numbered(i % 400, text), 1000, 1, 0);
        vexi_metrics_command(r.metrics, i % VEXI_METRIC_COMMANDS_MAX, 1000, 1, i % 2);
    }
    r.stop = true;
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(r.passes > 0);
    uint64_t total = 0;
    for (uint32_t i = 0; i < VEXI_METRIC_COMMANDS_MAX; i++) {
        total += r.metrics->by_command[i].latency.buckets[0];
    }
    CHECK_EQ(total, 100000);
    metrics_free(r.metrics);
}

TEST(the_heartbeat) {
    vexi_metrics *metrics = metrics_new();
    const uint64_t second = 1000000000;
    char why[128];
    /* While the lake is opened the loop does not turn yet. */
    metrics->phase = VEXI_PHASE_OPENING;
    CHECK(vexi_monitor_alive(metrics, 1000 * second, why, sizeof why));
    metrics->phase = VEXI_PHASE_SERVING;
    metrics->beat_ns = 100 * second;
    CHECK(vexi_monitor_alive(metrics, (100 + VEXI_STUCK_SECONDS) * second, why, sizeof why));
    CHECK(!vexi_monitor_alive(metrics, (101 + VEXI_STUCK_SECONDS) * second, why, sizeof why));
    CHECK(strstr(why, "11 seconds") != NULL);
    /* A clock read before the beat that came meanwhile. */
    CHECK(vexi_monitor_alive(metrics, 99 * second, why, sizeof why));
    metrics->phase = VEXI_PHASE_DRAINING;
    CHECK(vexi_monitor_alive(metrics, 1000 * second, why, sizeof why));
    metrics_free(metrics);
}

TEST_MAIN(RUN(buckets); RUN(formats); RUN(histogram_text); RUN(what_is_asked_for);
          RUN(collections_are_capped); RUN(reading_beside_counting); RUN(the_heartbeat))
