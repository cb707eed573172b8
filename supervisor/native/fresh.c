/*
 * What a process inherits, and a container shall not: a supervisor may run niced, pinned to a CPU,
 * or under a umask of its own, and its containers are not part of it. The runtime goes on from
 * here: whatever config.json asks for stands. What may not be set, for whoever isn't root, is left
 * as it is.
 *
 * Source: man 2 sched_setattr, sched_setaffinity, ioprio_set, set_mempolicy, personality; man 5
 * core, proc_pid_oom_score_adj; man 2 prctl, keyctl; man 7 session-keyring.
 */
#include "shim.h"

#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { UMASK = 022, TIMER_SLACK_NS = 50000, IOPRIO_WHO_PROCESS = 1, CPU_BYTES = 1024 };
enum { KEYCTL_JOIN_SESSION_KEYRING = 1 };

/* The kernel's first layout. A C library may have none of it, or a name of its own for it. */
struct scheduling {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* Mount points are made with it, and what is run by exec has it; those of init come from runtimes.
 * Our own files have modes that it takes nothing from. */
void fresh_umask(void) {
    umask(UMASK);
}

/* The kernel's default, unless it was booted with another: it hands this on across exec. */
void fresh_memory(void) {
    int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return; /* a kernel without core dumps */
    write_text(fd, "0x33");
    close(fd);
}

/* All CPUs means those that the cpuset has: the kernel sees to it. The slack has to be told: 0
 * would be what our launcher had. */
void fresh_scheduling(void) {
    const struct scheduling normal = {.size = sizeof normal, .policy = SCHED_OTHER};
    unsigned char cpus[CPU_BYTES];
    memset(cpus, 0xff, sizeof cpus);
    syscall(SYS_sched_setattr, 0, &normal, 0U);
    syscall(SYS_sched_setaffinity, 0, sizeof cpus, cpus);
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0);
#ifdef SYS_set_mempolicy
    syscall(SYS_set_mempolicy, 0, NULL, 0UL);
#endif
    prctl(PR_SET_TIMERSLACK, (unsigned long)TIMER_SLACK_NS, 0L, 0L, 0L);
    personality(PER_LINUX);
}

/* Not all runtimes set it for what they exec. The kernel sets it for all processes that share their
 * memory, but for a child of vfork alone: fs/proc/base.c, __set_oom_adj. */
void fresh_oom_score(const char *score) {
    if (score == NULL) return;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    write_text(fd, score); /* EACCES: an ordinary user's, below their own minimum */
    close(fd);
}

/* A session's keys are the supervisor's: a new one, without a name, takes their place. Not all
 * runtimes make one for what they exec. There may be none in this kernel, or a user's share of
 * keys may be used up. */
void fresh_keyring(void) {
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0L, 0L, 0L);
}
