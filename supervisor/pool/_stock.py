"""A pool's stock: made ahead, handed out in the order of asking, replaced."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from ..tasks import forked, protected, within, witness
from ..values import Backoff, DeadlineExpired, ExitStatus, ShimExited, SupervisorError
from ._entry import Entry

logger: Final = logging.getLogger("supervisor")

PATIENCE: Final = 3
"""How many attempts in a row may fail before those who wait are told."""

_KEPT_FAILURES: Final = 16

Failure = SupervisorError | OSError


@attrs.define(eq=False)
class _Taker:
    """Somebody who waits."""

    served: trio.Event = attrs.field(factory=trio.Event)
    entry: Entry | None = None
    error: Failure | None = None


@protected
class Stock:
    """Entries that wait, and takers that do.

    Attributes:
        failures: the last errors of creates and deletes, the newest last.
        failed: how many there were.
        creating: how many are being made.
        deleting: how many are being deleted.
    """

    def __init__(
        self,
        make: Callable[[], Awaitable[Entry]],
        nursery: trio.Nursery,
        *,
        size: int,
        deletes_at_once: int,
        backoff: Backoff,
    ) -> None:
        self._make = make
        self._nursery = nursery
        self._size = size
        self._backoff = backoff
        self._deletes = trio.CapacityLimiter(deletes_at_once)
        self._ready: deque[Entry] = deque()
        self._takers: deque[_Taker] = deque()
        self._watchers: deque[_Taker] = deque()
        self._changed = trio.Event()
        self._closed = False
        self._round = 0
        self._in_a_row = 0
        self._not_before = -math.inf
        self.failures: deque[Failure] = deque(maxlen=_KEPT_FAILURES)
        self.failed = 0
        self.creating = 0
        self.deleting = 0

    @property
    def ready(self) -> int:
        """How many wait to be taken."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """How many takers wait."""
        return len(self._takers)

    # ---- making -------------------------------------------------------------------------

    async def fill(self) -> None:
        """Make what is missing, for ever.

        Cancellation: what is being made is undone.
        """
        while True:
            self._changed = trio.Event()
            while self._lacks_one():
                self.creating += 1
                self._nursery.start_soon(self._make_one, name="pool: create")
            waits = self._in_a_row > 0 and self.creating == 0 and self._is_short()
            with trio.move_on_at(self._not_before if waits else math.inf):
                await self._changed.wait()

    def _is_short(self) -> bool:
        """Whether more should be made. Deletes that lag behind hold it up: else they'd pile up."""
        made = len(self._ready) + self.creating
        return made < self._size and made + self.deleting < 2 * self._size

    def _lacks_one(self) -> bool:
        """Whether one more should be made now. After a failure one alone tries the ground."""
        if self._in_a_row and (self.creating or trio.current_time() < self._not_before):
            return False
        return self._is_short() and not self._closed and not forked()

    async def _make_one(self) -> None:
        witness.set(None)  # it isn't for whoever made the pool, or took the one before
        begun_in = self._round
        try:
            entry = await self._make()
        except (SupervisorError, OSError) as error:
            self._note_failure(error, begun_in)
        else:
            entry.made_in = begun_in
            self._offer(entry)
        finally:
            self.creating -= 1
            self._changed.set()

    def _note_failure(self, error: Failure, begun_in: int) -> None:
        """Those that began before another one failed tell nothing new, and count as one."""
        self.note(error, "a container couldn't be made")
        if begun_in == self._round:
            self._round += 1
            self._in_a_row += 1
            self._not_before = trio.current_time() + self._backoff.seconds(self._in_a_row)
        patient = self._in_a_row < PATIENCE and not isinstance(error, DeadlineExpired)
        if not patient:
            self._tell_all(error)  # takers wait only while there is nothing for them

    def note(self, error: Failure, what: str) -> None:
        """Log a failure and keep it; a forked child has nothing to say of its parent's pool."""
        if forked():
            return
        logger.warning("pool: %s: %s", what, error)
        self.failures.append(error)
        self.failed += 1

    # ---- handing out --------------------------------------------------------------------

    def _offer(self, entry: Entry) -> None:
        """Give an entry to whoever has waited the longest, or put it into stock."""
        if self._closed or not entry.alive():
            self._lose(entry)
        elif self._takers:
            taker = self._takers.popleft()
            taker.entry = entry
            taker.served.set()
        else:
            self._ready.append(entry)
            entry.watch(self._died)
            if len(self._ready) >= self._size:
                while self._watchers:
                    self._watchers.popleft().served.set()

    def _died(self, entry: Entry, status: ExitStatus) -> None:
        """One was ended while it waited: nobody shall get it."""
        if entry in self._ready:
            self._ready.remove(entry)
            self._lose(entry)

    def _lose(self, entry: Entry) -> None:
        self.discard(entry)
        if not self._closed:
            lost = ShimExited("it was ended while it waited", container=entry.box.id)
            self._note_failure(lost, entry.made_in)

    async def get(self) -> Entry:
        """Return one that waits, or wait for one, first come, first served.

        Raises:
            SupervisorError, OSError: none can be made just now.
            trio.ClosedResourceError: the pool was closed.

        Cancellation: nothing was taken.
        """
        if self._closed:
            raise trio.ClosedResourceError("the pool is closed")
        while self._ready:
            entry = self._ready.popleft()
            entry.unwatch()
            if entry.alive():
                return entry
            self._lose(entry)
        served: Entry = await self._wait_in(self._takers)
        return served

    async def _wait_in(self, queue: deque[_Taker]) -> Any:
        """Wait until served: a taker with the entry, a watcher with None."""
        taker = _Taker()
        queue.append(taker)
        try:
            await taker.served.wait()
        except BaseException:
            # A cancellation that was delivered runs in Trio's next batch only: until then it may
            # have been served.
            if taker in queue:
                queue.remove(taker)
            elif taker.entry is not None:
                self._offer(taker.entry)
            raise
        if taker.error is not None:
            raise taker.error.with_traceback(None)
        if self._closed and taker.entry is None:
            raise trio.ClosedResourceError("the pool was closed")
        return taker.entry

    def settle(self) -> None:
        """Take note that one was started: whatever failed before is over."""
        self._in_a_row = 0
        self._changed.set()

    async def wait_full(self) -> None:
        """Return when all of the stock is there.

        Raises: as `get`.
        """
        if self._closed:
            raise trio.ClosedResourceError("the pool is closed")
        if len(self._ready) < self._size:
            await self._wait_in(self._watchers)
        else:
            await trio.lowlevel.checkpoint()

    def _tell_all(self, error: Failure | None) -> None:
        for queue in (self._takers, self._watchers):
            while queue:
                taker = queue.popleft()
                taker.error = error
                taker.served.set()

    # ---- deleting -----------------------------------------------------------------------

    def discard(self, entry: Entry) -> None:
        """Delete an entry in the background."""
        self.deleting += 1
        self._nursery.start_soon(self._delete, entry, name=f"{entry.box.id}: delete")

    async def _delete(self, entry: Entry) -> None:
        witness.set(None)  # its time is nobody's
        try:
            with within(math.inf, shield=True):  # both have deadlines of their own
                async with self._deletes:
                    await entry.delete()
        except (SupervisorError, OSError) as error:
            self.note(error, "a container couldn't be deleted")
        finally:
            self.deleting -= 1
            self._changed.set()

    def close(self) -> None:
        """Make no more, tell those who wait, and delete what is left in the background."""
        self._closed = True
        self._tell_all(None)
        while self._ready:
            self.discard(self._ready.popleft())
