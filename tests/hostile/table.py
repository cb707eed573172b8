"""What the probe tries. The answers that we expect are in expected.json.

For each call `CALLS` also says what docker's default profile does (moby, profiles/seccomp, for a
container with our three capabilities).
"""

from __future__ import annotations

from typing import Final

from tests.support.system_calls import ALLOWED, REFUSED, UNKNOWN

NEW_NAMESPACES: Final = {
    "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWCGROUP": 0x02000000,
    "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}
SIGCHLD: Final = 17


def _calls(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _words(text: str) -> list[str]:
    return text.split()


OURS: Final[dict[str, str]] = (
    dict.fromkeys(_calls(REFUSED), "refused")
    | dict.fromkeys(_calls(UNKNOWN), "unknown")
    | dict.fromkeys(_calls(ALLOWED), "reached")
    | {f"clone({flag | SIGCHLD}, 0, 0, 0, 0)": "refused" for flag in NEW_NAMESPACES.values()}
    | {f"unshare({flag})": "refused" for flag in NEW_NAMESPACES.values()}
    | {
        "setns(-1, 268435456)": "refused",
        "keyctl(11, 1, 0, 0)": "refused",
        "bpf(5, 0, 0)": "refused",
        "ptrace(0, 0, 0, 0)": "reached",
        "personality(8)": "reached",
        "personality(0x400000)": "refused",
        "quotactl(8388608, 0, 0, 0)": "refused",
        "socket(10, 1, 0)": "reached",
        "socket(17, 3, 0)": "refused",
        'mknod("/nonexistent/x", 4096, 0)': "reached",
        "process_mrelease(-1, 0)": "reached",
    }
)
"""Each call, and its result in a container with our defaults. (AF_PACKET is refused by the kernel,
not by a filter: it needs CAP_NET_RAW.)"""

# Docker's profile lets these through to the kernel, which may not have them.
FAMILIES: Final = {
    "socket(0, 2, 0)": "AF_UNSPEC",
    "socket(15, 3, 2)": "AF_KEY",
    "socket(21, 5, 0)": "AF_RDS",
    "socket(29, 2, 0)": "AF_CAN",
    "socket(30, 2, 0)": "AF_TIPC",
    "socket(31, 2, 0)": "AF_BLUETOOTH",
    "socket(41, 2, 0)": "AF_KCM",
    "socket(44, 3, 0)": "AF_XDP",
}
MOBY: Final[dict[str, str]] = OURS | dict.fromkeys(FAMILIES, "reached")
"""What docker's profile does with each, as read from its source: no docker is run here."""

READS: Final = _words("""
    /proc/kcore /proc/keys /proc/timer_list /proc/timer_stats /proc/latency_stats /proc/sched_debug
    /proc/interrupts /proc/acpi /proc/asound /proc/scsi /proc/kmsg /proc/kpagecount
    /proc/kpageflags /proc/kpagecgroup /proc/iomem /proc/slabinfo /proc/1/environ /proc/self/status
    /proc/cpuinfo /proc/meminfo /proc/sys/kernel/random/boot_id /proc/self/mem
    /sys/firmware /sys/devices/virtual/powercap /sys/kernel/debug /sys/kernel/tracing
    /sys/kernel/security /sys/fs/bpf /sys/fs/selinux /sys/dev/block
    /sys/devices/system/cpu/cpu0/thermal_throttle /sys/class/dmi/id/product_serial
    /dev/mem /dev/port /dev/kmsg /dev/sda /dev/vda /dev/kvm /dev/fuse /dev/net/tun /dev/vsock
    /dev/console /dev/zero /dev/random
    /etc/shadow /etc/gshadow /etc/ssl/private /root/.ssh /home /var/log /boot
""")

WRITES: Final = _words("""
    /proc/sys/kernel/core_pattern /proc/sys/kernel/hostname /proc/sys/kernel/modprobe
    /proc/sys/kernel/randomize_va_space /proc/sys/net/ipv4/ip_forward /proc/sys/vm/drop_caches
    /proc/sys/fs/binfmt_misc/register /proc/sysrq-trigger /proc/irq/default_smp_affinity /proc/mtrr
    /proc/kcore /proc/keys /proc/self/uid_map /proc/self/oom_score_adj
    /sys/kernel/uevent_helper /sys/kernel/mm/ksm/run /sys/power/state
    /sys/kernel/mm/transparent_hugepage/enabled /sys/devices/system/cpu/cpu1/online
    /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/memory/memory.limit_in_bytes
    /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/pids/pids.max
    /sys/fs/cgroup/devices/devices.allow /sys/fs/cgroup/freezer/freezer.state
    /sys/fs/cgroup/unified/cgroup.procs /sys/fs/cgroup/memory.max /sys/fs/cgroup/release_agent
    /sys/fs/cgroup/memory/release_agent /dev/null /dev/mem /dev/kmsg /dev/vda
    /etc/passwd /usr/bin/env
""")

MAKES: Final = _words("/ /etc /usr /proc /sys /sys/fs/cgroup /dev /dev/shm /tmp /run /var")
"""Directories in which a file is made."""


def source(text: str) -> str:
    """Return the program's source, with what it tries."""
    tried = []
    for call in OURS:
        name, _, rest = call.partition("(")
        arguments = "".join(f", {one}" for one in rest.removesuffix(")").split(", ") if one)
        said = call.replace('"', "'")
        tried.append(f'#ifdef SYS_{name}\n    TRY("{said}", SYS_{name}{arguments});\n#endif\n')
    return (
        text.replace("CALLS\n", "".join(tried), 1)
        .replace("READS\n", "".join(f'    reads("{path}");\n' for path in READS), 1)
        .replace("WRITES\n", "".join(f'    writes("{path}");\n' for path in WRITES), 1)
        .replace("MAKES\n", "".join(f'    makes("{path}");\n' for path in MAKES), 1)
    )
