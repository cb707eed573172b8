"""The Trio streams of a PIPE: `InputStream` and `OutputStream`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

import trio

from ..observers import Observers, Read
from ..system import Descriptor, WeakSet, close_in_children, lifted
from ..tasks import Opener, protected
from ..values import InvalidValue, raise_if_scarce
from ._fifo_end import End, Keeping, Owning, octets

_FIFO_MODE = 0o600


async def _give_up(others: bool, keeping: Keeping) -> None:
    """Make the other holders close, too, if ``others`` says so; a checkpoint in any case."""
    try:
        if others:
            with contextlib.suppress(ProcessLookupError):
                await keeping.end_patiently()
    finally:
        await trio.lowlevel.checkpoint()


def holder(path: str, flags: int) -> Descriptor:
    """Open a fifo for as long as we hold the descriptor; forked children don't keep that."""
    return close_in_children(_open_fifo(path, flags))


def _open_fifo(path: str, flags: int) -> int:
    """Open a fifo in the process directory.

    The container's root may have our uid, and remove the fifo's mode bits. Then we set the mode
    again.
    """
    flags |= os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return lifted(os.open(path, flags))
    except PermissionError:
        if not _give_back_mode(path):
            raise
        return lifted(os.open(path, flags))


def _give_back_mode(path: str) -> bool:
    found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(found)
        if not stat.S_ISFIFO(status.st_mode) or status.st_uid != os.geteuid():
            return False
        os.chmod(f"/proc/self/fd/{found}", _FIFO_MODE)
    finally:
        os.close(found)
    return True


def open_output(path: str, container: str) -> End:
    """Open the reading end of an output fifo.

    The end of file comes when all processes of the container have closed the writing end.

    Raises:
        TooManyFiles: no descriptor was left.
        InvalidValue: we may not open the fifo.
    """
    try:
        return End(_open_fifo(path, os.O_RDONLY))
    except OSError as error:
        _raise_unopened(error, path, container)
        raise


def _raise_unopened(error: OSError, path: str, container: str) -> None:
    """Raise the error for a fifo that couldn't be opened, if that isn't the system's own."""
    raise_if_scarce(error, container=container)
    if not isinstance(error, PermissionError):
        return
    raise InvalidValue(
        f"its {os.path.basename(path)} can't be a PIPE: the runtime gives the fifo to the "
        "container's user, and the file system of the supervisor's root has no ACLs to let you "
        "in. Use LOG or a terminal, user 0 in the container, or run as root",
        container=container,
    ) from error


@protected
class OutputStream(trio.abc.ReceiveStream):
    """The reading end of a process's output.

    The owner's close ends the output: a process that goes on writing gets SIGPIPE or EPIPE, as
    with a `trio.Process`. A close by a supervisor that doesn't own the process ends nothing.
    The observers are notified of each chunk that was read: reading removes the chunk.

    Attributes:
        handed_over: whether the stream is the caller's, and closed only by the caller.
    """

    def __init__(
        self,
        path: str,
        keeping: Keeping,
        *,
        owning: Owning,
        container: str,
        observers: Observers,
    ) -> None:
        self._container = container
        self._observers = observers
        self._keeping = keeping
        self._owning = owning
        self._end = open_output(path, container)
        self._opener = Opener()
        self.handed_over: bool = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive the bytes that are there, at most ``max_bytes``; ``b""`` at the end of file."""
        self._opener.require(self._container)
        try:
            chunk = await self._end.stream.receive_some(max_bytes)
        except trio.ClosedResourceError:
            self._opener.require(self._container)
            raise
        if chunk:
            self._observers.notify(Read(self._container, chunk))
        return chunk

    def fileno(self) -> int:
        """Return the descriptor's number."""
        return self._end.stream.fileno()

    def detach(self) -> None:
        """Close our end, and leave the output to other readers."""
        if not self.handed_over:
            self._keeping.forgo()
            self._end.close()

    def close(self) -> None:
        """Close our end, and end the output.

        Raises:
            ShimError: the shim takes no line; another close tries again.
        """
        if self._shut():
            with contextlib.suppress(ProcessLookupError):
                self._keeping.end()

    async def aclose(self) -> None:
        """Close our end, and end the output.

        Raises:
            ShimError: the shim took no line for two seconds; another close tries again.
        """
        await _give_up(self._shut(), self._keeping)

    def _shut(self) -> bool:
        """Close our end; return whether the other holders have to close, too."""
        self._end.close()
        return self._owning.ours and not self._opener.elsewhere()


@protected
class InputStream(trio.abc.SendStream):
    """The writing end of a process's standard input.

    A close is the end of the process's input, as with a `trio.Process`: the shim, which holds the
    fifo open so that writers may come and go, gets a line to close the fifo.

    Attributes:
        closed: whether this stream was closed.
        handed_over: whether the stream is the caller's, and closed only by the caller.
    """

    def __init__(
        self,
        path: str,
        keeping: Keeping,
        *,
        stands: Callable[[], bool],
        container: str,
    ) -> None:
        self._path = path
        self._container = container
        self._keeping = keeping
        self._stands = stands
        self._opened = False
        self.closed: bool = False
        self.handed_over: bool = False
        self._end: End | None = None
        self._opener = Opener()

    def open(self) -> None:
        """Open the fifo, unless this stream was opened or closed before.

        While our end is open, the process's input doesn't end.

        Raises:
            TooManyFiles: no descriptor was left.
            InvalidValue: we may not open the fifo.
        """
        if self._opened or self.closed:
            return
        try:
            fd = _open_fifo(self._path, os.O_WRONLY)
        except OSError as error:
            # The process has closed its end already, or was deleted.
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                _raise_unopened(error, self._path, self._container)
                raise
        else:
            self._end = End(fd)
        self._opened = True
        if self._end is not None and not self._stands():  # that was a later process's fifo
            self._end.close()
            self._end = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; BrokenResourceError once the process has closed stdin."""
        try:
            await self._usable().send_all(octets(data))
        except trio.ClosedResourceError:
            self._opener.require(self._container)
            raise

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send as much of ``data`` as the fifo takes at once; return the number of bytes.

        Raises:
            trio.BrokenResourceError: the process has closed stdin.
        """
        fd = self._usable().fileno()
        try:
            return os.write(fd, octets(data))
        except BlockingIOError:
            return 0
        except BrokenPipeError as error:
            raise trio.BrokenResourceError("the process has closed its standard input") from error

    async def wait_send_all_might_not_block(self) -> None:
        """Return when the fifo may take data at once."""
        await self._usable().wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """End the process's input.

        Raises:
            ShimError: the shim took no line for two seconds; another close tries again.
        """
        await _give_up(self._shut(), self._keeping)

    def close(self) -> None:
        """End the process's input. A second call does nothing.

        Raises:
            ShimError: the shim takes no line; another close tries again.
        """
        if self._shut():
            with contextlib.suppress(ProcessLookupError):
                self._keeping.end()

    def detach(self) -> None:
        """Close our end and leave the process's input open for other writers."""
        if not self.handed_over:
            self._keeping.forgo()
            self._shut()

    def _shut(self) -> bool:
        """Close our end; return whether the other holders have to close, too."""
        self.closed = True
        if self._end is not None:
            self._end.close()
        return not self._opener.elsewhere()

    def _usable(self) -> trio.lowlevel.FdStream:
        self._opener.require(self._container)
        if self.closed:
            raise trio.ClosedResourceError("this end of the fifo was closed")
        self.open()
        if self._end is None:
            raise trio.BrokenResourceError("the process has closed its standard input")
        return self._end.stream


# The streams of one container, also of ended processes. A stream belongs to the caller that refers
# to the stream, so the set holds weak references.
Ends = WeakSet[InputStream | OutputStream]
