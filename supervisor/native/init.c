/*
 * supervisor-init: a tiny pid 1.
 *
 * Usage: supervisor-init [--status FD] [--report FD] [--] PROGRAM [ARG...]
 *
 * The kernel drops every signal that pid 1 has no handler for, and leaves all orphans of a pid
 * namespace to it. Few programs are written for that: as pid 1, `sleep` ignores SIGTERM. So this
 * one takes the place, runs PROGRAM as its child, forwards signals to it, reaps whatever is left
 * to it, and ends as PROGRAM ends: with its exit code, or 128 + N when signal N killed it. A
 * PROGRAM that can't be run counts as 127 when it isn't there and as 126 otherwise.
 *
 * An exit code doesn't say whether there was a signal, or a core dump. So the wait status goes to
 * our shim, on the pipe of --status. On that of --report, a gate's, goes what can't be run; its end
 * without that is the exec. PROGRAM gets neither, and we keep nothing of what it has as 0, 1 and 2:
 * who is at the other end hears when it closes them.
 *
 * When it ends, the kernel kills whatever else still lives in the pid namespace.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LAST_SIGNAL = 64,
    CODE_SIGNALLED = 128,
    CODE_CANNOT_RUN = 126,
    CODE_NOT_FOUND = 127,
    CODE_USAGE = 125,
};

/*
 * Every signal, also those that the C library keeps for itself and leaves out of sigfillset: a
 * program in a container may be linked with another library, whose SIGRTMIN is one of them.
 * A real fault of ours (SIGSEGV and the like) isn't held up: the kernel ends us all the same.
 */
static void fill_with_all(sigset_t *set) {
    memset(set, 0xff, sizeof *set);
}

/* What we were told on our command line. */
static struct {
    int status; /* the pipe to our shim, or -1 */
    int report; /* a gate's, or -1 */
    char **program;
} told = {.status = -1, .report = -1};

/* One write, below PIPE_BUF, so that it comes whole. Who should hear it may be gone, or may not
 * listen: then it is lost, and our exit code says what it can. */
__attribute__((format(printf, 2, 3))) static void tell(int fd, const char *format, ...) {
    char line[PIPE_BUF];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (size >= (int)sizeof line) {
        size = (int)sizeof line - 1;
    }
    if (fd >= 0 && size > 0 && write(fd, line, (size_t)size) < 0) {
        return;
    }
}

/* Our own words go out in one write, so that they aren't mixed with those of others. */
static void complain(const char *what, const char *name, int error) {
    char line[512];
    int size = snprintf(line, sizeof line, "supervisor-init: %s %s: %s\n", what, name,
                        strerror(error));
    if (size >= (int)sizeof line) {
        size = (int)sizeof line - 1;
    }
    if (size > 0 && write(STDERR_FILENO, line, (size_t)size) < 0) {
        return; /* nobody is there to tell */
    }
}

static int code_of(int status) {
    return WIFSIGNALED(status) ? CODE_SIGNALLED + WTERMSIG(status) : WEXITSTATUS(status);
}

/*
 * What a program may expect to start with, whatever the runtime was started with. For ourselves
 * as well: while SIGCHLD is ignored, the kernel reaps our children and tells us nothing. By system
 * call, since C libraries refuse those that they keep for themselves.
 */
static void restore_dispositions(void) {
    static const unsigned long fallback[8]; /* the kernel's sigaction: SIG_DFL, no flags, no mask */
    for (int number = 1; number <= LAST_SIGNAL; number++) {
        (void)syscall(SYS_rt_sigaction, number, fallback, NULL, 8UL);
    }
}

/*
 * A process group of its own keeps what is typed at a terminal from reaching us as well, which
 * would be forwarded a second time. SIGTTOU is still blocked, so a background group may do this.
 */
static void take_foreground(void) {
    (void)setpgid(0, 0);
    if (isatty(STDIN_FILENO)) {
        (void)tcsetpgrp(STDIN_FILENO, getpgrp()); /* fails where it isn't our session's terminal */
    }
}

/* To our shim, to a gate's reader, and to people. None of them may be there any more. */
static int refuse(const char *what, int error) {
    (void)signal(SIGPIPE, SIG_IGN);
    tell(told.status, "exec %d\n", error);
    tell(told.report, "program %d %s", error, told.program[0]);
    complain(what, told.program[0], error);
    return error == ENOENT ? CODE_NOT_FOUND : CODE_CANNOT_RUN;
}

static _Noreturn void run_program(void) {
    take_foreground();
    /* A signal that was forwarded meanwhile arrives here, and does what it does by default. */
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)execvp(told.program[0], told.program);
    _exit(refuse("can't run", errno));
}

/* The program has its streams, and we have nothing to say any more. Holding them too, we would hide
 * from a reader that it has closed its output, and from a writer that nobody reads. */
static void let_go(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        (void)close(fd);
    }
    if (told.report >= 0) {
        (void)close(told.report);
    }
}

/* Reap all there is to reap. Returns whether the program itself was among it. */
static int reap(pid_t program, int *status) {
    int ended = 0;
    for (;;) {
        int one = 0;
        pid_t pid = waitpid(-1, &one, WNOHANG);
        if (pid < 0 && errno == EINTR) {
            continue;
        }
        if (pid <= 0) {
            return ended;
        }
        if (pid == program) {
            *status = one;
            ended = 1;
        }
    }
}

/* Forward signals and reap until the program has ended; returns its wait status. They are read
 * from a descriptor: a process in sigwaitinfo() looks, in /proc/PID/status, as if it blocked
 * nothing, and whoever asks whether it would hear a signal is told the wrong thing. */
static int look_after(pid_t program, int signals) {
    struct signalfd_siginfo info;
    int status = 0;
    for (;;) {
        if (read(signals, &info, sizeof info) != (ssize_t)sizeof info) {
            continue; /* EINTR: we were stopped and continued */
        }
        int number = (int)info.ssi_signo;
        if (number != SIGCHLD) {
            (void)kill(program, number); /* it isn't reaped yet, so the pid is still its own */
        } else if (reap(program, &status)) {
            return status;
        }
    }
}

/* A descriptor that somebody has given us; 0 to 2 are the program's. It mustn't block us, whoever
 * inside has filled that pipe; runc hands everything on as blocking. */
static int descriptor(const char *word) {
    char *end;
    long fd = strtol(word, &end, 10);
    if (*word == '\0' || *end != '\0' || fd <= STDERR_FILENO || fd > INT_MAX ||
        fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl((int)fd, F_SETFL, O_NONBLOCK) < 0) {
        return -1;
    }
    return (int)fd;
}

/* Returns whether they make sense. */
static int read_words(char **word) {
    int *into;
    for (; *word != NULL && strcmp(*word, "--") != 0; word += 2) {
        if (strcmp(*word, "--status") == 0) {
            into = &told.status;
        } else if (strcmp(*word, "--report") == 0) {
            into = &told.report;
        } else {
            break;
        }
        if (word[1] == NULL || (*into = descriptor(word[1])) < 0) {
            return 0;
        }
    }
    told.program = *word != NULL && strcmp(*word, "--") == 0 ? word + 1 : word;
    return *told.program != NULL;
}

int main(int argc, char **argv) {
    if (argc < 2 || !read_words(argv + 1)) {
        complain("usage: supervisor-init", "[--status FD] [--report FD] [--] PROGRAM [ARG...]",
                 EINVAL);
        return CODE_USAGE;
    }
    sigset_t all;
    fill_with_all(&all);
    /* Before the fork: nothing that arrives from here on is lost. */
    if (sigprocmask(SIG_SETMASK, &all, NULL) < 0) {
        complain("can't block", "signals", errno);
        return CODE_CANNOT_RUN;
    }
    restore_dispositions();
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L); /* for when it isn't pid 1 */
    int signals = signalfd(-1, &all, SFD_CLOEXEC);
    if (signals < 0) {
        complain("can't read", "signals", errno);
        return CODE_CANNOT_RUN;
    }
    pid_t child = fork();
    if (child < 0) {
        return refuse("can't fork to run", errno);
    }
    if (child == 0) {
        run_program();
    }
    let_go();
    int status = look_after(child, signals);
    tell(told.status, "end %d\n", status);
    return code_of(status);
}
