/* Fuzz target of the argument parsers: the input, split at its line ends, is the argument list of
 * each command in turn. What they give out lies within the input and within the limits. */
#include <math.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "server/arguments.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define ARGUMENTS_MAX 64u

static void *fuzz_allocate(void *context, size_t alignment, size_t size) {
    (void)context;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void fuzz_release(void *context, void *pointer) {
    (void)context;
    free(pointer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    vex_string arguments[ARGUMENTS_MAX];
    uint32_t count = 0;
    size_t start = 0;
    for (size_t i = 0; i <= size && count < ARGUMENTS_MAX; i++) {
        if (i == size || data[i] == '\n') {
            arguments[count++] =
                (vex_string){.data = (const char *)data + start, .size = i - start};
            start = i + 1;
        }
    }
    vex_error err;
    vexi_get_arguments get;
    if (vexi_parse_get(arguments, count, &get, &err) == VEX_OK) {
        VEX_ASSERT(get.id_count >= 1 && get.ids == arguments && get.collection.size >= 1);
        VEX_ASSERT(get.id_count + get.column_count <= count);
    }
    vexi_set_arguments set;
    if (vexi_parse_set(arguments, count, &set, &err) == VEX_OK) {
        VEX_ASSERT(count >= 2 && set.vector.data == arguments[1].data && set.collection.size >= 1);
    }
    vexi_search_arguments search;
    if (vexi_parse_search(arguments, count, &search, &err) == VEX_OK) {
        VEX_ASSERT(search.k >= 1 && search.k <= VEX_K_MAX && search.column_count < count);
        VEX_ASSERT(vexi_search_same(&search, &search));
    }
    vexi_create_arguments create;
    if (vexi_parse_create(arguments, count, &create, &err) == VEX_OK) {
        VEX_ASSERT(create.options.dimension >= 1 && create.options.dimension <= VEX_DIMENSION_MAX &&
                   create.options.column_count <= VEX_COLUMNS_MAX);
    }
    vexi_env env = {.allocate = fuzz_allocate, .release = fuzz_release};
    vexi_arena arena;
    vexi_arena_init(&arena, &env);
    for (uint32_t i = 0; i < count; i++) {
        const float *values;
        uint32_t dimension;
        if (vexi_parse_vector(arguments[i], &arena, &values, &dimension, &err) == VEX_OK) {
            VEX_ASSERT(dimension >= 1 && dimension <= VEX_DIMENSION_MAX);
            for (uint32_t v = 0; vexi_vector_is_text(arguments[i]) && v < dimension; v++) {
                VEX_ASSERT(isfinite(values[v]));
            }
        }
    }
    vexi_arena_deinit(&arena);
    return 0;
}
