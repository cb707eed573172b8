"""What every test here asks at its end: is anything left?"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.failures.helpers import cgroups_of, left, living, until

NothingLeft = Callable[[], Awaitable[None]]

TEST_SECONDS = 45


def pytest_itemcollected(item: pytest.Item) -> None:
    """Cancel a test that hangs: unlike a time-out from outside, that lets it clean up."""
    test = getattr(item, "obj", None)
    if not inspect.iscoroutinefunction(test):
        return

    @functools.wraps(test)
    async def bounded(**fixtures: object) -> None:
        with trio.fail_after(TEST_SECONDS):
            await test(**fixtures)

    item.obj = bounded  # type: ignore[attr-defined]


@pytest.fixture
def nothing_left(root: Path, cgroup_parent: str) -> NothingLeft:
    """Fail unless no directory, cgroup or living process is left of any container."""
    before = living(os.getpid())

    async def check() -> None:
        assert left(root) == []
        assert cgroups_of(cgroup_parent) == []
        await until(
            lambda: living(os.getpid()) <= before,
            lambda: f"no process is left: {living(os.getpid()) - before}",
        )

    return check
