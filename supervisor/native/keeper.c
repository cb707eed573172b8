/*
 * supervisor-keeper: removes what a leashed supervisor leaves behind.
 *
 * The keeper waits until its supervisor closes the leash or dies, then until the shims have ended
 * (each one kills its own process). Then it works off the `cleanup` file of every container
 * directory below the root. A supervisor that closes in good order leaves nothing to do. The format
 * of `cleanup` is in docs/shim-protocol.md.
 */
#include "cgroup.h"
#include "groups.h"
#include "owned.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
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

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

#ifndef PATIENCE_MS /* the tests have less */
#define PATIENCE_MS 10000
#endif

enum { CHILDREN_SIZE = 4096, HOOK_TURNS = 3 };
enum { MAX_WORDS = 256, FILE_SIZE = 64 * 1024, STEP_MS = 5, REMOVALS = 100 };
enum { LEAST_MS = PATIENCE_MS / 20 + 50 };
enum { LAST_SIGNAL = 64, DIRECTORY_FLAGS = O_RDONLY | O_DIRECTORY, ROOT_MODE = 0711, UMASK = 022 };

static void pause_step(void) {
    struct timespec step = {0, STEP_MS * 1000000L};
    nanosleep(&step, NULL);
}

/* ---- waiting for shims and other supervisors --------------------------------------------- */

/* Acquires and keeps a file's lock, or gives up. All waits share one patience, so that stuck
 * holders don't delay the rest. Also false if the file was removed or replaced. */
static bool await_lock(int directory, const char *name) {
    static int patience_ms = PATIENCE_MS;
    int fd = open_ours(directory, name, O_RDONLY, S_IFREG);
    if (fd < 0) return false;
    for (; flock(fd, LOCK_EX | LOCK_NB) < 0; patience_ms -= STEP_MS) {
        if (patience_ms <= 0) return false;
        pause_step();
    }
    return is_named(directory, name, fd);
}

/* Closes the lock again: a shim that has ended doesn't come back, and there may be more shims than
 * descriptors. */
static bool await_shim(int container, const char *name, void *data) {
    (void)data;
    int process = open_ours(container, name, DIRECTORY_FLAGS, S_IFDIR);
    if (process < 0) return true;
    await_lock(process, "shim");
    syscall(SYS_close_range, (unsigned)process, ~0U, 0);
    return true;
}

/* ---- the verbs of a cleanup file --------------------------------------------------------- */

/* Dispositions are set by system call: C libraries leave out the signals that they keep for
 * themselves. */
static void execute(char **words) {
    static const unsigned long fallback[8]; /* the kernel's sigaction: SIG_DFL, no flags, no mask */
    sigset_t none;
    sigemptyset(&none);
    setsid();
    for (int number = 1; number <= LAST_SIGNAL; number++)
        syscall(SYS_rt_sigaction, number, fallback, NULL, 8UL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid(); /* so that hooks are in its process group */
    execv(words[0], words);
    _exit(127);
}

static bool read_children(pid_t parent, char text[CHILDREN_SIZE]) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, CHILDREN_SIZE - 1);
    if (fd >= 0) close(fd);
    text[size < 0 ? 0 : size] = '\0';
    return size > 0;
}

/* Each whole pid in the list is followed by a space; a cut one isn't. */
static bool has_number(const char *text, pid_t number) {
    char *end;
    for (long one = strtol(text, &end, 10); one > 0; one = strtol(text = end, &end, 10))
        if (one == number && *end == ' ') return true;
    return false;
}

/* Kills the children of a runtime: hooks that it waits for. Needs CONFIG_PROC_CHILDREN. Until the
 * pidfd is open, the pid may have passed to a stranger: so the list must still have the pid
 * then. */
static void kill_children(pid_t parent) {
    char text[CHILDREN_SIZE], again[CHILDREN_SIZE], *end;
    if (!read_children(parent, text)) return;
    for (char *at = text; strtol(at, &end, 10) > 0; at = end) {
        pid_t child = (pid_t)strtol(at, &end, 10);
        int process = (int)syscall(SYS_pidfd_open, child, 0);
        if (process < 0) continue;
        if (read_children(parent, again) && has_number(again, child))
            syscall(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0);
        close(process);
    }
}

static bool await_child(pid_t child, int patience_ms) {
    for (; waitpid(child, NULL, WNOHANG) == 0; patience_ms -= STEP_MS) {
        if (patience_ms <= 0) return false;
        pause_step();
    }
    return true;
}

/* When its hook is killed, a runtime goes on with the rest of its work. That may take a while, and
 * call more hooks. */
static bool await_without_hooks(pid_t child, int patience_ms) {
    for (int i = 0; i < HOOK_TURNS; i++) {
        kill_children(child);
        if (await_child(child, patience_ms / HOOK_TURNS)) return true;
    }
    return false;
}

/* Runs a command with bounded time. The command leads a session, and so a process group that its
 * children are in as a rule. A runtime that hangs will most likely hang again: after each call in
 * which something had to be killed, the next calls get half the time. So a hundred containers don't
 * take a hundred times as long. */
static void run_command(char **words) {
    static int patience_ms = PATIENCE_MS;
    pid_t child = words[0] == NULL ? -1 : fork();
    if (child == 0) execute(words);
    if (child < 0 || await_child(child, patience_ms)) return;
    patience_ms = patience_ms / 2 > LEAST_MS ? patience_ms / 2 : LEAST_MS;
    if (await_without_hooks(child, patience_ms)) return;
    kill(-child, SIGKILL);
    kill(child, SIGKILL); /* in case setsid() isn't called yet */
    await_child(child, PATIENCE_MS);
}

/* Words: DIRECTORY WORDS COMMAND... Runs the command only if `may` agrees: the runtime's container
 * with our id may not be ours. */
static void run_if(bool (*may)(const char *directory, const char *words), char **words) {
    if (words[0] == NULL || words[1] == NULL || !may(words[0], words[1])) return;
    detach_copies(words[0]);
    run_command(words + 2);
}

static void run_owned(char **words) {
    run_if(is_owned, words);
    if (words[0] != NULL) remove_begun(words[0]);
}

/* Empties and removes a directory. A shim may just be writing its first file into the directory:
 * then try again. The name is removed only if the emptied directory still has that name. */
static void remove_directory(int parent, const char *name, int directory) {
    for (int tries = 0; tries < REMOVALS; tries++) {
        empty_tree(directory);
        if (!is_named(parent, name, directory) || unlinkat(parent, name, AT_REMOVEDIR) == 0) return;
        pause_step();
    }
}

/* Removes a temporary bundle, but not a directory that another user has made under that name
 * since. */
static void remove_path(const char *path) {
    const char *name;
    int parent = open_parent(path, &name);
    int directory = parent < 0 ? -1 : open_ours(parent, name, DIRECTORY_FLAGS, S_IFDIR);
    if (directory >= 0) remove_directory(parent, name, directory);
}

/* Ends what is in a cgroup. On cgroup version 1 a frozen process can't be killed, and we would wait
 * for its shim: so this comes first. */
static void end(char **words) {
    if (strcmp(words[0], "cgroup") == 0 && words[1] != NULL) end_group(words[1]);
}

static bool is_over; /* the supervisor is dead: a live one removes its bundles */
static bool occupied; /* a cgroup holds processes that SIGKILL didn't end */

static void clean_group(const char *path) {
    struct stat status;
    remove_group(path, PATIENCE_MS);
    if (lstat(path, &status) == 0 || errno != ENOENT) occupied = true;
}

static void clean(char **words) {
    if (strcmp(words[0], "run") == 0) run_command(words + 1);
    else if (strcmp(words[0], "owned") == 0) run_owned(words + 1);
    else if (strcmp(words[0], "private") == 0) run_if(is_nobody_elses, words + 1);
    else if (words[1] == NULL) return;
    else if (strcmp(words[0], "cgroup") == 0) clean_group(words[1]);
    else if (strcmp(words[0], "remove") == 0) remove_path(words[1]);
    else if (strcmp(words[0], "bundle") == 0 && is_over) remove_path(words[1]);
}

/* Removes what the runtime couldn't delete, once nothing runs in the container's cgroups: otherwise
 * the id would stay taken. */
static void forget(char **words) {
    bool owned = strcmp(words[0], "owned") == 0, private = strcmp(words[0], "private") == 0;
    if ((!owned && !private) || words[1] == NULL || words[2] == NULL) return;
    if (owned ? is_owned(words[1], words[2]) : is_nobody_elses(words[1], words[2]))
        remove_path(words[1]);
}

/* Words end with a NUL, a record with an empty word. A record that is too long or cut is left out:
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

static bool root_is_ours; /* no other supervisor uses this root: remove all of it */

/* Acquires a container's lock. That fails if another supervisor has adopted the container, or if
 * the clean-up of a killed supervisor is still under way. */
static bool take_container(int container) {
    return await_lock(container, "lock") || root_is_ours;
}

/* Removes a container directory that was being made when the supervisor died. Another supervisor
 * may be making one: then its lock is held; or the directory is still empty, and that supervisor
 * makes a new one. */
static void sweep_new(int root, const char *name, int directory) {
    if (unlinkat(root, name, AT_REMOVEDIR) == 0) return;
    if (faccessat(directory, "lock", F_OK, AT_SYMLINK_NOFOLLOW) != 0 ||
        await_lock(directory, "lock"))
        remove_directory(root, name, directory);
}

static void clean_container(int root, const char *name, int container) {
    static char text[FILE_SIZE];
    int list = open_ours(container, "cleanup", O_RDONLY, S_IFREG);
    if (list < 0) return;
    ssize_t size = read(list, text, sizeof text - 1);
    if (size <= 0 || !take_container(container) || !is_named(root, name, container)) return;
    text[size] = '\0';
    work_off(text, (size_t)size, end);
    for_each(container, await_shim, NULL);
    occupied = false;
    work_off(text, (size_t)size, clean);
    if (!occupied) work_off(text, (size_t)size, forget);
    remove_directory(root, name, container);
}

/* Cleans one entry of the root. A directory that isn't ours is no container of ours, whatever its
 * content. For a directory that was being made or removed, the `cleanup` list isn't used: nothing
 * runs there any more, and the list may name a container that was made again since. All descriptors
 * opened from here on lie above `entry`: they are closed together at the end, however many there
 * were. */
static bool clean_entry(int root, const char *name, void *data) {
    (void)data;
    int entry = open_ours(root, name, DIRECTORY_FLAGS, S_IFDIR);
    if (entry < 0) return true;
    if (strncmp(name, ".deleted-", 9) == 0) remove_directory(root, name, entry);
    else if (strncmp(name, ".new-", 5) == 0) sweep_new(root, name, entry);
    else clean_container(root, name, entry);
    syscall(SYS_close_range, (unsigned)entry, ~0U, 0);
    return true;
}

static void remove_root(int root, const char *path) {
    const char *name;
    int parent = open_parent(path, &name);
    if (parent >= 0) remove_directory(parent, name, root);
}

/* ---- the keeper's own life ---------------------------------------------------------------- */

enum { PIPE, SUPERVISOR, ROOT, READY, GIVEN };

/* Moves the given descriptors to the lowest numbers and closes the rest: descriptors opened later
 * lie above. Our standard streams are /dev/null already. */
static bool keep_only(int given[GIVEN]) {
    enum { FIRST = STDERR_FILENO + 1, END = FIRST + GIVEN };
    for (int i = 0; i < GIVEN; i++)
        if (given[i] >= 0 && (given[i] = fcntl(given[i], F_DUPFD_CLOEXEC, END)) < 0) return false;
    for (int i = 0; i < GIVEN; i++) {
        if (given[i] < 0) close(FIRST + i);
        else if (dup3(given[i], FIRST + i, O_CLOEXEC) < 0) return false;
        else given[i] = FIRST + i;
    }
    syscall(SYS_close_range, (unsigned)END, ~0U, 0);
    return true;
}

/* Takes the words `--cgroup PROCS` from the end of the command line; returns how many are left. */
static int take_cgroups(int argc, char **argv) {
    while (argc > 4 && strcmp(argv[argc - 2], "--cgroup") == 0 && cgroup_add(argv[argc - 1]))
        argc -= 2;
    return argc;
}

static bool parse(const char *words, int given[GIVEN]) {
    int used = 0;
    if (sscanf(words, "%9d:%9d:%9d%n", &given[PIPE], &given[SUPERVISOR], &given[ROOT], &used) != 3)
        return false;
    if (words[used] != '\0' && sscanf(words + used, ":%9d", &given[READY]) != 1) return false;
    for (int i = 0; i < GIVEN; i++)
        if (given[i] <= STDERR_FILENO && !(i == READY && given[i] == -1)) return false;
    return true;
}

/* Detaches the keeper from the parent: a kill of the program and its children, one by one, must not
 * hit the keeper. */
static void go_apart(int ready) {
    if (ready < 0) return;
    pid_t child = fork();
    if (child != 0) _exit(child < 0);
    setsid();
}

/* Writes to READY our pid, or why there is no root. READY is open for as long as we live. */
static void tell(int ready, int error) {
    if (ready >= 0) dprintf(ready, "%d\n", error == 0 ? (int)getpid() : -error);
}

/* Makes an ephemeral root. The keeper makes it, so a supervisor that dies early can't leave the
 * root behind. No other user may enter before the root is ours and open. Returns 0 or an errno. */
static int make_root(int given[GIVEN], const char *path) {
    const char *name = strrchr(path, '/');
    int parent = given[ROOT], made;
    if (name == NULL || mkdirat(parent, name + 1, 0700) < 0) return name == NULL ? EINVAL : errno;
    made = open_ours(parent, name + 1, DIRECTORY_FLAGS, S_IFDIR);
    if (made < 0) {
        unlinkat(parent, name + 1, AT_REMOVEDIR);
        return EACCES;
    }
    /* Programs that sweep temporary files see from the lock that the root is in use. */
    if (flock(made, LOCK_SH | LOCK_NB) < 0 || fchmod(made, ROOT_MODE) < 0 ||
        dup3(made, parent, O_CLOEXEC) < 0) {
        int error = errno;
        unlinkat(parent, name + 1, AT_REMOVEDIR);
        return error;
    }
    close(made);
    return 0;
}

static void block_signals(void) {
    sigset_t all;
    memset(&all, 0xff, sizeof all); /* also those that sigfillset leaves out */
    signal(SIGCHLD, SIG_DFL); /* while ignored, a child's pid may pass to a stranger */
    sigprocmask(SIG_SETMASK, &all, NULL); /* a service manager may send SIGTERM to all */
}

int main(int argc, char **argv) {
    int given[GIVEN] = {-1, -1, -1, -1};
    argc = take_cgroups(argc, argv);
    bool make = argc == 4 && strcmp(argv[3], "make-root") == 0;
    root_is_ours = make || (argc == 4 && strcmp(argv[3], "remove-root") == 0);
    if (argc < 3 || argc > 4 || (argc == 4 && !root_is_ours) || !parse(argv[1], given)) {
        fprintf(stderr, "usage: supervisor-keeper PIPE:PIDFD:DIRECTORY[:READY] ROOT "
                        "[make-root | remove-root] [--cgroup PROCS]...\n");
        return 2;
    }
    block_signals();
    umask(UMASK); /* the launcher's may take our own bits from what we and our commands make */
    if (!keep_only(given) || (!make && !is_ours(given[ROOT]))) return 1;
    if (chdir("/") < 0) return 1; /* must not keep a file system busy */
    struct pollfd leash[2] = {{.fd = given[PIPE], .events = 0},
                              {.fd = given[SUPERVISOR], .events = POLLIN}};
    go_apart(given[READY]);
    int error = make ? make_root(given, argv[2]) : 0;
    tell(given[READY], error);
    if (error != 0) return 1;
    for (size_t i = 0; i < cgroup_count(); i++) cgroup_enter(i); /* on failure, stay */
    while (poll(leash, 2, -1) <= 0) continue;
    is_over = poll(leash + 1, 1, 0) > 0;
    for_each(given[ROOT], clean_entry, NULL);
    if (root_is_ours) remove_root(given[ROOT], argv[2]);
    /* A supervisor that is alive removes these cgroups itself, after we have ended. */
    if (poll(leash + 1, 1, 0) > 0) cgroup_leave();
    return 0;
}
