"""Processes without a launch: each call says what happened, to which process, and why."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from supervisor import (
    LOG,
    PIPE,
    Container,
    IllegalTransition,
    LaunchFailed,
    Process,
    ProcessEnded,
    RuntimeFailed,
    SupervisorClosed,
)
from supervisor.observers import Observation, Point
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import until
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")

SIGNALS: tuple[Callable[[Process], object], ...] = (
    lambda process: process.send_signal(15),
    lambda process: process.terminate(),
    lambda process: process.kill(),
    lambda process: process.close_stdin(),
)
ON_A_TERMINAL: tuple[Callable[[Process], object], ...] = (
    lambda process: process.resize(80, 24),
    lambda process: process.hang_up(),
)
READS: tuple[Callable[[Process], object], ...] = (
    lambda process: process.poll(),
    lambda process: process.logs(),
)
WAITS: tuple[Callable[[Process], Awaitable[object]], ...] = (
    lambda process: process.wait(),
    lambda process: process.wait_copied(),
)


class Catcher:
    """An observer that takes the `Process` of the exec ``job`` while that is being launched."""

    def __init__(self) -> None:
        self.box: Container | None = None
        self.caught: list[Process] = []

    def __call__(self, seen: Observation) -> None:
        if seen is Point.LAUNCHED and self.box is not None:
            self.caught.append(self.box.processes["job"])


@contextmanager
def failing(words: str) -> Iterator[None]:
    """Expect `LaunchFailed`, with these words, for the exec ``job``."""
    with pytest.raises(LaunchFailed, match=f"process job never ran: .*{words}") as caught:
        yield
    assert caught.value.container == "a"
    assert isinstance(caught.value, ProcessEnded | ProcessLookupError)


async def test_a_launch_that_failed(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice
) -> None:
    """Each call on an exec whose launch failed says so, and why; a wait once blamed the
    supervisor's close, a poll never ended, and a signal said that the process had ended."""
    catcher = Catcher()
    async with supervisor(runtime=choice.runtime("fail-exec"), _observer=catcher) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as box:
            await box.start()
            catcher.box = box
            for terminal in (False, True):
                streams = {} if terminal else {"stdin": PIPE, "stdout": LOG}
                with pytest.raises(RuntimeFailed) as caught:
                    await box.exec(["true"], id="job", terminal=terminal, **streams)
                job = catcher.caught.pop()
                why = caught.value.reason
                assert why
                for call in (*SIGNALS, *READS, *(ON_A_TERMINAL if terminal else ())):
                    with failing(why):
                        call(job)
                for wait in WAITS:
                    with failing(why):
                        await wait(job)
                if terminal:
                    with failing(why):
                        await job.attach()
                assert (job.status, job.returncode, job.pid) == (None, None, None)
                assert (job.stdin, job.stdout, job.stderr) == (None, None, None)
                assert why in repr(job) and "running" not in repr(job)


async def launch(
    box: Container,
    expected: type[BaseException] | tuple[()] = (),
    *,
    task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Exec ``job``, with an expected error, or until the scope is cancelled."""
    with trio.CancelScope() as scope:
        task_status.started(scope)
        try:
            await box.exec(["true"], id="job", terminal=True)
        except expected:
            return
    assert scope.cancelled_caught


async def test_while_it_is_launched(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """A signal for an exec that is being launched is refused: once it was lost, or said that the
    shim was gone. A cancelled launch is no close of the supervisor."""
    hanging = choice.runtime("hang-exec-before-pid")
    told: list[str] = []

    async def wait(job: Process) -> None:
        with failing("its launch was cancelled"):
            await job.wait()
        told.append("told")

    async with supervisor(root, runtime=hanging) as sup, trio.open_nursery() as nursery:
        async with await sup.create("a", bundle("sleep", "60")) as box:
            await box.start()
            scope = await nursery.start(launch, box)
            await until(lambda: "job" in box.processes, "it is being launched")
            job = box.processes["job"]
            for call in (*SIGNALS, *ON_A_TERMINAL):
                with pytest.raises(IllegalTransition, match="process job is still being") as caught:
                    call(job)
                assert (caught.value.container, caught.value.state) == ("a", "launching")
            with pytest.raises(IllegalTransition, match="process job is still being launched"):
                await job.attach()
            assert job.poll() is None and "being launched" in repr(job)
            nursery.start_soon(wait, job)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await until(lambda: bool(told), "the waiter knows")
            assert "job" not in box.processes


async def test_deleted_while_it_is_launched(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """A wait for an exec that was given up for a delete says that the container is deleted."""
    hanging = choice.runtime("hang-exec-before-pid")
    async with supervisor(root, runtime=hanging) as sup, trio.open_nursery() as nursery:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        nursery.start_soon(launch, box, IllegalTransition)
        await until(lambda: "job" in box.processes, "it is being launched")
        job = box.processes["job"]
        await box.delete(force=True)
        with failing("the container is being deleted"):
            await job.wait()
        with failing("the container is being deleted"):
            job.kill()


async def test_closed_while_it_is_launched(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """Calls on an exec whose launch the supervisor's close has ended say that; a wait raises what a
    wait in a closed supervisor always raises."""
    hanging = choice.runtime("hang-exec-before-pid")
    async with trio.open_nursery() as nursery:
        async with supervisor(root, runtime=hanging) as sup:
            box = await sup.create("a", bundle("sleep", "60"))
            await box.start()
            nursery.start_soon(launch, box, SupervisorClosed)
            await until(lambda: "job" in box.processes, "it is being launched")
            job = box.processes["job"]
        for call in (*SIGNALS, *READS):
            with failing("its supervisor was closed"):
                call(job)
        with pytest.raises(SupervisorClosed, match="job never ran: its supervisor") as caught:
            await job.wait()
        assert caught.value.container == "a"
    async with supervisor(root) as sup:
        await sup["a"].delete(force=True)
