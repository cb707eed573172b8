"""Deletes: in which order all of a container goes, and what one that fails leaves."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
import trio.testing

from supervisor import PIPE, CleanupIncomplete, Deadlines, ExitStatus, Source, State
from supervisor.cgroups import Hierarchies
from supervisor.container import _delete
from supervisor.observers import Observation, Point
from supervisor.process._life import Life
from supervisor.runtime import ContainerRuntime
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import hurried, left, shim_of, state_of, until
from tests.support.descriptors import only
from tests.support.points import Once
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")


QUICK = 10.0
"""A timeout far from both extremes: what takes no time, and a deadline that must not be waited
for."""


async def test_delete_goes_on_when_an_end_is_late(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A process that isn't known to be dead in time after SIGKILL doesn't keep the container from
    being deleted."""
    async with supervisor(root, deadlines=Deadlines(kill=0.1, shim=0.5)) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        os.kill(shim_of(root / "a/init"), signal.SIGSTOP)  # so the status isn't recorded
        await a.delete(force=True)
        assert a.state is State.DELETED and left(root) == []


async def test_delete_of_a_hopeless_exec_is_bounded(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exec whose exit status never becomes known doesn't keep its container for ever."""

    wait_over = Life.wait_over

    async def for_ever(life: Life) -> None:
        if life._id != "init":
            await trio.sleep_forever()
        await wait_over(life)

    monkeypatch.setattr(Life, "wait_over", for_ever)
    async with supervisor(deadlines=Deadlines(cleanup=2)) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        await a.exec(["sleep", "61"])
        with trio.fail_after(QUICK):
            await a.delete(force=True)


async def test_a_cgroup_that_is_never_empty(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A clean-up that makes no progress ends at the deadline, and reports that it took too long."""

    async def for_ever(*_: object) -> None:
        await trio.sleep_forever()

    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("true"))
        with monkeypatch.context() as patch, hurried(a, cleanup=1):
            patch.setattr(Hierarchies, "remove", for_ever)
            with pytest.raises(CleanupIncomplete, match="too long"):
                await a.delete()
        await a.delete()


async def test_streams_of_execs_are_closed(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A kept exec object of a deleted container keeps no descriptor open."""
    async with supervisor() as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        job = await a.exec(["sleep", "61"], stdin=PIPE, stdout=PIPE)
        await a.delete(force=True)
        assert job.stdin is not None and job.stdout is not None
        with pytest.raises(trio.ClosedResourceError):
            await job.stdout.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await job.stdin.send_all(b"words")


async def test_execs_have_ended_before_anything_is_removed(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Each exec is killed, and its exit status known, before the directory that the shim writes to
    is removed."""
    ends: list[ExitStatus | None] = []

    def observe(seen: Observation) -> None:
        if seen is Point.PROCESSES_ENDED:
            ends.extend(job.status for job in jobs)

    async with supervisor(root, _observer=observe) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        jobs = [await a.exec(["sleep", "61"]) for _ in range(3)]
        await a.delete(force=True)
        assert [end and (end.source, end.signal) for end in ends] == [
            (Source.SHIM, signal.SIGKILL)
        ] * 3


@pytest.mark.runtimes("runc")
async def test_what_the_runtime_cannot_kill(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    choice: Choice,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that entered the cgroup from outside keeps the runtime from deleting the cgroup.

    The supervisor kills the process, and the process takes its time to end.
    """
    stranger = subprocess.Popen(["/bin/sleep", "600"], stdin=subprocess.DEVNULL)
    runtime = workdir / "runtime"
    alive = f"grep -q sleep /proc/{stranger.pid}/cmdline"  # a zombie has none
    runtime.write_text(
        f'#!/bin/sh\ncase "$*" in *" delete "*) {alive} && exit 1;; esac\n'
        f'exec {shutil.which(choice.name)} "$@"\n'
    )
    runtime.chmod(0o755)

    end = threading.Timer(0.2, stranger.kill)

    def kill(*_: object) -> None:
        if end.ident is None:
            end.start()

    def observe(seen: Observation) -> None:
        if seen is Point.PROCESSES_ENDED:
            for directory in a._core.shared.hierarchies.directories(a._core.record.cgroup or ""):
                Path(directory, "cgroup.procs").write_text(str(stranger.pid))
            monkeypatch.setattr(Hierarchies, "kill", kill)

    try:
        async with supervisor(runtime=str(runtime), _observer=observe) as sup:
            a = await sup.create("a", bundle("sleep", "60"))
            await a.start()
            await a.delete(force=True)
            assert a.state is State.DELETED
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_shim_that_takes_its_time_is_reaped(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a delete returns, the task that watches the shim has reaped the shim."""

    async def too_early(*_: object) -> None:
        """Show what a delete sees of a shim that has released its lock but hasn't exited yet."""

    monkeypatch.setattr(_delete, "_await_shims", too_early)
    async with supervisor(root, deadlines=Deadlines(shim=20)) as sup:
        a = await sup.create("a", bundle("echo", "words"), stdout=PIPE)
        await a.start()
        assert (await a.wait()).code == 0
        shim = shim_of(root / "a/init")  # the shim stays for the words until their fifo is gone
        await a.delete()
        assert state_of(shim) == ""


async def test_a_shim_has_one_owner(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A delete opens no shim that a task watches: only the task waits for the shim, and reaps
    it."""

    def adopt(layout: object) -> None:
        raise AssertionError(f"{layout} was opened")

    monkeypatch.setattr(_delete.Shim, "adopt", adopt)
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("echo", "words"), stdout=PIPE)
        await a.start()
        assert (await a.wait()).code == 0
        shim = shim_of(root / "a/init")  # the shim stays for the words
        await a.delete()
        assert state_of(shim) == "" and left(root) == []


async def test_a_stuck_shim_is_killed_in_a_delete(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A delete kills a stopped shim that stays for unread output, after the deadline."""
    async with supervisor(root, deadlines=Deadlines(shim=0.3)) as sup:
        a = await sup.create("a", bundle("echo", "words"), stdout=PIPE)
        await a.start()
        assert (await a.wait()).code == 0
        shim = shim_of(root / "a/init")
        os.kill(shim, signal.SIGSTOP)
        with trio.fail_after(QUICK):
            await a.delete()
        assert state_of(shim) == "" and left(root) == []


async def test_a_full_control_fifo(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A shim that no longer reads its control fifo can't be told to exit: the shim is killed all
    the same."""
    async with supervisor(root, deadlines=Deadlines(shim=0.3)) as sup:
        a = await sup.create("a", bundle("echo", "words"), stdout=PIPE)
        await a.start()
        assert (await a.wait()).code == 0
        os.kill(shim_of(root / "a/init"), signal.SIGSTOP)
        control = os.open(root / "a/init/control", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(control, b"\n" * 4096)
        except BlockingIOError:
            os.close(control)
        await a.delete()
        assert a.state is State.DELETED and left(root) == []


async def test_a_cancelled_block_deletes(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Leaving an ephemeral supervisor by a cancellation deletes too, and at once.

    The tasks that watch the processes go on for the delete, which would wait in vain for the exit
    statuses.
    """
    begun = trio.current_time()
    with trio.CancelScope() as scope:
        async with supervisor() as sup:
            a = await sup.create("a", bundle("sleep", "60"))
            await a.start()
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught and a.state is State.DELETED
    assert a.status is not None and trio.current_time() - begun < QUICK


@pytest.mark.parametrize("step", [(ContainerRuntime, "delete"), (Hierarchies, "remove")])
async def test_a_step_that_fails_is_told(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    step: tuple[type, str],
) -> None:
    """Whatever error the system reports at a step of a delete, the container is listed as
    broken."""

    async def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, "no memory just now")

    async with supervisor() as sup:
        a = await sup.create("a", bundle("true"))
        with monkeypatch.context() as patch:
            patch.setattr(*step, fail)
            with pytest.raises(CleanupIncomplete, match="no memory just now"):
                await a.delete()
        assert list(sup.broken) == ["a"]
        await a.delete()
        assert dict(sup.broken) == {}


async def test_rubbish_in_the_shim_file(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A ``shim`` file with rubbish counts as missing, also while that shim stays for its output:
    the rubbish once raised from every delete."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        job = await a.exec(["echo", "words"], stdout=PIPE)
        await until(lambda: job.status is not None, "its end")  # a zombie that was never waited for
        (root / "a" / job.id / "shim").write_text("rubbish")
        await a.delete(force=True)
        assert a.state is State.DELETED and left(root) == []


async def test_no_descriptor_for_the_last_steps(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Where descriptors run out in the last steps, the container is broken, and can be deleted
    later."""
    with contextlib.ExitStack() as scarce:
        take_all = Once(Point.CGROUP_REMOVED, lambda: scarce.enter_context(only(0)))
        async with supervisor(root, _observer=take_all) as sup:
            a = await sup.create("a", bundle("true"))
            with pytest.raises(CleanupIncomplete, match="Too many open files"):
                await a.delete()
            scarce.close()
            assert a.state is State.BROKEN and list(sup.broken) == ["a"]
            await a.delete()
            assert a.state is State.DELETED and not sup.broken


async def test_delete_lets_go_of_unread_output(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A delete tells a shim that stays for unread output to exit: the output needn't be given up
    first."""
    async with supervisor(root, deadlines=Deadlines(shim=20)) as sup:
        a = await sup.create("a", bundle("echo", "words"), stdout=PIPE)
        await a.start()
        assert (await a.wait()).code == 0
        begun = trio.current_time()
        await a.delete()
        assert trio.current_time() - begun < 10
