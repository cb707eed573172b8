"""The tree of exceptions, grouped by who is at fault: its root, and most of its groups.

``SupervisorError`` is the root. Below it stand eight groups: the caller (`UsageError`), the
program that was run (`ProcessFailed`, `OutputTooLarge`), what was to be run and couldn't be
(`GateFailed`), the shim (`ShimError`), the OCI runtime (`OCIRuntimeError`), what is on disk
(`StateCorrupt`) and the machine (`InfrastructureError`: time, space, descriptors, processes, and
what the caller gave as a stream).
A container's exit is an exception only for who has asked for that, with ``check=True``; else it
is an `ExitStatus`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import trio


def printable(text: str) -> str:
    """Return foreign text for people: controls, line ends and bidi overrides as visible escapes."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else _escape(one) for one in text)


def _escape(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")


_OURS: Final = __name__.removesuffix("_errors")
_PUBLIC: Final = __name__.partition(".")[0]
"""The package that users import the errors from."""


class SupervisorError(Exception):
    """Root of everything this library raises on purpose.

    Attributes:
        container: id of the container it happened to, or None where there is none.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Have those of this package print with the name that they are imported by."""
        super().__init_subclass__(**options)
        if cls.__module__.startswith(_OURS) and not cls.__name__.startswith("_"):
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
