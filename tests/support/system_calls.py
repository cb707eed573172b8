"""A program that makes system calls with harmless arguments, and what is expected of them.

A call that the kernel looks at says EFAULT, EBADF, EINVAL, ENOENT...; a filtered one EPERM, or
ENOSYS where C libraries have to go on to another.
"""

from __future__ import annotations

REFUSED = """
    acct("/nonexistent")
    add_key("user", "x", "x", 1, -2)
    bpf(0, 0, 0)
    chroot("/nonexistent")
    clock_settime(99, 0)
    clone(268435456 | 17, 1)
    delete_module("nonexistent", 0)
    fanotify_init(512, 0)
    finit_module(-1, "", 0)
    fsconfig(-1, 99, 0, 0, 0)
    fsmount(-1, 0, 0)
    fsopen("tmpfs", 99)
    fspick(-1, "", 99)
    get_mempolicy(0, 0, 0, 0, 0)
    init_module(0, 0, "")
    io_uring_enter(-1, 0, 0, 0, 0, 0)
    io_uring_register(-1, 99, 0, 0)
    io_uring_setup(1, 0)
    ioperm(0, 1, 0)
    iopl(0)
    kcmp(1, 1, 0, 0, 0)
    kexec_file_load(-1, -1, 0, "", 0)
    kexec_load(0, 0, 0, 0)
    keyctl(0, -3, 0)
    lookup_dcookie(0, 0, 0)
    mbind(0, 0, 0, 0, 0, 0)
    migrate_pages(0, 0, 0, 0)
    mount("x", "/nonexistent", "tmpfs", 0, "")
    mount_setattr(-1, "", 0, 0, 0)
    move_mount(-1, "", -1, "", 0)
    move_pages(0, 0, 0, 0, 0, 0)
    open_by_handle_at(-1, 0, 0)
    open_tree(-1, "", 0)
    perf_event_open(0, 0, -1, -1, 0)
    personality(262144)
    pidfd_getfd(-1, 0, 0)
    pivot_root("/nonexistent", "/nonexistent")
    process_madvise(-1, 0, 0, 0, 0)
    quotactl(0, 0, 0, 0)
    quotactl_fd(-1, 0, 0, 0)
    reboot(0, 0, 0, 0)
    request_key("user", "nonexistent", 0, 0)
    set_mempolicy(0, 0, 0)
    set_mempolicy_home_node(0, 0, 0, 1)
    setdomainname("x", 1)
    sethostname("container", 9)
    setns(-1, 0)
    settimeofday(1, 0)
    socket(0, 2, 0)
    socket(15, 3, 2)
    socket(21, 5, 0)
    socket(29, 2, 0)
    socket(30, 2, 0)
    socket(31, 2, 0)
    socket(38, 5, 0)
    socket(40, 1, 0)
    socket(41, 2, 0)
    socket(44, 3, 0)
    swapoff("/nonexistent")
    swapon("/nonexistent", 0)
    sysfs(3, 0, 0)
    syslog(10, 0, 0)
    umount2("/nonexistent", 0)
    unshare(0)
    unshare(268435456)
    uselib("/nonexistent")
    userfaultfd(0)
    userfaultfd(1)
    ustat(0, 0)
    vhangup()
"""
"""Like docker's profile, but for ten of the eleven address families: docker's allows all but 38 and
40."""

UNKNOWN = """
    clone3(0, 0)
"""
"""Calls that return ENOSYS."""

ALLOWED = """
    capget(0, 0)
    clock_adjtime(0, 0)
    clone(17 | 0x7f, 0, 0, 0, 0)
    execve("/nonexistent", 0, 0)
    getpid()
    getrandom(0, 0, 0)
    landlock_create_ruleset(0, 0, 1)
    membarrier(0, 0, 0)
    memfd_create(0, 0)
    name_to_handle_at(-1, "", 0, 0, 0)
    openat2(-1, "", 0, 0)
    personality(0)
    personality(0xffffffff)
    pidfd_open(-1, 0)
    pidfd_send_signal(-1, 0, 0, 0)
    prctl(39, 0, 0, 0, 0)
    process_vm_readv(1, 0, 0, 0, 0, 0)
    process_vm_writev(1, 0, 0, 0, 0, 0)
    ptrace(16, 999999, 0, 0)
    sched_setaffinity(0, 0, 0)
    seccomp(2, 0, 0)
    setpriority(0, 0, 5)
    socket(1, 1, 0)
    socket(2, 1, 0)
    socket(16, 3, 0)
    statx(-1, "", 0, 0, 0)
"""

_ALL = [line.strip() for text in (REFUSED, UNKNOWN, ALLOWED) for line in text.splitlines()]
CALLS = [line for line in _ALL if line]


def source() -> str:
    """Return the C program, which prints ``NUMBER ERRNO`` for each possible call of `CALLS`."""
    tried = []
    for number, call in enumerate(CALLS):
        name, _, rest = call.partition("(")
        arguments = "".join(f", {one}" for one in rest.removesuffix(")").split(", ") if one)
        tried.append(f"#ifdef SYS_{name}\n    TRY({number}, SYS_{name}{arguments});\n#endif\n")
    return _SOURCE.replace("CALLS", "".join(tried))


_SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Each in a child: what it changes, or makes, goes with that. */
#define TRY(number, ...)                                                                          \
    do {                                                                                          \
        pid_t parent = getpid(), child = fork();                                                  \
        if (child == 0) {                                                                         \
            errno = 0;                                                                            \
            long said = syscall(__VA_ARGS__);                                                     \
            if (getppid() != parent) _exit(0); /* made by a clone */                              \
            printf("%d %d\n", number, said < 0 ? errno : 0);                                      \
            fflush(stdout);                                                                       \
            _exit(0);                                                                             \
        }                                                                                         \
        waitpid(child, NULL, 0);                                                                  \
    } while (0)

#if defined __x86_64__
/* As a program of 32 bits calls: its numbers are others. */
static long old(long number, long one, long two) {
    long said;
    __asm__ volatile("int $0x80" : "=a"(said) : "a"(number), "b"(one), "c"(two), "d"(0) : "memory");
    return said;
}
#endif

int main(void) {
CALLS
    printf("session keyring %ld\n", syscall(SYS_keyctl, 0, -3, 0));
#if defined __x86_64__
    printf("old getpid %ld\n", old(20, 0, 0) > 0 ? 0 : -1L);
    printf("old socketcall %ld\n", old(102, 1, 0));
    printf("old socket %ld\n", old(359, 40, 1));
    printf("old unshare %ld\n", old(310, 0x10000000, 0));
    printf("old mount %ld\n", old(21, 0, 0));
#endif
    return 0;
}
"""
