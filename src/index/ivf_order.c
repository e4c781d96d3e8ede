/* Numbers for the lists, so that those that a query probes lie side by side.
 *
 * A greedy chain: start at the centroid farthest from the mean, go on to the nearest that has no
 * number yet. */
#include <math.h>
#include <string.h>

#include "index/ivf_internal.h"

vex_status vexi_ivf_order_lists(const vexi_env *env, const float *centroids, uint32_t count,
                                uint32_t dimension, uint32_t *order, vex_error *err) {
    const vexi_kernels *kernels = vexi_kernels_get();
    size_t row_size = dimension * sizeof(float);
    size_t padded_size = (row_size + 63) / 64 * 64;
    vex_status status = VEX_OK;
    /* What is left, moved together as rows are taken out, and their numbers. */
    uint8_t *left = vexi_alloc_array(env, count, row_size);
    float *at = vexi_alloc_aligned(env, padded_size);
    float *distances = vexi_alloc_array(env, count, sizeof *distances);
    if (left == NULL || at == NULL || distances == NULL) {
        status = vexi_no_memory(err, count * row_size);
        goto done;
    }
    memset(at, 0, padded_size);
    memcpy(left, centroids, count * row_size);
    for (uint32_t c = 0; c < count; c++) {
        order[c] = c;
        for (size_t j = 0; j < dimension; j++) {
            at[j] += centroids[(size_t)c * dimension + j] / (float)count;
        }
    }
    for (uint32_t placed = 0; placed < count; placed++) {
        uint8_t *rest = left + placed * row_size;
        kernels->l2(at, rest, row_size, count - placed, dimension, distances);
        uint32_t next = 0;
        for (uint32_t i = 1; i < count - placed; i++) {
            bool better =
                placed == 0 ? distances[i] > distances[next] : distances[i] < distances[next];
            next = better ? i : next;
        }
        memcpy(at, rest + next * row_size, row_size);
        memcpy(rest + next * row_size, rest, row_size);
        uint32_t number = order[placed + next];
        order[placed + next] = order[placed];
        order[placed] = number;
    }
done:
    vexi_free(env, left);
    vexi_free(env, at);
    vexi_free(env, distances);
    return status;
}
