"""What is at our end of a fifo, and how it is given up for good."""

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
    """A descriptor of a fifo as a Trio stream, which forked children don't have.

    Attributes:
        stream: the stream.
    """

    def __init__(self, fd: int) -> None:
        self._blank = Blank(fd)
        self.stream = trio.lowlevel.FdStream(fd)

    def close(self) -> None:
        """Close it; the second time nothing happens."""
        self._blank.closing(self.stream.close)


@attrs.define
class Owning:
    """Whether a process is supervised from here: who only looks on ends nobody's output."""

    ours: bool = True


class Keeping:
    """What keeps a fifo open beside our stream, so that others may come and go.

    There is the shim, and where the process shall outlive that, a descriptor of ours.

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
        """Let go of ours; the shim keeps it open."""
        if self.held is not None:
            self.held.close()
        self.held = None

    def forgo(self) -> None:
        """Leave the rest to others: from now on `end` does nothing."""
        self._ended = True

    def end(self) -> None:
        """Have nobody keep it open any more; once that is done, nothing happens.

        Raises:
            ProcessEnded: there is no shim.
            ShimError: it takes no line; this may be repeated.
        """
        if not self._ended:
            self._give_up()
            self._control.send(self._line)
            self._ended = True

    async def end_patiently(self) -> None:
        """Do that as soon as the shim takes a line; and wait until nobody reads an output.

        The shim does it a moment after that: what the program writes meanwhile, such as its answer
        to what it is sent next, would be taken, and the program would wait for more for ever.

        Raises:
            ProcessEnded, ShimError: as `end`.

        Cancellation: it may be repeated.
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
        """Open an output as its writer does, who hears when nobody reads it; None: nobody does."""
        if not self._path or not self._control.stands():
            return None
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            return close_in_children(lifted(fd))
        except OSError:  # nobody reads it any more, or no descriptor is left to look with
            return None

    def _give_up(self) -> None:
        self.release()
        if self._path and self._control.stands():  # else the name is a later one's
            with contextlib.suppress(OSError):
                os.unlink(self._path)


async def _wait_unread(writer: Descriptor) -> None:
    """Return when nobody reads it; or soon: a stopped shim, and who looks on, keep it open."""
    poll = select.poll()
    poll.register(writer.fd, 0)  # POLLERR comes unasked
    with within(_OBEYED_SECONDS):
        while not poll.poll(0):
            await nap(_POLL_SECONDS)


def octets(data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
    """Return the same, as what is counted in bytes.

    A view of other items, or with gaps, would be sent in part only, or not at all.
    """
    if not isinstance(data, memoryview) or (
        data.format == "B" and data.ndim == 1 and data.contiguous
    ):
        return data
    return data.cast("B") if data.c_contiguous else data.tobytes()
