"""Operations that a container's state doesn't admit: refused, with advice, and nothing changes."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from supervisor import (
    Container,
    IllegalTransition,
    ProcessEnded,
    State,
    SupervisorError,
    UsageError,
)
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import hurried, until
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")

Operation = Callable[[Container, Path], Awaitable[object]]

operations: dict[str, Operation] = {
    "start": lambda box, path: box.start(),
    "exec": lambda box, path: box.exec(["true"], id="job"),
    "checkpoint": lambda box, path: box.checkpoint(path / "image"),
    "delete": lambda box, path: box.delete(),
}

illegal = [
    (State.CREATED, "exec", "start the container first"),
    (State.CREATED, "checkpoint", "created"),
    (State.RUNNING, "start", "the container runs already"),
    (State.RUNNING, "delete", "stop the container first, or use delete(force=True)"),
    (State.STOPPED, "start", "delete the container and create a new one"),
    (State.STOPPED, "exec", "the init has ended"),
    (State.STOPPED, "checkpoint", "stopped"),
    (State.DELETED, "start", "deleted"),
    (State.DELETED, "exec", "deleted"),
    (State.DELETED, "checkpoint", "deleted"),
]


async def _bring(box: Container, state: State) -> None:
    if state is not State.CREATED:
        await box.start()
    if state in (State.STOPPED, State.DELETED):
        await box.stop(grace=0)
    if state is State.DELETED:
        await box.delete()
    assert box.state is state


@pytest.mark.parametrize("state", sorted({state for state, _, _ in illegal}, key=str))
@pytest.mark.runtimes("fake", "runc", "crun")
async def test_illegal(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, workdir: Path, state: State
) -> None:
    """Each operation that the state doesn't admit is refused; state, files and process stay."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await _bring(box, state)
        files = sorted(root.rglob("*"))
        ended = box.status
        for at, name, advice in illegal:
            if at is not state:
                continue
            with pytest.raises(IllegalTransition) as caught:
                await operations[name](box, workdir)
            assert (caught.value.state, caught.value.container) == (state.value, "a")
            assert caught.value.event == name and isinstance(caught.value, UsageError)
            assert advice in str(caught.value), str(caught.value)
            assert box.state is state and box.status is ended
            assert sorted(root.rglob("*")) == files
        assert not (workdir / "image").exists()
        if state is State.CREATED:
            await box.start()
        if state in (State.CREATED, State.RUNNING):
            job = await box.exec(["true"])
            assert (await job.wait()).code == 0


async def test_while_starting(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path
) -> None:
    """A container that is being started can't be started, entered or deleted, but can be
    stopped."""
    gate = workdir / "gate"
    gate.touch()
    runtime = choice.runtime(f"hang-start-while:{gate}")
    async with (
        supervisor(runtime=runtime) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.start)
            await trio.testing.wait_all_tasks_blocked()
            starting = a.state
            assert starting is State.STARTING
            for name in ("start", "exec", "delete", "checkpoint"):
                with pytest.raises(IllegalTransition):
                    await operations[name](a, workdir)
                assert a.state is starting
            gate.unlink()
        assert str(a.state) == str(State.RUNNING)
        await a.stop(grace=0)


async def test_deleted_while_starting(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """A delete by force ends a start that hangs; the start raises that no program was started."""
    runtime = choice.runtime("hang-start")
    async with supervisor(root, runtime=runtime) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:

                async def start() -> None:
                    with pytest.raises(IllegalTransition, match=r"in state delet(ing|ed)"):
                        await a.start()

                nursery.start_soon(start)
                await trio.testing.wait_all_tasks_blocked()
                with hurried(a, shim=0.1):
                    await a.delete(force=True)
        assert a.state is State.DELETED and not (root / "a").exists()


@pytest.mark.runtimes("fake", "runc", "crun")
async def test_repeated(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """Stops and deletes may be repeated, in any order that makes sense, and one at a time."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        first = await a.stop(grace=0)
        for _ in range(2):
            again = await a.stop()
            assert (again.escalated, again.status) == (False, first.status)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(a.delete)
        await a.delete(force=True)
        assert (await a.stop()).status is first.status
        assert (a.state, len(sup)) == (State.DELETED, 0)


@pytest.mark.runtimes("fake", "runc", "crun")
async def test_signals_after_the_end(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Every signal after the end is refused as for a missing process, init or exec."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        job = await a.exec(["true"])
        await job.wait()
        for end in (job.terminate, job.kill, lambda: job.send_signal(signal.SIGUSR1)):
            with pytest.raises(ProcessEnded) as caught:
                end()
            assert isinstance(caught.value, ProcessLookupError)
            assert caught.value.container == "a"
        assert a.state is State.RUNNING
        a.kill()
        await a.wait()
        box = (a.terminate, a.kill, lambda: a.send_signal(signal.SIGUSR1))
        init = (a.init.terminate, a.init.kill, lambda: a.init.send_signal(signal.SIGUSR1))
        for end in (*box, *init):
            with pytest.raises(ProcessEnded):
                end()
        await trio.lowlevel.checkpoint()
        assert (await a.stop()).escalated is False


async def test_signal_between_death_and_record(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A signal to a dead process whose death isn't noticed yet is no error, or ProcessEnded."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        a.kill()
        while a.status is None:
            try:
                a.kill()
            except ProcessEnded:
                break
            await trio.lowlevel.checkpoint()
        assert (await a.wait()).signal == signal.SIGKILL


@pytest.mark.parametrize("when", ["", "-before-pid", "-after-pid"])
async def test_deleted_while_it_execs(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path, when: str
) -> None:
    """An exec that is under way is given up, and keeps neither the delete waiting nor a lock."""
    runtime = choice.runtime(f"hang-exec{when}")
    async with supervisor(root, runtime=runtime) as sup, trio.open_nursery() as nursery:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        tasks = trio.lowlevel.current_statistics().tasks_living

        async def run_exec() -> None:
            with pytest.raises(IllegalTransition, match="being deleted"):
                await box.exec(["sleep", "61"], id="job")

        nursery.start_soon(run_exec)
        await until((root / "a/job/exitStatus").exists, "its shim works")
        with trio.fail_after(5):
            await box.delete(force=True)
            await trio.lowlevel.checkpoint()  # the delete is shielded: was it too slow?
            while trio.lowlevel.current_statistics().tasks_living >= tasks:
                await trio.lowlevel.checkpoint()
        assert not list(sup) and not sup.broken


@pytest.mark.runtimes("crun", "runc")
async def test_deleted_at_any_moment_of_an_exec(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """Whichever is quicker, the delete is quick, and no task is left of the exec."""
    spec = bundle("sleep", "60")
    async with supervisor() as sup:
        before = trio.lowlevel.current_statistics().tasks_living
        for moment in range(12):
            box = await sup.create("a", spec)
            await box.start()

            async def run_exec(box: Container = box) -> None:
                with contextlib.suppress(SupervisorError):
                    await box.exec(["true"])

            async with trio.open_nursery() as nursery:
                nursery.start_soon(run_exec)
                await trio.sleep(moment * 0.001)  # that is what is tried: one moment after another
                begin = trio.current_time()
                await box.delete(force=True)
                assert trio.current_time() - begin < 5
        with trio.fail_after(5):
            while trio.lowlevel.current_statistics().tasks_living > before:
                await trio.lowlevel.checkpoint()
