"""Whether a container's init is a pid 1, and whether a signal would reach it, or be dropped.

A pid 1 gets only signals that it handles (man 7 pid_namespaces); one that is sent too early, to
a program that is about to install its handler, is lost for good.
"""

from __future__ import annotations

import os

Identity = tuple[int, int]


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


def hears(pid: int, number: int, *, gate: Identity | None) -> bool:
    """Whether a process would act on a signal sent now.

    Args:
        pid: the process.
        number: the signal.
        gate: the runtime's program that it ran at first, waiting to be started: while it
            still does, the user's program isn't there yet. None if that isn't known.
    """
    # The gate first: a status read before the exec would tell the runtime's handlers.
    waiting = gate is not None and program_of(pid) == gate
    try:
        status = _status_of(pid)
        if not _is_first(status):
            return True
        prepared = int(status["SigCgt"], 16) | int(status["SigBlk"], 16)
    except (OSError, KeyError, ValueError, IndexError):
        return True  # nothing speaks against it
    return not waiting and bool(prepared >> (number - 1) & 1)


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
