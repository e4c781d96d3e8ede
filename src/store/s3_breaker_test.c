/* The breaker by itself: when it suspects, when it opens, how it closes. */
#include "check.h"
#include "store/s3_internal.h"

static const uint64_t ms = 1000000;
static const uint64_t start = 1000 * 1000 * 1000000ull;

static vexi_s3_breaker fresh(void) {
    vexi_s3_breaker breaker;
    vexi_s3_breaker_init(&breaker, 3000 * ms, 1000 * ms);
    return breaker;
}

TEST(idle_is_not_suspect) {
    vexi_s3_breaker breaker = fresh();
    CHECK_EQ(vexi_s3_breaker_due_ns(&breaker), UINT64_MAX);
    vexi_s3_breaker_waits(&breaker, start);
    CHECK_EQ(vexi_s3_breaker_due_ns(&breaker), start + 3000 * ms);
    vexi_s3_breaker_waits(&breaker, start + 2000 * ms); /* the first one counts */
    CHECK_EQ(vexi_s3_breaker_due_ns(&breaker), start + 3000 * ms);
    vexi_s3_breaker_good(&breaker, start + 2500 * ms, true);
    CHECK_EQ(vexi_s3_breaker_due_ns(&breaker), start + 5500 * ms);
    vexi_s3_breaker_good(&breaker, start + 2600 * ms, false);
    CHECK_EQ(vexi_s3_breaker_due_ns(&breaker), UINT64_MAX);
}

TEST(a_false_suspicion) {
    vexi_s3_breaker breaker = fresh();
    vexi_s3_breaker_waits(&breaker, start);
    uint64_t now = start + 3000 * ms;
    vexi_s3_breaker_probe(&breaker, now);
    CHECK_EQ(vexi_s3_breaker_due_ns(&breaker), UINT64_MAX); /* one probe at a time */
    CHECK_EQ(vexi_s3_breaker_probed(&breaker, now + 5 * ms, true, true), VEXI_S3_BREAKER_SAME);
    CHECK(!breaker.is_open);
    CHECK_EQ(breaker.open_count, 0);
    CHECK_EQ(vexi_s3_breaker_due_ns(&breaker), now + 3005 * ms);
}

TEST(opens_and_closes) {
    vexi_s3_breaker breaker = fresh();
    for (uint64_t round = 1; round <= 3; round++) {
        uint64_t now = start + round * 1000000 * ms;
        vexi_s3_breaker_waits(&breaker, now);
        now += 3000 * ms;
        vexi_s3_breaker_probe(&breaker, now);
        CHECK_EQ(vexi_s3_breaker_probed(&breaker, now + 2000 * ms, false, true),
                 VEXI_S3_BREAKER_OPENED);
        CHECK_EQ(breaker.open_count, round);
        CHECK_EQ(breaker.opened_ns, now + 2000 * ms);
        for (int i = 0; i < 5; i++) { /* a probe each interval, whoever asks or not */
            now += 2000 * ms;
            CHECK(breaker.is_open);
            CHECK(vexi_s3_breaker_due_ns(&breaker) <= now);
            vexi_s3_breaker_probe(&breaker, now);
            CHECK_EQ(vexi_s3_breaker_probed(&breaker, now + 1, false, false), VEXI_S3_BREAKER_SAME);
            CHECK_EQ(vexi_s3_breaker_due_ns(&breaker), now + 1000 * ms);
        }
        vexi_s3_breaker_probe(&breaker, now + 1000 * ms);
        CHECK(breaker.is_open);
        CHECK_EQ(vexi_s3_breaker_probed(&breaker, now + 1001 * ms, true, false),
                 VEXI_S3_BREAKER_CLOSED);
        CHECK(!breaker.is_open);
        CHECK_EQ(vexi_s3_breaker_due_ns(&breaker), UINT64_MAX);
    }
}

TEST_MAIN(RUN(idle_is_not_suspect); RUN(a_false_suspicion); RUN(opens_and_closes))
