/* Files: opened (or the shim fails), read, written whole. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_NOCTTY: we lead a session, and a terminal that we open must not become the session's own. */
int open_or_fail(const char *phase, const char *path, int flags) {
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0) fail(errno, phase, "cannot open %s", path);
    return fd;
}

int open_fifo(const char *phase, const char *path, int flags) {
    struct stat status;
    int fd = open_or_fail(phase, path, flags | O_NONBLOCK);
    if (fstat(fd, &status) < 0 || !S_ISFIFO(status.st_mode))
        fail(0, phase, "%s is not a fifo", path);
    return fd;
}

ssize_t read_file(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t n = read(fd, buffer, size - 1);
    close(fd);
    buffer[n < 0 ? 0 : n] = '\0';
    return n;
}

/* Writes a file whole or not at all: to a temporary name of our own, then rename. Returns the
 * file's descriptor, which holds a lock on the file. */
int write_whole(const char *path, const char *text) {
    char temporary[64];
    snprintf(temporary, sizeof temporary, ".%s.%d", path, (int)getpid());
    int fd = open_or_fail("files", temporary, O_WRONLY | O_CREAT | O_EXCL);
    if (!write_text(fd, text) || flock(fd, LOCK_EX) < 0 || rename(temporary, path) < 0)
        fail(errno, "files", "cannot write %s", path);
    return fd;
}

/* Reads the parent (field 4) and the start time (22) from /proc/PID/stat: man 5 proc. The name in
 * field 2 may hold spaces and parentheses, so count from the last parenthesis. */
bool read_stat(pid_t pid, pid_t *parent, unsigned long long *start_time) {
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (read_file(path, text, sizeof text) <= 0) return false;
    const char *rest = strrchr(text, ')');
    return rest != NULL && sscanf(rest + 1,
                                  " %*c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s"
                                  " %*s %*s %*s %llu",
                                  parent, start_time) == 2;
}
