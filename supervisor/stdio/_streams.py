"""`Streams`: the standard streams of one process, as far as they are PIPE."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from typing import Final

import trio

from ..observers import Observers
from ..shim import CLOSE_STDERR, CLOSE_STDIN, CLOSE_STDOUT, Control
from ..state import ProcessLayout, ProcessRecord
from ..values import InvalidValue, ShimError, raise_if_scarce
from ._fifo_end import Keeping, Owning
from ._pipes import Ends, InputStream, OutputStream, holder

logger: Final = logging.getLogger("supervisor")


class Streams:
    """The standard streams of one process, as far as they are PIPE.

    Attributes:
        stdin: the writing end of the input, or None.
        stdout: the reading end of the output, or None.
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
        observers: Observers,
    ) -> None:
        self._container = container
        self._observers = observers
        self._ends = ends
        self._control = control
        self._layout = layout
        self._record = record
        self.stdin: InputStream | None = None
        self.stdout: OutputStream | None = None
        self.stderr: OutputStream | None = None
        self._both: trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream] | None = None
        # No stream refers to the process: a stream without a reference to it is closed at once.
        self._owning = Owning()
        self._input = Keeping(control, CLOSE_STDIN)
        self._outputs = {
            1: Keeping(control, CLOSE_STDOUT, path=layout.stdout),
            2: Keeping(control, CLOSE_STDERR, path=layout.stderr),
        }

    @property
    def stdio(self) -> trio.StapledStream[trio.abc.SendStream, trio.abc.ReceiveStream] | None:
        """The input and the output as one stream, if both are PIPE."""
        if self._both is None and self.stdin is not None and self.stdout is not None:
            self._both = trio.StapledStream(self.stdin, self.stdout)
        return self._both

    def open(self, *, hold: bool = False, owned: bool = True, adopted: bool = False) -> None:
        """Open the fifos in the process directory; a `Fifo` of the caller's isn't opened.

        Args:
            hold: whether to hold each fifo open beside the stream, as the shim does: then the
                fifo outlives the shim.
            owned: whether this supervisor owns the process. Another supervisor opens the input
                at the first use: an open descriptor would keep the input from ending.
            adopted: whether the process has run before. The runtime may have given a fifo to the
                container's user, who may have shut us out: then a warning says so, and the
                process is supervised all the same.

        Raises:
            TooManyFiles: no descriptor was left.
            InvalidValue: we may not open a fifo.
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
                path,
                self._outputs[number],
                owning=self._owning,
                container=self._container,
                observers=self._observers,
            )
        except FileNotFoundError:  # this output was ended before: see `Keeping.end`
            return None

    def own(self, *, hold: bool) -> None:
        """Take over the streams of a foreign process; ``hold`` as for `open`."""
        self._owning.ours = True
        if hold and self._input.held is None:
            self._hold_input()

    def disown(self) -> None:
        """Leave the streams to another supervisor again."""
        self._owning.ours = False

    def _hold_input(self) -> None:
        if self.stdin is not None and not self.stdin.closed:
            with contextlib.suppress(OSError):  # ENXIO: the process has closed stdin already
                self._input.held = holder(self._layout.stdin, os.O_WRONLY)

    def _hold_output(self) -> None:
        try:
            if self.stdout is not None:
                self._outputs[1].held = holder(self._layout.stdout, os.O_RDONLY)
            if self.stderr is not None:
                self._outputs[2].held = holder(self._layout.stderr, os.O_RDONLY)
        except OSError as error:
            raise_if_scarce(error)
            raise

    def close(self) -> None:
        """Close our ends, except those that were handed over; input and output stay open."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.detach()
        self.release()

    def abandon(self) -> None:
        """Close our ends, and end the outputs: the shim doesn't stay for the unread bytes.

        A shim that can't take the line sees that a fifo has no name any more, and so no reader.
        """
        for stream in self.own_ends()[1]:
            with contextlib.suppress(ShimError):
                stream.close()
        self.close()

    def hand_over(self, names: Sequence[str]) -> None:
        """Leave streams to the caller: from now on only the caller closes them."""
        for name in names:
            stream: InputStream | OutputStream | None = getattr(self, name)
            if stream is not None:
                stream.handed_over = True

    def own_ends(self) -> tuple[InputStream | None, list[OutputStream]]:
        """Return the streams that weren't handed over: the input, and the outputs."""
        stdin = None if self.stdin is None or self.stdin.handed_over else self.stdin
        outputs = (self.stdout, self.stderr)
        return stdin, [one for one in outputs if one is not None and not one.handed_over]

    def release(self) -> None:
        """Close what is held open beside the streams. A second call does nothing."""
        for keeping in (self._input, *self._outputs.values()):
            keeping.release()

    def close_stdin(self) -> None:
        """End the process's input; a terminal is hung up.

        Raises:
            ProcessEnded: the process has ended.
            ShimError: the shim takes no line.
        """
        if self.stdin is not None:
            self.stdin.close()
        else:
            self._input.end()
            self._input = Keeping(self._control, CLOSE_STDIN)  # for another call


@contextlib.contextmanager
def _shut_out(adopted: bool) -> Iterator[None]:
    try:
        yield
    except InvalidValue as error:
        if not adopted:
            raise
        logger.warning("%s", error)
