"""The tree of exceptions, grouped by who is at fault.

``SupervisorError`` is the root. Below it stand eight groups: the caller (`UsageError`), the
program that was run (`ProcessFailed`, `OutputTooLarge`), what was to be run and couldn't be
(`GateFailed`), the shim (`ShimError`), the OCI runtime (`OCIRuntimeError`), what is on disk
(`StateCorrupt`) and the machine (`InfrastructureError`: time, space, descriptors, processes, and
what the caller gave as a stream).
A container's exit is an exception only for who has asked for that, with ``check=True``; else it
is an `ExitStatus`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any, Final

import trio

from ._status import ExitStatus


def printable(text: str) -> str:
    """Return foreign text for people: controls, line ends and bidi overrides as visible escapes."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")


_PUBLIC: Final = __name__.partition(".")[0]
"""The package that users import the errors from."""


class SupervisorError(Exception):
    """Root of everything this library raises on purpose.

    Attributes:
        container: id of the container it happened to, or None where there is none.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Have those of this file print with the name that they are imported by."""
        super().__init_subclass__(**options)
        if cls.__module__ == __name__ and not cls.__name__.startswith("_"):
            cls.__module__ = _PUBLIC

    def __init__(self, message: str, *, container: str | None = None) -> None:
        message = printable(message)  # what containers and runtimes say is in it
        Exception.__init__(self, message)  # not that of an error of Python's that it is too
        self.message = message
        self.container = container

    def __str__(self) -> str:
        if self.container is None:
            return self.message
        return f"container {self.container!r}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be copied, and go to another process (pytest-xdist, multiprocessing), whole.

        By default an exception is made anew from its message alone, and ours need more than that.
        """
        state = dict(self.__dict__)
        if isinstance(self, OSError):  # these are no entries of its dictionary
            state.update(errno=self.errno, strerror=self.strerror, filename=self.filename)
        if isinstance(self.__cause__, SupervisorError | OSError):  # others may not be copied
            state.update(__cause__=self.__cause__)
        return _made_again, (type(self), self.args), state


SupervisorError.__module__ = _PUBLIC


def _made_again(kind: type[SupervisorError], args: tuple[object, ...]) -> SupervisorError:
    """Return an error as yet without its attributes; whoever unpickles it sets them."""
    error = kind.__new__(kind)
    error.args = args
    return error


# ---- the caller -------------------------------------------------------------------


_LONGEST = 1000
_KEPT = 400


def _shortened(message: str) -> str:
    """Return a message without most of the value in it that makes it a long one."""
    if len(message) <= _LONGEST:
        return message
    return f"{message[:_KEPT]} [...] {message[-_KEPT:]}"


class UsageError(SupervisorError):
    """The call itself was wrong: nothing was touched, and repeating it won't help."""

    def __init__(self, message: str, *, container: str | None = None) -> None:
        super().__init__(_shortened(message), container=container)


class InvalidValue(UsageError, ValueError, TypeError):
    """An argument has a value, or a type, that can't work. Not raised for a wrong bundle.

    It is a ValueError and a TypeError: which of them a caller expects is a matter of taste.
    """


class NotFifo(InvalidValue):
    """A path that was named as a fifo isn't one.

    Attributes:
        path: the path.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class BundleInvalid(UsageError, ValueError):
    """The bundle can't run as it is.

    Attributes:
        path: the bundle's directory or the file at fault.
        where: the JSON path of the fault inside ``config.json``, or None.
    """

    def __init__(self, message: str, *, path: str, where: str | None = None) -> None:
        place = f"{path}: {where}" if where else path
        super().__init__(f"{place}: {message}")
        self.path = path
        self.where = where


class ContainerNotFound(UsageError, KeyError):
    """No container of that id under this root. A broken one is in ``sup.broken``."""


class ContainerExists(UsageError):
    """The id is taken under this root, perhaps by a broken container."""


class ContainerLocked(UsageError):
    """Another living supervisor supervises this container.

    Streams, signals, ``wait``, ``stop`` and ``exec`` still work from here.
    """


class IllegalTransition(UsageError):
    """The container's state doesn't admit this operation; nothing was changed.

    Attributes:
        state: the state it was in.
        event: what was asked of it.
    """

    def __init__(
        self, message: str, *, state: str, event: str, container: str | None = None
    ) -> None:
        super().__init__(message, container=container)
        self.state = state
        self.event = event


class SupervisorClosed(UsageError, trio.ClosedResourceError):
    """The supervisor that it was asked of, or of a container of, has been closed.

    Whether a container of a durable root runs, the next supervisor of that root knows.
    """


class ProcessEnded(UsageError, ProcessLookupError):
    """A signal or a control line was meant for a process that has ended.

    It says nothing about how it ended: ``await process.wait()`` does.
    """


class AlreadyAttached(UsageError):
    """Somebody else is attached to the terminal: one at a time."""


# ---- the program in the container ---------------------------------------------------


class ProcessFailed(SupervisorError, subprocess.CalledProcessError):
    """A program that was run with ``check=True`` didn't exit with 0.

    It is what `trio.run_process` raises then; ``cmd`` and ``output`` are as there.

    Attributes:
        command: the program and its arguments.
        status: how it ended.
        returncode: its exit code, -N for signal N, 255 if nobody knows.
        stdout: all of its captured output, or None.
        stderr: all of its captured errors, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        command: Sequence[str],
        status: ExitStatus,
        stdout: bytes | None,
        stderr: bytes | None,
        container: str | None = None,
    ) -> None:
        super().__init__(message, container=container)
        self.command: tuple[str, ...] = tuple(command)
        self.cmd: tuple[str, ...] = self.command
        self.status: ExitStatus = status
        self.returncode: int = status.returncode
        self.stdout: bytes | None = stdout
        self.stderr: bytes | None = stderr


class OutputTooLarge(SupervisorError):
    """A program that was run put out more than ``max_output_bytes`` on a stream, and was ended.

    Not raised for what isn't captured: a log, a file and a PIPE bound themselves.

    Attributes:
        stream: the stream that was too long, ``"stdout"`` or ``"stderr"``.
        limit: how many bytes were allowed of it.
        stdout: what was captured of its output, cut at the limit; None if that wasn't captured.
        stderr: its errors, likewise.
    """

    def __init__(
        self,
        message: str,
        *,
        stream: str,
        limit: int,
        stdout: bytes | None,
        stderr: bytes | None,
        container: str | None = None,
    ) -> None:
        super().__init__(message, container=container)
        self.stream = stream
        self.limit = limit
        self.stdout: bytes | None = stdout
        self.stderr: bytes | None = stderr


class GateFailed(SupervisorError):
    """A container couldn't be made to run what was asked for.

    The program hasn't run: an exit of its own is never this error. That there is no such program
    or directory, or that it can't be executed, are the two kinds below, wherever it was to be run.

    Attributes:
        what: ``"program"``, ``"cwd"`` or ``"file"``: what couldn't be had of what was asked for.
            Of a pooled container also ``"frame"``: the taker's wishes didn't arrive whole; and
            ``"killed"``: somebody or something, such as a memory limit, killed it meanwhile.
        errno: the system's error number inside the container, or 0.
        name: the program, directory or file; "" where there is none.
    """

    def __init__(
        self, message: str, *, what: str, errno: int, name: str, container: str | None = None
    ) -> None:
        super().__init__(message, container=container)
        self.what = what
        self.errno: int | None = errno
        self.name = name


class _NotRun(GateFailed, OSError):
    """What both kinds of it share: what an OSError says."""

    def __init__(
        self, message: str, *, what: str, errno: int, name: str, container: str | None = None
    ) -> None:
        super().__init__(message, what=what, errno=errno, name=name, container=container)
        self.strerror: str | None = os.strerror(errno)
        self.filename: str | None = name


class ProgramNotFound(_NotRun, FileNotFoundError):
    """There is no such program, interpreter of it, or working directory in the container.

    It is what `trio.run_process` raises then, whichever runtime has said so in its own words.
    ``strerror`` and ``filename`` are as there.
    """


class ProgramNotExecutable(_NotRun, PermissionError):
    """The program is there and can't be executed, or the working directory can't be entered.

    It is a directory, nobody may execute it, its file system forbids that, or what is in it is no
    program for this machine (``errno`` is ENOEXEC then).
    """


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def not_run(
    message: str, *, what: str, number: int, name: str, container: str | None = None
) -> GateFailed:
    """Return the error for what couldn't be run; ``number`` is the system's error number."""
    kind: type[GateFailed] = GateFailed
    if what in ("program", "cwd"):
        kind = ProgramNotFound if number in _ABSENT else ProgramNotExecutable
    return kind(message, what=what, errno=number, name=name, container=container)


# ---- the shim ---------------------------------------------------------------------


class ShimError(SupervisorError):
    """The shim can't be found, or failed."""


class ShimNotFound(ShimError):
    """The shim's binary is missing or not executable.

    Attributes:
        path: where it was looked for.
    """

    def __init__(self, message: str, *, path: str, container: str | None = None) -> None:
        super().__init__(message, container=container)
        self.path = path


class ShimExited(ShimError):
    """The shim ended before it reported, or before its container was started."""


# ---- the runtime ------------------------------------------------------------------


class OCIRuntimeError(SupervisorError):
    """The OCI runtime can't be found, can't run here, or failed."""


class RuntimeNotFound(OCIRuntimeError):
    """No such runtime on this machine, or none that can run here.

    Attributes:
        name: the name or path that was looked for.
    """

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class RuntimeFailed(OCIRuntimeError):
    """A call of the runtime ended with an error.

    Attributes:
        command: the whole command line.
        returncode: its exit code; -N when it was killed by signal N; None when unknown.
        reason: what the runtime said, for people; "" when it said nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        command: Sequence[str],
        returncode: int | None,
        reason: str,
        container: str | None = None,
    ) -> None:
        super().__init__(message, container=container)
        self.command: tuple[str, ...] = tuple(command)
        self.returncode = returncode
        self.reason: str = printable(reason)


# ---- what is on disk --------------------------------------------------------------


class StateCorrupt(SupervisorError):
    """A file of ours can't be understood; it was left as it is.

    Attributes:
        path: the file.
        reason: what is wrong with it.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path: str = os.fspath(path)
        self.reason = reason


# ---- the machine ------------------------------------------------------------------


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
