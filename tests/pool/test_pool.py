"""A pool of containers: how many are ready, what fails, what dies, and what is left at the end."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import (
    Backoff,
    Container,
    ContainerPool,
    CreateTimeout,
    Deadlines,
    InfrastructureError,
    RuntimeFailed,
    ShimExited,
    State,
    Supervisor,
)
from supervisor.observers import Observation, Point
from supervisor.pool._stock import PATIENCE
from tests.conftest import MakeBundle, OpenSupervisor
from tests.pool.stocks import OpenPool, pid_of, settled, until
from tests.support.containers import state_of
from tests.support.leaks import wait_for
from tests.support.runtimes import fake

pytestmark = pytest.mark.runtimes("runc", "crun")


QUICK = Backoff(first=0.01, longest=0.02)


def supervised(pool: ContainerPool) -> dict[str, Container]:
    """Return the containers of a pool's supervisor."""
    assert pool._supervisor is not None
    return dict(pool._supervisor)


def waiting(pool: ContainerPool) -> list[Container]:
    """Return those that wait to be taken."""
    return [box for box in supervised(pool).values() if box.state is State.CREATED]


@pytest.mark.runtimes("fake")
async def test_it_keeps_as_many_ready_as_it_was_told(pool: OpenPool) -> None:
    """A pool never has more than ``size`` containers waiting or being made, whatever is taken; each
    is labelled."""
    async with pool("sleep", "600", size=3) as opened:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                told = opened.statistics()
                most = max(most, told.ready + told.creating)
                assert len(supervised(opened)) <= 3 + told.taken + told.deleting
                await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await settled(opened)
            assert opened.statistics().ready == len(waiting(opened)) == 3
            async with opened.take(), opened.take() as box:
                assert set(box.labels) == {"supervisor.pool"}
                await settled(opened)
                assert (opened.statistics().taken, len(supervised(opened))) == (2, 5)
            await settled(opened)
            assert len(supervised(opened)) == 3
            nursery.cancel_scope.cancel()
        assert most == 3
        assert repr(opened).endswith("3 ready>")


@pytest.mark.runtimes("fake")
async def test_deletes_that_lag_hold_up_the_creates(pool: OpenPool, workdir: Path) -> None:
    """Deletes that lag hold up the creates: nothing piles up behind a runtime that deletes
    slowly."""
    slow = workdir / "slow"
    slow.touch()
    runtime = fake(f"hang-delete-while:{slow}")
    async with pool(size=2, sup={"runtime": runtime}) as opened:
        for number in range(5):
            await opened.run()
            assert opened.statistics().deleting == number + 1
        await wait_all_tasks_blocked(0.05)
        told = opened.statistics()
        assert (told.created, told.creating, told.ready) == (5, 0, 0)
        slow.unlink()
        await opened.run()


@pytest.mark.runtimes("fake")
async def test_a_runtime_that_fails(
    pool: OpenPool, workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A runtime's failure is logged, kept in ``failures``, and raised to the taker; when the
    runtime works again, so does the pool."""
    broken = workdir / "broken"
    broken.touch()
    runtime = fake(f"fail-create-while:{broken}")
    caplog.set_level(logging.WARNING, logger="supervisor")
    async with pool(size=2, sup={"runtime": runtime}, backoff=QUICK) as opened:
        with pytest.raises(RuntimeFailed, match="create"):
            await opened.run()
        assert opened.statistics().failed >= PATIENCE
        assert all(isinstance(error, RuntimeFailed) for error in opened.failures)
        assert not supervised(opened)
        broken.unlink()
        await settled(opened)
        await opened.run()
    assert "pool: a container couldn't be made" in caplog.text
    caplog.clear()


@pytest.mark.runtimes("fake")
async def test_a_create_that_hangs(pool: OpenPool) -> None:
    """CreateTimeout reaches the taker unchanged: an InfrastructureError."""
    sup = {"runtime": fake("hang-create"), "deadlines": Deadlines(create=0.3)}
    async with pool(size=1, sup=sup) as opened:
        with pytest.raises(InfrastructureError) as caught:
            await opened.run()
        assert type(caught.value) is CreateTimeout


@pytest.mark.runtimes("fake")
async def test_a_start_that_fails(pool: OpenPool, workdir: Path) -> None:
    """A failed start is repeated with another container, and the third failure is raised."""
    broken = workdir / "broken"
    async with pool(
        size=2, sup={"runtime": fake(f"fail-start-once:{broken}", "fail-start-while:/x")}
    ) as opened:
        broken.touch()
        assert (await opened.run()).status.code == 0
        assert [type(error) for error in opened.failures] == [RuntimeFailed]
    always = fake("fail-start")
    async with pool(size=2, sup={"runtime": always}, backoff=QUICK) as opened:
        with pytest.raises(RuntimeFailed, match="start"):
            await opened.run()
        await settled(opened)
        assert len(opened.failures) == PATIENCE


@pytest.mark.parametrize("whom", ["init", "shim"])
async def test_one_that_died_is_replaced(pool: OpenPool, whom: str) -> None:
    """A container that died is never handed out, and another one is made."""
    async with pool(size=2, backoff=QUICK) as opened:
        await settled(opened)
        victims = waiting(opened)
        for box in victims:
            os.kill(pid_of(box, whom), signal.SIGKILL)
        done = await opened.run(["echo", "alive"])  # with no time to notice
        assert done.stdout == b"alive\n"
        await settled(opened)
        assert not {box.id for box in victims} & set(supervised(opened))
        assert all(isinstance(error, ShimExited) for error in opened.failures)
        assert opened.failures


async def test_a_shim_whose_death_is_seen_late(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A shim that was killed while waiting, and seen dead only after the start, costs the taker
    nothing.

    Once the program was killed then, as that of a lost shim, and the taker got that exit status.
    """
    killed = []

    def observe(seen: Observation) -> None:
        if seen is Point.START_RETURNED and not killed:
            box = next(box for box in sup.values() if box.state is State.STARTING)
            killed.append(box.id)
            shim = pid_of(box, "shim")
            os.kill(shim, signal.SIGKILL)
            wait_for(lambda: state_of(shim) in ("Z", ""), "the end of a shim")

    with trio.fail_after(60):
        async with supervisor(_observer=observe) as sup:
            async with ContainerPool(bundle("true"), supervisor=sup, size=2) as pool:
                done = await pool.run(["sh", "-c", "sleep 0.3; echo alive"])
                assert done.stdout == b"alive\n"
                assert [error.container for error in pool.failures] == killed  # type: ignore[union-attr]


async def test_they_that_die_do_not_use_up_the_patience(pool: OpenPool) -> None:
    """Several containers that were killed at once count as one failure: the next taker just
    waits."""
    async with pool(size=4, backoff=QUICK) as opened:
        await settled(opened)
        for box in waiting(opened):
            box.kill()
        await until(lambda: opened.statistics().failed == 4)
        await settled(opened)
        await opened.run()


@pytest.mark.runtimes("fake", "crun")
async def test_nothing_is_left_at_the_end(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """At the end all containers of the pool are gone, ready, taken or being made, and the
    supervisor has its others still."""
    async with supervisor(root) as sup, await sup.create("other", bundle("sleep", "600")):
        with trio.fail_after(60):
            async with ContainerPool(bundle("sleep", "600"), supervisor=sup, size=3) as pool:
                await pool.wait_full()
                taken = pool.take()
                await taken.__aenter__()
            assert list(sup) == ["other"]
            assert left(root) == ["other"]
            with pytest.raises(trio.ClosedResourceError):
                await pool.run()
            await taken.__aexit__(None, None, None)
            with pytest.raises(trio.ClosedResourceError):
                await pool.wait_full()


def left(root: Path) -> list[str]:
    """Return the containers' directories in a root."""
    return [path.name for path in root.iterdir() if path.name != ".runtime"]


class Oops(Exception):
    pass


@pytest.mark.runtimes("fake")
async def test_what_the_blocks_raise(pool: OpenPool) -> None:
    """An error of the pool's block, or of the taker's, comes out unchanged, fed or not."""
    with pytest.raises(Oops):
        async with pool("sleep", "600", size=1) as opened:
            for content in (b"", bytes(1 << 20)):
                with pytest.raises(Oops):
                    async with opened.take(stdin=content):
                        raise Oops
            raise Oops


@pytest.mark.runtimes("fake")
async def test_who_still_waits_at_the_end(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A taker that still waits outside the block at the end gets the error that the pool was
    closed."""

    async def taker() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await pool.run()

    with trio.fail_after(60):
        async with supervisor(runtime=fake("hang-create")) as sup, trio.open_nursery() as nursery:
            async with ContainerPool(bundle("true"), supervisor=sup) as pool:
                nursery.start_soon(taker)
                await until(lambda: pool.statistics().waiting)


@pytest.mark.runtimes("fake")
async def test_a_delete_that_fails(pool: OpenPool, workdir: Path) -> None:
    """A failed delete is kept in ``failures``, the container is listed as broken, and the pool goes
    on."""
    stuck = workdir / "stuck"
    sup = {
        "runtime": fake(f"hang-delete-while:{stuck}"),
        "deadlines": Deadlines(cleanup=0.4, call=0.2),
    }
    async with pool(size=1, sup=sup) as opened:
        await settled(opened)
        stuck.touch()
        await opened.run()
        await until(lambda: opened.failures)
        owner: Supervisor = opened._supervisor  # type: ignore[assignment]
        assert len(owner.broken) == 1
        stuck.unlink()
        await settled(opened)
        await opened.run()
