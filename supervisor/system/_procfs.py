"""What /proc says of a process. Source: proc(5)."""

from __future__ import annotations

import contextlib
import os

import attrs

from ._scarcity import scarce

# Counted from field 3, the first one behind the command's name.
_STATE = 3 - 3
_PPID = 4 - 3
_SESSION = 6 - 3
_FLAGS = 9 - 3
_STARTTIME = 22 - 3

HIDDEN = 0
"""The start time of a process that its shim couldn't see. Process 1 alone may start as early."""

_PF_EXITING = 4  # kernel include/linux/sched.h


@attrs.frozen
class Stat:
    """What one look at a process says.

    Attributes:
        zombie: whether it has ended, and its parent hasn't reaped it.
        exiting: whether it has ended, or is about to: a pid 1 waits for all others to go first.
        parent_pid: of its parent, 0 if that is out of sight.
        session: the pid of who leads its session, 0 if that is out of sight.
        start_time: when it started, in clock ticks after boot.
    """

    zombie: bool
    exiting: bool
    parent_pid: int
    session: int
    start_time: int


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return _read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()


def look_at(pid: int) -> Stat | None:
    """Return what a process is now; None if there is none, or it is hidden. A zombie still is one.

    Where /proc is mounted with hidepid, an ordinary user doesn't see others' processes, and of
    its own not those that a runtime is about to give to another user of a container.
    """
    try:
        fields = stat_fields(_read(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # ESRCH: it went meanwhile
        return None
    return Stat(
        zombie=fields[_STATE] == b"Z",
        exiting=bool(int(fields[_FLAGS]) & _PF_EXITING),
        parent_pid=int(fields[_PPID]),
        session=int(fields[_SESSION]),
        start_time=int(fields[_STARTTIME]),
    )


def is_child(pid: int, parent: int) -> bool:
    """Whether a process, perhaps hidden, is a child of one that isn't, not reaped yet.

    False also where the kernel doesn't list children (CONFIG_PROC_CHILDREN).
    """
    with contextlib.suppress(OSError):
        return pid in map(int, _read(f"/proc/{parent}/task/{parent}/children").split())
    return False


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None if that can't be seen.

    With the pid and the boot id it names one process for good.
    """
    process = look_at(pid)
    return None if process is None else process.start_time


def stat_fields(data: bytes) -> list[bytes]:
    """Return the fields of a ``stat`` file from the third on.

    The second, the command's name, may hold spaces, parentheses and line ends, but
    no later one holds a parenthesis: the last one ends it.
    """
    return data.rpartition(b")")[2].split()


def is_argument(word: str) -> bool:
    """Whether any other process of our user and our pid namespace has a word as an argument.

    Those of other users and of containers are none of our business, and reading theirs may wait
    for them. A program that may not be traced belongs to root here, and whose namespace can't be
    seen may be ours. This takes some time where there are many processes: it is for a thread.

    Raises:
        TooManyFiles: no descriptor was left to look with.
    """
    wanted, namespace = os.fsencode(word), os.readlink("/proc/self/ns/pid")
    with scarce():
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return any(
        _is_near(pid, namespace) and wanted in _arguments(pid) for pid in pids if pid != os.getpid()
    )


def _is_near(pid: int, namespace: str) -> bool:
    try:
        if os.stat(f"/proc/{pid}").st_uid not in (os.geteuid(), 0):
            return False
        return os.readlink(f"/proc/{pid}/ns/pid") == namespace
    except (FileNotFoundError, ProcessLookupError):
        return False
    except PermissionError:
        return True


def _arguments(pid: int) -> list[bytes]:
    """Return what a process was given beside its name; nothing if it has gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        return _read(f"/proc/{pid}/cmdline").split(b"\0")[1:]
    return []


def _read(path: str) -> bytes:
    with scarce(), open(path, "rb") as file:
        return file.read()
