/*
 * supervisor-shim: the parent and the reaper of one container process.
 *
 * It runs the OCI runtime's command line that it was given, reports the process that this made,
 * and stays until that process has ended and its end is on disk. The program that launched it may
 * die meanwhile. The protocol is in docs/shim-protocol.md; the steps below have its numbers.
 *
 * Nothing is allocated after start-up, every descriptor is close-on-exec, and all signals are
 * blocked and read from a descriptor, so that nothing here is ever interrupted half-way.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { STATUS_SIZE = 64, LINE_SIZE = 128, MESSAGE_SIZE = 1024, LOG_LIMIT = 64 * 1024, LAST_SIGNAL = 64 };

/* The shim's whole state: there is one process, so there is one of these. */
static struct {
    char **command;       /* the runtime's command line */
    const char *stdio[3]; /* null, fifo:PATH, file:PATH, fd:N; for stderr also stdout */
    int leash_pipe;       /* -1, or a pipe that breaks when the supervisor lets go */
    int leash_pidfd;      /* -1, or the supervisor itself */
    bool leash_broken;
    int report_fd;     /* the launcher's pipe, until the one report is written */
    int signal_fd;     /* all signals that we act on */
    int control_fd;    /* lines from supervisors */
    int exit_fd;       /* closed when the end is recorded */
    int status_fd;     /* exitStatus, preallocated */
    int stdin_holder;  /* keeps the container's stdin from ending when a writer goes */
    int output_holder[2]; /* keep what the container wrote while nobody reads */
    int end[3];        /* the container's own stdin, stdout and stderr, until it has them */
    pid_t runtime;     /* 0 when it isn't running */
    int runtime_status;
    pid_t process;     /* 0 before it is known and after it was reaped */
    int pending_signal; /* came before there was a process */
    bool released;     /* `3 0 0`: nobody wants the rest */
    char line[LINE_SIZE];
    size_t line_length;
    bool line_too_long;
    size_t logged;
} shim = {.leash_pipe = -1,
          .leash_pidfd = -1,
          .report_fd = STDOUT_FILENO,
          .signal_fd = -1,
          .control_fd = -1,
          .exit_fd = -1,
          .status_fd = -1,
          .stdin_holder = -1,
          .output_holder = {-1, -1},
          .end = {-1, -1, -1}};

/* ---- words: the log and the report ------------------------------------------------------- */

static ssize_t write_all(int fd, const char *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = write(fd, data + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return -1;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

/* Bytes outside printable ASCII become \u00XX: a path need not be UTF-8, the line must be JSON. */
static void escape(char *out, size_t size, const char *text) {
    size_t used = 0;
    for (; *text != '\0' && used + 7 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') out[used++] = '\\';
        if (c >= 0x20 && c < 0x7f) out[used++] = (char)c;
        else used += (size_t)snprintf(out + used, 7, "\\u%04x", c);
    }
    out[used] = '\0';
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A writer of rubbish on `control` must not fill the disk through us: the log is bounded. */
__attribute__((format(printf, 2, 3))) static void note(const char *level, const char *format, ...) {
    char message[MESSAGE_SIZE], escaped[2 * MESSAGE_SIZE], entry[3 * MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    escape(escaped, sizeof escaped, message);
    int length = snprintf(entry, sizeof entry, "{\"level\": \"%s\", \"msg\": \"%s\", \"time\": %lld}\n",
                          level, escaped, (long long)now_ns());
    if (shim.logged + (size_t)length > LOG_LIMIT) return;
    int fd = open("shim-log.json", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0) return;
    shim.logged += (size_t)length;
    write_all(fd, entry, (size_t)length);
    close(fd);
}

/* The launcher may be dead by now (EPIPE): then nobody is there to hear it. */
static void report(const char *line) {
    if (shim.report_fd < 0) return;
    write_all(shim.report_fd, line, strlen(line));
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) dup2(null, shim.report_fd);
    else close(shim.report_fd);
    if (null > STDERR_FILENO) close(null);
    shim.report_fd = -1;
}

static void end_children(void);

/* Ends the shim before it has a process to watch. After the report it may not be called.
 * `error` is an errno, or 0: it travels as a number, so that nobody has to match text. */
__attribute__((format(printf, 3, 4), noreturn)) static void fail(int error, const char *phase, const char *format, ...) {
    char text[MESSAGE_SIZE / 2], message[MESSAGE_SIZE], escaped[2 * MESSAGE_SIZE], line[3 * MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    snprintf(message, sizeof message, error == 0 ? "%s" : "%s: %s", text, strerror(error));
    end_children();
    note("error", "%s: %s", phase, message);
    escape(escaped, sizeof escaped, message);
    int status = shim.runtime_status;
    snprintf(line, sizeof line, "{\"error\": \"%s\", \"phase\": \"%s\", \"errno\": %d, \"code\": %d, \"signal\": %d}\n",
             escaped, phase, error, WIFEXITED(status) ? WEXITSTATUS(status) : 0,
             WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    report(line);
    _exit(1);
}

/* ---- small helpers ----------------------------------------------------------------------- */

static void close_quietly(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static int open_or_fail(const char *phase, const char *path, int flags) {
    int fd;
    do fd = open(path, flags | O_CLOEXEC, 0600);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) fail(errno, phase, "cannot open %s", path);
    return fd;
}

static ssize_t read_file(const char *path, char *buffer, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t n;
    do n = read(fd, buffer, size - 1);
    while (n < 0 && errno == EINTR);
    close(fd);
    buffer[n < 0 ? 0 : n] = '\0';
    return n;
}

/* Whole or not at all: a temporary name of our own, then rename. Returns its descriptor. */
static int write_file(const char *path, const char *text) {
    char temporary[64];
    snprintf(temporary, sizeof temporary, ".%s.%d", path, (int)getpid());
    int fd = open_or_fail("files", temporary, O_WRONLY | O_CREAT | O_EXCL);
    if (write_all(fd, text, strlen(text)) < 0) {
        int reason = errno;
        unlink(temporary);
        fail(reason, "files", "cannot write %s", path);
    }
    return fd;
}

static void name_file(const char *path) {
    char temporary[64];
    snprintf(temporary, sizeof temporary, ".%s.%d", path, (int)getpid());
    if (rename(temporary, path) == 0) return;
    int reason = errno;
    unlink(temporary);
    fail(reason, "files", "cannot rename %s to %s", temporary, path);
}

/* Reads the parent (field 4) and the start time (22) from /proc/PID/stat: man 5 proc. The
 * name in field 2 may hold spaces and parentheses, so count from its last one. */
static bool read_stat(pid_t pid, pid_t *parent, unsigned long long *start_time) {
    char path[32], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    if (read_file(path, text, sizeof text) <= 0) return false;
    char *rest = strrchr(text, ')');
    int ppid = 0;
    if (rest == NULL ||
        sscanf(rest + 1, " %*c %d %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu", &ppid,
               start_time) != 2)
        return false;
    *parent = ppid;
    return true;
}

static bool parse_number(const char *text, long limit, int *value) {
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (!isdigit((unsigned char)*text) || *end != '\0' || errno != 0 || number > limit) return false;
    *value = (int)number;
    return true;
}

/* ---- step 1: options, descriptors, signals, identity ------------------------------------- */

static void parse_leash(char *text) {
    char *colon = strchr(text, ':');
    if (colon != NULL) *colon = '\0';
    if (colon == NULL || !parse_number(text, INT_MAX, &shim.leash_pipe) ||
        !parse_number(colon + 1, INT_MAX, &shim.leash_pidfd))
        fail(0, "options", "--leash takes PIPE:PIDFD, two descriptors");
}

static void enter_directory(const char *path) {
    if (chdir(path) < 0) fail(errno, "options", "cannot enter %s", path);
}

static void parse_options(char **arguments) {
    static const char *const names[3] = {"--stdin", "--stdout", "--stderr"};
    for (int i = 0; i < 3; i++) shim.stdio[i] = "null";
    char **at = arguments;
    for (; *at != NULL && strcmp(*at, "--") != 0; at++) {
        char *option = *at;
        if (*++at == NULL) fail(0, "options", "%s needs a value", option);
        int stream = 0;
        while (stream < 3 && strcmp(option, names[stream]) != 0) stream++;
        if (stream < 3) shim.stdio[stream] = *at;
        else if (strcmp(option, "--leash") == 0) parse_leash(*at);
        else if (strcmp(option, "--directory") == 0) enter_directory(*at);
        else fail(0, "options", "unknown option %s", option);
    }
    if (*at == NULL || at[1] == NULL) fail(0, "options", "no command after --");
    shim.command = at + 1;
}

/* An inherited descriptor would hang whoever waits for its end: keep only what we were given. */
static void close_others(void) {
    unsigned keep[6];
    size_t count = 0;
    if (shim.leash_pipe >= 0) keep[count++] = (unsigned)shim.leash_pipe;
    if (shim.leash_pidfd >= 0) keep[count++] = (unsigned)shim.leash_pidfd;
    for (int i = 0; i < 3; i++) {
        int fd;
        if (strncmp(shim.stdio[i], "fd:", 3) != 0) continue;
        if (!parse_number(shim.stdio[i] + 3, INT_MAX, &fd)) fail(0, "options", "bad stdio %s", shim.stdio[i]);
        keep[count++] = (unsigned)fd;
    }
    unsigned from = STDERR_FILENO + 1;
    while (true) {
        unsigned next = UINT_MAX;
        for (size_t i = 0; i < count; i++)
            if (keep[i] >= from && keep[i] < next) next = keep[i];
        if (next > from && syscall(SYS_close_range, from, next == UINT_MAX ? next : next - 1, 0) < 0)
            fail(errno, "start", "close_range (Linux 5.9)");
        if (next == UINT_MAX) return;
        if (fcntl((int)next, F_SETFD, FD_CLOEXEC) < 0) fail(errno, "options", "descriptor %u", next);
        from = next + 1;
    }
}

/* Everything is blocked before the first fork, so no signal is lost and SIGPIPE never kills us. */
static void take_signals(void) {
    sigset_t all, ours;
    sigfillset(&all);
    sigemptyset(&ours);
    sigaddset(&ours, SIGCHLD);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGHUP);
    signal(SIGCHLD, SIG_DFL); /* inherited as ignored, children would be reaped behind our back */
    sigprocmask(SIG_SETMASK, &all, NULL);
    shim.signal_fd = signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
    if (shim.signal_fd < 0) fail(errno, "start", "signalfd");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L) < 0) fail(errno, "start", "subreaper");
}

/* `shim` says who we are, and its lock, held as long as we live, that we are alive. `exitStatus`
 * gets its room on the disk now, so that a full disk can't lose an exit. */
static void write_identity(void) {
    char text[64], blank[STATUS_SIZE];
    pid_t parent;
    unsigned long long start_time;
    if (!read_stat(getpid(), &parent, &start_time)) fail(0, "start", "cannot read /proc/self/stat");
    snprintf(text, sizeof text, "%d %llu\n", (int)getpid(), start_time);
    int fd = write_file("shim", text);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) fail(errno, "start", "cannot lock shim");
    name_file("shim"); /* fd stays open: it is the lock */
    shim.status_fd = open_or_fail("files", "exitStatus", O_WRONLY | O_CREAT);
    memset(blank, ' ', sizeof blank);
    blank[sizeof blank - 1] = '\n';
    if (write_all(shim.status_fd, blank, sizeof blank) < 0) fail(errno, "files", "cannot write exitStatus");
}

/* ---- step 2: fifos and standard streams -------------------------------------------------- */

/* Without a reader of `exit` our launcher is gone (ENXIO): then nothing shall be made. */
static void open_fifos(void) {
    shim.exit_fd = open_or_fail("fifos", "exit", O_WRONLY | O_NONBLOCK);
    shim.control_fd = open_or_fail("fifos", "control", O_RDWR | O_NONBLOCK);
}

static void require_fifo(int fd, const char *path) {
    struct stat status;
    if (fstat(fd, &status) < 0 || !S_ISFIFO(status.st_mode)) fail(0, "stdio", "%s is not a fifo", path);
}

/* A descriptor of both directions lets the plain opens return at once; the container gets only
 * a plain one: with O_RDWR its stdin would never end, with O_NONBLOCK cat fails. We hold the
 * writing side of its stdin and the reading side of its output, never the other: holding that
 * too, we would hide from a reader or writer that the container has closed its end. */
static int open_fifo(int stream, const char *path) {
    bool input = stream == STDIN_FILENO;
    int both = open_or_fail("stdio", path, O_RDWR | O_NONBLOCK);
    require_fifo(both, path);
    int *holder = input ? &shim.stdin_holder : &shim.output_holder[stream - 1];
    *holder = open_or_fail("stdio", path, input ? O_WRONLY : O_RDONLY);
    int end = open_or_fail("stdio", path, input ? O_RDONLY : O_WRONLY);
    close(both);
    return end;
}

static int open_stream(int stream) {
    const char *what = shim.stdio[stream];
    int output = O_WRONLY | O_CREAT | O_APPEND;
    if (strcmp(what, "null") == 0) return open_or_fail("stdio", "/dev/null", O_RDWR);
    if (strncmp(what, "fifo:", 5) == 0) return open_fifo(stream, what + 5);
    if (strncmp(what, "file:", 5) == 0) return open_or_fail("stdio", what + 5, stream == 0 ? O_RDONLY : output);
    if (strncmp(what, "fd:", 3) == 0) return atoi(what + 3);
    if (stream == STDERR_FILENO && strcmp(what, "stdout") == 0) return shim.end[STDOUT_FILENO];
    fail(0, "options", "bad stdio %s", what);
}

static void close_ends(void) {
    if (shim.end[STDERR_FILENO] == shim.end[STDOUT_FILENO]) shim.end[STDERR_FILENO] = -1;
    for (int i = 0; i < 3; i++) close_quietly(&shim.end[i]);
}

/* ---- signals, the leash, control lines --------------------------------------------------- */

/* Our own child: until we reap it, its pid can't become somebody else's. */
static void signal_process(int number) {
    if (shim.process > 0) kill(shim.process, number);
    else shim.pending_signal = number;
}

/* Before there is a process, a second request to stop means: give up the create. */
static void handle_signal(int number) {
    if (shim.process == 0 && shim.runtime > 0 && shim.pending_signal != 0) kill(shim.runtime, SIGKILL);
    signal_process(number);
}

static void obey(const char *line) {
    int verb, first, second, used = 0;
    if (sscanf(line, "%d %d %d%n", &verb, &first, &second, &used) != 3 || line[used] != '\0') verb = -1;
    if (verb == 0) close_quietly(&shim.stdin_holder);
    else if (verb == 2 && first > 0 && first <= 64) signal_process(first);
    else if (verb == 3) shim.released = true;
    else note("warning", "control line skipped: %s", line);
}

static void take_control_byte(char byte) {
    if (byte != '\n') {
        if (shim.line_length + 1 < sizeof shim.line) shim.line[shim.line_length++] = byte;
        else shim.line_too_long = true;
        return;
    }
    shim.line[shim.line_length] = '\0';
    if (shim.line_too_long || strlen(shim.line) != shim.line_length) note("warning", "control line skipped: not a line");
    else obey(shim.line);
    shim.line_length = 0;
    shim.line_too_long = false;
}

static void read_control(void) {
    char buffer[LINE_SIZE];
    ssize_t n = read(shim.control_fd, buffer, sizeof buffer);
    for (ssize_t i = 0; i < n; i++) take_control_byte(buffer[i]);
}

static void break_leash(void) {
    close_quietly(&shim.leash_pipe);
    close_quietly(&shim.leash_pidfd);
    shim.leash_broken = true;
    if (shim.runtime > 0) kill(shim.runtime, SIGKILL);
    if (shim.process > 0) kill(shim.process, SIGKILL);
}

static void read_signals(void) {
    struct signalfd_siginfo info;
    while (read(shim.signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        if (info.ssi_signo != SIGCHLD) handle_signal((int)info.ssi_signo);
}

/* Waits until something happens and acts on it; `also` is a further descriptor to wait for. */
static void wait_for_events(int also) {
    struct pollfd watched[5] = {{.fd = shim.signal_fd, .events = POLLIN},
                                {.fd = shim.process > 0 || also >= 0 ? shim.control_fd : -1, .events = POLLIN},
                                {.fd = shim.leash_pipe, .events = 0}, /* POLLHUP comes unasked */
                                {.fd = shim.leash_pidfd, .events = POLLIN},
                                {.fd = also, .events = POLLIN}};
    if (poll(watched, 5, -1) < 0) return;
    if (watched[0].revents != 0) read_signals();
    if (watched[1].revents != 0) read_control();
    if (watched[2].revents != 0 || watched[3].revents != 0) break_leash();
}

/* ---- step 3: the runtime ----------------------------------------------------------------- */

/* By system call: C libraries refuse to touch the signals they keep for themselves (32 to 34),
 * and glibc's posix_spawn, which may have launched us, leaves those ignored. */
static void default_signal(int number) {
    static const unsigned long nothing[4]; /* the kernel's sigaction: SIG_DFL, no flags, no mask */
    syscall(SYS_rt_sigaction, number, nothing, NULL, 8UL);
}

/* Between vfork and exec the child borrows our memory: only system calls here. The runtime hands
 * its signal mask on to the container (runc), so it must be empty. PDEATHSIG is safe from here
 * because we have one thread; if we died before it was armed, getppid() tells. */
static int run_child(pid_t self) {
    sigset_t none;
    sigemptyset(&none);
    for (int i = 0; i < 3; i++)
        if (dup2(shim.end[i], i) < 0) return errno;
    for (int number = 1; number <= LAST_SIGNAL; number++) default_signal(number);
    prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0L, 0L, 0L);
    if (getppid() != self) return ECHILD;
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(shim.command[0], shim.command);
    return errno;
}

/* Asked once more after `shim` is written and locked: a keeper that looked before that has not
 * seen us, and then the leash is broken already. */
static bool leash_is_broken(void) {
    struct pollfd leash[2] = {{.fd = shim.leash_pipe, .events = 0}, {.fd = shim.leash_pidfd, .events = POLLIN}};
    return poll(leash, 2, 0) > 0;
}

static void launch_runtime(void) {
    static volatile int child_error;
    if (leash_is_broken()) fail(0, "leash", "the supervisor let go");
    pid_t self = getpid();
    pid_t child = vfork();
    if (child == 0) {
        child_error = run_child(self);
        _exit(127);
    }
    if (child < 0) fail(errno, "launch", "cannot fork");
    shim.runtime = child;
    close_ends();
    if (child_error != 0) fail(child_error, "launch", "cannot run %s", shim.command[0]);
}

/* Reaps the runtime and nothing else: the process must stay unreaped until its start time is read. */
static bool runtime_ended(void) {
    if (waitpid(shim.runtime, &shim.runtime_status, WNOHANG) != shim.runtime) return false;
    shim.runtime = 0;
    return true;
}

static void await_runtime(void) {
    while (!runtime_ended()) wait_for_events(-1);
    int status = shim.runtime_status;
    if (shim.leash_broken) fail(0, "leash", "the supervisor let go");
    if (WIFSIGNALED(status)) fail(0, "runtime", "%s was killed by signal %d", shim.command[0], WTERMSIG(status));
    if (WEXITSTATUS(status) != 0) fail(0, "runtime", "%s exited with status %d", shim.command[0], WEXITSTATUS(status));
}

static void find_process(void) {
    char text[32];
    pid_t parent;
    int pid;
    unsigned long long start_time;
    ssize_t size = read_file("pid", text, sizeof text);
    if (size < 0) fail(0, "pid", "%s succeeded but wrote no pid file", shim.command[0]);
    while (size > 0 && isspace((unsigned char)text[size - 1])) text[--size] = '\0';
    if (strlen(text) != (size_t)size || !parse_number(text, INT_MAX, &pid) || pid < 2)
        fail(0, "pid", "the pid file holds no pid: %s", text);
    if (!read_stat(pid, &parent, &start_time) || parent != getpid())
        fail(0, "pid", "the pid file names %d, which is no child of the shim", pid);
    snprintf(text, sizeof text, "%llu\n", start_time);
    close(write_file("starttime", text));
    name_file("starttime");
    shim.process = pid;
}

/* ---- steps 4 and 5: the report, the watch, the end --------------------------------------- */

static void report_process(void) {
    char text[32], line[96];
    if (read_file("starttime", text, sizeof text) <= 0) fail(0, "files", "cannot read starttime back");
    text[strcspn(text, "\n")] = '\0';
    snprintf(line, sizeof line, "{\"pid\": %d, \"starttime\": %s}\n", (int)shim.process, text);
    report(line);
    if (shim.pending_signal != 0) kill(shim.process, shim.pending_signal);
}

/* One pwrite into room that is there already; from here on nothing may make us bail out. */
static void record_end(const siginfo_t *info) {
    char line[STATUS_SIZE + 1];
    bool exited = info->si_code == CLD_EXITED;
    int code = exited ? info->si_status : 128 + info->si_status;
    int length = snprintf(line, sizeof line, "%d %d %lld %d", code, exited ? 0 : info->si_status, (long long)now_ns(),
                          info->si_code == CLD_DUMPED);
    memset(line + length, ' ', (size_t)(STATUS_SIZE - 1 - length));
    line[STATUS_SIZE - 1] = '\n';
    ssize_t written;
    do written = pwrite(shim.status_fd, line, STATUS_SIZE, 0);
    while (written < 0 && errno == EINTR);
    if (written != STATUS_SIZE) note("error", "cannot record the exit %d: %s", code, strerror(errno));
}

/* Recorded first, reaped second: a process that is gone from /proc has its end on disk. */
static void reap(void) {
    siginfo_t info;
    while (true) {
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0) return;
        if (info.si_pid == shim.process) {
            record_end(&info);
            shim.process = 0;
        }
        waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
    }
}

static void watch_process(void) {
    reap(); /* it may have ended before its pid was known, its SIGCHLD long read */
    while (shim.process > 0) {
        wait_for_events(-1);
        reap();
    }
    close_quietly(&shim.exit_fd); /* everybody who waits for the end wakes up now */
    close_quietly(&shim.stdin_holder);
}

static bool output_unread(void) {
    int bytes = 0, total = 0;
    for (int i = 0; i < 2; i++)
        if (shim.output_holder[i] >= 0 && ioctl(shim.output_holder[i], FIONREAD, &bytes) == 0) total += bytes;
    return total > 0;
}

/* A fifo that nobody holds open forgets its bytes, so stay while there are any. Readers are
 * seen through inotify (a read, or a close): nothing else tells that a fifo became empty. */
static void hold_output(void) {
    char events[sizeof(struct inotify_event) + NAME_MAX + 1];
    if (!output_unread()) return;
    int watcher = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (watcher < 0) note("warning", "inotify: %s: unread output is held until released", strerror(errno));
    for (int i = 1; i < 3 && watcher >= 0; i++)
        if (strncmp(shim.stdio[i], "fifo:", 5) == 0)
            inotify_add_watch(watcher, shim.stdio[i] + 5, IN_ACCESS | IN_CLOSE_NOWRITE);
    shim.pending_signal = 0;
    while (output_unread() && !shim.released && !shim.leash_broken && shim.pending_signal == 0) {
        wait_for_events(watcher >= 0 ? watcher : shim.control_fd);
        reap();
        while (watcher >= 0 && read(watcher, events, sizeof events) > 0) continue;
    }
}

/* After a failed create: whatever was left to us dies with us. Needs CONFIG_PROC_CHILDREN. */
static void end_children(void) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    while (read_file(path, text, sizeof text) > 0) {
        char *at = text, *end;
        for (long pid = strtol(at, &end, 10); end != at; pid = strtol(at, &end, 10)) {
            if (isspace((unsigned char)*end)) kill((pid_t)pid, SIGKILL); /* a cut number has no space behind it */
            at = end;
        }
        siginfo_t info;
        if (waitid(P_ALL, 0, &info, WEXITED) < 0) return;
        if (info.si_pid == shim.runtime) shim.runtime = 0;
    }
}

int main(int argc, char **argv) {
    if (argc < 2) fail(0, "options", "usage: supervisor-shim [--directory PATH] [--stdin|--stdout|--stderr SPEC] [--leash PIPE:PIDFD] -- RUNTIME ARG...");
    signal(SIGPIPE, SIG_IGN);
    parse_options(argv + 1);
    close_others();
    take_signals();
    write_identity();
    open_fifos();
    for (int i = 0; i < 3; i++) shim.end[i] = open_stream(i);
    launch_runtime();
    await_runtime();
    find_process();
    report_process();
    watch_process();
    hold_output();
    return 0;
}
