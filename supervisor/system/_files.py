"""Files, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ..values import StateCorrupt, raise_if_scarce
from ._descriptors import lifted
from ._owner import distrust

MAX_BYTES = 64 << 20
"""Longer files aren't read: a record takes some kilobytes."""

# Don't wait for a fifo's writer, don't follow a link, don't take a terminal as our own.
_TO_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY

# A link or a loop of links; a socket, or a device without a driver; a directory; no permission; a
# path through something that is no directory.
_ODD = frozenset(
    {
        errno.ELOOP,
        errno.ENXIO,
        errno.ENODEV,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
    }
)
_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

PASSABLE = 0o711
"""The mode of a directory through which a user namespace's root must be able to pass."""

TEMPORARY = ".tmp-"
"""How the names of temporary files begin. A left-over one belonged to a killed writer."""


def write_whole(path: str, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Write ``data`` to the file at ``path``, whole or not at all; replace what was there.

    Args:
        path: the file; the directory must be there.
        data: the whole content.
        mode: the permissions, whatever the umask.
        durable: whether the data must also survive a power loss. Otherwise it survives only the
            death of processes.

    Raises:
        DiskFull: no space is left; the old file is unchanged.
        TooManyFiles: no descriptor is left.
        OSError: the file can't be written.

    Crash: a killed writer may leave a temporary file (`TEMPORARY`) in the directory.
    """
    directory = os.path.dirname(path)
    # The temporary name is short and unique, so neither a long name nor another writer gets in the
    # way.
    temporary = os.path.join(directory, TEMPORARY + os.urandom(8).hex())
    try:
        _write_new(temporary, data, mode=mode, durable=durable)
        try:
            os.rename(temporary, path)
        except BaseException:
            _forget(temporary)
            raise
        if durable:
            _sync_directory(directory)
    except OSError as error:
        raise_if_scarce(error)
        raise


def write_new(path: str, data: bytes) -> None:
    """Write a file in a directory that is still private; the directory's rename publishes it.

    Raises:
        FileExistsError: there is a file already.
        DiskFull, TooManyFiles, OSError: as `write_whole`.
    """
    try:
        _write_new(path, data, mode=0o600, durable=False)
    except OSError as error:
        raise_if_scarce(error)
        raise


def make_fifo(path: str, mode: int) -> None:
    """Make a fifo with these permissions, whatever the umask.

    Raises:
        OSError: the fifo can't be made. The error names the path, which `os.mkfifo` leaves out.
    """
    try:
        os.mkfifo(path, mode)
    except OSError as error:
        error.filename = path
        raise
    os.chmod(path, mode)  # a umask may take even our own bits


def read_bytes(path: str) -> bytes:
    """Return the whole content of a regular file.

    Raises:
        FileNotFoundError: there is no such file.
        StateCorrupt: not a regular file, or longer than `MAX_BYTES`.
        OSError: the file can't be read.
    """
    try:
        # Opening a fifo could wait for ever, and opening a device may have effects.
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            return read_found(found, path)
        finally:
            os.close(found)
    except OSError as error:
        raise_if_scarce(error)
        raise


def read_found(found: int, path: str) -> bytes:
    """Return the whole content of a regular file that is open with O_PATH only.

    Raises:
        StateCorrupt: the file isn't regular, or is longer than `MAX_BYTES`; names ``path``.
        OSError: the file can't be read.
    """
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise StateCorrupt(path, "not a regular file")
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read(fd, path, MAX_BYTES)
        finally:
            os.close(fd)
    except OSError as error:
        raise_if_scarce(error)
        raise


def read_own(path: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the whole content of a regular file that only we may have written.

    Args:
        max_bytes: a longer file is corrupt.

    Raises:
        FileNotFoundError: there is no such file.
        StateCorrupt: as `read_bytes`; or a link, or a file that others own or may write to.
        OSError: the file can't be read.
    """
    try:
        try:
            fd = os.open(path, _TO_READ)
        except OSError as error:
            raise oddity(error, path) from error
        try:
            require_own(fd, path)
            return _read(fd, path, max_bytes)
        finally:
            os.close(fd)
    except OSError as error:
        raise_if_scarce(error)
        raise


def require_own(fd: int, path: str) -> os.stat_result:
    """Require that an open file is a regular one that only we may have written.

    Returns:
        The file's status.

    Raises:
        StateCorrupt: the file isn't.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise StateCorrupt(path, f"not a regular file, but {kind_of(status)}")
    why = distrust(status)
    if why is not None:
        raise StateCorrupt(path, why)
    return status


def oddity(error: OSError, path: str) -> OSError | StateCorrupt:
    """Return the error that explains why a file of ours can't be opened.

    Returns:
        StateCorrupt, which names the file and its kind, if that is the reason: say a link or a
        socket, or a file that we have no permission for. Else ``error`` itself: the file isn't
        there, or the machine is at fault.
    """
    if error.errno not in _ODD:
        return error
    try:
        status = os.lstat(path)
    except OSError:  # the parent is no directory, or can't be entered
        return StateCorrupt(path, f"can't be opened ({error.strerror})")
    if stat.S_ISREG(status.st_mode):
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        return StateCorrupt(path, f"can't be opened ({error.strerror}; {mode})")
    return StateCorrupt(path, f"not a regular file, but {kind_of(status)}")


def kind_of(status: os.stat_result) -> str:
    """Return a file's kind, for the end of a sentence."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def _read(fd: int, path: str, max_bytes: int) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise StateCorrupt(path, "not a regular file")
    wanted = min(status.st_size, max_bytes) + 1
    data = os.read(fd, wanted)
    if len(data) == status.st_size <= max_bytes:
        return data  # one more byte was asked for, and there was none
    parts, held = [data], len(data)
    while held <= max_bytes and (part := os.read(fd, wanted)):  # the file may grow meanwhile
        parts.append(part)
        held += len(part)
    if held > max_bytes:
        raise StateCorrupt(path, f"longer than {max_bytes} bytes")
    return b"".join(parts)


def _write_new(path: str, data: bytes, *, mode: int, durable: bool) -> None:
    """Make a file and close it, or leave no file."""
    fd = lifted(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        try:
            _fill(fd, data)
            os.fchmod(fd, mode)  # the umask applied to os.open
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)  # close may report that there is no space
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = path  # write() on a descriptor names no file
        _forget(path)
        raise


def _fill(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _forget(path: str) -> None:
    # The failure that led here is the one to report.
    with contextlib.suppress(OSError):
        os.unlink(path)


def _sync_directory(path: str) -> None:
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Original:
    """A file identified by more than its path: a later file at the path is another one.

    Args:
        path: a file that is written once. If there is no file, `stands` is never true.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _identity(path)

    def stands(self) -> bool:
        """Whether the same file is still there."""
        return self._identity is not None and _identity(self._path) == self._identity


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    # Another file may soon get the same inode number, but was written at another time.
    return status.st_dev, status.st_ino, status.st_mtime_ns
