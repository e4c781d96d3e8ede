#include <math.h>

#include "check.h"
#include "index/kmeans_near.h"

typedef struct data {
    float *values;
    const float **rows;
    vexi_kmeans_rows input;
} data;

/* Rows around random centres; no centres: one cloud. */
static data make_rows(uint32_t count, uint32_t dimension, uint32_t centre_count, float spread,
                      uint64_t *random) {
    data d = {.values = calloc((size_t)count * dimension, sizeof *d.values),
              .rows = calloc(count, sizeof *d.rows)};
    for (uint32_t i = 0; i < count; i++) {
        uint64_t centre = 1000 * vex_test_below(random, centre_count);
        d.rows[i] = d.values + (size_t)i * dimension;
        for (uint32_t j = 0; j < dimension; j++) {
            d.values[(size_t)i * dimension + j] =
                vex_test_normal(&centre) + spread * vex_test_normal(random);
        }
    }
    d.input = (vexi_kmeans_rows){.rows = d.rows, .count = count, .dimension = dimension};
    return d;
}

static void free_rows(data *d) {
    free(d->values);
    free(d->rows);
}

static double square_to(const data *d, uint32_t row, const float *centroid) {
    double square = 0;
    for (uint32_t j = 0; j < d->input.dimension; j++) {
        square += pow((double)d->rows[row][j] - centroid[j], 2);
    }
    return square;
}

/* Mean squared distance to the nearest centroid. */
static double error_of(const data *d, const float *centroids, uint32_t cluster_count) {
    uint32_t *nearest = calloc(d->input.count, sizeof *nearest);
    CHECK_OK(vexi_kmeans_assign(vex_test_env(), &d->input, centroids, cluster_count, nearest, NULL,
                                &err));
    double sum = 0;
    for (uint32_t i = 0; i < d->input.count; i++) {
        sum += square_to(d, i, centroids + (size_t)nearest[i] * d->input.dimension);
    }
    free(nearest);
    return sum / d->input.count;
}

/* Groups hold every centroid once; looking into all of them is exact, into some nearly. */
TEST(assignment_by_groups) {
    uint64_t random = vex_test_seed(51);
    data d = make_rows(3000, 19, 300, 0.5f, &random);
    enum { CLUSTERS = 700 };
    uint32_t exact[3000] = {0}, near[3000] = {0};
    CHECK_OK(vexi_kmeans_assign(vex_test_env(), &d.input, d.values, CLUSTERS, exact, NULL, &err));
    for (uint32_t visits = 0; visits <= 64; visits += 64) {
        vexi_kmeans_groups groups;
        CHECK_OK(vexi_kmeans_groups_init(vex_test_env(), d.values, CLUSTERS, 19, visits, 7, &groups,
                                         &err));
        CHECK(groups.group_count > 10 && groups.group_count <= 64);
        uint8_t seen[CLUSTERS] = {0};
        for (uint32_t i = 0; i < CLUSTERS; i++) {
            CHECK(groups.members[i] < CLUSTERS && !seen[groups.members[i]]);
            seen[groups.members[i]] = 1;
        }
        uint32_t changed;
        CHECK_OK(vexi_kmeans_assign_near(vex_test_env(), &d.input, &groups, near, &changed, &err));
        CHECK(visits == 64 || changed > 0);
        uint32_t wrong = 0;
        for (uint32_t i = 0; i < d.input.count; i++) {
            /* Equally near ones do not count. */
            wrong += square_to(&d, i, d.values + (size_t)near[i] * 19) >
                     square_to(&d, i, d.values + (size_t)exact[i] * 19) * (1 + 1e-5) + 1e-5;
        }
        printf("    %u of %u groups: %u of %u rows elsewhere\n", groups.visits, groups.group_count,
               wrong, d.input.count);
        CHECK(wrong <= (visits == 0 ? d.input.count / 20 : 0));
        CHECK_OK(vexi_kmeans_assign_near(vex_test_env(), &d.input, &groups, near, &changed, &err));
        CHECK_EQ(changed, 0);
        vexi_kmeans_groups_deinit(vex_test_env(), &groups);
    }
    free_rows(&d);
}

/* Two levels find centroids about as good as Lloyd's algorithm over all. */
TEST(training_in_two_levels) {
    uint64_t random = vex_test_seed(52);
    enum { CLUSTERS = 256, DIMENSION = 12 };
    static float flat[CLUSTERS * DIMENSION], tree[CLUSTERS * DIMENSION];
    for (int kind = 0; kind < 2; kind++) {
        data d = make_rows(12000, DIMENSION, kind == 0 ? 1 : 200, 0.4f, &random);
        CHECK_OK(vexi_kmeans_train(vex_test_env(), &d.input, CLUSTERS, 10, 3, flat, &err));
        CHECK_OK(vexi_kmeans_train_tree(vex_test_env(), &d.input, CLUSTERS, 10, 2, 3, tree, &err));
        double flat_error = error_of(&d, flat, CLUSTERS);
        double tree_error = error_of(&d, tree, CLUSTERS);
        printf("    mean squared error %.4f, in two levels %.4f\n", flat_error, tree_error);
        CHECK(tree_error < flat_error * 1.05);
        free_rows(&d);
    }
}

/* As many clusters as rows, one row, equal rows. */
TEST(training_at_the_edges) {
    uint64_t random = vex_test_seed(53);
    static float centroids[400 * 3];
    data d = make_rows(400, 3, 400, 0.1f, &random);
    CHECK_OK(vexi_kmeans_train_tree(vex_test_env(), &d.input, 400, 3, 2, 5, centroids, &err));
    for (size_t i = 0; i < 400 * 3; i++) {
        CHECK(isfinite(centroids[i]));
    }
    d.input.count = 1;
    CHECK_OK(vexi_kmeans_train_tree(vex_test_env(), &d.input, 1, 3, 2, 5, centroids, &err));
    CHECK(memcmp(centroids, d.values, 3 * sizeof(float)) == 0);
    d.input.count = 400;
    for (uint32_t i = 0; i < 400; i++) {
        d.rows[i] = d.values;
    }
    CHECK_OK(vexi_kmeans_train_tree(vex_test_env(), &d.input, 100, 3, 2, 5, centroids, &err));
    for (size_t i = 0; i < 100 * 3; i++) {
        CHECK(fabsf(centroids[i] - d.values[i % 3]) < 1e-5f);
    }
    free_rows(&d);
}

TEST_MAIN(RUN(assignment_by_groups); RUN(training_in_two_levels); RUN(training_at_the_edges))
