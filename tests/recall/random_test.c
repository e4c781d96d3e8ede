/* Random collections, random changes, random searches, compared with a plain model.
 *
 * A trial draws a collection (metric, dimension, index, bits, recall), a kind of data (clusters,
 * ties, duplicates, near ones, huge and tiny values, the zero vector) and a lake (in memory, or a
 * folder that is opened again and again, with bytes of index and graph files changed meanwhile),
 * and makes random changes. Whatever a search is asked for, and by whatever way it goes, each query
 * has exactly min(k, live rows) rows, all live, none twice, with the distances of their vectors, in
 * order of (distance, id). EXACT must have the nearest rows. Over all trials the default search
 * must find most of them: the least that an index must do, whatever the data. */
#include "../../src/api/api_test.h"

enum {
    IDS = 8000,
    NAME_SIZE = 16,
    BATCH = 600,
    QUERIES_MAX = 40,
    TRIALS = 4,
    STEPS = 9,
    GRAPH_ROWS = 5500
};

typedef enum data_kind {
    DATA_NORMAL,
    DATA_CLUSTERS,
    DATA_TIES,   /* few different values: many equal distances */
    DATA_SAME,   /* one vector again and again, some others */
    DATA_HUGE,   /* squares overflow float */
    DATA_TINY,   /* squares vanish in float */
    DATA_SCALES, /* every row has another length */
    DATA_SPARSE, /* one value is not zero */
    DATA_FAR,    /* a cluster far from the origin */
    DATA_NEAR,   /* near duplicates: closer than float32 can tell under cosine */
    DATA_KINDS
} data_kind;

typedef struct model {
    uint64_t seed;
    uint32_t dimension;
    vex_metric metric;
    vex_index_kind index;
    uint32_t bits;
    float recall;
    data_kind data;
    float centers[8 * VEX_DIMENSION_MAX];
    float *vectors; /* IDS x dimension */
    bool live[IDS];
    uint32_t live_count;
    uint32_t id_count; /* that were ever used */
    bool graphs_fit;   /* in the memory that graphs may take */
    vex_lake *lake;
    char *folder; /* NULL: in memory */
} model;

typedef struct found {
    double distance;
    uint32_t row;
} found;

/* Over all trials. */
static uint64_t wanted_count, hit_count, search_count, graph_count, codes_count;

static uint64_t below(model *m, uint64_t bound) {
    return vex_test_below(&m->seed, bound);
}

static void row_name(uint32_t row, char out[NAME_SIZE]) {
    snprintf(out, NAME_SIZE, "r%06u", row); /* order of ids is order of rows */
}

/* ---- Data ------------------------------------------------------------------------------------ */

static void draw(model *m, float *out) {
    uint32_t dimension = m->dimension;
    const float *center = m->centers + below(m, 8) * dimension;
    float scale = 1;
    for (uint32_t i = 0; i < dimension; i++) {
        out[i] = vex_test_normal(&m->seed);
    }
    switch (m->data) {
    case DATA_NORMAL:
    case DATA_KINDS:
        break;
    case DATA_CLUSTERS:
        scale = 0.2f;
        break;
    case DATA_TIES:
        for (uint32_t i = 0; i < dimension; i++) {
            out[i] = (float)below(m, 3) - 1;
        }
        break;
    case DATA_SAME:
        if (below(m, 10) != 0) {
            memcpy(out, m->centers, dimension * sizeof *out);
        }
        break;
    case DATA_HUGE:
        scale = below(m, 4) == 0 ? 1e30f : 1e19f;
        break;
    case DATA_TINY:
        scale = below(m, 4) == 0 ? 1e-30f : 1e-21f;
        break;
    case DATA_SCALES:
        scale = powf(10, (float)below(m, 30) - 15);
        break;
    case DATA_SPARSE:
        for (uint32_t i = 0, kept = (uint32_t)below(m, dimension); i < dimension; i++) {
            out[i] = i == kept ? out[i] : 0;
        }
        break;
    case DATA_FAR:
        for (uint32_t i = 0; i < dimension; i++) {
            out[i] = 1000 + 0.01f * out[i];
        }
        break;
    case DATA_NEAR:
        for (uint32_t i = 0; i < dimension; i++) {
            out[i] = m->centers[i] + 1e-4f * out[i];
        }
        break;
    }
    bool zero = true;
    for (uint32_t i = 0; i < dimension; i++) {
        out[i] *= scale;
        out[i] += m->data == DATA_CLUSTERS ? center[i] : 0;
        zero = zero && out[i] == 0;
    }
    if (m->metric != VEX_METRIC_COSINE && below(m, 300) == 0) {
        memset(out, 0, dimension * sizeof *out);
    } else if (zero) {
        out[0] = 1;
    }
}

/* ---- Changes --------------------------------------------------------------------------------- */

static void put(model *m, uint32_t count) {
    static char names[BATCH][NAME_SIZE];
    static vex_row rows[BATCH];
    bool used[IDS] = {false};
    uint32_t row_count = 0;
    for (uint32_t i = 0; i < count && row_count < BATCH; i++) {
        bool again = m->id_count > 0 && (m->id_count == IDS || below(m, 8) == 0);
        uint32_t row = again ? (uint32_t)below(m, m->id_count) : m->id_count++;
        if (used[row]) {
            continue;
        }
        used[row] = true;
        float *vector = m->vectors + (size_t)row * m->dimension;
        draw(m, vector);
        m->live_count += !m->live[row];
        m->live[row] = true;
        row_name(row, names[row_count]);
        rows[row_count] =
            (vex_row){.id = str(names[row_count]), .vector = vector, .dimension = m->dimension};
        row_count++;
    }
    CHECK_OK(vex_put_rows(m->lake, str("c"), rows, row_count, &err));
}

/* Delete rows; each lives on with a chance of keep in 1000. */
static void delete_most(model *m, uint32_t keep) {
    static char names[IDS][NAME_SIZE];
    static vex_string ids[IDS];
    static uint8_t existed[IDS];
    uint32_t count = 0;
    for (uint32_t row = 0; row < m->id_count; row++) {
        if (below(m, 1000) >= keep) {
            row_name(row, names[count]);
            ids[count] = str(names[count]);
            count++;
        }
    }
    CHECK_OK(vex_delete(m->lake, str("c"), ids, count, existed, &err));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t row = (uint32_t)strtoul(names[i] + 1, NULL, 10);
        CHECK_EQ(existed[i], m->live[row]);
        m->live_count -= m->live[row];
        m->live[row] = false;
    }
}

static void lake_open(model *m, bool read_only) {
    m->graphs_fit = m->id_count == 0 || below(m, 5) != 0;
    vex_lake_options options = {.size = sizeof options,
                                .read_only = read_only,
                                .durability = VEX_DURABILITY_INTERVAL,
                                .flush_size_bytes =
                                    m->index != VEX_INDEX_HNSW && below(m, 3) == 0 ? 1 << 20 : 0,
                                .graph_memory_bytes = m->graphs_fit ? 0 : 1 << 20,
                                .thread_count = 1 + (uint32_t)below(m, 3)};
    CHECK_OK(vex_lake_open(m->folder == NULL ? "mem://" : m->folder, &options, &m->lake, &err));
}

/* Change a byte of some index and graph files, cut or remove them. */
static void damage(model *m) {
    char command[200], path[512];
    snprintf(command, sizeof command, "find '%s' -type f -name '*.vector.*.bin' | sort", m->folder);
    FILE *pipe = popen(command, "r");
    CHECK(pipe != NULL);
    while (fgets(path, sizeof path, pipe) != NULL) {
        path[strcspn(path, "\n")] = '\0';
        if (below(m, 3) != 0) {
            continue;
        }
        FILE *file = fopen(path, "r+b");
        CHECK(file != NULL && fseek(file, 0, SEEK_END) == 0);
        long size = ftell(file), at = (long)below(m, (uint64_t)size);
        CHECK(fseek(file, at, SEEK_SET) == 0);
        int byte = fgetc(file);
        CHECK(byte != EOF && fseek(file, at, SEEK_SET) == 0);
        CHECK(fputc(byte ^ (1 << below(m, 8)), file) != EOF && fclose(file) == 0);
        uint64_t worse = below(m, 10);
        if (worse == 0) {
            CHECK(truncate(path, at) == 0);
        } else if (worse == 1) {
            CHECK(remove(path) == 0);
        }
    }
    CHECK(pclose(pipe) == 0);
}

static vex_collection_info describe(const model *m) {
    vex_collection_info info;
    CHECK_OK(vex_collection_describe(m->lake, str("c"), &info, &err));
    return info;
}

/* Give the background time, at most, to build what is missing. Nothing depends on whether it does.
 */
static void wait_for_indexes(const model *m) {
    for (int i = 0; i < (m->graphs_fit ? 500 : 20); i++) {
        vex_collection_info info = describe(m);
        if (info.unindexed_segment_count == 0 && info.graph_missing_count == 0) {
            return;
        }
        usleep(10000);
    }
}

/* ---- Checks ---------------------------------------------------------------------------------- */

/* The definition in double, and how far roundings may take another order of summation from it. */
static double distance(const model *m, const float *a, const float *b, double *tolerance) {
    double dot = 0, square = 0, aa = 0, bb = 0, absolute = 0;
    for (uint32_t i = 0; i < m->dimension; i++) {
        double x = a[i], y = b[i];
        dot += x * y;
        absolute += fabs(x * y);
        square += (x - y) * (x - y);
        aa += x * x;
        bb += y * y;
    }
    switch (m->metric) {
    case VEX_METRIC_L2:
        *tolerance = 1e-12 * square;
        return square;
    case VEX_METRIC_IP:
        *tolerance = 1e-12 * absolute;
        return 0 - dot;
    case VEX_METRIC_COSINE:
        break;
    }
    *tolerance = 1e-11;
    return 1 - dot / (sqrt(aa) * sqrt(bb));
}

/* What float32 makes of a tolerance in double: the scan's roundings, and squares that vanish. */
static double rough(const model *m, double tolerance) {
    double vanishing = m->metric == VEX_METRIC_COSINE ? 0 : 3e-45 * m->dimension;
    return tolerance * 1e6 * (1 + 0.1 * sqrt(m->dimension)) + vanishing;
}

static int found_compare(const void *left, const void *right) {
    const found *a = left, *b = right;
    return a->distance != b->distance ? (a->distance < b->distance ? -1 : 1)
                                      : (a->row > b->row) - (a->row < b->row);
}

static void fail_check(const model *m, const vex_search_options *o, const char *what) {
    fprintf(stderr,
            "%s: metric %d dimension %u index %d bits %u recall %g data %d live %u; k %u nprobe %u "
            "ef %u recall %g exact %d\n",
            what, m->metric, m->dimension, m->index, m->bits, (double)m->recall, m->data,
            m->live_count, o->k, o->nprobe, o->ef, (double)o->recall, o->exact);
    exit(1);
}

static void check_answer(const model *m, const float *query, const vex_search_options *options,
                         bool exact, const result *r, int64_t first, int64_t count,
                         bool count_hits) {
    static found expected[IDS];
    bool seen[IDS] = {false};
    uint32_t live = 0;
    for (uint32_t row = 0; row < m->id_count; row++) {
        if (m->live[row]) {
            double tolerance;
            expected[live].row = row;
            expected[live++].distance =
                distance(m, query, m->vectors + (size_t)row * m->dimension, &tolerance);
        }
    }
    qsort(expected, live, sizeof *expected, found_compare);
    double last = 0;
    uint32_t last_row = 0;
    for (int64_t i = 0; i < count; i++) {
        vex_string id = result_id(r, first + i);
        char text[NAME_SIZE] = {0};
        uint32_t row = IDS;
        if (id.size < NAME_SIZE) {
            memcpy(text, id.data, id.size);
        }
        if (sscanf(text, "r%u", &row) != 1 || row >= m->id_count || !m->live[row]) {
            fail_check(m, options, "a row that does not live");
        }
        if (seen[row]) {
            fail_check(m, options, "a row twice");
        }
        seen[row] = true;
        const float *vector = m->vectors + (size_t)row * m->dimension;
        if (options->column_count > 0 && memcmp(result_vector(r, m->dimension, first + i), vector,
                                                m->dimension * sizeof *vector) != 0) {
            fail_check(m, options, "another vector");
        }
        double tolerance, here = distance(m, query, vector, &tolerance);
        double told = result_distance(r, first + i);
        if (!(fabs(told - here) <= tolerance)) {
            fail_check(m, options, "a wrong distance");
        }
        if (i > 0 && (told < last || (told == last && row < last_row))) {
            fail_check(m, options, "a wrong order");
        }
        last = told;
        last_row = row;
        if (exact && here > expected[i].distance + tolerance) {
            fail_check(m, options, "not the nearest");
        }
        if (count_hits) { /* among rows that tie within float32 either will do */
            wanted_count++;
            hit_count += here <= expected[count - 1].distance + rough(m, tolerance);
        }
    }
}

static uint32_t one_of(model *m, const uint32_t *values, size_t count) {
    return values[below(m, count)];
}

static void search(model *m) {
    const uint32_t ks[] = {1,
                           2,
                           10,
                           10,
                           10,
                           100,
                           1000,
                           VEX_K_MAX,
                           m->live_count > 1 ? m->live_count - 1 : 1,
                           m->live_count > 0 ? m->live_count : 1,
                           m->live_count + 1,
                           m->live_count / 3 + 1};
    static const uint32_t nprobes[] = {0, 0, 0, 0, 1, 2, 30, 100000, UINT32_MAX};
    static const uint32_t efs[] = {0, 0, 0, 0, 1, 10, 100, 100000, UINT32_MAX};
    static const float recalls[] = {0, 0, 0, 1e-6f, 0.5f, 0.9f, 0.95f, 0.999f, 1};
    vex_string vector = str("vector");
    vex_search_stats stats;
    vex_search_options options = {
        .size = sizeof options,
        .k = one_of(m, ks, sizeof ks / sizeof *ks),
        .nprobe = one_of(m, nprobes, sizeof nprobes / sizeof *nprobes),
        .ef = one_of(m, efs, sizeof efs / sizeof *efs),
        .recall = recalls[below(m, sizeof recalls / sizeof *recalls)],
        .exact = below(m, 5) == 0,
        .partial = below(m, 5) == 0,
        .columns = &vector,
        .column_count = below(m, 4) == 0,
        .stats = &stats,
    };
    uint32_t count =
        below(m, 3) == 0 ? 1 + (uint32_t)below(m, QUERIES_MAX) : 1 + (uint32_t)below(m, 3);
    float *queries = malloc((size_t)count * m->dimension * sizeof *queries);
    CHECK(queries != NULL);
    for (uint32_t q = 0; q < count; q++) {
        float *query = queries + (size_t)q * m->dimension;
        data_kind kind = m->data;
        if (below(m, 6) == 0) { /* unlike the rows */
            m->data = (data_kind)below(m, DATA_KINDS);
        }
        draw(m, query);
        m->data = kind;
        if (m->id_count > 0 && below(m, 4) == 0) {
            memcpy(query, m->vectors + below(m, m->id_count) * m->dimension,
                   m->dimension * sizeof *query);
        }
        if (m->metric != VEX_METRIC_COSINE && below(m, 20) == 0) {
            memset(query, 0, m->dimension * sizeof *query);
        }
    }
    result r = {0};
    CHECK_OK(vex_search(m->lake, str("c"), queries, count, m->dimension, &options, &r.schema,
                        &r.batch, &err));
    uint32_t rows = m->live_count < options.k ? m->live_count : options.k;
    if (r.batch.length != (int64_t)rows * count) {
        fprintf(stderr, "%lld rows, not %u x %u: ", (long long)r.batch.length, count, rows);
        fail_check(m, &options, "a wrong number of rows");
    }
    float recall = options.recall > 0 ? options.recall : m->recall > 0 ? m->recall : 0.95f;
    bool exact = options.exact || (recall >= 1 && options.nprobe == 0 && options.ef == 0);
    bool usual = !exact && recall >= 0.9f && options.nprobe == 0 && options.ef == 0;
    for (uint32_t q = 0; q < count; q++) {
        for (uint32_t i = 0; i < rows; i++) {
            CHECK_EQ(result_query(&r, (int64_t)q * rows + i), q);
        }
        check_answer(m, queries + (size_t)q * m->dimension, &options, exact, &r, (int64_t)q * rows,
                     rows, usual);
    }
    search_count += count;
    graph_count += stats.segment_graph_count > 0 ? count : 0;
    codes_count += stats.code_count > 0 ? count : 0;
    result_release(&r);
    free(queries);
}

static void check_rest(model *m) {
    vex_collection_info info = describe(m);
    CHECK_EQ(info.row_count, m->live_count);
    CHECK_EQ(info.damaged_segment_count, 0);
    uint32_t count = (uint32_t)below(m, 2 * m->live_count + 2);
    bool seen[IDS] = {false};
    result r = {0};
    CHECK_OK(vex_sample(m->lake, str("c"), count, below(m, 1000), NULL, &r.schema, &r.batch, &err));
    CHECK_EQ(r.batch.length, count < m->live_count ? count : m->live_count);
    for (int64_t i = 0; i < r.batch.length; i++) {
        unsigned row = IDS;
        CHECK(sscanf(result_id(&r, i).data, "r%6u", &row) == 1 && row < m->id_count);
        CHECK(m->live[row] && !seen[row]);
        seen[row] = true;
    }
    result_release(&r);
}

/* ---- Trials ---------------------------------------------------------------------------------- */

static void step(model *m) {
    switch (below(m, 12)) {
    case 0:
    case 1:
    case 2:
        for (uint64_t i = 1 + below(m, m->dimension > 300 ? 2 : 5); i > 0; i--) {
            put(m, BATCH);
        }
        break;
    case 3:
        put(m, 1 + (uint32_t)below(m, 40));
        break;
    case 4:
    case 5:
    case 6:
        CHECK_OK(vex_flush(m->lake, str("c"), &err));
        if (below(m, 2) == 0) {
            wait_for_indexes(m);
        }
        break;
    case 7:
        delete_most(m, 900);
        break;
    case 8:
        if (below(m, 2) == 0) {
            static const uint32_t keeps[] = {500, 50, 10, 2, 0};
            delete_most(m, keeps[below(m, 5)]);
        }
        break;
    case 9:
        wait_for_indexes(m);
        break;
    default:
        if (m->folder != NULL) {
            CHECK_OK(vex_lake_close(m->lake, &err));
            if (below(m, 2) == 0) {
                damage(m);
            }
            if (below(m, 4) == 0) {
                lake_open(m, true);
                search(m);
                check_rest(m);
                CHECK_OK(vex_lake_close(m->lake, &err));
            }
            lake_open(m, false);
        }
    }
}

/* graphs: a trial with a segment that is large enough for a graph, of rows that codes can tell. */
static void trial(uint64_t seed, bool graphs) {
    static const uint32_t dimensions[] = {1,  2,  3,  8,   16,  31,  32,  33,  40,
                                          63, 64, 65, 100, 128, 129, 257, 768, 4096};
    static const vex_index_kind kinds[] = {VEX_INDEX_AUTO, VEX_INDEX_FLAT, VEX_INDEX_IVF,
                                           VEX_INDEX_IVF,  VEX_INDEX_HNSW, VEX_INDEX_HNSW,
                                           VEX_INDEX_HNSW};
    static const uint32_t bits[] = {0, 1, 4, 8};
    static const float recalls[] = {0, 0, 0.5f, 0.9f, 0.99f, 1};
    model *m = calloc(1, sizeof *m);
    CHECK(m != NULL);
    m->seed = seed;
    /* Wide vectors rarely: they take long. */
    m->dimension = dimensions[below(m, below(m, 8) == 0 ? 18 : 16)];
    m->metric = (vex_metric)below(m, 3);
    m->index = graphs ? VEX_INDEX_HNSW : kinds[below(m, sizeof kinds / sizeof *kinds)];
    m->bits = bits[below(m, 4)];
    m->recall = recalls[below(m, 6)];
    m->data = (data_kind)below(m, DATA_KINDS);
    if (graphs) {
        static const data_kind plain[] = {DATA_NORMAL, DATA_CLUSTERS, DATA_TIES, DATA_SAME,
                                          DATA_SPARSE, DATA_FAR,      DATA_NEAR};
        m->dimension = dimensions[below(m, 13)];
        m->data = plain[below(m, 7)];
    }
    m->vectors = malloc((size_t)IDS * m->dimension * sizeof(float));
    CHECK(m->vectors != NULL);
    for (uint32_t i = 0; i < 8 * m->dimension; i++) {
        m->centers[i] = vex_test_normal(&m->seed);
    }
    m->folder = below(m, 2) == 0 ? folder_create() : NULL;
    if (getenv("SEED") != NULL || getenv("EFFORT") != NULL) {
        printf("    %" PRIu64 ": metric %d dimension %u index %d bits %u recall %g data %d%s\n",
               seed, m->metric, m->dimension, m->index, m->bits, (double)m->recall, m->data,
               m->folder != NULL ? " in a folder" : "");
        fflush(stdout);
    }
    lake_open(m, false);
    vex_collection_options options = {.size = sizeof options,
                                      .dimension = m->dimension,
                                      .metric = m->metric,
                                      .index = m->index,
                                      .recall = m->recall,
                                      .bits = m->bits};
    CHECK_OK(vex_collection_create(m->lake, str("c"), &options, &err));
    if (graphs) {
        while (m->id_count < GRAPH_ROWS) {
            put(m, BATCH);
        }
        CHECK_OK(vex_flush(m->lake, str("c"), &err));
        wait_for_indexes(m);
    }
    uint32_t steps = m->dimension > 300 ? STEPS / 2 : STEPS;
    for (uint32_t i = 0; i < steps; i++) {
        step(m);
        for (uint64_t n = 1 + below(m, 4); n > 0; n--) {
            search(m);
        }
        if (below(m, 4) == 0) {
            check_rest(m);
        }
    }
    CHECK_OK(vex_lake_close(m->lake, &err));
    if (m->folder != NULL) {
        folder_remove(m->folder);
    }
    free(m->vectors);
    free(m);
}

TEST(answers_are_those_of_the_model) {
    uint64_t seed = vex_test_seed(20261122);
    uint64_t trials = vex_test_effort(TRIALS);
    for (uint64_t i = 0; i < trials; i++) {
        trial(seed + i, i % 3 == 0);
    }
    printf("    %" PRIu64 " queries, %" PRIu64 " by codes, %" PRIu64 " by graphs; recall %.4f\n",
           search_count, codes_count, graph_count,
           wanted_count == 0 ? 0 : (double)hit_count / (double)wanted_count);
    if (trials >= TRIALS) {
        CHECK(codes_count > 0); /* whether graphs came in time, nobody can promise */
        CHECK((double)hit_count >= 0.9 * (double)wanted_count);
    }
}

TEST(recalls_that_are_none_are_refused) {
    vex_lake *lake;
    CHECK_OK(vex_lake_open("mem://", NULL, &lake, &err));
    static const float bad[] = {NAN, INFINITY, -INFINITY, -0.5f, 1.0001f};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        vex_collection_options options = {.size = sizeof options, .dimension = 2, .recall = bad[i]};
        CHECK_FAILS(VEX_INVALID, vex_collection_create(lake, str("c"), &options, &err));
    }
    create(lake, "c", 2, VEX_METRIC_L2, VEX_INDEX_AUTO);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        float query[2] = {1, 2};
        struct ArrowArray batch;
        vex_search_options options = {.size = sizeof options, .k = 1, .recall = bad[i]};
        CHECK_FAILS(VEX_INVALID,
                    vex_search(lake, str("c"), query, 1, 2, &options, NULL, &batch, &err));
    }
    CHECK_OK(vex_lake_close(lake, &err));
}

TEST_MAIN(RUN(answers_are_those_of_the_model); RUN(recalls_that_are_none_are_refused))
