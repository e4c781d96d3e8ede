/* The fault store: that faults come at their rate and do what they say, and that a seed repeats. */
#include "store/store.h"

#include "check.h"

static vexi_store *faulty_store(const vexi_fault_plan *plan) {
    vexi_store *store = NULL;
    CHECK_OK(vexi_store_mem_create(vex_test_env(), &store, &err));
    CHECK_OK(vexi_store_fault_create(vex_test_env(), store, plan, &store, &err));
    return store;
}

static vexi_span text_span(const char *text) {
    return vexi_span_of(text, strlen(text));
}

static bool is_there(vexi_store *store, const char *name) {
    uint64_t size = 0;
    vex_status status = vexi_store_size(store, name, &size, NULL);
    CHECK(status == VEX_OK || status == VEX_NOT_FOUND);
    return status == VEX_OK;
}

enum { CALL_COUNT = 2000 };

/* Puts under new names with this plan; the statuses, in order. */
static void run_puts(const vexi_fault_plan *plan, uint8_t statuses[CALL_COUNT]) {
    static const vexi_fault_plan none = {0};
    vexi_store *store = faulty_store(plan);
    vexi_span part = text_span("x");
    for (uint32_t i = 0; i < CALL_COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, "n/%u", i);
        vex_error err;
        vex_status status = i % 2 == 0 ? vexi_store_put(store, name, &part, 1, &err)
                                       : vexi_store_put_if_absent(store, name, &part, 1, &err);
        CHECK(status == VEX_OK || strstr(err.message, name) != NULL);
        statuses[i] = (uint8_t)status;
    }
    CHECK_EQ(vexi_store_fault_calls(store), CALL_COUNT);
    vexi_store_fault_set(store, &none);
    CHECK_EQ(vexi_store_fault_calls(store), 0);
    for (uint32_t i = 0; i < CALL_COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, "n/%u", i);
        CHECK_EQ(is_there(store, name),
                 statuses[i] == VEX_OK || statuses[i] == VEX_UNKNOWN_OUTCOME);
    }
    vexi_store_destroy(store);
}

static size_t count_status(const uint8_t statuses[CALL_COUNT], vex_status status) {
    size_t count = 0;
    for (size_t i = 0; i < CALL_COUNT; i++) {
        count += statuses[i] == status;
    }
    return count;
}

TEST(rates_and_seeds) {
    static uint8_t first[CALL_COUNT], again[CALL_COUNT], other[CALL_COUNT];
    vexi_fault_plan plan = {
        .seed = 5, .error_ppm = 100000, .lost_answer_ppm = 200000, .full_ppm = 50000};
    run_puts(&plan, first);
    run_puts(&plan, again);
    CHECK(memcmp(first, again, sizeof first) == 0);
    plan.seed = 6;
    run_puts(&plan, other);
    CHECK(memcmp(first, other, sizeof first) != 0);
    size_t io = count_status(first, VEX_IO), lost = count_status(first, VEX_UNKNOWN_OUTCOME),
           full = count_status(first, VEX_FULL);
    printf("    of %d: %zu errors, %zu lost answers, %zu full\n", CALL_COUNT, io, lost, full);
    CHECK(io > 150 && io < 250);     /* 200 */
    CHECK(full > 50 && full < 130);  /* 90 */
    CHECK(lost > 280 && lost < 400); /* 342 */
}

TEST(n_th_call) {
    vexi_fault_plan plan = {.fail_at = 3};
    vexi_store *store = faulty_store(&plan);
    vexi_span part = text_span("x");
    CHECK_OK(vexi_store_put(store, "1", &part, 1, &err));
    CHECK_OK(vexi_store_put(store, "2", &part, 1, &err));
    CHECK_FAILS(VEX_IO, vexi_store_put(store, "3", &part, 1, &err));
    CHECK_OK(vexi_store_put(store, "4", &part, 1, &err));
    CHECK(!is_there(store, "3"));
    plan.fail_after = true;
    plan.fail_at = 2;
    vexi_store_fault_set(store, &plan);
    CHECK_OK(vexi_store_put(store, "5", &part, 1, &err));
    uint64_t size = 0;
    vexi_mapping mapping;
    vexi_log_file *log = NULL;
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_FAILS(VEX_IO, vexi_store_get(store, "5", NULL, 0, &err));
    CHECK_FAILS(VEX_IO, vexi_store_size(store, "5", &size, &err));
    CHECK_FAILS(VEX_IO, vexi_store_map(store, "5", &mapping, &err));
    CHECK_FAILS(VEX_IO, vexi_store_remove(store, "5", &err));
    CHECK_FAILS(VEX_IO, vexi_store_log_create(store, "log", &log, &err));
    CHECK_FAILS(VEX_IO, vexi_store_lock(store, "lock", &err));
    CHECK_FAILS(VEX_IO, vexi_store_list(store, "", NULL, false, &arena, &listing, &err));
    CHECK_FAILS(VEX_IO, vexi_store_put_if_absent(store, "6", &part, 1, &err));
    CHECK_EQ(vexi_store_fault_calls(store), 9);
    vexi_store_fault_set(store, &(vexi_fault_plan){0});
    CHECK(is_there(store, "5") && !is_there(store, "6") && !is_there(store, "log"));
    vexi_arena_deinit(&arena);
    vexi_store_destroy(store);
}

/* Append "0", "1", ... and sync each until a fault; what is left is all that was synced and a
 * part of what was not. Returns the bytes that survived of the failed call. */
static size_t run_log(const vexi_fault_plan *plan, vex_status expected) {
    static const vexi_fault_plan none = {0};
    vexi_store *store = faulty_store(plan);
    vexi_log_file *log = NULL;
    CHECK_OK(vexi_store_log_create(store, "log", &log, &err));
    size_t synced = 0;
    vex_status status = VEX_OK;
    for (int i = 0; i < 10000 && status == VEX_OK; i++) {
        uint8_t bytes[10];
        memset(bytes, '0' + i % 10, sizeof bytes);
        vexi_span parts[] = {vexi_span_of(bytes, 4), vexi_span_of(bytes, 0),
                             vexi_span_of(bytes, 6)};
        status = vexi_store_log_append(log, parts, 3, NULL);
        if (status == VEX_OK) {
            status = vexi_store_log_sync(log, NULL);
        }
        synced += status == VEX_OK ? 10 : 0;
    }
    CHECK_EQ(status, expected);
    CHECK_FAILS(VEX_IO, vexi_store_log_sync(log, &err));
    CHECK_FAILS(VEX_IO, vexi_store_log_append(log, NULL, 0, &err));
    vexi_store_log_close(log);
    vexi_store_fault_set(store, &none);
    vexi_mapping mapping;
    CHECK_OK(vexi_store_map(store, "log", &mapping, &err));
    CHECK(mapping.size >= synced && mapping.size <= synced + 10);
    for (size_t i = 0; i < mapping.size; i++) {
        CHECK_EQ(mapping.data[i], '0' + i / 10 % 10);
    }
    size_t survived = mapping.size - synced;
    vexi_store_unmap(store, &mapping);
    vexi_store_destroy(store);
    return survived;
}

TEST(logs) {
    size_t seen_sync[11] = {0}, seen_full[11] = {0};
    for (uint64_t seed = 0; seed < 300; seed++) {
        vexi_fault_plan plan = {.seed = seed, .sync_error_ppm = 100000};
        seen_sync[run_log(&plan, VEX_IO)]++;
        plan = (vexi_fault_plan){.seed = seed, .full_ppm = 100000};
        seen_full[run_log(&plan, VEX_FULL)]++;
    }
    for (size_t i = 0; i < 10; i++) {
        CHECK(seen_sync[i] > 0 && seen_full[i] > 0); /* every length but the whole */
    }
    CHECK(seen_sync[10] == 0 && seen_full[10] == 0);
}

/* Bytes that were never synced survive a close, but not when everything fails. */
TEST(close_without_sync) {
    size_t shorter = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        for (int down = 0; down < 2; down++) {
            vexi_fault_plan plan = {.seed = seed, .sync_error_ppm = 1};
            vexi_store *store = faulty_store(&plan);
            vexi_log_file *log = NULL;
            CHECK_OK(vexi_store_log_create(store, "log", &log, &err));
            vexi_span part = text_span("never synced");
            CHECK_OK(vexi_store_log_append(log, &part, 1, &err));
            if (down == 1) {
                plan.fail_at = 1;
                plan.fail_after = true;
                vexi_store_fault_set(store, &plan);
            }
            vexi_store_log_close(log);
            vexi_store_fault_set(store, &(vexi_fault_plan){0});
            uint64_t size = 0;
            CHECK_OK(vexi_store_size(store, "log", &size, &err));
            CHECK(size == part.size || down == 1);
            shorter += size < part.size;
            vexi_store_destroy(store);
        }
    }
    CHECK(shorter > 20);
}

TEST_MAIN(RUN(rates_and_seeds); RUN(n_th_call); RUN(logs); RUN(close_without_sync))
