/* Selecting and ordering.
 *
 * Candidates are ordered by (estimate, row), which is total where rows are distinct: quicksort that
 * leaves alone what lies behind the wanted ones. The larger part waits while the smaller one is
 * sorted, so that at most log2(count) parts wait. No estimate is NaN. */
#include <math.h>

#include "index/code_internal.h"

enum { PLACED_MAX = 160, SIEVED_MAX = 1024, BISECTIONS = 24, LANES = 8 };

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

static uint32_t count_up_to(const float *values, uint32_t count, float most) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++) {
        found += values[i] <= most ? 1 : 0;
    }
    return found;
}

/* Bisection, whose passes over the values cost less than the branches of a selection would. */
float vexi_code_most(const float *values, uint32_t count, uint32_t wanted) {
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
        uint32_t found = count_up_to(values, count, middle);
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
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = items[i].estimate;
    }
    float most = vexi_code_most(keys, count, wanted);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (keys[i] <= most) {
            swap(&items[kept++], &items[i]);
        }
    }
    return kept;
}

void vexi_code_sort(vexi_code_candidate *items, uint32_t count, uint32_t wanted) {
    if (wanted > 0 && count > PLACED_MAX && count <= SIEVED_MAX && wanted < count / 2) {
        count = sieve(items, count, wanted);
    }
    if (count <= PLACED_MAX) {
        place_all(items, count);
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
