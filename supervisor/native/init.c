/*
 * supervisor-init: a tiny pid 1, which runs a program, forwards signals and reaps orphans.
 *
 * Usage: supervisor-init [--status FD] [--report FD] [--] PROGRAM [ARG...]
 *
 * The kernel drops every signal that pid 1 has no handler for, and gives pid 1 all orphans of a pid
 * namespace. Few programs are written for that: as pid 1, `sleep` ignores SIGTERM. So this program
 * becomes pid 1, runs PROGRAM as its child, forwards signals to PROGRAM, and reaps all orphans. The
 * exit code is PROGRAM's, or 128 + N when signal N killed PROGRAM. If PROGRAM can't be run, the
 * code is 127 when the file is missing, and 126 otherwise.
 *
 * An exit code doesn't say whether there was a signal, or a core dump. So the wait status goes to
 * our shim, on the pipe of --status. If PROGRAM can't be run, that goes to the pipe of --report,
 * which comes from a gate; end of file without a report means that the exec succeeded. PROGRAM gets
 * neither pipe, and we close our copies of its streams 0, 1 and 2: the processes at the other end
 * notice when PROGRAM closes them.
 *
 * When pid 1 ends, the kernel kills all that is left in the pid namespace.
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

/* Fills the set with every signal, also those that the C library keeps for itself and leaves out of
 * sigfillset: a program in a container may be linked with another library, which uses one of them
 * as SIGRTMIN. A real fault of ours (SIGSEGV and the like) isn't held up: the kernel kills us all
 * the same. */
static void fill_with_all(sigset_t *set) {
    memset(set, 0xff, sizeof *set);
}

/* The command line. */
static struct {
    int status; /* the pipe to our shim, or -1 */
    int report; /* the gate's pipe, or -1 */
    char **program;
} told = {.status = -1, .report = -1};

/* Writes a report. One write below PIPE_BUF arrives whole. The reader may be gone, or may not read:
 * then the report is lost, and our exit code says what it can. */
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

/* Prints an error in one write, so that other output isn't mixed in. */
static void complain(const char *what, const char *name, int error) {
    char line[512];
    int size = snprintf(line, sizeof line, "supervisor-init: %s %s: %s\n", what, name,
                        strerror(error));
    if (size >= (int)sizeof line) {
        size = (int)sizeof line - 1;
    }
    if (size > 0 && write(STDERR_FILENO, line, (size_t)size) < 0) {
        return; /* no reader */
    }
}

static int code_of(int status) {
    return WIFSIGNALED(status) ? CODE_SIGNALLED + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Sets all dispositions to the default, which a program may expect, whatever the runtime was
 * started with. We need the default too: while SIGCHLD is ignored, the kernel reaps our children
 * and reports nothing. By system call, since C libraries refuse the signals that they keep for
 * themselves. */
static void restore_dispositions(void) {
    static const unsigned long fallback[8]; /* the kernel's sigaction: SIG_DFL, no flags, no mask */
    for (int number = 1; number <= LAST_SIGNAL; number++) {
        (void)syscall(SYS_rt_sigaction, number, fallback, NULL, 8UL);
    }
}

/* Puts the program into a process group of its own: otherwise signals typed at a terminal would
 * reach us too, and be forwarded a second time. SIGTTOU is still blocked, so a background group may
 * do this. */
static void take_foreground(void) {
    (void)setpgid(0, 0);
    if (isatty(STDIN_FILENO)) {
        (void)tcsetpgrp(STDIN_FILENO, getpgrp()); /* fails if stdin isn't our session's terminal */
    }
}

/* Reports to our shim, to the gate's reader, and to people. Any of them may be gone. */
static int refuse(const char *what, int error) {
    (void)signal(SIGPIPE, SIG_IGN);
    tell(told.status, "exec %d\n", error);
    tell(told.report, "program %d %s", error, told.program[0]);
    complain(what, told.program[0], error);
    return error == ENOENT ? CODE_NOT_FOUND : CODE_CANNOT_RUN;
}

static _Noreturn void run_program(void) {
    take_foreground();
    /* A signal forwarded meanwhile arrives here, with its default action. */
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)execvp(told.program[0], told.program);
    _exit(refuse("can't run", errno));
}

/* Closes our copies of the program's streams, and the gate's pipe: nothing is left to report. With
 * our copies open, a reader wouldn't notice that the program closed its output, nor a writer that
 * the program closed its input. */
static void let_go(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        (void)close(fd);
    }
    if (told.report >= 0) {
        (void)close(told.report);
    }
}

/* Reaps all children that have ended. Returns whether the program is among them. */
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

/* Forwards signals and reaps until the program has ended; returns its wait status. Signals are read
 * from a descriptor: a process in sigwaitinfo() looks, in /proc/PID/status, as if no signal were
 * blocked, and the supervisor, which looks there, would draw the wrong conclusion. */
static int look_after(pid_t program, int signals) {
    struct signalfd_siginfo info;
    int status = 0;
    for (;;) {
        if (read(signals, &info, sizeof info) != (ssize_t)sizeof info) {
            continue; /* EINTR: we were stopped and continued */
        }
        int number = (int)info.ssi_signo;
        if (number != SIGCHLD) {
            (void)kill(program, number); /* not reaped yet, so the pid can't be reused */
        } else if (reap(program, &status)) {
            return status;
        }
    }
}

/* Returns a given descriptor, or -1; 0 to 2 are the program's. The descriptor must not block us
 * when a process in the container has filled the pipe; runc hands all descriptors on as
 * blocking. */
static int descriptor(const char *word) {
    char *end;
    long fd = strtol(word, &end, 10);
    if (*word == '\0' || *end != '\0' || fd <= STDERR_FILENO || fd > INT_MAX ||
        fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0 || fcntl((int)fd, F_SETFL, O_NONBLOCK) < 0) {
        return -1;
    }
    return (int)fd;
}

/* Reads the command line. Returns whether it makes sense. */
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
    /* Before the fork: no signal that arrives from here on is lost. */
    if (sigprocmask(SIG_SETMASK, &all, NULL) < 0) {
        complain("can't block", "signals", errno);
        return CODE_CANNOT_RUN;
    }
    restore_dispositions();
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1L, 0L, 0L, 0L); /* for use as another process than pid 1 */
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
