/*
 * The parser of control lines, fuzzed: COUNT lines, most of them nearly good, come through a pipe in
 * pieces of any size, and what the shim does is compared with a slow model of the protocol's table.
 *
 * Usage: fuzz SEED COUNT
 */
#include <signal.h>

/* What the lines have an effect on; the shim's other parts are linked as they are. */
#define kill pretended_kill
#define note pretended_note
#define terminal_resize pretended_resize
#define terminal_hang_up pretended_hang_up
#define close_quietly pretended_close
#define main shim_main
int pretended_kill(int pid, int number);
int shim_main(int argc, char **argv);
#include "shim.c"
#undef main

enum { STDIN_CLOSED, OUTPUT_CLOSED, RESIZED, SIGNALLED, RELEASED, TOLD, HUNG_UP, WARNED };
enum { PROCESS = 4711, NO_SUCH_FD = 1000000, BATCH = 64, INPUT_MAX = BATCH * 1000 };

struct effect {
    int what, first, second;
};

static struct effect effects[INPUT_MAX];
static int effect_count;
static bool has_terminal;

static void done(int what, int first, int second) {
    effects[effect_count++] = (struct effect){what, first, second};
}

int pretended_kill(int pid, int number) {
    if (pid != PROCESS) abort();
    done(SIGNALLED, number, 0);
    return 0;
}

void pretended_note(const char *level, const char *format, ...) {
    (void)level, (void)format;
    done(WARNED, 0, 0);
}

bool pretended_resize(int columns, int rows) {
    if (has_terminal) done(RESIZED, columns, rows);
    return has_terminal;
}

bool pretended_hang_up(void) {
    if (has_terminal) done(HUNG_UP, 0, 0);
    return has_terminal;
}

void pretended_close(int *fd) {
    if (fd == &shim.holder[STDIN_FILENO]) done(STDIN_CLOSED, 0, 0);
    else if (fd == &shim.holder[STDOUT_FILENO]) done(OUTPUT_CLOSED, 1, 0);
    else if (fd == &shim.holder[STDERR_FILENO]) done(OUTPUT_CLOSED, 2, 0);
    else abort();
}

/* ---- the model --------------------------------------------------------------------------- */

/* A number in the one way that it can be written; -1 for anything else. */
static int model_number(const char *at, size_t size) {
    int value = 0;
    if (size < 1 || size > 5 || (at[0] == '0' && size > 1)) return -1;
    for (size_t i = 0; i < size; i++) {
        if (at[i] < '0' || at[i] > '9') return -1;
        value = value * 10 + (at[i] - '0');
    }
    return value;
}

static struct effect model_line(const char *line, size_t size) {
    const struct effect warned = {WARNED, 0, 0};
    int words[3], count = 0;
    size_t from = 0;
    for (size_t i = 0; i <= size; i++) {
        if (i < size && line[i] != ' ') continue;
        if (count == 3) return warned;
        words[count++] = model_number(line + from, i - from);
        from = i + 1;
    }
    if (count != 3 || words[0] < 0 || words[1] < 0 || words[2] < 0) return warned;
    if (words[0] == 0 && words[1] == 0 && words[2] == 0)
        return (struct effect){has_terminal ? HUNG_UP : STDIN_CLOSED, 0, 0};
    if (words[0] == 1 && has_terminal && words[1] >= 1 && words[1] <= 65535 && words[2] >= 1 &&
        words[2] <= 65535)
        return (struct effect){RESIZED, words[1], words[2]};
    if (words[0] == 2 && words[1] >= 1 && words[1] <= 64 && words[2] == 0)
        return (struct effect){SIGNALLED, words[1], 0};
    if (words[0] == 3 && words[1] == 0 && words[2] == 0) return (struct effect){RELEASED, 0, 0};
    if (words[0] == 4 && (words[1] == 1 || words[1] == 2) && words[2] == 0)
        return (struct effect){OUTPUT_CLOSED, words[1], 0};
    if (words[0] == 5 && words[1] == 0 && words[2] == 0) return (struct effect){TOLD, 0, 0};
    return warned;
}

/* ---- the input --------------------------------------------------------------------------- */

static uint64_t state;

static unsigned below(unsigned bound) { /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return (unsigned)((z ^ (z >> 31)) % bound);
}

static int interesting(void) {
    static const int numbers[] = {0,  1,  2,     3,     4,     9,  15,      63,     64,
                                  65, 80, 65535, 65536, 99999, -1, INT_MAX, INT_MIN};
    return below(2) ? numbers[below(sizeof numbers / sizeof *numbers)] : (int)below(70000);
}

static size_t good_line(char *line) {
    int verb = (int)below(6), first = 0, second = 0;
    if (verb == 1) first = 1 + (int)below(65535), second = 1 + (int)below(65535);
    if (verb == 2) first = 1 + (int)below(64);
    if (verb == 4) first = 1 + (int)below(2);
    if (below(4) == 0) first = interesting();
    if (below(4) == 0) second = interesting();
    return (size_t)sprintf(line, "%d %d %d", verb, first, second);
}

/* One change: a byte replaced, put in, taken out, repeated many times, or two lines glued. */
static size_t mutate(char *line, size_t size) {
    static const char bytes[] = "0123456789 -+\t\r.x%\xff\0"; /* with the NUL */
    char byte = below(8) ? bytes[below(sizeof bytes - 1)] : (char)below(256);
    size_t at = below((unsigned)size + 1), copies = 1;
    switch (below(5)) {
    case 0:
        if (at < size) line[at] = byte;
        return size;
    case 1:
        if (at == size) return size;
        memmove(line + at, line + at + 1, size - at - 1);
        return size - 1;
    case 2:
        copies = below(8) ? 1 : below(300);
        break;
    case 3:
        if (below(8) == 0) copies = (size_t)LINE_SIZE - 2 + below(4) - (size < 100 ? size : 0);
        break;
    default:
        return size + good_line(line + size);
    }
    if (size + copies > 500) return size;
    memmove(line + at + copies, line + at, size - at);
    memset(line + at, byte, copies);
    return size + copies;
}

/* ---- the comparison ---------------------------------------------------------------------- */

static void complain(const char *line, size_t size, struct effect wanted, struct effect found) {
    fprintf(stderr, "%d %d %d in place of %d %d %d for these %zu bytes: ", found.what, found.first,
            found.second, wanted.what, wanted.first, wanted.second, size);
    fwrite(line, 1, size, stderr);
    exit(1);
}

/* What only sets a flag: its place among other lines is seen if those are read one by one. */
static int flag_of(struct effect effect) {
    return (effect.what == RELEASED) | (effect.what == TOLD) << 1;
}

static long compare(const char *input, size_t size, bool one_by_one, int flags) {
    int count = 0;
    long good = 0;
    for (size_t from = 0, length; from < size; from += length + 1) {
        length = (size_t)((char *)memchr(input + from, '\n', size - from) - (input + from));
        struct effect wanted = model_line(input + from, length), found = {-1, 0, 0};
        good += wanted.what != WARNED;
        if (flag_of(wanted) != 0 && !one_by_one) {
            if ((flags & flag_of(wanted)) == 0) complain(input + from, length, wanted, found);
            continue;
        }
        if (count < effect_count) found = effects[count++];
        if (memcmp(&found, &wanted, sizeof wanted) != 0)
            complain(input + from, length, wanted, found);
    }
    if (count != effect_count) abort();
    return good;
}

static int any_flags(const char *input, size_t size) {
    int flags = 0;
    for (size_t from = 0, length; from < size; from += length + 1) {
        length = (size_t)((char *)memchr(input + from, '\n', size - from) - (input + from));
        flags |= flag_of(model_line(input + from, length));
    }
    return flags;
}

static size_t make_input(char *input) {
    size_t size = 0;
    for (int i = 0; i < BATCH; i++) {
        size_t length = good_line(input + size);
        for (unsigned changes = below(4); changes > 0; changes--)
            length = mutate(input + size, length);
        size += length;
        input[size++] = '\n';
    }
    return size;
}

/* Returns which flags were set by them. */
static int feed(const char *input, size_t size, const int *pipe_fds, bool one_by_one) {
    int left, flags = 0;
    for (size_t sent = 0, piece; sent < size; sent += piece) {
        piece = 1 + below(below(4) ? 40 : 4096);
        if (piece > size - sent) piece = size - sent;
        const char *newline = memchr(input + sent, '\n', piece);
        if (one_by_one && newline != NULL) piece = (size_t)(newline - (input + sent)) + 1;
        if (write(pipe_fds[1], input + sent, piece) != (ssize_t)piece) abort();
        while (ioctl(pipe_fds[0], FIONREAD, &left) == 0 && left > 0) {
            read_control();
            if (shim.released && one_by_one) done(RELEASED, 0, 0);
            if (shim.told && one_by_one) done(TOLD, 0, 0);
            flags |= shim.released | shim.told << 1;
            shim.released = shim.told = false;
        }
    }
    return flags;
}

int main(int argc, char **argv) {
    static char input[INPUT_MAX];
    int pipe_fds[2];
    long count = argc > 2 ? atol(argv[2]) : 0, lines = 0, good = 0;
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    if (pipe2(pipe_fds, O_NONBLOCK) < 0) return 2;
    shim.control_fd = pipe_fds[0];
    shim.process = PROCESS;
    for (int i = 0; i < 3; i++) shim.holder[i] = NO_SUCH_FD + i;
    for (; lines < count; lines += BATCH) {
        bool one_by_one = below(2);
        has_terminal = below(2);
        effect_count = 0;
        size_t size = make_input(input);
        int flags = feed(input, size, pipe_fds, one_by_one);
        good += compare(input, size, one_by_one, flags);
        if (flags != any_flags(input, size)) abort();
    }
    printf("%ld lines, %ld of them with an effect\n", lines, good);
    return 0;
}
