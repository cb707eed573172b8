/*
 * A root file system, mounted with the ids of the container's user namespace.
 *
 * On disk the files belong to root and other users of the image. In a user namespace these ids are
 * other ids outside: unmapped, all files would seem to belong to the overflow user. So the mount
 * gets the namespace's ids (MOUNT_ATTR_IDMAP, Linux 5.12); the files stay as they are.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The numbers are the same on all architectures; older C libraries lack them. */
#ifndef SYS_open_tree
#define SYS_open_tree 428
#endif
#ifndef SYS_move_mount
#define SYS_move_mount 429
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

enum { CLONE_TREE = 1, MOVE_FROM_DESCRIPTOR = 4, SET_IDS = 0x00100000 };

struct attributes { /* struct mount_attr */
    uint64_t set, clear, propagation, userns_fd;
};

static struct {
    const char *ids[2]; /* the lines of uid_map and gid_map, or NULL */
    int userns;         /* a user namespace with these ids, and no process */
} idmap = {.userns = -1};

void idmap_uids(const char *lines) {
    idmap.ids[0] = lines;
}

void idmap_gids(const char *lines) {
    idmap.ids[1] = lines;
}

bool idmap_wanted(void) {
    return idmap.ids[0] != NULL;
}

void idmap_check(bool rooted) {
    if ((idmap.ids[0] == NULL) != (idmap.ids[1] == NULL) || (idmap_wanted() && !rooted))
        fail(0, "options", "--lower-uids and --lower-gids go together, and with --lower");
}

/* Runs in a process that exists only to make the namespace, and ends when its pipe is closed. */
__attribute__((noreturn)) static void be_in_it(const int *told, const int *asked) {
    char byte;
    prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0L, 0L, 0L);
    close(asked[1]);
    if (unshare(CLONE_NEWUSER) < 0) _exit(errno);
    (void)!write(told[1], "", 1);
    (void)!read(asked[0], &byte, 1);
    _exit(0);
}

static void write_ids(pid_t pid, const char *file, const char *lines) {
    char path[32];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || !write_text(fd, lines)) fail(errno, "idmap", "cannot map the ids %s", lines);
    close(fd);
}

/* Makes the user namespace. A descriptor keeps the namespace alive, so its process may end at
 * once. */
void idmap_prepare(void) {
    char path[32], byte;
    int told[2], asked[2], status;
    if (!idmap_wanted()) return;
    if (pipe2(told, O_CLOEXEC) < 0 || pipe2(asked, O_CLOEXEC) < 0)
        fail(errno, "idmap", "cannot make a pipe");
    pid_t child = fork();
    if (child < 0) fail(errno, "fork", "cannot fork");
    if (child == 0) be_in_it(told, asked);
    close(told[1]);
    if (read(told[0], &byte, 1) != 1) {
        waitpid(child, &status, 0);
        fail(WIFEXITED(status) ? WEXITSTATUS(status) : EINTR, "idmap",
             "cannot make a user namespace");
    }
    write_ids(child, "uid_map", idmap.ids[0]);
    write_ids(child, "gid_map", idmap.ids[1]);
    snprintf(path, sizeof path, "/proc/%d/ns/user", (int)child);
    idmap.userns = open_or_fail("idmap", path, O_RDONLY);
    close(asked[1]);
    waitpid(child, NULL, 0);
    close(told[0]);
    close(asked[0]);
}

void idmap_let_go(void) {
    close_quietly(&idmap.userns);
}

/* Makes a detached mount with the ids. Mounts below the path are left out: they may not be
 * mappable, and don't belong to the image. */
int idmap_open(const char *path) {
    struct attributes ids = {.set = SET_IDS, .userns_fd = (uint64_t)idmap.userns};
    long fd = syscall(SYS_open_tree, AT_FDCWD, path, CLONE_TREE | O_CLOEXEC);
    if (fd < 0) return -1;
    long done = syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &ids, sizeof ids);
    return done < 0 ? -1 : (int)fd;
}

bool idmap_mount(int fd, const char *target) {
    return syscall(SYS_move_mount, fd, "", AT_FDCWD, target, MOVE_FROM_DESCRIPTOR) == 0;
}
