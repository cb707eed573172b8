"""Guards of the nurseries for tasks of our own: in whatever order a block and its tasks end."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio

from supervisor.tasks._nursery import background_nursery, lasting_nursery

SECONDS = 10

Context = AbstractAsyncContextManager[trio.Nursery]


class Oops(Exception):
    pass


async def fail_when_cancelled() -> None:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("a bug")


async def test_the_blocks_end_ends_them() -> None:
    """The end of the block ends tasks that would go on for ever."""
    with trio.fail_after(SECONDS):
        async with background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)


async def test_a_bug_beside_is_told() -> None:
    """A task's error isn't lost behind the block's: both come, in a group."""
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
    """The block's error comes without a group, even if the tasks were cancelled from outside as
    well."""
    with trio.CancelScope() as scope, pytest.raises(Oops):
        async with background_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            scope.cancel()
            raise Oops


async def test_what_came_before_stays_with_it() -> None:
    """An error keeps the context in which it was raised, and gets no other."""
    with pytest.raises(Oops) as caught:
        async with background_nursery():
            try:
                raise KeyError("first")
            except KeyError:
                raise Oops  # noqa: B904
    assert isinstance(caught.value.__context__, KeyError)


async def test_a_lasting_one_goes_on_in_the_clean_up() -> None:
    """A lasting nursery's tasks go on while the cancelled block cleans up, and end with the
    block."""
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
    """A lasting nursery that is cancelled while opening opens all the same: the block, clean-up and
    all, is the caller's."""
    opened = False
    with trio.CancelScope() as scope:
        scope.cancel()
        async with lasting_nursery():
            opened = True
    assert opened


def _group() -> BaseExceptionGroup[BaseException]:
    inner = BaseExceptionGroup("inner", [Oops(1), KeyboardInterrupt()])
    return BaseExceptionGroup("outer", [inner, ExceptionGroup("beside", [Oops(2)])])


@pytest.mark.parametrize("opened", [background_nursery, lasting_nursery])
async def test_a_group_comes_out_as_it_is(opened: Callable[[], Context]) -> None:
    """A group comes out unchanged: cancel scopes split groups, and once a nested one came out as a
    copy, in a group of our nursery's."""
    group = _group()
    with trio.fail_after(SECONDS), pytest.raises(BaseExceptionGroup) as caught:
        async with opened() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            raise group
    assert caught.value is group
    assert [type(error) for error in group.exceptions] == [BaseExceptionGroup, ExceptionGroup]


async def test_a_bug_beside_a_group_is_told() -> None:
    """A task's bug beside a group isn't taken for one of the group's own errors."""
    group = _group()
    with trio.fail_after(SECONDS), pytest.raises(BaseExceptionGroup) as caught:
        async with background_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            await trio.lowlevel.checkpoint()
            raise group
    assert caught.value is not group
    assert caught.value.subgroup(ValueError) is not None
    assert caught.value.subgroup(Oops) is not None


def _interrupted(opened: Callable[[], Context], where: str) -> list[str]:
    """Run a block that is interrupted at one moment; return how the block went on."""
    went: list[str] = []

    @trio.lowlevel.enable_ki_protection
    async def linger() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                if where == "leaving":
                    signal.raise_signal(signal.SIGINT)
                await trio.sleep(0.01)
            went.append("tasks ended")

    @trio.lowlevel.enable_ki_protection
    async def main() -> None:
        with trio.fail_after(SECONDS):
            if where == "entering":
                signal.raise_signal(signal.SIGINT)
            async with opened() as nursery:
                went.append("entered")
                nursery.start_soon(linger)
                await trio.lowlevel.checkpoint()
                await trio.lowlevel.checkpoint()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    return went


@pytest.mark.parametrize("opened", [background_nursery, lasting_nursery])
def test_interrupted_as_its_tasks_end(opened: Callable[[], Context]) -> None:
    """Ctrl-C while the tasks end comes out plain: once it came in a group."""
    assert _interrupted(opened, "leaving") == ["entered", "tasks ended"]


def test_a_lasting_one_that_is_interrupted_as_it_opens() -> None:
    """Ctrl-C while a lasting nursery opens ends the run: once the run hung for ever, because the
    shielded scope was cancelled too late."""
    assert _interrupted(lasting_nursery, "entering") == []
