/* Counts the calls of a process that change a disk, and lets the n-th be its last, or from the n-th on be refused.
   Loaded with LD_PRELOAD; idle until armed. Writes to what is no regular file are not counted. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { IDLE, KILL, TEAR, FULL };
static int mode = IDLE;
static long limit = 0, count = 0;

void faults_arm(int wanted, long at) { mode = wanted; limit = at; count = 0; }
long faults_count(void) { return count; }

/* Say whether this call is to be refused; does not return where it is the last. `takes` says that it needs room. */
static int refused(int takes) {
    if (mode == IDLE || mode == TEAR || (mode == FULL && !takes)) return 0;
    count++;
    if (mode == KILL && count == limit) kill(getpid(), SIGKILL);
    if (mode == FULL && limit > 0 && count >= limit) { errno = ENOSPC; return 1; }
    return 0;
}

static int regular(int fd) {
    struct stat found;
    return mode != IDLE && fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
}

#define REAL(name, kind, ...) \
    static kind (*real)(__VA_ARGS__); \
    if (!real) real = (kind (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write, ssize_t, int, const void *, size_t);
    if (regular(fd)) {
        if (mode == TEAR && ++count == limit) { real(fd, data, size / 2); kill(getpid(), SIGKILL); }
        if (refused(1)) return -1;
    }
    return real(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite, ssize_t, int, const void *, size_t, off_t);
    return regular(fd) && refused(1) ? -1 : real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64, ssize_t, int, const void *, size_t, off64_t);
    return regular(fd) && refused(1) ? -1 : real(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int many) {
    REAL(writev, ssize_t, int, const struct iovec *, int);
    return regular(fd) && refused(1) ? -1 : real(fd, parts, many);
}
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags) {
    REAL(copy_file_range, ssize_t, int, off64_t *, int, off64_t *, size_t, unsigned);
    return regular(out) && refused(1) ? -1 : real(in, from, out, to, size, flags);
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    REAL(sendfile, ssize_t, int, int, off_t *, size_t);
    return regular(out) && refused(1) ? -1 : real(out, in, at, size);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) {
    REAL(sendfile64, ssize_t, int, int, off64_t *, size_t);
    return regular(out) && refused(1) ? -1 : real(out, in, at, size);
}
int ftruncate(int fd, off_t size) { REAL(ftruncate, int, int, off_t); return refused(0) ? -1 : real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64, int, int, off64_t); return refused(0) ? -1 : real(fd, size); }
int fsync(int fd) { REAL(fsync, int, int); return refused(0) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync, int, int); return refused(0) ? -1 : real(fd); }
int rename(const char *a, const char *b) {
    REAL(rename, int, const char *, const char *); return refused(1) ? -1 : real(a, b);
}
int renameat(int x, const char *a, int y, const char *b) {
    REAL(renameat, int, int, const char *, int, const char *); return refused(1) ? -1 : real(x, a, y, b);
}
int unlink(const char *a) { REAL(unlink, int, const char *); return refused(0) ? -1 : real(a); }
int unlinkat(int x, const char *a, int f) { REAL(unlinkat, int, int, const char *, int); return refused(0) ? -1 : real(x, a, f); }
int rmdir(const char *a) { REAL(rmdir, int, const char *); return refused(0) ? -1 : real(a); }
int mkdir(const char *a, mode_t m) { REAL(mkdir, int, const char *, mode_t); return refused(1) ? -1 : real(a, m); }
int mkdirat(int x, const char *a, mode_t m) {
    REAL(mkdirat, int, int, const char *, mode_t); return refused(1) ? -1 : real(x, a, m);
}
int link(const char *a, const char *b) { REAL(link, int, const char *, const char *); return refused(1) ? -1 : real(a, b); }
int linkat(int x, const char *a, int y, const char *b, int f) {
    REAL(linkat, int, int, const char *, int, const char *, int); return refused(1) ? -1 : real(x, a, y, b, f);
}
int symlink(const char *a, const char *b) { REAL(symlink, int, const char *, const char *); return refused(1) ? -1 : real(a, b); }

/* A file that is made is a change as well; one that is only opened is none. */
static int makes(int flags, const char *path) { struct stat s; return (flags & O_CREAT) && stat(path, &s) != 0; }
#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t m = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; va_end(rest); \
        REAL(name, int, const char *, int, ...); \
        return mode != IDLE && makes(flags, path) && refused(1) ? -1 : real(path, flags, m); \
    }
OPEN(open)
OPEN(open64)
