/* A temporary folder on the real disk, for tests of stores. */
#ifndef VEXI_STORE_TEST_FOLDER_H
#define VEXI_STORE_TEST_FOLDER_H

#include <fts.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "check.h"

typedef struct vex_test_folder {
    char path[64];
} vex_test_folder;

static inline vex_test_folder vex_test_folder_make(void) {
    vex_test_folder folder = {.path = "/tmp/vexlake-store-XXXXXX"};
    CHECK(mkdtemp(folder.path) != NULL);
    return folder;
}

static inline void vex_test_folder_remove(vex_test_folder *folder) {
    char *paths[] = {folder->path, NULL};
    FTS *walk = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    CHECK(walk != NULL);
    for (FTSENT *entry = fts_read(walk); entry != NULL; entry = fts_read(walk)) {
        if (entry->fts_info != FTS_D) {
            CHECK_EQ(remove(entry->fts_accpath), 0);
        }
    }
    CHECK_EQ(fts_close(walk), 0);
}

#endif
