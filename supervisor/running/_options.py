"""The keyword arguments for a program, and for feeding the program and collecting output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..rootfs import AccountOptions
from ..spec import PrivilegeOptions, StopOptions
from ..stdio import StdioArgument

Input = StdioArgument | bytes | bytearray | memoryview


class ProgramOptions(AccountOptions, total=False):
    """Settings of a program in a container; they replace the bundle's, or for an exec the init's.

    Attributes:
        env: variables that are added to the environment, or replace variables there.
        cwd: the working directory: an absolute path in the container.
    """

    env: Mapping[str, str] | None
    cwd: str | None


class InitOptions(ProgramOptions, PrivilegeOptions, StopOptions, total=False):
    """Settings of the first program of a container; they replace the bundle's.

    Attributes:
        args: the program and the arguments. In a bundle with ``init=True`` the init stays in front.
    """

    args: Sequence[str] | None


class CollectOptions(TypedDict, total=False):
    """How to feed a program, what to collect, and how long the program may run.

    Attributes:
        stdin: bytes to feed the program with, none by default; or as for `Supervisor.create`: PIPE
            only with ``nursery.start``.
        stdout: as for `Supervisor.create`; PIPE only with ``nursery.start``.
        stderr: as ``stdout``.
        capture_stdout: whether to collect the standard output.
        capture_stderr: whether to collect the standard error.
        max_output_bytes: how many bytes to collect of each stream, at most. If there are more, the
            program is ended as by a cancellation. 64 MiB by default; None is no limit: then the
            program in the container can fill the memory of your program.
        check: whether an exit status other than 0 raises; true by default.
        deadline: how many seconds the program may run; then it is ended as by a cancellation.
    """

    stdin: Input
    stdout: StdioArgument
    stderr: StdioArgument
    capture_stdout: bool
    capture_stderr: bool
    max_output_bytes: int | None
    check: bool
    deadline: float | None
