"""Children: spawned only if they can be held, and their ends noticed, once."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from supervisor.children._patrol import Patrol
from supervisor.children._pidfd import PidFd
from tests.support.children import kill, sleeping
from tests.support.containers import until
from tests.support.descriptors import only


@contextlib.asynccontextmanager
async def patrolling(seconds: float) -> AsyncIterator[Patrol]:
    """Have a patrol go round."""
    patrol = Patrol(seconds)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(patrol.run)
        yield patrol
        nursery.cancel_scope.cancel()
    patrol.close()


async def test_a_number_that_was_used_again(children: list[PidFd]) -> None:
    """A descriptor that has the number of an earlier one isn't taken for that one."""
    told: list[str] = []
    gc.collect()  # no lower number becomes free meanwhile
    async with patrolling(0.1) as patrol:
        first = sleeping(children)
        fd = first.fd
        with patrol.watching(first, lambda: told.append("first")):
            kill(first)
            await wait_all_tasks_blocked()  # the patrol has noticed
        first.reap()
        first.close()
        second = sleeping(children)
        assert second.fd == fd
        with patrol.watching(second, lambda: told.append("second")):
            await trio.sleep(0.2)
            assert told == []
            kill(second)
            with trio.fail_after(10):
                await until(lambda: told, "its notice")
        assert told == ["second"]


async def test_an_end_is_noticed_once(children: list[PidFd]) -> None:
    """A process that has ended and isn't reaped wakes the patrol once, and not all the time."""
    told: list[str] = []
    async with patrolling(0.02) as patrol:
        child = sleeping(children)
        with trio.fail_after(10), patrol.watching(child, lambda: told.append("child")):
            kill(child)
            await until(lambda: told, "its notice")
            await wait_all_tasks_blocked(0.05)
            assert told == ["child"]


def test_nothing_is_run_that_could_not_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor for the child no child is spawned, not even one that is killed at
    once."""
    ran: list[object] = []
    spawn = os.posix_spawn

    def recorded(*args: Any, **options: Any) -> int:
        ran.append(args[0])
        return spawn(*args, **options)

    monkeypatch.setattr(os, "posix_spawn", recorded)
    with only(0), pytest.raises(OSError, match="Too many open files"):
        PidFd.spawn(["/bin/true"])
    assert ran == []
