/* Runs a fuzz target over a corpus, for builds without libFuzzer: every file that the arguments
 * name or that lies in a folder that they name. Then mutates each of them a little, from a fixed
 * seed, so that an ordinary test run also sees inputs that nobody wrote. A target fails by
 * crashing.
 *
 *     fuzz_resp tests/fuzz/corpus/resp */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUTATIONS 200

static uint64_t random_state;
static size_t run_count;

/* The input lies in memory of exactly its size, so that a read behind it is found. */
static void run(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    (void)LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    run_count++;
}

/* Change some bytes, cut or repeat a piece. `data` has room for twice its size. */
static size_t mutate(uint8_t *data, size_t size) {
    static const uint8_t interesting[] = {0,   1,   0x7f, 0x80, 0xff, '\r', '\n',
                                          '*', '$', '-',  '0',  '9',  '"',  '['};
    uint64_t steps = 1 + vex_test_below(&random_state, 4);
    size_t limit = size * 2;
    for (uint64_t step = 0; step < steps && size > 0; step++) {
        size_t at = (size_t)vex_test_below(&random_state, size);
        switch (vex_test_below(&random_state, 5)) {
        case 0:
            data[at] ^= (uint8_t)(1u << vex_test_below(&random_state, 8));
            break;
        case 1:
            data[at] = interesting[vex_test_below(&random_state, sizeof interesting)];
            break;
        case 2:
            data[at] = (uint8_t)vex_test_random(&random_state);
            break;
        case 3:
            size = at;
            break;
        default: {
            size_t piece = 1 + (size_t)vex_test_below(&random_state, size - at);
            if (size + piece <= limit) {
                memmove(data + at + piece, data + at, size - at);
                size += piece;
            }
        }
        }
    }
    return size;
}

static void run_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    CHECK(fseek(file, 0, SEEK_END) == 0);
    long end = ftell(file);
    CHECK(end >= 0 && fseek(file, 0, SEEK_SET) == 0);
    size_t size = (size_t)end;
    uint8_t *data = malloc(size + 1);
    uint8_t *changed = malloc(size * 2 + 1);
    CHECK(data != NULL && changed != NULL);
    CHECK(fread(data, 1, size, file) == size);
    fclose(file);
    printf("  %s\n", path);
    fflush(stdout);
    run(data, size);
    uint64_t count = vex_test_effort(MUTATIONS);
    for (uint64_t i = 0; i < count; i++) {
        memcpy(changed, data, size);
        run(changed, mutate(changed, size));
    }
    free(changed);
    free(data);
}

static int is_visible(const struct dirent *entry) {
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv) {
    random_state = vex_test_seed(1);
    for (int i = 1; i < argc; i++) {
        struct stat about;
        if (stat(argv[i], &about) != 0) {
            perror(argv[i]);
            return 1;
        }
        if (!S_ISDIR(about.st_mode)) {
            run_file(argv[i]);
            continue;
        }
        struct dirent **entries;
        int count = scandir(argv[i], &entries, is_visible, alphasort);
        CHECK(count > 0); /* an empty corpus tests nothing */
        for (int e = 0; e < count; e++) {
            char path[4096];
            snprintf(path, sizeof path, "%s/%s", argv[i], entries[e]->d_name);
            run_file(path);
            free(entries[e]);
        }
        free(entries);
    }
    printf("  %zu inputs\n", run_count);
    CHECK(run_count > 0);
    return 0;
}
