"""What is known of a process and its shim, and the verdict on how the process ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from supervisor import Cause, Deadlines
from supervisor.children._pidfd import PidFd
from supervisor.process._verdict import LostProcess
from supervisor.shim import Shim
from supervisor.state import ProcessLayout
from supervisor.system import look_at
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.children import kill, sleeping
from tests.support.containers import assert_lost, pid_in, reap, shim_of, state_of, until

pytestmark = pytest.mark.runtimes("fake")


@pytest.mark.runtimes("runc", "crun")
async def test_a_zombie_of_a_stopped_shim_is_no_stranger(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The zombie child of a stopped shim is recognized by the parent pid, without a cgroup; so a
    stuck shim is found out."""
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
    """A shim that is just ending, and can't be recognized any more a moment before it is a zombie,
    is our child all the same."""
    layout = ProcessLayout(str(tmp_path))
    process = PidFd.spawn(["/bin/sleep", "0.02"])
    now = look_at(process.pid)
    assert now is not None
    Path(layout.shim).write_text(f"{process.pid} {now.start_time}\n")
    monkeypatch.setattr("supervisor.shim._launch._is_ending", lambda pid: True)
    assert Shim.adopt(layout).pid is None
    assert state_of(process.pid) == ""
    process.close()


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


@pytest.mark.runtimes("runc", "crun")
async def test_a_foreign_one_that_is_deleted(tmp_path: Path) -> None:
    """The end of a foreign process whose directory has gone stays unknown."""
    with trio.fail_after(5):
        status = await remains(tmp_path).foreign_verdict()
    assert status.cause is Cause.UNKNOWN
    assert status.why == "the owner didn't record how the process ended"


async def test_a_foreign_one_that_is_kept(
    tmp_path: Path, children: list[PidFd], autojump_clock: trio.testing.MockClock
) -> None:
    """A foreign process that was kept without a shim hasn't ended, however long that lasts."""
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


@pytest.mark.runtimes("runc", "crun")
async def test_a_record_that_cannot_be_opened(tmp_path: Path) -> None:
    """A record that can't be opened is the reason of an unknown end; the supervisor goes on."""
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
    """A process whose parent never reaps it has an unknown end."""
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
