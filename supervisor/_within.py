"""Deadlines that count only the time in which we could run.

A program that was stopped for half a minute, or was frozen with its machine, finds all of its
deadlines expired when it goes on, and what they were for in good order. So time in which Trio's
loop didn't turn isn't counted: what was left of a deadline before is left afterwards.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator

import trio

from ._forks import forked, shields

_BEAT_SECONDS = 1.0
_LOST_SECONDS = 2.0  # between two turns of the loop: a beat, and a second for a busy machine


@contextlib.contextmanager
def within(seconds: float, *, shield: bool = False) -> Iterator[trio.CancelScope]:
    """Cancel the body ``seconds`` from now, not counting time in which we couldn't run.

    Args:
        seconds: may be `math.inf`.
        shield: whether it is shielded from outer cancellation; but not in a forked child, where
            nothing is to be undone.
    """
    begun = trio.current_time()
    with trio.CancelScope(deadline=begun + seconds, shield=shield) as scope:
        if shield and forked():
            scope.cancel()
        watch = None if seconds == math.inf else _watch()
        if watch is not None:
            watch.add(scope, begun)
        if shield:
            shields().add(scope)
        try:
            yield scope
        finally:
            if watch is not None:
                watch.scopes.pop(scope, None)
            if shield:
                shields().discard(scope)


class _Watch(trio.abc.Instrument):
    """Sees the turns of a run's loop, of which there is one each beat while a deadline runs.

    Attributes:
        scopes: those whose deadlines run, and since when.
    """

    def __init__(self) -> None:
        self.scopes: dict[trio.CancelScope, float] = {}
        self._rest = trio.CancelScope()
        self._seen = trio.current_time()
        self._seen_by_kernel = time.monotonic()

    def after_io_wait(self, timeout: float) -> None:
        """Put off the deadlines by what was lost; Trio looks at them afterwards."""
        now, kernel = trio.current_time(), time.monotonic()
        lost = min(now - self._seen, kernel - self._seen_by_kernel)
        self._seen, self._seen_by_kernel = now, kernel
        if lost > _LOST_SECONDS:
            for scope, begun in self.scopes.items():
                scope.deadline += min(lost, now - begun)

    def add(self, scope: trio.CancelScope, begun: float) -> None:
        """Keep an eye on a scope: from now on the loop turns each beat."""
        self.scopes[scope] = begun
        self._rest.deadline = min(self._rest.deadline, begun + _BEAT_SECONDS)

    async def beat(self) -> None:
        """Go on until the end of the run; nobody is woken while no deadline runs."""
        while True:
            with trio.CancelScope() as self._rest:
                if self.scopes:
                    self._rest.deadline = trio.current_time() + _BEAT_SECONDS
                await trio.sleep_forever()


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
