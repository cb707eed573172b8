"""Every async function is a checkpoint, whatever there is to wait for; tasks have names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import assert_checkpoints

from supervisor import LOG, PIPE, ContainerPool, Supervisor
from tests.conftest import MakeBundle, OpenSupervisor

pytestmark = pytest.mark.runtimes("crun", "runc", "fake")


async def _checkpoint_in(call: Callable[[], Awaitable[object]]) -> None:
    with assert_checkpoints():
        await call()


async def test_a_pool(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Entering a pool, waiting for a full one, and leaving ``take`` are checkpoints: once they
    weren't."""
    async with supervisor() as sup:
        pool = ContainerPool(bundle("true"), size=1, supervisor=sup)
        await _checkpoint_in(pool.__aenter__)
        try:
            await pool.wait_full()
            await _checkpoint_in(pool.wait_full)
            with trio.CancelScope() as scope:
                scope.cancel()
                await pool.wait_full()
            assert scope.cancelled_caught
            taking = pool.take()
            with assert_checkpoints():
                await taking.__aenter__()
            await _checkpoint_in(lambda: taking.__aexit__(None, None, None))
        finally:
            await _checkpoint_in(lambda: pool.__aexit__(None, None, None))


async def test_a_pool_that_is_entered_when_cancelled(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A pool that is entered when cancelled makes nothing."""
    async with supervisor() as sup:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with ContainerPool(bundle("true"), supervisor=sup):
                raise AssertionError("it was entered")
        assert scope.cancelled_caught and list(sup) == []


async def test_leaving_take_when_cancelled(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Leaving ``take`` when cancelled gives the container back all the same."""
    async with (
        supervisor() as sup,
        ContainerPool(bundle("true"), size=1, supervisor=sup) as pool,
    ):
        with trio.CancelScope() as scope:
            async with pool.take():
                scope.cancel()
        assert scope.cancelled_caught
        assert pool.statistics().taken == 0


async def test_a_supervisor_that_is_entered_when_cancelled(supervisor: OpenSupervisor) -> None:
    """A supervisor that is entered when cancelled isn't opened: once it was opened, and closed
    again."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async with supervisor():
            raise AssertionError("it was entered")
    assert scope.cancelled_caught


async def test_a_log(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Reading a log is a checkpoint: once a record that was read ahead came without a turn of the
    loop."""
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", "echo a; echo b"), stdout=LOG) as box,
    ):
        await box.start()
        await box.wait()
        async with box.logs() as records:
            for _ in range(2):
                await _checkpoint_in(records.__anext__)


async def test_tasks_are_named(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Tasks are named by what they watch: once a dump of tasks was a row of ``ProcessTask.run``."""
    async with supervisor() as sup:
        box = await sup.create("web", bundle("sleep", "60"), stdin=PIPE)
        await box.start()
        await box.exec(["sleep", "60"], id="job")
        names = _names(sup)
        assert {"web/init", "web/job"} <= names
        assert not any("supervisor._" in name for name in names - {_OURS})


_OURS = "supervisor.tasks._nursery._hold_open"


def _names(sup: Supervisor) -> set[str]:
    return {task.name for task in sup._nursery.child_tasks}
