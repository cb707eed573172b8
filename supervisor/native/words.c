/* Short texts, written and escaped; the shim's log; the clocks. */
#include "shim.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOG_LIMIT = 64 * 1024 };

static size_t logged = LOG_LIMIT;

/* Our texts are small, so a write takes all of the text or nothing. */
bool write_text(int fd, const char *text) {
    size_t size = strlen(text);
    return write(fd, text, size) == (ssize_t)size;
}

int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* For delays: setting the system's clock must not stretch them. */
int64_t monotonic_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Bytes outside printable ASCII become \u00XX: a path need not be UTF-8, the line must be JSON. */
void escape(char *out, size_t size, const char *text) {
    size_t used = 0;
    for (; *text != '\0' && used + 7 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') out[used++] = '\\';
        if (c >= 0x20 && c < 0x7f) out[used++] = (char)c;
        else used += (size_t)snprintf(out + used, 7, "\\u%04x", c);
    }
    out[used] = '\0';
}

/* Called when we are in our directory: nothing is noted before that. */
void allow_notes(void) {
    logged = 0;
}

/* Adds a line to the shim's log. The log is bounded: rubbish on `control` must not fill the disk
 * through us. */
void note(const char *level, const char *format, ...) {
    char text[TEXT_SIZE], escaped[2 * TEXT_SIZE], entry[3 * TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    escape(escaped, sizeof escaped, text);
    snprintf(entry, sizeof entry, "{\"level\": \"%s\", \"msg\": \"%s\", \"time\": %lld}\n", level,
             escaped, (long long)now_ns());
    if (logged + strlen(entry) > LOG_LIMIT) return;
    logged += strlen(entry);
    int fd = open("shim-log.json", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return;
    write_text(fd, entry);
    close(fd);
}

void close_quietly(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}
