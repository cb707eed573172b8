"""Pools of the tests, and a stock whose entries are made as a test says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import trio

from supervisor import Backoff, Container, ContainerPool
from supervisor.pool._entry import Entry
from supervisor.pool._stock import Stock


@attrs.define(eq=False)
class Made:
    """Stands in for an entry."""

    number: int
    made_in: int = 0

    def alive(self) -> bool:
        return True

    def watch(self, died: object) -> None:
        pass

    def unwatch(self) -> None:
        pass

    async def delete(self) -> None:
        await trio.lowlevel.checkpoint()


class Maker:
    """Makes entries on demand, or fails."""

    def __init__(self) -> None:
        self.send, self._receive = trio.open_memory_channel[Exception | None](100)
        self.begun: list[float] = []

    async def __call__(self) -> Entry:
        self.begun.append(trio.current_time())
        error = await self._receive.receive()
        if error is not None:
            raise error
        return Made(len(self.begun))  # type: ignore[return-value]


def stock_of(
    maker: Maker, nursery: trio.Nursery, *, size: int = 1, backoff: Backoff | None = None
) -> Stock:
    """Return a stock that is being filled."""
    stock = Stock(maker, nursery, size=size, deletes_at_once=2, backoff=backoff or Backoff())
    nursery.start_soon(stock.fill)
    return stock


def pid_of(box: Container, whom: str) -> int:
    """Return the pid of a container's init or of its shim."""
    assert box.pid is not None
    if whom == "init":
        return box.pid
    text = Path(f"/proc/{box.pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[1])


OpenPool = Callable[..., AbstractAsyncContextManager[ContainerPool]]


SECONDS = 60


async def settled(pool: ContainerPool) -> None:
    """Return when the stock is full and nothing happens in the background."""
    await until(lambda: not (pool.statistics().deleting or pool.statistics().creating))
    await pool.wait_full()


async def until(condition: Callable[[], object]) -> None:
    """Return when the condition holds."""
    with trio.fail_after(SECONDS):
        while not condition():
            await trio.sleep(0.002)
