"""A process's fifos as Trio streams."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import trio

from ..shim import CLOSE_STDIN, Control, close_output_line
from ..state import ProcessLayout, ProcessRecord
from ..system import Descriptor, WeakSet, close_in_children, lifted
from ..tasks import Opener, hear, protected
from ..values import InvalidValue, ShimError, scarcity
from ._fifo_end import End, Keeping, Owning, octets

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
        # None of them refers back to the process: a stream that nobody keeps is closed at once.
        self._owning = Owning()
        self._input = Keeping(control, CLOSE_STDIN)
        self._outputs = {
            number: Keeping(control, close_output_line(number), path=path)
            for number, path in enumerate((layout.stdout, layout.stderr), 1)
        }

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
        self._owning.ours = owned
        if self._record.stdin == f"fifo:{self._layout.stdin}":
            self.stdin = InputStream(
                self._layout.stdin,
                self._input,
                stands=self._control.stands,
                container=self._container,
            )
            if owned:
                with _shut_out(adopted):
                    self.stdin.open()
        with _shut_out(adopted):
            self.stdout = self._open_output(1, self._record.stdout, self._layout.stdout)
        with _shut_out(adopted):
            self.stderr = self._open_output(2, self._record.stderr, self._layout.stderr)
        self._ends.update(end for end in (self.stdin, self.stdout, self.stderr) if end is not None)
        if hold:
            self._hold_output()
        if hold and owned:
            self._hold_input()

    def _open_output(self, number: int, spec: str | None, path: str) -> OutputStream | None:
        if spec != f"fifo:{path}":
            return None
        try:
            return OutputStream(
                path, self._outputs[number], owning=self._owning, container=self._container
            )
        except FileNotFoundError:  # nobody wanted the rest of it: see `Keeping.end`
            return None

    def own(self, *, hold: bool) -> None:
        """Take over the streams of a process that wasn't owned: ``hold`` as at `open`."""
        self._owning.ours = True
        if hold and self._input.held is None:
            self._hold_input()

    def disown(self) -> None:
        """Leave them to another supervisor again."""
        self._owning.ours = False

    def _hold_input(self) -> None:
        if self.stdin is not None and not self.stdin.closed:
            with contextlib.suppress(OSError):  # ENXIO: the process has closed it already
                self._input.held = _holder(self._layout.stdin, os.O_WRONLY)

    def _hold_output(self) -> None:
        try:
            if self.stdout is not None:
                self._outputs[1].held = _holder(self._layout.stdout, os.O_RDONLY)
            if self.stderr is not None:
                self._outputs[2].held = _holder(self._layout.stderr, os.O_RDONLY)
        except OSError as error:
            raise scarcity(error) from error

    def close(self) -> None:
        """Close our ends, but for those that were handed over; the process isn't told."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.detach()
        self.release()

    def abandon(self) -> None:
        """Close our ends of what nobody will read; the shim doesn't stay for what is in there.

        Where it can't be told, it looks whether there is a name by which a fifo could be opened.
        """
        for stream in self.own_ends()[1]:
            with contextlib.suppress(ShimError):
                stream.close()
        self.close()

    def hand_over(self, names: Sequence[str]) -> None:
        """Leave streams to the caller: they are closed by nobody else from now on."""
        for name in names:
            stream: InputStream | OutputStream | None = getattr(self, name)
            if stream is not None:
                stream.handed_over = True

    def own_ends(self) -> tuple[InputStream | None, list[OutputStream]]:
        """Return those that weren't handed over: the input, and the outputs."""
        stdin = None if self.stdin is None or self.stdin.handed_over else self.stdin
        outputs = (self.stdout, self.stderr)
        return stdin, [one for one in outputs if one is not None and not one.handed_over]

    def release(self) -> None:
        """Close what is held open beside the streams; the second time nothing happens."""
        for keeping in (self._input, *self._outputs.values()):
            keeping.release()

    def close_stdin(self) -> None:
        """End the process's input; a terminal is hung up.

        Raises:
            ProcessEnded: it has ended.
            ShimError: its shim takes no line.
        """
        if self.stdin is not None:
            self.stdin.close()
        else:
            self._input.end()
            self._input = Keeping(self._control, CLOSE_STDIN)  # it may be asked for again


@contextlib.contextmanager
def _shut_out(adopted: bool) -> Iterator[None]:
    try:
        yield
    except InvalidValue as error:
        if not adopted:
            raise
        logger.warning("%s", error)


async def _give_up(others: bool, keeping: Keeping) -> None:
    """Have the others give up what we have closed, if they are to; a checkpoint in any case."""
    try:
        if others:
            with contextlib.suppress(ProcessLookupError):
                await keeping.end_patiently()
    finally:
        await trio.lowlevel.checkpoint()


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
