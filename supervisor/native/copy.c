/*
 * Copiers: processes that copy between a container's fifo and an open file of the caller's. That
 * file may be a regular file, a pipe, a socket or a terminal.
 *
 * A container may reopen its standard streams in both directions, and change their mode and owner.
 * So it gets only fifos of ours. There is one process for each stream, since a read or a write may
 * block: the caller shares the open file description, so we can't set O_NONBLOCK.
 *
 * A copier of output ends at the end of the fifo. A copier of input ends at the end of its source,
 * or when the fifo has no reader any more. So no copier outlives the processes that it serves, and
 * copiers go on without the shim. Each copier holds the other end of a `line`: on the line the shim
 * sends commands of one byte, and gets back an errno or a code.
 *
 * The shim keeps what the copiers report in the file `copied`, for the supervisor that gave us the
 * descriptors.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { CHUNK = 64 * 1024, PIPE_BYTES = 1024 * 1024, TOLD_SIZE = 64 };
enum { LOOK_MS = 100, TELL_MS = 20 };
enum { CATCH_UP = 'c', FINISH = 'f' };
enum { CAUGHT_UP = 0, MOVED = 254, COMPLETE = 255 }; /* codes, which no errno reaches */
enum { FROM = STDIN_FILENO, TO = STDOUT_FILENO, LINE = STDERR_FILENO };

struct copier {
    int from, to;  /* until the copier is launched */
    int line;      /* -1 when the copier has ended */
    pid_t pid;     /* 0 before its launch and after it was reaped */
    bool behind;   /* output from before the process's end may not be copied yet */
    bool complete; /* the copier has reported that it ends */
    int failed;    /* the errno of a read or write of the caller's file, or 0 */
};

static struct copier copiers[COPY_WATCHED] = {{.from = -1, .to = -1, .line = -1},
                                              {.from = -1, .to = -1, .line = -1},
                                              {.from = -1, .to = -1, .line = -1}};

static struct {
    int fd;          /* of `copied`, or -1 */
    unsigned moves;  /* how often a target took output that was left at the end */
    int64_t last_ms; /* when that was */
} copied = {.fd = -1};

/* ---- in the copier ------------------------------------------------------------------------- */

static char chunk[CHUNK];

static struct {
    bool terminal;   /* the caller's file is one; asked before it hangs up */
    bool deaf;       /* the shim has ended */
    bool asked;      /* the shim waits until what the fifo held is written */
    bool ends;       /* exit after that */
    int due;         /* how much of that is still in the fifo */
    size_t piece;    /* how much is written at once */
    int64_t told_ms; /* when we last reported progress */
} copying = {.piece = CHUNK};

static void tell(int word) {
    unsigned char byte = (unsigned char)word;
    send(LINE, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Reports progress, but not for each piece: the shim writes each report to disk. */
static void tell_moved(void) {
    int64_t now = copying.asked ? monotonic_ms() : 0;
    if (!copying.asked || now - copying.told_ms < TELL_MS) return;
    copying.told_ms = now;
    tell(MOVED);
}

/* Reads a command of the shim's. If the shim was killed, go on to the end. Only what the fifo holds
 * at this moment is due: a program that goes on writing can't keep us. */
static void hear_shim(void) {
    char word = 0;
    copying.deaf = read(LINE, &word, 1) <= 0;
    if (copying.deaf) return;
    copying.asked = true;
    copying.ends = word == FINISH;
    ioctl(FROM, FIONREAD, &copying.due);
}

/* Returns how many bytes wait in the target, as far as the target reports that. */
static int queued(void) {
    int bytes = 0;
    if (ioctl(TO, TIOCOUTQ, &bytes) < 0) ioctl(TO, FIONREAD, &bytes); /* a pipe has one queue */
    return bytes;
}

/* Waits until the target takes bytes. A socket has room again only when nearly empty; meanwhile the
 * shim has to know that the target is being read. */
static void await_room(void) {
    for (int now, before = queued();; before = now) {
        struct pollfd watched[] = {{.fd = TO, .events = POLLOUT},
                                   {.fd = copying.deaf ? -1 : LINE, .events = POLLIN}};
        if (poll(watched, 2, copying.asked ? LOOK_MS : -1) < 0) return;
        if (watched[1].revents != 0) hear_shim();
        if (watched[0].revents != 0) return;
        now = queued();
        if (now < before) tell_moved();
    }
}

/* A target with a reader gets small pieces: for these there is room, or none. A large write would
 * block half-way, and no one could see whether it moves. */
static void choose_piece(void) {
    struct stat status;
    int type = SOCK_STREAM;
    socklen_t size = sizeof type;
    if (fstat(TO, &status) < 0 || S_ISREG(status.st_mode) || S_ISBLK(status.st_mode)) return;
    getsockopt(TO, SOL_SOCKET, SO_TYPE, &type, &size);
    if (type == SOCK_STREAM) copying.piece = PIPE_BUF;
}

/* Writes the chunk. The caller may have made the descriptor non-blocking, and relies on that. */
static bool put(size_t size) {
    for (size_t done = 0; done < size;) {
        size_t most = size - done < copying.piece ? size - done : copying.piece;
        if (copying.piece < CHUNK) await_room();
        ssize_t n = write(TO, chunk + done, most);
        if (n > 0) {
            done += (size_t)n;
            tell_moved();
        } else if (n < 0 && errno == EAGAIN) await_room();
        else if (n == 0 || errno != EINTR) return false;
    }
    return true;
}

/* A terminal gives EIO when no process has the other side open. */
static bool hung_up(void) {
    return errno == EIO && copying.terminal;
}

/* A reader that has gone is no failure: the program gets EPIPE, as with any pipe. */
static bool reader_gone(void) {
    return errno == EPIPE || errno == ECONNRESET || hung_up();
}

static void feed(void) {
    struct pollfd watched[] = {{.fd = FROM, .events = POLLIN},
                               {.fd = TO, .events = 0}}; /* POLLERR comes unasked: no reader */
    for (;;) {
        poll(watched, 2, -1);
        if (watched[1].revents != 0) return;
        ssize_t n = read(FROM, chunk, sizeof chunk);
        if (n == 0) return;
        if (n > 0 && !put((size_t)n)) return;
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            if (!hung_up()) tell(errno);
            return;
        }
    }
}

/* Returns whether there may be more. EAGAIN: another process has read what there was. */
static bool drain_once(void) {
    bool due = copying.asked && copying.due < CHUNK;
    ssize_t n = read(FROM, chunk, due ? (size_t)copying.due : sizeof chunk);
    if (n < 0) copying.due = 0;
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    copying.due -= (int)n;
    if (n > 0 && put((size_t)n)) return true;
    if (n > 0 && !reader_gone()) tell(errno);
    return false;
}

/* Whether the fifo has no writer any more, and all is read. */
static bool at_end(void) {
    struct pollfd from = {.fd = FROM, .events = POLLIN};
    return poll(&from, 1, 0) > 0 && (from.revents & (POLLIN | POLLHUP)) == POLLHUP;
}

static void drain(void) {
    struct stat status;
    fcntl(FROM, F_SETFL, O_NONBLOCK);
    choose_piece();
    /* A larger pipe means fewer turns. Not for a target whose reader may go: the writer has to
     * notice that soon. */
    if (fstat(TO, &status) == 0 && S_ISREG(status.st_mode)) fcntl(FROM, F_SETPIPE_SZ, PIPE_BYTES);
    for (;;) {
        if (copying.asked && copying.due <= 0) {
            if (copying.ends || at_end()) return;
            copying.asked = false;
            tell(CAUGHT_UP);
        }
        struct pollfd watched[] = {{.fd = FROM, .events = POLLIN},
                                   {.fd = copying.deaf ? -1 : LINE, .events = POLLIN}};
        poll(watched, 2, -1);
        if (watched[1].revents != 0) hear_shim();
        else if (watched[0].revents != 0 && !drain_once()) return;
    }
}

/* The copier keeps none of the shim's descriptors: the shim's lock, report and `exit` mean that the
 * shim lives. Nor the shim's directory, which another program may want to unmount. */
__attribute__((noreturn)) static void copy(int stream, int from, int to, int line) {
    prctl(PR_SET_NAME, "supervisor-copy");
    if (dup2(from, FROM) < 0 || dup2(to, TO) < 0 || dup2(line, LINE) < 0) _exit(1);
    if (syscall(SYS_close_range, LINE + 1, ~0U, 0) < 0 || chdir("/") < 0) _exit(1);
    copying.terminal = isatty(stream == STDIN_FILENO ? FROM : TO) || errno == EIO;
    if (stream == STDIN_FILENO) feed();
    else drain();
    tell(COMPLETE);
    _exit(0);
}

/* ---- in the shim --------------------------------------------------------------------------- */

void copy_add(int stream, int ours, int theirs) {
    bool input = stream == STDIN_FILENO;
    copiers[stream].from = input ? theirs : ours;
    copiers[stream].to = input ? ours : theirs;
}

static void launch(int stream, struct copier *copier) {
    int line[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, line) < 0)
        fail(errno, "stdio", "cannot make a line to a copier");
    pid_t pid = fork();
    if (pid == 0) copy(stream, copier->from, copier->to, line[1]);
    close(line[1]);
    copier->line = line[0];
    if (pid < 0) fail(errno, "fork", "cannot fork");
    copier->pid = pid;
    close_quietly(&copier->from);
    close_quietly(&copier->to);
}

/* One pwrite into room that is on disk already: a report of a full disk must not fail on the full
 * disk. */
static void write_copied(void) {
    char text[TOLD_SIZE];
    if (copied.fd < 0) return;
    int late = (copiers[STDOUT_FILENO].behind ? 1 << STDOUT_FILENO : 0) |
               (copiers[STDERR_FILENO].behind ? 1 << STDERR_FILENO : 0);
    int length = snprintf(text, sizeof text, "%d %d %d %d %u", copiers[0].failed,
                          copiers[1].failed, copiers[2].failed, late, copied.moves);
    memset(text + length, ' ', TOLD_SIZE - 1 - (size_t)length);
    text[TOLD_SIZE - 1] = '\n';
    if (pwrite(copied.fd, text, TOLD_SIZE, 0) != TOLD_SIZE)
        note("error", "cannot write copied: %s", strerror(errno));
}

static void open_copied(void) {
    char blank[TOLD_SIZE + 1];
    snprintf(blank, sizeof blank, "%*s\n", TOLD_SIZE - 1, "");
    copied.fd = open_or_fail("files", "copied", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
    if (!write_text(copied.fd, blank)) fail(errno, "files", "cannot write copied");
}

void copy_start(void) {
    for (int i = 0; i < COPY_WATCHED && copied.fd < 0; i++)
        if (copiers[i].from >= 0) open_copied();
    for (int i = 0; i < COPY_WATCHED; i++)
        if (copiers[i].from >= 0) launch(i, &copiers[i]);
}

bool copy_is(pid_t pid) {
    for (int i = 0; i < COPY_WATCHED; i++)
        if (copiers[i].pid == pid) return true;
    return false;
}

void copy_reaped(pid_t pid) {
    for (int i = 0; i < COPY_WATCHED; i++)
        if (copiers[i].pid == pid) copiers[i].pid = 0;
}

static void set_failed(int stream, int error) {
    static const char *const what[] = {"read stdin", "write stdout", "write stderr"};
    note("error", "cannot %s: %s", what[stream], strerror(error));
    copiers[stream].failed = error;
}

/* Reads what a copier reports. At the end of the line the copier has ended: it has copied all that
 * it could, and reported COMPLETE or an errno; otherwise it was killed, and how much is missing is
 * unknown. */
static void hear(int stream) {
    struct copier *copier = &copiers[stream];
    unsigned char word = 0;
    ssize_t n = read(copier->line, &word, 1);
    if (n < 0 && errno == EINTR) return;
    if (n <= 0) close_quietly(&copier->line);
    if (n <= 0 && !copier->complete && copier->failed == 0) set_failed(stream, EIO);
    if (n > 0 && word == COMPLETE) copier->complete = true;
    else if (n > 0 && word != CAUGHT_UP && word != MOVED) set_failed(stream, word);
    if (n > 0 && word == MOVED) copied.moves++;
    else copier->behind = false;
    copied.last_ms = monotonic_ms();
    write_copied();
}

void copy_watch(struct pollfd *watched) {
    for (int i = 0; i < COPY_WATCHED; i++)
        watched[i] = (struct pollfd){.fd = copiers[i].line, .events = POLLIN};
}

void copy_heed(const struct pollfd *watched) {
    for (int i = 0; i < COPY_WATCHED; i++)
        if (watched[i].revents != 0) hear(i);
}

static void command(struct copier *copier, char word) {
    if (copier->line >= 0) send(copier->line, &word, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void copy_catch_up(void) {
    for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++) {
        copiers[i].behind = copiers[i].line >= 0;
        command(&copiers[i], CATCH_UP);
    }
    if (copy_behind()) write_copied();
}

bool copy_behind(void) {
    return copiers[STDOUT_FILENO].behind || copiers[STDERR_FILENO].behind;
}

bool copy_written(void) {
    for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++)
        if (copiers[i].line >= 0 && !copiers[i].complete) return true;
    return false;
}

bool copy_active(void) {
    return copiers[STDOUT_FILENO].line >= 0 || copiers[STDERR_FILENO].line >= 0;
}

/* Kills a copier: our own child, whose pid can't be reused before we reap it. */
static void end(struct copier *copier) {
    if (copier->pid > 0) {
        kill(copier->pid, SIGKILL);
        waitpid(copier->pid, NULL, 0);
    }
    copier->pid = 0;
    copier->behind = false;
    close_quietly(&copier->line);
}

void copy_end_input(void) {
    end(&copiers[STDIN_FILENO]);
}

void copy_dismiss(void) {
    copied.last_ms = monotonic_ms();
    for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++) command(&copiers[i], FINISH);
}

int64_t copy_idle_ms(void) {
    return monotonic_ms() - copied.last_ms;
}

/* Lets the copiers copy what is there. A copier whose target takes nothing in time is killed. */
void copy_finish(int patience_ms) {
    int64_t until = monotonic_ms() + patience_ms;
    copy_end_input();
    copy_dismiss();
    for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++) {
        struct pollfd line = {.fd = copiers[i].line, .events = POLLIN};
        for (int64_t left; line.fd >= 0 && (left = until - monotonic_ms()) > 0;) {
            if (poll(&line, 1, (int)left) > 0) hear(i);
            line.fd = copiers[i].line;
        }
        end(&copiers[i]);
    }
}
