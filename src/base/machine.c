/* The machine's memory is the smaller of what there is and what the control group allows: a process
 * that takes three quarters of the host from within a small container is killed. */
#include "base/machine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The number in a file of the control group; UINT64_MAX where there is none ("max", or no file). */
static uint64_t limit_in(const char *path) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return UINT64_MAX;
    }
    char text[32];
    size_t size = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    text[size] = '\0';
    char *end;
    errno = 0;
    uint64_t limit = strtoull(text, &end, 10);
    return end == text || errno != 0 || limit == 0 ? UINT64_MAX : limit;
}

uint64_t vexi_machine_memory(void) {
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_size = sysconf(_SC_PAGESIZE);
    uint64_t bytes =
        pages > 0 && page_size > 0 ? (uint64_t)pages * (uint64_t)page_size : (uint64_t)1 << 30;
    static const char *const limits[] = {"/sys/fs/cgroup/memory.max",
                                         "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        uint64_t limit = limit_in(limits[i]);
        bytes = limit < bytes ? limit : bytes;
    }
    return bytes;
}
