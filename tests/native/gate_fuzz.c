/*
 * The gate's reader of frames, fuzzed: COUNT frames, most of them nearly good, come in pieces of any
 * size, and what the gate does is compared with a slow model of the frame's table.
 *
 * Usage: fuzz SEED COUNT
 */
#include <setjmp.h>
#include <stdlib.h>

int gate_main(void);
void *pretended_malloc(size_t size);
#define main gate_main
#define read pretended_read
#define write pretended_write
#define open pretended_open
#define close pretended_close
#define mkdir pretended_mkdir
#define fstat pretended_fstat
#define fchmod pretended_fchmod
#define fcntl pretended_fcntl
#define chdir pretended_chdir
#define execve pretended_execve
#define malloc pretended_malloc
#define _exit pretended_exit
#include "gate.c"
#undef main
#undef malloc

enum { FRAME_MAX = 4096, TAIL = 16, FILE_FD = 9, ALLOCATIONS = 8 };

static unsigned char input[FRAME_MAX + TAIL];
static size_t input_size, consumed;
static char said[2 * PIPE_BUF];
static size_t said_size;
static uint64_t written;
static void *allocated[ALLOCATIONS];
static size_t allocations;
static jmp_buf ended;

/* ---- input at random --------------------------------------------------------------------- */

static uint64_t state;

static unsigned below(unsigned bound) { /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (unsigned)((z ^ (z >> 31)) % bound);
}

static void put(const void *bytes, size_t size) {
    memcpy(input + input_size, bytes, size);
    input_size += size;
}

static void put_number(uint64_t value, int bytes) {
    for (int i = bytes - 1; i >= 0; i--) {
        unsigned char byte = (unsigned char)(value >> (8 * i));
        put(&byte, 1);
    }
}

static void make_good(void) {
    char text[512];
    size_t size = 0;
    unsigned args = 1 + below(4), env = below(4), files = below(4);
    size += (size_t)sprintf(text + size, "%s", below(2) ? "/tmp" : "") + 1;
    for (unsigned i = 0; i < args; i++) size += (size_t)sprintf(text + size, "a%u", below(99)) + 1;
    for (unsigned i = 0; i < env; i++)
        size += (size_t)sprintf(text + size, "%c=%u", 'A' + (int)below(3), below(99)) + 1;
    input_size = 0;
    put(MAGIC, 4);
    put_number(args, 4), put_number(env, 4), put_number(files, 4), put_number(size, 4);
    put_number(below(2), 4);
    put(text, size);
    for (unsigned i = 0; i < files; i++) {
        unsigned length = below(200);
        put_number(6, 4), put_number(0644, 4), put_number(length, 8);
        put("/tmp/x", 6);
        memset(input + input_size, (int)below(256), length);
        input_size += length;
    }
}

static void mutate(void) {
    static const unsigned char bytes[] = {0, 1, 2, 4, 6, 0x7f, 0x80, 0xff, '/', '='};
    size_t at = below((unsigned)input_size);
    unsigned char byte = below(4) ? bytes[below(sizeof bytes)] : (unsigned char)below(256);
    if (below(4) == 0) at = below(input_size < HEAD_SIZE ? (unsigned)input_size : HEAD_SIZE);
    switch (below(4)) {
    case 0: input_size = at; break;
    case 1:
        input_size--;
        memmove(input + at, input + at + 1, input_size - at);
        break;
    case 2:
        memmove(input + at + 1, input + at, input_size - at);
        input_size++;
        input[at] = byte;
        break;
    default: input[at] = byte;
    }
}

/* ---- what the gate meets ------------------------------------------------------------------ */

ssize_t pretended_read(int fd, void *into, size_t size) {
    if (fd != STDIN_FILENO) abort();
    if (below(16) == 0) return errno = EINTR, -1;
    size_t n = input_size - consumed;
    if (n > size) n = size;
    if (n > 1 && below(2)) n = 1 + below((unsigned)n);
    memcpy(into, input + consumed, n);
    consumed += n;
    return (ssize_t)n;
}

ssize_t pretended_write(int fd, const void *from, size_t size) {
    if (fd == FILE_FD) {
        size_t n = size > 1 && below(2) ? 1 + below((unsigned)size) : size;
        written += n;
        return (ssize_t)n;
    }
    if (fd != REPORT_FD || said_size + size > sizeof said) abort();
    memcpy(said + said_size, from, size);
    said_size += size;
    return (ssize_t)size;
}

int pretended_open(const char *path, int flags, ...) {
    (void)flags;
    if (path[0] != '/') abort();
    return FILE_FD;
}

int pretended_close(int fd) {
    return fd == FILE_FD ? 0 : -1;
}

int pretended_mkdir(const char *path, mode_t mode) {
    (void)path, (void)mode;
    return -1;
}

int pretended_fstat(int fd, struct stat *status) {
    memset(status, 0, sizeof *status);
    status->st_mode = S_IFREG | 0644;
    return fd == FILE_FD ? 0 : -1;
}

int pretended_fchmod(int fd, mode_t mode) {
    return fd == FILE_FD && mode <= 07777 ? 0 : -1;
}

int pretended_fcntl(int fd, int command, ...) {
    return fd == REPORT_FD && command == F_SETFD ? 0 : -1;
}

int pretended_chdir(const char *path) {
    (void)strlen(path);
    return 0;
}

int pretended_execve(const char *path, char *const *args, char *const *env) {
    (void)strlen(path);
    while (*args != NULL) (void)strlen(*args++);
    while (*env != NULL) (void)strlen(*env++);
    longjmp(ended, 1);
}

void *pretended_malloc(size_t size) {
    if (allocations == ALLOCATIONS) abort();
    return allocated[allocations++] = malloc(size);
}

_Noreturn void pretended_exit(int code) {
    (void)code;
    longjmp(ended, 2);
}

/* ---- the model ---------------------------------------------------------------------------- */

static uint64_t model_number(size_t at, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value = value * 256 + input[at + (size_t)i];
    return value;
}

/* How long the frame is, and how much it has written by its end; -1 if it isn't one. */
static long model(uint64_t *contents) {
    size_t at = 24;
    *contents = 0;
    if (input_size < 24 || memcmp(input, "TSG2", 4) != 0) return -1;
    uint64_t args = model_number(4, 4), env = model_number(8, 4), files = model_number(12, 4);
    uint64_t text = model_number(16, 4), words = 0;
    if (model_number(20, 4) > 1) return -1;
    if (args == 0 || text == 0 || input_size - at < text) return -1;
    for (size_t begin = at, i = at; i < at + text; i++) {
        if (input[i] != 0) continue;
        if (words > args) {
            const unsigned char *equals = memchr(input + begin, '=', i - begin);
            if (equals == NULL || equals == input + begin) return -1;
        }
        words++;
        begin = i + 1;
    }
    at += text;
    if (words != 1 + args + env || input[at - 1] != 0) return -1;
    for (; files > 0; files--) {
        if (input_size - at < 16) return -1;
        uint64_t path = model_number(at, 4), mode = model_number(at + 4, 4);
        uint64_t size = model_number(at + 8, 8);
        at += 16;
        if (path == 0 || path > 4095 || mode > 07777 || input_size - at < path) return -1;
        if (input[at] != '/' || memchr(input + at, 0, path) != NULL) return -1;
        at += path;
        if (input_size - at < size) return -1;
        at += size;
        *contents += size;
    }
    return (long)at;
}

/* Returns whether it was a good one. */
static bool compare(void) {
    uint64_t contents;
    long wanted = model(&contents);
    consumed = said_size = allocations = 0;
    written = 0;
    int how = setjmp(ended);
    if (how == 0) gate_main();
    while (allocations > 0) free(allocated[--allocations]);
    bool ran = how == 1 && said_size == 3 && memcmp(said, "go\n", 3) == 0;
    bool refused = how == 2 && said_size > 6 && memcmp(said, "frame ", 6) == 0;
    bool right = wanted < 0 ? refused : ran && consumed == (size_t)wanted && written == contents;
    if (right) return wanted >= 0;
    fprintf(stderr, "%.*s, %zu bytes taken, %ld wanted:", (int)said_size, said, consumed, wanted);
    for (size_t i = 0; i < input_size; i++) fprintf(stderr, " %02x", input[i]);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    state = strtoull(argv[1], NULL, 10);
    long count = strtol(argv[2], NULL, 10), good = 0;
    for (long i = 0; i < count; i++) {
        make_good();
        if (i % 1000 == 0) { /* and cut at every byte */
            size_t whole = input_size;
            for (input_size = 0; input_size < whole; input_size++)
                if (compare()) abort();
        }
        unsigned mutations = below(4);
        while (mutations-- > 0 && input_size > 0) mutate();
        put("the program's", below(TAIL - 2));
        good += compare();
    }
    printf("%ld frames, %ld good\n", count, good);
    return 0;
}
