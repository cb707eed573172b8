"""Files, written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from ..values import StateCorrupt
from ._descriptors import lifted
from ._owner import distrust
from ._scarcity import scarce

MAX_BYTES = 64 << 20
"""The longest file that is read: a record takes some kilobytes."""

# A fifo doesn't hold us, a link isn't followed, a terminal doesn't become ours.
_TO_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY

# A link or a loop of them; a socket, or a device that nobody drives; a directory; no right to it;
# its directory is none.
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

TEMPORARY = ".tmp-"
"""How the names of temporary files begin. One that is left over belonged to a killed writer."""


def write_whole(path: str, data: bytes, *, mode: int = 0o600, durable: bool = False) -> None:
    """Put ``data`` in the file at ``path``, whole or not at all, over whatever was there.

    Args:
        path: the file; its directory must be there.
        data: its whole content.
        mode: its permissions, whatever the umask.
        durable: whether it must also survive a power loss. Otherwise the promise is against
            the death of processes only.

    Raises:
        DiskFull: no space is left; the old file stands as it was.
        TooManyFiles: no descriptor is left.
        OSError: the file can't be written.

    Crash: a killed writer may leave a temporary file (`TEMPORARY`) in the directory.
    """
    directory = os.path.dirname(path)
    # Its own name is short and unique, so that neither a long name nor another writer hinders it.
    temporary = os.path.join(directory, TEMPORARY + os.urandom(8).hex())
    with scarce():
        _write_new(temporary, data, mode=mode, durable=durable)
        try:
            os.rename(temporary, path)
        except BaseException:
            _forget(temporary)
            raise
        if durable:
            _sync_directory(directory)


def write_new(path: str, data: bytes) -> None:
    """Write a file in a directory that nobody else sees yet; its rename makes it whole.

    Raises:
        FileExistsError: there is one.
        DiskFull, TooManyFiles, OSError: as `write_whole`.
    """
    with scarce():
        _write_new(path, data, mode=0o600, durable=False)


def make_fifo(path: str, mode: int) -> None:
    """Make a fifo with these permissions, whatever the umask.

    Raises:
        OSError: it can't be made; names it, which `os.mkfifo` doesn't.
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
        FileNotFoundError: there is none.
        StateCorrupt: it is no regular file, or longer than `MAX_BYTES`.
        OSError: it can't be read.
    """
    with scarce():
        # A fifo in its place would hold us for ever, and a device may do something when opened.
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            return read_found(found, path)
        finally:
            os.close(found)


def read_found(found: int, path: str) -> bytes:
    """Return the whole content of a file that is only found yet (O_PATH), if it is a regular one.

    Raises:
        StateCorrupt: it isn't, or is longer than `MAX_BYTES`; named by ``path``.
        OSError: it can't be read.
    """
    with scarce():
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise StateCorrupt(path, "not a regular file")
        fd = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read(fd, path, MAX_BYTES)
        finally:
            os.close(fd)


def read_own(path: str, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the whole content of a regular file that only we may have written.

    Args:
        max_bytes: a longer one is corrupt.

    Raises:
        FileNotFoundError: there is none.
        StateCorrupt: as `read_bytes`; or it is a link, somebody else's, or others may write to it.
        OSError: it can't be read.
    """
    with scarce():
        try:
            fd = os.open(path, _TO_READ)
        except OSError as error:
            raise oddity(error, path) from error
        try:
            require_own(fd, path)
            return _read(fd, path, max_bytes)
        finally:
            os.close(fd)


def require_own(fd: int, path: str) -> os.stat_result:
    """Require that an open file is a regular one that only we may have written.

    Returns:
        Its status.

    Raises:
        StateCorrupt: it isn't.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise StateCorrupt(path, f"not a regular file, but {kind_of(status)}")
    why = distrust(status)
    if why is not None:
        raise StateCorrupt(path, f"it {why}")
    return status


def oddity(error: OSError, path: str) -> OSError | StateCorrupt:
    """Return what it means that a file of ours can't be opened.

    Returns:
        StateCorrupt, which names the file and says what it is, if that is why: a link or a
        socket say, or one that we have no right to. Else ``error`` itself: the file isn't
        there, or the machine is at fault.
    """
    if error.errno not in _ODD:
        return error
    try:
        status = os.lstat(path)
    except OSError:  # its directory is no directory, or can't be entered
        return StateCorrupt(path, f"it can't be opened ({error.strerror})")
    if stat.S_ISREG(status.st_mode):
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        return StateCorrupt(path, f"it can't be opened ({error.strerror}; {mode})")
    return StateCorrupt(path, f"not a regular file, but {kind_of(status)}")


def kind_of(status: os.stat_result) -> str:
    """Return what a file is, for a sentence's end."""
    return _KINDS.get(stat.S_IFMT(status.st_mode), "something else")


def _read(fd: int, path: str, max_bytes: int) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise StateCorrupt(path, "not a regular file")
    wanted = min(status.st_size, max_bytes) + 1
    data = os.read(fd, wanted)
    if len(data) == status.st_size <= max_bytes:
        return data  # a byte more was asked for, and there is none
    parts, held = [data], len(data)
    while held <= max_bytes and (part := os.read(fd, wanted)):  # it may grow meanwhile
        parts.append(part)
        held += len(part)
    if held > max_bytes:
        raise StateCorrupt(path, f"longer than {max_bytes} bytes")
    return b"".join(parts)


def _write_new(path: str, data: bytes, *, mode: int, durable: bool) -> None:
    """Make a file and close it, or leave none."""
    fd = lifted(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        try:
            _fill(fd, data)
            os.fchmod(fd, mode)  # the umask has had its say in os.open
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)  # may be what says that there is no space
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = path  # it was a descriptor: nobody would know which disk is full
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
    """A file that is known by more than its path: one that is there later is another.

    Args:
        path: a file that is written once. If it isn't there, nothing ever is it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = _identity(path)

    def stands(self) -> bool:
        """Whether it is still there."""
        return self._identity is not None and _identity(self._path) == self._identity


def _identity(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    # An inode's number is soon given to another file, which was written at another time.
    return status.st_dev, status.st_ino, status.st_mtime_ns
