/*
 * A container's output streams, written to one bounded, rotated file in the CRI log format.
 *
 *     2026-01-31T12:34:56.123456789Z stdout F a whole line
 *     2026-01-31T12:34:56.123456789Z stderr P a part of a line, which has no newline here
 *
 * Source: kubernetes/design-proposals-archive, kubelet-cri-logging.md. A line goes out in parts if
 * it is longer than a record, or isn't ended for a while, or never. The parts joined up, with a
 * newline for each F, are byte for byte what the program wrote.
 *
 * The file never exceeds its bound. Rotation renames files (PATH.1 to PATH.2, PATH to PATH.1)
 * between two records. What can't be written is dropped; the program is never stopped for it.
 *
 * Only files that belong to us alone are written to, renamed or replaced, and links are never
 * followed: otherwise a container's output would go to whatever file a link names.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    CONTENT_MAX = 16 * 1024, /* as the kubelet's and containerd's */
    RECORD_MAX = CONTENT_MAX + 64,
    CHUNK = 64 * 1024,
    PIPE_BYTES = 1024 * 1024,
    REST_MS = 100, /* after this an unfinished line goes out */
    MAX_FILES = 1000,
    TRIES = 1000,
};

struct source {
    int fd;
    const char *name;
    char *rest; /* a line that hasn't ended yet */
    size_t length;
    int64_t since_ms; /* when that line began */
};

/* Not in the struct below, which has initial values: so these take no room in the program's file,
 * and no memory until used. */
static char rests[LOG_WATCHED][CONTENT_MAX], out[CHUNK + RECORD_MAX];

/* The log's state. A shim has one log at most. */
static struct {
    const char *path; /* NULL: there is no log */
    long long max_bytes;
    int files;
    int fd;
    long long start;   /* at which byte of the whole log this file begins */
    long long written; /* bytes in the file */
    struct source sources[LOG_WATCHED];
    size_t used; /* of `out` */
    time_t second;     /* the second in `stamp` */
    char stamp[32];
    char head[STAMP_SIZE]; /* of the file's first record */
    dev_t device;
    ino_t inode;
    bool failing;
    bool ended; /* the log's name belongs to a later process */
} cri = {.fd = -1, .sources = {{.fd = -1, .name = "stdout", .rest = rests[0]},
                               {.fd = -1, .name = "stderr", .rest = rests[1]}}};

void log_configure(const char *spec) {
    int used = 0;
    if (sscanf(spec, "%18lld:%9d:%n", &cri.max_bytes, &cri.files, &used) != 2 || used == 0 ||
        spec[used] == '\0' || cri.max_bytes < RECORD_MAX || cri.files < 1 || cri.files > MAX_FILES)
        fail(0, "options", "--log takes MAX_BYTES:FILES:PATH, MAX_BYTES from %d, not %s",
             RECORD_MAX, spec);
    cri.path = spec + used;
}

/* Whether it has the type, belongs to us, and no other user may write to it. */
static bool is_ours(const struct stat *status, mode_t type) {
    return (status->st_mode & S_IFMT) == type && status->st_uid == geteuid() &&
           (status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* A file that isn't ours gives ELOOP, as a link does: no other call of ours here gives that. */
static bool open_file(void) {
    enum { FLAGS = O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW | O_NONBLOCK };
    struct stat status;
    cri.fd = open(cri.path, FLAGS, 0600);
    if (cri.fd < 0) return false;
    bool seen = fstat(cri.fd, &status) == 0;
    if (!seen || !is_ours(&status, S_IFREG)) {
        int error = seen ? ELOOP : errno;
        close_quietly(&cri.fd);
        errno = error;
        return false;
    }
    cri.device = status.st_dev;
    cri.inode = status.st_ino;
    cri.written = (long long)status.st_size;
    cri.start -= cri.written; /* not empty: it couldn't be moved, so we append */
    return true;
}

/* Closes the file. The next byte written follows the last one in the whole log. If another program
 * has changed the log, one byte that no reader can have read is counted in between: so a reader
 * sees that something may be lost. */
static void leave_file(bool changed) {
    close_quietly(&cri.fd);
    cri.start += cri.written + changed;
    cri.written = 0;
}

static const char *reason(void) {
    return errno == ELOOP ? "not a file of ours alone" : strerror(errno);
}

/* The directory must be ours alone, so no other user replaces the log in it later. */
static void check_directory(void) {
    char directory[PATH_MAX];
    struct stat status;
    const char *slash = strrchr(cri.path, '/');
    size_t length = slash != NULL ? (size_t)(slash - cri.path) : 0;
    snprintf(directory, sizeof directory, "%.*s", (int)length, cri.path);
    if (length == 0 || length >= sizeof directory) fail(0, "files", "bad path %s", cri.path);
    if (lstat(directory, &status) < 0) fail(errno, "files", "cannot look at %s", directory);
    if (!is_ours(&status, S_IFDIR))
        fail(0, "files", "the log's directory %s isn't a directory of ours alone", directory);
}

/* Cuts off half a record, which a killed shim may have left: ours would be glued to it. */
static void cut_half_record(void) {
    off_t size = cri.written < RECORD_MAX ? (off_t)cri.written : RECORD_MAX, whole = 0;
    ssize_t n = pread(cri.fd, out, (size_t)size, (off_t)cri.written - size);
    for (ssize_t i = 0; i < n; i++)
        if (out[i] == '\n') whole = i + 1;
    if (n < 0) fail(errno, "files", "cannot read the log %s", cri.path);
    if (n != size || (whole == 0 && size == RECORD_MAX)) return; /* not a record of ours */
    if (whole == size) return;
    if (ftruncate(cri.fd, (off_t)cri.written - size + whole) < 0)
        fail(errno, "files", "cannot cut the log %s", cri.path);
    cri.written -= size - whole;
}


/* A larger pipe means fewer turns for both sides. It may be refused when the user's share of large
 * pipes is used up. */
void log_add(int stream, int fd) {
    if (cri.path == NULL) fail(0, "options", "a log needs --log");
    fcntl(fd, F_SETFL, O_NONBLOCK);
    fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
    cri.sources[stream - STDOUT_FILENO].fd = fd;
}

/* ---- the file ---------------------------------------------------------------------------- */

static void complain(const char *what) {
    if (!cri.failing) note("error", "cannot %s the log %s: %s", what, cri.path, reason());
    cri.failing = true;
}

static void name_file(char name[static PATH_MAX], int number) {
    if (number == 0) snprintf(name, PATH_MAX, "%s", cri.path);
    else snprintf(name, PATH_MAX, "%s.%d", cri.path, number);
}

/* Whether a file is there. If lstat fails otherwise, assume so: a file must not be lost. */
static bool is_there(const char *name) {
    struct stat status;
    return lstat(name, &status) == 0 || errno != ENOENT;
}

/* Whether a file may be moved or replaced: only one of ours, or a name that isn't used. */
static bool may_move(const char *name) {
    struct stat status;
    if (lstat(name, &status) < 0) return errno == ENOENT;
    if (is_ours(&status, S_IFREG)) return true;
    errno = ELOOP;
    return false;
}

/* Files move up to the first free number only. A rotation that failed half-way is tried again at
 * the next record, and must not push out the oldest files each time. */
static void rotate(void) {
    char from[PATH_MAX], to[PATH_MAX];
    int last = 0;
    if (cri.ended) return;
    leave_file(false);
    if (cri.files == 1 && (!may_move(cri.path) || unlink(cri.path) < 0) && errno != ENOENT)
        complain("remove");
    for (name_file(to, 0); last < cri.files - 1 && is_there(to);) name_file(to, ++last);
    for (int i = last; i > 0; i--) {
        name_file(from, i - 1);
        name_file(to, i);
        if (!may_move(from) || !may_move(to) || rename(from, to) < 0) complain("rotate");
    }
    if (!open_file()) complain("open");
}

static void tell_time(void) {
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    if (now.tv_sec != cri.second) {
        gmtime_r(&now.tv_sec, &parts);
        strftime(cri.stamp, sizeof cri.stamp, "%Y-%m-%dT%H:%M:%S.", &parts);
        cri.second = now.tv_sec;
    }
    snprintf(cri.stamp + 20, sizeof cri.stamp - 20, "%09ldZ", now.tv_nsec);
}

/* Other programs move logs (logrotate) or empty them (its copytruncate). Then we go on in a file of
 * our own at our name again. A file that they have put there is rotated as an older one. */
static void look_again(void) {
    struct stat named;
    if (cri.fd < 0) return;
    bool there = lstat(cri.path, &named) == 0;
    if (!there && errno != ENOENT) return;
    if (there && named.st_dev == cri.device && named.st_ino == cri.inode) {
        bool cut = named.st_size < cri.written;
        if (cut) cri.start += cri.written - named.st_size + 1;
        cri.written = (long long)named.st_size;
        if (cut && cri.written > 0) rotate();
        return;
    }
    leave_file(true);
    cri.ended = !index_stands();
    if (cri.ended) return;
    if (!open_file()) complain("open");
    else if (cri.written > 0) rotate();
}

/* A file is identified by the time of its first record, so no two files may have the same time. */
static void begin_file(void) {
    for (int tries = 0; tries < TRIES && memcmp(out, cri.head, STAMP_SIZE) == 0; tries++) {
        tell_time();
        memcpy(out, cri.stamp, STAMP_SIZE);
    }
    memcpy(cri.head, out, STAMP_SIZE);
    index_note(cri.start, cri.head);
}

/* Writes the buffer. A record is in the file as a whole or not at all. */
static void flush(void) {
    size_t done = 0;
    look_again();
    if (cri.used == 0) return;
    if (cri.fd >= 0 && cri.written == 0) begin_file();
    while (cri.fd >= 0 && done < cri.used) {
        ssize_t n = write(cri.fd, out + done, cri.used - done);
        if (n < 0) break;
        done += (size_t)n;
    }
    if (done == cri.used) cri.failing = false;
    else if (!cri.ended) complain("write");
    if (done < cri.used && cri.fd >= 0 && ftruncate(cri.fd, (off_t)cri.written) == 0) done = 0;
    cri.written += (long long)done;
    cri.used = 0;
}

/* With an index, a log that is there belongs to an earlier process with the same id: rotate it as
 * an older file, so that each file belongs to one process's index. */
void log_open(void) {
    if (cri.path == NULL) {
        if (index_wanted()) fail(0, "options", "an index needs --log");
        return;
    }
    check_directory();
    if (!open_file() && errno == ELOOP)
        fail(0, "files", "cannot open the log %s: %s", cri.path, reason());
    if (cri.fd < 0) fail(errno, "files", "cannot open the log %s", cri.path);
    cut_half_record();
    if (index_wanted() && cri.written > 0) rotate();
    if (index_wanted() && (cri.fd < 0 || cri.written > 0))
        fail(errno, "files", "cannot begin a new log %s", cri.path);
    cri.start = 0;
    tell_time();
    index_open(cri.files, cri.stamp);
}

/* ---- records ----------------------------------------------------------------------------- */

static bool fits(size_t bytes) {
    return cri.fd >= 0 && cri.written + (long long)bytes <= cri.max_bytes;
}

/* Look at the room again after the flush: a flush that fails makes room too, and on a full disk
 * each record would rotate the files away. */
static void emit(const struct source *source, char tag, const char *content, size_t length) {
    char head[64];
    if (cri.ended) return;
    size_t size = (size_t)snprintf(head, sizeof head, "%s %s %c ", cri.stamp, source->name, tag);
    size_t record = size + length + 1;
    if (cri.used + record > sizeof out || !fits(cri.used + record)) flush();
    if (!fits(cri.used + record)) {
        rotate();
        tell_time(); /* a time with which no other file begins */
        memcpy(head, cri.stamp, STAMP_SIZE);
    }
    if (!fits(cri.used + record)) return;
    char *at = out + cri.used;
    memcpy(at, head, size);
    memcpy(at + size, content, length);
    at[size + length] = '\n';
    cri.used += record;
}

static void emit_rest(struct source *source) {
    if (source->length > 0) emit(source, 'P', source->rest, source->length);
    source->length = 0;
}

/* Makes records of what was read. Whole lines are taken from the buffer without a copy. */
static void take(struct source *source, const char *at, size_t n) {
    while (n > 0) {
        const char *newline = memchr(at, '\n', n);
        size_t line = newline != NULL ? (size_t)(newline - at) : n;
        size_t room = CONTENT_MAX - source->length, part = line < room ? line : room;
        bool ends = newline != NULL && part == line, full = !ends && part == room;
        if (source->length == 0 && (ends || full)) {
            emit(source, ends ? 'F' : 'P', at, part);
        } else {
            if (source->length == 0) source->since_ms = monotonic_ms();
            memcpy(source->rest + source->length, at, part);
            source->length += part;
            if (ends || full) {
                emit(source, ends ? 'F' : 'P', source->rest, source->length);
                source->length = 0;
            }
        }
        part += ends;
        at += part;
        n -= part;
    }
}

/* ---- copying ----------------------------------------------------------------------------- */

/* Reads once. Returns whether more may be there now. */
static bool copy_once(struct source *source) {
    static char chunk[CHUNK];
    ssize_t n = read(source->fd, chunk, sizeof chunk);
    if (n < 0) return false; /* EAGAIN */
    tell_time();
    if (n > 0) take(source, chunk, (size_t)n);
    else close_quietly(&source->fd); /* an unfinished line goes out when its time is up */
    flush();
    return n > 0;
}

void log_watch(struct pollfd *watched) {
    for (int i = 0; i < LOG_WATCHED; i++)
        watched[i] = (struct pollfd){.fd = cri.sources[i].fd, .events = POLLIN};
}

static int patience(const struct source *source) {
    if (source->length == 0) return -1;
    int64_t left = source->since_ms + REST_MS - monotonic_ms();
    return left > 0 ? (int)left : 0;
}

int log_patience(void) {
    int first = patience(&cri.sources[0]), second = patience(&cri.sources[1]);
    return first < 0 || (second >= 0 && second < first) ? second : first;
}

static void emit_rests(bool all) {
    tell_time();
    for (int i = 0; i < LOG_WATCHED; i++)
        if (all || patience(&cri.sources[i]) == 0) emit_rest(&cri.sources[i]);
    flush();
}

/* New bytes first, also those that came since poll: they may end a line whose time is up. */
void log_copy(const struct pollfd *watched) {
    for (int i = 0; i < LOG_WATCHED; i++)
        if (watched[i].revents != 0) copy_once(&cri.sources[i]);
    if (log_patience() != 0) return;
    for (int i = 0; i < LOG_WATCHED; i++)
        if (patience(&cri.sources[i]) == 0) copy_once(&cri.sources[i]);
    emit_rests(false);
}

bool log_active(void) {
    return cri.sources[0].fd >= 0 || cri.sources[1].fd >= 0;
}

/* Takes what the pipes hold, one full pipe at most: a program that still writes can't keep us. */
void log_finish(void) {
    for (int i = 0; i < LOG_WATCHED; i++)
        for (int turns = 0; cri.sources[i].fd >= 0 && turns < PIPE_BYTES / CHUNK + 1; turns++)
            if (!copy_once(&cri.sources[i])) break;
    emit_rests(true);
}
