/*
 * supervisor-keeper: what a leashed supervisor leaves behind is removed by this.
 *
 * It waits until its supervisor lets go of the leash, however that came about, then until the
 * shims have gone (each one kills its own process), and works off the `cleanup` file of every
 * container directory below the root. A supervisor that closes in good order leaves nothing to
 * do. The format of `cleanup` is in docs/shim-protocol.md.
 */
#include "cgroup.h"
#include "owned.h"

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

#ifndef PATIENCE_MS /* the tests have less */
#define PATIENCE_MS 10000
#endif

enum { MAX_WORDS = 256, FILE_SIZE = 64 * 1024, STEP_MS = 5 };
enum { LAST_SIGNAL = 64, WALK_DESCRIPTORS = 16 };

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

static bool join(char *path, const char *directory, const char *name) {
    return snprintf(path, PATH_MAX, "%s/%s", directory, name) < PATH_MAX;
}

/* Calls `act` with the path of every entry of a directory. */
static void for_each(const char *path, void (*act)(const char *path)) {
    char entry_path[PATH_MAX];
    struct dirent *entry;
    DIR *directory = opendir(path);
    if (directory == NULL) return;
    while ((entry = readdir(directory)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            join(entry_path, path, entry->d_name))
            act(entry_path);
    closedir(directory);
}

/* ---- waiting for whoever is still at work ------------------------------------------------ */

/* Takes the lock and keeps it, or gives up: there is one patience for all of them, so that stuck
 * holders don't keep the rest waiting. False too if somebody removed or replaced the file. */
static bool await_lock(const char *path) {
    static int patience_ms = PATIENCE_MS;
    struct stat locked, named;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    for (; flock(fd, LOCK_EX | LOCK_NB) < 0; patience_ms -= STEP_MS) {
        if (patience_ms <= 0) return false;
        pause_step();
    }
    return fstat(fd, &locked) == 0 && stat(path, &named) == 0 && locked.st_dev == named.st_dev &&
           locked.st_ino == named.st_ino;
}

static void await_shim(const char *process) {
    char path[PATH_MAX];
    if (join(path, process, "shim")) await_lock(path);
}

/* ---- the verbs of a cleanup file --------------------------------------------------------- */

/* Dispositions go by system call: C libraries leave out signals that they keep for themselves. */
static void execute(char **words) {
    static const unsigned long fallback[8]; /* the kernel's sigaction: SIG_DFL, no flags, no mask */
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number <= LAST_SIGNAL; number++)
        syscall(SYS_rt_sigaction, number, fallback, NULL, 8UL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(words[0], words);
    _exit(127);
}

static void run_command(char **words) {
    pid_t child = words[0] == NULL ? -1 : fork();
    if (child == 0) execute(words);
    for (int waited = 0; child > 0 && waited < 2 * PATIENCE_MS; waited += STEP_MS) {
        if (waitpid(child, NULL, WNOHANG) != 0) return;
        if (waited == PATIENCE_MS) kill(child, SIGKILL);
        pause_step();
    }
}

/* DIRECTORY WORDS COMMAND...: where a runtime's root is shared, its id may be somebody else's. */
static void run_owned(char **words) {
    if (words[0] != NULL && words[1] != NULL && is_owned(words[0], words[1]))
        run_command(words + 2);
}

/* The next whole line of a list of pids; -1 at its end. A number without a newline was cut by
 * our buffer: it is part of another one, and names a stranger. */
static long next_pid(char **at) {
    char *end;
    long pid = strtol(*at, &end, 10);
    if (end == *at || *end != '\n') return -1;
    *at = end + 1;
    return pid;
}

static bool listed(const char *procs, long pid) {
    char text[FILE_SIZE], *at = text;
    if (read_file(procs, text, sizeof text) <= 0) return false;
    long other;
    while ((other = next_pid(&at)) >= 0)
        if (other == pid) return true;
    return false;
}

/* A pidfd first, then the list once more: a pid that went to a stranger meanwhile isn't listed.
 * 0 stands for a process of another pid namespace. */
static void kill_listed(const char *procs) {
    char text[FILE_SIZE], *at = text;
    if (read_file(procs, text, sizeof text) <= 0) return;
    for (long pid = next_pid(&at); pid >= 0; pid = next_pid(&at)) {
        int pidfd = pid == 0 ? -1 : (int)syscall(SYS_pidfd_open, pid, 0);
        if (pidfd < 0) continue;
        if (listed(procs, pid)) syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        close(pidfd);
    }
}

static int empty_group(const char *path, const struct stat *status, int type, struct FTW *where) {
    char procs[PATH_MAX];
    (void)status, (void)where;
    if (type != FTW_DP || !join(procs, path, "cgroup.procs")) return 0;
    for (int waited = 0; waited < PATIENCE_MS; waited += STEP_MS) {
        if (rmdir(path) == 0 || errno == ENOENT) return 0;
        kill_listed(procs);
        pause_step();
    }
    return 0;
}

static void set_control(const char *group, const char *name, const char *value) {
    char path[PATH_MAX];
    int fd = join(path, group, name) ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    if (write(fd, value, strlen(value)) < 0) (void)errno; /* then it stays frozen: others follow */
    close(fd);
}

static int thaw_group(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status, (void)where;
    if (type != FTW_D) return 0;
    set_control(path, "freezer.state", "THAWED");
    set_control(path, "cgroup.freeze", "0");
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
        nftw(path, remove_entry, WALK_DESCRIPTORS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
        if (access(path, F_OK) != 0) return;
        pause_step();
    }
}

/* On version 1 a frozen process can't even be killed. Its shim, which waits for its end, would
 * keep us waiting: so this comes before anything else. */
static void thaw(char **words) {
    if (strcmp(words[0], "cgroup") == 0 && words[1] != NULL)
        nftw(words[1], thaw_group, WALK_DESCRIPTORS, FTW_PHYS);
}

static void clean(char **words) {
    if (strcmp(words[0], "run") == 0) run_command(words + 1);
    else if (strcmp(words[0], "owned") == 0) run_owned(words + 1);
    else if (words[1] == NULL) return;
    else if (strcmp(words[0], "cgroup") == 0)
        nftw(words[1], empty_group, WALK_DESCRIPTORS, FTW_DEPTH | FTW_PHYS);
    else if (strcmp(words[0], "remove") == 0) remove_tree(words[1]);
}

/* Words end with a NUL, a record with an empty word. One that is too long or cut is left out:
 * half a command is another command. */
static void work_off(char *text, size_t size, void (*act)(char **words)) {
    char *words[MAX_WORDS + 1];
    size_t count = 0;
    for (char *at = text; at < text + size; at += strlen(at) + 1) {
        if (*at != '\0') {
            if (count < MAX_WORDS) words[count] = at;
            count++;
            continue;
        }
        if (count > 0 && count <= MAX_WORDS) {
            words[count] = NULL;
            act(words);
        }
        count = 0;
    }
}

/* ---- the root ---------------------------------------------------------------------------- */

static bool root_is_ours; /* nobody else ever opens it: it goes as a whole */

/* Whether nobody else has a say in a container: another supervisor may have adopted it, or another
 * one's killed clean-up may still be under way. */
static bool take_container(const char *container) {
    char path[PATH_MAX];
    return (join(path, container, "lock") && await_lock(path)) || root_is_ours;
}

/* What was being made or removed when the supervisor died. Nothing in it runs any more: its list,
 * if it has one, may name a container that was made again since. One that is being made by
 * somebody else has its lock held, or is still empty, and its maker makes it again. */
static bool sweep_temporary(const char *path) {
    char lock[PATH_MAX];
    const char *name = strrchr(path, '/') + 1;
    if (strncmp(name, ".deleted-", 9) == 0) {
        remove_tree(path);
        return true;
    }
    if (strncmp(name, ".new-", 5) != 0) return false;
    if (rmdir(path) == 0 || !join(lock, path, "lock")) return true;
    if (access(lock, F_OK) != 0 || await_lock(lock)) remove_tree(path);
    return true;
}

/* All descriptors that are opened here lie above the first free one: they are closed together at
 * the end, however many there were. */
static void clean_container(const char *container) {
    static char text[FILE_SIZE];
    char path[PATH_MAX];
    if (sweep_temporary(container)) return;
    ssize_t size = join(path, container, "cleanup") ? read_file(path, text, sizeof text) : -1;
    if (size <= 0) return;
    int first_free = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (take_container(container)) {
        work_off(text, (size_t)size, thaw);
        for_each(container, await_shim);
        work_off(text, (size_t)size, clean);
        remove_tree(container);
    }
    if (first_free >= 0) syscall(SYS_close_range, (unsigned)first_free, ~0U, 0);
}

/* Our own standard streams are /dev/null already. */
static void keep_only(unsigned first, unsigned second) {
    unsigned low = first < second ? first : second, high = first < second ? second : first;
    if (low > STDERR_FILENO + 1) syscall(SYS_close_range, STDERR_FILENO + 1, low - 1, 0);
    if (high > low + 1) syscall(SYS_close_range, low + 1, high - 1, 0);
    syscall(SYS_close_range, high + 1, ~0U, 0);
    fcntl((int)low, F_SETFD, FD_CLOEXEC);
    fcntl((int)high, F_SETFD, FD_CLOEXEC);
}

/* Takes the words `--cgroup PROCS` from the end of the command line; returns how many are left. */
static int take_cgroups(int argc, char **argv) {
    while (argc > 4 && strcmp(argv[argc - 2], "--cgroup") == 0 && cgroup_add(argv[argc - 1]))
        argc -= 2;
    return argc;
}

int main(int argc, char **argv) {
    int pipe_fd, pidfd;
    argc = take_cgroups(argc, argv);
    root_is_ours = argc == 4 && strcmp(argv[3], "remove-root") == 0;
    if (argc < 3 || argc > 4 || (argc == 4 && !root_is_ours) ||
        sscanf(argv[1], "%9d:%9d", &pipe_fd, &pidfd) != 2 || pipe_fd <= STDERR_FILENO ||
        pidfd <= STDERR_FILENO) {
        fprintf(stderr, "usage: supervisor-keeper PIPE:PIDFD ROOT [remove-root] "
                        "[--cgroup PROCS]...\n");
        return 2;
    }
    sigset_t all;
    memset(&all, 0xff, sizeof all); /* also those that sigfillset leaves out */
    signal(SIGCHLD, SIG_DFL); /* inherited as ignored, a child's pid could pass to a stranger */
    sigprocmask(SIG_SETMASK, &all, NULL); /* a service manager's SIGTERM to all must not end it */
    keep_only((unsigned)pipe_fd, (unsigned)pidfd);
    struct pollfd leash[2] = {{.fd = pipe_fd, .events = 0}, {.fd = pidfd, .events = POLLIN}};
    if (chdir("/") < 0) return 1; /* it must not keep a file system busy */
    for (size_t i = 0; i < cgroup_count(); i++) cgroup_enter(i); /* where that can't be, it stays */
    while (poll(leash, 2, -1) <= 0) continue;
    for_each(argv[2], clean_container);
    if (root_is_ours) remove_tree(argv[2]);
    /* A supervisor that lives removes them itself, when we have gone. */
    if (poll(leash + 1, 1, 0) > 0) cgroup_leave();
    return 0;
}
