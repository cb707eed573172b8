"""What is to be done with the streams of a program that is run: the arguments, checked."""

from __future__ import annotations

from typing import Final

import attrs

from ..stdio import PIPE, StdioArgument
from ..values import InvalidValue, check_flag, check_seconds
from ._options import Input

MAX_OUTPUT_BYTES: Final = 64 << 20
"""How much is captured of each stream, if nobody says so."""

_ALONE: Final = (
    ": nobody would {}; {}, or start it with nursery.start(), which gives you the stream"
)


@attrs.frozen(kw_only=True)
class RunOptions:
    """What is to be done with a process's streams, checked.

    Attributes:
        input: what it is fed with, or None.
        stdin, stdout, stderr: as for `Supervisor.create`.
        capture: the names of the streams that are collected.
        given: the names of those that are the caller's, who got them with what was started.
        max_output_bytes: how long each of them may be; None for as long as it is.
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
        started: whether somebody gets what was started, by `trio.Nursery.start`, and with it the
            streams that are PIPE.

    Raises:
        InvalidValue: it doesn't go together.
    """
    check_flag(capture_stdout, "capture_stdout")
    check_flag(capture_stderr, "capture_stderr")
    check_flag(check, "check")
    _check_deliver_cancel(deliver_cancel)
    _check_output("stdout", stdout, capture=capture_stdout, started=started)
    _check_output("stderr", stderr, capture=capture_stderr, started=started)
    if _is_pipe(stdin) and not started:
        does = _ALONE.format("write to it", "give it bytes")
        raise InvalidValue(f"stdin=PIPE{does}")
    if deadline is not None:
        check_seconds(deadline, "deadline")
    _check_max_output(max_output_bytes)
    feed = stdin if isinstance(stdin, bytes | bytearray | memoryview) else None
    asked = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    names = ("stdout",) * capture_stdout + ("stderr",) * capture_stderr
    return RunOptions(
        input=feed,
        # Nothing to read is an end of file at once, for which nobody has to be fed.
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
    """Refuse an output that is captured and goes elsewhere, or a pipe that nobody could read."""
    if capture and value is not None:
        raise InvalidValue(f"capture_{name} and {name} don't go together")
    if not capture and _is_pipe(value) and not started:
        does = _ALONE.format("read it", f"capture_{name}=True does")
        raise InvalidValue(f"{name}=PIPE{does}")


def _is_pipe(value: object) -> bool:
    return isinstance(value, int) and value == PIPE


def _check_max_output(value: object) -> None:
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if value is not None and not fits:
        raise InvalidValue(
            f"max_output_bytes must be 1 or more, or None for no bound, not {value!r:.100}"
        )
