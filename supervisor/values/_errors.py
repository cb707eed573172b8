"""Exceptions: the root, and the errors of the caller, the shim, the runtime and the disk.

All exceptions derive from ``SupervisorError``, grouped by what is at fault: the caller
(`UsageError`), the program (`ProcessFailed`, `OutputTooLarge`), a program that couldn't be run
(`GateFailed`), the shim (`ShimError`), the OCI runtime (`OCIRuntimeError`), files on disk
(`StateCorrupt`) and the machine (`InfrastructureError`: time, space, descriptors, processes, and
the caller's own streams).
A container's exit is an `ExitStatus`. Only with ``check=True`` is an exit an exception.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import trio


def printable(text: str) -> str:
    """Return untrusted text for people: control characters and line ends as visible escapes."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")


_OURS: Final = __name__.removesuffix("_errors")
_PUBLIC: Final = __name__.partition(".")[0]
"""The package from which users import the errors."""


class SupervisorError(Exception):
    """Root of all errors that this library raises on purpose.

    Attributes:
        container: the id of the container in question; None if the error concerns no container.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Give each error class of this package the module name from which users import it."""
        super().__init_subclass__(**options)
        if cls.__module__.startswith(_OURS) and not cls.__name__.startswith("_"):
            cls.__module__ = _PUBLIC

    def __init__(self, message: str, *, container: str | None = None) -> None:
        message = printable(message)  # text from containers and runtimes may be inside
        # Not super(): some subclasses also derive from one of Python's errors, such as OSError.
        Exception.__init__(self, message)
        self.message = message
        self.container = container

    def __str__(self) -> str:
        if self.container is None:
            return self.message
        return f"container {self.container!r}: {self.message}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the error with all attributes, for copies and for other processes.

        pytest-xdist and multiprocessing send errors to other processes. Python's default makes the
        copy from the message alone, and our constructors need more arguments.
        """
        state = dict(self.__dict__)
        if isinstance(self, OSError):  # an OSError keeps these outside of ``__dict__``
            state.update(errno=self.errno, strerror=self.strerror, filename=self.filename)
        # Another cause may be impossible to pickle.
        if isinstance(self.__cause__, SupervisorError | OSError):
            state.update(__cause__=self.__cause__)
        return _made_again, (type(self), self.args), state


SupervisorError.__module__ = _PUBLIC


def _made_again(kind: type[SupervisorError], args: tuple[object, ...]) -> SupervisorError:
    """Return an error without attributes; pickle sets the attributes afterwards."""
    error = kind.__new__(kind)
    error.args = args
    return error


# ---- the caller -------------------------------------------------------------------


_LONGEST = 1000
_KEPT = 400


def _shortened(message: str) -> str:
    """Return the message, with the middle cut out if a quoted value makes the message long."""
    if len(message) <= _LONGEST:
        return message
    return f"{message[:_KEPT]} [...] {message[-_KEPT:]}"


class UsageError(SupervisorError):
    """The call was wrong: nothing was changed, and the same call will fail again."""

    def __init__(self, message: str, *, container: str | None = None) -> None:
        super().__init__(_shortened(message), container=container)


class InvalidValue(UsageError, ValueError, TypeError):
    """An argument has a value, or a type, that can't work. Not raised for a wrong bundle.

    Also a ValueError and a TypeError, so a caller may catch either.
    """


class NotFifo(InvalidValue):
    """A path that must name a fifo names something else.

    Attributes:
        path: the path.
    """

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class BundleInvalid(UsageError, ValueError):
    """The bundle has a fault, and can't run.

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
    """No container has this id under this root. Broken containers are in ``sup.broken``."""


class ContainerExists(UsageError):
    """A container under this root has this id already, perhaps a broken container."""


class ContainerLocked(UsageError):
    """The container is foreign: another living supervisor owns the container.

    Streams, signals, ``wait``, ``stop`` and ``exec`` still work from here.
    """


class IllegalTransition(UsageError):
    """The state doesn't allow this operation; nothing was changed.

    Attributes:
        state: the state of the container; or of the process, for an operation on a process that
            is still being launched.
        event: the operation that the caller asked for.
    """

    def __init__(
        self, message: str, *, state: str, event: str, container: str | None = None
    ) -> None:
        super().__init__(message, container=container)
        self.state = state
        self.event = event


class SupervisorClosed(UsageError, trio.ClosedResourceError):
    """The supervisor, or the one that the container belongs to, is closed.

    On a durable root the containers may still run: open a supervisor on the root again.
    """


class ProcessEnded(UsageError, ProcessLookupError):
    """A signal or a control line was meant for a process that has ended.

    For the exit status call ``await process.wait()``.
    """


class LaunchFailed(ProcessEnded):
    """There is no process: its launch failed, or was cancelled. The message says why.

    The call of ``exec`` or ``create`` has raised the error itself. Other tasks may have got the
    `Process` from ``Container.processes`` meanwhile: this error is theirs. Nothing of the process
    is left; another ``exec`` makes another process.
    """


class AlreadyAttached(UsageError):
    """Another client is attached to the terminal, which admits one client at a time."""


# ---- the shim ---------------------------------------------------------------------


class ShimError(SupervisorError):
    """The shim can't be found, or failed."""


class ShimNotFound(ShimError):
    """The shim's binary is missing or not executable.

    Attributes:
        path: the path at which the shim was looked for.
    """

    def __init__(self, message: str, *, path: str, container: str | None = None) -> None:
        super().__init__(message, container=container)
        self.path = path


class ShimExited(ShimError):
    """The shim exited without a report, or before the container was started."""


# ---- the runtime ------------------------------------------------------------------


class OCIRuntimeError(SupervisorError):
    """The OCI runtime can't be found, can't run here, or failed."""


class RuntimeNotFound(OCIRuntimeError):
    """The runtime isn't on this host, or can't run here.

    Attributes:
        name: the name or path that was looked for.
    """

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class RuntimeFailed(OCIRuntimeError):
    """A call of the runtime failed.

    Attributes:
        command: the whole command line.
        returncode: the runtime's exit code; -N if signal N killed the runtime; None if unknown.
        reason: the runtime's own message, for people; "" without a message.
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
    """A file of ours can't be understood; the file was left unchanged.

    Attributes:
        path: the file.
        reason: what is wrong with the file.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path: str = os.fspath(path)
        self.reason = reason
