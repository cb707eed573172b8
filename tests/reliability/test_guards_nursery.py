"""Guards of the nurseries for tasks of our own: whatever order a block and its tasks end in."""

from __future__ import annotations

import pytest
import trio

from supervisor._nursery import background_nursery, lasting_nursery

SECONDS = 10


class Oops(Exception):
    pass


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("a bug")


async def test_the_blocks_end_ends_them() -> None:
    """Nobody waits for tasks that go on for ever."""
    with trio.fail_after(SECONDS):
        async with background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)


async def test_a_bug_beside_is_told() -> None:
    """What a task raises isn't lost behind what the block raises: both come, in a group."""
    with trio.fail_after(SECONDS), pytest.raises(BaseExceptionGroup) as caught:
        async with background_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await trio.lowlevel.checkpoint()
            raise Oops
    assert sorted(type(error).__name__ for error in caught.value.exceptions) == [
        "Oops",
        "ValueError",
    ]


async def test_cancelled_and_raised() -> None:
    """Tasks that were cancelled from outside as well put no group around what the block raises."""
    with trio.CancelScope() as scope, pytest.raises(Oops):
        async with background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            scope.cancel()
            raise Oops


async def test_what_came_before_stays_with_it() -> None:
    """An error keeps the one during whose handling it was raised, and gets no other."""
    with pytest.raises(Oops) as caught:
        async with background_nursery():
            try:
                raise KeyError("first")
            except KeyError:
                raise Oops  # noqa: B904
    assert isinstance(caught.value.__context__, KeyError)


async def test_a_lasting_one_goes_on_in_the_clean_up() -> None:
    """Its tasks go on while the block, cancelled, cleans up; they end with it."""
    went_on = trio.Event()
    with trio.fail_after(SECONDS):
        with trio.CancelScope() as scope:
            async with lasting_nursery() as nursery:
                waits = trio.Event()

                async def answer() -> None:
                    await waits.wait()
                    await trio.lowlevel.checkpoint()
                    went_on.set()

                nursery.start_soon(answer)
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.move_on_after(SECONDS / 2, shield=True):
                        waits.set()
                        await went_on.wait()
        assert scope.cancelled_caught
    assert went_on.is_set()


async def test_a_lasting_one_that_is_cancelled_as_it_opens() -> None:
    """It opens all the same: the block is for whoever opened it, clean-up and all."""
    opened = False
    with trio.CancelScope() as scope:
        scope.cancel()
        async with lasting_nursery():
            opened = True
    assert opened
