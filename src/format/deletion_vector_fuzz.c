/* Deletion vectors: u32 row count, u32 cardinality, then the data, which is also taken as a file,
 * as inline text and as the name of a file. */
#include <stdlib.h>

#include "base/bitmap.h"
#include "format/deletion_vector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static vexi_env *env;

static void decode(vexi_span data, uint64_t row_count, uint64_t cardinality) {
    size_t words = vexi_bitmap_words(row_count);
    uint64_t *hidden = calloc(words + 1, sizeof *hidden);
    uint64_t *again = calloc(words + 1, sizeof *again);
    if (hidden == NULL || again == NULL) {
        abort();
    }
    vex_error err;
    if (vexi_dv_decode(data, row_count, cardinality, hidden, &err) == VEX_OK) {
        VEX_ASSERT(vexi_bitmap_count(hidden, row_count) == cardinality);
        vexi_buffer out;
        vexi_buffer_init(&out, env, 1 << 24);
        vex_status status = vexi_dv_encode(hidden, row_count, &out, &err);
        VEX_ASSERT(status == VEX_OK);
        status =
            vexi_dv_decode(vexi_span_of(out.data, out.size), row_count, cardinality, again, &err);
        VEX_ASSERT(status == VEX_OK && memcmp(hidden, again, words * 8) == 0);
        vexi_buffer_deinit(&out);
    } else {
        VEX_ASSERT(vexi_bitmap_count(hidden, row_count) == 0);
    }
    VEX_ASSERT(hidden[words] == 0);
    free(hidden);
    free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (env == NULL && vexi_env_system_create(1, NULL, NULL, &env, NULL) != VEX_OK) {
        abort();
    }
    if (size < 8) {
        return 0;
    }
    uint64_t row_count = vexi_get_u32(data) % (1u << 22);
    uint32_t cardinality = vexi_get_u32(data + 4);
    vexi_span rest = vexi_span_of(data + 8, size - 8);
    decode(rest, row_count, cardinality);

    vexi_arena arena;
    vexi_arena_init(&arena, env);
    vexi_delta_dv dv = {.storage = 'u',
                        .encoded = {(const char *)rest.data, rest.size},
                        .offset = (uint32_t)(row_count % 64),
                        .size_bytes = cardinality};
    vex_error err;
    vexi_span found;
    if (vexi_dv_file_find(rest, &dv, &found, &err) == VEX_OK) {
        VEX_ASSERT(found.data >= rest.data && found.size <= rest.size);
    }
    const char *name;
    if (vexi_dv_object_name(&dv, &arena, &name, &err) == VEX_OK) {
        VEX_ASSERT(strstr(name, "..") == NULL && name[0] != '/');
    }
    dv.storage = 'i';
    if (vexi_dv_inline_data(&dv, &arena, &found, &err) == VEX_OK) {
        decode(found, row_count, 1);
    }
    vexi_arena_deinit(&arena);
    return 0;
}
