/*
 * A container's pseudo-terminal: its master, and the attached client. The runtime sends the master
 * over the console socket (runc's docs/terminals.md). From then on we copy between the master and a
 * client. One client at a time is attached, over the unix socket `terminal` in our directory. The
 * socket first sends one line:
 *
 *     attached DROPPED\n     and then raw bytes both ways; DROPPED bytes were lost before
 *     busy\n                 another client is attached
 *
 * A client attached from the beginning, by a descriptor of the launcher's, gets raw bytes only.
 * Without a client the program isn't stopped: the last KEPT bytes are kept, older ones are dropped
 * and counted. An attached client that doesn't read stops the program's output, as a slow terminal
 * does. A client that closes is detached at once, but what it sent before still goes to the
 * program, until another client attaches. Nothing here ever blocks.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

enum { KEPT = 64 * 1024, INPUT = 4096, LOOK_AGAIN_MS = 1000, DRAIN_MS = 1000 };
enum { BACKLOG = 128 }; /* when full, connect fails with EAGAIN, which says little */
enum { MASTER, LISTENER, CLIENT };

/* Not in the struct below, which has initial values: so these take no room in the program's file,
 * and no memory until used. */
static char output[KEPT];  /* a ring: from the master, for the client */
static char input[INPUT];  /* from the client, for the master */

static struct {
    int console;        /* the console socket, until the master is here */
    int master;
    int listener;
    int client;
    bool hung_up;       /* no process has the other side open now */
    bool leaving;       /* the client has closed; some of its input is still unread */
    bool input_ended;   /* the client has shut down its sending side */
    bool deaf;          /* a client connects, but we have no descriptor for it */
    size_t start, length;             /* of `output` */
    unsigned long long dropped;
    size_t input_start, input_length; /* of `input` */
    int64_t ended_ms;   /* when the process had ended, or 0 */
} tty = {.console = -1, .master = -1, .listener = -1, .client = -1};

void terminal_configure(const char *spec) {
    int used = 0;
    if (sscanf(spec, "%9d%n", &tty.console, &used) != 1 || spec[used] != '\0' ||
        tty.console <= STDERR_FILENO)
        fail(0, "options", "--terminal takes a listening socket, not %s", spec);
}

int terminal_console(void) {
    return tty.console;
}

void terminal_attached(int fd) {
    tty.client = fd;
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) fail(errno, "options", "descriptor %d", fd);
}

int terminal_client(void) {
    return tty.client;
}

/* ---- set-up ------------------------------------------------------------------------------ */

static int receive_master(void) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    char name[256];
    struct iovec vector = {.iov_base = name, .iov_len = sizeof name};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control.space};
    int fd = -1;
    fcntl(tty.console, F_SETFL, O_NONBLOCK); /* the runtime has ended: now or never */
    int connection = accept4(tty.console, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0) fail(errno, "console", "the runtime sent no terminal");
    if (recvmsg(connection, &message, MSG_CMSG_CLOEXEC) < 0)
        fail(errno, "console", "the runtime sent no terminal");
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
    if (fd < 0 || !isatty(fd)) fail(0, "console", "the runtime sent something that is no terminal");
    close(connection);
    return fd;
}

/* Clients can connect only after listen(), and by then the socket is accessible to us alone. */
static int open_listener(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "terminal"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) fail(errno, "files", "socket");
    unlink(address.sun_path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        chmod(address.sun_path, 0600) < 0 || listen(fd, BACKLOG) < 0)
        fail(errno, "files", "cannot listen at terminal");
    return fd;
}

void terminal_take(void) {
    if (tty.console < 0) return;
    tty.master = receive_master();
    close_quietly(&tty.console);
    fcntl(tty.master, F_SETFL, O_NONBLOCK);
    tty.listener = open_listener();
}

/* ---- the ring ---------------------------------------------------------------------------- */

static void forget(size_t n) {
    tty.start = (tty.start + n) % KEPT;
    tty.length -= n;
}

static void keep(const char *bytes, size_t n) {
    if (tty.length + n > KEPT) {
        size_t excess = tty.length + n - KEPT; /* n is at most KEPT, so excess is at most length */
        forget(excess);
        tty.dropped += excess;
    }
    size_t end = (tty.start + tty.length) % KEPT, first = KEPT - end < n ? KEPT - end : n;
    memcpy(output + end, bytes, first);
    memcpy(output, bytes + first, n - first);
    tty.length += n;
}

/* ---- copying ----------------------------------------------------------------------------- */

static bool attached(void) {
    return tty.client >= 0 && !tty.leaving;
}

static bool has_room(void) {
    return !attached() || tty.length < KEPT;
}

/* Without a client this reads on, and old bytes are dropped; with one, only as much as there is
 * room for. */
static void read_master(void) {
    static char chunk[KEPT];
    tty.hung_up = false;
    for (int turns = 0; turns < 64 && tty.master >= 0; turns++) {
        size_t room = attached() ? KEPT - tty.length : KEPT;
        if (room == 0) return;
        ssize_t n = read(tty.master, chunk, room);
        if (n <= 0) {
            tty.hung_up = n == 0 || errno != EAGAIN; /* EIO: no process has the other side open */
            return;
        }
        keep(chunk, (size_t)n);
    }
}

static void close_master(void) {
    close_quietly(&tty.master);
    tty.input_length = 0;
}

/* Output that the client hasn't taken is kept for the next one. When a unix socket is closed with
 * bytes unread, the other side gets ECONNRESET instead of the end of file: so shut the socket down
 * first, and read the rest. */
static void detach(void) {
    char unread[INPUT];
    if (tty.client < 0) return;
    shutdown(tty.client, SHUT_RDWR);
    while (read(tty.client, unread, sizeof unread) > 0) continue;
    close_quietly(&tty.client);
    tty.leaving = false;
}

static void write_client(void) {
    while (attached() && tty.length > 0) {
        size_t first = KEPT - tty.start < tty.length ? KEPT - tty.start : tty.length;
        ssize_t n = send(tty.client, output + tty.start, first, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) tty.leaving = true;
        else forget((size_t)n);
    }
}

static void write_master(void) {
    ssize_t n = write(tty.master, input + tty.input_start, tty.input_length);
    if (n < 0 && errno == EAGAIN) return;
    if (n < 0) n = (ssize_t)tty.input_length; /* no program is there to get it */
    tty.input_start += (size_t)n;
    tty.input_length -= (size_t)n;
}

static void read_client(void) {
    ssize_t n = read(tty.client, input, sizeof input);
    if (n < 0 && errno == EAGAIN && !tty.leaving) return;
    if (n < 0 || (n == 0 && tty.leaving)) detach();
    else if (n == 0) tty.input_ended = true;
    if (n <= 0) return;
    tty.input_start = 0;
    tty.input_length = (size_t)n;
    if (tty.master >= 0) write_master();
    else tty.input_length = 0;
}

/* Passes on what a closed client had sent, as far as the program takes it. */
static void take_last_words(void) {
    while (tty.leaving && tty.input_length == 0) read_client();
}

static void attach(void) {
    char line[64];
    int fd = accept4(tty.listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    tty.deaf = fd < 0 && errno != EAGAIN;
    if (fd < 0) return;
    if (attached()) {
        write_text(fd, "busy\n");
        close(fd);
        return;
    }
    detach();
    snprintf(line, sizeof line, "attached %llu\n", tty.dropped);
    tty.client = fd;
    tty.input_ended = false;
    tty.leaving = !write_text(fd, line); /* a client that closed may have sent something */
    if (!tty.leaving) tty.dropped = 0;
    take_last_words();
}

/* ---- for the shim ------------------------------------------------------------------------ */

void terminal_watch(struct pollfd *watched) {
    short from_master = has_room() && !tty.hung_up ? POLLIN : 0;
    short for_master = tty.input_length > 0 ? POLLOUT : 0;
    bool listens_to = !tty.input_ended && tty.input_length == 0;
    /* poll reports a hang-up unasked, again and again: leave the master out while there is nothing
     * to do. */
    bool idle = from_master == 0 && (for_master == 0 || tty.hung_up);
    watched[MASTER] = (struct pollfd){.fd = idle ? -1 : tty.master,
                                      .events = (short)(from_master | for_master)};
    watched[LISTENER] = (struct pollfd){.fd = tty.deaf ? -1 : tty.listener, .events = POLLIN};
    watched[CLIENT] = (struct pollfd){
        .fd = tty.listener >= 0 && attached() ? tty.client : -1,
        .events = (short)((listens_to ? POLLIN : 0) | (tty.length > 0 ? POLLOUT : 0))};
}

/* Nothing notifies us when a process opens the other side again, or when a descriptor is free
 * again: look now and then. */
int terminal_patience(void) {
    bool looks = tty.master >= 0 && (tty.hung_up || tty.ended_ms != 0) && has_room();
    return looks || tty.deaf ? LOOK_AGAIN_MS : -1;
}

void terminal_copy(const struct pollfd *watched) {
    if (tty.master < 0 && tty.listener < 0) return;
    if (watched[CLIENT].revents & POLLIN) read_client();
    if (tty.input_length > 0 && tty.master >= 0) write_master();
    if (tty.master >= 0 && (watched[MASTER].revents != 0 || tty.hung_up)) read_master();
    write_client();
    /* A client that closes only its sending side stays. */
    if (tty.client >= 0 && (watched[CLIENT].revents & (POLLHUP | POLLERR))) tty.leaving = true;
    take_last_words();
    if (watched[LISTENER].revents != 0 || tty.deaf) attach();
    if (tty.master < 0 && tty.length == 0) detach(); /* hung up, and all is read */
}

bool terminal_resize(int columns, int rows) {
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
    if (tty.master >= 0) ioctl(tty.master, TIOCSWINSZ, &size);
    return tty.listener >= 0;
}

bool terminal_hang_up(void) {
    bool had = tty.master >= 0;
    if (had) read_master();
    close_master();
    return had;
}

bool terminal_has_client(void) {
    return attached();
}

/* After the process has ended: whether output is still to be read from the master, or taken by a
 * client. Other processes may hold the other side open for ever, so DRAIN_MS bounds the reading. */
bool terminal_active(void) {
    if (tty.listener < 0) return false;
    if (tty.ended_ms == 0) tty.ended_ms = monotonic_ms();
    if (tty.master >= 0 && has_room()) {
        read_master();
        if (tty.hung_up || monotonic_ms() - tty.ended_ms >= DRAIN_MS) close_master();
    }
    write_client();
    return tty.master >= 0 || tty.length > 0;
}

/* The last output goes to the attached client, even if we were asked to stop. */
void terminal_finish(void) {
    if (tty.master >= 0) read_master();
    write_client();
    detach();
}
