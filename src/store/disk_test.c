/* The two disks by themselves: that the real one reports what the system says, that locks hold
 * between processes and leftovers go, and that the simulated one forgets as it promises. */
#include "store/disk.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "store/test_folder.h"

static vexi_span text_span(const char *text) {
    return vexi_span_of(text, strlen(text));
}

static size_t entry_count(vexi_disk *disk, const char *path) {
    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_OK(disk->ops->list_folder(disk, path, &arena, &listing, &err));
    vexi_arena_deinit(&arena);
    return listing.count;
}

/* ---- The real disk --------------------------------------------------------------------------- */

/* A child that holds the lock of a store until it is killed. Returns its process id. */
static pid_t hold_in_child(vexi_disk *disk, const char *root) {
    int channel[2];
    CHECK_EQ(pipe(channel), 0);
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        vexi_store *store = NULL;
        char answer = 'n';
        if (vexi_store_file_create(vex_test_env(), disk, root, true, &store, NULL) == VEX_OK &&
            vexi_store_lock(store, ".vexlake/lock", NULL) == VEX_OK) {
            answer = 'y';
        }
        if (write(channel[1], &answer, 1) == 1) {
            for (;;) {
                pause();
            }
        }
        _exit(1);
    }
    char answer = 0;
    CHECK_EQ(read(channel[0], &answer, 1), 1);
    CHECK_EQ(answer, 'y');
    close(channel[0]);
    close(channel[1]);
    return pid;
}

TEST(lock_between_processes) {
    vex_test_folder folder = vex_test_folder_make();
    vexi_disk *disk = NULL;
    vexi_store *store = NULL;
    vexi_store *second = NULL;
    CHECK_OK(vexi_disk_posix_create(vex_test_env(), &disk, &err));
    pid_t pid = hold_in_child(disk, folder.path);
    CHECK_OK(vexi_store_file_create(vex_test_env(), disk, folder.path, false, &store, &err));
    vex_error busy;
    CHECK_EQ(vexi_store_lock(store, ".vexlake/lock", &busy), VEX_BUSY);
    char holder[32];
    snprintf(holder, sizeof holder, "process %ld", (long)pid);
    CHECK(strstr(busy.message, holder) != NULL);

    /* A file that a writer left when it was killed goes with the next lock, not before. */
    char path[128];
    vexi_disk_file *file = NULL;
    bool made = false;
    snprintf(path, sizeof path, "%s/.tmp-put", folder.path);
    CHECK_OK(disk->ops->make_folder(disk, path, &made, &err));
    snprintf(path, sizeof path, "%s/.tmp-put/left", folder.path);
    CHECK_OK(disk->ops->open(disk, path, VEXI_DISK_CREATE_NEW, &file, &err));
    disk->ops->close(file);
    snprintf(path, sizeof path, "%s/.tmp-put", folder.path);
    CHECK_EQ(vexi_store_lock(store, ".vexlake/lock", &busy), VEX_BUSY);
    CHECK_EQ(entry_count(disk, path), 1);

    CHECK_EQ(kill(pid, SIGKILL), 0);
    int result = 0;
    CHECK_EQ(waitpid(pid, &result, 0), pid);
    CHECK_OK(vexi_store_lock(store, ".vexlake/lock", &err));
    CHECK_EQ(entry_count(disk, path), 0);

    /* A second handle of this process, until the first is gone. */
    CHECK_OK(vexi_store_file_create(vex_test_env(), disk, folder.path, false, &second, &err));
    CHECK_EQ(vexi_store_lock(second, ".vexlake/lock", &busy), VEX_BUSY);
    snprintf(holder, sizeof holder, "process %ld (this one)", (long)getpid());
    CHECK(strstr(busy.message, holder) != NULL);
    vexi_store_destroy(store);
    CHECK_OK(vexi_store_lock(second, ".vexlake/lock", &err));
    vexi_store_destroy(second);
    vexi_disk_destroy(disk);
    vex_test_folder_remove(&folder);
}

TEST(full_disk) {
    vexi_disk *disk = NULL;
    vexi_disk_file *file = NULL;
    CHECK_OK(vexi_disk_posix_create(vex_test_env(), &disk, &err));
    CHECK_OK(disk->ops->open(disk, "/dev/full", VEXI_DISK_APPEND, &file, &err));
    vexi_span part = text_span("no space for this");
    CHECK_FAILS(VEX_FULL, disk->ops->write(file, &part, 1, &err));
    disk->ops->close(file);
    vexi_disk_destroy(disk);
}

/* A limit on the size of files makes the system write less than asked, then fail. */
TEST(short_write) {
    vex_test_folder folder = vex_test_folder_make();
    vexi_disk *disk = NULL;
    vexi_store *store = NULL;
    vexi_log_file *log = NULL;
    CHECK_OK(vexi_disk_posix_create(vex_test_env(), &disk, &err));
    CHECK_OK(vexi_store_file_create(vex_test_env(), disk, folder.path, false, &store, &err));
    CHECK_OK(vexi_store_log_create(store, "log", &log, &err));
    struct rlimit before;
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    struct rlimit limit = before;
    limit.rlim_cur = 1000;
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    uint8_t bytes[900];
    memset(bytes, 'x', sizeof bytes);
    vexi_span parts[] = {vexi_span_of(bytes, 900), vexi_span_of(bytes, 900)};
    vex_status put = vexi_store_put(store, "big", parts, 2, NULL);
    vex_status append = vexi_store_log_append(log, parts, 2, NULL);
    vex_status after = vexi_store_log_append(log, parts, 1, NULL);
    vex_status sync = vexi_store_log_sync(log, NULL);
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
    CHECK_EQ(put, VEX_IO);
    CHECK_EQ(append, VEX_IO);
    CHECK_EQ(after, VEX_IO); /* a log whose end is unknown takes no more */
    CHECK_EQ(sync, VEX_IO);
    uint64_t size = 0;
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_size(store, "big", &size, &err));
    CHECK_OK(vexi_store_size(store, "log", &size, &err));
    CHECK_EQ(size, 1000);
    char path[128];
    snprintf(path, sizeof path, "%s/.tmp-put", folder.path);
    CHECK_EQ(entry_count(disk, path), 0);
    vexi_store_log_close(log);
    vexi_store_destroy(store);
    vexi_disk_destroy(disk);
    vex_test_folder_remove(&folder);
}

/* What others may put into the folder: pipes are no objects and block nobody, odd names are passed
 * over, links lead where they point, folders that are deleted under us are made again. */
TEST(foreign_entries) {
    vex_test_folder folder = vex_test_folder_make();
    vexi_disk *disk = NULL;
    vexi_store *store = NULL;
    CHECK_OK(vexi_disk_posix_create(vex_test_env(), &disk, &err));
    CHECK_OK(vexi_store_file_create(vex_test_env(), disk, folder.path, false, &store, &err));
    vexi_span part = text_span("text");
    CHECK_OK(vexi_store_put(store, "a/b/c", &part, 1, &err));
    char path[128];
    char other[128];
    snprintf(path, sizeof path, "%s/a/pipe", folder.path);
    CHECK_EQ(mkfifo(path, 0600), 0);
    uint64_t size = 0;
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_size(store, "a/pipe", &size, &err));
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_get(store, "a/pipe", NULL, 0, &err));
    vexi_mapping mapping;
    CHECK_FAILS(VEX_NOT_FOUND, vexi_store_map(store, "a/pipe", &mapping, &err));
    snprintf(path, sizeof path, "%s/a/odd name", folder.path);
    vexi_disk_file *file = NULL;
    CHECK_OK(disk->ops->open(disk, path, VEXI_DISK_CREATE_NEW, &file, &err));
    disk->ops->close(file);
    snprintf(path, sizeof path, "%s/a/b/c", folder.path);
    snprintf(other, sizeof other, "%s/a/link", folder.path);
    CHECK_EQ(symlink(path, other), 0);
    snprintf(other, sizeof other, "%s/a/loop", folder.path);
    CHECK_EQ(symlink(other, other), 0);
    CHECK_OK(vexi_store_size(store, "a/link", &size, &err));
    CHECK_EQ(size, 4);

    vexi_arena arena;
    vexi_arena_init(&arena, vex_test_env());
    vexi_listing listing;
    CHECK_OK(vexi_store_remove(store, "a/loop", &err)); /* no object, so nothing to do */
    snprintf(path, sizeof path, "%s/a", folder.path);
    snprintf(other, sizeof other, "%s/a/circle", folder.path);
    CHECK_EQ(symlink(path, other), 0);
    CHECK_OK(vexi_store_list(store, "", NULL, false, &arena, &listing, &err));
    CHECK_EQ(listing.count, 2);
    CHECK(strcmp(listing.entries[0].name, "a/b/c") == 0);
    CHECK(strcmp(listing.entries[1].name, "a/link") == 0);
    vexi_arena_deinit(&arena);

    snprintf(path, sizeof path, "%s/a/b/c", folder.path);
    CHECK_EQ(unlink(path), 0);
    snprintf(path, sizeof path, "%s/a/b", folder.path);
    CHECK_EQ(rmdir(path), 0);
    snprintf(path, sizeof path, "%s/.tmp-put", folder.path);
    CHECK_EQ(rmdir(path), 0);
    CHECK_OK(vexi_store_put_if_absent(store, "a/b/c", &part, 1, &err));
    CHECK_OK(vexi_store_size(store, "a/b/c", &size, &err));
    vexi_store_destroy(store);
    vexi_disk_destroy(disk);
    vex_test_folder_remove(&folder);
}

TEST(roots) {
    vex_test_folder folder = vex_test_folder_make();
    vexi_disk *disk = NULL;
    vexi_store *store = NULL;
    char path[5000];
    CHECK_OK(vexi_disk_posix_create(vex_test_env(), &disk, &err));
    CHECK_FAILS(VEX_INVALID, vexi_store_file_create(vex_test_env(), disk, "", true, &store, &err));
    CHECK(store == NULL);
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    CHECK_FAILS(VEX_INVALID,
                vexi_store_file_create(vex_test_env(), disk, path, true, &store, &err));
    snprintf(path, sizeof path, "%s/file", folder.path);
    vexi_disk_file *file = NULL;
    CHECK_OK(disk->ops->open(disk, path, VEXI_DISK_CREATE_NEW, &file, &err));
    disk->ops->close(file);
    CHECK_FAILS(VEX_INVALID,
                vexi_store_file_create(vex_test_env(), disk, path, true, &store, &err));
    snprintf(path, sizeof path, "%s/file/below", folder.path);
    CHECK_FAILS(VEX_INVALID,
                vexi_store_file_create(vex_test_env(), disk, path, true, &store, &err));
    snprintf(path, sizeof path, "%s/a/b/c///", folder.path);
    CHECK_OK(vexi_store_file_create(vex_test_env(), disk, path, true, &store, &err));
    vexi_store_destroy(store);
    CHECK_OK(vexi_store_file_create(vex_test_env(), disk, path, false, &store, &err));
    vexi_store_destroy(store);
    vexi_disk_destroy(disk);
    vex_test_folder_remove(&folder);
}

/* ---- The simulated disk ---------------------------------------------------------------------- */

static vexi_disk_file *create_file(vexi_disk *disk, const char *path) {
    vexi_disk_file *file = NULL;
    CHECK_OK(disk->ops->open(disk, path, VEXI_DISK_CREATE_NEW | VEXI_DISK_APPEND, &file, &err));
    return file;
}

static void write_byte(vexi_disk_file *file, int value, size_t size) {
    uint8_t bytes[4096];
    CHECK(size <= sizeof bytes);
    memset(bytes, value, size);
    vexi_span part = vexi_span_of(bytes, size);
    CHECK_OK(file->disk->ops->write(file, &part, 1, &err));
}

typedef struct crash_result {
    bool found;
    size_t size;
    uint8_t bytes[4096];
} crash_result;

static crash_result look(vexi_disk *disk, const char *path) {
    crash_result result = {0};
    uint64_t size = 0;
    int64_t modified_us = 0;
    if (disk->ops->file_size(disk, path, &size, &modified_us, NULL) == VEX_OK) {
        vexi_disk_file *file = NULL;
        CHECK(size <= sizeof result.bytes);
        result.found = true;
        result.size = (size_t)size;
        CHECK_OK(disk->ops->open(disk, path, VEXI_DISK_READ, &file, &err));
        CHECK_OK(disk->ops->read_at(file, 0, result.bytes, result.size, &err));
        CHECK_FAILS(VEX_CORRUPT, disk->ops->read_at(file, size, result.bytes, 1, &err));
        disk->ops->close(file);
    }
    return result;
}

/* Synced bytes 'a', then unsynced 'b' and 'c', under a name that is synced or not. */
static crash_result crash_once(uint64_t seed, bool sync_name, bool failed_sync) {
    vexi_disk *disk = NULL;
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), seed, &disk, &err));
    vexi_disk_file *file = create_file(disk, "f");
    write_byte(file, 'a', 1000);
    CHECK_OK(disk->ops->sync(file, &err));
    if (sync_name) {
        CHECK_OK(disk->ops->sync_folder(disk, "", &err));
    }
    write_byte(file, 'b', 1500);
    write_byte(file, 'c', 500);
    if (failed_sync) {
        /* The second sync "succeeds", but what the first one lost stays lost. */
        vexi_disk_sim_fail_at(disk, vexi_disk_sim_steps(disk) + 1, VEX_IO);
        CHECK_FAILS(VEX_IO, disk->ops->sync(file, &err));
        CHECK_OK(disk->ops->sync(file, &err));
        CHECK_EQ(look(disk, "f").size, 3000);
    }
    vexi_disk_sim_crash_at(disk, vexi_disk_sim_steps(disk) + 1);
    CHECK_FAILS(VEX_IO, disk->ops->unlink(disk, "f", &err));
    CHECK(vexi_disk_sim_crashed(disk));
    uint64_t size;
    int64_t modified_us;
    CHECK_FAILS(VEX_IO, disk->ops->file_size(disk, "f", &size, &modified_us, &err));
    vexi_disk_sim_restart(disk, seed);
    CHECK(!vexi_disk_sim_crashed(disk));
    CHECK_EQ(vexi_disk_sim_steps(disk), 0);
    CHECK_FAILS(VEX_IO, disk->ops->sync(file, &err)); /* a stale handle */
    disk->ops->close(file);
    crash_result result = look(disk, "f");
    vexi_disk_destroy(disk);
    return result;
}

static bool all_bytes(const uint8_t *bytes, size_t size, int value) {
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != value) {
            return false;
        }
    }
    return true;
}

static void check_outcomes(bool failed_sync) {
    size_t gone = 0, whole = 0, lost = 0, torn = 0, hole = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        crash_result r = crash_once(seed, true, failed_sync);
        crash_result again = crash_once(seed, true, failed_sync);
        CHECK(r.found == again.found && r.size == again.size &&
              memcmp(r.bytes, again.bytes, r.size) == 0);
        if (!r.found) {
            gone++; /* the unlink at the crash step may have happened */
            continue;
        }
        CHECK(r.size >= 1000 && r.size <= 3000);
        CHECK(all_bytes(r.bytes, 1000, 'a'));
        for (size_t i = 1000; i < r.size; i++) {
            CHECK(r.bytes[i] == 0 || r.bytes[i] == (i < 2500 ? 'b' : 'c'));
        }
        bool first_lost =
            r.size <= 1000 || all_bytes(r.bytes + 1000, r.size < 2500 ? r.size - 1000 : 1500, 0);
        whole += r.size == 3000 && all_bytes(r.bytes + 1000, 1500, 'b') &&
                 all_bytes(r.bytes + 2500, 500, 'c');
        lost += r.size == 1000;
        torn += r.size > 1000 && r.size < 2500 && !first_lost;
        hole += r.size > 2500 && first_lost;
    }
    printf("    400 crashes: %zu gone, %zu whole, %zu lost, %zu torn, %zu with a hole\n", gone,
           whole, lost, torn, hole);
    CHECK(gone > 10 && whole > 10 && lost > 10 && torn > 10 && hole > 10);
}

TEST(sim_unsynced_bytes) {
    check_outcomes(false);
}

TEST(sim_failed_sync) {
    check_outcomes(true);
}

/* A name without a folder sync is there or not; after a rename each of both names by itself. */
TEST(sim_unsynced_names) {
    size_t counts[4] = {0};
    size_t created = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        vexi_disk *disk = NULL;
        bool made = false;
        CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
        CHECK_OK(disk->ops->make_folder(disk, "x", &made, &err));
        CHECK(made);
        CHECK_OK(disk->ops->make_folder(disk, "y", &made, &err));
        CHECK_OK(disk->ops->make_folder(disk, "y", &made, &err));
        CHECK(!made);
        CHECK_OK(disk->ops->sync_folder(disk, "", &err));
        vexi_disk_file *file = create_file(disk, "x/f");
        write_byte(file, 'a', 10);
        CHECK_OK(disk->ops->sync(file, &err));
        disk->ops->close(file);
        CHECK_OK(disk->ops->sync_folder(disk, "x", &err));
        disk->ops->close(create_file(disk, "x/unsynced"));
        CHECK_OK(disk->ops->rename(disk, "x/f", "y/f", &err));
        CHECK_OK(disk->ops->make_folder(disk, "z", &made, &err));
        file = create_file(disk, "z/synced");
        write_byte(file, 'a', 10);
        CHECK_OK(disk->ops->sync(file, &err));
        disk->ops->close(file);
        CHECK_OK(disk->ops->sync_folder(disk, "z", &err));
        vexi_disk_sim_restart(disk, seed);
        crash_result old = look(disk, "x/f");
        crash_result fresh = look(disk, "y/f");
        CHECK(!old.found || (old.size == 10 && all_bytes(old.bytes, 10, 'a')));
        CHECK(!fresh.found || (fresh.size == 10 && all_bytes(fresh.bytes, 10, 'a')));
        counts[(old.found ? 1 : 0) + (fresh.found ? 2 : 0)]++;
        created += look(disk, "x/unsynced").found;
        /* A folder whose name is lost takes along what was synced in it. */
        bool folder_there = disk->ops->sync_folder(disk, "z", NULL) == VEX_OK;
        CHECK_EQ(look(disk, "z/synced").found, folder_there);
        created += folder_there ? 1000 : 0;
        vexi_disk_destroy(disk);
    }
    for (size_t i = 0; i < 4; i++) {
        CHECK(counts[i] > 10);
    }
    CHECK(created % 1000 > 10 && created % 1000 < 190);
    CHECK(created / 1000 > 10 && created / 1000 < 190);
}

TEST(sim_statuses) {
    vexi_disk *disk = NULL;
    vexi_disk_file *lock = NULL;
    vexi_disk_file *second = NULL;
    bool made = false;
    CHECK_OK(vexi_disk_sim_create(vex_test_env(), 1, &disk, &err));
    CHECK_FAILS(VEX_NOT_FOUND, disk->ops->make_folder(disk, "a/b", &made, &err));
    CHECK_OK(disk->ops->make_folder(disk, "a", &made, &err));
    disk->ops->close(create_file(disk, "a/f"));
    CHECK_FAILS(VEX_EXISTS, disk->ops->open(disk, "a/f", VEXI_DISK_CREATE_NEW, &second, &err));
    CHECK_FAILS(VEX_INVALID, disk->ops->make_folder(disk, "a/f", &made, &err));
    CHECK_FAILS(VEX_EXISTS, disk->ops->link(disk, "a/f", "a", &err));
    CHECK_FAILS(VEX_INVALID, disk->ops->rename(disk, "a/f", "a", &err));
    CHECK_FAILS(VEX_NOT_FOUND, disk->ops->rename(disk, "a/g", "a/h", &err));
    CHECK_FAILS(VEX_NOT_FOUND, disk->ops->unlink(disk, "a", &err));
    CHECK_OK(disk->ops->link(disk, "a/f", "a/g", &err));
    CHECK_OK(disk->ops->unlink(disk, "a/f", &err));
    CHECK_EQ(entry_count(disk, "a"), 1);
    CHECK_OK(disk->ops->lock(disk, "a/lock", &lock, &err));
    CHECK_FAILS(VEX_BUSY, disk->ops->lock(disk, "a/lock", &second, &err));
    CHECK(second == NULL);
    disk->ops->close(lock);
    CHECK_OK(disk->ops->lock(disk, "a/lock", &lock, &err));
    /* A restart frees the lock; closing the stale handle does not free the new holder's. */
    CHECK_OK(disk->ops->sync_folder(disk, "", &err));
    CHECK_OK(disk->ops->sync_folder(disk, "a", &err));
    vexi_disk_sim_restart(disk, 3);
    CHECK_OK(disk->ops->lock(disk, "a/lock", &second, &err));
    disk->ops->close(lock);
    CHECK_FAILS(VEX_BUSY, disk->ops->lock(disk, "a/lock", &lock, &err));
    disk->ops->close(second);
    /* A step that fails alone is counted, and the next one works. */
    uint64_t steps = vexi_disk_sim_steps(disk);
    vexi_disk_sim_fail_at(disk, steps + 1, VEX_FULL);
    CHECK_FAILS(VEX_FULL, disk->ops->make_folder(disk, "b", &made, &err));
    CHECK(!made);
    CHECK_OK(disk->ops->make_folder(disk, "b", &made, &err));
    CHECK_EQ(vexi_disk_sim_steps(disk), steps + 2);
    vexi_disk_destroy(disk);
}

TEST_MAIN(RUN(lock_between_processes); RUN(full_disk); RUN(short_write); RUN(foreign_entries);
          RUN(roots); RUN(sim_unsynced_bytes); RUN(sim_failed_sync); RUN(sim_unsynced_names);
          RUN(sim_statuses))
