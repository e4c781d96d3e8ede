/* The start of a build: near rows of every row, by clustering.
 *
 * Rows are split by k-means, again and again, into leaves of a few hundred; each leaf is compared
 * with the leaves around it by one matrix product. That finds most of a row's nearest neighbours at
 * about 3,000 distances a row, at the speed of the matrix kernel; a walk through the graph made of
 * them finds the others (graph_build.c).
 *
 * Products are of vectors minus the leaf's centre, so that the distances of near rows keep their
 * digits. Rows that k-means cannot split, equal ones, are cut in pieces as they lie. */
#include <math.h>
#include <string.h>

#include "index/graph_internal.h"
#include "index/kmeans.h"

#define LEAF_ROWS_MAX 512u
#define LEAF_ROWS     256u
#define SPLIT_MAX     64u
#define SAMPLE        64u /* rows a cluster that k-means sees */
#define ITERATIONS    6u
#define PROBES        8u /* leaves that a leaf is compared with, itself included */
#define CHUNK         64u

typedef struct leaves {
    uint32_t *order; /* rows by leaf */
    uint32_t *first; /* count + 1 positions in order */
    size_t first_capacity;
    uint32_t count;
    float *centers;   /* count x dimension */
    uint32_t *probes; /* count x PROBES leaves, itself first; UINT32_MAX: none */
} leaves;

static vex_status leaf_add(const vexi_env *env, leaves *l, uint32_t end, vex_error *err) {
    VEX_TRY(vexi_grow(env, (void **)&l->first, &l->first_capacity, (size_t)l->count + 1,
                      (size_t)l->count + 2, sizeof *l->first, err));
    l->first[++l->count] = end;
    return VEX_OK;
}

/* Cluster the rows order[0 .. count - 1] and put them in the order of their clusters; bounds
 * receives the number of each (cluster_count + 1 offsets). */
static vex_status split(vexi_graph_builder *builder, uint32_t *order, uint32_t count,
                        uint32_t cluster_count, uint32_t *bounds, vex_error *err) {
    const vexi_env *env = builder->env;
    vex_status status = VEX_OK;
    uint32_t sample = count < cluster_count * SAMPLE ? count : cluster_count * SAMPLE;
    float *centers =
        vexi_alloc_aligned(env, (size_t)cluster_count * builder->dimension * sizeof *centers);
    uint32_t *nearest = vexi_calloc(env, count, sizeof *nearest);
    uint32_t *members = vexi_alloc_array(env, count, sizeof *members);
    if (centers == NULL || nearest == NULL || members == NULL) {
        status = vexi_no_memory(err, (size_t)count * sizeof *members);
        goto done;
    }
    for (uint32_t i = 0; i < sample; i++) {
        members[i] = order[(uint64_t)i * count / sample];
    }
    vexi_kmeans_rows rows = {.rows = builder->vectors,
                             .picks = members,
                             .count = sample,
                             .dimension = builder->dimension,
                             .cancel = builder->options->cancel};
    status = vexi_kmeans_train(env, &rows, cluster_count, ITERATIONS, builder->seed, centers, err);
    if (status != VEX_OK) {
        goto done;
    }
    rows.picks = order;
    rows.count = count;
    status = vexi_kmeans_assign(env, &rows, centers, cluster_count, nearest, NULL, err);
    if (status != VEX_OK) {
        goto done;
    }
    vexi_kmeans_group(nearest, count, cluster_count, bounds, members);
    for (uint32_t i = 0; i < count; i++) {
        members[i] = order[members[i]];
    }
    memcpy(order, members, count * sizeof *order);
done:
    vexi_free(env, centers);
    vexi_free(env, nearest);
    vexi_free(env, members);
    return status;
}

typedef struct range {
    uint32_t first;
    uint32_t count;
} range;

static vex_status make_leaves(vexi_graph_builder *builder, leaves *l, vex_error *err) {
    const vexi_env *env = builder->env;
    range *stack = NULL;
    size_t capacity = 0;
    size_t depth = 0;
    vex_status status =
        vexi_grow(env, (void **)&l->first, &l->first_capacity, 0, 1, sizeof *l->first, err);
    if (status != VEX_OK) {
        return status;
    }
    l->first[0] = 0;
    range at = {.first = 0, .count = builder->row_count};
    for (;;) {
        uint32_t bounds[SPLIT_MAX + 1];
        uint32_t parts = (at.count + LEAF_ROWS - 1) / LEAF_ROWS;
        parts = parts < SPLIT_MAX ? parts : SPLIT_MAX;
        uint32_t largest = 0;
        if (at.count > LEAF_ROWS_MAX) {
            status = split(builder, l->order + at.first, at.count, parts, bounds, err);
            for (uint32_t i = 0; i < parts && status == VEX_OK; i++) {
                uint32_t size = bounds[i + 1] - bounds[i];
                largest = size > largest ? size : largest;
            }
        }
        if (status == VEX_OK && (at.count <= LEAF_ROWS_MAX || largest >= at.count / 10 * 9)) {
            for (uint32_t i = 0; i < at.count && status == VEX_OK; i += LEAF_ROWS_MAX) {
                uint32_t size = at.count - i < LEAF_ROWS_MAX ? at.count - i : LEAF_ROWS_MAX;
                status = leaf_add(env, l, at.first + i + size, err);
            }
        } else if (status == VEX_OK) {
            status = vexi_grow(env, (void **)&stack, &capacity, depth, depth + parts, sizeof *stack,
                               err);
            for (uint32_t i = parts; i-- > 0 && status == VEX_OK;) {
                if (bounds[i + 1] > bounds[i]) {
                    stack[depth++] = (range){at.first + bounds[i], bounds[i + 1] - bounds[i]};
                }
            }
        }
        if (status == VEX_OK && builder->options->cancel != NULL &&
            __atomic_load_n(builder->options->cancel, __ATOMIC_RELAXED) != 0) {
            status = vexi_fail(err, VEX_CANCELLED, "the graph's build was cancelled");
        }
        if (status != VEX_OK || depth == 0) {
            break;
        }
        at = stack[--depth];
    }
    vexi_free(env, stack);
    return status;
}

/* Centres and the leaves around each leaf. */
static vex_status probe_step(vexi_graph_builder *builder, vexi_graph_worker *worker, uint32_t first,
                             uint32_t count, void *argument) {
    (void)worker;
    leaves *l = argument;
    const vexi_kernels *kernels = vexi_kernels_get();
    uint32_t dimension = builder->dimension;
    for (uint32_t i = first; i < first + count; i++) {
        float best[PROBES];
        uint32_t *probes = l->probes + (size_t)i * PROBES;
        uint32_t found = 1;
        probes[0] = i;
        best[0] = -INFINITY;
        /* Centres are not padded as queries are: products of one row. */
        for (uint32_t j = 0; j < l->count; j += LEAF_ROWS) {
            float products[LEAF_ROWS];
            uint32_t block = l->count - j < LEAF_ROWS ? l->count - j : LEAF_ROWS;
            kernels->dot_matrix(l->centers + (size_t)i * dimension, 1,
                                l->centers + (size_t)j * dimension, block, dimension, products,
                                block);
            for (uint32_t m = 0; m < block; m++) {
                if (j + m == i) {
                    continue;
                }
                float distance =
                    l->centers[(size_t)l->count * dimension + j + m] - 2.0f * products[m];
                if (found == PROBES && !(distance < best[PROBES - 1])) {
                    continue;
                }
                uint32_t at = found < PROBES ? found++ : PROBES - 1;
                while (at > 0 && distance < best[at - 1]) {
                    best[at] = best[at - 1];
                    probes[at] = probes[at - 1];
                    at--;
                }
                best[at] = distance;
                probes[at] = j + m;
            }
        }
        while (found < PROBES) {
            probes[found++] = UINT32_MAX;
        }
    }
    return VEX_OK;
}

/* Rows of a leaf minus a centre, with the added coordinate, and their squares. */
static void gather(const vexi_graph_builder *builder, const uint32_t *rows, uint32_t count,
                   const float *center, float *out, float *squares) {
    uint32_t dimension = builder->dimension;
    uint32_t width = dimension + (builder->extras != NULL);
    for (uint32_t i = 0; i < count; i++) {
        const float *vector = builder->vectors[rows[i]];
        float *target = out + (size_t)i * width;
        float square = 0;
        for (uint32_t j = 0; j < dimension; j++) {
            target[j] = vector[j] - center[j];
        }
        if (builder->extras != NULL) {
            target[dimension] = builder->extras[rows[i]];
        }
        vexi_kernels_get()->norm((const uint8_t *)target, 0, 1, width, &square);
        squares[i] = square;
    }
}

/* Keep the nearest VEXI_GRAPH_LIST in a sorted list. */
static inline void keep(vexi_graph_item *list, uint8_t *list_count, float key, uint32_t row) {
    uint32_t at = *list_count;
    if (at == VEXI_GRAPH_LIST) {
        at--;
    } else {
        (*list_count)++;
    }
    while (at > 0 && key < list[at - 1].key) {
        list[at] = list[at - 1];
        at--;
    }
    list[at] = (vexi_graph_item){.key = key, .row = row};
}

static void keep_run(vexi_graph_item *list, uint8_t *list_count, const float *products,
                     const float *squares, float square, const uint32_t *rows, uint32_t first,
                     uint32_t end) {
    float limit = *list_count == VEXI_GRAPH_LIST ? list[VEXI_GRAPH_LIST - 1].key : INFINITY;
    for (uint32_t j = first; j < end; j++) {
        float distance = square + squares[j] - 2.0f * products[j];
        if (distance < limit) {
            keep(list, list_count, distance > 0 ? distance : 0, rows[j]);
            limit = *list_count == VEXI_GRAPH_LIST ? list[VEXI_GRAPH_LIST - 1].key : INFINITY;
        }
    }
}

static vex_status compare_step(vexi_graph_builder *builder, vexi_graph_worker *worker,
                               uint32_t first, uint32_t count, void *argument) {
    (void)worker;
    leaves *l = argument;
    const vexi_env *env = builder->env;
    const vexi_kernels *kernels = vexi_kernels_get();
    size_t width = builder->dimension + (builder->extras != NULL);
    size_t leaf_values = LEAF_ROWS_MAX * (width + 1);
    float *values =
        vexi_alloc_aligned(env, (2 * leaf_values + CHUNK * LEAF_ROWS_MAX) * sizeof *values);
    if (values == NULL) {
        return VEX_MEMORY;
    }
    float *a = values;
    float *a_squares = a + LEAF_ROWS_MAX * width;
    float *b = values + leaf_values;
    float *b_squares = b + LEAF_ROWS_MAX * width;
    float *products = values + 2 * leaf_values;
    for (uint32_t leaf = first; leaf < first + count; leaf++) {
        const uint32_t *rows = l->order + l->first[leaf];
        uint32_t row_count = l->first[leaf + 1] - l->first[leaf];
        const float *center = l->centers + (size_t)leaf * builder->dimension;
        gather(builder, rows, row_count, center, a, a_squares);
        for (uint32_t p = 0; p < PROBES; p++) {
            uint32_t other = l->probes[(size_t)leaf * PROBES + p];
            if (other == UINT32_MAX) {
                break;
            }
            const uint32_t *other_rows = l->order + l->first[other];
            uint32_t other_count = l->first[other + 1] - l->first[other];
            gather(builder, other_rows, other_count, center, b, b_squares);
            for (uint32_t i = 0; i < row_count; i += CHUNK) {
                uint32_t chunk = row_count - i < CHUNK ? row_count - i : CHUNK;
                kernels->dot_matrix(a + i * width, chunk, b, other_count, (uint32_t)width, products,
                                    other_count);
                for (uint32_t m = i; m < i + chunk; m++) {
                    vexi_graph_item *list = builder->lists + (size_t)rows[m] * VEXI_GRAPH_LIST;
                    uint8_t *list_count = &builder->list_counts[rows[m]];
                    const float *line = products + (size_t)(m - i) * other_count;
                    /* From the next row on and around: among equal rows everyone's list differs. */
                    uint32_t start = p == 0 ? m + 1 : 0;
                    uint32_t end = p == 0 ? m : 0;
                    keep_run(list, list_count, line, b_squares, a_squares[m], other_rows, start,
                             other_count);
                    keep_run(list, list_count, line, b_squares, a_squares[m], other_rows, 0, end);
                }
            }
        }
    }
    vexi_free(env, values);
    return VEX_OK;
}

vex_status vexi_graph_seed(vexi_graph_builder *builder, vex_error *err) {
    const vexi_env *env = builder->env;
    vex_status status = VEX_OK;
    leaves l = {.order = vexi_alloc_array(env, builder->row_count, sizeof *l.order)};
    if (l.order == NULL) {
        status = vexi_no_memory(err, builder->row_count * sizeof *l.order);
        goto done;
    }
    for (uint32_t i = 0; i < builder->row_count; i++) {
        l.order[i] = i;
    }
    status = make_leaves(builder, &l, err);
    if (status != VEX_OK) {
        goto done;
    }
    l.centers =
        vexi_alloc_aligned(env, (size_t)l.count * (builder->dimension + 1) * sizeof *l.centers);
    l.probes = vexi_alloc_array(env, (size_t)l.count * PROBES, sizeof *l.probes);
    if (l.centers == NULL || l.probes == NULL) {
        status = vexi_no_memory(err, (size_t)l.count * builder->dimension * sizeof *l.centers);
        goto done;
    }
    vexi_kmeans_rows rows = {
        .rows = builder->vectors, .count = builder->row_count, .dimension = builder->dimension};
    status = vexi_kmeans_means(env, &rows, l.first, l.order, l.count, l.centers, err);
    if (status != VEX_OK) {
        goto done;
    }
    vexi_kernels_get()->norm((const uint8_t *)l.centers, builder->dimension * sizeof(float),
                             l.count, builder->dimension,
                             l.centers + (size_t)l.count * builder->dimension);
    status = vexi_graph_run(builder, l.count, 16, probe_step, &l, 0, err);
    if (status == VEX_OK) {
        status = vexi_graph_run(builder, l.count, 1, compare_step, &l, 0.15, err);
    }
done:
    vexi_free(env, l.order);
    vexi_free(env, l.first);
    vexi_free(env, l.centers);
    vexi_free(env, l.probes);
    return status;
}
