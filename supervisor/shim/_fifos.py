"""The shim's two fifos: ``exit`` ends with the process, ``control`` takes lines for the shim.
Source: man 7 fifo; the facts about non-blocking reads are in docs/shim-protocol.md.
"""

from __future__ import annotations

import contextlib
import os
import select
import stat
from collections.abc import Callable

import trio

from ..state import ProcessLayout
from ..system import Original, kind_of, lifted, make_fifo
from ..tasks import Opener, nap, refuse_forked, within
from ..values import ProcessEnded, ShimError, StateCorrupt, raise_if_scarce

_MODE = 0o600
_PATIENCE_SECONDS = 2.0
_POLL_SECONDS = 0.01
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY


def make_fifos(*paths: str) -> None:
    """Make fifos that only we may open."""
    for path in paths:
        make_fifo(path, _MODE)


def _open(path: str, mode: int) -> int:
    """Open a fifo, and refuse any other file: our line would be written into that file.

    Raises:
        StateCorrupt: the file isn't a fifo, or we may not open the fifo.
        OSError: there is no file, no process reads the fifo, or no descriptor was left.
    """
    try:
        fd = lifted(os.open(path, mode | _FLAGS))
    except OSError as error:
        raise_if_scarce(error)
        _raise_if_odd(error, path)
        raise
    status = os.fstat(fd)
    if stat.S_ISFIFO(status.st_mode):
        return fd
    os.close(fd)
    raise StateCorrupt(path, f"not a fifo, but {kind_of(status)}")


def _raise_if_odd(error: OSError, path: str) -> None:
    """Raise StateCorrupt if a fifo can't be opened because of what is at the path.

    ENXIO means a fifo without a reader, or a socket.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return
    if not stat.S_ISFIFO(status.st_mode):
        raise StateCorrupt(path, f"not a fifo, but {kind_of(status)}") from error
    if isinstance(error, PermissionError):
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        why = f"the fifo can't be opened ({error.strerror}; {mode})"
        raise StateCorrupt(path, why) from error


class ExitFifo:
    """The reading end of ``exit``.

    The shim holds the fifo open for writing while the shim watches the process. When the process
    has ended, the shim writes one byte if the line ``TOLD`` won't release the shim: other
    processes still need the shim.

    Attributes:
        kept: whether the shim has written that byte.

    Raises:
        FileNotFoundError: there is no such file.
        StateCorrupt: the file isn't a fifo, or we may not open the fifo.
        TooManyFiles: no descriptor was left.
    """

    def __init__(self, path: str) -> None:
        self._fd = -1
        self.kept: bool = False
        try:
            self._fd = _open(path, os.O_RDONLY)
        except OSError as error:
            raise_if_scarce(error)
            raise

    def watched(self) -> bool:
        """Whether a shim watches the process now: False also if no shim has opened the fifo yet."""
        try:
            while os.read(self._fd, 1):
                self.kept = True
        except BlockingIOError:
            return True
        return False

    def ends_within(self, milliseconds: int) -> bool:
        """Whether no shim watches the process any more; blocks for so many milliseconds at most."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.poll(milliseconds)
        return not self.watched()

    async def wait_end(self) -> None:
        """Return when no shim watches the process any more.

        Each wait comes after a read: a fifo opened after the writer has gone wakes no waiter.
        """
        while self.watched():
            await trio.lowlevel.wait_readable(self._fd)

    def close(self) -> None:
        """Close the fifo; a task in `wait_end` gets ClosedResourceError."""
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
            os.close(self._fd)
            self._fd = -1


def send_line(
    control: str,
    line: str,
    *,
    container: str | None = None,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write one line to a shim's ``control`` fifo, if ``check`` raises nothing once that is open.

    Raises:
        ProcessEnded: no shim reads the fifo any more, or the file there isn't the shim's fifo.
        BlockingIOError: the fifo is full: the shim is stopped, or stuck.
        TooManyFiles: no descriptor was left.
        SupervisorClosed: this is a forked child.
    """
    refuse_forked()
    whose = f"the shim of process {os.path.basename(os.path.dirname(control))}"
    try:
        fd = _open(control, os.O_WRONLY)
        try:
            check()
            os.write(fd, f"{line}\n".encode())  # below PIPE_BUF: whole or not at all
        finally:
            os.close(fd)
    except (BlockingIOError, ProcessEnded):
        raise
    except StateCorrupt as error:
        raise ProcessEnded(f"{whose} can't be reached: {error}", container=container) from error
    except OSError as error:  # the shim may also have gone since we opened the fifo: EPIPE
        raise_if_scarce(error, container=container)
        raise ProcessEnded(f"{whose} is gone ({error.strerror})", container=container) from error


class Control:
    """Lines for the shim of one process, never for the shim of a later process at that path."""

    def __init__(
        self, layout: ProcessLayout, record: Original, *, container: str, opener: Opener
    ) -> None:
        self._path = layout.control
        self._record = record
        self._id = layout.id
        self._container = container
        self._opener = opener

    def stands(self) -> bool:
        """Whether the process's directory is still there."""
        return self._record.stands()

    def require(self) -> None:
        """Raise ProcessEnded if the directory is gone, and SupervisorClosed in a forked child."""
        self._opener.require(self._container)
        if not self.stands():
            raise ProcessEnded(
                f"process {self._id} has ended and was removed", container=self._container
            )

    def send(self, line: str) -> None:
        """Write one line.

        Raises:
            ShimError: the shim reads no lines: the fifo is full.
            All other errors of `require` and `send_line`.
        """
        try:
            # If the directory is there after the fifo was opened, this fifo was the process's.
            send_line(self._path, line, container=self._container, check=self.require)
        except BlockingIOError as error:
            raise ShimError(
                f"the shim of process {self._id} takes no more lines: the shim is stopped, or "
                "stuck (control is full). Nothing was done: try again when the shim runs",
                container=self._container,
            ) from error

    async def send_patiently(self, line: str) -> None:
        """Write one line as soon as the fifo has room, within two seconds; raises as `send`."""
        with contextlib.suppress(ShimError):
            return self.send(line)
        with within(_PATIENCE_SECONDS):
            while True:
                await nap(_POLL_SECONDS)
                with contextlib.suppress(ShimError):
                    return self.send(line)
        self.send(line)


CLOSE_STDIN = "0 0 0"
RELEASE = "3 0 0"
CLOSE_STDOUT = "4 1 0"
CLOSE_STDERR = "4 2 0"
TOLD = "5 0 0"


def resize_line(columns: int, rows: int) -> str:
    """Return the line that makes the shim resize the process's terminal."""
    return f"1 {columns} {rows}"


def signal_line(number: int) -> str:
    """Return the line that makes the shim signal the process."""
    return f"2 {int(number)} 0"
