"""Attach to a process's terminal: the shim's socket as a Trio stream."""

from __future__ import annotations

import math
import os

import trio

from .._errors import AlreadyAttached, ProcessEnded, SupervisorError, scarcity
from .._forks import Opener
from .._within import within
from ..state import ProcessLayout, lifted
from ._console import unix_socket

_CHUNK_BYTES = 64 * 1024
_HEADER_BYTES = 64


class TerminalStream(trio.abc.HalfCloseableStream):
    """Somebody's attachment to a terminal: raw bytes both ways.

    Closing it detaches: the process goes on, and its terminal stays. The end of file comes when
    the process has ended, or its terminal was hung up, and all was read.

    Attributes:
        dropped: how many bytes of output were dropped since the last attachment, because
            nobody was attached and more came than the shim keeps (64 KiB).
    """

    def __init__(self, stream: trio.SocketStream, dropped: int, first: bytes) -> None:
        self._stream = stream
        self._first = first
        self._opener = Opener()
        self.dropped: int = dropped

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return some output; b"" at the end."""
        self._opener.require()
        if self._first:
            await trio.lowlevel.checkpoint()
            size = len(self._first) if max_bytes is None else max_bytes
            chunk, self._first = self._first[:size], self._first[size:]
            return chunk
        with within(math.inf):
            return bytes(await self._stream.receive_some(max_bytes or _CHUNK_BYTES))
        raise AssertionError("only a fork ends that, with an error")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Type ``data``; BrokenResourceError once the process has ended."""
        self._opener.require()
        with within(math.inf):
            await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Return when some of it may be sent at once."""
        self._opener.require()
        with within(math.inf):
            await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more will be typed; output goes on.

        The program doesn't see that: on a terminal, Ctrl-D (``b"\\x04"``) at the beginning of a
        line is the end of the input.
        """
        self._opener.require()
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Detach."""
        self._first = b""
        await self._stream.aclose()


async def attach(layout: ProcessLayout, *, container: str) -> TerminalStream:
    """Attach to the terminal of the process in a directory.

    Raises:
        AlreadyAttached: somebody else is.
        ProcessEnded: its terminal is gone, and all its output was read.
        TooManyFiles: no descriptor was left.

    Cancellation: nobody is attached.
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
                f"somebody is attached to the terminal of {layout.id} already",
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


def _gone(error: OSError, layout: ProcessLayout, container: str) -> OSError | SupervisorError:
    scarce = scarcity(error, container=container)
    if scarce is not error:
        return scarce
    return ProcessEnded(
        f"the terminal of {layout.id} is gone ({error.strerror})", container=container
    )
