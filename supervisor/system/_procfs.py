"""What /proc says of a process. Source: proc(5)."""

from __future__ import annotations

import contextlib
import os

import attrs

from ..values import raise_if_scarce

# Counted from field 3, the first one after the command's name.
_STATE = 3 - 3
_PPID = 4 - 3
_SESSION = 6 - 3
_FLAGS = 9 - 3
_STARTTIME = 22 - 3

HIDDEN = 0
"""The start time of a process that the shim couldn't see. Only process 1 can start that early."""

_PF_EXITING = 4  # kernel include/linux/sched.h


@attrs.frozen
class Stat:
    """What one look at a process says.

    Attributes:
        zombie: whether the process has ended, and the parent hasn't reaped it.
        exiting: whether the process has ended or is exiting: a pid 1 first waits for all others to
            end.
        parent_pid: the parent's pid, 0 if the parent is out of sight.
        session: the pid of the session's leader, 0 if the leader is out of sight.
        start_time: when the process started, in clock ticks after boot.
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
    """Return what a process is now, zombies included; None if it doesn't exist or is hidden.

    If /proc is mounted with hidepid, an ordinary user doesn't see the processes of others. Also
    hidden are those of the user's own processes that a runtime is about to give to another user of
    a container.
    """
    try:
        fields = stat_fields(_read(f"/proc/{pid}/stat"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # ESRCH: gone meanwhile
        return None
    return Stat(
        zombie=fields[_STATE] == b"Z",
        exiting=bool(int(fields[_FLAGS]) & _PF_EXITING),
        parent_pid=int(fields[_PPID]),
        session=int(fields[_SESSION]),
        start_time=int(fields[_STARTTIME]),
    )


def is_child(pid: int, parent: int) -> bool:
    """Whether a process, perhaps hidden, is an unreaped child of a process that isn't hidden.

    Also False if the kernel doesn't list children (CONFIG_PROC_CHILDREN).
    """
    with contextlib.suppress(OSError):
        return pid in map(int, _read(f"/proc/{parent}/task/{parent}/children").split())
    return False


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None if that can't be seen.

    Start time, pid and boot id together identify one process for ever.
    """
    process = look_at(pid)
    return None if process is None else process.start_time


def stat_fields(data: bytes) -> list[bytes]:
    """Return the fields of a ``stat`` file, from the third field on.

    The second field, the command's name, may hold spaces, parentheses and line ends. No later field
    holds a parenthesis, so the last parenthesis ends the name.
    """
    return data.rpartition(b")")[2].split()


def is_argument(word: str) -> bool:
    """Whether any other process of our user and our pid namespace has a word as an argument.

    Processes of other users and of containers are left out: reading their arguments may block. A
    process that may not be traced counts as root's here; a process whose namespace can't be seen
    counts as ours. This takes some time with many processes: call it in a thread.

    Raises:
        TooManyFiles: no descriptor was left for the search.
    """
    wanted, namespace = os.fsencode(word), os.readlink("/proc/self/ns/pid")
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError as error:
        raise_if_scarce(error)
        raise
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
    """Return a process's arguments after the program's name; nothing if the process has gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        return _read(f"/proc/{pid}/cmdline").split(b"\0")[1:]
    return []


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise_if_scarce(error)
        raise
