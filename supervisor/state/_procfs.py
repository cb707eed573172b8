"""What /proc says of a process. Source: proc(5)."""

from __future__ import annotations

from ._scarcity import scarce

# Counted from field 3, the first one behind the command's name.
_PPID = 4 - 3
_STARTTIME = 22 - 3


def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return _read("/proc/sys/kernel/random/boot_id").decode("ascii").strip()


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks after boot; None if there is none.

    A zombie still has one. With the pid and the boot id it names one process for good.
    """
    return _field(pid, _STARTTIME)


def parent_pid(pid: int) -> int | None:
    """Return the pid of a process's parent, 0 if that is out of sight; None if there is none."""
    return _field(pid, _PPID)


def stat_fields(data: bytes) -> list[bytes]:
    """Return the fields of a ``stat`` file from the third on.

    The second, the command's name, may hold spaces, parentheses and line ends, but
    no later one holds a parenthesis: the last one ends it.
    """
    return data.rpartition(b")")[2].split()


def _field(pid: int, index: int) -> int | None:
    try:
        data = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):  # ESRCH: it went while we read
        return None
    return int(stat_fields(data)[index])


def _read(path: str) -> bytes:
    with scarce(), open(path, "rb") as file:
        return file.read()
