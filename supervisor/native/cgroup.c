/* Cgroups of the shim's and the keeper's own: entered and left. A service manager ends a program by
 * killing the program's whole cgroup. In another cgroup, beside those of the containers, a shim and
 * a keeper live on and do their work. */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST = 32, DEEPEST = 64, GROUP_MODE = 0755, TRIES = 10 };

static const char *groups[MOST]; /* cgroup.procs files, the caller's words */
static size_t count;

bool cgroup_add(const char *procs) {
    if (count == MOST) return false;
    groups[count++] = procs;
    return true;
}

size_t cgroup_count(void) {
    return count;
}

const char *cgroup_name(size_t number) {
    return groups[number];
}

/* In cgroup.procs, 0 stands for the writing process. */
static int enter(int directory, const char *procs) {
    int fd = openat(directory, procs, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    int error = write(fd, "0", 1) == 1 ? 0 : errno;
    close(fd);
    return error;
}

static bool directory_of(const char *procs, char directory[PATH_MAX]) {
    const char *slash = strrchr(procs, '/');
    return slash != NULL && slash > procs &&
           snprintf(directory, PATH_MAX, "%.*s", (int)(slash - procs), procs) < PATH_MAX;
}

/* A closing supervisor removes an empty group, while we may be about to enter: then make the group
 * again. */
int cgroup_enter(size_t number) {
    char directory[PATH_MAX];
    int error = enter(AT_FDCWD, groups[number]);
    if ((error == ENOENT || error == ENODEV) && directory_of(groups[number], directory) &&
        (mkdir(directory, GROUP_MODE) == 0 || errno == EEXIST))
        error = enter(AT_FDCWD, groups[number]);
    return error;
}

/* Goes up to the first group that takes us: on version 2 a group that hands its controllers on
 * takes no process. */
static void climb(const char *directory) {
    int here = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int level = 0; here >= 0 && level < DEEPEST; level++) {
        int above = openat(here, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(here);
        here = above;
        if (here >= 0 && enter(here, "cgroup.procs") == 0) break;
    }
    if (here >= 0) close(here);
}

void cgroup_leave(void) {
    char directory[PATH_MAX];
    for (size_t i = 0; i < count; i++) {
        if (!directory_of(groups[i], directory)) continue;
        climb(directory);
        /* a process that has just ended keeps the group busy for a moment */
        for (int tries = 0; tries < TRIES && rmdir(directory) < 0 && errno == EBUSY; tries++)
            poll(NULL, 0, 1);
    }
}
