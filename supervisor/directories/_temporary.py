"""Our temporary directories: ephemeral roots, and bundles without a path.

They lie where runtimes keep their files: in memory, in a directory that no other user may write to
and that no program sweeps. `PLACE` can name another directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from typing import Final, Self

from ..observers import place
from ..system import (
    PASSABLE,
    Descriptor,
    close_in_children,
    distrust,
    distrust_way,
    lifted,
)
from ..tasks import Opener
from ..values import InfrastructureError, InvalidValue, misplaced, raise_if_scarce, spoilt
from ._abandoned import PREFIX, new_name, sweep_once

PLACE: Final = "TRIO_SUPERVISOR_RUNTIME_DIR"
"""The environment variable that names a directory for temporary directories."""

_PRIVATE: Final = 0o700
_OWN: Final = "trio-supervisor"
_SHARED_MEMORY: Final = "/dev/shm"
_IN_MEMORY: Final = ("tmpfs", "ramfs")

logger: Final = logging.getLogger("supervisor")


class Temporary:
    """A temporary directory, made for us, and open as long as this object.

    A shared lock (flock) shows programs that sweep temporary files that the directory is in use
    (systemd-tmpfiles(8) honours that). Forked children don't hold the lock.

    Attributes:
        path: its real path.
    """

    def __init__(self, path: str, descriptor: Descriptor) -> None:
        self.path = path
        self._descriptor = descriptor
        self._opener = Opener()

    @classmethod
    def make(cls) -> Temporary:
        """Make one, under a free name.

        Raises:
            InvalidValue: as `places`; or no directory can be made in the place that the environment
                names.
            DiskFull, TooManyFiles, InfrastructureError: the directory can't be made.
        """
        path = _make()
        try:
            return cls(path, _open(path))
        except BaseException as error:
            with contextlib.suppress(OSError):  # gone, or another user's
                os.rmdir(path)
            if isinstance(error, OSError):
                raise unmade(error, path) from error
            raise

    @classmethod
    def found(cls, path: str) -> Temporary:
        """Open one that a keeper has made for us.

        Raises:
            InvalidValue: the directory isn't ours.
            TooManyFiles, OSError: the directory can't be opened.
        """
        try:
            return cls(path, _open(path))
        except OSError as error:
            raise_if_scarce(error)
            raise

    @property
    def fd(self) -> int:
        """The descriptor of the directory."""
        return self._descriptor.fd

    @property
    def may_be_swept(self) -> bool:
        """Whether the directory lies in /tmp, where old and unlocked files may be swept."""
        return os.path.dirname(self.path) not in (_own_path(), _SHARED_MEMORY)

    def remove(self) -> None:
        """Remove the directory and its content, if it still is the one that was made; close it.

        A forked child has closed the descriptor; the directory belongs to the parent.
        """
        with contextlib.suppress(OSError):
            if not self._opener.elsewhere() and os.path.samestat(
                os.fstat(self.fd), os.lstat(self.path)
            ):
                shutil.rmtree(self.path, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Close the descriptor; the directory stays."""
        self._descriptor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def places() -> list[str]:
    """Return the places for our temporary directories, the best first.

    Raises:
        InvalidValue: the environment names a place that can't be used, or where others may replace
            what we make; or there is no other place.
    """
    named = os.environ.get(PLACE)
    if named:
        return [_safe(_named(named))]
    own = _own_place()
    candidates = [path for path in (own, _SHARED_MEMORY) if path is not None and _usable(path)]
    in_memory = [path for path in candidates if _is_in_memory(path)]
    found = in_memory or [path for path in candidates if path == own]
    found = found or [_safe(os.path.realpath(tempfile.gettempdir()))]
    if found[0] != own:
        _say(own, found[0])
    return found


@functools.cache
def _say(own: str | None, found: str) -> None:
    missing = (
        "there is no XDG_RUNTIME_DIR" if own is None else f"{own} isn't in memory, or not ours"
    )
    logger.info("%s: temporary directories are made in %s", missing, found)


def _named(path: str) -> str:
    real = os.path.realpath(path)
    if not os.path.isabs(path) or not os.path.isdir(real):
        raise InvalidValue(f"{PLACE}: {path!r} is no absolute path of a directory")
    return real


def _safe(path: str) -> str:
    why = spoilt(path)
    if why is not None:
        raise InvalidValue(f"no temporary directory can be in {path!r}: it {why}; see {PLACE}")
    why = distrust_way(os.path.join(path, _OWN))
    if why is not None:
        raise InvalidValue(f"no temporary directory is safe there: {why}; let {PLACE} name a place")
    return path


def _above() -> str:
    return "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")


def _own_path() -> str | None:
    """Return the path of our directory below the directory for runtime files."""
    above = _above()
    if not os.path.isabs(above) or os.path.realpath(above) != os.path.normpath(above):
        return None
    return os.path.join(os.path.normpath(above), _OWN)


def _own_place() -> str | None:
    """Return that directory, made if missing."""
    path = _own_path()
    if path is None:
        return None
    with contextlib.suppress(OSError):
        if distrust(os.stat(os.path.dirname(path))) is None and distrust_way(path) is None:
            os.mkdir(path, PASSABLE)
            os.chmod(path, PASSABLE)  # whatever the umask
    return path


def _usable(path: str) -> bool:
    """Whether we can make directories there that no other user can replace."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    if not stat.S_ISDIR(status.st_mode) or spoilt(path) or distrust_way(path) is not None:
        return False
    ours = distrust(status) is None
    shared = status.st_uid == 0 and bool(status.st_mode & stat.S_ISVTX)
    return (ours or shared) and os.access(path, os.W_OK | os.X_OK)


def _is_in_memory(path: str) -> bool:
    """Whether a path lies in a file system in memory (proc_pid_mountinfo(5))."""
    device = os.stat(path).st_dev
    return _kind(f"{os.major(device)}:{os.minor(device)}") in _IN_MEMORY


@functools.cache
def _kind(device: str) -> str:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                if fields.split(" ")[2] == device:
                    return rest.split(" ", 1)[0]
    except OSError as error:
        raise_if_scarce(error)
    return ""


def paths(*, marked: bool = True) -> Iterator[str]:
    """Yield paths for a temporary directory, without end: try until a name is free.

    First, and once per process, remove what killed programs have left there.

    Args:
        marked: whether the name names us as the owner, so that others remove the directory if we
            are killed.

    Raises:
        InvalidValue: as `places`.
    """
    parent = places()[0]
    sweep_once(parent, os.getpid())
    while True:
        named = place()
        if named is not None:
            yield os.path.join(parent, f"{PREFIX}{named}")
        else:
            yield os.path.join(parent, new_name(marked=marked))


def unmade(error: OSError, path: str) -> InvalidValue | InfrastructureError:
    """Return the error to raise if a temporary directory can't be made at ``path``.

    Raises: as `raise_if_scarce`.
    """
    why = f"no temporary directory can be made in {os.path.dirname(path)}"
    if os.environ.get(PLACE):
        return misplaced(error, f"{PLACE}: {why}")
    raise_if_scarce(error)
    return InfrastructureError(f"{why}: {error.strerror}; let {PLACE} name another place")


def _make() -> str:
    """Make a directory that only we may enter; names that exist are skipped."""
    for path in paths():
        try:
            os.mkdir(path, _PRIVATE)
            os.chmod(path, _PRIVATE)  # a umask may take even our own bits
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise unmade(error, path) from error
    raise AssertionError("names never end")


def _open(path: str) -> Descriptor:
    descriptor = close_in_children(
        lifted(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
    )
    try:
        why = distrust(os.fstat(descriptor.fd))
        if why is not None:  # others may have replaced the one that we made
            raise InvalidValue(f"the directory at {path} {why}: let {PLACE} name another place")
        fcntl.flock(descriptor.fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.fchmod(descriptor.fd, PASSABLE)
    except BaseException:
        descriptor.close()
        raise
    return descriptor
