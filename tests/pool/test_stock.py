"""The stock of a pool: bounded, first come first served, replaced, drained; failures are raised."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import (
    Backoff,
    CreateTimeout,
    TooManyFiles,
)
from supervisor.pool._stock import PATIENCE
from tests.pool.stocks import Made, Maker, stock_of

pytestmark = pytest.mark.runtimes("runc", "crun")


# ---- how many -------------------------------------------------------------------------------


async def test_first_come_first_served(autojump_clock: trio.testing.MockClock) -> None:
    """Takers who wait are served in the order of their coming; a cancelled taker is passed over."""
    maker, served = Maker(), []
    scopes = [trio.CancelScope() for _ in range(5)]

    async def taker(number: int) -> None:
        with scopes[number]:
            await stock.get()
            served.append(number)

    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery)
        for number in range(5):
            nursery.start_soon(taker, number)
            await wait_all_tasks_blocked()
        assert stock.waiting == 5
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        for _ in range(4):
            maker.send.send_nowait(None)
            await wait_all_tasks_blocked()
        assert served == [0, 2, 3, 4]
        nursery.cancel_scope.cancel()


async def test_who_was_served_is_served(autojump_clock: trio.testing.MockClock) -> None:
    """A cancellation after an entry was handed over doesn't lose the entry."""
    maker = Maker()
    got = None
    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery)

        async def taker() -> None:
            nonlocal got
            with trio.CancelScope() as scope:
                nursery.start_soon(serve_and_cancel, scope)
                got = await stock.get()

        async def serve_and_cancel(scope: trio.CancelScope) -> None:
            stock._offer(Made(7))  # type: ignore[arg-type]
            scope.cancel()

        await taker()
        assert got is not None
        nursery.cancel_scope.cancel()


# ---- creates that fail ----------------------------------------------------------------------


async def test_creates_that_fail_are_repeated_later_and_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After each failed create one attempt is made alone, after a wait that grows; success ends the
    waits."""
    maker = Maker()
    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery, size=3, backoff=Backoff(first=1, longest=3))
        await wait_all_tasks_blocked()
        assert len(maker.begun) == 3
        for _ in range(3 + 4):  # three at once count as one
            maker.send.send_nowait(OSError("no"))
        await trio.sleep(20)
        assert maker.begun == [0, 0, 0, 1, 3, 6, 9, 12]
        maker.send.send_nowait(None)
        await wait_all_tasks_blocked()
        assert (stock.ready, stock.failed, len(maker.begun)) == (1, 7, 9)
        maker.send.send_nowait(None)
        await stock.get()
        stock.settle()
        await wait_all_tasks_blocked()
        assert len(maker.begun) >= 11  # two at once again
        nursery.cancel_scope.cancel()


async def test_takers_are_told_after_some_failures(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After some failures all waiting takers get the last error, unchanged; a later taker waits for
    the next attempt."""
    maker, told = Maker(), []

    async def taker() -> None:
        with pytest.raises(OSError, match="number") as caught:
            await stock.get()
        told.append((trio.current_time(), str(caught.value)))

    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery, backoff=Backoff(first=1, longest=2))
        nursery.start_soon(taker)
        nursery.start_soon(taker)
        for number in range(PATIENCE):
            maker.send.send_nowait(OSError(f"number {number}"))
        await trio.sleep(4)
        assert told == [(3.0, "number 2")] * 2
        nursery.start_soon(taker)
        maker.send.send_nowait(OSError("number 3"))
        await trio.sleep(2)
        assert told[2:] == [(5.0, "number 3")]
        with pytest.raises(OSError, match="number 4"):
            maker.send.send_nowait(OSError("number 4"))
            await stock.wait_full()
        nursery.cancel_scope.cancel()


async def test_a_create_that_took_too_long_is_told_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A create that took too long is raised to the taker at once, without two more attempts."""
    maker = Maker()
    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery)
        maker.send.send_nowait(CreateTimeout("late", seconds=60))
        with pytest.raises(CreateTimeout):
            await stock.get()
        nursery.cancel_scope.cancel()


async def test_a_full_disk_comes_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    """An error of the machine, as a full disk, isn't wrapped into another."""
    maker = Maker()
    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery)
        error = TooManyFiles("no descriptor left")
        for _ in range(PATIENCE):
            maker.send.send_nowait(error)
        with pytest.raises(TooManyFiles) as caught:
            await stock.get()
        assert caught.value is error
        nursery.cancel_scope.cancel()


# ---- those that die while they wait ----------------------------------------------------------


# ---- the end --------------------------------------------------------------------------------


@attrs.define(eq=False)
class Mortal(Made):
    """An entry that may be dead, and reports that on demand."""

    dead: bool = False
    died: Callable[[Any, Any], None] | None = None
    deleted: bool = False
    box: Any = attrs.field(factory=lambda: SimpleNamespace(id="a"))

    def alive(self) -> bool:
        return not self.dead

    def watch(self, died: Any) -> None:
        self.died = died

    async def delete(self) -> None:
        self.deleted = True


def mortal(**options: Any) -> Any:
    """Return one."""
    return Mortal(1, **options)


async def test_what_died_while_it_was_made(autojump_clock: trio.testing.MockClock) -> None:
    """An entry that died while it was made is never handed out, but deleted, and counted as a
    failure."""
    async with trio.open_nursery() as nursery:
        stock = stock_of(Maker(), nursery)
        dead, alive = mortal(dead=True), mortal()
        stock._offer(dead)
        assert (stock.ready, stock.failed) == (0, 1)
        stock._offer(alive)
        assert await stock.get() is alive
        await wait_all_tasks_blocked()
        assert dead.deleted
        nursery.cancel_scope.cancel()


async def test_what_died_and_was_not_noticed(autojump_clock: trio.testing.MockClock) -> None:
    """A taker doesn't get an entry that died unnoticed, but the next that lives."""
    async with trio.open_nursery() as nursery:
        stock = stock_of(Maker(), nursery, size=2)
        first, second = mortal(), mortal()
        stock._offer(first)
        stock._offer(second)
        first.dead = True
        assert await stock.get() is second
        await wait_all_tasks_blocked()
        assert first.deleted and stock.failed == 1
        nursery.cancel_scope.cancel()


async def test_nothing_is_made_after_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """After the end, waiting entries are deleted and not replaced; an entry that comes then is
    deleted, and no failure."""
    maker = Maker()
    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery)
        maker.send.send_nowait(None)
        await stock.wait_full()
        late, waited = mortal(), mortal()
        stock._ready[0] = waited
        stock.close()
        stock._offer(late)
        await wait_all_tasks_blocked()
        assert (waited.deleted, late.deleted, len(maker.begun)) == (True, True, 1)
        assert (stock.ready, stock.failed) == (0, 0)
        nursery.cancel_scope.cancel()


async def test_one_that_dies_as_it_is_deleted(autojump_clock: trio.testing.MockClock) -> None:
    """An entry that dies while being deleted is no failure, and not reported."""
    async with trio.open_nursery() as nursery:
        stock = stock_of(Maker(), nursery)
        waited = mortal()
        stock._offer(waited)
        assert waited.died is not None
        stock.close()
        waited.died(waited, None)
        assert stock.failed == 0
        nursery.cancel_scope.cancel()


async def test_served_as_the_pool_closes(autojump_clock: trio.testing.MockClock) -> None:
    """A taker that is served as the pool closes gets the entry: no other code would delete the
    entry."""
    got = []
    async with trio.open_nursery() as nursery:
        stock = stock_of(Maker(), nursery)

        async def take() -> None:
            got.append(await stock.get())

        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        handed = mortal()
        stock._offer(handed)
        stock.close()
        await wait_all_tasks_blocked()
        assert got == [handed]
        nursery.cancel_scope.cancel()


async def test_an_error_that_many_are_told(autojump_clock: trio.testing.MockClock) -> None:
    """Of an error that many takers get, each sees only its own traceback."""
    maker = Maker()

    async def ask() -> None:
        with contextlib.suppress(OSError):
            await stock.get()

    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery)
        for _ in range(3):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        for _ in range(PATIENCE):
            maker.send.send_nowait(OSError("no"))
        with pytest.raises(OSError, match="no") as caught:
            await stock.get()
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[1:] == ["get", "_wait_in"]
        nursery.cancel_scope.cancel()
