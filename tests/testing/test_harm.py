"""Harm to a live container takes effect, and is over when the call returns."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from supervisor import PIPE, DeadlineExpired, IllegalTransition, InvalidValue, ProcessEnded
from supervisor.testing import fill_memory, frozen, kill_shim, unread
from supervisor.testing._freezer import freezer_of, frozen_cgroup
from supervisor.testing._processes import state_of
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import assert_lost, until
from tests.support.runtimes import needs_root

TICKING = "i=0; while read line; do i=$((i+1)); echo $i; done"


@pytest.mark.runtimes("fake", "crun")
async def test_frozen(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A frozen program does nothing, and goes on afterwards; the state is what it was."""
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", TICKING), stdin=PIPE, stdout=PIPE) as a,
    ):
        await a.start()
        assert a.stdin is not None and a.stdout is not None
        await a.stdin.send_all(b"\n")
        assert await a.stdout.receive_some() == b"1\n"
        async with frozen(a):
            await a.stdin.send_all(b"\n")
            with trio.move_on_after(0.05) as scope:
                await a.stdout.receive_some()
            assert scope.cancelled_caught and a.state.value == "running"
        with trio.fail_after(10):
            assert await a.stdout.receive_some() == b"2\n"


@pytest.mark.runtimes("fake", "crun")
async def test_frozen_and_cancelled(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Whatever ends the block, the program goes on, and gets SIGTERM."""
    script = "trap 'exit 3' TERM; echo ready; read line"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), stdin=PIPE, stdout=PIPE) as a,
    ):
        await a.start()
        assert a.stdout is not None
        await a.stdout.receive_some()
        # A shell that gets a signal just before a read runs the trap after the read.
        await until(lambda: state_of(a.pid or 0) == "S", "it reads")
        with trio.CancelScope() as scope:
            async with frozen(a):
                scope.cancel()
                await trio.sleep_forever()
        a.terminate()
        assert (await a.wait()).code == 3
        with pytest.raises(IllegalTransition, match="cannot freeze in state stopped"):
            async with frozen(a):
                raise AssertionError("it has ended")


@pytest.fixture
def cgroup2(workdir: Path) -> Iterator[Path]:
    """A version 2 hierarchy with a cgroup of our own."""
    place = workdir / "cgroup2"
    place.mkdir()
    subprocess.run(["mount", "-t", "cgroup2", "none", place], check=True)
    path = place / f"ts-freezer-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()
    subprocess.run(["umount", place], check=True)


@needs_root
async def test_version_2(cgroup2: Path) -> None:
    """A cgroup of version 2 is frozen and thawed too."""
    assert freezer_of(["/nowhere", str(cgroup2)]) == str(cgroup2)
    program = subprocess.Popen(["sleep", "600"])
    try:
        (cgroup2 / "cgroup.procs").write_text(str(program.pid))
        events = cgroup2 / "cgroup.events"
        async with frozen_cgroup(str(cgroup2), seconds=10):
            assert "frozen 1" in events.read_text()
        await until(lambda: "frozen 0" in events.read_text(), "it is thawed")
    finally:
        program.kill()
        program.wait()
        await until(lambda: "populated 0" in events.read_text(), "it is empty")


@pytest.mark.runtimes("fake", "crun")
async def test_kill_shim(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A killed shim is dead on return, and so is the process; a second kill finds no shim."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as a:
        await a.start()
        job = await a.exec(["sleep", "600"])
        await kill_shim(job)
        assert_lost(await job.wait(), signal=signal.SIGKILL)
        await kill_shim(a)
        assert_lost(await a.wait(), signal=signal.SIGKILL)
        with pytest.raises(ProcessEnded, match="the shim of init has ended"):
            await kill_shim(a)


@needs_root
@pytest.mark.runtimes("crun")
async def test_fill_memory(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A container whose memory is full is killed by the kernel; one beside it isn't."""
    small = bundle("sleep", "600", memory_bytes=32 << 20)
    async with (
        supervisor() as sup,
        await sup.create("a", small) as a,
        await sup.create("b", small) as b,
    ):
        await a.start()
        await b.start()
        assert await fill_memory(a) == 1
        status = await a.wait()
        assert status.oom_killed and status.signal == signal.SIGKILL
        assert b.status is None


@pytest.mark.runtimes("fake", "crun")
async def test_fill_memory_needs_a_limit(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Filling the memory of a container without a limit is refused: it would be the machine's
    memory."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "600")) as a:
        with pytest.raises(InvalidValue, match="memory_bytes"):
            await fill_memory(a)


@pytest.mark.runtimes("fake", "crun")
async def test_unread(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A program whose output isn't read waits after a page; afterwards nothing is lost."""
    script = "while :; do echo 0123456789abcde; done"
    async with (
        supervisor() as sup,
        await sup.create("a", bundle("sh", "-c", script), stdout=PIPE) as a,
    ):
        async with unread(a) as output:
            await a.start()
            with trio.fail_after(10):
                await output.wait_full()
            assert output.held_bytes == os.sysconf("SC_PAGE_SIZE")
            assert a.pid is not None
            await until(lambda: state_of(a.pid or 0) == "S", "it waits")
        assert a.stdout is not None
        said = b""
        while len(said) < 100_000:
            said += await a.stdout.receive_some()
        assert said.startswith(b"0123456789abcde\n" * 6000)
        with pytest.raises(InvalidValue, match="no stderr that is a PIPE"):
            async with unread(a, "stderr"):
                raise AssertionError("it isn't a PIPE")


@pytest.mark.runtimes("crun")
async def test_deadline_of_freezing(workdir: Path) -> None:
    """A cgroup that doesn't freeze in time is thawed, and an error says so."""
    switch, events = workdir / "cgroup.freeze", workdir / "cgroup.events"
    events.write_text("frozen 0\n")
    switch.write_text("0")
    with pytest.raises(DeadlineExpired, match="isn't frozen"):
        async with frozen_cgroup(str(workdir), seconds=0.01):
            raise AssertionError("it isn't frozen")
    assert switch.read_text() == "0"
