"""Guards of the supervisor that only a rare moment needs: brought about here, one by one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import attrs
import pytest
import trio

from supervisor import (
    PIPE,
    Cause,
    Deadlines,
    IllegalTransition,
    RuntimeFailed,
    Source,
    State,
    TooManyFiles,
)
from supervisor.cgroups import Hierarchies
from supervisor.children._pidfd import PidFd
from supervisor.container._exec import end_unreported
from supervisor.shim import ExitFifo, Shim
from supervisor.state import ProcessLayout
from supervisor.stdio import Streams
from supervisor.system import Lock, look_at
from supervisor.values._points import Point
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import assert_lost, pid_in, read_all, shim_of, state_of, until
from tests.support.leaks import wait_for
from tests.support.runtimes import Choice

pytestmark = pytest.mark.runtimes("fake")


async def test_a_fifo_whose_writer_has_gone(tmp_path: Path) -> None:
    """An `exit` that was opened after its writer went wakes nobody: it is read first."""
    os.mkfifo(tmp_path / "exit")
    fifo = ExitFifo(str(tmp_path / "exit"))
    with trio.fail_after(5):
        await fifo.wait_end()
    fifo.close()


async def test_only_the_owner_kills_a_stuck_shim(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """One that merely watches leaves a stopped shim alone: it may still record the end."""
    async with supervisor(root, deadlines=Deadlines(shim=60)) as first:
        async with await first.create("a", bundle("sleep", "60")) as owner:
            await owner.start()
            async with supervisor(root, deadlines=Deadlines(shim=0.05)) as second:
                other = second["a"]
                os.kill(shim_of(root / "a/init"), signal.SIGSTOP)
                owner.kill()
                await until(lambda: state_of(pid_in(root / "a/init")) == "Z", "its end")
                await trio.sleep(0.5)
                os.kill(shim_of(root / "a/init"), signal.SIGCONT)
                assert (await owner.wait()).source is Source.SHIM
                assert (await other.wait()).source is Source.SHIM


@pytest.mark.parametrize("known", [True, False])
async def test_a_shim_that_ends_while_we_close(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
) -> None:
    """A shim that is about to end is waited for: nobody would reap it later."""

    async def for_ever(_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("supervisor.process._task._LAST_MOMENT_SECONDS", 10.0)
    if not known:
        monkeypatch.setattr(ExitFifo, "wait_end", for_ever)
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("echo", "words"), stdout=PIPE)
        await a.start()
        if known:
            assert (await a.wait()).code == 0
        else:  # it has ended, and its task is told to go before it has noticed
            await until(lambda: not a.init._task.watched(), "its end")
        shim = shim_of(root / "a/init")
        reader = os.open(root / "a/init/stdout", os.O_RDONLY | os.O_NONBLOCK)
        timer = threading.Timer(0.3, os.read, (reader, 100))  # it stays until this is read
        timer.start()
    timer.join()
    os.close(reader)
    assert state_of(shim) == ""
    monkeypatch.undo()
    async with supervisor(root) as sup:
        await sup["a"].delete()


async def test_a_process_that_has_gone_before_it_is_held(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Its pid is known all the same, and how it ended."""
    gone: list[int] = []

    def reach(point: Point) -> None:
        if point is Point.REPORTED:
            gone.append(pid_in(root / "a/init"))
            os.kill(gone[0], signal.SIGKILL)
            wait_for(lambda: state_of(gone[0]) == "", "its reaping")

    async with supervisor(root, reach=reach) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            status = await a.wait()
            assert (status.source, status.signal) == (Source.SHIM, signal.SIGKILL)
            assert [a.pid] == gone


async def test_an_adoption_that_fails_holds_nothing(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was opened for a process that can't be adopted is closed again, at once."""

    def fail(*_: object, **__: object) -> None:
        raise TooManyFiles("none is left", container="a")

    async with supervisor(root) as sup:
        await sup.create("a", bundle("sleep", "60"))
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(Streams, "open", fail)
        held: list[BaseException] = []  # as a user does who keeps the error: nothing is collected
        try:
            async with supervisor(root):
                pass
        except TooManyFiles as error:
            held.append(error)
        assert held
        assert len(os.listdir("/proc/self/fd")) == before
    async with supervisor(root) as sup:
        await sup["a"].delete(force=True)


@pytest.mark.runtimes("runc")
async def test_a_quick_program_lets_the_runtime_finish(
    supervisor: OpenSupervisor, bundle: MakeBundle, choice: Choice, workdir: Path
) -> None:
    """A start isn't killed because its program has ended: the runtime may have more to do."""
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
    """One that ran, and was lost then, is told that it has stopped; not that it never ran."""
    async with supervisor(root) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            os.kill(shim_of(root / "a/init"), signal.SIGKILL)
            assert (await a.wait()).source is not Source.SHIM
            with pytest.raises(IllegalTransition):
                await a.start()


async def test_stop_of_one_that_has_just_gone(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """It has ended and nobody here knows yet: stop finds nothing to ask, and that is no error."""
    async with supervisor(root) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            pid = pid_in(root / "a/init")
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: state_of(pid) == "", "its reaping")  # nothing else runs meanwhile
            assert (await a.stop()).status.cause is Cause.SIGNALLED


@pytest.mark.runtimes("runc")
@pytest.mark.parametrize("whose", ["init", "stranger", "stranger, without a cgroup", "garbage"])
async def test_a_failed_exec_ends_nobody_else(
    supervisor: OpenSupervisor, bundle: MakeBundle, whose: str
) -> None:
    """The pid file of an exec that failed may name anybody: only its own program is killed."""
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
    """Where nobody can look whether its program is left, the exec's own error is raised."""

    def fail(_: object) -> None:
        raise TooManyFiles("none is left", container="a")

    async with supervisor(root, runtime=choice.runtime("fail-exec")) as sup:
        async with await sup.create("a", bundle("sleep", "60")) as a:
            await a.start()
            monkeypatch.setattr("supervisor.container._exec.read_pid", fail)
            with pytest.raises(RuntimeFailed):
                await a.exec(["true"], id="job")
            assert not (root / "a/job").exists()


@pytest.mark.parametrize("how", ["killed by us", "exited", "an exec killed itself"])
async def test_not_every_end_is_out_of_memory(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """The cgroup has counted a kill, and yet it isn't what has ended this process."""
    monkeypatch.setattr(Hierarchies, "oom_kills", lambda *_: 1)
    async with supervisor() as sup:
        program = ("sh", "-c", "exit 3") if how == "exited" else ("sleep", "60")
        async with await sup.create("a", bundle(*program)) as a:
            await a.start()
            if how == "killed by us":
                a.kill()
            if how == "an exec killed itself":
                status = await (await a.exec(["sh", "-c", "kill -9 $$"])).wait()
            else:
                status = await a.wait()
            assert not status.oom_killed and status.cause is not Cause.OUT_OF_MEMORY


async def test_an_exec_stays_until_it_was_waited_for(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Its directory is there until somebody knows how it ended: until then its output is, too."""
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


async def test_an_end_that_was_settled_stays(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on record of an end is not found out again: there is less to see each time."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        with monkeypatch.context() as patch:
            patch.setattr(Hierarchies, "oom_kills", lambda *_: 1)
            a.init._task._process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]
            settled = await a.wait()
        assert settled.cause is Cause.OUT_OF_MEMORY
    async with supervisor(root) as sup:
        with trio.fail_after(10):
            await sup["a"].init._task.wait_shim_gone()  # there is no more to be seen of it
        assert sup["a"].status == settled
        await sup["a"].delete()


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


async def test_delete_lets_go_of_unread_output(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Delete tells a shim that stays for its output to go: it needn't be given up first."""
    async with supervisor(root, deadlines=Deadlines(shim=20)) as sup:
        a = await sup.create("a", bundle("echo", "words"), stdout=PIPE)
        await a.start()
        assert (await a.wait()).code == 0
        begun = trio.current_time()
        await a.delete()
        assert trio.current_time() - begun < 10


async def test_a_new_directory_that_somebody_sweeps_away(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Before its lock is in it a temporary directory looks abandoned: it is made again."""
    swept: list[Path] = []

    def reach(point: Point) -> None:
        if point is Point.TEMPORARY_MADE and not swept:
            swept.extend(root.glob(".new-*"))
            swept[0].rmdir()

    async with supervisor(root, reach=reach) as sup:
        async with await sup.create("a", bundle("true")):
            assert len(swept) == 1


async def test_a_new_directory_that_somebody_is_about_to_sweep_away(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """One whose lock a sweeper was quicker to take is left to him, and another one made."""
    swept: list[Path] = []
    locks: list[Lock | None] = []

    def reach(point: Point) -> None:
        if point is Point.TEMPORARY_MADE and len(swept) < 5:
            swept.extend(path for path in root.glob(".new-*") if path not in swept)
            locks.append(Lock.take(str(swept[-1] / "lock")))

    async with supervisor(root, reach=reach) as sup:
        async with await sup.create("a", bundle("true")) as a:
            assert len(swept) == 5 and a.state is State.CREATED
        for lock in locks:
            assert lock is not None
            lock.release()
        await sup.adopt()
        assert list(root.glob(".new-*")) == []


async def _stop_one_that_listens(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """It has its handler, and needn't be killed."""
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    async with supervisor() as sup:
        async with await sup.create("a", bundle("sh", "-c", script), stdout=PIPE) as a:
            await a.start()
            assert a.stdout is not None
            assert await a.stdout.receive_some() == b"ready\n"
            stopped = await a.stop(grace=20)
            assert (stopped.escalated, stopped.status.code) == (False, 7)


async def test_stop_asks_when_it_is_heard(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before it has its handler: the signal would be dropped."""
    answers, asked = [False, False, True], 0

    def hears(*_: object, **__: object) -> bool:
        nonlocal asked
        asked += 1
        return answers[min(asked, len(answers)) - 1]

    monkeypatch.setattr("supervisor.process._task.would_act_on", hears)
    await _stop_one_that_listens(supervisor, bundle)
    assert asked == len(answers)


@pytest.mark.parametrize("answers", [[*[None] * 6, False, True], [None] * 7, [None, True]])
async def test_stop_asks_who_blocks_it_after_a_while(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    answers: list[bool | None],
) -> None:
    """A program is started with all signals blocked: who had no handler yet was asked just then,
    dropped the signal a moment later, and was killed when its time was over."""
    left = iter(answers)
    monkeypatch.setattr("supervisor.process._task.would_act_on", lambda *_, **__: next(left))
    await _stop_one_that_listens(supervisor, bundle)
    assert list(left) == []


@pytest.mark.runtimes("runc", "crun")
async def test_a_zombie_of_a_stopped_shim_is_no_stranger(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """It is in no cgroup any more, but still its shim's child: so a stuck shim is found out."""
    async with supervisor(root) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
    shim, pid = shim_of(root / "a/init"), pid_in(root / "a/init")
    os.kill(shim, signal.SIGSTOP)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: state_of(pid) == "Z", "its end")
    async with supervisor(root, deadlines=Deadlines(shim=0.05)) as sup:
        with trio.fail_after(10):
            status = await sup["a"].wait()
        assert_lost(status, signal=signal.SIGKILL)
        await sup["a"].delete()


async def test_a_shim_that_is_just_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment before it is a zombie it can't be known any more; it is our child all the same."""
    layout = ProcessLayout(str(tmp_path))
    process = PidFd.spawn(["/bin/sleep", "0.02"])
    now = look_at(process.pid)
    assert now is not None
    Path(layout.shim).write_text(f"{process.pid} {now.start_time}\n")
    monkeypatch.setattr("supervisor.shim._launch._is_ending", lambda pid: True)
    assert Shim.adopt(layout).pid is None
    assert state_of(process.pid) == ""
    process.close()


async def test_a_shim_that_died_between_two_supervisors(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """It is a child of this program: the next supervisor in it reaps it."""
    async with supervisor(root) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
        shim = shim_of(root / "a/init")
    os.kill(shim, signal.SIGKILL)
    await until(lambda: state_of(shim) == "Z", "its end")
    async with supervisor(root) as sup:
        assert state_of(shim) == ""
        await sup["a"].delete(force=True)
