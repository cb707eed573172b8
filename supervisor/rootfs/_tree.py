"""Where a path of a container leads: of one that runs, and of one that couldn't be made.

It may be anybody's tree, and change meanwhile: no link leads out of it, and nothing is opened for
more than its path. Looking may wait for a file system, so it is for a thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from ..spec import is_bind
from ..system import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
    openat2,
)

_MAX_LINKS: Final = 40  # the kernel's
_ALIKE: Final = {"proc": "/proc", "sysfs": "/sys"}  # in a container as on the host, nearly
_ITSELF: Final = ("self", "thread-self")
_OF_WHO_LOOKS: Final = (*_ITSELF, "mounts", "net")
_STREAMS: Final = ("0", "1", "2")
_DEVICES: Final = ("full", "null", "random", "tty", "urandom", "zero")  # config-linux, as the links
_MADE_DEVICES: Final = frozenset(f"/dev/{name}" for name in _DEVICES)
_MADE_LINKS: Final = {
    "/dev/fd": "/proc/self/fd",
    "/dev/ptmx": "pts/ptmx",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}


class Unknown(Exception):
    """Nobody can tell from here what is there."""


class _OfItself(Unknown):
    """A path leads through the program's own directory in /proc, which only it has.

    Attributes:
        ahead: what comes below that.
    """

    def __init__(self, ahead: Sequence[str]) -> None:
        super().__init__("/".join(ahead))
        self.ahead = [name for name in ahead if name not in ("", ".")]

    def open(self) -> int:
        """Return a descriptor of something alike.

        Raises:
            FileNotFoundError: nothing is there.
            Unknown: nobody can tell.
        """
        if self.ahead in ([], ["fd"]):
            return os.open("/", os.O_PATH | os.O_CLOEXEC)  # a directory that it may pass
        if len(self.ahead) == 2 and self.ahead[0] == "fd":
            if self.ahead[1] in _STREAMS:  # a device, a fifo or a terminal: never a caller's file
                return os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # it gets no others
        raise self


def _follow(path: str, link: Callable[[str], str | None]) -> str:
    """Return where a path leads, link by link, as inside.

    Args:
        link: gives where what is at a place leads; None if it is no link.

    Raises:
        OSError: it leads nowhere.
        Unknown: nobody can tell.
    """
    done, links = "/", 0
    ahead = path.split("/")[::-1]
    while ahead:
        name = ahead.pop()
        if name in ("", ".", ".."):
            done = os.path.dirname(done) if name == ".." else done
            continue
        place = os.path.join(done, name)
        try:
            target = link(place)
        except _OfItself:
            raise _OfItself(ahead[::-1]) from None
        if target is None:
            done = place
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        done = "/" if target.startswith("/") else done
        ahead += target.split("/")[::-1]
    return done


class Tree(Protocol):
    """The files of a container."""

    def find(self, path: str) -> int:
        """Return a descriptor of what an absolute path leads to: O_PATH, closed on exec.

        Raises:
            OSError: it leads nowhere; as it would inside.
            Unknown: nobody can tell.
        """
        ...

    def is_fixed(self, path: str) -> bool:
        """Whether a directory that is missing there can't be made by the runtime."""
        ...

    def forbids_programs(self, path: str, fd: int) -> bool:
        """Whether nothing may be executed on the file system where ``path`` was found."""
        ...


class LiveTree:
    """Those of a container that runs, through the root directory of its init.

    Attributes:
        root: a path of that.
    """

    def __init__(self, root: str) -> None:
        self.root = root

    def find(self, path: str) -> int:
        top = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                return self._open(top, path)
            except (FileNotFoundError, NotADirectoryError):
                _follow(path, lambda place: self._link(top, place))
                raise
            except OSError as error:
                if error.errno == errno.ELOOP:  # or a link that means its reader
                    _follow(path, lambda place: self._link(top, place))
                raise
        except _OfItself as own:
            return own.open()
        finally:
            os.close(top)

    def _open(self, top: int, path: str, flags: int = 0) -> int:
        return openat2(top, path, os.O_PATH | flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

    def _link(self, top: int, place: str) -> str | None:
        fd = self._open(top, place, os.O_NOFOLLOW)
        try:
            status = os.fstat(fd)
            if not stat.S_ISLNK(status.st_mode):
                return None
            try:
                target = os.readlink("", dir_fd=fd)
            except FileNotFoundError:  # of a /proc in which whoever looks has no number
                target = None
        finally:
            os.close(fd)
        if target is not None and len(os.fsencode(target)) == status.st_size:
            return target
        if os.path.basename(place) in _ITSELF:  # /proc makes it up for each who reads it
            raise _OfItself([])
        raise Unknown

    def is_fixed(self, path: str) -> bool:
        return True  # an exec makes none

    def forbids_programs(self, path: str, fd: int) -> bool:
        return bool(os.fstatvfs(fd).f_flag & os.ST_NOEXEC)


class PlannedTree:
    """Those that a container would have: a root filesystem, and what is mounted in it.

    Args:
        rootfs: its root filesystem, on the host.
        mounts: the ``mounts`` of its config.json.
    """

    def __init__(self, rootfs: str, mounts: Sequence[Mapping[str, Any]]) -> None:
        self._mounts: dict[str, Mapping[str, Any]] = {"/": {"type": "bind", "source": rootfs}}
        for mount in mounts:
            place = os.path.normpath(mount["destination"])
            self._mounts[self._real(place, missing=True)] = mount

    def find(self, path: str) -> int:
        try:
            return self._open(self._real(path))
        except _OfItself as own:
            return own.open()

    def is_fixed(self, path: str) -> bool:
        while path != "/":
            path = os.path.dirname(path)
            try:
                real = self._real(path)
            except FileNotFoundError:
                continue
            except (OSError, Unknown):
                return True
            top = self._mount_of(real)
            return top != "/" and self._source(top) is not None
        return False

    def forbids_programs(self, path: str, fd: int) -> bool:
        mount = self._mounts[self._mount_of(self._real(path))]
        if "noexec" in (mount.get("options") or ()):
            return True
        return bool(is_bind(dict(mount)) and os.fstatvfs(fd).f_flag & os.ST_NOEXEC)

    def _real(self, path: str, *, missing: bool = False) -> str:
        """Return where a path leads, link by link, as inside; ``missing``: also to nothing."""
        return _follow(path, lambda place: self._link(place, missing=missing))

    def _link(self, place: str, *, missing: bool) -> str | None:
        """Return where a link leads; None if ``place`` is none."""
        if place in self._mounts:
            return None
        try:
            fd = self._open(place)
        except (FileNotFoundError, NotADirectoryError, Unknown):
            if missing:
                return None
            if place in _MADE_LINKS:
                return _MADE_LINKS[place]
            raise
        try:
            return os.readlink("", dir_fd=fd) if stat.S_ISLNK(os.fstat(fd).st_mode) else None
        finally:
            os.close(fd)

    def _open(self, place: str) -> int:
        """Open what is at a place none of whose directories is a link."""
        try:
            return self._open_there(place)
        except FileNotFoundError:
            if place not in _MADE_DEVICES:
                raise
            return os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)  # the runtime makes it

    def _open_there(self, place: str) -> int:
        top = self._mount_of(place)
        source = self._source(top)
        if source is None:
            return self._open_fresh(place)
        below = os.path.relpath(place, top)
        first = below.split("/")[0]
        if source == "/proc" and first in _ITSELF:
            raise _OfItself([])
        if source == "/proc" and (first.isdigit() or first in _OF_WHO_LOOKS):
            raise Unknown
        fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
        if below == ".":
            return fd
        try:
            flags = os.O_PATH | os.O_NOFOLLOW
            resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
            return openat2(fd, below, flags, resolve)
        finally:
            os.close(fd)

    def _open_fresh(self, place: str) -> int:
        """Open a directory for one of a new tmpfs: in that there are but mount points."""
        if any(known == place or known.startswith(f"{place}/") for known in self._mounts):
            return os.open("/", os.O_PATH | os.O_CLOEXEC)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)

    def _mount_of(self, place: str) -> str:
        while place not in self._mounts:
            place = os.path.dirname(place)
        return place

    def _source(self, top: str) -> str | None:
        """Return what is mounted there, a path of the host; None for a new tmpfs."""
        mount = self._mounts[top]
        if is_bind(dict(mount)):
            return str(mount["source"])
        if mount.get("type") in _ALIKE:
            return _ALIKE[mount["type"]]
        if mount.get("type") == "tmpfs" and "tmpcopyup" not in (mount.get("options") or ()):
            return None
        raise Unknown
