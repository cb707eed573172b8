"""Work in small steps: at once while it is little, in a thread when there is more of it.

A container decides how many processes and cgroups it has. Whatever grows with them is written as
a generator whose every step is short, so that it never holds Trio's thread for long.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TypeVar

import trio

from ..tasks import in_thread

T = TypeVar("T")

Steps = Generator[None, None, T]

AT_ONCE_SECONDS = 0.002  # a thread costs a tenth of that, and small work none


def begin(steps: Steps[T], seconds: float = AT_ONCE_SECONDS) -> tuple[bool, T | None]:
    """Take steps for some time; return whether that was all, and then the result."""
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

    Cancellation: it ends between two steps.
    """
    try:
        done, result = begin(steps)
        if done:
            return result  # type: ignore[return-value]  # there is one when it is done
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
