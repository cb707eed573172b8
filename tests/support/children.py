"""Children that sleep until a test kills them."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator

import pytest

from supervisor.children._pidfd import PidFd


@pytest.fixture
def children() -> Iterator[list[PidFd]]:
    """Children of ours that sleep; they are killed and reaped in the end."""
    held: list[PidFd] = []
    yield held
    for child in held:
        if child.fd >= 0:
            kill(child)
            child.reap()
            os.close(child.fd)


def sleeping(held: list[PidFd]) -> PidFd:
    """Spawn one."""
    held.append(PidFd.spawn([sys.executable, "-ISc", "import signal; signal.pause()"]))
    return held[-1]


def kill(child: PidFd) -> None:
    """Kill a child and wait until the child has ended, with nothing else running."""
    child.kill()
    assert select.select([child.fd], [], [], 10)[0]
