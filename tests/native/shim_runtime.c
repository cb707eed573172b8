/*
 * The quickest runtime that there can be, for a shim under fire: KIND says what it makes.
 *
 * Its process waits until a byte comes through the fifo `gate`, says its words, and exits with 7.
 * All that it makes holds the fifo `life` open.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

static int failed(const char *what) {
    perror(what);
    exit(3);
}

static void send_master(int master) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
                            .cmsg_level = SOL_SOCKET,
                            .cmsg_type = SCM_RIGHTS}};
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "console.sock"};
    struct iovec name = {.iov_base = "ptmx", .iov_len = 4};
    struct msghdr message = {.msg_iov = &name,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control.space};
    int console = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(CMSG_DATA(&control.header), &master, sizeof master);
    if (connect(console, (struct sockaddr *)&address, sizeof address) < 0) failed("connect");
    if (sendmsg(console, &message, 0) < 0) failed("sendmsg");
    close(console);
}

static int open_terminal(void) {
    struct termios settings;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0) failed("posix_openpt");
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    if (slave < 0 || tcgetattr(slave, &settings) < 0) failed("ptsname");
    cfmakeraw(&settings);
    tcsetattr(slave, TCSANOW, &settings);
    send_master(master);
    close(master);
    return slave;
}

static void enter_terminal(int slave) {
    setsid();
    if (ioctl(slave, TIOCSCTTY, 0) < 0) failed("TIOCSCTTY");
    for (int i = 0; i < 3; i++) dup2(slave, i);
    close(slave);
}

static void say(int fd, const char *text) {
    if (write(fd, text, strlen(text)) < 0) failed("write");
}

/* Enough for a log of the smallest size to be rotated, in one piece. */
static void say_lines(void) {
    static char lines[2 * 10001 + 1];
    memset(lines, 'x', sizeof lines - 1);
    lines[10000] = lines[20001] = '\n';
    say(STDOUT_FILENO, lines);
}

static int be_process(const char *kind, int slave) {
    char byte;
    if (slave >= 0) enter_terminal(slave);
    int gate = open("gate", O_RDONLY);
    if (read(gate, &byte, 1) != 1) failed("gate");
    if (strcmp(kind, "log") == 0) say_lines();
    else say(STDOUT_FILENO, "words\n");
    say(STDERR_FILENO, "more");
    return 7;
}

int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "";
    int refused = strcmp(kind, "refused") == 0;
    if (open("life", O_WRONLY) < 0) failed("life");
    int slave = strcmp(kind, "terminal") == 0 ? open_terminal() : -1;
    pid_t process = fork();
    if (process == 0) return be_process(kind, slave);
    if (refused && fork() == 0) pause();
    FILE *file = fopen("pid", "w");
    if (file == NULL) return failed("pid");
    fprintf(file, "%d", (int)process);
    fclose(file);
    usleep(5000); /* the shim waits already: so it makes the same calls each time */
    return refused;
}
