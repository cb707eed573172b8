"""Exit statuses: how a process ended, and which source reported that. Nothing is made up."""

from __future__ import annotations

import enum
import signal as _signal
from datetime import UTC, datetime, timedelta

import attrs

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(at_ns: int) -> datetime:
    """Return the microsecond, in UTC, in which CLOCK_REALTIME was ``at_ns``, rounded down."""
    return EPOCH + timedelta(microseconds=at_ns // 1000)


class Cause(enum.Enum):
    """Why a process ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    OUT_OF_MEMORY = "outOfMemory"
    UNKNOWN = "unknown"


class Source(enum.Enum):
    """Which source reported the exit status."""

    SHIM = "shim"
    KERNEL = "kernel"
    INFERENCE = "inference"


@attrs.frozen(kw_only=True)
class ExitStatus:
    """How a process ended.

    Attributes:
        code: the exit code, 0 to 255; None if the process didn't exit by itself.
        signal: the signal that killed the process: a `signal.Signals`, or a plain int if Python
            has no name for the signal; None if the process exited, or the cause is unknown.
        core_dumped: whether the kernel dumped core.
        oom_killed: whether the cgroup counted an out-of-memory kill before SIGKILL ended the
            process.
        cause: `Cause`; UNKNOWN leaves ``code`` and ``signal`` None.
        source: which source reported the exit status.
        at_ns: CLOCK_REALTIME in nanoseconds when the process ended; None if unknown.
        why: for `Cause.UNKNOWN`, the reason, for people; else None.
    """

    cause: Cause
    source: Source
    code: int | None = None
    signal: int | None = None
    core_dumped: bool = False
    oom_killed: bool = False
    at_ns: int | None = None
    why: str | None = None

    def __attrs_post_init__(self) -> None:
        _check(self)
        if self.signal is not None:
            object.__setattr__(self, "signal", _named(self.signal))

    @property
    def at(self) -> datetime | None:
        """When the process ended, in UTC, to the microsecond (``at_ns`` is exact); or None."""
        return None if self.at_ns is None else moment(self.at_ns)

    @property
    def returncode(self) -> int:
        """As `subprocess.Popen.returncode`: the code, -N for signal N; 255 if unknown."""
        return int(self) if self.signal is None else -self.signal

    def __int__(self) -> int:
        """Return the shell's convention: code, 128 + signal, or 255 for unknown."""
        if self.code is not None:
            return self.code
        return 255 if self.signal is None else 128 + self.signal

    def __str__(self) -> str:
        if self.cause is Cause.UNKNOWN:
            return f"unknown: {self.why}"
        memory = ", out of memory" if self.oom_killed else ""
        if self.code is not None:
            return f"exited {self.code}{memory}"
        name = getattr(self.signal, "name", str(self.signal))
        core = ", core dumped" if self.core_dumped else ""
        return f"killed by {name}{core}{memory}"


def signal_name(number: int) -> str:
    """Return a signal's name, such as SIGTERM, or "signal 37" if Python has no name."""
    named = _named(number)
    return named.name if isinstance(named, _signal.Signals) else f"signal {number}"


def _named(number: int) -> int:
    try:
        return _signal.Signals(number)
    except ValueError:
        return number


def _check(status: ExitStatus) -> None:
    told = (status.code is not None) + (status.signal is not None)
    if status.cause is Cause.UNKNOWN:
        if told or status.why is None:
            raise ValueError("cause UNKNOWN takes a `why`, and neither code nor signal")
    elif told != 1 or status.why is not None:
        raise ValueError("a known cause takes either a code or a signal, and no `why`")
    elif (status.cause is Cause.EXITED) != (status.code is not None):
        raise ValueError("cause EXITED takes a code, the other causes take a signal")
    if status.code is not None and not 0 <= status.code <= 255:
        raise ValueError(f"an exit code is 0 to 255, not {status.code}")
    if status.signal is not None and not 1 <= status.signal <= 64:
        raise ValueError(f"a signal is 1 to 64, not {status.signal}")


def unknown(why: str, *, at_ns: int | None = None) -> ExitStatus:
    """Return the exit status of a process for which no exit status was recorded."""
    return ExitStatus(cause=Cause.UNKNOWN, source=Source.INFERENCE, why=why, at_ns=at_ns)
