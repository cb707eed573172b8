"""The cgroup for shims and keepers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from supervisor.cgroups import Hierarchies, group_apart
from supervisor.tasks._forks import note_process


async def test_a_forked_child_leaves_it(cgroup_parent: str) -> None:
    """A forked child doesn't remove the empty group for shims and keepers: the parent's keeper may
    be about to enter."""
    hierarchies = Hierarchies.discover()
    if not hierarchies.usable:
        pytest.skip("cgroups can't be made here")
    note_process()
    child = -1
    async with group_apart(hierarchies, cgroup_parent) as ways:
        child = os.fork()
        if child != 0:
            await trio.to_thread.run_sync(os.waitpid, child, 0)
            assert ways
            assert [way for way in ways if not Path(way).exists()] == []
    if child == 0:
        os._exit(0)
    assert [way for way in ways if Path(way).exists()] == []
