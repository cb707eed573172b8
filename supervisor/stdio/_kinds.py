"""What a standard stream may be, in the caller's words."""

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

    A process has one log: its stdout and its stderr go to the same one. `LOG` is one with the
    defaults.

    Attributes:
        max_bytes: how large a file may become; then it is renamed and another one begun. At
            least 32768.
        files: how many there may be, the one that is written included. The oldest goes first.
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
    """A fifo of the caller's own, who opens its other side.

    It is copied from or to: the container never has it. The shim holds that other side too, so
    readers and writers may come and go.

    Attributes:
        path: where it is.
    """

    path: str = attrs.field(converter=_absolute)

    def check(self) -> None:
        """Raise NotFifo if it isn't one."""
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
        without = 0 in (self.columns, self.rows)  # as os.get_terminal_size() returns it
        hint = ": a terminal without a size says 0: give (80, 24)" if without else ""
        _check_range("columns", self.columns, 1, _MAX_TERMINAL_SIZE, hint)
        _check_range("rows", self.rows, 1, _MAX_TERMINAL_SIZE, hint)


StdioArgument = int | str | os.PathLike[str] | IO[Any] | LogFile | Fifo | None
TerminalArgument = bool | TerminalSize | tuple[int, int]


def terminal_size(terminal: TerminalArgument) -> TerminalSize | None:
    """Return the size that was asked for, or None for no terminal.

    Raises:
        InvalidValue: it is something else.
    """
    if isinstance(terminal, TerminalSize):
        return terminal
    if isinstance(terminal, bool):
        return TerminalSize() if terminal else None
    if isinstance(terminal, tuple) and len(terminal) == 2:
        return TerminalSize(*terminal)
    raise InvalidValue(f"terminal must be a bool or (columns, rows), not {terminal!r}")
