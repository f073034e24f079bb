/* Records what processes do to a store's files, for tests/powercut: preloaded (LD_PRELOAD) into each of them.
 *
 * POWER_STORE is the absolute path of the database, POWER_LOG the file that records are appended to
 * (with POWER_BARE set, without what was written). One record is one
 * write to a descriptor opened with O_APPEND, so all processes and threads share one order without a lock. A change is
 * recorded when it has been made; a sync when it begins and when it has ended, for it covers what came before its
 * begin, and counts from its end. What is about to be printed (descriptor 1) is recorded before it is.
 *
 * Nothing is remembered about descriptors: the kernel says at each call which file one is. So open, dup, fork and
 * threads need no attention. 64-bit Linux only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct header { /* recording.py reads the same; 40 bytes, then the path, then the data */
    uint32_t path_size, data_size;
    int32_t pid, tid;
    uint64_t inode;
    int64_t offset;
    char kind[8];
};

static int log_fd = -1;
static ino_t log_inode;
static const char *store;
static size_t store_size;

static void set_up(void) {
    struct stat found;
    if (log_fd >= 0 && fstat(log_fd, &found) == 0 && found.st_ino == log_inode)
        return;
    /* The first time; or a forked child has closed all descriptors, and may have opened others in their place. */
    store = getenv("POWER_STORE");
    const char *path = getenv("POWER_LOG");
    if (!store || !path)
        return;
    store_size = strlen(store);
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 500);
    syscall(SYS_close, fd);
    if (log_fd < 0 || fstat(log_fd, &found) != 0)
        abort();
    log_inode = found.st_ino;
}

static void record(char kind, const char *path, size_t path_size, ino_t inode, off_t offset, const void *data,
                   size_t size) {
    set_up();
    if (kind == 'W' && getenv("POWER_BARE"))
        size = 0;
    struct header header = {path_size, size, getpid(), (int32_t)syscall(SYS_gettid), inode, offset, {kind}};
    struct iovec parts[] = {{&header, sizeof header}, {(void *)path, path_size}, {(void *)data, size}};
    if (syscall(SYS_writev, log_fd, parts, 3) != (ssize_t)(sizeof header + path_size + size))
        abort(); /* a hole in the log would blame hueyctl for it */
}

/* Is `path` the database, or one of the files that SQLite keeps beside it? (The shared memory is made anew.) */
static int is_store(const char *path) {
    set_up();
    return store && !strncmp(path, store, store_size) && !strstr(path + store_size, "-shm");
}

/* Is `path` a folder that the database is in? */
static int is_above(const char *path) {
    set_up();
    size_t size = strlen(path);
    return store && size < store_size && !strncmp(path, store, size) && store[size] == '/';
}

/* The inode of an open file or folder of the store, and its path; 0: it is something else. */
static ino_t inode_of(int fd, char path[PATH_MAX]) {
    struct stat found;
    char link[32];
    if (fstat(fd, &found) != 0 || !(S_ISREG(found.st_mode) || S_ISDIR(found.st_mode)))
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 1);
    if (size < 0)
        return 0;
    path[size] = 0;
    return (S_ISDIR(found.st_mode) ? is_above(path) : is_store(path)) ? found.st_ino : 0;
}

static void changed(char kind, int fd, off_t offset, const void *data, size_t size) {
    int error = errno;
    char path[PATH_MAX];
    ino_t inode = inode_of(fd, path);
    if (inode)
        record(kind, path, strlen(path), inode, offset, data, size);
    errno = error;
}

ssize_t write(int fd, const void *data, size_t size) {
    set_up();
    if (fd == 1 && store)
        record('P', "", 0, 0, 0, data, size);
    ssize_t done = syscall(SYS_write, fd, data, size);
    if (done > 0 && fd > 2)
        changed('W', fd, lseek(fd, 0, SEEK_CUR) - done, data, done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    ssize_t done = syscall(SYS_pwrite64, fd, data, size, offset);
    if (done > 0)
        changed('W', fd, offset, data, done);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

int ftruncate64(int fd, off64_t size) {
    int done = syscall(SYS_ftruncate, fd, size);
    if (!done)
        changed('T', fd, size, "", 0);
    return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, long call) {
    changed('B', fd, 0, "", 0);
    int done = syscall(call, fd);
    if (!done)
        changed('S', fd, 0, "", 0);
    return done;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int unlink(const char *path) {
    int done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!done && is_store(path))
        record('U', path, strlen(path), 0, 0, "", 0);
    return done;
}

int rename(const char *from, const char *to) {
    int done = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (!done && is_store(from))
        record('R', from, strlen(from), 0, 0, to, strlen(to));
    return done;
}

int mkdir(const char *path, mode_t mode) {
    int done = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (!done && is_above(path))
        record('K', path, strlen(path), 0, 0, "", 0);
    return done;
}
