"""The types of standard streams that a caller can ask for: `Fifo`, `LogFile`, `TerminalSize`."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import IO, Any

import attrs

from ..values import InvalidValue, NotFifo, check_path

DEVNULL = subprocess.DEVNULL
PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT

_MIN_LOG_BYTES = 32 * 1024  # above the longest record
_MAX_LOG_FILES = 1000
_MAX_TERMINAL_SIZE = 65535


def _check_range(name: str, value: int, low: int, high: int, hint: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidValue(f"{name} must be an int from {low} to {high}, not {value!r}{hint}")


@attrs.frozen(kw_only=True)
class LogFile:
    """Output that goes to the container's log, in the CRI format; see `Process.logs`.

    A process has one log, for stdout and stderr together. `LOG` is a `LogFile` with the defaults.

    Attributes:
        max_bytes: how large a file may become before the shim renames the file and begins
            another one. At least 32768.
        files: how many files the log may have, including the newest. The oldest file is removed
            first.
    """

    max_bytes: int = 10 << 20
    files: int = 4

    def __attrs_post_init__(self) -> None:
        _check_range("max_bytes", self.max_bytes, _MIN_LOG_BYTES, 1 << 60)
        _check_range("files", self.files, 1, _MAX_LOG_FILES)


LOG = LogFile()


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(check_path(path, "the path of a fifo"))


@attrs.frozen
class Fifo:
    """A fifo of the caller's; the caller opens the other side.

    The shim copies from or to the fifo: the container never has the fifo. The shim holds both
    sides open, so readers and writers may come and go.

    Attributes:
        path: the fifo's path.
    """

    path: str = attrs.field(converter=_absolute)

    def _check(self) -> None:
        """Raise NotFifo if there is no fifo at the path."""
        try:
            mode = os.stat(self.path).st_mode
        except OSError as error:
            raise NotFifo(f"there is no fifo at {self.path}", path=self.path) from error
        if not stat.S_ISFIFO(mode):
            raise NotFifo(f"{self.path} is not a fifo: mkfifo makes one", path=self.path)


@attrs.frozen
class TerminalSize:
    """The size of a terminal, in characters."""

    columns: int = 80
    rows: int = 24

    def __attrs_post_init__(self) -> None:
        without = 0 in (self.columns, self.rows)  # as os.get_terminal_size() may return
        hint = ": a terminal without a size says 0: give (80, 24)" if without else ""
        _check_range("columns", self.columns, 1, _MAX_TERMINAL_SIZE, hint)
        _check_range("rows", self.rows, 1, _MAX_TERMINAL_SIZE, hint)


StdioArgument = int | str | os.PathLike[str] | IO[Any] | LogFile | Fifo | None
TerminalArgument = bool | TerminalSize | tuple[int, int]


def terminal_size(terminal: TerminalArgument) -> TerminalSize | None:
    """Return the terminal's size, or None for no terminal.

    Raises:
        InvalidValue: ``terminal`` is neither a bool nor a size.
    """
    if isinstance(terminal, TerminalSize):
        return terminal
    if isinstance(terminal, bool):
        return TerminalSize() if terminal else None
    if isinstance(terminal, tuple) and len(terminal) == 2:
        return TerminalSize(*terminal)
    raise InvalidValue(f"terminal must be a bool or (columns, rows), not {terminal!r}")
