"""A container reports the changes that led to the present state."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import IllegalTransition, State
from supervisor.observers import HISTORY_LENGTH, witness
from supervisor.testing._example import Example
from tests.conftest import MakeBundle, OpenSupervisor

pytestmark = [pytest.mark.runtimes("crun", "fake"), pytest.mark.rootless]


async def test_a_life(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """Each change is listed once, in order, with its time; a refused operation isn't listed."""
    async with supervisor() as sup:
        box = await sup.create("a", bundle("sleep", "60"))
        await box.start()
        with pytest.raises(IllegalTransition):
            await box.start()
        box.kill()
        await box.wait()
        await box.delete()
    assert [(change.event, change.state) for change in box.history] == [
        ("create", State.CREATING),
        ("created", State.CREATED),
        ("start", State.STARTING),
        ("started", State.RUNNING),
        ("exited", State.STOPPED),
        ("delete", State.DELETING),
        ("deleted", State.DELETED),
    ]
    times = [change.at for change in box.history]
    assert times == sorted(times)


async def test_an_adopted_one(supervisor: OpenSupervisor, bundle: MakeBundle, root: Path) -> None:
    """The history of an adopted container begins with the state in which it was found."""
    async with supervisor(root) as sup:
        await (await sup.create("a", bundle("sleep", "60"))).start()
    async with supervisor(root) as sup:
        (change,) = sup["a"].history
        assert (change.event, change.state) == ("adopted", State.RUNNING)
        await sup["a"].delete(force=True)


async def test_only_the_last_changes_are_kept(
    supervisor: OpenSupervisor, bundle: MakeBundle
) -> None:
    """A container that lives long doesn't fill the memory."""
    async with supervisor() as sup, await sup.create("a", bundle("sleep", "60")) as box:
        for _ in range(HISTORY_LENGTH + 5):
            box._core.note("again")
        assert len(box.history) == HISTORY_LENGTH


@contextlib.contextmanager
def hasty_threads() -> Iterator[None]:
    """Let threads take turns, and garbage be collected, as often as can be.

    A callback of the collection, as Hypothesis's, lets another thread run where none else would.
    """

    def callback(phase: str, info: dict[str, int]) -> None:
        sum(range(50))

    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    sys.setswitchinterval(1e-6)
    gc.set_threshold(1)
    gc.callbacks.append(callback)
    try:
        yield
    finally:
        gc.callbacks.remove(callback)
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


async def test_another_thread_may_look(supervisor: OpenSupervisor, bundle: MakeBundle) -> None:
    """A container may change while an example in another thread, such as a pool's, hears of the
    change.

    Otherwise the example would fail by an error that can't be reproduced.
    """
    over = threading.Event()

    async with supervisor() as sup:
        example = Example()
        token = witness.set(example)
        box = await sup.create("a", bundle("sleep", "60"))
        witness.reset(token)

        def change() -> None:
            while not over.is_set():
                box._core.note("again")

        changing = threading.Thread(target=change)
        changing.start()
        try:
            with hasty_threads():
                for _ in range(1000):
                    assert box.history
                    assert example.told()
        finally:
            over.set()
            changing.join()
