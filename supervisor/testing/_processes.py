"""Processes as /proc shows them: children, command lines, names, states.

Source: proc(5).
"""

from __future__ import annotations

import os
from pathlib import Path

from ..system import start_time


def descendants(pid: int) -> dict[int, str]:
    """Return the pids and command lines of all descendants of a process."""
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        for child in children(todo.pop()):
            found[child] = command(child)
            todo.append(child)
    return found


def identified(pids: dict[int, str]) -> dict[tuple[int, int], str]:
    """Return processes by pid and start time, so that a reused pid counts as another process."""
    return {
        (pid, started): what
        for pid, what in pids.items()
        if (started := start_time(pid)) is not None
    }


def children(pid: int) -> list[int]:
    """Return the pids of the children of a process, zombies among them."""
    found: list[int] = []
    for task in names_in(f"/proc/{pid}/task"):
        try:
            found += map(
                int, Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="utf-8").split()
            )
        except OSError:
            continue
    return found


def command(pid: int) -> str:
    """Return the command line of a process; ``zombie NAME`` or ``gone`` if there is none."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
        return words.decode(errors="replace").strip() or f"zombie {name_of(pid)}"
    except OSError:
        return "gone"


def name_of(pid: int) -> str:
    """Return the name of a process; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").rstrip("\n")
    except OSError:
        return ""


def state_of(pid: int) -> str:
    """Return the kernel's letter for the state of a process; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def names_in(path: str) -> list[str]:
    """Return the names in a directory; none if there is no such directory."""
    try:
        return os.listdir(path)
    except OSError:
        return []
