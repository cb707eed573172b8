"""The containers of a pool that are taken now, and how each is started and given back."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator

import trio

from ..observers import waiting
from ..tasks import protected, undoing, within
from ..values import OCIRuntimeError, ShimExited
from ._entry import Entry, PoolRequest
from ._stock import PATIENCE, Stock


@protected
class Loans:
    """The entries that are taken out of a stock.

    Attributes:
        stock: the stock.
        taken: the entries that takers have.
    """

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self.taken: set[Entry] = set()

    @contextlib.asynccontextmanager
    async def entry(self, wanted: PoolRequest) -> AsyncIterator[Entry]:
        """Lend an entry that runs the program; the end of the block gives the entry back.

        Raises: as `ContainerPool.take`.

        Cancellation: as there.
        """
        entry = await self._started(wanted)
        try:
            yield entry
        finally:
            self._give_back(entry)
        await trio.lowlevel.checkpoint()

    @undoing
    async def _started(self, wanted: PoolRequest) -> Entry:
        """Return an entry that runs the program; an entry that turns out to be dead is replaced."""
        attempt = 0
        while True:
            attempt += 1
            entry = await _next(self.stock)
            self.taken.add(entry)
            try:
                await entry.start(wanted)
            except (ShimExited, OCIRuntimeError) as error:
                self._give_back(entry)
                self.stock.note(error, "a container couldn't be started")
                if attempt == PATIENCE:
                    raise
            except BaseException:
                self._give_back(entry)
                raise
            else:
                self.stock.settle()
                return entry

    def _give_back(self, entry: Entry) -> None:
        if entry in self.taken:  # a pool that closes has taken all entries back already
            self.taken.remove(entry)
            self.stock.discard(entry)

    def end(self) -> None:
        """Take back all entries, because the pool closes."""
        for entry in tuple(self.taken):
            self._give_back(entry)


async def _next(stock: Stock) -> Entry:
    with waiting(), within(math.inf):
        return await stock.get()
    raise AssertionError("only a fork ends this wait, with an error")
