"""An entry of a pool: what the gate reports, and when the entry dies."""

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
    """Make an entry whose gate is this shell script; the entry is deleted in the end."""

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
    """A gate that never reports has until ``deadlines.start``."""
    async with gated("exec sleep 60", deadlines=Deadlines(start=2)) as entry:
        with pytest.raises(RuntimeTimeout, match="gate didn't run the program within 2 seconds"):
            await entry.start(WANTED)


@pytest.mark.runtimes("fake")
async def test_a_gate_that_says_too_much(gated: MakeEntry) -> None:
    """Whatever a gate reports, and however long, only so many bytes are read, and a wrong report is
    refused."""
    async with gated("while :; do yes >&3; done", deadlines=Deadlines(start=3)) as entry:
        with pytest.raises(GateFailed, match="couldn't read the request"):
            await entry.start(WANTED)


@pytest.mark.runtimes("fake")
async def test_deleted_while_its_report_is_awaited(gated: MakeEntry) -> None:
    """A wait for the gate's report ends when the entry is deleted; otherwise it would wait for a
    closed descriptor."""
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
    """A taken container costs no more descriptors than any other: the report's is closed."""
    async with gated("printf 'go\\n' >&3; exec sleep 60 3>&-") as entry:
        fd = entry._report_fd
        os.fstat(fd)
        await entry.start(WANTED)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.runtimes("fake")
async def test_a_program_that_was_quick(gated: MakeEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ended before the next look at its shim counts as started, and has run."""
    async with gated("printf 'go\\n' >&3; exit 7") as entry:
        read_report = entry._read_report

        async def late() -> bytes:
            heard: bytes = await read_report()
            await until(lambda: not entry.box.init._task.handles.watched(), "its end")
            return heard

        monkeypatch.setattr(entry, "_read_report", late)
        await entry.start(WANTED)
        assert (await entry.box.wait()).code == 7
        await _kill(entry.box)  # the deadline came in that moment: no error


@pytest.mark.runtimes("fake")
async def test_one_that_has_gone_before_its_frame_came(gated: MakeEntry) -> None:
    """A gate that has gone before its frame came raises no error of its own: the start reports the
    failure."""
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
    """An entry that was killed after the last look counts as dead: another one is to be taken."""
    async with gated("exec sleep 60") as entry:
        os.kill(pid_of(entry.box, "init"), signal.SIGKILL)
        await entry.box.wait()
        with pytest.raises(ShimExited, match="killed before the program ran: killed by SIGKILL"):
            await entry.start(WANTED)


async def test_no_descriptor_for_the_report() -> None:
    """A missing descriptor for the report raises TooManyFiles, as everywhere."""
    nobody: Any = None
    with only(0), pytest.raises(TooManyFiles) as caught:
        await Entry.make(nobody, nobody, id="a", gate="", stdout=-3, stderr=-3, labels={})
    assert (caught.value.errno, caught.value.container) == (errno.EMFILE, "a")
