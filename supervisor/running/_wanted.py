"""Check the arguments that say what happens to the streams of a run program."""

from __future__ import annotations

from typing import Final

import attrs

from ..stdio import PIPE, StdioArgument
from ..values import InvalidValue, check_flag, check_seconds
from ._options import Input

MAX_OUTPUT_BYTES: Final = 64 << 20
"""How many bytes are captured of each stream by default."""

_ALONE: Final = (
    ": no caller would {} the stream; {}, or start the program with nursery.start(), which gives "
    "you the stream"
)


@attrs.frozen(kw_only=True)
class RunOptions:
    """What happens to a program's streams; the values were checked.

    Attributes:
        input: what to feed the program with, or None.
        stdin, stdout, stderr: as for `Supervisor.create`.
        capture: the names of the streams that are collected.
        given: the names of the streams that the caller got from ``nursery.start``.
        max_output_bytes: how long each collected stream may be; None for no limit.
    """

    input: bytes | bytearray | memoryview | None
    stdin: StdioArgument
    stdout: StdioArgument
    stderr: StdioArgument
    capture: tuple[str, ...]
    given: tuple[str, ...]
    max_output_bytes: int | None


def run_options(
    *,
    started: bool = False,
    deadline: float | None = None,
    stdin: Input = b"",
    stdout: StdioArgument = None,
    stderr: StdioArgument = None,
    capture_stdout: bool = False,
    capture_stderr: bool = False,
    max_output_bytes: int | None = MAX_OUTPUT_BYTES,
    check: bool = True,
    deliver_cancel: object = None,
) -> RunOptions:
    """Check what the caller wants.

    Args:
        started: whether `trio.Nursery.start` gives the caller the program, and so the streams that
            are PIPE.

    Raises:
        InvalidValue: the arguments don't go together.
    """
    check_flag(capture_stdout, "capture_stdout")
    check_flag(capture_stderr, "capture_stderr")
    check_flag(check, "check")
    _check_deliver_cancel(deliver_cancel)
    _check_output("stdout", stdout, capture=capture_stdout, started=started)
    _check_output("stderr", stderr, capture=capture_stderr, started=started)
    if _is_pipe(stdin) and not started:
        does = _ALONE.format("write to", "pass bytes")
        raise InvalidValue(f"stdin=PIPE{does}")
    if deadline is not None:
        check_seconds(deadline, "deadline")
    _check_max_output(max_output_bytes)
    feed = stdin if isinstance(stdin, bytes | bytearray | memoryview) else None
    asked = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    names = ("stdout",) * capture_stdout + ("stderr",) * capture_stderr
    return RunOptions(
        input=feed,
        # Empty bytes are the end of the input at once: nothing has to be fed.
        stdin=(PIPE if len(feed) else None) if feed is not None else stdin,  # type: ignore[arg-type]
        stdout=PIPE if capture_stdout else stdout,
        stderr=PIPE if capture_stderr else stderr,
        capture=names,
        given=tuple(name for name, value in asked.items() if _is_pipe(value)),
        max_output_bytes=max_output_bytes,
    )


def _check_deliver_cancel(value: object) -> None:
    if value is not None and not callable(value):
        raise InvalidValue(f"deliver_cancel must be an async function, not {type(value).__name__}")


def _check_output(name: str, value: StdioArgument, *, capture: bool, started: bool) -> None:
    """Refuse an output that is captured and also redirected, or a pipe without a reader."""
    if capture and value is not None:
        raise InvalidValue(f"capture_{name} and {name} don't go together")
    if not capture and _is_pipe(value) and not started:
        does = _ALONE.format("read", f"use capture_{name}=True")
        raise InvalidValue(f"{name}=PIPE{does}")


def _is_pipe(value: object) -> bool:
    return isinstance(value, int) and value == PIPE


def _check_max_output(value: object) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value is not None and not fits:
        raise InvalidValue(
            f"max_output_bytes must be 1 or more, or None for no bound, not {value!r:.100}"
        )
