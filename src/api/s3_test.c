/* A lake that was copied to a real S3 server, opened there through the public header; and what a
 * cold search asks of the server. EFFORT=50 makes 200,000 rows of the 4,000. */
#include "api/api.h"

#include "api_test.h"
#include "store/test_s3_server.h"

enum { DIMENSION = 128, K = 10, QUERIES = 20 };

/* Clustered rows, by their number alone. */
static void vector_of(uint64_t row, float *out) {
    uint64_t cluster = row * 2654435761u % 257;
    uint64_t state = row + 1;
    for (uint64_t d = 0; d < DIMENSION; d++) {
        uint64_t center = cluster * 1000 + d;
        out[d] = (float)(vexi_random_next(&center) >> 40) / (float)(1 << 24) +
                 0.3f * (float)(vexi_random_next(&state) >> 40) / (float)(1 << 24);
    }
}

static void write_rows(vex_lake *lake, const char *name, uint64_t first, uint64_t count) {
    enum { BATCH = 500 };
    static float vectors[BATCH][DIMENSION];
    static char ids[BATCH][24];
    static vex_row rows[BATCH];
    for (uint64_t done = 0; done < count;) {
        size_t n = count - done < BATCH ? (size_t)(count - done) : BATCH;
        for (size_t i = 0; i < n; i++) {
            vector_of(first + done + i, vectors[i]);
            snprintf(ids[i], sizeof ids[i], "row-%" PRIu64, first + done + i);
            rows[i] = (vex_row){.id = str(ids[i]),
                                .vector = vectors[i],
                                .dimension = DIMENSION,
                                .attributes = str("{\"a\": 1}")};
        }
        CHECK_OK(vex_put_rows(lake, str(name), rows, n, &err));
        done += n;
    }
}

/* Every object of one store into another, but the lock and the log: its rows are in segments. */
static void copy_objects(vexi_store *from, vexi_store *to) {
    vexi_arena arena;
    vexi_listing listing;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(vexi_store_list(from, "", NULL, false, &arena, &listing, &err));
    for (size_t i = 0; i < listing.count; i++) {
        const char *name = listing.entries[i].name;
        vexi_arena bytes;
        vexi_span span;
        if (strcmp(name, ".vexlake/lock") == 0 || strncmp(name, ".vexlake/wal/", 13) == 0) {
            continue;
        }
        vexi_arena_init(&bytes, vex_test_env());
        CHECK_OK(vexi_store_get_all(from, name, SIZE_MAX / 2, &bytes, &span, &err));
        CHECK_OK(vexi_store_put(to, name, &span, 1, &err));
        vexi_arena_deinit(&bytes);
    }
    vexi_arena_deinit(&arena);
}

typedef struct totals {
    uint64_t requests, bytes;
} totals;

static totals totals_of(vexi_store *store) {
    vexi_s3_counters counters[VEXI_S3_KIND_COUNT];
    totals sum = {0, 0};
    vexi_store_s3_counters(store, counters);
    for (int kind = 0; kind < VEXI_S3_KIND_COUNT; kind++) {
        sum.requests += counters[kind].requests;
        sum.bytes += counters[kind].received_bytes;
    }
    return sum;
}

/* Print and return what was asked since `before`. */
static totals told(const char *what, vexi_store *store, totals *before) {
    totals now = totals_of(store);
    totals since = {now.requests - before->requests, now.bytes - before->bytes};
    printf("    %-28s %4" PRIu64 " requests, %10" PRIu64 " bytes\n", what, since.requests,
           since.bytes);
    *before = now;
    return since;
}

static void same_search(vex_lake *local, vex_lake *remote, const char *name, const float *query,
                        bool exact) {
    result a, b;
    CHECK_OK(search_k(local, name, query, DIMENSION, K, exact, &a, &err));
    CHECK_OK(search_k(remote, name, query, DIMENSION, K, exact, &b, &err));
    CHECK_EQ(a.batch.length, K);
    CHECK_EQ(b.batch.length, K);
    for (int64_t i = 0; i < K; i++) {
        CHECK(vexi_string_equal(result_id(&a, i), result_id(&b, i)));
        CHECK(result_distance(&a, i) == result_distance(&b, i));
    }
    result_release(&a);
    result_release(&b);
}

static void no_destroy(vexi_keeper *keeper) {
    (void)keeper;
}

TEST(a_copied_lake) {
    static vex_test_s3 s3;
    vex_test_s3_open(&s3);
    if (!s3.is_there) {
        return;
    }
    uint64_t rows = vex_test_effort(4000);
    char *path = folder_create();
    vex_lake *local;
    vexi_disk *disk = NULL;
    vexi_store *folder, *bucket;
    vex_lake_options writing = {.size = sizeof writing, /* one segment, whatever its size */
                                .flush_size_bytes = 2ull << 30,
                                .memory_limit_bytes = 4ull << 30};
    CHECK_OK(vex_lake_open(path, &writing, &local, &err));
    create(local, "ivf", DIMENSION, VEX_METRIC_L2, VEX_INDEX_IVF);
    write_rows(local, "ivf", 0, rows);
    CHECK_OK(vex_flush(local, str("ivf"), &err));
    char id[37], uri[600];
    vexi_random_uuid(vex_test_env(), id);
    snprintf(s3.settings.prefix, sizeof s3.settings.prefix, "lake-%s", id);
    CHECK_OK(vexi_disk_posix_create(vex_test_env(), &disk, &err));
    CHECK_OK(vexi_store_file_create(vex_test_env(), disk, path, false, &folder, &err));
    CHECK_OK(vexi_store_s3_create(vex_test_env(), &s3.settings, &bucket, &err));
    copy_objects(folder, bucket);
    vexi_store_destroy(bucket);
    vexi_store_destroy(folder);
    vexi_disk_destroy(disk);

    /* Through the public header. */
    vex_lake *remote;
    vex_lake_options options = {.size = sizeof options,
                                .read_only = true,
                                .s3_endpoint = s3.settings.endpoint,
                                .s3_region = s3.settings.region,
                                .s3_access_key = s3.settings.access_key,
                                .s3_secret_key = s3.settings.secret_key};
    snprintf(uri, sizeof uri, "s3://%s/%s", s3.settings.bucket, s3.settings.prefix);
    CHECK_OK(vex_lake_open(uri, &options, &remote, &err));
    float query[DIMENSION];
    for (uint64_t q = 0; q < QUERIES; q++) {
        vector_of(rows + q, query);
        same_search(local, remote, "ivf", query, true);
        same_search(local, remote, "ivf", query, false);
    }
    float zero[DIMENSION] = {0};
    CHECK_FAILS(VEX_READ_ONLY, put_one(remote, "ivf", "new", zero, DIMENSION, &err));
    CHECK_OK(vex_lake_close(remote, &err));
    options.s3_secret_key = "wrong";
    CHECK_FAILS(VEX_INVALID, vex_lake_open(uri, &options, &remote, &err));

    /* The same over a store whose counters can be seen. */
    vexi_keeper keeper = {.env = vex_test_env(), .destroy = no_destroy};
    atomic_init(&keeper.references, 1);
    vex_lake counted = {.keeper = &keeper};
    vexi_lake_config config = {.read_only = true,
                               .must_exist = true,
                               .sync_interval_ms = 100,
                               .flush_interval_ms = 3600000,
                               .flush_size_bytes = 1 << 30,
                               .memory_limit_bytes = 1 << 30,
                               .graph_memory_bytes = 1 << 30,
                               .segment_size_bytes = 1 << 28,
                               .log_size_bytes = 1 << 26};
    CHECK_OK(vexi_store_s3_create(vex_test_env(), &s3.settings, &bucket, &err));
    totals before = totals_of(bucket);
    CHECK_OK(vexi_lake_open(vex_test_env(), bucket, &config, &counted.lake, &err));
    vex_collection_info info;
    CHECK_OK(vex_collection_describe(&counted, str("ivf"), &info, &err));
    printf("    %" PRIu64 " rows in %" PRIu64 " segments, index %" PRIu64 " bytes, Parquet %" PRIu64
           "\n",
           info.segment_row_count, info.segment_count, info.index_size_bytes,
           info.segment_size_bytes);
    told("opening the lake", bucket, &before);
    for (uint64_t q = 0; q < QUERIES; q++) {
        result r;
        vector_of(rows + q, query);
        CHECK_OK(search_k(&counted, "ivf", query, DIMENSION, K, false, &r, &err));
        result_release(&r);
        totals since = told(q == 0 ? "the first search" : "the next new query", bucket, &before);
        CHECK(since.requests <= 1000 * info.segment_count);
    }
    result r;
    CHECK_OK(search_k(&counted, "ivf", query, DIMENSION, K, false, &r, &err));
    result_release(&r);
    told("the last one again", bucket, &before);
    CHECK_OK(vexi_lake_close(counted.lake, &err));
    vexi_keeper_release(&keeper);
    CHECK_OK(vex_lake_close(local, &err));
    folder_remove(path);
    vex_test_s3_close(&s3);
}

TEST_MAIN(RUN(a_copied_lake))
