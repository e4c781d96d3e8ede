/* Fuzz target: any bytes as a file to import, of every format; carquet behind its checks. */
#include <stdio.h>
#include <stdlib.h>

#include "base/env.h"
#include "format/row_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROWS_MAX = 4096 };

/* All values of the rows, so that a pointer that is wrong is followed. */
static uint64_t touch(const vexi_row_source_info *info, const vexi_row *rows, size_t count) {
    uint64_t sum = 0;
    for (size_t r = 0; r < count; r++) {
        for (uint32_t d = 0; d < info->dimension; d++) {
            sum += rows[r].vector[d] > 0;
        }
        vex_string strings[3] = {rows[r].id, rows[r].attributes, rows[r].payload};
        for (size_t s = 0; s < 3; s++) {
            for (size_t i = 0; i < strings[s].size; i++) {
                sum += (uint8_t)strings[s].data[i];
            }
        }
        for (uint32_t c = 0; c < info->column_count; c++) {
            const vexi_cell *cell = &rows[r].cells[c];
            if (!cell->is_null && info->columns[c].type == VEX_TYPE_STRING) {
                sum += cell->as.string.size > 0 ? (uint8_t)cell->as.string.data[0] : 0;
            }
        }
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"f", "f.fvecs", "f.bvecs", "f.jsonl"};
    static vexi_env *env; /* one for the life of the process, which libFuzzer ends */
    vex_error err;
    if (env == NULL && vexi_env_system_create(1, NULL, NULL, &env, &err) != VEX_OK) {
        abort();
    }
    /* A magic decides by itself; else the first byte says how to take the rest. */
    const char *name = "f.parquet";
    if (size > 0 && data[0] < 4) {
        name = names[data[0]];
        data++;
        size--;
    }
    vexi_row_source *source;
    vexi_row_source_info info;
    vexi_span file = {data, size};
    if (vexi_row_source_open(env, name, file, NULL, &source, &info, &err) != VEX_OK) {
        return 0;
    }
    uint64_t sum = 0;
    for (size_t rows = 0, count = 1; count > 0 && rows < ROWS_MAX; rows += count) {
        vexi_arena arena;
        vexi_arena_init(&arena, env);
        vexi_row *found;
        if (vexi_row_source_next(source, 100, &arena, &found, &count, &err) == VEX_OK) {
            sum += touch(&info, found, count);
        }
        vexi_arena_deinit(&arena);
    }
    vexi_row_source_close(source);
    return sum == UINT64_MAX ? -1 : 0;
}
