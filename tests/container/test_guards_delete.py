"""Guards of stop, kill and delete that only a rare moment needs, one by one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from supervisor import (
    PIPE,
    CleanupIncomplete,
    Container,
    Deadlines,
    ExitStatus,
    ProcessEnded,
    RuntimeFailed,
    Source,
    State,
    TooManyFiles,
)
from supervisor.cgroups import Hierarchies
from supervisor.container import _dispose as disposing
from supervisor.process._task import ProcessTask
from supervisor.runtime import ContainerRuntime
from supervisor.state import ContainerRecord, Intent, load
from supervisor.system import Lock
from supervisor.values._points import Point, pass_by
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import hurried, left, shares_host_pids, shim_of, state_of, until
from tests.support.descriptors import only
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")

QUICK = 10.0
"""Far from both: what takes no time, and a deadline that must not be waited for."""


# ---- stop and kill ------------------------------------------------------------------------


@pytest.mark.runtimes("runc")
async def test_kill_when_only_init_has_gone(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Init has ended, and the others in its cgroup are killed all the same."""
    spec = shares_host_pids(bundle("sh", "-c", "sleep 600 & exit 3"))
    async with supervisor() as sup, await sup.create("a", spec) as a:
        await a.start()
        assert (await a.wait()).code == 3
        assert len(a.init._task.container_pids()) == 1
        with pytest.raises(ProcessEnded):
            a.kill()
        await until(lambda: a.init._task.container_pids() == set(), "the cgroup is empty")


async def test_kill_without_a_cgroup(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Where no cgroups can be made a container has none: its init is what there is to kill."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        a._core.record = attrs.evolve(a._core.record, cgroup=None)
        await a.start()
        a.kill()
        assert (await a.wait()).signal == signal.SIGKILL


async def test_cancelled_stop_on_a_full_disk(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is over can't be put on record then; it is cancelled, and nothing else."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(a.stop, 60)
                await until(lambda: a._core.record.intent is not None, "it is being stopped")
                with monkeypatch.context() as patch:
                    patch.setattr("supervisor.container._core.write_whole", full)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def in_vain(a: Container) -> None:
    """Stop it by a signal that does nothing."""
    await a.stop(60, ask_with=signal.SIGCONT)


async def test_one_of_two_stops_is_cancelled(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The other one goes on, and is finished by the next open if we die now."""

    def intent() -> Intent | None:
        return load(ContainerRecord, str(root / "a/state.json")).intent

    async with supervisor(root) as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_vain, a)
            await trio.testing.wait_all_tasks_blocked(0.01)
            with trio.move_on_after(0.1):
                await in_vain(a)
            assert intent() is Intent.STOP
            nursery.cancel_scope.cancel()
        assert intent() is None


async def test_a_stop_is_cancelled_while_it_is_deleted(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """That it is being deleted stays on record."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_vain, a)
                await until(lambda: a._core.stops, "it is being stopped")
                a._core.intend(Intent.DELETE)
                scope.cancel()
        assert scope.cancelled_caught and a._core.record.intent is Intent.DELETE


async def test_stop_of_one_that_has_ended_by_itself(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """It isn't said to have been killed, though nobody here has noticed its end yet."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as a:
        await a.start()
        assert a.pid is not None
        a.terminate()
        with trio.fail_after(QUICK):
            while state_of(a.pid):  # until it was reaped; no task runs meanwhile, and none sees it
                time.sleep(0.001)  # noqa: ASYNC251
            stopped = await a.stop()
        assert (stopped.status.signal, stopped.escalated) == (signal.SIGTERM, False)


async def test_stop_escalates_just_when_it_ends_by_itself(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A SIGKILL that finds a zombie has done nothing."""
    async with supervisor() as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            assert a.init._task._process is not None and a.init._task._shim is not None
            a.init._task._shim._process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
            await until(lambda: state_of(a.init._task._shim.pid) == "T", "it reaps nobody")  # type: ignore
            a.init._task._process.send_signal(signal.SIGTERM)
            await until(lambda: state_of(a.pid or 0) == "Z", "its end")
            with hurried(a, kill=20):
                async with trio.open_nursery() as nursery:

                    async def stop() -> None:
                        stopped = await a.stop(0)
                        assert (stopped.status.signal, stopped.escalated) == (15, False)

                    nursery.start_soon(stop)
                    await trio.testing.wait_all_tasks_blocked()
                    a.init._task._shim._process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]


# ---- delete -------------------------------------------------------------------------------


async def test_delete_goes_on_when_an_end_is_late(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """One that isn't known to be dead in time after SIGKILL is deleted all the same."""
    async with supervisor(root, deadlines=Deadlines(kill=0.1, shim=0.5)) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        os.kill(shim_of(root / "a/init"), signal.SIGSTOP)  # so it doesn't record the end
        await a.delete(force=True)
        assert a.state is State.DELETED and left(root) == []


async def test_delete_of_a_hopeless_exec_is_bounded(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exec whose end nobody gets to know doesn't keep its container for ever."""

    async def for_ever(_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(ProcessTask, "wait_over", for_ever)
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
    """A clean-up that goes nowhere ends at its deadline, and says that it took too long."""

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
    """Whoever keeps an exec of a container that was deleted keeps no descriptor with it."""
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
    """Each is killed, and its end is known, while what its shim records still has its place."""
    ends: list[ExitStatus | None] = []

    def reach(point: Point) -> None:
        if point is Point.PROCESSES_ENDED:
            ends.extend(job.status for job in jobs)

    async with supervisor(root, reach=reach) as sup:
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
    """A process that has come into the cgroup by itself keeps the runtime from deleting it.

    It is killed, and takes its time to end.
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

    def reach(point: Point) -> None:
        if point is Point.PROCESSES_ENDED:
            for directory in a._core.shared.hierarchies.directories(a._core.record.cgroup or ""):
                Path(directory, "cgroup.procs").write_text(str(stranger.pid))
            monkeypatch.setattr(Hierarchies, "kill", kill)

    try:
        async with supervisor(runtime=str(runtime), reach=reach) as sup:
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
    """When a delete is done its shim has been reaped, by the task that watches it."""

    async def too_early(*_: object) -> None:
        """As it looks to a delete whose shim ends between its lock and its last breath."""

    monkeypatch.setattr(disposing, "_await_shims", too_early)
    async with supervisor(root, deadlines=Deadlines(shim=20)) as sup:
        a = await sup.create("a", bundle("echo", "words"), stdout=PIPE)
        await a.start()
        assert (await a.wait()).code == 0
        shim = shim_of(root / "a/init")  # it stays for the words until their fifo is gone
        await a.delete()
        assert state_of(shim) == ""


async def test_nobody_sees_half_a_directory(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is removed isn't there under its name any more before anything in it is gone."""
    seen: list[tuple[bool, bool]] = []
    remove = disposing._remove_tree

    def and_look(path: str) -> None:
        seen.append(((root / "a").exists(), os.path.basename(path).startswith(".deleted-")))
        with monkeypatch.context() as patch:
            patch.setattr(disposing, "_remove_tree", remove)
            remove(path)

    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("true"))
        monkeypatch.setattr(disposing, "_remove_tree", and_look)
        await a.delete()
        assert seen == [(False, True)]


async def test_a_stuck_shim_is_killed_in_a_delete(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A shim that was stopped while it stays for unread output is killed, after its time."""
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
    """A shim that reads nothing any more can't be told to let go: it is killed all the same."""
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


# ---- the end of a supervisor --------------------------------------------------------------


async def test_a_cancelled_block_deletes(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Leaving an ephemeral supervisor by a cancellation deletes too, and at once.

    The tasks that watch the processes go on for the delete, which would wait in vain for them.
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


# ---- sweeping -----------------------------------------------------------------------------


def test_sweeping_what_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever removes a new directory holds its lock, so that its maker can't get it then.

    It only looked whether somebody held it, and a quick maker went on in half a directory.
    """
    for name in (".new-empty", ".new-begun"):
        (tmp_path / name).mkdir()
    (tmp_path / ".new-begun/lock").touch()
    taken: list[Lock | None] = []
    remove = disposing.remove_directory

    def maker_is_quick(path: str) -> None:
        taken.append(Lock.take(os.path.join(path, "lock")))
        remove(path)

    monkeypatch.setattr(disposing, "remove_directory", maker_is_quick)
    disposing.sweep(str(tmp_path))
    assert taken == [None] and os.listdir(tmp_path) == []


def test_sweeping_what_is_none_of_ours(tmp_path: Path) -> None:
    """A file with a name like ours is left, and keeps nothing else from being removed."""
    (tmp_path / ".new-1").touch()
    (tmp_path / ".deleted-1").touch()
    (tmp_path / ".new-2").mkdir()
    disposing.sweep(str(tmp_path))
    assert ".new-2" not in os.listdir(tmp_path)


def test_sweeping_without_descriptors(tmp_path: Path) -> None:
    """A root that can't be listed just now isn't taken for an empty one."""
    with only(0), pytest.raises(TooManyFiles):
        disposing.sweep(str(tmp_path))


# ---- removing -----------------------------------------------------------------------------


def test_what_cannot_be_removed_stays_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One file that can't be removed doesn't keep the others, and is no error."""
    (tmp_path / "a/deep").mkdir(parents=True)
    for name in ("one", "two", "deep/three"):
        (tmp_path / "a" / name).touch()
    stuck: list[str] = []
    unlink = os.unlink

    def fail_first(path: str, **named: int) -> None:
        if not stuck:
            stuck.append(os.path.basename(path))
            raise PermissionError(path)
        unlink(path, **named)

    monkeypatch.setattr("supervisor.container._dispose.os.unlink", fail_first)
    disposing.remove_directory(str(tmp_path / "a"))
    [doomed] = tmp_path.iterdir()
    assert doomed.name.startswith(".deleted-")
    assert [path.name for path in doomed.rglob("*") if path.is_file()] == stuck
    monkeypatch.undo()
    disposing.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """What a link in a directory of ours names isn't ours."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/link").symlink_to(tmp_path / "other")
    disposing.remove_directory(str(tmp_path / "a"))
    assert os.listdir(tmp_path) == ["other"] and os.listdir(tmp_path / "other") == ["file"]


@pytest.mark.parametrize("step", [(ContainerRuntime, "delete"), (Hierarchies, "remove")])
async def test_a_step_that_fails_is_told(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    step: tuple[type, str],
) -> None:
    """Whatever the system says at a step of a delete, the container is listed as broken."""

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
    """It counts as missing, also while that shim stays for its output; once it raised from delete,
    and the container could never be deleted again."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        job = await a.exec(["echo", "words"], stdout=PIPE)
        await until(lambda: job.status is not None, "its end")  # which nobody has waited for
        (root / "a" / job.id / "shim").write_text("rubbish")
        await a.delete(force=True)
        assert a.state is State.DELETED and left(root) == []


async def test_no_descriptor_for_the_last_steps(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """What fails there leaves a broken container, which can be deleted when the cause has gone."""
    with contextlib.ExitStack() as scarce:

        def reach(point: Point) -> None:
            if point is Point.CGROUP_REMOVED:
                scarce.enter_context(only(0))

        async with supervisor(root, reach=reach) as sup:
            a = await sup.create("a", bundle("true"))
            with pytest.raises(CleanupIncomplete, match="Too many open files"):
                await a.delete()
            scarce.close()
            assert a.state is State.BROKEN and list(sup.broken) == ["a"]
            a._core.shared = attrs.evolve(a._core.shared, reach=pass_by)
            await a.delete()
            assert a.state is State.DELETED and not sup.broken


async def test_a_failed_create_that_has_no_descriptor_to_undo_itself(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, root: Path
) -> None:
    """Its own error is what is raised, and what is left is listed, and let go of."""
    with contextlib.ExitStack() as scarce:

        def reach(point: Point) -> None:
            if point is Point.CGROUP_REMOVED:
                scarce.enter_context(only(0))

        async with supervisor(root, runtime=choice.runtime("fail-create"), reach=reach) as sup:
            with pytest.raises(RuntimeFailed):
                await sup.create("a", bundle("true"))
            scarce.close()
            assert list(sup.broken) == ["a"]
            free = Lock.take(str(root / "a/lock"))
            assert free is not None
            free.release()
    async with supervisor(root) as sup:
        assert not sup.broken and left(root) == []


async def test_an_init_that_cannot_be_killed_for_now(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime's delete does it then."""

    def scarce(*_: object) -> None:
        raise TooManyFiles("none left")

    async with supervisor() as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        with monkeypatch.context() as patch:
            patch.setattr(ProcessTask, "send_signal", scarce)
            await a.delete(force=True)
        assert a.state is State.DELETED
