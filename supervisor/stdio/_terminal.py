"""An attachment to a process's terminal: the shim's socket as a Trio stream."""

from __future__ import annotations

import contextlib
import io
import math
import os
import socket
from collections.abc import Callable

import trio

from ..state import ProcessLayout
from ..system import Blank, lifted
from ..tasks import Opener, protected, within
from ..values import AlreadyAttached, ProcessEnded, SupervisorError, raise_if_scarce
from ._console import unix_socket
from ._fifo_end import octets

_CHUNK_BYTES = 64 * 1024
_HEADER_BYTES = 64
_LAST_BYTES = 1 << 20  # above all that the shim, its socket and the terminal hold


@protected
class TerminalStream(trio.abc.HalfCloseableStream):
    """An attachment to a terminal: raw bytes both ways.

    A close detaches: the process and the terminal stay. The end of file comes when the process
    has ended, or the terminal was hung up, and all output was read.

    Attributes:
        dropped: how many bytes of output were dropped since the last attachment. While no
            client is attached, the shim keeps only the last 64 KiB.
    """

    def __init__(self, stream: trio.SocketStream, dropped: int, first: bytes) -> None:
        self._stream = stream
        self._blank = Blank(stream.socket.fileno())
        self._first = first
        self._opener = Opener()
        self.dropped: int = dropped

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return some output, at most ``max_bytes``, which is 1 or more; b"" at the end."""
        self._opener.require()
        if max_bytes is not None:
            _check_size(max_bytes)
        if self._first:
            await trio.lowlevel.checkpoint()
            size = len(self._first) if max_bytes is None else max_bytes
            chunk, self._first = self._first[:size], self._first[size:]
            return chunk
        with within(math.inf):
            return bytes(await self._stream.receive_some(max_bytes or _CHUNK_BYTES))
        raise AssertionError("a fork ends this scope, with an error")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Type ``data``; BrokenResourceError once the process has ended."""
        self._opener.require()
        with within(math.inf):
            await self._stream.send_all(octets(data))

    async def wait_send_all_might_not_block(self) -> None:
        """Return when the terminal may take data at once."""
        self._opener.require()
        with within(math.inf):
            await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Close the sending side of this attachment; output goes on.

        The program doesn't notice: on a terminal, Ctrl-D (``b"\\x04"``) at the beginning of a
        line is the end of the input.
        """
        self._opener.require()
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Detach."""
        self._detach()
        await trio.lowlevel.checkpoint()

    def _detach(self) -> None:
        """Detach at once, without a checkpoint. A second call does nothing."""
        self._first = b""
        self._blank.closing(self._stream.socket.close)


def _check_size(max_bytes: int) -> None:
    if not isinstance(max_bytes, int):
        raise TypeError("max_bytes must be integer >= 1")
    if max_bytes < 1:
        raise ValueError("max_bytes must be integer >= 1")


class Terminal:
    """The terminal of one process, and what we hold for the next caller of `attach`."""

    def __init__(self, layout: ProcessLayout, *, container: str) -> None:
        self._layout = layout
        self._container = container
        self._first: TerminalStream | None = None
        self._left: tuple[int, bytes] | None = None
        self._turn = trio.Lock()

    @property
    def in_hand(self) -> bool:
        """Whether the next `attach` returns what we hold; else `attach` goes to the shim."""
        return self._first is not None or self._left is not None

    def begin(self, connected: socket.socket) -> None:
        """Hold an attachment; the shim has had the other end from the beginning."""
        self._first = TerminalStream(_stream_of(connected), 0, b"")

    async def attach(self, require: Callable[[], None]) -> TerminalStream:
        """Return what we hold, or attach, if ``require`` raises nothing; see `Process.attach`."""
        async with self._turn:
            first, left = self._first, self._left
            self._first = self._left = None
            if first is not None:
                return first
            if left is not None:
                return _of_nobody(*left)
            require()
            stream = await attach(self._layout, container=self._container)
            try:
                require()  # an error here: the terminal was a later process's
            except SupervisorError:
                stream._detach()
                raise
            return stream

    async def hear_last_words(self, seconds: float) -> None:
        """Read the rest of the output, after the process's end; an attached client reads instead.

        Args:
            seconds: how long to read at most: other processes may keep the terminal open.

        Raises:
            SupervisorError: there is nothing to read.
        """
        async with self._turn:
            stream = self._first or await attach(self._layout, container=self._container)
            await self._hear_out(stream, seconds)

    async def settle(self, seconds: float) -> None:
        """Read the rest from the attachment that we hold, and close that: the shim is gone."""
        async with self._turn:
            if self._first is not None:
                await self._hear_out(self._first, seconds)

    async def _hear_out(self, stream: TerminalStream, seconds: float) -> None:
        ours, content = self._first is not None, io.BytesIO()
        try:
            with within(seconds), contextlib.suppress(trio.BrokenResourceError):
                while content.tell() < _LAST_BYTES and (chunk := await stream.receive_some()):
                    content.write(chunk)
        finally:
            self._first = None
            stream._detach()
            if ours or content.tell() or stream.dropped:
                self._left = stream.dropped, content.getvalue()

    def close(self) -> None:
        """Close the attachment that we hold. A second call does nothing."""
        if self._first is not None:
            self._first._detach()
        self._first = None


def _of_nobody(dropped: int, content: bytes) -> TerminalStream:
    """Return an attachment to a terminal that is gone, with the output that is left."""
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise_if_scarce(error)
        raise
    theirs.close()
    ours = socket.socket(fileno=lifted(ours.detach()))
    return TerminalStream(_stream_of(ours), dropped, content)


def _stream_of(connected: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(connected))


async def attach(layout: ProcessLayout, *, container: str) -> TerminalStream:
    """Attach to the terminal of the process in a directory.

    Raises:
        AlreadyAttached: another client is attached.
        ProcessEnded: the terminal is gone, and all output was read.
        TooManyFiles: no descriptor was left.

    Cancellation: this client isn't attached.
    """
    stream = await _connect(layout, container)
    try:
        heard = b""
        while b"\n" not in heard and len(heard) < _HEADER_BYTES:
            chunk = await stream.receive_some(_CHUNK_BYTES)
            if not chunk:
                break
            heard += chunk
        line, newline, first = heard.partition(b"\n")
        word, _, number = line.partition(b" ")
        if word == b"busy" and newline:
            raise AlreadyAttached(
                f"another client is attached to the terminal of {layout.id} already",
                container=container,
            )
        if word != b"attached" or not number.isdigit():
            raise ProcessEnded(f"the terminal of {layout.id} is gone", container=container)
        return TerminalStream(stream, int(number), first)
    except BaseException as error:
        await trio.aclose_forcefully(stream)
        if not isinstance(error, trio.BrokenResourceError):
            raise
        raise ProcessEnded(f"the terminal of {layout.id} is gone", container=container) from error


async def _connect(layout: ProcessLayout, container: str) -> trio.SocketStream:
    try:
        directory = lifted(os.open(layout.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise _gone(error, layout, container) from error
    try:
        connection = trio.socket.from_stdlib_socket(unix_socket())
        try:
            # A socket's address holds 107 bytes; the directory may be deeper.
            name = os.path.basename(layout.terminal)
            await connection.connect(f"/proc/self/fd/{directory}/{name}")
        except BaseException:
            connection.close()
            raise
        return trio.SocketStream(connection)
    except OSError as error:
        raise _gone(error, layout, container) from error
    finally:
        os.close(directory)


def _gone(error: OSError, layout: ProcessLayout, container: str) -> ProcessEnded:
    raise_if_scarce(error, container=container)
    return ProcessEnded(
        f"the terminal of {layout.id} is gone ({error.strerror})", container=container
    )
