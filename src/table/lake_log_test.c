/* Several nodes over one bucket: who writes, what the others see, and what happens when they
 * change places. */
#include "check.h"

#include "store/test_bucket.h"
#include "table/table_internal.h"

enum { NODES_MAX = 4, DIMENSION = 4 };

typedef struct node {
    vex_test_bucket *bucket;
    vexi_lake *lake;
    vexi_table *table;
} node;

static vexi_store *shared;

static vexi_lake_config node_config(int number) {
    vexi_lake_config config = {
        .durability = VEX_DURABILITY_LAKE,
        .sync_interval_ms = 10,
        .flush_interval_ms = 300000,
        .flush_size_bytes = 64 << 20,
        .memory_limit_bytes = 1 << 30,
        .segment_size_bytes = 64 << 20,
        .log_size_bytes = 64 << 20,
        .shared = true,
        .claim_timeout_ms = 30000,
        .heartbeat_interval_ms = 5000,
        .group_delay_ms = 1,
        .group_size_bytes = 1 << 20,
    };
    snprintf(config.node_name, sizeof config.node_name, "node-%d", number);
    return config;
}

static node node_open_with(const vexi_lake_config *config) {
    node n = {.bucket = vex_test_bucket_create(vex_test_env(), shared)};
    CHECK_OK(vexi_lake_open(vex_test_env(), &n.bucket->base, config, &n.lake, &err));
    return n;
}

static node node_open(int number) {
    vexi_lake_config config = node_config(number);
    return node_open_with(&config);
}

static void node_find(node *n) {
    CHECK_OK(vexi_lake_table(n->lake, vexi_string_of("c"), &n->table, &err));
}

static void node_close(node *n) {
    vexi_table_release(n->table);
    CHECK_OK(vexi_lake_close(n->lake, &err));
    *n = (node){.lake = NULL};
}

/* As kill -9: nothing is flushed or told, and its heartbeat stays as it is. */
static void node_kill(node *n) {
    __atomic_store_n(&n->bucket->unreachable, 1, __ATOMIC_RELAXED);
    vexi_table_release(n->table);
    CHECK_OK(vexi_lake_close(n->lake, &err));
    *n = (node){.lake = NULL};
}

static void begin(void) {
    CHECK_OK(vexi_store_mem_create(vex_test_env(), &shared, &err));
}

static void end(void) {
    vexi_store_destroy(shared);
    shared = NULL;
}

static void create(node *n) {
    vexi_schema schema = {.dimension = DIMENSION, .metric = VEX_METRIC_L2};
    CHECK_OK(vexi_lake_create_table(n->lake, vexi_string_of("c"), &schema, &err));
    node_find(n);
}

static vex_status put(node *n, const char *id, float value, vex_error *error) {
    float vector[DIMENSION] = {value, 1, 2, 3};
    vexi_row row = {.id = vexi_string_of(id), .vector = vector};
    return vexi_table_put(n->table, &row, 1, error);
}

static vex_status erase(node *n, const char *id, vex_error *error) {
    vex_string name = vexi_string_of(id);
    return vexi_table_delete(n->table, &name, 1, NULL, error);
}

/* The first value of a row's vector; -1: there is no such row. */
static float value_of(node *n, const char *id) {
    vexi_view *view;
    bool found;
    uint32_t source;
    uint64_t row;
    float value = -1;
    CHECK_OK(vexi_table_follow(n->table, true, &err));
    CHECK_OK(vexi_table_view(n->table, &view, &err));
    CHECK_OK(vexi_view_find(view, vexi_string_of(id), &found, &source, &row, &err));
    if (found) {
        vexi_arena arena;
        vexi_arena_init(&arena, vex_test_env());
        vexi_row_range range = {.first_row = row, .count = 1};
        vexi_run *runs;
        size_t count;
        CHECK_OK(
            vexi_source_runs(&view->sources[source], &range, 1, &arena, &runs, &count, NULL, &err));
        memcpy(&value, runs[0].vectors, sizeof value);
        vexi_arena_deinit(&arena);
    }
    vexi_view_release(view);
    return value;
}

static uint64_t live_count(node *n) {
    vexi_view *view;
    CHECK_OK(vexi_table_follow(n->table, true, &err));
    CHECK_OK(vexi_table_view(n->table, &view, &err));
    uint64_t count = view->live_count;
    vexi_view_release(view);
    return count;
}

/* Objects of the log. */
static size_t log_size(void) {
    vexi_arena arena;
    vexi_listing listing;
    vexi_arena_init(&arena, vex_test_env());
    CHECK_OK(vexi_store_list(shared, "c/log/", NULL, false, &arena, &listing, &err));
    size_t count = listing.count;
    vexi_arena_deinit(&arena);
    return count;
}

TEST(writer_and_reader) {
    begin();
    node writer = node_open(0);
    create(&writer);
    vexi_lake_config config = node_config(1);
    config.read_only = true;
    node reader = node_open_with(&config);
    node_find(&reader);
    CHECK_EQ(live_count(&reader), 0);
    CHECK_OK(put(&writer, "a", 1, &err));
    CHECK_OK(put(&writer, "b", 2, &err));
    CHECK_EQ(live_count(&reader), 2);
    CHECK(value_of(&reader, "b") == 2);
    CHECK_OK(put(&writer, "b", 3, &err));
    CHECK_OK(erase(&writer, "a", &err));
    CHECK(value_of(&reader, "b") == 3);
    CHECK(value_of(&reader, "a") == -1);
    /* A flush in the midst of what the reader holds: the rest is carried over. */
    CHECK_OK(vexi_table_flush(writer.table, &err));
    CHECK_EQ(log_size(), 1); /* the claim */
    CHECK_OK(put(&writer, "c", 4, &err));
    CHECK_OK(put(&writer, "b", 5, &err));
    CHECK_EQ(live_count(&reader), 2);
    CHECK(value_of(&reader, "b") == 5);
    CHECK_OK(vexi_table_flush(writer.table, &err));
    CHECK_OK(put(&writer, "b", 6, &err));
    CHECK(value_of(&reader, "b") == 6);
    CHECK(value_of(&reader, "c") == 4);
    CHECK_FAILS(VEX_READ_ONLY, put(&reader, "x", 1, &err));
    /* One that starts now finds the same. */
    node late = node_open_with(&config);
    node_find(&late);
    CHECK_EQ(live_count(&late), 2);
    CHECK(value_of(&late, "b") == 6);
    node_close(&late);
    node_close(&reader);
    node_close(&writer);
    end();
}

TEST(one_writer_at_a_time) {
    begin();
    node first = node_open(0);
    create(&first);
    CHECK_OK(put(&first, "a", 1, &err));
    node second = node_open(1);
    node_find(&second);
    vex_error refused;
    CHECK_EQ(put(&second, "b", 2, &refused), VEX_READ_ONLY);
    CHECK(strstr(refused.message, "node-0") != NULL);
    CHECK_FAILS(VEX_READ_ONLY, erase(&second, "a", &err));
    CHECK_FAILS(VEX_READ_ONLY, vexi_lake_drop_table(second.lake, vexi_string_of("c"), &err));
    CHECK(value_of(&second, "a") == 1);
    /* A node that ends lets go at once. */
    node_close(&first);
    CHECK_OK(put(&second, "b", 2, &err));
    CHECK_EQ(live_count(&second), 2);
    node_close(&second);
    end();
}

TEST(silence_and_takeover) {
    begin();
    node first = node_open(0);
    create(&first);
    CHECK_OK(put(&first, "a", 1, &err));
    vexi_lake_config config = node_config(1);
    config.claim_timeout_ms = 100;
    node second = node_open_with(&config);
    node_find(&second);
    CHECK_FAILS(VEX_READ_ONLY, put(&second, "b", 2, &err));
    /* Its heartbeats are 5 s apart: silent enough for who waits 0.1 s. */
    struct timespec pause = {.tv_nsec = 120000000};
    nanosleep(&pause, NULL);
    CHECK_OK(put(&second, "b", 2, &err));
    CHECK(value_of(&second, "a") == 1);
    /* The first does not know yet. Its next write meets the claim. */
    CHECK_FAILS(VEX_READ_ONLY, put(&first, "c", 3, &err));
    CHECK_EQ(live_count(&first), 2);
    CHECK(value_of(&first, "b") == 2);
    CHECK_FAILS(VEX_READ_ONLY, put(&first, "c", 3, &err));
    config = node_config(2);
    config.takeover = true;
    node third = node_open_with(&config);
    node_find(&third);
    CHECK_OK(put(&third, "d", 4, &err));
    CHECK_FAILS(VEX_READ_ONLY, put(&second, "e", 5, &err));
    CHECK_EQ(live_count(&third), 3);
    CHECK_EQ(live_count(&second), 3);
    CHECK_EQ(live_count(&first), 3);
    node_close(&third);
    node_close(&second);
    node_close(&first);
    end();
}

/* A writer that was taken over cannot commit what it had not flushed, nor delete from the log. */
TEST(fenced_flush) {
    begin();
    node first = node_open(0);
    create(&first);
    CHECK_OK(put(&first, "a", 1, &err));
    CHECK_OK(put(&first, "b", 2, &err));
    vexi_lake_config config = node_config(1);
    config.takeover = true;
    node second = node_open_with(&config);
    node_find(&second);
    CHECK_OK(put(&second, "a", 7, &err));
    CHECK(value_of(&first, "a") == 7); /* that it was taken over it learns by asking */
    size_t before = log_size();
    CHECK_FAILS(VEX_READ_ONLY, vexi_table_flush(first.table, &err));
    CHECK_EQ(log_size(), before);
    CHECK(value_of(&first, "a") == 7);
    CHECK_EQ(live_count(&first), 2);
    CHECK_OK(vexi_table_flush(second.table, &err));
    CHECK(value_of(&first, "a") == 7);
    CHECK(value_of(&second, "a") == 7);
    CHECK_EQ(live_count(&second), 2);
    CHECK_EQ(live_count(&first), 2);
    node_close(&second);
    node_close(&first);
    end();
}

TEST(a_killed_writer_loses_nothing) {
    begin();
    char id[16];
    for (int round = 0; round < 5; round++) {
        vexi_lake_config config = node_config(round);
        config.takeover = true;
        node writer = node_open_with(&config);
        if (round == 0) {
            create(&writer);
        } else {
            node_find(&writer);
        }
        for (int i = 0; i < 20; i++) {
            snprintf(id, sizeof id, "%d-%d", round, i);
            CHECK_OK(put(&writer, id, (float)i, &err));
            if (i == 7 && round % 2 == 0) {
                CHECK_OK(vexi_table_flush(writer.table, &err));
            }
        }
        CHECK_EQ(live_count(&writer), 20u * (unsigned)(round + 1));
        node_kill(&writer);
    }
    node reader = node_open(9);
    node_find(&reader);
    CHECK_EQ(live_count(&reader), 100);
    CHECK(value_of(&reader, "3-19") == 19);
    node_close(&reader);
    end();
}

/* Puts whose outcome is unknown: told so, and later either there for everybody or for nobody. */
TEST(unknown_outcomes) {
    for (int way = 0; way < 3; way++) {
        begin();
        node writer = node_open(0);
        create(&writer);
        CHECK_OK(put(&writer, "a", 1, &err));
        node reader = node_open(1);
        node_find(&reader);
        writer.bucket->only = "c/log/";
        int *left = way < 2 ? &writer.bucket->lost_answers : &writer.bucket->lost_puts;
        *left = way == 0 ? 1 : 4;
        vex_error unknown;
        vex_status status = put(&writer, "b", 2, &unknown);
        if (way == 0) {
            CHECK_EQ(status, VEX_OK); /* put again, the object proves to be ours */
        } else {
            CHECK_EQ(status, VEX_UNKNOWN_OUTCOME);
            /* Who asks for what holds now settles it, as the next write does. */
            CHECK(way == 1 || value_of(&writer, "b") == 2);
        }
        CHECK_OK(put(&writer, "c", 3, &err));
        CHECK_EQ(live_count(&writer), 3);
        CHECK_EQ(live_count(&reader), 3);
        CHECK(value_of(&writer, "b") == 2);
        CHECK_OK(vexi_table_flush(writer.table, &err));
        CHECK_EQ(live_count(&writer), 3);
        CHECK_EQ(live_count(&reader), 3);
        node_close(&reader);
        node_close(&writer);
        end();
    }
}

/* In doubt when another node takes over: the claim stands where the object would be. */
TEST(unknown_outcome_then_taken_over) {
    begin();
    node first = node_open(0);
    create(&first);
    CHECK_OK(put(&first, "a", 1, &err));
    first.bucket->only = "c/log/";
    first.bucket->lost_puts = 4;
    CHECK_FAILS(VEX_UNKNOWN_OUTCOME, put(&first, "b", 2, &err));
    vexi_lake_config config = node_config(1);
    config.takeover = true;
    node second = node_open_with(&config);
    node_find(&second);
    CHECK_OK(put(&second, "c", 3, &err));
    /* It does not know yet, but one that asks for what holds now finds out; and a delete of what is
     * not there as far as it knows. */
    vex_string missing = vexi_string_of("c");
    CHECK_FAILS(VEX_READ_ONLY, vexi_table_delete(first.table, &missing, 1, NULL, &err));
    CHECK_FAILS(VEX_READ_ONLY, put(&first, "d", 4, &err));
    CHECK_EQ(live_count(&second), 2);
    CHECK_EQ(live_count(&first), 2);
    CHECK(value_of(&first, "b") == -1);
    /* And back again. */
    node_close(&second);
    CHECK_OK(put(&first, "e", 5, &err));
    CHECK_EQ(live_count(&first), 3);
    node_close(&first);
    end();
}

/* More objects than one step reads, by a follower that starts late, one that falls behind a flush,
 * and one that takes over. */
TEST(a_long_log) {
    begin();
    node writer = node_open(0);
    create(&writer);
    node behind = node_open(1);
    node_find(&behind);
    char id[16];
    for (int i = 0; i < 300; i++) {
        snprintf(id, sizeof id, "%d", i);
        CHECK_OK(put(&writer, id, (float)i, &err));
        if (i == 10) {
            CHECK_EQ(live_count(&behind), 11);
        }
        if (i == 150) {
            CHECK_OK(vexi_table_flush(writer.table, &err));
        }
    }
    CHECK_EQ(log_size(), 1 + 149);
    CHECK_EQ(live_count(&behind), 300);
    node late = node_open(2);
    node_find(&late);
    uint64_t calls = late.bucket->call_count;
    CHECK_EQ(live_count(&late), 300);
    CHECK(value_of(&late, "299") == 299);
    CHECK(value_of(&late, "3") == 3);
    CHECK(late.bucket->call_count - calls < 200); /* the bucket has no way to read many at once */
    node_kill(&writer);
    vexi_lake_config config = node_config(3);
    config.takeover = true;
    node next = node_open_with(&config);
    node_find(&next);
    CHECK_OK(put(&next, "300", 300, &err));
    CHECK_EQ(live_count(&next), 301);
    CHECK_OK(vexi_table_flush(next.table, &err));
    CHECK_EQ(log_size(), 2);
    CHECK_EQ(live_count(&behind), 301);
    CHECK_EQ(live_count(&late), 301);
    node_close(&next);
    node_close(&late);
    node_close(&behind);
    end();
}

TEST(unreachable) {
    begin();
    node writer = node_open(0);
    create(&writer);
    node reader = node_open(1);
    node_find(&reader);
    CHECK_OK(put(&writer, "a", 1, &err));
    CHECK_EQ(live_count(&reader), 1);
    writer.bucket->unreachable = 1;
    reader.bucket->unreachable = 1;
    CHECK_FAILS(VEX_IO, put(&writer, "b", 2, &err));
    CHECK_FAILS(VEX_IO, vexi_table_follow(reader.table, true, &err));
    CHECK_OK(vexi_table_follow(reader.table, false, &err)); /* what it knows */
    writer.bucket->unreachable = 0;
    reader.bucket->unreachable = 0;
    CHECK_OK(put(&writer, "b", 2, &err));
    CHECK_EQ(live_count(&writer), 2);
    CHECK_EQ(live_count(&reader), 2);
    node_close(&reader);
    node_close(&writer);
    end();
}

TEST(dropped_and_made_again) {
    begin();
    node writer = node_open(0);
    create(&writer);
    node reader = node_open(1);
    node_find(&reader);
    CHECK_OK(put(&writer, "a", 1, &err));
    CHECK_EQ(live_count(&reader), 1);
    CHECK_EQ(log_size(), 2);
    CHECK_OK(vexi_lake_drop_table(writer.lake, vexi_string_of("c"), &err));
    CHECK_EQ(log_size(), 1); /* the claim stays */
    vexi_table_release(writer.table);
    create(&writer);
    CHECK_OK(put(&writer, "b", 2, &err));
    CHECK_EQ(live_count(&writer), 1);
    (void)vexi_table_follow(reader.table, true, NULL);
    vexi_table_release(reader.table);
    CHECK_FAILS(VEX_NOT_FOUND,
                vexi_lake_table(reader.lake, vexi_string_of("nothing"), &reader.table, &err));
    node_find(&reader);
    CHECK_EQ(live_count(&reader), 1);
    CHECK(value_of(&reader, "b") == 2);
    node_close(&reader);
    node_close(&writer);
    end();
}

TEST_MAIN(RUN(writer_and_reader); RUN(one_writer_at_a_time); RUN(silence_and_takeover);
          RUN(fenced_flush); RUN(a_killed_writer_loses_nothing); RUN(unknown_outcomes);
          RUN(unknown_outcome_then_taken_over); RUN(a_long_log); RUN(unreachable);
          RUN(dropped_and_made_again))
