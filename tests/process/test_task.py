"""The task of a process, from the launch or the adoption until the shim is gone."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import trio

from supervisor import PIPE, Cause, Deadlines, Source, TooManyFiles
from supervisor.cgroups import Hierarchies
from supervisor.observers import Observation, Point
from supervisor.shim import ExitFifo
from supervisor.stdio import Streams
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import pid_in, shim_of, state_of, until
from tests.support.leaks import wait_for

pytestmark = pytest.mark.runtimes("fake")


async def test_only_the_owner_kills_a_stuck_shim(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An onlooker leaves a stopped shim alone, because the shim may still record the exit status;
    only the owner kills it."""
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
    """A supervisor that closes waits for a shim that is about to end: no later supervisor would
    reap it."""

    async def for_ever(_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("supervisor.process._watch._LAST_MOMENT_SECONDS", 10.0)
    if not known:
        monkeypatch.setattr(ExitFifo, "wait_end", for_ever)
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("echo", "words"), stdout=PIPE)
        await a.start()
        if known:
            assert (await a.wait()).code == 0
        else:  # the process has ended, and its task is told to go before noticing
            await until(lambda: not a.init._task.handles.watched(), "its end")
        shim = shim_of(root / "a/init")
        reader = os.open(root / "a/init/stdout", os.O_RDONLY | os.O_NONBLOCK)
        timer = threading.Timer(0.3, os.read, (reader, 100))  # the shim stays until this is read
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
    """A process that has gone before it was held still has a known pid and exit status."""
    gone: list[int] = []

    def observe(seen: Observation) -> None:
        if seen is Point.REPORTED:
            gone.append(pid_in(root / "a/init"))
            os.kill(gone[0], signal.SIGKILL)
            wait_for(lambda: state_of(gone[0]) == "", "its reaping")

    async with supervisor(root, _observer=observe) as sup:
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


@pytest.mark.parametrize("how", ["killed by us", "exited", "an exec killed itself"])
async def test_not_every_end_is_out_of_memory(
    supervisor: OpenSupervisor,
    bundle: MakeBundle,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """Not every end is out of memory: the cgroup may have counted a kill that didn't end this
    process."""
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


async def test_an_end_that_was_settled_stays(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settled exit status isn't settled again: less evidence is left each time."""
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        with monkeypatch.context() as patch:
            patch.setattr(Hierarchies, "oom_kills", lambda *_: 1)
            a.init._task.handles.process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]
            settled = await a.wait()
        assert settled.cause is Cause.OUT_OF_MEMORY
    async with supervisor(root) as sup:
        with trio.fail_after(10):
            await sup["a"].init._task.life.wait_gone()  # the evidence is gone
        assert sup["a"].status == settled
        await sup["a"].delete()
