/* Shares of the memory budget. */
#include "api/memory.h"

#include "base/machine.h"
#include "check.h"

static const uint64_t gib = UINT64_C(1) << 30;
static const uint64_t mib = UINT64_C(1) << 20;

TEST(shares) {
    vex_lake_options options = {.size = sizeof options};
    vexi_memory_plan plan = vexi_memory_share(&options, 64 * gib, true);
    CHECK_EQ(plan.memtable_bytes, gib);
    CHECK_EQ(plan.graph_bytes, 24 * gib);
    CHECK_EQ(plan.cache_bytes, 12 * gib);
    plan = vexi_memory_share(&options, 64 * gib, false);
    CHECK_EQ(plan.memtable_bytes, gib);
    CHECK_EQ(plan.graph_bytes, 36 * gib);
    CHECK_EQ(plan.cache_bytes, 0);
    options.memory_bytes = 512 * mib;
    plan = vexi_memory_share(&options, 64 * gib, true);
    CHECK_EQ(plan.memtable_bytes, 128 * mib);
    CHECK_EQ(plan.graph_bytes, 256 * mib);
    CHECK_EQ(plan.cache_bytes, 128 * mib);
}

/* Never more than the budget, whatever its size; and never 0, which means the default further on.
 */
TEST(sums) {
    uint64_t random = vex_test_seed(3);
    for (int i = 0; i < 1000; i++) {
        vex_lake_options options = {.size = sizeof options};
        uint64_t budget = 4 + (vex_test_random(&random) >> (1 + vex_test_below(&random, 61)));
        bool is_remote = i % 2 == 0;
        options.memory_bytes = i % 3 == 0 ? 0 : budget;
        vexi_memory_plan plan = vexi_memory_share(&options, budget, is_remote);
        CHECK(plan.memtable_bytes > 0 && plan.graph_bytes > 0);
        CHECK((plan.cache_bytes > 0) == is_remote);
        CHECK(plan.memtable_bytes + plan.graph_bytes + plan.cache_bytes <=
              (budget > 6 ? budget : 6));
    }
}

TEST(told) {
    vex_lake_options options = {.size = sizeof options,
                                .memory_bytes = gib,
                                .memory_limit_bytes = 5,
                                .graph_memory_bytes = 7 * gib,
                                .cache_memory_bytes = 3};
    vexi_memory_plan plan = vexi_memory_share(&options, gib, true);
    CHECK_EQ(plan.memtable_bytes, 5);
    CHECK_EQ(plan.graph_bytes, 7 * gib);
    CHECK_EQ(plan.cache_bytes, 3);
    CHECK_EQ(vexi_memory_share(&options, gib, false).cache_bytes, 0);
}

TEST(machine) {
    uint64_t bytes = vexi_machine_memory();
    CHECK(bytes >= 64 * mib && bytes < (uint64_t)1 << 48);
}

TEST_MAIN(RUN(shares); RUN(sums); RUN(told); RUN(machine))
