/* Directories that the keeper works in: opened safely, listed, emptied. All by descriptors: a path
 * would be looked up again each time, and another user may have put another directory there. */
#include "tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_openat2
#define SYS_openat2 437
#endif

enum { DEEPEST = 24, NAME_SIZE = 64, PASSES = 10000 };
enum { NO_CROSSING = 0x01, NO_SYMLINKS = 0x04, BENEATH = 0x08 }; /* openat2(2): RESOLVE_* */

static bool belongs_to_us(const struct stat *status) {
    return status->st_uid == geteuid() && (status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

bool is_ours(int directory) {
    struct stat status;
    return fstat(directory, &status) == 0 && S_ISDIR(status.st_mode) && belongs_to_us(&status);
}

int open_ours(int directory, const char *name, int flags, mode_t kind) {
    struct stat status;
    int fd = openat(directory, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return -1;
    if (fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) == kind && belongs_to_us(&status))
        return fd;
    close(fd);
    return -1;
}

bool is_named(int directory, const char *name, int fd) {
    struct stat named, open;
    return fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && fstat(fd, &open) == 0 &&
           named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

int open_parent(const char *path, const char **name) {
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (slash == NULL || slash[1] == '\0') return -1;
    int length = slash == path ? 1 : (int)(slash - path);
    if (snprintf(directory, sizeof directory, "%.*s", length, path) >= PATH_MAX) return -1;
    *name = slash + 1;
    return open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

bool for_each(int directory, bool (*act)(int, const char *, void *), void *data) {
    struct dirent *entry;
    bool more = true;
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = fd < 0 ? NULL : fdopendir(fd);
    if (entries == NULL) {
        if (fd >= 0) close(fd);
        return false;
    }
    while (more && (entry = readdir(entries)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            more = act(directory, entry->d_name, data);
    closedir(entries);
    return true;
}

int open_below(int directory, const char *name) {
    uint64_t how[3] = {O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0,
                       NO_CROSSING | NO_SYMLINKS | BENEATH};
    return (int)syscall(SYS_openat2, directory, name, how, sizeof how);
}

struct removal {
    int top;   /* the directory that is emptied */
    int depth; /* how far below the top we are: each level takes descriptors */
    unsigned *done; /* how many entries were removed or lifted */
};

/* Moves a directory that lies too deep to the top, under a new name; it is emptied from there. */
static bool lift(int directory, const char *name, int top) {
    static unsigned number;
    char other[NAME_SIZE];
    snprintf(other, sizeof other, ".keeper-%d-%u", (int)getpid(), number++);
    return renameat(directory, name, top, other) == 0;
}

static bool unlink_any(int directory, const char *name) {
    return unlinkat(directory, name, 0) == 0 || unlinkat(directory, name, AT_REMOVEDIR) == 0;
}

static bool remove_entry(int directory, const char *name, void *data) {
    const struct removal *at = data;
    struct removal next = {at->top, at->depth + 1, at->done};
    bool gone = unlink_any(directory, name);
    int below = gone || next.depth > DEEPEST ? -1 : open_below(directory, name);
    if (!gone && next.depth > DEEPEST) gone = lift(directory, name, at->top);
    if (below >= 0) {
        for_each(below, remove_entry, &next);
        close(below);
        gone = unlinkat(directory, name, AT_REMOVEDIR) == 0;
    }
    if (gone) ++*at->done;
    return true;
}

static bool found(int directory, const char *name, void *data) {
    (void)directory, (void)name;
    *(bool *)data = true;
    return false;
}

static bool is_empty(int directory) {
    bool something = false;
    for_each(directory, found, &something);
    return !something;
}

void empty_tree(int directory) {
    unsigned done, before;
    struct removal all = {directory, 0, &done};
    done = 0;
    /* As long as a pass removes something, lifted directories may be left. (The directory's change
     * time can't show that: it stands still between two ticks of the kernel's clock.) */
    for (int pass = 0; pass < PASSES; pass++) {
        before = done;
        for_each(directory, remove_entry, &all);
        if (done == before || is_empty(directory)) return;
    }
}
