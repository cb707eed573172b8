"""Deadlines count only the time in which the program could run."""

from __future__ import annotations

import math
import os
import time

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock

from supervisor.tasks._within import _put_off, _watch, expiring, granted, nap, within

LONG = 1.2
"""Seconds for which the loop doesn't turn, as in a stopped program."""


def _stopped() -> None:
    time.sleep(LONG)


@pytest.mark.parametrize("shield", [False, True])
async def test_time_in_which_nothing_could_run_is_not_counted(shield: bool) -> None:
    """Time in which the program couldn't run isn't counted: a supervisor that was stopped for 31
    seconds once said that a clean-up had taken 30."""
    with within(LONG / 2, shield=shield) as scope:
        await trio.lowlevel.checkpoint()
        _stopped()
        await trio.sleep(0.1)  # what has come meanwhile is looked at
    assert not scope.cancelled_caught


async def test_what_was_left_before_is_left_afterwards() -> None:
    """A deadline has as much time left after a stop as before, and no more: then it expires."""
    begun = trio.current_time()
    with within(1.0) as scope:
        await trio.lowlevel.checkpoint()
        _stopped()
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert LONG + 0.8 < trio.current_time() - begun < LONG + 1.0 + LONG


async def test_a_deadline_expires_in_its_time() -> None:
    """A deadline expires in time if the loop turns regularly."""
    begun = trio.current_time()
    with within(0.2) as scope:
        while True:
            await trio.sleep(0.001)
    assert scope.cancelled_caught
    assert 0.2 <= trio.current_time() - begun < LONG


async def test_others_deadlines_are_left_alone() -> None:
    """A user's own cancel scope keeps its deadline."""
    with trio.move_on_after(LONG / 2) as theirs:
        with within(LONG / 2) as ours:
            _stopped()
            await trio.sleep(0.1)
    assert theirs.cancelled_caught and not ours.cancelled_caught


def test_a_long_deadline_gets_back_what_was_lost_and_not_more() -> None:
    """A long deadline gets back the lost time and not more: the loop may have turned long before a
    stop, and that time is counted."""
    scope = trio.CancelScope(deadline=3600.0)
    _put_off(scope, since=100.0, now=500.0, lost=40.0)
    assert scope.deadline == 3640.0


def test_one_that_was_about_to_expire_gets_some_seconds_to_look() -> None:
    """A deadline that was about to expire gets some seconds more, because the stop may have come at
    the beginning of a turn."""
    scope = trio.CancelScope(deadline=400.0)
    _put_off(scope, since=100.0, now=500.0, lost=40.0)
    assert scope.deadline == 505.0
    scope = trio.CancelScope(deadline=101.0)
    _put_off(scope, since=100.0, now=500.0, lost=40.0)
    assert scope.deadline == 501.0


class _Turns(trio.abc.Instrument):
    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.parametrize("seconds", [math.inf, 3600.0])
async def test_an_idle_supervisor_is_not_woken(seconds: float) -> None:
    """An idle supervisor isn't woken: once a deadline of an hour was looked at each second."""
    with within(60.0):  # the earlier deadline leaves no task that goes on
        await trio.lowlevel.checkpoint()
    turns = _Turns()
    with within(seconds):
        await trio.sleep(0.6)  # what is left of that beat
        trio.lowlevel.add_instrument(turns)
        await trio.sleep(LONG)
    trio.lowlevel.remove_instrument(turns)
    assert turns.count <= 2


def test_a_tests_clock_passes_as_that_likes() -> None:
    """A user's deadline passes by the test's clock: no jump is lost, and no step of ours delays
    it."""

    async def main() -> None:
        turns = _Turns()
        trio.lowlevel.add_instrument(turns)
        begun = trio.current_time()
        with granted(100.0) as scope:
            await trio.sleep_forever()
        assert scope.cancelled_caught
        assert trio.current_time() - begun == 100.0
        assert _watch() is None
        assert turns.count < 5

    trio.run(main, clock=MockClock(autojump_threshold=0))


CLOCKS = {
    "jumps": lambda: MockClock(autojump_threshold=0),
    "jumps later": lambda: MockClock(autojump_threshold=0.01),
    "stands": MockClock,
    "flies": lambda: MockClock(rate=1000.0),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_what_the_kernel_does_has_real_time(clock: str) -> None:
    """The kernel gets real time: once, under a clock that jumps, 60 seconds for a runtime were over
    at once; under one that stands, no poll came to a second look."""

    async def main() -> None:
        for limited in (lambda: within(0.05), lambda: within(0.05, shield=True, still=False)):
            begun = time.monotonic()
            with limited() as scope:
                await trio.sleep_forever()
            assert scope.cancelled_caught
            assert 0.05 <= time.monotonic() - begun < 5
        begun = time.monotonic()
        for _ in range(3):  # the next timer may have the number of the one before
            await nap(0.01)
        with expiring() as expire:
            expire(60)
            expire(0.02)
            await trio.sleep_forever()
        assert 0.05 <= time.monotonic() - begun < 5

    descriptors = len(os.listdir("/proc/self/fd"))
    trio.run(main, clock=CLOCKS[clock]())
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_clock_stands_while_the_kernel_is_waited_for() -> None:
    """A clock stands while the kernel is waited for, and goes on afterwards, or as a test has set
    it meanwhile."""
    clock = MockClock(autojump_threshold=0)
    went: list[str] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def jump() -> None:
                await trio.sleep(3600)
                went.append("an hour")

            nursery.start_soon(jump)
            with within(60):
                await nap(0.02)
                await nap(0.02)
                went.append("the kernel")
            assert clock.autojump_threshold == 0
            with within(60, still=False):
                await trio.sleep(7200)
        with within(60):
            clock.autojump_threshold = 0.5
        assert clock.autojump_threshold == 0.5

    trio.run(main, clock=clock)
    assert went == ["the kernel", "an hour"]
