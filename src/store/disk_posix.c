/* The real disk: thin calls to the operating system, with the statuses that callers act on.
 *
 * Each function is one system call and its retries: EINTR begins the call again, a short write
 * goes on where it stopped. Sync is fdatasync, which also makes the size of a grown file durable
 * but spares the second journal write for its times. A lock is flock on an open file description,
 * so a second handle within this process meets it as another process does, and the kernel frees it
 * when the process dies however it dies; the holder's process id stands in the file for the
 * message only. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "store/disk.h"

enum {
    PARTS_PER_CALL = 64,         /* below every system's IOV_MAX */
    READ_SIZE_PER_CALL = 1 << 30 /* Linux reads at most 2 GiB at a time */
};

typedef struct posix_file {
    vexi_disk_file base;
    int fd;
} posix_file;

/* What errno means to the callers of a disk. `path` may be a whole path or a file's description. */
static vex_status fail_errno(vex_error *err, int code, const char *what, const char *path) {
    vex_status status = VEX_IO;
    switch (code) {
    case ENOENT:
    case ENOTDIR:
    case ELOOP:
        status = VEX_NOT_FOUND;
        break;
    case EEXIST:
        status = VEX_EXISTS;
        break;
    case ENOSPC:
    case EDQUOT:
        status = VEX_FULL;
        break;
    case ENOMEM:
        status = VEX_MEMORY;
        break;
    case ENAMETOOLONG:
    case EISDIR:
        status = VEX_INVALID;
        break;
    default:
        break;
    }
    char text[128];
    if (strerror_r(code, text, sizeof text) != 0) {
        snprintf(text, sizeof text, "errno %d", code);
    }
    return vexi_fail_code(err, status, code, "cannot %s %s: %s", what, path, text);
}

/* "" is the working folder, so that the parent of a relative path needs no special case above. */
static const char *folder_path(const char *path) {
    return path[0] == '\0' ? "." : path;
}

static int open_retry(const char *path, int flags) {
    int fd;
    do {
        fd = open(path, flags | O_CLOEXEC, 0666);
    } while (fd < 0 && errno == EINTR);
    return fd;
}

static vex_status file_of(vexi_disk *disk, int fd, vexi_disk_file **out, vex_error *err) {
    posix_file *file = vexi_alloc(disk->env, sizeof *file);
    if (file == NULL) {
        close(fd);
        return vexi_no_memory(err, sizeof *file);
    }
    *file = (posix_file){.base = {.disk = disk}, .fd = fd};
    *out = &file->base;
    return VEX_OK;
}

/* Open a regular file for reading; a folder of that name is no file. */
static vex_status open_regular(const char *path, int *fd_out, struct stat *info, vex_error *err) {
    /* O_NONBLOCK: a pipe of that name is refused below instead of waited for. */
    int fd = open_retry(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
        return fail_errno(err, errno, "open", path);
    }
    if (fstat(fd, info) != 0) {
        int code = errno;
        close(fd);
        return fail_errno(err, code, "examine", path);
    }
    if (!S_ISREG(info->st_mode)) {
        close(fd);
        return vexi_fail(err, VEX_NOT_FOUND, "%s is not a file", path);
    }
    *fd_out = fd;
    return VEX_OK;
}

static vex_status posix_open(vexi_disk *disk, const char *path, uint32_t flags,
                             vexi_disk_file **out, vex_error *err) {
    *out = NULL;
    if ((flags & VEXI_DISK_READ) != 0) {
        int fd = -1;
        struct stat info;
        VEX_TRY(open_regular(path, &fd, &info, err));
        return file_of(disk, fd, out, err);
    }
    int mode = O_WRONLY | O_APPEND;
    if ((flags & VEXI_DISK_CREATE_NEW) != 0) {
        mode |= O_CREAT | O_EXCL;
    }
    int fd = open_retry(path, mode);
    if (fd < 0) {
        return fail_errno(err, errno, (mode & O_CREAT) != 0 ? "create" : "open", path);
    }
    return file_of(disk, fd, out, err);
}

static void posix_close(vexi_disk_file *base) {
    posix_file *file = (posix_file *)base;
    /* Nothing is learned from close: what had to be durable was synced before. */
    close(file->fd);
    vexi_free(base->disk->env, file);
}

static vex_status posix_write(vexi_disk_file *base, const vexi_span *parts, size_t count,
                              vex_error *err) {
    posix_file *file = (posix_file *)base;
    size_t part = 0;
    size_t part_done = 0;
    for (;;) {
        struct iovec vectors[PARTS_PER_CALL];
        int vector_count = 0;
        for (size_t i = part; i < count && vector_count < PARTS_PER_CALL; i++) {
            size_t skip = i == part ? part_done : 0;
            if (parts[i].size == skip) {
                continue;
            }
            /* iovec serves reads too, hence its pointer to non-const. */
            vectors[vector_count].iov_base = (void *)(uintptr_t)(parts[i].data + skip);
            vectors[vector_count].iov_len = parts[i].size - skip;
            vector_count++;
        }
        if (vector_count == 0) {
            return VEX_OK;
        }
        ssize_t written = writev(file->fd, vectors, vector_count);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return fail_errno(err, errno, "write", "to a file");
        }
        if (written == 0) {
            return vexi_fail(err, VEX_IO, "cannot write to a file: no progress");
        }
        size_t left = (size_t)written;
        while (part < count && left >= parts[part].size - part_done) {
            left -= parts[part].size - part_done;
            part_done = 0;
            part++;
        }
        part_done += left;
    }
}

static vex_status posix_read_at(vexi_disk_file *base, uint64_t offset, uint8_t *target, size_t size,
                                vex_error *err) {
    posix_file *file = (posix_file *)base;
    if (offset > INT64_MAX || size > INT64_MAX - offset) {
        return vexi_fail(err, VEX_CORRUPT, "the file ends before byte %llu",
                         (unsigned long long)offset);
    }
    size_t done = 0;
    while (done < size) {
        size_t wanted = size - done < READ_SIZE_PER_CALL ? size - done : READ_SIZE_PER_CALL;
        ssize_t got = pread(file->fd, target + done, wanted, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return fail_errno(err, errno, "read", "a file");
        }
        if (got == 0) {
            return vexi_fail(err, VEX_CORRUPT, "the file ends at byte %llu, before byte %llu",
                             (unsigned long long)(offset + done),
                             (unsigned long long)(offset + size));
        }
        done += (size_t)got;
    }
    return VEX_OK;
}

static vex_status posix_sync(vexi_disk_file *base, vex_error *err) {
    posix_file *file = (posix_file *)base;
    int result;
    do {
        result = fdatasync(file->fd);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? VEX_OK : fail_errno(err, errno, "sync", "a file");
}

static vex_status posix_file_size(vexi_disk *disk, const char *path, uint64_t *out,
                                  int64_t *modified_us, vex_error *err) {
    (void)disk;
    struct stat info;
    if (stat(path, &info) != 0) {
        return fail_errno(err, errno, "examine", path);
    }
    if (!S_ISREG(info.st_mode)) {
        return vexi_fail(err, VEX_NOT_FOUND, "%s is not a file", path);
    }
    *out = (uint64_t)info.st_size;
    *modified_us = (int64_t)info.st_mtim.tv_sec * 1000000 + info.st_mtim.tv_nsec / 1000;
    return VEX_OK;
}

static vex_status posix_rename(vexi_disk *disk, const char *from, const char *to, vex_error *err) {
    (void)disk;
    return rename(from, to) == 0 ? VEX_OK : fail_errno(err, errno, "rename a file to", to);
}

static vex_status posix_link(vexi_disk *disk, const char *from, const char *to, vex_error *err) {
    (void)disk;
    if (link(from, to) == 0) {
        return VEX_OK;
    }
    if (errno == EPERM) {
        return vexi_fail_code(err, VEX_IO, EPERM,
                              "cannot create %s: its file system does not offer hard links", to);
    }
    return fail_errno(err, errno, "create", to);
}

static vex_status posix_unlink(vexi_disk *disk, const char *path, vex_error *err) {
    (void)disk;
    return unlink(path) == 0 ? VEX_OK : fail_errno(err, errno, "delete", path);
}

static vex_status posix_make_folder(vexi_disk *disk, const char *path, bool *made, vex_error *err) {
    (void)disk;
    *made = false;
    path = folder_path(path);
    if (mkdir(path, 0777) == 0) {
        *made = true;
        return VEX_OK;
    }
    int code = errno;
    if (code == EEXIST) {
        struct stat info;
        if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
            return VEX_OK;
        }
    }
    if (code == EEXIST || code == ENOTDIR) {
        return vexi_fail_code(err, VEX_INVALID, code,
                              "cannot make folder %s: a file stands in its place", path);
    }
    return fail_errno(err, code, "make folder", path);
}

static vex_status posix_sync_folder(vexi_disk *disk, const char *path, vex_error *err) {
    (void)disk;
    path = folder_path(path);
    int fd = open_retry(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) {
        return fail_errno(err, errno, "open folder", path);
    }
    int result;
    do {
        result = fsync(fd);
    } while (result != 0 && errno == EINTR);
    int code = errno;
    close(fd);
    return result == 0 ? VEX_OK : fail_errno(err, code, "sync folder", path);
}

/* Whether a folder's entry is a folder. A link to one is none: links may lead in circles. A link to
 * a file counts as a file; what is neither is found out when its size is asked for. */
static bool entry_is_folder(int folder, const struct dirent *entry) {
    if (entry->d_type != DT_UNKNOWN) {
        return entry->d_type == DT_DIR;
    }
    struct stat info;
    return fstatat(folder, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode);
}

static vex_status posix_list_folder(vexi_disk *disk, const char *path, vexi_arena *arena,
                                    vexi_listing *out, vex_error *err) {
    *out = (vexi_listing){0};
    path = folder_path(path);
    DIR *folder = opendir(path);
    if (folder == NULL) {
        return fail_errno(err, errno, "list folder", path);
    }
    vex_status status = VEX_OK;
    vexi_list_entry *entries = NULL;
    size_t count = 0;
    size_t capacity = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(folder);
        if (entry == NULL) {
            if (errno != 0) {
                status = fail_errno(err, errno, "list folder", path);
                goto done;
            }
            break;
        }
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        VEX_TRY_GOTO(status, done,
                     vexi_grow(disk->env, (void **)&entries, &capacity, count, count + 1,
                               sizeof *entries, err));
        char *name = vexi_arena_copy(arena, entry->d_name, strlen(entry->d_name));
        if (name == NULL) {
            status = vexi_no_memory(err, strlen(entry->d_name));
            goto done;
        }
        entries[count++] =
            (vexi_list_entry){.name = name, .is_folder = entry_is_folder(dirfd(folder), entry)};
    }
    if (count > 0) {
        vexi_list_entry *kept = vexi_arena_array(arena, count, sizeof *kept);
        if (kept == NULL) {
            status = vexi_no_memory(err, count * sizeof *kept);
            goto done;
        }
        memcpy(kept, entries, count * sizeof *kept);
        *out = (vexi_listing){.entries = kept, .count = count};
    }
done:
    closedir(folder);
    vexi_free(disk->env, entries);
    return status;
}

static vex_status posix_map(vexi_disk *disk, const char *path, vexi_mapping *out, vex_error *err) {
    (void)disk;
    *out = (vexi_mapping){0};
    int fd = -1;
    struct stat info;
    VEX_TRY(open_regular(path, &fd, &info, err));
    if (info.st_size == 0) {
        close(fd);
        return VEX_OK;
    }
    if ((uint64_t)info.st_size > SIZE_MAX) {
        close(fd);
        return vexi_fail(err, VEX_LIMIT, "%s is too large to map", path);
    }
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    int code = errno;
    close(fd);
    if (data == MAP_FAILED) {
        return fail_errno(err, code, "map", path);
    }
    *out = (vexi_mapping){.data = data, .size = (size_t)info.st_size};
    return VEX_OK;
}

static void posix_unmap(vexi_disk *disk, vexi_mapping *mapping) {
    (void)disk;
    if (mapping->data != NULL) {
        munmap((void *)(uintptr_t)mapping->data, mapping->size);
    }
    *mapping = (vexi_mapping){0};
}

/* Who holds the lock, by the number in its file; 0 when it cannot be told, as in the moment
 * between locking and writing. */
static long lock_holder(int fd) {
    char text[32] = {0};
    ssize_t got = pread(fd, text, sizeof text - 1, 0);
    if (got <= 0) {
        return 0;
    }
    long pid = strtol(text, NULL, 10);
    return pid > 0 ? pid : 0;
}

static vex_status posix_lock(vexi_disk *disk, const char *path, vexi_disk_file **out,
                             vex_error *err) {
    *out = NULL;
    int fd = open_retry(path, O_RDWR | O_CREAT);
    if (fd < 0) {
        return fail_errno(err, errno, "open lock", path);
    }
    int result;
    do {
        result = flock(fd, LOCK_EX | LOCK_NB);
    } while (result != 0 && errno == EINTR);
    if (result != 0) {
        int code = errno;
        long pid = lock_holder(fd);
        close(fd);
        if (code != EWOULDBLOCK) {
            return fail_errno(err, code, "lock", path);
        }
        if (pid == 0) {
            return vexi_fail_code(err, VEX_BUSY, code, "%s is held by another process", path);
        }
        return vexi_fail_code(err, VEX_BUSY, code, "%s is held by process %ld%s", path, pid,
                              pid == (long)getpid() ? " (this one)" : "");
    }
    /* Of fixed size, written over the old one: that needs no space on a full disk. The lock holds
     * without it, so its failure costs a message only. */
    char text[32];
    int size = snprintf(text, sizeof text, "%-20ld\n", (long)getpid());
    ssize_t written = pwrite(fd, text, (size_t)size, 0);
    (void)written;
    return file_of(disk, fd, out, err);
}

static void posix_destroy(vexi_disk *disk) {
    vexi_free(disk->env, disk);
}

static const vexi_disk_ops posix_ops = {
    .open = posix_open,
    .close = posix_close,
    .write = posix_write,
    .read_at = posix_read_at,
    .sync = posix_sync,
    .file_size = posix_file_size,
    .rename = posix_rename,
    .link = posix_link,
    .unlink = posix_unlink,
    .make_folder = posix_make_folder,
    .sync_folder = posix_sync_folder,
    .list_folder = posix_list_folder,
    .map = posix_map,
    .unmap = posix_unmap,
    .lock = posix_lock,
    .destroy = posix_destroy,
};

vex_status vexi_disk_posix_create(const vexi_env *env, vexi_disk **out, vex_error *err) {
    *out = NULL;
    vexi_disk *disk = vexi_alloc(env, sizeof *disk);
    if (disk == NULL) {
        return vexi_no_memory(err, sizeof *disk);
    }
    *disk = (vexi_disk){.ops = &posix_ops, .env = env};
    *out = disk;
    return VEX_OK;
}

void vexi_disk_destroy(vexi_disk *disk) {
    if (disk != NULL) {
        disk->ops->destroy(disk);
    }
}
