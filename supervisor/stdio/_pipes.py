"""The two kinds of stream that a PIPE is: a process's output, and its input."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable

import trio

from ..system import Descriptor, WeakSet, close_in_children, lifted
from ..tasks import Opener, hear, protected
from ..values import InvalidValue, scarcity
from ._fifo_end import End, Keeping, Owning, octets

_FIFO_MODE = 0o600


async def _give_up(others: bool, keeping: Keeping) -> None:
    """Have the others give up what we have closed, if they are to; a checkpoint in any case."""
    try:
        if others:
            with contextlib.suppress(ProcessLookupError):
                await keeping.end_patiently()
    finally:
        await trio.lowlevel.checkpoint()


def holder(path: str, flags: int) -> Descriptor:
    """Open a fifo for as long as we hold it; a forked child doesn't."""
    return close_in_children(_open_fifo(path, flags))


def _open_fifo(path: str, flags: int) -> int:
    """Open a fifo in the process directory.

    The container's root may be us, and take its fifo's mode away from whoever isn't let in anyway:
    then we give it back.
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

    Its end of file comes when the container has closed its end everywhere.

    Raises:
        TooManyFiles: no descriptor was left.
        InvalidValue: we may not.
    """
    try:
        return End(_open_fifo(path, os.O_RDONLY))
    except OSError as error:
        raise _unopened(error, path, container) from error


def _unopened(error: OSError, path: str, container: str) -> OSError | InvalidValue:
    """Return what it means that a fifo couldn't be opened."""
    if not isinstance(error, PermissionError):
        return scarcity(error, container=container)
    return InvalidValue(
        f"its {os.path.basename(path)} can't be a PIPE: the runtime gives the fifo to the "
        "container's user, and the file system of the supervisor's root has no ACLs to let you "
        "in. Have it go to LOG or use a terminal, be user 0 in the container, or run as root",
        container=container,
    )


@protected
class OutputStream(trio.abc.ReceiveStream):
    """The reading end of a process's output.

    Closing it says that nobody will read the rest: a process that writes on gets SIGPIPE or EPIPE,
    as with a `trio.Process`. Who only looks on at another supervisor's process says nothing so.
    Whoever looks on at a test is told what was read: it is gone from the fifo then.

    Attributes:
        handed_over: whether it is the caller's, and closed by nobody else.
    """

    def __init__(self, path: str, keeping: Keeping, *, owning: Owning, container: str) -> None:
        self._container = container
        self._keeping = keeping
        self._owning = owning
        self._end = open_output(path, container)
        self._opener = Opener()
        self.handed_over: bool = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there, at most ``max_bytes``; ``b""`` at the end of the output."""
        self._opener.require(self._container)
        try:
            chunk = await self._end.stream.receive_some(max_bytes)
        except trio.ClosedResourceError:
            self._opener.require(self._container)
            raise
        hear(self._container, chunk)
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
        """Close our end: nobody will read the rest.

        Raises:
            ShimError: its shim can't be told; closing it again repeats that.
        """
        if self._shut():
            with contextlib.suppress(ProcessLookupError):
                self._keeping.end()

    async def aclose(self) -> None:
        """Close our end: nobody will read the rest.

        Raises:
            ShimError: its shim can't be told, for two seconds; closing it again repeats that.
        """
        await _give_up(self._shut(), self._keeping)

    def _shut(self) -> bool:
        """Close our own end; say whether others have to give up theirs."""
        self._end.close()
        return self._owning.ours and not self._opener.elsewhere()


@protected
class InputStream(trio.abc.SendStream):
    """The writing end of a process's standard input.

    Closing it is the end of the process's input, as with a `trio.Process`: the shim, which
    holds the fifo open so that writers may come and go, is told to let go of it.

    Attributes:
        closed: whether it was closed here.
        handed_over: whether it is the caller's, and closed by nobody else.
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
        """Open it, unless it was opened, or closed, before: from then on it keeps it from ending.

        Raises:
            TooManyFiles: no descriptor was left.
            InvalidValue: we may not.
        """
        if self._opened or self.closed:
            return
        try:
            fd = _open_fifo(self._path, os.O_WRONLY)
        except OSError as error:
            # The process has closed its end already, or was deleted.
            if error.errno not in (errno.ENXIO, errno.ENOENT):
                raise _unopened(error, self._path, self._container) from error
        else:
            self._end = End(fd)
        self._opened = True
        if self._end is not None and not self._stands():  # that was a later one's
            self._end.close()
            self._end = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; BrokenResourceError once the process has closed its end."""
        try:
            await self._usable().send_all(octets(data))
        except trio.ClosedResourceError:
            self._opener.require(self._container)
            raise

    def send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send what of ``data`` the fifo takes at once; return how many bytes that were.

        Raises:
            trio.BrokenResourceError: the process has closed its end.
        """
        fd = self._usable().fileno()
        try:
            return os.write(fd, octets(data))
        except BlockingIOError:
            return 0
        except BrokenPipeError as error:
            raise trio.BrokenResourceError("the process has closed its standard input") from error

    async def wait_send_all_might_not_block(self) -> None:
        """Return when some of it may be sent at once."""
        await self._usable().wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """End the process's input.

        Raises:
            ShimError: its shim can't be told, for two seconds; closing it again repeats that.
        """
        await _give_up(self._shut(), self._keeping)

    def close(self) -> None:
        """End the process's input; the second time nothing happens.

        Raises:
            ShimError: its shim can't be told; closing it again repeats that.
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
        """Close our own end; say whether others have to give up theirs."""
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


# Of one container, also of those of its processes that are done with: a stream belongs to whoever
# has it in hand, so they are held weakly.
Ends = WeakSet[InputStream | OutputStream]
