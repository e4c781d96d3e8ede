/* Fuzz target of the XML answers: whatever a server sends, the names that come out of a listing are
 * names of ours, and every text ends within its field. The first byte chooses the parser. */
#include <stdlib.h>

#include "store/s3_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *fuzz_allocate(void *context, size_t alignment, size_t size) {
    (void)context;
    return aligned_alloc(alignment < 16 ? 16 : alignment, (size + 63) / 64 * 64);
}

static void fuzz_release(void *context, void *pointer) {
    (void)context;
    free(pointer);
}

static void check_ends(const char *text, size_t size) {
    VEX_ASSERT(memchr(text, '\0', size) != NULL);
}

static void fuzz_list(const vexi_env *env, vexi_span body) {
    static const char *const strips[] = {"", "p/"};
    for (size_t i = 0; i < 2; i++) {
        vexi_arena arena;
        vexi_arena_init(&arena, env);
        vexi_s3_entries entries = {0};
        vexi_s3_page page;
        vex_error err;
        vex_status status = vexi_s3_parse_list(env, body, strips[i], &arena, &entries, &page, &err);
        VEX_ASSERT(status == VEX_OK || err.message[0] != '\0');
        check_ends(page.token, sizeof page.token);
        for (size_t j = 0; j < entries.count; j++) {
            const vexi_list_entry *entry = &entries.entries[j];
            char name[VEXI_STORE_NAME_SIZE_MAX + 2];
            size_t name_size = strlen(entry->name);
            VEX_ASSERT(name_size > 0 && name_size < sizeof name);
            memcpy(name, entry->name, name_size + 1);
            VEX_ASSERT(entry->is_folder == (name[name_size - 1] == '/'));
            if (entry->is_folder) {
                name[name_size - 1] = '\0';
            }
            VEX_ASSERT(vexi_store_name_valid(name));
        }
        vexi_free(env, entries.entries);
        vexi_arena_deinit(&arena);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const vexi_env env = {.allocate = fuzz_allocate, .release = fuzz_release};
    if (size == 0) {
        return 0;
    }
    vexi_span body = vexi_span_of(data + 1, size - 1);
    vexi_s3_answer_error error;
    char text[VEXI_STORE_NAME_SIZE_MAX + 1];
    bool failed = false;
    switch (data[0] % 4) {
    case 0:
        (void)vexi_s3_parse_error(body, &error);
        check_ends(error.code, sizeof error.code);
        check_ends(error.message, sizeof error.message);
        check_ends(error.region, sizeof error.region);
        break;
    case 1:
        if (vexi_s3_parse_delete(body, &failed, &error, text, NULL) == VEX_OK) {
            check_ends(text, sizeof text);
            check_ends(error.code, sizeof error.code);
        }
        break;
    case 2:
        if (vexi_s3_parse_upload_id(body, text, 64, NULL) == VEX_OK) {
            check_ends(text, 64);
        }
        break;
    default:
        fuzz_list(&env, body);
    }
    return 0;
}
