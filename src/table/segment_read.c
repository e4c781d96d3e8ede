/* Segments: ids, vectors and cells. Mapped memory is read inside a SIGBUS guard, and a vector's
 * checksum is compared once per opening.
 *
 * Where the store cannot map, vectors and pages are fetched for each call, all pieces of a call
 * together, and every vector that arrived is compared with its checksum; what a call needs of the
 * index file is asked for in one step before it is read place by place, and stays. */
#include "base/bitmap.h"
#include "base/checksum.h"
#include "base/guard.h"
#include "table/segment_internal.h"

/* What came of the data file did not match its checksum: a cache must not keep it. */
static vex_status data_says(vexi_segment *segment, vex_status status) {
    if (status == VEX_CORRUPT && segment->data.mapping.data == NULL) {
        vexi_store_distrust(segment->core->store, segment->object_name);
    }
    return status;
}

/* An answer of the index file, whose name goes before what is wrong with it. */
static vex_status index_says(vexi_segment *segment, vex_error *err, vex_status status) {
    if (status == VEX_CORRUPT) {
        __atomic_store_n(&segment->index_damaged, 1, __ATOMIC_RELAXED);
    }
    return status == VEX_OK ? status : vexi_prefix(err, status, "%s", segment->index_object.name);
}

/* Run what reads the index file alone. One that was cut while it was mapped is as good as damaged:
 * the rows are well, and a new one can be made. */
static vex_status index_run(vexi_segment *segment,
                            vex_status (*function)(void *argument, vex_error *err), void *argument,
                            vex_error *err) {
    vex_status status = vexi_guard_run(function, argument, segment->index_object.name, err);
    if (status == VEX_IO && segment->index_object.mapping.data != NULL) {
        __atomic_store_n(&segment->index_damaged, 1, __ATOMIC_RELAXED);
        return vexi_fail(err, VEX_CORRUPT, "%s: cannot be read where it is mapped: it was cut",
                         segment->index_object.name);
    }
    return status;
}

typedef struct find_job {
    vexi_segment *segment;
    vex_string id;
    uint64_t hash;
    bool found;
    uint64_t row;
} find_job;

static vex_status find_guarded(void *argument, vex_error *err) {
    find_job *job = argument;
    return index_says(
        job->segment, err,
        vexi_index_find(&job->segment->index, job->id, job->hash, &job->found, &job->row, err));
}

vex_status vexi_segment_find(vexi_segment *segment, vex_string id, uint64_t hash, bool *found,
                             uint64_t *row, vex_error *err) {
    *found = false;
    VEX_TRY(vexi_segment_check(segment, err));
    if (segment->foreign) {
        uint64_t mask = segment->slot_count - 1;
        for (uint64_t slot = hash & mask; segment->slots[slot] != 0; slot = (slot + 1) & mask) {
            uint64_t candidate = segment->slots[slot] - 1;
            if (vexi_string_equal(segment->rows[candidate].id, id)) {
                *found = true;
                *row = candidate;
                return VEX_OK;
            }
        }
        return VEX_OK;
    }
    find_job job = {.segment = segment, .id = id, .hash = hash};
    VEX_TRY(index_run(segment, find_guarded, &job, err));
    *found = job.found;
    *row = job.row;
    return VEX_OK;
}

vex_status vexi_segment_id(vexi_segment *segment, uint64_t row, vex_string *out, vex_error *err) {
    VEX_TRY(vexi_segment_check(segment, err));
    VEX_ASSERT(row < segment->row_count);
    if (segment->foreign) {
        *out = segment->rows[row].id;
        return VEX_OK;
    }
    return index_says(segment, err, vexi_index_id(&segment->index, row, out, err));
}

vex_status vexi_segment_ids_need(vexi_segment *segment, const uint64_t *rows, size_t count,
                                 vexi_read_cost *cost, vex_error *err) {
    VEX_TRY(vexi_segment_check(segment, err));
    return segment->foreign
               ? VEX_OK
               : index_says(segment, err,
                            vexi_index_need_rows(&segment->index, rows, count, true, cost, err));
}

/* ---- Vectors ----------------------------------------------------------------------------------
 */

/* Whether what was compared once is the same bytes still. */
static bool data_stays(const vexi_segment *segment) {
    return segment->data.mapping.data != NULL;
}

/* Whether the checksums of rows first .. first + count - 1 were compared: a word at a time. */
static bool rows_checked(const vexi_segment *segment, uint64_t first, uint64_t count) {
    uint64_t end = first + count;
    if (!data_stays(segment)) {
        return count == 0;
    }
    while (first < end) {
        uint64_t bits = 64 - first % 64 < end - first ? 64 - first % 64 : end - first;
        uint64_t mask = (bits == 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1) << (first % 64);
        uint64_t word = __atomic_load_n(&segment->checked[first / 64], __ATOMIC_RELAXED);
        if ((word & mask) != mask) {
            return false;
        }
        first += bits;
    }
    return true;
}

static bool row_checked(const vexi_segment *segment, uint64_t row) {
    return data_stays(segment) &&
           (__atomic_load_n(&segment->checked[row / 64], __ATOMIC_RELAXED) >> (row % 64) & 1u) != 0;
}

/* Compare the checksums of rows whose vectors lie side by side, those that were not compared yet.
 */
static vex_status rows_check(vexi_segment *segment, const uint8_t *vectors, uint64_t first,
                             uint64_t count, vex_error *err) {
    size_t stride = (size_t)segment->dimension * sizeof(float);
    const uint8_t *crcs = NULL;
    VEX_TRY(index_says(segment, err,
                       vexi_index_vector_crcs(&segment->index, first, count, &crcs, err)));
    for (size_t i = 0; i < count; i++) {
        uint64_t row = first + i;
        if (row_checked(segment, row)) {
            continue;
        }
        if (vexi_crc32c(0, vectors + i * stride, stride) != vexi_get_u32(crcs + 4 * i)) {
            return vexi_fail(err, VEX_CORRUPT,
                             "%s: the vector of row %llu does not match its checksum",
                             segment->object_name, (unsigned long long)row);
        }
        __atomic_fetch_or(&segment->checked[row / 64], (uint64_t)1 << (row % 64), __ATOMIC_RELAXED);
    }
    return VEX_OK;
}

typedef struct check_job {
    vexi_segment *segment;
    const vexi_run *runs;
    size_t run_count;
} check_job;

/* Whether that is all done already: then nothing is read, and no guard is needed. */
static bool run_checked(const vexi_segment *segment, const vexi_run *run) {
    return rows_checked(segment, run->first_row, run->count) &&
           (segment->metric != VEX_METRIC_COSINE ||
            vexi_index_checked(&segment->index, segment->index.norms_offset + 4 * run->first_row,
                               4 * (uint64_t)run->count));
}

static vex_status check_guarded(void *argument, vex_error *err) {
    check_job *job = argument;
    vexi_segment *segment = job->segment;
    for (size_t r = 0; r < job->run_count; r++) {
        const vexi_run *run = &job->runs[r];
        if (!rows_checked(segment, run->first_row, run->count)) {
            VEX_TRY(rows_check(segment, run->vectors, run->first_row, run->count, err));
        }
        if (segment->metric == VEX_METRIC_COSINE) {
            uint64_t offset = segment->index.norms_offset + 4 * run->first_row;
            VEX_TRY(index_says(
                segment, err,
                vexi_index_check(&segment->index, offset, 4 * (uint64_t)run->count, err)));
        }
    }
    return VEX_OK;
}

static vex_status foreign_runs(vexi_segment *segment, const vexi_row_range *ranges,
                               size_t range_count, vexi_arena *arena, vexi_run **runs,
                               size_t *run_count, vex_error *err) {
    *runs = vexi_arena_array(arena, range_count, sizeof **runs);
    if (*runs == NULL) {
        return vexi_no_memory(err, range_count * sizeof **runs);
    }
    size_t stride = (size_t)segment->dimension * sizeof(float);
    for (size_t i = 0; i < range_count; i++) {
        VEX_ASSERT(ranges[i].first_row + ranges[i].count <= segment->row_count);
        (*runs)[i] = (vexi_run){
            .vectors = (const uint8_t *)segment->vectors + ranges[i].first_row * stride,
            .stride = stride,
            .count = ranges[i].count,
            .first_row = ranges[i].first_row,
            .inverse_norms = segment->metric == VEX_METRIC_COSINE
                                 ? (const uint8_t *)(segment->inverse_norms + ranges[i].first_row)
                                 : NULL,
        };
    }
    *run_count = range_count;
    return VEX_OK;
}

/* Row group that holds a row: the first guess is right where all groups but the last are equal. */
static uint32_t group_of(const vexi_segment_layout *layout, uint64_t row) {
    const vexi_row_group *groups = layout->row_groups;
    uint64_t guess = row / groups[0].row_count; /* no group is empty */
    if (guess < layout->row_group_count &&
        row - groups[guess].first_row < groups[guess].row_count) {
        return (uint32_t)guess;
    }
    uint32_t low = 0;
    uint32_t high = layout->row_group_count - 1;
    while (low < high) {
        uint32_t middle = low + (high - low + 1) / 2;
        if (groups[middle].first_row <= row) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* What checking runs reads of the index file: two ranges a run at most. */
static size_t runs_ranges(const vexi_segment *segment, const vexi_run *runs, size_t count,
                          vexi_piece *out) {
    const vexi_index_file *index = &segment->index;
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t at = 4 * runs[i].first_row;
        size_t size = 4 * (size_t)runs[i].count;
        out[n++] = (vexi_piece){.offset = index->crcs_offset + at, .size = size};
        if (segment->metric == VEX_METRIC_COSINE) {
            out[n++] = (vexi_piece){.offset = index->norms_offset + at, .size = size};
        }
    }
    return n;
}

vex_status vexi_segment_runs_plan(vexi_segment *segment, const vexi_row_range *ranges,
                                  size_t range_count, vexi_arena *arena, vexi_runs_plan *out,
                                  vex_error *err) {
    *out = (vexi_runs_plan){.segment = segment};
    VEX_TRY(vexi_segment_check(segment, err));
    if (segment->foreign) {
        return foreign_runs(segment, ranges, range_count, arena, &out->runs, &out->run_count, err);
    }
    const vexi_segment_layout *layout = &segment->index.layout;
    size_t stride = (size_t)segment->dimension * sizeof(float);
    size_t count = 0;
    for (size_t i = 0; i < range_count; i++) {
        VEX_ASSERT(ranges[i].first_row + ranges[i].count <= segment->row_count);
        if (ranges[i].count > 0) {
            count += group_of(layout, ranges[i].first_row + ranges[i].count - 1) -
                     group_of(layout, ranges[i].first_row) + 1;
        }
    }
    out->runs = vexi_arena_array(arena, count, sizeof *out->runs);
    out->pieces = vexi_arena_array(arena, count, sizeof *out->pieces);
    if (out->runs == NULL || out->pieces == NULL) {
        return vexi_no_memory(err, count * (sizeof *out->runs + sizeof *out->pieces));
    }
    size_t n = 0;
    for (size_t i = 0; i < range_count; i++) {
        uint64_t row = ranges[i].first_row;
        uint64_t left = ranges[i].count;
        for (uint32_t g = left > 0 ? group_of(layout, row) : 0; left > 0; g++) {
            const vexi_row_group *group = &layout->row_groups[g];
            uint64_t in_group = group->first_row + group->row_count - row;
            uint64_t rows = in_group < left ? in_group : left;
            out->runs[n] = (vexi_run){.stride = stride, .count = rows, .first_row = row};
            out->pieces[n] =
                (vexi_piece){.offset = group->vector_offset + (row - group->first_row) * stride,
                             .size = rows * stride};
            if (segment->metric == VEX_METRIC_COSINE) {
                out->runs[n].inverse_norms = segment->index.inverse_norms + 4 * row;
            }
            n++;
            row += rows;
            left -= rows;
        }
    }
    out->run_count = n;
    if (segment->index.fetch != NULL && n > 0) {
        out->index_ranges = vexi_arena_array(arena, 2 * n, sizeof *out->index_ranges);
        if (out->index_ranges == NULL) {
            return vexi_no_memory(err, 2 * n * sizeof *out->index_ranges);
        }
        out->index_range_count = runs_ranges(segment, out->runs, n, out->index_ranges);
    }
    return VEX_OK;
}

vex_status vexi_segment_runs_finish(const vexi_runs_plan *plan, vex_error *err) {
    vexi_segment *segment = plan->segment;
    bool checked = true;
    if (segment->foreign) {
        return VEX_OK;
    }
    for (size_t i = 0; i < plan->run_count; i++) {
        plan->runs[i].vectors = plan->pieces[i].data;
        checked = checked && run_checked(segment, &plan->runs[i]);
    }
    if (checked) {
        return VEX_OK;
    }
    check_job job = {.segment = segment, .runs = plan->runs, .run_count = plan->run_count};
    return data_says(segment, vexi_guard_run(check_guarded, &job, segment->object_name, err));
}

vex_status vexi_segment_runs(vexi_segment *segment, const vexi_row_range *ranges,
                             size_t range_count, vexi_arena *arena, vexi_run **runs,
                             size_t *run_count, vexi_read_cost *cost, vex_error *err) {
    vexi_runs_plan plan;
    *runs = NULL;
    *run_count = 0;
    VEX_TRY(vexi_segment_runs_plan(segment, ranges, range_count, arena, &plan, err));
    if (!segment->foreign) {
        VEX_TRY(vexi_object_fetch(&segment->data, plan.pieces, plan.run_count, arena, cost, err));
        VEX_TRY(index_says(segment, err,
                           vexi_index_need(&segment->index, plan.index_ranges,
                                           plan.index_range_count, cost, err)));
        VEX_TRY(vexi_segment_runs_finish(&plan, err));
    }
    *runs = plan.runs;
    *run_count = plan.run_count;
    return VEX_OK;
}

typedef struct vectors_job {
    vexi_segment *segment;
    const uint64_t *rows;
    size_t count;
    const uint8_t **vectors;
} vectors_job;

static vex_status vectors_guarded(void *argument, vex_error *err) {
    vectors_job *job = argument;
    for (size_t i = 0; i < job->count; i++) {
        if (!row_checked(job->segment, job->rows[i])) {
            VEX_TRY(rows_check(job->segment, job->vectors[i], job->rows[i], 1, err));
        }
    }
    return VEX_OK;
}

static uint64_t vector_offset(const vexi_segment *segment, uint64_t row) {
    const vexi_segment_layout *layout = &segment->index.layout;
    const vexi_row_group *group = &layout->row_groups[group_of(layout, row)];
    return group->vector_offset +
           (row - group->first_row) * (uint64_t)segment->dimension * sizeof(float);
}

void vexi_segment_vector_pieces(const vexi_segment *segment, const uint64_t *rows, size_t count,
                                vexi_piece *out) {
    for (size_t i = 0; i < count; i++) {
        VEX_ASSERT(rows[i] < segment->row_count);
        out[i] = (vexi_piece){.offset = vector_offset(segment, rows[i]),
                              .size = (size_t)segment->dimension * sizeof(float)};
    }
}

vex_status vexi_segment_vectors_check(vexi_segment *segment, const uint64_t *rows, size_t count,
                                      const uint8_t **vectors, vex_error *err) {
    vectors_job job = {.segment = segment, .rows = rows, .count = count, .vectors = vectors};
    return data_says(segment, vexi_guard_run(vectors_guarded, &job, segment->object_name, err));
}

/* Where the store cannot map: one request for all, a piece for each. */
static vex_status vectors_fetch(vexi_segment *segment, const uint64_t *rows, size_t count,
                                vexi_arena *arena, const uint8_t **out, vexi_read_cost *cost,
                                vex_error *err) {
    vexi_piece *pieces = vexi_arena_array(arena, count, sizeof *pieces);
    if (pieces == NULL) {
        return vexi_no_memory(err, count * sizeof *pieces);
    }
    vexi_segment_vector_pieces(segment, rows, count, pieces);
    VEX_TRY(vexi_object_fetch(&segment->data, pieces, count, arena, cost, err));
    for (size_t i = 0; i < count; i++) {
        out[i] = pieces[i].data;
    }
    return VEX_OK;
}

vex_status vexi_segment_vectors(vexi_segment *segment, const uint64_t *rows, size_t count,
                                vexi_arena *arena, const uint8_t **out, vexi_read_cost *cost,
                                vex_error *err) {
    VEX_TRY(vexi_segment_check(segment, err));
    if (segment->foreign) {
        for (size_t i = 0; i < count; i++) {
            VEX_ASSERT(rows[i] < segment->row_count);
            out[i] = (const uint8_t *)(segment->vectors + rows[i] * (size_t)segment->dimension);
        }
        return VEX_OK;
    }
    const uint8_t *mapped = segment->data.mapping.data;
    bool checked = true;
    for (size_t i = 0; i < count; i++) {
        VEX_ASSERT(rows[i] < segment->row_count);
        checked = checked && row_checked(segment, rows[i]);
        if (mapped != NULL) {
            /* Row groups lie inside the file: vexi_index_open compared them with its size. */
            out[i] = mapped + vector_offset(segment, rows[i]);
        }
    }
    if (mapped == NULL && count > 0) {
        VEX_TRY(vectors_fetch(segment, rows, count, arena, out, cost, err));
        VEX_TRY(index_says(segment, err,
                           vexi_index_need_rows(&segment->index, rows, count, false, cost, err)));
    }
    if (checked) {
        return VEX_OK;
    }
    return vexi_segment_vectors_check(segment, rows, count, out, err);
}

/* ---- Codes ------------------------------------------------------------------------------------
 */

typedef struct lists_job {
    vexi_segment *segment;
    const uint32_t *lists;
    size_t count;
} lists_job;

static vex_status lists_guarded(void *argument, vex_error *err) {
    lists_job *job = argument;
    vexi_index_file *index = &job->segment->index;
    for (size_t i = 0; i < job->count; i++) {
        uint32_t list = job->lists[i];
        VEX_TRY(index_says(
            job->segment, err,
            vexi_index_check(index, index->codes_offset + index->code_offsets[list],
                             index->code_offsets[list + 1] - index->code_offsets[list], err)));
    }
    return VEX_OK;
}

vex_status vexi_segment_lists(vexi_segment *segment, const uint32_t *lists, size_t count,
                              vexi_arena *arena, const uint8_t **out, vexi_read_cost *cost,
                              vex_error *err) {
    VEX_TRY(vexi_segment_check(segment, err));
    vexi_index_file *index = &segment->index;
    VEX_ASSERT(segment->indexed && index->code_bits != 0);
    bool checked = true;
    for (size_t i = 0; i < count; i++) {
        uint32_t list = lists[i];
        VEX_ASSERT(list < index->list_count);
        uint64_t offset = index->codes_offset + index->code_offsets[list];
        out[i] = index->bytes.data + offset;
        checked = checked &&
                  vexi_index_checked(index, offset,
                                     index->code_offsets[list + 1] - index->code_offsets[list]);
    }
    if (checked) {
        return VEX_OK;
    }
    if (index->fetch != NULL) {
        vexi_piece *ranges = vexi_arena_array(arena, count, sizeof *ranges);
        if (ranges == NULL) {
            return vexi_no_memory(err, count * sizeof *ranges);
        }
        for (size_t i = 0; i < count; i++) {
            const uint64_t *at = &index->code_offsets[lists[i]];
            ranges[i] = (vexi_piece){.offset = index->codes_offset + at[0],
                                     .size = (size_t)(at[1] - at[0])};
        }
        return index_says(segment, err, vexi_index_need(index, ranges, count, cost, err));
    }
    lists_job job = {.segment = segment, .lists = lists, .count = count};
    return index_run(segment, lists_guarded, &job, err);
}

/* ---- Cells ------------------------------------------------------------------------------------
 */

typedef struct touch_job {
    const vexi_piece *pieces;
    size_t piece_count;
    uint8_t sum; /* so that the loads stay */
} touch_job;

static vex_status touch_guarded(void *argument, vex_error *err) {
    (void)err;
    enum { PAGE = 4096 };
    touch_job *job = argument;
    for (size_t i = 0; i < job->piece_count; i++) {
        const volatile uint8_t *data = job->pieces[i].data;
        for (size_t at = 0; at < job->pieces[i].size; at += PAGE) {
            job->sum ^= data[at];
        }
        if (job->pieces[i].size > 0) {
            job->sum ^= data[job->pieces[i].size - 1];
        }
    }
    return VEX_OK;
}

bool vexi_segment_index_cut(vexi_segment *segment) {
    if (!segment->indexed || segment->index_object.mapping.data == NULL) {
        return false;
    }
    vexi_piece piece = {.data = segment->index.bytes.data, .size = segment->index.bytes.size};
    touch_job touch = {.pieces = &piece, .piece_count = 1};
    vex_error err;
    return index_run(segment, touch_guarded, &touch, &err) != VEX_OK;
}

vex_status vexi_segment_cells_plan(const vexi_segment *segment, const uint32_t *columns,
                                   size_t column_count, const uint64_t *rows, size_t row_count,
                                   vexi_arena *arena, vexi_piece **pieces, size_t *piece_count,
                                   vex_error *err) {
    vex_status status = vexi_segment_plan(&segment->index.layout, columns, column_count, rows,
                                          row_count, arena, pieces, piece_count, err);
    return status == VEX_OK ? status : vexi_prefix(err, status, "%s", segment->object_name);
}

vex_status vexi_segment_cells_decode(vexi_segment *segment, const vexi_schema *schema,
                                     const uint32_t *columns, size_t column_count,
                                     const uint64_t *rows, size_t row_count,
                                     const vexi_piece *pieces, size_t piece_count,
                                     vexi_arena *arena, vexi_cell *out, vex_search_stats *stats,
                                     vex_error *err) {
    uint64_t page_count = 0;
    uint64_t read_bytes = 0;
    vex_status status =
        vexi_segment_decode(segment->core->env, schema, &segment->index.layout,
                            segment->data.mapping.data, pieces, piece_count, columns, column_count,
                            rows, row_count, arena, out, &page_count, &read_bytes, err);
    if (stats != NULL) {
        stats->page_count += page_count;
        stats->read_bytes += read_bytes;
    }
    return data_says(segment, status) == VEX_OK
               ? status
               : vexi_prefix(err, status, "%s", segment->object_name);
}

vex_status vexi_segment_cells(vexi_segment *segment, const vexi_schema *schema,
                              const uint32_t *columns, size_t column_count, const uint64_t *rows,
                              size_t row_count, vexi_arena *arena, vexi_cell *out,
                              vex_search_stats *stats, vexi_read_cost *cost, vex_error *err) {
    VEX_TRY(vexi_segment_check(segment, err));
    if (row_count == 0 || column_count == 0) {
        return VEX_OK;
    }
    if (segment->foreign) {
        for (size_t c = 0; c < column_count; c++) {
            for (size_t r = 0; r < row_count; r++) {
                vexi_row_cell(&segment->rows[rows[r]], columns[c], &out[c * row_count + r]);
            }
        }
        return VEX_OK;
    }
    vexi_piece *pieces = NULL;
    size_t piece_count = 0;
    VEX_TRY(vexi_segment_cells_plan(segment, columns, column_count, rows, row_count, arena, &pieces,
                                    &piece_count, err));
    VEX_TRY(vexi_object_fetch(&segment->data, pieces, piece_count, arena, cost, err));
    /* Decoding allocates, so it cannot run inside a guard: a file that was cut is met here. */
    touch_job touch = {.pieces = pieces, .piece_count = piece_count};
    VEX_TRY(vexi_guard_run(touch_guarded, &touch, segment->object_name, err));
    return vexi_segment_cells_decode(segment, schema, columns, column_count, rows, row_count,
                                     pieces, piece_count, arena, out, stats, err);
}
