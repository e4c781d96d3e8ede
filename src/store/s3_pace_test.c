/* The retry schedule, the budget, the window, and the buckets of latencies. */
#include "check.h"
#include "store/s3_internal.h"

static vexi_s3_pace pace_of(uint64_t seed) {
    vexi_s3_settings settings = {.connection_count_max = 64,
                                 .backoff_base_ms = 50,
                                 .backoff_max_ms = 5000,
                                 .retry_budget = 20};
    vexi_s3_pace pace;
    vexi_s3_pace_init(&pace, &settings, seed);
    return pace;
}

static const uint64_t ms = 1000000;

TEST(backoff) {
    vexi_s3_pace one = pace_of(1), same = pace_of(1), other = pace_of(2);
    bool differs = false;
    for (uint32_t attempt = 2; attempt < 40; attempt++) {
        uint64_t bound = attempt < 9 ? 50 * ms << (attempt - 2) : 5000 * ms;
        uint64_t delay = vexi_s3_pace_delay_ns(&one, attempt, 0);
        CHECK(delay < (bound < 5000 * ms ? bound : 5000 * ms));
        CHECK(delay == vexi_s3_pace_delay_ns(&same, attempt, 0));
        differs = differs || delay != vexi_s3_pace_delay_ns(&other, attempt, 0);
    }
    CHECK(differs);
    /* Spread over the whole interval, not gathered in a part of it. */
    size_t quarters[4] = {0};
    for (int i = 0; i < 4000; i++) {
        quarters[vexi_s3_pace_delay_ns(&one, 4, 0) / (50 * ms)]++;
    }
    for (size_t i = 0; i < 4; i++) {
        CHECK(quarters[i] > 800 && quarters[i] < 1200);
    }
    /* The server's wish is the least. */
    uint64_t delay = vexi_s3_pace_delay_ns(&one, 2, 2000);
    CHECK(delay >= 2000 * ms && delay < 2050 * ms);
}

TEST(budget) {
    vexi_s3_pace pace = pace_of(1);
    for (int i = 0; i < 20; i++) {
        CHECK(vexi_s3_pace_take(&pace));
    }
    CHECK(!vexi_s3_pace_take(&pace));
    vexi_s3_pace_success(&pace);
    CHECK(vexi_s3_pace_take(&pace));
    CHECK(!vexi_s3_pace_take(&pace));
    /* At 30 % of errors it never ends. */
    uint64_t random = vex_test_seed(33);
    pace = pace_of(1);
    for (int i = 0; i < 100000; i++) {
        if (vex_test_below(&random, 10) < 3) {
            CHECK(vexi_s3_pace_take(&pace));
        } else {
            vexi_s3_pace_success(&pace);
        }
    }
}

TEST(window) {
    vexi_s3_pace pace = pace_of(1);
    uint64_t now = 10 * 1000 * ms;
    vexi_s3_pace_throttled(&pace, now, 0);
    CHECK(pace.window == 32);
    vexi_s3_pace_throttled(&pace, now + 1, 0); /* of the same burst */
    CHECK(pace.window == 32);
    for (int i = 0; i < 100; i++) {
        now += 1000 * ms;
        vexi_s3_pace_throttled(&pace, now, 1500);
    }
    CHECK(pace.window == 1);
    CHECK(pace.hold_ns == now + 1500 * ms);
    for (int i = 0; i < 5000; i++) {
        double before = pace.window;
        vexi_s3_pace_success(&pace);
        CHECK(pace.window >= before && pace.window <= before + 1);
    }
    CHECK(pace.window == 64);
}

TEST(latencies) {
    uint64_t before = 0;
    for (size_t i = 0; i < VEXI_S3_LATENCY_BUCKETS; i++) {
        uint64_t bound = vexi_s3_latency_bound_ns(i);
        CHECK(i < 8 || bound > before); /* below 4 us there are fewer values than buckets */
        before = bound;
    }
    uint64_t random = vex_test_seed(34);
    for (int i = 0; i < 100000; i++) {
        uint64_t duration = vex_test_random(&random) >> (10 + vex_test_below(&random, 54));
        size_t bucket = vexi_s3_latency_bucket(duration);
        CHECK(bucket < VEXI_S3_LATENCY_BUCKETS);
        if (bucket + 1 < VEXI_S3_LATENCY_BUCKETS) {
            CHECK(duration < vexi_s3_latency_bound_ns(bucket) + 1000);
        }
        if (bucket > 8) {
            CHECK(duration >= vexi_s3_latency_bound_ns(bucket - 1));
        }
    }
    uint64_t buckets[VEXI_S3_LATENCY_BUCKETS] = {0};
    buckets[vexi_s3_latency_bucket(1000 * 1000)] = 95;
    CHECK_EQ(vexi_s3_latency_percentile_ns(buckets, 90), 0);
    buckets[vexi_s3_latency_bucket(50 * 1000 * 1000)] = 5;
    uint64_t usual = vexi_s3_latency_percentile_ns(buckets, 90);
    CHECK(usual >= 1000 * 1000 && usual < 1300 * 1000);
    CHECK(vexi_s3_latency_percentile_ns(buckets, 99) >= 50 * 1000 * 1000);
}

TEST_MAIN(RUN(backoff); RUN(budget); RUN(window); RUN(latencies))
