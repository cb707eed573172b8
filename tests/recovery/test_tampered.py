"""Files that contradict the facts: pids are used again, and another program may have written the
files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import attrs
import pytest

from supervisor import PIPE, Cause, Source, State
from supervisor.process._evidence import _descends
from supervisor.shim import Shim
from supervisor.system import start_time
from tests.conftest import MakeBundle, NothingLeft, OpenSupervisor
from tests.support.containers import end, pid_in, reap, shim_of

pytestmark = pytest.mark.runtimes("runc", "crun")

Leave = Callable[..., Awaitable[tuple[int, int]]]
Tampering = Callable[[Path, subprocess.Popen[bytes]], None]


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any container; the process must outlive the test."""
    with subprocess.Popen(["sleep", "3600"]) as process:
        yield process
        assert process.poll() is None, "a bystander was killed"
        process.kill()


def _pid(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    (init / "pid").write_text(f"{bystander.pid}\n")


def _pid_and_start_time(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    _pid(init, bystander)
    (init / "starttime").write_text(f"{start_time(bystander.pid)}\n")


def _start_time(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    (init / "starttime").write_text("1\n")


def _shim(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    (init / "shim").write_text(f"{bystander.pid} {start_time(bystander.pid)}\n")


def _everything(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    _pid_and_start_time(init, bystander)
    _shim(init, bystander)


def _boot(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    state = init.parent / "state.json"
    record = json.loads(state.read_text())
    state.write_text(json.dumps({**record, "bootId": "00000000-0000-0000-0000-000000000000"}))


def _pid_of_ourselves(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    (init / "pid").write_text(f"{os.getpid()}\n")
    (init / "starttime").write_text(f"{start_time(os.getpid())}\n")


def _rubbish_pid(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    (init / "pid").write_bytes(b"\0rubbish")


def _rubbish_start_time(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    (init / "starttime").write_bytes(b"9" * 100)


def _rubbish_shim(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    (init / "shim").write_bytes(b"\xff\xfe")


def _no_pid(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    (init / "pid").unlink()


def _pid_one(init: Path, bystander: subprocess.Popen[bytes]) -> None:
    (init / "pid").write_text("1")
    (init / "starttime").write_text(f"{start_time(1)}")


# What no longer identifies the process for certain.
of_process = [
    _pid,
    _pid_and_start_time,
    _start_time,
    _everything,
    _boot,
    _pid_of_ourselves,
    _pid_one,
    _rubbish_pid,
    _rubbish_start_time,
    _no_pid,
]
of_shim = [_shim, _rubbish_shim]
tamperings = pytest.mark.parametrize("tamper", of_process + of_shim)


@pytest.fixture
def leave(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> Leave:
    """Start a container ``a``, and close the supervisor while the container runs."""

    async def run(*args: str) -> tuple[int, int]:
        async with supervisor(root) as sup:
            a = await sup.create("a", bundle(*args), stdin=PIPE)
            await a.start()
            return shim_of(root / "a/init"), pid_in(root / "a/init")

    return run


@tamperings
@pytest.mark.runtimes("fake")
async def test_shim_alive(
    supervisor: OpenSupervisor,
    root: Path,
    leave: Leave,
    bystander: subprocess.Popen[bytes],
    tamper: Tampering,
    nothing_left: NothingLeft,
) -> None:
    """While the shim watches, no other file is believed: signals and the true exit status get
    through."""
    shim, _ = await leave("sleep", "60")
    tamper(root / "a/init", bystander)
    async with supervisor(root) as sup:
        a = sup["a"]
        assert (a.state, a.status) == (State.RUNNING, None)
        assert a.pid is None  # the process isn't certain any more
        a.send_signal(signal.SIGKILL)
        status = await a.wait()
        assert (status.signal, status.source) == (signal.SIGKILL, Source.SHIM)
        assert bystander.poll() is None
        await a.delete()
        await reap(shim)
        await nothing_left()


@pytest.mark.parametrize("tamper", [_pid_and_start_time, _everything, _boot, _rubbish_shim])
async def test_delete_by_force(
    supervisor: OpenSupervisor,
    root: Path,
    leave: Leave,
    bystander: subprocess.Popen[bytes],
    tamper: Tampering,
    nothing_left: NothingLeft,
) -> None:
    """Whatever the files say, a delete by force kills the container's processes and no others."""
    shim, _ = await leave("sleep", "60")
    tamper(root / "a/init", bystander)
    async with supervisor(root) as sup:
        await sup["a"].delete(force=True)
        await reap(shim)
        await nothing_left()


@tamperings
@pytest.mark.runtimes("runc")
async def test_shim_dead(
    supervisor: OpenSupervisor,
    root: Path,
    leave: Leave,
    bystander: subprocess.Popen[bytes],
    tamper: Tampering,
    nothing_left: NothingLeft,
) -> None:
    """Without a shim, a process that isn't certain is killed by its cgroup, and has an unknown
    status with the reason."""
    shim, pid = await leave("sleep", "60")
    end(shim)
    tamper(root / "a/init", bystander)
    async with supervisor(root) as sup:
        a = sup["a"]
        status = await a.wait()
        assert a.state is State.STOPPED
        if tamper in of_process:
            assert (status.cause, status.source) == (Cause.UNKNOWN, Source.INFERENCE)
            assert status.why is not None
            assert ("restarted" in status.why) == (tamper is _boot)
        else:
            assert status.source is Source.KERNEL and status.signal == signal.SIGKILL
        await reap(pid)
        await a.delete()
        await nothing_left()


@tamperings
@pytest.mark.runtimes("runc")
async def test_both_dead(
    supervisor: OpenSupervisor,
    root: Path,
    leave: Leave,
    bystander: subprocess.Popen[bytes],
    tamper: Tampering,
    nothing_left: NothingLeft,
) -> None:
    """When shim and process are gone, the pids may be in use again: no process is signalled."""
    end(*await leave("sleep", "60"))
    tamper(root / "a/init", bystander)
    async with supervisor(root) as sup:
        status = await sup["a"].wait()
        assert (status.cause, status.source) == (Cause.UNKNOWN, Source.INFERENCE)
        await sup["a"].delete(force=True)
        await nothing_left()


@tamperings
@pytest.mark.runtimes("fake")
async def test_recorded(
    supervisor: OpenSupervisor,
    root: Path,
    leave: Leave,
    bystander: subprocess.Popen[bytes],
    tamper: Tampering,
) -> None:
    """A status that the shim recorded while no supervisor was there holds, whatever else was
    written."""
    shim, _ = await leave("sh", "-c", "exit 6")
    await reap(shim)
    tamper(root / "a/init", bystander)
    async with supervisor(root) as sup:
        status = await sup["a"].wait()
        assert (status.code, status.source) == (6, Source.SHIM)
        await sup["a"].delete()


async def test_another_process_of_the_container(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A pid and start time of another process in the same cgroup aren't believed either.

    That process isn't the shim's child.
    """
    async with supervisor(root) as sup:
        a = await sup.create("a", bundle("sleep", "60"))
        await a.start()
        job = await a.exec(["sleep", "61"], id="job")
        assert job.pid is not None
        other = job.pid
    (root / "a/init/pid").write_text(f"{other}\n")
    (root / "a/init/starttime").write_text(f"{start_time(other)}\n")
    async with supervisor(root) as sup:
        a = sup["a"]
        assert (a.pid, a.state) == (None, State.RUNNING)
        a.send_signal(signal.SIGKILL)
        assert (await a.wait()).signal == signal.SIGKILL
        await a.delete()


@pytest.mark.runtimes("fake")
async def test_it_is_never_ourselves(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """Without a shim and a cgroup any pid on disk is believed, except our own."""
    async with supervisor(root) as sup, await sup.create("a", bundle("true")) as a:
        core = a._core
        gone = Shim(core.layout.process("gone"), None)
        record = attrs.evolve(core.record, cgroup=None)
        assert a.pid is not None
        assert _descends(core.shared, record, gone, a.pid)
        assert not _descends(core.shared, record, gone, os.getpid())
