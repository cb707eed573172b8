"""Errors of the program that was run, or couldn't be run."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence

from ._errors import SupervisorError
from ._status import ExitStatus


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


UNRUNNABLE = frozenset({errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC, errno.EISDIR})
"""What the kernel says of a path at which there is nothing to run."""

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def not_run(
    message: str, *, what: str, number: int, name: str, container: str | None = None
) -> GateFailed:
    """Return the error for what couldn't be run; ``number`` is the system's error number."""
    kind: type[GateFailed] = GateFailed
    if what in ("program", "cwd"):
        kind = ProgramNotFound if number in _ABSENT else ProgramNotExecutable
    return kind(message, what=what, errno=number, name=name, container=container)
