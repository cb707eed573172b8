/*
 * supervisor-gate: the first program of a pooled container; becomes the program that the pool
 * sends.
 *
 * Usage: supervisor-gate, with a frame on its stdin and a pipe as its descriptor 3
 *
 * A pooled container is created before its program is known. Once started, the gate reads one
 * frame: arguments, environment, working directory, files. The gate writes the files, as the user
 * and with the rights that the program will have, and becomes the program. From stdin it takes
 * exactly the frame's bytes: what follows is the program's input. On descriptor 3 it reports `go`
 * just before it becomes the program, or else what failed. The program never gets descriptor 3,
 * unless the program is our init, which goes on with the report. The frame's layout is in
 * docs/shim-protocol.md.
 *
 * What a program inherits across exec stays as the runtime made it: signal mask and dispositions,
 * umask, limits, capabilities.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { REPORT_FD = 3, HEAD_SIZE = 24, FILE_HEAD_SIZE = 16, BLOCK = 65536 };
enum { CODE_REFUSED = 125, CODE_CANNOT_RUN = 126, CODE_NOT_FOUND = 127 };
enum { MODES = 07777, ANY_MODE = 0777 };

/* The kernel takes at most 6 MB of arguments and environment. */
#define TEXT_MAX ((size_t)8 << 20)

static const char MAGIC[] = "TSG2";

/* What the frame's head announces. */
struct head {
    uint32_t args, env, files, text_bytes;
    uint32_t hand_on; /* 1 if the program is our init, which reports on its own program */
};

/* ---- the report -------------------------------------------------------------------------- */

/* Reports and exits. One write below PIPE_BUF arrives whole. The reader may be gone. */
static _Noreturn void refuse(int code, const char *what, int error, const char *name) {
    char line[PIPE_BUF];
    int size = snprintf(line, sizeof line, "%s %d %s", what, error, name);
    if (size >= (int)sizeof line) size = (int)sizeof line - 1;
    if (size > 0 && write(REPORT_FD, line, (size_t)size) < 0) _exit(code);
    _exit(code);
}

static _Noreturn void malformed(const char *why) {
    refuse(CODE_REFUSED, "frame", EBADMSG, why);
}

/* ---- reading the frame ------------------------------------------------------------------- */

/* Reads not a byte more than `size`: that would be the program's input. */
static void read_exactly(void *into, size_t size) {
    char *at = into;
    while (size > 0) {
        ssize_t n = read(STDIN_FILENO, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) refuse(CODE_REFUSED, "frame", errno, "cannot be read");
        if (n == 0) malformed("ends early");
        at += n;
        size -= (size_t)n;
    }
}

static uint32_t number(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static struct head read_head(void) {
    unsigned char raw[HEAD_SIZE];
    read_exactly(raw, sizeof raw);
    if (memcmp(raw, MAGIC, sizeof MAGIC - 1) != 0) malformed("bad magic");
    struct head head = {number(raw + 4), number(raw + 8), number(raw + 12), number(raw + 16),
                        number(raw + 20)};
    if (head.text_bytes == 0 || head.text_bytes > TEXT_MAX) malformed("text is empty or too long");
    if (head.args == 0) malformed("no arguments");
    if (head.hand_on > 1) malformed("bad hand-on flag");
    if ((uint64_t)head.args + head.env >= head.text_bytes) malformed("text is too short");
    return head;
}

static void *allocate(size_t size) {
    void *memory = malloc(size);
    if (memory == NULL) refuse(CODE_REFUSED, "frame", ENOMEM, "text is too long");
    return memory;
}

/* Points `words` to each of `count` strings, which follow one another before `end`. */
static char *point_to(char **words, size_t count, char *at, const char *end) {
    for (size_t i = 0; i < count; i++) {
        char *stop = memchr(at, '\0', (size_t)(end - at));
        if (stop == NULL) malformed("text is too short");
        words[i] = at;
        at = stop + 1;
    }
    words[count] = NULL;
    return at;
}

/* ---- the environment --------------------------------------------------------------------- */

static size_t count_words(char **words) {
    size_t count = 0;
    while (words[count] != NULL) count++;
    return count;
}

/* Changes the environment that the runtime gave us (HOME, for one, comes from the runtime): only
 * the frame's variables are set. */
static char **merge(char **base, char **changes, size_t change_count) {
    size_t used = count_words(base);
    char **merged = allocate((used + change_count + 1) * sizeof *merged);
    memcpy(merged, base, used * sizeof *merged);
    for (size_t i = 0; i < change_count; i++) {
        const char *equals = strchr(changes[i], '=');
        if (equals == NULL || equals == changes[i]) malformed("variable without a name");
        size_t name = (size_t)(equals - changes[i]) + 1, at = 0;
        while (at < used && strncmp(merged[at], changes[i], name) != 0) at++;
        merged[at] = changes[i];
        if (at == used) used++;
    }
    merged[used] = NULL;
    return merged;
}

static const char *value_of(char **words, const char *name) {
    size_t size = strlen(name);
    for (; *words != NULL; words++)
        if (strncmp(*words, name, size) == 0 && (*words)[size] == '=') return *words + size + 1;
    return NULL;
}

/* ---- files ------------------------------------------------------------------------------- */

/* Failures show in the open that follows. */
static void make_parents(char *path) {
    for (char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = '\0';
        (void)mkdir(path, ANY_MODE);
        *at = '/';
    }
}

/* O_NONBLOCK: opening a fifo without a reader is an error, not a wait. */
static int open_file(char *path, mode_t mode) {
    const int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd = open(path, flags, mode);
    if (fd < 0 && errno == ENOENT) {
        make_parents(path);
        fd = open(path, flags, mode);
    }
    if (fd < 0) refuse(CODE_REFUSED, "file", errno, path);
    return fd;
}

static void write_block(int fd, const char *block, size_t size, const char *path) {
    while (size > 0) {
        ssize_t n = write(fd, block, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) refuse(CODE_REFUSED, "file", errno, path);
        block += n;
        size -= (size_t)n;
    }
}

/* Sets the mode regardless of the umask and of the file's former mode. */
static void set_mode(int fd, mode_t mode, const char *path) {
    struct stat status;
    if (fstat(fd, &status) < 0) refuse(CODE_REFUSED, "file", errno, path);
    if (!S_ISREG(status.st_mode) || (status.st_mode & MODES) == mode) return;
    if (fchmod(fd, mode) < 0) refuse(CODE_REFUSED, "file", errno, path);
}

static void write_file(void) {
    static char block[BLOCK];
    unsigned char raw[FILE_HEAD_SIZE];
    char path[PATH_MAX];
    read_exactly(raw, sizeof raw);
    uint32_t path_bytes = number(raw), mode = number(raw + 4);
    uint64_t left = (uint64_t)number(raw + 8) << 32 | number(raw + 12);
    if (path_bytes == 0 || path_bytes >= sizeof path) malformed("path is empty or too long");
    if (mode > MODES) malformed("bad file mode");
    read_exactly(path, path_bytes);
    path[path_bytes] = '\0';
    if (path[0] != '/' || strlen(path) != path_bytes) malformed("path is not absolute");
    int fd = open_file(path, (mode_t)mode);
    while (left > 0) {
        size_t size = left < sizeof block ? (size_t)left : sizeof block;
        read_exactly(block, size);
        write_block(fd, block, size, path);
        left -= size;
    }
    set_mode(fd, (mode_t)mode, path);
    if (close(fd) < 0) refuse(CODE_REFUSED, "file", errno, path);
}

/* ---- the program ------------------------------------------------------------------------- */

/* Looks the program up as a runtime does: in the program's own PATH, and without taking a shell for
 * a script that has no `#!`, as C libraries do. Returns the most telling error. */
static int run_from_path(char **args, char **env) {
    const char *at = value_of(env, "PATH");
    int told = ENOENT;
    char path[PATH_MAX];
    while (at != NULL) {
        const char *colon = strchr(at, ':');
        size_t size = colon == NULL ? strlen(at) : (size_t)(colon - at);
        const char *place = size == 0 ? "." : at; /* an empty one is the working directory */
        int length = size == 0 ? 1 : size < sizeof path ? (int)size : (int)sizeof path;
        int whole = snprintf(path, sizeof path, "%.*s/%s", length, place, args[0]);
        if (whole < (int)sizeof path) {
            (void)execve(path, args, env);
            if (errno != ENOENT && errno != ENOTDIR && errno != EACCES) return errno;
            if (errno == EACCES) told = EACCES;
        }
        at = colon == NULL ? NULL : colon + 1;
    }
    return told;
}

static _Noreturn void become(char **args, char **env) {
    if (write(REPORT_FD, "go\n", 3) < 0) _exit(CODE_REFUSED); /* the pool no longer waits for us */
    int error;
    if (strchr(args[0], '/') == NULL) {
        error = run_from_path(args, env);
    } else {
        (void)execve(args[0], args, env);
        error = errno;
    }
    int code = error == ENOENT ? CODE_NOT_FOUND : CODE_CANNOT_RUN;
    refuse(code, "program", error, args[0]);
}

int main(void) {
    if (fcntl(REPORT_FD, F_SETFD, FD_CLOEXEC) < 0) return CODE_REFUSED;
    struct head head = read_head();
    char *text = allocate(head.text_bytes);
    char *end = text + head.text_bytes;
    read_exactly(text, head.text_bytes);
    char **args = allocate(((size_t)head.args + 1) * sizeof *args);
    char **changes = allocate(((size_t)head.env + 1) * sizeof *changes);
    char *directory[2];
    char *at = point_to(directory, 1, text, end);
    at = point_to(args, head.args, at, end);
    at = point_to(changes, head.env, at, end);
    if (at != end) malformed("text is too long");
    char **env = merge(environ, changes, head.env);
    for (uint32_t i = 0; i < head.files; i++) write_file();
    if (*directory[0] != '\0' && chdir(directory[0]) < 0)
        refuse(CODE_REFUSED, "cwd", errno, directory[0]);
    if (head.hand_on && fcntl(REPORT_FD, F_SETFD, 0) < 0)
        refuse(CODE_REFUSED, "frame", errno, "cannot hand the report on");
    become(args, env);
}
