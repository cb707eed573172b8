/* Whether what a runtime knows under an id is ours: its root may be shared with others. */
#include "owned.h"

#include <fcntl.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { CHUNK_SIZE = 16 * 1024 };

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
static bool mentions(int directory, const char *name, const char *words) {
    char text[2 * CHUNK_SIZE];
    size_t kept = 0, length = strlen(words);
    ssize_t n;
    bool found = false;
    if (length == 0 || length >= CHUNK_SIZE) return false;
    int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return false;
    while (!found && (n = read(fd, text + kept, CHUNK_SIZE)) > 0) {
        size_t size = kept + (size_t)n;
        found = says(text, size, words);
        kept = size < length ? size : length;
        memmove(text, text + size - kept, kept);
    }
    close(fd);
    return found;
}

bool is_owned(const char *directory, const char *words) {
    /* where runc and youki, and crun, keep what they know; and crun's copy of the spec */
    static const char *const files[] = {"state.json", "status", "config.json"};
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool found = false;
    for (size_t i = 0; fd >= 0 && !found && i < sizeof files / sizeof *files; i++)
        found = mentions(fd, files[i], words);
    if (fd >= 0) close(fd);
    return found;
}
