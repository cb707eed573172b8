"""Cancel a taker after its n-th checkpoint, for every n until it completes uncancelled."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest
import trio

from supervisor import ContainerPool, State, Supervisor
from tests.conftest import MakeBundle, OpenSupervisor
from tests.pool.stocks import SECONDS, settled
from tests.support.cancelling import cancelled_after

pytestmark = [pytest.mark.runtimes("crun"), pytest.mark.timeout(200)]

CONTENT = bytes(200_000)
FILES = {"/tmp/ts-pool-file": CONTENT}
TOO_MANY = 600


def unused(sup: Supervisor) -> set[str]:
    return {id for id, box in sup.items() if box.state is State.CREATED}


async def for_some_checkpoints(attempt: Callable[[int], Awaitable[bool]], *, stride: int) -> int:
    """Call ``attempt(n)`` for growing n until nothing was cancelled; return the number of cancelled
    calls."""
    for cancelled, steps in enumerate(range(1, TOO_MANY, stride)):
        if not await attempt(steps):
            return cancelled
    raise AssertionError("it has no end")


@pytest.mark.parametrize("content", [b"", CONTENT], ids=["little", "much"])
async def test_a_taker_that_is_cancelled(
    supervisor: OpenSupervisor, bundle: MakeBundle, content: bytes
) -> None:
    """Wherever a taker is cancelled, its container is deleted, and the stock is full again."""
    async with (
        supervisor() as sup,
        ContainerPool(bundle("true"), supervisor=sup, size=1) as pool,
    ):

        async def errand() -> None:
            await pool.run(["cat"], stdin=content, files=FILES if content else None)

        async def attempt(steps: int) -> bool:
            with trio.fail_after(SECONDS):
                await settled(pool)
                before = unused(sup)
                cancelled = await cancelled_after(steps, errand)
                await settled(pool)
                assert set(sup) == unused(sup)
                assert len(sup) == 1
                assert (pool.statistics().taken, pool.statistics().failed) == (0, 0)
                # Either the container was never taken, or it is gone: no container is handed out
                # twice.
                kept = before & set(sup)
                assert not kept or pool.statistics().ready == 1
            return cancelled

        assert await for_some_checkpoints(attempt, stride=7 if content else 2) > 5
        assert (await pool.run(["echo", "x"])).stdout == b"x\n"


@pytest.mark.runtimes("fake")
async def test_a_taker_who_waits_and_is_cancelled(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A cancelled taker that waits while containers are still being made leaves its container to
    the next taker."""
    async with supervisor() as sup:

        async def attempt(steps: int) -> bool:
            with trio.fail_after(SECONDS):
                async with ContainerPool(bundle("true"), supervisor=sup, size=1) as pool:
                    cancelled = await cancelled_after(steps, pool.run)
                    assert (await pool.run(["echo", "x"])).stdout == b"x\n"
                assert not list(sup)
                assert not sup.broken
            return cancelled

        assert await for_some_checkpoints(attempt, stride=13) > 3


@pytest.mark.runtimes("runc", "crun", "fake")
async def test_a_storm_of_takers_with_time_outs(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A taker whose time-out came in the very turn in which it was served just gives up: once it
    raised ValueError, which tore down its nursery, and its container was lost. The same held for a
    taker that waited for a full pool."""
    rng = random.Random(12)
    served = 0

    async def take(pool: ContainerPool, seconds: float) -> None:
        nonlocal served
        with trio.move_on_after(seconds):
            async with pool.take(["true"]):
                served += 1

    async def wait_full(pool: ContainerPool, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await pool.wait_full()

    async with (
        supervisor() as sup,
        ContainerPool(bundle("true"), supervisor=sup, size=2) as pool,
    ):
        with trio.fail_after(SECONDS):
            await pool.wait_full()
            async with trio.open_nursery() as nursery:
                for _ in range(60):
                    nursery.start_soon(take, pool, rng.uniform(0.0, 0.6))
                    nursery.start_soon(wait_full, pool, rng.uniform(0.0, 0.6))
                nursery.start_soon(take, pool, SECONDS)  # is served by a busy machine, too
            await settled(pool)
            assert served
            assert set(sup) == unused(sup) and len(sup) == 2
            assert (pool.statistics().taken, pool.statistics().waiting) == (0, 0)


async def test_a_pool_that_is_cancelled(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Whatever a cancelled pool was doing, none of its containers is left."""
    async with supervisor() as sup:

        async def use() -> None:
            async with ContainerPool(bundle("true"), supervisor=sup, size=2) as pool:
                await pool.run()
                async with pool.take(["sleep", "600"]):
                    await pool.wait_full()

        async def attempt(steps: int) -> bool:
            with trio.fail_after(SECONDS):
                cancelled = await cancelled_after(steps, use)
                assert not list(sup)
                assert not sup.broken
            return cancelled

        assert await for_some_checkpoints(attempt, stride=29) > 3
