"""A supervisor, or a pool, in a thread of its own: from sync code, and from any Trio run."""

from __future__ import annotations

import os
import threading

import pytest
import trio

from supervisor import Bundle, InvalidValue, ProcessFailed, Runtime, RuntimeFailed
from supervisor.testing import Fault, FaultyRuntime, SharedPool, SupervisorThread
from tests.support.leaks import wait_for

pytestmark = pytest.mark.runtimes("crun", "fake")


def test_a_sync_test_has_containers(runtime: Runtime) -> None:
    """What it asks for is done in the thread; the end of the block deletes them."""
    bundle = Bundle.from_host(["sleep", "60"])
    with SupervisorThread(runtime=runtime) as thread:
        root = thread.supervisor.root
        box = thread.run_sync(thread.supervisor.create, "a", bundle)
        thread.run_sync(box.start)
        assert box.pid is not None
        os.kill(box.pid, 0)
    assert not os.path.exists(root)
    with pytest.raises(trio.ClosedResourceError):
        thread.run_sync(box.wait)


def test_what_a_function_raises_is_raised(runtime: Runtime) -> None:
    """Its error comes to whoever asked, and the thread goes on."""
    with SharedPool(Bundle.from_host(["true"]), size=1, runtime=runtime) as pool:
        with pytest.raises(ProcessFailed) as failed:
            pool.run_sync(["sh", "-c", "echo oh; exit 3"])
        assert (failed.value.returncode, failed.value.stdout) == (3, b"oh\n")
        assert pool.run_sync(["cat"], stdin=b"on").stdout == b"on"


async def test_a_trio_task_awaits_it(runtime: Runtime) -> None:
    """In Trio there is an async way; the sync one would block all tasks, and is refused."""
    with SharedPool(Bundle.from_host(["true"]), size=1, runtime=runtime) as pool:
        assert (await pool.run(["echo", "hi"])).stdout == b"hi\n"
        with pytest.raises(InvalidValue, match="await run"):
            pool.run_sync(["true"])


async def test_a_cancelled_task_ends_its_program(runtime: Runtime) -> None:
    """The program in the other thread doesn't outlive the wait for it."""
    with SupervisorThread(runtime=runtime) as thread:
        bundle = Bundle.from_host(["sleep", "1000"])
        box = await thread.run(thread.supervisor.create, "a", bundle)
        began, ended = trio.Event(), False
        home = trio.lowlevel.current_trio_token()

        async def stay() -> None:
            nonlocal ended
            try:
                await box.start()
                home.run_sync_soon(began.set)
                await box.wait()
            finally:
                ended = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(thread.run, stay)
            await began.wait()
            nursery.cancel_scope.cancel()
        assert ended


@pytest.mark.runtimes("fake")
def test_a_pool_that_cant_open_says_why(runtime: Runtime) -> None:
    """What its creates raise comes out of the with statement, and nothing is left."""
    faulty = FaultyRuntime(Fault(verb="create", what="fail", value="no way")).runtime
    with pytest.raises(RuntimeFailed, match="no way"):
        with SharedPool(Bundle.from_host(["true"]), size=1, runtime=faulty):
            pytest.fail("it opened")


def test_a_pool_is_closed_while_somebody_waits(runtime: Runtime) -> None:
    """Whoever still waits for a program is told, and doesn't hang."""
    told: list[BaseException] = []
    with SharedPool(Bundle.from_host(["true"]), size=1, runtime=runtime) as pool:

        def wait() -> None:
            try:
                pool.run_sync(["sleep", "1000"])
            except BaseException as error:
                told.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_for(lambda: _taken(pool) == 1, "the program")
    waiting.join(30)
    assert [type(error) for error in told] == [trio.ClosedResourceError]


def test_several_tasks_that_are_cancelled_at_once(runtime: Runtime) -> None:
    """What they raise comes as a group; it was once taken for the function's own error."""

    async def wait_twice() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep_forever)
            waiting.set()

    def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            thread.run_sync(wait_twice)
        told.set()

    waiting, told = threading.Event(), threading.Event()
    with SupervisorThread(runtime=runtime) as thread:
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert waiting.wait(30)
    waiter.join(30)
    assert told.is_set()


def _taken(pool: SharedPool) -> int:
    assert pool._pool is not None
    return pool._pool.statistics().taken
