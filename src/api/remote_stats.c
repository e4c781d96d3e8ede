/* Counters of the stores below a lake on S3, as the public header tells them. */
#include "api/api.h"
#include "base/histogram.h"
#include "store/cache.h"
#include "store/s3.h"

static void cache_stats(vexi_store *cache, vex_cache_stats *out) {
    vexi_cache_counters c;
    vexi_store_cache_counters(cache, &c);
    *out = (vex_cache_stats){
        .memory_read_count = c.memory_hits,
        .memory_read_bytes = c.memory_hit_bytes,
        .disk_read_count = c.disk_hits,
        .disk_read_bytes = c.disk_hit_bytes,
        .store_read_count = c.misses,
        .store_read_bytes = c.miss_bytes,
        .shared_count = c.shared,
        .passed_count = c.passed_by,
        .filled_bytes = c.filled_bytes,
        .distrusted_count = c.distrusts,
        .memory_size_bytes = c.memory_bytes,
        .memory_eviction_count = c.memory_evictions,
        .disk_size_bytes = c.disk_bytes,
        .disk_eviction_count = c.disk_evictions,
        .disk_written_bytes = c.disk_write_bytes,
        .disk_error_count = c.disk_errors,
        .disk_corrupt_count = c.disk_corrupt,
    };
}

static void request_stats(const vexi_s3_counters *from, vex_request_stats *out) {
    *out = (vex_request_stats){
        .request_count = from->requests,
        .retry_count = from->retries,
        .hedge_count = from->hedges,
        .error_count = from->errors,
        .throttle_count = from->throttled,
        .sent_bytes = from->sent_bytes,
        .received_bytes = from->received_bytes,
        .latency_ns = from->latency_ns,
    };
    /* Its buckets are finer, with bounds of their own: each goes where its upper bound does. */
    for (size_t b = 0; b < VEXI_S3_LATENCY_BUCKETS; b++) {
        uint64_t bound_ns =
            b + 1 < VEXI_S3_LATENCY_BUCKETS ? vexi_s3_latency_bound_ns(b) : UINT64_MAX;
        out->latency_buckets[vexi_histogram_bucket(bound_ns)] += from->latency_buckets[b];
    }
}

void vexi_api_remote_stats(vexi_store *s3, vexi_store *cache, vex_lake_stats *out) {
    _Static_assert((int)VEXI_S3_KIND_COUNT == (int)VEX_REQUEST_COUNT &&
                       (int)VEXI_S3_MULTIPART == (int)VEX_REQUEST_MULTIPART &&
                       (int)VEXI_S3_HEAD == (int)VEX_REQUEST_HEAD,
                   "the same kinds in the same order");
    vexi_s3_counters counters[VEXI_S3_KIND_COUNT];
    vexi_store_s3_counters(s3, counters);
    for (int kind = 0; kind < VEX_REQUEST_COUNT; kind++) {
        request_stats(&counters[kind], &out->requests[kind]);
    }
    vexi_s3_health health = vexi_store_s3_health(s3);
    out->store_away = health.is_away;
    out->store_away_count = health.away_count;
    cache_stats(cache, &out->cache);
}

const char *vex_request_text(vex_request request) {
    switch (request) {
#define REQUEST_TEXT(name, text) \
    case VEX_REQUEST_##name:     \
        return text;
        VEX_REQUEST_LIST(REQUEST_TEXT)
#undef REQUEST_TEXT
    case VEX_REQUEST_COUNT:
        break;
    }
    return "unknown";
}
