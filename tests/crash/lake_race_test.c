/* Writers that race for a collection in a bucket: threads, many rounds.
 *
 * In each round two or three nodes, which all may take over, begin to write at the same moment; one
 * of them may lose answers, or flush. Another node reads meanwhile. Of every write that was
 * acknowledged the epoch is known, and when it began and ended: no write begins behind the end of
 * another under a higher epoch and is acknowledged under a lower one. At the end a node that starts
 * then finds all that was acknowledged and nothing that was refused. */
#include <pthread.h>

#include "check.h"
#include "store/test_bucket.h"
#include "table/table_internal.h"

enum { WRITERS_MAX = 3, WRITES = 24, DIMENSION = 4 };

typedef struct race_write {
    vex_status status;
    uint64_t epoch;
    uint64_t begin; /* by the round's clock */
    uint64_t end;
} race_write;

typedef struct race_node {
    vexi_lake *lake;
    vexi_table *table;
    vex_test_bucket *bucket;
    int number;
    uint64_t random;
    race_write writes[WRITES];
    size_t flushes;
} race_node;

static vexi_store *shared;
static pthread_barrier_t start;
static uint64_t ticks;   /* atomic */
static int running;      /* atomic: writers */
static uint64_t polls;   /* the reader's */
static const char *what; /* the round, for failures */

static void node_open(race_node *node, int number, bool read_only) {
    vexi_lake_config config = {
        .durability = VEX_DURABILITY_LAKE,
        .sync_interval_ms = 10,
        .flush_interval_ms = 300000,
        .refresh_interval_ms = 2,
        .flush_size_bytes = 64 << 20,
        .memory_limit_bytes = 1 << 30,
        .segment_size_bytes = 64 << 20,
        .log_size_bytes = 64 << 20,
        .shared = true,
        .read_only = read_only,
        .takeover = !read_only,
        .claim_timeout_ms = 30000,
        .heartbeat_interval_ms = 5000,
        .group_size_bytes = 1 << 20,
    };
    snprintf(config.node_name, sizeof config.node_name, "node-%d", number);
    node->number = number;
    node->bucket = vex_test_bucket_create(vex_test_env(), shared);
    CHECK_OK(vexi_lake_open(vex_test_env(), &node->bucket->base, &config, &node->lake, &err));
    CHECK_OK(vexi_lake_table(node->lake, vexi_string_of("c"), &node->table, &err));
}

static void node_close(race_node *node) {
    vexi_table_release(node->table);
    CHECK_OK(vexi_lake_close(node->lake, &err));
}

static uint64_t tick(void) {
    return __atomic_add_fetch(&ticks, 1, __ATOMIC_SEQ_CST);
}

static void row_id(int node, int number, char out[32]) {
    snprintf(out, 32, "%d-%02d", node, number);
}

static bool fine(vex_status status) {
    return status == VEX_OK || status == VEX_READ_ONLY || status == VEX_UNKNOWN_OUTCOME ||
           status == VEX_IO;
}

static void *writer_run(void *argument) {
    race_node *node = argument;
    pthread_barrier_wait(&start);
    for (int i = 0; i < WRITES; i++) {
        char id[32];
        float vector[DIMENSION] = {(float)i, 1, 2, 3};
        row_id(node->number, i, id);
        vexi_row row = {.id = vexi_string_of(id), .vector = vector};
        race_write *write = &node->writes[i];
        vex_error error;
        write->begin = tick();
        write->status = vexi_table_put(node->table, &row, 1, &error);
        write->end = tick();
        write->epoch = node->table->log->epoch; /* changed by this thread's claims alone */
        if (!fine(write->status)) {
            fprintf(stderr, "%s: node %d: %s: %s\n", what, node->number,
                    vex_status_text(write->status), error.message);
            exit(1);
        }
        if (vex_test_below(&node->random, 12) == 0) {
            vex_status status = vexi_table_flush(node->table, &error);
            if (!fine(status)) {
                fprintf(stderr, "%s: node %d flushes: %s: %s\n", what, node->number,
                        vex_status_text(status), error.message);
                exit(1);
            }
            node->flushes++;
        }
    }
    __atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static bool is_there(vexi_view *view, int node, int number) {
    char id[32];
    bool found;
    uint32_t source;
    uint64_t row;
    row_id(node, number, id);
    CHECK_OK(vexi_view_find(view, vexi_string_of(id), &found, &source, &row, &err));
    return found;
}

/* What it saw it sees again, and what was acknowledged before it asked. */
static void *reader_run(void *argument) {
    race_node *nodes = argument;
    race_node *reader = &nodes[WRITERS_MAX];
    bool seen[WRITERS_MAX][WRITES] = {{false}};
    bool last = false;
    pthread_barrier_wait(&start);
    while (!last) {
        last = __atomic_load_n(&running, __ATOMIC_SEQ_CST) == 0;
        vexi_view *view;
        CHECK_OK(vexi_table_follow(reader->table, polls % 2 == 0, &err));
        CHECK_OK(vexi_table_view(reader->table, &view, &err));
        for (int n = 0; n < WRITERS_MAX; n++) {
            for (int i = 0; i < WRITES; i++) {
                bool there = is_there(view, n, i);
                if (seen[n][i] && !there) {
                    fprintf(stderr, "%s: row %d-%02d is gone again\n", what, n, i);
                    exit(1);
                }
                seen[n][i] = there;
            }
        }
        vexi_view_release(view);
        polls++;
    }
    return NULL;
}

static void check_epochs(const race_node *nodes, int count) {
    for (int a = 0; a < count; a++) {
        for (int b = 0; b < count; b++) {
            for (int i = 0; a != b && i < WRITES; i++) {
                for (int j = 0; j < WRITES; j++) {
                    const race_write *first = &nodes[a].writes[i];
                    const race_write *second = &nodes[b].writes[j];
                    if (first->status != VEX_OK || second->status != VEX_OK) {
                        continue;
                    }
                    CHECK(first->epoch != second->epoch);
                    if (first->end < second->begin && first->epoch > second->epoch) {
                        fprintf(stderr, "%s: %d-%02d under epoch %llu behind %d-%02d under %llu\n",
                                what, b, j, (unsigned long long)second->epoch, a, i,
                                (unsigned long long)first->epoch);
                        exit(1);
                    }
                }
            }
        }
    }
}

typedef struct race_total {
    uint64_t acknowledged, refused, unknown, takeovers, flushes;
} race_total;

static void race(uint64_t seed, race_total *total) {
    char name[64];
    static race_node nodes[WRITERS_MAX + 1];
    pthread_t threads[WRITERS_MAX + 1];
    uint64_t random = seed;
    int count = 2 + (int)vex_test_below(&random, 2);
    memset(nodes, 0, sizeof nodes);
    snprintf(name, sizeof name, "race of seed %llu", (unsigned long long)seed);
    what = name;
    CHECK_OK(vexi_store_mem_create(vex_test_env(), &shared, &err));
    vex_test_bucket *maker = vex_test_bucket_create(vex_test_env(), shared);
    vexi_lake_config config = {.shared = true, .durability = VEX_DURABILITY_LAKE};
    vexi_lake *lake;
    CHECK_OK(vexi_lake_open(vex_test_env(), &maker->base, &config, &lake, &err));
    vexi_schema schema = {.dimension = DIMENSION, .metric = VEX_METRIC_L2};
    CHECK_OK(vexi_lake_create_table(lake, vexi_string_of("c"), &schema, &err));
    CHECK_OK(vexi_lake_close(lake, &err));
    for (int i = 0; i < count; i++) {
        node_open(&nodes[i], i, false);
        nodes[i].random = vex_test_random(&random);
    }
    node_open(&nodes[WRITERS_MAX], 9, true);
    if (vex_test_below(&random, 2) == 0) {
        nodes[0].bucket->lost_answers = (int)vex_test_below(&random, 6);
        nodes[1].bucket->lost_puts = (int)vex_test_below(&random, 6);
        nodes[0].bucket->only = "c/log/";
        nodes[1].bucket->only = "c/log/";
    }
    ticks = 0;
    running = count;
    CHECK(pthread_barrier_init(&start, NULL, (unsigned)count + 1) == 0);
    for (int i = 0; i < count; i++) {
        CHECK(pthread_create(&threads[i], NULL, writer_run, &nodes[i]) == 0);
    }
    CHECK(pthread_create(&threads[count], NULL, reader_run, nodes) == 0);
    for (int i = 0; i <= count; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(pthread_barrier_destroy(&start) == 0);
    check_epochs(nodes, count);
    node_close(&nodes[WRITERS_MAX]);
    node_open(&nodes[WRITERS_MAX], 9, true);
    vexi_view *view;
    CHECK_OK(vexi_table_follow(nodes[WRITERS_MAX].table, true, &err));
    CHECK_OK(vexi_table_view(nodes[WRITERS_MAX].table, &view, &err));
    uint64_t epochs = 0;
    for (int n = 0; n < count; n++) {
        for (int i = 0; i < WRITES; i++) {
            const race_write *write = &nodes[n].writes[i];
            bool there = is_there(view, n, i);
            if (write->status == VEX_OK ? !there : write->status != VEX_UNKNOWN_OUTCOME && there) {
                fprintf(stderr, "%s: row %d-%02d was answered %s and is %s\n", what, n, i,
                        vex_status_text(write->status), there ? "there" : "not there");
                exit(1);
            }
            total->acknowledged += write->status == VEX_OK ? 1 : 0;
            total->unknown += write->status == VEX_UNKNOWN_OUTCOME ? 1 : 0;
            total->refused += write->status == VEX_READ_ONLY || write->status == VEX_IO ? 1 : 0;
            if (write->status == VEX_OK && write->epoch < 64) {
                epochs |= (uint64_t)1 << write->epoch;
            }
        }
        total->flushes += nodes[n].flushes;
    }
    total->takeovers += (uint64_t)__builtin_popcountll(epochs) - 1;
    vexi_view_release(view);
    for (int i = 0; i < count; i++) {
        node_close(&nodes[i]);
    }
    node_close(&nodes[WRITERS_MAX]);
    vexi_store_destroy(shared);
}

TEST(writers_race) {
    uint64_t seed = vex_test_seed(1);
    uint64_t races = vex_test_effort(120);
    race_total total = {.acknowledged = 0};
    for (uint64_t i = 0; i < races; i++) {
        race(seed + i, &total);
    }
    printf("    %llu races: %llu writes acknowledged, %llu refused, %llu unknown; %llu takeovers "
           "between acknowledged writes, %llu flushes, %llu looks\n",
           (unsigned long long)races, (unsigned long long)total.acknowledged,
           (unsigned long long)total.refused, (unsigned long long)total.unknown,
           (unsigned long long)total.takeovers, (unsigned long long)total.flushes,
           (unsigned long long)polls);
    CHECK(total.takeovers > 0 && total.refused > 0);
}

TEST_MAIN(RUN(writers_race))
