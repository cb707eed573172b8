"""What else the tests do about leaks, and how they wait: see `supervisor.testing.leak_check`."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from supervisor.cgroups import Hierarchies
from supervisor.testing._leaks import PATIENCE_SECONDS
from supervisor.testing._processes import children, command, descendants, name_of

__all__ = [
    "PATIENCE_SECONDS",
    "STRANGERS",
    "cgroup_left",
    "children",
    "command",
    "descendants",
    "reap_strangers",
    "wait_for",
]

_OURS_TO_REAP = ("supervisor-shim",)  # the kernel keeps 15 characters

STRANGERS: set[int] = set()
"""Pids that a program which a test killed had launched, and that were left to us."""


def reap_strangers() -> None:
    """Reap the processes that were left to us as the subreaper: what init would do elsewhere.

    A shim that we launched ourselves is never reaped here: the library has to. A call of the
    runtime may be reaped, also one that a killed program was just making. So may a keeper, which
    has no parent of its own.
    """
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):
            if not name_of(pid).startswith(_OURS_TO_REAP) or pid in STRANGERS:
                os.waitpid(pid, os.WNOHANG)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return when ``condition`` holds; fail if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} seconds in vain for: {what}"
        time.sleep(0.002)


def cgroup_left(parent: str) -> list[str]:
    """Remove a test's cgroup parent; return the paths that were still inside."""
    left = []
    for apart in Hierarchies.discover().directories(f"{parent}.shims"):
        with contextlib.suppress(OSError):  # a killed supervisor's: the next close removes it
            os.rmdir(apart)
    for directory in Hierarchies.discover().directories(parent):
        if os.path.isdir(directory):
            left += [entry.path for entry in os.scandir(directory) if entry.is_dir()]
            for path, _, _ in os.walk(directory, topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    left.append(path)
    return left
