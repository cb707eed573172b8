"""Where a path in a container leads: in a running one, and in one that couldn't be made.

Any user may own the tree, and it may change meanwhile: no link leads out of the tree, and files are
opened only as O_PATH. A look may wait for a file system, so call this in a thread.
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
    """From here it can't be known what is there."""


class _OfItself(Unknown):
    """A path leads through the program's own directory in /proc, which only the program sees.

    Attributes:
        ahead: the names below that directory.
    """

    def __init__(self, ahead: Sequence[str]) -> None:
        super().__init__("/".join(ahead))
        self.ahead = [name for name in ahead if name not in ("", ".")]

    def open(self) -> int:
        """Return a descriptor of a similar file.

        Raises:
            FileNotFoundError: nothing is there.
            Unknown: that can't be known.
        """
        if self.ahead in ([], ["fd"]):
            return os.open("/", os.O_PATH | os.O_CLOEXEC)  # a directory that the program may pass
        if len(self.ahead) == 2 and self.ahead[0] == "fd":
            if self.ahead[1] in _STREAMS:  # a device, a fifo or a terminal: never a caller's file
                return os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # no others
        raise self


def _follow(path: str, link: Callable[[str], str | None]) -> str:
    """Return where a path leads, link by link, as inside.

    Args:
        link: returns the target of the link at a place; None if there is no link.

    Raises:
        OSError: the path leads nowhere.
        Unknown: that can't be known.
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
        """Return a descriptor of the file at an absolute path: O_PATH, closed on exec.

        Raises:
            OSError: the path leads nowhere, as inside.
            Unknown: that can't be known.
        """
        ...

    def is_fixed(self, path: str) -> bool:
        """Whether the runtime can't make a directory that is missing at ``path``."""
        ...

    def forbids_programs(self, path: str, fd: int) -> bool:
        """Whether the file system of ``path`` forbids to execute programs."""
        ...


class LiveTree:
    """The files of a running container, through the root directory of its init.

    Attributes:
        root: a path of that directory.
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
                if error.errno == errno.ELOOP:  # or a link that depends on its reader
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
            except FileNotFoundError:  # in a /proc where we have no pid
                target = None
        finally:
            os.close(fd)
        if target is not None and len(os.fsencode(target)) == status.st_size:
            return target
        if os.path.basename(place) in _ITSELF:  # /proc makes this link up for each reader
            raise _OfItself([])
        raise Unknown

    def is_fixed(self, path: str) -> bool:
        return True  # an exec makes no directories

    def forbids_programs(self, path: str, fd: int) -> bool:
        return bool(os.fstatvfs(fd).f_flag & os.ST_NOEXEC)


class PlannedTree:
    """The files that a container would have: a root filesystem, and the mounts in it.

    Args:
        rootfs: the root filesystem, on the host.
        mounts: the ``mounts`` of the config.json.
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
        """Return where a path leads, link by link, as inside; with ``missing`` also to nothing."""
        return _follow(path, lambda place: self._link(place, missing=missing))

    def _link(self, place: str, *, missing: bool) -> str | None:
        """Return where a link leads; None if ``place`` is no link."""
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
        """Open the file at a place whose directories are no links."""
        try:
            return self._open_there(place)
        except FileNotFoundError:
            if place not in _MADE_DEVICES:
                raise
            return os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)  # the runtime makes this device

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
        """Open a directory in place of one in a new tmpfs, which contains only mount points."""
        if any(known == place or known.startswith(f"{place}/") for known in self._mounts):
            return os.open("/", os.O_PATH | os.O_CLOEXEC)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)

    def _mount_of(self, place: str) -> str:
        while place not in self._mounts:
            place = os.path.dirname(place)
        return place

    def _source(self, top: str) -> str | None:
        """Return the host path that is mounted at ``top``; None for a new tmpfs."""
        mount = self._mounts[top]
        if is_bind(dict(mount)):
            return str(mount["source"])
        if mount.get("type") in _ALIKE:
            return _ALIKE[mount["type"]]
        if mount.get("type") == "tmpfs" and "tmpcopyup" not in (mount.get("options") or ()):
            return None
        raise Unknown
