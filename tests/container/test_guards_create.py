"""Guards of create, exec and their undoing that only a rare moment needs, one by one."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from supervisor import (
    PIPE,
    Container,
    ContainerExists,
    CreateTimeout,
    Deadlines,
    Process,
    RuntimeFailed,
    State,
    TooManyFiles,
)
from supervisor.shim import Shim
from supervisor.state import read_pid
from supervisor.stdio import Streams
from supervisor.system import start_time
from supervisor.values._points import Point
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import left, living, pid_in, state_of, until
from tests.support.leaks import wait_for
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")

QUICK = 10.0
"""Far from both: what takes no time, and a deadline that must not be waited for."""


class Once:
    """A ``reach`` that does something at one point, the first time."""

    def __init__(self, point: Point, act: Callable[[], object]) -> None:
        self._point = point
        self._act = act
        self.done = False

    def __call__(self, point: Point) -> None:
        if point is self._point and not self.done:
            self.done = True
            self._act()


async def test_nobody_waits_for_a_launch_that_failed(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice
) -> None:
    """Whoever waits for the shim of an exec that was never made waits for nothing any more."""
    boxes: list[Container] = []
    held: list[Process] = []

    def reach(point: Point) -> None:
        if point is Point.LAUNCHED:
            held.extend(box.processes["job"] for box in boxes)

    async with supervisor(runtime=choice.runtime("fail-exec"), reach=reach) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            boxes.append(a)
            with pytest.raises(RuntimeFailed):
                await a.exec(["true"], id="job")
            [job] = held
            with trio.fail_after(QUICK):
                await job._task.wait_shim_gone()
                await job._task.wait_over()


async def test_a_stopped_shim_that_is_given_up(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """One that can't hear that it is to give up is killed, and its runtime dies with it."""
    before = living(os.getpid())

    def stop() -> None:
        wait_for((root / ".runtime/a/state").exists, "the runtime is at work")
        os.kill(int((root / "a/init/shim").read_text().split()[0]), signal.SIGSTOP)

    deadlines = Deadlines(create=0.3, shim=0.3, cleanup=60)
    options = {"deadlines": deadlines, "reach": Once(Point.LAUNCHED, stop)}
    async with supervisor(root, runtime=choice.runtime("hang-create-before-pid"), **options) as sup:
        begun = trio.current_time()
        with pytest.raises(CreateTimeout):
            await sup.create("a", bundle("sleep", "60"))
        assert trio.current_time() - begun < QUICK
        assert left(root) == []
        await until(lambda: living(os.getpid()) <= before, "the runtime is gone")


@pytest.mark.runtimes("crun")  # its init doesn't hear SIGTERM before it is started
async def test_given_up_when_it_has_its_process(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A shim that has made its process, unheard, is told to kill it: it would stay with it."""
    scope = trio.CancelScope()

    def cancel() -> None:
        wait_for((root / "a/init/starttime").exists, "the process is made")
        scope.cancel()

    reach = Once(Point.LAUNCHED, cancel)
    async with supervisor(root, deadlines=Deadlines(shim=30, cleanup=60), reach=reach) as sup:
        begun = trio.current_time()
        with scope:
            await sup.create("a", bundle("sleep", "60"))
        assert scope.cancelled_caught
        assert trio.current_time() - begun < QUICK
        assert left(root) == []


@pytest.mark.runtimes("crun")
async def test_undone_without_a_descriptor(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that can't be supervised is killed by its pidfd, also if its shim isn't told."""

    def fail(*_: object, **__: object) -> None:
        raise TooManyFiles("not one left", container="a")

    async with supervisor(root, deadlines=Deadlines(shim=30, cleanup=60)) as sup:
        with monkeypatch.context() as patch:
            patch.setattr(Streams, "open", fail)
            patch.setattr("supervisor.shim._launch.send_line", fail)
            begun = trio.current_time()
            with pytest.raises(TooManyFiles):
                await sup.create("a", bundle("sleep", "60"))
        assert trio.current_time() - begun < QUICK
        assert left(root) == []


async def test_undone_shielded(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is made and can't be watched is ended also in a task that is cancelled."""
    gone: list[bool] = []
    give_up = Shim.give_up

    async def and_look(shim: Shim, seconds: float) -> None:
        await give_up(shim, seconds)
        gone.append(state_of(pid_in(root / "a/init")) == "")

    monkeypatch.setattr(Shim, "give_up", and_look)
    scope = trio.CancelScope()
    async with supervisor(root, reach=Once(Point.WATCHED, scope.cancel)) as sup:
        with scope:
            await sup.create("a", bundle("sleep", "60"))
        assert scope.cancelled_caught and gone == [True]


async def test_undone_streams_are_closed(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Our ends of the streams of a process that is undone are closed, whoever keeps the error."""

    def reach(point: Point) -> None:
        if point is Point.WATCHED:
            raise TooManyFiles("not one left", container="a")

    held: list[BaseException] = []
    async with supervisor(reach=reach) as sup:
        spec = bundle("sleep", "60")
        for _ in range(2):  # the first one opens what stays open
            before = len(os.listdir("/proc/self/fd"))
            try:
                await sup.create("a", spec, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            except TooManyFiles as error:
                held.append(error)
        assert len(held) == 2
        assert len(os.listdir("/proc/self/fd")) == before


async def test_adopting_while_it_is_made(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path, workdir: Path
) -> None:
    """What this very supervisor is making is not taken for somebody else's."""
    gate = workdir / "gate"
    gate.touch()
    runtime = choice.runtime(f"hang-create-after-pid-while:{gate}")
    async with supervisor(root, runtime=runtime) as sup, trio.open_nursery() as nursery:
        nursery.start_soon(sup.create, "a", bundle("true"))
        await until(lambda: read_pid(str(root / "a/init/pid")), "the process is there")
        # As if its shim had come this far, and no further.
        began = start_time(pid_in(root / "a/init"))
        (root / "a/init/starttime").write_text(f"{began}\n")
        assert await sup.adopt() == [] and list(sup) == []
        gate.unlink()
        await until(lambda: "a" in sup, "it is made")
        await sup["a"].delete()


async def test_an_id_is_taken_before_its_turn_comes(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path, workdir: Path
) -> None:
    """A second create of an id is refused at once, though nothing of the first one is there."""
    gate = workdir / "gate"
    gate.touch()
    runtime = choice.runtime(f"hang-create-before-pid-while:{gate}")
    spec = bundle("true")
    async with supervisor(root, runtime=runtime, creates_at_once=1) as sup:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sup.create, "first", spec)
            await until((root / ".runtime/first/state").exists, "the runtime is at work")
            nursery.start_soon(sup.create, "a", spec)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not (root / "a").exists()
            with trio.fail_after(QUICK), pytest.raises(ContainerExists):
                await sup.create("a", spec)
            gate.unlink()
        for box in list(sup.values()):
            await box.delete()


async def test_a_name_that_is_taken_at_the_last_moment(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """One that is there only when the directory gets its name is a container that exists."""

    looks = iter([False])
    lexists = os.path.lexists

    def look(path: str) -> bool:
        return next(looks, True) if path == str(root / "a") else lexists(path)

    async with supervisor(root) as sup:
        (root / "a").touch()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("supervisor.container._directories.os.path.lexists", look)
            with pytest.raises(ContainerExists):
                await sup.create("a", bundle("true"))
        (root / "a").unlink()
        assert left(root) == []


async def test_an_id_is_free_again(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path
) -> None:
    """What couldn't be created may be tried again under the same id."""
    trouble = workdir / "trouble"
    trouble.touch()
    spec = bundle("true")
    async with supervisor(runtime=choice.runtime(f"fail-create-once:{trouble}")) as sup:
        with pytest.raises(RuntimeFailed):
            await sup.create("a", spec)
        async with await sup.create("a", spec) as a:
            assert a.state is State.CREATED


async def test_whatever_the_umask(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The root of a user namespace must be able to pass through the directories to its rootfs."""
    before = os.umask(0o077)
    try:
        async with supervisor(root) as sup, await sup.create("a", bundle("true")):
            modes = {path.stat().st_mode & 0o777 for path in (root / "a", root / "a/bundle")}
            assert modes == {0o711}
    finally:
        os.umask(before)
