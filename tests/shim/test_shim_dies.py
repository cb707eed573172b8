"""The shim is killed or stopped: before the report, before start, or while the process runs."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor import (
    Cause,
    Container,
    Deadlines,
    ProcessEnded,
    RuntimeFailed,
    ShimExited,
    Source,
    State,
)
from supervisor.children._pidfd import PidFd
from supervisor.process import ProcessTask, _watch
from supervisor.shim import send_line
from supervisor.state import read_pid
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import (
    assert_lost,
    commands,
    left,
    lingering,
    pid_in,
    reap,
    shim_of,
    state_of,
    until,
    with_hook,
)
from tests.support.leaks import wait_for
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake", "runc", "crun")
fake_only = pytest.mark.runtimes("fake")
real_only = pytest.mark.runtimes("runc", "crun")

IMPATIENT = Deadlines(shim=0.05)


@pytest.fixture
async def running(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> AsyncIterator[Container]:
    """A container that runs ``sleep``, whose supervisor has little patience with shims."""
    async with (
        supervisor(root, deadlines=IMPATIENT) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        await a.start()
        yield a


async def _kill_shim(directory: Path, ready: Path, *signals: int) -> None:
    """Send signals to the shim when the runtime has come as far as to make ``ready``."""
    await until(ready.exists, f"{ready}")
    shim = shim_of(directory)
    # If killed between fork and exec, the runtime would look like a shim that we left.
    await until(lambda: "supervisor-shim" not in commands(shim) != [], "the runtime runs")
    for number in signals:
        os.kill(shim, number)


# ---- before the report --------------------------------------------------------------------


@fake_only
@pytest.mark.parametrize(
    ("when", "ready"),
    [
        ("", "a/init/shim"),
        ("-before-pid", ".runtime/a/state"),
        ("-after-pid", "a/init/pid"),
    ],
)
async def test_before_report(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    when: str,
    ready: str,
    nothing_left: NothingLeft,
) -> None:
    """A shim that is killed before the report fails the create; the runtime dies with the shim."""
    async with supervisor(root, runtime=choice.runtime(f"hang-create{when}")) as sup:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_shim, root / "a/init", root / ready, signal.SIGKILL)
            with pytest.raises(ShimExited, match="before its report"):
                await sup.create("a", bundle("sleep", "60"))
        assert "a" not in sup and "a" not in sup.broken
        await nothing_left()


@real_only
async def test_before_report_of_a_real_one(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    workdir: Path,
    nothing_left: NothingLeft,
) -> None:
    """A real runtime in the middle of a create dies with the shim too, and cgroup, hook and init
    go."""
    ready = workdir / "ready"
    # A hook isn't in the cgroup, so a killed shim can't end the hook: the test does.
    hook = ("sh", "-c", f"echo > {ready}; while [ -e {ready} ]; do sleep 0.01; done")
    async with supervisor(root) as sup:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_kill_shim, root / "a/init", ready, signal.SIGKILL)
            with pytest.raises(ShimExited):
                await sup.create("a", with_hook(bundle("true"), "createRuntime", *hook))
        ready.unlink()
        await nothing_left()


@fake_only
async def test_asked_to_give_up(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    root: Path,
    nothing_left: NothingLeft,
) -> None:
    """A shim that gets two signals before the report kills the runtime, and reports that."""
    asked = (signal.SIGTERM, signal.SIGINT)
    async with supervisor(root, runtime=choice.runtime("hang-create-before-pid")) as sup:
        async with trio.open_nursery() as nursery:
            ready = root / ".runtime/a/state"
            nursery.start_soon(_kill_shim, root / "a/init", ready, *asked)
            with pytest.raises(RuntimeFailed) as caught:
                await sup.create("a", bundle("sleep", "60"))
        assert caught.value.returncode == -signal.SIGKILL
        await nothing_left()


@fake_only
async def test_before_report_of_an_exec(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """An exec whose shim is killed before the report fails; the container goes on."""
    runtime = choice.runtime("hang-exec-after-pid")
    async with (
        supervisor(root, runtime=runtime) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        await a.start()
        async with trio.open_nursery() as nursery:
            ready = root / "a/job/pid"
            nursery.start_soon(_kill_shim, root / "a/job", ready, signal.SIGKILL)
            with pytest.raises(ShimExited):
                await a.exec(["sh", "-c", "kill $$"], id="job")
        assert not (root / "a/job").exists() and list(a.processes) == ["init"]
        assert (a.state, a.status) == (State.RUNNING, None)


@real_only
async def test_before_report_of_a_real_exec(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path, workdir: Path
) -> None:
    """An exec whose shim is killed after the program started leaves no running program."""
    gate = workdir / "gate"
    gate.touch()
    runtime = lingering(choice, workdir / "a-runtime", "exec", gate)
    async with (
        supervisor(root, runtime=runtime) as sup,
        await sup.create("a", bundle("sleep", "60")) as a,
    ):
        await a.start()
        pids: list[int] = []

        async def kill_shim() -> None:
            await until(lambda: read_pid(str(root / "a/job/pid")), "the exec's process is there")
            pids.append(pid_in(root / "a/job"))
            os.kill(shim_of(root / "a/job"), signal.SIGKILL)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill_shim)
            with pytest.raises(ShimExited):
                await a.exec(["sleep", "61"], id="job")
        gate.unlink()
        await reap(*pids)  # the dead process is left to us, the subreaper, when the runtime ends
        assert (a.state, a.status) == (State.RUNNING, None)


# ---- before start -------------------------------------------------------------------------


async def test_before_start(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """A shim that dies before start takes the process with it, and start fails at once."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        os.kill(shim_of(root / "a/init"), signal.SIGKILL)
        status = await a.wait()
        assert_lost(status, signal=signal.SIGKILL)
        assert a.state is State.STOPPED
        for _ in range(2):
            with pytest.raises(ShimExited, match="before the start"):
                await a.start()
        await a.delete()
        await nothing_left()


async def test_before_start_unseen(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, nothing_left: NothingLeft
) -> None:
    """If the shim's death is still unseen, start fails too, and the runtime isn't even called."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        shim = shim_of(root / "a/init")
        os.kill(shim, signal.SIGKILL)
        wait_for(lambda: state_of(shim) == "Z", "the shim is dead")  # nothing else runs meanwhile
        with pytest.raises(ShimExited):
            await a.start()
        assert a.state is State.STOPPED and not (root / "a/init/log-start.json").exists()
        await a.delete()
        await nothing_left()


# ---- while the process runs ---------------------------------------------------------------


async def test_while_running(running: Container, root: Path) -> None:
    """A process whose shim is killed is killed too, and ends with the kernel's true word."""
    os.kill(shim_of(root / "a/init"), signal.SIGKILL)
    status = await running.wait()
    assert_lost(status, signal=signal.SIGKILL)
    assert running.state is State.STOPPED and state_of(pid_in(root / "a/init")) == ""


async def test_exec_while_running(running: Container, root: Path) -> None:
    """An exec whose shim is killed is killed alone: the container goes on."""
    job = await running.exec(["sleep", "61"], id="job")
    os.kill(shim_of(root / "a/job"), signal.SIGKILL)
    assert_lost(await job.wait(), signal=signal.SIGKILL)
    await until(lambda: not (root / "a/job").exists(), "its directory is gone")
    assert (running.state, running.status) == (State.RUNNING, None)


@fake_only
async def test_kernel_that_tells_nothing(
    running: Container, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel doesn't tell how a process ended, that is unknown, and never made up."""
    monkeypatch.setattr(PidFd, "wait_status", lambda self: None)
    os.kill(shim_of(root / "a/init"), signal.SIGKILL)
    status = await running.wait()
    assert (status.cause, status.source, int(status)) == (Cause.UNKNOWN, Source.INFERENCE, 255)
    assert status.why is not None and "shim was lost" in status.why
    assert running.returncode == 255


@pytest.mark.parametrize("then", ["stuck", "killed"])
async def test_stopped_while_init_ends(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    workdir: Path,
    then: str,
    nothing_left: NothingLeft,
) -> None:
    """A shim that is stopped while the process exits is given up; the true status isn't lost."""
    async with supervisor(root, deadlines=IMPATIENT) as sup:
        a = await sup.create("a", bundle("sh", "-c", "read x; exit 42"), stdin=-1)
        await a.start()
        shim = shim_of(root / "a/init")
        os.kill(shim, signal.SIGSTOP)
        assert a.stdin is not None
        await a.stdin.send_all(b"go\n")
        if then == "killed":
            await until(lambda: state_of(pid_in(root / "a/init")) == "Z", "it has exited")
            os.kill(shim, signal.SIGKILL)
        with trio.fail_after(10):
            assert_lost(await a.wait(), code=42)
        await a.delete()
        await nothing_left()


async def test_stopped_for_a_moment(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A shim that comes back in time records the end and isn't killed."""
    async with (
        supervisor(root, deadlines=Deadlines(shim=60)) as sup,
        await sup.create("a", bundle("sh", "-c", "read x; exit 42"), stdin=-1) as a,
    ):
        await a.start()
        shim = shim_of(root / "a/init")
        os.kill(shim, signal.SIGSTOP)
        assert a.stdin is not None
        await a.stdin.send_all(b"go\n")
        await until(lambda: state_of(pid_in(root / "a/init")) == "Z", "it has exited")
        await trio.testing.wait_all_tasks_blocked()
        assert a.status is None
        os.kill(shim, signal.SIGCONT)
        status = await a.wait()
        assert (status.source, status.code) == (Source.SHIM, 42)


@real_only
@pytest.mark.parametrize("how", ["its own", "killed", "deleted"])
async def test_stopped_exec_shim_while_init_ends(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    nothing_left: NothingLeft,
) -> None:
    """A stopped exec shim, whose zombie holds init's pid namespace, doesn't hold up init's end."""
    end_stuck_shim = _watch._end_stuck_shim

    def but_no_other(task: ProcessTask) -> None:
        end_stuck_shim(task)
        a._core.shared.patrol._seconds = 60.0  # init ends after this, and init's shim isn't stuck

    monkeypatch.setattr(_watch, "_end_stuck_shim", but_no_other)
    async with supervisor(root, deadlines=IMPATIENT) as sup:
        a = await sup.create("a", bundle("sh", "-c", "read x; exit 42"), stdin=-1)
        await a.start()
        job = await a.exec(["sleep", "61"], id="job")
        os.kill(shim_of(root / "a/job"), signal.SIGSTOP)
        assert a.stdin is not None
        with trio.fail_after(10):
            if how == "its own":
                await a.stdin.send_all(b"go\n")
            elif how == "killed":
                a.kill()
            else:
                await a.delete(force=True)
            status = await a.wait()
            assert_lost(await job.wait(), signal=signal.SIGKILL)
        code, number = (42, None) if how == "its own" else (None, signal.SIGKILL)
        assert (status.source, status.code, status.signal) == (Source.SHIM, code, number)
        await a.delete()
        await nothing_left()


async def test_stopped_shims_and_delete(running: Container, root: Path) -> None:
    """Deleting by force gets rid of shims that are stopped, of init and of an exec."""
    await running.exec(["sleep", "61"], id="job")
    shims = [shim_of(root / "a" / name) for name in ("init", "job")]
    for shim in shims:
        os.kill(shim, signal.SIGSTOP)
    os.kill(pid_in(root / "a/job"), signal.SIGKILL)  # the fake's delete doesn't know the exec
    with trio.fail_after(10):
        await running.delete(force=True)
    assert left(root) == [] and [state_of(shim) for shim in shims] == ["", ""]


def test_gone_between_open_and_write(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line to a shim that ends between open and write raises ProcessEnded.

    The error was once BrokenPipeError, which came out of a create that was being undone.
    """
    control = str(workdir / "control")
    os.mkfifo(control)
    reader = os.open(control, os.O_RDONLY | os.O_NONBLOCK)
    opened = os.open

    def open_and_lose(*arguments: Any) -> int:
        fd = opened(*arguments)
        os.close(reader)
        return fd

    monkeypatch.setattr(os, "open", open_and_lose)
    with pytest.raises(ProcessEnded):
        send_line(control, "2 9 0")
