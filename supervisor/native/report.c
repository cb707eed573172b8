/* The shim's one report to its launcher: the process, or why there is none. */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    int fd;             /* the launcher's pipe, until the report is written */
    int runtime_status; /* the runtime's wait status */
    void (*undo)(void); /* ends what was made so far */
} told = {.fd = STDOUT_FILENO};

/* Moves the report's pipe from stdout to a close-on-exec descriptor: no other process may inherit
 * it. */
void report_keep(void) {
    int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (fd < 0) fail(errno, "start", "cannot keep our stdout");
    told.fd = fd;
}

void report_undoing(void (*undo)(void)) {
    told.undo = undo;
}

void report_runtime(int status) {
    told.runtime_status = status;
}

bool reported(void) {
    return told.fd < 0;
}

/* Writes the report, twice if need be: without a report the launcher takes us for killed. The
 * launcher may be dead by now (EPIPE). */
void report(const char *line) {
    if (!write_text(told.fd, line)) write_text(told.fd, line);
    close_quietly(&told.fd);
}

void fail(int error, const char *phase, const char *format, ...) {
    char text[TEXT_SIZE], escaped[2 * TEXT_SIZE], line[3 * TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (error != 0 && size < (int)sizeof text)
        snprintf(text + size, sizeof text - (size_t)size, ": %s", strerror(error));
    if (told.undo != NULL) told.undo();
    note("error", "%s: %s", phase, text);
    escape(escaped, sizeof escaped, text);
    int status = told.runtime_status;
    snprintf(line, sizeof line,
             "{\"error\": \"%s\", \"phase\": \"%s\", "
             "\"errno\": %d, \"code\": %d, \"signal\": %d}\n",
             escaped, phase, error, WIFEXITED(status) ? WEXITSTATUS(status) : 0,
             WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    report(line);
    _exit(1);
}
