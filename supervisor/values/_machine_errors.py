"""Errors of the machine: time, space, descriptors, processes; and what an OSError means."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from ._errors import InvalidValue, SupervisorError
from ._status import ExitStatus


class InfrastructureError(SupervisorError):
    """The machine couldn't do it just now; the same call may work later."""


class DeadlineExpired(InfrastructureError):
    """An operation took longer than its deadline and was undone.

    Attributes:
        seconds: the deadline that expired.
        stdout: what a program that was run had put out by then; None if that wasn't captured.
        stderr: its errors, likewise.
    """

    def __init__(
        self,
        message: str,
        *,
        seconds: float,
        stdout: bytes | None = None,
        stderr: bytes | None = None,
        container: str | None = None,
    ) -> None:
        super().__init__(message, container=container)
        self.seconds = seconds
        self.stdout: bytes | None = stdout
        self.stderr: bytes | None = stderr


class CreateTimeout(DeadlineExpired):
    """The runtime's create (or exec, or restore) made no process within the deadline."""


class RuntimeTimeout(DeadlineExpired):
    """A call of the runtime other than create, exec or restore took too long."""


class CleanupIncomplete(DeadlineExpired):
    """Clean-up didn't finish; the container is listed as broken with what is left."""


class DiskFull(InfrastructureError, OSError):
    """No space (ENOSPC, EDQUOT) for a file; the operation undid itself."""


class StreamFailed(InfrastructureError, OSError):
    """What the caller gave as a stream couldn't be read from or written to; or nobody took it.

    The program has ended by then. That a reader has gone (EPIPE) isn't this error: the program
    hears that as from any pipe.

    Attributes:
        stream: ``"stdin"``, ``"stdout"`` or ``"stderr"``.
        errno: the system's error number; ETIMEDOUT if nobody took the output in time.
        status: how the program ended.
        stdout: what was captured of its output; None if that wasn't captured.
        stderr: its errors, likewise.
    """

    def __init__(
        self,
        message: str,
        *,
        stream: str,
        errno: int,
        status: ExitStatus | None,
        stdout: bytes | None = None,
        stderr: bytes | None = None,
        container: str | None = None,
    ) -> None:
        super().__init__(message, container=container)
        self.errno: int | None = errno
        self.strerror: str | None = os.strerror(errno)
        self.stream = stream
        self.status: ExitStatus | None = status
        self.stdout: bytes | None = stdout
        self.stderr: bytes | None = stderr


class StreamFull(StreamFailed, DiskFull):
    """The same, for want of space (ENOSPC, EDQUOT): where the caller's file is, not ours."""


class TooManyFiles(InfrastructureError, OSError):
    """No descriptor left (EMFILE, ENFILE); the operation undid itself."""


class IdsExhausted(InfrastructureError):
    """Every range of ids for user namespaces belongs to a container."""


class TooManyProcesses(InfrastructureError, OSError):
    """No process could be made: a limit on them (EAGAIN), or no memory for one (ENOMEM)."""


_SCARCE: dict[int, type[DiskFull] | type[TooManyFiles] | type[TooManyProcesses]] = {
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EMFILE: TooManyFiles,
    errno.ENFILE: TooManyFiles,
}
_NO_PROCESS = (errno.EAGAIN, errno.ENOMEM)


def scarcity(error: OSError, *, container: str | None = None, spawning: bool = False) -> OSError:
    """Return the infrastructure error that ``error`` stands for, or ``error`` itself.

    ``spawning`` says that it came from making a process: elsewhere EAGAIN means something else.
    """
    kind = _SCARCE.get(error.errno or 0)
    if spawning and error.errno in _NO_PROCESS:
        kind = TooManyProcesses
    if kind is None or isinstance(error, InfrastructureError):
        return error
    scarce = kind(str(error), container=container)
    scarce.errno, scarce.strerror, scarce.filename = (
        error.errno,
        error.strerror,
        error.filename,
    )
    return scarce


@contextlib.contextmanager
def happened_to(container: str) -> Iterator[None]:
    """Let what the machine couldn't do in this block say to which container that happened."""
    try:
        yield
    except InfrastructureError as error:
        if error.container is None:
            error.container = container
        raise


# The machine's fault, whatever the path was.
_OF_THE_MACHINE = (errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)


def misplaced(error: OSError, message: str) -> OSError | InvalidValue | InfrastructureError:
    """Return what it means that a place which the user has named can't be used.

    ``message`` says which place; what the system says of it is added.
    """
    scarce = scarcity(error)
    if isinstance(scarce, InfrastructureError):
        return scarce
    at = "" if error.filename is None else f" ({os.fsdecode(error.filename):.300})"
    kind = InfrastructureError if error.errno in _OF_THE_MACHINE else InvalidValue
    return kind(f"{message}: {error.strerror}{at}")
