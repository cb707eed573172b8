"""Deadlines that count only the time in which we could run.

A program that was stopped for half a minute, or frozen with the host, would find all its deadlines
expired when it goes on, although nothing is wrong. So a turn of Trio's loop that took longer than
planned isn't counted, and after it each deadline gets one more look.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple

import trio

from ..system import RealTime, real_time
from ._forks import forked, open_scopes, refuse_forked

_LOST_SECONDS = 0.5  # even a busy host wakes us within this
_FAIR_SECONDS = 5.0
_BEAT_SECONDS = 0.5
_BEATS = 10


def within(seconds: float, *, shield: bool = False, still: bool = True) -> Limit:
    """Cancel the body ``seconds`` from now, not counting time in which we couldn't run.

    Use `within` like `trio.move_on_after`, for the work of the kernel, a shim or a runtime. The
    seconds are real ones, also if Trio's clock is a test's; that clock doesn't jump meanwhile. In a
    forked child no wait for the parent's work makes sense: there a shielded body, which undoes
    something, is cancelled at once; and a body that was under way at the fork raises
    SupervisorClosed.

    Args:
        seconds: may be `math.inf`.
        shield: whether the body is shielded from outer cancellation.
        still: whether a test's clock stands still. False for waits that depend on a caller's task.
    """
    return Limit(seconds, shield=shield, still=still)


def shielded(seconds: float) -> Limit:
    """Shield the body from outer cancellation, for ``seconds`` at most; see `within`.

    These are real seconds, also under a mock clock. In a forked child there is nothing to undo, so
    the body is cancelled at once.
    """
    return Limit(seconds, shield=True, still=True)


def granted(seconds: float, *, shield: bool = False) -> Limit:
    """As `within`, but by Trio's own clock: for the time that a caller gives to a program."""
    return Limit(seconds, shield=shield, real=False)


async def nap(seconds: float, *, still: bool = True) -> None:
    """Sleep a moment of real time, before the next look at something; see `within`.

    Cancellation: as `trio.sleep`.
    """
    if real_time() is None:
        await trio.sleep(seconds)
        return
    with within(seconds, still=still):
        await trio.sleep_forever()


@contextlib.contextmanager
def expiring() -> Iterator[Callable[[float], None]]:
    """Yield a function that sets a deadline: after so many seconds the body is cancelled.

    The seconds are real ones, and lost time counts; see `within`.
    """
    real = real_time()
    scope = trio.CancelScope()

    def expire(seconds: float) -> None:
        if real is None:
            scope.deadline = trio.current_time() + seconds
        else:
            real.begin(scope, seconds)

    try:
        with scope:
            yield expire
    finally:
        if real is not None:
            real.end(scope)


class Limit:
    """What `within` returns: a context manager whose value is the cancel scope."""

    def __init__(
        self, seconds: float, *, shield: bool, real: bool = True, still: bool = False
    ) -> None:
        self._seconds = seconds
        self._shield = shield
        self._wants_real = real
        self._still = still
        self._skipped = False
        self._watch: _Watch | None = None
        self._real: RealTime | None = None

    def __enter__(self) -> trio.CancelScope:
        """Begin to count."""
        self._scope = trio.CancelScope(shield=self._shield)
        self._scope.__enter__()
        self._scopes = open_scopes()
        self._scopes.add(self._scope)
        if self._shield and forked():
            self._skipped = True
            self._scope.cancel()
        elif self._seconds != math.inf:
            self._begin()
        return self._scope

    def _begin(self) -> None:
        self._watch = _watch()
        if self._watch is None and self._wants_real:
            self._real = real_time()
        if self._real is not None:
            self._real.begin(self._scope, self._seconds, still=self._still)
            return
        begun = trio.current_time()
        self._scope.deadline = begun + self._seconds
        if self._watch is not None:
            self._watch.add(self._scope, begun, self._seconds)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Stop counting."""
        self._scopes.discard(self._scope)
        if self._watch is not None:
            del self._watch.running[self._scope]
        if self._real is not None:
            self._real.end(self._scope, still=self._still)
        expired = bool(self._scope.__exit__(kind, error, traceback))
        if expired and not self._skipped and forked():
            refuse_forked()
        return expired


class _Running(NamedTuple):
    begun: float
    beat: float


class _Watch(trio.abc.Instrument):
    """Observes the turns of a run's loop; while a deadline runs, the loop turns now and then.

    A tenth of a deadline, or half a second, may pass between two turns: a stop of that length may
    go unnoticed. So a long deadline costs few wake-ups, and a run without deadlines none.
    """

    def __init__(self) -> None:
        self.running: dict[trio.CancelScope, _Running] = {}
        self._rest = trio.CancelScope()
        self._next = math.inf
        self._time = trio.lowlevel.current_clock().current_time
        self._seen = self._time()
        self._seen_by_kernel = time.monotonic()

    def after_io_wait(self, timeout: float) -> None:
        """Put off the deadlines if the turn took too long; Trio checks them after this."""
        now, kernel = self._time(), time.monotonic()
        seen, self._seen = self._seen, now
        took = min(now - seen, kernel - self._seen_by_kernel)
        self._seen_by_kernel = kernel
        if took - timeout > _LOST_SECONDS:
            for scope, running in self.running.items():
                _put_off(scope, max(seen, running.begun), now, took - timeout)

    def add(self, scope: trio.CancelScope, begun: float, seconds: float) -> None:
        """Watch a scope."""
        beat = max(_BEAT_SECONDS, seconds / _BEATS)
        self.running[scope] = _Running(begun, beat)
        if begun + beat < self._next:
            self._next = self._rest.deadline = begun + beat

    async def beat(self) -> None:
        """Make the loop turn, until the end of the run."""
        while True:
            beat = min((running.beat for running in self.running.values()), default=math.inf)
            self._next = trio.current_time() + beat
            with trio.CancelScope(deadline=self._next) as self._rest:
                await trio.sleep_forever()


def _put_off(scope: trio.CancelScope, since: float, now: float, lost: float) -> None:
    """Give back the time lost since ``since``, and time to look at what has come meanwhile."""
    left = scope.deadline - since
    given_back = scope.deadline + min(lost, now - since)
    scope.deadline = max(given_back, now + min(left, _FAIR_SECONDS))


_WATCH: trio.lowlevel.RunVar[_Watch | None] = trio.lowlevel.RunVar("supervisor watch")


def begin_watch() -> None:
    """Begin to watch this run, if no watch runs yet.

    Otherwise the first deadline begins the watch. If the order of tasks has a seed, a new task at
    that moment, or one turn later, changes the order: so begin the watch where nothing else is
    awaited.
    """
    _watch()


def _watch() -> _Watch | None:
    """Return this run's watch; None if a test's clock sets the time."""
    try:
        return _WATCH.get()
    except LookupError:
        pass
    watch = _Watch() if real_time() is None else None
    _WATCH.set(watch)
    if watch is not None:
        trio.lowlevel.add_instrument(watch)
        trio.lowlevel.spawn_system_task(watch.beat)
    return watch
