#include "server/arguments.h"

#include <math.h>

#include "base/bytes.h"
#include "check.h"

/* Split a line at spaces into arguments; the strings live as long as `line`. */
typedef struct words {
    vex_string list[64];
    uint32_t count;
} words;

static words split(const char *line) {
    words out = {.count = 0};
    while (*line != '\0') {
        size_t size = strcspn(line, " ");
        out.list[out.count++] = (vex_string){.data = line, .size = size};
        line += size + (line[size] == ' ' ? 1 : 0);
    }
    return out;
}

/* Check that the error of `expression` (which takes &err) says `part`. */
#define CHECK_SAYS(part, expression)                                                             \
    do {                                                                                         \
        vex_error err = {0};                                                                     \
        CHECK((expression) == VEX_INVALID);                                                      \
        if (strstr(err.message, part) == NULL) {                                                 \
            fprintf(stderr, "%s:%d: '%s' not in '%s'\n", __FILE__, __LINE__, part, err.message); \
            exit(1);                                                                             \
        }                                                                                        \
    } while (0)

static vexi_get_arguments get(const char *line, words *w) {
    *w = split(line);
    vexi_get_arguments out;
    CHECK_OK(vexi_parse_get(w->list, w->count, &out, &err));
    return out;
}

TEST(the_last_argument_but_one_decides) {
    words w;
    vexi_get_arguments a = get("a b in c", &w);
    CHECK(a.id_count == 2 && vexi_string_is(a.collection, "c"));
    a = get("IN IN default", &w);
    CHECK(a.id_count == 1 && vexi_string_is(a.ids[0], "IN") &&
          vexi_string_is(a.collection, "default"));
    a = get("a IN", &w);
    CHECK(a.id_count == 2 && vexi_string_is(a.ids[1], "IN") &&
          vexi_string_is(a.collection, "default"));
    w = split("IN c");
    vexi_get_arguments out;
    CHECK_SAYS("wrong number of arguments for 'vget'", vexi_parse_get(w.list, w.count, &out, &err));
    w = split("a IN ");
    w.list[w.count++] = (vex_string){.data = "", .size = 0};
    CHECK_SAYS("1 to 128 bytes", vexi_parse_get(w.list, w.count, &out, &err));
}

TEST(gets_read_options_from_the_end) {
    words w;
    vexi_get_arguments a = get("RAW", &w);
    CHECK(a.id_count == 1 && !a.raw);
    a = get("RAW IN default", &w);
    CHECK(a.id_count == 1 && !a.raw && vexi_string_is(a.ids[0], "RAW"));
    a = get("RAW raw", &w);
    CHECK(a.id_count == 1 && a.raw);
    a = get("a b RETURN 2 x y RAW IN c", &w);
    CHECK(a.id_count == 2 && a.raw && a.column_count == 2 && vexi_string_is(a.columns[1], "y"));
    a = get("a RAW RETURN 1 x", &w);
    CHECK(a.id_count == 1 && a.raw && a.column_count == 1);
    a = get("a RETURN 1 RAW", &w);
    CHECK(a.id_count == 1 && !a.raw && vexi_string_is(a.columns[0], "RAW"));
    a = get("a RETURN 1 RETURN", &w);
    CHECK(a.id_count == 1 && vexi_string_is(a.columns[0], "RETURN"));
    a = get("a RETURN 3 x y", &w); /* no option: these are ids */
    CHECK(a.id_count == 5 && a.columns == NULL);
    a = get("RETURN 1 x", &w); /* the first is always an id */
    CHECK(a.id_count == 3 && a.columns == NULL);
    w = split("a RETURN 2 x x");
    vexi_get_arguments out;
    CHECK_SAYS("twice", vexi_parse_get(w.list, w.count, &out, &err));
}

TEST(sets) {
    words w = split("a [1] payload P attributes {} IN c");
    vexi_set_arguments a;
    CHECK_OK(vexi_parse_set(w.list, w.count, &a, &err));
    CHECK(vexi_string_is(a.id, "a") && vexi_string_is(a.vector, "[1]") &&
          vexi_string_is(a.payload, "P") && vexi_string_is(a.attributes, "{}") &&
          vexi_string_is(a.collection, "c"));
    w = split("a [1]");
    CHECK_OK(vexi_parse_set(w.list, w.count, &a, &err));
    CHECK(a.payload.data == NULL && a.attributes.data == NULL);
    w = split("a [1] PAYLOAD");
    CHECK_SAYS("PAYLOAD needs a value", vexi_parse_set(w.list, w.count, &a, &err));
    w = split("a [1] PAYLOAD x PAYLOAD y");
    CHECK_SAYS("PAYLOAD is given twice", vexi_parse_set(w.list, w.count, &a, &err));
    w = split("a [1] BLOB x");
    CHECK_SAYS("'BLOB'", vexi_parse_set(w.list, w.count, &a, &err));
    w = split("a IN c");
    CHECK_SAYS("wrong number of arguments for 'vset'", vexi_parse_set(w.list, w.count, &a, &err));
}

TEST(searches) {
    words w = split("[1,2] 5 NPROBE 7 exact RETURN 2 a RAW WITHVECTORS raw PARTIAL IN c");
    vexi_search_arguments a;
    CHECK_OK(vexi_parse_search(w.list, w.count, &a, &err));
    CHECK(!a.by_id && a.k == 5 && a.nprobe == 7 && a.exact && a.partial && a.with_vectors &&
          a.raw && a.column_count == 2 && vexi_string_is(a.columns[1], "RAW"));
    w = split("id x 5 profile");
    CHECK_OK(vexi_parse_search(w.list, w.count, &a, &err));
    CHECK(a.profile && !vexi_search_same(&a, &a));
    w = split("id x 10000");
    CHECK_OK(vexi_parse_search(w.list, w.count, &a, &err));
    CHECK(!a.profile && vexi_search_same(&a, &a));
    CHECK(a.by_id && a.k == 10000 && vexi_string_is(a.query, "x"));
    static const struct {
        const char *line;
        const char *says;
    } bad[] = {{"[1]", "wrong number"},
               {"ID x", "wrong number"},
               {"[1] 0", "k must be from 1 to 10000, not 0"},
               {"[1] 10001", "k must be from 1 to 10000, not 10001"},
               {"[1] ten", "k is not a whole number"},
               {"[1] 5 NPROBE", "NPROBE needs a value"},
               {"[1] 5 NPROBE 0", "NPROBE must be"},
               {"[1] 5 EF", "EF needs a value"},
               {"[1] 5 EF 0", "EF must be"},
               {"[1] 5 RECALL", "RECALL needs a value"},
               {"[1] 5 RECALL 0", "RECALL must be"},
               {"[1] 5 RECALL 1.01", "RECALL must be"},
               {"[1] 5 RECALL -0.5", "RECALL must be"},
               {"[1] 5 RECALL 0.9x", "RECALL must be"},
               {"[1] 5 RECALL nan", "RECALL must be"},
               {"[1] 5 RECALL 0.90000000000000000000000000000000000000000", "RECALL must be"},
               {"[1] 5 RETURN", "RETURN needs"},
               {"[1] 5 RETURN 2 a", "RETURN 2 is followed by 1"},
               {"[1] 5 RETURN 0", "must be from 1"},
               {"[1] 5 RETURN 2 a a", "twice"},
               {"[1] 5 RETURN 1 a RETURN 1 b", "given twice"},
               {"[1] 5 FAST", "'FAST'"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        w = split(bad[i].line);
        CHECK_SAYS(bad[i].says, vexi_parse_search(w.list, w.count, &a, &err));
    }
    vexi_search_arguments b;
    words v = split("[3,4] 5 RETURN 1 a");
    w = split("[1,2] 5 return 1 a IN default");
    CHECK_OK(vexi_parse_search(v.list, v.count, &a, &err));
    CHECK_OK(vexi_parse_search(w.list, w.count, &b, &err));
    CHECK(vexi_search_same(&a, &b));
    static const char *const others[] = {"[1,2] 6 RETURN 1 a", "[1,2] 5 RETURN 1 a EF 100",
                                         "[1,2] 5 RETURN 1 a RECALL 0.9",
                                         "[1,2] 5 RETURN 1 a NPROBE 3"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        w = split(others[i]);
        CHECK_OK(vexi_parse_search(w.list, w.count, &b, &err));
        CHECK(!vexi_search_same(&a, &b));
    }
    w = split("[1,2] 5 EF 70 recall .875");
    CHECK_OK(vexi_parse_search(w.list, w.count, &b, &err));
    CHECK(b.ef == 70 && b.recall == 0.875f && b.nprobe == 0);
    w = split("[1,2] 5 RECALL 1");
    CHECK_OK(vexi_parse_search(w.list, w.count, &b, &err));
    CHECK(b.recall == 1.0f);
}

TEST(creates) {
    words w = split("c DIM 3 index flat METRIC cosine COLUMNS year int64 at TIMESTAMP");
    vexi_create_arguments a;
    CHECK_OK(vexi_parse_create(w.list, w.count, &a, &err));
    CHECK(a.options.dimension == 3 && a.options.metric == VEX_METRIC_COSINE &&
          a.options.index == VEX_INDEX_FLAT && a.options.column_count == 2 &&
          a.options.columns[1].type == VEX_TYPE_TIMESTAMP && a.options.bits == 0 &&
          a.options.recall == 0.0f);
    w = split("c DIM 3 INDEX HNSW RECALL 0.75 bits 8");
    CHECK_OK(vexi_parse_create(w.list, w.count, &a, &err));
    CHECK(a.options.index == VEX_INDEX_HNSW && a.options.recall == 0.75f && a.options.bits == 8);
    static const struct {
        const char *line;
        const char *says;
    } bad[] = {{"c DIM", "wrong number"},
               {"c DIMENSION 3", "DIM is missing"},
               {"c DIM 0", "DIM must be from 1 to 4096"},
               {"c DIM 4097", "DIM must be from 1 to 4096"},
               {"c DIM 3 METRIC", "METRIC is one of"},
               {"c DIM 3 METRIC l1", "METRIC is one of"},
               {"c DIM 3 INDEX tree", "INDEX is one of"},
               {"c DIM 3 RECALL 2", "RECALL must be"},
               {"c DIM 3 BITS", "BITS is one of 1, 4, 8"},
               {"c DIM 3 BITS 5", "BITS is one of 1, 4, 8"},
               {"c DIM 3 COLUMNS", "COLUMNS needs"},
               {"c DIM 3 COLUMNS a", "COLUMNS needs"},
               {"c DIM 3 COLUMNS a int32", "a column's type"},
               {"c DIM 3 SHARDS 2", "'SHARDS'"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        w = split(bad[i].line);
        CHECK_SAYS(bad[i].says, vexi_parse_create(w.list, w.count, &a, &err));
    }
}

TEST(vectors_as_text) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    const float *values;
    uint32_t dimension;
    CHECK_OK(vexi_parse_vector(vexi_string_of("[ 1,-2.5e-1 ,\t.5\n]"), &arena, &values, &dimension,
                               &err));
    CHECK(dimension == 3 && values[0] == 1.0f && values[1] == -0.25f && values[2] == 0.5f);
    static const struct {
        const char *text;
        const char *says;
    } bad[] = {{"[]", "empty"},
               {"[ ]", "empty"},
               {"", "empty"},
               {"[1,]", "no number at byte 3"},
               {"[,1]", "no number at byte 1"},
               {"[1,,2]", "no number at byte 3"},
               {"[1 2]", "not ']'"},
               {"[1-2]", "not ']'"},
               {"[1e]", "not ']'"},
               {"[+-1]", "no number"},
               {"[.]", "no number"},
               {"[1e39]", "value 0 of the vector is beyond"},
               {"[NaN]", "must end with ]"},
               {"[inf,1]", "must end with ]"},
               {"[0.1, 0.2", "must end with ]"},
               {"0.1,0.2", "neither text"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_SAYS(bad[i].says, vexi_parse_vector(vexi_string_of(bad[i].text), &arena, &values,
                                                  &dimension, &err));
        CHECK(values == NULL && dimension == 0);
    }
    static char many[2 * (VEX_DIMENSION_MAX + 1) + 2];
    many[0] = '[';
    for (uint32_t i = 0; i <= VEX_DIMENSION_MAX; i++) {
        many[1 + 2 * i] = '1';
        many[2 + 2 * i] = i == VEX_DIMENSION_MAX ? ']' : ',';
    }
    vex_string text = {.data = many, .size = 2 * (VEX_DIMENSION_MAX + 1) + 1};
    CHECK_SAYS("4097 values", vexi_parse_vector(text, &arena, &values, &dimension, &err));
    vexi_arena_deinit(&arena);
}

TEST(vectors_as_blobs) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    const float *values;
    uint32_t dimension;
    /* Begins with 0x5b, even ends with 0x5d: still no text. */
    const float wanted[2] = {2.0e-38f, -3.5f};
    char blob[9] = {0};
    memcpy(blob + 1, wanted, 8); /* unaligned */
    blob[1] = '[';
    CHECK_OK(vexi_parse_vector((vex_string){.data = blob + 1, .size = 8}, &arena, &values,
                               &dimension, &err));
    CHECK(dimension == 2 && values[1] == -3.5f && memcmp(values, blob + 1, 8) == 0);
    static const char closed[8] = {'[', 0, '1', ',', '2', ' ', ' ', ']'};
    CHECK(!vexi_vector_is_text((vex_string){.data = closed, .size = 8}));
    CHECK_OK(vexi_parse_vector((vex_string){.data = closed, .size = 8}, &arena, &values, &dimension,
                               &err));
    CHECK_EQ(dimension, 2);
    CHECK_SAYS("7 bytes", vexi_parse_vector((vex_string){.data = blob, .size = 7}, &arena, &values,
                                            &dimension, &err));
    static char large[4 * (VEX_DIMENSION_MAX + 1)];
    CHECK_SAYS("4097 values", vexi_parse_vector((vex_string){.data = large, .size = sizeof large},
                                                &arena, &values, &dimension, &err));
    vexi_arena_deinit(&arena);
}

TEST_MAIN(RUN(the_last_argument_but_one_decides); RUN(gets_read_options_from_the_end); RUN(sets);
          RUN(searches); RUN(creates); RUN(vectors_as_text); RUN(vectors_as_blobs))
