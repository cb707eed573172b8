"""Calls that would hold up Trio's loop: in a thread, or on the loop if no thread can be started."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")

# CPython's thread_PyThread_start_new_thread raises this as a plain RuntimeError.
_NONE = "can't start new thread"


def stop_waiting(fd: int) -> None:
    """Wake the tasks that wait for a descriptor, which is about to be closed.

    In a thread without a Trio run there are none.
    """
    with contextlib.suppress(RuntimeError):
        trio.lowlevel.notify_closing(fd)


async def in_thread(
    function: Callable[..., T],
    *args: object,
    limiter: trio.CapacityLimiter | None = None,
    otherwise: Callable[[], T] | None = None,
) -> T:
    """Call a function in a thread, as `trio.to_thread.run_sync`.

    Args:
        function: the function to call.
        args: the function's arguments.
        limiter: how many threads there may be.
        otherwise: what to call instead, in Trio's thread, if no more thread can be started
            (RLIMIT_NPROC, pids.max). None: ``function`` with ``args``.
    """
    try:
        return await trio.to_thread.run_sync(function, *args, limiter=limiter)
    except RuntimeError as error:
        if str(error) != _NONE:
            raise
    return function(*args) if otherwise is None else otherwise()
