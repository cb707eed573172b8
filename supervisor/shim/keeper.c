/*
 * supervisor-keeper: what a leashed supervisor leaves behind is removed by this.
 *
 * It waits until its supervisor lets go of the leash, however that came about, then until the
 * shims have gone (each one kills its own process), and works off the `cleanup` file of every
 * container directory below the root. A supervisor that closes in good order leaves nothing to
 * do. The format of `cleanup` is in docs/shim-protocol.md.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { MAX_WORDS = 256, CLEANUP_SIZE = 64 * 1024, STEP_MS = 5, PATIENCE_MS = 10000 };

static void pause_step(void) {
    struct timespec step = {0, STEP_MS * 1000000L};
    nanosleep(&step, NULL);
}

static ssize_t read_file(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    size_t used = 0;
    ssize_t n;
    while (used < size - 1 && (n = read(fd, buffer + used, size - 1 - used)) > 0) used += (size_t)n;
    close(fd);
    buffer[used] = '\0';
    return (ssize_t)used;
}

/* ---- waiting for whoever is still at work ------------------------------------------------ */

/* Takes the lock and keeps it until we end, or gives up: a stuck holder must not keep the rest. */
static void await_lock(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    for (int waited = 0; fd >= 0 && waited < PATIENCE_MS; waited += STEP_MS) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0) return;
        pause_step();
    }
    if (fd >= 0) close(fd);
}

static void await_shims(const char *container) {
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *directory = opendir(container);
    if (directory == NULL) return;
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (snprintf(path, sizeof path, "%s/%s/shim", container, entry->d_name) < (int)sizeof path) await_lock(path);
    }
    closedir(directory);
}

/* ---- the verbs of a cleanup file --------------------------------------------------------- */

static void run_command(char **words) {
    pid_t child = fork();
    if (child == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execv(words[0], words);
        _exit(127);
    }
    for (int waited = 0; child > 0 && waited < PATIENCE_MS; waited += STEP_MS) {
        if (waitpid(child, NULL, WNOHANG) != 0) return;
        pause_step();
    }
    if (child > 0) kill(child, SIGKILL);
}

static bool listed(const char *procs, pid_t pid) {
    char text[CLEANUP_SIZE];
    if (read_file(procs, text, sizeof text) <= 0) return false;
    char *end;
    for (char *at = text; *at != '\0'; at = end) {
        if (strtol(at, &end, 10) == pid) return true;
        if (end == at) return false;
        while (*end == '\n') end++;
    }
    return false;
}

/* A pidfd first, then the list once more: a pid that went to a stranger meanwhile isn't listed. */
static void kill_listed(const char *procs) {
    char text[CLEANUP_SIZE], *end;
    if (read_file(procs, text, sizeof text) <= 0) return;
    for (char *at = text; *at != '\0'; at = end) {
        pid_t pid = (pid_t)strtol(at, &end, 10);
        if (end == at || pid <= 0) return;
        int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (pidfd >= 0 && listed(procs, pid)) syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        if (pidfd >= 0) close(pidfd);
        while (*end == '\n') end++;
    }
}

static int empty_group(const char *path, const struct stat *status, int type, struct FTW *where) {
    char procs[PATH_MAX];
    (void)status, (void)where;
    if (type != FTW_DP || snprintf(procs, sizeof procs, "%s/cgroup.procs", path) >= (int)sizeof procs) return 0;
    for (int waited = 0; waited < PATIENCE_MS; waited += STEP_MS) {
        if (rmdir(path) == 0 || errno == ENOENT) return 0;
        kill_listed(procs);
        pause_step();
    }
    return 0;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status, (void)type, (void)where;
    remove(path);
    return 0;
}

/* A shim may just be writing its first file into a directory that we remove: once more, then. */
static void remove_tree(const char *path) {
    for (int tries = 0; tries < 100; tries++) {
        nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
        if (access(path, F_OK) != 0) return;
        pause_step();
    }
}

static void do_record(char **words) {
    if (strcmp(words[0], "run") == 0) run_command(words + 1);
    else if (words[1] == NULL) return;
    else if (strcmp(words[0], "cgroup") == 0) nftw(words[1], empty_group, 16, FTW_DEPTH | FTW_PHYS);
    else if (strcmp(words[0], "remove") == 0) remove_tree(words[1]);
}

/* Words end with a NUL, a record with an empty word. */
static void work_off(char *text, size_t size) {
    char *words[MAX_WORDS + 1];
    size_t count = 0;
    for (char *at = text; at < text + size; at += strlen(at) + 1) {
        if (*at != '\0' && count < MAX_WORDS) {
            words[count++] = at;
            continue;
        }
        words[count] = NULL;
        if (count > 0) do_record(words);
        count = 0;
    }
}

/* ---- the root ---------------------------------------------------------------------------- */

/* Reads the list before it waits, since a clean-up by others may take the file away. */
static void clean_container(const char *container) {
    static char text[CLEANUP_SIZE];
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/cleanup", container) >= (int)sizeof path) return;
    ssize_t size = read_file(path, text, sizeof text);
    if (size <= 0) return;
    await_shims(container);
    if (snprintf(path, sizeof path, "%s/lock", container) < (int)sizeof path) await_lock(path);
    work_off(text, (size_t)size);
    remove_tree(container);
}

static void clean_root(const char *root) {
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *directory = opendir(root);
    if (directory == NULL) return;
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (snprintf(path, sizeof path, "%s/%s", root, entry->d_name) < (int)sizeof path) clean_container(path);
    }
    closedir(directory);
}

static void keep_only(int first, int second) {
    unsigned low = (unsigned)(first < second ? first : second), high = (unsigned)(first < second ? second : first);
    if (low > 3) syscall(SYS_close_range, 3, low - 1, 0);
    if (high > low + 1) syscall(SYS_close_range, low + 1, high - 1, 0);
    syscall(SYS_close_range, high + 1, ~0U, 0);
    fcntl(first, F_SETFD, FD_CLOEXEC);
    fcntl(second, F_SETFD, FD_CLOEXEC);
}

int main(int argc, char **argv) {
    int pipe_fd, pidfd;
    bool remove_root = argc == 4 && strcmp(argv[3], "remove-root") == 0;
    if (argc < 3 || (argc == 4 && !remove_root) || sscanf(argv[1], "%d:%d", &pipe_fd, &pidfd) != 2) {
        fprintf(stderr, "usage: supervisor-keeper PIPE:PIDFD ROOT [remove-root]\n");
        return 2;
    }
    sigset_t all;
    sigfillset(&all);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &all, NULL); /* a service manager's SIGTERM to all must not end it first */
    keep_only(pipe_fd, pidfd);
    if (chdir("/") < 0) return 1; /* it must not keep a file system busy */
    struct pollfd leash[2] = {{.fd = pipe_fd, .events = 0}, {.fd = pidfd, .events = POLLIN}};
    while (poll(leash, 2, -1) <= 0) continue;
    clean_root(argv[2]);
    if (remove_root) remove_tree(argv[2]);
    return 0;
}
