"""Real time in a run with a test's clock: the kernel's work takes real time.

A test's clock (`trio.testing.MockClock`) stands still, or jumps to the next deadline as soon as all
tasks wait. So when a runtime works for five milliseconds, all deadlines would expire at once, and a
poll would never look again.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
import os
import time
from typing import Any

import trio

from ._syscall import set_timer, timer

_TRIOS_OWN = "trio._core._run"  # the module of Trio's own clock, which has real time


class RealTime:
    """Deadlines in real time, and how long a run's clock may not jump."""

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._jumps = hasattr(clock, "autojump_threshold")
        self._holders = 0
        self._threshold = math.inf
        self._due: list[tuple[float, int, trio.CancelScope]] = []
        self._serials = itertools.count()
        self._fd = -1
        self._timers = 0

    def begin(self, scope: trio.CancelScope, seconds: float, *, still: bool = False) -> None:
        """Cancel a scope ``seconds`` from now. With ``still`` the clock doesn't jump meanwhile."""
        if seconds != math.inf:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._serials), scope))
            self._set()
        if still:
            self._hold()

    def end(self, scope: trio.CancelScope, *, still: bool = False) -> None:
        """Undo `begin` for a scope."""
        self._due = [one for one in self._due if one[2] is not scope]
        heapq.heapify(self._due)
        self._set()
        if still:
            self._let_go()

    def _hold(self) -> None:
        """Keep the clock from jumping until each `_hold` has had its `_let_go`."""
        self._holders += 1
        if self._holders == 1 and self._jumps:
            self._threshold = self._clock.autojump_threshold
            self._clock.autojump_threshold = math.inf

    def _let_go(self) -> None:
        """End one hold. If a test has set the clock's threshold meanwhile, that setting stays."""
        self._holders -= 1
        if self._holders == 0 and self._jumps and self._clock.autojump_threshold == math.inf:
            self._clock.autojump_threshold = self._threshold

    def _set(self) -> None:
        """Set the timer to the first deadline; without a deadline there is no timer."""
        if not self._due:
            self._close()
            return
        if self._fd < 0:
            self._fd = timer()
            self._timers += 1
            trio.lowlevel.spawn_system_task(self._ring, self._timers, name="supervisor: real time")
        set_timer(self._fd, max(0.0, self._due[0][0] - time.monotonic()))

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            trio.lowlevel.notify_closing(fd)
            os.close(fd)

    async def _ring(self, number: int) -> None:
        """Wait for one timer: the next timer may get the same descriptor before we wake up."""
        with contextlib.suppress(trio.ClosedResourceError):
            while self._fd >= 0 and number == self._timers:
                await trio.lowlevel.wait_readable(self._fd)
                self._cancel_due()

    def _cancel_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, scope = heapq.heappop(self._due)
            scope.cancel()
        self._set()


_REAL: trio.lowlevel.RunVar[RealTime | None] = trio.lowlevel.RunVar("supervisor real time")


def real_time() -> RealTime | None:
    """Return this run's `RealTime`; None if the run's clock has real time itself."""
    try:
        return _REAL.get()
    except LookupError:
        pass
    clock = trio.lowlevel.current_clock()
    real = None if type(clock).__module__ == _TRIOS_OWN else RealTime(clock)
    _REAL.set(real)
    return real
