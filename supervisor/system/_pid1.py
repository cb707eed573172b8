"""Whether a process is a pid 1, and whether a pid 1 would act on a signal or drop the signal.

A pid 1 gets only signals with a handler (man 7 pid_namespaces). A signal that comes before the
program has installed the handler is lost for good.

A blocked signal stays pending. If there is still no handler when the program unblocks the signal,
the kernel drops the signal. Some programs block signals for good, and fetch them: from a signalfd,
or by sigwait, which unblocks the signals during the wait. Other programs block signals only for a
moment, whenever they start a program (posix_spawn, vfork).
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
    """Return the identity of the program that a process runs; None if /proc doesn't show it."""
    try:
        status = os.stat(f"/proc/{pid}/exe")
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_copy(pid: int, path: str) -> bool:
    """Whether a process runs the program at a path or, judging by the size, a copy of this program.

    Runtimes, and this library, run a copy in memory, or an overlay of the file: a new file each
    time, of the same size.
    """
    try:
        return os.stat(f"/proc/{pid}/exe").st_size == os.stat(path).st_size
    except OSError:
        return False


def would_act_on(pid: int, number: int, *, gate: Identity | None) -> bool | None:
    """Whether a process would act on a signal sent now.

    None if the process blocks the signal. One that does so for good may fetch the signal later; one
    that does so for a moment won't.

    Args:
        pid: the process.
        number: the signal.
        gate: the program that waits to be started: while the process runs that, the user's program
            isn't there yet. None if unknown.
    """
    if number in (signal.SIGKILL, signal.SIGSTOP):  # these reach a pid 1 from outside its namespace
        return True
    # Read the gate first: a status from before the exec would show the runtime's handlers.
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
        return True  # as if the process weren't a pid 1


def _has(mask: str, number: int) -> bool:
    return bool(int(mask, 16) >> (number - 1) & 1)


def _waits(places: Iterable[str]) -> bool:
    """Whether one of these kernel functions, from wchan, is a wait for signals (sigwait).

    The awaited signals can't be seen. They count as all signals without a handler.
    """
    return any("sigtimedwait" in place for place in places)


def _fetches(pid: int, number: int) -> bool:
    """Whether a thread waits for signals, or a signalfd gets this signal.

    Only the first `_LOOKED_AT` threads and descriptors are looked at: a program may have any
    number. If the wait or signalfd is among the others, the signal counts as merely blocked.
    """
    if _waits(_read(f"{thread}/wchan") for thread in _some(f"/proc/{pid}/task")):
        return True
    return any(
        line.startswith("sigmask:") and _has(line.split()[1], number)
        for name in map(os.path.basename, filter(_is_signalfd, _some(f"/proc/{pid}/fd")))
        for line in _read(f"/proc/{pid}/fdinfo/{name}").splitlines()
    )


def _is_signalfd(path: str) -> bool:
    """Whether a descriptor is a signalfd. Others' fdinfo may be huge: epoll lists all files."""
    try:
        return os.readlink(path) == "anon_inode:[signalfd]"
    except OSError:
        return False


def _some(directory: str) -> list[str]:
    """Return the first paths in a directory; an empty list if we may not read the directory."""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        return [entry.path for entry in itertools.islice(entries, _LOOKED_AT)]
    return []


def _read(path: str) -> str:
    """Return the content of a small file; "" if we may not read the file."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def is_pid_1(pid: int | None) -> bool:
    """Whether a process is a namespace's pid 1; true for a process that can't be seen."""
    try:
        return pid is None or _is_first(_status_of(pid))
    except (OSError, KeyError, ValueError, IndexError):
        return True


def _status_of(pid: int) -> dict[str, str]:
    # A program may choose any name, even one that isn't valid text.
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        lines = [line.rstrip("\n").partition(":\t") for line in file]
    return {name: value for name, _, value in lines}


def _is_first(status: dict[str, str]) -> bool:
    return status["NSpid"].split()[-1] == "1"
