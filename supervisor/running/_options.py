"""What may be said of a program, and of what is collected of it: keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..rootfs import AccountOptions
from ..spec import PrivilegeOptions, StopOptions
from ..stdio import StdioArgument

Input = StdioArgument | bytes | bytearray | memoryview


class ProgramOptions(AccountOptions, total=False):
    """What a program in a container gets, in place of the bundle's; an exec, of init's.

    Attributes:
        env: variables that are set besides those, or in their place.
        cwd: the working directory, absolute, inside.
    """

    env: Mapping[str, str] | None
    cwd: str | None


class InitOptions(ProgramOptions, PrivilegeOptions, StopOptions, total=False):
    """What the first program of a container gets, in place of the bundle's.

    Attributes:
        args: the program and its arguments; the init of a bundle with ``init=True`` stays in front
            of them.
    """

    args: Sequence[str] | None


class CollectOptions(TypedDict, total=False):
    """How a program is fed, what is collected of it, and how long it may run.

    Attributes:
        stdin: bytes that it is fed with, none by default; or as for `Supervisor.create`: PIPE only
            with ``nursery.start``.
        stdout: as for `Supervisor.create`; PIPE only with ``nursery.start``.
        stderr: as ``stdout``.
        capture_stdout: whether its output is collected.
        capture_stderr: whether its errors are collected.
        max_output_bytes: how many bytes are collected of each of them, at most; its program is
            ended as if cancelled if there are more. 64 MiB by default; None is no bound, and
            lets the program fill this one's memory.
        check: whether anything but exit code 0 raises; it does by default.
        deadline: how many seconds its program may run; then it is ended as if cancelled.
    """

    stdin: Input
    stdout: StdioArgument
    stderr: StdioArgument
    capture_stdout: bool
    capture_stderr: bool
    max_output_bytes: int | None
    check: bool
    deadline: float | None
