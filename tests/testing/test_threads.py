"""A supervisor, or a pool, in a thread of its own: from sync code, and from any Trio run."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import AsyncIterator

import pytest
import trio

from supervisor import (
    PIPE,
    Bundle,
    DeadlineExpired,
    GateFailed,
    InvalidValue,
    ProcessFailed,
    Runtime,
    RuntimeFailed,
    Supervisor,
)
from supervisor.testing import SharedPool, SupervisorThread
from supervisor.testing.runtimes import Fault, FaultyRuntime
from tests.support.leaks import wait_for

pytestmark = pytest.mark.runtimes("crun", "fake")


def test_a_sync_test_has_containers(runtime: Runtime) -> None:
    """A sync test's operations run in the thread; the end of the block deletes the containers."""
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
    """The error of a function comes to the caller, and the thread goes on."""
    with SharedPool(Bundle.from_host(["true"]), size=1, runtime=runtime) as pool:
        with pytest.raises(ProcessFailed) as failed:
            pool.run_sync(["sh", "-c", "echo oh; exit 3"])
        assert (failed.value.returncode, failed.value.stdout) == (3, b"oh\n")
        assert pool.run_sync(["cat"], stdin=b"on").stdout == b"on"


async def test_a_trio_task_awaits_it(runtime: Runtime) -> None:
    """In a Trio task the async call works; the sync call would block all tasks, and is refused."""
    with SharedPool(Bundle.from_host(["true"]), size=1, runtime=runtime) as pool:
        assert (await pool.run(["echo", "hi"])).stdout == b"hi\n"
        with pytest.raises(InvalidValue, match="await run"):
            pool.run_sync(["true"])


async def test_a_cancelled_task_ends_its_program(runtime: Runtime) -> None:
    """A cancelled task's program in the other thread doesn't outlive the wait."""
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
    """The error of a pool's creates comes out of the with statement, and nothing is left."""
    faulty = FaultyRuntime(Fault(verb="create", what="fail", value="no way")).runtime
    with pytest.raises(RuntimeFailed, match="no way"):
        with SharedPool(Bundle.from_host(["true"]), size=1, runtime=faulty):
            pytest.fail("it opened")


def test_a_pool_is_closed_while_somebody_waits(runtime: Runtime) -> None:
    """A task that still waits for a program when the pool closes gets an error, and doesn't
    hang."""
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
    """The errors of several cancelled tasks come as a group; once the group was taken for the
    function's own error."""

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


SERVER = ["sh", "-c", "while read line; do echo got $line; done; echo end; exec sleep 1000"]


def test_a_server_for_a_sync_test(runtime: Runtime) -> None:
    """A server for a sync test can be used by its pipes, accepts clients beside it, and ends with
    the block."""
    with SharedPool(Bundle.from_host(["true"]), size=1, runtime=runtime) as pool:
        with pool.take(SERVER, stdin=PIPE) as box:
            assert box.stdin is not None and box.stdout is not None and box.stderr is not None
            for number in (b"1", b"2"):
                assert box.stdin.write(number + b"\n") == 2
                assert box.stdout.readline() == b"got " + number + b"\n"
            box.stdin.close()
            assert box.stdout.read(4) == b"end\n"
            with pytest.raises(ValueError, match="closed"):
                box.stdin.write(b"3\n")
            assert box.run(["echo", "client"]).stdout == b"client\n"
            assert list(box.args) == SERVER
            assert box.status is None and box.pid is not None
            with pytest.raises(DeadlineExpired, match="still runs"):
                box.wait(deadline=0.01)
            box.kill()
            assert box.wait().signal == signal.SIGKILL
            assert box.stdout.read() == box.stderr.read() == b""
        with pool.take(["sleep", "1000"]) as box:
            assert box.stdin is None
            assert box.stop(grace=0).status.signal is not None
        with pool.take(["sleep", "1000"]) as box:
            pid = box.pid
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "the server's end")
        with pool.take(["sh", "-c", "exec <&-; echo; exec sleep 1000"], stdin=PIPE) as box:
            assert box.stdin is not None and box.stdout is not None
            box.stdout.readline()
            with pytest.raises(BrokenPipeError):
                box.stdin.write(b"x" * (1 << 20))


def test_what_goes_wrong_with_a_server(runtime: Runtime) -> None:
    """A server that can't be taken raises the reason; the block's error comes out, and the pool
    goes on."""
    with SharedPool(Bundle.from_host(["true"]), size=1, runtime=runtime) as pool:
        with pytest.raises(GateFailed), pool.take(["/no/such/program"]):
            pytest.fail("it was taken")
        with pytest.raises(InvalidValue, match="cwd"), pool.take(["true"], cwd="x"):
            pytest.fail("it was taken")
        with pytest.raises(ZeroDivisionError), pool.take(["sleep", "1000"]):
            raise ZeroDivisionError
        wait_for(lambda: _taken(pool) == 0, "the end of the block")
        assert pool.run_sync(["cat"], stdin=b"on").stdout == b"on"
        with pytest.raises(trio.ClosedResourceError), pool.take(["sleep", "1000"]) as box:
            pool.__exit__(None, None, None)
    with pytest.raises(trio.ClosedResourceError):
        box.wait()
    with pytest.raises(trio.ClosedResourceError), pool.take():
        pytest.fail("it was taken")


async def test_a_trio_task_takes_no_server(runtime: Runtime) -> None:
    """A Trio task that takes a server gets an error with a remedy: the call would block."""
    with SharedPool(Bundle.from_host(["true"]), size=1, runtime=runtime) as pool:
        with pytest.raises(InvalidValue, match="tasks of this Trio run"), pool.take():
            pytest.fail("it was taken")


def test_what_is_opened_beside_a_supervisor(runtime: Runtime) -> None:
    """``inside`` is entered before the block, and left after the block, with the supervisor still
    open."""
    seen: list[str] = []

    @contextlib.asynccontextmanager
    async def beside(supervisor: Supervisor) -> AsyncIterator[str]:
        seen.append("entered")
        yield "whatever"
        box = await supervisor.create("late", Bundle.from_host(["true"]))
        seen.append(f"left with {box.id}")

    with pytest.raises(InvalidValue, match="inside"):
        SupervisorThread(inside=5, runtime=runtime)  # type: ignore[arg-type]
    with SupervisorThread(inside=beside, runtime=runtime):
        assert seen == ["entered"]
    assert seen == ["entered", "left with late"]


def test_a_context_manager_is_held_open(runtime: Runtime) -> None:
    """The context manager is entered and left in one task of the thread, whatever the block
    does."""
    seen: list[object] = []

    @contextlib.asynccontextmanager
    async def held(name: str) -> AsyncIterator[str]:
        task = trio.lowlevel.current_task()
        try:
            yield name
        finally:
            seen.append(trio.lowlevel.current_task() is task)

    with SupervisorThread(runtime=runtime) as thread:
        with thread.hold_sync(held, "a") as name:
            assert (name, seen) == ("a", [])
        with pytest.raises(ZeroDivisionError), thread.hold_sync(held, "b"):
            raise ZeroDivisionError
        assert seen == [True, True]


def _taken(pool: SharedPool) -> int:
    assert pool._pool is not None
    return pool._pool.statistics().taken
