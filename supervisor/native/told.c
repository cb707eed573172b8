/*
 * What the container's init tells us of its program: it is our child, the program its own, and an
 * exit code doesn't say whether there was a signal (init.c).
 *
 * It tells that on a pipe that the runtime hands on to it. Whoever is root inside can get hold of
 * it. So it never blocks us, a page of it is read at most, once, when the init has ended; and what it
 * says counts only where the init itself has ended so.
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
    int number;      /* which descriptor the runtime hands on to the init, or 0 */
    int reading, writing;
} pipe_of_init = {.reading = -1, .writing = -1};

void told_configure(const char *spec) {
    int used = 0;
    if (sscanf(spec, "%1d%n", &pipe_of_init.number, &used) != 1 || spec[used] != '\0' ||
        pipe_of_init.number < HANDED_ON || pipe_of_init.number >= HANDED_ON + HANDED_ON_MAX)
        fail(0, "options", "--init-status takes the descriptor 3 or 4, not %s", spec);
}

/* Small: of larger ones a user has some hundreds, and then all of his pipes are this small. */
void told_prepare(void) {
    int ends[2];
    if (pipe_of_init.number == 0) return;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0) fail(errno, "stdio", "a pipe of the init's");
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

/* The number behind a line's word, if it is written as we would write it; -1 if it isn't. */
static int number_of(const char *line, const char *word, int most) {
    char same[LONGEST + 8];
    int number = -1;
    size_t size = strlen(word);
    if (strncmp(line, word, size) != 0 || sscanf(line + size, "%9d", &number) != 1) return -1;
    snprintf(same, sizeof same, "%s%d", word, number);
    return number >= 0 && number <= most && strcmp(same, line) == 0 ? number : -1;
}

/* Its last words are those of the init: whoever else had the pipe was before it. */
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
