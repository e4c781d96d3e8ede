/* From the ranges of one get to the requests that fetch them.
 *
 * A request costs a round trip (about 60 ms on AWS, 1 ms on loopback) and a connection while it
 * lasts; bytes between two wanted ranges cost their transfer. So ranges nearer than the gap become
 * one request, whose answer is scattered into the targets as it arrives: nothing is held twice, and
 * the bytes of the gaps are dropped. The other way round one long range is cut into parts of equal
 * size, since one connection rarely fills the line. One request for several ranges (multipart
 * byteranges) is never sent: servers answer it with the whole object. */
#include <stdlib.h>

#include "store/s3_internal.h"

static int compare_ranges(const void *a, const void *b) {
    const vexi_range *left = a, *right = b;
    if (left->offset != right->offset) {
        return left->offset < right->offset ? -1 : 1;
    }
    return left->size < right->size ? -1 : left->size > right->size;
}

void vexi_s3_sort_ranges(vexi_range *ranges, size_t count) {
    if (count > 1) {
        qsort(ranges, count, sizeof *ranges, compare_ranges);
    }
}

/* Spans that [start, end) is cut into. */
static size_t piece_count(uint64_t start, uint64_t end, size_t part_size) {
    uint64_t size = end - start;
    /* A rest of less than half a part is not worth a request of its own. */
    return size <= part_size + part_size / 2 ? 1 : (size_t)((size - 1) / part_size + 1);
}

vex_status vexi_s3_plan(const vexi_env *env, const vexi_range *sorted, size_t count,
                        size_t gap_size, size_t part_size, vexi_s3_span **spans, size_t *span_count,
                        vex_error *err) {
    *spans = NULL;
    *span_count = 0;
    VEX_ASSERT(count > 0 && part_size > 0);
    size_t capacity = 0;
    void *memory = NULL;
    size_t made = 0;
    for (size_t first = 0; first < count;) {
        uint64_t start = sorted[first].offset;
        uint64_t end = start + sorted[first].size;
        size_t next = first + 1;
        while (next < count &&
               (sorted[next].offset <= end || sorted[next].offset - end < gap_size)) {
            uint64_t other = sorted[next].offset + sorted[next].size;
            end = other > end ? other : end;
            next++;
        }
        size_t pieces = piece_count(start, end, part_size);
        vex_status status =
            vexi_grow(env, &memory, &capacity, made, made + pieces, sizeof(vexi_s3_span), err);
        if (status != VEX_OK) {
            vexi_free(env, memory);
            return status;
        }
        vexi_s3_span *list = memory;
        uint64_t piece_size = (end - start) / pieces, rest = (end - start) % pieces;
        uint64_t to = start;
        size_t begin = first;
        for (size_t i = 0; i < pieces; i++) {
            uint64_t from = to;
            to = from + piece_size + (i < rest ? 1 : 0);
            /* Ranges wholly before the piece are left out where they are first in order; scatter
             * passes over the others. */
            while (begin + 1 < next && sorted[begin].offset + sorted[begin].size <= from) {
                begin++;
            }
            list[made++] =
                (vexi_s3_span){.start = from, .end = to, .first = begin, .count = next - begin};
        }
        first = next;
    }
    *spans = memory;
    *span_count = made;
    return VEX_OK;
}

void vexi_s3_scatter(const vexi_range *ranges, size_t count, uint64_t offset, const uint8_t *data,
                     size_t size) {
    uint64_t end = offset + size;
    for (size_t i = 0; i < count && ranges[i].offset < end; i++) {
        uint64_t range_end = ranges[i].offset + ranges[i].size;
        if (range_end <= offset) {
            continue;
        }
        uint64_t from = ranges[i].offset > offset ? ranges[i].offset : offset;
        uint64_t to = range_end < end ? range_end : end;
        memcpy(ranges[i].target + (from - ranges[i].offset), data + (from - offset),
               (size_t)(to - from));
    }
}
