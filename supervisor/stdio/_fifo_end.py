"""Our end of a fifo, and the closing of that end for all who hold it."""

from __future__ import annotations

import contextlib
import os
import select
from typing import Final

import attrs
import trio

from ..shim import Control
from ..system import Blank, Descriptor, close_in_children, lifted
from ..tasks import nap, within

_OBEYED_SECONDS: Final = 0.5
_POLL_SECONDS: Final = 0.001


class End:
    """A descriptor of a fifo as a Trio stream; forked children don't keep the descriptor.

    Attributes:
        stream: the stream.
    """

    def __init__(self, fd: int) -> None:
        self._blank = Blank(fd)
        self.stream = trio.lowlevel.FdStream(fd)

    def close(self) -> None:
        """Close the stream. A second call does nothing."""
        self._blank.closing(self.stream.close)


@attrs.define
class Owning:
    """Whether this supervisor owns the process: only the owner ends the process's output."""

    ours: bool = True


class Keeping:
    """What keeps a fifo open beside our stream, so that other readers or writers come and go.

    The shim does, and a descriptor of ours if the process is to outlive the shim.

    Attributes:
        held: that descriptor, if there is one.
    """

    def __init__(self, control: Control, line: str, *, path: str = "") -> None:
        self._control = control
        self._line = line
        self._path = path
        self._ended = False
        self.held: Descriptor | None = None

    def release(self) -> None:
        """Close our descriptor; the shim keeps the fifo open."""
        if self.held is not None:
            self.held.close()
        self.held = None

    def forgo(self) -> None:
        """Leave the fifo to others: from now on `end` does nothing."""
        self._ended = True

    def end(self) -> None:
        """Close our descriptor, and make the shim close the fifo. After a success, do nothing.

        Raises:
            ProcessEnded: there is no shim.
            ShimError: the shim takes no line; the caller may try again.
        """
        if not self._ended:
            self._give_up()
            self._control.send(self._line)
            self._ended = True

    async def end_patiently(self) -> None:
        """End the fifo as soon as the shim takes a line; wait until an output has no reader.

        The shim closes the output a moment after the line. Until then the fifo would still take
        what the program writes, such as an answer to the next input, and no process would read
        that: the program would wait for ever.

        Raises:
            ProcessEnded, ShimError: as `end`.

        Cancellation: the caller may try again.
        """
        if not self._ended:
            writer = self._as_its_writer()
            try:
                self._give_up()
                await self._control.send_patiently(self._line)
                self._ended = True
                if writer is not None:
                    await _wait_unread(writer)
            finally:
                if writer is not None:
                    writer.close()

    def _as_its_writer(self) -> Descriptor | None:
        """Open an output for writing, to learn when the last reader goes; None if none is there."""
        if not self._path or not self._control.stands():
            return None
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            return close_in_children(lifted(fd))
        except OSError:  # the output has no reader any more, or no descriptor is left
            return None

    def _give_up(self) -> None:
        self.release()
        if self._path and self._control.stands():  # else a later process's fifo has this name
            with contextlib.suppress(OSError):
                os.unlink(self._path)


async def _wait_unread(writer: Descriptor) -> None:
    """Return when the output has no reader, or soon: a stopped shim or an observer may stay."""
    poll = select.poll()
    poll.register(writer.fd, 0)  # POLLERR is always reported
    with within(_OBEYED_SECONDS):
        while not poll.poll(0):
            await nap(_POLL_SECONDS)


def octets(data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
    """Return the same data with lengths counted in bytes.

    A view of larger items, or with gaps, would be sent only in part, or not at all.
    """
    if not isinstance(data, memoryview) or (
        data.format == "B" and data.ndim == 1 and data.contiguous
    ):
        return data
    return data.cast("B") if data.c_contiguous else data.tobytes()
