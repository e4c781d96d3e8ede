/* For recall tests: clustered data, lakes filled with them, recall against exact search. */
#ifndef VEX_TESTS_RECALL_H
#define VEX_TESTS_RECALL_H

#include <stdlib.h>

#include "../../src/api/api_test.h"

enum { SET_ID_SIZE = 16 };

/* Rows around random centres; row i has the id "r<i>". */
typedef struct set {
    uint32_t dimension;
    uint64_t seed;
    int cluster_count;
    float spread;   /* of rows around their centre, whose values are of size 1 */
    float *centers; /* cluster_count x dimension */
    int count;
    float *vectors; /* count x dimension */
    bool *live;     /* count */
} set;

static inline void set_draw(set *s, float *out) {
    const float *center =
        s->centers + vex_test_below(&s->seed, (uint64_t)s->cluster_count) * s->dimension;
    for (uint32_t i = 0; i < s->dimension; i++) {
        out[i] = center[i] + s->spread * vex_test_normal(&s->seed);
    }
}

static inline set *set_create(uint32_t dimension, int count, int cluster_count, float spread,
                              uint64_t number) {
    set *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    *s = (set){.dimension = dimension,
               .seed = vex_test_seed(number),
               .cluster_count = cluster_count,
               .spread = spread,
               .count = count};
    s->centers = malloc((size_t)cluster_count * dimension * sizeof(float));
    s->vectors = malloc((size_t)count * dimension * sizeof(float));
    s->live = calloc((size_t)count, sizeof *s->live);
    CHECK(s->centers != NULL && s->vectors != NULL && s->live != NULL);
    for (size_t i = 0; i < (size_t)cluster_count * dimension; i++) {
        s->centers[i] = vex_test_normal(&s->seed);
    }
    for (int i = 0; i < count; i++) {
        set_draw(s, s->vectors + (size_t)i * dimension);
    }
    return s;
}

static inline void set_destroy(set *s) {
    free(s->centers);
    free(s->vectors);
    free(s->live);
    free(s);
}

/* Queries like the rows, none of which is one. Freed by the caller. */
static inline float *set_queries(set *s, int count) {
    float *queries = malloc((size_t)count * s->dimension * sizeof *queries);
    CHECK(queries != NULL);
    for (int i = 0; i < count; i++) {
        set_draw(s, queries + (size_t)i * s->dimension);
    }
    return queries;
}

static inline void set_put(vex_lake *lake, set *s, int first, int count) {
    enum { BATCH = 500 };
    static char names[BATCH][SET_ID_SIZE];
    static vex_row rows[BATCH];
    while (count > 0) {
        int part = count < BATCH ? count : BATCH;
        for (int i = 0; i < part; i++) {
            snprintf(names[i], SET_ID_SIZE, "r%06d", first + i);
            s->live[first + i] = true;
            rows[i] = (vex_row){.id = str(names[i]),
                                .vector = s->vectors + (size_t)(first + i) * s->dimension,
                                .dimension = s->dimension};
        }
        CHECK_OK(vex_put_rows(lake, str("c"), rows, (size_t)part, &err));
        first += part;
        count -= part;
    }
}

/* Delete rows at random until `left` live. */
static inline void set_delete(vex_lake *lake, set *s, int left) {
    enum { BATCH = 500 };
    static char names[BATCH][SET_ID_SIZE];
    static vex_string ids[BATCH];
    static uint8_t existed[BATCH];
    int live = 0;
    for (int i = 0; i < s->count; i++) {
        live += s->live[i];
    }
    while (live > left) {
        size_t part = 0;
        for (int row; part < BATCH && live > left; live--) {
            do {
                row = (int)vex_test_below(&s->seed, (uint64_t)s->count);
            } while (!s->live[row]);
            s->live[row] = false;
            snprintf(names[part], SET_ID_SIZE, "r%06d", row);
            ids[part] = str(names[part]);
            part++;
        }
        CHECK_OK(vex_delete(lake, str("c"), ids, part, existed, &err));
        for (size_t i = 0; i < part; i++) {
            CHECK_EQ(existed[i], 1);
        }
    }
}

/* Wait until every segment has its graph. */
static inline void graphs_wait(vex_lake *lake) {
    static vex_collection_info info;
    do {
        CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
        usleep(2000);
    } while (info.graph_missing_count > 0);
}

/* Search exactly and by `options`, and return the share of the exact answers' rows that the latter
 * found, or rows that are as near but for a part in a million, which only EXACT tells apart. Both
 * must give every query the same number of rows, at most one of an id, live ones, in order. */
static inline double set_recall(vex_lake *lake, const set *s, const float *queries, int query_count,
                                const vex_search_options *options, vex_search_stats *stats) {
    vex_search_options asked = *options, exactly = *options;
    result found, truth;
    asked.size = exactly.size = sizeof asked;
    asked.stats = stats;
    exactly.exact = true;
    exactly.nprobe = exactly.ef = 0;
    exactly.stats = NULL;
    CHECK_OK(vex_search(lake, str("c"), queries, (uint32_t)query_count, s->dimension, &exactly,
                        &truth.schema, &truth.batch, &err));
    CHECK_OK(vex_search(lake, str("c"), queries, (uint32_t)query_count, s->dimension, &asked,
                        &found.schema, &found.batch, &err));
    CHECK_EQ(found.batch.length, truth.batch.length);
    int64_t each = query_count == 0 ? 0 : truth.batch.length / query_count;
    int *seen_by = calloc((size_t)s->count + 1, sizeof *seen_by);
    CHECK(seen_by != NULL);
    int64_t hits = 0;
    for (int64_t i = 0; i < found.batch.length; i++) {
        int query = (int)(i / each), row = -1;
        char text[SET_ID_SIZE] = {0};
        vex_string id = result_id(&found, i);
        CHECK(id.size < SET_ID_SIZE);
        memcpy(text, id.data, id.size);
        CHECK(sscanf(text, "r%d", &row) == 1 && row >= 0 && row < s->count && s->live[row]);
        CHECK(seen_by[row] != query + 1);
        seen_by[row] = query + 1;
        CHECK(i % each == 0 || result_distance(&found, i - 1) <= result_distance(&found, i));
        double last = result_distance(&truth, (query + 1) * each - 1);
        hits += result_distance(&found, i) <= last + 1e-6 * fabs(last);
    }
    free(seen_by);
    double recall = truth.batch.length == 0 ? 1 : (double)hits / (double)truth.batch.length;
    result_release(&found);
    result_release(&truth);
    return recall;
}

#endif
