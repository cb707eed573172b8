"""Fifos as Trio streams."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable

import trio

from .._errors import scarcity


def open_output(path: str) -> trio.abc.ReceiveStream:
    """Open the reading end of an output fifo.

    Its end of file comes when the container has closed its end everywhere.

    Raises:
        TooManyFiles: no descriptor was left.
    """
    try:
        return trio.lowlevel.FdStream(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        raise scarcity(error) from error


class InputStream(trio.abc.SendStream):
    """The writing end of a process's standard input.

    Closing it is the end of the process's input, as with a `trio.Process`: the shim, which
    holds the fifo open so that writers may come and go, is told to let go of it.
    """

    def __init__(self, path: str, let_go: Callable[[], None]) -> None:
        self._let_go = let_go
        self._closed = False
        self._stream: trio.lowlevel.FdStream | None = None
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: the process has closed its end already
                raise scarcity(error) from error
        else:
            self._stream = trio.lowlevel.FdStream(fd)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``; BrokenResourceError once the process has closed its end."""
        await self._usable().send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Return when some of it may be sent at once."""
        await self._usable().wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """End the process's input."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """End the process's input; the second time nothing happens."""
        if self._closed:
            return
        self._closed = True
        if self._stream is not None:
            self._stream.close()
        with contextlib.suppress(ProcessLookupError):
            self._let_go()

    def detach(self) -> None:
        """Close our end and leave the process's input open for other writers."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()

    def _usable(self) -> trio.lowlevel.FdStream:
        if self._closed:
            raise trio.ClosedResourceError("this end of the fifo was closed")
        if self._stream is None:
            raise trio.BrokenResourceError("the process has closed its standard input")
        return self._stream
