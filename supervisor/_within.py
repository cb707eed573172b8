"""Deadlines that count only the time in which we could run.

A program that was stopped for half a minute, or was frozen with its machine, finds all of its
deadlines expired when it goes on, and what they were for in good order. So a turn of Trio's loop
that took longer than it was meant to isn't counted, and each deadline is looked at once more
after it.
"""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import NamedTuple

import trio

from ._forks import forked, open_scopes, refuse_forked

_LOST_SECONDS = 0.5  # later than that a busy machine doesn't wake us
_FAIR_SECONDS = 5.0
_BEAT_SECONDS = 0.5
_BEATS = 10


def within(seconds: float, *, shield: bool = False) -> Limit:
    """Cancel the body ``seconds`` from now, not counting time in which we couldn't run.

    Use it as `trio.move_on_after`. In a forked child nobody waits for what is its parent's: there
    a shielded body, which undoes something, is cancelled at once; and one that was under way at
    the fork raises SupervisorClosed.

    Args:
        seconds: may be `math.inf`.
        shield: whether it is shielded from outer cancellation.
    """
    return Limit(seconds, shield)


class Limit:
    """What `within` returns: a context manager whose value is the cancel scope."""

    def __init__(self, seconds: float, shield: bool) -> None:
        self._seconds = seconds
        self._shield = shield
        self._skipped = False
        self._watch: _Watch | None = None

    def __enter__(self) -> trio.CancelScope:
        """Begin to count."""
        begun = trio.current_time()
        self._scope = trio.CancelScope(deadline=begun + self._seconds, shield=self._shield)
        self._scope.__enter__()
        open_scopes().add(self._scope)
        if self._shield and forked():
            self._skipped = True
            self._scope.cancel()
        elif self._seconds != math.inf:
            self._watch = _watch()
            if self._watch is not None:
                self._watch.add(self._scope, begun, self._seconds)
        return self._scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Stop counting."""
        open_scopes().discard(self._scope)
        if self._watch is not None:
            self._watch.remove(self._scope)
        expired = bool(self._scope.__exit__(kind, error, traceback))
        if expired and not self._skipped:
            refuse_forked()
        return expired


class _Running(NamedTuple):
    begun: float
    beat: float


class _Watch(trio.abc.Instrument):
    """Sees the turns of a run's loop, of which there are some while a deadline runs.

    A tenth of a deadline, or half a second, may pass between two: so much of it a stop may take
    that is seen by nobody. A long one costs few wake-ups, and none there is no deadline.
    """

    def __init__(self) -> None:
        self._running: dict[trio.CancelScope, _Running] = {}
        self._rest = trio.CancelScope()
        self._next = math.inf
        self._time = trio.lowlevel.current_clock().current_time
        self._seen = self._time()
        self._seen_by_kernel = time.monotonic()

    def after_io_wait(self, timeout: float) -> None:
        """Put off the deadlines if it took longer than it should; Trio looks at them afterwards."""
        now, kernel = self._time(), time.monotonic()
        seen, self._seen = self._seen, now
        took = min(now - seen, kernel - self._seen_by_kernel)  # a clock may be a test's
        self._seen_by_kernel = kernel
        if took - timeout > _LOST_SECONDS:
            for scope, running in self._running.items():
                _put_off(scope, max(seen, running.begun), now, took - timeout)

    def add(self, scope: trio.CancelScope, begun: float, seconds: float) -> None:
        """Keep an eye on a scope."""
        beat = max(_BEAT_SECONDS, seconds / _BEATS)
        self._running[scope] = _Running(begun, beat)
        if begun + beat < self._next:
            self._next = self._rest.deadline = begun + beat

    def remove(self, scope: trio.CancelScope) -> None:
        """Forget it."""
        del self._running[scope]

    async def beat(self) -> None:
        """Have the loop turn, until the end of the run."""
        while True:
            beat = min((running.beat for running in self._running.values()), default=math.inf)
            self._next = trio.current_time() + beat
            with trio.CancelScope(deadline=self._next) as self._rest:
                await trio.sleep_forever()


def _put_off(scope: trio.CancelScope, since: float, now: float, lost: float) -> None:
    """Give back what was lost since a moment; and time to look at what has come meanwhile."""
    left = scope.deadline - since
    given_back = scope.deadline + min(lost, now - since)
    scope.deadline = max(given_back, now + min(left, _FAIR_SECONDS))


_WATCH: trio.lowlevel.RunVar[_Watch | None] = trio.lowlevel.RunVar("supervisor watch")


def _watch() -> _Watch | None:
    """Return this run's watch; None where time is a test's, and passes as that likes."""
    try:
        return _WATCH.get()
    except LookupError:
        pass
    virtual = hasattr(trio.lowlevel.current_clock(), "autojump_threshold")
    watch = None if virtual else _Watch()
    _WATCH.set(watch)
    if watch is not None:
        trio.lowlevel.add_instrument(watch)
        trio.lowlevel.spawn_system_task(watch.beat)
    return watch
