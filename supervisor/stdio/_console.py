"""The console socket, over which a runtime sends the master of a new terminal to the shim.

Source: runc, docs/terminals.md; the option ``--console-socket`` of create, exec and restore.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import attrs

from ..state import ProcessLayout
from ..system import lifted
from ..tasks import forked
from ..values import raise_if_scarce
from ._plan import Stdio

_ADDRESS_BYTES = 107


@attrs.frozen
class Console:
    """A socket that listens for a runtime.

    Attributes:
        path: the socket's path for the runtime: short enough for a socket's address, however
            long the process directory's own path is.
        fd: the listening socket, for the shim.
        attached_fd: one end of a socket pair, for the shim: the holder of the other end is
            attached to the terminal from the beginning. None for no attachment.
    """

    path: str
    fd: int
    attached_fd: int | None = None

    @property
    def options(self) -> list[str]:
        """The shim's options."""
        words = ["--terminal", str(self.fd)]
        return words if self.attached_fd is None else [*words, "--attached", str(self.attached_fd)]

    @property
    def fds(self) -> list[int]:
        """The descriptors that the shim must inherit."""
        return [fd for fd in (self.fd, self.attached_fd) if fd is not None]


@contextlib.contextmanager
def attached_pair(wanted: bool) -> Iterator[tuple[socket.socket | None, int | None]]:
    """Make the two ends of an attachment, if wanted: ours, and the shim's for the block.

    If the block fails, our end is closed.

    Raises:
        TooManyFiles: no descriptor was left.
    """
    if not wanted:
        yield None, None
        return
    try:
        ours, theirs = (socket.socket(fileno=lifted(end.detach())) for end in socket.socketpair())
    except OSError as error:
        raise_if_scarce(error)
        raise
    with theirs:
        try:
            yield ours, theirs.fileno()
        except BaseException:
            ours.close()
            raise


@contextlib.contextmanager
def console(
    layout: ProcessLayout, stdio: Stdio, *, attached_fd: int | None = None
) -> Iterator[Console | None]:
    """Listen for the runtime during the block, if the process gets a terminal.

    The shim inherits the listening socket, so we may close ours. ``attached_fd`` is the one of
    `Console`.

    Raises:
        DiskFull, TooManyFiles, OSError: the socket can't be made.
    """
    if stdio.terminal is None:
        yield None
        return
    name = os.path.basename(layout.console)
    with contextlib.ExitStack() as stack:
        try:
            directory = lifted(os.open(layout.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            stack.callback(os.close, directory)
            listener = stack.enter_context(unix_socket())
            listener.bind(f"/proc/self/fd/{directory}/{name}")
            os.chmod(layout.console, 0o600)
            listener.listen(1)
        except OSError as error:
            raise_if_scarce(error)
            raise
        # A runtime in another user namespace may not enter our /proc/PID/fd.
        short = len(os.fsencode(layout.console)) <= _ADDRESS_BYTES
        reach = layout.path if short else f"/proc/{os.getpid()}/fd/{directory}"
        try:
            yield Console(f"{reach}/{name}", listener.fileno(), attached_fd)
        finally:
            if not forked():  # in a forked child, the parent's runtime still has to connect
                with contextlib.suppress(OSError):
                    os.unlink(layout.console)


def unix_socket() -> socket.socket:
    """Make a stream socket of ours, with a number above 2."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    return socket.socket(fileno=lifted(made.detach()))
