/*
 * supervisor-hook: runs an OCI hook so that it finds the user's bundle, as with a bare runtime.
 *
 * Usage: supervisor-hook FROM TO BUNDLE HOOK NAME [ARG...]
 *
 * A container runs from a bundle directory of ours that holds only config.json. So before the hook
 * runs, the working directory changes from FROM to TO, the user's bundle; if FROM is empty, from
 * anywhere. In the state on the hook's stdin (OCI runtime spec, "State") BUNDLE, a JSON string,
 * replaces the path of our bundle. What can't be changed stays as it is.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_SIZE = 4096, CANNOT_RUN = 127 };

static const char KEY[] = "\"bundle\"";

static bool is_here(const char *path) {
    struct stat here, there;
    return stat(".", &here) == 0 && stat(path, &there) == 0 && here.st_dev == there.st_dev &&
           here.st_ino == there.st_ino;
}

/* A runtime closes its end of the pipe when it has written the whole state. */
static char *read_all(size_t *size) {
    char *text = NULL, *more;
    ssize_t n;
    *size = 0;
    do {
        more = realloc(text, *size + CHUNK_SIZE);
        if (more == NULL) break;
        text = more;
        n = read(STDIN_FILENO, text + *size, CHUNK_SIZE);
        if (n > 0) *size += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    return text;
}

static size_t string_end(const char *text, size_t size, size_t at) {
    for (at++; at < size && text[at] != '"'; at++)
        if (text[at] == '\\') at++;
    return at < size ? at + 1 : size;
}

static bool is_key(const char *text, size_t size, size_t end) {
    while (end < size && strchr(" \t\r\n", text[end]) != NULL) end++;
    return end < size && text[end] == ':';
}

/* Finds the value of the state's own "bundle" key. Deeper keys, such as an annotation's, are the
 * user's. */
static bool find_bundle(const char *text, size_t size, size_t *from, size_t *to) {
    size_t depth = 0;
    bool ours = false;
    for (*from = 0; *from < size; *from = *to) {
        char one = text[*from];
        *to = one == '"' ? string_end(text, size, *from) : *from + 1;
        if (one == '{' || one == '[') depth++;
        if (one == '}' || one == ']') depth--;
        if (one != '"' || depth != 1) continue;
        if (is_key(text, size, *to))
            ours = *to - *from == strlen(KEY) && memcmp(text + *from, KEY, strlen(KEY)) == 0;
        else if (ours) return true;
    }
    return false;
}

static bool write_all(int fd, const char *text, size_t size) {
    for (ssize_t n; size > 0; text += n, size -= (size_t)n)
        if ((n = write(fd, text, size)) <= 0) return false;
    return true;
}

static bool tell_state(const char *bundle) {
    size_t size, from, to;
    char *text = read_all(&size);
    int fd = memfd_create("state", MFD_CLOEXEC);
    if (fd < 0 || (text == NULL && size > 0)) return false;
    if (!find_bundle(text, size, &from, &to)) from = to = size;
    bool told = write_all(fd, text, from) &&
                (from == to || write_all(fd, bundle, strlen(bundle))) &&
                write_all(fd, text + to, size - to);
    free(text);
    return told && lseek(fd, 0, SEEK_SET) == 0 && dup2(fd, STDIN_FILENO) == STDIN_FILENO;
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "usage: supervisor-hook FROM TO BUNDLE HOOK NAME [ARG...]\n");
        return 2;
    }
    const char *from = argv[1], *to = argv[2], *hook = argv[4];
    if (!tell_state(argv[3])) {
        fprintf(stderr, "cannot pass the state to the hook %s: %s\n", hook, strerror(errno));
        return CANNOT_RUN;
    }
    if ((from[0] == '\0' || is_here(from)) && chdir(to) < 0)
        errno = 0; /* the bundle may be gone by the container's end: stay where we are */
    execv(hook, argv + 5);
    fprintf(stderr, "cannot run the hook %s: %s\n", hook, strerror(errno));
    return CANNOT_RUN;
}
