"""Measure several ways of doing the same work in one run, in turns.

Other load on the machine meets all ways alike, so the ratios can be trusted.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from _figures import Summary

Way = Callable[[], Awaitable[float]]
"""Does the work once, and returns the figure."""

_T = TypeVar("_T")
_LEAST = 3


async def take_turns(
    ways: Mapping[str, Way],
    rounds: int,
    *,
    seconds: float,
    seldom: Mapping[str, int] | None = None,
) -> dict[str, list[float]]:
    """Do the work each way, again and again, in a changing order.

    Args:
        ways: the ways, by name.
        rounds: how many turns each way has, after a first turn that isn't counted.
        seconds: after this time no round begins, except for the first few.
        seldom: slow ways, by name: a way has one turn in this many rounds.

    Returns:
        The figures of each way.
    """
    figures: dict[str, list[float]] = {name: [] for name in ways}
    late = time.monotonic() + seconds
    for turn in range(1 + rounds):
        if turn > _LEAST and time.monotonic() > late:
            break
        for name in order(list(ways), turn):
            if turn % (seldom or {}).get(name, 1) == 0:
                figures[name].append(await ways[name]())
    return {name: values[1:] or values for name, values in figures.items()}


def order(names: Sequence[_T], turn: int) -> Iterator[_T]:
    """Return the names in the order of one round.

    Work that one way leaves to the kernel slows down the next way. So each way comes first equally
    often, and has each neighbour equally often.
    """
    first = turn // 2 % len(names)
    rotated = [*names[first:], *names[:first]]
    return reversed(rotated) if turn % 2 else iter(rotated)


def timed(work: Callable[[], Awaitable[object]]) -> Way:
    """Return the way whose figure is the milliseconds that the work takes."""

    async def way() -> float:
        begin = time.perf_counter()
        await work()
        return (time.perf_counter() - begin) * 1e3

    return way


def timed_sync(work: Callable[[], object]) -> Way:
    """Return the same for work that blocks; no other task has work meanwhile."""

    async def way() -> float:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) * 1e3

    return way


def summaries(figures: Mapping[str, Sequence[float]]) -> dict[str, Summary]:
    """Summarize the figures of each way."""
    return {name: Summary.of(values) for name, values in figures.items() if values}
