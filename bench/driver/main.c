/* The benchmark's C half: what has to run in one process beside the library, or faster than a
 * Python client can. bench/run drives it and does the arithmetic. Each command is described at the
 * head of its file: serve.c, bulk.c (import, flush), write.c (vset, fsync), query.c. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

int main(int argc, char **argv) {
    size_t count = argc < 2 ? 0 : (size_t)argc - 2;
    const char *name = argc < 2 ? "" : argv[1];
    if (count == 5 && strcmp(name, "serve") == 0) {
        return serve(argv + 2);
    }
    if (count >= 7 && strcmp(name, "vset") == 0) {
        return vset(count, argv + 2);
    }
    if (count >= 9 && strcmp(name, "query") == 0) {
        return query(count, argv + 2);
    }
    if (count >= 4 && strcmp(name, "import") == 0) {
        return import_file(count, argv + 2);
    }
    if (count == 2 && strcmp(name, "flush") == 0) {
        return flush_rows(argv + 2);
    }
    if (count == 3 && strcmp(name, "fsync") == 0) {
        return sync_cost(argv + 2);
    }
    fprintf(stderr, "usage: see the heads of the files in bench/driver\n");
    return 2;
}
