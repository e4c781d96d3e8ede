/* Numbers for the lists, so that those that a query probes lie side by side.
 *
 * A greedy chain: start at the centroid farthest from the mean, go on to the nearest that has no
 * number yet. That costs the square of the centroids; many are put into groups of near ones, whose
 * middles are chained so, and each group is chained from where the one before ended. */
#include <math.h>
#include <string.h>

#include "index/ivf_internal.h"
#include "index/kmeans_near.h"

#define CHAIN_MAX  1024u /* centroids that are chained without groups */
#define GROUP_SEED 1u

/* Chain `count` rows at `rows`, which is scratch and loses them: out receives numbers[i] of each in
 * the chain's order, *at (padded) is where the chain comes from and where it ends. The first is the
 * nearest to *at, or the farthest. */
static void chain(uint8_t *rows, uint32_t *numbers, uint32_t count, uint32_t dimension,
                  bool farthest, float *at, float *distances) {
    const vexi_kernels *kernels = vexi_kernels_get();
    size_t row_size = dimension * sizeof(float);
    for (uint32_t placed = 0; placed < count; placed++) {
        uint8_t *rest = rows + placed * row_size;
        kernels->l2(at, rest, row_size, count - placed, dimension, distances);
        uint32_t next = 0;
        for (uint32_t i = 1; i < count - placed; i++) {
            bool better = placed == 0 && farthest ? distances[i] > distances[next]
                                                  : distances[i] < distances[next];
            next = better ? i : next;
        }
        memcpy(at, rest + next * row_size, row_size);
        memcpy(rest + next * row_size, rest, row_size);
        uint32_t number = numbers[placed + next];
        numbers[placed + next] = numbers[placed];
        numbers[placed] = number;
    }
}

static void take_mean(const float *rows, uint32_t count, uint32_t dimension, float *out) {
    for (uint32_t c = 0; c < count; c++) {
        for (size_t j = 0; j < dimension; j++) {
            out[j] += rows[(size_t)c * dimension + j] / (float)count;
        }
    }
}

/* Chain the groups, then each one's members. sequence: group_count numbers of scratch. */
static void chain_groups(vexi_kmeans_groups *groups, uint32_t *sequence, uint32_t *order,
                         float *mean, float *at, float *distances) {
    uint32_t dimension = groups->dimension, done = 0;
    for (uint32_t g = 0; g < groups->group_count; g++) {
        sequence[g] = g;
    }
    chain((uint8_t *)groups->middles, sequence, groups->group_count, dimension, true, mean,
          distances);
    for (uint32_t i = 0; i < groups->group_count; i++) {
        uint32_t begin = groups->first[sequence[i]];
        uint32_t count = groups->first[sequence[i] + 1] - begin;
        memcpy(order + done, groups->members + begin, count * sizeof *order);
        chain((uint8_t *)(groups->centroids + (size_t)begin * dimension), order + done, count,
              dimension, i == 0, at, distances);
        done += count;
    }
}

vex_status vexi_ivf_order_lists(const vexi_env *env, const float *centroids, uint32_t count,
                                uint32_t dimension, uint32_t *order, vex_error *err) {
    size_t row_size = dimension * sizeof(float);
    size_t padded_size = (row_size + 63) / 64 * 64;
    bool grouped = count > CHAIN_MAX;
    vex_status status = VEX_OK;
    vexi_kmeans_groups groups = {0};
    uint8_t *rows = grouped ? NULL : vexi_alloc_array(env, count, row_size);
    uint32_t *sequence = grouped ? vexi_alloc_array(env, count, sizeof *sequence) : NULL;
    float *mean = vexi_alloc_aligned(env, padded_size);
    float *at = vexi_alloc_aligned(env, padded_size);
    float *distances = vexi_alloc_array(env, count, sizeof *distances);
    if ((grouped ? sequence == NULL : rows == NULL) || mean == NULL || at == NULL ||
        distances == NULL) {
        status = vexi_no_memory(err, count * row_size);
        goto done;
    }
    memset(mean, 0, padded_size);
    take_mean(centroids, count, dimension, mean);
    memset(at, 0, padded_size);
    memcpy(at, mean, row_size);
    if (grouped) {
        VEX_TRY_GOTO(
            status, done,
            vexi_kmeans_groups_init(env, centroids, count, dimension, 1, GROUP_SEED, &groups, err));
        chain_groups(&groups, sequence, order, mean, at, distances);
    } else {
        memcpy(rows, centroids, count * row_size);
        for (uint32_t c = 0; c < count; c++) {
            order[c] = c;
        }
        chain(rows, order, count, dimension, true, at, distances);
    }
done:
    vexi_kmeans_groups_deinit(env, &groups);
    vexi_free(env, rows);
    vexi_free(env, sequence);
    vexi_free(env, mean);
    vexi_free(env, at);
    vexi_free(env, distances);
    return status;
}
