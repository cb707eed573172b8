"""A pool's stock: makes containers ahead of time, hands them out in order, replaces them."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from ..observers import witness
from ..tasks import forked, protected, within
from ..values import Backoff, DeadlineExpired, ExitStatus, ShimExited, SupervisorError
from ._entry import Entry

logger: Final = logging.getLogger("supervisor")

PATIENCE: Final = 3
"""How many attempts in a row may fail before the waiting takers get the error."""

_KEPT_FAILURES: Final = 16

Failure = SupervisorError | OSError


@attrs.define(eq=False)
class _Taker:
    """A taker that waits for an entry, or a watcher that waits for a full stock."""

    served: trio.Event = attrs.field(factory=trio.Event)
    entry: Entry | None = None
    error: Failure | None = None


@protected
class Stock:
    """The entries that wait for a taker, and the takers that wait for an entry.

    Attributes:
        failures: the last errors of creates and deletes, the newest last.
        failed: how many errors there were so far.
        creating: how many entries are being made.
        deleting: how many entries are being deleted.
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
        """How many entries wait to be taken."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """How many takers wait."""
        return len(self._takers)

    # ---- making -------------------------------------------------------------------------

    async def fill(self) -> None:
        """Make the entries that are missing, for ever.

        Cancellation: a create that is running is undone.
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
        """Whether more entries are needed. Slow deletes delay creates, or deletes would pile up."""
        made = len(self._ready) + self.creating
        return made < self._size and made + self.deleting < 2 * self._size

    def _lacks_one(self) -> bool:
        """Whether to make one more entry now. After a failure only one create runs at a time."""
        if self._in_a_row and (self.creating or trio.current_time() < self._not_before):
            return False
        return self._is_short() and not self._closed and not forked()

    async def _make_one(self) -> None:
        witness.set(None)  # the pool's maker, or an earlier taker, must not see this create
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
        """Count a failed create. Creates already running when one fails count as that failure."""
        self.note(error, "a container couldn't be made")
        if begun_in == self._round:
            self._round += 1
            self._in_a_row += 1
            self._not_before = trio.current_time() + self._backoff.seconds(self._in_a_row)
        patient = self._in_a_row < PATIENCE and not isinstance(error, DeadlineExpired)
        if not patient:
            self._tell_all(error)  # all takers that wait: while a taker waits, the stock is empty

    def note(self, error: Failure, what: str) -> None:
        """Log a failure and keep the error; a forked child reports nothing of the parent's pool."""
        if forked():
            return
        logger.warning("pool: %s: %s", what, error)
        self.failures.append(error)
        self.failed += 1

    # ---- handing out --------------------------------------------------------------------

    def _offer(self, entry: Entry) -> None:
        """Give an entry to the taker that has waited longest, or keep the entry in stock."""
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
        """Drop an entry whose container died while it waited."""
        if entry in self._ready:
            self._ready.remove(entry)
            self._lose(entry)

    def _lose(self, entry: Entry) -> None:
        self.discard(entry)
        if not self._closed:
            lost = ShimExited("the container died while it waited", container=entry.box.id)
            self._note_failure(lost, entry.made_in)

    async def get(self) -> Entry:
        """Return an entry, or wait for one: first come, first served.

        Raises:
            SupervisorError, OSError: no entry can be made just now.
            trio.ClosedResourceError: the pool was closed.

        Cancellation: no entry is taken.
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
        """Wait until served; return the entry to a taker, None to a watcher."""
        taker = _Taker()
        queue.append(taker)
        try:
            await taker.served.wait()
        except BaseException:
            # Trio runs a cancelled task only in the next batch: until then the taker may have
            # been served.
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
        """Note that an entry was started: the earlier failures count no more."""
        self._in_a_row = 0
        self._changed.set()

    async def wait_full(self) -> None:
        """Return when the stock is full.

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
        witness.set(None)  # no caller's witness sees this delete
        try:
            with within(math.inf, shield=True):  # the delete has a deadline; so have those ahead
                async with self._deletes:
                    await entry.delete()
        except (SupervisorError, OSError) as error:
            self.note(error, "a container couldn't be deleted")
        finally:
            self.deleting -= 1
            self._changed.set()

    def close(self) -> None:
        """Make no more entries, wake all takers, and delete the rest in the background."""
        self._closed = True
        self._tell_all(None)
        while self._ready:
            self.discard(self._ready.popleft())
