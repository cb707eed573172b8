"""Launches that fail or are given up: their shim, process and streams are undone."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio.testing

from supervisor import (
    PIPE,
    Container,
    CreateTimeout,
    Deadlines,
    Process,
    RuntimeFailed,
    TooManyFiles,
)
from supervisor.observers import Observation, Point
from supervisor.shim import Shim
from supervisor.stdio import Streams
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import left, living, pid_in, shim_of, state_of, until
from tests.support.leaks import wait_for
from tests.support.points import Once
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")


QUICK = 10.0
"""Far from both: what takes no time, and a deadline that must not be waited for."""


async def test_nobody_waits_for_a_launch_that_failed(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice
) -> None:
    """A wait for the shim of an exec that was never made ends when the launch fails."""
    boxes: list[Container] = []
    held: list[Process] = []

    def observe(seen: Observation) -> None:
        if seen is Point.LAUNCHED:
            held.extend(box.processes["job"] for box in boxes)

    async with supervisor(runtime=choice.runtime("fail-exec"), _observer=observe) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            boxes.append(a)
            with pytest.raises(RuntimeFailed):
                await a.exec(["true"], id="job")
            [job] = held
            with trio.fail_after(QUICK):
                await job._task.life.wait_gone()
                await job._task.life.wait_over()


async def test_a_stopped_shim_that_is_given_up(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """A stopped shim that can't hear that it is to give up is killed, and the runtime call dies
    with the shim."""
    before = living(os.getpid())

    def stop() -> None:
        wait_for((root / ".runtime/a/state").exists, "the runtime is at work")
        os.kill(int((root / "a/init/shim").read_text().split()[0]), signal.SIGSTOP)

    deadlines = Deadlines(create=0.3, shim=0.3, cleanup=60)
    options = {"deadlines": deadlines, "_observer": Once(Point.LAUNCHED, stop)}
    async with supervisor(root, runtime=choice.runtime("hang-create-before-pid"), **options) as sup:
        begun = trio.current_time()
        with pytest.raises(CreateTimeout):
            await sup.create("a", bundle("sleep", "60"))
        assert trio.current_time() - begun < QUICK
        assert left(root) == []
        await until(lambda: living(os.getpid()) <= before, "the runtime is gone")


@pytest.mark.runtimes("crun")  # init doesn't hear SIGTERM before the start
async def test_given_up_when_it_has_its_process(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A shim that has made its process before it hears that it is to give up kills the process."""
    scope = trio.CancelScope()

    def cancel() -> None:
        wait_for((root / "a/init/starttime").exists, "the process is made")
        scope.cancel()

    observe = Once(Point.LAUNCHED, cancel)
    async with supervisor(root, deadlines=Deadlines(shim=30, cleanup=60), _observer=observe) as sup:
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
    """A process that can't be supervised is killed by a pidfd, also if the control line can't be
    sent."""

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
    """A process that is made and can't be watched is ended also in a cancelled task."""
    gone: list[bool] = []
    give_up = Shim.give_up

    async def and_look(shim: Shim, seconds: float) -> None:
        await give_up(shim, seconds)
        gone.append(state_of(pid_in(root / "a/init")) == "")

    monkeypatch.setattr(Shim, "give_up", and_look)
    scope = trio.CancelScope()
    async with supervisor(root, _observer=Once(Point.WATCHED, scope.cancel)) as sup:
        with scope:
            await sup.create("a", bundle("sleep", "60"))
        assert scope.cancelled_caught and gone == [True]


async def test_undone_streams_are_closed(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Our ends of the streams of an undone process are closed, even if the caller keeps the
    error."""

    def observe(seen: Observation) -> None:
        if seen is Point.WATCHED:
            raise TooManyFiles("not one left", container="a")

    held: list[BaseException] = []
    async with supervisor(_observer=observe) as sup:
        spec = bundle("sleep", "60")
        for _ in range(2):  # the first one opens what stays open
            before = len(os.listdir("/proc/self/fd"))
            try:
                await sup.create("a", spec, stdin=PIPE, stdout=PIPE, stderr=PIPE)
            except TooManyFiles as error:
                held.append(error)
        assert len(held) == 2
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_shim_that_died_between_two_supervisors(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A shim that died between two supervisors is a child of this program: the next supervisor here
    reaps it."""
    async with supervisor(root) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
        shim = shim_of(root / "a/init")
    os.kill(shim, signal.SIGKILL)
    await until(lambda: state_of(shim) == "Z", "its end")
    async with supervisor(root) as sup:
        assert state_of(shim) == ""
        await sup["a"].delete(force=True)
