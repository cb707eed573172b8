"""Execs: what a failed one ends, how long an exec is kept and for which supervisor, and deletes
meanwhile."""

from __future__ import annotations

import errno
import gc
import json
import os
import signal
import subprocess
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio

from supervisor import PIPE, Cause, Container, Process, RuntimeFailed, State, TooManyFiles
from supervisor.container._core import Core
from supervisor.container._exec import end_unreported
from supervisor.observers import Observation, Point
from supervisor.system import start_time
from supervisor.values._lifecycle import Event
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import end, read_all, shim_of, state_of, until
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")


@pytest.mark.runtimes("runc")
@pytest.mark.parametrize("whose", ["init", "stranger", "stranger, without a cgroup", "garbage"])
async def test_a_failed_exec_ends_nobody_else(
    supervisor: OpenSupervisor, bundle: MakeBundle, whose: str
) -> None:
    """The pid file of a failed exec may name any process: only the exec's own program is killed."""
    stranger = subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL)
    try:
        async with supervisor() as sup:
            async with await sup.create("a", bundle("sleep", "60")) as a:
                await a.start()
                names = {"init": str(a.pid), "garbage": "x"}
                layout = a._core.layout.process("e")
                os.mkdir(layout.path)
                Path(layout.pid).write_text(names.get(whose, str(stranger.pid)))
                record = a._core.record
                if "without" in whose:
                    a._core.record = attrs.evolve(record, cgroup=None)
                await end_unreported(a._core, layout)
                a._core.record = record
                await trio.sleep(0.1)
                assert stranger.poll() is None
                assert a.state is State.RUNNING and a.pid is not None
                assert state_of(a.pid) not in ("Z", "")
                os.unlink(layout.pid)
                os.rmdir(layout.path)
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_failed_exec_without_descriptors(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without descriptors to look for a program that is left, the exec's own error is raised."""

    def fail(_: object) -> None:
        raise TooManyFiles("none is left", container="a")

    async with supervisor(root, runtime=choice.runtime("fail-exec")) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            monkeypatch.setattr("supervisor.container._exec.read_pid", fail)
            with pytest.raises(RuntimeFailed):
                await a.exec(["true"], id="job")
            assert not (root / "a/job").exists()


async def test_an_exec_stays_until_it_was_waited_for(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An exec's directory stays until the exit status was asked for: so does the exec's output."""
    async with supervisor(root) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            quiet = await a.exec(["true"], id="quiet")
            loud = await a.exec(["echo", "words"], id="loud", stdout=PIPE)
            shim = shim_of(root / "a/quiet")
            await until(lambda: quiet.status is not None and state_of(shim) == "", "its end")
            await until(lambda: loud.status is not None, "its end")
            await trio.sleep(0.1)
            assert (root / "a/quiet").exists() and (root / "a/loud").exists()
            for process in (quiet, loud):
                assert (await process.wait()).code == 0
            assert sorted(os.listdir(root / "a")) == STAYS
            assert await read_all(loud) == b"words\n"


STAYS = ["bundle", "init", "lock", "state.json"]


@attrs.frozen
class Watched:
    """An exec as its maker sees it and as the container's owner, another supervisor, sees it."""

    job: Process
    seen: Process
    box: Container


@pytest.fixture
async def watched(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> AsyncIterator[Watched]:
    """An exec that one supervisor made in a container that another supervisor has taken over."""
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
    """The container's owner knows the exit status; the exec's maker doesn't yet, and needs the
    files."""
    watched.job.kill()
    await watched.seen.wait()
    await until(lambda: "job" not in watched.box.processes, "its task has ended")
    assert (root / "a/job/result.json").exists()
    assert (await watched.job.wait()).signal == signal.SIGKILL
    await until(lambda: not (root / "a/job").exists(), "its maker removes it")


async def test_an_exec_that_its_maker_has_removed(watched: Watched, root: Path) -> None:
    """An onlooker that learns of the exec's end after the maker removed it finds nothing to
    remove."""
    watched.job.kill()
    await watched.job.wait()
    await until(lambda: not (root / "a/job").exists(), "its maker removes it")
    assert watched.seen.status is not None
    await watched.seen.wait()
    await until(lambda: "job" not in watched.box.processes, "its task has ended")


async def test_an_exec_of_nobody(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An onlooker removes no exec, not even when no other supervisor is there."""
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
    """Of an exec without shim and pid nothing is known; the cgroup is the container's, so nothing
    there is killed."""
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
        end(pid)  # unknown to be ours to reap; until then the process would hold init up
        await a.delete(force=True)


async def test_an_onlooker_forgets_execs_too(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An onlooker keeps no task for an exec of a container that the owner has deleted."""
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
    """An exec that was made too late for the delete to end it isn't kept until its exit status is
    asked for."""
    gate = workdir / "gate"
    gate.touch()
    alive = subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL)
    check = Core.check

    def checked_before(core: Core, event: Event) -> State:
        return core.state if event is Event.EXEC else check(core, event)

    def observe(seen: Observation) -> None:
        if seen is Point.PROCESSES_ENDED:
            its = root / ".runtime/a"  # the runtime doesn't know that the process has ended
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
    async with supervisor(root, runtime=runtime, _observer=observe) as sup:
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
    """A delete succeeds although an exec that it kills has already ended, with an exit status that
    was never asked for."""
    async with supervisor() as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        job = await a.exec(["true"])
        await until(lambda: job.status is not None, "its end")
        await a.delete(force=True)
        assert (await job.wait()).code == 0


@pytest.mark.runtimes("fake")
async def test_an_exec_that_fails_before_its_task(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exec that fails before its task begins releases the lock, and its id is free again."""

    def fail(path: str) -> str:
        raise OSError(errno.EIO, "a bad disk", path)

    async with supervisor() as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            patch.setattr("supervisor.container._exec.fresh_log", fail)
            with pytest.raises(OSError, match="a bad disk"):
                await box.exec(["true"], id="job")
            gc.collect()
        assert [str(one.message) for one in told] == []
        assert (await (await box.exec(["true"], id="job")).wait()).code == 0
