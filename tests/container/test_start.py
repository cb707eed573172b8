"""The runtime's start fails, hangs, is cancelled, or loses the shim meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from supervisor import (
    Container,
    Deadlines,
    IllegalTransition,
    InfrastructureError,
    RuntimeFailed,
    RuntimeTimeout,
    ShimExited,
    Source,
    State,
    TooManyProcesses,
    run_container,
)
from supervisor.container._stop import STOP_GRACE_SECONDS
from supervisor.runtime import ContainerRuntime
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import SOON, hurried, living, shim_of, until
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")

ways_to_fail = pytest.mark.parametrize("kind", ["fail", "die", "mute"])


@ways_to_fail
async def test_failed_after_it_ran(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, kind: str
) -> None:
    """A short-lived program that ran has simply finished, whatever the runtime's start says."""
    async with supervisor(runtime=choice.runtime(f"{kind}-start-after")) as sup:
        async with await sup.create("a", bundle("sh", "-c", "exit 3")) as a:
            await a.start()
            status = await a.wait()
            assert (status.code, status.source, a.state) == (3, Source.SHIM, State.STOPPED)


@ways_to_fail
async def test_failed_and_runs(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, kind: str
) -> None:
    """A program that runs although the runtime's start failed has been started."""
    async with supervisor(runtime=choice.runtime(f"{kind}-start-after")) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            assert a.state is State.RUNNING
            job = await a.exec(["true"])
            assert (await job.wait()).code == 0


async def test_timeout_before(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path
) -> None:
    """A start that times out before the runtime acted leaves the container created, and can be
    repeated."""
    trouble = workdir / "trouble"
    trouble.touch()
    runtime = choice.runtime(f"hang-start-while:{trouble}")
    async with (
        supervisor(runtime=runtime) as sup,
        await sup.create("a", bundle("true")) as a,
    ):
        before = living(os.getpid())
        with hurried(a, start=SOON):
            with pytest.raises(RuntimeTimeout, match="start took longer") as caught:
                await a.start()
        assert (caught.value.seconds, caught.value.container) == (SOON, "a")
        assert isinstance(caught.value, InfrastructureError)
        assert (a.state, living(os.getpid())) == (State.CREATED, before)
        trouble.unlink()
        await a.start()
        assert (await a.wait()).code == 0


@pytest.mark.parametrize(("program", "code"), [("exec sleep 60", None), ("exit 4", 4)])
async def test_timeout_after(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, program: str, code: int | None
) -> None:
    """A start that times out when the program runs, or has ended, has started the container."""
    async with (
        supervisor(runtime=choice.runtime("hang-start-after")) as sup,
        await sup.create("a", bundle("sh", "-c", program)) as a,
    ):
        before = living(os.getpid())
        with hurried(a, start=2.0, shim=0.1):  # time for the runtime to let the program go
            await a.start()
        assert living(os.getpid()) <= before
        if code is None:
            assert (a.state, a.status) == (State.RUNNING, None)
        else:
            assert (await a.wait()).code == code
            assert a.state is State.STOPPED


@pytest.mark.parametrize(("when", "state"), [("", State.CREATED), ("-after", State.RUNNING)])
async def test_cancelled(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, when: str, state: State
) -> None:
    """A cancelled start kills the runtime's call, and finds out the container's present state."""
    async with (
        supervisor(runtime=choice.runtime(f"hang-start{when}")) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        before = living(os.getpid())
        gate = Path(sup.root) / ".runtime/a/exec.fifo"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.start)
                await until(lambda: living(os.getpid()) > before, "the runtime's start runs")
                await until(lambda: not when or not gate.exists(), "the program is let go")
                assert a.state is State.STARTING
                scope.cancel()
        assert scope.cancelled_caught
        assert (a.state, living(os.getpid())) == (state, before)


@pytest.mark.parametrize("silence", ["fail-state", "hang-state", "die-state"])
async def test_no_answer_either(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path, silence: str
) -> None:
    """If the runtime doesn't report the state after a failed start, the container counts as created
    again."""
    trouble = workdir / "trouble"
    trouble.touch()
    faults = (f"fail-start-while:{trouble}", f"{silence}-while:{trouble}")
    async with (
        supervisor(runtime=choice.runtime(*faults)) as sup,
        await sup.create("a", bundle("true")) as a,
    ):
        with hurried(a, call=0.3, shim=0.1), pytest.raises(RuntimeFailed):
            await a.start()
        assert a.state is State.CREATED
        trouble.unlink()
        await a.start()
        assert (await a.wait()).code == 0


@pytest.mark.parametrize("how", ["delete", "kill", "stop"])
async def test_taken_away(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path, how: str
) -> None:
    """A start raises if another task ends the container before the program runs.

    Such a start once returned as if the program had run.
    """
    runtime = choice.runtime("hang-start")
    async with supervisor(runtime=runtime) as sup, await sup.create("a", bundle("true")) as a:
        before = living(os.getpid())
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                with hurried(a, shim=0.1), pytest.raises(IllegalTransition, match="cannot start"):
                    await a.start()

            nursery.start_soon(start)
            await until(lambda: _called(before), "the runtime's start runs")
            if how == "delete":
                await a.delete(force=True)
            elif how == "kill":
                a.kill()
            else:
                await a.stop()
        assert a.state is (State.DELETED if how == "delete" else State.STOPPED)
        assert not a._core.was_started()


async def test_killed_when_it_ran(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice
) -> None:
    """A container that is killed when the program runs has been started, though start hasn't
    returned."""
    runtime = choice.runtime("hang-start-after")
    async with (
        supervisor(runtime=runtime) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                with hurried(a, shim=0.1):
                    await a.start()

            nursery.start_soon(start)
            await until(lambda: a.state is State.STARTING, "it is being started")
            assert await a.init._task.gate.has_begun(60)
            a.kill()
        assert (a.state, a._core.was_started()) == (State.STOPPED, True)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EPERM])
async def test_nothing_can_be_spawned(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    """Where neither the start nor the question for the state can be spawned, the container is still
    created, not *starting*."""

    def spawn(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    async with supervisor() as sup, await sup.create("a", bundle("true")) as a:
        with monkeypatch.context() as patch, hurried(a, shim=0.1):
            patch.setattr(os, "posix_spawn", spawn)
            with pytest.raises(OSError) as caught:  # noqa: PT011
                await a.start()
        scarce = number != errno.EPERM
        assert isinstance(caught.value, TooManyProcesses) is scarce
        assert (caught.value.errno, a.state) == (number, State.CREATED)
        await a.start()
        assert (await a.wait()).code == 0


async def test_shim_killed_in_a_hanging_start(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    nothing_left: NothingLeft,
) -> None:
    """A shim that dies while start hangs ends the start at once, and nothing is left of the
    container."""
    async with supervisor(root, runtime=choice.runtime("hang-start")) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await _kill_shim_in_start(a.start, root / "a/init")
        assert a.state is State.STOPPED
        await a.delete()
        await nothing_left()


@pytest.mark.runtimes("runc")
async def test_shim_killed_in_a_hanging_real_start(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """The same holds for runc, whose start waits for ever for an init that is stopped."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        a.send_signal(signal.SIGSTOP)
        await _kill_shim_in_start(a.start, root / "a/init")
        assert a.state is State.STOPPED
        await a.delete()
        await nothing_left()


async def _kill_shim_in_start(start: Callable[[], Awaitable[None]], init: Path) -> None:
    """Kill the shim while the runtime's start runs; both must end at once."""
    before = living(os.getpid())

    async def kill_shim() -> None:
        await until(lambda: _called(before), "the runtime's start runs")
        os.kill(shim_of(init), signal.SIGKILL)

    with trio.fail_after(Deadlines().start / 2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_shim)
            with pytest.raises(ShimExited):
                await start()
    assert living(os.getpid()) < before  # no start, and no shim


def _called(before: set[int]) -> bool:
    """Whether a process runs with ``start`` in the command line."""

    def words(pid: int) -> list[bytes]:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return []

    return any(b"start" in words(pid) for pid in living(os.getpid()) - before)


@pytest.mark.runtimes("runc")
async def test_a_gate_that_is_open_already(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """After a start that was killed half-way, a container that the runtime calls *created* but that
    runs counts as running."""
    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as box:
        gate = os.open(root / ".runtime/a/exec.fifo", os.O_RDONLY | os.O_NONBLOCK)
        await until(lambda: os.readlink(f"/proc/{box.pid}/exe").endswith("busybox"), "it runs")
        os.close(gate)
        with trio.move_on_after(0.2) as scope:
            await box.start()
        assert scope.cancelled_caught
        assert (box.state, box.status) == (State.RUNNING, None)


async def test_run_container_whose_start_fails(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice
) -> None:
    """A failed start in run_container raises at once: no program is there to be asked, and the
    caller didn't cancel.

    ``deliver_cancel`` was once called, and waited for, with a container that was only created.
    """
    asked: list[Container] = []

    async def deliver(box: Container) -> None:
        asked.append(box)

    async with supervisor(runtime=choice.runtime("fail-start")) as sup:
        with trio.fail_after(STOP_GRACE_SECONDS / 2), pytest.raises(RuntimeFailed):
            await run_container(bundle("true"), supervisor=sup, deliver_cancel=deliver)
        assert asked == [] and not list(sup)


@pytest.mark.runtimes("runc")
async def test_a_quick_program_lets_the_runtime_finish(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path
) -> None:
    """A start isn't killed when the program has ended: the runtime may have more to do."""
    runtime, done = workdir / "runtime", workdir / "done"
    runtime.write_text(
        f'#!/bin/sh\n{shutil.which(choice.name)} "$@"\nstatus=$?\n'
        f'case "$*" in *" start "*) sleep 0.3; touch {done};; esac\nexit $status\n'
    )
    runtime.chmod(0o755)
    async with supervisor(runtime=str(runtime), deadlines=Deadlines(shim=30)) as sup:
        async with await sup.create("a", bundle("true")) as a:
            await a.start()
            assert (await a.wait()).code == 0
            assert done.exists()


async def test_start_of_one_that_was_started_and_lost(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A start of a container that ran, and was lost then, says that the container has stopped, not
    that it never ran."""
    async with supervisor(root) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            os.kill(shim_of(root / "a/init"), signal.SIGKILL)
            assert (await a.wait()).source is not Source.SHIM
            with pytest.raises(IllegalTransition):
                await a.start()


async def test_a_failed_start_whose_end_is_late(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the program ran and ended, a failed start waits for the shim's late report."""
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


async def test_a_failed_start_of_a_container_that_is_paused(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A runtime says *paused* only of a container that was started: the state is *running*."""

    async def paused(*_: object) -> str:
        return "paused"

    monkeypatch.setattr(ContainerRuntime, "status", paused)
    async with supervisor(root, runtime=choice.runtime("fail-start-after")) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            assert a.state is State.RUNNING and (root / "a/init/started").exists()


async def test_a_failed_start_whose_end_never_comes(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A runtime that calls a container stopped while the container waits to be started is believed
    for a limited time only."""

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
    """`has_begun` is false for a process that has gone, and for an adopted one whose earlier
    program is unknown."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        if not adopted:
            a.kill()
            await a.wait()
            assert not await a.init._task.gate.has_begun(5)
    async with supervisor(root) as sup:
        assert not await sup["a"].init._task.gate.has_begun(0.1)
        await sup["a"].delete()


async def test_nobody_asks_about_one_that_has_ended(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When a start fails and the program ran and ended, the runtime isn't asked."""
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
    """If we are killed now, no supervisor takes the container over before the runtime's start is
    done."""

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
