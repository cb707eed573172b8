/*
 * Where in the whole of what was ever written to a log each of its files begins.
 *
 * Files are renamed, and removed, and somebody else may move or empty them (logrotate): a reader who
 * comes back has to know where he was, and what was lost meanwhile. So this file has lines of 64 bytes,
 * filled up with blanks: first the log's own name, which is random, and when it was begun; then, for each file
 * that was begun, at which byte of the whole, and its first record's time, by which it is known
 * whatever it is called. The lines are a ring: the last FILES and some more are there.
 *
 * A log's files hold records and nothing else, as other programs read them too.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE = 64, SPARE = 12 }; /* of others' doing: each takes a line too */

static const char *path; /* NULL: there is none */
static int file = -1;
static int lines, used;
static long long last;

void index_configure(const char *spec) {
    path = spec;
}

bool index_wanted(void) {
    return path != NULL;
}

static bool put(int number, const char *text) {
    char line[LINE + 1];
    snprintf(line, sizeof line, "%-*s\n", LINE - 1, text);
    return pwrite(file, line, LINE, (off_t)number * LINE) == LINE;
}

/* Filled at once, so that a full disk can't keep a later file out of it. Without it records are
 * written all the same. */
void index_open(int files, const char *stamp) {
    unsigned long long name;
    char head[LINE];
    lines = files + SPARE;
    if (path == NULL) return;
    unlink(path); /* an earlier process's, which its shim may hold */
    file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool right = file >= 0 && getrandom(&name, sizeof name, 0) == (ssize_t)sizeof name;
    snprintf(head, sizeof head, "log1 %016llx %s", right ? name : 0, stamp);
    for (int i = 1; right && i <= lines; i++) right = put(i, "");
    if (right && put(0, head)) return;
    note("warning", "cannot write %s: %s", path, strerror(errno));
    if (file >= 0) unlink(path);
    close_quietly(&file);
}

void index_note(long long start, const char *stamp) {
    char text[LINE];
    if (file < 0) return;
    if (used == 0 || start != last) used++; /* else its first record couldn't be written */
    last = start;
    snprintf(text, sizeof text, "%lld %.*s", start, STAMP_SIZE, stamp);
    if (!put(1 + used % lines, text)) note("warning", "cannot write %s: %s", path, strerror(errno));
}

/* A later process of the same id has one of its own by then. */
bool index_stands(void) {
    struct stat named, ours;
    return file < 0 || (lstat(path, &named) == 0 && fstat(file, &ours) == 0 &&
                        named.st_dev == ours.st_dev && named.st_ino == ours.st_ino);
}
