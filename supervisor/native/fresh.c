/*
 * What a container must not inherit from the supervisor: scheduling, umask, keyring and the like. A
 * supervisor may run niced, pinned to a CPU, or under a umask of its own; none of this may reach
 * its containers. The runtime goes on from here: all that config.json asks for still applies. For
 * other users than root, settings that only root may change stay as they are.
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

/* struct sched_attr, in the kernel's first layout. Some C libraries lack the struct, or use another
 * name. */
struct scheduling {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

/* The umask affects the mount points that a runtime makes, and is inherited by programs run by
 * exec; runtimes set init's own. Our own files have modes from which this umask takes nothing. */
void fresh_umask(void) {
    umask(UMASK);
}

/* Sets the kernel's default core dump filter, which exec inherits. (The kernel may have been booted
 * with another default.) */
void fresh_memory(void) {
    int fd = open("/proc/self/coredump_filter", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return; /* a kernel without core dumps */
    write_text(fd, "0x33");
    close(fd);
}

/* All CPUs means those of the cpuset: the kernel sees to that. The timer slack needs a number: 0
 * would set the launcher's. */
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

/* Not all runtimes set oom_score_adj for what they exec. The kernel sets it for all processes that
 * share their memory, except for a child of vfork: fs/proc/base.c, __set_oom_adj. */
void fresh_oom_score(const char *score) {
    if (score == NULL) return;
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0) return;
    write_text(fd, score); /* EACCES: an ordinary user may not go below their minimum */
    close(fd);
}

/* The session keyring holds the supervisor's keys: a new one, without a name, replaces it. Not all
 * runtimes make one for what they exec. This may fail: the kernel may have no keyrings, or the
 * user's share of keys may be used up. */
void fresh_keyring(void) {
    syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0L, 0L, 0L);
}
