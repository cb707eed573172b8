"""A cgroup and all groups below, walked by descriptors: with any names, at any depth.

A container that may write to its cgroup can make groups so deep that no path names them, with names
that aren't text. So this module uses no paths: one descriptor goes down by a name and up by ``..``,
and only a few are ever open. A cgroup file system has no symbolic links, and no group can be moved
into another (kernfs), so ``..`` always leads back.

Source: kernel Documentation/admin-guide, cgroup-v1 (freezer-subsystem) and cgroup-v2.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Iterator, Sequence

from ._steps import Steps

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_ONCE = 64  # processes signalled in one step: each needs a descriptor

_THAWED = (("freezer.state", b"THAWED"), ("cgroup.freeze", b"0"))


@contextlib.contextmanager
def opened(paths: Sequence[str]) -> Iterator[list[int]]:
    """Open those of the directories that exist.

    An open directory stays the same one if others remove it and make a new one of that name.
    """
    found: list[int] = []
    try:
        for path in paths:
            with contextlib.suppress(OSError):  # gone, or no descriptor: the others count
                found.append(os.open(path, _DIRECTORY))
        yield found
    finally:
        for fd in found:
            os.close(fd)


class _Place:
    """The position of a walk: a descriptor that goes down by a name, and up by ``..``."""

    def __init__(self, top: int) -> None:
        self.fd = os.dup(top)

    def go(self, name: str) -> bool:
        """Go to the group with this name; False if the group has gone."""
        try:
            there = os.open(name, _DIRECTORY, dir_fd=self.fd)
        except OSError:
            return False
        os.close(self.fd)
        self.fd = there
        return True

    def close(self) -> None:
        os.close(self.fd)


def groups(top: int) -> Iterator[int]:
    """Yield all groups from ``top`` down, parents first; each descriptor is valid for one step."""
    with contextlib.closing(_Place(top)) as place:
        yield place.fd
        names = [_names(place.fd)]
        while names:
            if names[-1]:
                if place.go(names[-1].pop()):
                    yield place.fd
                    names.append(_names(place.fd))
                continue
            names.pop()
            if names and not place.go(".."):
                return


def prune(top: int) -> Steps[None]:
    """Remove the empty groups below ``top``, children before parents."""
    with contextlib.closing(_Place(top)) as place:
        names, path = [_names(place.fd)], []
        while names:
            yield
            if names[-1]:
                name = names[-1].pop()
                if not _try_rmdir(name, place.fd) and place.go(name):
                    path.append(name)
                    names.append(_names(place.fd))
                continue
            names.pop()
            if not names or not place.go(".."):
                return
            _try_rmdir(path.pop(), place.fd)


def thaw(top: int) -> Steps[None]:
    """Thaw a group and all groups below: each may be frozen on its own. No freezer: do nothing."""
    if not any(_write(top, name, value) for name, value in _THAWED):
        return
    for group in groups(top):
        for name, value in _THAWED:
            _write(group, name, value)
        yield


def is_frozen(top: int) -> bool:
    """Whether a process that enters a group now is frozen at once."""
    state = _read(top, "freezer.state").strip()
    return state in (b"FROZEN", b"FREEZING") or b"frozen 1" in _read(top, "cgroup.events").split(
        b"\n"
    )


def kill(top: int, killed: set[int]) -> Steps[None]:
    """SIGKILL every process in a group and below, except those ``killed`` already.

    On version 2 the kernel kills them all, those just forked included.
    """
    if _write(top, "cgroup.kill", b"1"):
        return
    for group in groups(top):
        found = sorted(_processes(group) - killed)
        killed.update(found)
        for first in range(0, len(found), _AT_ONCE):
            _kill_listed(group, found[first : first + _AT_ONCE])
            yield
        yield


def _kill_listed(group: int, pids: Sequence[int]) -> None:
    """Kill these processes, each through a pidfd opened before the list is read again.

    A pid that was reused in between isn't listed any more.
    """
    with contextlib.ExitStack() as held:
        pidfds: dict[int, int] = {}
        for pid in pids:
            with contextlib.suppress(OSError):
                pidfds[pid] = os.pidfd_open(pid)
                held.callback(os.close, pidfds[pid])
        for pid in _processes(group) & pidfds.keys():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfds[pid], signal.SIGKILL)


def members(top: int) -> Steps[set[int]]:
    """Return the pids in a group and below."""
    pids: set[int] = set()
    for group in groups(top):
        pids |= _processes(group)
        yield
    return pids


def _names(group: int) -> list[str]:
    try:
        with os.scandir(group) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # removed meanwhile
        return []


def _processes(group: int) -> set[int]:
    """Return the pids in a group. 0 stands for a process of another pid namespace."""
    return {int(line) for line in _read(group, "cgroup.procs").split()} - {0}


def _read(group: int, name: str) -> bytes:
    """Return the content of a group's file; nothing if the file is missing or unreadable."""
    with contextlib.suppress(OSError):
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=group)
        with open(fd, "rb", buffering=0) as file:
            return file.read()
    return b""


def _write(group: int, name: str, data: bytes) -> bool:
    """Write to a group's file; return whether that succeeded."""
    with contextlib.suppress(OSError):
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=group)
        try:
            return os.write(fd, data) == len(data)
        finally:
            os.close(fd)
    return False


def _try_rmdir(name: str, group: int) -> bool:
    """Remove a group inside another one; False if that fails now."""
    try:
        os.rmdir(name, dir_fd=group)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True
