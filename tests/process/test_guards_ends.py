"""Guards of how an end is noticed and told, without containers: brought about here, one by one."""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import Cause, Deadlines, ProcessEnded, TooManyFiles
from supervisor.children._patrol import Patrol
from supervisor.children._pidfd import PidFd
from supervisor.process._verdict import LostProcess
from supervisor.shim import ExitFifo, send_line
from supervisor.state import ProcessLayout
from supervisor.system import look_at
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import reap, state_of, until
from tests.support.descriptors import only
from tests.support.leaks import wait_for


@pytest.mark.runtimes("runc", "crun")
async def test_one_that_is_reaped_between_two_looks(
    supervisor: OpenSupervisor, bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for one that runs on: that a program couldn't be run was then never said."""

    def after_its_end(pid: int) -> object:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not os.path.exists(f"/proc/{pid}"), "its shim has reaped it")
        return look_at(pid)

    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        await box.start()
        assert not box.init._task.ending()
        with monkeypatch.context() as patch:
            patch.setattr("supervisor.process._task.look_at", after_its_end)
            assert box.init._task.ending()


# ---- the shim's fifos ------------------------------------------------------------------------


async def test_waiting_for_an_exit_that_is_closed(tmp_path: Path) -> None:
    """Whoever waits for the end hears that the fifo was closed, and doesn't wait for ever."""
    os.mkfifo(tmp_path / "exit")
    fifo = ExitFifo(str(tmp_path / "exit"))
    writer = os.open(tmp_path / "exit", os.O_WRONLY)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await fifo.wait_end()

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            fifo.close()
    os.close(writer)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[str]:
    """A `control` that somebody holds open and doesn't read."""
    path = str(tmp_path / "control")
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    yield path
    os.close(fd)


def test_a_line_without_a_descriptor(control: str) -> None:
    """A shim that couldn't be told for lack of a descriptor isn't said to be gone."""
    with only(0), pytest.raises(TooManyFiles):
        send_line(control, "3 0 0")
    send_line(control, "3 0 0")


def test_a_line_that_finds_no_room(control: str) -> None:
    """Nor is one that reads no lines just now; but one that isn't there is."""
    with pytest.raises(BlockingIOError) as caught:
        while True:
            send_line(control, "3 0 0")
    assert not isinstance(caught.value, ProcessEnded)
    with pytest.raises(ProcessEnded):
        send_line(f"{control}-of-nobody", "3 0 0")


# ---- the patrol ------------------------------------------------------------------------------


@pytest.fixture
def children() -> Iterator[list[PidFd]]:
    """Children of ours that sleep; they are killed and reaped in the end."""
    held: list[PidFd] = []
    yield held
    for child in held:
        if child.fd >= 0:
            kill(child)
            child.reap()
            os.close(child.fd)


def sleeping(held: list[PidFd]) -> PidFd:
    """Spawn one."""
    held.append(PidFd.spawn([sys.executable, "-ISc", "import signal; signal.pause()"]))
    return held[-1]


def kill(child: PidFd) -> None:
    """Kill a child and wait, with nothing else running, until it has ended."""
    child.kill()
    assert select.select([child.fd], [], [], 10)[0]


@contextlib.asynccontextmanager
async def patrolling(seconds: float) -> AsyncIterator[Patrol]:
    """Have a patrol go round."""
    patrol = Patrol(seconds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(patrol.run)
        yield patrol
        nursery.cancel_scope.cancel()
    patrol.close()


async def test_a_number_that_was_used_again(children: list[PidFd]) -> None:
    """A descriptor that has the number of an earlier one isn't taken for that one."""
    told: list[str] = []
    gc.collect()  # no lower number becomes free meanwhile
    async with patrolling(0.1) as patrol:
        first = sleeping(children)
        fd = first.fd
        with patrol.watching(first, lambda: told.append("first")):
            kill(first)
            await wait_all_tasks_blocked()  # it has noticed
        first.reap()
        first.close()
        second = sleeping(children)
        assert second.fd == fd
        with patrol.watching(second, lambda: told.append("second")):
            await trio.sleep(0.2)
            assert told == []
            kill(second)
            with trio.fail_after(10):
                await until(lambda: told, "its notice")
        assert told == ["second"]


async def test_an_end_is_noticed_once(children: list[PidFd]) -> None:
    """A process that has ended and isn't reaped wakes the patrol once, and not all the time."""
    told: list[str] = []
    async with patrolling(0.02) as patrol:
        child = sleeping(children)
        with trio.fail_after(10), patrol.watching(child, lambda: told.append("child")):
            kill(child)
            await until(lambda: told, "its notice")
            await wait_all_tasks_blocked(0.05)
            assert told == ["child"]


# ---- pidfds ----------------------------------------------------------------------------------


def test_nothing_is_run_that_could_not_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor for the child there is no child, not even one that is killed at once."""
    ran: list[object] = []
    spawn = os.posix_spawn

    def recorded(*args: Any, **options: Any) -> int:
        ran.append(args[0])
        return spawn(*args, **options)

    monkeypatch.setattr(os, "posix_spawn", recorded)
    with only(0), pytest.raises(OSError, match="Too many open files"):
        PidFd.spawn(["/bin/true"])
    assert ran == []


# ---- verdicts --------------------------------------------------------------------------------


def remains(
    path: Path, *, process: PidFd | None = None, keep: bool = False, seconds: float = 60
) -> LostProcess:
    """Return what is left of a process whose directory is ``init``, below ``path``."""
    shared: Any = SimpleNamespace(deadlines=Deadlines(kill=seconds))
    return LostProcess(
        shared=shared,
        layout=ProcessLayout(str(path / "init")),
        process=process,
        cgroup=None,
        lost=None,
        keep=keep,
    )


async def test_a_foreign_one_that_is_deleted(tmp_path: Path) -> None:
    """Where its directory has gone nobody will say any more how it ended."""
    with trio.fail_after(5):
        status = await remains(tmp_path).foreign_verdict()
    assert status.cause is Cause.UNKNOWN
    assert status.why == "the supervisor that holds it doesn't say how it ended"


async def test_a_foreign_one_that_is_kept(
    tmp_path: Path, children: list[PidFd], autojump_clock: trio.testing.MockClock
) -> None:
    """One that goes on without its shim hasn't ended, however long that is."""
    (tmp_path / "init").mkdir()
    child = sleeping(children)
    left = remains(tmp_path, process=child, keep=True, seconds=0.1)
    told = []

    async def wait() -> None:
        told.append(await left.foreign_verdict())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(1000)
        assert told == []
        kill(child)
    assert [status.cause for status in told] == [Cause.UNKNOWN]


async def test_a_record_that_cannot_be_opened(tmp_path: Path) -> None:
    """It is told why the end isn't known; the supervisor goes on."""
    (tmp_path / "init").mkdir()
    (tmp_path / "init/exitStatus").symlink_to("exitStatus")
    status = await remains(tmp_path).verdict()
    assert status.why is not None
    assert status.why.startswith("the shim's record can't be read: ")


KEEPING = """
import signal, subprocess
print(subprocess.Popen(["sleep", "1000"]).pid, flush=True)
signal.pause()
"""


async def test_one_that_nobody_reaps(tmp_path: Path) -> None:
    """Its parent, whoever that is, may never ask how it ended: then nobody knows."""
    (tmp_path / "init").mkdir()
    with subprocess.Popen([sys.executable, "-ISc", KEEPING], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            process = PidFd.open(pid)
            assert process is not None
            with contextlib.closing(process), trio.fail_after(10):
                status = await remains(tmp_path, process=process, seconds=0.1).verdict()
            assert state_of(pid) == "Z"
            assert status.cause is Cause.UNKNOWN
        finally:
            parent.kill()
    await reap(pid)
