/*
 * The log, fuzzed: BYTES bytes of lines of all lengths, cut at random, and what is in the file is
 * joined up again. Usage: fuzz SEED BYTES PATH
 */
#include "log.c"

void fail(int error, const char *phase, const char *format, ...) {
    (void)error, (void)phase, (void)format;
    abort();
}

static uint64_t state;

static unsigned below(unsigned bound) { /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (unsigned)((z ^ (z >> 31)) % bound);
}

/* Lines of a few bytes, of about a record's size and its multiples, and of any size. */
static void make_input(char *input, size_t size) {
    for (size_t at = 0; at < size;) {
        size_t line = below(3) ? below(100) : below(200000);
        if (below(8) == 0) line = CONTENT_MAX * below(4) + below(5) - 2;
        for (; line > 0 && line < 1000000 && at < size; line--) {
            char byte = (char)below(256);
            input[at++] = byte == '\n' ? ' ' : byte;
        }
        if (at < size) input[at++] = '\n';
    }
}

static size_t some(size_t left) {
    static const unsigned bounds[] = {2, 20, 2000, CONTENT_MAX + 2, CHUNK};
    size_t n = 1 + below(bounds[below(5)]);
    if (below(16) == 0) n = CONTENT_MAX;
    return n < left ? n : left;
}

static void check(bool good, const char *what, size_t at) {
    if (good) return;
    fprintf(stderr, "%s at byte %zu of the input\n", what, at);
    exit(1);
}

/* Reads the records again: an F stands for a newline, a P doesn't. */
static void compare(const char *input, size_t size, const char *log, size_t log_size) {
    static const char form[] = "2026-01-31T12:34:56.123456789Z stdout ";
    size_t at = 0;
    while (log_size > 0) {
        const char *end = memchr(log, '\n', log_size);
        check(end != NULL && (size_t)(end - log) >= sizeof form + 1, "half a record", at);
        char tag = log[sizeof form - 1];
        const char *content = log + sizeof form + 1;
        size_t length = (size_t)(end - content);
        check(memcmp(log + 30, form + 30, 8) == 0 && content[-1] == ' ', "a broken head", at);
        check(length <= CONTENT_MAX && at + length <= size, "too much", at);
        check(memcmp(content, input + at, length) == 0, "other bytes", at);
        at += length;
        if (tag == 'P') check(length == CONTENT_MAX || at == size, "a part too early", at);
        else check(tag == 'F' && at < size && input[at] == '\n', "a newline of its own", at);
        at += tag == 'F';
        log_size -= (size_t)(end - log) + 1;
        log = end + 1;
    }
    check(at == size, "the end is missing", at);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    state = strtoull(argv[1], NULL, 10);
    size_t size = (size_t)atol(argv[2]), room = 64 * size;
    char *input = malloc(size), *log = malloc(room), *copy = malloc(CHUNK);
    if (input == NULL || log == NULL || copy == NULL) return 2;
    make_input(input, size);
    cri.path = argv[3];
    cri.max_bytes = (long long)room;
    cri.files = 1;
    log_open();
    for (size_t at = 0, n; at < size; at += n) {
        n = some(size - at);
        char *exact = copy + CHUNK - n; /* so that a read beyond its end is seen */
        memcpy(exact, input + at, n);
        tell_time();
        take(&cri.sources[0], exact, n);
        if (below(2)) flush();
    }
    emit_rests(true);
    ssize_t written = pread(cri.fd, log, room, 0);
    check(written == cri.written, "a wrong size", size);
    compare(input, size, log, (size_t)written);
    printf("%zu bytes in %zd\n", size, written);
    free(input);
    free(log);
    free(copy);
    return 0;
}
