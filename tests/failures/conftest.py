"""What every test here asks at its end: is anything left?"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.failures.helpers import cgroups_of, left, living, until

NothingLeft = Callable[[], Awaitable[None]]


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
