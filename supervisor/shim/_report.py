"""The shim's report: one line on standard output (docs/shim-protocol.md)."""

from __future__ import annotations

import json

import attrs


@attrs.frozen
class Made:
    """The runtime made the process.

    Attributes:
        pid: the process, a child of the shim.
        start_time: field 22 of ``/proc/PID/stat``, in clock ticks since boot.
    """

    pid: int
    start_time: int


@attrs.frozen
class Refused:
    """No process was made.

    Attributes:
        error: what happened, for people.
        phase: options, start, files, fifos, stdio, fork, layer, launch, runtime, console, pid
            or leash.
        errno: the system's error number, or 0.
        code: the runtime's exit code (phase runtime).
        signal: the signal that ended the runtime, or 0.
    """

    error: str
    phase: str
    errno: int
    code: int
    signal: int


def parse_report(line: bytes) -> Made | Refused | None:
    """Return the report in ``line``; None for any other line (empty: the shim died)."""
    try:
        told = json.loads(line)
        if "error" in told:
            numbers = (int(told.get(key, 0)) for key in ("errno", "code", "signal"))
            return Refused(str(told["error"]), str(told.get("phase", "")), *numbers)
        return Made(int(told["pid"]), int(told["starttime"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
