/* The cgroups of a container, ended and removed by descriptors. The container may have made more
 * cgroups below its own, with names and at depths that no path can hold, and may have frozen
 * them. */
#include "groups.h"

#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

enum { LIST_SIZE = 64 * 1024, STEP_MS = 5, DEEPEST = 200 };

static void pause_step(void) {
    struct timespec step = {0, STEP_MS * 1000000L};
    nanosleep(&step, NULL);
}

/* If the hierarchy has no such file, there is nothing to set. */
static void set_control(int group, const char *name, const char *value) {
    int fd = openat(group, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (write(fd, value, strlen(value)) < 0) (void)errno; /* later steps show whether this helped */
    close(fd);
}

static void thaw(int group) {
    set_control(group, "freezer.state", "THAWED");
    set_control(group, "cgroup.freeze", "0");
}

static bool read_list(int group, char *text) {
    size_t used = 0;
    ssize_t n;
    int fd = openat(group, "cgroup.procs", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    while (used < LIST_SIZE - 1 && (n = read(fd, text + used, LIST_SIZE - 1 - used)) > 0)
        used += (size_t)n;
    close(fd);
    text[used] = '\0';
    return used > 0;
}

/* The next whole line of a list of pids; -1 at the end. A number without a newline was cut by our
 * buffer: it is part of a longer number, and would name a stranger. */
static long next_pid(char **at) {
    char *end;
    long pid = strtol(*at, &end, 10);
    if (end == *at || *end != '\n') return -1;
    *at = end + 1;
    return pid;
}

static bool listed(int group, long pid) {
    static char text[LIST_SIZE];
    char *at = text;
    if (!read_list(group, text)) return false;
    long other;
    while ((other = next_pid(&at)) >= 0)
        if (other == pid) return true;
    return false;
}

/* Opens a pidfd first, then reads the list again: a pid that passed to a stranger meanwhile isn't
 * listed. 0 stands for a process of another pid namespace. */
static void kill_listed(int group) {
    static char text[LIST_SIZE];
    char *at = text;
    set_control(group, "cgroup.kill", "1");
    if (!read_list(group, text)) return;
    for (long pid = next_pid(&at); pid >= 0; pid = next_pid(&at)) {
        int pidfd = pid == 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
        if (pidfd < 0) continue;
        if (listed(group, pid)) syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        close(pidfd);
    }
}

static void end_tree(int group, int depth);

static bool end_below(int group, const char *name, void *data) {
    int below = open_below(group, name);
    if (below < 0) return true;
    end_tree(below, *(int *)data + 1);
    close(below);
    return true;
}

/* A group stays frozen while a group above is frozen: so the upper ones come first. Groups deeper
 * than DEEPEST are ended when they are removed. */
static void end_tree(int group, int depth) {
    thaw(group);
    kill_listed(group);
    if (depth < DEEPEST) for_each(group, end_below, &depth);
}

static int open_group(const char *path) {
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

void end_group(const char *path) {
    int group = open_group(path);
    if (group < 0) return;
    end_tree(group, 0);
    close(group);
}

static bool enter_child(int group, const char *name, void *data) {
    int *child = data;
    *child = open_below(group, name);
    return *child < 0;
}

struct removal {
    int group;
    int patience_ms;
    bool removed;
};

/* Finds the group's name by its inode: a process in the group may have renamed it. */
static bool remove_if_named(int parent, const char *name, void *data) {
    struct removal *one = data;
    if (!is_named(parent, name, one->group)) return true;
    for (int waited = 0; waited < one->patience_ms && !one->removed; waited += STEP_MS) {
        one->removed = unlinkat(parent, name, AT_REMOVEDIR) == 0 || errno == ENOENT;
        if (one->removed) break;
        thaw(one->group);
        kill_listed(one->group);
        pause_step();
    }
    return false;
}

static bool remove_from(int parent, int group, int patience_ms) {
    struct removal one = {group, patience_ms, false};
    for_each(parent, remove_if_named, &one);
    return one.removed;
}

static bool is_same(int fd, const struct stat *other) {
    struct stat status;
    return fstat(fd, &status) == 0 && status.st_dev == other->st_dev &&
           status.st_ino == other->st_ino;
}

/* Goes down to a group without groups below, removes that group, and goes up again: two descriptors
 * at any depth. Never goes above the first group, whatever is renamed meanwhile: what is up there
 * isn't ours. */
void remove_group(const char *path, int patience_ms) {
    struct stat top;
    long depth = 0;
    int here = open_group(path);
    bool going = here >= 0 && fstat(here, &top) == 0;
    while (going) {
        int next = -1;
        thaw(here);
        for_each(here, enter_child, &next);
        if (next >= 0) depth++;
        else {
            next = openat(here, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            going = next >= 0 && remove_from(next, here, patience_ms) && --depth >= 0;
            going = going && (depth > 0 || is_same(next, &top));
        }
        close(here);
        here = next;
    }
    if (here >= 0) close(here);
}
