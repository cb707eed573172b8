"""What a test must not leave behind: descriptors, processes, mounts, cgroups, directories."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from supervisor.cgroups import Hierarchies

PATIENCE_SECONDS = 10.0

STRANGERS: set[int] = set()
"""Pids that a program which a test killed had launched, and that were left to us."""


@attrs.frozen
class Snapshot:
    """What there is, of our own: our descriptors, our descendants, our mounts.

    Attributes:
        descriptors: what each of our descriptors refers to.
        processes: pids of our descendants, zombies included.
        mounts: mount points below our temporary directories.
    """

    descriptors: dict[int, str]
    processes: dict[int, str]
    mounts: frozenset[str]

    @classmethod
    def take(cls, places: tuple[str, ...]) -> Snapshot:
        """Look around."""
        return cls(_descriptors(), descendants(os.getpid()), _mounts(places))


def check(before: Snapshot, places: tuple[str, ...]) -> list[str]:
    """Return what has come to stay since ``before``; processes get some time to end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        reap_strangers()
        after = Snapshot.take(places)
        leaks = [
            *(
                f"descriptor {fd}: {what}"
                for fd, what in after.descriptors.items()
                if before.descriptors.get(fd) != what
            ),
            *(
                f"process {pid}: {what}"
                for pid, what in after.processes.items()
                if pid not in before.processes
            ),
            *(f"mount {path}" for path in after.mounts - before.mounts),
        ]
        if not leaks or time.monotonic() > deadline:
            return leaks
        time.sleep(0.01)


def reap_strangers() -> None:
    """Reap what was left to us as the subreaper: what init would do elsewhere.

    A shim or keeper that we launched ourselves is never reaped here: the library has to.
    """
    for pid in _children(os.getpid()):
        with contextlib.suppress(OSError):
            ours = Path(f"/proc/{pid}/comm").read_text().startswith("supervisor-")
            if not ours or pid in STRANGERS:
                os.waitpid(pid, os.WNOHANG)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return when ``condition`` holds; fail if it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} seconds in vain for: {what}"
        time.sleep(0.002)


def descendants(pid: int) -> dict[int, str]:
    """Return the pids and command lines of all descendants of a process."""
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        for child in _children(todo.pop()):
            found[child] = _command(child)
            todo.append(child)
    return found


def cgroup_left(parent: str) -> list[str]:
    """Remove a test's cgroup parent; return what was still in it."""
    left = []
    for directory in Hierarchies.discover().directories(parent):
        if os.path.isdir(directory):
            left += [entry.path for entry in os.scandir(directory) if entry.is_dir()]
            for path, _, _ in os.walk(directory, topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    left.append(path)
    return left


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for task in _listdir(f"/proc/{pid}/task"):
        try:
            children += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
        except OSError:
            continue
    return children


def _command(pid: int) -> str:
    try:
        words = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
        return words or "zombie " + Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def _descriptors() -> dict[int, str]:
    found = {}
    for name in _listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return found


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def _mounts(places: tuple[str, ...]) -> frozenset[str]:
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        points = [line.split(" ")[4] for line in file]
    return frozenset(point for point in points if point.startswith(places))
