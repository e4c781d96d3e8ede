/* Segments: every byte checked, what is wrong noted. */
#include "base/bitmap.h"
#include "base/checksum.h"
#include "base/guard.h"
#include "table/segment_internal.h"

vex_status vexi_finding_add(vexi_arena *arena, vexi_finding **findings, size_t *count,
                            const char *object, vex_status status, const vex_error *problem,
                            vex_error *err) {
    if (status == VEX_MEMORY) {
        if (err != NULL) {
            *err = *problem;
        }
        return status;
    }
    /* Findings are few; the array doubles in the arena. */
    if ((*count & (*count - 1)) == 0) {
        vexi_finding *larger =
            vexi_arena_array(arena, *count == 0 ? 1 : *count * 2, sizeof **findings);
        if (larger == NULL) {
            return vexi_no_memory(err, *count * sizeof **findings);
        }
        if (*count > 0) {
            memcpy(larger, *findings, *count * sizeof **findings);
        }
        *findings = larger;
    }
    size_t message_size = strlen(problem->message);
    vexi_finding *finding = &(*findings)[*count];
    finding->object = (vex_string){vexi_arena_copy(arena, object, strlen(object)), strlen(object)};
    finding->problem =
        (vex_string){vexi_arena_copy(arena, problem->message, message_size), message_size};
    if (finding->object.data == NULL || finding->problem.data == NULL) {
        return vexi_no_memory(err, message_size);
    }
    *count += 1;
    return VEX_OK;
}

typedef struct verify_job {
    vexi_segment *segment;
    const vexi_schema *schema;
    vexi_span bytes;
    uint64_t rows_seen;
} verify_job;

static vex_status verify_index_guarded(void *argument, vex_error *err) {
    verify_job *job = argument;
    return vexi_index_check_all(&job->segment->index, err);
}

static vex_status verify_data_guarded(void *argument, vex_error *err) {
    verify_job *job = argument;
    return vexi_segment_verify(job->segment->core->env, job->schema, &job->segment->index.layout,
                               job->bytes, &job->rows_seen, err);
}

/* The vectors against their checksums, then the Parquet file as another engine reads it. */
static vex_status verify_data(verify_job *job, vex_error *err) {
    vexi_segment *segment = job->segment;
    vexi_arena arena;
    vexi_arena_init(&arena, segment->core->env);
    /* Read the vectors again, whatever was checked before. */
    for (size_t i = 0; i < vexi_bitmap_words(segment->row_count); i++) {
        __atomic_store_n(&segment->checked[i], 0, __ATOMIC_RELAXED);
    }
    vexi_row_range all = {.first_row = 0, .count = segment->row_count};
    vexi_run *runs;
    size_t run_count;
    vex_status status = vexi_segment_runs(segment, &all, 1, &arena, &runs, &run_count, NULL, err);
    if (status == VEX_OK) {
        status = vexi_segment_object_bytes(&segment->data, &arena, &job->bytes, err);
    }
    if (status == VEX_OK) {
        /* Decoding allocates: a fault leaks a little, in exchange for a living process. */
        status = vexi_guard_run(verify_data_guarded, job, segment->object_name, err);
    }
    if (status == VEX_OK && job->rows_seen != segment->row_count) {
        status =
            vexi_fail(err, VEX_CORRUPT, "%llu rows, the index file has %llu",
                      (unsigned long long)job->rows_seen, (unsigned long long)segment->row_count);
    }
    vexi_arena_deinit(&arena);
    return status;
}

vex_status vexi_segment_verify_all(vexi_segment *segment, const vexi_schema *schema,
                                   vexi_arena *arena, vexi_finding **findings,
                                   size_t *finding_count, uint64_t *object_count, vex_error *err) {
    *object_count += 1;
    vex_error problem;
    vex_status status = vexi_segment_check(segment, &problem);
    if (status != VEX_OK) {
        return vexi_finding_add(arena, findings, finding_count, segment->object_name, status,
                                &problem, err);
    }
    if (segment->index_problem.status != VEX_OK) {
        return vexi_finding_add(arena, findings, finding_count, segment->object_name,
                                segment->index_problem.status, &segment->index_problem, err);
    }
    if (segment->foreign) {
        return VEX_OK; /* decoded whole, with its page checksums, when it was opened */
    }
    *object_count += 1;
    verify_job job = {.segment = segment, .schema = schema};
    status = vexi_guard_run(verify_index_guarded, &job, segment->index_object.name, &problem);
    if (status != VEX_OK) {
        VEX_TRY(vexi_finding_add(arena, findings, finding_count, segment->index_object.name, status,
                                 &problem, err));
    }
    status = verify_data(&job, &problem);
    if (status != VEX_OK) {
        VEX_TRY(vexi_finding_add(arena, findings, finding_count, segment->object_name, status,
                                 &problem, err));
    }
    return VEX_OK;
}
