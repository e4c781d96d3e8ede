/* The loop of a program that embeds VexLake: open, create, put, search, print, close. */
#include <stdio.h>
#include <vexlake.h>

#define TRY(call)                             \
    if ((call) != VEX_OK) {                   \
        fprintf(stderr, "%s\n", err.message); \
        return 1;                             \
    }

int main(int argc, char **argv) {
    vex_error err;
    vex_lake *lake;
    TRY(vex_lake_open(argc > 1 ? argv[1] : "mem://", NULL, &lake, &err))

    const vex_string name = {"colours", 7};
    const vex_collection_options options = {.size = sizeof options, .dimension = 3};
    TRY(vex_collection_create(lake, name, &options, &err))

    const vex_row rows[] = {
        {.id = {"red", 3}, .dimension = 3, .vector = (const float[]){1, 0, 0}},
        {.id = {"green", 5}, .dimension = 3, .vector = (const float[]){0, 1, 0}},
        {.id = {"orange", 6}, .dimension = 3, .vector = (const float[]){1, 0.5, 0}},
    };
    TRY(vex_put_rows(lake, name, rows, 3, &err))

    const float query[] = {1, 0.5, 0.25};
    const vex_search_options search = {.size = sizeof search, .k = 2};
    struct ArrowArray batch; /* columns: query, id, distance */
    TRY(vex_search(lake, name, query, 1, 3, &search, NULL, &batch, &err))
    const int32_t *ends = batch.children[1]->buffers[1];
    const char *ids = batch.children[1]->buffers[2];
    const double *distances = batch.children[2]->buffers[1];
    for (int64_t i = 0; i < batch.length; i++) {
        printf("%.*s %g\n", ends[i + 1] - ends[i], ids + ends[i], distances[i]);
    }
    batch.release(&batch);
    TRY(vex_lake_close(lake, &err))
    return 0;
}
