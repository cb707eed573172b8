"""Paths in ``/proc/PID/mountinfo``, whose spaces and backslashes are escaped."""

from __future__ import annotations

_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def unescaped(path: str) -> str:
    """Undo the octal escapes of proc_pid_mountinfo(5)."""
    for code, char in _ESCAPES:
        path = path.replace(code, char)
    return path
