/*
 * supervisor-shim: the parent and the reaper of one container process.
 *
 * The shim runs the OCI runtime's command line, reports the process that the runtime made, and
 * stays until that process has ended and the exit status is on disk. The launcher may die
 * meanwhile. The protocol is in docs/shim-protocol.md; the step numbers below are the protocol's.
 *
 * Nothing is allocated after start-up, and every descriptor is close-on-exec. All signals are
 * blocked and read from a descriptor: no handler ever runs, so no call here is ever interrupted.
 */
#include "cgroup.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { STATUS_SIZE = 64, LINE_SIZE = 128 };
enum { LAST_SIGNAL = 64, LOOK_AGAIN_MS = 1000, LATER_MS = 50, ATTEMPTS = 10, ATTEMPT_MS = 10 };
enum { CATCH_UP_MS = 1000, FINISH_MS = 500, LOG_TURNS = 64 };

/* The shim's whole state. A shim has one process, so there is one of these. */
static struct {
    char **command;       /* the runtime's command line */
    int program;          /* of the runtime's file, or -1: run the path in command[0] */
    int given;            /* what becomes the runtime's descriptor 3, or -1 */
    const char *oom_score; /* the runtime's oom_score_adj, or NULL */
    int umask;            /* the runtime's umask, or -1 for ours */
    const char *stdio[3]; /* null, fifo:PATH, log:PATH, fd:N, hold:N; stderr: stdout */
    int theirs[3];        /* the caller's descriptors, which the container never gets, or -1 */
    bool alone;           /* whether the shim alone enters the cgroups, not the runtime */
    int null;             /* a null device that the container may have, or -1 */
    int end[3];           /* the container's stdin, stdout, stderr, until the fork */
    int holder[3];        /* the other side of each of these that is a fifo */
    int left[3];          /* O_PATH: fifos whose other side we don't hold (any more) */
    int64_t visit_at_ms;  /* when to open that side for a moment; then the delay */
    int visit_ms;
    int leash_pipe;       /* hangs up when the supervisor closes its end */
    int leash_pidfd;      /* the supervisor's process */
    int signal_fd;        /* reads the signals that we act on */
    int control_fd;       /* lines from supervisors */
    int exit_fd;          /* closed when the exit status is recorded */
    int status_fd;        /* exitStatus, with its room on disk */
    pid_t runtime;        /* 0 while no runtime runs */
    pid_t process;        /* 0 before the process is known and after the reap */
    int stop_signal;      /* the last signal that asked us to stop, or 0 */
    bool given_up;        /* a second one came before there was a process */
    bool leash_broken;
    bool released;        /* `3 0 0`: the rest of the output isn't wanted */
    bool told;            /* `5 0 0`: a supervisor has the exit status, and the unread output */
    char line[LINE_SIZE]; /* of control, as far as read; a line that fills this is too long */
    size_t line_length;
} shim = {.stdio = {"null", "null", "null"},
          .theirs = {-1, -1, -1},
          .null = -1,
          .end = {-1, -1, -1},
          .holder = {-1, -1, -1},
          .left = {-1, -1, -1},
          .program = -1,
          .umask = -1,
          .given = -1,
          .leash_pipe = -1,
          .leash_pidfd = -1,
          .signal_fd = -1,
          .control_fd = -1};

/* ---- step 1: options, descriptors, signals, identity ------------------------------------- */

/* Descriptors 0 to 2 can't be given: they are the shim's own standard streams. */
static void set_stream(int stream, const char *spec) {
    int used = 0;
    shim.stdio[stream] = spec;
    shim.theirs[stream] = -1;
    if (sscanf(spec, "fd:%9d%n", &shim.theirs[stream], &used) != 1 &&
        sscanf(spec, "hold:%9d%n", &shim.theirs[stream], &used) != 1)
        return;
    if (spec[used] != '\0' || shim.theirs[stream] <= STDERR_FILENO)
        fail(0, "options", "bad stdio %s", spec);
}

static void set_leash(const char *spec) {
    int used = 0;
    if (sscanf(spec, "%9d:%9d%n", &shim.leash_pipe, &shim.leash_pidfd, &used) != 2 ||
        spec[used] != '\0' || shim.leash_pipe <= STDERR_FILENO || shim.leash_pidfd <= STDERR_FILENO)
        fail(0, "options", "--leash takes PIPE:PIDFD, two descriptors, not %s", spec);
}

static int descriptor(const char *option, const char *spec) {
    int fd = -1, used = 0;
    if (sscanf(spec, "%9d%n", &fd, &used) != 1 || spec[used] != '\0' || fd <= STDERR_FILENO)
        fail(0, "options", "%s takes a descriptor, not %s", option, spec);
    return fd;
}

static void set_oom_score(const char *spec) {
    int score = 0, used = 0;
    if (sscanf(spec, "%5d%n", &score, &used) != 1 || spec[used] != '\0' || score < -1000 ||
        score > 1000)
        fail(0, "options", "--oom-score-adj takes -1000 to 1000, not %s", spec);
    shim.oom_score = spec;
}

static void set_umask(const char *spec) {
    unsigned mask = 0;
    int used = 0;
    if (sscanf(spec, "%4o%n", &mask, &used) != 1 || spec[used] != '\0' || mask > 0777)
        fail(0, "options", "--umask takes 0 to 0777, not %s", spec);
    shim.umask = (int)mask;
}

static void set_cgroup(const char *procs, bool alone) {
    if (!cgroup_add(procs)) fail(0, "options", "too many cgroups: %s", procs);
    shim.alone = alone;
}

static void enter_directory(const char *path) {
    if (chdir(path) < 0) fail(errno, "options", "cannot enter %s", path);
}

static void parse_options(char **at) {
    for (; *at != NULL && strcmp(*at, "--") != 0; at++) {
        const char *option = *at;
        if (*++at == NULL) fail(0, "options", "%s needs a value", option);
        if (strcmp(option, "--stdin") == 0) set_stream(STDIN_FILENO, *at);
        else if (strcmp(option, "--stdout") == 0) set_stream(STDOUT_FILENO, *at);
        else if (strcmp(option, "--stderr") == 0) set_stream(STDERR_FILENO, *at);
        else if (strcmp(option, "--leash") == 0) set_leash(*at);
        else if (strcmp(option, "--program") == 0) shim.program = descriptor(option, *at);
        else if (strcmp(option, "--give") == 0) shim.given = descriptor(option, *at);
        else if (strcmp(option, "--init-status") == 0) told_configure(*at);
        else if (strcmp(option, "--cgroup") == 0) set_cgroup(*at, false);
        else if (strcmp(option, "--own-cgroup") == 0) set_cgroup(*at, true);
        else if (strcmp(option, "--null") == 0) shim.null = descriptor(option, *at);
        else if (strcmp(option, "--oom-score-adj") == 0) set_oom_score(*at);
        else if (strcmp(option, "--umask") == 0) set_umask(*at);
        else if (strcmp(option, "--log") == 0) log_configure(*at);
        else if (strcmp(option, "--log-index") == 0) index_configure(*at);
        else if (strcmp(option, "--terminal") == 0) terminal_configure(*at);
        else if (strcmp(option, "--attached") == 0) terminal_attached(descriptor(option, *at));
        else if (strcmp(option, "--layer") == 0) layer_configure(*at);
        else if (strcmp(option, "--lower") == 0) layer_lower(*at);
        else if (strcmp(option, "--target") == 0) layer_target(*at);
        else if (strcmp(option, "--lower-uids") == 0) idmap_uids(*at);
        else if (strcmp(option, "--lower-gids") == 0) idmap_gids(*at);
        else if (strcmp(option, "--uids") == 0) layer_uids(*at);
        else if (strcmp(option, "--gids") == 0) layer_gids(*at);
        else if (strcmp(option, "--directory") == 0) enter_directory(*at);
        else fail(0, "options", "unknown option %s", option);
    }
    if (*at == NULL || at[1] == NULL)
        fail(0, "options", "usage: supervisor-shim [--directory PATH] [--leash PIPE:PIDFD] "
                           "[--program FD] [--give FD] [--init-status N] [--null FD] "
                           "[--log MAX_BYTES:FILES:PATH] [--log-index PATH] "
                           "[--terminal FD [--attached FD]] [--oom-score-adj N] "
                           "[--umask OCTAL] "
                           "[--lower PATH --layer BYTES:TARGET [--uids LINES --gids LINES]] "
                           "[--cgroup PROCS | --own-cgroup PROCS]... "
                           "[--target PATH] [--lower-uids LINES --lower-gids LINES] "
                           "[--stdin SPEC] [--stdout SPEC] [--stderr SPEC] -- RUNTIME ARG...");
    layer_check();
    shim.command = at + 1;
    allow_notes();
}

/* Closes all descriptors but the given ones: an inherited one would keep a pipe open, and its
 * reader would wait for ever. */
static void close_others(void) {
    const int given[] = {shim.leash_pipe, shim.leash_pidfd, shim.program,
                         shim.theirs[0],  shim.theirs[1],   shim.theirs[2],
                         shim.given,      shim.null,        terminal_console(),
                         terminal_client()};
    unsigned from = STDERR_FILENO + 1, next;
    do {
        next = UINT_MAX;
        for (size_t i = 0; i < sizeof given / sizeof *given; i++)
            if ((unsigned)given[i] >= from && (unsigned)given[i] < next) next = (unsigned)given[i];
        if (next > from && syscall(SYS_close_range, from, next - 1, 0) < 0)
            fail(errno, "start", "close_range (Linux 5.9)");
        if (next != UINT_MAX && fcntl((int)next, F_SETFD, FD_CLOEXEC) < 0)
            fail(errno, "options", "descriptor %u", next);
        from = next + 1;
    } while (next != UINT_MAX);
    report_keep();
    int null = open_or_fail("start", "/dev/null", O_RDWR);
    for (int i = 0; i < 3; i++)
        if (dup2(null, i) < 0) fail(errno, "start", "cannot replace descriptor %d", i);
    if (null > STDERR_FILENO) close(null);
}

/* All signals are blocked before the first fork, so no signal is lost and SIGPIPE never kills us.
 * The mask includes signals that C libraries leave out of sigfillset: another C library may use
 * them, as SIGRTMIN for one. */
static void take_signals(void) {
    sigset_t all, ours;
    memset(&all, 0xff, sizeof all);
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGHUP);
    signal(SIGCHLD, SIG_DFL); /* while SIGCHLD is ignored, the kernel reaps children itself */
    sigprocmask(SIG_SETMASK, &all, NULL);
    shim.signal_fd = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
    if (shim.signal_fd < 0) fail(errno, "start", "signalfd");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) < 0) fail(errno, "start", "subreaper");
}

static bool write_status(const char *text) {
    char line[STATUS_SIZE + 1];
    snprintf(line, sizeof line, "%-*s\n", STATUS_SIZE - 1, text);
    return pwrite(shim.status_fd, line, STATUS_SIZE, 0) == STATUS_SIZE;
}

/* `shim` says who we are, and its lock, held as long as we live, that we are alive. `exitStatus`
 * gets its room on the disk now: a full disk can't lose an exit status later. */
static void write_identity(void) {
    char text[64];
    pid_t parent;
    unsigned long long start_time;
    if (!read_stat(getpid(), &parent, &start_time)) fail(errno, "start", "cannot read our stat");
    snprintf(text, sizeof text, "%d %llu\n", (int)getpid(), start_time);
    write_whole("shim", text); /* stays open */
    shim.status_fd = open_or_fail("files", "exitStatus", O_WRONLY | O_CREAT);
    if (!write_status("")) fail(errno, "files", "cannot write exitStatus");
}

/* Leaves the supervisor's cgroups: a kill of those means the supervisor's program, not the
 * containers, and the shim is here for the containers. If that fails, the container is made all the
 * same. Each move takes some 15 us: where the container has cgroups of its own, the runtime needn't
 * wait for ours. */
static void change_cgroups(void) {
    for (size_t i = 0; i < cgroup_count(); i++) {
        int error = cgroup_enter(i);
        if (error != 0) note("warning", "cannot enter %s: %s", cgroup_name(i), strerror(error));
    }
}

/* ---- step 2: fifos and standard streams -------------------------------------------------- */

/* If `exit` has no reader (ENXIO), our launcher is gone: then nothing may be made. */
static void open_own_fifos(void) {
    shim.exit_fd = open_fifo("fifos", "exit", O_WRONLY);
    shim.control_fd = open_fifo("fifos", "control", O_RDWR);
}

/* The O_RDWR descriptor makes the plain opens return at once. The container gets only a plain one:
 * with O_RDWR its stdin would never end, with O_NONBLOCK cat fails. We hold the writing side of its
 * stdin and the reading side of its output, never the same side as the container: otherwise a
 * reader or writer wouldn't notice that the container has closed its end. */
static int open_stream_fifo(int stream, const char *path) {
    bool input = stream == STDIN_FILENO;
    int both = open_fifo("stdio", path, O_RDWR);
    shim.holder[stream] = open_or_fail("stdio", path, input ? O_WRONLY : O_RDONLY);
    int end = open_or_fail("stdio", path, input ? O_RDONLY : O_WRONLY);
    close(both);
    return end;
}

/* Keeps an O_PATH descriptor of a fifo whose other side we still hold. The fifo may have no name
 * any more. */
static void keep_place(int stream) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", shim.holder[stream]);
    if (shim.left[stream] < 0) shim.left[stream] = open(path, O_PATH | O_CLOEXEC);
}

/* Closes our side of a fifo. A program in the container may open the fifo again later, and would
 * wait for the other side: so we keep an O_PATH descriptor for `visit`. The first visit is delayed:
 * no program waits yet, since our side was open until now; and a program that is writing to this
 * output must get EPIPE, and not meet us as a reader. */
static void let_go(int stream) {
    if (shim.holder[stream] < 0) return;
    keep_place(stream);
    close_quietly(&shim.holder[stream]);
    shim.visit_ms = stream == STDIN_FILENO ? 1 : LATER_MS;
    shim.visit_at_ms = monotonic_ms() + shim.visit_ms;
}

/* A logged stream is a fifo for the container too: any user in the container can open /dev/stdout
 * again. */
static int open_logged(int stream, const char *path) {
    int end = open_stream_fifo(stream, path);
    log_add(stream, shim.holder[stream]);
    shim.holder[stream] = -1;
    return end;
}

/* The container gets a fifo of ours, and a copier gets the caller's file. The container must not
 * open this fifo for the other direction: a program would wait for itself. We do open that
 * direction (see `visit`), which needs a permission where we aren't root: the runtime gives the
 * fifo to the program's user, and leaves its group. With `hold:` the caller's file is a fifo, and
 * we hold its other side as we do for our own: the programs at its other end may come and go. */
static int open_copied(int stream) {
    static const char *const names[] = {"stdin", "stdout", "stderr"};
    char path[32];
    int end = open_stream_fifo(stream, names[stream]), ours = shim.holder[stream];
    if (stream == STDIN_FILENO) keep_place(stream);
    int theirs = fcntl(shim.theirs[stream], F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    fchmod(end, stream != STDIN_FILENO ? 0200 : geteuid() == 0 ? 0400 : 0620);
    if (theirs < 0) fail(errno, "stdio", "descriptor %d", shim.theirs[stream]);
    shim.holder[stream] = -1;
    if (strncmp(shim.stdio[stream], "hold:", 5) == 0) {
        close(theirs);
        snprintf(path, sizeof path, "/proc/self/fd/%d", shim.theirs[stream]);
        theirs = open_stream_fifo(stream, path);
    }
    copy_add(stream, ours, theirs);
    return end;
}

/* Opens the null device anew, so the open file description is this container's alone, on the mount
 * that we were given. */
static int open_null(int stream) {
    char path[32] = "/dev/null";
    if (shim.null >= 0) snprintf(path, sizeof path, "/proc/self/fd/%d", shim.null);
    return open_or_fail("stdio", path, stream == STDIN_FILENO ? O_RDONLY : O_WRONLY);
}

static int open_stream(int stream) {
    const char *spec = shim.stdio[stream];
    if (shim.theirs[stream] >= 0) return open_copied(stream);
    if (strcmp(spec, "null") == 0) return open_null(stream);
    if (strncmp(spec, "fifo:", 5) == 0) return open_stream_fifo(stream, spec + 5);
    if (strncmp(spec, "log:", 4) == 0 && stream != STDIN_FILENO)
        return open_logged(stream, spec + 4);
    if (stream == STDERR_FILENO && strcmp(spec, "stdout") == 0) return shim.end[STDOUT_FILENO];
    fail(0, "options", "bad stdio %s", spec);
}

static void open_streams(void) {
    for (int i = 0; i < 3; i++) shim.end[i] = open_stream(i);
    for (int i = 0; i < 3; i++) /* one descriptor may be given for two streams */
        if (shim.theirs[i] >= 0) close(shim.theirs[i]);
    close_quietly(&shim.null);
}

/* ---- signals, control lines, the leash --------------------------------------------------- */

/* Forwards the signal to the process. The process is our own child, so its pid can't be reused
 * before we reap it. A signal that comes before there is a process is remembered; a second one
 * gives up the create. */
static void handle_signal(int number) {
    if (shim.process > 0) kill(shim.process, number);
    else if (shim.stop_signal != 0) shim.given_up = true;
    if (shim.given_up && shim.runtime > 0) kill(shim.runtime, SIGKILL);
    shim.stop_signal = number;
}

static void read_signals(void) {
    struct signalfd_siginfo info;
    while (read(shim.signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo != SIGCHLD) handle_signal((int)info.ssi_signo);
}

/* Closes our side of an output fifo: a program that writes gets EPIPE, as with any pipe. */
static bool let_go_of_output(int stream) {
    if (stream != STDOUT_FILENO && stream != STDERR_FILENO) return false;
    let_go(stream);
    return true;
}

static bool in_range(int size) {
    return size > 0 && size <= USHRT_MAX;
}

/* A line is good only if our own formatting of its numbers gives the same line: a cut line, or one
 * with a NUL, doesn't. */
static void obey(void) {
    char same[LINE_SIZE];
    int verb = -1, first = 0, second = 0;
    sscanf(shim.line, "%9d %9d %9d", &verb, &first, &second);
    int length = snprintf(same, sizeof same, "%d %d %d", verb, first, second);
    if ((size_t)length != shim.line_length || strcmp(same, shim.line) != 0) verb = -1;
    bool bare = first == 0 && second == 0;
    if (verb == 0 && bare) {
        if (!terminal_hang_up()) let_go(STDIN_FILENO);
    } else if (verb == 1 && in_range(first) && in_range(second) && terminal_resize(first, second)) {
        return;
    } else if (verb == 2 && first > 0 && first <= LAST_SIGNAL && second == 0) {
        if (shim.process > 0) kill(shim.process, first);
    } else if (verb == 4 && second == 0 && let_go_of_output(first)) {
        return;
    } else if (verb == 3 && bare) shim.released = true;
    else if (verb == 5 && bare) shim.told = true;
    else note("warning", "control line skipped: %s", shim.line);
}

static void read_control(void) {
    char buffer[LINE_SIZE];
    ssize_t n = read(shim.control_fd, buffer, sizeof buffer);
    for (ssize_t i = 0; i < n; i++) {
        if (buffer[i] != '\n') {
            if (shim.line_length < LINE_SIZE) shim.line[shim.line_length++] = buffer[i];
            continue;
        }
        shim.line[shim.line_length < LINE_SIZE ? shim.line_length : LINE_SIZE - 1] = '\0';
        obey();
        shim.line_length = 0;
    }
}

static void break_leash(void) {
    close_quietly(&shim.leash_pipe);
    close_quietly(&shim.leash_pidfd);
    shim.leash_broken = true;
    if (shim.runtime > 0) kill(shim.runtime, SIGKILL);
    if (shim.process > 0) kill(shim.process, SIGKILL);
}

static int sooner(int a, int b) {
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

/* Waits until something happens and acts on it; `also` is a further descriptor to wait for. Control
 * lines are for a process: they stay unread until the process is reported. */
static void wait_for_events(int also, int timeout_ms) {
    enum { OURS = 5 };
    struct pollfd watched[OURS + LOG_WATCHED + TERMINAL_WATCHED + COPY_WATCHED] = {
        {.fd = shim.signal_fd, .events = POLLIN},
        {.fd = reported() ? shim.control_fd : -1, .events = POLLIN},
        {.fd = shim.leash_pipe, .events = 0}, /* POLLHUP comes unasked */
        {.fd = shim.leash_pidfd, .events = POLLIN},
        {.fd = also, .events = POLLIN}};
    log_watch(watched + OURS);
    terminal_watch(watched + OURS + LOG_WATCHED);
    copy_watch(watched + OURS + LOG_WATCHED + TERMINAL_WATCHED);
    timeout_ms = sooner(timeout_ms, sooner(log_patience(), terminal_patience()));
    poll(watched, sizeof watched / sizeof *watched, timeout_ms); /* if it fails: revents are 0 */
    if (watched[0].revents != 0) read_signals();
    if (watched[1].revents != 0) read_control();
    if (watched[2].revents != 0 || watched[3].revents != 0) break_leash();
    log_copy(watched + OURS);
    terminal_copy(watched + OURS + LOG_WATCHED);
    copy_heed(watched + OURS + LOG_WATCHED + TERMINAL_WATCHED);
}

/* ---- step 3: the runtime ----------------------------------------------------------------- */

/* Puts the descriptors that the runtime hands on from 3 on. Each is first moved out of the way: a
 * dup2 onto itself would leave it close-on-exec. */
static bool hand_on(int *program) {
    int given = shim.given, *const clear[] = {program, &given};
    for (int i = 0; i < 2; i++)
        if (*clear[i] >= 0)
            *clear[i] = fcntl(*clear[i], F_DUPFD_CLOEXEC, HANDED_ON + HANDED_ON_MAX);
    return told_hand_on() && (given < 0 || dup2(given, HANDED_ON) >= 0);
}

/* Between vfork and exec the child borrows our memory: only system calls here. The runtime hands
 * its signal mask on to the container (runc), so the mask must be empty. Dispositions are set by
 * system call: C libraries refuse to touch the signals that they keep for themselves (32 to 34),
 * and glibc's posix_spawn, which may have launched us, leaves those ignored. PDEATHSIG is safe here
 * because we have one thread; getppid() shows whether we died before it was armed. */
static int run_child(pid_t self) {
    static const unsigned long fallback[8]; /* the kernel's sigaction: SIG_DFL, no flags, no mask */
    sigset_t none;
    int program = shim.program; /* a copy: the child moves its own descriptors, not ours */
    sigemptyset(&none);
    for (int i = 0; i < 3; i++)
        if (dup2(shim.end[i], i) < 0) return errno;
    for (int number = 1; number <= LAST_SIGNAL; number++)
        syscall(SYS_rt_sigaction, number, fallback, NULL, 8UL);
    prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0L, 0L, 0L);
    if (getppid() != self) return ECHILD;
    if (shim.umask >= 0) umask((mode_t)shim.umask);
    fresh_oom_score(shim.oom_score); /* in layer_mount's user namespace a score can only rise */
    fresh_keyring();
    int error = layer_mount();
    if (error != 0) return error;
    fresh_scheduling();
    if (!hand_on(&program)) return errno; /* last: replaces descriptors used so far */
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (program >= 0)
        syscall(SYS_execveat, program, "", shim.command, environ, AT_EMPTY_PATH);
    execv(shim.command[0], shim.command); /* also where execveat is forbidden for files in memory */
    return errno;
}

/* The create may have been given up, or the leash broken: before the runtime began, while it ran
 * (then it was killed), or just as it ended. All that has come by now counts. */
static void check_wanted(void) {
    wait_for_events(-1, 0);
    if (shim.leash_broken) fail(0, "leash", "the supervisor let go");
    if (shim.given_up) fail(0, "runtime", "%s was given up: told twice to stop", shim.command[0]);
}

static void launch_runtime(void) {
    static volatile int child_error;
    /* This stands after `shim` is written and locked. A keeper that looked before that has not seen
     * us: then the leash is broken already, and this notices it. */
    check_wanted();
    layer_prepare();
    told_prepare();
    pid_t self = getpid();
    pid_t child = vfork();
    if (child == 0) {
        child_error = run_child(self);
        _exit(127);
    }
    if (child < 0) fail(errno, "fork", "cannot fork");
    shim.runtime = child;
    layer_let_go();
    if (shim.end[STDERR_FILENO] == shim.end[STDOUT_FILENO]) shim.end[STDERR_FILENO] = -1;
    for (int i = 0; i < 3; i++) close_quietly(&shim.end[i]);
    close_quietly(&shim.program);
    close_quietly(&shim.given);
    told_let_go();
    if (child_error != 0) layer_failed(child_error);
    if (child_error != 0) fail(child_error, "launch", "cannot run %s", shim.command[0]);
    if (shim.alone) change_cgroups();
    copy_start(); /* only now, so that the runtime needn't wait for it */
}

/* Reaps only the runtime: the process must stay unreaped until its start time is read. */
static void await_runtime(void) {
    int status;
    for (pid_t ended; (ended = waitpid(shim.runtime, &status, WNOHANG)) != shim.runtime;)
        wait_for_events(-1, ended == 0 ? -1 : LOOK_AGAIN_MS);
    shim.runtime = 0;
    report_runtime(status);
    check_wanted();
    const char *name = shim.command[0];
    if (WIFSIGNALED(status)) fail(0, "runtime", "%s: killed by signal %d", name, WTERMSIG(status));
    if (status != 0) fail(0, "runtime", "%s exited with status %d", name, WEXITSTATUS(status));
}

/* The runtime chose the mode of the pid file; we set ours. */
static ssize_t read_pid_file(char *text, size_t size) {
    int fd = open("pid", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    fchmod(fd, 0600);
    close(fd);
    return read_file("pid", text, size);
}

/* When the runtime has ended, we are the process's parent. waitid reports that for living processes
 * and zombies, and needs no /proc, which may hide the processes of other users (hidepid). */
static bool is_our_child(pid_t pid) {
    siginfo_t info;
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* Steps 3 and 4. A process that can't be verified doesn't count, and is killed with our other
 * children. */
static void find_process(void) {
    char text[64];
    pid_t parent;
    int pid = 0, used = 0;
    terminal_take();
    unsigned long long start_time;
    ssize_t size = read_pid_file(text, sizeof text);
    if (size < 0) fail(errno, "pid", "%s succeeded but wrote no pid file", shim.command[0]);
    if (sscanf(text, "%9d %n", &pid, &used) != 1 || used != size || pid < 2)
        fail(0, "pid", "the pid file holds no pid: %s", text);
    if (!is_our_child(pid) || copy_is(pid))
        fail(0, "pid", "the pid file names %d, which is no child of the shim", pid);
    if (!read_stat(pid, &parent, &start_time)) start_time = 0; /* /proc hides it from us */
    snprintf(text, sizeof text, "%llu\n", start_time);
    close(write_whole("starttime", text));
    shim.process = pid;
    snprintf(text, sizeof text, "{\"pid\": %d, \"starttime\": %llu}\n", pid, start_time);
    report(text);
    if (shim.stop_signal != 0) kill(shim.process, shim.stop_signal);
}

/* ---- step 5: the watch, the exit status -------------------------------------------------- */

/* Written before the exit status: a reader of the status finds this file too. */
static void record_refusal(int error) {
    char text[LINE_SIZE];
    snprintf(text, sizeof text, "%d\n", error);
    int fd = open("refused", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || !write_text(fd, text)) note("error", "cannot write refused: %s", strerror(errno));
    close_quietly(&fd);
}

/* One pwrite into room that is on disk already: from here on no failure may make the shim exit. */
static void record_end(const siginfo_t *info) {
    char text[STATUS_SIZE];
    struct told told = {0};
    bool exited = info->si_code == CLD_EXITED;
    int number = exited ? 0 : info->si_status, code = exited ? info->si_status : 128 + number;
    int64_t at_ns = now_ns();
    if (exited) told_read(code, &told);
    if (told.exec_errno != 0) record_refusal(told.exec_errno);
    if (told.signal != 0) number = told.signal;
    snprintf(text, sizeof text, "%d %d %lld %d", code, number, (long long)at_ns,
             info->si_code == CLD_DUMPED || told.dumped);
    if (!write_status(text) && !write_status(text)) /* a passing failure must not lose it */
        note("error", "cannot record %s: %s", text, strerror(errno));
}

/* Records first and reaps second: the exit status of a process that is gone from /proc is on disk.
 * Returns how many ms to wait for the next SIGCHLD at most: when waitid failed, that signal has
 * been read already. */
static int reap(void) {
    siginfo_t info = {.si_pid = 0};
    int failed;
    while ((failed = waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT)) == 0 &&
           info.si_pid != 0) {
        if (info.si_pid == shim.process) {
            record_end(&info);
            shim.process = 0;
        }
        copy_reaped(info.si_pid);
        waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
        info.si_pid = 0;
    }
    return failed != 0 && errno != ECHILD ? LOOK_AGAIN_MS : -1;
}

/* A supervisor that hears of the end may look at once for the output written before it, so copy
 * that first. Not for long: a reader may be slow, or missing. Then `copied` says that output is
 * late, and we stay. */
static void catch_up(void) {
    int64_t until = monotonic_ms() + CATCH_UP_MS;
    copy_end_input();
    copy_catch_up();
    for (int64_t left; copy_behind() && !shim.leash_broken && (left = until - monotonic_ms()) > 0;) {
        wait_for_events(-1, (int)left);
        reap();
    }
}

/* Whether others keep the shim alive although a supervisor knows the exit status: writers to the
 * log or to what is copied, or an attached client that hasn't read all. The end of a log's fifo may
 * have come unnoticed by now, so read on first. */
static bool is_kept(void) {
    struct pollfd watched[LOG_WATCHED];
    for (int turns = 0; turns < LOG_TURNS && log_active(); turns++) {
        log_watch(watched);
        if (poll(watched, LOG_WATCHED, 0) <= 0) break;
        log_copy(watched);
    }
    return log_active() || copy_written() || (terminal_active() && terminal_has_client());
}

/* An open of a fifo waits for the other side, unlike with a pipe: after the end of its input a
 * program would wait for ever in open("/dev/stdin"), and in open("/dev/stdout") where no reader is.
 * Nothing notifies us of such a wait, so we open the other side for a moment, now and then: the
 * program's open returns, and it finds that the other side is closed. Returns how many ms there are
 * until the next visit, or -1. */
static int visit(void) {
    char path[32];
    int64_t now_ms = monotonic_ms();
    bool due = now_ms >= shim.visit_at_ms, any = false;
    for (int i = 0; i < 3; i++) {
        if (shim.left[i] < 0) continue;
        any = true;
        snprintf(path, sizeof path, "/proc/self/fd/%d", shim.left[i]);
        int side = i == STDIN_FILENO ? O_WRONLY : O_RDONLY;
        int fd = due ? open(path, side | O_NONBLOCK | O_CLOEXEC) : -1;
        close_quietly(&fd);
    }
    if (!any) return -1;
    if (due) {
        shim.visit_ms = shim.visit_ms < LOOK_AGAIN_MS / 2 ? 2 * shim.visit_ms + 1 : LOOK_AGAIN_MS;
        shim.visit_at_ms = now_ms + shim.visit_ms;
    }
    return (int)(shim.visit_at_ms - now_ms);
}

static void watch_process(void) {
    int patience = reap(); /* its SIGCHLD may have been read before its pid was known */
    while (shim.process > 0) {
        wait_for_events(-1, sooner(patience, visit()));
        patience = reap();
    }
    catch_up();
    if (is_kept()) write_text(shim.exit_fd, "+");
    close_quietly(&shim.exit_fd); /* all who wait for the end wake up now */
    close_quietly(&shim.holder[STDIN_FILENO]);
}

/* Whether an output fifo holds bytes that only we can keep. A fifo without a name can't be opened
 * any more, and a reader that has it open keeps its bytes. If fstat fails, assume that the fifo has
 * a name. */
static bool output_unread(void) {
    int total = 0, bytes;
    struct stat status;
    for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++)
        if (shim.holder[i] >= 0 && (fstat(shim.holder[i], &status) < 0 || status.st_nlink > 0) &&
            ioctl(shim.holder[i], FIONREAD, &bytes) == 0)
            total += bytes;
    return total > 0;
}

/* Whether there is something to stay for. A supervisor that knows of the end holds the unread
 * output itself. */
static bool is_wanted(void) {
    bool unread = terminal_active();
    if (shim.told) unread = unread && terminal_has_client();
    else unread = unread || output_unread();
    return unread || log_active() || copy_active();
}

/* A shim that was asked to stop doesn't stay: a service manager waits for it. */
static bool dismissed(void) {
    return shim.released || shim.leash_broken || shim.stop_signal != 0;
}

static bool add_watch(int watcher, int fd) {
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return inotify_add_watch(watcher, path, IN_ACCESS | IN_CLOSE | IN_ATTRIB) >= 0;
}

/* Lets the copiers finish. A target that goes on taking gets all that is left. But not when the
 * supervisor has broken the leash or released the shim: it waits for us, and the output has had its
 * time. */
static void finish_copies(void) {
    copy_dismiss();
    while (copy_active() && !shim.released && !shim.leash_broken) {
        int64_t left = FINISH_MS - copy_idle_ms();
        if (left <= 0) break;
        wait_for_events(-1, (int)left);
        reap();
    }
    copy_finish(shim.released || shim.leash_broken ? FINISH_MS : 0);
}

/* A fifo that no process holds open loses its bytes, so stay while there are any. Inotify shows
 * readers (a read, a close, the end of the name): nothing else reports that a fifo became empty.
 * Inotify instances are few: without one, look again now and then. A log and a terminal stay as
 * long as a writer is there; what is left in a terminal waits for a client to attach. */
static void hold_output(void) {
    char events[sizeof(struct inotify_event) + NAME_MAX + 1];
    bool blind = false; /* no inotify: look now and then */
    /* A writer of the log, or of what is copied, may write to a fifo too: watch the fifos then. */
    bool staying = log_active() || copy_active() || output_unread();
    int watcher = staying ? inotify_init1(IN_CLOEXEC | IN_NONBLOCK) : -1;
    for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++)
        if (shim.holder[i] >= 0 && !add_watch(watcher, shim.holder[i])) blind = true;
    while (!dismissed() && is_wanted()) {
        wait_for_events(watcher, blind ? LOOK_AGAIN_MS : -1);
        reap();
        while (read(watcher, events, sizeof events) > 0) continue;
    }
    finish_copies();
    log_finish();
    terminal_finish();
}

/* After a failed create: kills all children that were left to us. Needs CONFIG_PROC_CHILDREN, and a
 * descriptor: if descriptors are short, close two of ours and try again. */
static void end_children(void) {
    char path[64], text[512];
    siginfo_t info;
    ssize_t size;
    int failures = 0;
    close_quietly(&shim.signal_fd);
    close_quietly(&shim.control_fd);
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    while ((size = read_file(path, text, sizeof text)) != 0) {
        if (size < 0 && ++failures > ATTEMPTS) return;
        if (size < 0) poll(NULL, 0, ATTEMPT_MS);
        char *at = text, *end;
        for (long pid = strtol(at, &end, 10); end != at; pid = strtol(at = end, &end, 10))
            if (*end == ' ') kill((pid_t)pid, SIGKILL); /* a cut number has no space behind it */
        if (size > 0 && waitid(P_ALL, 0, &info, WEXITED) < 0 && errno == ECHILD) return;
    }
}

static void undo(void) {
    copy_finish(FINISH_MS); /* delivers what the runtime printed; ends stuck copiers, too */
    end_children();
    log_finish();
}

int main(int argc, char **argv) {
    report_undoing(undo);
    parse_options(argv + (argc > 0));
    close_others();
    take_signals();
    fresh_umask();
    fresh_memory();
    write_identity();
    if (!shim.alone) change_cgroups();
    log_open();
    open_own_fifos();
    open_streams();
    launch_runtime();
    await_runtime();
    find_process();
    watch_process();
    hold_output();
    return 0;
}
