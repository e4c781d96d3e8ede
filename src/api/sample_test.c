/* Random rows: live ones only, none twice, all equally likely, the same for the same seed. */
#include "api_test.h"

enum { ROWS = 60, DEAD = 20 };

static vex_status sample(vex_lake *lake, uint32_t count, uint64_t seed, result *out,
                         vex_error *err) {
    return vex_sample(lake, str("c"), count, seed, NULL, &out->schema, &out->batch, err);
}

/* Rows 0 .. 59 in two segments and a memtable; the first twenty are deleted again. */
static vex_lake *lake_create(void) {
    vex_lake *lake;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    create(lake, "c", 2, VEX_METRIC_L2, VEX_INDEX_AUTO);
    for (int i = 0; i < ROWS; i++) {
        char id[16];
        float vector[2] = {(float)i, 1};
        snprintf(id, sizeof id, "%d", i);
        CHECK_OK(put_one(lake, "c", id, vector, 2, &err));
        if (i == 15 || i == 40) {
            CHECK_OK(vex_flush(lake, str("c"), &err));
        }
    }
    for (int i = 0; i < DEAD; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", i);
        vex_string ids = str(id);
        CHECK_OK(vex_delete(lake, str("c"), &ids, 1, NULL, &err));
    }
    return lake;
}

/* Count each row of a sample, whose rows differ. */
static void tally(const result *r, uint32_t counts[ROWS]) {
    bool seen[ROWS] = {false};
    for (int64_t row = 0; row < r->batch.length; row++) {
        vex_string id = result_id(r, row);
        char text[16] = {0};
        CHECK(id.data != NULL && id.size < sizeof text);
        memcpy(text, id.data, id.size);
        int number = (int)strtol(text, NULL, 10);
        CHECK(number >= DEAD && number < ROWS && !seen[number]);
        seen[number] = true;
        counts[number]++;
    }
}

TEST(rows_are_live_and_equally_likely) {
    vex_lake *lake = lake_create();
    /* Small samples are drawn, large ones listed. */
    for (uint32_t count = 1; count <= 40; count += 13) {
        uint32_t counts[ROWS] = {0};
        for (uint64_t seed = 0; seed < 1000; seed++) {
            result r = {0};
            CHECK_OK(sample(lake, count, seed, &r, &err));
            CHECK_EQ(r.batch.length, count);
            tally(&r, counts);
            result_release(&r);
        }
        double expected = 1000.0 * count / (ROWS - DEAD);
        for (int i = DEAD; i < ROWS; i++) {
            CHECK(fabs(counts[i] - expected) <= 6 * sqrt(expected));
        }
    }
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST(columns_seeds_and_limits) {
    vex_lake *lake = lake_create();
    result a = {0}, b = {0}, c = {0};
    CHECK_OK(sample(lake, 1000, 7, &a, &err));
    CHECK_EQ(a.batch.length, ROWS - DEAD);
    CHECK_OK(sample(lake, 1000, 7, &b, &err));
    CHECK_OK(sample(lake, 1000, 8, &c, &err));
    bool same = true, other = true;
    for (int64_t row = 0; row < ROWS - DEAD; row++) {
        vex_string x = result_id(&a, row), y = result_id(&b, row), z = result_id(&c, row);
        same = same && x.size == y.size && memcmp(x.data, y.data, x.size) == 0;
        other = other && x.size == z.size && memcmp(x.data, z.data, x.size) == 0;
    }
    CHECK(same && !other);
    result_release(&a);
    result_release(&b);
    result_release(&c);

    vex_string vector = str("vector");
    vex_get_options options = {.size = sizeof options, .columns = &vector, .column_count = 1};
    CHECK_OK(vex_sample(lake, str("c"), 5, 1, &options, &a.schema, &a.batch, &err));
    for (int64_t row = 0; row < 5; row++) {
        char text[16];
        snprintf(text, sizeof text, "%d", (int)result_vector(&a, 2, row)[0]);
        CHECK(string_is(result_id(&a, row), text));
    }
    result_release(&a);

    CHECK_FAILS(VEX_INVALID, sample(lake, 1000001, 1, &a, &err));
    CHECK_FAILS(VEX_NOT_FOUND, vex_sample(lake, str("d"), 1, 1, NULL, NULL, &a.batch, &err));
    create(lake, "d", 2, VEX_METRIC_L2, VEX_INDEX_AUTO);
    CHECK_OK(vex_sample(lake, str("d"), 5, 1, NULL, NULL, &a.batch, &err));
    CHECK_EQ(a.batch.length, 0);
    result_release(&a);
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST_MAIN(RUN(rows_are_live_and_equally_likely); RUN(columns_seeds_and_limits))
