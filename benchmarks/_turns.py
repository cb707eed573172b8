"""Measure several ways of doing the same in one run, by turns.

Whatever else the machine does meets all of them alike: so it is the ratios that can be trusted.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from _figures import Summary

Way = Callable[[], Awaitable[float]]
"""Does it once, and returns the figure."""

_T = TypeVar("_T")
_LEAST = 3


async def take_turns(
    ways: Mapping[str, Way],
    rounds: int,
    *,
    seconds: float,
    seldom: Mapping[str, int] | None = None,
) -> dict[str, list[float]]:
    """Do it each way, again and again, in an order that changes.

    Args:
        ways: by name.
        rounds: how often each has its turn, after a first one that isn't counted.
        seconds: no round but the first few begins later than this.
        seldom: the ways that have a turn only every so many rounds, since they are slow.

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

    What one leaves to the kernel to do later, the next one pays. So each comes first as often
    as any other, and each has every neighbour as often as that.
    """
    first = turn // 2 % len(names)
    rotated = [*names[first:], *names[:first]]
    return reversed(rotated) if turn % 2 else iter(rotated)


def timed(work: Callable[[], Awaitable[object]]) -> Way:
    """Return the way whose figure is how many milliseconds the work takes."""

    async def way() -> float:
        begin = time.perf_counter()
        await work()
        return (time.perf_counter() - begin) * 1e3

    return way


def timed_sync(work: Callable[[], object]) -> Way:
    """Return the same for work that blocks; nobody else has anything to do meanwhile."""

    async def way() -> float:
        begin = time.perf_counter()
        work()
        return (time.perf_counter() - begin) * 1e3

    return way


def summaries(figures: Mapping[str, Sequence[float]]) -> dict[str, Summary]:
    """Summarize the figures of each way."""
    return {name: Summary.of(values) for name, values in figures.items() if values}
