/* Whether the container that a runtime has under an id is ours. */
#include "owned.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "tree.h"

enum { CHUNK_SIZE = 16 * 1024, SLACK = 3 }; /* the end of an escape may become three bytes */
enum { DIRECTORY_FLAGS = O_RDONLY | O_DIRECTORY, STATES = 2 };

/* Files in which runc and youki, and crun, keep what they know of a container, the bundle's path
 * included; and crun's copy of the spec, which is there before the rest. */
static const char *const files[] = {"state.json", "status", "config.json"};
enum { FILES = sizeof files / sizeof *files };

/* Whether the text has the path of our bundle, or of a file in the bundle. The path must end there:
 * another bundle's path may begin in the same way. */
static bool says(const char *text, size_t size, const char *words) {
    size_t length = strlen(words);
    const char *end = text + size, *at = text;
    while ((at = memmem(at, (size_t)(end - at), words, length)) != NULL) {
        if (at + length < end && (at[length] == '"' || at[length] == '/')) return true;
        at++;
    }
    return false;
}

/* How much of a JSON escape has been read: only the backslash, or \u and some digits. */
struct escape {
    bool begun;
    int left;
    unsigned value;
};

static int hex_digit(char c) {
    const char *digits = "0123456789abcdef", *at = strchr(digits, c | 0x20);
    return c == '\0' || at == NULL ? 0 : (int)(at - digits);
}

/* Writes a character in UTF-8; returns its length. */
static size_t put(char *at, unsigned value) {
    if (value < 0x80) {
        at[0] = (char)value;
        return 1;
    }
    size_t size = value < 0x800 ? 2 : 3;
    for (size_t i = size - 1; i > 0; i--, value >>= 6) at[i] = (char)(0x80 | (value & 0x3f));
    at[0] = (char)((size == 2 ? 0xc0 : 0xe0) | value);
    return size;
}

/* Resolves the JSON escapes of `text`, which stands at least SLACK bytes after `to`: json-c, which
 * crun uses, writes \/ for a slash, and Go \u003c for <. Returns the new size. */
static size_t unescape(char *to, const char *text, size_t size, struct escape *escape) {
    size_t kept = 0;
    for (size_t i = 0; i < size; i++) {
        if (escape->left > 0) {
            escape->value = escape->value * 16 + (unsigned)hex_digit(text[i]);
            if (--escape->left == 0) kept += put(to + kept, escape->value);
        } else if (escape->begun) {
            escape->begun = false;
            if (text[i] == 'u') *escape = (struct escape){.left = 4};
            else to[kept++] = text[i];
        } else if (text[i] == '\\') {
            escape->begun = true;
        } else {
            to[kept++] = text[i];
        }
    }
    return kept;
}

/* Whether a file has the path. The end of one chunk is kept before the next: the path may be cut
 * there. */
static bool mentions(int fd, const char *words) {
    char text[2 * CHUNK_SIZE + SLACK];
    struct escape escape = {0};
    size_t kept = 0, length = strlen(words);
    ssize_t n;
    bool found = false;
    if (length == 0 || length >= CHUNK_SIZE) return false;
    while (!found && (n = read(fd, text + kept + SLACK, CHUNK_SIZE)) > 0) {
        size_t size = kept + unescape(text + kept, text + kept + SLACK, (size_t)n, &escape);
        found = says(text, size, words);
        kept = size < length ? size : length;
        memmove(text, text + size - kept, kept);
    }
    return found;
}

static bool is_there(int directory, const char *name) {
    struct stat status;
    return fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

bool is_owned(const char *directory, const char *words) {
    int fd = open_ours(AT_FDCWD, directory, DIRECTORY_FLAGS, S_IFDIR);
    bool found = false;
    for (int i = 0; fd >= 0 && !found && i < FILES; i++) {
        int file = open_ours(fd, files[i], O_RDONLY, S_IFREG);
        if (file < 0) continue;
        found = mentions(file, words);
        close(file);
    }
    if (fd >= 0) close(fd);
    return found;
}

/* Whether the runtime may read this file: the file must be ours, and a file of the kind that names
 * a bundle must name this bundle. */
static bool may_be_read(int directory, int number, const char *words) {
    struct stat status;
    if (!is_there(directory, files[number])) return true;
    int file = open_ours(directory, files[number], O_RDONLY, S_IFREG);
    if (file < 0) return false;
    bool right = number >= STATES || (fstat(file, &status) == 0 && status.st_size == 0) ||
                 mentions(file, words);
    close(file);
    return right;
}

static bool is_our_file(const char *path) {
    int fd = open_ours(AT_FDCWD, path, O_PATH, S_IFREG);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

bool is_nobody_elses(const char *directory, const char *words) {
    if (!is_there(AT_FDCWD, directory) || is_our_file(directory)) return true;
    int fd = open_ours(AT_FDCWD, directory, DIRECTORY_FLAGS, S_IFDIR);
    bool right = fd >= 0;
    for (int i = 0; right && i < FILES; i++) right = may_be_read(fd, i, words);
    if (fd >= 0) close(fd);
    return right;
}

/* ---- what a killed create has begun ------------------------------------------------------ */

#define LETTERS "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
enum { NAMESPACE_SIZE = 64, ARGUMENTS_SIZE = 128 * 1024 };

/* Names that runc and crun use before their files are written: the fifo that `start` opens; runc's
 * copy of itself (mkostemp(3)); the file that runc renames to state.json (Go's os.CreateTemp); and
 * the files above, while they are empty. */
static bool has_form(const char *name, const char *prefix, const char *letters, size_t least) {
    size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 && strspn(name + length, letters) >= least &&
           name[length + strspn(name + length, letters)] == '\0';
}

static bool is_empty_file(int directory, const char *name) {
    struct stat status;
    for (int i = 0; i < FILES; i++)
        if (strcmp(name, files[i]) == 0)
            return fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
                   S_ISREG(status.st_mode) && status.st_size == 0;
    return false;
}

static bool is_copy(const char *name) {
    return has_form(name, "runc.", LETTERS, 6) && strlen(name) == 11;
}

static bool look_for_more(int directory, const char *name, void *begun) {
    return *(bool *)begun = strcmp(name, "exec.fifo") == 0 || is_copy(name) ||
                            has_form(name, "state-", "0123456789", 1) ||
                            is_empty_file(directory, name);
}

struct search {
    const char *word;
    bool found;
    char namespace[NAMESPACE_SIZE];
};

/* Whether a process is in another pid namespace. If its namespace can't be read, assume ours. */
static bool is_elsewhere(int process, const char *namespace) {
    char name[NAMESPACE_SIZE];
    ssize_t n = readlinkat(process, "ns/pid", name, sizeof name - 1);
    if (n < 0) return errno == ENOENT || errno == ESRCH;
    name[n] = '\0';
    return strcmp(name, namespace) != 0;
}

/* Whether a process has this argument, after argv[0]. If no descriptor is left to read the
 * arguments, assume so. */
static bool has_argument(int process, const char *word) {
    static char text[ARGUMENTS_SIZE];
    bool found = false;
    int fd = openat(process, "cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == EMFILE || errno == ENFILE;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return false;
    text[n] = '\0';
    for (char *at = text + strlen(text) + 1; !found && at < text + n; at += strlen(at) + 1)
        found = strcmp(at, word) == 0;
    return found;
}

/* Looks at one process. Skips processes of other users and of containers: reading their arguments
 * may block. A process that may not be traced belongs to root here. */
static bool look_at(int proc, const char *name, void *data) {
    struct search *search = data;
    struct stat status;
    if (strspn(name, "0123456789") < strlen(name) || atoi(name) == getpid()) return true;
    int fd = openat(proc, name, O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        search->found = errno != ENOENT && errno != ESRCH;
    } else {
        search->found = fstat(fd, &status) == 0 &&
                        (status.st_uid == geteuid() || status.st_uid == 0) &&
                        !is_elsewhere(fd, search->namespace) && has_argument(fd, search->word);
        close(fd);
    }
    return !search->found;
}

/* Whether a process has this argument. If /proc couldn't be searched, assume so. */
static bool is_argument(const char *word) {
    struct search search = {.word = word, .found = false};
    ssize_t n = readlink("/proc/self/ns/pid", search.namespace, sizeof search.namespace - 1);
    int proc = open("/proc", DIRECTORY_FLAGS | O_CLOEXEC);
    bool whole = n > 0 && proc >= 0 && for_each(proc, look_at, &search);
    if (proc >= 0) close(proc);
    return search.found || !whole;
}

static bool detach_copy(int directory, const char *name, void *data) {
    char path[PATH_MAX];
    (void)data;
    if (!is_copy(name)) return true;
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", directory, name);
    umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW); /* as a rule nothing is mounted there */
    return true;
}

void detach_copies(const char *directory) {
    int fd = open_ours(AT_FDCWD, directory, DIRECTORY_FLAGS, S_IFDIR);
    if (fd < 0) return;
    for_each(fd, detach_copy, NULL);
    close(fd);
}

static bool unlink_entry(int directory, const char *name, void *data) {
    detach_copy(directory, name, data);
    unlinkat(directory, name, 0);
    return true;
}

/* A create that isn't seen in /proc has ended before: all that it made is there when we look. */
void remove_begun(const char *directory) {
    const char *name;
    bool begun = true;
    int parent = open_parent(directory, &name);
    int fd = parent < 0 ? -1 : open_ours(parent, name, DIRECTORY_FLAGS, S_IFDIR);
    if (fd >= 0 && !is_argument(name) && for_each(fd, look_for_more, &begun) && begun &&
        for_each(fd, unlink_entry, NULL))
        unlinkat(parent, name, AT_REMOVEDIR);
    if (fd >= 0) close(fd);
    if (parent >= 0) close(parent);
}
