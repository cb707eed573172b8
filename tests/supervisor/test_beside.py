"""Supervisors side by side: what others make, and what killed ones have left in flight."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from supervisor import Container, ContainerExists, Deadlines, State
from supervisor.system import Lock
from tests.conftest import MakeBundle, OpenSupervisor
from tests.support.containers import until

pytestmark = pytest.mark.runtimes("fake", "runc", "crun")


async def test_an_exec_of_another(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """The owner sees an exec that an onlooker runs, and the onlooker one of the owner's; once
    neither did."""
    async with supervisor(root) as one, supervisor(root) as two:
        async with await one.create("a", bundle("sleep", "60")) as box:
            await box.start()
            await two.adopt()
            seen = two["a"]
            for maker, other in ((seen, box), (box, seen)):
                process = await maker.exec(["sleep", "60"], id="e")
                found = other.processes["e"]
                assert (found.pid, found.args) == (process.pid, ("sleep", "60"))
                found.kill()
                with trio.fail_after(10):
                    assert (await process.wait()).signal == (await found.wait()).signal == 9
                await _done_with(maker)
                await _done_with(other)


async def _done_with(box: Container) -> None:
    await until(lambda: list(box.processes) == ["init"], "its exec is done with")


async def test_in_flight_at_open(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An open waits for a call in flight, and then finishes the delete: once the container was
    neither listed nor broken, and create said that the id exists, for good."""
    async with supervisor(root) as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        await box.stop(0)
    # The killed supervisor has left a runtime's call in flight, which holds the lock.
    state = root / "a/state.json"
    state.write_text(state.read_text().replace('"intent": "stop"', '"intent": "delete"'))
    lock = Lock.take(str(root / "a/lock"))
    assert lock is not None
    async with trio.open_nursery() as nursery:

        async def end_it() -> None:
            await trio.sleep(0.3)
            lock.release()

        nursery.start_soon(end_it)
        async with supervisor(root) as sup:
            assert list(sup) == [] and dict(sup.broken) == {}
            assert not (root / "a").exists()


async def test_longer_than_we_wait(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """An operation that is in flight for longer than the open waits is taken over at its end,
    without a further call."""
    async with supervisor(root) as sup:
        await sup.create("a", bundle("sleep", "60"))
    started = root / "a/init/starttime"
    away = root / "a/init/away"
    started.rename(away)  # as if still being made
    lock = Lock.take(str(root / "a/lock"))
    assert lock is not None
    async with supervisor(root, deadlines=Deadlines(shim=0.5)) as sup:
        assert list(sup) == [] and dict(sup.broken) == {}
        with pytest.raises(ContainerExists):
            await sup.create("a", bundle("true"))
        away.rename(started)
        lock.release()
        await until(lambda: list(sup) == ["a"], "it is taken over")
        assert sup["a"].state is State.CREATED and not sup["a"].foreign
        await sup["a"].delete()
        assert [name for name in os.listdir(root) if name != ".runtime"] == []


async def test_create_while_it_is_removed(
    supervisor: OpenSupervisor, bundle: MakeBundle, root: Path
) -> None:
    """A create whose id is still being removed by another supervisor waits for that."""
    async with supervisor(root) as one, supervisor(root) as two:
        box = await one.create("a", bundle("sleep", "60"))
        await box.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: box.delete(force=True))
            await until(lambda: '"delete"' in (root / "a/state.json").read_text(), "it goes")
            made = await two.create("a", bundle("sleep", "60"))
        await made.delete(force=True)
