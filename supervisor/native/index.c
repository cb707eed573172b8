/*
 * The log index: at which byte of the whole log each of the log's files begins.
 *
 * Log files are renamed and removed, and other programs may move or empty them (logrotate). A
 * reader that comes back has to know where it was, and what was lost meanwhile. So the index has
 * lines of 64 bytes, padded with blanks. The first line holds the log's own name, which is random,
 * and when the log was begun. Each further line is for one file: at which byte of the whole log the
 * file begins, and the time of its first record, which identifies the file whatever its name. These
 * lines are a ring: the last FILES and some more are there.
 *
 * The log's files hold only records, since other programs read them too.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LINE = 64, SPARE = 12 }; /* for files begun because others changed the log */

static const char *path; /* NULL: no index */
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

/* Writes all lines at once, so that a full disk can't lose a later one. If that fails, records are
 * written all the same. */
void index_open(int files, const char *stamp) {
    unsigned long long name;
    char head[LINE];
    lines = files + SPARE;
    if (path == NULL) return;
    unlink(path); /* may belong to an earlier process, whose shim has it open */
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
    if (used == 0 || start != last) used++; /* else the file's first record failed */
    last = start;
    snprintf(text, sizeof text, "%lld %.*s", start, STAMP_SIZE, stamp);
    if (!put(1 + used % lines, text)) note("warning", "cannot write %s: %s", path, strerror(errno));
}

/* Whether the index is still ours: a later process with the same id replaces the file. */
bool index_stands(void) {
    struct stat named, ours;
    return file < 0 || (lstat(path, &named) == 0 && fstat(file, &ours) == 0 &&
                        named.st_dev == ours.st_dev && named.st_ino == ours.st_ino);
}
