"""Marks: the small text files that the shim and the runtime leave in a process directory.

The shim makes ``exitStatus`` and ``copied`` blank, and writes in place. Each runtime writes ``pid``
in its own way. So a blank file means *not yet*.
"""

from __future__ import annotations

import re

import attrs

from ..system import read_own, write_whole
from ..values import Cause, ExitStatus, Source, StateCorrupt

MAX_PID = 2**31 - 1
MAX_NS = 2**63 - 1
MAX_TICKS = 2**64 - 1
MAX_ERRNO = 4095
MAX_MARK_BYTES = 4096

_NUMBER = re.compile(rb"[0-9]{1,20}")
_STATUS = re.compile(rb"([0-9]{1,3}) ([0-9]{1,2}) ([0-9]{1,19}) ([01])")
_ASKED = re.compile(rb"([0-9]{1,2}) ([0-9]{1,19}) ([0-9]{1,19}) ([01])")
_LONE = re.compile(rb"[0-9]{1,3}")
_COPIED = re.compile(rb"([0-9]{1,4}) ([0-9]{1,4}) ([0-9]{1,4}) ([0246]) ([0-9]{1,10})")


@attrs.frozen(kw_only=True)
class Copied:
    """What became of a process's copied streams.

    Attributes:
        errors: the system's error number of a failed read or write, or 0, for stdin, stdout and
            stderr.
        late: which outputs had bytes left at the process's end that no reader has taken yet: the
            sum of 2 for stdout and 4 for stderr.
        moves: how often a reader has taken some of these bytes.
    """

    errors: tuple[int, int, int] = (0, 0, 0)
    late: int = 0
    moves: int = 0


@attrs.frozen
class Asked:
    """A stop in progress; times are CLOCK_BOOTTIME in nanoseconds.

    Attributes:
        signal: the number of the signal that asks the process to end.
        since_ns: when the stop began.
        until_ns: when the process will be killed, `MAX_NS` for never.
        sent: whether the signal was sent: a program that gets a signal twice may do all twice.
    """

    signal: int
    since_ns: int
    until_ns: int
    sent: bool = False


def write_asked(path: str, asked: Asked) -> None:
    """Write a stop to ``stopping``, ``SIGNAL SINCE UNTIL SENT``; raises as `write_whole`."""
    words = (asked.signal, asked.since_ns, asked.until_ns, int(asked.sent))
    write_whole(path, f"{' '.join(map(str, words))}\n".encode())


def read_asked(path: str) -> Asked | None:
    """Return the stop recorded in ``stopping``; None while there is none.

    Raises:
        StateCorrupt: the file holds anything else.
    """
    text = _read(path)
    if not text:
        return None
    match = _ASKED.fullmatch(text)
    if match is None:
        raise StateCorrupt(path, "not SIGNAL SINCE UNTIL SENT")
    number, since, until, sent = map(int, match.groups())
    if not 1 <= number <= 64 or max(since, until) > MAX_NS:
        raise StateCorrupt(path, "no signal, or no time")
    return Asked(number, since, until, bool(sent))


def read_exit_status(path: str) -> ExitStatus | None:
    """Return what the shim recorded in ``exitStatus``, ``CODE SIGNAL NANOSECONDS CORE``.

    Returns:
        None while the file is missing or blank. A lone integer counts as an exit code, even
        above 128: nothing says that the integer stands for a signal.

    Raises:
        StateCorrupt: the file holds anything else.
    """
    text = _read(path)
    if not text:
        return None
    if _LONE.fullmatch(text):
        return _exited(path, int(text), None)
    match = _STATUS.fullmatch(text)
    if match is None:
        raise StateCorrupt(path, "not CODE SIGNAL NANOSECONDS CORE")
    code, signal, at_ns, core = map(int, match.groups())
    if signal:
        return _signalled(path, code, signal, at_ns, core_dumped=bool(core))
    if core:
        raise StateCorrupt(path, "a core dump without a signal")
    return _exited(path, code, at_ns)


def read_copied(path: str) -> Copied | None:
    """Return what the shim recorded in ``copied``, ``STDIN STDOUT STDERR LATE MOVES``.

    Returns:
        None while the file is missing or blank: there is nothing to report.

    Raises:
        StateCorrupt: the file holds anything else.
    """
    text = _read(path)
    if not text:
        return None
    match = _COPIED.fullmatch(text)
    if match is None:
        raise StateCorrupt(path, "not STDIN STDOUT STDERR LATE MOVES")
    stdin, stdout, stderr, late, moves = map(int, match.groups())
    return Copied(errors=(stdin, stdout, stderr), late=late, moves=moves)


def read_refused(path: str) -> int | None:
    """Return the system's error number in ``refused``; None if the file is missing or blank.

    Raises:
        StateCorrupt: the file holds anything else.
    """
    text = _read(path)
    return _number(path, text, least=1, most=MAX_ERRNO) if text else None


def read_pid(path: str) -> int | None:
    """Return the pid in a file; None while the file is missing or blank.

    Raises:
        StateCorrupt: the file holds anything else.
    """
    text = _read(path)
    return _number(path, text, least=1, most=MAX_PID) if text else None


def read_starttime(path: str) -> int | None:
    """Return the start time in a file (clock ticks after boot); None while missing or blank.

    Raises:
        StateCorrupt: the file holds anything else.
    """
    text = _read(path)
    return _number(path, text, least=0, most=MAX_TICKS) if text else None


def read_shim(path: str) -> tuple[int, int] | None:
    """Return the shim's pid and start time; None while the file is missing or blank.

    Raises:
        StateCorrupt: the file holds anything else.
    """
    text = _read(path)
    if not text:
        return None
    pid, _, ticks = text.partition(b" ")
    return (
        _number(path, pid, least=1, most=MAX_PID),
        _number(path, ticks, least=0, most=MAX_TICKS),
    )


def _read(path: str) -> bytes:
    try:
        return read_own(path, max_bytes=MAX_MARK_BYTES).strip(b" \n")
    except FileNotFoundError:
        return b""


def _number(path: str, text: bytes, *, least: int, most: int) -> int:
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise StateCorrupt(path, f"not a number from {least} to {most}")
    return int(text)


def _exited(path: str, code: int, at_ns: int | None) -> ExitStatus:
    if code > 255:
        raise StateCorrupt(path, "an exit code above 255")
    return ExitStatus(cause=Cause.EXITED, source=Source.SHIM, code=code, at_ns=at_ns)


def _signalled(path: str, code: int, signal: int, at_ns: int, *, core_dumped: bool) -> ExitStatus:
    if signal > 64 or code != 128 + signal:
        raise StateCorrupt(path, "the code is not 128 + the signal")
    return ExitStatus(
        cause=Cause.SIGNALLED,
        source=Source.SHIM,
        signal=signal,
        core_dumped=core_dumped,
        at_ns=at_ns,
    )
