/* Damaged files under a lake: data files are named by searches and left out with `partial`, index
 * files done without; never a crash. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api_test.h"

enum { ROWS = 400, DIMENSION = 16 };

/* The only file below the lake's folder whose path matches `pattern` (find's -path). */
static void find_file(const char *lake, const char *pattern, char out[512]) {
    char command[300];
    snprintf(command, sizeof command, "find '%s' -type f -path '%s' | sort | head -1", lake,
             pattern);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL && fgets(out, 512, pipe) != NULL);
    CHECK(pclose(pipe) == 0);
    out[strcspn(out, "\n")] = '\0';
}

static void vector_of(int row, float out[DIMENSION]) {
    uint64_t seed = (uint64_t)row + 1;
    for (int i = 0; i < DIMENSION; i++) {
        out[i] = vex_test_normal(&seed);
    }
}

static void put_rows(vex_lake *lake, int first, int count) {
    static char names[ROWS][16];
    static float vectors[ROWS][DIMENSION];
    static vex_row rows[ROWS];
    for (int i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "r%d", first + i);
        vector_of(first + i, vectors[i]);
        rows[i] = (vex_row){.id = str(names[i]),
                            .vector = vectors[i],
                            .dimension = DIMENSION,
                            .attributes = str("{\"some\": \"attributes\"}")};
    }
    CHECK_OK(vex_put_rows(lake, str("c"), rows, (size_t)count, &err));
}

/* A lake with rows 0 .. ROWS-1 in one segment, ROWS .. 2 ROWS-1 in another, and one in memory. */
static char *lake_make(void) {
    char *path = folder_create();
    vex_lake *lake;
    CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
    create(lake, "c", DIMENSION, VEX_METRIC_L2, VEX_INDEX_AUTO);
    for (int segment = 0; segment < 2; segment++) {
        put_rows(lake, segment * ROWS, ROWS);
        CHECK_OK(vex_flush(lake, str("c"), &err));
    }
    put_rows(lake, 2 * ROWS, 1);
    CHECK_OK(vex_lake_close(lake, &err));
    return path;
}

static vex_status search(vex_lake *lake, bool partial, bool columns, vex_search_stats *stats,
                         result *r, vex_error *err) {
    vex_string names[2] = {str("attributes"), str("vector")};
    float query[DIMENSION];
    vector_of(5, query);
    vex_search_options options = {.size = sizeof options,
                                  .k = 3 * ROWS,
                                  .exact = true,
                                  .partial = partial,
                                  .column_count = columns ? 2 : 0,
                                  .columns = names,
                                  .stats = stats};
    *r = (result){0};
    return vex_search(lake, str("c"), query, 1, DIMENSION, &options, &r->schema, &r->batch, err);
}

/* The search fails and names the object; with partial it has all rows but the damaged segment's. */
static void check_damage(vex_lake *lake, const char *object, bool columns) {
    vex_error err = {0};
    vex_search_stats stats;
    result r;
    const char *name = strrchr(object, '/') + 1;
    char uuid[37] = {0};
    memcpy(uuid, name, strcspn(name, ".") < 36 ? strcspn(name, ".") : 36);
    vex_status status = search(lake, false, columns, NULL, &r, &err);
    CHECK(status == VEX_CORRUPT || status == VEX_IO);
    if (strstr(err.message, uuid) == NULL) {
        fprintf(stderr, "'%s' does not name %s\n", err.message, uuid);
        exit(1);
    }
    CHECK(r.batch.release == NULL && r.schema.release == NULL);
    CHECK_OK(search(lake, true, columns, &stats, &r, &err));
    CHECK_EQ(r.batch.length, ROWS + 1);
    CHECK_EQ(stats.segment_count, 2);
    CHECK_EQ(stats.segment_skip_count, 1);
    result_release(&r);
}

static void flip_byte(const char *path, off_t at) {
    int file = open(path, O_RDWR);
    uint8_t byte;
    CHECK(file >= 0 && pread(file, &byte, 1, at) == 1);
    byte ^= 0x40;
    CHECK(pwrite(file, &byte, 1, at) == 1);
    CHECK(close(file) == 0);
}

static off_t file_size(const char *path) {
    struct stat info;
    CHECK(stat(path, &info) == 0);
    return info.st_size;
}

/* Where the first vector of a row lies in a file; -1 if it does not. */
static off_t find_vector(const char *path, int row) {
    float v[DIMENSION];
    vector_of(row, v);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    size_t size = (size_t)file_size(path);
    char *bytes = malloc(size);
    CHECK(bytes != NULL && fread(bytes, 1, size, file) == size);
    off_t at = -1;
    for (size_t i = 0; i + sizeof v <= size && at < 0; i++) {
        at = memcmp(bytes + i, v, sizeof v) == 0 ? (off_t)i : -1;
    }
    fclose(file);
    free(bytes);
    return at;
}

TEST(damaged_vector) {
    char *path = lake_make();
    char object[512];
    vex_lake *lake;
    result r;
    find_file(path, "*/data/*.parquet", object);
    int row = 0;
    while (find_vector(object, row) < 0) {
        row += ROWS;
        CHECK(row < 2 * ROWS);
    }
    flip_byte(object, find_vector(object, row) + 9);
    CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
    check_damage(lake, object, false);
    check_damage(lake, object, true);
    /* What does not need the damaged bytes still answers. */
    CHECK_OK(get_columns(lake, "c", "r800", &r, &err));
    CHECK(string_is(result_id(&r, 0), "r800"));
    result_release(&r);
    CHECK_OK(vex_lake_close(lake, &err));
    folder_remove(path);
}

/* A byte anywhere in a file of a segment: each search is right or says what is wrong; damage in an
 * index file costs nothing but time. */
TEST(damage_anywhere) {
    uint64_t seed = vex_test_seed(21);
    static const char *const patterns[] = {"*/data/*.parquet", "*/index/*"};
    char *path = lake_make();
    result whole;
    vex_lake *lake;
    CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
    CHECK_OK(search(lake, false, true, NULL, &whole, &err));
    CHECK_EQ(whole.batch.length, 2 * ROWS + 1);
    CHECK_OK(vex_lake_close(lake, &err));
    int refused = 0;
    for (uint64_t trial = 0; trial < vex_test_effort(60); trial++) {
        char object[512];
        find_file(path, patterns[trial % 2], object);
        off_t at = (off_t)vex_test_below(&seed, (uint64_t)file_size(object));
        flip_byte(object, at);
        CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
        vex_error err = {0};
        result r;
        vex_status status = search(lake, false, true, NULL, &r, &err);
        CHECK(status == VEX_OK || status == VEX_CORRUPT || status == VEX_UNSUPPORTED);
        refused += status != VEX_OK;
        if (status == VEX_OK) {
            CHECK_EQ(r.batch.length, whole.batch.length);
            for (int64_t i = 0; i < r.batch.length; i++) {
                vex_string a = result_id(&r, i), b = result_id(&whole, i);
                CHECK(a.size == b.size && memcmp(a.data, b.data, a.size) == 0);
                CHECK(result_distance(&r, i) == result_distance(&whole, i));
                CHECK(string_is(result_string(&r, "attributes", "u", i),
                                "{\"some\": \"attributes\"}"));
            }
            result_release(&r);
        } else {
            CHECK_EQ(trial % 2, 0); /* without their index the rows are found all the same */
            CHECK(strstr(err.message, "c/") != NULL);
            CHECK_OK(search(lake, true, true, NULL, &r, &err));
            CHECK_EQ(r.batch.length, ROWS + 1);
            result_release(&r);
        }
        CHECK_OK(vex_lake_close(lake, &err));
        flip_byte(object, at);
    }
    CHECK(refused > 0);
    result_release(&whole);
    folder_remove(path);
}

/* All rows are there, by whatever way they are found. */
static void check_whole(vex_lake *lake, bool columns) {
    vex_search_stats stats;
    result r;
    CHECK_OK(search(lake, false, columns, &stats, &r, &err));
    CHECK_EQ(r.batch.length, 2 * ROWS + 1);
    CHECK(string_is(result_id(&r, 0), "r5"));
    CHECK_EQ(stats.segment_skip_count, 0);
    result_release(&r);
    CHECK_OK(search(lake, true, columns, &stats, &r, &err));
    CHECK_EQ(r.batch.length, 2 * ROWS + 1);
    CHECK_EQ(stats.segment_skip_count, 0);
    result_release(&r);
}

/* Get, overwrite, delete and flush rows whose index file was cut. */
static void check_use(vex_lake *lake) {
    static const char *const names[3] = {"r5", "r450", "r800"};
    for (int i = 0; i < 3; i++) {
        result r = {0};
        CHECK_OK(get_columns(lake, "c", names[i], &r, &err));
        CHECK_EQ(r.batch.length, 1);
        result_release(&r);
    }
    put_rows(lake, 3, 4);
    vex_string ids[2] = {str("r7"), str("r407")};
    CHECK_OK(vex_delete(lake, str("c"), ids, 2, NULL, &err));
    CHECK_OK(vex_flush(lake, str("c"), &err));
    vex_collection_info info;
    CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
    CHECK_EQ(info.row_count, 2 * ROWS - 1);
    CHECK_EQ(info.damaged_segment_count, 0);
}

/* Index files cut short while they are mapped are done without, whoever meets it first. */
TEST(index_truncated_while_open) {
    for (int trial = 0; trial < 12; trial++) {
        bool warm = trial % 2 == 1, used = trial % 4 >= 2;
        char *path = lake_make();
        char object[512];
        vex_lake *lake;
        find_file(path, "*/index/*", object);
        CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
        if (warm) {
            check_whole(lake, true);
        }
        CHECK(truncate(object, trial < 4 ? 0 : 4096 * (trial < 8 ? 1 : 2)) == 0);
        if (!used) {
            check_whole(lake, false);
            check_whole(lake, true);
        }
        check_use(lake);
        CHECK_OK(vex_lake_close(lake, &err));
        CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
        vex_collection_info info;
        CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
        CHECK_EQ(info.row_count, 2 * ROWS - 1);
        CHECK_OK(vex_lake_close(lake, &err));
        folder_remove(path);
    }
}

/* So are graph files: the lists serve, and a new graph is built. */
TEST(graph_truncated_while_open) {
    enum { PARTS = 10 };
    char *path = folder_create();
    char object[512];
    vex_lake *lake;
    vex_collection_info info;
    CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
    create(lake, "c", DIMENSION, VEX_METRIC_L2, VEX_INDEX_HNSW);
    for (int i = 0; i < PARTS; i++) {
        put_rows(lake, i * ROWS, ROWS);
    }
    CHECK_OK(vex_flush(lake, str("c"), &err));
    do {
        usleep(2000);
        CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
    } while (info.graph_missing_count > 0);
    CHECK_EQ(info.graph_count, 1);
    find_file(path, "*.hnsw.bin", object);
    CHECK(truncate(object, 4096) == 0);
    for (int i = 0; i < 30; i++) {
        float query[DIMENSION];
        char name[16];
        result r = {0};
        vector_of(i, query);
        snprintf(name, sizeof name, "r%d", i);
        CHECK_OK(search_k(lake, "c", query, DIMENSION, 10, false, &r, &err));
        CHECK_EQ(r.batch.length, 10);
        CHECK(string_is(result_id(&r, 0), name));
        result_release(&r);
    }
    CHECK_OK(vex_lake_close(lake, &err));
    folder_remove(path);
}

/* Data files cut short while they are mapped: SIGBUS becomes a status. */
TEST(data_truncated_while_open) {
    for (int both = 0; both < 2; both++) {
        for (int warm = 0; warm < 2; warm++) {
            char *path = lake_make();
            char object[512];
            vex_lake *lake;
            result r;
            find_file(path, "*/data/*.parquet", object);
            CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
            if (warm) {
                CHECK_OK(search(lake, false, true, NULL, &r, &err));
                CHECK_EQ(r.batch.length, 2 * ROWS + 1);
                result_release(&r);
            }
            CHECK(truncate(object, 0) == 0);
            if (both) { /* and the index file of the same segment: nothing is left */
                char index[512], pattern[60], uuid[37] = {0};
                memcpy(uuid, strrchr(object, '/') + 1, 36);
                snprintf(pattern, sizeof pattern, "*/index/%s*", uuid);
                find_file(path, pattern, index);
                CHECK(truncate(index, 0) == 0);
            }
            check_damage(lake, object, false);
            check_damage(lake, object, true);
            uint64_t object_count;
            CHECK_OK(
                vex_verify(lake, (vex_string){NULL, 0}, &r.schema, &r.batch, &object_count, &err));
            CHECK(r.batch.length > 0);
            result_release(&r);
            CHECK_OK(vex_lake_close(lake, &err));
            folder_remove(path);
        }
    }
}

/* Of a segment whose deletion vector is lost nobody knows which rows live, but how many do. */
TEST(lost_deletion_vector) {
    enum { COUNT = 4000 };
    static char names[COUNT][16];
    static vex_row rows[COUNT];
    static float vectors[COUNT][2];
    static vex_string ids[COUNT];
    char *path = folder_create();
    char object[512];
    vex_lake *lake;
    vex_collection_info info;
    CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
    create(lake, "c", 2, VEX_METRIC_L2, VEX_INDEX_FLAT);
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "r%d", i);
        vectors[i][0] = (float)i;
        rows[i] = (vex_row){.id = str(names[i]), .vector = vectors[i], .dimension = 2};
    }
    for (int i = 0; i < COUNT; i++) {
        ids[i] = str(names[(i * 7) % COUNT]);
    }
    CHECK_OK(vex_put_rows(lake, str("c"), rows, COUNT, &err));
    CHECK_OK(vex_flush(lake, str("c"), &err));
    CHECK_OK(vex_delete(lake, str("c"), ids, 1500, NULL, &err));
    CHECK_OK(vex_flush(lake, str("c"), &err));
    CHECK_OK(vex_lake_close(lake, &err));
    find_file(path, "*deletion_vector*", object);
    CHECK(unlink(object) == 0);
    CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
    CHECK_OK(vex_collection_describe(lake, str("c"), &info, &err));
    CHECK_EQ(info.damaged_segment_count, 1);
    CHECK_EQ(info.segment_row_count, COUNT);
    CHECK_EQ(info.segment_deleted_count, 1500);
    CHECK_EQ(info.row_count, COUNT - 1500);
    vex_error err = {0};
    result r = {0};
    CHECK(search_k(lake, "c", vectors[0], 2, 1, true, &r, &err) == VEX_CORRUPT);
    CHECK(err.message[0] != '\0' && r.batch.release == NULL);
    CHECK_OK(vex_lake_close(lake, &err));
    folder_remove(path);
}

TEST(missing_file) {
    char *path = lake_make();
    char object[512];
    vex_lake *lake;
    find_file(path, "*/data/*.parquet", object);
    CHECK(unlink(object) == 0);
    CHECK_OK(vex_lake_open(path, NULL, &lake, &err));
    vex_error err = {0};
    result r;
    CHECK(search(lake, false, false, NULL, &r, &err) != VEX_OK);
    CHECK(strstr(err.message, strrchr(object, '/') + 1) != NULL);
    CHECK_OK(search(lake, true, false, NULL, &r, &err));
    CHECK_EQ(r.batch.length, ROWS + 1);
    result_release(&r);
    CHECK_OK(vex_lake_close(lake, &err));
    folder_remove(path);
}

TEST_MAIN(RUN(damaged_vector); RUN(damage_anywhere); RUN(index_truncated_while_open);
          RUN(graph_truncated_while_open); RUN(data_truncated_while_open);
          RUN(lost_deletion_vector); RUN(missing_file))
