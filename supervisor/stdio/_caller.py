"""Open and check the caller's files and fifos, and pass the shim descriptors of them.

What ``/dev/stdout`` and ``/proc/self/...`` mean depends on the process that opens them: so the
caller's program opens the caller's files. A container gets none of these descriptors: the shim
copies between them and the container's fifos.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator

from ..values import InvalidValue, NotFifo, raise_if_scarce
from ._null import NullDevice
from ._plan import NAMES, Stdio, check_descriptor

_AFTER_STREAMS = 3  # 0 to 2 are a child's standard streams
_ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK  # don't wait for a fifo's other end
_MOST_LINKS = 40
_TEXT = "; text for the program must be encoded to bytes (for `run` and pools)"


@contextlib.contextmanager
def opened(stdio: Stdio, null: NullDevice) -> Iterator[Stdio]:
    """Open what the streams need, for the time of the block; no file is made yet.

    Raises:
        InvalidValue: a file can't be opened, or can't be that stream.
        InfrastructureError: ``/dev/null`` isn't the null device.
        TooManyFiles: no descriptor was left.
    """
    with contextlib.ExitStack() as held:
        shared = null.shared() if "null" in stdio.specs else None
        theirs: list[int | None] = []
        for name, spec in zip(NAMES, stdio.specs, strict=True):
            fd = _open(name, spec, stdio, null if shared is None else None)
            if fd is not None:
                held.callback(os.close, fd)
            theirs.append(fd)
        yield stdio.having(theirs, null=shared)


@contextlib.contextmanager
def files_made(stdio: Stdio) -> Iterator[Stdio]:
    """Make the files for output that weren't there when `opened` looked.

    Raises:
        InvalidValue: a file can't be made.
        DiskFull, TooManyFiles: there is no space for a file, or no descriptor.
    """
    with contextlib.ExitStack() as held:
        theirs = list(stdio.theirs)
        for number, spec in enumerate(stdio.specs):
            if spec.startswith("file:") and theirs[number] is None:
                theirs[number] = fd = _open_file(NAMES[number], spec[5:], os.O_CREAT)
                held.callback(os.close, fd)
        yield stdio.having(theirs, null=stdio.null)


def _open(name: str, spec: str, stdio: Stdio, null: NullDevice | None) -> int | None:
    """Return a descriptor above 2; None if the stream needs no file of the caller's yet."""
    kind, _, rest = spec.partition(":")
    if kind == "fd":
        return _copied(name, int(rest))
    if kind == "file":
        return _open_existing(name, rest)
    if kind == "fifo" and not stdio.is_own(spec):
        return _open_fifo(name, rest)
    if kind == "null" and null is not None:
        return _lifted(null.open(_direction(name)))
    return None


def _copied(name: str, fd: int) -> int:
    try:
        copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _AFTER_STREAMS)
    except OSError as error:
        raise_if_scarce(error)
        raise
    return _checked(name, copy)


def _open_existing(name: str, path: str) -> int | None:
    own = _own_descriptor(path)
    if own is not None:
        check_descriptor(name, own)
        return _copied(name, own)
    if name != "stdin" and not os.path.exists(path):
        _check_place(name, path)
        return None
    return _open_file(name, path)


def _open_file(name: str, path: str, flags: int = 0) -> int:
    appending = 0 if name == "stdin" else os.O_APPEND
    try:
        fd = os.open(path, _direction(name) | appending | _ALWAYS | flags, 0o600)
    except OSError as error:
        raise _unopened(name, path, error) from error
    return _checked(name, _lifted(fd))


def _open_fifo(name: str, path: str) -> int:
    """Return a descriptor with O_PATH, from which the shim opens both sides of the fifo."""
    try:
        fd = _lifted(os.open(path, os.O_PATH | os.O_CLOEXEC))
    except OSError as error:
        raise _unopened(name, path, error) from error
    try:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise NotFifo(f"{path} is not a fifo: mkfifo makes one", path=path)
        if not os.access(f"/proc/self/fd/{fd}", os.R_OK | os.W_OK, effective_ids=True):
            raise InvalidValue(f"{name}: {path} can't be opened for reading and writing")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_place(name: str, path: str) -> None:
    """Check that a file could be made; a symlink's target is checked later."""
    directory = os.path.dirname(path)
    try:
        os.stat(directory)
    except OSError as error:
        raise _unopened(name, path, error) from error
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise InvalidValue(f"{name}: no file can be made in {directory}")


def _own_descriptor(path: str) -> int | None:
    """Return the number of our own descriptor that a path names, or None."""
    own = re.compile(rf"/proc/{os.readlink('/proc/self')}(/task/\d+)?/fd")
    for _ in range(_MOST_LINKS):
        directory = os.path.realpath(os.path.dirname(path))
        name = os.path.basename(path)
        if own.fullmatch(directory) and name.isdecimal() and name.isascii():
            return int(name)
        try:
            path = os.path.join(directory, os.readlink(os.path.join(directory, name)))
        except OSError:
            return None  # no link
    return None


def _checked(name: str, fd: int) -> int:
    """Return ``fd`` if the stream can be that; else close ``fd`` and raise."""
    try:
        check_descriptor(name, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lifted(fd: int) -> int:
    if fd >= _AFTER_STREAMS:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _AFTER_STREAMS)
    except OSError as error:
        raise_if_scarce(error)
        raise
    finally:
        os.close(fd)


def _direction(name: str) -> int:
    return os.O_RDONLY if name == "stdin" else os.O_WRONLY


def _unopened(name: str, path: str, error: OSError) -> Exception:
    raise_if_scarce(error)
    hint = _TEXT if name == "stdin" and error.errno == errno.ENOENT else ""
    return InvalidValue(f"{name}: can't open {path:.300}: {error.strerror}{hint}")
