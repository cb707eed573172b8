"""A child that is forked in a Trio task undoes nothing of the parent's, and says so."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import trio

from supervisor.tasks import _forks
from tests.conftest import NothingLeft
from tests.support.forker import Forker
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
"""What the parent finds when all its things are intact."""


class Ground:
    """The place of a program: the root, and the child's diary."""

    def __init__(
        self, forker: Forker, choice: Choice, parent: str, rootfs: Path, workdir: Path
    ) -> None:
        self._forker = forker
        self._choice = choice
        self._diary = workdir / "diary"
        self._diary.touch()
        self._told = {"cgroup_parent": parent, "rootfs": str(rootfs), "diary": str(self._diary)}

    def play(self, how: str, root: Path | None, *, waiting: bool = False) -> dict[str, Any]:
        """Run one play."""
        where = None if root is None else str(root)
        told = {"how": how, "root": where, "waiting": waiting, **self._told}
        return play(self._forker, self._choice, **told)

    def diary(self) -> list[str]:
        """Return what the child has written."""
        return self._diary.read_text().splitlines()


@pytest.fixture
def ground(
    forker: Forker, choice: Choice, cgroup_parent: str, rootfs: Path, workdir: Path
) -> Ground:
    """The ground of this test."""
    return Ground(forker, choice, cgroup_parent, rootfs, workdir)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(
    ("how", "ended"),
    [("exits", 3), ("exits_from_c", 3), ("raises", 6), ("returns", 0), ("multiprocessing", 4)],
)
async def test_a_forked_child_leaves_its_parents_blocks(
    ground: Ground, root: Path, nothing_left: NothingLeft, how: str, ended: int, durable: bool
) -> None:
    """A forked child that leaves the parent's blocks changes nothing of the parent's: once the
    child deleted the parent's containers and root, and took descriptors out of Trio's shared epoll,
    so that the parent hung."""
    found = await trio.to_thread.run_sync(ground.play, how, root if durable else None)
    assert found == {**SOUND, "child": ended, "keepers": 0 if durable else 1, "stream": "z"}
    await nothing_left()


async def test_a_forked_child_that_goes_on_is_refused_everything(
    ground: Ground, nothing_left: NothingLeft
) -> None:
    """A forked child that goes on is refused everything: once the child used the parent's
    containers without their locks."""
    found = await trio.to_thread.run_sync(ground.play, "goes_on", None)
    assert [line for line in ground.diary() if not line.endswith(": refused")] == []
    assert len(ground.diary()) == 20
    assert found == {**SOUND, "child": 0, "keepers": 1, "stream": "z"}
    await nothing_left()


@pytest.mark.parametrize("how", ["exits", "returns"])
async def test_who_waits_in_a_forked_child_waits_no_more(
    ground: Ground, nothing_left: NothingLeft, how: str
) -> None:
    """The copies of the parent's waiting tasks raise in a forked child: once they waited for ever
    for events of the child's epoll, and the parent for the child."""
    found = await trio.to_thread.run_sync(lambda: ground.play(how, None, waiting=True))
    if how == "returns":
        names = ("attached", "exits", "ran", "receives", "runs")
        assert sorted(ground.diary()) == [f"{name}: SupervisorClosed" for name in names]
    assert found == {**SOUND, "child": 3 if how == "exits" else 0, "keepers": 1}
    await nothing_left()


async def test_a_forked_child_may_begin_again(ground: Ground, nothing_left: NothingLeft) -> None:
    """A forked child with a Trio run of its own has a supervisor of its own."""
    found = await trio.to_thread.run_sync(ground.play, "begins_again", None)
    assert ground.diary() == ["own"]
    assert found == {**SOUND, "child": 0, "keepers": 1, "stream": "z"}
    await nothing_left()


async def test_a_forked_child_has_no_threads(ground: Ground, nothing_left: NothingLeft) -> None:
    """A forked child doesn't wait for the parent's thread: once the child waited a minute for the
    thread of a `SupervisorThread`."""
    found = await trio.to_thread.run_sync(ground.play, "in_threads", None)
    assert found == {"child": 5, "state": "running", "held": True, "pool": 0}
    await nothing_left()


async def test_a_forked_child_holds_no_stream(ground: Ground, nothing_left: NothingLeft) -> None:
    """A forked child holds no stream of a container: once a worker of multiprocessing held the
    input open, and closing it ended nothing."""
    found = await trio.to_thread.run_sync(ground.play, "outlived", None)
    assert found == {"cat": 0, "writer": signal.SIGPIPE, "child": 8}
    await nothing_left()


async def test_trio_keeps_its_epoll_where_we_look() -> None:
    """Trio keeps its epoll where `_forks._replace_shared` looks; if this test fails, that function
    has to learn the new place."""
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
