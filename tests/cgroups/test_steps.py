"""Work in small steps: at once if there is little, in a thread if there is more."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest
import trio

from supervisor.cgroups._steps import AT_ONCE_SECONDS, Steps, begin, carry_out


def steps(threads: set[int], count: int, seconds: float) -> Steps[int]:
    """Note the thread of each of so many steps, which take so long."""
    for _ in range(count):
        threads.add(threading.get_ident())
        time.sleep(seconds)
        yield
    return count


@pytest.mark.parametrize("much", [False, True])
async def test_only_much_work_goes_to_a_thread(much: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only much work goes to a thread: a thread costs a fraction of a millisecond, and Trio's own
    has other tasks to run."""
    threads: set[int] = set()
    if not much:  # a busy machine may stand still for longer between two steps
        monkeypatch.setattr("supervisor.cgroups._steps.begin", partial(begin, seconds=60.0))
    work = steps(threads, 3, 2 * AT_ONCE_SECONDS if much else 0)
    assert await carry_out(work, trio.CapacityLimiter(1)) == 3
    assert len(threads) == (2 if much else 1)
    assert threading.get_ident() in threads


async def test_cancelled_between_two_steps() -> None:
    """A deadline ends endless work between two steps."""
    threads: set[int] = set()
    with trio.move_on_after(0.05) as scope:
        await carry_out(steps(threads, 1_000_000, 0.003), trio.CapacityLimiter(1))
    assert scope.cancelled_caught


@pytest.mark.parametrize("much", [False, True])
async def test_where_no_thread_can_be_started(much: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where RLIMIT_NPROC allows no thread, all the work is done in Trio's: late is better than
    never."""

    def none(*args: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", none)
    threads: set[int] = set()
    work = steps(threads, 3, 2 * AT_ONCE_SECONDS if much else 0)
    assert await carry_out(work, trio.CapacityLimiter(1)) == 3
    assert threads == {threading.get_ident()}
