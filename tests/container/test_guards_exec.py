"""Guards of start and exec that only a rare moment needs, one by one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio

from supervisor import Cause, Container, Process, RuntimeFailed, State
from supervisor.container._core import Core
from supervisor.runtime import ContainerRuntime
from supervisor.system import start_time
from supervisor.values._lifecycle import Event
from supervisor.values._points import Point
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import end, living, shim_of, state_of, until
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")


# ---- start --------------------------------------------------------------------------------


async def test_a_failed_start_whose_end_is_late(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The program ran and has ended, and its shim hasn't said so yet: that is waited for."""
    async with supervisor(root, runtime=choice.runtime("fail-start-after")) as sup:
        async with await sup.create("a", bundle("sh", "-c", "exit 3")) as a:
            shim = shim_of(root / "a/init")
            os.kill(shim, signal.SIGSTOP)

            async def go_on() -> None:
                os.kill(shim, signal.SIGCONT)

            async def stopped(*_: object, **__: object) -> str:
                nursery.start_soon(go_on)
                return "stopped"

            monkeypatch.setattr(ContainerRuntime, "status", stopped)
            async with trio.open_nursery() as nursery:
                await a.start()
            assert a.state is State.STOPPED
            assert (await a.wait()).code == 3


async def test_a_failed_start_whose_end_never_comes(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A runtime that calls it stopped while it waits to be started is believed for so long."""

    async def stopped(*_: object, **__: object) -> str:
        return "stopped"

    monkeypatch.setattr(ContainerRuntime, "status", stopped)
    async with supervisor(runtime=choice.runtime("fail-start")) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            with trio.fail_after(10), pytest.raises(RuntimeFailed):
                await a.start()
            assert a.state is State.CREATED


@pytest.mark.parametrize("adopted", [False, True])
async def test_what_is_not_there_has_not_begun(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, adopted: bool
) -> None:
    """Neither one that has gone, nor one of which nobody knows what it ran before it began."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        if not adopted:
            a.kill()
            await a.wait()
            assert not await a.init._task.has_begun(5)
    async with supervisor(root) as sup:
        assert not await sup["a"].init._task.has_begun(0.1)
        await sup["a"].delete()


async def test_nobody_asks_about_one_that_has_ended(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When a start fails whose program has run and ended, the runtime has nothing to add."""
    gate = workdir / "gate"
    gate.touch()

    async def ask(*_: object, **__: object) -> str:
        raise AssertionError("it was asked")

    async def fail_after_its_end() -> None:
        await until(lambda: a.status is not None, "its end")
        gate.unlink()

    monkeypatch.setattr(ContainerRuntime, "status", ask)
    runtime = choice.runtime(f"hang-start-after-while:{gate}", "fail-start-after")
    async with supervisor(runtime=runtime) as sup:
        async with await sup.create("a", bundle("sh", "-c", "exit 3")) as a:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_after_its_end)
                await a.start()
            assert (await a.wait()).code == 3


async def test_the_runtimes_start_holds_the_lock(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """Should we be killed now, nobody takes the container over before the runtime is done."""

    def holders() -> list[int]:
        return [pid for pid in living(os.getpid()) if str(root / "a/lock") in _open_files(pid)]

    async with supervisor(root, runtime=choice.runtime("hang-start")) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.start)
                await until(holders, "the runtime's start holds it")
                nursery.cancel_scope.cancel()


def _open_files(pid: int) -> list[str]:
    files = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            files.append(os.readlink(entry.path))
    return files


# ---- exec ---------------------------------------------------------------------------------


@attrs.frozen
class Watched:
    """An exec as its maker and as its container's supervisor see it, who is another."""

    job: Process
    seen: Process
    box: Container


@pytest.fixture
async def watched(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> AsyncIterator[Watched]:
    """An exec that was made by one supervisor in a container that another has taken over."""
    async with supervisor(root) as maker:
        async with supervisor(root) as first:
            a = await first.create("a", bundle("sleep", "60"))
            await a.start()
            [other] = await maker.adopt()
            job = await other.exec(["sleep", "61"], id="job")
        async with supervisor(root) as owner:
            box = owner["a"]
            assert not box.foreign
            yield Watched(job, box.processes["job"], box)
            await box.delete(force=True)


async def test_an_exec_stays_for_its_maker(watched: Watched, root: Path) -> None:
    """The container's owner knows how it ended; its maker doesn't yet, and needs its files."""
    watched.job.kill()
    await watched.seen.wait()
    await until(lambda: "job" not in watched.box.processes, "its task has ended")
    assert (root / "a/job/result.json").exists()
    assert (await watched.job.wait()).signal == signal.SIGKILL
    await until(lambda: not (root / "a/job").exists(), "its maker removes it")


async def test_an_exec_that_its_maker_has_removed(watched: Watched, root: Path) -> None:
    """Whoever gets to know of its end later finds nothing to remove."""
    watched.job.kill()
    await watched.job.wait()
    await until(lambda: not (root / "a/job").exists(), "its maker removes it")
    assert watched.seen.status is not None
    await watched.seen.wait()
    await until(lambda: "job" not in watched.box.processes, "its task has ended")


async def test_an_exec_of_nobody(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Who merely looks on removes nothing, also when there is nobody else just now."""
    async with supervisor(root) as onlooker:
        async with supervisor(root) as owner:
            a = await owner.create("a", bundle("sleep", "60"))
            await a.start()
            job = await a.exec(["sleep", "61"], id="job")
            [seen] = await onlooker.adopt()
            assert job.pid is not None
        os.kill(job.pid, signal.SIGKILL)
        with trio.move_on_after(0.2):
            await seen.processes["job"].wait()
        recorded = root / "a/job/exitStatus"
        await until(lambda: recorded.read_text().strip() != "", "its end is recorded")
        await until(lambda: seen.processes.get("job") is None or _known(seen), "its end is known")
        assert recorded.exists()
    async with supervisor(root) as owner:
        assert (await owner["a"].processes["job"].wait()).signal == signal.SIGKILL
        await owner["a"].delete(force=True)


def _known(box: Container) -> bool:
    return box.processes["job"].status is not None


@pytest.mark.runtimes("runc")
async def test_an_exec_that_is_lost_ends_nobody_else(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Of an exec without shim and pid nothing is known; its container's cgroup isn't its own."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        pid = (await a.exec(["sleep", "61"], id="job")).pid
    os.kill(shim_of(root / "a/job"), signal.SIGKILL)
    (root / "a/job/pid").write_text("garbage")
    async with supervisor(root) as sup:
        a = sup["a"]
        assert (await a.processes["job"].wait()).cause is Cause.UNKNOWN
        assert a.pid is not None and state_of(a.pid) == "S"
        assert pid is not None
        end(pid)  # nobody knows that it is ours to reap; until then it would hold init up
        await a.delete(force=True)


async def test_an_onlooker_forgets_execs_too(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """No task is left for an exec of a container that its owner has deleted."""
    async with supervisor(root) as onlooker, supervisor(root) as owner:
        before = trio.lowlevel.current_statistics().tasks_living
        a = await owner.create("a", bundle("sleep", "60"))
        await a.start()
        await a.exec(["sleep", "61"], id="job")
        [seen] = await onlooker.adopt()
        assert list(seen.processes) == ["init", "job"]
        await a.delete(force=True)
        await onlooker.adopt()
        with trio.fail_after(10):
            while trio.lowlevel.current_statistics().tasks_living > before:
                await trio.lowlevel.checkpoint()


async def test_an_exec_that_is_made_during_a_delete(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that came too late for the delete to end it isn't kept until somebody asks for it."""
    gate = workdir / "gate"
    gate.touch()
    alive = subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL)
    check = Core.check

    def checked_before(core: Core, event: Event) -> State:
        return core.state if event is Event.EXEC else check(core, event)

    def reach(point: Point) -> None:
        if point is Point.PROCESSES_ENDED:
            its = root / ".runtime/a"  # the runtime doesn't know that it has ended
            its.joinpath("state").write_text(str(alive.pid))
            facts = json.loads(its.joinpath("facts").read_text())
            facts["started"] = [str(start_time(alive.pid))]
            its.joinpath("facts").write_text(json.dumps(facts))
            nursery.start_soon(run_exec)

    async def run_exec() -> None:
        try:
            made.append(await a.exec(["true"]))
        finally:
            gate.unlink()

    made: list[Process] = []
    runtime = choice.runtime(f"hang-delete-while:{gate}")
    async with supervisor(root, runtime=runtime, reach=reach) as sup:
        async with trio.open_nursery() as nursery:
            before = trio.lowlevel.current_statistics().tasks_living
            a = await sup.create("a", bundle("sleep", "60"))
            await a.start()
            monkeypatch.setattr(Core, "check", checked_before)
            await a.delete(force=True)
            assert len(made) == 1
            with trio.fail_after(10):
                while trio.lowlevel.current_statistics().tasks_living > before:
                    await trio.lowlevel.checkpoint()
    alive.wait()


async def test_an_exec_that_has_ended_when_its_container_is_deleted(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """Killing it is in vain, and no reason not to delete: nobody had asked how it ended yet."""
    async with supervisor() as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        job = await a.exec(["true"])
        await until(lambda: job.status is not None, "its end")
        await a.delete(force=True)
        assert (await job.wait()).code == 0
