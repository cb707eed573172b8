/*
 * supervisor-tether: a runtime's call that ends with the supervisor that makes it.
 *
 * Usage: supervisor-tether PARENT PROGRAM COMMAND [ARG...]
 *
 * PARENT is the supervisor's pid, PROGRAM a descriptor of the runtime's program, or -1 for the file
 * that COMMAND names. On a leash, everything goes when the supervisor dies: first the container, and
 * a `start` would then wait for ever for an init that is no more. posix_spawn can't have the kernel
 * kill its child with its parent; this can, and becomes the runtime.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CANNOT_RUN = 127 };

int main(int argc, char **argv) {
    int parent, program;
    if (argc < 4 || sscanf(argv[1], "%9d", &parent) != 1 || sscanf(argv[2], "%9d", &program) != 1) {
        fprintf(stderr, "usage: supervisor-tether PARENT PROGRAM COMMAND [ARG...]\n");
        return 2;
    }
    char **command = argv + 3;
    prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL, 0L, 0L, 0L);
    if (getppid() != parent) raise(SIGKILL); /* it died before that */
    if (program >= 0) {
        fcntl(program, F_SETFD, FD_CLOEXEC);
        syscall(SYS_execveat, program, "", command, environ, AT_EMPTY_PATH);
    }
    execv(command[0], command); /* also where programs in memory may not be run */
    fprintf(stderr, "supervisor-tether: %d\n", errno);
    return CANNOT_RUN;
}
