/* For tests of the public header: reading results, building Arrow streams, temporary lakes. */
#ifndef VEXI_API_API_TEST_H
#define VEXI_API_API_TEST_H

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "vexlake.h"

static inline vex_string str(const char *text) {
    return (vex_string){text, strlen(text)};
}

/* ---- Results --------------------------------------------------------------------------------- */

typedef struct result {
    struct ArrowSchema schema;
    struct ArrowArray batch;
} result;

static inline void result_release(result *r) {
    if (r->schema.release != NULL) {
        r->schema.release(&r->schema);
    }
    if (r->batch.release != NULL) {
        r->batch.release(&r->batch);
    }
    CHECK(r->schema.release == NULL && r->batch.release == NULL);
}

/* Number of a column, checked against its format. */
static inline int64_t result_column(const result *r, const char *name, const char *format) {
    CHECK(strcmp(r->schema.format, "+s") == 0);
    CHECK_EQ(r->schema.n_children, r->batch.n_children);
    for (int64_t i = 0; i < r->schema.n_children; i++) {
        if (strcmp(r->schema.children[i]->name, name) == 0) {
            CHECK(strcmp(r->schema.children[i]->format, format) == 0);
            CHECK_EQ(r->batch.children[i]->length, r->batch.length);
            CHECK_EQ(r->batch.children[i]->offset, 0);
            return i;
        }
    }
    fprintf(stderr, "no column %s\n", name);
    exit(1);
}

static inline bool array_is_null(const struct ArrowArray *array, int64_t row) {
    const uint8_t *bits = array->buffers[0];
    CHECK(row < array->length);
    CHECK((bits == NULL) == (array->null_count == 0));
    return bits != NULL && (bits[row / 8] >> (row % 8) & 1) == 0;
}

static inline vex_string array_string(const struct ArrowArray *array, int64_t row) {
    const int32_t *offsets = array->buffers[1];
    CHECK_EQ(array->n_buffers, 3);
    if (array_is_null(array, row)) {
        CHECK_EQ(offsets[row], offsets[row + 1]);
        return (vex_string){NULL, 0};
    }
    return (vex_string){(const char *)array->buffers[2] + offsets[row],
                        (size_t)(offsets[row + 1] - offsets[row])};
}

static inline vex_string result_string(const result *r, const char *name, const char *format,
                                       int64_t row) {
    return array_string(r->batch.children[result_column(r, name, format)], row);
}

static inline vex_string result_id(const result *r, int64_t row) {
    return result_string(r, "id", "u", row);
}

static inline bool string_is(vex_string value, const char *text) {
    return value.data != NULL && value.size == strlen(text) &&
           memcmp(value.data, text, value.size) == 0;
}

static inline double result_distance(const result *r, int64_t row) {
    const struct ArrowArray *array = r->batch.children[result_column(r, "distance", "g")];
    CHECK(!array_is_null(array, row));
    return ((const double *)array->buffers[1])[row];
}

static inline uint32_t result_query(const result *r, int64_t row) {
    const struct ArrowArray *array = r->batch.children[result_column(r, "query", "I")];
    CHECK(!array_is_null(array, row));
    return ((const uint32_t *)array->buffers[1])[row];
}

/* NULL for a null vector. */
static inline const float *result_vector(const result *r, uint32_t dimension, int64_t row) {
    char format[32];
    snprintf(format, sizeof format, "+w:%u", dimension);
    const struct ArrowArray *array = r->batch.children[result_column(r, "vector", format)];
    CHECK_EQ(array->n_children, 1);
    CHECK_EQ(array->children[0]->length, array->length * dimension);
    return array_is_null(array, row)
               ? NULL
               : (const float *)array->children[0]->buffers[1] + row * dimension;
}

/* ---- Short calls ----------------------------------------------------------------------------- */

static inline void create(vex_lake *lake, const char *name, uint32_t dimension, vex_metric metric,
                          vex_index_kind index) {
    vex_collection_options options = {
        .size = sizeof options, .dimension = dimension, .metric = metric, .index = index};
    CHECK_OK(vex_collection_create(lake, str(name), &options, &err));
}

static inline vex_status put_one(vex_lake *lake, const char *name, const char *id,
                                 const float *vector, uint32_t dimension, vex_error *err) {
    vex_row row = {.id = str(id), .vector = vector, .dimension = dimension};
    return vex_put_rows(lake, str(name), &row, 1, err);
}

static inline vex_status search_k(vex_lake *lake, const char *name, const float *query,
                                  uint32_t dimension, uint32_t k, bool exact, result *out,
                                  vex_error *err) {
    vex_search_options options = {.size = sizeof options, .k = k, .exact = exact};
    return vex_search(lake, str(name), query, 1, dimension, &options, &out->schema, &out->batch,
                      err);
}

static inline vex_status get_columns(vex_lake *lake, const char *name, const char *id, result *out,
                                     vex_error *err) {
    vex_get_options options = {.size = sizeof options, .all_columns = true};
    vex_string ids = str(id);
    return vex_get(lake, str(name), &ids, 1, &options, &out->schema, &out->batch, err);
}

/* ---- Temporary lakes ------------------------------------------------------------------------- */

/* A path below /tmp that does not exist yet; give it back with folder_remove. */
static inline char *folder_create(void) {
    char path[] = "/tmp/vexlake-test-XXXXXX";
    CHECK(mkdtemp(path) != NULL);
    char *lake = malloc(sizeof path + 5);
    CHECK(lake != NULL);
    snprintf(lake, sizeof path + 5, "%s/lake", path);
    return lake;
}

static inline void folder_remove(char *lake) {
    char command[128];
    lake[strlen(lake) - strlen("/lake")] = '\0';
    CHECK(strncmp(lake, "/tmp/vexlake-test-", 18) == 0);
    snprintf(command, sizeof command, "rm -rf '%s'", lake);
    CHECK(system(command) == 0);
    free(lake);
}

#endif
