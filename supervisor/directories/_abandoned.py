"""Bundles that killed programs left in memory: the next program removes them.

A temporary bundle is removed with the program that made it. A program may have thousands of
bundles, so it can't hold a descriptor and a lock for each. Instead the bundle's name names the
owner: so from the first moment on the owner is known. If it isn't certain that the owner has ended,
the bundle stays: in another pid namespace, or on another host that shares the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

import attrs

from ..system import PASSABLE, boot_id, lifted, look_at, unescaped

PREFIX: Final = "trio-supervisor-"
"""How the names of temporary directories begin."""

_OWNED: Final = re.compile(re.escape(PREFIX) + r"([0-9a-f]{12})-([1-9][0-9]{0,9})-([0-9]{1,20})")
_ENDING: Final = re.compile(r"[0-9a-f]{16}")
_MODES: Final = (0o700, PASSABLE)  # while being made, and afterwards
_AT_ONCE: Final = 50  # each removal takes 0.1 ms, and a Trio task may be waiting
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

logger: Final = logging.getLogger("supervisor")


@attrs.frozen
class Owner:
    """A process, identified for ever.

    Attributes:
        machine: stands for the boot, and for the namespaces in which the numbers are valid.
        pid: the process's pid.
        start_time: when the process started, in clock ticks after boot.
    """

    machine: str
    pid: int
    start_time: int

    def is_gone(self, machine: str) -> bool:
        """Whether the process has certainly ended. An unreaped one may still have threads."""
        if self.machine != machine:
            return False
        now = look_at(self.pid)
        if now is not None:
            return now.start_time != self.start_time
        try:  # /proc may hide the process (hidepid)
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        return False


def new_name(*, marked: bool) -> str:
    """Return a name for a temporary directory of ours; if ``marked``, it names the owner."""
    mark = _mark(os.getpid()) if marked else ""
    return f"{PREFIX}{mark}{secrets.token_hex(8)}"


@functools.lru_cache(maxsize=1)
def _mark(pid: int) -> str:
    """Return the owner's part of a name; nothing if /proc shows none: such a name stays."""
    with contextlib.suppress(OSError):
        now = look_at(pid)
        if now is not None:
            return f"{_machine()}-{pid}-{now.start_time}-"
    return ""


os.register_at_fork(after_in_child=_mark.cache_clear)  # a child's pid may have been an ancestor's


def _machine() -> str:
    """Return a word for the boot, and for the namespaces of pids and start times."""
    parts = [boot_id(), os.readlink("/proc/self/ns/pid")]
    with contextlib.suppress(FileNotFoundError):  # Linux 5.6
        parts.append(os.readlink("/proc/self/ns/time"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


@functools.lru_cache(maxsize=8)
def sweep_once(place: str, pid: int) -> None:
    """Call `sweep` once per process for each place; ``pid`` is the process's."""
    sweep(place)


def sweep(place: str) -> None:
    """Remove the bundles of ended programs from a place for temporary directories.

    Each one is ours by owner, kind, mode and name; no lock on it is held, and nothing is mounted in
    it. What can't be removed stays; nothing is raised.
    """
    with contextlib.suppress(OSError):
        fd = lifted(os.open(place, _DIRECTORY))
        try:
            for name in _abandoned(fd)[:_AT_ONCE]:
                _remove(place, fd, name)
        finally:
            os.close(fd)


def _abandoned(place_fd: int) -> list[str]:
    names: defaultdict[str, list[str]] = defaultdict(list)  # by the common beginning
    with os.scandir(place_fd) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                owned, _, ending = entry.name.rpartition("-")
                names[owned].append(ending)
    gone = [owned for owned in names if _is_gone(owned)]
    return [
        f"{owned}-{ending}"
        for owned in gone
        for ending in names[owned]
        if _ENDING.fullmatch(ending)
    ]


def _is_gone(owned: str) -> bool:
    match = _OWNED.fullmatch(owned)
    if match is None:
        return False
    return Owner(match[1], int(match[2]), int(match[3])).is_gone(_machine())


def _remove(place: str, place_fd: int, name: str) -> None:
    with contextlib.suppress(OSError):
        fd = lifted(os.open(name, _DIRECTORY, dir_fd=place_fd))
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o777 not in _MODES:
                return
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            named = os.stat(name, dir_fd=place_fd, follow_symlinks=False)
            if os.path.samestat(status, named) and not mounted_below(os.path.join(place, name)):
                shutil.rmtree(name, dir_fd=place_fd)
                logger.info("%s/%s: the program that made it is gone: removed", place, name)
        finally:
            os.close(fd)


def mounted_below(directory: str) -> bool:
    """Whether something is mounted in a directory: a removal would go on into the mount.

    Raises:
        OSError: the mount table can't be read.
    """
    prefix = os.path.realpath(directory).rstrip("/") + "/"
    return any(point.startswith(prefix) for point in _mount_points())


def _mount_points() -> Iterator[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            yield unescaped(line.split(" ", 5)[4])
