"""A process's reported state is true at once, though its task hasn't run since the process
ended."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from pathlib import Path

import pytest
import trio

from supervisor import (
    PIPE,
    Container,
    IllegalTransition,
    Process,
    ProcessEnded,
    ProgramNotFound,
    RuntimeFailed,
    State,
)
from supervisor.state import read_exit_status
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.leaks import wait_for

pytestmark = [pytest.mark.runtimes("runc", "crun", "fake"), pytest.mark.rootless]

SECONDS = 30


def end(process: Process, number: int = signal.SIGKILL) -> None:
    """Kill the process behind the supervisor's back, and block until the shim has recorded the exit
    status."""
    assert process.pid is not None
    os.kill(process.pid, number)
    recorded = process._task.layout.exit_status
    wait_for(lambda: read_exit_status(recorded) is not None, "the record")


def end_unrecorded(process: Process) -> None:
    """Kill the process, and block only until it has ended."""
    assert process.pid is not None
    pidfd = os.pidfd_open(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(SECONDS * 1000)
    os.close(pidfd)


async def running(box: Container) -> Container:
    await box.start()
    return box


async def test_of_an_init(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """An init's state and status are true before the loop turns: once the state was *running*, the
    status None, and a signal was lost."""
    async with supervisor() as sup:
        box = await running(await sup.create("a", bundle("sleep", "60")))
        assert (box.returncode, box.state) == (None, State.RUNNING)
        end(box.init)
        assert (box.returncode, box.init.returncode, box.state) == (-9, -9, State.STOPPED)
        assert box.status is box.init.status
        with pytest.raises(ProcessEnded):
            box.send_signal(signal.SIGTERM)
        with pytest.raises(ProcessEnded):
            box.kill()
        assert (await box.wait()) is box.status
        assert [change.state for change in box.history][-1] is State.STOPPED


async def test_of_an_exec(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """The same holds for any process."""
    async with supervisor() as sup:
        box = await running(await sup.create("a", bundle("sleep", "60")))
        process = await box.exec(["sleep", "60"])
        assert process.returncode is None
        end(process)
        with pytest.raises(ProcessEnded):
            process.terminate()
        assert (process.returncode, box.returncode) == (-9, None)
        assert int(await process.wait()) == 137


async def test_before_it_is_recorded(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A signal that can't arrive raises, and the shim gets a moment to record the exit status."""
    async with supervisor() as sup:
        for n in range(5):
            box = await running(await sup.create(f"a{n}", bundle("sleep", "60")))
            end_unrecorded(box.init)
            with pytest.raises(ProcessEnded):
                box.send_signal(signal.SIGTERM)
            assert box.returncode in (-9, None)
            assert (await box.wait()).signal is signal.SIGKILL


async def test_a_shim_that_is_stopped_is_waited_for_once(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """Repeated questions about a process whose shim is stopped wait only once."""
    async with supervisor() as sup:
        box = await running(await sup.create("a", bundle("sleep", "60")))
        assert (
            box.init._task.handles.shim is not None and box.init._task.handles.shim.pid is not None
        )
        os.kill(box.init._task.handles.shim.pid, signal.SIGSTOP)
        end_unrecorded(box.init)
        assert box.returncode is None
        before = time.monotonic()
        for _ in range(100):
            assert box.returncode is None
        assert time.monotonic() - before < 0.5
        with pytest.raises(ProcessEnded):
            box.send_signal(signal.SIGTERM)
        os.kill(box.init._task.handles.shim.pid, signal.SIGCONT)
        assert (await box.wait()).signal is signal.SIGKILL


async def test_what_it_allows(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """The next operation goes by the truth: no exec in a container that has ended, and a plain
    delete."""
    async with supervisor() as sup:
        box = await running(await sup.create("a", bundle("sleep", "60")))
        end(box.init)
        with pytest.raises(IllegalTransition):
            await box.exec(["true"])
        box = await running(await sup.create("b", bundle("sleep", "60")))
        end(box.init)
        assert not (await box.stop()).escalated
        box = await running(await sup.create("c", bundle("sleep", "60")))
        end(box.init)
        await box.delete()


async def test_of_an_onlooker(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """An onlooker sees the end as soon as the owner, and leaves the settling to the owner."""
    async with supervisor(root) as one, supervisor(root) as two:
        box = await running(await one.create("a", bundle("sleep", "60")))
        await two.adopt()
        other = two["a"]
        end(box.init)
        assert (other.returncode, other.state) == (-9, State.STOPPED)
        assert not (root / "a/init/result.json").exists()
        assert box.returncode == -9
        assert (root / "a/init/result.json").exists()
        await box.delete()


async def test_from_another_thread(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A question from another thread settles nothing: otherwise tasks of another thread's loop
    would be woken."""
    async with supervisor() as sup:
        box = await running(await sup.create("a", bundle("sleep", "60")))
        end(box.init)
        seen: list[object] = []
        thread = threading.Thread(target=lambda: seen.append(box.returncode))
        thread.start()
        thread.join()
        assert seen == [None]
        assert box.returncode == -9


async def test_while_it_is_made(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A process that is being made has no task yet and hasn't ended; a look meanwhile harms
    nothing."""
    async with supervisor() as sup:
        box = await running(await sup.create("a", bundle("sleep", "60")))
        done = trio.Event()
        seen = set()

        async def look() -> None:
            while not done.is_set():
                seen.update((id, one.returncode) for id, one in box.processes.items())
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look)
            for n in range(5):
                assert (await box.run(["true"], id=f"e{n}")).returncode == 0
            done.set()
        assert {code for _, code in seen} <= {None, 0}
        assert ("e0", None) in seen


async def test_somebody_elses_kill_is_an_escalation(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A stop whose program another kill ended, here or by another supervisor, counts as escalated;
    once it didn't."""
    spec = bundle("sh", "-c", "trap '' TERM; echo; while :; do sleep 0.05; done")
    async with supervisor(root) as one, supervisor(root) as two:
        for id in ("a", "b", "c"):
            box = await one.create(id, spec, stdout=PIPE)
            await box.start()
            assert box.stdout is not None
            await box.stdout.receive_some()
            await two.adopt()
            told = []

            async def stop(box: Container, grace: float, told: list[bool] = told) -> None:
                told.append((await box.stop(grace)).escalated)

            with trio.fail_after(SECONDS):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stop, box, SECONDS)
                    if id == "a":
                        nursery.start_soon(stop, box, 0.1)
                    elif id == "b":
                        nursery.start_soon(stop, two[id], 0.1)
                    else:
                        await trio.sleep(0.1)
                        box.kill()
            assert set(told) == {True}
            assert not (await box.stop()).escalated  # the process had ended
            await box.delete()


@pytest.mark.parametrize("how", ["killed", "ends"])
async def test_an_exec_in_one_that_ends(
    supervisor: OpenSupervisor, bundle: MakeBundle, how: str, pytestconfig: pytest.Config
) -> None:
    """An exec in a container that ends raises one error: runtimes word it in five ways, and it was
    once RuntimeFailed."""
    went: list[str] = []

    async def run(box: Container) -> None:
        try:
            await box.run(["true"], check=False)
        except (IllegalTransition, ProgramNotFound, RuntimeFailed) as error:
            went.append(type(error).__name__)
            assert error.container == box.id

    async with supervisor() as sup:
        for number in range(0, 15, 1 if pytestconfig.getoption("--long") else 2):
            delay = number * 0.002
            spec = bundle("sleep", "60") if how == "killed" else bundle("sh", "-c", "read line")
            box = await sup.create(f"at-once-{number}", spec, stdin=PIPE)
            async with box, trio.open_nursery() as nursery:
                await box.start()
                assert box.stdin is not None
                nursery.start_soon(run, box)
                await trio.sleep(delay)
                await box.stdin.aclose() if how == "ends" else box.kill()
            await box.stdin.aclose()
    assert set(went) == {"IllegalTransition"}
