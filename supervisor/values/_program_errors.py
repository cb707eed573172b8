"""Errors of a program: a failed exit, too much output, a program that can't be run."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence

from ._errors import SupervisorError
from ._status import ExitStatus


class ProcessFailed(SupervisorError, subprocess.CalledProcessError):
    """A program that was run with ``check=True`` didn't exit with 0.

    Also the `subprocess.CalledProcessError` that `trio.run_process` raises, with ``cmd`` and
    ``output``.

    Attributes:
        command: the program and the arguments.
        status: the exit status.
        returncode: the exit code; -N for signal N; 255 if the exit status is unknown.
        stdout: all captured output of stdout, or None.
        stderr: all captured output of stderr, or None.
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
    """A program wrote more than ``max_output_bytes`` to a captured stream, and was ended.

    Not raised for a log, a file or a PIPE, which aren't captured.

    Attributes:
        stream: the stream that was too long, ``"stdout"`` or ``"stderr"``.
        limit: how many bytes were allowed.
        stdout: the captured output, cut at the limit; None if stdout wasn't captured.
        stderr: likewise for stderr.
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
    """The container couldn't run the program that the caller asked for.

    The program hasn't run: an exit of the program is never this error. `ProgramNotFound` says that
    the program or directory is missing, and `ProgramNotExecutable` that the program can't be
    executed.

    Attributes:
        what: what failed: ``"program"``, ``"cwd"`` or ``"file"``. In a pooled container also
            ``"frame"`` (the taker's wishes didn't arrive whole) and ``"killed"`` (the container
            was killed meanwhile, by a memory limit for instance).
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
    """The attributes of an OSError, for both kinds of `GateFailed`."""

    def __init__(
        self, message: str, *, what: str, errno: int, name: str, container: str | None = None
    ) -> None:
        super().__init__(message, what=what, errno=errno, name=name, container=container)
        self.strerror: str | None = os.strerror(errno)
        self.filename: str | None = name


class ProgramNotFound(_NotRun, FileNotFoundError):
    """The program, the program's interpreter or the working directory isn't in the container.

    Also the FileNotFoundError that `trio.run_process` raises, with ``strerror`` and ``filename``,
    and the same for every runtime.
    """


class ProgramNotExecutable(_NotRun, PermissionError):
    """The program is there but can't be executed, or the working directory can't be entered.

    Such a program is a directory, has no permission to execute, lies on a file system that forbids
    executing, or isn't a program for this machine (then ``errno`` is ENOEXEC).
    """


UNRUNNABLE = frozenset({errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC, errno.EISDIR})
"""The kernel's error numbers for a path at which there is nothing to run."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def not_run(
    message: str, *, what: str, number: int, name: str, container: str | None = None
) -> GateFailed:
    """Return the error for a program that couldn't be run; ``number`` is the system's errno."""
    kind: type[GateFailed] = GateFailed
    if what in ("program", "cwd"):
        kind = ProgramNotFound if number in _ABSENT else ProgramNotExecutable
    return kind(message, what=what, errno=number, name=name, container=container)
