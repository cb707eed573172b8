/*
 * What the container's init reports of its program. The init is our child and the program is the
 * init's child, so we see only an exit code, which doesn't say whether there was a signal (init.c).
 *
 * The init reports on a pipe that the runtime hands on to it. Root in the container can get hold of
 * this pipe. So the pipe never blocks us; we read one page at most, once, when the init has ended;
 * and a signal in the report counts only if the init's own exit code agrees.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROOM = 4096, SIGNALLED = 128, ERRNO_MAX = 4095, LONGEST = 16 };

static struct {
    int number;      /* the pipe's descriptor in the init, or 0 */
    int reading, writing;
} pipe_of_init = {.reading = -1, .writing = -1};

void told_configure(const char *spec) {
    int used = 0;
    if (sscanf(spec, "%1d%n", &pipe_of_init.number, &used) != 1 || spec[used] != '\0' ||
        pipe_of_init.number < HANDED_ON || pipe_of_init.number >= HANDED_ON + HANDED_ON_MAX)
        fail(0, "options", "--init-status takes the descriptor 3 or 4, not %s", spec);
}

/* The pipe is made small: a user may have only some hundred larger pipes, and after that all new
 * ones are this small. */
void told_prepare(void) {
    int ends[2];
    if (pipe_of_init.number == 0) return;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) fail(errno, "stdio", "cannot make init's pipe");
    (void)fcntl(ends[1], F_SETPIPE_SZ, ROOM);
    pipe_of_init.reading = ends[0];
    pipe_of_init.writing = ends[1];
}

bool told_hand_on(void) {
    if (pipe_of_init.number == 0) return true;
    int clear = fcntl(pipe_of_init.writing, F_DUPFD_CLOEXEC, HANDED_ON + HANDED_ON_MAX);
    return clear >= 0 && dup2(clear, pipe_of_init.number) >= 0;
}

void told_let_go(void) {
    close_quietly(&pipe_of_init.writing);
}

/* The number after `word` in a line, if written as we would write that line; else -1. */
static int number_of(const char *line, const char *word, int most) {
    char same[LONGEST + 8];
    int number = -1;
    size_t size = strlen(word);
    if (strncmp(line, word, size) != 0 || sscanf(line + size, "%9d", &number) != 1) return -1;
    snprintf(same, sizeof same, "%s%d", word, number);
    return number >= 0 && number <= most && strcmp(same, line) == 0 ? number : -1;
}

/* The last lines count: they are the init's, since other writers of the pipe end before the init
 * does. */
void told_read(int code, struct told *told) {
    char text[ROOM + 1];
    int status = -1;
    *told = (struct told){0};
    if (pipe_of_init.reading < 0) return;
    ssize_t size = read(pipe_of_init.reading, text, ROOM);
    close_quietly(&pipe_of_init.reading);
    text[size < 0 ? 0 : size] = '\0';
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        int one = number_of(line, "end ", 0xffff), error = number_of(line, "exec ", ERRNO_MAX);
        if (one >= 0) status = one;
        if (error > 0) told->exec_errno = error;
    }
    if (status >= 0 && WIFSIGNALED(status) && SIGNALLED + WTERMSIG(status) == code) {
        told->signal = WTERMSIG(status);
        told->dumped = WCOREDUMP(status) != 0;
    }
}
