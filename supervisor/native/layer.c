/*
 * A fresh writable layer over a root file system, for one container.
 *
 * The process that becomes the runtime mounts the layer, in a mount namespace of its own: so
 * neither the host nor the shim ever sees the layer. The container's own mount namespace is a copy
 * of that one. The kernel removes the mounts when no process is left in either namespace, however
 * the processes ended.
 *
 * This happens between vfork and exec, in borrowed memory: only system calls here.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PERMISSIONS = 07777, OPTIONS_SIZE = 256, NOBODY = 65534 };
enum { BYTES_PER_FILE = 4096, LEAST_FILES = 1024 };
enum { LINES_SIZE = 16 * 1024, MAX_WORDS = 3 * 340 }; /* the kernel takes 340 lines */

static struct {
    const char *lower;      /* the directory under the layer, never written to */
    const char *target;     /* the mount point, where both are seen as one */
    bool bare;              /* without a layer: the target shows the lower one */
    long long bytes;        /* the layer's limit, or 0 for the kernel's default */
    const char *ids[2];     /* the lines of a user namespace's uid_map and gid_map, or NULL */
    const char *step, *at;  /* the step under way, and its path, for layer_failed */
    bool mapping;           /* the step maps the lower one's ids */
    pid_t mapper;           /* 0 without a mapper */
    int ask[2], answer[2];  /* pipes: from the runtime's process to the mapper and back */
} layer = {.ask = {-1, -1}, .answer = {-1, -1}};

void layer_configure(const char *spec) {
    int used = 0;
    if (sscanf(spec, "%18lld:%n", &layer.bytes, &used) != 1 || used == 0 || layer.bytes < 0 ||
        spec[used] != '/')
        fail(0, "options", "--layer takes BYTES:TARGET, not %s", spec);
    layer.target = spec + used;
}

void layer_lower(const char *path) {
    layer.lower = path;
}

void layer_target(const char *path) {
    layer.target = path;
    layer.bare = true;
}

/* Refuses lines that are too long: a number cut in half would be another id. */
static const char *whole(const char *lines) {
    if (strlen(lines) >= LINES_SIZE) fail(0, "options", "too many ids: %s", lines);
    return lines;
}

void layer_uids(const char *lines) {
    layer.ids[0] = whole(lines);
}

void layer_gids(const char *lines) {
    layer.ids[1] = whole(lines);
}

void layer_check(void) {
    if ((layer.lower == NULL) != (layer.target == NULL))
        fail(0, "options", "--lower and --layer go together, or --lower and --target");
    if (layer.bare && !idmap_wanted())
        fail(0, "options", "--target goes with --lower-uids and --lower-gids");
    if ((layer.ids[0] == NULL) != (layer.ids[1] == NULL) || (layer.ids[0] && !layer.target))
        fail(0, "options", "--uids and --gids go together, and with --layer");
    idmap_check(layer.target != NULL && layer.ids[0] == NULL);
}

void layer_failed(int error) {
    if (layer.step != NULL)
        fail(error, layer.mapping ? "idmap" : "layer", "cannot %s %s", layer.step, layer.at);
}

static void begin(const char *step, const char *at) {
    layer.step = step;
    layer.at = at;
}

/* ---- ids that only newuidmap may map ------------------------------------------------------ */

static bool run_mapper(const char *program, const char *pid, const char *lines) {
    static char text[LINES_SIZE], *words[MAX_WORDS + 3];
    size_t count = 0;
    int status;
    words[count++] = (char *)(uintptr_t)program;
    words[count++] = (char *)(uintptr_t)pid;
    snprintf(text, sizeof text, "%s", lines);
    for (char *at = text; (words[count] = strtok(at, " \n")) != NULL; at = NULL)
        if (count++ == MAX_WORDS + 2) return false;
    pid_t child = fork();
    if (child == 0) {
        execvp(program, words);
        _exit(127);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

/* newuidmap and newgidmap have to be called from outside the new namespace, so the mapper is a
 * process of its own. It reads the runtime's pid when the runtime's process is in the namespace; or
 * end of file if that process has ended, and then the mapper ends too. */
__attribute__((noreturn)) static void map_ids(void) {
    char pid[16];
    prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0L, 0L, 0L);
    close(layer.ask[1]);
    ssize_t size = read(layer.ask[0], pid, sizeof pid - 1);
    if (size <= 0) _exit(1);
    pid[size] = '\0';
    bool mapped = run_mapper("newuidmap", pid, layer.ids[0]) &&
                  run_mapper("newgidmap", pid, layer.ids[1]);
    write_text(layer.answer[1], mapped ? "mapped" : "refused");
    _exit(0);
}

/* An ordinary user may map only one id, their own. */
static bool needs_mapper(void) {
    return layer.ids[0] != NULL && (strchr(layer.ids[0], '\n') || strchr(layer.ids[1], '\n'));
}

void layer_prepare(void) {
    idmap_prepare();
    if (!needs_mapper()) return;
    if (pipe2(layer.ask, O_CLOEXEC) < 0 || pipe2(layer.answer, O_CLOEXEC) < 0)
        fail(errno, "layer", "cannot make a pipe");
    layer.mapper = fork();
    if (layer.mapper < 0) fail(errno, "fork", "cannot fork");
    if (layer.mapper == 0) map_ids();
    close_quietly(&layer.ask[0]);
    close_quietly(&layer.answer[1]);
}

void layer_let_go(void) {
    idmap_let_go();
    close_quietly(&layer.ask[1]);
    close_quietly(&layer.answer[0]);
    if (layer.mapper > 0) waitpid(layer.mapper, NULL, 0);
}

static bool ask_mapper(void) {
    char text[16];
    begin("have newuidmap and newgidmap map what /etc/subuid and /etc/subgid give us for",
          layer.target);
    snprintf(text, sizeof text, "%d", (int)getpid());
    if (!write_text(layer.ask[1], text)) return false;
    ssize_t size = read(layer.answer[0], text, sizeof text);
    errno = EACCES; /* their reason went to /dev/null */
    return size > 0 && text[0] == 'm';
}

/* ---- the mounts --------------------------------------------------------------------------- */

static bool write_map(const char *path, const char *text) {
    begin("write", path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || !write_text(fd, text)) return false;
    close(fd);
    return true;
}

static bool map_own_id(void) {
    return write_map("/proc/self/setgroups", "deny") &&
           write_map("/proc/self/uid_map", layer.ids[0]) &&
           write_map("/proc/self/gid_map", layer.ids[1]);
}

/* An ordinary user may mount only in a user namespace. The container's user namespace is made
 * inside this one: so the user who made this one is privileged in both, and can call the runtime
 * from outside. */
static bool enter_namespaces(void) {
    bool ordinary = layer.ids[0] != NULL;
    begin("make a mount namespace for", layer.target);
    if (unshare(CLONE_NEWNS | (ordinary ? CLONE_NEWUSER : 0)) < 0) return false;
    if (needs_mapper() ? !ask_mapper() : ordinary && !map_own_id()) return false;
    /* MS_SLAVE: unmounts outside take effect here too, ours have no effect outside. */
    begin("have mounts of our own for", layer.target);
    return mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) == 0;
}

/* The layer's root directory gets the owner and mode of the lower one's: that is what the container
 * sees. In an ordinary user's namespace an owner without an id there appears as the overflow user:
 * then root becomes the owner. */
static bool make_directories(int fd, const struct stat *lower) {
    bool ordinary = layer.ids[0] != NULL;
    uid_t uid = ordinary && lower->st_uid == NOBODY ? 0 : lower->st_uid;
    gid_t gid = ordinary && lower->st_gid == NOBODY ? 0 : lower->st_gid;
    begin("make directories in the layer at", layer.target);
    return mkdirat(fd, "work", 0700) == 0 && mkdirat(fd, "upper", 0700) == 0 &&
           fchownat(fd, "upper", uid, gid, 0) == 0 &&
           fchmodat(fd, "upper", lower->st_mode & PERMISSIONS, 0) == 0;
}

/* An overlay doesn't take a directory of a detached mount: so the mount is attached at the
 * target. */
static int open_mapped(void) {
    layer.mapping = true;
    begin("show with the ids of the container", layer.lower);
    int fd = idmap_open(layer.lower);
    if (fd < 0) return -1;
    layer.mapping = false;
    begin("mount the root file system at", layer.target);
    return idmap_mount(fd, layer.target) ? fd : -1;
}

static int open_lower(void) {
    if (idmap_wanted()) return open_mapped();
    begin("open the root file system", layer.lower);
    return open(layer.lower, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* Mounts the overlay. The directories are given as descriptors: in a path, colons, commas and
 * backslashes would need escapes, for which each kernel has rules of its own, and the container
 * could read where the path lies on the host. A file system in memory needs no clean-up, and the
 * container pays for its pages. */
static bool mount_layer(void) {
    char options[OPTIONS_SIZE];
    struct stat status;
    int lower = open_lower();
    if (lower < 0 || layer.bare) return lower >= 0;
    if (fstat(lower, &status) < 0) return false;
    begin("mount a tmpfs at", layer.target);
    long long files = layer.bytes / BYTES_PER_FILE;
    if (files < LEAST_FILES) files = LEAST_FILES; /* an empty file takes none of the bytes */
    snprintf(options, sizeof options, "mode=0700,size=%lld,nr_inodes=%lld", layer.bytes, files);
    if (layer.bytes == 0) strchr(options, ',')[0] = '\0'; /* the kernel bounds both by memory */
    if (mount("layer", layer.target, "tmpfs", 0, options) < 0) return false;
    int top = open(layer.target, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top < 0 || !make_directories(top, &status)) return false;
    begin("mount an overlay at", layer.target);
    /* With userxattr, renaming a directory of the lower one gives EXDEV. */
    snprintf(options, sizeof options,
             "lowerdir=/proc/self/fd/%d,upperdir=/proc/self/fd/%d/upper,"
             "workdir=/proc/self/fd/%d/work,%s",
             lower, top, top, layer.ids[0] == NULL ? "redirect_dir=on" : "userxattr");
    return mount("overlay", layer.target, "overlay", 0, options) == 0;
}

int layer_mount(void) {
    if (layer.target == NULL) return 0;
    if (!enter_namespaces() || !mount_layer()) return errno;
    layer.step = NULL;
    return 0;
}
