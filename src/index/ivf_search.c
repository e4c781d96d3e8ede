/* Searching: the lists in the order of their promise for a query, and how many to make and probe.
 *
 * L2 ranks by the distance to the centroid. Inner product ranks by the dot product; so does cosine,
 * whose centroids are unit vectors, without regard to the query's length. */
#include <math.h>
#include <string.h>

#include "index/ivf_internal.h"

#define FLAT_ROWS 1000u
/* Up to 4,000 rows of up to 6 MiB are compared exactly all the same: that takes less than a tenth
 * of a millisecond, and a small collection deserves all its neighbours. */
#define FLAT_ROWS_MAX   4000u
#define FLAT_SIZE_MAX   (6u << 20)
#define LIST_COUNT_MAX  65536u
#define LIST_ROWS       256u
#define RADIX_COUNT_MAX 4096u

/* Lists by default: sqrt(2 rows), and one for 256 rows where that is more (from 131,072 rows on). A
 * row that is scanned by its code costs 1 to 2.5 ns at 128 dimensions, the more the larger the
 * index, because its bytes come from memory; a list costs its centroid's rank and the first touch
 * of its memory. CPU-time per query in microseconds, 4-bit records, k = 10, at recall 0.95, by
 * rows a list:
 *
 *     SIFT, 1,000,000 x 128                          707: 51     353: 50
 *     clustered, low intrinsic dimension, 1,000,000  707: 125    353: 120    177: 100
 *     the same, 10,000,000                           559: 265     256: 235
 *     the same, in five segments                     1,000: 1,130 (4.0 % of the lists)
 *     SIFT, 200,000 x 128                            447: 29     316: 32     223: 37
 *     text, 20,000 x 384, cosine                     141: 33     100: 37     71: 41
 *
 * As many lists must be probed of 10 million such rows as of one, about 200, so the lists should
 * not grow with the rows. More lists mean fewer rows read (85,000 instead of 182,000 in the third
 * line, and 0.63 instead of 0.87 ms at recall 0.98), which counts more where rows come from a
 * store, and a longer build: 16, 20 and 31 CPU-seconds for the three of the second line.
 *
 * Against the exact comparison of all rows: 5.6 and 6.9 of 8.0 microseconds at 1,000 SIFT rows, 14
 * and 16 of 23 at 1,000 rows of text, half or less from 2,000 rows on. */
uint32_t vexi_ivf_default_list_count(uint64_t row_count, uint32_t dimension) {
    uint64_t row_size = dimension * sizeof(float);
    if (row_count < FLAT_ROWS ||
        (row_count < FLAT_ROWS_MAX && row_count * row_size <= FLAT_SIZE_MAX)) {
        return 0;
    }
    double lists = sqrt(2.0 * (double)row_count), by_rows = (double)row_count / LIST_ROWS;
    lists = lists > by_rows ? lists : by_rows;
    return lists > LIST_COUNT_MAX ? LIST_COUNT_MAX : (uint32_t)lists;
}

/* The rule for segments without a calibration: measured on 20,000 sentence embeddings of 384
 * dimensions under cosine with 500 queries that are not among them, and on parts of them. Such data
 * is hard: clusters around random centres need a tenth of it. */
uint32_t vexi_ivf_default_nprobe(uint32_t list_count, uint32_t k) {
    double factor = 2.4 + log10(k < 1 ? 1.0 : (double)k);
    double probes = ceil(factor * pow(list_count, 0.6));
    return probes >= list_count ? list_count : (uint32_t)probes;
}

/* A number whose unsigned order is that of the floats; what is not a number comes last. */
static uint32_t sort_key(float score) {
    uint32_t bits;
    if (isnan(score)) {
        return UINT32_MAX;
    }
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static uint32_t load_key(const float *keys, uint32_t i) {
    uint32_t key;
    memcpy(&key, &keys[i], sizeof key);
    return key;
}

/* lists = 0 .. count - 1 stably sorted by key: four passes of eight bits, least significant first,
 * so it ends where it began. */
static void radix_sort(const float *keys, uint32_t count, uint32_t *lists) {
    uint32_t other[RADIX_COUNT_MAX];
    uint32_t starts[4][256] = {0};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = load_key(keys, i);
        lists[i] = i;
        for (uint32_t pass = 0; pass < 4; pass++) {
            starts[pass][key >> (8 * pass) & 255]++;
        }
    }
    uint32_t *from = lists, *to = other;
    for (uint32_t pass = 0; pass < 4; pass++) {
        uint32_t start = 0;
        for (uint32_t digit = 0; digit < 256; digit++) {
            uint32_t size = starts[pass][digit];
            starts[pass][digit] = start;
            start += size;
        }
        for (uint32_t i = 0; i < count; i++) {
            uint32_t key = load_key(keys, from[i]);
            to[starts[pass][key >> (8 * pass) & 255]++] = from[i];
        }
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
}

static bool comes_after(const float *keys, uint32_t a, uint32_t b) {
    uint32_t key_a = load_key(keys, a), key_b = load_key(keys, b);
    return key_a != key_b ? key_a > key_b : a > b;
}

/* The same order without memory of its own, for more lists than the stack has room for. */
static void heap_sort(const float *keys, uint32_t count, uint32_t *lists) {
    for (uint32_t i = 0; i < count; i++) {
        lists[i] = i;
    }
    for (uint32_t step = count / 2 + count; step > 1; step--) {
        /* The first count / 2 steps make the heap, the others take its head to the end. */
        uint32_t left = step > count ? count : step - 1;
        uint32_t at = step > count ? step - count - 1 : 0;
        uint32_t item = lists[at];
        if (step <= count) {
            item = lists[step - 1];
            lists[step - 1] = lists[0];
        }
        for (;;) {
            size_t child = 2 * (size_t)at + 1;
            if (child >= left) {
                break;
            }
            if (child + 1 < left && comes_after(keys, lists[child + 1], lists[child])) {
                child++;
            }
            if (!comes_after(keys, lists[child], item)) {
                break;
            }
            lists[at] = lists[child];
            at = (uint32_t)child;
        }
        lists[at] = item;
    }
}

void vexi_ivf_sort_lists(float *scores, uint32_t list_count, uint32_t *lists) {
    for (uint32_t i = 0; i < list_count; i++) {
        uint32_t key = sort_key(scores[i]);
        memcpy(&scores[i], &key, sizeof key);
    }
    if (list_count <= RADIX_COUNT_MAX) {
        radix_sort(scores, list_count, lists);
    } else {
        heap_sort(scores, list_count, lists);
    }
}

void vexi_ivf_score(const vexi_query *query, const float *centroids, uint32_t list_count,
                    float *scores) {
    const vexi_kernels *kernels = vexi_kernels_get();
    const uint8_t *rows = (const uint8_t *)centroids;
    size_t stride = query->dimension * sizeof *centroids;
    if (query->metric == VEX_METRIC_L2) {
        kernels->l2(query->values, rows, stride, list_count, query->dimension, scores);
        return;
    }
    kernels->dot(query->values, rows, stride, list_count, query->dimension, scores);
    for (uint32_t i = 0; i < list_count; i++) {
        scores[i] = 0.0f - scores[i];
    }
}

void vexi_ivf_rank(const vexi_query *query, const float *centroids, uint32_t list_count,
                   uint32_t *lists, float *scratch) {
    vexi_ivf_score(query, centroids, list_count, scratch);
    vexi_ivf_sort_lists(scratch, list_count, lists);
}
