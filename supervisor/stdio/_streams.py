"""A process's fifos as Trio streams."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

import trio

from .._errors import InvalidValue, scarcity
from .._forks import Opener
from .._witness import hear
from ..shim import CLOSE_STDIN, Control
from ..state import Descriptor, ProcessLayout, ProcessRecord, close_in_children, lifted

logger: Final = logging.getLogger("supervisor")

_FIFO_MODE = 0o600


class Streams:
    """The standard streams of one process, as far as they are PIPE.

    Attributes:
        stdin: its writing end, or None.
        stdout: its reading end, or None.
        stderr: the same.
    """

    def __init__(
        self,
        layout: ProcessLayout,
        record: ProcessRecord,
        control: Control,
        *,
        ends: Ends,
        container: str,
    ) -> None:
        self._container = container
        self._ends = ends
        self._control = control
        self._layout = layout
        self._record = record
        self.stdin: InputStream | None = None
        self.stdout: OutputStream | None = None
        self.stderr: OutputStream | None = None
        self._both: trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream] | None = None
        self._stdin_holders: list[Descriptor] = []
        self._output_holders: list[Descriptor] = []

    @property
    def stdio(self) -> trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream] | None:
        """Its input and its output as one stream, if both are PIPE."""
        if self._both is None and self.stdin is not None and self.stdout is not None:
            self._both = trio.StapledStream(self.stdin, self.stdout)
        return self._both

    def open(self, *, hold: bool = False, owned: bool = True, adopted: bool = False) -> None:
        """Open the fifos in the process directory; a fifo of the caller's own is the caller's.

        Args:
            hold: whether to hold each of them open beside the streams, as the shim does: then
                they stay whole without it.
            owned: whether the process is supervised from here. Whoever only looks on opens the
                input when it is first used: an open one would keep it from ending.
            adopted: whether it has run before. Then it may have shut us out of a fifo that the
                runtime gave to its user: the rest of it is supervised all the same.

        Raises:
            TooManyFiles: no descriptor was left.
            InvalidValue: we may not open one.
        """
        # No reference back to the process: a stream that nobody keeps is closed at once.
        let_go = partial(_end_input, self._control, self._stdin_holders)
        if self._record.stdin == f"fifo:{self._layout.stdin}":
            self.stdin = InputStream(
                self._layout.stdin,
                let_go,
                stands=self._control.stands,
                container=self._container,
            )
            if owned:
                with _shut_out(adopted):
                    self.stdin.open()
        if self._record.stdout == f"fifo:{self._layout.stdout}":
            with _shut_out(adopted):
                self.stdout = self._open_output(self._layout.stdout)
        if self._record.stderr == f"fifo:{self._layout.stderr}":
            with _shut_out(adopted):
                self.stderr = self._open_output(self._layout.stderr)
        self._ends.update(end for end in (self.stdin, self.stdout, self.stderr) if end is not None)
        if hold:
            self._hold_output()
        if hold and owned:
            self._hold_input()

    def _open_output(self, path: str) -> OutputStream | None:
        try:
            return OutputStream(path, self._container)
        except FileNotFoundError:  # see `abandon`: whoever did that was killed before the rest
            return None

    def own(self, *, hold: bool) -> None:
        """Take over the streams of a process that wasn't owned: ``hold`` as at `open`."""
        if hold and not self._stdin_holders:
            self._hold_input()

    def _hold_input(self) -> None:
        if self.stdin is not None and not self.stdin.closed:
            with contextlib.suppress(OSError):  # ENXIO: the process has closed it already
                self._stdin_holders.append(_holder(self._layout.stdin, os.O_WRONLY))

    def _hold_output(self) -> None:
        try:
            if self.stdout is not None:
                self._output_holders.append(_holder(self._layout.stdout, os.O_RDONLY))
            if self.stderr is not None:
                self._output_holders.append(_holder(self._layout.stderr, os.O_RDONLY))
        except OSError as error:
            raise scarcity(error) from error

    def close(self) -> None:
        """Close our ends; the process isn't told."""
        if self.stdin is not None:
            self.stdin.detach()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.detach()
        self.release()

    def abandon(self) -> None:
        """Close our ends of what nobody will read; the shim doesn't stay for what is in there.

        It looks whether there is a name by which a fifo could be opened.
        """
        if self._control.stands():  # else the names are a later one's
            for stream, path in (
                (self.stdout, self._layout.stdout),
                (self.stderr, self._layout.stderr),
            ):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        os.unlink(path)
        self.close()

    def release(self) -> None:
        """Close what is held open beside the streams; the second time nothing happens."""
        _close_all(self._stdin_holders)
        _close_all(self._output_holders)

    def close_stdin(self) -> None:
        """End the process's input; a terminal is hung up.

        Raises:
            ProcessEnded: it has ended.
        """
        if self.stdin is not None:
            self.stdin.close()
        else:
            _end_input(self._control, self._stdin_holders)


@contextlib.contextmanager
def _shut_out(adopted: bool) -> Iterator[None]:
    try:
        yield
    except InvalidValue as error:
        if not adopted:
            raise
        logger.warning("%s", error)


def _holder(path: str, flags: int) -> Descriptor:
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


def _close_all(held: list[Descriptor]) -> None:
    while held:
        held.pop().close()


def _end_input(control: Control, held: list[Descriptor]) -> None:
    _close_all(held)
    control.send(CLOSE_STDIN)


def open_output(path: str, container: str) -> trio.lowlevel.FdStream:
    """Open the reading end of an output fifo.

    Its end of file comes when the container has closed its end everywhere.

    Raises:
        TooManyFiles: no descriptor was left.
        InvalidValue: we may not.
    """
    try:
        fd = _open_fifo(path, os.O_RDONLY)
        return trio.lowlevel.FdStream(fd)
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


class OutputStream(trio.abc.ReceiveStream):
    """The reading end of a process's output.

    Whoever looks on is told what was read: it is gone from the fifo then.
    """

    def __init__(self, path: str, container: str) -> None:
        self._container = container
        self._stream = open_output(path, container)
        self._opener = Opener()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive what is there, at most ``max_bytes``; ``b""`` at the end of the output."""
        self._opener.require(self._container)
        try:
            chunk = await self._stream.receive_some(max_bytes)
        except trio.ClosedResourceError:
            self._opener.require(self._container)
            raise
        hear(self._container, chunk)
        return chunk

    def fileno(self) -> int:
        """Return the descriptor's number."""
        return self._stream.fileno()

    def detach(self) -> None:
        """Close our end; the second time nothing happens."""
        self._stream.close()

    async def aclose(self) -> None:
        """Close our end."""
        await self._stream.aclose()


class InputStream(trio.abc.SendStream):
    """The writing end of a process's standard input.

    Closing it is the end of the process's input, as with a `trio.Process`: the shim, which
    holds the fifo open so that writers may come and go, is told to let go of it.

    Attributes:
        closed: whether it was closed here.
    """

    def __init__(
        self,
        path: str,
        let_go: Callable[[], None],
        *,
        stands: Callable[[], bool],
        container: str,
    ) -> None:
        self._path = path
        self._container = container
        self._let_go = let_go
        self._stands = stands
        self._opened = False
        self.closed: bool = False
        self._stream: trio.lowlevel.FdStream | None = None
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
            self._stream = trio.lowlevel.FdStream(fd)
        self._opened = True
        if self._stream is not None and not self._stands():  # that was a later one's
            self._stream.close()
            self._stream = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; BrokenResourceError once the process has closed its end."""
        try:
            await self._usable().send_all(data)
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
            return os.write(fd, data)
        except BlockingIOError:
            return 0
        except BrokenPipeError as error:
            raise trio.BrokenResourceError("the process has closed its standard input") from error

    async def wait_send_all_might_not_block(self) -> None:
        """Return when some of it may be sent at once."""
        await self._usable().wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """End the process's input."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """End the process's input; the second time nothing happens."""
        if self.closed:
            return
        self.closed = True
        if self._stream is not None:
            self._stream.close()
        if self._opener.elsewhere():
            return
        with contextlib.suppress(ProcessLookupError):
            self._let_go()

    def detach(self) -> None:
        """Close our end and leave the process's input open for other writers."""
        self.closed = True
        if self._stream is not None:
            self._stream.close()

    def _usable(self) -> trio.lowlevel.FdStream:
        self._opener.require(self._container)
        if self.closed:
            raise trio.ClosedResourceError("this end of the fifo was closed")
        self.open()
        if self._stream is None:
            raise trio.BrokenResourceError("the process has closed its standard input")
        return self._stream


# Of one container, also of those of its processes that are done with: a stream belongs to whoever
# has it in hand, so they are held weakly.
Ends = weakref.WeakSet[InputStream | OutputStream]
