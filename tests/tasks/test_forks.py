"""A child that is forked in a Trio task undoes nothing of its parent's, and says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor.tasks import _forks
from tests.conftest import NothingLeft
from tests.support.runtimes import Choice
from tests.tasks.forking import play

pytestmark = pytest.mark.runtimes("runc", "crun")

SOUND = {
    "states": ["running", "created", "running"],
    "root": True,
    "bundle": True,
    "exec": "x\n",
    "pool": 0,
    "thread": True,
    "stopped": 9,
}
"""What the parent finds when nothing of it was undone."""


class Ground:
    """Where a program plays: its root, and its child's diary."""

    def __init__(self, choice: Choice, parent: str, rootfs: Path, workdir: Path) -> None:
        self._choice = choice
        self._diary = workdir / "diary"
        self._diary.touch()
        self._told = {"cgroup_parent": parent, "rootfs": str(rootfs), "diary": str(self._diary)}

    def play(self, how: str, root: Path | None, *, waiting: bool = False) -> dict[str, Any]:
        """Have one played."""
        where = None if root is None else str(root)
        return play(self._choice, how=how, root=where, waiting=waiting, **self._told)

    def diary(self) -> list[str]:
        """Return what its child has written."""
        return self._diary.read_text().splitlines()


@pytest.fixture
def ground(choice: Choice, cgroup_parent: str, rootfs: Path, workdir: Path) -> Ground:
    """The ground of this test."""
    return Ground(choice, cgroup_parent, rootfs, workdir)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(
    ("how", "ended"),
    [("exits", 3), ("exits_from_c", 3), ("raises", 6), ("returns", 0), ("multiprocessing", 4)],
)
async def test_a_forked_child_leaves_its_parents_blocks(
    ground: Ground, root: Path, nothing_left: NothingLeft, how: str, ended: int, durable: bool
) -> None:
    """It deleted the parent's containers and its root; and what it took out of Trio's epoll, which
    both had, was the parent's, that then hung."""
    found = await trio.to_thread.run_sync(ground.play, how, root if durable else None)
    assert found == {**SOUND, "child": ended, "keepers": 0 if durable else 1, "stream": "z"}
    await nothing_left()


async def test_a_forked_child_that_goes_on_is_refused_everything(
    ground: Ground, nothing_left: NothingLeft
) -> None:
    """It had its parent's containers in hand, whose locks it didn't hold."""
    found = await trio.to_thread.run_sync(ground.play, "goes_on", None)
    assert [line for line in ground.diary() if not line.endswith(": refused")] == []
    assert len(ground.diary()) == 20
    assert found == {**SOUND, "child": 0, "keepers": 1, "stream": "z"}
    await nothing_left()


@pytest.mark.parametrize("how", ["exits", "returns"])
async def test_who_waits_in_a_forked_child_waits_no_more(
    ground: Ground, nothing_left: NothingLeft, how: str
) -> None:
    """Its copies of the parent's tasks waited for ever for what its own epoll never told them, and
    the parent for it."""
    found = await trio.to_thread.run_sync(lambda: ground.play(how, None, waiting=True))
    if how == "returns":
        names = ("attached", "exits", "ran", "receives", "runs")
        assert sorted(ground.diary()) == [f"{name}: SupervisorClosed" for name in names]
    assert found == {**SOUND, "child": 3 if how == "exits" else 0, "keepers": 1}
    await nothing_left()


async def test_a_forked_child_may_begin_again(ground: Ground, nothing_left: NothingLeft) -> None:
    """With a Trio run of its own it has a supervisor of its own."""
    found = await trio.to_thread.run_sync(ground.play, "begins_again", None)
    assert ground.diary() == ["own"]
    assert found == {**SOUND, "child": 0, "keepers": 1, "stream": "z"}
    await nothing_left()


async def test_a_forked_child_has_no_threads(ground: Ground, nothing_left: NothingLeft) -> None:
    """It waited for a minute for the thread of a `SupervisorThread`, which only the parent has."""
    found = await trio.to_thread.run_sync(ground.play, "in_threads", None)
    assert found == {"child": 5, "state": "running", "held": True, "pool": 0}
    await nothing_left()


async def test_a_forked_child_holds_no_stream(ground: Ground, nothing_left: NothingLeft) -> None:
    """A worker of multiprocessing held the container's input open: closing it ended nothing."""
    found = await trio.to_thread.run_sync(ground.play, "outlived", None)
    assert found == {"cat": 0, "writer": signal.SIGPIPE, "child": 8}
    await nothing_left()


async def test_trio_keeps_its_epoll_where_we_look() -> None:
    """If this fails, a Trio keeps it elsewhere: `_forks._replace_shared` has to learn that."""
    runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
    sockets = [
        getattr(pair, name)
        for pair in (runner.entry_queue.wakeup, runner.io_manager._force_wakeup)
        for name in ("wakeup_sock", "write_sock")
    ]
    before = {os.fstat(one.fileno()).st_ino for one in sockets}
    _forks._replace_shared()
    assert before.isdisjoint(os.fstat(one.fileno()).st_ino for one in sockets)
    await trio.to_thread.run_sync(int)  # the run goes on with them
