/* Whether what a runtime knows under an id is ours: somebody else may have put it there. */
#include "owned.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "tree.h"

enum { CHUNK_SIZE = 16 * 1024 };
enum { DIRECTORY_FLAGS = O_RDONLY | O_DIRECTORY, STATES = 2 };

/* Where runc and youki, and crun, keep what they know, the bundle's path among it; and crun's copy of
 * the spec, which is there before the rest. */
static const char *const files[] = {"state.json", "status", "config.json"};
enum { FILES = sizeof files / sizeof *files };

/* The path of our bundle, or of what is in it: as a whole, since another one's may begin so too. */
static bool says(const char *text, size_t size, const char *words) {
    size_t length = strlen(words);
    const char *end = text + size, *at = text;
    while ((at = memmem(at, (size_t)(end - at), words, length)) != NULL) {
        if (at + length < end && (at[length] == '"' || at[length] == '/')) return true;
        at++;
    }
    return false;
}

/* A part of it that was cut by our buffer comes first in the next one. */
static bool mentions(int fd, const char *words) {
    char text[2 * CHUNK_SIZE];
    size_t kept = 0, length = strlen(words);
    ssize_t n;
    bool found = false;
    if (length == 0 || length >= CHUNK_SIZE) return false;
    while (!found && (n = read(fd, text + kept, CHUNK_SIZE)) > 0) {
        size_t size = kept + (size_t)n;
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

/* Of a file that a runtime reads: ours; and if it names a bundle, then this one. */
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

/* What runc and crun make before any of their files, and runc's copy of itself (mkostemp(3)); and
 * those files, as long as they are empty. */
static bool is_begun(int directory, const char *name, void *begun) {
    struct stat status;
    bool right = strcmp(name, "exec.fifo") == 0 ||
                 (strncmp(name, "runc.", 5) == 0 && strspn(name + 5, LETTERS) == 6 &&
                  strlen(name) == 11);
    for (int i = 0; !right && i < FILES; i++)
        right = strcmp(name, files[i]) == 0 &&
                fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_size == 0;
    return *(bool *)begun = right;
}

static bool namespace_of(int process, char name[NAMESPACE_SIZE]) {
    ssize_t n = readlinkat(process, "ns/pid", name, NAMESPACE_SIZE - 1);
    if (n >= 0) name[n] = '\0';
    return n >= 0;
}

struct search {
    const char *word;
    bool found;
    char namespace[NAMESPACE_SIZE];
};

static bool has_argument(int process, const char *word) {
    static char text[ARGUMENTS_SIZE];
    bool found = false;
    int fd = openat(process, "cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n > 0) text[n] = '\0';
    for (char *at = text; n > 0 && !found && at < text + n; at += strlen(at) + 1)
        found = strcmp(at, word) == 0;
    if (fd >= 0) close(fd);
    return found;
}

/* Other users' processes, and those of containers, are none of our business: to read their
 * arguments may wait for them. */
static bool look_at(int proc, const char *name, void *data) {
    struct search *search = data;
    char namespace[NAMESPACE_SIZE];
    struct stat status;
    int fd = name[0] < '1' || name[0] > '9' ? -1 : openat(proc, name, O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return true;
    search->found = fstat(fd, &status) == 0 && status.st_uid == geteuid() &&
                    namespace_of(fd, namespace) && strcmp(namespace, search->namespace) == 0 &&
                    has_argument(fd, search->word);
    close(fd);
    return !search->found;
}

static bool is_argument(const char *word) {
    struct search search = {.word = word, .found = true};
    int proc = open("/proc", DIRECTORY_FLAGS | O_CLOEXEC);
    int self = proc < 0 ? -1 : openat(proc, "self", O_DIRECTORY | O_CLOEXEC);
    if (self >= 0 && namespace_of(self, search.namespace)) {
        search.found = false;
        for_each(proc, look_at, &search);
    }
    if (self >= 0) close(self);
    if (proc >= 0) close(proc);
    return search.found;
}

static bool unlink_entry(int directory, const char *name, void *data) {
    (void)data;
    unlinkat(directory, name, 0);
    return true;
}

void remove_begun(const char *directory) {
    const char *name;
    bool begun = true;
    int parent = open_parent(directory, &name);
    int fd = parent < 0 ? -1 : open_ours(parent, name, DIRECTORY_FLAGS, S_IFDIR);
    if (fd < 0) return;
    for_each(fd, is_begun, &begun);
    if (!begun || is_argument(name)) return;
    for_each(fd, unlink_entry, NULL);
    unlinkat(parent, name, AT_REMOVEDIR);
}
