"""Guards of the stock and of its entries that only a rare moment needs, one by one."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor import Deadlines, GateFailed, RuntimeTimeout, ShimExited, TooManyFiles
from supervisor.pool._entry import Entry, pool_request
from supervisor.pool._pool import _kill
from supervisor.pool._stock import PATIENCE
from tests.conftest import MakeBundle, OpenSupervisor
from tests.pool.stocks import SECONDS, Made, Maker, pid_of, stock_of
from tests.support.containers import state_of, until
from tests.support.descriptors import only
from tests.support.leaks import wait_for

# ---- the stock -------------------------------------------------------------------------------


@attrs.define(eq=False)
class Mortal(Made):
    """An entry that may be dead, and says so when it is asked."""

    dead: bool = False
    died: Callable[[Any, Any], None] | None = None
    deleted: bool = False
    box: Any = attrs.field(factory=lambda: SimpleNamespace(id="a"))

    def alive(self) -> bool:
        return not self.dead

    def watch(self, died: Any) -> None:
        self.died = died

    async def delete(self) -> None:
        self.deleted = True


def entry(**options: Any) -> Any:
    """Return one."""
    return Mortal(1, **options)


async def test_what_died_while_it_was_made(autojump_clock: trio.testing.MockClock) -> None:
    """It is handed to nobody, deleted, and counted as a failure."""
    async with trio.open_nursery() as nursery:
        stock = stock_of(Maker(), nursery)
        dead, alive = entry(dead=True), entry()
        stock._offer(dead)
        assert (stock.ready, stock.failed) == (0, 1)
        stock._offer(alive)
        assert await stock.get() is alive
        await wait_all_tasks_blocked()
        assert dead.deleted
        nursery.cancel_scope.cancel()


async def test_what_died_and_was_not_noticed(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever asks for one gets the next that lives."""
    async with trio.open_nursery() as nursery:
        stock = stock_of(Maker(), nursery, size=2)
        first, second = entry(), entry()
        stock._offer(first)
        stock._offer(second)
        first.dead = True
        assert await stock.get() is second
        await wait_all_tasks_blocked()
        assert first.deleted and stock.failed == 1
        nursery.cancel_scope.cancel()


async def test_nothing_is_made_after_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """What waited is deleted and not replaced; what comes then is deleted, and no failure."""
    maker = Maker()
    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery)
        maker.send.send_nowait(None)
        await stock.wait_full()
        late, waited = entry(), entry()
        stock._ready[0] = waited
        stock.close()
        stock._offer(late)
        await wait_all_tasks_blocked()
        assert (waited.deleted, late.deleted, len(maker.begun)) == (True, True, 1)
        assert (stock.ready, stock.failed) == (0, 0)
        nursery.cancel_scope.cancel()


async def test_one_that_dies_as_it_is_deleted(autojump_clock: trio.testing.MockClock) -> None:
    """It waits for nobody any more: that isn't news, nor a failure."""
    async with trio.open_nursery() as nursery:
        stock = stock_of(Maker(), nursery)
        waited = entry()
        stock._offer(waited)
        assert waited.died is not None
        stock.close()
        waited.died(waited, None)
        assert stock.failed == 0
        nursery.cancel_scope.cancel()


async def test_served_as_the_pool_closes(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever was handed an entry in that moment gets it: nobody else would delete it."""
    got = []
    async with trio.open_nursery() as nursery:
        stock = stock_of(Maker(), nursery)

        async def take() -> None:
            got.append(await stock.get())

        nursery.start_soon(take)
        await wait_all_tasks_blocked()
        handed = entry()
        stock._offer(handed)
        stock.close()
        await wait_all_tasks_blocked()
        assert got == [handed]
        nursery.cancel_scope.cancel()


async def test_an_error_that_many_are_told(autojump_clock: trio.testing.MockClock) -> None:
    """Each sees where it asked itself, and not where all the others have."""
    maker = Maker()

    async def ask() -> None:
        with contextlib.suppress(OSError):
            await stock.get()

    async with trio.open_nursery() as nursery:
        stock = stock_of(maker, nursery)
        for _ in range(3):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        for _ in range(PATIENCE):
            maker.send.send_nowait(OSError("no"))
        with pytest.raises(OSError, match="no") as caught:
            await stock.get()
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[1:] == ["get", "_wait_in"]
        nursery.cancel_scope.cancel()


# ---- entries ---------------------------------------------------------------------------------


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
WANTED = pool_request({"process": PROCESS}, args=None, env=None, cwd=None, stdin=b"", files={})


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
            await until(lambda: not entry.box.init._task.watched(), "its end")
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
