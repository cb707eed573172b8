"""Errors of the machine: time, space, descriptors, processes; and how an OSError becomes one."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from ._errors import InvalidValue, SupervisorError
from ._status import ExitStatus


class InfrastructureError(SupervisorError):
    """The machine lacked time, space or another resource; the same call may work later."""


class DeadlineExpired(InfrastructureError):
    """An operation took longer than the deadline and was undone.

    Attributes:
        seconds: the deadline that expired.
        stdout: what the program had written to stdout by then; None if stdout wasn't captured.
        stderr: likewise for stderr.
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
    """The clean-up didn't finish; the container is listed as broken, with what is left."""


class DiskFull(InfrastructureError, OSError):
    """No space (ENOSPC, EDQUOT) for a file; the operation was undone."""


class StreamFailed(InfrastructureError, OSError):
    """A file that the caller gave as a stream failed, or didn't take the output in time.

    The program has ended by then. A reader that has gone (EPIPE) isn't this error: the program
    gets SIGPIPE or EPIPE, as with any pipe.

    Attributes:
        stream: ``"stdin"``, ``"stdout"`` or ``"stderr"``.
        errno: the system's error number; ETIMEDOUT if no reader took the output in time.
        status: the program's exit status.
        stdout: the captured output; None if stdout wasn't captured.
        stderr: likewise for stderr.
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
    """A stream failed because the disk with the caller's file is full (ENOSPC, EDQUOT)."""


class TooManyFiles(InfrastructureError, OSError):
    """No descriptor is left (EMFILE, ENFILE); the operation was undone."""


class IdsExhausted(InfrastructureError):
    """Every range of ids for user namespaces belongs to a container."""


class TooManyProcesses(InfrastructureError, OSError):
    """No process could be made: a limit was reached (EAGAIN), or memory is short (ENOMEM)."""


_SCARCE: dict[int, type[DiskFull] | type[TooManyFiles] | type[TooManyProcesses]] = {
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EMFILE: TooManyFiles,
    errno.ENFILE: TooManyFiles,
}
_NO_PROCESS = (errno.EAGAIN, errno.ENOMEM)


def raise_if_scarce(
    error: OSError, *, container: str | None = None, spawning: bool = False
) -> None:
    """Raise the infrastructure error that ``error`` means, if the machine lacked something.

    This is the one way to tell a want of space, descriptors or processes from all other failures.
    The call comes first in an ``except`` clause; what follows is for the other failures: the error
    as it is, another error, or nothing, where a failed look means that a thing isn't there::

        except OSError as error:
            raise_if_scarce(error)
            raise

    Args:
        error: the failure. An infrastructure error is raised as it is.
        container: the container's id, for the error.
        spawning: whether the call that failed was to make a process. Elsewhere EAGAIN and ENOMEM
            mean something else.

    Raises:
        DiskFull: no space was left (ENOSPC, EDQUOT).
        TooManyFiles: no descriptor was left (EMFILE, ENFILE).
        TooManyProcesses: no process could be made (EAGAIN, ENOMEM).
    """
    if isinstance(error, InfrastructureError):
        raise error
    kind = _SCARCE.get(error.errno or 0)
    if spawning and error.errno in _NO_PROCESS:
        kind = TooManyProcesses
    if kind is not None:
        scarce = kind(str(error), container=container)
        scarce.errno, scarce.strerror, scarce.filename = (
            error.errno,
            error.strerror,
            error.filename,
        )
        raise scarce from error


def is_full(number: int) -> bool:
    """Whether an error number means that no space is left."""
    return _SCARCE.get(number) is DiskFull


@contextlib.contextmanager
def happened_to(container: str) -> Iterator[None]:
    """Make infrastructure errors of the block's OSErrors; add the container's id."""
    try:
        yield
    except InfrastructureError as error:
        if error.container is None:
            error.container = container
        raise
    except OSError as error:
        raise_if_scarce(error, container=container)
        raise


# The machine is at fault, whatever the path is.
_OF_THE_MACHINE = (errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)


def misplaced(error: OSError, message: str) -> InvalidValue | InfrastructureError:
    """Return the error to raise when a path that the caller named can't be used.

    ``message`` says which path. The system's own text for ``error`` is appended.

    Raises: as `raise_if_scarce`.
    """
    raise_if_scarce(error)
    at = "" if error.filename is None else f" ({os.fsdecode(error.filename):.300})"
    kind = InfrastructureError if error.errno in _OF_THE_MACHINE else InvalidValue
    return kind(f"{message}: {error.strerror}{at}")
