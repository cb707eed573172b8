"""An entry of a pool: what its gate reports, and when it dies."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import Deadlines, GateFailed, RuntimeTimeout, ShimExited, TooManyFiles
from supervisor.pool._entry import Entry, pool_request
from supervisor.pool._pool import _kill
from tests.conftest import MakeBundle, OpenSupervisor
from tests.pool.stocks import SECONDS, pid_of
from tests.support.containers import state_of, until
from tests.support.descriptors import only
from tests.support.leaks import wait_for

MakeEntry = Callable[..., Any]


@pytest.fixture
def gated(supervisor: OpenSupervisor, bundle: MakeBundle, workdir: Path) -> MakeEntry:
    """Make an entry whose gate is this shell script; it is deleted in the end."""

    @contextlib.asynccontextmanager
    async def make(script: str, **options: Any) -> AsyncIterator[Entry]:
        gate = workdir / "gate"
        gate.write_text(f"#!/bin/sh\n{script}\n")
        gate.chmod(0o755)
        made = bundle("true")
        with trio.fail_after(SECONDS):
            async with supervisor(**options) as sup:
                entry = await Entry.make(
                    sup, made, id="a", gate=str(gate), stdout=-3, stderr=-3, labels={}
                )
                yield entry
                await entry.delete()

    return make


PROCESS = {"args": ["true"], "cwd": "/"}


WANTED = pool_request({"process": PROCESS}, None, {})


@pytest.mark.runtimes("fake")
async def test_a_gate_that_never_says_anything(gated: MakeEntry) -> None:
    """It has until ``deadlines.start``."""
    async with gated("exec sleep 60", deadlines=Deadlines(start=2)) as entry:
        with pytest.raises(RuntimeTimeout, match="gate didn't run the program within 2 seconds"):
            await entry.start(WANTED)


@pytest.mark.runtimes("fake")
async def test_a_gate_that_says_too_much(gated: MakeEntry) -> None:
    """Whatever it says, and however long, it is heard for so many bytes, and refused."""
    async with gated("while :; do yes >&3; done", deadlines=Deadlines(start=3)) as entry:
        with pytest.raises(GateFailed, match="didn't arrive"):
            await entry.start(WANTED)


@pytest.mark.runtimes("fake")
async def test_deleted_while_its_report_is_awaited(gated: MakeEntry) -> None:
    """Whoever waits for the gate hears that; else they'd wait for a descriptor that is closed."""
    async with gated("exec sleep 60") as entry, trio.open_nursery() as nursery:
        waits = trio.Event()

        async def start() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await entry.start(WANTED)
            waits.set()

        nursery.start_soon(start)
        await until(lambda: entry.box.state.name == "RUNNING", "its start")
        await wait_all_tasks_blocked(0.05)
        await entry.delete()
        with trio.fail_after(5):
            await waits.wait()


@pytest.mark.runtimes("fake")
async def test_a_report_that_was_heard_is_let_go_of(gated: MakeEntry) -> None:
    """What was taken costs no descriptor more than any other container."""
    async with gated("printf 'go\\n' >&3; exec sleep 60 3>&-") as entry:
        fd = entry._report_fd
        os.fstat(fd)
        await entry.start(WANTED)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.runtimes("fake")
async def test_a_program_that_was_quick(gated: MakeEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has ended before anybody looked again at its shim was started, and has run."""
    async with gated("printf 'go\\n' >&3; exit 7") as entry:
        read_report = entry._read_report

        async def late() -> bytes:
            heard: bytes = await read_report()
            await until(lambda: not entry.box.init._task.handles.watched(), "its end")
            return heard

        monkeypatch.setattr(entry, "_read_report", late)
        await entry.start(WANTED)
        assert (await entry.box.wait()).code == 7
        await _kill(entry.box)  # its time was up in that moment: no error


@pytest.mark.runtimes("fake")
async def test_one_that_has_gone_before_its_frame_came(gated: MakeEntry) -> None:
    """A fifo that nobody holds any more is no error of its own: its start tells."""
    async with gated("exec sleep 60") as entry:
        shim, pid = pid_of(entry.box, "shim"), pid_of(entry.box, "init")
        for number in (shim, pid):
            os.kill(number, signal.SIGKILL)
        # Nothing else runs here meanwhile.
        wait_for(lambda: {state_of(shim), state_of(pid)} <= {"Z", ""}, "their ends")
        assert entry.box.status is None and not entry.alive()
        with pytest.raises(ShimExited):
            await entry.start(WANTED)


@pytest.mark.runtimes("fake")
async def test_one_that_was_seen_to_end(gated: MakeEntry) -> None:
    """It may be killed after the last look at it: then another one is to be taken, too."""
    async with gated("exec sleep 60") as entry:
        os.kill(pid_of(entry.box, "init"), signal.SIGKILL)
        await entry.box.wait()
        with pytest.raises(ShimExited, match="ended before it ran the program: killed by SIGKILL"):
            await entry.start(WANTED)


async def test_no_descriptor_for_the_report() -> None:
    """It is told as TooManyFiles, as any lack of them."""
    nobody: Any = None
    with only(0), pytest.raises(TooManyFiles) as caught:
        await Entry.make(nobody, nobody, id="a", gate="", stdout=-3, stderr=-3, labels={})
    assert (caught.value.errno, caught.value.container) == (errno.EMFILE, "a")
