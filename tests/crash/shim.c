/* Stands between a process and the C library (LD_PRELOAD). Below one folder, every call that changes the disk is
   counted, and the process can be killed before one of them; or only writes are counted, and it can be killed after
   half of the bytes of one. The calls can be recorded. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define PATH 4096
#define REAL(name, ret, ...) static ret (*real)(__VA_ARGS__); if (!real) real = (ret (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static char root[PATH];
static long count, deadly;
static int torn, recording = -1;

void rig_arm(const char *folder, long at, int half, int log) {
    snprintf(root, PATH, "%s", folder);
    count = 0; deadly = at; torn = half; recording = log;
}

long rig_count(void) { return count; }

static ssize_t plain_write(int fd, const void *data, size_t n) {
    REAL("write", ssize_t, int, const void *, size_t);
    return real(fd, data, n);
}

/* One line, fields between tabs, then the bytes. */
static void record(const char *op, const char *a, const char *b, long long offset, const void *data, size_t n) {
    char line[2 * PATH + 128];
    if (recording < 0) return;
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%lld\t%zu\n", op, a, b, offset, data ? n : 0);
    plain_write(recording, line, length);
    for (size_t done = 0; data && done < n;) done += plain_write(recording, (const char *)data + done, n - done);
}

void rig_mark(const char *text) { record("mark", text, "", 0, NULL, 0); }

static int inside(const char *full) {
    size_t n = strlen(root);
    return strncmp(full, root, n) == 0 && (full[n] == '/' || full[n] == 0);
}

/* Absolute path of `path` seen from an open folder; whether it lies in what is watched. */
static int at(int folder, const char *path, char *full) {
    char link[64];
    if (!root[0]) return 0;
    if (path[0] == '/') snprintf(full, PATH, "%s", path);
    else {
        if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = readlink(link, full, PATH - 1);
        if (n < 0) return 0;
        snprintf(full + n, PATH - n, path[0] ? "/%s" : "%s", path);
    }
    return inside(full);
}

static int of(int fd, char *full) {
    char link[64];
    if (!root[0] || fd == recording) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, full, PATH - 1);
    if (n < 0) return 0;
    full[n] = 0;
    return inside(full);
}

static int dies(void) { return !torn && ++count == deadly; }
static int dies_writing(void) { return ++count == deadly; }
static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

static int opened(int folder, const char *path, int flags, mode_t mode) {
    REAL("openat64", int, int, const char *, int, ...);
    char full[PATH];
    int watched = (flags & (O_CREAT | O_TRUNC)) && at(folder, path, full);
    if (watched && dies()) die();
    int fresh = watched && faccessat(folder, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    int fd = real(folder, path, flags, mode);
    if (watched && fd >= 0) record(fresh ? "create" : flags & O_TRUNC ? "truncate" : "open", full, "", 0, NULL, 0);
    return fd;
}

#define MODE mode_t mode = 0; if (flags & O_CREAT) { va_list v; va_start(v, flags); mode = va_arg(v, int); va_end(v); }
int open(const char *p, int flags, ...) { MODE return opened(AT_FDCWD, p, flags, mode); }
int open64(const char *p, int flags, ...) { MODE return opened(AT_FDCWD, p, flags, mode); }
int openat(int d, const char *p, int flags, ...) { MODE return opened(d, p, flags, mode); }
int openat64(int d, const char *p, int flags, ...) { MODE return opened(d, p, flags, mode); }

ssize_t write(int fd, const void *data, size_t n) {
    char full[PATH];
    if (!of(fd, full)) return plain_write(fd, data, n);
    if (dies_writing()) { if (torn) plain_write(fd, data, n / 2); die(); }
    long long offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = plain_write(fd, data, n);
    if (done > 0) record("write", full, "", offset, data, done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) {
    REAL("pwrite64", ssize_t, int, const void *, size_t, off64_t);
    char full[PATH];
    if (!of(fd, full)) return real(fd, data, n, offset);
    if (dies_writing()) { if (torn) real(fd, data, n / 2, offset); die(); }
    ssize_t done = real(fd, data, n, offset);
    if (done > 0) record("write", full, "", offset, data, done);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) { return pwrite64(fd, data, n, offset); }

/* The others: die before, do, record what succeeded. */
#define CALL(watch, op, a, b, offset, done) \
    int watched = (watch); if (watched && dies()) die(); \
    int result = (done); if (watched && result == 0) record(op, a, b, offset, NULL, 0); return result

#define ON_FILE(name, op, arguments, call, offset, ...) int name arguments { \
    REAL(#name, int, __VA_ARGS__); char full[PATH]; CALL(of(fd, full), op, full, "", offset, call); }
ON_FILE(fsync, "sync", (int fd), real(fd), 0, int)
ON_FILE(fdatasync, "sync", (int fd), real(fd), 0, int)
ON_FILE(ftruncate64, "truncate", (int fd, off64_t n), real(fd, n), n, int, off64_t)
ON_FILE(fchmod, "chmod", (int fd, mode_t mode), real(fd, mode), mode, int, mode_t)
int ftruncate(int fd, off_t n) { return ftruncate64(fd, n); }

#define ON_PATH(name, op, arguments, call, folder, mode, ...) int name arguments { \
    REAL(#name, int, __VA_ARGS__); char full[PATH]; CALL(at(folder, p, full), op, full, "", mode, call); }
ON_PATH(unlink, "unlink", (const char *p), real(p), AT_FDCWD, 0, const char *)
ON_PATH(unlinkat, "unlink", (int d, const char *p, int flags), real(d, p, flags), d, 0, int, const char *, int)
ON_PATH(rmdir, "unlink", (const char *p), real(p), AT_FDCWD, 0, const char *)
ON_PATH(mkdir, "mkdir", (const char *p, mode_t m), real(p, m), AT_FDCWD, m, const char *, mode_t)
ON_PATH(mkdirat, "mkdir", (int d, const char *p, mode_t m), real(d, p, m), d, m, int, const char *, mode_t)
ON_PATH(chmod, "chmod", (const char *p, mode_t m), real(p, m), AT_FDCWD, m, const char *, mode_t)
ON_PATH(fchmodat, "chmod", (int d, const char *p, mode_t m, int f), real(d, p, m, f), d, m, int, const char *, mode_t, int)

#define ON_TWO(name, op, arguments, call, from, to, ...) int name arguments { \
    REAL(#name, int, __VA_ARGS__); char full[PATH], new[PATH]; \
    CALL(at(to, q, new) && at(from, p, full), op, full, new, 0, call); }
ON_TWO(link, "link", (const char *p, const char *q), real(p, q), AT_FDCWD, AT_FDCWD, const char *, const char *)
ON_TWO(linkat, "link", (int d, const char *p, int e, const char *q, int f), real(d, p, e, q, f), d, e,
       int, const char *, int, const char *, int)
ON_TWO(rename, "rename", (const char *p, const char *q), real(p, q), AT_FDCWD, AT_FDCWD, const char *, const char *)
ON_TWO(renameat, "rename", (int d, const char *p, int e, const char *q), real(d, p, e, q), d, e,
       int, const char *, int, const char *)
ON_TWO(renameat2, "rename", (int d, const char *p, int e, const char *q, unsigned f), real(d, p, e, q, f), d, e,
       int, const char *, int, const char *, unsigned)
