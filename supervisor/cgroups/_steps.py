"""Work in small steps: a little is done at once, more of it in a thread.

A container decides how many processes and cgroups there are. Work that grows with their number is a
generator with short steps, so that it never holds up Trio's thread for long.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeVar

import trio

from ..tasks import in_thread

T = TypeVar("T")

Steps = Generator[None, None, T]

AT_ONCE_SECONDS = 0.002  # a thread costs a tenth of that, and small work needs none


def begin(steps: Steps[T], seconds: float = AT_ONCE_SECONDS) -> tuple[bool, T | None]:
    """Take steps for some time; return whether the work is done, and the result."""
    end = time.monotonic() + seconds
    try:
        while True:
            next(steps)
            if time.monotonic() > end:
                return False, None
    except StopIteration as last:
        return True, last.value


def finish(steps: Steps[T]) -> T:
    """Take all steps."""
    while True:
        try:
            next(steps)
        except StopIteration as last:
            result: T = last.value
            return result


async def carry_out(steps: Steps[T], limiter: trio.CapacityLimiter) -> T:
    """Take all steps: at once if they are few, else in a thread.

    Cancellation: the work stops between two steps.
    """
    try:
        done, result = begin(steps)
        if done:
            return result  # type: ignore[return-value]  # not None when done
        return await in_thread(
            _finish_in_thread, steps, limiter=limiter, otherwise=lambda: finish(steps)
        )
    finally:
        steps.close()


def _finish_in_thread(steps: Steps[T]) -> T:
    def checked() -> Steps[T]:
        while True:
            try:
                next(steps)
            except StopIteration as last:
                result: T = last.value
                return result
            trio.from_thread.check_cancelled()
            yield

    return finish(checked())
