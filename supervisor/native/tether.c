/*
 * supervisor-tether: makes a runtime call die with the supervisor that makes the call.
 *
 * Usage: supervisor-tether PARENT PROGRAM COMMAND [ARG...]
 *
 * PARENT is the supervisor's pid. PROGRAM is a descriptor of the runtime's file, or -1 for the file
 * that COMMAND names. When a supervisor with a leash dies, its containers die first, and a `start`
 * under way would wait for ever for an init that is gone. posix_spawn can't have the kernel kill a
 * child with its parent; this program can, and then becomes the runtime.
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
    if (getppid() != parent) raise(SIGKILL); /* the parent died before prctl */
    if (program >= 0) {
        fcntl(program, F_SETFD, FD_CLOEXEC);
        syscall(SYS_execveat, program, "", command, environ, AT_EMPTY_PATH);
    }
    execv(command[0], command); /* also where execveat is forbidden for files in memory */
    fprintf(stderr, "supervisor-tether: %d\n", errno);
    return CANNOT_RUN;
}
