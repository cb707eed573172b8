"""How a process ended: a value with its provenance. Nothing in it is made up."""

from __future__ import annotations

import enum
import signal as _signal
from datetime import UTC, datetime, timedelta

import attrs

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(at_ns: int) -> datetime:
    """Return the microsecond, in UTC, in which CLOCK_REALTIME was ``at_ns``: never a later one."""
    return EPOCH + timedelta(microseconds=at_ns // 1000)


class Cause(enum.Enum):
    """Why a process ended."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    OUT_OF_MEMORY = "outOfMemory"
    UNKNOWN = "unknown"


class Source(enum.Enum):
    """Who told us how it ended."""

    SHIM = "shim"
    KERNEL = "kernel"
    INFERENCE = "inference"


@attrs.frozen(kw_only=True)
class ExitStatus:
    """How a process ended.

    Attributes:
        code: its exit code, 0 to 255; None if it didn't exit by itself.
        signal: the signal that ended it: a `signal.Signals`, or a plain int for one that
            Python has no name for; None if it exited or if it is unknown.
        core_dumped: whether the kernel wrote a core.
        oom_killed: whether its cgroup counted an out-of-memory kill before it ended by SIGKILL.
        cause: `Cause`; UNKNOWN leaves ``code`` and ``signal`` None.
        source: who told us.
        at_ns: CLOCK_REALTIME in nanoseconds when it ended; None when nobody knows.
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
        """When it ended, in UTC: its microsecond; ``at_ns`` has the rest. Or None."""
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
    """Return what to call a signal: SIGTERM; signal 37, which Python has no name for."""
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
            raise ValueError("an unknown end has a reason, and neither code nor signal")
    elif told != 1 or status.why is not None:
        raise ValueError("a known end has either a code or a signal, and no `why`")
    elif (status.cause is Cause.EXITED) != (status.code is not None):
        raise ValueError("cause EXITED goes with a code, the others with a signal")
    if status.code is not None and not 0 <= status.code <= 255:
        raise ValueError(f"an exit code is 0 to 255, not {status.code}")
    if status.signal is not None and not 1 <= status.signal <= 64:
        raise ValueError(f"a signal is 1 to 64, not {status.signal}")


def unknown(why: str, *, at_ns: int | None = None) -> ExitStatus:
    """Return the status of a process whose end nobody recorded."""
    return ExitStatus(cause=Cause.UNKNOWN, source=Source.INFERENCE, why=why, at_ns=at_ns)
