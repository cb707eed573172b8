"""What a process's standard streams are, from the caller's words to the shim's options."""

from __future__ import annotations

import os
import subprocess
from typing import IO, Any

import attrs

from .._errors import InvalidValue, scarcity
from ..state import ProcessLayout

DEVNULL = subprocess.DEVNULL
PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT

StdioArgument = int | str | os.PathLike[str] | IO[Any] | None
NAMES = ("stdin", "stdout", "stderr")


@attrs.frozen
class Stdio:
    """The three standard streams of a process, as the shim is told.

    Attributes:
        specs: for stdin, stdout and stderr: ``null``, ``fifo:PATH``, ``file:PATH``, ``fd:N``
            or (stderr) ``stdout``.
    """

    specs: tuple[str, str, str]

    @property
    def options(self) -> list[str]:
        """The shim's options."""
        pairs = zip(NAMES, self.specs, strict=True)
        return [word for name, spec in pairs for word in (f"--{name}", spec)]

    @property
    def fds(self) -> list[int]:
        """The descriptors that the shim must inherit."""
        return [int(spec[3:]) for spec in self.specs if spec.startswith("fd:")]

    @property
    def fifos(self) -> list[str]:
        """The paths of the fifos among them."""
        return [spec[5:] for spec in self.specs if spec.startswith("fifo:")]

    def moved(self, old: str, new: str) -> Stdio:
        """Return the same with fifos in the directory ``new`` in place of ``old``."""
        head = f"fifo:{old}/"
        first, second, third = (
            f"fifo:{new}/{spec.removeprefix(head)}" if spec.startswith(head) else spec
            for spec in self.specs
        )
        return Stdio((first, second, third))


def plan(
    layout: ProcessLayout,
    *,
    stdin: StdioArgument,
    stdout: StdioArgument,
    stderr: StdioArgument,
) -> Stdio:
    """Return the streams that the caller asked for; nothing is touched yet.

    Args:
        layout: the process directory that fifos will be made in.
        stdin: None or DEVNULL, PIPE, a path that is opened for reading, or an open file.
        stdout: the same, a path being opened for appending and made if it isn't there.
        stderr: the same, or STDOUT.

    Raises:
        InvalidValue: one of them is something else.
    """
    own = {"stdin": layout.stdin, "stdout": layout.stdout, "stderr": layout.stderr}
    asked = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    first, second, third = (_spec(name, asked[name], own[name]) for name in NAMES)
    return Stdio((first, second, third))


def prepare(stdio: Stdio, *, uid: int, gid: int) -> None:
    """Make the fifos and files, owned by the container's root.

    Raises:
        DiskFull, TooManyFiles, OSError: one of them can't be made or opened.
    """
    try:
        for path in stdio.fifos:
            os.mkfifo(path, 0o600)
            _own(path, uid, gid)
        for name, spec in zip(NAMES, stdio.specs, strict=True):
            if spec.startswith("file:"):
                _try_file(spec[5:], reading=name == "stdin", uid=uid, gid=gid)
    except OSError as error:
        raise scarcity(error) from error


def _spec(name: str, value: StdioArgument, fifo: str) -> str:
    if value is None or value is DEVNULL or value == DEVNULL:
        return "null"
    if value == PIPE:
        return f"fifo:{fifo}"
    if value == STDOUT:
        if name != "stderr":
            raise InvalidValue(f"{name} can't be STDOUT: only stderr can")
        return "stdout"
    if isinstance(value, str | os.PathLike):
        return f"file:{_path(name, value)}"
    return f"fd:{_descriptor(name, value)}"


def _path(name: str, value: str | os.PathLike[str]) -> str:
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidValue(f"{name}: {path!r} is no path")
    path = os.path.abspath(path)
    if os.path.isdir(path):
        raise InvalidValue(f"{name}: {path} is a directory")
    return path


def _descriptor(name: str, value: int | IO[Any]) -> int:
    if isinstance(value, bool):
        raise InvalidValue(f"{name} must not be {value}")
    try:
        fd = value if isinstance(value, int) else value.fileno()
        os.fstat(fd)
    except (AttributeError, ValueError, OSError, OverflowError) as error:
        raise InvalidValue(
            f"{name} must be None, DEVNULL, PIPE, a path or an open file, not {value!r}"
        ) from error
    return fd


def _try_file(path: str, *, reading: bool, uid: int, gid: int) -> None:
    if reading:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    os.close(fd)
    _own(path, uid, gid)


def _own(path: str, uid: int, gid: int) -> None:
    status = os.stat(path)
    if (status.st_uid, status.st_gid) == (uid, gid) or not _may_chown():
        return
    os.chown(path, uid, gid)


def _may_chown() -> bool:
    return os.geteuid() == 0
