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
