/*
 * Copiers: processes that copy between a fifo of ours, which the container has, and what belongs
 * to somebody else: an open file, a pipe, a socket, a terminal.
 *
 * A container may open again whatever it has as its standard streams, for both directions, and
 * change its mode and owner. So it gets nothing that isn't ours. One process for each stream, since
 * a read or a write may block: a description is shared with its owner, and O_NONBLOCK with it.
 *
 * A copier of output ends at the end of the fifo, one of input at the end of its source or when
 * nobody reads the fifo any more. So none outlives the processes that it serves, and it goes on
 * without the shim. Each holds the other end of a `line`: by it the shim says what to do, one byte
 * each, and hears an errno, or 0 for *caught up*.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
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

enum { CHUNK = 64 * 1024, PIPE_BYTES = 1024 * 1024, FINISH_MS = 500 };
enum { CATCH_UP = 'c', FINISH = 'f' };
enum { FROM = STDIN_FILENO, TO = STDOUT_FILENO, LINE = STDERR_FILENO };

struct copier {
    int from, to; /* until it is launched */
    int line;     /* -1 when it has ended */
    pid_t pid;    /* 0 before it is launched and after it was reaped */
    bool behind;  /* what was written before the process's end may not be there yet */
};

static struct copier copiers[COPY_WATCHED] = {{.from = -1, .to = -1, .line = -1},
                                              {.from = -1, .to = -1, .line = -1},
                                              {.from = -1, .to = -1, .line = -1}};

/* ---- in the copier ------------------------------------------------------------------------- */

static char chunk[CHUNK];

static void tell(int error) {
    char byte = (char)error;
    send(LINE, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Whoever gave us the descriptor may have made it non-blocking, and relies on that. */
static bool put(size_t size) {
    struct pollfd room = {.fd = TO, .events = POLLOUT};
    for (size_t done = 0; done < size;) {
        ssize_t n = write(TO, chunk + done, size - done);
        if (n > 0) done += (size_t)n;
        else if (n < 0 && errno == EAGAIN) poll(&room, 1, -1);
        else if (n == 0 || errno != EINTR) return false;
    }
    return true;
}

static void feed(void) {
    struct pollfd watched[] = {{.fd = FROM, .events = POLLIN},
                               {.fd = TO, .events = 0}}; /* POLLERR, unasked: nobody reads it */
    for (;;) {
        poll(watched, 2, -1);
        if (watched[1].revents != 0) return;
        ssize_t n = read(FROM, chunk, sizeof chunk);
        if (n == 0) return;
        if (n > 0 && !put((size_t)n)) return;
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            tell(errno);
            return;
        }
    }
}

/* Returns whether there may be more. Somebody else may have read what there was: EAGAIN. */
static bool drain_once(size_t most, ssize_t *n) {
    *n = read(FROM, chunk, most < sizeof chunk ? most : sizeof chunk);
    if (*n < 0) return errno == EAGAIN || errno == EINTR;
    if (*n > 0 && put((size_t)*n)) return true;
    if (*n > 0) tell(errno);
    return false;
}

/* What is there at this moment: whoever goes on writing can't keep us. */
static bool catch_up(void) {
    int left = 0;
    ssize_t n;
    ioctl(FROM, FIONREAD, &left);
    for (; left > 0; left -= (int)n) {
        if (!drain_once((size_t)left, &n)) return false;
        if (n <= 0) break;
    }
    return true;
}

/* A shim that was killed says nothing any more: then we go on to the end. */
static bool obey(struct pollfd *line) {
    char word = 0;
    if (read(LINE, &word, 1) <= 0) line->fd = -1;
    else if (!catch_up()) return false;
    else if (word == CATCH_UP) tell(0);
    return word != FINISH;
}

static void drain(void) {
    struct stat status;
    struct pollfd watched[] = {{.fd = FROM, .events = POLLIN}, {.fd = LINE, .events = POLLIN}};
    ssize_t n;
    fcntl(FROM, F_SETFL, O_NONBLOCK);
    /* Larger means fewer turns. Not where a reader may go: the writer shall hear that soon. */
    if (fstat(TO, &status) == 0 && S_ISREG(status.st_mode)) fcntl(FROM, F_SETPIPE_SZ, PIPE_BYTES);
    for (;;) {
        poll(watched, 2, -1);
        if (watched[1].revents != 0 && !obey(&watched[1])) return;
        if (watched[0].revents != 0 && !drain_once(sizeof chunk, &n)) return;
    }
}

/* Of the shim's descriptors it keeps none: its lock, its report and `exit` mean that the shim
 * lives. Nor its directory, which somebody may want to unmount. */
__attribute__((noreturn)) static void copy(int stream, int from, int to, int line) {
    prctl(PR_SET_NAME, "supervisor-copy");
    if (dup2(from, FROM) < 0 || dup2(to, TO) < 0 || dup2(line, LINE) < 0) _exit(1);
    if (syscall(SYS_close_range, LINE + 1, ~0U, 0) < 0 || chdir("/") < 0) _exit(1);
    if (stream == STDIN_FILENO) feed();
    else drain();
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

void copy_start(void) {
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

/* The end of the line is the copier's: all that it was to copy, or could, is copied. */
static void hear(int stream) {
    static const char *const what[] = {"read stdin", "write stdout", "write stderr"};
    char word;
    ssize_t n = read(copiers[stream].line, &word, 1);
    if (n < 0 && errno == EINTR) return;
    if (n > 0 && word != 0) note("error", "cannot %s: %s", what[stream], strerror(word));
    copiers[stream].behind = false;
    if (n <= 0) close_quietly(&copiers[stream].line);
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
}

bool copy_behind(void) {
    return copiers[STDOUT_FILENO].behind || copiers[STDERR_FILENO].behind;
}

bool copy_active(void) {
    return copiers[STDOUT_FILENO].line >= 0 || copiers[STDERR_FILENO].line >= 0;
}

/* Our own child, so until we reap it its pid can't become somebody else's. */
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

/* They copy what is there; one whose target takes nothing has had its time. */
void copy_finish(void) {
    int64_t until = monotonic_ms() + FINISH_MS;
    copy_end_input();
    for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++) command(&copiers[i], FINISH);
    for (int i = STDOUT_FILENO; i <= STDERR_FILENO; i++) {
        struct pollfd line = {.fd = copiers[i].line, .events = POLLIN};
        for (int64_t left; line.fd >= 0 && (left = until - monotonic_ms()) > 0;) {
            if (poll(&line, 1, (int)left) > 0) hear(i);
            line.fd = copiers[i].line;
        }
        end(&copiers[i]);
    }
}
