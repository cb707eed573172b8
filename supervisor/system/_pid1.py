"""Whether a container's init is a pid 1, and whether a signal would reach it, or be dropped.

A pid 1 gets only signals that it handles (man 7 pid_namespaces); one that is sent too early, to
a program that is about to install its handler, is lost for good.

One that it blocks waits for it, and is dropped when it is let in and there is no handler then. Some
block signals for good, and fetch them: from a signalfd, or by sigwait, which unblocks them for as
long as it waits. Others do for a moment, whenever they start a program (posix_spawn, vfork).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
from collections.abc import Iterable
from typing import Final

Identity = tuple[int, int]

_LOOKED_AT: Final = 64


def program_of(pid: int) -> Identity | None:
    """Return the identity of the program that a process runs; None if it can't be seen."""
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_copy(pid: int, path: str) -> bool:
    """Whether a process runs the program at a path, or a copy of it, as far as its size tells.

    Runtimes, and we, run a copy in memory, or an overlay of the file: what is another file each
    time, but as large.
    """
    try:
        return os.stat(f"/proc/{pid}/exe").st_size == os.stat(path).st_size
    except OSError:
        return False


def would_act_on(pid: int, number: int, *, gate: Identity | None) -> bool | None:
    """Whether a process would act on a signal sent now.

    None if it blocks it: who does so for good fetches it, perhaps; who does for a moment, doesn't.

    Args:
        pid: the process.
        number: the signal.
        gate: the runtime's program that it ran at first, waiting to be started: while it
            still does, the user's program isn't there yet. None if that isn't known.
    """
    if number in (signal.SIGKILL, signal.SIGSTOP):  # from outside of its namespace, they get there
        return True
    # The gate first: a status read before the exec would tell the runtime's handlers.
    waiting = gate is not None and program_of(pid) == gate
    try:
        status = _status_of(pid)
        if not _is_first(status):
            return True
        if waiting:
            return False
        if _has(status["SigCgt"], number) or _waits([_read(f"/proc/{pid}/wchan")]):
            return True
        if not _has(status["SigBlk"], number):
            return False
        return _fetches(pid, number) or None
    except (OSError, KeyError, ValueError, IndexError):
        return True  # nothing speaks against it


def _has(mask: str, number: int) -> bool:
    return bool(int(mask, 16) >> (number - 1) & 1)


def _waits(places: Iterable[str]) -> bool:
    """Whether one of these is where the kernel has somebody wait for signals.

    For which ones can't be seen: they are taken for all that it doesn't handle.
    """
    return any("sigtimedwait" in place for place in places)


def _fetches(pid: int, number: int) -> bool:
    """Whether a thread waits for signals, or a descriptor tells of this one.

    Of each the first ones are looked at: who has more may have any number, and is asked as
    somebody who merely blocks it.
    """
    if _waits(_read(f"{thread}/wchan") for thread in _some(f"/proc/{pid}/task")):
        return True
    return any(
        line.startswith("sigmask:") and _has(line.split()[1], number)
        for name in map(os.path.basename, filter(_is_signalfd, _some(f"/proc/{pid}/fd")))
        for line in _read(f"/proc/{pid}/fdinfo/{name}").splitlines()
    )


def _is_signalfd(path: str) -> bool:
    """Of another kind's fdinfo there may be any amount: an epoll's lists all that it watches."""
    try:
        return os.readlink(path) == "anon_inode:[signalfd]"
    except OSError:
        return False


def _some(directory: str) -> list[str]:
    """Return the first paths in a directory; none if it may not be read."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return [entry.path for entry in itertools.islice(entries, _LOOKED_AT)]
    return []


def _read(path: str) -> str:
    """Return what a small file says; nothing if it may not be read."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def is_pid_1(pid: int | None) -> bool:
    """Whether a process is the pid 1 of its namespace; one that can't be seen is taken for one."""
    try:
        return pid is None or _is_first(_status_of(pid))
    except (OSError, KeyError, ValueError, IndexError):
        return True


def _status_of(pid: int) -> dict[str, str]:
    # A program gives itself any name that it likes, text or not.
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        lines = [line.rstrip("\n").partition(":\t") for line in file]
    return {name: value for name, _, value in lines}


def _is_first(status: dict[str, str]) -> bool:
    return status["NSpid"].split()[-1] == "1"
