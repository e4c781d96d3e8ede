/* Fuzz target of the request parser: one input, read whole and read in pieces, gives the same
 * commands, and arguments lie within the input. The first byte chooses the sizes of the pieces. */
#include <stdlib.h>
#include <string.h>

#include "resp/resp.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *fuzz_allocate(void *context, size_t alignment, size_t size) {
    (void)context;
    (void)alignment;
    return malloc(size);
}

static void fuzz_release(void *context, void *pointer) {
    (void)context;
    free(pointer);
}

/* A running hash of all commands, and where reading stopped. */
typedef struct outcome {
    uint64_t hash;
    size_t command_count;
    size_t offset;
    bool failed;
} outcome;

static outcome read_all(const vexi_env *env, const uint8_t *data, size_t size, size_t piece) {
    outcome out = {.hash = 1469598103934665603u};
    vexi_resp_parser parser;
    vexi_resp_parser_init(&parser, env, 64, 1024);
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    size_t given = piece < size ? piece : size;
    for (;;) {
        bool complete = false;
        vex_error err;
        vex_status status =
            vexi_resp_parse(&parser, copy + out.offset, given - out.offset, &complete, &err);
        VEX_ASSERT(status != VEX_OK || parser.count <= 64);
        if (status != VEX_OK) {
            VEX_ASSERT(err.message[0] != '\0');
            out.failed = true;
            break;
        }
        if (!complete) {
            if (given == size) {
                break;
            }
            given = size - given < piece ? size : given + piece;
            continue;
        }
        VEX_ASSERT(parser.offset > 0 && parser.offset <= given - out.offset);
        for (uint32_t i = 0; i < parser.count; i++) {
            vexi_resp_slice slice = parser.slices[i];
            VEX_ASSERT(slice.offset <= parser.offset && slice.size <= parser.offset - slice.offset);
            for (size_t b = 0; b < slice.size; b++) {
                out.hash = (out.hash ^ copy[out.offset + slice.offset + b]) * 1099511628211u;
            }
            out.hash = (out.hash ^ 0x100u) * 1099511628211u;
        }
        out.command_count++;
        out.offset += parser.offset;
        vexi_resp_parser_next(&parser);
    }
    free(copy);
    vexi_resp_parser_deinit(&parser);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    vexi_env env = {.allocate = fuzz_allocate, .release = fuzz_release};
    outcome whole = read_all(&env, data + 1, size - 1, size);
    outcome parts = read_all(&env, data + 1, size - 1, 1u + data[0] % 17u);
    VEX_ASSERT(whole.hash == parts.hash && whole.command_count == parts.command_count &&
               whole.offset == parts.offset && whole.failed == parts.failed);
    return 0;
}
