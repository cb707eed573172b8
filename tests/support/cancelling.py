"""Cancel an operation after the n-th checkpoint, for every n until the operation completes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

TOO_MANY = 400


class CancelAfter(trio.abc.Instrument):
    """Cancels a scope at the n-th border of a step of any task: each checkpoint makes two.

    After a step the task waits, and the cancellation wakes the task; before a step something else
    has woken the task, which meets the cancellation at the next checkpoint. All tasks count, since
    an operation's work is done by tasks in the supervisor's nursery.
    """

    def __init__(self, steps: int) -> None:
        self.scope = trio.CancelScope()
        self.left = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._count()

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def cancelled_after(steps: int, operation: Callable[[], Awaitable[object]]) -> bool:
    """Run ``operation``, cancelled after ``steps`` checkpoints; return whether that was
    cancelled."""
    canceller = CancelAfter(steps)
    trio.lowlevel.add_instrument(canceller)
    try:
        with canceller.scope:
            await operation()
    finally:
        trio.lowlevel.remove_instrument(canceller)
    return canceller.scope.cancelled_caught


async def for_every_checkpoint(
    attempt: Callable[[int], Awaitable[bool]], *, least: int = 2
) -> None:
    """Call ``attempt(n)`` for n = 1, 2, ... until an attempt returns that nothing was cancelled.

    ``least`` is the smallest accepted number of cancelled attempts.
    """
    cancelled = 0
    for steps in range(1, TOO_MANY):
        if not await attempt(steps):
            break
        cancelled += 1
    assert least <= cancelled < TOO_MANY - 1  # the operation has checkpoints, and an end


async def some_checkpoints(attempt: Callable[[int], Awaitable[bool]], *, each: bool) -> None:
    """As `for_every_checkpoint`, for an operation that may have no checkpoint for a
    cancellation; without ``each``, from the twelfth step on only every seventh is tried."""
    for steps in range(1, TOO_MANY) if each else (*range(1, 12), *range(12, TOO_MANY, 7)):
        if not await attempt(steps) and steps > 60:
            return
