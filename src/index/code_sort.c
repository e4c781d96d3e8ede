/* Selecting and ordering.
 *
 * Candidates are ordered by (estimate, row), which is total where rows are distinct: few by
 * counting those before each, more by radix, many by a quicksort that leaves alone what lies behind
 * the wanted ones. The larger part waits while the smaller one is sorted, so that at most
 * log2(count) parts wait. No estimate is NaN. */
#include <math.h>
#include <string.h>

#include "index/code_internal.h"

enum {
    PLACED_MAX = 96,
    RADIX_MAX = 1024,
    SIEVED_MAX = 4096,
    BISECTIONS = 24,
    LANES = 8,
    DIGITS = 256,
    PASSES = 4
};

static inline bool before(const vexi_code_candidate *a, const vexi_code_candidate *b) {
    return a->estimate != b->estimate ? a->estimate < b->estimate : a->row < b->row;
}

static inline void swap(vexi_code_candidate *a, vexi_code_candidate *b) {
    vexi_code_candidate kept = *a;
    *a = *b;
    *b = kept;
}

static void insert_all(vexi_code_candidate *items, uint32_t count) {
    for (uint32_t i = 1; i < count; i++) {
        vexi_code_candidate item = items[i];
        uint32_t at = i;
        for (; at > 0 && before(&item, &items[at - 1]); at--) {
            items[at] = items[at - 1];
        }
        items[at] = item;
    }
}

/* Split: items before the returned place are not after the pivot, the others not before it. Both
 * parts have items, because the pivot is neither the first nor the last of three. count >= 3. */
static uint32_t split(vexi_code_candidate *items, uint32_t count) {
    uint32_t middle = count / 2, last = count - 1;
    if (before(&items[middle], &items[0])) {
        swap(&items[middle], &items[0]);
    }
    if (before(&items[last], &items[0])) {
        swap(&items[last], &items[0]);
    }
    if (before(&items[last], &items[middle])) {
        swap(&items[last], &items[middle]);
    }
    vexi_code_candidate pivot = items[middle];
    uint32_t i = 0, j = last;
    for (;;) {
        do {
            i++;
        } while (before(&items[i], &pivot));
        do {
            j--;
        } while (before(&pivot, &items[j]));
        if (i >= j) {
            return i;
        }
        swap(&items[i], &items[j]);
    }
}

/* Few items: the place of each is the number of those before it, counted without a branch. */
static void place_all(vexi_code_candidate *items, uint32_t count) {
    vexi_code_candidate copy[PLACED_MAX];
    float keys[PLACED_MAX];
    for (uint32_t i = 0; i < count; i++) {
        copy[i] = items[i];
        keys[i] = items[i].estimate;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = 0, equal = 0;
        for (uint32_t j = 0; j < count; j++) {
            place += keys[j] < keys[i] ? 1 : 0;
            equal += keys[j] == keys[i] ? 1 : 0;
        }
        for (uint32_t j = 0; equal > 1 && j < count; j++) {
            place += keys[j] == keys[i] &&
                             (copy[j].row < copy[i].row || (copy[j].row == copy[i].row && j < i))
                         ? 1
                         : 0;
        }
        items[place] = copy[i];
    }
}

/* A number with the order of the floats. */
static uint32_t key_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

/* By bytes of the estimates, least first, leaving out those in which all are alike; then equal ones
 * (and both zeros) by row. count <= RADIX_MAX. */
static void radix_sort(vexi_code_candidate *items, uint32_t count) {
    struct entry {
        uint32_t key, at;
    } parts[2][RADIX_MAX], *from = parts[0], *to = parts[1];
    uint32_t counts[PASSES][DIGITS] = {{0}};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = key_of(items[i].estimate);
        from[i] = (struct entry){key, i};
        for (uint32_t pass = 0; pass < PASSES; pass++) {
            counts[pass][key >> 8 * pass & 255]++;
        }
    }
    for (uint32_t pass = 0; pass < PASSES; pass++) {
        uint32_t *places = counts[pass], shift = 8 * pass, sum = 0;
        if (places[from[0].key >> shift & 255] == count) {
            continue;
        }
        for (uint32_t digit = 0; digit < DIGITS; digit++) {
            uint32_t here = places[digit];
            places[digit] = sum;
            sum += here;
        }
        for (uint32_t i = 0; i < count; i++) {
            to[places[from[i].key >> shift & 255]++] = from[i];
        }
        struct entry *swapped = from;
        from = to;
        to = swapped;
    }
    vexi_code_candidate copy[RADIX_MAX];
    memcpy(copy, items, count * sizeof *copy);
    for (uint32_t i = 0; i < count; i++) {
        items[i] = copy[from[i].at];
    }
    insert_all(items, count);
}

/* Bisection, whose passes over the values cost less than the branches of a selection would. */
float vexi_code_most(const float *values, uint32_t count, uint32_t wanted) {
    const vexi_kernels *kernels = vexi_kernels_get();
    /* By lanes: a chain of minima and maxima would wait for itself. */
    float lows[LANES], highs[LANES];
    for (uint32_t l = 0; l < LANES; l++) {
        lows[l] = INFINITY;
        highs[l] = -INFINITY;
    }
    uint32_t whole = count / LANES * LANES;
    for (uint32_t i = 0; i < whole; i += LANES) {
        for (uint32_t l = 0; l < LANES; l++) {
            float value = values[i + l];
            lows[l] = value < lows[l] ? value : lows[l];
            highs[l] = value > highs[l] ? value : highs[l];
        }
    }
    float low = INFINITY, high = -INFINITY;
    for (uint32_t l = 0; l < LANES; l++) {
        low = lows[l] < low ? lows[l] : low;
        high = highs[l] > high ? highs[l] : high;
    }
    for (uint32_t i = whole; i < count; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    for (uint32_t step = 0; step < BISECTIONS; step++) {
        float middle = 0.5f * low + 0.5f * high;
        size_t found = kernels->up_to(values, count, middle, NULL);
        if (found < wanted) {
            low = middle;
        } else {
            high = middle;
            if (found <= wanted + wanted / 8 + 4) {
                break;
            }
        }
    }
    return high;
}

/* Bring the items that may be among the wanted to the front. Returns how many. count <= SIEVED_MAX.
 */
static uint32_t sieve(vexi_code_candidate *items, uint32_t count, uint32_t wanted) {
    float keys[SIEVED_MAX];
    uint64_t bits[SIEVED_MAX / 64];
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = items[i].estimate;
    }
    float most = vexi_code_most(keys, count, wanted);
    uint32_t kept = 0;
    vexi_kernels_get()->up_to(keys, count, most, bits);
    for (uint32_t word = 0; word < (count + 63) / 64; word++) {
        for (uint64_t left = bits[word]; left != 0; left &= left - 1) {
            swap(&items[kept++], &items[word * 64 + (uint32_t)__builtin_ctzll(left)]);
        }
    }
    return kept;
}

void vexi_code_sort(vexi_code_candidate *items, uint32_t count, uint32_t wanted) {
    if (wanted > 0 && count > PLACED_MAX && count <= SIEVED_MAX && wanted < count / 2) {
        count = sieve(items, count, wanted);
    }
    if (count <= RADIX_MAX) {
        if (count <= PLACED_MAX) {
            place_all(items, count);
        } else {
            radix_sort(items, count);
        }
        return;
    }
    struct {
        uint32_t first, count;
    } waiting[32];
    uint32_t depth = 0, first = 0;
    for (;;) {
        while (count > 12 && first < wanted) {
            uint32_t left = split(items + first, count), right = count - left;
            if (left < right) {
                waiting[depth].first = first + left;
                waiting[depth++].count = right;
                count = left;
            } else {
                waiting[depth].first = first;
                waiting[depth++].count = left;
                first += left;
                count = right;
            }
        }
        if (first < wanted) {
            insert_all(items + first, count);
        }
        if (depth == 0) {
            return;
        }
        depth--;
        first = waiting[depth].first;
        count = waiting[depth].count;
    }
}
