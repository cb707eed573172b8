"""A foreign container whose owner releases it, or dies: what a take-over does, and undoes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import Cause, Container, Deadlines, Source, State, Supervisor, TooManyFiles
from supervisor.process._evidence import Found
from supervisor.process._shared import Shared
from supervisor.recovery import _adopt
from supervisor.state import ContainerRecord, ProcessLayout
from supervisor.system import Lock
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import assert_lost, end, pid_in, shim_of, state_of, until

pytestmark = pytest.mark.runtimes("fake", "runc", "crun")


def tasks_and_descriptors(sup: Supervisor) -> tuple[int, int]:
    """Return the numbers of tasks and descriptors."""
    return len(sup._nursery.child_tasks), len(os.listdir("/proc/self/fd"))


def scarce_at(monkeypatch: pytest.MonkeyPatch, id: str) -> None:
    """Let the descriptors run out at each look at a process of this id."""

    def gather(shared: Shared, record: ContainerRecord, layout: ProcessLayout) -> Found:
        if layout.id == id:
            raise TooManyFiles("none left")
        return look(shared, record, layout)

    look = _adopt.gather
    monkeypatch.setattr(_adopt, "gather", gather)


@attrs.frozen
class Left:
    """A container that is foreign as long as another supervisor holds the lock."""

    sup: Supervisor
    box: Container
    lock: Lock


Leave = Callable[..., AbstractAsyncContextManager[Left]]


@pytest.fixture
def leave(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> Leave:
    """Make a container and release it, with another supervisor looking on."""

    @asynccontextmanager
    async def left(
        *args: str, start: bool = True, intent: str | None = None, kill: float = 5
    ) -> AsyncIterator[Left]:
        async with supervisor(root) as first:
            owner = await first.create("a", bundle(*args))
            if start:
                await owner.start()
                await owner.exec(["sleep", "60"], id="job")
        state = root / "a/state.json"
        lock = Lock.take(str(root / "a/lock"))
        assert lock is not None
        async with supervisor(root, deadlines=Deadlines(kill=kill)) as sup:
            state.write_text(json.dumps({**json.loads(state.read_text()), "intent": intent}))
            with lock:
                yield Left(sup, sup["a"], lock)
            for box in sup.values():
                await box.delete(force=True)
        await nothing_left()

    return left


LOOP = ("sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done")


async def test_taken_over_unstarted(leave: Leave) -> None:
    """With delete_unstarted, a take-over deletes a container that was never started; once it was
    offered all the same."""
    async with leave("sleep", "60", start=False) as left:
        assert left.box.foreign and left.box.state is State.CREATED
        left.lock.release()
        assert await left.sup.adopt(delete_unstarted=True) == []
        assert left.box.state is State.DELETED and list(left.sup) == []


async def test_taken_over_while_it_is_stopped(leave: Leave) -> None:
    """A take-over finishes a stop that the earlier owner began; once the stop was forgotten."""
    async with leave(*LOOP, intent="stop") as left:
        left.lock.release()
        assert await left.sup.adopt() == [left.box]
        with trio.fail_after(10):
            assert (await left.box.wait()).code == 3


async def test_taken_over_while_it_is_deleted(leave: Leave) -> None:
    """A take-over finishes a delete that the earlier owner began, and waiters get the exit
    status."""
    async with leave(*LOOP, intent="delete") as left:
        left.lock.release()
        assert await left.sup.adopt() == []
        assert left.box.state is State.DELETED and left.box.status is not None
        assert (left.box.status.signal, left.box.status.source) == (signal.SIGKILL, Source.SHIM)


@pytest.mark.runtimes("runc", "crun")
@pytest.mark.parametrize("late", [False, True])
async def test_taken_over_without_a_shim(leave: Leave, root: Path, late: bool) -> None:
    """A take-over ends a live process whose shim and owner are dead, whichever side had given it
    up.

    Once the process was reported as ended, for an unknown reason, and ran on unwatched.
    """
    async with leave("sleep", "60", kill=0.2 if late else 5) as left:
        end(shim_of(root / "a/init"))
        if late:
            assert (await left.box.wait()).cause is Cause.UNKNOWN
            assert state_of(pid_in(root / "a/init")) == "S"
        await wait_all_tasks_blocked()
        left.lock.release()
        with trio.fail_after(3):
            await left.sup.adopt()
            assert_lost(await left.box.wait(), signal=signal.SIGKILL)
            await until((root / "a/init/result.json").exists, "its end is on record")
        assert state_of(pid_in(root / "a/init")) in ("", "Z")


@pytest.mark.runtimes("fake")
async def test_taken_over_execs(leave: Leave, root: Path) -> None:
    """A take-over includes the execs that no other supervisor holds, and removes them in the
    end."""
    async with leave("sleep", "60") as left:
        left.lock.release()
        assert await left.sup.adopt() == [left.box]
        job = left.box.processes["job"]
        assert Lock.take(str(root / "a/job/lock")) is None
        job.kill()
        await job.wait()
        await until(lambda: not (root / "a/job").exists(), "its directory is removed")


@pytest.mark.runtimes("fake")
@pytest.mark.parametrize("held", [False, True], ids=["ours", "foreign"])
async def test_an_adoption_that_fails_among_the_execs(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: bool,
) -> None:
    """A take-over that fails among the execs releases what it had taken, execs too, and all go on:
    once they leaked."""
    scarce_at(monkeypatch, "e2")
    async with supervisor(root) as sup, contextlib.AsyncExitStack() as stack:
        owner = await stack.enter_async_context(supervisor(root))
        box = await owner.create("a", bundle("sleep", "60"))
        await box.start()
        for n in range(4):
            await box.exec(["sleep", "60"], id=f"e{n}")
        if not held:
            await stack.aclose()
        before = tasks_and_descriptors(sup)
        with pytest.raises(TooManyFiles):
            await sup.adopt()
        assert list(sup) == []
        await until(lambda: tasks_and_descriptors(sup) == before, "all is let go of")
        monkeypatch.undo()
        await stack.aclose()
        assert [sorted(a.processes) for a in await sup.adopt()] == [
            ["e0", "e1", "e2", "e3", "init"]
        ]
        await sup["a"].delete(force=True)


@pytest.mark.runtimes("fake")
async def test_a_take_over_that_fails(leave: Leave, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failed take-over the container is foreign as before, and so is its init."""
    async with leave("sleep", "60") as left:
        left.lock.release()
        with monkeypatch.context() as patched:

            async def fail(*_: object) -> None:
                raise TooManyFiles("none left")

            patched.setattr("supervisor.recovery._adopt._find_state", fail)
            with pytest.raises(TooManyFiles):
                await left.sup.adopt()
        assert left.box.foreign and not left.box.init._task.end.owned.value
        assert await left.sup.adopt() == [left.box]


@pytest.mark.runtimes("fake")
async def test_a_take_over_of_rubbish(leave: Leave, root: Path) -> None:
    """A container whose record is rubbish by then is set aside, and waiters get the reason."""
    async with leave("sleep", "60") as left:
        state = root / "a/state.json"
        sound = state.read_bytes()
        state.write_bytes(b"rubbish")
        left.lock.release()
        assert await left.sup.adopt() == [] and list(left.sup) == []
        assert "JSON" in left.sup.broken["a"].reason
        status = await left.box.wait()
        assert status.why is not None and "broken" in status.why
        state.write_bytes(sound)
        [again] = await left.sup.adopt()
        assert (again.state, dict(left.sup.broken)) == (State.RUNNING, {})


@pytest.mark.runtimes("fake")
async def test_adopted_at_the_same_time(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Two calls at once adopt a container once.

    The second once saw the lock of the first, and took the container for foreign.
    """
    told: list[list[Container]] = []
    async with supervisor(root) as sup:
        async with supervisor(root) as first:
            for id in ("a", "b"):
                await (await first.create(id, bundle("sleep", "60"))).start()

        async def adopt() -> None:
            told.append(await sup.adopt())

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(adopt)
        assert sorted(map(len, told)) == [0, 2]
        for box in sup.values():
            assert not box.foreign
            await box.delete(force=True)


@pytest.mark.runtimes("fake")
async def test_what_its_owner_has_deleted_is_forgotten(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The next look at the root drops a container that another supervisor has deleted."""
    async with supervisor(root) as first:
        owner = await first.create("a", bundle("sleep", "60"))
        async with supervisor(root) as second:
            assert list(second) == ["a"]
            await owner.delete(force=True)
            await second.adopt()
            assert list(second) == []
